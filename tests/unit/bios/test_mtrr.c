/* Memory types: what the registers say of addresses, by the rules of SDM vol. 3A, 11.11. */
#include "bios/mtrr.h"

#include <check.h>

static uint64_t value_of(const struct mtrr_msr *list, unsigned count, uint32_t index) {
    for (unsigned i = 0; i < count; i++)
        if (list[i].index == index)
            return list[i].value;
    ck_abort_msg("MSR %#x is not set", index);
}

/* The type of an address: a fixed range below 1 MiB, else the variable range, else the default. */
static unsigned type_of(const struct mtrr_msr *list, unsigned count, uint64_t address) {
    if (address < 0x80000)
        return value_of(list, count, 0x250) >> (address >> 16) * 8 & 0xff;
    if (address < 0xc0000)
        return value_of(list, count, 0x258 + (uint32_t)(address >> 17 & 1)) >> (address >> 14 & 7) * 8 & 0xff;
    if (address < 0x100000)
        return value_of(list, count, 0x268 + (uint32_t)(address >> 15 & 7)) >> (address >> 12 & 7) * 8 & 0xff;
    const uint64_t mask = value_of(list, count, 0x201) & ~UINT64_C(0xfff);
    if ((address & mask) == (value_of(list, count, 0x200) & mask))
        return value_of(list, count, 0x200) & 0xff;
    return value_of(list, count, 0x2ff) & 0xff;
}

START_TEST(memory_is_write_back_and_devices_are_uncached) {
    static const struct {
        uint64_t address;
        unsigned type;
    } cases[] = {
        {0, 6},
        {0x7ffff, 6},
        {0x80000, 6},
        {0x9ffff, 6},
        {0xa0000, 0},
        {0xbffff, 0},
        {0xc0000, 5},
        {0xfffff, 5},
        {0x100000, 6},
        {0xbfffffff, 6},
        {0xc0000000, 0},
        {0xfec00000, 0},
        {0xffffffff, 0},
        {UINT64_C(1) << 32, 6},
        {(UINT64_C(1) << 36) - 1, 6},
        {UINT64_C(0x1c0000000), 6},
    };
    static const unsigned physical_bits[] = {36, 40, 46, 52};
    for (unsigned bits = 0; bits < 4; bits++) {
        struct mtrr_msr list[MTRR_MSRS_MAX];
        const unsigned count = mtrr_list(physical_bits[bits], list);
        for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++)
            ck_assert_msg(type_of(list, count, cases[i].address) == cases[i].type, "%#lx has type %u",
                          (unsigned long)cases[i].address, type_of(list, count, cases[i].address));
    }
}
END_TEST

START_TEST(mask_stays_within_the_physical_address) {
    struct mtrr_msr list[MTRR_MSRS_MAX];
    for (unsigned bits = 32; bits <= 52; bits++) {
        const unsigned count = mtrr_list(bits, list);
        ck_assert_uint_eq(value_of(list, count, 0x201) >> bits, 0);
        ck_assert_uint_ne(value_of(list, count, 0x201) & 0x800, 0);
    }
}
END_TEST

START_TEST(ranges_are_enabled_last) {
    struct mtrr_msr list[MTRR_MSRS_MAX];
    const unsigned count = mtrr_list(40, list);
    ck_assert_uint_eq(count, MTRR_MSRS_MAX);
    ck_assert_uint_eq(list[count - 1].index, 0x2ff);
    ck_assert_uint_eq(list[count - 1].value, 0xc06);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("mtrr");
    TCase *tests = tcase_create("mtrr");
    tcase_add_test(tests, memory_is_write_back_and_devices_are_uncached);
    tcase_add_test(tests, mask_stays_within_the_physical_address);
    tcase_add_test(tests, ranges_are_enabled_last);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
