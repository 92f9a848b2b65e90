/*
 * The chips of a PC on its bus, wired: two 8259, 8254, RTC, 8042, serial ports, ports 92h, F0h and CF9h, local APICs, I/O
 * APIC, HPET, ACPI power management, PCI, fw_cfg, and the test devices asked for. Knows devices alone; the processors
 * and the memory behind them are callbacks (devices/pc.c).
 */
#ifndef DEVICES_PC_CHIPS_H
#define DEVICES_PC_CHIPS_H

#include "devices/acpi_pm.h"
#include "devices/apic_bus.h"
#include "devices/bus.h"
#include "devices/clock.h"
#include "devices/debug_exit.h"
#include "devices/debugcon.h"
#include "devices/fpu_error.h"
#include "devices/fw_cfg.h"
#include "devices/hpet.h"
#include "devices/i8042.h"
#include "devices/ioapic.h"
#include "devices/pc_testdev.h"
#include "devices/pci_host.h"
#include "devices/pci_testdev.h"
#include "devices/pic.h"
#include "devices/pit.h"
#include "devices/port92.h"
#include "devices/reset_control.h"
#include "devices/rtc.h"
#include "devices/uart.h"

enum { PC_CHIPS_SERIAL = 4, PC_CHIPS_GSIS = 24 };

/* The processor of one local APIC, as lapic.h has it. */
struct pc_chips_cpu {
    bool has_x2apic, has_tsc_deadline;
    unsigned physical_address_bits;
    uint64_t tsc_hz;
};

struct pc_chips_config {
    struct bus *bus;
    struct clock *clock;
    unsigned vcpu_count;
    struct pc_chips_cpu cpu;
    struct lapic_cpu (*lapic_cpu)(void *opaque, unsigned index);
    unsigned (*current_cpu)(void *opaque); /* which vCPU makes the present access */
    struct fw_cfg_config memory;           /* guest memory */
    uint64_t ram_below_4g, ram_above_4g;   /* bytes */
    struct char_backend *serial[PC_CHIPS_SERIAL], *debugcon; /* NULL: not there. They outlive the chips */
    bool has_no_pit, has_debug_exit, has_testdev, has_pci_testdev;
    unsigned debug_exit_base, debug_exit_size;
    /* What the guest asks of the machine; under the device lock. */
    void (*reset)(void *opaque);
    void (*power_off)(void *opaque);
    void (*debug_exit)(void *opaque, int status);
    void (*a20_changed)(void *opaque, bool is_open);
    void *opaque;
};

struct pc_chips {
    struct pc_chips_config config;
    uint16_t gsi_sources[PC_CHIPS_GSIS]; /* who asserts each line: a bit a source */
    bool hpet_has_legacy;                /* the HPET drives lines 0 and 8 in place of the 8254 and the RTC */
    bool a20_from_8042, a20_from_port92;
    struct pic pic;
    struct pit pit;
    struct rtc rtc;
    struct i8042 i8042;
    struct port92 port92;
    struct fpu_error fpu_error;
    struct reset_control reset_control;
    struct uart uart[PC_CHIPS_SERIAL];
    struct debugcon debugcon;
    struct debug_exit debug_exit;
    struct apic_bus *apic_bus;
    struct ioapic *ioapic;
    struct lapic *lapic[255];
    struct hpet *hpet;
    struct acpi_pm *acpi_pm;
    struct pci_host *pci_host;
    struct pci_testdev *pci_testdev;
    struct pc_testdev *pc_testdev;
    struct fw_cfg *fw_cfg;
};

/* Makes and attaches everything. False with one clause in `reason`; pc_chips_release is due all the same. Takes the
   device lock, as do the next two. */
bool pc_chips_init(struct pc_chips *chips, const struct pc_chips_config *config, char *reason, size_t reason_size);
/* What was made, also after a failed init. */
void pc_chips_release(struct pc_chips *chips);
/* RESET, and what firmware leaves behind for a kernel that is loaded directly. */
void pc_chips_reset(struct pc_chips *chips);
bool pc_chips_a20_is_open(const struct pc_chips *chips);

#endif
