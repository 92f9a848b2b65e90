/* IRET in every mode: cpu/iret.c. */
#include <check.h>
#include <stdlib.h>

#include "fake_memory.h"

/* Writes the frame that the stack pointer then names, lowest address first. */
static void put_frame(struct fake *fake, unsigned size, const uint64_t *values, unsigned count) {
    cpu_rsp(&fake->cpu) -= count * size;
    for (unsigned i = 0; i < count; i++)
        fake_write(fake, cpu_rsp(&fake->cpu) + i * size, values[i], size);
}
#define FRAME(fake, size, ...)                                                                                         \
    put_frame(fake, size, (const uint64_t[]){__VA_ARGS__}, sizeof((const uint64_t[]){__VA_ARGS__}) / 8)

static enum cpu_result iret(struct fake *fake, unsigned size) {
    const struct cpu_op op = fake_op(size);

    return cpu_op_iret(&fake->cpu, &op);
}

static void assert_iret_fault(struct fake *fake, unsigned size, int vector, uint32_t error_code) {
    const uint64_t rsp = cpu_rsp(&fake->cpu), rip = fake->cpu.hot.rip, flags = fake->cpu.hot.rflags;

    ck_assert_int_eq(fake_fault(fake, iret(fake, size)), vector);
    ck_assert_uint_eq(fake->cpu.exception.error_code, error_code);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), rsp);
    ck_assert_uint_eq(fake->cpu.hot.rip, rip);
    ck_assert_uint_eq(fake->cpu.hot.rflags, flags);
    ck_assert_uint_eq(fake->mode_changes, 0);
}

/* ---- Long mode ---- */

START_TEST(long_return_to_level_3_restores_everything) {
    struct fake *fake = fake_create(FAKE_LONG0);

    FRAME(fake, 8, FAKE_USER, SEL_LONG3, FLAG_IF | FLAG_CF | FLAG_RF | FLAG_AC | FLAG_VM, 0x12345678, SEL_DATA3);
    ck_assert_int_eq(iret(fake, 8), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.cpl, 3);
    ck_assert_uint_eq(fake->cpu.hot.rip, FAKE_USER);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), 0x12345678);
    ck_assert_uint_eq(fake->cpu.segment[CPU_CS].selector, SEL_LONG3);
    ck_assert_uint_eq(fake->cpu.segment[CPU_SS].selector, SEL_DATA3);
    ck_assert_uint_eq(fake->cpu.hot.rflags, FLAG_FIXED | FLAG_IF | FLAG_CF | FLAG_RF | FLAG_AC);
    /* Data segments of level 0 are of no use at level 3. */
    ck_assert(fake->cpu.segment[CPU_DS].attributes & SEGMENT_UNUSABLE);
    ck_assert_uint_eq(fake->cpu.segment[CPU_DS].selector, 0);
    ck_assert_uint_eq(fake->mode_changes, 1);
    free(fake);
}
END_TEST

START_TEST(return_keeps_the_base_of_an_empty_segment) {
    struct fake *fake = fake_create(FAKE_LONG0);

    fake->cpu.segment[CPU_GS].base = 0x400000;
    fake->cpu.segment[CPU_FS] =
        (struct trapeze_segment){.base = 0x7f0000001000, .selector = 3, .attributes = SEGMENT_UNUSABLE};
    FRAME(fake, 8, FAKE_USER, SEL_LONG3, 2, 0, SEL_DATA3);
    ck_assert_int_eq(iret(fake, 8), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.segment[CPU_FS].base, 0x7f0000001000);
    ck_assert_uint_eq(fake->cpu.segment[CPU_FS].selector, 0);
    ck_assert_uint_eq(fake->cpu.segment[CPU_GS].selector, 0);
    ck_assert_uint_eq(fake->cpu.segment[CPU_GS].base, 0x400000);
    free(fake);
}
END_TEST

START_TEST(long_return_to_level_0_may_have_a_null_stack_segment) {
    struct fake *fake = fake_create(FAKE_LONG0);

    FRAME(fake, 8, FAKE_CODE, SEL_LONG0, 2, 0x7000, 0);
    ck_assert_int_eq(iret(fake, 8), CPU_JUMP);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), 0x7000);
    ck_assert(fake->cpu.segment[CPU_SS].attributes & SEGMENT_UNUSABLE);
    free(fake);
}
END_TEST

START_TEST(long_return_to_compatibility_mode) {
    struct fake *fake = fake_create(FAKE_LONG0);

    FRAME(fake, 8, FAKE_USER, SEL_CODE3, 2, 0x1234567800009000, SEL_DATA3);
    ck_assert_int_eq(iret(fake, 8), CPU_JUMP);
    ck_assert(!cpu_is_64bit(&fake->cpu));
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), 0x9000);
    free(fake);
}
END_TEST

START_TEST(return_to_a_16_bit_stack_leaves_the_upper_half_of_esp) {
    struct fake *fake = fake_create(FAKE_LONG0);

    fake_descriptor(fake, SEL_SPARE, 0, 0xffff, 0xf3, 0);
    FRAME(fake, 8, FAKE_USER, SEL_CODE3, 2, 0x77771234, SEL_SPARE | 3);
    ck_assert_int_eq(iret(fake, 8), CPU_JUMP);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), (FAKE_STACK0 & 0xffff0000) | 0x1234);
    free(fake);
}
END_TEST

struct bad_return {
    const char *what;
    uint64_t rip, cs, ss;
    int vector;
    uint32_t error_code;
};

static const struct bad_return bad_returns[] = {
    {"CS null", FAKE_USER, 0, SEL_DATA3, VECTOR_GP, 0},
    {"CS outside the GDT", FAKE_USER, 0xffb, SEL_DATA3, VECTOR_GP, 0xff8},
    {"CS is data", FAKE_USER, SEL_DATA3, SEL_DATA3, VECTOR_GP, SEL_DATA3 & ~3},
    {"nonconforming DPL is not RPL", FAKE_USER, SEL_LONG0 | 3, SEL_DATA3, VECTOR_GP, SEL_LONG0},
    {"CS not present", FAKE_CODE, SEL_ABSENT_CODE0, 0, VECTOR_NP, SEL_ABSENT_CODE0},
    {"L and D both set", FAKE_CODE, SEL_SPARE, 0, VECTOR_GP, SEL_SPARE},
    {"SS null for level 3", FAKE_USER, SEL_LONG3, 3, VECTOR_GP, 0},
    {"SS null for compatibility mode", FAKE_CODE, SEL_CODE0, 0, VECTOR_GP, 0},
    {"SS outside the GDT", FAKE_USER, SEL_LONG3, 0xffb, VECTOR_GP, 0xff8},
    {"SS RPL is not CPL", FAKE_USER, SEL_LONG3, SEL_DATA3 & ~3, VECTOR_GP, SEL_DATA3 & ~3},
    {"SS DPL is not CPL", FAKE_USER, SEL_LONG3, SEL_DATA0 | 3, VECTOR_GP, SEL_DATA0},
    {"SS read-only", FAKE_CODE, SEL_LONG0, SEL_READ_ONLY0, VECTOR_GP, SEL_READ_ONLY0},
    {"SS not present", FAKE_CODE, SEL_LONG0, SEL_SPARE + 8, VECTOR_SS, SEL_SPARE + 8},
    {"RIP not canonical", 0x800000000000, SEL_LONG3, SEL_DATA3, VECTOR_GP, 0},
    {"EIP beyond the limit", 0x10000, SEL_CODE16, SEL_DATA0, VECTOR_GP, 0},
};

START_TEST(each_bad_return_has_its_error_code) {
    const struct bad_return *bad = &bad_returns[_i];
    struct fake *fake = fake_create(FAKE_LONG0);

    fake_descriptor(fake, SEL_SPARE, 0, 0xfffff, 0x9b, 0xe);
    fake_descriptor(fake, SEL_SPARE + 8, 0, 0xfffff, 0x13, 0xc);
    FRAME(fake, 8, bad->rip, bad->cs, 2, FAKE_STACK3, bad->ss);
    assert_iret_fault(fake, 8, bad->vector, bad->error_code);
    free(fake);
}
END_TEST

START_TEST(return_to_an_inner_level_is_gp) {
    struct fake *fake = fake_create(FAKE_LONG3);

    FRAME(fake, 8, FAKE_CODE, SEL_LONG0, 2, FAKE_STACK0, 0);
    assert_iret_fault(fake, 8, VECTOR_GP, SEL_LONG0);
    free(fake);
}
END_TEST

START_TEST(nt_in_long_mode_is_gp_0) {
    struct fake *fake = fake_create(FAKE_LONG0);

    fake->cpu.hot.rflags |= FLAG_NT;
    assert_iret_fault(fake, 8, VECTOR_GP, 0);
    free(fake);
}
END_TEST

START_TEST(non_canonical_stack_is_ss_0) {
    struct fake *fake = fake_create(FAKE_LONG0);

    cpu_rsp(&fake->cpu) = 0x7ffffffffff0;
    assert_iret_fault(fake, 8, VECTOR_SS, 0);
    free(fake);
}
END_TEST

/* ---- Flags ---- */

START_TEST(level_3_changes_neither_if_nor_iopl) {
    struct fake *fake = fake_create(FAKE_LONG3);

    FRAME(fake, 8, FAKE_USER, SEL_LONG3, FLAG_IOPL | FLAG_ZF | FLAG_VIF, FAKE_STACK3, SEL_DATA3);
    ck_assert_int_eq(iret(fake, 8), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rflags, FLAG_FIXED | FLAG_IF | FLAG_ZF);
    free(fake);
}
END_TEST

START_TEST(iopl_3_lets_level_3_change_if_but_not_iopl) {
    struct fake *fake = fake_create(FAKE_LONG3);

    fake->cpu.hot.rflags |= FLAG_IOPL;
    FRAME(fake, 8, FAKE_USER, SEL_LONG3, 0, FAKE_STACK3, SEL_DATA3);
    ck_assert_int_eq(iret(fake, 8), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rflags, FLAG_FIXED | FLAG_IOPL);
    free(fake);
}
END_TEST

START_TEST(operand_of_16_bits_leaves_the_upper_flags) {
    struct fake *fake = fake_create(FAKE_RING0);

    fake->cpu.hot.rflags |= FLAG_AC | FLAG_ID;
    FRAME(fake, 2, 0x1234, SEL_CODE0, FLAG_CF);
    ck_assert_int_eq(iret(fake, 2), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rip, 0x1234);
    ck_assert_uint_eq(fake->cpu.hot.rflags, FLAG_FIXED | FLAG_AC | FLAG_ID | FLAG_CF);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK0);
    free(fake);
}
END_TEST

START_TEST(nmis_are_unblocked_even_by_an_iret_that_faults) {
    struct fake *fake = fake_create(FAKE_LONG0);

    fake->cpu.nmi_blocked = true;
    FRAME(fake, 8, FAKE_USER, 0, 2, 0, 0);
    assert_iret_fault(fake, 8, VECTOR_GP, 0);
    ck_assert(!fake->cpu.nmi_blocked);
    free(fake);
}
END_TEST

START_TEST(return_from_an_nmi_looks_for_the_next_one) {
    struct fake *fake = fake_create(FAKE_LONG0);

    fake->cpu.nmi_blocked = true;
    fake->cpu.hot.run = 1;
    FRAME(fake, 8, FAKE_USER, SEL_LONG3, FLAG_IF, FAKE_STACK3, SEL_DATA3);
    ck_assert_int_eq(iret(fake, 8), CPU_JUMP);
    ck_assert(!fake->cpu.nmi_blocked);
    ck_assert_uint_eq(fake->cpu.hot.run, 0);
    free(fake);
}
END_TEST

/* ---- Protected mode ---- */

START_TEST(protected_return_to_the_same_level_leaves_ss) {
    struct fake *fake = fake_create(FAKE_RING0);

    FRAME(fake, 4, FAKE_HANDLER, SEL_CODE0, FLAG_IOPL);
    ck_assert_int_eq(iret(fake, 4), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rip, FAKE_HANDLER);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK0);
    ck_assert_uint_eq(fake->cpu.hot.rflags, FLAG_FIXED | FLAG_IOPL);
    free(fake);
}
END_TEST

START_TEST(protected_return_to_an_outer_level_takes_its_stack) {
    struct fake *fake = fake_create(FAKE_RING0);

    FRAME(fake, 4, FAKE_USER, SEL_CODE3, FLAG_IF, FAKE_STACK3, SEL_DATA3);
    ck_assert_int_eq(iret(fake, 4), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.cpl, 3);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK3);
    ck_assert(fake->cpu.segment[CPU_ES].attributes & SEGMENT_UNUSABLE);
    free(fake);
}
END_TEST

START_TEST(return_to_vm86_loads_all_segments) {
    struct fake *fake = fake_create(FAKE_RING0);

    FRAME(fake, 4, 0x1234, 0x100, FLAG_VM | FLAG_IF | FLAG_IOPL, 0x8000, 0x200, 0x300, 0x400, 0x500, 0x600);
    ck_assert_int_eq(iret(fake, 4), CPU_JUMP);
    ck_assert(cpu_is_vm86(&fake->cpu));
    ck_assert_uint_eq(fake->cpu.cpl, 3);
    ck_assert_uint_eq(fake->cpu.hot.rip, 0x1234);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), 0x8000);
    ck_assert_uint_eq(fake->cpu.segment[CPU_CS].base, 0x1000);
    ck_assert_uint_eq(fake->cpu.segment[CPU_SS].selector, 0x200);
    ck_assert_uint_eq(fake->cpu.segment[CPU_ES].selector, 0x300);
    ck_assert_uint_eq(fake->cpu.segment[CPU_DS].selector, 0x400);
    ck_assert_uint_eq(fake->cpu.segment[CPU_FS].selector, 0x500);
    ck_assert_uint_eq(fake->cpu.segment[CPU_GS].base, 0x6000);
    ck_assert_uint_eq(fake->cpu.segment[CPU_DS].limit, 0xffff);
    ck_assert_uint_eq(fake->cpu.segment[CPU_DS].attributes, 0xf3);
    free(fake);
}
END_TEST

START_TEST(vm_in_the_image_of_level_3_is_ignored) {
    struct fake *fake = fake_create(FAKE_RING3);

    FRAME(fake, 4, FAKE_USER, SEL_CODE3, FLAG_VM);
    ck_assert_int_eq(iret(fake, 4), CPU_JUMP);
    ck_assert(!cpu_is_vm86(&fake->cpu));
    free(fake);
}
END_TEST

/* ---- Real and virtual-8086 mode ---- */

START_TEST(real_return_takes_16_bit_flags) {
    struct fake *fake = fake_create(FAKE_REAL);

    fake->cpu.hot.rflags |= FLAG_AC;
    FRAME(fake, 2, 0x1234, 0x5678, FLAG_IOPL | FLAG_NT | FLAG_CF);
    ck_assert_int_eq(iret(fake, 2), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.segment[CPU_CS].base, 0x56780);
    ck_assert_uint_eq(fake->cpu.hot.rflags, FLAG_FIXED | FLAG_IOPL | FLAG_NT | FLAG_CF | FLAG_AC);
    free(fake);
}
END_TEST

START_TEST(real_return_with_32_bits_checks_eip_and_keeps_vip_vif_vm) {
    struct fake *fake = fake_create(FAKE_REAL);

    FRAME(fake, 4, 0x10000, 0x5678, 0);
    assert_iret_fault(fake, 4, VECTOR_GP, 0);
    fake_write(fake, cpu_rsp(&fake->cpu), 0x1000, 4);
    fake_write(fake, cpu_rsp(&fake->cpu) + 8, 0xffffffff, 4);
    ck_assert_int_eq(iret(fake, 4), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rflags, 0x257fd5 | FLAG_FIXED);
    free(fake);
}
END_TEST

START_TEST(vm86_return_needs_iopl_3_and_keeps_it) {
    struct fake *fake = fake_create(FAKE_VM86);

    FRAME(fake, 2, 0x1234, 0x100, FLAG_CF);
    assert_iret_fault(fake, 2, VECTOR_GP, 0);
    fake->cpu.hot.rflags |= FLAG_IOPL;
    ck_assert_int_eq(iret(fake, 2), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rflags, FLAG_FIXED | FLAG_VM | FLAG_IOPL | FLAG_CF);
    free(fake);
}
END_TEST

START_TEST(vme_return_moves_if_to_vif) {
    struct fake *fake = fake_create(FAKE_VM86);

    fake->cpu.cr4 = CR4_VME;
    FRAME(fake, 2, 0x1234, 0x100, FLAG_IF | FLAG_IOPL);
    ck_assert_int_eq(iret(fake, 2), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rflags, FLAG_FIXED | FLAG_VM | FLAG_IF | FLAG_VIF);
    free(fake);
}
END_TEST

START_TEST(vme_return_with_a_pending_interrupt_or_tf_is_gp) {
    struct fake *fake = fake_create(FAKE_VM86);

    fake->cpu.cr4 = CR4_VME;
    FRAME(fake, 2, 0x1234, 0x100, FLAG_TF);
    assert_iret_fault(fake, 2, VECTOR_GP, 0);
    fake->cpu.hot.rflags |= FLAG_VIP;
    fake_write(fake, cpu_rsp(&fake->cpu) + 4, FLAG_IF, 2);
    assert_iret_fault(fake, 2, VECTOR_GP, 0);
    assert_iret_fault(fake, 4, VECTOR_GP, 0);
    free(fake);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("iret");

    tcase_add_test(tests, long_return_to_level_3_restores_everything);
    tcase_add_test(tests, return_keeps_the_base_of_an_empty_segment);
    tcase_add_test(tests, long_return_to_level_0_may_have_a_null_stack_segment);
    tcase_add_test(tests, long_return_to_compatibility_mode);
    tcase_add_test(tests, return_to_a_16_bit_stack_leaves_the_upper_half_of_esp);
    tcase_add_loop_test(tests, each_bad_return_has_its_error_code, 0, sizeof bad_returns / sizeof bad_returns[0]);
    tcase_add_test(tests, return_to_an_inner_level_is_gp);
    tcase_add_test(tests, nt_in_long_mode_is_gp_0);
    tcase_add_test(tests, non_canonical_stack_is_ss_0);
    tcase_add_test(tests, level_3_changes_neither_if_nor_iopl);
    tcase_add_test(tests, iopl_3_lets_level_3_change_if_but_not_iopl);
    tcase_add_test(tests, operand_of_16_bits_leaves_the_upper_flags);
    tcase_add_test(tests, nmis_are_unblocked_even_by_an_iret_that_faults);
    tcase_add_test(tests, return_from_an_nmi_looks_for_the_next_one);
    tcase_add_test(tests, protected_return_to_the_same_level_leaves_ss);
    tcase_add_test(tests, protected_return_to_an_outer_level_takes_its_stack);
    tcase_add_test(tests, return_to_vm86_loads_all_segments);
    tcase_add_test(tests, vm_in_the_image_of_level_3_is_ignored);
    tcase_add_test(tests, real_return_takes_16_bit_flags);
    tcase_add_test(tests, real_return_with_32_bits_checks_eip_and_keeps_vip_vif_vm);
    tcase_add_test(tests, vm86_return_needs_iopl_3_and_keeps_it);
    tcase_add_test(tests, vme_return_moves_if_to_vif);
    tcase_add_test(tests, vme_return_with_a_pending_interrupt_or_tf_is_gp);
    return fake_run(tests);
}
