/* SYSCALL, SYSRET, SYSENTER, SYSEXIT: cpu/syscall.c; and RESET, INIT, SIPI: cpu/reset.c. */
#include <check.h>
#include <stdlib.h>

#include "fake_memory.h"

#define STAR ((uint64_t)0x33 << 48 | (uint64_t)0x10 << 32)

static struct fake *create(enum fake_mode mode) {
    struct fake *fake = fake_create(mode);

    fake->cpu.msr.star = STAR;
    fake->cpu.msr.lstar = 0xffffffff81000000;
    fake->cpu.msr.sfmask = FLAG_IF | FLAG_TF | FLAG_DF;
    fake->cpu.msr.sysenter_cs = 0x10;
    fake->cpu.msr.sysenter_esp = 0x123456789000;
    fake->cpu.msr.sysenter_eip = 0x7fff12340000;
    return fake;
}

static void assert_flat(const struct trapeze_segment *segment, uint16_t selector, uint32_t attributes) {
    ck_assert_uint_eq(segment->selector, selector);
    ck_assert_uint_eq(segment->base, 0);
    ck_assert_uint_eq(segment->limit, 0xffffffff);
    ck_assert_uint_eq(segment->attributes, attributes);
}

START_TEST(syscall_saves_rip_and_flags_and_enters_lstar) {
    struct fake *fake = create(FAKE_LONG3);
    const struct cpu_op op = fake_op(8);

    fake->cpu.hot.rflags |= FLAG_CF | FLAG_RF;
    ck_assert_int_eq(cpu_op_syscall(&fake->cpu, &op), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.gpr[CPU_RCX], FAKE_USER + 2);
    ck_assert_uint_eq(fake->cpu.hot.gpr[CPU_R11], FLAG_FIXED | FLAG_IF | FLAG_CF);
    ck_assert_uint_eq(fake->cpu.hot.rflags, FLAG_FIXED | FLAG_CF);
    ck_assert_uint_eq(fake->cpu.hot.rip, 0xffffffff81000000);
    ck_assert_uint_eq(fake->cpu.cpl, 0);
    assert_flat(&fake->cpu.segment[CPU_CS], 0x10, 0xa09b);
    assert_flat(&fake->cpu.segment[CPU_SS], 0x18, 0xc093);
    ck_assert_uint_eq(fake->mode_changes, 1);
    free(fake);
}
END_TEST

START_TEST(syscall_without_sce_or_from_compatibility_mode_is_ud) {
    struct fake *fake = create(FAKE_COMPAT3);
    const struct cpu_op op = fake_op(8);

    ck_assert_int_eq(fake_fault(fake, cpu_op_syscall(&fake->cpu, &op)), VECTOR_UD);
    free(fake);
    fake = create(FAKE_LONG3);
    fake->cpu.msr.efer &= ~EFER_SCE;
    ck_assert_int_eq(fake_fault(fake, cpu_op_syscall(&fake->cpu, &op)), VECTOR_UD);
    free(fake);
}
END_TEST

START_TEST(syscall_from_compatibility_mode_enters_cstar_on_amd) {
    struct fake *fake = create(FAKE_COMPAT3);
    const struct cpu_op op = fake_op(4);

    fake->is_amd = true;
    fake->cpu.msr.cstar = 0xffffffff82000000;
    ck_assert_int_eq(cpu_op_syscall(&fake->cpu, &op), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rip, 0xffffffff82000000);
    ck_assert_uint_eq(fake->cpu.hot.gpr[CPU_RCX], FAKE_USER + 2);
    ck_assert_uint_eq(fake->cpu.cpl, 0);
    assert_flat(&fake->cpu.segment[CPU_CS], 0x10, 0xa09b);
    free(fake);
}
END_TEST

START_TEST(syscall_of_legacy_mode_enters_the_address_in_star_on_amd) {
    static const enum fake_mode modes[] = {FAKE_RING3, FAKE_VM86};
    const struct cpu_op op = fake_op(4);

    for (unsigned i = 0; i < 2; i++) {
        struct fake *fake = create(modes[i]);

        fake->cpu.msr.efer |= EFER_SCE;
        ck_assert_int_eq(fake_fault(fake, cpu_op_syscall(&fake->cpu, &op)), VECTOR_UD); /* Intel's has none */
        fake->is_amd = true;
        fake->cpu.msr.star |= 0x12345678;
        fake->cpu.hot.gpr[CPU_R11] = 99;
        fake->cpu.hot.rflags |= FLAG_DF | FLAG_RF;
        ck_assert_int_eq(cpu_op_syscall(&fake->cpu, &op), CPU_JUMP);
        ck_assert_uint_eq(fake->cpu.hot.rip, 0x12345678);
        ck_assert_uint_eq(fake->cpu.hot.rflags & (FLAG_VM | FLAG_IF | FLAG_RF | FLAG_DF), FLAG_DF);
        ck_assert_uint_eq(fake->cpu.hot.gpr[CPU_R11], 99);
        ck_assert_uint_eq(fake->cpu.cpl, 0);
        assert_flat(&fake->cpu.segment[CPU_CS], 0x10, 0xc09b);
        assert_flat(&fake->cpu.segment[CPU_SS], 0x18, 0xc093);
        free(fake);
    }
}
END_TEST

START_TEST(sysret_of_legacy_mode_enables_interrupts_and_keeps_flags) {
    struct fake *fake = create(FAKE_RING0);
    const struct cpu_op op = fake_op(4);

    fake->cpu.msr.efer |= EFER_SCE;
    ck_assert_int_eq(fake_fault(fake, cpu_op_sysret(&fake->cpu, &op)), VECTOR_UD);
    fake->is_amd = true;
    fake->cpu.hot.gpr[CPU_RCX] = 0xffffffff00401000;
    fake->cpu.hot.gpr[CPU_R11] = ~0ull;
    fake->cpu.hot.rflags = FLAG_FIXED | FLAG_ZF;
    ck_assert_int_eq(cpu_op_sysret(&fake->cpu, &op), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rip, 0x401000);
    ck_assert_uint_eq(fake->cpu.hot.rflags, FLAG_FIXED | FLAG_ZF | FLAG_IF);
    ck_assert_uint_eq(fake->cpu.cpl, 3);
    assert_flat(&fake->cpu.segment[CPU_CS], 0x33, 0xc0fb);
    assert_flat(&fake->cpu.segment[CPU_SS], 0x3b, 0xc0f3);
    ck_assert_int_eq(fake_fault(fake, cpu_op_sysret(&fake->cpu, &op)), VECTOR_GP); /* by a program */
    free(fake);
}
END_TEST

START_TEST(sysret_returns_to_64_bit_code) {
    struct fake *fake = create(FAKE_LONG0);
    const struct cpu_op op = fake_op(8);

    fake->cpu.hot.gpr[CPU_RCX] = 0x7fff00001000;
    fake->cpu.hot.gpr[CPU_R11] = ~0ull;
    ck_assert_int_eq(fake_fault(fake, cpu_op_sysret(&fake->cpu, &op)), VECTOR_DB);
    ck_assert_uint_eq(fake->cpu.hot.rip, 0x7fff00001000);
    ck_assert_uint_eq(fake->cpu.hot.rflags, 0x3c7fd7);
    ck_assert_uint_eq(fake->cpu.cpl, 3);
    assert_flat(&fake->cpu.segment[CPU_CS], 0x43, 0xa0fb);
    assert_flat(&fake->cpu.segment[CPU_SS], 0x3b, 0xc0f3);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK0);
    free(fake);
}
END_TEST

START_TEST(single_step_follows_tf_at_the_end) {
    struct fake *fake = create(FAKE_LONG3);
    const struct cpu_op op = fake_op(8);

    fake->cpu.hot.rflags |= FLAG_TF;
    ck_assert_int_eq(cpu_op_syscall(&fake->cpu, &op), CPU_JUMP);
    fake->cpu.hot.gpr[CPU_RCX] = 0x1000;
    fake->cpu.hot.gpr[CPU_R11] = FLAG_TF;
    ck_assert_int_eq(fake_fault(fake, cpu_op_sysret(&fake->cpu, &op)), VECTOR_DB);
    ck_assert_uint_eq(fake->cpu.exception.dr6, 1 << 14);
    ck_assert(fake->cpu.exception.is_trap);
    ck_assert_uint_eq(fake->cpu.cpl, 3);
    ck_assert_uint_eq(fake->cpu.hot.rip, 0x1000);
    free(fake);
}
END_TEST

START_TEST(sysret_returns_to_compatibility_mode) {
    struct fake *fake = create(FAKE_LONG0);
    const struct cpu_op op = fake_op(4);

    fake->cpu.hot.gpr[CPU_RCX] = 0x1234567880001000;
    ck_assert_int_eq(cpu_op_sysret(&fake->cpu, &op), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rip, 0x80001000);
    assert_flat(&fake->cpu.segment[CPU_CS], 0x33, 0xc0fb);
    assert_flat(&fake->cpu.segment[CPU_SS], 0x3b, 0xc0f3);
    free(fake);
}
END_TEST

START_TEST(sysret_refuses_a_non_canonical_rip_before_it_leaves_level_0) {
    struct fake *fake = create(FAKE_LONG0);
    const struct cpu_op op = fake_op(8);

    fake->cpu.hot.gpr[CPU_RCX] = 0x800000000000;
    ck_assert_int_eq(fake_fault(fake, cpu_op_sysret(&fake->cpu, &op)), VECTOR_GP);
    ck_assert_uint_eq(fake->cpu.cpl, 0);
    ck_assert_uint_eq(fake->cpu.hot.rip, FAKE_CODE);
    free(fake);
}
END_TEST

START_TEST(sysret_at_level_3_is_gp) {
    struct fake *fake = create(FAKE_LONG3);
    const struct cpu_op op = fake_op(8);

    ck_assert_int_eq(fake_fault(fake, cpu_op_sysret(&fake->cpu, &op)), VECTOR_GP);
    free(fake);
}
END_TEST

START_TEST(sysenter_in_protected_mode_takes_32_bits) {
    struct fake *fake = create(FAKE_RING3);
    const struct cpu_op op = fake_op(4);

    ck_assert_int_eq(cpu_op_sysenter(&fake->cpu, &op), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rip, 0x12340000);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), 0x56789000);
    ck_assert_uint_eq(fake->cpu.hot.rflags, FLAG_FIXED);
    assert_flat(&fake->cpu.segment[CPU_CS], 0x10, 0xc09b);
    assert_flat(&fake->cpu.segment[CPU_SS], 0x18, 0xc093);
    free(fake);
}
END_TEST

START_TEST(sysenter_in_long_mode_enters_64_bit_code) {
    struct fake *fake = create(FAKE_COMPAT3);
    const struct cpu_op op = fake_op(4);

    ck_assert_int_eq(cpu_op_sysenter(&fake->cpu, &op), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rip, 0x7fff12340000);
    ck_assert(cpu_is_64bit(&fake->cpu));
    free(fake);
}
END_TEST

START_TEST(sysenter_and_sysexit_are_ud_in_long_mode_on_amd) {
    const struct cpu_op op = fake_op(4);
    struct fake *fake = create(FAKE_COMPAT3);

    fake->is_amd = true;
    ck_assert_int_eq(fake_fault(fake, cpu_op_sysenter(&fake->cpu, &op)), VECTOR_UD);
    free(fake);
    fake = create(FAKE_LONG0);
    fake->is_amd = true;
    ck_assert_int_eq(fake_fault(fake, cpu_op_sysexit(&fake->cpu, &op)), VECTOR_UD);
    free(fake);
    fake = create(FAKE_RING3);
    fake->is_amd = true;
    ck_assert_int_eq(cpu_op_sysenter(&fake->cpu, &op), CPU_JUMP);
    free(fake);
}
END_TEST

START_TEST(sysenter_with_a_null_selector_or_in_real_mode_is_gp) {
    struct fake *fake = create(FAKE_RING3);
    const struct cpu_op op = fake_op(4);

    fake->cpu.msr.sysenter_cs = 3;
    ck_assert_int_eq(fake_fault(fake, cpu_op_sysenter(&fake->cpu, &op)), VECTOR_GP);
    free(fake);
    fake = create(FAKE_REAL);
    ck_assert_int_eq(fake_fault(fake, cpu_op_sysenter(&fake->cpu, &op)), VECTOR_GP);
    free(fake);
}
END_TEST

START_TEST(sysexit_returns_to_level_3) {
    struct fake *fake = create(FAKE_RING0);
    const struct cpu_op op = fake_op(4);

    fake->cpu.hot.gpr[CPU_RDX] = 0x1000;
    fake->cpu.hot.gpr[CPU_RCX] = 0x2000;
    ck_assert_int_eq(cpu_op_sysexit(&fake->cpu, &op), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rip, 0x1000);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), 0x2000);
    ck_assert_uint_eq(fake->cpu.cpl, 3);
    assert_flat(&fake->cpu.segment[CPU_CS], 0x23, 0xc0fb);
    assert_flat(&fake->cpu.segment[CPU_SS], 0x2b, 0xc0f3);
    free(fake);
}
END_TEST

START_TEST(sysexit_to_64_bit_code_checks_both_pointers) {
    struct fake *fake = create(FAKE_LONG0);
    const struct cpu_op op = fake_op(8);

    fake->cpu.hot.gpr[CPU_RDX] = 0x1000;
    fake->cpu.hot.gpr[CPU_RCX] = 0x800000000000;
    ck_assert_int_eq(fake_fault(fake, cpu_op_sysexit(&fake->cpu, &op)), VECTOR_GP);
    fake->cpu.hot.gpr[CPU_RCX] = 0x2000;
    ck_assert_int_eq(cpu_op_sysexit(&fake->cpu, &op), CPU_JUMP);
    assert_flat(&fake->cpu.segment[CPU_CS], 0x33, 0xa0fb);
    free(fake);
}
END_TEST

/* ---- cpu/reset.c ---- */

START_TEST(reset_starts_at_the_reset_vector) {
    struct fake *fake = create(FAKE_LONG3);
    struct cpu *cpu = &fake->cpu;

    cpu->halted = cpu->nmi_blocked = true;
    cpu_reset(cpu);
    ck_assert_uint_eq(cpu->segment[CPU_CS].base + cpu->hot.rip, 0xfffffff0);
    ck_assert_uint_eq(cpu->segment[CPU_CS].selector, 0xf000);
    ck_assert_uint_eq(cpu->hot.rflags, FLAG_FIXED);
    ck_assert_uint_eq(cpu->hot.gpr[CPU_RDX], 0x806f8);
    ck_assert_uint_eq(cpu->cr0, 0x60000010);
    ck_assert_uint_eq(cpu->msr.efer, 0);
    ck_assert_uint_eq(cpu->msr.star, 0);
    ck_assert_uint_eq(cpu->dr[6], 0xffff0ff0);
    ck_assert_uint_eq(cpu->xcr0, 1);
    ck_assert_uint_eq(cpu->idtr.limit, 0xffff);
    ck_assert_uint_eq(cpu->cpl, 0);
    ck_assert(!cpu->halted && !cpu->nmi_blocked && !cpu->waiting_for_sipi);
    free(fake);
}
END_TEST

START_TEST(init_keeps_msrs_and_vector_state) {
    struct fake *fake = create(FAKE_LONG3);
    struct cpu *cpu = &fake->cpu;

    cpu->xsave[160] = 0x55;
    cpu->xcr0 = 7;
    cpu_init(cpu);
    ck_assert_uint_eq(cpu->msr.star, STAR);
    ck_assert_uint_eq(cpu->msr.efer, 0);
    ck_assert_uint_eq(cpu->xsave[160], 0x55);
    ck_assert_uint_eq(cpu->xcr0, 7);
    ck_assert_uint_eq(cpu->cr0, CR0_ET);
    free(fake);
}
END_TEST

START_TEST(other_processors_wait_for_the_start_up_message) {
    struct fake *fake = create(FAKE_LONG3);
    struct cpu *cpu = &fake->cpu;

    cpu->index = 1;
    cpu_init(cpu);
    ck_assert(cpu->waiting_for_sipi);
    cpu_start(cpu, 0x9a);
    ck_assert(!cpu->waiting_for_sipi);
    ck_assert_uint_eq(cpu->segment[CPU_CS].selector, 0x9a00);
    ck_assert_uint_eq(cpu->segment[CPU_CS].base, 0x9a000);
    ck_assert_uint_eq(cpu->hot.rip, 0);
    free(fake);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("syscall");

    tcase_add_test(tests, syscall_saves_rip_and_flags_and_enters_lstar);
    tcase_add_test(tests, syscall_without_sce_or_from_compatibility_mode_is_ud);
    tcase_add_test(tests, syscall_from_compatibility_mode_enters_cstar_on_amd);
    tcase_add_test(tests, syscall_of_legacy_mode_enters_the_address_in_star_on_amd);
    tcase_add_test(tests, sysret_of_legacy_mode_enables_interrupts_and_keeps_flags);
    tcase_add_test(tests, sysret_returns_to_64_bit_code);
    tcase_add_test(tests, single_step_follows_tf_at_the_end);
    tcase_add_test(tests, sysret_returns_to_compatibility_mode);
    tcase_add_test(tests, sysret_refuses_a_non_canonical_rip_before_it_leaves_level_0);
    tcase_add_test(tests, sysret_at_level_3_is_gp);
    tcase_add_test(tests, sysenter_in_protected_mode_takes_32_bits);
    tcase_add_test(tests, sysenter_in_long_mode_enters_64_bit_code);
    tcase_add_test(tests, sysenter_and_sysexit_are_ud_in_long_mode_on_amd);
    tcase_add_test(tests, sysenter_with_a_null_selector_or_in_real_mode_is_gp);
    tcase_add_test(tests, sysexit_returns_to_level_3);
    tcase_add_test(tests, sysexit_to_64_bit_code_checks_both_pointers);
    tcase_add_test(tests, reset_starts_at_the_reset_vector);
    tcase_add_test(tests, init_keeps_msrs_and_vector_state);
    tcase_add_test(tests, other_processors_wait_for_the_start_up_message);
    return fake_run(tests);
}
