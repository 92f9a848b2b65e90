/*
 * Single-steps the host through translated code and looks at every memory access before it is made: translated code may
 * touch the guest's memory, its windows, and of the monitor's own memory what the translator's base register leads to.
 * C functions run at full speed in between. White box: it knows the engine's insides, and patches its stubs.
 */
#ifndef TESTS_STEPPER_H
#define TESTS_STEPPER_H

#include "translator/machine.h"

struct stepper {
    uint64_t steps;      /* host instructions of translated code */
    uint64_t in_memory;  /* accesses to guest memory in the monitor's mapping of it */
    uint64_t in_windows; /* to regions of windows, and the guards around them */
    uint64_t in_state;   /* to the vCPU's state and the tables of its view */
    uint64_t in_bounce;  /* to the buffers of slow accesses */
    uint64_t on_stack;   /* calls and returns on the shadow stacks */
    uint64_t refused;    /* to addresses that no user program can have, not canonical or the kernel's, and checks that fail */
    uint64_t violations; /* to anything else */
    char first[160];     /* the first violation */
};

/*
 * Watches the only vCPU of a machine, which this thread runs, from its next run on. One machine at a time. False: the
 * stubs are not as they were known to be.
 */
bool stepper_watch(struct trapeze_machine *machine, struct stepper *stepper);

#endif
