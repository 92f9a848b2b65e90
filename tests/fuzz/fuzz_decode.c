/*
 * Instructions that the decoder keeps, on any bytes in any mode: what comes out of the cache is what Zydis says anew.
 * The cache lives on from input to input.
 */
#include <stdlib.h>
#include <string.h>

#include "cpu/mode.h"
#include "tests/coverage/decoded_forms.h"
#include "tests/fuzz/fuzz.h"

const struct fuzz_word fuzz_words[] = {
    FUZZ_WORD("\x66"),
    FUZZ_WORD("\x67"),
    FUZZ_WORD("\xf2"),
    FUZZ_WORD("\xf3"),
    FUZZ_WORD("\x48"),
    FUZZ_WORD("\x4f"),
    FUZZ_WORD("\x0f"),
    FUZZ_WORD("\x0f\x38"),
    FUZZ_WORD("\x0f\x3a"),
    FUZZ_WORD("\x0f\x20"),
    FUZZ_WORD("\xa1"),
    FUZZ_WORD("\xc4\xe2\x79"),
    FUZZ_WORD("\xc4\xe3\x79\x4a"),
    FUZZ_WORD("\xc5\xf8"),
    FUZZ_WORD("\x62\xf1\x7c\x48"),
    FUZZ_WORD("\x8f\xe8\x78"),
    FUZZ_WORD("\x84\x24"),
    {NULL, 0},
};

static uint32_t key_of(unsigned mode) {
    switch (mode & 3) {
    case 0:
        return decoded_forms_key(16);
    case 1:
        return decoded_forms_key(32);
    case 2:
        return decoded_forms_key(64);
    default:
        return decoded_forms_key(16) & ~(uint32_t)MODE_PROTECTED;
    }
}

static bool is_same(const struct instruction *a, const struct instruction *b) {
    return !memcmp(a->z, b->z, sizeof *a->z) && a->rule.kind == b->rule.kind && a->rule.function == b->rule.function &&
           a->rule.class == b->rule.class && !memcmp(a->bytes, b->bytes, a->z->length) &&
           !memcmp(a->operand, b->operand, a->z->operand_count * sizeof a->operand[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct decoder *decoder;
    if (!decoder && !(decoder = decoded_forms_decoder()))
        abort();
    uint32_t key = key_of(size ? data[0] : 0);
    for (size_t at = 1; at < size; at++) {
        struct instruction fresh, cached;
        unsigned available = size - at < 15 ? (unsigned)(size - at) : 15;
        bool valid = decode(decoder, key, data + at, available, at, &fresh);
        if (decode_cached(decoder, key, data + at, available, at, &cached) != valid)
            abort();
        if (valid && (!is_same(&fresh, &cached) || cached.rip != at))
            abort();
    }
    return 0;
}
