/*
 * How a guest memory operand is reached. The form is chosen per site here: the software shadow page tables (view.h), a
 * window of the host's MMU (window.h) in blocks made with MODE_WINDOW, or, in blocks made with MODE_SLOW, a call that
 * prepares the access and another that ends it.
 *
 * Soft form, flags untouched; S holds the linear address, A is scratch:
 *
 *     again:  rorx  T, S, 12 ; movzx T, T16           index
 *             mov   A, [R + T*8 + tag]
 *             lea   A, [A + S + size-1] ; A >>= 12
 *             jrcxz hit
 *             call  miss                              comes back to `again`, or not at all
 *     hit:    mov   A, [R + T*8 + addend]             operand: [S + A]
 *
 * Window forms of 64-bit code (see window.h), without a branch; a register that was checked is not checked again while it
 * stays near:
 *
 *             shrx  A, base, R
 *             mov   A32, [R + A*8 + check]            group A: gs:[base + displacement]
 *             mov   T, [R + addend]                   group B: [base + T + displacement]
 *
 *             shrx  A, base, R
 *             mov   A, [R + A*8 + addends]            any: [base + A + displacement]; or T, kept for the next accesses
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
                              .size = t->in.z->address_width / 8,
                              .displacement = mem->disp.has_displacement ? mem->disp.value : 0};
    if (mem->base == ZYDIS_REGISTER_RIP || mem->base == ZYDIS_REGISTER_EIP) {
        address.displacement += (int64_t)next_rip(t);
        address.is_constant = address.is_relative = true;
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
    emit_offset_to(t, address, REG_S);
}

void emit_offset_to(struct translation *t, const struct address *address, unsigned to) {
    struct emitter *e = &t->e;
    if (address->is_constant) {
        emit_mov_immediate(e, to, (uint64_t)address->displacement);
        if (address->is_relative)
            note_rip(t, (uint64_t)address->displacement, RELOCATE_RIP);
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
            emit_mov(e, to, memory.base);
        else
            emit_mov32(e, to, memory.base);
    } else {
        emit_lea(e, is_64, to, &memory);
    }
    if (address->size == 2)
        emit_zero_extend16(e, to, to);
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

/* What a C function may do in place of the access: see SITE_SOLE and what follows it. */
static int64_t site_move(const struct translation *t, enum memory_kind kind) {
    const struct instruction *in = &t->in;
    if (in->rule.kind != RULE_COPY)
        return 0;
    if (kind == MEMORY_READ)
        return SITE_SOLE;
    const ZydisDecodedOperand *source = &in->operand[1];
    if (in->z->mnemonic != ZYDIS_MNEMONIC_MOV || t->loop.is_found)
        return 0;
    if (source->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && !in->variable)
        return SITE_MOVE_IMMEDIATE | (int64_t)((uint64_t)source->imm.value.s << SITE_IMMEDIATE_SHIFT);
    bool high;
    unsigned guest = source->type == ZYDIS_OPERAND_TYPE_REGISTER ? decode_gpr(source->reg.value, &high) : CPU_NO_REGISTER;
    if (guest == CPU_NO_REGISTER)
        return 0;
    return SITE_MOVE | (high ? SITE_HIGH_BYTE : 0) | (int64_t)guest << SITE_REGISTER_SHIFT;
}

static void emit_soft(struct translation *t, unsigned size, enum memory_kind kind) {
    struct emitter *e = &t->e;
    forget_addend(t); /* T is the index */
    uint16_t again = host_offset(t);
    emit_bits16(e, REG_T, REG_S, 12);
    struct emit_memory tag =
        memory_indexed(REG_R, REG_T, 8, kind == MEMORY_READ ? R_TABLE(read_tag) : R_TABLE(write_tag));
    emit_op_memory(e, 0, true, 0x8b, REG_A, &tag);
    emit_add_lea(e, REG_A, REG_S, REG_A, (int32_t)size - 1);
    emit_page_number(e, REG_A);
    uint8_t *hit = emit_jrcxz(e);
    emit_call(e, kind == MEMORY_READ ? t->engine->stubs.miss_read : t->engine->stubs.miss_write);
    struct site *site = add_site(t, kind == MEMORY_READ ? SITE_READ : SITE_WRITE);
    site->info = (uint8_t)size;
    site->other = again;
    site->data = site_flags(t, size) | site_move(t, kind);
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
static bool must_align(const struct translation *t, unsigned size) {
    const struct instruction *in = &t->in;
    if (size < 16 || (in->z->meta.isa_set == ZYDIS_ISA_SET_SHA && !t->engine->sha_aligns))
        return false;
    switch (in->z->meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_AVX1:
    case ZYDIS_EXCEPTION_CLASS_E1:
    case ZYDIS_EXCEPTION_CLASS_E1NF:
        return true;
    default:
        if (in->z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY || size != 16)
            return false;
        return in->z->mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B ||
               ((in->rule.class == CLASS_SSE || in->rule.class == CLASS_MMX) && !is_unaligned_move(in->z->mnemonic));
    }
}

/* Whether a pending x87 error is reported before anything of the memory operand (SDM vol. 3A, table 6-2). */
static bool reports_x87(const struct instruction *in) {
    return (in->rule.class == CLASS_X87 || in->rule.class == CLASS_MMX) && in->z->mnemonic != ZYDIS_MNEMONIC_FNSTCW &&
           in->z->mnemonic != ZYDIS_MNEMONIC_FNSTSW;
}

static unsigned site_flags(const struct translation *t, unsigned size) {
    bool is_locked = (t->in.z->attributes & ZYDIS_ATTRIB_HAS_LOCK) || t->in.z->mnemonic == ZYDIS_MNEMONIC_XCHG;
    return (is_masked_access(&t->in) ? SITE_MASKED : 0u) | (must_align(t, size) ? SITE_ALIGNED : 0u) |
           (is_locked ? SITE_LOCKED : 0u) | (reports_x87(&t->in) ? SITE_X87 : 0u);
}

/* ---- Windows ---- */

bool uses_window(const struct translation *t) {
    return (t->key & MODE_WINDOW) && !(t->key & MODE_SLOW) &&
           engine_site_form(t->engine, instruction_physical(t)) != FORM_SOFT;
}

enum site_form form_of(const struct translation *t, const struct address *address) {
    enum site_form form = engine_site_form(t->engine, instruction_physical(t));
    uint64_t linear;
    if (form != FORM_UNKNOWN)
        return form;
    if (!(t->key & MODE_CPL)) /* a kernel keeps to its half, and so do the groups */
        return t->start_rip >> 63 ? FORM_A : FORM_B;
    const struct window *window = t->cpu->hot.view->window;
    if (!window)
        return FORM_TABLE;
    if (!guess_address(t, address, &linear))
        return window->has_group[WINDOW_B] ? FORM_TABLE : FORM_A;
    return window_group(window, linear) == WINDOW_B ? FORM_B : FORM_A;
}

void emit_check(struct translation *t, unsigned address, unsigned group) {
    struct emitter *e = &t->e;
    emit_check_index(e, REG_A, address);
    struct emit_memory entry = memory_indexed(REG_R, REG_A, 8, R_CHECK(window_check_table(group)));
    emit_op_memory(e, 0, false, 0x8b, REG_A, &entry);
}

/* The place of `base` + displacement in the group; B's addend is kept in T for the block. */
static struct emit_memory place_in_group(struct translation *t, unsigned group, unsigned base, int32_t displacement) {
    struct emit_memory place = memory_at(base, displacement);
    if (group == WINDOW_A) {
        place.segment = SEGMENT_GS;
        return place;
    }
    if (!t->has_addend_b)
        emit_load(&t->e, REG_T, R_STATE(hot.window_addend[1]));
    t->has_addend_b = true;
    t->tabled = 0;
    place.index = REG_T;
    return place;
}

void emit_region_addend(struct emitter *e, unsigned to, unsigned address) {
    emit_bits16(e, to, address, VIEW_REGION_SHIFT);
    struct emit_memory cell = memory_indexed(REG_R, to, 8, R_TABLE(region));
    emit_op_memory(e, 0, true, 0x8b, to, &cell);
}

/* Any region: its addend comes from a table, and the access waits for it. `to`: A, or T. */
static struct emit_memory place_by_table(struct translation *t, unsigned to, unsigned base, int32_t displacement) {
    struct emit_memory entry = memory_indexed(REG_R, to, 8, R_CHECK(VIEW_ADDENDS));
    if (t->e.lacks_bmi2) {
        emit_region_addend(&t->e, to, base);
    } else {
        emit_check_index(&t->e, to, base);
        emit_op_memory(&t->e, 0, true, 0x8b, to, &entry);
    }
    return memory_indexed(base, to, 1, displacement);
}

static struct emit_memory place_by_form(struct translation *t, enum site_form form, unsigned base,
                                        int32_t displacement) {
    if (form == FORM_TABLE)
        return place_by_table(t, REG_A, base, displacement);
    unsigned group = form == FORM_B ? WINDOW_B : WINDOW_A;
    emit_check(t, base, group);
    return place_in_group(t, group, base, displacement);
}

/* As for the linear address in S. */
static struct emit_memory place_linear(struct translation *t, const struct address *address) {
    if ((t->key & MODE_CODE) == MODE_CODE64)
        return place_by_form(t, form_of(t, address), REG_S, 0);
    struct emit_memory place = memory_at(REG_S, 0);
    place.segment = SEGMENT_GS;
    place.is_address32 = true;
    return place;
}

bool keeps_place(const struct translation *t, unsigned segment) {
    const uint32_t mask = MODE_CPL | MODE_CODE | MODE_WINDOW;
    return segment == CPU_GS && (t->key & mask) == (MODE_CODE64 | MODE_WINDOW);
}

void emit_place(struct translation *t, unsigned segment, unsigned base) {
    struct emitter *e = &t->e;
    emit_region_addend(e, REG_A, base);
    emit_add_lea(e, REG_A, REG_A, base, 0);
    emit_store(e, R_STATE(hot.segment_place[0]) + 8 * (int32_t)(segment - CPU_FS), REG_A);
}

/*
 * Where the offset is known, user code needs no look at the base and limit of FS or GS, nor 64-bit supervisor code at that of
 * GS: C code, and what changes GS in place, keeps the host address of offset 0, with guards all around; of a segment that
 * this does not do for, it is none, and its site uses the check then.
 */
static bool has_segment_place(const struct translation *t, const struct address *address, int64_t *offset) {
    bool is_64 = (t->key & MODE_CODE) == MODE_CODE64;
    uint64_t sum = (uint64_t)address->displacement;
    bool is_kept = (t->key & MODE_CPL) == MODE_CPL || keeps_place(t, address->segment);
    if (address->segment < CPU_FS || !is_kept || address->size != (is_64 ? 8 : 4))
        return false;
    if (!is_64 && engine_site_form(t->engine, instruction_physical(t)) != FORM_UNKNOWN)
        return false;
    if (!address->is_constant) {
        if (address->index != CPU_NO_REGISTER || !(t->constants & (1u << address->base)) || t->loop.is_found)
            return false;
        sum += t->constant[address->base];
    }
    *offset = is_64 ? (int64_t)sum : (int32_t)sum;
    return *offset >= -WINDOW_REACH && *offset <= WINDOW_REACH;
}

static struct emit_memory place_in_segment(struct translation *t, unsigned segment, int64_t offset) {
    emit_load(&t->e, REG_A, R_STATE(hot.segment_place[0]) + 8 * (int32_t)(segment - CPU_FS));
    return memory_at(REG_A, (int32_t)offset);
}

/* The whole 32-bit address is the operand's own, and the host wraps it at 4 GiB. */
static struct emit_memory place_plain32(const struct translation *t, const struct address *address) {
    struct emit_memory place = memory_indexed(HOST_NONE, HOST_NONE, address->scale, (int32_t)address->displacement);
    place.segment = SEGMENT_GS;
    place.is_address32 = true;
    if (address->base != CPU_NO_REGISTER)
        place.base = t->home[address->base];
    if (address->index != CPU_NO_REGISTER)
        place.index = t->home[address->index];
    return place;
}

/* An address that is known now: its region's addend is one load. */
static struct emit_memory place_constant64(struct translation *t, uint64_t address, bool is_relative) {
    emit_load(&t->e, REG_A, R_TABLE(region) + 8 * (int32_t)(address >> VIEW_REGION_SHIFT & (VIEW_REGIONS - 1)));
    if (is_relative)
        note_rip(t, address, RELOCATE_REGION);
    if ((uint64_t)(int32_t)address == address)
        return memory_at(REG_A, (int32_t)address);
    emit_mov_immediate(&t->e, REG_S, address);
    if (is_relative)
        note_rip(t, address, RELOCATE_RIP);
    return memory_indexed(REG_S, REG_A, 1, 0);
}

/* What is made there by the host was in a region, so the stack pointer is as near to one. */
static void note_stack_access(struct translation *t, int32_t displacement) {
    int32_t distance = displacement - t->stack;
    if (!t->loop.is_found && loop_makes_access(&t->in))
        t->drift[CPU_RSP] = (uint32_t)(distance < 0 ? -distance : distance);
}

/* [base + displacement]: a base that was checked in this block, and is still near that place, needs no check. */
static struct emit_memory place_by_base64(struct translation *t, const struct address *address) {
    unsigned guest = address->base, base = emit_guest(t, guest, REG_S);
    int32_t displacement = (int32_t)address->displacement;
    unsigned known = loop_group(t, address);
    if (t->loop.biased & (1u << guest))
        return memory_at(base, displacement);
    for (unsigned group = 0; group < WINDOW_GROUPS; group++)
        if (known == group || (t->checked[group] & (1u << guest))) {
            if (guest == CPU_RSP && group == WINDOW_A && address->index == CPU_NO_REGISTER)
                note_stack_access(t, displacement);
            return place_in_group(t, group, base, displacement);
        }
    if (t->tabled & (1u << guest))
        return memory_indexed(base, REG_T, 1, displacement);
    enum site_form form = form_of(t, address);
    if (form == FORM_TABLE && !t->has_addend_b && !t->loop.is_found) { /* where T is free, for the next accesses, too */
        t->tabled = (uint16_t)(1u << guest);
        t->drift[guest] = 0;
        return place_by_table(t, REG_T, base, displacement);
    }
    if (form != FORM_TABLE) {
        t->checked[form == FORM_B ? WINDOW_B : WINDOW_A] |= (uint16_t)(1u << guest);
        t->drift[guest] = 0;
    }
    return place_by_form(t, form, base, displacement);
}

/* The same with an index that does not lead far from there (has_near_index). */
static struct emit_memory place_near64(struct translation *t, const struct address *address) {
    struct emit_memory place = place_by_base64(t, address);
    if (address->index == CPU_NO_REGISTER)
        return place;
    if (place.index != HOST_NONE) { /* the addend */
        unsigned sum = place.index == REG_A ? REG_A : REG_S;
        emit_add_lea(&t->e, sum, place.base, place.index, 0);
        place.base = (uint8_t)sum;
    }
    place.index = (uint8_t)emit_guest(t, address->index, place.base == REG_A ? REG_S : REG_A);
    place.scale = address->scale;
    return place;
}

static bool has_near_index(const struct translation *t, const struct address *address) {
    if (address->index == CPU_NO_REGISTER || !(t->bounded & (1u << address->index)))
        return false;
    int64_t distance = address->displacement < 0 ? -address->displacement : address->displacement;
    if (address->base == CPU_NO_REGISTER) /* a table at a constant address */
        distance = (int32_t)address->displacement == address->displacement ? 0 : WINDOW_REACH;
    return distance + (int64_t)t->most[address->index] * address->scale <= WINDOW_REACH;
}

/* [constant + index * scale]: as for the constant alone. */
static struct emit_memory place_in_table64(struct translation *t, const struct address *address) {
    uint64_t start = (uint64_t)address->displacement;
    emit_load(&t->e, REG_A, R_TABLE(region) + 8 * (int32_t)(start >> VIEW_REGION_SHIFT & (VIEW_REGIONS - 1)));
    unsigned index = emit_guest(t, address->index, REG_S);
    return memory_indexed(REG_A, index, address->scale, (int32_t)address->displacement);
}

/* [base + index * scale + displacement] whose sum was checked in front of the loop. */
static struct emit_memory place_checked64(struct translation *t, const struct address *address) {
    if (loop_group(t, address) == WINDOW_A) {
        unsigned base = address->base == CPU_NO_REGISTER ? HOST_NONE : emit_guest(t, address->base, REG_S);
        struct emit_memory place = memory_indexed(base, emit_guest(t, address->index, REG_A), address->scale,
                                                  (int32_t)address->displacement);
        place.segment = SEGMENT_GS;
        return place;
    }
    if (address->base != CPU_NO_REGISTER && t->loop.biased & (1u << address->base))
        return memory_indexed(t->home[address->base], emit_guest(t, address->index, REG_A), address->scale,
                              (int32_t)address->displacement);
    emit_offset(t, address);
    return place_in_group(t, WINDOW_B, REG_S, 0);
}

static bool is_near(int64_t displacement) {
    return displacement >= -WINDOW_REACH && displacement <= WINDOW_REACH;
}

static struct emit_memory place_in_window(struct translation *t, const struct address *address, unsigned size,
                                          enum memory_kind kind) {
    bool is_64 = (t->key & MODE_CODE) == MODE_CODE64, is_flat = is_flat_segment(t, address->segment, kind);
    int64_t offset;
    if (is_flat && !is_64 && address->size == 4)
        return place_plain32(t, address);
    if (is_flat && is_64 && address->size == 8 && address->is_constant)
        return place_constant64(t, (uint64_t)address->displacement, address->is_relative);
    if (is_flat && is_64 && address->size == 8 && address->base != CPU_NO_REGISTER &&
        address->index == CPU_NO_REGISTER && is_near(address->displacement))
        return place_near64(t, address);
    if (is_flat && is_64 && address->size == 8 && is_near(address->displacement) &&
        loop_group(t, address) != WINDOW_GROUPS)
        return place_checked64(t, address);
    if (is_flat && is_64 && address->size == 8 && has_near_index(t, address))
        return address->base == CPU_NO_REGISTER ? place_in_table64(t, address) : place_near64(t, address);
    if (has_segment_place(t, address, &offset))
        return place_in_segment(t, address->segment, offset);
    emit_offset(t, address);
    emit_segment(t, address->segment, size, kind);
    return place_linear(t, address);
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
        return place_linear(t, address);
    }
    emit_access(t, address, size, kind);
    return memory_indexed(REG_S, REG_A, 1, 0);
}

struct emit_memory emit_reach(struct translation *t, const struct address *address, unsigned size,
                              enum memory_kind kind) {
    if (uses_window(t))
        return place_in_window(t, address, size, kind);
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
    unsigned size = is_line_operation(t->in.z->mnemonic) || !operand->size ? 1 : operand->size / 8;
    return emit_reach(t, &address, size, kind);
}

/* ---- Places ---- */

static bool names(const struct emit_memory *place, unsigned reg) {
    return place->base == reg || place->index == reg;
}

void emit_flatten(struct translation *t, struct emit_memory *place, unsigned reg) {
    struct emit_memory sum = *place;
    sum.segment = 0;
    sum.is_address32 = false;
    emit_lea(&t->e, !place->is_address32, reg, &sum);
    place->base = (uint8_t)reg;
    place->index = HOST_NONE;
    place->scale = 1;
    place->displacement = 0;
}

unsigned emit_free_scratch(struct translation *t, struct emit_memory *place) {
    if (!names(place, REG_S))
        return REG_S;
    if (names(place, REG_A) || place->index != HOST_NONE)
        emit_flatten(t, place, REG_A);
    return names(place, REG_S) ? REG_A : REG_S;
}
