/* The x87 environment in its four layouts: cpu/x87.c. */
#include <stdlib.h>
#include <string.h>

#include "live_state.h"

enum { AREA = 0x2000, X87 = XSTATE_X87 | XSTATE_SSE };

static void load_state(struct live_state *live, uint16_t control, uint16_t status) {
    live_fill(live, X87, 3);
    memcpy(live->image, &control, 2);
    memcpy(live->image + 2, &status, 2);
    live->image[4] = 0x81; /* R0 and R7 */
}

static uint16_t word(const struct live_state *live, unsigned offset) {
    return (uint16_t)(live->image[offset] | live->image[offset + 1] << 8);
}

START_TEST(fnstenv_has_a_layout_for_each_mode_and_masks_exceptions) {
    static const struct {
        enum fake_mode mode;
        unsigned size, status_at, tag_at, bytes;
        uint16_t filler;
    } rows[] = {
        {FAKE_LONG0, 4, 4, 8, 28, 0xffff},
        {FAKE_RING0, 2, 2, 4, 14, 0},
        {FAKE_REAL, 2, 2, 4, 14, 0},
        {FAKE_REAL, 4, 4, 8, 28, 0xffff},
        {FAKE_VM86, 2, 2, 4, 14, 0},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct fake_cpu *fake = fake_cpu_create(rows[i].mode, "qemu64");
        struct cpu_op op = fake_memory_operand(fake, rows[i].size, AREA);
        struct live_state live;
        memset(fake->memory + AREA, 0xcc, 256);
        load_state(&live, 0x360, 0x3800);
        ck_assert_int_eq(live_run(cpu_op_fnstenv, fake, &op, &live, X87), CPU_NEXT);
        ck_assert_uint_eq(fake_get(fake, AREA, 2), 0x360);
        ck_assert_uint_eq(fake_get(fake, AREA + rows[i].status_at, 2), 0x3800);
        /* 1 and 0 of the two registers in use, 11 for the empty ones; fill patterns are not zero or special. */
        ck_assert_uint_eq(fake_get(fake, AREA + rows[i].tag_at, 2) & 0x3ffc, 0x3ffc);
        if (rows[i].size == 4)
            ck_assert_uint_eq(fake_get(fake, AREA + 2, 2), rows[i].filler);
        ck_assert_uint_eq(fake_get(fake, AREA + 3 * rows[i].size, 2), 0); /* instruction pointer */
        ck_assert_uint_eq(fake->memory[AREA + rows[i].bytes], 0xcc);
        ck_assert_uint_ne(fake->memory[AREA + rows[i].bytes - 1], 0xcc);
        ck_assert_uint_eq(word(&live, 0) & 0x3f, 0x3f);
        fake_cpu_destroy(fake);
    }
}
END_TEST

START_TEST(fldenv_takes_what_fnstenv_gave) {
    static const struct {
        enum fake_mode mode;
        unsigned size;
    } rows[] = {{FAKE_LONG0, 4}, {FAKE_RING0, 2}, {FAKE_REAL, 2}, {FAKE_REAL, 4}, {FAKE_RING0, 14}, {FAKE_RING0, 28}};
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct fake_cpu *fake = fake_cpu_create(rows[i].mode, "qemu64");
        struct cpu_op op = fake_memory_operand(fake, rows[i].size, AREA);
        struct live_state live;
        load_state(&live, 0x37f, 0x3800);
        ck_assert_int_eq(live_run(cpu_op_fnstenv, fake, &op, &live, X87), CPU_NEXT);
        fake_put(fake, AREA, 0x27f, 2);
        load_state(&live, 0x37f, 0);
        live.image[4] = 0;
        ck_assert_int_eq(live_run(cpu_op_fldenv, fake, &op, &live, X87), CPU_NEXT);
        ck_assert_uint_eq(word(&live, 0), 0x27f);
        ck_assert_uint_eq(word(&live, 2), 0x3800);
        ck_assert_uint_eq(live.image[4], 0x81);
        fake_cpu_destroy(fake);
    }
}
END_TEST

START_TEST(frstor_brings_back_what_fnsave_saved_and_reset) {
    for (unsigned size = 2; size <= 4; size += 2) {
        struct fake_cpu *fake = fake_cpu_create(FAKE_RING0, "pentium");
        struct cpu_op op = fake_memory_operand(fake, size, AREA);
        struct live_state live, before;
        load_state(&live, 0x27f, 0x3800);
        memcpy(&before, &live, sizeof live);
        ck_assert_int_eq(live_run(cpu_op_fnsave, fake, &op, &live, X87), CPU_NEXT);
        ck_assert_uint_eq(word(&live, 0), 0x37f);
        ck_assert_uint_eq(live.image[4], 0);
        ck_assert(!memcmp(fake->memory + AREA + 7 * size, before.image + IMAGE_ST, 10));
        ck_assert_int_eq(live_run(cpu_op_frstor, fake, &op, &live, X87), CPU_NEXT);
        ck_assert(!memcmp(live.image, before.image, 6));
        ck_assert(!memcmp(live.image + IMAGE_ST, before.image + IMAGE_ST, 128));
        fake_cpu_destroy(fake);
    }
}
END_TEST

/* Pointers that the guest has loaded come back in every layout, and FNSAVE forgets them. */
START_TEST(loaded_pointers_are_stored_again) {
    static const struct {
        enum fake_mode mode;
        unsigned size;
        uint32_t instruction, code, data, selector; /* as they lie in the environment, with the opcode's place */
    } rows[] = {
        {FAKE_LONG0, 4, 0x89abcdef, 0x07450033, 0x12345678, 0xffff002b},
        {FAKE_RING0, 4, 0x00401000, 0x0123001b, 0xbffff000, 0xffff0023},
        {FAKE_RING0, 2, 0x1234, 0x001b, 0xfff0, 0x0023},
        {FAKE_REAL, 4, 0xffff5678, 0x00001745, 0xffff9abc, 0x0000f000},
        {FAKE_REAL, 2, 0x5678, 0x1745, 0x9abc, 0xf000},
        {FAKE_VM86, 2, 0x5678, 0x1745, 0x9abc, 0xf000},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct fake_cpu *fake = fake_cpu_create(rows[i].mode, "qemu64");
        unsigned size = rows[i].size;
        struct cpu_op op = fake_memory_operand(fake, size, AREA);
        const uint32_t pointers[4] = {rows[i].instruction, rows[i].code, rows[i].data, rows[i].selector};
        struct live_state live;
        load_state(&live, 0x27f, 0x3800);
        ck_assert_int_eq(live_run(cpu_op_fnstenv, fake, &op, &live, X87), CPU_NEXT);
        for (unsigned k = 0; k < 4; k++)
            fake_put(fake, AREA + (3 + k) * size, pointers[k], size);
        ck_assert_int_eq(live_run(cpu_op_fldenv, fake, &op, &live, X87), CPU_NEXT);
        for (unsigned round = 0; round < 2; round++) {
            memset(fake->memory + AREA, 0xcc, 256);
            ck_assert_int_eq(live_run(round ? cpu_op_fnsave : cpu_op_fnstenv, fake, &op, &live, X87), CPU_NEXT);
            for (unsigned k = 0; k < 4; k++)
                ck_assert_uint_eq(fake_get(fake, AREA + (3 + k) * size, size), pointers[k]);
        }
        ck_assert_uint_eq(fake->cpu.x87.instruction | fake->cpu.x87.data | fake->cpu.x87.opcode, 0);
        fake_cpu_destroy(fake);
    }
}
END_TEST

static unsigned told;

static void tell(void *opaque) {
    ck_assert_ptr_eq(opaque, &told);
    told++;
}

START_TEST(error_without_ne_is_told_by_ferr_and_waits) {
    const struct trapeze_config config = {.io = {.fp_error = tell, .opaque = &told}};
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "qemu64");
    struct cpu_op op = fake_memory_operand(fake, 4, AREA);
    struct live_state live;
    fake->cpu.config = &config;
    fake->cpu.cr0 &= ~CR0_NE;
    load_state(&live, 0x37e, 0x8081);
    ck_assert_int_eq(live_run(cpu_op_frstor, fake, &op, &live, X87), CPU_STOP);
    ck_assert_int_eq(fake->cpu.stop, CPU_STOP_WAIT);
    ck_assert_uint_eq(told, 1);
    fake->cpu.cr0 |= CR0_NE;
    load_state(&live, 0x37e, 0x8081);
    ck_assert_int_eq(fake_vector(fake, live_run(cpu_op_frstor, fake, &op, &live, X87)), VECTOR_MF);
    ck_assert_uint_eq(told, 1);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(store_that_faults_leaves_the_exceptions_unmasked) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "qemu64");
    struct cpu_op op = fake_memory_operand(fake, 4, 0x2ff0);
    struct live_state live;
    fake->page[3] = PAGE_ABSENT;
    load_state(&live, 0x360, 0);
    ck_assert_int_eq(fake_vector(fake, live_run(cpu_op_fnsave, fake, &op, &live, X87)), VECTOR_PF);
    ck_assert_uint_eq(word(&live, 0), 0x360);
    ck_assert_uint_eq(live.image[4], 0x81);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(pending_exception_comes_before_a_load_and_not_before_a_store) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "qemu64");
    struct cpu_op op = fake_memory_operand(fake, 4, AREA);
    struct live_state live;
    load_state(&live, 0x37e, 0x8081); /* invalid operation, unmasked: ES and B */
    ck_assert_int_eq(fake_vector(fake, live_run(cpu_op_fldenv, fake, &op, &live, X87)), VECTOR_MF);
    load_state(&live, 0x37e, 0x8081);
    ck_assert_int_eq(live_run(cpu_op_fnstenv, fake, &op, &live, X87), CPU_NEXT);
    ck_assert_uint_eq(fake_get(fake, AREA + 4, 1), 0x81);
    fake_cpu_destroy(fake);
}
END_TEST

START_TEST(lazy_switching_traps) {
    struct fake_cpu *fake = fake_cpu_create(FAKE_LONG0, "qemu64");
    struct cpu_op op = fake_memory_operand(fake, 4, AREA);
    static cpu_op_function *const functions[] = {cpu_op_fnstenv, cpu_op_fnsave, cpu_op_fldenv, cpu_op_frstor};
    for (unsigned i = 0; i < 8; i++) {
        fake->cpu.cr0 &= ~(CR0_TS | CR0_EM);
        fake->cpu.cr0 |= i & 1 ? CR0_TS : CR0_EM;
        ck_assert_int_eq(fake_vector(fake, functions[i / 2](&fake->cpu, &op)), VECTOR_NM);
    }
    fake_cpu_destroy(fake);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("x87");
    tcase_add_test(tests, fnstenv_has_a_layout_for_each_mode_and_masks_exceptions);
    tcase_add_test(tests, fldenv_takes_what_fnstenv_gave);
    tcase_add_test(tests, frstor_brings_back_what_fnsave_saved_and_reset);
    tcase_add_test(tests, loaded_pointers_are_stored_again);
    tcase_add_test(tests, error_without_ne_is_told_by_ferr_and_waits);
    tcase_add_test(tests, store_that_faults_leaves_the_exceptions_unmasked);
    tcase_add_test(tests, pending_exception_comes_before_a_load_and_not_before_a_store);
    tcase_add_test(tests, lazy_switching_traps);
    return fake_cpu_run(tests);
}
