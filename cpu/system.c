/*
 * Small system instructions: time-stamp counter, TLB invalidation, caches, HLT, MONITOR/MWAIT, FS and GS base.
 */
#include "cpu/access.h"
#include "cpu/mode.h"
#include "cpu/model.h"
#include "cpu/ops.h"
#include "cpu/segment.h"

static enum cpu_result general_protection(struct cpu *cpu) {
    return cpu_fault_code(cpu, VECTOR_GP, 0);
}

static enum cpu_result jump_next(struct cpu *cpu, const struct cpu_op *op) {
    cpu->hot.rip = segment_next_rip(cpu, op->length);
    return CPU_JUMP;
}

/* ---- Time ---- */

enum cpu_result cpu_op_rdtsc(struct cpu *cpu, const struct cpu_op *op) {
    (void)op;
    if ((cpu->cr4 & CR4_TSD) && cpu->cpl)
        return general_protection(cpu);
    uint64_t tsc = cpu_read_tsc(cpu);
    cpu->hot.gpr[CPU_RAX] = (uint32_t)tsc;
    cpu->hot.gpr[CPU_RDX] = tsc >> 32;
    return CPU_NEXT;
}

enum cpu_result cpu_op_rdtscp(struct cpu *cpu, const struct cpu_op *op) {
    enum cpu_result result = cpu_op_rdtsc(cpu, op);
    if (result == CPU_NEXT)
        cpu->hot.gpr[CPU_RCX] = (uint32_t)cpu->msr.tsc_aux;
    return result;
}

enum cpu_result cpu_op_rdpid(struct cpu *cpu, const struct cpu_op *op) {
    cpu->hot.gpr[op->rm] = (uint32_t)cpu->msr.tsc_aux;
    return CPU_NEXT;
}

/* There are no performance counters: every index is wrong. */
enum cpu_result cpu_op_rdpmc(struct cpu *cpu, const struct cpu_op *op) {
    (void)op;
    return general_protection(cpu);
}

/* ---- TLB and caches ---- */

enum cpu_result cpu_op_invlpg(struct cpu *cpu, const struct cpu_op *op) {
    if (cpu->cpl)
        return general_protection(cpu);
    uint64_t linear = cpu_op_offset(cpu, op);
    if (!cpu_is_64bit(cpu))
        linear = (uint32_t)(linear + cpu->segment[op->segment].base);
    else if (op->segment == CPU_FS || op->segment == CPU_GS)
        linear += cpu->segment[op->segment].base;
    if (cpu_is_canonical(linear))
        cpu_flush_page(cpu, linear);
    return jump_next(cpu, op);
}

enum { INVPCID_ADDRESS, INVPCID_CONTEXT, INVPCID_ALL, INVPCID_ALL_BUT_GLOBAL, INVPCID_TYPES };

enum cpu_result cpu_op_invpcid(struct cpu *cpu, const struct cpu_op *op) {
    uint64_t descriptor[2];
    uint64_t type = cpu_get_gpr(cpu, op->reg, op->code_size == 8 ? 8 : 4, false);
    if (cpu->cpl || type >= INVPCID_TYPES)
        return general_protection(cpu);
    enum cpu_result result = cpu_read(cpu, op->segment, cpu_op_offset(cpu, op), descriptor, sizeof descriptor);
    if (result != CPU_NEXT)
        return result;
    uint64_t pcid = descriptor[0], linear = descriptor[1];
    bool names_context = type == INVPCID_ADDRESS || type == INVPCID_CONTEXT;
    if (pcid >> 12 || (names_context && pcid && !(cpu->cr4 & CR4_PCIDE)))
        return general_protection(cpu);
    if (type == INVPCID_ADDRESS && !cpu_is_canonical(linear))
        return general_protection(cpu);
    if (type == INVPCID_ADDRESS)
        cpu_flush_page(cpu, linear);
    else if (type == INVPCID_CONTEXT && pcid == ((cpu->cr4 & CR4_PCIDE) ? cpu->cr3 & 0xfff : 0))
        cpu_flush_address_space(cpu, true);
    else
        cpu_flush_all(cpu);
    return jump_next(cpu, op);
}

/* Guest memory is always coherent. */
enum cpu_result cpu_op_cache_control(struct cpu *cpu, const struct cpu_op *op) {
    (void)op;
    return cpu->cpl ? general_protection(cpu) : CPU_NEXT;
}

/* ---- Waiting ---- */

enum cpu_result cpu_op_hlt(struct cpu *cpu, const struct cpu_op *op) {
    if (cpu->cpl)
        return general_protection(cpu);
    cpu->halted = true;
    cpu->hot.rip = segment_next_rip(cpu, op->length);
    cpu->stop = CPU_STOP_HALT;
    return CPU_STOP;
}

/* What the guest waits for may need this host CPU: another virtual one, or the clock's thread. */
static void let_others_run(void) {
    enum { SYS_SCHED_YIELD = 24 };
    uint64_t result = SYS_SCHED_YIELD;
    __asm__ volatile("syscall" : "+a"(result) : : "rcx", "r11", "memory");
}

enum cpu_result cpu_op_pause(struct cpu *cpu, const struct cpu_op *op) {
    enum { SPINS = 256 };
    (void)op;
    if (cpu->hot.pauses <= 1) {
        cpu->hot.pauses = SPINS;
        let_others_run();
    } else {
        cpu->hot.pauses--;
    }
    return CPU_NEXT;
}

enum cpu_result cpu_op_monitor(struct cpu *cpu, const struct cpu_op *op) {
    uint8_t byte;
    if (cpu->cpl)
        return cpu_fault(cpu, VECTOR_UD);
    if ((uint32_t)cpu->hot.gpr[CPU_RCX])
        return general_protection(cpu);
    uint64_t offset = cpu_get_gpr(cpu, CPU_RAX, op->address_size, false);
    return cpu_read(cpu, op->segment, offset, &byte, 1);
}

/* Wakes at once: a store to the monitored line is not watched for, and early wake-ups are allowed. */
enum cpu_result cpu_op_mwait(struct cpu *cpu, const struct cpu_op *op) {
    if (cpu->cpl)
        return cpu_fault(cpu, VECTOR_UD);
    if ((uint32_t)cpu->hot.gpr[CPU_RCX] > 1)
        return general_protection(cpu);
    cpu->hot.rip = segment_next_rip(cpu, op->length);
    cpu->stop = CPU_STOP_CHECK;
    return CPU_STOP;
}

/* ---- FS and GS base ---- */

static bool has_base_instructions(const struct cpu *cpu) {
    return (cpu->cr4 & CR4_FSGSBASE) && cpu_is_64bit(cpu);
}

static enum cpu_result read_base(struct cpu *cpu, const struct cpu_op *op, unsigned segment) {
    if (!has_base_instructions(cpu))
        return cpu_fault(cpu, VECTOR_UD);
    cpu_set_gpr(cpu, op->rm, op->size, false, cpu->segment[segment].base);
    return CPU_NEXT;
}

static enum cpu_result write_base(struct cpu *cpu, const struct cpu_op *op, unsigned segment) {
    if (!has_base_instructions(cpu))
        return cpu_fault(cpu, VECTOR_UD);
    uint64_t base = cpu_get_gpr(cpu, op->rm, op->size, false);
    if (!cpu_is_canonical(base))
        return general_protection(cpu);
    cpu->segment[segment].base = base;
    cpu_segment_changed(cpu, segment);
    return CPU_NEXT;
}

enum cpu_result cpu_op_rdfsbase(struct cpu *cpu, const struct cpu_op *op) {
    return read_base(cpu, op, CPU_FS);
}

enum cpu_result cpu_op_rdgsbase(struct cpu *cpu, const struct cpu_op *op) {
    return read_base(cpu, op, CPU_GS);
}

enum cpu_result cpu_op_wrfsbase(struct cpu *cpu, const struct cpu_op *op) {
    return write_base(cpu, op, CPU_FS);
}

enum cpu_result cpu_op_wrgsbase(struct cpu *cpu, const struct cpu_op *op) {
    return write_base(cpu, op, CPU_GS);
}
