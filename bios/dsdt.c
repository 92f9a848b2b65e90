/*
 * The machine's devices in ACPI Machine Language; see dsdt.h. In ASL words, \_SB has PCI0 with its ISA children, four
 * fixed interrupt links and the HPET. Hot plug, thermal zones and processor objects are left out.
 */
#include "bios/dsdt.h"

#include "bios/aml.h"
#include "bios/layout.h"

static const char *const dsdt_links[4] = {"LNKA", "LNKB", "LNKC", "LNKD"};

/* Name (_HID, EisaId (id)), Name (_UID, uid) */
static void dsdt_identity(struct aml *aml, const char id[7], unsigned uid) {
    aml_name(aml, "_HID");
    aml_eisa_id(aml, id);
    aml_name(aml, "_UID");
    aml_integer(aml, uid);
}

/* A device behind ISA: up to two port ranges and an interrupt (negative: none). */
struct dsdt_isa_device {
    const char *name, *id;
    struct {
        uint16_t base;
        uint8_t length;
    } port[4];
    int irq;
    unsigned uid;
};

static const struct dsdt_isa_device dsdt_isa_devices[] = {
    {"PIC_", "PNP0000", {{0x20, 2}, {0xa0, 2}, {0x4d0, 2}}, 2, 0},
    {"PIT_", "PNP0100", {{0x40, 4}}, 0, 0},
    {"RTC_", "PNP0B00", {{0x70, 8}}, 8, 0},
    {"KBD_", "PNP0303", {{0x60, 1}, {0x64, 1}}, 1, 0},
    {"MOU_", "PNP0F13", {{0, 0}}, 12, 0},
    {"SPKR", "PNP0800", {{0x61, 1}}, -1, 0},
};

static const struct dsdt_isa_device dsdt_serial_ports[] = {
    {"COM1", "PNP0501", {{0x3f8, 8}}, 4, 1},
    {"COM2", "PNP0501", {{0x2f8, 8}}, 3, 2},
};

static void dsdt_isa_device(struct aml *aml, const struct dsdt_isa_device *device) {
    aml_device(aml, device->name);
    dsdt_identity(aml, device->id, device->uid);
    aml_name(aml, "_CRS");
    aml_resources(aml);
    for (unsigned i = 0; i < 4 && device->port[i].length > 0; i++)
        aml_io(aml, device->port[i].base, device->port[i].length);
    if (device->irq >= 0)
        aml_irq(aml, (unsigned)device->irq);
    aml_close(aml);
    aml_close(aml);
}

static void dsdt_isa(struct aml *aml, const struct boot_request *request) {
    aml_device(aml, "ISA_");
    aml_name(aml, "_ADR");
    aml_integer(aml, 0x10000);
    for (unsigned i = 0; i < sizeof dsdt_isa_devices / sizeof dsdt_isa_devices[0]; i++)
        dsdt_isa_device(aml, &dsdt_isa_devices[i]);
    for (unsigned i = 0; i < sizeof dsdt_serial_ports / sizeof dsdt_serial_ports[0] && i < request->serial_count; i++)
        dsdt_isa_device(aml, &dsdt_serial_ports[i]);
    aml_close(aml);
}

/* Package { slot << 16 | FFFFh, pin, link, 0 } for every slot and pin (ACPI 6.5, 6.2.13). */
static void dsdt_pci_routing(struct aml *aml) {
    enum { SLOTS = 32, PINS = 4 };
    aml_name(aml, "_PRT");
    aml_package(aml, SLOTS * PINS);
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        for (unsigned pin = 0; pin < PINS; pin++) {
            aml_package(aml, 4);
            aml_integer(aml, (uint64_t)slot << 16 | 0xffff);
            aml_integer(aml, pin);
            aml_reference(aml, dsdt_links[layout_pirq_of(slot, pin)]);
            aml_integer(aml, 0);
            aml_close(aml);
        }
    }
    aml_close(aml);
}

static void dsdt_pci(struct aml *aml, const struct boot_request *request) {
    aml_device(aml, "PCI0");
    dsdt_identity(aml, "PNP0A03", 0);
    aml_name(aml, "_CRS");
    aml_resources(aml);
    aml_window_bus(aml, 0, 0xff);
    aml_io(aml, 0xcf8, 8);
    aml_window_io(aml, 0, 0xcf7);
    aml_window_io(aml, 0xd00, 0xffff);
    aml_window_memory(aml, 0xa0000, 0xbffff);
    aml_window_memory(aml, LAYOUT_PCI_WINDOW, LAYOUT_PCI_WINDOW_END);
    aml_close(aml);
    dsdt_pci_routing(aml);
    dsdt_isa(aml, request);
    aml_close(aml);
}

static void dsdt_link_resources(struct aml *aml, const char *name, uint32_t irq) {
    aml_name(aml, name);
    aml_resources(aml);
    aml_irq_level_high_shared(aml, irq);
    aml_close(aml);
}

/* The wiring is fixed, so setting and disabling a link do nothing. */
static void dsdt_interrupt_links(struct aml *aml) {
    static const uint8_t irqs[4] = LAYOUT_PIRQ_IRQS;
    for (unsigned i = 0; i < 4; i++) {
        aml_device(aml, dsdt_links[i]);
        dsdt_identity(aml, "PNP0C0F", i);
        aml_name(aml, "_STA");
        aml_integer(aml, 0x0b);
        dsdt_link_resources(aml, "_PRS", irqs[i]);
        dsdt_link_resources(aml, "_CRS", irqs[i]);
        aml_method(aml, "_DIS", 0);
        aml_close(aml);
        aml_method(aml, "_SRS", 1);
        aml_close(aml);
        aml_close(aml);
    }
}

static void dsdt_hpet(struct aml *aml) {
    aml_device(aml, "HPET");
    dsdt_identity(aml, "PNP0103", 0);
    aml_name(aml, "_CRS");
    aml_resources(aml);
    aml_memory_fixed(aml, LAYOUT_HPET_BASE, 0x400);
    aml_close(aml);
    aml_close(aml);
}

/* Motherboard resources that belong to no device above: power management, APICs. */
static void dsdt_motherboard(struct aml *aml) {
    aml_device(aml, "MBRD");
    dsdt_identity(aml, "PNP0C02", 0);
    aml_name(aml, "_CRS");
    aml_resources(aml);
    aml_io(aml, LAYOUT_PM1_EVENT, 0x40);
    aml_io(aml, LAYOUT_SMI_COMMAND, 2);
    aml_io(aml, 0x92, 1);
    aml_memory_fixed(aml, LAYOUT_IO_APIC_BASE, 0x1000);
    aml_memory_fixed(aml, LAYOUT_LOCAL_APIC_BASE, 0x1000);
    aml_close(aml);
    aml_close(aml);
}

/* Name (\_S5, Package { SLP_TYPa, SLP_TYPb, 0, 0 }) */
static void dsdt_soft_off(struct aml *aml) {
    aml_name(aml, "\\_S5_");
    aml_package(aml, 4);
    for (unsigned i = 0; i < 4; i++)
        aml_integer(aml, i < 2 ? LAYOUT_SLEEP_TYPE_S5 : 0);
    aml_close(aml);
}

void dsdt_append(struct bytes *table, const struct boot_request *request) {
    struct aml aml = {.code = *table};
    aml_scope(&aml, "\\_SB_");
    dsdt_interrupt_links(&aml); /* first, as the routing of PCI0 names them */
    dsdt_pci(&aml, request);
    dsdt_hpet(&aml);
    dsdt_motherboard(&aml);
    aml_close(&aml);
    dsdt_soft_off(&aml);
    *table = aml.code;
}
