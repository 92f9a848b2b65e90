/* Decimal adjustments, BOUND, PUSHA, POPA, ENTER: cpu/legacy.c. */
#include <stdlib.h>
#include <string.h>

#include "fake_cpu.h"

/* What an adjustment does to AX and the carries, as the manual's pseudo-code has it. */
struct digits {
    unsigned al, ah;
    bool af, cf;
};

static struct digits manual_aaa(struct digits d) {
    if ((d.al & 0x0f) > 9 || d.af) {
        unsigned ax = d.ah << 8 | d.al;
        ax += 0x106;
        d.al = ax & 0xff, d.ah = ax >> 8 & 0xff;
        d.af = d.cf = true;
    } else {
        d.af = d.cf = false;
    }
    d.al &= 0x0f;
    return d;
}

static struct digits manual_aas(struct digits d) {
    if ((d.al & 0x0f) > 9 || d.af) {
        unsigned ax = (d.ah << 8 | d.al) - 6;
        d.al = ax & 0xff, d.ah = ((ax >> 8) - 1) & 0xff;
        d.af = d.cf = true;
    } else {
        d.af = d.cf = false;
    }
    d.al &= 0x0f;
    return d;
}

static struct digits manual_daa(struct digits d) {
    unsigned old_al = d.al;
    bool old_cf = d.cf;
    d.cf = false;
    if ((d.al & 0x0f) > 9 || d.af) {
        d.cf = old_cf || d.al + 6 > 0xff;
        d.al = (d.al + 6) & 0xff;
        d.af = true;
    } else {
        d.af = false;
    }
    if (old_al > 0x99 || old_cf) {
        d.al = (d.al + 0x60) & 0xff;
        d.cf = true;
    } else {
        d.cf = false;
    }
    return d;
}

static struct digits manual_das(struct digits d) {
    unsigned old_al = d.al;
    bool old_cf = d.cf;
    d.cf = false;
    if ((d.al & 0x0f) > 9 || d.af) {
        d.cf = old_cf || d.al < 6;
        d.al = (d.al - 6) & 0xff;
        d.af = true;
    } else {
        d.af = false;
    }
    if (old_al > 0x99 || old_cf) {
        d.al = (d.al - 0x60) & 0xff;
        d.cf = true;
    }
    return d;
}

static void check_adjustment(cpu_op_function *run, struct digits (*manual)(struct digits), bool has_szp) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_RING0, "pentium");
    struct cpu_op op = fake_instruction(fake, 1);
    for (unsigned k = 0; k < 0x10000 * 4; k++) {
        struct digits before = {.al = k & 0xff, .ah = k >> 8 & 0xff, .af = k >> 16 & 1, .cf = k >> 17 & 1};
        struct digits after = manual(before);
        FAKE_GPR(fake, RAX) = 0xabcd0000u | (k & 0xffff);
        fake->cpu.hot.rflags = FLAG_FIXED | FLAG_IF | (before.af ? FLAG_AF : 0) | (before.cf ? FLAG_CF : 0);
        ck_assert_int_eq(run(&fake->cpu, &op), CPU_NEXT);
        uint64_t flags = fake->cpu.hot.rflags;
        bool is_right = FAKE_GPR(fake, RAX) == (0xabcd0000u | after.ah << 8 | after.al) &&
                        ((flags & FLAG_AF) != 0) == after.af && ((flags & FLAG_CF) != 0) == after.cf &&
                        (flags & FLAG_IF);
        if (has_szp)
            is_right = is_right && ((flags & FLAG_ZF) != 0) == !after.al &&
                       ((flags & FLAG_SF) != 0) == (after.al > 127) &&
                       ((flags & FLAG_PF) != 0) == !__builtin_parity(after.al);
        ck_assert_msg(is_right, "ax %04x af %d cf %d: %llx", k & 0xffff, before.af, before.cf,
                      (unsigned long long)FAKE_GPR(fake, RAX));
    }
    fake_cpu_destroy(fake);
}

START_TEST(aaa_is_the_manuals) {
    check_adjustment(cpu_op_aaa, manual_aaa, false);
}
END_TEST

START_TEST(aas_is_the_manuals) {
    check_adjustment(cpu_op_aas, manual_aas, false);
}
END_TEST

START_TEST(daa_is_the_manuals) {
    check_adjustment(cpu_op_daa, manual_daa, true);
}
END_TEST

START_TEST(das_is_the_manuals) {
    check_adjustment(cpu_op_das, manual_das, true);
}
END_TEST

START_TEST(aam_divides_and_aad_multiplies_by_any_base) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_RING0, "pentium");
    struct cpu_op op = fake_instruction(fake, 1);
    for (unsigned base = 1; base < 256; base++) {
        for (unsigned al = 0; al < 256; al++) {
            op.immediate = (uint64_t)(int64_t)(int8_t)base;
            FAKE_GPR(fake, RAX) = 0x770000 | al;
            ck_assert_int_eq(cpu_op_aam(&fake->cpu, &op), CPU_NEXT);
            ck_assert_uint_eq(FAKE_GPR(fake, RAX), 0x770000 | (al / base) << 8 | al % base);
            ck_assert_int_eq(cpu_op_aad(&fake->cpu, &op), CPU_NEXT);
            ck_assert_uint_eq(FAKE_GPR(fake, RAX), 0x770000 | al);
            ck_assert_int_eq((fake->cpu.hot.rflags & FLAG_ZF) != 0, al == 0);
        }
    }
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(aam_by_zero_is_a_divide_error) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_RING0, "pentium");
    struct cpu_op op = fake_instruction(fake, 1);
    FAKE_GPR(fake, RAX) = 0x1234;
    ck_assert_int_eq(fake_vector(fake, cpu_op_aam(&fake->cpu, &op)), VECTOR_DE);
    ck_assert_uint_eq(FAKE_GPR(fake, RAX), 0x1234);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(salc_spreads_the_carry) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_RING0, "pentium");
    struct cpu_op op = fake_instruction(fake, 1);
    FAKE_GPR(fake, RAX) = 0x1234;
    fake->cpu.hot.rflags |= FLAG_CF;
    cpu_op_salc(&fake->cpu, &op);
    ck_assert_uint_eq(FAKE_GPR(fake, RAX), 0x12ff);
    fake->cpu.hot.rflags = FLAG_FIXED;
    cpu_op_salc(&fake->cpu, &op);
    ck_assert_uint_eq(FAKE_GPR(fake, RAX), 0x1200);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(bound_compares_signed_and_inclusive) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_RING0, "pentium");
    struct cpu_op op = fake_memory_operand(fake, 4, 0x2000); /* a pair of words */
    op.reg = CPU_RBX;
    fake_put(fake, 0x2000, 0xfffe, 2);
    fake_put(fake, 0x2002, 5, 2);
    static const struct {
        uint16_t index;
        int vector;
    } rows[] = {{0xfffe, -1}, {0xfffd, VECTOR_BR}, {5, -1}, {6, VECTOR_BR}, {0, -1}, {0x8000, VECTOR_BR}};
    for (unsigned i = 0; i < 6; i++) {
        FAKE_GPR(fake, RBX) = 0xffff0000 | rows[i].index;
        ck_assert_int_eq(fake_vector(fake, cpu_op_bound(&fake->cpu, &op)), rows[i].vector);
    }
    op.size = 8;
    fake_put(fake, 0x2000, 0x10000, 4);
    fake_put(fake, 0x2004, 0x20000, 4);
    FAKE_GPR(fake, RBX) = 0x20000;
    ck_assert_int_eq(cpu_op_bound(&fake->cpu, &op), CPU_NEXT);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(popa_undoes_pusha_except_for_sp) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_RING0, "pentium");
    struct cpu_op op = fake_instruction(fake, 4);
    for (unsigned i = 0; i < 8; i++)
        if (i != CPU_RSP)
            fake->cpu.hot.gpr[i] = 0x11111111u * (i + 1);
    ck_assert_int_eq(cpu_op_pusha(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK - 32);
    ck_assert_uint_eq(fake_get(fake, FAKE_STACK - 4, 4), 0x11111111);
    ck_assert_uint_eq(fake_get(fake, FAKE_STACK - 20, 4), FAKE_STACK);
    ck_assert_uint_eq(fake_get(fake, FAKE_STACK - 32, 4), 0x88888888);
    memset(fake->cpu.hot.gpr, 0, 4 * 8);
    memset(fake->cpu.hot.gpr + 5, 0, 3 * 8);
    fake_put(fake, FAKE_STACK - 20, 0xbad, 4);
    ck_assert_int_eq(cpu_op_popa(&fake->cpu, &op), CPU_NEXT);
    for (unsigned i = 0; i < 8; i++)
        ck_assert_uint_eq(fake->cpu.hot.gpr[i], i == CPU_RSP ? FAKE_STACK : 0x11111111u * (i + 1));
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(enter_makes_frames_and_displays) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "qemu64");
    struct cpu_op op = fake_instruction(fake, 8);
    op.immediate = 0x20;
    FAKE_GPR(fake, RBP) = 0x7000;
    ck_assert_int_eq(cpu_op_enter(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_eq(FAKE_GPR(fake, RBP), FAKE_STACK - 8);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK - 8 - 0x20);
    ck_assert_uint_eq(fake_get(fake, FAKE_STACK - 8, 8), 0x7000);

    cpu_rsp(&fake->cpu) = FAKE_STACK;
    FAKE_GPR(fake, RBP) = 0x7000;
    fake_put(fake, 0x6ff8, 0xaaaa, 8);
    fake_put(fake, 0x6ff0, 0xbbbb, 8);
    op.immediate2 = 3;
    ck_assert_int_eq(cpu_op_enter(&fake->cpu, &op), CPU_NEXT);
    ck_assert_uint_eq(fake_get(fake, FAKE_STACK - 16, 8), 0xaaaa);
    ck_assert_uint_eq(fake_get(fake, FAKE_STACK - 24, 8), 0xbbbb);
    ck_assert_uint_eq(fake_get(fake, FAKE_STACK - 32, 8), FAKE_STACK - 8);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK - 32 - 0x20);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(enter_faults_before_it_moves_the_pointers) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "qemu64");
    struct cpu_op op = fake_instruction(fake, 8);
    op.immediate = 0x1800;
    fake->page[6] = PAGE_ABSENT;
    FAKE_GPR(fake, RBP) = 0x1234;
    ck_assert_int_eq(fake_vector(fake, cpu_op_enter(&fake->cpu, &op)), VECTOR_PF);
    ck_assert_uint_eq(cpu_rsp(&fake->cpu), FAKE_STACK);
    ck_assert_uint_eq(FAKE_GPR(fake, RBP), 0x1234);
    fake_cpu_destroy(fake);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("legacy");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, aaa_is_the_manuals);
    tcase_add_test(tests, aas_is_the_manuals);
    tcase_add_test(tests, daa_is_the_manuals);
    tcase_add_test(tests, das_is_the_manuals);
    tcase_add_test(tests, aam_divides_and_aad_multiplies_by_any_base);
    tcase_add_test(tests, aam_by_zero_is_a_divide_error);
    tcase_add_test(tests, salc_spreads_the_carry);
    tcase_add_test(tests, bound_compares_signed_and_inclusive);
    tcase_add_test(tests, popa_undoes_pusha_except_for_sp);
    tcase_add_test(tests, enter_makes_frames_and_displays);
    tcase_add_test(tests, enter_faults_before_it_moves_the_pointers);
    return fake_cpu_run(tests);
}
