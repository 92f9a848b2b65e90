/*
 * ELF kernels entered by Xen's PVH protocol (xen/include/public/arch-x86/hvm/start_info.h, docs/misc/pvh.pandoc):
 * 32-bit protected mode at the address of an ELF note, EBX pointing to hvm_start_info.
 */
#ifndef BIOS_PVH_H
#define BIOS_PVH_H

#include "bios/loader.h"

/* The kernel is an ELF file. */
bool pvh_load(struct loader *loader, const struct image *kernel);

#endif
