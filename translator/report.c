/* What the engine tells the user about itself. */
#include <stdarg.h>
#include <stdio.h>

#include "cpu/views.h"
#include "translator/translation.h"

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

uint64_t engine_report_exception(void *argument) {
    struct cpu *cpu = argument;
    const struct cpu_exception *exception = &cpu->exception;
    if (exception->vector == VECTOR_PF)
        engine_log(cpu->engine, TRAPEZE_LOG_INT, "cpu %u: exception 14, error %x, cr2 %016llx, rip %016llx", cpu->index,
                   exception->error_code, (unsigned long long)exception->cr2, (unsigned long long)cpu->hot.rip);
    else
        engine_log(cpu->engine, TRAPEZE_LOG_INT, "cpu %u: exception %u, error %x, rip %016llx", cpu->index,
                   exception->vector, exception->has_error_code ? exception->error_code : 0,
                   (unsigned long long)cpu->hot.rip);
    return 0;
}

uint64_t engine_report_helper(void *argument) {
    const struct helper_report *report = argument;
    static const char *const result[] = {"", ", jumps", ", faults", ", stops"};
    engine_log(report->cpu->engine, TRAPEZE_LOG_EXITS, "cpu %u: %016llx %s by a C function%s", report->cpu->index,
               (unsigned long long)report->call->rip, decode_mnemonic_name(report->call->op.mnemonic),
               result[report->result]);
    return 0;
}

uint64_t engine_report_fill(void *argument) {
    const struct fill_report *report = argument;
    engine_log(report->cpu->engine, TRAPEZE_LOG_MMU, "cpu %u: %016llx fills for a %s at %016llx: %s %llx",
               report->cpu->index, (unsigned long long)report->rip, report->is_write ? "write" : "read",
               (unsigned long long)report->linear, report->is_memory ? "memory at" : "no memory at",
               (unsigned long long)report->physical);
    return 0;
}

uint64_t engine_report_space(void *argument) {
    const struct helper_report *report = argument;
    const struct cpu *cpu = report->cpu;
    engine_log(cpu->engine, TRAPEZE_LOG_MMU, "cpu %u: %016llx %s flushes or changes the address space: cr3 %016llx",
               cpu->index, (unsigned long long)report->call->rip, decode_mnemonic_name(report->call->op.mnemonic),
               (unsigned long long)cpu->cr3);
    return 0;
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
    char text[3 * sizeof bytes + 1] = "";
    for (unsigned i = 0; i < length; i++)
        snprintf(text + 3 * i, 4, " %02x", bytes[i]);
    engine_log(cpu->engine, TRAPEZE_LOG_UNIMPLEMENTED, "unimplemented: no rule for the instruction at %016llx:%s",
               (unsigned long long)linear, text);
    if (cpu->config->unimplemented)
        cpu->config->unimplemented(cpu->config->opaque, linear, bytes, length);
    return 0;
}
