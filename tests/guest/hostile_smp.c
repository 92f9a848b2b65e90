/*
 * A program that means harm, part four: two processors that rewrite the code which the other one runs, and each
 * other's page tables, without any manners. Every result must be one that some store could have made.
 */
#include "lib/guest.h"

enum { ROUNDS = 30000 };

static uint8_t *code[2];
static volatile unsigned done, wild[2];
static const uint64_t shared_va = WINDOW + 0x7000;
static uint32_t *pages[2];

typedef uint32_t function(void);

/* mov $imm32, %eax; ret: only the immediate's bytes change, each alone, so that any mixture is a valid result. */
static void write_function(uint8_t *at) {
    static const uint8_t bytes[] = {0xb8, 0, 0, 0, 0, 0xc3};
    memory_copy(at, bytes, sizeof bytes);
}

static void fight(unsigned me) {
    uint64_t seed = 99 + me;
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t r = random_next(&seed);
        volatile uint8_t *other = code[!me] + 1 + (r & 3);
        *other = (uint8_t)(r >> 8 & 0x7f);
        uint32_t value = ((function *)code[me])();
        wild[me] += (value & 0x80808080) != 0;
        if (r >> 20 & 1)
            code[me][1 + (r >> 4 & 3)] = (uint8_t)(r >> 16 & 0x7f);
        if ((i & 15) == 0) {
            *page_entry(read_cr3(), shared_va, 1) = (uint64_t)pages[r >> 30 & 1] | PAGE_P | PAGE_W;
            invlpg((void *)shared_va);
        }
        uint32_t seen = *(volatile uint32_t *)shared_va;
        wild[me] += seen != 1000 && seen != 2000;
    }
}

static void second_processor(void) {
    fight(1);
    done = 1;
    for (;;)
        halt();
}

int main(void) {
    uint8_t *both = page_alloc(); /* one page, two lines */
    code[0] = both;
    code[1] = both + 64;
    write_function(code[0]);
    write_function(code[1]);
    for (unsigned i = 0; i < 2; i++) {
        pages[i] = page_alloc();
        *pages[i] = 1000 * (i + 1);
    }
    page_map(shared_va, (uint64_t)pages[0], PAGE_P | PAGE_W);
    pic_init(0x30);
    if (!smp_start(1, second_processor))
        die("second processor starts");
    fight(0);
    uint64_t start = rdtsc();
    while (!done && rdtsc() - start < 60000000000ull)
        pause_cpu();
    check("second_processor_is_done", done, 1);
    check("results_on_the_first", wild[0], 0);
    check("results_on_the_second", wild[1], 0);
    return 0;
}
