/*
 * The x87's errors, its environment in memory - FNSTENV, FLDENV, FNSAVE, FRSTOR (SDM vol. 1, 8.1.10, figures 8-9 to
 * 8-12) - and what it remembers of the last instruction (8.1.8).
 *
 * The host's instructions make and take the 32-bit protected-mode layout; it is converted from and to the guest's. The
 * host remembers addresses of translated code and its own addresses of operands: they are turned into the guest's where
 * they are still known, and never shown. Exact while an unmasked exception waits; else the data pointer and the opcode are
 * the last that were, as on processors that keep them for exceptions alone.
 */
#include "cpu/access.h"
#include "cpu/ops.h"
#include "cpu/xstate.h"
#include "memory/guest_memory.h"
#include "memory/window.h"

enum { HOST_ENVIRONMENT = 28, REGISTERS = 80, FSW_ES = 0x80 };

/* The host's environment as its FNSTENV stores it in 64-bit code: pointers by their lower halves. */
struct host_environment {
    uint16_t control, reserved1, status, reserved2, tag, reserved3;
    uint32_t instruction;
    uint16_t code_selector, opcode;
    uint32_t data;
    uint16_t data_selector, reserved4;
};

struct environment {
    uint16_t control, status, tag;
};

static bool is_16bit(const struct cpu_op *op) {
    return op->size == 2 || op->size == 14 || op->size == 94;
}

static unsigned environment_size(const struct cpu_op *op) {
    return is_16bit(op) ? 14 : 28;
}

static bool is_real_layout(const struct cpu *cpu) {
    return !cpu_is_protected(cpu) || cpu_is_vm86(cpu);
}

/* ---- Pointers ---- */

/* The guest's linear address of a byte at a host address, by the current view. */
static bool find_linear(const struct cpu *cpu, uint64_t host, uint64_t *linear) {
    const struct view *view = cpu->hot.view;
    const struct view_tables *tables = view->tables;
    if (view->window && window_linear(view->window, host, linear))
        return true;
    for (unsigned i = 0; i < VIEW_ENTRIES; i++) {
        uint64_t candidate = host - tables->addend[i], page = candidate & ~MEMORY_PAGE_MASK;
        if (view_index(candidate) != i || (tables->read_tag[i] != -page && tables->write_tag[i] != -page))
            continue;
        *linear = candidate;
        return true;
    }
    return false;
}

/* What the host has kept. */
struct seen {
    uint32_t instruction; /* the lower half of a host address */
    uint64_t data;        /* where has_error */
    bool has_error;
};

static void note_data(struct cpu *cpu, uint64_t data, bool is_windowed) {
    struct cpu_x87 *x87 = &cpu->x87;
    const bool is_64bit = cpu_is_64bit(cpu);
    uint64_t linear = data;
    if (!is_windowed && !find_linear(cpu, data, &linear))
        return;
    x87->data = is_64bit ? linear : (uint32_t)(linear - cpu->segment[CPU_DS].base);
    x87->data_selector = cpu->segment[CPU_DS].selector;
}

static void note(struct cpu *cpu, const struct seen *seen) {
    struct cpu_x87 *x87 = &cpu->x87;
    struct cpu_x87_place place;
    if (!cpu->find_x87 || !cpu->find_x87(cpu, seen->instruction, &place))
        return; /* the host has forgotten, or the guest has loaded what we hold */
    if (place.rip == x87->instruction && x87->is_noted)
        return; /* by now another segment may be current */
    x87->instruction = place.rip;
    x87->code_selector = cpu->segment[CPU_CS].selector;
    x87->is_noted = seen->has_error;
    if (!seen->has_error)
        return;
    x87->opcode = place.opcode;
    note_data(cpu, seen->data, place.is_windowed);
}

void x87_note_pointers(struct cpu *cpu) {
    struct host_environment host;
    _Static_assert(sizeof host == HOST_ENVIRONMENT, "the environment has 28 bytes");
    /* FNSTENV masks all exceptions; its own control word brings them back. */
    __asm__ volatile("fnstenv %0\n\tfldcw %0" : "=m"(host));
    struct seen seen = {.instruction = host.instruction, .has_error = host.status & FSW_ES};
    if (seen.has_error) {
        _Alignas(16) uint8_t image[512]; /* in 64-bit layout: whole pointers */
        __asm__ volatile("fxsave64 (%0)" : : "r"(image) : "memory");
        cpu_copy(&seen.data, image + IMAGE_POINTERS + 8, 8);
    }
    note(cpu, &seen);
}

void x87_note_image(struct cpu *cpu, const uint8_t *image) {
    uint16_t status;
    uint64_t pointers[2];
    cpu_copy(&status, image + 2, 2);
    cpu_copy(pointers, image + IMAGE_POINTERS, sizeof pointers);
    const struct seen seen = {(uint32_t)pointers[0], pointers[1], status & FSW_ES};
    note(cpu, &seen);
}

void x87_store_pointers(const struct cpu *cpu, uint8_t *image, bool is_wide) {
    const struct cpu_x87 *x87 = &cpu->x87;
    uint64_t pointers[2] = {x87->instruction, x87->data};
    if (!is_wide) {
        pointers[0] = (uint32_t)x87->instruction | (uint64_t)x87->code_selector << 32;
        pointers[1] = (uint32_t)x87->data | (uint64_t)x87->data_selector << 32;
    }
    cpu_copy(image + IMAGE_OPCODE, &x87->opcode, 2);
    cpu_copy(image + IMAGE_POINTERS, pointers, sizeof pointers);
}

void x87_load_pointers(struct cpu *cpu, uint8_t *image, bool is_wide) {
    uint64_t pointers[2];
    uint16_t opcode;
    cpu_copy(&opcode, image + IMAGE_OPCODE, 2);
    cpu_copy(pointers, image + IMAGE_POINTERS, sizeof pointers);
    cpu->x87 = (struct cpu_x87){.instruction = is_wide ? pointers[0] : (uint32_t)pointers[0],
                                .data = is_wide ? pointers[1] : (uint32_t)pointers[1],
                                .code_selector = is_wide ? 0 : (uint16_t)(pointers[0] >> 32),
                                .data_selector = is_wide ? 0 : (uint16_t)(pointers[1] >> 32),
                                .opcode = opcode & 0x7ff};
    cpu_clear(image + IMAGE_OPCODE, IMAGE_MXCSR - IMAGE_OPCODE); /* none of the host's business */
}

/* ---- Layouts ---- */

/* Real-mode layouts hold pointers as 20 or 32 bits of linear address. */
static uint32_t linear_pointer(uint64_t offset, uint16_t selector) {
    return (uint32_t)offset + ((uint32_t)selector << 4);
}

static void pack16(const struct cpu *cpu, const struct environment *e, uint16_t words[7]) {
    const struct cpu_x87 *x87 = &cpu->x87;
    words[0] = e->control, words[1] = e->status, words[2] = e->tag;
    words[3] = (uint16_t)x87->instruction, words[4] = x87->code_selector;
    words[5] = (uint16_t)x87->data, words[6] = x87->data_selector;
    if (!is_real_layout(cpu))
        return;
    uint32_t instruction = linear_pointer(x87->instruction, x87->code_selector);
    uint32_t data = linear_pointer(x87->data, x87->data_selector);
    words[3] = (uint16_t)instruction, words[4] = (uint16_t)((instruction >> 16 & 15) << 12 | x87->opcode);
    words[5] = (uint16_t)data, words[6] = (uint16_t)((data >> 16 & 15) << 12);
}

static void pack32(const struct cpu *cpu, const struct environment *e, uint32_t words[7]) {
    const struct cpu_x87 *x87 = &cpu->x87;
    const uint32_t ones = 0xffff0000u;
    words[0] = e->control | ones, words[1] = e->status | ones, words[2] = e->tag | ones;
    words[3] = (uint32_t)x87->instruction, words[4] = x87->code_selector | (uint32_t)x87->opcode << 16;
    words[5] = (uint32_t)x87->data, words[6] = x87->data_selector | ones;
    if (!is_real_layout(cpu))
        return;
    uint32_t instruction = linear_pointer(x87->instruction, x87->code_selector);
    uint32_t data = linear_pointer(x87->data, x87->data_selector);
    words[3] = (instruction & 0xffff) | ones, words[4] = (instruction >> 16) << 12 | x87->opcode;
    words[5] = (data & 0xffff) | ones, words[6] = (data >> 16) << 12;
}

/* Writes the guest's layout; answers its size. */
static unsigned pack(const struct cpu *cpu, const struct cpu_op *op, const struct environment *e, uint8_t *to) {
    uint32_t words[7];
    if (is_16bit(op))
        pack16(cpu, e, (uint16_t *)words);
    else
        pack32(cpu, e, words);
    cpu_copy(to, words, environment_size(op));
    return environment_size(op);
}

static void unpack16(struct cpu *cpu, const uint16_t words[7], struct environment *e) {
    struct cpu_x87 *x87 = &cpu->x87;
    *e = (struct environment){words[0], words[1], words[2]};
    *x87 = (struct cpu_x87){.instruction = words[3], .code_selector = words[4], .data = words[5],
                            .data_selector = words[6]};
    if (!is_real_layout(cpu))
        return;
    *x87 = (struct cpu_x87){.instruction = words[3] | (uint32_t)(words[4] >> 12) << 16, .opcode = words[4] & 0x7ff,
                            .data = words[5] | (uint32_t)(words[6] >> 12) << 16};
}

static void unpack32(struct cpu *cpu, const uint32_t words[7], struct environment *e) {
    struct cpu_x87 *x87 = &cpu->x87;
    *e = (struct environment){(uint16_t)words[0], (uint16_t)words[1], (uint16_t)words[2]};
    *x87 = (struct cpu_x87){.instruction = words[3], .code_selector = (uint16_t)words[4],
                            .opcode = words[4] >> 16 & 0x7ff, .data = words[5], .data_selector = (uint16_t)words[6]};
    if (!is_real_layout(cpu))
        return;
    *x87 = (struct cpu_x87){.instruction = (words[3] & 0xffff) | (words[4] >> 12 & 0xffff) << 16,
                            .opcode = words[4] & 0x7ff,
                            .data = (words[5] & 0xffff) | (words[6] >> 12 & 0xffff) << 16};
}

static void unpack(struct cpu *cpu, const struct cpu_op *op, const uint8_t *from, struct environment *e) {
    uint32_t words[7] = {0};
    cpu_copy(words, from, environment_size(op));
    if (is_16bit(op))
        unpack16(cpu, (const uint16_t *)words, e);
    else
        unpack32(cpu, words, e);
}

static void from_host(const uint8_t *image, struct environment *e) {
    uint32_t words[3];
    cpu_copy(words, image, sizeof words);
    *e = (struct environment){(uint16_t)words[0], (uint16_t)words[1], (uint16_t)words[2]};
}

static void to_host(const struct environment *e, uint8_t *image) {
    uint32_t words[7] = {e->control | 0xffff0000u, e->status | 0xffff0000u, e->tag | 0xffff0000u, 0, 0, 0, 0xffff0000u};
    cpu_copy(image, words, sizeof words);
}

/* ---- Errors ---- */

static uint64_t assert_ferr(void *argument) {
    const struct trapeze_io *io = &((struct cpu *)argument)->config->io;
    io->fp_error(io->opaque);
    return 0;
}

enum cpu_result x87_raise(struct cpu *cpu) {
    x87_note_pointers(cpu);
    if ((cpu->cr0 & CR0_NE) || !cpu->config->io.fp_error)
        return cpu_fault(cpu, VECTOR_MF);
    cpu->call_full(cpu, assert_ferr, cpu);
    cpu->stop = CPU_STOP_WAIT;
    return CPU_STOP;
}

/* ---- Instructions ---- */

bool xstate_has_x87_error(void) {
    uint16_t status;
    __asm__ volatile("fnstsw %0" : "=a"(status));
    return status & FSW_ES;
}

/* FLDENV and FRSTOR report a pending exception first. */
static enum cpu_result check_pending(struct cpu *cpu) {
    return xstate_has_x87_error() ? x87_raise(cpu) : CPU_NEXT;
}

static enum cpu_result store(struct cpu *cpu, const struct cpu_op *op, bool saves_registers) {
    unsigned size = environment_size(op) + (saves_registers ? REGISTERS : 0);
    uint64_t linear;
    enum cpu_result result = xstate_check(cpu, false);
    if (result == CPU_NEXT)
        result = cpu_linear(cpu, op->segment, cpu_op_offset(cpu, op), size, ACCESS_WRITE, &linear);
    if (result == CPU_NEXT)
        result = cpu_probe_linear(cpu, linear, size, ACCESS_WRITE);
    if (result == CPU_NEXT)
        result = cpu_check_alignment(cpu, linear, size, ACCESS_WRITE);
    if (result != CPU_NEXT)
        return result;
    uint8_t *image = cpu->xsave_bounce, guest[HOST_ENVIRONMENT + REGISTERS];
    struct environment environment;
    x87_note_pointers(cpu);
    if (saves_registers)
        __asm__ volatile("fnsave (%0)" : : "r"(image) : "memory");
    else
        __asm__ volatile("fnstenv (%0)" : : "r"(image) : "memory");
    from_host(image, &environment);
    unsigned packed = pack(cpu, op, &environment, guest);
    if (saves_registers)
        cpu_copy(guest + packed, image + HOST_ENVIRONMENT, REGISTERS);
    if (saves_registers) /* as FNINIT */
        cpu->x87 = (struct cpu_x87){0};
    return cpu_write_linear(cpu, linear, guest, size, ACCESS_WRITE);
}

static enum cpu_result load(struct cpu *cpu, const struct cpu_op *op, bool loads_registers) {
    unsigned size = environment_size(op) + (loads_registers ? REGISTERS : 0);
    uint8_t *image = cpu->xsave_bounce, guest[HOST_ENVIRONMENT + REGISTERS];
    enum cpu_result result = xstate_check(cpu, false);
    if (result == CPU_NEXT)
        result = check_pending(cpu);
    if (result == CPU_NEXT)
        result = cpu_read(cpu, op->segment, cpu_op_offset(cpu, op), guest, size);
    if (result != CPU_NEXT)
        return result;
    struct environment environment;
    unpack(cpu, op, guest, &environment);
    to_host(&environment, image);
    if (loads_registers) {
        cpu_copy(image + HOST_ENVIRONMENT, guest + environment_size(op), REGISTERS);
        __asm__ volatile("frstor (%0)" : : "r"(image) : "memory");
    } else {
        __asm__ volatile("fldenv (%0)" : : "r"(image) : "memory");
    }
    return CPU_NEXT;
}

enum cpu_result cpu_op_fnstenv(struct cpu *cpu, const struct cpu_op *op) {
    return store(cpu, op, false);
}

enum cpu_result cpu_op_fnsave(struct cpu *cpu, const struct cpu_op *op) {
    return store(cpu, op, true);
}

enum cpu_result cpu_op_fldenv(struct cpu *cpu, const struct cpu_op *op) {
    return load(cpu, op, false);
}

enum cpu_result cpu_op_frstor(struct cpu *cpu, const struct cpu_op *op) {
    return load(cpu, op, true);
}
