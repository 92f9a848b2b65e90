/*
 * REP MOVS and REP STOS: the host's own instruction, on host addresses for as long as it takes. In a window the host's MMU
 * is the judge of each element; with the software tables both operands are looked up in front, and what is not whole in a
 * page each, or runs downwards, goes to the C function.
 */
#include "memory/view.h"
#include "translator/translation.h"

static const uint8_t not_s[] = {0x49, 0xf7, 0xd3}, not_t[] = {0x49, 0xf7, 0xd7}; /* not r11; not r15 */

static unsigned count_shift(const struct translation *t) {
    unsigned bits = t->in.operand[0].size;
    return bits == 64 ? 3 : bits == 32 ? 2 : bits == 16 ? 1 : 0;
}

/* rdi += T, rsi += S, A = count, the instruction, and everything back; the site is for faults in the middle. */
static void emit_on_host(struct translation *t, bool is_move, const struct site *faults) {
    struct emitter *e = &t->e;
    emit_mov(e, REG_A, t->home[CPU_RCX]);
    emit_index_shift(t, HOST_RDI, REG_T, false);
    if (is_move)
        emit_index_shift(t, HOST_RSI, REG_S, false);
    if (faults) {
        struct site *site = add_site(t, SITE_REPEATED);
        site->other = faults->other;
        site->info = is_move;
    }
    emit_u8(e, 0xf3);
    emit_string(t);
    emit_mov(e, t->home[CPU_RCX], REG_A);
    emit_bytes(e, not_t, sizeof not_t);
    emit_index_shift(t, HOST_RDI, REG_T, true);
    if (is_move) {
        emit_bytes(e, not_s, sizeof not_s);
        emit_index_shift(t, HOST_RSI, REG_S, true);
    }
}

/* The C function, and a jump over what follows. */
static uint8_t *emit_by_function(struct translation *t) {
    emit_helper(t, t->in.rule.function, false, true);
    return emit_jump_short(&t->e);
}

/* ---- In a window ---- */

/* `to` = addend of the region that the index register points into; faults later, at the instruction, if there is none. */
static void emit_index_addend(struct translation *t, unsigned to, unsigned index) {
    if ((t->key & MODE_CODE) == MODE_CODE64)
        emit_region_addend(&t->e, to, index);
    else
        emit_load(&t->e, to, R_STATE(hot.window_addend[0]));
}

/* Counts that keep the vCPU from its polls for long go to the C function. */
static uint8_t *emit_long_count(struct translation *t) {
    enum { SHORT_BITS = 21 }; /* 2 MiB */
    struct emitter *e = &t->e;
    emit_rorx(e, REG_A, t->home[CPU_RCX], SHORT_BITS - count_shift(t));
    emit_mov32(e, REG_A, REG_A);
    uint8_t *is_short = emit_jrcxz(e), *done = emit_by_function(t);
    emit_here(e, is_short);
    return done;
}

/* engine_fault knows the instruction by its site, turns the registers back, and runs what is left of it again. */
static void emit_in_window(struct translation *t, bool is_move) {
    const struct site faults = {.other = host_offset(t)};
    uint8_t *done = emit_long_count(t);
    emit_index_addend(t, REG_T, HOST_RDI);
    if (is_move)
        emit_index_addend(t, REG_S, HOST_RSI);
    emit_on_host(t, is_move, &faults);
    emit_here(&t->e, done);
}

/* ---- With the software tables ---- */

/* T = index of the page that the index register points into. */
static void emit_table_index(struct translation *t, unsigned index) {
    emit_bits16(&t->e, REG_T, index, 12);
}

/* `to` = S + the pages that the operand's last byte is away from the page. */
static void emit_check_operand(struct translation *t, unsigned to, unsigned index, int32_t tags) {
    struct emitter *e = &t->e;
    struct emit_memory tag = memory_indexed(REG_R, REG_T, 8, tags);
    struct emit_memory last = memory_indexed(REG_A, t->home[CPU_RCX], 1u << count_shift(t), 0);
    emit_table_index(t, index);
    emit_op_memory(e, 0, true, 0x8b, REG_A, &tag);
    emit_add_lea(e, REG_A, REG_A, index, -1);
    emit_lea(e, true, REG_A, &last);
    emit_page_number(e, REG_A);
    emit_add_lea(e, to, REG_S, REG_A, 0);
}

/* S = DF + (the count - 1) / 4096: with what the operands add, a sum that does not wrap, and 0 where all is well. A count
   that gets through is of VIEW_REACH pages at most. */
static void emit_check_count(struct translation *t) {
    static const uint8_t flags_to_s[] = {0x9c, 0x41, 0x5b}; /* pushfq; pop r11 */
    struct emitter *e = &t->e;
    const struct emit_memory less = memory_at(t->home[CPU_RCX], -1);
    emit_bytes(e, flags_to_s, sizeof flags_to_s);
    emit_mov_immediate(e, REG_A, FLAG_DF);
    emit_keep(e, REG_S, REG_A);
    emit_lea(e, true, REG_A, &less);
    emit_page_number(e, REG_A);
    emit_add_lea(e, REG_S, REG_S, REG_A, 0);
}

static void emit_by_tables(struct translation *t, bool is_move) {
    struct emitter *e = &t->e;
    struct emit_memory addend = memory_indexed(REG_R, REG_T, 8, R_TABLE(addend));
    forget_addend(t); /* T is an index */
    emit_check_count(t);
    emit_mov(e, REG_A, t->home[CPU_RCX]);
    uint8_t *is_nothing = emit_jrcxz(e);
    emit_check_operand(t, is_move ? REG_S : REG_A, HOST_RDI, R_TABLE(write_tag));
    if (is_move)
        emit_check_operand(t, REG_A, HOST_RSI, R_TABLE(read_tag));
    uint8_t *is_good = emit_jrcxz(e), *done = emit_by_function(t);
    emit_here(e, is_good);
    if (is_move) {
        emit_op_memory(e, 0, true, 0x8b, REG_S, &addend);
        emit_table_index(t, HOST_RDI);
    }
    emit_op_memory(e, 0, true, 0x8b, REG_T, &addend);
    emit_here(e, is_nothing); /* whatever S and T are, no element is touched */
    emit_on_host(t, is_move, NULL);
    emit_here(e, done);
}

bool translate_repeated(struct translation *t) {
    const ZydisInstructionAttributes repeats = ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE;
    const uint32_t never = MODE_SLOW | MODE_TF | MODE_BREAKPOINTS | MODE_ALIGNMENT;
    bool is_move = t->in.rule.function == cpu_op_movs;
    if (!(t->in.z->attributes & repeats) || (t->in.z->attributes & ZYDIS_ATTRIB_HAS_SEGMENT) ||
        (!is_move && t->in.rule.function != cpu_op_stos) || t->in.z->address_width != code_bits(t->key))
        return false;
    bool is_plain = (t->key & MODE_FLAT) && !(t->key & never) && code_bits(t->key) != 16;
    if (uses_window(t))
        emit_in_window(t, is_move);
    else if (is_plain && !t->e.lacks_bmi2) /* without it the code is too long for its branches */
        emit_by_tables(t, is_move);
    else
        return false;
    return true;
}
