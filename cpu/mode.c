/*
 * Mode key, effective segments and the current view: what translated code takes for granted until one of them changes.
 * Also the flushing of shadow page tables.
 */
#include "cpu/mode.h"
#include "cpu/views.h"
#include "cpu/window.h"

#define XCR0_AVX 6u      /* SSE and AVX */
#define XCR0_AVX512 0xe0u

/* ---- Effective segments ---- */

static inline bool checks_type(const struct cpu *cpu) {
    return cpu_is_protected(cpu) && !cpu_is_vm86(cpu);
}

static inline void set_effective(struct cpu *cpu, unsigned index, bool checks_type) {
    /* By the four bits of the type: 1 for reads, 2 for writes. Expand-down segments are cpu_linear's. */
    static const uint8_t rights_of_type[16] = {1, 1, 3, 3, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 1};
    const struct trapeze_segment *segment = &cpu->segment[index];
    unsigned rights = checks_type ? rights_of_type[segment->attributes & SEGMENT_TYPE] : 3;
    uint64_t end = segment->attributes & SEGMENT_UNUSABLE ? 0 : (uint64_t)segment->limit + 1;
    cpu->loaded[index].selector = CPU_NOT_LOADED;
    cpu->hot.segment[index].base = segment->base;
    cpu->hot.segment[index].read_end = rights & 1 ? end : 0;
    cpu->hot.segment[index].write_end = rights & 2 ? end : 0;
}

void cpu_segment_changed(struct cpu *cpu, unsigned index) {
    set_effective(cpu, index, checks_type(cpu));
    if (index >= CPU_FS && (cpu->mode_key & MODE_WINDOW))
        cpu_window_place_segment(cpu, index);
}

static bool is_flat(const struct cpu *cpu) {
    uint64_t bases = 0, differences = cpu->hot.segment[CPU_CS].read_end ^ 1ull << 32;
    _Static_assert(CPU_ES == 0 && CPU_DS == 3, "FS and GS are the last ones");
    for (unsigned i = CPU_ES; i <= CPU_DS; i++) {
        bases |= cpu->hot.segment[i].base;
        if (i != CPU_CS)
            differences |= cpu->hot.segment[i].write_end ^ 1ull << 32;
    }
    return !(bases | differences);
}

/* ---- Address spaces ---- */

static uint16_t current_pcid(const struct cpu *cpu) {
    return cpu->cr4 & CR4_PCIDE ? (uint16_t)(cpu->cr3 & 0xfff) : 0;
}

static void flush_space(struct view_space *space, bool keep_global) {
    for (unsigned i = 0; i < VIEW_PRIVILEGES; i++)
        if (space->view[i])
            view_flush(space->view[i], keep_global);
}

static uint64_t create_views(void *argument) {
    struct view_set *views = argument;
    struct view_space *space = &views->space[views->current];
    if (!views->kernel)
        views->kernel = view_create(views->state_fd, views->state_size, true);
    if (!views->kernel)
        return false;
    for (unsigned i = 0; i < VIEW_PRIVILEGES; i++) {
        if (!space->view[i])
            space->view[i] = view_create(views->state_fd, views->state_size, i == VIEW_USER);
        if (!space->view[i])
            return false;
    }
    return true;
}

bool cpu_views_create(struct cpu *cpu) {
    return cpu->call_full(cpu, create_views, &cpu->views);
}

/* Makes views.current the space of the PCID, an empty one if it was not cached. */
static void select_space(struct cpu *cpu, uint16_t pcid) {
    struct view_set *views = &cpu->views;
    struct view_space *current = &views->space[views->current];
    if (current->in_use && current->pcid == pcid)
        return;
    cpu->space_changes++;
    view_flush(views->kernel, true);
    unsigned oldest = 0;
    for (unsigned i = 0; i < VIEW_SPACES; i++) {
        struct view_space *space = &views->space[i];
        if (space->in_use && space->pcid == pcid) {
            views->current = i;
            space->last_use = ++views->clock;
            return;
        }
        if (space->last_use < views->space[oldest].last_use)
            oldest = i;
    }
    views->current = oldest;
    struct view_space *space = &views->space[oldest];
    if (space->in_use)
        flush_space(space, false);
    else if (!cpu_views_create(cpu)) {
        /* The host has no room for another space; the first one was made with the vCPU. */
        views->current = 0;
        space = &views->space[0];
        flush_space(space, false);
    }
    space->in_use = true;
    space->pcid = pcid;
    space->last_use = ++views->clock;
}

/* ---- Mode ---- */

static uint32_t compute_control_bits(const struct cpu *cpu) {
    uint32_t key = 0;
    if (cpu->cr0 & CR0_TS)
        key |= MODE_TS;
    if (cpu->cr0 & CR0_EM)
        key |= MODE_EM;
    if (cpu->cr0 & CR0_MP)
        key |= MODE_MP;
    if (cpu->cr4 & CR4_OSFXSR)
        key |= MODE_OSFXSR;
    if (cpu->cr4 & CR4_UMIP)
        key |= MODE_UMIP;
    if (cpu->cr4 & CR4_TSD)
        key |= MODE_TSD;
    if (cpu->cr4 & CR4_OSXSAVE) {
        if ((cpu->xcr0 & XCR0_AVX) == XCR0_AVX)
            key |= MODE_AVX;
        if ((cpu->xcr0 & (XCR0_AVX512 | XCR0_AVX)) == (XCR0_AVX512 | XCR0_AVX))
            key |= MODE_AVX512;
    }
    if (cpu->dr[7] & 0xff) {
        for (unsigned i = 0; i < 4; i++)
            if ((cpu->dr[7] >> (2 * i) & 3) && !(cpu->dr[7] >> (16 + 4 * i) & 3))
                key |= MODE_BREAKPOINTS;
    }
    return key;
}

/* Those of registers that change seldom. */
static uint32_t control_bits(struct cpu *cpu) {
    struct cpu_control *known = &cpu->control;
    if (known->cr0 != cpu->cr0 || known->cr4 != cpu->cr4 || known->xcr0 != cpu->xcr0 || known->dr7 != cpu->dr[7])
        *known = (struct cpu_control){cpu->cr0, cpu->cr4, cpu->xcr0, cpu->dr[7], compute_control_bits(cpu)};
    return known->bits;
}

static uint32_t execution_bits(const struct cpu *cpu) {
    uint64_t flags = cpu->hot.rflags;
    uint32_t key = (uint32_t)cpu->cpl << MODE_CPL_SHIFT;
    if (cpu_is_protected(cpu))
        key |= MODE_PROTECTED;
    if (flags & FLAG_VM)
        key |= MODE_VM86;
    if (flags & FLAG_TF)
        key |= MODE_TF;
    if (cpu->cpl == 3 && (flags & FLAG_AC) && (cpu->cr0 & CR0_AM))
        key |= MODE_ALIGNMENT;
    if (cpu->cpl <= cpu_iopl(cpu))
        key |= MODE_IOPL3;
    if (cpu_is_long_mode(cpu))
        key |= MODE_LONG;
    if (cpu_is_64bit(cpu))
        return key | MODE_CODE64 | MODE_STACK32 | MODE_FLAT;
    if (cpu->segment[CPU_CS].attributes & SEGMENT_DB)
        key |= MODE_CODE32;
    if (cpu->segment[CPU_SS].attributes & SEGMENT_DB)
        key |= MODE_STACK32;
    return key;
}

/* The jump cache knows targets by rip: another base makes them other addresses, another limit may forbid them. */
static void code_segment_changed(struct cpu *cpu) {
    const struct trapeze_segment *code = &cpu->segment[CPU_CS];
    if (cpu_is_64bit(cpu) || (cpu->hot.jump_base == code->base && cpu->hot.jump_limit == code->limit))
        return;
    cpu->hot.jump_base = code->base;
    cpu->hot.jump_limit = code->limit;
    view_set_flush_jumps(&cpu->views);
}

static void set_jump_mode(struct view *view, uint32_t key) {
    if (view->jump_mode == key)
        return;
    view_forget_jumps(view);
    view->jump_mode = key;
}

static struct view *current_view(const struct cpu *cpu) {
    struct view *const *views = cpu->views.space[cpu->views.current].view;
    if (cpu->cpl == 3)
        return views[VIEW_USER];
    return (cpu->cr4 & CR4_SMAP) && (cpu->hot.rflags & FLAG_AC) ? views[VIEW_KERNEL_AC] : cpu->views.kernel;
}

/* STAC and CLAC switch between these without coming here, unless one of them has a window to go to. */
static void note_supervisor_views(struct cpu *cpu) {
    struct view *const *views = cpu->views.space[cpu->views.current].view;
    struct view *with_ac = cpu->cr4 & CR4_SMAP ? views[VIEW_KERNEL_AC] : cpu->views.kernel;
    cpu->hot.supervisor_view[0] = cpu->views.kernel;
    cpu->hot.supervisor_view[1] = with_ac;
    cpu->hot.clac_leaves = cpu->hot.view == with_ac && cpu_window_may_serve(cpu->views.kernel);
    if (cpu->mode_key & MODE_WINDOW)
        return;
    set_jump_mode(with_ac, cpu->mode_key);
    if (!cpu->hot.clac_leaves)
        set_jump_mode(cpu->views.kernel, cpu->mode_key);
}

enum { MODE_KIND = MODE_CODE64 | MODE_PROTECTED | MODE_VM86 };

/* What code of the kind that `key` tells sees of its segments: 64-bit code looks at the bases of FS and GS alone. */
static void set_segments(struct cpu *cpu, uint32_t key, bool are_only_code_and_stack) {
    bool checks = checks_type(cpu);
    if (are_only_code_and_stack && !((key ^ cpu->mode_key) & MODE_KIND)) {
        if (!(key & MODE_CODE64)) {
            set_effective(cpu, CPU_CS, checks);
            set_effective(cpu, CPU_SS, checks);
        }
        return;
    }
    for (unsigned i = key & MODE_CODE64 ? CPU_FS : CPU_ES; i < CPU_SEGMENTS; i++)
        set_effective(cpu, i, checks);
}

static void change_mode(struct cpu *cpu, bool are_only_code_and_stack) {
    uint32_t key = control_bits(cpu) | execution_bits(cpu);
    set_segments(cpu, key, are_only_code_and_stack);
    if (!(key & MODE_CODE64) && is_flat(cpu))
        key |= MODE_FLAT;

    select_space(cpu, current_pcid(cpu));
    if (cpu->watched_dr7 != cpu->dr[7]) { /* pages with data breakpoints must leave the shadow page tables */
        cpu->watched_dr7 = cpu->dr[7];
        cpu_flush_all(cpu);
    }
    cpu->hot.view = current_view(cpu);
    if (cpu_window_is_ready(cpu, cpu->hot.view, key))
        key |= MODE_WINDOW | (cpu_window_knows_stack(cpu->hot.view, key) ? MODE_NEAR_STACK : 0);
    cpu->mode_key = key;
    set_jump_mode(cpu->hot.view, key);
    if (cpu->cpl != 3)
        note_supervisor_views(cpu);
    code_segment_changed(cpu);
}

/* ---- Changes of the privilege ---- */

enum { LEVEL_FLAGS = FLAG_VM | FLAG_TF | FLAG_AC | FLAG_IOPL };

static void remember_level(struct cpu *cpu) {
    cpu->level[cpu->cpl == 3] = (struct cpu_level){
        .view = cpu->hot.view,
        .flags = cpu->hot.rflags & LEVEL_FLAGS,
        .code_attributes = cpu->segment[CPU_CS].attributes,
        .stack_attributes = cpu->segment[CPU_SS].attributes,
        .key = cpu->mode_key,
        .window_merit = cpu->hot.view->window_merit,
    };
}

static void forget_levels(struct cpu *cpu) {
    cpu->level[0].view = cpu->level[1].view = NULL;
}

/* Whether the window is as good, or as far from it, as it was. */
static inline bool has_same_window(const struct cpu_level *level) {
    const struct view *view = level->view;
    if (level->key & MODE_WINDOW)
        return !(view->window_is_stale | view->window_must_move | view->dropped_count | view->window_awaited);
    return view->window_merit == level->window_merit;
}

static inline bool is_same_level(const struct cpu *cpu, const struct cpu_level *level) {
    uint32_t key = level->key;
    if (!level->view || level->flags != (cpu->hot.rflags & LEVEL_FLAGS) || cpu->cpl != (key & MODE_CPL) >> MODE_CPL_SHIFT)
        return false;
    if (level->code_attributes != cpu->segment[CPU_CS].attributes || ((key ^ cpu->mode_key) & MODE_KIND))
        return false;
    return has_same_window(level);
}

/* What remains of change_mode where the processor was at this level before, and nothing else has changed since. */
static bool resume_level(struct cpu *cpu) {
    const struct cpu_level *level = &cpu->level[cpu->cpl == 3];
    uint32_t key = level->key;
    if (!is_same_level(cpu, level))
        return false;
    if (!(key & MODE_CODE64)) {
        set_segments(cpu, key, true);
        if (level->stack_attributes != cpu->segment[CPU_SS].attributes || is_flat(cpu) != !!(key & MODE_FLAT))
            return false;
        code_segment_changed(cpu);
    }
    cpu->hot.view = level->view;
    cpu->mode_key = key;
    set_jump_mode(level->view, key);
    if (key & MODE_WINDOW)
        cpu_window_resume(cpu, level->view);
    if (cpu->cpl != 3)
        note_supervisor_views(cpu);
    return true;
}

void cpu_mode_changed(struct cpu *cpu) {
    forget_levels(cpu);
    change_mode(cpu, false);
}

void cpu_control_changed(struct cpu *cpu) {
    forget_levels(cpu);
    change_mode(cpu, true);
}

void cpu_x87_changed(struct cpu *cpu) {
    const uint32_t mask = MODE_TS | MODE_EM | MODE_MP, bits = control_bits(cpu) & mask;
    for (unsigned i = 0; i < 2; i++)
        cpu->level[i].key = (cpu->level[i].key & ~mask) | bits;
    cpu->mode_key = (cpu->mode_key & ~mask) | bits;
    set_jump_mode(cpu->hot.view, cpu->mode_key);
    if (cpu->cpl != 3)
        note_supervisor_views(cpu);
}

void cpu_level_changed(struct cpu *cpu) {
    if (resume_level(cpu))
        return;
    change_mode(cpu, true);
    remember_level(cpu);
}

/* ---- Flushes ---- */

void cpu_flush_page(struct cpu *cpu, uint64_t linear) {
    cpu->space_changes++;
    view_set_each(&cpu->views, view_flush_page, linear);
}

void cpu_flush_address_space(struct cpu *cpu, bool keep_global) {
    cpu->space_changes++;
    cpu->statistics.tlb_flushes++;
    uint16_t pcid = current_pcid(cpu);
    view_flush(cpu->views.kernel, keep_global);
    for (unsigned s = 0; s < VIEW_SPACES; s++)
        if (cpu->views.space[s].in_use && cpu->views.space[s].pcid == pcid)
            flush_space(&cpu->views.space[s], keep_global);
}

void cpu_flush_all(struct cpu *cpu) {
    cpu->space_changes++;
    cpu->statistics.tlb_flushes++;
    view_flush(cpu->views.kernel, false);
    for (unsigned s = 0; s < VIEW_SPACES; s++)
        if (cpu->views.space[s].in_use)
            flush_space(&cpu->views.space[s], false);
}

enum cpu_result cpu_fetch_page(struct cpu *cpu, uint64_t linear, uint64_t *physical_page) {
    struct view *view = cpu->hot.view;
    if (view_fetch(view, linear, physical_page))
        return CPU_NEXT;
    struct cpu_translation translation;
    enum cpu_result result = cpu_walk(cpu, linear, ACCESS_EXECUTE, &translation);
    if (result != CPU_NEXT)
        return result;
    *physical_page = translation.physical.value & ~0xfffull;
    view_fill_fetch(view, linear, *physical_page, translation.global);
    struct view_page page = {.linear = linear & ~0xfffull, .page_shift = translation.page_shift};
    view_mark_large(view, &page);
    return CPU_NEXT;
}
