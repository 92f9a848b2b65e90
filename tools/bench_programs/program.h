/*
 * The programs of the benchmark, the same natively and in a guest. Each is a row here: prepared outside the measured
 * time, then run `count` times; what run returns is the checksum, equal wherever the program runs.
 */
#ifndef TOOLS_BENCH_PROGRAMS_PROGRAM_H
#define TOOLS_BENCH_PROGRAMS_PROGRAM_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct program {
    const char *name;
    const char *group;
    uint64_t count; /* of a full run; about 50 to 300 ms natively, less where emulators are known to be slow */
    uint64_t (*run)(void *state, uint64_t count);
    void *(*prepare)(uint64_t count); /* NULL: nothing to prepare */
    const char *needs;                /* "avx2", "avx512", or "packages": Debian's programs; NULL: it runs anywhere */
};

/* One list a file, ended by a row without a name. */
extern const struct program programs_integer[];
extern const struct program programs_tools[];
extern const struct program programs_packages[];
extern const struct program programs_float_sse[];
extern const struct program programs_float_x87[];
extern const struct program programs_vector[];
extern const struct program programs_memory[];
extern const struct program programs_process[];
extern const struct program programs_kernel[];
extern const struct program programs_code[];
extern const struct program programs_growth[];

/* Where the tools are that some programs start: the file of busybox, and the folder of the packaged ones. */
extern const char *program_busybox, *program_packages;

/* Ends the program where the system refuses what a benchmark needs. */
#define REQUIRE(condition)                                                                                             \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            printf("bench: error %s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                                \
            fflush(stdout);                                                                                            \
            _Exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)

/* Knuth's MMIX generator: the same numbers everywhere. */
static inline uint64_t random_next(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

#endif
