/*
 * Where translated code goes when it cannot go on by itself: an instruction that a C function runs, an exit to a block
 * that is not linked; misses are in miss.c, slow accesses in slow_access.c. Light code: the guest's vector state is live.
 */
#include "cpu/interrupt.h"
#include "cpu/io.h"
#include "cpu/mode.h"
#include "cpu/model.h"
#include "cpu/ops.h"
#include "cpu/views.h"
#include "cpu/watch.h"
#include "cpu/window.h"
#include "translator/dispatch.h"

#define DR6_BS (1ull << 14)

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

static void reset_stack(struct cpu *cpu, enum shadow_stack stack) {
    struct cpu_translator *translator = cpu_translator(cpu);
    *(uint64_t *)translator->stack_base[stack] = cpu->engine->stubs.sentinel;
    translator->stack_saved[stack] = translator->stack_base[stack];
    if (stack == translator->stack)
        cpu->hot.shadow_stack = (void *)translator->stack_base[stack];
}

void engine_reset_stacks(struct cpu *cpu) {
    for (unsigned i = 0; i < SHADOW_STACKS; i++)
        reset_stack(cpu, i);
}

static void change_stack(struct cpu *cpu, enum shadow_stack next) {
    struct cpu_translator *translator = cpu_translator(cpu);
    enum shadow_stack before = translator->stack;
    translator->stack_saved[before] = (uint64_t)cpu->hot.shadow_stack;
    translator->stack = next;
    if (before == STACK_USER) { /* the kernel begins anew */
        reset_stack(cpu, STACK_SUPERVISOR);
        reset_stack(cpu, STACK_WINDOW);
    } else if (next == STACK_SUPERVISOR) {
        reset_stack(cpu, next);
    }
    cpu->hot.shadow_stack = (void *)translator->stack_saved[next];
}

/*
 * Puts the shadow stack in force that the mode asks for. Return sites hold for one mode and one address space. Code made
 * for a window must not be returned to without one: supervisor code leaves its window often, for the few instructions
 * that reach user memory, and has another stack for them.
 */
static void select_stack(struct cpu *cpu) {
    struct cpu_translator *translator = cpu_translator(cpu);
    uint32_t key = cpu->mode_key & ~(uint32_t)(MODE_CPL | MODE_IOPL3 | MODE_WINDOW | MODE_NEAR_STACK);
    if (key != translator->stack_key || cpu->space_changes != translator->space_changes) {
        translator->stack_key = key;
        translator->space_changes = cpu->space_changes;
        engine_reset_stacks(cpu);
    }
    bool uses_window = cpu->mode_key & MODE_WINDOW;
    enum shadow_stack next = cpu->cpl == 3 ? STACK_USER : uses_window ? STACK_WINDOW : STACK_SUPERVISOR;
    if (next != translator->stack)
        change_stack(cpu, next);
    uint32_t user_window = cpu->mode_key & (MODE_WINDOW | MODE_NEAR_STACK);
    if (next == STACK_USER && user_window != translator->user_window) {
        translator->user_window = user_window;
        reset_stack(cpu, STACK_USER);
    }
}

/* ---- Dispatch ---- */

/* Whether an interrupt or NMI is to be taken as soon as the shadow of STI or MOV SS lets it. */
static inline bool awaits_event(struct cpu *cpu) {
    if ((cpu_translator(cpu)->latched & REQUEST_NMI) && !cpu->nmi_blocked)
        return true;
    return (cpu->hot.rflags & FLAG_IF) && atomic_load_explicit(&cpu->intr, memory_order_relaxed);
}

bool dispatch_must_leave(struct cpu *cpu) {
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

/*
 * Instruction breakpoints of DR0 to DR3, unless RF holds them off for one instruction (SDM vol. 3B, 17.3.1.1). A load of
 * SS in front does so, too, on Intel's processors; on AMD's it does not, and the breakpoint makes them forget the data
 * breakpoints that the load held off.
 */
static enum cpu_result check_breakpoints(struct cpu *cpu, uint64_t linear) {
    if (!(cpu->mode_key & MODE_BREAKPOINTS) || (cpu->hot.rflags & FLAG_RF))
        return CPU_NEXT;
    if (cpu_translator(cpu)->holds_traps && !cpu_is_amd(cpu))
        return CPU_NEXT;
    uint64_t hit = 0;
    for (unsigned i = 0; i < 4; i++)
        if ((cpu->dr[7] >> (2 * i) & 3) && !(cpu->dr[7] >> (16 + 4 * i) & 3) && cpu->dr[i] == linear)
            hit |= 1u << i;
    if (!hit)
        return CPU_NEXT;
    cpu->watch_hits = 0;
    return cpu_fault_debug(cpu, hit, false);
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
    const struct view_tables *tables = cpu->hot.view->tables;
    unsigned index = view_jump_index(cpu->hot.rip);
    const struct view_jump *jump = &tables->jump[index], *second = &tables->second_jump[index];
    if (jump->negative_target == -cpu->hot.rip)
        return jump->host;
    return second->negative_target == -cpu->hot.rip ? second->host : 0;
}

/*
 * An interrupt that is all there is to look at, from a controller that is light, is taken without leaving for the run loop.
 * False: leave.
 */
static bool take_interrupt(struct cpu *cpu) {
    const struct trapeze_interrupt_controller *controller = &cpu->interrupt_controller;
    struct cpu_translator *translator = cpu_translator(cpu);
    if (!controller->is_light || !controller->acknowledge || cpu->config->unclaimed_exits || cpu->debug.single_step ||
        translator->latched || cpu->stop != CPU_STOP_NONE || engine_logs(cpu->engine, TRAPEZE_LOG_INT))
        return false;
    __atomic_store_n(&cpu->hot.run, 1, __ATOMIC_SEQ_CST);
    uint32_t arrived = atomic_exchange(&cpu->requests, 0);
    if (arrived & ~(uint32_t)REQUEST_INTR) {
        atomic_fetch_or(&cpu->requests, arrived);
        __atomic_store_n(&cpu->hot.run, 0, __ATOMIC_SEQ_CST);
        return false;
    }
    if (cpu->interrupt_shadow || !(cpu->hot.rflags & FLAG_IF) || !atomic_load(&cpu->intr))
        return true;
    int vector = controller->acknowledge(controller->opaque);
    if (vector < 0)
        return true;
    translator->link_site = NULL;
    cpu->statistics.interrupts++;
    cpu_window_sample(cpu);
    if (cpu_deliver_interrupt(cpu, (unsigned)vector) != CPU_STOP)
        return true;
    cpu->stop = CPU_STOP_SHUTDOWN;
    return false;
}

uint64_t engine_dispatch(struct cpu *cpu) {
    struct cpu_translator *translator = cpu_translator(cpu);
    cpu->statistics.dispatches++;
    for (;;) {
        if (dispatch_must_leave(cpu) && !take_interrupt(cpu))
            return 0;
        if (cpu->interrupt_shadow && awaits_event(cpu))
            translator->slow = true; /* one instruction, then look again */
        if (translator->holds_traps && cpu->watch_hits)
            translator->slow = true; /* one instruction, then the breakpoints that a load of SS held off */
        uint32_t key = cpu->mode_key;
        if (translator->slow || (key & MODE_ALIGNMENT)) {
            key = (key & ~(uint32_t)(MODE_WINDOW | MODE_NEAR_STACK)) | MODE_SLOW;
        } else if ((key & MODE_NEAR_STACK) && !cpu_window_holds_stack(cpu)) {
            cpu_window_look_at_stack(cpu);
            continue;
        }
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
            translator->slow = translator->holds_traps = false;
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
            cpu->statistics.links += engine_link(
                cpu->engine, code_cache_find(&cpu->engine->cache, translator->link_rip), translator->link_site, block);
        translator->link_site = NULL;
        if (key & MODE_WINDOW)
            cpu_window_see(cpu, &block->seen);
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

uint64_t dispatch_after(struct cpu *cpu, enum cpu_result result) {
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

uint64_t dispatch_again(struct cpu *cpu, const struct block *block) {
    struct cpu_translator *translator = cpu_translator(cpu);
    if (translator->was_shadowed && cpu->hot.rip == translator->shadowed_rip)
        cpu->interrupt_shadow = true; /* it has not run yet */
    if (block->shadowed && cpu->hot.rip - block->rip == block->shadowed)
        cpu->interrupt_shadow = true;
    return engine_dispatch(cpu);
}

uint64_t dispatch_slowly(struct cpu *cpu, const struct block *block) {
    cpu->statistics.slow_accesses++;
    cpu_translator(cpu)->slow = true;
    return dispatch_again(cpu, block);
}

const struct site *dispatch_site(struct cpu *cpu, uint64_t return_address, struct block **block) {
    *block = code_cache_find(&cpu->engine->cache, return_address - 1);
    return *block ? block_find_site(*block, return_address) : NULL;
}

uint64_t dispatch_lost(struct cpu *cpu) {
    cpu->stop = CPU_STOP_SHUTDOWN;
    return 0;
}

/* ---- Instructions that C functions run ---- */

static void report_helper(struct cpu *cpu, const struct helper_call *call, enum cpu_result result, bool is_new_space) {
    struct helper_report report = {.cpu = cpu, .call = call, .result = result};
    if (engine_logs(cpu->engine, TRAPEZE_LOG_EXITS))
        cpu->call_full(cpu, engine_report_helper, &report);
    if (is_new_space && engine_logs(cpu->engine, TRAPEZE_LOG_MMU))
        cpu->call_full(cpu, engine_report_space, &report);
}

/* Where the guest goes on, whatever the instruction has done. */
static uint64_t end_helper(struct cpu *cpu, const struct helper_call *call, enum cpu_result result) {
    struct cpu_translator *translator = cpu_translator(cpu);
    uint32_t key = call->block->key;
    uint64_t return_address = *(const uint64_t *)cpu->hot.shadow_stack;
    cpu->hot.shadow_stack = (uint64_t *)cpu->hot.shadow_stack + 1;
    if (cpu_io_waits(cpu)) {
        cpu_io_abandon(cpu);
        return 0;
    }
    cpu_io_done(cpu);
    if (result == CPU_STOP && (key & MODE_TF) && cpu->stop == CPU_STOP_HALT) {
        cpu->stop = CPU_STOP_NONE; /* the trap ends the halt at once */
        return dispatch_after(cpu, cpu_fault_debug(cpu, DR6_BS, true));
    }
    if (result == CPU_FAULT || result == CPU_STOP)
        return dispatch_after(cpu, result);
    bool has_lost_pages = (cpu->mode_key & MODE_WINDOW) && cpu_window_is_outdated(cpu->hot.view);
    if (has_lost_pages)
        cpu_mode_changed(cpu);
    if (result == CPU_NEXT) {
        cpu->hot.rip = call->rip + call->op.length;
        if (!(key & MODE_CODE64))
            cpu->hot.rip &= (key & MODE_CODE) == MODE_CODE16 ? 0xffffu : 0xffffffffu;
    }
    /* A load of SS holds traps off until the next instruction has run (SDM vol. 3A, 6.8.3). */
    translator->holds_traps = cpu->interrupt_shadow && call->function != cpu_op_sti;
    if (translator->holds_traps)
        return engine_dispatch(cpu);
    if ((key & MODE_TF) && !interrupt_ends_single_step(call->function))
        return dispatch_after(cpu, cpu_fault_debug(cpu, DR6_BS | take_hits(cpu), true));
    if (result == CPU_JUMP || cpu->watch_hits || cpu->debug.hit)
        return dispatch_after(cpu, result);
    if (call->ends_block || has_lost_pages || dispatch_must_leave(cpu))
        return engine_dispatch(cpu);
    flags_out(cpu);
    return return_address;
}

/* Whether the instruction has left something that must be looked at before the next one. An unanswered read of a device
   clears `run`, too. */
static inline bool is_disturbed(const struct cpu *cpu) {
    return __atomic_load_n(&cpu->hot.run, __ATOMIC_RELAXED) == 0 ||
           (cpu->interrupt_shadow | cpu->watch_hits | cpu->debug.hit | cpu->io.answered) ||
           engine_logs(cpu->engine, TRAPEZE_LOG_EXITS | TRAPEZE_LOG_MMU);
}

uint64_t engine_helper(struct cpu *cpu, const struct helper_call *call) {
    flags_in(cpu);
    cpu->hot.rip = call->rip;
    if (call->is_user)
        cpu->statistics.helper_calls_unprivileged++;
    else
        cpu->statistics.helper_calls_privileged++;
    uint32_t spaces = cpu->space_changes;
    enum cpu_result result = call->function(cpu, &call->op);
    bool is_disturbing = is_disturbed(cpu);
    bool has_flushed = cpu->space_changes != spaces; /* perhaps pages of the window in use */
    if (result == CPU_NEXT && call->is_plain && !is_disturbing && !has_flushed)
        return HELPER_GOES_ON;
    if (is_disturbing && !cpu_io_waits(cpu))
        report_helper(cpu, call, result, has_flushed);
    return end_helper(cpu, call, result);
}

/* ---- Exits ---- */

/* The debugger's breakpoint, of this vCPU or only of another one. */
static uint64_t at_breakpoint(struct cpu *cpu, const struct block *block) {
    uint64_t linear = linear_rip(cpu);
    for (unsigned i = 0; i < cpu->debug.count; i++)
        if (cpu->debug.point[i].type == TRAPEZE_BREAK_EXECUTE && cpu->debug.point[i].linear == linear) {
            cpu->debug.hit = true;
            cpu->debug.hit_address = linear;
            cpu->stop = CPU_STOP_DEBUG;
            return 0;
        }
    return dispatch_slowly(cpu, block);
}

uint64_t engine_exit(struct cpu *cpu, uint64_t return_address) {
    struct block *block;
    const struct site *site = dispatch_site(cpu, return_address, &block);
    if (!site)
        return dispatch_lost(cpu);
    flags_in(cpu);
    cpu_io_done(cpu);
    if (site->kind == SITE_BREAK) {
        cpu->hot.rip = block->rip + site->guest;
        return at_breakpoint(cpu, block);
    }
    if (site->kind == SITE_RAISE) {
        cpu->hot.rip = block->rip + site->guest;
        if (site->info) {
            cpu->statistics.unimplemented++;
            cpu->call_full(cpu, engine_report_unimplemented, cpu);
        }
        return dispatch_after(cpu, cpu_fault(cpu, (enum cpu_vector)site->data));
    }
    cpu->hot.rip = block->rip + (uint64_t)site->data;
    if (!(block->key & MODE_CODE64))
        cpu->hot.rip &= 0xffffffffu;
    if (block->key & MODE_TF)
        return dispatch_after(cpu, cpu_fault_debug(cpu, DR6_BS | take_hits(cpu), true));
    cpu_window_count(cpu);
    if (site->info)
        cpu->interrupt_shadow = true;
    if (cpu->watch_hits || cpu->debug.hit)
        return dispatch_after(cpu, CPU_NEXT);
    cpu_translator(cpu)->link_site = site->other ? (struct site *)site : NULL;
    cpu_translator(cpu)->link_rip = return_address - 1;
    uint64_t host = engine_dispatch(cpu);
    cpu_translator(cpu)->link_site = NULL;
    return host;
}

static bool undo_return(struct cpu *cpu) {
    const struct block *block = (const struct block *)cpu->hot.scratch[4]; /* T, as RET left it */
    cpu->hot.rip = block_rip_at(block, (uint64_t)block->host + block->host_size);
    cpu->hot.gpr[CPU_RSP] -= block->released;
    return true;
}

/* JMP, CALL and RET to no address fault themselves, before the stack pointer moves. */
static bool undo_branch(struct cpu *cpu, uint64_t return_address) {
    struct block *block;
    const struct site *site = dispatch_site(cpu, return_address, &block);
    if (!site || site->kind != SITE_INDIRECT)
        return undo_return(cpu);
    cpu->hot.rip = block->rip + site->guest;
    cpu->hot.gpr[CPU_RSP] += (uint64_t)site->data;
    return true;
}

uint64_t engine_indirect(struct cpu *cpu, uint64_t return_address) {
    if (return_address == cpu->engine->stubs.sentinel_return)
        reset_stack(cpu, cpu_translator(cpu)->stack);
    flags_in(cpu);
    cpu->hot.rip = scratch_s(cpu);
    if (!cpu_is_canonical(cpu->hot.rip) && undo_branch(cpu, return_address))
        return dispatch_after(cpu, cpu_fault_code(cpu, VECTOR_GP, 0));
    if (cpu->mode_key & MODE_TF)
        return dispatch_after(cpu, cpu_fault_debug(cpu, DR6_BS | take_hits(cpu), true));
    cpu_window_count(cpu);
    return dispatch_after(cpu, CPU_NEXT);
}
