/*
 * Multiboot Specification 0.6.96 (multiboot 1): flat images with the address fields in the header, and ELF files.
 * Modules come from -initrd as "file args,file args,...". Video modes, symbol tables and drives are left out.
 */
#ifndef BIOS_MULTIBOOT_H
#define BIOS_MULTIBOOT_H

#include "bios/loader.h"

bool multiboot_matches(const struct image *kernel);
bool multiboot_load(struct loader *loader, const struct image *kernel);

#endif
