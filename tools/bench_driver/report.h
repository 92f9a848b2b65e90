/* What people and programs read of the results: a table, JSON, and pictures. */
#ifndef TOOLS_BENCH_DRIVER_REPORT_H
#define TOOLS_BENCH_DRIVER_REPORT_H

#include <stdio.h>

#include "tools/bench_driver/results.h"

extern const char *const report_machine_names[MACHINES];

void report_table(const struct results *results, FILE *stream);

/* An array with one object for each of COUNT guests. */
void report_json(const struct results *const *all, unsigned count, FILE *stream);

/* An SVG picture with the groups' means of every guest beside each other, on a logarithmic scale. */
void report_picture_of_groups(const struct results *const *all, unsigned count, FILE *stream);

/* The same with a band for each row. */
void report_picture_of_rows(const struct results *const *all, unsigned count, FILE *stream);

#endif
