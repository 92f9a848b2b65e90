/*
 * The I/O APIC (82093AA data sheet, chapter 3): index and data register, 24 redirection entries, level and edge pins.
 *
 * A level pin fires again from its EOI, never from within a delivery, so a line that stays asserted costs the guest its
 * own time and nothing here recurses. Polarity is stored and has no effect: the machine's lines are logical levels.
 */
#include "devices/ioapic.h"

#include <stdlib.h>
#include <string.h>

#include "devices/apic_bus.h"

enum { REGISTER_INDEX = 0x00, REGISTER_DATA = 0x10, REGISTER_EOI = 0x40 };
enum { INDEX_ID = 0x00, INDEX_VERSION = 0x01, INDEX_ARBITRATION = 0x02, INDEX_REDIRECTION = 0x10 };
enum { VERSION = 0x20 };

/* Redirection entry (3.2.4). */
enum {
    ENTRY_LOGICAL = 1 << 11,
    ENTRY_STATUS = 1 << 12,
    ENTRY_REMOTE_IRR = 1 << 14,
    ENTRY_LEVEL = 1 << 15,
    ENTRY_MASKED = 1 << 16,
    ENTRY_LOW_WRITABLE = 0x1AFFF, /* without delivery status and remote IRR */
};
#define ENTRY_HIGH_WRITABLE 0xFF000000u

struct ioapic {
    struct apic_bus *apic_bus;
    uint8_t initial_id, id, index;
    uint32_t asserted; /* one bit a pin */
    struct {
        uint32_t low, high;
    } entry[IOAPIC_PINS];
};

static bool entry_is_level(const struct ioapic *ioapic, unsigned pin) {
    return ioapic->entry[pin].low & ENTRY_LEVEL;
}

static unsigned send_entry(struct ioapic *ioapic, unsigned pin) {
    const uint32_t low = ioapic->entry[pin].low;
    const struct apic_message message = {
        .delivery = (enum apic_delivery)(low >> 8 & 7),
        .vector = (uint8_t)low,
        .is_level = low & ENTRY_LEVEL,
        .is_logical = low & ENTRY_LOGICAL,
        .destination = ioapic->entry[pin].high >> 24,
    };
    return apic_bus_send(ioapic->apic_bus, &message);
}

/* Only these wait for an EOI; the others are edges whatever the trigger mode says. */
static bool delivery_has_eoi(uint32_t low) {
    const unsigned delivery = low >> 8 & 7;
    return delivery == APIC_FIXED || delivery == APIC_LOWEST_PRIORITY;
}

/* Remote IRR is set only by a local APIC that accepts: 3.2.4. */
static void service_level(struct ioapic *ioapic, unsigned pin) {
    const uint32_t low = ioapic->entry[pin].low;
    if (!(ioapic->asserted >> pin & 1) || (low & (ENTRY_MASKED | ENTRY_REMOTE_IRR)))
        return;
    if (send_entry(ioapic, pin) && delivery_has_eoi(low))
        ioapic->entry[pin].low |= ENTRY_REMOTE_IRR;
}

void ioapic_set(void *target, unsigned pin, bool asserted) {
    struct ioapic *ioapic = target;
    if (pin >= IOAPIC_PINS)
        return;
    const uint32_t bit = 1u << pin;
    const bool was_asserted = ioapic->asserted & bit;
    ioapic->asserted = asserted ? ioapic->asserted | bit : ioapic->asserted & ~bit;
    if (!asserted)
        return;
    if (entry_is_level(ioapic, pin))
        service_level(ioapic, pin);
    else if (!was_asserted && !(ioapic->entry[pin].low & ENTRY_MASKED)) /* an edge while masked is lost */
        send_entry(ioapic, pin);
}

void ioapic_eoi(struct ioapic *ioapic, unsigned vector) {
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        if ((ioapic->entry[pin].low & 0xFF) != vector || !(ioapic->entry[pin].low & ENTRY_REMOTE_IRR))
            continue;
        ioapic->entry[pin].low &= ~(uint32_t)ENTRY_REMOTE_IRR;
        service_level(ioapic, pin);
    }
}

void ioapic_retry(struct ioapic *ioapic) {
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        if (entry_is_level(ioapic, pin))
            service_level(ioapic, pin);
}

/* Edge mode has no remote IRR: switching to it and back is how system software without the EOI register clears it. */
static void write_entry_low(struct ioapic *ioapic, unsigned pin, uint32_t value) {
    const uint32_t remote_irr = (value & ENTRY_LEVEL) ? ioapic->entry[pin].low & ENTRY_REMOTE_IRR : 0;
    ioapic->entry[pin].low = (value & ENTRY_LOW_WRITABLE) | remote_irr;
    if (entry_is_level(ioapic, pin))
        service_level(ioapic, pin);
}

static void write_data(struct ioapic *ioapic, uint32_t value) {
    if (ioapic->index == INDEX_ID) {
        ioapic->id = value >> 24 & 0xF;
        return;
    }
    const unsigned word = ioapic->index - INDEX_REDIRECTION;
    if (ioapic->index < INDEX_REDIRECTION || word >= 2 * IOAPIC_PINS)
        return;
    if (word & 1)
        ioapic->entry[word / 2].high = value & ENTRY_HIGH_WRITABLE;
    else
        write_entry_low(ioapic, word / 2, value);
}

static uint32_t read_data(const struct ioapic *ioapic) {
    switch (ioapic->index) {
    case INDEX_ID:
    case INDEX_ARBITRATION: /* loaded with the ID, 3.2.3 */
        return (uint32_t)ioapic->id << 24;
    case INDEX_VERSION:
        return (IOAPIC_PINS - 1) << 16 | VERSION;
    default:
        break;
    }
    const unsigned word = ioapic->index - INDEX_REDIRECTION;
    if (ioapic->index < INDEX_REDIRECTION || word >= 2 * IOAPIC_PINS)
        return 0;
    return word & 1 ? ioapic->entry[word / 2].high : ioapic->entry[word / 2].low;
}

static uint64_t ioapic_read(void *device, uint64_t offset, unsigned size) {
    const struct ioapic *ioapic = device;
    (void)size;
    if (offset == REGISTER_INDEX)
        return ioapic->index;
    return offset == REGISTER_DATA ? read_data(ioapic) : 0;
}

static void ioapic_write(void *device, uint64_t offset, unsigned size, uint64_t value) {
    struct ioapic *ioapic = device;
    (void)size;
    if (offset == REGISTER_INDEX)
        ioapic->index = (uint8_t)value;
    else if (offset == REGISTER_DATA)
        write_data(ioapic, (uint32_t)value);
    else if (offset == REGISTER_EOI)
        ioapic_eoi(ioapic, value & 0xFF);
}

const struct bus_ops ioapic_ops = {.read = ioapic_read, .write = ioapic_write, .min_size = 1, .max_size = 4, .is_light = true};

/* Pins keep their levels: their devices drive them. */
void ioapic_reset(struct ioapic *ioapic) {
    ioapic->id = ioapic->initial_id;
    ioapic->index = 0;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        ioapic->entry[pin].low = ENTRY_MASKED;
        ioapic->entry[pin].high = 0;
    }
}

struct ioapic *ioapic_create(struct apic_bus *apic_bus, unsigned id) {
    struct ioapic *ioapic = calloc(1, sizeof *ioapic);
    if (!ioapic)
        return NULL;
    ioapic->apic_bus = apic_bus;
    ioapic->initial_id = id & 0xF;
    ioapic_reset(ioapic);
    apic_bus_set_ioapic(apic_bus, ioapic);
    return ioapic;
}

void ioapic_destroy(struct ioapic *ioapic) {
    if (!ioapic)
        return;
    apic_bus_set_ioapic(ioapic->apic_bus, NULL);
    free(ioapic);
}
