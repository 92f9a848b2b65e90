/* The results for programs: every sample, each group's means, and what misses its limit. */
#include <string.h>

#include "tools/bench_driver/limits.h"
#include "tools/bench_driver/report.h"

const char *const report_machine_names[MACHINES] = {"native", "trapeze", "qemu"};

static const char *const outcome_names[] = {"ran", "skipped", "failed"};
static const char *const unit_names[] = {"cpu seconds", "wall seconds", "MiB", "cycles", "factor"};

enum { TEXT = 128 };

static void print_sample(const struct sample *sample, unsigned round, enum unit unit, FILE *stream) {
    if (unit != CPU_SECONDS && unit != WALL_SECONDS)
        fprintf(stream, "{\"round\": %u, \"value\": %.6g}", round, sample->wall);
    else
        fprintf(stream,
                "{\"round\": %u, \"wall\": %.6f, \"cpu\": %.6f, \"inside_wall\": %.6f, \"checksum\": \"%016llx\"}",
                round, sample->wall, sample->cpu, sample->inside_wall, (unsigned long long)sample->checksum);
}

static void print_samples(const struct row *row, enum machine machine, FILE *stream) {
    const char *comma = "";
    fprintf(stream, "\"%s\": {\"outcome\": \"%s\", \"samples\": [", report_machine_names[machine],
            outcome_names[row->outcomes[machine]]);
    for (unsigned i = 0; i < MAX_ROUNDS; i++) {
        if (!row->samples[i][machine].is_there)
            continue;
        fprintf(stream, "%s", comma);
        print_sample(&row->samples[i][machine], i, row->unit, stream);
        comma = ", ";
    }
    fprintf(stream, "]}");
}

/* Names and texts are our own and hold nothing that JSON would want escaped. */
static void print_row(const struct results *results, const struct row *row, FILE *stream) {
    char missed[TEXT];
    limits_judge_row(results, row, missed, sizeof missed);
    fprintf(stream,
            "    {\"name\": \"%s\", \"group\": \"%s\", \"unit\": \"%s\", \"count\": %llu, \"checksums_agree\": %s, "
            "\"misses\": \"%s\"",
            row->name, row->group, unit_names[row->unit], (unsigned long long)row->count,
            results_checksums_agree(row) ? "true" : "false", missed);
    for (int machine = 0; machine < MACHINES; machine++)
        if (results->has[machine]) {
            fprintf(stream, ",\n     ");
            print_samples(row, (enum machine)machine, stream);
        }
    fprintf(stream, "}");
}

static void print_group(const struct results *results, const char *group, FILE *stream) {
    char missed[TEXT];
    limits_judge_group(results, group, missed, sizeof missed);
    fprintf(stream,
            "    {\"name\": \"%s\", \"trapeze_over_native\": %.3f, \"qemu_over_native\": %.3f, "
            "\"qemu_over_trapeze\": %.3f, \"misses\": \"%s\"}",
            group, results_group_mean(results, group, TRAPEZE, NATIVE),
            results_group_mean(results, group, QEMU, NATIVE), results_group_mean(results, group, QEMU, TRAPEZE),
            missed);
}

static void print_guest(const struct results *results, FILE *stream) {
    const char *comma = "";
    fprintf(stream, "  {\"guest\": \"%s\", \"rounds\": %u, \"missed\": %u, \"groups\": [\n", results->guest,
            results->rounds, limits_count_missed(results));
    for (unsigned i = 0; i < results->rows_count; i++)
        if (results_begins_group(results, i) && strcmp(results->rows[i].group, "growth") != 0) {
            fprintf(stream, "%s", comma);
            print_group(results, results->rows[i].group, stream);
            comma = ",\n";
        }
    fprintf(stream, "],\n   \"rows\": [\n");
    for (unsigned i = 0; i < results->rows_count; i++) {
        fprintf(stream, "%s", i ? ",\n" : "");
        print_row(results, &results->rows[i], stream);
    }
    fprintf(stream, "]}");
}

void report_json(const struct results *const *all, unsigned count, FILE *stream) {
    fprintf(stream, "[\n");
    for (unsigned i = 0; i < count; i++) {
        print_guest(all[i], stream);
        fprintf(stream, "%s\n", i + 1 < count ? "," : "");
    }
    fprintf(stream, "]\n");
}
