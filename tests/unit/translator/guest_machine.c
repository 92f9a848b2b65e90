/* See the header. */
#include "guest_machine.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PML4 = 0x10000, PDPT = 0x11000, PD = 0x12000 };

void guest_create(struct guest *guest, const struct trapeze_config *config) {
    static const struct trapeze_config standard = {.unclaimed_exits = true};
    memset(guest, 0, sizeof *guest);
    guest->fd = memfd_create("ram", MFD_CLOEXEC);
    ck_assert_int_eq(ftruncate(guest->fd, RAM_SIZE), 0);
    guest->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, guest->fd, 0);
    ck_assert_ptr_ne(guest->ram, MAP_FAILED);
    ck_assert_int_eq(trapeze_machine_create(config ? config : &standard, &guest->machine, NULL), TRAPEZE_OK);
    ck_assert_int_eq(trapeze_memory_map(guest->machine, 0, guest_physical_at(0), guest->fd, 0, RAM_SIZE,
                                        TRAPEZE_MEMORY_LOG_DIRTY), TRAPEZE_OK);
    ck_assert_int_eq(trapeze_vcpu_create(guest->machine, 0, &guest->vcpu), TRAPEZE_OK);
}

void guest_destroy(struct guest *guest) {
    trapeze_machine_destroy(guest->machine);
    munmap(guest->ram, RAM_SIZE);
    close(guest->fd);
}

/* ---- Modes ---- */

static void set_segments(struct trapeze_registers *registers, uint32_t limit, uint32_t code, uint32_t data) {
    for (unsigned i = 0; i < TRAPEZE_SEGMENTS; i++)
        registers->segment[i] = (struct trapeze_segment){.limit = limit, .attributes = i == TRAPEZE_CS ? code : data,
                                                         .selector = i == TRAPEZE_CS ? 8 : 16};
}

struct trapeze_registers guest_real_mode(void) {
    struct trapeze_registers registers = {.rip = CODE, .rflags = 2, .cr0 = 0x10, .idtr.limit = 0x3ff};
    set_segments(&registers, 0xffff, 0x9b, 0x93);
    for (unsigned i = 0; i < TRAPEZE_SEGMENTS; i++)
        registers.segment[i].selector = 0;
    registers.ldtr.attributes = 0x82;
    registers.tr.attributes = 0x8b;
    registers.gpr[RSP] = STACK;
    return registers;
}

struct trapeze_registers guest_protected_mode(void) {
    struct trapeze_registers registers = guest_real_mode();
    registers.cr0 = 0x31; /* PE, ET, NE */
    registers.cr4 = 0x600; /* OSFXSR, OSXMMEXCPT */
    registers.idtr.limit = 0;
    set_segments(&registers, 0xffffffff, 0xc09b, 0xc093);
    return registers;
}

static void put(struct guest *guest, uint64_t at, uint64_t value) {
    memcpy(guest->ram + at, &value, sizeof value);
}

struct trapeze_registers guest_long_mode(struct guest *guest) {
    struct trapeze_registers registers = guest_protected_mode();
    put(guest, PML4, PDPT | 7);
    put(guest, PDPT, PD | 7);
    for (uint64_t i = 0; i < 512; i++)
        put(guest, PD + 8 * i, i << 21 | 0x87); /* 2 MiB, present, writable, user */
    registers.cr0 |= 0x80000000;
    registers.cr3 = PML4;
    registers.cr4 |= 0x20; /* PAE */
    registers.efer = 0x500; /* LME, LMA */
    set_segments(&registers, 0xffffffff, 0xa09b, 0xc093);
    return registers;
}

/* ---- Running ---- */

void guest_load(struct guest *guest, const uint8_t *from, const uint8_t *to) {
    ck_assert(trapeze_memory_write(guest->machine, guest_physical_at(CODE), from, (size_t)(to - from)));
}

void guest_start(struct guest *guest, const uint8_t *from, const uint8_t *to,
                 const struct trapeze_registers *registers) {
    guest_load(guest, from, to);
    ck_assert_int_eq(trapeze_vcpu_set_registers(guest->vcpu, registers), TRAPEZE_OK);
}

void guest_run(struct guest *guest, enum trapeze_exit_reason reason) {
    ck_assert_int_eq(trapeze_vcpu_run(guest->vcpu, &guest->exit), TRAPEZE_OK);
    ck_assert_int_eq(guest->exit.reason, reason);
}

void guest_expect_io(struct guest *guest, enum trapeze_space space, bool is_write, uint64_t address, unsigned size) {
    guest_run(guest, TRAPEZE_EXIT_IO);
    ck_assert_uint_eq(guest->exit.io.address, address);
    ck_assert_int_eq(guest->exit.io.space, space);
    ck_assert_int_eq(guest->exit.io.is_write, is_write);
    ck_assert_uint_eq(guest->exit.io.size, size);
}

void guest_expect_read(struct guest *guest, enum trapeze_space space, uint64_t address, unsigned size,
                       uint64_t answer) {
    guest_expect_io(guest, space, false, address, size);
    guest->exit.io.value = answer;
}

void guest_expect_write(struct guest *guest, enum trapeze_space space, uint64_t address, unsigned size,
                        uint64_t value) {
    guest_expect_io(guest, space, true, address, size);
    ck_assert_uint_eq(guest->exit.io.value, value);
}

void guest_expect_end(struct guest *guest) {
    guest_expect_io(guest, TRAPEZE_PORT, true, END_PORT, 1);
}

uint64_t guest_register(struct guest *guest, unsigned index) {
    struct trapeze_registers registers;
    trapeze_vcpu_get_registers(guest->vcpu, &registers);
    return registers.gpr[index];
}

uint32_t guest_word(const struct guest *guest, uint64_t physical) {
    uint32_t value;
    memcpy(&value, guest->ram + physical, sizeof value);
    return value;
}

void guest_set_word(struct guest *guest, uint64_t physical, uint32_t value) {
    memcpy(guest->ram + physical, &value, sizeof value);
}
