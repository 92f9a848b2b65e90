/* See limits.h. */
#include "tools/bench_driver/limits.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct limit limit_table[] = {
    {.group = "user",
     .target_unit = "x native",
     .target = 1.3,
     .most_native = 1.7,
     .least_gain = 2,
     .least_row_gain = 1},
    {.group = "float",
     .target_unit = "x native",
     .target = 1.05,
     .most_native = 1.2,
     .least_gain = 8,
     .least_row_gain = 0.5},
    {.group = "copy", .target_unit = "x native", .target = 1.2, .most_native = 2, .least_row_gain = 0.5},
    {.group = "system", .target_unit = "x native", .target = 2, .least_gain = 1.5, .least_row_gain = 1},
    {.group = "code", .target_unit = "x native", .target = 5, .least_gain = 5, .least_row_gain = 0.5},
    {.group = "cold", .target_unit = "x native", .target = 60, .least_gain = 2, .least_row_gain = 0.5},
    {.group = "boot", .target_unit = " s", .target = 1.5, .least_row_gain = 2},
    {.group = "memory", .target_unit = " MiB", .target = 100, .least_row_gain = 1},
    {.group = "processors", .target_unit = "", .target = 1.95, .least_factor = 1.8},
    {.group = "nano", .least_row_gain = 0.5},
    {.group = "growth", .least_row_gain = 0.5},
};

const struct limit *limits_find(const char *group) {
    for (size_t i = 0; i < sizeof limit_table / sizeof limit_table[0]; i++)
        if (strcmp(limit_table[i].group, group) == 0)
            return &limit_table[i];
    return NULL;
}

static __attribute__((format(printf, 3, 4))) void append(char *text, size_t size, const char *format, ...) {
    size_t used = strlen(text);
    va_list arguments;
    if (used > 0 && used + 3 < size)
        used += (size_t)snprintf(text + used, size - used, "; ");
    va_start(arguments, format);
    vsnprintf(text + used, size - used, format, arguments);
    va_end(arguments);
}

void limits_describe(const struct limit *limit, char *text, size_t size) {
    text[0] = 0;
    if (!limit)
        return;
    if (limit->target > 0)
        append(text, size, "target %g%s", limit->target, limit->target_unit);
    if (limit->most_native > 0)
        append(text, size, "at most %gx native", limit->most_native);
    if (limit->least_gain > 0)
        append(text, size, "at least %gx as fast as QEMU", limit->least_gain);
    if (limit->least_row_gain > 0)
        append(text, size, "each row at least %gx", limit->least_row_gain);
    if (limit->least_factor > 0)
        append(text, size, "at least %g", limit->least_factor);
}

static void judge_outcomes(const struct results *results, const struct row *row, char *text, size_t size) {
    static const char *const names[MACHINES] = {"natively", "on trapeze", "on qemu"};
    for (int machine = 0; machine < MACHINES; machine++)
        if (results->has[machine] && row->outcomes[machine] == FAILED)
            append(text, size, "FAILED %s", names[machine]);
    if (!results_checksums_agree(row))
        append(text, size, "CHECKSUMS DIFFER");
}

bool limits_judge_row(const struct results *results, const struct row *row, char *text, size_t size) {
    const struct limit *limit = limits_find(row->group);
    double gain = results_value_ratio(row, QEMU, TRAPEZE), factor = results_value(row, TRAPEZE);
    text[0] = 0;
    judge_outcomes(results, row, text, size);
    if (!limit)
        return text[0] != 0;
    if (row->unit == FACTOR) {
        if (factor > 0 && factor < limit->least_factor)
            append(text, size, "%.2f < %g", factor, limit->least_factor);
    } else if (gain > 0 && gain < limit->least_row_gain) {
        append(text, size, "gain %.2f < %g", gain, limit->least_row_gain);
    }
    return text[0] != 0;
}

bool limits_judge_group(const struct results *results, const char *group, char *text, size_t size) {
    const struct limit *limit = limits_find(group);
    double over_native = results_group_mean(results, group, TRAPEZE, NATIVE);
    double gain = results_group_mean(results, group, QEMU, TRAPEZE);
    text[0] = 0;
    if (!limit)
        return false;
    if (limit->most_native > 0 && over_native > limit->most_native)
        append(text, size, "%.2fx > %gx", over_native, limit->most_native);
    if (gain > 0 && gain < limit->least_gain)
        append(text, size, "gain %.2f < %g", gain, limit->least_gain);
    return text[0] != 0;
}

unsigned limits_count_missed(const struct results *results) {
    char text[128];
    unsigned missed = 0;
    for (unsigned i = 0; i < results->rows_count; i++) {
        const struct row *row = &results->rows[i];
        missed += limits_judge_row(results, row, text, sizeof text);
        if (results_begins_group(results, i))
            missed += limits_judge_group(results, row->group, text, sizeof text);
    }
    return missed;
}
