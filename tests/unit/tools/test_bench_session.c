/* The benchmark's sessions: lines, deadlines, the time of descendants, and that nothing outlives a session. */
#include "tools/bench_driver/session.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static struct session session;
static char line[256];

static void start(const char *script) {
    ck_assert(session_start(&session, (char *[]){"sh", "-c", (char *)script, NULL}, &(struct session_options){0}));
}

static bool receive(double seconds) {
    return session_receive(&session, seconds_now() + seconds, line, sizeof line);
}

/* As the driver does; it is not inherited by what Check forks. */
static void setup(void) {
    prctl(PR_SET_CHILD_SUBREAPER, 1);
}

static void teardown(void) {
    session_stop(&session);
    session_interrupted = 0;
}

START_TEST(lines_are_taken_from_their_mark_on) {
    start("echo noise; printf '[ 1.0] bench: ready\\r\\nbench: '; sleep 0.1; echo second; cat");
    ck_assert(receive(10));
    ck_assert_str_eq(line, "ready");
    ck_assert(receive(10));
    ck_assert_str_eq(line, "second");
    ck_assert(session_send(&session, "bench: third"));
    ck_assert(session_await(&session, "thi", 10));
}
END_TEST

START_TEST(silence_ends_at_the_deadline) {
    double before = seconds_now();
    start("sleep 100");
    ck_assert(!receive(0.2));
    ck_assert(!session.has_ended);
    ck_assert_double_lt(seconds_now() - before, 5);
}
END_TEST

START_TEST(end_is_noticed_and_its_status_kept) {
    start("exit 3");
    ck_assert(!receive(10));
    ck_assert(session.has_ended);
    int status = session_stop(&session);
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), 3);
}
END_TEST

START_TEST(descendants_end_with_the_session) {
    int child;
    start("(sleep 100 & echo bench: $!; sleep 100) & wait");
    ck_assert(receive(10));
    ck_assert_int_eq(sscanf(line, "%d", &child), 1);
    ck_assert_int_eq(kill(child, 0), 0);
    session_stop(&session);
    ck_assert_int_eq(kill(child, 0), -1);
    ck_assert_int_eq(errno, ESRCH);
    ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
}
END_TEST

START_TEST(time_of_descendants_counts) {
    start("(i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done; echo bench: done; sleep 100) & wait");
    ck_assert(receive(60));
    ck_assert_double_gt(session_cpu_seconds(&session), 0.01);
}
END_TEST

START_TEST(what_cannot_be_started_ends_at_once) {
    ck_assert(session_start(&session, (char *[]){"/nowhere/at-all", NULL}, &(struct session_options){0}));
    ck_assert(!receive(10));
    ck_assert_int_eq(WEXITSTATUS(session_stop(&session)), 127);
}
END_TEST

START_TEST(interruption_ends_waits_and_starts_nothing) {
    start("sleep 100");
    session_interrupted = 1;
    ck_assert(!receive(100));
    session_stop(&session);
    ck_assert(!session_start(&session, (char *[]){"true", NULL}, &(struct session_options){0}));
}
END_TEST

START_TEST(memory_is_known_without_a_control_group) {
    start("echo bench: ready; cat");
    ck_assert(receive(10));
    ck_assert_uint_gt(session_memory_kib(&session), 50);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("bench session");
    TCase *tests = tcase_create("session");
    tcase_set_timeout(tests, 100);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, lines_are_taken_from_their_mark_on);
    tcase_add_test(tests, silence_ends_at_the_deadline);
    tcase_add_test(tests, end_is_noticed_and_its_status_kept);
    tcase_add_test(tests, descendants_end_with_the_session);
    tcase_add_test(tests, time_of_descendants_counts);
    tcase_add_test(tests, what_cannot_be_started_ends_at_once);
    tcase_add_test(tests, interruption_ends_waits_and_starts_nothing);
    tcase_add_test(tests, memory_is_known_without_a_control_group);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
