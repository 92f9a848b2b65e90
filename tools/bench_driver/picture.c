/*
 * The results as an SVG picture: a band for each group or row, in it two bars for each guest, Trapeze's and QEMU's time
 * as multiples of native on a logarithmic scale. Plain SVG 1.1 without scripts or fonts of its own, on white.
 */
#include <math.h>
#include <string.h>

#include "tools/bench_driver/limits.h"
#include "tools/bench_driver/report.h"

enum { LABELS = 170, PLOT = 560, RIGHT = 70, WIDTH = LABELS + PLOT + RIGHT, TOP = 74, BAR = 9, PITCH = 11, GAP = 12 };

struct picture {
    const struct results *const *all;
    unsigned count;
    FILE *stream;
    double low, high; /* of the scale, in times native */
    int y;            /* where the next band begins */
};

static const char *const fills[MACHINES] = {"#1a7f37", "#0969da", "#9aa4b0"};

static const struct {
    const char *group, *what;
} group_labels[] = {
    {"user", "integer, calls, memory"}, {"float", "SSE2, x87, AVX"},     {"copy", "memcpy, rep movs"},
    {"system", "kernel entries"},       {"code", "self-modifying code"}, {"cold", "code run once"},
};

static const char *describe_group(const char *group) {
    for (size_t i = 0; i < sizeof group_labels / sizeof group_labels[0]; i++)
        if (strcmp(group_labels[i].group, group) == 0)
            return group_labels[i].what;
    return "";
}

static double place(const struct picture *picture, double ratio) {
    double inside = fmin(fmax(ratio, picture->low), picture->high);
    return LABELS + PLOT * log(inside / picture->low) / log(picture->high / picture->low);
}

/* A missing ratio (0) is no bar. */
static void print_bar(struct picture *picture, double ratio, enum machine machine) {
    double from = place(picture, fmin(1, ratio)), to = place(picture, fmax(1, ratio));
    if (ratio > 0) {
        fprintf(picture->stream, "<rect x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", from,
                picture->y, fmax(to - from, 1), BAR, fills[machine]);
        fprintf(picture->stream, "<text x=\"%.1f\" y=\"%d\" class=\"value\">%.*f</text>\n", to + 4,
                picture->y + BAR - 1,
                ratio < 10    ? 2
                : ratio < 100 ? 1
                              : 0,
                ratio);
    }
    picture->y += PITCH;
}

static void print_mark(const struct picture *picture, double at, int from, int to, const char *colour) {
    if (at > 0)
        fprintf(picture->stream,
                "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"%s\" stroke-width=\"2\"/>\n",
                place(picture, at), from, place(picture, at), to, colour);
}

static void begin_band(const struct picture *picture, const char *label, const char *what) {
    fprintf(picture->stream, "<text x=\"8\" y=\"%d\" class=\"label\">%s</text>\n", picture->y + BAR, label);
    if (what[0])
        fprintf(picture->stream, "<text x=\"8\" y=\"%d\" class=\"small\">%s</text>\n", picture->y + BAR + 13, what);
}

static void print_guest_name(const struct picture *picture, const char *guest) {
    fprintf(picture->stream, "<text x=\"%d\" y=\"%d\" class=\"small\" text-anchor=\"end\">%s</text>\n", LABELS - 6,
            picture->y + PITCH + 2, guest);
}

/* The steps 1, 2 and 5 of each decade, and their values. */
static void print_scale(const struct picture *picture, int bottom) {
    static const int steps[] = {1, 2, 5};
    for (int decade = -1; decade < 9; decade++)
        for (int i = 0; i < 3; i++) {
            double value = pow(10, decade) * steps[i];
            if (value < picture->low * 0.999 || value > picture->high * 1.001)
                continue;
            bool is_native = fabs(value - 1) < 1e-6;
            fprintf(picture->stream, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"%s\"/>\n",
                    place(picture, value), TOP - 6, place(picture, value), bottom, is_native ? "#24292f" : "#e3e7eb");
            fprintf(picture->stream, "<text x=\"%.1f\" y=\"%d\" class=\"small\" text-anchor=\"middle\">%g%s</text>\n",
                    place(picture, value), TOP - 12, value, is_native ? " native" : "");
        }
}

static void print_legend(const struct picture *picture, const char *title, bool has_marks) {
    FILE *stream = picture->stream;
    fprintf(stream, "<text x=\"8\" y=\"20\" class=\"title\">%s</text>\n", title);
    fprintf(stream, "<rect x=\"8\" y=\"30\" width=\"12\" height=\"9\" fill=\"%s\"/>", fills[TRAPEZE]);
    fprintf(stream, "<text x=\"24\" y=\"39\" class=\"small\">Trapeze</text>\n");
    fprintf(stream, "<rect x=\"88\" y=\"30\" width=\"12\" height=\"9\" fill=\"%s\"/>", fills[QEMU]);
    fprintf(stream, "<text x=\"104\" y=\"39\" class=\"small\">QEMU TCG</text>\n");
    if (has_marks) {
        fprintf(stream, "<rect x=\"178\" y=\"30\" width=\"3\" height=\"9\" fill=\"#1a7f37\"/>");
        fprintf(stream, "<text x=\"186\" y=\"39\" class=\"small\">target</text>\n");
    }
}

static void begin(const struct picture *picture, int height) {
    fprintf(picture->stream,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\">\n"
            "<style>text{font-family:sans-serif;fill:#24292f}.title{font-size:15px;font-weight:bold}"
            ".label{font-size:12px;font-weight:bold}.small{font-size:10px;fill:#57606a}.value{font-size:10px}</style>\n"
            "<rect width=\"%d\" height=\"%d\" fill=\"#ffffff\"/>\n",
            WIDTH, height, WIDTH, height, WIDTH, height);
}

/* Both ends of the scale, so that every bar fits. */
static void choose_scale(struct picture *picture) {
    double most = 0;
    for (unsigned guest = 0; guest < picture->count; guest++)
        for (unsigned i = 0; i < picture->all[guest]->rows_count; i++)
            for (int machine = TRAPEZE; machine < MACHINES; machine++) {
                const struct row *row = &picture->all[guest]->rows[i];
                if (row->unit == CPU_SECONDS)
                    most = fmax(most, results_value_ratio(row, (enum machine)machine, NATIVE));
            }
    picture->low = 0.5;
    picture->high = 10;
    for (int step = 0; picture->high < most; step++)
        picture->high *= step % 3 == 1 ? 2.5 : 2; /* 10, 20, 50, 100 */
}

static bool is_drawn(const struct results *results, unsigned index, bool is_by_row) {
    const struct row *row = &results->rows[index];
    if (row->unit != CPU_SECONDS || strcmp(row->group, "growth") == 0)
        return false;
    if (is_by_row)
        return results_value(row, NATIVE) > 0;
    return results_begins_group(results, index) && results_group_mean(results, row->group, TRAPEZE, NATIVE) > 0;
}

/* What has no native time is told in words below. */
static void print_boots(struct picture *picture) {
    for (unsigned guest = 0; guest < picture->count; guest++) {
        const struct results *results = picture->all[guest];
        for (unsigned i = 0; i < results->rows_count; i++) {
            const struct row *row = &results->rows[i];
            bool is_boot = strcmp(row->group, "boot") == 0;
            if (!is_boot && strcmp(row->group, "memory") != 0)
                continue;
            fprintf(picture->stream, "<text x=\"8\" y=\"%d\" class=\"small\">%s, %s: Trapeze %.*f %s", picture->y + BAR,
                    results->guest, row->name, is_boot ? 2 : 0, results_value(row, TRAPEZE), is_boot ? "s" : "MiB");
            if (results->has[QEMU])
                fprintf(picture->stream, ", QEMU TCG %.*f %s", is_boot ? 2 : 0, results_value(row, QEMU),
                        is_boot ? "s" : "MiB");
            fprintf(picture->stream, "</text>\n");
            picture->y += 14;
        }
    }
}

static int count_boots(const struct picture *picture) {
    int lines = 0;
    for (unsigned guest = 0; guest < picture->count; guest++)
        for (unsigned i = 0; i < picture->all[guest]->rows_count; i++)
            lines += strcmp(picture->all[guest]->rows[i].group, "boot") == 0 ||
                     strcmp(picture->all[guest]->rows[i].group, "memory") == 0;
    return lines;
}

static void print_group_band(struct picture *picture, const char *group) {
    const struct limit *limit = limits_find(group);
    int from = picture->y;
    begin_band(picture, group, describe_group(group));
    for (unsigned guest = 0; guest < picture->count; guest++) {
        print_guest_name(picture, picture->all[guest]->guest);
        for (int machine = TRAPEZE; machine < MACHINES; machine++)
            print_bar(picture, results_group_mean(picture->all[guest], group, (enum machine)machine, NATIVE),
                      (enum machine)machine);
    }
    print_mark(picture, limit ? limit->target : 0, from - 2, picture->y, "#1a7f37");
    picture->y += GAP;
}

static const struct row *find_row(const struct results *results, const char *name) {
    for (unsigned i = 0; i < results->rows_count; i++)
        if (strcmp(results->rows[i].name, name) == 0)
            return &results->rows[i];
    return NULL;
}

static void print_row_band(struct picture *picture, const char *name, const char *group) {
    begin_band(picture, name, group);
    for (unsigned guest = 0; guest < picture->count; guest++) {
        const struct row *row = find_row(picture->all[guest], name);
        print_guest_name(picture, picture->all[guest]->guest);
        for (int machine = TRAPEZE; machine < MACHINES; machine++)
            print_bar(picture, row ? results_value_ratio(row, (enum machine)machine, NATIVE) : 0,
                      (enum machine)machine);
    }
    picture->y += GAP;
}

static void print_picture(const struct results *const *all, unsigned count, bool is_by_row, FILE *stream) {
    struct picture picture = {.all = all, .count = count, .stream = stream, .y = TOP};
    const struct results *first = all[0];
    int bands = 0, bottom;
    for (unsigned i = 0; i < first->rows_count; i++)
        bands += is_drawn(first, i, is_by_row);
    bottom = TOP + bands * ((int)count * 2 * PITCH + GAP);
    choose_scale(&picture);
    begin(&picture, bottom + 8 + (is_by_row ? 0 : 14 * count_boots(&picture)));
    print_legend(&picture,
                 is_by_row ? "CPU time over native: shorter is better"
                           : "CPU time over native, geometric means: shorter is better",
                 !is_by_row);
    print_scale(&picture, bottom - GAP + 2);
    for (unsigned i = 0; i < first->rows_count; i++) {
        if (!is_drawn(first, i, is_by_row))
            continue;
        if (is_by_row)
            print_row_band(&picture, first->rows[i].name, first->rows[i].group);
        else
            print_group_band(&picture, first->rows[i].group);
    }
    if (!is_by_row)
        print_boots(&picture);
    fprintf(stream, "</svg>\n");
}

void report_picture_of_groups(const struct results *const *all, unsigned count, FILE *stream) {
    print_picture(all, count, false, stream);
}

void report_picture_of_rows(const struct results *const *all, unsigned count, FILE *stream) {
    print_picture(all, count, true, stream);
}
