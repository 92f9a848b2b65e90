/* Where jumps have their entries in the jump cache: view_jump_index of memory/view.h. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "memory/view.h"

static bool taken[VIEW_JUMPS];

static void take(uint64_t target) {
    unsigned index = view_jump_index(target);
    ck_assert_uint_lt(index, VIEW_JUMPS);
    ck_assert_msg(!taken[index], "%#lx shares an entry", (unsigned long)target);
    taken[index] = true;
}

START_TEST(functions_of_a_mebibyte_have_entries_of_their_own) {
    const uint64_t start[] = {0x400000, 0x7f1234567000, 0xffffffff81000000};
    memset(taken, 0, sizeof taken);
    for (uint64_t offset = 0; offset < 1 << 20; offset += 16)
        take(start[_i] + offset);
}
END_TEST

START_TEST(targets_side_by_side_have_entries_of_their_own) {
    const uint64_t start[] = {0x400003, 0x7f1234567ffe, 0xffffffff81000ff1};
    memset(taken, 0, sizeof taken);
    for (uint64_t offset = 0; offset < 48 << 10; offset++)
        take(start[_i] + offset);
}
END_TEST

/* An empty entry matches target 0, but for the first one, which matches the last address. */
START_TEST(empty_entries_match_nothing) {
    ck_assert_uint_eq(view_jump_index(0), 0);
    ck_assert_uint_ne(view_jump_index(~0ull), 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("view");
    TCase *tcase = tcase_create("jumps");
    tcase_add_loop_test(tcase, functions_of_a_mebibyte_have_entries_of_their_own, 0, 3);
    tcase_add_loop_test(tcase, targets_side_by_side_have_entries_of_their_own, 0, 3);
    tcase_add_test(tcase, empty_entries_match_nothing);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
