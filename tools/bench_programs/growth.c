/*
 * The growth group: the same work spread over more processes, or over more code. How often code is gone through is such
 * that as many instructions run whatever its size.
 */
#include "tools/bench_programs/program.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, TOUCHED = 8, MIB = 1024 * 1024, BLOCK = 64, PAGE_BLOCKS = PAGE / BLOCK, OPERATIONS = 11 };

struct ring {
    int in, out; /* from the last process, to the next one */
};

static uint8_t touched[TOUCHED * PAGE];

/* Takes the token, changes a few pages, and hands it on. False: the one before has gone. */
static int pass_token(int in, int out) {
    uint32_t token;
    if (read(in, &token, sizeof token) != (ssize_t)sizeof token)
        return 0;
    for (int i = 0; i < TOUCHED; i++)
        touched[i * PAGE]++;
    token++;
    return write(out, &token, sizeof token) == (ssize_t)sizeof token;
}

static void *make_ring(int processes) {
    static struct ring ring;
    int link[2], next[2];
    REQUIRE(pipe(link) == 0);
    ring.out = link[1];
    for (int i = 1; i < processes; i++) {
        REQUIRE(pipe(next) == 0);
        pid_t child = fork();
        REQUIRE(child >= 0);
        if (child == 0) {
            close(ring.out);
            close(next[0]);
            while (pass_token(link[0], next[1]))
                continue;
            _exit(0);
        }
        close(link[0]);
        close(next[1]);
        link[0] = next[0];
    }
    ring.in = link[0];
    return &ring;
}

/* COUNT is how often the token moves, whatever the length of the ring; it stops at home. Children count as used time
   where they have been waited for, so their end is measured as well; it runs through the ring. */
static uint64_t run_ring(struct ring *ring, uint64_t count, uint64_t processes) {
    uint32_t token = 0;
    REQUIRE(write(ring->out, &token, sizeof token) == (ssize_t)sizeof token);
    for (uint64_t i = 0; i + 1 < count / processes; i++)
        REQUIRE(pass_token(ring->in, ring->out));
    REQUIRE(read(ring->in, &token, sizeof token) == (ssize_t)sizeof token);
    close(ring->out);
    while (wait(NULL) > 0)
        continue;
    return token + 1;
}

#define RING(processes)                                                                                                \
    static void *prepare_ring_##processes(uint64_t count) {                                                            \
        (void)count;                                                                                                   \
        return make_ring(processes);                                                                                   \
    }                                                                                                                  \
    static uint64_t run_ring_##processes(void *state, uint64_t count) {                                                \
        return run_ring(state, count, processes);                                                                      \
    }

RING(1)
RING(10)
RING(100)
RING(1000)

static uint8_t *put(uint8_t *at, uint8_t opcode, uint32_t immediate) {
    *at = opcode;
    memcpy(at + 1, &immediate, sizeof immediate);
    return at + 5;
}

/* add, xor, sub, or eax, imm32, and a jump to another block of the page, from the last to the next page. */
static void put_page(uint8_t *page, uint64_t *random, int is_last) {
    static const uint8_t opcodes[] = {0x05, 0x35, 0x2d, 0x0d};
    for (int i = 0; i < PAGE_BLOCKS; i++) {
        int block = i * 37 % PAGE_BLOCKS, next = (i + 1) * 37 % PAGE_BLOCKS;
        uint8_t *at = page + block * BLOCK, *to = i + 1 < PAGE_BLOCKS ? page + next * BLOCK : page + PAGE;
        for (int j = 0; j < OPERATIONS; j++)
            at = put(at, opcodes[(i + j) % 4], (uint32_t)random_next(random));
        if (is_last && i + 1 == PAGE_BLOCKS)
            *at = 0xc3;
        else
            put(at, 0xe9, (uint32_t)(to - (at + 5)));
    }
}

static void *make_code(size_t mebibytes) {
    size_t bytes = mebibytes * MIB;
    uint8_t *code = mmap(NULL, bytes, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t random = 13;
    REQUIRE(code != MAP_FAILED);
    for (size_t at = 0; at < bytes; at += PAGE)
        put_page(code + at, &random, at + PAGE == bytes);
    *code = 0xb8; /* mov eax, imm32 */
    return code;
}

static uint64_t run_code(void *state, uint64_t count) {
    uint32_t (*function)(void);
    uint64_t sum = 0;
    memcpy(&function, &state, sizeof function);
    for (uint64_t i = 0; i < count; i++)
        sum = sum * 31 + function();
    return sum;
}

#define CODE(mebibytes)                                                                                                \
    static void *prepare_code_##mebibytes(uint64_t count) {                                                            \
        (void)count;                                                                                                   \
        return make_code(mebibytes);                                                                                   \
    }

CODE(1)
CODE(10)
CODE(50)
CODE(200)

#define RING_ROW(processes)                                                                                            \
    {                                                                                                                  \
        .name = "processes " #processes, .group = "growth", .count = 60000, .run = run_ring_##processes,               \
        .prepare = prepare_ring_##processes                                                                            \
    }
#define CODE_ROW(mebibytes)                                                                                            \
    {                                                                                                                  \
        .name = "code " #mebibytes " MiB", .group = "growth", .count = 200 / (mebibytes), .run = run_code,             \
        .prepare = prepare_code_##mebibytes                                                                            \
    }

const struct program programs_growth[] = {
    RING_ROW(1),  RING_ROW(10),  RING_ROW(100), RING_ROW(1000), CODE_ROW(1), CODE_ROW(10),
    CODE_ROW(50), CODE_ROW(200), {0},
};
