/*
 * Peak memory of a process and its descendants by a control group: each page once, whoever maps it, and the kernel's
 * page tables for it. Works below a folder that the caller may write, of a version 1 or 2 hierarchy.
 */
#ifndef TOOLS_BENCH_DRIVER_MEMORY_GROUP_H
#define TOOLS_BENCH_DRIVER_MEMORY_GROUP_H

#include <stdbool.h>
#include <stdint.h>

struct memory_group {
    char path[512]; /* empty: there is none */
};

/* Below PARENT, which may be NULL; false: none could be made. */
bool memory_group_create(struct memory_group *group, const char *parent);

/* Moves the calling process in. */
bool memory_group_enter(const struct memory_group *group);

/* The most KiB at once so far; 0: the system does not tell. */
uint64_t memory_group_peak_kib(const struct memory_group *group);

/* After its processes have ended. */
void memory_group_destroy(struct memory_group *group);

#endif
