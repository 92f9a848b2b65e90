/*
 * Intel MultiProcessor Specification 1.4, chapter 4: the floating pointer structure and the configuration table, for
 * guests that know APICs but not ACPI.
 */
#ifndef BIOS_MP_TABLE_H
#define BIOS_MP_TABLE_H

#include "bios/boot.h"
#include "bios/bytes.h"

/* Appends both, the floating pointer first; `base` is the guest-physical address of image->data. */
void mp_table_append(struct bytes *image, uint64_t base, const struct boot_request *request);

#endif
