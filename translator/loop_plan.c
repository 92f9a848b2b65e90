/*
 * Loops, planned before they are translated: a block that some branch leads back to the start of. Its instructions up to
 * the last such branch, with forward branches and with loops of their own among them, are one stretch of code
 * (loop.c emits it). A first look finds the branches, a second one what registers and addresses do.
 */
#include "memory/window.h"
#include "translator/loop_outlook.h"

enum { NO_RESULT = -1 };

/* ---- The first look: branches ---- */

/* Whether the instruction may be part of a round: nothing that leaves for C. */
static bool is_ordinary(const struct translation *t) {
    const struct instruction *in = &t->in;
    if (translate_fault(t) >= 0)
        return false;
    switch (in->rule.kind) {
    case RULE_COPY: /* a division leaves for #DE, and takes longer than what a loop saves */
        return in->z->mnemonic != ZYDIS_MNEMONIC_DIV && in->z->mnemonic != ZYDIS_MNEMONIC_IDIV;
    case RULE_LEA:
    case RULE_NOTHING:
        return true;
    case RULE_JCC:
    case RULE_JUMP: /* not to targets of 16 bits */
        return in->operand[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && in->z->operand_width != 16;
    case RULE_BIT:
    case RULE_PUSH:
    case RULE_POP:
        return in->operand[0].type == ZYDIS_OPERAND_TYPE_REGISTER;
    default:
        return false;
    }
}

static bool next_ordinary(struct translation *t, const uint8_t *bytes, unsigned left, unsigned offset) {
    if (offset >= left ||
        !decode_cached(t->engine->decoder, t->key, bytes + offset, left - offset < 15 ? left - offset : 15,
                t->start_rip + offset, &t->in) ||
        t->in.z->length >= left - offset)
        return false;
    t->in.rip = t->start_rip + offset;
    return is_ordinary(t);
}

/* Finds the branches, and the end of the loop: 0 where there is none. */
static unsigned find_end(struct outlook *o) {
    struct translation *t = o->t;
    unsigned end = 0, offset = 0;
    for (unsigned i = 0; i < BLOCK_INSTRUCTIONS - 1 && next_ordinary(t, o->bytes, o->left, offset); i++) {
        o->begins[offset / 64] |= 1ull << (offset % 64);
        unsigned at = offset;
        offset += t->in.z->length;
        if (t->in.rule.kind != RULE_JCC && t->in.rule.kind != RULE_JUMP)
            continue;
        uint64_t target = next_rip(t) + t->in.operand[0].imm.value.u - t->start_rip;
        if (target >= o->left)
            continue;
        if (o->branch_count == OUTLOOK_BRANCHES)
            break;
        o->branch[o->branch_count++] = (struct branch){(uint16_t)at, (uint16_t)target};
        if (target == 0)
            end = offset;
    }
    return end;
}

static struct loop_part *part_from(struct loop *loop, unsigned first) {
    for (unsigned i = 0; i < loop->part_count; i++)
        if (loop->part[i].first == first)
            return &loop->part[i];
    if (loop->part_count == LOOP_PARTS)
        return NULL;
    struct loop_part *part = &loop->part[loop->part_count++];
    *part = (struct loop_part){.first = (uint16_t)first, .is_straight = true, .has_one_entry = true};
    return part;
}

/* Whether the target is an instruction of the loop, so that the branch stays in it. */
static bool is_inside(const struct outlook *o, unsigned target) {
    return target < o->t->loop.end && (o->begins[target / 64] >> (target % 64) & 1);
}

static bool add_label(struct loop *loop, unsigned target) {
    for (unsigned i = 0; i < loop->label_count; i++)
        if (loop->label[i].guest == target)
            return true;
    if (loop->label_count == LOOP_LABELS)
        return false;
    loop->label[loop->label_count++] = (struct loop_label){.guest = (uint16_t)target};
    return true;
}

/* Whether the branch ends rounds of such a part within this one. */
static bool is_of_inner(const struct outlook *o, const struct loop_part *part, const struct branch *branch);

/* Whether each round of the part runs all of its instructions, unless it leaves the part. */
static bool is_nest(const struct outlook *o, const struct loop_part *part) {
    for (unsigned i = 0; i < o->branch_count; i++) {
        const struct branch *branch = &o->branch[i];
        bool is_at_inside = loop_part_holds(part, branch->at), is_to_inside = loop_part_holds(part, branch->target);
        bool is_back = branch->at == part->last && branch->target == part->first;
        if (branch->at < o->t->loop.end && is_to_inside && !is_back &&
            (is_at_inside ? !is_of_inner(o, part, branch) : branch->target != part->first))
            return false;
    }
    return part->has_branch;
}

static bool is_of_inner(const struct outlook *o, const struct loop_part *part, const struct branch *branch) {
    for (unsigned p = 1; p < o->t->loop.part_count; p++) {
        const struct loop_part *inner = &o->t->loop.part[p];
        if (inner->first == branch->target && inner->last == branch->at && inner->first > part->first)
            return is_nest(o, inner);
    }
    return false;
}

/* A part for each target of backward branches, as long as there is room; the first is the loop itself. */
static bool find_parts(struct outlook *o) {
    struct loop *loop = &o->t->loop;
    part_from(loop, 0);
    for (unsigned i = 0; i < o->branch_count; i++) {
        const struct branch *branch = &o->branch[i];
        if (branch->at >= loop->end || !is_inside(o, branch->target))
            continue;
        if (!add_label(loop, branch->target))
            return false;
        struct loop_part *part = branch->target <= branch->at ? part_from(loop, branch->target) : NULL;
        if (part) {
            part->is_straight = !part->has_branch;
            part->has_branch = true;
            part->last = branch->at;
        }
    }
    for (unsigned p = 0; p < loop->part_count; p++) {
        struct loop_part *part = &loop->part[p];
        for (unsigned i = 0; i < o->branch_count; i++) {
            const struct branch *branch = &o->branch[i];
            bool is_into = branch->at < loop->end && branch->target > part->first && branch->target <= part->last;
            part->is_straight &= !is_into;
            part->has_one_entry &= !is_into || (branch->at >= part->first && branch->at <= part->last);
        }
    }
    for (unsigned p = 0; p < loop->part_count; p++)
        loop->part[p].is_nest = is_nest(o, &loop->part[p]);
    return true;
}

/* ---- The second look: registers and addresses ---- */

/* Whether the instruction is in a part within this one. */
static bool is_inner(const struct loop *loop, const struct loop_part *part, unsigned offset) {
    for (unsigned q = 1; q < loop->part_count; q++)
        if (loop_part_holds(&loop->part[q], offset) && loop_part_is_within(&loop->part[q], part))
            return true;
    return false;
}

/* What is done in inner parts counts more. */
static unsigned weight_at(const struct loop *loop, unsigned offset) {
    unsigned weight = 1;
    for (unsigned i = 1; i < loop->part_count; i++)
        weight *= loop_part_holds(&loop->part[i], offset) ? 8 : 1;
    return weight;
}

static void note_plain(struct outlook *o, unsigned guest) {
    for (unsigned p = 0; p < o->t->loop.part_count && guest != CPU_NO_REGISTER; p++)
        if (loop_part_holds(&o->t->loop.part[p], outlook_offset(o->t)))
            o->plain[p] |= (uint16_t)(1u << guest);
}

static void note_register(struct outlook *o, const ZydisDecodedOperand *operand, unsigned weight) {
    bool high;
    unsigned guest = decode_gpr(operand->reg.value, &high);
    if (guest == CPU_NO_REGISTER)
        return;
    note_plain(o, guest);
    o->uses[guest] += weight * (operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE ? 2 : 1);
    if (high || operand->visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT)
        o->fixed |= 1u << guest;
    if (!(operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
        return;
    int64_t step = o->t->in.z->mnemonic == ZYDIS_MNEMONIC_AND ? WINDOW_REACH : step_of(o->t, guest, operand);
    bool is_constant = step > -STEP_LIMIT && step < STEP_LIMIT;
    step = step < 0 ? -step : step;
    const struct loop *loop = &o->t->loop;
    unsigned offset = outlook_offset(o->t);
    for (unsigned p = 0; p < loop->part_count; p++) {
        int64_t *sum = &o->step[p][guest];
        if (loop_part_holds(&loop->part[p], offset))
            *sum = is_constant && *sum < STEP_LIMIT && !is_inner(loop, &loop->part[p], offset) ? *sum + step + 1 : WINDOW_REACH; /* never 0: it was written */
    }
}

/* Guards stop an address that moves only where its access is made: not one whose mask may be empty. */
bool loop_makes_access(const struct instruction *in) {
    return !is_masked_access(in) && !(in->z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX && in->z->raw.evex.aaa);
}

static void note_memory(struct outlook *o, const ZydisDecodedOperand *operand, unsigned weight) {
    struct address address = address_of(o->t, operand);
    bool is_plain = address.size == 8 && address.segment != CPU_FS && address.segment != CPU_GS && !address.is_constant;
    if (address.base != CPU_NO_REGISTER)
        o->uses[address.base] += weight;
    if (address.index != CPU_NO_REGISTER)
        o->uses[address.index] += weight;
    note_plain(o, address.index);
    bool is_access = operand->mem.type != ZYDIS_MEMOP_TYPE_AGEN;
    o->has_soft_access |= is_access && !uses_window(o->t);
    if (!is_access || !is_plain || !loop_makes_access(&o->t->in) || o->address_count == BLOCK_INSTRUCTIONS) {
        note_plain(o, address.base);
        return;
    }
    o->place[o->address_count] = (uint16_t)outlook_offset(o->t);
    o->form[o->address_count] = form_of(o->t, &address);
    o->address[o->address_count++] = address;
}

static void note_instructions(struct outlook *o) {
    struct translation *t = o->t;
    for (unsigned offset = 0; offset < t->loop.end && next_ordinary(t, o->bytes, o->left, offset);
         offset += t->in.z->length) {
        unsigned weight = weight_at(&t->loop, offset);
        loop_count_before(o);
        for (unsigned k = 0; k < t->in.z->operand_count; k++) {
            const ZydisDecodedOperand *operand = &t->in.operand[k];
            if (operand->type == ZYDIS_OPERAND_TYPE_REGISTER)
                note_register(o, operand, weight);
            else if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY &&
                     operand->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN)
                note_memory(o, operand, weight);
        }
        for (unsigned p = 0; p < t->loop.part_count; p++) {
            t->loop.part[p].instructions += loop_part_holds(&t->loop.part[p], offset);
            if (t->loop.part[p].last == offset)
                t->loop.part[p].behind = (uint16_t)(offset + t->in.z->length);
        }
        guess_next(t);
        loop_count_after(o);
    }
    guess_start(t);
}

/* ---- Deciding ---- */

/* Short straight parts are made several times in a row: the poll is due in the last one alone. */
static void plan_copies(struct loop *loop) {
    enum { SHORT = 12, COPIES = 3, MOST = BLOCK_INSTRUCTIONS - 4 };
    unsigned made = loop->part[0].instructions;
    for (unsigned p = loop->part_count; p-- > 0;) {
        struct loop_part *part = &loop->part[p];
        if (!part->is_straight || part->instructions > SHORT || (p > 0 && !add_label(loop, part->behind)))
            continue;
        while (part->copies < COPIES && made + part->instructions <= MOST) {
            part->copies++;
            made += part->instructions;
        }
    }
}

/* The resident register that the loop uses least, of those that no instruction names by itself. */
static int least_used(const struct outlook *o, uint32_t taken) {
    static const uint8_t candidates[] = {CPU_RBX, CPU_RBP, CPU_R8, CPU_R12, CPU_R13};
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
    struct block_loop *loop = o->t->block->loop;
    uint32_t taken = 0;
    while (loop->swap_count < BLOCK_SWAPS) {
        int inner = most_used(o, taken), outer = least_used(o, taken);
        if (inner < 0 || outer < 0 || o->uses[inner] <= o->uses[outer] + 1)
            return;
        taken |= 1u << inner | 1u << outer;
        loop->swap[loop->swap_count++] = (struct block_swap){(uint8_t)inner, (uint8_t)outer};
    }
}

void loop_plan(struct translation *t, const uint8_t *bytes, unsigned left) {
    if (!(t->key & MODE_WINDOW) || (t->key & MODE_SLOW) || (t->key & MODE_CODE) == MODE_CODE16 ||
        t->engine->breakpoint_count)
        return;
    struct outlook o = {.t = t, .bytes = bytes, .left = left};
    t->loop.end = (uint16_t)find_end(&o);
    t->loop.is_found = t->loop.end && find_parts(&o) &&
                       (t->block->loop = code_cache_allocate(&t->engine->cache, sizeof *t->block->loop));
    if (!t->loop.is_found) {
        t->loop = (struct loop){0};
        return;
    }
    *t->block->loop = (struct block_loop){0};
    note_instructions(&o);
    if ((t->key & MODE_NEAR_STACK) && o.step[0][CPU_RSP]) { /* its branches would have to hold the stack */
        t->loop = (struct loop){0};
        t->block->loop = NULL;
        return;
    }
    loop_plan_checks(&o);
    plan_copies(&t->loop);
    if (o.has_soft_access) /* it leaves for C in the middle of a round */
        return;
    plan_swaps(&o);
    loop_plan_bias(&o);
}
