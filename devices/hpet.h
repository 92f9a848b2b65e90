/*
 * The High Precision Event Timer (IA-PC HPET Specification 1.0a): a 64-bit counter of 10 ns ticks and three
 * comparators, each one-shot or periodic, 32 or 64 bits wide. Front-side-bus delivery is not offered.
 *
 * Everything here is called under the device lock.
 */
#ifndef DEVICES_HPET_H
#define DEVICES_HPET_H

#include "devices/bus.h"
#include "devices/clock.h"
#include "devices/irq.h"

struct hpet;

enum { HPET_WINDOW = 0x400, HPET_TIMERS = 3, HPET_PERIOD_NS = 10 };
#define HPET_BASE 0xFED00000u
/* The low half of the capabilities register, as the ACPI table repeats it. */
#define HPET_CAPABILITIES 0x8086A201u
/* The I/O APIC pins that a comparator may be routed to: 20..23. */
#define HPET_ROUTES 0x00F00000u

struct hpet_config {
    struct clock *clock;
    struct irq_line legacy[2]; /* what LegacyReplacement takes over: the 8254's line and the RTC's */
    struct irq_line ioapic;    /* pin is ignored: the comparator's route takes its place */
    /* LegacyReplacement was switched: the 8254 and the RTC are cut off from their lines while it is on. May be NULL. */
    void (*legacy_replacement)(void *opaque, bool is_on);
    void *opaque;
};

/* HPET_WINDOW bytes; the device is a struct hpet. */
extern const struct bus_ops hpet_ops;

/* NULL: no memory. */
struct hpet *hpet_create(const struct hpet_config *config);
void hpet_destroy(struct hpet *hpet);
void hpet_reset(struct hpet *hpet);

#endif
