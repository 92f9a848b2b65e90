/*
 * Control flow. Exits within a page are patched to jump straight to their block (find.c); exits to other pages and
 * indirect ones look into the view's jump cache, which knows the current address space. Calls use the host's CALL on the
 * shadow stack, returns the host's RET, and the return site checks that the guest really came back to it. Every cycle
 * has a poll: backward branches and indirect ones look at hot.run, which is 0 when something is pending.
 */
#include "memory/window.h"
#include "translator/translation.h"

/* A block of one instruction always ends in C, which looks at what the instruction did. */
static bool may_chain(const struct translation *t) {
    return !(t->key & (MODE_TF | MODE_BREAKPOINTS | MODE_SLOW));
}

/* Whether an exit may be patched to jump to its target for good. Where the code segment has a base or a limit, it is up
   to the jump cache. */
static bool is_same_page(const struct translation *t, uint64_t target) {
    if (!(t->key & MODE_FLAT))
        return false;
    /* A block whose instruction goes on in the next page is never linked, so its exit had better not wait for that. */
    if ((target & MEMORY_PAGE_MASK) > MEMORY_PAGE - 15)
        return false;
    return ((target ^ t->start_rip) & ~MEMORY_PAGE_MASK) == 0 && t->block->second_page == BLOCK_NO_PAGE;
}

static uint64_t truncate_rip(const struct translation *t, uint64_t rip) {
    if (t->in.z->operand_width == 16)
        return rip & 0xffff;
    return (t->key & MODE_CODE) == MODE_CODE64 ? rip : rip & 0xffffffffu;
}

static uint64_t fall_through(const struct translation *t) {
    uint64_t rip = next_rip(t);
    return (t->key & MODE_CODE) == MODE_CODE64 ? rip : rip & 0xffffffffu;
}

static uint64_t branch_target(const struct translation *t) {
    return truncate_rip(t, next_rip(t) + t->in.operand[0].imm.value.u);
}

/* ---- Exits ---- */

static void emit_exit_call(struct translation *t, uint64_t target, const uint8_t *linkable) {
    emit_call(&t->e, t->engine->stubs.exit);
    struct site *site = add_site(t, SITE_EXIT);
    site->data = (int64_t)(target - t->start_rip);
    site->other = linkable && !t->e.overflow ? (uint16_t)(linkable - t->start) : 0;
}

static bool is_wide(uint64_t target) {
    return (uint64_t)(int32_t)target != target;
}

/* A way out whose stub may find the target after all: by a jump with the return address in T, as the host's predictor of
   returns would take a call for one. */
static void emit_jump_out(struct translation *t, uint64_t stub) {
    static const uint8_t lea_behind_jump[] = {0x4c, 0x8d, 0x3d, 5, 0, 0, 0};
    emit_bytes(&t->e, lea_behind_jump, sizeof lea_behind_jump);
    emit_jump(&t->e, stub);
}

/* Behind emit_cell_check, which has left a wide target in S. */
static void emit_crossing_exit(struct translation *t, uint64_t target) {
    if (!is_wide(target))
        emit_mov_immediate(&t->e, REG_S, target);
    emit_jump_out(t, t->engine->stubs.crossing);
    add_site(t, SITE_EXIT)->data = (int64_t)(target - t->start_rip);
}

static struct emit_memory jump_cell(uint64_t target, bool host) {
    int32_t offset = R_TABLE(jump) + (int32_t)(view_jump_index(target) * sizeof(struct view_jump));
    return memory_at(REG_R, offset + (host ? 8 : 0));
}

/* Goes on behind the branch that it returns when the jump cache knows the target, else here. Uses S. */
static uint8_t *emit_cell_check(struct translation *t, uint64_t target) {
    struct emit_memory cell = jump_cell(target, false), sum = memory_at(REG_A, (int32_t)target);
    if (is_wide(target)) {
        emit_mov_immediate(&t->e, REG_S, target);
        note_rip(t, target, RELOCATE_RIP);
    }
    emit_op_memory(&t->e, 0, true, 0x8b, REG_A, &cell);
    note_rip(t, target, RELOCATE_JUMP);
    if (is_wide(target))
        emit_add_lea(&t->e, REG_A, REG_S, REG_A, 0);
    else
        emit_lea(&t->e, true, REG_A, &sum);
    return emit_jrcxz(&t->e);
}

void emit_exit(struct translation *t, uint64_t target) {
    struct emitter *e = &t->e;
    if (!may_chain(t)) {
        emit_exit_call(t, target, NULL);
    } else if (is_same_page(t, target)) {
        uint8_t *linkable = emit_jump_patchable(e, 0);
        emit_exit_call(t, target, linkable);
    } else {
        uint8_t *hit = emit_cell_check(t, target), *miss = emit_jump_short(e);
        emit_here(e, hit);
        struct emit_memory cell = jump_cell(target, true);
        emit_op_memory(e, 0, false, 0xff, 4, &cell);
        note_rip(t, target, RELOCATE_JUMP);
        emit_here(e, miss); /* behind what runs often */
        emit_crossing_exit(t, target);
    }
}

void emit_shadowed_exit(struct translation *t, uint64_t target) {
    emit_exit_call(t, target, NULL);
    t->sites[t->site_count - 1].info = 1;
}

/* What C must add to the stack pointer where S is no address at all, so that the branch has not happened. */
static int64_t moved_stack(const struct translation *t) {
    if (t->in.rule.kind == RULE_CALL)
        return t->in.z->operand_width / 8;
    return t->in.rule.kind == RULE_RET ? -(int64_t)t->block->released : 0;
}

/* Leaves for S. */
static void emit_indirect_exit(struct translation *t) {
    emit_call(&t->e, t->engine->stubs.indirect);
    add_site(t, SITE_INDIRECT)->data = moved_stack(t);
}

/* The same behind emit_lookup. */
static void emit_missed_exit(struct translation *t) {
    emit_jump_out(t, t->engine->stubs.missed);
    add_site(t, SITE_INDIRECT)->data = moved_stack(t);
}

static struct late_exit *add_late(struct translation *t, uint64_t target) {
    struct late_exit *late = &t->late[t->late_count++];
    *late = (struct late_exit){.target = target};
    return late;
}

/* Those from number `first` on, or of them those of polls alone, which must be near. */
static void emit_pending_exits(struct translation *t, unsigned first, bool polls_only) {
    for (unsigned i = first; i < t->late_count; i++) {
        struct late_exit *late = &t->late[i];
        if (late->is_emitted || (polls_only && !late->branch))
            continue;
        late->is_emitted = true;
        uint8_t *label = late->leaves_loop ? loop_label(t, late->target) : NULL;
        if (label && !late->biased) {
            emit_jump_to(late->call + 4, label);
            continue;
        }
        if (late->branch)
            emit_here(&t->e, late->branch);
        if (late->second)
            emit_here(&t->e, late->second);
        if (late->call)
            emit_jump_here(&t->e, late->call + 4);
        loop_unbias(t, late->biased);
        if (label) {
            emit_jump(&t->e, (uint64_t)label + (uint64_t)t->e.delta);
        } else if (late->leaves_loop) { /* only then to where the exit leads */
            loop_leave(t);
            emit_exit(t, late->target);
        } else if (late->is_poll) {
            loop_leave(t);
            emit_exit_call(t, late->target, NULL);
        } else if (late->is_full) {
            emit_exit(t, late->target);
        } else if (late->is_indirect) {
            (late->call ? emit_missed_exit : emit_indirect_exit)(t);
        } else if (late->call && !late->linkable) {
            emit_crossing_exit(t, late->target);
        } else {
            emit_exit_call(t, late->target, late->linkable);
        }
    }
}

void emit_late_exits(struct translation *t) {
    emit_pending_exits(t, 0, true);
    emit_pending_exits(t, 0, false);
}

/* Whether the code may be worth a window and should be made again for it (cpu/window.c). */
static bool counts_polls(const struct translation *t) {
    const uint32_t flat32 = MODE_CODE32 | MODE_STACK32 | MODE_FLAT;
    bool is_supervisor = (t->key & (MODE_CPL | MODE_PROTECTED)) == MODE_PROTECTED;
    if ((t->key & (MODE_WINDOW | MODE_VM86)) || t->cpu->windows != CPU_WINDOWS_AUTO ||
        !(is_supervisor || (t->key & MODE_CPL) == MODE_CPL))
        return false;
    return (t->key & MODE_CODE) == MODE_CODE64 || (t->key & (MODE_CODE | MODE_STACK32 | MODE_FLAT)) == flat32;
}

/* Leaves for rip, or for S, when hot.run is 0, or when enough polls have been counted. */
static struct late_exit *emit_poll(struct translation *t, uint64_t rip) {
    struct emitter *e = &t->e;
    emit_load32(e, REG_A, R_STATE(hot.run));
    struct late_exit *late = add_late(t, rip);
    late->branch = emit_jrcxz(e);
    if (counts_polls(t)) {
        struct emit_memory less = memory_at(REG_A, -1);
        emit_load32(e, REG_A, R_STATE(hot.countdown));
        emit_lea(e, false, REG_A, &less);
        emit_store32(e, R_STATE(hot.countdown), REG_A);
        late->second = emit_jrcxz(e);
    }
    return late;
}

static bool needs_poll(const struct translation *t, uint64_t target) {
    return target <= t->in.rip && may_chain(t) && !t->skips_poll;
}

static void emit_branch_operand(struct translation *t, const ZydisDecodedOperand *operand);
static void emit_indirect_jump(struct translation *t);

/* ---- Direct branches ---- */

enum { ALWAYS = 16 };

/* A branch of 32 bits. */
static void emit_branch(struct emitter *e, unsigned condition, uint64_t to) {
    if (condition == ALWAYS)
        emit_jump(e, to);
    else
        emit_jcc(e, condition, to);
}

/* The same behind a poll in a loop, whose end may be far. */
static void emit_polled_branch(struct translation *t, unsigned condition, uint64_t to) {
    struct emitter *e = &t->e;
    emit_load32(e, REG_A, R_STATE(hot.run));
    uint8_t *is_pending = emit_jrcxz(e), *over = NULL;
    emit_branch(e, condition, to);
    uint8_t *branched = e->at;
    if (condition != ALWAYS) {
        emit_u8(e, 0xeb);
        emit_u8(e, 0);
        over = e->at;
    }
    emit_here(e, is_pending);
    emit_jump(e, emit_address(e));
    struct late_exit *late = add_late(t, t->in.rip);
    late->call = e->at - 4;
    late->is_poll = true;
    late->biased = t->loop.biased;
    if (over)
        emit_here(e, over);
    t->loop.branched = branched;
}

/* Forward in a loop, or out of it, which emit_late_exits finds out. */
static void emit_loop_exit(struct translation *t, unsigned condition, uint64_t target) {
    emit_branch(&t->e, condition, emit_address(&t->e));
    struct late_exit *late = add_late(t, target);
    late->call = t->e.at - 4;
    late->leaves_loop = true;
    late->biased = t->loop.biased;
}

/* Within a loop: to another place in it, or out of it with the registers put back. */
static void translate_loop_branch(struct translation *t, unsigned condition, uint64_t target) {
    struct emitter *e = &t->e;
    if (target <= t->in.rip && loop_repeats(t)) {
        if (condition != ALWAYS)
            emit_loop_exit(t, condition ^ 1, fall_through(t));
        return;
    }
    bool is_last = loop_is_last(t), has_poll = needs_poll(t, target) && !loop_is_bounded(t, target);
    uint8_t *to = loop_target(t, target);
    uint64_t host = to ? (uint64_t)to + (uint64_t)e->delta : emit_address(e);
    if (has_poll)
        emit_polled_branch(t, condition, host);
    else
        emit_branch(e, condition, host);
    if (!to) { /* forward, or out of the loop, which emit_late_exits finds out */
        struct late_exit *late = add_late(t, target);
        late->call = (has_poll ? t->loop.branched : e->at) - 4;
        late->leaves_loop = true;
        late->biased = t->loop.biased;
    }
    loop_part_end(t, condition != ALWAYS);
    if (condition == ALWAYS)
        forget_checks(t);
    if (!is_last)
        return;
    if (condition != ALWAYS)
        loop_leave(t);
    loop_end(t);
    t->ended = true;
    if (condition != ALWAYS)
        emit_exit(t, fall_through(t));
}

void translate_jump(struct translation *t) {
    const ZydisDecodedOperand *operand = &t->in.operand[0];
    if (t->loop.is_found) {
        translate_loop_branch(t, ALWAYS, branch_target(t));
        return;
    }
    t->ended = true;
    hold_stack(t);
    if (operand->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        uint64_t target = branch_target(t);
        if (needs_poll(t, target))
            emit_poll(t, target);
        emit_exit(t, target);
        return;
    }
    emit_branch_operand(t, operand);
    if (!may_chain(t)) {
        emit_indirect_exit(t);
        return;
    }
    if (!t->skips_poll)
        emit_poll(t, 0)->is_indirect = true;
    emit_indirect_jump(t);
}

void translate_jcc(struct translation *t) {
    struct emitter *e = &t->e;
    unsigned condition = t->in.z->opcode & 15;
    uint64_t target = branch_target(t);
    bool has_poll = needs_poll(t, target), continues = may_chain(t) && !has_poll;
    if (t->loop.is_found) {
        translate_loop_branch(t, condition, target);
        return;
    }
    hold_stack(t);
    if (has_poll)
        emit_poll(t, t->in.rip);
    if (may_chain(t) && is_same_page(t, target)) {
        emit_align_displacement(e, 2);
        emit_jcc(e, condition, emit_address(e));
        struct late_exit *late = add_late(t, target);
        late->call = late->linkable = e->at - 4;
    } else if (may_chain(t)) {
        emit_jcc(e, condition, emit_address(e));
        struct late_exit *late = add_late(t, target);
        late->call = e->at - 4;
        late->is_full = true;
    } else {
        uint8_t *skip = emit_jcc_short(e, condition ^ 1);
        emit_exit(t, target);
        emit_here(e, skip);
    }
    if (continues)
        return;
    t->ended = true; /* the exits of polls must be near */
    emit_exit(t, fall_through(t));
}

void translate_loop(struct translation *t) {
    struct emitter *e = &t->e;
    uint64_t target = branch_target(t);
    unsigned width = t->in.z->address_width, count = t->home[CPU_RCX];
    ZydisMnemonic mnemonic = t->in.z->mnemonic;
    bool is_loop = mnemonic == ZYDIS_MNEMONIC_LOOP || mnemonic == ZYDIS_MNEMONIC_LOOPE ||
                   mnemonic == ZYDIS_MNEMONIC_LOOPNE;
    t->ended = true;
    hold_stack(t);
    if (needs_poll(t, target))
        emit_poll(t, t->in.rip);
    if (is_loop) {
        struct emit_memory less = memory_at(count, -1);
        if (width == 16) {
            emit_lea(e, false, REG_A, &less);
            emit_op_register(e, 0x66, false, 0x8b, count, REG_A);
        } else {
            emit_lea(e, width == 64, count, &less);
        }
    }
    if (width == 16)
        emit_zero_extend16(e, REG_A, count);
    else if (width == 32)
        emit_mov32(e, REG_A, count);
    else
        emit_mov(e, REG_A, count);

    uint8_t *is_zero = emit_jrcxz(e);
    if (!is_loop) {
        emit_exit(t, fall_through(t));
        emit_here(e, is_zero);
        emit_exit(t, target);
        return;
    }
    uint8_t *other = NULL;
    if (mnemonic != ZYDIS_MNEMONIC_LOOP)
        other = emit_jcc_short(e, mnemonic == ZYDIS_MNEMONIC_LOOPE ? 5 : 4);
    emit_exit(t, target);
    emit_here(e, is_zero);
    if (other)
        emit_here(e, other);
    emit_exit(t, fall_through(t));
}

/* ---- Indirect branches ---- */

static void emit_branch_operand(struct translation *t, const ZydisDecodedOperand *operand) {
    struct emitter *e = &t->e;
    unsigned width = t->in.z->operand_width;
    if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        struct emit_memory place = emit_operand(t, operand, MEMORY_READ);
        if (width == 16)
            emit_op_memory(e, 0, false, 0x0fb7, REG_S, &place);
        else
            emit_op_memory(e, 0, width == 64, 0x8b, REG_S, &place);
        return;
    }
    bool high;
    unsigned from = emit_guest(t, decode_gpr(operand->reg.value, &high), REG_S);
    if (width == 16)
        emit_zero_extend16(e, REG_S, from);
    else if (width == 32)
        emit_mov32(e, REG_S, from);
    else if (from != REG_S)
        emit_mov(e, REG_S, from);
}

/* The branch is taken where the jump cache knows S. T = its index there, in units of 8 bytes. */
static uint8_t *emit_lookup(struct translation *t) {
    struct emitter *e = &t->e;
    struct emit_memory cell = memory_indexed(REG_R, REG_T, 8, R_TABLE(jump[0].negative_target));
    emit_jump_index(e, REG_T);
    forget_addend(t);
    emit_op_memory(e, 0, true, 0x8b, REG_A, &cell);
    emit_add_lea(e, REG_A, REG_S, REG_A, 0);
    return emit_jrcxz(e);
}

/* Behind emit_lookup. form: 4 JMP, 2 CALL. */
static void emit_lookup_jump(struct translation *t, unsigned form) {
    struct emit_memory cell = memory_indexed(REG_R, REG_T, 8, R_TABLE(jump[0].host));
    emit_op_memory(&t->e, 0, false, 0xff, form, &cell);
}

/* Goes to S. */
static void emit_indirect_jump(struct translation *t) {
    struct emitter *e = &t->e;
    uint8_t *hit = emit_lookup(t), *miss = emit_jump_short(e);
    emit_here(e, hit);
    emit_lookup_jump(t, 4);
    emit_here(e, miss);
    emit_missed_exit(t);
}

/* ---- Calls and returns ---- */

/*
 * User code in a window comes to a return site by a RET whose access was made in group A alone: behind it the stack pointer
 * is known to be there.
 */
static bool has_known_stack(const struct translation *t) {
    return (t->key & MODE_WINDOW) && (t->key & MODE_CODE) == MODE_CODE64 && (t->key & MODE_CPL) == MODE_CPL;
}

/* Where a host RET arrives: S must be the address behind the guest's CALL. The block goes on there. */
static void emit_return_site(struct translation *t, uint64_t expected, unsigned first_late) {
    struct emitter *e = &t->e;
    struct site *site = add_site(t, SITE_RETURN);
    site->data = (int64_t)(expected - t->start_rip);
    uint64_t negative = -expected;
    bool is_64 = (t->key & MODE_CODE) == MODE_CODE64;
    if (!is_64 || (uint64_t)(int32_t)negative == negative) {
        struct emit_memory difference = memory_at(REG_S, (int32_t)negative);
        if (difference.displacement >= -128 && difference.displacement <= 127)
            emit_bytes(e, (const uint8_t[]){0x0f, 0x1f, 0x00}, 3); /* room for the patch that voids the site */
        emit_lea(e, is_64, REG_A, &difference);
    } else {
        emit_mov_immediate(e, REG_A, negative);
        note_rip(t, expected, RELOCATE_MINUS_RIP);
        emit_add_lea(e, REG_A, REG_S, REG_A, 0);
    }
    uint8_t *same = emit_jrcxz(e);
    emit_call(e, t->engine->stubs.returned);
    emit_pending_exits(t, first_late, false);
    emit_here(e, same);
    forget_checks(t);
    if (has_known_stack(t)) {
        t->checked[WINDOW_A] = 1u << CPU_RSP;
        t->drift[CPU_RSP] = UINT16_MAX + 8; /* of RET */
        _Static_assert(UINT16_MAX + 16 < WINDOW_STACK_SLACK, "a RET leaves the stack pointer near");
    }
    t->written = ~0u;
    t->constants = 0;
}

static void emit_direct_call(struct translation *t, uint64_t target) {
    struct emitter *e = &t->e;
    if (needs_poll(t, target))
        emit_poll(t, target);
    if (!may_chain(t)) {
        emit_exit_call(t, target, NULL);
        return;
    }
    if (is_same_page(t, target)) {
        emit_align_displacement(e, 1);
        emit_call(e, emit_address(e));
        struct late_exit *late = add_late(t, target);
        late->call = late->linkable = e->at - 4;
        return;
    }
    uint8_t *hit = emit_cell_check(t, target);
    emit_call(e, emit_address(e));
    add_late(t, target)->call = e->at - 4;
    emit_u8(e, 0xeb);
    emit_u8(e, 0);
    uint8_t *site = e->at;
    emit_here(e, hit);
    struct emit_memory cell = jump_cell(target, true);
    emit_op_memory(e, 0, false, 0xff, 2, &cell);
    note_rip(t, target, RELOCATE_JUMP);
    emit_here(e, site);
}

static void emit_indirect_call(struct translation *t) {
    struct emitter *e = &t->e;
    if (!may_chain(t)) {
        emit_indirect_exit(t);
        return;
    }
    uint8_t *hit = emit_lookup(t);
    emit_call(e, emit_address(e));
    struct late_exit *late = add_late(t, 0);
    late->is_indirect = true;
    late->call = e->at - 4;
    emit_u8(e, 0xeb);
    emit_u8(e, 0);
    uint8_t *site = e->at;
    emit_here(e, hit);
    emit_lookup_jump(t, 2);
    emit_here(e, site);
}

static bool is_stack_pointer(const ZydisDecodedOperand *operand) {
    bool high;
    return decode_gpr(operand->reg.value, &high) == CPU_RSP;
}

void translate_call(struct translation *t) {
    struct emitter *e = &t->e;
    const ZydisDecodedOperand *operand = &t->in.operand[0];
    unsigned bytes = t->in.z->operand_width / 8;
    uint64_t next = truncate_rip(t, next_rip(t));
    enum { TARGET_SLOT = 3 };
    int32_t target_slot = R_STATE(hot.scratch) + 8 * TARGET_SLOT;
    unsigned first_late = t->late_count;
    t->ended = !may_chain(t);
    hold_stack_by_access(t);
    bool is_direct = operand->type == ZYDIS_OPERAND_TYPE_IMMEDIATE, is_saved = false;
    bool is_pushed_first = operand->type == ZYDIS_OPERAND_TYPE_REGISTER && !is_stack_pointer(operand);
    if (!is_direct && !is_pushed_first) {
        emit_branch_operand(t, operand);
        is_saved = !pushes_beside_s(t);
        if (is_saved)
            emit_store(e, target_slot, REG_S);
    }
    emit_push_constant(t, next, bytes);
    if (is_direct) {
        emit_direct_call(t, branch_target(t));
    } else {
        if (is_pushed_first)
            emit_branch_operand(t, operand);
        else if (is_saved)
            emit_load(e, REG_S, target_slot);
        if (may_chain(t) && !t->skips_poll)
            emit_poll(t, 0)->is_indirect = true;
        emit_indirect_call(t);
    }
    if (may_chain(t))
        emit_return_site(t, next, first_late);
}

void translate_ret(struct translation *t) {
    unsigned release = t->in.z->raw.imm[0].size ? (unsigned)t->in.z->raw.imm[0].value.u & 0xffff : 0;
    t->ended = true;
    hold_stack_by_access(t);
    emit_pop_to_s(t, t->in.z->operand_width / 8, release);
    t->block->released = (uint16_t)(t->in.z->operand_width / 8 + release);
    if ((t->key & MODE_CODE) == MODE_CODE64) {
        emit_mov_immediate(&t->e, REG_T, (uint64_t)t->block); /* for engine_indirect: whose RET it was */
        note_pointer(t, t->block, RELOCATE_BLOCK);
    }
    bool is_elsewhere = !uses_window(t) || !(t->checked[WINDOW_A] & (1u << CPU_RSP));
    if (may_chain(t) && has_known_stack(t) && is_elsewhere) {
        emit_poll(t, 0)->is_indirect = true;
        emit_indirect_jump(t);
        return;
    }
    if (may_chain(t))
        emit_u8(&t->e, 0xc3);
    else
        emit_call(&t->e, t->engine->stubs.indirect);
}
