/*
 * How the shadow page tables (memory/view.h) are filled from the guest's page tables and found for an access; what
 * access.c and the translator's slow paths share.
 */
#ifndef CPU_VIEWS_H
#define CPU_VIEWS_H

#include "cpu/access.h"
#include "memory/guest_memory.h"

/* Where a linear address leads. */
struct cpu_place {
    void *host;      /* RAM or ROM; NULL: a device or nothing at `physical` */
    bool is_direct;  /* the host may be accessed as it is; else it is ROM or a page with translated code */
    guest_physical physical;      /* valid unless is_direct */
    struct memory_region *region; /* likewise; NULL for devices */
};

/* An access of up to two pages. */
struct cpu_range {
    struct cpu_place part[2];
    unsigned first_size; /* bytes in part[0] */
    uint64_t linear;
};

/* The view that an access uses: the current one, or the supervisor's for ACCESS_SYSTEM. */
struct view *cpu_view(struct cpu *cpu, unsigned access);
/* Walks the guest's page tables and enters the page into the view. */
enum cpu_result cpu_fill(struct cpu *cpu, uint64_t linear, unsigned access, struct cpu_place *place);
/* From the view, or by cpu_fill. */
enum cpu_result cpu_locate(struct cpu *cpu, uint64_t linear, unsigned access, struct cpu_place *place);
enum cpu_result cpu_locate_range(struct cpu *cpu, uint64_t linear, unsigned size, unsigned access,
                                 struct cpu_range *range);
void cpu_range_read(struct cpu *cpu, const struct cpu_range *range, void *to, unsigned size);
void cpu_range_write(struct cpu *cpu, const struct cpu_range *range, const void *from, unsigned size);
/* Guest memory in a page with MEMORY_CODE was written: queue the code for dropping if it was hit. */
void cpu_code_written(struct cpu *cpu, struct memory_region *region, guest_physical address, unsigned size);
/*
 * Queues translated code of the lines (64 bytes a bit) of a guest-physical page for dropping, before this vCPU runs on.
 * Offset and size of the store in the page, if it was one that may repeat; size 0: it was none.
 */
void cpu_code_stale(struct cpu *cpu, uint64_t page, uint64_t lines, unsigned offset, unsigned size);

/* Where the address leads, whatever the rights, and without touching A bits. False where nothing is mapped. */
bool cpu_walk_debug(struct cpu *cpu, uint64_t linear, guest_physical *physical);

/* The guest-physical page of an instruction fetch, with the rights checked. */
enum cpu_result cpu_fetch_page(struct cpu *cpu, uint64_t linear, uint64_t *physical_page);

#endif
