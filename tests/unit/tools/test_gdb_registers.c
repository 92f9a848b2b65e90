/* The debugger's registers: where each one's value is, and the description that gdb gets. */
#include "tools/gdb_registers.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct gdb_state state;
static uint8_t bytes[GDB_REGISTER_SIZE_MAX];

/* Numbers in gdb's own list for x86-64. */
enum { RBX = 1, RIP = 16, EFLAGS = 17, CS = 18, DS = 20, ST0 = 24, FTAG = 34, XMM0 = 40,
       MXCSR = 56, YMM0H = 57, FS_BASE = 73 };

static void clear(void) {
    memset(&state, 0, sizeof(state));
    memset(bytes, 0, sizeof(bytes));
}

static uint64_t get(unsigned number) {
    uint64_t value;
    gdb_register_get(&state, number, bytes);
    memcpy(&value, bytes, sizeof(value));
    return value;
}

static bool set(unsigned number, uint64_t value) {
    memset(bytes, 0, sizeof(bytes));
    memcpy(bytes, &value, sizeof(value));
    return gdb_register_set(&state, number, bytes);
}

START_TEST(registers_have_the_places_gdb_expects) {
    clear();
    state.registers.gpr[3] = 0x1122334455667788;
    state.registers.rip = 0x1000;
    state.registers.rflags = 0x246;
    state.registers.segment[TRAPEZE_CS].selector = 0x10;
    state.registers.segment[TRAPEZE_FS].base = 0x7000;
    state.xsave[24] = 0x80;
    state.xsave[25] = 0x1f;
    ck_assert_uint_eq(get(RBX), 0x1122334455667788);
    ck_assert_uint_eq(get(RIP), 0x1000);
    ck_assert_uint_eq(get(EFLAGS), 0x246);
    ck_assert_uint_eq(get(CS), 0x10);
    ck_assert_uint_eq(get(FS_BASE), 0x7000);
    ck_assert_uint_eq(get(MXCSR), 0x1f80);
    ck_assert_uint_eq(gdb_register_size(ST0), 10);
    ck_assert_uint_eq(gdb_register_size(XMM0), 16);
    ck_assert_uint_eq(gdb_register_size(gdb_register_count()), 0);
}
END_TEST

START_TEST(every_register_takes_what_it_told) {
    clear();
    for (unsigned i = 0; i < gdb_register_count(); i++) {
        gdb_register_get(&state, i, bytes);
        struct gdb_state before = state;
        ck_assert(gdb_register_set(&state, i, bytes));
        ck_assert_mem_eq(&before, &state, sizeof(state));
    }
}
END_TEST

START_TEST(written_registers_read_back) {
    clear();
    for (unsigned i = 0; i < gdb_register_count(); i++) {
        uint8_t pattern[GDB_REGISTER_SIZE_MAX] = {0x21, 0x43};
        if (i == FTAG)
            continue;
        ck_assert(gdb_register_set(&state, i, pattern));
        gdb_register_get(&state, i, bytes);
        ck_assert_msg(!memcmp(bytes, pattern, 2), "register %u", i);
    }
}
END_TEST

START_TEST(selector_is_refused_in_protected_mode_and_moves_the_base_in_real_mode) {
    clear();
    ck_assert(set(DS, 0x1234));
    ck_assert_uint_eq(state.registers.segment[TRAPEZE_DS].base, 0x12340);
    state.registers.cr0 = 1;
    ck_assert(!set(DS, 0x10));
    ck_assert(set(DS, 0x1234));
}
END_TEST

/* ST(0) = 1.0 and ST(1) = 0.0, pushed in the other order: they are physical registers 6 and 7. */
START_TEST(tag_word_goes_by_physical_register) {
    clear();
    state.xsave[3] = 6 << 3;
    state.xsave[4] = 0xc0;
    state.xsave[32 + 7] = 0x80;
    state.xsave[32 + 8] = 0xff;
    state.xsave[32 + 9] = 0x3f;
    ck_assert_uint_eq(get(FTAG), 0x4fff);
    ck_assert(set(FTAG, 0xffff));
    ck_assert_uint_eq(state.xsave[4], 0);
}
END_TEST

START_TEST(upper_halves_are_zero_until_they_are_in_use) {
    clear();
    state.xsave[576] = 5;
    ck_assert_uint_eq(get(YMM0H), 0);
    ck_assert(set(YMM0H + 1, 7));
    ck_assert_uint_eq(get(YMM0H), 0);
    ck_assert_uint_eq(get(YMM0H + 1), 7);
    ck_assert_uint_eq(state.xsave[512] & 4, 4);
}
END_TEST

START_TEST(description_names_each_register_once) {
    char *text = gdb_registers_describe(), name[32];
    unsigned count = 0;
    ck_assert_ptr_nonnull(text);
    for (const char *c = text; (c = strstr(c, "<reg ")); c++)
        count++;
    ck_assert_uint_eq(count, gdb_register_count());
    for (unsigned i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "regnum=\"%u\"", i);
        ck_assert_msg(strstr(text, name), "%s", name);
    }
    ck_assert_ptr_nonnull(strstr(text, "<architecture>i386:x86-64</architecture>"));
    ck_assert_ptr_nonnull(strstr(text, "name=\"fs_base\" bitsize=\"64\" type=\"int64\" regnum=\"73\""));
    free(text);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("gdb_registers");
    TCase *tcase = tcase_create("all");
    tcase_add_test(tcase, registers_have_the_places_gdb_expects);
    tcase_add_test(tcase, every_register_takes_what_it_told);
    tcase_add_test(tcase, written_registers_read_back);
    tcase_add_test(tcase, selector_is_refused_in_protected_mode_and_moves_the_base_in_real_mode);
    tcase_add_test(tcase, tag_word_goes_by_physical_register);
    tcase_add_test(tcase, upper_halves_are_zero_until_they_are_in_use);
    tcase_add_test(tcase, description_names_each_register_once);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
