/*
 * A guest for the tests of cpu/: a processor and an array of memory without paging, in place of cpu/access.c and
 * cpu/mode.c. Descriptor tables, TSS and stacks lie at fixed addresses, and one page may be made absent.
 */
#ifndef TESTS_FAKE_MEMORY_H
#define TESTS_FAKE_MEMORY_H

#include <check.h>

#include "cpu/ops.h"

enum {
    FAKE_SIZE = 0x40000,
    FAKE_GDT = 0x1000, FAKE_IDT = 0x2000, FAKE_LDT = 0x3000, FAKE_TSS = 0x4000, FAKE_TSS2 = 0x5000, FAKE_TSS16 = 0x6000,
    FAKE_STACK0 = 0x8000, FAKE_STACK1 = 0x8800, FAKE_STACK3 = 0x9000, FAKE_IST = 0xa000, FAKE_STACK_TSS2 = 0xb000,
    FAKE_HANDLER = 0x10000, FAKE_CODE = 0x11000, FAKE_USER = 0x12000,
};

/* Selectors of the GDT that fake_create makes. */
enum {
    SEL_CODE0 = 0x08, SEL_DATA0 = 0x10, SEL_CODE3 = 0x18 | 3, SEL_DATA3 = 0x20 | 3, SEL_TSS = 0x28, /* 16 bytes */
    SEL_CONFORMING0 = 0x38, SEL_LONG0 = 0x40, SEL_LONG3 = 0x48 | 3, SEL_CODE1 = 0x50 | 1, SEL_DATA1 = 0x58 | 1,
    SEL_TSS2 = 0x60, SEL_LDT = 0x70, /* 16 bytes */
    SEL_SPARE = 0x80,                /* for the tests; 16 bytes */
    SEL_TSS16 = 0x90, SEL_ABSENT_CODE0 = 0x98, SEL_CODE16 = 0xa0, SEL_DATA16 = 0xa8, SEL_READ_ONLY0 = 0xb0,
    FAKE_GDT_LIMIT = 0xb7,
};

enum fake_mode { FAKE_REAL, FAKE_RING0, FAKE_RING3, FAKE_VM86, FAKE_LONG0, FAKE_LONG3, FAKE_COMPAT3 };

struct fake {
    struct cpu cpu; /* first: functions of cpu/access.h find the rest behind it */
    uint8_t memory[FAKE_SIZE];
    uint64_t absent_page; /* accesses to it are page faults; 1: none */
    unsigned mode_changes;
    bool is_amd;
};

/* A processor running at FAKE_CODE (FAKE_USER at level 3) with interrupts enabled and IOPL 0; free() it. */
struct fake *fake_create(enum fake_mode mode);

void fake_write(struct fake *fake, uint64_t linear, uint64_t value, unsigned size);
uint64_t fake_read(const struct fake *fake, uint64_t linear, unsigned size);
/* The k-th value of `size` bytes on the stack, from its top. */
uint64_t fake_stack(const struct fake *fake, unsigned k, unsigned size);

/* access: P, DPL, S, type (bits 47:40); flags: G, D/B, L, AVL (bits 55:52). */
void fake_descriptor(struct fake *fake, uint16_t selector, uint32_t base, uint32_t limit, unsigned access,
                     unsigned flags);
/* A gate of 8 bytes in the IDT (long: 16 bytes); access as above. */
void fake_gate(struct fake *fake, unsigned vector, uint16_t selector, uint64_t offset, unsigned access);
void fake_call_gate(struct fake *fake, uint16_t at, uint16_t selector, uint64_t offset, unsigned access,
                    unsigned parameters);

/* An instruction of 2 bytes without operands; fields to be filled in. */
struct cpu_op fake_op(unsigned size);

/* The vector of the fault, or -1 when the result is another one. */
int fake_fault(const struct fake *fake, enum cpu_result result);

/* Runs one test case as a program of its own: what main returns. */
int fake_run(TCase *tests);

#endif
