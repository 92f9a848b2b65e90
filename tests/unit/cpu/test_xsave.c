/* The XSAVE family, FXSAVE and FXRSTOR on live state: cpu/xsave.c, cpu/xstate.c. */
#include <stdlib.h>
#include <string.h>

#include "cpu/model_internal.h"
#include "live_state.h"

enum { AREA = 0x2000 };

/* A guest with everything enabled that the host has; NULL where that is not even AVX. */
static struct fake_cpu *create(enum fake_mode mode) {
    struct fake_cpu *fake = fake_cpu_create(mode, "host");
    if (!cpu_has(&fake->cpu, FEATURE_XSAVEC) || !cpu_has(&fake->cpu, FEATURE_AVX)) {
        fake_cpu_destroy(fake);
        return NULL;
    }
    fake->cpu.cr4 |= CR4_OSXSAVE | CR4_OSFXSR;
    fake->cpu.xcr0 = cpu_model_xcr0(fake->cpu.model);
    FAKE_GPR(fake, RAX) = FAKE_GPR(fake, RDX) = 0xffffffff;
    return fake;
}

static struct cpu_op area_op(const struct fake_cpu *fake, unsigned reg) {
    struct cpu_op op = fake_memory_operand(fake, 8, AREA);
    op.reg = (uint8_t)reg;
    return op;
}

static void assert_same_state(const struct fake_cpu *fake, const struct live_state *a, const struct live_state *b) {
    ck_assert(!memcmp(a->image, b->image, 6));
    ck_assert(!memcmp(a->image + IMAGE_MXCSR, b->image + IMAGE_MXCSR, 4));
    ck_assert(!memcmp(a->image + IMAGE_ST, b->image + IMAGE_ST, IMAGE_XMM_END - IMAGE_ST));
    for (unsigned i = 2; i < XSTATE_COMPONENTS; i++)
        if (fake->cpu.xcr0 >> i & 1)
            ck_assert_msg(!memcmp(a->image + fake->cpu.model->component[i].offset,
                                  b->image + fake->cpu.model->component[i].offset,
                                  fake->cpu.model->component[i].size),
                          "component %u", i);
}

static void check_round_trip(cpu_op_function *save, cpu_op_function *restore) {
    struct fake_cpu *fake = create(FAKE_LONG0);
    if (!fake)
        return;
    uint64_t all = fake->cpu.xcr0;
    struct live_state first, second, expected;
    struct cpu_op op = area_op(fake, 4);
    live_fill(&first, all, 1);
    live_fill(&second, all, 2);
    memcpy(&expected, &first, sizeof first);
    ck_assert_int_eq(live_run(save, fake, &op, &first, all), CPU_NEXT);
    assert_same_state(fake, &first, &expected);
    ck_assert_int_eq(live_run(restore, fake, &op, &second, all), CPU_NEXT);
    assert_same_state(fake, &second, &expected);
    /* No address of the host's: instruction and data pointers are zero. */
    ck_assert_uint_eq(fake_get(fake, AREA + 8, 8) | fake_get(fake, AREA + 16, 8), 0);
    fake_cpu_destroy(fake);
}

START_TEST(xrstor_brings_back_what_xsave_saved) {
    check_round_trip(cpu_op_xsave, cpu_op_xrstor);
}
END_TEST

START_TEST(xrstor_brings_back_what_xsavec_saved) {
    check_round_trip(cpu_op_xsavec, cpu_op_xrstor);
}
END_TEST

START_TEST(xrstors_brings_back_what_xsaves_saved) {
    check_round_trip(cpu_op_xsaves, cpu_op_xrstors);
}
END_TEST

static void check_pointers(cpu_op_function *save, cpu_op_function *restore, unsigned size, bool is_wide) {
    struct fake_cpu *fake = create(FAKE_LONG0);
    if (!fake)
        return;
    struct live_state live;
    struct cpu_op op = area_op(fake, 4);
    op.size = (uint8_t)size;
    live_fill(&live, fake->cpu.xcr0, 1);
    ck_assert_int_eq(live_run(save, fake, &op, &live, fake->cpu.xcr0), CPU_NEXT);
    fake_put(fake, AREA + 6, 0x765, 2);
    fake_put(fake, AREA + 8, 0x00007fff12345678, 8);
    fake_put(fake, AREA + 16, 0x00006ffe9abcdef0, 8);
    ck_assert_int_eq(live_run(restore, fake, &op, &live, fake->cpu.xcr0), CPU_NEXT);
    memset(fake->memory + AREA, 0, 512);
    ck_assert_int_eq(live_run(save, fake, &op, &live, fake->cpu.xcr0), CPU_NEXT);
    ck_assert_uint_eq(fake_get(fake, AREA + 6, 2), 0x765);
    ck_assert_uint_eq(fake_get(fake, AREA + 8, 8), 0x00007fff12345678);
    ck_assert_uint_eq(fake_get(fake, AREA + 16, 8), 0x00006ffe9abcdef0);
    ck_assert_uint_eq(fake->cpu.x87.instruction, is_wide ? 0x00007fff12345678 : 0x12345678);
    fake_cpu_destroy(fake);
}

/* With REX.W they have 64 bits, else 32 and a selector. */
START_TEST(loaded_x87_pointers_are_saved_again) {
    check_pointers(cpu_op_xsave, cpu_op_xrstor, 4, false);
    check_pointers(cpu_op_xsave, cpu_op_xrstor, 8, true);
    check_pointers(cpu_op_xsavec, cpu_op_xrstor, 8, true);
    check_pointers(cpu_op_fxsave, cpu_op_fxrstor, 4, false);
    check_pointers(cpu_op_fxsave, cpu_op_fxrstor, 8, true);
}
END_TEST

START_TEST(xsave_writes_the_asked_components_and_nothing_else) {
    struct fake_cpu *fake = create(FAKE_LONG0);
    if (!fake)
        return;
    struct live_state live;
    struct cpu_op op = area_op(fake, 4);
    memset(fake->memory + AREA, 0xcc, 0x1000);
    fake_put(fake, AREA + IMAGE_HEADER, 0x8000000000000002, 8);
    FAKE_GPR(fake, RAX) = XSTATE_AVX;
    FAKE_GPR(fake, RDX) = 0;
    live_fill(&live, fake->cpu.xcr0, 5);
    ck_assert_int_eq(live_run(cpu_op_xsave, fake, &op, &live, fake->cpu.xcr0), CPU_NEXT);
    ck_assert_uint_eq(fake_get(fake, AREA + IMAGE_HEADER, 8), 0x8000000000000006);
    ck_assert_uint_eq(fake_get(fake, AREA + IMAGE_HEADER + 8, 8), 0xcccccccccccccccc);
    ck_assert_uint_eq(fake_get(fake, AREA + IMAGE_MXCSR, 4), 0x3f80);
    ck_assert(!memcmp(fake->memory + AREA + 576, live.image + 576, 256));
    for (unsigned i = 0; i < 0x1000; i++) {
        bool is_written = (i >= IMAGE_MXCSR && i < IMAGE_ST) || (i >= IMAGE_HEADER && i < IMAGE_HEADER + 8) ||
                          (i >= 576 && i < 832);
        ck_assert_msg(is_written || fake->memory[AREA + i] == 0xcc, "byte %u", i);
    }
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(xsavec_and_xsaveopt_leave_initial_components_out) {
    struct fake_cpu *fake = create(FAKE_LONG0);
    if (!fake)
        return;
    struct live_state live;
    live_fill(&live, fake->cpu.xcr0, 0);
    *xstate_bv(live.image) = XSTATE_SSE;
    struct cpu_op op = area_op(fake, 4);
    memset(fake->memory + AREA, 0xcc, 0x1000);
    ck_assert_int_eq(live_run(cpu_op_xsavec, fake, &op, &live, fake->cpu.xcr0), CPU_NEXT);
    ck_assert_uint_eq(fake_get(fake, AREA + IMAGE_HEADER, 8), XSTATE_SSE);
    ck_assert_uint_eq(fake_get(fake, AREA + IMAGE_HEADER + 8, 8), 1ull << 63 | fake->cpu.xcr0);
    ck_assert_uint_eq(fake_get(fake, AREA + IMAGE_HEADER + 16, 8), 0xcccccccccccccccc);
    ck_assert_uint_eq(fake->memory[AREA], 0xcc);
    ck_assert_uint_eq(fake->memory[AREA + 576], 0xcc);
    ck_assert(!memcmp(fake->memory + AREA + IMAGE_XMM, live.image + IMAGE_XMM, 256));
    op.reg = 6;
    live_fill(&live, fake->cpu.xcr0, 0);
    *xstate_bv(live.image) = XSTATE_SSE;
    memset(fake->memory + AREA, 0xcc, 0x1000);
    ck_assert_int_eq(live_run(cpu_op_xsave, fake, &op, &live, fake->cpu.xcr0), CPU_NEXT);
    ck_assert_uint_eq(fake_get(fake, AREA + IMAGE_HEADER, 8) & fake->cpu.xcr0, XSTATE_SSE);
    ck_assert_uint_eq(fake->memory[AREA + 576], 0xcc);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(compacted_offsets_follow_the_components_asked_for) {
    struct fake_cpu *fake = create(FAKE_LONG0);
    if (!fake)
        return;
    if (!(fake->cpu.xcr0 & XSTATE_AVX512)) {
        fake_cpu_destroy(fake);
        return;
    }
    struct live_state live;
    live_fill(&live, fake->cpu.xcr0, 9);
    struct cpu_op op = area_op(fake, 4);
    FAKE_GPR(fake, RAX) = XSTATE_OPMASK | XSTATE_ZMM_HIGH;
    FAKE_GPR(fake, RDX) = 0;
    ck_assert_int_eq(live_run(cpu_op_xsavec, fake, &op, &live, fake->cpu.xcr0), CPU_NEXT);
    const struct cpu_model *model = fake->cpu.model;
    ck_assert(!memcmp(fake->memory + AREA + 576, live.image + model->component[5].offset, 64));
    ck_assert(!memcmp(fake->memory + AREA + 640, live.image + model->component[6].offset, 512));
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(xrstor_initialises_what_the_image_does_not_hold) {
    struct fake_cpu *fake = create(FAKE_LONG0);
    if (!fake)
        return;
    struct live_state live;
    static const uint8_t zeros[256];
    live_fill(&live, fake->cpu.xcr0, 3);
    fake_put(fake, AREA + IMAGE_MXCSR, 0x1f80, 4);
    struct cpu_op op = area_op(fake, 5);
    FAKE_GPR(fake, RAX) = XSTATE_SSE | XSTATE_X87;
    ck_assert_int_eq(live_run(cpu_op_xrstor, fake, &op, &live, fake->cpu.xcr0), CPU_NEXT);
    ck_assert(!memcmp(live.image + IMAGE_XMM, zeros, 256));
    ck_assert(memcmp(live.image + 576, zeros, 256)); /* AVX was not asked for */
    ck_assert_uint_eq(live.image[0] | live.image[1] << 8, 0x37f);
    ck_assert_uint_eq(live.image[4], 0);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(xrstor_refuses_bad_images_before_any_change) {
    static const struct {
        unsigned offset;
        uint64_t value;
    } rows[] = {
        {IMAGE_HEADER, 1ull << 9},                 /* XSTATE_BV beyond XCR0 */
        {IMAGE_HEADER, 1ull << 63},
        {IMAGE_HEADER + 8, 1},                     /* XCOMP_BV without its format bit */
        {IMAGE_HEADER + 16, 1},                    /* reserved */
        {IMAGE_HEADER + 8, 1ull << 63 | 1 << 9},   /* compacted, beyond XCR0 */
        {IMAGE_HEADER + 8, 1ull << 63},            /* compacted, XSTATE_BV (7) not in XCOMP_BV */
        {IMAGE_MXCSR, 1ull << 31},
    };
    struct fake_cpu *fake = create(FAKE_LONG0);
    if (!fake)
        return;
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct live_state live, before;
        live_fill(&live, fake->cpu.xcr0, i);
        memcpy(&before, &live, sizeof live);
        memset(fake->memory + AREA, 0, 0x1000);
        fake_put(fake, AREA + IMAGE_HEADER, 7, 8);
        fake_put(fake, AREA + rows[i].offset, rows[i].value, 8);
        struct cpu_op op = area_op(fake, 5);
        enum cpu_result result = live_run(cpu_op_xrstor, fake, &op, &live, fake->cpu.xcr0);
        ck_assert_msg(fake_vector(fake, result) == VECTOR_GP, "row %u", i);
        assert_same_state(fake, &live, &before);
    }
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(checks_come_in_order_and_before_memory) {
    struct fake_cpu *fake = create(FAKE_LONG3);
    if (!fake)
        return;
    struct cpu_op op = area_op(fake, 4);
    ck_assert_int_eq(fake_vector(fake, cpu_op_xsaves(&fake->cpu, &op)), VECTOR_GP);
    ck_assert_int_eq(fake_vector(fake, cpu_op_xrstors(&fake->cpu, &op)), VECTOR_GP);
    op.displacement += 8;
    ck_assert_int_eq(fake_vector(fake, cpu_op_xsave(&fake->cpu, &op)), VECTOR_GP);
    ck_assert_int_eq(fake_vector(fake, cpu_op_fxsave(&fake->cpu, &op)), VECTOR_GP);
    fake->cpu.cr0 |= CR0_TS;
    ck_assert_int_eq(fake_vector(fake, cpu_op_xsave(&fake->cpu, &op)), VECTOR_NM);
    ck_assert_int_eq(fake_vector(fake, cpu_op_xrstor(&fake->cpu, &op)), VECTOR_NM);
    ck_assert_int_eq(fake_vector(fake, cpu_op_fxrstor(&fake->cpu, &op)), VECTOR_NM);
    fake->cpu.cr4 &= ~CR4_OSXSAVE;
    ck_assert_int_eq(fake_vector(fake, cpu_op_xsave(&fake->cpu, &op)), VECTOR_UD);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(fault_on_the_second_page_saves_nothing) {
    struct fake_cpu *fake = create(FAKE_LONG0);
    if (!fake)
        return;
    struct live_state live;
    live_fill(&live, fake->cpu.xcr0, 3);
    fake->page[3] = PAGE_ABSENT;
    struct cpu_op op = fake_memory_operand(fake, 8, 0x2d40); /* 704 bytes before the end of the page */
    ck_assert_int_eq(fake_vector(fake, live_run(cpu_op_xsave, fake, &op, &live, fake->cpu.xcr0)), VECTOR_PF);
    for (unsigned i = 0xd40; i < 0x1000; i++)
        ck_assert_uint_eq(fake->memory[0x2000 + i], 0);
    FAKE_GPR(fake, RAX) = 3; /* 576 bytes fit */
    FAKE_GPR(fake, RDX) = 0;
    ck_assert_int_eq(live_run(cpu_op_xsave, fake, &op, &live, fake->cpu.xcr0), CPU_NEXT);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(code_of_32_bits_reaches_the_lower_registers_only) {
    struct fake_cpu *fake = create(FAKE_RING0);
    if (!fake)
        return;
    struct live_state live, before;
    uint64_t all = fake->cpu.xcr0;
    struct cpu_op op = area_op(fake, 4);
    memset(fake->memory + AREA, 0xcc, 0x1000);
    live_fill(&live, all, 1);
    ck_assert_int_eq(live_run(cpu_op_xsave, fake, &op, &live, all), CPU_NEXT);
    ck_assert(!memcmp(fake->memory + AREA + IMAGE_XMM, live.image + IMAGE_XMM, 128));
    ck_assert_uint_eq(fake->memory[AREA + IMAGE_XMM + 128], 0xcc);
    ck_assert_uint_eq(fake->memory[AREA + 576 + 128], 0xcc);
    memset(fake->memory + AREA, 0, 0x1000);
    fake_put(fake, AREA + IMAGE_HEADER, 7, 8);
    fake_put(fake, AREA + IMAGE_MXCSR, 0x1f80, 4);
    fake_put(fake, AREA + IMAGE_XMM, 0x1234, 4);
    fake_put(fake, AREA + IMAGE_XMM + 128, 0xbad, 4);
    live_fill(&live, all, 7);
    memcpy(&before, &live, sizeof live);
    ck_assert_int_eq(live_run(cpu_op_xrstor, fake, &op, &live, all), CPU_NEXT);
    ck_assert_uint_eq(live.image[IMAGE_XMM] | live.image[IMAGE_XMM + 1] << 8, 0x1234);
    ck_assert(!memcmp(live.image + IMAGE_XMM + 128, before.image + IMAGE_XMM + 128, 128));
    ck_assert(!memcmp(live.image + 576 + 128, before.image + 576 + 128, 128));
    ck_assert_uint_eq(live.image[576], 0);
    live_fill(&live, all, 7);
    ck_assert_int_eq(live_run(cpu_op_fxrstor, fake, &op, &live, all), CPU_NEXT);
    ck_assert_uint_eq(live.image[IMAGE_XMM] | live.image[IMAGE_XMM + 1] << 8, 0x1234);
    ck_assert(!memcmp(live.image + IMAGE_XMM + 128, before.image + IMAGE_XMM + 128, 128));
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(fxrstor_brings_back_what_fxsave_saved) {
    struct fake_cpu *fake = create(FAKE_LONG0);
    if (!fake)
        return;
    struct live_state first, second;
    struct cpu_op op = fake_memory_operand(fake, 8, AREA + 0x10);
    memset(fake->memory + AREA, 0xcc, 0x1000);
    live_fill(&first, fake->cpu.xcr0, 1);
    live_fill(&second, fake->cpu.xcr0, 2);
    ck_assert_int_eq(live_run(cpu_op_fxsave, fake, &op, &first, fake->cpu.xcr0), CPU_NEXT);
    ck_assert_uint_eq(fake_get(fake, AREA + 0x18, 8) | fake_get(fake, AREA + 0x20, 8), 0);
    ck_assert_uint_eq(fake->memory[AREA + 0x10 + IMAGE_XMM_END], 0xcc);
    ck_assert_int_eq(live_run(cpu_op_fxrstor, fake, &op, &second, fake->cpu.xcr0), CPU_NEXT);
    ck_assert(!memcmp(first.image + IMAGE_ST, second.image + IMAGE_ST, IMAGE_XMM_END - IMAGE_ST));
    ck_assert(!memcmp(first.image + IMAGE_MXCSR, second.image + IMAGE_MXCSR, 4));
    ck_assert(memcmp(first.image + 576, second.image + 576, 256));
    fake_put(fake, AREA + 0x10 + IMAGE_MXCSR, 1u << 16, 4);
    ck_assert_int_eq(fake_vector(fake, live_run(cpu_op_fxrstor, fake, &op, &second, fake->cpu.xcr0)), VECTOR_GP);
    fake_cpu_destroy(fake);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("xsave");
    tcase_add_test(tests, xrstor_brings_back_what_xsave_saved);
    tcase_add_test(tests, xrstor_brings_back_what_xsavec_saved);
    tcase_add_test(tests, xrstors_brings_back_what_xsaves_saved);
    tcase_add_test(tests, loaded_x87_pointers_are_saved_again);
    tcase_add_test(tests, xsave_writes_the_asked_components_and_nothing_else);
    tcase_add_test(tests, xsavec_and_xsaveopt_leave_initial_components_out);
    tcase_add_test(tests, compacted_offsets_follow_the_components_asked_for);
    tcase_add_test(tests, xrstor_initialises_what_the_image_does_not_hold);
    tcase_add_test(tests, xrstor_refuses_bad_images_before_any_change);
    tcase_add_test(tests, checks_come_in_order_and_before_memory);
    tcase_add_test(tests, fault_on_the_second_page_saves_nothing);
    tcase_add_test(tests, code_of_32_bits_reaches_the_lower_registers_only);
    tcase_add_test(tests, fxrstor_brings_back_what_fxsave_saved);
    return fake_cpu_run(tests);
}
