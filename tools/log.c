/* See log.h. */
#include "tools/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/disassembly.h"

struct log {
    FILE *file;
    unsigned mask;
};

struct log *log_open(const char *path) {
    struct log *log = calloc(1, sizeof(*log));
    if (!log)
        return NULL;
    log->file = path ? fopen(path, "we") : stderr;
    if (!log->file) {
        int saved = errno;
        free(log);
        errno = saved;
        return NULL;
    }
    setvbuf(log->file, NULL, _IOLBF, 0);
    return log;
}

void log_close(struct log *log) {
    if (log->file != stderr)
        fclose(log->file);
    free(log);
}

void log_line(struct log *log, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    flockfile(log->file);
    vfprintf(log->file, format, arguments);
    putc_unlocked('\n', log->file);
    funlockfile(log->file);
    va_end(arguments);
}

static void take_event(void *opaque, unsigned bit, const char *line) {
    (void)bit;
    log_line(opaque, "%s", line);
}

static void take_block(void *opaque, uint64_t linear, unsigned width, const uint8_t *guest, size_t guest_length,
                       const uint8_t *host, size_t host_length) {
    struct log *log = opaque;
    flockfile(log->file);
    if (log->mask & TRAPEZE_LOG_IN_ASM) {
        fprintf(log->file, "IN: %016llx (%u-bit)\n", (unsigned long long)linear, width);
        disassembly_print(log->file, "  ", linear, width, guest, guest_length);
    }
    if (log->mask & TRAPEZE_LOG_OUT_ASM) {
        fprintf(log->file, "OUT: [size=%zu]\n", host_length);
        disassembly_print(log->file, "  ", (uint64_t)(uintptr_t)host, 64, host, host_length);
    }
    funlockfile(log->file);
}

struct trapeze_log log_for_engine(struct log *log, unsigned mask) {
    log->mask = mask;
    return (struct trapeze_log){.mask = mask, .event = take_event, .block = take_block, .opaque = log};
}

void log_statistics(struct log *log, const struct trapeze_machine *machine) {
    static const struct {
        const char *name;
        size_t offset;
    } rows[] = {
#define ROW(text, member)                                                                                              \
    { text, offsetof(struct trapeze_statistics, member) }
        ROW("blocks translated", blocks_translated),
        ROW("blocks moved", blocks_moved),
        ROW("instructions translated", instructions_translated),
        ROW("bytes of host code", code_bytes),
        ROW("code cache evictions", cache_evictions),
        ROW("blocks invalidated", blocks_invalidated),
        ROW("immediates as data", immediates_as_data),
        ROW("shadow page table fills", tlb_fills),
        ROW("shadow page table flushes", tlb_flushes),
        ROW("slow accesses", slow_accesses),
        ROW("dispatches", dispatches),
        ROW("links", links),
        ROW("exceptions", exceptions),
        ROW("interrupts", interrupts),
        ROW("host faults", host_faults),
        ROW("privileged instructions by helpers", helper_calls_privileged),
        ROW("unprivileged instructions by helpers", helper_calls_unprivileged),
        ROW("instructions without a rule", unimplemented),
        ROW("windows opened", windows_opened),
        ROW("windows compared", windows_compared),
        ROW("window fills", window_fills),
#undef ROW
    };
    struct trapeze_statistics statistics = {0};
    trapeze_machine_statistics(machine, &statistics);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        log_line(log, "stats: %-36s %llu", rows[i].name,
                 *(const unsigned long long *)(const void *)((const char *)&statistics + rows[i].offset));
}
