/*
 * A program that means harm, part three: more code than any cache holds, a million changes of the page tables, more
 * address spaces than anybody keeps.
 */
#include "lib/guest.h"

enum { FUNCTIONS = 1 << 20, REMAPS = 1000000, SLOTS = 512, SPACES = 1000 };

typedef uint32_t function(void);

static void fill_the_code_cache(void) {
    uint8_t *code = pages_alloc((size_t)FUNCTIONS * 16, 4096);
    unsigned wrong = 0;
    for (uint32_t i = 0; i < FUNCTIONS; i++) {
        uint8_t *at = code + (size_t)i * 16;
        at[0] = 0xb8; /* mov $i, %eax; test %eax, %eax; jz +2; nop; nop; ret */
        memory_copy(at + 1, &i, 4);
        static const uint8_t rest[] = {0x85, 0xc0, 0x74, 2, 0x90, 0x90, 0xc3};
        memory_copy(at + 5, rest, sizeof rest);
    }
    for (uint32_t i = 0; i < FUNCTIONS; i++)
        wrong += ((function *)(code + (size_t)i * 16))() != i;
    check("a_million_functions", wrong, 0);
    for (uint32_t i = wrong = 0; i < FUNCTIONS; i += 61)
        wrong += ((function *)(code + (size_t)i * 16))() != i;
    check("some_of_them_again", wrong, 0);
}

static void remap_a_million_times(void) {
    uint32_t *pages[SLOTS];
    unsigned wrong = 0;
    for (uint32_t i = 0; i < SLOTS; i++) {
        pages[i] = page_alloc();
        *pages[i] = i;
    }
    uint64_t seed = 77, *entries = page_entry(read_cr3(), WINDOW, 1);
    for (uint32_t i = 0; i < REMAPS; i++) {
        uint64_t r = random_next(&seed);
        unsigned slot = r % SLOTS, target = r >> 16 & (SLOTS - 1);
        entries[slot] = (uint64_t)pages[target] | PAGE_P | PAGE_W;
        invlpg((void *)(WINDOW + slot * 4096));
        wrong += *(volatile uint32_t *)(WINDOW + slot * 4096) != target;
    }
    check("a_million_remaps", wrong, 0);
}

static void many_spaces(void) {
    static uint64_t roots[SPACES];
    unsigned wrong = 0;
    uint64_t home = read_cr3();
    for (unsigned i = 0; i < SPACES; i++) {
        uint8_t *page = page_alloc();
        static const uint8_t code[] = {0xb8, 0, 0, 0, 0, 0xc3};
        memory_copy(page, code, sizeof code);
        memory_copy(page + 1, &i, 4);
        roots[i] = page_clone_root();
        *page_entry(roots[i], WINDOW, 4) = 0;
        *page_entry(roots[i], WINDOW + 0x5000, 1) = (uint64_t)page | PAGE_P | PAGE_W;
    }
    for (unsigned n = 0; n < 20 * SPACES; n++) {
        unsigned i = n * 7 % SPACES;
        write_cr3(roots[i]);
        wrong += ((function *)(WINDOW + 0x5000))() != i;
    }
    write_cr3(home);
    check("a_thousand_spaces", wrong, 0);
}

int main(void) {
    fill_the_code_cache();
    remap_a_million_times();
    many_spaces();
    return 0;
}
