/*
 * What every fuzzer is made of: one function that takes bytes, and the words of its language. Two programs come of
 * each: with clang's fuzz preset a libFuzzer target (words.c helps its mutator), else a short test with the same inputs
 * in every run (smoke.c).
 */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* Always 0. Whatever the bytes are, it must come back soon; what must not happen is an abort(). */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz_word {
    const void *bytes;
    size_t size;
};
#define FUZZ_WORD(text)                                                                                                \
    { text, sizeof(text) - 1 }

/* Byte strings that mean something to the target; ended by {NULL, 0}. */
extern const struct fuzz_word fuzz_words[];

/* Bytes taken from the front of an input; zeros after its end. */
struct fuzz_input {
    const uint8_t *at, *end;
};

static inline uint64_t fuzz_take(struct fuzz_input *input, unsigned bytes) {
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes && input->at < input->end; i++)
        value |= (uint64_t)*input->at++ << 8 * i;
    return value;
}

#endif
