/*
 * An instruction that a C function of cpu/ runs, as the translator decoded it.
 *
 * Each function `cpu_op_NAME(cpu, op)` runs one instruction (or one family) with full state in *cpu: rip is that of the
 * instruction itself. It answers as enum cpu_result says; with CPU_NEXT the caller adds op->length to rip. A function
 * checks everything the manual asks for (CPL, IOPL, mode, operands) except #UD for features: the translator does not
 * call it then.
 */
#ifndef CPU_OP_H
#define CPU_OP_H

#include "cpu/cpu.h"

enum { CPU_REP_NONE, CPU_REP, CPU_REPNE };

struct cpu_op {
    uint8_t length;       /* bytes of the instruction */
    uint8_t size;         /* effective operand size in bytes: 1, 2, 4, 8 (of the memory operand where they differ) */
    uint8_t address_size; /* 2, 4, 8 */
    uint8_t code_size;    /* 2, 4, 8: CS.D/L */
    uint8_t reg;          /* ModRM.reg with its extension: a general, segment, control, debug or vector register */
    uint8_t rm;           /* register form: ModRM.rm with its extension; memory form: CPU_NO_REGISTER */
    uint8_t segment;      /* effective segment of the memory operand */
    uint8_t base, index, scale; /* CPU_NO_REGISTER where there is none; scale 1, 2, 4, 8 */
    uint8_t rep;          /* CPU_REP_NONE, CPU_REP (F3), CPU_REPNE (F2) */
    uint8_t lock;
    uint8_t high_byte;    /* bit 0: reg is AH..BH (then reg is 0..3); bit 1: rm is */
    uint8_t opcode;       /* last opcode byte */
    uint8_t rip_relative; /* displacement is added to the next instruction's rip */
    uint8_t vector_length; /* VEX/EVEX: 16, 32, 64 */
    uint8_t vvvv;         /* VEX/EVEX second source register */
    uint8_t mask;         /* EVEX opmask register, 0 = none */
    uint8_t index_is_vector; /* VSIB: index is a vector register */
    uint8_t element_size; /* gather/scatter: bytes of an element; index_size: of an index */
    uint8_t index_size;
    int64_t displacement;
    uint64_t immediate;   /* sign-extended as the instruction does; far pointer: offset */
    uint16_t immediate2;  /* far pointer: selector; ENTER: nesting level */
    uint16_t mnemonic;    /* decoder's number, for messages alone */
};

typedef enum cpu_result cpu_op_function(struct cpu *cpu, const struct cpu_op *op);

/* Offset of the memory operand within its segment, truncated to the address size. */
uint64_t cpu_op_offset(const struct cpu *cpu, const struct cpu_op *op);

/* General register of `size` bytes, zero-extended; `high` for AH..BH. Writes of 4 bytes clear the upper half. */
uint64_t cpu_get_gpr(const struct cpu *cpu, unsigned index, unsigned size, bool high);
void cpu_set_gpr(struct cpu *cpu, unsigned index, unsigned size, bool high, uint64_t value);

/* The rm operand (register or memory) as an integer of `size` bytes. */
enum cpu_result cpu_op_read_rm(struct cpu *cpu, const struct cpu_op *op, unsigned size, uint64_t *value);
enum cpu_result cpu_op_write_rm(struct cpu *cpu, const struct cpu_op *op, unsigned size, uint64_t value);

#endif
