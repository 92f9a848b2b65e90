/*
 * Registers that the block has made small: by MOVZX, AND, shifts to the right, and moves of these. An index that cannot lead
 * further than guards reach needs no check of its own in a window (memory_form.c), so what is said here must be true
 * of all 64 bits.
 */
#include "memory/window.h"
#include "translator/translation.h"

static bool register_bound(const struct translation *t, const ZydisDecodedOperand *operand, uint64_t *most) {
    bool high;
    unsigned guest = operand->type == ZYDIS_OPERAND_TYPE_REGISTER ? decode_gpr(operand->reg.value, &high) : CPU_NO_REGISTER;
    if (guest == CPU_NO_REGISTER || high || !(t->bounded & (1u << guest)))
        return false;
    *most = t->most[guest];
    return true;
}

/* The largest value that the instruction may give its first operand, a register of 32 or 64 bits. */
static bool result_bound(const struct translation *t, uint64_t *most) {
    const struct instruction *in = &t->in;
    const ZydisDecodedOperand *to = &in->operand[0], *from = &in->operand[1];
    bool has_immediate = from->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && !in->variable;
    switch (in->z->mnemonic) {
    case ZYDIS_MNEMONIC_MOVZX:
        *most = (1ull << from->size) - 1;
        return true;
    case ZYDIS_MNEMONIC_AND:
        *most = to->size == 32 ? (uint32_t)from->imm.value.u : from->imm.value.u;
        return has_immediate;
    case ZYDIS_MNEMONIC_SHR:
        *most = ~0ull >> (64 - to->size) >> (from->imm.value.u & (to->size - 1u));
        return has_immediate;
    case ZYDIS_MNEMONIC_MOV:
        return register_bound(t, from, most);
    default:
        return false;
    }
}

bool find_bound(const struct translation *t, unsigned *guest, uint32_t *most) {
    const struct instruction *in = &t->in;
    uint64_t value;
    bool high;
    if (in->rule.kind != RULE_COPY || in->z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY ||
        in->operand[0].type != ZYDIS_OPERAND_TYPE_REGISTER || in->operand[0].size < 32)
        return false;
    *guest = decode_gpr(in->operand[0].reg.value, &high);
    if (*guest == CPU_NO_REGISTER || !result_bound(t, &value) || value > WINDOW_REACH)
        return false;
    *most = (uint32_t)value;
    return true;
}
