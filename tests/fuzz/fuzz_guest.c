/*
 * A guest made of random bytes: registers, mode and 128 bytes of code come from the input, and the machine runs it for
 * a millisecond, its port and memory accesses answered from the input, too. The engine must come back with an exit,
 * its state must be one that can be written back, and memory outside the guest's region must be what it was.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"
#include "trapeze/trapeze.h"

enum {
    PAGE = 4096,
    RAM = 0x40000,
    CODE = 0x1000,
    CODE_SIZE = 128,
    STACK = 0x8000,
    TABLES = 0x10000,
    EXITS = 200,
    RUN_NANOSECONDS = 1000000,
};

const struct fuzz_word fuzz_words[] = {
    FUZZ_WORD("\x0f\x01\xd8"),
    FUZZ_WORD("\x0f\x22\xc0"),
    FUZZ_WORD("\x0f\x22\xd8"),
    FUZZ_WORD("\x0f\x22\xe0"),
    FUZZ_WORD("\x0f\x30"),
    FUZZ_WORD("\x0f\x32"),
    FUZZ_WORD("\xcd\x20"),
    FUZZ_WORD("\xcf"),
    FUZZ_WORD("\x9d"),
    FUZZ_WORD("\xf3\xa4"),
    FUZZ_WORD("\xf3\x48\xab"),
    FUZZ_WORD("\x0f\xae\x00"),
    FUZZ_WORD("\x0f\xae\x08"),
    FUZZ_WORD("\xf0\x48\x0f\xb1\x08"),
    FUZZ_WORD("\xe8\x00\x00\x00\x00"),
    FUZZ_WORD("\xc3"),
    FUZZ_WORD("\xeb\xfe"),
    FUZZ_WORD("\xff\xe0"),
    FUZZ_WORD("\xff\xd3"),
    FUZZ_WORD("\xea"),
    FUZZ_WORD("\xcb"),
    FUZZ_WORD("\x0f\x05"),
    FUZZ_WORD("\x0f\x35"),
    FUZZ_WORD("\xec"),
    FUZZ_WORD("\xee"),
    FUZZ_WORD("\xf3\x6c"),
    FUZZ_WORD("\x8e\xd8"),
    FUZZ_WORD("\xc5\xfc"),
    FUZZ_WORD("\xc4\xe2\x7d"),
    FUZZ_WORD("\x62\xf1\x7c\x48"),
    FUZZ_WORD("\xd9"),
    FUZZ_WORD("\xdd"),
    FUZZ_WORD("\x9b"),
    FUZZ_WORD("\x0f\x0b"),
    FUZZ_WORD("\xfb\xf4"),
    {NULL, 0},
};

struct bench {
    struct trapeze_machine *machine;
    struct trapeze_vcpu *vcpu;
    uint8_t *ram; /* a page of our own, the guest's memory, another page of our own: one descriptor */
    int fd;
    pthread_t watchdog;
    _Atomic uint64_t deadline; /* ns; 0: nobody runs */
};

static struct bench benches[2], *bench; /* without windows of the host's MMU, and with */

static void must(bool holds) {
    if (!holds)
        abort();
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* Ends what runs past its deadline. A kick that comes too late ends the next input early, which is no harm. */
static void *watch(void *opaque) {
    struct bench *watched = opaque;
    for (;;) {
        uint64_t deadline = atomic_load(&watched->deadline);
        if (deadline && now() > deadline)
            trapeze_vcpu_kick(watched->vcpu);
        nanosleep(&(struct timespec){.tv_nsec = RUN_NANOSECONDS / 4}, NULL);
    }
    return NULL;
}

static void create(void) {
    const struct trapeze_config config = {.unclaimed_exits = true,
                                          .cpu_model = "max",
                                          .code_cache = 8 << 20,
                                          .windows =
                                              bench == &benches[1] ? TRAPEZE_WINDOWS_ALWAYS : TRAPEZE_WINDOWS_OFF};
    bench->fd = memfd_create("ram", MFD_CLOEXEC);
    must(bench->fd >= 0 && ftruncate(bench->fd, RAM + 2 * PAGE) == 0);
    bench->ram = mmap(NULL, RAM + 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, bench->fd, 0);
    must(bench->ram != MAP_FAILED);
    must(trapeze_machine_create(&config, &bench->machine, NULL) == TRAPEZE_OK);
    must(trapeze_memory_map(bench->machine, 0, guest_physical_at(0), bench->fd, PAGE, RAM, 0) == TRAPEZE_OK);
    must(trapeze_vcpu_create(bench->machine, 0, &bench->vcpu) == TRAPEZE_OK);
    must(pthread_create(&bench->watchdog, NULL, watch, bench) == 0);
}

/* ---- Memory ---- */

static void put(uint8_t *ram, uint64_t at, uint64_t value) {
    memcpy(ram + at, &value, sizeof value);
}

/* Tables that map the first 2 MiB one to one with rights from the input, and a GDT and vectors that lead into the code.
 */
static void fill_memory(struct fuzz_input *input) {
    static uint8_t ram[RAM];
    static const uint64_t descriptors[] = {0,
                                           0x00af9b000000ffff,
                                           0x00cf93000000ffff,
                                           0x00cf9b000000ffff,
                                           0x00009b000000ffff,
                                           0x00affb000000ffff,
                                           0x00cff3000000ffff,
                                           0x000089007000ffff,
                                           0};
    memset(ram, 0xf4, sizeof ram);
    memset(ram + TABLES, 0, 0x8000);
    put(ram, TABLES, TABLES | 0x1007);
    put(ram, TABLES + 0x1000, TABLES | 0x2007);
    put(ram, TABLES + 0x2000, TABLES | 0x3007);
    for (unsigned i = 0; i < RAM / PAGE; i++)
        put(ram, TABLES + 0x3000 + 8 * i, i * PAGE | 7);
    put(ram, TABLES + 0x3000 + 8 * (fuzz_take(input, 1) % 64), fuzz_take(input, 4));
    memcpy(ram + TABLES + 0x4000, descriptors, sizeof descriptors);
    for (unsigned i = 0; i < 64; i++) { /* 64-bit gates; read as 32-bit ones, every second is a mess */
        put(ram, TABLES + 0x5000 + 16 * i, 0x00008e0000080000 | (CODE + (i & 7) * 16));
        put(ram, i * 4, (uint64_t)(CODE + (i & 7) * 16) << 32 | (CODE + (i & 7) * 16));
    }
    size_t left = (size_t)(input->end - input->at), length = left < CODE_SIZE ? left : CODE_SIZE;
    memcpy(ram + CODE, input->at, length);
    input->at += length;
    must(trapeze_memory_write(bench->machine, guest_physical_at(0), ram, sizeof ram));
    memset(bench->ram, 0xa5, PAGE);
    memset(bench->ram + PAGE + RAM, 0xa5, PAGE);
}

/* ---- Registers ---- */

static void set_segments(struct trapeze_registers *registers, uint32_t limit, uint32_t code, uint32_t data,
                         uint16_t selector) {
    for (unsigned i = 0; i < TRAPEZE_SEGMENTS; i++)
        registers->segment[i] =
            (struct trapeze_segment){.limit = limit, .attributes = i == TRAPEZE_CS ? code : data, .selector = selector};
}

static void set_mode(struct trapeze_registers *registers, unsigned mode) {
    bool is_user = mode & 8, pages = mode & 16;
    uint32_t dpl = is_user ? 0x60 : 0;
    uint16_t rpl = is_user ? 3 : 0;
    switch (mode % 5) {
    case 0: /* real */
        set_segments(registers, 0xffff, 0x9b, 0x93, 0);
        return;
    case 1: /* 32-bit */
        registers->cr0 |= 1 | (pages ? 0x80000000u : 0);
        registers->cr4 |= pages ? 0x20 : 0;
        registers->cr3 = pages ? TABLES + 0x1000 : 0;
        set_segments(registers, 0xffffffff, 0xc09b | dpl, 0xc093 | dpl, 0x18 | rpl);
        return;
    case 2: /* 16-bit protected */
        registers->cr0 |= 1;
        set_segments(registers, 0xffff, 0x9b | dpl, 0x93 | dpl, 0x20 | rpl);
        return;
    case 3: /* virtual-8086 */
        registers->cr0 |= 1;
        registers->rflags |= 0x20000;
        set_segments(registers, 0xffff, 0xf3, 0xf3, 0);
        return;
    default: /* 64-bit */
        registers->cr0 |= 0x80000001;
        registers->cr4 |= 0x20;
        registers->cr3 = TABLES;
        registers->efer = 0x500;
        set_segments(registers, 0xffffffff, 0xa09b | dpl, 0xc093 | dpl, 0x28 | rpl);
    }
}

static bool set_state(struct fuzz_input *input) {
    static const uint64_t values[] = {0,
                                      1,
                                      CODE,
                                      STACK,
                                      0x9ff8,
                                      0xffff,
                                      0x3fff9,
                                      0xffffffff,
                                      0x7fffffffffff,
                                      0x8000000000000000,
                                      0xffffffffffffffff,
                                      0x5555555555555555};
    struct trapeze_registers registers = {.rip = CODE, .rflags = 2 | (fuzz_take(input, 2) & 0x4fd5), .cr0 = 0x10};
    struct trapeze_events events = {0};
    unsigned control = (unsigned)fuzz_take(input, 2);
    registers.cr0 |= (control & 0xe) | (control & 0x10 ? 0x50000 : 0) | 0x20;
    registers.cr4 = (control & 0x40 ? 0x600 : 0) | (control & 0x80 ? 0x40600 : 0);
    registers.xcr0 = 7;
    for (unsigned i = 0; i < 16; i++)
        registers.gpr[i] = values[fuzz_take(input, 1) % (sizeof values / sizeof *values)];
    registers.gpr[4] = STACK;
    set_mode(&registers, (unsigned)fuzz_take(input, 1));
    registers.gdtr.base = TABLES + 0x4000;
    registers.gdtr.limit = 0x3f;
    registers.idtr.base = registers.cr0 & 1 ? TABLES + 0x5000 : 0;
    registers.idtr.limit = 0x3ff;
    registers.ldtr.attributes = 0x10082;
    registers.tr = (struct trapeze_segment){.base = 0x7000, .limit = 0xffff, .attributes = 0x8b, .selector = 0x38};
    registers.dr[6] = 0xffff0ff0;
    registers.dr[7] = 0x400 | (control & 0x100 ? 0x55 : 0);
    registers.dr[0] = CODE + 3;
    registers.dr[1] = STACK - 8;
    trapeze_vcpu_set_events(bench->vcpu, &events);
    return trapeze_vcpu_set_registers(bench->vcpu, &registers) == TRAPEZE_OK;
}

/* ---- Running ---- */

static void run(struct fuzz_input *input) {
    struct trapeze_exit exit;
    memset(&exit, 0, sizeof exit);
    atomic_store(&bench->deadline, now() + RUN_NANOSECONDS);
    for (unsigned i = 0; i < EXITS; i++) {
        must(trapeze_vcpu_run(bench->vcpu, &exit) == TRAPEZE_OK);
        must(exit.reason != TRAPEZE_EXIT_ERROR && exit.reason != TRAPEZE_EXIT_DEBUG);
        if (exit.reason != TRAPEZE_EXIT_IO)
            break;
        must(exit.io.size && exit.io.size <= 8);
        exit.io.value = fuzz_take(input, 1) * 0x0101010101010101;
    }
    atomic_store(&bench->deadline, 0);
}

static void check(void) {
    struct trapeze_registers registers;
    uint8_t xsave[TRAPEZE_XSAVE_SIZE];
    for (unsigned i = 0; i < PAGE; i++)
        must(bench->ram[i] == 0xa5 && bench->ram[PAGE + RAM + i] == 0xa5);
    trapeze_vcpu_get_registers(bench->vcpu, &registers);
    must(trapeze_vcpu_set_registers(bench->vcpu, &registers) == TRAPEZE_OK);
    trapeze_vcpu_get_xsave(bench->vcpu, xsave);
    must(trapeze_vcpu_set_xsave(bench->vcpu, xsave) == TRAPEZE_OK);
}

/* RESET is taken by the next run, which the kick then ends before any instruction; so nothing of the last input stays.
 */
static void reset(void) {
    struct trapeze_exit exit;
    memset(&exit, 0, sizeof exit);
    trapeze_vcpu_signal(bench->vcpu, TRAPEZE_SIGNAL_RESET, 0);
    trapeze_vcpu_kick(bench->vcpu);
    do
        must(trapeze_vcpu_run(bench->vcpu, &exit) == TRAPEZE_OK);
    while (exit.reason == TRAPEZE_EXIT_IO);
    must(exit.reason == TRAPEZE_EXIT_KICKED);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_input input = {data, data + size};
    bench = &benches[fuzz_take(&input, 1) & 1];
    if (!bench->machine)
        create();
    reset();
    fill_memory(&input);
    if (!set_state(&input))
        return 0;
    run(&input);
    check();
    return 0;
}
