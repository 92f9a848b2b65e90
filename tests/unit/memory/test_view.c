/* memory/view.h: where jumps have their entries in the jump cache, and which entries lose their right to write. */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

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

enum { STATE_SIZE = 16384, HOST_PAGES = 24, LINEAR_PAGES = 40, ROUNDS = 20000 };

/* Few pages for much to fall together: in an index of the table (every third linear page), and in a chain. */
static uint64_t linear_page(unsigned i) {
    static const uint64_t base[] = {0, 0x7f1230000000, 0xffff888000000000};
    return base[i % 3] + ((uint64_t)(i / 3) << 12);
}

static uint64_t host_page(unsigned i) {
    return 0x7e0000000000 + ((uint64_t)(i / 3) << 12) + ((uint64_t)(i % 3) << 28);
}

static bool may_write(const struct view *view, uint64_t linear, uint64_t host) {
    unsigned index = view_index(linear);
    return view->tables->write_tag[index] == -linear && view->tables->addend[index] == host - linear;
}

/* What the table says before and after: the page's entries are gone, all others are as they were. */
static void drop(struct view *view, uint64_t host) {
    static struct view_tables before;
    unsigned wrong = 0;
    memcpy(&before, view->tables, sizeof before.read_tag + sizeof before.write_tag + sizeof before.addend);
    view_drop_writes(view, host);
    for (unsigned i = 0; i < VIEW_ENTRIES; i++) {
        bool leads_there = before.write_tag[i] != view_invalid_tag(i) && before.addend[i] - before.write_tag[i] == host;
        wrong += view->tables->write_tag[i] != (leads_there ? view_invalid_tag(i) : before.write_tag[i]) ||
                 view->tables->read_tag[i] != before.read_tag[i];
    }
    ck_assert_uint_eq(wrong, 0);
}

static struct view *create(void) {
    int fd = memfd_create("state", MFD_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, STATE_SIZE), 0);
    struct view *view = view_create(fd, STATE_SIZE, true);
    ck_assert_ptr_nonnull(view);
    close(fd);
    return view;
}

START_TEST(every_entry_of_a_page_loses_its_right_to_write) {
    struct view *view = create();
    unsigned dropped = 0;
    srand(7);
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned what = (unsigned)rand() % 1000;
        uint64_t linear = linear_page((unsigned)rand() % LINEAR_PAGES), host = host_page((unsigned)rand() % HOST_PAGES);
        if (what < 10) {
            drop(view, host);
            dropped++;
        } else if (what < 20) {
            view_flush(view, rand() % 2);
        } else if (what < 100) {
            view_flush_page(view, linear);
            ck_assert(!may_write(view, linear, host));
        } else {
            bool writable = rand() % 4;
            view_fill(view, &(struct view_page){.linear = linear, .host = host, .page_shift = 12, .readable = true,
                                                .writable = writable, .global = rand() % 2});
            ck_assert(may_write(view, linear, host) == writable);
        }
    }
    ck_assert_uint_gt(dropped, 100);
    view_destroy(view);
}
END_TEST

/* More entries than the view lists. */
START_TEST(a_full_table_loses_the_page_alone) {
    struct view *view = create();
    for (uint64_t i = 0; i < VIEW_ENTRIES; i++)
        view_fill(view, &(struct view_page){.linear = i << 12, .host = 0x7e0000000000 + (i / 2 << 12), .page_shift = 12,
                                            .readable = true, .writable = true, .global = i % 3 == 0});
    drop(view, 0x7e0000000000);
    ck_assert(!may_write(view, 0, 0x7e0000000000));
    ck_assert(!may_write(view, 4096, 0x7e0000000000));
    ck_assert(may_write(view, 2 * 4096, 0x7e0000001000));
    view_flush(view, true);
    drop(view, 0x7e0000001000);
    view_flush(view, false);
    unsigned left = 0;
    for (unsigned i = 0; i < VIEW_ENTRIES; i++)
        left += view->tables->write_tag[i] != view_invalid_tag(i);
    ck_assert_uint_eq(left, 0);
    view_destroy(view);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("view");
    TCase *tcase = tcase_create("jumps");
    tcase_add_loop_test(tcase, functions_of_a_mebibyte_have_entries_of_their_own, 0, 3);
    tcase_add_loop_test(tcase, targets_side_by_side_have_entries_of_their_own, 0, 3);
    tcase_add_test(tcase, empty_entries_match_nothing);
    suite_add_tcase(suite, tcase);
    tcase = tcase_create("writers");
    tcase_add_test(tcase, every_entry_of_a_page_loses_its_right_to_write);
    tcase_add_test(tcase, a_full_table_loses_the_page_alone);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
