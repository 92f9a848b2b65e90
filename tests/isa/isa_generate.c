/*
 * The generator: random bytes behind a chosen opcode, decoded by Zydis; kept when the instruction is one that a program
 * at CPL 3 can run with the same outcome anywhere; registers, displacements and memory then made to fit.
 */
#include "isa_generate.h"

#include <string.h>

/* What one instruction asks of the state, while a record is made. */
struct shape {
    ZydisDecodedInstruction instruction;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
};

/* A record in the making. */
struct draft {
    struct isa_record *record;
    uint32_t pinned, written; /* general registers: that point somewhere; that an earlier instruction wrote */
    uint32_t undefined;       /* flags that an earlier instruction left undefined */
    uint32_t ever_undefined;  /* a block may end early by a fault */
};

static const ZydisInstructionCategory refused_categories[] = {
    ZYDIS_CATEGORY_AMX_TILE, ZYDIS_CATEGORY_CET, ZYDIS_CATEGORY_CLZERO, ZYDIS_CATEGORY_ENQCMD,
    ZYDIS_CATEGORY_HRESET, ZYDIS_CATEGORY_INTERRUPT, ZYDIS_CATEGORY_KEYLOCKER, ZYDIS_CATEGORY_KEYLOCKER_WIDE,
    ZYDIS_CATEGORY_MPX, ZYDIS_CATEGORY_PADLOCK, ZYDIS_CATEGORY_PCONFIG, ZYDIS_CATEGORY_PKU, ZYDIS_CATEGORY_PT,
    ZYDIS_CATEGORY_RDPID, ZYDIS_CATEGORY_RDPRU, ZYDIS_CATEGORY_RDRAND, ZYDIS_CATEGORY_RDSEED,
    ZYDIS_CATEGORY_RDWRFSGS, ZYDIS_CATEGORY_SEGOP, ZYDIS_CATEGORY_SGX, ZYDIS_CATEGORY_SYSCALL,
    ZYDIS_CATEGORY_SYSRET, ZYDIS_CATEGORY_TSX_LDTRK, ZYDIS_CATEGORY_UINTR, ZYDIS_CATEGORY_VTX,
    ZYDIS_CATEGORY_WAITPKG, ZYDIS_CATEGORY_XSAVE, ZYDIS_CATEGORY_XSAVEOPT,
};

/* What a hypervisor keeps from its guests. At CPL 3 a host that has it answers #GP, a guest without it #UD. */
static const ZydisISAExt refused_extensions[] = {
    ZYDIS_ISA_EXT_SVM, ZYDIS_ISA_EXT_SNP, ZYDIS_ISA_EXT_AMD_INVLPGB,
};

static const ZydisMnemonic refused_mnemonics[] = {
    ZYDIS_MNEMONIC_CPUID, ZYDIS_MNEMONIC_RDTSC, ZYDIS_MNEMONIC_RDTSCP, ZYDIS_MNEMONIC_RDPMC, ZYDIS_MNEMONIC_XGETBV,
    ZYDIS_MNEMONIC_SLDT, ZYDIS_MNEMONIC_STR, ZYDIS_MNEMONIC_SMSW, ZYDIS_MNEMONIC_SGDT, ZYDIS_MNEMONIC_SIDT,
    ZYDIS_MNEMONIC_LAR, ZYDIS_MNEMONIC_LSL, ZYDIS_MNEMONIC_VERR, ZYDIS_MNEMONIC_VERW, ZYDIS_MNEMONIC_MONITORX,
    ZYDIS_MNEMONIC_MWAITX, ZYDIS_MNEMONIC_MONITOR, ZYDIS_MNEMONIC_MWAIT, ZYDIS_MNEMONIC_PAUSE,
    ZYDIS_MNEMONIC_IRET, ZYDIS_MNEMONIC_IRETD, ZYDIS_MNEMONIC_IRETQ, ZYDIS_MNEMONIC_XBEGIN, ZYDIS_MNEMONIC_XEND,
    ZYDIS_MNEMONIC_XABORT, ZYDIS_MNEMONIC_XTEST, ZYDIS_MNEMONIC_FXRSTOR, ZYDIS_MNEMONIC_FXRSTOR64,
    ZYDIS_MNEMONIC_FXSAVE, ZYDIS_MNEMONIC_FXSAVE64, ZYDIS_MNEMONIC_UD0, ZYDIS_MNEMONIC_UD1, ZYDIS_MNEMONIC_UD2,
    ZYDIS_MNEMONIC_FNSTENV, ZYDIS_MNEMONIC_FNSAVE, /* show FIP and FDP, see tests/guest */
    ZYDIS_MNEMONIC_CLDEMOTE, ZYDIS_MNEMONIC_PTWRITE,
    /* whether they fault with no byte selected is up to the processor */
    ZYDIS_MNEMONIC_MASKMOVDQU, ZYDIS_MNEMONIC_MASKMOVQ, ZYDIS_MNEMONIC_VMASKMOVDQU,
    /* what reaches a hypervisor, from CPL 3 too */
    ZYDIS_MNEMONIC_VMCALL, ZYDIS_MNEMONIC_VMMCALL, ZYDIS_MNEMONIC_VMFUNC,
    ZYDIS_MNEMONIC_TDCALL, ZYDIS_MNEMONIC_SEAMCALL, ZYDIS_MNEMONIC_GETSEC,
};

static uint64_t random_below(struct isa_generator *g, uint64_t bound) {
    return isa_random(&g->random) % bound;
}

void isa_generator_init(struct isa_generator *generator, unsigned bits, uint64_t seed) {
    generator->bits = bits;
    generator->random = seed;
    ZydisDecoderInit(&generator->decoder, bits == 64 ? ZYDIS_MACHINE_MODE_LONG_64 : ZYDIS_MACHINE_MODE_LONG_COMPAT_32,
                     bits == 64 ? ZYDIS_STACK_WIDTH_64 : ZYDIS_STACK_WIDTH_32);
    ZydisFormatterInit(&generator->formatter, ZYDIS_FORMATTER_STYLE_INTEL);
}

static bool is_refused_extension(ZydisISAExt extension) {
    for (size_t n = 0; n < sizeof refused_extensions / sizeof *refused_extensions; n++)
        if (extension == refused_extensions[n])
            return true;
    return false;
}

static bool is_refused(const struct shape *shape) {
    const ZydisDecodedInstruction *i = &shape->instruction;
    for (size_t n = 0; n < sizeof refused_categories / sizeof *refused_categories; n++)
        if (i->meta.category == refused_categories[n])
            return true;
    for (size_t n = 0; n < sizeof refused_mnemonics / sizeof *refused_mnemonics; n++)
        if (i->mnemonic == refused_mnemonics[n])
            return true;
    if (i->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR || is_refused_extension(i->meta.isa_ext))
        return true;
    /* On a 64-bit host they clear registers 8 and up, too: see docs/limits.md. */
    if (i->machine_mode != ZYDIS_MACHINE_MODE_LONG_64 &&
        (i->mnemonic == ZYDIS_MNEMONIC_VZEROUPPER || i->mnemonic == ZYDIS_MNEMONIC_VZEROALL))
        return true;
    for (unsigned n = 0; n < i->operand_count; n++) {
        const ZydisDecodedOperand *o = &shape->operands[n];
        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && o->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN &&
            ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_SEGMENT)
            return true;
        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->mem.segment == ZYDIS_REGISTER_FS)
            return true; /* the host's own thread data */
    }
    return false;
}

/* What of a fault's traces is the processor's own affair. */
static uint32_t looseness(const struct shape *shape) {
    const ZydisDecodedInstruction *i = &shape->instruction;
    uint32_t flags = 0;
    bool is_store = shape->operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY;
    if ((i->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX && i->raw.evex.aaa && is_store) ||
        i->mnemonic == ZYDIS_MNEMONIC_VDBPSADBW || i->mnemonic == ZYDIS_MNEMONIC_VPMASKMOVD ||
        i->mnemonic == ZYDIS_MNEMONIC_VPMASKMOVQ || i->mnemonic == ZYDIS_MNEMONIC_VMASKMOVPS ||
        i->mnemonic == ZYDIS_MNEMONIC_VMASKMOVPD)
        flags |= ISA_LOOSE_CR2;
    for (unsigned n = 0; n < i->operand_count; n++)
        if (shape->operands[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(shape->operands[n].reg.value) == ZYDIS_REGCLASS_MMX)
            flags |= ISA_LOOSE_X87;
    return flags;
}

/* 0..15, or -1 for what is no general register. */
static int gpr_number(ZydisRegister reg) {
    switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_GPR8: /* AL CL DL BL AH CH DH BH SPL .. */
        return (int)(reg >= ZYDIS_REGISTER_SPL ? reg - ZYDIS_REGISTER_SPL + 4 : (reg - ZYDIS_REGISTER_AL) % 4);
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        return (int)ZydisRegisterGetId(reg);
    default:
        return -1;
    }
}

static uint64_t random_value(struct isa_generator *g) {
    static const uint64_t edges[] = {0, 1, ~0ull, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000,
                                     0xffffffff, 0x7fffffffffffffff, 0x8000000000000000};
    switch (random_below(g, 4)) {
    case 0: return edges[random_below(g, sizeof edges / sizeof *edges)];
    case 1: return random_below(g, 100);
    default: return isa_random(&g->random);
    }
}

/* Somewhere in the data; now and then near its end, so that an access runs into the missing page. */
static uint64_t random_target(struct isa_generator *g) {
    uint64_t r = random_below(g, 32);
    if (r == 0)
        return ISA_DATA + ISA_DATA_SIZE - random_below(g, 40);
    if (r == 1)
        return ISA_DATA - random_below(g, 16);
    if (r == 2)
        return ISA_DATA + 0x1000 - random_below(g, 40);
    uint64_t at = ISA_DATA + 0x800 + random_below(g, 0x1000);
    return random_below(g, 4) ? at & ~63ull : at;
}

static uint64_t random_code_target(struct isa_generator *g) {
    return ISA_CODE_PAGE + 0x900 + random_below(g, 0x600);
}

static void pin(struct draft *draft, struct isa_generator *g, int gpr, uint64_t value) {
    draft->record->before.gpr[gpr] = g->bits == 32 ? (uint32_t)value : value;
    draft->pinned |= 1u << gpr;
}

static void write_little_endian(uint8_t *to, uint64_t value, unsigned bytes) {
    for (unsigned i = 0; i < bytes; i++)
        to[i] = (uint8_t)(value >> 8 * i);
}

/*
 * Makes the address of memory operand `o` a place in the data. `code` is the instruction's own, at address `at`. False
 * when the operand's registers are taken, and for the forms that cannot reach the data.
 */
static bool place_operand(struct isa_generator *g, struct draft *draft, struct shape *shape, ZydisDecodedOperand *o,
                          uint8_t *code, uint64_t at, uint64_t *address) {
    const ZydisDecodedInstruction *i = &shape->instruction;
    uint64_t target = random_target(g), offset = target;
    int base = gpr_number(o->mem.base), index = o->mem.type == ZYDIS_MEMOP_TYPE_VSIB ? -1 : gpr_number(o->mem.index);
    bool has_disp32 = i->raw.disp.size == 32 && o->visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT;
    if (o->mem.segment == ZYDIS_REGISTER_GS)
        offset -= ISA_GS_BASE;
    *address = target;
    if (o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP) {
        write_little_endian(code + i->raw.disp.offset, offset - at - i->length, 4);
        return true;
    }
    if (o->mem.base != ZYDIS_REGISTER_NONE && ZydisRegisterGetClass(o->mem.base) == ZYDIS_REGCLASS_GPR16)
        return true; /* out of reach, and faults alike */
    if (base < 0) {
        if (i->raw.disp.size < 32)
            return false;
        uint64_t scaled = index >= 0 ? (draft->record->before.gpr[index] & 0xff) : 0;
        if (index >= 0) {
            if ((draft->pinned | draft->written) >> index & 1)
                return false;
            draft->record->before.gpr[index] = scaled;
            draft->pinned |= 1u << index;
        }
        write_little_endian(code + i->raw.disp.offset, offset - scaled * o->mem.scale, i->raw.disp.size / 8u);
        return true;
    }
    if (draft->written >> base & 1 || base == index)
        return false;
    int64_t disp = o->mem.disp.value;
    if (has_disp32) {
        disp = (int64_t)random_below(g, 4096) - 2048;
        write_little_endian(code + i->raw.disp.offset, (uint64_t)disp, 4);
    }
    if (index >= 0) {
        if (draft->pinned >> index & 1 || draft->written >> index & 1)
            return false;
        pin(draft, g, index, random_below(g, 256));
        disp += (int64_t)(draft->record->before.gpr[index] * o->mem.scale);
    }
    if (draft->pinned >> base & 1) {
        *address = 0;
        return true; /* shared with an earlier operand: near it */
    }
    pin(draft, g, base, offset - (uint64_t)disp);
    return true;
}

static void patch_data(struct draft *draft, uint64_t address, uint64_t low, uint64_t high, unsigned size) {
    if (address < ISA_DATA || address + size > ISA_DATA + ISA_DATA_SIZE)
        return;
    draft->record->patch_offset = (uint16_t)(address - ISA_DATA);
    draft->record->patch_size = (uint16_t)size;
    write_little_endian(draft->record->patch, low, 8);
    write_little_endian(draft->record->patch + 8, high, 8);
}

/* Branches go to an int3 elsewhere in the page. */
static bool place_branch(struct isa_generator *g, struct draft *draft, struct shape *shape, uint8_t *code, uint64_t at,
                         uint64_t address) {
    const ZydisDecodedInstruction *i = &shape->instruction;
    ZydisDecodedOperand *first = &shape->operands[0];
    unsigned pointer = g->bits / 8;
    if (i->mnemonic == ZYDIS_MNEMONIC_RET) {
        patch_data(draft, draft->record->before.gpr[4], random_code_target(g), 0, pointer);
        return true;
    }
    if (i->raw.imm[0].is_relative) {
        unsigned size = i->raw.imm[0].size;
        if (size == 16)
            return false;
        uint64_t distance = size == 8 ? 0x18 + random_below(g, 0x60) : random_code_target(g) - at - i->length;
        if (random_below(g, 2))
            distance = 0 - distance;
        write_little_endian(code + i->raw.imm[0].offset, distance, size / 8);
        return true;
    }
    if (first->type == ZYDIS_OPERAND_TYPE_REGISTER) {
        int gpr = gpr_number(first->reg.value);
        if (draft->written >> gpr & 1 || gpr == 4)
            return false;
        pin(draft, g, gpr, random_code_target(g));
        return true;
    }
    patch_data(draft, address, random_code_target(g), 0, pointer);
    return true;
}

/* Values without which an instruction would only fault, or do next to nothing. */
static bool place_values(struct isa_generator *g, struct draft *draft, struct shape *shape, uint64_t address) {
    const ZydisDecodedInstruction *i = &shape->instruction;
    uint64_t *gpr = draft->record->before.gpr;
    switch (i->mnemonic) {
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
        if (random_below(g, 4) && !((draft->pinned | draft->written) & 4))
            gpr[2] = random_below(g, 2);
        break;
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        if (shape->operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            shape->operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER) {
            int index = gpr_number(shape->operands[1].reg.value);
            if ((draft->pinned | draft->written) >> index & 1)
                return false;
            pin(draft, g, index, random_below(g, 4096) - 2048);
        }
        break;
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ: /* not TF, AC, NT, ID: the signal frame does not restore ID */
        patch_data(draft, gpr[4], isa_random(&g->random) & 0xcd5, 0, g->bits / 8);
        break;
    case ZYDIS_MNEMONIC_CMPXCHG:
    case ZYDIS_MNEMONIC_CMPXCHG8B:
    case ZYDIS_MNEMONIC_CMPXCHG16B:
        if (address && random_below(g, 2)) {
            if (i->mnemonic == ZYDIS_MNEMONIC_CMPXCHG8B)
                patch_data(draft, address, (uint32_t)gpr[0] | gpr[2] << 32, 0, 8);
            else
                patch_data(draft, address, gpr[0], gpr[2], i->mnemonic == ZYDIS_MNEMONIC_CMPXCHG ? 8 : 16);
        }
        break;
    default:
        break;
    }
    if (i->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE)) {
        if (draft->written & 2)
            return false;
        pin(draft, g, 1, random_below(g, 32));
    }
    return true;
}

/* Fits the instruction at `code` into the draft; false when it does not. */
static bool place(struct isa_generator *g, struct draft *draft, struct shape *shape, uint8_t *code, uint64_t at) {
    uint64_t address = 0, any;
    bool is_string = shape->instruction.meta.category == ZYDIS_CATEGORY_STRINGOP;
    for (unsigned n = 0; n < shape->instruction.operand_count; n++) {
        ZydisDecodedOperand *o = &shape->operands[n];
        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY || o->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
            continue;
        if (!place_operand(g, draft, shape, o, code, at, &any))
            return false;
        if (!address && !is_string)
            address = any;
        if (o->mem.type == ZYDIS_MEMOP_TYPE_VSIB) {
            if (draft->record->vsib_size)
                return false;
            draft->record->vsib_register = (uint8_t)ZydisRegisterGetId(o->mem.index);
            /* gathers of 64-bit indices have a q before their element letter: vpgatherqd, vgatherqps */
            const char *name = ZydisMnemonicGetString(shape->instruction.mnemonic);
            draft->record->vsib_size = strstr(name, "erq") ? 8 : 4;
        }
    }
    if (!place_values(g, draft, shape, address))
        return false;
    if (shape->instruction.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE)
        return place_branch(g, draft, shape, code, at, address);
    return true;
}

static void start_record(struct isa_generator *g, struct isa_record *record) {
    static const uint64_t flag_bits = 0x8d5;
    memset(record, 0, sizeof *record);
    record->bits = (uint8_t)g->bits;
    record->style = (uint8_t)random_below(g, ISA_STYLES);
    record->seed = isa_random(&g->random);
    record->fcw = (uint16_t)(0x7f | random_below(g, 4) << 10 | (random_below(g, 4) ? 0x300 : random_below(g, 4) << 8));
    record->mxcsr = (uint32_t)(0x1f80 | random_below(g, 4) << 13);
    if (random_below(g, 8) == 0)
        record->mxcsr = (uint32_t)(isa_random(&g->random) & 0xffc0);
    for (unsigned i = 0; i < (g->bits == 64 ? 16u : 8u); i++)
        record->before.gpr[i] = g->bits == 64 ? random_value(g) : (uint32_t)random_value(g);
    record->before.flags = 0x202 | (isa_random(&g->random) & flag_bits) | (random_below(g, 8) == 0 ? 0x400 : 0);
    record->before.ip = ISA_CODE;
    record->before.gpr[4] = ISA_DATA + 0x1000;
    record->flags_mask = 0x44dd7; /* all but IF, IOPL, RF, ID; TF never is on */
}

static bool decode(struct isa_generator *g, const uint8_t *code, size_t length, struct shape *shape) {
    return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&g->decoder, code, length, &shape->instruction, shape->operands));
}

static void describe(struct isa_generator *g, const struct shape *shape, const uint8_t *code, struct isa_record *record) {
    struct shape again;
    if (decode(g, code, shape->instruction.length, &again))
        ZydisFormatterFormatInstruction(&g->formatter, &again.instruction, again.operands,
                                        again.instruction.operand_count_visible, record->text, sizeof record->text,
                                        ISA_CODE, NULL);
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
    unsigned opcode = point & 255, map = point >> 8 & 3, prefix = point >> 10 & 3, with_rex = point >> 12 & 1, n = 0;
    if (random_below(g, 16) == 0)
        code[n++] = 0x67;
    if (random_below(g, 16) == 0)
        code[n++] = g->bits == 64 ? 0x65 : 0x2e;
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
        code[n++] = (uint8_t)((r & 0xf0) | (g->bits == 32 ? 0xf0 : 0) | map);
        code[n++] = (uint8_t)((isa_random(&g->random) & 0xf8) | 4 | pp | (random_below(g, 2) ? 0x78 : 0));
        code[n++] = (uint8_t)(isa_random(&g->random) | (random_below(g, 2) ? 8 : 0));
    } else {
        code[n++] = 0xc4;
        code[n++] = (uint8_t)((r & 0xe0) | (g->bits == 32 ? 0xe0 : 0) | map);
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

static uint32_t undefined_flags(const struct shape *shape) {
    return shape->instruction.cpu_flags ? shape->instruction.cpu_flags->undefined : 0;
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
    if (!place(generator, &draft, &shape, code, ISA_CODE))
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
    if (!place(g, &next, &shape, code, ISA_CODE + record->code_length) || (written & next.pinned & ~0x10u)) {
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
