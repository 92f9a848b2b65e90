/*
 * XSAVE, XSAVEOPT, XSAVEC, XSAVES, XRSTOR, XRSTORS, FXSAVE, FXRSTOR (SDM vol. 1, 10.5 and 13).
 *
 * The host makes and takes an image in standard format; what of it the guest's instruction writes or reads, and where,
 * is decided here, and everything that could make the host fault is checked before. The x87 pointers are the guest's
 * (cpu/x87.c). There are no supervisor components.
 */
#include "cpu/access.h"
#include "cpu/model_internal.h"
#include "cpu/ops.h"
#include "cpu/xstate.h"

#define COMPACTED   (1ull << 63)
#define MXCSR_RESET 0x1f80u
#define PIECES      12

/* A run of bytes at `image` in our image and at `guest` in the guest's. */
struct piece {
    uint32_t image, guest, size;
};

struct area {
    struct cpu *cpu;
    uint64_t linear;      /* of the guest's image */
    uint64_t mask;        /* RFBM: what the instruction is about */
    uint64_t compacted;   /* XCOMP_BV, or 0 for the standard format */
    bool is_64bit;        /* else registers 8 and up are left alone */
};

static enum cpu_result general_protection(struct cpu *cpu) {
    return cpu_fault_code(cpu, VECTOR_GP, 0);
}

/* ---- Layout ---- */

/* Where a component above SSE lies in the guest's image. */
static uint32_t component_offset(const struct area *area, unsigned component) {
    const struct cpu_model *model = area->cpu->model;
    if (!area->compacted)
        return model->component[component].offset;
    uint32_t offset = IMAGE_EXTENDED;
    for (unsigned i = 2; i <= component; i++) {
        if (!(area->compacted >> i & 1))
            continue;
        if (model->component[i].is_aligned)
            offset = (offset + 63) & ~63u;
        if (i < component)
            offset += model->component[i].size;
    }
    return offset;
}

/* Bytes of a component that the current mode reaches: outside of 64-bit mode registers 0 to 7. */
static uint32_t component_size(const struct area *area, unsigned component) {
    uint32_t size = area->cpu->model->component[component].size;
    if (area->is_64bit || component == 5)
        return size;
    return component == 7 ? 0 : size / 2;
}

static uint32_t xmm_size(const struct area *area) {
    return area->is_64bit ? 256 : 128;
}

static uint32_t area_size(const struct area *area, uint64_t components) {
    uint32_t size = IMAGE_EXTENDED;
    for (unsigned i = 2; i < XSTATE_COMPONENTS; i++) {
        if (!(components >> i & 1))
            continue;
        uint32_t end = component_offset(area, i) + component_size(area, i);
        if (end > size)
            size = end;
    }
    return size;
}

/* The pieces of the given components, MXCSR apart. */
static unsigned list_pieces(const struct area *area, uint64_t components, struct piece *pieces) {
    unsigned count = 0;
    if (components & XSTATE_X87) {
        pieces[count++] = (struct piece){0, 0, IMAGE_MXCSR};
        pieces[count++] = (struct piece){IMAGE_ST, IMAGE_ST, IMAGE_XMM - IMAGE_ST};
    }
    if (components & XSTATE_SSE)
        pieces[count++] = (struct piece){IMAGE_XMM, IMAGE_XMM, xmm_size(area)};
    for (unsigned i = 2; i < XSTATE_COMPONENTS; i++)
        if ((components >> i & 1) && component_size(area, i))
            pieces[count++] = (struct piece){area->cpu->model->component[i].offset, component_offset(area, i),
                                             component_size(area, i)};
    return count;
}

/* ---- What all of them check first ---- */

static enum cpu_result begin(struct area *area, struct cpu *cpu, const struct cpu_op *op, bool is_write) {
    uint64_t offset = cpu_op_offset(cpu, op);
    *area = (struct area){.cpu = cpu, .is_64bit = cpu_is_64bit(cpu)};
    area->mask = ((uint32_t)cpu->hot.gpr[CPU_RAX] | cpu->hot.gpr[CPU_RDX] << 32) & cpu->xcr0;
    if (!(cpu->cr4 & CR4_OSXSAVE))
        return cpu_fault(cpu, VECTOR_UD);
    if (cpu->cr0 & CR0_TS)
        return cpu_fault(cpu, VECTOR_NM);
    enum cpu_result result =
        cpu_linear(cpu, op->segment, offset, IMAGE_EXTENDED, is_write ? ACCESS_WRITE : ACCESS_READ, &area->linear);
    if (result == CPU_NEXT && (area->linear & 63))
        return general_protection(cpu);
    return result;
}

/* Limit and paging of the whole area, before any of it is touched. */
static enum cpu_result check_area(const struct area *area, const struct cpu_op *op, uint32_t size, unsigned access) {
    uint64_t linear;
    enum cpu_result result =
        cpu_linear(area->cpu, op->segment, cpu_op_offset(area->cpu, op), size, access, &linear);
    return result == CPU_NEXT ? cpu_probe_linear(area->cpu, linear, size, access) : result;
}

/* ---- Saving ---- */

static enum cpu_result write_part(const struct area *area, uint32_t guest, const void *from, unsigned size) {
    return cpu_write_linear(area->cpu, area->linear + guest, from, size, ACCESS_WRITE);
}

static enum cpu_result write_pieces(const struct area *area, const uint8_t *image, uint64_t components) {
    struct piece pieces[PIECES];
    unsigned count = list_pieces(area, components, pieces);
    enum cpu_result result = CPU_NEXT;
    for (unsigned i = 0; i < count && result == CPU_NEXT; i++)
        result = write_part(area, pieces[i].guest, image + pieces[i].image, pieces[i].size);
    return result;
}

/* XSAVE, and XSAVEOPT, which leaves components in their initial state out. */
enum cpu_result cpu_op_xsave(struct cpu *cpu, const struct cpu_op *op) {
    struct area area;
    enum cpu_result result = begin(&area, cpu, op, true);
    if (result == CPU_NEXT)
        result = check_area(&area, op, area_size(&area, area.mask), ACCESS_WRITE);
    uint64_t old_bv = 0;
    if (result == CPU_NEXT)
        result = cpu_read_linear(cpu, area.linear + IMAGE_HEADER, &old_bv, 8, ACCESS_READ);
    if (result != CPU_NEXT)
        return result;
    x87_note_pointers(cpu);
    uint8_t *image = xstate_save(cpu, area.mask);
    x87_store_pointers(cpu, image, op->size == 8);
    bool is_optimised = (op->reg & 7) == 6;
    uint64_t bv = (old_bv & ~area.mask) | *xstate_bv(image);
    result = write_pieces(&area, image, is_optimised ? *xstate_bv(image) : area.mask);
    if (result == CPU_NEXT && (area.mask & (XSTATE_SSE | XSTATE_AVX)))
        result = write_part(&area, IMAGE_MXCSR, image + IMAGE_MXCSR, 8);
    return result == CPU_NEXT ? write_part(&area, IMAGE_HEADER, &bv, 8) : result;
}

enum cpu_result cpu_op_xsavec(struct cpu *cpu, const struct cpu_op *op) {
    struct area area;
    enum cpu_result result = begin(&area, cpu, op, true);
    area.compacted = area.mask | COMPACTED;
    if (result == CPU_NEXT)
        result = check_area(&area, op, area_size(&area, area.mask), ACCESS_WRITE);
    if (result != CPU_NEXT)
        return result;
    x87_note_pointers(cpu);
    uint8_t *image = xstate_save(cpu, area.mask);
    x87_store_pointers(cpu, image, op->size == 8);
    uint64_t header[2] = {*xstate_bv(image), area.compacted};
    uint32_t mxcsr;
    cpu_copy(&mxcsr, image + IMAGE_MXCSR, 4);
    if ((area.mask & XSTATE_SSE) && mxcsr != MXCSR_RESET)
        header[0] |= XSTATE_SSE;
    result = write_pieces(&area, image, header[0]);
    if (result == CPU_NEXT && (header[0] & XSTATE_SSE))
        result = write_part(&area, IMAGE_MXCSR, image + IMAGE_MXCSR, 8);
    return result == CPU_NEXT ? write_part(&area, IMAGE_HEADER, header, 16) : result;
}

enum cpu_result cpu_op_xsaves(struct cpu *cpu, const struct cpu_op *op) {
    return cpu->cpl ? general_protection(cpu) : cpu_op_xsavec(cpu, op);
}

/* ---- Restoring ---- */

/* The header's rules (SDM vol. 1, 13.8 and 13.12); sets area->compacted. */
static bool is_header_valid(struct area *area, const uint64_t header[8]) {
    uint64_t bv = header[0], compacted = header[1], rest = header[2];
    if (!(compacted & COMPACTED))
        return !(bv & ~area->cpu->xcr0) && !compacted && !rest;
    for (unsigned i = 3; i < 8; i++)
        rest |= header[i];
    area->compacted = compacted;
    return cpu_has(area->cpu, FEATURE_XSAVEC) && !(compacted & ~COMPACTED & ~area->cpu->xcr0) && !(bv & ~compacted) &&
           !rest;
}

static uint32_t current_mxcsr(void) {
    uint32_t mxcsr;
    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    return mxcsr;
}

/* The MXCSR after the restore: the guest's image has it in the standard format, or with SSE state. */
static enum cpu_result read_mxcsr(const struct area *area, uint64_t bv, uint32_t *mxcsr) {
    *mxcsr = current_mxcsr();
    bool is_read = area->compacted ? (area->mask & bv & XSTATE_SSE) != 0
                                   : (area->mask & (XSTATE_SSE | XSTATE_AVX)) != 0;
    if (area->compacted && (area->mask & ~bv & XSTATE_SSE))
        *mxcsr = MXCSR_RESET;
    if (!is_read)
        return CPU_NEXT;
    enum cpu_result result = cpu_read_linear(area->cpu, area->linear + IMAGE_MXCSR, mxcsr, 4, ACCESS_READ);
    if (result == CPU_NEXT && !xstate_is_mxcsr_valid(area->cpu, *mxcsr))
        return general_protection(area->cpu);
    return result;
}

/*
 * Outside of 64-bit mode the registers 8 and up keep their values, so the image begins as the current state, with the
 * lower registers of what the instruction restores in their initial state. Answers the components then in use.
 */
static uint64_t begin_with_current(const struct area *area, uint64_t bv) {
    uint64_t vectors = area->mask & (XSTATE_SSE | XSTATE_AVX | XSTATE_ZMM_HIGH);
    if (area->is_64bit || !vectors)
        return bv;
    uint8_t *image = xstate_save(area->cpu, vectors);
    struct piece pieces[PIECES];
    unsigned count = list_pieces(area, vectors, pieces);
    for (unsigned i = 0; i < count; i++)
        cpu_clear(image + pieces[i].image, pieces[i].size);
    return bv | *xstate_bv(image);
}

static enum cpu_result restore(struct area *area, const struct cpu_op *op, const uint64_t header[8]) {
    struct cpu *cpu = area->cpu;
    uint64_t read = header[0] & area->mask;
    uint32_t mxcsr;
    enum cpu_result result = read_mxcsr(area, header[0], &mxcsr);
    if (result == CPU_NEXT)
        result = check_area(area, op, area_size(area, read), ACCESS_READ);
    if (result != CPU_NEXT)
        return result;
    uint64_t mask = area->is_64bit ? area->mask : area->mask & ~(uint64_t)XSTATE_ZMM16;
    uint64_t bv = begin_with_current(area, read) & mask;
    struct piece pieces[PIECES];
    unsigned count = list_pieces(area, read, pieces);
    uint8_t *image = cpu->xsave_bounce;
    for (unsigned i = 0; i < count && result == CPU_NEXT; i++)
        result = cpu_read_linear(cpu, area->linear + pieces[i].guest, image + pieces[i].image, pieces[i].size,
                                 ACCESS_READ);
    if (result != CPU_NEXT)
        return result;
    if (read & XSTATE_X87)
        x87_load_pointers(cpu, image, op->size == 8);
    else if (area->mask & XSTATE_X87)
        cpu->x87 = (struct cpu_x87){0};
    cpu_copy(image + IMAGE_MXCSR, &mxcsr, 4);
    cpu_clear(image + IMAGE_HEADER, 64);
    *xstate_bv(image) = bv;
    xstate_restore(cpu, mask);
    return CPU_NEXT;
}

enum cpu_result cpu_op_xrstor(struct cpu *cpu, const struct cpu_op *op) {
    struct area area;
    uint64_t header[8];
    enum cpu_result result = begin(&area, cpu, op, false);
    if (result == CPU_NEXT)
        result = cpu_read_linear(cpu, area.linear + IMAGE_HEADER, header, sizeof header, ACCESS_READ);
    if (result != CPU_NEXT)
        return result;
    return is_header_valid(&area, header) ? restore(&area, op, header) : general_protection(cpu);
}

enum cpu_result cpu_op_xrstors(struct cpu *cpu, const struct cpu_op *op) {
    struct area area;
    uint64_t header[8];
    if (cpu->cpl)
        return general_protection(cpu);
    enum cpu_result result = begin(&area, cpu, op, false);
    if (result == CPU_NEXT)
        result = cpu_read_linear(cpu, area.linear + IMAGE_HEADER, header, sizeof header, ACCESS_READ);
    if (result != CPU_NEXT)
        return result;
    if (!(header[1] & COMPACTED) || !is_header_valid(&area, header))
        return general_protection(cpu);
    return restore(&area, op, header);
}

/* ---- FXSAVE, FXRSTOR ---- */

/* Bytes of the image that belong to the processor in the current mode. */
static unsigned fx_size(const struct cpu *cpu) {
    return cpu_is_64bit(cpu) ? IMAGE_XMM_END : IMAGE_XMM + 128;
}

static enum cpu_result begin_fx(struct cpu *cpu, const struct cpu_op *op, unsigned access, uint64_t *linear) {
    if (cpu->cr0 & (CR0_EM | CR0_TS))
        return cpu_fault(cpu, VECTOR_NM);
    enum cpu_result result = cpu_linear(cpu, op->segment, cpu_op_offset(cpu, op), 512, access, linear);
    if (result == CPU_NEXT && (*linear & 15))
        return general_protection(cpu);
    return result;
}

enum cpu_result cpu_op_fxsave(struct cpu *cpu, const struct cpu_op *op) {
    uint64_t linear;
    enum cpu_result result = begin_fx(cpu, op, ACCESS_WRITE, &linear);
    if (result == CPU_NEXT)
        result = cpu_probe_linear(cpu, linear, 512, ACCESS_WRITE);
    if (result != CPU_NEXT)
        return result;
    uint8_t *image = cpu->xsave_bounce;
    x87_note_pointers(cpu);
    __asm__ volatile("fxsave64 (%0)" : : "r"(image) : "memory");
    x87_store_pointers(cpu, image, op->size == 8);
    return cpu_write_linear(cpu, linear, image, fx_size(cpu), ACCESS_WRITE);
}

enum cpu_result cpu_op_fxrstor(struct cpu *cpu, const struct cpu_op *op) {
    uint64_t linear;
    uint32_t mxcsr;
    uint8_t *image = cpu->xsave_bounce;
    enum cpu_result result = begin_fx(cpu, op, ACCESS_READ, &linear);
    if (result == CPU_NEXT)
        result = cpu_probe_linear(cpu, linear, 512, ACCESS_READ);
    if (result != CPU_NEXT)
        return result;
    /* The upper registers, which 32-bit code leaves alone, come from the current state. */
    __asm__ volatile("fxsave64 (%0)" : : "r"(image) : "memory");
    result = cpu_read_linear(cpu, linear, image, fx_size(cpu), ACCESS_READ);
    if (result != CPU_NEXT)
        return result;
    cpu_copy(&mxcsr, image + IMAGE_MXCSR, 4);
    if (!xstate_is_mxcsr_valid(cpu, mxcsr))
        return general_protection(cpu);
    x87_load_pointers(cpu, image, op->size == 8);
    __asm__ volatile("fxrstor64 (%0)" : : "r"(image) : "memory");
    return CPU_NEXT;
}
