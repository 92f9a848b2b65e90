/*
 * The registers that a debugger sees: one list for every mode of the processor, that of a 64-bit x86 with the system
 * registers behind it, told to gdb as a target description (the gdb manual, appendix G).
 */
#ifndef TOOLS_GDB_REGISTERS_H
#define TOOLS_GDB_REGISTERS_H

#include "trapeze/trapeze.h"

enum { GDB_REGISTER_SIZE_MAX = 16 };

/* What a vCPU's registers are read into and written back from. */
struct gdb_state {
    struct trapeze_registers registers;
    uint8_t xsave[TRAPEZE_XSAVE_SIZE];
    uint64_t kernel_gs_base;
};

unsigned gdb_register_count(void);
/* In bytes; 0 for a number past the last. */
unsigned gdb_register_size(unsigned number);

void gdb_state_read(struct gdb_state *state, struct trapeze_vcpu *vcpu);
/* False where the processor refuses; nothing has changed then but perhaps the vector registers. */
bool gdb_state_write(const struct gdb_state *state, struct trapeze_vcpu *vcpu);

/* Little-endian bytes of register `number`, which exists. */
void gdb_register_get(const struct gdb_state *state, unsigned number, uint8_t bytes[GDB_REGISTER_SIZE_MAX]);
/* False for a value that cannot be put there: a selector in protected mode would need its descriptor loaded. */
bool gdb_register_set(struct gdb_state *state, unsigned number, const uint8_t bytes[GDB_REGISTER_SIZE_MAX]);

/* target.xml, allocated; NULL: no memory. */
char *gdb_registers_describe(void);

#endif
