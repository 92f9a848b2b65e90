/* The table of options and the walk over the command line; what follows each option is in option_values.c. */
#include "tools/options.h"

#include <stdio.h>
#include <string.h>

#include "tools/complain.h"
#include "tools/option_unsupported.h"
#include "tools/option_values.h"

#define STORE(member) offsetof(struct options, member)

static const struct option_row rows[] = {
    {"kernel", "FILE", NULL, STORE(kernel), NULL},
    {"initrd", "FILE", NULL, STORE(initrd), NULL},
    {"append", "TEXT", NULL, STORE(append), NULL},
    {"m", "SIZE", option_memory, 0, NULL},
    {"smp", "N", option_smp, 0, NULL},
    {"cpu", "MODEL", option_cpu, 0, NULL},
    {"M", "pc", option_machine, 0, NULL},
    {"machine", "pc", option_machine, 0, NULL},
    {"global", "KVM...", option_global, 0, NULL},
    {"accel", "tcg", option_accel, 0, NULL},
    {"enable-kvm", NULL, option_enable_kvm, 0, NULL},
    {"device", "NAME", option_device, 0, NULL},
    {"serial", "CHR", option_serial, 0, NULL},
    {"debugcon", "CHR", NULL, STORE(debugcon), NULL},
    {"nographic", NULL, NULL, STORE(is_nographic), NULL},
    {"display", "none", option_display, 0, "none"},
    {"vga", "none", option_only, 0, "none"},
    {"vnc", "none", option_display, 0, "none"},
    {"monitor", "none", option_only, 0, "none"},
    {"parallel", "none", option_only, 0, "none"},
    {"net", "none", option_only, 0, "none"},
    {"nic", "none", option_only, 0, "none"},
    {"rtc", "base=utc", option_only, 0, "base=utc"},
    {"sandbox", "off", option_only, 0, "off"},
    {"nodefaults", NULL, NULL, STORE(no_defaults), NULL},
    {"no-user-config", NULL, option_only, 0, NULL},
    {"no-reboot", NULL, NULL, STORE(no_reboot), NULL},
    {"no-shutdown", NULL, NULL, STORE(no_shutdown), NULL},
    {"S", NULL, NULL, STORE(starts_paused), NULL},
    {"s", NULL, option_gdb_default, 0, NULL},
    {"gdb", "DEV", option_gdb, 0, NULL},
    {"d", "ITEMS", option_log, 0, NULL},
    {"D", "FILE", NULL, STORE(log_file), NULL},
    {"name", "TEXT", option_name, 0, NULL},
    {"pidfile", "FILE", NULL, STORE(pidfile), NULL},
    {"help", NULL, option_help, 0, NULL},
    {"h", NULL, option_help, 0, NULL},
    {"version", NULL, option_version, 0, NULL},
};
enum { ROWS = sizeof(rows) / sizeof(rows[0]) };

static const char help_text[] =
    "usage: trapeze -kernel FILE [options]    (options are spelled as QEMU's)\n"
    "  -kernel FILE -initrd FILE -append TEXT   bzImage, PVH or multiboot kernel\n"
    "  -m SIZE          memory: 512, 512M, 1G (default 128M)    -smp N   processors\n"
    "  -cpu MODEL[,+FEATURE][,-FEATURE]         the guest's processor (default host)\n"
    "  -machine pc, -M pc  the machine          -accel tcg[,tb-size=MIB]\n"
    "  -device NAME     isa-debug-exit[,iobase=P,iosize=N], pc-testdev, pci-testdev\n"
    "  -serial CHR      COM1, again: COM2 ...   -debugcon CHR   port E9h\n"
    "       CHR: stdio mon:stdio file:PATH pty unix:PATH[,server] tcp:HOST:PORT null\n"
    "  -nographic       COM1 on this terminal (default); Ctrl-A x ends, h helps\n"
    "  -nodefaults      only what was asked for -no-user-config  no change\n"
    "  -display -vga -vnc -monitor -net -nic -parallel none    as QEMU's: without it\n"
    "  -rtc base=utc, -sandbox off              as the machine is anyway\n"
    "  -no-reboot       end at a reset          -no-shutdown    stop at a power-off\n"
    "  -S               wait for a debugger     -s              -gdb tcp::1234\n"
    "  -gdb tcp:[HOST]:PORT|unix:PATH           serve gdb       -name TEXT\n"
    "  -d ITEMS         log in_asm,out_asm,int,exits,unimp,mmu,...    -D FILE  there\n"
    "  -pidfile FILE    holds the process id    -enable-kvm     taken with a warning\n"
    "  -h, --help       this text               --version\n"
    "\"help\" as argument of -cpu -machine -accel -device -d lists what there is.\n"
    "Exit status: 0 powered off, 1 wrong use or host error, 2 the guest crashed.\n";

static bool unknown(const char *spelled, const char *name, struct options_error *error) {
    const struct option_unsupported *row = option_unsupported_find(name);
    const char *names[ROWS + 1] = {0};
    if (row) {
        snprintf(error->text, sizeof(error->text), "%s: not supported yet; %s%s", spelled,
                 row->nearest ? "the nearest is " : "nothing comes near it", row->nearest ? row->nearest : "");
        return false;
    }
    for (unsigned i = 0; i < ROWS; i++)
        names[i] = rows[i].name;
    snprintf(error->text, sizeof(error->text), "%.100s: unknown option; the nearest is -%s", spelled,
             option_nearest(name, names));
    return false;
}

static const struct option_row *find(const char *name) {
    for (unsigned i = 0; i < ROWS; i++)
        if (!strcmp(rows[i].name, name))
            return &rows[i];
    return NULL;
}

static bool take(struct options *options, const struct option_row *row, const char *value,
                 struct options_error *error) {
    if (row->take)
        return row->take(options, row, value, error);
    void *member = (char *)options + row->offset;
    if (row->argument)
        *(const char **)member = value;
    else
        *(bool *)member = true;
    return true;
}

/* What is there without being asked for. */
static void add_defaults(struct options *options) {
    if (options->serial_count > 0 || options->no_defaults)
        return;
    if (options->is_nographic || !options->has_display_option) {
        options->serial[0] = "mon:stdio";
        options->serial_count = 1;
    }
}

static bool is_stdio(const char *chr) {
    return chr && (!strcmp(chr, "stdio") || !strcmp(chr, "mon:stdio"));
}

static bool check(const struct options *options, struct options_error *error) {
    unsigned users = is_stdio(options->debugcon);
    if (!options->kernel) {
        snprintf(error->text, sizeof(error->text), "-kernel: missing, and there is no disk to boot from yet");
        return false;
    }
    if (options->starts_paused && !options->gdb) {
        snprintf(error->text, sizeof(error->text), "-S: only a debugger can let the machine go; the nearest is -S -s");
        return false;
    }
    for (unsigned i = 0; i < OPTIONS_SERIALS; i++)
        users += is_stdio(options->serial[i]);
    if (users > 1) {
        snprintf(error->text, sizeof(error->text), "%s: stdio: only one device can have it",
                 is_stdio(options->debugcon) ? "-debugcon" : "-serial");
        return false;
    }
    return true;
}

static bool parse(struct options *options, int argc, char *const argv[], struct options_error *error) {
    *options = (struct options){.memory = UINT64_C(128) << 20, .vcpu_count = 1};
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *value = NULL;
        if (name[0] != '-' || !name[1]) {
            snprintf(error->text, sizeof(error->text),
                     "%.200s: disk images are not supported yet; the nearest is -kernel", name);
            return false;
        }
        name += name[1] == '-' ? 2 : 1;
        const struct option_row *row = find(name);
        if (!row)
            return unknown(argv[i], name, error);
        if (row->argument && i + 1 == argc)
            return option_fail(error, row, NULL, "%s is missing behind it", row->argument);
        if (row->argument)
            value = argv[++i];
        if (!take(options, row, value, error))
            return false;
        if (options->list != OPTIONS_LIST_NONE)
            return true;
    }
    add_defaults(options);
    return check(options, error);
}

bool options_parse(struct options *options, int argc, char *const argv[], struct options_error *error) {
    bool is_good = parse(options, argc, argv, error);
    if (!is_good)
        complain_clean(error->text);
    return is_good;
}

const char *options_list_text(enum options_list list) {
    switch (list) {
    case OPTIONS_LIST_HELP:
        return help_text;
    case OPTIONS_LIST_VERSION:
        return "trapeze " TRAPEZE_VERSION "\n";
    case OPTIONS_LIST_MACHINES:
        return "Supported machines are:\npc                   440FX-style PC (default)\n";
    case OPTIONS_LIST_ACCELERATORS:
        return "Accelerators supported in trapeze:\ntcg                  same-ISA binary translation (default)\n";
    case OPTIONS_LIST_DEVICES:
        return "name \"isa-debug-exit\", bus ISA\nname \"pc-testdev\", bus ISA\nname \"pci-testdev\", bus PCI\n";
    case OPTIONS_LIST_LOG_ITEMS:
        return "Log items (comma separated):\n"
               "in_asm          the guest's code of each translated block\n"
               "out_asm         the host's code of each translated block\n"
               "int             interrupts and exceptions\n"
               "exits           why translated code was left; statistics at the end\n"
               "unimp           instructions without a rule\n"
               "mmu             shadow page tables\n"
               "guest_errors    accesses that no device answers\n"
               "stats           statistics at the end\n";
    case OPTIONS_LIST_NONE:
    case OPTIONS_LIST_CPUS:
        break;
    }
    return NULL;
}

const char *options_warning(const struct options *options, unsigned k) {
    const struct {
        bool applies;
        const char *text;
    } warnings[] = {
        {options->wants_kvm, "KVM is not used: the machine runs by binary translation, as with -accel tcg"},
        {options->has_topology, "-smp: the guest sees its processors as cores of one socket"},
        {options->has_irqchip, "-machine: kernel_irqchip means something with KVM only"},
        {options->has_kvm_global, "-global: a property of KVM's devices changes nothing here"},
    };
    for (unsigned i = 0; i < sizeof(warnings) / sizeof(warnings[0]); i++)
        if (warnings[i].applies && k-- == 0)
            return warnings[i].text;
    return NULL;
}
