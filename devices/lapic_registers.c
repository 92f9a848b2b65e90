/*
 * How a processor sees its local APIC: the xAPIC register page (SDM vol. 3A, 11.4.1), the x2APIC MSRs (11.12.1),
 * IA32_APIC_BASE with its mode switches (11.12.5) and IA32_TSC_DEADLINE.
 *
 * Registers are numbered as their x2APIC MSRs are, from 800h: page offset / 16.
 */
#include "devices/lapic_state.h"

#include "devices/apic_bus.h"

enum {
    REGISTER_ID = 0x02,
    REGISTER_VERSION = 0x03,
    REGISTER_TPR = 0x08,
    REGISTER_APR = 0x09,
    REGISTER_PPR = 0x0A,
    REGISTER_EOI = 0x0B,
    REGISTER_RRD = 0x0C,
    REGISTER_LDR = 0x0D,
    REGISTER_DFR = 0x0E,
    REGISTER_SVR = 0x0F,
    REGISTER_ISR = 0x10,
    REGISTER_TMR = 0x18,
    REGISTER_IRR = 0x20,
    REGISTER_ESR = 0x28,
    REGISTER_ICR_LOW = 0x30,
    REGISTER_ICR_HIGH = 0x31,
    REGISTER_LVT = 0x32,
    REGISTER_INITIAL_COUNT = 0x38,
    REGISTER_CURRENT_COUNT = 0x39,
    REGISTER_DIVIDE = 0x3E,
    REGISTER_SELF_IPI = 0x3F,
    REGISTERS = 0x40
};

enum { MSR_APIC_BASE = 0x1B, MSR_TSC_DEADLINE = 0x6E0, MSR_X2APIC = 0x800, MSR_X2APIC_END = 0x900 };

/* Version 14h, six local vector table entries, no EOI-broadcast suppression. */
#define VERSION      (0x14u | (LVT_ENTRIES - 1) << 16)
#define ICR_WRITABLE 0xCCFFFu
#define ICR_BUSY     0x1000u

/* ---- Both modes ---- */

static bool read_register(struct lapic *lapic, unsigned number, uint32_t *value) {
    if (number >= REGISTER_ISR && number < REGISTER_ESR) {
        const struct lapic_vectors *sets[] = {&lapic->isr, &lapic->tmr, &lapic->irr};
        *value = sets[(number - REGISTER_ISR) / 8]->word[number % 8];
        return true;
    }
    if (number >= REGISTER_LVT && number < REGISTER_LVT + LVT_ENTRIES) {
        *value = lapic->lvt[number - REGISTER_LVT];
        return true;
    }
    switch (number) {
    case REGISTER_ID:
        *value = lapic_is_x2apic(lapic) ? lapic->config.id : (uint32_t)lapic->id << 24;
        return true;
    case REGISTER_VERSION:
        *value = VERSION;
        return true;
    case REGISTER_TPR:
        *value = lapic->tpr;
        return true;
    case REGISTER_PPR:
        *value = lapic_processor_priority(lapic);
        return true;
    case REGISTER_LDR:
        *value = lapic_is_x2apic(lapic) ? lapic_x2apic_ldr(lapic) : (uint32_t)lapic->ldr << 24;
        return true;
    case REGISTER_DFR:
        *value = (uint32_t)lapic->dfr_model << 28 | 0x0FFFFFFF;
        return true;
    case REGISTER_SVR:
        *value = lapic->svr;
        return true;
    case REGISTER_ESR:
        *value = lapic->esr;
        return true;
    case REGISTER_ICR_LOW:
        *value = lapic->icr_low;
        return true;
    case REGISTER_ICR_HIGH:
        *value = lapic->icr_high;
        return true;
    case REGISTER_INITIAL_COUNT:
        *value = lapic->timer.initial_count;
        return true;
    case REGISTER_CURRENT_COUNT:
        *value = lapic_timer_current(lapic);
        return true;
    case REGISTER_DIVIDE:
        *value = lapic->timer.divide;
        return true;
    case REGISTER_APR: /* gone since the Pentium 4, but no error to touch */
    case REGISTER_RRD:
    case REGISTER_EOI:
        *value = 0;
        return true;
    default:
        return false;
    }
}

static bool write_register(struct lapic *lapic, unsigned number, uint32_t value) {
    if (number >= REGISTER_LVT && number < REGISTER_LVT + LVT_ENTRIES) {
        lapic_write_entry(lapic, (enum lapic_entry)(number - REGISTER_LVT), value);
        return true;
    }
    switch (number) {
    case REGISTER_TPR:
        lapic->tpr = (uint8_t)value;
        lapic_update(lapic);
        return true;
    case REGISTER_EOI:
        lapic_eoi(lapic);
        return true;
    case REGISTER_SVR:
        lapic_write_svr(lapic, value);
        return true;
    case REGISTER_ESR: /* 11.5.3: a write, of whatever, latches the errors since the last one */
        lapic->esr = lapic->esr_pending;
        lapic->esr_pending = 0;
        return true;
    case REGISTER_ICR_LOW:
        lapic->icr_low = value & ICR_WRITABLE;
        lapic_send_ipi(lapic);
        return true;
    case REGISTER_INITIAL_COUNT:
        lapic_timer_write_initial(lapic, value);
        return true;
    case REGISTER_DIVIDE:
        lapic_timer_write_divide(lapic, value);
        return true;
    default:
        return false;
    }
}

/* ---- The xAPIC page ---- */

/* What only exists, or is only writable, in xAPIC mode. */
static bool write_xapic_register(struct lapic *lapic, unsigned number, uint32_t value) {
    switch (number) {
    case REGISTER_ID:
        lapic->id = (uint8_t)(value >> 24);
        return true;
    case REGISTER_LDR:
        lapic->ldr = (uint8_t)(value >> 24);
        return true;
    case REGISTER_DFR:
        lapic->dfr_model = (uint8_t)(value >> 28);
        return true;
    case REGISTER_ICR_HIGH:
        lapic->icr_high = value & 0xFF000000;
        return true;
    default:
        break;
    }
    if (write_register(lapic, number, value))
        return true;
    uint32_t ignored;
    return read_register(lapic, number, &ignored); /* read-only: no error */
}

/* Registers are dwords at multiples of 16; narrower reads get a part of one, and the gaps read as zero (11.4.1). */
static uint64_t page_read(void *device, uint64_t offset, unsigned size) {
    struct lapic *lapic = device;
    uint32_t value = 0;
    (void)size;
    if ((offset & 0xF) >= 4)
        return 0;
    if (offset / 16 >= REGISTERS)
        return 0;
    if (!read_register(lapic, (unsigned)(offset / 16), &value))
        lapic_record_error(lapic, ESR_ILLEGAL_REGISTER);
    return value >> (offset & 3) * 8;
}

static void page_write(void *device, uint64_t offset, unsigned size, uint64_t value) {
    struct lapic *lapic = device;
    if (size != 4 || (offset & 0xF) || offset / 16 >= REGISTERS)
        return;
    if (!write_xapic_register(lapic, (unsigned)(offset / 16), (uint32_t)value))
        lapic_record_error(lapic, ESR_ILLEGAL_REGISTER);
}

const struct bus_ops lapic_page_ops = {.read = page_read, .write = page_write, .min_size = 1, .max_size = 4, .is_light = true};

/* ---- The x2APIC MSRs ---- */

/* 11.12.1.2: which registers can be read and written, and the bits that are not reserved (else #GP). */
struct x2apic_register {
    bool is_readable, is_writable;
    uint32_t mask;
};

static const struct x2apic_register x2apic_registers[REGISTERS] = {
    [REGISTER_ID] = {true, false, 0},
    [REGISTER_VERSION] = {true, false, 0},
    [REGISTER_TPR] = {true, true, 0xFF},
    [REGISTER_PPR] = {true, false, 0},
    [REGISTER_EOI] = {false, true, 0},
    [REGISTER_LDR] = {true, false, 0},
    [REGISTER_SVR] = {true, true, 0x3FF},
    [REGISTER_ISR... REGISTER_ESR - 1] = {true, false, 0},
    [REGISTER_ESR] = {true, true, 0},
    [REGISTER_ICR_LOW] = {true, true, ICR_WRITABLE | ICR_BUSY},
    [REGISTER_LVT + LVT_TIMER] = {true, true, 0x710FF},
    [REGISTER_LVT + LVT_THERMAL] = {true, true, 0x117FF},
    [REGISTER_LVT + LVT_PERFORMANCE] = {true, true, 0x117FF},
    [REGISTER_LVT + LVT_LINT0] = {true, true, 0x1F7FF},
    [REGISTER_LVT + LVT_LINT1] = {true, true, 0x1F7FF},
    [REGISTER_LVT + LVT_ERROR] = {true, true, 0x110FF},
    [REGISTER_INITIAL_COUNT] = {true, true, 0xFFFFFFFF},
    [REGISTER_CURRENT_COUNT] = {true, false, 0},
    [REGISTER_DIVIDE] = {true, true, 0xB},
    [REGISTER_SELF_IPI] = {false, true, 0xFF},
};

static bool read_x2apic(struct lapic *lapic, unsigned number, uint64_t *value) {
    uint32_t low = 0;
    if (!lapic_is_x2apic(lapic) || number >= REGISTERS || !x2apic_registers[number].is_readable)
        return false;
    if (!read_register(lapic, number, &low))
        return false;
    *value = low | (number == REGISTER_ICR_LOW ? (uint64_t)lapic->icr_high << 32 : 0);
    return true;
}

static bool write_x2apic(struct lapic *lapic, unsigned number, uint64_t value) {
    if (!lapic_is_x2apic(lapic) || number >= REGISTERS || !x2apic_registers[number].is_writable)
        return false;
    if ((uint32_t)value & ~x2apic_registers[number].mask)
        return false;
    if (number == REGISTER_ICR_LOW)
        lapic->icr_high = (uint32_t)(value >> 32);
    else if (value >> 32)
        return false;
    if (number == REGISTER_SELF_IPI) {
        lapic_self_ipi(lapic, (uint8_t)value);
        return true;
    }
    return write_register(lapic, number, (uint32_t)value);
}

/* ---- IA32_APIC_BASE ---- */

/* Figure 11-27: x2APIC is entered from enabled xAPIC only, and left through disabled or RESET only. */
static bool is_legal_switch(uint64_t was, uint64_t is) {
    if ((is & BASE_X2APIC) && !(is & BASE_ENABLE))
        return false;
    if ((was & BASE_X2APIC) && (is & BASE_ENABLE))
        return is & BASE_X2APIC;
    return (was & BASE_ENABLE) || !(is & BASE_X2APIC);
}

static bool write_base(struct lapic *lapic, uint64_t value) {
    uint64_t reserved = ~((UINT64_C(1) << lapic->config.physical_address_bits) - 1) | 0x2FF;
    if (!lapic->config.has_x2apic)
        reserved |= BASE_X2APIC;
    if ((value & reserved) || !is_legal_switch(lapic->base, value))
        return false;
    const uint64_t was = lapic_page_address(lapic);
    if (lapic_is_enabled(lapic) && !(value & BASE_ENABLE)) {
        /* Enabled again, it comes up as after RESET (11.4.3); CR8 is the processor's and stays. */
        const uint8_t tpr = lapic->tpr;
        lapic_reset_registers(lapic);
        lapic->tpr = tpr;
        lapic->id = (uint8_t)lapic->config.id;
    }
    lapic->base = value;
    apic_bus_move_page(lapic->apic_bus, was, lapic_page_address(lapic));
    lapic_update(lapic);
    return true;
}

/* ---- The MSR interface ---- */

bool lapic_read_msr(struct lapic *lapic, uint32_t index, uint64_t *value) {
    if (index == MSR_APIC_BASE) {
        *value = lapic->base;
        return true;
    }
    if (index == MSR_TSC_DEADLINE && lapic->config.has_tsc_deadline) {
        *value = lapic_timer_read_deadline(lapic);
        return true;
    }
    return index >= MSR_X2APIC && index < MSR_X2APIC_END && read_x2apic(lapic, index - MSR_X2APIC, value);
}

bool lapic_write_msr(struct lapic *lapic, uint32_t index, uint64_t value) {
    if (index == MSR_APIC_BASE)
        return write_base(lapic, value);
    if (index == MSR_TSC_DEADLINE && lapic->config.has_tsc_deadline) {
        lapic_timer_write_deadline(lapic, value);
        return true;
    }
    return index >= MSR_X2APIC && index < MSR_X2APIC_END && write_x2apic(lapic, index - MSR_X2APIC, value);
}

/* ---- struct trapeze_interrupt_controller: the same under the device lock ---- */

static int controller_acknowledge(void *opaque) {
    struct lapic *lapic = opaque;
    bus_lock(lapic->config.bus);
    const int vector = lapic_acknowledge(lapic);
    bus_unlock(lapic->config.bus);
    return vector;
}

/* Only this vCPU's thread writes its TPR, but for INIT; one byte needs no lock. */
static unsigned controller_get_tpr(void *opaque) {
    return lapic_get_tpr(opaque);
}

static void controller_set_tpr(void *opaque, unsigned tpr) {
    struct lapic *lapic = opaque;
    bus_lock(lapic->config.bus);
    lapic_set_tpr(lapic, tpr);
    bus_unlock(lapic->config.bus);
}

static bool controller_read_msr(void *opaque, uint32_t index, uint64_t *value) {
    struct lapic *lapic = opaque;
    bus_lock(lapic->config.bus);
    const bool exists = lapic_read_msr(lapic, index, value);
    bus_unlock(lapic->config.bus);
    return exists;
}

struct msr_write {
    struct lapic *lapic;
    uint32_t index;
    uint64_t value;
};

static uint64_t full_write_msr(void *argument) {
    const struct msr_write *write = argument;
    bus_lock(write->lapic->config.bus);
    const bool is_accepted = lapic_write_msr(write->lapic, write->index, write->value);
    bus_unlock(write->lapic->config.bus);
    return is_accepted;
}

/* The page may move, for which the bus needs memory. */
static bool controller_write_msr(void *opaque, uint32_t index, uint64_t value) {
    struct msr_write write = {opaque, index, value};
    return index == MSR_APIC_BASE ? bus_call_full(write.lapic->config.bus, full_write_msr, &write)
                                  : full_write_msr(&write);
}

struct trapeze_interrupt_controller lapic_controller(struct lapic *lapic) {
    return (struct trapeze_interrupt_controller){
        .acknowledge = controller_acknowledge,
        .get_tpr = controller_get_tpr,
        .set_tpr = controller_set_tpr,
        .read_msr = controller_read_msr,
        .write_msr = controller_write_msr,
        .opaque = lapic,
        .is_light = TRAPEZE_LIGHT_DEVICES,
    };
}
