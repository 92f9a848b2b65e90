/* The host's side of windows: reservations and mappings. */
#include <sys/mman.h>

#include "memory/window.h"

#define PAGE 4096ull

/* ---- Regions ---- */

/*
 * An addend for addresses of a region without an extent. Bit 54 alone of bits 54:47 is set in the sums, so that they are
 * canonical under no paging mode of today's hosts, whatever bits 63:55 of the address are. Indices whose bits are not
 * all equal come from addresses that are not canonical already.
 */
static uint64_t poison(unsigned index) {
    uint64_t region = (uint64_t)index << VIEW_REGION_SHIFT;
    if (index >= 0x100 && index < 0xff00)
        return 0;
    return (1ull << 54) - region;
}

static void set_region(struct view *view, uint64_t linear, uint64_t addend) {
    view->tables->region[linear >> VIEW_REGION_SHIFT & (VIEW_REGIONS - 1)] = addend;
}

bool window_reserve(struct view *view, uint64_t linear) {
    struct window *window = view->window;
    if (window_extent_of(window, linear))
        return true;
    if (window->extent_count == WINDOW_EXTENTS || linear >> VIEW_REGION_SHIFT << VIEW_REGION_SHIFT > linear)
        return false;
    size_t size = window->region_size + 2 * WINDOW_GUARD;
    uint8_t *host = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (host == MAP_FAILED)
        return false;
    struct window_extent *extent = &window->extent[window->extent_count++];
    extent->linear = linear >> VIEW_REGION_SHIFT << VIEW_REGION_SHIFT;
    extent->host = host + WINDOW_GUARD;
    set_region(view, linear, (uint64_t)extent->host - extent->linear);
    if (extent->linear == 0)
        view->window_base = (uint64_t)extent->host;
    return true;
}

bool window_create(struct view *view, bool is_64) {
    struct window *window =
        mmap(NULL, sizeof *window, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (window == MAP_FAILED)
        return false;
    window->region_size = is_64 ? 1ull << VIEW_REGION_SHIFT : 1ull << 32;
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
    view->window_base = 0;
    for (unsigned i = 0; i < window->extent_count; i++)
        munmap(window->extent[i].host - WINDOW_GUARD, window->region_size + 2 * WINDOW_GUARD);
    munmap(window, sizeof *window);
}

/* ---- Pieces ---- */

static uint8_t *host_of(const struct window *window, const struct window_piece *piece) {
    const struct window_extent *extent = window_extent_of(window, piece->linear);
    return extent ? extent->host + (piece->linear - extent->linear) : NULL;
}

static void hide(uint8_t *host, uint64_t size) {
    /* Where the host has no room for one more mapping, taking the rights away is as good. */
    if (mmap(host, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
        mprotect(host, size, PROT_NONE);
}

static uint16_t *link_to(struct window *window, unsigned number) {
    uint16_t *link = &window->bucket[window_bucket(window->piece[number - 1].linear)];
    while (*link != number)
        link = &window->piece[*link - 1].next;
    return link;
}

static void forget(struct window *window, struct window_piece *piece) {
    unsigned number = (unsigned)(piece - window->piece) + 1, last = window->piece_count;
    *link_to(window, number) = piece->next;
    if (number != last) {
        *link_to(window, last) = (uint16_t)number;
        *piece = window->piece[last - 1];
    }
    window->piece_count--;
}

void window_unmap(struct window *window, struct window_piece *piece) {
    uint8_t *host = host_of(window, piece);
    if (host)
        hide(host, piece->pages * PAGE);
    forget(window, piece);
}

static void unmap_single_pages(struct window *window, const struct window_piece *large) {
    for (unsigned i = window->piece_count; i-- > 0;)
        if (window->piece[i].linear - large->linear < large->pages * PAGE)
            forget(window, &window->piece[i]);
}

bool window_map(struct window *window, const struct window_piece *piece, int fd, uint64_t offset) {
    uint8_t *host = host_of(window, piece);
    if (!host)
        return false;
    struct window_piece *old = window_find(window, piece->linear);
    if (old && old->pages != piece->pages) {
        window_unmap(window, old);
        old = NULL;
    }
    if (!old && piece->pages > 1)
        unmap_single_pages(window, piece);
    if (!old && window->piece_count == WINDOW_PIECES)
        return false;
    int rights = piece->writable ? PROT_READ | PROT_WRITE : PROT_READ;
    int populate = piece->pages == 1 ? MAP_POPULATE : 0;
    if (mmap(host, piece->pages * PAGE, rights, MAP_SHARED | MAP_FIXED | populate, fd, (off_t)offset) == MAP_FAILED) {
        if (old)
            window_unmap(window, old);
        return false;
    }
    if (!old) {
        uint16_t *bucket = &window->bucket[window_bucket(piece->linear)];
        old = &window->piece[window->piece_count++];
        old->next = *bucket;
        *bucket = (uint16_t)window->piece_count;
    }
    uint16_t next = old->next;
    *old = *piece;
    old->next = next;
    return true;
}

void window_clear(struct window *window) {
    for (unsigned i = 0; i < window->piece_count; i++)
        window->bucket[window_bucket(window->piece[i].linear)] = 0;
    if (window->piece_count)
        for (unsigned i = 0; i < window->extent_count; i++)
            hide(window->extent[i].host, window->region_size);
    window->piece_count = 0;
}

void window_drop_writes(struct window *window, uint64_t memory_page) {
    for (unsigned i = window->piece_count; i-- > 0;) {
        struct window_piece *piece = &window->piece[i];
        uint64_t offset = memory_page - (uint64_t)piece->memory;
        if (!piece->writable || offset >= piece->pages * PAGE)
            continue;
        if (piece->pages == 1 && mprotect(host_of(window, piece), PAGE, PROT_READ) == 0)
            piece->writable = false;
        else
            window_unmap(window, piece);
    }
}
