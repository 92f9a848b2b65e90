/* How the command ends: what the guest does decides its exit status. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/tools/command.h"

static struct command command;

static void run(const char *more) {
    char line[512];
    snprintf(line, sizeof(line), "-kernel %s -display none -m 16 %s", TRAPEZE_GUEST, more);
    command_run(&command, line);
}

START_TEST(power_off_ends_with_0) {
    run("-append p");
    ck_assert_int_eq(command.status, 0);
    ck_assert_str_eq(command.errors, "");
}
END_TEST

START_TEST(debug_exit_ends_with_twice_its_value_and_one) {
    run("-device isa-debug-exit,iobase=0xf4,iosize=0x4 -append x");
    ck_assert_int_eq(command.status, 0x10 << 1 | 1);
}
END_TEST

START_TEST(no_reboot_ends_a_reset_with_0) {
    run("-no-reboot -append r");
    ck_assert_int_eq(command.status, 0);
    ck_assert_str_eq(command.errors, "");
}
END_TEST

START_TEST(triple_fault_without_reboot_ends_with_2_and_the_state) {
    run("-no-reboot -smp 2 -append t");
    ck_assert_int_eq(command.status, 2);
    ck_assert_ptr_nonnull(strstr(command.errors, "trapeze: CPU 0: triple fault\n"));
    ck_assert_ptr_nonnull(strstr(command.errors, "\nRIP="));
    ck_assert_ptr_nonnull(strstr(command.errors, "\nCR0="));
    ck_assert_ptr_nonnull(strstr(command.errors, " int3\n"));
    ck_assert_ptr_nonnull(strstr(command.errors, "CPU#1"));
}
END_TEST

START_TEST(kvm_is_taken_with_one_warning) {
    run("-enable-kvm -accel kvm -machine pc,accel=kvm:tcg -append p");
    ck_assert_int_eq(command.status, 0);
    const char *warning = strstr(command.errors, "warning: KVM is not used");
    ck_assert_ptr_nonnull(warning);
    ck_assert_ptr_null(strstr(warning + strlen("warning: KVM"), "KVM"));
}
END_TEST

START_TEST(pidfile_is_gone_at_the_end) {
    char line[128], path[64];
    snprintf(path, sizeof(path), "/tmp/test_exit_status.%d", getpid());
    snprintf(line, sizeof(line), "-pidfile %s -append p", path);
    run(line);
    ck_assert_int_eq(command.status, 0);
    ck_assert_int_ne(access(path, F_OK), 0);
}
END_TEST

START_TEST(help_and_version_go_to_standard_output) {
    command_run(&command, "--help");
    ck_assert_int_eq(command.status, 0);
    ck_assert_ptr_nonnull(strstr(command.output, "-kernel FILE"));
    command_run(&command, "-version");
    ck_assert_int_eq(command.status, 0);
    ck_assert_str_eq(command.output, "trapeze " TRAPEZE_VERSION "\n");
    command_run(&command, "-cpu help");
    ck_assert_int_eq(command.status, 0);
    ck_assert_ptr_nonnull(strstr(command.output, "qemu64"));
}
END_TEST

START_TEST(statistics_and_listings_go_to_the_log) {
    char line[160], path[64], text[65536];
    snprintf(path, sizeof(path), "/tmp/test_exit_status.log.%d", getpid());
    snprintf(line, sizeof(line), "-d in_asm,out_asm,stats -D %s -append p", path);
    run(line);
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    size_t length = fread(text, 1, sizeof(text) - 1, file);
    text[length] = 0;
    fclose(file);
    remove(path);
    ck_assert_ptr_nonnull(strstr(text, "lodsb"));
    ck_assert_ptr_nonnull(strstr(text, "OUT: [size="));
    ck_assert_ptr_nonnull(strstr(text, "stats: blocks translated"));
    ck_assert_str_eq(command.errors, "");
}
END_TEST

int main(void) {
    Suite *suite = suite_create("exit_status");
    TCase *tcase = tcase_create("all");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, power_off_ends_with_0);
    tcase_add_test(tcase, debug_exit_ends_with_twice_its_value_and_one);
    tcase_add_test(tcase, no_reboot_ends_a_reset_with_0);
    tcase_add_test(tcase, triple_fault_without_reboot_ends_with_2_and_the_state);
    tcase_add_test(tcase, kvm_is_taken_with_one_warning);
    tcase_add_test(tcase, pidfile_is_gone_at_the_end);
    tcase_add_test(tcase, help_and_version_go_to_standard_output);
    tcase_add_test(tcase, statistics_and_listings_go_to_the_log);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
