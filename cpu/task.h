/*
 * Hardware task switches (SDM vol. 3A, chapter 7).
 */
#ifndef CPU_TASK_H
#define CPU_TASK_H

#include "cpu/descriptor.h"

enum task_cause { TASK_JUMP, TASK_CALL, TASK_INTERRUPT, TASK_RETURN };

struct task_switch {
    uint16_t selector; /* of the new TSS */
    enum task_cause cause;
    uint64_t return_rip, flags; /* what the old task's TSS gets */
    bool has_error_code;        /* push error_code on the new task's stack */
    uint32_t error_code;
};

/*
 * The TSS descriptor that a task gate names: #GP where the selector is local, outside the GDT, no TSS or busy, #NP
 * where it is not present.
 */
enum cpu_result task_find(struct cpu *cpu, uint16_t selector, struct descriptor *tss);
/* The busy TSS descriptor that the link field of a nested task names: #TS in place of #GP. */
enum cpu_result task_find_parent(struct cpu *cpu, uint16_t selector, struct descriptor *tss);

/*
 * Switches to a TSS that the caller has checked but for its limit. CPU_JUMP, or CPU_FAULT: before anything
 * has changed, or in the context of the new task.
 */
enum cpu_result task_switch(struct cpu *cpu, const struct task_switch *task, const struct descriptor *tss);

#endif
