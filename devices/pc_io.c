/* See pc_io.h. */
#include "devices/pc_io.h"

static _Thread_local unsigned current_cpu;

struct unclaimed_access {
    const struct pc_io *io;
    enum trapeze_space space;
    bool is_write;
    uint64_t address;
    unsigned size;
};

static uint64_t full_tell(void *argument) {
    const struct unclaimed_access *access = argument;
    access->io->unclaimed(access->io->opaque, access->space, access->is_write, access->address, access->size);
    return 0;
}

static bool tell_unclaimed(const struct pc_io *io, enum trapeze_space space, bool is_write, uint64_t address,
                           unsigned size) {
    struct unclaimed_access access = {io, space, is_write, address, size};
    if (io->unclaimed)
        bus_call_full(io->bus, full_tell, &access);
    return false;
}

bool pc_io_read(void *opaque, enum trapeze_space space, uint64_t address, unsigned size, uint64_t *value) {
    const struct pc_io *io = opaque;
    return bus_read(io->bus, space, address, size, value) || tell_unclaimed(io, space, false, address, size);
}

bool pc_io_write(void *opaque, enum trapeze_space space, uint64_t address, unsigned size, uint64_t value) {
    const struct pc_io *io = opaque;
    return bus_write(io->bus, space, address, size, value) || tell_unclaimed(io, space, true, address, size);
}

static void set_intr(void *vcpu, bool asserted) {
    trapeze_vcpu_set_intr(vcpu, asserted);
}

static void signal_vcpu(void *vcpu, enum trapeze_signal signal, unsigned vector) {
    trapeze_vcpu_signal(vcpu, signal, vector);
}

static uint64_t read_tsc(void *vcpu) {
    enum { IA32_TIME_STAMP_COUNTER = 0x10 };
    uint64_t value = 0;
    trapeze_vcpu_get_msr(vcpu, IA32_TIME_STAMP_COUNTER, &value);
    return value;
}

struct lapic_cpu pc_io_lapic_cpu(struct trapeze_vcpu *vcpu) {
    return (struct lapic_cpu){set_intr, signal_vcpu, read_tsc, vcpu};
}

void pc_io_set_current_cpu(unsigned index) {
    current_cpu = index;
}

unsigned pc_io_current_cpu(void *unused) {
    (void)unused;
    return current_cpu;
}
