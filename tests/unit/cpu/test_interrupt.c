/* Events and their order: exceptions, double and triple faults, real mode, VME: cpu/interrupt.c. */
#include <check.h>
#include <stdlib.h>

#include "fake_memory.h"

enum { INTERRUPT_GATE = 0x8e, USER = 0x60 };

static struct cpu_op op_of_int(unsigned vector) {
    struct cpu_op op = fake_op(4);

    op.immediate = vector;
    return op;
}

static void make_gates(struct fake *fake, uint16_t selector) {
    for (unsigned vector = 0; vector < 32; vector++)
        fake_gate(fake, vector, selector, FAKE_HANDLER + vector * 16, INTERRUPT_GATE);
}

/* ---- Images ---- */

START_TEST(fault_pushes_its_error_code_and_rf) {
    struct fake *fake = fake_create(FAKE_LONG3);

    make_gates(fake, SEL_LONG0);
    cpu_fault_code(&fake->cpu, VECTOR_GP, 0x1234);
    ck_assert_int_eq(cpu_deliver_exception(&fake->cpu), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rip, FAKE_HANDLER + VECTOR_GP * 16);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK0 - 48);
    ck_assert_uint_eq(fake_stack(fake, 0, 8), 0x1234);
    ck_assert_uint_eq(fake_stack(fake, 1, 8), FAKE_USER);
    ck_assert_uint_eq(fake_stack(fake, 3, 8), FLAG_FIXED | FLAG_IF | FLAG_RF);
    ck_assert(!(fake->cpu.hot.rflags & FLAG_RF));
    ck_assert(!fake->cpu.delivering);
    free(fake);
}
END_TEST

START_TEST(page_fault_sets_cr2) {
    struct fake *fake = fake_create(FAKE_RING3);

    make_gates(fake, SEL_CODE0);
    cpu_fault_page(&fake->cpu, 0xdeadb000, 6);
    ck_assert_int_eq(cpu_deliver_exception(&fake->cpu), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.cr2, 0xdeadb000);
    ck_assert_uint_eq(fake_stack(fake, 0, 4), 6);
    free(fake);
}
END_TEST

START_TEST(debug_trap_replaces_b_bits_keeps_the_others_and_clears_gd) {
    struct fake *fake = fake_create(FAKE_RING0);

    make_gates(fake, SEL_CODE0);
    fake->cpu.dr[6] = 0xffff0ff0 | 1 << 15 | 3;
    fake->cpu.dr[7] = 0x2400;
    fake->cpu.hot.rflags |= FLAG_RF | FLAG_TF;
    cpu_fault_debug(&fake->cpu, 1 << 14 | 4, true);
    ck_assert_int_eq(cpu_deliver_exception(&fake->cpu), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.dr[6], 0xffff0ff0 | 1 << 15 | 1 << 14 | 4);
    ck_assert_uint_eq(fake->cpu.dr[7], 0x400);
    ck_assert_uint_eq(fake_stack(fake, 2, 4), FLAG_FIXED | FLAG_IF | FLAG_TF);
    ck_assert(!(fake->cpu.hot.rflags & FLAG_TF));
    free(fake);
}
END_TEST

START_TEST(rf_is_pushed_between_the_iterations_of_a_string_instruction) {
    struct fake *fake = fake_create(FAKE_RING0);

    make_gates(fake, SEL_CODE0);
    fake->cpu.paused_string = fake->cpu.hot.rip;
    fake->cpu.hot.rflags |= FLAG_RF | FLAG_TF;
    cpu_fault_debug(&fake->cpu, 1 << 14, true);
    ck_assert_int_eq(cpu_deliver_exception(&fake->cpu), CPU_JUMP);
    ck_assert_uint_eq(fake_stack(fake, 2, 4), FLAG_FIXED | FLAG_IF | FLAG_TF | FLAG_RF);
    ck_assert(!(fake->cpu.hot.rflags & FLAG_RF));
    free(fake);
    fake = fake_create(FAKE_RING0);
    make_gates(fake, SEL_CODE0);
    fake->cpu.hot.rflags |= FLAG_RF;
    ck_assert_int_eq(cpu_deliver_interrupt(&fake->cpu, 1), CPU_JUMP);
    ck_assert_uint_eq(fake_stack(fake, 2, 4), FLAG_FIXED | FLAG_IF | FLAG_RF);
    free(fake);
}
END_TEST

START_TEST(instruction_breakpoint_does_not_push_rf) {
    struct fake *fake = fake_create(FAKE_RING0);

    make_gates(fake, SEL_CODE0);
    cpu_fault_debug(&fake->cpu, 1, false);
    ck_assert_int_eq(cpu_deliver_exception(&fake->cpu), CPU_JUMP);
    ck_assert_uint_eq(fake_stack(fake, 2, 4), FLAG_FIXED | FLAG_IF);
    free(fake);
}
END_TEST

START_TEST(interrupt_wakes_from_hlt_and_ends_the_shadow) {
    struct fake *fake = fake_create(FAKE_LONG0);

    fake_gate(fake, 0x40, SEL_LONG0, FAKE_HANDLER, INTERRUPT_GATE);
    fake->cpu.halted = fake->cpu.interrupt_shadow = true;
    ck_assert_int_eq(cpu_deliver_interrupt(&fake->cpu, 0x40), CPU_JUMP);
    ck_assert(!fake->cpu.halted);
    ck_assert(!fake->cpu.interrupt_shadow);
    ck_assert_uint_eq(fake_stack(fake, 0, 8), FAKE_CODE);
    free(fake);
}
END_TEST

START_TEST(nmi_blocks_further_ones) {
    struct fake *fake = fake_create(FAKE_LONG0);

    make_gates(fake, SEL_LONG0);
    ck_assert_int_eq(cpu_deliver_nmi(&fake->cpu), CPU_JUMP);
    ck_assert(fake->cpu.nmi_blocked);
    ck_assert_uint_eq(fake->cpu.hot.rip, FAKE_HANDLER + VECTOR_NMI * 16);
    free(fake);
}
END_TEST

/* ---- EXT ---- */

START_TEST(fault_of_an_external_interrupt_tells_ext) {
    struct fake *fake = fake_create(FAKE_RING0);

    make_gates(fake, SEL_CODE0);
    ck_assert_int_eq(cpu_deliver_interrupt(&fake->cpu, 0x40), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rip, FAKE_HANDLER + VECTOR_GP * 16);
    ck_assert_uint_eq(fake_stack(fake, 0, 4), 0x40 * 8 + 3);
    free(fake);
}
END_TEST

START_TEST(fault_of_int_n_does_not_tell_ext_and_restarts_at_the_instruction) {
    struct fake *fake = fake_create(FAKE_RING0);
    const struct cpu_op op = op_of_int(0x40);

    make_gates(fake, SEL_CODE0);
    ck_assert_int_eq(fake_fault(fake, cpu_op_int_n(&fake->cpu, &op)), VECTOR_GP);
    ck_assert_int_eq(cpu_deliver_exception(&fake->cpu), CPU_JUMP);
    ck_assert_uint_eq(fake_stack(fake, 0, 4), 0x40 * 8 + 2);
    ck_assert_uint_eq(fake_stack(fake, 1, 4), FAKE_CODE);
    free(fake);
}
END_TEST

START_TEST(int1_ignores_the_gates_dpl_and_tells_ext) {
    struct fake *fake = fake_create(FAKE_RING3);
    const struct cpu_op op = fake_op(4);

    make_gates(fake, SEL_CODE0);
    ck_assert_int_eq(cpu_op_int1(&fake->cpu, &op), CPU_JUMP);
    ck_assert_uint_eq(fake_stack(fake, 0, 4), FAKE_USER + 2);
    free(fake);

    fake = fake_create(FAKE_RING3);
    ck_assert_int_eq(fake_fault(fake, cpu_op_int1(&fake->cpu, &op)), VECTOR_GP);
    ck_assert_uint_eq(fake->cpu.exception.error_code, 1 * 8 + 3);
    free(fake);
}
END_TEST

/* kvm-unit-tests' debug: MOV SS onto a watched address, then INT1, is one #DB. */
START_TEST(int1_takes_the_data_breakpoints_that_mov_ss_held_off) {
    struct fake *fake = fake_create(FAKE_RING0);
    const struct cpu_op op = op_of_int(1);

    make_gates(fake, SEL_CODE0);
    fake->cpu.dr[6] = 0xffff0ff0 | 1 << 14 | 1;
    fake->cpu.watch_hits = 2;
    ck_assert_int_eq(cpu_op_int1(&fake->cpu, &op), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.dr[6], 0xffff0ff0 | 1 << 14 | 2);
    ck_assert_uint_eq(fake->cpu.watch_hits, 0);
    free(fake);
}
END_TEST

START_TEST(int1_alone_leaves_dr6_as_it_is) {
    struct fake *fake = fake_create(FAKE_RING0);
    const struct cpu_op op = op_of_int(1);

    make_gates(fake, SEL_CODE0);
    fake->cpu.dr[6] = 0xffff0ff0 | 1;
    ck_assert_int_eq(cpu_op_int1(&fake->cpu, &op), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.dr[6], 0xffff0ff0 | 1);
    free(fake);
}
END_TEST

START_TEST(int3_obeys_the_gates_dpl) {
    struct fake *fake = fake_create(FAKE_RING3);
    const struct cpu_op op = fake_op(4);

    make_gates(fake, SEL_CODE0);
    ck_assert_int_eq(fake_fault(fake, cpu_op_int3(&fake->cpu, &op)), VECTOR_GP);
    ck_assert_uint_eq(fake->cpu.exception.error_code, 3 * 8 + 2);
    fake_gate(fake, 3, SEL_CODE0, FAKE_HANDLER, INTERRUPT_GATE | USER);
    ck_assert_int_eq(cpu_op_int3(&fake->cpu, &op), CPU_JUMP);
    free(fake);
}
END_TEST

START_TEST(into_asks_for_of) {
    struct fake *fake = fake_create(FAKE_RING0);
    const struct cpu_op op = fake_op(4);

    make_gates(fake, SEL_CODE0);
    ck_assert_int_eq(cpu_op_into(&fake->cpu, &op), CPU_NEXT);
    fake->cpu.hot.rflags |= FLAG_OF;
    ck_assert_int_eq(cpu_op_into(&fake->cpu, &op), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rip, FAKE_HANDLER + VECTOR_OF * 16);
    free(fake);
}
END_TEST

/* ---- Double and triple faults ---- */

/* The first fault's gate is broken so that its delivery raises the second. */
struct pair {
    int first;
    bool second_is_page_fault; /* of the stack; else #NP of the gate */
    int delivered;
};

static const struct pair pairs[] = {
    {VECTOR_UD, false, VECTOR_NP}, {VECTOR_DB, false, VECTOR_NP}, {VECTOR_DE, false, VECTOR_DF},
    {VECTOR_GP, false, VECTOR_DF}, {VECTOR_SS, false, VECTOR_DF}, {VECTOR_PF, false, VECTOR_DF},
    {VECTOR_GP, true, VECTOR_PF},  {VECTOR_PF, true, VECTOR_DF},  {VECTOR_UD, true, VECTOR_PF},
};

START_TEST(second_fault_is_handled_after_the_first_or_becomes_df) {
    const struct pair *pair = &pairs[_i];
    struct fake *fake = fake_create(FAKE_LONG0);

    make_gates(fake, SEL_LONG0);
    cpu_rsp(&fake->cpu) = 0x20100;
    /* All handlers run on the IST, so that only the first stack is bad. */
    for (unsigned vector = 0; vector < 32; vector++)
        fake_write(fake, FAKE_IDT + vector * 16 + 4, 1, 1);
    if (pair->second_is_page_fault) {
        fake_write(fake, FAKE_IDT + (unsigned)pair->first * 16 + 4, pair->first == VECTOR_PF ? 2 : 0, 1);
        fake_write(fake, FAKE_TSS + 0x2c, 0x20100, 8);
        fake->absent_page = 0x20000;
    } else {
        fake_gate(fake, (unsigned)pair->first, SEL_LONG0, 0, INTERRUPT_GATE & 0x7f);
    }
    cpu_fault_code(&fake->cpu, (enum cpu_vector)pair->first, 0);
    ck_assert_int_eq(cpu_deliver_exception(&fake->cpu), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rip, FAKE_HANDLER + (unsigned)pair->delivered * 16);
    if (pair->delivered == VECTOR_DF)
        ck_assert_uint_eq(fake_stack(fake, 0, 8), 0);
    if (pair->second_is_page_fault)
        ck_assert_uint_eq(fake->cpu.cr2 & ~0xfffull, 0x20000);
    free(fake);
}
END_TEST

START_TEST(fault_of_the_double_fault_is_a_shutdown) {
    struct fake *fake = fake_create(FAKE_LONG0);

    fake->cpu.idtr.limit = 0;
    cpu_fault(&fake->cpu, VECTOR_UD);
    ck_assert_int_eq(cpu_deliver_exception(&fake->cpu), CPU_STOP);
    ck_assert_int_eq(fake->cpu.stop, CPU_STOP_SHUTDOWN);
    ck_assert_uint_eq(fake->cpu.hot.rip, FAKE_CODE);
    ck_assert(!fake->cpu.delivering);
    free(fake);
}
END_TEST

START_TEST(interrupt_with_the_number_of_an_exception_is_benign) {
    struct fake *fake = fake_create(FAKE_RING0);

    make_gates(fake, SEL_CODE0);
    fake_gate(fake, 8, SEL_CODE0, 0, INTERRUPT_GATE & 0x7f);
    ck_assert_int_eq(cpu_deliver_interrupt(&fake->cpu, 8), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rip, FAKE_HANDLER + VECTOR_NP * 16);
    free(fake);
}
END_TEST

/* ---- Real mode ---- */

START_TEST(real_mode_uses_the_vector_table) {
    struct fake *fake = fake_create(FAKE_REAL);
    const struct cpu_op op = op_of_int(0x10);

    fake->cpu.segment[CPU_CS].selector = 0x20;
    fake->cpu.hot.rflags |= FLAG_TF | FLAG_AC;
    fake_write(fake, 0x10 * 4, 0x12345678, 4);
    ck_assert_int_eq(cpu_op_int_n(&fake->cpu, &op), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.segment[CPU_CS].selector, 0x1234);
    ck_assert_uint_eq(fake->cpu.segment[CPU_CS].base, 0x12340);
    ck_assert_uint_eq(fake->cpu.hot.rip, 0x5678);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK0 - 6);
    ck_assert_uint_eq(fake_stack(fake, 0, 2), 0x502);
    ck_assert_uint_eq(fake_stack(fake, 1, 2), 0x20);
    ck_assert_uint_eq(fake_stack(fake, 2, 2), FLAG_FIXED | FLAG_IF | FLAG_TF);
    ck_assert_uint_eq(fake->cpu.hot.rflags, FLAG_FIXED);
    free(fake);
}
END_TEST

START_TEST(real_mode_exceptions_push_no_error_code) {
    struct fake *fake = fake_create(FAKE_REAL);

    cpu_fault_code(&fake->cpu, VECTOR_GP, 0);
    ck_assert_int_eq(cpu_deliver_exception(&fake->cpu), CPU_JUMP);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK0 - 6);
    free(fake);
}
END_TEST

START_TEST(real_mode_stack_wraps_at_64_kib) {
    struct fake *fake = fake_create(FAKE_REAL);
    const struct cpu_op op = op_of_int(0x10);

    cpu_rsp(&fake->cpu) = 0x30002;
    ck_assert_int_eq(cpu_op_int_n(&fake->cpu, &op), CPU_JUMP);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), 0x3fffc);
    ck_assert_uint_eq(fake_read(fake, 0, 2), FLAG_FIXED | FLAG_IF);
    ck_assert_uint_eq(fake_read(fake, 0xfffc, 2), 0x502);
    free(fake);
}
END_TEST

START_TEST(odd_stack_pointer_of_1_is_a_shutdown_in_real_mode) {
    struct fake *fake = fake_create(FAKE_REAL);
    const struct cpu_op op = op_of_int(0x10);

    cpu_rsp(&fake->cpu) = 1;
    ck_assert_int_eq(fake_fault(fake, cpu_op_int_n(&fake->cpu, &op)), VECTOR_SS);
    ck_assert_int_eq(cpu_deliver_exception(&fake->cpu), CPU_STOP);
    ck_assert_int_eq(fake->cpu.stop, CPU_STOP_SHUTDOWN);
    free(fake);
}
END_TEST

/* ---- Virtual-8086 mode ---- */

START_TEST(int_n_of_vm86_needs_iopl_3) {
    struct fake *fake = fake_create(FAKE_VM86);
    const struct cpu_op op = op_of_int(0x21);

    fake_gate(fake, 0x21, SEL_CODE0, FAKE_HANDLER, INTERRUPT_GATE | USER);
    ck_assert_int_eq(fake_fault(fake, cpu_op_int_n(&fake->cpu, &op)), VECTOR_GP);
    ck_assert_uint_eq(fake->cpu.exception.error_code, 0);
    fake->cpu.hot.rflags |= FLAG_IOPL;
    ck_assert_int_eq(cpu_op_int_n(&fake->cpu, &op), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.cpl, 0);
    free(fake);
}
END_TEST

START_TEST(int3_of_vm86_does_not_need_iopl_3) {
    struct fake *fake = fake_create(FAKE_VM86);
    const struct cpu_op op = fake_op(2);

    fake_gate(fake, 3, SEL_CODE0, FAKE_HANDLER, INTERRUPT_GATE | USER);
    ck_assert_int_eq(cpu_op_int3(&fake->cpu, &op), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.cpl, 0);
    free(fake);
}
END_TEST

static struct fake *create_vme(unsigned redirection_byte) {
    struct fake *fake = fake_create(FAKE_VM86);

    fake->cpu.cr4 = CR4_VME;
    fake->cpu.tr.limit = 0x167;
    fake_write(fake, FAKE_TSS + 0x66, 0x88, 2);
    fake_write(fake, FAKE_TSS + 0x68 + 0x21 / 8, redirection_byte, 1);
    fake_write(fake, 0x21 * 4, 0x00400123, 4);
    fake_gate(fake, 0x21, SEL_CODE0, FAKE_HANDLER, INTERRUPT_GATE | USER);
    return fake;
}

START_TEST(vme_redirects_to_the_tasks_own_table_with_vif_as_if) {
    struct fake *fake = create_vme(0);
    const struct cpu_op op = op_of_int(0x21);

    fake->cpu.hot.rflags |= FLAG_VIF;
    fake->cpu.hot.rflags &= ~(uint64_t)FLAG_IF;
    ck_assert_int_eq(cpu_op_int_n(&fake->cpu, &op), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.cpl, 3);
    ck_assert_uint_eq(fake->cpu.segment[CPU_CS].selector, 0x40);
    ck_assert_uint_eq(fake->cpu.hot.rip, 0x123);
    ck_assert_uint_eq(fake_stack(fake, 2, 2), FLAG_FIXED | FLAG_IF | FLAG_IOPL);
    ck_assert_uint_eq(fake->cpu.hot.rflags, FLAG_FIXED | FLAG_VM);
    free(fake);
}
END_TEST

START_TEST(vme_with_the_bit_set_needs_iopl_3) {
    struct fake *fake = create_vme(2);
    const struct cpu_op op = op_of_int(0x21);

    ck_assert_int_eq(fake_fault(fake, cpu_op_int_n(&fake->cpu, &op)), VECTOR_GP);
    fake->cpu.hot.rflags |= FLAG_IOPL;
    ck_assert_int_eq(cpu_op_int_n(&fake->cpu, &op), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.cpl, 0);
    free(fake);
}
END_TEST

START_TEST(vme_redirection_with_iopl_3_clears_if_itself) {
    struct fake *fake = create_vme(0);
    const struct cpu_op op = op_of_int(0x21);

    fake->cpu.hot.rflags |= FLAG_IOPL;
    ck_assert_int_eq(cpu_op_int_n(&fake->cpu, &op), CPU_JUMP);
    ck_assert_uint_eq(fake_stack(fake, 2, 2), FLAG_FIXED | FLAG_IF | FLAG_IOPL);
    ck_assert_uint_eq(fake->cpu.hot.rflags, FLAG_FIXED | FLAG_VM | FLAG_IOPL);
    free(fake);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("interrupt");

    tcase_add_test(tests, fault_pushes_its_error_code_and_rf);
    tcase_add_test(tests, page_fault_sets_cr2);
    tcase_add_test(tests, debug_trap_replaces_b_bits_keeps_the_others_and_clears_gd);
    tcase_add_test(tests, rf_is_pushed_between_the_iterations_of_a_string_instruction);
    tcase_add_test(tests, instruction_breakpoint_does_not_push_rf);
    tcase_add_test(tests, interrupt_wakes_from_hlt_and_ends_the_shadow);
    tcase_add_test(tests, nmi_blocks_further_ones);
    tcase_add_test(tests, fault_of_an_external_interrupt_tells_ext);
    tcase_add_test(tests, fault_of_int_n_does_not_tell_ext_and_restarts_at_the_instruction);
    tcase_add_test(tests, int1_ignores_the_gates_dpl_and_tells_ext);
    tcase_add_test(tests, int1_takes_the_data_breakpoints_that_mov_ss_held_off);
    tcase_add_test(tests, int1_alone_leaves_dr6_as_it_is);
    tcase_add_test(tests, int3_obeys_the_gates_dpl);
    tcase_add_test(tests, into_asks_for_of);
    tcase_add_loop_test(tests, second_fault_is_handled_after_the_first_or_becomes_df, 0,
                        sizeof pairs / sizeof pairs[0]);
    tcase_add_test(tests, fault_of_the_double_fault_is_a_shutdown);
    tcase_add_test(tests, interrupt_with_the_number_of_an_exception_is_benign);
    tcase_add_test(tests, real_mode_uses_the_vector_table);
    tcase_add_test(tests, real_mode_exceptions_push_no_error_code);
    tcase_add_test(tests, real_mode_stack_wraps_at_64_kib);
    tcase_add_test(tests, odd_stack_pointer_of_1_is_a_shutdown_in_real_mode);
    tcase_add_test(tests, int_n_of_vm86_needs_iopl_3);
    tcase_add_test(tests, int3_of_vm86_does_not_need_iopl_3);
    tcase_add_test(tests, vme_redirects_to_the_tasks_own_table_with_vif_as_if);
    tcase_add_test(tests, vme_with_the_bit_set_needs_iopl_3);
    tcase_add_test(tests, vme_redirection_with_iopl_3_clears_if_itself);
    return fake_run(tests);
}
