/*
 * Guest memory and ports as the functions of cpu/ see them: through segments, paging, RAM or devices, with faults as
 * results. All sizes in bytes.
 */
#ifndef CPU_ACCESS_H
#define CPU_ACCESS_H

#include "cpu/cpu.h"

enum cpu_access {
    ACCESS_READ = 0,
    ACCESS_WRITE = 1,
    ACCESS_EXECUTE = 2,
    ACCESS_KIND = 3,
    ACCESS_SYSTEM = 4, /* implicit supervisor access, whatever the CPL: descriptor tables, TSS, pushes to an inner stack */
};

/* By linear address. On a fault nothing was transferred (both pages of a crossing are checked first). */
enum cpu_result cpu_read_linear(struct cpu *cpu, uint64_t linear, void *to, unsigned size, unsigned access);
enum cpu_result cpu_write_linear(struct cpu *cpu, uint64_t linear, const void *from, unsigned size, unsigned access);
/* CPU_NEXT when such an access would succeed (A and D bits are set as by the access). */
enum cpu_result cpu_probe_linear(struct cpu *cpu, uint64_t linear, unsigned size, unsigned access);

/* Segmentation alone: limit, type, canonical form. #SS for the stack segment, #GP else; *linear is set in any case. */
enum cpu_result cpu_linear(struct cpu *cpu, unsigned segment, uint64_t offset, unsigned size, unsigned access,
                           uint64_t *linear);

/* #AC, where alignment is checked (SDM vol. 3A, 6.15, interrupt 17), unless the access is a page fault first. */
enum cpu_result cpu_check_alignment(struct cpu *cpu, uint64_t linear, unsigned size, unsigned access);

/* By segment and offset with the current CPL. */
enum cpu_result cpu_read(struct cpu *cpu, unsigned segment, uint64_t offset, void *to, unsigned size);
enum cpu_result cpu_write(struct cpu *cpu, unsigned segment, uint64_t offset, const void *from, unsigned size);

/* Like cpu_read/cpu_write of up to 8 bytes as a little-endian integer. */
enum cpu_result cpu_read_integer(struct cpu *cpu, unsigned segment, uint64_t offset, unsigned size, uint64_t *value);
enum cpu_result cpu_write_integer(struct cpu *cpu, unsigned segment, uint64_t offset, unsigned size, uint64_t value);

/*
 * A host pointer for up to *length bytes at linear, cut at the page's end (*length is lowered). NULL with CPU_NEXT: not
 * plain memory (a device, a page with translated code for writes, a watchpoint): use the functions above. For string
 * instructions. The pointer is good until the caller returns to translated code.
 */
enum cpu_result cpu_host_pointer(struct cpu *cpu, uint64_t linear, unsigned access, size_t *length, void **pointer);

/* Guest-physical, for page tables; aligned, 4 or 8 bytes; absent memory reads as all ones. */
uint64_t cpu_physical_read(struct cpu *cpu, guest_physical address, unsigned size);
/* Sets bits of a page-table entry if it still has the value `expected`, atomically; false when it has changed. */
bool cpu_physical_set_bits(struct cpu *cpu, guest_physical address, unsigned size, uint64_t expected, uint64_t bits);

/* Ports, without any permission check; size 1, 2, 4. Calls out to the devices. */
uint64_t cpu_port_read(struct cpu *cpu, uint16_t port, unsigned size);
void cpu_port_write(struct cpu *cpu, uint16_t port, unsigned size, uint64_t value);

/* Paging: the physical page and rights of a linear address. */
struct cpu_translation {
    guest_physical physical; /* of the address itself */
    uint8_t page_shift;      /* 12, 21, 22, 30: size of the page that maps it */
    bool writable, user, executable, global, dirty;
};
/*
 * Walks the guest's page tables, sets A (and D for ACCESS_WRITE) and checks the access for the current CPL, CR0.WP,
 * SMEP, SMAP, EFLAGS.AC. CPU_FAULT: #PF with its error code is in cpu->exception. The rights in *translation are
 * those of all levels together: `writable` and `dirty` say whether a later write needs no walk.
 */
enum cpu_result cpu_walk(struct cpu *cpu, uint64_t linear, unsigned access, struct cpu_translation *translation);

/*
 * Walks without setting or checking anything but that the page is present, allowed for reading at the current CPL, and
 * marked as accessed at every level.
 */
bool cpu_walk_look(struct cpu *cpu, uint64_t linear, struct cpu_translation *translation);

/* Paging structures changed: drop cached translations. */
void cpu_flush_page(struct cpu *cpu, uint64_t linear);      /* INVLPG */
void cpu_flush_address_space(struct cpu *cpu, bool keep_global); /* CR3 load: of the current PCID */
void cpu_flush_all(struct cpu *cpu);                         /* CR0.PG/CR4.PGE/EFER changes: global ones too */

#endif
