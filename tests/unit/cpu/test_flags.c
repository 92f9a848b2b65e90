/* CLI, STI, CLAC, STAC, PUSHF, POPF: cpu/flags.c. */
#include <stdlib.h>

#include "fake_cpu.h"

static void set_flags(struct fake_cpu *fake, uint64_t flags, unsigned iopl) {
    fake->cpu.hot.rflags = (fake->cpu.hot.rflags & FLAG_VM) | FLAG_FIXED | flags | (uint64_t)iopl << 12;
}

static int run(struct fake_cpu *fake, cpu_op_function *function, unsigned size) {
    struct cpu_op op = fake_instruction(fake, size);
    return fake_vector(fake, function(&fake->cpu, &op));
}

static int popf(struct fake_cpu *fake, unsigned size, uint64_t image) {
    cpu_rsp(&fake->cpu) = FAKE_STACK;
    fake_put(fake, FAKE_STACK, image, size);
    return run(fake, cpu_op_popf, size);
}

START_TEST(cli_and_sti_need_iopl) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG3, "host");
    set_flags(fake, FLAG_IF, 2);
    ck_assert_int_eq(run(fake, cpu_op_cli, 1), VECTOR_GP);
    ck_assert_int_eq(run(fake, cpu_op_sti, 1), VECTOR_GP);
    ck_assert_uint_eq(fake->cpu.hot.rflags & FLAG_IF, FLAG_IF);
    set_flags(fake, FLAG_IF, 3);
    ck_assert_int_eq(run(fake, cpu_op_cli, 1), -1);
    ck_assert_uint_eq(fake->cpu.hot.rflags & FLAG_IF, 0);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(sti_shadows_one_instruction_only_when_if_was_clear) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "host");
    ck_assert_int_eq(run(fake, cpu_op_sti, 1), -1);
    ck_assert(fake->cpu.interrupt_shadow);
    ck_assert_uint_eq(fake->cpu.hot.run, 1);
    fake->cpu.interrupt_shadow = false;
    fake->cpu.intr = 1;
    ck_assert_int_eq(run(fake, cpu_op_sti, 1), -1);
    ck_assert(!fake->cpu.interrupt_shadow);
    ck_assert_uint_eq(fake->cpu.hot.run, 1);
    run(fake, cpu_op_cli, 1);
    run(fake, cpu_op_sti, 1);
    ck_assert_uint_eq(fake->cpu.hot.run, 0);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(virtual_interrupt_flag_replaces_if_under_vme_and_pvi) {
    static const struct {
        enum fake_mode mode;
        uint64_t cr4;
    } rows[] = {{FAKE_VM86, CR4_VME}, {FAKE_RING3, CR4_PVI}};
    for (unsigned i = 0; i < 2; i++) {
        struct fake_cpu *fake = fake_cpu_create(rows[i].mode, "pentium");
        set_flags(fake, FLAG_IF, 0);
        ck_assert_int_eq(run(fake, cpu_op_sti, 1), VECTOR_GP);
        fake->cpu.cr4 = rows[i].cr4;
        ck_assert_int_eq(run(fake, cpu_op_sti, 1), -1);
        ck_assert_uint_eq(fake->cpu.hot.rflags & (FLAG_VIF | FLAG_IF), FLAG_VIF | FLAG_IF);
        ck_assert(!fake->cpu.interrupt_shadow);
        ck_assert_int_eq(run(fake, cpu_op_cli, 1), -1);
        ck_assert_uint_eq(fake->cpu.hot.rflags & (FLAG_VIF | FLAG_IF), FLAG_IF);
        fake->cpu.hot.rflags |= FLAG_VIP;
        ck_assert_int_eq(run(fake, cpu_op_sti, 1), VECTOR_GP);
        fake_cpu_destroy(fake);
    }
}
END_TEST

START_TEST(stac_and_clac_are_for_the_kernel) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "host");
    struct cpu_op op = fake_instruction(fake, 1);
    ck_assert_int_eq(cpu_op_stac(&fake->cpu, &op), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rip, FAKE_CODE + 2);
    ck_assert_uint_eq(fake->cpu.hot.rflags & FLAG_AC, FLAG_AC);
    ck_assert_int_eq(cpu_op_stac(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_eq(fake->mode_changes, 1);
    ck_assert_int_eq(cpu_op_clac(&fake->cpu, &op), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rflags & FLAG_AC, 0);
    fake->cpu.cpl = 3;
    ck_assert_int_eq(run(fake, cpu_op_stac, 1), VECTOR_UD);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(pushf_hides_rf_and_vm) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "host");
    set_flags(fake, FLAG_RF | FLAG_ID | FLAG_CF, 3);
    ck_assert_int_eq(run(fake, cpu_op_pushf, 8), -1);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK - 8);
    ck_assert_uint_eq(fake_get(fake, FAKE_STACK - 8, 8), FLAG_FIXED | FLAG_ID | FLAG_CF | FLAG_IOPL);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(pushf_in_vm86_needs_iopl_3_or_vme) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_VM86, "pentium");
    set_flags(fake, FLAG_VIF, 0);
    ck_assert_int_eq(run(fake, cpu_op_pushf, 2), VECTOR_GP);
    fake->cpu.cr4 = CR4_VME;
    ck_assert_int_eq(run(fake, cpu_op_pushf, 4), VECTOR_GP);
    ck_assert_int_eq(run(fake, cpu_op_pushf, 2), -1);
    ck_assert_uint_eq(fake_get(fake, FAKE_STACK - 2, 2), FLAG_FIXED | FLAG_IOPL | FLAG_IF);
    set_flags(fake, FLAG_VIF, 3);
    ck_assert_int_eq(run(fake, cpu_op_pushf, 2), -1);
    ck_assert_uint_eq(fake_get(fake, FAKE_STACK - 4, 2), FLAG_FIXED | FLAG_IOPL);
    fake_cpu_destroy(fake);
}
END_TEST

/* Which bits an image of all ones sets, and one of all zeros clears, by privilege. */
START_TEST(popf_changes_what_the_privilege_allows) {
    static const struct {
        enum fake_mode mode;
        unsigned iopl, size;
        uint64_t changed;
    } rows[] = {
        {FAKE_LONG0, 0, 8, FLAG_ARITHMETIC | FLAG_TF | FLAG_DF | FLAG_NT | FLAG_AC | FLAG_ID | FLAG_IF | FLAG_IOPL},
        {FAKE_LONG0, 0, 2, FLAG_ARITHMETIC | FLAG_TF | FLAG_DF | FLAG_NT | FLAG_IF | FLAG_IOPL},
        {FAKE_LONG3, 0, 8, FLAG_ARITHMETIC | FLAG_TF | FLAG_DF | FLAG_NT | FLAG_AC | FLAG_ID},
        {FAKE_RING3, 3, 4, FLAG_ARITHMETIC | FLAG_TF | FLAG_DF | FLAG_NT | FLAG_AC | FLAG_ID | FLAG_IF},
        {FAKE_VM86, 3, 4, FLAG_ARITHMETIC | FLAG_TF | FLAG_DF | FLAG_NT | FLAG_AC | FLAG_ID | FLAG_IF},
        {FAKE_REAL, 0, 4, FLAG_ARITHMETIC | FLAG_TF | FLAG_DF | FLAG_NT | FLAG_AC | FLAG_ID | FLAG_IF | FLAG_IOPL},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct fake_cpu *fake = fake_cpu_create(rows[i].mode, "host");
        set_flags(fake, 0, rows[i].iopl);
        uint64_t before = fake->cpu.hot.rflags;
        ck_assert_int_eq(popf(fake, rows[i].size, ~0ull), -1);
        ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK + rows[i].size);
        ck_assert_uint_eq(fake->cpu.hot.rflags, before | rows[i].changed);
        fake_cpu_destroy(fake);
    }
}
END_TEST

START_TEST(popf_tells_of_mode_bits_and_lets_waiting_interrupts_in) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "host");
    struct cpu_op op = fake_instruction(fake, 8);
    fake_put(fake, FAKE_STACK, FLAG_CF | FLAG_IF, 8);
    ck_assert_int_eq(cpu_op_popf(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_eq(fake->mode_changes, 0);
    fake_put(fake, FAKE_STACK, FLAG_TF, 8);
    cpu_rsp(&fake->cpu) = FAKE_STACK;
    ck_assert_int_eq(cpu_op_popf(&fake->cpu, &op), CPU_JUMP);
    ck_assert_uint_eq(fake->mode_changes, 1);
    ck_assert_uint_eq(fake->cpu.hot.rip, FAKE_CODE + 2);
    fake->cpu.intr = 1;
    fake_put(fake, FAKE_STACK, FLAG_TF | FLAG_IF, 8);
    cpu_rsp(&fake->cpu) = FAKE_STACK;
    ck_assert_int_eq(cpu_op_popf(&fake->cpu, &op), CPU_STOP);
    ck_assert_int_eq(fake->cpu.stop, CPU_STOP_CHECK);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(popf_in_vm86_with_vme_moves_if_to_vif) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_VM86, "pentium");
    set_flags(fake, 0, 0);
    ck_assert_int_eq(popf(fake, 2, FLAG_IF), VECTOR_GP);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK);
    fake->cpu.cr4 = CR4_VME;
    ck_assert_int_eq(popf(fake, 4, FLAG_IF), VECTOR_GP);
    ck_assert_int_eq(popf(fake, 2, FLAG_IF | FLAG_CF | FLAG_IOPL), -1);
    ck_assert_uint_eq(fake->cpu.hot.rflags, FLAG_VM | FLAG_FIXED | FLAG_VIF | FLAG_CF);
    ck_assert_int_eq(popf(fake, 2, FLAG_TF), VECTOR_GP);
    fake->cpu.hot.rflags |= FLAG_VIP;
    ck_assert_int_eq(popf(fake, 2, FLAG_IF), VECTOR_GP);
    ck_assert_int_eq(popf(fake, 2, 0), -1);
    ck_assert_uint_eq(fake->cpu.hot.rflags, FLAG_VM | FLAG_FIXED | FLAG_VIP);
    fake_cpu_destroy(fake);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("flags");
    tcase_add_test(tests, cli_and_sti_need_iopl);
    tcase_add_test(tests, sti_shadows_one_instruction_only_when_if_was_clear);
    tcase_add_test(tests, virtual_interrupt_flag_replaces_if_under_vme_and_pvi);
    tcase_add_test(tests, stac_and_clac_are_for_the_kernel);
    tcase_add_test(tests, pushf_hides_rf_and_vm);
    tcase_add_test(tests, pushf_in_vm86_needs_iopl_3_or_vme);
    tcase_add_test(tests, popf_changes_what_the_privilege_allows);
    tcase_add_test(tests, popf_tells_of_mode_bits_and_lets_waiting_interrupts_in);
    tcase_add_test(tests, popf_in_vm86_with_vme_moves_if_to_vif);
    return fake_cpu_run(tests);
}
