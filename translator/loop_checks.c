/*
 * Loops: which addresses are checked once in front of a part. A part with checks is entered at its first instruction
 * alone. An address is
 *
 * - where its registers stay the same in the part;
 * - where they move by small constants in a part each round of which runs all of its instructions: the round makes the
 *   access then (so it has no mask), and cannot step over the guards around its region (memory/window.h);
 * - and by a check of its base in front of a part around that one, where its index begins at the same constant each
 * time.
 */
#include "memory/window.h"
#include "translator/loop_outlook.h"

static bool moves_slowly(const int64_t *step, unsigned guest, unsigned scale) {
    return guest == CPU_NO_REGISTER || step[guest] * scale < STEP_LIMIT;
}

static bool stays(const int64_t *step, unsigned guest) {
    return guest == CPU_NO_REGISTER || step[guest] == 0;
}

static bool may_check_once(const struct loop_part *part, const int64_t *step, const struct address *address) {
    if (stays(step, address->base) && stays(step, address->index))
        return true;
    return part->is_nest && moves_slowly(step, address->base, 1) && moves_slowly(step, address->index, address->scale);
}

static bool is_near(const struct address *address) {
    return address->displacement >= -WINDOW_REACH && address->displacement <= WINDOW_REACH;
}

static bool add_check(struct loop_part *part, const struct address *address, enum site_form form, bool is_implied) {
    if (part->check_count == LOOP_CHECKS)
        return false;
    part->check[part->check_count++] = (struct loop_check){address->base, address->index, address->scale,
                                                           form == FORM_B ? WINDOW_B : WINDOW_A, is_implied};
    return true;
}

/* The part within this one that is entered with a constant as the address's index, which then moves slowly. */
static unsigned part_with_constant(const struct outlook *o, unsigned p, unsigned i) {
    const struct loop *loop = &o->t->loop;
    const struct address *address = &o->address[i];
    for (unsigned q = 1; q < loop->part_count && address->index != CPU_NO_REGISTER; q++)
        if (loop_part_holds(&loop->part[q], o->place[i]) && loop_part_is_within(&loop->part[q], &loop->part[p]) &&
            (o->entry[q].known >> address->index & 1) && loop->part[q].is_nest &&
            may_check_once(&loop->part[q], o->step[q], address))
            return q;
    return 0;
}

/*
 * An address of an inner part that begins at its base and a constant: the check of the base in front of part p is
 * enough. Each round of p makes the access at the first place.
 */
static void plan_implied(struct outlook *o, unsigned p, unsigned i) {
    struct loop *loop = &o->t->loop;
    struct address first = o->address[i];
    unsigned q = part_with_constant(o, p, i);
    if (!q || first.base == CPU_NO_REGISTER || loop->part[q].check_count == LOOP_CHECKS)
        return;
    int64_t constant = (int64_t)o->entry[q].value[first.index];
    if (constant < -WINDOW_REACH || constant > WINDOW_REACH)
        return;
    first.displacement += constant * first.scale;
    first.index = CPU_NO_REGISTER;
    unsigned group = loop_group_at(loop, loop->part[p].first, &first),
             wanted = o->form[i] == FORM_B ? WINDOW_B : WINDOW_A;
    if (!is_near(&first) || !may_check_once(&loop->part[p], o->step[p], &first) ||
        (group != wanted && (group != WINDOW_GROUPS || !add_check(&loop->part[p], &first, o->form[i], false))))
        return;
    add_check(&loop->part[q], &o->address[i], o->form[i], true);
}

/* For parts whose checks have not been refused. */
static void plan_checks(struct outlook *o, unsigned p) {
    struct loop *loop = &o->t->loop;
    struct loop_part *part = &loop->part[p];
    uint64_t physical = o->t->block->physical + part->first;
    if (!part->has_one_entry || engine_site_form_at(o->t->engine, engine_loop_site(physical)) == FORM_SOFT)
        return;
    for (unsigned i = 0; i < o->address_count; i++) {
        const struct address *address = &o->address[i];
        if (!loop_part_holds(part, o->place[i]) || (o->form[i] != FORM_A && o->form[i] != FORM_B) ||
            !is_near(address) || loop_group_at(loop, o->place[i], address) != WINDOW_GROUPS)
            continue;
        if (may_check_once(part, o->step[p], address))
            add_check(part, address, o->form[i], false);
        else
            plan_implied(o, p, i);
    }
}

/* Straight parts with accesses in group B have the addend at hand. */
static void plan_addends(struct outlook *o) {
    struct loop *loop = &o->t->loop;
    for (unsigned p = 0; p < loop->part_count; p++)
        for (unsigned i = 0; i < o->address_count; i++)
            loop->part[p].wants_addend_b |= loop->part[p].is_straight && loop_part_holds(&loop->part[p], o->place[i]) &&
                                            is_near(&o->address[i]) &&
                                            loop_group_at(loop, o->place[i], &o->address[i]) == WINDOW_B;
}

/* Wide parts first. */
void loop_plan_checks(struct outlook *o) {
    const struct loop *loop = &o->t->loop;
    uint32_t done = 0;
    for (unsigned n = 0; n < loop->part_count; n++) {
        unsigned widest = LOOP_PARTS;
        for (unsigned p = 0; p < loop->part_count; p++)
            if (!(done >> p & 1) && (widest == LOOP_PARTS || loop->part[p].last - loop->part[p].first >
                                                                 loop->part[widest].last - loop->part[widest].first))
                widest = p;
        done |= 1u << widest;
        plan_checks(o, widest);
    }
    plan_addends(o);
}

/* Registers whose one use in a straight part is to be the base of addresses in group B: with the addend on them, these
   are host addresses. */
static void plan_bias(struct outlook *o, unsigned p) {
    struct loop *loop = &o->t->loop;
    struct loop_part *part = &loop->part[p];
    uint32_t bases = 0, others = o->plain[p] | 1u << CPU_RSP;
    if (!part->wants_addend_b)
        return;
    for (unsigned i = 0; i < o->address_count; i++) {
        const struct address *address = &o->address[i];
        if (!loop_part_holds(part, o->place[i]) || address->base == CPU_NO_REGISTER)
            continue;
        bool is_in_b = is_near(address) && loop_group_at(loop, o->place[i], address) == WINDOW_B;
        *(is_in_b ? &bases : &others) |= 1u << address->base;
    }
    part->biased = (uint16_t)(bases & ~others);
}

/* Where the loop has accesses in group B, T keeps the addend: as a load it would come before each first access of a part. */
void loop_plan_bias(struct outlook *o) {
    for (unsigned i = 0; i < o->address_count; i++)
        o->t->loop.keeps_addend |= o->form[i] == FORM_B;
    for (unsigned p = 0; p < o->t->loop.part_count; p++)
        plan_bias(o, p);
}
