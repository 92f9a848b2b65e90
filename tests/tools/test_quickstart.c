/*
 * tools/quickstart as its user meets it, on a terminal: Debian's kernel to a shell, whose keys these are; and, without a
 * network, the small guest.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "tests/tools/command.h"

enum { BOOT_SECONDS = 240, SKIPPED = 77 };

static struct command command;
static struct termios before;
static char nowhere[] = "/tmp/test_quickstart.XXXXXX";

static void start(const char *line) {
    struct termios modes;
    command_start_program(&command, TRAPEZE_QUICKSTART, line);
    ck_assert_int_eq(tcgetattr(command.terminal, &modes), 0);
    before = modes; /* quickstart builds first: the monitor has not touched it yet */
}

static bool is_like_before(void) {
    struct termios modes;
    ck_assert_int_eq(tcgetattr(command.terminal, &modes), 0);
    return modes.c_iflag == before.c_iflag && modes.c_oflag == before.c_oflag && modes.c_lflag == before.c_lflag &&
           modes.c_cflag == before.c_cflag;
}

static void say(const char *line) {
    command_type(&command, line, strlen(line));
}

/* The exit status; the terminal must be as it was found. */
static int end(void) {
    int master = command.terminal, kept = dup(master);
    int status = command_wait(&command);
    command.terminal = kept;
    ck_assert_msg(is_like_before(), "the terminal was not restored");
    close(kept);
    command.terminal = -1;
    return status;
}

static void expect(const char *text) {
    ck_assert_msg(command_expect_within(&command, text, BOOT_SECONDS), "no '%s' but: %s", text, command.output);
}

START_TEST(debian_boots_to_a_shell_and_exit_powers_off) {
    start("--smp 2");
    expect("'exit' powers off");
    expect("trapeze # ");
    ck_assert(!is_like_before());
    say("echo $((6 * 7)) on $(nproc)\r");
    expect("42 on 2");
    expect("trapeze # ");
    say("exit\r");
    ck_assert_int_eq(end(), 0);
}
END_TEST

START_TEST(ctrl_c_is_the_guests_and_ctrl_a_x_ends) {
    start("--guest i386");
    expect("trapeze # ");
    say("echo go$((1)); cat\r");
    expect("go1");
    say("still here\r");
    expect("still here"); /* the echo of what was typed, */
    expect("still here"); /* and what cat gives back */
    say("\003");
    expect("^C");
    expect("trapeze # ");
    say("echo alive $((40 + 2))\r");
    expect("alive 42");
    say("\001x");
    ck_assert_int_eq(end(), 0);
}
END_TEST

/* A proxy that nobody is behind: apt gets nowhere. */
static void without_network(void) {
    ck_assert_ptr_nonnull(mkdtemp(nowhere));
    setenv("TRAPEZE_GUESTS", nowhere, 1);
    setenv("http_proxy", "http://127.0.0.1:9", 1);
    setenv("https_proxy", "http://127.0.0.1:9", 1);
}

static void remove_folder(void) {
    char line[128];
    snprintf(line, sizeof(line), "rm -rf %s", nowhere);
    ck_assert_int_eq(system(line), 0);
}

START_TEST(offline_the_small_guest_boots_and_says_so) {
    without_network();
    start("");
    expect("could not download linux-image-amd64");
    expect("a small guest of our own instead");
    expect("Hello from a guest");
    say("\003z"); /* gives back what is typed */
    expect("\003z");
    say("q");
    ck_assert_int_eq(end(), 0);
    remove_folder();
}
END_TEST

START_TEST(offline_the_check_fails) {
    without_network();
    start("--check");
    expect("check failed: there is no Debian kernel to boot");
    ck_assert_int_eq(end(), 1);
    remove_folder();
}
END_TEST

static bool has_guest(const char *name) {
    char path[512];
    struct stat status;
    snprintf(path, sizeof(path), "%s/%s/release", TRAPEZE_GUESTS, name);
    return stat(path, &status) == 0 && status.st_size > 0;
}

int main(void) {
    if (!has_guest("amd64") || !has_guest("i386")) {
        printf("no guests in %s; tools/check downloads them\n", TRAPEZE_GUESTS);
        return SKIPPED;
    }
    Suite *suite = suite_create("quickstart");
    TCase *tcase = tcase_create("all");
    tcase_set_timeout(tcase, 2 * BOOT_SECONDS);
    tcase_add_test(tcase, debian_boots_to_a_shell_and_exit_powers_off);
    tcase_add_test(tcase, ctrl_c_is_the_guests_and_ctrl_a_x_ends);
    tcase_add_test(tcase, offline_the_small_guest_boots_and_says_so);
    tcase_add_test(tcase, offline_the_check_fails);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
