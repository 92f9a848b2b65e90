/*
 * Direct boot: puts a kernel, its modules and command line into guest memory, with the tables that a BIOS would have
 * left, and says in which state the boot processor enters it. Kinds, in the order they are recognised: multiboot 1
 * (flat or ELF), ELF with a PVH entry note, Linux bzImage.
 *
 * Memory and the boot processor's registers are all that is touched. What else a BIOS would have done is the machine's
 * to do, at each reset: A20 open, MTRRs of every processor (mtrr.h), the boot processor's local APIC in virtual wire
 * mode (software-enabled, LINT0 ExtINT, LINT1 NMI), and the chips where layout.h has them (PM block, PCI interrupt
 * routing).
 */
#ifndef BIOS_BOOT_H
#define BIOS_BOOT_H

#include "trapeze/trapeze.h"

/* Guest RAM: 0 .. ram_below_4g (at most 3 GiB, at least 1 MiB) and 4 GiB .. 4 GiB + ram_above_4g. */
struct boot_memory {
    uint64_t ram_below_4g, ram_above_4g;
    bool (*write)(void *opaque, guest_physical to, const void *from, size_t length); /* as trapeze_memory_write */
    void *opaque;
};

struct boot_request {
    const char *kernel;    /* path */
    const char *initrd;    /* path; for multiboot "file args,file args,...", where ",," is a comma; NULL: none */
    const char *append;    /* command line; NULL: empty */
    unsigned vcpu_count;   /* 1..BOOT_VCPUS_MAX; 0: 1 */
    unsigned serial_count; /* COM ports that exist, 0..2 */
    bool has_long_mode;    /* the processor model has it: a bzImage that can is entered in 64-bit mode */
    uint32_t cpu_signature, cpu_features; /* CPUID leaf 1 EAX and EDX for the MP table */
};

#define BOOT_VCPUS_MAX 254

/* One line without its end: the file (or option) and the reason. */
struct boot_error {
    char text[256];
};

/*
 * Loads everything and fills *bsp completely. False with *error filled in; guest memory may then be partly written.
 * May be called again on the same memory, as after a reset.
 */
bool boot_load(const struct boot_request *request, const struct boot_memory *memory, struct trapeze_registers *bsp,
               struct boot_error *error);

#endif
