/*
 * An interrupt line: a small value handed to a device when it is created. The device drives its level; whoever made the
 * line (8259, I/O APIC, a splitter) gets told. Called under the device lock.
 */
#ifndef DEVICES_IRQ_H
#define DEVICES_IRQ_H

#include <stdbool.h>

struct irq_line {
    void (*set)(void *target, unsigned pin, bool asserted); /* NULL: not connected */
    void *target;
    unsigned pin;
};

static inline void irq_set(const struct irq_line *line, bool asserted) {
    if (line->set)
        line->set(line->target, line->pin, asserted);
}

static inline void irq_pulse(const struct irq_line *line) {
    irq_set(line, true);
    irq_set(line, false);
}

#endif
