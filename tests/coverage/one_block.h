/* A machine of one page that has every feature, in which code is translated, one block at a time, and never run. */
#ifndef TESTS_ONE_BLOCK_H
#define TESTS_ONE_BLOCK_H

#include "translator/machine.h"

enum { ONE_BLOCK_PAGE = 4096 };

struct one_block {
    struct trapeze_machine *machine;
    struct cpu *cpu;
    uint8_t *ram;
};

/* False where the host refuses something. */
bool one_block_create(struct one_block *bench);
void one_block_destroy(struct one_block *bench);

/* The block of the code at `rip` in ram, for a mode key; it lives until so many others have come that the cache is
 * full. */
struct block *one_block_translate(struct one_block *bench, uint64_t rip, uint32_t key);

#endif
