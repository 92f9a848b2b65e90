/*
 * Slow accesses: an instruction runs alone in a block made with MODE_SLOW, on a bounce buffer, or on RAM where that is
 * plain. `prepare` does every check before and `commit` ends a store. Light code.
 */
#include "cpu/io.h"
#include "cpu/watch.h"
#include "cpu/window.h"
#include "translator/dispatch.h"

static bool is_read_only(const struct cpu_place *place) {
    return place->region->flags & TRAPEZE_MEMORY_READ_ONLY;
}

/* The parts of a masked access that touch something; the others stay empty. */
static enum cpu_result locate_masked(struct cpu *cpu, uint64_t linear, unsigned size, unsigned access,
                                     uint64_t active, struct cpu_range *range) {
    unsigned to_end = (unsigned)(MEMORY_PAGE - (linear & MEMORY_PAGE_MASK));
    range->linear = linear;
    range->part[0].is_direct = false;
    range->first_size = to_end < size ? to_end : size;
    uint64_t first = range->first_size == 64 ? ~0ull : (1ull << range->first_size) - 1;
    enum cpu_result result = CPU_NEXT;
    if (active & first)
        result = cpu_locate(cpu, linear + (unsigned)__builtin_ctzll(active & first), access, &range->part[0]);
    if (result == CPU_NEXT && (active & ~first))
        result = cpu_locate(cpu, linear + (unsigned)__builtin_ctzll(active & ~first), access, &range->part[1]);
    return result;
}

/*
 * The linear address of a masked access. Bytes that are masked off are held against no limit and no alignment (SDM vol. 1,
 * 15.6.4); where all are, the host still sees how the operand is aligned.
 */
static enum cpu_result linear_masked(struct cpu *cpu, const struct site *site, uint64_t offset, unsigned access,
                                     uint64_t active, uint64_t *linear) {
    unsigned segment = (unsigned)site->data & SITE_SEGMENT_BITS;
    if (!active) {
        *linear = offset + (cpu_is_64bit(cpu) && segment < CPU_FS ? 0 : cpu->segment[segment].base);
        return CPU_NEXT;
    }
    unsigned first = (unsigned)__builtin_ctzll(active), last = 63 - (unsigned)__builtin_clzll(active);
    enum cpu_result result = cpu_linear(cpu, segment, offset + first, last - first + 1, access, linear);
    *linear -= first;
    if (dispatch_is_misaligned(site, *linear))
        return cpu_fault_code(cpu, VECTOR_GP, 0);
    return result;
}

/* Masked instructions work on the bounce buffer, of which only active bytes are read and written. */
static enum cpu_result prepare_masked(struct cpu *cpu, const struct block *block, const struct site *site,
                                      uint64_t offset, uint64_t *linear) {
    struct cpu_translator *translator = cpu_translator(cpu);
    struct cpu_range *range = (struct cpu_range *)translator->range;
    struct masked_bytes query = {
        .cpu = cpu, .physical = block->physical + site->guest, .second_page = block->second_page};
    uint64_t active = cpu->call_full(cpu, engine_masked_bytes, &query) & (~0ull >> (64 - site->info));
    unsigned access = site->kind == SITE_WRITE ? ACCESS_WRITE : ACCESS_READ;
    enum cpu_result result = linear_masked(cpu, site, offset, access, active, linear);
    if (result == CPU_NEXT)
        result = locate_masked(cpu, *linear, site->info, access, active, range);
    if (result != CPU_NEXT)
        return result;
    uint8_t *bounce = translator->bounce + (*linear & 63);
    for (unsigned i = 0; i < site->info; i++) {
        bounce[i] = 0;
        if (active >> i & 1) {
            result = cpu_read_linear(cpu, *linear + i, &bounce[i], 1, ACCESS_READ);
            if (result != CPU_NEXT)
                return result;
        }
    }
    cpu->hot.bounce = (uint64_t)bounce;
    translator->active_bytes = active;
    translator->pending_write = site->kind == SITE_WRITE ? site->info : 0;
    return CPU_NEXT;
}

/*
 * What a store to code finds in its place, to be compared with what it leaves. With one vCPU alone: a second one might
 * change the bytes in between, and this store change them back.
 */
static void keep_bytes(struct cpu *cpu, const struct site *site, uint64_t linear, uint64_t host) {
    struct cpu_translator *translator = cpu_translator(cpu);
    if (!translator->pending_write || cpu->engine->vcpu_count != 1)
        return;
    cpu_copy(translator->bounce + (linear & 63), (const void *)host, site->info);
    translator->kept_bytes = (uint64_t)translator->bounce + (linear & 63);
}

/* Opens the access of a plain instruction; the host address to work on. */
static uint64_t prepare_plain(struct cpu *cpu, const struct site *site, uint64_t linear) {
    struct cpu_translator *translator = cpu_translator(cpu);
    struct cpu_range *range = (struct cpu_range *)translator->range;
    struct cpu_place *place = &range->part[0];
    uint64_t host = (uint64_t)place->host;
    bool is_write = site->kind == SITE_WRITE;
    translator->active_bytes = ~0ull;
    translator->pending_write = is_write && !place->is_direct ? site->info : 0;
    translator->kept_bytes = 0;
    cpu->hot.bounce = 0;
    if ((site->data & SITE_LOCKED) && range->first_size != site->info && range->part[0].host && range->part[1].host) {
        struct joined_pages query = {.cpu = cpu, .range = range};
        host = cpu->call_full(cpu, engine_join_pages, &query);
        if (host) {
            translator->pending_write = site->info;
            return host;
        }
    }
    bool bounces = range->first_size != site->info || !host || (translator->pending_write && is_read_only(place));
    if (!bounces) {
        if (cpu_is_watching(cpu))
            cpu_watch_access(cpu, linear, site->info, is_write);
        keep_bytes(cpu, site, linear, host);
        return host;
    }
    host = (uint64_t)translator->bounce + (linear & 63);
    if (is_write)
        translator->pending_write = site->info;
    if (!is_write || site->other) /* a store alone must not read a device */
        cpu_range_read(cpu, range, (void *)host, site->info);
    cpu->hot.bounce = host;
    return host;
}

/* A site that met what its window lacks: a region or page that can be had there, or else soft next time. */
static void try_window(struct cpu *cpu, uint64_t linear, bool is_write, uint64_t site_physical) {
    const struct cpu_range *range = (struct cpu_range *)cpu_translator(cpu)->range;
    if (!(cpu->mode_key & MODE_WINDOW))
        return;
    bool has_page = cpu_window_holds(cpu->hot.view, linear, is_write); /* under another addend than the site's */
    if (!range->part[0].is_direct || (!has_page && !cpu_window_fill(cpu, linear, is_write)))
        engine_note_soft_site(cpu, site_physical);
    else if (cpu_translator(cpu)->check_failed)
        engine_note_group(cpu, site_physical);
}

uint64_t engine_prepare(struct cpu *cpu, uint64_t return_address) {
    struct cpu_translator *translator = cpu_translator(cpu);
    struct block *block;
    const struct site *site = dispatch_site(cpu, return_address, &block);
    if (!site)
        return dispatch_lost(cpu);
    _Static_assert(sizeof(struct cpu_range) <= sizeof translator->range, "range does not fit");
    unsigned access = site->kind == SITE_WRITE ? ACCESS_WRITE : ACCESS_READ;
    uint64_t offset = scratch_s(cpu), linear = 0, host = 0;
    flags_in(cpu);
    cpu->hot.rip = block->rip + site->guest;
    enum cpu_result result;
    if (site->data & SITE_MASKED) {
        result = prepare_masked(cpu, block, site, offset, &linear);
        host = cpu->hot.bounce;
    } else {
        result = cpu_linear(cpu, (unsigned)site->data & SITE_SEGMENT_BITS, offset, site->info, access, &linear);
        if (dispatch_is_misaligned(site, linear)) /* comes first (measured; the manuals leave it open) */
            result = cpu_fault_code(cpu, VECTOR_GP, 0);
        if (result == CPU_NEXT)
            result = cpu_check_alignment(cpu, linear, site->info, access);
        if (result == CPU_NEXT)
            result = cpu_locate_range(cpu, linear, site->info, access, (struct cpu_range *)translator->range);
        if (result == CPU_NEXT)
            host = prepare_plain(cpu, site, linear);
    }
    bool was_missed = translator->window_missed;
    translator->window_missed = false;
    if (was_missed && result == CPU_NEXT)
        try_window(cpu, linear, access == ACCESS_WRITE, block->physical + site->guest);
    if (cpu_io_waits(cpu)) {
        translator->slow = true;
        cpu_io_abandon(cpu);
        return 0;
    }
    if (result != CPU_NEXT)
        return dispatch_after(cpu, dispatch_operand_fault(cpu, site, result));
    cpu->hot.scratch[0] = host - offset;
    return return_address;
}

static void commit_masked(struct cpu *cpu, const struct cpu_range *range, unsigned size) {
    uint64_t active = cpu_translator(cpu)->active_bytes;
    for (unsigned i = 0; i < size; i++)
        if (active >> i & 1)
            cpu_write_linear(cpu, range->linear + i, (uint8_t *)cpu->hot.bounce + i, 1, ACCESS_WRITE);
}

static bool has_changed(const uint8_t *now, const uint8_t *before, unsigned size) {
    for (unsigned i = 0; i < size; i++)
        if (now[i] != before[i])
            return true;
    return false;
}

/* The host wrote by itself; translated code of those bytes is stale. */
static void note_written(struct cpu *cpu, const struct cpu_range *range, unsigned size) {
    const uint8_t *kept = (const uint8_t *)cpu_translator(cpu)->kept_bytes;
    if (kept && !has_changed(range->part[0].host, kept, size))
        return;
    for (unsigned i = 0; i < 2; i++) {
        const struct cpu_place *place = &range->part[i];
        unsigned length = i == 0 ? range->first_size : size - range->first_size;
        if (length && !place->is_direct)
            cpu_code_written(cpu, place->region, place->physical, length);
    }
}

uint64_t engine_commit(struct cpu *cpu, uint64_t return_address) {
    cpu_io_done(cpu);
    struct cpu_translator *translator = cpu_translator(cpu);
    struct cpu_range *range = (struct cpu_range *)translator->range;
    unsigned size = (unsigned)translator->pending_write;
    translator->pending_write = 0;
    if (size && translator->active_bytes != ~0ull)
        commit_masked(cpu, range, size);
    else if (size && cpu->hot.bounce)
        cpu_range_write(cpu, range, (void *)cpu->hot.bounce, size);
    else if (size)
        note_written(cpu, range, size);
    return return_address;
}

