/* libFuzzer's mutations, and every now and then a word of the target's language put somewhere. */
#include <string.h>

#include "tests/fuzz/fuzz.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

static size_t insert_word(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
    unsigned count = 0;
    while (fuzz_words[count].bytes)
        count++;
    if (count == 0)
        return 0;
    const struct fuzz_word *word = &fuzz_words[seed / 4 % count];
    size_t at = size ? seed / 1024 % (size + 1) : 0;
    if (size + word->size > max_size)
        return 0;
    memmove(data + at + word->size, data + at, size - at);
    memcpy(data + at, word->bytes, word->size);
    return size + word->size;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
    size_t new_size = seed % 4 == 0 ? insert_word(data, size, max_size, seed) : 0;
    return new_size ? new_size : LLVMFuzzerMutate(data, size, max_size);
}
