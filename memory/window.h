/*
 * Windows: shadow page tables in the host's MMU.
 *
 * A window belongs to a view. It reserves host addresses for the 512 GiB regions of guest-linear addresses that the view
 * is used with (its extents), and maps guest pages there from the file behind guest memory, with the rights that the
 * view's software tables would give. Translated code adds the region's addend (view_tables.region) and accesses; what is
 * not mapped is a host fault, which fills the window or goes the slow way. Regions without an extent have an addend that
 * makes every address non-canonical.
 *
 * Rules that keep the guest inside: an extent and its guards are reserved before its addend is entered, and only
 * PROT_NONE goes over it until the window is destroyed; a displacement that is added without a look at the sum is at most
 * WINDOW_REACH, less than half a guard.
 *
 * A window is like a TLB of its view: a flush makes it stale, and nothing runs on it before it was compared with the
 * guest's page tables again (cpu/window.c).
 */
#ifndef MEMORY_WINDOW_H
#define MEMORY_WINDOW_H

#include "memory/view.h"

#define WINDOW_GUARD (4ull << 20)
#define WINDOW_REACH (1 << 20)
#define WINDOW_EXTENTS 6u
#define WINDOW_PIECES 8192u  /* host mappings that one window may have */
#define WINDOW_LARGE 512u    /* pages of a large piece: 2 MiB */
#define WINDOW_BUCKETS 8192u

/* Guest pages that are mapped together: one, or an aligned 2 MiB. */
struct window_piece {
    uint64_t linear;   /* page address */
    uint8_t *memory;   /* of the page in the monitor's own mapping of guest memory */
    uint16_t pages;    /* 1 or WINDOW_LARGE */
    bool writable;
    uint16_t next;     /* in its bucket: index + 1, or 0 */
};

struct window_extent {
    uint64_t linear;   /* of the region */
    uint8_t *host;     /* where the region begins; guards on both sides */
};

struct window {
    struct window_extent extent[WINDOW_EXTENTS];
    unsigned extent_count, piece_count;
    uint64_t region_size; /* reserved for each extent */
    struct window_piece piece[WINDOW_PIECES];
    uint16_t bucket[WINDOW_BUCKETS];
};

static inline unsigned window_bucket(uint64_t linear) {
    return (unsigned)((linear >> 12) ^ (linear >> 25)) & (WINDOW_BUCKETS - 1);
}

/* The piece that holds the page, or NULL. */
static inline struct window_piece *window_find(struct window *window, uint64_t linear) {
    const uint64_t start[2] = {linear & ~0xfffull, linear & ~0x1fffffull};
    const unsigned pages[2] = {1, WINDOW_LARGE};
    for (unsigned k = 0; k < 2; k++)
        for (unsigned i = window->bucket[window_bucket(start[k])]; i; i = window->piece[i - 1].next)
            if (window->piece[i - 1].linear == start[k] && window->piece[i - 1].pages == pages[k])
                return &window->piece[i - 1];
    return NULL;
}

/* The guest-linear address behind a host address in an extent; false when it lies in none. */
static inline bool window_linear(const struct window *window, uint64_t host, uint64_t *linear) {
    for (unsigned i = 0; i < window->extent_count; i++) {
        uint64_t offset = host - (uint64_t)window->extent[i].host;
        if (offset < window->region_size) {
            *linear = window->extent[i].linear + offset;
            return true;
        }
    }
    return false;
}

static inline const struct window_extent *window_extent_of(const struct window *window, uint64_t linear) {
    uint64_t region = linear >> VIEW_REGION_SHIFT << VIEW_REGION_SHIFT;
    for (unsigned i = 0; i < window->extent_count; i++)
        if (window->extent[i].linear == region)
            return &window->extent[i];
    return NULL;
}

/* ---- Host side (memory/window.c): may use libc; on the thread of the vCPU whose view it is, or with the world stopped. */

/* Gives the view a window without pages; is_64: for 64-bit code, else a region is 4 GiB. False: the host refuses. */
bool window_create(struct view *view, bool is_64);
void window_destroy(struct view *view);
/* Reserves the region of `linear`. False when there are too many, or the host refuses. */
bool window_reserve(struct view *view, uint64_t linear);
/*
 * Maps a piece (over what was there) from offset of fd; its region must be reserved. False: the window is full, or the
 * host refuses.
 */
bool window_map(struct window *window, const struct window_piece *piece, int fd, uint64_t offset);
void window_unmap(struct window *window, struct window_piece *piece);
/* Unmaps every piece. */
void window_clear(struct window *window);
/* Takes write rights from what leads to the page of the monitor's mapping. */
void window_drop_writes(struct window *window, uint64_t memory_page);

#endif
