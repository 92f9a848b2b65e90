/* Linux bzImage: what the kernel finds in its zero page and registers, and what a bad file is told. */
#include "tests/unit/bios/guest_double.h"
#include "tests/unit/bios/refusal.h"
#include "tests/unit/bios/synthetic.h"

#include <check.h>
#include <stdlib.h>

#define MIB          UINT64_C(0x100000)
#define ZERO_PAGE    0x7000
#define COMMAND_LINE 0x20000

static void boot_synthetic(struct guest_double *guest, uint8_t file[SYNTHETIC_BZIMAGE_SIZE]) {
    guest_double_set_kernel(guest, file, SYNTHETIC_BZIMAGE_SIZE);
    ck_assert_msg(guest_double_boot(guest), "%s", guest->error.text);
}

START_TEST(long_mode_entry_has_identity_map_and_zero_page_in_rsi) {
    struct guest_double guest;
    uint8_t file[SYNTHETIC_BZIMAGE_SIZE];
    guest_double_create(&guest, 256 * MIB, 0);
    synthetic_bzimage(file);
    boot_synthetic(&guest, file);
    ck_assert_uint_eq(guest.bsp.rip, 16 * MIB + 0x200);
    ck_assert_uint_eq(guest.bsp.gpr[6], ZERO_PAGE);
    ck_assert_uint_eq(guest.bsp.rflags, 2);
    ck_assert_uint_eq(guest.bsp.cr0, 0x80000011);
    ck_assert_uint_eq(guest.bsp.cr4, 0x20);
    ck_assert_uint_eq(guest.bsp.efer, 0x500);
    ck_assert_uint_eq(guest.bsp.segment[TRAPEZE_CS].attributes, 0xa09b);
    ck_assert_uint_eq(guest_double_get(&guest, guest.bsp.gdtr.base + 0x10, 8), 0x00af9b000000ffff);
    ck_assert_uint_eq(guest_double_get(&guest, guest.bsp.gdtr.base + 0x18, 8), 0x00cf93000000ffff);
    for (uint64_t address = 0; address < 4096 * MIB; address += 2 * MIB + 4096) {
        const uint64_t pml4 = guest_double_get(&guest, guest.bsp.cr3, 8);
        const uint64_t pdpt = guest_double_get(&guest, (pml4 & ~0xfffull) + (address >> 30) * 8, 8);
        const uint64_t pd = guest_double_get(&guest, (pdpt & ~0xfffull) + (address >> 21 & 511) * 8, 8);
        ck_assert_uint_eq(pml4 & 3, 3);
        ck_assert_uint_eq(pdpt & 3, 3);
        ck_assert_uint_eq(pd, (address & ~(2 * MIB - 1)) | 0x83);
    }
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(processor_without_long_mode_enters_in_32_bits) {
    struct guest_double guest;
    uint8_t file[SYNTHETIC_BZIMAGE_SIZE];
    guest_double_create(&guest, 256 * MIB, 0);
    guest.request.has_long_mode = false;
    synthetic_bzimage(file);
    boot_synthetic(&guest, file);
    ck_assert_uint_eq(guest.bsp.rip, 16 * MIB);
    ck_assert_uint_eq(guest.bsp.gpr[6], ZERO_PAGE);
    ck_assert_uint_eq(guest.bsp.cr0, 0x11);
    ck_assert_uint_eq(guest.bsp.cr4, 0);
    ck_assert_uint_eq(guest.bsp.efer, 0);
    ck_assert_uint_eq(guest.bsp.segment[TRAPEZE_CS].selector, 0x10);
    ck_assert_uint_eq(guest.bsp.segment[TRAPEZE_CS].attributes, 0xc09b);
    ck_assert_uint_eq(guest.bsp.segment[TRAPEZE_SS].selector, 0x18);
    ck_assert_uint_eq(guest.bsp.segment[TRAPEZE_SS].limit, 0xffffffff);
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(payload_header_and_command_line_are_in_memory) {
    struct guest_double guest;
    uint8_t file[SYNTHETIC_BZIMAGE_SIZE];
    guest_double_create(&guest, 256 * MIB, 0);
    guest.request.append = "console=ttyS0 quiet";
    synthetic_bzimage(file);
    boot_synthetic(&guest, file);
    ck_assert_mem_eq(guest_double_at(&guest, 16 * MIB, 4096), file + SYNTHETIC_BZIMAGE_PAYLOAD, 4096);
    ck_assert_uint_eq(guest_double_get(&guest, ZERO_PAGE + 0x202, 4), 0x53726448);
    ck_assert_uint_eq(guest_double_get(&guest, ZERO_PAGE + 0x264, 4), 0x11223344);
    ck_assert_uint_eq(guest_double_get(&guest, ZERO_PAGE + 0x26c, 4), 0); /* behind the header's end */
    ck_assert_uint_eq(guest_double_get(&guest, ZERO_PAGE + 0x1ef, 1), 0); /* the sentinel */
    ck_assert_uint_eq(guest_double_get(&guest, ZERO_PAGE + 0x210, 1), 0xff);
    ck_assert_uint_eq(guest_double_get(&guest, ZERO_PAGE + 0x211, 1), 0x81);
    ck_assert_uint_eq(guest_double_get(&guest, ZERO_PAGE + 0x214, 4), 16 * MIB);
    ck_assert_uint_eq(guest_double_get(&guest, ZERO_PAGE + 0x228, 4), COMMAND_LINE);
    ck_assert_uint_eq(guest_double_get(&guest, ZERO_PAGE + 0x70, 8), 0xe0000);
    ck_assert_str_eq((char *)guest_double_at(&guest, COMMAND_LINE, 64), "console=ttyS0 quiet");
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(e820_tells_ram_below_and_above_4g) {
    static const struct {
        uint64_t base, length;
        uint32_t type;
    } expected[] = {
        {0, 0x9fc00, 1}, {0x9fc00, 0x400, 2}, {0xe0000, 0x20000, 2}, {MIB, 1023 * MIB, 1}, {4096 * MIB, 2048 * MIB, 1},
    };
    struct guest_double guest;
    uint8_t file[SYNTHETIC_BZIMAGE_SIZE];
    guest_double_create(&guest, 1024 * MIB, 2048 * MIB);
    synthetic_bzimage(file);
    boot_synthetic(&guest, file);
    ck_assert_uint_eq(guest_double_get(&guest, ZERO_PAGE + 0x1e8, 1), 5);
    for (unsigned i = 0; i < 5; i++) {
        ck_assert_uint_eq(guest_double_get(&guest, ZERO_PAGE + 0x2d0 + i * 20, 8), expected[i].base);
        ck_assert_uint_eq(guest_double_get(&guest, ZERO_PAGE + 0x2d0 + i * 20 + 8, 8), expected[i].length);
        ck_assert_uint_eq(guest_double_get(&guest, ZERO_PAGE + 0x2d0 + i * 20 + 16, 4), expected[i].type);
    }
    ck_assert_uint_eq(guest_double_get(&guest, ZERO_PAGE + 0x1e0, 4), 1023 * 1024);
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(initrd_is_as_high_as_memory_and_kernel_allow) {
    static const struct {
        uint64_t ram, address_max, expected;
    } cases[] = {
        {256 * MIB, 0x7fffffff, 256 * MIB - 8192}, /* limited by memory; 5000 bytes take two pages */
        {256 * MIB, 0x7ffffff, 128 * MIB - 8192},  /* by the kernel */
        {256 * MIB, 0xffffffff, 256 * MIB - 8192}, {25 * MIB, 0x18fffff, 25 * MIB - 8192},
        {256 * MIB, 0x10fffff, 16 * MIB - 8192}, /* would be in the kernel: below it */
    };
    static uint8_t initrd[5000] = {[0] = 0x1f, [4999] = 0x8b};
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct guest_double guest;
        uint8_t file[SYNTHETIC_BZIMAGE_SIZE];
        guest_double_create(&guest, cases[i].ram, 0);
        synthetic_bzimage(file);
        synthetic_put(file, 0x22c, 4, cases[i].address_max);
        guest_double_set_initrd(&guest, initrd, sizeof initrd);
        boot_synthetic(&guest, file);
        ck_assert_uint_eq(guest_double_get(&guest, ZERO_PAGE + 0x218, 4), cases[i].expected);
        ck_assert_uint_eq(guest_double_get(&guest, ZERO_PAGE + 0x21c, 4), sizeof initrd);
        ck_assert_uint_eq(guest_double_get(&guest, ZERO_PAGE + 0xc0, 8), 0);
        ck_assert_mem_eq(guest_double_at(&guest, cases[i].expected, sizeof initrd), initrd, sizeof initrd);
        guest_double_destroy(&guest);
    }
}
END_TEST

START_TEST(initrd_goes_above_4g_only_where_the_kernel_can_reach_it) {
    struct guest_double guest;
    uint8_t file[SYNTHETIC_BZIMAGE_SIZE];
    uint8_t *initrd = calloc(1, 20 * MIB);
    guest_double_create(&guest, 25 * MIB, 64 * MIB);
    synthetic_bzimage(file);
    guest_double_set_initrd(&guest, initrd, 20 * MIB);
    boot_synthetic(&guest, file);
    ck_assert_uint_eq(guest_double_get(&guest, ZERO_PAGE + 0x218, 4), 44 * MIB);
    ck_assert_uint_eq(guest_double_get(&guest, ZERO_PAGE + 0xc0, 4), 1);
    synthetic_put(file, 0x236, 2, 1); /* XLF_KERNEL_64 without CAN_BE_LOADED_ABOVE_4G */
    guest_double_set_kernel(&guest, file, sizeof file);
    expect_refusal(&guest, "the initrd of 20 MiB does not fit");
    guest_double_destroy(&guest);
    free(initrd);
}
END_TEST

START_TEST(older_protocols_get_what_they_know) {
    static const struct {
        uint16_t version;
        uint64_t load_address;
    } cases[] = {{0x202, MIB}, {0x203, MIB}, {0x204, MIB}, {0x205, 2 * MIB}, {0x209, 2 * MIB}, {0x20a, 16 * MIB}};
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct guest_double guest;
        uint8_t file[SYNTHETIC_BZIMAGE_SIZE];
        guest_double_create(&guest, 256 * MIB, 0);
        synthetic_bzimage(file);
        synthetic_put(file, 0x206, 2, cases[i].version);
        boot_synthetic(&guest, file);
        ck_assert_uint_eq(guest.bsp.rip, cases[i].load_address); /* 64-bit entry came with 2.12 */
        ck_assert_uint_eq(guest_double_get(&guest, ZERO_PAGE + 0x70, 8), 0);
        ck_assert_mem_eq(guest_double_at(&guest, cases[i].load_address, 4096), file + SYNTHETIC_BZIMAGE_PAYLOAD, 4096);
        guest_double_destroy(&guest);
    }
}
END_TEST

START_TEST(kernel_that_is_not_relocatable_loads_where_it_says) {
    struct guest_double guest;
    uint8_t file[SYNTHETIC_BZIMAGE_SIZE];
    guest_double_create(&guest, 256 * MIB, 0);
    synthetic_bzimage(file);
    synthetic_put(file, 0x234, 1, 0);
    boot_synthetic(&guest, file);
    ck_assert_uint_eq(guest.bsp.rip, MIB + 0x200);
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(wrong_field_is_named) {
    static const struct {
        uint16_t offset, size;
        uint64_t value;
        const char *reason;
    } cases[] = {
        {0x1fe, 2, 0, "no boot signature"},
        {0x206, 2, 0x201, "boot protocol 2.01 is too old"},
        {0x206, 2, 0, "boot protocol 0.00 is too old"},
        {0x211, 1, 0, "zImage"},
        {0x1f1, 1, 255, "truncated"},
        {0x1f4, 4, 0xffffffff, "truncated"},
        {0x1f4, 4, 257, "truncated: 6656 bytes of 6672"},
        {0x1f4, 4, 32, "64-bit entry"},
        {0x230, 4, 0, "kernel_alignment 0 in"},
        {0x230, 4, 3, "kernel_alignment 0x3 in"},
        {0x230, 4, 0x80000000, "the kernel at 0x80000000-0x80800000 does not fit"},
        {0x258, 8, UINT64_MAX, "which is not between 1 MiB and 4 GiB"},
        {0x258, 8, 0xffffffff, "which is not between 1 MiB and 4 GiB"},
        {0x258, 8, 0xfe00000, "does not fit into the guest's 256 MiB"},
        {0x260, 4, 0xffffffff, "does not fit into the guest's 256 MiB"},
        {0x202, 4, 0, "not a kernel"},
    };
    struct guest_double guest;
    uint8_t file[SYNTHETIC_BZIMAGE_SIZE];
    guest_double_create(&guest, 256 * MIB, 0);
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        synthetic_bzimage(file);
        synthetic_put(file, cases[i].offset, cases[i].size, cases[i].value);
        guest_double_set_kernel(&guest, file, sizeof file);
        expect_refusal(&guest, cases[i].reason);
        ck_assert_ptr_eq(strstr(guest.error.text, guest.kernel_path), guest.error.text);
    }
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(fixed_kernel_with_wild_addresses_is_refused) {
    struct guest_double guest;
    uint8_t file[SYNTHETIC_BZIMAGE_SIZE];
    guest_double_create(&guest, 256 * MIB, 0);
    synthetic_bzimage(file);
    synthetic_put(file, 0x234, 1, 0);
    synthetic_put(file, 0x258, 8, UINT64_MAX - 4096);
    guest_double_set_kernel(&guest, file, sizeof file);
    expect_refusal(&guest, "does not fit");
    synthetic_put(file, 0x214, 4, 0x90000);
    guest_double_set_kernel(&guest, file, sizeof file);
    expect_refusal(&guest, "not between 1 MiB and 4 GiB");
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(every_truncation_is_refused) {
    struct guest_double guest;
    uint8_t file[SYNTHETIC_BZIMAGE_SIZE];
    guest_double_create(&guest, 256 * MIB, 0);
    synthetic_bzimage(file);
    for (size_t size = 0; size < sizeof file; size++) {
        guest_double_set_kernel(&guest, file, size);
        expect_refusal(&guest, size == 0 ? "empty" : size < 0x206 ? "not a kernel" : "truncated");
    }
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(command_line_too_long_for_the_kernel_is_refused) {
    struct guest_double guest;
    uint8_t file[SYNTHETIC_BZIMAGE_SIZE];
    char line[2049];
    memset(line, 'a', sizeof line);
    line[2047] = 0;
    guest_double_create(&guest, 256 * MIB, 0);
    guest.request.append = line;
    synthetic_bzimage(file);
    boot_synthetic(&guest, file);
    line[2047] = 'a';
    line[2048] = 0;
    expect_refusal(&guest, "command line (-append) has 2048 bytes, the kernel takes 2047");
    synthetic_put(file, 0x206, 2, 0x205); /* the length came with 2.06 */
    line[256] = 0;
    guest_double_set_kernel(&guest, file, sizeof file);
    expect_refusal(&guest, "has 256 bytes, the kernel takes 255");
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(initrd_that_is_missing_or_empty_is_named) {
    struct guest_double guest;
    uint8_t file[SYNTHETIC_BZIMAGE_SIZE];
    guest_double_create(&guest, 256 * MIB, 0);
    synthetic_bzimage(file);
    guest_double_set_kernel(&guest, file, sizeof file);
    guest.request.initrd = "/nonexistent/initrd";
    expect_refusal(&guest, "/nonexistent/initrd: No such file or directory");
    guest.request.initrd = "/";
    expect_refusal(&guest, "/: Is a directory");
    guest_double_set_initrd(&guest, "", 0);
    expect_refusal(&guest, "the file is empty");
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(second_load_over_the_first_is_the_same) {
    struct guest_double guest;
    uint8_t file[SYNTHETIC_BZIMAGE_SIZE];
    guest_double_create(&guest, 64 * MIB, 0);
    synthetic_bzimage(file);
    boot_synthetic(&guest, file);
    const struct trapeze_registers first = guest.bsp;
    memset(guest.low, 0x5a, 64 * MIB);
    boot_synthetic(&guest, file);
    ck_assert_mem_eq(&first, &guest.bsp, sizeof first);
    ck_assert_uint_eq(guest_double_get(&guest, ZERO_PAGE, 8), (63 * 1024ull) << 16);
    guest_double_destroy(&guest);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("bzimage");
    TCase *tests = tcase_create("bzimage");
    tcase_add_test(tests, long_mode_entry_has_identity_map_and_zero_page_in_rsi);
    tcase_add_test(tests, processor_without_long_mode_enters_in_32_bits);
    tcase_add_test(tests, payload_header_and_command_line_are_in_memory);
    tcase_add_test(tests, e820_tells_ram_below_and_above_4g);
    tcase_add_test(tests, initrd_is_as_high_as_memory_and_kernel_allow);
    tcase_add_test(tests, initrd_goes_above_4g_only_where_the_kernel_can_reach_it);
    tcase_add_test(tests, older_protocols_get_what_they_know);
    tcase_add_test(tests, kernel_that_is_not_relocatable_loads_where_it_says);
    tcase_add_test(tests, wrong_field_is_named);
    tcase_add_test(tests, fixed_kernel_with_wild_addresses_is_refused);
    tcase_add_test(tests, every_truncation_is_refused);
    tcase_add_test(tests, command_line_too_long_for_the_kernel_is_refused);
    tcase_add_test(tests, initrd_that_is_missing_or_empty_is_named);
    tcase_add_test(tests, second_load_over_the_first_is_the_same);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
