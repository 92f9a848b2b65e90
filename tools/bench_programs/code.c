/*
 * Code as data: programs that rewrite themselves, that keep data beside code, and that run generated code just once.
 * The encodings below are the same in 32- and 64-bit mode.
 */
#include "tools/bench_programs/program.h"

#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096, INSTRUCTION_BYTES = 5 };

typedef uint32_t (*generated)(void);

static uint8_t *map_code(size_t bytes) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    return memory;
}

static void *prepare_page(uint64_t count) {
    (void)count;
    return map_code(PAGE);
}

static uint8_t *put_opcode(uint8_t *at, uint8_t opcode, uint32_t immediate) {
    *at = opcode;
    memcpy(at + 1, &immediate, sizeof immediate);
    return at + INSTRUCTION_BYTES;
}

static generated as_function(void *code) {
    generated function;
    memcpy(&function, &code, sizeof function);
    return function;
}

/* mov eax, i; ret: the immediate changes before each call. */
static uint64_t self_modifying(void *state, uint64_t count) {
    uint8_t *code = state;
    uint64_t sum = 0;
    *put_opcode(code, 0xb8, 0) = 0xc3;
    for (uint64_t i = 0; i < count; i++) {
        put_opcode(code, 0xb8, (uint32_t)i);
        __asm__ volatile("" ::: "memory");
        sum += as_function(code)();
    }
    return sum;
}

/* A loop that never changes, on the page of a counter that always does: mov eax, 100; sub eax, 1; jnz; ret. */
static uint64_t code_beside_data(void *state, uint64_t count) {
    uint8_t *code = state;
    volatile uint32_t *counter = (volatile uint32_t *)(void *)(code + 2048);
    uint64_t sum = 0;
    static const uint8_t loop[] = {0x83, 0xe8, 0x01, 0x75, 0xfb, 0xc3};
    memcpy(put_opcode(code, 0xb8, 100), loop, sizeof loop);
    for (uint64_t i = 0; i < count; i++) {
        *counter = *counter + 1;
        sum += as_function(code)() + i;
    }
    return sum + *counter;
}

static void *prepare_cold(uint64_t count) {
    static const uint8_t opcodes[] = {0x05, 0x35, 0x2d, 0x0d, 0x25, 0x05}; /* add, xor, sub, or, and, add eax, imm32 */
    size_t bytes = (size_t)count * INSTRUCTION_BYTES + 16;
    uint8_t *code = map_code(bytes), *at = put_opcode(code, 0xb8, 1);
    uint64_t random = 11;
    for (uint64_t i = 0; i + 1 < count; i++) {
        uint32_t immediate = (uint32_t)random_next(&random);
        at = put_opcode(at, opcodes[i % sizeof opcodes], i % sizeof opcodes == 4 ? immediate | 0x0f0f0f0f : immediate);
    }
    *at = 0xc3;
    return code;
}

static uint64_t cold_code(void *state, uint64_t count) {
    (void)count;
    return as_function(state)();
}

const struct program programs_code[] = {
    {.name = "self-modifying", .group = "code", .count = 80000, .run = self_modifying, .prepare = prepare_page},
    {.name = "code beside data", .group = "code", .count = 500000, .run = code_beside_data, .prepare = prepare_page},
    {.name = "cold code", .group = "cold", .count = 1000000, .run = cold_code, .prepare = prepare_cold},
    {0},
};
