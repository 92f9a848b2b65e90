/* What the loaders of all kinds share; see loader.h. */
#include "bios/loader.h"

#include "bios/layout.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define LOADER_CHUNK 65536

/* The end of a path says more than its beginning; the reason must stay within the line in any case. */
#define LOADER_PATH_SHOWN 120

bool loader_fail(struct loader *loader, const char *path, const char *reason, ...) {
    char *text = loader->error->text;
    const size_t size = sizeof loader->error->text;
    const size_t length = strlen(path);
    const bool is_long = length > LOADER_PATH_SHOWN;
    const int used =
        snprintf(text, size, "%s%s: ", is_long ? "..." : "", is_long ? path + length - LOADER_PATH_SHOWN : path);
    va_list arguments;
    va_start(arguments, reason);
    vsnprintf(text + used, size - (size_t)used, reason, arguments);
    va_end(arguments);
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < ' ')
            *c = '?';
    return false;
}

bool loader_write(struct loader *loader, uint64_t address, const void *from, size_t length) {
    const struct boot_memory *memory = loader->memory;
    if (length == 0 || memory->write(memory->opaque, guest_physical_at(address), from, length))
        return true;
    return loader_fail(loader, loader->request->kernel, "guest memory at %#llx cannot be written",
                       (unsigned long long)address);
}

bool loader_zero(struct loader *loader, uint64_t address, uint64_t length) {
    static const uint8_t zeros[LOADER_CHUNK];
    while (length > 0) {
        const size_t part = length < LOADER_CHUNK ? (size_t)length : LOADER_CHUNK;
        if (!loader_write(loader, address, zeros, part))
            return false;
        address += part;
        length -= part;
    }
    return true;
}

bool loader_copy(struct loader *loader, const struct image *image, uint64_t offset, uint64_t address, uint64_t length) {
    uint8_t chunk[LOADER_CHUNK];
    while (length > 0) {
        const size_t part = length < LOADER_CHUNK ? (size_t)length : LOADER_CHUNK;
        if (!image_read(image, offset, chunk, part))
            return loader_fail(loader, image->path, "cannot read %zu bytes at offset %llu", part,
                               (unsigned long long)offset);
        if (!loader_write(loader, address, chunk, part))
            return false;
        offset += part;
        address += part;
        length -= part;
    }
    return true;
}

/* The three stretches of RAM that a kernel may be put into. */
static void loader_ram(const struct loader *loader, struct loader_extent ram[3]) {
    ram[0] = (struct loader_extent){0, LAYOUT_EBDA_BASE, NULL};
    ram[1] = (struct loader_extent){LAYOUT_HIGH_MEMORY, loader->memory->ram_below_4g, NULL};
    ram[2] = (struct loader_extent){LAYOUT_FOUR_GIB, LAYOUT_FOUR_GIB + loader->memory->ram_above_4g, NULL};
}

bool loader_is_ram(const struct loader *loader, uint64_t address, uint64_t length) {
    struct loader_extent ram[3];
    loader_ram(loader, ram);
    for (unsigned i = 0; i < 3; i++)
        if (address >= ram[i].start && address <= ram[i].end && length <= ram[i].end - address)
            return true;
    return false;
}

static const struct loader_extent *loader_overlapping(const struct loader *loader, uint64_t start, uint64_t end) {
    for (unsigned i = 0; i < loader->taken_count; i++)
        if (start < loader->taken[i].end && loader->taken[i].start < end)
            return &loader->taken[i];
    return NULL;
}

bool loader_take(struct loader *loader, const char *path, const struct loader_extent *extent) {
    const unsigned long long start = extent->start, end = extent->end;
    if (extent->end < extent->start || !loader_is_ram(loader, extent->start, extent->end - extent->start))
        return loader_fail(loader, path, "%s at %#llx-%#llx does not fit into the guest's %llu MiB of memory",
                           extent->what, start, end,
                           (unsigned long long)((loader->memory->ram_below_4g + loader->memory->ram_above_4g) >> 20));
    const struct loader_extent *other = loader_overlapping(loader, extent->start, extent->end);
    if (other)
        return loader_fail(loader, path, "%s at %#llx-%#llx overlaps %s", extent->what, start, end, other->what);
    if (loader->taken_count == LOADER_EXTENTS_MAX)
        return loader_fail(loader, path, "more than %d pieces to load", LOADER_EXTENTS_MAX);
    loader->taken[loader->taken_count++] = *extent;
    return true;
}

/* The highest place within [low, high), going down from one obstacle to the next. */
static bool loader_search_down(const struct loader *loader, const struct loader_wish *wish, uint64_t low, uint64_t high,
                               uint64_t *address) {
    while (high >= low && wish->size <= high - low) {
        const uint64_t start = (high - wish->size) & ~(wish->alignment - 1);
        if (start < low)
            return false;
        const struct loader_extent *other = loader_overlapping(loader, start, start + wish->size);
        if (!other) {
            *address = start;
            return true;
        }
        high = other->start;
    }
    return false;
}

static bool loader_search_up(const struct loader *loader, const struct loader_wish *wish, uint64_t low, uint64_t high,
                             uint64_t *address) {
    for (;;) {
        const uint64_t start = (low + wish->alignment - 1) & ~(wish->alignment - 1);
        if (start < low || start > high || wish->size > high - start)
            return false;
        const struct loader_extent *other = loader_overlapping(loader, start, start + wish->size);
        if (!other) {
            *address = start;
            return true;
        }
        low = other->end;
    }
}

bool loader_place(struct loader *loader, const struct loader_wish *wish, uint64_t *address) {
    struct loader_extent ram[3];
    loader_ram(loader, ram);
    if (loader->taken_count == LOADER_EXTENTS_MAX)
        return false;
    for (unsigned i = 0; i < 3; i++) {
        const struct loader_extent *range = &ram[wish->is_highest ? 2 - i : i];
        const uint64_t low = range->start > wish->from ? range->start : wish->from;
        const uint64_t high = range->end < wish->to ? range->end : wish->to;
        if (wish->is_highest ? loader_search_down(loader, wish, low, high, address)
                             : loader_search_up(loader, wish, low, high, address)) {
            loader->taken[loader->taken_count++] = (struct loader_extent){*address, *address + wish->size, wish->what};
            return true;
        }
    }
    return false;
}

static bool loader_load_image(struct loader *loader, const struct image *image, struct loader_wish *wishes,
                              unsigned count, struct loader_extent *placed) {
    for (unsigned i = 0; i < count; i++) {
        wishes[i].size = image->size;
        if (!loader_place(loader, &wishes[i], &placed->start))
            continue;
        placed->end = placed->start + image->size;
        return loader_copy(loader, image, 0, placed->start, image->size);
    }
    return loader_fail(loader, image->path, "%s of %llu MiB does not fit into memory beside the kernel", wishes[0].what,
                       (unsigned long long)(image->size >> 20));
}

bool loader_load_file(struct loader *loader, const char *path, struct loader_wish *wishes, unsigned count,
                      struct loader_extent *placed) {
    struct image image;
    const char *reason = image_open(&image, path);
    if (reason)
        return loader_fail(loader, path, "%s", reason);
    const bool is_loaded = loader_load_image(loader, &image, wishes, count, placed);
    image_close(&image);
    return is_loaded;
}
