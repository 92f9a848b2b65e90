/*
 * 440FX host bridge, PIIX3 ISA bridge and PIIX4 power management function, as far as system software uses them: their
 * identities, the PAM and PIRQ routing registers, and PMBASE. DRAM timing, caches, IDE and USB are not here.
 */
#include "devices/pci_host.h"

#include <stdlib.h>

enum { REGISTER_PAM = 0x59, REGISTER_SMRAM = 0x72 }; /* 82441FX, 3.2.18 and 3.2.20 */
enum { REGISTER_PIRQ = 0x60, PIRQ_OFF = 0x80, REGISTER_XBCS = 0x4E, REGISTER_TOM = 0x69 }; /* 82371SB, 3.1 */
enum { REGISTER_PMBA = 0x40, REGISTER_PMREGMISC = 0x80, PMREGMISC_PMIOSE = 1 };            /* 82371AB, 7.1 */

struct pci_host {
    struct pci_host_config config;
    struct pci_bus *pci;
    struct pci_function bridge, isa, pm;
    bool pirq[4];           /* levels */
    uint16_t irqs_asserted; /* what the ISA lines were told */
    bool is_pm_mapped;
    uint16_t pm_base;
    bool is_attached;
};

/* ---- PIIX3: PIRQs to ISA interrupts ---- */

static void route_interrupts(struct pci_host *host) {
    uint16_t asserted = 0;
    for (unsigned i = 0; i < 4; i++) {
        const uint8_t route = host->isa.config[REGISTER_PIRQ + i];
        if (host->pirq[i] && !(route & PIRQ_OFF))
            asserted |= (uint16_t)(1u << (route & 0xF));
    }
    const uint16_t changed = asserted ^ host->irqs_asserted;
    host->irqs_asserted = asserted;
    for (unsigned irq = 0; irq < PCI_HOST_ISA_IRQS; irq++)
        if (changed >> irq & 1)
            irq_set(&host->config.isa_irq[irq], asserted >> irq & 1);
}

static void set_pirq(void *target, unsigned pin, bool asserted) {
    struct pci_host *host = target;
    host->pirq[pin] = asserted;
    route_interrupts(host);
}

static void isa_written(void *opaque, unsigned offset, unsigned size) {
    (void)offset;
    (void)size;
    route_interrupts(opaque);
}

/* ---- 440FX: PAM ---- */

static void tell_pam(struct pci_host *host) {
    if (host->config.pam_changed)
        host->config.pam_changed(host->config.opaque, &host->bridge.config[REGISTER_PAM]);
}

static void bridge_written(void *opaque, unsigned offset, unsigned size) {
    if (offset < REGISTER_PAM + PCI_HOST_PAM_REGISTERS && offset + size > REGISTER_PAM)
        tell_pam(opaque);
}

/* ---- PIIX4 function 3: where the ACPI block is ---- */

static void place_pm_block(struct pci_host *host) {
    const uint16_t base = pci_config_word(&host->pm, REGISTER_PMBA) & 0xFFC0;
    const bool is_wanted = (host->pm.config[REGISTER_PMREGMISC] & PMREGMISC_PMIOSE) && base;
    if (host->is_pm_mapped && (!is_wanted || base != host->pm_base)) {
        bus_detach(host->config.bus, TRAPEZE_PORT, host->pm_base);
        host->is_pm_mapped = false;
    }
    if (!is_wanted || host->is_pm_mapped || !host->config.acpi_pm)
        return;
    host->pm_base = base;
    host->is_pm_mapped = bus_attach(host->config.bus, TRAPEZE_PORT, base, ACPI_PM_BLOCK, &acpi_pm_ops,
                                    host->config.acpi_pm, "ACPI power management") == BUS_OK;
}

static void pm_written(void *opaque, unsigned offset, unsigned size) {
    (void)offset;
    (void)size;
    place_pm_block(opaque);
}

/* ---- Making ---- */

static const struct pci_identity bridge_identity = {
    .vendor = 0x8086, .device = 0x1237, .class_code = 0x060000, .revision = 2};
static const struct pci_identity isa_identity = {
    .vendor = 0x8086, .device = 0x7000, .class_code = 0x060100, .is_multifunction = true};
static const struct pci_identity pm_identity = {
    .vendor = 0x8086, .device = 0x7113, .class_code = 0x068000, .revision = 3, .interrupt_pin = 1};

static void describe_functions(struct pci_host *host) {
    pci_function_init(&host->bridge, "440FX host bridge", &bridge_identity);
    for (unsigned i = 0; i < PCI_HOST_PAM_REGISTERS; i++)
        host->bridge.writable[REGISTER_PAM + i] = i ? 0x33 : 0x30;
    host->bridge.writable[REGISTER_SMRAM] = 0x78;
    host->bridge.config_written = bridge_written;
    host->bridge.opaque = host;

    pci_function_init(&host->isa, "PIIX3 ISA bridge", &isa_identity);
    for (unsigned i = 0; i < 4; i++)
        host->isa.writable[REGISTER_PIRQ + i] = 0x8F;
    host->isa.writable[REGISTER_XBCS] = host->isa.writable[REGISTER_XBCS + 1] = 0xFF;
    host->isa.writable[REGISTER_TOM] = 0xFF;
    host->isa.config_written = isa_written;
    host->isa.opaque = host;

    pci_function_init(&host->pm, "PIIX4 power management", &pm_identity);
    pci_config_set_dword(&host->pm, REGISTER_PMBA, 1); /* it is an I/O address */
    host->pm.writable[REGISTER_PMBA] = 0xC0;
    host->pm.writable[REGISTER_PMBA + 1] = 0xFF;
    host->pm.writable[REGISTER_PMREGMISC] = PMREGMISC_PMIOSE;
    host->pm.config_written = pm_written;
    host->pm.opaque = host;
}

void pci_host_reset(struct pci_host *host) {
    pci_bus_reset(host->pci);
    for (unsigned i = 0; i < PCI_HOST_PAM_REGISTERS; i++)
        host->bridge.config[REGISTER_PAM + i] = 0;
    host->bridge.config[REGISTER_SMRAM] = 0x02;
    tell_pam(host);
    for (unsigned i = 0; i < 4; i++)
        host->isa.config[REGISTER_PIRQ + i] = PIRQ_OFF;
    pci_config_set_word(&host->isa, REGISTER_XBCS, 0x0003);
    host->isa.config[REGISTER_TOM] = 0x02;
    route_interrupts(host);
    pci_config_set_dword(&host->pm, REGISTER_PMBA, 1);
    host->pm.config[REGISTER_PMREGMISC] = 0;
    place_pm_block(host);
}

static bool plug_functions(struct pci_host *host) {
    struct pci_bus_config config = {
        .bus = host->config.bus,
        .reset_control_ops = host->config.reset_control_ops,
        .reset_control = host->config.reset_control,
    };
    for (unsigned i = 0; i < 4; i++)
        config.pirq[i] = (struct irq_line){set_pirq, host, i};
    host->pci = pci_bus_create(&config);
    if (!host->pci)
        return false;
    host->is_attached = bus_attach(host->config.bus, TRAPEZE_PORT, PCI_CONFIG_PORT, PCI_CONFIG_PORTS, &pci_config_ops,
                                   host->pci, "PCI configuration") == BUS_OK;
    return host->is_attached && pci_plug(host->pci, &host->bridge, 0, 0) && pci_plug(host->pci, &host->isa, 1, 0) &&
           pci_plug(host->pci, &host->pm, 1, 3);
}

struct pci_host *pci_host_create(const struct pci_host_config *config) {
    struct pci_host *host = calloc(1, sizeof *host);
    if (!host)
        return NULL;
    host->config = *config;
    describe_functions(host);
    if (!plug_functions(host)) {
        pci_host_destroy(host);
        return NULL;
    }
    pci_host_reset(host);
    return host;
}

void pci_host_destroy(struct pci_host *host) {
    if (!host)
        return;
    if (host->is_pm_mapped)
        bus_detach(host->config.bus, TRAPEZE_PORT, host->pm_base);
    if (host->is_attached)
        bus_detach(host->config.bus, TRAPEZE_PORT, PCI_CONFIG_PORT);
    pci_bus_destroy(host->pci);
    free(host);
}

struct pci_bus *pci_host_bus(struct pci_host *host) {
    return host->pci;
}

void pci_host_set_up(struct pci_host *host, const struct pci_host_setup *setup) {
    for (unsigned i = 0; i < 4; i++)
        host->isa.config[REGISTER_PIRQ + i] = setup->pirq_irq[i] & 0xF;
    route_interrupts(host);
    pci_config_set_word(&host->pm, REGISTER_PMBA, (uint16_t)((setup->pm_base & 0xFFC0) | 1));
    host->pm.config[REGISTER_PMREGMISC] = PMREGMISC_PMIOSE;
    place_pm_block(host);
    pci_bus_assign(host->pci, setup->memory_base, setup->memory_end, setup->port_base, setup->port_end);
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++)
        for (unsigned number = 0; number < PCI_FUNCTIONS; number++) {
            const unsigned pin = pci_config_read(host->pci, slot, number, PCI_INTERRUPT_PIN, 1);
            if (pin >= 1 && pin <= 4)
                pci_config_write(host->pci, slot, number, PCI_INTERRUPT_LINE, 1, setup->pirq_irq[(slot + pin + 2) & 3]);
        }
    host->pm.config[PCI_INTERRUPT_LINE] = 9; /* the SCI is wired, not routed */
}
