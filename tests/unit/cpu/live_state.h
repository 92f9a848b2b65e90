/*
 * Runs an instruction with vector and x87 state of the test's choice in the host's registers.
 */
#ifndef TESTS_LIVE_STATE_H
#define TESTS_LIVE_STATE_H

#include "cpu/xstate.h"
#include "fake_cpu.h"

struct live_state {
    _Alignas(64) uint8_t image[4096]; /* standard XSAVE format */
    int result;                       /* of the instruction, from live_run's assembly */
};

/* Different values everywhere, all of `mask` in use. */
void live_fill(struct live_state *live, uint64_t mask, unsigned seed);
/* Loads the image's components of `mask`, runs the instruction, and stores them back. */
enum cpu_result live_run(cpu_op_function *run, struct fake_cpu *fake, const struct cpu_op *op, struct live_state *live,
                         uint64_t mask);

#endif
