/*
 * When a view's window (memory/window.h) is used, and what is mapped there. A window is opened for an address space that
 * was seen at work several times in a row, because mapping a page costs microseconds; after a flush it has to be seen at
 * work again, and is then compared with the guest's page tables before anything runs on it.
 */
#ifndef CPU_WINDOW_H
#define CPU_WINDOW_H

#include "cpu/mode.h"
#include "memory/window.h"

/*
 * Whether code under this mode key may run on the view's window, which is brought up to date for it. Called where the
 * mode or the view changes.
 */
bool cpu_window_is_ready(struct cpu *cpu, struct view *view, uint32_t key);
/*
 * Whether 64-bit user code in the view's window may be such that takes its stack pointer to be near group A
 * (MODE_NEAR_STACK). Who enters that asks cpu_window_holds_stack first; where it does not, the mode key is another.
 */
static inline bool cpu_window_knows_stack(const struct view *view, uint32_t key) {
    return (key & (MODE_CODE | MODE_CPL)) == (MODE_CODE64 | MODE_CPL) && !view->has_wild_stack;
}
static inline bool cpu_window_holds_stack(const struct cpu *cpu) {
    uint64_t rsp = cpu->hot.gpr[CPU_RSP], addend = cpu->hot.view->tables->region[rsp >> VIEW_REGION_SHIFT & (VIEW_REGIONS - 1)];
    return addend == cpu->hot.window_addend[WINDOW_A] && view_is_canonical(rsp);
}
void cpu_window_look_at_stack(struct cpu *cpu);
/* Loads what such code takes for granted where the window is still up to date. */
void cpu_window_resume(struct cpu *cpu, const struct view *view);
/* An interrupt found the vCPU at work: one sample for the current view. */
void cpu_window_sample(struct cpu *cpu);
/* Where polls leave: full state. When hot.countdown is at 0, that is a sample, too, and the mode key may change. */
void cpu_window_count(struct cpu *cpu);
/*
 * The software tables had to be filled, which is as good a sample for supervisor code that is not interrupted. True: there
 * have been enough, and cpu_mode_changed is to look after the window.
 */
bool cpu_window_is_due(struct cpu *cpu);
/* Whether the view has a window that could be used now. */
static inline bool cpu_window_may_serve(const struct view *view) {
    return view->window && !view->window_is_stale;
}
/* Whether such an access of the page needs nothing more there. */
static inline bool cpu_window_holds(const struct view *view, uint64_t linear, bool is_write) {
    const struct window_piece *piece = window_find(view->window, linear);
    return piece && (piece->writable || !is_write);
}
/*
 * Maps the page of `linear`, which cpu_fill has just allowed for such an access, reserving its region if need be. False:
 * it cannot be had in the window.
 */
bool cpu_window_fill(struct cpu *cpu, uint64_t linear, bool is_write);

/*
 * Charges a host fault in the window, or the loss of pages, to the view. True: the window costs more than it gains and is
 * stale from now on; the caller lets cpu_mode_changed choose again.
 */
bool cpu_window_charge(struct cpu *cpu, unsigned events);

/* hot.segment_place of FS or GS, for code in the current view's window: after its base or limit, or the window's regions,
   have changed. */
void cpu_window_place_segment(struct cpu *cpu, unsigned segment);

/*
 * The current view's window runs a block whose `seen` this is. The more code there is, the more may its faults cost: on
 * software tables all of it would have to be translated again.
 */
static inline void cpu_window_see(struct cpu *cpu, uint32_t *seen) {
    struct view *view = cpu->hot.view;
    uint32_t stamp = view_stamp(view, view == cpu->views.kernel);
    view->window_blocks += *seen != stamp;
    *seen = stamp;
}

/* The guest is told that the page is missing: when the view is next in use, it will be there, and is mapped at once. */
void cpu_window_await(struct cpu *cpu, uint64_t linear);

/* Whether something was flushed while code of the window may still be under way. */
static inline bool cpu_window_is_outdated(const struct view *view) {
    return view->window && (view->window_is_stale || view->dropped_count);
}

#endif
