/*
 * Processors for tests of the APICs: each has a local APIC and remembers what it was told. Time is stepped by hand, the
 * guest's TSC runs at 2 GHz from 0.
 */
#ifndef TESTS_UNIT_DEVICES_APIC_FIXTURE_H
#define TESTS_UNIT_DEVICES_APIC_FIXTURE_H

#include <string.h>

#include "devices/apic_bus.h"
#include "devices/ioapic.h"
#include "devices/lapic.h"
#include "tests/unit/devices/device_test.h"

enum { FIXTURE_CPUS = 4 };

struct fixture_cpu {
    struct apic_fixture *fixture;
    struct lapic *lapic;
    bool intr;
    unsigned nmi, init, sipi, sipi_vector;
};

struct apic_fixture {
    struct bus *bus;
    struct clock *clock;
    struct apic_bus *apic_bus;
    struct ioapic *ioapic;
    unsigned current; /* the vCPU that makes accesses */
    int extint_vector;
    unsigned extint_count;
    struct fixture_cpu cpu[FIXTURE_CPUS];
};

static inline void fixture_set_intr(void *opaque, bool asserted) {
    ((struct fixture_cpu *)opaque)->intr = asserted;
}

static inline void fixture_signal(void *opaque, enum trapeze_signal signal, unsigned vector) {
    struct fixture_cpu *cpu = opaque;
    cpu->nmi += signal == TRAPEZE_SIGNAL_NMI;
    cpu->init += signal == TRAPEZE_SIGNAL_INIT;
    cpu->sipi += signal == TRAPEZE_SIGNAL_SIPI;
    if (signal == TRAPEZE_SIGNAL_SIPI)
        cpu->sipi_vector = vector;
}

static inline uint64_t fixture_tsc(void *opaque) {
    return 2 * clock_now(((struct fixture_cpu *)opaque)->fixture->clock);
}

static inline int fixture_extint(void *opaque) {
    struct apic_fixture *fixture = opaque;
    fixture->extint_count++;
    return fixture->extint_vector;
}

static inline unsigned fixture_current(void *opaque) {
    return ((struct apic_fixture *)opaque)->current;
}

static inline void fixture_create_with(struct apic_fixture *fixture, bool has_x2apic, bool has_tsc_deadline) {
    memset(fixture, 0, sizeof *fixture);
    fixture->bus = bus_create();
    fixture->clock = clock_create_manual(fixture->bus);
    const struct apic_bus_config bus_config = {
        .bus = fixture->bus,
        .lapic_limit = FIXTURE_CPUS,
        .extint_acknowledge = fixture_extint,
        .extint_opaque = fixture,
        .current_cpu = fixture_current,
        .current_cpu_opaque = fixture,
    };
    fixture->apic_bus = apic_bus_create(&bus_config);
    fixture->ioapic = ioapic_create(fixture->apic_bus, 0);
    ck_assert(bus_attach(fixture->bus, TRAPEZE_MMIO, IOAPIC_BASE, IOAPIC_WINDOW, &ioapic_ops, fixture->ioapic,
                         "I/O APIC") == BUS_OK);
    for (unsigned i = 0; i < FIXTURE_CPUS; i++) {
        struct fixture_cpu *cpu = &fixture->cpu[i];
        cpu->fixture = fixture;
        const struct lapic_config config = {
            .id = i,
            .is_boot_processor = i == 0,
            .has_x2apic = has_x2apic,
            .has_tsc_deadline = has_tsc_deadline,
            .physical_address_bits = 40,
            .tsc_hz = 2000000000,
            .bus = fixture->bus,
            .clock = fixture->clock,
            .cpu = {fixture_set_intr, fixture_signal, fixture_tsc, cpu},
        };
        cpu->lapic = lapic_create(fixture->apic_bus, &config);
        ck_assert_ptr_nonnull(cpu->lapic);
    }
}

static inline void fixture_create(struct apic_fixture *fixture) {
    fixture_create_with(fixture, true, true);
}

static inline void fixture_destroy(struct apic_fixture *fixture) {
    for (unsigned i = 0; i < FIXTURE_CPUS; i++)
        lapic_destroy(fixture->cpu[i].lapic);
    ioapic_destroy(fixture->ioapic);
    apic_bus_destroy(fixture->apic_bus);
    clock_destroy(fixture->clock);
    bus_destroy(fixture->bus);
}

/* An access of processor `cpu` to its register page. */
static inline uint32_t apic_read(struct apic_fixture *fixture, unsigned cpu, unsigned offset) {
    uint64_t value;
    fixture->current = cpu;
    bus_read(fixture->bus, TRAPEZE_MMIO, 0xFEE00000 + offset, 4, &value);
    return (uint32_t)value;
}

static inline void apic_write(struct apic_fixture *fixture, unsigned cpu, unsigned offset, uint32_t value) {
    fixture->current = cpu;
    bus_write(fixture->bus, TRAPEZE_MMIO, 0xFEE00000 + offset, 4, value);
}

static inline void apic_enable(struct apic_fixture *fixture) {
    for (unsigned i = 0; i < FIXTURE_CPUS; i++)
        apic_write(fixture, i, 0xF0, 0x1FF);
}

static inline void apic_send(struct apic_fixture *fixture, unsigned cpu, uint32_t low, uint32_t destination) {
    apic_write(fixture, cpu, 0x310, destination << 24);
    apic_write(fixture, cpu, 0x300, low);
}

static inline bool msr_write(struct apic_fixture *fixture, unsigned cpu, uint32_t index, uint64_t value) {
    const struct trapeze_interrupt_controller controller = lapic_controller(fixture->cpu[cpu].lapic);
    return controller.write_msr(controller.opaque, index, value);
}

/* The MSR's value; the test fails where reading it is #GP. */
static inline uint64_t msr_read(struct apic_fixture *fixture, unsigned cpu, uint32_t index) {
    const struct trapeze_interrupt_controller controller = lapic_controller(fixture->cpu[cpu].lapic);
    uint64_t value = 0;
    ck_assert(controller.read_msr(controller.opaque, index, &value));
    return value;
}

static inline bool msr_is_readable(struct apic_fixture *fixture, unsigned cpu, uint32_t index) {
    const struct trapeze_interrupt_controller controller = lapic_controller(fixture->cpu[cpu].lapic);
    uint64_t value;
    return controller.read_msr(controller.opaque, index, &value);
}

static inline int acknowledge(struct apic_fixture *fixture, unsigned cpu) {
    const struct trapeze_interrupt_controller controller = lapic_controller(fixture->cpu[cpu].lapic);
    return controller.acknowledge(controller.opaque);
}

#endif
