/* ELF kernels entered by PVH: segments, start information, and what a damaged file is told. */
#include "tests/unit/bios/guest_double.h"
#include "tests/unit/bios/refusal.h"
#include "tests/unit/bios/synthetic.h"

#include <check.h>

#define MIB UINT64_C(0x100000)

START_TEST(segments_are_at_their_physical_addresses_and_bss_is_zero) {
    struct guest_double guest;
    struct synthetic_elf64 file;
    guest_double_create(&guest, 16 * MIB, 0);
    memset(guest.low, 0x5a, 16 * MIB);
    synthetic_elf64(&file);
    guest_double_set_kernel(&guest, &file, sizeof file);
    ck_assert_msg(guest_double_boot(&guest), "%s", guest.error.text);
    ck_assert_mem_eq(guest_double_at(&guest, MIB, 512), file.code, 512);
    for (unsigned i = 512; i < 4096; i++)
        ck_assert_uint_eq(guest_double_get(&guest, MIB + i, 1), 0);
    ck_assert_uint_eq(guest_double_get(&guest, MIB + 4096, 1), 0x5a);
    ck_assert_mem_eq(guest_double_at(&guest, 2 * MIB, 256), file.data, 256);
    ck_assert_uint_eq(guest_double_get(&guest, 2 * MIB + 256, 1), 0x5a);
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(entry_is_32_bit_flat_with_start_info_in_ebx) {
    struct guest_double guest;
    struct synthetic_elf64 file;
    guest_double_create(&guest, 16 * MIB, 32 * MIB);
    guest.request.append = "root=/dev/ram0";
    synthetic_elf64(&file);
    guest_double_set_kernel(&guest, &file, sizeof file);
    guest_double_set_initrd(&guest, "initrd", 6);
    ck_assert_msg(guest_double_boot(&guest), "%s", guest.error.text);
    ck_assert_uint_eq(guest.bsp.rip, 0x100040);
    ck_assert_uint_eq(guest.bsp.cr0, 0x11);
    ck_assert_uint_eq(guest.bsp.cr4, 0);
    ck_assert_uint_eq(guest.bsp.segment[TRAPEZE_CS].attributes, 0xc09b);
    ck_assert_uint_eq(guest.bsp.tr.limit, 0x67);
    const uint64_t info = guest.bsp.gpr[3];
    ck_assert_uint_eq(guest_double_get(&guest, info, 8), 0x1336ec578);
    ck_assert_uint_eq(guest_double_get(&guest, info + 12, 4), 1);
    const uint64_t module = guest_double_get(&guest, info + 16, 8);
    ck_assert_uint_eq(guest_double_get(&guest, module, 8), 16 * MIB - 4096);
    ck_assert_uint_eq(guest_double_get(&guest, module + 8, 8), 6);
    ck_assert_mem_eq(guest_double_at(&guest, 16 * MIB - 4096, 6), "initrd", 6);
    ck_assert_str_eq((char *)guest_double_at(&guest, guest_double_get(&guest, info + 24, 8), 32), "root=/dev/ram0");
    ck_assert_uint_eq(guest_double_get(&guest, info + 32, 8), 0xe0000);
    ck_assert_uint_eq(guest_double_get(&guest, info + 48, 4), 5);
    const uint64_t map = guest_double_get(&guest, info + 40, 8);
    ck_assert_uint_eq(guest_double_get(&guest, map + 4 * 24, 8), 4096 * MIB);
    ck_assert_uint_eq(guest_double_get(&guest, map + 4 * 24 + 8, 8), 32 * MIB);
    ck_assert_uint_eq(guest_double_get(&guest, map + 4 * 24 + 16, 4), 1);
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(without_initrd_there_is_no_module) {
    struct guest_double guest;
    struct synthetic_elf64 file;
    guest_double_create(&guest, 16 * MIB, 0);
    synthetic_elf64(&file);
    guest_double_set_kernel(&guest, &file, sizeof file);
    ck_assert_msg(guest_double_boot(&guest), "%s", guest.error.text);
    ck_assert_uint_eq(guest_double_get(&guest, guest.bsp.gpr[3] + 12, 4), 0);
    ck_assert_uint_eq(guest_double_get(&guest, guest.bsp.gpr[3] + 16, 8), 0);
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(start_info_keeps_clear_of_a_low_kernel) {
    struct guest_double guest;
    struct synthetic_elf64 file;
    guest_double_create(&guest, 16 * MIB, 0);
    synthetic_elf64(&file);
    file.segment[0].p_paddr = 0x1000;
    file.segment[0].p_memsz = 0x90000;
    file.note.entry = 0x1000;
    guest_double_set_kernel(&guest, &file, sizeof file);
    ck_assert_msg(guest_double_boot(&guest), "%s", guest.error.text);
    ck_assert_uint_eq(guest.bsp.gpr[3], 0x91000);
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(wrong_field_is_named) {
#define HEADER(field) offsetof(struct synthetic_elf64, header) + offsetof(Elf64_Ehdr, field)
#define SEGMENT(i, field)                                                                                              \
    offsetof(struct synthetic_elf64, segment) + (i) * sizeof(Elf64_Phdr) + offsetof(Elf64_Phdr, field)
#define NOTE(field) offsetof(struct synthetic_elf64, note.field)
    static const struct {
        size_t offset;
        unsigned size;
        uint64_t value;
        const char *reason;
    } cases[] = {
        {EI_CLASS, 1, 9, "the ELF header is damaged"},
        {EI_DATA, 1, ELFDATA2MSB, "for another machine"},
        {HEADER(e_machine), 2, EM_AARCH64, "for another machine (183, AArch64), not for x86"},
        {HEADER(e_machine), 2, 0x1234, "for another machine (4660, unknown)"},
        {HEADER(e_type), 2, ET_REL, "not an executable"},
        {HEADER(e_type), 2, ET_CORE, "not an executable"},
        {HEADER(e_phnum), 2, 0, "no program headers"},
        {HEADER(e_phnum), 2, 65, "program headers are damaged or truncated"},
        {HEADER(e_phnum), 2, 60, "program headers are damaged or truncated"},
        {HEADER(e_phoff), 8, UINT64_MAX, "program headers"},
        {HEADER(e_phoff), 8, 0x7fffffffffffffff, "program headers"},
        {SEGMENT(0, p_filesz), 8, 4097, "segment 0 has more bytes in the file than in memory"},
        {SEGMENT(0, p_offset), 8, UINT64_MAX, "segment 0 is beyond its end"},
        {SEGMENT(0, p_offset), 8, 4096, "segment 0 is beyond its end"},
        {SEGMENT(0, p_memsz), 8, UINT64_MAX, "does not fit into the guest's 16 MiB of memory"},
        {SEGMENT(0, p_memsz), 8, 16 * MIB, "does not fit into the guest's 16 MiB of memory"},
        {SEGMENT(1, p_paddr), 8, 0xa0000, "does not fit"},
        {SEGMENT(1, p_paddr), 8, UINT64_MAX - 4, "does not fit"},
        {SEGMENT(1, p_paddr), 8, MIB, "overlaps a segment of the kernel"},
        {SEGMENT(1, p_paddr), 8, MIB + 4095, "overlaps a segment of the kernel"},
        {SEGMENT(2, p_type), 4, PT_NULL, "neither a multiboot header nor a PVH entry note"},
        {SEGMENT(2, p_filesz), 8, 19, "neither a multiboot header nor a PVH entry note"},
        {SEGMENT(2, p_filesz), 8, UINT64_MAX, "neither a multiboot header nor a PVH entry note"},
        {SEGMENT(2, p_offset), 8, UINT64_MAX, "neither a multiboot header nor a PVH entry note"},
        {NOTE(header.n_type), 4, 17, "neither a multiboot header nor a PVH entry note"},
        {NOTE(header.n_namesz), 4, 0xffffffff, "neither a multiboot header nor a PVH entry note"},
        {NOTE(header.n_descsz), 4, 0xffffffff, "neither a multiboot header nor a PVH entry note"},
        {NOTE(header.n_descsz), 4, 2, "neither a multiboot header nor a PVH entry note"},
        {NOTE(name), 4, 0x006e6558 ^ 0x20, "neither a multiboot header nor a PVH entry note"},
        {NOTE(entry), 4, 0x101000, "the PVH entry point 0x101000 is outside of what the file loads"},
        {NOTE(entry), 4, 0xfffff, "the PVH entry point 0xfffff is outside"},
    };
    struct guest_double guest;
    struct synthetic_elf64 file;
    guest_double_create(&guest, 16 * MIB, 0);
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        synthetic_elf64(&file);
        synthetic_put(&file, cases[i].offset, cases[i].size, cases[i].value);
        guest_double_set_kernel(&guest, &file, sizeof file);
        expect_refusal(&guest, cases[i].reason);
        ck_assert_ptr_eq(strstr(guest.error.text, guest.kernel_path), guest.error.text);
    }
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(too_many_program_headers_are_refused) {
    uint8_t file[8192] = {0};
    struct guest_double guest;
    struct synthetic_elf64 elf;
    guest_double_create(&guest, 16 * MIB, 0);
    synthetic_elf64(&elf);
    elf.header.e_phnum = 65;
    memcpy(file, &elf, sizeof elf);
    guest_double_set_kernel(&guest, file, sizeof file);
    expect_refusal(&guest, "the ELF file has 65 program headers, at most 64 are supported");
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(every_truncation_is_refused) {
    struct guest_double guest;
    struct synthetic_elf64 file;
    guest_double_create(&guest, 16 * MIB, 0);
    synthetic_elf64(&file);
    for (size_t size = 0; size < offsetof(struct synthetic_elf64, data) + sizeof file.data; size++) {
        guest_double_set_kernel(&guest, &file, size);
        expect_refusal(&guest, size == 0 ? "empty" : size < 4 ? "not a kernel" : "ELF");
    }
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(initrd_that_does_not_fit_is_refused) {
    static uint8_t initrd[2 * MIB];
    struct guest_double guest;
    struct synthetic_elf64 file;
    guest_double_create(&guest, 3 * MIB, 0);
    synthetic_elf64(&file);
    guest_double_set_kernel(&guest, &file, sizeof file);
    guest_double_set_initrd(&guest, initrd, sizeof initrd);
    expect_refusal(&guest, "the initrd of 2 MiB does not fit into memory beside the kernel");
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(command_line_of_64_kib_is_refused) {
    static char line[65537];
    struct guest_double guest;
    struct synthetic_elf64 file;
    guest_double_create(&guest, 16 * MIB, 0);
    synthetic_elf64(&file);
    guest_double_set_kernel(&guest, &file, sizeof file);
    memset(line, 'x', 65534);
    guest.request.append = line;
    ck_assert_msg(guest_double_boot(&guest), "%s", guest.error.text);
    line[65534] = 'x';
    expect_refusal(&guest, "the command line (-append) has 65535 bytes, at most 65534 fit");
    guest_double_destroy(&guest);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("pvh");
    TCase *tests = tcase_create("pvh");
    tcase_add_test(tests, segments_are_at_their_physical_addresses_and_bss_is_zero);
    tcase_add_test(tests, entry_is_32_bit_flat_with_start_info_in_ebx);
    tcase_add_test(tests, without_initrd_there_is_no_module);
    tcase_add_test(tests, start_info_keeps_clear_of_a_low_kernel);
    tcase_add_test(tests, wrong_field_is_named);
    tcase_add_test(tests, too_many_program_headers_are_refused);
    tcase_add_test(tests, every_truncation_is_refused);
    tcase_add_test(tests, initrd_that_does_not_fit_is_refused);
    tcase_add_test(tests, command_line_of_64_kib_is_refused);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
