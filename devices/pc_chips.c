/* See pc_chips.h. Interrupt wiring is that of the tables in bios/: ISA lines reach the 8259 and the I/O APIC alike. */
#include "devices/pc_chips.h"

#include <stdio.h>
#include <stdlib.h>

#include "devices/pc_lines.h"

enum { PM_BASE = 0x600 };

static const struct {
    uint16_t base;
    uint8_t irq;
    const char *name;
} serial_ports[PC_CHIPS_SERIAL] = {{0x3f8, 4, "COM1"}, {0x2f8, 3, "COM2"}, {0x3e8, 4, "COM3"}, {0x2e8, 3, "COM4"}};

/* ---- What the guest asks of the machine ---- */

static void reset_pulse(void *target, unsigned pin, bool asserted) {
    struct pc_chips *chips = target;
    (void)pin;
    if (asserted)
        chips->config.reset(chips->config.opaque);
}

static void reset_control_written(void *opaque, bool is_hard) {
    (void)is_hard;
    reset_pulse(opaque, 0, true);
}

static void power_off(void *opaque) {
    struct pc_chips *chips = opaque;
    chips->config.power_off(chips->config.opaque);
}

static void debug_exit(void *opaque, int status) {
    struct pc_chips *chips = opaque;
    chips->config.debug_exit(chips->config.opaque, status);
}

bool pc_chips_a20_is_open(const struct pc_chips *chips) {
    return chips->a20_from_8042 || chips->a20_from_port92;
}

enum { A20_8042, A20_PORT92 };

static void a20_set(void *target, unsigned pin, bool asserted) {
    struct pc_chips *chips = target;
    bool was_open = pc_chips_a20_is_open(chips);
    *(pin == A20_8042 ? &chips->a20_from_8042 : &chips->a20_from_port92) = asserted;
    if (pc_chips_a20_is_open(chips) != was_open)
        chips->config.a20_changed(chips->config.opaque, !was_open);
}

/* ---- Making the chips ---- */

static void init_legacy(struct pc_chips *chips) {
    struct clock *clock = chips->config.clock;
    const struct irq_line intr = {apic_bus_set_lint, chips->apic_bus, 0};
    const struct irq_line tick = {pc_legacy_set, chips, IRQ_TIMER}, rtc_line = {pc_legacy_set, chips, IRQ_RTC};
    const struct irq_line reset = {reset_pulse, chips, 0};
    const struct irq_line port92_a20 = {a20_set, chips, A20_PORT92};
    const struct irq_line fpu = pc_line(chips, IRQ_FPU, SOURCE_ISA);
    const struct i8042_lines lines = {.keyboard = pc_line(chips, IRQ_KEYBOARD, SOURCE_ISA),
                                      .mouse = pc_line(chips, IRQ_MOUSE, SOURCE_ISA),
                                      .a20 = {a20_set, chips, A20_8042},
                                      .reset = reset};
    pic_init(&chips->pic, &intr);
    pit_init(&chips->pit, clock, &tick, pc_timer_tick_is_waiting, chips);
    rtc_init(&chips->rtc, clock, &rtc_line, pc_wall_clock, chips);
    i8042_init(&chips->i8042, clock, &lines);
    port92_init(&chips->port92, &port92_a20, &reset);
    fpu_error_init(&chips->fpu_error, &fpu);
    reset_control_init(&chips->reset_control, reset_control_written, chips);
    for (unsigned i = 0; i < PC_CHIPS_SERIAL; i++) {
        const struct irq_line line = pc_line(chips, serial_ports[i].irq, i < 2 ? SOURCE_ISA : SOURCE_ISA_SHARED);
        if (chips->config.serial[i])
            uart_init(&chips->uart[i], clock, &line, chips->config.serial[i]);
    }
    if (chips->config.debugcon)
        debugcon_init(&chips->debugcon, chips->config.debugcon, 0xe9);
}

static bool create_apics(struct pc_chips *chips) {
    const struct pc_chips_config *config = &chips->config;
    const struct apic_bus_config apic_bus = {.bus = config->bus,
                                             .lapic_limit = config->vcpu_count,
                                             .extint_acknowledge = pc_acknowledge_8259,
                                             .extint_opaque = chips,
                                             .current_cpu = config->current_cpu,
                                             .current_cpu_opaque = config->opaque};
    chips->apic_bus = apic_bus_create(&apic_bus);
    chips->ioapic = chips->apic_bus ? ioapic_create(chips->apic_bus, config->vcpu_count < 15 ? config->vcpu_count : 0)
                                    : NULL;
    if (!chips->ioapic)
        return false;
    for (unsigned i = 0; i < config->vcpu_count; i++) {
        const struct lapic_config lapic = {.id = i,
                                           .is_boot_processor = i == 0,
                                           .has_x2apic = config->cpu.has_x2apic,
                                           .has_tsc_deadline = config->cpu.has_tsc_deadline,
                                           .physical_address_bits = config->cpu.physical_address_bits,
                                           .tsc_hz = config->cpu.tsc_hz,
                                           .bus = config->bus,
                                           .clock = config->clock,
                                           .cpu = config->lapic_cpu(config->opaque, i)};
        chips->lapic[i] = lapic_create(chips->apic_bus, &lapic);
        if (!chips->lapic[i])
            return false;
    }
    return true;
}

static bool create_chipset(struct pc_chips *chips) {
    const struct hpet_config hpet = {.clock = chips->config.clock,
                                     .legacy = {pc_line(chips, IRQ_TIMER, SOURCE_HPET),
                                                pc_line(chips, IRQ_RTC, SOURCE_HPET)},
                                     .ioapic = {pc_hpet_route, chips, 0},
                                     .legacy_replacement = pc_legacy_replacement,
                                     .opaque = chips};
    const struct acpi_pm_config acpi_pm = {.clock = chips->config.clock,
                                           .sci = pc_line(chips, IRQ_SCI, SOURCE_ACPI),
                                           .power_off = power_off,
                                           .opaque = chips};
    struct pci_host_config pci_host = {.bus = chips->config.bus,
                                       .reset_control_ops = &reset_control_ops,
                                       .reset_control = &chips->reset_control};
    chips->hpet = hpet_create(&hpet);
    chips->acpi_pm = acpi_pm_create(&acpi_pm);
    chips->fw_cfg = fw_cfg_create(&chips->config.memory);
    if (!chips->hpet || !chips->acpi_pm || !chips->fw_cfg)
        return false;
    /* PIIX: PCI interrupts may go to 3..7, 9..12, 14 and 15. */
    for (unsigned irq = 3; irq < ISA_IRQS; irq++)
        if (irq != IRQ_RTC && irq != IRQ_FPU)
            pci_host.isa_irq[irq] = pc_line(chips, irq, SOURCE_PCI);
    pci_host.acpi_pm = chips->acpi_pm;
    chips->pci_host = pci_host_create(&pci_host);
    return chips->pci_host != NULL;
}

static bool create_test_devices(struct pc_chips *chips) {
    struct irq_line lines[PC_TESTDEV_LINES];
    if (chips->config.has_pci_testdev) {
        chips->pci_testdev = pci_testdev_create(pci_host_bus(chips->pci_host), 2);
        if (!chips->pci_testdev)
            return false;
    }
    if (!chips->config.has_testdev)
        return true;
    chips->pc_testdev = malloc(sizeof(*chips->pc_testdev));
    if (!chips->pc_testdev)
        return false;
    for (unsigned i = 0; i < PC_TESTDEV_LINES; i++)
        lines[i] = pc_line(chips, i, SOURCE_TESTDEV);
    pc_testdev_init(chips->pc_testdev, lines, NULL, NULL);
    return true;
}

/* ---- The bus ---- */

struct window {
    bool is_there;
    enum trapeze_space space;
    uint64_t base, length;
    const struct bus_ops *ops;
    void *device;
    const char *name;
};

static bool attach(struct pc_chips *chips, const struct window *windows, size_t count, char *reason, size_t size) {
    for (size_t i = 0; i < count; i++) {
        const struct window *window = &windows[i];
        if (!window->is_there)
            continue;
        enum bus_status status = bus_attach(chips->config.bus, window->space, window->base, window->length,
                                            window->ops, window->device, window->name);
        if (status == BUS_OK)
            continue;
        const char *other = bus_name_at(chips->config.bus, window->space, window->base);
        snprintf(reason, size, "%s at %llxh: %s%s", window->name, (unsigned long long)window->base,
                 status == BUS_OVERLAP ? "the place is taken by " : "no memory is left",
                 status == BUS_OVERLAP ? other ? other : "something behind it" : "");
        return false;
    }
    return true;
}

static bool attach_all(struct pc_chips *chips, char *reason, size_t size) {
    const struct pc_chips_config *config = &chips->config;
    const bool has_testdev = config->has_testdev;
    const struct window windows[] = {
        {true, TRAPEZE_PORT, 0x20, 2, &pic_ops, &chips->pic.master, "8259 master"},
        {true, TRAPEZE_PORT, 0xa0, 2, &pic_ops, &chips->pic.slave, "8259 slave"},
        {true, TRAPEZE_PORT, 0x4d0, 1, &pic_elcr_ops, &chips->pic.master, "8259 master ELCR"},
        {true, TRAPEZE_PORT, 0x4d1, 1, &pic_elcr_ops, &chips->pic.slave, "8259 slave ELCR"},
        {!config->has_no_pit, TRAPEZE_PORT, 0x40, 4, &pit_ops, &chips->pit, "8254"},
        {!config->has_no_pit, TRAPEZE_PORT, 0x61, 1, &pit_speaker_ops, &chips->pit, "port 61h"},
        {true, TRAPEZE_PORT, 0x70, 2, &rtc_ops, &chips->rtc, "RTC"},
        {true, TRAPEZE_PORT, 0x60, 1, &i8042_data_ops, &chips->i8042, "8042 data"},
        {true, TRAPEZE_PORT, 0x64, 1, &i8042_command_ops, &chips->i8042, "8042 command"},
        {true, TRAPEZE_PORT, 0x92, 1, &port92_ops, &chips->port92, "port 92h"},
        {true, TRAPEZE_PORT, 0xf0, 1, &fpu_error_ops, &chips->fpu_error, "port F0h"},
        {true, TRAPEZE_PORT, ACPI_PM_SMI_PORT, ACPI_PM_SMI_PORTS, &acpi_pm_smi_ops, chips->acpi_pm, "SMI command"},
        {true, TRAPEZE_PORT, FW_CFG_PORT, FW_CFG_PORTS, &fw_cfg_ops, chips->fw_cfg, "fw_cfg"},
        {true, TRAPEZE_MMIO, IOAPIC_BASE, IOAPIC_WINDOW, &ioapic_ops, chips->ioapic, "I/O APIC"},
        {true, TRAPEZE_MMIO, HPET_BASE, HPET_WINDOW, &hpet_ops, chips->hpet, "HPET"},
        {config->debugcon, TRAPEZE_PORT, 0xe9, 1, &debugcon_ops, &chips->debugcon, "debug console"},
        {has_testdev, TRAPEZE_PORT, PC_TESTDEV_PORT, 4, &pc_testdev_port_ops, chips->pc_testdev, "pc-testdev"},
        {has_testdev, TRAPEZE_PORT, PC_TESTDEV_FLUSH, 4, &pc_testdev_flush_ops, chips->pc_testdev, "pc-testdev"},
        {has_testdev, TRAPEZE_PORT, PC_TESTDEV_PORT_BYTE, 1, &pc_testdev_byte_ops, chips->pc_testdev, "pc-testdev"},
        {has_testdev, TRAPEZE_PORT, PC_TESTDEV_IRQ, PC_TESTDEV_LINES, &pc_testdev_irq_ops, chips->pc_testdev,
         "pc-testdev"},
        {has_testdev, TRAPEZE_MMIO, PC_TESTDEV_MEMORY, PC_TESTDEV_BYTES, &pc_testdev_memory_ops, chips->pc_testdev,
         "pc-testdev"},
        {config->has_debug_exit, TRAPEZE_PORT, config->debug_exit_base, config->debug_exit_size, &debug_exit_ops,
         &chips->debug_exit, "isa-debug-exit"},
    };
    for (unsigned i = 0; i < PC_CHIPS_SERIAL; i++) {
        const struct window serial = {config->serial[i], TRAPEZE_PORT,    serial_ports[i].base, 8,
                                      &uart_ops,         &chips->uart[i], serial_ports[i].name};
        if (!attach(chips, &serial, 1, reason, size))
            return false;
    }
    return attach(chips, windows, sizeof(windows) / sizeof(windows[0]), reason, size);
}

/* ---- What firmware leaves behind ---- */

/* Memory sizes and processors where a PC's firmware keeps them in CMOS RAM. */
static void fill_cmos(struct pc_chips *chips) {
    const uint64_t low = chips->config.ram_below_4g, high = chips->config.ram_above_4g;
    const uint64_t extended = (low - 0x100000) >> 10, above_16m = low > 0x1000000 ? (low - 0x1000000) >> 16 : 0;
    const uint16_t kilobytes = (uint16_t)(extended > 0xffff ? 0xffff : extended);
    const struct {
        uint8_t index, bytes;
        uint64_t value;
    } items[] = {
        {0x14, 1, 0x06}, /* equipment: coprocessor, pointing device */
        {0x15, 2, 640},       {0x17, 2, kilobytes},  {0x30, 2, kilobytes},
        {0x34, 2, above_16m}, {0x5b, 3, high >> 16}, {0x5f, 1, chips->config.vcpu_count - 1},
    };
    for (size_t i = 0; i < sizeof(items) / sizeof(items[0]); i++)
        for (unsigned k = 0; k < items[i].bytes; k++)
            rtc_set_ram(&chips->rtc, (uint8_t)(items[i].index + k), (uint8_t)(items[i].value >> 8 * k));
}

static bool fill_fw_cfg(struct pc_chips *chips) {
    const uint64_t ram = chips->config.ram_below_4g + chips->config.ram_above_4g;
    return fw_cfg_add_integer(chips->fw_cfg, FW_CFG_RAM_SIZE, ram, 8) &&
           fw_cfg_add_integer(chips->fw_cfg, FW_CFG_NB_CPUS, chips->config.vcpu_count, 2) &&
           fw_cfg_add_integer(chips->fw_cfg, FW_CFG_MAX_CPUS, chips->config.vcpu_count, 2) &&
           fw_cfg_add_integer(chips->fw_cfg, FW_CFG_NOGRAPHIC, 1, 2);
}

/*
 * As a BIOS programs them: interrupts at 08h and 70h, PCI's level-triggered, the timer ticking 18.2 times a second;
 * timer, keyboard and cascade unmasked (SeaBIOS leaves more so, for disks that are not here).
 */
static void set_up_interrupts(struct pc_chips *chips) {
    static const struct {
        bool is_slave;
        uint8_t port, value;
    } writes[] = {
        {false, 0, 0x11}, {false, 1, 0x08}, {false, 1, 0x04}, {false, 1, 0x01}, {false, 1, 0xf8}, /* ICW1..4, OCW1 */
        {true, 0, 0x11},  {true, 1, 0x70},  {true, 1, 0x02},  {true, 1, 0x01},  {true, 1, 0xff},
    };
    for (size_t i = 0; i < sizeof(writes) / sizeof(writes[0]); i++)
        pic_ops.write(writes[i].is_slave ? &chips->pic.slave : &chips->pic.master, writes[i].port, 1, writes[i].value);
    pic_elcr_ops.write(&chips->pic.slave, 0, 1, 0x0c);
    if (chips->config.has_no_pit)
        return;
    pit_ops.write(&chips->pit, 3, 1, 0x34); /* channel 0, mode 2, 65536 */
    pit_ops.write(&chips->pit, 0, 1, 0);
    pit_ops.write(&chips->pit, 0, 1, 0);
}

static void set_up(struct pc_chips *chips) {
    static const struct pci_host_setup setup = {.pm_base = PM_BASE,
                                                .pirq_irq = {10, 10, 11, 11},
                                                .memory_base = 0xc0000000,
                                                .memory_end = 0xfec00000,
                                                .port_base = 0xc000,
                                                .port_end = 0x10000};
    pci_host_set_up(chips->pci_host, &setup);
    set_up_interrupts(chips);
    fill_cmos(chips);
}

/* ---- Life ---- */

static bool init_locked(struct pc_chips *chips, char *reason, size_t size) {
    snprintf(reason, size, "no memory is left for the devices");
    chips->debug_exit = (struct debug_exit){debug_exit, chips};
    chips->a20_from_8042 = true;
    if (!create_apics(chips))
        return false;
    init_legacy(chips);
    if (!create_chipset(chips) || !create_test_devices(chips) || !fill_fw_cfg(chips))
        return false;
    if (!attach_all(chips, reason, size))
        return false;
    set_up(chips);
    return true;
}

bool pc_chips_init(struct pc_chips *chips, const struct pc_chips_config *config, char *reason, size_t reason_size) {
    *chips = (struct pc_chips){.config = *config};
    bus_lock(config->bus);
    bool is_made = init_locked(chips, reason, reason_size);
    bus_unlock(config->bus);
    return is_made;
}

void pc_chips_reset(struct pc_chips *chips) {
    bus_lock(chips->config.bus);
    pit_reset(&chips->pit);
    rtc_reset(&chips->rtc);
    i8042_reset(&chips->i8042);
    port92_reset(&chips->port92);
    fpu_error_reset(&chips->fpu_error);
    reset_control_reset(&chips->reset_control);
    for (unsigned i = 0; i < PC_CHIPS_SERIAL; i++)
        if (chips->config.serial[i])
            uart_reset(&chips->uart[i]);
    hpet_reset(chips->hpet);
    acpi_pm_reset(chips->acpi_pm);
    pci_host_reset(chips->pci_host);
    fw_cfg_reset(chips->fw_cfg);
    if (chips->pci_testdev)
        pci_testdev_reset(chips->pci_testdev);
    if (chips->pc_testdev)
        pc_testdev_reset(chips->pc_testdev);
    pic_reset(&chips->pic);
    ioapic_reset(chips->ioapic);
    apic_bus_reset(chips->apic_bus);
    set_up(chips);
    bus_unlock(chips->config.bus);
}

static void release_locked(struct pc_chips *chips) {
    if (chips->pci_testdev)
        pci_testdev_destroy(chips->pci_testdev);
    if (chips->pci_host)
        pci_host_destroy(chips->pci_host);
    if (chips->fw_cfg)
        fw_cfg_destroy(chips->fw_cfg);
    if (chips->acpi_pm)
        acpi_pm_destroy(chips->acpi_pm);
    if (chips->hpet)
        hpet_destroy(chips->hpet);
    if (chips->pit.clock) {
        pit_release(&chips->pit);
        rtc_release(&chips->rtc);
        i8042_release(&chips->i8042);
    }
    for (unsigned i = 0; i < PC_CHIPS_SERIAL; i++)
        if (chips->uart[i].clock)
            uart_release(&chips->uart[i]);
    for (unsigned i = 0; i < chips->config.vcpu_count; i++)
        lapic_destroy(chips->lapic[i]);
    if (chips->ioapic)
        ioapic_destroy(chips->ioapic);
    if (chips->apic_bus)
        apic_bus_destroy(chips->apic_bus);
    free(chips->pc_testdev);
}

void pc_chips_release(struct pc_chips *chips) {
    bus_lock(chips->config.bus);
    release_locked(chips);
    bus_unlock(chips->config.bus);
}
