/*
 * The command line, in QEMU's spelling: what was asked for, checked as far as it can be without opening anything.
 *
 * Options come as -name or --name. What QEMU has and Trapeze does not is an error that names the nearest thing; nothing
 * is ignored silently.
 */
#ifndef TOOLS_OPTIONS_H
#define TOOLS_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trapeze/trapeze.h"

enum { OPTIONS_SERIALS = 4, OPTIONS_VCPUS_MAX = 254 };
#define OPTIONS_MEMORY_MIN (UINT64_C(1) << 20)
#define OPTIONS_MEMORY_MAX (UINT64_C(64) << 30)

/* Bits of struct options.log: the first six are the engine's TRAPEZE_LOG_*. */
enum { OPTIONS_LOG_STATISTICS = 1 << 16, OPTIONS_LOG_UNCLAIMED = 1 << 17 };

/* What to print instead of running a machine. */
enum options_list {
    OPTIONS_LIST_NONE,
    OPTIONS_LIST_HELP,
    OPTIONS_LIST_VERSION,
    OPTIONS_LIST_CPUS,
    OPTIONS_LIST_MACHINES,
    OPTIONS_LIST_ACCELERATORS,
    OPTIONS_LIST_DEVICES,
    OPTIONS_LIST_LOG_ITEMS,
};

struct options {
    const char *kernel, *initrd, *append;
    uint64_t memory;     /* bytes */
    unsigned vcpu_count;
    const char *cpu;     /* NULL: the default model */
    uint64_t code_cache; /* bytes; 0: the default */
    enum trapeze_windows windows;
    unsigned without; /* TRAPEZE_WITHOUT_* */
    const char *serial[OPTIONS_SERIALS]; /* NULL: the port is not there */
    unsigned serial_count;
    const char *debugcon; /* NULL: none */
    bool has_no_pit, has_debug_exit, has_testdev, has_pci_testdev;
    unsigned debug_exit_base, debug_exit_size;
    bool is_nographic, has_display_option, no_defaults;
    bool no_reboot, no_shutdown, starts_paused;
    const char *name, *pidfile;
    unsigned log; /* TRAPEZE_LOG_* and OPTIONS_LOG_* */
    const char *log_file;
    const char *gdb; /* NULL: no server */
    enum options_list list;
    bool wants_kvm, has_topology, has_irqchip, has_kvm_global; /* to be warned about */
};

/* One line without its end: the option, the value where there is one, and the reason. */
struct options_error {
    char text[320];
};

/*
 * Fills *options, whose texts point into argv. Stops early where options->list says what to print. False with *error
 * filled in.
 */
bool options_parse(struct options *options, int argc, char *const argv[], struct options_error *error);

/* What options->list stands for, but for the CPU models; NULL for OPTIONS_LIST_NONE and OPTIONS_LIST_CPUS. */
const char *options_list_text(enum options_list list);

/* The k-th warning about what was asked for, a line without its end; NULL past the last. */
const char *options_warning(const struct options *options, unsigned k);

#endif
