/*
 * The vCPUs as host threads, held and let go together.
 *
 * Every thread waits until it is told to go, runs its vCPU until that leaves for more than a kick, keeps the reason for
 * the controlling thread, and holds all others. Host signals are blocked in these threads.
 */
#ifndef TOOLS_RUNNER_H
#define TOOLS_RUNNER_H

#include "trapeze/trapeze.h"

struct pc;
struct runner;

/*
 * Starts a thread for each vCPU, all held. `notify_fd` is an eventfd that is written when a vCPU has stopped by itself;
 * it stays the caller's. NULL, with errno, when the host has no memory or threads left.
 */
struct runner *runner_create(struct pc *pc, int notify_fd);
/* Stops and joins the threads; false where one did not stop: then nothing was freed and the process must end. */
bool runner_destroy(struct runner *runner);

/* Asks all vCPUs to stop, without waiting. Any thread, also one that runs a vCPU. */
void runner_hold(struct runner *runner);
/* Holds, and waits until no vCPU runs. False where one did not stop within ten seconds. */
bool runner_pause(struct runner *runner);
/* Lets go all vCPUs but those that have a reason nobody took. */
void runner_resume(struct runner *runner);
/* The same for the vCPUs in `which` alone: which[index] for each of them. */
void runner_resume_some(struct runner *runner, const bool *which);

/* Why some vCPU stopped by itself; each reason is taken once. False when there is none. */
bool runner_take_stop(struct runner *runner, unsigned *index, struct trapeze_exit *exit);

#endif
