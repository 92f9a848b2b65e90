/* Look-up of guest-physical regions; light code. */
#include "memory/guest_memory.h"

struct memory_region *memory_find(struct machine_memory *memory, guest_physical address) {
    for (unsigned i = 0; i < memory->count; i++) {
        struct memory_region *region = &memory->region[i];
        if (address.value - region->base < region->length)
            return region;
    }
    return NULL;
}
