/* Page tables of 64-bit programs, on top of those that start64.S made. Tables lie in low memory, mapped one to one. */
#include "guest.h"

uint64_t *page_entry(uint64_t root, uint64_t va, unsigned level) {
    uint64_t *table = (uint64_t *)(root & ~0xfffull);
    for (unsigned l = 4;; l--) {
        uint64_t *entry = &table[va >> (12 + 9 * (l - 1)) & 511];
        if (l == level)
            return entry;
        if (!(*entry & PAGE_P))
            *entry = (uint64_t)page_alloc() | PAGE_P | PAGE_W | PAGE_U;
        table = (uint64_t *)(*entry & 0xffffffffff000ull);
    }
}

void page_map(uint64_t va, uint64_t pa, uint64_t flags) {
    *page_entry(read_cr3(), va, 1) = pa | flags;
    invlpg((void *)va);
}

uint64_t page_clone_root(void) {
    void *root = page_alloc();
    memory_copy(root, (void *)(read_cr3() & ~0xfffull), 4096);
    return (uint64_t)root;
}
