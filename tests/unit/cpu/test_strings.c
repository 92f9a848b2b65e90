/* String instructions: cpu/strings.c, cpu/string_loop.c. */
#include <stdlib.h>
#include <string.h>

#include "fake_cpu.h"

static struct cpu_op string_op(const struct fake_cpu *fake, unsigned size, unsigned rep) {
    struct cpu_op op = fake_instruction(fake, size);
    op.rep = (uint8_t)rep;
    return op;
}

static void set_registers(struct fake_cpu *fake, uint64_t rsi, uint64_t rdi, uint64_t rcx) {
    FAKE_GPR(fake, RSI) = rsi;
    FAKE_GPR(fake, RDI) = rdi;
    FAKE_GPR(fake, RCX) = rcx;
}

#define ASSERT_REGISTERS(fake, rsi, rdi, rcx)                                                                          \
    do {                                                                                                               \
        ck_assert_uint_eq(FAKE_GPR(fake, RSI), rsi);                                                                   \
        ck_assert_uint_eq(FAKE_GPR(fake, RDI), rdi);                                                                   \
        ck_assert_uint_eq(FAKE_GPR(fake, RCX), rcx);                                                                   \
    } while (0)

static void fill(struct fake_cpu *fake) {
    for (unsigned i = 0; i < FAKE_BYTES; i++)
        fake->memory[i] = (uint8_t)(i * 7 + i / 251);
}

/* The manual's loop, an element at a time. */
static void model_movs(uint8_t *memory, uint64_t from, uint64_t to, uint64_t count, unsigned size, bool is_backward) {
    for (; count; count--) {
        uint8_t element[8];
        memcpy(element, memory + from, size);
        memcpy(memory + to, element, size);
        from += is_backward ? -(uint64_t)size : size;
        to += is_backward ? -(uint64_t)size : size;
    }
}

/* Both directions, every size, overlaps of less and more than an element, page borders at every phase. */
START_TEST(rep_movs_is_the_manuals_loop_whatever_overlaps) {
    static const int distances[] = {-4099, -64, -9, -1, 0, 1, 3, 8, 63, 64, 65, 4095, 4096, 5000};
    static uint8_t expected[FAKE_BYTES];
    for (unsigned k = 0; k < 4 * 2 * 14; k++) {
        unsigned size = 1u << k % 4;
        bool is_backward = k / 4 % 2;
        uint64_t from = 0x9ffd - 3 * size, to = from + (uint64_t)distances[k / 8], count = 9000 / size;
        struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "qemu64");
        fill(fake);
        if (is_backward)
            fake->cpu.hot.rflags |= FLAG_DF, from += 9000, to += 9000;
        memcpy(expected, fake->memory, sizeof expected);
        model_movs(expected, from, to, count, size, is_backward);
        set_registers(fake, from, to, count);
        struct cpu_op op = string_op(fake, size, CPU_REP);
        ck_assert_int_eq(cpu_op_movs(&fake->cpu, &op), CPU_NEXT);
        ck_assert_msg(!memcmp(expected, fake->memory, sizeof expected), "size %u distance %d backward %d", size,
                      distances[k / 8], is_backward);
        uint64_t moved = is_backward ? -(count * size) : count * size;
        ASSERT_REGISTERS(fake, from + moved, to + moved, 0);
        fake_cpu_destroy(fake);
    }
}
END_TEST

START_TEST(movs_without_rep_moves_one_element) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_RING0, "qemu32");
    fill(fake);
    set_registers(fake, 0x2000, 0x3000, 55);
    struct cpu_op op = string_op(fake, 4, CPU_REP_NONE);
    ck_assert_int_eq(cpu_op_movs(&fake->cpu, &op), CPU_NEXT);
    ASSERT_REGISTERS(fake, 0x2004, 0x3004, 55);
    ck_assert_uint_eq(fake_get(fake, 0x3000, 4), fake_get(fake, 0x2000, 4));
    ck_assert_uint_ne(fake_get(fake, 0x3004, 4), fake_get(fake, 0x2004, 4));
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(fault_in_the_middle_leaves_progress_in_the_registers) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "qemu64");
    fake->page[6] = PAGE_ABSENT;
    set_registers(fake, 0x2000, 0x4ffe, 10000);
    struct cpu_op op = string_op(fake, 1, CPU_REP);
    ck_assert_int_eq(fake_vector(fake, cpu_op_movs(&fake->cpu, &op)), VECTOR_PF);
    ck_assert_uint_eq(fake->cpu.exception.cr2, 0x6000);
    ck_assert_uint_eq(fake->cpu.hot.rip, FAKE_CODE);
    ASSERT_REGISTERS(fake, 0x2000 + 0x1002, 0x6000, 10000 - 0x1002);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(element_across_an_absent_page_is_not_half_stored) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "qemu64");
    fake->page[6] = PAGE_ABSENT;
    FAKE_GPR(fake, RAX) = 0x1122334455667788;
    set_registers(fake, 0, 0x5ff4, 2);
    struct cpu_op op = string_op(fake, 8, CPU_REP);
    ck_assert_int_eq(fake_vector(fake, cpu_op_stos(&fake->cpu, &op)), VECTOR_PF);
    ASSERT_REGISTERS(fake, 0, 0x5ffc, 1);
    ck_assert_uint_eq(fake_get(fake, 0x5ff4, 8), 0x1122334455667788);
    ck_assert_uint_eq(fake_get(fake, 0x5ffc, 4), 0);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(devices_get_one_access_an_element) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "qemu64");
    fill(fake);
    fake->page[6] = PAGE_DEVICE;
    set_registers(fake, 0x2000, 0x5ff8, 5);
    struct cpu_op op = string_op(fake, 4, CPU_REP);
    ck_assert_int_eq(cpu_op_movs(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_eq(fake->device_accesses, 3);
    ck_assert(!memcmp(fake->memory + 0x2000, fake->memory + 0x5ff8, 20));
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(device_is_not_read_when_the_store_faults) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "qemu64");
    fake->page[2] = PAGE_DEVICE;
    fake->page[6] = PAGE_ABSENT;
    set_registers(fake, 0x2000, 0x5ffe, 1);
    struct cpu_op op = string_op(fake, 4, CPU_REP_NONE);
    ck_assert_int_eq(fake_vector(fake, cpu_op_movs(&fake->cpu, &op)), VECTOR_PF);
    ck_assert_uint_eq(fake->device_accesses, 0);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(sixteen_bit_addresses_wrap_and_keep_the_upper_registers) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_REAL, "qemu32");
    set_registers(fake, 0x12340000, 0xabcdfffe, 0x77770004);
    FAKE_GPR(fake, RAX) = 0x5a;
    struct cpu_op op = string_op(fake, 1, CPU_REP);
    ck_assert_int_eq(cpu_op_stos(&fake->cpu, &op), CPU_NEXT);
    ASSERT_REGISTERS(fake, 0x12340000, 0xabcd0002, 0x77770000);
    ck_assert_uint_eq(fake_get(fake, 0xfffe, 2), 0x5a5a);
    ck_assert_uint_eq(fake_get(fake, 0, 4), 0x5a5a);
    ck_assert_uint_eq(fake->memory[0x10000], 0);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(thirty_two_bit_addresses_clear_the_upper_halves) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "qemu64");
    set_registers(fake, 0, 0xffffffff00002000, 0xffffffff00000003);
    struct cpu_op op = string_op(fake, 2, CPU_REP);
    op.address_size = 4;
    ck_assert_int_eq(cpu_op_stos(&fake->cpu, &op), CPU_NEXT);
    ASSERT_REGISTERS(fake, 0, 0x2006, 0);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(segment_limit_stops_at_its_element) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_RING0, "qemu32");
    fake->cpu.segment[CPU_ES].limit = 0x2fff;
    FAKE_GPR(fake, RAX) = 1;
    set_registers(fake, 0, 0x2ff9, 4);
    fake->cpu.segment[CPU_ES].base = 0x100;
    struct cpu_op op = string_op(fake, 2, CPU_REP);
    ck_assert_int_eq(fake_vector(fake, cpu_op_stos(&fake->cpu, &op)), VECTOR_GP);
    ASSERT_REGISTERS(fake, 0, 0x2fff, 1);
    ck_assert_uint_eq(fake_get(fake, 0x30fd, 2), 1);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(source_segment_can_be_overridden_and_destination_not) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_RING0, "qemu32");
    fill(fake);
    fake->cpu.segment[CPU_GS].base = 0x1000;
    set_registers(fake, 0x2000, 0x5000, 3);
    struct cpu_op op = string_op(fake, 1, CPU_REP);
    op.segment = CPU_GS;
    ck_assert_int_eq(cpu_op_movs(&fake->cpu, &op), CPU_NEXT);
    ck_assert(!memcmp(fake->memory + 0x3000, fake->memory + 0x5000, 3));
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(lods_ends_with_the_last_element) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "qemu64");
    fill(fake);
    FAKE_GPR(fake, RAX) = ~0ull;
    set_registers(fake, 0x2ffc, 0, 5);
    struct cpu_op op = string_op(fake, 2, CPU_REP);
    ck_assert_int_eq(cpu_op_lods(&fake->cpu, &op), CPU_NEXT);
    ASSERT_REGISTERS(fake, 0x3006, 0, 0);
    ck_assert_uint_eq(FAKE_GPR(fake, RAX), 0xffffffffffff0000 | fake_get(fake, 0x3004, 2));
    op.size = 4;
    op.rep = CPU_REP_NONE;
    ck_assert_int_eq(cpu_op_lods(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_eq(FAKE_GPR(fake, RAX), fake_get(fake, 0x3006, 4));
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(scas_finds_and_counts_as_strlen_does) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "qemu64");
    memset(fake->memory + 0x1f00, 'x', 0x1500);
    fake->memory[0x1f00 + 0x1234] = 0;
    fake->cpu.hot.rflags |= FLAG_CF | FLAG_OF;
    set_registers(fake, 0, 0x1f00, ~0ull);
    struct cpu_op op = string_op(fake, 1, CPU_REPNE);
    ck_assert_int_eq(cpu_op_scas(&fake->cpu, &op), CPU_NEXT);
    ASSERT_REGISTERS(fake, 0, 0x1f00 + 0x1235, ~0ull - 0x1235);
    ck_assert_uint_eq(fake->cpu.hot.rflags, FLAG_FIXED | FLAG_ZF | FLAG_PF);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(cmps_stops_at_the_difference_with_its_flags) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "qemu64");
    memset(fake->memory + 0x1000, 1, 0x3000);
    memset(fake->memory + 0x8000, 1, 0x3000);
    fake_put(fake, 0x2ffe, 0x80000000, 4); /* crosses a page in both */
    fake_put(fake, 0x9ffe, 0x00000001, 4);
    set_registers(fake, 0x1ffe, 0x8ffe, 0x800);
    struct cpu_op op = string_op(fake, 4, CPU_REP);
    ck_assert_int_eq(cpu_op_cmps(&fake->cpu, &op), CPU_NEXT);
    ASSERT_REGISTERS(fake, 0x3002, 0xa002, 0x800 - 0x401);
    /* 80000000h - 1 = 7FFFFFFFh: overflow, no carry, auxiliary carry, parity of FFh. */
    ck_assert_uint_eq(fake->cpu.hot.rflags, FLAG_FIXED | FLAG_OF | FLAG_AF | FLAG_PF);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(source_across_an_absent_page_faults_before_the_destination) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "qemu64");
    fake->page[6] = PAGE_ABSENT;
    set_registers(fake, 0x5ffe, 0x6800, 1);
    struct cpu_op op = string_op(fake, 4, CPU_REP_NONE);
    ck_assert_int_eq(fake_vector(fake, cpu_op_movs(&fake->cpu, &op)), VECTOR_PF);
    ck_assert_uint_eq(fake->cpu.exception.cr2, 0x6000);
    ck_assert_uint_eq(fake->cpu.exception.error_code & 2, 0); /* a read */
    fake_cpu_destroy(fake);
}
END_TEST

/* SDM vol. 2B, REP: flags are those from before. AMD's processors keep the last comparison's (measured on Zen 4). */
START_TEST(fault_in_a_repeated_comparison_leaves_the_flags_that_the_vendor_leaves) {
    static const char *const models[] = {"kvm64", "qemu64"};
    for (unsigned i = 0; i < 2; i++) {
        struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, models[i]);
        fake->page[6] = PAGE_ABSENT;
        memset(fake->memory + 0x5ff0, 2, 16);
        memset(fake->memory + 0x2000, 1, 16);
        fake->cpu.hot.rflags |= FLAG_ZF;
        set_registers(fake, 0x2000, 0x5ff8, 16);
        struct cpu_op op = string_op(fake, 1, CPU_REPNE);
        ck_assert_int_eq(fake_vector(fake, cpu_op_cmps(&fake->cpu, &op)), VECTOR_PF);
        ASSERT_REGISTERS(fake, 0x2008, 0x6000, 8);
        ck_assert_uint_eq(fake->cpu.hot.rflags & FLAG_ARITHMETIC, i == 0 ? FLAG_ZF : FLAG_CF | FLAG_SF | FLAG_AF | FLAG_PF);
        fake_cpu_destroy(fake);
    }
}
END_TEST

START_TEST(zero_count_touches_nothing) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "qemu64");
    struct cpu_op op = string_op(fake, 1, CPU_REP);
    fake->cpu.hot.rflags |= FLAG_ZF;
    set_registers(fake, 0xdead0000, 0xdead0000, 0);
    ck_assert_int_eq(cpu_op_cmps(&fake->cpu, &op), CPU_NEXT);
    ck_assert_int_eq(cpu_op_movs(&fake->cpu, &op), CPU_NEXT);
    ASSERT_REGISTERS(fake, 0xdead0000, 0xdead0000, 0);
    ck_assert_uint_eq(fake->cpu.hot.rflags, FLAG_FIXED | FLAG_ZF);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(long_repetition_gives_way_to_a_stop_and_goes_on) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "qemu64");
    set_registers(fake, 0, 0x2000, 0x3000);
    FAKE_GPR(fake, RAX) = 9;
    fake->cpu.hot.run = 0;
    struct cpu_op op = string_op(fake, 1, CPU_REP);
    ck_assert_int_eq(cpu_op_stos(&fake->cpu, &op), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rip, FAKE_CODE);
    ASSERT_REGISTERS(fake, 0, 0x3000, 0x2000);
    fake->cpu.hot.run = 1;
    ck_assert_int_eq(cpu_op_stos(&fake->cpu, &op), CPU_NEXT);
    ASSERT_REGISTERS(fake, 0, 0x5000, 0);
    ck_assert_uint_eq(fake->memory[0x4fff], 9);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(single_step_stops_after_every_element) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "qemu64");
    fake->cpu.hot.rflags |= FLAG_TF;
    set_registers(fake, 0, 0x2000, 2);
    struct cpu_op op = string_op(fake, 1, CPU_REP);
    ck_assert_int_eq(cpu_op_stos(&fake->cpu, &op), CPU_JUMP);
    ASSERT_REGISTERS(fake, 0, 0x2001, 1);
    ck_assert_int_eq(cpu_op_stos(&fake->cpu, &op), CPU_NEXT);
    ASSERT_REGISTERS(fake, 0, 0x2002, 0);
    fake_cpu_destroy(fake);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("strings");
    tcase_add_test(tests, rep_movs_is_the_manuals_loop_whatever_overlaps);
    tcase_add_test(tests, movs_without_rep_moves_one_element);
    tcase_add_test(tests, fault_in_the_middle_leaves_progress_in_the_registers);
    tcase_add_test(tests, element_across_an_absent_page_is_not_half_stored);
    tcase_add_test(tests, devices_get_one_access_an_element);
    tcase_add_test(tests, device_is_not_read_when_the_store_faults);
    tcase_add_test(tests, sixteen_bit_addresses_wrap_and_keep_the_upper_registers);
    tcase_add_test(tests, thirty_two_bit_addresses_clear_the_upper_halves);
    tcase_add_test(tests, segment_limit_stops_at_its_element);
    tcase_add_test(tests, source_segment_can_be_overridden_and_destination_not);
    tcase_add_test(tests, lods_ends_with_the_last_element);
    tcase_add_test(tests, scas_finds_and_counts_as_strlen_does);
    tcase_add_test(tests, cmps_stops_at_the_difference_with_its_flags);
    tcase_add_test(tests, source_across_an_absent_page_faults_before_the_destination);
    tcase_add_test(tests, fault_in_a_repeated_comparison_leaves_the_flags_that_the_vendor_leaves);
    tcase_add_test(tests, zero_count_touches_nothing);
    tcase_add_test(tests, long_repetition_gives_way_to_a_stop_and_goes_on);
    tcase_add_test(tests, single_step_stops_after_every_element);
    return fake_cpu_run(tests);
}
