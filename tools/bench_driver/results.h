/*
 * What the benchmark measured in one guest, and its statistics. Ratios are medians over the ratios of each round, in
 * which every machine ran the same program one after the other.
 */
#ifndef TOOLS_BENCH_DRIVER_RESULTS_H
#define TOOLS_BENCH_DRIVER_RESULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum machine { NATIVE, TRAPEZE, QEMU, MACHINES };
enum { MAX_ROUNDS = 32, MAX_ROWS = 192 };

/* What counts in a row; the last three are amounts, which are in a sample's `wall`. */
enum unit { CPU_SECONDS, WALL_SECONDS, MEBIBYTES, CYCLES, FACTOR };

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
    enum unit unit;
    unsigned series; /* growth: the index of the row that this one is compared with */
};

struct results {
    const char *guest;
    bool has[MACHINES];
    unsigned rounds, rows_count;
    struct row rows[MAX_ROWS];
};

/* A new row at the end; NULL: there is no place for it. */
struct row *results_add(struct results *results, const char *group, const char *name, enum unit unit);

double median(double *values, unsigned count);

/* The median of one machine's times (is_wall: by the wall's clock), or of the ratio of two machines'; 0: there is none.
 */
double results_time(const struct row *row, enum machine machine, bool is_wall);
double results_ratio(const struct row *row, enum machine machine, enum machine base, bool is_wall);

/* The same in what counts in the row. */
double results_value(const struct row *row, enum machine machine);
double results_value_ratio(const struct row *row, enum machine machine, enum machine base);

bool results_checksums_agree(const struct row *row);

/* True for the first row of its group. */
bool results_begins_group(const struct results *results, unsigned index);

/* The geometric mean over the group's rows of time that both machines ran; 0: none. */
double results_group_mean(const struct results *results, const char *group, enum machine machine, enum machine base);

/* True where each row ran on each machine that is there, or was skipped for what is missing, with equal checksums. */
bool results_are_complete(const struct results *results);

#endif
