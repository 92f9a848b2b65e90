/*
 * What is known of guest registers within a block: which of them point into a group's regions of a window, and how far they
 * may have moved since; constants; small values (bounds.c). In blocks made with MODE_NEAR_STACK also that the stack pointer
 * stays where the next block expects it. Containment depends on it.
 */
#include "memory/window.h"
#include "translator/translation.h"

int64_t step_of(const struct translation *t, unsigned guest, const ZydisDecodedOperand *written) {
    const struct instruction *in = &t->in;
    const ZydisDecodedOperand *second = &in->operand[1];
    if (written->size != 64 || in->variable)
        return WINDOW_REACH;
    bool is_by_constant = written == &in->operand[0] && second->type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
    switch (in->z->mnemonic) {
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_SUB:
        return is_by_constant ? second->imm.value.s : WINDOW_REACH;
    case ZYDIS_MNEMONIC_AND: /* with a small negative number: alignment */
        return is_by_constant && second->imm.value.s < 0 ? second->imm.value.s : WINDOW_REACH;
    case ZYDIS_MNEMONIC_INC:
    case ZYDIS_MNEMONIC_DEC:
        return 1;
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_POP:
    case ZYDIS_MNEMONIC_CALL: /* what it knows of the stack behind it is the return site's */
        return guest == CPU_RSP && written->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN ? 8 : WINDOW_REACH;
    default:
        return WINDOW_REACH;
    }
}

/* In blocks made with MODE_NEAR_STACK the stack pointer keeps what is known of it: no loop there moves it. */
void forget_checks(struct translation *t) {
    uint16_t kept = t->key & MODE_NEAR_STACK ? 1u << CPU_RSP : 0;
    t->checked[WINDOW_A] &= kept;
    t->checked[WINDOW_B] = 0;
    t->has_addend_b = t->loop.is_found && t->loop.keeps_addend;
    t->tabled = 0;
    t->bounded = 0;
}

void know_stack(struct translation *t) {
    if (!(t->key & MODE_NEAR_STACK))
        return;
    t->checked[WINDOW_A] = 1u << CPU_RSP;
    t->drift[CPU_RSP] = WINDOW_STACK_SLACK;
}

static bool is_stack_near(const struct translation *t) {
    return (t->checked[WINDOW_A] & (1u << CPU_RSP)) && t->drift[CPU_RSP] <= WINDOW_STACK_SLACK;
}

bool may_stray(const struct translation *t) {
    return (t->key & MODE_NEAR_STACK) && t->stack_has_moved && !is_stack_near(t);
}

static void check_stack(struct translation *t) {
    emit_check(t, t->home[CPU_RSP], WINDOW_A);
    t->checked[WINDOW_A] |= 1u << CPU_RSP;
    t->checked[WINDOW_B] &= (uint16_t)~(1u << CPU_RSP);
    t->tabled &= (uint16_t)~(1u << CPU_RSP);
    t->drift[CPU_RSP] = (uint32_t)(t->stack < 0 ? -t->stack : t->stack);
}

void hold_stack(struct translation *t) {
    if (may_stray(t))
        check_stack(t);
}

void hold_stack_by_access(struct translation *t) {
    bool is_proof = uses_window(t) && (t->checked[WINDOW_A] & (1u << CPU_RSP));
    if ((t->key & MODE_NEAR_STACK) && !is_proof)
        check_stack(t);
}

static void note_step(struct translation *t, unsigned guest, int64_t step) {
    enum { DRIFT = WINDOW_REACH / 2 };
    t->stack_has_moved |= guest == CPU_RSP;
    t->bounded &= (uint16_t)~(1u << guest);
    t->written |= 1u << guest;
    t->constants &= ~(1u << guest);
    if (step <= -DRIFT || step >= DRIFT || t->drift[guest] > DRIFT) {
        t->checked[WINDOW_A] &= (uint16_t)~(1u << guest);
        t->checked[WINDOW_B] &= (uint16_t)~(1u << guest);
        t->tabled &= (uint16_t)~(1u << guest);
    } else {
        t->drift[guest] += (uint32_t)(step < 0 ? -step : step);
    }
}

static void note_constant(struct translation *t) {
    const ZydisDecodedOperand *to = &t->in.operand[0], *from = &t->in.operand[1];
    bool high;
    if (t->in.variable || t->in.z->mnemonic != ZYDIS_MNEMONIC_MOV || to->type != ZYDIS_OPERAND_TYPE_REGISTER ||
        from->type != ZYDIS_OPERAND_TYPE_IMMEDIATE || to->size < 32)
        return;
    unsigned guest = decode_gpr(to->reg.value, &high);
    t->constants |= 1u << guest;
    t->constant[guest] = to->size == 32 ? (uint32_t)from->imm.value.u : from->imm.value.u;
}

/* What is no longer known of the registers that the instruction has written. */
static void note_writes(struct translation *t) {
    if (t->in.rule.kind == RULE_HELPER)
        forget_checks(t); /* the C function may have changed more than registers */
    const struct copy_template *template = t->in.template;
    if (template && template->size && !template->sets_constant &&
        !((t->checked[WINDOW_A] | t->checked[WINDOW_B] | t->tabled) & template->written)) {
        t->written |= template->written;
        t->constants &= ~(uint32_t)template->written;
        t->bounded &= (uint16_t)~template->written;
        return;
    }
    for (unsigned i = 0; i < t->in.z->operand_count; i++) {
        const ZydisDecodedOperand *operand = &t->in.operand[i];
        bool high;
        unsigned guest = operand->type == ZYDIS_OPERAND_TYPE_REGISTER ? decode_gpr(operand->reg.value, &high)
                                                                     : CPU_NO_REGISTER;
        if (guest != CPU_NO_REGISTER && (operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            note_step(t, guest, step_of(t, guest, operand));
    }
    note_constant(t);
}

void note_written(struct translation *t) {
    unsigned guest;
    uint32_t most;
    if ((t->key & MODE_WINDOW) && (t->key & MODE_CPL))
        guess_next(t);
    bool is_bounded = (t->key & (MODE_WINDOW | MODE_CODE)) == (MODE_WINDOW | MODE_CODE64) && find_bound(t, &guest, &most);
    note_writes(t);
    if (is_bounded) {
        t->bounded |= (uint16_t)(1u << guest);
        t->most[guest] = most;
    }
}
