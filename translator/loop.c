/*
 * Code of loops as loop_plan.c has planned them, for windows (32-bit code has the first point alone):
 *
 * - branches within the loop are jumps within the block;
 * - addresses are checked in front of the part of the loop that uses them;
 * - guest registers that usually live in memory trade places with ones that the loop uses less.
 *
 * Ways out put the registers back; a host fault finds in the block where they are.
 */
#include <string.h>

#include "memory/window.h"
#include "translator/translation.h"

static unsigned offset_of(const struct translation *t) {
    return (unsigned)(t->in.rip - t->start_rip);
}

/* ---- Checks ---- */

static bool is_same_sum(const struct loop_check *check, const struct address *address) {
    return check->base == address->base && check->index == address->index &&
           (check->scale == address->scale || address->index == CPU_NO_REGISTER);
}

unsigned loop_group_at(const struct loop *loop, unsigned offset, const struct address *address) {
    for (unsigned p = 0; p < loop->part_count; p++) {
        const struct loop_part *part = &loop->part[p];
        for (unsigned i = 0; i < part->check_count && offset >= part->first && offset <= part->last; i++)
            if (is_same_sum(&part->check[i], address))
                return part->check[i].group;
    }
    return WINDOW_GROUPS;
}

unsigned loop_group(const struct translation *t, const struct address *address) {
    if (!t->loop.is_found || !loop_makes_access(&t->in))
        return WINDOW_GROUPS;
    return loop_group_at(&t->loop, offset_of(t), address);
}

/* A loop does not move the stack pointer in blocks that know it to be near. */
static bool is_near_stack(const struct translation *t, const struct loop_check *check) {
    return (t->key & MODE_NEAR_STACK) && (t->checked[WINDOW_A] & (1u << CPU_RSP)) && check->base == CPU_RSP &&
           check->index == CPU_NO_REGISTER && check->group == WINDOW_A;
}

static void emit_checks(struct translation *t, const struct loop_part *part) {
    struct block_loop *loop = t->block->loop;
    struct block_check *range = &loop->check[loop->check_count];
    *range = (struct block_check){.start = host_offset(t), .guest = part->first};
    for (unsigned i = 0; i < part->check_count; i++) {
        const struct loop_check *check = &part->check[i];
        if (check->is_implied || is_near_stack(t, check))
            continue;
        struct address sum = {.base = check->base, .index = check->index, .scale = check->scale, .size = 8};
        emit_offset(t, &sum);
        emit_check(t, REG_S, check->group);
    }
    range->end = host_offset(t);
    if (range->end > range->start)
        loop->check_count++;
}

/* ---- Rounds ---- */

static int32_t swapped_slot(unsigned i) {
    return R_STATE(hot.swapped) + 8 * (int32_t)i;
}

static void load_addend(struct translation *t) {
    emit_load(&t->e, REG_T, R_STATE(hot.window_addend[1]));
    t->has_addend_b = true;
}

/* Where rounds of the part begin. */
static void start_part(struct translation *t, struct loop_part *part) {
    if (!t->loop.keeps_addend)
        t->has_addend_b = false;
    if (part->wants_addend_b && !t->has_addend_b)
        load_addend(t);
    for (unsigned guest = 0; guest < CPU_REGISTERS; guest++) {
        if (t->home[guest] == HOST_NONE)
            part->biased &= (uint16_t)~(1u << guest);
        else if (part->biased & (1u << guest))
            emit_add_lea(&t->e, t->home[guest], t->home[guest], REG_T, 0);
    }
    t->loop.biased = part->biased;
    part->is_entered = true;
    struct block_loop *loop = t->block->loop;
    if (part->biased)
        loop->bias[loop->bias_count++] =
            (struct block_bias){.start = host_offset(t), .end = UINT16_MAX, .registers = part->biased};
    part->start = t->e.at;
}

void loop_unbias(struct translation *t, uint16_t biased) {
    static const uint8_t not_t[] = {0x49, 0xf7, 0xd7};
    if (!biased)
        return;
    if (!t->loop.keeps_addend)
        load_addend(t);
    emit_bytes(&t->e, not_t, sizeof not_t);
    for (unsigned guest = 0; guest < CPU_REGISTERS; guest++)
        if (biased & (1u << guest))
            emit_add_lea(&t->e, t->loop.home[guest], t->loop.home[guest], REG_T, 1);
    if (t->loop.keeps_addend)
        emit_bytes(&t->e, not_t, sizeof not_t);
    else
        t->has_addend_b = false;
}

static void end_bias(struct translation *t, bool falls_through) {
    if (!t->loop.biased)
        return;
    if (falls_through)
        loop_unbias(t, t->loop.biased);
    t->block->loop->bias[t->block->loop->bias_count - 1].end = host_offset(t);
    t->loop.biased = 0;
}

void loop_part_end(struct translation *t, bool falls_through) {
    for (unsigned p = 0; p < t->loop.part_count; p++)
        if (t->loop.part[p].biased && t->loop.part[p].last == offset_of(t))
            end_bias(t, falls_through);
}

bool loop_repeats(struct translation *t) {
    for (unsigned p = 0; p < t->loop.part_count; p++) {
        struct loop_part *part = &t->loop.part[p];
        if (!part->copies || part->last != offset_of(t))
            continue;
        part->copies--;
        t->loop.goes_back = true;
        t->loop.back_to = part->first;
        return true;
    }
    return false;
}

void loop_enter(struct translation *t) {
    struct block_loop *loop = t->block->loop;
    emit_checks(t, &t->loop.part[0]);
    for (unsigned i = 0; i < loop->swap_count; i++) {
        unsigned inner = loop->swap[i].inner, outer = loop->swap[i].outer, host = t->home[outer];
        emit_store(&t->e, swapped_slot(i), host);
        emit_load(&t->e, host, R_GPR(inner));
        t->home[inner] = (uint8_t)host;
        t->home[outer] = HOST_NONE;
        t->slot[outer] = swapped_slot(i);
    }
    loop->start = host_offset(t);
    memcpy(t->loop.home, t->home, sizeof t->home);
    if (t->loop.keeps_addend)
        load_addend(t);
    start_part(t, &t->loop.part[0]);
}

void loop_next(struct translation *t) {
    unsigned offset = offset_of(t);
    for (unsigned i = 0; i < t->loop.label_count && offset; i++) {
        if (t->loop.label[i].guest != offset || t->loop.label[i].host)
            continue; /* a copy is reached from above alone */
        forget_checks(t);
        t->loop.label[i].host = t->e.at;
    }
    for (unsigned p = 1; p < t->loop.part_count; p++) {
        if (t->loop.part[p].first != offset || t->loop.part[p].is_entered)
            continue;
        emit_checks(t, &t->loop.part[p]);
        start_part(t, &t->loop.part[p]);
    }
}

void loop_after(struct translation *t) {
    if (t->loop.keeps_addend && !t->has_addend_b) /* T was needed for something else */
        load_addend(t);
}

void loop_leave(struct translation *t) {
    const struct block_loop *loop = t->block->loop;
    for (unsigned i = 0; i < loop->swap_count; i++) {
        unsigned inner = loop->swap[i].inner, host = host_register[loop->swap[i].outer];
        emit_store(&t->e, R_GPR(inner), host);
        emit_load(&t->e, host, swapped_slot(i));
    }
}

void loop_break_off(struct translation *t) {
    end_bias(t, true);
    loop_leave(t);
    loop_end(t);
}

void loop_end(struct translation *t) {
    t->block->loop->end = host_offset(t);
    t->loop.is_found = false;
    forget_checks(t);
    for (unsigned i = 0; i < CPU_REGISTERS; i++) {
        t->home[i] = host_register[i];
        t->slot[i] = R_GPR(i);
    }
}

/* ---- Branches ---- */

/* A part that the branch leads back to the next round of. */
static const struct loop_part *part_continued(const struct translation *t, uint64_t target) {
    for (unsigned p = 0; p < t->loop.part_count; p++) {
        const struct loop_part *part = &t->loop.part[p];
        if (t->start_rip + part->first == target && target <= t->in.rip && offset_of(t) <= part->last)
            return part;
    }
    return NULL;
}

uint8_t *loop_label(const struct translation *t, uint64_t target) {
    for (unsigned i = 0; i < t->loop.label_count; i++)
        if (t->start_rip + t->loop.label[i].guest == target)
            return t->loop.label[i].host;
    return NULL;
}

bool loop_is_bounded(const struct translation *t, uint64_t target) {
    const struct loop_part *part = part_continued(t, target);
    return part && part->is_bounded && offset_of(t) == part->last;
}

bool loop_is_last(const struct translation *t) {
    return offset_of(t) == t->loop.part[0].last;
}

uint8_t *loop_target(struct translation *t, uint64_t target) {
    const struct loop_part *part = part_continued(t, target);
    if (t->loop.biased && (!part || !part->biased))
        return NULL; /* the addend is taken off on the way */
    if (!part)
        return target <= t->in.rip ? loop_label(t, target) : NULL;
    if (part->wants_addend_b && !t->has_addend_b)
        load_addend(t);
    return part->start;
}
