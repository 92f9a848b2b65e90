/* The processors' registers as text, for a guest that has crashed its machine. */
#ifndef TOOLS_STATE_DUMP_H
#define TOOLS_STATE_DUMP_H

#include <stdio.h>

struct pc;

/* All vCPUs; none may be running. */
void state_dump(FILE *to, struct pc *pc);

#endif
