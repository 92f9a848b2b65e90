/* Copies that are kept with decoded instructions: the second time, with another immediate, the code is what a machine makes
   that meets the instruction for the first time. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/coverage/decoded_forms.h"
#include "tests/coverage/one_block.h"

enum { RIP = 0x100, REPORTS = 10 };

static const struct form_flavour flavours[] = {
    {.rm = 3, .sib = 0x0b, .vvvv = 1, .reg = 1},
    {.rm = 2, .sib = 0x32, .vvvv = 11, .reg = 3, .extensions = 5},
    {.rm = 4, .sib = 0x25, .vvvv = 4, .reg = 4, .prefix = 0x66},
};

struct comparison {
    struct one_block used, fresh;
    struct decoder *decoder;
    unsigned bits, compared, with_immediate, failures;
};

/* Host code of the instruction in front of a NOP, NULL: it leaves the block. */
static const uint8_t *translate(struct one_block *bench, uint32_t key, const uint8_t *bytes, unsigned length,
                                unsigned *size) {
    memset(bench->ram + RIP, 0x90, 32);
    memcpy(bench->ram + RIP, bytes, length);
    const struct block *block = one_block_translate(bench, RIP, key);
    if (!block || block->instruction_count < 2)
        return NULL;
    struct map_reader reader = block_map(block);
    map_next(&reader);
    unsigned start = reader.now.host;
    map_next(&reader);
    *size = reader.now.host - start;
    return block->host + start;
}

static void visit(void *opaque, const uint8_t *bytes) {
    struct comparison *c = opaque;
    uint32_t key = decoded_forms_key(c->bits);
    struct instruction in;
    if (!decode(c->decoder, key, bytes, FORM_BYTES, RIP, &in) || in.rule.kind != RULE_COPY ||
        decoded_forms_has_memory(&in))
        return;
    if (in.z->mnemonic == ZYDIS_MNEMONIC_DIV || in.z->mnemonic == ZYDIS_MNEMONIC_IDIV)
        return; /* they have a way out of their own, so they are made each time */
    uint8_t other[FORM_BYTES];
    unsigned length = in.z->length, first_size, size, fresh_size, immediate = in.z->raw.imm[0].size / 8u;
    memcpy(other, bytes, sizeof other);
    for (unsigned i = 0; i < immediate; i++)
        other[in.z->raw.imm[0].offset + i] = (uint8_t)(0x5a + 0x27 * i);
    const uint8_t *first = translate(&c->used, key, bytes, length, &first_size);
    const uint8_t *again = translate(&c->used, key, other, length, &size);
    const uint8_t *fresh = translate(&c->fresh, key, other, length, &fresh_size);
    if (!first && !again && !fresh)
        return;
    c->compared++;
    c->with_immediate += immediate != 0;
    if (first && again && fresh && size == fresh_size && !memcmp(again, fresh, size))
        return;
    if (c->failures++ < REPORTS) {
        fprintf(stderr, "%u-bit code:", c->bits);
        for (unsigned i = 0; i < length; i++)
            fprintf(stderr, " %02x", other[i]);
        fputc('\n', stderr);
    }
}

static void run(unsigned bits) {
    struct comparison c = {.bits = bits, .decoder = decoded_forms_decoder()};
    ck_assert(c.decoder && one_block_create(&c.used) && one_block_create(&c.fresh));
    for (unsigned i = 0; i < sizeof flavours / sizeof *flavours; i++)
        forms_visit(bits, &flavours[i], visit, &c);
    printf("%u-bit: %u compared, %u with an immediate\n", bits, c.compared, c.with_immediate);
    ck_assert_uint_eq(c.failures, 0);
    ck_assert_uint_ge(c.compared, 5000);
    ck_assert_uint_ge(c.with_immediate, 500);
    one_block_destroy(&c.used);
    one_block_destroy(&c.fresh);
    decoder_destroy(c.decoder);
}

START_TEST(copies_made_again_in_64_bit_code_are_those_of_the_first_time) {
    run(64);
}
END_TEST

START_TEST(copies_made_again_in_32_bit_code_are_those_of_the_first_time) {
    run(32);
}
END_TEST

START_TEST(copies_made_again_in_16_bit_code_are_those_of_the_first_time) {
    run(16);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("copy_template");
    TCase *tests = tcase_create("copy_template");
    tcase_set_timeout(tests, 250);
    tcase_add_test(tests, copies_made_again_in_64_bit_code_are_those_of_the_first_time);
    tcase_add_test(tests, copies_made_again_in_32_bit_code_are_those_of_the_first_time);
    tcase_add_test(tests, copies_made_again_in_16_bit_code_are_those_of_the_first_time);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
