/*
 * The encoding space of x86, walked so that every instruction form that a decoder knows is met at least once: legacy
 * maps with every mandatory prefix, VEX, EVEX and XOP, each opcode with register and memory operands.
 */
#ifndef TESTS_FORMS_H
#define TESTS_FORMS_H

#include <stdbool.h>
#include <stdint.h>

#define FORM_BYTES 15

/* Which registers the encodings name. */
struct form_flavour {
    uint8_t rm;         /* ModRM.rm of register forms and of [base + disp32]; 4 means a SIB byte there */
    uint8_t sib;        /* of the form with a SIB byte */
    uint8_t extensions; /* R, X, B as REX has them; 64-bit code only */
    uint8_t vvvv;       /* second source register */
    uint8_t reg;        /* ModRM.reg of EVEX instructions */
    uint8_t prefix;     /* in front of all, 0: none */
};

/* FORM_BYTES bytes that may begin with an instruction. */
typedef void form_visitor(void *opaque, const uint8_t *bytes);

/* Visits candidates for code of 16, 32 or 64 bits; many are no instruction, and some forms come more than once. */
void forms_visit(unsigned bits, const struct form_flavour *flavour, form_visitor *visit, void *opaque);

/* A set of hashes with a fixed number of places. */
struct form_set {
    uint64_t *hashes;
    unsigned bits, count;
};
bool form_set_init(struct form_set *set, unsigned bits);
void form_set_release(struct form_set *set);
/* True when it was not in the set yet. */
bool form_set_add(struct form_set *set, uint64_t hash);

#endif
