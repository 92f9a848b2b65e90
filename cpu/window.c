/* Opening, filling and comparing of windows; what maps on the host runs behind call_full. */
#include "cpu/window.h"
#include "cpu/mode.h"
#include "cpu/views.h"
#include "cpu/watch.h"

enum {
    MERIT_TO_OPEN = 2,      /* samples */
    POLLS = 100000,         /* that count as a sample: a third of a millisecond in a small loop, more in large code */
    MOST_PATIENCE = 64,
    MAPPED_AT_ONCE = 1024,  /* pages that the software tables know already */
    EVENT_COST = 20000,     /* cycles of the host: a signal and a mapping */
    BLOCK_COST = 15000,     /* likewise: the translation of a block */
    EARNED_SHIFT = 2,       /* a quarter of the time in a window pays for events */
};
#define MOST_DEBT (EVENT_COST * 400ull)
#define LONG_USE 1000000000ull
#define FORGIVING (1ull << 28) /* cycles of the host that halve what is held against a view */
#define GIVEN_UP UINT32_MAX /* of window_patience */

/* ---- What may be mapped ---- */

static bool is_code(_Atomic uint8_t *flags) {
    return atomic_load(flags) & MEMORY_CODE;
}

/* Marks the pages as reachable by stores. How many of them have translated code; see cpu_fill for the order. */
static unsigned claim_writes(struct memory_region *region, guest_physical physical, unsigned pages) {
    _Atomic uint8_t *flags = memory_page_flags(region, physical);
    const uint8_t both = MEMORY_WRITE_CACHED | MEMORY_DIRTY;
    unsigned with_code = 0;
    for (unsigned i = 0; i < pages; i++) {
        if ((atomic_load_explicit(&flags[i], memory_order_relaxed) & both) != both)
            atomic_fetch_or(&flags[i], both);
        with_code += is_code(&flags[i]);
    }
    return with_code;
}

static bool is_whole_in(const struct memory_region *region, uint64_t physical, uint64_t size) {
    return physical >= region->base && physical - region->base + size <= region->length;
}

struct mapping {
    struct cpu *cpu;
    struct view *view;
    uint64_t linear;
    struct cpu_translation translation;
    bool done, is_writable, lacks_room;
};

static bool may_write(const struct memory_region *region, const struct cpu_translation *translation) {
    return translation->writable && translation->dirty && !(region->flags & TRAPEZE_MEMORY_READ_ONLY);
}

/* Whether the page so many pages behind the mapping's is so in the guest's memory, too, has the same rights, was used
   before, and is not in the window yet. */
static bool is_alike(const struct mapping *mapping, struct memory_region *region, bool can_write, int64_t pages) {
    uint64_t offset = (uint64_t)pages * MEMORY_PAGE, linear = (mapping->linear & ~MEMORY_PAGE_MASK) + offset;
    guest_physical expected = guest_physical_at((mapping->translation.physical.value & ~MEMORY_PAGE_MASK) + offset);
    struct cpu_translation at;
    if (window_find(mapping->view->window, linear) || !cpu_walk_look(mapping->cpu, linear, &at))
        return false;
    return at.physical.value == expected.value && at.global == mapping->translation.global && at.page_shift == 12 &&
           is_whole_in(region, expected.value, MEMORY_PAGE) && may_write(region, &at) == can_write &&
           !(can_write && claim_writes(region, expected, 1));
}

/* Pages that are mapped with the mapping's, in the same aligned 64 KiB: `before` and `behind` it. */
struct neighbours {
    unsigned before, behind;
};

static struct neighbours find_neighbours(const struct mapping *mapping, struct memory_region *region, bool can_write) {
    enum { TOGETHER = 16 };
    unsigned place = (unsigned)(mapping->linear / MEMORY_PAGE % TOGETHER);
    struct neighbours found = {0, 0};
    while (found.before < place && is_alike(mapping, region, can_write, -(int64_t)found.before - 1))
        found.before++;
    while (place + found.behind + 1 < TOGETHER && is_alike(mapping, region, can_write, found.behind + 1))
        found.behind++;
    return found;
}

/* Stores to pages with code must be seen. The large piece at `linear` has just been mapped. */
static void close_code_pages(struct mapping *mapping, struct memory_region *region, guest_physical physical,
                             uint64_t linear) {
    _Atomic uint8_t *flags = memory_page_flags(region, physical);
    struct window *window = mapping->view->window;
    for (unsigned i = 0; i < WINDOW_LARGE; i++) {
        struct window_piece *piece = window_find(window, linear);
        if (!piece)
            return;
        if (is_code(&flags[i]))
            window_close_page(window, piece, linear + i * (uint64_t)MEMORY_PAGE);
    }
}

static bool map(struct mapping *mapping, struct memory_region *region, unsigned pages) {
    enum { MOST_WITH_CODE = 64 };
    uint64_t size = pages * (uint64_t)MEMORY_PAGE;
    guest_physical physical = guest_physical_at(mapping->translation.physical.value & ~(size - 1));
    bool can_write = may_write(region, &mapping->translation);
    if (!is_whole_in(region, physical.value, size))
        return false;
    unsigned with_code = can_write ? claim_writes(region, physical, pages) : 0;
    if (pages > 1 && with_code > MOST_WITH_CODE)
        return false;
    struct window_piece piece = {.linear = mapping->linear & ~(size - 1),
                                 .memory = memory_host(region, physical),
                                 .pages = (uint16_t)pages,
                                 .writable = can_write && (pages > 1 || !with_code),
                                 .global = mapping->translation.global};
    mapping->is_writable = can_write && !is_code(memory_page_flags(region, mapping->translation.physical));
    struct neighbours with = {0, 0};
    if (pages == 1)
        with = find_neighbours(mapping, region, piece.writable);
    uint64_t before = with.before * (uint64_t)MEMORY_PAGE;
    piece.linear -= before;
    piece.memory -= before;
    bool done = window_map(mapping->view->window, &piece, with.before + 1 + with.behind, region->fd,
                           region->offset + (physical.value - before - region->base));
    if (done && pages > 1 && with_code)
        close_code_pages(mapping, region, physical, piece.linear);
    return done && window_find(mapping->view->window, mapping->linear);
}

/* The page of a large piece that could not be written when it had code. */
static bool open_page(struct mapping *mapping, struct memory_region *region) {
    struct window_piece *piece = window_find(mapping->view->window, mapping->linear);
    guest_physical physical = guest_physical_at(mapping->translation.physical.value & ~MEMORY_PAGE_MASK);
    if (!piece || piece->pages == 1 || !piece->writable || !may_write(region, &mapping->translation) ||
        piece->memory + ((mapping->linear - piece->linear) & ~MEMORY_PAGE_MASK) != memory_host(region, physical))
        return false;
    mapping->is_writable =
        !claim_writes(region, physical, 1) && window_open_page(mapping->view->window, piece, mapping->linear);
    return true;
}

/* Supervisor code of all address spaces uses one view: pages of one of them would void its window at each switch. */
static bool may_map(const struct cpu *cpu, const struct cpu_translation *translation) {
    return cpu->cpl == 3 || translation->global || !(cpu->cr4 & CR4_PGE);
}

/* Without paging all of memory is side by side. */
static bool is_large_page(const struct cpu *cpu, const struct cpu_translation *translation) {
    return translation->page_shift > 12 || !(cpu->cr0 & CR0_PG);
}

static bool map_at_best(struct mapping *mapping, struct memory_region *region) {
    bool is_large =
        is_large_page(mapping->cpu, &mapping->translation) && mapping->cpu->memory->address_mask == ~0ull;
    return open_page(mapping, region) || (is_large && map(mapping, region, WINDOW_LARGE)) || map(mapping, region, 1);
}

/* Where the host may soon have too many mappings, the largest window of another address space of this processor goes. */
static bool find_budget(struct cpu *cpu) {
    enum { SHORT = 64 };
    struct view *largest = NULL;
    if ((int32_t)atomic_load(&cpu->memory->windows.budget) >= SHORT)
        return false;
    for (unsigned s = 0; s < VIEW_SPACES; s++) {
        struct view *view = cpu->views.space[s].view[VIEW_USER];
        if (s != cpu->views.current && view && view->window && view->window->piece_count >= SHORT &&
            (!largest || view->window->piece_count > largest->window->piece_count))
            largest = view;
    }
    if (!largest)
        return false;
    window_destroy(largest);
    largest->window_merit = largest->window_blocks = 0;
    return true;
}

static uint64_t map_page(void *argument) {
    struct mapping *mapping = argument;
    struct machine_memory *memory = mapping->cpu->memory;
    struct memory_region *region = memory_find(memory, mapping->translation.physical);
    mapping->done = false;
    if (!region || (region->flags & TRAPEZE_MEMORY_LOG_DIRTY) || !may_map(mapping->cpu, &mapping->translation))
        return 0;
    if (!window_reserve(mapping->view, mapping->linear)) {
        mapping->lacks_room = true;
        return 0;
    }
    mapping->done = map_at_best(mapping, region);
    if (!mapping->done && find_budget(mapping->cpu))
        mapping->done = map_at_best(mapping, region);
    return 0;
}

/* What accesses of group A add. Nothing else in the process uses the host's GS. */
static void set_host_gs(struct cpu *cpu, uint64_t base) {
    if (cpu->host_gs == base)
        return;
    cpu->host_gs = base;
    if (cpu->has_fsgsbase) {
        __asm__ volatile(".byte 0xf3, 0x48, 0x0f, 0xae, 0xd8" : : "a"(base)); /* wrgsbase rax */
    } else {
        enum { SYS_ARCH_PRCTL = 158, ARCH_SET_GS = 0x1001 };
        uint64_t result = SYS_ARCH_PRCTL;
        __asm__ volatile("syscall" : "+a"(result) : "D"((uint64_t)ARCH_SET_GS), "S"(base) : "rcx", "r11", "memory");
    }
}

void cpu_window_place_segment(struct cpu *cpu, unsigned segment) {
    const struct view *view = cpu->hot.view;
    uint64_t base = cpu->hot.segment[segment].base, place = base + cpu->hot.window_addend[WINDOW_A];
    if (view->window->is_64)
        place = base + view->tables->region[base >> VIEW_REGION_SHIFT & (VIEW_REGIONS - 1)];
    else if (cpu->hot.segment[segment].read_end != 1ull << 32 || cpu->hot.segment[segment].write_end != 1ull << 32)
        place = WINDOW_POISON; /* its limit counts */
    cpu->hot.segment_place[segment - CPU_FS] = place;
}

/* Groups may have come into being since. */
static void load_addends(struct cpu *cpu, const struct window *window) {
    /* Without a group A each access of that group is refused by its check. */
    if (window->has_group[WINDOW_A] || cpu->host_gs == CPU_NO_HOST_GS)
        set_host_gs(cpu, window->addend[WINDOW_A]);
    cpu->hot.window_addend[WINDOW_A] = window->addend[WINDOW_A];
    cpu->hot.window_addend[WINDOW_B] = window->addend[WINDOW_B];
    cpu_window_place_segment(cpu, CPU_FS);
    cpu_window_place_segment(cpu, CPU_GS);
}

/* A group may have begun where its other regions would meet something of the host's. */
static bool is_cramped(const struct view *view) {
    return (view->window->is_supervisor || view->window_moves < WINDOW_MOVES) && view->window->region_count < WINDOW_REGIONS;
}

/* A window with half of what the kernel uses costs more than it gains, and spoils the sites for other processors. */
static void move_or_give_up(struct cpu *cpu, struct view *view) {
    if (view->window_moves >= WINDOW_MOVES && cpu->windows == CPU_WINDOWS_ALWAYS)
        return;
    view->window_must_move = view->window_moves < WINDOW_MOVES;
    view->window_is_stale = true;
    view->window_merit = 0;
    if (!view->window_must_move)
        view->window_patience = GIVEN_UP;
    cpu_mode_changed(cpu);
}

bool cpu_window_fill(struct cpu *cpu, uint64_t linear, bool is_write) {
    struct mapping mapping = {.cpu = cpu, .view = cpu->hot.view, .linear = linear};
    if (!cpu_walk_look(cpu, linear, &mapping.translation))
        return false;
    cpu->call_full(cpu, map_page, &mapping);
    load_addends(cpu, mapping.view->window);
    cpu->statistics.window_fills++;
    if (mapping.lacks_room && is_cramped(mapping.view))
        move_or_give_up(cpu, mapping.view);
    return mapping.done && (mapping.is_writable || !is_write);
}

/* ---- Opening ---- */

static bool map_known_page(struct cpu *cpu, struct view *view, unsigned index) {
    uint64_t linear = -view->tables->read_tag[index];
    struct mapping mapping = {.cpu = cpu, .view = view, .linear = linear};
    if (view_index(linear) != index || !cpu_is_canonical(linear) || !cpu_walk_look(cpu, linear, &mapping.translation))
        return false;
    if (window_find(view->window, linear))
        return false;
    map_page(&mapping);
    return true;
}

static void map_known_pages(struct cpu *cpu, struct view *view) {
    unsigned mapped = 0;
    for (unsigned i = view->filled; i-- > 0 && mapped < MAPPED_AT_ONCE;)
        mapped += map_known_page(cpu, view, view->list[i]);
}

static uint64_t open_window(void *argument) {
    struct cpu *cpu = ((struct mapping *)argument)->cpu;
    struct view *view = ((struct mapping *)argument)->view;
    bool is_64 = cpu_is_64bit(cpu);
    if (!window_create(view, is_64, cpu->cpl != 3, &cpu->memory->windows))
        return 0;
    if (is_64)
        window_reserve(view, cpu->hot.gpr[CPU_RSP]); /* first, so that it is in group A */
    view->window_patience = 1;
    map_known_pages(cpu, view);
    return 0;
}

static uint64_t move_window(void *argument) {
    struct view *view = ((struct mapping *)argument)->view;
    window_destroy(view);
    view->window_moves++;
    return open_window(argument);
}

/* ---- Comparing ---- */

static bool still_holds(struct cpu *cpu, struct window_piece *piece) {
    struct cpu_translation now;
    if (!cpu_walk_look(cpu, piece->linear, &now))
        return false;
    struct memory_region *region = memory_find(cpu->memory, now.physical);
    if (!region || memory_host(region, now.physical) != piece->memory || (region->flags & TRAPEZE_MEMORY_LOG_DIRTY))
        return false;
    if ((piece->pages > 1 && !is_large_page(cpu, &now)) || !may_map(cpu, &now))
        return false;
    piece->global = now.global;
    return !piece->writable || (now.writable && now.dirty && !(region->flags & TRAPEZE_MEMORY_READ_ONLY));
}

static bool keeps(struct window_piece *piece, void *mapping) {
    const struct mapping *of = mapping;
    if (!still_holds(of->cpu, piece))
        return false;
    of->view->window->has_local |= !piece->global;
    return true;
}

static uint64_t compare_window(void *argument) {
    struct mapping *mapping = argument;
    struct window *window = mapping->view->window;
    window->has_local = false;
    window_keep(window, keeps, mapping);
    map_known_pages(mapping->cpu, mapping->view);
    return 0;
}

/* Whether the window has the page, whose entry was flushed, as the guest's tables have it now: a write that was the first
   of a shared page, mostly. Mapping over what was there takes one call of the host instead of two. */
static bool maps_again(struct mapping *mapping, uint64_t linear) {
    struct window_piece *piece = window_find(mapping->view->window, linear);
    if (!piece || keeps(piece, mapping))
        return true;
    if (piece->pages > 1 || !cpu_walk_look(mapping->cpu, linear, &mapping->translation))
        return false;
    mapping->linear = linear;
    map_page(mapping);
    return mapping->done;
}

static uint64_t drop_pages(void *argument) {
    struct mapping *mapping = argument;
    struct view *view = mapping->view;
    unsigned leaving = 0;
    for (unsigned i = 0; i < view->dropped_count; i++)
        if (!maps_again(mapping, view->dropped[i]))
            view->dropped[leaving++] = view->dropped[i];
    window_unmap_pages(view->window, view->dropped, leaving);
    return 0;
}

/* ---- Use ---- */

static bool qualifies(const struct cpu *cpu, uint32_t key) {
    const uint32_t never = MODE_TF | MODE_BREAKPOINTS | MODE_VM86 | MODE_SLOW;
    const uint32_t flat32 = MODE_CODE32 | MODE_STACK32 | MODE_FLAT;
    bool is_user = (key & MODE_CPL) == MODE_CPL, is_supervisor = (key & (MODE_CPL | MODE_PROTECTED)) == MODE_PROTECTED;
    if (cpu->windows == CPU_WINDOWS_OFF || (key & never) || !(is_user || is_supervisor) || cpu_is_watching(cpu))
        return false;
    if (is_supervisor && cpu->hot.view != cpu->views.kernel)
        return false; /* reaches user pages as well, for a few instructions at a time */
    if ((key & MODE_CODE) == MODE_CODE64)
        return cpu->has_fsgsbase; /* the host's kernel takes no base that is negative, as those of stacks are */
    return (key & (MODE_CODE | MODE_STACK32 | MODE_FLAT)) == flat32;
}

static uint64_t host_cycles(void) {
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

bool cpu_window_charge(struct cpu *cpu, unsigned events) {
    struct view *view = cpu->hot.view;
    uint64_t now = host_cycles(), earned = (now - view->window_since) >> EARNED_SHIFT;
    bool was_long = now - view->window_since > LONG_USE;
    view->window_since = now;
    view->window_debt = view->window_debt > earned ? view->window_debt - earned : 0;
    view->window_debt += events * (uint64_t)EVENT_COST;
    if (was_long)
        view->window_patience = 1;
    if (view->window_debt < MOST_DEBT + view->window_blocks * (uint64_t)BLOCK_COST || cpu->windows == CPU_WINDOWS_ALWAYS)
        return false;
    view->window_debt = 0;
    view->window_blocks = 0;
    view->window_is_stale = true;
    view->window_merit = 0;
    if (view->window_patience < MOST_PATIENCE)
        view->window_patience *= 2;
    view->window_lost = now;
    return true;
}

/* Whether a stale view has been seen at work long enough. Debts are forgotten: without PCID all of a guest's programs share
   one view, and what starts next may be of another kind. */
static bool has_waited(struct view *view) {
    if (view->window_patience == GIVEN_UP)
        return false;
    if (view->window_patience > 1 && view->window_merit < view->window_patience) {
        uint64_t now = host_cycles();
        for (; view->window_patience > 1 && now - view->window_lost > FORGIVING; view->window_lost += FORGIVING)
            view->window_patience /= 2;
    }
    return view->window_merit >= view->window_patience;
}

void cpu_window_await(struct cpu *cpu, uint64_t linear) {
    cpu->hot.view->window_awaited = (linear & ~MEMORY_PAGE_MASK) | 1;
}

/* Saves a second host fault for what was the guest's own page fault. */
static void map_awaited_page(struct cpu *cpu, struct view *view) {
    struct mapping mapping = {.cpu = cpu, .view = view, .linear = view->window_awaited & ~MEMORY_PAGE_MASK};
    view->window_awaited = 0;
    if (window_find(view->window, mapping.linear) || !cpu_walk_look(cpu, mapping.linear, &mapping.translation))
        return;
    cpu->call_full(cpu, map_page, &mapping);
    cpu->statistics.window_fills++;
}

static bool is_of_kind(const struct window *window, uint32_t key) {
    return window->is_64 == ((key & MODE_CODE) == MODE_CODE64);
}

/* A 64-bit kernel's first code has 32 bits. */
static bool must_move(const struct view *view, uint32_t key) {
    return view->window_must_move ||
           ((key & MODE_CPL) == 0 && !is_of_kind(view->window, key) && view->window_moves < WINDOW_MOVES);
}

bool cpu_window_is_ready(struct cpu *cpu, struct view *view, uint32_t key) {
    if (!qualifies(cpu, key))
        return false;
    bool is_forced = cpu->windows == CPU_WINDOWS_ALWAYS, was_made_or_compared = !view->window || view->window_is_stale;
    struct mapping request = {.cpu = cpu, .view = view};
    if (!view->window) {
        if (view->window_merit < MERIT_TO_OPEN && !is_forced)
            return false;
        cpu->call_full(cpu, open_window, &request);
        if (!view->window)
            return false;
        cpu->statistics.windows_opened++;
    } else if (must_move(view, key)) {
        cpu->call_full(cpu, move_window, &request);
        if (!view->window)
            return false;
    } else if (view->window_is_stale) {
        if (!has_waited(view) && (!is_forced || view->window_patience == GIVEN_UP))
            return false;
        cpu->call_full(cpu, compare_window, &request);
        cpu->statistics.windows_compared++;
    } else if (view->dropped_count) {
        if (cpu_window_charge(cpu, (view->dropped_count + 1) / 2)) /* without a signal */
            return false;
        cpu->call_full(cpu, drop_pages, &request);
    }
    if (was_made_or_compared)
        view->has_wild_stack = false;
    view->window_is_stale = false;
    view->dropped_count = 0;
    if (!is_of_kind(view->window, key))
        return false; /* 32-bit programs of a 64-bit kernel have address spaces of their own; the first one decides */
    if (view->window_awaited)
        map_awaited_page(cpu, view);
    load_addends(cpu, view->window);
    return true;
}

/* The stack may be in a region that nobody has asked for yet. */
void cpu_window_look_at_stack(struct cpu *cpu) {
    struct cpu_place place;
    uint64_t rsp = cpu->hot.gpr[CPU_RSP];
    if (cpu_is_canonical(rsp) && window_group(cpu->hot.view->window, rsp) == WINDOW_GROUPS &&
        cpu_fill(cpu, rsp, ACCESS_READ, &place) == CPU_NEXT && place.is_direct)
        cpu_window_fill(cpu, rsp, false);
    if (cpu_window_holds_stack(cpu))
        return;
    cpu->hot.view->has_wild_stack = true;
    cpu_mode_changed(cpu);
}

void cpu_window_resume(struct cpu *cpu, const struct view *view) {
    load_addends(cpu, view->window);
}

void cpu_window_sample(struct cpu *cpu) {
    cpu->hot.view->window_merit++;
}

bool cpu_window_is_due(struct cpu *cpu) {
    enum { SAMPLE_SHIFT = 22 }; /* 1 to 2 ms */
    struct view *view = cpu->hot.view;
    if (cpu->cpl == 3 || view != cpu->views.kernel || cpu->windows != CPU_WINDOWS_AUTO)
        return false;
    uint64_t now = host_cycles();
    if ((now ^ view->window_sampled) >> SAMPLE_SHIFT == 0)
        return false;
    view->window_sampled = now;
    view->window_merit++;
    return (view->window ? has_waited(view) : view->window_merit >= MERIT_TO_OPEN) && qualifies(cpu, cpu->mode_key);
}

void cpu_window_count(struct cpu *cpu) {
    if (cpu->hot.countdown)
        return;
    cpu->hot.countdown = POLLS;
    cpu_window_sample(cpu);
    cpu_mode_changed(cpu);
}
