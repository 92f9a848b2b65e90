/*
 * Runs the programs on every machine in turn: one agent a machine stays up for all of them, so that the measurements
 * that are compared lie seconds apart, whatever else the host does.
 */
#ifndef TOOLS_BENCH_DRIVER_ROUNDS_H
#define TOOLS_BENCH_DRIVER_ROUNDS_H

#include "tools/bench_driver/results.h"

struct plan {
    const char *guest, *kernel, *initrd;
    const char *program;            /* the agent's native binary */
    const char *monitors[MACHINES]; /* commands; NULL: that machine is not measured */
    const char *group;              /* NULL: all */
    unsigned rounds, divide;        /* counts are divided by it */
};

/* False when the native program cannot list what there is to run. */
bool rounds_list_programs(const struct plan *plan, struct results *results);

void rounds_run_programs(const struct plan *plan, struct results *results);

/* From start to the first line of /init, and the memory used at that point. */
void rounds_run_boots(const struct plan *plan, struct results *results);

/* How much more two processes do on two CPUs than one. */
void rounds_run_processors(const struct plan *plan, struct results *results);

#endif
