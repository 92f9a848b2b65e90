/*
 * Between the engine and the bus of a PC: the callbacks of struct trapeze_io and those of a local APIC towards its
 * processor. Light code, where the build has it (TRAPEZE_LIGHT_DEVICES).
 */
#ifndef DEVICES_PC_IO_H
#define DEVICES_PC_IO_H

#include "devices/bus.h"
#include "devices/lapic.h"

struct pc_io {
    struct bus *bus;
    /* An access that nobody answers; NULL: not told. Any C function. */
    void (*unclaimed)(void *opaque, enum trapeze_space space, bool is_write, uint64_t address, unsigned size);
    void *opaque;
};

bool pc_io_read(void *pc_io, enum trapeze_space space, uint64_t address, unsigned size, uint64_t *value);
bool pc_io_write(void *pc_io, enum trapeze_space space, uint64_t address, unsigned size, uint64_t value);

struct lapic_cpu pc_io_lapic_cpu(struct trapeze_vcpu *vcpu);
/* Which vCPU the calling thread runs: how a local APIC's page, at one address for all, knows whose it is. */
void pc_io_set_current_cpu(unsigned index);
unsigned pc_io_current_cpu(void *unused);

#endif
