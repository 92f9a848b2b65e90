/*
 * Far CALL, JMP and RET (SDM vol. 2): code segments, call gates of 16, 32 and 64 bits with their inner stacks, task
 * gates and TSS.
 */
#include "cpu/access.h"
#include "cpu/interrupt.h"
#include "cpu/mode.h"
#include "cpu/ops.h"
#include "cpu/segment.h"
#include "cpu/stack.h"
#include "cpu/task.h"

enum { OPCODE_GROUP5 = 0xff };

/* One far CALL or JMP. */
struct far_transfer {
    uint16_t selector;
    uint64_t offset;
    unsigned size; /* operand size: of the offset and of what a call pushes */
    bool is_call;
    uint64_t return_rip;
};

static enum cpu_result read_target(struct cpu *cpu, const struct cpu_op *op, bool is_call,
                                   struct far_transfer *transfer) {
    uint8_t pointer[10];

    *transfer = (struct far_transfer){
        .selector = op->immediate2,
        .size = op->size,
        .is_call = is_call,
        .return_rip = segment_next_rip(cpu, op->length),
    };
    if (op->opcode == OPCODE_GROUP5) {
        if (op->rm != CPU_NO_REGISTER)
            return cpu_fault(cpu, VECTOR_UD);
        if (cpu_read(cpu, op->segment, cpu_op_offset(cpu, op), pointer, op->size + 2u) != CPU_NEXT)
            return CPU_FAULT;
        cpu_copy(&transfer->offset, pointer, op->size);
        cpu_copy(&transfer->selector, pointer + op->size, 2);
    } else {
        transfer->offset = op->size == 2 ? op->immediate & 0xffff : (uint32_t)op->immediate;
    }
    return CPU_NEXT;
}

/* ---- Real and virtual-8086 mode ---- */

static enum cpu_result transfer_real(struct cpu *cpu, const struct far_transfer *transfer) {
    const uint64_t frame[2] = {cpu->segment[CPU_CS].selector, transfer->return_rip};
    const uint32_t limit = cpu_is_vm86(cpu) ? 0xffff : cpu->segment[CPU_CS].limit;
    struct stack stack;

    stack_current(cpu, &stack);
    if (transfer->is_call && stack_check_room(cpu, &stack, 2, transfer->size) != CPU_NEXT)
        return CPU_FAULT;
    if (transfer->offset > limit)
        return cpu_fault_code(cpu, VECTOR_GP, 0);
    if (transfer->is_call && stack_push(cpu, &stack, frame, 2, transfer->size) != CPU_NEXT)
        return CPU_FAULT;
    cpu_rsp(cpu) = stack.pointer;
    segment_set_real_code(cpu, transfer->selector);
    cpu->hot.rip = transfer->offset;
    cpu_level_changed(cpu);
    return CPU_JUMP;
}

/* ---- Code segments ---- */

/* Loads CS at the same level. Mostly it is another selector, or the same, of a segment with all the same properties. */
static void set_code_at_level(struct cpu *cpu, const struct descriptor *code, uint16_t selector) {
    const struct trapeze_segment old = cpu->segment[CPU_CS], *new = &cpu->segment[CPU_CS];

    segment_set_code(cpu, code, selector, cpu->cpl);
    if (new->base != old.base || new->limit != old.limit || new->attributes != old.attributes)
        cpu_level_changed(cpu);
}

/* Enters a code segment at the current level, after a call's push. */
static enum cpu_result enter_same_level(struct cpu *cpu, const struct far_transfer *transfer, struct descriptor *code,
                                        uint16_t selector, uint64_t rip) {
    const uint64_t frame[2] = {cpu->segment[CPU_CS].selector, transfer->return_rip};
    struct stack stack;

    stack_current(cpu, &stack);
    if (transfer->is_call && stack_check_room(cpu, &stack, 2, transfer->size) != CPU_NEXT)
        return CPU_FAULT;
    if (descriptor_check_rip(cpu, code, rip) != CPU_NEXT || descriptor_mark_accessed(cpu, code) != CPU_NEXT)
        return CPU_FAULT;
    if (transfer->is_call) {
        if (stack_push(cpu, &stack, frame, 2, transfer->size) != CPU_NEXT)
            return CPU_FAULT;
        cpu_rsp(cpu) = stack.pointer;
    }
    set_code_at_level(cpu, code, selector);
    cpu->hot.rip = rip;
    return CPU_JUMP;
}

static enum cpu_result transfer_code(struct cpu *cpu, const struct far_transfer *transfer, struct descriptor *code) {
    const unsigned dpl = descriptor_dpl(code), rpl = transfer->selector & 3;
    const uint32_t error = selector_error(transfer->selector);

    if (cpu_is_long_mode(cpu) && descriptor_is_long_code(code) && descriptor_is_big(code))
        return cpu_fault_code(cpu, VECTOR_GP, error);
    if (descriptor_is_conforming(code) ? dpl > cpu->cpl : rpl > cpu->cpl || dpl != cpu->cpl)
        return cpu_fault_code(cpu, VECTOR_GP, error);
    if (!descriptor_is_present(code))
        return cpu_fault_code(cpu, VECTOR_NP, error);
    return enter_same_level(cpu, transfer, code, transfer->selector, transfer->offset);
}

/* ---- Call gates ---- */

struct call_gate {
    uint16_t selector;
    uint64_t rip;
    unsigned size;       /* of a push: 2, 4, 8 */
    unsigned parameters; /* copied to an inner stack */
    struct descriptor code;
};

static enum cpu_result read_gate(struct cpu *cpu, const struct far_transfer *transfer, const struct descriptor *d,
                                 struct call_gate *gate) {
    const uint32_t error = selector_error(transfer->selector);
    uint64_t upper = 0;

    if (descriptor_dpl(d) < cpu->cpl || descriptor_dpl(d) < (transfer->selector & 3u))
        return cpu_fault_code(cpu, VECTOR_GP, error);
    if (cpu_is_long_mode(cpu) && descriptor_fetch_upper(cpu, transfer->selector, VECTOR_GP, d, &upper) != CPU_NEXT)
        return CPU_FAULT;
    if (!descriptor_is_present(d))
        return cpu_fault_code(cpu, VECTOR_NP, error);

    gate->selector = descriptor_gate_selector(d);
    gate->parameters = (unsigned)(d->raw >> 32) & 0x1f;
    gate->rip = descriptor_gate_offset(d);
    gate->size = 4;
    if (cpu_is_long_mode(cpu)) {
        gate->rip |= upper << 32;
        gate->size = 8;
        gate->parameters = 0;
    } else if (descriptor_type(d) == DESCRIPTOR_CALL_GATE16) {
        gate->rip &= 0xffff;
        gate->size = 2;
    }
    return CPU_NEXT;
}

static enum cpu_result read_gate_code(struct cpu *cpu, bool is_call, struct call_gate *gate) {
    struct descriptor *code = &gate->code;
    const uint32_t error = selector_error(gate->selector);

    if (selector_is_null(gate->selector))
        return cpu_fault_code(cpu, VECTOR_GP, 0);
    if (descriptor_fetch(cpu, gate->selector, VECTOR_GP, code) != CPU_NEXT)
        return CPU_FAULT;
    if (!descriptor_is_code(code) || descriptor_dpl(code) > cpu->cpl)
        return cpu_fault_code(cpu, VECTOR_GP, error);
    /* A jump does not change the level. */
    if (!is_call && !descriptor_is_conforming(code) && descriptor_dpl(code) != cpu->cpl)
        return cpu_fault_code(cpu, VECTOR_GP, error);
    if (cpu_is_long_mode(cpu) && (!descriptor_is_long_code(code) || descriptor_is_big(code)))
        return cpu_fault_code(cpu, VECTOR_GP, error);
    if (!descriptor_is_present(code))
        return cpu_fault_code(cpu, VECTOR_NP, error);
    return CPU_NEXT;
}

/* The stack of the inner level and the SS that goes with it. */
static enum cpu_result inner_stack(struct cpu *cpu, unsigned level, struct stack *stack, struct trapeze_segment *ss) {
    uint64_t pointer;

    if (cpu_is_long_mode(cpu)) {
        if (gate_long_stack(cpu, level, &pointer) != CPU_NEXT)
            return CPU_FAULT;
        *ss = segment_null((uint16_t)level);
        stack_of_pointer(pointer, true, stack);
        return CPU_NEXT;
    }
    if (gate_inner_stack(cpu, level, ss, &pointer) != CPU_NEXT)
        return CPU_FAULT;
    stack_of_segment(ss, pointer, true, stack);
    stack->error_code = (uint16_t)selector_error(ss->selector);
    return CPU_NEXT;
}

static enum cpu_result call_inner(struct cpu *cpu, const struct far_transfer *transfer, struct call_gate *gate) {
    const unsigned level = descriptor_dpl(&gate->code);
    uint64_t frame[4 + 31], parameters[31];
    struct trapeze_segment ss;
    struct stack outer, inner;
    unsigned count = 0;

    if (inner_stack(cpu, level, &inner, &ss) != CPU_NEXT)
        return CPU_FAULT;
    stack_current(cpu, &outer);
    if (gate->parameters && stack_peek(cpu, &outer, 0, parameters, gate->parameters, gate->size) != CPU_NEXT)
        return CPU_FAULT;
    frame[count++] = cpu->segment[CPU_SS].selector;
    frame[count++] = cpu_rsp(cpu);
    for (unsigned i = gate->parameters; i > 0; i--)
        frame[count++] = parameters[i - 1];
    frame[count++] = cpu->segment[CPU_CS].selector;
    frame[count++] = transfer->return_rip;
    if (stack_check_room(cpu, &inner, count, gate->size) != CPU_NEXT ||
        descriptor_check_rip(cpu, &gate->code, gate->rip) != CPU_NEXT ||
        descriptor_mark_accessed(cpu, &gate->code) != CPU_NEXT ||
        stack_push(cpu, &inner, frame, count, gate->size) != CPU_NEXT)
        return CPU_FAULT;

    cpu->segment[CPU_SS] = ss;
    cpu_rsp(cpu) = inner.pointer;
    segment_set_code(cpu, &gate->code, gate->selector, level);
    cpu->hot.rip = gate->rip;
    cpu_level_changed(cpu);
    return CPU_JUMP;
}

static enum cpu_result transfer_gate(struct cpu *cpu, const struct far_transfer *transfer, const struct descriptor *d) {
    struct far_transfer through = *transfer;
    struct call_gate gate;

    if (read_gate(cpu, transfer, d, &gate) != CPU_NEXT || read_gate_code(cpu, transfer->is_call, &gate) != CPU_NEXT)
        return CPU_FAULT;
    if (transfer->is_call && !descriptor_is_conforming(&gate.code) && descriptor_dpl(&gate.code) < cpu->cpl)
        return call_inner(cpu, transfer, &gate);
    through.size = gate.size;
    return enter_same_level(cpu, &through, &gate.code, gate.selector, gate.rip);
}

/* ---- Tasks ---- */

static enum cpu_result transfer_task(struct cpu *cpu, const struct far_transfer *transfer, const struct descriptor *d) {
    struct task_switch task = {
        .selector = transfer->selector,
        .cause = transfer->is_call ? TASK_CALL : TASK_JUMP,
        .return_rip = transfer->return_rip,
        .flags = cpu->hot.rflags & ~(uint64_t)FLAG_RF,
    };
    struct descriptor tss;

    if (descriptor_dpl(d) < cpu->cpl || descriptor_dpl(d) < (transfer->selector & 3u))
        return cpu_fault_code(cpu, VECTOR_GP, selector_error(transfer->selector));
    if (descriptor_type(d) == DESCRIPTOR_TASK_GATE) {
        if (!descriptor_is_present(d))
            return cpu_fault_code(cpu, VECTOR_NP, selector_error(transfer->selector));
        task.selector = descriptor_gate_selector(d);
    }
    if (task_find(cpu, task.selector, &tss) != CPU_NEXT)
        return CPU_FAULT;
    return task_switch(cpu, &task, &tss);
}

/* ---- CALL and JMP ---- */

static enum cpu_result transfer_protected(struct cpu *cpu, const struct far_transfer *transfer) {
    const bool is_long = cpu_is_long_mode(cpu);
    struct descriptor d;

    if (selector_is_null(transfer->selector))
        return cpu_fault_code(cpu, VECTOR_GP, 0);
    if (descriptor_fetch(cpu, transfer->selector, VECTOR_GP, &d) != CPU_NEXT)
        return CPU_FAULT;
    if (descriptor_is_code(&d))
        return transfer_code(cpu, transfer, &d);
    switch (descriptor_type(&d)) {
    case DESCRIPTOR_CALL_GATE32:
        return transfer_gate(cpu, transfer, &d);
    case DESCRIPTOR_CALL_GATE16:
        if (!is_long)
            return transfer_gate(cpu, transfer, &d);
        break;
    case DESCRIPTOR_TASK_GATE:
    case DESCRIPTOR_TSS16:
    case DESCRIPTOR_TSS16_BUSY:
    case DESCRIPTOR_TSS32:
    case DESCRIPTOR_TSS32_BUSY:
        if (!is_long)
            return transfer_task(cpu, transfer, &d);
        break;
    default:
        break;
    }
    return cpu_fault_code(cpu, VECTOR_GP, selector_error(transfer->selector));
}

static enum cpu_result run_transfer(struct cpu *cpu, const struct cpu_op *op, bool is_call) {
    struct far_transfer transfer;

    if (read_target(cpu, op, is_call, &transfer) != CPU_NEXT)
        return CPU_FAULT;
    if (!cpu_is_protected(cpu) || cpu_is_vm86(cpu))
        return transfer_real(cpu, &transfer);
    return transfer_protected(cpu, &transfer);
}

enum cpu_result cpu_op_far_call(struct cpu *cpu, const struct cpu_op *op) {
    return run_transfer(cpu, op, true);
}

enum cpu_result cpu_op_far_jmp(struct cpu *cpu, const struct cpu_op *op) {
    return run_transfer(cpu, op, false);
}

/* ---- RET ---- */

static enum cpu_result return_real(struct cpu *cpu, const struct cpu_op *op) {
    struct stack stack;
    uint64_t frame[2];

    stack_current(cpu, &stack);
    if (stack_peek(cpu, &stack, 0, frame, 2, op->size) != CPU_NEXT)
        return CPU_FAULT;
    if (frame[0] > (cpu_is_vm86(cpu) ? 0xffff : cpu->segment[CPU_CS].limit))
        return cpu_fault_code(cpu, VECTOR_GP, 0);
    stack_release(&stack, 2u * op->size + (uint16_t)op->immediate);
    cpu_rsp(cpu) = stack.pointer;
    segment_set_real_code(cpu, (uint16_t)frame[1]);
    cpu->hot.rip = frame[0];
    cpu_level_changed(cpu);
    return CPU_JUMP;
}

/* The stack of an outer level, behind the far pointer and the parameters. */
static enum cpu_result read_outer(struct cpu *cpu, const struct cpu_op *op, const struct stack *stack, unsigned cpl,
                                  const struct descriptor *code, struct stack *outer, struct trapeze_segment *ss) {
    const unsigned parameters = (uint16_t)op->immediate;
    const bool is_64bit = cpu_is_long_mode(cpu) && descriptor_is_long_code(code);
    uint64_t image[2];

    if (stack_peek(cpu, stack, 2u * op->size + parameters, image, 2, op->size) != CPU_NEXT)
        return CPU_FAULT;
    if (descriptor_check_stack(cpu, (uint16_t)image[1], cpl, is_64bit && cpl < 3, VECTOR_GP, ss) != CPU_NEXT)
        return CPU_FAULT;
    if (is_64bit) {
        stack_of_pointer(image[0], false, outer);
    } else {
        stack_of_segment(ss, image[0], false, outer);
        outer->pointer = (cpu_rsp(cpu) & 0xffffffff & ~outer->mask) | (image[0] & outer->mask);
    }
    stack_release(outer, parameters);
    return CPU_NEXT;
}

static enum cpu_result return_protected(struct cpu *cpu, const struct cpu_op *op) {
    struct trapeze_segment ss;
    struct descriptor code;
    struct stack stack, outer;
    uint64_t frame[2];

    stack_current(cpu, &stack);
    if (stack_peek(cpu, &stack, 0, frame, 2, op->size) != CPU_NEXT)
        return CPU_FAULT;

    const uint16_t selector = (uint16_t)frame[1];
    const unsigned cpl = selector & 3;
    const bool is_outer = cpl > cpu->cpl;

    if (descriptor_check_return(cpu, selector, &code) != CPU_NEXT)
        return CPU_FAULT;
    if (is_outer && read_outer(cpu, op, &stack, cpl, &code, &outer, &ss) != CPU_NEXT)
        return CPU_FAULT;
    if (descriptor_check_rip(cpu, &code, frame[0]) != CPU_NEXT || descriptor_mark_accessed(cpu, &code) != CPU_NEXT)
        return CPU_FAULT;

    if (is_outer) {
        cpu->segment[CPU_SS] = ss;
        cpu_rsp(cpu) = outer.pointer;
    } else {
        stack_release(&stack, 2u * op->size + (uint16_t)op->immediate);
        cpu_rsp(cpu) = stack.pointer;
    }
    cpu->hot.rip = frame[0];
    if (!is_outer) {
        set_code_at_level(cpu, &code, selector);
        return CPU_JUMP;
    }
    segment_set_code(cpu, &code, selector, cpl);
    segment_drop_inner(cpu);
    cpu_level_changed(cpu);
    return CPU_JUMP;
}

enum cpu_result cpu_op_far_ret(struct cpu *cpu, const struct cpu_op *op) {
    if (!cpu_is_protected(cpu) || cpu_is_vm86(cpu))
        return return_real(cpu, op);
    return return_protected(cpu, op);
}
