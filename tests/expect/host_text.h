/*
 * The host code of a block as text that is the same in every run: labels for addresses, names for stubs, for fields
 * of the state behind R, and for pointers that the translator puts into the code.
 */
#ifndef TESTS_HOST_TEXT_H
#define TESTS_HOST_TEXT_H

#include <stdio.h>

#include "translator/engine.h"

/* Writes one line an instruction, indented. False where a byte is no instruction that Capstone knows. */
bool host_text_print(FILE *to, const struct engine *engine, const struct block *block);

#endif
