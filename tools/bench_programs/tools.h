/* Programs that are started rather than called: run to their end, with what they print hashed. */
#ifndef TOOLS_BENCH_PROGRAMS_TOOLS_H
#define TOOLS_BENCH_PROGRAMS_TOOLS_H

#include "tools/bench_programs/program.h"

/* Ends the program unless the tool ends with status 0. ARGUMENTS end in NULL; the first is the tool's own name. */
uint64_t tool_hash_output(const char *path, const char *const *arguments);

/* The bytes of a file that a tool has written. */
uint64_t tool_hash_file(const char *path);

#endif
