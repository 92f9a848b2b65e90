/*
 * Data breakpoints: those of DR0 to DR3 (SDM vol. 3B, 17.2) and the debugger's. Pages that hold one never get into the
 * shadow page tables, so every access to them comes by access.c, which asks here.
 */
#include "cpu/watch.h"

enum { DR7_WRITES = 1, DR7_IO = 2, DR7_ACCESSES = 3 };

static unsigned dr7_kind(const struct cpu *cpu, unsigned i) {
    return (unsigned)(cpu->dr[7] >> (16 + 4 * i)) & 3;
}

static bool dr7_enabled(const struct cpu *cpu, unsigned i) {
    return cpu->dr[7] >> (2 * i) & 3;
}

static uint64_t dr7_length(const struct cpu *cpu, unsigned i) {
    static const uint8_t length[] = {1, 2, 8, 4};
    return length[cpu->dr[7] >> (18 + 4 * i) & 3];
}

bool cpu_watches_page(const struct cpu *cpu, uint64_t linear) {
    uint64_t page = linear >> 12;
    for (unsigned i = 0; i < 4; i++)
        if (dr7_enabled(cpu, i) && (dr7_kind(cpu, i) & 1) && cpu->dr[i] >> 12 == page)
            return true;
    for (unsigned i = 0; i < cpu->debug.count; i++) {
        const struct trapeze_breakpoint *point = &cpu->debug.point[i];
        if (point->type != TRAPEZE_BREAK_EXECUTE && page >= point->linear >> 12 &&
            page <= (point->linear + point->length - 1) >> 12)
            return true;
    }
    return false;
}

static bool overlaps(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length) {
    return a - b < b_length || b - a < a_length;
}

void cpu_watch_access(struct cpu *cpu, uint64_t linear, unsigned size, bool is_write) {
    for (unsigned i = 0; i < 4; i++) {
        unsigned kind = dr7_kind(cpu, i);
        uint64_t length = dr7_length(cpu, i);
        if (!dr7_enabled(cpu, i) || !(kind == DR7_ACCESSES || (kind == DR7_WRITES && is_write)))
            continue;
        if (overlaps(linear, size, cpu->dr[i] & ~(length - 1), length))
            cpu->watch_hits |= 1u << i;
    }
    for (unsigned i = 0; i < cpu->debug.count; i++) {
        const struct trapeze_breakpoint *point = &cpu->debug.point[i];
        bool matches = point->type == TRAPEZE_BREAK_ACCESS || point->type == (is_write ? TRAPEZE_BREAK_WRITE
                                                                                        : TRAPEZE_BREAK_READ);
        if (matches && overlaps(linear, size, point->linear, point->length)) {
            cpu->debug.hit = true;
            cpu->debug.hit_address = point->linear;
        }
    }
}
