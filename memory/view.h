/*
 * Software shadow page tables.
 *
 * A view caches what the guest's page tables say for one address space and one privilege: a direct-mapped table of
 * guest pages, indexed by the low 16 bits of the page number, with read and write rights apart. Translated code looks
 * into it without touching the flags:
 *
 *     x = address + tag[index] + size - 1;  hit when (x >> 12) == 0;  host address = address + addend[index]
 *
 * A tag is minus the page's linear address, so a hit also proves that the access stays inside the page. Each view is
 * one host reservation: the pages of struct cpu, then the tables. Filled entries are listed, so that a flush costs what
 * was filled, not what could be.
 */
#ifndef MEMORY_VIEW_H
#define MEMORY_VIEW_H

#include "trapeze/types.h"

#define VIEW_ENTRIES 65536u
#define VIEW_JUMPS 65536u /* entries of the jump cache, by view_jump_index */
#define VIEW_JUMP_SHIFT 4 /* functions begin at multiples of 16 mostly: these, too, are to use all entries */
#define VIEW_LIST 8192u
#define VIEW_REGION_SHIFT 40
#define VIEW_REGIONS 65536u /* index = bits 55:40 of a linear address */
#define VIEW_CHECK_SHIFT 31 /* an entry for each 2 GiB; eight bytes each, so that a page of them is a region */
#define VIEW_CHECK_SPAN (8ull << (64 - VIEW_CHECK_SHIFT))
/* From one table of such entries to the next: so far that an address which takes the one for the other is out of reach. */
#define VIEW_CHECK_STRIDE (8ull << (48 - VIEW_CHECK_SHIFT))
enum { VIEW_CHECK_A, VIEW_CHECK_B, VIEW_ADDENDS, VIEW_CHECK_TABLES };

struct view_jump {
    uint64_t negative_target; /* minus the guest rip */
    uint64_t host;            /* entry point of the block */
};

/* R, the base register of translated code, lies so far behind the beginning of the tables: its low six bits are VIEW_CHECK_SHIFT, for SHRX,
   and the end of struct cpu is within a byte's displacement. */
#define VIEW_R (-33)

struct view_tables {
    uint64_t read_tag[VIEW_ENTRIES];
    uint64_t write_tag[VIEW_ENTRIES];
    uint64_t addend[VIEW_ENTRIES];
    struct view_jump jump[VIEW_JUMPS];
    /* What another target has driven out of its place in `jump`: stubs look here before they leave for C. */
    struct view_jump second_jump[VIEW_JUMPS];
    /* Of the window, once there is one (memory/window.h): addends by region. */
    uint64_t region[VIEW_REGIONS];
    /*
     * Likewise: entries by the upper 33 bits of a linear address, of which those pages alone are there that regions have. A
     * table for each of the two groups of regions, whose entries are read to see whether the host refuses; and one of
     * addends. They lie over each other, VIEW_CHECK_STRIDE apart, and go on for VIEW_CHECK_SPAN bytes.
     */
    _Alignas(4096) uint8_t check[VIEW_CHECK_TABLES * VIEW_CHECK_STRIDE];
};

/* Executable pages, for the dispatcher alone. */
#define VIEW_FETCHES 1024u
struct view_fetch {
    uint64_t page; /* linear page address | 1 when valid */
    uint64_t physical_page;
    uint64_t version; /* of the view's flushes, twice, | 1 when global: an older one is void */
};

/*
 * For the dispatcher alone, pages without an entry for what is done with them: of translated code, that may be written as
 * far as the guest's tables are concerned, and of devices.
 */
#define VIEW_BESIDE 8u
struct view_beside {
    uint64_t page; /* linear page address | 1 when valid */
    const struct code_page *code; /* NULL: a device's */
    uint64_t physical; /* of a device: guest-physical page */
    bool is_writable;  /* of a device: for stores, too */
};

struct code_page;
struct window;
#define VIEW_DROPPED 64u /* kernels flush everything where it would be more than 30 or so */

/* Chains of the entries that let a host page be written (memory/writers.h). An entry at an end of one has its own index there. */
struct view_writers {
    uint8_t has_head[VIEW_ENTRIES / 8]; /* bit: there is a chain of this number */
    uint16_t head[VIEW_ENTRIES];
    struct view_writer {
        uint16_t next, previous;
    } entry[VIEW_ENTRIES];
};

struct view {
    struct view_tables *tables;
    void *reservation;
    size_t reservation_size;
    bool has_checks; /* else there is no room for a window's */
    uint32_t jump_mode; /* mode key the jump cache was filled under */
    uint32_t filled, jumps_filled, local_filled;
    bool list_overflow, jumps_overflow, local_overflow;
    uint16_t list[VIEW_LIST], jumps[VIEW_LIST];
    uint16_t local[VIEW_LIST]; /* of the list: entries that were, when they were entered, of pages that are not global */
    uint8_t listed[VIEW_ENTRIES / 8];      /* bit: the index is in the list */
    uint8_t global[VIEW_ENTRIES / 8];      /* bit: the entry is a global page */
    uint8_t large[2048];                   /* bit filter over 2 MiB regions with fragments of large pages */
    bool has_huge;                         /* fragments of a 1 GiB page */
    bool has_global;                       /* entries that a flush may have to keep */
    bool has_local_code;                   /* the jump cache may lead into a page that is not global */
    uint8_t fetched[4096];                 /* bit filter over pages that the jump cache may lead into */
    struct view_fetch fetch[VIEW_FETCHES];
    struct view_beside beside[VIEW_BESIDE];
    uint64_t fetch_version[2]; /* of local and of global pages */
    struct window *window;   /* NULL: none yet */
    bool window_is_stale;    /* flushed since it was last compared with the guest's tables */
    uint32_t window_merit;   /* samples in which the view was in use since its last flush (cpu/window.c) */
    uint32_t window_moves;   /* how often it was made anew because a region found no room */
    bool window_must_move;   /* is to be now */
    bool has_wild_stack;     /* the stack pointer of its 64-bit user code has been outside of group A since it was compared */
    uint32_t window_patience; /* samples that it takes to use the window again */
    uint64_t window_lost;    /* when that was last changed, in cycles of the host */
    uint64_t window_sampled; /* when it was last seen at work, in cycles of the host */
    uint64_t window_debt, window_since; /* cycles of the host: lost to faults and not yet earned back; counted until */
    uint32_t window_blocks;  /* of code that the window has been found to run since the last flush, or somewhat more */
    uint64_t window_awaited; /* page | 1 that the guest has been told to be missing; 0: none */
    uint32_t dropped_count;  /* pages that must leave the window before it is used again */
    uint64_t dropped[VIEW_DROPPED];
    struct view_writers writers;
};

/* By privilege: user code, and supervisor code with RFLAGS.AC set, which SMAP lets reach user pages. */
enum { VIEW_USER, VIEW_KERNEL_AC, VIEW_PRIVILEGES };

#define VIEW_SPACES 8 /* address spaces (PCIDs) cached at once */
struct view_space {
    struct view *view[VIEW_PRIVILEGES]; /* NULL until used */
    uint16_t pcid;
    bool in_use;
    uint64_t last_use;
};

/* Supervisor code sees nearly the same in every address space: its view is of all of them, and holds what is global, and
   of the rest what belongs to the current space. */
struct view_set {
    struct view *kernel;
    struct view_space space[VIEW_SPACES];
    unsigned current;
    uint64_t clock;
    int state_fd; /* memfd of struct cpu */
    size_t state_size;
};

/* The page of the table (VIEW_CHECK_A, ...) with the entries of the address' region. */
static inline uint8_t *view_check_page(const struct view *view, unsigned table, uint64_t linear) {
    return view->tables->check + table * VIEW_CHECK_STRIDE + (linear >> VIEW_REGION_SHIFT) * 4096;
}

static inline bool view_is_in_checks(const struct view *view, uint64_t address) {
    return address - (uint64_t)view->tables->check < VIEW_CHECK_TABLES * VIEW_CHECK_STRIDE + VIEW_CHECK_SPAN;
}

/* Differs between address spaces, mostly: of the view, and what it has been flushed for. */
static inline uint32_t view_stamp(const struct view *view, bool is_global) {
    return (uint32_t)((uintptr_t)view >> 12) * 0x9e3779b9u + (uint32_t)view->fetch_version[is_global];
}

/* Whether bits 63:47 are equal (SDM vol. 1, 3.3.7.1). */
static inline bool view_is_canonical(uint64_t linear) {
    return (uint64_t)((int64_t)(linear << 16) >> 16) == linear;
}

static inline unsigned view_index(uint64_t linear) {
    return (unsigned)(linear >> 12) & (VIEW_ENTRIES - 1);
}

/*
 * A tag that no access at this index can match, up to VIEW_REACH pages long; zero does for all but the indices next to
 * linear address 0.
 */
#define VIEW_REACH 8u
static inline uint64_t view_invalid_tag(unsigned index) {
    return index == 0 || index >= VIEW_ENTRIES - VIEW_REACH ? -(0x8000ull << 12) : 0;
}

/* Host address of a cached access, or NULL. `size` bytes must lie within the page. */
static inline void *view_lookup(const struct view *view, uint64_t linear, unsigned size, bool is_write) {
    const struct view_tables *tables = view->tables;
    unsigned index = view_index(linear);
    uint64_t tag = is_write ? tables->write_tag[index] : tables->read_tag[index];
    return (linear + tag + size - 1) >> 12 ? NULL : (void *)(linear + tables->addend[index]);
}

struct view_page {
    uint64_t linear, host;   /* page addresses */
    unsigned page_shift;     /* of the guest page that maps it */
    bool readable, writable, global;
};

/* Enters a page; what the slot held of another page is dropped. */
void view_fill(struct view *view, const struct view_page *page);
/* Notes that page is part of a large page, as view_fill does; for fetches. */
void view_mark_large(struct view *view, const struct view_page *page);
/* Drops every page, or all but global ones. */
void view_flush(struct view *view, bool keep_global);
/* Drops the page of `linear`, and all of the large page that it may be a part of. */
void view_flush_page(struct view *view, uint64_t linear);
/* Takes write rights from every entry that leads to the host page. */
void view_drop_writes(struct view *view, uint64_t host_page);

/* Remembers that the page, whose read entry is filled, may be written beside the code that was made from it. */
void view_fill_beside(struct view *view, uint64_t linear, const struct code_page *code);
/* Remembers that no memory is at the page. */
void view_fill_device(struct view *view, uint64_t linear, uint64_t physical, bool is_writable);
static inline const struct view_beside *view_beside_at(const struct view *view, uint64_t linear) {
    return &view->beside[(linear >> 12) % VIEW_BESIDE];
}
/* What is known of a page of code; NULL: nothing. */
static inline const struct code_page *view_beside(const struct view *view, uint64_t linear) {
    uint64_t page = linear & ~0xfffull;
    const struct view_beside *beside = view_beside_at(view, linear);
    return beside->page == (page | 1) && view->tables->read_tag[view_index(page)] == -page ? beside->code : NULL;
}
static inline bool view_device(const struct view *view, uint64_t linear, bool is_write, uint64_t *physical) {
    const struct view_beside *beside = view_beside_at(view, linear);
    *physical = beside->physical | (linear & 0xfff);
    return beside->page == ((linear & ~0xfffull) | 1) && !beside->code && (beside->is_writable || !is_write);
}

/* The jump cache. emit_jump_index computes the same. */
static inline unsigned view_jump_index(uint64_t target) {
    return (unsigned)(target + (target >> VIEW_JUMP_SHIFT)) & (VIEW_JUMPS - 1);
}
void view_flush_jumps(struct view *view);
/* Those of every view that has been made. */
void view_set_flush_jumps(const struct view_set *views);
/* The same, for the price of what is there alone: pages that it led to once may be taken for ones that it leads to. */
void view_forget_jumps(struct view *view);
void view_fill_jump(struct view *view, uint64_t target, uint64_t host);
void view_drop_jump(struct view *view, uint64_t target);

/* Executable pages: *physical_page for the page of `linear`. */
bool view_fetch(const struct view *view, uint64_t linear, uint64_t *physical_page);
void view_fill_fetch(struct view *view, uint64_t linear, uint64_t physical_page, bool global);

/* Calls visit once for each view that has been made. */
static inline void view_set_each(const struct view_set *views, void (*visit)(struct view *view, uint64_t value),
                                 uint64_t value) {
    if (views->kernel)
        visit(views->kernel, value);
    for (unsigned s = 0; s < VIEW_SPACES; s++)
        for (unsigned i = 0; i < VIEW_PRIVILEGES; i++)
            if (views->space[s].view[i])
                visit(views->space[s].view[i], value);
}

/* ---- Host side (memory/view_create.c): may use libc. ---- */

/* NULL when the host has no address space left. With room for what a window checks by, if may_have_window and the host lets. */
struct view *view_create(int state_fd, size_t state_size, bool may_have_window);
void view_destroy(struct view *view);

#endif
