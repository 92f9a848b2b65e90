/*
 * Host faults in translated code, with the guest's state whole: exceptions that only the host's processor finds, and
 * accesses that a window does not hold. Light code.
 */
#include "cpu/views.h"
#include "cpu/window.h"
#include "translator/dispatch.h"

/* What an instruction of translated code has behind its prefixes. */
static uint8_t opcode_of(const uint8_t *code) {
    while (*code == 0x65 || *code == 0x66 || *code == 0x67 || *code == 0xf2 || *code == 0xf3 || (*code & 0xf0) == 0x40)
        code++;
    return *code;
}

static bool is_x87(const uint8_t *code) {
    return (opcode_of(code) & 0xf8) == 0xd8;
}

/* Whether a floating-point trap came from the x87 (or an MMX instruction that found its error pending). */
static bool is_x87_error(const uint8_t *code) {
    if (is_x87(code) || opcode_of(code) == 0x9b)
        return true;
    uint32_t mxcsr;
    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    return !(mxcsr & 0x3f & ~(mxcsr >> 7));
}

/* ---- Windows ---- */

/* The site's block is translated again: with the new form, or because it is older than the form (sites share them). */
static void set_form(struct cpu *cpu, uint64_t physical, uint8_t *form, uint8_t value) {
    __atomic_store_n(form, value, __ATOMIC_RELAXED);
    cpu_code_stale(cpu, physical & ~MEMORY_PAGE_MASK, 1ull << ((physical & MEMORY_PAGE_MASK) / 64), 0, 0);
}

void engine_note_group(struct cpu *cpu, uint64_t physical) {
    uint8_t *form = &cpu->engine->site_form[engine_site(physical)];
    uint8_t seen = __atomic_load_n(form, __ATOMIC_RELAXED);
    set_form(cpu, physical, form, (seen & FORM_BITS) < FORM_TABLE ? FORM_TABLE : seen);
}

void engine_note_soft_site(struct cpu *cpu, uint64_t physical) {
    enum { ENOUGH = 3 * FORM_FAILURE };
    uint8_t *form = &cpu->engine->site_form[engine_site(physical)];
    uint8_t seen = __atomic_load_n(form, __ATOMIC_RELAXED);
    if (seen >= ENOUGH || (seen & FORM_BITS) == FORM_SOFT)
        set_form(cpu, physical, form, FORM_SOFT);
    else
        __atomic_store_n(form, (uint8_t)(seen + FORM_FAILURE), __ATOMIC_RELAXED);
}

/* Whether the window has the page now. A guest's fault is left to the slow way; other failures make the site soft. */
static bool reach_page(struct cpu *cpu, uint64_t linear, bool is_write, uint64_t site_physical) {
    struct cpu_place place;
    if (!cpu_is_canonical(linear) || cpu_fill(cpu, linear, is_write ? ACCESS_WRITE : ACCESS_READ, &place) != CPU_NEXT)
        return false;
    if (place.is_direct && cpu_window_fill(cpu, linear, is_write))
        return true;
    engine_note_soft_site(cpu, site_physical);
    return false;
}

/* The view has lost its window for a while: the instruction runs in code that does not use it. */
static uint64_t without_window(struct cpu *cpu, const struct block *block) {
    cpu_mode_changed(cpu);
    return dispatch_again(cpu, block);
}

/*
 * Whether an instruction that the window now has everything for may try again. Not for ever: one that crosses into what
 * is no page of any region (the end of the canonical addresses) faults there whatever is mapped.
 */
static bool may_try_again(struct cpu *cpu) {
    enum { TRIES = 4 };
    struct cpu_translator *translator = cpu_translator(cpu);
    bool is_same =
        translator->tried_rip == translator->fault.rip && translator->tried_address == translator->fault.address;
    translator->tries = is_same ? translator->tries + 1 : 0;
    translator->tried_rip = translator->fault.rip;
    translator->tried_address = translator->fault.address;
    return translator->tries < TRIES;
}

/* REP MOVS or STOS: what is done is done, and the rest runs again. Full state, but for the registers of the instruction. */
static uint64_t repeated_fault(struct cpu *cpu, const struct block *block, const struct site *site) {
    enum { SLOT_A = 0, SLOT_S = 1, SLOT_T = 4 };
    uint64_t mask = block->key & MODE_CODE64 ? ~0ull : 0xffffffffu, linear;
    uint64_t *gpr = cpu->hot.gpr;
    gpr[CPU_RCX] = cpu->hot.scratch[SLOT_A];
    gpr[CPU_RDI] = (gpr[CPU_RDI] - cpu->hot.scratch[SLOT_T]) & mask;
    if (site->info)
        gpr[CPU_RSI] = (gpr[CPU_RSI] - cpu->hot.scratch[SLOT_S]) & mask;
    if (cpu_window_charge(cpu, 1))
        return without_window(cpu, block);
    uint64_t physical = block->physical + (cpu->hot.rip - block->rip);
    bool can_go_on;
    if (window_linear(cpu->hot.view->window, cpu_translator(cpu)->fault.address, &linear))
        can_go_on = reach_page(cpu, linear, cpu_translator(cpu)->fault.is_write, physical);
    else
        can_go_on = reach_page(cpu, gpr[CPU_RDI], true, physical) &&
                    (!site->info || reach_page(cpu, gpr[CPU_RSI], false, physical));
    if (can_go_on && may_try_again(cpu)) {
        flags_out(cpu);
        return (uint64_t)block->host + site->other;
    }
    return dispatch_slowly(cpu, block);
}

/* What emit_check has made: the load of an entry has no REX.W, as that of an addend has. */
static bool is_check(struct cpu *cpu, uint64_t host) {
    enum { REX_B = 0x41 };
    return view_is_in_checks(cpu->hot.view, cpu_translator(cpu)->fault.address) && *(const uint8_t *)host == REX_B;
}

/* An access that the window does not allow: of a page that is not mapped there yet, a guest's fault, or something that no
   window holds. full state. */
static uint64_t window_fault(struct cpu *cpu, const struct block *block, uint64_t return_address) {
    struct cpu_translator *translator = cpu_translator(cpu);
    const struct site *site = block_find_site(block, return_address);
    uint64_t linear;
    if (site && site->kind == SITE_REPEATED)
        return repeated_fault(cpu, block, site);
    if (cpu_window_charge(cpu, 1))
        return without_window(cpu, block);
    if (!window_linear(cpu->hot.view->window, translator->fault.address, &linear)) {
        translator->window_missed = true; /* the slow way knows the address */
        translator->check_failed = is_check(cpu, return_address) || !(block->key & MODE_CODE64);
        return dispatch_slowly(cpu, block);
    }
    bool is_write = translator->fault.is_write;
    struct cpu_place place;
    if (cpu_fill(cpu, linear, is_write ? ACCESS_WRITE : ACCESS_READ, &place) == CPU_FAULT) {
        cpu_window_await(cpu, linear);
        if (cpu->cpl == 0) /* kernels that catch faults make them again and again; programs seldom do */
            engine_note_soft_site(cpu, block->physical + (cpu->hot.rip - block->rip));
        return dispatch_after(cpu, CPU_FAULT);
    }
    if (place.is_direct && cpu_window_fill(cpu, linear, is_write) && may_try_again(cpu)) {
        flags_out(cpu);
        return return_address;
    }
    engine_note_soft_site(cpu, block->physical + (cpu->hot.rip - block->rip));
    return dispatch_slowly(cpu, block);
}

/* ---- Loops ---- */

/* Guest registers that the round had elsewhere, as they were saved by their usual places. */
static void leave_loop(struct cpu *cpu, const struct block_loop *loop) {
    for (unsigned i = 0; i < loop->swap_count; i++) {
        uint64_t *gpr = cpu->hot.gpr;
        gpr[loop->swap[i].inner] = gpr[loop->swap[i].outer];
        gpr[loop->swap[i].outer] = cpu->hot.swapped[i];
    }
}

static void enter_loop(struct cpu *cpu, const struct block_loop *loop) {
    for (unsigned i = 0; i < loop->swap_count; i++) {
        uint64_t *gpr = cpu->hot.gpr;
        cpu->hot.swapped[i] = gpr[loop->swap[i].outer];
        gpr[loop->swap[i].outer] = gpr[loop->swap[i].inner];
    }
}

/* Takes the addend of group B off guest registers, or puts it back (sign: 1). */
static void bias(struct cpu *cpu, const struct block_loop *loop, uint64_t offset, uint64_t sign) {
    for (unsigned i = 0; i < loop->bias_count; i++)
        for (unsigned guest = 0; guest < CPU_REGISTERS; guest++)
            if (offset >= loop->bias[i].start && offset < loop->bias[i].end &&
                (loop->bias[i].registers & (1u << guest)))
                cpu->hot.gpr[guest] += sign * cpu->hot.window_addend[1];
}

/* A check in front of a part of a loop failed, perhaps of an access that would not have been made: no checks there from now on. */
static uint64_t check_fault(struct cpu *cpu, const struct block *block, const struct block_check *check,
                            uint64_t return_address, bool in_loop) {
    uint64_t physical = block->physical + check->guest;
    uint8_t *form = &cpu->engine->site_form[engine_loop_site(physical)];
    struct cpu_place place;
    uint64_t linear = scratch_s(cpu);
    bool is_new = cpu_is_canonical(linear) && window_group(cpu->hot.view->window, linear) == WINDOW_GROUPS;
    if (is_new && cpu_fill(cpu, linear, ACCESS_READ, &place) == CPU_NEXT && place.is_direct &&
        cpu_window_fill(cpu, linear, false) && may_try_again(cpu)) { /* its region was not reserved */
        cpu->hot.rip = block->rip + check->guest;
        if (in_loop) /* which may hold the group's addend of before */
            return dispatch_again(cpu, block);
        flags_out(cpu);
        return return_address;
    }
    set_form(cpu, block->physical, form, FORM_SOFT);
    cpu->hot.rip = block->rip + check->guest;
    return dispatch_slowly(cpu, block);
}

static const struct block_check *find_check(const struct block *block, uint64_t offset) {
    for (unsigned i = 0; block->loop && i < block->loop->check_count; i++)
        if (offset >= block->loop->check[i].start && offset < block->loop->check[i].end)
            return &block->loop->check[i];
    return NULL;
}

/* ---- All of them ---- */

/* Pushes and pops that the stack pointer's host register lacks (stack.c). */
static void move_stack(struct cpu *cpu, const struct block *block, int64_t distance) {
    cpu->hot.gpr[CPU_RSP] += (uint64_t)distance;
    if (distance && !(block->key & MODE_CODE64))
        cpu->hot.gpr[CPU_RSP] &= 0xffffffffu;
}

/* The 11 bits of the opcode at a linear address; prefixes do not count. */
static uint16_t x87_opcode(struct cpu *cpu, uint64_t linear) {
    uint8_t byte = 0, before;
    guest_physical at;
    for (unsigned i = 0; i < 15 && cpu_walk_debug(cpu, linear + i, &at); i++) {
        struct memory_region *region = memory_find(cpu->memory, at);
        before = byte;
        byte = region ? *memory_host(region, at) : 0;
        if ((before & 0xf8) == 0xd8)
            return (uint16_t)((before & 7) << 8 | byte);
    }
    return 0;
}

bool engine_find_x87(struct cpu *cpu, uint32_t host, struct cpu_x87_place *place) {
    const struct code_cache *cache = &cpu->engine->cache;
    uint64_t address = (uint64_t)cache->execute + (uint32_t)(host - (uint32_t)(uint64_t)cache->execute);
    struct block *block = host && code_cache_holds(cache, address) ? code_cache_find(cache, address) : NULL;
    /* What the host has kept may be of anybody's: an address of the same lower half. */
    if (!block || !is_x87((const uint8_t *)address))
        return false;
    place->rip = block_rip_at(block, address);
    place->opcode = x87_opcode(cpu, place->rip + (cpu_is_64bit(cpu) ? 0 : cpu->segment[CPU_CS].base));
    place->is_windowed = *(const uint8_t *)address == SEGMENT_GS;
    return true;
}

static uint64_t handle_fault(struct cpu *cpu, const struct block *block, uint64_t return_address) {
    const struct cpu_translator *translator = cpu_translator(cpu);
    enum { SIGNAL_ILL = 4, SIGNAL_BUS = 7, SIGNAL_FPE = 8, SIGNAL_SEGV = 11, FPE_CODE_INTDIV = 1 };
    /* SIGBUS: through rsp or rbp, an address that is not canonical is a stack fault. */
    bool is_access = translator->fault.signal == SIGNAL_SEGV || translator->fault.signal == SIGNAL_BUS;
    if (is_access && (block->key & MODE_WINDOW))
        return window_fault(cpu, block, return_address);
    switch (translator->fault.signal) {
    case SIGNAL_FPE:
        if (translator->fault.code == FPE_CODE_INTDIV)
            return dispatch_after(cpu, cpu_fault(cpu, VECTOR_DE));
        if (is_x87_error((const uint8_t *)return_address))
            return dispatch_after(cpu, x87_raise(cpu));
        return dispatch_after(cpu, cpu_fault(cpu, cpu->cr4 & CR4_OSXMMEXCPT ? VECTOR_XM : VECTOR_UD));
    case SIGNAL_ILL:
        return dispatch_after(cpu, cpu_fault(cpu, VECTOR_UD));
    default: /* an unaligned operand, or an address that the host finds not canonical */
        return dispatch_after(cpu, cpu_fault_code(cpu, VECTOR_GP, 0));
    }
}

uint64_t engine_fault(struct cpu *cpu, uint64_t return_address) {
    struct block *block = code_cache_find(&cpu->engine->cache, return_address);
    cpu->statistics.host_faults++;
    if (!block)
        return dispatch_lost(cpu);
    flags_in(cpu);
    cpu->hot.rip = block_rip_at(block, return_address);
    int64_t stack = block_stack_at(block, return_address);
    move_stack(cpu, block, stack);
    uint64_t offset = return_address - (uint64_t)block->host;
    const struct block_loop *loop = block->loop;
    bool in_loop = loop && offset >= loop->start && offset < loop->end;
    if (in_loop) {
        leave_loop(cpu, loop);
        bias(cpu, loop, offset, -1ull);
    }
    const struct block_check *check = find_check(block, offset);
    uint64_t host = check ? check_fault(cpu, block, check, return_address, in_loop) : handle_fault(cpu, block, return_address);
    if (host == return_address)
        move_stack(cpu, block, -stack);
    if (in_loop && host == return_address) {
        bias(cpu, loop, offset, 1);
        enter_loop(cpu, loop);
    }
    return host;
}
