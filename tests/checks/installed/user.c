/*
 * A program outside the project that drives libtrapeze as it is installed: real-mode code of its own, no devices, every
 * port access an exit. The guest reads a byte, adds one and writes it, until the program has seen enough.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <trapeze/trapeze.h>
#include <unistd.h>

enum { MEMORY = 1 << 20, CODE = 0x1000, PORT_IN = 0x10, PORT_OUT = 0x12, ROUNDS = 1000 };

/* again: in al,10h; inc al; out 12h,al; jmp again */
static const unsigned char code[] = {0xe4, PORT_IN, 0xfe, 0xc0, 0xe6, PORT_OUT, 0xeb, 0xf8};

static int failed(const char *what) {
    fprintf(stderr, "user: %s\n", what);
    return 1;
}

static struct trapeze_vcpu *prepare(struct trapeze_machine *machine) {
    struct trapeze_vcpu *vcpu = NULL;
    struct trapeze_registers registers;
    int fd = memfd_create("guest", 0);
    if (fd < 0 || ftruncate(fd, MEMORY) || pwrite(fd, code, sizeof code, CODE) != (ssize_t)sizeof code)
        return NULL;
    if (trapeze_memory_map(machine, 0, (guest_physical){0}, fd, 0, MEMORY, 0) != TRAPEZE_OK || close(fd))
        return NULL;
    if (trapeze_vcpu_create(machine, 0, &vcpu) != TRAPEZE_OK)
        return NULL;
    trapeze_vcpu_get_registers(vcpu, &registers);
    registers.segment[TRAPEZE_CS].base = 0;
    registers.segment[TRAPEZE_CS].selector = 0;
    registers.rip = CODE;
    return trapeze_vcpu_set_registers(vcpu, &registers) == TRAPEZE_OK ? vcpu : NULL;
}

int main(void) {
    struct trapeze_config config = {.unclaimed_exits = true};
    struct trapeze_machine *machine = NULL;
    const char *error = NULL;
    if (trapeze_machine_create(&config, &machine, &error) != TRAPEZE_OK)
        return failed(error ? error : "no machine");
    struct trapeze_vcpu *vcpu = prepare(machine);
    if (!vcpu)
        return failed("no vCPU ready to run");
    struct trapeze_exit exit;
    memset(&exit, 0, sizeof exit);
    for (unsigned i = 0; i < ROUNDS; i++) {
        if (trapeze_vcpu_run(vcpu, &exit) != TRAPEZE_OK || exit.reason != TRAPEZE_EXIT_IO || exit.io.is_write ||
            exit.io.space != TRAPEZE_PORT || exit.io.address != PORT_IN || exit.io.size != 1)
            return failed("the guest did not read its port");
        exit.io.value = i & 0xff;
        if (trapeze_vcpu_run(vcpu, &exit) != TRAPEZE_OK || exit.reason != TRAPEZE_EXIT_IO || !exit.io.is_write ||
            exit.io.space != TRAPEZE_PORT || exit.io.address != PORT_OUT || exit.io.value != ((i + 1) & 0xff))
            return failed("the guest did not write the next number");
    }
    trapeze_machine_destroy(machine);
    return 0;
}
