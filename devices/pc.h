/*
 * The machine: a 440FX-style PC around libtrapeze. RAM in one memfd, the chips on the bus, one vCPU for each local
 * APIC, and a kernel loaded directly. This is the one place that knows every layer; tools/ sees this header alone.
 *
 * Who runs the vCPUs is the caller's affair. Functions are for one controlling thread while no vCPU runs, except where
 * said otherwise.
 */
#ifndef DEVICES_PC_H
#define DEVICES_PC_H

#include "trapeze/trapeze.h"

enum { PC_SERIAL_PORTS = 4 };

struct pc;

/* What the guest, or its console, asks of whoever runs the machine. */
enum pc_event {
    PC_EVENT_RESET,
    PC_EVENT_POWER_OFF,
    PC_EVENT_DEBUG_EXIT, /* isa-debug-exit; `value` is what was written */
    PC_EVENT_QUIT,       /* Ctrl-A x */
    PC_EVENT_REMAP,      /* pc_remap is to be called before the vCPUs go on */
};

struct pc_config {
    uint64_t memory;       /* bytes, a multiple of 4096, 1 MiB to 64 GiB */
    unsigned vcpu_count;   /* 1..254 */
    const char *cpu_model; /* "-cpu" string; NULL: "host" */
    uint64_t code_cache;   /* bytes; 0: the engine's default */
    enum trapeze_windows windows;
    unsigned without; /* TRAPEZE_WITHOUT_* */
    const char *kernel, *initrd, *append; /* initrd and append may be NULL. All texts outlive the machine */
    const char *serial[PC_SERIAL_PORTS];  /* what char_open takes; NULL: the port is not there */
    const char *debugcon;                 /* likewise, for port E9h */
    bool has_no_pit, has_debug_exit, has_testdev, has_pci_testdev;
    unsigned debug_exit_base, debug_exit_size;

    /* Called on any thread, under the device lock: it must not block, nor call a function below that takes it. */
    void (*event)(void *opaque, enum pc_event event, unsigned value);
    /* As in struct trapeze_config; NULL: not told. */
    void (*unimplemented)(void *opaque, uint64_t linear, const uint8_t *bytes, unsigned length);
    /* An access that nobody claims; NULL: not told. On the vCPU's thread. */
    void (*unclaimed)(void *opaque, enum trapeze_space space, bool is_write, uint64_t address, unsigned size);
    /* One line without its end, while the machine is made; NULL: not told. */
    void (*warn)(void *opaque, const char *line);
    void *opaque;
};

/* Why a machine could not be made: the option to blame (static, without its dash), or NULL, and one clause. */
struct pc_error {
    const char *option;
    char text[280];
};

/*
 * Makes the machine with the kernel loaded, ready to run. Its threads take no signals. A serial port on a socket may
 * wait here for its first client. NULL with *error filled in.
 */
struct pc *pc_create(const struct pc_config *config, struct pc_error *error);
/* Writes out what the consoles still hold, and restores the terminal. */
void pc_destroy(struct pc *pc);

struct trapeze_machine *pc_machine(struct pc *pc);
unsigned pc_vcpu_count(const struct pc *pc);
struct trapeze_vcpu *pc_vcpu(struct pc *pc, unsigned index);

/* Runs vCPU `index` on the calling thread; one thread may run several, one after another. As trapeze_vcpu_run. */
enum trapeze_status pc_run_vcpu(struct pc *pc, unsigned index, struct trapeze_exit *exit);

/* RESET of everything; the kernel is loaded again from its files. False with *error filled in where that fails. */
bool pc_reset(struct pc *pc, struct pc_error *error);

/* Puts memory where the guest's A20 gate says. False where the host refuses. */
bool pc_remap(struct pc *pc);

/* What stands behind serial port `index`, where the user has to be told (the path of a pty); else NULL. */
const char *pc_serial_notice(const struct pc *pc, unsigned index);

/* The k-th name for "-cpu help"; NULL past the last. */
const char *pc_cpu_model(unsigned k);
const char *pc_cpu_feature(unsigned k);

#endif
