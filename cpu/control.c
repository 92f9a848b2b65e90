/*
 * Control and debug registers (SDM vol. 3A, 2.5 and 17.2): moves with their consistency checks, what each change drops
 * from the shadow page tables, and the extended control register XCR0.
 */
#include "cpu/access.h"
#include "cpu/mode.h"
#include "cpu/model.h"
#include "cpu/ops.h"
#include "cpu/segment.h"
#include "cpu/watch.h"

#define CR0_KNOWN                                                                                                      \
    (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)
#define CR3_NO_FLUSH (1ull << 63)

enum {
    DR6_FIXED = 0xffff0ff0, DR6_WRITABLE = 0xe00f, DR6_BD = 1 << 13,
    DR7_FIXED = 0x400, DR7_GD = 1 << 13,
};
#define DR7_WRITABLE 0xffff23ffu

static enum cpu_result general_protection(struct cpu *cpu) {
    return cpu_fault_code(cpu, VECTOR_GP, 0);
}

static enum cpu_result jump_next(struct cpu *cpu, const struct cpu_op *op) {
    cpu->hot.rip = segment_next_rip(cpu, op->length);
    return CPU_JUMP;
}

/* ---- PAE page-directory pointers ---- */

static bool uses_pdptes(const struct cpu *cpu, uint64_t cr0, uint64_t cr4) {
    return (cr0 & CR0_PG) && (cr4 & CR4_PAE) && !(cpu->msr.efer & EFER_LME);
}

/* Loads the four entries that PAE paging keeps in the processor (SDM vol. 3A, 4.4.1); false when one is not valid. */
static bool load_pdptes(struct cpu *cpu, uint64_t cr3) {
    uint64_t entry[4];
    uint64_t reserved = ~((1ull << cpu_model_physical_bits(cpu->model)) - 1) | 0x1e6;
    for (unsigned i = 0; i < 4; i++) {
        entry[i] = cpu_physical_read(cpu, guest_physical_at((cr3 & 0xffffffe0u) + 8 * i), 8);
        if ((entry[i] & 1) && (entry[i] & reserved))
            return false;
    }
    cpu_copy(cpu->pdpte, entry, sizeof entry);
    return true;
}

/* ---- CR0 ---- */

static bool is_cr0_valid(const struct cpu *cpu, uint64_t value) {
    if ((value & CR0_PG) && !(value & CR0_PE))
        return false;
    if ((value & CR0_NW) && !(value & CR0_CD))
        return false;
    bool was_paging = cpu->cr0 & CR0_PG;
    if ((value & CR0_PG) && !was_paging && (cpu->msr.efer & EFER_LME))
        return (cpu->cr4 & CR4_PAE) && !(cpu->segment[CPU_CS].attributes & SEGMENT_L);
    if (!(value & CR0_PG) && was_paging)
        return !(cpu->cr4 & CR4_PCIDE) && !cpu_is_64bit(cpu);
    return true;
}

#define CR0_X87 (CR0_TS | CR0_EM | CR0_MP)

static enum cpu_result write_cr0(struct cpu *cpu, uint64_t value) {
    if (value >> 32)
        return general_protection(cpu);
    value = (value & CR0_KNOWN) | CR0_ET;
    if (value == cpu->cr0)
        return CPU_NEXT;
    if (!is_cr0_valid(cpu, value))
        return general_protection(cpu);
    uint64_t changed = value ^ cpu->cr0;
    if (!(changed & ~(CR0_X87 | CR0_NE))) {
        cpu->cr0 = value;
        if (!(changed & CR0_X87))
            return CPU_NEXT;
        cpu_x87_changed(cpu);
        return CPU_JUMP;
    }
    if ((changed & (CR0_PG | CR0_CD | CR0_NW)) && uses_pdptes(cpu, value, cpu->cr4) && !load_pdptes(cpu, cpu->cr3))
        return general_protection(cpu);
    cpu->cr0 = value;
    if (changed & CR0_PG) {
        cpu->msr.efer &= ~EFER_LMA;
        if ((value & CR0_PG) && (cpu->msr.efer & EFER_LME))
            cpu->msr.efer |= EFER_LMA;
    }
    if (changed & (CR0_PG | CR0_PE | CR0_WP))
        cpu_flush_all(cpu);
    cpu_control_changed(cpu);
    return CPU_JUMP;
}

/* ---- CR3 ---- */

static enum cpu_result write_cr3(struct cpu *cpu, uint64_t value) {
    bool keeps = (cpu->cr4 & CR4_PCIDE) && (value & CR3_NO_FLUSH);
    if (cpu->cr4 & CR4_PCIDE)
        value &= ~CR3_NO_FLUSH;
    if (cpu_is_long_mode(cpu)) {
        if (value >> cpu_model_physical_bits(cpu->model))
            return general_protection(cpu);
    } else {
        value &= 0xffffffffu;
        if (uses_pdptes(cpu, cpu->cr0, cpu->cr4) && !load_pdptes(cpu, value))
            return general_protection(cpu);
    }
    cpu->cr3 = value;
    if (keeps)
        cpu->space_changes++;
    else
        cpu_flush_address_space(cpu, true);
    cpu_control_changed(cpu);
    return CPU_JUMP;
}

/* ---- CR4 ---- */

static bool is_cr4_valid(const struct cpu *cpu, uint64_t value) {
    if (value & ~cpu_model_cr4(cpu->model))
        return false;
    uint64_t changed = value ^ cpu->cr4;
    if (cpu_is_long_mode(cpu) && !(value & CR4_PAE))
        return false;
    if ((changed & CR4_PCIDE) && (value & CR4_PCIDE))
        return cpu_is_long_mode(cpu) && !(cpu->cr3 & 0xfff);
    return true;
}

static enum cpu_result write_cr4(struct cpu *cpu, uint64_t value) {
    if (!is_cr4_valid(cpu, value))
        return general_protection(cpu);
    uint64_t changed = value ^ cpu->cr4;
    if ((changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP)) && uses_pdptes(cpu, cpu->cr0, value) &&
        !load_pdptes(cpu, cpu->cr3))
        return general_protection(cpu);
    cpu->cr4 = value;
    if (changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_PCIDE | CR4_SMEP | CR4_SMAP))
        cpu_flush_all(cpu);
    cpu_control_changed(cpu);
    return CPU_JUMP;
}

/* ---- CR8: the task priority of the local APIC ---- */

struct priority {
    const struct trapeze_interrupt_controller *controller;
    unsigned value;
};

static uint64_t get_priority(void *argument) {
    const struct trapeze_interrupt_controller *controller = ((struct priority *)argument)->controller;
    return controller->get_tpr ? controller->get_tpr(controller->opaque) : 0;
}

static uint64_t set_priority(void *argument) {
    const struct priority *priority = argument;
    if (priority->controller->set_tpr)
        priority->controller->set_tpr(priority->controller->opaque, priority->value);
    return 0;
}

static enum cpu_result write_cr8(struct cpu *cpu, uint64_t value) {
    if (value > 15)
        return general_protection(cpu);
    struct priority priority = {.controller = &cpu->interrupt_controller, .value = (unsigned)value};
    cpu_call_controller(cpu, set_priority, &priority);
    return CPU_NEXT;
}

static uint64_t read_cr8(struct cpu *cpu) {
    struct priority priority = {.controller = &cpu->interrupt_controller};
    return cpu_call_controller(cpu, get_priority, &priority);
}

/* ---- MOV CR ---- */

/* AMD reaches CR8 outside of 64-bit mode by a LOCK prefix. */
static unsigned control_register(const struct cpu *cpu, const struct cpu_op *op) {
    return op->lock && op->reg == 0 && cpu_has(cpu, FEATURE_CR8_LEGACY) ? 8 : op->reg;
}

static bool exists(const struct cpu *cpu, unsigned reg) {
    /* A Pentium has CR4, a 486 that lacks all of its features does not. */
    if (reg == 4)
        return cpu_model_cr4(cpu->model) != 0;
    return reg == 0 || reg == 2 || reg == 3 || reg == 8;
}

enum cpu_result cpu_op_mov_from_cr(struct cpu *cpu, const struct cpu_op *op) {
    unsigned reg = control_register(cpu, op);
    if (!exists(cpu, reg) || (op->lock && reg != 8))
        return cpu_fault(cpu, VECTOR_UD);
    if (cpu->cpl)
        return general_protection(cpu);
    uint64_t value = reg == 0   ? cpu->cr0
                     : reg == 2 ? cpu->cr2
                     : reg == 3 ? cpu->cr3
                     : reg == 4 ? cpu->cr4
                                : read_cr8(cpu);
    cpu_set_gpr(cpu, op->rm, op->code_size == 8 ? 8 : 4, false, value);
    return CPU_NEXT;
}

/* CPU_NEXT where nothing that translated code depends on has changed, CPU_JUMP where the caller sets rip. */
static enum cpu_result write_control(struct cpu *cpu, unsigned reg, uint64_t value) {
    switch (reg) {
    case 0:
        return write_cr0(cpu, value);
    case 2:
        cpu->cr2 = value;
        return CPU_NEXT;
    case 3:
        return write_cr3(cpu, value);
    case 4:
        return write_cr4(cpu, value);
    default:
        return write_cr8(cpu, value);
    }
}

enum cpu_result cpu_op_mov_to_cr(struct cpu *cpu, const struct cpu_op *op) {
    unsigned reg = control_register(cpu, op);
    if (!exists(cpu, reg) || (op->lock && reg != 8))
        return cpu_fault(cpu, VECTOR_UD);
    if (cpu->cpl)
        return general_protection(cpu);
    uint64_t value = cpu_get_gpr(cpu, op->rm, op->code_size == 8 ? 8 : 4, false);
    enum cpu_result result = write_control(cpu, reg, value);
    return result == CPU_JUMP ? jump_next(cpu, op) : result;
}

enum cpu_result cpu_op_clts(struct cpu *cpu, const struct cpu_op *op) {
    if (cpu->cpl)
        return general_protection(cpu);
    cpu->cr0 &= ~CR0_TS;
    cpu_x87_changed(cpu);
    return jump_next(cpu, op);
}

enum cpu_result cpu_op_lmsw(struct cpu *cpu, const struct cpu_op *op) {
    uint64_t value;
    if (cpu->cpl)
        return general_protection(cpu);
    enum cpu_result result = cpu_op_read_rm(cpu, op, 2, &value);
    if (result != CPU_NEXT)
        return result;
    /* PE can be set, never cleared. */
    uint64_t low = value & (CR0_PE | CR0_MP | CR0_EM | CR0_TS);
    result = write_cr0(cpu, (cpu->cr0 & ~(CR0_MP | CR0_EM | CR0_TS)) | low);
    return result == CPU_JUMP ? jump_next(cpu, op) : result;
}

enum cpu_result cpu_op_smsw(struct cpu *cpu, const struct cpu_op *op) {
    if ((cpu->cr4 & CR4_UMIP) && cpu->cpl)
        return general_protection(cpu);
    return cpu_op_write_rm(cpu, op, op->rm == CPU_NO_REGISTER ? 2 : op->size, cpu->cr0);
}

/* ---- MOV DR ---- */

/* DR4 and DR5 are DR6 and DR7 while CR4.DE is clear. CPU_NEXT with *reg set, or the fault. */
static enum cpu_result check_debug(struct cpu *cpu, const struct cpu_op *op, unsigned *reg) {
    *reg = op->reg;
    if (*reg > 7 || ((*reg == 4 || *reg == 5) && (cpu->cr4 & CR4_DE)))
        return cpu_fault(cpu, VECTOR_UD);
    if (*reg == 4 || *reg == 5)
        *reg += 2;
    if (cpu->cpl)
        return general_protection(cpu);
    if (cpu->dr[7] & DR7_GD)
        return cpu_fault_debug(cpu, DR6_BD, false);
    return CPU_NEXT;
}

enum cpu_result cpu_op_mov_from_dr(struct cpu *cpu, const struct cpu_op *op) {
    unsigned reg;
    enum cpu_result result = check_debug(cpu, op, &reg);
    if (result == CPU_NEXT)
        cpu_set_gpr(cpu, op->rm, op->code_size == 8 ? 8 : 4, false, cpu->dr[reg]);
    return result;
}

enum cpu_result cpu_op_mov_to_dr(struct cpu *cpu, const struct cpu_op *op) {
    unsigned reg;
    enum cpu_result result = check_debug(cpu, op, &reg);
    if (result != CPU_NEXT)
        return result;
    uint64_t value = cpu_get_gpr(cpu, op->rm, op->code_size == 8 ? 8 : 4, false);
    if (reg >= 6 && value >> 32)
        return general_protection(cpu);
    if (reg == 6)
        value = (value & DR6_WRITABLE) | DR6_FIXED;
    else if (reg == 7)
        value = (value & DR7_WRITABLE) | DR7_FIXED;
    if (cpu->dr[reg] == value)
        return CPU_NEXT;
    cpu->dr[reg] = value;
    if (reg < 4 && cpu_is_watching(cpu))
        cpu_flush_all(cpu); /* the page that is watched now may be in the shadow page tables */
    cpu_control_changed(cpu);
    return jump_next(cpu, op);
}

/* ---- XCR0 ---- */

enum { XCR0_X87 = 1, XCR0_SSE = 2, XCR0_AVX = 4, XCR0_AVX512 = 0xe0 };

static bool is_xcr0_valid(const struct cpu *cpu, uint64_t value) {
    if ((value & ~cpu_model_xcr0(cpu->model)) || !(value & XCR0_X87))
        return false;
    if ((value & XCR0_AVX) && !(value & XCR0_SSE))
        return false;
    uint64_t avx512 = value & XCR0_AVX512;
    return !avx512 || (avx512 == XCR0_AVX512 && (value & XCR0_AVX));
}

enum cpu_result cpu_op_xsetbv(struct cpu *cpu, const struct cpu_op *op) {
    if (!(cpu->cr4 & CR4_OSXSAVE))
        return cpu_fault(cpu, VECTOR_UD);
    uint64_t value = (uint32_t)cpu->hot.gpr[CPU_RAX] | cpu->hot.gpr[CPU_RDX] << 32;
    if (cpu->cpl || (uint32_t)cpu->hot.gpr[CPU_RCX] || !is_xcr0_valid(cpu, value))
        return general_protection(cpu);
    cpu->xcr0 = value;
    cpu_control_changed(cpu);
    return jump_next(cpu, op);
}

enum cpu_result cpu_op_xgetbv(struct cpu *cpu, const struct cpu_op *op) {
    (void)op;
    if (!(cpu->cr4 & CR4_OSXSAVE))
        return cpu_fault(cpu, VECTOR_UD);
    uint32_t index = (uint32_t)cpu->hot.gpr[CPU_RCX];
    uint64_t value = cpu->xcr0;
    if (index == 1 && cpu_has(cpu, FEATURE_XGETBV1)) {
        /* Which components are not in their initial state: the guest's own are live in the host. */
        uint32_t low, high;
        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(1));
        value &= low | (uint64_t)high << 32;
    } else if (index) {
        return general_protection(cpu);
    }
    cpu->hot.gpr[CPU_RAX] = (uint32_t)value;
    cpu->hot.gpr[CPU_RDX] = value >> 32;
    return CPU_NEXT;
}
