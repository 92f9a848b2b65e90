/* What a BIOS leaves in memory; see tables.h. */
#include "bios/tables.h"

#include "bios/acpi.h"
#include "bios/layout.h"
#include "bios/mp_table.h"
#include "bios/smbios.h"

#include <stdlib.h>

/*
 * Every real-mode vector points to an IRET, as a BIOS does with those that it does not use; that of IRQ 0, which ticks
 * from the start, counts the tick and acknowledges it.
 */
static bool tables_write_vectors(struct loader *loader) {
    static const uint8_t iret = 0xcf;
    static const uint8_t tick[] = {
        0x1e, 0x50,                   /* push ds; push ax */
        0x31, 0xc0, 0x8e, 0xd8,       /* xor ax, ax; mov ds, ax */
        0x66, 0xff, 0x06, 0x6c, 0x04, /* inc dword [046Ch] */
        0xb0, 0x20, 0xe6, 0x20,       /* mov al, 20h; out 20h, al */
        0x58, 0x1f, 0xcf,             /* pop ax; pop ds; iret */
    };
    enum { VECTOR_IRQ0 = 8 };
    uint32_t vectors[256];
    for (unsigned i = 0; i < 256; i++)
        vectors[i] = 0xf000u << 16 | (LAYOUT_IRET_STUB & 0xffff);
    vectors[VECTOR_IRQ0] = 0xf000u << 16 | (LAYOUT_TIMER_STUB & 0xffff);
    return loader_write(loader, 0, vectors, sizeof vectors) &&
           loader_write(loader, LAYOUT_IRET_STUB, &iret, sizeof iret) &&
           loader_write(loader, LAYOUT_TIMER_STUB, tick, sizeof tick);
}

/* The BIOS data area (IBM PC AT technical reference): serial ports, EBDA segment, equipment, memory size. */
static bool tables_write_bda(struct loader *loader) {
    static const uint16_t serial_ports[] = {0x3f8, 0x2f8};
    uint8_t bda[256] = {0};
    struct bytes area = {.data = bda, .size = sizeof bda, .length = sizeof bda};
    const unsigned serial_count = loader->request->serial_count < 2 ? loader->request->serial_count : 2;
    for (unsigned i = 0; i < serial_count; i++)
        bytes_patch(&area, (size_t)i * 2, serial_ports[i], 2);
    bytes_patch(&area, 0x0e, LAYOUT_EBDA_BASE >> 4, 2);
    bytes_patch(&area, 0x10, 0x0006 | serial_count << 9, 2); /* coprocessor, pointing device, number of serial ports */
    bytes_patch(&area, 0x13, LAYOUT_EBDA_BASE >> 10, 2);
    static const uint8_t ebda_kilobytes = 1;
    return loader_write(loader, LAYOUT_BDA_BASE, bda, sizeof bda) &&
           loader_write(loader, LAYOUT_EBDA_BASE, &ebda_kilobytes, sizeof ebda_kilobytes);
}

typedef void (*tables_append)(struct bytes *image, uint64_t base, const struct boot_request *request);

static bool tables_write_area(struct loader *loader, uint64_t base, uint64_t limit, tables_append append) {
    struct bytes image = {.data = malloc(limit - base), .size = limit - base};
    if (!image.data)
        return loader_fail(loader, loader->request->kernel, "no memory for the firmware tables");
    append(&image, base, loader->request);
    const bool is_written =
        image.is_full ? loader_fail(loader, loader->request->kernel, "the firmware tables do not fit below 1 MiB")
                      : loader_write(loader, base, image.data, image.length);
    free(image.data);
    return is_written;
}

bool tables_write(struct loader *loader) {
    return tables_write_vectors(loader) && tables_write_bda(loader) &&
           tables_write_area(loader, LAYOUT_ACPI_BASE, LAYOUT_ACPI_LIMIT, acpi_append) &&
           tables_write_area(loader, LAYOUT_MP_BASE, LAYOUT_MP_LIMIT, mp_table_append) &&
           tables_write_area(loader, LAYOUT_SMBIOS_BASE, LAYOUT_SMBIOS_LIMIT, smbios_append);
}
