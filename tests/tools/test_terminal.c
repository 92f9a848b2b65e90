/* The command on a terminal: which keys are whose, and that the terminal is left as it was found. */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "tests/tools/command.h"

static struct command command;
static struct termios before;

static void start(const char *more) {
    char line[512];
    snprintf(line, sizeof(line), "-kernel %s -m 16 %s", TRAPEZE_GUEST, more);
    command_start(&command, line);
    ck_assert_int_eq(tcgetattr(command.terminal, &before), 0);
    before.c_lflag |= ICANON | ECHO | ISIG; /* the command may have been quicker than this look */
}

static bool is_raw(void) {
    struct termios now;
    ck_assert_int_eq(tcgetattr(command.terminal, &now), 0);
    return !(now.c_lflag & ICANON);
}

static void check_restored(void) {
    struct termios now;
    ck_assert_int_eq(tcgetattr(command.terminal, &now), 0);
    ck_assert_int_eq(now.c_lflag & (ICANON | ECHO | ISIG), ICANON | ECHO | ISIG);
}

/* Leaves the master open until the state has been looked at. */
static int end_and_look(void) {
    int master = command.terminal, kept = dup(master);
    int status = command_wait(&command);
    command.terminal = kept;
    check_restored();
    close(kept);
    command.terminal = -1;
    return status;
}

START_TEST(ctrl_c_goes_to_the_guest_with_nographic) {
    start("-nographic -append e");
    ck_assert(command_expect(&command, "ready"));
    ck_assert(is_raw());
    command_type(&command, "a\003b", 3);
    ck_assert(command_expect(&command, "a\003b"));
    command_type(&command, "\001x", 2);
    ck_assert_int_eq(end_and_look(), 0);
}
END_TEST

START_TEST(ctrl_a_twice_sends_one) {
    start("-serial mon:stdio -display none -append e");
    ck_assert(command_expect(&command, "ready"));
    command_type(&command, "\001\001z", 3);
    ck_assert(command_expect(&command, "\001z"));
    command_type(&command, "\001x", 2);
    ck_assert_int_eq(end_and_look(), 0);
}
END_TEST

START_TEST(ctrl_c_ends_the_monitor_with_serial_stdio) {
    start("-serial stdio -display none -append e");
    ck_assert(command_expect(&command, "ready"));
    command_type(&command, "\003", 1);
    ck_assert_int_eq(end_and_look(), 0);
}
END_TEST

static const int signals[] = {SIGTERM, SIGHUP, SIGINT};

START_TEST(signal_ends_it_cleanly) {
    start("-nographic -append e");
    ck_assert(command_expect(&command, "ready"));
    kill(command.pid, signals[_i]);
    ck_assert_int_eq(end_and_look(), 0);
}
END_TEST

static const int crashes[] = {SIGABRT, SIGSEGV, SIGBUS};

START_TEST(crash_of_the_monitor_restores_the_terminal) {
    start("-nographic -append e");
    ck_assert(command_expect(&command, "ready"));
    ck_assert(is_raw());
    kill(command.pid, crashes[_i]);
    ck_assert_int_eq(end_and_look(), 128 + crashes[_i]);
}
END_TEST

START_TEST(closed_terminal_ends_it) {
    start("-nographic -append e");
    ck_assert(command_expect(&command, "ready"));
    close(command.terminal);
    command.terminal = -1;
    ck_assert_int_eq(command_wait(&command), 0);
}
END_TEST

START_TEST(signal_ends_a_halted_guest) {
    start("-nographic -smp 4 -append h");
    usleep(300000);
    kill(command.pid, SIGTERM);
    ck_assert_int_eq(end_and_look(), 0);
}
END_TEST

START_TEST(reset_runs_the_kernel_again_until_told_to_end) {
    start("-nographic -append r");
    usleep(500000);
    kill(command.pid, SIGTERM);
    ck_assert_int_eq(end_and_look(), 0);
    ck_assert_ptr_null(strstr(command.output, "-kernel"));
}
END_TEST

START_TEST(no_shutdown_keeps_a_machine_that_is_off) {
    int status = 0;
    start("-nographic -no-shutdown -append p");
    usleep(300000);
    ck_assert_int_eq(kill(command.pid, 0), 0);
    command_type(&command, "\001x", 2);
    status = end_and_look();
    ck_assert_int_eq(status, 0);
}
END_TEST

START_TEST(stopped_by_job_control_restores_and_goes_on) {
    start("-serial stdio -display none -append e");
    int status = 0;
    ck_assert(command_expect(&command, "ready"));
    kill(command.pid, SIGTSTP);
    ck_assert_int_eq(waitpid(command.pid, &status, WUNTRACED), command.pid);
    ck_assert(WIFSTOPPED(status)); /* a SIGCONT that came before would be forgotten */
    ck_assert(!is_raw());
    kill(command.pid, SIGCONT);
    for (unsigned i = 0; i < 100 && !is_raw(); i++)
        usleep(20000);
    ck_assert(is_raw());
    command_type(&command, "q", 1);
    ck_assert(command_expect(&command, "q"));
    kill(command.pid, SIGTERM);
    ck_assert_int_eq(end_and_look(), 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("terminal");
    TCase *tcase = tcase_create("all");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, ctrl_c_goes_to_the_guest_with_nographic);
    tcase_add_test(tcase, ctrl_a_twice_sends_one);
    tcase_add_test(tcase, ctrl_c_ends_the_monitor_with_serial_stdio);
    tcase_add_loop_test(tcase, signal_ends_it_cleanly, 0, sizeof(signals) / sizeof(signals[0]));
    tcase_add_loop_test(tcase, crash_of_the_monitor_restores_the_terminal, 0, sizeof(crashes) / sizeof(crashes[0]));
    tcase_add_test(tcase, closed_terminal_ends_it);
    tcase_add_test(tcase, signal_ends_a_halted_guest);
    tcase_add_test(tcase, reset_runs_the_kernel_again_until_told_to_end);
    tcase_add_test(tcase, no_shutdown_keeps_a_machine_that_is_off);
    tcase_add_test(tcase, stopped_by_job_control_restores_and_goes_on);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
