/*
 * The x87 environment in memory: FNSTENV, FLDENV, FNSAVE, FRSTOR (SDM vol. 1, 8.1.10, figures 8-9 to 8-12).
 *
 * The host's instructions make and take the 32-bit protected-mode layout; it is converted from and to the guest's. The
 * instruction and data pointers are zero in both directions: the host's would be addresses of translated code.
 */
#include "cpu/access.h"
#include "cpu/ops.h"
#include "cpu/xstate.h"

enum { HOST_ENVIRONMENT = 28, REGISTERS = 80, FSW_ES = 0x80 };

struct environment {
    uint16_t control, status, tag, opcode;
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

/* ---- Layouts ---- */

/* Writes the guest's layout; answers its size. Without the pointers, real mode differs only in where the opcode is. */
static unsigned pack(const struct cpu *cpu, const struct cpu_op *op, const struct environment *e, uint8_t *to) {
    uint16_t opcode = e->opcode & 0x7ff;
    if (is_16bit(op)) {
        uint16_t words[7] = {e->control, e->status, e->tag};
        words[4] = is_real_layout(cpu) ? opcode : 0;
        cpu_copy(to, words, sizeof words);
        return sizeof words;
    }
    uint32_t words[7] = {e->control | 0xffff0000u, e->status | 0xffff0000u, e->tag | 0xffff0000u};
    if (is_real_layout(cpu)) {
        words[3] = 0xffff0000u;
        words[4] = opcode;
        words[5] = 0xffff0000u;
    } else {
        words[4] = (uint32_t)opcode << 16;
        words[6] = 0xffff0000u;
    }
    cpu_copy(to, words, sizeof words);
    return sizeof words;
}

static void unpack(const struct cpu *cpu, const struct cpu_op *op, const uint8_t *from, struct environment *e) {
    if (is_16bit(op)) {
        uint16_t words[7];
        cpu_copy(words, from, sizeof words);
        *e = (struct environment){words[0], words[1], words[2], is_real_layout(cpu) ? words[4] & 0x7ff : 0};
        return;
    }
    uint32_t words[7];
    cpu_copy(words, from, sizeof words);
    uint32_t opcode = is_real_layout(cpu) ? words[4] : words[4] >> 16;
    *e = (struct environment){(uint16_t)words[0], (uint16_t)words[1], (uint16_t)words[2], opcode & 0x7ff};
}

static void from_host(const uint8_t *image, struct environment *e) {
    uint32_t words[7];
    cpu_copy(words, image, sizeof words);
    *e = (struct environment){(uint16_t)words[0], (uint16_t)words[1], (uint16_t)words[2],
                              (uint16_t)(words[4] >> 16 & 0x7ff)};
}

static void to_host(const struct environment *e, uint8_t *image) {
    uint32_t words[7] = {e->control | 0xffff0000u, e->status | 0xffff0000u, e->tag | 0xffff0000u, 0,
                         (uint32_t)e->opcode << 16, 0, 0xffff0000u};
    cpu_copy(image, words, sizeof words);
}

/* ---- Instructions ---- */

bool xstate_has_x87_error(void) {
    uint16_t status;
    __asm__ volatile("fnstsw %0" : "=a"(status));
    return status & FSW_ES;
}

/* FLDENV and FRSTOR report a pending exception first. */
static enum cpu_result check_pending(struct cpu *cpu) {
    return xstate_has_x87_error() ? cpu_fault(cpu, VECTOR_MF) : CPU_NEXT;
}

static enum cpu_result store(struct cpu *cpu, const struct cpu_op *op, bool saves_registers) {
    unsigned size = environment_size(op) + (saves_registers ? REGISTERS : 0);
    uint64_t linear;
    enum cpu_result result = xstate_check(cpu, false);
    if (result == CPU_NEXT)
        result = cpu_linear(cpu, op->segment, cpu_op_offset(cpu, op), size, ACCESS_WRITE, &linear);
    if (result == CPU_NEXT)
        result = cpu_probe_linear(cpu, linear, size, ACCESS_WRITE);
    if (result != CPU_NEXT)
        return result;
    uint8_t *image = cpu->xsave_bounce, guest[HOST_ENVIRONMENT + REGISTERS];
    struct environment environment;
    if (saves_registers)
        __asm__ volatile("fnsave (%0)" : : "r"(image) : "memory");
    else
        __asm__ volatile("fnstenv (%0)" : : "r"(image) : "memory");
    from_host(image, &environment);
    unsigned packed = pack(cpu, op, &environment, guest);
    if (saves_registers)
        cpu_copy(guest + packed, image + HOST_ENVIRONMENT, REGISTERS);
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
