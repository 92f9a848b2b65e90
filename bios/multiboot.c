/* Multiboot 1; see multiboot.h. Sections are those of the Multiboot Specification 0.6.96. */
#include "bios/multiboot.h"

#include "bios/elf_image.h"
#include "bios/entry_state.h"
#include "bios/layout.h"
#include "bios/memory_map.h"

#include <stdlib.h>
#include <string.h>

#define MULTIBOOT_SEARCH      8192 /* the header lies within so many bytes (3.1) */
#define MULTIBOOT_MAGIC       UINT32_C(0x1badb002)
#define MULTIBOOT_BOOTED      UINT32_C(0x2badb002)
#define MULTIBOOT_MODULES_MAX 64
#define MULTIBOOT_STRINGS_MAX 65536

enum {
    WANTS_VIDEO_MODE = 1 << 2,
    MUST_KNOW = 0xffff, /* flags that a loader has to understand (3.1.2) */
    KNOWN = 1 << 0 | 1 << 1 | WANTS_VIDEO_MODE,
    HAS_ADDRESSES = 1 << 16,
};

enum {
    INFO_MEMORY = 1 << 0,
    INFO_COMMAND_LINE = 1 << 2,
    INFO_MODULES = 1 << 3,
    INFO_MEMORY_MAP = 1 << 6,
    INFO_LOADER_NAME = 1 << 9,
};

struct multiboot_header {
    uint32_t magic, flags, checksum;
    uint32_t header_address, load_address, load_end_address, bss_end_address, entry_address;
};

struct multiboot_info {
    uint32_t flags, memory_lower, memory_upper, boot_device, command_line, module_count, modules;
    uint32_t symbols[4], memory_map_length, memory_map, drives_length, drives, config_table, loader_name;
    uint32_t apm_table, vbe[4];
};
_Static_assert(sizeof(struct multiboot_info) == 88, "3.3");

struct multiboot_module {
    uint32_t start, end, string, reserved;
};

struct __attribute__((packed)) multiboot_memory {
    uint32_t size; /* of what follows */
    uint64_t base, length;
    uint32_t type;
};

/* What goes into guest memory in one piece; `strings` is filled up to strings_used. */
struct multiboot_block {
    struct multiboot_info info;
    struct multiboot_module modules[MULTIBOOT_MODULES_MAX];
    struct multiboot_memory map[MEMORY_MAP_MAX];
    uint64_t gdt[ENTRY_STATE_GDT_SIZE / 8];
    char strings[MULTIBOOT_STRINGS_MAX];
};

struct multiboot {
    struct loader *loader;
    const struct image *kernel;
    struct multiboot_header header;
    uint64_t header_offset;
    uint64_t entry, end; /* the kernel's entry point and the end of all that is loaded so far */
    size_t strings_used;
    struct multiboot_block *block;
};

/* Finds the header: magic, flags and checksum add up to zero, at a multiple of four. */
static bool multiboot_find(const struct image *kernel, uint64_t *offset, struct multiboot_header *header) {
    uint32_t words[MULTIBOOT_SEARCH / 4];
    const size_t length = kernel->size < sizeof words ? (size_t)kernel->size & ~(size_t)3 : sizeof words;
    if (!image_read(kernel, 0, words, length))
        return false;
    for (size_t i = 0; i + 3 <= length / 4; i++) {
        if (words[i] != MULTIBOOT_MAGIC || words[i] + words[i + 1] + words[i + 2] != 0)
            continue;
        memset(header, 0, sizeof *header);
        const size_t left = length - i * 4;
        memcpy(header, words + i, left < sizeof *header ? left : sizeof *header);
        *offset = i * 4;
        return true;
    }
    return false;
}

bool multiboot_matches(const struct image *kernel) {
    uint64_t offset;
    struct multiboot_header header;
    return multiboot_find(kernel, &offset, &header);
}

/* The image's place by the header's address fields (3.1.3). */
static bool multiboot_load_flat(struct multiboot *mb) {
    const struct multiboot_header *header = &mb->header;
    const char *path = mb->kernel->path;
    if (!image_contains(mb->kernel, mb->header_offset, sizeof *header))
        return loader_fail(mb->loader, path, "the file is truncated in its multiboot header");
    const uint64_t before = (uint64_t)header->header_address - header->load_address;
    if (header->load_address > header->header_address || before > mb->header_offset)
        return loader_fail(mb->loader, path,
                           "the multiboot header's load address %#x does not match its own address %#x",
                           header->load_address, header->header_address);
    const uint64_t offset = mb->header_offset - before;
    uint64_t size = mb->kernel->size - offset;
    if (header->load_end_address != 0) {
        if (header->load_end_address < header->load_address)
            return loader_fail(mb->loader, path, "the multiboot header's load end is below its load address");
        if (header->load_end_address - header->load_address > size)
            return loader_fail(mb->loader, path,
                               "the file is truncated: the multiboot header tells of %u bytes to load",
                               header->load_end_address - header->load_address);
        size = header->load_end_address - header->load_address;
    }
    const uint64_t load_end = header->load_address + size;
    mb->end = header->bss_end_address > load_end ? header->bss_end_address : load_end;
    mb->entry = header->entry_address;
    if (mb->entry < header->load_address || mb->entry >= mb->end)
        return loader_fail(mb->loader, path, "the multiboot entry point %#x is outside of what the file loads",
                           header->entry_address);
    return loader_take(mb->loader, path, &(struct loader_extent){header->load_address, mb->end, "the kernel"}) &&
           loader_copy(mb->loader, mb->kernel, offset, header->load_address, size) &&
           loader_zero(mb->loader, load_end, mb->end - load_end);
}

static bool multiboot_load_elf(struct multiboot *mb) {
    struct elf_image elf;
    if (!elf_image_matches(mb->kernel))
        return loader_fail(mb->loader, mb->kernel->path,
                           "a multiboot kernel that is no ELF file and has no load addresses");
    if (!elf_image_open(mb->loader, mb->kernel, &elf))
        return false;
    mb->entry = elf_image_physical(&elf, elf.entry);
    bool is_loaded = elf_image_load(mb->loader, &elf);
    if (is_loaded && (mb->entry >= LAYOUT_FOUR_GIB || !elf_image_covers(&elf, mb->entry)))
        is_loaded = loader_fail(mb->loader, mb->kernel->path, "the entry point %#llx is outside of what the file loads",
                                (unsigned long long)elf.entry);
    elf_image_close(&elf);
    for (unsigned i = 0; i < mb->loader->taken_count; i++)
        if (mb->loader->taken[i].end > mb->end && mb->loader->taken[i].end <= LAYOUT_FOUR_GIB)
            mb->end = mb->loader->taken[i].end;
    return is_loaded;
}

static bool multiboot_load_kernel(struct multiboot *mb) {
    const uint32_t unknown = mb->header.flags & MUST_KNOW & ~(uint32_t)KNOWN;
    if (unknown)
        return loader_fail(mb->loader, mb->kernel->path,
                           "the multiboot header demands features that are not known (%#x)", unknown);
    return mb->header.flags & HAS_ADDRESSES ? multiboot_load_flat(mb) : multiboot_load_elf(mb);
}

/* Appends to the block's strings; returns the place within the block, for multiboot_relocate. */
static bool multiboot_add_string(struct multiboot *mb, const char *first, size_t first_length, const char *second,
                                 uint32_t *place) {
    char *strings = mb->block->strings;
    const size_t second_length = second ? strlen(second) + 1 : 0;
    if (first_length + second_length + 1 > MULTIBOOT_STRINGS_MAX - mb->strings_used)
        return loader_fail(mb->loader, mb->kernel->path,
                           "the command lines of kernel and modules together exceed %d bytes", MULTIBOOT_STRINGS_MAX);
    *place = (uint32_t)(offsetof(struct multiboot_block, strings) + mb->strings_used);
    memcpy(strings + mb->strings_used, first, first_length);
    mb->strings_used += first_length;
    if (second) {
        strings[mb->strings_used] = ' ';
        memcpy(strings + mb->strings_used + 1, second, second_length - 1);
        mb->strings_used += second_length;
    }
    strings[mb->strings_used++] = 0;
    return true;
}

/* One "file args"; `text` is the caller's to change and has the whole string. Modules follow the kernel on pages. */
static bool multiboot_load_module(struct multiboot *mb, char *text) {
    struct loader *loader = mb->loader;
    if (mb->block->info.module_count == MULTIBOOT_MODULES_MAX)
        return loader_fail(loader, loader->request->initrd, "more than %d modules (-initrd)", MULTIBOOT_MODULES_MAX);
    struct multiboot_module *module = &mb->block->modules[mb->block->info.module_count++];
    if (!multiboot_add_string(mb, text, strlen(text), NULL, &module->string))
        return false;
    text[strcspn(text, " ")] = 0;
    if (!*text)
        return loader_fail(loader, "-initrd", "a module without a file name");
    struct loader_wish wish = {0, 4096, mb->end, LAYOUT_FOUR_GIB, false, "the module"};
    struct loader_extent placed;
    if (!loader_load_file(loader, text, &wish, 1, &placed))
        return false;
    module->start = (uint32_t)placed.start;
    module->end = (uint32_t)placed.end;
    mb->end = placed.end;
    return true;
}

/* Cuts the next part off a list where "," separates and ",," is a comma; NULL at the end. */
static char *multiboot_next_part(char **rest) {
    char *part = *rest, *to = part;
    if (!part)
        return NULL;
    for (char *from = part;; from++) {
        const bool is_doubled = from[0] == ',' && from[1] == ',';
        if (*from == 0 || (*from == ',' && !is_doubled)) {
            *rest = *from ? from + 1 : NULL;
            *to = 0;
            return part;
        }
        from += is_doubled;
        *to++ = *from;
    }
}

static bool multiboot_load_modules(struct multiboot *mb) {
    if (!mb->loader->request->initrd)
        return true;
    char *list = strdup(mb->loader->request->initrd);
    if (!list)
        return loader_fail(mb->loader, mb->kernel->path, "no memory for the list of modules");
    char *rest = list;
    bool is_loaded = true;
    for (char *part; is_loaded && (part = multiboot_next_part(&rest));)
        is_loaded = multiboot_load_module(mb, part);
    free(list);
    return is_loaded;
}

static void multiboot_fill_info(struct multiboot *mb, uint64_t base) {
    struct multiboot_block *block = mb->block;
    struct multiboot_info *info = &block->info;
    struct memory_map_entry map[MEMORY_MAP_MAX];
    const unsigned map_count = memory_map_build(mb->loader->memory, map);
    for (unsigned i = 0; i < map_count; i++)
        block->map[i] = (struct multiboot_memory){sizeof block->map[i] - 4, map[i].base, map[i].length, map[i].type};
    for (unsigned i = 0; i < info->module_count; i++)
        block->modules[i].string += (uint32_t)base;
    info->flags = INFO_MEMORY | INFO_COMMAND_LINE | INFO_MODULES | INFO_MEMORY_MAP | INFO_LOADER_NAME;
    info->memory_lower = LAYOUT_EBDA_BASE >> 10;
    info->memory_upper = (uint32_t)((mb->loader->memory->ram_below_4g - LAYOUT_HIGH_MEMORY) >> 10);
    info->modules = (uint32_t)(base + offsetof(struct multiboot_block, modules));
    info->memory_map = (uint32_t)(base + offsetof(struct multiboot_block, map));
    info->memory_map_length = (uint32_t)(map_count * sizeof block->map[0]);
    info->command_line += (uint32_t)base;
    info->loader_name += (uint32_t)base;
}

/* In conventional memory where the kernel left room, else behind the modules. */
static bool multiboot_write_info(struct multiboot *mb, uint64_t *base) {
    static const char name[] = "trapeze";
    struct multiboot_info *info = &mb->block->info;
    const char *append = mb->loader->request->append;
    if (!multiboot_add_string(mb, mb->kernel->path, strlen(mb->kernel->path), append ? append : "",
                              &info->command_line) ||
        !multiboot_add_string(mb, name, sizeof name - 1, NULL, &info->loader_name))
        return false;
    const size_t size = offsetof(struct multiboot_block, strings) + mb->strings_used;
    const struct loader_wish wish = {size, 4096, 0x9000, LAYOUT_FOUR_GIB, false, "the boot information"};
    if (!loader_place(mb->loader, &wish, base))
        return loader_fail(mb->loader, mb->kernel->path, "no room in memory for the boot information");
    multiboot_fill_info(mb, *base);
    return loader_write(mb->loader, *base, mb->block, size);
}

static bool multiboot_load_all(struct multiboot *mb) {
    uint64_t base;
    if (!multiboot_load_kernel(mb) || !multiboot_load_modules(mb) || !multiboot_write_info(mb, &base) ||
        !entry_state_protected(mb->loader, base + offsetof(struct multiboot_block, gdt), mb->entry))
        return false;
    mb->loader->bsp->gpr[0] = MULTIBOOT_BOOTED;
    mb->loader->bsp->gpr[3] = base; /* EBX */
    return true;
}

bool multiboot_load(struct loader *loader, const struct image *kernel) {
    struct multiboot mb = {.loader = loader, .kernel = kernel};
    if (!multiboot_find(kernel, &mb.header_offset, &mb.header))
        return loader_fail(loader, kernel->path, "the multiboot header cannot be read");
    mb.block = calloc(1, sizeof *mb.block);
    if (!mb.block)
        return loader_fail(loader, kernel->path, "no memory for the boot information");
    const bool is_loaded = multiboot_load_all(&mb);
    free(mb.block);
    return is_loaded;
}
