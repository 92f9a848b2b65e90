/* Signals and descriptors come, one at a time, and faults of other threads do not wake who waits for them. */
#include "tools/signal_poll.h"

#include <check.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

static int pipe_ends[2];

static void open_all(void) {
    ck_assert_int_eq(pipe(pipe_ends), 0);
    signal_poll_open();
}

static int wait_for_one(struct pollfd *source) {
    *source = (struct pollfd){.fd = pipe_ends[0], .events = POLLIN, .revents = POLLIN};
    return signal_poll(source, 1);
}

START_TEST(ready_source_is_no_signal) {
    struct pollfd source;
    open_all();
    ck_assert_int_eq(write(pipe_ends[1], "x", 1), 1);
    ck_assert_int_eq(wait_for_one(&source), 0);
    ck_assert_int_eq(source.revents, POLLIN);
}
END_TEST

START_TEST(signals_that_wait_come_one_by_one_before_sources) {
    struct pollfd source;
    open_all();
    ck_assert_int_eq(write(pipe_ends[1], "x", 1), 1);
    kill(getpid(), SIGHUP);
    kill(getpid(), SIGTERM);
    int first = wait_for_one(&source);
    ck_assert_int_eq(source.revents, 0);
    int second = wait_for_one(&source);
    ck_assert_int_eq(source.revents, 0);
    ck_assert_int_eq(first + second, SIGHUP + SIGTERM);
    ck_assert_int_ne(first, second);
    ck_assert_int_eq(wait_for_one(&source), 0);
    ck_assert_int_eq(source.revents, POLLIN);
}
END_TEST

/* Two of them, once the process that waits sleeps. */
static void send_later(void) {
    pid_t waiting = getpid();
    if (fork() == 0) {
        usleep(100000);
        kill(waiting, SIGTERM);
        kill(waiting, SIGINT);
        _exit(0);
    }
}

START_TEST(signal_ends_the_wait) {
    struct pollfd source;
    open_all();
    send_later();
    int first = wait_for_one(&source);
    ck_assert_int_eq(source.revents, 0);
    int second = wait_for_one(&source);
    ck_assert_int_eq(first + second, SIGTERM + SIGINT);
}
END_TEST

enum { FAULTS = 2000 };

static sigjmp_buf back;

static void on_fault(int number) {
    (void)number;
    siglongjmp(back, 1);
}

static void *fault_often(void *unused) {
    int *volatile nowhere = NULL;
    usleep(100000);
    for (volatile unsigned i = 0; i < FAULTS; i++)
        if (sigsetjmp(back, 1) == 0)
            *(volatile int *)nowhere = 1;
    ck_assert_int_eq(write(pipe_ends[1], "x", 1), 1);
    return unused;
}

START_TEST(faults_of_another_thread_do_not_wake_it) {
    const struct sigaction action = {.sa_handler = on_fault};
    struct rusage before, after;
    struct pollfd source;
    pthread_t thread;
    open_all();
    sigaction(SIGSEGV, &action, NULL);
    ck_assert_int_eq(pthread_create(&thread, NULL, fault_often, NULL), 0);
    getrusage(RUSAGE_THREAD, &before);
    ck_assert_int_eq(wait_for_one(&source), 0);
    getrusage(RUSAGE_THREAD, &after);
    pthread_join(thread, NULL);
    ck_assert_int_lt(after.ru_nvcsw - before.ru_nvcsw, FAULTS / 10);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("signal_poll");
    TCase *tcase = tcase_create("all");
    tcase_add_test(tcase, ready_source_is_no_signal);
    tcase_add_test(tcase, signals_that_wait_come_one_by_one_before_sources);
    tcase_add_test(tcase, signal_ends_the_wait);
    tcase_add_test(tcase, faults_of_another_thread_do_not_wake_it);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
