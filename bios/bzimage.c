/* Linux bzImage; see bzimage.h. Offsets are those of the setup header, the same in the file and in the zero page. */
#include "bios/bzimage.h"

#include "bios/entry_state.h"
#include "bios/layout.h"
#include "bios/memory_map.h"

#include <string.h>

enum {
    /* struct boot_params outside the setup header */
    ZP_EXT_MEM_K = 0x002,
    ZP_RSDP = 0x070,
    ZP_EXT_RAMDISK_IMAGE = 0x0c0,
    ZP_ALT_MEM_K = 0x1e0,
    ZP_E820_ENTRIES = 0x1e8,
    ZP_E820_TABLE = 0x2d0,
    ZP_E820_ENTRY_SIZE = 20,
    ZP_SIZE = 4096,
    /* setup header */
    HEADER_START = 0x1f1,
    HEADER_END_MAX = 0x290, /* room in struct boot_params */
    SETUP_SECTS = 0x1f1,
    SYSSIZE = 0x1f4,
    VID_MODE = 0x1fa,
    BOOT_FLAG = 0x1fe,
    JUMP_OFFSET = 0x201,
    HEADER_MAGIC = 0x202,
    VERSION = 0x206,
    TYPE_OF_LOADER = 0x210,
    LOADFLAGS = 0x211,
    CODE32_START = 0x214,
    RAMDISK_IMAGE = 0x218,
    RAMDISK_SIZE = 0x21c,
    HEAP_END_PTR = 0x224,
    CMD_LINE_PTR = 0x228,
    INITRD_ADDR_MAX = 0x22c,
    KERNEL_ALIGNMENT = 0x230,
    RELOCATABLE_KERNEL = 0x234,
    XLOADFLAGS = 0x236,
    CMDLINE_SIZE = 0x238,
    PREF_ADDRESS = 0x258,
    INIT_SIZE = 0x260,
    HEADER_END = 0x264, /* as far as this file reads */

    LOADED_HIGH = 1,
    CAN_USE_HEAP = 0x80,
    XLF_KERNEL_64 = 1,
    XLF_CAN_BE_LOADED_ABOVE_4G = 2,
    ENTRY_64 = 0x200, /* the 64-bit entry's offset in the protected-mode part */
    VID_MODE_NORMAL = 0xffff,
    LOADER_UNDEFINED = 0xff,
    SECTOR = 512,
};
#define HDRS_MAGIC UINT32_C(0x53726448) /* "HdrS" */

struct bzimage {
    uint8_t zero_page[ZP_SIZE]; /* the file's setup header is copied into it first and read from there */
    uint16_t version;
    uint64_t payload_offset, payload_size;
    uint64_t load_address;
    bool is_entered_in_long_mode;
};

static uint32_t bzimage_get(const struct bzimage *bz, unsigned offset, unsigned size) {
    uint32_t value = 0;
    memcpy(&value, bz->zero_page + offset, size);
    return value;
}

static void bzimage_put(struct bzimage *bz, unsigned offset, unsigned size, uint64_t value) {
    memcpy(bz->zero_page + offset, &value, size);
}

/* A field that came with a version of the protocol, or what older kernels mean by not having it. */
static uint32_t bzimage_field(const struct bzimage *bz, unsigned offset, unsigned size, uint16_t since,
                              uint32_t otherwise) {
    return bz->version >= since ? bzimage_get(bz, offset, size) : otherwise;
}

bool bzimage_matches(const struct image *kernel) {
    uint32_t magic;
    return image_read(kernel, HEADER_MAGIC, &magic, sizeof magic) && magic == HDRS_MAGIC;
}

static bool bzimage_read_header(struct loader *loader, const struct image *kernel, struct bzimage *bz) {
    if (!image_contains(kernel, 0, HEADER_END))
        return loader_fail(loader, kernel->path, "the bzImage is truncated in its setup header");
    uint8_t *header = bz->zero_page;
    if (!image_read(kernel, HEADER_START, header + HEADER_START, HEADER_END - HEADER_START))
        return loader_fail(loader, kernel->path, "the setup header cannot be read");
    /* The byte before the magic is the distance of a short jump over the header, that is where it ends. */
    unsigned end = HEADER_MAGIC + header[JUMP_OFFSET];
    if (end > HEADER_END_MAX)
        end = HEADER_END_MAX;
    if (end > HEADER_END && !image_read(kernel, HEADER_END, header + HEADER_END, end - HEADER_END))
        return loader_fail(loader, kernel->path, "the bzImage is truncated in its setup header");
    if (end < HEADER_END)
        memset(header + end, 0, HEADER_END - end);

    bz->version = (uint16_t)bzimage_get(bz, VERSION, 2);
    if (bzimage_get(bz, BOOT_FLAG, 2) != 0xaa55)
        return loader_fail(loader, kernel->path, "the bzImage has no boot signature (AA55h)");
    if (bz->version < 0x202)
        return loader_fail(loader, kernel->path, "boot protocol %u.%02u is too old, 2.02 is needed", bz->version >> 8,
                           bz->version & 0xff);
    if (!(bzimage_get(bz, LOADFLAGS, 1) & LOADED_HIGH))
        return loader_fail(loader, kernel->path, "a zImage, which is loaded below 1 MiB, is not supported");
    return true;
}

static bool bzimage_find_payload(struct loader *loader, const struct image *kernel, struct bzimage *bz) {
    const unsigned setup_sects = bzimage_get(bz, SETUP_SECTS, 1);
    bz->payload_offset = (uint64_t)(setup_sects ? setup_sects + 1 : 5) * SECTOR;
    if (kernel->size <= bz->payload_offset)
        return loader_fail(loader, kernel->path,
                           "the bzImage is truncated: %llu bytes, and its setup part alone has %llu",
                           (unsigned long long)kernel->size, (unsigned long long)bz->payload_offset);
    bz->payload_size = kernel->size - bz->payload_offset;
    /* Before 2.04 only the low half of the size was there, and is not to be relied on. */
    const uint64_t told = (uint64_t)bzimage_field(bz, SYSSIZE, 4, 0x204, 0) * 16;
    if (told > bz->payload_size)
        return loader_fail(loader, kernel->path, "the bzImage is truncated: %llu bytes of %llu",
                           (unsigned long long)kernel->size, (unsigned long long)(told + bz->payload_offset));
    if (told > 0)
        bz->payload_size = told; /* what follows is a signature */
    bz->is_entered_in_long_mode =
        loader->request->has_long_mode && bzimage_field(bz, XLOADFLAGS, 2, 0x20c, 0) & XLF_KERNEL_64;
    if (bz->is_entered_in_long_mode && bz->payload_size <= ENTRY_64)
        return loader_fail(loader, kernel->path, "the bzImage ends before its 64-bit entry point");
    return true;
}

/*
 * A relocatable kernel goes to its preferred address, since below it it would only move itself there; another goes
 * where its header says, and moves to the preferred one by itself. init_size bytes from there on are its own.
 */
static bool bzimage_place_kernel(struct loader *loader, const struct image *kernel, struct bzimage *bz) {
    const bool is_relocatable = bzimage_field(bz, RELOCATABLE_KERNEL, 1, 0x205, 0) != 0;
    uint64_t preferred = 0;
    if (bz->version >= 0x20a)
        memcpy(&preferred, bz->zero_page + PREF_ADDRESS, sizeof preferred);
    const uint64_t init_size = bzimage_field(bz, INIT_SIZE, 4, 0x20a, 0);
    const uint64_t alignment = bzimage_field(bz, KERNEL_ALIGNMENT, 4, 0x205, 1);
    bz->load_address = bzimage_get(bz, CODE32_START, 4);
    if (is_relocatable) {
        if (alignment == 0 || (alignment & (alignment - 1)) != 0)
            return loader_fail(loader, kernel->path, "kernel_alignment %#llx in the setup header is no power of two",
                               (unsigned long long)alignment);
        const uint64_t wanted = preferred > LAYOUT_HIGH_MEMORY ? preferred : LAYOUT_HIGH_MEMORY;
        bz->load_address = (wanted + alignment - 1) & ~(alignment - 1);
    }
    if (bz->load_address < LAYOUT_HIGH_MEMORY || bz->load_address >= LAYOUT_FOUR_GIB)
        return loader_fail(loader, kernel->path,
                           "the bzImage wants to be loaded at %#llx, which is not between 1 MiB and 4 GiB",
                           (unsigned long long)bz->load_address);
    const bool moves = !is_relocatable && preferred > bz->load_address;
    uint64_t end = bz->load_address + bz->payload_size;
    const uint64_t runtime = moves ? preferred : bz->load_address;
    if (runtime > UINT64_MAX - init_size || end < runtime + init_size)
        end = runtime > UINT64_MAX - init_size ? UINT64_MAX : runtime + init_size;
    bzimage_put(bz, CODE32_START, 4, bz->load_address);
    return loader_take(loader, kernel->path, &(struct loader_extent){bz->load_address, end, "the kernel"});
}

static bool bzimage_load_initrd(struct loader *loader, struct bzimage *bz) {
    if (!loader->request->initrd)
        return true;
    const uint64_t end = (uint64_t)bzimage_field(bz, INITRD_ADDR_MAX, 4, 0x203, 0x37ffffff) + 1;
    struct loader_wish wishes[] = {
        {0, 4096, LAYOUT_HIGH_MEMORY, end, true, "the initrd"},
        {0, 4096, LAYOUT_HIGH_MEMORY, UINT64_MAX, true, "the initrd"},
    };
    const bool is_free_above =
        bz->is_entered_in_long_mode && bzimage_get(bz, XLOADFLAGS, 2) & XLF_CAN_BE_LOADED_ABOVE_4G;
    struct loader_extent initrd;
    if (!loader_load_file(loader, loader->request->initrd, wishes, is_free_above ? 2 : 1, &initrd))
        return false;
    const uint64_t size = initrd.end - initrd.start;
    bzimage_put(bz, RAMDISK_IMAGE, 4, initrd.start);
    bzimage_put(bz, RAMDISK_SIZE, 4, size);
    bzimage_put(bz, ZP_EXT_RAMDISK_IMAGE, 4, initrd.start >> 32);
    bzimage_put(bz, ZP_EXT_RAMDISK_IMAGE + 4, 4, size >> 32);
    return true;
}

static bool bzimage_load_command_line(struct loader *loader, const struct image *kernel, struct bzimage *bz) {
    const char *line = loader->request->append ? loader->request->append : "";
    const size_t length = strlen(line);
    uint64_t limit = bzimage_field(bz, CMDLINE_SIZE, 4, 0x206, 255);
    if (limit > LAYOUT_COMMAND_LINE_MAX - 1)
        limit = LAYOUT_COMMAND_LINE_MAX - 1;
    if (length > limit)
        return loader_fail(loader, kernel->path, "the command line (-append) has %zu bytes, the kernel takes %llu",
                           length, (unsigned long long)limit);
    bzimage_put(bz, CMD_LINE_PTR, 4, LAYOUT_COMMAND_LINE);
    return loader_write(loader, LAYOUT_COMMAND_LINE, line, length + 1);
}

static void bzimage_fill_zero_page(const struct loader *loader, struct bzimage *bz) {
    bzimage_put(bz, TYPE_OF_LOADER, 1, LOADER_UNDEFINED);
    bzimage_put(bz, LOADFLAGS, 1, bzimage_get(bz, LOADFLAGS, 1) | CAN_USE_HEAP);
    bzimage_put(bz, HEAP_END_PTR, 2, 0xfe00);
    bzimage_put(bz, VID_MODE, 2, VID_MODE_NORMAL);
    if (bz->version >= 0x20e)
        bzimage_put(bz, ZP_RSDP, 8, LAYOUT_ACPI_BASE);

    const uint64_t high_k = (loader->memory->ram_below_4g - LAYOUT_HIGH_MEMORY) >> 10;
    bzimage_put(bz, ZP_ALT_MEM_K, 4, high_k);
    bzimage_put(bz, ZP_EXT_MEM_K, 2, high_k < 0xfc00 ? high_k : 0xfc00);
    struct memory_map_entry map[MEMORY_MAP_MAX];
    const unsigned count = memory_map_build(loader->memory, map);
    bzimage_put(bz, ZP_E820_ENTRIES, 1, count);
    for (unsigned i = 0; i < count; i++) {
        const unsigned entry = ZP_E820_TABLE + i * ZP_E820_ENTRY_SIZE;
        bzimage_put(bz, entry, 8, map[i].base);
        bzimage_put(bz, entry + 8, 8, map[i].length);
        bzimage_put(bz, entry + 16, 4, map[i].type);
    }
}

static bool bzimage_enter(struct loader *loader, const struct bzimage *bz) {
    if (bz->is_entered_in_long_mode) {
        if (!entry_state_long(loader, LAYOUT_BOOT_GDT, LAYOUT_PAGE_TABLES, bz->load_address + ENTRY_64))
            return false;
    } else if (!entry_state_protected(loader, LAYOUT_BOOT_GDT, bz->load_address)) {
        return false;
    }
    loader->bsp->gpr[6] = LAYOUT_ZERO_PAGE; /* (R)SI */
    return true;
}

bool bzimage_load(struct loader *loader, const struct image *kernel) {
    struct bzimage bz = {.version = 0};
    if (!bzimage_read_header(loader, kernel, &bz) || !bzimage_find_payload(loader, kernel, &bz) ||
        !bzimage_place_kernel(loader, kernel, &bz) ||
        !loader_copy(loader, kernel, bz.payload_offset, bz.load_address, bz.payload_size) ||
        !bzimage_load_initrd(loader, &bz) || !bzimage_load_command_line(loader, kernel, &bz))
        return false;
    bzimage_fill_zero_page(loader, &bz);
    return loader_write(loader, LAYOUT_ZERO_PAGE, bz.zero_page, sizeof bz.zero_page) && bzimage_enter(loader, &bz);
}
