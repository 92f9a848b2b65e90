/*
 * Blocks that jump back to their own start. Within such a loop,
 *
 * - an address whose registers move by small constants is checked once, in front of the first round: the access is made in
 *   every round (so it has no mask), and cannot step over the guards around its region (memory/window.h);
 * - guest registers that usually live in memory trade places with ones that the loop uses less.
 *
 * The first is for windows, and both are for 64-bit code. Ways out of a round put the registers back; a host fault in a
 * round finds in the block where they are.
 */
#include "memory/window.h"
#include "translator/translation.h"

enum { STEP_LIMIT = 1 << 16, NO_RESULT = -1 };

struct outlook {
    struct translation *t;
    int64_t step[CPU_REGISTERS];   /* of a round; WINDOW_REACH: not constant */
    unsigned uses[CPU_REGISTERS];
    uint32_t fixed;                /* guest registers that an instruction names by itself, or by their high byte */
    struct address address[BLOCK_INSTRUCTIONS];
    enum site_form form[BLOCK_INSTRUCTIONS];
    unsigned address_count;
    bool has_soft_access;
};

/* ---- Looking ahead ---- */

static void note_register(struct outlook *o, const ZydisDecodedOperand *operand) {
    bool high;
    unsigned guest = decode_gpr(operand->reg.value, &high);
    if (guest == CPU_NO_REGISTER)
        return;
    o->uses[guest] += operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE ? 2 : 1;
    if (high || operand->visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT)
        o->fixed |= 1u << guest;
    if (!(operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
        return;
    int64_t step = o->t->in.z->mnemonic == ZYDIS_MNEMONIC_AND ? WINDOW_REACH : step_of(o->t, guest, operand);
    if (o->t->in.z->mnemonic == ZYDIS_MNEMONIC_SUB || o->t->in.z->mnemonic == ZYDIS_MNEMONIC_DEC)
        step = step == WINDOW_REACH ? step : -step;
    bool is_constant = step > -STEP_LIMIT && step < STEP_LIMIT && o->step[guest] != WINDOW_REACH;
    o->step[guest] = is_constant ? o->step[guest] + (step < 0 ? -step : step) : WINDOW_REACH;
}

/* Guards stop an address that moves only where its access is made: not one whose mask may be empty. */
static bool is_made_in_each_round(const struct instruction *in) {
    return !is_masked_access(in) && !(in->z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX && in->z->raw.evex.aaa);
}

static void note_memory(struct outlook *o, const ZydisDecodedOperand *operand) {
    struct address address = address_of(o->t, operand);
    bool is_plain = address.size == 8 && address.segment != CPU_FS && address.segment != CPU_GS && !address.is_constant;
    if (address.base != CPU_NO_REGISTER)
        o->uses[address.base]++;
    if (address.index != CPU_NO_REGISTER)
        o->uses[address.index]++;
    o->has_soft_access |= !uses_window(o->t);
    if (!is_plain || operand->mem.type == ZYDIS_MEMOP_TYPE_AGEN || !is_made_in_each_round(&o->t->in))
        return;
    o->form[o->address_count] = form_of(o->t, &address);
    o->address[o->address_count++] = address;
}

/* Whether the instruction may be part of a round: nothing that leaves for C, and nothing that moves control but forward
   branches out of it. */
static bool is_ordinary(struct outlook *o) {
    const struct instruction *in = &o->t->in;
    if (translate_fault(o->t) >= 0)
        return false;
    switch (in->rule.kind) {
    case RULE_COPY:
    case RULE_LEA:
    case RULE_NOTHING:
        return true;
    case RULE_BIT:
        return in->operand[0].type == ZYDIS_OPERAND_TYPE_REGISTER;
    case RULE_PUSH:
    case RULE_POP:
        return in->operand[0].type == ZYDIS_OPERAND_TYPE_REGISTER;
    default:
        return false;
    }
}

static uint64_t branch_target_of(const struct translation *t) {
    return t->in.rip + t->in.z->length + t->in.operand[0].imm.value.u;
}

static bool look_ahead(struct outlook *o, const uint8_t *bytes, unsigned left) {
    struct translation *t = o->t;
    uint64_t rip = t->start_rip;
    for (unsigned i = 0; i < BLOCK_INSTRUCTIONS - 1; i++) {
        if (!decode_cached(t->engine->decoder, t->key, bytes, left < 15 ? left : 15, rip, &t->in) || t->in.z->length >= left)
            return false;
        t->in.rip = rip;
        if (t->in.rule.kind == RULE_JCC) {
            if (branch_target_of(t) == t->start_rip) {
                t->loop.branch = rip;
                return true;
            }
            if (branch_target_of(t) <= rip)
                return false;
        } else if (!is_ordinary(o)) {
            return false;
        }
        for (unsigned k = 0; k < t->in.z->operand_count; k++) {
            const ZydisDecodedOperand *operand = &t->in.operand[k];
            if (operand->type == ZYDIS_OPERAND_TYPE_REGISTER)
                note_register(o, operand);
            else if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY &&
                     operand->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN && o->address_count < BLOCK_INSTRUCTIONS)
                note_memory(o, operand);
        }
        rip += t->in.z->length;
        bytes += t->in.z->length;
        left -= t->in.z->length;
    }
    return false;
}

/* ---- Deciding ---- */

static bool is_same_sum(const struct loop_check *check, const struct address *address) {
    return check->base == address->base && check->index == address->index &&
           (check->scale == address->scale || address->index == CPU_NO_REGISTER);
}

static bool moves_slowly(const struct outlook *o, unsigned guest, unsigned scale) {
    return guest == CPU_NO_REGISTER || o->step[guest] * scale < STEP_LIMIT;
}

static void plan_checks(struct outlook *o) {
    struct loop *loop = &o->t->loop;
    if (engine_site_form_at(o->t->engine, engine_loop_site(o->t->block->physical)) == FORM_SOFT)
        return;
    for (unsigned i = 0; i < o->address_count && loop->check_count < sizeof loop->check / sizeof *loop->check; i++) {
        const struct address *address = &o->address[i];
        bool is_known = o->form[i] != FORM_A && o->form[i] != FORM_B;
        for (unsigned k = 0; k < loop->check_count; k++)
            is_known |= is_same_sum(&loop->check[k], address);
        if (is_known || address->displacement < -WINDOW_REACH || address->displacement > WINDOW_REACH ||
            !moves_slowly(o, address->base, 1) || !moves_slowly(o, address->index, address->scale))
            continue;
        unsigned group = o->form[i] == FORM_B ? WINDOW_B : WINDOW_A;
        loop->check[loop->check_count++] =
            (struct loop_check){address->base, address->index, address->scale, (uint8_t)group};
        loop->wants_addend_b |= group == WINDOW_B;
    }
}

/* The resident register that the loop uses least, of those that no instruction names by itself. */
static int least_used(const struct outlook *o, uint32_t taken) {
    static const uint8_t candidates[] = {CPU_RBX, CPU_RBP, CPU_R8, CPU_R9, CPU_R12};
    int best = NO_RESULT;
    for (unsigned i = 0; i < sizeof candidates; i++) {
        unsigned guest = candidates[i];
        if (!((o->fixed | taken) & (1u << guest)) && (best < 0 || o->uses[guest] < o->uses[best]))
            best = (int)guest;
    }
    return best;
}

static int most_used(const struct outlook *o, uint32_t taken) {
    int best = NO_RESULT;
    for (unsigned guest = 0; guest < CPU_REGISTERS; guest++)
        if (host_register[guest] == HOST_NONE && !(taken & (1u << guest)) &&
            (best < 0 || o->uses[guest] > o->uses[best]))
            best = (int)guest;
    return best;
}

static void plan_swaps(struct outlook *o) {
    struct block *block = o->t->block;
    uint32_t taken = 0;
    while (block->swap_count < BLOCK_SWAPS) {
        int inner = most_used(o, taken), outer = least_used(o, taken);
        if (inner < 0 || outer < 0 || o->uses[inner] <= o->uses[outer] + 1)
            return;
        taken |= 1u << inner | 1u << outer;
        block->swap[block->swap_count++] = (struct block_swap){(uint8_t)inner, (uint8_t)outer};
    }
}

void loop_plan(struct translation *t, const uint8_t *bytes, unsigned left) {
    if (!(t->key & MODE_WINDOW) || (t->key & MODE_SLOW) || (t->key & MODE_CODE) != MODE_CODE64 ||
        t->engine->breakpoint_count)
        return;
    struct outlook o = {.t = t};
    if (!look_ahead(&o, bytes, left))
        return;
    t->loop.is_found = true;
    plan_checks(&o);
    if (!o.has_soft_access) /* a soft access leaves for C in the middle of a round */
        plan_swaps(&o);
}

/* ---- Emitting ---- */

static int32_t swapped_slot(unsigned i) {
    return R_STATE(hot.swapped) + 8 * (int32_t)i;
}

static void emit_checks(struct translation *t) {
    for (unsigned i = 0; i < t->loop.check_count; i++) {
        const struct loop_check *check = &t->loop.check[i];
        struct address sum = {.base = check->base, .index = check->index, .scale = check->scale, .size = 8};
        emit_offset(t, &sum);
        emit_check(t, REG_S, check->group);
    }
    t->block->check_end = host_offset(t);
}

void loop_enter(struct translation *t) {
    struct block *block = t->block;
    emit_checks(t);
    for (unsigned i = 0; i < block->swap_count; i++) {
        unsigned inner = block->swap[i].inner, outer = block->swap[i].outer, host = t->home[outer];
        emit_store(&t->e, swapped_slot(i), host);
        emit_load(&t->e, host, R_GPR(inner));
        t->home[inner] = (uint8_t)host;
        t->home[outer] = HOST_NONE;
        t->slot[outer] = swapped_slot(i);
    }
    if (t->loop.wants_addend_b)
        emit_load(&t->e, REG_T, R_STATE(hot.window_addend[1]));
    t->has_addend_b = t->loop.wants_addend_b;
    t->loop.start = t->e.at;
    block->loop_start = host_offset(t);
}

unsigned loop_group(const struct translation *t, const struct address *address) {
    if (!is_made_in_each_round(&t->in))
        return WINDOW_GROUPS;
    for (unsigned i = 0; i < t->loop.check_count; i++)
        if (is_same_sum(&t->loop.check[i], address))
            return t->loop.check[i].group;
    return WINDOW_GROUPS;
}

void loop_leave(struct translation *t) {
    for (unsigned i = 0; i < t->block->swap_count; i++) {
        unsigned inner = t->block->swap[i].inner, host = host_register[t->block->swap[i].outer];
        emit_store(&t->e, R_GPR(inner), host);
        emit_load(&t->e, host, swapped_slot(i));
    }
}

void loop_end(struct translation *t) {
    t->block->loop_end = host_offset(t);
    t->loop = (struct loop){0};
    for (unsigned i = 0; i < CPU_REGISTERS; i++) {
        t->home[i] = host_register[i];
        t->slot[i] = R_GPR(i);
    }
}
