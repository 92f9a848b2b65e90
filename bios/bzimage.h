/*
 * Linux bzImage (Documentation/arch/x86/boot.rst, "The Linux/x86 Boot Protocol" 2.02 to 2.15), entered past its
 * real-mode part: by the 32-bit protocol, or by the 64-bit one where kernel and processor have it.
 */
#ifndef BIOS_BZIMAGE_H
#define BIOS_BZIMAGE_H

#include "bios/loader.h"

bool bzimage_matches(const struct image *kernel);
bool bzimage_load(struct loader *loader, const struct image *kernel);

#endif
