/*
 * Sensitive instructions whose effect is a few moves: CLI, STI, SWAPGS, STAC, CLAC, RDTSC and RDTSCP where the mode lets
 * them. Elsewhere their C functions run (and fault). Flags stay untouched: a bit of RFLAGS is changed by rotating it to
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

static bool owns_if(const struct translation *t) {
    return (t->key & MODE_IOPL3) && !(t->key & (MODE_VM86 | MODE_SLOW | MODE_TF | MODE_BREAKPOINTS));
}

static bool is_supervisor(const struct translation *t) {
    return !(t->key & (MODE_CPL | MODE_SLOW | MODE_TF | MODE_BREAKPOINTS));
}

static void translate_sti(struct translation *t) {
    struct emitter *e = &t->e;
    /* With something pending the C function runs, and sees to the shadow; else nothing can be taken before the next poll,
       which is not in front of the next instruction. */
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
}

static void translate_swapgs(struct translation *t) {
    struct emitter *e = &t->e;
    emit_load(e, REG_A, R_STATE(hot.segment[CPU_GS].base));
    emit_load(e, REG_S, R_STATE(msr.kernel_gs_base));
    emit_store(e, R_STATE(msr.kernel_gs_base), REG_A);
    emit_store(e, R_STATE(hot.segment[CPU_GS].base), REG_S);
    emit_store(e, R_STATE(segment[CPU_GS].base), REG_S);
}

/* RFLAGS.AC decides which of the supervisor's two views is in force. */
static void translate_ac(struct translation *t, bool value) {
    struct emitter *e = &t->e;
    emit_set_flag(t, 18, value);
    emit_load(e, REG_S, value ? R_STATE(hot.supervisor_view[1]) : R_STATE(hot.supervisor_view[0]));
    emit_store(e, R_STATE(hot.view), REG_S);
    struct emit_memory tables = {REG_S, HOST_NONE, 1, (int32_t)offsetof(struct view, tables)};
    emit_op_memory(e, 0, true, 0x8b, REG_S, &tables);
    struct emit_memory base = {REG_S, HOST_NONE, 1, 12};
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
        emit_load32(e, host_register[CPU_RCX], R_STATE(msr.tsc_aux));
}

bool translate_inline(struct translation *t) {
    bool reads_time = !(t->key & MODE_TSD) || !(t->key & MODE_CPL);
    switch (t->in.z.mnemonic) {
    case ZYDIS_MNEMONIC_CLI:
        if (!owns_if(t))
            return false;
        emit_set_flag(t, 9, false);
        return true;
    case ZYDIS_MNEMONIC_STI:
        if (!owns_if(t))
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
        if (!is_supervisor(t) || !(t->key & MODE_PROTECTED))
            return false;
        translate_ac(t, t->in.z.mnemonic == ZYDIS_MNEMONIC_STAC);
        return true;
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
        if (!reads_time || (t->key & MODE_SLOW))
            return false;
        translate_rdtsc(t, t->in.z.mnemonic == ZYDIS_MNEMONIC_RDTSCP);
        return true;
    default:
        return false;
    }
}
