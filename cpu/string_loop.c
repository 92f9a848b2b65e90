/*
 * See cpu/string_loop.h.
 */
#include "cpu/io.h"
#include "cpu/mode.h"
#include "cpu/string_loop.h"

void string_begin(struct string *string, struct cpu *cpu, const struct cpu_op *op, unsigned size) {
    *string = (struct string){
        .cpu = cpu,
        .op = op,
        .size = size,
        .shift = (unsigned)__builtin_ctz(size),
        .is_plain = (cpu->mode_key & (MODE_FLAT | MODE_ALIGNMENT)) == MODE_FLAT,
        .is_backward = cpu->hot.rflags & FLAG_DF,
        .mask = op->address_size == 8 ? ~0ull : (1ull << (8 * op->address_size)) - 1,
        .count = 1,
    };
    if (op->rep != CPU_REP_NONE)
        string->count = string_index(string, CPU_RCX);
}

void string_advance(const struct string *string, unsigned index, uint64_t n) {
    uint64_t distance = n << string->shift;
    uint64_t value = string->cpu->hot.gpr[index] + (string->is_backward ? -distance : distance);
    cpu_set_gpr(string->cpu, index, string->op->address_size, false, value);
}

void string_count(struct string *string, uint64_t n) {
    string->count -= n;
    string->moved += n << string->shift;
    if (string->op->rep != CPU_REP_NONE)
        cpu_set_gpr(string->cpu, CPU_RCX, string->op->address_size, false, string->count);
    if (!cpu_io_waits(string->cpu))
        cpu_io_done(string->cpu); /* the next element asks anew, and starts from these registers */
}

bool string_gives_way(const struct string *string) {
    const struct cpu *cpu = string->cpu;
    if (!string->count)
        return false;
    return string->moved >= STRING_MAX_BYTES || !__atomic_load_n(&cpu->hot.run, __ATOMIC_RELAXED) ||
           (cpu->hot.rflags & FLAG_TF);
}

enum cpu_result string_pause(struct string *string) {
    struct cpu *cpu = string->cpu;
    cpu->hot.rflags |= FLAG_RF;
    cpu->paused_string = cpu->hot.rip;
    return CPU_JUMP;
}
