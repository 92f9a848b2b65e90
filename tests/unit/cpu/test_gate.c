/* Gates of the IDT in protected, virtual-8086 and long mode: cpu/gate.c through the instructions and events. */
#include <check.h>
#include <stdlib.h>

#include "fake_memory.h"

enum { INTERRUPT_GATE = 0x8e, TRAP_GATE = 0x8f, USER = 0x60, GATE16 = 0x86, TASK_GATE = 0x85 };

static enum cpu_result int_n(struct fake *fake, unsigned vector) {
    struct cpu_op op = fake_op(4);

    op.immediate = vector;
    return cpu_op_int_n(&fake->cpu, &op);
}

/* A gate fault: vector, error code, and not a register changed. */
static void assert_gate_fault(struct fake *fake, enum cpu_result result, int vector, uint32_t error_code) {
    ck_assert_int_eq(fake_fault(fake, result), vector);
    ck_assert_uint_eq(fake->cpu.exception.error_code, error_code);
    ck_assert_uint_eq(fake->mode_changes, 0);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), fake->cpu.cpl == 3 ? FAKE_STACK3 : FAKE_STACK0);
}

START_TEST(interrupt_gate_of_the_same_level_pushes_three_words_and_clears_if) {
    struct fake *fake = fake_create(FAKE_RING0);

    fake_gate(fake, 0x30, SEL_CODE0, FAKE_HANDLER, INTERRUPT_GATE);
    fake->cpu.hot.rflags |= FLAG_TF | FLAG_NT | FLAG_CF;
    ck_assert_int_eq(int_n(fake, 0x30), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rip, FAKE_HANDLER);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK0 - 12);
    ck_assert_uint_eq(fake_stack(fake, 0, 4), FAKE_CODE + 2);
    ck_assert_uint_eq(fake_stack(fake, 1, 4), SEL_CODE0);
    ck_assert_uint_eq(fake_stack(fake, 2, 4), FLAG_FIXED | FLAG_IF | FLAG_TF | FLAG_NT | FLAG_CF);
    ck_assert_uint_eq(fake->cpu.hot.rflags, FLAG_FIXED | FLAG_CF);
    ck_assert_uint_eq(fake->mode_changes, 1);
    free(fake);
}
END_TEST

START_TEST(trap_gate_keeps_if) {
    struct fake *fake = fake_create(FAKE_RING0);

    fake_gate(fake, 0x30, SEL_CODE0, FAKE_HANDLER, TRAP_GATE);
    ck_assert_int_eq(int_n(fake, 0x30), CPU_JUMP);
    ck_assert(fake->cpu.hot.rflags & FLAG_IF);
    free(fake);
}
END_TEST

START_TEST(gate_to_inner_level_switches_to_the_stack_of_the_tss) {
    struct fake *fake = fake_create(FAKE_RING3);

    fake_gate(fake, 0x30, SEL_CODE0, FAKE_HANDLER, INTERRUPT_GATE | USER);
    ck_assert_int_eq(int_n(fake, 0x30), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.cpl, 0);
    ck_assert_uint_eq(fake->cpu.segment[CPU_CS].selector, SEL_CODE0);
    ck_assert_uint_eq(fake->cpu.segment[CPU_SS].selector, SEL_DATA0);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK0 - 20);
    ck_assert_uint_eq(fake_stack(fake, 0, 4), FAKE_USER + 2);
    ck_assert_uint_eq(fake_stack(fake, 1, 4), SEL_CODE3);
    ck_assert_uint_eq(fake_stack(fake, 3, 4), FAKE_STACK3);
    ck_assert_uint_eq(fake_stack(fake, 4, 4), SEL_DATA3);
    free(fake);
}
END_TEST

START_TEST(gate_of_16_bits_pushes_words_and_takes_a_16_bit_offset) {
    struct fake *fake = fake_create(FAKE_RING3);

    fake_gate(fake, 0x30, SEL_CODE0, 0xabcd1234, GATE16 | USER);
    ck_assert_int_eq(int_n(fake, 0x30), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rip, 0x1234);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK0 - 10);
    ck_assert_uint_eq(fake_stack(fake, 1, 2), SEL_CODE3);
    free(fake);
}
END_TEST

START_TEST(stack_of_16_bit_tss_is_found) {
    struct fake *fake = fake_create(FAKE_RING3);

    fake->cpu.tr.attributes = 0x83;
    fake_write(fake, FAKE_TSS + 2, 0x7000, 2);
    fake_write(fake, FAKE_TSS + 4, SEL_DATA0, 2);
    fake_gate(fake, 0x30, SEL_CODE0, FAKE_HANDLER, INTERRUPT_GATE | USER);
    ck_assert_int_eq(int_n(fake, 0x30), CPU_JUMP);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), 0x7000 - 20);
    free(fake);
}
END_TEST

START_TEST(conforming_handler_stays_at_the_level) {
    struct fake *fake = fake_create(FAKE_RING3);

    fake_gate(fake, 0x30, SEL_CONFORMING0, FAKE_HANDLER, INTERRUPT_GATE | USER);
    ck_assert_int_eq(int_n(fake, 0x30), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.cpl, 3);
    ck_assert_uint_eq(fake->cpu.segment[CPU_CS].selector, SEL_CONFORMING0 | 3);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK3 - 12);
    free(fake);
}
END_TEST

/* Each row breaks one thing; software interrupt 30h from level 3. */
struct broken {
    const char *what;
    uint16_t selector;
    unsigned access;
    uint16_t tss_ss;
    unsigned tss_limit;
    int vector;
    uint32_t error_code;
};

static const struct broken broken_gates[] = {
    {"type is not a gate", SEL_CODE0, 0x80 | USER | 0xc, SEL_DATA0, 0x67, VECTOR_GP, 0x182},
    {"DPL of the gate is below CPL", SEL_CODE0, INTERRUPT_GATE, SEL_DATA0, 0x67, VECTOR_GP, 0x182},
    {"gate is not present", SEL_CODE0, (INTERRUPT_GATE | USER) & 0x7f, SEL_DATA0, 0x67, VECTOR_NP, 0x182},
    {"code selector is null", 0, INTERRUPT_GATE | USER, SEL_DATA0, 0x67, VECTOR_GP, 0},
    {"code selector is outside the GDT", 0xff8, INTERRUPT_GATE | USER, SEL_DATA0, 0x67, VECTOR_GP, 0xff8},
    {"selector names data", SEL_DATA0, INTERRUPT_GATE | USER, SEL_DATA0, 0x67, VECTOR_GP, SEL_DATA0},
    {"code is not present", SEL_ABSENT_CODE0, INTERRUPT_GATE | USER, SEL_DATA0, 0x67, VECTOR_NP, SEL_ABSENT_CODE0},
    {"TSS is too short", SEL_CODE0, INTERRUPT_GATE | USER, SEL_DATA0, 8, VECTOR_TS, SEL_TSS},
    {"inner SS is null", SEL_CODE0, INTERRUPT_GATE | USER, 0, 0x67, VECTOR_TS, 0},
    {"inner SS is outside the GDT", SEL_CODE0, INTERRUPT_GATE | USER, 0xff8, 0x67, VECTOR_TS, 0xff8},
    {"inner SS has the wrong RPL", SEL_CODE0, INTERRUPT_GATE | USER, SEL_DATA0 | 1, 0x67, VECTOR_TS, SEL_DATA0},
    {"inner SS is of another level", SEL_CODE0, INTERRUPT_GATE | USER, SEL_DATA1 & ~3, 0x67, VECTOR_TS, SEL_DATA1 & ~3},
    {"inner SS is read-only", SEL_CODE0, INTERRUPT_GATE | USER, SEL_READ_ONLY0, 0x67, VECTOR_TS, SEL_READ_ONLY0},
    {"inner SS is not present", SEL_CODE0, INTERRUPT_GATE | USER, SEL_SPARE, 0x67, VECTOR_SS, SEL_SPARE},
};

START_TEST(each_broken_gate_has_its_error_code) {
    const struct broken *broken = &broken_gates[_i];
    struct fake *fake = fake_create(FAKE_RING3);

    fake_descriptor(fake, SEL_SPARE, 0, 0xfffff, 0x13, 0xc);
    fake_gate(fake, 0x30, broken->selector, FAKE_HANDLER, broken->access);
    fake_write(fake, FAKE_TSS + 8, broken->tss_ss, 2);
    fake->cpu.tr.limit = broken->tss_limit;
    assert_gate_fault(fake, int_n(fake, 0x30), broken->vector, broken->error_code);
    free(fake);
}
END_TEST

START_TEST(vector_outside_the_idt_is_gp_with_the_idt_bit) {
    struct fake *fake = fake_create(FAKE_RING0);

    fake->cpu.idtr.limit = 0x30 * 8 + 6;
    assert_gate_fault(fake, int_n(fake, 0x30), VECTOR_GP, 0x182);
    free(fake);
}
END_TEST

START_TEST(code_of_an_outer_level_is_no_handler) {
    struct fake *fake = fake_create(FAKE_RING0);

    fake_gate(fake, 0x30, SEL_CODE3, FAKE_HANDLER, INTERRUPT_GATE);
    assert_gate_fault(fake, int_n(fake, 0x30), VECTOR_GP, SEL_CODE3 & ~3);
    free(fake);
}
END_TEST

START_TEST(page_fault_of_the_inner_stack_leaves_the_registers) {
    struct fake *fake = fake_create(FAKE_RING3);

    fake_gate(fake, 0x30, SEL_CODE0, FAKE_HANDLER, INTERRUPT_GATE | USER);
    fake->absent_page = FAKE_STACK0 - 0x1000;
    assert_gate_fault(fake, int_n(fake, 0x30), VECTOR_PF, 2);
    ck_assert_uint_eq(fake->cpu.segment[CPU_SS].selector, SEL_DATA3);
    free(fake);
}
END_TEST

START_TEST(inner_stack_without_room_is_ss_with_its_selector) {
    struct fake *fake = fake_create(FAKE_RING3);

    fake_descriptor(fake, SEL_SPARE, 0, 0x7fff, 0x93, 4);
    fake_write(fake, FAKE_TSS + 8, SEL_SPARE, 2);
    fake_write(fake, FAKE_TSS + 4, 0x9000, 4);
    fake_gate(fake, 0x30, SEL_CODE0, FAKE_HANDLER, INTERRUPT_GATE | USER);
    assert_gate_fault(fake, int_n(fake, 0x30), VECTOR_SS, SEL_SPARE);
    free(fake);
}
END_TEST

START_TEST(handler_beyond_the_code_limit_is_gp_0) {
    struct fake *fake = fake_create(FAKE_RING0);

    fake_gate(fake, 0x30, SEL_CODE16, 0x10000, INTERRUPT_GATE);
    assert_gate_fault(fake, int_n(fake, 0x30), VECTOR_GP, 0);
    fake->cpu.segment[CPU_SS].limit = (uint32_t)cpu_rsp(&fake->cpu) - 2; /* no room for the frame comes first, */
    assert_gate_fault(fake, int_n(fake, 0x30), VECTOR_SS, 0);
    fake->cpu.segment[CPU_SS].limit = 0xffffffff;
    fake->absent_page = (cpu_rsp(&fake->cpu) - 1) & ~0xfffull; /* no page comes last */
    assert_gate_fault(fake, int_n(fake, 0x30), VECTOR_GP, 0);
    free(fake);
}
END_TEST

START_TEST(accessed_bit_of_the_handlers_segment_is_set_in_memory) {
    struct fake *fake = fake_create(FAKE_RING0);

    fake_descriptor(fake, SEL_SPARE, 0, 0xfffff, 0x9a, 0xc);
    fake_gate(fake, 0x30, SEL_SPARE, FAKE_HANDLER, INTERRUPT_GATE);
    ck_assert_int_eq(int_n(fake, 0x30), CPU_JUMP);
    ck_assert_uint_eq(fake_read(fake, FAKE_GDT + SEL_SPARE + 5, 1), 0x9b);
    ck_assert_uint_eq(fake->cpu.segment[CPU_CS].attributes & 0xff, 0x9b);
    free(fake);
}
END_TEST

/* ---- Virtual-8086 mode ---- */

START_TEST(interrupt_of_vm86_pushes_the_data_segments_and_empties_them) {
    struct fake *fake = fake_create(FAKE_VM86);

    for (unsigned i = 0; i < CPU_SEGMENTS; i++)
        fake->cpu.segment[i].selector = (uint16_t)(0x100 + i);
    fake_gate(fake, 0x30, SEL_CODE0, FAKE_HANDLER, INTERRUPT_GATE);
    ck_assert_int_eq(cpu_deliver_interrupt(&fake->cpu, 0x30), CPU_JUMP);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK0 - 36);
    ck_assert_uint_eq(fake_stack(fake, 1, 4), 0x100 + CPU_CS);
    ck_assert_uint_eq(fake_stack(fake, 2, 4), FLAG_FIXED | FLAG_IF | FLAG_VM);
    ck_assert_uint_eq(fake_stack(fake, 4, 4), 0x100 + CPU_SS);
    ck_assert_uint_eq(fake_stack(fake, 5, 4), 0x100 + CPU_ES);
    ck_assert_uint_eq(fake_stack(fake, 6, 4), 0x100 + CPU_DS);
    ck_assert_uint_eq(fake_stack(fake, 7, 4), 0x100 + CPU_FS);
    ck_assert_uint_eq(fake_stack(fake, 8, 4), 0x100 + CPU_GS);
    ck_assert_uint_eq(fake->cpu.hot.rflags, FLAG_FIXED);
    ck_assert_uint_eq(fake->cpu.cpl, 0);
    ck_assert(fake->cpu.segment[CPU_DS].attributes & SEGMENT_UNUSABLE);
    ck_assert_uint_eq(fake->cpu.segment[CPU_GS].selector, 0);
    free(fake);
}
END_TEST

START_TEST(handler_of_vm86_must_be_of_level_0) {
    struct fake *fake = fake_create(FAKE_VM86);

    fake->cpu.hot.rflags |= FLAG_IOPL;
    fake_gate(fake, 0x30, SEL_CODE1 & ~3, FAKE_HANDLER, INTERRUPT_GATE | USER);
    assert_gate_fault(fake, int_n(fake, 0x30), VECTOR_GP, SEL_CODE1 & ~3);
    fake_gate(fake, 0x30, SEL_CONFORMING0, FAKE_HANDLER, INTERRUPT_GATE | USER);
    assert_gate_fault(fake, int_n(fake, 0x30), VECTOR_GP, SEL_CONFORMING0);
    free(fake);
}
END_TEST

/* ---- Long mode ---- */

START_TEST(long_gate_aligns_the_stack_and_always_pushes_ss) {
    struct fake *fake = fake_create(FAKE_LONG0);

    cpu_rsp(&fake->cpu) = FAKE_STACK0 - 7;
    fake_gate(fake, 0x30, SEL_LONG0, FAKE_HANDLER, INTERRUPT_GATE);
    ck_assert_int_eq(int_n(fake, 0x30), CPU_JUMP);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK0 - 16 - 40);
    ck_assert_uint_eq(fake_stack(fake, 0, 8), FAKE_CODE + 2);
    ck_assert_uint_eq(fake_stack(fake, 1, 8), SEL_LONG0);
    ck_assert_uint_eq(fake_stack(fake, 2, 8), FLAG_FIXED | FLAG_IF);
    ck_assert_uint_eq(fake_stack(fake, 3, 8), FAKE_STACK0 - 7);
    ck_assert_uint_eq(fake_stack(fake, 4, 8), SEL_DATA0);
    ck_assert_uint_eq(fake->cpu.segment[CPU_SS].selector, SEL_DATA0);
    ck_assert_uint_eq(fake->mode_changes, 1);
    free(fake);
}
END_TEST

START_TEST(long_gate_to_level_0_loads_a_null_stack_segment) {
    struct fake *fake = fake_create(FAKE_LONG3);

    fake_gate(fake, 0x30, SEL_LONG0, FAKE_HANDLER, INTERRUPT_GATE | USER);
    ck_assert_int_eq(int_n(fake, 0x30), CPU_JUMP);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK0 - 40);
    ck_assert_uint_eq(fake->cpu.segment[CPU_SS].selector, 0);
    ck_assert(fake->cpu.segment[CPU_SS].attributes & SEGMENT_UNUSABLE);
    ck_assert_uint_eq(fake->cpu.cpl, 0);
    ck_assert_uint_eq(fake_stack(fake, 3, 8), FAKE_STACK3);
    ck_assert_uint_eq(fake_stack(fake, 4, 8), SEL_DATA3);
    free(fake);
}
END_TEST

START_TEST(compatibility_mode_is_left_for_the_64_bit_handler) {
    struct fake *fake = fake_create(FAKE_COMPAT3);

    fake_gate(fake, 0x30, SEL_LONG0, FAKE_HANDLER, INTERRUPT_GATE | USER);
    ck_assert_int_eq(int_n(fake, 0x30), CPU_JUMP);
    ck_assert(cpu_is_64bit(&fake->cpu));
    ck_assert_uint_eq(fake_stack(fake, 1, 8), SEL_CODE3);
    free(fake);
}
END_TEST

START_TEST(ist_is_taken_at_the_same_level_too) {
    struct fake *fake = fake_create(FAKE_LONG0);

    fake_gate(fake, 0x30, SEL_LONG0, FAKE_HANDLER, INTERRUPT_GATE);
    fake_write(fake, FAKE_IDT + 0x30 * 16 + 4, 1, 1);
    ck_assert_int_eq(int_n(fake, 0x30), CPU_JUMP);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_IST - 40);
    ck_assert_uint_eq(fake_stack(fake, 3, 8), FAKE_STACK0);
    free(fake);
}
END_TEST

START_TEST(ist_behind_the_tss_limit_is_ts) {
    struct fake *fake = fake_create(FAKE_LONG0);

    fake_gate(fake, 0x30, SEL_LONG0, FAKE_HANDLER, INTERRUPT_GATE);
    fake_write(fake, FAKE_IDT + 0x30 * 16 + 4, 7, 1);
    fake->cpu.tr.limit = 0x5a;
    assert_gate_fault(fake, int_n(fake, 0x30), VECTOR_TS, SEL_TSS);
    free(fake);
}
END_TEST

START_TEST(long_mode_knows_no_task_gates_and_no_16_bit_gates) {
    struct fake *fake = fake_create(FAKE_LONG0);

    fake_gate(fake, 0x30, SEL_TSS2, 0, TASK_GATE);
    assert_gate_fault(fake, int_n(fake, 0x30), VECTOR_GP, 0x182);
    fake_gate(fake, 0x30, SEL_LONG0, 0, GATE16);
    assert_gate_fault(fake, int_n(fake, 0x30), VECTOR_GP, 0x182);
    free(fake);
}
END_TEST

START_TEST(long_gate_must_name_64_bit_code) {
    struct fake *fake = fake_create(FAKE_LONG0);

    fake_gate(fake, 0x30, SEL_CODE0, FAKE_HANDLER, INTERRUPT_GATE);
    assert_gate_fault(fake, int_n(fake, 0x30), VECTOR_GP, SEL_CODE0);
    free(fake);
}
END_TEST

START_TEST(non_canonical_targets_are_refused) {
    struct fake *fake = fake_create(FAKE_LONG3);

    fake_gate(fake, 0x30, SEL_LONG0, 0x800000000000, INTERRUPT_GATE | USER);
    assert_gate_fault(fake, int_n(fake, 0x30), VECTOR_GP, 0);
    fake_gate(fake, 0x30, SEL_LONG0, FAKE_HANDLER, INTERRUPT_GATE | USER);
    fake_write(fake, FAKE_TSS + 4, 0x800000000100, 8);
    assert_gate_fault(fake, int_n(fake, 0x30), VECTOR_SS, 0);
    free(fake);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("gate");

    tcase_add_test(tests, interrupt_gate_of_the_same_level_pushes_three_words_and_clears_if);
    tcase_add_test(tests, trap_gate_keeps_if);
    tcase_add_test(tests, gate_to_inner_level_switches_to_the_stack_of_the_tss);
    tcase_add_test(tests, gate_of_16_bits_pushes_words_and_takes_a_16_bit_offset);
    tcase_add_test(tests, stack_of_16_bit_tss_is_found);
    tcase_add_test(tests, conforming_handler_stays_at_the_level);
    tcase_add_loop_test(tests, each_broken_gate_has_its_error_code, 0, sizeof broken_gates / sizeof broken_gates[0]);
    tcase_add_test(tests, vector_outside_the_idt_is_gp_with_the_idt_bit);
    tcase_add_test(tests, code_of_an_outer_level_is_no_handler);
    tcase_add_test(tests, page_fault_of_the_inner_stack_leaves_the_registers);
    tcase_add_test(tests, inner_stack_without_room_is_ss_with_its_selector);
    tcase_add_test(tests, handler_beyond_the_code_limit_is_gp_0);
    tcase_add_test(tests, accessed_bit_of_the_handlers_segment_is_set_in_memory);
    tcase_add_test(tests, interrupt_of_vm86_pushes_the_data_segments_and_empties_them);
    tcase_add_test(tests, handler_of_vm86_must_be_of_level_0);
    tcase_add_test(tests, long_gate_aligns_the_stack_and_always_pushes_ss);
    tcase_add_test(tests, long_gate_to_level_0_loads_a_null_stack_segment);
    tcase_add_test(tests, compatibility_mode_is_left_for_the_64_bit_handler);
    tcase_add_test(tests, ist_is_taken_at_the_same_level_too);
    tcase_add_test(tests, ist_behind_the_tss_limit_is_ts);
    tcase_add_test(tests, long_mode_knows_no_task_gates_and_no_16_bit_gates);
    tcase_add_test(tests, long_gate_must_name_64_bit_code);
    tcase_add_test(tests, non_canonical_targets_are_refused);
    return fake_run(tests);
}
