/*
 * System Management BIOS tables (DMTF DSP0134, 2.8): only who made the machine, and that it is a virtual one. Operating
 * systems show it, and decide on quirks by it.
 */
#ifndef BIOS_SMBIOS_H
#define BIOS_SMBIOS_H

#include "bios/boot.h"
#include "bios/bytes.h"

/* Appends the entry point and the structures; `base` is the guest-physical address of image->data, 16-byte aligned. */
void smbios_append(struct bytes *image, uint64_t base, const struct boot_request *request);

#endif
