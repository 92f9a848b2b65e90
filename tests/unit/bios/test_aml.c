/* AML builder: bytes of each term, from the encodings of ACPI 6.5 chapters 6.4 and 20. */
#include "bios/aml.h"

#include <check.h>
#include <string.h>

#define AREA 200000

static void begin(struct aml *aml, uint8_t *area, size_t size) {
    *aml = (struct aml){.code = {.data = area, .size = size}};
}

#define expect_bytes(aml, ...)                                                                                         \
    do {                                                                                                               \
        const uint8_t expected[] = {__VA_ARGS__};                                                                      \
        ck_assert_uint_eq((aml)->code.length, sizeof expected);                                                        \
        ck_assert_mem_eq((aml)->code.data, expected, sizeof expected);                                                 \
    } while (0)

START_TEST(integers_take_the_shortest_form) {
    uint8_t area[64];
    struct aml aml;
    begin(&aml, area, sizeof area);
    const uint64_t values[] = {0, 1, 2, 0xff, 0x100, 0xffff, 0x10000, 0xffffffff, 0x100000000};
    for (unsigned i = 0; i < sizeof values / sizeof values[0]; i++)
        aml_integer(&aml, values[i]);
    expect_bytes(&aml, 0, 1, 0x0a, 2, 0x0a, 0xff, 0x0b, 0, 1, 0x0b, 0xff, 0xff, 0x0c, 0, 0, 1, 0, 0x0c, 0xff, 0xff,
                 0xff, 0xff, 0x0e, 0, 0, 0, 0, 1, 0, 0, 0);
}
END_TEST

START_TEST(names_have_root_and_path_prefixes) {
    uint8_t area[64];
    struct aml aml;
    begin(&aml, area, sizeof area);
    aml_reference(&aml, "\\_SB_");
    aml_reference(&aml, "_SB_.PCI0");
    aml_reference(&aml, "\\A___.B___.C___");
    expect_bytes(&aml, '\\', '_', 'S', 'B', '_', 0x2e, '_', 'S', 'B', '_', 'P', 'C', 'I', '0', '\\', 0x2f, 3, 'A', '_',
                 '_', '_', 'B', '_', '_', '_', 'C', '_', '_', '_');
}
END_TEST

START_TEST(eisa_id_is_compressed_big_endian) {
    uint8_t area[8];
    struct aml aml;
    begin(&aml, area, sizeof area);
    aml_eisa_id(&aml, "PNP0A03");
    expect_bytes(&aml, 0x0c, 0x41, 0xd0, 0x0a, 0x03);
}
END_TEST

START_TEST(terms_nest_with_their_lengths) {
    uint8_t area[64];
    struct aml aml;
    begin(&aml, area, sizeof area);
    aml_device(&aml, "DEV0");
    aml_method(&aml, "_SRS", 1);
    aml_close(&aml);
    aml_name(&aml, "PKG0");
    aml_package(&aml, 1);
    aml_integer(&aml, 5);
    aml_close(&aml);
    aml_close(&aml);
    expect_bytes(&aml, 0x5b, 0x82, 22, 'D', 'E', 'V', '0', 0x14, 6, '_', 'S', 'R', 'S', 1, 0x08, 'P', 'K', 'G', '0',
                 0x12, 4, 1, 0x0a, 5);
}
END_TEST

START_TEST(resources_get_buffer_size_and_end_tag) {
    uint8_t area[64];
    struct aml aml;
    begin(&aml, area, sizeof area);
    aml_resources(&aml);
    aml_io(&aml, 0x3f8, 8);
    aml_irq(&aml, 4);
    aml_close(&aml);
    expect_bytes(&aml, 0x11, 17, 0x0b, 13, 0, 0x47, 1, 0xf8, 3, 0xf8, 3, 1, 8, 0x22, 0x10, 0, 0x79, 0);
}
END_TEST

START_TEST(windows_have_inclusive_ends_and_lengths) {
    uint8_t area[64];
    struct aml aml;
    begin(&aml, area, sizeof area);
    aml_window_io(&aml, 0xd00, 0xffff);
    aml_window_memory(&aml, 0xc0000000, 0xfebfffff);
    expect_bytes(&aml, 0x88, 13, 0, 1, 0x0c, 3, 0, 0, 0, 0x0d, 0xff, 0xff, 0, 0, 0, 0xf3, 0x87, 23, 0, 0, 0x0c, 1, 0, 0,
                 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff, 0xbf, 0xfe, 0, 0, 0, 0, 0, 0, 0xc0, 0x3e);
}
END_TEST

/* PkgLength at each size where its encoding grows. */
START_TEST(package_length_grows_at_its_boundaries) {
    static const struct {
        size_t contents; /* behind the length */
        uint8_t encoded[3];
        size_t size;
    } cases[] = {
        {5, {6}, 1},
        {62, {63}, 1},
        {63, {0x41, 0x04}, 2},
        {4093, {0x4f, 0xff}, 2},
        {4094, {0x81, 0x00, 0x01}, 3},
        {70000, {0x83, 0x17, 0x11}, 3},
    };
    static uint8_t area[AREA];
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct aml aml;
        begin(&aml, area, sizeof area);
        aml_scope(&aml, "ABCD");
        for (size_t n = 4; n < cases[i].contents; n++)
            aml_integer(&aml, 0);
        aml_close(&aml);
        ck_assert_uint_eq(aml.code.length, 1 + cases[i].size + cases[i].contents);
        ck_assert_mem_eq(area + 1, cases[i].encoded, cases[i].size);
        ck_assert_mem_eq(area + 1 + cases[i].size, "ABCD", 4);
    }
}
END_TEST

START_TEST(full_area_is_told_and_never_overrun) {
    uint8_t area[64];
    for (size_t size = 0; size < 30; size++) {
        struct aml aml;
        memset(area, 0xee, sizeof area);
        begin(&aml, area, size);
        aml_device(&aml, "DEV0");
        aml_resources(&aml);
        aml_io(&aml, 0x3f8, 8);
        aml_close(&aml);
        aml_close(&aml);
        ck_assert_int_eq(aml.code.is_full, size < 22);
        ck_assert_uint_eq(area[size], 0xee);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("aml");
    TCase *tests = tcase_create("aml");
    tcase_add_test(tests, integers_take_the_shortest_form);
    tcase_add_test(tests, names_have_root_and_path_prefixes);
    tcase_add_test(tests, eisa_id_is_compressed_big_endian);
    tcase_add_test(tests, terms_nest_with_their_lengths);
    tcase_add_test(tests, resources_get_buffer_size_and_end_tag);
    tcase_add_test(tests, windows_have_inclusive_ends_and_lengths);
    tcase_add_test(tests, package_length_grows_at_its_boundaries);
    tcase_add_test(tests, full_area_is_told_and_never_overrun);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
