/*
 * The static ACPI tables (ACPI 6.5, chapter 5; revisions of ACPI 2.0, which every guest since 2000 reads): RSDP, RSDT,
 * XSDT, FADT, FACS, DSDT, MADT, HPET.
 */
#ifndef BIOS_ACPI_H
#define BIOS_ACPI_H

#include "bios/boot.h"
#include "bios/bytes.h"

/* Appends the tables, the RSDP first; `base` is the guest-physical address of image->data, 64-byte aligned. */
void acpi_append(struct bytes *image, uint64_t base, const struct boot_request *request);

#endif
