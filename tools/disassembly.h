/* Machine code as text, by Capstone. */
#ifndef TOOLS_DISASSEMBLY_H
#define TOOLS_DISASSEMBLY_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Writes one line for each instruction, `indent` before it; bytes that are none appear as .byte. width: 16, 32, 64. */
void disassembly_print(FILE *to, const char *indent, uint64_t address, unsigned width, const uint8_t *code,
                       size_t length);
/* The first instruction alone, without an end of line: "(bad)" where there is none. */
void disassembly_first(char *text, size_t size, uint64_t address, unsigned width, const uint8_t *code, size_t length);

#endif
