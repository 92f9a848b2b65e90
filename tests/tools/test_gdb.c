/* The gdb server, driven by stock gdb: its own commands in, its own words out. */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/tools/command.h"

static struct command command;
static char socket_path[64], script_path[64], said[65536];

static void setup(void) {
    snprintf(socket_path, sizeof(socket_path), "/tmp/test_gdb.%d", getpid());
    snprintf(script_path, sizeof(script_path), "/tmp/test_gdb.script.%d", getpid());
}

static void teardown(void) {
    unlink(socket_path);
    unlink(script_path);
}

static void start(const char *more) {
    char line[512];
    snprintf(line, sizeof(line), "-kernel %s -display none -m 16 -gdb unix:%s %s", TRAPEZE_GUEST, socket_path, more);
    command_start_plain(&command, line);
    for (unsigned i = 0; i < 500 && access(socket_path, F_OK) != 0; i++)
        usleep(10000);
    ck_assert_int_eq(access(socket_path, F_OK), 0);
}

/* Runs gdb with `script` connected to the machine; what it says is in `said`. */
static void debug(const char *script) {
    char line[512];
    FILE *file = fopen(script_path, "w");
    ck_assert_ptr_nonnull(file);
    fprintf(file, "set pagination off\nset confirm off\nset architecture i386:x86-64\nfile %s\ntarget remote %s\n%s",
            TRAPEZE_GUEST, socket_path, script);
    fclose(file);
    snprintf(line, sizeof(line), "timeout 30 gdb -nx -batch -x %s 2>&1", script_path);
    FILE *gdb = popen(line, "r");
    ck_assert_ptr_nonnull(gdb);
    size_t length = fread(said, 1, sizeof(said) - 1, gdb);
    said[length] = 0;
    ck_assert_msg(pclose(gdb) == 0, "gdb failed: %s", said);
}

static void expect(const char *text) {
    ck_assert_msg(strstr(said, text), "gdb did not say '%s' but: %s", text, said);
}

static void end(void) {
    kill(command.pid, SIGTERM);
    ck_assert_int_eq(command_wait(&command), 0);
}

START_TEST(breakpoint_steps_and_watchpoint_stop_where_they_should) {
    start("-append c -smp 2");
    debug("info threads\n"
          "break step_one\ncontinue\n"
          "stepi\nprintf \"after the step: %d\\n\", $rip == &step_two\n"
          "continue\ndelete\n"
          "set var *(int *)&counter = 1000\n"
          "watch *(int *)&counter\ncontinue\n"
          "hbreak count\ncontinue\n"
          "printf \"memory: %02x\\n\", *(unsigned char *)&step_one\n");
    expect("CPU#0 [running]");
    expect("CPU#1 [not started]");
    expect("hit Breakpoint 1, step_one");
    expect("after the step: 1");
    expect("Old value = 1000\nNew value = 1001");
    expect("hit Breakpoint 3, count");
    expect("memory: 90"); /* the guest's own byte, not a breakpoint's */
    end();
}
END_TEST

START_TEST(guest_waits_for_the_debugger_with_s) {
    start("-append x -S -device isa-debug-exit,iobase=0xf4");
    debug("printf \"at the start: %d\\n\", $rip == &_start\n"
          "print $cs\nprint/x $cr0\ncontinue\n");
    expect("at the start: 1");
    expect("exited with code 041"); /* octal */
    ck_assert_int_eq(command_wait(&command), 0x21);
}
END_TEST

START_TEST(registers_are_written_and_read_back) {
    start("-append c");
    debug("set var $rax = 0x1122334455667788\nset var $r15 = 7\nset var $xmm5.uint128 = 99\nset var $st0 = 1.5\n"
          "set var $ymm2.v4_int64[3] = 12\nstepi\n"
          "maintenance flush register-cache\n"
          "printf \"%lx %ld\\n\", $rax, $r15\nprint $xmm5.uint128\nprint $st0\nprint $ymm2.v4_int64[3]\n");
    expect("1122334455667788 7");
    expect("$1 = 99");
    expect("$2 = 1.5");
    expect("$3 = 12");
    end();
}
END_TEST

START_TEST(breakpoint_stops_again_and_again_in_real_mode) {
    start("-append l");
    usleep(500000); /* to be in its loop by then */
    debug("set $place = $cs_base + $pc\nhbreak *$place\ncontinue\ncontinue\ncontinue\n"
          "printf \"%d %lx %lx\\n\", $cs_base + $pc == $place, $cs_base, $rbx & 0xfffe\n");
    expect("SIGTRAP");
    expect("1 80000 1234");
    end();
}
END_TEST

START_TEST(interrupt_stops_a_machine_that_runs) {
    start("-append h");
    debug("python\nimport threading, time, os, signal\n"
          "threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()\nend\n"
          "continue\ninfo threads\n");
    expect("SIGINT");
    expect("CPU#0 [halted]");
    end();
}
END_TEST

START_TEST(detached_machine_runs_on_without_breakpoints) {
    start("-append c");
    debug("break step_one\ncontinue\ndetach\n");
    expect("Breakpoint 1, step_one");
    usleep(100000);
    debug("print *(unsigned *)&counter > 100\n");
    expect("$1 = 1");
    end();
}
END_TEST

START_TEST(triple_fault_is_seen_before_it_ends_the_machine) {
    start("-append t -S -no-reboot");
    debug("continue\nprint $rip == triple_fault + 7\nx/i $pc\nmonitor state\ncontinue\n");
    expect("SIGABRT");
    expect("int3");
    expect("CR0=");
    expect("exited with code 02");
    ck_assert_int_eq(command_wait(&command), 2);
}
END_TEST

START_TEST(memory_that_is_not_there_is_an_error) {
    start("-append c");
    debug("python\ntry:\n  gdb.execute('x/x 0x70000000')\nexcept gdb.error as e:\n  print('error:', e)\nend\n");
    expect("error: Cannot access memory at address 0x70000000");
    end();
}
END_TEST

START_TEST(monitor_commands_reset_and_quit) {
    start("-append c");
    debug("monitor help\nmonitor reset\nmaintenance flush register-cache\n"
          "printf \"at the start: %d\\n\", $rip == &_start\nmonitor quit\n");
    expect("end the machine");
    expect("at the start: 1");
    ck_assert_int_eq(command_wait(&command), 0);
}
END_TEST

START_TEST(kill_ends_the_machine) {
    start("-append c");
    debug("kill\n");
    ck_assert_int_eq(command_wait(&command), 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("gdb");
    TCase *tcase = tcase_create("all");
    tcase_set_timeout(tcase, 90);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, breakpoint_steps_and_watchpoint_stop_where_they_should);
    tcase_add_test(tcase, guest_waits_for_the_debugger_with_s);
    tcase_add_test(tcase, registers_are_written_and_read_back);
    tcase_add_test(tcase, breakpoint_stops_again_and_again_in_real_mode);
    tcase_add_test(tcase, interrupt_stops_a_machine_that_runs);
    tcase_add_test(tcase, detached_machine_runs_on_without_breakpoints);
    tcase_add_test(tcase, triple_fault_is_seen_before_it_ends_the_machine);
    tcase_add_test(tcase, memory_that_is_not_there_is_an_error);
    tcase_add_test(tcase, monitor_commands_reset_and_quit);
    tcase_add_test(tcase, kill_ends_the_machine);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
