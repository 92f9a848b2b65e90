/*
 * A small x86-64 emitter: what the translator makes itself, as opposed to guest bytes that it copies.
 *
 * Writes go to a writable alias of the code cache; `delta` leads from it to the executable mapping, which is where
 * relative displacements count. Nothing here changes guest flags when executed unless its name says so.
 */
#ifndef TRANSLATOR_EMIT_H
#define TRANSLATOR_EMIT_H

#include "cpu/cpu.h"

/* Host registers in encoding order. */
enum {
    HOST_RAX, HOST_RCX, HOST_RDX, HOST_RBX, HOST_RSP, HOST_RBP, HOST_RSI, HOST_RDI,
    HOST_R8, HOST_R9, HOST_R10, HOST_R11, HOST_R12, HOST_R13, HOST_R14, HOST_R15,
    HOST_NONE = 0xff
};

/*
 * What the translator keeps for itself: the base register R (VIEW_R), two
 * scratch registers and one for the index of a memory access alone (T), and rsp, which is the shadow stack. A is rcx because jrcxz is the branch that reads no flags.
 */
enum { REG_R = HOST_R13, REG_A = HOST_RCX, REG_S = HOST_R11, REG_T = HOST_R15 };

/* Where a guest register lives: a host register, or HOST_NONE for cpu->hot.gpr[]. */
extern const uint8_t host_register[CPU_REGISTERS];

/* What in the code of a block depends on where the code or the guest's instructions are; see move.c. */
enum relocation_kind {
    RELOCATE_HOST,      /* 32-bit displacement to code outside the block */
    RELOCATE_RIP,       /* 64-bit address near rip */
    RELOCATE_MINUS_RIP, /* the same negated */
    RELOCATE_JUMP,      /* 32-bit displacement from R to an address's entry in the jump cache */
    RELOCATE_REGION,    /* likewise in the table of regions, of the 64-bit address that the next instruction loads */
    RELOCATE_BLOCK,     /* 32-bit address of the struct block */
    RELOCATE_HELPER,    /* 32-bit address of a struct helper_call */
};

struct relocation {
    uint16_t at, kind; /* offset in the block's code */
};

#define EMIT_RELOCATIONS 256u
struct relocations {
    uint8_t *start;    /* of the block's code, writable alias */
    unsigned count;
    bool is_unmovable; /* something depends on the place that is not among the entries */
    struct relocation entry[EMIT_RELOCATIONS];
};

struct emitter {
    uint8_t *at, *end; /* writable alias */
    int64_t delta;     /* executable address - writable address */
    bool overflow;     /* `end` was reached; nothing more is written */
    struct relocations *relocations; /* NULL: of code that is never moved */
    bool lacks_bmi2;   /* the host's shifts change flags, which are kept on the shadow stack meanwhile */
};

enum { SEGMENT_GS = 0x65 };

struct emit_memory {
    uint8_t base, index, scale; /* HOST_NONE: absent; scale 1, 2, 4, 8 */
    int32_t displacement;
    uint8_t segment;            /* a segment override: 0 or SEGMENT_GS */
    bool is_address32;          /* the sum is cut to 32 bits */
    bool is_evex;               /* where one byte of displacement counts operands */
};

static inline struct emit_memory memory_indexed(unsigned base, unsigned index, unsigned scale, int32_t displacement) {
    return (struct emit_memory){.base = (uint8_t)base, .index = (uint8_t)index, .scale = (uint8_t)scale,
                                .displacement = displacement};
}
static inline struct emit_memory memory_at(unsigned base, int32_t displacement) {
    return memory_indexed(base, HOST_NONE, 1, displacement);
}

static inline void emit_u8(struct emitter *e, unsigned value) {
    if (e->at < e->end)
        *e->at++ = (uint8_t)value;
    else
        e->overflow = true;
}
void emit_u32(struct emitter *e, uint32_t value);
void emit_u64(struct emitter *e, uint64_t value);
void emit_bytes(struct emitter *e, const uint8_t *bytes, unsigned count);

static inline uint64_t emit_address(const struct emitter *e) {
    return (uint64_t)e->at + (uint64_t)e->delta;
}

/* Notes that the bytes just emitted, at the end of an instruction, depend on the place. */
void emit_relocation(struct emitter *e, enum relocation_kind kind);

/* The prefixes that come before all others: segment and address size. */
void emit_memory_prefixes(struct emitter *e, const struct emit_memory *memory);
/* ModRM (and SIB, displacement) for a memory operand; bits of base and index beyond 7 belong into REX. */
void emit_modrm_memory(struct emitter *e, unsigned reg, const struct emit_memory *memory);
/* opcode: 0xNN, 0x0FNN, 0x0F38NN; rex_w for 64-bit; prefix: 0 or 66h, F2h, F3h. byte_register: spl..dil need a REX. */
void emit_op_memory(struct emitter *e, unsigned prefix, bool rex_w, unsigned opcode, unsigned reg,
                    const struct emit_memory *memory);
void emit_op_register(struct emitter *e, unsigned prefix, bool rex_w, unsigned opcode, unsigned reg, unsigned rm);

void emit_mov(struct emitter *e, unsigned to, unsigned from);     /* 64 bits */
void emit_mov32(struct emitter *e, unsigned to, unsigned from);   /* zero-extends */
void emit_mov_immediate(struct emitter *e, unsigned to, uint64_t value);
void emit_load(struct emitter *e, unsigned to, int32_t r_offset); /* 64 bits from [R + offset] */
void emit_store(struct emitter *e, int32_t r_offset, unsigned from);
void emit_load32(struct emitter *e, unsigned to, int32_t r_offset);
void emit_store32(struct emitter *e, int32_t r_offset, unsigned from);
void emit_lea(struct emitter *e, bool is_64, unsigned to, const struct emit_memory *memory);
void emit_add_lea(struct emitter *e, unsigned to, unsigned a, unsigned b, int32_t displacement); /* to = a + b + d */
void emit_zero_extend16(struct emitter *e, unsigned to, unsigned from);
/* Shifts of 64 bits, flags untouched. */
void emit_rorx(struct emitter *e, unsigned to, unsigned from, unsigned count);
void emit_sar(struct emitter *e, unsigned to, unsigned from, unsigned count); /* `to` is not `from` */
void emit_page_number(struct emitter *e, unsigned reg);                       /* reg >>= 12 */
/* to = from >> VIEW_CHECK_SHIFT; without BMI2, bits 46:31 alone. */
void emit_check_index(struct emitter *e, unsigned to, unsigned from);
/* The 16 bits of `from` above `shift` lower ones, zero-extended. Without BMI2 it takes an LEA for each bit that shift lacks to
   a multiple of 8. */
void emit_bits16(struct emitter *e, unsigned to, unsigned from, unsigned shift);
/* reg &= mask, flags untouched. */
void emit_keep(struct emitter *e, unsigned reg, unsigned mask_register);

/* to = twice the jump cache's index for the target in S. */
void emit_jump_index(struct emitter *e, unsigned to);

/* Branches. A label for a short forward branch is the address behind it. */
uint8_t *emit_jrcxz(struct emitter *e);                  /* patched by emit_here */
void emit_here(struct emitter *e, uint8_t *branch);
void emit_call(struct emitter *e, uint64_t target);
void emit_jump(struct emitter *e, uint64_t target);
/* Leads the jump or call whose 32-bit displacement ends at `behind` to here. */
void emit_jump_here(struct emitter *e, uint8_t *behind);
/* The same to a place in the same code. */
void emit_jump_to(uint8_t *behind, const uint8_t *target);
/* Pads so that the displacement behind an opcode of so many bytes lies within an aligned word of 8, hence is patched by one
   store that other processors see whole (SDM vol. 3A, 9.1.1; APM vol. 2, 7.3.2). */
void emit_align_displacement(struct emitter *e, unsigned opcode_bytes);
uint8_t *emit_jump_patchable(struct emitter *e, uint64_t target); /* 5 bytes; its displacement */
void emit_jcc(struct emitter *e, unsigned condition, uint64_t target);
uint8_t *emit_jump_short(struct emitter *e);                      /* likewise */
uint8_t *emit_jcc_short(struct emitter *e, unsigned condition);   /* patched by emit_here */

/* Offsets of struct cpu from R, for the state pages in front of every view. */
#define R_STATE(field) ((int32_t)(offsetof(struct cpu, field) - sizeof(struct cpu)) - VIEW_R)
#define R_GPR(guest) (R_STATE(hot.gpr) + 8 * (int32_t)(guest))
/* And of the view's tables. */
#define R_TABLE(field) ((int32_t)offsetof(struct view_tables, field) - VIEW_R)
#define R_CHECK(table) (R_TABLE(check) + (int32_t)((table) * VIEW_CHECK_STRIDE))

#endif
