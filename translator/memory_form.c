/*
 * How a guest memory operand is reached. The form is chosen per site here: the software shadow page tables (view.h), a
 * window of the host's MMU (window.h) in blocks made with MODE_WINDOW, or, in blocks made with MODE_SLOW, a call that
 * prepares the access and another that ends it.
 *
 * Soft form, flags untouched; S holds the linear address, A is scratch:
 *
 *     again:  rorx  T, S, 12 ; movzx T, T16           index
 *             mov   A, [R + T*8 + tag]
 *             lea   A, [A + S + size-1] ; shrx A, A, R
 *             jrcxz hit
 *             call  miss                              comes back to `again`, or not at all
 *     hit:    mov   A, [R + T*8 + addend]             operand: [S + A]
 *
 * Window form of 64-bit code, for an address in any register; no branch, and the addend is good for all that is near:
 *
 *             rorx  A, base, 39 ; movzx A, A16        region
 *             mov   A, [R + A*8 + region]             operand: [base + A + displacement]
 *
 * Window form of 32-bit code: gs:[the operand's own 32-bit address].
 */
#include "memory/window.h"
#include "translator/translation.h"

struct address address_of(const struct translation *t, const ZydisDecodedOperand *operand) {
    const ZydisDecodedOperandMem *mem = &operand->mem;
    bool high;
    struct address address = {.segment = (uint8_t)decode_segment(mem->segment),
                              .base = (uint8_t)decode_gpr(mem->base, &high),
                              .index = (uint8_t)decode_gpr(mem->index, &high),
                              .scale = mem->scale ? mem->scale : 1,
                              .size = t->in.z.address_width / 8,
                              .displacement = mem->disp.has_displacement ? mem->disp.value : 0};
    if (mem->base == ZYDIS_REGISTER_RIP || mem->base == ZYDIS_REGISTER_EIP) {
        address.displacement += (int64_t)next_rip(t);
        address.is_constant = true;
    } else if (address.base == CPU_NO_REGISTER && address.index == CPU_NO_REGISTER) {
        address.is_constant = true;
    }
    if (address.size == 4)
        address.displacement = address.is_constant ? (int64_t)(uint32_t)address.displacement : address.displacement;
    else if (address.size == 2 && address.is_constant)
        address.displacement = (uint16_t)address.displacement;
    return address;
}

void emit_offset(struct translation *t, const struct address *address) {
    struct emitter *e = &t->e;
    if (address->is_constant) {
        emit_mov_immediate(e, REG_S, (uint64_t)address->displacement);
        return;
    }
    struct emit_memory memory = memory_indexed(HOST_NONE, HOST_NONE, address->scale, (int32_t)address->displacement);
    if (address->base != CPU_NO_REGISTER)
        memory.base = (uint8_t)emit_guest(t, address->base, REG_S);
    if (address->index != CPU_NO_REGISTER)
        memory.index = (uint8_t)emit_guest(t, address->index, REG_A);
    bool is_64 = address->size == 8;
    if (memory.index == HOST_NONE && memory.displacement == 0) {
        if (is_64)
            emit_mov(e, REG_S, memory.base);
        else
            emit_mov32(e, REG_S, memory.base);
    } else {
        emit_lea(e, is_64, REG_S, &memory);
    }
    if (address->size == 2)
        emit_zero_extend16(e, REG_S, REG_S);
}

/* Whether the segment adds nothing and checks nothing. */
static bool is_flat_segment(const struct translation *t, unsigned segment, enum memory_kind kind) {
    if ((t->key & MODE_CODE) != MODE_CODE64 && segment == CPU_CS && kind != MEMORY_READ)
        return false; /* a code segment is not writable */
    return (t->key & MODE_FLAT) && segment != CPU_FS && segment != CPU_GS;
}

/* S = linear address from S = offset; leaves for the slow way where a check fails. */
static void emit_segment(struct translation *t, unsigned segment, unsigned size, enum memory_kind kind) {
    struct emitter *e = &t->e;
    if (is_flat_segment(t, segment, kind))
        return;
    int32_t base = R_STATE(hot.segment[0].base) + (int32_t)segment * (int32_t)sizeof(((struct cpu *)0)->hot.segment[0]);
    bool is_64 = (t->key & MODE_CODE) == MODE_CODE64;
    if (!is_64) {
        /* end - offset - size is negative, so has a high half, where the access passes the limit. */
        int32_t end = base + (kind == MEMORY_READ ? 8 : 16);
        emit_load(e, REG_A, end);
        static const uint8_t not_s[] = {0x49, 0xf7, 0xd3}; /* not r11 */
        emit_bytes(e, not_s, sizeof not_s);
        emit_add_lea(e, REG_A, REG_A, REG_S, 1 - (int32_t)size);
        emit_bytes(e, not_s, sizeof not_s);
        emit_rorx(e, REG_A, REG_A, 32);
        emit_mov32(e, REG_A, REG_A);
        uint8_t *fine = emit_jrcxz(e);
        emit_call(e, t->engine->stubs.miss);
        add_site(t, SITE_SEGMENT);
        emit_here(e, fine);
    }
    emit_load(e, REG_A, base);
    struct emit_memory sum = memory_indexed(REG_S, REG_A, 1, 0);
    emit_lea(e, is_64, REG_S, &sum);
}

static unsigned site_flags(const struct translation *t, unsigned size);

static void emit_soft(struct translation *t, unsigned size, enum memory_kind kind) {
    struct emitter *e = &t->e;
    t->region_guest = CPU_NO_REGISTER; /* T is the index */
    uint16_t again = host_offset(t);
    emit_rorx(e, REG_T, REG_S, 12);
    emit_zero_extend16(e, REG_T, REG_T);
    struct emit_memory tag =
        memory_indexed(REG_R, REG_T, 8, kind == MEMORY_READ ? R_TABLE(read_tag) : R_TABLE(write_tag));
    emit_op_memory(e, 0, true, 0x8b, REG_A, &tag);
    emit_add_lea(e, REG_A, REG_S, REG_A, (int32_t)size - 1);
    emit_shrx(e, REG_A, REG_A, REG_R);
    uint8_t *hit = emit_jrcxz(e);
    emit_call(e, t->engine->stubs.miss);
    struct site *site = add_site(t, kind == MEMORY_READ ? SITE_READ : SITE_WRITE);
    site->info = (uint8_t)size;
    site->other = again;
    site->data = site_flags(t, size);
    emit_here(e, hit);
    struct emit_memory addend = memory_indexed(REG_R, REG_T, 8, R_TABLE(addend));
    emit_op_memory(e, 0, true, 0x8b, REG_A, &addend);
}

static bool is_unaligned_move(ZydisMnemonic mnemonic) {
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM:
        return true;
    default:
        return false;
    }
}

/* Whether an operand that is not aligned is #GP, before any page is looked at (SDM vol. 2A, 2.4 and 2.8). */
static bool must_align(const struct instruction *in, unsigned size) {
    if (size < 16)
        return false;
    switch (in->z.meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_AVX1:
    case ZYDIS_EXCEPTION_CLASS_E1:
    case ZYDIS_EXCEPTION_CLASS_E1NF:
        return true;
    default:
        if (in->z.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY || size != 16)
            return false;
        return in->z.mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B ||
               ((in->rule.class == CLASS_SSE || in->rule.class == CLASS_MMX) && !is_unaligned_move(in->z.mnemonic));
    }
}

static unsigned site_flags(const struct translation *t, unsigned size) {
    /* AMD's processors take SHA operands as they are (measured on Zen 4; the manual says nothing of it). */
    bool is_free = t->in.z.meta.isa_set == ZYDIS_ISA_SET_SHA && cpu_model_is_amd(t->cpu->model);
    bool is_locked = (t->in.z.attributes & ZYDIS_ATTRIB_HAS_LOCK) || t->in.z.mnemonic == ZYDIS_MNEMONIC_XCHG;
    return (is_masked_access(&t->in) ? SITE_MASKED : 0u) | (must_align(&t->in, size) && !is_free ? SITE_ALIGNED : 0u) |
           (is_locked ? SITE_LOCKED : 0u);
}

/* ---- Windows ---- */

/* Whether the access is made in the host's MMU. Sites that keep meeting what no window holds are soft. */
static bool uses_window(const struct translation *t) {
    return (t->key & MODE_WINDOW) && !(t->key & MODE_SLOW) && !engine_is_soft_site(t->engine, instruction_physical(t));
}

/*
 * A register that holds the addend of the region that the host register `address` points into; [address + addend] is
 * then the place in the window, or faults. T is kept for one guest register at a time, the stack pointer by preference,
 * for as long as that register stays near where it was looked at.
 */
static unsigned emit_region_addend(struct translation *t, unsigned guest, unsigned address) {
    struct emitter *e = &t->e;
    if (guest != CPU_NO_REGISTER && t->region_guest == guest)
        return REG_T;
    bool keeps = guest == CPU_RSP || (guest != CPU_NO_REGISTER && t->region_guest != CPU_RSP);
    emit_rorx(e, REG_A, address, VIEW_REGION_SHIFT);
    emit_zero_extend16(e, REG_A, REG_A);
    struct emit_memory cell = memory_indexed(REG_R, REG_A, 8, R_TABLE(region));
    emit_op_memory(e, 0, true, 0x8b, keeps ? REG_T : REG_A, &cell);
    if (!keeps)
        return REG_A;
    t->region_guest = (uint8_t)guest;
    t->region_drift = 0;
    return REG_T;
}

/* From S = linear address. */
static struct emit_memory reach_linear(struct translation *t) {
    if ((t->key & MODE_CODE) != MODE_CODE64)
        return (struct emit_memory){.base = REG_S, .index = HOST_NONE, .scale = 1, .is_window32 = true};
    return memory_indexed(REG_S, emit_region_addend(t, CPU_NO_REGISTER, REG_S), 1, 0);
}

/* The whole 32-bit address is the operand's own, and the host wraps it at 4 GiB. */
static struct emit_memory reach_plain32(const struct address *address) {
    struct emit_memory place = memory_indexed(HOST_NONE, HOST_NONE, address->scale, (int32_t)address->displacement);
    place.is_window32 = true;
    if (address->base != CPU_NO_REGISTER)
        place.base = host_register[address->base];
    if (address->index != CPU_NO_REGISTER)
        place.index = host_register[address->index];
    return place;
}

/* An address that is known now: its region's addend is one load. */
static struct emit_memory reach_constant64(struct translation *t, uint64_t address) {
    int32_t cell = R_TABLE(region) + 8 * (int32_t)(address >> VIEW_REGION_SHIFT & (VIEW_REGIONS - 1));
    emit_load(&t->e, REG_A, cell);
    if ((uint64_t)(int32_t)address == address)
        return memory_at(REG_A, (int32_t)address);
    emit_mov_immediate(&t->e, REG_S, address);
    return memory_indexed(REG_S, REG_A, 1, 0);
}

static bool is_near(int64_t displacement) {
    return displacement >= -WINDOW_REACH && displacement <= WINDOW_REACH;
}

static struct emit_memory reach_window(struct translation *t, const struct address *address, unsigned size,
                                       enum memory_kind kind) {
    bool is_64 = (t->key & MODE_CODE) == MODE_CODE64, is_flat = is_flat_segment(t, address->segment, kind);
    if (is_flat && !is_64 && address->size == 4)
        return reach_plain32(address);
    if (is_flat && is_64 && address->size == 8 && address->is_constant)
        return reach_constant64(t, (uint64_t)address->displacement);
    if (is_flat && is_64 && address->size == 8 && address->base != CPU_NO_REGISTER &&
        address->index == CPU_NO_REGISTER && is_near(address->displacement)) {
        unsigned base = emit_guest(t, address->base, REG_S);
        unsigned addend = emit_region_addend(t, address->base, base);
        return memory_indexed(base, addend, 1, (int32_t)address->displacement);
    }
    emit_offset(t, address);
    emit_segment(t, address->segment, size, kind);
    return reach_linear(t);
}

/* ---- The choice ---- */

void emit_access(struct translation *t, const struct address *address, unsigned size, enum memory_kind kind) {
    if (!(t->key & MODE_SLOW)) {
        emit_segment(t, address->segment, size, kind);
        emit_soft(t, size, kind);
        return;
    }
    emit_call(&t->e, t->engine->stubs.prepare);
    struct site *site = add_site(t, kind == MEMORY_READ ? SITE_READ : SITE_WRITE);
    site->info = (uint8_t)size;
    site->other = kind == MEMORY_MODIFY;
    site->data = address->segment | site_flags(t, size);
}

struct emit_memory emit_reach_offset(struct translation *t, const struct address *address, unsigned size,
                                     enum memory_kind kind) {
    if (uses_window(t)) {
        emit_segment(t, address->segment, size, kind);
        return reach_linear(t);
    }
    emit_access(t, address, size, kind);
    return memory_indexed(REG_S, REG_A, 1, 0);
}

struct emit_memory emit_reach(struct translation *t, const struct address *address, unsigned size,
                              enum memory_kind kind) {
    if (uses_window(t))
        return reach_window(t, address, size, kind);
    emit_offset(t, address);
    emit_access(t, address, size, kind);
    return memory_indexed(REG_S, REG_A, 1, 0);
}

void emit_access_done(struct translation *t, enum memory_kind kind) {
    if (kind == MEMORY_READ || !(t->key & MODE_SLOW))
        return;
    emit_call(&t->e, t->engine->stubs.commit);
}

/* Cache lines are named by any byte of theirs. */
static bool is_line_operation(ZydisMnemonic mnemonic) {
    return mnemonic == ZYDIS_MNEMONIC_CLFLUSH || mnemonic == ZYDIS_MNEMONIC_CLFLUSHOPT ||
           mnemonic == ZYDIS_MNEMONIC_CLWB;
}

struct emit_memory emit_operand(struct translation *t, const ZydisDecodedOperand *operand, enum memory_kind kind) {
    struct address address = address_of(t, operand);
    unsigned size = is_line_operation(t->in.z.mnemonic) || !operand->size ? 1 : operand->size / 8;
    return emit_reach(t, &address, size, kind);
}

/* ---- Places ---- */

static bool names(const struct emit_memory *place, unsigned reg) {
    return place->base == reg || place->index == reg;
}

void emit_flatten(struct translation *t, struct emit_memory *place, unsigned reg) {
    struct emit_memory sum = *place;
    sum.is_window32 = false;
    emit_lea(&t->e, !place->is_window32, reg, &sum);
    *place = (struct emit_memory){.base = (uint8_t)reg, .index = HOST_NONE, .scale = 1,
                                  .is_window32 = place->is_window32};
}

unsigned emit_free_scratch(struct translation *t, struct emit_memory *place) {
    if (!names(place, REG_S))
        return REG_S;
    if (names(place, REG_A) || place->index != HOST_NONE)
        emit_flatten(t, place, REG_A);
    return names(place, REG_S) ? REG_A : REG_S;
}

/* ---- The region in T ---- */

/* How far an instruction moves the register that it writes, or WINDOW_REACH: nobody knows. */
static int64_t step_of(const struct translation *t, unsigned guest, const ZydisDecodedOperand *written) {
    const struct instruction *in = &t->in;
    const ZydisDecodedOperand *second = &in->operand[1];
    bool is_whole = in->z.operand_width == 64 && written->size == 64;
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_SUB:
        return is_whole && written == &in->operand[0] && second->type == ZYDIS_OPERAND_TYPE_IMMEDIATE
                   ? second->imm.value.s
                   : WINDOW_REACH;
    case ZYDIS_MNEMONIC_AND: /* of a small negative number: alignment */
        return is_whole && written == &in->operand[0] && second->type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
                       second->imm.value.s < 0
                   ? second->imm.value.s
                   : WINDOW_REACH;
    case ZYDIS_MNEMONIC_INC:
    case ZYDIS_MNEMONIC_DEC:
        return is_whole ? 1 : WINDOW_REACH;
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_POP:
    case ZYDIS_MNEMONIC_CALL:
        return guest == CPU_RSP && written->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN ? 8 : WINDOW_REACH;
    default:
        return WINDOW_REACH;
    }
}

void note_region(struct translation *t) {
    enum { DRIFT = WINDOW_REACH / 2 };
    if (t->in.rule.kind == RULE_HELPER)
        t->region_guest = CPU_NO_REGISTER; /* the C function may have changed more than registers */
    for (unsigned i = 0; i < t->in.z.operand_count && t->region_guest != CPU_NO_REGISTER; i++) {
        const ZydisDecodedOperand *operand = &t->in.operand[i];
        bool high;
        if (operand->type != ZYDIS_OPERAND_TYPE_REGISTER || !(operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) ||
            decode_gpr(operand->reg.value, &high) != t->region_guest)
            continue;
        int64_t step = step_of(t, t->region_guest, operand);
        if (step <= -DRIFT || step >= DRIFT || t->region_drift > DRIFT) {
            t->region_guest = CPU_NO_REGISTER;
            return;
        }
        t->region_drift += (uint32_t)(step < 0 ? -step : step);
    }
}
