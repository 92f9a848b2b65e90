/* The table for people: a line for each row and each group's mean; what misses its limit says so in the last column. */
#include <string.h>

#include "tools/bench_driver/limits.h"
#include "tools/bench_driver/report.h"

enum { TEXT = 128 };

static void print_ratio(double value, FILE *stream) {
    if (value <= 0)
        fprintf(stream, " %8s", "-");
    else
        fprintf(stream, " %7.*fx", value < 10 ? 2 : value < 100 ? 1 : 0, value);
}

/* Four digits or so, and a unit of two characters. */
static void print_amount(double value, enum unit unit, FILE *stream) {
    const char *name = unit == CPU_SECONDS || unit == WALL_SECONDS ? "s " : unit == MEBIBYTES ? "Mi" : "  ";
    if (name[0] == 's' && value < 1) {
        value *= 1e3;
        name = "ms";
    }
    if (value <= 0)
        fprintf(stream, " %11s", "-");
    else
        fprintf(stream, " %8.*f %s", value < 10 ? 2 : value < 100 ? 1 : 0, value, name);
}

static void print_amounts(const struct row *row, FILE *stream) {
    fprintf(stream, "  %-28s", row->name);
    for (int machine = 0; machine < MACHINES; machine++)
        print_amount(results_value(row, (enum machine)machine), row->unit, stream);
}

static void print_row(const struct results *results, const struct row *row, FILE *stream) {
    char missed[TEXT];
    print_amounts(row, stream);
    if (row->unit == FACTOR) {
        fprintf(stream, "%45s", "");
    } else {
        print_ratio(results_value_ratio(row, TRAPEZE, NATIVE), stream);
        print_ratio(results_value_ratio(row, QEMU, NATIVE), stream);
        print_ratio(results_value_ratio(row, QEMU, TRAPEZE), stream);
        print_ratio(row->unit == CPU_SECONDS ? results_ratio(row, TRAPEZE, NATIVE, true) : 0, stream);
        print_ratio(row->unit == CPU_SECONDS ? results_ratio(row, QEMU, NATIVE, true) : 0, stream);
    }
    limits_judge_row(results, row, missed, sizeof missed);
    fprintf(stream, "%s%s\n", missed[0] ? "  " : "", missed);
}

/* The mean of one row is told where it is what the limit is about. */
static bool has_mean(const struct results *results, const char *group) {
    const struct limit *limit = limits_find(group);
    unsigned count = 0;
    for (unsigned i = 0; i < results->rows_count; i++)
        count += strcmp(results->rows[i].group, group) == 0;
    return count > 1 || (limit && (limit->most_native > 0 || limit->least_gain > 0));
}

static void print_mean(const struct results *results, const char *group, FILE *stream) {
    char missed[TEXT];
    double over_native = results_group_mean(results, group, TRAPEZE, NATIVE);
    double gain = results_group_mean(results, group, QEMU, TRAPEZE);
    if ((over_native <= 0 && gain <= 0) || !has_mean(results, group))
        return;
    fprintf(stream, "  %-28s%36s", "geometric mean", "");
    print_ratio(over_native, stream);
    print_ratio(results_group_mean(results, group, QEMU, NATIVE), stream);
    print_ratio(gain, stream);
    limits_judge_group(results, group, missed, sizeof missed);
    fprintf(stream, "%s%s\n", missed[0] ? "                    " : "", missed);
}

/* How a cost grows: each machine against itself at the series' first step. */
static void print_step(const struct results *results, const struct row *row, FILE *stream) {
    const struct row *first = &results->rows[row->series];
    char missed[TEXT];
    print_amounts(row, stream);
    for (int machine = 0; machine < MACHINES; machine++) {
        double base = results_value(first, (enum machine)machine);
        print_ratio(base > 0 ? results_value(row, (enum machine)machine) / base : 0, stream);
    }
    limits_judge_row(results, row, missed, sizeof missed);
    fprintf(stream, "%s%s\n", missed[0] ? "                    " : "", missed);
}

static void print_group(const struct results *results, const char *group, FILE *stream) {
    bool is_growth = strcmp(group, "growth") == 0;
    char asked[TEXT];
    limits_describe(limits_find(group), asked, sizeof asked);
    fprintf(stream, "%s%s%s%s%s\n", group, asked[0] ? " (" : "", asked, asked[0] ? ")" : "",
            is_growth ? ": ratios to the first step, of native, trapeze and qemu" : "");
    for (unsigned i = 0; i < results->rows_count; i++)
        if (strcmp(results->rows[i].group, group) == 0)
            (is_growth ? print_step : print_row)(results, &results->rows[i], stream);
    if (!is_growth)
        print_mean(results, group, stream);
}

static bool has_group(const struct results *results, const char *group) {
    for (unsigned i = 0; i < results->rows_count; i++)
        if (strcmp(results->rows[i].group, group) == 0)
            return true;
    return false;
}

void report_table(const struct results *results, FILE *stream) {
    unsigned missed = limits_count_missed(results);
    fprintf(stream,
            "\n%s, %u rounds. Medians of CPU time; wall time for boots. Times native; gain: qemu over trapeze.\n",
            results->guest, results->rounds);
    fprintf(stream, "%-30s %11s %11s %11s %8s %8s %8s %8s %8s  %s\n", "", "native", "trapeze", "qemu", "trapeze",
            "qemu", "gain", "t. wall", "q. wall", "misses");
    for (unsigned i = 0; i < results->rows_count; i++)
        if (results_begins_group(results, i) && strcmp(results->rows[i].group, "growth") != 0)
            print_group(results, results->rows[i].group, stream);
    if (has_group(results, "growth"))
        print_group(results, "growth", stream);
    if (missed)
        fprintf(stream, "%s: %u rows and groups miss their limits\n", results->guest, missed);
    else
        fprintf(stream, "%s: every row and group is within its limits\n", results->guest);
}
