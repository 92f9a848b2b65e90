/*
 * The ACPI fixed hardware (ACPI 6.5, 4.8) as the PIIX4's power management function has it (82371AB data sheet,
 * section 9): PM1 event and control, the power-management timer, one general-purpose event block, and the SMI command
 * ports that switch ACPI on and off.
 *
 * Offsets in the 40h-byte port block at PMBASE: 00h PM1_STS, 02h PM1_EN, 04h PM1_CNT, 08h PM_TMR, 0Ch GPE0_STS,
 * 0Eh GPE0_EN. The rest reads as zero. Everything here is called under the device lock.
 */
#ifndef DEVICES_ACPI_PM_H
#define DEVICES_ACPI_PM_H

#include "devices/bus.h"
#include "devices/clock.h"
#include "devices/irq.h"

struct acpi_pm;

enum {
    ACPI_PM_BLOCK = 0x40, /* length of the port block */
    ACPI_PM_SMI_PORT = 0xB2,
    ACPI_PM_SMI_PORTS = 2,
    ACPI_PM_ENABLE = 0xF1, /* written to ACPI_PM_SMI_PORT: ACPI mode, SCI_EN set */
    ACPI_PM_DISABLE = 0xF0,
    ACPI_PM_SLP_TYP_S5 = 0 /* SLP_TYP of soft-off, PIIX4 9.2.3; other sleep states are not there */
};

struct acpi_pm_config {
    struct clock *clock;
    struct irq_line sci;  /* level; IRQ 9 in a PC */
    bool has_32bit_timer; /* FADT TMR_VAL_EXT; else the timer has 24 bits */
    /* The guest has asked for soft-off. On a vCPU's thread, under the device lock. */
    void (*power_off)(void *opaque);
    void *opaque;
};

/* The device of both windows is a struct acpi_pm. */
extern const struct bus_ops acpi_pm_ops;     /* ACPI_PM_BLOCK ports at PMBASE */
extern const struct bus_ops acpi_pm_smi_ops; /* ACPI_PM_SMI_PORTS at ACPI_PM_SMI_PORT: APM control and status */

/* NULL: no memory. */
struct acpi_pm *acpi_pm_create(const struct acpi_pm_config *config);
void acpi_pm_destroy(struct acpi_pm *pm);
void acpi_pm_reset(struct acpi_pm *pm);

/* The power button was pressed: PWRBTN_STS. */
void acpi_pm_press_power_button(struct acpi_pm *pm);
/* An edge at general-purpose event `event` (0..15). */
void acpi_pm_raise_gpe(struct acpi_pm *pm, unsigned event);

#endif
