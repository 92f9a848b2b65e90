/*
 * The reset control register at port CF9h (82371SB data sheet, 3.1.7 "RC"): one byte, in the middle of the PCI
 * configuration ports, which is why pci_bus hands byte accesses there on.
 */
#ifndef DEVICES_RESET_CONTROL_H
#define DEVICES_RESET_CONTROL_H

#include "devices/bus.h"

enum { RESET_CONTROL_PORT = 0xCF9 };

struct reset_control {
    uint8_t value;
    /* Bit 2 has gone from 0 to 1; hard (bit 1): the whole machine, else the processors alone. Under the device lock. */
    void (*reset)(void *opaque, bool is_hard);
    void *opaque;
};

/* One byte; the device is a struct reset_control. */
extern const struct bus_ops reset_control_ops;

void reset_control_init(struct reset_control *control, void (*reset)(void *opaque, bool is_hard), void *opaque);
void reset_control_reset(struct reset_control *control);

#endif
