/*
 * Interrupt, trap and task gates of the IDT (SDM vol. 3A, 6.10 to 6.14; vol. 2, INT n): checks in the manual's order,
 * inner stacks from the TSS, the interrupt stack table, frames from virtual-8086 mode. Registers change when the frame
 * is in memory and nothing can fail any more.
 */
#include "cpu/access.h"
#include "cpu/descriptor.h"
#include "cpu/interrupt.h"
#include "cpu/mode.h"
#include "cpu/segment.h"
#include "cpu/stack.h"
#include "cpu/task.h"

/* The gate, the code segment it names and the level that its handler runs at. */
struct target {
    struct descriptor gate, code;
    uint16_t selector;
    uint64_t rip;
    unsigned cpl;
    bool clears_if;
    unsigned size; /* of a push */
};

/* Selector error codes with the IDT bit (SDM vol. 3A, 6.13). */
static uint32_t idt_error(unsigned vector) {
    return vector << 3 | 2;
}

static enum cpu_result read_gate(struct cpu *cpu, const struct interrupt_event *event, unsigned size, uint64_t *gate) {
    const unsigned offset = event->vector * size;

    if (offset + size - 1 > cpu->idtr.limit)
        return cpu_fault_code(cpu, VECTOR_GP, idt_error(event->vector));

    const uint64_t address = cpu->idtr.base + offset;

    return cpu_read_linear(cpu, cpu_is_long_mode(cpu) ? address : (uint32_t)address, gate, size,
                           ACCESS_READ | ACCESS_SYSTEM);
}

/* What every gate is checked for once its type is known. */
static enum cpu_result check_gate(struct cpu *cpu, const struct interrupt_event *event, const struct descriptor *gate) {
    if (event->is_software && descriptor_dpl(gate) < cpu->cpl)
        return cpu_fault_code(cpu, VECTOR_GP, idt_error(event->vector));
    if (!descriptor_is_present(gate))
        return cpu_fault_code(cpu, VECTOR_NP, idt_error(event->vector));
    return CPU_NEXT;
}

/* The code segment of an interrupt or trap gate, and the handler's privilege level. */
static enum cpu_result read_code(struct cpu *cpu, struct target *target) {
    struct descriptor *code = &target->code;

    target->selector = descriptor_gate_selector(&target->gate);
    if (selector_is_null(target->selector))
        return cpu_fault_code(cpu, VECTOR_GP, 0);
    if (descriptor_fetch(cpu, target->selector, VECTOR_GP, code) != CPU_NEXT)
        return CPU_FAULT;
    if (!descriptor_is_code(code) || descriptor_dpl(code) > cpu->cpl)
        return cpu_fault_code(cpu, VECTOR_GP, selector_error(target->selector));
    if (!descriptor_is_present(code))
        return cpu_fault_code(cpu, VECTOR_NP, selector_error(target->selector));
    target->cpl = descriptor_is_conforming(code) ? cpu->cpl : descriptor_dpl(code);
    return CPU_NEXT;
}

/* Jumps to the handler; the frame has been written and stack_pointer is below it. */
static void enter(struct cpu *cpu, const struct target *target, uint64_t stack_pointer) {
    segment_set_code(cpu, &target->code, target->selector, target->cpl);
    cpu_rsp(cpu) = stack_pointer;
    cpu->hot.rip = target->rip;
    cpu->hot.rflags &= ~(INTERRUPT_CLEARED_FLAGS | (target->clears_if ? FLAG_IF : 0));
    cpu->interrupt_shadow = false;
    cpu_level_changed(cpu);
}

/* ---- Inner stacks ---- */

enum cpu_result gate_inner_stack(struct cpu *cpu, unsigned level, struct trapeze_segment *segment, uint64_t *pointer) {
    const bool is_32bit = (cpu->tr.attributes & DESCRIPTOR_IS_32BIT) != 0;
    const unsigned size = is_32bit ? 4 : 2;
    const unsigned offset = is_32bit ? level * 8 + 4 : level * 4 + 2;
    uint8_t fields[6];
    uint32_t esp = 0;
    uint16_t ss;

    if (offset + size + 1 > cpu->tr.limit)
        return cpu_fault_code(cpu, VECTOR_TS, selector_error(cpu->tr.selector));
    if (cpu_read_linear(cpu, (uint32_t)(cpu->tr.base + offset), fields, size + 2, ACCESS_READ | ACCESS_SYSTEM) !=
        CPU_NEXT)
        return CPU_FAULT;
    cpu_copy(&esp, fields, size);
    cpu_copy(&ss, fields + size, 2);
    *pointer = esp;
    return descriptor_check_stack(cpu, ss, level, false, VECTOR_TS, segment);
}

enum cpu_result gate_long_stack(struct cpu *cpu, unsigned index, uint64_t *pointer) {
    const unsigned offset = index * 8 + 4;

    if (offset + 7 > cpu->tr.limit)
        return cpu_fault_code(cpu, VECTOR_TS, selector_error(cpu->tr.selector));
    return cpu_read_linear(cpu, cpu->tr.base + offset, pointer, 8, ACCESS_READ | ACCESS_SYSTEM);
}

/* ---- Long mode ---- */

static enum cpu_result read_long_target(struct cpu *cpu, const struct interrupt_event *event, struct target *target,
                                        unsigned *ist) {
    uint64_t raw[2];

    if (read_gate(cpu, event, 16, raw) != CPU_NEXT)
        return CPU_FAULT;
    target->gate.raw = raw[0];

    const unsigned type = descriptor_type(&target->gate);

    if (type != DESCRIPTOR_INTERRUPT_GATE32 && type != DESCRIPTOR_TRAP_GATE32)
        return cpu_fault_code(cpu, VECTOR_GP, idt_error(event->vector));
    if (check_gate(cpu, event, &target->gate) != CPU_NEXT || read_code(cpu, target) != CPU_NEXT)
        return CPU_FAULT;
    if (!descriptor_is_long_code(&target->code) || descriptor_is_big(&target->code))
        return cpu_fault_code(cpu, VECTOR_GP, selector_error(target->selector));
    target->rip = descriptor_gate_offset(&target->gate) | raw[1] << 32;
    target->clears_if = type == DESCRIPTOR_INTERRUPT_GATE32;
    *ist = (unsigned)(raw[0] >> 32) & 7;
    return CPU_NEXT;
}

static enum cpu_result deliver_long(struct cpu *cpu, const struct interrupt_event *event) {
    struct target target;
    uint64_t frame[6], pointer = cpu_rsp(cpu);
    unsigned ist = 0, first = 1;
    enum cpu_result result = CPU_NEXT;

    if (read_long_target(cpu, event, &target, &ist) != CPU_NEXT)
        return CPU_FAULT;

    const bool is_inner = target.cpl < cpu->cpl;

    if (ist)
        result = gate_long_stack(cpu, GATE_IST + ist, &pointer);
    else if (is_inner)
        result = gate_long_stack(cpu, target.cpl, &pointer);
    if (result != CPU_NEXT)
        return result;
    pointer &= ~0xfull;

    frame[1] = event->return_rip;
    frame[2] = cpu->segment[CPU_CS].selector;
    frame[3] = event->flags;
    frame[4] = cpu_rsp(cpu);
    frame[5] = cpu->segment[CPU_SS].selector;
    if (event->has_error_code)
        frame[first = 0] = event->error_code;

    const unsigned bytes = (6 - first) * 8;

    if (!cpu_is_canonical(pointer - bytes) || !cpu_is_canonical(pointer - 1))
        return cpu_fault_code(cpu, VECTOR_SS, 0);
    if (!cpu_is_canonical(target.rip))
        return cpu_fault_code(cpu, VECTOR_GP, 0);
    if (descriptor_mark_accessed(cpu, &target.code) != CPU_NEXT ||
        cpu_write_linear(cpu, pointer - bytes, &frame[first], bytes, ACCESS_WRITE | (is_inner ? ACCESS_SYSTEM : 0)) !=
            CPU_NEXT)
        return CPU_FAULT;
    if (is_inner)
        cpu->segment[CPU_SS] = segment_null((uint16_t)target.cpl);
    enter(cpu, &target, pointer - bytes);
    return CPU_JUMP;
}

/* ---- Protected mode ---- */

static enum cpu_result deliver_task(struct cpu *cpu, const struct interrupt_event *event,
                                    const struct descriptor *gate) {
    const struct task_switch task = {
        .selector = descriptor_gate_selector(gate),
        .cause = TASK_INTERRUPT,
        .return_rip = event->return_rip,
        .flags = event->flags,
        .has_error_code = event->has_error_code,
        .error_code = event->error_code,
    };
    struct descriptor tss;

    if (task_find(cpu, task.selector, &tss) != CPU_NEXT)
        return CPU_FAULT;
    return task_switch(cpu, &task, &tss);
}

/*
 * The frame in the order of pushes: in front of flags, CS and IP the outer stack, and in front of that the data
 * segments of virtual-8086 mode.
 */
static unsigned build_frame(const struct cpu *cpu, const struct interrupt_event *event, bool is_inner,
                            uint64_t frame[10]) {
    unsigned count = 0;

    if (cpu_is_vm86(cpu)) {
        frame[count++] = cpu->segment[CPU_GS].selector;
        frame[count++] = cpu->segment[CPU_FS].selector;
        frame[count++] = cpu->segment[CPU_DS].selector;
        frame[count++] = cpu->segment[CPU_ES].selector;
    }
    if (is_inner) {
        frame[count++] = cpu->segment[CPU_SS].selector;
        frame[count++] = cpu_rsp(cpu);
    }
    frame[count++] = event->flags;
    frame[count++] = cpu->segment[CPU_CS].selector;
    frame[count++] = event->return_rip;
    if (event->has_error_code)
        frame[count++] = event->error_code;
    return count;
}

static enum cpu_result push_and_enter(struct cpu *cpu, const struct interrupt_event *event, struct target *target) {
    const bool is_inner = target->cpl < cpu->cpl;
    struct trapeze_segment ss;
    struct stack stack;
    uint64_t frame[10], pointer;

    if (is_inner) {
        if (gate_inner_stack(cpu, target->cpl, &ss, &pointer) != CPU_NEXT)
            return CPU_FAULT;
        stack_of_segment(&ss, pointer, true, &stack);
        stack.error_code = (uint16_t)selector_error(ss.selector);
    } else {
        stack_current(cpu, &stack);
    }

    const unsigned count = build_frame(cpu, event, is_inner, frame);

    if (stack_check_room(cpu, &stack, count, target->size) != CPU_NEXT ||
        descriptor_check_rip(cpu, &target->code, target->rip) != CPU_NEXT ||
        descriptor_mark_accessed(cpu, &target->code) != CPU_NEXT)
        return CPU_FAULT;
    if (stack_push(cpu, &stack, frame, count, target->size) != CPU_NEXT)
        return CPU_FAULT;
    if (cpu_is_vm86(cpu)) {
        cpu->segment[CPU_ES] = cpu->segment[CPU_DS] = segment_null(0);
        cpu->segment[CPU_FS] = cpu->segment[CPU_GS] = segment_null(0);
    }
    if (is_inner)
        cpu->segment[CPU_SS] = ss;
    enter(cpu, target, stack.pointer);
    return CPU_JUMP;
}

static enum cpu_result deliver_protected(struct cpu *cpu, const struct interrupt_event *event) {
    struct target target;
    uint64_t raw;

    if (read_gate(cpu, event, 8, &raw) != CPU_NEXT)
        return CPU_FAULT;
    target.gate.raw = raw;

    const unsigned type = descriptor_type(&target.gate);

    switch (type) {
    case DESCRIPTOR_TASK_GATE:
    case DESCRIPTOR_INTERRUPT_GATE16:
    case DESCRIPTOR_TRAP_GATE16:
    case DESCRIPTOR_INTERRUPT_GATE32:
    case DESCRIPTOR_TRAP_GATE32:
        break;
    default:
        return cpu_fault_code(cpu, VECTOR_GP, idt_error(event->vector));
    }
    if (check_gate(cpu, event, &target.gate) != CPU_NEXT)
        return CPU_FAULT;
    if (type == DESCRIPTOR_TASK_GATE)
        return deliver_task(cpu, event, &target.gate);
    if (read_code(cpu, &target) != CPU_NEXT)
        return CPU_FAULT;
    /* Virtual-8086 mode is left for level 0 alone. */
    if (cpu_is_vm86(cpu) && target.cpl != 0)
        return cpu_fault_code(cpu, VECTOR_GP, selector_error(target.selector));
    target.size = type & DESCRIPTOR_IS_32BIT ? 4 : 2;
    target.rip = descriptor_gate_offset(&target.gate) & (target.size == 4 ? 0xffffffff : 0xffff);
    target.clears_if = type == DESCRIPTOR_INTERRUPT_GATE16 || type == DESCRIPTOR_INTERRUPT_GATE32;
    return push_and_enter(cpu, event, &target);
}

enum cpu_result gate_deliver(struct cpu *cpu, const struct interrupt_event *event) {
    return cpu_is_long_mode(cpu) ? deliver_long(cpu, event) : deliver_protected(cpu, event);
}
