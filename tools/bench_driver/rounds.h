/*
 * Runs the programs on every machine in turn: one agent a machine stays up for all of them, so that the measurements
 * that are compared lie seconds apart, whatever else the host does.
 */
#ifndef TOOLS_BENCH_DRIVER_ROUNDS_H
#define TOOLS_BENCH_DRIVER_ROUNDS_H

#include "tools/bench_driver/plan.h"

/* One machine of each kind and of one shape, started when it is first needed. */
struct fleet {
    const struct plan *plan;
    struct shape shape;
    struct session sessions[MACHINES];
    unsigned starts[MACHINES];
};

/* Adds the programs that PROGRAM, an agent, has and that are wanted; false when it cannot list them. */
bool rounds_list_programs(const struct plan *plan, const char *program, struct results *results);

/* Runs the row's program in PROCESSES at once on each machine that has not failed it yet. */
void rounds_run_row(struct fleet *fleet, struct row *row, unsigned round, unsigned processes);

/* Every program but those that show growth. */
void rounds_run_programs(const struct plan *plan, struct results *results);

/* How much more two processes do on two CPUs than one. */
void rounds_run_processors(const struct plan *plan, struct results *results);

/* Every kind of exit, in cycles, by the bare-metal program. */
void rounds_run_nano(const struct plan *plan, struct results *results);

void fleet_stop(struct fleet *fleet);

#endif
