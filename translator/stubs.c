/*
 * The ways out of translated code into C and back, made once per machine.
 *
 * Out: guest registers go to cpu->hot.gpr, flags to raw_flags, the scratch registers to hot.scratch; the C function
 * runs on the stack that `enter` was called on, and is given the struct cpu in front of the view that was current. Back:
 * everything is loaded again, R from the view that is current then.
 */
#include "translator/dispatch.h"

enum { SCRATCH_A = 0, SCRATCH_S = 1, SCRATCH_T = 4 };

#define R_SCRATCH(i) (R_STATE(hot.scratch) + 8 * (i))
#define CPU_OFFSET(field) ((int32_t)offsetof(struct cpu, field))

static void load_from(struct emitter *e, unsigned to, unsigned base, int32_t offset) {
    struct emit_memory memory = memory_at(base, offset);
    emit_op_memory(e, 0, true, 0x8b, to, &memory);
}

static void store_to(struct emitter *e, unsigned base, int32_t offset, unsigned from) {
    struct emit_memory memory = memory_at(base, offset);
    emit_op_memory(e, 0, true, 0x89, from, &memory);
}

static void push(struct emitter *e, unsigned reg) {
    if (reg > 7)
        emit_u8(e, 0x41);
    emit_u8(e, 0x50 | (reg & 7));
}

static void pop(struct emitter *e, unsigned reg) {
    if (reg > 7)
        emit_u8(e, 0x41);
    emit_u8(e, 0x58 | (reg & 7));
}

static const uint8_t callee_saved[] = {HOST_RBX, HOST_RBP, HOST_R12, HOST_R13, HOST_R14, HOST_R15};

/* R = cpu->hot.view->tables + VIEW_R, with the cpu in rbx. */
static void emit_load_base(struct emitter *e) {
    load_from(e, REG_R, HOST_RBX, CPU_OFFSET(hot.view));
    load_from(e, REG_R, REG_R, (int32_t)offsetof(struct view, tables));
    struct emit_memory base = memory_at(REG_R, VIEW_R);
    emit_lea(e, true, REG_R, &base);
}

/* The guest's flags, from rcx: sahf for all but OF, which 7Fh + 1 makes, and DF, which is clear here. Uses rax. */
static void emit_load_flags(struct emitter *e) {
    static const uint8_t code[] = {
        0xf6, 0xc5, 0x04, /* test ch, 4 */
        0x74, 0x01,       /* je over the next: DF is seldom set */
        0xfd,             /* std */
        0x89, 0xc8,       /* mov eax, ecx */
        0xc1, 0xe8, 0x0b, /* shr eax, 11 */
        0x83, 0xe0, 0x01, /* and eax, 1 */
        0x88, 0xcc,       /* mov ah, cl */
        0x04, 0x7f,       /* add al, 7fh */
        0x9e,             /* sahf */
    };
    emit_bytes(e, code, sizeof code);
}

static void emit_load_guest(struct emitter *e) {
    for (unsigned guest = 0; guest < CPU_REGISTERS; guest++)
        if (host_register[guest] != HOST_NONE)
            emit_load(e, host_register[guest], R_GPR(guest));
}

/* Loads flags (clobbers rax, rcx) and guest registers, with the cpu in rbx and the host address in scratch S's slot. */
static void emit_resume(struct emitter *e) {
    emit_load_base(e);
    emit_load(e, HOST_RSP, R_STATE(hot.shadow_stack));
    emit_load(e, HOST_RCX, R_STATE(hot.raw_flags));
    emit_load_flags(e);
    emit_load_guest(e);
    emit_load(e, REG_A, R_SCRATCH(SCRATCH_A));
    emit_load(e, REG_T, R_SCRATCH(SCRATCH_T));
    struct emit_memory target = memory_at(REG_R, R_STATE(hot.raw));
    emit_load(e, REG_S, R_SCRATCH(SCRATCH_S));
    emit_op_memory(e, 0, false, 0xff, 4, &target); /* jmp [hot.raw[0]] */
}

/* Guest registers to their places. */
static void emit_put_away(struct emitter *e) {
    for (unsigned guest = 0; guest < CPU_REGISTERS; guest++)
        if (host_register[guest] != HOST_NONE)
            emit_store(e, R_GPR(guest), host_register[guest]);
}

/*
 * rbx = struct cpu as it lies in front of the current view. C code that is given this address reads and writes the same
 * linear addresses as translated code: on an alias the host neither forwards stores nor guesses the way in its cache,
 * which costs more than all the rest of a way out.
 */
static void emit_own_cpu(struct emitter *e) {
    struct emit_memory cpu = memory_at(REG_R, -(int32_t)sizeof(struct cpu) - VIEW_R);
    emit_lea(e, true, HOST_RBX, &cpu);
}

/*
 * The way to a C function that runs one instruction, which mostly comes back right here: its return address stays on the
 * shadow stack, so that the host predicts the return, no scratch register matters, and of the flags those come back that
 * hot.rflags has.
 */
static void emit_helper_stub(struct emitter *e, struct stubs *stubs, uint64_t leave) {
    stubs->helper = emit_address(e);
    emit_put_away(e);
    emit_store(e, R_STATE(hot.shadow_stack), HOST_RSP);
    emit_load(e, HOST_RSP, R_STATE(hot.c_stack)); /* the shadow stack may be full */
    emit_u8(e, 0x9c); /* pushfq */
    pop(e, HOST_RAX);
    emit_store(e, R_STATE(hot.raw_flags), HOST_RAX);
    emit_u8(e, 0xfc); /* cld */
    emit_own_cpu(e);
    emit_mov(e, HOST_RDI, HOST_RBX);
    emit_mov(e, HOST_RSI, REG_S);
    emit_mov_immediate(e, HOST_RAX, (uint64_t)engine_helper);
    emit_bytes(e, (const uint8_t[]){0xff, 0xd0}, 2);             /* call rax */
    emit_bytes(e, (const uint8_t[]){0x48, 0x83, 0xe8, 0x01}, 4); /* sub rax, HELPER_GOES_ON */
    emit_jcc(e, 2, leave);
    uint8_t *goes_on = emit_jcc_short(e, 4);
    emit_bytes(e, (const uint8_t[]){0x48, 0xff, 0xc0}, 3); /* inc rax */
    store_to(e, HOST_RBX, CPU_OFFSET(hot.raw), HOST_RAX);
    emit_jump(e, stubs->resume);

    emit_here(e, goes_on);
    load_from(e, HOST_RCX, HOST_RBX, CPU_OFFSET(hot.rflags));
    emit_load_base(e);
    emit_load_flags(e);
    load_from(e, HOST_RSP, HOST_RBX, CPU_OFFSET(hot.shadow_stack));
    emit_load_guest(e);
    stubs->helped = emit_address(e);
    emit_u8(e, 0xc3); /* ret */
}

/* Saves everything, calls function(cpu, return address), and goes where it says. */
static uint64_t emit_way_out(struct emitter *e, uint64_t (*function)(struct cpu *, uint64_t), uint64_t leave) {
    uint64_t start = emit_address(e);
    emit_put_away(e);
    emit_store(e, R_SCRATCH(SCRATCH_A), REG_A);
    emit_store(e, R_SCRATCH(SCRATCH_S), REG_S);
    emit_store(e, R_SCRATCH(SCRATCH_T), REG_T);
    pop(e, HOST_RSI);  /* the return address */
    emit_u8(e, 0x9c);  /* pushfq */
    pop(e, HOST_RAX);
    emit_store(e, R_STATE(hot.raw_flags), HOST_RAX);
    emit_u8(e, 0xfc);  /* cld */
    emit_store(e, R_STATE(hot.shadow_stack), HOST_RSP);
    emit_own_cpu(e);
    emit_load(e, HOST_RSP, R_STATE(hot.c_stack));
    emit_mov(e, HOST_RDI, HOST_RBX);
    emit_mov_immediate(e, HOST_RAX, (uint64_t)function);
    emit_u8(e, 0xff);  /* call rax */
    emit_u8(e, 0xd0);
    static const uint8_t test_rax[] = {0x48, 0x85, 0xc0};
    emit_bytes(e, test_rax, sizeof test_rax);
    emit_jcc(e, 4, leave);
    store_to(e, HOST_RBX, CPU_OFFSET(hot.raw), HOST_RAX);
    emit_resume(e);
    return start;
}

/* void enter(struct cpu *cpu, uint64_t host), and the way to return from it. */
static void emit_enter(struct emitter *e, struct stubs *stubs, uint64_t *leave) {
    stubs->enter = emit_address(e);
    for (unsigned i = 0; i < sizeof callee_saved; i++)
        push(e, callee_saved[i]);
    static const uint8_t align[] = {0x48, 0x83, 0xec, 0x08}; /* sub rsp, 8: calls from here are aligned */
    emit_bytes(e, align, sizeof align);
    emit_mov(e, HOST_RBX, HOST_RDI);
    store_to(e, HOST_RBX, CPU_OFFSET(hot.c_stack), HOST_RSP);
    store_to(e, HOST_RBX, CPU_OFFSET(hot.raw), HOST_RSI);
    stubs->resume = emit_address(e);
    emit_resume(e);

    *leave = emit_address(e);
    static const uint8_t unalign[] = {0x48, 0x83, 0xc4, 0x08}; /* add rsp, 8 */
    emit_bytes(e, unalign, sizeof unalign);
    for (unsigned i = sizeof callee_saved; i-- > 0;)
        pop(e, callee_saved[i]);
    emit_u8(e, 0xc3);
}

/* Where the table at the offset from R knows S, goes there with the stack pointer moved; else falls through. Uses A. */
static void emit_try_jump(struct emitter *e, int32_t table, int32_t adjust) {
    struct emit_memory stack = memory_at(HOST_RSP, adjust);
    struct emit_memory tag = memory_indexed(REG_R, REG_A, 8, table + (int32_t)offsetof(struct view_jump, negative_target));
    struct emit_memory host = memory_indexed(REG_R, REG_A, 8, table + (int32_t)offsetof(struct view_jump, host));
    emit_jump_index(e, REG_A);
    emit_op_memory(e, 0, true, 0x8b, REG_A, &tag);
    emit_add_lea(e, REG_A, REG_S, REG_A, 0);
    uint8_t *hit = emit_jrcxz(e), *miss = emit_jump_short(e);
    emit_here(e, hit);
    if (adjust)
        emit_lea(e, true, HOST_RSP, &stack);
    emit_jump_index(e, REG_A);
    emit_op_memory(e, 0, false, 0xff, 4, &host);
    emit_here(e, miss);
}

/* Leads the branch of emit_jrcxz, which is short, to where emit_jump_here says. */
static uint8_t *emit_far(struct emitter *e, uint8_t *branch) {
    uint8_t *over = emit_jump_short(e);
    emit_here(e, branch);
    emit_jump(e, emit_address(e));
    uint8_t *behind = e->at;
    emit_here(e, over);
    return behind;
}

/* A return that the shadow stack did not know: where the jump cache knows S and nothing is pending, goes there with the
   stack pointer moved; else falls through. */
static void emit_return_lookup(struct emitter *e, int32_t adjust) {
    emit_load32(e, REG_A, R_STATE(hot.run));
    uint8_t *leaves = emit_far(e, emit_jrcxz(e));
    emit_try_jump(e, R_TABLE(jump), adjust);
    emit_try_jump(e, R_TABLE(second_jump), adjust);
    emit_jump_here(e, leaves);
}

/* S was not in its place; leaves by `way_out` where it is not in the other one either. */
static void emit_second_look(struct emitter *e, uint64_t way_out) {
    emit_try_jump(e, R_TABLE(second_jump), 0);
    emit_bytes(e, (const uint8_t[]){0x41, 0x57}, 2); /* push r15: the return address */
    emit_jump(e, way_out);
}

/* The flags of the image in A; uses T. */
static void emit_set_flags(struct emitter *e, struct stubs *stubs) {
    stubs->set_flags = emit_address(e);
    emit_u8(e, 0xfc); /* cld */
    emit_mov(e, REG_T, HOST_RAX);
    emit_load_flags(e);
    emit_mov(e, HOST_RAX, REG_T);
    emit_u8(e, 0xc3);
}

/*
 * A miss that only crosses into the next page, where both pages are in the tables and side by side on the host: back to
 * the access, which then reaches over the boundary. Else falls through with S as it was.
 */
static void emit_crossing(struct emitter *e, int32_t tags) {
    struct emit_memory tag = memory_indexed(REG_R, REG_T, 8, tags);
    struct emit_memory addend = memory_indexed(REG_R, REG_T, 8, R_TABLE(addend));
    struct emit_memory addend_before = memory_indexed(REG_R, REG_T, 8, R_TABLE(addend) - 8);
    struct emit_memory next = memory_at(REG_T, 1);
    static const uint8_t not_a[] = {0x48, 0xf7, 0xd1}, skip[] = {0xeb, 0};
    emit_op_memory(e, 0, true, 0x8b, REG_A, &tag); /* its first byte is in the page */
    emit_add_lea(e, REG_A, REG_S, REG_A, 0);
    emit_page_number(e, REG_A);
    uint8_t *begins_here = emit_jrcxz(e);
    emit_bytes(e, skip, sizeof skip);
    uint8_t *misses = e->at;
    emit_here(e, begins_here);
    emit_lea(e, false, REG_A, &next);
    emit_zero_extend16(e, REG_A, REG_A);
    uint8_t *wraps = emit_jrcxz(e); /* the index, so that there is no entry in front of the next page's */
    emit_mov(e, REG_T, REG_A);
    emit_op_memory(e, 0, true, 0x8b, REG_A, &tag);
    emit_add_lea(e, REG_A, REG_S, REG_A, MEMORY_PAGE);
    emit_page_number(e, REG_A);
    uint8_t *has_next = emit_jrcxz(e);
    emit_bytes(e, skip, sizeof skip);
    uint8_t *lacks_next = e->at;
    emit_here(e, has_next);
    emit_op_memory(e, 0, true, 0x8b, REG_A, &addend);
    emit_op_memory(e, 0, true, 0x8b, REG_T, &addend_before);
    emit_bytes(e, not_a, sizeof not_a);
    emit_add_lea(e, REG_A, REG_T, REG_A, 1); /* the difference of the two */
    emit_bits16(e, REG_T, REG_S, 12);
    uint8_t *is_contiguous = emit_jrcxz(e);
    emit_bytes(e, skip, sizeof skip);
    uint8_t *apart = e->at;
    emit_here(e, is_contiguous);
    emit_u8(e, 0xc3); /* ret */
    emit_here(e, misses);
    emit_here(e, wraps);
    emit_here(e, lacks_next);
    emit_here(e, apart);
}

bool stubs_create(struct engine *engine) {
    struct emitter e;
    if (!code_cache_reserve(&engine->cache, 8192, &e))
        return false;
    struct stubs *stubs = &engine->stubs;
    uint64_t leave;
    emit_enter(&e, stubs, &leave);
    stubs->miss = emit_way_out(&e, engine_miss, leave);
    stubs->miss_read = emit_address(&e);
    emit_crossing(&e, R_TABLE(read_tag));
    emit_jump(&e, stubs->miss);
    stubs->miss_write = emit_address(&e);
    emit_crossing(&e, R_TABLE(write_tag));
    emit_jump(&e, stubs->miss);
    emit_helper_stub(&e, stubs, leave);
    stubs->exit = emit_way_out(&e, engine_exit, leave);
    stubs->indirect = emit_way_out(&e, engine_indirect, leave);
    stubs->crossing = emit_address(&e);
    emit_second_look(&e, stubs->exit);
    stubs->missed = emit_address(&e);
    emit_second_look(&e, stubs->indirect);
    stubs->prepare = emit_way_out(&e, engine_prepare, leave);
    stubs->commit = emit_way_out(&e, engine_commit, leave);
    stubs->fault = emit_way_out(&e, engine_fault, leave);
    stubs->returned = emit_address(&e);
    emit_return_lookup(&e, 8);
    emit_jump(&e, stubs->indirect);
    stubs->sentinel = emit_address(&e);
    emit_return_lookup(&e, -8);
    /* Got here by ret: the stack pointer is back at the sentinel's slot after the call pushes its own address. */
    emit_call(&e, stubs->indirect);
    stubs->sentinel_return = emit_address(&e);
    emit_set_flags(&e, stubs);
    engine->cache.stub_size = (uint32_t)((e.at - engine->cache.write + 63) & ~63);
    engine->cache.chunk[0].used = engine->cache.stub_size;
    return !e.overflow;
}
