/*
 * Loops: which registers hold constants where their parts are entered, and which inner loops end after a few rounds
 * because of that: `for (i = 0; i < 24; i++)`. Such parts need no poll, and an index that begins at a constant needs no
 * check beside its base's (loop_plan.c). Nothing is known where a branch leads to.
 */
#include "translator/loop_outlook.h"

enum { ROUNDS = 256 };

/* ---- Constants ---- */

static bool is_reached_from_outside(const struct outlook *o, const struct loop_part *part) {
    for (unsigned i = 0; i < o->branch_count; i++)
        if (o->branch[i].target == part->first && o->branch[i].at < o->t->loop.end &&
            !loop_part_holds(part, o->branch[i].at))
            return true;
    return false;
}

void loop_count_before(struct outlook *o) {
    const struct loop *loop = &o->t->loop;
    unsigned offset = outlook_offset(o->t);
    for (unsigned p = 1; p < loop->part_count; p++)
        if (loop->part[p].first == offset && loop->part[p].has_one_entry && !is_reached_from_outside(o, &loop->part[p]))
            o->entry[p] = o->now;
    for (unsigned i = 0; i < o->branch_count; i++)
        if (o->branch[i].target == offset && o->branch[i].at < loop->end) {
            o->now.known = 0;
            o->comparison.is_valid = false;
        }
}

static void set_constant(struct outlook *o, unsigned guest, uint64_t value, unsigned bits) {
    o->now.known |= 1u << guest;
    o->now.value[guest] = bits == 32 ? (uint32_t)value : value;
}

static void note_constant(struct outlook *o) {
    const ZydisDecodedOperand *to = &o->t->in.operand[0], *from = &o->t->in.operand[1];
    bool high, is_same = from->type == ZYDIS_OPERAND_TYPE_REGISTER && from->reg.value == to->reg.value;
    if (to->type != ZYDIS_OPERAND_TYPE_REGISTER || to->size < 32 || decode_gpr(to->reg.value, &high) == CPU_NO_REGISTER)
        return;
    unsigned guest = decode_gpr(to->reg.value, &high);
    switch (o->t->in.z->mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
        if (from->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
            set_constant(o, guest, from->imm.value.u, to->size);
        return;
    case ZYDIS_MNEMONIC_XOR:
    case ZYDIS_MNEMONIC_SUB:
        if (is_same)
            set_constant(o, guest, 0, to->size);
        return;
    default:
        return;
    }
}

/* ---- Counters ---- */

static bool is_count(const struct instruction *in, int64_t *distance) {
    const ZydisDecodedOperand *to = &in->operand[0], *by = &in->operand[1];
    if (to->type != ZYDIS_OPERAND_TYPE_REGISTER || to->size < 32)
        return false;
    *distance = by->type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? by->imm.value.s : 0;
    switch (in->z->mnemonic) {
    case ZYDIS_MNEMONIC_ADD:
        return by->type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
    case ZYDIS_MNEMONIC_SUB:
        *distance = -*distance;
        return by->type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
    case ZYDIS_MNEMONIC_INC:
        *distance = 1;
        return true;
    case ZYDIS_MNEMONIC_DEC:
        *distance = -1;
        return true;
    default:
        return false;
    }
}

static void note_change(struct outlook *o, const ZydisDecodedOperand *operand) {
    bool high;
    unsigned guest = decode_gpr(operand->reg.value, &high);
    if (guest == CPU_NO_REGISTER)
        return;
    const struct loop *loop = &o->t->loop;
    for (unsigned p = 0; p < loop->part_count; p++) {
        if (!loop_part_holds(&loop->part[p], outlook_offset(o->t)))
            continue;
        o->written_again[p] |= o->written[p] & 1u << guest;
        o->written[p] |= 1u << guest;
    }
    o->now.known &= ~(1u << guest);
    o->count_bits[guest] = 0;
    if (operand != &o->t->in.operand[0] || !is_count(&o->t->in, &o->count[guest]))
        return;
    o->count_bits[guest] = (uint8_t)operand->size;
    o->comparison =
        (struct comparison){.is_valid = true, .is_step = true, .guest = (uint8_t)guest, .bits = (uint8_t)operand->size};
}

static void note_comparison(struct outlook *o) {
    const ZydisDecodedOperand *first = &o->t->in.operand[0], *second = &o->t->in.operand[1];
    bool high;
    if (o->t->in.z->mnemonic != ZYDIS_MNEMONIC_CMP || first->type != ZYDIS_OPERAND_TYPE_REGISTER || first->size < 32 ||
        second->type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
        return;
    o->comparison = (struct comparison){.is_valid = true,
                                        .guest = (uint8_t)decode_gpr(first->reg.value, &high),
                                        .bits = (uint8_t)first->size,
                                        .value = second->imm.value.u};
}

/* ---- Rounds ---- */

/* Whether the branch is taken, or may be, when the comparison's register is `value`. */
static bool may_branch(const struct comparison *comparison, unsigned condition, uint64_t value) {
    unsigned sign_bit = comparison->bits - 1u;
    uint64_t mask = comparison->bits == 32 ? UINT32_MAX : UINT64_MAX, with = comparison->value & mask;
    uint64_t difference = (value - with) & mask;
    bool is_zero = difference == 0, is_below = value < with, is_negative = difference >> sign_bit & 1, holds;
    bool has_overflow = ((value ^ with) & (value ^ difference)) >> sign_bit & 1;
    switch (condition >> 1) {
    case 2:
        holds = is_zero;
        break;
    case 4:
        holds = is_negative;
        break;
    case 1:
        holds = is_below;
        break;
    case 3:
        holds = is_below || is_zero;
        break;
    case 6:
        holds = is_negative != has_overflow;
        break;
    case 7:
        holds = is_negative != has_overflow || is_zero;
        break;
    default:
        return true;
    }
    bool is_known = !comparison->is_step || condition >> 1 == 2 || condition >> 1 == 4;
    return !is_known || holds != (condition & 1);
}

static bool is_bounded(const struct outlook *o, unsigned p, unsigned condition) {
    const struct comparison *comparison = &o->comparison;
    unsigned guest = comparison->guest;
    if (!comparison->is_valid || !(o->entry[p].known >> guest & 1) || !(o->written[p] >> guest & 1) ||
        (o->written_again[p] >> guest & 1) || o->count_bits[guest] != comparison->bits)
        return false;
    uint64_t mask = comparison->bits == 32 ? UINT32_MAX : UINT64_MAX, value = o->entry[p].value[guest];
    for (unsigned i = 0; i < ROUNDS; i++) {
        value = (value + (uint64_t)o->count[guest]) & mask;
        if (!may_branch(comparison, condition, value))
            return true;
    }
    return false;
}

static void note_branch(struct outlook *o) {
    enum { NOT_EQUAL = 5 };
    struct loop *loop = &o->t->loop;
    const struct comparison *comparison = &o->comparison;
    unsigned condition = o->t->in.z->opcode & 15;
    for (unsigned p = 1; p < loop->part_count; p++)
        if (loop->part[p].last == outlook_offset(o->t))
            loop->part[p].is_bounded = loop->part[p].is_straight && is_bounded(o, p, condition);
    bool tells_all = comparison->is_step || comparison->bits == code_bits(o->t->key);
    if (comparison->is_valid && condition == NOT_EQUAL && tells_all)
        set_constant(o, comparison->guest, comparison->value, comparison->bits);
}

void loop_count_after(struct outlook *o) {
    const struct instruction *in = &o->t->in;
    if (in->rule.kind == RULE_JCC) {
        note_branch(o);
        return;
    }
    o->comparison.is_valid = false;
    if (in->rule.kind == RULE_JUMP)
        o->now.known = 0;
    for (unsigned i = 0; i < in->z->operand_count; i++)
        if (in->operand[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            (in->operand[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            note_change(o, &in->operand[i]);
    note_comparison(o);
    note_constant(o);
}
