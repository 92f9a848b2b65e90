/*
 * Guest-physical memory: regions of file descriptors mapped once, readable and writable, into the monitor.
 *
 * Regions change only while every vCPU is at a safepoint, so that look-ups take no lock. A byte of flags a page tells
 * what the rest of the engine must know before it lets translated code write there directly.
 */
#ifndef MEMORY_GUEST_MEMORY_H
#define MEMORY_GUEST_MEMORY_H

#include <stdatomic.h>

#include "trapeze/trapeze.h"

#define MEMORY_PAGE 4096u
#define MEMORY_PAGE_MASK 0xfffull
#define MEMORY_SLOTS 64

enum {
    MEMORY_CODE = 1,          /* translated code was made from the page: writes go the slow way */
    MEMORY_WRITE_CACHED = 2,  /* some view may hold a write entry for the page */
    MEMORY_DIRTY = 4,         /* written since the dirty log was fetched */
};

struct block;

/* An immediate that the guest changes often: its instruction reads it where it is, so that its bytes are data. */
struct code_variable {
    struct code_variable *next; /* of the page */
    uint16_t offset, size;      /* in the page, in bytes */
};

/* What is known of a page that translated code was made from. */
struct code_page {
    _Atomic uint64_t lines; /* bit: code was made from these 64 bytes */
    _Atomic uint32_t idle_stores; /* stores since code was last made from the page and dropped again */
    struct block *first;    /* the translator's list */
    uint64_t block_lines;   /* of the blocks in the list, or more: what `lines` is when nothing is being translated */
    struct code_variable *variables; /* there are some on machines of one vCPU alone */
};

struct memory_region {
    uint64_t base, length; /* guest-physical; length 0: unused */
    uint8_t *host;
    _Atomic uint8_t *page_flags;
    struct code_page *code_pages; /* by page of the region; touched only where there is code */
    int fd;                        /* a copy of the caller's */
    uint64_t offset;
    unsigned slot, flags;          /* TRAPEZE_MEMORY_* */
};

#define WINDOW_HABITS 4u

/* What the windows (memory/window.h) of a machine have in common. */
struct window_shared {
    _Atomic uint32_t budget; /* host mappings that they may still make */
    _Atomic uint64_t habit[WINDOW_HABITS]; /* the first regions that those of user code needed, | 1: others will, too */
};

struct machine_memory {
    struct memory_region region[MEMORY_SLOTS]; /* sorted by base */
    unsigned count;
    uint64_t address_mask; /* all ones, or without bit 20 while the A20 gate is closed */
    struct window_shared windows;
};

/* The region that holds the address, or NULL. */
struct memory_region *memory_find(struct machine_memory *memory, guest_physical address);

static inline uint8_t *memory_host(const struct memory_region *region, guest_physical address) {
    return region->host + (address.value - region->base);
}
static inline _Atomic uint8_t *memory_page_flags(const struct memory_region *region, guest_physical address) {
    return &region->page_flags[(address.value - region->base) / MEMORY_PAGE];
}

static inline struct code_page *memory_code_page(const struct memory_region *region, guest_physical address) {
    return &region->code_pages[(address.value - region->base) / MEMORY_PAGE];
}
static inline uint64_t memory_lines(uint64_t address, unsigned size) {
    unsigned first = (unsigned)(address & MEMORY_PAGE_MASK) / 64;
    unsigned last = (unsigned)((address & MEMORY_PAGE_MASK) + size - 1) / 64;
    return (~0ull << first) & (~0ull >> (63 - last));
}
/* Whether a store within the page changes data alone, on a page from which code was made. */
static inline bool memory_store_misses_code(const struct code_page *code, uint64_t address, unsigned size) {
    uint64_t lines = atomic_load_explicit(&code->lines, memory_order_relaxed);
    if (!(lines & memory_lines(address, size)))
        return lines != 0;
    unsigned offset = (unsigned)(address & MEMORY_PAGE_MASK);
    for (const struct code_variable *variable = code->variables; variable; variable = variable->next)
        if (offset >= variable->offset && offset + size <= (unsigned)variable->offset + variable->size)
            return true;
    return false;
}

/* ---- Host side (memory/region.c): may use libc; every vCPU at a safepoint. ---- */

/* Maps length bytes of fd as `slot` in place of what it held, which stays on an error. Errors as trapeze_memory_map says. */
enum trapeze_status memory_region_add(struct machine_memory *memory, unsigned slot, guest_physical base, int fd,
                                      uint64_t offset, uint64_t length, unsigned flags);
/* Unmaps the slot's region, if there is one. */
void memory_region_remove(struct machine_memory *memory, unsigned slot);

#endif
