/*
 * PCI configuration space and base address registers (PCI 3.0, chapter 6), configuration mechanism 1 (3.2.2.3.2), and
 * INTx lines.
 *
 * A BAR that the guest puts where another device lives is not mapped; it is tried again whenever some BAR moves.
 * Left out: bridges, expansion ROMs, MSI (docs/limits.md).
 */
#include "devices/pci.h"

#include <stdlib.h>
#include <string.h>

enum { BAR_IS_PORT = 1, BAR_IS_64BIT = 4, BAR_IS_PREFETCHABLE = 8 };
enum { STATUS_INTX = 1 << 3, HEADER_MULTIFUNCTION = 0x80 };
enum { HEADER_END = 0x40 };
#define ADDRESS_ENABLE 0x80000000u

struct pci_bus {
    struct pci_bus_config config;
    uint32_t address; /* as written to CF8h */
    struct pci_function *function[PCI_SLOTS][PCI_FUNCTIONS];
    unsigned intx_count[4]; /* functions that assert each PIRQ */
};

/* ---- Configuration bytes ---- */

uint16_t pci_config_word(const struct pci_function *function, unsigned offset) {
    return (uint16_t)(function->config[offset] | function->config[offset + 1] << 8);
}

uint32_t pci_config_dword(const struct pci_function *function, unsigned offset) {
    return pci_config_word(function, offset) | (uint32_t)pci_config_word(function, offset + 2) << 16;
}

static void set_word(uint8_t *bytes, unsigned offset, uint16_t value) {
    bytes[offset] = (uint8_t)value;
    bytes[offset + 1] = (uint8_t)(value >> 8);
}

static void set_dword(uint8_t *bytes, unsigned offset, uint32_t value) {
    set_word(bytes, offset, (uint16_t)value);
    set_word(bytes, offset + 2, (uint16_t)(value >> 16));
}

void pci_config_set_word(struct pci_function *function, unsigned offset, uint16_t value) {
    set_word(function->config, offset, value);
}

void pci_config_set_dword(struct pci_function *function, unsigned offset, uint32_t value) {
    set_dword(function->config, offset, value);
}

void pci_function_init(struct pci_function *function, const char *name, const struct pci_identity *identity) {
    memset(function, 0, sizeof *function);
    function->name = name;
    uint8_t *config = function->config;
    set_word(config, PCI_VENDOR_ID, identity->vendor);
    set_word(config, PCI_DEVICE_ID, identity->device);
    set_dword(config, PCI_REVISION, identity->class_code << 8 | identity->revision);
    config[PCI_HEADER_TYPE] = identity->is_multifunction ? HEADER_MULTIFUNCTION : 0;
    set_word(config, PCI_SUBSYSTEM_VENDOR, identity->subsystem_vendor);
    set_word(config, PCI_SUBSYSTEM_ID, identity->subsystem);
    config[PCI_INTERRUPT_PIN] = identity->interrupt_pin;
    set_word(function->writable, PCI_COMMAND, 0x0547); /* I/O, memory, master, parity, SERR#, INTx off */
    function->writable[0x0C] = 0xFF;                   /* cache line size */
    function->writable[0x0D] = 0xFF;                   /* latency timer */
    function->writable[PCI_INTERRUPT_LINE] = 0xFF;
}

/* ---- Base address registers ---- */

static bool bar_is_described_well(const struct pci_function *function, unsigned index) {
    const struct pci_bar *bar = &function->bar[index];
    if (bar->size == 0)
        return true;
    if ((bar->size & (bar->size - 1)) || !bar->ops)
        return false;
    if (bar->space == TRAPEZE_PORT)
        return bar->size >= 4 && bar->size <= 256 && !bar->is_64bit;
    if (bar->size < 16)
        return false;
    if (bar->is_64bit)
        return index + 1 < PCI_BARS && function->bar[index + 1].size == 0;
    return bar->size <= UINT64_C(1) << 31;
}

/* The type bits, and which address bits can be written: that is how software finds the size (6.2.5.1). */
static void describe_bar(struct pci_function *function, unsigned index) {
    const struct pci_bar *bar = &function->bar[index];
    const unsigned offset = PCI_BAR0 + 4 * index;
    if (bar->size == 0)
        return;
    const uint64_t writable = ~(bar->size - 1);
    uint32_t type = bar->space == TRAPEZE_PORT ? BAR_IS_PORT : 0;
    type |= bar->is_64bit ? BAR_IS_64BIT : 0;
    type |= bar->is_prefetchable ? BAR_IS_PREFETCHABLE : 0;
    set_dword(function->config, offset, type);
    set_dword(function->writable, offset, (uint32_t)writable);
    if (bar->is_64bit)
        set_dword(function->writable, offset + 4, (uint32_t)(writable >> 32));
}

static uint64_t bar_address(const struct pci_function *function, unsigned index) {
    const struct pci_bar *bar = &function->bar[index];
    const unsigned offset = PCI_BAR0 + 4 * index;
    uint64_t address = pci_config_dword(function, offset);
    if (bar->is_64bit)
        address |= (uint64_t)pci_config_dword(function, offset + 4) << 32;
    return address & ~(bar->size - 1);
}

/* Decoding is on, and the address is one: neither unset nor the all-ones that sizes a BAR. */
static bool bar_is_decoded(const struct pci_function *function, unsigned index) {
    const struct pci_bar *bar = &function->bar[index];
    if (bar->size == 0 || !function->bus->config.bus)
        return false;
    const uint64_t address = bar_address(function, index);
    if (bar->space == TRAPEZE_PORT)
        return (function->config[PCI_COMMAND] & PCI_COMMAND_IO) && address != 0 && address <= 0x10000 - bar->size;
    const uint64_t sizing = (bar->is_64bit ? UINT64_MAX : UINT32_MAX) & ~(bar->size - 1);
    return (function->config[PCI_COMMAND] & PCI_COMMAND_MEMORY) && address != 0 && address != sizing;
}

static void unmap_bar(struct pci_function *function, unsigned index) {
    struct pci_bar *bar = &function->bar[index];
    if (bar->is_mapped)
        bus_detach(function->bus->config.bus, bar->space, bar->mapped_at);
    bar->is_mapped = false;
}

static void map_bar(struct pci_function *function, unsigned index) {
    struct pci_bar *bar = &function->bar[index];
    if (bar->is_mapped || !bar_is_decoded(function, index))
        return;
    bar->mapped_at = bar_address(function, index);
    bar->is_mapped = bus_attach(function->bus->config.bus, bar->space, bar->mapped_at, bar->size, bar->ops, bar->device,
                                function->name) == BUS_OK;
}

static void map_all_bars(struct pci_bus *bus) {
    for (unsigned i = 0; i < PCI_SLOTS * PCI_FUNCTIONS; i++) {
        struct pci_function *function = bus->function[i / PCI_FUNCTIONS][i % PCI_FUNCTIONS];
        for (unsigned index = 0; function && index < PCI_BARS; index++)
            map_bar(function, index);
    }
}

/* After the command register or a BAR was written. */
static void update_bars(struct pci_function *function) {
    for (unsigned index = 0; index < PCI_BARS; index++) {
        const struct pci_bar *bar = &function->bar[index];
        if (bar->is_mapped && (!bar_is_decoded(function, index) || bar_address(function, index) != bar->mapped_at))
            unmap_bar(function, index);
    }
    map_all_bars(function->bus);
}

/* ---- INTx ---- */

static void update_intx(struct pci_function *function) {
    const unsigned pin = function->config[PCI_INTERRUPT_PIN];
    const bool is_off = pci_config_word(function, PCI_COMMAND) & PCI_COMMAND_INTX_OFF;
    const bool asserted = function->is_intx_asserted && !is_off;
    if (function->is_intx_asserted)
        function->config[PCI_STATUS] |= STATUS_INTX;
    else
        function->config[PCI_STATUS] &= (uint8_t)~STATUS_INTX;
    if (asserted == function->is_intx_told || pin == 0 || pin > 4 || !function->bus)
        return;
    function->is_intx_told = asserted;
    const unsigned line = (function->slot + pin - 1 + 3) & 3;
    unsigned *count = &function->bus->intx_count[line];
    *count += asserted ? 1u : -1u;
    irq_set(&function->bus->config.pirq[line], *count != 0);
}

void pci_set_intx(struct pci_function *function, bool asserted) {
    function->is_intx_asserted = asserted;
    update_intx(function);
}

/* ---- Configuration accesses ---- */

uint32_t pci_config_read(struct pci_bus *bus, unsigned slot, unsigned number, unsigned offset, unsigned size) {
    const struct pci_function *function = bus->function[slot][number];
    uint32_t value = 0xFFFFFFFF;
    if (!function)
        return value;
    value = pci_config_dword(function, offset & ~3u) >> (offset & 3) * 8;
    return size == 4 ? value : value & ((1u << size * 8) - 1);
}

static bool ranges_meet(unsigned offset, unsigned size, unsigned start, unsigned end) {
    return offset < end && offset + size > start;
}

void pci_config_write(struct pci_bus *bus, unsigned slot, unsigned number, unsigned offset, unsigned size,
                      uint32_t value) {
    struct pci_function *function = bus->function[slot][number];
    if (!function)
        return;
    for (unsigned i = 0; i < size; i++) {
        const uint8_t writable = function->writable[offset + i];
        uint8_t *byte = &function->config[offset + i];
        *byte = (uint8_t)((*byte & ~writable) | (value >> i * 8 & writable));
    }
    const bool is_command = ranges_meet(offset, size, PCI_COMMAND, PCI_COMMAND + 2);
    if (is_command)
        update_intx(function);
    if (is_command || ranges_meet(offset, size, PCI_BAR0, PCI_BAR0 + 4 * PCI_BARS))
        update_bars(function);
    else if (function->config_written)
        function->config_written(function->opaque, offset, size);
}

/* ---- Ports CF8h..CFFh: only a dword is the address register, bytes there are other chips' ports ---- */

static uint64_t ports_read(void *device, uint64_t offset, unsigned size) {
    struct pci_bus *bus = device;
    const uint32_t address = bus->address;
    if (offset == 0 && size == 4)
        return address;
    if (offset == 1 && size == 1 && bus->config.reset_control_ops)
        return bus->config.reset_control_ops->read(bus->config.reset_control, 0, 1);
    if (offset < 4 || !(address & ADDRESS_ENABLE) || (address >> 16 & 0xFF))
        return UINT64_MAX;
    return pci_config_read(bus, address >> 11 & 31, address >> 8 & 7, (address & 0xFC) + (offset & 3), size);
}

static void ports_write(void *device, uint64_t offset, unsigned size, uint64_t value) {
    struct pci_bus *bus = device;
    const uint32_t address = bus->address;
    if (offset == 0 && size == 4)
        bus->address = (uint32_t)value & (ADDRESS_ENABLE | 0xFFFFFC);
    else if (offset == 1 && size == 1 && bus->config.reset_control_ops)
        bus->config.reset_control_ops->write(bus->config.reset_control, 0, 1, value);
    else if (offset >= 4 && (address & ADDRESS_ENABLE) && !(address >> 16 & 0xFF))
        pci_config_write(bus, address >> 11 & 31, address >> 8 & 7, (address & 0xFC) + (offset & 3), size,
                         (uint32_t)value);
}

const struct bus_ops pci_config_ops = {.read = ports_read, .write = ports_write, .min_size = 1, .max_size = 4};

/* ---- Plugging, reset ---- */

bool pci_plug(struct pci_bus *bus, struct pci_function *function, unsigned slot, unsigned number) {
    if (slot >= PCI_SLOTS || number >= PCI_FUNCTIONS || bus->function[slot][number])
        return false;
    for (unsigned index = 0; index < PCI_BARS; index++)
        if (!bar_is_described_well(function, index))
            return false;
    for (unsigned index = 0; index < PCI_BARS; index++)
        describe_bar(function, index);
    function->bus = bus;
    function->slot = slot;
    function->number = number;
    bus->function[slot][number] = function;
    return true;
}

void pci_unplug(struct pci_function *function) {
    struct pci_bus *bus = function->bus;
    if (!bus)
        return;
    pci_set_intx(function, false);
    for (unsigned index = 0; index < PCI_BARS; index++)
        unmap_bar(function, index);
    bus->function[function->slot][function->number] = NULL;
    function->bus = NULL;
}

void pci_function_reset(struct pci_function *function) {
    for (unsigned offset = 0; offset < HEADER_END; offset++)
        function->config[offset] &= (uint8_t)~function->writable[offset];
    pci_set_intx(function, false);
    if (function->bus)
        update_bars(function);
}

void pci_bus_reset(struct pci_bus *bus) {
    bus->address = 0;
    for (unsigned i = 0; i < PCI_SLOTS * PCI_FUNCTIONS; i++) {
        struct pci_function *function = bus->function[i / PCI_FUNCTIONS][i % PCI_FUNCTIONS];
        if (function)
            pci_function_reset(function);
    }
}

struct pci_bus *pci_bus_create(const struct pci_bus_config *config) {
    struct pci_bus *bus = calloc(1, sizeof *bus);
    if (bus)
        bus->config = *config;
    return bus;
}

void pci_bus_destroy(struct pci_bus *bus) {
    if (!bus)
        return;
    for (unsigned i = 0; i < PCI_SLOTS * PCI_FUNCTIONS; i++) {
        struct pci_function *function = bus->function[i / PCI_FUNCTIONS][i % PCI_FUNCTIONS];
        if (function)
            pci_unplug(function);
    }
    free(bus);
}

/* ---- What firmware does ---- */

/* The next free address of each space. */
struct allocation {
    uint64_t next[2], end[2];
};

static void assign_bar(struct pci_function *function, unsigned index, struct allocation *allocation) {
    const struct pci_bar *bar = &function->bar[index];
    uint64_t *next = &allocation->next[bar->space];
    const uint64_t address = (*next + bar->size - 1) & ~(bar->size - 1);
    if (address == 0 || address + bar->size > allocation->end[bar->space])
        return;
    const unsigned offset = PCI_BAR0 + 4 * index;
    const uint8_t decoding = bar->space == TRAPEZE_PORT ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
    set_dword(function->config, offset, (pci_config_dword(function, offset) & 0xF) | (uint32_t)address);
    if (bar->is_64bit)
        set_dword(function->config, offset + 4, 0);
    function->config[PCI_COMMAND] |= decoding;
    *next = address + bar->size;
}

void pci_bus_assign(struct pci_bus *bus, uint32_t memory_base, uint32_t memory_end, uint16_t port_base,
                    uint32_t port_end) {
    struct allocation allocation = {
        .next = {[TRAPEZE_PORT] = port_base, [TRAPEZE_MMIO] = memory_base},
        .end = {[TRAPEZE_PORT] = port_end, [TRAPEZE_MMIO] = memory_end},
    };
    for (uint64_t size = UINT64_C(1) << 31; size >= 4; size /= 2)
        for (unsigned i = 0; i < PCI_SLOTS * PCI_FUNCTIONS; i++) {
            struct pci_function *function = bus->function[i / PCI_FUNCTIONS][i % PCI_FUNCTIONS];
            for (unsigned index = 0; function && index < PCI_BARS; index++)
                if (function->bar[index].size == size)
                    assign_bar(function, index, &allocation);
        }
    for (unsigned i = 0; i < PCI_SLOTS * PCI_FUNCTIONS; i++)
        if (bus->function[i / PCI_FUNCTIONS][i % PCI_FUNCTIONS])
            update_bars(bus->function[i / PCI_FUNCTIONS][i % PCI_FUNCTIONS]);
}
