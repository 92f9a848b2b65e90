/*
 * The APIC bus (SDM vol. 3A, 11.6, 11.8 and 11.11): finds who a message is for, and keeps the local APICs' register
 * pages on the device bus, each processor seeing its own.
 */
#include "devices/apic_bus.h"

#include <stdlib.h>

#include "devices/ioapic.h"

enum { PAGE_SIZE = 0x1000 };
#define MSI_BASE         0xFEE00000u
#define WIDE_BROADCAST   0xFFFFFFFFu
#define NARROW_BROADCAST 0xFFu

/* One address at which local APICs have their page: normally just FEE00000h, shared by all. */
struct apic_page {
    struct apic_bus *apic_bus;
    uint64_t base;
    unsigned users;
    bool is_attached; /* not where another device lives */
};

struct apic_bus {
    struct apic_bus_config config;
    struct ioapic *ioapic;
    unsigned count, next_lowest;
    struct lapic **lapic;   /* config.lapic_limit entries; NULL where one was disconnected */
    struct apic_page *page; /* one for each local APIC, and one while a page moves */
};

/* ---- Register pages ---- */

static struct lapic *page_owner(const struct apic_page *page) {
    const struct apic_bus *apic_bus = page->apic_bus;
    const struct apic_bus_config *config = &apic_bus->config;
    const unsigned index = config->current_cpu ? config->current_cpu(config->current_cpu_opaque) : 0;
    struct lapic *lapic = index < apic_bus->count ? apic_bus->lapic[index] : NULL;
    return lapic && lapic_page_address(lapic) == page->base ? lapic : NULL;
}

static uint64_t page_read(void *device, uint64_t offset, unsigned size) {
    struct lapic *lapic = page_owner(device);
    return lapic ? lapic_page_ops.read(lapic, offset, size) : UINT64_MAX;
}

static void page_write(void *device, uint64_t offset, unsigned size, uint64_t value) {
    struct lapic *lapic = page_owner(device);
    if (lapic)
        lapic_page_ops.write(lapic, offset, size, value);
}

static const struct bus_ops shared_page_ops = {.read = page_read, .write = page_write, .min_size = 1, .max_size = 4, .is_light = true};

static struct apic_page *find_page(struct apic_bus *apic_bus, uint64_t base) {
    struct apic_page *unused = NULL;
    for (unsigned i = 0; i <= apic_bus->config.lapic_limit; i++) {
        struct apic_page *page = &apic_bus->page[i];
        if (page->users && page->base == base)
            return page;
        if (!page->users)
            unused = page;
    }
    return unused;
}

static void use_page(struct apic_bus *apic_bus, uint64_t base) {
    struct apic_page *page = find_page(apic_bus, base);
    if (page->users++)
        return;
    page->base = base;
    page->is_attached = apic_bus->config.bus && bus_attach(apic_bus->config.bus, TRAPEZE_MMIO, base, PAGE_SIZE,
                                                           &shared_page_ops, page, "local APIC") == BUS_OK;
}

static void leave_page(struct apic_bus *apic_bus, uint64_t base) {
    struct apic_page *page = find_page(apic_bus, base);
    if (!page || !page->users || --page->users)
        return;
    if (page->is_attached)
        bus_detach(apic_bus->config.bus, TRAPEZE_MMIO, base);
    page->is_attached = false;
}

void apic_bus_move_page(struct apic_bus *apic_bus, uint64_t was, uint64_t is) {
    if (was == is)
        return;
    if (was != UINT64_MAX)
        leave_page(apic_bus, was);
    if (is != UINT64_MAX)
        use_page(apic_bus, is);
}

/* ---- Messages ---- */

static bool is_broadcast(const struct apic_message *message) {
    return message->destination == (message->is_wide ? WIDE_BROADCAST : NARROW_BROADCAST);
}

static bool is_addressed(const struct lapic *lapic, const struct apic_message *message) {
    if (!lapic || !lapic_is_enabled(lapic))
        return false;
    if (is_broadcast(message))
        return true;
    return message->is_logical ? lapic_matches_logical(lapic, message->destination)
                               : lapic_matches_physical(lapic, message->destination);
}

/* The addressed processor with the lowest priority (11.6.2.4); among equals they take turns. */
static unsigned send_to_lowest(struct apic_bus *apic_bus, const struct apic_message *message) {
    struct lapic *best = NULL;
    unsigned best_index = 0;
    for (unsigned i = 0; i < apic_bus->count; i++) {
        const unsigned index = (apic_bus->next_lowest + i) % apic_bus->count;
        struct lapic *lapic = apic_bus->lapic[index];
        if (!is_addressed(lapic, message) || !lapic_is_software_enabled(lapic))
            continue;
        if (best && lapic_processor_priority(lapic) >= lapic_processor_priority(best))
            continue;
        best = lapic;
        best_index = index;
    }
    if (!best)
        return 0;
    apic_bus->next_lowest = best_index + 1;
    return lapic_accept(best, APIC_FIXED, message->vector, message->is_level);
}

unsigned apic_bus_send(struct apic_bus *apic_bus, const struct apic_message *message) {
    if (message->delivery == APIC_LOWEST_PRIORITY)
        return send_to_lowest(apic_bus, message);
    unsigned accepted = 0;
    for (unsigned i = 0; i < apic_bus->count; i++)
        if (is_addressed(apic_bus->lapic[i], message))
            accepted += lapic_accept(apic_bus->lapic[i], message->delivery, message->vector, message->is_level);
    return accepted;
}

static unsigned send_to_all_but(struct apic_bus *apic_bus, const struct lapic *excluded,
                                const struct apic_message *message) {
    unsigned accepted = 0;
    for (unsigned i = 0; i < apic_bus->count; i++) {
        struct lapic *lapic = apic_bus->lapic[i];
        if (lapic && lapic != excluded && lapic_is_enabled(lapic))
            accepted += lapic_accept(lapic, message->delivery, message->vector, message->is_level);
    }
    return accepted;
}

unsigned apic_bus_send_ipi(struct apic_bus *apic_bus, struct lapic *sender, enum apic_shorthand shorthand,
                           const struct apic_message *message) {
    switch (shorthand) {
    case APIC_TO_SELF:
        return lapic_accept(sender, message->delivery, message->vector, message->is_level);
    case APIC_TO_ALL:
        return send_to_all_but(apic_bus, NULL, message);
    case APIC_TO_OTHERS:
        return send_to_all_but(apic_bus, sender, message);
    case APIC_TO_DESTINATION:
        break;
    }
    return apic_bus_send(apic_bus, message);
}

/*
 * Address: destination 19:12, redirection hint 3, logical 2. Data: level 15, assert 14, delivery 10:8, vector 7:0. The
 * manual wants the logical bit ignored without the hint; processors do not, and Linux counts on that.
 */
void apic_bus_msi(struct apic_bus *apic_bus, uint64_t address, uint32_t data) {
    if (address >> 20 != MSI_BASE >> 20)
        return;
    const bool is_level = data & 1 << 15;
    if (is_level && !(data & 1 << 14))
        return;
    const struct apic_message message = {
        .delivery = (enum apic_delivery)(data >> 8 & 7),
        .vector = (uint8_t)data,
        .is_level = is_level,
        .is_logical = address & 1 << 2,
        .destination = address >> 12 & 0xFF,
    };
    apic_bus_send(apic_bus, &message);
}

void apic_bus_broadcast_eoi(struct apic_bus *apic_bus, unsigned vector) {
    if (apic_bus->ioapic)
        ioapic_eoi(apic_bus->ioapic, vector);
}

void apic_bus_retry(struct apic_bus *apic_bus) {
    if (apic_bus->ioapic)
        ioapic_retry(apic_bus->ioapic);
}

int apic_bus_acknowledge_extint(struct apic_bus *apic_bus) {
    return apic_bus->config.extint_acknowledge ? apic_bus->config.extint_acknowledge(apic_bus->config.extint_opaque)
                                               : -1;
}

void apic_bus_set_lint(void *target, unsigned pin, bool asserted) {
    struct apic_bus *apic_bus = target;
    for (unsigned i = 0; i < apic_bus->count; i++)
        if (apic_bus->lapic[i])
            lapic_set_lint(apic_bus->lapic[i], pin, asserted);
}

void apic_bus_reset(struct apic_bus *apic_bus) {
    for (unsigned i = 0; i < apic_bus->count; i++)
        if (apic_bus->lapic[i])
            lapic_reset(apic_bus->lapic[i]);
}

/* ---- Making and connecting ---- */

bool apic_bus_connect(struct apic_bus *apic_bus, struct lapic *lapic) {
    if (apic_bus->count == apic_bus->config.lapic_limit)
        return false;
    apic_bus->lapic[apic_bus->count++] = lapic;
    return true;
}

void apic_bus_disconnect(struct apic_bus *apic_bus, struct lapic *lapic) {
    for (unsigned i = 0; i < apic_bus->count; i++)
        if (apic_bus->lapic[i] == lapic)
            apic_bus->lapic[i] = NULL;
}

void apic_bus_set_ioapic(struct apic_bus *apic_bus, struct ioapic *ioapic) {
    apic_bus->ioapic = ioapic;
}

struct apic_bus *apic_bus_create(const struct apic_bus_config *config) {
    if (config->lapic_limit == 0 || config->lapic_limit > 255)
        return NULL;
    struct apic_bus *apic_bus = calloc(1, sizeof *apic_bus);
    if (!apic_bus)
        return NULL;
    apic_bus->config = *config;
    apic_bus->lapic = calloc(config->lapic_limit, sizeof(struct lapic *));
    apic_bus->page = calloc(config->lapic_limit + 1, sizeof *apic_bus->page);
    if (!apic_bus->lapic || !apic_bus->page) {
        apic_bus_destroy(apic_bus);
        return NULL;
    }
    for (unsigned i = 0; i <= config->lapic_limit; i++)
        apic_bus->page[i].apic_bus = apic_bus;
    return apic_bus;
}

void apic_bus_destroy(struct apic_bus *apic_bus) {
    if (!apic_bus)
        return;
    free(apic_bus->lapic);
    free(apic_bus->page);
    free(apic_bus);
}
