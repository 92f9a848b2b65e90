/* Listings: one line an instruction in each width, and what is no instruction. */
#include "tools/disassembly.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static char *print(unsigned width, const char *code, size_t length) {
    static char text[2048];
    FILE *to = fmemopen(text, sizeof(text), "w");
    disassembly_print(to, "  ", 0x1000, width, (const uint8_t *)code, length);
    fclose(to);
    return text;
}

START_TEST(width_decides_what_the_bytes_mean) {
    ck_assert_str_eq(print(64, "\x48\x01\xd8", 3),
                     "  0000000000001000  4801d8                          add rax, rbx\n");
    ck_assert_ptr_nonnull(strstr(print(32, "\x48\x01\xd8", 3), "dec eax\n"));
    ck_assert_ptr_nonnull(strstr(print(16, "\x48\x01\xd8", 3), "dec ax\n"));
}
END_TEST

START_TEST(bytes_that_are_no_instruction_are_shown_one_by_one) {
    char *text = print(64, "\x06\x90", 2);
    ck_assert_ptr_nonnull(strstr(text, ".byte\n"));
    ck_assert_ptr_nonnull(strstr(text, "0000000000001001"));
    ck_assert_ptr_nonnull(strstr(text, "nop\n"));
}
END_TEST

START_TEST(first_instruction_alone_or_none) {
    char text[64];
    disassembly_first(text, sizeof(text), 0, 64, (const uint8_t *)"\x0f\x05\x90", 3);
    ck_assert_str_eq(text, "syscall");
    disassembly_first(text, sizeof(text), 0, 64, (const uint8_t *)"\x06", 1);
    ck_assert_str_eq(text, "(bad)");
}
END_TEST

int main(void) {
    Suite *suite = suite_create("disassembly");
    TCase *tcase = tcase_create("all");
    tcase_add_test(tcase, width_decides_what_the_bytes_mean);
    tcase_add_test(tcase, bytes_that_are_no_instruction_are_shown_one_by_one);
    tcase_add_test(tcase, first_instruction_alone_or_none);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
