/*
 * Operands of the instructions that C functions run: general registers in their byte, word, doubleword and quadword
 * views, and the ModRM memory operand (SDM vol. 1, 3.7.5).
 */
#include "cpu/op.h"
#include "cpu/access.h"

static uint64_t truncate_to(uint64_t value, unsigned size) {
    return size >= 8 ? value : value & ((1ull << (size * 8)) - 1);
}

uint64_t cpu_op_offset(const struct cpu *cpu, const struct cpu_op *op) {
    uint64_t offset = (uint64_t)op->displacement;

    if (op->rip_relative)
        offset += cpu->hot.rip + op->length;
    if (op->base != CPU_NO_REGISTER)
        offset += cpu->hot.gpr[op->base];
    /* A vector index differs from element to element: gathers and scatters add it themselves. */
    if (op->index != CPU_NO_REGISTER && !op->index_is_vector)
        offset += cpu->hot.gpr[op->index] * op->scale;
    return truncate_to(offset, op->address_size);
}

uint64_t cpu_get_gpr(const struct cpu *cpu, unsigned index, unsigned size, bool high) {
    return truncate_to(cpu->hot.gpr[index] >> (high ? 8 : 0), size);
}

void cpu_set_gpr(struct cpu *cpu, unsigned index, unsigned size, bool high, uint64_t value) {
    uint64_t *gpr = &cpu->hot.gpr[index];

    if (size == 8) {
        *gpr = value;
    } else if (size == 4) {
        *gpr = (uint32_t)value;
    } else if (size == 2) {
        *gpr = (*gpr & ~0xffffull) | (value & 0xffff);
    } else {
        const unsigned shift = high ? 8 : 0;

        *gpr = (*gpr & ~(0xffull << shift)) | (value & 0xff) << shift;
    }
}

enum cpu_result cpu_op_read_rm(struct cpu *cpu, const struct cpu_op *op, unsigned size, uint64_t *value) {
    if (op->rm == CPU_NO_REGISTER)
        return cpu_read_integer(cpu, op->segment, cpu_op_offset(cpu, op), size, value);
    *value = cpu_get_gpr(cpu, op->rm, size, (op->high_byte & 2) != 0);
    return CPU_NEXT;
}

enum cpu_result cpu_op_write_rm(struct cpu *cpu, const struct cpu_op *op, unsigned size, uint64_t value) {
    if (op->rm == CPU_NO_REGISTER)
        return cpu_write_integer(cpu, op->segment, cpu_op_offset(cpu, op), size, value);
    cpu_set_gpr(cpu, op->rm, size, (op->high_byte & 2) != 0, value);
    return CPU_NEXT;
}
