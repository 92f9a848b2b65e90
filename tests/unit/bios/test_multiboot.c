/* Multiboot 1: flat and ELF kernels, modules, and what a bad header is told. */
#include "tests/unit/bios/guest_double.h"
#include "tests/unit/bios/refusal.h"
#include "tests/unit/bios/synthetic.h"

#include <check.h>
#include <stdio.h>

#define MIB UINT64_C(0x100000)

static const char *string_at(const struct guest_double *guest, uint64_t pointer) {
    return (const char *)guest_double_at(guest, guest_double_get(guest, pointer, 4), 64);
}

START_TEST(flat_image_is_loaded_by_the_header_addresses) {
    struct guest_double guest;
    uint8_t file[SYNTHETIC_FLAT_SIZE];
    guest_double_create(&guest, 16 * MIB, 0);
    memset(guest.low, 0x5a, 16 * MIB);
    synthetic_flat(file);
    guest_double_set_kernel(&guest, file, sizeof file);
    ck_assert_msg(guest_double_boot(&guest), "%s", guest.error.text);
    ck_assert_uint_eq(guest.bsp.rip, 0x200080);
    ck_assert_uint_eq(guest.bsp.gpr[0], 0x2badb002);
    ck_assert_uint_eq(guest.bsp.cr0, 0x11);
    ck_assert_mem_eq(guest_double_at(&guest, 2 * MIB, sizeof file), file, sizeof file);
    ck_assert_uint_eq(guest_double_get(&guest, 2 * MIB + sizeof file, 8), 0);
    ck_assert_uint_eq(guest_double_get(&guest, 2 * MIB + sizeof file + 4088, 8), 0);
    ck_assert_uint_eq(guest_double_get(&guest, 2 * MIB + sizeof file + 4096, 1), 0x5a);
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(zero_end_addresses_mean_the_whole_file_without_bss) {
    struct guest_double guest;
    uint8_t file[SYNTHETIC_FLAT_SIZE];
    guest_double_create(&guest, 16 * MIB, 0);
    memset(guest.low, 0x5a, 16 * MIB);
    synthetic_flat(file);
    synthetic_put(file, SYNTHETIC_FLAT_HEADER + 20, 8, 0);
    guest_double_set_kernel(&guest, file, sizeof file);
    ck_assert_msg(guest_double_boot(&guest), "%s", guest.error.text);
    ck_assert_mem_eq(guest_double_at(&guest, 2 * MIB, sizeof file), file, sizeof file);
    ck_assert_uint_eq(guest_double_get(&guest, 2 * MIB + sizeof file, 1), 0x5a);
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(elf_entry_is_translated_through_its_segment) {
    struct guest_double guest;
    struct synthetic_elf32 file;
    guest_double_create(&guest, 16 * MIB, 0);
    synthetic_elf32(&file);
    guest_double_set_kernel(&guest, &file, sizeof file);
    ck_assert_msg(guest_double_boot(&guest), "%s", guest.error.text);
    ck_assert_uint_eq(guest.bsp.rip, 0x100020);
    ck_assert_mem_eq(guest_double_at(&guest, MIB + 32, sizeof file.code), file.code, sizeof file.code);
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(information_has_memory_command_line_and_loader_name) {
    struct guest_double guest;
    struct synthetic_elf32 file;
    char expected[128];
    guest_double_create(&guest, 16 * MIB, 8 * MIB);
    guest.request.append = "one two";
    synthetic_elf32(&file);
    guest_double_set_kernel(&guest, &file, sizeof file);
    ck_assert_msg(guest_double_boot(&guest), "%s", guest.error.text);
    const uint64_t info = guest.bsp.gpr[3];
    ck_assert_uint_eq(guest_double_get(&guest, info, 4), 0x24d);
    ck_assert_uint_eq(guest_double_get(&guest, info + 4, 4), 639);
    ck_assert_uint_eq(guest_double_get(&guest, info + 8, 4), 15 * 1024);
    snprintf(expected, sizeof expected, "%s one two", guest.kernel_path);
    ck_assert_str_eq(string_at(&guest, info + 16), expected);
    ck_assert_uint_eq(guest_double_get(&guest, info + 20, 4), 0);
    ck_assert_str_eq(string_at(&guest, info + 64), "trapeze");
    ck_assert_uint_eq(guest_double_get(&guest, info + 44, 4), 5 * 24);
    const uint64_t map = guest_double_get(&guest, info + 48, 4);
    ck_assert_uint_eq(guest_double_get(&guest, map + 3 * 24, 4), 20);
    ck_assert_uint_eq(guest_double_get(&guest, map + 3 * 24 + 4, 8), MIB);
    ck_assert_uint_eq(guest_double_get(&guest, map + 3 * 24 + 12, 8), 15 * MIB);
    ck_assert_uint_eq(guest_double_get(&guest, map + 3 * 24 + 20, 4), 1);
    ck_assert_uint_eq(guest_double_get(&guest, map + 4 * 24 + 4, 8), 4096 * MIB);
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(modules_follow_the_kernel_with_their_strings) {
    struct guest_double guest;
    struct synthetic_elf32 file;
    char list[256], first[128];
    guest_double_create(&guest, 16 * MIB, 0);
    synthetic_elf32(&file);
    guest_double_set_kernel(&guest, &file, sizeof file);
    guest_double_set_initrd(&guest, "module", 6);
    snprintf(first, sizeof first, "%s a,b c", guest.initrd_path);
    snprintf(list, sizeof list, "%s a,,b c,%s", guest.initrd_path, guest.initrd_path);
    guest.request.initrd = list;
    ck_assert_msg(guest_double_boot(&guest), "%s", guest.error.text);
    const uint64_t info = guest.bsp.gpr[3];
    ck_assert_uint_eq(guest_double_get(&guest, info + 20, 4), 2);
    const uint64_t modules = guest_double_get(&guest, info + 24, 4);
    for (unsigned i = 0; i < 2; i++) {
        const uint64_t start = guest_double_get(&guest, modules + i * 16, 4);
        ck_assert_uint_eq(start, MIB + 4096 + i * 4096);
        ck_assert_uint_eq(guest_double_get(&guest, modules + i * 16 + 4, 4), start + 6);
        ck_assert_mem_eq(guest_double_at(&guest, start, 6), "module", 6);
        ck_assert_str_eq(string_at(&guest, modules + i * 16 + 8), i == 0 ? first : guest.initrd_path);
    }
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(information_keeps_clear_of_a_low_kernel) {
    struct guest_double guest;
    struct synthetic_elf32 file;
    guest_double_create(&guest, 16 * MIB, 0);
    synthetic_elf32(&file);
    file.segment[0].p_paddr = 0x4000;
    file.segment[0].p_memsz = 0x8000;
    guest_double_set_kernel(&guest, &file, sizeof file);
    ck_assert_msg(guest_double_boot(&guest), "%s", guest.error.text);
    ck_assert_uint_eq(guest.bsp.rip, 0x4020);
    ck_assert_uint_eq(guest.bsp.gpr[3], 0xc000);
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(header_is_found_up_to_8_kib_and_not_beyond) {
    static const struct {
        size_t offset;
        bool is_found;
    } cases[] = {{0, true}, {4, true}, {8192 - 32, true}, {6, false}, {8192, false}, {8192 - 8, false}};
    static uint8_t file[16384];
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct guest_double guest;
        uint8_t flat[SYNTHETIC_FLAT_SIZE];
        synthetic_flat(flat);
        memset(file, 0, sizeof file);
        memcpy(file + cases[i].offset, flat + SYNTHETIC_FLAT_HEADER, 32);
        synthetic_put(file, cases[i].offset + 12, 4, 2 * MIB + cases[i].offset);
        guest_double_create(&guest, 16 * MIB, 0);
        guest_double_set_kernel(&guest, file, sizeof file);
        if (cases[i].is_found)
            ck_assert_msg(guest_double_boot(&guest), "%s", guest.error.text);
        else
            expect_refusal(&guest, "not a kernel");
        guest_double_destroy(&guest);
    }
}
END_TEST

/* Changes one field of the flat image's header and keeps the checksum right. */
START_TEST(wrong_header_field_is_named) {
    static const struct {
        unsigned field;
        uint32_t value;
        const char *reason;
    } cases[] = {
        {1, 0x10008, "demands features that are not known (0x8)"},
        {1, 3, "no ELF file and has no load addresses"},
        {3, 0x1fffff, "does not match its own address"},
        {3, 0x200041, "does not match its own address"},
        {4, 0, "does not match its own address"},
        {5, 0x1fffff, "load end is below its load address"},
        {5, 0xffffffff, "truncated"},
        {6, 0xffffffff, "does not fit"},
        {7, 0x1fffff, "entry point 0x1fffff is outside"},
        {7, 0x201400, "entry point 0x201400 is outside"},
    };
    struct guest_double guest;
    uint8_t file[SYNTHETIC_FLAT_SIZE];
    guest_double_create(&guest, 16 * MIB, 0);
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        synthetic_flat(file);
        synthetic_put(file, SYNTHETIC_FLAT_HEADER + cases[i].field * 4, 4, cases[i].value);
        const uint32_t flags = cases[i].field == 1 ? cases[i].value : 0x10003;
        synthetic_put(file, SYNTHETIC_FLAT_HEADER + 8, 4, -(0x1badb002 + (uint64_t)flags));
        guest_double_set_kernel(&guest, file, sizeof file);
        expect_refusal(&guest, cases[i].reason);
    }
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(truncated_flat_image_is_refused) {
    struct guest_double guest;
    uint8_t file[SYNTHETIC_FLAT_SIZE];
    guest_double_create(&guest, 16 * MIB, 0);
    synthetic_flat(file);
    for (size_t size = 1; size < sizeof file; size++) {
        guest_double_set_kernel(&guest, file, size);
        expect_refusal(&guest, size < SYNTHETIC_FLAT_HEADER + 12 ? "not a kernel" : "truncated");
    }
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(bad_module_is_named) {
    static const struct {
        const char *list, *reason;
    } cases[] = {
        {"/nonexistent/module x", "/nonexistent/module: No such file or directory"},
        {"/nonexistent/a,,b", "/nonexistent/a,b: No such file or directory"},
        {"/", "/: Is a directory"},
        {"", "a module without a file name"},
        {"/proc/self/fd/0,", ": "},
        {" args", "a module without a file name"},
        {"/dev/null", "not a regular file"},
    };
    struct guest_double guest;
    struct synthetic_elf32 file;
    guest_double_create(&guest, 16 * MIB, 0);
    synthetic_elf32(&file);
    guest_double_set_kernel(&guest, &file, sizeof file);
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        guest.request.initrd = cases[i].list;
        expect_refusal(&guest, cases[i].reason);
    }
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(too_many_or_too_large_modules_are_refused) {
    static uint8_t large[15 * MIB];
    struct guest_double guest;
    struct synthetic_elf32 file;
    char list[65 * 24];
    guest_double_create(&guest, 16 * MIB, 0);
    synthetic_elf32(&file);
    guest_double_set_kernel(&guest, &file, sizeof file);
    guest_double_set_initrd(&guest, large, sizeof large);
    expect_refusal(&guest, "the module of 15 MiB does not fit into memory beside the kernel");
    guest_double_set_initrd(&guest, "m", 1);
    list[0] = 0;
    for (unsigned i = 0; i < 65; i++) {
        strcat(list, i ? "," : "");
        strcat(list, guest.initrd_path);
    }
    guest.request.initrd = list;
    expect_refusal(&guest, "more than 64 modules (-initrd)");
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(command_line_of_64_kib_is_refused) {
    static char line[65537];
    struct guest_double guest;
    struct synthetic_elf32 file;
    guest_double_create(&guest, 16 * MIB, 0);
    synthetic_elf32(&file);
    guest_double_set_kernel(&guest, &file, sizeof file);
    memset(line, 'x', 65536);
    guest.request.append = line;
    expect_refusal(&guest, "command lines of kernel and modules together exceed 65536 bytes");
    guest_double_destroy(&guest);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("multiboot");
    TCase *tests = tcase_create("multiboot");
    tcase_add_test(tests, flat_image_is_loaded_by_the_header_addresses);
    tcase_add_test(tests, zero_end_addresses_mean_the_whole_file_without_bss);
    tcase_add_test(tests, elf_entry_is_translated_through_its_segment);
    tcase_add_test(tests, information_has_memory_command_line_and_loader_name);
    tcase_add_test(tests, modules_follow_the_kernel_with_their_strings);
    tcase_add_test(tests, information_keeps_clear_of_a_low_kernel);
    tcase_add_test(tests, header_is_found_up_to_8_kib_and_not_beyond);
    tcase_add_test(tests, wrong_header_field_is_named);
    tcase_add_test(tests, truncated_flat_image_is_refused);
    tcase_add_test(tests, bad_module_is_named);
    tcase_add_test(tests, too_many_or_too_large_modules_are_refused);
    tcase_add_test(tests, command_line_of_64_kib_is_refused);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
