/*
 * What the loaders of all kinds share: the context of one boot, errors that name a file, stores to guest memory, and
 * the map of what is taken, so that nothing is placed over something else.
 */
#ifndef BIOS_LOADER_H
#define BIOS_LOADER_H

#include "bios/boot.h"
#include "bios/image.h"

#define LOADER_EXTENTS_MAX 128

struct loader_extent {
    uint64_t start, end; /* end is exclusive */
    const char *what;    /* for an error: "the kernel", "the initrd" */
};

struct loader {
    const struct boot_request *request;
    const struct boot_memory *memory;
    struct trapeze_registers *bsp;
    struct boot_error *error;
    struct loader_extent taken[LOADER_EXTENTS_MAX];
    unsigned taken_count;
};

/* Where loader_place may put something, and from which side it looks. */
struct loader_wish {
    uint64_t size, alignment; /* alignment: a power of two */
    uint64_t from, to;        /* the whole thing lies within [from, to) */
    bool is_highest;          /* else the lowest place */
    const char *what;
};

/* Puts "path: reason" into the error; always false. */
bool loader_fail(struct loader *loader, const char *path, const char *reason, ...)
    __attribute__((format(printf, 3, 4)));

/* Both false with the error set. loader_write checks nothing but that the memory takes it. */
bool loader_write(struct loader *loader, uint64_t address, const void *from, size_t length);
bool loader_zero(struct loader *loader, uint64_t address, uint64_t length);

/* Copies a part of a file that image_contains. */
bool loader_copy(struct loader *loader, const struct image *image, uint64_t offset, uint64_t address, uint64_t length);

/* Whether [address, address + length) is RAM that a kernel may be put into: neither EBDA nor video nor BIOS. */
bool loader_is_ram(const struct loader *loader, uint64_t address, uint64_t length);

/* Claims a fixed range of RAM; false with the error set when it is not RAM or already taken. `path` is for the error.
 */
bool loader_take(struct loader *loader, const char *path, const struct loader_extent *extent);
/* Finds a free place in RAM and claims it; false (no error set) when there is none. */
bool loader_place(struct loader *loader, const struct loader_wish *wish, uint64_t *address);

/*
 * Opens a file, puts it into the first of the `count` wished places that is free (their size is filled in here), and
 * tells where. False with the error set.
 */
bool loader_load_file(struct loader *loader, const char *path, struct loader_wish *wishes, unsigned count,
                      struct loader_extent *placed);

#endif
