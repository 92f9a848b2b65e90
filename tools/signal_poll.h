/*
 * Waiting for file descriptors and for the signals that ask a process for something, at once. Not by way of a signalfd:
 * the kernel wakes whoever polls one at every signal of every thread, and a machine's threads get thousands of SIGSEGV
 * a second.
 */
#ifndef TOOLS_SIGNAL_POLL_H
#define TOOLS_SIGNAL_POLL_H

#include <poll.h>

/* From here on these signals (SIGINT, SIGTERM, SIGHUP, SIGTSTP, SIGCONT) are blocked but in signal_poll; for the main thread. */
void signal_poll_open(void);
/* As poll without a time limit. Returns the signal that has come, in which case no source is ready; or 0. */
int signal_poll(struct pollfd *sources, unsigned count);

#endif
