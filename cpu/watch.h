/* Data breakpoints of the guest's debug registers and of the debugger; see watch.c. */
#ifndef CPU_WATCH_H
#define CPU_WATCH_H

#include "cpu/cpu.h"

/* Whether any data breakpoint lies in the page of the linear address. */
bool cpu_watches_page(const struct cpu *cpu, uint64_t linear);
/* Notes the breakpoints that an access hits, in cpu->watch_hits and cpu->debug. */
void cpu_watch_access(struct cpu *cpu, uint64_t linear, unsigned size, bool is_write);

static inline bool cpu_is_watching(const struct cpu *cpu) {
    return (cpu->dr[7] & 0xff) || cpu->debug.count;
}

#endif
