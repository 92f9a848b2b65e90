/*
 * Everything that a BIOS leaves in memory below 1 MiB for an operating system: interrupt vectors, the BIOS data area,
 * ACPI, MP and SMBIOS tables. Written before the kernel, which may be loaded over the first two.
 */
#ifndef BIOS_TABLES_H
#define BIOS_TABLES_H

#include "bios/loader.h"

/* False with the error set. */
bool tables_write(struct loader *loader);

#endif
