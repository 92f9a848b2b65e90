/* See pc.h. Guest RAM, the processors, what connects them with the chips, and the direct boot. */
#include "devices/pc.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bios/boot.h"
#include "bios/layout.h"
#include "cpu/model.h"
#include "devices/backends/char.h"
#include "devices/event_loop.h"
#include "devices/pc_chips.h"
#include "devices/pc_io.h"

enum { MIB = 1 << 20, VCPUS_MAX = BOOT_VCPUS_MAX };

/* Regions of guest-physical memory, in the order of their slots. */
enum { SLOT_LOW, SLOT_FIRMWARE, SLOT_A20, SLOT_BELOW_4G, SLOT_ABOVE_4G };

struct pc {
    struct pc_config config;
    uint64_t ram_below_4g, ram_above_4g;
    int ram_fd;
    struct cpu_model *model;
    struct trapeze_machine *machine;
    struct trapeze_vcpu *vcpus[VCPUS_MAX];
    struct pc_io io;
    unsigned vcpu_count;
    struct bus *bus;
    struct clock *clock;
    struct event_loop *loop;
    struct char_backend *serial[PC_SERIAL_PORTS], *debugcon;
    struct pc_chips chips;
    bool has_chips;
};

static bool fail(struct pc_error *error, const char *option, const char *text) {
    error->option = option;
    snprintf(error->text, sizeof(error->text), "%s", text);
    return false;
}

/* ---- Between the engine and the chips ---- */

static void fp_error(void *opaque) {
    struct pc *pc = (struct pc *)((char *)opaque - offsetof(struct pc, io));
    bus_lock(pc->bus);
    fpu_error_assert(&pc->chips.fpu_error);
    bus_unlock(pc->bus);
}

static struct lapic_cpu lapic_cpu(void *opaque, unsigned index) {
    struct pc *pc = opaque;
    return pc_io_lapic_cpu(pc->vcpus[index]);
}

static bool memory_read(void *opaque, guest_physical from, void *to, size_t length) {
    const struct pc *pc = opaque;
    return trapeze_memory_read(pc->machine, from, to, length);
}

static bool memory_write(void *opaque, guest_physical to, const void *from, size_t length) {
    const struct pc *pc = opaque;
    return trapeze_memory_write(pc->machine, to, from, length);
}

/* ---- What the guest asks of the machine ---- */

static void tell(struct pc *pc, enum pc_event event, unsigned value) {
    pc->config.event(pc->config.opaque, event, value);
}

static void on_reset(void *opaque) {
    tell(opaque, PC_EVENT_RESET, 0);
}

static void on_power_off(void *opaque) {
    tell(opaque, PC_EVENT_POWER_OFF, 0);
}

static void on_debug_exit(void *opaque, int status) {
    tell(opaque, PC_EVENT_DEBUG_EXIT, (unsigned)status);
}

static void on_a20_change(void *opaque, bool is_open) {
    (void)is_open;
    tell(opaque, PC_EVENT_REMAP, 0);
}

static void on_quit(void *opaque) {
    tell(opaque, PC_EVENT_QUIT, 0);
}

/* ---- Memory ---- */

static enum trapeze_status map(struct pc *pc, unsigned slot, uint64_t base, uint64_t offset, uint64_t end) {
    if (end <= base)
        return TRAPEZE_OK;
    return trapeze_memory_map(pc->machine, slot, guest_physical_at(base), pc->ram_fd, offset, end - base, 0);
}

/*
 * The second megabyte is a region of its own: while the A20 gate is closed it shows the first one. (Every other odd
 * megabyte would too; no software is known that looks.)
 */
static enum trapeze_status map_a20(struct pc *pc, bool is_open) {
    uint64_t end = pc->ram_below_4g < 2 * MIB ? pc->ram_below_4g : 2 * MIB;
    return map(pc, SLOT_A20, MIB, is_open ? MIB : 0, end);
}

bool pc_remap(struct pc *pc) {
    bus_lock(pc->bus);
    bool is_open = pc_chips_a20_is_open(&pc->chips);
    bus_unlock(pc->bus);
    return map_a20(pc, is_open) == TRAPEZE_OK;
}

static bool create_memory(struct pc *pc, struct pc_error *error) {
    const uint64_t size = pc->config.memory, four_gib = LAYOUT_FOUR_GIB;
    pc->ram_below_4g = size < LAYOUT_LOW_RAM_LIMIT ? size : LAYOUT_LOW_RAM_LIMIT;
    pc->ram_above_4g = size - pc->ram_below_4g;
    pc->ram_fd = memfd_create("guest-ram", MFD_CLOEXEC);
    if (pc->ram_fd < 0 || ftruncate(pc->ram_fd, (off_t)size) != 0)
        return fail(error, "m", strerror(errno));
    enum trapeze_status status = map(pc, SLOT_LOW, 0, 0, LAYOUT_VIDEO_BASE);
    if (status == TRAPEZE_OK)
        status = map(pc, SLOT_FIRMWARE, 0xc0000, 0xc0000, MIB);
    if (status == TRAPEZE_OK)
        status = map_a20(pc, true);
    if (status == TRAPEZE_OK)
        status = map(pc, SLOT_BELOW_4G, 2 * MIB, 2 * MIB, pc->ram_below_4g);
    if (status == TRAPEZE_OK)
        status = map(pc, SLOT_ABOVE_4G, four_gib, pc->ram_below_4g, four_gib + pc->ram_above_4g);
    return status == TRAPEZE_OK ||
           fail(error, "m", status == TRAPEZE_HOST_ERROR ? strerror(errno) : trapeze_status_text(status));
}

/* ---- Processors ---- */

static bool create_machine(struct pc *pc, struct pc_error *error) {
    const struct trapeze_config config = {.cpu_model = pc->config.cpu_model,
                                          .vcpu_count = pc->config.vcpu_count,
                                          .code_cache = pc->config.code_cache,
                                          .windows = pc->config.windows,
                                          .without = pc->config.without,
                                          .io = {.read = pc_io_read,
                                                 .write = pc_io_write,
                                                 .fp_error = fp_error,
                                                 .opaque = &pc->io,
                                                 .is_light = TRAPEZE_LIGHT_DEVICES},
                                          .unimplemented = pc->config.unimplemented,
                                          .opaque = pc->config.opaque};
    const char *model = config.cpu_model ? config.cpu_model : "host", *text = NULL;
    error->option = "cpu";
    pc->model = cpu_model_create(model, config.vcpu_count, error->text, sizeof(error->text), pc->config.warn,
                                 pc->config.opaque);
    if (!pc->model)
        return false;
    enum trapeze_status status = trapeze_machine_create(&config, &pc->machine, &text);
    return status == TRAPEZE_OK || fail(error, NULL, text ? text : trapeze_status_text(status));
}

static bool create_vcpus(struct pc *pc, struct pc_error *error) {
    for (; pc->vcpu_count < pc->config.vcpu_count; pc->vcpu_count++) {
        enum trapeze_status status = trapeze_vcpu_create(pc->machine, pc->vcpu_count, &pc->vcpus[pc->vcpu_count]);
        if (status != TRAPEZE_OK)
            return fail(error, "smp", trapeze_status_text(status));
    }
    return true;
}

static void connect_apics(struct pc *pc) {
    for (unsigned i = 0; i < pc->vcpu_count; i++) {
        struct trapeze_interrupt_controller controller = lapic_controller(pc->chips.lapic[i]);
        trapeze_vcpu_set_interrupt_controller(pc->vcpus[i], &controller);
    }
}

/* ---- Direct boot ---- */

/* The loaders' errors begin with the file's name, or with "..." and the end of a long one. */
static const char *option_to_blame(const struct pc *pc, const char *text) {
    enum { TAIL = 32 };
    const char *kernel = pc->config.kernel;
    size_t length = strlen(kernel);
    bool is_kernel = !strncmp(text, kernel, length) && text[length] == ':';
    if (length > TAIL && !strncmp(text, "...", 3)) {
        const char *found = strstr(text, kernel + length - TAIL);
        is_kernel = found && found[TAIL] == ':';
    }
    return is_kernel || !pc->config.initrd ? "kernel" : "initrd";
}

static bool load_kernel(struct pc *pc, struct pc_error *error) {
    unsigned serial_count = 0;
    for (unsigned i = 0; i < 2; i++)
        if (pc->config.serial[i])
            serial_count = i + 1;
    const struct boot_request request = {.kernel = pc->config.kernel,
                                         .initrd = pc->config.initrd,
                                         .append = pc->config.append,
                                         .vcpu_count = pc->vcpu_count,
                                         .serial_count = serial_count,
                                         .has_long_mode = cpu_model_has(pc->model, FEATURE_LM)};
    const struct boot_memory memory = {.ram_below_4g = pc->ram_below_4g,
                                       .ram_above_4g = pc->ram_above_4g,
                                       .write = memory_write,
                                       .opaque = pc};
    struct trapeze_registers registers;
    struct boot_error reason;
    if (access(pc->config.kernel, R_OK) != 0) {
        /* QEMU's words, by which test runners tell a machine that works from one that does not start at all. */
        snprintf(reason.text, sizeof(reason.text), "%.200s: could not open kernel: %s", pc->config.kernel,
                 strerror(errno));
        return fail(error, "kernel", reason.text);
    }
    trapeze_vcpu_get_registers(pc->vcpus[0], &registers);
    if (!boot_load(&request, &memory, &registers, &reason))
        return fail(error, option_to_blame(pc, reason.text), reason.text);
    enum trapeze_status status = trapeze_vcpu_set_registers(pc->vcpus[0], &registers);
    return status == TRAPEZE_OK || fail(error, "kernel", "the processor refuses the state to enter the kernel in");
}

/* ---- Threads and consoles ---- */

/* The clock's thread and the event loop's inherit a mask that leaves requests to others; their own faults they take. */
static bool create_threads(struct pc *pc, struct pc_error *error) {
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
    sigset_t requests, previous;
    sigfillset(&requests);
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
        sigdelset(&requests, faults[i]);
    pc->bus = bus_create();
    if (!pc->bus)
        return fail(error, NULL, "no memory is left for the device bus");
    bus_set_full(pc->bus, trapeze_call_full);
    pc->io.bus = pc->bus;
    pthread_sigmask(SIG_SETMASK, &requests, &previous);
    pc->clock = clock_create(pc->bus);
    pc->loop = pc->clock ? event_loop_create(pc->bus) : NULL;
    pthread_sigmask(SIG_SETMASK, &previous, NULL);
    return pc->loop || fail(error, NULL, "the host has no memory or threads left for the devices");
}

static bool open_console(struct pc *pc, const char *option, const char *chr, struct char_backend **backend,
                         struct pc_error *error) {
    const struct char_escapes escapes = {on_quit, pc};
    char reason[200];
    if (!chr)
        return true;
    *backend = char_open(chr, pc->loop, &escapes, reason, sizeof(reason));
    return *backend || fail(error, option, reason);
}

static bool open_consoles(struct pc *pc, struct pc_error *error) {
    for (unsigned i = 0; i < PC_SERIAL_PORTS; i++)
        if (!open_console(pc, "serial", pc->config.serial[i], &pc->serial[i], error))
            return false;
    return open_console(pc, "debugcon", pc->config.debugcon, &pc->debugcon, error);
}

static bool create_chips(struct pc *pc, struct pc_error *error) {
    struct pc_chips_config config = {
        .bus = pc->bus,
        .clock = pc->clock,
        .vcpu_count = pc->vcpu_count,
        .cpu = {.has_x2apic = cpu_model_has(pc->model, FEATURE_X2APIC),
                .has_tsc_deadline = cpu_model_has(pc->model, FEATURE_TSC_DEADLINE),
                .physical_address_bits = cpu_model_physical_bits(pc->model),
                .tsc_hz = cpu_model_tsc_hz(pc->model)},
        .lapic_cpu = lapic_cpu,
        .current_cpu = pc_io_current_cpu,
        .memory = {memory_read, memory_write, pc},
        .ram_below_4g = pc->ram_below_4g,
        .ram_above_4g = pc->ram_above_4g,
        .debugcon = pc->debugcon,
        .has_no_pit = pc->config.has_no_pit,
        .has_debug_exit = pc->config.has_debug_exit,
        .has_testdev = pc->config.has_testdev,
        .has_pci_testdev = pc->config.has_pci_testdev,
        .debug_exit_base = pc->config.debug_exit_base,
        .debug_exit_size = pc->config.debug_exit_size,
        .reset = on_reset,
        .power_off = on_power_off,
        .debug_exit = on_debug_exit,
        .a20_changed = on_a20_change,
        .opaque = pc,
    };
    memcpy(config.serial, pc->serial, sizeof(config.serial));
    error->option = "device";
    pc->has_chips = true;
    return pc_chips_init(&pc->chips, &config, error->text, sizeof(error->text));
}

/* ---- Life ---- */

struct pc *pc_create(const struct pc_config *config, struct pc_error *error) {
    struct pc *pc = calloc(1, sizeof(*pc));
    if (!pc) {
        fail(error, NULL, "no memory is left");
        return NULL;
    }
    pc->config = *config;
    pc->io = (struct pc_io){.unclaimed = config->unclaimed, .opaque = config->opaque};
    pc->ram_fd = -1;
    /* The kernel is read before any console is opened: a wrong name there must not cost another file its content. */
    if (create_machine(pc, error) && create_memory(pc, error) && create_vcpus(pc, error) && load_kernel(pc, error) &&
        create_threads(pc, error) && open_consoles(pc, error) && create_chips(pc, error)) {
        connect_apics(pc);
        return pc;
    }
    pc_destroy(pc);
    return NULL;
}

void pc_destroy(struct pc *pc) {
    if (pc->has_chips)
        pc_chips_release(&pc->chips);
    for (unsigned i = 0; i < PC_SERIAL_PORTS; i++)
        if (pc->serial[i])
            char_close(pc->serial[i]);
    if (pc->debugcon)
        char_close(pc->debugcon);
    if (pc->loop)
        event_loop_destroy(pc->loop);
    if (pc->clock)
        clock_destroy(pc->clock);
    if (pc->machine)
        trapeze_machine_destroy(pc->machine);
    if (pc->bus)
        bus_destroy(pc->bus);
    if (pc->model)
        cpu_model_destroy(pc->model);
    if (pc->ram_fd >= 0)
        close(pc->ram_fd);
    free(pc);
}

struct trapeze_machine *pc_machine(struct pc *pc) {
    return pc->machine;
}

unsigned pc_vcpu_count(const struct pc *pc) {
    return pc->vcpu_count;
}

struct trapeze_vcpu *pc_vcpu(struct pc *pc, unsigned index) {
    return pc->vcpus[index];
}

enum trapeze_status pc_run_vcpu(struct pc *pc, unsigned index, struct trapeze_exit *exit) {
    pc_io_set_current_cpu(index);
    return trapeze_vcpu_run(pc->vcpus[index], exit);
}

/* A processor takes RESET when it runs next; the kick that is waiting brings it back before its first instruction. */
static void reset_vcpu(struct pc *pc, unsigned index) {
    struct trapeze_exit exit;
    trapeze_vcpu_signal(pc->vcpus[index], TRAPEZE_SIGNAL_RESET, 0);
    trapeze_vcpu_kick(pc->vcpus[index]);
    pc_run_vcpu(pc, index, &exit);
}

bool pc_reset(struct pc *pc, struct pc_error *error) {
    pc_chips_reset(&pc->chips);
    for (unsigned i = 0; i < pc->vcpu_count; i++)
        reset_vcpu(pc, i);
    return pc_remap(pc) ? load_kernel(pc, error) : fail(error, "m", "the host refuses to map guest memory again");
}

const char *pc_serial_notice(const struct pc *pc, unsigned index) {
    const char *text = pc->serial[index] ? char_description(pc->serial[index]) : "";
    return !strncmp(text, "pty ", 4) ? text + 4 : NULL;
}

const char *pc_cpu_model(unsigned k) {
    return cpu_model_name(k);
}

const char *pc_cpu_feature(unsigned k) {
    return cpu_model_feature_name(k);
}
