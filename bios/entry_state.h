/*
 * The state in which a kernel is entered without a BIOS: flat segments, interrupts off. 32-bit protected mode without
 * paging (Linux boot.rst "32-bit boot protocol", Multiboot 0.6.96 section 3.2, Xen's PVH document), or 64-bit mode
 * under an identity map of the first 4 GiB (boot.rst "64-bit boot protocol").
 */
#ifndef BIOS_ENTRY_STATE_H
#define BIOS_ENTRY_STATE_H

#include "bios/loader.h"

/* Selectors as Linux's protocol wants them: __BOOT_CS and __BOOT_DS. */
enum { ENTRY_STATE_CODE = 0x10, ENTRY_STATE_DATA = 0x18, ENTRY_STATE_TASK = 0x20 };

/* Both fill loader->bsp; the general registers but RIP are zero. The GDT is already claimed by the caller. */
bool entry_state_protected(struct loader *loader, uint64_t gdt, uint64_t rip);
bool entry_state_long(struct loader *loader, uint64_t gdt, uint64_t page_tables, uint64_t rip);

#define ENTRY_STATE_GDT_SIZE         40
#define ENTRY_STATE_PAGE_TABLES_SIZE (6 * 4096)

#endif
