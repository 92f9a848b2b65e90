/* AVX2 and AVX-512 kernels, written with the compiler's vector types; run only where the CPU has them. */
#include "tools/bench_programs/program.h"

typedef float float8 __attribute__((vector_size(32)));
typedef float float16 __attribute__((vector_size(64)));
typedef uint32_t word8 __attribute__((vector_size(32)));
typedef uint32_t word16 __attribute__((vector_size(64)));

enum { ELEMENTS = 4096 };

/* y = y * a + x over 16 KiB a side, then integer hashing of the bits; both in vectors of TYPE. */
#define VECTOR_KERNEL(function, feature, float_type, word_type, lanes)                                                 \
    __attribute__((target(feature))) static uint64_t function(void *state, uint64_t count) {                           \
        (void)state;                                                                                                   \
        static float_type x[ELEMENTS / lanes], y[ELEMENTS / lanes];                                                    \
        word_type hash = {0};                                                                                          \
        uint64_t sum = 0;                                                                                              \
        for (int i = 0; i < ELEMENTS / lanes; i++)                                                                     \
            for (int j = 0; j < lanes; j++) {                                                                          \
                x[i][j] = (float)((i * lanes + j) % 17) / 16;                                                          \
                y[i][j] = 1;                                                                                           \
            }                                                                                                          \
        for (uint64_t round = 0; round < count; round++)                                                               \
            for (int i = 0; i < ELEMENTS / lanes; i++) {                                                               \
                y[i] = y[i] * 0.75f + x[i];                                                                            \
                hash = (hash ^ (word_type)y[i]) * 16777619u + (hash >> 7);                                             \
            }                                                                                                          \
        for (int j = 0; j < lanes; j++)                                                                                \
            sum = sum * 31 + hash[j];                                                                                  \
        return sum;                                                                                                    \
    }

VECTOR_KERNEL(avx2, "avx2", float8, word8, 8)
VECTOR_KERNEL(avx512, "avx512f", float16, word16, 16)

const struct program programs_vector[] = {
    {.name = "avx2", .group = "float", .count = 60000, .run = avx2, .needs = "avx2"},
    {.name = "avx512", .group = "float", .count = 120000, .run = avx512, .needs = "avx512"},
    {0},
};
