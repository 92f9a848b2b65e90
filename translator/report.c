/* What the engine tells the user about itself. */
#include <stdarg.h>
#include <stdio.h>

#include "cpu/views.h"
#include "translator/engine.h"

void engine_log(struct engine *engine, unsigned bit, const char *format, ...) {
    const struct trapeze_log *log = &engine->log;
    if (!(log->mask & bit) || !log->event)
        return;
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    log->event(log->opaque, bit, line);
}

uint64_t engine_report_unimplemented(void *argument) {
    struct cpu *cpu = argument;
    uint64_t linear = cpu->hot.rip + (cpu_is_64bit(cpu) ? 0 : cpu->segment[CPU_CS].base);
    uint8_t bytes[15] = {0};
    unsigned length = 0;
    for (guest_physical at; length < sizeof bytes && cpu_walk_debug(cpu, linear + length, &at); length++) {
        struct memory_region *region = memory_find(cpu->memory, at);
        if (!region)
            break;
        bytes[length] = *memory_host(region, at);
    }
    engine_log(cpu->engine, TRAPEZE_LOG_UNIMPLEMENTED,
               "no rule for the instruction at %016llx: %02x %02x %02x %02x %02x %02x %02x %02x",
               (unsigned long long)linear, bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6],
               bytes[7]);
    if (cpu->config->unimplemented)
        cpu->config->unimplemented(cpu->config->opaque, linear, bytes, length);
    return 0;
}
