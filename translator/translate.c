/*
 * From guest instructions to a block: read, decode, look up the rule, rewrite, commit. Read top to bottom:
 * translate_block at the end is the whole pipeline.
 */
#include <string.h>

#include "cpu/views.h"
#include "translator/translation.h"

/* ---- Sites ---- */

struct site *add_site(struct translation *t, enum site_kind kind) {
    if (t->site_count == BLOCK_SITES) {
        t->failed = true;
        t->site_count--;
    }
    struct site *site = &t->sites[t->site_count++];
    *site = (struct site){.host = host_offset(t), .guest = (uint16_t)(t->in.rip - t->start_rip), .kind = (uint8_t)kind};
    return site;
}

void emit_raise(struct translation *t, enum cpu_vector vector, bool is_missing) {
    emit_call(&t->e, t->engine->stubs.exit);
    struct site *site = add_site(t, SITE_RAISE);
    site->data = vector;
    site->info = is_missing;
    t->ended = true;
}

/* Memory operands that are longer or shorter than the operand size: far pointers, images, selectors. */
static bool has_other_memory_size(cpu_op_function *function) {
    return function == cpu_op_fxsave || function == cpu_op_fxrstor || function == cpu_op_xsave ||
           function == cpu_op_xsavec || function == cpu_op_xsaves || function == cpu_op_xrstor ||
           function == cpu_op_xrstors || function == cpu_op_far_call || function == cpu_op_far_jmp || function == cpu_op_load_far_pointer ||
           function == cpu_op_lgdt || function == cpu_op_lidt || function == cpu_op_lar || function == cpu_op_lsl;
}

void emit_helper(struct translation *t, cpu_op_function *function, bool ends_block, bool is_user) {
    struct helper_call *call = code_cache_allocate(&t->engine->cache, sizeof *call);
    if (!call) {
        t->failed = true;
        return;
    }
    *call = (struct helper_call){
        .function = function, .block = t->block, .rip = t->in.rip, .ends_block = ends_block, .is_user = is_user,
        .is_plain = !ends_block && !(t->key & MODE_TF)};
    decode_op(t, &call->op);
    unsigned opcode = t->in.z->opcode;
    if (has_other_memory_size(function))
        call->op.size = t->in.z->operand_width / 8;
    if (function == cpu_op_maskmov)
        call->op.size = t->in.z->mnemonic == ZYDIS_MNEMONIC_MASKMOVQ ? 8 : 16;
    if (function == cpu_op_load_far_pointer)
        call->op.immediate2 = opcode == 0xc5   ? CPU_DS
                              : opcode == 0xc4 ? CPU_ES
                              : opcode == 0xb2 ? CPU_SS
                              : opcode == 0xb4 ? CPU_FS
                                               : CPU_GS;
    if (function == cpu_op_push_segment || function == cpu_op_pop_segment)
        call->op.reg = opcode >> 3 & 7;
    emit_mov_immediate(&t->e, REG_S, (uint64_t)call);
    note_pointer(t, call, RELOCATE_HELPER);
    emit_call(&t->e, t->engine->stubs.helper);
    t->ended |= ends_block;
}

/* ---- One instruction ---- */

static void translate_lea(struct translation *t) {
    const ZydisDecodedOperand *memory = NULL;
    for (unsigned i = 0; i < t->in.z->operand_count; i++)
        if (t->in.operand[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
            memory = &t->in.operand[i];
    bool high;
    unsigned guest = decode_gpr(t->in.operand[0].reg.value, &high), bits = t->in.z->operand_width;
    struct address address = address_of(t, memory);
    unsigned host = t->home[guest];
    if (host != HOST_NONE && bits != 16 && address.size != 2) {
        if (bits == 32) {
            address.displacement = address.is_constant ? (uint32_t)address.displacement : address.displacement;
            address.size = 4;
        }
        emit_offset_to(t, &address, host);
        return;
    }
    emit_offset(t, &address);
    if (host == HOST_NONE) {
        if (bits == 32)
            emit_mov32(&t->e, REG_S, REG_S);
        struct emit_memory slot = memory_at(REG_R, t->slot[guest]);
        emit_op_memory(&t->e, bits == 16 ? 0x66 : 0, bits != 16, 0x89, REG_S, &slot);
    } else if (bits == 16) {
        emit_op_register(&t->e, 0x66, false, 0x8b, host, REG_S);
    } else {
        emit_op_register(&t->e, 0, bits == 64, 0x8b, host, REG_S);
    }
}

/* BT, BTS, BTR, BTC [m], r: the bit may be far from the operand's address. */
static void translate_bit(struct translation *t) {
    const ZydisDecodedOperand *memory = &t->in.operand[0], *offset = &t->in.operand[1];
    if (memory->type != ZYDIS_OPERAND_TYPE_MEMORY || offset->type != ZYDIS_OPERAND_TYPE_REGISTER) {
        translate_copy(t);
        return;
    }
    struct emitter *e = &t->e;
    bool high, modifies = t->in.z->mnemonic != ZYDIS_MNEMONIC_BT;
    unsigned bytes = t->in.z->operand_width / 8, shift = bytes == 8 ? 6 : bytes == 4 ? 5 : 4;
    unsigned guest = decode_gpr(offset->reg.value, &high);
    enum memory_kind kind = modifies ? MEMORY_MODIFY : MEMORY_READ;
    struct address address = address_of(t, memory);

    /* Element index (signed) to the value slot, then S = offset + index * bytes. */
    int32_t index_slot = R_STATE(hot.scratch) + 8 * 2;
    unsigned from = emit_guest(t, guest, REG_S);
    if (bytes == 2) {
        emit_op_register(e, 0, true, 0x0fbf, REG_S, from); /* movsx */
        from = REG_S;
    } else if (bytes == 4) {
        emit_op_register(e, 0, true, 0x63, REG_S, from); /* movsxd */
        from = REG_S;
    }
    emit_sar(e, REG_A, from, shift);
    emit_store(e, index_slot, REG_A);
    emit_offset(t, &address);
    emit_load(e, REG_A, index_slot);
    struct emit_memory sum = memory_indexed(REG_S, REG_A, bytes, 0);
    emit_lea(e, address.size == 8, REG_S, &sum);
    if (address.size == 2)
        emit_zero_extend16(e, REG_S, REG_S);
    emit_access(t, &address, bytes, kind);

    /* The host's own instruction adds the index again, so its base is that much lower: A = S + A - index * bytes. */
    emit_add_lea(e, REG_A, REG_S, REG_A, 0);
    emit_load(e, REG_S, index_slot);
    static const uint8_t not_s[] = {0x49, 0xf7, 0xd3};
    emit_bytes(e, not_s, sizeof not_s);
    struct emit_memory lower = memory_indexed(REG_A, REG_S, bytes, (int32_t)bytes);
    emit_lea(e, true, REG_A, &lower);
    unsigned reg = emit_guest(t, guest, REG_S);
    struct emit_memory place = memory_at(REG_A, 0);
    if (t->in.z->attributes & ZYDIS_ATTRIB_HAS_LOCK)
        emit_u8(e, 0xf0);
    emit_op_memory(e, bytes == 2 ? 0x66 : 0, bytes == 8, 0x0f00 | t->in.z->opcode, reg, &place);
    emit_access_done(t, kind);
}

static void translate_xlat(struct translation *t) {
    struct emitter *e = &t->e;
    unsigned address_bytes = t->in.z->address_width / 8;
    struct address address = {.segment = CPU_DS, .size = (uint8_t)address_bytes};
    for (unsigned i = 0; i < t->in.z->operand_count; i++)
        if (t->in.operand[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
            address.segment = (uint8_t)decode_segment(t->in.operand[i].mem.segment);
    emit_op_register(e, 0, false, 0x0fb6, REG_S, HOST_RAX); /* movzx r11d, al */
    struct emit_memory sum = memory_indexed(t->home[CPU_RBX], REG_S, 1, 0);
    emit_lea(e, address_bytes == 8, REG_S, &sum);
    if (address_bytes == 2)
        emit_zero_extend16(e, REG_S, REG_S);
    struct emit_memory place = emit_reach_offset(t, &address, 1, MEMORY_READ);
    emit_op_memory(e, 0, false, 0x8a, HOST_RAX, &place);
}

int translate_fault(const struct translation *t) {
    uint32_t key = t->key;
    const struct rule *rule = &t->in.rule;
    bool is_real = !(key & MODE_PROTECTED) || (key & MODE_VM86);
    if (rule->feature != FEATURE_NONE && !cpu_model_has(t->cpu->model, (enum cpu_feature)rule->feature))
        return VECTOR_UD;
    if (rule->needs_vl && !cpu_model_has(t->cpu->model, FEATURE_AVX512VL))
        return VECTOR_UD;
    if (t->in.z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY && is_real)
        return VECTOR_UD;
    switch (rule->class) {
    case CLASS_X87:
        if (t->in.z->mnemonic == ZYDIS_MNEMONIC_FWAIT)
            return (key & (MODE_MP | MODE_TS)) == (MODE_MP | MODE_TS) ? VECTOR_NM : -1;
        return key & (MODE_EM | MODE_TS) ? VECTOR_NM : -1;
    case CLASS_MMX:
        return key & MODE_EM ? VECTOR_UD : key & MODE_TS ? VECTOR_NM : -1;
    case CLASS_SSE:
        return (key & MODE_EM) || !(key & MODE_OSFXSR) ? VECTOR_UD : key & MODE_TS ? VECTOR_NM : -1;
    case CLASS_AVX:
        return !(key & MODE_AVX) ? VECTOR_UD : key & MODE_TS ? VECTOR_NM : -1;
    case CLASS_AVX512:
        return !(key & MODE_AVX512) ? VECTOR_UD : key & MODE_TS ? VECTOR_NM : -1;
    default:
        return -1;
    }
}

/* FNINIT runs as it is; what is kept of the last x87 instruction (cpu/x87.c) ends with it. */
static void emit_forget_pointers(struct translation *t) {
    enum { BYTES = sizeof(struct cpu_x87) };
    _Static_assert(BYTES % 8 == 0, "cleared by eight bytes");
    for (int32_t i = 0; i < BYTES; i += 8) {
        struct emit_memory place = memory_at(REG_R, R_STATE(x87) + i);
        emit_op_memory(&t->e, 0, true, 0xc7, 0, &place);
        emit_u32(&t->e, 0);
    }
}

static void translate_instruction(struct translation *t) {
    const struct rule *rule = &t->in.rule;
    if (rule->kind == RULE_NONE || rule->kind == RULE_UD) {
        emit_raise(t, VECTOR_UD, rule->kind == RULE_NONE);
        return;
    }
    int fault = translate_fault(t);
    if (fault >= 0) {
        emit_raise(t, (enum cpu_vector)fault, false);
        return;
    }
    if (t->in.variable) {
        translate_variable(t);
        return;
    }
    switch (rule->kind) {
    case RULE_HELPER:
        if (translate_inline(t))
            break;
        emit_helper(t, rule->function, rule->flags & RULE_ENDS_BLOCK, rule->flags & RULE_USER);
        break;
    case RULE_NOTHING:
        break;
    case RULE_JUMP:
        translate_jump(t);
        break;
    case RULE_JCC:
        translate_jcc(t);
        break;
    case RULE_CALL:
        translate_call(t);
        break;
    case RULE_RET:
        translate_ret(t);
        break;
    case RULE_LOOP:
        translate_loop(t);
        break;
    case RULE_PUSH:
        translate_push(t);
        break;
    case RULE_POP:
        translate_pop(t);
        break;
    case RULE_LEAVE:
        translate_leave(t);
        break;
    case RULE_LEA:
        translate_lea(t);
        break;
    case RULE_BIT:
        translate_bit(t);
        break;
    case RULE_XLAT:
        translate_xlat(t);
        break;
    default:
        translate_copy(t);
        if (t->in.z->mnemonic == ZYDIS_MNEMONIC_FNINIT)
            emit_forget_pointers(t);
    }
}

/* ---- Reading ---- */

enum { SOURCE_BYTES = 1024 };
_Static_assert(SOURCE_BYTES >= (BLOCK_INSTRUCTIONS + 1) * 15, "the longest block, and what is decoded behind it");

/* The bytes of a block: those of its first page, and for one instruction those of the page behind. */
struct source {
    const uint8_t *bytes;
    unsigned left;         /* on the first page */
    uint8_t joined[32];
};

static const uint8_t *region_bytes(struct cpu *cpu, uint64_t physical) {
    struct memory_region *region = memory_find(cpu->memory, guest_physical_at(physical));
    return region ? memory_host(region, guest_physical_at(physical)) : NULL;
}

static uint64_t linear_of(const struct translation *t, uint64_t rip) {
    if ((t->key & MODE_CODE) == MODE_CODE64)
        return rip;
    return (t->cpu->segment[CPU_CS].base + rip) & 0xffffffffu;
}

/* Decodes an instruction that goes on in the next page. CPU_FAULT where that page cannot be fetched. */
static enum cpu_result decode_crossing(struct translation *t, struct source *source, uint64_t rip, bool *valid,
                                       uint64_t *needed_page) {
    uint64_t next = (linear_of(t, rip) & ~MEMORY_PAGE_MASK) + MEMORY_PAGE, page;
    if ((t->key & MODE_CODE) != MODE_CODE64)
        next &= 0xffffffffu;
    enum cpu_result result = cpu_fetch_page(t->cpu, next, &page);
    if (result != CPU_NEXT)
        return result;
    const uint8_t *more = region_bytes(t->cpu, page);
    memset(source->joined, 0xff, sizeof source->joined);
    memcpy(source->joined, source->bytes, source->left);
    if (more) {
        if (!engine_is_code(t->engine, page)) {
            *needed_page = page;
            return CPU_STOP;
        }
        memcpy(source->joined + source->left, more, 15);
    }
    *valid = decode_cached(t->engine->decoder, t->key, source->joined, 15, rip, &t->in);
    t->block->second_page = page;
    variable_refuse(t, t->block->physical + (rip - t->start_rip), source->left);
    variable_refuse(t, page, 15 - source->left);
    return CPU_NEXT;
}

/* ---- Committing ---- */

static void *copy_out(struct translation *t, const void *from, size_t size) {
    void *to = code_cache_allocate(&t->engine->cache, size);
    if (to)
        memcpy(to, from, size);
    else
        t->failed = true;
    return to;
}

static void finish(struct translation *t) {
    struct block *block = t->block;
    uint16_t map[MAP_WORDS_MOST * (BLOCK_INSTRUCTIONS + 1)];
    block->host = t->start + t->e.delta;
    block->host_size = (uint32_t)(t->e.at - t->start);
    block->site_count = (uint16_t)t->site_count;
    block->instruction_count = (uint16_t)t->instruction_count;
    block->sites = copy_out(t, t->sites, t->site_count * sizeof *t->sites);
    block->map_words = (uint16_t)map_pack(map, t->map, t->instruction_count);
    block->map = copy_out(t, map, block->map_words * sizeof *map);
    if (t->e.overflow || t->failed || !code_cache_commit(&t->engine->cache, block)) {
        t->failed = true;
        return;
    }
    block->is_valid = true;
    keep_relocations(t);
    t->engine->statistics.blocks_translated++;
    t->engine->statistics.instructions_translated += t->instruction_count;
    t->engine->statistics.code_bytes += block->host_size;
}

void log_block(struct engine *engine, const struct block *block, uint64_t linear, const uint8_t *guest) {
    const struct trapeze_log *log = &engine->log;
    if (!log->block || !(log->mask & (TRAPEZE_LOG_IN_ASM | TRAPEZE_LOG_OUT_ASM)))
        return;
    if (block->second_page == BLOCK_NO_PAGE)
        log->block(log->opaque, linear, code_bits(block->key), guest, block->guest_size, block->host,
                   block->host_size);
}

static bool is_past_limit(const struct translation *t) {
    if ((t->key & MODE_CODE) == MODE_CODE64)
        return false;
    return t->in.rip + t->in.z->length - 1 > t->cpu->segment[CPU_CS].limit;
}

/* Decodes the instruction at rip into t->in. False: the block ends in front of it, or *result says more. */
static bool next_instruction(struct translation *t, struct source *source, uint64_t rip, enum cpu_result *result,
                             uint64_t *needed_page) {
    bool valid = decode_cached(t->engine->decoder, t->key, source->bytes, source->left < 15 ? source->left : 15, rip, &t->in);
    if (!valid && source->left < 15) {
        if (t->instruction_count > 0)
            return false; /* it gets a block of its own */
        *result = decode_crossing(t, source, rip, &valid, needed_page);
        if (*result != CPU_NEXT)
            return false;
    }
    t->in.rip = rip;
    if (t->block->second_page == BLOCK_NO_PAGE)
        variable_look(t, valid ? t->in.z->length : source->left);
    if (t->must_retry)
        return false;
    if (!valid) {
        t->in.z->length = 1;
        t->in.rule = (struct rule){.kind = RULE_UD};
    }
    if (is_past_limit(t)) {
        if (t->instruction_count == 0)
            *result = cpu_fault_code(t->cpu, VECTOR_GP, 0);
        return false;
    }
    return true;
}

static bool is_breakpoint(const struct translation *t, uint64_t linear) {
    for (unsigned i = 0; i < t->engine->breakpoint_count; i++)
        if (t->engine->breakpoint[i] == linear)
            return true;
    return false;
}

static void emit_break(struct translation *t) {
    t->relocations.is_unmovable = true;
    emit_call(&t->e, t->engine->stubs.exit);
    add_site(t, SITE_BREAK);
    t->block->guest_size = (uint16_t)(t->block->guest_size + t->in.z->length);
    t->ended = true;
}

/* To the beginning of a part of a loop, for another copy of it. */
static uint64_t go_back(struct translation *t, struct source *source, uint64_t rip) {
    unsigned distance = (unsigned)(rip - t->start_rip) - t->loop.back_to;
    source->bytes -= distance;
    source->left += distance;
    t->loop.goes_back = false;
    return rip - distance;
}

static void translate_instructions(struct translation *t, struct source *source, enum cpu_result *result,
                                   uint64_t *needed_page) {
    uint64_t rip = t->start_rip;
    bool single = t->key & (MODE_SLOW | MODE_TF | MODE_BREAKPOINTS);
    unsigned most = single ? 1 : BLOCK_INSTRUCTIONS;
    while (!t->ended && t->instruction_count < most) {
        if (t->loop.is_found && t->instruction_count == 0)
            loop_enter(t);
        if (t->e.end - t->e.at < INSTRUCTION_ROOM || t->site_count + 16 + t->late_count > BLOCK_SITES ||
            t->late_count + 4 > BLOCK_LATE_EXITS)
            break;
        if (t->instruction_count > 0 && source->left == 0)
            break;
        if (!next_instruction(t, source, rip, result, needed_page))
            break;
        if (!(t->key & MODE_SLOW) && is_breakpoint(t, linear_of(t, rip))) {
            settle_stack(t);
            emit_break(t);
            t->instruction_count += t->instruction_count == 0;
            break;
        }
        if (!keeps_stack(t))
            settle_stack(t);
        t->map[t->instruction_count++] =
            (struct instruction_map){host_offset(t), (uint16_t)(rip - t->start_rip), (int16_t)t->stack};
        if (t->loop.is_found)
            loop_next(t);
        bool in_shadow = t->skips_poll;
        translate_instruction(t);
        note_written(t);
        if (t->loop.is_found)
            loop_after(t);
        if (in_shadow)
            t->skips_poll = false;
        unsigned length = t->in.z->length;
        rip += length;
        if (rip - t->start_rip > t->block->guest_size)
            t->block->guest_size = (uint16_t)(rip - t->start_rip);
        if (length >= source->left)
            break;
        source->bytes += length;
        source->left -= length;
        if (t->loop.goes_back)
            rip = go_back(t, source, rip);
    }
    if (t->loop.is_found) /* the block had no room for all of it */
        loop_break_off(t);
    settle_stack(t);
    if (t->instruction_count && !t->ended && may_stray(t)) {
        t->map[t->instruction_count++] = (struct instruction_map){host_offset(t), (uint16_t)(rip - t->start_rip), 0};
        hold_stack(t);
    }
    if (t->instruction_count && !t->ended)
        (t->skips_poll ? emit_shadowed_exit : emit_exit)(t, code_bits(t->key) == 64 ? rip : rip & 0xffffffffu);
    emit_late_exits(t);
}

/*
 * Copies as much of the page's rest as a block may be made from. Others may store to it meanwhile, and what was decided about
 * an instruction must hold for the one that is translated.
 */
static const uint8_t *copy_source(uint8_t copy[SOURCE_BYTES], const uint8_t *bytes, unsigned left) {
    return memcpy(copy, bytes, left < SOURCE_BYTES ? left : SOURCE_BYTES);
}

struct block *translate_block(struct engine *engine, struct cpu *cpu, uint64_t physical, uint32_t key,
                              enum cpu_result *result, uint64_t *needed_page) {
    uint8_t copy[SOURCE_BYTES];
    struct translation t;
    memset(&t, 0, offsetof(struct translation, in));
    t.engine = engine, t.cpu = cpu, t.key = key, t.start_rip = cpu->hot.rip;
    t.in.rip = t.start_rip, t.in.variable = 0;
    *result = CPU_NEXT;
    *needed_page = BLOCK_NO_PAGE;
    const uint8_t *bytes = region_bytes(cpu, physical);
    struct source source = {.bytes = bytes, .left = (unsigned)(MEMORY_PAGE - (physical & MEMORY_PAGE_MASK))};
    static const uint8_t open_bus[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                       0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    if (bytes)
        source.bytes = copy_source(copy, bytes, source.left);
    else
        source = (struct source){.bytes = open_bus, .left = 16};
    if (!code_cache_reserve(&engine->cache, BLOCK_ROOM, &t.e))
        return NULL;
    t.start = t.e.at;
    t.relocations.start = t.start, t.relocations.count = 0;
    t.relocations.is_unmovable = !bytes || !may_move(key, t.start_rip);
    t.e.relocations = &t.relocations;
    t.block = code_cache_allocate(&engine->cache, sizeof *t.block);
    if (!t.block)
        return NULL;
    for (unsigned i = 0; i < CPU_REGISTERS; i++) {
        t.home[i] = host_register[i];
        t.slot[i] = R_GPR(i);
    }
    *t.block = (struct block){.rip = t.start_rip, .physical = physical, .second_page = BLOCK_NO_PAGE, .key = key};
    guess_start(&t);
    know_stack(&t);
    struct memory_region *region = memory_find(cpu->memory, guest_physical_at(physical));
    t.code = region ? memory_code_page(region, guest_physical_at(physical)) : NULL;
    if (bytes && !t.code->variables)
        loop_plan(&t, source.bytes, source.left < SOURCE_BYTES ? source.left : SOURCE_BYTES);
    translate_instructions(&t, &source, result, needed_page);
    if (t.must_retry) /* each time there is one variable less */
        return translate_block(engine, cpu, physical, key, result, needed_page);
    if (*result != CPU_NEXT)
        return NULL;
    finish(&t);
    if (t.failed)
        return NULL;
    if (bytes)
        log_block(engine, t.block, linear_of(&t, t.start_rip), bytes);
    return t.block;
}
