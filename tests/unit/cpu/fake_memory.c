/*
 * The functions of cpu/access.h and cpu/mode.h over an array, and the guest that the tests start from.
 */
#include "fake_memory.h"

#include <stdlib.h>
#include <string.h>

#include "cpu/access.h"
#include "cpu/mode.h"
#include "cpu/model.h"

static struct fake *fake_of(struct cpu *cpu) {
    return (struct fake *)cpu;
}

/* ---- cpu/access.h ---- */

static enum cpu_result check(struct cpu *cpu, uint64_t linear, unsigned size, unsigned access) {
    const struct fake *fake = fake_of(cpu);

    for (uint64_t byte = linear; byte < linear + size; byte++) {
        if (byte < FAKE_SIZE && (byte & ~0xfffull) != fake->absent_page)
            continue;
        return cpu_fault_page(cpu, byte,
                              ((access & ACCESS_KIND) == ACCESS_WRITE ? 2 : 0) |
                                  (cpu->cpl == 3 && !(access & ACCESS_SYSTEM) ? 4 : 0));
    }
    return CPU_NEXT;
}

enum cpu_result cpu_read_linear(struct cpu *cpu, uint64_t linear, void *to, unsigned size, unsigned access) {
    if (check(cpu, linear, size, access) != CPU_NEXT)
        return CPU_FAULT;
    memcpy(to, fake_of(cpu)->memory + linear, size);
    return CPU_NEXT;
}

enum cpu_result cpu_write_linear(struct cpu *cpu, uint64_t linear, const void *from, unsigned size, unsigned access) {
    if (check(cpu, linear, size, access | ACCESS_WRITE) != CPU_NEXT)
        return CPU_FAULT;
    memcpy(fake_of(cpu)->memory + linear, from, size);
    return CPU_NEXT;
}

enum cpu_result cpu_probe_linear(struct cpu *cpu, uint64_t linear, unsigned size, unsigned access) {
    return check(cpu, linear, size, access);
}

enum cpu_result cpu_linear(struct cpu *cpu, unsigned segment, uint64_t offset, unsigned size, unsigned access,
                           uint64_t *linear) {
    const struct trapeze_segment *s = &cpu->segment[segment];

    (void)access;
    if (cpu_is_64bit(cpu)) {
        *linear = offset + (segment >= CPU_FS ? s->base : 0);
        return CPU_NEXT;
    }
    if ((s->attributes & SEGMENT_UNUSABLE) || offset + size - 1 > s->limit)
        return cpu_fault_code(cpu, segment == CPU_SS ? VECTOR_SS : VECTOR_GP, 0);
    *linear = (uint32_t)(s->base + offset);
    return CPU_NEXT;
}

enum cpu_result cpu_check_alignment(struct cpu *cpu, uint64_t linear, unsigned size, unsigned access) {
    (void)cpu, (void)linear, (void)size, (void)access;
    return CPU_NEXT;
}

enum cpu_result cpu_read(struct cpu *cpu, unsigned segment, uint64_t offset, void *to, unsigned size) {
    uint64_t linear;

    if (cpu_linear(cpu, segment, offset, size, ACCESS_READ, &linear) != CPU_NEXT)
        return CPU_FAULT;
    return cpu_read_linear(cpu, linear, to, size, ACCESS_READ);
}

enum cpu_result cpu_write(struct cpu *cpu, unsigned segment, uint64_t offset, const void *from, unsigned size) {
    uint64_t linear;

    if (cpu_linear(cpu, segment, offset, size, ACCESS_WRITE, &linear) != CPU_NEXT)
        return CPU_FAULT;
    return cpu_write_linear(cpu, linear, from, size, ACCESS_WRITE);
}

enum cpu_result cpu_read_integer(struct cpu *cpu, unsigned segment, uint64_t offset, unsigned size, uint64_t *value) {
    *value = 0;
    return cpu_read(cpu, segment, offset, value, size);
}

enum cpu_result cpu_write_integer(struct cpu *cpu, unsigned segment, uint64_t offset, unsigned size, uint64_t value) {
    return cpu_write(cpu, segment, offset, &value, size);
}

enum cpu_result cpu_host_pointer(struct cpu *cpu, uint64_t linear, unsigned access, size_t *length, void **pointer) {
    if (check(cpu, linear, 1, access) != CPU_NEXT)
        return CPU_FAULT;
    *length = 1;
    *pointer = fake_of(cpu)->memory + linear;
    return CPU_NEXT;
}

uint64_t cpu_physical_read(struct cpu *cpu, guest_physical address, unsigned size) {
    return fake_read(fake_of(cpu), address.value, size);
}

void cpu_flush_address_space(struct cpu *cpu, bool keep_global) {
    (void)keep_global;
    cpu->statistics.tlb_flushes++;
}

void cpu_flush_all(struct cpu *cpu) {
    cpu->statistics.tlb_flushes++;
}

/* ---- cpu/mode.h ---- */

void cpu_segment_changed(struct cpu *cpu, unsigned segment) {
    const struct trapeze_segment *s = &cpu->segment[segment];

    cpu->hot.segment[segment].base = s->base;
    cpu->hot.segment[segment].write_end = s->attributes & SEGMENT_UNUSABLE ? 0 : (uint64_t)s->limit + 1;
}

void cpu_mode_changed(struct cpu *cpu) {
    uint32_t key = (uint32_t)cpu->cpl << MODE_CPL_SHIFT | MODE_FLAT;

    fake_of(cpu)->mode_changes++;
    for (unsigned i = 0; i < CPU_SEGMENTS; i++) {
        cpu_segment_changed(cpu, i);
        if (i <= CPU_DS && (cpu->segment[i].base || cpu->hot.segment[i].write_end != 1ull << 32))
            key &= ~(uint32_t)MODE_FLAT;
    }
    cpu->mode_key = key;
}

void cpu_control_changed(struct cpu *cpu) {
    cpu_mode_changed(cpu);
}

void cpu_x87_changed(struct cpu *cpu) {
    cpu_mode_changed(cpu);
}

void cpu_level_changed(struct cpu *cpu) {
    cpu_mode_changed(cpu);
}

/* ---- cpu/model.h ---- */

bool cpu_is_amd(const struct cpu *cpu) {
    return ((const struct fake *)cpu)->is_amd;
}

void cpu_cpuid(const struct cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4]) {
    static const uint32_t intel[4] = {1, 0x756e6547, 0x6c65746e, 0x49656e69};

    (void)cpu;
    (void)subleaf;
    memset(out, 0, 4 * sizeof out[0]);
    if (leaf == 0)
        memcpy(out, intel, sizeof intel);
    else if (leaf == 1)
        out[0] = 0x806f8;
}

/* ---- The guest ---- */

void fake_write(struct fake *fake, uint64_t linear, uint64_t value, unsigned size) {
    memcpy(fake->memory + linear, &value, size);
}

uint64_t fake_read(const struct fake *fake, uint64_t linear, unsigned size) {
    uint64_t value = 0;

    memcpy(&value, fake->memory + linear, size);
    return value;
}

uint64_t fake_stack(const struct fake *fake, unsigned k, unsigned size) {
    return fake_read(fake, fake->cpu.segment[CPU_SS].base + cpu_rsp(&fake->cpu) + k * size, size);
}

void fake_descriptor(struct fake *fake, uint16_t selector, uint32_t base, uint32_t limit, unsigned access,
                     unsigned flags) {
    const uint64_t raw = (limit & 0xffffull) | (base & 0xffffffull) << 16 | (uint64_t)access << 40 |
                         (limit & 0xf0000ull) << 32 | (uint64_t)flags << 52 | (uint64_t)(base >> 24) << 56;

    fake_write(fake, (selector & 4 ? FAKE_LDT : FAKE_GDT) + (selector & 0xfff8u), raw, 8);
}

static uint64_t gate_image(uint16_t selector, uint64_t offset, unsigned access) {
    return (offset & 0xffff) | (uint64_t)selector << 16 | (uint64_t)access << 40 | (offset & 0xffff0000) << 32;
}

void fake_gate(struct fake *fake, unsigned vector, uint16_t selector, uint64_t offset, unsigned access) {
    const unsigned size = cpu_is_long_mode(&fake->cpu) ? 16 : 8;

    fake_write(fake, FAKE_IDT + vector * size, gate_image(selector, offset, access), 8);
    if (size == 16)
        fake_write(fake, FAKE_IDT + vector * size + 8, offset >> 32, 8);
}

void fake_call_gate(struct fake *fake, uint16_t at, uint16_t selector, uint64_t offset, unsigned access,
                    unsigned parameters) {
    fake_write(fake, FAKE_GDT + (at & 0xfff8u), gate_image(selector, offset, access) | (uint64_t)parameters << 32, 8);
    if (cpu_is_long_mode(&fake->cpu))
        fake_write(fake, FAKE_GDT + (at & 0xfff8u) + 8, offset >> 32, 8);
}

struct cpu_op fake_op(unsigned size) {
    return (struct cpu_op){
        .length = 2,
        .size = (uint8_t)size,
        .address_size = 4,
        .rm = CPU_NO_REGISTER,
        .base = CPU_NO_REGISTER,
        .index = CPU_NO_REGISTER,
        .segment = CPU_DS,
        .scale = 1,
    };
}

int fake_fault(const struct fake *fake, enum cpu_result result) {
    return result == CPU_FAULT ? fake->cpu.exception.vector : -1;
}

static void make_tables(struct fake *fake) {
    fake_descriptor(fake, SEL_CODE0, 0, 0xfffff, 0x9b, 0xc);
    fake_descriptor(fake, SEL_DATA0, 0, 0xfffff, 0x93, 0xc);
    fake_descriptor(fake, SEL_CODE3, 0, 0xfffff, 0xfb, 0xc);
    fake_descriptor(fake, SEL_DATA3, 0, 0xfffff, 0xf3, 0xc);
    fake_descriptor(fake, SEL_TSS, FAKE_TSS, 0x67, 0x8b, 0);
    fake_descriptor(fake, SEL_CONFORMING0, 0, 0xfffff, 0x9f, 0xc);
    fake_descriptor(fake, SEL_LONG0, 0, 0xfffff, 0x9b, 0xa);
    fake_descriptor(fake, SEL_LONG3, 0, 0xfffff, 0xfb, 0xa);
    fake_descriptor(fake, SEL_CODE1, 0, 0xfffff, 0xbb, 0xc);
    fake_descriptor(fake, SEL_DATA1, 0, 0xfffff, 0xb3, 0xc);
    fake_descriptor(fake, SEL_TSS2, FAKE_TSS2, 0x67, 0x89, 0);
    fake_descriptor(fake, SEL_LDT, FAKE_LDT, 0xff, 0x82, 0);
    fake_descriptor(fake, SEL_TSS16, FAKE_TSS16, 0x2b, 0x81, 0);
    fake_descriptor(fake, SEL_ABSENT_CODE0, 0, 0xfffff, 0x1b, 0xc);
    fake_descriptor(fake, SEL_CODE16, 0, 0xffff, 0x9b, 0);
    fake_descriptor(fake, SEL_DATA16, 0, 0xffff, 0x93, 0);
    fake_descriptor(fake, SEL_READ_ONLY0, 0, 0xfffff, 0x91, 0xc);
}

static void make_tss(struct fake *fake, enum fake_mode mode) {
    if (mode >= FAKE_LONG0) {
        fake_write(fake, FAKE_TSS + 4, FAKE_STACK0, 8);
        fake_write(fake, FAKE_TSS + 0x24, FAKE_IST, 8);
    } else {
        fake_write(fake, FAKE_TSS + 4, FAKE_STACK0, 4);
        fake_write(fake, FAKE_TSS + 8, SEL_DATA0, 2);
        fake_write(fake, FAKE_TSS + 12, FAKE_STACK1, 4);
        fake_write(fake, FAKE_TSS + 16, SEL_DATA1, 2);
    }
}

static struct trapeze_segment flat(uint16_t selector, uint32_t attributes) {
    return (struct trapeze_segment){.limit = 0xffffffff, .selector = selector, .attributes = attributes};
}

static void make_segments(struct cpu *cpu, enum fake_mode mode) {
    const bool is_user = mode == FAKE_RING3 || mode == FAKE_LONG3 || mode == FAKE_COMPAT3;
    const bool is_64bit = mode == FAKE_LONG0 || mode == FAKE_LONG3;

    for (unsigned i = 0; i < CPU_SEGMENTS; i++) {
        if (mode == FAKE_REAL || mode == FAKE_VM86)
            cpu->segment[i] = (struct trapeze_segment){.limit = 0xffff, .attributes = mode == FAKE_REAL ? 0x93 : 0xf3};
        else
            cpu->segment[i] = is_user ? flat(SEL_DATA3, 0xc0f3) : flat(SEL_DATA0, 0xc093);
    }
    if (is_64bit)
        cpu->segment[CPU_CS] = is_user ? flat(SEL_LONG3, 0xa0fb) : flat(SEL_LONG0, 0xa09b);
    else if (mode != FAKE_REAL && mode != FAKE_VM86)
        cpu->segment[CPU_CS] = is_user ? flat(SEL_CODE3, 0xc0fb) : flat(SEL_CODE0, 0xc09b);
    cpu->cpl = is_user || mode == FAKE_VM86 ? 3 : 0;
}

struct fake *fake_create(enum fake_mode mode) {
    struct fake *fake = aligned_alloc(64, (sizeof *fake + 63) & ~63ull);
    struct cpu *cpu = &fake->cpu;

    memset(fake, 0, sizeof *fake);
    fake->absent_page = 1;
    make_tables(fake);
    make_tss(fake, mode);
    cpu->gdtr.base = FAKE_GDT;
    cpu->gdtr.limit = FAKE_GDT_LIMIT;
    cpu->idtr.base = mode == FAKE_REAL ? 0 : FAKE_IDT;
    cpu->idtr.limit = mode == FAKE_REAL ? 0x3ff : 0xfff;
    cpu->tr = (struct trapeze_segment){.base = FAKE_TSS, .limit = 0x67, .selector = SEL_TSS, .attributes = 0x8b};
    cpu->ldtr = (struct trapeze_segment){.base = FAKE_LDT, .limit = 0xff, .selector = SEL_LDT, .attributes = 0x82};
    cpu->cr0 = CR0_ET | (mode == FAKE_REAL ? 0 : CR0_PE);
    if (mode >= FAKE_LONG0)
        cpu->msr.efer = EFER_LME | EFER_LMA | EFER_SCE;
    cpu->hot.rflags = FLAG_FIXED | FLAG_IF | (mode == FAKE_VM86 ? FLAG_VM : 0);
    make_segments(cpu, mode);
    cpu->hot.rip = cpu->cpl == 3 ? FAKE_USER : FAKE_CODE;
    cpu_rsp(cpu) = cpu->cpl == 3 ? FAKE_STACK3 : FAKE_STACK0;
    if (mode == FAKE_REAL || mode == FAKE_VM86)
        cpu->hot.rip = 0x500;
    cpu_mode_changed(cpu);
    fake->mode_changes = 0;
    return fake;
}

int fake_run(TCase *tests) {
    Suite *suite = suite_create("cpu");
    SRunner *runner = srunner_create(suite);

    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_ENV);

    const int failed = srunner_ntests_failed(runner);

    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
