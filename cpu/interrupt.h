/*
 * Delivery of one event through the interrupt descriptor table. interrupt.c chooses the mode and handles faults of the
 * delivery; gate.c walks the gates of protected and long mode.
 */
#ifndef CPU_INTERRUPT_H
#define CPU_INTERRUPT_H

#include "cpu/op.h"

struct interrupt_event {
    uint8_t vector;
    bool has_error_code;
    bool is_software; /* INT n, INT3, INTO: the gate's DPL counts */
    uint32_t error_code;
    uint64_t return_rip; /* what the handler returns to */
    uint64_t flags;      /* the image of RFLAGS that is pushed */
};

/*
 * Protected mode, virtual-8086 mode included, and long mode. CPU_JUMP, or CPU_FAULT before any change but what a task
 * switch has done; the EXT bit of the fault's error code is not set yet.
 */
enum cpu_result gate_deliver(struct cpu *cpu, const struct interrupt_event *event);

/*
 * The stack that the current TSS names for privilege level 0 to 2, with the checks of an inner stack segment: #TS, #NP,
 * #SS. Interrupts and call gates use it.
 */
enum cpu_result gate_inner_stack(struct cpu *cpu, unsigned level, struct trapeze_segment *segment, uint64_t *pointer);
/*
 * A stack pointer of the 64-bit TSS (SDM vol. 3A, figure 7-11): RSP0 to RSP2 by index 0 to 2, IST1 to IST7 by
 * GATE_IST + 1 to GATE_IST + 7.
 */
enum { GATE_IST = 3 };
enum cpu_result gate_long_stack(struct cpu *cpu, unsigned index, uint64_t *pointer);

/*
 * Whether the instruction has dealt with TF itself: it entered a handler that TF does not follow into, or has raised
 * the trap. After any other one that began with TF set a single-step trap is due.
 */
bool interrupt_ends_single_step(cpu_op_function *function);

/* What of RFLAGS an entry through a gate clears; interrupt gates clear IF, too. */
#define INTERRUPT_CLEARED_FLAGS ((uint64_t)(FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM))

#endif
