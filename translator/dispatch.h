/* What the files of the dispatcher share: dispatch.c, slow_access.c, fault.c. Light code. */
#ifndef TRANSLATOR_DISPATCH_H
#define TRANSLATOR_DISPATCH_H

#include "cpu/mode.h"
#include "cpu/views.h"
#include "cpu/xstate.h"
#include "translator/engine.h"

enum { GUEST_FLAGS = FLAG_ARITHMETIC | FLAG_DF, HOST_FLAGS = FLAG_FIXED | FLAG_IF };

static inline void flags_in(struct cpu *cpu) {
    cpu->hot.rflags = (cpu->hot.rflags & ~(uint64_t)GUEST_FLAGS) | (cpu->hot.raw_flags & GUEST_FLAGS);
}

static inline void flags_out(struct cpu *cpu) {
    cpu->hot.raw_flags = (cpu->hot.rflags & GUEST_FLAGS) | HOST_FLAGS;
}

static inline uint64_t scratch_s(const struct cpu *cpu) {
    return cpu->hot.scratch[1];
}

/* After an instruction that a C function ran: the host address for wherever the state says, or 0. */
uint64_t dispatch_after(struct cpu *cpu, enum cpu_result result);
/* Runs the current instruction of the block again, in code for the mode and view of now. */
uint64_t dispatch_again(struct cpu *cpu, const struct block *block);
/* The same, alone and with its accesses the slow way. */
uint64_t dispatch_slowly(struct cpu *cpu, const struct block *block);
/* Whether the run loop, or the dispatcher, has something to do before the next instruction. */
bool dispatch_must_leave(struct cpu *cpu);
/* The site behind a call that left, and its block; NULL when there is none. */
const struct site *dispatch_site(struct cpu *cpu, uint64_t return_address, struct block **block);
/* A way out without a site is a bug of the translator; stops this vCPU rather than run on. */
uint64_t dispatch_lost(struct cpu *cpu);

static inline bool dispatch_is_misaligned(const struct site *site, uint64_t linear) {
    return (site->data & SITE_ALIGNED) && (linear & (site->info - 1));
}

/* A fault of a memory operand, unless one comes before it. */
static inline enum cpu_result dispatch_operand_fault(struct cpu *cpu, const struct site *site, enum cpu_result result) {
    bool is_late = result == CPU_FAULT && (site->data & SITE_X87) && xstate_has_x87_error();
    return is_late ? x87_raise(cpu) : result;
}

#endif
