/*
 * IN, OUT, INS, OUTS, and who may use a port: IOPL, or the I/O permission bitmap of the TSS (SDM vol. 1, 19.5).
 */
#include "cpu/access.h"
#include "cpu/ops.h"
#include "cpu/string_loop.h"

enum { TSS32 = 9, TSS32_BUSY = 11, TSS_IO_BASE = 0x66, TSS32_LIMIT = 0x67 };

static enum cpu_result general_protection(struct cpu *cpu) {
    return cpu_fault_code(cpu, VECTOR_GP, 0);
}

/* The bitmap's bits for the port; past the TSS's limit every port is forbidden. */
static enum cpu_result check_bitmap(struct cpu *cpu, uint16_t port, unsigned size) {
    unsigned type = cpu->tr.attributes & (SEGMENT_TYPE | SEGMENT_S);
    if ((cpu->tr.attributes & SEGMENT_UNUSABLE) || (type != TSS32 && type != TSS32_BUSY) ||
        cpu->tr.limit < TSS32_LIMIT)
        return general_protection(cpu);
    uint16_t base, bits;
    enum cpu_result result = cpu_read_linear(cpu, cpu->tr.base + TSS_IO_BASE, &base, 2, ACCESS_SYSTEM);
    if (result != CPU_NEXT)
        return result;
    uint32_t offset = base + port / 8u;
    if (offset + 1 > cpu->tr.limit)
        return general_protection(cpu);
    result = cpu_read_linear(cpu, cpu->tr.base + offset, &bits, 2, ACCESS_SYSTEM);
    if (result != CPU_NEXT)
        return result;
    return (bits >> (port & 7)) & ((1u << size) - 1) ? general_protection(cpu) : CPU_NEXT;
}

static enum cpu_result check_port(struct cpu *cpu, uint16_t port, unsigned size) {
    bool is_allowed = !cpu_is_protected(cpu) || (!cpu_is_vm86(cpu) && cpu->cpl <= cpu_iopl(cpu));
    return is_allowed ? CPU_NEXT : check_bitmap(cpu, port, size);
}

/* Ports are at most 32 bits wide: REX.W changes nothing. */
static unsigned port_size(const struct cpu_op *op) {
    return op->size > 4 ? 4 : op->size;
}

/* E4..E7 have the port in the instruction, EC..EF in DX. */
static uint16_t port_of(const struct cpu *cpu, const struct cpu_op *op) {
    return op->opcode & 8 ? (uint16_t)cpu->hot.gpr[CPU_RDX] : (uint8_t)op->immediate;
}

enum cpu_result cpu_op_in(struct cpu *cpu, const struct cpu_op *op) {
    uint16_t port = port_of(cpu, op);
    unsigned size = port_size(op);
    enum cpu_result result = check_port(cpu, port, size);
    if (result == CPU_NEXT)
        cpu_set_gpr(cpu, CPU_RAX, size, false, cpu_port_read(cpu, port, size));
    return result;
}

enum cpu_result cpu_op_out(struct cpu *cpu, const struct cpu_op *op) {
    uint16_t port = port_of(cpu, op);
    unsigned size = port_size(op);
    enum cpu_result result = check_port(cpu, port, size);
    if (result == CPU_NEXT)
        cpu_port_write(cpu, port, size, cpu_get_gpr(cpu, CPU_RAX, size, false));
    return result;
}

/* The store is checked before the port is read: a read may not be repeated. */
static enum cpu_result ins_element(const struct string *string, uint16_t port) {
    struct cpu *cpu = string->cpu;
    uint64_t linear, offset = string_index(string, CPU_RDI);
    enum cpu_result result = cpu_linear(cpu, CPU_ES, offset, string->size, ACCESS_WRITE, &linear);
    if (result == CPU_NEXT)
        result = cpu_probe_linear(cpu, linear, string->size, ACCESS_WRITE);
    if (result == CPU_NEXT)
        result = cpu_check_alignment(cpu, linear, string->size, ACCESS_WRITE);
    if (result != CPU_NEXT)
        return result;
    uint64_t value = cpu_port_read(cpu, port, string->size);
    result = cpu_write_linear(cpu, linear, &value, string->size, ACCESS_WRITE);
    if (result == CPU_NEXT)
        string_advance(string, CPU_RDI, 1);
    return result;
}

static enum cpu_result outs_element(const struct string *string, uint16_t port) {
    struct cpu *cpu = string->cpu;
    uint64_t value;
    enum cpu_result result =
        cpu_read_integer(cpu, string->op->segment, string_index(string, CPU_RSI), string->size, &value);
    if (result != CPU_NEXT)
        return result;
    cpu_port_write(cpu, port, string->size, value);
    string_advance(string, CPU_RSI, 1);
    return CPU_NEXT;
}

static enum cpu_result repeat(struct cpu *cpu, const struct cpu_op *op,
                              enum cpu_result (*run)(const struct string *string, uint16_t port)) {
    struct string string;
    string_begin(&string, cpu, op, port_size(op));
    uint16_t port = (uint16_t)cpu->hot.gpr[CPU_RDX];
    enum cpu_result result = check_port(cpu, port, string.size); /* also where the count is 0 */
    while (result == CPU_NEXT && string.count) {
        result = run(&string, port);
        if (result != CPU_NEXT)
            break;
        string_count(&string, 1);
        if (string_gives_way(&string))
            return string_pause(&string);
    }
    return result;
}

enum cpu_result cpu_op_ins(struct cpu *cpu, const struct cpu_op *op) {
    return repeat(cpu, op, ins_element);
}

enum cpu_result cpu_op_outs(struct cpu *cpu, const struct cpu_op *op) {
    return repeat(cpu, op, outs_element);
}
