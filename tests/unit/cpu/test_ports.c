/* IN, OUT, INS, OUTS and the I/O permission bitmap: cpu/ports.c. */
#include <stdlib.h>
#include <string.h>

#include "fake_cpu.h"

enum { BITMAP = 0x68 };

static void make_bitmap(struct fake_cpu *fake, unsigned bytes) {
    fake_put(fake, FAKE_TSS + 0x66, BITMAP, 2);
    memset(fake->memory + FAKE_TSS + BITMAP, 0, bytes);
    fake->memory[FAKE_TSS + BITMAP + bytes] = 0xff;
    fake->cpu.tr.limit = BITMAP + bytes;
}

static int in(struct fake_cpu *fake, uint16_t port, unsigned size) {
    struct cpu_op op = fake_instruction(fake, size);
    op.opcode = 0xed;
    FAKE_GPR(fake, RDX) = 0xabcd0000u | port;
    return fake_vector(fake, cpu_op_in(&fake->cpu, &op));
}

START_TEST(in_merges_and_out_sends_the_accumulator) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "host");
    FAKE_GPR(fake, RAX) = 0x1122334455667788;
    fake->port_value = 0x99;
    struct cpu_op op = fake_instruction(fake, 1);
    op.opcode = 0xe4;
    op.immediate = (uint64_t)(int64_t)(int8_t)0xfe;
    ck_assert_int_eq(cpu_op_in(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_eq(FAKE_GPR(fake, RAX), 0x1122334455667799);
    ck_assert_uint_eq(fake->ports[0].port, 0xfe);
    op.opcode = 0xef;
    op.size = 4;
    FAKE_GPR(fake, RDX) = 0xcf8;
    ck_assert_int_eq(cpu_op_out(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_eq(fake->ports[1].port, 0xcf8);
    ck_assert_uint_eq(fake->ports[1].size, 4);
    ck_assert_uint_eq(fake->ports[1].value, 0x55667799);
    op.opcode = 0xed;
    fake->port_value = 0xffffffff;
    ck_assert_int_eq(cpu_op_in(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_eq(FAKE_GPR(fake, RAX), 0xffffffff);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(bitmap_decides_where_iopl_does_not) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_RING3, "host");
    make_bitmap(fake, 0x80);
    ck_assert_int_eq(in(fake, 0x60, 1), -1);
    fake->memory[FAKE_TSS + BITMAP + 0x60 / 8] = 2; /* port 61h */
    ck_assert_int_eq(in(fake, 0x60, 1), -1);
    ck_assert_int_eq(in(fake, 0x61, 1), VECTOR_GP);
    ck_assert_int_eq(in(fake, 0x60, 2), VECTOR_GP);
    ck_assert_int_eq(in(fake, 0x5e, 4), VECTOR_GP);
    ck_assert_int_eq(in(fake, 0x5d, 4), -1);
    /* The last port of the map needs the byte of ones behind it, and nothing lies past that. */
    ck_assert_int_eq(in(fake, 0x3ff, 1), -1);
    ck_assert_int_eq(in(fake, 0x3ff, 2), VECTOR_GP);
    ck_assert_int_eq(in(fake, 0x400, 1), VECTOR_GP);
    ck_assert_int_eq(in(fake, 0xffff, 1), VECTOR_GP);
    fake->cpu.hot.rflags |= FLAG_IOPL;
    ck_assert_int_eq(in(fake, 0xffff, 1), -1);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(vm86_uses_the_bitmap_whatever_iopl_is) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_VM86, "host");
    make_bitmap(fake, 8);
    fake->cpu.hot.rflags |= FLAG_IOPL;
    ck_assert_int_eq(in(fake, 0x20, 1), -1);
    ck_assert_int_eq(in(fake, 0x60, 1), VECTOR_GP);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(tss_of_16_bits_or_without_room_forbids) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_RING3, "host");
    make_bitmap(fake, 0x80);
    fake->cpu.tr.attributes = 0x83;
    ck_assert_int_eq(in(fake, 0x60, 1), VECTOR_GP);
    fake->cpu.tr.attributes = 0x8b;
    fake->cpu.tr.limit = 0x66;
    ck_assert_int_eq(in(fake, 0x60, 1), VECTOR_GP);
    ck_assert_uint_eq(fake->port_count, 0);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(rep_ins_fills_memory_and_stops_at_a_fault_before_reading) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "host");
    struct cpu_op op = fake_instruction(fake, 2);
    op.rep = CPU_REP;
    fake->page[6] = PAGE_ABSENT;
    FAKE_GPR(fake, RDI) = 0x5ffc;
    FAKE_GPR(fake, RCX) = 4;
    FAKE_GPR(fake, RDX) = 0x1f0;
    fake->port_value = 0x1111;
    ck_assert_int_eq(fake_vector(fake, cpu_op_ins(&fake->cpu, &op)), VECTOR_PF);
    ck_assert_uint_eq(fake->port_count, 2);
    ck_assert_uint_eq(fake_get(fake, 0x5ffc, 4), 0x11121111);
    ck_assert_uint_eq(FAKE_GPR(fake, RDI), 0x6000);
    ck_assert_uint_eq(FAKE_GPR(fake, RCX), 2);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(rep_outs_goes_backward_and_gives_way) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "host");
    struct cpu_op op = fake_instruction(fake, 1);
    op.rep = CPU_REP;
    fake->cpu.hot.rflags |= FLAG_DF;
    fake_put(fake, 0x2000, 0x04030201, 4);
    FAKE_GPR(fake, RSI) = 0x2003;
    FAKE_GPR(fake, RCX) = 4;
    fake->cpu.hot.run = 0;
    ck_assert_int_eq(cpu_op_outs(&fake->cpu, &op), CPU_JUMP);
    ck_assert_uint_eq(FAKE_GPR(fake, RCX), 3);
    ck_assert(fake->cpu.hot.rflags & FLAG_RF); /* for the frame of what interrupts it */
    ck_assert_uint_eq(fake->cpu.paused_string, fake->cpu.hot.rip);
    fake->cpu.hot.run = 1;
    ck_assert_int_eq(cpu_op_outs(&fake->cpu, &op), CPU_NEXT);
    for (unsigned i = 0; i < 4; i++)
        ck_assert_uint_eq(fake->ports[i].value, 4 - i);
    ck_assert_uint_eq(FAKE_GPR(fake, RSI), 0x1fff);
    fake_cpu_destroy(fake);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("ports");
    tcase_add_test(tests, in_merges_and_out_sends_the_accumulator);
    tcase_add_test(tests, bitmap_decides_where_iopl_does_not);
    tcase_add_test(tests, vm86_uses_the_bitmap_whatever_iopl_is);
    tcase_add_test(tests, tss_of_16_bits_or_without_room_forbids);
    tcase_add_test(tests, rep_ins_fills_memory_and_stops_at_a_fault_before_reading);
    tcase_add_test(tests, rep_outs_goes_backward_and_gives_way);
    return fake_cpu_run(tests);
}
