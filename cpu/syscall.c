/*
 * SYSCALL, SYSRET, SYSENTER and SYSEXIT (SDM vol. 2): privilege changes that load flat segments from MSRs, without a
 * look at descriptor tables or the stack. Outside 64-bit mode SYSCALL and SYSRET exist where the processor model is AMD's
 * (APM vol. 3, SYSCALL, SYSRET), which leaves the stack segment's hidden part to software; here it is always flat.
 */
#include "cpu/mode.h"
#include "cpu/model.h"
#include "cpu/ops.h"
#include "cpu/segment.h"

enum {
    SYSRET_FLAGS = 0x3c7fd7, /* all but RF and VM */
    DR6_BS = 1 << 14,
    CODE64 = SEGMENT_FLAT_CODE | SEGMENT_L,
    CODE32 = SEGMENT_FLAT_CODE | SEGMENT_DB,
};

/* Code and stack segments as these instructions load them: SS is the descriptor behind CS. */
static void set_segments(struct cpu *cpu, uint16_t code_selector, uint16_t stack_selector, uint32_t code_attributes,
                         unsigned cpl) {
    cpu->segment[CPU_CS] = segment_flat((uint16_t)((code_selector & 0xfffc) | cpl), code_attributes, cpl);
    cpu->segment[CPU_SS] = segment_flat((uint16_t)((stack_selector & 0xfffc) | cpl), SEGMENT_FLAT_DATA, cpl);
    cpu->cpl = (uint8_t)cpl;
}

/* Single step looks at TF as these two leave it, not as they found it. */
static enum cpu_result finish(struct cpu *cpu) {
    cpu_level_changed(cpu);
    return cpu->hot.rflags & FLAG_TF ? cpu_fault_debug(cpu, DR6_BS, true) : CPU_JUMP;
}

/* Legacy mode keeps the flags for itself, and its entry point is in STAR. */
static void enter_legacy(struct cpu *cpu, const struct cpu_op *op) {
    cpu->hot.gpr[CPU_RCX] = (uint32_t)segment_next_rip(cpu, op->length);
    cpu->hot.rip = (uint32_t)cpu->msr.star;
    cpu->hot.rflags &= ~(uint64_t)(FLAG_VM | FLAG_IF | FLAG_RF);
}

static void enter_long(struct cpu *cpu, const struct cpu_op *op) {
    cpu->hot.gpr[CPU_RCX] = segment_next_rip(cpu, op->length);
    cpu->hot.gpr[CPU_R11] = cpu->hot.rflags & ~(uint64_t)FLAG_RF;
    cpu->hot.rip = cpu_is_64bit(cpu) ? cpu->msr.lstar : cpu->msr.cstar;
    cpu->hot.rflags = (cpu->hot.rflags & ~(cpu->msr.sfmask | FLAG_RF)) | FLAG_FIXED;
}

/* Whether the instructions exist in the present mode. */
static bool has_syscall(const struct cpu *cpu) {
    return (cpu->msr.efer & EFER_SCE) && cpu_is_protected(cpu) && (cpu_is_64bit(cpu) || cpu_is_amd(cpu));
}

enum cpu_result cpu_op_syscall(struct cpu *cpu, const struct cpu_op *op) {
    const uint16_t selector = (uint16_t)(cpu->msr.star >> 32) & 0xfffc;
    const bool is_long = cpu_is_long_mode(cpu);

    if (!has_syscall(cpu))
        return cpu_fault(cpu, VECTOR_UD);
    if (is_long)
        enter_long(cpu, op);
    else
        enter_legacy(cpu, op);
    set_segments(cpu, selector, (uint16_t)(selector + 8), is_long ? CODE64 : CODE32, 0);
    return finish(cpu);
}

enum cpu_result cpu_op_sysret(struct cpu *cpu, const struct cpu_op *op) {
    const uint16_t selector = (uint16_t)(cpu->msr.star >> 48);
    const bool is_64bit = cpu_is_64bit(cpu), to_64bit = is_64bit && op->size == 8;
    const uint64_t rip = to_64bit ? cpu->hot.gpr[CPU_RCX] : (uint32_t)cpu->hot.gpr[CPU_RCX];

    if (!has_syscall(cpu))
        return cpu_fault(cpu, VECTOR_UD);
    if (cpu->cpl != 0 || !cpu_is_canonical(rip))
        return cpu_fault_code(cpu, VECTOR_GP, 0);
    cpu->hot.rip = rip;
    if (is_64bit)
        cpu->hot.rflags = (cpu->hot.gpr[CPU_R11] & SYSRET_FLAGS) | FLAG_FIXED;
    else
        cpu->hot.rflags |= FLAG_IF;
    set_segments(cpu, (uint16_t)(selector + (to_64bit ? 16 : 0)), (uint16_t)(selector + 8),
                 to_64bit ? CODE64 : CODE32, 3);
    return finish(cpu);
}

/* AMD's processors have SYSENTER and SYSEXIT in legacy mode alone (APM vol. 3). */
static bool has_sysenter(const struct cpu *cpu) {
    return !cpu_is_long_mode(cpu) || !cpu_is_amd(cpu);
}

enum cpu_result cpu_op_sysenter(struct cpu *cpu, const struct cpu_op *op) {
    const uint16_t selector = (uint16_t)(cpu->msr.sysenter_cs & 0xfffc);
    const bool is_long = cpu_is_long_mode(cpu);

    (void)op;
    if (!has_sysenter(cpu))
        return cpu_fault(cpu, VECTOR_UD);
    if (!cpu_is_protected(cpu) || !selector)
        return cpu_fault_code(cpu, VECTOR_GP, 0);
    cpu->hot.rflags &= ~(uint64_t)(FLAG_VM | FLAG_IF | FLAG_RF);
    cpu_rsp(cpu) = is_long ? cpu->msr.sysenter_esp : (uint32_t)cpu->msr.sysenter_esp;
    cpu->hot.rip = is_long ? cpu->msr.sysenter_eip : (uint32_t)cpu->msr.sysenter_eip;
    set_segments(cpu, selector, (uint16_t)(selector + 8), is_long ? CODE64 : CODE32, 0);
    cpu_level_changed(cpu);
    return CPU_JUMP;
}

enum cpu_result cpu_op_sysexit(struct cpu *cpu, const struct cpu_op *op) {
    const uint16_t base = (uint16_t)(cpu->msr.sysenter_cs & 0xfffc);
    const bool to_64bit = op->size == 8;
    const uint16_t selector = (uint16_t)(base + (to_64bit ? 32 : 16));
    const uint64_t rip = cpu->hot.gpr[CPU_RDX], rsp = cpu->hot.gpr[CPU_RCX];

    if (!has_sysenter(cpu))
        return cpu_fault(cpu, VECTOR_UD);
    if (!cpu_is_protected(cpu) || !base || cpu->cpl != 0)
        return cpu_fault_code(cpu, VECTOR_GP, 0);
    if (to_64bit && (!cpu_is_canonical(rip) || !cpu_is_canonical(rsp)))
        return cpu_fault_code(cpu, VECTOR_GP, 0);
    cpu->hot.rip = to_64bit ? rip : (uint32_t)rip;
    cpu_rsp(cpu) = to_64bit ? rsp : (uint32_t)rsp;
    set_segments(cpu, selector, (uint16_t)(selector + 8), to_64bit ? CODE64 : CODE32, 3);
    cpu_level_changed(cpu);
    return CPU_JUMP;
}
