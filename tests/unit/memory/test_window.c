/* Which groups the regions of windows come to, where they find room, and which pages leave them: memory/window.c. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "memory/window.h"

enum { PROCESSORS = 4, STATE_SIZE = 4096 };

/* A 64-bit kernel's image, memory, stacks, page descriptors and per-processor areas. */
static const uint64_t kernel_regions[] = {0xffffffff80000000, 0xffff8c2b00000000, 0xffffd18580000000,
                                          0xfffff00000000000, 0xfffffe0000000000};

static struct window_shared shared = {.budget = 1000};
static struct view *views[PROCESSORS];
static int state_fd;

static void create(void) {
    state_fd = memfd_create("state", 0);
    ck_assert_int_eq(ftruncate(state_fd, STATE_SIZE), 0);
    for (unsigned i = 0; i < PROCESSORS; i++) {
        views[i] = view_create(state_fd, STATE_SIZE, true);
        ck_assert_ptr_nonnull(views[i]);
        ck_assert(window_create(views[i], true, true, &shared));
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

/* ---- Programs ---- */

#define STACK 0x7ffd12340000ull
#define LIBRARY 0x7e8111110000ull
#define IMAGE 0x400000ull
#define HEAP 0x555556789000ull

enum { WINDOWS = 4 };

struct fixture {
    struct window_shared shared;
    struct view *view[WINDOWS];
};

static struct fixture fixture;

static void create_programs(void) {
    int fd = memfd_create("state", MFD_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, STATE_SIZE), 0);
    fixture = (struct fixture){.shared.budget = 1000};
    for (unsigned i = 0; i < WINDOWS; i++) {
        fixture.view[i] = view_create(fd, STATE_SIZE, true);
        ck_assert_ptr_nonnull(fixture.view[i]);
    }
    close(fd);
}

static void destroy_programs(void) {
    for (unsigned i = 0; i < WINDOWS; i++)
        view_destroy(fixture.view[i]);
}

static void create_with(struct view *view, uint64_t first, uint64_t second, uint64_t third, uint64_t fourth) {
    const uint64_t linear[] = {first, second, third, fourth};

    ck_assert(window_create(view, true, false, &fixture.shared));
    for (unsigned i = 0; i < 4; i++)
        ck_assert_msg(window_reserve(view, linear[i]), "no room for %#lx", (unsigned long)linear[i]);
}

/* Programs share the code of libraries, which is made for groups: a heap that is in another one in the next program would
   have all of it translated anew. */
START_TEST(programs_that_are_alike_have_like_groups) {
    create_with(fixture.view[0], STACK, IMAGE, LIBRARY, HEAP);
    create_with(fixture.view[1], STACK, HEAP, IMAGE, LIBRARY);
    create_with(fixture.view[2], STACK, LIBRARY, HEAP, IMAGE);
    create_with(fixture.view[3], STACK, IMAGE, HEAP, LIBRARY);
    for (unsigned i = 0; i < WINDOWS; i++) {
        const struct window *window = fixture.view[i]->window;
        ck_assert_uint_eq(window_group(window, STACK), WINDOW_A);
        ck_assert_uint_eq(window_group(window, LIBRARY), WINDOW_A);
        ck_assert_uint_eq(window_group(window, IMAGE), WINDOW_B);
        ck_assert_uint_eq(window_group(window, HEAP), WINDOW_A);
    }
}
END_TEST

/* A window is made with room for what others needed, but not for so much that its own regions find none. */
START_TEST(habits_leave_room_for_others) {
    struct view *view = fixture.view[0];

    ck_assert(window_create(view, true, false, &fixture.shared));
    ck_assert(window_reserve(view, STACK));
    for (unsigned i = 1; i < WINDOW_REGIONS; i++)
        ck_assert(window_reserve(view, (uint64_t)i << 41));
    ck_assert(!window_reserve(view, 60ull << 40));
    ck_assert_uint_eq(view->window->region_count, WINDOW_REGIONS);
    create_with(fixture.view[1], STACK, 30ull << 40, 32ull << 40, 34ull << 40);
}
END_TEST

static void *take_place(uint64_t host) {
    void *place = mmap((void *)host, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    ck_assert_ptr_eq(place, (void *)host);
    return place;
}

/* Something of the host's is where the heap would be beside the stack: it is not put into the other group, where code that
   is shared would not look for it, but the next window is made for both. */
START_TEST(window_without_room_for_a_habit_is_made_elsewhere) {
    struct view *view = fixture.view[0];

    ck_assert(window_create(view, true, false, &fixture.shared));
    ck_assert(window_reserve(view, STACK));
    void *place = take_place(HEAP + view->window->addend[WINDOW_A]);
    ck_assert(!window_reserve(view, HEAP));
    ck_assert_uint_eq(window_group(view->window, HEAP), WINDOW_GROUPS);
    window_destroy(view);
    ck_assert(window_create(view, true, false, &fixture.shared));
    ck_assert(window_reserve(view, STACK));
    ck_assert(window_reserve(view, HEAP));
    ck_assert_uint_eq(window_group(view->window, HEAP), WINDOW_A);
    munmap(place, 4096);
}
END_TEST

/* Where moving has not helped, it takes what there is. */
START_TEST(window_that_has_moved_enough_takes_the_other_group) {
    struct view *view = fixture.view[0];

    view->window_moves = WINDOW_MOVES;
    ck_assert(window_create(view, true, false, &fixture.shared));
    ck_assert(window_reserve(view, STACK));
    void *place = take_place(HEAP + view->window->addend[WINDOW_A]);
    ck_assert(window_reserve(view, HEAP));
    ck_assert_uint_eq(window_group(view->window, HEAP), WINDOW_B);
    munmap(place, 4096);
}
END_TEST

/* ---- Pages ---- */

enum { PAGES = 300 };

static uint8_t *memory; /* page n begins with the byte n */
static int memory_fd;

static void create_pages(void) {
    create_programs();
    memory_fd = memfd_create("memory", MFD_CLOEXEC);
    ck_assert_int_eq(ftruncate(memory_fd, PAGES * 4096), 0);
    memory = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0);
    ck_assert_ptr_ne(memory, MAP_FAILED);
    for (unsigned i = 0; i < PAGES; i++)
        memory[i * 4096] = (uint8_t)i;
    ck_assert(window_create(fixture.view[0], true, false, &fixture.shared));
    ck_assert(window_reserve(fixture.view[0], HEAP));
}

static void destroy_pages(void) {
    destroy_programs();
    munmap(memory, PAGES * 4096);
    close(memory_fd);
}

static uint64_t page_at(unsigned number) {
    return HEAP + number * 4096ull;
}

static void map_pages(const unsigned *numbers, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        const struct window_piece piece = {.linear = page_at(numbers[i]), .memory = memory + numbers[i] * 4096, .pages = 1};
        ck_assert(window_map(fixture.view[0]->window, &piece, 1, memory_fd, numbers[i] * 4096));
    }
}

/* As the processor sees it, and in the table. */
static bool is_mapped(unsigned number) {
    struct window *window = fixture.view[0]->window;
    const uint8_t *host = (const uint8_t *)(page_at(number) + window->addend[window_group(window, HEAP)]);
    int ends[2];
    uint8_t byte = 0;
    ck_assert_int_eq(pipe(ends), 0);
    bool is_there = write(ends[1], host, 1) == 1;
    ck_assert(!is_there || (read(ends[0], &byte, 1) == 1 && byte == (uint8_t)number));
    close(ends[0]);
    close(ends[1]);
    ck_assert(is_there == !!window_find(window, page_at(number)));
    return is_there;
}

START_TEST(pages_are_unmapped_without_those_between) {
    static const unsigned numbers[] = {0, 1, 2, 5, 7, 150, 151}, going[] = {7, 0, 5, 151, 5, 2};
    uint64_t linear[sizeof going / sizeof *going];
    map_pages(numbers, sizeof numbers / sizeof *numbers);
    for (unsigned i = 0; i < sizeof going / sizeof *going; i++)
        linear[i] = page_at(going[i]);
    window_unmap_pages(fixture.view[0]->window, linear, sizeof going / sizeof *going);
    for (unsigned i = 0; i < PAGES; i++)
        ck_assert(is_mapped(i) == (i == 1 || i == 150));
    ck_assert_uint_eq(fixture.view[0]->window->piece_count, 2);
    ck_assert_uint_eq(fixture.shared.budget, 1000 - 2);
}
END_TEST

static bool is_seventh(struct window_piece *piece, void *unused) {
    (void)unused;
    return (piece->linear - HEAP) / 4096 % 7 == 0;
}

START_TEST(kept_pages_stay_amid_those_that_go) {
    unsigned numbers[PAGES];
    for (unsigned i = 0; i < PAGES; i++)
        numbers[i] = i * 211 % PAGES; /* in disorder */
    map_pages(numbers, PAGES / 2);
    bool was_mapped[PAGES] = {false};
    for (unsigned i = 0; i < PAGES / 2; i++)
        was_mapped[numbers[i]] = true;
    window_keep(fixture.view[0]->window, is_seventh, NULL);
    for (unsigned i = 0; i < PAGES; i++)
        ck_assert(is_mapped(i) == (was_mapped[i] && i % 7 == 0));
}
END_TEST

/* ---- What checks read ---- */

/* Whether the host lets eight bytes be read there. */
static bool is_readable(const void *at) {
    int pipe_fd[2];
    ck_assert_int_eq(pipe(pipe_fd), 0);
    bool is_there = write(pipe_fd[1], at, 8) == 8;
    close(pipe_fd[0]);
    close(pipe_fd[1]);
    return is_there;
}

/* Where translated code looks an address up: behind `table`, by the address without its lowest bits. */
static const uint64_t *entry_of(const struct view *view, unsigned table, uint64_t linear) {
    return (const uint64_t *)(view->tables->check + table * VIEW_CHECK_STRIDE) + (linear >> VIEW_CHECK_SHIFT);
}

START_TEST(entries_are_there_for_regions_alone) {
    const struct view *view = views[0];
    static const uint64_t regions[] = {0xffffffff80000000, 0xffff8c2b00000000, 0x550000000000, 0};
    for (unsigned i = 0; i < sizeof regions / sizeof *regions; i++)
        ck_assert(window_reserve(views[0], regions[i]));
    for (unsigned i = 0; i < sizeof regions / sizeof *regions; i++) {
        const uint64_t first = regions[i] >> 40 << 40, last = first + (1ull << 40) - 1;
        unsigned group = window_group(view->window, regions[i]);
        unsigned own = group == WINDOW_A ? VIEW_CHECK_A : VIEW_CHECK_B, other = VIEW_CHECK_A + VIEW_CHECK_B - own;
        for (unsigned k = 0; k < 2; k++) {
            uint64_t linear = k ? last : first;
            ck_assert(is_readable(entry_of(view, own, linear)));
            ck_assert(!is_readable(entry_of(view, other, linear)));
            ck_assert_uint_eq(*entry_of(view, VIEW_ADDENDS, linear), view->window->addend[group]);
        }
    }
    static const uint64_t strangers[] = {0x10000000000, 0x7effffffffff, 0x800000000000, 0x4000000000000, 0x8000000000000000,
                                         0xfffe000000000000, 0xffff7fffffffffff};
    for (unsigned i = 0; i < sizeof strangers / sizeof *strangers; i++)
        for (unsigned table = 0; table < VIEW_CHECK_TABLES; table++)
            ck_assert(!is_readable(entry_of(view, table, strangers[i])));
}
END_TEST

START_TEST(entries_go_with_their_window) {
    ck_assert(window_reserve(views[0], 0x550000000000));
    window_destroy(views[0]);
    ck_assert(window_create(views[0], true, true, &shared));
    for (unsigned table = 0; table < VIEW_CHECK_TABLES; table++)
        ck_assert(!is_readable(entry_of(views[0], table, 0x550000000000)));
}
END_TEST

static uint64_t own_size(void) {
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fscanf(file, "%lu", &pages), 1);
    fclose(file);
    return pages * 4096ull;
}

START_TEST(view_without_room_for_checks_has_no_64_bit_window) {
    struct rlimit before, less;
    ck_assert_int_eq(getrlimit(RLIMIT_AS, &before), 0);
    less = before;
    less.rlim_cur = own_size() + (16ull << 30);
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &less), 0);
    struct view *view = view_create(state_fd, STATE_SIZE, true);
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &before), 0);
    ck_assert_ptr_nonnull(view);
    ck_assert(!view->has_checks);
    ck_assert(!window_create(view, true, false, &shared));
    ck_assert_ptr_null(view->window);
    ck_assert(window_create(view, false, false, &shared));
    view_destroy(view);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("window");
    TCase *tcase = tcase_create("window");
    tcase_add_checked_fixture(tcase, create, destroy);
    tcase_add_test(tcase, each_processor_finds_room_for_all_regions_of_a_kernel);
    tcase_add_test(tcase, upper_half_is_in_group_a_or_nowhere);
    tcase_add_test(tcase, entries_are_there_for_regions_alone);
    tcase_add_test(tcase, entries_go_with_their_window);
    tcase_add_test(tcase, view_without_room_for_checks_has_no_64_bit_window);
    suite_add_tcase(suite, tcase);
    TCase *programs = tcase_create("programs");
    tcase_add_checked_fixture(programs, create_programs, destroy_programs);
    tcase_add_test(programs, programs_that_are_alike_have_like_groups);
    tcase_add_test(programs, habits_leave_room_for_others);
    tcase_add_test(programs, window_without_room_for_a_habit_is_made_elsewhere);
    tcase_add_test(programs, window_that_has_moved_enough_takes_the_other_group);
    suite_add_tcase(suite, programs);
    TCase *pages = tcase_create("pages");
    tcase_add_checked_fixture(pages, create_pages, destroy_pages);
    tcase_add_test(pages, pages_are_unmapped_without_those_between);
    tcase_add_test(pages, kept_pages_stay_amid_those_that_go);
    suite_add_tcase(suite, pages);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
