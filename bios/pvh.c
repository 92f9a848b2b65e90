/* ELF kernels entered by Xen's PVH protocol; see pvh.h. */
#include "bios/pvh.h"

#include "bios/elf_image.h"
#include "bios/entry_state.h"
#include "bios/layout.h"
#include "bios/memory_map.h"

#include <string.h>

#define XEN_ELFNOTE_PHYS32_ENTRY 18
#define START_INFO_MAGIC         UINT32_C(0x336ec578)
#define COMMAND_LINE_MAX         65535

struct pvh_start_info {
    uint32_t magic, version, flags, module_count;
    uint64_t modules, command_line, rsdp, memory_map;
    uint32_t memory_map_count, reserved;
};
struct pvh_module {
    uint64_t address, size, command_line, reserved;
};
struct pvh_memory_map_entry {
    uint64_t base, length;
    uint32_t type, reserved;
};
_Static_assert(sizeof(struct pvh_start_info) == 56, "start_info.h, version 1");
_Static_assert(sizeof(struct pvh_module) == 32, "start_info.h");
_Static_assert(sizeof(struct pvh_memory_map_entry) == 24, "start_info.h");

/* What goes into guest memory in one piece, in front of the command line. */
struct pvh_block {
    struct pvh_start_info info;
    struct pvh_module module;
    struct pvh_memory_map_entry map[MEMORY_MAP_MAX];
    uint64_t gdt[ENTRY_STATE_GDT_SIZE / 8];
};

static bool pvh_load_initrd(struct loader *loader, struct pvh_block *block) {
    if (!loader->request->initrd)
        return true;
    struct loader_wish wish = {0, 4096, LAYOUT_HIGH_MEMORY, LAYOUT_FOUR_GIB, true, "the initrd"};
    struct loader_extent initrd;
    if (!loader_load_file(loader, loader->request->initrd, &wish, 1, &initrd))
        return false;
    block->info.module_count = 1;
    block->module.address = initrd.start;
    block->module.size = initrd.end - initrd.start;
    return true;
}

static void pvh_fill_block(const struct loader *loader, struct pvh_block *block, uint64_t address) {
    struct memory_map_entry map[MEMORY_MAP_MAX];
    struct pvh_start_info *info = &block->info;
    info->magic = START_INFO_MAGIC;
    info->version = 1;
    info->modules = info->module_count ? address + offsetof(struct pvh_block, module) : 0;
    info->command_line = address + sizeof *block;
    info->rsdp = LAYOUT_ACPI_BASE;
    info->memory_map = address + offsetof(struct pvh_block, map);
    info->memory_map_count = memory_map_build(loader->memory, map);
    for (unsigned i = 0; i < info->memory_map_count; i++)
        block->map[i] = (struct pvh_memory_map_entry){map[i].base, map[i].length, map[i].type, 0};
}

/* The start information goes wherever the kernel leaves room, at best into conventional memory as usual. */
static bool pvh_write_info(struct loader *loader, const struct image *kernel, struct pvh_block *block,
                           uint64_t *address) {
    const char *line = loader->request->append ? loader->request->append : "";
    const size_t size = strlen(line) + 1;
    if (size > COMMAND_LINE_MAX)
        return loader_fail(loader, kernel->path, "the command line (-append) has %zu bytes, at most %d fit", size - 1,
                           COMMAND_LINE_MAX - 1);
    const struct loader_wish wish = {sizeof *block + size, 4096,  0x1000,
                                     LAYOUT_FOUR_GIB,      false, "the boot information"};
    if (!loader_place(loader, &wish, address))
        return loader_fail(loader, kernel->path, "no room in memory for the boot information");
    pvh_fill_block(loader, block, *address);
    return loader_write(loader, *address, block, sizeof *block) &&
           loader_write(loader, *address + sizeof *block, line, size);
}

static bool pvh_load_elf(struct loader *loader, const struct image *kernel, const struct elf_image *elf) {
    uint64_t entry, address = 0;
    struct pvh_block block = {.info = {.magic = 0}};
    if (!elf_image_note(elf, "Xen", XEN_ELFNOTE_PHYS32_ENTRY, &entry))
        return loader_fail(
            loader, kernel->path,
            "an ELF file with neither a multiboot header nor a PVH entry note (XEN_ELFNOTE_PHYS32_ENTRY)");
    if (entry >= LAYOUT_FOUR_GIB || !elf_image_covers(elf, entry))
        return loader_fail(loader, kernel->path, "the PVH entry point %#llx is outside of what the file loads",
                           (unsigned long long)entry);
    if (!elf_image_load(loader, elf) || !pvh_load_initrd(loader, &block) ||
        !pvh_write_info(loader, kernel, &block, &address) ||
        !entry_state_protected(loader, address + offsetof(struct pvh_block, gdt), entry))
        return false;
    loader->bsp->gpr[3] = address; /* EBX */
    return true;
}

bool pvh_load(struct loader *loader, const struct image *kernel) {
    struct elf_image elf;
    if (!elf_image_open(loader, kernel, &elf))
        return false;
    const bool is_loaded = pvh_load_elf(loader, kernel, &elf);
    elf_image_close(&elf);
    return is_loaded;
}
