/*
 * How a guest memory operand is reached. The form is chosen per block here: the software shadow page tables (view.h),
 * or, in blocks made with MODE_SLOW, a call that prepares the access and another that ends it.
 *
 * Soft form, flags untouched; S holds the linear address, A is scratch:
 *
 *     again:  rorx  T, S, 12 ; movzx T, T16           index
 *             mov   A, [R + T*8 + tag]
 *             lea   A, [A + S + size-1] ; shrx A, A, R
 *             jrcxz hit
 *             call  miss                              comes back to `again`, or not at all
 *     hit:    mov   A, [R + T*8 + addend]             operand: [S + A]
 */
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
    struct emit_memory memory = {HOST_NONE, HOST_NONE, address->scale, (int32_t)address->displacement};
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
    struct emit_memory sum = {REG_S, REG_A, 1, 0};
    emit_lea(e, is_64, REG_S, &sum);
}

static unsigned site_flags(const struct translation *t, unsigned size);

static void emit_soft(struct translation *t, unsigned size, enum memory_kind kind) {
    struct emitter *e = &t->e;
    uint16_t again = host_offset(t);
    emit_rorx(e, REG_T, REG_S, 12);
    emit_zero_extend16(e, REG_T, REG_T);
    struct emit_memory tag = {REG_R, REG_T, 8,
                              kind == MEMORY_READ ? R_TABLE(read_tag) : R_TABLE(write_tag)};
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
    struct emit_memory addend = {REG_R, REG_T, 8, R_TABLE(addend)};
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

void emit_operand_access(struct translation *t, const ZydisDecodedOperand *operand, enum memory_kind kind) {
    struct address address = address_of(t, operand);
    unsigned size = is_line_operation(t->in.z.mnemonic) || !operand->size ? 1 : operand->size / 8;
    emit_offset(t, &address);
    emit_access(t, &address, size, kind);
}
