/*
 * ELF executables of 32 and 64 bits as kernels: segments go to their physical addresses (System V ABI, chapters 4 and
 * 5; p_paddr as boot loaders read it). Parsed with libelf, which is used here alone.
 */
#ifndef BIOS_ELF_IMAGE_H
#define BIOS_ELF_IMAGE_H

#include "bios/loader.h"

struct elf_image {
    struct Elf *handle; /* libelf's */
    const struct image *file;
    uint64_t entry; /* e_entry as it stands */
    size_t segment_count;
};

bool elf_image_matches(const struct image *file);
/* False with the error set: damaged, for another machine, not linked. */
bool elf_image_open(struct loader *loader, const struct image *file, struct elf_image *elf);
void elf_image_close(struct elf_image *elf);

/* Loads every PT_LOAD segment and zeroes what memory has beyond the file. */
bool elf_image_load(struct loader *loader, const struct elf_image *elf);

/* Finds a note of 4 or 8 bytes in the PT_NOTE segments; false (no error set) when there is none. */
bool elf_image_note(const struct elf_image *elf, const char *name, uint32_t type, uint64_t *value);

/* The physical address of a linear entry point: through the segment that holds it, else unchanged. */
uint64_t elf_image_physical(const struct elf_image *elf, uint64_t address);

/* Whether a loaded segment has this physical address. */
bool elf_image_covers(const struct elf_image *elf, uint64_t physical);

#endif
