/*
 * The rule for most instructions: the same instruction, on host registers that hold the guest's and on the host address
 * of its memory operand. Opcode, prefixes that belong to it and immediates are copied; ModRM, SIB and the register
 * extensions are made anew.
 *
 * After an access, the operand's place names up to two of the scratch registers; what an instruction needs beside it
 * (rcx for CL, one for each guest register that lives in memory) may ask for its address in one of them alone. Without a
 * memory operand, a third scratch register is borrowed from a guest register that the instruction does not use; nothing
 * can fault while it is.
 */
#include <string.h>

#include "translator/translation.h"

/* One register field of the encoding. */
struct field {
    unsigned guest;     /* CPU_NO_REGISTER: not a general register, copied as it is */
    unsigned host;      /* its host register, or the scratch that stands for it */
    bool high, read, written, narrow;
    bool in_memory;
};

struct copy {
    struct field reg, rm, vvvv, opcode;
    const ZydisDecodedOperand *memory;
    enum memory_kind kind;
    struct emit_memory place;
    bool uses_cl, writes_rcx;   /* implicit operands */
    bool is_opcode_register;
    bool has_slot;              /* the place is that of a guest register in cpu->hot.gpr, in r/m's stead */
    bool is_turned;             /* reg and r/m have changed places, and the opcode its direction */
    uint32_t used;              /* guest registers, for borrowing */
    unsigned borrowed[2], borrowed_count;
};

static struct field *field_of(struct copy *copy, const ZydisDecodedOperand *operand) {
    switch (operand->encoding) {
    case ZYDIS_OPERAND_ENCODING_MODRM_REG:
        return &copy->reg;
    case ZYDIS_OPERAND_ENCODING_MODRM_RM:
        return &copy->rm;
    case ZYDIS_OPERAND_ENCODING_NDSNDD:
        return &copy->vvvv;
    case ZYDIS_OPERAND_ENCODING_OPCODE:
        return &copy->opcode;
    default:
        return NULL;
    }
}

static bool keeps_destination(const struct translation *t) {
    return t->in.z->mnemonic == ZYDIS_MNEMONIC_BSF || t->in.z->mnemonic == ZYDIS_MNEMONIC_BSR;
}

/* XOR or SUB of a register and itself: what it was does not matter. */
static bool is_zeroing(const struct translation *t) {
    const ZydisDecodedOperand *operand = t->in.operand;
    return (t->in.z->mnemonic == ZYDIS_MNEMONIC_XOR || t->in.z->mnemonic == ZYDIS_MNEMONIC_SUB) &&
           operand[0].type == ZYDIS_OPERAND_TYPE_REGISTER && operand[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
           operand[0].reg.value == operand[1].reg.value && operand[0].size >= 32;
}

static void note_register(struct translation *t, struct copy *copy, const ZydisDecodedOperand *operand) {
    bool high;
    unsigned guest = decode_gpr(operand->reg.value, &high);
    if (guest == CPU_NO_REGISTER)
        return;
    copy->used |= 1u << guest;
    bool written = operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    struct field *field = field_of(copy, operand);
    if (!field) {
        if (guest == CPU_RCX) {
            copy->uses_cl |= (operand->actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0;
            copy->writes_rcx |= written;
        }
        return;
    }
    field->guest = guest;
    field->high = high;
    field->written = written;
    field->narrow = operand->size < 32;
    field->read = !written || (operand->actions & ~(unsigned)ZYDIS_OPERAND_ACTION_WRITE) || field->narrow ||
                  keeps_destination(t);
    field->read &= !is_zeroing(t);
    field->host = t->home[guest];
    field->in_memory = field->host == HOST_NONE;
}

static void note_operands(struct translation *t, struct copy *copy) {
    copy->reg.guest = copy->rm.guest = copy->vvvv.guest = copy->opcode.guest = CPU_NO_REGISTER;
    for (unsigned i = 0; i < t->in.z->operand_count; i++) {
        const ZydisDecodedOperand *operand = &t->in.operand[i];
        if (operand->type == ZYDIS_OPERAND_TYPE_REGISTER) {
            note_register(t, copy, operand);
        } else if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY && operand->mem.type != ZYDIS_MEMOP_TYPE_AGEN &&
                   operand->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN) {
            copy->memory = operand;
            bool read = operand->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
            bool written = operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
            bool is_masked = t->in.z->avx.mask.mode != ZYDIS_MASK_MODE_INVALID &&
                             t->in.z->avx.mask.mode != ZYDIS_MASK_MODE_DISABLED;
            copy->kind = !written ? MEMORY_READ : read || is_masked ? MEMORY_MODIFY : MEMORY_WRITE;
            if (t->in.z->meta.category == ZYDIS_CATEGORY_AVX && (operand->actions & ZYDIS_OPERAND_ACTION_CONDWRITE))
                copy->kind = MEMORY_MODIFY;
        }
    }
    copy->is_opcode_register = copy->opcode.guest != CPU_NO_REGISTER;
}

/* ---- Scratch registers ---- */

static unsigned borrow(struct translation *t, struct copy *copy) {
    static const uint8_t candidates[] = {CPU_RBX, CPU_RBP, CPU_R8, CPU_R12, CPU_R13};
    for (unsigned i = 0; i < sizeof candidates; i++) {
        unsigned guest = candidates[i];
        if ((copy->used & (1u << guest)) || t->home[guest] == HOST_NONE)
            continue;
        copy->used |= 1u << guest;
        copy->borrowed[copy->borrowed_count++] = guest;
        emit_store(&t->e, t->slot[guest], t->home[guest]);
        return t->home[guest];
    }
    t->failed = true; /* no instruction has that many operands */
    return HOST_RBX;
}

static void give_back(struct translation *t, struct copy *copy) {
    while (copy->borrowed_count) {
        unsigned guest = copy->borrowed[--copy->borrowed_count];
        emit_load(&t->e, t->home[guest], t->slot[guest]);
    }
}

static bool place_names(const struct copy *copy, unsigned reg) {
    return copy->memory && (copy->place.base == reg || copy->place.index == reg);
}

/* Host registers that neither the place nor the instruction uses, S first. With a memory operand, which may fault where
   it is used, T is the last one; no guest register is borrowed then. */
static unsigned take_scratches(struct translation *t, struct copy *copy, unsigned wanted, unsigned free[3]) {
    bool wants_rcx = copy->uses_cl || copy->writes_rcx;
    unsigned count = 0;
    if (wants_rcx && place_names(copy, REG_A))
        emit_flatten(t, &copy->place, REG_S);
    else if (wanted && copy->memory && place_names(copy, REG_S) && (place_names(copy, REG_A) || wanted > 1))
        emit_flatten(t, &copy->place, wants_rcx ? REG_S : REG_A);
    if (!place_names(copy, REG_S))
        free[count++] = REG_S;
    if (!place_names(copy, REG_A) && !wants_rcx)
        free[count++] = REG_A;
    if (count < wanted && copy->memory && !place_names(copy, REG_T)) {
        free[count++] = REG_T;
        forget_addend(t);
    }
    return count;
}

/* Finds host registers for the fields that live in memory, and loads them. */
static void load_fields(struct translation *t, struct copy *copy) {
    struct field *fields[] = {&copy->reg, &copy->rm, &copy->vvvv, &copy->opcode};
    unsigned wanted = 0, free[3], taken = 0;
    for (unsigned i = 0; i < 4; i++)
        wanted += fields[i]->guest != CPU_NO_REGISTER && fields[i]->in_memory;
    unsigned count = take_scratches(t, copy, wanted, free);
    for (unsigned i = 0; i < 4; i++) {
        struct field *field = fields[i];
        if (field->guest == CPU_NO_REGISTER || !field->in_memory)
            continue;
        bool is_loaded = false;
        for (unsigned k = 0; k < i; k++) /* the same register twice is one scratch */
            if (fields[k]->guest == field->guest && fields[k]->in_memory) {
                field->host = fields[k]->host;
                is_loaded |= fields[k]->read;
            }
        bool is_twin = field->host != HOST_NONE;
        if (!is_twin)
            field->host = taken < count ? free[taken++] : borrow(t, copy);
        if (field->read && !is_loaded)
            emit_load(&t->e, field->host, t->slot[field->guest]);
    }
    if (copy->uses_cl)
        emit_mov(&t->e, REG_A, t->home[CPU_RCX]);
}

static void store_fields(struct translation *t, struct copy *copy) {
    struct field *fields[] = {&copy->reg, &copy->rm, &copy->vvvv, &copy->opcode};
    for (unsigned i = 0; i < 4; i++)
        if (fields[i]->guest != CPU_NO_REGISTER && fields[i]->in_memory && fields[i]->written)
            emit_store(&t->e, t->slot[fields[i]->guest], fields[i]->host);
    if (copy->writes_rcx)
        emit_mov(&t->e, t->home[CPU_RCX], REG_A);
    give_back(t, copy);
}

/* ---- Guest registers in memory as memory operands ---- */

/*
 * Instructions that mean the same with memory in r/m as with a register, where it pays: hosts forward what was stored to
 * MOV and to instructions that store their result there again in no time, but not to others. What those read had better be
 * in a scratch register, unless only a branch waits for them.
 */
static bool takes_slot(ZydisMnemonic mnemonic) {
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_ADC:
    case ZYDIS_MNEMONIC_SUB:
    case ZYDIS_MNEMONIC_SBB:
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_OR:
    case ZYDIS_MNEMONIC_XOR:
    case ZYDIS_MNEMONIC_CMP:
    case ZYDIS_MNEMONIC_TEST:
    case ZYDIS_MNEMONIC_INC:
    case ZYDIS_MNEMONIC_DEC:
    case ZYDIS_MNEMONIC_NEG:
    case ZYDIS_MNEMONIC_NOT:
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
        return true;
    default:
        return false;
    }
}

/* MOV and the arithmetic instructions have a form for each direction, TEST has none. */
static bool can_turn(const struct translation *t) {
    unsigned opcode = t->in.z->opcode;
    if (t->in.z->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
        return false;
    return opcode == 0x84 || opcode == 0x85 || (opcode & ~3u) == 0x88 || (opcode < 0x40 && !(opcode & 4));
}

/* A write of 32 bits clears the rest of the register; one of fewer would make the next load wait. */
static bool may_be_slot(const struct translation *t, const struct field *field, unsigned bits) {
    if (field->guest == CPU_NO_REGISTER || !field->in_memory)
        return false;
    ZydisMnemonic mnemonic = t->in.z->mnemonic;
    if (mnemonic == ZYDIS_MNEMONIC_CMP || mnemonic == ZYDIS_MNEMONIC_TEST)
        return true;
    return field->written ? bits == 64 : bits >= 32 && mnemonic == ZYDIS_MNEMONIC_MOV;
}

/* Makes the instruction reach one register where it lives. */
static void use_slot(struct translation *t, struct copy *copy) {
    bool has_both = copy->reg.guest != CPU_NO_REGISTER && copy->rm.guest != CPU_NO_REGISTER;
    if (copy->memory || t->in.z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY || t->in.rule.class != CLASS_INTEGER ||
        copy->reg.high || copy->rm.high || (has_both && copy->reg.guest == copy->rm.guest) || copy->is_opcode_register ||
        !takes_slot(t->in.z->mnemonic))
        return;
    unsigned bits = t->in.operand[0].size;
    if (has_both && !copy->rm.in_memory && may_be_slot(t, &copy->reg, bits) && can_turn(t)) {
        struct field reg = copy->reg;
        copy->reg = copy->rm;
        copy->rm = reg;
        copy->is_turned = true;
    }
    if (!may_be_slot(t, &copy->rm, bits))
        return;
    copy->has_slot = true;
    copy->place = memory_at(REG_R, t->slot[copy->rm.guest]);
    copy->rm.guest = CPU_NO_REGISTER;
}

/* ---- Encoding ---- */

static bool has_place(const struct copy *copy) {
    return copy->memory || copy->has_slot;
}

static bool has_mandatory(const ZydisDecodedInstruction *z, unsigned prefix) {
    for (unsigned i = 0; i < z->raw.prefix_count; i++)
        if (z->raw.prefixes[i].value == prefix && z->raw.prefixes[i].type == ZYDIS_PREFIX_TYPE_MANDATORY)
            return true;
    return false;
}

/* Fences and the like have no operand size: with 66h, MFENCE of 16-bit code would be TPAUSE, and CLFLUSH be CLFLUSHOPT. */
static bool has_word_operand(const struct instruction *in) {
    for (unsigned i = 0; i < in->z->operand_count; i++) {
        const ZydisDecodedOperand *operand = &in->operand[i];
        if (operand->type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(operand->reg.value) == ZYDIS_REGCLASS_GPR16)
            return true;
        if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY && operand->size == 16)
            return true;
    }
    return false;
}

static bool needs_operand_prefix(const struct translation *t) {
    const ZydisDecodedInstruction *z = t->in.z;
    if (has_mandatory(z, 0x66))
        return true;
    bool is_integer = t->in.rule.class == CLASS_INTEGER || t->in.rule.class == CLASS_VEX_INTEGER;
    return is_integer && z->operand_width == 16 && has_word_operand(&t->in);
}

static bool extends(const struct field *field) {
    return field->guest != CPU_NO_REGISTER && field->host > 7;
}

static void emit_modrm(struct translation *t, struct copy *copy, unsigned reg) {
    const ZydisDecodedInstruction *z = t->in.z;
    if (has_place(copy))
        emit_modrm_memory(&t->e, reg, &copy->place);
    else
        emit_u8(&t->e, 0xc0 | (reg & 7) << 3 |
                           (copy->rm.guest != CPU_NO_REGISTER ? copy->rm.host & 7 : z->raw.modrm.rm));
}

static unsigned reg_bits(const struct translation *t, const struct copy *copy) {
    return copy->reg.guest != CPU_NO_REGISTER ? copy->reg.host : t->in.z->raw.modrm.reg;
}

static bool names_register(const struct translation *t) {
    for (unsigned i = 0; i < t->in.z->operand_count; i++)
        if (t->in.operand[i].encoding == ZYDIS_OPERAND_ENCODING_IS4)
            return true;
    return false;
}

static void emit_immediates(struct translation *t) {
    const ZydisDecodedInstruction *z = t->in.z;
    t->immediate = t->e.at;
    if (names_register(t) && (t->key & MODE_CODE) != MODE_CODE64) {
        emit_u8(&t->e, t->in.bytes[z->raw.imm[0].offset] & 0x7f); /* bit 7 is ignored outside 64-bit mode */
        return;
    }
    for (unsigned i = 0; i < 2; i++)
        if (z->raw.imm[i].size)
            emit_bytes(&t->e, t->in.bytes + z->raw.imm[i].offset, z->raw.imm[i].size / 8u);
}

/* spl, bpl, sil and dil exist with a REX prefix only. */
static bool is_new_byte(const struct field *field, unsigned size) {
    return field->guest != CPU_NO_REGISTER && size == 8 && !field->high && field->host >= 4 && field->host <= 7;
}

static unsigned operand_bits(const struct translation *t, ZydisOperandEncoding encoding) {
    for (unsigned i = 0; i < t->in.z->operand_count; i++)
        if (t->in.operand[i].encoding == encoding && t->in.operand[i].type == ZYDIS_OPERAND_TYPE_REGISTER)
            return t->in.operand[i].size;
    return 0;
}

static unsigned legacy_rex(const struct translation *t, const struct copy *copy) {
    const ZydisDecodedInstruction *z = t->in.z;
    unsigned rex = z->raw.rex.W ? 8 : 0;
    bool has_modrm = z->attributes & ZYDIS_ATTRIB_HAS_MODRM; /* without it, REX.R is ignored */
    if (copy->reg.guest != CPU_NO_REGISTER ? copy->reg.host > 7 : has_modrm && z->raw.rex.R)
        rex |= 4;
    if (has_place(copy)) {
        rex |= copy->place.index != HOST_NONE && copy->place.index > 7 ? 2 : 0;
        rex |= copy->place.base > 7 ? 1 : 0;
    } else if (copy->rm.guest != CPU_NO_REGISTER) {
        rex |= copy->rm.host > 7;
    } else if (copy->is_opcode_register) {
        rex |= extends(&copy->opcode);
    } else {
        rex |= z->raw.rex.B;
    }
    if (is_new_byte(&copy->reg, operand_bits(t, copy->is_turned ? ZYDIS_OPERAND_ENCODING_MODRM_RM : ZYDIS_OPERAND_ENCODING_MODRM_REG)) ||
        is_new_byte(&copy->rm, operand_bits(t, ZYDIS_OPERAND_ENCODING_MODRM_RM)) ||
        is_new_byte(&copy->opcode, operand_bits(t, ZYDIS_OPERAND_ENCODING_OPCODE)))
        rex |= 0x40;
    return rex ? rex | 0x40 : 0;
}

static void emit_legacy(struct translation *t, struct copy *copy) {
    const ZydisDecodedInstruction *z = t->in.z;
    struct emitter *e = &t->e;
    if (z->attributes & ZYDIS_ATTRIB_HAS_LOCK)
        emit_u8(e, 0xf0);
    if (needs_operand_prefix(t))
        emit_u8(e, 0x66);
    if (has_mandatory(z, 0xf2))
        emit_u8(e, 0xf2);
    if (has_mandatory(z, 0xf3))
        emit_u8(e, 0xf3);
    unsigned opcode = z->opcode, reg = reg_bits(t, copy);
    if (copy->is_turned && z->mnemonic != ZYDIS_MNEMONIC_TEST)
        opcode ^= 2;
    bool has_modrm = z->attributes & ZYDIS_ATTRIB_HAS_MODRM;
    bool is_moffs = z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && opcode >= 0xa0 && opcode <= 0xa3;
    bool is_old_group = z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && opcode == 0x82; /* 80h; not in 64-bit mode */
    if (is_old_group)
        opcode = 0x80;
    bool is_short_step = z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && opcode >= 0x40 && opcode <= 0x4f;
    unsigned rex = legacy_rex(t, copy);
    if (rex)
        emit_u8(e, rex);
    if (is_moffs) { /* an absolute address: the form with ModRM, on al/ax/eax/rax */
        emit_u8(e, (opcode & 1) | (opcode & 2 ? 0x88 : 0x8a));
        emit_modrm_memory(e, 0, &copy->place);
        return;
    }
    if (is_short_step) { /* INC and DEC of one byte are REX prefixes on the host */
        emit_u8(e, 0xff);
        emit_u8(e, 0xc0 | (opcode & 8) | (copy->opcode.host & 7));
        return;
    }
    if (z->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
        emit_u8(e, 0x0f);
    if (z->opcode_map == ZYDIS_OPCODE_MAP_0F38)
        emit_u8(e, 0x38);
    if (z->opcode_map == ZYDIS_OPCODE_MAP_0F3A)
        emit_u8(e, 0x3a);
    emit_u8(e, copy->is_opcode_register ? (opcode & 0xf8) | (copy->opcode.host & 7) : opcode);
    if (has_modrm)
        emit_modrm(t, copy, reg);
    emit_immediates(t);
}

/* Inverted extension bits (R, X, B) of VEX and EVEX: vector registers keep theirs. */
static void extension_bits(const struct translation *t, const struct copy *copy, unsigned raw_r, unsigned raw_x,
                           unsigned raw_b, unsigned bits[3]) {
    bool is_long = (t->key & MODE_CODE) == MODE_CODE64;
    bits[0] = copy->reg.guest != CPU_NO_REGISTER ? copy->reg.host <= 7 : !is_long || raw_r;
    if (copy->memory) {
        bits[1] = copy->place.index == HOST_NONE || copy->place.index <= 7;
        bits[2] = copy->place.base <= 7;
    } else if (copy->rm.guest != CPU_NO_REGISTER) {
        bits[1] = 1;
        bits[2] = copy->rm.host <= 7;
    } else {
        bits[1] = !is_long || raw_x;
        bits[2] = !is_long || raw_b;
    }
}

static unsigned vvvv_bits(const struct translation *t, const struct copy *copy, unsigned raw) {
    if (copy->vvvv.guest != CPU_NO_REGISTER)
        return ~copy->vvvv.host & 15;
    return (t->key & MODE_CODE) == MODE_CODE64 ? raw : raw | 8;
}

/* Outside 64-bit mode W does not make a general register, or the memory in its place, 64 bits wide. */
static bool ignores_w(const struct translation *t, const struct copy *copy) {
    if ((t->key & MODE_CODE) == MODE_CODE64)
        return false;
    if (copy->reg.guest != CPU_NO_REGISTER || copy->rm.guest != CPU_NO_REGISTER ||
        t->in.rule.class == CLASS_VEX_INTEGER)
        return true;
    switch (t->in.z->mnemonic) {
    case ZYDIS_MNEMONIC_VMOVD:
    case ZYDIS_MNEMONIC_VPCMPESTRI:
    case ZYDIS_MNEMONIC_VPCMPESTRM:
    case ZYDIS_MNEMONIC_VPEXTRD:
    case ZYDIS_MNEMONIC_VPINSRD:
    case ZYDIS_MNEMONIC_VCVTSI2SS:
    case ZYDIS_MNEMONIC_VCVTSI2SD:
    case ZYDIS_MNEMONIC_VCVTSI2SH:
    case ZYDIS_MNEMONIC_VCVTUSI2SS:
    case ZYDIS_MNEMONIC_VCVTUSI2SD:
    case ZYDIS_MNEMONIC_VCVTUSI2SH:
        return true;
    default:
        return false;
    }
}

static void emit_vex_copy(struct translation *t, struct copy *copy) {
    const ZydisDecodedInstruction *z = t->in.z;
    unsigned bits[3];
    extension_bits(t, copy, z->raw.vex.R, z->raw.vex.X, z->raw.vex.B, bits);
    emit_u8(&t->e, 0xc4);
    emit_u8(&t->e, bits[0] << 7 | bits[1] << 6 | bits[2] << 5 | z->raw.vex.m_mmmm);
    bool w = z->raw.vex.W && !ignores_w(t, copy);
    emit_u8(&t->e, (unsigned)w << 7 | vvvv_bits(t, copy, z->raw.vex.vvvv) << 3 | z->raw.vex.L << 2 | z->raw.vex.pp);
    emit_u8(&t->e, z->opcode);
    if (z->attributes & ZYDIS_ATTRIB_HAS_MODRM) /* VZEROUPPER and VZEROALL have none */
        emit_modrm(t, copy, reg_bits(t, copy));
    emit_immediates(t);
}

static void emit_evex_copy(struct translation *t, struct copy *copy) {
    const ZydisDecodedInstruction *z = t->in.z;
    bool is_long = (t->key & MODE_CODE) == MODE_CODE64;
    unsigned bits[3];
    extension_bits(t, copy, z->raw.evex.R, z->raw.evex.X, z->raw.evex.B, bits);
    unsigned r2 = copy->reg.guest != CPU_NO_REGISTER || !is_long ? 1 : z->raw.evex.R2;
    emit_u8(&t->e, 0x62);
    emit_u8(&t->e, bits[0] << 7 | bits[1] << 6 | bits[2] << 5 | r2 << 4 | z->raw.evex.mmm);
    bool w = z->raw.evex.W && !ignores_w(t, copy);
    emit_u8(&t->e, (unsigned)w << 7 | vvvv_bits(t, copy, z->raw.evex.vvvv) << 3 | 4 | z->raw.evex.pp);
    unsigned v2 = is_long ? z->raw.evex.V2 : 1;
    emit_u8(&t->e, z->raw.evex.z << 7 | z->raw.evex.L2 << 6 | z->raw.evex.L << 5 | z->raw.evex.b << 4 | v2 << 3 |
                       z->raw.evex.aaa);
    emit_u8(&t->e, z->opcode);
    emit_modrm(t, copy, reg_bits(t, copy));
    emit_immediates(t);
}

static void emit_instruction(struct translation *t, struct copy *copy) {
    copy->place.is_evex = t->in.z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX;
    if (copy->memory)
        emit_memory_prefixes(&t->e, &copy->place);
    switch (t->in.z->encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_LEGACY:
        emit_legacy(t, copy);
        break;
    case ZYDIS_INSTRUCTION_ENCODING_VEX:
        emit_vex_copy(t, copy);
        break;
    case ZYDIS_INSTRUCTION_ENCODING_EVEX:
        emit_evex_copy(t, copy);
        break;
    default:
        t->failed = true;
    }
}

/* ---- AH, CH, DH, BH: registers that no instruction with a REX prefix reaches ---- */

/* With a memory operand: its address is A alone, which needs no REX; CH is the low byte of S. */
static void copy_high_memory(struct translation *t, struct copy *copy) {
    emit_flatten(t, &copy->place, REG_A);
    if (copy->reg.guest == CPU_RCX) {
        emit_rorx(&t->e, REG_S, copy->reg.host, 8);
        unsigned rcx = copy->reg.host;
        copy->reg.host = REG_S;
        copy->reg.high = false;
        emit_instruction(t, copy);
        if (copy->reg.written)
            emit_rorx(&t->e, rcx, REG_S, 56);
        return;
    }
    copy->reg.host += 4; /* ah, dh, bh are numbers 4, 6, 7 */
    emit_instruction(t, copy);
}

static void number_high(struct field *field) {
    if (field->guest == CPU_NO_REGISTER)
        return;
    if (field->guest == CPU_RCX)
        field->host = HOST_RCX;
    if (field->high)
        field->host += 4;
}

static void copy_high_registers(struct translation *t, struct copy *copy) {
    bool is_widening = copy->rm.high && operand_bits(t, ZYDIS_OPERAND_ENCODING_MODRM_REG) > 8;
    if (is_widening) { /* MOVZX, MOVSX: the source goes to a scratch register's low byte */
        emit_rorx(&t->e, REG_S, copy->rm.host, 8);
        copy->rm.host = REG_S;
        copy->rm.high = false;
        emit_instruction(t, copy);
        return;
    }
    bool uses_rcx = copy->used & (1u << CPU_RCX);
    if (uses_rcx)
        emit_mov(&t->e, REG_A, t->home[CPU_RCX]);
    number_high(&copy->reg);
    number_high(&copy->rm);
    number_high(&copy->opcode);
    copy->uses_cl = false;
    emit_instruction(t, copy);
    if (uses_rcx)
        emit_mov(&t->e, t->home[CPU_RCX], REG_A);
}

/* ---- Divisions ---- */

/*
 * #DE of a divisor of 0 without a host signal: the divisor is looked at first. A quotient that does not fit is a signal
 * still. No division is in a loop (loop_plan.c), so registers are where a way out expects them.
 */
static void emit_divisor_check(struct translation *t, struct copy *copy) {
    struct emitter *e = &t->e;
    unsigned bits = t->in.operand[0].size, opcode = bits == 8 ? 0x0fb6 : bits == 16 ? 0x0fb7 : 0x8b;
    if (copy->memory) {
        emit_flatten(t, &copy->place, REG_S);
        emit_op_memory(e, 0, bits == 64, opcode, REG_A, &copy->place);
    } else {
        unsigned divisor = emit_guest(t, copy->rm.guest, REG_S);
        bool is_high = bits == 8 && divisor >= HOST_RSP && divisor <= HOST_RDI; /* AH to BH, without REX */
        if (is_high)
            emit_mov(e, REG_S, divisor);
        emit_op_register(e, 0, bits == 64, opcode, REG_A, is_high ? REG_S : divisor);
    }
    uint8_t *is_zero = emit_jrcxz(e);
    static const uint8_t skip[] = {0xeb, 5}; /* the call */
    emit_bytes(e, skip, sizeof skip);
    emit_here(e, is_zero);
    emit_call(e, t->engine->stubs.exit);
    add_site(t, SITE_RAISE)->data = VECTOR_DE;
}

static bool is_division(const struct translation *t) {
    return t->in.z->mnemonic == ZYDIS_MNEMONIC_DIV || t->in.z->mnemonic == ZYDIS_MNEMONIC_IDIV;
}

/* ---- The whole ---- */

static void make_copy(struct translation *t, struct copy *copy) {
    note_operands(t, copy);
    if (copy->memory)
        copy->place = emit_operand(t, copy->memory, copy->kind);
    if (is_division(t) && !copy->rm.high)
        emit_divisor_check(t, copy);
    if (copy->reg.high || copy->rm.high || copy->opcode.high) {
        if (copy->memory)
            copy_high_memory(t, copy);
        else
            copy_high_registers(t, copy);
    } else {
        use_slot(t, copy);
        load_fields(t, copy);
        emit_instruction(t, copy);
        store_fields(t, copy);
    }
    if (copy->memory)
        emit_access_done(t, copy->kind);
}

/* Whether guest registers are where they are but in some loops. */
static bool has_usual_homes(const struct translation *t) {
    return !memcmp(t->home, host_register, sizeof t->home);
}

static bool emit_template(struct translation *t) {
    const struct copy_template *template = t->in.template;
    if (!template || !template->size || t->e.end - t->e.at < (ptrdiff_t)sizeof template->code || !has_usual_homes(t))
        return false;
    memcpy(t->e.at, template->code, sizeof template->code);
    uint8_t *immediate = t->e.at + template->immediate_at;
    const uint8_t *from = t->in.bytes + template->immediate_from;
    if (template->immediate_size == 1)
        *immediate = *from;
    else if (template->immediate_size == 4)
        memcpy(immediate, from, 4);
    else if (template->immediate_size)
        memcpy(immediate, from, template->immediate_size);
    t->e.at += template->size;
    return true;
}

static void keep_template(struct translation *t, const uint8_t *start) {
    struct copy_template *template = t->in.template;
    const ZydisDecodedInstruction *z = t->in.z;
    size_t size = (size_t)(t->e.at - start);
    if (t->failed || t->e.overflow || size > sizeof template->code || !has_usual_homes(t))
        return;
    *template = (struct copy_template){.size = (uint8_t)size, .immediate_size = z->raw.imm[0].size / 8,
                                       .immediate_from = z->raw.imm[0].offset,
                                       .sets_constant = z->mnemonic == ZYDIS_MNEMONIC_MOV && z->raw.imm[0].size};
    template->immediate_at = (uint8_t)(template->immediate_size ? t->immediate - start : 0);
    memcpy(template->code, start, size);
    for (unsigned i = 0; i < z->operand_count; i++) {
        const ZydisDecodedOperand *operand = &t->in.operand[i];
        bool high;
        if (operand->type != ZYDIS_OPERAND_TYPE_REGISTER || !(operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            continue;
        unsigned guest = decode_gpr(operand->reg.value, &high);
        if (guest != CPU_NO_REGISTER)
            template->written |= (uint16_t)(1u << guest);
    }
}

void translate_copy(struct translation *t) {
    if (emit_template(t))
        return;
    const uint8_t *start = t->e.at;
    struct copy copy = {0};
    make_copy(t, &copy);
    if (t->in.template && !copy.memory && !is_division(t)) /* with its way out, a division lies where it lies */
        keep_template(t, start);
}
