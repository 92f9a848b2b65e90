/* The command line: what each option stores, and what is refused. */
#include "tools/options.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/option_unsupported.h"
#include "trapeze/trapeze.h"

static struct options options;
static struct options_error error;

/* Splits at spaces; the words stay in a buffer of their own. */
static bool parse(const char *line) {
    static char text[1024];
    char *arguments[64] = {(char[]){"trapeze"}}, *rest = NULL;
    int count = 1;
    snprintf(text, sizeof(text), "%s", line);
    for (char *word = strtok_r(text, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
        arguments[count++] = word;
    error.text[0] = 0;
    return options_parse(&options, count, arguments, &error);
}

static void accept(const char *line) {
    ck_assert_msg(parse(line), "%s: %s", line, error.text);
}

START_TEST(defaults_are_one_processor_and_a_console_here) {
    accept("-kernel k");
    ck_assert_str_eq(options.kernel, "k");
    ck_assert_uint_eq(options.memory, 128u << 20);
    ck_assert_uint_eq(options.vcpu_count, 1);
    ck_assert_uint_eq(options.serial_count, 1);
    ck_assert_str_eq(options.serial[0], "mon:stdio");
    ck_assert_ptr_null(options.gdb);
    ck_assert_ptr_null(options_warning(&options, 0));
}
END_TEST

static const struct {
    const char *text;
    uint64_t bytes;
} sizes[] = {
    {"512", UINT64_C(512) << 20},     {"512M", UINT64_C(512) << 20},  {"1G", UINT64_C(1) << 30},
    {"size=2G", UINT64_C(2) << 30},   {"64G", UINT64_C(64) << 30},    {"1m", 1 << 20},
    {"2097152b", 2 << 20},            {"4096k", 4 << 20},             {"0x40", 64 << 20},
};

START_TEST(size_has_a_unit_or_means_megabytes) {
    char line[64];
    snprintf(line, sizeof(line), "-kernel k -m %s", sizes[_i].text);
    accept(line);
    ck_assert_uint_eq(options.memory, sizes[_i].bytes);
}
END_TEST

static const struct {
    const char *text;
    unsigned count;
    bool is_warned_about;
} topologies[] = {
    {"2", 2, false},
    {"cpus=4", 4, false},
    {"4,cores=4", 4, false},
    {"4,sockets=2,cores=2", 4, true},
    {"sockets=1,cores=2,threads=2", 4, true},
    {"2,maxcpus=2", 2, false},
    {"maxcpus=3", 3, false},
    {"254", 254, false},
};

START_TEST(topology_gives_the_number_of_processors) {
    char line[80];
    snprintf(line, sizeof(line), "-kernel k -smp %s", topologies[_i].text);
    accept(line);
    ck_assert_uint_eq(options.vcpu_count, topologies[_i].count);
    ck_assert_int_eq(options_warning(&options, 0) != NULL, topologies[_i].is_warned_about);
}
END_TEST

START_TEST(kvm_unit_tests_runner_is_understood) {
    accept("--no-reboot -nodefaults -global kvm-pit.lost_tick_policy=discard "
           "-device pc-testdev -device isa-debug-exit,iobase=0xf4,iosize=0x4 -vnc none "
           "-serial stdio -device pci-testdev -machine accel=tcg -kernel x.flat -smp 2 -cpu max,+feat -append a -m 4G "
           "-initrd env");
    ck_assert(options.no_reboot && options.has_testdev && options.has_debug_exit && options.has_pci_testdev);
    ck_assert_uint_eq(options.debug_exit_base, 0xf4);
    ck_assert_uint_eq(options.debug_exit_size, 4);
    ck_assert_uint_eq(options.serial_count, 1);
    ck_assert_str_eq(options.serial[0], "stdio");
    ck_assert_str_eq(options.cpu, "max,+feat");
    ck_assert_str_eq(options.initrd, "env");
}
END_TEST

START_TEST(nodefaults_and_display_none_leave_no_console) {
    accept("-kernel k -nodefaults");
    ck_assert_uint_eq(options.serial_count, 0);
    accept("-kernel k -display none");
    ck_assert_uint_eq(options.serial_count, 0);
    accept("-kernel k -display none -nographic");
    ck_assert_str_eq(options.serial[0], "mon:stdio");
    accept("-kernel k -serial none -serial null");
    ck_assert_ptr_null(options.serial[0]);
    ck_assert_str_eq(options.serial[1], "null");
}
END_TEST

START_TEST(kvm_is_warned_about_once) {
    accept("-kernel k -enable-kvm -accel kvm,kernel-irqchip=on -machine pc,accel=kvm:tcg");
    ck_assert_ptr_nonnull(strstr(options_warning(&options, 0), "KVM is not used"));
    ck_assert_ptr_null(options_warning(&options, 1));
    accept("-kernel k -accel tcg,thread=multi,tb-size=256");
    ck_assert_ptr_null(options_warning(&options, 0));
    ck_assert_uint_eq(options.code_cache, 256u << 20);
}
END_TEST

START_TEST(use_of_host_features_is_a_choice) {
    accept("-kernel k");
    ck_assert_uint_eq(options.without, 0);
    accept("-kernel k -accel tcg,bmi2=off");
    ck_assert_uint_eq(options.without, TRAPEZE_WITHOUT_BMI2);
    accept("-kernel k -accel tcg,bmi2=off,fsgsbase=off,bmi2=on");
    ck_assert_uint_eq(options.without, TRAPEZE_WITHOUT_FSGSBASE);
    ck_assert(!parse("-kernel k -accel tcg,bmi2=no"));
    ck_assert_ptr_nonnull(strstr(error.text, "on or off"));
}
END_TEST

START_TEST(log_items_become_bits) {
    accept("-kernel k -d in_asm,int,unimp -D file");
    ck_assert_uint_eq(options.log, TRAPEZE_LOG_IN_ASM | TRAPEZE_LOG_INT | TRAPEZE_LOG_UNIMPLEMENTED);
    ck_assert_str_eq(options.log_file, "file");
    accept("-kernel k -d exits");
    ck_assert_uint_eq(options.log, TRAPEZE_LOG_EXITS | OPTIONS_LOG_STATISTICS);
}
END_TEST

START_TEST(debugger_is_asked_for_in_two_ways) {
    accept("-kernel k -s -S");
    ck_assert_str_eq(options.gdb, "tcp::1234");
    ck_assert(options.starts_paused);
    accept("-kernel k -gdb unix:/tmp/x");
    ck_assert_str_eq(options.gdb, "unix:/tmp/x");
    accept("-kernel k -s -gdb none");
    ck_assert_ptr_null(options.gdb);
}
END_TEST

static const struct {
    const char *line;
    enum options_list list;
} lists[] = {
    {"--help", OPTIONS_LIST_HELP},           {"-h", OPTIONS_LIST_HELP},
    {"-version", OPTIONS_LIST_VERSION},      {"-cpu help", OPTIONS_LIST_CPUS},
    {"-cpu ?", OPTIONS_LIST_CPUS},           {"-M help", OPTIONS_LIST_MACHINES},
    {"-accel help", OPTIONS_LIST_ACCELERATORS}, {"-device help", OPTIONS_LIST_DEVICES},
    {"-device ?", OPTIONS_LIST_DEVICES},     {"-d help", OPTIONS_LIST_LOG_ITEMS},
};

START_TEST(lists_need_no_kernel) {
    accept(lists[_i].line);
    ck_assert_int_eq(options.list, lists[_i].list);
    ck_assert(lists[_i].list == OPTIONS_LIST_CPUS || options_list_text(lists[_i].list));
}
END_TEST

START_TEST(help_fits_a_screen) {
    unsigned lines = 0, column = 0;
    for (const char *c = options_list_text(OPTIONS_LIST_HELP); *c; c++) {
        column = *c == '\n' ? 0 : column + 1;
        lines += *c == '\n';
        ck_assert_uint_le(column, 80);
    }
    ck_assert_uint_le(lines, 24);
}
END_TEST

START_TEST(unsupported_option_of_qemu_says_so) {
    for (unsigned k = 0; option_unsupported_at(k); k++) {
        const struct option_unsupported *row = option_unsupported_at(k);
        char line[64];
        snprintf(line, sizeof(line), "-%s value", row->name);
        ck_assert_msg(!parse(line), "%s was taken", line);
        ck_assert_msg(strstr(error.text, "not supported yet"), "%s", error.text);
        ck_assert_msg(!row->nearest || strstr(error.text, row->nearest), "%s", error.text);
    }
}
END_TEST

/* What comes nearest must be something that the command takes. */
START_TEST(nearest_options_exist) {
    for (unsigned k = 0; option_unsupported_at(k); k++) {
        char line[96];
        if (!option_unsupported_at(k)->nearest)
            continue;
        snprintf(line, sizeof(line), "%s", option_unsupported_at(k)->nearest);
        parse(line);
        ck_assert_msg(!strstr(error.text, "unknown") && !strstr(error.text, "not supported yet;"), "%s: %s", line,
                      error.text);
    }
}
END_TEST

START_TEST(long_words_are_refused_without_harm) {
    static char line[1000];
    memset(line, 'x', sizeof(line) - 1);
    static const char *const starts[] = {"-", "-device ", "-machine ", "-m ", "-d ", "-smp ", "-accel ", "-name x="};
    for (unsigned i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
        memcpy(line, starts[i], strlen(starts[i]));
        ck_assert(!parse(line));
        ck_assert_uint_gt(strlen(error.text), 10);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("options");
    TCase *tcase = tcase_create("all");
    tcase_add_test(tcase, defaults_are_one_processor_and_a_console_here);
    tcase_add_loop_test(tcase, size_has_a_unit_or_means_megabytes, 0, sizeof(sizes) / sizeof(sizes[0]));
    tcase_add_loop_test(tcase, topology_gives_the_number_of_processors, 0, sizeof(topologies) / sizeof(topologies[0]));
    tcase_add_test(tcase, kvm_unit_tests_runner_is_understood);
    tcase_add_test(tcase, nodefaults_and_display_none_leave_no_console);
    tcase_add_test(tcase, kvm_is_warned_about_once);
    tcase_add_test(tcase, use_of_host_features_is_a_choice);
    tcase_add_test(tcase, log_items_become_bits);
    tcase_add_test(tcase, debugger_is_asked_for_in_two_ways);
    tcase_add_loop_test(tcase, lists_need_no_kernel, 0, sizeof(lists) / sizeof(lists[0]));
    tcase_add_test(tcase, help_fits_a_screen);
    tcase_add_test(tcase, unsupported_option_of_qemu_says_so);
    tcase_add_test(tcase, nearest_options_exist);
    tcase_add_test(tcase, long_words_are_refused_without_harm);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
