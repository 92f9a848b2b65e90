/*
 * smoke COUNT [FILE...]: the files, then COUNT inputs, the same ones in every run: bytes at random, few different
 * bytes, words of the target's language, and changes of the input before. For builds without libFuzzer; finds less
 * than that, but in every run of the tests.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"

enum { INPUT_MAX = 1024 };

struct generator {
    uint64_t state;
    uint8_t bytes[INPUT_MAX];
    size_t size;
    unsigned words;
};

static uint64_t draw(struct generator *g, uint64_t below) {
    g->state ^= g->state << 13;
    g->state ^= g->state >> 7;
    g->state ^= g->state << 17;
    return (g->state >> 11) % below;
}

static void add(struct generator *g, const void *bytes, size_t size) {
    if (size > INPUT_MAX - g->size)
        size = INPUT_MAX - g->size;
    memcpy(g->bytes + g->size, bytes, size);
    g->size += size;
}

/* A word, a byte of a few favourites, or any byte. */
static void add_something(struct generator *g) {
    static const uint8_t favourites[] = {0, 1, 0x7f, 0x80, 0xff, ',', '=', '0', '\n', ' '};
    uint64_t choice = draw(g, 8);
    uint8_t byte = choice < 6 ? favourites[draw(g, sizeof favourites)] : (uint8_t)draw(g, 256);
    const struct fuzz_word *word = g->words && choice < 4 ? &fuzz_words[draw(g, g->words)] : NULL;
    add(g, word ? word->bytes : &byte, word ? word->size : 1);
}

static void make(struct generator *g) {
    size_t size = 1 + draw(g, draw(g, 4) ? 64 : INPUT_MAX);
    g->size = 0;
    while (g->size < size)
        add_something(g);
}

static void make_random(struct generator *g) {
    g->size = 1 + draw(g, draw(g, 4) ? 64 : INPUT_MAX);
    for (size_t i = 0; i < g->size; i++)
        g->bytes[i] = (uint8_t)draw(g, 256);
}

static void change(struct generator *g) {
    for (uint64_t i = 0, count = 1 + draw(g, 4); i < count && g->size; i++)
        g->bytes[draw(g, g->size)] = (uint8_t)draw(g, 256);
    if (draw(g, 4) == 0)
        g->size = draw(g, g->size + 1);
}

static void run_file(const char *path) {
    static uint8_t bytes[1 << 20];
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        exit(1);
    }
    size_t size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    LLVMFuzzerTestOneInput(bytes, size);
}

int main(int argc, char *argv[]) {
    static struct generator g = {.state = 0x9e3779b97f4a7c15};
    unsigned long count = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
    while (fuzz_words[g.words].bytes)
        g.words++;
    for (int i = 2; i < argc; i++)
        run_file(argv[i]);
    for (unsigned long i = 0; i < count; i++) {
        (i % 4 == 0 ? make_random : i % 4 == 1 ? make : i % 4 == 2 ? change : make)(&g);
        LLVMFuzzerTestOneInput(g.bytes, g.size);
    }
    printf("%lu inputs\n", count);
    return 0;
}
