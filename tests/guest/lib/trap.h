/* Inside of the trap handling, for the programs that set up gates of their own. */
#ifndef TRAP_H
#define TRAP_H

#include "guest.h"

/* type_and_dpl: the access byte: 8Eh interrupt gate, 8Fh trap gate, EEh interrupt gate with DPL 3. */
void gate_set(unsigned vector, const void *entry, uint16_t selector, unsigned type_and_dpl, unsigned ist);
/* The library's own entry again. */
void gate_default(unsigned vector);
/* The task-state segment of a processor, hardware layout. */
void *cpu_tss(unsigned index);
void traps_init(void);
_Noreturn void trap_unexpected(const struct state *state);

#endif
