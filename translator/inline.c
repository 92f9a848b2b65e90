/*
 * Sensitive instructions whose effect is a few moves: CLI, STI, SWAPGS, STAC, CLAC, PAUSE, RDTSC and RDTSCP where the
 * mode lets them, and string instructions that are not repeated (repeated ones are in repeat.c). Elsewhere their C
 * functions run (and fault). Flags stay untouched: a bit of RFLAGS is changed by rotating it to
 * the top, shifting it out with LEA, and rotating back.
 */
#include "translator/translation.h"

/* A = RFLAGS with `bit` as given, stored back. */
static void emit_set_flag(struct translation *t, unsigned bit, bool value) {
    struct emitter *e = &t->e;
    emit_load(e, REG_A, R_STATE(hot.rflags));
    emit_rorx(e, REG_A, REG_A, bit + 1);
    emit_add_lea(e, REG_A, REG_A, REG_A, value);
    emit_rorx(e, REG_A, REG_A, 64 - bit);
    emit_store(e, R_STATE(hot.rflags), REG_A);
}

static void translate_sti(struct translation *t) {
    struct emitter *e = &t->e;
    /* With something pending the C function runs, and sees to the shadow; else nothing can be taken before the next poll,
       which is not in front of the next instruction, nor where that leaves the block (block->shadowed). */
    emit_load32(e, REG_A, R_STATE(hot.run));
    uint8_t *pending = emit_jrcxz(e);
    emit_load32(e, REG_A, R_STATE(intr));
    uint8_t *quiet = emit_jrcxz(e);
    emit_here(e, pending);
    emit_helper(t, cpu_op_sti, true, false);
    t->ended = false;
    emit_here(e, quiet);
    emit_set_flag(t, 9, true);
    t->skips_poll = true;
    t->block->shadowed = (uint16_t)(next_rip(t) - t->start_rip);
}

static void translate_swapgs(struct translation *t) {
    struct emitter *e = &t->e;
    emit_load(e, REG_A, R_STATE(hot.segment[CPU_GS].base));
    emit_load(e, REG_S, R_STATE(msr.kernel_gs_base));
    emit_store(e, R_STATE(msr.kernel_gs_base), REG_A);
    emit_store(e, R_STATE(hot.segment[CPU_GS].base), REG_S);
    emit_store(e, R_STATE(segment[CPU_GS].base), REG_S);
    if (keeps_place(t, CPU_GS))
        emit_place(t, CPU_GS, REG_S);
}

/* RFLAGS.AC decides which of the supervisor's two views is in force. A window is for the one with AC clear alone, and
   going there or coming from there is for the C function. */
static void translate_ac(struct translation *t, bool value) {
    struct emitter *e = &t->e;
    if (!value) {
        emit_load32(e, REG_A, R_STATE(hot.clac_leaves));
        uint8_t *stays = emit_jrcxz(e);
        emit_helper(t, cpu_op_clac, true, false);
        t->ended = false;
        emit_here(e, stays);
    }
    emit_set_flag(t, 18, value);
    emit_load(e, REG_S, value ? R_STATE(hot.supervisor_view[1]) : R_STATE(hot.supervisor_view[0]));
    emit_store(e, R_STATE(hot.view), REG_S);
    struct emit_memory tables = memory_at(REG_S, (int32_t)offsetof(struct view, tables));
    emit_op_memory(e, 0, true, 0x8b, REG_S, &tables);
    struct emit_memory base = memory_at(REG_S, VIEW_R);
    emit_lea(e, true, REG_R, &base);
}

static void translate_rdtsc(struct translation *t, bool with_aux) {
    struct emitter *e = &t->e;
    emit_bytes(e, (const uint8_t[]){0x0f, 0x31}, 2);
    emit_rorx(e, REG_A, HOST_RDX, 32);
    emit_add_lea(e, REG_A, REG_A, HOST_RAX, 0);
    emit_load(e, REG_S, R_STATE(tsc_offset));
    emit_add_lea(e, REG_A, REG_A, REG_S, 0);
    emit_mov32(e, HOST_RAX, REG_A);
    emit_rorx(e, HOST_RDX, REG_A, 32);
    emit_mov32(e, HOST_RDX, HOST_RDX);
    if (with_aux)
        emit_load32(e, t->home[CPU_RCX], R_STATE(msr.tsc_aux));
}

/* ---- String instructions without a repeat prefix: the host's own, on host addresses for as long as it takes ---- */

static const uint8_t not_a[] = {0x48, 0xf7, 0xd1}, not_t[] = {0x49, 0xf7, 0xd7}; /* not rcx; not r15 */

void emit_index_shift(struct translation *t, unsigned host, unsigned addend, bool back) {
    struct emit_memory sum = memory_indexed(host, addend, 1, back);
    emit_lea(&t->e, (t->key & MODE_CODE) == MODE_CODE64 || !back, host, &sum);
}

/* Opens the element at rsi or rdi; A = addend. */
static void emit_element(struct translation *t, unsigned index, unsigned size, enum memory_kind kind) {
    struct address address = {.segment = index == CPU_RDI ? CPU_ES : CPU_DS, .base = (uint8_t)index,
                              .index = CPU_NO_REGISTER, .scale = 1, .size = t->in.z->address_width / 8};
    emit_offset(t, &address);
    emit_access(t, &address, size, kind);
}

void emit_string(struct translation *t) {
    struct emitter *e = &t->e;
    unsigned size = t->in.z->operand_width;
    if (size == 16)
        emit_u8(e, 0x66);
    if (size == 64)
        emit_u8(e, 0x48);
    emit_u8(e, t->in.z->opcode);
}

static void translate_one_index(struct translation *t, unsigned index, enum memory_kind kind) {
    emit_element(t, index, t->in.z->operand_width / 8, kind);
    emit_index_shift(t, index, REG_A, false);
    emit_string(t);
    emit_bytes(&t->e, not_a, sizeof not_a);
    emit_index_shift(t, index, REG_A, true);
}

/* MOVS and CMPS. `first` is what processors look at first, and so what faults first. */
static void translate_two_indices(struct translation *t, unsigned first, unsigned second, enum memory_kind kind) {
    enum { ADDEND_SLOT = 2 };
    struct emitter *e = &t->e;
    unsigned size = t->in.z->operand_width / 8;
    emit_element(t, first, size, MEMORY_READ);
    emit_store(e, R_STATE(hot.scratch) + 8 * ADDEND_SLOT, REG_A);
    emit_element(t, second, size, kind);
    emit_load(e, REG_T, R_STATE(hot.scratch) + 8 * ADDEND_SLOT);
    emit_index_shift(t, first, REG_T, false);
    emit_index_shift(t, second, REG_A, false);
    emit_string(t);
    emit_bytes(e, not_t, sizeof not_t);
    emit_bytes(e, not_a, sizeof not_a);
    emit_index_shift(t, first, REG_T, true);
    emit_index_shift(t, second, REG_A, true);
}

/* Flat segments, and index registers as wide as the code's addresses. */
static bool is_plain_string(const struct translation *t) {
    const ZydisInstructionAttributes prefixes =
        ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE | ZYDIS_ATTRIB_HAS_SEGMENT;
    unsigned bits = code_bits(t->key);
    return !(t->in.z->attributes & prefixes) && (t->key & MODE_FLAT) && !(t->key & MODE_SLOW) && bits != 16 &&
           t->in.z->address_width == bits;
}

static bool translate_string(struct translation *t) {
    if (!is_plain_string(t))
        return false;
    if (t->in.rule.function == cpu_op_stos)
        translate_one_index(t, CPU_RDI, MEMORY_WRITE);
    else if (t->in.rule.function == cpu_op_lods)
        translate_one_index(t, CPU_RSI, MEMORY_READ);
    else if (t->in.rule.function == cpu_op_scas)
        translate_one_index(t, CPU_RDI, MEMORY_READ);
    else if (t->in.rule.function == cpu_op_movs)
        translate_two_indices(t, CPU_RSI, CPU_RDI, MEMORY_WRITE);
    else if (t->in.rule.function == cpu_op_cmps)
        translate_two_indices(t, CPU_RDI, CPU_RSI, MEMORY_READ);
    else
        return false;
    return true;
}

/* Runs as itself, but for each that lets the host's other threads in. */
static void translate_pause(struct translation *t) {
    struct emitter *e = &t->e;
    struct emit_memory less = memory_at(REG_A, -1);
    emit_load32(e, REG_A, R_STATE(hot.pauses));
    emit_lea(e, false, REG_A, &less);
    uint8_t *is_due = emit_jrcxz(e);
    emit_store32(e, R_STATE(hot.pauses), REG_A);
    emit_bytes(e, (const uint8_t[]){0xf3, 0x90, 0xeb, 0}, 4); /* pause; jmp */
    uint8_t *done = e->at;
    emit_here(e, is_due);
    emit_helper(t, cpu_op_pause, false, true);
    emit_here(e, done);
}

bool translate_inline(struct translation *t) {
    bool reads_time = !(t->key & MODE_TSD) || !(t->key & MODE_CPL);
    switch (t->in.z->mnemonic) {
    case ZYDIS_MNEMONIC_CLI:
        if (!owns_if(t))
            return false;
        emit_set_flag(t, 9, false);
        return true;
    case ZYDIS_MNEMONIC_STI:
        if (!owns_if(t) || t->block->shadowed)
            return false;
        translate_sti(t);
        return true;
    case ZYDIS_MNEMONIC_SWAPGS:
        if (!is_supervisor(t) || (t->key & MODE_CODE) != MODE_CODE64)
            return false;
        translate_swapgs(t);
        return true;
    case ZYDIS_MNEMONIC_STAC:
    case ZYDIS_MNEMONIC_CLAC:
        if (!is_supervisor(t) || !(t->key & MODE_PROTECTED) || (t->key & MODE_WINDOW))
            return false;
        translate_ac(t, t->in.z->mnemonic == ZYDIS_MNEMONIC_STAC);
        return true;
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
        if (!reads_time || (t->key & MODE_SLOW))
            return false;
        translate_rdtsc(t, t->in.z->mnemonic == ZYDIS_MNEMONIC_RDTSCP);
        return true;
    case ZYDIS_MNEMONIC_PAUSE:
        if (t->key & (MODE_SLOW | MODE_TF | MODE_BREAKPOINTS))
            return false;
        translate_pause(t);
        return true;
    default:
        if (t->in.rule.function == cpu_op_push_segment)
            return translate_push_segment(t);
        return translate_string(t) || translate_repeated(t) || translate_system(t);
    }
}
