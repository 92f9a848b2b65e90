/* Placement in guest memory, and errors that stay one line. */
#include "bios/loader.h"

#include "tests/unit/bios/guest_double.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB      UINT64_C(0x100000)
#define FOUR_GIB UINT64_C(0x100000000)

static struct loader loader_for(struct guest_double *guest) {
    guest->request.kernel = "kernel";
    return (struct loader){
        .request = &guest->request, .memory = &guest->memory, .bsp = &guest->bsp, .error = &guest->error};
}

START_TEST(only_conventional_extended_and_high_memory_are_ram) {
    static const struct {
        uint64_t address, length;
        bool is_ram;
    } cases[] = {
        {0, 0x9fc00, true},
        {0, 0x9fc01, false},
        {0x9fc00, 1, false},
        {0xa0000, 1, false},
        {0xe0000, 1, false},
        {MIB, 15 * MIB, true},
        {MIB, 15 * MIB + 1, false},
        {16 * MIB, 1, false},
        {FOUR_GIB, 8 * MIB, true},
        {FOUR_GIB - 1, 2, false},
        {FOUR_GIB, 8 * MIB + 1, false},
        {UINT64_MAX, 1, false},
        {MIB, UINT64_MAX, false},
        {UINT64_MAX, UINT64_MAX, false},
    };
    struct guest_double guest;
    guest_double_create(&guest, 16 * MIB, 8 * MIB);
    const struct loader loader = loader_for(&guest);
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++)
        ck_assert_msg(loader_is_ram(&loader, cases[i].address, cases[i].length) == cases[i].is_ram, "case %u", i);
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(taking_reports_what_is_overlapped) {
    struct guest_double guest;
    guest_double_create(&guest, 16 * MIB, 0);
    struct loader loader = loader_for(&guest);
    ck_assert(loader_take(&loader, "a", &(struct loader_extent){2 * MIB, 3 * MIB, "the first"}));
    ck_assert(loader_take(&loader, "b", &(struct loader_extent){MIB, 2 * MIB, "the second"}));
    ck_assert(!loader_take(&loader, "c", &(struct loader_extent){3 * MIB - 1, 3 * MIB, "the third"}));
    ck_assert_str_eq(guest.error.text, "c: the third at 0x2fffff-0x300000 overlaps the first");
    ck_assert(!loader_take(&loader, "d", &(struct loader_extent){5 * MIB, 4 * MIB, "the fourth"}));
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(places_are_free_aligned_and_from_the_wished_side) {
    static const struct {
        struct loader_wish wish;
        uint64_t expected; /* 0: nowhere */
    } cases[] = {
        {{4096, 4096, 0x1000, FOUR_GIB, false, ""}, 0x1000},
        {{0x9f000, 4096, 0x1000, FOUR_GIB, false, ""}, MIB},
        {{MIB, MIB, MIB, FOUR_GIB, false, ""}, MIB},
        {{2 * MIB, MIB, MIB, FOUR_GIB, false, ""}, 6 * MIB},
        {{4096, 4096, MIB, FOUR_GIB, true, ""}, 16 * MIB - 4096},
        {{1, 4096, MIB, FOUR_GIB, true, ""}, 16 * MIB - 4096},
        {{4096, 4096, MIB, UINT64_MAX, true, ""}, FOUR_GIB + 8 * MIB - 4096},
        {{4096, 4096, MIB, 5 * MIB, true, ""}, 2 * MIB - 4096},
        {{11 * MIB, 4096, MIB, FOUR_GIB, true, ""}, 0},
        {{11 * MIB, 4096, MIB, FOUR_GIB, false, ""}, 0},
        {{4096, 4096, 2 * MIB, 6 * MIB, false, ""}, 0},
        {{UINT64_MAX, 4096, MIB, UINT64_MAX, true, ""}, 0},
        {{UINT64_MAX, 4096, MIB, UINT64_MAX, false, ""}, 0},
        {{4096, UINT64_C(1) << 63, MIB, UINT64_MAX, false, ""}, 0},
    };
    struct guest_double guest;
    guest_double_create(&guest, 16 * MIB, 8 * MIB);
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct loader loader = loader_for(&guest);
        uint64_t address = 0;
        ck_assert(loader_take(&loader, "a", &(struct loader_extent){2 * MIB, 6 * MIB, "the kernel"}));
        const bool is_placed = loader_place(&loader, &cases[i].wish, &address);
        ck_assert_msg(is_placed == (cases[i].expected != 0), "case %u", i);
        ck_assert_uint_eq(address, cases[i].expected);
        ck_assert_uint_eq(loader.taken_count, is_placed ? 2 : 1);
    }
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(full_list_of_pieces_is_refused) {
    struct guest_double guest;
    guest_double_create(&guest, 16 * MIB, 0);
    struct loader loader = loader_for(&guest);
    const struct loader_wish wish = {4096, 4096, MIB, FOUR_GIB, false, "a piece"};
    uint64_t address;
    for (unsigned i = 0; i < LOADER_EXTENTS_MAX; i++)
        ck_assert(loader_place(&loader, &wish, &address));
    ck_assert(!loader_place(&loader, &wish, &address));
    ck_assert(!loader_take(&loader, "k", &(struct loader_extent){8 * MIB, 9 * MIB, "one more"}));
    ck_assert_str_eq(guest.error.text, "k: more than 128 pieces to load");
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(long_path_keeps_its_end_and_the_reason) {
    struct guest_double guest;
    char path[4096];
    memset(path, 'p', sizeof path);
    memcpy(path + sizeof path - 8, "/vmlinu", 8);
    guest_double_create(&guest, 16 * MIB, 0);
    guest.request.kernel = path;
    ck_assert(!guest_double_boot(&guest));
    ck_assert_ptr_nonnull(strstr(guest.error.text, "/vmlinu: File name too long"));
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(control_characters_of_a_path_do_not_reach_the_terminal) {
    struct guest_double guest;
    guest_double_create(&guest, 16 * MIB, 0);
    guest.request.kernel = "/nonexistent/a\nb\033[2J";
    ck_assert(!guest_double_boot(&guest));
    ck_assert_str_eq(guest.error.text, "/nonexistent/a?b?[2J: No such file or directory");
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(what_is_no_regular_file_is_refused_without_waiting) {
    char folder[] = "/tmp/trapeze-test-XXXXXX", fifo[64];
    struct guest_double guest;
    guest_double_create(&guest, 16 * MIB, 0);
    ck_assert_ptr_nonnull(mkdtemp(folder));
    strcat(strcpy(fifo, folder), "/fifo");
    ck_assert_int_eq(mkfifo(fifo, 0600), 0);
    guest.request.kernel = fifo;
    ck_assert(!guest_double_boot(&guest));
    ck_assert_ptr_nonnull(strstr(guest.error.text, ": not a regular file"));
    unlink(fifo);
    rmdir(folder);
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(memory_that_a_direct_boot_cannot_use_is_refused) {
    static const uint64_t sizes[] = {0, 0xfffff, 0xc0000001, UINT64_MAX};
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct guest_double guest;
        guest_double_create(&guest, MIB, 0);
        guest.request.kernel = "kernel";
        guest.memory.ram_below_4g = sizes[i];
        ck_assert(!guest_double_boot(&guest));
        ck_assert_str_eq(guest.error.text, "kernel: a direct boot needs 1 MiB to 3 GiB of memory below 4 GiB");
        guest.memory.ram_below_4g = MIB;
        guest_double_destroy(&guest);
    }
}
END_TEST

static bool refuse_write(void *opaque, guest_physical to, const void *from, size_t length) {
    (void)opaque;
    (void)from;
    return to.value + length <= 0xe0000;
}

START_TEST(memory_that_refuses_a_write_is_told) {
    struct guest_double guest;
    guest_double_create(&guest, 16 * MIB, 0);
    guest_double_set_kernel(&guest, "kernel", 6);
    guest.memory.write = refuse_write;
    ck_assert(!guest_double_boot(&guest));
    ck_assert_ptr_nonnull(strstr(guest.error.text, "guest memory at 0xfff53 cannot be written"));
    guest_double_destroy(&guest);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("loader");
    TCase *tests = tcase_create("loader");
    tcase_add_test(tests, only_conventional_extended_and_high_memory_are_ram);
    tcase_add_test(tests, taking_reports_what_is_overlapped);
    tcase_add_test(tests, places_are_free_aligned_and_from_the_wished_side);
    tcase_add_test(tests, full_list_of_pieces_is_refused);
    tcase_add_test(tests, long_path_keeps_its_end_and_the_reason);
    tcase_add_test(tests, control_characters_of_a_path_do_not_reach_the_terminal);
    tcase_add_test(tests, what_is_no_regular_file_is_refused_without_waiting);
    tcase_add_test(tests, memory_that_a_direct_boot_cannot_use_is_refused);
    tcase_add_test(tests, memory_that_refuses_a_write_is_told);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
