/* The static ACPI tables; see acpi.h. Field names and offsets are those of ACPI 6.5, section 5.2. */
#include "bios/acpi.h"

#include "bios/dsdt.h"
#include "bios/layout.h"

enum {
    RSDP_SIZE = 36,
    RSDP_SIZE_1_0 = 20, /* as far as the first checksum goes */
    RSDP_CHECKSUM = 8,
    RSDP_RSDT = 16,
    RSDP_XSDT = 24,
    RSDP_EXTENDED_CHECKSUM = 32,
    HEADER_LENGTH = 4,
    HEADER_CHECKSUM = 9,
    FACS_SIZE = 64,
};

/* What the FADT's IAPC_BOOT_ARCH and Flags say of this machine. */
enum {
    BOOT_LEGACY_DEVICES = 1 << 0,
    BOOT_8042 = 1 << 1,
    FADT_WBINVD = 1 << 0,
    FADT_PROC_C1 = 1 << 2,
    FADT_SLP_BUTTON = 1 << 5, /* no fixed sleep button */
    FADT_RTC_S4 = 1 << 7,
    FADT_RESET_REG_SUP = 1 << 10,
};

/* MPS INTI flags of the MADT (5.2.12.5). */
enum { INTI_CONFORMS = 0, INTI_LEVEL_HIGH = 0x0d };

enum { GAS_IO = 1, GAS_MEMORY = 0 };

/* Begins a table with its header; the length and checksum come with acpi_end. Returns where it starts. */
static size_t acpi_begin(struct bytes *image, const char signature[4], unsigned revision) {
    bytes_align(image, 16);
    const size_t start = image->length;
    bytes_put_block(image, signature, 4);
    bytes_put(image, 0, 4);
    bytes_put(image, revision, 1);
    bytes_put(image, 0, 1);
    bytes_put_block(image, "TRAPEZTRAPEZE ", 14); /* OEMID, OEM table id */
    bytes_put(image, 1, 4);
    bytes_put_block(image, "TRPZ", 4);
    bytes_put(image, 1, 4);
    return start;
}

static void acpi_end(struct bytes *image, size_t start) {
    bytes_patch(image, start + HEADER_LENGTH, image->length - start, 4);
    bytes_seal(image, start, image->length, start + HEADER_CHECKSUM);
}

static size_t acpi_facs(struct bytes *image) {
    bytes_align(image, 64);
    const size_t start = image->length;
    bytes_put_block(image, "FACS", 4);
    bytes_put(image, FACS_SIZE, 4);
    while (image->length < start + FACS_SIZE && !image->is_full)
        bytes_put(image, image->length == start + 32, 1); /* version 1 (2.0) at offset 32 */
    return start;
}

static size_t acpi_dsdt(struct bytes *image, const struct boot_request *request) {
    const size_t start = acpi_begin(image, "DSDT", 2);
    dsdt_append(image, request);
    acpi_end(image, start);
    return start;
}

/* A generic address structure (5.2.3.2). access_size: 1 byte, 2 word, 3 dword. */
static void acpi_put_gas(struct bytes *image, unsigned space, uint64_t address, unsigned bits, unsigned access_size) {
    bytes_put(image, space, 1);
    bytes_put(image, bits, 1);
    bytes_put(image, 0, 1);
    bytes_put(image, access_size, 1);
    bytes_put(image, address, 8);
}

/* Fields from offset 36 to 115, up to RESET_REG. */
static void acpi_fadt_legacy_part(struct bytes *image, uint64_t facs, uint64_t dsdt) {
    const struct {
        uint64_t value;
        unsigned size;
    } fields[] = {
        {facs, 4},
        {dsdt, 4},
        {0, 1},
        {0, 1}, /* preferred profile: unspecified */
        {LAYOUT_SCI_IRQ, 2},
        {LAYOUT_SMI_COMMAND, 4},
        {LAYOUT_ACPI_ENABLE, 1},
        {LAYOUT_ACPI_DISABLE, 1},
        {0, 2}, /* S4BIOS_REQ, PSTATE_CNT */
        {LAYOUT_PM1_EVENT, 4},
        {0, 4},
        {LAYOUT_PM1_CONTROL, 4},
        {0, 4},
        {0, 4}, /* PM2_CNT */
        {LAYOUT_PM_TIMER, 4},
        {LAYOUT_GPE0, 4},
        {0, 4}, /* GPE1 */
        {4, 1},
        {2, 1},
        {0, 1},
        {4, 1}, /* lengths of PM1 event, PM1 control, PM2 control, PM timer */
        {4, 1},
        {0, 3},     /* lengths of GPE0 and GPE1, base of GPE1, CST_CNT */
        {0xfff, 2}, /* P_LVL2_LAT, P_LVL3_LAT: above 100 and 1000 us, not there */
        {0xfff, 2},
        {0, 4},    /* FLUSH_SIZE, FLUSH_STRIDE: WBINVD works */
        {0, 4},    /* duty cycle, day and month alarm */
        {0x32, 1}, /* CENTURY in the CMOS */
        {BOOT_LEGACY_DEVICES | BOOT_8042, 2},
        {0, 1},
        {FADT_WBINVD | FADT_PROC_C1 | FADT_SLP_BUTTON | FADT_RTC_S4 | FADT_RESET_REG_SUP, 4},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        bytes_put(image, fields[i].value, fields[i].size);
}

static size_t acpi_fadt(struct bytes *image, uint64_t facs, uint64_t dsdt) {
    const size_t start = acpi_begin(image, "FACP", 3);
    acpi_fadt_legacy_part(image, facs, dsdt);
    acpi_put_gas(image, GAS_IO, LAYOUT_RESET_PORT, 8, 1);
    bytes_put(image, LAYOUT_RESET_VALUE, 1);
    bytes_put(image, 0, 3);
    bytes_put(image, 0, 8); /* X_FIRMWARE_CTRL: the 32-bit field serves */
    bytes_put(image, dsdt, 8);
    acpi_put_gas(image, GAS_IO, LAYOUT_PM1_EVENT, 32, 2);
    acpi_put_gas(image, GAS_MEMORY, 0, 0, 0);
    acpi_put_gas(image, GAS_IO, LAYOUT_PM1_CONTROL, 16, 2);
    acpi_put_gas(image, GAS_MEMORY, 0, 0, 0);
    acpi_put_gas(image, GAS_MEMORY, 0, 0, 0);
    acpi_put_gas(image, GAS_IO, LAYOUT_PM_TIMER, 32, 3);
    acpi_put_gas(image, GAS_IO, LAYOUT_GPE0, 32, 2);
    acpi_put_gas(image, GAS_MEMORY, 0, 0, 0);
    acpi_end(image, start);
    return start;
}

/* Interrupt source override: where an ISA interrupt differs from "pin = IRQ, edge, active high". */
static void acpi_put_override(struct bytes *image, unsigned irq, unsigned gsi, unsigned flags) {
    bytes_put(image, 2, 1);
    bytes_put(image, 10, 1);
    bytes_put(image, 0, 1);
    bytes_put(image, irq, 1);
    bytes_put(image, gsi, 4);
    bytes_put(image, flags, 2);
}

static size_t acpi_madt(struct bytes *image, unsigned vcpu_count) {
    static const uint8_t pirq_irqs[4] = LAYOUT_PIRQ_IRQS;
    const size_t start = acpi_begin(image, "APIC", 1);
    bytes_put(image, LAYOUT_LOCAL_APIC_BASE, 4);
    bytes_put(image, 1, 4); /* PCAT_COMPAT: there is a pair of 8259 */
    for (unsigned i = 0; i < vcpu_count; i++) {
        bytes_put(image, 0x0800, 2); /* processor local APIC, 8 bytes */
        bytes_put(image, i, 1);
        bytes_put(image, i, 1);
        bytes_put(image, 1, 4); /* enabled */
    }
    bytes_put(image, 0x0c01, 2); /* I/O APIC, 12 bytes */
    bytes_put(image, layout_io_apic_id(vcpu_count), 1);
    bytes_put(image, 0, 1);
    bytes_put(image, LAYOUT_IO_APIC_BASE, 4);
    bytes_put(image, 0, 4);
    acpi_put_override(image, 0, LAYOUT_TIMER_PIN, INTI_CONFORMS);
    acpi_put_override(image, LAYOUT_SCI_IRQ, LAYOUT_SCI_IRQ, INTI_LEVEL_HIGH);
    for (unsigned i = 0; i < 4; i++)
        if (i == 0 || pirq_irqs[i] != pirq_irqs[i - 1])
            acpi_put_override(image, pirq_irqs[i], pirq_irqs[i], INTI_LEVEL_HIGH);
    bytes_put(image, 0x0604, 2); /* local APIC NMI, 6 bytes: LINT1 of every processor */
    bytes_put(image, 0xff, 1);
    bytes_put(image, INTI_CONFORMS, 2);
    bytes_put(image, 1, 1);
    acpi_end(image, start);
    return start;
}

static size_t acpi_hpet(struct bytes *image) {
    const size_t start = acpi_begin(image, "HPET", 1);
    bytes_put(image, LAYOUT_HPET_ID, 4);
    acpi_put_gas(image, GAS_MEMORY, LAYOUT_HPET_BASE, 64, 0);
    bytes_put(image, 0, 1);
    bytes_put(image, 100, 2); /* shortest periodic tick without lost interrupts, in main counter ticks */
    bytes_put(image, 0, 1);
    acpi_end(image, start);
    return start;
}

/* RSDT with 4-byte or XSDT with 8-byte addresses of the tables. */
static size_t acpi_root(struct bytes *image, const char signature[4], unsigned width, const uint64_t tables[3]) {
    const size_t start = acpi_begin(image, signature, 1);
    for (unsigned i = 0; i < 3; i++)
        bytes_put(image, tables[i], width);
    acpi_end(image, start);
    return start;
}

static void acpi_rsdp(struct bytes *image) {
    bytes_put_block(image, "RSD PTR ", 8);
    bytes_put(image, 0, 1);
    bytes_put_block(image, "TRAPEZ", 6);
    bytes_put(image, 2, 1);
    bytes_put(image, 0, 4);
    bytes_put(image, RSDP_SIZE, 4);
    bytes_put(image, 0, 8);
    bytes_put(image, 0, 4);
}

void acpi_append(struct bytes *image, uint64_t base, const struct boot_request *request) {
    const size_t rsdp = image->length;
    acpi_rsdp(image);
    const uint64_t facs = base + acpi_facs(image);
    const uint64_t dsdt = base + acpi_dsdt(image, request);
    const uint64_t tables[3] = {
        base + acpi_fadt(image, facs, dsdt),
        base + acpi_madt(image, request->vcpu_count ? request->vcpu_count : 1),
        base + acpi_hpet(image),
    };
    bytes_patch(image, rsdp + RSDP_RSDT, base + acpi_root(image, "RSDT", 4, tables), 4);
    bytes_patch(image, rsdp + RSDP_XSDT, base + acpi_root(image, "XSDT", 8, tables), 8);
    bytes_seal(image, rsdp, rsdp + RSDP_SIZE_1_0, rsdp + RSDP_CHECKSUM);
    bytes_seal(image, rsdp, rsdp + RSDP_SIZE, rsdp + RSDP_EXTENDED_CHECKSUM);
}
