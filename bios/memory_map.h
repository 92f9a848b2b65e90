/*
 * The guest's memory as firmware reports it: BIOS interrupt 15h, function E820h (ACPI 6.5, 15.1). Linux's zero page,
 * PVH and multiboot each have a table of the same triples.
 */
#ifndef BIOS_MEMORY_MAP_H
#define BIOS_MEMORY_MAP_H

#include "bios/boot.h"

enum memory_map_type { MEMORY_MAP_RAM = 1, MEMORY_MAP_RESERVED = 2 };

struct memory_map_entry {
    uint64_t base, length;
    uint32_t type;
};

#define MEMORY_MAP_MAX 5

/* Fills in the entries in order of address and returns their number. */
unsigned memory_map_build(const struct boot_memory *memory, struct memory_map_entry entries[MEMORY_MAP_MAX]);

#endif
