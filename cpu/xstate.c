/*
 * See cpu/xstate.h. The host's own XSAVE and XRSTOR make and take the images; offsets are the host's (CPUID leaf 0Dh).
 */
#include "cpu/xstate.h"
#include "cpu/model_internal.h"

uint8_t *xstate_save(struct cpu *cpu, uint64_t mask) {
    uint8_t *image = cpu->xsave_bounce;
    cpu_clear(image + IMAGE_HEADER, 64);
    __asm__ volatile("xsave64 (%0)" : : "r"(image), "a"((uint32_t)mask), "d"((uint32_t)(mask >> 32)) : "memory");
    return image;
}

void xstate_restore(struct cpu *cpu, uint64_t mask) {
    const uint8_t *image = cpu->xsave_bounce;
    __asm__ volatile("xrstor64 (%0)" : : "r"(image), "a"((uint32_t)mask), "d"((uint32_t)(mask >> 32)) : "memory");
}

bool xstate_is_mxcsr_valid(const struct cpu *cpu, uint32_t mxcsr) {
    return !(mxcsr & ~cpu->model->mxcsr_mask);
}

/* The parts of a vector register in the image: 16 bytes of XMM, 16 of YMM's upper half, 32 of ZMM's. */
struct part {
    uint32_t offset;
    uint16_t from, size;
};

static unsigned vector_parts(const struct cpu *cpu, unsigned n, struct part parts[3]) {
    const struct cpu_model *model = cpu->model;
    if (n >= 16) {
        parts[0] = (struct part){model->component[7].offset + 64 * (n - 16), 0, 64};
        return 1;
    }
    parts[0] = (struct part){IMAGE_XMM + 16 * n, 0, 16};
    parts[1] = (struct part){model->component[2].offset + 16 * n, 16, 16};
    parts[2] = (struct part){model->component[6].offset + 32 * n, 32, 32};
    return model->component[6].size ? 3 : 2;
}

void xstate_get_vector(const struct cpu *cpu, const uint8_t *image, unsigned n, void *to, unsigned bytes) {
    struct part parts[3];
    unsigned count = vector_parts(cpu, n, parts);
    for (unsigned i = 0; i < count && parts[i].from < bytes; i++) {
        unsigned left = bytes - parts[i].from;
        cpu_copy((uint8_t *)to + parts[i].from, image + parts[i].offset, left < parts[i].size ? left : parts[i].size);
    }
}

void xstate_set_vector(const struct cpu *cpu, uint8_t *image, unsigned n, const void *from) {
    struct part parts[3];
    unsigned count = vector_parts(cpu, n, parts);
    for (unsigned i = 0; i < count; i++)
        cpu_copy(image + parts[i].offset, (const uint8_t *)from + parts[i].from, parts[i].size);
}

uint64_t xstate_get_opmask(const struct cpu *cpu, const uint8_t *image, unsigned n) {
    uint64_t value;
    cpu_copy(&value, image + cpu->model->component[5].offset + 8 * n, 8);
    return value;
}

void xstate_set_opmask(const struct cpu *cpu, uint8_t *image, unsigned n, uint64_t value) {
    cpu_copy(image + cpu->model->component[5].offset + 8 * n, &value, 8);
}

enum cpu_result xstate_check(struct cpu *cpu, bool is_vector) {
    if (is_vector && (cpu->cr0 & CR0_EM))
        return cpu_fault(cpu, VECTOR_UD);
    if (cpu->cr0 & (is_vector ? CR0_TS : CR0_TS | CR0_EM))
        return cpu_fault(cpu, VECTOR_NM);
    return CPU_NEXT;
}
