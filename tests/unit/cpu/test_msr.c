/* Model specific registers: cpu/msr.c. */
#include <stdlib.h>

#include "fake_cpu.h"

static bool read_msr(struct fake_cpu *fake, uint32_t index, uint64_t *value) {
    struct cpu_op op = fake_instruction(fake, 4);
    FAKE_GPR(fake, RCX) = 0xffffffff00000000 | index;
    FAKE_GPR(fake, RAX) = FAKE_GPR(fake, RDX) = ~0ull;
    if (cpu_op_rdmsr(&fake->cpu, &op) != CPU_NEXT) {
        ck_assert_int_eq(fake->cpu.exception.vector, VECTOR_GP);
        ck_assert_uint_eq(FAKE_GPR(fake, RAX), ~0ull);
        return false;
    }
    *value = FAKE_GPR(fake, RAX) | FAKE_GPR(fake, RDX) << 32;
    ck_assert_uint_eq((FAKE_GPR(fake, RAX) | FAKE_GPR(fake, RDX)) >> 32, 0);
    return true;
}

static bool write_msr(struct fake_cpu *fake, uint32_t index, uint64_t value) {
    struct cpu_op op = fake_instruction(fake, 4);
    FAKE_GPR(fake, RCX) = index;
    FAKE_GPR(fake, RAX) = 0xabcd000000000000 | (uint32_t)value;
    FAKE_GPR(fake, RDX) = 0xabcd000000000000 | value >> 32;
    return cpu_op_wrmsr(&fake->cpu, &op) != CPU_FAULT;
}

static void assert_round_trip(struct fake_cpu *fake, uint32_t index, uint64_t value) {
    uint64_t back = ~value;
    ck_assert_msg(write_msr(fake, index, value), "MSR %x refuses %llx", index, (unsigned long long)value);
    ck_assert(read_msr(fake, index, &back));
    ck_assert_msg(back == value, "MSR %x: %llx", index, (unsigned long long)back);
}

static void assert_refused(struct fake_cpu *fake, uint32_t index, uint64_t value) {
    ck_assert_msg(!write_msr(fake, index, value), "MSR %x takes %llx", index, (unsigned long long)value);
}

START_TEST(msrs_are_for_level_0) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG3, "host");
    uint64_t value;
    ck_assert(!read_msr(fake, 0xc0000080, &value));
    ck_assert(!write_msr(fake, 0xc0000080, 0x500));
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(unknown_msrs_fault) {
    static const uint32_t unknown[] = {0xa, 0x150, 0x1a2, 0x4b564d00, 0x40000000, 0xc0000104, 0xc0010117, 0xffffffff};
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "host");
    uint64_t value;
    for (unsigned i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
        ck_assert_msg(!read_msr(fake, unknown[i], &value), "%x", unknown[i]);
        assert_refused(fake, unknown[i], 0);
    }
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(storage_comes_back_and_addresses_are_canonical) {
    static const uint32_t addresses[] = {0xc0000082, 0xc0000083, 0xc0000100, 0xc0000101, 0xc0000102, 0x175, 0x176};
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "host");
    for (unsigned i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
        assert_round_trip(fake, addresses[i], 0xffff800012345678);
        assert_round_trip(fake, addresses[i], 0x00007fffffffffff);
        assert_refused(fake, addresses[i], 0x0000800000000000);
        assert_refused(fake, addresses[i], 0x8000000000000000);
    }
    assert_round_trip(fake, 0xc0000081, 0x0023001000000000);
    assert_round_trip(fake, 0xc0000084, 0x47700);
    assert_refused(fake, 0xc0000084, 1ull << 32);
    assert_round_trip(fake, 0xc0000103, 0xfff);
    assert_refused(fake, 0xc0000103, 1ull << 32);
    write_msr(fake, 0xc0000101, 0x1000);
    ck_assert_uint_eq(fake->cpu.segment[CPU_GS].base, 0x1000);
    ck_assert_uint_eq(fake->cpu.hot.segment[CPU_GS].base, 0x1000);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(efer_takes_known_bits_and_keeps_lma) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "host");
    struct cpu_op op = fake_instruction(fake, 4);
    uint64_t value;
    FAKE_GPR(fake, RCX) = 0xc0000080;
    FAKE_GPR(fake, RAX) = EFER_LME | EFER_NXE | EFER_SCE;
    FAKE_GPR(fake, RDX) = 0;
    ck_assert_int_eq(cpu_op_wrmsr(&fake->cpu, &op), CPU_JUMP);
    ck_assert_uint_eq(fake->cpu.hot.rip, FAKE_CODE + 2);
    ck_assert(read_msr(fake, 0xc0000080, &value));
    ck_assert_uint_eq(value, EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE);
    ck_assert_uint_eq(fake->flushes_all, 1);
    assert_refused(fake, 0xc0000080, 0);                      /* LME while paging */
    assert_refused(fake, 0xc0000080, EFER_LME | 1ull << 12);  /* SVME */
    assert_refused(fake, 0xc0000080, EFER_LME | 1ull << 1);
    fake_cpu_destroy(fake);
    fake = fake_cpu_create(FAKE_RING0, "pentium3");
    ck_assert(!read_msr(fake, 0xc0000080, &value));
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(counter_and_adjustment_move_together) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "host");
    uint64_t value;
    ck_assert(write_msr(fake, 0x10, 1ull << 40));
    ck_assert(read_msr(fake, 0x10, &value));
    ck_assert_uint_ge(value, 1ull << 40);
    ck_assert_uint_lt(value, (1ull << 40) + (1ull << 34));
    ck_assert(read_msr(fake, 0x3b, &value));
    ck_assert_int_eq((int64_t)value, fake->cpu.tsc_offset);
    ck_assert(write_msr(fake, 0x3b, 0));
    ck_assert_int_eq(fake->cpu.tsc_offset, 0);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(memory_types_are_checked) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "host");
    uint64_t value, all = (1ull << cpu_model_physical_bits(fake->cpu.model)) - 1;
    assert_round_trip(fake, 0x277, 0x0007040600070406);
    assert_refused(fake, 0x277, 2);
    assert_refused(fake, 0x277, 8ull << 56);
    static const uint32_t fixed[] = {0x250, 0x258, 0x259, 0x268, 0x26f};
    for (unsigned i = 0; i < 5; i++) {
        assert_round_trip(fake, fixed[i], 0x0606060605040100);
        assert_refused(fake, fixed[i], 7);
    }
    assert_round_trip(fake, 0x2ff, 0xc06);
    assert_refused(fake, 0x2ff, 0x1000);
    assert_refused(fake, 0x2ff, 3);
    assert_round_trip(fake, 0x200, 0x80000000 | 6);
    assert_refused(fake, 0x200, 0x106);
    assert_round_trip(fake, 0x20f, (all & ~0xfffull) | 0x800);
    assert_refused(fake, 0x20f, all + 1);
    assert_refused(fake, 0x20f, 0x400);
    ck_assert(read_msr(fake, 0xfe, &value));
    ck_assert_uint_eq(value & 0xff, 8);
    assert_refused(fake, 0xfe, value);
    ck_assert(!read_msr(fake, 0x210, &value));
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(apic_registers_go_to_the_controller) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "host");
    uint64_t value;
    ck_assert(read_msr(fake, 0x1b, &value));
    ck_assert_uint_eq(value, 0xfee00900);
    ck_assert(write_msr(fake, 0x1b, 0xfee00100));
    ck_assert_uint_eq(fake->apic_base, 0xfee00100);
    ck_assert(fake->cpu.apic_disabled);
    ck_assert(write_msr(fake, 0x1b, 0xfee00900));
    ck_assert(!fake->cpu.apic_disabled);
    ck_assert(!read_msr(fake, 0x802, &value)); /* the controller refuses */
    fake->cpu.interrupt_controller = (struct trapeze_interrupt_controller){0};
    ck_assert(!read_msr(fake, 0x1b, &value));
    ck_assert(!write_msr(fake, 0x6e0, 0));
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(stock_kernels_are_told_that_they_need_no_workarounds) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "host");
    uint64_t value;
    ck_assert(read_msr(fake, 0x10a, &value));
    ck_assert_uint_eq(value & 0x133, 0x133 & ~0ull);          /* RDCL_NO, IBRS_ALL, SSB_NO, MDS_NO, TAA_NO */
    ck_assert_uint_eq(value >> 20 & 1, 1);                    /* BHI_NO */
    assert_refused(fake, 0x10a, value);
    assert_round_trip(fake, 0x48, 1);
    assert_round_trip(fake, 0x48, 0x401); /* Linux clears branch history by a loop where there is no BHI_DIS_S */
    assert_refused(fake, 0x48, 4);
    ck_assert(write_msr(fake, 0x49, 1));
    ck_assert(!read_msr(fake, 0x49, &value));
    fake_cpu_destroy(fake);
    fake = fake_cpu_create(FAKE_LONG0, "host,-spec-ctrl");
    ck_assert(read_msr(fake, 0x10a, &value));
    ck_assert_uint_eq(value & 2, 0);
    ck_assert(!read_msr(fake, 0x48, &value));
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(old_models_lack_new_msrs) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_RING0, "pentium");
    uint64_t value;
    static const uint32_t absent[] = {0x1b, 0x174, 0x277, 0x200, 0x2ff, 0xc0000080, 0xc0000100, 0x10a, 0x3b};
    for (unsigned i = 0; i < sizeof absent / sizeof absent[0]; i++)
        ck_assert_msg(!read_msr(fake, absent[i], &value), "%x", absent[i]);
    ck_assert(read_msr(fake, 0x10, &value));
    fake_cpu_destroy(fake);
}
END_TEST

/* Since the K7 every AMD processor has four counters that no CPUID bit tells of. */
START_TEST(amd_models_take_writes_to_their_counters) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "qemu64");
    uint64_t value = 1;
    for (uint32_t index = 0xc0010000; index < 0xc0010008; index++) {
        ck_assert(write_msr(fake, index, 0x530076));
        ck_assert(read_msr(fake, index, &value));
        ck_assert_uint_eq(value, 0);
    }
    assert_refused(fake, 0xc0010008, 0);
    fake_cpu_destroy(fake);
}
END_TEST

/* Whatever a guest does to an MSR, it is a value or a fault. */
START_TEST(every_msr_answers_or_faults) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "host");
    uint64_t value;
    unsigned known = 0;
    for (uint32_t k = 0; k < 0x6000; k++) {
        uint32_t index = k < 0x2000 ? k : k < 0x4000 ? 0xc0000000 + k - 0x2000 : 0xc0010000 + k - 0x4000;
        known += read_msr(fake, index, &value);
        for (unsigned bit = 0; bit < 64; bit += 7)
            write_msr(fake, index, 1ull << bit);
    }
    ck_assert_uint_gt(known, 40);
    fake_cpu_destroy(fake);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("msr");
    tcase_add_test(tests, msrs_are_for_level_0);
    tcase_add_test(tests, unknown_msrs_fault);
    tcase_add_test(tests, storage_comes_back_and_addresses_are_canonical);
    tcase_add_test(tests, efer_takes_known_bits_and_keeps_lma);
    tcase_add_test(tests, counter_and_adjustment_move_together);
    tcase_add_test(tests, memory_types_are_checked);
    tcase_add_test(tests, apic_registers_go_to_the_controller);
    tcase_add_test(tests, stock_kernels_are_told_that_they_need_no_workarounds);
    tcase_add_test(tests, old_models_lack_new_msrs);
    tcase_add_test(tests, amd_models_take_writes_to_their_counters);
    tcase_add_test(tests, every_msr_answers_or_faults);
    return fake_cpu_run(tests);
}
