/*
 * Every device of the machine at once: reads and writes of all widths at all ports and device memory, with time going
 * by, keys pressed, characters arriving, interrupts acknowledged, processors' APIC registers written, and DMA into a
 * memory of 64 KiB whose edges are guarded. The chips survive, and answer after a reset.
 */
#include <stdlib.h>
#include <string.h>

#include "devices/backends/char.h"
#include "devices/event_loop.h"
#include "devices/lapic.h"
#include "devices/pc_chips.h"
#include "tests/fuzz/fuzz.h"

enum { CPUS = 3, MEMORY = 65536, GUARD = 4096, PATTERN = 0xa5, STEPS = 512 };

const struct fuzz_word fuzz_words[] = {
    FUZZ_WORD("\x00\x10\x05\x00\x00"),                 /* write fw_cfg selector */
    FUZZ_WORD("\x02\x14\x05\x00\x00\x00\x00\x00\x00"), /* write fw_cfg DMA address */
    FUZZ_WORD("\x02\x18\x05\x00\x00\x00\x00\x10\x00"),
    FUZZ_WORD("\x02\xf8\x0c\x00\x00\x00\x00\x00\x80"), /* PCI configuration */
    FUZZ_WORD("\x12\x00\x03\xe0\xfe"),
    FUZZ_WORD("\x12\x00\x00\xc0\xfe"),
    FUZZ_WORD("\x12\x00\x01\xd0\xfe"),
    FUZZ_WORD("\x40"),
    FUZZ_WORD("\x41"),
    {NULL, 0},
};

struct board {
    struct bus *bus;
    struct clock *clock;
    struct event_loop *loop;
    struct char_backend *console;
    struct pc_chips chips;
    struct board_cpu {
        bool intr;
        unsigned signals;
    } cpu[CPUS];
    unsigned current, resets, power_offs;
    uint8_t memory[GUARD + MEMORY + GUARD];
};

static struct board board;

/* ---- What the chips are wired to ---- */

static void set_intr(void *opaque, bool asserted) {
    ((struct board_cpu *)opaque)->intr = asserted;
}

static void take_signal(void *opaque, enum trapeze_signal signal, unsigned vector) {
    if (signal > TRAPEZE_SIGNAL_RESET || vector > 255)
        abort();
    ((struct board_cpu *)opaque)->signals++;
}

static uint64_t read_tsc(void *opaque) {
    (void)opaque;
    return 2 * clock_now(board.clock);
}

static struct lapic_cpu lapic_cpu(void *opaque, unsigned index) {
    (void)opaque;
    return (struct lapic_cpu){set_intr, take_signal, read_tsc, &board.cpu[index]};
}

static unsigned current_cpu(void *opaque) {
    (void)opaque;
    return board.current;
}

static bool is_memory(uint64_t at, size_t length) {
    return at < MEMORY && length <= MEMORY - at;
}

static bool memory_read(void *opaque, guest_physical from, void *to, size_t length) {
    (void)opaque;
    if (!is_memory(from.value, length))
        return false;
    memcpy(to, board.memory + GUARD + from.value, length);
    return true;
}

static bool memory_write(void *opaque, guest_physical to, const void *from, size_t length) {
    (void)opaque;
    if (!is_memory(to.value, length))
        return false;
    memcpy(board.memory + GUARD + to.value, from, length);
    return true;
}

static void count_reset(void *opaque) {
    (void)opaque;
    board.resets++;
}

static void count_power_off(void *opaque) {
    (void)opaque;
    board.power_offs++;
}

static void debug_exit(void *opaque, int status) {
    (void)opaque, (void)status;
}

static void a20_changed(void *opaque, bool is_open) {
    (void)opaque, (void)is_open;
}

static void create(void) {
    char error[200], reason[200];
    memset(&board.cpu, 0, sizeof board.cpu);
    memset(board.memory, PATTERN, sizeof board.memory);
    board.current = board.resets = board.power_offs = 0;
    board.bus = bus_create();
    board.clock = clock_create_manual(board.bus);
    board.loop = event_loop_create(board.bus);
    board.console = board.loop ? char_open("null", board.loop, NULL, error, sizeof error) : NULL;
    const struct pc_chips_config config = {.bus = board.bus,
                                           .clock = board.clock,
                                           .vcpu_count = CPUS,
                                           .cpu = {true, true, 40, 2000000000},
                                           .lapic_cpu = lapic_cpu,
                                           .current_cpu = current_cpu,
                                           .memory = {memory_read, memory_write, NULL},
                                           .ram_below_4g = 0x1000000,
                                           .serial = {board.console},
                                           .debugcon = NULL,
                                           .has_debug_exit = true,
                                           .has_testdev = true,
                                           .has_pci_testdev = true,
                                           .debug_exit_base = 0xf4,
                                           .debug_exit_size = 4,
                                           .reset = count_reset,
                                           .power_off = count_power_off,
                                           .debug_exit = debug_exit,
                                           .a20_changed = a20_changed};
    if (!board.console || !pc_chips_init(&board.chips, &config, reason, sizeof reason))
        abort();
}

static void destroy(void) {
    pc_chips_release(&board.chips);
    char_close(board.console);
    event_loop_destroy(board.loop);
    clock_destroy(board.clock);
    bus_destroy(board.bus);
}

/* ---- What a guest and the world do ---- */

/* Bits 0 to 1 log2 of the width, 2 read, 3 anywhere near a chip instead of at the address given, 4 memory. */
static void access(struct fuzz_input *input, unsigned kind) {
    static const uint16_t ports[] = {0x20,  0x21,  0x40,  0x43,  0x60,  0x61,   0x64,   0x70,  0x71,  0x92,
                                     0xa0,  0xa1,  0xb2,  0xe0,  0xe4,  0xe8,   0xf1,   0xf4,  0x3f8, 0x3f9,
                                     0x3fb, 0x3fc, 0x4d0, 0x510, 0x511, 0x514,  0x518,  0x600, 0x604, 0x608,
                                     0x620, 0xcf8, 0xcf9, 0xcfc, 0xcfe, 0xc000, 0x2000, 0xb000};
    static const uint32_t areas[] = {0xfec00000, 0xfec00010, 0xfed00000, 0xfed00100, 0xfed000f0, 0xfee00000,
                                     0xfee00300, 0xfee000b0, 0xfee00380, 0xff000000, 0xc0000000};
    unsigned size = 1u << (kind & 3);
    uint64_t address = fuzz_take(input, kind & 8 ? 1 : kind & 16 ? 4 : 2), value;
    if (kind & 8)
        address = kind & 16 ? areas[address % (sizeof areas / sizeof *areas)] + (fuzz_take(input, 1) << 4 & 0xff0)
                            : ports[address % (sizeof ports / sizeof *ports)];
    const enum trapeze_space space = kind & 16 ? TRAPEZE_MMIO : TRAPEZE_PORT;
    if (kind & 4)
        bus_read(board.bus, space, address, size, &value);
    else
        bus_write(board.bus, space, address, size, fuzz_take(input, size));
}

static void use_apic(struct fuzz_input *input, unsigned kind) {
    const struct trapeze_interrupt_controller apic = lapic_controller(board.chips.lapic[board.current]);
    static const uint32_t msrs[] = {0x1b, 0x6e0, 0x800};
    uint32_t index = msrs[kind & 3 ? (kind & 3) - 1 : 2];
    uint64_t value;
    if (index == 0x800)
        index += (uint32_t)fuzz_take(input, 1);
    switch (kind >> 2 & 3) {
    case 0:
        apic.write_msr(apic.opaque, index, fuzz_take(input, 8));
        break;
    case 1:
        apic.read_msr(apic.opaque, index, &value);
        break;
    case 2:
        apic.set_tpr(apic.opaque, (unsigned)fuzz_take(input, 1) & 15);
        if (apic.get_tpr(apic.opaque) > 15)
            abort();
        break;
    default:
        if (apic.acknowledge(apic.opaque) > 255)
            abort();
    }
}

static void use_world(struct fuzz_input *input, unsigned kind) {
    static const uint32_t steps[] = {0, 1, 100, 5000, 400000, 5000000, 30000000, 1000000000};
    enum { TIME = 1500000000 }; /* ns; timers of 20 us make more than that slow */
    uint32_t step = steps[kind >> 2 & 7];
    switch (kind & 3) {
    case 0:
        if (clock_now(board.clock) + step <= TIME)
            clock_step(board.clock, step);
        break;
    case 1:
        board.current = (kind >> 2) % CPUS;
        break;
    case 2:
        bus_lock(board.bus);
        i8042_key(&board.chips.i8042, (unsigned)fuzz_take(input, 2), kind & 4);
        bus_unlock(board.bus);
        break;
    default:
        if (kind & 4)
            pc_chips_reset(&board.chips);
        else /* the guest writes its own memory: descriptors of DMA */
            memory_write(NULL, guest_physical_at(fuzz_take(input, 1) << 3), (uint64_t[]){fuzz_take(input, 8)}, 8);
    }
}

static void check(void) {
    uint64_t value;
    for (unsigned i = 0; i < GUARD; i++)
        if (board.memory[i] != PATTERN || board.memory[GUARD + MEMORY + i] != PATTERN)
            abort();
    pc_chips_reset(&board.chips);
    if (!bus_read(board.bus, TRAPEZE_PORT, 0x64, 1, &value) || value != 0x10)
        abort();
    if (!bus_read(board.bus, TRAPEZE_PORT, 0x3fd, 1, &value) || value != 0x60)
        abort();
    if (!bus_read(board.bus, TRAPEZE_MMIO, 0xfed00000, 8, &value) || (value & 0xffff0000) != 0x80860000)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_input input = {data, data + size};
    create();
    for (unsigned i = 0; i < STEPS && input.at < input.end; i++) {
        unsigned kind = (unsigned)fuzz_take(&input, 1);
        if (kind < 0x40)
            access(&input, kind & 0x1f);
        else if (kind < 0x80)
            use_world(&input, kind & 0x3f);
        else if (kind < 0xc0)
            use_apic(&input, kind & 0x3f);
        else
            access(&input, 8 | (kind & 0x1f));
    }
    check();
    destroy();
    return 0;
}
