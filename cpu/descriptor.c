/*
 * Descriptors in guest memory: reading, accessed and busy bits, and the checks of code and stack segments that far
 * transfers share (SDM vol. 3A, chapters 3 and 5; vol. 2, RET and IRET).
 */
#include "cpu/descriptor.h"
#include "cpu/access.h"
#include "cpu/segment.h"

bool descriptor_locate(const struct cpu *cpu, uint16_t selector, unsigned size, uint64_t *address) {
    const uint32_t offset = selector & 0xfff8u;

    if (selector & 4) {
        if ((cpu->ldtr.attributes & SEGMENT_UNUSABLE) || offset + size - 1 > cpu->ldtr.limit)
            return false;
        *address = cpu->ldtr.base + offset;
    } else {
        if (offset + size - 1 > cpu->gdtr.limit)
            return false;
        *address = cpu->gdtr.base + offset;
    }
    if (!cpu_is_long_mode(cpu))
        *address = (uint32_t)*address;
    return true;
}

enum cpu_result descriptor_fetch(struct cpu *cpu, uint16_t selector, enum cpu_vector vector, struct descriptor *d) {
    if (!descriptor_locate(cpu, selector, 8, &d->address))
        return cpu_fault_code(cpu, vector, selector_error(selector));
    return cpu_read_linear(cpu, d->address, &d->raw, 8, ACCESS_READ | ACCESS_SYSTEM);
}

enum cpu_result descriptor_fetch_upper(struct cpu *cpu, uint16_t selector, enum cpu_vector vector,
                                       const struct descriptor *d, uint64_t *upper) {
    uint64_t address;

    if (!descriptor_locate(cpu, selector, 16, &address))
        return cpu_fault_code(cpu, vector, selector_error(selector));
    if (cpu_read_linear(cpu, d->address + 8, upper, 8, ACCESS_READ | ACCESS_SYSTEM) != CPU_NEXT)
        return CPU_FAULT;
    if (*upper >> 40 & 0x1f)
        return cpu_fault_code(cpu, vector, selector_error(selector));
    return CPU_NEXT;
}

void descriptor_unpack(const struct descriptor *d, uint16_t selector, struct trapeze_segment *segment) {
    segment->base = descriptor_base(d);
    segment->limit = descriptor_limit(d);
    segment->selector = selector;
    segment->attributes = (uint32_t)(d->raw >> 40 & 0xf0ff) | ((d->raw >> 44 & 1) ? SEGMENT_ACCESSED : 0);
}

/* Changes a byte of guest memory by a locked OR of `set` and, where set is 0, a locked AND of `keep`. */
static enum cpu_result change_byte(struct cpu *cpu, uint64_t address, uint8_t set, uint8_t keep) {
    size_t length = 1;
    void *pointer;
    uint8_t byte;

    if (cpu_host_pointer(cpu, address, ACCESS_WRITE | ACCESS_SYSTEM, &length, &pointer) != CPU_NEXT)
        return CPU_FAULT;
    if (pointer) {
        if (set)
            __atomic_fetch_or((uint8_t *)pointer, set, __ATOMIC_SEQ_CST);
        else
            __atomic_fetch_and((uint8_t *)pointer, keep, __ATOMIC_SEQ_CST);
        return CPU_NEXT;
    }
    /* Not plain memory, or a page with translated code: no lock reaches there. */
    if (cpu_read_linear(cpu, address, &byte, 1, ACCESS_READ | ACCESS_SYSTEM) != CPU_NEXT)
        return CPU_FAULT;
    byte = (uint8_t)((byte & keep) | set);
    return cpu_write_linear(cpu, address, &byte, 1, ACCESS_WRITE | ACCESS_SYSTEM);
}

enum cpu_result descriptor_mark_accessed(struct cpu *cpu, struct descriptor *d) {
    if (d->raw >> 40 & SEGMENT_ACCESSED)
        return CPU_NEXT;
    d->raw |= (uint64_t)SEGMENT_ACCESSED << 40;
    return change_byte(cpu, d->address + 5, SEGMENT_ACCESSED, 0xff);
}

enum cpu_result descriptor_set_busy(struct cpu *cpu, uint64_t address, bool is_busy) {
    return change_byte(cpu, address + 5, is_busy ? DESCRIPTOR_BUSY : 0, (uint8_t)~DESCRIPTOR_BUSY);
}

enum cpu_result descriptor_check_rip(struct cpu *cpu, const struct descriptor *code, uint64_t rip) {
    if (cpu_is_long_mode(cpu) && descriptor_is_long_code(code)) {
        if (!cpu_is_canonical(rip))
            return cpu_fault_code(cpu, VECTOR_GP, 0);
    } else if (rip > descriptor_limit(code)) {
        return cpu_fault_code(cpu, VECTOR_GP, 0);
    }
    return CPU_NEXT;
}

enum cpu_result descriptor_check_return(struct cpu *cpu, uint16_t selector, struct descriptor *d) {
    const unsigned rpl = selector & 3;

    if (selector_is_null(selector))
        return cpu_fault_code(cpu, VECTOR_GP, 0);
    if (descriptor_fetch(cpu, selector, VECTOR_GP, d) != CPU_NEXT)
        return CPU_FAULT;
    if (!descriptor_is_code(d) || rpl < cpu->cpl)
        return cpu_fault_code(cpu, VECTOR_GP, selector_error(selector));
    if (descriptor_is_conforming(d) ? descriptor_dpl(d) > rpl : descriptor_dpl(d) != rpl)
        return cpu_fault_code(cpu, VECTOR_GP, selector_error(selector));
    if (cpu_is_long_mode(cpu) && descriptor_is_long_code(d) && descriptor_is_big(d))
        return cpu_fault_code(cpu, VECTOR_GP, selector_error(selector));
    if (!descriptor_is_present(d))
        return cpu_fault_code(cpu, VECTOR_NP, selector_error(selector));
    return CPU_NEXT;
}

enum cpu_result descriptor_check_stack(struct cpu *cpu, uint16_t selector, unsigned cpl, bool is_null_allowed,
                                       enum cpu_vector vector, struct trapeze_segment *segment) {
    struct descriptor d;

    if (selector_is_null(selector)) {
        if (!is_null_allowed)
            return cpu_fault_code(cpu, vector, 0);
        *segment = segment_null(selector);
        return CPU_NEXT;
    }
    if (descriptor_fetch(cpu, selector, vector, &d) != CPU_NEXT)
        return CPU_FAULT;
    if ((selector & 3u) != cpl || !descriptor_is_writable_data(&d) || descriptor_dpl(&d) != cpl)
        return cpu_fault_code(cpu, vector, selector_error(selector));
    if (!descriptor_is_present(&d))
        return cpu_fault_code(cpu, VECTOR_SS, selector_error(selector));
    if (descriptor_mark_accessed(cpu, &d) != CPU_NEXT)
        return CPU_FAULT;
    descriptor_unpack(&d, selector, segment);
    return CPU_NEXT;
}
