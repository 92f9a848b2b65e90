/*
 * ACPI fixed hardware, PIIX4 layout (ACPI 6.5, 4.8.3 and 4.8.4; 82371AB data sheet, 9.2).
 *
 * Left out: sleep states other than S5, processor throttling (P_CNT, P_LVLx), the global and device monitors.
 */
#include "devices/acpi_pm.h"

#include <stdlib.h>

#define TIMER_HZ 3579545u

enum {
    PM1_STATUS = 0x00,
    PM1_ENABLE = 0x02,
    PM1_CONTROL = 0x04,
    PM_TIMER = 0x08,
    GPE0_STATUS = 0x0C,
    GPE0_ENABLE = 0x0E
};

enum {
    STATUS_TIMER = 1 << 0,
    STATUS_GLOBAL = 1 << 5,
    STATUS_POWER_BUTTON = 1 << 8,
    STATUS_RTC = 1 << 10,
    STATUS_WAKE = 1 << 15,
    STATUS_WRITABLE = STATUS_TIMER | STATUS_GLOBAL | STATUS_POWER_BUTTON | STATUS_RTC | STATUS_WAKE,
    ENABLE_WRITABLE = STATUS_TIMER | STATUS_GLOBAL | STATUS_POWER_BUTTON | STATUS_RTC,
};

enum { CONTROL_SCI_EN = 1 << 0, CONTROL_BM_RLD = 1 << 1, CONTROL_SLP_TYP = 7 << 10, CONTROL_SLP_EN = 1 << 13 };

struct acpi_pm {
    struct acpi_pm_config config;
    struct clock_timer carry; /* fires when the timer's highest bit changes, while that can interrupt */
    uint64_t carries_seen;    /* changes of the highest bit that TMR_STS has told or that were before it was cleared */
    uint16_t status, enable, control;
    uint16_t gpe_status, gpe_enable;
    uint8_t apm_control, apm_status;
};

/* ---- The timer: a free-running counter of nanoseconds since the machine was made ---- */

static uint64_t timer_ticks(const struct acpi_pm *pm) {
    return (uint64_t)((unsigned __int128)clock_now(pm->config.clock) * TIMER_HZ / 1000000000u);
}

static unsigned highest_bit(const struct acpi_pm *pm) {
    return pm->config.has_32bit_timer ? 31 : 23;
}

static void update_sci(struct acpi_pm *pm) {
    const uint16_t interrupting = (pm->status & pm->enable & ENABLE_WRITABLE) | (pm->gpe_status & pm->gpe_enable);
    irq_set(&pm->config.sci, (pm->control & CONTROL_SCI_EN) && interrupting);
}

/* TMR_STS is set whenever the highest bit changes, in either direction (4.8.3.3). */
static void update_timer(struct acpi_pm *pm) {
    const uint64_t carries = timer_ticks(pm) >> highest_bit(pm);
    if (carries != pm->carries_seen)
        pm->status |= STATUS_TIMER;
    pm->carries_seen = carries;
    if (!(pm->enable & STATUS_TIMER) || (pm->status & STATUS_TIMER)) {
        clock_timer_cancel(&pm->carry);
        return;
    }
    const unsigned __int128 ticks = (unsigned __int128)(carries + 1) << highest_bit(pm);
    clock_timer_arm(&pm->carry, (uint64_t)((ticks * 1000000000u + TIMER_HZ - 1) / TIMER_HZ));
}

static void update(struct acpi_pm *pm) {
    update_timer(pm);
    update_sci(pm);
}

static void carry_expired(void *opaque) {
    update(opaque);
}

/* ---- The port block ---- */

static uint16_t read_word(struct acpi_pm *pm, unsigned offset) {
    const uint64_t ticks = timer_ticks(pm) & ((UINT64_C(2) << highest_bit(pm)) - 1);
    switch (offset) {
    case PM1_STATUS:
        update(pm);
        return pm->status;
    case PM1_ENABLE:
        return pm->enable;
    case PM1_CONTROL:
        return pm->control;
    case PM_TIMER:
        return (uint16_t)ticks;
    case PM_TIMER + 2:
        return (uint16_t)(ticks >> 16);
    case GPE0_STATUS:
        return pm->gpe_status;
    case GPE0_ENABLE:
        return pm->gpe_enable;
    default:
        return 0;
    }
}

static void write_control(struct acpi_pm *pm, uint16_t value) {
    pm->control = (uint16_t)((pm->control & CONTROL_SCI_EN) | (value & (CONTROL_BM_RLD | CONTROL_SLP_TYP)));
    if ((value & CONTROL_SLP_EN) && (value & CONTROL_SLP_TYP) >> 10 == ACPI_PM_SLP_TYP_S5 && pm->config.power_off)
        pm->config.power_off(pm->config.opaque);
}

static void write_word(struct acpi_pm *pm, unsigned offset, uint16_t value) {
    update_timer(pm);
    switch (offset) {
    case PM1_STATUS: /* ones clear */
        pm->status &= (uint16_t) ~(value & STATUS_WRITABLE);
        break;
    case PM1_ENABLE:
        pm->enable = value & ENABLE_WRITABLE;
        break;
    case PM1_CONTROL:
        write_control(pm, value);
        break;
    case GPE0_STATUS:
        pm->gpe_status &= (uint16_t)~value;
        break;
    case GPE0_ENABLE:
        pm->gpe_enable = value;
        break;
    default:
        break;
    }
    update(pm);
}

/* Registers are words here; a dword read of the timer is one look at the clock. */
static uint64_t block_read(void *device, uint64_t offset, unsigned size) {
    struct acpi_pm *pm = device;
    if (size == 4 && offset == PM_TIMER)
        return timer_ticks(pm) & ((UINT64_C(2) << highest_bit(pm)) - 1);
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++) {
        const unsigned at = (unsigned)offset + i;
        value |= (uint64_t)(read_word(pm, at & ~1u) >> (at & 1) * 8 & 0xFF) << i * 8;
    }
    return value;
}

/* A byte keeps the other half of its word, but for the status registers, where a one in it would clear. */
static void write_byte(struct acpi_pm *pm, unsigned offset, uint8_t value) {
    const unsigned word = offset & ~1u, shift = (offset & 1) * 8;
    const bool ones_clear = word == PM1_STATUS || word == GPE0_STATUS;
    const unsigned kept = ones_clear ? 0 : read_word(pm, word) & 0xFF00u >> shift;
    write_word(pm, word, (uint16_t)(kept | (unsigned)value << shift));
}

static void block_write(void *device, uint64_t offset, unsigned size, uint64_t value) {
    for (unsigned i = 0; i < size;) {
        const unsigned at = (unsigned)offset + i;
        if ((at & 1) || size - i < 2) {
            write_byte(device, at, (uint8_t)(value >> i * 8));
            i += 1;
        } else {
            write_word(device, at, (uint16_t)(value >> i * 8));
            i += 2;
        }
    }
}

const struct bus_ops acpi_pm_ops = {.read = block_read, .write = block_write, .min_size = 1, .max_size = 4};

/* ---- Ports B2h and B3h (82371AB, 4.2.5): here the SMI handler that switches modes is this function ---- */

static uint64_t smi_read(void *device, uint64_t offset, unsigned size) {
    const struct acpi_pm *pm = device;
    (void)size;
    return offset ? pm->apm_status : pm->apm_control;
}

static void smi_write(void *device, uint64_t offset, unsigned size, uint64_t value) {
    struct acpi_pm *pm = device;
    (void)size;
    if (offset) {
        pm->apm_status = (uint8_t)value;
        return;
    }
    pm->apm_control = (uint8_t)value;
    if (pm->apm_control == ACPI_PM_ENABLE)
        pm->control |= CONTROL_SCI_EN;
    else if (pm->apm_control == ACPI_PM_DISABLE)
        pm->control &= (uint16_t)~CONTROL_SCI_EN;
    update(pm);
}

const struct bus_ops acpi_pm_smi_ops = {.read = smi_read, .write = smi_write, .min_size = 1, .max_size = 1};

/* ---- Events, making ---- */

void acpi_pm_press_power_button(struct acpi_pm *pm) {
    pm->status |= STATUS_POWER_BUTTON;
    update(pm);
}

void acpi_pm_raise_gpe(struct acpi_pm *pm, unsigned event) {
    if (event > 15)
        return;
    pm->gpe_status |= (uint16_t)(1u << event);
    update(pm);
}

void acpi_pm_reset(struct acpi_pm *pm) {
    pm->status = pm->enable = pm->control = 0;
    pm->gpe_status = pm->gpe_enable = 0;
    pm->apm_control = pm->apm_status = 0;
    pm->carries_seen = timer_ticks(pm) >> highest_bit(pm);
    update(pm);
}

struct acpi_pm *acpi_pm_create(const struct acpi_pm_config *config) {
    struct acpi_pm *pm = calloc(1, sizeof *pm);
    if (!pm)
        return NULL;
    pm->config = *config;
    clock_timer_init(&pm->carry, config->clock, carry_expired, pm);
    acpi_pm_reset(pm);
    return pm;
}

void acpi_pm_destroy(struct acpi_pm *pm) {
    if (!pm)
        return;
    clock_timer_cancel(&pm->carry);
    free(pm);
}
