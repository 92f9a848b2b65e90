/* See gdb_target.h. */
#include "tools/gdb_target.h"

#include "devices/pc.h"
#include "tools/runner.h"

enum { PAGE = 4096 };

void gdb_target_init(struct gdb_target *target, struct pc *pc, struct runner *runner) {
    *target = (struct gdb_target){.pc = pc, .runner = runner, .vcpu_count = pc_vcpu_count(pc)};
    for (unsigned i = 0; i < target->vcpu_count; i++)
        target->actions[i] = GDB_CONTINUE;
}

/* ---- Stop and go ---- */

bool gdb_target_pause(struct gdb_target *target) {
    return runner_pause(target->runner);
}

/* Where the vCPU's next instruction is. */
static uint64_t linear_pc(struct gdb_target *target, unsigned index) {
    enum { CS_L = 1 << 13, EFER_LMA = 1 << 10 };
    struct trapeze_registers registers;
    trapeze_vcpu_get_registers(pc_vcpu(target->pc, index), &registers);
    const struct trapeze_segment *cs = &registers.segment[TRAPEZE_CS];
    if ((registers.efer & EFER_LMA) && (cs->attributes & CS_L))
        return registers.rip;
    return (cs->base + registers.rip) & 0xffffffff;
}

static bool is_watch(const struct gdb_breakpoint *breakpoint) {
    return breakpoint->type >= GDB_WATCH_WRITE;
}

const struct gdb_breakpoint *gdb_target_breakpoint_at(const struct gdb_target *target, bool wants_watch,
                                                      uint64_t linear) {
    for (unsigned i = 0; i < target->breakpoint_count; i++) {
        const struct gdb_breakpoint *breakpoint = &target->breakpoints[i];
        uint64_t reach = is_watch(breakpoint) ? breakpoint->length : 1;
        if (is_watch(breakpoint) == wants_watch && linear - breakpoint->linear < reach)
            return breakpoint;
    }
    return NULL;
}

static bool set_debug(struct gdb_target *target, unsigned index, bool step, bool without_execute) {
    static const enum trapeze_debug_type types[] = {
        [GDB_BREAK_SOFTWARE] = TRAPEZE_BREAK_EXECUTE, [GDB_BREAK_HARDWARE] = TRAPEZE_BREAK_EXECUTE,
        [GDB_WATCH_WRITE] = TRAPEZE_BREAK_WRITE,      [GDB_WATCH_READ] = TRAPEZE_BREAK_READ,
        [GDB_WATCH_ACCESS] = TRAPEZE_BREAK_ACCESS,
    };
    struct trapeze_breakpoint list[GDB_BREAKPOINTS_MAX];
    size_t count = 0;
    for (unsigned i = 0; i < target->breakpoint_count; i++) {
        const struct gdb_breakpoint *from = &target->breakpoints[i];
        if (!without_execute || is_watch(from))
            list[count++] = (struct trapeze_breakpoint){types[from->type], from->linear,
                                                        is_watch(from) ? from->length : 1};
    }
    return trapeze_vcpu_set_debug(pc_vcpu(target->pc, index), step, list, count) == TRAPEZE_OK;
}

/* Devices go on while the machine is held: without this, every step would lead into the timer's interrupt handler. */
static void hold_off_interrupts(struct gdb_target *target, unsigned index) {
    struct trapeze_events events;
    trapeze_vcpu_get_events(pc_vcpu(target->pc, index), &events);
    if (events.interrupt_shadow || events.halted)
        return;
    events.interrupt_shadow = true;
    trapeze_vcpu_set_events(pc_vcpu(target->pc, index), &events);
}

static bool prepare(struct gdb_target *target, unsigned index) {
    bool stands_on_one = gdb_target_breakpoint_at(target, false, linear_pc(target, index)) != NULL;
    bool steps = target->actions[index] == GDB_STEP || (target->actions[index] == GDB_CONTINUE && stands_on_one);
    target->steps_over[index] = steps && target->actions[index] == GDB_CONTINUE;
    if (steps)
        hold_off_interrupts(target, index);
    return set_debug(target, index, steps, stands_on_one);
}

static void let_go(struct gdb_target *target) {
    bool which[GDB_VCPUS_MAX] = {false};
    bool has_steps_over = false;
    for (unsigned i = 0; i < target->vcpu_count; i++)
        has_steps_over = has_steps_over || target->steps_over[i];
    /* While one steps past a breakpoint, the others wait: none must miss it. */
    for (unsigned i = 0; i < target->vcpu_count; i++)
        which[i] = has_steps_over ? target->steps_over[i] : target->actions[i] != GDB_STAY;
    runner_resume_some(target->runner, which);
}

bool gdb_target_go(struct gdb_target *target) {
    for (unsigned i = 0; i < target->vcpu_count; i++)
        if (!prepare(target, i))
            return false;
    let_go(target);
    return true;
}

void gdb_target_forget(struct gdb_target *target) {
    target->breakpoint_count = 0;
    for (unsigned i = 0; i < target->vcpu_count; i++) {
        target->actions[i] = GDB_CONTINUE;
        target->steps_over[i] = false;
        trapeze_vcpu_set_debug(pc_vcpu(target->pc, i), false, NULL, 0);
    }
}

bool gdb_target_stepped_over(struct gdb_target *target, unsigned index, const struct trapeze_exit *exit) {
    if (!target->steps_over[index] || exit->reason != TRAPEZE_EXIT_DEBUG || exit->debug.kind != TRAPEZE_DEBUG_STEP)
        return false;
    target->steps_over[index] = false;
    set_debug(target, index, false, false);
    return true;
}

/* ---- Breakpoints ---- */

bool gdb_target_insert(struct gdb_target *target, enum gdb_break type, uint64_t linear, uint64_t length) {
    if (target->breakpoint_count == GDB_BREAKPOINTS_MAX)
        return false;
    target->breakpoints[target->breakpoint_count++] = (struct gdb_breakpoint){type, linear, length};
    return true;
}

bool gdb_target_remove(struct gdb_target *target, enum gdb_break type, uint64_t linear, uint64_t length) {
    for (unsigned i = 0; i < target->breakpoint_count; i++) {
        struct gdb_breakpoint *breakpoint = &target->breakpoints[i];
        if (breakpoint->type != type || breakpoint->linear != linear || breakpoint->length != length)
            continue;
        *breakpoint = target->breakpoints[--target->breakpoint_count];
        return true;
    }
    return false;
}

/* ---- Memory ---- */

/* The part of a range that lies in one page; false where that page is not mapped. */
static bool next_piece(struct gdb_target *target, unsigned index, uint64_t linear, size_t left, size_t *piece,
                       guest_physical *physical) {
    *piece = PAGE - linear % PAGE;
    if (*piece > left)
        *piece = left;
    return trapeze_vcpu_translate(pc_vcpu(target->pc, index), guest_linear_at(linear), physical);
}

size_t gdb_target_read(struct gdb_target *target, unsigned index, uint64_t linear, void *to, size_t length) {
    size_t done = 0, piece;
    guest_physical physical;
    while (done < length && next_piece(target, index, linear + done, length - done, &piece, &physical)) {
        if (!trapeze_memory_read(pc_machine(target->pc), physical, (char *)to + done, piece))
            break;
        done += piece;
    }
    return done;
}

size_t gdb_target_write(struct gdb_target *target, unsigned index, uint64_t linear, const void *from, size_t length) {
    size_t done = 0, piece;
    guest_physical physical;
    while (done < length && next_piece(target, index, linear + done, length - done, &piece, &physical)) {
        if (!trapeze_memory_write(pc_machine(target->pc), physical, (const char *)from + done, piece))
            break;
        done += piece;
    }
    return done;
}
