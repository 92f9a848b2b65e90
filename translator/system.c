/*
 * Sensitive instructions of kernels that are a handful of moves: reads of control registers, RDMSR and WRMSR of plain
 * registers, PUSHF and POPF, the descriptor-table registers, CLTS. Flags stay untouched but where POPF loads them. What is
 * out of the ordinary (a bit that changes the mode, a pending interrupt, another MSR) goes to the C function, which comes
 * back behind the instruction.
 */
#include "translator/dispatch.h"
#include "translator/translation.h"

/* ---- Control registers ---- */

static bool translate_read_control(struct translation *t) {
    const ZydisDecodedOperand *to = &t->in.operand[0], *from = &t->in.operand[1];
    static const int32_t places[] = {R_STATE(cr0), 0, R_STATE(cr2), R_STATE(cr3), R_STATE(cr4)};
    unsigned reg = (unsigned)(from->reg.value - ZYDIS_REGISTER_CR0);
    bool high, is_64 = (t->key & MODE_CODE) == MODE_CODE64;
    if (!is_supervisor(t) || (t->in.z->attributes & ZYDIS_ATTRIB_HAS_LOCK) || reg >= sizeof places / sizeof *places ||
        !places[reg] || (reg == 4 && !cpu_model_cr4(t->cpu->model)))
        return false;
    unsigned guest = decode_gpr(to->reg.value, &high), host = t->home[guest] == HOST_NONE ? REG_S : t->home[guest];
    if (is_64)
        emit_load(&t->e, host, places[reg]);
    else
        emit_load32(&t->e, host, places[reg]);
    if (host == REG_S)
        emit_store(&t->e, t->slot[guest], host);
    return true;
}

/* ---- Model specific registers ---- */

/* What RCX is likely to hold here. */
static bool guess_index(const struct translation *t, uint32_t *index) {
    const uint32_t bit = 1u << CPU_RCX;
    if (t->constants & bit)
        *index = (uint32_t)t->constant[CPU_RCX];
    else if (!(t->written & bit))
        *index = (uint32_t)t->cpu->hot.gpr[CPU_RCX];
    else
        return false;
    return true;
}

/* A = the lower half of RCX - index. */
static void emit_compare_index(struct translation *t, uint32_t index) {
    struct emit_memory difference = memory_at(t->home[CPU_RCX], (int32_t)-index);
    emit_lea(&t->e, false, REG_A, &difference);
}

static bool translate_rdmsr(struct translation *t) {
    struct emitter *e = &t->e;
    uint32_t index;
    size_t place = is_supervisor(t) && guess_index(t, &index) ? cpu_msr_place(t->cpu, index) : 0;
    if (!place)
        return false;
    emit_compare_index(t, index);
    uint8_t *as_guessed = emit_jrcxz(e);
    emit_helper(t, cpu_op_rdmsr, false, false);
    uint8_t *done = emit_jump_short(e);
    emit_here(e, as_guessed);
    emit_load(e, HOST_RDX, R_STATE(index) + (int32_t)(place - offsetof(struct cpu, index)));
    emit_mov32(e, HOST_RAX, HOST_RDX);
    emit_rorx(e, HOST_RDX, HOST_RDX, 32);
    emit_mov32(e, HOST_RDX, HOST_RDX);
    emit_here(e, done);
    return true;
}

/* S = EDX:EAX. */
static void emit_msr_value(struct translation *t) {
    struct emitter *e = &t->e;
    emit_mov32(e, REG_S, HOST_RDX);
    emit_rorx(e, REG_S, REG_S, 32);
    emit_mov32(e, REG_A, HOST_RAX);
    emit_add_lea(e, REG_S, REG_S, REG_A, 0);
}

/* A = 0 if the address in `from` is canonical: bits 63 to 47, as a number, are 0 or -1. `from` is not A. */
static void emit_test_canonical(struct translation *t, unsigned from) {
    struct emitter *e = &t->e;
    struct emit_memory one_more = memory_at(REG_A, 1);
    emit_sar(e, REG_A, from, 47);
    emit_lea(e, true, REG_A, &one_more);
    emit_rorx(e, REG_A, REG_A, 1);
    emit_add_lea(e, REG_A, REG_A, REG_A, 0); /* the lowest bit, which is the highest now, goes out */
}

/* The bases of FS and GS, which kernels load when they switch tasks. */
static bool translate_wrmsr(struct translation *t) {
    enum { FS_BASE = 0xc0000100, GS_BASE, KERNEL_GS_BASE };
    struct emitter *e = &t->e;
    uint32_t index;
    if (!is_supervisor(t) || (t->key & MODE_CODE) != MODE_CODE64 || !guess_index(t, &index) || index < FS_BASE ||
        index > KERNEL_GS_BASE || !cpu_msr_place(t->cpu, index))
        return false;
    emit_compare_index(t, index);
    uint8_t *as_guessed = emit_jrcxz(e);
    uint8_t *is_other = emit_jump_short(e);
    emit_here(e, as_guessed);
    emit_msr_value(t);
    emit_test_canonical(t, REG_S);
    uint8_t *is_good = emit_jrcxz(e);
    emit_here(e, is_other);
    emit_helper(t, cpu_op_wrmsr, false, false);
    uint8_t *done = emit_jump_short(e);
    emit_here(e, is_good);
    if (index == KERNEL_GS_BASE) {
        emit_store(e, R_STATE(msr.kernel_gs_base), REG_S);
    } else {
        emit_store(e, index == FS_BASE ? R_STATE(segment[CPU_FS].base) : R_STATE(segment[CPU_GS].base), REG_S);
        emit_store(e, index == FS_BASE ? R_STATE(hot.segment[CPU_FS].base) : R_STATE(hot.segment[CPU_GS].base), REG_S);
        if (index == GS_BASE && keeps_place(t, CPU_GS))
            emit_place(t, CPU_GS, REG_S);
    }
    emit_here(e, done);
    return true;
}

/* ---- PUSHF, POPF ---- */

/* Flags that POPF changes and that are more than a bit: they decide on the mode, or are rare. */
enum { RARE_FLAGS = FLAG_TF | FLAG_IOPL | FLAG_NT | FLAG_AC | FLAG_ID };
/* What PUSHF shows of hot.rflags, but for bit 1, which is always set. */
enum { SHOWN_FLAGS = FLAG_TF | FLAG_IF | FLAG_IOPL | FLAG_NT | FLAG_AC | FLAG_VIF | FLAG_VIP | FLAG_ID };

static bool moves_flags_in_place(const struct translation *t) {
    return !(t->key & (MODE_VM86 | MODE_SLOW | MODE_TF | MODE_BREAKPOINTS)) && t->in.z->operand_width != 16;
}

static bool translate_pushf(struct translation *t) {
    static const uint8_t flags_to_s[] = {0x9c, 0x41, 0x5b}; /* pushfq; pop r11 */
    struct emitter *e = &t->e;
    if (!moves_flags_in_place(t))
        return false;
    forget_checks(t); /* T is not what it was */
    emit_bytes(e, flags_to_s, sizeof flags_to_s);
    emit_mov_immediate(e, REG_A, GUEST_FLAGS);
    emit_keep(e, REG_S, REG_A);
    emit_load(e, REG_T, R_STATE(hot.rflags));
    emit_mov_immediate(e, REG_A, SHOWN_FLAGS);
    emit_keep(e, REG_T, REG_A);
    emit_add_lea(e, REG_S, REG_S, REG_T, FLAG_FIXED);
    emit_store(e, R_VALUE, REG_S);
    emit_push_value(t, t->in.z->operand_width / 8);
    return true;
}

/* A = 0 if the image in S changes nothing rare and, where it may change IF, no interrupt waits. Uses S and T. */
static void emit_test_image(struct translation *t) {
    static const uint8_t not_t[] = {0x49, 0xf7, 0xd7};
    struct emitter *e = &t->e;
    emit_load(e, REG_T, R_STATE(hot.rflags));
    emit_mov_immediate(e, REG_A, RARE_FLAGS);
    emit_keep(e, REG_S, REG_A);
    emit_keep(e, REG_T, REG_A);
    emit_bytes(e, not_t, sizeof not_t);
    emit_add_lea(e, REG_A, REG_S, REG_T, 1);
    if (!owns_if(t))
        return;
    emit_load32(e, REG_S, R_STATE(intr));
    emit_rorx(e, REG_S, REG_S, 32);
    emit_add_lea(e, REG_A, REG_A, REG_S, 0);
}

/* hot.rflags gets IF from the image. */
static void emit_pop_if(struct translation *t) {
    enum { BIT = 9 };
    struct emitter *e = &t->e;
    emit_load(e, REG_S, R_VALUE);
    emit_mov_immediate(e, REG_A, FLAG_IF);
    emit_keep(e, REG_S, REG_A);
    emit_rorx(e, REG_S, REG_S, BIT);
    emit_load(e, REG_T, R_STATE(hot.rflags));
    emit_rorx(e, REG_T, REG_T, BIT + 1);
    emit_add_lea(e, REG_T, REG_T, REG_T, 0);
    emit_add_lea(e, REG_T, REG_S, REG_T, 0);
    emit_rorx(e, REG_T, REG_T, 64 - BIT);
    emit_store(e, R_STATE(hot.rflags), REG_T);
}

static bool translate_popf(struct translation *t) {
    struct emitter *e = &t->e;
    unsigned bytes = t->in.z->operand_width / 8;
    if (!moves_flags_in_place(t))
        return false;
    emit_peek_to_s(t, bytes);
    emit_store(e, R_VALUE, REG_S);
    emit_test_image(t);
    uint8_t *is_plain = emit_jrcxz(e);
    emit_helper(t, cpu_op_popf, false, false);
    uint8_t *done = emit_jump_short(e);
    emit_here(e, is_plain);
    if (owns_if(t))
        emit_pop_if(t);
    emit_load(e, REG_A, R_VALUE);
    emit_call(e, t->engine->stubs.set_flags);
    emit_move_sp(t, (int32_t)bytes);
    emit_here(e, done);
    forget_checks(t);
    return true;
}

/* ---- GDTR and IDTR ---- */

/* The place of limit and base in memory, by the software tables: T is free. */
static bool emit_table(struct translation *t, enum memory_kind kind, struct emit_memory *limit,
                       struct emit_memory *base) {
    unsigned bytes = (t->key & MODE_CODE) == MODE_CODE64 ? 8 : 4;
    if (!is_supervisor(t) || t->in.operand[0].type != ZYDIS_OPERAND_TYPE_MEMORY)
        return false;
    struct address address = address_of(t, &t->in.operand[0]);
    emit_offset(t, &address);
    emit_access(t, &address, bytes + 2, kind);
    *limit = *base = memory_indexed(REG_S, REG_A, 1, 0);
    base->displacement += 2;
    return true;
}

static bool translate_store_table(struct translation *t, int32_t base_place, int32_t limit_place) {
    struct emitter *e = &t->e;
    struct emit_memory limit, base;
    if (!emit_table(t, MEMORY_WRITE, &limit, &base))
        return false;
    emit_load32(e, REG_T, limit_place);
    emit_op_memory(e, 0x66, false, 0x89, REG_T, &limit);
    emit_load(e, REG_T, base_place);
    emit_op_memory(e, 0, (t->key & MODE_CODE) == MODE_CODE64, 0x89, REG_T, &base);
    return true;
}

static bool translate_load_table(struct translation *t, int32_t base_place, int32_t limit_place) {
    struct emitter *e = &t->e;
    struct emit_memory limit, base, place = memory_at(REG_R, limit_place);
    bool is_64 = (t->key & MODE_CODE) == MODE_CODE64;
    uint8_t *done = NULL;
    if ((!is_64 && t->in.z->operand_width == 16) || !emit_table(t, MEMORY_READ, &limit, &base))
        return false;
    emit_op_memory(e, 0, is_64, 0x8b, REG_T, &base);
    emit_op_memory(e, 0, false, 0x0fb7, REG_S, &limit);
    if (is_64) {
        emit_test_canonical(t, REG_T);
        uint8_t *is_good = emit_jrcxz(e);
        emit_helper(t, t->in.rule.function, false, false);
        done = emit_jump_short(e);
        emit_here(e, is_good);
    }
    emit_store(e, base_place, REG_T);
    emit_op_memory(e, 0x66, false, 0x89, REG_S, &place);
    if (done)
        emit_here(e, done);
    return true;
}

bool translate_system(struct translation *t) {
    if (t->in.rule.function == cpu_op_pop_segment)
        return translate_pop_segment(t);
    if (t->in.rule.function == cpu_op_mov_to_segment)
        return translate_mov_to_segment(t);
    if (t->in.rule.function == cpu_op_mov_from_segment)
        return translate_mov_from_segment(t);
    switch (t->in.z->mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
        return t->in.rule.function == cpu_op_mov_from_cr && translate_read_control(t);
    case ZYDIS_MNEMONIC_CLTS:
        return is_supervisor(t) && !(t->key & MODE_TS);
    case ZYDIS_MNEMONIC_RDMSR:
        return translate_rdmsr(t);
    case ZYDIS_MNEMONIC_WRMSR:
        return translate_wrmsr(t);
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ:
        return translate_pushf(t);
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
        return translate_popf(t);
    case ZYDIS_MNEMONIC_PUSHAD:
        return translate_pusha(t);
    case ZYDIS_MNEMONIC_POPAD:
        return translate_popa(t);
    case ZYDIS_MNEMONIC_SGDT:
        return translate_store_table(t, R_STATE(gdtr.base), R_STATE(gdtr.limit));
    case ZYDIS_MNEMONIC_SIDT:
        return translate_store_table(t, R_STATE(idtr.base), R_STATE(idtr.limit));
    case ZYDIS_MNEMONIC_LGDT:
        return translate_load_table(t, R_STATE(gdtr.base), R_STATE(gdtr.limit));
    case ZYDIS_MNEMONIC_LIDT:
        return translate_load_table(t, R_STATE(idtr.base), R_STATE(idtr.limit));
    default:
        return false;
    }
}
