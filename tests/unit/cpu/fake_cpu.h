/*
 * A guest for the tests of instructions that need no descriptors: a processor of a real model over an array of memory
 * whose pages can be absent or a device's, with ports and an interrupt controller that note what they are asked.
 */
#ifndef TESTS_FAKE_CPU_H
#define TESTS_FAKE_CPU_H

#include <check.h>

#include "cpu/model.h"
#include "cpu/ops.h"

enum { FAKE_PAGES = 32, FAKE_BYTES = FAKE_PAGES * 4096, FAKE_CODE = 0x100, FAKE_STACK = 0x8000, FAKE_TSS = 0x1e000 };

enum fake_page { PAGE_RAM, PAGE_ABSENT, PAGE_DEVICE };

enum fake_mode { FAKE_REAL, FAKE_RING0, FAKE_RING3, FAKE_VM86, FAKE_LONG0, FAKE_LONG3 };

struct fake_cpu {
    struct cpu cpu; /* first: functions of cpu/access.h find the rest behind it */
    _Alignas(4096) uint8_t memory[FAKE_BYTES];
    enum fake_page page[FAKE_PAGES];
    unsigned device_accesses, mode_changes, flushes_all, flushes_page, flushes_space;
    uint64_t flushed; /* by flushes_page */
    bool kept_global;
    uint64_t port_value; /* what a port reads as; then it is counted up */
    struct {
        uint16_t port;
        uint8_t size, is_write;
        uint32_t value;
    } ports[64];
    unsigned port_count;
    struct trapeze_interrupt_controller controller;
    unsigned tpr;
    uint64_t apic_base;
};

/* model: a "-cpu" string that must be good. Running at FAKE_CODE; release with fake_cpu_destroy. */
struct fake_cpu *fake_cpu_create(enum fake_mode mode, const char *model);
void fake_cpu_destroy(struct fake_cpu *fake);

void fake_put(struct fake_cpu *fake, uint64_t linear, uint64_t value, unsigned size);
uint64_t fake_get(const struct fake_cpu *fake, uint64_t linear, unsigned size);

/* An instruction of 2 bytes, without a memory operand's registers; address and code size of the mode. */
struct cpu_op fake_instruction(const struct fake_cpu *fake, unsigned size);
/* The same with the memory operand [displacement]. */
struct cpu_op fake_memory_operand(const struct fake_cpu *fake, unsigned size, uint64_t address);

/* The vector of the fault, or -1 when the result is another one. */
int fake_vector(const struct fake_cpu *fake, enum cpu_result result);

/* Runs one test case as a program of its own: what main returns. */
int fake_cpu_run(TCase *tests);

#define FAKE_GPR(fake, name) ((fake)->cpu.hot.gpr[CPU_##name])

#endif
