/*
 * A bounded little-endian byte writer, for tables whose layout a manual gives as a list of fields. Writing past the end
 * sets is_full and drops the bytes; the maker of the table asks once, at its end.
 */
#ifndef BIOS_BYTES_H
#define BIOS_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bytes {
    uint8_t *data; /* the caller's */
    size_t size, length;
    bool is_full;
};

/* The low `size` bytes (1..8) of a value. */
void bytes_put(struct bytes *bytes, uint64_t value, unsigned size);
void bytes_put_block(struct bytes *bytes, const void *from, size_t length);
/* Opens a gap of length bytes at `position`, moving what follows, and fills it. */
void bytes_insert(struct bytes *bytes, size_t position, const void *from, size_t length);
/* Zeros up to a multiple of `alignment`. */
void bytes_align(struct bytes *bytes, size_t alignment);

/* Overwrites what is already there. */
void bytes_patch(struct bytes *bytes, size_t position, uint64_t value, unsigned size);
/* Makes the bytes from start to end add up to zero by the byte at `position`, which is 0 so far. */
void bytes_seal(struct bytes *bytes, size_t start, size_t end, size_t position);

#endif
