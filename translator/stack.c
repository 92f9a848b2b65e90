/* PUSH, POP, PUSHA, POPA, LEAVE, and what CALL and RET do to the guest's stack: memory first, then the stack pointer. */
#include "memory/window.h"
#include "translator/translation.h"

static unsigned stack_bytes(const struct translation *t) {
    return (t->key & MODE_CODE) == MODE_CODE64 ? 8 : t->key & MODE_STACK32 ? 4 : 2;
}

/* [guest register + displacement] on the stack segment, wrapped to the stack's width. */
static struct address stack_address(const struct translation *t, unsigned base, int32_t displacement) {
    return (struct address){.segment = CPU_SS, .base = (uint8_t)base, .index = CPU_NO_REGISTER, .scale = 1,
                            .size = (uint8_t)stack_bytes(t),
                            .displacement = displacement + (base == CPU_RSP ? t->stack : 0)};
}

/* to (a host register) = from + displacement in the stack's width; the rest of `to` stays in 16 bits. */
static void emit_stack_add(struct translation *t, unsigned to, unsigned from, int32_t displacement) {
    struct emit_memory sum = memory_at(from, displacement);
    switch (stack_bytes(t)) {
    case 8:
        emit_lea(&t->e, true, to, &sum);
        break;
    case 4:
        emit_lea(&t->e, false, to, &sum);
        break;
    default:
        emit_lea(&t->e, false, REG_A, &sum);
        emit_op_register(&t->e, 0x66, false, 0x8b, to, REG_A);
    }
}

static bool may_owe_stack(const struct translation *t) {
    bool is_wide = (t->key & MODE_CODE) == MODE_CODE64 || ((t->key & MODE_FLAT) && stack_bytes(t) == 4);
    return is_wide && uses_window(t) && !t->loop.is_found;
}

/* A check of the segment leaves for C. */
static bool has_checked_segment(const struct translation *t, const ZydisDecodedOperand *operand) {
    if ((t->key & MODE_CODE) == MODE_CODE64 || operand->type != ZYDIS_OPERAND_TYPE_MEMORY)
        return false;
    unsigned segment = decode_segment(operand->mem.segment);
    return segment != CPU_DS && segment != CPU_ES && segment != CPU_SS;
}

static bool is_stack_register(const ZydisDecodedOperand *operand) {
    bool high;
    if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY)
        return decode_gpr(operand->mem.base, &high) == CPU_RSP || decode_gpr(operand->mem.index, &high) == CPU_RSP;
    return operand->type == ZYDIS_OPERAND_TYPE_REGISTER && decode_gpr(operand->reg.value, &high) == CPU_RSP;
}

bool keeps_stack(const struct translation *t) {
    const struct instruction *in = &t->in;
    unsigned operands = in->z->operand_count;
    if (!may_owe_stack(t) || in->variable || in->rule.kind == RULE_NONE || translate_fault(t) >= 0)
        return false;
    if (in->z->mnemonic == ZYDIS_MNEMONIC_DIV || in->z->mnemonic == ZYDIS_MNEMONIC_IDIV)
        return false; /* a divisor of 0 leaves for C */
    switch (in->rule.kind) {
    case RULE_COPY:
    case RULE_LEA:
    case RULE_NOTHING:
        break;
    case RULE_PUSH:
    case RULE_POP:
        if (in->operand[0].type == ZYDIS_OPERAND_TYPE_MEMORY)
            return false;
        operands = 1;
        break;
    case RULE_CALL:
        operands = 1;
        break;
    case RULE_RET:
        return true;
    default:
        return false;
    }
    for (unsigned i = 0; i < operands; i++)
        if (is_stack_register(&in->operand[i]) || has_checked_segment(t, &in->operand[i]))
            return false;
    return true;
}

void settle_stack(struct translation *t) {
    int32_t lacks = t->stack;
    t->stack = 0;
    if (lacks)
        emit_stack_add(t, t->home[CPU_RSP], t->home[CPU_RSP], lacks);
}

void emit_move_sp(struct translation *t, int32_t displacement) {
    bool may_owe = t->in.rule.kind == RULE_PUSH || t->in.rule.kind == RULE_POP;
    t->stack += displacement;
    if (!may_owe || !may_owe_stack(t))
        settle_stack(t);
}

static void emit_value_load(struct translation *t, unsigned bytes, unsigned to, const struct emit_memory *from) {
    if (bytes == 2)
        emit_op_memory(&t->e, 0, false, 0x0fb7, to, from);
    else
        emit_op_memory(&t->e, 0, bytes == 8, 0x8b, to, from);
}

static void emit_value_store(struct translation *t, unsigned bytes, unsigned from, const struct emit_memory *to) {
    emit_op_memory(&t->e, bytes == 2 ? 0x66 : 0, bytes == 8, 0x89, from, to);
}

/* Opens a store of `bytes` below the stack pointer. */
static struct emit_memory emit_push_access(struct translation *t, unsigned bytes) {
    struct address address = stack_address(t, CPU_RSP, -(int32_t)bytes);
    return emit_reach(t, &address, bytes, MEMORY_WRITE);
}

static void emit_push_done(struct translation *t, unsigned bytes) {
    emit_access_done(t, MEMORY_WRITE);
    emit_move_sp(t, -(int32_t)bytes);
}

bool pushes_beside_s(const struct translation *t) {
    return uses_window(t) && (t->key & MODE_CODE) == MODE_CODE64 &&
           ((t->checked[WINDOW_A] | t->checked[WINDOW_B]) & (1u << CPU_RSP));
}

void emit_push_constant(struct translation *t, uint64_t value, unsigned bytes) {
    struct emitter *e = &t->e;
    bool beside_s = pushes_beside_s(t);
    struct emit_memory place = emit_push_access(t, bytes);
    if (bytes == 8 && (uint64_t)(int32_t)value != value) {
        unsigned scratch = beside_s ? REG_A : emit_free_scratch(t, &place);
        emit_mov_immediate(e, scratch, value);
        if (t->in.rule.kind == RULE_CALL)
            note_rip(t, value, RELOCATE_RIP);
        emit_value_store(t, 8, scratch, &place);
    } else {
        t->relocations.is_unmovable |= t->in.rule.kind == RULE_CALL;
        emit_op_memory(e, bytes == 2 ? 0x66 : 0, bytes == 8, 0xc7, 0, &place);
        if (bytes == 2) {
            emit_u8(e, value & 0xff);
            emit_u8(e, value >> 8 & 0xff);
        } else {
            emit_u32(e, (uint32_t)value);
        }
    }
    emit_push_done(t, bytes);
}

/* Stores the value from its slot, or a register, at the open access. */
static void emit_store_value(struct translation *t, unsigned bytes, unsigned guest, struct emit_memory place) {
    if (guest != CPU_NO_REGISTER && t->home[guest] != HOST_NONE) {
        emit_value_store(t, bytes, t->home[guest], &place);
        return;
    }
    unsigned scratch = emit_free_scratch(t, &place);
    emit_load(&t->e, scratch, guest == CPU_NO_REGISTER ? R_VALUE : t->slot[guest]);
    emit_value_store(t, bytes, scratch, &place);
}

void translate_push(struct translation *t) {
    const ZydisDecodedOperand *operand = &t->in.operand[0];
    unsigned bytes = t->in.z->operand_width / 8;
    if (operand->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        emit_push_constant(t, operand->imm.value.u, bytes);
        return;
    }
    unsigned guest = CPU_NO_REGISTER;
    if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        struct emit_memory place = emit_operand(t, operand, MEMORY_READ);
        emit_value_load(t, bytes, REG_S, &place);
        emit_store(&t->e, R_VALUE, REG_S);
    } else {
        bool high;
        guest = decode_gpr(operand->reg.value, &high);
    }
    struct emit_memory top = emit_push_access(t, bytes);
    emit_store_value(t, bytes, guest, top);
    emit_push_done(t, bytes);
}

/* The selector's 16 bits, zero-extended in 64-bit code; the upper half of a 32-bit slot stays as it is (SDM vol. 2, PUSH). */
bool translate_push_segment(struct translation *t) {
    unsigned bytes = t->in.z->operand_width / 8, segment = t->in.z->opcode >> 3 & 7;
    if ((t->key & MODE_SLOW) || bytes == 2)
        return false;
    struct address top = stack_address(t, CPU_RSP, -(int32_t)bytes);
    unsigned stored = bytes == 8 ? 8 : 2;
    struct emit_memory place = emit_reach(t, &top, stored, MEMORY_WRITE);
    unsigned scratch = emit_free_scratch(t, &place);
    struct emit_memory selector = memory_at(
        REG_R, R_STATE(segment[0].selector) + (int32_t)(segment * sizeof(struct trapeze_segment)));
    emit_op_memory(&t->e, 0, false, 0x0fb7, scratch, &selector);
    emit_value_store(t, stored, scratch, &place);
    emit_push_done(t, bytes);
    return true;
}

void emit_push_value(struct translation *t, unsigned bytes) {
    struct emit_memory top = emit_push_access(t, bytes);
    emit_store_value(t, bytes, CPU_NO_REGISTER, top);
    emit_push_done(t, bytes);
}

/* Frames of PUSHA and POPA of 32-bit code that lie in one page, by the software tables: a window would let part of one be
   seen. */
enum { ALL_REGISTERS = 8, ALL_BYTES = 4 * ALL_REGISTERS };

static bool moves_all_in_place(const struct translation *t) {
    return t->in.z->operand_width == 32 && stack_bytes(t) == 4 && !(t->key & MODE_SLOW);
}

static struct emit_memory emit_frame(struct translation *t, int32_t displacement, unsigned bytes,
                                     enum memory_kind kind) {
    struct address address = stack_address(t, CPU_RSP, displacement);
    emit_offset(t, &address);
    emit_access(t, &address, bytes, kind);
    return memory_indexed(REG_S, REG_A, 1, 0);
}

static void emit_all(struct translation *t, struct emit_memory frame, bool is_pop) {
    for (unsigned guest = 0; guest < ALL_REGISTERS; guest++) {
        struct emit_memory place = frame;
        place.displacement += ALL_BYTES - 4 - 4 * (int32_t)guest;
        if (!is_pop || guest != CPU_RSP)
            emit_op_memory(&t->e, 0, false, is_pop ? 0x8b : 0x89, t->home[guest], &place);
    }
}

bool translate_pusha(struct translation *t) {
    if (!moves_all_in_place(t))
        return false;
    emit_frame(t, -4, 4, MEMORY_WRITE); /* what faults is the first push */
    emit_all(t, emit_frame(t, -ALL_BYTES, ALL_BYTES, MEMORY_WRITE), false);
    emit_push_done(t, ALL_BYTES);
    return true;
}

bool translate_popa(struct translation *t) {
    if (!moves_all_in_place(t))
        return false;
    emit_all(t, emit_frame(t, 0, ALL_BYTES, MEMORY_READ), true);
    emit_move_sp(t, ALL_BYTES);
    return true;
}

void emit_peek_to_s(struct translation *t, unsigned bytes) {
    struct address address = stack_address(t, CPU_RSP, 0);
    struct emit_memory place = emit_reach(t, &address, bytes, MEMORY_READ);
    emit_value_load(t, bytes, REG_S, &place);
}

void emit_pop_to_s(struct translation *t, unsigned bytes, unsigned release) {
    emit_peek_to_s(t, bytes);
    emit_move_sp(t, (int32_t)(bytes + release));
}

/* A guest register = S, of 2, 4 or 8 bytes. */
static void emit_set_guest(struct translation *t, unsigned guest, unsigned bytes) {
    unsigned host = t->home[guest];
    if (host == HOST_NONE) {
        struct emit_memory slot = memory_at(REG_R, t->slot[guest]);
        emit_value_store(t, bytes == 2 ? 2 : 8, REG_S, &slot);
    } else if (bytes == 2) {
        emit_op_register(&t->e, 0x66, false, 0x8b, host, REG_S);
    } else {
        emit_mov(&t->e, host, REG_S);
    }
}

void translate_pop(struct translation *t) {
    const ZydisDecodedOperand *operand = &t->in.operand[0];
    unsigned bytes = t->in.z->operand_width / 8;
    bool high;
    struct address top = stack_address(t, CPU_RSP, 0);
    if (operand->type == ZYDIS_OPERAND_TYPE_REGISTER) {
        unsigned guest = decode_gpr(operand->reg.value, &high), host = t->home[guest];
        if (host == HOST_NONE || guest == CPU_RSP) {
            emit_pop_to_s(t, bytes, 0);
            if (guest == CPU_RSP)
                settle_stack(t);
            emit_set_guest(t, guest, bytes);
            return;
        }
        struct emit_memory place = emit_reach(t, &top, bytes, MEMORY_READ);
        emit_op_memory(&t->e, bytes == 2 ? 0x66 : 0, bytes == 8, 0x8b, host, &place);
        emit_move_sp(t, (int32_t)bytes);
        return;
    }
    struct emit_memory place = emit_reach(t, &top, bytes, MEMORY_READ);
    emit_value_load(t, bytes, REG_S, &place);
    emit_store(&t->e, R_VALUE, REG_S);
    struct address to = address_of(t, operand);
    if (to.base == CPU_RSP)
        to.displacement += bytes; /* the address counts with the new stack pointer */
    emit_store_value(t, bytes, CPU_NO_REGISTER, emit_reach(t, &to, bytes, MEMORY_WRITE));
    emit_access_done(t, MEMORY_WRITE);
    emit_move_sp(t, (int32_t)bytes);
}

void translate_leave(struct translation *t) {
    unsigned bytes = t->in.z->operand_width / 8;
    struct address frame = stack_address(t, CPU_RBP, 0);
    struct emit_memory place = emit_reach(t, &frame, bytes, MEMORY_READ);
    emit_value_load(t, bytes, REG_S, &place);
    emit_stack_add(t, t->home[CPU_RSP], t->home[CPU_RBP], (int32_t)bytes);
    emit_set_guest(t, CPU_RBP, bytes);
}
