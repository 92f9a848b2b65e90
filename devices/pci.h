/*
 * PCI: a bus of functions behind configuration mechanism 1 (PCI 3.0, 3.2.2.3.2 and chapter 6). One bus, type 0 headers.
 *
 * A device embeds a struct pci_function, fills in its header with pci_function_init, describes its base address
 * registers, and plugs it in. Where a BAR is mapped is the guest's choice: pci.c attaches and detaches the window on
 * the device bus, and the device sees offsets.
 *
 * Everything here is called under the device lock, or before any access is made.
 */
#ifndef DEVICES_PCI_H
#define DEVICES_PCI_H

#include "devices/bus.h"
#include "devices/irq.h"

enum { PCI_BARS = 6, PCI_CONFIG = 256, PCI_SLOTS = 32, PCI_FUNCTIONS = 8 };
enum { PCI_CONFIG_PORT = 0xCF8, PCI_CONFIG_PORTS = 8 };

/* Header registers (chapter 6.1) that devices ask for by name. */
enum {
    PCI_VENDOR_ID = 0x00,
    PCI_DEVICE_ID = 0x02,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_REVISION = 0x08,
    PCI_CLASS = 0x09, /* three bytes: interface, sub-class, base class */
    PCI_HEADER_TYPE = 0x0E,
    PCI_BAR0 = 0x10,
    PCI_SUBSYSTEM_VENDOR = 0x2C,
    PCI_SUBSYSTEM_ID = 0x2E,
    PCI_CAPABILITIES = 0x34,
    PCI_INTERRUPT_LINE = 0x3C,
    PCI_INTERRUPT_PIN = 0x3D
};
enum { PCI_COMMAND_IO = 1, PCI_COMMAND_MEMORY = 2, PCI_COMMAND_MASTER = 4, PCI_COMMAND_INTX_OFF = 1 << 10 };

struct pci_bus;

struct pci_bar {
    enum trapeze_space space;
    uint64_t size; /* a power of two, at least 4 (ports; at most 256) or 16 (memory); 0: there is no such BAR */
    bool is_64bit; /* memory only; takes the next BAR too, whose size must be 0 */
    bool is_prefetchable;
    const struct bus_ops *ops;
    void *device;
    /* Kept by pci.c. */
    bool is_mapped;
    uint64_t mapped_at;
};

struct pci_function {
    const char *name; /* static, for messages */
    uint8_t config[PCI_CONFIG];
    uint8_t writable[PCI_CONFIG]; /* bits that configuration writes change */
    struct pci_bar bar[PCI_BARS];
    /* After a write has changed config[offset .. offset + size); may be NULL. Not called for BARs and command. */
    void (*config_written)(void *opaque, unsigned offset, unsigned size);
    void *opaque;
    /* Kept by pci.c. */
    struct pci_bus *bus;
    unsigned slot, number;
    bool is_intx_asserted; /* what the device wants */
    bool is_intx_told;     /* what the bus was told: the command register can turn it off */
};

struct pci_identity {
    uint16_t vendor, device;
    uint32_t class_code; /* base class << 16 | sub-class << 8 | interface */
    uint8_t revision;
    uint8_t interrupt_pin; /* 1..4 for INTA..INTD; 0: none */
    bool is_multifunction;
    uint16_t subsystem_vendor, subsystem;
};

/* A header with `identity` in it and the standard writable bits; no BARs, no opaque. `name` is static. */
void pci_function_init(struct pci_function *function, const char *name, const struct pci_identity *identity);
/* Puts the function at slot.number. False where the place is taken or out of range, or a BAR is badly described. */
bool pci_plug(struct pci_bus *bus, struct pci_function *function, unsigned slot, unsigned number);
/* Unmaps its BARs and lowers its interrupt; a function that is not plugged in stays as it is. */
void pci_unplug(struct pci_function *function);
/* RESET: command, BARs, interrupt line and pin go back; the device's own registers are its own affair. */
void pci_function_reset(struct pci_function *function);

/* The level of the function's INTx. */
void pci_set_intx(struct pci_function *function, bool asserted);

/* Little-endian views of the configuration space, for devices; no effects. */
uint16_t pci_config_word(const struct pci_function *function, unsigned offset);
uint32_t pci_config_dword(const struct pci_function *function, unsigned offset);
void pci_config_set_word(struct pci_function *function, unsigned offset, uint16_t value);
void pci_config_set_dword(struct pci_function *function, unsigned offset, uint32_t value);

/* A configuration access as a host bridge makes it; offset + size must stay in its dword. */
uint32_t pci_config_read(struct pci_bus *bus, unsigned slot, unsigned number, unsigned offset, unsigned size);
void pci_config_write(struct pci_bus *bus, unsigned slot, unsigned number, unsigned offset, unsigned size,
                      uint32_t value);

struct pci_bus_config {
    struct bus *bus; /* where BARs are mapped */
    /* The four PIRQ lines; INTx pin p (0..3) of slot s drives line (s + p + 3) mod 4, as on a 440FX board. */
    struct irq_line pirq[4];
    /* Who answers byte accesses to port CF9h, in the middle of the configuration address; NULL: nobody. */
    const struct bus_ops *reset_control_ops;
    void *reset_control;
};

/* NULL: no memory. */
struct pci_bus *pci_bus_create(const struct pci_bus_config *config);
/* Functions must have been unplugged, or outlive nothing: their BARs are unmapped. */
void pci_bus_destroy(struct pci_bus *bus);
void pci_bus_reset(struct pci_bus *bus);

/* PCI_CONFIG_PORTS ports at PCI_CONFIG_PORT; the device is a struct pci_bus. */
extern const struct bus_ops pci_config_ops;

/*
 * What firmware does before it starts an operating system: gives each BAR an address in the two windows (ends are
 * exclusive), largest first, and turns on decoding. BARs that don't fit stay off. For guests booted without firmware.
 */
void pci_bus_assign(struct pci_bus *bus, uint32_t memory_base, uint32_t memory_end, uint16_t port_base,
                    uint32_t port_end);

#endif
