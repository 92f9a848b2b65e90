/* Time-stamp counter, TLB invalidation, HLT, FS and GS base: cpu/system.c. */
#include <stdlib.h>

#include "fake_cpu.h"

START_TEST(rdtsc_follows_the_offset_and_tsd) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG3, "host");
    struct cpu_op op = fake_instruction(fake, 4);
    fake->cpu.tsc_offset = (int64_t)(0 - (uint64_t)cpu_read_tsc(&fake->cpu));
    fake->cpu.msr.tsc_aux = 0x12;
    ck_assert_int_eq(cpu_op_rdtscp(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_lt(FAKE_GPR(fake, RDX), 16);
    ck_assert_uint_eq(FAKE_GPR(fake, RCX), 0x12);
    fake->cpu.cr4 |= CR4_TSD;
    ck_assert_int_eq(fake_vector(fake, cpu_op_rdtsc(&fake->cpu, &op)), VECTOR_GP);
    fake->cpu.cpl = 0;
    ck_assert_int_eq(cpu_op_rdtsc(&fake->cpu, &op), CPU_NEXT);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(invlpg_uses_the_linear_address_and_never_faults_on_it) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "host");
    struct cpu_op op = fake_memory_operand(fake, 1, 0x123456);
    op.segment = CPU_GS;
    fake->cpu.segment[CPU_GS].base = 0xffff800000000000;
    ck_assert_int_eq(cpu_op_invlpg(&fake->cpu, &op), CPU_JUMP);
    ck_assert_uint_eq(fake->flushed, 0xffff800000123456);
    op = fake_memory_operand(fake, 1, 0x800000000000);
    ck_assert_int_eq(cpu_op_invlpg(&fake->cpu, &op), CPU_JUMP);
    ck_assert_uint_eq(fake->flushes_page, 1);
    fake->cpu.cpl = 3;
    ck_assert_int_eq(fake_vector(fake, cpu_op_invlpg(&fake->cpu, &op)), VECTOR_GP);
    fake_cpu_destroy(fake);
}
END_TEST

static int invpcid(struct fake_cpu *fake, uint64_t type, uint64_t pcid, uint64_t linear) {
    struct cpu_op op = fake_memory_operand(fake, 16, 0x2000);
    op.reg = CPU_RBX;
    FAKE_GPR(fake, RBX) = type;
    fake_put(fake, 0x2000, pcid, 8);
    fake_put(fake, 0x2008, linear, 8);
    return fake_vector(fake, cpu_op_invpcid(&fake->cpu, &op));
}

START_TEST(invpcid_checks_its_descriptor_and_flushes_enough) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "host");
    ck_assert_int_eq(invpcid(fake, 4, 0, 0), VECTOR_GP);
    ck_assert_int_eq(invpcid(fake, 1ull << 32, 0, 0), VECTOR_GP);
    ck_assert_int_eq(invpcid(fake, 2, 0x1000, 0), VECTOR_GP);
    ck_assert_int_eq(invpcid(fake, 0, 1, 0), VECTOR_GP); /* no PCIDE */
    ck_assert_int_eq(invpcid(fake, 0, 0, 1ull << 47), VECTOR_GP);
    ck_assert_int_eq(invpcid(fake, 0, 0, 0x7000), -1);
    ck_assert_uint_eq(fake->flushed, 0x7000);
    fake->cpu.cr4 |= CR4_PCIDE;
    fake->cpu.cr3 = 5;
    ck_assert_int_eq(invpcid(fake, 1, 5, 0), -1);
    ck_assert_uint_eq(fake->flushes_space, 1);
    ck_assert_int_eq(invpcid(fake, 1, 6, 0), -1);
    ck_assert_int_eq(invpcid(fake, 2, 0, 0), -1);
    ck_assert_int_eq(invpcid(fake, 3, 0, 0), -1);
    ck_assert_uint_eq(fake->flushes_all, 3);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(pause_lets_others_run_now_and_then) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG3, "host");
    const struct cpu_op op = fake_instruction(fake, 2);
    unsigned yields = 0;
    fake->cpu.hot.pauses = 1;
    for (unsigned i = 0; i < 1000; i++) {
        uint32_t left = fake->cpu.hot.pauses;
        ck_assert_int_eq(cpu_op_pause(&fake->cpu, &op), CPU_NEXT);
        yields += fake->cpu.hot.pauses > left;
        ck_assert_uint_gt(fake->cpu.hot.pauses, 0);
    }
    ck_assert_uint_ge(yields, 2);
    ck_assert_uint_le(yields, 100);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(hlt_stops_behind_itself_at_level_0) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_RING0, "486");
    struct cpu_op op = fake_instruction(fake, 1);
    op.length = 1;
    ck_assert_int_eq(cpu_op_hlt(&fake->cpu, &op), CPU_STOP);
    ck_assert_int_eq(fake->cpu.stop, CPU_STOP_HALT);
    ck_assert_uint_eq(fake->cpu.hot.rip, FAKE_CODE + 1);
    ck_assert(fake->cpu.halted);
    fake->cpu.cpl = 3;
    ck_assert_int_eq(fake_vector(fake, cpu_op_hlt(&fake->cpu, &op)), VECTOR_GP);
    ck_assert_int_eq(fake_vector(fake, cpu_op_cache_control(&fake->cpu, &op)), VECTOR_GP);
    ck_assert_int_eq(fake_vector(fake, cpu_op_rdpmc(&fake->cpu, &op)), VECTOR_GP);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(base_instructions_need_cr4_and_a_canonical_address) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG3, "host");
    struct cpu_op op = fake_instruction(fake, 8);
    op.rm = CPU_R9;
    FAKE_GPR(fake, R9) = 0x00007f1234567890;
    ck_assert_int_eq(fake_vector(fake, cpu_op_wrfsbase(&fake->cpu, &op)), VECTOR_UD);
    fake->cpu.cr4 |= CR4_FSGSBASE;
    ck_assert_int_eq(cpu_op_wrfsbase(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_eq(fake->cpu.hot.segment[CPU_FS].base, 0x00007f1234567890);
    op.size = 4;
    ck_assert_int_eq(cpu_op_rdfsbase(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_eq(FAKE_GPR(fake, R9), 0x34567890);
    op.size = 8;
    FAKE_GPR(fake, R9) = 1ull << 47;
    ck_assert_int_eq(fake_vector(fake, cpu_op_wrgsbase(&fake->cpu, &op)), VECTOR_GP);
    fake_cpu_destroy(fake);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("system");
    tcase_add_test(tests, rdtsc_follows_the_offset_and_tsd);
    tcase_add_test(tests, invlpg_uses_the_linear_address_and_never_faults_on_it);
    tcase_add_test(tests, invpcid_checks_its_descriptor_and_flushes_enough);
    tcase_add_test(tests, hlt_stops_behind_itself_at_level_0);
    tcase_add_test(tests, pause_lets_others_run_now_and_then);
    tcase_add_test(tests, base_instructions_need_cr4_and_a_canonical_address);
    return fake_cpu_run(tests);
}
