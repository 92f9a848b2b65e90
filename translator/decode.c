/* Decoding by Zydis, and what the rest of the translator asks about a decoded instruction. */
#include <stdlib.h>
#include <string.h>

#include "translator/decode_cache.h"

struct decoder {
    ZydisDecoder mode[4]; /* 16, 32, 64 bits, and 16 bits in real and virtual-8086 mode */
    uint8_t rule_index[ZYDIS_MNEMONIC_MAX_VALUE + 1];
    bool is_amd;
    struct decode_cache *cache;
};

struct decoder *decoder_create(const struct cpu_model *model) {
    struct decoder *decoder = calloc(1, sizeof *decoder);
    if (!decoder)
        return NULL;
    decoder->cache = decode_cache_create();
    if (!decoder->cache) {
        free(decoder);
        return NULL;
    }
    rules_index(decoder->rule_index);
    decoder->is_amd = cpu_model_is_amd(model);
    ZydisDecoderInit(&decoder->mode[0], ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
    ZydisDecoderInit(&decoder->mode[1], ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    ZydisDecoderInit(&decoder->mode[2], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisDecoderInit(&decoder->mode[3], ZYDIS_MACHINE_MODE_REAL_16, ZYDIS_STACK_WIDTH_16);
    for (unsigned i = 0; i < 4; i++) {
        ZydisDecoderEnableMode(&decoder->mode[i], ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
        ZydisDecoderEnableMode(&decoder->mode[i], ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
        ZydisDecoderEnableMode(&decoder->mode[i], ZYDIS_DECODER_MODE_AMD_BRANCHES, decoder->is_amd);
        ZydisDecoderEnableMode(&decoder->mode[i], ZYDIS_DECODER_MODE_LZCNT, cpu_model_has(model, FEATURE_LZCNT));
        ZydisDecoderEnableMode(&decoder->mode[i], ZYDIS_DECODER_MODE_TZCNT, cpu_model_has(model, FEATURE_BMI1));
        ZydisDecoderEnableMode(&decoder->mode[i], ZYDIS_DECODER_MODE_WBNOINVD, cpu_model_has(model, FEATURE_WBNOINVD));
        ZydisDecoderEnableMode(&decoder->mode[i], ZYDIS_DECODER_MODE_CLDEMOTE, cpu_model_has(model, FEATURE_CLDEMOTE));
    }
    return decoder;
}

void decoder_destroy(struct decoder *decoder) {
    if (decoder)
        decode_cache_destroy(decoder->cache);
    free(decoder);
}

/* Zydis 4.0.0 takes an absent base (ModRM.mod 0, SIB.base 5) for r13d where a 67h prefix and REX.B are there. */
static void mend_absent_base(struct instruction *in) {
    const ZydisDecodedInstruction *z = in->z;
    if (!(z->attributes & ZYDIS_ATTRIB_HAS_SIB) || z->raw.modrm.mod != 0 || (z->raw.sib.base & 7) != 5)
        return;
    for (unsigned i = 0; i < z->operand_count; i++) {
        ZydisDecodedOperand *operand = &in->operand[i];
        if (operand->type != ZYDIS_OPERAND_TYPE_MEMORY || operand->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM)
            continue;
        operand->mem.base = ZYDIS_REGISTER_NONE;
        operand->mem.disp.has_displacement = ZYAN_TRUE;
        operand->mem.disp.value = z->raw.disp.value;
    }
}

/* MOV from and to control and debug registers has registers only, whatever ModRM.mod says (SDM vol. 2B, MOV). */
static void mend_ignored_mod(struct instruction *in) {
    if (in->z->opcode_map == ZYDIS_OPCODE_MAP_0F && (in->z->opcode & 0xfc) == 0x20)
        in->z->raw.modrm.mod = 3;
}

/*
 * AMD's processors honour an operand-size prefix on near branches of 64-bit mode (APM vol. 3, 1.2.7 and the branches):
 * rip has 16 bits then. Zydis tells that by the size of the displacement alone.
 */
static void mend_short_branch(struct instruction *in) {
    ZydisDecodedInstruction *z = in->z;
    bool is_wide = (z->attributes & ZYDIS_ATTRIB_HAS_REX) && z->raw.rex.W;
    bool is_near = z->meta.branch_type == ZYDIS_BRANCH_TYPE_SHORT || z->meta.branch_type == ZYDIS_BRANCH_TYPE_NEAR;
    if (!is_near || z->machine_mode != ZYDIS_MACHINE_MODE_LONG_64 || is_wide ||
        !(z->attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE))
        return;
    z->operand_width = 16;
    if (in->operand[0].type == ZYDIS_OPERAND_TYPE_MEMORY)
        in->operand[0].size = 16;
}

/* On AMD's processors a repeat prefix tells LOOPE from LOOPNE, not the opcode; the last one counts (measured on Zen 4). */
static void mend_repeated_loop(struct instruction *in) {
    ZydisDecodedInstruction *z = in->z;
    if (z->mnemonic != ZYDIS_MNEMONIC_LOOPE && z->mnemonic != ZYDIS_MNEMONIC_LOOPNE)
        return;
    for (unsigned i = 0; i < z->raw.prefix_count; i++) {
        if (z->raw.prefixes[i].value == 0xf2)
            z->mnemonic = ZYDIS_MNEMONIC_LOOPNE;
        else if (z->raw.prefixes[i].value == 0xf3)
            z->mnemonic = ZYDIS_MNEMONIC_LOOPE;
    }
}

/* What AMD's processors do not know and Intel's take for something else: PREFETCHW of a register, a NOP; VPEXTRQ and
   VPINSRQ outside 64-bit mode by VEX.W, VPEXTRD and VPINSRD (measured on Zen 4). */
static bool is_undefined_on_amd(const ZydisDecodedInstruction *z) {
    if (z->opcode_map == ZYDIS_OPCODE_MAP_0F && z->opcode == 0x0d)
        return z->raw.modrm.mod == 3;
    return (z->mnemonic == ZYDIS_MNEMONIC_VPEXTRD || z->mnemonic == ZYDIS_MNEMONIC_VPINSRD) &&
           z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX && z->raw.vex.W;
}

/* Where instructions differ between vendors, Zydis follows Intel. */
static void follow_amd(struct instruction *in) {
    mend_short_branch(in);
    mend_repeated_loop(in);
    if (is_undefined_on_amd(in->z))
        in->rule = (struct rule){.kind = RULE_UD};
}

static enum decode_mode mode_of(uint32_t key) {
    unsigned mode = key & MODE_CODE;
    if (mode == MODE_CODE16 && (!(key & MODE_PROTECTED) || (key & MODE_VM86)))
        return DECODE_REAL;
    return (enum decode_mode)mode;
}

bool decode(const struct decoder *decoder, uint32_t key, const uint8_t *bytes, unsigned available, uint64_t rip,
            struct instruction *in) {
    in->z = &in->own_z;
    in->operand = in->own_operand;
    in->template = NULL;
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder->mode[mode_of(key)], bytes, available, in->z, in->operand)))
        return false;
    memcpy(in->bytes, bytes, in->z->length);
    mend_absent_base(in);
    mend_ignored_mod(in);
    in->rip = rip;
    in->rule = rule_find(decoder->rule_index, in);
    if (decoder->is_amd)
        follow_amd(in);
    return true;
}

bool decode_cached(struct decoder *decoder, uint32_t key, const uint8_t *bytes, unsigned available, uint64_t rip,
                   struct instruction *in) {
    enum decode_mode mode = mode_of(key);
    if (decode_cache_find(decoder->cache, mode, bytes, available, in)) {
        in->rip = rip;
        return true;
    }
    if (!decode(decoder, key, bytes, available, rip, in))
        return false;
    decode_cache_keep(decoder->cache, mode, in);
    return true;
}

unsigned decode_gpr(ZydisRegister reg, bool *high) {
    enum { WORDS_TO_QUADWORDS = ZYDIS_REGISTER_R15 - ZYDIS_REGISTER_AX, BYTES = ZYDIS_REGISTER_R15B - ZYDIS_REGISTER_AL };
    _Static_assert(WORDS_TO_QUADWORDS == 47 && ZYDIS_REGISTER_EAX - ZYDIS_REGISTER_AX == 16, "all in order");
    unsigned number = (unsigned)reg - ZYDIS_REGISTER_AX, byte = (unsigned)reg - ZYDIS_REGISTER_AL;
    *high = false;
    if (number <= WORDS_TO_QUADWORDS)
        return number & 15;
    if (byte > BYTES)
        return CPU_NO_REGISTER;
    *high = byte >= 4 && byte < 8;
    return byte < 4 ? byte : byte - 4; /* behind AL to BL come AH to BH, then SPL */
}

unsigned decode_segment(ZydisRegister reg) {
    return reg >= ZYDIS_REGISTER_ES && reg <= ZYDIS_REGISTER_GS ? (unsigned)(reg - ZYDIS_REGISTER_ES) : CPU_DS;
}

static void decode_memory(const struct instruction *in, const ZydisDecodedOperand *operand, struct cpu_op *op) {
    bool high;
    const ZydisDecodedOperandMem *mem = &operand->mem;
    op->segment = (uint8_t)decode_segment(mem->segment);
    op->displacement = mem->disp.has_displacement ? mem->disp.value : 0;
    if (mem->base == ZYDIS_REGISTER_RIP || mem->base == ZYDIS_REGISTER_EIP)
        op->rip_relative = true;
    else
        op->base = (uint8_t)decode_gpr(mem->base, &high);
    if (mem->type == ZYDIS_MEMOP_TYPE_VSIB) {
        op->index_is_vector = true;
        op->index = (uint8_t)ZydisRegisterGetId(mem->index);
        op->element_size = (uint8_t)(operand->size / 8);
        op->index_size = in->z->opcode & 1 ? 8 : 4; /* gathers and scatters with quadword indices have odd opcodes */
    } else {
        op->index = (uint8_t)decode_gpr(mem->index, &high);
    }
    op->scale = mem->scale ? mem->scale : 1;
    if (operand->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN || op->size == 0)
        op->size = (uint8_t)(operand->size / 8);
}

static unsigned extended(unsigned low, unsigned inverted_bit) {
    return low | (inverted_bit ? 0 : 8);
}

/* Register numbers straight from the encoding: general, segment, control or vector registers alike. */
static void decode_numbers(const struct instruction *in, struct cpu_op *op) {
    const ZydisDecodedInstruction *z = in->z;
    bool is_long = z->machine_mode == ZYDIS_MACHINE_MODE_LONG_64;
    op->reg = z->raw.modrm.reg;
    op->rm = z->raw.modrm.mod == 3 ? z->raw.modrm.rm : CPU_NO_REGISTER;
    switch (z->encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_VEX:
        op->reg = (uint8_t)extended(op->reg, z->raw.vex.R || !is_long);
        if (op->rm != CPU_NO_REGISTER)
            op->rm = (uint8_t)extended(op->rm, z->raw.vex.B || !is_long);
        op->vvvv = (uint8_t)(~z->raw.vex.vvvv & (is_long ? 15 : 7));
        break;
    case ZYDIS_INSTRUCTION_ENCODING_EVEX:
        op->reg = (uint8_t)(extended(op->reg, z->raw.evex.R || !is_long) | (z->raw.evex.R2 || !is_long ? 0 : 16));
        if (op->rm != CPU_NO_REGISTER)
            op->rm = (uint8_t)(extended(op->rm, z->raw.evex.B || !is_long) | (z->raw.evex.X || !is_long ? 0 : 16));
        op->vvvv = (uint8_t)((~z->raw.evex.vvvv & (is_long ? 15 : 7)) | (z->raw.evex.V2 || !is_long ? 0 : 16));
        op->mask = z->raw.evex.aaa;
        break;
    default:
        op->reg |= (uint8_t)(z->raw.rex.R << 3);
        if (op->rm != CPU_NO_REGISTER)
            op->rm |= (uint8_t)(z->raw.rex.B << 3);
    }
}

/* Of implicit memory operands: not the stack's, and not a string's destination, which is in ES whatever the prefixes. */
static bool has_chosen_segment(const struct instruction *in, const ZydisDecodedOperand *operand) {
    bool is_string = in->z->meta.category == ZYDIS_CATEGORY_STRINGOP || in->z->meta.category == ZYDIS_CATEGORY_IOSTRINGOP;
    if (operand->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM)
        return false;
    switch (ZydisRegisterGetId(operand->mem.base)) {
    case CPU_RSP:
    case CPU_RBP:
        return false;
    case CPU_RDI:
        return !is_string;
    default:
        return true;
    }
}

void decode_op(const struct translation *t, struct cpu_op *op) {
    const struct instruction *in = &t->in;
    const ZydisDecodedInstruction *z = in->z;
    *op = (struct cpu_op){.length = z->length, .address_size = z->address_width / 8, .segment = CPU_DS,
                          .base = CPU_NO_REGISTER, .index = CPU_NO_REGISTER, .scale = 1,
                          .opcode = z->opcode, .mnemonic = (uint16_t)z->mnemonic};
    op->code_size = (uint8_t)(code_bits(t->key) / 8);
    op->vector_length = (uint8_t)(z->avx.vector_length / 8);
    op->lock = (z->attributes & ZYDIS_ATTRIB_HAS_LOCK) != 0;
    if (z->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE))
        op->rep = CPU_REP;
    else if (z->attributes & ZYDIS_ATTRIB_HAS_REPNE)
        op->rep = CPU_REPNE;
    decode_numbers(in, op);
    op->size = z->operand_width / 8;

    for (unsigned i = 0; i < z->operand_count; i++) {
        const ZydisDecodedOperand *operand = &in->operand[i];
        bool high;
        if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY && operand->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM) {
            decode_memory(in, operand, op);
        } else if (operand->type == ZYDIS_OPERAND_TYPE_REGISTER) {
            decode_gpr(operand->reg.value, &high);
            if (high && operand->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG)
                op->high_byte |= 1, op->reg &= 3;
            if (high && operand->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM)
                op->high_byte |= 2, op->rm &= 3;
        } else if (operand->type == ZYDIS_OPERAND_TYPE_POINTER) {
            op->immediate = operand->ptr.offset;
            op->immediate2 = operand->ptr.segment;
        }
        if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY && has_chosen_segment(in, operand))
            op->segment = (uint8_t)decode_segment(operand->mem.segment);
    }
    if (z->raw.imm[0].size && !(op->immediate2 || in->operand[0].type == ZYDIS_OPERAND_TYPE_POINTER))
        op->immediate = z->raw.imm[0].value.u;
    if (z->raw.imm[1].size && in->operand[0].type != ZYDIS_OPERAND_TYPE_POINTER)
        op->immediate2 = (uint16_t)z->raw.imm[1].value.u;
}

const char *decode_mnemonic_name(unsigned mnemonic) {
    const char *name = ZydisMnemonicGetString((ZydisMnemonic)mnemonic);
    return name ? name : "?";
}
