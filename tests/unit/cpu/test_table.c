/* Descriptor-table registers and the instructions that ask for rights: cpu/table.c, cpu/rights.c. */
#include <check.h>
#include <stdlib.h>

#include "fake_memory.h"

enum { AT = 0x7000 };

static struct cpu_op memory_op(unsigned size) {
    struct cpu_op op = fake_op(size);

    op.displacement = AT;
    return op;
}

/* An instruction on the selector in AX, with the result in EDX. */
static struct cpu_op selector_op(struct fake *fake, uint16_t selector) {
    struct cpu_op op = fake_op(4);

    op.rm = CPU_RAX;
    op.reg = CPU_RDX;
    fake->cpu.hot.gpr[CPU_RAX] = selector;
    return op;
}

START_TEST(lgdt_takes_24_32_or_64_bits_of_base) {
    struct fake *fake = fake_create(FAKE_RING0);
    struct cpu_op op = memory_op(2);

    fake_write(fake, AT, 0x9abcdef01234, 8);
    ck_assert_int_eq(cpu_op_lgdt(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_eq(fake->cpu.gdtr.limit, 0x1234);
    ck_assert_uint_eq(fake->cpu.gdtr.base, 0xbcdef0);
    op.size = 4;
    ck_assert_int_eq(cpu_op_lidt(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_eq(fake->cpu.idtr.base, 0x9abcdef0);
    free(fake);

    fake = fake_create(FAKE_LONG0);
    fake_write(fake, AT + 2, 0xffff800000001000, 8);
    ck_assert_int_eq(cpu_op_lidt(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_eq(fake->cpu.idtr.base, 0xffff800000001000);
    free(fake);
}
END_TEST

START_TEST(non_canonical_table_is_gp_and_changes_nothing) {
    struct fake *fake = fake_create(FAKE_LONG0);
    const struct cpu_op op = memory_op(8);

    fake_write(fake, AT, 0x1111, 2);
    fake_write(fake, AT + 2, 0x800000001000, 8);
    ck_assert_int_eq(fake_fault(fake, cpu_op_lgdt(&fake->cpu, &op)), VECTOR_GP);
    ck_assert_uint_eq(fake->cpu.gdtr.limit, FAKE_GDT_LIMIT);
    ck_assert_uint_eq(fake->cpu.gdtr.base, FAKE_GDT);
    free(fake);
}
END_TEST

START_TEST(loads_of_tables_are_privileged) {
    struct fake *fake = fake_create(FAKE_RING3);
    const struct cpu_op op = memory_op(4);
    const struct cpu_op ax = selector_op(fake, SEL_TSS2);

    ck_assert_int_eq(fake_fault(fake, cpu_op_lgdt(&fake->cpu, &op)), VECTOR_GP);
    ck_assert_int_eq(fake_fault(fake, cpu_op_lidt(&fake->cpu, &op)), VECTOR_GP);
    ck_assert_int_eq(fake_fault(fake, cpu_op_ltr(&fake->cpu, &ax)), VECTOR_GP);
    ck_assert_int_eq(fake_fault(fake, cpu_op_lldt(&fake->cpu, &ax)), VECTOR_GP);
    free(fake);
}
END_TEST

START_TEST(stores_are_refused_to_programs_under_umip) {
    struct fake *fake = fake_create(FAKE_LONG3);
    const struct cpu_op op = memory_op(8);

    ck_assert_int_eq(cpu_op_sidt(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_eq(fake_read(fake, AT, 2), 0xfff);
    ck_assert_uint_eq(fake_read(fake, AT + 2, 8), FAKE_IDT);
    ck_assert_int_eq(cpu_op_str(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_eq(fake_read(fake, AT, 2), SEL_TSS);
    fake->cpu.cr4 = CR4_UMIP;
    ck_assert_int_eq(fake_fault(fake, cpu_op_sgdt(&fake->cpu, &op)), VECTOR_GP);
    ck_assert_int_eq(fake_fault(fake, cpu_op_sidt(&fake->cpu, &op)), VECTOR_GP);
    ck_assert_int_eq(fake_fault(fake, cpu_op_sldt(&fake->cpu, &op)), VECTOR_GP);
    ck_assert_int_eq(fake_fault(fake, cpu_op_str(&fake->cpu, &op)), VECTOR_GP);
    free(fake);
}
END_TEST

START_TEST(selector_instructions_are_ud_without_selectors) {
    static cpu_op_function *const functions[] = {cpu_op_lldt, cpu_op_ltr,  cpu_op_sldt, cpu_op_str, cpu_op_lar,
                                                 cpu_op_lsl,  cpu_op_verr, cpu_op_verw, cpu_op_arpl};
    struct fake *real = fake_create(FAKE_REAL), *vm86 = fake_create(FAKE_VM86);
    const struct cpu_op op = memory_op(2);

    for (unsigned i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        ck_assert_int_eq(fake_fault(real, functions[i](&real->cpu, &op)), VECTOR_UD);
        ck_assert_int_eq(fake_fault(vm86, functions[i](&vm86->cpu, &op)), VECTOR_UD);
    }
    free(real);
    free(vm86);
}
END_TEST

START_TEST(ltr_marks_the_tss_busy) {
    struct fake *fake = fake_create(FAKE_RING0);
    const struct cpu_op op = selector_op(fake, SEL_TSS2);

    ck_assert_int_eq(cpu_op_ltr(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_eq(fake_read(fake, FAKE_GDT + SEL_TSS2 + 5, 1), 0x8b);
    ck_assert_uint_eq(fake->cpu.tr.attributes, 0x8b);
    ck_assert_int_eq(fake_fault(fake, cpu_op_ltr(&fake->cpu, &op)), VECTOR_GP);
    ck_assert_uint_eq(fake->cpu.exception.error_code, SEL_TSS2);
    free(fake);
}
END_TEST

START_TEST(long_ltr_takes_a_64_bit_base) {
    struct fake *fake = fake_create(FAKE_LONG0);
    const struct cpu_op op = selector_op(fake, SEL_TSS2);

    fake_write(fake, FAKE_GDT + SEL_TSS2 + 8, 0xffff8000, 4);
    ck_assert_int_eq(cpu_op_ltr(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_eq(fake->cpu.tr.base, 0xffff800000000000 | FAKE_TSS2);
    free(fake);
}
END_TEST

struct bad_system {
    cpu_op_function *function;
    uint16_t selector;
    int vector;
    uint32_t error_code;
};

static const struct bad_system bad_systems[] = {
    {cpu_op_ltr, 0, VECTOR_GP, 0},
    {cpu_op_ltr, SEL_TSS2 | 4, VECTOR_GP, SEL_TSS2 | 4},
    {cpu_op_ltr, 0xff8, VECTOR_GP, 0xff8},
    {cpu_op_ltr, SEL_LDT, VECTOR_GP, SEL_LDT},
    {cpu_op_ltr, SEL_SPARE, VECTOR_NP, SEL_SPARE},
    {cpu_op_lldt, SEL_TSS2, VECTOR_GP, SEL_TSS2},
    {cpu_op_lldt, 0xff8, VECTOR_GP, 0xff8},
    {cpu_op_lldt, SEL_SPARE + 8, VECTOR_NP, SEL_SPARE + 8},
};

START_TEST(each_bad_system_selector_has_its_error_code) {
    const struct bad_system *bad = &bad_systems[_i];
    struct fake *fake = fake_create(FAKE_RING0);
    const struct cpu_op op = selector_op(fake, bad->selector);

    fake_descriptor(fake, SEL_SPARE, FAKE_TSS2, 0x67, 0x09, 0);
    fake_descriptor(fake, SEL_SPARE + 8, FAKE_LDT, 0x67, 0x02, 0);
    ck_assert_int_eq(fake_fault(fake, bad->function(&fake->cpu, &op)), bad->vector);
    ck_assert_uint_eq(fake->cpu.exception.error_code, bad->error_code);
    ck_assert_uint_eq(fake->cpu.tr.selector, SEL_TSS);
    ck_assert_uint_eq(fake->cpu.ldtr.selector, SEL_LDT);
    free(fake);
}
END_TEST

START_TEST(lldt_of_a_null_selector_takes_the_ldt_away) {
    struct fake *fake = fake_create(FAKE_RING0);
    const struct cpu_op op = selector_op(fake, 0);

    ck_assert_int_eq(cpu_op_lldt(&fake->cpu, &op), CPU_NEXT);
    ck_assert(fake->cpu.ldtr.attributes & SEGMENT_UNUSABLE);
    free(fake);
}
END_TEST

/* ---- cpu/rights.c ---- */

struct question {
    cpu_op_function *function;
    enum fake_mode mode;
    uint16_t selector;
    bool is_yes;
    uint64_t edx; /* 0: not looked at */
};

static const struct question questions[] = {
    {cpu_op_lar, FAKE_RING0, SEL_CODE0, true, 0xcf9b00},
    {cpu_op_lar, FAKE_RING3, SEL_CODE0, false, 0x55},
    {cpu_op_lar, FAKE_RING3, SEL_CONFORMING0 | 3, true, 0xcf9f00},
    {cpu_op_lar, FAKE_RING0, SEL_DATA3, true, 0xcff300},
    {cpu_op_lar, FAKE_RING0, SEL_DATA0 | 3, false, 0x55},
    {cpu_op_lar, FAKE_RING0, 0, false, 0x55},
    {cpu_op_lar, FAKE_RING0, 0xff8, false, 0x55},
    {cpu_op_lar, FAKE_RING0, SEL_TSS16, true, 0x8100},
    {cpu_op_lar, FAKE_LONG0, SEL_TSS16, false, 0x55},
    {cpu_op_lar, FAKE_LONG0, SEL_TSS, true, 0x8b00},
    {cpu_op_lsl, FAKE_RING0, SEL_CODE16, true, 0xffff},
    {cpu_op_lsl, FAKE_RING0, SEL_CODE0, true, 0xffffffff},
    {cpu_op_lsl, FAKE_RING0, SEL_LDT, true, 0xff},
    {cpu_op_lsl, FAKE_RING0, SEL_SPARE, false, 0x55}, /* a call gate has no limit */
    {cpu_op_lar, FAKE_RING0, SEL_SPARE, true, 0x18c00},
    {cpu_op_verr, FAKE_RING0, SEL_CODE0, true, 0},
    {cpu_op_verr, FAKE_RING3, SEL_DATA0, false, 0},
    {cpu_op_verr, FAKE_RING0, SEL_TSS, false, 0},
    {cpu_op_verr, FAKE_RING0, SEL_SPARE + 8, false, 0}, /* execute-only */
    {cpu_op_verw, FAKE_RING0, SEL_DATA0, true, 0},
    {cpu_op_verw, FAKE_RING0, SEL_READ_ONLY0, false, 0},
    {cpu_op_verw, FAKE_RING0, SEL_CODE0, false, 0},
    {cpu_op_verw, FAKE_RING3, SEL_DATA3, true, 0},
    {cpu_op_verw, FAKE_RING3, 0, false, 0},
};

START_TEST(each_question_is_answered_in_zf) {
    const struct question *question = &questions[_i];
    struct fake *fake = fake_create(question->mode);
    const struct cpu_op op = selector_op(fake, question->selector);

    fake_call_gate(fake, SEL_SPARE, SEL_CODE0, FAKE_HANDLER, 0x8c, 0);
    fake_descriptor(fake, SEL_SPARE + 8, 0, 0xfffff, 0x99, 0xc);
    fake->cpu.hot.gpr[CPU_RDX] = 0x55;
    fake->cpu.hot.rflags |= question->is_yes ? 0 : FLAG_ZF;
    ck_assert_int_eq(question->function(&fake->cpu, &op), CPU_NEXT);
    ck_assert_int_eq((fake->cpu.hot.rflags & FLAG_ZF) != 0, question->is_yes);
    if (question->edx)
        ck_assert_uint_eq(fake->cpu.hot.gpr[CPU_RDX], question->edx);
    free(fake);
}
END_TEST

START_TEST(arpl_raises_the_rpl) {
    struct fake *fake = fake_create(FAKE_RING3);
    const struct cpu_op op = selector_op(fake, SEL_DATA0);

    fake->cpu.hot.gpr[CPU_RDX] = 3;
    ck_assert_int_eq(cpu_op_arpl(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_eq(fake->cpu.hot.gpr[CPU_RAX], SEL_DATA0 | 3);
    ck_assert(fake->cpu.hot.rflags & FLAG_ZF);
    ck_assert_int_eq(cpu_op_arpl(&fake->cpu, &op), CPU_NEXT);
    ck_assert(!(fake->cpu.hot.rflags & FLAG_ZF));
    free(fake);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("table");

    tcase_add_test(tests, lgdt_takes_24_32_or_64_bits_of_base);
    tcase_add_test(tests, non_canonical_table_is_gp_and_changes_nothing);
    tcase_add_test(tests, loads_of_tables_are_privileged);
    tcase_add_test(tests, stores_are_refused_to_programs_under_umip);
    tcase_add_test(tests, selector_instructions_are_ud_without_selectors);
    tcase_add_test(tests, ltr_marks_the_tss_busy);
    tcase_add_test(tests, long_ltr_takes_a_64_bit_base);
    tcase_add_loop_test(tests, each_bad_system_selector_has_its_error_code, 0,
                        sizeof bad_systems / sizeof bad_systems[0]);
    tcase_add_test(tests, lldt_of_a_null_selector_takes_the_ldt_away);
    tcase_add_loop_test(tests, each_question_is_answered_in_zf, 0, sizeof questions / sizeof questions[0]);
    tcase_add_test(tests, arpl_raises_the_rpl);
    return fake_run(tests);
}
