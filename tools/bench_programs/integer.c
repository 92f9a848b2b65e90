/* The user group: integer work without system calls, each with its own mixture of branches, calls and memory. */
#include "tools/bench_programs/program.h"

#include <string.h>

static uint64_t integer_mix(void *state, uint64_t count) {
    (void)state;
    uint32_t a = 1, b = 2, c = 3, d = 4;
    for (uint64_t i = 0; i < count; i++) {
        a += (b << 3) ^ (uint32_t)i;
        b = (b >> 5 | b << 27) + a * 7;
        c ^= a & b;
        if (c & 0x10)
            d += c / ((a & 0xff) + 3);
        else
            d -= (c >> 2) | b;
    }
    return (uint64_t)(a ^ c) << 32 | (b ^ d);
}

static const uint32_t sha256_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate_right(uint32_t value, unsigned by) {
    return value >> by | value << (32 - by);
}

/* FIPS 180-4, section 6.2.2. */
static void sha256_block(uint32_t hash[8], uint32_t w[64]) {
    uint32_t a = hash[0], b = hash[1], c = hash[2], d = hash[3], e = hash[4], f = hash[5], g = hash[6], h = hash[7];
    for (int i = 16; i < 64; i++) {
        uint32_t low = rotate_right(w[i - 15], 7) ^ rotate_right(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t high = rotate_right(w[i - 2], 17) ^ rotate_right(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + low + w[i - 7] + high;
    }
    for (int i = 0; i < 64; i++) {
        uint32_t sum = rotate_right(e, 6) ^ rotate_right(e, 11) ^ rotate_right(e, 25);
        uint32_t first = h + sum + ((e & f) ^ (~e & g)) + sha256_constants[i] + w[i];
        sum = rotate_right(a, 2) ^ rotate_right(a, 13) ^ rotate_right(a, 22);
        uint32_t second = sum + ((a & b) ^ (a & c) ^ (b & c));
        h = g, g = f, f = e, e = d + first;
        d = c, c = b, b = a, a = first + second;
    }
    hash[0] += a, hash[1] += b, hash[2] += c, hash[3] += d;
    hash[4] += e, hash[5] += f, hash[6] += g, hash[7] += h;
}

static uint64_t sha256(void *state, uint64_t count) {
    (void)state;
    uint32_t hash[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    uint32_t words[64];
    for (uint64_t i = 0; i < count; i++) {
        for (uint32_t j = 0; j < 16; j++)
            words[j] = (uint32_t)i * 16 + j;
        sha256_block(hash, words);
    }
    return (uint64_t)hash[0] << 32 | hash[7];
}

enum operation { PUSH, ADD, XOR, MULTIPLY, ROTATE, DUPLICATE, SWAP, COUNT_DOWN, JUMP_NOT_ZERO, HALT };

/* A stack machine whose every operation ends in an indirect jump of its own. */
static uint64_t bytecode(void *state, uint64_t count) {
    (void)state;
    static const uint8_t code[] = {
        PUSH, 17,       ADD,        DUPLICATE,     ROTATE, XOR, PUSH, 3,      SWAP, ADD, PUSH,
        29,   MULTIPLY, DUPLICATE,  PUSH,          5,      XOR, ADD,  ROTATE, SWAP, ADD, PUSH,
        1,    XOR,      COUNT_DOWN, JUMP_NOT_ZERO, HALT};
    static const void *const labels[] = {&&push,      &&add,  &&xor,        &&multiply,      &&rotate,
                                         &&duplicate, &&swap, &&count_down, &&jump_not_zero, &&halt};
    uint32_t stack[16] = {1, 2}, *top = &stack[1], left = (uint32_t)count, other;
    const uint8_t *next = code;
#define NEXT goto *labels[*next++]
    NEXT;
push:
    *++top = *next++;
    NEXT;
add:
    top--;
    top[0] += top[1];
    NEXT;
    xor : top--;
    top[0] ^= top[1];
    NEXT;
multiply:
    top--;
    top[0] *= top[1];
    NEXT;
rotate:
    top[0] = rotate_right(top[0], 7);
    NEXT;
duplicate:
    top++;
    top[0] = top[-1];
    NEXT;
swap:
    other = top[0];
    top[0] = top[-1];
    top[-1] = other;
    NEXT;
count_down:
    left--;
    stack[2] = top[0];
    stack[1] += top[0];
    top = &stack[1];
    NEXT;
jump_not_zero:
    if (left != 0)
        next = code;
    NEXT;
halt:
#undef NEXT
    return (uint64_t)stack[0] << 32 | stack[1];
}

static __attribute__((noinline, noclone, optimize("no-optimize-sibling-calls", "no-inline"))) uint32_t
fibonacci(uint32_t n) {
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static uint64_t calls(void *state, uint64_t count) {
    (void)state;
    uint64_t sum = 0;
    for (uint64_t i = 0; i < count; i++)
        sum += fibonacci(20 + (uint32_t)(i & 3));
    return sum;
}

static int compare_words(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

enum { SORT_WORDS = 20000 };

static void quicksort_words(uint32_t *low, uint32_t *high, int (*compare)(const void *, const void *)) {
    while (low < high) {
        uint32_t pivot = low[(high - low) / 2], *i = low, *j = high, swapped;
        while (i <= j) {
            while (compare(i, &pivot) < 0)
                i++;
            while (compare(j, &pivot) > 0)
                j--;
            if (i <= j) {
                swapped = *i;
                *i++ = *j;
                *j-- = swapped;
            }
        }
        quicksort_words(low, j, compare);
        low = i;
    }
}

static uint64_t quicksort(void *state, uint64_t count) {
    (void)state;
    static uint32_t words[SORT_WORDS];
    uint64_t random = 1, sum = 0;
    for (uint64_t i = 0; i < count; i++) {
        for (int j = 0; j < SORT_WORDS; j++)
            words[j] = (uint32_t)random_next(&random);
        int (*volatile compare)(const void *, const void *) = compare_words; /* called, as qsort's is */
        quicksort_words(words, words + SORT_WORDS - 1, compare);
        sum = sum * 31 + words[i % SORT_WORDS];
    }
    return sum;
}

/* Strings, a hash table and division: what scripts and compilers do most. */
static uint64_t words_table(void *state, uint64_t count) {
    (void)state;
    enum { SLOTS = 8192, NAMES = 3000 };
    static char names[NAMES][24];
    static int slots[SLOTS];
    uint64_t sum = 0, random = 7;
    for (uint64_t round = 0; round < count; round++) {
        memset(slots, 0xff, sizeof slots);
        for (int i = 0; i < NAMES; i++) {
            snprintf(names[i], sizeof names[i], "name_%d_%x", i, (unsigned)random_next(&random) & 0xffff);
            uint32_t hash = 2166136261u;
            for (const char *c = names[i]; *c; c++)
                hash = (hash ^ (uint8_t)*c) * 16777619u;
            uint32_t slot = hash % SLOTS;
            while (slots[slot] >= 0 && strcmp(names[slots[slot]], names[i]) != 0)
                slot = (slot + 1) % SLOTS;
            slots[slot] = i;
            sum += slot + strlen(names[i]);
        }
    }
    return sum;
}

const struct program programs_integer[] = {
    {.name = "integer mix", .group = "user", .count = 40000000, .run = integer_mix},
    {.name = "sha256", .group = "user", .count = 300000, .run = sha256},
    {.name = "bytecode", .group = "user", .count = 2500000, .run = bytecode},
    {.name = "calls", .group = "user", .count = 1500, .run = calls},
    {.name = "quicksort", .group = "user", .count = 50, .run = quicksort},
    {.name = "strings", .group = "user", .count = 400, .run = words_table},
    {0},
};
