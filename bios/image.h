/*
 * A file on the host that goes into guest memory: size known, read by position, never mapped, so that a file that
 * shrinks meanwhile is an error and not a signal.
 */
#ifndef BIOS_IMAGE_H
#define BIOS_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct image {
    const char *path; /* the caller's */
    int fd;
    uint64_t size;
};

/* NULL on success, else the reason in words. Only regular files. */
const char *image_open(struct image *image, const char *path);
void image_close(struct image *image);

static inline bool image_contains(const struct image *image, uint64_t offset, uint64_t length) {
    return offset <= image->size && length <= image->size - offset;
}

/* False when the range is not in the file, or the host fails to read it. */
bool image_read(const struct image *image, uint64_t offset, void *to, size_t length);

#endif
