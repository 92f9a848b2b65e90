/*
 * A running agent of the benchmark, natively or in a guest under a monitor, and the processor time that its process and
 * all of its descendants have used.
 */
#ifndef TOOLS_BENCH_DRIVER_SESSION_H
#define TOOLS_BENCH_DRIVER_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct session {
    pid_t pid; /* 0: not running */
    int to, from;
    double started; /* seconds_now() at its start */
    size_t used;
    char buffer[65536];
};

double seconds_now(void);

/* Starts COMMAND (NULL-terminated) with its console on pipes; on one CPU where is_pinned. */
bool session_start(struct session *session, char *const command[], bool is_pinned);
void session_stop(struct session *session);

/* Writes TEXT as one line. */
bool session_send(struct session *session, const char *text);

/* The next line that holds "bench: ", from there on; false at the end of the output, or at DEADLINE (seconds_now). */
bool session_receive(struct session *session, double deadline, char *line, size_t size);

/* Seconds of CPU used so far by the process, its threads and its descendants. */
double session_cpu_seconds(const struct session *session);

/* KiB of memory, each page once, and page tables; 0: the system does not tell. */
uint64_t session_memory_kib(const struct session *session);

#endif
