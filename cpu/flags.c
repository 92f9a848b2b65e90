/*
 * Instructions on the flags that are not arithmetic: IF with IOPL, and its virtual image VIF under VME and PVI (SDM
 * vol. 3B, 20.3 and 20.4), AC for SMAP, PUSHF and POPF in every mode.
 */
#include "cpu/mode.h"
#include "cpu/ops.h"
#include "cpu/segment.h"
#include "cpu/stack.h"

/* Flags that POPF may change at any privilege. */
#define POPF_ALWAYS (FLAG_ARITHMETIC | FLAG_TF | FLAG_DF | FLAG_NT | FLAG_AC | FLAG_ID)
/* Flags that the mode key or the view depend on. */
#define MODE_FLAGS (FLAG_TF | FLAG_IOPL | FLAG_AC)

static enum cpu_result general_protection(struct cpu *cpu) {
    return cpu_fault_code(cpu, VECTOR_GP, 0);
}

static bool may_change_if(const struct cpu *cpu) {
    return cpu->cpl <= cpu_iopl(cpu);
}

/* Are CLI and STI about VIF? Virtual-8086 mode with VME, or a program of CPL 3 with PVI. */
static bool has_virtual_if(const struct cpu *cpu) {
    if (cpu_is_vm86(cpu))
        return cpu->cr4 & CR4_VME;
    return cpu->cpl == 3 && (cpu->cr4 & CR4_PVI);
}

enum cpu_result cpu_op_cli(struct cpu *cpu, const struct cpu_op *op) {
    (void)op;
    if (may_change_if(cpu))
        cpu->hot.rflags &= ~(uint64_t)FLAG_IF;
    else if (has_virtual_if(cpu))
        cpu->hot.rflags &= ~(uint64_t)FLAG_VIF;
    else
        return general_protection(cpu);
    return CPU_NEXT;
}

enum cpu_result cpu_op_sti(struct cpu *cpu, const struct cpu_op *op) {
    (void)op;
    uint64_t flags = cpu->hot.rflags;
    if (!may_change_if(cpu)) {
        if (!has_virtual_if(cpu) || (flags & FLAG_VIP))
            return general_protection(cpu);
        cpu->hot.rflags |= FLAG_VIF;
        return CPU_NEXT;
    }
    if (!(flags & FLAG_IF)) {
        cpu->hot.rflags |= FLAG_IF;
        cpu->interrupt_shadow = true;
        /* A request that came while IF was clear is looked at again by the next poll. */
        if (atomic_load_explicit(&cpu->intr, memory_order_acquire))
            cpu->hot.run = 0;
    }
    return CPU_NEXT;
}

static enum cpu_result set_ac(struct cpu *cpu, const struct cpu_op *op, bool value) {
    if (cpu->cpl)
        return cpu_fault(cpu, VECTOR_UD);
    uint64_t old = cpu->hot.rflags;
    cpu->hot.rflags = value ? old | FLAG_AC : old & ~(uint64_t)FLAG_AC;
    if (cpu->hot.rflags == old)
        return CPU_NEXT;
    cpu_level_changed(cpu);
    cpu->hot.rip = segment_next_rip(cpu, op->length);
    return CPU_JUMP;
}

enum cpu_result cpu_op_clac(struct cpu *cpu, const struct cpu_op *op) {
    return set_ac(cpu, op, false);
}

enum cpu_result cpu_op_stac(struct cpu *cpu, const struct cpu_op *op) {
    return set_ac(cpu, op, true);
}

enum cpu_result cpu_op_pushf(struct cpu *cpu, const struct cpu_op *op) {
    uint64_t image = (cpu->hot.rflags & ~(uint64_t)(FLAG_VM | FLAG_RF)) | FLAG_FIXED;
    if (cpu_is_vm86(cpu) && cpu_iopl(cpu) < 3) {
        if (!(cpu->cr4 & CR4_VME) || op->size != 2)
            return general_protection(cpu);
        image = (image & ~(uint64_t)FLAG_IF) | FLAG_IOPL;
        if (cpu->hot.rflags & FLAG_VIF)
            image |= FLAG_IF;
    }
    struct stack stack;
    stack_current(cpu, &stack);
    enum cpu_result result = stack_push(cpu, &stack, &image, 1, op->size);
    if (result == CPU_NEXT)
        cpu_rsp(cpu) = stack.pointer;
    return result;
}

/* The flags after POPF of `image`; false where it is #GP(0). */
static bool popped_flags(const struct cpu *cpu, uint64_t image, unsigned size, uint64_t *flags) {
    uint64_t old = cpu->hot.rflags, mask = POPF_ALWAYS, forced = 0;
    if (cpu_is_vm86(cpu) && cpu_iopl(cpu) < 3) {
        if (!(cpu->cr4 & CR4_VME) || size != 2 || (image & FLAG_TF))
            return false;
        if ((image & FLAG_IF) && (old & FLAG_VIP))
            return false;
        old &= ~(uint64_t)FLAG_VIF;
        forced = image & FLAG_IF ? FLAG_VIF : 0;
    } else {
        if (may_change_if(cpu))
            mask |= FLAG_IF;
        if (!cpu->cpl)
            mask |= FLAG_IOPL;
    }
    if (size == 2)
        mask &= 0xffff;
    else
        old &= ~(uint64_t)FLAG_RF;
    *flags = (old & ~mask) | (image & mask) | forced | FLAG_FIXED;
    return true;
}

enum cpu_result cpu_op_popf(struct cpu *cpu, const struct cpu_op *op) {
    struct stack stack;
    uint64_t image, flags, old = cpu->hot.rflags;
    stack_current(cpu, &stack);
    if (cpu_is_vm86(cpu) && cpu_iopl(cpu) < 3 && (!(cpu->cr4 & CR4_VME) || op->size != 2))
        return general_protection(cpu);
    enum cpu_result result = stack_peek(cpu, &stack, 0, &image, 1, op->size);
    if (result != CPU_NEXT)
        return result;
    if (!popped_flags(cpu, image, op->size, &flags))
        return general_protection(cpu);
    stack_release(&stack, op->size);
    cpu_rsp(cpu) = stack.pointer;
    cpu->hot.rflags = flags;
    bool is_mode = (flags ^ old) & MODE_FLAGS;
    bool opens = (flags & ~old & FLAG_IF) && atomic_load_explicit(&cpu->intr, memory_order_acquire);
    if (is_mode)
        cpu_level_changed(cpu);
    if (!is_mode && !opens)
        return CPU_NEXT;
    cpu->hot.rip = segment_next_rip(cpu, op->length);
    if (!opens)
        return CPU_JUMP;
    cpu->stop = CPU_STOP_CHECK;
    return CPU_STOP;
}
