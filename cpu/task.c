/*
 * Task switches through 16- and 32-bit TSS (SDM vol. 3A, 7.3). Everything in memory that the switch writes is probed
 * first; from the commit point on, faults belong to the new task, whose selectors are all loaded by then, as the manual
 * has it (table 7-1).
 */
#include "cpu/task.h"
#include "cpu/access.h"
#include "cpu/mode.h"
#include "cpu/segment.h"
#include "cpu/stack.h"

enum {
    TSS32_CR3 = 0x1c, TSS32_SAVED = 0x20, TSS32_LDT = 0x60, TSS32_TRAP = 0x64, TSS32_SIZE = 0x68,
    TSS16_SAVED = 0x0e, TSS16_LDT = 0x2a, TSS16_SIZE = 0x2c,
    SAVED32 = 16, /* fields from EIP to GS */
    SAVED16 = 14, /* fields from IP to DS */
    DR6_BT = 1 << 15,
    DR7_LOCAL = 0x155, /* L0 to L3 and LE end with the task */
};

/* What both kinds of TSS hold of a task. */
struct image {
    uint32_t rip, flags, gpr[8], cr3;
    uint16_t selector[CPU_SEGMENTS], ldt;
    bool is_32bit, is_trapping;
};

static bool is_tss32(uint32_t attributes) {
    return (attributes & DESCRIPTOR_IS_32BIT) != 0;
}

/* ---- Finding the TSS ---- */

static enum cpu_result find(struct cpu *cpu, uint16_t selector, bool is_busy, enum cpu_vector vector,
                            struct descriptor *tss) {
    if (selector & 4)
        return cpu_fault_code(cpu, vector, selector_error(selector));
    if (descriptor_fetch(cpu, selector, vector, tss) != CPU_NEXT)
        return CPU_FAULT;

    const unsigned type = descriptor_type(tss) & ~(unsigned)DESCRIPTOR_IS_32BIT;

    if (selector_is_null(selector) || type != (is_busy ? DESCRIPTOR_TSS16_BUSY : DESCRIPTOR_TSS16))
        return cpu_fault_code(cpu, vector, selector_error(selector));
    if (!descriptor_is_present(tss))
        return cpu_fault_code(cpu, VECTOR_NP, selector_error(selector));
    return CPU_NEXT;
}

enum cpu_result task_find(struct cpu *cpu, uint16_t selector, struct descriptor *tss) {
    return find(cpu, selector, false, VECTOR_GP, tss);
}

enum cpu_result task_find_parent(struct cpu *cpu, uint16_t selector, struct descriptor *tss) {
    return find(cpu, selector, true, VECTOR_TS, tss);
}

/* ---- Reading the new task ---- */

static void unpack32(const uint8_t *tss, struct image *image) {
    const uint32_t *saved = (const uint32_t *)(tss + TSS32_SAVED);

    image->rip = saved[0];
    image->flags = saved[1];
    for (unsigned i = 0; i < 8; i++)
        image->gpr[i] = saved[2 + i];
    for (unsigned i = 0; i < CPU_SEGMENTS; i++)
        image->selector[i] = (uint16_t)saved[10 + i];
    image->cr3 = *(const uint32_t *)(tss + TSS32_CR3);
    image->ldt = *(const uint16_t *)(tss + TSS32_LDT);
    image->is_trapping = tss[TSS32_TRAP] & 1;
}

static void unpack16(const uint8_t *tss, struct image *image) {
    const uint16_t *saved = (const uint16_t *)(tss + TSS16_SAVED);

    image->rip = saved[0];
    image->flags = saved[1];
    /* Processors fill the upper halves with ones; the manual leaves them open. */
    for (unsigned i = 0; i < 8; i++)
        image->gpr[i] = 0xffff0000 | saved[2 + i];
    for (unsigned i = CPU_ES; i <= CPU_DS; i++)
        image->selector[i] = saved[10 + i];
    image->ldt = *(const uint16_t *)(tss + TSS16_LDT);
}

static enum cpu_result read_image(struct cpu *cpu, const struct task_switch *task, const struct descriptor *tss,
                                  struct image *image) {
    const bool is_32bit = is_tss32(descriptor_type(tss));
    const unsigned size = is_32bit ? TSS32_SIZE : TSS16_SIZE;
    _Alignas(4) uint8_t bytes[TSS32_SIZE];

    if (descriptor_limit(tss) < size - 1)
        return cpu_fault_code(cpu, VECTOR_TS, selector_error(task->selector));
    if (cpu_read_linear(cpu, descriptor_base(tss), bytes, size, ACCESS_READ | ACCESS_SYSTEM) != CPU_NEXT)
        return CPU_FAULT;
    *image = (struct image){.is_32bit = is_32bit};
    if (is_32bit)
        unpack32(bytes, image);
    else
        unpack16(bytes, image);
    return CPU_NEXT;
}

/* ---- Leaving the old task ---- */

/* Where the old task is saved; the fields are words of `size` bytes. */
struct saved_area {
    uint32_t address;
    unsigned count, size;
};

static struct saved_area saved_area(const struct cpu *cpu) {
    const uint32_t base = (uint32_t)cpu->tr.base;

    if (is_tss32(cpu->tr.attributes))
        return (struct saved_area){base + TSS32_SAVED, SAVED32, 4};
    return (struct saved_area){base + TSS16_SAVED, SAVED16, 2};
}

/* Everything that the commit writes, so that it cannot fail. */
static enum cpu_result probe(struct cpu *cpu, const struct task_switch *task, const struct descriptor *tss,
                             uint64_t *old_descriptor) {
    const struct saved_area area = saved_area(cpu);
    const unsigned bytes = area.count * area.size;
    const unsigned access = ACCESS_WRITE | ACCESS_SYSTEM;

    if (area.address - (uint32_t)cpu->tr.base + bytes - 1 > cpu->tr.limit ||
        !descriptor_locate(cpu, cpu->tr.selector & 0xfff8, 8, old_descriptor))
        return cpu_fault_code(cpu, VECTOR_TS, selector_error(cpu->tr.selector));
    if (cpu_probe_linear(cpu, area.address, bytes, access) != CPU_NEXT ||
        cpu_probe_linear(cpu, *old_descriptor + 5, 1, access) != CPU_NEXT ||
        cpu_probe_linear(cpu, tss->address + 5, 1, access) != CPU_NEXT)
        return CPU_FAULT;
    if (task->cause == TASK_CALL || task->cause == TASK_INTERRUPT)
        return cpu_probe_linear(cpu, descriptor_base(tss), 2, access);
    return CPU_NEXT;
}

static enum cpu_result save_old(struct cpu *cpu, const struct task_switch *task) {
    const struct saved_area area = saved_area(cpu);
    uint32_t words[SAVED32] = {(uint32_t)task->return_rip, (uint32_t)task->flags};
    uint16_t halves[SAVED16];

    for (unsigned i = 0; i < 8; i++)
        words[2 + i] = (uint32_t)cpu->hot.gpr[i];
    for (unsigned i = 0; i < CPU_SEGMENTS; i++)
        words[10 + i] = cpu->segment[i].selector;
    for (unsigned i = 0; i < SAVED16; i++)
        halves[i] = (uint16_t)words[i];
    return cpu_write_linear(cpu, area.address, area.size == 4 ? (const void *)words : halves, area.count * area.size,
                            ACCESS_WRITE | ACCESS_SYSTEM);
}

/* Busy bits, link field and the saved state: steps 6 to 10 of 7.3. */
static enum cpu_result leave_old(struct cpu *cpu, const struct task_switch *task, const struct descriptor *tss,
                                 uint64_t old_descriptor) {
    const uint16_t link = cpu->tr.selector;

    if ((task->cause == TASK_JUMP || task->cause == TASK_RETURN) &&
        descriptor_set_busy(cpu, old_descriptor, false) != CPU_NEXT)
        return CPU_FAULT;
    if (save_old(cpu, task) != CPU_NEXT)
        return CPU_FAULT;
    if ((task->cause == TASK_CALL || task->cause == TASK_INTERRUPT) &&
        cpu_write_linear(cpu, descriptor_base(tss), &link, 2, ACCESS_WRITE | ACCESS_SYSTEM) != CPU_NEXT)
        return CPU_FAULT;
    return task->cause == TASK_RETURN ? CPU_NEXT : descriptor_set_busy(cpu, tss->address, true);
}

/* ---- Entering the new one ---- */

/* Registers without checks; segments keep their selectors alone until those are qualified. */
static void load_registers(struct cpu *cpu, const struct task_switch *task, const struct descriptor *tss,
                           const struct image *image) {
    const uint32_t known_flags = FLAG_ARITHMETIC | FLAG_TF | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_NT | FLAG_RF |
                                 FLAG_VM | FLAG_AC | FLAG_VIF | FLAG_VIP | FLAG_ID;

    descriptor_unpack(tss, task->selector, &cpu->tr);
    cpu->tr.attributes |= DESCRIPTOR_BUSY;
    cpu->cr0 |= CR0_TS;
    cpu->dr[7] &= ~(uint64_t)DR7_LOCAL;
    cpu->hot.rip = image->rip;
    cpu->hot.rflags = (image->flags & known_flags) | FLAG_FIXED;
    if (task->cause == TASK_CALL || task->cause == TASK_INTERRUPT)
        cpu->hot.rflags |= FLAG_NT;
    for (unsigned i = 0; i < 8; i++)
        cpu->hot.gpr[i] = image->gpr[i];
    for (unsigned i = 0; i < CPU_SEGMENTS; i++)
        cpu->segment[i] = segment_null(image->selector[i]);
    cpu->ldtr = segment_null(image->ldt);
    cpu->cpl = cpu_is_vm86(cpu) ? 3 : image->selector[CPU_CS] & 3;
    cpu->interrupt_shadow = false;
}

/* Global pages stay. In PAE paging the four entries of the directory are loaded and checked (SDM vol. 3A, 4.4.1). */
static enum cpu_result load_cr3(struct cpu *cpu, uint32_t cr3) {
    const uint64_t reserved = 0xfff0000000000000 | 0x1e6;
    uint64_t entries[4];

    if (cpu->cr4 & CR4_PAE) {
        for (unsigned i = 0; i < 4; i++) {
            entries[i] = cpu_physical_read(cpu, guest_physical_at((cr3 & ~0x1fu) + i * 8), 8);
            if ((entries[i] & 1) && (entries[i] & reserved))
                return cpu_fault_code(cpu, VECTOR_GP, 0);
        }
        cpu_copy(cpu->pdpte, entries, sizeof entries);
    }
    cpu->cr3 = cr3;
    cpu_flush_address_space(cpu, true);
    return CPU_NEXT;
}

static enum cpu_result load_ldt(struct cpu *cpu, uint16_t selector) {
    struct descriptor d;

    if (selector_is_null(selector))
        return CPU_NEXT;
    if (selector & 4)
        return cpu_fault_code(cpu, VECTOR_TS, selector_error(selector));
    if (descriptor_fetch(cpu, selector, VECTOR_TS, &d) != CPU_NEXT)
        return CPU_FAULT;
    if (descriptor_type(&d) != DESCRIPTOR_LDT || !descriptor_is_present(&d))
        return cpu_fault_code(cpu, VECTOR_TS, selector_error(selector));
    descriptor_unpack(&d, selector, &cpu->ldtr);
    return CPU_NEXT;
}

static enum cpu_result load_code(struct cpu *cpu, uint16_t selector) {
    const unsigned rpl = selector & 3;
    struct descriptor d;

    if (selector_is_null(selector))
        return cpu_fault_code(cpu, VECTOR_TS, 0);
    if (descriptor_fetch(cpu, selector, VECTOR_TS, &d) != CPU_NEXT)
        return CPU_FAULT;
    if (!descriptor_is_code(&d) ||
        (descriptor_is_conforming(&d) ? descriptor_dpl(&d) > rpl : descriptor_dpl(&d) != rpl))
        return cpu_fault_code(cpu, VECTOR_TS, selector_error(selector));
    if (!descriptor_is_present(&d))
        return cpu_fault_code(cpu, VECTOR_NP, selector_error(selector));
    if (descriptor_mark_accessed(cpu, &d) != CPU_NEXT)
        return CPU_FAULT;
    segment_set_code(cpu, &d, selector, rpl);
    return CPU_NEXT;
}

static enum cpu_result load_segments(struct cpu *cpu, const struct image *image) {
    static const uint8_t data_registers[] = {CPU_DS, CPU_ES, CPU_FS, CPU_GS};

    if (load_ldt(cpu, image->ldt) != CPU_NEXT)
        return CPU_FAULT;
    if (cpu_is_vm86(cpu)) {
        for (unsigned i = 0; i < CPU_SEGMENTS; i++)
            cpu->segment[i] = segment_vm86(image->selector[i]);
        return CPU_NEXT;
    }
    if (load_code(cpu, image->selector[CPU_CS]) != CPU_NEXT ||
        descriptor_check_stack(cpu, image->selector[CPU_SS], cpu->cpl, false, VECTOR_TS, &cpu->segment[CPU_SS]) !=
            CPU_NEXT)
        return CPU_FAULT;
    for (unsigned i = 0; i < sizeof data_registers; i++) {
        const unsigned index = data_registers[i];

        if (segment_check_data(cpu, image->selector[index], VECTOR_TS, &cpu->segment[index]) != CPU_NEXT)
            return CPU_FAULT;
    }
    return CPU_NEXT;
}

static enum cpu_result push_error_code(struct cpu *cpu, const struct task_switch *task, bool is_32bit) {
    const uint64_t error_code = task->error_code;
    struct stack stack;

    stack_current(cpu, &stack);
    if (stack_push(cpu, &stack, &error_code, 1, is_32bit ? 4 : 2) != CPU_NEXT)
        return CPU_FAULT;
    cpu_rsp(cpu) = stack.pointer;
    return CPU_NEXT;
}

/* The new task's own checks; whatever fails here is a fault at its first instruction. */
static enum cpu_result enter_new(struct cpu *cpu, const struct task_switch *task, const struct image *image) {
    const enum cpu_result loaded = load_segments(cpu, image);

    cpu_mode_changed(cpu);
    if (loaded != CPU_NEXT)
        return loaded;
    if (task->has_error_code && push_error_code(cpu, task, image->is_32bit) != CPU_NEXT)
        return CPU_FAULT;
    if (cpu->hot.rip > cpu->segment[CPU_CS].limit)
        return cpu_fault_code(cpu, VECTOR_GP, 0);
    if (image->is_trapping)
        return cpu_fault_debug(cpu, DR6_BT, true);
    return CPU_JUMP;
}

enum cpu_result task_switch(struct cpu *cpu, const struct task_switch *task, const struct descriptor *tss) {
    struct image image = {0};
    uint64_t old_descriptor;

    if (read_image(cpu, task, tss, &image) != CPU_NEXT || probe(cpu, task, tss, &old_descriptor) != CPU_NEXT ||
        leave_old(cpu, task, tss, old_descriptor) != CPU_NEXT)
        return CPU_FAULT;
    load_registers(cpu, task, tss, &image);
    if (image.is_32bit && (cpu->cr0 & CR0_PG) && image.cr3 != cpu->cr3 && load_cr3(cpu, image.cr3) != CPU_NEXT)
        return CPU_FAULT;
    return enter_new(cpu, task, &image);
}
