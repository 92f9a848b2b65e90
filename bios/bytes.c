/* A bounded little-endian byte writer; see bytes.h. */
#include "bios/bytes.h"

#include <string.h>

void bytes_put_block(struct bytes *bytes, const void *from, size_t length) {
    if (length == 0) /* `from` may be NULL then, which memcpy does not take */
        return;
    if (length > bytes->size - bytes->length) {
        bytes->is_full = true;
        return;
    }
    memcpy(bytes->data + bytes->length, from, length);
    bytes->length += length;
}

void bytes_put(struct bytes *bytes, uint64_t value, unsigned size) {
    bytes_put_block(bytes, &value, size);
}

void bytes_insert(struct bytes *bytes, size_t position, const void *from, size_t length) {
    if (length > bytes->size - bytes->length) {
        bytes->is_full = true;
        return;
    }
    memmove(bytes->data + position + length, bytes->data + position, bytes->length - position);
    memcpy(bytes->data + position, from, length);
    bytes->length += length;
}

void bytes_align(struct bytes *bytes, size_t alignment) {
    while (bytes->length % alignment != 0 && !bytes->is_full)
        bytes_put(bytes, 0, 1);
}

void bytes_patch(struct bytes *bytes, size_t position, uint64_t value, unsigned size) {
    if (position <= bytes->length && size <= bytes->length - position)
        memcpy(bytes->data + position, &value, size);
}

void bytes_seal(struct bytes *bytes, size_t start, size_t end, size_t position) {
    uint8_t sum = 0;
    if (end > bytes->length || position >= bytes->length)
        return;
    for (size_t i = start; i < end; i++)
        sum = (uint8_t)(sum + bytes->data[i]);
    bytes->data[position] = (uint8_t)-sum;
}
