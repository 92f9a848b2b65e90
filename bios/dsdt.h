/* The machine's devices in ACPI Machine Language: PCI root bridge, interrupt links, ISA devices, HPET, soft-off. */
#ifndef BIOS_DSDT_H
#define BIOS_DSDT_H

#include "bios/boot.h"
#include "bios/bytes.h"

/* Appends the definition block behind the table header that `table` ends with. */
void dsdt_append(struct bytes *table, const struct boot_request *request);

#endif
