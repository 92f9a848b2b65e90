/*
 * Misses of the software shadow page tables: an entry is filled, or the access is made from here, or the instruction runs
 * again in a block of its own. Light code.
 */
#include "cpu/watch.h"
#include "cpu/window.h"
#include "translator/dispatch.h"

static void tell_fill(struct cpu *cpu, uint64_t rip, uint64_t linear, unsigned access, const struct cpu_place *place) {
    struct fill_report report = {cpu, rip, linear, place->physical.value, access == ACCESS_WRITE, place->host != NULL};
    cpu->call_full(cpu, engine_report_fill, &report);
}

/* Data on a page with code. With one vCPU alone: another one might be reading the bytes as code just now. */
static bool may_store_beside_code(struct cpu *cpu, const struct site *site) {
    return site->kind == SITE_WRITE && cpu->engine->vcpu_count == 1 && !cpu_is_watching(cpu) &&
           !(site->data & SITE_MASKED);
}

/* A store where the page is known from the last one. */
static bool stores_beside_code(struct cpu *cpu, const struct site *site, uint64_t linear) {
    const struct code_page *code = view_beside(cpu->hot.view, linear);
    return code && may_store_beside_code(cpu, site) && !dispatch_is_misaligned(site, linear) &&
           memory_store_misses_code(code, linear, site->info);
}

static bool begins_to_store_beside_code(struct cpu *cpu, const struct site *site, uint64_t linear,
                                        const struct cpu_place *place) {
    if (!may_store_beside_code(cpu, site) || !place->host || (place->region->flags & TRAPEZE_MEMORY_READ_ONLY))
        return false;
    const struct code_page *code = memory_code_page(place->region, place->physical);
    view_fill_beside(cpu->hot.view, linear, code);
    return memory_store_misses_code(code, linear, site->info);
}

/* The instruction runs again, in code that uses the window. */
static uint64_t open_window(struct cpu *cpu, const struct block *block, const struct site *site) {
    flags_in(cpu);
    cpu->hot.rip = block->rip + site->guest;
    cpu_mode_changed(cpu);
    return dispatch_again(cpu, block);
}

/* ---- Accesses that no entry serves: parts of two pages, and devices ---- */

/* The block's next instruction. False: there is none. */
static bool instruction_behind(const struct block *block, uint16_t guest, struct instruction_map *next) {
    struct map_reader reader = block_map(block);
    while (map_next(&reader))
        if (reader.now.guest == guest) {
            bool is_there = map_next(&reader);
            *next = reader.now;
            return is_there;
        }
    return false;
}

/* Where nobody but the access itself is to be told, and nothing but the device answers. */
static bool may_act_for(const struct cpu *cpu, const struct block *block, const struct site *site, uint64_t linear) {
    struct instruction_map next;
    bool is_plain_read = site->kind == SITE_READ && (site->data & SITE_SOLE);
    bool is_plain_store = site->kind == SITE_WRITE && (site->data & (SITE_MOVE | SITE_MOVE_IMMEDIATE)) &&
                          instruction_behind(block, site->guest, &next);
    if (!is_plain_read && !is_plain_store)
        return false;
    const unsigned never = SITE_MASKED | SITE_ALIGNED | SITE_LOCKED | SITE_X87;
    return !(site->data & never) && !(block->key & (MODE_TF | MODE_SLOW | MODE_BREAKPOINTS)) &&
           !cpu_is_watching(cpu) && !cpu->config->unclaimed_exits && site->info <= 64 && cpu_is_canonical(linear) &&
           cpu_is_canonical(linear + site->info - 1);
}

/* The access goes on with a copy of the bytes: T is the index of hot.bounce_addend, as if that were a page's. */
static uint64_t read_by_bounce(struct cpu *cpu, const struct cpu_range *range, uint64_t linear, unsigned size,
                               uint64_t return_address) {
    struct cpu_translator *translator = cpu_translator(cpu);
    uint8_t *bounce = translator->bounce + (linear & 63);
    cpu_range_read(cpu, range, bounce, size);
    cpu->hot.bounce_addend = (uint64_t)bounce - linear;
    int64_t distance = (int64_t)offsetof(struct cpu, hot.bounce_addend) - (int64_t)sizeof(struct cpu) -
                       (int64_t)offsetof(struct view_tables, addend);
    cpu->hot.scratch[4] = (uint64_t)(distance / 8);
    return return_address;
}

/* A store to code that leaves it as it is: with one vCPU alone, see slow_access.c. */
static bool changes_nothing(const struct cpu *cpu, const struct cpu_range *range, const uint8_t *value, unsigned size) {
    const struct cpu_place *place = &range->part[0];
    if (place->is_direct || !place->host || range->first_size != size || cpu->engine->vcpu_count != 1)
        return false;
    for (unsigned i = 0; i < size; i++)
        if (((const uint8_t *)place->host)[i] != value[i])
            return false;
    return true;
}

static uint64_t store_by_hand(struct cpu *cpu, const struct block *block, const struct site *site,
                              const struct cpu_range *range) {
    struct instruction_map next = {0};
    instruction_behind(block, site->guest, &next); /* there is one: may_act_for */
    unsigned guest = (unsigned)(site->data >> SITE_REGISTER_SHIFT) & 15;
    uint64_t value = site->data & SITE_MOVE_IMMEDIATE ? (uint64_t)(site->data >> SITE_IMMEDIATE_SHIFT)
                                                      : cpu->hot.gpr[guest] >> (site->data & SITE_HIGH_BYTE ? 8 : 0);
    if (!changes_nothing(cpu, range, (const uint8_t *)&value, site->info))
        cpu_range_write(cpu, range, &value, site->info);
    cpu->hot.rip = block->rip + next.guest;
    if (!(block->key & MODE_CODE64))
        cpu->hot.rip &= 0xffffffffu;
    if (dispatch_must_leave(cpu))
        return engine_dispatch(cpu);
    flags_out(cpu);
    return (uint64_t)block->host + next.host;
}

/* NULL: the place is to be found. */
static uint64_t act_for(struct cpu *cpu, const struct block *block, const struct site *site, uint64_t linear,
                        const struct cpu_place *place, uint64_t return_address) {
    struct cpu_range range = {.linear = linear, .first_size = site->info};
    bool is_read = site->kind == SITE_READ;
    flags_in(cpu);
    cpu->hot.rip = block->rip + site->guest;
    if (place) {
        range.part[0] = *place;
    } else {
        enum cpu_result result =
            cpu_locate_range(cpu, linear, site->info, is_read ? ACCESS_READ : ACCESS_WRITE, &range);
        if (result == CPU_FAULT)
            return dispatch_after(cpu, dispatch_operand_fault(cpu, site, result));
    }
    return is_read ? read_by_bounce(cpu, &range, linear, site->info, return_address)
                   : store_by_hand(cpu, block, site, &range);
}

/* ---- The miss ---- */

uint64_t engine_miss(struct cpu *cpu, uint64_t return_address) {
    struct block *block;
    const struct site *site = dispatch_site(cpu, return_address, &block);
    if (!site)
        return dispatch_lost(cpu);
    uint64_t linear = scratch_s(cpu);
    bool in_page = (linear & MEMORY_PAGE_MASK) + site->info <= MEMORY_PAGE;
    if (in_page && stores_beside_code(cpu, site, linear))
        return return_address; /* this once, by the addend that is there for reads */
    struct cpu_place device = {0};
    if (in_page && view_device(cpu->hot.view, linear, site->kind == SITE_WRITE, &device.physical.value) &&
        may_act_for(cpu, block, site, linear))
        return act_for(cpu, block, site, linear, &device, return_address);
    /* Supervisor pages with AC set and the like depend on RFLAGS, whose part in hot.rflags is always current. */
    if (site->kind != SITE_SEGMENT && in_page && cpu_is_canonical(linear)) {
        struct cpu_place place;
        unsigned access = site->kind == SITE_WRITE ? ACCESS_WRITE : ACCESS_READ;
        if (dispatch_is_misaligned(site, linear) && !(site->data & SITE_MASKED)) {
            flags_in(cpu);
            cpu->hot.rip = block->rip + site->guest;
            return dispatch_after(cpu, cpu_fault_code(cpu, VECTOR_GP, 0));
        }
        enum cpu_result result = cpu_fill(cpu, linear, access, &place);
        if (result == CPU_NEXT && engine_logs(cpu->engine, TRAPEZE_LOG_MMU))
            tell_fill(cpu, block->rip + site->guest, linear, access, &place);
        if (result == CPU_NEXT && place.is_direct && !cpu_window_is_due(cpu))
            return (uint64_t)block->host + site->other;
        if (result == CPU_NEXT && place.is_direct)
            return open_window(cpu, block, site);
        if (result == CPU_NEXT && begins_to_store_beside_code(cpu, site, linear, &place))
            return return_address;
        if (result == CPU_NEXT && !place.host)
            view_fill_device(cpu->hot.view, linear, place.physical.value, access == ACCESS_WRITE);
        if (result == CPU_NEXT && may_act_for(cpu, block, site, linear))
            return act_for(cpu, block, site, linear, &place, return_address);
        if (result == CPU_FAULT && !(site->data & SITE_MASKED)) {
            flags_in(cpu);
            cpu->hot.rip = block->rip + site->guest;
            return dispatch_after(cpu, dispatch_operand_fault(cpu, site, CPU_FAULT));
        }
    }
    if (site->kind != SITE_SEGMENT && may_act_for(cpu, block, site, linear))
        return act_for(cpu, block, site, linear, NULL, return_address);
    flags_in(cpu);
    cpu->hot.rip = block->rip + site->guest;
    return dispatch_slowly(cpu, block);
}
