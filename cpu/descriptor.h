/*
 * Segment and gate descriptors in the guest's GDT, LDT and IDT (SDM vol. 3A, 3.4.5 and 5.8): finding, reading and
 * unpacking them, and the checks that several instructions share.
 */
#ifndef CPU_DESCRIPTOR_H
#define CPU_DESCRIPTOR_H

#include "cpu/cpu.h"

/* System descriptor types (SDM vol. 3A, table 3-2); the S bit is clear. */
enum {
    DESCRIPTOR_TSS16 = 1, DESCRIPTOR_LDT = 2, DESCRIPTOR_TSS16_BUSY = 3, DESCRIPTOR_CALL_GATE16 = 4,
    DESCRIPTOR_TASK_GATE = 5, DESCRIPTOR_INTERRUPT_GATE16 = 6, DESCRIPTOR_TRAP_GATE16 = 7, DESCRIPTOR_TSS32 = 9,
    DESCRIPTOR_TSS32_BUSY = 11, DESCRIPTOR_CALL_GATE32 = 12, DESCRIPTOR_INTERRUPT_GATE32 = 14,
    DESCRIPTOR_TRAP_GATE32 = 15,
    DESCRIPTOR_BUSY = 2,     /* in the type of a TSS */
    DESCRIPTOR_IS_32BIT = 8, /* in the type of a TSS or a gate */
};

struct descriptor {
    uint64_t raw;     /* its first 8 bytes */
    uint64_t address; /* linear */
};

/* Bits 3:0 are the type, bit 4 is S: a system type of the enum above compares equal. */
static inline unsigned descriptor_type(const struct descriptor *d) {
    return (unsigned)(d->raw >> 40) & 0x1f;
}
static inline unsigned descriptor_dpl(const struct descriptor *d) {
    return (unsigned)(d->raw >> 45) & 3;
}
static inline bool descriptor_is_present(const struct descriptor *d) {
    return (d->raw >> 47 & 1) != 0;
}
static inline bool descriptor_is_code(const struct descriptor *d) {
    return (d->raw >> 40 & (SEGMENT_S | SEGMENT_CODE)) == (SEGMENT_S | SEGMENT_CODE);
}
static inline bool descriptor_is_conforming(const struct descriptor *d) {
    return (d->raw >> 40 & SEGMENT_CONFORMING) != 0;
}
static inline bool descriptor_is_writable_data(const struct descriptor *d) {
    return (d->raw >> 40 & (SEGMENT_S | SEGMENT_CODE | SEGMENT_WRITABLE)) == (SEGMENT_S | SEGMENT_WRITABLE);
}
static inline bool descriptor_is_long_code(const struct descriptor *d) {
    return (d->raw >> 40 & SEGMENT_L) != 0;
}
static inline bool descriptor_is_big(const struct descriptor *d) {
    return (d->raw >> 40 & SEGMENT_DB) != 0;
}
static inline uint32_t descriptor_limit(const struct descriptor *d) {
    const uint32_t limit = (uint32_t)(d->raw & 0xffff) | (uint32_t)(d->raw >> 32 & 0xf0000);

    return (d->raw >> 40 & SEGMENT_G) ? limit << 12 | 0xfff : limit;
}
static inline uint32_t descriptor_base(const struct descriptor *d) {
    return (uint32_t)(d->raw >> 16 & 0xffffff) | (uint32_t)(d->raw >> 32 & 0xff000000);
}
/* The target of a gate. */
static inline uint16_t descriptor_gate_selector(const struct descriptor *d) {
    return (uint16_t)(d->raw >> 16);
}
static inline uint32_t descriptor_gate_offset(const struct descriptor *d) {
    return (uint32_t)(d->raw & 0xffff) | (uint32_t)(d->raw >> 32 & 0xffff0000);
}

/* Null selectors are 0 to 3. */
static inline bool selector_is_null(uint16_t selector) {
    return (selector & ~3) == 0;
}
/* A selector as an error code (SDM vol. 3A, 6.13): index and TI. */
static inline uint32_t selector_error(uint16_t selector) {
    return selector & 0xfffcu;
}

/* Whether bits 63:47 are all equal: there is no LA57. */
/* Linear address of a descriptor of `size` bytes; false when that is not within the limit of the GDT or LDT. */
bool descriptor_locate(const struct cpu *cpu, uint16_t selector, unsigned size, uint64_t *address);
/* Reads a descriptor. A selector outside its table is `vector` with the selector as error code. */
enum cpu_result descriptor_fetch(struct cpu *cpu, uint16_t selector, enum cpu_vector vector, struct descriptor *d);
/*
 * The upper 8 bytes of a system descriptor in long mode, with the check of the limit and of its type field, which must
 * be 0; `vector` with the selector otherwise.
 */
enum cpu_result descriptor_fetch_upper(struct cpu *cpu, uint16_t selector, enum cpu_vector vector,
                                       const struct descriptor *d, uint64_t *upper);

/* Unpacks a descriptor into a segment register's image; the accessed bit is set in it. */
void descriptor_unpack(const struct descriptor *d, uint16_t selector, struct trapeze_segment *segment);
/* Sets the accessed bit of a code or data descriptor in memory, if it is clear; may be a page fault. */
enum cpu_result descriptor_mark_accessed(struct cpu *cpu, struct descriptor *d);
/* Sets or clears the busy bit of the TSS descriptor at a linear address; may be a page fault. */
enum cpu_result descriptor_set_busy(struct cpu *cpu, uint64_t address, bool is_busy);

/* Limit or canonical form of an instruction pointer in a code segment that is being entered: #GP(0). */
enum cpu_result descriptor_check_rip(struct cpu *cpu, const struct descriptor *code, uint64_t rip);
/* The checks of a code segment that a far return or IRET names; d is filled in. */
enum cpu_result descriptor_check_return(struct cpu *cpu, uint16_t selector, struct descriptor *d);
/*
 * The checks of a stack segment for privilege level cpl: null, limit, RPL, type, DPL are `vector`, not present is #SS.
 * is_null_allowed: a null selector is good (64-bit targets of privilege 0 to 2). Sets the accessed bit in memory.
 */
enum cpu_result descriptor_check_stack(struct cpu *cpu, uint16_t selector, unsigned cpl, bool is_null_allowed,
                                       enum cpu_vector vector, struct trapeze_segment *segment);

#endif
