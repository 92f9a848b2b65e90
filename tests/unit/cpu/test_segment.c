/* Segment register loads and the instructions that make them: cpu/segment.c, cpu/op.c. */
#include <check.h>
#include <stdlib.h>

#include "cpu/mode.h"
#include "fake_memory.h"

static enum cpu_result load(struct fake *fake, unsigned segment, uint16_t selector) {
    struct cpu_op op = fake_op(2);

    op.rm = CPU_RAX;
    op.reg = (uint8_t)segment;
    fake->cpu.hot.gpr[CPU_RAX] = selector;
    return cpu_op_mov_to_segment(&fake->cpu, &op);
}

START_TEST(real_mode_load_keeps_limit_and_rights) {
    struct fake *fake = fake_create(FAKE_REAL);

    fake->cpu.segment[CPU_FS].limit = 0xffffffff;
    ck_assert_int_eq(load(fake, CPU_FS, 0xb800), CPU_NEXT);
    ck_assert_uint_eq(fake->cpu.segment[CPU_FS].base, 0xb8000);
    ck_assert_uint_eq(fake->cpu.segment[CPU_FS].limit, 0xffffffff);
    ck_assert_uint_eq(fake->cpu.hot.segment[CPU_FS].base, 0xb8000);
    free(fake);
}
END_TEST

START_TEST(vm86_load_sets_limit_and_rights) {
    struct fake *fake = fake_create(FAKE_VM86);

    fake->cpu.segment[CPU_ES].limit = 0xffffffff;
    ck_assert_int_eq(load(fake, CPU_ES, 0x1234), CPU_NEXT);
    ck_assert_uint_eq(fake->cpu.segment[CPU_ES].base, 0x12340);
    ck_assert_uint_eq(fake->cpu.segment[CPU_ES].limit, 0xffff);
    ck_assert_uint_eq(fake->cpu.segment[CPU_ES].attributes, 0xf3);
    free(fake);
}
END_TEST

START_TEST(protected_load_reads_base_limit_and_rights) {
    struct fake *fake = fake_create(FAKE_RING0);

    fake_descriptor(fake, SEL_SPARE, 0x12345678, 0x12, 0x92, 8);
    ck_assert_int_eq(load(fake, CPU_GS, SEL_SPARE), CPU_NEXT);
    ck_assert_uint_eq(fake->cpu.segment[CPU_GS].base, 0x12345678);
    ck_assert_uint_eq(fake->cpu.segment[CPU_GS].limit, 0x12fff);
    ck_assert_uint_eq(fake->cpu.segment[CPU_GS].attributes, 0x8093);
    ck_assert_uint_eq(fake_read(fake, FAKE_GDT + SEL_SPARE + 5, 1), 0x93);
    free(fake);
}
END_TEST

START_TEST(descriptor_of_the_ldt_is_found) {
    struct fake *fake = fake_create(FAKE_RING3);

    fake_descriptor(fake, 0x0f, 0x1000, 0xff, 0xf3, 0);
    ck_assert_int_eq(load(fake, CPU_FS, 0x0f), CPU_NEXT);
    ck_assert_uint_eq(fake->cpu.segment[CPU_FS].base, 0x1000);
    fake->cpu.ldtr.attributes = SEGMENT_UNUSABLE;
    ck_assert_int_eq(fake_fault(fake, load(fake, CPU_FS, 0x0f)), VECTOR_GP);
    ck_assert_uint_eq(fake->cpu.exception.error_code, 0x0c);
    free(fake);
}
END_TEST

START_TEST(load_that_ends_flatness_changes_the_mode_key) {
    struct fake *fake = fake_create(FAKE_RING0);

    ck_assert_int_eq(load(fake, CPU_DS, SEL_DATA0), CPU_NEXT);
    ck_assert_uint_eq(fake->mode_changes, 0);
    ck_assert_int_eq(load(fake, CPU_DS, SEL_DATA16), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rip, FAKE_CODE + 2);
    ck_assert(!(fake->cpu.mode_key & MODE_FLAT));
    free(fake);
}
END_TEST

START_TEST(stack_load_holds_interrupts_off) {
    struct fake *fake = fake_create(FAKE_RING0);

    ck_assert_int_eq(load(fake, CPU_DS, SEL_DATA0), CPU_NEXT);
    ck_assert(!fake->cpu.interrupt_shadow);
    ck_assert_int_eq(load(fake, CPU_SS, SEL_DATA0), CPU_NEXT);
    ck_assert(fake->cpu.interrupt_shadow);
    free(fake);
}
END_TEST

struct bad_load {
    const char *what;
    enum fake_mode mode;
    unsigned segment;
    uint16_t selector;
    int vector;
    uint32_t error_code;
};

static const struct bad_load bad_loads[] = {
    {"CS", FAKE_RING0, CPU_CS, SEL_CODE0, VECTOR_UD, 0},
    {"SS null", FAKE_RING0, CPU_SS, 0, VECTOR_GP, 0},
    {"SS null at level 3", FAKE_LONG3, CPU_SS, 3, VECTOR_GP, 0},
    {"SS null with RPL above CPL", FAKE_LONG0, CPU_SS, 1, VECTOR_GP, 0},
    {"SS outside the GDT", FAKE_RING0, CPU_SS, 0xff8, VECTOR_GP, 0xff8},
    {"SS RPL is not CPL", FAKE_RING0, CPU_SS, SEL_DATA0 | 3, VECTOR_GP, SEL_DATA0},
    {"SS DPL is not CPL", FAKE_RING0, CPU_SS, SEL_DATA3 & ~3, VECTOR_GP, SEL_DATA3 & ~3},
    {"SS read-only", FAKE_RING0, CPU_SS, SEL_READ_ONLY0, VECTOR_GP, SEL_READ_ONLY0},
    {"SS code", FAKE_RING0, CPU_SS, SEL_CODE0, VECTOR_GP, SEL_CODE0},
    {"SS not present", FAKE_RING0, CPU_SS, SEL_SPARE, VECTOR_SS, SEL_SPARE},
    {"DS outside the GDT", FAKE_RING0, CPU_DS, 0xff8, VECTOR_GP, 0xff8},
    {"DS system", FAKE_RING0, CPU_DS, SEL_TSS2, VECTOR_GP, SEL_TSS2},
    {"DS execute-only", FAKE_RING0, CPU_DS, SEL_SPARE + 8, VECTOR_GP, SEL_SPARE + 8},
    {"DS of an inner level", FAKE_RING3, CPU_DS, SEL_DATA0 | 3, VECTOR_GP, SEL_DATA0},
    {"DS with RPL above DPL", FAKE_RING0, CPU_DS, SEL_DATA0 | 3, VECTOR_GP, SEL_DATA0},
    {"DS not present", FAKE_RING0, CPU_DS, SEL_SPARE, VECTOR_NP, SEL_SPARE},
};

START_TEST(each_bad_load_has_its_error_code) {
    const struct bad_load *bad = &bad_loads[_i];
    struct fake *fake = fake_create(bad->mode);
    const uint16_t before = fake->cpu.segment[bad->segment].selector;

    fake_descriptor(fake, SEL_SPARE, 0, 0xfffff, 0x13, 0xc);
    fake_descriptor(fake, SEL_SPARE + 8, 0, 0xfffff, 0x99, 0xc);
    ck_assert_int_eq(fake_fault(fake, load(fake, bad->segment, bad->selector)), bad->vector);
    ck_assert_uint_eq(fake->cpu.exception.error_code, bad->error_code);
    ck_assert_uint_eq(fake->cpu.segment[bad->segment].selector, before);
    ck_assert(!fake->cpu.interrupt_shadow);
    free(fake);
}
END_TEST

START_TEST(conforming_code_is_readable_from_every_level) {
    struct fake *fake = fake_create(FAKE_RING3);

    ck_assert_int_eq(load(fake, CPU_FS, SEL_CONFORMING0 | 3), CPU_NEXT);
    free(fake);
}
END_TEST

START_TEST(null_selector_empties_a_data_segment) {
    struct fake *fake = fake_create(FAKE_LONG3);

    fake->cpu.segment[CPU_FS].base = 0x7f0000000000;
    ck_assert_int_eq(load(fake, CPU_FS, 3), CPU_NEXT);
    ck_assert_uint_eq(fake->cpu.segment[CPU_FS].base, 0);
    ck_assert_uint_eq(fake->cpu.segment[CPU_FS].selector, 3);
    ck_assert(fake->cpu.segment[CPU_FS].attributes & SEGMENT_UNUSABLE);
    free(fake);
}
END_TEST

START_TEST(null_stack_is_allowed_in_64_bit_mode_below_level_3) {
    struct fake *fake = fake_create(FAKE_LONG0);

    ck_assert_int_eq(load(fake, CPU_SS, 0), CPU_NEXT);
    free(fake);
}
END_TEST

START_TEST(page_fault_of_the_accessed_bit_stops_the_load) {
    struct fake *fake = fake_create(FAKE_RING0);

    fake_descriptor(fake, SEL_SPARE, 0, 0xfffff, 0x92, 0xc);
    fake->absent_page = FAKE_GDT;
    ck_assert_int_eq(fake_fault(fake, load(fake, CPU_FS, SEL_SPARE)), VECTOR_PF);
    ck_assert_uint_eq(fake->cpu.segment[CPU_FS].selector, SEL_DATA0);
    free(fake);
}
END_TEST

START_TEST(push_of_32_bits_leaves_the_upper_half_of_the_slot) {
    struct fake *fake = fake_create(FAKE_RING0);
    struct cpu_op op = fake_op(4);

    op.reg = CPU_DS;
    fake_write(fake, FAKE_STACK0 - 4, 0xdeadbeef, 4);
    ck_assert_int_eq(cpu_op_push_segment(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK0 - 4);
    ck_assert_uint_eq(fake_stack(fake, 0, 4), 0xdead0000 | SEL_DATA0);
    free(fake);
}
END_TEST

START_TEST(push_of_64_bits_is_zero_extended) {
    struct fake *fake = fake_create(FAKE_LONG0);
    struct cpu_op op = fake_op(8);

    op.reg = CPU_FS;
    fake_write(fake, FAKE_STACK0 - 8, ~0ull, 8);
    ck_assert_int_eq(cpu_op_push_segment(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_eq(fake_stack(fake, 0, 8), SEL_DATA0);
    free(fake);
}
END_TEST

START_TEST(pop_moves_the_stack_only_when_the_load_succeeds) {
    struct fake *fake = fake_create(FAKE_RING0);
    struct cpu_op op = fake_op(4);

    op.reg = CPU_ES;
    fake_write(fake, FAKE_STACK0, 0xff8, 4);
    ck_assert_int_eq(fake_fault(fake, cpu_op_pop_segment(&fake->cpu, &op)), VECTOR_GP);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK0);
    fake_write(fake, FAKE_STACK0, SEL_DATA3, 4);
    ck_assert_int_eq(cpu_op_pop_segment(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK0 + 4);
    ck_assert_uint_eq(fake->cpu.segment[CPU_ES].selector, SEL_DATA3);
    free(fake);
}
END_TEST

START_TEST(far_pointer_loads_segment_and_register) {
    struct fake *fake = fake_create(FAKE_RING0);
    struct cpu_op op = fake_op(4);

    op.displacement = 0x7000;
    op.reg = CPU_RSP;
    op.immediate2 = CPU_SS;
    fake_write(fake, 0x7000, 0x8800, 4);
    fake_write(fake, 0x7004, SEL_DATA0, 2);
    ck_assert_int_eq(cpu_op_load_far_pointer(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), 0x8800);
    ck_assert(!fake->cpu.interrupt_shadow);
    free(fake);
}
END_TEST

START_TEST(mov_from_segment_is_zero_extended_in_registers_and_16_bits_in_memory) {
    struct fake *fake = fake_create(FAKE_LONG0);
    struct cpu_op op = fake_op(8);

    op.reg = CPU_SS;
    op.rm = CPU_RDX;
    fake->cpu.hot.gpr[CPU_RDX] = ~0ull;
    ck_assert_int_eq(cpu_op_mov_from_segment(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_eq(fake->cpu.hot.gpr[CPU_RDX], SEL_DATA0);
    op.rm = CPU_NO_REGISTER;
    op.displacement = 0x7000;
    fake_write(fake, 0x7000, ~0ull, 8);
    ck_assert_int_eq(cpu_op_mov_from_segment(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_eq(fake_read(fake, 0x7000, 4), 0xffff0000 | SEL_DATA0);
    free(fake);
}
END_TEST

START_TEST(swapgs_exchanges_the_bases_at_level_0) {
    struct fake *fake = fake_create(FAKE_LONG0);
    const struct cpu_op op = fake_op(8);

    fake->cpu.segment[CPU_GS].base = 1;
    fake->cpu.msr.kernel_gs_base = 2;
    ck_assert_int_eq(cpu_op_swapgs(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_eq(fake->cpu.segment[CPU_GS].base, 2);
    ck_assert_uint_eq(fake->cpu.hot.segment[CPU_GS].base, 2);
    ck_assert_uint_eq(fake->cpu.msr.kernel_gs_base, 1);
    fake->cpu.cpl = 3;
    ck_assert_int_eq(fake_fault(fake, cpu_op_swapgs(&fake->cpu, &op)), VECTOR_GP);
    free(fake);
}
END_TEST

/* ---- cpu/op.c ---- */

START_TEST(offset_is_cut_to_the_address_size) {
    struct fake *fake = fake_create(FAKE_RING0);
    struct cpu_op op = fake_op(4);

    op.base = CPU_RBX;
    op.index = CPU_RSI;
    op.scale = 4;
    op.displacement = -1;
    fake->cpu.hot.gpr[CPU_RBX] = 0xffffffff;
    fake->cpu.hot.gpr[CPU_RSI] = 0x4001;
    ck_assert_uint_eq(cpu_op_offset(&fake->cpu, &op), 0x10002);
    op.address_size = 2;
    ck_assert_uint_eq(cpu_op_offset(&fake->cpu, &op), 2);
    op.index_is_vector = 1;
    ck_assert_uint_eq(cpu_op_offset(&fake->cpu, &op), 0xfffe);
    free(fake);
}
END_TEST

START_TEST(rip_relative_offset_counts_from_the_next_instruction) {
    struct fake *fake = fake_create(FAKE_LONG0);
    struct cpu_op op = fake_op(8);

    op.rip_relative = 1;
    op.address_size = 8;
    op.displacement = -0x10;
    ck_assert_uint_eq(cpu_op_offset(&fake->cpu, &op), FAKE_CODE + 2 - 0x10);
    free(fake);
}
END_TEST

START_TEST(register_writes_merge_or_extend_by_size) {
    struct fake *fake = fake_create(FAKE_LONG0);
    uint64_t *rcx = &fake->cpu.hot.gpr[CPU_RCX];

    *rcx = 0x1122334455667788;
    cpu_set_gpr(&fake->cpu, CPU_RCX, 1, true, 0xaa);
    ck_assert_uint_eq(*rcx, 0x112233445566aa88);
    cpu_set_gpr(&fake->cpu, CPU_RCX, 1, false, 0x1bb);
    ck_assert_uint_eq(*rcx, 0x112233445566aabb);
    cpu_set_gpr(&fake->cpu, CPU_RCX, 2, false, 0xfcccc);
    ck_assert_uint_eq(*rcx, 0x112233445566cccc);
    ck_assert_uint_eq(cpu_get_gpr(&fake->cpu, CPU_RCX, 1, true), 0xcc);
    cpu_set_gpr(&fake->cpu, CPU_RCX, 4, false, 0xdddddddd);
    ck_assert_uint_eq(*rcx, 0xdddddddd);
    free(fake);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("segment");

    tcase_add_test(tests, real_mode_load_keeps_limit_and_rights);
    tcase_add_test(tests, vm86_load_sets_limit_and_rights);
    tcase_add_test(tests, protected_load_reads_base_limit_and_rights);
    tcase_add_test(tests, descriptor_of_the_ldt_is_found);
    tcase_add_test(tests, load_that_ends_flatness_changes_the_mode_key);
    tcase_add_test(tests, stack_load_holds_interrupts_off);
    tcase_add_loop_test(tests, each_bad_load_has_its_error_code, 0, sizeof bad_loads / sizeof bad_loads[0]);
    tcase_add_test(tests, conforming_code_is_readable_from_every_level);
    tcase_add_test(tests, null_selector_empties_a_data_segment);
    tcase_add_test(tests, null_stack_is_allowed_in_64_bit_mode_below_level_3);
    tcase_add_test(tests, page_fault_of_the_accessed_bit_stops_the_load);
    tcase_add_test(tests, push_of_32_bits_leaves_the_upper_half_of_the_slot);
    tcase_add_test(tests, push_of_64_bits_is_zero_extended);
    tcase_add_test(tests, pop_moves_the_stack_only_when_the_load_succeeds);
    tcase_add_test(tests, far_pointer_loads_segment_and_register);
    tcase_add_test(tests, mov_from_segment_is_zero_extended_in_registers_and_16_bits_in_memory);
    tcase_add_test(tests, swapgs_exchanges_the_bases_at_level_0);
    tcase_add_test(tests, offset_is_cut_to_the_address_size);
    tcase_add_test(tests, rip_relative_offset_counts_from_the_next_instruction);
    tcase_add_test(tests, register_writes_merge_or_extend_by_size);
    return fake_run(tests);
}
