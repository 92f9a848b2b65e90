/* The emitter's encodings: SDM vol. 2A, 2.1 to 2.3. */
#include <assert.h>

#include "translator/emit.h"

/* Guest r9 to r11, r14 and r15 live in memory: what compilers take last, of the registers that calls change and of the others. */
const uint8_t host_register[CPU_REGISTERS] = {
    [CPU_RAX] = HOST_RAX, [CPU_RCX] = HOST_R10, [CPU_RDX] = HOST_RDX,  [CPU_RBX] = HOST_RBX,
    [CPU_RSP] = HOST_R12, [CPU_RBP] = HOST_RBP, [CPU_RSI] = HOST_RSI,  [CPU_RDI] = HOST_RDI,
    [CPU_R8] = HOST_R8,   [CPU_R9] = HOST_NONE, [CPU_R10] = HOST_NONE, [CPU_R11] = HOST_NONE,
    [CPU_R12] = HOST_R14, [CPU_R13] = HOST_R9,  [CPU_R14] = HOST_NONE, [CPU_R15] = HOST_NONE,
};

void emit_u32(struct emitter *e, uint32_t value) {
    for (unsigned i = 0; i < 4; i++)
        emit_u8(e, value >> (8 * i) & 0xff);
}

void emit_u64(struct emitter *e, uint64_t value) {
    emit_u32(e, (uint32_t)value);
    emit_u32(e, (uint32_t)(value >> 32));
}

void emit_bytes(struct emitter *e, const uint8_t *bytes, unsigned count) {
    for (unsigned i = 0; i < count; i++)
        emit_u8(e, bytes[i]);
}

static unsigned scale_bits(unsigned scale) {
    return scale == 8 ? 3 : scale == 4 ? 2 : scale == 2 ? 1 : 0;
}

void emit_modrm_memory(struct emitter *e, unsigned reg, const struct emit_memory *memory) {
    unsigned base = memory->base, index = memory->index;
    int32_t displacement = memory->displacement;
    reg = (reg & 7) << 3;
    if (base == HOST_NONE) { /* [index * scale + disp32], or [disp32] */
        emit_u8(e, reg | 4);
        emit_u8(e, scale_bits(memory->scale) << 6 | (index == HOST_NONE ? 4 : index & 7) << 3 | 5);
        emit_u32(e, (uint32_t)displacement);
        return;
    }
    unsigned mod = 0x80;
    if (displacement == 0 && (base & 7) != 5)
        mod = 0;
    else if (displacement >= -128 && displacement <= 127 && (!memory->is_evex || displacement == 0))
        mod = 0x40;
    if (index == HOST_NONE && (base & 7) != 4) {
        emit_u8(e, mod | reg | (base & 7));
    } else {
        emit_u8(e, mod | reg | 4);
        emit_u8(e, scale_bits(memory->scale) << 6 | (index == HOST_NONE ? 4 : index & 7) << 3 | (base & 7));
    }
    if (mod == 0x40)
        emit_u8(e, (unsigned)displacement & 0xff);
    else if (mod == 0x80)
        emit_u32(e, (uint32_t)displacement);
}

static void emit_opcode(struct emitter *e, unsigned opcode) {
    if (opcode > 0xffff)
        emit_u8(e, opcode >> 16);
    if (opcode > 0xff)
        emit_u8(e, opcode >> 8 & 0xff);
    emit_u8(e, opcode & 0xff);
}

static void emit_rex(struct emitter *e, bool w, unsigned reg, unsigned index, unsigned base) {
    unsigned rex = (w ? 8 : 0) | (reg != HOST_NONE && reg > 7 ? 4 : 0) | (index != HOST_NONE && index > 7 ? 2 : 0) |
                   (base != HOST_NONE && base > 7 ? 1 : 0);
    if (rex)
        emit_u8(e, 0x40 | rex);
}

void emit_memory_prefixes(struct emitter *e, const struct emit_memory *memory) {
    if (memory->segment)
        emit_u8(e, memory->segment);
    if (memory->is_address32)
        emit_u8(e, 0x67);
}

void emit_op_memory(struct emitter *e, unsigned prefix, bool rex_w, unsigned opcode, unsigned reg,
                    const struct emit_memory *memory) {
    emit_memory_prefixes(e, memory);
    if (prefix)
        emit_u8(e, prefix);
    emit_rex(e, rex_w, reg, memory->index, memory->base);
    emit_opcode(e, opcode);
    emit_modrm_memory(e, reg, memory);
}

void emit_op_register(struct emitter *e, unsigned prefix, bool rex_w, unsigned opcode, unsigned reg, unsigned rm) {
    if (prefix)
        emit_u8(e, prefix);
    emit_rex(e, rex_w, reg, HOST_NONE, rm);
    emit_opcode(e, opcode);
    emit_u8(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

void emit_mov(struct emitter *e, unsigned to, unsigned from) {
    emit_op_register(e, 0, true, 0x8b, to, from);
}

void emit_mov32(struct emitter *e, unsigned to, unsigned from) {
    emit_op_register(e, 0, false, 0x8b, to, from);
}

void emit_mov_immediate(struct emitter *e, unsigned to, uint64_t value) {
    if (value <= 0xffffffffu) {
        emit_rex(e, false, HOST_NONE, HOST_NONE, to);
        emit_u8(e, 0xb8 | (to & 7));
        emit_u32(e, (uint32_t)value);
    } else if ((uint64_t)(int32_t)value == value) {
        emit_op_register(e, 0, true, 0xc7, 0, to);
        emit_u32(e, (uint32_t)value);
    } else {
        emit_rex(e, true, HOST_NONE, HOST_NONE, to);
        emit_u8(e, 0xb8 | (to & 7));
        emit_u64(e, value);
    }
}

static struct emit_memory from_r(int32_t offset) {
    return memory_at(REG_R, offset);
}

void emit_load(struct emitter *e, unsigned to, int32_t r_offset) {
    struct emit_memory memory = from_r(r_offset);
    emit_op_memory(e, 0, true, 0x8b, to, &memory);
}

void emit_store(struct emitter *e, int32_t r_offset, unsigned from) {
    struct emit_memory memory = from_r(r_offset);
    emit_op_memory(e, 0, true, 0x89, from, &memory);
}

void emit_load32(struct emitter *e, unsigned to, int32_t r_offset) {
    struct emit_memory memory = from_r(r_offset);
    emit_op_memory(e, 0, false, 0x8b, to, &memory);
}

void emit_store32(struct emitter *e, int32_t r_offset, unsigned from) {
    struct emit_memory memory = from_r(r_offset);
    emit_op_memory(e, 0, false, 0x89, from, &memory);
}

void emit_lea(struct emitter *e, bool is_64, unsigned to, const struct emit_memory *memory) {
    emit_op_memory(e, 0, is_64, 0x8d, to, memory);
}

void emit_add_lea(struct emitter *e, unsigned to, unsigned a, unsigned b, int32_t displacement) {
    /* rbp and r13 as a base cost a displacement byte, and rsp cannot be an index: both are avoided by the callers. */
    struct emit_memory memory = memory_indexed(a, b, 1, displacement);
    emit_lea(e, true, to, &memory);
}

void emit_zero_extend16(struct emitter *e, unsigned to, unsigned from) {
    emit_op_register(e, 0, false, 0x0fb7, to, from);
}

/* Three-byte VEX, map 2 (0F38) or 3 (0F3A); vvvv is the extra source. */
static void emit_vex(struct emitter *e, unsigned map, unsigned pp, bool w, unsigned reg, unsigned vvvv, unsigned rm) {
    emit_u8(e, 0xc4);
    emit_u8(e, (reg > 7 ? 0 : 0x80) | 0x40 | (rm > 7 ? 0 : 0x20) | map);
    emit_u8(e, (w ? 0x80 : 0) | (~vvvv & 15) << 3 | pp);
}

enum { PUSHFQ = 0x9c, POPFQ = 0x9d };

/* ROR (1), SHR (5) or SAR (7) by a constant. */
static void emit_shift_beside_flags(struct emitter *e, unsigned extension, unsigned to, unsigned from, unsigned count) {
    emit_u8(e, PUSHFQ);
    if (to != from)
        emit_mov(e, to, from);
    emit_op_register(e, 0, true, 0xc1, extension, to);
    emit_u8(e, count);
    emit_u8(e, POPFQ);
}

void emit_rorx(struct emitter *e, unsigned to, unsigned from, unsigned count) {
    if (e->lacks_bmi2) {
        emit_shift_beside_flags(e, 1, to, from, count);
        return;
    }
    emit_vex(e, 3, 3, true, to, 0, from);
    emit_u8(e, 0xf0);
    emit_u8(e, 0xc0 | (to & 7) << 3 | (from & 7));
    emit_u8(e, count);
}

/* SHRX (pp 3) or SARX (2). */
static void emit_shift_by(struct emitter *e, unsigned pp, unsigned to, unsigned from, unsigned count_register) {
    emit_vex(e, 2, pp, true, to, count_register, from);
    emit_u8(e, 0xf7);
    emit_u8(e, 0xc0 | (to & 7) << 3 | (from & 7));
}

void emit_bits16(struct emitter *e, unsigned to, unsigned from, unsigned shift) {
    if (!e->lacks_bmi2) {
        emit_rorx(e, to, from, shift);
        emit_zero_extend16(e, to, to);
        return;
    }
    /* Moved up to whole bytes, which memory tells apart. */
    for (unsigned i = shift; i % 8; i++) {
        emit_add_lea(e, to, from, from, 0);
        from = to;
    }
    struct emit_memory place = from_r(R_STATE(hot.shifted) + (int32_t)(shift + 7) / 8);
    emit_store(e, R_STATE(hot.shifted), from);
    emit_op_memory(e, 0, false, 0x0fb7, to, &place);
}

void emit_jump_index(struct emitter *e, unsigned to) {
    _Static_assert(VIEW_JUMPS == 65536, "an index of 16 bits");
    if (e->lacks_bmi2) /* not by a push: behind a RET to the sentinel, its slot is below the stack pointer */
        emit_bits16(e, to, REG_S, VIEW_JUMP_SHIFT);
    else
        emit_rorx(e, to, REG_S, VIEW_JUMP_SHIFT);
    emit_add_lea(e, to, to, REG_S, 0);
    emit_zero_extend16(e, to, to);
    emit_add_lea(e, to, to, to, 0);
}

void emit_sar(struct emitter *e, unsigned to, unsigned from, unsigned count) {
    if (e->lacks_bmi2) {
        emit_shift_beside_flags(e, 7, to, from, count);
        return;
    }
    emit_mov_immediate(e, to, count);
    emit_shift_by(e, 2, to, from, to);
}

void emit_page_number(struct emitter *e, unsigned reg) {
    enum { DISTANCE = VIEW_CHECK_SHIFT - 12 };
    if (e->lacks_bmi2) {
        emit_shift_beside_flags(e, 5, reg, reg, 12);
        return;
    }
    struct emit_memory before = memory_at(REG_R, -DISTANCE), behind = memory_at(REG_R, DISTANCE);
    emit_lea(e, true, REG_R, &before);
    emit_shift_by(e, 3, reg, reg, REG_R);
    emit_lea(e, true, REG_R, &behind);
}

void emit_check_index(struct emitter *e, unsigned to, unsigned from) {
    _Static_assert((VIEW_R & 63) == VIEW_CHECK_SHIFT, "R is the count");
    if (e->lacks_bmi2)
        emit_bits16(e, to, from, VIEW_CHECK_SHIFT);
    else
        emit_shift_by(e, 3, to, from, REG_R);
}

void emit_keep(struct emitter *e, unsigned reg, unsigned mask_register) {
    if (e->lacks_bmi2) {
        emit_u8(e, PUSHFQ);
        emit_op_register(e, 0, true, 0x23, reg, mask_register); /* and */
        emit_u8(e, POPFQ);
        return;
    }
    for (unsigned pp = 2; pp <= 3; pp++) { /* pext, pdep */
        emit_vex(e, 2, pp, true, reg, reg, mask_register);
        emit_u8(e, 0xf5);
        emit_u8(e, 0xc0 | (reg & 7) << 3 | (mask_register & 7));
    }
}

uint8_t *emit_jrcxz(struct emitter *e) {
    emit_u8(e, 0xe3);
    emit_u8(e, 0);
    return e->at;
}

void emit_here(struct emitter *e, uint8_t *branch) {
    if (e->at - branch > 127)
        e->overflow = true;
    assert(e->overflow || e->at - branch <= 127);
    if (!e->overflow)
        branch[-1] = (uint8_t)(e->at - branch);
}

void emit_relocation(struct emitter *e, enum relocation_kind kind) {
    struct relocations *relocations = e->relocations;
    if (!relocations || relocations->is_unmovable)
        return;
    if (relocations->count == EMIT_RELOCATIONS) {
        relocations->is_unmovable = true;
        return;
    }
    unsigned bytes = kind == RELOCATE_RIP || kind == RELOCATE_MINUS_RIP ? 8 : 4;
    relocations->entry[relocations->count++] =
        (struct relocation){(uint16_t)(e->at - relocations->start - bytes), (uint16_t)kind};
}

static bool is_elsewhere(const struct emitter *e, uint64_t target) {
    if (!e->relocations)
        return false;
    uint8_t *start = e->relocations->start;
    return target - (uint64_t)e->delta - (uint64_t)start > (uint64_t)(e->end - start);
}

static void emit_relative(struct emitter *e, uint64_t target) {
    emit_u32(e, (uint32_t)(target - (emit_address(e) + 4)));
    if (is_elsewhere(e, target))
        emit_relocation(e, RELOCATE_HOST);
}

void emit_call(struct emitter *e, uint64_t target) {
    emit_u8(e, 0xe8);
    emit_relative(e, target);
}

void emit_jump(struct emitter *e, uint64_t target) {
    emit_u8(e, 0xe9);
    emit_relative(e, target);
}

void emit_jump_to(uint8_t *behind, const uint8_t *target) {
    uint32_t relative = (uint32_t)(target - behind);
    for (unsigned k = 0; k < 4; k++)
        behind[(int)k - 4] = (uint8_t)(relative >> (8 * k));
}

void emit_jump_here(struct emitter *e, uint8_t *behind) {
    if (!e->overflow)
        emit_jump_to(behind, e->at);
}

/* CS prefixes, which branches ignore in 64-bit code: a NOP would keep a comparison from being fused with its branch. */
void emit_align_displacement(struct emitter *e, unsigned opcode_bytes) {
    static const uint8_t prefixes[3] = {0x2e, 0x2e, 0x2e};
    unsigned place = (unsigned)((uintptr_t)e->at + opcode_bytes) & 7, pad = place > 4 ? 8 - place : 0;
    emit_bytes(e, prefixes, pad);
}

uint8_t *emit_jump_short(struct emitter *e) {
    emit_u8(e, 0xeb);
    emit_u8(e, 0);
    return e->at;
}

uint8_t *emit_jump_patchable(struct emitter *e, uint64_t target) {
    emit_align_displacement(e, 1);
    emit_u8(e, 0xe9);
    uint8_t *displacement = e->at;
    emit_relative(e, target ? target : emit_address(e) + 4);
    return displacement;
}

void emit_jcc(struct emitter *e, unsigned condition, uint64_t target) {
    emit_u8(e, 0x0f);
    emit_u8(e, 0x80 | condition);
    emit_relative(e, target);
}

uint8_t *emit_jcc_short(struct emitter *e, unsigned condition) {
    emit_u8(e, 0x70 | condition);
    emit_u8(e, 0);
    return e->at;
}
