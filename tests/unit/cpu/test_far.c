/* Far CALL, JMP and RET: cpu/far.c. */
#include <check.h>
#include <stdlib.h>

#include "fake_memory.h"

enum { CALL_GATE = 0x8c, CALL_GATE16 = 0x84, USER = 0x60 };

static struct cpu_op direct(unsigned size, uint16_t selector, uint64_t offset) {
    struct cpu_op op = fake_op(size);

    op.opcode = 0x9a;
    op.immediate = offset;
    op.immediate2 = selector;
    return op;
}

static enum cpu_result call(struct fake *fake, unsigned size, uint16_t selector, uint64_t offset) {
    const struct cpu_op op = direct(size, selector, offset);

    return cpu_op_far_call(&fake->cpu, &op);
}

static enum cpu_result jmp(struct fake *fake, unsigned size, uint16_t selector, uint64_t offset) {
    const struct cpu_op op = direct(size, selector, offset);

    return cpu_op_far_jmp(&fake->cpu, &op);
}

static enum cpu_result ret(struct fake *fake, unsigned size, unsigned release) {
    struct cpu_op op = fake_op(size);

    op.immediate = release;
    return cpu_op_far_ret(&fake->cpu, &op);
}

static void assert_far_fault(struct fake *fake, enum cpu_result result, int vector, uint32_t error_code) {
    ck_assert_int_eq(fake_fault(fake, result), vector);
    ck_assert_uint_eq(fake->cpu.exception.error_code, error_code);
    ck_assert_uint_eq(fake->mode_changes, 0);
    ck_assert_uint_eq(fake->cpu.hot.rip, fake->cpu.cpl == 3 ? FAKE_USER : FAKE_CODE);
}

static void push(struct fake *fake, uint64_t value, unsigned size) {
    cpu_rsp(&fake->cpu) -= size;
    fake_write(fake, cpu_rsp(&fake->cpu), value, size);
}

/* ---- Code segments ---- */

START_TEST(call_pushes_cs_and_the_next_instruction) {
    struct fake *fake = fake_create(FAKE_RING0);

    ck_assert_int_eq(call(fake, 4, SEL_CODE0, FAKE_HANDLER), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rip, FAKE_HANDLER);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK0 - 8);
    ck_assert_uint_eq(fake_stack(fake, 0, 4), FAKE_CODE + 2);
    ck_assert_uint_eq(fake_stack(fake, 1, 4), SEL_CODE0);
    ck_assert_uint_eq(fake->mode_changes, 0); /* the same segment again */
    free(fake);
}
END_TEST

START_TEST(operand_of_16_bits_cuts_the_offset_and_the_push) {
    struct fake *fake = fake_create(FAKE_RING0);

    ck_assert_int_eq(call(fake, 2, SEL_CODE0, 0x7fff1234), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rip, 0x1234);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK0 - 4);
    free(fake);
}
END_TEST

START_TEST(conforming_code_keeps_cpl) {
    struct fake *fake = fake_create(FAKE_RING3);

    ck_assert_int_eq(jmp(fake, 4, SEL_CONFORMING0, FAKE_HANDLER), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.cpl, 3);
    ck_assert_uint_eq(fake->cpu.segment[CPU_CS].selector, SEL_CONFORMING0 | 3);
    ck_assert_uint_eq(fake->mode_changes, 1); /* another type */
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK3);
    free(fake);
}
END_TEST

START_TEST(memory_operand_has_offset_and_selector) {
    struct fake *fake = fake_create(FAKE_LONG0);
    struct cpu_op op = fake_op(8);

    op.opcode = 0xff;
    op.displacement = 0x7000;
    fake_write(fake, 0x7000, 0x7f0000001234, 8);
    fake_write(fake, 0x7008, SEL_LONG0, 2);
    ck_assert_int_eq(cpu_op_far_jmp(&fake->cpu, &op), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rip, 0x7f0000001234);
    free(fake);
}
END_TEST

START_TEST(long_mode_jumps_to_compatibility_mode) {
    struct fake *fake = fake_create(FAKE_LONG0);

    ck_assert_int_eq(jmp(fake, 4, SEL_CODE0, FAKE_HANDLER), CPU_JUMP);
    ck_assert(!cpu_is_64bit(&fake->cpu));
    free(fake);
}
END_TEST

struct bad_jump {
    const char *what;
    enum fake_mode mode;
    uint16_t selector;
    uint64_t offset;
    int vector;
    uint32_t error_code;
};

static const struct bad_jump bad_jumps[] = {
    {"null", FAKE_RING0, 3, 0, VECTOR_GP, 0},
    {"outside the GDT", FAKE_RING0, 0xff8, 0, VECTOR_GP, 0xff8},
    {"data", FAKE_RING0, SEL_DATA0, 0, VECTOR_GP, SEL_DATA0},
    {"RPL above CPL", FAKE_RING0, SEL_CODE0 | 1, 0, VECTOR_GP, SEL_CODE0},
    {"DPL below CPL", FAKE_RING3, SEL_CODE0, 0, VECTOR_GP, SEL_CODE0},
    {"DPL above CPL", FAKE_RING0, SEL_CODE3 & ~3, 0, VECTOR_GP, SEL_CODE3 & ~3},
    {"not present", FAKE_RING0, SEL_ABSENT_CODE0, 0, VECTOR_NP, SEL_ABSENT_CODE0},
    {"beyond the limit", FAKE_RING0, SEL_CODE16, 0x10000, VECTOR_GP, 0},
    {"LDT descriptor", FAKE_RING0, SEL_LDT, 0, VECTOR_GP, SEL_LDT},
    {"busy TSS", FAKE_RING0, SEL_TSS, 0, VECTOR_GP, SEL_TSS},
    {"TSS of level 0 from level 3", FAKE_RING3, SEL_TSS2, 0, VECTOR_GP, SEL_TSS2},
    {"TSS in long mode", FAKE_LONG0, SEL_TSS2, 0, VECTOR_GP, SEL_TSS2},
};

START_TEST(each_bad_target_has_its_error_code) {
    const struct bad_jump *bad = &bad_jumps[_i];
    struct fake *fake = fake_create(bad->mode);

    assert_far_fault(fake, jmp(fake, 4, bad->selector, bad->offset), bad->vector, bad->error_code);
    assert_far_fault(fake, call(fake, 4, bad->selector, bad->offset), bad->vector, bad->error_code);
    free(fake);
}
END_TEST

START_TEST(calls_without_room_on_the_stack_fault_before_their_target_does) {
    static const enum fake_mode modes[] = {FAKE_RING0, FAKE_REAL};
    for (unsigned i = 0; i < 2; i++) {
        struct fake *fake = fake_create(modes[i]);

        fake->cpu.segment[CPU_CS].limit = 0xffff;
        fake->cpu.segment[CPU_SS].limit = (uint32_t)cpu_rsp(&fake->cpu) - 2;
        ck_assert_int_eq(fake_fault(fake, call(fake, 4, SEL_CODE16, 0x10000)), VECTOR_SS);
        ck_assert_int_eq(fake_fault(fake, jmp(fake, 4, SEL_CODE16, 0x10000)), VECTOR_GP);
        free(fake);
    }
}
END_TEST

/* ---- Call gates ---- */

START_TEST(call_gate_copies_parameters_to_the_inner_stack) {
    struct fake *fake = fake_create(FAKE_RING3);

    fake_call_gate(fake, SEL_SPARE, SEL_CODE0, FAKE_HANDLER, CALL_GATE | USER, 2);
    push(fake, 0x2222, 4);
    push(fake, 0x1111, 4);
    ck_assert_int_eq(call(fake, 4, SEL_SPARE | 3, 0xdead), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rip, FAKE_HANDLER);
    ck_assert_uint_eq(fake->cpu.cpl, 0);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK0 - 24);
    ck_assert_uint_eq(fake_stack(fake, 0, 4), FAKE_USER + 2);
    ck_assert_uint_eq(fake_stack(fake, 1, 4), SEL_CODE3);
    ck_assert_uint_eq(fake_stack(fake, 2, 4), 0x1111);
    ck_assert_uint_eq(fake_stack(fake, 3, 4), 0x2222);
    ck_assert_uint_eq(fake_stack(fake, 4, 4), FAKE_STACK3 - 8);
    ck_assert_uint_eq(fake_stack(fake, 5, 4), SEL_DATA3);
    free(fake);
}
END_TEST

START_TEST(call_through_a_gate_and_back_restores_the_caller) {
    struct fake *fake = fake_create(FAKE_RING3);

    fake_call_gate(fake, SEL_SPARE, SEL_CODE0, FAKE_HANDLER, CALL_GATE16 | USER, 3);
    ck_assert_int_eq(call(fake, 4, SEL_SPARE | 3, 0), CPU_JUMP);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK0 - 14);
    fake->cpu.segment[CPU_ES] = fake->cpu.segment[CPU_SS];
    ck_assert_int_eq(ret(fake, 2, 6), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.cpl, 3);
    ck_assert_uint_eq(fake->cpu.hot.rip, (FAKE_USER + 2) & 0xffff);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK3 + 6);
    ck_assert_uint_eq(fake->cpu.segment[CPU_SS].selector, SEL_DATA3);
    ck_assert(fake->cpu.segment[CPU_ES].attributes & SEGMENT_UNUSABLE);
    ck_assert_uint_eq(fake->cpu.segment[CPU_DS].selector, SEL_DATA3);
    free(fake);
}
END_TEST

START_TEST(call_gate_of_the_same_level_pushes_by_its_own_size) {
    struct fake *fake = fake_create(FAKE_RING0);

    fake_call_gate(fake, SEL_SPARE, SEL_CODE0, 0x11234, CALL_GATE16, 5);
    ck_assert_int_eq(call(fake, 4, SEL_SPARE, 0), CPU_JUMP);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK0 - 4);
    ck_assert_uint_eq(fake->cpu.hot.rip, 0x1234);
    free(fake);
}
END_TEST

START_TEST(jump_through_a_gate_does_not_change_the_level) {
    struct fake *fake = fake_create(FAKE_RING3);

    fake_call_gate(fake, SEL_SPARE, SEL_CODE0, FAKE_HANDLER, CALL_GATE | USER, 0);
    assert_far_fault(fake, jmp(fake, 4, SEL_SPARE | 3, 0), VECTOR_GP, SEL_CODE0);
    fake_call_gate(fake, SEL_SPARE, SEL_CONFORMING0, FAKE_HANDLER, CALL_GATE | USER, 0);
    ck_assert_int_eq(jmp(fake, 4, SEL_SPARE | 3, 0), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.cpl, 3);
    free(fake);
}
END_TEST

struct bad_gate {
    const char *what;
    uint16_t selector;
    unsigned access;
    uint16_t at;
    int vector;
    uint32_t error_code;
};

static const struct bad_gate bad_gates[] = {
    {"DPL below CPL", SEL_CODE0, CALL_GATE, SEL_SPARE, VECTOR_GP, SEL_SPARE},
    {"DPL below RPL", SEL_CODE0, CALL_GATE | 0x40, SEL_SPARE | 3, VECTOR_GP, SEL_SPARE},
    {"not present", SEL_CODE0, (CALL_GATE | USER) & 0x7f, SEL_SPARE, VECTOR_NP, SEL_SPARE},
    {"null code", 0, CALL_GATE | USER, SEL_SPARE, VECTOR_GP, 0},
    {"code outside the GDT", 0xff8, CALL_GATE | USER, SEL_SPARE, VECTOR_GP, 0xff8},
    {"data", SEL_DATA0, CALL_GATE | USER, SEL_SPARE, VECTOR_GP, SEL_DATA0},
    {"code not present", SEL_ABSENT_CODE0, CALL_GATE | USER, SEL_SPARE, VECTOR_NP, SEL_ABSENT_CODE0},
};

START_TEST(each_bad_call_gate_has_its_error_code) {
    const struct bad_gate *bad = &bad_gates[_i];
    struct fake *fake = fake_create(FAKE_RING3);

    fake_call_gate(fake, SEL_SPARE, bad->selector, FAKE_HANDLER, bad->access, 0);
    assert_far_fault(fake, call(fake, 4, bad->at, 0), bad->vector, bad->error_code);
    free(fake);
}
END_TEST

START_TEST(long_call_gate_switches_to_rsp0_without_alignment) {
    struct fake *fake = fake_create(FAKE_LONG3);

    fake_write(fake, FAKE_TSS + 4, FAKE_STACK0 - 8, 8);
    fake_call_gate(fake, SEL_SPARE, SEL_LONG0, 0xffff800000010000, CALL_GATE | USER, 0);
    ck_assert_int_eq(call(fake, 4, SEL_SPARE | 3, 0), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rip, 0xffff800000010000);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK0 - 8 - 32);
    ck_assert_uint_eq(fake_stack(fake, 3, 8), SEL_DATA3);
    ck_assert(fake->cpu.segment[CPU_SS].attributes & SEGMENT_UNUSABLE);
    free(fake);
}
END_TEST

START_TEST(long_call_gate_needs_64_bit_code_and_a_clean_upper_half) {
    struct fake *fake = fake_create(FAKE_LONG3);

    fake_call_gate(fake, SEL_SPARE, SEL_CODE0, FAKE_HANDLER, CALL_GATE | USER, 0);
    assert_far_fault(fake, call(fake, 4, SEL_SPARE | 3, 0), VECTOR_GP, SEL_CODE0);
    fake_call_gate(fake, SEL_SPARE, SEL_LONG0, FAKE_HANDLER, CALL_GATE | USER, 0);
    fake_write(fake, FAKE_GDT + SEL_SPARE + 13, 1, 1);
    assert_far_fault(fake, call(fake, 4, SEL_SPARE | 3, 0), VECTOR_GP, SEL_SPARE);
    free(fake);
}
END_TEST

/* ---- RET ---- */

START_TEST(return_releases_parameters_on_both_stacks) {
    struct fake *fake = fake_create(FAKE_RING0);

    push(fake, SEL_DATA3, 4);
    push(fake, FAKE_STACK3, 4);
    push(fake, 0, 4);
    push(fake, 0, 4);
    push(fake, SEL_CODE3, 4);
    push(fake, FAKE_USER, 4);
    ck_assert_int_eq(ret(fake, 4, 8), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rip, FAKE_USER);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK3 + 8);
    free(fake);
}
END_TEST

START_TEST(return_of_the_same_level_releases_parameters) {
    struct fake *fake = fake_create(FAKE_LONG0);

    cpu_rsp(&fake->cpu) -= 16;
    push(fake, SEL_LONG0, 8);
    push(fake, FAKE_HANDLER, 8);
    ck_assert_int_eq(ret(fake, 8, 16), CPU_JUMP);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK0);
    free(fake);
}
END_TEST

START_TEST(return_to_an_inner_level_is_gp) {
    struct fake *fake = fake_create(FAKE_RING3);

    push(fake, SEL_CODE0, 4);
    push(fake, FAKE_CODE, 4);
    assert_far_fault(fake, ret(fake, 4, 0), VECTOR_GP, SEL_CODE0);
    free(fake);
}
END_TEST

/* ---- Real mode ---- */

START_TEST(real_call_and_return_keep_the_limit) {
    struct fake *fake = fake_create(FAKE_REAL);

    fake->cpu.segment[CPU_CS].limit = 0xffffffff;
    fake->cpu.segment[CPU_CS].selector = 0x10;
    ck_assert_int_eq(call(fake, 2, 0x1234, 0x5678), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.segment[CPU_CS].base, 0x12340);
    ck_assert_uint_eq(fake->cpu.segment[CPU_CS].limit, 0xffffffff);
    ck_assert_uint_eq(fake_stack(fake, 1, 2), 0x10);
    ck_assert_int_eq(ret(fake, 2, 0), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.segment[CPU_CS].selector, 0x10);
    ck_assert_uint_eq(fake->cpu.hot.rip, 0x502);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK0);
    free(fake);
}
END_TEST

START_TEST(vm86_jump_sets_base_and_rights) {
    struct fake *fake = fake_create(FAKE_VM86);

    ck_assert_int_eq(jmp(fake, 2, 0x1234, 0x5678), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.segment[CPU_CS].base, 0x12340);
    ck_assert_uint_eq(fake->cpu.segment[CPU_CS].attributes, 0xf3);
    ck_assert_int_eq(fake_fault(fake, jmp(fake, 4, 0x1234, 0x10000)), VECTOR_GP);
    free(fake);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("far");

    tcase_add_test(tests, call_pushes_cs_and_the_next_instruction);
    tcase_add_test(tests, operand_of_16_bits_cuts_the_offset_and_the_push);
    tcase_add_test(tests, conforming_code_keeps_cpl);
    tcase_add_test(tests, memory_operand_has_offset_and_selector);
    tcase_add_test(tests, long_mode_jumps_to_compatibility_mode);
    tcase_add_loop_test(tests, each_bad_target_has_its_error_code, 0, sizeof bad_jumps / sizeof bad_jumps[0]);
    tcase_add_test(tests, calls_without_room_on_the_stack_fault_before_their_target_does);
    tcase_add_test(tests, call_gate_copies_parameters_to_the_inner_stack);
    tcase_add_test(tests, call_through_a_gate_and_back_restores_the_caller);
    tcase_add_test(tests, call_gate_of_the_same_level_pushes_by_its_own_size);
    tcase_add_test(tests, jump_through_a_gate_does_not_change_the_level);
    tcase_add_loop_test(tests, each_bad_call_gate_has_its_error_code, 0, sizeof bad_gates / sizeof bad_gates[0]);
    tcase_add_test(tests, long_call_gate_switches_to_rsp0_without_alignment);
    tcase_add_test(tests, long_call_gate_needs_64_bit_code_and_a_clean_upper_half);
    tcase_add_test(tests, return_releases_parameters_on_both_stacks);
    tcase_add_test(tests, return_of_the_same_level_releases_parameters);
    tcase_add_test(tests, return_to_an_inner_level_is_gp);
    tcase_add_test(tests, real_call_and_return_keep_the_limit);
    tcase_add_test(tests, vm86_jump_sets_base_and_rights);
    return fake_run(tests);
}
