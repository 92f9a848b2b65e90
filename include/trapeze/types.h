/*
 * Address types shared by every layer.
 *
 * A guest address never mixes with a host pointer, and a guest-physical address never with a linear one: each is a
 * struct of its own, so that the compiler refuses the mistake.
 */
#ifndef TRAPEZE_TYPES_H
#define TRAPEZE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* An address on the guest's memory bus, before any device or RAM decodes it. */
typedef struct {
    uint64_t value;
} guest_physical;

/* An address after segmentation and before paging (SDM vol. 3A, 3.1). */
typedef struct {
    uint64_t value;
} guest_linear;

static inline guest_physical guest_physical_at(uint64_t value) {
    return (guest_physical){value};
}

static inline guest_linear guest_linear_at(uint64_t value) {
    return (guest_linear){value};
}

#endif
