/* See results.h. */
#include "tools/bench_driver/results.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct row *results_add(struct results *results, const char *group, const char *name, enum unit unit) {
    if (results->rows_count == MAX_ROWS)
        return NULL;
    struct row *row = &results->rows[results->rows_count];
    *row = (struct row){.count = 1, .unit = unit, .series = results->rows_count++};
    snprintf(row->group, sizeof row->group, "%s", group);
    snprintf(row->name, sizeof row->name, "%s", name);
    return row;
}

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double median(double *values, unsigned count) {
    if (count == 0)
        return 0;
    qsort(values, count, sizeof *values, compare_doubles);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

static double time_of(const struct sample *sample, bool is_wall) {
    return is_wall ? sample->wall : sample->cpu;
}

double results_time(const struct row *row, enum machine machine, bool is_wall) {
    double values[MAX_ROUNDS];
    unsigned count = 0;
    for (unsigned i = 0; i < MAX_ROUNDS; i++)
        if (row->samples[i][machine].is_there)
            values[count++] = time_of(&row->samples[i][machine], is_wall);
    return median(values, count);
}

double results_ratio(const struct row *row, enum machine machine, enum machine base, bool is_wall) {
    double values[MAX_ROUNDS];
    unsigned count = 0;
    for (unsigned i = 0; i < MAX_ROUNDS; i++) {
        const struct sample *above = &row->samples[i][machine], *below = &row->samples[i][base];
        if (above->is_there && below->is_there && time_of(below, is_wall) > 0)
            values[count++] = time_of(above, is_wall) / time_of(below, is_wall);
    }
    return median(values, count);
}

double results_value(const struct row *row, enum machine machine) {
    return results_time(row, machine, row->unit != CPU_SECONDS);
}

double results_value_ratio(const struct row *row, enum machine machine, enum machine base) {
    return results_ratio(row, machine, base, row->unit != CPU_SECONDS);
}

bool results_checksums_agree(const struct row *row) {
    const struct sample *first = NULL;
    for (unsigned i = 0; i < MAX_ROUNDS; i++)
        for (int machine = 0; machine < MACHINES; machine++) {
            const struct sample *sample = &row->samples[i][machine];
            if (!sample->is_there)
                continue;
            if (first && sample->checksum != first->checksum)
                return false;
            first = sample;
        }
    return true;
}

bool results_begins_group(const struct results *results, unsigned index) {
    for (unsigned i = 0; i < index; i++)
        if (strcmp(results->rows[i].group, results->rows[index].group) == 0)
            return false;
    return true;
}

double results_group_mean(const struct results *results, const char *group, enum machine machine, enum machine base) {
    double sum = 0, ratio;
    unsigned count = 0;
    for (unsigned i = 0; i < results->rows_count; i++) {
        const struct row *row = &results->rows[i];
        if (strcmp(row->group, group) != 0 || row->unit == FACTOR)
            continue;
        ratio = results_value_ratio(row, machine, base);
        if (ratio > 0) {
            sum += log(ratio);
            count++;
        }
    }
    return count ? exp(sum / count) : 0;
}

bool results_are_complete(const struct results *results) {
    for (unsigned i = 0; i < results->rows_count; i++) {
        const struct row *row = &results->rows[i];
        for (int machine = 0; machine < MACHINES; machine++)
            if (results->has[machine] && row->outcomes[machine] == FAILED)
                return false;
        if (!results_checksums_agree(row))
            return false;
    }
    return true;
}
