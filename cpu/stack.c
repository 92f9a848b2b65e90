/*
 * Stack frames of interrupts, far calls and returns (SDM vol. 1, 6.2): limit and canonical checks, 16-, 32- and 64-bit
 * pointers, frames that wrap around the end of their segment.
 */
#include "cpu/stack.h"
#include "cpu/access.h"
#include "cpu/descriptor.h"

void stack_of_segment(const struct trapeze_segment *segment, uint64_t pointer, bool is_supervisor,
                      struct stack *stack) {
    *stack = (struct stack){
        .base = segment->base,
        .pointer = pointer,
        .mask = segment->attributes & SEGMENT_DB ? 0xffffffff : 0xffff,
        .limit = segment->limit,
        .attributes = segment->attributes,
        .access = is_supervisor ? ACCESS_SYSTEM : 0,
    };
}

void stack_of_pointer(uint64_t pointer, bool is_supervisor, struct stack *stack) {
    *stack = (struct stack){.pointer = pointer, .mask = ~0ull, .access = is_supervisor ? ACCESS_SYSTEM : 0};
}

void stack_current(const struct cpu *cpu, struct stack *stack) {
    if (cpu_is_64bit(cpu))
        stack_of_pointer(cpu_rsp(cpu), false, stack);
    else
        stack_of_segment(&cpu->segment[CPU_SS], cpu_rsp(cpu), false, stack);
}

void stack_release(struct stack *stack, unsigned bytes) {
    stack->pointer = (stack->pointer & ~stack->mask) | ((stack->pointer + bytes) & stack->mask);
}

static bool is_within_limit(const struct stack *stack, uint64_t offset, unsigned size) {
    const uint64_t last = offset + size - 1;

    if (stack->attributes & SEGMENT_UNUSABLE)
        return false;
    if ((stack->attributes & (SEGMENT_CODE | SEGMENT_EXPAND_DOWN)) == SEGMENT_EXPAND_DOWN)
        return offset > stack->limit && last <= stack->mask;
    return last <= stack->limit;
}

/* The linear address of `size` bytes at an offset in the stack segment. */
static enum cpu_result locate(struct cpu *cpu, const struct stack *stack, uint64_t offset, unsigned size,
                              uint64_t *linear) {
    if (stack->mask == ~0ull) {
        *linear = offset;
        if (cpu_is_canonical(offset) && cpu_is_canonical(offset + size - 1))
            return CPU_NEXT;
    } else {
        *linear = (uint32_t)(stack->base + offset);
        if (is_within_limit(stack, offset, size))
            return CPU_NEXT;
    }
    return cpu_fault_code(cpu, VECTOR_SS, stack->error_code);
}

/* Of a program's own stack; a frame's first value tells for all. */
static enum cpu_result check_alignment(struct cpu *cpu, const struct stack *stack, uint64_t linear, unsigned size) {
    return stack->access ? CPU_NEXT : cpu_check_alignment(cpu, linear, size, ACCESS_WRITE);
}

/* Whether a frame from offset on does not wrap around the end of the segment. */
static bool is_contiguous(const struct stack *stack, uint64_t offset, unsigned bytes) {
    return stack->mask == ~0ull || offset + bytes - 1 <= stack->mask;
}

static void store(uint8_t *to, uint64_t value, unsigned size) {
    if (size == 8)
        *(uint64_t *)to = value;
    else if (size == 4)
        *(uint32_t *)to = (uint32_t)value;
    else
        *(uint16_t *)to = (uint16_t)value;
}

static uint64_t load(const uint8_t *from, unsigned size) {
    if (size == 8)
        return *(const uint64_t *)from;
    return size == 4 ? *(const uint32_t *)from : *(const uint16_t *)from;
}

/* A frame that wraps: each value has a place of its own, all of them checked before the first is written. */
static enum cpu_result push_wrapping(struct cpu *cpu, const struct stack *stack, const uint64_t *values, unsigned count,
                                     unsigned size) {
    for (unsigned is_write = 0; is_write < 2; is_write++) {
        uint64_t offset = stack->pointer;

        for (unsigned i = 0; i < count; i++) {
            uint64_t linear;
            enum cpu_result result;

            offset = (offset - size) & stack->mask;
            if (locate(cpu, stack, offset, size, &linear) != CPU_NEXT)
                return CPU_FAULT;
            if (is_write)
                result = cpu_write_linear(cpu, linear, &values[i], size, ACCESS_WRITE | stack->access);
            else
                result = cpu_probe_linear(cpu, linear, size, ACCESS_WRITE | stack->access);
            if (result != CPU_NEXT)
                return result;
        }
    }
    return CPU_NEXT;
}

/* The fault of a frame is that of the push that meets it first, from the top down. */
static enum cpu_result first_fault(struct cpu *cpu, const struct stack *stack, uint64_t linear, unsigned count,
                                   unsigned size) {
    enum cpu_result result = CPU_NEXT;
    for (unsigned i = count; i-- > 0 && result == CPU_NEXT;)
        result = cpu_probe_linear(cpu, linear + i * size, size, ACCESS_WRITE | stack->access);
    return CPU_FAULT;
}

enum cpu_result stack_check_room(struct cpu *cpu, const struct stack *stack, unsigned count, unsigned size) {
    const unsigned bytes = count * size;
    uint64_t offset = (stack->pointer - bytes) & stack->mask, linear;

    if (is_contiguous(stack, offset, bytes))
        return locate(cpu, stack, offset, bytes, &linear);
    offset = stack->pointer;
    for (unsigned i = 0; i < count; i++) {
        offset = (offset - size) & stack->mask;
        if (locate(cpu, stack, offset, size, &linear) != CPU_NEXT)
            return CPU_FAULT;
    }
    return CPU_NEXT;
}

enum cpu_result stack_push(struct cpu *cpu, struct stack *stack, const uint64_t *values, unsigned count,
                           unsigned size) {
    const unsigned bytes = count * size;
    const uint64_t offset = (stack->pointer - bytes) & stack->mask;
    _Alignas(8) uint8_t frame[STACK_MAX_BYTES];
    uint64_t linear;

    if (is_contiguous(stack, offset, bytes)) {
        for (unsigned i = 0; i < count; i++)
            store(frame + bytes - (i + 1) * size, values[i], size);
        if (locate(cpu, stack, offset, bytes, &linear) != CPU_NEXT ||
            check_alignment(cpu, stack, linear, size) != CPU_NEXT)
            return CPU_FAULT;
        if (cpu_write_linear(cpu, linear, frame, bytes, ACCESS_WRITE | stack->access) != CPU_NEXT)
            return first_fault(cpu, stack, linear, count, size);
    } else if (push_wrapping(cpu, stack, values, count, size) != CPU_NEXT) {
        return CPU_FAULT;
    }
    stack->pointer = (stack->pointer & ~stack->mask) | offset;
    return CPU_NEXT;
}

static enum cpu_result peek_wrapping(struct cpu *cpu, const struct stack *stack, uint64_t offset, uint64_t *values,
                                     unsigned count, unsigned size) {
    for (unsigned i = 0; i < count; i++) {
        uint64_t linear;

        values[i] = 0;
        if (locate(cpu, stack, offset, size, &linear) != CPU_NEXT ||
            cpu_read_linear(cpu, linear, &values[i], size, ACCESS_READ | stack->access) != CPU_NEXT)
            return CPU_FAULT;
        offset = (offset + size) & stack->mask;
    }
    return CPU_NEXT;
}

enum cpu_result stack_peek(struct cpu *cpu, const struct stack *stack, unsigned skip, uint64_t *values, unsigned count,
                           unsigned size) {
    const unsigned bytes = count * size;
    const uint64_t offset = (stack->pointer + skip) & stack->mask;
    _Alignas(8) uint8_t frame[STACK_MAX_BYTES];
    uint64_t linear;

    if (!is_contiguous(stack, offset, bytes))
        return peek_wrapping(cpu, stack, offset, values, count, size);
    if (locate(cpu, stack, offset, bytes, &linear) != CPU_NEXT ||
        cpu_read_linear(cpu, linear, frame, bytes, ACCESS_READ | stack->access) != CPU_NEXT)
        return CPU_FAULT;
    for (unsigned i = 0; i < count; i++)
        values[i] = load(frame + i * size, size);
    return CPU_NEXT;
}
