/* The guest's memory as firmware reports it; see memory_map.h. */
#include "bios/memory_map.h"

#include "bios/layout.h"

unsigned memory_map_build(const struct boot_memory *memory, struct memory_map_entry entries[MEMORY_MAP_MAX]) {
    unsigned count = 0;
    entries[count++] = (struct memory_map_entry){0, LAYOUT_EBDA_BASE, MEMORY_MAP_RAM};
    entries[count++] =
        (struct memory_map_entry){LAYOUT_EBDA_BASE, LAYOUT_VIDEO_BASE - LAYOUT_EBDA_BASE, MEMORY_MAP_RESERVED};
    entries[count++] =
        (struct memory_map_entry){LAYOUT_BIOS_BASE, LAYOUT_HIGH_MEMORY - LAYOUT_BIOS_BASE, MEMORY_MAP_RESERVED};
    if (memory->ram_below_4g > LAYOUT_HIGH_MEMORY)
        entries[count++] =
            (struct memory_map_entry){LAYOUT_HIGH_MEMORY, memory->ram_below_4g - LAYOUT_HIGH_MEMORY, MEMORY_MAP_RAM};
    if (memory->ram_above_4g > 0)
        entries[count++] = (struct memory_map_entry){LAYOUT_FOUR_GIB, memory->ram_above_4g, MEMORY_MAP_RAM};
    return count;
}
