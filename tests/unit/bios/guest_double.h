/*
 * A guest memory for the tests of bios/: plain host memory behind struct boot_memory, files made of bytes, and the
 * registers and error of the last boot. RAM above 4 GiB is backed apart.
 */
#ifndef TESTS_UNIT_BIOS_GUEST_DOUBLE_H
#define TESTS_UNIT_BIOS_GUEST_DOUBLE_H

#include "bios/boot.h"

struct guest_double {
    struct boot_memory memory;
    struct boot_request request;
    struct trapeze_registers bsp;
    struct boot_error error;
    uint8_t *low, *high;
    char kernel_path[64], initrd_path[64];
    int kernel_fd, initrd_fd;
};

void guest_double_create(struct guest_double *guest, uint64_t ram_below_4g, uint64_t ram_above_4g);
void guest_double_destroy(struct guest_double *guest);

/* The file becomes request.kernel, or request.initrd; replaces the one before. */
void guest_double_set_kernel(struct guest_double *guest, const void *bytes, size_t size);
void guest_double_set_initrd(struct guest_double *guest, const void *bytes, size_t size);

bool guest_double_boot(struct guest_double *guest);

/* Guest memory as a host pointer; NULL outside of RAM. */
uint8_t *guest_double_at(const struct guest_double *guest, uint64_t address, size_t length);
uint64_t guest_double_get(const struct guest_double *guest, uint64_t address, unsigned size);

#endif
