/*
 * Segment registers: loads with the checks of the real, virtual-8086, protected and 64-bit modes, and the instructions
 * that move them (SDM vol. 2, MOV, PUSH, POP, LDS/LES/LFS/LGS/LSS, SWAPGS).
 */
#include "cpu/segment.h"
#include "cpu/access.h"
#include "cpu/mode.h"
#include "cpu/ops.h"
#include "cpu/stack.h"

uint64_t segment_next_rip(const struct cpu *cpu, unsigned length) {
    const uint64_t rip = cpu->hot.rip + length;

    return cpu_is_64bit(cpu) ? rip : (uint32_t)rip;
}

/* In real mode a load leaves limit and access rights as they were: "big real mode" depends on it. */
static struct trapeze_segment real_segment(const struct cpu *cpu, unsigned index, uint16_t selector) {
    struct trapeze_segment segment = cpu->segment[index];

    if (cpu_is_vm86(cpu))
        return segment_vm86(selector);
    segment.selector = selector;
    segment.base = (uint32_t)selector << 4;
    if (segment.attributes & SEGMENT_UNUSABLE) {
        segment.limit = 0xffff;
        segment.attributes = SEGMENT_REAL_TYPE;
    }
    return segment;
}

void segment_set_real_code(struct cpu *cpu, uint16_t selector) {
    struct trapeze_segment *code = &cpu->segment[CPU_CS];

    *code = real_segment(cpu, CPU_CS, selector);
    if (!cpu_is_vm86(cpu))
        code->attributes = (code->attributes & (SEGMENT_DB | SEGMENT_G)) | SEGMENT_REAL_TYPE;
}

void segment_set_code(struct cpu *cpu, const struct descriptor *d, uint16_t selector, unsigned cpl) {
    descriptor_unpack(d, (uint16_t)((selector & 0xfffc) | cpl), &cpu->segment[CPU_CS]);
    cpu->cpl = (uint8_t)cpl;
}

void segment_drop_inner(struct cpu *cpu) {
    static const uint8_t data_registers[] = {CPU_ES, CPU_DS, CPU_FS, CPU_GS};

    for (unsigned i = 0; i < sizeof data_registers; i++) {
        struct trapeze_segment *segment = &cpu->segment[data_registers[i]];
        const bool is_conforming_code =
            (segment->attributes & (SEGMENT_CODE | SEGMENT_CONFORMING)) == (SEGMENT_CODE | SEGMENT_CONFORMING);

        if (segment->attributes & SEGMENT_UNUSABLE) {
            segment->selector = 0; /* 1 to 3 are null as well, and do not stay */
            continue;
        }
        if (is_conforming_code || (segment->attributes >> SEGMENT_DPL_SHIFT & 3) >= cpu->cpl)
            continue;
        /* The base stays: 64-bit code goes on using that of FS and GS. */
        segment->selector = 0;
        segment->attributes = SEGMENT_UNUSABLE;
        cpu_segment_changed(cpu, data_registers[i]);
    }
}

/* DS, ES, FS, GS: data or readable code that both CPL and RPL may reach. The descriptor of a null selector is 0. */
static enum cpu_result check_data(struct cpu *cpu, uint16_t selector, enum cpu_vector vector,
                                  struct trapeze_segment *segment, struct descriptor *descriptor) {
    struct descriptor d;
    const unsigned rpl = selector & 3;

    descriptor->raw = 0;

    if (selector_is_null(selector)) {
        *segment = segment_null(selector);
        return CPU_NEXT;
    }
    if (descriptor_fetch(cpu, selector, vector, &d) != CPU_NEXT)
        return CPU_FAULT;

    const unsigned type = descriptor_type(&d);
    const bool is_code = descriptor_is_code(&d);

    if (!(type & SEGMENT_S) || (is_code && !(type & SEGMENT_READABLE)))
        return cpu_fault_code(cpu, vector, selector_error(selector));
    if (!(is_code && descriptor_is_conforming(&d)) && (rpl > descriptor_dpl(&d) || cpu->cpl > descriptor_dpl(&d)))
        return cpu_fault_code(cpu, vector, selector_error(selector));
    if (!descriptor_is_present(&d))
        return cpu_fault_code(cpu, VECTOR_NP, selector_error(selector));
    if (descriptor_mark_accessed(cpu, &d) != CPU_NEXT)
        return CPU_FAULT;
    descriptor_unpack(&d, selector, segment);
    *descriptor = d;
    return CPU_NEXT;
}

enum cpu_result segment_check_data(struct cpu *cpu, uint16_t selector, enum cpu_vector vector,
                                   struct trapeze_segment *segment) {
    struct descriptor descriptor;

    return check_data(cpu, selector, vector, segment, &descriptor);
}

/* Whether the register counts as flat for the mode key. */
static bool is_flat(const struct cpu *cpu, unsigned index) {
    return cpu->hot.segment[index].base == 0 && cpu->hot.segment[index].write_end == 1ull << 32;
}

static enum cpu_result commit(struct cpu *cpu, unsigned index, const struct trapeze_segment *segment) {
    const bool was_flat = is_flat(cpu, index);
    const uint32_t old_attributes = cpu->segment[index].attributes;
    const uint32_t old_key = cpu->mode_key;

    cpu->segment[index] = *segment;
    cpu_segment_changed(cpu, index);
    if (cpu_is_64bit(cpu) || index >= CPU_FS)
        return CPU_NEXT;
    if (was_flat == is_flat(cpu, index) && !(index == CPU_SS && ((old_attributes ^ segment->attributes) & SEGMENT_DB)))
        return CPU_NEXT;
    cpu_level_changed(cpu);
    return cpu->mode_key == old_key ? CPU_NEXT : CPU_JUMP;
}

enum cpu_result segment_load(struct cpu *cpu, unsigned index, uint16_t selector) {
    struct trapeze_segment segment;
    struct descriptor descriptor = {.raw = 0};
    enum cpu_result result = CPU_NEXT;

    if (!cpu_is_protected(cpu) || cpu_is_vm86(cpu)) {
        segment = real_segment(cpu, index, selector);
    } else if (index == CPU_SS) {
        const bool is_null_allowed = cpu_is_64bit(cpu) && cpu->cpl < 3 && (selector & 3) == cpu->cpl;

        result = descriptor_check_stack(cpu, selector, cpu->cpl, is_null_allowed, VECTOR_GP, &segment);
    } else {
        result = check_data(cpu, selector, VECTOR_GP, &segment, &descriptor);
    }
    if (result != CPU_NEXT)
        return result;
    result = commit(cpu, index, &segment);
    if (descriptor.raw && !(selector & 4))
        cpu->loaded[index] = (struct cpu_loaded){descriptor.raw, selector};
    return result;
}

/* Where a load changed the mode key, the next instruction is another block's. */
static enum cpu_result finish(struct cpu *cpu, const struct cpu_op *op, enum cpu_result result) {
    if (result == CPU_JUMP)
        cpu->hot.rip = segment_next_rip(cpu, op->length);
    return result;
}

enum cpu_result cpu_op_mov_to_segment(struct cpu *cpu, const struct cpu_op *op) {
    uint64_t selector;

    if (op->reg == CPU_CS || op->reg >= CPU_SEGMENTS)
        return cpu_fault(cpu, VECTOR_UD);
    if (cpu_op_read_rm(cpu, op, 2, &selector) != CPU_NEXT)
        return CPU_FAULT;

    const enum cpu_result result = segment_load(cpu, op->reg, (uint16_t)selector);

    if (result != CPU_FAULT && op->reg == CPU_SS)
        cpu->interrupt_shadow = true;
    return finish(cpu, op, result);
}

enum cpu_result cpu_op_mov_from_segment(struct cpu *cpu, const struct cpu_op *op) {
    if (op->reg >= CPU_SEGMENTS)
        return cpu_fault(cpu, VECTOR_UD);
    /* Memory gets 16 bits whatever the operand size. */
    return cpu_op_write_rm(cpu, op, op->rm == CPU_NO_REGISTER ? 2 : op->size, cpu->segment[op->reg].selector);
}

enum cpu_result cpu_op_push_segment(struct cpu *cpu, const struct cpu_op *op) {
    const uint64_t value = cpu->segment[op->reg].selector;
    const unsigned size = op->size == 4 ? 2 : op->size;
    struct stack stack;

    stack_current(cpu, &stack);
    /* With a 32-bit operand processors write 16 bits and leave the upper half of the slot (vol. 2, PUSH). */
    stack_release(&stack, size - op->size);
    if (stack_push(cpu, &stack, &value, 1, size) != CPU_NEXT)
        return CPU_FAULT;
    cpu_rsp(cpu) = stack.pointer;
    return CPU_NEXT;
}

enum cpu_result cpu_op_pop_segment(struct cpu *cpu, const struct cpu_op *op) {
    struct stack stack;
    uint64_t selector;

    if (op->reg == CPU_CS || op->reg >= CPU_SEGMENTS)
        return cpu_fault(cpu, VECTOR_UD);
    stack_current(cpu, &stack);
    if (stack_peek(cpu, &stack, 0, &selector, 1, op->size) != CPU_NEXT)
        return CPU_FAULT;

    const enum cpu_result result = segment_load(cpu, op->reg, (uint16_t)selector);

    if (result == CPU_FAULT)
        return result;
    /* The width of the stack is that before a load of SS. */
    stack_release(&stack, op->size);
    cpu_rsp(cpu) = stack.pointer;
    if (op->reg == CPU_SS)
        cpu->interrupt_shadow = true;
    return finish(cpu, op, result);
}

enum cpu_result cpu_op_load_far_pointer(struct cpu *cpu, const struct cpu_op *op) {
    const uint64_t address = cpu_op_offset(cpu, op);
    uint8_t pointer[10];
    uint64_t offset = 0;
    uint16_t selector;

    if (op->rm != CPU_NO_REGISTER)
        return cpu_fault(cpu, VECTOR_UD);
    if (cpu_read(cpu, op->segment, address, pointer, op->size + 2u) != CPU_NEXT)
        return CPU_FAULT;
    cpu_copy(&offset, pointer, op->size);
    cpu_copy(&selector, pointer + op->size, 2);

    const enum cpu_result result = segment_load(cpu, op->immediate2, selector);

    if (result == CPU_FAULT)
        return result;
    cpu_set_gpr(cpu, op->reg, op->size, false, offset);
    return finish(cpu, op, result);
}

enum cpu_result cpu_op_swapgs(struct cpu *cpu, const struct cpu_op *op) {
    const uint64_t base = cpu->segment[CPU_GS].base;

    (void)op;
    if (!cpu_is_64bit(cpu))
        return cpu_fault(cpu, VECTOR_UD);
    if (cpu->cpl != 0)
        return cpu_fault_code(cpu, VECTOR_GP, 0);
    cpu->segment[CPU_GS].base = cpu->msr.kernel_gs_base;
    cpu->msr.kernel_gs_base = base;
    cpu_segment_changed(cpu, CPU_GS);
    return CPU_NEXT;
}
