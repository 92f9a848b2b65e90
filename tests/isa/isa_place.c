/* Fits a decoded instruction into a record: memory operands get in reach, branches go to places that trap. */
#include <string.h>

#include "isa_draft.h"

enum { CODE_ROOM = 96 }; /* of a block */

int gpr_number(ZydisRegister reg) {
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

/* Somewhere in the data; now and then near an end, so that an access runs into the missing page. */
static uint64_t random_target(struct isa_generator *g) {
    uint64_t r = random_below(g, g->is_edgy ? 4 : 32);
    if (r == 0)
        return ISA_DATA + ISA_DATA_SIZE - random_below(g, 72);
    if (r == 1)
        return ISA_DATA - random_below(g, 40);
    if (r == 2)
        return ISA_DATA + 0x1000 - random_below(g, 72);
    uint64_t at = ISA_DATA + 0x800 + random_below(g, 0x1000);
    return random_below(g, 4) ? at & ~63ull : at;
}

/* Offset in the code segment. */
static uint64_t random_code_target(struct isa_generator *g) {
    return code_start(g) + 0x100 + random_below(g, 0x600);
}

static uint64_t segment_base(const struct isa_generator *g, ZydisRegister segment) {
    if (g->bits == 64)
        return segment == ZYDIS_REGISTER_GS ? ISA_GS_BASE : 0;
    if (g->bits == 32)
        return 0;
    switch (segment) {
    case ZYDIS_REGISTER_CS: return ISA_CS16_BASE;
    case ZYDIS_REGISTER_ES: return ISA_ES16_BASE;
    case ZYDIS_REGISTER_SS: return ISA_SS16_BASE;
    default: return ISA_DS16_BASE;
    }
}

/* The linear address of the stack's top. */
static uint64_t stack_top(const struct isa_generator *g, const struct draft *draft) {
    uint64_t sp = draft->record->before.gpr[4];
    return g->bits == 16 ? ISA_SS16_BASE + (sp & 0xffff) : sp;
}

static void pin(struct draft *draft, struct isa_generator *g, int gpr, uint64_t value) {
    draft->record->before.gpr[gpr] = g->bits == 64 ? value : (uint32_t)value;
    draft->pinned |= 1u << gpr;
}

/* A register that an address of `width` bits is made of; the rest of the register does not count. */
static void pin_address(struct draft *draft, struct isa_generator *g, int gpr, uint64_t value, unsigned width) {
    if (width == 16)
        value = (value & 0xffff) | (gpr == 4 ? ISA_ESP16 : random_below(g, 0x10000) << 16);
    pin(draft, g, gpr, value);
}

static void write_little_endian(uint8_t *to, uint64_t value, unsigned bytes) {
    for (unsigned i = 0; i < bytes; i++)
        to[i] = (uint8_t)(value >> 8 * i);
}

static bool is_taken(const struct draft *draft, int gpr) {
    return (draft->pinned | draft->written) >> gpr & 1;
}

/* An operand without base; the displacement is made to fit. */
static bool place_absolute(struct isa_generator *g, struct draft *draft, const ZydisDecodedInstruction *i, int index,
                           unsigned scale, uint64_t offset, uint8_t *code) {
    if (i->raw.disp.size < 16)
        return false;
    if (index >= 0) {
        if (is_taken(draft, index))
            return false;
        uint64_t value = random_below(g, 256);
        pin(draft, g, index, value);
        offset -= value * scale;
    }
    write_little_endian(code + i->raw.disp.offset, offset, i->raw.disp.size / 8u);
    return true;
}

/*
 * Makes the address of memory operand `o` a place in the data, *address (0: unknown). `code` is the instruction's own, at
 * offset `at`. False when the operand's registers are taken, and for the forms that cannot reach the data.
 */
static bool place_operand(struct isa_generator *g, struct draft *draft, struct shape *shape, ZydisDecodedOperand *o,
                          uint8_t *code, uint64_t at, uint64_t *address) {
    const ZydisDecodedInstruction *i = &shape->instruction;
    uint64_t target = random_target(g), offset = target - segment_base(g, o->mem.segment);
    int base = gpr_number(o->mem.base), index = o->mem.type == ZYDIS_MEMOP_TYPE_VSIB ? -1 : gpr_number(o->mem.index);
    unsigned width = i->address_width, scale = o->mem.scale ? o->mem.scale : 1;
    bool has_wide_disp = i->raw.disp.size >= 16 && o->visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT;
    *address = target;
    if (o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP) {
        write_little_endian(code + i->raw.disp.offset, offset - at - i->length, 4);
        return true;
    }
    if (g->bits != 16 && width == 16) {
        *address = 0;
        return true; /* out of reach, and faults alike */
    }
    if (base < 0)
        return place_absolute(g, draft, i, index, scale, offset, code);
    if (draft->written >> base & 1 || base == index)
        return false;
    int64_t disp = o->mem.disp.value;
    if (has_wide_disp) {
        disp = (int64_t)random_below(g, 4096) - 2048;
        write_little_endian(code + i->raw.disp.offset, (uint64_t)disp, i->raw.disp.size / 8u);
    }
    if (index >= 0) {
        if (is_taken(draft, index))
            return false;
        uint64_t value = random_below(g, 256);
        pin_address(draft, g, index, value, i->mnemonic == ZYDIS_MNEMONIC_XLAT ? 32 : width);
        disp += (int64_t)(value * scale);
    }
    if (draft->pinned >> base & 1) {
        *address = 0;
        return true; /* shared with an earlier operand: near it */
    }
    pin_address(draft, g, base, offset - (uint64_t)disp, base == 4 && g->bits == 16 ? 16 : width);
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

/* Out of the code, so that no block runs for ever. */
static void place_relative(struct isa_generator *g, const ZydisDecodedInstruction *i, uint8_t *code, uint64_t at) {
    uint64_t next = at + i->length, distance;
    unsigned size = i->raw.imm[0].size, used = (unsigned)(next - code_start(g));
    if (size == 8 && used + 16 < 0x80 && random_below(g, 2))
        distance = 0 - used - random_below(g, 0x80 - used) - 1;
    else if (size == 8)
        distance = CODE_ROOM - used + random_below(g, 0x80 - CODE_ROOM + used);
    else
        distance = random_code_target(g) - next;
    write_little_endian(code + i->raw.imm[0].offset, distance, size / 8);
}

/* Branches go to an int3 elsewhere in the page, or where nothing is. */
static bool place_branch(struct isa_generator *g, struct draft *draft, struct shape *shape, uint8_t *code, uint64_t at,
                         uint64_t address) {
    const ZydisDecodedInstruction *i = &shape->instruction;
    ZydisDecodedOperand *first = &shape->operands[0];
    unsigned pointer = i->operand_width / 8;
    if (i->mnemonic == ZYDIS_MNEMONIC_RET) {
        patch_data(draft, stack_top(g, draft), random_code_target(g), 0, pointer);
    } else if (i->raw.imm[0].is_relative) {
        place_relative(g, i, code, at);
    } else if (first->type == ZYDIS_OPERAND_TYPE_REGISTER) {
        int gpr = gpr_number(first->reg.value);
        if (draft->written >> gpr & 1 || gpr == 4)
            return false;
        pin(draft, g, gpr, random_code_target(g));
    } else {
        patch_data(draft, address, random_code_target(g), 0, pointer);
    }
    return true;
}

/* Values without which an instruction would only fault, or do next to nothing. */
static bool place_values(struct isa_generator *g, struct draft *draft, struct shape *shape, uint64_t address) {
    const ZydisDecodedInstruction *i = &shape->instruction;
    uint64_t *gpr = draft->record->before.gpr;
    switch (i->mnemonic) {
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
        if (random_below(g, 4) && !is_taken(draft, 2))
            gpr[2] = random_below(g, 2);
        break;
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        if (shape->operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            shape->operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER) {
            int index = gpr_number(shape->operands[1].reg.value);
            if (is_taken(draft, index) || index == 4)
                return false;
            pin(draft, g, index, random_below(g, 4096) - 2048);
        }
        break;
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ: /* not TF, AC, NT, ID: the signal frame does not restore ID */
        patch_data(draft, stack_top(g, draft), isa_random(&g->random) & 0xcd5, 0, i->operand_width / 8);
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
        pin_address(draft, g, 1, random_below(g, 32), i->address_width);
    }
    return true;
}

bool place(struct isa_generator *g, struct draft *draft, struct shape *shape, uint8_t *code, uint64_t at) {
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

void start_record(struct isa_generator *g, struct isa_record *record) {
    static const uint64_t flag_bits = 0x8d5;
    memset(record, 0, sizeof *record);
    g->is_edgy = random_below(g, 4) == 0;
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
    record->before.ip = code_start(g);
    record->before.gpr[4] = ISA_DATA + 0x1000;
    if (g->bits == 16)
        record->before.gpr[4] = ISA_ESP16 | (ISA_DATA + 0x1000 - ISA_SS16_BASE);
    record->flags_mask = 0x44dd7; /* all but IF, IOPL, RF, ID; TF never is on */
}
