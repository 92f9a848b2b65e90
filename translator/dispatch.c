/*
 * Where translated code goes when it cannot go on by itself: a shadow page table miss, a slow access, an instruction
 * that a C function runs, an exit to a block that is not linked. Light code: the guest's vector state is live.
 */
#include "cpu/interrupt.h"
#include "cpu/io.h"
#include "cpu/mode.h"
#include "cpu/ops.h"
#include "cpu/views.h"
#include "cpu/watch.h"
#include "translator/engine.h"

#define DR6_BS (1ull << 14)

enum { GUEST_FLAGS = FLAG_ARITHMETIC | FLAG_DF, HOST_FLAGS = FLAG_FIXED | FLAG_IF };

/* ---- State in and out ---- */

static inline void flags_in(struct cpu *cpu) {
    cpu->hot.rflags = (cpu->hot.rflags & ~(uint64_t)GUEST_FLAGS) | (cpu->hot.raw_flags & GUEST_FLAGS);
}

static inline void flags_out(struct cpu *cpu) {
    cpu->hot.raw_flags = (cpu->hot.rflags & GUEST_FLAGS) | HOST_FLAGS;
}

static inline uint64_t scratch_s(const struct cpu *cpu) {
    return cpu->hot.scratch[1];
}

/* ---- Vector state ---- */

static inline void vector_save(struct cpu *cpu) {
    uint64_t mask = cpu->engine->vector_mask;
    __asm__ volatile("xsave64 %0" : "+m"(cpu->xsave) : "a"((uint32_t)mask), "d"((uint32_t)(mask >> 32)) : "memory");
    static const uint32_t mxcsr = 0x1f80;
    __asm__ volatile("fninit\n\tldmxcsr %0" : : "m"(mxcsr));
}

static inline void vector_restore(struct cpu *cpu) {
    uint64_t mask = cpu->engine->vector_mask;
    __asm__ volatile("xrstor64 %0" : : "m"(cpu->xsave), "a"((uint32_t)mask), "d"((uint32_t)(mask >> 32)) : "memory");
}

uint64_t engine_call_full(struct cpu *cpu, uint64_t (*fn)(void *), void *argument) {
    if (!cpu->vector_live)
        return fn(argument);
    vector_save(cpu);
    cpu->vector_live = false;
    uint64_t result = fn(argument);
    cpu->vector_live = true;
    vector_restore(cpu);
    return result;
}

void engine_enter(struct cpu *cpu, uint64_t host) {
    flags_out(cpu);
    cpu->vector_live = true;
    vector_restore(cpu);
    void (*enter)(struct cpu *, uint64_t) = (void (*)(struct cpu *, uint64_t))cpu->engine->stubs.enter;
    enter(cpu, host);
    vector_save(cpu);
    cpu->vector_live = false;
}

/* ---- Shadow stacks ---- */

static void reset_stack(struct cpu *cpu, bool user) {
    struct cpu_translator *translator = cpu_translator(cpu);
    *(uint64_t *)translator->stack_base[user] = cpu->engine->stubs.sentinel;
    if (user == translator->user_stack)
        cpu->hot.shadow_stack = (void *)translator->stack_base[user];
    else if (user)
        translator->saved_user_stack = translator->stack_base[1];
}

void engine_reset_stacks(struct cpu *cpu) {
    reset_stack(cpu, false);
    reset_stack(cpu, true);
}

/* Puts the shadow stack in force that the mode asks for. Return sites hold for one mode and one address space. */
static void select_stack(struct cpu *cpu) {
    struct cpu_translator *translator = cpu_translator(cpu);
    uint32_t key = cpu->mode_key & ~(uint32_t)(MODE_CPL | MODE_IOPL3);
    if (key != translator->stack_key || cpu->space_changes != translator->space_changes) {
        translator->stack_key = key;
        translator->space_changes = cpu->space_changes;
        engine_reset_stacks(cpu);
    }
    bool user = cpu->cpl == 3;
    if (user == translator->user_stack)
        return;
    translator->user_stack = user;
    if (user) {
        cpu->hot.shadow_stack = (void *)translator->saved_user_stack;
    } else {
        translator->saved_user_stack = (uint64_t)cpu->hot.shadow_stack;
        reset_stack(cpu, false);
    }
}

/* ---- Dispatch ---- */

/* Whether an interrupt or NMI is to be taken as soon as the shadow of STI or MOV SS lets it. */
static inline bool awaits_event(struct cpu *cpu) {
    if ((cpu_translator(cpu)->latched & REQUEST_NMI) && !cpu->nmi_blocked)
        return true;
    return (cpu->hot.rflags & FLAG_IF) && atomic_load_explicit(&cpu->intr, memory_order_relaxed);
}

static inline bool must_leave(struct cpu *cpu) {
    if (__atomic_load_n(&cpu->hot.run, __ATOMIC_RELAXED) == 0)
        return true;
    return !cpu->interrupt_shadow && awaits_event(cpu);
}

static inline uint64_t linear_rip(const struct cpu *cpu) {
    if (cpu->mode_key & MODE_CODE64)
        return cpu->hot.rip;
    return (cpu->segment[CPU_CS].base + cpu->hot.rip) & 0xffffffffu;
}

/* Faults of the fetch itself: the code segment's limit, and canonical form. */
static enum cpu_result check_fetch(struct cpu *cpu) {
    if (cpu->mode_key & MODE_CODE64) {
        if (!cpu_is_canonical(cpu->hot.rip))
            return cpu_fault_code(cpu, VECTOR_GP, 0);
        return CPU_NEXT;
    }
    if (cpu->hot.rip > cpu->segment[CPU_CS].limit)
        return cpu_fault_code(cpu, VECTOR_GP, 0);
    return CPU_NEXT;
}

/* Instruction breakpoints of DR0 to DR3, unless RF holds them off for one instruction (SDM vol. 3B, 17.3.1.1). */
static enum cpu_result check_breakpoints(struct cpu *cpu, uint64_t linear) {
    if (!(cpu->mode_key & MODE_BREAKPOINTS))
        return CPU_NEXT;
    if ((cpu->hot.rflags & FLAG_RF) || cpu_translator(cpu)->holds_traps)
        return CPU_NEXT;
    uint64_t hit = 0;
    for (unsigned i = 0; i < 4; i++)
        if ((cpu->dr[7] >> (2 * i) & 3) && !(cpu->dr[7] >> (16 + 4 * i) & 3) && cpu->dr[i] == linear)
            hit |= 1u << i;
    return hit ? cpu_fault_debug(cpu, hit, false) : CPU_NEXT;
}

static enum cpu_result deliver(struct cpu *cpu) {
    if (engine_logs(cpu->engine, TRAPEZE_LOG_INT))
        cpu->call_full(cpu, engine_report_exception, cpu);
    return cpu_deliver_exception(cpu);
}

/* The block at rip, where the jump cache has it: its entry proves what engine_dispatch would look up. */
static uint64_t find_in_jump_cache(struct cpu *cpu, uint32_t key) {
    if ((key & (MODE_SLOW | MODE_TF | MODE_BREAKPOINTS)) || cpu_translator(cpu)->link_site || cpu->interrupt_shadow)
        return 0;
    const struct view_jump *jump = &cpu->hot.view->tables->jump[cpu->hot.rip & (VIEW_JUMPS - 1)];
    return jump->negative_target == -cpu->hot.rip ? jump->host : 0;
}

uint64_t engine_dispatch(struct cpu *cpu) {
    struct cpu_translator *translator = cpu_translator(cpu);
    cpu->statistics.dispatches++;
    for (;;) {
        if (must_leave(cpu))
            return 0;
        if (cpu->interrupt_shadow && awaits_event(cpu))
            translator->slow = true; /* one instruction, then look again */
        if (translator->holds_traps && cpu->watch_hits)
            translator->slow = true; /* one instruction, then the breakpoints that a load of SS held off */
        uint32_t key = cpu->mode_key;
        if (translator->slow)
            key |= MODE_SLOW;
        uint64_t host = find_in_jump_cache(cpu, key);
        if (host) {
            translator->holds_traps = translator->was_shadowed = false;
            cpu->hot.rflags &= ~(uint64_t)FLAG_RF;
            select_stack(cpu);
            flags_out(cpu);
            return host;
        }
        uint64_t linear = linear_rip(cpu), page;
        enum cpu_result result = check_fetch(cpu);
        if (result == CPU_NEXT)
            result = check_breakpoints(cpu, linear);
        if (result == CPU_NEXT)
            result = cpu_fetch_page(cpu, linear, &page);
        if (result == CPU_FAULT) {
            translator->slow = false;
            translator->link_site = NULL;
            if (deliver(cpu) == CPU_STOP)
                return 0;
            continue;
        }
        struct block *block = engine_find(cpu->engine, page | (linear & MEMORY_PAGE_MASK), cpu->hot.rip, key, cpu);
        if (!block) {
            translator->missing = true;
            translator->missing_key = key;
            translator->missing_physical = page | (linear & MEMORY_PAGE_MASK);
            return 0;
        }
        translator->slow = translator->holds_traps = false;
        translator->was_shadowed = cpu->interrupt_shadow;
        translator->shadowed_rip = cpu->hot.rip;
        cpu->interrupt_shadow = false;
        cpu->hot.rflags &= ~(uint64_t)FLAG_RF;
        if (translator->link_site)
            engine_link(cpu->engine, cpu, translator->link_site, block);
        translator->link_site = NULL;
        if (!(key & (MODE_SLOW | MODE_TF | MODE_BREAKPOINTS)))
            view_fill_jump(cpu->hot.view, cpu->hot.rip, (uint64_t)block->host);
        select_stack(cpu);
        flags_out(cpu);
        return (uint64_t)block->host;
    }
}

static uint32_t take_hits(struct cpu *cpu) {
    uint32_t hits = cpu->watch_hits;
    cpu->watch_hits = 0;
    return hits;
}

/* What data breakpoints make of the instruction that has just ended; CPU_NEXT where none was hit. */
static enum cpu_result check_watch(struct cpu *cpu) {
    if (cpu->debug.hit) {
        cpu->stop = CPU_STOP_DEBUG;
        return CPU_STOP;
    }
    if (!cpu->watch_hits)
        return CPU_NEXT;
    return cpu_fault_debug(cpu, take_hits(cpu), true);
}

/* After an instruction that a C function ran: wherever the state says. */
static uint64_t after(struct cpu *cpu, enum cpu_result result) {
    if (result == CPU_JUMP || result == CPU_NEXT) {
        enum cpu_result watch = check_watch(cpu);
        if (watch != CPU_NEXT)
            result = watch;
    }
    if (result == CPU_FAULT) {
        take_hits(cpu); /* of accesses that the instruction will make again */
        result = deliver(cpu);
    }
    if (result == CPU_STOP)
        return 0;
    return engine_dispatch(cpu);
}

/* Runs the current instruction again, alone and with its accesses the slow way. */
static uint64_t go_slow(struct cpu *cpu) {
    struct cpu_translator *translator = cpu_translator(cpu);
    cpu->statistics.slow_accesses++;
    translator->slow = true;
    if (translator->was_shadowed && cpu->hot.rip == translator->shadowed_rip)
        cpu->interrupt_shadow = true; /* it has not run yet */
    return engine_dispatch(cpu);
}

static const struct site *find_site(struct cpu *cpu, uint64_t return_address, struct block **block) {
    *block = code_cache_find(&cpu->engine->cache, return_address - 1);
    return *block ? block_find_site(*block, return_address) : NULL;
}

/* A way out without a site is a bug of the translator; stop this vCPU rather than run on. */
static uint64_t lost(struct cpu *cpu) {
    cpu->stop = CPU_STOP_SHUTDOWN;
    return 0;
}

/* ---- Shadow page table misses ---- */

static inline bool is_misaligned(const struct site *site, uint64_t linear) {
    return (site->data & SITE_ALIGNED) && (linear & (site->info - 1));
}

uint64_t engine_miss(struct cpu *cpu, uint64_t return_address) {
    struct block *block;
    const struct site *site = find_site(cpu, return_address, &block);
    if (!site)
        return lost(cpu);
    uint64_t linear = scratch_s(cpu);
    bool in_page = (linear & MEMORY_PAGE_MASK) + site->info <= MEMORY_PAGE;
    /* Supervisor pages with AC set and the like depend on RFLAGS, whose part in hot.rflags is always current. */
    if (site->kind != SITE_SEGMENT && in_page && cpu_is_canonical(linear)) {
        struct cpu_place place;
        unsigned access = site->kind == SITE_WRITE ? ACCESS_WRITE : ACCESS_READ;
        if (is_misaligned(site, linear)) {
            flags_in(cpu);
            cpu->hot.rip = block->rip + site->guest;
            return after(cpu, cpu_fault_code(cpu, VECTOR_GP, 0));
        }
        enum cpu_result result = cpu_fill(cpu, linear, access, &place);
        if (result == CPU_NEXT && place.is_direct)
            return (uint64_t)block->host + site->other;
        if (result == CPU_FAULT && !(site->data & SITE_MASKED)) {
            flags_in(cpu);
            cpu->hot.rip = block->rip + site->guest;
            return after(cpu, CPU_FAULT);
        }
    }
    flags_in(cpu);
    cpu->hot.rip = block->rip + site->guest;
    return go_slow(cpu);
}

/* ---- Slow accesses: whole instructions on a bounce buffer, or on RAM where that is plain ---- */

static bool is_read_only(const struct cpu_place *place) {
    return place->region->flags & TRAPEZE_MEMORY_READ_ONLY;
}

/* The parts of a masked access that touch something; the others stay empty. */
static enum cpu_result locate_masked(struct cpu *cpu, uint64_t linear, unsigned size, unsigned access,
                                     uint64_t active, struct cpu_range *range) {
    unsigned to_end = (unsigned)(MEMORY_PAGE - (linear & MEMORY_PAGE_MASK));
    range->linear = linear;
    range->first_size = to_end < size ? to_end : size;
    uint64_t first = range->first_size == 64 ? ~0ull : (1ull << range->first_size) - 1;
    enum cpu_result result = CPU_NEXT;
    if (active & first)
        result = cpu_locate(cpu, linear + (unsigned)__builtin_ctzll(active & first), access, &range->part[0]);
    if (result == CPU_NEXT && (active & ~first))
        result = cpu_locate(cpu, linear + (unsigned)__builtin_ctzll(active & ~first), access, &range->part[1]);
    return result;
}

/* Masked instructions work on the bounce buffer, of which only active bytes are read and written. */
static enum cpu_result prepare_masked(struct cpu *cpu, const struct block *block, const struct site *site,
                                      uint64_t linear, unsigned access) {
    struct cpu_translator *translator = cpu_translator(cpu);
    struct cpu_range *range = (struct cpu_range *)translator->range;
    struct masked_bytes query = {.cpu = cpu, .physical = block->physical + site->guest};
    uint64_t active = cpu->call_full(cpu, engine_masked_bytes, &query);
    enum cpu_result result = locate_masked(cpu, linear, site->info, access, active, range);
    if (result != CPU_NEXT)
        return result;
    uint8_t *bounce = translator->bounce + (linear & 63);
    for (unsigned i = 0; i < site->info; i++) {
        bounce[i] = 0;
        if (active >> i & 1) {
            result = cpu_read_linear(cpu, linear + i, &bounce[i], 1, ACCESS_READ);
            if (result != CPU_NEXT)
                return result;
        }
    }
    cpu->hot.bounce = (uint64_t)bounce;
    translator->active_bytes = active;
    translator->pending_write = site->kind == SITE_WRITE ? site->info : 0;
    return CPU_NEXT;
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

uint64_t engine_prepare(struct cpu *cpu, uint64_t return_address) {
    struct cpu_translator *translator = cpu_translator(cpu);
    struct block *block;
    const struct site *site = find_site(cpu, return_address, &block);
    if (!site)
        return lost(cpu);
    _Static_assert(sizeof(struct cpu_range) <= sizeof translator->range, "range does not fit");
    unsigned access = site->kind == SITE_WRITE ? ACCESS_WRITE : ACCESS_READ;
    uint64_t offset = scratch_s(cpu), linear, host = 0;
    flags_in(cpu);
    cpu->hot.rip = block->rip + site->guest;
    enum cpu_result result =
        cpu_linear(cpu, (unsigned)site->data & SITE_SEGMENT_BITS, offset, site->info, access, &linear);
    if ((result == CPU_NEXT || cpu_is_64bit(cpu)) && is_misaligned(site, linear))
        result = cpu_fault_code(cpu, VECTOR_GP, 0);
    if (result == CPU_NEXT && (site->data & SITE_MASKED)) {
        result = prepare_masked(cpu, block, site, linear, access);
        host = cpu->hot.bounce;
    } else if (result == CPU_NEXT) {
        result = cpu_locate_range(cpu, linear, site->info, access, (struct cpu_range *)translator->range);
        if (result == CPU_NEXT)
            host = prepare_plain(cpu, site, linear);
    }
    if (cpu_io_waits(cpu)) {
        translator->slow = true;
        cpu_io_abandon(cpu);
        return 0;
    }
    if (result != CPU_NEXT)
        return after(cpu, result);
    cpu->hot.scratch[0] = host - offset;
    return return_address;
}

static void commit_masked(struct cpu *cpu, const struct cpu_range *range, unsigned size) {
    uint64_t active = cpu_translator(cpu)->active_bytes;
    for (unsigned i = 0; i < size; i++)
        if (active >> i & 1)
            cpu_write_linear(cpu, range->linear + i, (uint8_t *)cpu->hot.bounce + i, 1, ACCESS_WRITE);
}

/* The host wrote by itself; translated code of those bytes is stale. */
static void note_written(struct cpu *cpu, const struct cpu_range *range, unsigned size) {
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

/* ---- Instructions that C functions run ---- */

uint64_t engine_helper(struct cpu *cpu, uint64_t return_address) {
    const struct helper_call *call = (const struct helper_call *)scratch_s(cpu);
    flags_in(cpu);
    cpu->hot.rip = call->rip;
    if (call->is_user)
        cpu->statistics.helper_calls_unprivileged++;
    else
        cpu->statistics.helper_calls_privileged++;
    uint32_t key = call->block->key;
    enum cpu_result result = call->function(cpu, &call->op);
    if (cpu_io_waits(cpu)) {
        cpu_io_abandon(cpu);
        return 0;
    }
    cpu_io_done(cpu);
    if (engine_logs(cpu->engine, TRAPEZE_LOG_EXITS)) {
        struct helper_report report = {.cpu = cpu, .call = call, .result = result};
        cpu->call_full(cpu, engine_report_helper, &report);
    }
    if (result == CPU_STOP && (key & MODE_TF) && cpu->stop == CPU_STOP_HALT) {
        cpu->stop = CPU_STOP_NONE; /* the trap ends the halt at once */
        return after(cpu, cpu_fault_debug(cpu, DR6_BS, true));
    }
    if (result == CPU_FAULT || result == CPU_STOP)
        return after(cpu, result);
    if (result == CPU_NEXT) {
        cpu->hot.rip = call->rip + call->op.length;
        if (!(key & MODE_CODE64))
            cpu->hot.rip &= (key & MODE_CODE) == MODE_CODE16 ? 0xffffu : 0xffffffffu;
    }
    /* A load of SS holds traps off until the next instruction has run (SDM vol. 3A, 6.8.3). */
    cpu_translator(cpu)->holds_traps = cpu->interrupt_shadow && call->function != cpu_op_sti;
    if (cpu_translator(cpu)->holds_traps)
        return engine_dispatch(cpu);
    if ((key & MODE_TF) && !interrupt_ends_single_step(call->function))
        return after(cpu, cpu_fault_debug(cpu, DR6_BS | take_hits(cpu), true));
    if (result == CPU_JUMP || cpu->watch_hits || cpu->debug.hit)
        return after(cpu, result);
    if (call->ends_block || must_leave(cpu))
        return engine_dispatch(cpu);
    flags_out(cpu);
    return return_address;
}

/* ---- Exits ---- */

/* The debugger's breakpoint, of this vCPU or only of another one. */
static uint64_t at_breakpoint(struct cpu *cpu) {
    uint64_t linear = linear_rip(cpu);
    for (unsigned i = 0; i < cpu->debug.count; i++)
        if (cpu->debug.point[i].type == TRAPEZE_BREAK_EXECUTE && cpu->debug.point[i].linear == linear) {
            cpu->debug.hit = true;
            cpu->debug.hit_address = linear;
            cpu->stop = CPU_STOP_DEBUG;
            return 0;
        }
    return go_slow(cpu);
}

uint64_t engine_exit(struct cpu *cpu, uint64_t return_address) {
    struct block *block;
    const struct site *site = find_site(cpu, return_address, &block);
    if (!site)
        return lost(cpu);
    flags_in(cpu);
    cpu_io_done(cpu);
    if (site->kind == SITE_BREAK) {
        cpu->hot.rip = block->rip + site->guest;
        return at_breakpoint(cpu);
    }
    if (site->kind == SITE_RAISE) {
        cpu->hot.rip = block->rip + site->guest;
        if (site->info) {
            cpu->statistics.unimplemented++;
            cpu->call_full(cpu, engine_report_unimplemented, cpu);
        }
        return after(cpu, cpu_fault(cpu, (enum cpu_vector)site->data));
    }
    cpu->hot.rip = block->rip + (uint64_t)site->data;
    if (!(block->key & MODE_CODE64))
        cpu->hot.rip &= 0xffffffffu;
    if (block->key & MODE_TF)
        return after(cpu, cpu_fault_debug(cpu, DR6_BS | take_hits(cpu), true));
    if (cpu->watch_hits || cpu->debug.hit)
        return after(cpu, CPU_NEXT);
    cpu_translator(cpu)->link_site = site->other ? (struct site *)site : NULL;
    cpu_translator(cpu)->link_rip = return_address - 1;
    uint64_t host = engine_dispatch(cpu);
    cpu_translator(cpu)->link_site = NULL;
    return host;
}

static bool undo_return(struct cpu *cpu) {
    const struct block *block = (const struct block *)cpu->hot.return_block;
    if (!block)
        return false;
    cpu->hot.rip = block->rip + block->instructions[block->instruction_count - 1].guest;
    cpu->hot.gpr[CPU_RSP] -= block->released;
    return true;
}

/* JMP, CALL and RET to no address fault themselves, before the stack pointer moves. */
static bool undo_branch(struct cpu *cpu, uint64_t return_address) {
    struct block *block;
    const struct site *site = find_site(cpu, return_address, &block);
    if (!site || site->kind != SITE_INDIRECT)
        return undo_return(cpu);
    cpu->hot.rip = block->rip + site->guest;
    cpu->hot.gpr[CPU_RSP] += (uint64_t)site->data;
    return true;
}

uint64_t engine_indirect(struct cpu *cpu, uint64_t return_address) {
    if (return_address == cpu->engine->stubs.sentinel_return)
        reset_stack(cpu, cpu_translator(cpu)->user_stack);
    flags_in(cpu);
    cpu->hot.rip = scratch_s(cpu);
    if (!cpu_is_canonical(cpu->hot.rip) && undo_branch(cpu, return_address))
        return after(cpu, cpu_fault_code(cpu, VECTOR_GP, 0));
    if (cpu->mode_key & MODE_TF)
        return after(cpu, cpu_fault_debug(cpu, DR6_BS | take_hits(cpu), true));
    return after(cpu, CPU_NEXT);
}

/* ---- Host faults in translated code ---- */

/* Whether a floating-point trap came from the x87 (or an MMX instruction that found its error pending). */
static bool is_x87_error(const uint8_t *code) {
    while (*code == 0x66 || *code == 0xf2 || *code == 0xf3 || (*code & 0xf0) == 0x40)
        code++;
    if ((*code & 0xf8) == 0xd8 || *code == 0x9b)
        return true;
    uint32_t mxcsr;
    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    return !(mxcsr & 0x3f & ~(mxcsr >> 7));
}

uint64_t engine_fault(struct cpu *cpu, uint64_t return_address) {
    struct cpu_translator *translator = cpu_translator(cpu);
    struct block *block = code_cache_find(&cpu->engine->cache, return_address);
    cpu->statistics.host_faults++;
    if (!block)
        return lost(cpu);
    flags_in(cpu);
    cpu->hot.rip = block_rip_at(block, return_address);
    enum { SIGNAL_ILL = 4, SIGNAL_BUS = 7, SIGNAL_FPE = 8, SIGNAL_SEGV = 11, FPE_CODE_INTDIV = 1 };
    switch (translator->fault.signal) {
    case SIGNAL_FPE:
        if (translator->fault.code == FPE_CODE_INTDIV)
            return after(cpu, cpu_fault(cpu, VECTOR_DE));
        if (is_x87_error((const uint8_t *)return_address))
            return after(cpu, cpu_fault(cpu, VECTOR_MF));
        return after(cpu, cpu_fault(cpu, cpu->cr4 & CR4_OSXMMEXCPT ? VECTOR_XM : VECTOR_UD));
    case SIGNAL_ILL:
        return after(cpu, cpu_fault(cpu, VECTOR_UD));
    default: /* an unaligned operand, or an address that the host finds not canonical */
        return after(cpu, cpu_fault_code(cpu, VECTOR_GP, 0));
    }
}
