/*
 * The local APIC of one vCPU, xAPIC and x2APIC (SDM vol. 3A, chapter 11 "Advanced Programmable Interrupt Controller").
 *
 * One struct lapic a vCPU; an apic_bus (devices/apic_bus.h) carries messages between them, the I/O APIC and MSIs.
 * The bus clock is 1 GHz: at divide 1 the timer counts nanoseconds. Left out: SMI and remote read are dropped, the
 * performance, thermal and CMCI entries never fire (docs/limits.md).
 *
 * Locking: unless a comment says otherwise, functions here are called under the machine's device lock (bus_lock).
 * The members of struct trapeze_interrupt_controller, which lapic_controller makes, are called without it and take it.
 */
#ifndef DEVICES_LAPIC_H
#define DEVICES_LAPIC_H

#include "devices/bus.h"
#include "devices/clock.h"

struct apic_bus;
struct lapic;

/* What a local APIC needs of its processor. Called under the device lock, so none of these may take it. */
struct lapic_cpu {
    void (*set_intr)(void *opaque, bool asserted); /* the INTR pin's level; only told when it changes */
    void (*signal)(void *opaque, enum trapeze_signal signal, unsigned vector);
    /* The guest's time-stamp counter now; only called on the vCPU's thread, from its write of IA32_TSC_DEADLINE. */
    uint64_t (*read_tsc)(void *opaque);
    void *opaque;
};

struct lapic_config {
    uint32_t id; /* initial APIC id, below 255 */
    bool is_boot_processor;
    bool has_x2apic;                /* CPUID.1:ECX[21]; else IA32_APIC_BASE[10] is reserved */
    bool has_tsc_deadline;          /* CPUID.1:ECX[24]; else the MSR does not exist */
    unsigned physical_address_bits; /* MAXPHYADDR, 32..52; 0: 36 */
    uint64_t tsc_hz;                /* of read_tsc; not 0 where has_tsc_deadline */
    struct bus *bus;
    struct clock *clock;
    struct lapic_cpu cpu;
};

/* In its state after RESET, connected to `apic_bus`. NULL: no memory, no room on the bus, or a bad configuration. */
struct lapic *lapic_create(struct apic_bus *apic_bus, const struct lapic_config *config);
/* Disconnects from the APIC bus too. */
void lapic_destroy(struct lapic *lapic);

/*
 * RESET of the machine: everything, IA32_APIC_BASE included. The boot processor's LINT0 comes up as ExtINT and
 * unmasked, as firmware leaves it (virtual wire mode, MP specification 3.6.2.2), so that guests booted without
 * firmware get the 8259's interrupts.
 */
void lapic_reset(struct lapic *lapic);
/* INIT: as RESET, but IA32_APIC_BASE and the APIC id stay (11.4.7.3). */
void lapic_init_reset(struct lapic *lapic);

/* The callbacks for trapeze_vcpu_set_interrupt_controller. They take the device lock; vCPU's thread only. */
struct trapeze_interrupt_controller lapic_controller(struct lapic *lapic);

/* The register page, 1000h bytes; the device is the struct lapic of the vCPU that makes the access. */
extern const struct bus_ops lapic_page_ops;

/* ---- What the members of the controller do, for callers that hold the device lock ---- */

/* The INTA cycle: the vector, or -1 when the request has gone away. The 8259 (ExtINT) comes first, then the IRR. */
int lapic_acknowledge(struct lapic *lapic);
unsigned lapic_get_tpr(const struct lapic *lapic); /* CR8: TPR[7:4] */
void lapic_set_tpr(struct lapic *lapic, unsigned tpr);
/* False is #GP(0). */
bool lapic_read_msr(struct lapic *lapic, uint32_t index, uint64_t *value);
bool lapic_write_msr(struct lapic *lapic, uint32_t index, uint64_t value);

/* ---- Pins and messages ---- */

/* Local interrupt pins 0 (INTR, from the 8259) and 1 (NMI). */
void lapic_set_lint(struct lapic *lapic, unsigned pin, bool asserted);

enum apic_delivery {
    APIC_FIXED,
    APIC_LOWEST_PRIORITY,
    APIC_SMI,
    APIC_REMOTE_READ,
    APIC_NMI,
    APIC_INIT,
    APIC_SIPI,
    APIC_EXTINT
};

/* A message has arrived. False when it is refused (APIC disabled); the sender of a level interrupt may try again. */
bool lapic_accept(struct lapic *lapic, enum apic_delivery delivery, unsigned vector, bool is_level);

/* ---- What the APIC bus asks ---- */

bool lapic_is_enabled(const struct lapic *lapic);          /* IA32_APIC_BASE[11] */
bool lapic_is_software_enabled(const struct lapic *lapic); /* SVR[8] as well */
/* Guest-physical address of the register page; UINT64_MAX where there is none (disabled, x2APIC mode). */
uint64_t lapic_page_address(const struct lapic *lapic);
unsigned lapic_processor_priority(const struct lapic *lapic);
/* Does `destination` name this APIC (11.6.2)? A broadcast does not come here. */
bool lapic_matches_physical(const struct lapic *lapic, uint32_t destination);
bool lapic_matches_logical(const struct lapic *lapic, uint32_t destination);

#endif
