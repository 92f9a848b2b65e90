/* Memory: dependent loads over three footprints (user group), and bulk copies (copy group). */
#include "tools/bench_programs/program.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { LINE = 64, KIB = 1024, MIB = 1024 * 1024, COPY_BYTES = 256 * 1024 };

/* A random cycle through `bytes` of memory, one pointer a line (Sattolo's shuffle). */
static void *make_chase(size_t bytes) {
    size_t lines = bytes / LINE;
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint32_t *order = malloc(lines * sizeof *order);
    uint64_t random = 3;
    REQUIRE(memory != MAP_FAILED && order);
    for (size_t i = 0; i < lines; i++)
        order[i] = (uint32_t)i;
    for (size_t i = lines - 1; i > 0; i--) {
        size_t j = (size_t)random_next(&random) % i;
        uint32_t swapped = order[i];
        order[i] = order[j];
        order[j] = swapped;
    }
    for (size_t i = 0; i < lines; i++)
        *(void **)(memory + (size_t)order[i] * LINE) = memory + (size_t)order[(i + 1) % lines] * LINE;
    free(order);
    return memory;
}

static void *prepare_chase_l1(uint64_t count) {
    (void)count;
    return make_chase(16 * KIB);
}

static void *prepare_chase_l2(uint64_t count) {
    (void)count;
    return make_chase(512 * KIB);
}

static void *prepare_chase_dram(uint64_t count) {
    (void)count;
    return make_chase(128 * MIB);
}

/* The checksum is where the chase ends, as an offset from where it began. */
static uint64_t chase(void *state, uint64_t count) {
    void **pointer = state;
    for (uint64_t i = 0; i < count; i++)
        pointer = *pointer;
    return (uint64_t)((char *)pointer - (char *)state);
}

static void *prepare_copy(uint64_t count) {
    (void)count;
    unsigned char *memory = malloc(2 * COPY_BYTES + 4096);
    REQUIRE(memory);
    for (int i = 0; i < 2 * COPY_BYTES; i++)
        memory[i] = (unsigned char)(i * 7);
    return memory;
}

static uint64_t copy_libc(void *state, uint64_t count) {
    unsigned char *from = state, *to = from + COPY_BYTES;
    for (uint64_t i = 0; i < count; i++) {
        from[i % COPY_BYTES]++;
        memcpy(to, from, COPY_BYTES);
        __asm__ volatile("" ::: "memory");
    }
    return to[0] + to[count % COPY_BYTES] * 256u + to[COPY_BYTES - 1] * 65536u;
}

static uint64_t copy_rep(void *state, uint64_t count) {
    unsigned char *from = state, *to = from + COPY_BYTES;
    for (uint64_t i = 0; i < count; i++) {
        from[i % COPY_BYTES]++;
        void *source = from, *destination = to;
        size_t left = COPY_BYTES;
        __asm__ volatile("rep movsb" : "+S"(source), "+D"(destination), "+c"(left)::"memory");
    }
    return to[0] + to[count % COPY_BYTES] * 256u + to[COPY_BYTES - 1] * 65536u;
}

static uint64_t fill_rep(void *state, uint64_t count) {
    unsigned char *to = state;
    for (uint64_t i = 0; i < count; i++) {
        void *destination = to;
        size_t left = COPY_BYTES / sizeof left;
        __asm__ volatile("rep stos%z1" : "+D"(destination), "+c"(left) : "a"((size_t)i) : "memory");
    }
    return to[0] + to[COPY_BYTES - sizeof(size_t)] * 256u;
}

/* Copies too short for any setup cost to hide. */
static uint64_t copy_short(void *state, uint64_t count) {
    unsigned char *from = state, *to = from + COPY_BYTES;
    for (uint64_t i = 0; i < count; i++) {
        void *source = from + i % 64, *destination = to + i % 64;
        size_t left = 40 + i % 64;
        __asm__ volatile("rep movsb" : "+S"(source), "+D"(destination), "+c"(left)::"memory");
    }
    return to[0] + to[64] * 256u + to[100] * 65536u;
}

static uint64_t read_zero(void *state, uint64_t count) {
    unsigned char *buffer = state;
    int fd = open("/dev/zero", O_RDONLY);
    REQUIRE(fd >= 0);
    for (uint64_t i = 0; i < count; i++)
        REQUIRE(read(fd, buffer, COPY_BYTES) == COPY_BYTES);
    close(fd);
    return buffer[0] + buffer[COPY_BYTES - 1] + count;
}

const struct program programs_memory[] = {
    {.name = "chase L1", .group = "user", .count = 20000000, .run = chase, .prepare = prepare_chase_l1},
    {.name = "chase L2", .group = "user", .count = 10000000, .run = chase, .prepare = prepare_chase_l2},
    {.name = "chase DRAM", .group = "user", .count = 500000, .run = chase, .prepare = prepare_chase_dram},
    {.name = "memcpy", .group = "copy", .count = 2500, .run = copy_libc, .prepare = prepare_copy},
    {.name = "rep movsb", .group = "copy", .count = 2500, .run = copy_rep, .prepare = prepare_copy},
    {.name = "rep stos", .group = "copy", .count = 6000, .run = fill_rep, .prepare = prepare_copy},
    {.name = "rep movsb short", .group = "copy", .count = 3000000, .run = copy_short, .prepare = prepare_copy},
    {.name = "read /dev/zero", .group = "copy", .count = 4000, .run = read_zero, .prepare = prepare_copy},
    {0},
};
