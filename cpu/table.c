/*
 * Descriptor-table registers (SDM vol. 2, LGDT/LIDT, SGDT, SIDT, LLDT, SLDT, LTR, STR), with user-mode instruction
 * prevention.
 */
#include "cpu/access.h"
#include "cpu/ops.h"
#include "cpu/segment.h"

static enum cpu_result general_protection(struct cpu *cpu) {
    return cpu_fault_code(cpu, VECTOR_GP, 0);
}

static bool is_prevented(const struct cpu *cpu) {
    return (cpu->cr4 & CR4_UMIP) && cpu->cpl > 0;
}

/* ---- GDTR and IDTR ---- */

static enum cpu_result read_table(struct cpu *cpu, const struct cpu_op *op, uint64_t *base, uint16_t *limit) {
    const unsigned base_size = cpu_is_64bit(cpu) ? 8 : 4;
    uint8_t image[10];
    uint64_t address = 0;

    if (op->rm != CPU_NO_REGISTER)
        return cpu_fault(cpu, VECTOR_UD);
    if (cpu->cpl != 0)
        return general_protection(cpu);
    if (cpu_read(cpu, op->segment, cpu_op_offset(cpu, op), image, base_size + 2) != CPU_NEXT)
        return CPU_FAULT;
    cpu_copy(&address, image + 2, base_size);
    if (!cpu_is_canonical(address))
        return general_protection(cpu);
    if (base_size == 4 && op->size == 2)
        address &= 0xffffff;
    *base = address;
    cpu_copy(limit, image, 2);
    return CPU_NEXT;
}

enum cpu_result cpu_op_lgdt(struct cpu *cpu, const struct cpu_op *op) {
    return read_table(cpu, op, &cpu->gdtr.base, &cpu->gdtr.limit);
}

enum cpu_result cpu_op_lidt(struct cpu *cpu, const struct cpu_op *op) {
    return read_table(cpu, op, &cpu->idtr.base, &cpu->idtr.limit);
}

/* All of the base is stored whatever the operand size is, as every processor since the 386 has it. */
static enum cpu_result write_table(struct cpu *cpu, const struct cpu_op *op, uint64_t base, uint16_t limit) {
    const unsigned base_size = cpu_is_64bit(cpu) ? 8 : 4;
    uint8_t image[10];

    if (op->rm != CPU_NO_REGISTER)
        return cpu_fault(cpu, VECTOR_UD);
    if (is_prevented(cpu))
        return general_protection(cpu);
    cpu_copy(image, &limit, 2);
    cpu_copy(image + 2, &base, base_size);
    return cpu_write(cpu, op->segment, cpu_op_offset(cpu, op), image, base_size + 2);
}

enum cpu_result cpu_op_sgdt(struct cpu *cpu, const struct cpu_op *op) {
    return write_table(cpu, op, cpu->gdtr.base, cpu->gdtr.limit);
}

enum cpu_result cpu_op_sidt(struct cpu *cpu, const struct cpu_op *op) {
    return write_table(cpu, op, cpu->idtr.base, cpu->idtr.limit);
}

/* ---- LDTR and TR ---- */

static bool has_selectors(const struct cpu *cpu) {
    return cpu_is_protected(cpu) && !cpu_is_vm86(cpu);
}

/* The descriptor of LLDT or LTR: in the GDT, 16 bytes in long mode. */
static enum cpu_result read_system(struct cpu *cpu, uint16_t selector, struct descriptor *d,
                                   struct trapeze_segment *segment) {
    uint64_t upper = 0;

    if (selector & 4)
        return cpu_fault_code(cpu, VECTOR_GP, selector_error(selector));
    if (descriptor_fetch(cpu, selector, VECTOR_GP, d) != CPU_NEXT)
        return CPU_FAULT;
    if (cpu_is_long_mode(cpu) && descriptor_fetch_upper(cpu, selector, VECTOR_GP, d, &upper) != CPU_NEXT)
        return CPU_FAULT;
    descriptor_unpack(d, selector, segment);
    segment->base |= upper << 32;
    return CPU_NEXT;
}

/* Type, canonical base, and last of all presence. */
static enum cpu_result check_system(struct cpu *cpu, const struct descriptor *d, bool is_type_right,
                                    const struct trapeze_segment *segment) {
    if (!is_type_right || !cpu_is_canonical(segment->base))
        return cpu_fault_code(cpu, VECTOR_GP, selector_error(segment->selector));
    if (!descriptor_is_present(d))
        return cpu_fault_code(cpu, VECTOR_NP, selector_error(segment->selector));
    return CPU_NEXT;
}

enum cpu_result cpu_op_lldt(struct cpu *cpu, const struct cpu_op *op) {
    struct trapeze_segment segment;
    struct descriptor d;
    uint64_t selector;

    if (!has_selectors(cpu))
        return cpu_fault(cpu, VECTOR_UD);
    if (cpu->cpl != 0)
        return general_protection(cpu);
    if (cpu_op_read_rm(cpu, op, 2, &selector) != CPU_NEXT)
        return CPU_FAULT;
    if (selector_is_null((uint16_t)selector)) {
        cpu->ldtr = segment_null((uint16_t)selector);
        return CPU_NEXT;
    }
    if (read_system(cpu, (uint16_t)selector, &d, &segment) != CPU_NEXT ||
        check_system(cpu, &d, descriptor_type(&d) == DESCRIPTOR_LDT, &segment) != CPU_NEXT)
        return CPU_FAULT;
    cpu->ldtr = segment;
    return CPU_NEXT;
}

enum cpu_result cpu_op_ltr(struct cpu *cpu, const struct cpu_op *op) {
    struct trapeze_segment segment;
    struct descriptor d;
    uint64_t selector;

    if (!has_selectors(cpu))
        return cpu_fault(cpu, VECTOR_UD);
    if (cpu->cpl != 0)
        return general_protection(cpu);
    if (cpu_op_read_rm(cpu, op, 2, &selector) != CPU_NEXT)
        return CPU_FAULT;
    if (selector_is_null((uint16_t)selector))
        return general_protection(cpu);
    if (read_system(cpu, (uint16_t)selector, &d, &segment) != CPU_NEXT)
        return CPU_FAULT;

    const unsigned type = descriptor_type(&d);
    const bool is_available = type == DESCRIPTOR_TSS32 || (type == DESCRIPTOR_TSS16 && !cpu_is_long_mode(cpu));

    if (check_system(cpu, &d, is_available, &segment) != CPU_NEXT ||
        descriptor_set_busy(cpu, d.address, true) != CPU_NEXT)
        return CPU_FAULT;
    segment.attributes |= DESCRIPTOR_BUSY;
    cpu->tr = segment;
    return CPU_NEXT;
}

static enum cpu_result store_selector(struct cpu *cpu, const struct cpu_op *op, uint16_t selector) {
    if (!has_selectors(cpu))
        return cpu_fault(cpu, VECTOR_UD);
    if (is_prevented(cpu))
        return general_protection(cpu);
    return cpu_op_write_rm(cpu, op, op->rm == CPU_NO_REGISTER ? 2 : op->size, selector);
}

enum cpu_result cpu_op_sldt(struct cpu *cpu, const struct cpu_op *op) {
    return store_selector(cpu, op, cpu->ldtr.selector);
}

enum cpu_result cpu_op_str(struct cpu *cpu, const struct cpu_op *op) {
    return store_selector(cpu, op, cpu->tr.selector);
}
