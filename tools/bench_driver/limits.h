/*
 * What is asked of each group: a target, and the limits below which it fails. Where QEMU is not there, what compares
 * with it is not judged; where the host runs nothing natively, what compares with that is not.
 */
#ifndef TOOLS_BENCH_DRIVER_LIMITS_H
#define TOOLS_BENCH_DRIVER_LIMITS_H

#include "tools/bench_driver/results.h"

/* 0 anywhere: nothing is asked. */
struct limit {
    const char *group;
    const char *target_unit;
    double target;      /* in target_unit; only told */
    double most_native; /* the group's mean over native, at most */
    double least_gain;  /* QEMU's time over Trapeze's, the group's mean, at least */
    double least_row_gain;
    double least_factor; /* of a row that is a factor */
};

/* NULL: nothing is asked of that group. */
const struct limit *limits_find(const char *group);

/* "target ..; limit .." in words, for people; empty where nothing is asked. */
void limits_describe(const struct limit *limit, char *text, size_t size);

/* Writes what a row, or the mean of a group, misses; false and an empty text: nothing. A row that failed, or whose
   checksums differ, misses that. */
bool limits_judge_row(const struct results *results, const struct row *row, char *text, size_t size);
bool limits_judge_group(const struct results *results, const char *group, char *text, size_t size);

/* How many rows and groups miss something. */
unsigned limits_count_missed(const struct results *results);

#endif
