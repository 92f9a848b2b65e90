/*
 * The I/O APIC: 24 pins, each with a redirection entry (82093AA data sheet; version 20h with the EOI register, as in
 * the ICH's "I/O APIC" chapter).
 *
 * Everything here is called under the device lock.
 */
#ifndef DEVICES_IOAPIC_H
#define DEVICES_IOAPIC_H

#include "devices/bus.h"

struct apic_bus;
struct ioapic;

enum { IOAPIC_PINS = 24, IOAPIC_WINDOW = 0x100 };
#define IOAPIC_BASE 0xFEC00000u /* where the PC has its first */

/* The register window, IOAPIC_WINDOW bytes; the device is a struct ioapic. */
extern const struct bus_ops ioapic_ops;

/* `id` is 0..15. NULL: no memory. Tells `apic_bus` that EOI broadcasts go here. */
struct ioapic *ioapic_create(struct apic_bus *apic_bus, unsigned id);
void ioapic_destroy(struct ioapic *ioapic);
void ioapic_reset(struct ioapic *ioapic);

/* An input pin's level (active high, whatever the polarity bit says). Fits struct irq_line: target is the ioapic. */
void ioapic_set(void *ioapic, unsigned pin, bool asserted);
/* A processor has finished `vector`: level entries with it may fire again, at once where the pin is still asserted. */
void ioapic_eoi(struct ioapic *ioapic, unsigned vector);
/* A processor accepts interrupts that it refused before: level interrupts that wait are sent again. */
void ioapic_retry(struct ioapic *ioapic);

#endif
