/*
 * The device bus: two sorted arrays of windows (ports, memory) under one lock.
 *
 * An access is cut into pieces, each inside one window and of a width the chip takes; bytes that nobody claims read as
 * ones, as an undriven bus does.
 */
#include "devices/bus.h"

#include <stdlib.h>
#include <string.h>

#include "memory/futex.h"

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
    _Atomic uint32_t lock; /* 0: free, 1: taken, 2: somebody may wait */
    uint64_t (*call_full)(uint64_t (*fn)(void *argument), void *argument);
    struct window_list spaces[2]; /* by enum trapeze_space */
};

struct bus *bus_create(void) {
    return calloc(1, sizeof(struct bus));
}

void bus_destroy(struct bus *bus) {
    if (!bus)
        return;
    for (size_t i = 0; i < 2; i++)
        free(bus->spaces[i].windows);
    free(bus);
}

void bus_lock(struct bus *bus) {
    uint32_t before = 0;
    if (atomic_compare_exchange_strong_explicit(&bus->lock, &before, 1, memory_order_acquire, memory_order_relaxed))
        return;
    while (atomic_exchange_explicit(&bus->lock, 2, memory_order_acquire) != 0)
        futex_wait(&bus->lock, 2);
}

void bus_unlock(struct bus *bus) {
    if (atomic_exchange_explicit(&bus->lock, 0, memory_order_release) == 2)
        futex_wake(&bus->lock, 1);
}

void bus_set_full(struct bus *bus, uint64_t (*call_full)(uint64_t (*fn)(void *argument), void *argument)) {
    bus->call_full = call_full;
}

uint64_t bus_call_full(const struct bus *bus, uint64_t (*fn)(void *argument), void *argument) {
    return bus && bus->call_full ? bus->call_full(fn, argument) : fn(argument);
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

struct heavy_access {
    const struct piece *piece;
    uint64_t value;
};

static uint64_t full_read(void *argument) {
    const struct piece *piece = ((struct heavy_access *)argument)->piece;
    return piece->ops->read(piece->device, piece->offset, piece->size);
}

static uint64_t full_write(void *argument) {
    const struct heavy_access *access = argument;
    access->piece->ops->write(access->piece->device, access->piece->offset, access->piece->size, access->value);
    return 0;
}

static uint64_t read_piece(struct bus *bus, const struct piece *piece) {
    struct heavy_access access = {piece, 0};
    return piece->ops->is_light ? full_read(&access) : bus_call_full(bus, full_read, &access);
}

static void write_piece(struct bus *bus, const struct piece *piece, uint64_t value) {
    struct heavy_access access = {piece, value};
    if (piece->ops->is_light)
        full_write(&access);
    else
        bus_call_full(bus, full_write, &access);
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
            part = read_piece(bus, &piece) >> (8 * piece.lane);
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
            write_piece(bus, &piece, part << (8 * piece.lane));
            is_claimed = true;
        }
        done += piece.bytes;
    }
    bus_unlock(bus);
    return is_claimed;
}
