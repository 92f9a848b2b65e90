/* Where the windows of several processors find room for a kernel's regions. */
#include <check.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory/window.h"

enum { PROCESSORS = 6, STATE_SIZE = 4096 };

/* A 64-bit kernel's image, memory, stacks, page descriptors and per-processor areas. */
static const uint64_t kernel_regions[] = {0xffffffff80000000, 0xffff8c2b00000000, 0xffffd18580000000,
                                          0xfffff00000000000, 0xfffffe0000000000};

static _Atomic uint32_t budget = 1000;
static struct view *views[PROCESSORS];
static int state_fd;

static void create(void) {
    state_fd = memfd_create("state", 0);
    ck_assert_int_eq(ftruncate(state_fd, STATE_SIZE), 0);
    for (unsigned i = 0; i < PROCESSORS; i++) {
        views[i] = view_create(state_fd, STATE_SIZE);
        ck_assert_ptr_nonnull(views[i]);
        ck_assert(window_create(views[i], true, true, &budget));
    }
}

static void destroy(void) {
    for (unsigned i = 0; i < PROCESSORS; i++)
        view_destroy(views[i]);
    close(state_fd);
}

/* As the software tables know the kernel when its window is opened. */
static void fill(struct view *view) {
    for (unsigned i = 0; i < sizeof kernel_regions / sizeof *kernel_regions; i++) {
        const uint64_t linear = kernel_regions[i] + i * 4096ull; /* so that each has an index of its own */
        const struct view_page page = {.linear = linear, .host = 4096, .page_shift = 12, .readable = true};
        view_fill(view, &page);
    }
}

START_TEST(each_processor_finds_room_for_all_regions_of_a_kernel) {
    for (unsigned p = 0; p < PROCESSORS; p++) {
        fill(views[p]);
        for (unsigned i = 0; i < sizeof kernel_regions / sizeof *kernel_regions; i++) {
            ck_assert(window_reserve(views[p], kernel_regions[i]));
            ck_assert_uint_eq(window_group(views[p]->window, kernel_regions[i]), WINDOW_A);
        }
    }
}
END_TEST

START_TEST(upper_half_is_in_group_a_or_nowhere) {
    ck_assert(window_reserve(views[0], kernel_regions[0]));
    /* Its place under the addend that the first region got is outside of the host's half. */
    ck_assert(!window_reserve(views[0], 0xffff800000000000));
    ck_assert_uint_eq(window_group(views[0]->window, 0xffff800000000000), WINDOW_GROUPS);
    ck_assert(window_reserve(views[0], 0x400000));
    ck_assert_uint_eq(window_group(views[0]->window, 0x400000), WINDOW_B);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("window");
    TCase *tcase = tcase_create("window");
    tcase_add_checked_fixture(tcase, create, destroy);
    tcase_add_test(tcase, each_processor_finds_room_for_all_regions_of_a_kernel);
    tcase_add_test(tcase, upper_half_is_in_group_a_or_nowhere);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
