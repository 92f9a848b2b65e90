/*
 * Immediates as data: an instruction whose immediate is changed again and again reads it from the guest's memory, so that
 * a store to it changes no code. What is not an immediate of a move, an arithmetic operation or a test stays code.
 *
 * Machines with one vCPU alone: with more, another one might be reading the bytes as code while this one finds them to be
 * data.
 */
#include <string.h>

#include "translator/translation.h"

enum { CHANGES_TO_VARY = 4, MOST_IN_PAGE = 32 };

/* ---- Which instructions ---- */

static bool is_supported(const struct instruction *in) {
    const ZydisDecodedInstruction *z = in->z;
    if (in->rule.kind != RULE_COPY || in->rule.class != CLASS_INTEGER || z->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT ||
        z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY || !z->raw.imm[0].size || z->raw.imm[1].size)
        return false;
    bool high;
    decode_gpr(in->operand[0].reg.value, &high);
    if (in->operand[0].type == ZYDIS_OPERAND_TYPE_REGISTER && high)
        return false;
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_OR:
    case ZYDIS_MNEMONIC_ADC:
    case ZYDIS_MNEMONIC_SBB:
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_SUB:
    case ZYDIS_MNEMONIC_XOR:
    case ZYDIS_MNEMONIC_CMP:
    case ZYDIS_MNEMONIC_TEST:
    case ZYDIS_MNEMONIC_MOV:
        return in->operand[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
    default:
        return false;
    }
}

/* The opcode of the same operation on r/m and a register. */
static unsigned register_opcode(const ZydisDecodedInstruction *z) {
    unsigned wide = z->opcode & 1;
    if (z->mnemonic == ZYDIS_MNEMONIC_MOV)
        return z->opcode >= 0xc0 ? 0x88 | wide : z->opcode < 0xb8 ? 0x88 : 0x89;
    if (z->mnemonic == ZYDIS_MNEMONIC_TEST)
        return 0x84 | wide;
    return z->opcode < 0x40 ? (z->opcode & 0x38) | wide : (unsigned)z->raw.modrm.reg << 3 | wide;
}

/* ---- The list of a page ---- */

static void release(struct engine *engine, struct code_variable *variable) {
    variable->next = engine->free_variables;
    engine->free_variables = variable;
}

void variable_forget_page(struct engine *engine, struct code_page *code) {
    while (code->variables) {
        struct code_variable *variable = code->variables;
        code->variables = variable->next;
        release(engine, variable);
    }
}

void variable_forget_all(struct engine *engine) {
    engine->free_variables = NULL;
    for (unsigned i = 0; i < ENGINE_VARIABLES; i++) {
        if (engine->variable[i].code)
            engine->variable[i].code->variables = NULL;
        engine->variable[i].code = NULL;
        release(engine, &engine->variable[i].entry);
    }
}

static void add(struct engine *engine, struct code_page *code, unsigned offset, unsigned size) {
    struct code_variable *variable = engine->free_variables;
    unsigned count = 0;
    for (const struct code_variable *other = code->variables; other; other = other->next)
        count++;
    if (!variable || count == MOST_IN_PAGE)
        return;
    engine->free_variables = variable->next;
    *variable = (struct code_variable){.next = code->variables, .offset = (uint16_t)offset, .size = (uint16_t)size};
    code->variables = variable;
    engine->statistics.immediates_as_data++;
    for (unsigned i = 0; i < ENGINE_VARIABLES; i++)
        if (variable == &engine->variable[i].entry)
            engine->variable[i].code = code;
}

/* ---- Stores ---- */

/* Whether the store at the offset in the page changes the immediate of an instruction of the block, and nothing else. */
static bool changes_immediate(struct engine *engine, const struct block *block, const uint8_t *bytes, unsigned offset,
                              unsigned size, unsigned *start, unsigned *length) {
    unsigned first = (unsigned)(block->physical & MEMORY_PAGE_MASK), guest = 0;
    if (block->second_page != BLOCK_NO_PAGE || offset < first || offset + size > first + block->guest_size)
        return false;
    for (struct map_reader reader = block_map(block); map_next(&reader) && first + reader.now.guest <= offset;)
        guest = reader.now.guest;
    struct instruction in;
    unsigned at = first + guest, left = MEMORY_PAGE - at;
    if (!decode(engine->decoder, block->key, bytes + at, left < 15 ? left : 15, block->rip + guest, &in) ||
        !is_supported(&in))
        return false;
    *start = at + in.z->raw.imm[0].offset;
    *length = in.z->raw.imm[0].size / 8u;
    return offset >= *start && offset + size <= *start + *length;
}

void variable_note_store(struct engine *engine, uint64_t page, unsigned offset, unsigned size) {
    struct memory_region *region = memory_find(engine->memory, guest_physical_at(page));
    unsigned slot = (unsigned)((page + offset) * 0x9e3779b97f4a7c15ull >> 56) % ENGINE_CHANGES, start, length;
    if (engine->vcpu_count != 1 || !region)
        return;
    if (engine->changes[slot].address != page + offset) {
        engine->changes[slot].address = page + offset;
        engine->changes[slot].count = 0;
    }
    unsigned count = ++engine->changes[slot].count;
    if (count < CHANGES_TO_VARY || (count & (count - 1))) /* what did not stay data is tried ever less often */
        return;
    struct code_page *code = memory_code_page(region, guest_physical_at(page));
    const uint8_t *bytes = memory_host(region, guest_physical_at(page));
    for (struct block *block = code->first; block;
         block = block->page_next[(block->physical & ~MEMORY_PAGE_MASK) == page ? 0 : 1])
        if ((block->physical & ~MEMORY_PAGE_MASK) == page &&
            changes_immediate(engine, block, bytes, offset, size, &start, &length)) {
            add(engine, code, start, length);
            return;
        }
}

/* ---- Translation ---- */

static bool overlaps(const struct code_variable *variable, unsigned offset, unsigned size) {
    return variable->offset < offset + size && offset < (unsigned)variable->offset + variable->size;
}

static void remove_at(struct translation *t, struct code_variable **at) {
    struct code_variable *variable = *at;
    *at = variable->next;
    release(t->engine, variable);
    t->must_retry = true;
}

void variable_look(struct translation *t, unsigned available) {
    t->in.variable = 0;
    if (!t->code || !t->code->variables)
        return;
    uint64_t physical = instruction_physical(t);
    unsigned offset = (unsigned)(physical & MEMORY_PAGE_MASK), size = available < 15 ? available : 15;
    for (struct code_variable **at = &t->code->variables; *at;) {
        struct code_variable *variable = *at;
        if (!overlaps(variable, offset, size)) {
            at = &variable->next;
        } else if (is_supported(&t->in) && variable->offset == offset + t->in.z->raw.imm[0].offset &&
                   variable->size == t->in.z->raw.imm[0].size / 8) {
            struct memory_region *region = memory_find(t->cpu->memory, guest_physical_at(physical));
            t->in.variable = (uint64_t)memory_host(region, guest_physical_at(physical)) + t->in.z->raw.imm[0].offset;
            at = &variable->next;
        } else {
            remove_at(t, at);
        }
    }
}

void variable_refuse(struct translation *t, uint64_t physical, unsigned size) {
    struct memory_region *region = memory_find(t->cpu->memory, guest_physical_at(physical));
    if (!region)
        return;
    struct code_variable **at = &memory_code_page(region, guest_physical_at(physical))->variables;
    while (*at)
        if (overlaps(*at, (unsigned)(physical & MEMORY_PAGE_MASK), size))
            remove_at(t, at);
        else
            at = &(*at)->next;
}

/* reg = the immediate, extended to the operand's size. */
static void emit_immediate(struct translation *t, unsigned reg, unsigned operand_bits) {
    struct emitter *e = &t->e;
    unsigned bits = t->in.z->raw.imm[0].size;
    struct emit_memory place = memory_at(reg, 0);
    emit_mov_immediate(e, reg, t->in.variable);
    if (bits == 8 && operand_bits > 8)
        emit_op_memory(e, 0, true, 0x0fbe, reg, &place);
    else if (bits == 32 && operand_bits == 64)
        emit_op_memory(e, 0, true, 0x63, reg, &place);
    else if (bits < 32)
        emit_op_memory(e, 0, false, bits == 8 ? 0x0fb6 : 0x0fb7, reg, &place);
    else
        emit_op_memory(e, 0, bits == 64, 0x8b, reg, &place);
}

static void operate_on_memory(struct translation *t, unsigned prefix, unsigned opcode) {
    const ZydisDecodedOperand *operand = &t->in.operand[0];
    bool is_read = !(operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE);
    enum memory_kind kind = is_read                                            ? MEMORY_READ
                            : operand->actions & ZYDIS_OPERAND_ACTION_MASK_READ ? MEMORY_MODIFY
                                                                                : MEMORY_WRITE;
    struct emit_memory place = emit_operand(t, operand, kind);
    unsigned scratch = emit_free_scratch(t, &place);
    emit_immediate(t, scratch, operand->size);
    if (t->in.z->attributes & ZYDIS_ATTRIB_HAS_LOCK)
        emit_u8(&t->e, 0xf0);
    emit_op_memory(&t->e, prefix, operand->size == 64, opcode, scratch, &place);
    emit_access_done(t, kind);
}

static void operate_on_register(struct translation *t, unsigned prefix, unsigned opcode) {
    const ZydisDecodedOperand *operand = &t->in.operand[0];
    bool high;
    unsigned guest = decode_gpr(operand->reg.value, &high), host = emit_guest(t, guest, REG_A);
    emit_immediate(t, REG_S, operand->size);
    emit_op_register(&t->e, prefix, operand->size == 64, opcode, REG_S, host);
    if (t->home[guest] == HOST_NONE)
        emit_store(&t->e, t->slot[guest], host);
}

void translate_variable(struct translation *t) {
    t->relocations.is_unmovable = true; /* the place of the immediate is the guest's, the block's lines are fewer */
    const ZydisDecodedOperand *operand = &t->in.operand[0];
    unsigned prefix = operand->size == 16 ? 0x66 : 0, opcode = register_opcode(t->in.z);
    if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY)
        operate_on_memory(t, prefix, opcode);
    else
        operate_on_register(t, prefix, opcode);
}
