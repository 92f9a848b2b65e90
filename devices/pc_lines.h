/*
 * The wires between the chips of a PC: what pc_chips.c hands to them. `opaque` and `target` are the struct pc_chips; under
 * the device lock.
 */
#ifndef DEVICES_PC_LINES_H
#define DEVICES_PC_LINES_H

#include "devices/pc_chips.h"

/* Who asserts a line: lines shared by several are asserted while one of them asserts it. */
enum source { SOURCE_ISA, SOURCE_ISA_SHARED, SOURCE_PCI, SOURCE_HPET, SOURCE_ACPI, SOURCE_TESTDEV, SOURCE_SHIFT = 8 };
enum { IRQ_TIMER = 0, IRQ_KEYBOARD = 1, IRQ_RTC = 8, IRQ_SCI = 9, IRQ_MOUSE = 12, IRQ_FPU = 13, ISA_IRQS = 16, TIMER_PIN = 2 };

/* Pins are GSIs with their source. */
void pc_gsi_set(void *target, unsigned pin, bool asserted);
static inline struct irq_line pc_line(struct pc_chips *chips, unsigned gsi, enum source source) {
    return (struct irq_line){pc_gsi_set, chips, gsi | (unsigned)source << SOURCE_SHIFT};
}
/* The 8254 and the RTC, which the HPET can take the place of. */
void pc_legacy_set(void *target, unsigned irq, bool asserted);
void pc_legacy_replacement(void *opaque, bool is_on);
void pc_hpet_route(void *target, unsigned pin, bool asserted);
int pc_acknowledge_8259(void *opaque);
bool pc_timer_tick_is_waiting(void *opaque);
int64_t pc_wall_clock(void *opaque);

#endif
