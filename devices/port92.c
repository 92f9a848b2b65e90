/* Port 92h (82371SB, 2.5.4.1): bit 1 is the alternate A20 gate; bit 0 resets the processor when it goes from 0 to 1. */
#include "devices/port92.h"

enum { FAST_RESET = 0x01, ALTERNATE_A20 = 0x02 };

static uint64_t port92_read(void *device, uint64_t offset, unsigned size) {
    (void)offset, (void)size;
    return ((struct port92 *)device)->value;
}

static void port92_write(void *device, uint64_t offset, unsigned size, uint64_t wide) {
    struct port92 *port = device;
    uint8_t value = (uint8_t)wide & (FAST_RESET | ALTERNATE_A20);
    (void)offset, (void)size;
    bool begins_reset = value & ~port->value & FAST_RESET;
    port->value = value;
    irq_set(&port->a20, value & ALTERNATE_A20);
    if (begins_reset)
        irq_pulse(&port->reset);
}

const struct bus_ops port92_ops = {.read = port92_read, .write = port92_write, .max_size = 1};

void port92_reset(struct port92 *port) {
    port->value = 0;
    irq_set(&port->a20, false);
}

void port92_init(struct port92 *port, const struct irq_line *a20, const struct irq_line *reset) {
    *port = (struct port92){.a20 = *a20, .reset = *reset};
    port92_reset(port);
}
