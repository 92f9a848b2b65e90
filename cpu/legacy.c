/*
 * Instructions of 16- and 32-bit code that 64-bit mode dropped, and ENTER: decimal adjustments, BOUND, PUSHA, POPA,
 * SALC (SDM vol. 2). Flags that the manual leaves undefined are those of the result in AL, or clear.
 */
#include "cpu/access.h"
#include "cpu/ops.h"
#include "cpu/stack.h"

static uint8_t get_al(const struct cpu *cpu) {
    return (uint8_t)cpu->hot.gpr[CPU_RAX];
}

static void set_al(struct cpu *cpu, unsigned value) {
    cpu_set_gpr(cpu, CPU_RAX, 1, false, value);
}

static bool has_flag(const struct cpu *cpu, unsigned flag) {
    return (cpu->hot.rflags & flag) != 0;
}

/* SF, ZF and PF of AL, the carries as told. */
static void set_flags(struct cpu *cpu, bool af, bool cf) {
    uint8_t al = get_al(cpu);
    uint64_t flags = (al & FLAG_SF) | (al ? 0 : FLAG_ZF) | (__builtin_parity(al) ? 0 : FLAG_PF) | (af ? FLAG_AF : 0) |
                     (cf ? FLAG_CF : 0);
    cpu->hot.rflags = (cpu->hot.rflags & ~(uint64_t)FLAG_ARITHMETIC) | flags;
}

static bool needs_adjustment(const struct cpu *cpu) {
    return (get_al(cpu) & 15) > 9 || has_flag(cpu, FLAG_AF);
}

/* AAA adds 106h, AAS takes 106h away: the digit in AL and its carry in AH. */
static void adjust_unpacked(struct cpu *cpu, uint16_t correction) {
    bool adjusts = needs_adjustment(cpu);
    if (adjusts)
        cpu_set_gpr(cpu, CPU_RAX, 2, false, cpu->hot.gpr[CPU_RAX] + correction);
    set_al(cpu, get_al(cpu) & 15);
    set_flags(cpu, adjusts, adjusts);
}

enum cpu_result cpu_op_aaa(struct cpu *cpu, const struct cpu_op *op) {
    (void)op;
    adjust_unpacked(cpu, 0x106);
    return CPU_NEXT;
}

enum cpu_result cpu_op_aas(struct cpu *cpu, const struct cpu_op *op) {
    (void)op;
    adjust_unpacked(cpu, (uint16_t)-0x106);
    return CPU_NEXT;
}

enum cpu_result cpu_op_aam(struct cpu *cpu, const struct cpu_op *op) {
    uint8_t base = (uint8_t)op->immediate, al = get_al(cpu);
    if (!base)
        return cpu_fault(cpu, VECTOR_DE);
    cpu_set_gpr(cpu, CPU_RAX, 2, false, (uint64_t)(al / base) << 8 | al % base);
    set_flags(cpu, false, false);
    return CPU_NEXT;
}

enum cpu_result cpu_op_aad(struct cpu *cpu, const struct cpu_op *op) {
    unsigned ah = (unsigned)cpu_get_gpr(cpu, CPU_RAX, 1, true);
    cpu_set_gpr(cpu, CPU_RAX, 2, false, (get_al(cpu) + ah * (uint8_t)op->immediate) & 0xff);
    set_flags(cpu, false, false);
    return CPU_NEXT;
}

enum cpu_result cpu_op_daa(struct cpu *cpu, const struct cpu_op *op) {
    (void)op;
    uint8_t al = get_al(cpu);
    bool low = needs_adjustment(cpu);
    bool high = al > 0x99 || has_flag(cpu, FLAG_CF);
    set_al(cpu, al + (low ? 6u : 0) + (high ? 0x60u : 0));
    set_flags(cpu, low, high);
    return CPU_NEXT;
}

enum cpu_result cpu_op_das(struct cpu *cpu, const struct cpu_op *op) {
    (void)op;
    uint8_t al = get_al(cpu);
    bool low = needs_adjustment(cpu);
    bool high = al > 0x99 || has_flag(cpu, FLAG_CF);
    bool borrows = low && al < 6;
    set_al(cpu, al - (low ? 6u : 0) - (high ? 0x60u : 0));
    set_flags(cpu, low, high || borrows);
    return CPU_NEXT;
}

enum cpu_result cpu_op_salc(struct cpu *cpu, const struct cpu_op *op) {
    (void)op;
    set_al(cpu, has_flag(cpu, FLAG_CF) ? 0xff : 0);
    return CPU_NEXT;
}

static int64_t sign_extend(uint64_t value, unsigned size) {
    unsigned shift = 64 - 8 * size;
    return (int64_t)(value << shift) >> shift;
}

enum cpu_result cpu_op_bound(struct cpu *cpu, const struct cpu_op *op) {
    uint64_t bounds;
    unsigned size = op->size / 2; /* the memory operand is a pair */
    enum cpu_result result = cpu_read_integer(cpu, op->segment, cpu_op_offset(cpu, op), op->size, &bounds);
    if (result != CPU_NEXT)
        return result;
    int64_t index = sign_extend(cpu_get_gpr(cpu, op->reg, size, false), size);
    int64_t low = sign_extend(bounds, size), high = sign_extend(bounds >> (8 * size), size);
    return index < low || index > high ? cpu_fault(cpu, VECTOR_BR) : CPU_NEXT;
}

enum cpu_result cpu_op_pusha(struct cpu *cpu, const struct cpu_op *op) {
    struct stack stack;
    stack_current(cpu, &stack);
    enum cpu_result result = stack_push(cpu, &stack, cpu->hot.gpr, 8, op->size);
    if (result == CPU_NEXT)
        cpu_rsp(cpu) = stack.pointer;
    return result;
}

enum cpu_result cpu_op_popa(struct cpu *cpu, const struct cpu_op *op) {
    struct stack stack;
    uint64_t values[8];
    stack_current(cpu, &stack);
    enum cpu_result result = stack_peek(cpu, &stack, 0, values, 8, op->size);
    if (result != CPU_NEXT)
        return result;
    stack_release(&stack, 8u * op->size);
    cpu_rsp(cpu) = stack.pointer;
    for (unsigned i = 0; i < 8; i++)
        if (i != CPU_RSP)
            cpu_set_gpr(cpu, i, op->size, false, values[7 - i]);
    return CPU_NEXT;
}

/* The frame pointers of the enclosing procedures, copied from their frames, then the new one. */
static enum cpu_result push_display(struct cpu *cpu, const struct cpu_op *op, struct stack *stack, unsigned level,
                                    uint64_t frame) {
    uint64_t from = cpu->hot.gpr[CPU_RBP];
    for (unsigned i = 1; i < level; i++) {
        uint64_t value;
        from -= op->size;
        enum cpu_result result = cpu_read_integer(cpu, CPU_SS, from & stack->mask, op->size, &value);
        if (result == CPU_NEXT)
            result = stack_push(cpu, stack, &value, 1, op->size);
        if (result != CPU_NEXT)
            return result;
    }
    return stack_push(cpu, stack, &frame, 1, op->size);
}

enum cpu_result cpu_op_enter(struct cpu *cpu, const struct cpu_op *op) {
    struct stack stack;
    unsigned level = op->immediate2 & 31;
    stack_current(cpu, &stack);
    enum cpu_result result = stack_push(cpu, &stack, &cpu->hot.gpr[CPU_RBP], 1, op->size);
    uint64_t frame = stack.pointer;
    if (result == CPU_NEXT && level)
        result = push_display(cpu, op, &stack, level, frame);
    if (result != CPU_NEXT)
        return result;
    stack.pointer = (stack.pointer & ~stack.mask) | ((stack.pointer - (uint16_t)op->immediate) & stack.mask);
    /* The processor makes sure that the new top of the stack can be written. */
    uint64_t linear;
    result = cpu_linear(cpu, CPU_SS, stack.pointer & stack.mask, op->size, ACCESS_WRITE, &linear);
    if (result == CPU_NEXT)
        result = cpu_probe_linear(cpu, linear, op->size, ACCESS_WRITE);
    if (result != CPU_NEXT)
        return result;
    cpu_rsp(cpu) = stack.pointer;
    cpu_set_gpr(cpu, CPU_RBP, op->size, false, frame);
    return CPU_NEXT;
}
