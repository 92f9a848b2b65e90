/* See results.h. */
#include "tools/bench_driver/results.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const machine_names[MACHINES] = {"native", "trapeze", "qemu"};
static const char *const outcome_names[] = {"ran", "skipped", "failed"};

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

static double time_of(const struct sample *sample, bool wall) {
    return wall ? sample->wall : sample->cpu;
}

double results_time(const struct row *row, enum machine machine, bool wall) {
    double values[MAX_ROUNDS];
    unsigned count = 0;
    for (unsigned i = 0; i < MAX_ROUNDS; i++)
        if (row->samples[i][machine].is_there)
            values[count++] = time_of(&row->samples[i][machine], wall);
    return median(values, count);
}

double results_ratio(const struct row *row, enum machine machine, enum machine base, bool wall) {
    double values[MAX_ROUNDS];
    unsigned count = 0;
    for (unsigned i = 0; i < MAX_ROUNDS; i++) {
        const struct sample *above = &row->samples[i][machine], *below = &row->samples[i][base];
        if (above->is_there && below->is_there && time_of(below, wall) > 0)
            values[count++] = time_of(above, wall) / time_of(below, wall);
    }
    return median(values, count);
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

double results_group_mean(const struct results *results, const char *group, enum machine machine, enum machine base) {
    double sum = 0, ratio;
    unsigned count = 0;
    for (unsigned i = 0; i < results->rows_count; i++) {
        const struct row *row = &results->rows[i];
        if (row->is_apart || strcmp(row->group, group) != 0)
            continue;
        ratio = results_ratio(row, machine, base, row->is_wall);
        if (ratio > 0) {
            sum += log(ratio);
            count++;
        }
    }
    return count ? exp(sum / count) : 0;
}

static void print_number(FILE *stream, double value, const char *unit) {
    if (value <= 0)
        fprintf(stream, " %9s", "-");
    else
        fprintf(stream, " %8.*f%s", value < 10 ? 2 : value < 100 ? 1 : 0, value, unit);
}

/* Why a row cannot be trusted, or is slower than the peer. */
static const char *remark(const struct results *results, const struct row *row, double gain) {
    if (!results_checksums_agree(row))
        return "  CHECKSUMS DIFFER";
    for (int machine = 0; machine < MACHINES; machine++)
        if (results->has[machine] && row->outcomes[machine] == FAILED)
            return machine == NATIVE    ? "  FAILED natively"
                   : machine == TRAPEZE ? "  FAILED on trapeze"
                                        : "  FAILED on qemu";
    return gain > 0 && gain < 1 ? "  slower than qemu" : "";
}

static void print_row(const struct results *results, const struct row *row, FILE *stream) {
    bool wall = row->is_wall;
    double gain = results_ratio(row, QEMU, TRAPEZE, wall);
    fprintf(stream, "  %-18s", row->name);
    if (row->is_apart) {
        for (int machine = 0; machine < MACHINES; machine++)
            print_number(stream, results_time(row, (enum machine)machine, true), " ");
        fprintf(stream, "\n");
        return;
    }
    print_number(stream, 1e3 * results_time(row, row->outcomes[NATIVE] == RAN ? NATIVE : TRAPEZE, wall), "m");
    print_number(stream, results_ratio(row, TRAPEZE, NATIVE, wall), "x");
    print_number(stream, results_ratio(row, QEMU, NATIVE, wall), "x");
    print_number(stream, gain, "x");
    print_number(stream, results_ratio(row, TRAPEZE, NATIVE, true), "x");
    print_number(stream, results_ratio(row, QEMU, NATIVE, true), "x");
    fprintf(stream, "%s\n", remark(results, row, gain));
}

static bool is_first_of_group(const struct results *results, unsigned index) {
    for (unsigned i = 0; i < index; i++)
        if (strcmp(results->rows[i].group, results->rows[index].group) == 0)
            return false;
    return true;
}

static void print_group(const struct results *results, const char *group, FILE *stream) {
    double trapeze = results_group_mean(results, group, TRAPEZE, NATIVE);
    double qemu = results_group_mean(results, group, QEMU, NATIVE);
    double gain = results_group_mean(results, group, QEMU, TRAPEZE);
    fprintf(stream, "%s\n", group);
    for (unsigned i = 0; i < results->rows_count; i++)
        if (strcmp(results->rows[i].group, group) == 0)
            print_row(results, &results->rows[i], stream);
    if (trapeze <= 0 && gain <= 0)
        return;
    fprintf(stream, "  %-18s %9s", "geometric mean", "");
    print_number(stream, trapeze, "x");
    print_number(stream, qemu, "x");
    print_number(stream, gain, "x");
    fprintf(stream, "\n");
}

void results_print_table(const struct results *results, FILE *stream) {
    fprintf(stream, "\n%s, %u rounds; CPU time against native, gain of trapeze over qemu, wall time against native\n",
            results->guest, results->rounds);
    fprintf(stream, "%-20s %9s %9s %9s %9s %9s %9s\n", "", "native", "trapeze", "qemu", "gain", "t. wall", "q. wall");
    for (unsigned i = 0; i < results->rows_count; i++)
        if (is_first_of_group(results, i))
            print_group(results, results->rows[i].group, stream);
    fflush(stream);
}

static void json_samples(const struct row *row, enum machine machine, FILE *stream) {
    const char *comma = "";
    fprintf(stream, "\"%s\": {\"outcome\": \"%s\", \"samples\": [", machine_names[machine],
            outcome_names[row->outcomes[machine]]);
    for (unsigned i = 0; i < MAX_ROUNDS; i++) {
        const struct sample *sample = &row->samples[i][machine];
        if (!sample->is_there)
            continue;
        fprintf(stream,
                "%s{\"round\": %u, \"wall\": %.6f, \"cpu\": %.6f, \"inside_wall\": %.6f, \"checksum\": \"%016llx\"}",
                comma, i, sample->wall, sample->cpu, sample->inside_wall, (unsigned long long)sample->checksum);
        comma = ", ";
    }
    fprintf(stream, "]}");
}

static void json_row(const struct results *results, const struct row *row, FILE *stream) {
    fprintf(stream, "    {\"name\": \"%s\", \"group\": \"%s\", \"count\": %llu, \"checksums_agree\": %s", row->name,
            row->group, (unsigned long long)row->count, results_checksums_agree(row) ? "true" : "false");
    for (int machine = 0; machine < MACHINES; machine++)
        if (results->has[machine]) {
            fprintf(stream, ",\n     ");
            json_samples(row, (enum machine)machine, stream);
        }
    fprintf(stream, "}");
}

static void json_group(const struct results *results, const char *group, FILE *stream) {
    fprintf(stream,
            "    {\"name\": \"%s\", \"trapeze_over_native\": %.3f, \"qemu_over_native\": %.3f, "
            "\"qemu_over_trapeze\": %.3f}",
            group, results_group_mean(results, group, TRAPEZE, NATIVE),
            results_group_mean(results, group, QEMU, NATIVE), results_group_mean(results, group, QEMU, TRAPEZE));
}

void results_print_json(const struct results *results, FILE *stream) {
    const char *comma = "";
    fprintf(stream, "{\"guest\": \"%s\", \"rounds\": %u,\n  \"groups\": [\n", results->guest, results->rounds);
    for (unsigned i = 0; i < results->rows_count; i++)
        if (is_first_of_group(results, i)) {
            fprintf(stream, "%s", comma);
            json_group(results, results->rows[i].group, stream);
            comma = ",\n";
        }
    fprintf(stream, "],\n  \"rows\": [\n");
    for (unsigned i = 0; i < results->rows_count; i++) {
        fprintf(stream, "%s", i ? ",\n" : "");
        json_row(results, &results->rows[i], stream);
    }
    fprintf(stream, "]}\n");
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
