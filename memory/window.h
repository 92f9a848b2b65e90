/*
 * Windows: shadow page tables in the host's MMU.
 *
 * A window belongs to a view. Guest pages are mapped into it from the file behind guest memory, at their linear address
 * plus an addend, with the rights that the view's software tables would give. What is not mapped is a host fault, which
 * fills the window or goes the slow way. Host addresses are reserved by regions of 1 TiB of linear addresses, each in one
 * of two groups with one addend each: A, whose addend is in the host's GS, and B. Translated code may use, for an address,
 *
 * - group A or B: an entry of view_tables.check is read first, whose page is there only for regions of that group; the host
 *   refuses all others before the access is made;
 * - the addends there likewise, or view_tables.region: the addend of any region; that of a region without one makes every
 *   address non-canonical;
 * - in 32-bit code, group A without a check: all of its addresses are in region 0;
 * - group A, with the stack pointer, in code that is entered with that near a region of it (MODE_NEAR_STACK).
 *
 * Rules that keep the guest inside: a region and the guards around it are reserved before its check page and addend are
 * entered, and only PROT_NONE goes over them until the window is destroyed; a displacement that is added behind a check is
 * at most WINDOW_REACH, less than half a guard. A check looks at bits 63:40, or without BMI2 at bits 46:40; an
 * address whose upper bits differ from those of its region then gets a sum that no host address has, because a group has
 * regions of one half of the address space alone. So does one whose entry is that of another of the tables that lie over
 * each other: it is further than any addend from the addresses of the host.
 *
 * A window is like a TLB of its view: a flush makes it stale, and nothing runs on it before it was compared with the
 * guest's page tables again (cpu/window.c).
 */
#ifndef MEMORY_WINDOW_H
#define MEMORY_WINDOW_H

#include "memory/guest_memory.h"
#include "memory/view.h"

#define WINDOW_GUARD (4ull << 20)
#define WINDOW_REACH (1 << 20)
/*
 * What 64-bit user code made with MODE_NEAR_STACK takes for granted of its stack pointer, and every exit of it to other such
 * code sees to: it is within this many bytes of a region of group A.
 */
#define WINDOW_STACK_SLACK (1u << 17)
#define WINDOW_POISON (1ull << 54) /* no host address, whatever offset in a region and displacement are added */
#define WINDOW_REGIONS 8u
#define WINDOW_MOVES 4u /* to places where more regions find room; then user code takes those of the other group */
#define WINDOW_PIECES 20480u /* host mappings that one window may have */
#define WINDOW_LARGE 512u    /* pages of a large piece: 2 MiB */
#define WINDOW_BUCKETS 16384u

enum { WINDOW_A, WINDOW_B, WINDOW_GROUPS };

/* Guest pages that are mapped together: one, or an aligned 2 MiB. */
struct window_piece {
    uint64_t linear;   /* page address */
    uint8_t *memory;   /* of the page in the monitor's own mapping of guest memory */
    uint16_t pages;    /* 1 or WINDOW_LARGE */
    bool writable;
    bool global;
    uint16_t holes;    /* pages of a large piece that were writable and are not */
    uint16_t next, next_alias; /* in its buckets: index + 1, or 0 */
};

struct window {
    uint64_t addend[WINDOW_GROUPS];
    bool has_group[WINDOW_GROUPS], is_upper[WINDOW_GROUPS];
    bool is_64;           /* regions of 1 TiB; else region 0 alone, of 4 GiB */
    bool is_supervisor;
    bool has_local;       /* pieces that a flush of pages that are not global has to look at */
    unsigned region_count, piece_count, refused_count;
    uint64_t refused[WINDOW_REGIONS]; /* regions that found no room: asking the host again and again is dear */
    struct window_shared *shared;
    struct {
        uint64_t linear;
        unsigned group;
    } region[WINDOW_REGIONS];
    struct window_piece piece[WINDOW_PIECES];
    uint64_t leaving[WINDOW_PIECES]; /* to be unmapped: linear addresses, | 1 for large pieces */
    uint16_t bucket[WINDOW_BUCKETS]; /* by linear address */
    uint16_t alias[WINDOW_BUCKETS];  /* by memory */
};

static inline uint64_t window_region_size(const struct window *window) {
    return window->is_64 ? 1ull << VIEW_REGION_SHIFT : 1ull << 32;
}

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

/* The guest-linear address behind a host address in a region; false when it lies in none. */
static inline bool window_linear(const struct window *window, uint64_t host, uint64_t *linear) {
    for (unsigned i = 0; i < window->region_count; i++) {
        uint64_t address = host - window->addend[window->region[i].group];
        if (address - window->region[i].linear < window_region_size(window)) {
            *linear = address;
            return true;
        }
    }
    return false;
}

/* The table of entries that checks for the group read. */
static inline unsigned window_check_table(unsigned group) {
    return group == WINDOW_A ? VIEW_CHECK_A : VIEW_CHECK_B;
}

/* The group of the address' region, or WINDOW_GROUPS. */
static inline unsigned window_group(const struct window *window, uint64_t linear) {
    for (unsigned i = 0; i < window->region_count; i++)
        if (linear - window->region[i].linear < window_region_size(window))
            return window->region[i].group;
    return WINDOW_GROUPS;
}

/* ---- Host side (memory/window.c): may use libc; on the thread of the vCPU whose view it is, or with the world stopped. */

/* How many pieces the windows of a machine may map so that the host's limit on a process's mappings is not reached. */
uint32_t window_budget(void);
/* Gives the view a window without pages; is_64: for 64-bit code; is_supervisor: group A is the upper half's. `shared` stays the caller's. False: the host refuses. */
bool window_create(struct view *view, bool is_64, bool is_supervisor, struct window_shared *shared);
void window_destroy(struct view *view);
/* Reserves the region of `linear`, a canonical address. False: there are too many, or the host refuses. */
bool window_reserve(struct view *view, uint64_t linear);
/*
 * Maps a piece (over what was there) from offset of fd; its region must be reserved. A piece of one page may be the first of
 * `count` that lie side by side in the guest and in the file. False: the window is full, or the host refuses.
 */
bool window_map(struct window *window, const struct window_piece *piece, unsigned count, int fd, uint64_t offset);
void window_unmap(struct window *window, struct window_piece *piece);
/* Unmaps the pieces of these pages, at most WINDOW_PIECES; what lies close together in one go. */
void window_unmap_pages(struct window *window, const uint64_t *linear, unsigned count);
/* The same for all pieces but those that `keeps` wants. */
void window_keep(struct window *window, bool (*keeps)(struct window_piece *piece, void *argument), void *argument);
/* Takes write rights from one page of a large piece that may be written; the piece goes where that is not to be had. */
void window_close_page(struct window *window, struct window_piece *large, uint64_t linear);
/* Gives them back. False: the host refuses. */
bool window_open_page(struct window *window, struct window_piece *large, uint64_t linear);
/* Takes write rights from what leads to the page of the monitor's mapping; large: where a large piece with it would begin. */
void window_drop_writes(struct window *window, uint8_t *memory_page, uint8_t *large);

#endif
