/*
 * A running machine of the benchmark, natively or a guest under a monitor, with its console on pipes; the processor
 * time and the memory that its process and all of its descendants use.
 */
#ifndef TOOLS_BENCH_DRIVER_SESSION_H
#define TOOLS_BENCH_DRIVER_SESSION_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tools/bench_driver/memory_group.h"

struct session {
    pid_t pid; /* 0: not running; leads a process group of its own */
    int to, from;
    double started; /* seconds_now() at its start */
    bool has_ended; /* its output has */
    bool is_grouped;
    struct memory_group memory;
    size_t used;
    char buffer[65536];
};

struct session_options {
    bool is_pinned;           /* to one CPU */
    const char *memory_group; /* a folder for its control group; NULL: none */
};

/* Set by signal handlers: every wait ends, and nothing new starts. */
extern volatile sig_atomic_t session_interrupted;

double seconds_now(void);

/* Starts COMMAND (NULL-terminated). */
bool session_start(struct session *session, char *const command[], const struct session_options *options);

/* Ends the machine and all that it has started, and waits for them. Returns the leader's wait status, -1: none. */
int session_stop(struct session *session);

/* Writes TEXT as one line. */
bool session_send(struct session *session, const char *text);

/* The next line that holds "bench: ", from there on; false at the end of the output, or at DEADLINE (seconds_now). */
bool session_receive(struct session *session, double deadline, char *line, size_t size);

/* Waits for a line that begins with WHAT. */
bool session_await(struct session *session, const char *what, double seconds);

/* Seconds of CPU used so far by the process, its threads and its descendants. */
double session_cpu_seconds(const struct session *session);

/* The peak of KiB of memory, each page once, and page tables; without a control group what is used now; 0: unknown. */
uint64_t session_memory_kib(const struct session *session);

#endif
