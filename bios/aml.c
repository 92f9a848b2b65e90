/* Writes ACPI Machine Language; see aml.h. Numbers in comments are sections of ACPI 6.5. */
#include "bios/aml.h"

#include <assert.h>
#include <string.h>

enum {
    AML_ZERO = 0x00,
    AML_ONE = 0x01,
    AML_NAME = 0x08,
    AML_BYTE = 0x0a,
    AML_WORD = 0x0b,
    AML_DWORD = 0x0c,
    AML_QWORD = 0x0e,
    AML_SCOPE = 0x10,
    AML_BUFFER = 0x11,
    AML_PACKAGE = 0x12,
    AML_METHOD = 0x14,
    AML_DUAL_NAME = 0x2e,
    AML_MULTI_NAME = 0x2f,
    AML_EXTENDED = 0x5b,
    AML_EXTENDED_DEVICE = 0x82,
};

/* Bits of the address space descriptors (6.4.3.5). */
enum {
    WINDOW_MEMORY = 0,
    WINDOW_IO = 1,
    WINDOW_BUS = 2,
    WINDOW_FIXED = 0x0c, /* both ends are fixed, produced for children */
    WINDOW_WRITABLE = 1,
    WINDOW_ENTIRE_RANGE = 3,
};

static void aml_put(struct aml *aml, uint64_t value, unsigned size) {
    bytes_put(&aml->code, value, size);
}

static void aml_open(struct aml *aml, bool is_resources) {
    assert(aml->depth < AML_DEPTH_MAX);
    aml->open[aml->depth].start = aml->code.length;
    aml->open[aml->depth].is_resources = is_resources;
    aml->depth++;
}

/* NameString (20.2.2). */
static void aml_put_name(struct aml *aml, const char *name) {
    if (*name == '\\')
        aml_put(aml, (uint8_t)*name++, 1);
    const size_t segments = (strlen(name) + 1) / 5;
    if (segments == 2)
        aml_put(aml, AML_DUAL_NAME, 1);
    if (segments > 2)
        aml_put(aml, AML_MULTI_NAME | (uint64_t)segments << 8, 2);
    for (size_t i = 0; i < segments; i++)
        bytes_put_block(&aml->code, name + i * 5, 4);
}

/* PkgLength (20.2.4), which counts itself: one byte, or a nibble and one or two bytes. */
static size_t aml_package_length(size_t contents, uint8_t encoded[3]) {
    if (contents + 1 < 0x40) {
        encoded[0] = (uint8_t)(contents + 1);
        return 1;
    }
    const size_t size = contents + 2 < 0x1000 ? 2 : 3, length = contents + size;
    encoded[0] = (uint8_t)((size - 1) << 6 | (length & 0xf));
    encoded[1] = (uint8_t)(length >> 4);
    encoded[2] = (uint8_t)(length >> 12);
    return size;
}

void aml_scope(struct aml *aml, const char *name) {
    aml_put(aml, AML_SCOPE, 1);
    aml_open(aml, false);
    aml_put_name(aml, name);
}

void aml_device(struct aml *aml, const char *name) {
    aml_put(aml, AML_EXTENDED | AML_EXTENDED_DEVICE << 8, 2);
    aml_open(aml, false);
    aml_put_name(aml, name);
}

void aml_method(struct aml *aml, const char *name, unsigned arguments) {
    aml_put(aml, AML_METHOD, 1);
    aml_open(aml, false);
    aml_put_name(aml, name);
    aml_put(aml, arguments & 7, 1);
}

void aml_package(struct aml *aml, unsigned elements) {
    aml_put(aml, AML_PACKAGE, 1);
    aml_open(aml, false);
    aml_put(aml, elements, 1);
}

void aml_resources(struct aml *aml) {
    aml_put(aml, AML_BUFFER, 1);
    aml_open(aml, true);
}

void aml_close(struct aml *aml) {
    assert(aml->depth > 0);
    const size_t start = aml->open[--aml->depth].start;
    if (aml->open[aml->depth].is_resources) {
        aml_put(aml, 0x0079, 2); /* end tag; checksum 0 means that there is none (6.4.2.9) */
        const size_t length = aml->code.length - start;
        const uint8_t size[3] = {AML_WORD, (uint8_t)length, (uint8_t)(length >> 8)};
        bytes_insert(&aml->code, start, size, sizeof size);
    }
    uint8_t encoded[3];
    const size_t encoded_size = aml_package_length(aml->code.length - start, encoded);
    bytes_insert(&aml->code, start, encoded, encoded_size);
}

void aml_name(struct aml *aml, const char *name) {
    aml_put(aml, AML_NAME, 1);
    aml_put_name(aml, name);
}

void aml_integer(struct aml *aml, uint64_t value) {
    if (value <= 1) {
        aml_put(aml, value ? AML_ONE : AML_ZERO, 1);
    } else if (value <= UINT8_MAX) {
        aml_put(aml, AML_BYTE, 1);
        aml_put(aml, value, 1);
    } else if (value <= UINT16_MAX) {
        aml_put(aml, AML_WORD, 1);
        aml_put(aml, value, 2);
    } else if (value <= UINT32_MAX) {
        aml_put(aml, AML_DWORD, 1);
        aml_put(aml, value, 4);
    } else {
        aml_put(aml, AML_QWORD, 1);
        aml_put(aml, value, 8);
    }
}

static uint32_t aml_hex_digit(char digit) {
    return (uint32_t)(digit <= '9' ? digit - '0' : digit - 'A' + 10);
}

/* EISAID (19.6.39): three letters of five bits and four hexadecimal digits, big-endian. */
void aml_eisa_id(struct aml *aml, const char id[7]) {
    uint32_t value = (uint32_t)(id[0] - '@') << 26 | (uint32_t)(id[1] - '@') << 21 | (uint32_t)(id[2] - '@') << 16;
    for (unsigned i = 0; i < 4; i++)
        value |= aml_hex_digit(id[3 + i]) << (12 - 4 * i);
    aml_put(aml, AML_DWORD, 1);
    aml_put(aml, __builtin_bswap32(value), 4);
}

void aml_reference(struct aml *aml, const char *name) {
    aml_put_name(aml, name);
}

void aml_io(struct aml *aml, uint16_t base, uint8_t length) {
    aml_put(aml, 0x47, 1); /* I/O port descriptor (6.4.2.5) */
    aml_put(aml, 1, 1);    /* decodes 16 bits */
    aml_put(aml, base, 2);
    aml_put(aml, base, 2);
    aml_put(aml, 1, 1);
    aml_put(aml, length, 1);
}

void aml_irq(struct aml *aml, unsigned irq) {
    aml_put(aml, 0x22, 1); /* IRQ descriptor (6.4.2.1) without flags */
    aml_put(aml, UINT64_C(1) << irq, 2);
}

void aml_irq_level_high_shared(struct aml *aml, uint32_t gsi) {
    aml_put(aml, 0x89, 1); /* extended interrupt descriptor (6.4.3.6) */
    aml_put(aml, 6, 2);
    aml_put(aml, 0x09, 1); /* consumer, level, active high, shared */
    aml_put(aml, 1, 1);
    aml_put(aml, gsi, 4);
}

void aml_memory_fixed(struct aml *aml, uint32_t base, uint32_t length) {
    aml_put(aml, 0x86, 1); /* 32-bit fixed memory range (6.4.3.4) */
    aml_put(aml, 9, 2);
    aml_put(aml, WINDOW_WRITABLE, 1);
    aml_put(aml, base, 4);
    aml_put(aml, length, 4);
}

/* An address space descriptor whose fields have `width` bytes: granularity, first, last, translation, length. */
static void aml_window(struct aml *aml, uint8_t tag, unsigned width, unsigned kind_and_flags, uint32_t first,
                       uint32_t last) {
    aml_put(aml, tag, 1);
    aml_put(aml, 3 + 5 * width, 2);
    aml_put(aml, kind_and_flags & 0xff, 1);
    aml_put(aml, WINDOW_FIXED, 1);
    aml_put(aml, kind_and_flags >> 8, 1);
    aml_put(aml, 0, width);
    aml_put(aml, first, width);
    aml_put(aml, last, width);
    aml_put(aml, 0, width);
    aml_put(aml, (uint64_t)last - first + 1, width);
}

#define WINDOW_TAG_WORD  0x88
#define WINDOW_TAG_DWORD 0x87

void aml_window_bus(struct aml *aml, uint16_t first, uint16_t last) {
    aml_window(aml, WINDOW_TAG_WORD, 2, WINDOW_BUS, first, last);
}

void aml_window_io(struct aml *aml, uint16_t first, uint16_t last) {
    aml_window(aml, WINDOW_TAG_WORD, 2, WINDOW_IO | WINDOW_ENTIRE_RANGE << 8, first, last);
}

void aml_window_memory(struct aml *aml, uint32_t first, uint32_t last) {
    aml_window(aml, WINDOW_TAG_DWORD, 4, WINDOW_MEMORY | WINDOW_WRITABLE << 8, first, last);
}
