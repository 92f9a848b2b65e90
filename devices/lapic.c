/*
 * The local APIC's heart (SDM vol. 3A, chapter 11): request, service and trigger registers, priorities, the local
 * vector table, the pins, and messages in both directions.
 *
 * Nothing here recurses on guest input: a delivery only sets bits, an EOI can at most set them again, and an error
 * found while an error is delivered is recorded and not delivered.
 */
#include "devices/lapic_state.h"

#include <stdlib.h>

#include "devices/apic_bus.h"

enum { LOWEST_VECTOR = 16 }; /* 11.5.2: 0..15 are illegal */
#define RESET_BASE 0xFEE00000u

/* Interrupt command register (11.6.1). */
enum { ICR_LOGICAL = 1 << 11, ICR_ASSERT = 1 << 14, ICR_LEVEL = 1 << 15 };

/* ---- Vector sets ---- */

static bool vectors_test(const struct lapic_vectors *vectors, unsigned vector) {
    return vectors->word[vector / 32] >> vector % 32 & 1;
}

static void vectors_assign(struct lapic_vectors *vectors, unsigned vector, bool value) {
    const uint32_t bit = 1u << vector % 32;
    vectors->word[vector / 32] = value ? vectors->word[vector / 32] | bit : vectors->word[vector / 32] & ~bit;
}

static int vectors_highest(const struct lapic_vectors *vectors) {
    for (int i = 7; i >= 0; i--)
        if (vectors->word[i])
            return i * 32 + 31 - __builtin_clz(vectors->word[i]);
    return -1;
}

/* ---- State ---- */

bool lapic_is_enabled(const struct lapic *lapic) {
    return lapic->base & BASE_ENABLE;
}

bool lapic_is_software_enabled(const struct lapic *lapic) {
    return lapic_is_enabled(lapic) && (lapic->svr & SVR_ENABLE);
}

bool lapic_is_x2apic(const struct lapic *lapic) {
    return lapic->base & BASE_X2APIC;
}

uint64_t lapic_page_address(const struct lapic *lapic) {
    return lapic_is_enabled(lapic) && !lapic_is_x2apic(lapic) ? lapic->base & ~UINT64_C(0xFFF) : UINT64_MAX;
}

/* 11.12.10.2: the cluster is bits 19:4 of the id, the bit in it bits 3:0. */
uint32_t lapic_x2apic_ldr(const struct lapic *lapic) {
    return lapic->config.id >> 4 << 16 | 1u << (lapic->config.id & 0xF);
}

/* 11.8.3.1 */
unsigned lapic_processor_priority(const struct lapic *lapic) {
    const int in_service = vectors_highest(&lapic->isr);
    const unsigned service_class = in_service < 0 ? 0 : (unsigned)in_service & 0xF0;
    return (lapic->tpr & 0xF0u) >= service_class ? lapic->tpr : service_class;
}

bool lapic_matches_physical(const struct lapic *lapic, uint32_t destination) {
    return destination == (lapic_is_x2apic(lapic) ? lapic->config.id : lapic->id);
}

/* 11.6.2.2 and 11.12.10.1 */
bool lapic_matches_logical(const struct lapic *lapic, uint32_t destination) {
    if (lapic_is_x2apic(lapic)) {
        const uint32_t ldr = lapic_x2apic_ldr(lapic);
        return destination >> 16 == ldr >> 16 && (destination & ldr & 0xFFFF);
    }
    if (destination > 0xFF)
        return false;
    if (lapic->dfr_model == 0xF)
        return destination & lapic->ldr;
    return lapic->dfr_model == 0 && destination >> 4 == lapic->ldr >> 4 && (destination & lapic->ldr & 0xF);
}

/* ---- Towards the processor ---- */

/* With the APIC disabled, its pin is the processor's INTR (11.4.3). */
static bool has_extint_request(const struct lapic *lapic) {
    const uint32_t entry = lapic->lvt[LVT_LINT0];
    const bool is_connected = !lapic_is_enabled(lapic) || (!(entry & LVT_MASKED) && (entry >> 8 & 7) == APIC_EXTINT);
    return (lapic->lint[0] && is_connected) || lapic->has_extint;
}

/* The vector that the processor may take now, or -1. */
static int deliverable_vector(const struct lapic *lapic) {
    const int vector = vectors_highest(&lapic->irr);
    if (vector < 0 || !lapic_is_enabled(lapic))
        return -1;
    return ((unsigned)vector & 0xF0) > (lapic_processor_priority(lapic) & 0xF0) ? vector : -1;
}

void lapic_update(struct lapic *lapic) {
    const bool asserted = has_extint_request(lapic) || deliverable_vector(lapic) >= 0;
    if (asserted == lapic->is_intr_asserted)
        return;
    lapic->is_intr_asserted = asserted;
    lapic->config.cpu.set_intr(lapic->config.cpu.opaque, asserted);
}

int lapic_acknowledge(struct lapic *lapic) {
    int vector = -1;
    if (has_extint_request(lapic)) {
        lapic->has_extint = false;
        vector = apic_bus_acknowledge_extint(lapic->apic_bus);
    }
    if (vector < 0) {
        vector = deliverable_vector(lapic);
        if (vector >= 0) {
            vectors_assign(&lapic->irr, (unsigned)vector, false);
            vectors_assign(&lapic->isr, (unsigned)vector, true);
        }
    }
    lapic_update(lapic);
    return vector;
}

static void signal_processor(struct lapic *lapic, enum trapeze_signal signal, unsigned vector) {
    lapic->config.cpu.signal(lapic->config.cpu.opaque, signal, vector);
}

static void request(struct lapic *lapic, unsigned vector, bool is_level) {
    vectors_assign(&lapic->irr, vector, true);
    vectors_assign(&lapic->tmr, vector, is_level);
    lapic_update(lapic);
}

/* ---- Errors ---- */

void lapic_record_error(struct lapic *lapic, uint8_t error) {
    if (lapic->esr_pending & error)
        return;
    lapic->esr_pending |= error;
    const uint32_t entry = lapic->lvt[LVT_ERROR];
    if (entry & LVT_MASKED)
        return;
    if ((entry & 0xFF) < LOWEST_VECTOR)
        lapic->esr_pending |= ESR_RECEIVE_ILLEGAL_VECTOR;
    else
        request(lapic, entry & 0xFF, false);
}

/* ---- Messages in ---- */

static bool accept_fixed(struct lapic *lapic, unsigned vector, bool is_level) {
    if (!lapic_is_software_enabled(lapic))
        return false;
    if (vector < LOWEST_VECTOR)
        lapic_record_error(lapic, ESR_RECEIVE_ILLEGAL_VECTOR);
    else
        request(lapic, vector, is_level);
    return vector >= LOWEST_VECTOR;
}

bool lapic_accept(struct lapic *lapic, enum apic_delivery delivery, unsigned vector, bool is_level) {
    if (!lapic_is_enabled(lapic))
        return false;
    switch (delivery) {
    case APIC_FIXED:
    case APIC_LOWEST_PRIORITY:
        return accept_fixed(lapic, vector, is_level);
    case APIC_NMI:
        signal_processor(lapic, TRAPEZE_SIGNAL_NMI, 0);
        return true;
    case APIC_INIT:
        lapic_init_reset(lapic);
        signal_processor(lapic, TRAPEZE_SIGNAL_INIT, 0);
        return true;
    case APIC_SIPI:
        signal_processor(lapic, TRAPEZE_SIGNAL_SIPI, vector);
        return true;
    case APIC_EXTINT:
        lapic->has_extint = true;
        lapic_update(lapic);
        return true;
    case APIC_SMI:
    case APIC_REMOTE_READ:
        break;
    }
    return false;
}

/* ---- Local vector table and pins ---- */

static bool entry_is_level(const struct lapic *lapic, enum lapic_entry entry) {
    return entry == LVT_LINT0 && (lapic->lvt[entry] & LVT_LEVEL); /* LINT1 is an edge always, 11.5.1 */
}

void lapic_deliver_entry(struct lapic *lapic, enum lapic_entry entry) {
    const uint32_t value = lapic->lvt[entry];
    if (value & LVT_MASKED)
        return;
    switch ((enum apic_delivery)(value >> 8 & 7)) {
    case APIC_FIXED:
        if (accept_fixed(lapic, value & 0xFF, entry_is_level(lapic, entry)) && entry_is_level(lapic, entry))
            lapic->lvt[entry] |= LVT_REMOTE_IRR;
        break;
    case APIC_NMI:
        signal_processor(lapic, TRAPEZE_SIGNAL_NMI, 0);
        break;
    case APIC_INIT:
        lapic_accept(lapic, APIC_INIT, 0, false);
        break;
    default: /* ExtINT is a level that has_extint_request looks at; the rest is not for the local table */
        break;
    }
}

/* A level entry's pin is still asserted, and nobody is at work on it. */
static void service_level_pin(struct lapic *lapic) {
    if (lapic->lint[0] && lapic_is_enabled(lapic) && entry_is_level(lapic, LVT_LINT0) &&
        !(lapic->lvt[LVT_LINT0] & LVT_REMOTE_IRR))
        lapic_deliver_entry(lapic, LVT_LINT0);
}

void lapic_set_lint(struct lapic *lapic, unsigned pin, bool asserted) {
    if (pin > 1)
        return;
    const bool is_edge = asserted && !lapic->lint[pin];
    const enum lapic_entry entry = pin ? LVT_LINT1 : LVT_LINT0;
    lapic->lint[pin] = asserted;
    if (!lapic_is_enabled(lapic)) { /* LINT1 is the processor's NMI then */
        if (is_edge && pin == 1)
            signal_processor(lapic, TRAPEZE_SIGNAL_NMI, 0);
    } else if (entry_is_level(lapic, entry)) {
        service_level_pin(lapic);
    } else if (is_edge) {
        lapic_deliver_entry(lapic, entry);
    }
    lapic_update(lapic);
}

/* What software can set in an entry; delivery status (12) and remote IRR (14) are read-only. */
static const uint32_t entry_writable[LVT_ENTRIES] = {
    [LVT_TIMER] = 0x700FF, [LVT_THERMAL] = 0x107FF, [LVT_PERFORMANCE] = 0x107FF,
    [LVT_LINT0] = 0x1A7FF, [LVT_LINT1] = 0x1A7FF,   [LVT_ERROR] = 0x100FF,
};

void lapic_write_entry(struct lapic *lapic, enum lapic_entry entry, uint32_t value) {
    value &= entry_writable[entry];
    if (!(lapic->svr & SVR_ENABLE))
        value |= LVT_MASKED; /* 11.4.7.2 */
    if (entry == LVT_TIMER) {
        if (!lapic->config.has_tsc_deadline)
            value &= ~(1u << 18);
        lapic_timer_write_entry(lapic, value);
        return;
    }
    if (value & LVT_LEVEL)
        value |= lapic->lvt[entry] & LVT_REMOTE_IRR;
    lapic->lvt[entry] = value;
    if (entry == LVT_LINT0)
        service_level_pin(lapic);
    lapic_update(lapic);
}

void lapic_write_svr(struct lapic *lapic, uint32_t value) {
    const bool was_enabled = lapic->svr & SVR_ENABLE;
    lapic->svr = value & 0x3FF;
    if (!(lapic->svr & SVR_ENABLE))
        for (unsigned entry = 0; entry < LVT_ENTRIES; entry++)
            lapic_write_entry(lapic, entry, lapic->lvt[entry]);
    else if (!was_enabled)
        apic_bus_retry(lapic->apic_bus);
    lapic_update(lapic);
}

/* ---- End of interrupt (11.8.5) ---- */

void lapic_eoi(struct lapic *lapic) {
    const int vector = vectors_highest(&lapic->isr);
    if (vector < 0)
        return;
    vectors_assign(&lapic->isr, (unsigned)vector, false);
    if (vectors_test(&lapic->tmr, (unsigned)vector)) {
        if ((lapic->lvt[LVT_LINT0] & LVT_REMOTE_IRR) && (lapic->lvt[LVT_LINT0] & 0xFF) == (uint32_t)vector) {
            lapic->lvt[LVT_LINT0] &= ~(uint32_t)LVT_REMOTE_IRR;
            service_level_pin(lapic);
        }
        apic_bus_broadcast_eoi(lapic->apic_bus, (unsigned)vector);
    }
    lapic_update(lapic);
}

unsigned lapic_get_tpr(const struct lapic *lapic) {
    return lapic->tpr >> 4;
}

void lapic_set_tpr(struct lapic *lapic, unsigned tpr) {
    lapic->tpr = (uint8_t)(tpr << 4);
    lapic_update(lapic);
}

/* ---- Messages out ---- */

void lapic_self_ipi(struct lapic *lapic, uint8_t vector) {
    if (vector < LOWEST_VECTOR)
        lapic_record_error(lapic, ESR_SEND_ILLEGAL_VECTOR);
    else
        lapic_accept(lapic, APIC_FIXED, vector, false);
}

void lapic_send_ipi(struct lapic *lapic) {
    const uint32_t low = lapic->icr_low;
    const bool is_wide = lapic_is_x2apic(lapic);
    const struct apic_message message = {
        .delivery = (enum apic_delivery)(low >> 8 & 7),
        .vector = (uint8_t)low,
        .is_level = false, /* 11.6.1: the trigger mode only tells an INIT de-assert */
        .is_logical = low & ICR_LOGICAL,
        .is_wide = is_wide,
        .destination = is_wide ? lapic->icr_high : lapic->icr_high >> 24,
    };
    switch (message.delivery) {
    case APIC_FIXED:
    case APIC_LOWEST_PRIORITY:
        if (message.vector >= LOWEST_VECTOR)
            break;
        lapic_record_error(lapic, ESR_SEND_ILLEGAL_VECTOR);
        return;
    case APIC_INIT:
        if ((low & ICR_LEVEL) && !(low & ICR_ASSERT))
            return; /* de-assert: nothing but old arbitration ids would change */
        break;
    case APIC_NMI:
    case APIC_SIPI:
        break;
    default: /* SMI is not modelled; remote read and ExtINT are reserved in the ICR */
        return;
    }
    apic_bus_send_ipi(lapic->apic_bus, lapic, (enum apic_shorthand)(low >> 18 & 3), &message);
}

/* ---- Reset and making ---- */

void lapic_reset_registers(struct lapic *lapic) {
    static const struct lapic_vectors none;
    lapic_timer_reset(lapic);
    lapic->tpr = 0;
    lapic->ldr = 0;
    lapic->dfr_model = 0xF;
    lapic->svr = 0xFF;
    lapic->esr = lapic->esr_pending = 0;
    lapic->icr_low = lapic->icr_high = 0;
    for (unsigned i = 0; i < LVT_ENTRIES; i++)
        lapic->lvt[i] = LVT_MASKED;
    lapic->irr = lapic->isr = lapic->tmr = none;
    lapic->has_extint = false;
    lapic_update(lapic);
}

void lapic_init_reset(struct lapic *lapic) {
    lapic_reset_registers(lapic);
    if (lapic->config.is_boot_processor)
        lapic->lvt[LVT_LINT0] = APIC_EXTINT << 8;
    lapic_update(lapic);
}

void lapic_reset(struct lapic *lapic) {
    const uint64_t was = lapic_page_address(lapic);
    lapic->base = RESET_BASE | BASE_ENABLE | (lapic->config.is_boot_processor ? BASE_BOOT_PROCESSOR : 0);
    lapic->id = (uint8_t)lapic->config.id;
    apic_bus_move_page(lapic->apic_bus, was, lapic_page_address(lapic));
    lapic_init_reset(lapic);
    /* Said again even where it has not changed: the processor was reset as well. */
    lapic->config.cpu.set_intr(lapic->config.cpu.opaque, lapic->is_intr_asserted);
}

struct lapic *lapic_create(struct apic_bus *apic_bus, const struct lapic_config *config) {
    const unsigned bits = config->physical_address_bits;
    if (config->id >= 255 || (bits && (bits < 32 || bits > 52)) || (config->has_tsc_deadline && !config->tsc_hz))
        return NULL;
    struct lapic *lapic = calloc(1, sizeof *lapic);
    if (!lapic)
        return NULL;
    lapic->config = *config;
    if (bits == 0)
        lapic->config.physical_address_bits = 36;
    lapic->apic_bus = apic_bus;
    lapic_timer_init(lapic);
    if (!apic_bus_connect(apic_bus, lapic)) {
        free(lapic);
        return NULL;
    }
    lapic_reset(lapic);
    return lapic;
}

void lapic_destroy(struct lapic *lapic) {
    if (!lapic)
        return;
    clock_timer_cancel(&lapic->timer.alarm);
    apic_bus_move_page(lapic->apic_bus, lapic_page_address(lapic), UINT64_MAX);
    apic_bus_disconnect(lapic->apic_bus, lapic);
    free(lapic);
}
