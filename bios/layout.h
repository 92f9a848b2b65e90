/*
 * Every fixed address of the machine that firmware and firmware tables speak of: where a direct boot puts its data, and
 * where the tables tell the guest that the chips are. The machine is a "pc": 440FX-style memory map, RAM up to 3 GiB
 * below 4 GiB and the rest above.
 */
#ifndef BIOS_LAYOUT_H
#define BIOS_LAYOUT_H

#include <stdint.h>

/* ---- Memory map ---- */
#define LAYOUT_EBDA_BASE     UINT64_C(0x9fc00) /* extended BIOS data area, to the end of conventional memory */
#define LAYOUT_VIDEO_BASE    UINT64_C(0xa0000) /* video memory and option ROMs: no RAM that the guest may use */
#define LAYOUT_BIOS_BASE     UINT64_C(0xe0000) /* RAM-backed; the tables below live here */
#define LAYOUT_HIGH_MEMORY   UINT64_C(0x100000)
#define LAYOUT_LOW_RAM_LIMIT UINT64_C(0xc0000000) /* the most that ram_below_4g may be; the PCI window begins here */
#define LAYOUT_FOUR_GIB      UINT64_C(0x100000000)

/* ---- Left by a BIOS ---- */
#define LAYOUT_BDA_BASE     UINT64_C(0x400)
#define LAYOUT_TIMER_STUB UINT64_C(0xffea5) /* F000:FEA5, where IBM's BIOS had its handler of IRQ 0 */
#define LAYOUT_IRET_STUB    UINT64_C(0xfff53) /* F000:FF53, where IBM's BIOS had its dummy interrupt handler */
#define LAYOUT_ACPI_BASE    LAYOUT_BIOS_BASE  /* the RSDP; the other tables follow it */
#define LAYOUT_ACPI_LIMIT   UINT64_C(0xf0000)
#define LAYOUT_MP_BASE      UINT64_C(0xf0000) /* the MP floating pointer; the configuration table follows it */
#define LAYOUT_MP_LIMIT     UINT64_C(0xf8000)
#define LAYOUT_SMBIOS_BASE  UINT64_C(0xf8000)
#define LAYOUT_SMBIOS_LIMIT UINT64_C(0xfe000)

/* ---- Data of a direct boot in conventional memory ---- */
#define LAYOUT_BOOT_GDT         UINT64_C(0x1000)
#define LAYOUT_ZERO_PAGE        UINT64_C(0x7000) /* struct boot_params of Linux */
#define LAYOUT_PAGE_TABLES      UINT64_C(0x9000) /* PML4, PDPT, four page directories: six pages */
#define LAYOUT_COMMAND_LINE     UINT64_C(0x20000)
#define LAYOUT_COMMAND_LINE_MAX UINT64_C(0x10000) /* bytes, terminator included */

/* ---- Chips, as the tables describe them ---- */
#define LAYOUT_IO_APIC_BASE    UINT32_C(0xfec00000)
#define LAYOUT_HPET_BASE       UINT32_C(0xfed00000)
#define LAYOUT_LOCAL_APIC_BASE UINT32_C(0xfee00000)
#define LAYOUT_HPET_ID         UINT32_C(0x8086a201) /* low half of the HPET's capabilities register */
#define LAYOUT_PCI_WINDOW      UINT32_C(0xc0000000)
#define LAYOUT_PCI_WINDOW_END  UINT32_C(0xfebfffff)

#define LAYOUT_PM1_EVENT     0x600 /* four bytes */
#define LAYOUT_PM1_CONTROL   0x604 /* two bytes */
#define LAYOUT_PM_TIMER      0x608 /* four bytes */
#define LAYOUT_GPE0          0x60c /* two bytes of status, two of enables */
#define LAYOUT_SMI_COMMAND   0xb2
#define LAYOUT_ACPI_ENABLE   0xf1 /* written to SMI_COMMAND: sets SCI_EN */
#define LAYOUT_ACPI_DISABLE  0xf0
#define LAYOUT_RESET_PORT    0xcf9
#define LAYOUT_RESET_VALUE   6
#define LAYOUT_SLEEP_TYPE_S5 0 /* SLP_TYP of soft-off in PM1_CNT */

/* ---- Interrupt wiring ---- */
#define LAYOUT_SCI_IRQ   9
#define LAYOUT_TIMER_PIN 2 /* ISA IRQ 0 at the I/O APIC */
/* PCI: INTx of a slot reaches PIRQ (slot - 1 + pin) mod 4, and each PIRQ one ISA IRQ, level-triggered, active high. */
#define LAYOUT_PIRQ_IRQS                                                                                               \
    { 10, 10, 11, 11 }

static inline unsigned layout_pirq_of(unsigned slot, unsigned pin) {
    return (slot + pin + 3) & 3;
}

/* The I/O APIC's id: behind those of the processors where it still fits into its four bits, of which 15 means all. */
static inline unsigned layout_io_apic_id(unsigned vcpu_count) {
    return vcpu_count < 15 ? vcpu_count : 0;
}

#endif
