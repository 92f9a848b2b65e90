/*
 * Vector instructions that reach memory at more than one address, or at one that no ModRM names: AVX2 and AVX-512
 * gathers and scatters, MASKMOVQ, MASKMOVDQU, MOVDIR64B (SDM vol. 2).
 *
 * Elements go one by one from the lowest up; a fault leaves those before it done and their mask bits clear.
 */
#include "cpu/access.h"
#include "cpu/model.h"
#include "cpu/ops.h"
#include "cpu/xstate.h"

/* ---- Gather and scatter ---- */

struct elements {
    struct cpu *cpu;
    const struct cpu_op *op;
    uint8_t *image;
    uint64_t saved;      /* components in the image */
    unsigned count;
    bool is_opmask;      /* EVEX: the mask is a k register, else the sign bits of a vector register */
    uint8_t index[64], data[64], mask[64];
    uint64_t opmask;
};

static bool names_register_twice(const struct cpu_op *op, bool is_opmask) {
    if (op->reg == op->index)
        return true;
    return !is_opmask && (op->reg == op->vvvv || op->index == op->vvvv);
}

static enum cpu_result begin(struct elements *e, struct cpu *cpu, const struct cpu_op *op, bool is_gather) {
    unsigned wider = op->index_size > op->element_size ? op->index_size : op->element_size;
    e->cpu = cpu;
    e->op = op;
    e->count = op->vector_length / wider;
    e->is_opmask = op->mask != 0;
    e->opmask = 0;
    cpu_clear(e->mask, sizeof e->mask);
    if (is_gather && names_register_twice(op, e->is_opmask))
        return cpu_fault(cpu, VECTOR_UD);
    enum cpu_result result = xstate_check(cpu, true);
    if (result != CPU_NEXT)
        return result;
    e->saved = cpu->xcr0 & (XSTATE_SSE | XSTATE_AVX | XSTATE_AVX512);
    e->image = xstate_save(cpu, e->saved);
    xstate_get_vector(cpu, e->image, op->index, e->index, 64);
    xstate_get_vector(cpu, e->image, op->reg, e->data, 64);
    if (e->is_opmask)
        e->opmask = xstate_get_opmask(cpu, e->image, op->mask);
    else
        xstate_get_vector(cpu, e->image, op->vvvv, e->mask, 64);
    return CPU_NEXT;
}

static bool is_selected(const struct elements *e, unsigned i) {
    if (e->is_opmask)
        return e->opmask >> i & 1;
    return e->mask[(i + 1) * e->op->element_size - 1] & 0x80;
}

static void clear_selected(struct elements *e, unsigned i) {
    if (e->is_opmask)
        e->opmask &= ~(1ull << i);
    else
        cpu_clear(e->mask + i * e->op->element_size, e->op->element_size);
}

static uint64_t element_offset(const struct elements *e, unsigned i) {
    int64_t index = 0;
    if (e->op->index_size == 4) {
        int32_t narrow;
        cpu_copy(&narrow, e->index + 4 * i, 4);
        index = narrow;
    } else {
        cpu_copy(&index, e->index + 8 * i, 8);
    }
    uint64_t offset = cpu_op_offset(e->cpu, e->op) + (uint64_t)index * e->op->scale;
    return e->op->address_size == 8 ? offset : (uint32_t)offset;
}

/* Puts the edited registers back; the components that were written are in use now. */
static void commit(struct elements *e, bool is_gather) {
    const struct cpu_op *op = e->op;
    uint64_t in_use = XSTATE_SSE | XSTATE_AVX;
    if (is_gather)
        xstate_set_vector(e->cpu, e->image, op->reg, e->data);
    if (e->is_opmask) {
        xstate_set_opmask(e->cpu, e->image, op->mask, e->opmask);
        in_use = XSTATE_SSE | XSTATE_AVX | XSTATE_AVX512;
    } else {
        xstate_set_vector(e->cpu, e->image, op->vvvv, e->mask);
    }
    *xstate_bv(e->image) |= in_use & e->saved;
    xstate_restore(e->cpu, e->saved);
}

enum cpu_result cpu_op_gather(struct cpu *cpu, const struct cpu_op *op) {
    struct elements e;
    enum cpu_result result = begin(&e, cpu, op, true);
    if (result != CPU_NEXT)
        return result;
    for (unsigned i = 0; i < e.count && result == CPU_NEXT; i++) {
        if (!is_selected(&e, i))
            continue;
        result = cpu_read(cpu, op->segment, element_offset(&e, i), e.data + i * op->element_size, op->element_size);
        if (result == CPU_NEXT)
            clear_selected(&e, i);
    }
    if (result == CPU_NEXT) { /* not before: a fault leaves what lies behind the elements alone */
        unsigned width = e.count * op->element_size;
        cpu_clear(e.data + width, sizeof e.data - width);
        e.opmask = 0;
        cpu_clear(e.mask, sizeof e.mask);
    }
    commit(&e, true);
    return result;
}

enum cpu_result cpu_op_scatter(struct cpu *cpu, const struct cpu_op *op) {
    struct elements e;
    enum cpu_result result = begin(&e, cpu, op, false);
    if (result != CPU_NEXT)
        return result;
    for (unsigned i = 0; i < e.count && result == CPU_NEXT; i++) {
        if (!is_selected(&e, i))
            continue;
        result = cpu_write(cpu, op->segment, element_offset(&e, i), e.data + i * op->element_size, op->element_size);
        if (result == CPU_NEXT)
            clear_selected(&e, i);
    }
    if (result == CPU_NEXT)
        e.opmask = 0;
    commit(&e, false);
    return result;
}

/* ---- Byte-masked stores ---- */

#define READ_MMX(n)                                                                                                    \
    case n:                                                                                                            \
        __asm__ volatile("movq %%mm" #n ", %0" : "=m"(value));                                                         \
        break

static uint64_t read_mmx(unsigned n) {
    uint64_t value = 0;
    switch (n & 7) {
        READ_MMX(0);
        READ_MMX(1);
        READ_MMX(2);
        READ_MMX(3);
        READ_MMX(4);
        READ_MMX(5);
        READ_MMX(6);
        READ_MMX(7);
    }
    return value;
}

static void read_operands(struct cpu *cpu, const struct cpu_op *op, uint8_t data[16], uint8_t mask[16]) {
    if (op->size == 8) {
        uint64_t value = read_mmx(op->reg), selector = read_mmx(op->rm);
        cpu_copy(data, &value, 8);
        cpu_copy(mask, &selector, 8);
        return;
    }
    /* The legacy image is enough, and works where the guest has not enabled XSAVE. */
    uint8_t *image = cpu->xsave_bounce;
    __asm__ volatile("fxsave64 (%0)" : : "r"(image) : "memory");
    cpu_copy(data, image + IMAGE_XMM + 16 * op->reg, 16);
    cpu_copy(mask, image + IMAGE_XMM + 16 * op->rm, 16);
}

/* The next run of selected bytes from *start on; 0 when there is none. */
static unsigned next_run(const uint8_t mask[16], unsigned size, unsigned *start) {
    while (*start < size && !(mask[*start] & 0x80))
        ++*start;
    unsigned end = *start;
    while (end < size && (mask[end] & 0x80))
        end++;
    return end - *start;
}

static enum cpu_result for_each_run(struct cpu *cpu, const struct cpu_op *op, const uint8_t *data,
                                    const uint8_t *mask, bool is_write) {
    uint64_t base = cpu_get_gpr(cpu, CPU_RDI, op->address_size, false), linear;
    uint64_t wrap = op->address_size == 8 ? ~0ull : (1ull << (8 * op->address_size)) - 1;
    unsigned size = op->size == 8 ? 8 : 16;
    for (unsigned start = 0, length; (length = next_run(mask, size, &start)); start += length) {
        enum cpu_result result =
            cpu_linear(cpu, op->segment, (base + start) & wrap, length, ACCESS_WRITE, &linear);
        if (result == CPU_NEXT)
            result = is_write ? cpu_write_linear(cpu, linear, data + start, length, ACCESS_WRITE)
                              : cpu_probe_linear(cpu, linear, length, ACCESS_WRITE);
        if (result != CPU_NEXT)
            return result;
    }
    return CPU_NEXT;
}

enum cpu_result cpu_op_maskmov(struct cpu *cpu, const struct cpu_op *op) {
    uint8_t data[16], mask[16];
    enum cpu_result result = xstate_check(cpu, true);
    if (result != CPU_NEXT)
        return result;
    read_operands(cpu, op, data, mask);
    result = for_each_run(cpu, op, data, mask, false);
    return result == CPU_NEXT ? for_each_run(cpu, op, data, mask, true) : result;
}

enum cpu_result cpu_op_movdir64b(struct cpu *cpu, const struct cpu_op *op) {
    _Alignas(64) uint8_t data[64];
    uint64_t linear, offset = cpu_get_gpr(cpu, op->reg, op->address_size, false);
    enum cpu_result result = cpu_read(cpu, op->segment, cpu_op_offset(cpu, op), data, sizeof data);
    if (result == CPU_NEXT)
        result = cpu_linear(cpu, CPU_ES, offset, sizeof data, ACCESS_WRITE, &linear);
    if (result != CPU_NEXT)
        return result;
    if (linear & 63)
        return cpu_fault_code(cpu, VECTOR_GP, 0);
    return cpu_write_linear(cpu, linear, data, sizeof data, ACCESS_WRITE);
}
