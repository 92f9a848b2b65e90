/*
 * Moves to and from segment registers. Kernels load the same selectors over and over; where a register is what its
 * descriptor says (cpu->loaded), and the descriptor in memory is still the same, a load changes nothing. So the code
 * reads it through the supervisor's shadow page tables, as the C function would, and compares. Null selectors of FS and
 * GS are loaded in place, too. Everything else is the C function's.
 */
#include "translator/translation.h"

static const uint8_t not_t[] = {0x49, 0xf7, 0xd7};

#define R_SEGMENT(segment_, field)                                                                                     \
    (R_STATE(segment[0].field) + (int32_t)((segment_) * sizeof(struct trapeze_segment)))
#define R_HOT_SEGMENT(segment_, field)                                                                                 \
    (R_STATE(hot.segment[0].field) + (int32_t)((segment_) * sizeof(((struct cpu *)0)->hot.segment[0])))
#define R_LOADED(segment_, field)                                                                                      \
    (R_STATE(loaded[0].field) + (int32_t)((segment_) * sizeof(struct cpu_loaded)))

enum { MOST_WAYS = 4 };

/* Jumps that lead to the C function. */
struct ways {
    uint8_t *behind[MOST_WAYS];
    unsigned count;
};

/* For emit_jump_here. */
static uint8_t *emit_jump_far(struct emitter *e) {
    emit_u8(e, 0xe9);
    emit_u32(e, 0);
    return e->at;
}

/* Goes on here where A is 0, else to the C function. */
static void emit_need_zero(struct translation *t, struct ways *ways) {
    struct emitter *e = &t->e;
    uint8_t *is_zero = emit_jrcxz(e);
    ways->behind[ways->count++] = emit_jump_far(e);
    emit_here(e, is_zero);
}

/* A = S - T; T is changed. */
static void emit_difference(struct translation *t) {
    emit_bytes(&t->e, not_t, sizeof not_t);
    emit_add_lea(&t->e, REG_A, REG_S, REG_T, 1);
}

/* S = the linear address of the descriptor of the selector in S; within the limit of the GDT. */
static void emit_locate(struct translation *t, struct ways *ways) {
    struct emitter *e = &t->e;
    struct emit_memory by_eight = memory_indexed(HOST_NONE, REG_S, 8, 0), limit = memory_at(REG_R, R_STATE(gdtr.limit));
    struct emit_memory sum = memory_indexed(REG_S, REG_T, 1, 0);
    emit_rorx(e, REG_S, REG_S, 3);
    emit_lea(e, true, REG_S, &by_eight); /* RPL and TI have gone out at the top */
    emit_mov(e, REG_T, REG_S);
    emit_bytes(e, not_t, sizeof not_t);
    emit_op_memory(e, 0, false, 0x0fb7, REG_A, &limit);
    emit_add_lea(e, REG_A, REG_A, REG_T, 1 - 7); /* negative: the last byte is past the limit */
    emit_rorx(e, REG_A, REG_A, 32);
    emit_mov32(e, REG_A, REG_A);
    emit_need_zero(t, ways);
    emit_load(e, REG_T, R_STATE(gdtr.base));
    emit_lea(e, t->key & MODE_LONG, REG_S, &sum);
}

/* S = the eight bytes at the linear address S, as an access of the processor's own: what AC opens is not for it. */
static void emit_read_system(struct translation *t, struct ways *ways) {
    struct emitter *e = &t->e;
    struct emit_memory tag = memory_indexed(REG_R, REG_T, 8, R_TABLE(read_tag));
    struct emit_memory addend = memory_indexed(REG_R, REG_T, 8, R_TABLE(addend));
    struct emit_memory place = memory_indexed(REG_S, REG_A, 1, 0);
    emit_load(e, REG_A, R_STATE(hot.supervisor_view[0]));
    emit_load(e, REG_T, R_STATE(hot.view));
    emit_bytes(e, not_t, sizeof not_t);
    emit_add_lea(e, REG_A, REG_A, REG_T, 1);
    emit_need_zero(t, ways);
    emit_bits16(e, REG_T, REG_S, 12);
    emit_op_memory(e, 0, true, 0x8b, REG_A, &tag);
    emit_add_lea(e, REG_A, REG_S, REG_A, 7);
    emit_page_number(e, REG_A);
    emit_need_zero(t, ways);
    emit_op_memory(e, 0, true, 0x8b, REG_A, &addend);
    emit_op_memory(e, 0, true, 0x8b, REG_S, &place);
}

/* A register with the null selector in the value slot; A is 0. */
static void emit_set_null(struct translation *t, unsigned segment) {
    struct emitter *e = &t->e;
    struct emit_memory attributes = memory_at(REG_R, R_SEGMENT(segment, attributes));
    struct emit_memory selector = memory_at(REG_R, R_SEGMENT(segment, selector));
    struct emit_memory loaded = memory_at(REG_R, R_LOADED(segment, selector));
    emit_store(e, R_SEGMENT(segment, base), REG_A);
    emit_store32(e, R_SEGMENT(segment, limit), REG_A);
    emit_store(e, R_HOT_SEGMENT(segment, base), REG_A);
    emit_store(e, R_HOT_SEGMENT(segment, read_end), REG_A);
    emit_store(e, R_HOT_SEGMENT(segment, write_end), REG_A);
    emit_load(e, REG_S, R_VALUE);
    emit_op_memory(e, 0x66, false, 0x89, REG_S, &selector);
    emit_op_memory(e, 0, false, 0xc7, 0, &attributes);
    emit_u32(e, SEGMENT_UNUSABLE);
    emit_op_memory(e, 0, true, 0xc7, 0, &loaded);
    emit_u32(e, UINT32_MAX);
}

/* Where the selector in S is null, it is loaded; the jump behind that. */
static uint8_t *emit_null_case(struct translation *t, unsigned segment) {
    struct emitter *e = &t->e;
    emit_store(e, R_VALUE, REG_S);
    emit_rorx(e, REG_A, REG_S, 2);
    emit_zero_extend16(e, REG_A, REG_A);
    uint8_t *is_null = emit_jrcxz(e);
    uint8_t *is_other = emit_jump_short(e);
    emit_here(e, is_null);
    emit_set_null(t, segment);
    uint8_t *done = emit_jump_far(e);
    emit_here(e, is_other);
    return done;
}

/* Loads the selector in S; `popped` bytes leave the stack then. */
static void emit_load_segment(struct translation *t, unsigned segment, unsigned popped) {
    struct emitter *e = &t->e;
    struct ways ways = {.count = 0};
    bool takes_null = segment >= CPU_FS && (t->key & MODE_CODE) != MODE_CODE64;
    uint8_t *null_done = takes_null ? emit_null_case(t, segment) : NULL;
    emit_load(e, REG_T, R_LOADED(segment, selector));
    emit_difference(t);
    emit_need_zero(t, &ways);
    emit_locate(t, &ways);
    emit_read_system(t, &ways);
    emit_load(e, REG_T, R_LOADED(segment, descriptor));
    emit_difference(t);
    uint8_t *is_unchanged = emit_jrcxz(e);
    for (unsigned i = 0; i < ways.count; i++)
        emit_jump_here(e, ways.behind[i]);
    emit_helper(t, t->in.rule.function, false, false);
    uint8_t *done = emit_jump_short(e);
    emit_here(e, is_unchanged);
    if (null_done)
        emit_jump_here(e, null_done);
    if (popped)
        emit_move_sp(t, (int32_t)popped);
    emit_here(e, done);
}

static bool loads_in_place(const struct translation *t, unsigned segment) {
    bool is_data = segment == CPU_ES || segment == CPU_DS ||
                   ((segment == CPU_FS || segment == CPU_GS) && (t->key & MODE_CODE) != MODE_CODE64);
    return is_data && is_supervisor(t) && (t->key & MODE_PROTECTED) && !(t->key & MODE_VM86);
}

bool translate_mov_to_segment(struct translation *t) {
    const ZydisDecodedOperand *from = &t->in.operand[1];
    unsigned segment = t->in.z->raw.modrm.reg;
    bool high;
    if (!loads_in_place(t, segment))
        return false;
    if (from->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        struct address address = address_of(t, from);
        struct emit_memory place = emit_reach(t, &address, 2, MEMORY_READ);
        emit_op_memory(&t->e, 0, false, 0x0fb7, REG_S, &place);
    } else {
        emit_zero_extend16(&t->e, REG_S, emit_guest(t, decode_gpr(from->reg.value, &high), REG_S));
    }
    emit_load_segment(t, segment, 0);
    return true;
}

bool translate_pop_segment(struct translation *t) {
    unsigned segment = t->in.z->opcode >> 3 & 7;
    if (!loads_in_place(t, segment))
        return false;
    emit_peek_to_s(t, t->in.z->operand_width / 8);
    emit_zero_extend16(&t->e, REG_S, REG_S);
    emit_load_segment(t, segment, t->in.z->operand_width / 8);
    return true;
}

/* To a register of 32 or 64 bits, or 16 bits to memory. */
bool translate_mov_from_segment(struct translation *t) {
    const ZydisDecodedOperand *to = &t->in.operand[0];
    unsigned segment = t->in.z->raw.modrm.reg;
    struct emit_memory selector = memory_at(REG_R, R_SEGMENT(segment, selector));
    bool high;
    if (segment >= CPU_SEGMENTS || (t->key & MODE_SLOW))
        return false;
    if (to->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        struct address address = address_of(t, to);
        struct emit_memory place = emit_reach(t, &address, 2, MEMORY_WRITE);
        unsigned scratch = emit_free_scratch(t, &place);
        emit_op_memory(&t->e, 0, false, 0x0fb7, scratch, &selector);
        emit_op_memory(&t->e, 0x66, false, 0x89, scratch, &place);
        return true;
    }
    if (to->size == 16)
        return false;
    unsigned guest = decode_gpr(to->reg.value, &high), host = t->home[guest] == HOST_NONE ? REG_S : t->home[guest];
    emit_op_memory(&t->e, 0, false, 0x0fb7, host, &selector);
    if (host == REG_S)
        emit_store(&t->e, t->slot[guest], host);
    return true;
}
