/* Makes instruction tests: bytes from the whole encoding space, registers such that memory operands are in reach. */
#ifndef ISA_GENERATE_H
#define ISA_GENERATE_H

#include <Zydis/Zydis.h>

#include "isa_case.h"

enum isa_class { ISA_INTEGER, ISA_X87, ISA_VECTOR, ISA_CLASSES };

struct isa_generator {
    ZydisDecoder decoder;
    ZydisFormatter formatter;
    unsigned bits;
    uint64_t random;
    bool is_edgy; /* the record in the making has most of its operands where something ends */
};

void isa_generator_init(struct isa_generator *generator, unsigned bits, uint64_t seed);

/*
 * Tries one random encoding of point `point` (0 <= point < ISA_POINTS) of the encoding space. True: *record is a test
 * of one instruction; *form is a number of its form (mnemonic, operand kinds and sizes), *class its class.
 */
enum { ISA_POINTS = 4 * 256 * 4 * 2 + 2 * 8 * 256 * 4 };
bool isa_generate_form(struct isa_generator *generator, unsigned point, struct isa_record *record, uint64_t *form,
                       enum isa_class *class);

/* A block of a few instructions of which none leaves undefined flags to another. */
void isa_generate_block(struct isa_generator *generator, struct isa_record *record);

#endif
