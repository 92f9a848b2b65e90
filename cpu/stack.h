/*
 * Frames on the guest's stack: the current one, or one that a transfer to another privilege level is about to use. A
 * frame is checked as a whole before any of it is written, and the caller commits the pointer last.
 */
#ifndef CPU_STACK_H
#define CPU_STACK_H

#include "cpu/cpu.h"

#define STACK_MAX_BYTES 160 /* of one frame: the parameters of a call gate and both far pointers */

struct stack {
    uint64_t base;
    uint64_t pointer; /* the whole register */
    uint64_t mask;    /* FFFFh, FFFFFFFFh, or all ones: 64-bit, without base and limit */
    uint32_t limit, attributes;
    uint16_t error_code; /* of #SS */
    uint8_t access;      /* 0, or ACCESS_SYSTEM for an inner level's */
};

/* The stack that SS:RSP names. */
void stack_current(const struct cpu *cpu, struct stack *stack);
/* A stack of another segment; is_supervisor: of a level below 3. */
void stack_of_segment(const struct trapeze_segment *segment, uint64_t pointer, bool is_supervisor, struct stack *stack);
/* A 64-bit stack. */
void stack_of_pointer(uint64_t pointer, bool is_supervisor, struct stack *stack);

/* Whether a frame would fit the segment: the limit, or canonical addresses, of what stack_push writes. #SS. */
enum cpu_result stack_check_room(struct cpu *cpu, const struct stack *stack, unsigned count, unsigned size);
/*
 * Pushes count values of size bytes, values[0] first, and lowers stack->pointer. #SS with stack->error_code, or #PF:
 * nothing was written then. At most STACK_MAX_BYTES.
 */
enum cpu_result stack_push(struct cpu *cpu, struct stack *stack, const uint64_t *values, unsigned count, unsigned size);
/* Reads count values from `skip` bytes above the pointer, lowest address first. */
enum cpu_result stack_peek(struct cpu *cpu, const struct stack *stack, unsigned skip, uint64_t *values, unsigned count,
                           unsigned size);
/* Raises the pointer. */
void stack_release(struct stack *stack, unsigned bytes);

#endif
