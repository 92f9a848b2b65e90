/* The host's side of windows: reservations and mappings. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "memory/window.h"

#define PAGE 4096ull

/* ---- Regions ---- */

/*
 * An addend for addresses of a region that is not reserved. Bit 54 alone of bits 54:47 is set in the sums, so that they
 * are canonical under no paging mode of today's hosts, whatever bits 63:56 of the address are, and stay so when a
 * displacement is added; without it, one from an address just above the lower half would lead into the monitor's own.
 */
static uint64_t poison(unsigned index) {
    return WINDOW_POISON - ((uint64_t)index << VIEW_REGION_SHIFT);
}

static bool is_upper(uint64_t linear) {
    return linear >> 63;
}

static bool is_reserved(const struct window *window, unsigned group, uint64_t linear) {
    for (unsigned i = 0; i < window->region_count; i++)
        if (window->region[i].group == group && window->region[i].linear == linear)
            return true;
    return false;
}

static bool reserve_exactly(uint64_t start, uint64_t end) {
    enum { FLAGS = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE };
    if (start >= end || end > 1ull << 47 || start < 1ull << 32)
        return false;
    void *wanted = (void *)start, *got = mmap(wanted, end - start, PROT_NONE, FLAGS, -1, 0);
    if (got == MAP_FAILED)
        return false;
    if (got == wanted)
        return true;
    munmap(got, end - start); /* a kernel that does not know MAP_FIXED_NOREPLACE */
    return false;
}

/* The region with guards, but for what a neighbour of the same group has reserved already. */
static bool reserve_at(const struct window *window, unsigned group, uint64_t linear, uint64_t addend) {
    uint64_t size = window_region_size(window), start = linear + addend - WINDOW_GUARD;
    uint64_t end = linear + addend + size + WINDOW_GUARD;
    if (is_reserved(window, group, linear - size))
        start += 2 * WINDOW_GUARD;
    if (is_reserved(window, group, linear + size))
        end -= 2 * WINDOW_GUARD;
    return reserve_exactly(start, end);
}

static void release(const struct window *window, unsigned i) {
    uint64_t start = window->region[i].linear + window->addend[window->region[i].group] - WINDOW_GUARD;
    munmap((void *)start, window_region_size(window) + 2 * WINDOW_GUARD);
}

/* Regions of one half that a group is to hold. */
struct wish {
    uint64_t linear[WINDOW_REGIONS];
    unsigned count, most;
};

static void wish_for(struct wish *wish, uint64_t linear) {
    linear = linear >> VIEW_REGION_SHIFT << VIEW_REGION_SHIFT;
    for (unsigned i = 0; i < wish->count; i++)
        if (wish->linear[i] == linear)
            return;
    if (wish->count < wish->most)
        wish->linear[wish->count++] = linear;
}

/* Whether one addend is likely to have room for both: they are near each other, or in the same half of what programs have. */
static bool go_together(uint64_t one, uint64_t other) {
    return other - one + (2ull << VIEW_REGION_SHIFT) < 5ull << VIEW_REGION_SHIFT || (one ^ other) >> 46 == 0;
}

/*
 * Of user code, A is for the stack and what goes with it: libraries, and the image and the heap of a program that may be
 * loaded anywhere. Images at fixed, low addresses and their heaps are for B. So code that programs share finds the same
 * things in the same groups.
 */
static bool is_for(const struct window *window, unsigned group, uint64_t linear) {
    if (window->is_supervisor)
        return group == (is_upper(linear) ? WINDOW_A : WINDOW_B);
    for (unsigned i = 0; i < window->region_count; i++)
        if (window->region[i].group == WINDOW_A && go_together(window->region[i].linear, linear))
            return group == WINDOW_A;
    return group == (window->has_group[WINDOW_A] ? WINDOW_B : WINDOW_A);
}

/* Whether the group that is to be made for the first of the wishes should have room for the region, too. */
static bool belongs(const struct window *window, unsigned group, const struct wish *wish, uint64_t linear) {
    bool is_first_of_a = !window->is_supervisor && group == WINDOW_A;
    return is_upper(linear) == is_upper(wish->linear[0]) &&
           (is_first_of_a ? go_together(wish->linear[0], linear) : is_for(window, group, linear));
}

/* Windows of user code are much alike, and the last region would find no room if each were made for the first one. */
static void wish_for_habits(struct wish *wish, const struct window *window, unsigned group) {
    for (unsigned i = 0; i < WINDOW_HABITS; i++) {
        uint64_t habit = atomic_load_explicit(&window->shared->habit[i], memory_order_relaxed), linear = habit & ~1ull;
        if (!habit)
            return;
        if (belongs(window, group, wish, linear))
            wish_for(wish, linear);
    }
}

static void note_habit(const struct window *window, uint64_t linear) {
    for (unsigned i = 0; i < WINDOW_HABITS; i++) {
        uint64_t none = 0;
        if (atomic_compare_exchange_strong(&window->shared->habit[i], &none, linear | 1) || none == (linear | 1))
            return;
    }
}

/* Images, heaps, a kernel's memory have regions of their own: those that the software tables know. */
static void wish_for_known(struct wish *wish, const struct view *view, unsigned group) {
    for (unsigned i = view->filled; i-- > 0;) {
        uint64_t linear = -view->tables->read_tag[view->list[i]];
        if (view_index(linear) == view->list[i] && view_is_canonical(linear) && belongs(view->window, group, wish, linear))
            wish_for(wish, linear);
    }
}

static bool reserve_all(struct window *window, unsigned group, uint64_t addend, const struct wish *wish) {
    unsigned before = window->region_count;
    window->addend[group] = addend;
    for (unsigned i = 0; i < wish->count; i++) {
        if (!reserve_at(window, group, wish->linear[i], addend)) {
            while (window->region_count > before)
                release(window, --window->region_count);
            return false;
        }
        window->region[window->region_count].linear = wish->linear[i];
        window->region[window->region_count++].group = group;
    }
    return true;
}

/*
 * An addend under which the regions are free; those of a window's groups are far apart, and neighbours have room. A kernel
 * spreads over most of its half, which leaves few addends for the windows of all processors: they lie as close as guards
 * let, at the same lower 28 bits (view_create.c).
 */
static bool find_addend(struct window *window, unsigned group, const struct wish *wish) {
    const uint64_t linear = wish->linear[0], half = is_upper(linear) ? 1ull << 47 : 0;
    const uint64_t step = half ? (1ull << VIEW_REGION_SHIFT) + (1ull << 28) : 2ull << VIEW_REGION_SHIFT;
    for (uint64_t k = half ? 1 : 4; k < 60; k++) {
        bool goes_down = half || (group == WINDOW_A && linear >= 64ull << VIEW_REGION_SHIFT);
        uint64_t addend = half + (goes_down ? -(k * step) : k * step);
        if (group == WINDOW_A && !view_is_canonical(addend))
            continue; /* the host's GS would not take it */
        if (reserve_all(window, group, addend, wish)) {
            window->has_group[group] = true;
            window->is_upper[group] = is_upper(linear);
            return true;
        }
    }
    return false;
}

static bool found_group(struct view *view, unsigned group, uint64_t linear) {
    struct window *window = view->window;
    struct wish wish = {.linear = {linear}, .count = 1, .most = WINDOW_REGIONS - window->region_count};
    if (!window->is_supervisor)
        wish_for_habits(&wish, window, group);
    if (!window->is_supervisor || is_upper(linear))
        wish_for_known(&wish, view, group);
    if (find_addend(window, group, &wish))
        return true;
    wish.count = 1;
    return find_addend(window, group, &wish);
}

static bool reserve_in_group(struct view *view, unsigned group, uint64_t linear) {
    struct window *window = view->window;
    if (!window->has_group[group])
        return found_group(view, group, linear);
    struct wish wish = {.linear = {linear}, .count = 1};
    return window->is_upper[group] == is_upper(linear) && reserve_all(window, group, window->addend[group], &wish);
}

/* Without BMI2 (emit_check_index), checks see bits 46:40 of an address alone: see window.h. */
static bool add_check_page(struct view *view, unsigned group, uint64_t linear) {
    const uint64_t lower = linear & ((1ull << 47) - 1);
    unsigned table = window_check_table(group);
    return mprotect(view_check_page(view, table, linear), PAGE, PROT_READ) == 0 &&
           (lower == linear || mprotect(view_check_page(view, table, lower), PAGE, PROT_READ) == 0);
}

static bool add_addends(struct view *view, uint64_t linear, uint64_t addend) {
    uint64_t *page = (uint64_t *)view_check_page(view, VIEW_ADDENDS, linear);
    if (mprotect(page, PAGE, PROT_READ | PROT_WRITE) != 0)
        return false;
    for (unsigned i = 0; i < PAGE / sizeof *page; i++)
        page[i] = addend;
    return mprotect(page, PAGE, PROT_READ) == 0;
}

static bool hide_checks(struct view *view) {
    enum { FLAGS = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED };
    const size_t size = sizeof view->tables->check + VIEW_CHECK_SPAN;
    return !view->has_checks || mmap(view->tables->check, size, PROT_NONE, FLAGS, -1, 0) != MAP_FAILED;
}

/* From here on translated code may go there. */
static bool enter_regions(struct view *view, unsigned first) {
    const struct window *window = view->window;
    bool done = true;
    for (unsigned i = first; i < window->region_count; i++) {
        uint64_t linear = window->region[i].linear;
        unsigned group = window->region[i].group;
        view->tables->region[linear >> VIEW_REGION_SHIFT & (VIEW_REGIONS - 1)] = window->addend[group];
        done &= !window->is_64 ||
                (add_check_page(view, group, linear) && add_addends(view, linear, window->addend[group]));
    }
    return done;
}

bool window_reserve(struct view *view, uint64_t linear) {
    struct window *window = view->window;
    if (window_group(window, linear) != WINDOW_GROUPS)
        return true;
    if (window->region_count == WINDOW_REGIONS || !view_is_canonical(linear) || (!window->is_64 && linear >> 32))
        return false;
    linear = linear >> VIEW_REGION_SHIFT << VIEW_REGION_SHIFT;
    for (unsigned i = 0; i < window->refused_count; i++)
        if (window->refused[i] == linear)
            return false;
    /* Blocks are shared: addresses are in the same groups for all processors and programs, and the window is made anew
       where one finds no room in its group. */
    unsigned before = window->region_count, best = is_for(window, WINDOW_A, linear) ? WINDOW_A : WINDOW_B;
    if (window->is_64 && !window->is_supervisor)
        note_habit(window, linear);
    unsigned other = WINDOW_A + WINDOW_B - best;
    bool may_differ = !window->is_supervisor && view->window_moves >= WINDOW_MOVES;
    if (reserve_in_group(view, best, linear) || (may_differ && reserve_in_group(view, other, linear)))
        return enter_regions(view, before);
    if (window->refused_count < WINDOW_REGIONS)
        window->refused[window->refused_count++] = linear;
    return false;
}

uint32_t window_budget(void) {
    enum { USUAL = 65530, OTHERS = 8000 };
    unsigned long most = USUAL;
    FILE *file = fopen("/proc/sys/vm/max_map_count", "r");
    if (file) {
        if (fscanf(file, "%lu", &most) != 1)
            most = USUAL;
        fclose(file);
    }
    if (most > 1u << 20)
        most = 1u << 20;
    return most > OTHERS ? (uint32_t)(most - OTHERS) / 2 : 0; /* a page amid a reservation cuts that in two */
}

bool window_create(struct view *view, bool is_64, bool is_supervisor, struct window_shared *shared) {
    struct window *window =
        mmap(NULL, sizeof *window, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (window == MAP_FAILED)
        return false;
    window->is_64 = is_64;
    window->is_supervisor = is_supervisor && is_64;
    window->shared = shared;
    if ((is_64 && !view->has_checks) || !hide_checks(view)) {
        munmap(window, sizeof *window);
        return false;
    }
    for (unsigned i = 0; i < VIEW_REGIONS; i++)
        view->tables->region[i] = poison(i);
    view->window = window;
    if (is_64 || window_reserve(view, 0))
        return true;
    window_destroy(view);
    return false;
}

void window_destroy(struct view *view) {
    struct window *window = view->window;
    if (!window)
        return;
    view->window = NULL;
    view->window_is_stale = view->window_must_move = false;
    view->dropped_count = 0;
    view->window_awaited = 0;
    for (unsigned i = 0; i < window->region_count; i++)
        release(window, i);
    atomic_fetch_add(&window->shared->budget, window->piece_count);
    munmap(window, sizeof *window);
}

/* ---- Pieces ---- */

enum {
    HOLE_COST = 2, /* mappings: the page, and what is behind it */
    MOST_HOLES = 128,
};

static uint8_t *host_of(const struct window *window, const struct window_piece *piece) {
    unsigned group = window_group(window, piece->linear);
    return group < WINDOW_GROUPS ? (uint8_t *)(piece->linear + window->addend[group]) : NULL;
}

static void hide(uint8_t *host, uint64_t size) {
    /* Where the host has no room for one more mapping, taking the rights away is as good. */
    if (mmap(host, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
        mprotect(host, size, PROT_NONE);
}

static uint16_t *alias_bucket(struct window *window, const uint8_t *memory) {
    return &window->alias[window_bucket((uint64_t)memory)];
}

/* What leads to the piece of this number, in each of its buckets. */
static uint16_t *link_to(struct window *window, unsigned number) {
    uint16_t *link = &window->bucket[window_bucket(window->piece[number - 1].linear)];
    while (*link != number)
        link = &window->piece[*link - 1].next;
    return link;
}

static uint16_t *alias_link_to(struct window *window, unsigned number) {
    uint16_t *link = alias_bucket(window, window->piece[number - 1].memory);
    while (*link != number)
        link = &window->piece[*link - 1].next_alias;
    return link;
}

static void forget(struct window *window, struct window_piece *piece) {
    unsigned number = (unsigned)(piece - window->piece) + 1, last = window->piece_count;
    atomic_fetch_add(&window->shared->budget, HOLE_COST * piece->holes);
    *link_to(window, number) = piece->next;
    *alias_link_to(window, number) = piece->next_alias;
    if (number != last) {
        *link_to(window, last) = (uint16_t)number;
        *alias_link_to(window, last) = (uint16_t)number;
        *piece = window->piece[last - 1];
    }
    window->piece_count--;
    atomic_fetch_add(&window->shared->budget, 1);
}

void window_unmap(struct window *window, struct window_piece *piece) {
    uint8_t *host = host_of(window, piece);
    if (host)
        hide(host, piece->pages * PAGE);
    forget(window, piece);
}

static int by_address(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static uint64_t end_of(uint64_t leaving) {
    return (leaving & ~1ull) + (leaving & 1 ? WINDOW_LARGE : 1) * PAGE;
}

static void leave(struct window *window, struct window_piece *piece, unsigned *count) {
    window->leaving[(*count)++] = piece->linear | (piece->pages > 1);
    forget(window, piece);
}

/* Whether nothing is mapped between two addresses that are so close that looking is cheaper than one more call of the host. */
static bool is_bare(struct window *window, uint64_t start, uint64_t end) {
    enum { CLOSE = 64 };
    if (end - start > CLOSE * PAGE)
        return false;
    for (; start < end; start += PAGE)
        if (window_find(window, start))
            return false;
    return true;
}

/* Hides what has left the table, and bare addresses between. */
static void hide_leaving(struct window *window, unsigned count) {
    qsort(window->leaving, count, sizeof *window->leaving, by_address);
    for (unsigned i = 0; i < count;) {
        uint64_t start = window->leaving[i] & ~1ull, end = end_of(window->leaving[i]);
        uint64_t last = start | ((1ull << VIEW_REGION_SHIFT) - 1); /* neighbouring regions may lie apart */
        for (i++; i < count && window->leaving[i] <= last && is_bare(window, end, window->leaving[i] & ~1ull); i++)
            end = end_of(window->leaving[i]);
        const struct window_piece run = {.linear = start};
        uint8_t *host = host_of(window, &run);
        if (host)
            hide(host, end - start);
    }
}

void window_keep(struct window *window, bool (*keeps)(struct window_piece *piece, void *argument), void *argument) {
    unsigned count = 0;
    for (unsigned i = window->piece_count; i-- > 0;)
        if (!keeps(&window->piece[i], argument))
            leave(window, &window->piece[i], &count);
    hide_leaving(window, count);
}

void window_unmap_pages(struct window *window, const uint64_t *linear, unsigned count) {
    unsigned leaving = 0;
    for (unsigned i = 0; i < count; i++) {
        struct window_piece *piece = window_find(window, linear[i]);
        if (piece)
            leave(window, piece, &leaving);
    }
    hide_leaving(window, leaving);
}

static void unmap_single_pages(struct window *window, const struct window_piece *large) {
    for (unsigned i = window->piece_count; i-- > 0;)
        if (window->piece[i].linear - large->linear < large->pages * PAGE)
            forget(window, &window->piece[i]);
}

static void enter(struct window *window, const struct window_piece *piece) {
    struct window_piece *entry = window_find(window, piece->linear);
    uint16_t *alias = alias_bucket(window, piece->memory);
    if (!entry) {
        uint16_t *bucket = &window->bucket[window_bucket(piece->linear)];
        atomic_fetch_sub(&window->shared->budget, 1);
        entry = &window->piece[window->piece_count++];
        entry->next = *bucket;
        entry->holes = 0;
        *bucket = (uint16_t)window->piece_count;
    } else {
        *alias_link_to(window, (unsigned)(entry - window->piece) + 1) = entry->next_alias;
    }
    uint16_t next = entry->next;
    atomic_fetch_add(&window->shared->budget, HOLE_COST * entry->holes);
    *entry = *piece;
    entry->next = next;
    entry->next_alias = *alias;
    *alias = (uint16_t)(entry - window->piece + 1);
    window->has_local |= !piece->global;
}

/* Makes the table agree with what is about to be mapped over it. */
static void make_room(struct window *window, const struct window_piece *piece, unsigned count) {
    if (piece->pages > 1)
        unmap_single_pages(window, piece);
    for (unsigned i = 0; i < count && piece->pages == 1; i++) {
        struct window_piece *old = window_find(window, piece->linear + i * PAGE);
        if (old && old->pages > 1)
            window_unmap(window, old);
    }
}

bool window_map(struct window *window, const struct window_piece *piece, unsigned count, int fd, uint64_t offset) {
    uint8_t *host = host_of(window, piece);
    /* Other vCPUs may take from the budget meanwhile: a few pieces more do no harm. */
    if (!host || window->piece_count + count > WINDOW_PIECES || (int32_t)atomic_load(&window->shared->budget) < (int32_t)count)
        return false;
    make_room(window, piece, count);
    int rights = piece->writable ? PROT_READ | PROT_WRITE : PROT_READ;
    int populate = piece->pages == 1 ? MAP_POPULATE : 0;
    uint64_t size = piece->pages * count * PAGE;
    bool done = mmap(host, size, rights, MAP_SHARED | MAP_FIXED | populate, fd, (off_t)offset) != MAP_FAILED;
    for (unsigned i = 0; i < count; i++) {
        struct window_piece one = *piece;
        one.linear += i * piece->pages * PAGE;
        one.memory += i * piece->pages * PAGE;
        struct window_piece *old = window_find(window, one.linear);
        if (done)
            enter(window, &one);
        else if (old)
            window_unmap(window, old);
    }
    return done;
}

/* A piece that may be written and begins there, or NULL. */
static struct window_piece *find_alias(struct window *window, const uint8_t *memory, unsigned pages, unsigned after) {
    for (unsigned i = after ? window->piece[after - 1].next_alias : *alias_bucket(window, memory); i;
         i = window->piece[i - 1].next_alias)
        if (window->piece[i - 1].memory == memory && window->piece[i - 1].pages == pages && window->piece[i - 1].writable)
            return &window->piece[i - 1];
    return NULL;
}

void window_drop_writes(struct window *window, uint8_t *memory_page, uint8_t *large) {
    struct window_piece *piece;
    while ((piece = find_alias(window, memory_page, 1, 0))) {
        if (mprotect(host_of(window, piece), PAGE, PROT_READ) == 0)
            piece->writable = false;
        else
            window_unmap(window, piece);
    }
    for (piece = find_alias(window, large, WINDOW_LARGE, 0); piece;) {
        unsigned number = (unsigned)(piece - window->piece) + 1, count = window->piece_count;
        window_close_page(window, piece, piece->linear + (uint64_t)(memory_page - large));
        bool is_gone = window->piece_count != count; /* the chain is another then */
        piece = find_alias(window, large, WINDOW_LARGE, is_gone ? 0 : number);
    }
}

void window_close_page(struct window *window, struct window_piece *large, uint64_t linear) {
    uint8_t *host = host_of(window, large) + ((linear - large->linear) & ~(PAGE - 1));
    if (large->holes == MOST_HOLES || (int32_t)atomic_load(&window->shared->budget) < HOLE_COST ||
        mprotect(host, PAGE, PROT_READ) != 0) {
        window_unmap(window, large);
        return;
    }
    large->holes++;
    atomic_fetch_sub(&window->shared->budget, HOLE_COST);
}

bool window_open_page(struct window *window, struct window_piece *large, uint64_t linear) {
    uint8_t *host = host_of(window, large) + ((linear - large->linear) & ~(PAGE - 1));
    if (mprotect(host, PAGE, PROT_READ | PROT_WRITE) != 0)
        return false;
    if (large->holes) {
        large->holes--;
        atomic_fetch_add(&window->shared->budget, HOLE_COST);
    }
    return true;
}
