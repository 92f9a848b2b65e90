/* The state in which a kernel is entered without a BIOS; see entry_state.h. */
#include "bios/entry_state.h"

#include <string.h>

enum {
    CR0_PE = 1u << 0,
    CR0_ET = 1u << 4,
    CR0_PG = 1u << 31,
    CR4_PAE = 1u << 5,
    EFER_LME = 1u << 8,
    EFER_LMA = 1u << 10,
    XCR0_X87 = 1,
    RFLAGS_FIXED = 2,
};

/* Attributes in the VMX layout: accessed read/execute and read/write segments of 4 GiB, a busy 32-bit TSS, an LDT. */
enum {
    CODE_32 = 0xc09b,
    CODE_64 = 0xa09b,
    DATA_32 = 0xc093,
    TASK_32 = 0x008b,
    TABLE_LDT = 0x0082,
};

/* A descriptor (SDM vol. 3A, 3.4.5) of base 0 from its VMX attributes; limit in the descriptor's own unit. */
static uint64_t entry_state_descriptor(uint32_t attributes, uint32_t limit) {
    const uint64_t low_byte = attributes & 0xff, flags = attributes >> 12 & 0xf;
    return (limit & 0xffff) | (uint64_t)(limit >> 16 & 0xf) << 48 | low_byte << 40 | flags << 52;
}

static bool entry_state_gdt(struct loader *loader, uint64_t gdt, uint32_t code) {
    const uint64_t descriptors[ENTRY_STATE_GDT_SIZE / 8] = {
        [ENTRY_STATE_CODE / 8] = entry_state_descriptor(code, 0xfffff),
        [ENTRY_STATE_DATA / 8] = entry_state_descriptor(DATA_32, 0xfffff),
        [ENTRY_STATE_TASK / 8] = entry_state_descriptor(TASK_32, 0x67),
    };
    return loader_write(loader, gdt, descriptors, sizeof descriptors);
}

static void entry_state_common(struct trapeze_registers *bsp, uint64_t gdt, uint64_t rip, uint32_t code) {
    memset(bsp, 0, sizeof *bsp);
    const struct trapeze_segment data = {.limit = 0xffffffff, .selector = ENTRY_STATE_DATA, .attributes = DATA_32};
    for (unsigned i = 0; i < TRAPEZE_SEGMENTS; i++)
        bsp->segment[i] = data;
    bsp->segment[TRAPEZE_CS] =
        (struct trapeze_segment){.limit = 0xffffffff, .selector = ENTRY_STATE_CODE, .attributes = code};
    bsp->tr = (struct trapeze_segment){.limit = 0x67, .selector = ENTRY_STATE_TASK, .attributes = TASK_32};
    bsp->ldtr = (struct trapeze_segment){.limit = 0xffff, .attributes = TABLE_LDT};
    bsp->gdtr.base = gdt;
    bsp->gdtr.limit = ENTRY_STATE_GDT_SIZE - 1;
    bsp->idtr.limit = 0x3ff; /* the real-mode table, for a kernel that goes back there */
    bsp->rip = rip;
    bsp->rflags = RFLAGS_FIXED;
    bsp->cr0 = CR0_PE | CR0_ET;
    bsp->xcr0 = XCR0_X87;
    bsp->dr[6] = 0xffff0ff0;
    bsp->dr[7] = 0x400;
}

bool entry_state_protected(struct loader *loader, uint64_t gdt, uint64_t rip) {
    entry_state_common(loader->bsp, gdt, rip, CODE_32);
    return entry_state_gdt(loader, gdt, CODE_32);
}

/* 4 GiB in 2 MiB pages: one PML4 entry, four page directories. */
static bool entry_state_identity_map(struct loader *loader, uint64_t root) {
    enum { PRESENT = 1, WRITABLE = 2, LARGE = 0x80, ENTRIES = 512, DIRECTORIES = 4 };
    uint64_t table[ENTRIES] = {(root + 0x1000) | PRESENT | WRITABLE};
    if (!loader_write(loader, root, table, sizeof table))
        return false;
    for (uint64_t i = 0; i < DIRECTORIES; i++)
        table[i] = (root + 0x2000 + i * 0x1000) | PRESENT | WRITABLE;
    if (!loader_write(loader, root + 0x1000, table, sizeof table))
        return false;
    for (uint64_t directory = 0; directory < DIRECTORIES; directory++) {
        for (uint64_t i = 0; i < ENTRIES; i++)
            table[i] = (directory * ENTRIES + i) << 21 | PRESENT | WRITABLE | LARGE;
        if (!loader_write(loader, root + 0x2000 + directory * 0x1000, table, sizeof table))
            return false;
    }
    return true;
}

bool entry_state_long(struct loader *loader, uint64_t gdt, uint64_t page_tables, uint64_t rip) {
    entry_state_common(loader->bsp, gdt, rip, CODE_64);
    loader->bsp->cr0 |= CR0_PG;
    loader->bsp->cr3 = page_tables;
    loader->bsp->cr4 = CR4_PAE;
    loader->bsp->efer = EFER_LME | EFER_LMA;
    return entry_state_gdt(loader, gdt, CODE_64) && entry_state_identity_map(loader, page_tables);
}
