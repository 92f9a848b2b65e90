/* Filling and flushing of software shadow page tables; light code. */
#include "memory/window.h"
#include "memory/writers.h"

static inline bool is_global(const struct view *view, unsigned index) {
    return view->global[index / 8] & (1u << (index % 8));
}

static void clear_entry(struct view *view, unsigned index) {
    view->tables->read_tag[index] = view_invalid_tag(index);
    if (writers_holds(view, index))
        writers_remove(view, index);
}

static inline unsigned large_bit(uint64_t linear) {
    return (unsigned)((linear >> 21) ^ (linear >> 33)) & (sizeof((struct view *)0)->large * 8 - 1);
}

void view_mark_large(struct view *view, const struct view_page *page) {
    if (page->page_shift == 12)
        return;
    unsigned halves = page->page_shift == 22 ? 2 : 1; /* the filter knows 2 MiB regions */
    for (unsigned i = 0; i < halves; i++) {
        unsigned large = large_bit(page->linear ^ (uint64_t)i << 21);
        view->large[large / 8] |= (uint8_t)(1u << (large % 8));
    }
    view->has_huge |= page->page_shift > 22;
}

static void list_local(struct view *view, unsigned index) {
    if (view->local_filled < VIEW_LIST)
        view->local[view->local_filled++] = (uint16_t)index;
    else
        view->local_overflow = true;
}

void view_fill(struct view *view, const struct view_page *page) {
    struct view_tables *tables = view->tables;
    unsigned index = view_index(page->linear);
    tables->read_tag[index] = page->readable ? -page->linear : view_invalid_tag(index);
    if (writers_holds(view, index))
        writers_remove(view, index);
    tables->addend[index] = page->host - page->linear;
    if (page->writable) {
        tables->write_tag[index] = -page->linear;
        writers_add(view, index);
    }

    uint8_t bit = (uint8_t)(1u << (index % 8));
    bool was_local = (view->listed[index / 8] & ~view->global[index / 8]) & bit;
    if (page->global) {
        view->global[index / 8] |= bit;
        view->has_global = true;
    } else {
        view->global[index / 8] &= (uint8_t)~bit;
        if (!was_local)
            list_local(view, index);
    }
    view_mark_large(view, page);
    if (view->listed[index / 8] & bit)
        return;
    view->listed[index / 8] |= bit;
    if (view->filled < VIEW_LIST)
        view->list[view->filled++] = (uint16_t)index;
    else
        view->list_overflow = true;
}

void view_fill_beside(struct view *view, uint64_t linear, const struct code_page *code) {
    uint64_t page = linear & ~0xfffull;
    view->beside[(page >> 12) % VIEW_BESIDE] = (struct view_beside){.page = page | 1, .code = code};
}

void view_fill_device(struct view *view, uint64_t linear, uint64_t physical, bool is_writable) {
    uint64_t page = linear & ~0xfffull;
    struct view_beside *beside = &view->beside[(page >> 12) % VIEW_BESIDE];
    bool was_writable = beside->page == (page | 1) && !beside->code && beside->is_writable;
    *beside = (struct view_beside){
        .page = page | 1, .physical = physical & ~0xfffull, .is_writable = is_writable || was_writable};
}

/* Where the list was too short: by the bits, 64 entries at a time. */
static void flush_everything(struct view *view, bool keep_global) {
    view->list_overflow = view->local_overflow = false;
    view->filled = view->local_filled = 0;
    for (unsigned i = 0; i < sizeof view->listed; i += 8) {
        uint64_t *listed = (uint64_t *)&view->listed[i];
        uint64_t kept = keep_global ? *(uint64_t *)&view->global[i] & *listed : 0;
        for (uint64_t bits = *listed & ~kept; bits; bits &= bits - 1)
            clear_entry(view, i * 8 + (unsigned)__builtin_ctzll(bits));
        *listed = kept;
        view->list_overflow |= kept != 0;
    }
}

static void flush_marks(struct view *view) {
    for (unsigned i = 0; i < sizeof view->large; i += 8)
        *(uint64_t *)&view->large[i] = 0;
    view->has_huge = false;
}

static void drop_window(struct view *view, bool keep_global) {
    if (keep_global && (!view->window || !view->window->has_local))
        return;
    view->window_is_stale = true;
    view->dropped_count = 0;
    view->window_merit = 0;
    view->window_blocks = 0;
}

static void drop_from_window(struct view *view, uint64_t page) {
    const struct window_piece *piece = view->window && !view->window_is_stale ? window_find(view->window, page) : NULL;
    if (!piece || (view->dropped_count && view->dropped[view->dropped_count - 1] == piece->linear))
        return;
    if (view->dropped_count < VIEW_DROPPED)
        view->dropped[view->dropped_count++] = piece->linear;
    else
        drop_window(view, false);
}

/* Entries stay in the list: their number is that of the indices in use. */
static void flush_local_entries(struct view *view) {
    for (unsigned i = 0; i < view->local_filled; i++) {
        unsigned index = view->local[i];
        if (is_global(view, index))
            continue; /* another page since */
        clear_entry(view, index);
        view->global[index / 8] |= (uint8_t)(1u << (index % 8)); /* so that its next use is listed */
    }
    view->local_filled = 0;
}

static void flush_listed_entries(struct view *view) {
    for (unsigned i = 0; i < view->filled; i++) {
        unsigned index = view->list[i];
        clear_entry(view, index);
        view->listed[index / 8] &= (uint8_t)~(1u << (index % 8));
    }
    view->filled = view->local_filled = 0;
}

void view_flush(struct view *view, bool keep_global) {
    keep_global &= view->has_global;
    drop_window(view, keep_global);
    for (unsigned i = 0; i < VIEW_BESIDE; i++)
        view->beside[i].page = 0;
    if (keep_global && !view->local_overflow)
        flush_local_entries(view);
    else if (view->list_overflow || keep_global)
        flush_everything(view, keep_global);
    else
        flush_listed_entries(view);
    if (!keep_global) {
        view->has_global = false;
        flush_marks(view);
    }
    view->fetch_version[0] += 2;
    if (!keep_global)
        view->fetch_version[1] += 2;
    if (keep_global && !view->has_local_code)
        return;
    view_flush_jumps(view);
    view->has_local_code = false;
}

static void flush_one(struct view *view, uint64_t page) {
    struct view_tables *tables = view->tables;
    unsigned index = view_index(page);
    struct view_beside *beside = &view->beside[(page >> 12) % VIEW_BESIDE];
    if (beside->page == (page | 1))
        beside->page = 0;
    if (tables->read_tag[index] != -page && tables->write_tag[index] != -page)
        return;
    clear_entry(view, index);
}

static inline unsigned fetched_bit(uint64_t linear) {
    return (unsigned)(linear >> 12) & (sizeof((struct view *)0)->fetched * 8 - 1);
}

/* Whether the jump cache may lead into the page or an instruction that starts in front of it. */
static bool is_fetched(struct view *view, uint64_t page) {
    unsigned bit = fetched_bit(page), before = fetched_bit(page - 4096);
    return (view->fetched[bit / 8] >> (bit % 8) & 1) || (view->fetched[before / 8] >> (before % 8) & 1);
}

static void flush_fetch(struct view *view, uint64_t page) {
    struct view_fetch *fetch = &view->fetch[(page >> 12) % VIEW_FETCHES];
    if (fetch->page == (page | 1))
        fetch->page = 0;
}

void view_flush_page(struct view *view, uint64_t linear) {
    uint64_t page = linear & ~0xfffull;
    unsigned large = large_bit(page);
    drop_from_window(view, page);
    if (view->has_huge) {
        view_flush(view, false);
        return;
    }
    if (view->large[large / 8] & (1u << (large % 8))) {
        /* 4 MiB pages are two regions of 2 MiB. */
        uint64_t first = page & ~0x3fffffull;
        for (uint64_t other = first; other - first < 0x400000; other += 4096) {
            drop_from_window(view, other);
            flush_one(view, other);
            flush_fetch(view, other);
        }
        view_flush_jumps(view);
        return;
    }
    flush_one(view, page);
    if (is_fetched(view, page)) {
        flush_fetch(view, page);
        view_flush_jumps(view);
    }
}

void view_flush_jumps(struct view *view) {
    struct view_jump *jump = view->tables->jump, *second = view->tables->second_jump;
    unsigned count = view->jumps_overflow ? VIEW_JUMPS : view->jumps_filled;
    for (unsigned i = 0; i < count; i++) {
        unsigned index = view->jumps_overflow ? i : view->jumps[i];
        jump[index].negative_target = second[index].negative_target = index == 0;
    }
    if (count)
        for (unsigned i = 0; i < sizeof view->fetched; i += 8)
            *(uint64_t *)&view->fetched[i] = 0;
    view->jumps_filled = 0;
    view->jumps_overflow = false;
}

static void flush_jumps_of(struct view *view, uint64_t unused) {
    (void)unused;
    view_flush_jumps(view);
}

void view_set_flush_jumps(const struct view_set *views) {
    view_set_each(views, flush_jumps_of, 0);
}

void view_forget_jumps(struct view *view) {
    enum { FEW = 256 };
    struct view_jump *jump = view->tables->jump, *second = view->tables->second_jump;
    if (view->jumps_overflow || view->jumps_filled > FEW) {
        view_flush_jumps(view);
        return;
    }
    for (unsigned i = 0; i < view->jumps_filled; i++) {
        unsigned index = view->jumps[i];
        view->fetched[fetched_bit(-jump[index].negative_target) / 8] = 0; /* nobody's bit is needed when all are gone */
        view->fetched[fetched_bit(-second[index].negative_target) / 8] = 0;
        jump[index].negative_target = second[index].negative_target = index == 0;
    }
    view->jumps_filled = 0;
}

void view_fill_jump(struct view *view, uint64_t target, uint64_t host) {
    unsigned index = view_jump_index(target);
    struct view_jump *jump = &view->tables->jump[index], *second = &view->tables->second_jump[index];
    bool is_listed = jump->negative_target != (index == 0) || second->negative_target != (index == 0);
    if (jump->negative_target != (index == 0) && jump->negative_target != -target)
        *second = *jump;
    view->fetched[fetched_bit(target) / 8] |= (uint8_t)(1u << (fetched_bit(target) % 8));
    jump->host = host;
    jump->negative_target = -target;
    if (is_listed)
        return;
    if (view->jumps_filled < VIEW_LIST)
        view->jumps[view->jumps_filled++] = (uint16_t)index;
    else
        view->jumps_overflow = true;
}

void view_drop_jump(struct view *view, uint64_t target) {
    unsigned index = view_jump_index(target);
    struct view_jump *places[] = {&view->tables->jump[index], &view->tables->second_jump[index]};
    for (unsigned i = 0; i < 2; i++)
        if (places[i]->negative_target == -target)
            places[i]->negative_target = index == 0;
}

bool view_fetch(const struct view *view, uint64_t linear, uint64_t *physical_page) {
    uint64_t page = linear & ~0xfffull;
    const struct view_fetch *fetch = &view->fetch[(page >> 12) % VIEW_FETCHES];
    *physical_page = fetch->physical_page;
    return fetch->page == (page | 1) && fetch->version == (view->fetch_version[fetch->version & 1] | (fetch->version & 1));
}

void view_fill_fetch(struct view *view, uint64_t linear, uint64_t physical_page, bool global) {
    uint64_t page = linear & ~0xfffull;
    struct view_fetch *fetch = &view->fetch[(page >> 12) % VIEW_FETCHES];
    view->has_local_code |= !global;
    uint64_t version = view->fetch_version[global] | global;
    *fetch = (struct view_fetch){.page = page | 1, .physical_page = physical_page, .version = version};
}
