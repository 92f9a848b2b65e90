/* A guest memory for the tests of bios/; see guest_double.h. */
#include "tests/unit/bios/guest_double.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FOUR_GIB UINT64_C(0x100000000)

static bool guest_double_write(void *opaque, guest_physical to, const void *from, size_t length) {
    uint8_t *bytes = guest_double_at(opaque, to.value, length);
    if (bytes)
        memcpy(bytes, from, length);
    return bytes != NULL;
}

static uint8_t *guest_double_map(uint64_t size) {
    if (size == 0)
        return NULL;
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert(at != MAP_FAILED);
    return at;
}

void guest_double_create(struct guest_double *guest, uint64_t ram_below_4g, uint64_t ram_above_4g) {
    *guest = (struct guest_double){
        .memory = {ram_below_4g, ram_above_4g, guest_double_write, guest},
        .request = {.vcpu_count = 1, .serial_count = 1, .has_long_mode = true},
        .low = guest_double_map(ram_below_4g),
        .high = guest_double_map(ram_above_4g),
        .kernel_fd = -1,
        .initrd_fd = -1,
    };
}

void guest_double_destroy(struct guest_double *guest) {
    munmap(guest->low, guest->memory.ram_below_4g);
    if (guest->high)
        munmap(guest->high, guest->memory.ram_above_4g);
    if (guest->kernel_fd >= 0)
        close(guest->kernel_fd);
    if (guest->initrd_fd >= 0)
        close(guest->initrd_fd);
}

static void guest_double_set_file(int *fd, char path[64], const void *bytes, size_t size) {
    if (*fd >= 0)
        close(*fd);
    *fd = memfd_create("file", MFD_CLOEXEC);
    assert(*fd >= 0);
    const ssize_t written = write(*fd, bytes, size);
    assert(written == (ssize_t)size);
    (void)written;
    snprintf(path, 64, "/proc/self/fd/%d", *fd);
}

void guest_double_set_kernel(struct guest_double *guest, const void *bytes, size_t size) {
    guest_double_set_file(&guest->kernel_fd, guest->kernel_path, bytes, size);
    guest->request.kernel = guest->kernel_path;
}

void guest_double_set_initrd(struct guest_double *guest, const void *bytes, size_t size) {
    guest_double_set_file(&guest->initrd_fd, guest->initrd_path, bytes, size);
    guest->request.initrd = guest->initrd_path;
}

bool guest_double_boot(struct guest_double *guest) {
    memset(&guest->bsp, 0xa5, sizeof guest->bsp);
    guest->error.text[0] = 0;
    return boot_load(&guest->request, &guest->memory, &guest->bsp, &guest->error);
}

uint8_t *guest_double_at(const struct guest_double *guest, uint64_t address, size_t length) {
    const struct boot_memory *memory = &guest->memory;
    if (address < memory->ram_below_4g && length <= memory->ram_below_4g - address)
        return guest->low + address;
    if (address >= FOUR_GIB && address - FOUR_GIB < memory->ram_above_4g &&
        length <= memory->ram_above_4g - (address - FOUR_GIB))
        return guest->high + (address - FOUR_GIB);
    return NULL;
}

uint64_t guest_double_get(const struct guest_double *guest, uint64_t address, unsigned size) {
    uint64_t value = 0;
    const uint8_t *bytes = guest_double_at(guest, address, size);
    assert(bytes);
    memcpy(&value, bytes, size);
    return value;
}
