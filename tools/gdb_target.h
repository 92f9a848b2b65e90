/*
 * The machine as a debugger sees it: vCPUs as threads 1, 2, ... that stop and go together, memory by virtual address,
 * breakpoints and watchpoints that the guest never sees, single step.
 */
#ifndef TOOLS_GDB_TARGET_H
#define TOOLS_GDB_TARGET_H

#include "trapeze/trapeze.h"

struct pc;
struct runner;

/* As trapeze_vcpu_set_debug limits them. */
enum { GDB_BREAKPOINTS_MAX = 64, GDB_VCPUS_MAX = 255 };

/* The numbers of the Z packets. */
enum gdb_break { GDB_BREAK_SOFTWARE, GDB_BREAK_HARDWARE, GDB_WATCH_WRITE, GDB_WATCH_READ, GDB_WATCH_ACCESS };

struct gdb_breakpoint {
    enum gdb_break type;
    uint64_t linear, length;
};

enum gdb_action { GDB_STAY, GDB_CONTINUE, GDB_STEP };

struct gdb_target {
    struct pc *pc;
    struct runner *runner;
    unsigned vcpu_count;
    struct gdb_breakpoint breakpoints[GDB_BREAKPOINTS_MAX];
    unsigned breakpoint_count;
    enum gdb_action actions[GDB_VCPUS_MAX]; /* what each vCPU was last told */
    bool steps_over[GDB_VCPUS_MAX];         /* first goes one instruction past a breakpoint where it stands */
};

void gdb_target_init(struct gdb_target *target, struct pc *pc, struct runner *runner);

/* False where a vCPU does not stop. */
bool gdb_target_pause(struct gdb_target *target);
/* As target->actions say. All vCPUs are paused. False where the engine refuses the breakpoints. */
bool gdb_target_go(struct gdb_target *target);
/* Breakpoints and steps are forgotten; all vCPUs will continue. They are paused. */
void gdb_target_forget(struct gdb_target *target);
/* A vCPU has stopped. True when that was the step past a breakpoint: the machine goes on and nothing is to be told. */
bool gdb_target_stepped_over(struct gdb_target *target, unsigned index, const struct trapeze_exit *exit);

/* False when there are too many, or there is none like it. */
bool gdb_target_insert(struct gdb_target *target, enum gdb_break type, uint64_t linear, uint64_t length);
bool gdb_target_remove(struct gdb_target *target, enum gdb_break type, uint64_t linear, uint64_t length);
/* The breakpoint that covers an address; NULL: none. */
const struct gdb_breakpoint *gdb_target_breakpoint_at(const struct gdb_target *target, bool is_watch, uint64_t linear);

/* Through the page tables of vCPU `index`; how many bytes there were before the first that is not in memory. */
size_t gdb_target_read(struct gdb_target *target, unsigned index, uint64_t linear, void *to, size_t length);
size_t gdb_target_write(struct gdb_target *target, unsigned index, uint64_t linear, const void *from, size_t length);

#endif
