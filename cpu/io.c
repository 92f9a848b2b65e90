/* Ports and devices in memory; see the header. */
#include "cpu/io.h"
#include "cpu/access.h"

struct io_access {
    struct cpu *cpu;
    struct cpu_io_request request;
    bool is_claimed;
};

static uint64_t call_device(void *argument) {
    struct io_access *access = argument;
    const struct trapeze_io *io = &access->cpu->config->io;
    struct cpu_io_request *request = &access->request;
    if (request->is_write)
        access->is_claimed =
            io->write && io->write(io->opaque, request->space, request->address, request->size, request->value);
    else
        access->is_claimed =
            io->read && io->read(io->opaque, request->space, request->address, request->size, &request->value);
    return 0;
}

static void access_device(struct cpu *cpu, struct io_access *access) {
    if (cpu->config->io.is_light)
        call_device(access);
    else
        cpu->call_full(cpu, call_device, access);
}

static uint64_t cut(uint64_t value, unsigned size) {
    return size == 8 ? value : value & ((1ull << (size * 8)) - 1);
}

static void log_answer(struct cpu_io *io, uint64_t value) {
    if (io->answered == CPU_IO_REQUESTS)
        return;
    io->answer[io->answered++] = value;
    io->next = io->answered;
}

/* Leaves the read to the caller of trapeze_vcpu_run. */
static void wait_for_answer(struct cpu *cpu, const struct cpu_io_request *request) {
    struct cpu_io *io = &cpu->io;
    if (io->waiting)
        return;
    io->waiting = true;
    io->read = *request;
    io->rip = cpu->hot.rip;
    io->rflags = cpu->hot.rflags;
    cpu_copy(io->gpr, cpu->hot.gpr, sizeof io->gpr);
    cpu->hot.run = 0; /* string instructions end their chunk */
}

uint64_t cpu_io_read(struct cpu *cpu, enum trapeze_space space, uint64_t address, unsigned size) {
    struct cpu_io *io = &cpu->io;
    bool exits = cpu->config->unclaimed_exits;
    if (exits && io->next < io->answered)
        return cut(io->answer[io->next++], size);
    struct io_access access = {.cpu = cpu, .request = {.space = space, .size = size, .address = address}};
    if (io->waiting)
        return cut(~0ull, size);
    access_device(cpu, &access);
    uint64_t value = access.is_claimed ? access.request.value : ~0ull;
    if (exits && !access.is_claimed)
        wait_for_answer(cpu, &access.request);
    else if (exits)
        log_answer(io, value); /* reads have effects: do not repeat this one */
    return cut(value, size);
}

void cpu_io_write(struct cpu *cpu, enum trapeze_space space, uint64_t address, unsigned size, uint64_t value) {
    struct io_access access = {
        .cpu = cpu,
        .request = {.space = space, .size = size, .address = address, .value = cut(value, size), .is_write = true}};
    struct cpu_io *io = &cpu->io;
    if (io->waiting)
        return;
    access_device(cpu, &access);
    if (access.is_claimed || !cpu->config->unclaimed_exits || io->write_count == CPU_IO_REQUESTS)
        return;
    io->write[io->write_count++] = access.request;
    cpu->hot.run = 0;
}

void cpu_io_abandon(struct cpu *cpu) {
    struct cpu_io *io = &cpu->io;
    cpu->hot.rip = io->rip;
    cpu->hot.rflags = io->rflags;
    cpu_copy(cpu->hot.gpr, io->gpr, sizeof io->gpr);
    io->next = 0;
    cpu->stop = CPU_STOP_IO;
}

void cpu_io_answer(struct cpu *cpu, uint64_t value) {
    struct cpu_io *io = &cpu->io;
    io->waiting = false;
    log_answer(io, value);
    io->next = 0;
}

uint64_t cpu_port_read(struct cpu *cpu, uint16_t port, unsigned size) {
    return cpu_io_read(cpu, TRAPEZE_PORT, port, size);
}

void cpu_port_write(struct cpu *cpu, uint16_t port, unsigned size, uint64_t value) {
    cpu_io_write(cpu, TRAPEZE_PORT, port, size, value);
}
