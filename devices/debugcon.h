/*
 * The debug console of Bochs and QEMU: what is written to its port goes to a character backend. One port, usually E9h,
 * with debugcon_ops; the device is the struct debugcon.
 */
#ifndef DEVICES_DEBUGCON_H
#define DEVICES_DEBUGCON_H

#include "devices/bus.h"

struct char_backend;

struct debugcon {
    struct char_backend *backend;
    uint8_t readback;
};

extern const struct bus_ops debugcon_ops;

/* `backend` outlives the console. `readback` is what a read answers, so that software finds it: E9h by convention. */
void debugcon_init(struct debugcon *console, struct char_backend *backend, uint8_t readback);

#endif
