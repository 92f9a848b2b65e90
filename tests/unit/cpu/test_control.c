/* Control and debug registers, XCR0: cpu/control.c. */
#include <stdlib.h>

#include "fake_cpu.h"

static enum cpu_result write_cr(struct fake_cpu *fake, unsigned reg, uint64_t value) {
    struct cpu_op op = fake_instruction(fake, 8);
    op.reg = (uint8_t)reg;
    op.rm = CPU_RBX;
    FAKE_GPR(fake, RBX) = value;
    fake->cpu.hot.rip = FAKE_CODE;
    return cpu_op_mov_to_cr(&fake->cpu, &op);
}

static int cr_fault(struct fake_cpu *fake, unsigned reg, uint64_t value) {
    return fake_vector(fake, write_cr(fake, reg, value));
}

static enum cpu_result write_dr(struct fake_cpu *fake, unsigned reg, uint64_t value) {
    struct cpu_op op = fake_instruction(fake, 8);
    op.reg = (uint8_t)reg;
    op.rm = CPU_RBX;
    FAKE_GPR(fake, RBX) = value;
    return cpu_op_mov_to_dr(&fake->cpu, &op);
}

START_TEST(control_registers_are_for_level_0) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG3, "host");
    ck_assert_int_eq(cr_fault(fake, 3, 0), VECTOR_GP);
    ck_assert_int_eq(cr_fault(fake, 1, 0), VECTOR_UD);
    ck_assert_int_eq(cr_fault(fake, 9, 0), VECTOR_UD);
    struct cpu_op op = fake_instruction(fake, 8);
    ck_assert_int_eq(fake_vector(fake, cpu_op_clts(&fake->cpu, &op)), VECTOR_GP);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(cr0_refuses_what_no_processor_can_be_in) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_RING0, "host");
    ck_assert_int_eq(cr_fault(fake, 0, CR0_PG), VECTOR_GP);
    ck_assert_int_eq(cr_fault(fake, 0, CR0_PE | CR0_NW), VECTOR_GP);
    fake->cpu.msr.efer = EFER_LME;
    ck_assert_int_eq(cr_fault(fake, 0, CR0_PE | CR0_PG), VECTOR_GP); /* no PAE */
    fake->cpu.cr4 = CR4_PAE;
    ck_assert_int_eq(write_cr(fake, 0, CR0_PE | CR0_PG), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.msr.efer, EFER_LME | EFER_LMA);
    ck_assert_uint_eq(fake->cpu.cr0, CR0_PE | CR0_PG | CR0_ET);
    ck_assert_uint_eq(fake->flushes_all, 1);
    ck_assert_uint_eq(fake->cpu.hot.rip, FAKE_CODE + 2);
    ck_assert_int_eq(write_cr(fake, 0, CR0_PE), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.msr.efer, EFER_LME);
    fake_cpu_destroy(fake);
    fake = fake_cpu_create(FAKE_LONG0, "host");
    ck_assert_int_eq(cr_fault(fake, 0, 1ull << 32 | fake->cpu.cr0), VECTOR_GP);
    ck_assert_int_eq(cr_fault(fake, 0, CR0_PE), VECTOR_GP); /* 64-bit code */
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(cr0_flushes_only_for_what_paging_depends_on) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "host");
    ck_assert_int_eq(write_cr(fake, 0, fake->cpu.cr0 | CR0_TS | CR0_NE | CR0_AM), CPU_JUMP);
    ck_assert_uint_eq(fake->flushes_all, 0);
    ck_assert_int_eq(write_cr(fake, 0, fake->cpu.cr0 | CR0_WP), CPU_JUMP);
    ck_assert_uint_eq(fake->flushes_all, 1);
    ck_assert_uint_eq(fake->mode_changes, 2);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(pae_pointers_are_loaded_and_checked) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_RING0, "pentium3");
    fake->cpu.cr4 = CR4_PAE;
    fake->cpu.cr3 = 0x2020;
    for (unsigned i = 0; i < 4; i++)
        fake_put(fake, 0x2020 + 8 * i, 0x3001 + 0x1000 * i, 8);
    fake_put(fake, 0x2028, 0x3006, 8); /* absent: its other bits are ignored */
    ck_assert_int_eq(write_cr(fake, 0, CR0_PE | CR0_PG), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.pdpte[0], 0x3001);
    ck_assert_uint_eq(fake->cpu.pdpte[3], 0x6001);
    fake_put(fake, 0x4000, 0x3003, 8);
    ck_assert_int_eq(cr_fault(fake, 3, 0x4000), VECTOR_GP);
    ck_assert_uint_eq(fake->cpu.cr3, 0x2020);
    fake_put(fake, 0x4000, 1ull << 36 | 1, 8);
    ck_assert_int_eq(cr_fault(fake, 3, 0x4000), VECTOR_GP);
    fake_put(fake, 0x4000, 0x7001, 8);
    ck_assert_int_eq(write_cr(fake, 3, 0x4000), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.pdpte[0], 0x7001);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(cr3_keeps_the_tlb_when_pcids_say_so) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "host");
    ck_assert_int_eq(cr_fault(fake, 3, 1ull << 63), VECTOR_GP);
    ck_assert_int_eq(cr_fault(fake, 3, 1ull << cpu_model_physical_bits(fake->cpu.model)), VECTOR_GP);
    ck_assert_int_eq(write_cr(fake, 4, CR4_PAE | CR4_PCIDE), CPU_JUMP);
    ck_assert_int_eq(write_cr(fake, 3, 1ull << 63 | 0x5001), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.cr3, 0x5001);
    ck_assert_uint_eq(fake->flushes_space, 0);
    ck_assert_uint_eq(fake->cpu.space_changes, 1);
    ck_assert_int_eq(write_cr(fake, 3, 0x5001), CPU_JUMP);
    ck_assert_uint_eq(fake->flushes_space, 1);
    ck_assert(fake->kept_global);
    ck_assert_int_eq(cr_fault(fake, 4, 1ull << 5), -1); /* PCIDE off again */
    ck_assert_int_eq(cr_fault(fake, 4, CR4_PAE | CR4_PCIDE), VECTOR_GP); /* CR3[11:0] is not 0 */
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(cr4_takes_the_models_bits_only) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "host");
    for (unsigned bit = 0; bit < 64; bit++) {
        bool is_allowed = cpu_model_cr4(fake->cpu.model) >> bit & 1;
        ck_assert_msg((cr_fault(fake, 4, CR4_PAE | 1ull << bit) == -1) == is_allowed, "bit %u", bit);
    }
    ck_assert_int_eq(cr_fault(fake, 4, 0), VECTOR_GP); /* long mode needs PAE */
    fake_cpu_destroy(fake);
    fake = fake_cpu_create(FAKE_RING0, "486");
    ck_assert_int_eq(cr_fault(fake, 4, CR4_PAE), VECTOR_GP);
    ck_assert_int_eq(cr_fault(fake, 4, CR4_PCIDE), VECTOR_GP);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(cr8_is_the_task_priority) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "host");
    ck_assert_int_eq(cr_fault(fake, 8, 16), VECTOR_GP);
    ck_assert_int_eq(write_cr(fake, 8, 11), CPU_NEXT);
    ck_assert_uint_eq(fake->tpr, 11);
    struct cpu_op op = fake_instruction(fake, 8);
    op.reg = 8;
    op.rm = CPU_RCX;
    ck_assert_int_eq(cpu_op_mov_from_cr(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_eq(FAKE_GPR(fake, RCX), 11);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(lmsw_sets_pe_and_never_clears_it) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_REAL, "486");
    struct cpu_op op = fake_instruction(fake, 2);
    op.rm = CPU_RAX;
    FAKE_GPR(fake, RAX) = 0xfff1;
    ck_assert_int_eq(cpu_op_lmsw(&fake->cpu, &op), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.cr0, CR0_PE | CR0_ET);
    FAKE_GPR(fake, RAX) = CR0_TS | CR0_MP;
    ck_assert_int_eq(cpu_op_lmsw(&fake->cpu, &op), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.cr0, CR0_PE | CR0_TS | CR0_MP | CR0_ET);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(smsw_stores_a_word_or_a_register_and_obeys_umip) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG3, "host");
    struct cpu_op op = fake_memory_operand(fake, 2, 0x2000);
    fake_put(fake, 0x2000, ~0ull, 8);
    ck_assert_int_eq(cpu_op_smsw(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_eq(fake_get(fake, 0x2000, 4), 0xffff0000u | (fake->cpu.cr0 & 0xffff));
    op = fake_instruction(fake, 8);
    op.rm = CPU_RDX;
    ck_assert_int_eq(cpu_op_smsw(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_eq(FAKE_GPR(fake, RDX), fake->cpu.cr0);
    fake->cpu.cr4 |= CR4_UMIP;
    ck_assert_int_eq(fake_vector(fake, cpu_op_smsw(&fake->cpu, &op)), VECTOR_GP);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(debug_registers_have_their_fixed_bits) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "host");
    ck_assert_int_eq(write_dr(fake, 6, 0xffffffff), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.dr[6], 0xffffeff0 | 0xf);
    ck_assert_int_eq(write_dr(fake, 6, 0), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.dr[6], 0xffff0ff0);
    ck_assert_int_eq(write_dr(fake, 7, 0xffffdfff), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.dr[7], 0xffff07ff);
    ck_assert_int_eq(fake_vector(fake, write_dr(fake, 7, 1ull << 32)), VECTOR_GP);
    ck_assert_int_eq(write_dr(fake, 2, 0x8000000000000000), CPU_JUMP);
    ck_assert_int_eq(fake_vector(fake, write_dr(fake, 8, 0)), VECTOR_UD);
    ck_assert_int_eq(write_dr(fake, 5, 0), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.dr[7], 0x400);
    fake->cpu.cr4 |= CR4_DE;
    ck_assert_int_eq(fake_vector(fake, write_dr(fake, 5, 0)), VECTOR_UD);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(general_detect_faults_on_any_move) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "host");
    ck_assert_int_eq(write_dr(fake, 7, 1 << 13), CPU_JUMP);
    ck_assert_int_eq(fake_vector(fake, write_dr(fake, 0, 1)), VECTOR_DB);
    ck_assert_uint_eq(fake->cpu.exception.dr6, 1 << 13);
    ck_assert_uint_eq(fake->cpu.dr[0], 0);
    fake_cpu_destroy(fake);
}
END_TEST

static int xsetbv(struct fake_cpu *fake, uint64_t value) {
    struct cpu_op op = fake_instruction(fake, 4);
    FAKE_GPR(fake, RAX) = (uint32_t)value;
    FAKE_GPR(fake, RDX) = value >> 32;
    return fake_vector(fake, cpu_op_xsetbv(&fake->cpu, &op));
}

START_TEST(xcr0_takes_consistent_components_only) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "host");
    ck_assert_int_eq(xsetbv(fake, 3), VECTOR_UD);
    fake->cpu.cr4 |= CR4_OSXSAVE;
    ck_assert_int_eq(xsetbv(fake, 2), VECTOR_GP);
    ck_assert_int_eq(xsetbv(fake, 5), VECTOR_GP);
    ck_assert_int_eq(xsetbv(fake, 1ull << 63 | 3), VECTOR_GP);
    ck_assert_int_eq(xsetbv(fake, 0x27), VECTOR_GP);
    ck_assert_int_eq(xsetbv(fake, 0x60003), VECTOR_GP);
    ck_assert_int_eq(xsetbv(fake, cpu_model_xcr0(fake->cpu.model)), -1);
    ck_assert_uint_eq(fake->cpu.xcr0, cpu_model_xcr0(fake->cpu.model));
    struct cpu_op op = fake_instruction(fake, 4);
    ck_assert_int_eq(cpu_op_xgetbv(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_eq(FAKE_GPR(fake, RAX), fake->cpu.xcr0);
    FAKE_GPR(fake, RCX) = 1;
    ck_assert_int_eq(xsetbv(fake, 3), VECTOR_GP);
    FAKE_GPR(fake, RCX) = 2;
    ck_assert_int_eq(fake_vector(fake, cpu_op_xgetbv(&fake->cpu, &op)), VECTOR_GP);
    FAKE_GPR(fake, RCX) = 0;
    fake->cpu.cpl = 3;
    ck_assert_int_eq(xsetbv(fake, 3), VECTOR_GP);
    fake_cpu_destroy(fake);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("control");
    tcase_add_test(tests, control_registers_are_for_level_0);
    tcase_add_test(tests, cr0_refuses_what_no_processor_can_be_in);
    tcase_add_test(tests, cr0_flushes_only_for_what_paging_depends_on);
    tcase_add_test(tests, pae_pointers_are_loaded_and_checked);
    tcase_add_test(tests, cr3_keeps_the_tlb_when_pcids_say_so);
    tcase_add_test(tests, cr4_takes_the_models_bits_only);
    tcase_add_test(tests, cr8_is_the_task_priority);
    tcase_add_test(tests, lmsw_sets_pe_and_never_clears_it);
    tcase_add_test(tests, smsw_stores_a_word_or_a_register_and_obeys_umip);
    tcase_add_test(tests, debug_registers_have_their_fixed_bits);
    tcase_add_test(tests, general_detect_faults_on_any_move);
    tcase_add_test(tests, xcr0_takes_consistent_components_only);
    return fake_cpu_run(tests);
}
