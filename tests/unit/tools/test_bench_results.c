/* The benchmark's statistics, its limits, and what it writes. */
#include "tools/bench_driver/growth.h"
#include "tools/bench_driver/limits.h"
#include "tools/bench_driver/report.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct results results;

static void setup(void) {
    memset(&results, 0, sizeof results);
    results.guest = "amd64";
    results.rounds = 1;
    for (int machine = 0; machine < MACHINES; machine++)
        results.has[machine] = true;
}

/* Seconds of CPU on each machine; 0: it did not run there. */
static struct row *add(const char *group, const char *name, double native, double trapeze, double qemu) {
    const double seconds[MACHINES] = {native, trapeze, qemu};
    struct row *row = results_add(&results, group, name, CPU_SECONDS);
    for (int machine = 0; machine < MACHINES; machine++)
        if (seconds[machine] > 0)
            row->samples[0][machine] =
                (struct sample){.is_there = true, .cpu = seconds[machine], .wall = 3 * seconds[machine]};
    return row;
}

static const char *missed_by_row(const struct row *row) {
    static char text[128];
    ck_assert_int_eq(limits_judge_row(&results, row, text, sizeof text), text[0] != 0);
    return text;
}

static const char *missed_by_group(const char *group) {
    static char text[128];
    ck_assert_int_eq(limits_judge_group(&results, group, text, sizeof text), text[0] != 0);
    return text;
}

static char *written(void (*write)(const struct results *const *, unsigned, FILE *)) {
    static char text[65536];
    const struct results *all[] = {&results};
    FILE *stream = fmemopen(text, sizeof text, "w");
    write(all, 1, stream);
    fclose(stream);
    return text;
}

START_TEST(ratios_are_medians_of_the_rounds_ratios) {
    struct row *row = add("user", "a", 1, 2, 0);
    row->samples[1][NATIVE] = (struct sample){.is_there = true, .cpu = 10};
    row->samples[1][TRAPEZE] = (struct sample){.is_there = true, .cpu = 30};
    row->samples[2][NATIVE] = (struct sample){.is_there = true, .cpu = 1};
    row->samples[2][TRAPEZE] = (struct sample){.is_there = true, .cpu = 9};
    row->samples[3][NATIVE] = (struct sample){.is_there = true, .cpu = 1};
    ck_assert_double_eq(results_value_ratio(row, TRAPEZE, NATIVE), 3);
    ck_assert_double_eq(results_value(row, NATIVE), 1);
    ck_assert_double_eq(results_value_ratio(row, QEMU, NATIVE), 0);
}
END_TEST

START_TEST(group_mean_is_geometric_over_what_both_ran) {
    add("user", "a", 1, 2, 0);
    add("user", "b", 1, 8, 4);
    add("copy", "c", 1, 100, 100);
    ck_assert_double_eq_tol(results_group_mean(&results, "user", TRAPEZE, NATIVE), 4, 1e-9);
    ck_assert_double_eq_tol(results_group_mean(&results, "user", QEMU, TRAPEZE), 0.5, 1e-9);
}
END_TEST

START_TEST(within_the_limits_nothing_is_missed) {
    add("user", "a", 1, 1.69, 3.5);
    ck_assert_str_eq(missed_by_row(&results.rows[0]), "");
    ck_assert_str_eq(missed_by_group("user"), "");
    ck_assert_uint_eq(limits_count_missed(&results), 0);
}
END_TEST

START_TEST(mean_beyond_the_limits_is_missed_by_the_group) {
    add("user", "a", 1, 2, 3);
    ck_assert_str_eq(missed_by_row(&results.rows[0]), "");
    ck_assert_str_eq(missed_by_group("user"), "2.00x > 1.7x; gain 1.50 < 2");
    ck_assert_uint_eq(limits_count_missed(&results), 1);
}
END_TEST

START_TEST(row_slower_than_the_peer_is_missed_by_the_row) {
    ck_assert_str_eq(missed_by_row(add("system", "a", 1, 2, 1.5)), "gain 0.75 < 1");
    ck_assert_str_eq(missed_by_row(add("copy", "b", 1, 2, 1.5)), "");
    ck_assert_str_eq(missed_by_row(add("copy", "c", 1, 2, 0.9)), "gain 0.45 < 0.5");
}
END_TEST

START_TEST(without_the_peer_only_native_is_compared_with) {
    results.has[QEMU] = false;
    add("user", "a", 1, 1.5, 0);
    add("system", "b", 1, 50, 0);
    ck_assert_uint_eq(limits_count_missed(&results), 0);
}
END_TEST

START_TEST(boots_and_memory_are_judged_by_their_rows) {
    struct row *boot = results_add(&results, "boot", "boot", WALL_SECONDS);
    struct row *memory = results_add(&results, "memory", "memory", MEBIBYTES);
    boot->samples[0][TRAPEZE] = (struct sample){.is_there = true, .wall = 2};
    boot->samples[0][QEMU] = (struct sample){.is_there = true, .wall = 3};
    memory->samples[0][TRAPEZE] = (struct sample){.is_there = true, .wall = 200};
    memory->samples[0][QEMU] = (struct sample){.is_there = true, .wall = 201};
    ck_assert_str_eq(missed_by_row(boot), "gain 1.50 < 2");
    ck_assert_str_eq(missed_by_row(memory), "");
}
END_TEST

START_TEST(factor_below_its_limit_is_missed) {
    struct row *row = results_add(&results, "processors", "two", FACTOR);
    row->samples[0][TRAPEZE] = (struct sample){.is_there = true, .wall = 1.7};
    ck_assert_str_eq(missed_by_row(row), "1.70 < 1.8");
    row->samples[0][TRAPEZE].wall = 1.85;
    ck_assert_str_eq(missed_by_row(row), "");
}
END_TEST

START_TEST(failures_and_differing_checksums_are_missed_and_incomplete) {
    struct row *row = add("user", "a", 1, 1.5, 4);
    ck_assert(results_are_complete(&results));
    row->samples[0][QEMU].checksum = 7;
    ck_assert_str_eq(missed_by_row(row), "CHECKSUMS DIFFER");
    ck_assert(!results_are_complete(&results));
    row->samples[0][QEMU].checksum = 0;
    row->outcomes[TRAPEZE] = FAILED;
    ck_assert_str_eq(missed_by_row(row), "FAILED on trapeze");
    ck_assert(!results_are_complete(&results));
    row->outcomes[TRAPEZE] = SKIPPED;
    ck_assert(results_are_complete(&results));
}
END_TEST

START_TEST(table_holds_the_limit_in_its_last_column) {
    static char text[8192];
    add("user", "quick", 1, 1.5, 4);
    add("user", "late", 1, 2, 1);
    FILE *stream = fmemopen(text, sizeof text, "w");
    report_table(&results, stream);
    fclose(stream);
    ck_assert_ptr_nonnull(strstr(text, "gain 0.50 < 1\n"));
    ck_assert_ptr_nonnull(strstr(text, "1.73x > 1.7x; gain 1.15 < 2\n"));
    ck_assert_ptr_nonnull(strstr(text, "amd64: 2 rows and groups miss their limits\n"));
    const char *quick = strstr(text, "quick");
    ck_assert_ptr_nonnull(quick);
    ck_assert_ptr_eq(memchr(quick, '<', strcspn(quick, "\n")), NULL);
}
END_TEST

START_TEST(json_has_every_sample) {
    add("user", "a", 1, 1.5, 4)->samples[0][NATIVE].checksum = 0xabc;
    const char *text = written(report_json);
    ck_assert_ptr_nonnull(strstr(text, "\"name\": \"a\", \"group\": \"user\", \"unit\": \"cpu seconds\""));
    ck_assert_ptr_nonnull(strstr(text, "{\"round\": 0, \"wall\": 4.500000, \"cpu\": 1.500000"));
    ck_assert_ptr_nonnull(strstr(text, "0000000000000abc"));
    ck_assert_int_eq(text[0], '[');
}
END_TEST

/* x of a bar's end: the scale runs from 0.5 to 10 over 560 points, from 170 on. */
static double end_of(double ratio) {
    return 170 + 560 * log(ratio / 0.5) / log(10 / 0.5);
}

START_TEST(picture_has_bars_from_native_to_their_ratio) {
    char bar[128];
    add("user", "a", 1, 2, 8);
    const char *text = written(report_picture_of_groups);
    snprintf(bar, sizeof bar, "<rect x=\"%.1f\" y=\"74\" width=\"%.1f\" height=\"9\"", end_of(1),
             end_of(2) - end_of(1));
    ck_assert_ptr_nonnull(strstr(text, bar));
    snprintf(bar, sizeof bar, "<rect x=\"%.1f\" y=\"85\" width=\"%.1f\" height=\"9\"", end_of(1),
             end_of(8) - end_of(1));
    ck_assert_ptr_nonnull(strstr(text, bar));
    ck_assert_ptr_nonnull(strstr(text, "</svg>\n"));
    ck_assert_ptr_nonnull(strstr(written(report_picture_of_rows), ">a</text>"));
}
END_TEST

START_TEST(series_begin_at_the_first_row_of_a_name) {
    const char *names[] = {"processes 1", "code 1 MiB", "processes 10", "processes 100", "code 20 MiB", "process 1"};
    for (int i = 0; i < 6; i++)
        add("growth", names[i], 1, 1, 1);
    growth_link_series(&results);
    const unsigned want[] = {0, 1, 0, 0, 1, 5};
    for (int i = 0; i < 6; i++)
        ck_assert_uint_eq(results.rows[i].series, want[i]);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("bench results");
    TCase *tests = tcase_create("results");
    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, ratios_are_medians_of_the_rounds_ratios);
    tcase_add_test(tests, group_mean_is_geometric_over_what_both_ran);
    tcase_add_test(tests, within_the_limits_nothing_is_missed);
    tcase_add_test(tests, mean_beyond_the_limits_is_missed_by_the_group);
    tcase_add_test(tests, row_slower_than_the_peer_is_missed_by_the_row);
    tcase_add_test(tests, without_the_peer_only_native_is_compared_with);
    tcase_add_test(tests, boots_and_memory_are_judged_by_their_rows);
    tcase_add_test(tests, factor_below_its_limit_is_missed);
    tcase_add_test(tests, failures_and_differing_checksums_are_missed_and_incomplete);
    tcase_add_test(tests, table_holds_the_limit_in_its_last_column);
    tcase_add_test(tests, json_has_every_sample);
    tcase_add_test(tests, picture_has_bars_from_native_to_their_ratio);
    tcase_add_test(tests, series_begin_at_the_first_row_of_a_name);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
