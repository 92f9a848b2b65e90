/* A record in the making: what the files of the generator share. */
#ifndef ISA_DRAFT_H
#define ISA_DRAFT_H

#include "isa_generate.h"

/* One decoded instruction. */
struct shape {
    ZydisDecodedInstruction instruction;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
};

struct draft {
    struct isa_record *record;
    uint32_t pinned, written; /* general registers: that point somewhere; that an earlier instruction wrote */
    uint32_t undefined;       /* flags that an earlier instruction left undefined */
    uint32_t ever_undefined;  /* a block may end early by a fault */
};

static inline uint64_t random_below(struct isa_generator *g, uint64_t bound) {
    return isa_random(&g->random) % bound;
}

static inline uint64_t code_start(const struct isa_generator *g) {
    return g->bits == 16 ? ISA_CODE16 : ISA_CODE;
}

/* 0..15, or -1 for what is no general register. */
int gpr_number(ZydisRegister reg);

/* ---- isa_filter.c: what is compared ---- */
/* Whether no test can have the instruction: what it does depends on more than the state, or is not the guest's to do. */
bool is_refused(const struct shape *shape);
/* ISA_LOOSE_*: what of a fault's traces is the processor's own affair. */
uint32_t looseness(const struct shape *shape);
uint32_t undefined_flags(const struct shape *shape);

/* ---- isa_place.c: registers, displacements and memory that fit ---- */
void start_record(struct isa_generator *g, struct isa_record *record);
/* Fits the instruction at `code`, which runs at offset `at` of the code segment, into the draft; false: it does not. */
bool place(struct isa_generator *g, struct draft *draft, struct shape *shape, uint8_t *code, uint64_t at);

#endif
