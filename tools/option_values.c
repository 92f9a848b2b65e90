/* See option_values.h. */
#include "tools/option_values.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trapeze/trapeze.h"

/* ---- Words and numbers ---- */

bool option_fail(struct options_error *error, const struct option_row *row, const char *value, const char *reason,
                 ...) {
    char text[160];
    va_list arguments;
    va_start(arguments, reason);
    vsnprintf(text, sizeof(text), reason, arguments);
    va_end(arguments);
    if (value)
        snprintf(error->text, sizeof(error->text), "-%s: %.100s: %s", row->name, *value ? value : "''", text);
    else
        snprintf(error->text, sizeof(error->text), "-%s: %s", row->name, text);
    return false;
}

static void copy_word(char *to, size_t room, const char *from, size_t length) {
    if (length >= room)
        length = room - 1;
    memcpy(to, from, length);
    to[length] = 0;
}

bool option_next_pair(const char **list, struct option_pair *pair) {
    const char *from = *list;
    if (!*from)
        return false;
    size_t length = strcspn(from, ","), key_length = strcspn(from, "=,");
    pair->has_value = key_length < length;
    copy_word(pair->key, sizeof(pair->key), from, key_length);
    copy_word(pair->value, sizeof(pair->value), from + key_length + pair->has_value,
              pair->has_value ? length - key_length - 1 : 0);
    *list = from + length + (from[length] == ',');
    return true;
}

bool option_parse_number(const char *text, uint64_t limit, uint64_t *number) {
    char *end;
    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    *number = strtoull(text, &end, 0);
    return errno == 0 && !*end && *number <= limit;
}

bool option_parse_size(const char *text, uint64_t unit, uint64_t *bytes) {
    static const char letters[] = "bkmgt";
    char *end;
    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    uint64_t number = strtoull(text, &end, 0);
    if (errno != 0)
        return false;
    if (*end) {
        const char *letter = strchr(letters, *end | 0x20);
        if (!letter || !*letter || end[1])
            return false;
        unit = UINT64_C(1) << (10 * (letter - letters));
    }
    return !__builtin_mul_overflow(number, unit, bytes);
}

int option_parse_switch(const char *text) {
    if (!strcmp(text, "on") || !strcmp(text, "yes") || !strcmp(text, "true"))
        return 1;
    if (!strcmp(text, "off") || !strcmp(text, "no") || !strcmp(text, "false"))
        return 0;
    return -1;
}

static bool is_help(const char *value) {
    return !strcmp(value, "help") || !strcmp(value, "?");
}

/* Levenshtein's distance of words that are short, or cut off. */
static unsigned distance(const char *a, const char *b) {
    enum { LONGEST = 40 };
    unsigned row[LONGEST + 1];
    size_t a_length = strnlen(a, LONGEST), b_length = strnlen(b, LONGEST);
    for (unsigned j = 0; j <= b_length; j++)
        row[j] = j;
    for (unsigned i = 1; i <= a_length; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= b_length; j++) {
            unsigned replaced = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            unsigned changed = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            row[j] = replaced < changed ? replaced : changed;
        }
    }
    return row[b_length];
}

const char *option_nearest(const char *text, const char *const *names) {
    const char *nearest = NULL;
    unsigned least = 0;
    for (; *names; names++) {
        unsigned changes = distance(text, *names);
        if (!nearest || changes < least) {
            nearest = *names;
            least = changes;
        }
    }
    return nearest;
}

static bool fail_nearest(struct options_error *error, const struct option_row *row, const char *value,
                         const char *reason, const char *const *names) {
    return option_fail(error, row, value, "%s; the nearest is '%s'", reason, option_nearest(value, names));
}

/* ---- Memory and processors ---- */

bool option_memory(struct options *options, const struct option_row *row, const char *value,
                   struct options_error *error) {
    const char *list = value;
    struct option_pair pair;
    uint64_t bytes = 0;
    if (!*value)
        return option_fail(error, row, value, "not a size");
    while (option_next_pair(&list, &pair)) {
        if (pair.has_value && strcmp(pair.key, "size") != 0)
            return option_fail(error, row, value, "'%s' is not supported yet; the nearest is 'size'", pair.key);
        if (!option_parse_size(pair.has_value ? pair.value : pair.key, UINT64_C(1) << 20, &bytes))
            return option_fail(error, row, value, "not a size");
    }
    if (bytes < OPTIONS_MEMORY_MIN || bytes > OPTIONS_MEMORY_MAX)
        return option_fail(error, row, value, "memory is from 1M to 64G");
    if (bytes % 4096 != 0)
        return option_fail(error, row, value, "not a multiple of 4K");
    options->memory = bytes;
    return true;
}

enum { SMP_CPUS, SMP_MAX, SMP_SOCKETS, SMP_DIES, SMP_CLUSTERS, SMP_CORES, SMP_THREADS, SMP_KEYS };

static bool check_topology(const uint64_t counts[SMP_KEYS], struct options *options, const struct option_row *row,
                           const char *value, struct options_error *error) {
    uint64_t product = 1, cpus = counts[SMP_CPUS];
    for (unsigned k = SMP_SOCKETS; k < SMP_KEYS; k++)
        if (counts[k])
            product *= counts[k]; /* seven numbers of at most 254: no overflow */
    if (!cpus)
        cpus = counts[SMP_MAX] ? counts[SMP_MAX] : product;
    if (counts[SMP_MAX] && counts[SMP_MAX] != cpus)
        return option_fail(error, row, value, "processors cannot be plugged in later: maxcpus must be cpus");
    if (cpus % product != 0)
        return option_fail(error, row, value, "the topology does not multiply to %llu", (unsigned long long)cpus);
    if (cpus > OPTIONS_VCPUS_MAX)
        return option_fail(error, row, value, "the number of processors is from 1 to %d", OPTIONS_VCPUS_MAX);
    options->vcpu_count = (unsigned)cpus;
    options->has_topology = counts[SMP_SOCKETS] > 1 || counts[SMP_DIES] > 1 || counts[SMP_CLUSTERS] > 1 ||
                            counts[SMP_THREADS] > 1;
    return true;
}

bool option_smp(struct options *options, const struct option_row *row, const char *value, struct options_error *error) {
    static const char *const keys[] = {"cpus", "maxcpus", "sockets", "dies", "clusters", "cores", "threads", NULL};
    uint64_t counts[SMP_KEYS] = {0};
    const char *list = value;
    struct option_pair pair;
    if (!*value)
        return option_fail(error, row, value, "not a number of processors");
    while (option_next_pair(&list, &pair)) {
        unsigned k = 0;
        while (pair.has_value && keys[k] && strcmp(keys[k], pair.key) != 0)
            k++;
        if (!keys[k])
            return fail_nearest(error, row, pair.key, "no such part of a topology", keys);
        const char *number = pair.has_value ? pair.value : pair.key;
        if (!option_parse_number(number, OPTIONS_VCPUS_MAX, &counts[k]) || counts[k] == 0)
            return option_fail(error, row, value, "the number of processors is from 1 to %d", OPTIONS_VCPUS_MAX);
    }
    return check_topology(counts, options, row, value, error);
}

bool option_cpu(struct options *options, const struct option_row *row, const char *value, struct options_error *error) {
    if (is_help(value)) {
        options->list = OPTIONS_LIST_CPUS;
        return true;
    }
    if (!*value)
        return option_fail(error, row, value, "no model named");
    options->cpu = value;
    return true;
}

/* ---- Machine and accelerator ---- */

static const char *const accelerators[] = {"tcg", "kvm", NULL};

/* "kvm:tcg" is QEMU's "the first of these that works". */
static bool take_accelerators(struct options *options, const struct option_row *row, const char *names,
                              struct options_error *error) {
    do {
        char name[32];
        size_t length = strcspn(names, ":");
        copy_word(name, sizeof(name), names, length);
        if (!strcmp(name, "kvm"))
            options->wants_kvm = true;
        else if (strcmp(name, "tcg") != 0)
            return fail_nearest(error, row, name, "no such accelerator here", accelerators);
        names += length;
    } while (*names++);
    return true;
}

/* The value of one of -machine's properties. */
typedef bool machine_taker(struct options *options, const struct option_row *row, const struct option_pair *pair,
                           struct options_error *error);

static bool machine_type(struct options *options, const struct option_row *row, const struct option_pair *pair,
                         struct options_error *error) {
    static const char *const machines[] = {"pc", NULL};
    const char *name = pair->has_value ? pair->value : pair->key;
    (void)options;
    return !strcmp(name, "pc") || fail_nearest(error, row, name, "no such machine here", machines);
}

static bool machine_accel(struct options *options, const struct option_row *row, const struct option_pair *pair,
                          struct options_error *error) {
    return take_accelerators(options, row, pair->value, error);
}

static bool machine_irqchip(struct options *options, const struct option_row *row, const struct option_pair *pair,
                            struct options_error *error) {
    (void)row, (void)pair, (void)error;
    options->has_irqchip = true;
    return true;
}

static bool machine_pit(struct options *options, const struct option_row *row, const struct option_pair *pair,
                        struct options_error *error) {
    int has_pit = !strcmp(pair->value, "auto") ? 1 : option_parse_switch(pair->value);
    if (has_pit < 0)
        return option_fail(error, row, pair->value, "pit is on, off or auto");
    options->has_no_pit = !has_pit;
    return true;
}

/* What a PC here has only switched off. */
static bool machine_off(struct options *options, const struct option_row *row, const struct option_pair *pair,
                        struct options_error *error) {
    (void)options;
    return option_parse_switch(pair->value) == 0 ||
           option_fail(error, row, pair->key, "not supported yet; the nearest is '%s=off'", pair->key);
}

bool option_machine(struct options *options, const struct option_row *row, const char *value,
                    struct options_error *error) {
    static const char *const keys[] = {"type", "accel",          "kernel_irqchip", "kernel-irqchip", "pit", "usb",
                                       "smm",  "vmport", "graphics",       NULL};
    static machine_taker *const takers[] = {machine_type, machine_accel, machine_irqchip, machine_irqchip, machine_pit,
                                            machine_off,  machine_off,   machine_off,     machine_off};
    const char *list = value;
    struct option_pair pair;
    while (option_next_pair(&list, &pair)) {
        unsigned k = 0;
        if (!pair.has_value && is_help(pair.key)) {
            options->list = OPTIONS_LIST_MACHINES;
            return true;
        }
        while (pair.has_value && keys[k] && strcmp(keys[k], pair.key) != 0)
            k++;
        if (!keys[k])
            return fail_nearest(error, row, pair.key, "not supported yet", keys);
        if (!takers[k](options, row, &pair, error))
            return false;
    }
    return true;
}

/* DRIVER.PROPERTY=VALUE: a default for devices. Those of KVM's own devices mean nothing here; there are no others. */
bool option_global(struct options *options, const struct option_row *row, const char *value,
                   struct options_error *error) {
    if (strncmp(value, "kvm", 3) != 0 || !strchr(value, '.') || !strchr(value, '='))
        return option_fail(error, row, value, "not supported yet; the nearest are the properties of -device and -cpu");
    options->has_kvm_global = true;
    return true;
}

/* Indices are values of enum trapeze_windows. */
static bool take_windows(struct options *options, const char *value) {
    static const char *const choices[] = {"auto", "off", "always"};
    for (unsigned i = 0; i < sizeof choices / sizeof *choices; i++)
        if (!strcmp(value, choices[i])) {
            options->windows = (enum trapeze_windows)i;
            return true;
        }
    return false;
}

/* "bmi2" or "fsgsbase". */
static unsigned host_feature(const char *name) {
    return !strcmp(name, "bmi2") ? TRAPEZE_WITHOUT_BMI2 : !strcmp(name, "fsgsbase") ? TRAPEZE_WITHOUT_FSGSBASE : 0;
}

static bool take_host_feature(struct options *options, unsigned feature, const char *value) {
    if (!strcmp(value, "off"))
        options->without |= feature;
    else if (!strcmp(value, "on"))
        options->without &= ~feature;
    else
        return false;
    return true;
}

bool option_accel(struct options *options, const struct option_row *row, const char *value,
                  struct options_error *error) {
    static const char *const keys[] = {"tb-size", "thread", "windows", "bmi2", "fsgsbase", NULL};
    const char *list = value;
    struct option_pair pair;
    if (is_help(value)) {
        options->list = OPTIONS_LIST_ACCELERATORS;
        return true;
    }
    if (!option_next_pair(&list, &pair))
        return option_fail(error, row, value, "no accelerator named");
    const char *name = pair.has_value && !strcmp(pair.key, "accel") ? pair.value : pair.key;
    if (!take_accelerators(options, row, name, error))
        return false;
    if (strcmp(name, "tcg") != 0)
        return true; /* what follows is KVM's, and so is the warning */
    while (option_next_pair(&list, &pair)) {
        uint64_t megabytes;
        if (!strcmp(pair.key, "tb-size")) {
            if (!option_parse_number(pair.value, 4096, &megabytes) || megabytes < 8)
                return option_fail(error, row, value, "tb-size is from 8 to 4096 MiB");
            options->code_cache = megabytes << 20;
        } else if (!strcmp(pair.key, "windows")) {
            if (!take_windows(options, pair.value))
                return option_fail(error, row, value, "windows is auto, off or always");
        } else if (host_feature(pair.key)) {
            if (!take_host_feature(options, host_feature(pair.key), pair.value))
                return option_fail(error, row, value, "the use of a host's feature is on or off");
        } else if (strcmp(pair.key, "thread") != 0) {
            return fail_nearest(error, row, pair.key, "not supported yet", keys);
        } else if (strcmp(pair.value, "multi") != 0) {
            return option_fail(error, row, value, "not supported yet; the nearest is 'thread=multi'");
        }
    }
    return true;
}

bool option_enable_kvm(struct options *options, const struct option_row *row, const char *value,
                       struct options_error *error) {
    (void)row, (void)value, (void)error;
    options->wants_kvm = true;
    return true;
}

/* ---- Devices ---- */

static bool take_debug_exit(struct options *options, const struct option_row *row, const char *value,
                            const char *properties, struct options_error *error) {
    static const char *const keys[] = {"iobase", "iosize", NULL};
    struct option_pair pair;
    uint64_t base = 0x501, size = 2; /* QEMU's defaults */
    while (option_next_pair(&properties, &pair)) {
        bool is_base = !strcmp(pair.key, "iobase");
        if (!is_base && strcmp(pair.key, "iosize") != 0)
            return fail_nearest(error, row, pair.key, "isa-debug-exit has no such property", keys);
        if (!option_parse_number(pair.value, 0xffff, is_base ? &base : &size))
            return option_fail(error, row, value, "'%s' is not a port number", pair.value);
    }
    if (size != 1 && size != 2 && size != 4)
        return option_fail(error, row, value, "iosize is 1, 2 or 4");
    if (base + size > 0x10000)
        return option_fail(error, row, value, "the ports end at ffffh");
    options->has_debug_exit = true;
    options->debug_exit_base = (unsigned)base;
    options->debug_exit_size = (unsigned)size;
    return true;
}

bool option_device(struct options *options, const struct option_row *row, const char *value,
                   struct options_error *error) {
    static const char *const names[] = {"isa-debug-exit", "pc-testdev", "pci-testdev", NULL};
    const char *list = value;
    struct option_pair pair;
    if (!option_next_pair(&list, &pair))
        return option_fail(error, row, value, "no device named");
    const char *name = pair.has_value && !strcmp(pair.key, "driver") ? pair.value : pair.key;
    if (is_help(name)) {
        options->list = OPTIONS_LIST_DEVICES;
        return true;
    }
    if (!strcmp(name, "isa-debug-exit"))
        return take_debug_exit(options, row, value, list, error);
    if (!strcmp(name, "pc-testdev"))
        options->has_testdev = true;
    else if (!strcmp(name, "pci-testdev"))
        options->has_pci_testdev = true;
    else
        return fail_nearest(error, row, name, "no such device here yet", names);
    if (*list)
        return option_fail(error, row, value, "%s has no properties", name);
    return true;
}

bool option_serial(struct options *options, const struct option_row *row, const char *value,
                   struct options_error *error) {
    if (options->serial_count == OPTIONS_SERIALS)
        return option_fail(error, row, value, "a PC has at most %d serial ports", OPTIONS_SERIALS);
    options->serial[options->serial_count++] = strcmp(value, "none") != 0 ? value : NULL;
    return true;
}

bool option_only(struct options *options, const struct option_row *row, const char *value,
                 struct options_error *error) {
    (void)options;
    if (value && strcmp(value, row->only) != 0)
        return option_fail(error, row, value, "not supported yet; the nearest is '%s'", row->only);
    return true;
}

bool option_display(struct options *options, const struct option_row *row, const char *value,
                    struct options_error *error) {
    options->has_display_option = true;
    return option_only(options, row, value, error);
}

/* ---- Debugging and the process ---- */

bool option_log(struct options *options, const struct option_row *row, const char *value, struct options_error *error) {
    static const char *const names[] = {"in_asm", "out_asm", "int", "exits", "unimp", "mmu", "stats", "guest_errors",
                                        NULL};
    static const unsigned bits[] = {TRAPEZE_LOG_IN_ASM,
                                    TRAPEZE_LOG_OUT_ASM,
                                    TRAPEZE_LOG_INT,
                                    TRAPEZE_LOG_EXITS | OPTIONS_LOG_STATISTICS,
                                    TRAPEZE_LOG_UNIMPLEMENTED,
                                    TRAPEZE_LOG_MMU,
                                    OPTIONS_LOG_STATISTICS,
                                    OPTIONS_LOG_UNCLAIMED};
    const char *list = value;
    struct option_pair pair;
    if (!*value)
        return option_fail(error, row, value, "no items named");
    while (option_next_pair(&list, &pair)) {
        unsigned k = 0;
        if (is_help(pair.key)) {
            options->list = OPTIONS_LIST_LOG_ITEMS;
            return true;
        }
        while (names[k] && (pair.has_value || strcmp(names[k], pair.key) != 0))
            k++;
        if (!names[k])
            return fail_nearest(error, row, pair.key, "no such log item here", names);
        options->log |= bits[k];
    }
    return true;
}

bool option_gdb(struct options *options, const struct option_row *row, const char *value, struct options_error *error) {
    if (!strcmp(value, "none")) {
        options->gdb = NULL;
        return true;
    }
    if (strncmp(value, "tcp:", 4) != 0 && strncmp(value, "unix:", 5) != 0)
        return option_fail(error, row, value, "not supported yet; the nearest is tcp:[HOST]:PORT or unix:PATH");
    options->gdb = value;
    return true;
}

bool option_gdb_default(struct options *options, const struct option_row *row, const char *value,
                        struct options_error *error) {
    (void)row, (void)value, (void)error;
    options->gdb = "tcp::1234";
    return true;
}

bool option_name(struct options *options, const struct option_row *row, const char *value,
                 struct options_error *error) {
    static const char *const keys[] = {"guest", "process", "debug-threads", NULL};
    const char *list = value;
    struct option_pair pair;
    while (option_next_pair(&list, &pair)) {
        unsigned k = 0;
        while (pair.has_value && keys[k] && strcmp(keys[k], pair.key) != 0)
            k++;
        if (!keys[k])
            return fail_nearest(error, row, pair.key, "a name has no such part", keys);
    }
    options->name = value;
    return true;
}

bool option_help(struct options *options, const struct option_row *row, const char *value,
                 struct options_error *error) {
    (void)row, (void)value, (void)error;
    options->list = OPTIONS_LIST_HELP;
    return true;
}

bool option_version(struct options *options, const struct option_row *row, const char *value,
                    struct options_error *error) {
    (void)row, (void)value, (void)error;
    options->list = OPTIONS_LIST_VERSION;
    return true;
}
