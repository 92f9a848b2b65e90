/*
 * Writes ACPI Machine Language (ACPI 6.5, chapter 20) and resource descriptors (6.4): the terms that dsdt.c needs. What
 * has a length in front is opened and closed; the length is put in when it is known.
 */
#ifndef BIOS_AML_H
#define BIOS_AML_H

#include "bios/bytes.h"

#define AML_DEPTH_MAX 8

struct aml {
    struct bytes code;
    struct {
        size_t start; /* behind the opcode, where the length goes */
        bool is_resources;
    } open[AML_DEPTH_MAX];
    unsigned depth;
};

/* Terms with contents, each ended by aml_close. Names: segments of four characters, '.' between, '\' in front. */
void aml_scope(struct aml *aml, const char *name);
void aml_device(struct aml *aml, const char *name);
void aml_method(struct aml *aml, const char *name, unsigned arguments);
void aml_package(struct aml *aml, unsigned elements);
/* A buffer of resource descriptors; aml_close adds the end tag. */
void aml_resources(struct aml *aml);
void aml_close(struct aml *aml);

/* Name (name, ...): the object is the next term. */
void aml_name(struct aml *aml, const char *name);
void aml_integer(struct aml *aml, uint64_t value);
void aml_eisa_id(struct aml *aml, const char id[7]);
void aml_reference(struct aml *aml, const char *name);

/* Resource descriptors, within aml_resources. */
void aml_io(struct aml *aml, uint16_t base, uint8_t length);
void aml_irq(struct aml *aml, unsigned irq); /* edge, active high, exclusive */
void aml_irq_level_high_shared(struct aml *aml, uint32_t gsi);
void aml_memory_fixed(struct aml *aml, uint32_t base, uint32_t length);
/* What a bridge passes on; `last` is inclusive. */
void aml_window_bus(struct aml *aml, uint16_t first, uint16_t last);
void aml_window_io(struct aml *aml, uint16_t first, uint16_t last);
void aml_window_memory(struct aml *aml, uint32_t first, uint32_t last);

#endif
