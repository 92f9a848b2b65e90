/*
 * IRET in every mode (SDM vol. 2, IRET): real, virtual-8086 with and without VME, protected to the same and to an outer
 * level and to virtual-8086 mode, nested tasks, and 64-bit.
 */
#include "cpu/access.h"
#include "cpu/interrupt.h"
#include "cpu/mode.h"
#include "cpu/ops.h"
#include "cpu/segment.h"
#include "cpu/stack.h"
#include "cpu/task.h"

enum {
    FLAGS_PLAIN = FLAG_ARITHMETIC | FLAG_TF | FLAG_DF | FLAG_NT, /* every IRET loads these */
    FLAGS_WIDE = FLAG_RF | FLAG_AC | FLAG_ID,                    /* and these with 32- and 64-bit operands */
    FLAGS_REAL = FLAGS_PLAIN | FLAG_IF | FLAG_IOPL,
};

/* Sets the flags of `mask` from the image. RF does not outlive an IRET that cannot load it. */
static void set_flags(struct cpu *cpu, uint64_t image, uint64_t mask) {
    cpu->hot.rflags = (cpu->hot.rflags & ~(mask | FLAG_RF)) | (image & mask) | FLAG_FIXED;
}

static enum cpu_result finish(struct cpu *cpu) {
    cpu_level_changed(cpu);
    return CPU_JUMP;
}

/* ---- Real and virtual-8086 mode ---- */

static enum cpu_result return_real(struct cpu *cpu, const struct cpu_op *op, uint64_t flags_mask) {
    struct stack stack;
    uint64_t frame[3];

    stack_current(cpu, &stack);
    if (stack_peek(cpu, &stack, 0, frame, 3, op->size) != CPU_NEXT)
        return CPU_FAULT;
    if (frame[0] > (cpu_is_vm86(cpu) ? 0xffff : cpu->segment[CPU_CS].limit))
        return cpu_fault_code(cpu, VECTOR_GP, 0);
    stack_release(&stack, 3u * op->size);
    segment_set_real_code(cpu, (uint16_t)frame[1]);
    cpu_rsp(cpu) = stack.pointer;
    cpu->hot.rip = frame[0];
    set_flags(cpu, frame[2], flags_mask);
    return finish(cpu);
}

/* IOPL below 3 with VME: IF of the image goes to VIF (SDM vol. 3A, 21.3.3.4). */
static enum cpu_result return_vme(struct cpu *cpu, const struct cpu_op *op) {
    struct stack stack;
    uint64_t frame[3];

    stack_current(cpu, &stack);
    if (stack_peek(cpu, &stack, 0, frame, 3, op->size) != CPU_NEXT)
        return CPU_FAULT;
    if ((frame[2] & FLAG_TF) || ((frame[2] & FLAG_IF) && (cpu->hot.rflags & FLAG_VIP)))
        return cpu_fault_code(cpu, VECTOR_GP, 0);

    const uint64_t vif = frame[2] & FLAG_IF ? FLAG_VIF : 0;
    const enum cpu_result result = return_real(cpu, op, FLAGS_PLAIN);

    if (result != CPU_FAULT)
        cpu->hot.rflags = (cpu->hot.rflags & ~(uint64_t)FLAG_VIF) | vif;
    return result;
}

static enum cpu_result return_vm86(struct cpu *cpu, const struct cpu_op *op) {
    if (cpu_iopl(cpu) == 3)
        return return_real(cpu, op, FLAGS_PLAIN | FLAG_IF | (op->size == 2 ? 0 : FLAGS_WIDE));
    if ((cpu->cr4 & CR4_VME) && op->size == 2)
        return return_vme(cpu, op);
    return cpu_fault_code(cpu, VECTOR_GP, 0);
}

static enum cpu_result enter_vm86(struct cpu *cpu, const struct stack *stack, const uint64_t frame[3]) {
    static const uint8_t order[] = {CPU_SS, CPU_ES, CPU_DS, CPU_FS, CPU_GS};
    uint64_t outer[6]; /* ESP and the segments above */

    if (stack_peek(cpu, stack, 12, outer, 6, 4) != CPU_NEXT)
        return CPU_FAULT;
    if (frame[0] > 0xffff)
        return cpu_fault_code(cpu, VECTOR_GP, 0);
    cpu->segment[CPU_CS] = segment_vm86((uint16_t)frame[1]);
    for (unsigned i = 0; i < sizeof order; i++)
        cpu->segment[order[i]] = segment_vm86((uint16_t)outer[i + 1]);
    cpu_rsp(cpu) = outer[0];
    cpu->hot.rip = frame[0];
    cpu->cpl = 3;
    set_flags(cpu, frame[2], FLAGS_REAL | FLAGS_WIDE | FLAG_VM | FLAG_VIF | FLAG_VIP);
    return finish(cpu);
}

/* ---- Protected and long mode ---- */

static enum cpu_result return_task(struct cpu *cpu, const struct cpu_op *op) {
    struct task_switch task = {
        .cause = TASK_RETURN,
        .return_rip = segment_next_rip(cpu, op->length),
        .flags = cpu->hot.rflags & ~(uint64_t)FLAG_NT,
    };
    struct descriptor tss;

    if (cpu_read_linear(cpu, (uint32_t)cpu->tr.base, &task.selector, 2, ACCESS_READ | ACCESS_SYSTEM) != CPU_NEXT)
        return CPU_FAULT;
    if (task_find_parent(cpu, task.selector, &tss) != CPU_NEXT)
        return CPU_FAULT;
    return task_switch(cpu, &task, &tss);
}

static uint64_t protected_flags(const struct cpu *cpu, unsigned size) {
    uint64_t mask = FLAGS_PLAIN | (size == 2 ? 0 : FLAGS_WIDE);

    if (cpu->cpl <= cpu_iopl(cpu))
        mask |= FLAG_IF;
    if (cpu->cpl == 0)
        mask |= FLAG_IOPL | (size == 2 ? 0 : FLAG_VIF | FLAG_VIP);
    return mask;
}

/* The pointer that a frame's image gives to a stack: a 16-bit stack segment takes the low half alone. */
static uint64_t outer_pointer(const struct cpu *cpu, const struct descriptor *code, const struct trapeze_segment *ss,
                              uint64_t image) {
    if (cpu_is_long_mode(cpu) && descriptor_is_long_code(code))
        return image;
    if (ss->attributes & SEGMENT_DB)
        return (uint32_t)image;
    return (cpu_rsp(cpu) & 0xffff0000) | (image & 0xffff);
}

static enum cpu_result return_protected(struct cpu *cpu, const struct cpu_op *op) {
    const bool is_64bit = cpu_is_64bit(cpu);
    struct trapeze_segment ss;
    struct descriptor code;
    struct stack stack;
    uint64_t frame[5];

    stack_current(cpu, &stack);
    if (stack_peek(cpu, &stack, 0, frame, is_64bit ? 5 : 3, op->size) != CPU_NEXT)
        return CPU_FAULT;
    if (!cpu_is_long_mode(cpu) && op->size == 4 && (frame[2] & FLAG_VM) && cpu->cpl == 0)
        return enter_vm86(cpu, &stack, frame);

    const uint16_t selector = (uint16_t)frame[1];
    const unsigned cpl = selector & 3;
    const bool is_outer = cpl > cpu->cpl;

    if (descriptor_check_return(cpu, selector, &code) != CPU_NEXT)
        return CPU_FAULT;
    if (is_outer && !is_64bit && stack_peek(cpu, &stack, 3u * op->size, &frame[3], 2, op->size) != CPU_NEXT)
        return CPU_FAULT;
    if (is_outer || is_64bit) {
        const bool is_null_allowed = cpu_is_long_mode(cpu) && descriptor_is_long_code(&code) && cpl < 3;

        if (descriptor_check_stack(cpu, (uint16_t)frame[4], cpl, is_null_allowed, VECTOR_GP, &ss) != CPU_NEXT)
            return CPU_FAULT;
    }
    if (descriptor_check_rip(cpu, &code, frame[0]) != CPU_NEXT || descriptor_mark_accessed(cpu, &code) != CPU_NEXT)
        return CPU_FAULT;

    if (is_outer || is_64bit) {
        cpu_rsp(cpu) = outer_pointer(cpu, &code, &ss, frame[3]);
        cpu->segment[CPU_SS] = ss;
    } else {
        stack_release(&stack, 3u * op->size);
        cpu_rsp(cpu) = stack.pointer;
    }
    set_flags(cpu, frame[2], protected_flags(cpu, op->size));
    cpu->hot.rip = frame[0];
    segment_set_code(cpu, &code, selector, cpl);
    if (is_outer)
        segment_drop_inner(cpu);
    return finish(cpu);
}

enum cpu_result cpu_op_iret(struct cpu *cpu, const struct cpu_op *op) {
    /* Even an IRET that faults unblocks NMIs (SDM vol. 3A, 6.7.1). */
    if (cpu->nmi_blocked) {
        cpu->nmi_blocked = false;
        cpu->hot.run = 0; /* an NMI may have been waiting for this */
    }
    if (!cpu_is_protected(cpu))
        return return_real(cpu, op, FLAGS_REAL | (op->size == 2 ? 0 : FLAGS_WIDE));
    if (cpu_is_vm86(cpu))
        return return_vm86(cpu, op);
    if (cpu->hot.rflags & FLAG_NT)
        return cpu_is_long_mode(cpu) ? cpu_fault_code(cpu, VECTOR_GP, 0) : return_task(cpu, op);
    return return_protected(cpu, op);
}
