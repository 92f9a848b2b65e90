/*
 * System control port A of the PS/2 and every PC chipset since: the fast A20 gate and the fast reset. Port 92h with
 * port92_ops; the device is the struct port92.
 */
#ifndef DEVICES_PORT92_H
#define DEVICES_PORT92_H

#include "devices/bus.h"
#include "devices/irq.h"

struct port92 {
    struct irq_line a20;   /* level: this port's half of the gate */
    struct irq_line reset; /* a pulse resets the machine */
    uint8_t value;
};

extern const struct bus_ops port92_ops;

void port92_init(struct port92 *port, const struct irq_line *a20, const struct irq_line *reset);
void port92_reset(struct port92 *port);

#endif
