/* System Management BIOS tables; see smbios.h. Sections are those of DSP0134. */
#include "bios/smbios.h"

#include <string.h>

enum { ENTRY_SIZE = 31, ENTRY_CHECKSUM = 4, INTERMEDIATE = 16, INTERMEDIATE_CHECKSUM = 21 };
enum { BIOS_CHARACTERISTICS_PRESENT_IN_EXTENSION = 1 << 3, EXTENSION_IS_VIRTUAL_MACHINE = 1 << 4 };

struct smbios_structure {
    uint8_t type, length;     /* length: of the formatted area, header included */
    const uint8_t *formatted; /* behind the header */
    const char *strings[4];   /* referred to by number, from 1; NULL ends */
};

/* 7.1: vendor, version, date are strings 1 to 3; a ROM of 128 KiB at segment E000h; version 0.1. */
static const uint8_t smbios_bios[] = {
    1,
    2,
    0x00,
    0xe0,
    3,
    1,
    BIOS_CHARACTERISTICS_PRESENT_IN_EXTENSION,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    EXTENSION_IS_VIRTUAL_MACHINE,
    0,
    1,
    0xff,
    0xff,
};
/* 7.2: manufacturer, product, version; no serial number and UUID; woken by the power switch. */
static const uint8_t smbios_system[] = {1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0};
/* 7.4: a chassis of kind "other", in safe states. */
static const uint8_t smbios_chassis[] = {1, 1, 0, 0, 0, 3, 3, 3, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0};

static const struct smbios_structure smbios_structures[] = {
    {0, 4 + sizeof smbios_bios, smbios_bios, {"Trapeze", TRAPEZE_VERSION, "01/01/2026"}},
    {1, 4 + sizeof smbios_system, smbios_system, {"Trapeze", "pc", TRAPEZE_VERSION}},
    {3, 4 + sizeof smbios_chassis, smbios_chassis, {"Trapeze"}},
    {127, 4, NULL, {NULL}},
};
enum { SMBIOS_STRUCTURES = sizeof smbios_structures / sizeof smbios_structures[0] };

/* Returns the size of the structure with its strings. */
static size_t smbios_put(struct bytes *image, const struct smbios_structure *structure, unsigned handle) {
    const size_t start = image->length;
    bytes_put(image, structure->type, 1);
    bytes_put(image, structure->length, 1);
    bytes_put(image, handle, 2);
    bytes_put_block(image, structure->formatted, structure->length - 4u);
    for (unsigned i = 0; structure->strings[i]; i++)
        bytes_put_block(image, structure->strings[i], strlen(structure->strings[i]) + 1);
    bytes_put(image, 0,
              structure->strings[0] ? 1 : 2); /* an empty string ends; two zeros where there is none (6.1.3) */
    return image->length - start;
}

static void smbios_put_entry(struct bytes *image, uint64_t table) {
    bytes_put_block(image, "_SM_", 4);
    bytes_put(image, 0, 1);
    bytes_put(image, ENTRY_SIZE, 1);
    bytes_put(image, 0x0802, 2); /* 2.8 */
    bytes_put(image, 0, 8);      /* largest structure, patched; entry point revision and formatted area */
    bytes_put_block(image, "_DMI_", 5);
    bytes_put(image, 0, 3); /* checksum and table length, patched */
    bytes_put(image, table, 4);
    bytes_put(image, SMBIOS_STRUCTURES, 2);
    bytes_put(image, 0x28, 1);
    bytes_put(image, 0, 1); /* alignment */
}

void smbios_append(struct bytes *image, uint64_t base, const struct boot_request *request) {
    (void)request;
    const size_t start = image->length;
    size_t largest = 0;
    smbios_put_entry(image, base + start + ENTRY_SIZE + 1);
    const size_t table = image->length;
    for (unsigned i = 0; i < SMBIOS_STRUCTURES; i++) {
        const size_t size = smbios_put(image, &smbios_structures[i], i);
        largest = size > largest ? size : largest;
    }
    bytes_patch(image, start + 8, largest, 2);
    bytes_patch(image, start + 22, image->length - table, 2);
    bytes_seal(image, start + INTERMEDIATE, start + ENTRY_SIZE, start + INTERMEDIATE_CHECKSUM);
    bytes_seal(image, start, start + ENTRY_SIZE, start + ENTRY_CHECKSUM);
}
