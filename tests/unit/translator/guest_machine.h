/*
 * A machine for the tests of libtrapeze's API: RAM_SIZE bytes of memory at 0, no devices, and small programs that are
 * assembled into the test itself.
 */
#ifndef TESTS_GUEST_MACHINE_H
#define TESTS_GUEST_MACHINE_H

#include <check.h>
#include <stdint.h>

#include "trapeze/trapeze.h"

#define RAM_SIZE 0x200000u
#define CODE 0x1000u
#define STACK 0x8000u
#define DATA 0x9000u
#define MMIO 0x300000u /* nothing is there */
#define END_PORT 0xf4

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI };

/* PROGRAM(name, bits, instructions): AT&T syntax; ends by a write to END_PORT. */
#define PROGRAM(name, bits, text)                                                                                      \
    extern const uint8_t name[], name##_end[];                                                                         \
    __asm__(".pushsection .rodata\n.code" #bits "\n" #name ":\n" text "\nout %al, $0xf4\n1: jmp 1b\n" #name            \
            "_end:\n.code64\n.popsection")

struct guest {
    struct trapeze_machine *machine;
    struct trapeze_vcpu *vcpu;
    uint8_t *ram;
    int fd;
    struct trapeze_exit exit;
};

/* A configuration of NULL: one processor "host", accesses that nobody claims are exits. */
void guest_create(struct guest *guest, const struct trapeze_config *config);
void guest_destroy(struct guest *guest);

/* Registers for code at CODE: real mode, flat 32-bit protected mode without paging, long mode with 1 GiB mapped 1:1. */
struct trapeze_registers guest_real_mode(void);
struct trapeze_registers guest_protected_mode(void);
struct trapeze_registers guest_long_mode(struct guest *guest);

/* Copies the program to CODE and starts it with the registers. */
void guest_load(struct guest *guest, const uint8_t *from, const uint8_t *to);
void guest_start(struct guest *guest, const uint8_t *from, const uint8_t *to, const struct trapeze_registers *registers);
#define GUEST_START(guest, name, registers) guest_start(guest, name, name##_end, registers)

/* Runs until the next exit, which must have that reason. */
void guest_run(struct guest *guest, enum trapeze_exit_reason reason);
void guest_expect_io(struct guest *guest, enum trapeze_space space, bool is_write, uint64_t address, unsigned size);
void guest_expect_read(struct guest *guest, enum trapeze_space space, uint64_t address, unsigned size, uint64_t answer);
void guest_expect_write(struct guest *guest, enum trapeze_space space, uint64_t address, unsigned size, uint64_t value);
void guest_expect_end(struct guest *guest);

uint64_t guest_register(struct guest *guest, unsigned index);
uint32_t guest_word(const struct guest *guest, uint64_t physical);
void guest_set_word(struct guest *guest, uint64_t physical, uint32_t value);

#endif
