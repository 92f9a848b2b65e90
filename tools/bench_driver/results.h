/*
 * What the benchmark measured, its statistics, the table and the JSON. Ratios are medians over the ratios of each
 * round, in which every machine ran the same program one after the other.
 */
#ifndef TOOLS_BENCH_DRIVER_RESULTS_H
#define TOOLS_BENCH_DRIVER_RESULTS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum machine { NATIVE, TRAPEZE, QEMU, MACHINES };
enum { MAX_ROUNDS = 32, MAX_ROWS = 80 };

struct sample {
    bool is_there;
    double wall, cpu;   /* seconds, as the host sees them */
    double inside_wall; /* seconds, by the clock that the program sees */
    uint64_t checksum;
};

enum outcome { RAN, SKIPPED, FAILED };

struct row {
    char name[40], group[16];
    uint64_t count;
    struct sample samples[MAX_ROUNDS][MACHINES];
    enum outcome outcomes[MACHINES];
    bool is_wall;  /* wall time is what counts: boots, and programs on several CPUs */
    bool is_apart; /* in no group's mean: a scaling or a size, which is in `wall` */
};

struct results {
    const char *guest;
    bool has[MACHINES];
    unsigned rounds, rows_count;
    struct row rows[MAX_ROWS];
};

double median(double *values, unsigned count);

/* The median of one machine's time, or of the ratio of two machines' times; 0: there is none. */
double results_time(const struct row *row, enum machine machine, bool wall);
double results_ratio(const struct row *row, enum machine machine, enum machine base, bool wall);

bool results_checksums_agree(const struct row *row);

/* Over the group's rows that both machines ran; 0: none. */
double results_group_mean(const struct results *results, const char *group, enum machine machine, enum machine base);

void results_print_table(const struct results *results, FILE *stream);
void results_print_json(const struct results *results, FILE *stream);

/* True where each row ran on each machine that is there, or was skipped for a CPU feature, with equal checksums. */
bool results_are_complete(const struct results *results);

#endif
