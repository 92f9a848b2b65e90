/* Gathers, scatters, byte-masked stores, MOVDIR64B on live registers: cpu/gather.c. */
#include <stdlib.h>
#include <string.h>

#include "cpu/model_internal.h"
#include "live_state.h"

enum { DATA = 3, INDEX = 9, MASK = 14, AREA = 0x2000 };

static struct fake_cpu *create(uint64_t needed) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "host");
    if (!cpu_has(&fake->cpu, FEATURE_AVX2) || (cpu_model_xcr0(fake->cpu.model) & needed) != needed) {
        fake_cpu_destroy(fake);
        return NULL;
    }
    fake->cpu.cr4 |= CR4_OSXSAVE | CR4_OSFXSR;
    fake->cpu.xcr0 = cpu_model_xcr0(fake->cpu.model);
    for (unsigned i = 0; i < FAKE_BYTES / 4; i++)
        fake_put(fake, 4 * i, 0x10000 + i, 4);
    return fake;
}

static struct cpu_op vsib(const struct fake_cpu *fake, unsigned length, unsigned element, unsigned index_size) {
    struct cpu_op op = fake_memory_operand(fake, element, AREA);
    op.reg = DATA;
    op.index = INDEX;
    op.vvvv = MASK;
    op.index_is_vector = 1;
    op.scale = 4;
    op.vector_length = (uint8_t)length;
    op.element_size = (uint8_t)element;
    op.index_size = (uint8_t)index_size;
    return op;
}

/* A state with these indices, and the sign bits of `mask` in register MASK and in k1. */
static void set_elements(const struct fake_cpu *fake, struct live_state *live, const struct cpu_op *op,
                         const int64_t *indices, unsigned count, uint64_t mask) {
    uint8_t index[64] = {0}, signs[64] = {0};
    live_fill(live, fake->cpu.xcr0, 1);
    for (unsigned i = 0; i < count; i++) {
        memcpy(index + i * op->index_size, &indices[i], op->index_size);
        if (mask >> i & 1)
            signs[(i + 1) * op->element_size - 1] = 0x80;
    }
    xstate_set_vector(&fake->cpu, live->image, INDEX, index);
    xstate_set_vector(&fake->cpu, live->image, MASK, signs);
    if (fake->cpu.xcr0 & XSTATE_OPMASK)
        xstate_set_opmask(&fake->cpu, live->image, 1, mask);
}

static bool is_zero(const uint8_t *bytes, unsigned count) {
    for (unsigned i = 0; i < count; i++)
        if (bytes[i])
            return false;
    return true;
}

START_TEST(avx2_gather_takes_selected_elements_and_clears_its_mask) {
    struct fake_cpu *fake = create(XSTATE_AVX);
    if (!fake)
        return;
    static const int64_t indices[8] = {0, 5, -7, 1000, 3, 3, -512, 77};
    struct cpu_op op = vsib(fake, 32, 4, 4);
    struct live_state live;
    uint32_t result[16], before[16];
    set_elements(fake, &live, &op, indices, 8, 0xb5);
    xstate_get_vector(&fake->cpu, live.image, DATA, before, 64);
    ck_assert_int_eq(live_run(cpu_op_gather, fake, &op, &live, fake->cpu.xcr0), CPU_NEXT);
    xstate_get_vector(&fake->cpu, live.image, DATA, result, 64);
    for (unsigned i = 0; i < 8; i++)
        ck_assert_uint_eq(result[i], 0xb5 >> i & 1 ? 0x10000 + AREA / 4 + (uint32_t)indices[i] : before[i]);
    ck_assert(!(fake->cpu.xcr0 & XSTATE_ZMM_HIGH) || is_zero((uint8_t *)result + 32, 32));
    xstate_get_vector(&fake->cpu, live.image, MASK, result, 32);
    ck_assert(is_zero((uint8_t *)result, 32));
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(quadword_indices_fill_half_a_register) {
    struct fake_cpu *fake = create(XSTATE_AVX);
    if (!fake)
        return;
    static const int64_t indices[4] = {1, 2, -3, 4};
    struct cpu_op op = vsib(fake, 32, 4, 8);
    struct live_state live;
    uint32_t result[8];
    set_elements(fake, &live, &op, indices, 4, 0xf);
    ck_assert_int_eq(live_run(cpu_op_gather, fake, &op, &live, fake->cpu.xcr0), CPU_NEXT);
    xstate_get_vector(&fake->cpu, live.image, DATA, result, 32);
    for (unsigned i = 0; i < 4; i++)
        ck_assert_uint_eq(result[i], 0x10000 + AREA / 4 + (uint32_t)indices[i]);
    ck_assert(is_zero((uint8_t *)result + 16, 16));
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(gather_that_faults_keeps_what_it_has) {
    struct fake_cpu *fake = create(XSTATE_AVX);
    if (!fake)
        return;
    static const int64_t indices[4] = {1, 0x400, 2, 3}; /* element 1 is on the absent page */
    struct cpu_op op = vsib(fake, 16, 4, 4);
    struct live_state live, before;
    uint32_t result[4], mask[4], old[4];
    fake->page[3] = PAGE_ABSENT;
    set_elements(fake, &live, &op, indices, 4, 0xf);
    memcpy(&before, &live, sizeof live);
    xstate_get_vector(&fake->cpu, live.image, DATA, old, 16);
    ck_assert_int_eq(fake_vector(fake, live_run(cpu_op_gather, fake, &op, &live, fake->cpu.xcr0)), VECTOR_PF);
    ck_assert_uint_eq(fake->cpu.exception.cr2, 0x3000);
    xstate_get_vector(&fake->cpu, live.image, DATA, result, 16);
    xstate_get_vector(&fake->cpu, live.image, MASK, mask, 16);
    ck_assert_uint_eq(result[0], 0x10000 + AREA / 4 + 1);
    ck_assert_uint_eq(result[1], old[1]);
    ck_assert_uint_eq(mask[0], 0);
    ck_assert_uint_eq(mask[1], 0x80000000);
    ck_assert_uint_eq(mask[3], 0x80000000);
    ck_assert(!memcmp(live.image + IMAGE_XMM + 16 * 5, before.image + IMAGE_XMM + 16 * 5, 16));
    fake->page[3] = PAGE_RAM;
    ck_assert_int_eq(live_run(cpu_op_gather, fake, &op, &live, fake->cpu.xcr0), CPU_NEXT);
    xstate_get_vector(&fake->cpu, live.image, DATA, result, 16);
    ck_assert_uint_eq(result[1], 0x10000 + 0x3000 / 4);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(gather_refuses_the_same_register_twice) {
    struct fake_cpu *fake = create(XSTATE_AVX);
    if (!fake)
        return;
    struct cpu_op op = vsib(fake, 16, 4, 4);
    op.vvvv = DATA;
    ck_assert_int_eq(fake_vector(fake, cpu_op_gather(&fake->cpu, &op)), VECTOR_UD);
    op.vvvv = INDEX;
    ck_assert_int_eq(fake_vector(fake, cpu_op_gather(&fake->cpu, &op)), VECTOR_UD);
    op = vsib(fake, 16, 4, 4);
    op.index = DATA;
    ck_assert_int_eq(fake_vector(fake, cpu_op_gather(&fake->cpu, &op)), VECTOR_UD);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(avx512_gather_uses_an_opmask_and_high_registers) {
    struct fake_cpu *fake = create(XSTATE_AVX512);
    if (!fake)
        return;
    static const int64_t indices[8] = {8, -8, 16, -16, 24, -24, 32, -32};
    struct cpu_op op = vsib(fake, 64, 8, 4);
    struct live_state live;
    uint64_t result[8], before[8];
    op.reg = 30;
    op.mask = 1;
    set_elements(fake, &live, &op, indices, 8, 0x5a);
    xstate_get_vector(&fake->cpu, live.image, 30, before, 64);
    ck_assert_int_eq(live_run(cpu_op_gather, fake, &op, &live, fake->cpu.xcr0), CPU_NEXT);
    xstate_get_vector(&fake->cpu, live.image, 30, result, 64);
    for (unsigned i = 0; i < 8; i++)
        ck_assert_uint_eq(result[i], 0x5a >> i & 1 ? fake_get(fake, AREA + (uint64_t)(4 * indices[i]), 8) : before[i]);
    ck_assert_uint_eq(xstate_get_opmask(&fake->cpu, live.image, 1), 0);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(scatter_stores_in_order_and_stops_at_a_fault) {
    struct fake_cpu *fake = create(XSTATE_AVX512);
    if (!fake)
        return;
    static const int64_t indices[4] = {1, 1, 0x400, 5};
    struct cpu_op op = vsib(fake, 16, 4, 4);
    struct live_state live;
    uint32_t data[4];
    op.mask = 1;
    fake->page[3] = PAGE_ABSENT;
    set_elements(fake, &live, &op, indices, 4, 0xf);
    xstate_get_vector(&fake->cpu, live.image, DATA, data, 16);
    ck_assert_int_eq(fake_vector(fake, live_run(cpu_op_scatter, fake, &op, &live, fake->cpu.xcr0)), VECTOR_PF);
    ck_assert_uint_eq(fake_get(fake, AREA + 4, 4), data[1]); /* the later of the two wins */
    ck_assert_uint_eq(xstate_get_opmask(&fake->cpu, live.image, 1), 0xc);
    ck_assert_uint_eq(fake_get(fake, AREA + 20, 4), 0x10000 + AREA / 4 + 5);
    fake->page[3] = PAGE_RAM;
    ck_assert_int_eq(live_run(cpu_op_scatter, fake, &op, &live, fake->cpu.xcr0), CPU_NEXT);
    ck_assert_uint_eq(fake_get(fake, 0x3000, 4), data[2]);
    ck_assert_uint_eq(fake_get(fake, AREA + 20, 4), data[3]);
    ck_assert_uint_eq(xstate_get_opmask(&fake->cpu, live.image, 1), 0);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(maskmovdqu_stores_selected_bytes_and_checks_only_them) {
    struct fake_cpu *fake = create(XSTATE_AVX);
    if (!fake)
        return;
    struct cpu_op op = fake_instruction(fake, 16);
    struct live_state live;
    uint8_t mask[64] = {0x80, 0x7f, 0xff, 0x80, 0, 0x80}, data[64], before[16];
    op.reg = 11;
    op.rm = 4;
    live_fill(&live, fake->cpu.xcr0, 1);
    xstate_set_vector(&fake->cpu, live.image, 4, mask);
    xstate_get_vector(&fake->cpu, live.image, 11, data, 16);
    FAKE_GPR(fake, RDI) = 0x2ffa;
    fake->page[3] = PAGE_ABSENT; /* bytes 6 to 15, none of them selected */
    memcpy(before, fake->memory + 0x2ffa, 16);
    ck_assert_int_eq(live_run(cpu_op_maskmov, fake, &op, &live, fake->cpu.xcr0), CPU_NEXT);
    for (unsigned i = 0; i < 16; i++)
        ck_assert_uint_eq(fake->memory[0x2ffa + i], mask[i] & 0x80 ? data[i] : before[i]);
    mask[6] = 0x80;
    xstate_set_vector(&fake->cpu, live.image, 4, mask);
    fake->memory[0x2ffa] ^= 0xff;
    uint8_t kept = fake->memory[0x2ffa];
    ck_assert_int_eq(fake_vector(fake, live_run(cpu_op_maskmov, fake, &op, &live, fake->cpu.xcr0)), VECTOR_PF);
    ck_assert_uint_eq(fake->memory[0x2ffa], kept);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(maskmovq_takes_mmx_registers) {
    struct fake_cpu *fake = create(XSTATE_AVX);
    if (!fake)
        return;
    struct cpu_op op = fake_instruction(fake, 8);
    struct live_state live;
    op.reg = 2;
    op.rm = 5;
    live_fill(&live, fake->cpu.xcr0, 1);
    memset(live.image + IMAGE_ST + 16 * 5, 0, 8);
    live.image[IMAGE_ST + 16 * 5 + 7] = 0x80;
    fake_put(fake, AREA, 0, 8);
    FAKE_GPR(fake, RDI) = AREA;
    ck_assert_int_eq(live_run(cpu_op_maskmov, fake, &op, &live, fake->cpu.xcr0), CPU_NEXT);
    ck_assert_uint_eq(fake_get(fake, AREA, 8), (uint64_t)live.image[IMAGE_ST + 16 * 2 + 7] << 56);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(movdir64b_copies_a_line_to_an_aligned_one) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "host");
    struct cpu_op op = fake_memory_operand(fake, 8, AREA + 3);
    op.reg = CPU_R10;
    for (unsigned i = 0; i < 64; i++)
        fake->memory[AREA + 3 + i] = (uint8_t)(i + 1);
    FAKE_GPR(fake, R10) = 0x5040;
    ck_assert_int_eq(cpu_op_movdir64b(&fake->cpu, &op), CPU_NEXT);
    ck_assert(!memcmp(fake->memory + 0x5040, fake->memory + AREA + 3, 64));
    FAKE_GPR(fake, R10) = 0x5060;
    ck_assert_int_eq(fake_vector(fake, cpu_op_movdir64b(&fake->cpu, &op)), VECTOR_GP);
    fake_cpu_destroy(fake);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("gather");
    tcase_add_test(tests, avx2_gather_takes_selected_elements_and_clears_its_mask);
    tcase_add_test(tests, quadword_indices_fill_half_a_register);
    tcase_add_test(tests, gather_that_faults_keeps_what_it_has);
    tcase_add_test(tests, gather_refuses_the_same_register_twice);
    tcase_add_test(tests, avx512_gather_uses_an_opmask_and_high_registers);
    tcase_add_test(tests, scatter_stores_in_order_and_stops_at_a_fault);
    tcase_add_test(tests, maskmovdqu_stores_selected_bytes_and_checks_only_them);
    tcase_add_test(tests, maskmovq_takes_mmx_registers);
    tcase_add_test(tests, movdir64b_copies_a_line_to_an_aligned_one);
    return fake_cpu_run(tests);
}
