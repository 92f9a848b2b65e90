/*
 * Loading segment registers (SDM vol. 3A, 3.4 and 5): the checks of a data or stack selector in every mode, and the
 * images that a register has in real and virtual-8086 mode.
 */
#ifndef CPU_SEGMENT_H
#define CPU_SEGMENT_H

#include "cpu/descriptor.h"

enum {
    SEGMENT_REAL_TYPE = 0x93,        /* present, writable data, accessed: what RESET leaves in every register */
    SEGMENT_VM86_ATTRIBUTES = 0xf3,  /* the same with DPL 3 */
    SEGMENT_FLAT_CODE = 0x9b | SEGMENT_G, /* DPL 0, execute and read, accessed; L or D to be added */
    SEGMENT_FLAT_DATA = 0x93 | SEGMENT_DB | SEGMENT_G,
};

/* A register with a null selector. */
static inline struct trapeze_segment segment_null(uint16_t selector) {
    return (struct trapeze_segment){.selector = selector, .attributes = SEGMENT_UNUSABLE};
}

/* A segment of 4 GiB at base 0 as SYSCALL and SYSENTER make it. */
static inline struct trapeze_segment segment_flat(uint16_t selector, uint32_t attributes, unsigned dpl) {
    return (struct trapeze_segment){
        .limit = 0xffffffff, .selector = selector, .attributes = attributes | dpl << SEGMENT_DPL_SHIFT};
}

static inline struct trapeze_segment segment_vm86(uint16_t selector) {
    return (struct trapeze_segment){.base = (uint32_t)selector << 4,
                                    .limit = 0xffff,
                                    .selector = selector,
                                    .attributes = SEGMENT_VM86_ATTRIBUTES};
}

/*
 * Loads ES, SS, DS, FS or GS with all checks of the current mode, and tells the translator's state of it. CPU_NEXT, or
 * CPU_JUMP where the mode key has changed: the caller sets rip then.
 */
enum cpu_result segment_load(struct cpu *cpu, unsigned index, uint16_t selector);

/*
 * The checks of a selector for DS, ES, FS or GS, and the register's image. Sets the accessed bit in memory. Limit, type
 * and privilege are `vector`, not present is #NP.
 */
enum cpu_result segment_check_data(struct cpu *cpu, uint16_t selector, enum cpu_vector vector,
                                   struct trapeze_segment *segment);

/* Loads CS in real or virtual-8086 mode. The caller calls cpu_mode_changed. */
void segment_set_real_code(struct cpu *cpu, uint16_t selector);

/* Loads CS from a checked descriptor; CPL becomes the selector's RPL. The caller calls cpu_mode_changed. */
void segment_set_code(struct cpu *cpu, const struct descriptor *d, uint16_t selector, unsigned cpl);

/* After a return to an outer level: empties the data segment registers that the new CPL may not use. */
void segment_drop_inner(struct cpu *cpu);

/* rip behind an instruction that began at hot.rip. */
uint64_t segment_next_rip(const struct cpu *cpu, unsigned length);

#endif
