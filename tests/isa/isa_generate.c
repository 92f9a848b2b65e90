/*
 * The generator: random bytes behind a chosen opcode, decoded by Zydis; kept when the instruction is one that a program
 * at CPL 3 can run with the same outcome anywhere; registers, displacements and memory then made to fit.
 */
#include <string.h>

#include "isa_draft.h"

void isa_generator_init(struct isa_generator *generator, unsigned bits, uint64_t seed) {
    generator->bits = bits;
    generator->random = seed;
    if (bits == 64)
        ZydisDecoderInit(&generator->decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    else if (bits == 32)
        ZydisDecoderInit(&generator->decoder, ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
    else
        ZydisDecoderInit(&generator->decoder, ZYDIS_MACHINE_MODE_LONG_COMPAT_16, ZYDIS_STACK_WIDTH_16);
    ZydisDecoderEnableMode(&generator->decoder, ZYDIS_DECODER_MODE_AMD_BRANCHES, __builtin_cpu_is("amd") ? 1 : 0);
    ZydisFormatterInit(&generator->formatter, ZYDIS_FORMATTER_STYLE_INTEL);
}

static bool decode(struct isa_generator *g, const uint8_t *code, size_t length, struct shape *shape) {
    return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&g->decoder, code, length, &shape->instruction, shape->operands));
}

static void describe(struct isa_generator *g, const struct shape *shape, const uint8_t *code, struct isa_record *record) {
    struct shape again;
    if (decode(g, code, shape->instruction.length, &again))
        ZydisFormatterFormatInstruction(&g->formatter, &again.instruction, again.operands,
                                        again.instruction.operand_count_visible, record->text, sizeof record->text,
                                        code_start(g), NULL);
}

static uint64_t form_of(const struct shape *shape) {
    const ZydisDecodedInstruction *i = &shape->instruction;
    uint64_t hash = (uint64_t)i->mnemonic << 8 ^ i->opcode ^ (uint64_t)i->encoding << 20 ^
                    (uint64_t)i->avx.vector_length << 24 ^ (uint64_t)i->avx.mask.mode << 36 ^
                    (uint64_t)i->avx.broadcast.mode << 40 ^ (uint64_t)i->avx.rounding.mode << 48;
    hash ^= i->attributes & (ZYDIS_ATTRIB_HAS_LOCK | ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE |
                             ZYDIS_ATTRIB_HAS_REPNE | ZYDIS_ATTRIB_HAS_ADDRESSSIZE | ZYDIS_ATTRIB_HAS_SEGMENT_GS);
    for (unsigned n = 0; n < i->operand_count; n++) {
        uint64_t o = (uint64_t)shape->operands[n].type << 20 ^ (uint64_t)shape->operands[n].encoding << 12 ^
                     shape->operands[n].size;
        hash = (hash ^ o) * 0x100000001b3u;
        hash ^= hash >> 29;
    }
    return hash;
}

static enum isa_class class_of(const struct shape *shape) {
    enum isa_class class = ISA_INTEGER;
    for (unsigned n = 0; n < shape->instruction.operand_count; n++) {
        if (shape->operands[n].type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        switch (ZydisRegisterGetClass(shape->operands[n].reg.value)) {
        case ZYDIS_REGCLASS_X87:
        case ZYDIS_REGCLASS_MMX: class = class == ISA_VECTOR ? class : ISA_X87; break;
        case ZYDIS_REGCLASS_XMM:
        case ZYDIS_REGCLASS_YMM:
        case ZYDIS_REGCLASS_ZMM:
        case ZYDIS_REGCLASS_MASK: class = ISA_VECTOR; break;
        default: break;
        }
        if (shape->operands[n].reg.value == ZYDIS_REGISTER_MXCSR)
            class = ISA_VECTOR;
        if (shape->operands[n].reg.value >= ZYDIS_REGISTER_X87CONTROL &&
            shape->operands[n].reg.value <= ZYDIS_REGISTER_X87TAG)
            class = class == ISA_VECTOR ? class : ISA_X87;
    }
    if (shape->instruction.meta.isa_ext == ZYDIS_ISA_EXT_X87)
        class = ISA_X87;
    return class;
}

/* The bytes up to and with the opcode; the rest stays random. */
static void encode_legacy(struct isa_generator *g, unsigned point, uint8_t *code) {
    static const uint8_t mandatory[] = {0, 0x66, 0xf3, 0xf2};
    /* GS and CS; where segments are not flat, all that the host gives to programs. */
    static const uint8_t segments[][4] = {{0x26, 0x2e, 0x36, 0x3e}, {0x2e, 0x2e, 0x2e, 0x2e}, {0x65, 0x65, 0x65, 0x65}};
    unsigned opcode = point & 255, map = point >> 8 & 3, prefix = point >> 10 & 3, with_rex = point >> 12 & 1, n = 0;
    if (random_below(g, 16) == 0)
        code[n++] = 0x67;
    if (random_below(g, 16) == 0)
        code[n++] = segments[g->bits / 32][random_below(g, 4)];
    if (random_below(g, 16) == 0)
        code[n++] = 0xf0;
    if (mandatory[prefix])
        code[n++] = mandatory[prefix];
    if (with_rex && g->bits == 64)
        code[n++] = (uint8_t)(0x40 | random_below(g, 16));
    if (map)
        code[n++] = 0x0f;
    if (map == 2)
        code[n++] = 0x38;
    if (map == 3)
        code[n++] = 0x3a;
    code[n] = (uint8_t)opcode;
}

static void encode_vex(struct isa_generator *g, unsigned point, uint8_t *code) {
    unsigned opcode = point & 255, map = point >> 8 & 7, pp = point >> 11 & 3, is_evex = point >> 13 & 1, n = 0;
    uint8_t r = (uint8_t)isa_random(&g->random);
    if (is_evex) {
        code[n++] = 0x62;
        code[n++] = (uint8_t)((r & 0xf0) | (g->bits != 64 ? 0xf0 : 0) | map);
        code[n++] = (uint8_t)((isa_random(&g->random) & 0xf8) | 4 | pp | (random_below(g, 2) ? 0x78 : 0));
        code[n++] = (uint8_t)(isa_random(&g->random) | (random_below(g, 2) ? 8 : 0));
    } else {
        code[n++] = 0xc4;
        code[n++] = (uint8_t)((r & 0xe0) | (g->bits != 64 ? 0xe0 : 0) | map);
        code[n++] = (uint8_t)((isa_random(&g->random) & 0xfc) | pp | (random_below(g, 2) ? 0x78 : 0));
    }
    code[n] = (uint8_t)opcode;
}

static void random_code(struct isa_generator *g, unsigned point, uint8_t code[16]) {
    for (unsigned n = 0; n < 16; n++)
        code[n] = (uint8_t)isa_random(&g->random);
    if (point < 4 * 256 * 4 * 2)
        encode_legacy(g, point, code);
    else
        encode_vex(g, point - 4 * 256 * 4 * 2, code);
}

bool isa_generate_form(struct isa_generator *generator, unsigned point, struct isa_record *record, uint64_t *form,
                       enum isa_class *class) {
    struct shape shape;
    struct draft draft = {.record = record};
    uint8_t code[16];
    random_code(generator, point, code);
    if (!decode(generator, code, sizeof code, &shape) || is_refused(&shape))
        return false;
    start_record(generator, record);
    if (!place(generator, &draft, &shape, code, code_start(generator)))
        return false;
    record->code_length = shape.instruction.length;
    memcpy(record->code, code, record->code_length);
    record->flags_mask &= ~(uint64_t)undefined_flags(&shape);
    record->flags |= looseness(&shape);
    describe(generator, &shape, code, record);
    *form = form_of(&shape);
    *class = class_of(&shape);
    return true;
}

static uint32_t written_registers(const struct shape *shape) {
    uint32_t written = 0;
    for (unsigned n = 0; n < shape->instruction.operand_count; n++) {
        const ZydisDecodedOperand *o = &shape->operands[n];
        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) {
            int gpr = gpr_number(o->reg.value);
            if (gpr >= 0)
                written |= 1u << gpr;
        }
    }
    return written;
}

/* Appends one instruction to a block; false: this one does not fit, try another. */
static bool extend_block(struct isa_generator *g, struct draft *draft) {
    struct isa_record *record = draft->record;
    struct isa_record kept = *record;
    struct draft next = *draft;
    struct shape shape;
    uint8_t code[16];
    random_code(g, (unsigned)random_below(g, ISA_POINTS), code);
    if (!decode(g, code, sizeof code, &shape) || is_refused(&shape) ||
        (shape.instruction.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED) ||
        record->code_length + shape.instruction.length > 90)
        return false;
    const ZydisAccessedFlags *flags = shape.instruction.cpu_flags;
    uint32_t written = written_registers(&shape);
    if (flags && flags->tested & next.undefined)
        return false;
    if (!place(g, &next, &shape, code, code_start(g) + record->code_length) || (written & next.pinned & ~0x10u)) {
        *record = kept;
        return false;
    }
    record->flags |= looseness(&shape);
    next.pinned |= 0x10; /* the stack stays where it is */
    next.written |= written & ~0x10u;
    if (flags)
        next.undefined = (next.undefined & ~(flags->modified | flags->set_0 | flags->set_1)) | flags->undefined;
    if (shape.instruction.meta.category == ZYDIS_CATEGORY_SHIFT || shape.instruction.meta.category == ZYDIS_CATEGORY_ROTATE)
        next.undefined |= draft->undefined; /* a count of zero leaves all as it was */
    next.ever_undefined |= next.undefined;
    memcpy(record->code + record->code_length, code, shape.instruction.length);
    record->code_length = (uint8_t)(record->code_length + shape.instruction.length);
    *draft = next;
    return true;
}

void isa_generate_block(struct isa_generator *generator, struct isa_record *record) {
    struct draft draft = {.record = record, .pinned = 0x10};
    unsigned length = 2 + (unsigned)random_below(generator, 8);
    start_record(generator, record);
    memcpy(record->text, "block", 6);
    for (unsigned have = 0, tries = 0; have < length && tries < 4000; tries++)
        have += extend_block(generator, &draft);
    record->flags_mask &= ~(uint64_t)draft.ever_undefined;
}
