/*
 * The device bus: which device answers which port or guest-physical address.
 *
 * A device is a struct and a pair of functions; it sees offsets into its own window and never knows where it lives, nor
 * what time it is on the host. Everything on the bus runs under the machine's one device lock, which bus_read and
 * bus_write take; timers (devices/clock.h) and backends take it before they call a device, so a device is
 * single-threaded code.
 *
 * Most accesses of a guest are to a few chips, whose code is light (struct trapeze_io); the others are called through
 * bus_call_full.
 */
#ifndef DEVICES_BUS_H
#define DEVICES_BUS_H

#include "trapeze/trapeze.h"

struct bus;

struct bus_ops {
    /* offset is from the window's start; size 1, 2, 4 or 8, and never outside [min_size, max_size] or the window. */
    uint64_t (*read)(void *device, uint64_t offset, unsigned size);
    void (*write)(void *device, uint64_t offset, unsigned size, uint64_t value);
    /* Access widths that the chip takes; 0 stands for 1 and 8. The bus splits wider accesses into max_size pieces,
       lowest address first, and widens narrower ones (read: cut out of min_size; write: of the value alone). */
    uint8_t min_size, max_size;
    /* read and write are light code (struct trapeze_io), and so is everything that they reach. */
    bool is_light;
};

enum bus_status { BUS_OK, BUS_OVERLAP, BUS_NO_MEMORY, BUS_INVALID };

struct bus *bus_create(void);
void bus_destroy(struct bus *bus);

/*
 * `name` is a static string for messages; `device` stays the caller's. `ops` is not copied. Attach and detach are for a
 * caller that holds the device lock (a chip that moves its window is under it already) or before any access is made.
 */
enum bus_status bus_attach(struct bus *bus, enum trapeze_space space, uint64_t base, uint64_t length,
                           const struct bus_ops *ops, void *device, const char *name);
void bus_detach(struct bus *bus, enum trapeze_space space, uint64_t base);

/* Who answers at an address, or NULL: to say what a window overlaps. Locking as bus_attach. */
const char *bus_name_at(const struct bus *bus, enum trapeze_space space, uint64_t address);

/* How light code calls any other, trapeze_call_full; NULL, as at first: bus_read and bus_write are called as any function. */
void bus_set_full(struct bus *bus, uint64_t (*call_full)(uint64_t (*fn)(void *argument), void *argument));
/* Calls fn from light code. */
uint64_t bus_call_full(const struct bus *bus, uint64_t (*fn)(void *argument), void *argument);

/* False when nobody answers: *value is all ones then. Any thread; takes the device lock. Light code. */
bool bus_read(struct bus *bus, enum trapeze_space space, uint64_t address, unsigned size, uint64_t *value);
bool bus_write(struct bus *bus, enum trapeze_space space, uint64_t address, unsigned size, uint64_t value);

/* The device lock, for timers, backends and the machine. Not recursive: never call bus_read/bus_write under it. */
void bus_lock(struct bus *bus);
void bus_unlock(struct bus *bus);

#endif
