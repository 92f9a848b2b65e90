/* Instructions that the decoder keeps: with other displacements and immediates they are what Zydis makes of them anew. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/mode.h"
#include "tests/coverage/decoded_forms.h"
#include "translator/decode_cache.h"

enum { TRIES = 3, REPORTS = 20 };

static const struct form_flavour flavours[] = {
    {.rm = 3, .sib = 0x0b, .vvvv = 1, .reg = 1},
    {.rm = 4, .sib = 0x25, .vvvv = 4, .reg = 4},
    {.rm = 5, .sib = 0x1d, .vvvv = 3, .reg = 5, .extensions = 5, .prefix = 0x67},
    {.rm = 6, .sib = 0xe5, .vvvv = 14, .reg = 6, .extensions = 7, .prefix = 0x64},
    {.rm = 0, .sib = 0x44, .vvvv = 2, .reg = 2, .prefix = 0x66},
};

struct comparison {
    struct decoder *decoder;
    struct decode_cache *cache;
    uint32_t key;
    enum decode_mode mode;
    uint64_t random;
    unsigned tried, found, failures;
};

static uint8_t draw(struct comparison *c) {
    c->random = c->random * 6364136223846793005u + 1442695040888963407u;
    return (uint8_t)(c->random >> 56);
}

/* The padding of Zydis's structures is zero, so they compare as bytes. */
static bool is_same(const struct instruction *a, const struct instruction *b) {
    return !memcmp(a->z, b->z, sizeof *a->z) && !memcmp(a->bytes, b->bytes, a->z->length) &&
           !memcmp(a->operand, b->operand, a->z->operand_count * sizeof a->operand[0]) &&
           a->rule.kind == b->rule.kind && a->rule.class == b->rule.class && a->rule.flags == b->rule.flags &&
           a->rule.needs_vl == b->rule.needs_vl && a->rule.feature == b->rule.feature &&
           a->rule.function == b->rule.function;
}

static void complain(struct comparison *c, const uint8_t *bytes, const char *what) {
    if (c->failures++ >= REPORTS)
        return;
    fprintf(stderr, "mode %d, %s:", (int)c->mode, what);
    for (unsigned i = 0; i < FORM_BYTES; i++)
        fprintf(stderr, " %02x", bytes[i]);
    fputc('\n', stderr);
}

/* Whatever the cache makes of the bytes must be what the decoder does. */
static void compare(struct comparison *c, const uint8_t *bytes) {
    struct instruction fresh, kept;
    memset(&kept, 0xee, sizeof kept);
    c->tried++;
    if (!decode_cache_find(c->cache, c->mode, bytes, FORM_BYTES, &kept))
        return;
    c->found++;
    if (!decode(c->decoder, c->key, bytes, FORM_BYTES, 0, &fresh) || !is_same(&fresh, &kept))
        complain(c, bytes, "differs");
    if (decode_cache_find(c->cache, c->mode, bytes, fresh.z->length - 1u, &kept))
        complain(c, bytes, "found in fewer bytes than it has");
}

static void visit(void *opaque, const uint8_t *bytes) {
    struct comparison *c = opaque;
    struct instruction in;
    if (!decode(c->decoder, c->key, bytes, FORM_BYTES, 0, &in))
        return;
    decode_cache_keep(c->cache, c->mode, &in);
    compare(c, bytes);
    for (unsigned i = 0; i < TRIES; i++) {
        uint8_t other[FORM_BYTES];
        memcpy(other, bytes, sizeof other);
        unsigned behind = in.z->raw.disp.size ? in.z->raw.disp.offset : in.z->raw.imm[0].offset;
        for (unsigned k = behind ? behind : in.z->length; k < FORM_BYTES; k++)
            other[k] = draw(c);
        compare(c, other);
    }
}

static void setup(struct comparison *c, uint32_t key, enum decode_mode mode) {
    *c = (struct comparison){.decoder = decoded_forms_decoder(), .cache = decode_cache_create(), .key = key,
                             .mode = mode, .random = 1};
    ck_assert(c->decoder && c->cache);
}

static void finish(struct comparison *c, unsigned percent) {
    printf("mode %d: %u of %u found\n", (int)c->mode, c->found, c->tried);
    ck_assert_uint_eq(c->failures, 0);
    ck_assert_uint_ge(c->found, c->tried / 100 * percent);
    decoder_destroy(c->decoder);
    decode_cache_destroy(c->cache);
}

static void run(unsigned bits, uint32_t key, enum decode_mode mode) {
    struct comparison c;
    setup(&c, key, mode);
    for (unsigned i = 0; i < sizeof flavours / sizeof *flavours; i++)
        forms_visit(bits, &flavours[i], visit, &c);
    finish(&c, 70);
}

START_TEST(kept_64_bit_instructions_are_what_the_decoder_makes_of_them) {
    run(64, decoded_forms_key(64), DECODE_64);
}
END_TEST

START_TEST(kept_32_bit_instructions_are_what_the_decoder_makes_of_them) {
    run(32, decoded_forms_key(32), DECODE_32);
}
END_TEST

START_TEST(kept_16_bit_instructions_are_what_the_decoder_makes_of_them) {
    run(16, decoded_forms_key(16), DECODE_16);
    run(16, decoded_forms_key(16) & ~(uint32_t)MODE_PROTECTED, DECODE_REAL);
}
END_TEST

/* Bytes at random, with the prefixes and escapes that make them interesting. */
static void draw_bytes(struct comparison *c, uint8_t *bytes) {
    static const uint8_t starts[] = {0x66, 0x67, 0xf2, 0xf3, 0x0f, 0x48, 0x41, 0x62, 0xc4, 0xc5, 0x8f, 0x64, 0xf0, 0x4c};
    for (unsigned i = 0; i < FORM_BYTES; i++)
        bytes[i] = draw(c);
    for (unsigned i = 0, count = draw(c) % 4; i < count; i++)
        bytes[i] = starts[draw(c) % sizeof starts];
}

START_TEST(any_bytes_decode_alike) {
    for (unsigned mode = DECODE_16; mode <= DECODE_REAL; mode++) {
        struct comparison c;
        uint8_t bytes[FORM_BYTES], tail[FORM_BYTES];
        uint32_t key = decoded_forms_key(mode == DECODE_64 ? 64 : mode == DECODE_32 ? 32 : 16);
        setup(&c, mode == DECODE_REAL ? key & ~(uint32_t)MODE_PROTECTED : key, (enum decode_mode)mode);
        for (unsigned i = 0; i < 100000; i++) {
            draw_bytes(&c, bytes);
            visit(&c, bytes);
            memcpy(tail, bytes, sizeof tail); /* the same beginning, whatever that leads to */
            for (unsigned k = 1 + draw(&c) % 8; k < FORM_BYTES; k++)
                tail[k] = draw(&c);
            compare(&c, tail);
        }
        finish(&c, 40);
    }
}
END_TEST

/* More than there is room for: the records start over, and what is found is right still. */
START_TEST(a_full_cache_forgets_and_goes_on) {
    struct comparison c;
    setup(&c, decoded_forms_key(64), DECODE_64);
    for (uint32_t i = 0; i < 60000; i++) {
        /* add r, [base + index + disp32] with all REX bits, ModRM and SIB bytes in turn */
        uint8_t bytes[FORM_BYTES] = {(uint8_t)(0x40 | (i & 15)), 0x03, (uint8_t)(0x84 | (i >> 4 & 7) << 3),
                                     (uint8_t)(i >> 7), 0x11, 0x22, 0x33, 0x44};
        visit(&c, bytes);
    }
    finish(&c, 99);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("decode_cache");
    TCase *tests = tcase_create("decode_cache");
    tcase_set_timeout(tests, 250);
    tcase_add_test(tests, kept_64_bit_instructions_are_what_the_decoder_makes_of_them);
    tcase_add_test(tests, kept_32_bit_instructions_are_what_the_decoder_makes_of_them);
    tcase_add_test(tests, kept_16_bit_instructions_are_what_the_decoder_makes_of_them);
    tcase_add_test(tests, any_bytes_decode_alike);
    tcase_add_test(tests, a_full_cache_forgets_and_goes_on);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
