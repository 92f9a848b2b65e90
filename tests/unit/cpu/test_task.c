/* Hardware task switches: cpu/task.c through far jumps, interrupts and IRET. */
#include <check.h>
#include <stdlib.h>

#include "fake_memory.h"

enum { TASK_GATE = 0x85, BUSY = 2 };

/* A task in TSS2 that runs at FAKE_HANDLER. */
static void make_task(struct fake *fake, uint16_t code, uint16_t stack, uint16_t data) {
    static const unsigned data_fields[] = {0x48, 0x54, 0x58, 0x5c};

    fake_write(fake, FAKE_TSS2 + 0x1c, 0x3000, 4);
    fake_write(fake, FAKE_TSS2 + 0x20, FAKE_HANDLER, 4);
    fake_write(fake, FAKE_TSS2 + 0x24, FLAG_FIXED | FLAG_CF, 4);
    for (unsigned i = 0; i < 8; i++)
        fake_write(fake, FAKE_TSS2 + 0x28 + i * 4, i == 4 ? FAKE_STACK_TSS2 : 0x1000 + i, 4);
    for (unsigned i = 0; i < 4; i++)
        fake_write(fake, FAKE_TSS2 + data_fields[i], data, 2);
    fake_write(fake, FAKE_TSS2 + 0x4c, code, 2);
    fake_write(fake, FAKE_TSS2 + 0x50, stack, 2);
}

static enum cpu_result jmp(struct fake *fake, uint16_t selector) {
    struct cpu_op op = fake_op(4);

    op.opcode = 0xea;
    op.immediate2 = selector;
    return cpu_op_far_jmp(&fake->cpu, &op);
}

static enum cpu_result call(struct fake *fake, uint16_t selector) {
    struct cpu_op op = fake_op(4);

    op.opcode = 0x9a;
    op.immediate2 = selector;
    return cpu_op_far_call(&fake->cpu, &op);
}

static unsigned tss_type(const struct fake *fake, uint16_t selector) {
    return (unsigned)fake_read(fake, FAKE_GDT + selector + 5u, 1) & 0xf;
}

START_TEST(jump_saves_the_old_task_and_loads_the_new) {
    struct fake *fake = fake_create(FAKE_RING0);

    make_task(fake, SEL_CODE0, SEL_DATA0, SEL_DATA0);
    fake->cpu.hot.gpr[CPU_RBX] = 0xbbbb;
    fake->cpu.dr[7] = 0x455;
    ck_assert_int_eq(jmp(fake, SEL_TSS2), CPU_JUMP);
    ck_assert_uint_eq(fake_read(fake, FAKE_TSS + 0x20, 4), FAKE_CODE + 2);
    ck_assert_uint_eq(fake_read(fake, FAKE_TSS + 0x24, 4), FLAG_FIXED | FLAG_IF);
    ck_assert_uint_eq(fake_read(fake, FAKE_TSS + 0x34, 4), 0xbbbb);
    ck_assert_uint_eq(fake_read(fake, FAKE_TSS + 0x38, 4), FAKE_STACK0);
    ck_assert_uint_eq(fake_read(fake, FAKE_TSS + 0x4c, 2), SEL_CODE0);
    ck_assert_uint_eq(fake_read(fake, FAKE_TSS + 0x5c, 2), SEL_DATA0);
    ck_assert_uint_eq(tss_type(fake, SEL_TSS), 9);
    ck_assert_uint_eq(tss_type(fake, SEL_TSS2), 9 | BUSY);
    ck_assert_uint_eq(fake->cpu.tr.selector, SEL_TSS2);
    ck_assert_uint_eq(fake->cpu.tr.base, FAKE_TSS2);
    ck_assert_uint_eq(fake->cpu.tr.attributes & 0xf, 9 | BUSY);
    ck_assert_uint_eq(fake->cpu.hot.rip, FAKE_HANDLER);
    ck_assert_uint_eq(fake->cpu.hot.rflags, FLAG_FIXED | FLAG_CF);
    ck_assert_uint_eq(fake->cpu.hot.gpr[CPU_RDI], 0x1007);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK_TSS2);
    ck_assert(fake->cpu.cr0 & CR0_TS);
    ck_assert_uint_eq(fake->cpu.dr[7], 0x400);
    ck_assert_uint_eq(fake->cpu.cr3, 0); /* paging is off */
    ck_assert_uint_eq(fake_read(fake, FAKE_TSS2, 2), 0);
    free(fake);
}
END_TEST

START_TEST(call_nests_and_iret_returns) {
    struct fake *fake = fake_create(FAKE_RING0);
    const struct cpu_op op = fake_op(4);

    make_task(fake, SEL_CODE0, SEL_DATA0, SEL_DATA0);
    ck_assert_int_eq(call(fake, SEL_TSS2), CPU_JUMP);
    ck_assert_uint_eq(tss_type(fake, SEL_TSS), 9 | BUSY);
    ck_assert_uint_eq(tss_type(fake, SEL_TSS2), 9 | BUSY);
    ck_assert_uint_eq(fake_read(fake, FAKE_TSS2, 2), SEL_TSS);
    ck_assert(fake->cpu.hot.rflags & FLAG_NT);

    ck_assert_int_eq(cpu_op_iret(&fake->cpu, &op), CPU_JUMP);
    ck_assert_uint_eq(tss_type(fake, SEL_TSS2), 9);
    ck_assert_uint_eq(tss_type(fake, SEL_TSS), 9 | BUSY);
    ck_assert_uint_eq(fake->cpu.hot.rip, FAKE_CODE + 2);
    ck_assert_uint_eq(fake->cpu.hot.rflags, FLAG_FIXED | FLAG_IF);
    /* The task goes on behind its IRET next time, without NT. */
    ck_assert_uint_eq(fake_read(fake, FAKE_TSS2 + 0x20, 4), FAKE_HANDLER + 2);
    ck_assert_uint_eq(fake_read(fake, FAKE_TSS2 + 0x24, 4), FLAG_FIXED | FLAG_CF);
    free(fake);
}
END_TEST

START_TEST(task_gate_in_the_gdt_names_a_tss_of_any_level) {
    struct fake *fake = fake_create(FAKE_RING3);

    make_task(fake, SEL_CODE0, SEL_DATA0, SEL_DATA0);
    fake_call_gate(fake, SEL_SPARE, SEL_TSS2, 0, TASK_GATE | 0x60, 0);
    ck_assert_int_eq(jmp(fake, SEL_SPARE | 3), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.cpl, 0);
    ck_assert_uint_eq(fake->cpu.segment[CPU_SS].selector, SEL_DATA0);
    free(fake);
}
END_TEST

START_TEST(fault_through_a_task_gate_pushes_its_error_code_on_the_new_stack) {
    struct fake *fake = fake_create(FAKE_RING3);

    make_task(fake, SEL_CODE0, SEL_DATA0, SEL_DATA0);
    fake_gate(fake, VECTOR_PF, SEL_TSS2, 0, TASK_GATE);
    cpu_fault_page(&fake->cpu, 0x1234, 7);
    ck_assert_int_eq(cpu_deliver_exception(&fake->cpu), CPU_JUMP);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK_TSS2 - 4);
    ck_assert_uint_eq(fake_stack(fake, 0, 4), 7);
    ck_assert_uint_eq(fake_read(fake, FAKE_TSS + 0x20, 4), FAKE_USER);
    ck_assert_uint_eq(fake_read(fake, FAKE_TSS + 0x24, 4), FLAG_FIXED | FLAG_IF | FLAG_RF);
    ck_assert_uint_eq(fake_read(fake, FAKE_TSS2, 2), SEL_TSS);
    free(fake);
}
END_TEST

START_TEST(paging_takes_cr3_from_the_tss) {
    struct fake *fake = fake_create(FAKE_RING0);

    make_task(fake, SEL_CODE0, SEL_DATA0, SEL_DATA0);
    fake->cpu.cr0 |= CR0_PG;
    ck_assert_int_eq(jmp(fake, SEL_TSS2), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.cr3, 0x3000);
    ck_assert_uint_eq(fake->cpu.statistics.tlb_flushes, 1);
    free(fake);
}
END_TEST

START_TEST(pae_directory_is_loaded_with_cr3) {
    struct fake *fake = fake_create(FAKE_RING0);

    make_task(fake, SEL_CODE0, SEL_DATA0, SEL_DATA0);
    fake->cpu.cr0 |= CR0_PG;
    fake->cpu.cr4 |= CR4_PAE;
    fake_write(fake, FAKE_TSS2 + 0x1c, 0x7000, 4);
    fake_write(fake, 0x7008, 0x6001, 8);
    ck_assert_int_eq(jmp(fake, SEL_TSS2), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.pdpte[1], 0x6001);
    free(fake);
}
END_TEST

START_TEST(task_of_16_bits_is_left_and_entered) {
    struct fake *fake = fake_create(FAKE_RING0);

    fake_write(fake, FAKE_TSS16 + 0x0e, 0x1234, 2);
    fake_write(fake, FAKE_TSS16 + 0x10, FLAG_FIXED | FLAG_CF, 2);
    fake_write(fake, FAKE_TSS16 + 0x1a, 0x4444, 2);
    for (unsigned field = 0x22; field < 0x2a; field += 2)
        fake_write(fake, FAKE_TSS16 + field, field == 0x24 ? SEL_CODE16 : SEL_DATA16, 2);
    ck_assert_int_eq(call(fake, SEL_TSS16), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rip, 0x1234);
    ck_assert_uint_eq(fake->cpu.hot.rflags, FLAG_FIXED | FLAG_CF | FLAG_NT);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), 0xffff4444);
    ck_assert(fake->cpu.segment[CPU_FS].attributes & SEGMENT_UNUSABLE);
    ck_assert_uint_eq(tss_type(fake, SEL_TSS16), 1 | BUSY);

    make_task(fake, SEL_CODE0, SEL_DATA0, SEL_DATA0);
    ck_assert_int_eq(jmp(fake, SEL_TSS2), CPU_JUMP);
    ck_assert_uint_eq(fake_read(fake, FAKE_TSS16 + 0x0e, 2), 0x1236);
    ck_assert_uint_eq(fake_read(fake, FAKE_TSS16 + 0x28, 2), SEL_DATA16);
    ck_assert_uint_eq(fake_read(fake, FAKE_TSS16 + 0x2a, 2), 0);
    ck_assert_uint_eq(tss_type(fake, SEL_TSS16), 1);
    free(fake);
}
END_TEST

START_TEST(task_in_vm86_mode_is_entered) {
    struct fake *fake = fake_create(FAKE_RING0);

    make_task(fake, 0x1000, 0x2000, 0x3000);
    fake_write(fake, FAKE_TSS2 + 0x20, 0x100, 4);
    fake_write(fake, FAKE_TSS2 + 0x24, FLAG_FIXED | FLAG_VM, 4);
    ck_assert_int_eq(jmp(fake, SEL_TSS2), CPU_JUMP);
    ck_assert(cpu_is_vm86(&fake->cpu));
    ck_assert_uint_eq(fake->cpu.cpl, 3);
    ck_assert_uint_eq(fake->cpu.segment[CPU_CS].base, 0x10000);
    ck_assert_uint_eq(fake->cpu.segment[CPU_GS].base, 0x30000);
    free(fake);
}
END_TEST

START_TEST(conforming_code_may_have_a_higher_rpl) {
    struct fake *fake = fake_create(FAKE_RING0);

    make_task(fake, SEL_CONFORMING0 | 3, SEL_DATA3, SEL_DATA3);
    ck_assert_int_eq(call(fake, SEL_TSS2), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.cpl, 3);
    free(fake);
}
END_TEST

START_TEST(debug_bit_of_the_tss_is_a_trap_in_the_new_task) {
    struct fake *fake = fake_create(FAKE_RING0);

    make_task(fake, SEL_CODE0, SEL_DATA0, SEL_DATA0);
    fake_write(fake, FAKE_TSS2 + 0x64, 1, 1);
    ck_assert_int_eq(fake_fault(fake, jmp(fake, SEL_TSS2)), VECTOR_DB);
    ck_assert_uint_eq(fake->cpu.exception.dr6, 0x8000);
    ck_assert(fake->cpu.exception.is_trap);
    ck_assert_uint_eq(fake->cpu.hot.rip, FAKE_HANDLER);
    free(fake);
}
END_TEST

START_TEST(nothing_changes_when_the_new_tss_is_too_short_or_absent) {
    struct fake *fake = fake_create(FAKE_RING0);

    fake_descriptor(fake, SEL_TSS2, FAKE_TSS2, 0x66, 0x89, 0);
    ck_assert_int_eq(fake_fault(fake, jmp(fake, SEL_TSS2)), VECTOR_TS);
    ck_assert_uint_eq(fake->cpu.exception.error_code, SEL_TSS2);
    fake_descriptor(fake, SEL_TSS2, FAKE_TSS2, 0x67, 0x09, 0);
    ck_assert_int_eq(fake_fault(fake, jmp(fake, SEL_TSS2)), VECTOR_NP);
    fake_descriptor(fake, SEL_TSS2, FAKE_TSS2, 0x67, 0x89, 0);
    fake->absent_page = FAKE_TSS2;
    ck_assert_int_eq(fake_fault(fake, jmp(fake, SEL_TSS2)), VECTOR_PF);
    fake->absent_page = FAKE_TSS;
    ck_assert_int_eq(fake_fault(fake, jmp(fake, SEL_TSS2)), VECTOR_PF);
    ck_assert_uint_eq(fake->cpu.tr.selector, SEL_TSS);
    ck_assert_uint_eq(tss_type(fake, SEL_TSS), 9 | BUSY);
    ck_assert_uint_eq(tss_type(fake, SEL_TSS2), 9);
    ck_assert_uint_eq(fake->mode_changes, 0);
    free(fake);
}
END_TEST

struct bad_task {
    const char *what;
    uint16_t code, stack, data, ldt;
    int vector;
    uint32_t error_code;
};

static const struct bad_task bad_tasks[] = {
    {"LDT local", SEL_CODE0, SEL_DATA0, SEL_DATA0, SEL_LDT | 4, VECTOR_TS, SEL_LDT | 4},
    {"LDT outside the GDT", SEL_CODE0, SEL_DATA0, SEL_DATA0, 0xff8, VECTOR_TS, 0xff8},
    {"LDT of another type", SEL_CODE0, SEL_DATA0, SEL_DATA0, SEL_TSS, VECTOR_TS, SEL_TSS},
    {"CS null", 0, SEL_DATA0, SEL_DATA0, 0, VECTOR_TS, 0},
    {"CS is data", SEL_DATA0, SEL_DATA0, SEL_DATA0, 0, VECTOR_TS, SEL_DATA0},
    {"CS DPL is not RPL", SEL_CODE0 | 3, SEL_DATA0, SEL_DATA0, 0, VECTOR_TS, SEL_CODE0},
    {"CS not present", SEL_ABSENT_CODE0, SEL_DATA0, SEL_DATA0, 0, VECTOR_NP, SEL_ABSENT_CODE0},
    {"SS null", SEL_CODE0, 0, SEL_DATA0, 0, VECTOR_TS, 0},
    {"SS of another level", SEL_CODE0, SEL_DATA3, SEL_DATA0, 0, VECTOR_TS, SEL_DATA3 & ~3},
    {"SS not present", SEL_CODE0, SEL_SPARE, SEL_DATA0, 0, VECTOR_SS, SEL_SPARE},
    {"DS outside the GDT", SEL_CODE0, SEL_DATA0, 0xff8, 0, VECTOR_TS, 0xff8},
    {"DS of an inner level", SEL_CODE3, SEL_DATA3, SEL_DATA0, 0, VECTOR_TS, SEL_DATA0},
    {"DS not present", SEL_CODE0, SEL_DATA0, SEL_SPARE, 0, VECTOR_NP, SEL_SPARE},
};

START_TEST(bad_selector_faults_in_the_new_task) {
    const struct bad_task *bad = &bad_tasks[_i];
    struct fake *fake = fake_create(FAKE_RING0);

    fake_descriptor(fake, SEL_SPARE, 0, 0xfffff, 0x13, 0xc);
    make_task(fake, bad->code, bad->stack, bad->data);
    fake_write(fake, FAKE_TSS2 + 0x60, bad->ldt, 2);
    ck_assert_int_eq(fake_fault(fake, jmp(fake, SEL_TSS2)), bad->vector);
    ck_assert_uint_eq(fake->cpu.exception.error_code, bad->error_code);
    ck_assert_uint_eq(fake->cpu.tr.selector, SEL_TSS2);
    ck_assert_uint_eq(fake->cpu.hot.rip, FAKE_HANDLER);
    ck_assert_uint_ge(fake->mode_changes, 1);
    free(fake);
}
END_TEST

START_TEST(fault_of_the_new_task_after_an_interrupt_tells_ext) {
    struct fake *fake = fake_create(FAKE_RING0);

    make_task(fake, SEL_CODE0, SEL_DATA0, SEL_DATA0);
    fake_write(fake, FAKE_TSS2 + 0x50, 0, 2);
    fake_gate(fake, 0x30, SEL_TSS2, 0, TASK_GATE);
    fake_gate(fake, VECTOR_TS, SEL_CODE0, FAKE_USER, 0x8e);
    fake_gate(fake, VECTOR_SS, SEL_CODE0, FAKE_USER, 0x8e);
    /* #TS cannot be pushed without a stack segment, nor can the double fault: a shutdown in the new task. */
    ck_assert_int_eq(cpu_deliver_interrupt(&fake->cpu, 0x30), CPU_STOP);
    ck_assert_int_eq(fake->cpu.stop, CPU_STOP_SHUTDOWN);
    ck_assert_uint_eq(fake->cpu.tr.selector, SEL_TSS2);
    free(fake);
}
END_TEST

START_TEST(iret_to_a_task_that_is_not_busy_is_ts) {
    struct fake *fake = fake_create(FAKE_RING0);
    const struct cpu_op op = fake_op(4);

    fake->cpu.hot.rflags |= FLAG_NT;
    fake_write(fake, FAKE_TSS, SEL_TSS2, 2);
    ck_assert_int_eq(fake_fault(fake, cpu_op_iret(&fake->cpu, &op)), VECTOR_TS);
    ck_assert_uint_eq(fake->cpu.exception.error_code, SEL_TSS2);
    free(fake);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("task");

    tcase_add_test(tests, jump_saves_the_old_task_and_loads_the_new);
    tcase_add_test(tests, call_nests_and_iret_returns);
    tcase_add_test(tests, task_gate_in_the_gdt_names_a_tss_of_any_level);
    tcase_add_test(tests, fault_through_a_task_gate_pushes_its_error_code_on_the_new_stack);
    tcase_add_test(tests, paging_takes_cr3_from_the_tss);
    tcase_add_test(tests, pae_directory_is_loaded_with_cr3);
    tcase_add_test(tests, task_of_16_bits_is_left_and_entered);
    tcase_add_test(tests, task_in_vm86_mode_is_entered);
    tcase_add_test(tests, conforming_code_may_have_a_higher_rpl);
    tcase_add_test(tests, debug_bit_of_the_tss_is_a_trap_in_the_new_task);
    tcase_add_test(tests, nothing_changes_when_the_new_tss_is_too_short_or_absent);
    tcase_add_loop_test(tests, bad_selector_faults_in_the_new_task, 0, sizeof bad_tasks / sizeof bad_tasks[0]);
    tcase_add_test(tests, fault_of_the_new_task_after_an_interrupt_tells_ext);
    tcase_add_test(tests, iret_to_a_task_that_is_not_busy_is_ts);
    return fake_run(tests);
}
