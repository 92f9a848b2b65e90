/*
 * The chipset's own PCI functions: 440FX host bridge at 00:00.0 (82441FX data sheet), PIIX3 ISA bridge at 00:01.0
 * (82371SB) whose PIRQ routing registers send INTx to ISA interrupts, and the PIIX4's power management function at
 * 00:01.3 (82371AB, section 7) whose PMBASE places the ACPI block on the bus. It makes the PCI bus as well.
 *
 * Everything here is called under the device lock, or before any access is made.
 */
#ifndef DEVICES_PCI_HOST_H
#define DEVICES_PCI_HOST_H

#include "devices/acpi_pm.h"
#include "devices/pci.h"

struct pci_host;

enum { PCI_HOST_PAM_REGISTERS = 7, PCI_HOST_ISA_IRQS = 16 };

struct pci_host_config {
    struct bus *bus;
    struct irq_line isa_irq[PCI_HOST_ISA_IRQS]; /* where PIRQs end; not connected where no PCI interrupt may go */
    struct acpi_pm *acpi_pm;                    /* stays the caller's */
    const struct bus_ops *reset_control_ops;    /* of port CF9h, as in struct pci_bus_config */
    void *reset_control;
    /* The guest has written the programmable attribute map, 59h..5Fh: who answers C0000h..FFFFFh. May be NULL. */
    void (*pam_changed)(void *opaque, const uint8_t pam[PCI_HOST_PAM_REGISTERS]);
    void *opaque;
};

/* The PCI bus is on the device bus afterwards. NULL: no memory, or ports CF8h..CFFh are taken. */
struct pci_host *pci_host_create(const struct pci_host_config *config);
/* Destroys the PCI bus too; other functions must have been unplugged. */
void pci_host_destroy(struct pci_host *host);
/* Resets every function on the bus. */
void pci_host_reset(struct pci_host *host);

struct pci_bus *pci_host_bus(struct pci_host *host);

struct pci_host_setup {
    uint16_t pm_base;                 /* of the ACPI block, a multiple of 40h */
    uint8_t pirq_irq[4];              /* ISA interrupt of each PIRQ */
    uint32_t memory_base, memory_end; /* for BARs; ends are exclusive */
    uint16_t port_base;
    uint32_t port_end;
};
/* What firmware leaves behind: PIRQ routing, ACPI block, BAR addresses, interrupt line registers. After each reset. */
void pci_host_set_up(struct pci_host *host, const struct pci_host_setup *setup);

#endif
