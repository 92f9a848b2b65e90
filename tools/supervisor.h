/*
 * A machine from its first instruction to its end: makes it as the options say, runs it, and answers what the guest,
 * the terminal, host signals and a debugger ask meanwhile. All of that is decided on one thread.
 */
#ifndef TOOLS_SUPERVISOR_H
#define TOOLS_SUPERVISOR_H

#include "tools/options.h"

/* The exit status of the process: 0 powered off or told to end, 1 a host error (said on standard error), 2 the guest
   crashed the machine, or what the guest gave isa-debug-exit. */
int supervise(const struct options *options);

#endif
