/*
 * Kernels made of a few hundred bytes, right in every field, for tests to damage one field at a time.
 */
#ifndef TESTS_UNIT_BIOS_SYNTHETIC_H
#define TESTS_UNIT_BIOS_SYNTHETIC_H

#include <elf.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A bzImage of protocol 2.15: relocatable, preferring 16 MiB, with a 64-bit entry; 4 KiB of code behind four sectors.
 */
enum {
    SYNTHETIC_BZIMAGE_PAYLOAD = 5 * 512,
    SYNTHETIC_BZIMAGE_SIZE = SYNTHETIC_BZIMAGE_PAYLOAD + 4096,
};
void synthetic_bzimage(uint8_t file[SYNTHETIC_BZIMAGE_SIZE]);

/* An ELF file with a PVH note and two segments: 512 bytes at 1 MiB (4 KiB in memory) and 256 at 2 MiB. */
struct synthetic_elf64 {
    Elf64_Ehdr header;
    Elf64_Phdr segment[3]; /* the third is PT_NOTE */
    struct {
        Elf64_Nhdr header;
        char name[4];
        uint32_t entry;
    } note;
    uint8_t code[512], data[256];
};
void synthetic_elf64(struct synthetic_elf64 *file);

/* The same in 32 bits with one segment, linked at C0100000h and loaded at 1 MiB, and a multiboot header in it. */
struct synthetic_elf32 {
    Elf32_Ehdr header;
    Elf32_Phdr segment[1];
    uint32_t multiboot[8]; /* part of what is loaded */
    uint8_t code[480];
};
void synthetic_elf32(struct synthetic_elf32 *file);

/* A flat multiboot image, loaded to 2 MiB, with the header 64 bytes into it and 4 KiB of BSS behind it. */
enum { SYNTHETIC_FLAT_SIZE = 1024, SYNTHETIC_FLAT_HEADER = 64 };
void synthetic_flat(uint8_t file[SYNTHETIC_FLAT_SIZE]);

static inline void synthetic_put(void *file, size_t offset, unsigned size, uint64_t value) {
    memcpy((uint8_t *)file + offset, &value, size);
}

#endif
