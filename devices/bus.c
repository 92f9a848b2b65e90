/*
 * The device bus: two sorted arrays of windows (ports, memory) under one lock.
 *
 * An access is cut into pieces, each inside one window and of a width the chip takes; bytes that nobody claims read as
 * ones, as an undriven bus does.
 */
#include "devices/bus.h"

#include <stdlib.h>
#include <string.h>

struct window {
    uint64_t base, length;
    const struct bus_ops *ops;
    void *device;
    const char *name;
};

struct window_list {
    struct window *windows; /* sorted by base, disjoint */
    size_t count, capacity;
    size_t last; /* where the last hit was */
};

struct bus {
    pthread_mutex_t lock;
    struct window_list spaces[2]; /* by enum trapeze_space */
};

struct bus *bus_create(void) {
    struct bus *bus = calloc(1, sizeof(*bus));
    if (!bus)
        return NULL;
    if (pthread_mutex_init(&bus->lock, NULL) != 0) {
        free(bus);
        return NULL;
    }
    return bus;
}

void bus_destroy(struct bus *bus) {
    if (!bus)
        return;
    pthread_mutex_destroy(&bus->lock);
    for (size_t i = 0; i < 2; i++)
        free(bus->spaces[i].windows);
    free(bus);
}

void bus_lock(struct bus *bus) {
    pthread_mutex_lock(&bus->lock);
}

void bus_unlock(struct bus *bus) {
    pthread_mutex_unlock(&bus->lock);
}

/* The first window whose end lies above address: the one that holds it, or the next one up, or count. */
static size_t find_at_or_above(const struct window_list *list, uint64_t address) {
    size_t low = 0, high = list->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (list->windows[middle].base + (list->windows[middle].length - 1) < address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool ops_are_valid(const struct bus_ops *ops, uint64_t length) {
    unsigned min = ops->min_size ? ops->min_size : 1;
    unsigned max = ops->max_size ? ops->max_size : 8;
    return ops->read && ops->write && min <= max && max <= 8 && (min & (min - 1)) == 0 && (max & (max - 1)) == 0 &&
           length % min == 0;
}

enum bus_status bus_attach(struct bus *bus, enum trapeze_space space, uint64_t base, uint64_t length,
                           const struct bus_ops *ops, void *device, const char *name) {
    if (length == 0 || base + (length - 1) < base || !ops_are_valid(ops, length))
        return BUS_INVALID;
    if (space == TRAPEZE_PORT && base + length > 0x10000)
        return BUS_INVALID;
    struct window_list *list = &bus->spaces[space];
    size_t at = find_at_or_above(list, base);
    if (at < list->count && list->windows[at].base <= base + (length - 1))
        return BUS_OVERLAP;
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 32;
        struct window *windows = realloc(list->windows, capacity * sizeof(*windows));
        if (!windows)
            return BUS_NO_MEMORY;
        list->windows = windows;
        list->capacity = capacity;
    }
    memmove(&list->windows[at + 1], &list->windows[at], (list->count - at) * sizeof(*list->windows));
    list->windows[at] = (struct window){base, length, ops, device, name};
    list->count++;
    return BUS_OK;
}

void bus_detach(struct bus *bus, enum trapeze_space space, uint64_t base) {
    struct window_list *list = &bus->spaces[space];
    size_t at = find_at_or_above(list, base);
    if (at == list->count || list->windows[at].base != base)
        return;
    list->count--;
    memmove(&list->windows[at], &list->windows[at + 1], (list->count - at) * sizeof(*list->windows));
    list->last = 0;
}

const char *bus_name_at(const struct bus *bus, enum trapeze_space space, uint64_t address) {
    const struct window_list *list = &bus->spaces[space];
    size_t at = find_at_or_above(list, address);
    return at < list->count && list->windows[at].base <= address ? list->windows[at].name : NULL;
}

/* One step of an access. ops is NULL over a hole. A copy, since the callee may detach its own window. */
struct piece {
    const struct bus_ops *ops;
    void *device;
    uint64_t offset; /* what the chip sees */
    unsigned size;   /* what the chip sees */
    unsigned bytes;  /* of the access, starting at its next byte */
    unsigned lane;   /* where they sit in the chip's value */
};

static struct piece find_piece(struct window_list *list, uint64_t address, unsigned left) {
    size_t at = list->last;
    if (at >= list->count || address - list->windows[at].base >= list->windows[at].length)
        at = find_at_or_above(list, address);
    if (at == list->count)
        return (struct piece){.bytes = left};
    const struct window *window = &list->windows[at];
    if (address < window->base) {
        uint64_t hole = window->base - address;
        return (struct piece){.bytes = hole < left ? (unsigned)hole : left};
    }
    list->last = at;
    uint64_t offset = address - window->base;
    unsigned min = window->ops->min_size ? window->ops->min_size : 1;
    unsigned max = window->ops->max_size ? window->ops->max_size : 8;
    unsigned size = left < max ? left : max;
    if (size > window->length - offset)
        size = (unsigned)(window->length - offset);
    while (size & (size - 1))
        size &= size - 1;
    unsigned lane = (unsigned)(offset & (min - 1));
    if (size >= min && lane == 0)
        return (struct piece){window->ops, window->device, offset, size, size, 0};
    unsigned bytes = min - lane < left ? min - lane : left;
    return (struct piece){window->ops, window->device, offset - lane, min, bytes, lane};
}

static uint64_t mask_of(unsigned bytes) {
    return bytes >= 8 ? UINT64_MAX : (UINT64_C(1) << (8 * bytes)) - 1;
}

/* The port space ends at FFFFh and does not wrap into memory; bytes above it are undriven. */
bool bus_read(struct bus *bus, enum trapeze_space space, uint64_t address, unsigned size, uint64_t *value) {
    bool is_claimed = false;
    uint64_t result = 0;
    bus_lock(bus);
    for (unsigned done = 0; done < size;) {
        struct piece piece = find_piece(&bus->spaces[space], address + done, size - done);
        uint64_t part = UINT64_MAX;
        if (piece.ops) {
            part = piece.ops->read(piece.device, piece.offset, piece.size) >> (8 * piece.lane);
            is_claimed = true;
        }
        result |= (part & mask_of(piece.bytes)) << (8 * done);
        done += piece.bytes;
    }
    bus_unlock(bus);
    *value = is_claimed ? result : UINT64_MAX;
    return is_claimed;
}

bool bus_write(struct bus *bus, enum trapeze_space space, uint64_t address, unsigned size, uint64_t value) {
    bool is_claimed = false;
    bus_lock(bus);
    for (unsigned done = 0; done < size;) {
        struct piece piece = find_piece(&bus->spaces[space], address + done, size - done);
        uint64_t part = (value >> (8 * done)) & mask_of(piece.bytes);
        if (piece.ops) {
            piece.ops->write(piece.device, piece.offset, piece.size, part << (8 * piece.lane));
            is_claimed = true;
        }
        done += piece.bytes;
    }
    bus_unlock(bus);
    return is_claimed;
}
