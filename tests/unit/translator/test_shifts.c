/*
 * The shifts that the translator adds to a guest's code, as BMI2 does them and without it: run on the host, they give the
 * same and leave the flags alone.
 */
#include <Zydis/Zydis.h>
#include <check.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "translator/emit.h"
#include "translator/machine.h"

enum { SIZE = 4096, FLAGS = 0xcd5, FIXED_FLAGS = 0x202 };

/* One operation on `from`, the result in `to`; both and the flags as the code leaves them. */
typedef uint64_t code(uint64_t value, uint64_t flags, void *r, uint64_t mask, uint64_t *flags_after);

static uint8_t *memory;
enum { BEFORE_R = (sizeof(struct cpu) + 127) / 64 * 64 };
static _Alignas(64) uint8_t state[BEFORE_R + 64];

static void set_up(void) {
    memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(memory, MAP_FAILED);
}

static void tear_down(void) {
    munmap(memory, SIZE);
}

static struct emitter begin(bool lacks_bmi2) {
    struct emitter e = {.at = memory, .end = memory + SIZE, .lacks_bmi2 = lacks_bmi2};
    static const uint8_t start[] = {0x41, 0x55, /* push r13 */ 0x56, 0x9d /* push rsi; popfq */};
    emit_bytes(&e, start, sizeof start);
    emit_mov(&e, REG_R, HOST_RDX);
    emit_mov(&e, HOST_R10, HOST_RCX); /* the mask */
    return e;
}

static bool has_bmi2(const uint8_t *from, const uint8_t *to) {
    ZydisDecoder decoder;
    ZydisDecodedInstruction in;
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    for (; from < to; from += in.length) {
        ck_assert(ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, NULL, from, (ZyanUSize)(to - from), &in)));
        if (in.meta.isa_set == ZYDIS_ISA_SET_BMI2)
            return true;
    }
    return false;
}

static void finish_and_run(struct emitter *e, uint64_t value, uint64_t mask, uint64_t want) {
    static const uint8_t end[] = {0x9c, 0x41, 0x8f, 0x00, /* pushfq; pop [r8] */ 0x41, 0x5d, 0xfc, 0xc3 /* pop r13; cld; ret */};
    emit_mov(e, HOST_RAX, REG_A);
    emit_bytes(e, end, sizeof end);
    ck_assert(!e->overflow);
    ck_assert(has_bmi2(memory, e->at) == !e->lacks_bmi2);
    static const uint64_t flags[] = {0, FLAGS, 1, 0x40, 0x800, 0x400 | 0x10};
    for (unsigned i = 0; i < sizeof flags / sizeof *flags; i++) {
        uint64_t after = 0;
        /* R, by its low six bits. */
        uint64_t got = ((code *)(uintptr_t)memory)(value, flags[i] | FIXED_FLAGS, state + BEFORE_R + VIEW_R, mask, &after);
        ck_assert_uint_eq(got, want);
        ck_assert_uint_eq(after & FLAGS, flags[i]);
    }
}

static const uint64_t values[] = {0, 1, 0xfff, 0x1000, 0x7fffffff, 0x123456789abcdef0, 0x8000000000000000, 0xffffffffffffffff};
#define EACH_VALUE(i) (unsigned i = 0; i < sizeof values / sizeof *values; i++)

START_TEST(rotations_are_the_same) {
    static const unsigned counts[] = {1, 8, 12, 31, 32, 55, 63};
    for EACH_VALUE(i)
        for (unsigned k = 0; k < sizeof counts / sizeof *counts; k++) {
            struct emitter e = begin(_i);
            emit_rorx(&e, REG_A, HOST_RDI, counts[k]);
            finish_and_run(&e, values[i], 0, values[i] >> counts[k] | values[i] << (64 - counts[k]));
        }
}
END_TEST

START_TEST(signed_shifts_are_the_same) {
    for EACH_VALUE(i) {
        struct emitter e = begin(_i);
        emit_sar(&e, REG_A, HOST_RDI, 47);
        finish_and_run(&e, values[i], 0, (uint64_t)((int64_t)values[i] >> 47));
    }
}
END_TEST

START_TEST(page_numbers_are_the_same) {
    for EACH_VALUE(i) {
        struct emitter e = begin(_i);
        emit_mov(&e, REG_A, HOST_RDI);
        emit_page_number(&e, REG_A);
        finish_and_run(&e, values[i], 0, values[i] >> 12);
    }
}
END_TEST

START_TEST(bits_are_the_same) {
    static const unsigned shifts[] = {12, VIEW_CHECK_SHIFT, VIEW_REGION_SHIFT};
    for EACH_VALUE(i)
        for (unsigned k = 0; k < sizeof shifts / sizeof *shifts; k++) {
            struct emitter e = begin(_i);
            emit_bits16(&e, REG_A, HOST_RDI, shifts[k]);
            finish_and_run(&e, values[i], 0, values[i] >> shifts[k] & 0xffff);
        }
}
END_TEST

START_TEST(masks_are_the_same) {
    for EACH_VALUE(i)
        for EACH_VALUE(k) {
            struct emitter e = begin(_i);
            emit_mov(&e, REG_A, HOST_RDI);
            emit_keep(&e, REG_A, HOST_R10);
            finish_and_run(&e, values[i], values[k], values[i] & values[k]);
        }
}
END_TEST

START_TEST(stubs_do_without) {
    struct trapeze_machine *machine;
    const struct trapeze_config config = {.without = _i ? TRAPEZE_WITHOUT_BMI2 : 0};
    ck_assert_int_eq(trapeze_machine_create(&config, &machine, NULL), TRAPEZE_OK);
    const struct code_cache *cache = &machine->engine.cache;
    ck_assert(has_bmi2(cache->execute, cache->execute + cache->stub_size) == !_i);
    trapeze_machine_destroy(machine);
}
END_TEST

int main(void) {
    if (!__builtin_cpu_supports("bmi2"))
        return 77; /* what one half compares with */
    Suite *suite = suite_create("shifts");
    TCase *cases = tcase_create("shifts");
    tcase_add_checked_fixture(cases, set_up, tear_down);
    tcase_add_loop_test(cases, rotations_are_the_same, 0, 2);
    tcase_add_loop_test(cases, signed_shifts_are_the_same, 0, 2);
    tcase_add_loop_test(cases, page_numbers_are_the_same, 0, 2);
    tcase_add_loop_test(cases, bits_are_the_same, 0, 2);
    tcase_add_loop_test(cases, masks_are_the_same, 0, 2);
    tcase_add_loop_test(cases, stubs_do_without, 0, 2);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
