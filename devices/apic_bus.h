/*
 * The APIC bus: what carries interrupt messages between local APICs, I/O APICs and devices that write MSIs
 * (SDM vol. 3A, 11.6 and 11.11), and which local APIC's page a processor sees at which address.
 *
 * Everything here is called under the device lock.
 */
#ifndef DEVICES_APIC_BUS_H
#define DEVICES_APIC_BUS_H

#include "devices/lapic.h"

struct ioapic;

struct apic_bus_config {
    struct bus *bus;      /* where the register pages are attached; NULL: nowhere (unit tests) */
    unsigned lapic_limit; /* local APICs at most, 1..255 */
    /* The 8259 pair's INTA cycle: a vector, or -1. NULL: there is no 8259. Called under the device lock. */
    int (*extint_acknowledge)(void *opaque);
    void *extint_opaque;
    /* Index (in order of creation) of the vCPU that makes the present access; any other value: none. NULL: always 0. */
    unsigned (*current_cpu)(void *opaque);
    void *current_cpu_opaque;
};

/* NULL: no memory, or a limit out of range. */
struct apic_bus *apic_bus_create(const struct apic_bus_config *config);
/* Local APICs must have been destroyed before. */
void apic_bus_destroy(struct apic_bus *apic_bus);

/* Who hears EOI broadcasts; stays the caller's. */
void apic_bus_set_ioapic(struct apic_bus *apic_bus, struct ioapic *ioapic);

struct apic_message {
    enum apic_delivery delivery;
    uint8_t vector;
    bool is_level;
    bool is_logical;
    bool is_wide; /* sent in x2APIC mode: `destination` has 32 bits and FFFFFFFFh is everybody, else FFh */
    uint32_t destination;
};

/* Number of local APICs that accepted the message. */
unsigned apic_bus_send(struct apic_bus *apic_bus, const struct apic_message *message);

enum apic_shorthand { APIC_TO_DESTINATION, APIC_TO_SELF, APIC_TO_ALL, APIC_TO_OTHERS };
/* The same by an ICR's shorthand; `sender` is whom SELF and OTHERS mean. */
unsigned apic_bus_send_ipi(struct apic_bus *apic_bus, struct lapic *sender, enum apic_shorthand shorthand,
                           const struct apic_message *message);

/* A device's write of `data` to FEExxxxxh (11.11.1, 11.11.2); other addresses are dropped. */
void apic_bus_msi(struct apic_bus *apic_bus, uint64_t address, uint32_t data);

/* Pin 0 (from the 8259) or 1 (NMI) of every local APIC. Fits struct irq_line: target is the apic_bus. */
void apic_bus_set_lint(void *apic_bus, unsigned pin, bool asserted);

/* RESET of every local APIC. */
void apic_bus_reset(struct apic_bus *apic_bus);

/* ---- For lapic.c ---- */

bool apic_bus_connect(struct apic_bus *apic_bus, struct lapic *lapic);
void apic_bus_disconnect(struct apic_bus *apic_bus, struct lapic *lapic);
/* A local APIC's page has moved; `was` and `is` are guest-physical, UINT64_MAX for nowhere. */
void apic_bus_move_page(struct apic_bus *apic_bus, uint64_t was, uint64_t is);
void apic_bus_broadcast_eoi(struct apic_bus *apic_bus, unsigned vector);
/* A local APIC was software-enabled: level interrupts that nobody accepted are offered again. */
void apic_bus_retry(struct apic_bus *apic_bus);
int apic_bus_acknowledge_extint(struct apic_bus *apic_bus);

#endif
