/*
 * Instructions that ask what a selector would allow, and answer in ZF (SDM vol. 2, LAR, LSL, VERR, VERW, ARPL).
 */
#include "cpu/access.h"
#include "cpu/ops.h"
#include "cpu/segment.h"

/* System descriptor types that LAR and LSL know, by bit; in long mode 16-bit and task gates have gone. */
enum {
    LAR_TYPES = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 9 | 1 << 11 | 1 << 12,
    LAR_TYPES_LONG = 1 << 2 | 1 << 9 | 1 << 11 | 1 << 12,
    LSL_TYPES = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 9 | 1 << 11,
    LSL_TYPES_LONG = 1 << 2 | 1 << 9 | 1 << 11,
    LAR_RIGHTS = 0x00ffff00, /* with bits 19:16 of the limit, as the host's processor has it */
};

static void set_zf(struct cpu *cpu, bool value) {
    cpu->hot.rflags = (cpu->hot.rflags & ~(uint64_t)FLAG_ZF) | (value ? FLAG_ZF : 0);
}

/* The selector operand and, where it is in its table, the descriptor; else *is_found is false. */
static enum cpu_result read_operand(struct cpu *cpu, const struct cpu_op *op, uint16_t *selector,
                                    struct descriptor *d, bool *is_found) {
    uint64_t value;

    *is_found = false;
    if (!cpu_is_protected(cpu) || cpu_is_vm86(cpu))
        return cpu_fault(cpu, VECTOR_UD);
    if (cpu_op_read_rm(cpu, op, 2, &value) != CPU_NEXT)
        return CPU_FAULT;
    *selector = (uint16_t)value;
    if (selector_is_null(*selector) || !descriptor_locate(cpu, *selector, 8, &d->address))
        return CPU_NEXT;
    *is_found = true;
    return cpu_read_linear(cpu, d->address, &d->raw, 8, ACCESS_READ | ACCESS_SYSTEM);
}

/* Privilege, which conforming code segments do not ask for. */
static bool is_reachable(const struct cpu *cpu, uint16_t selector, const struct descriptor *d) {
    if (descriptor_is_code(d) && descriptor_is_conforming(d))
        return true;
    return descriptor_dpl(d) >= cpu->cpl && descriptor_dpl(d) >= (selector & 3u);
}

static bool is_known(const struct descriptor *d, unsigned system_types) {
    const unsigned type = descriptor_type(d);

    return (type & SEGMENT_S) || (system_types >> type & 1);
}

enum cpu_result cpu_op_lar(struct cpu *cpu, const struct cpu_op *op) {
    struct descriptor d;
    uint16_t selector;
    bool is_found;

    if (read_operand(cpu, op, &selector, &d, &is_found) != CPU_NEXT)
        return CPU_FAULT;
    is_found = is_found && is_known(&d, cpu_is_long_mode(cpu) ? LAR_TYPES_LONG : LAR_TYPES) &&
               is_reachable(cpu, selector, &d);
    if (is_found)
        cpu_set_gpr(cpu, op->reg, op->size, false, d.raw >> 32 & LAR_RIGHTS);
    set_zf(cpu, is_found);
    return CPU_NEXT;
}

enum cpu_result cpu_op_lsl(struct cpu *cpu, const struct cpu_op *op) {
    struct descriptor d;
    uint16_t selector;
    bool is_found;

    if (read_operand(cpu, op, &selector, &d, &is_found) != CPU_NEXT)
        return CPU_FAULT;
    is_found = is_found && is_known(&d, cpu_is_long_mode(cpu) ? LSL_TYPES_LONG : LSL_TYPES) &&
               is_reachable(cpu, selector, &d);
    if (is_found)
        cpu_set_gpr(cpu, op->reg, op->size, false, descriptor_limit(&d));
    set_zf(cpu, is_found);
    return CPU_NEXT;
}

enum cpu_result cpu_op_verr(struct cpu *cpu, const struct cpu_op *op) {
    struct descriptor d;
    uint16_t selector;
    bool is_found;

    if (read_operand(cpu, op, &selector, &d, &is_found) != CPU_NEXT)
        return CPU_FAULT;
    set_zf(cpu, is_found && (descriptor_type(&d) & SEGMENT_S) &&
                    (!descriptor_is_code(&d) || (descriptor_type(&d) & SEGMENT_READABLE)) &&
                    is_reachable(cpu, selector, &d));
    return CPU_NEXT;
}

enum cpu_result cpu_op_verw(struct cpu *cpu, const struct cpu_op *op) {
    struct descriptor d;
    uint16_t selector;
    bool is_found;

    if (read_operand(cpu, op, &selector, &d, &is_found) != CPU_NEXT)
        return CPU_FAULT;
    set_zf(cpu, is_found && descriptor_is_writable_data(&d) && is_reachable(cpu, selector, &d));
    return CPU_NEXT;
}

enum cpu_result cpu_op_arpl(struct cpu *cpu, const struct cpu_op *op) {
    const unsigned rpl = cpu->hot.gpr[op->reg] & 3;
    uint64_t selector;

    if (!cpu_is_protected(cpu) || cpu_is_vm86(cpu))
        return cpu_fault(cpu, VECTOR_UD);
    if (cpu_op_read_rm(cpu, op, 2, &selector) != CPU_NEXT)
        return CPU_FAULT;

    const bool is_raised = (selector & 3) < rpl;

    if (is_raised && cpu_op_write_rm(cpu, op, 2, (selector & ~3ull) | rpl) != CPU_NEXT)
        return CPU_FAULT;
    set_zf(cpu, is_raised);
    return CPU_NEXT;
}
