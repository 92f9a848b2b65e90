/* Page tables of 64-bit programs, on top of those that start64.S made. Tables lie below 4 GiB, mapped one to one. */
#include "guest.h"

extern uint8_t guest_end[];
extern uint64_t boot_pml4[];

static uint64_t next_page;

void *pages_alloc(size_t bytes, size_t alignment) {
    if (!next_page)
        next_page = (uint64_t)guest_end;
    uint64_t at = (next_page + alignment - 1) & ~(uint64_t)(alignment - 1);
    next_page = at + bytes;
    return memory_set((void *)at, 0, bytes);
}

void *page_alloc(void) {
    return pages_alloc(4096, 4096);
}

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
