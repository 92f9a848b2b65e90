/*
 * Ports and devices in memory: the machine's callbacks, or exits of trapeze_vcpu_run where nobody claims the address.
 *
 * An exit for a read abandons the instruction: its registers are put back, and when the caller has answered, it runs
 * again with the answers so far. An exit for a write comes after the instruction.
 */
#ifndef CPU_IO_H
#define CPU_IO_H

#include "cpu/cpu.h"

uint64_t cpu_io_read(struct cpu *cpu, enum trapeze_space space, uint64_t address, unsigned size);
void cpu_io_write(struct cpu *cpu, enum trapeze_space space, uint64_t address, unsigned size, uint64_t value);

/*
 * To be asked when an instruction that may have accessed devices has ended. True: it waits for an answer; its state has
 * been put back to before it, and cpu->stop is CPU_STOP_IO.
 */
static inline bool cpu_io_waits(const struct cpu *cpu) {
    return cpu->io.waiting;
}
void cpu_io_abandon(struct cpu *cpu);
/* The instruction has ended without waiting: its answers are used up. */
static inline void cpu_io_done(struct cpu *cpu) {
    cpu->io.answered = cpu->io.next = 0;
}
/* The caller's answer to the read that cpu->io.read describes. */
void cpu_io_answer(struct cpu *cpu, uint64_t value);

#endif
