/*
 * Precise faults: whatever kind of access touches a page that it may not, the fault has the right vector, error code
 * and CR2, rip is the instruction's, and neither a register nor a byte of memory has changed - but for what a string
 * instruction has done already. The window's pages: 0 writable, 1 missing, 2 read-only, 3 writable, 4 supervisor only.
 */
#include "lib/guest.h"

enum { READ = 0, WRITE = 2, USER = 4, PRESENT = 1, ANY_FLAGS = 1 << 16 };
enum { PAGE_RW, PAGE_MISSING, PAGE_RO, PAGE_RW2, PAGE_SUPERVISOR, PAGES };

#define A "(%rbx)"
#define EACH_ACCESS(X)                                                                                                 \
    X(load_8, READ, "movb " A ", %al")                                                                                 \
    X(load_16, READ, "movw " A ", %ax")                                                                                \
    X(load_32, READ, "movl " A ", %eax")                                                                               \
    X(load_64, READ, "movq " A ", %rax")                                                                               \
    X(load_movzx, READ, "movzbl " A ", %eax")                                                                          \
    X(load_movsx, READ, "movslq " A ", %rax")                                                                          \
    X(load_over_base, READ, "movq " A ", %rbx")                                                                        \
    X(load_add, READ, "addq " A ", %rax")                                                                              \
    X(load_adc, READ, "adcl " A ", %eax")                                                                              \
    X(load_cmp, READ, "cmpq %rax, " A)                                                                                 \
    X(load_test, READ, "testb $1, " A)                                                                                 \
    X(load_imul, READ, "imulq " A ", %rax")                                                                            \
    X(load_mul, READ, "mulq " A)                                                                                       \
    X(load_div, READ, "divq " A)                                                                                       \
    X(load_cmov_not_taken, READ, "cmovcq " A ", %rax")                                                                 \
    X(load_bt, READ, "btl $3, " A)                                                                                     \
    X(load_bsf, READ, "bsfq " A ", %rax")                                                                              \
    X(load_popcnt, READ, "popcntq " A ", %rax")                                                                        \
    X(load_push, READ, "pushq " A)                                                                                     \
    X(load_call, READ, "call *" A)                                                                                     \
    X(load_jmp, READ, "jmp *" A)                                                                                       \
    X(load_xlat, READ, "xchg %rax, %rax\n xlat")                                                                       \
    X(load_fld, READ, "fldl " A)                                                                                       \
    X(load_fadd, READ, "fadds " A)                                                                                     \
    X(load_fild, READ, "fildll " A)                                                                                    \
    X(load_movups, READ, "movups " A ", %xmm0")                                                                        \
    X(load_movaps, READ, "movaps " A ", %xmm0")                                                                        \
    X(load_addps, READ, "addps " A ", %xmm0")                                                                          \
    X(load_movsd, READ, "movsd " A ", %xmm0")                                                                          \
    X(load_movd_mmx, READ, "movq " A ", %mm0")                                                                         \
    X(load_ldmxcsr, READ, "ldmxcsr " A)                                                                                \
    X(store_8, WRITE, "movb %al, " A)                                                                                  \
    X(store_16, WRITE, "movw %ax, " A)                                                                                 \
    X(store_32, WRITE, "movl %eax, " A)                                                                                \
    X(store_64, WRITE, "movq %rax, " A)                                                                                \
    X(store_immediate, WRITE, "movl $5, " A)                                                                           \
    X(store_setcc, WRITE, "setc " A)                                                                                   \
    X(store_movnti, WRITE, "movnti %rax, " A)                                                                          \
    X(store_fstp, WRITE, "fldz\n fstpl " A)                                                                            \
    X(store_fnstcw, WRITE, "fnstcw " A)                                                                                \
    X(store_fnstsw, WRITE, "fnstsw " A)                                                                                \
    X(store_movups, WRITE, "movups %xmm0, " A)                                                                         \
    X(store_movaps, WRITE, "movaps %xmm0, " A)                                                                         \
    X(store_movlps, WRITE, "movlps %xmm0, " A)                                                                         \
    X(store_stmxcsr, WRITE, "stmxcsr " A)                                                                              \
    X(store_pop, WRITE, "popq " A)                                                                                     \
    X(rmw_add, WRITE, "addq %rax, " A)                                                                                 \
    X(rmw_adc_immediate, WRITE, "adcl $1, " A)                                                                         \
    X(rmw_inc, WRITE, "incb " A)                                                                                       \
    X(rmw_not, WRITE, "notq " A)                                                                                       \
    X(rmw_neg, WRITE, "negl " A)                                                                                       \
    X(rmw_shl, WRITE, "shlq $3, " A)                                                                                   \
    X(rmw_rcr, WRITE, "rcrl %cl, " A)                                                                                  \
    X(rmw_shld, WRITE, "shldq $3, %rax, " A)                                                                           \
    X(rmw_bts, WRITE, "btsl $3, " A)                                                                                   \
    X(rmw_xchg, WRITE, "xchgq %rax, " A)                                                                               \
    X(rmw_xadd, WRITE, "xaddq %rax, " A)                                                                               \
    X(rmw_cmpxchg, WRITE, "cmpxchgq %rcx, " A)                                                                         \
    X(rmw_lock_add, WRITE, "lock addq %rax, " A)                                                                       \
    X(rmw_lock_inc, WRITE, "lock incl " A)                                                                             \
    X(rmw_lock_cmpxchg8b, WRITE, "lock cmpxchg8b " A)                                                                  \
    X(rmw_lock_bts, WRITE, "lock btsq $5, " A)

/* Accesses through rsp, rsi and rdi, which the table sets to the address too. */
#define EACH_IMPLICIT(X)                                                                                               \
    X(stack_pop, READ, "popq %rax")                                                                                    \
    X(stack_ret, READ, "ret")                                                                                          \
    X(stack_popf, READ, "popfq")                                                                                       \
    X(stack_leave, READ, "leave")                                                                                      \
    X(string_lods, READ, "lodsq")                                                                                      \
    X(string_scas, READ, "scasl")                                                                                      \
    X(string_stos, WRITE, "stosq")

#define DECLARE(name, kind, code) SNIPPET(s_##name, "", code);
EACH_ACCESS(DECLARE)
EACH_IMPLICIT(DECLARE)
#undef DECLARE

static const struct access {
    const char *name;
    const uint8_t *at;
    unsigned kind;
    bool is_implicit;
} accesses[] = {
#define ROW(name, kind, code) {#name, s_##name##_at, kind, false},
#define IMPLICIT_ROW(name, kind, code) {#name, s_##name##_at, kind, true},
    EACH_ACCESS(ROW) EACH_IMPLICIT(IMPLICIT_ROW)
};

static uint8_t *frames[PAGES];

static void set_up(void) {
    static const uint64_t flags[PAGES] = {
        [PAGE_RW] = PAGE_P | PAGE_W | PAGE_U,
        [PAGE_RO] = PAGE_P | PAGE_U,
        [PAGE_RW2] = PAGE_P | PAGE_W | PAGE_U,
        [PAGE_SUPERVISOR] = PAGE_P | PAGE_W,
    };
    for (unsigned i = 0; i < PAGES; i++) {
        frames[i] = page_alloc();
        memory_set(frames[i], 0x40 + (int)i, 4096);
        page_map(WINDOW + i * 4096, (uint64_t)frames[i], flags[i]);
    }
}

static bool frames_are_untouched(void) {
    for (unsigned i = 0; i < PAGES; i++)
        for (unsigned n = 0; n < 4096; n++)
            if (frames[i][n] != 0x40 + i)
                return false;
    return true;
}

/*
 * The first instruction of some snippets is harmless, so rip may be behind it; every other register is to be as it was.
 */
static void expect_fault(const struct access *access, const char *where, uint64_t address, uint64_t cr2, uint64_t error,
                         bool is_user) {
    struct state state, before;
    (is_user ? state_init_user : state_init)(&state, access->at);
    state.gpr[RBX] = address;
    state.gpr[RAX] &= ~0xffull;
    if (access->is_implicit) {
        state.gpr[RSI] = state.gpr[RDI] = state.gpr[RBP] = address;
        state.sp = state.gpr[RSP] = address;
    }
    state.flags |= PF | AF | SF;
    before = state;
    run(&state);
    check_detail(access->name, where, state.vector, V_PF);
    if (state.vector != V_PF)
        return;
    check_quiet_detail("fault_cr2", access->name, state.cr2, cr2);
    check_quiet_detail("fault_error_code", access->name, state.error, error | (is_user ? USER : 0));
    check_quiet_detail("fault_ip", access->name, state.ip - before.ip <= 3, true);
    check_quiet_detail("fault_flags", access->name, state.flags & ~(uint64_t)RF, before.flags);
    for (unsigned i = 0; i < GPRS; i++)
        check_quiet_detail("fault_keeps_registers", access->name, state.gpr[i], before.gpr[i]);
    check_quiet_detail("fault_keeps_memory", access->name, frames_are_untouched(), true);
}

static void every_access_faults_precisely(bool is_user) {
    uint64_t missing = WINDOW + PAGE_MISSING * 4096, read_only = WINDOW + PAGE_RO * 4096;
    for (size_t i = 0; i < sizeof accesses / sizeof *accesses; i++) {
        const struct access *a = &accesses[i];
        expect_fault(a, is_user ? "missing, user" : "missing", missing + 0x100, missing + 0x100, a->kind, is_user);
        if (a->kind == WRITE)
            expect_fault(a, is_user ? "read-only, user" : "read-only", read_only + 0x200, read_only + 0x200,
                         WRITE | PRESENT, is_user);
        if (is_user)
            expect_fault(a, "supervisor page", WINDOW + PAGE_SUPERVISOR * 4096 + 0x300,
                         WINDOW + PAGE_SUPERVISOR * 4096 + 0x300, a->kind | PRESENT, true);
    }
}

/* Accesses of 4 bytes and more that start in a good page and end in a bad one report the bad one's first byte. */
#define EACH_CROSSING(X)                                                                                               \
    X(cross_load_64, READ, "movq " A ", %rax")                                                                         \
    X(cross_load_movups, READ, "movups " A ", %xmm0")                                                                  \
    X(cross_load_add, READ, "addq " A ", %rax")                                                                        \
    X(cross_load_push, READ, "pushq " A)                                                                               \
    X(cross_load_fldt, READ, "fldt " A)                                                                                \
    X(cross_store_64, WRITE, "movq %rax, " A)                                                                          \
    X(cross_store_immediate, WRITE, "movq $5, " A)                                                                     \
    X(cross_store_movups, WRITE, "movups %xmm0, " A)                                                                   \
    X(cross_store_pop, WRITE, "popq " A)                                                                               \
    X(cross_store_fnstenv, WRITE, "fnstenv " A)                                                                        \
    X(cross_rmw_add, WRITE, "addq %rax, " A)                                                                           \
    X(cross_rmw_shl, WRITE, "shlq $1, " A)                                                                             \
    X(cross_rmw_lock_add, WRITE, "lock addq %rax, " A)                                                                 \
    X(cross_rmw_xchg, WRITE, "xchgq %rax, " A)                                                                         \
    X(cross_rmw_cmpxchg, WRITE, "cmpxchgq %rcx, " A)
#define DECLARE(name, kind, code) SNIPPET(s_##name, "", code);
EACH_CROSSING(DECLARE)
#undef DECLARE
static const struct access crossings[] = {EACH_CROSSING(ROW)};

static void crossings_fault_on_the_second_page(void) {
    uint64_t missing = WINDOW + PAGE_MISSING * 4096, read_only = WINDOW + PAGE_RO * 4096;
    for (size_t i = 0; i < sizeof crossings / sizeof *crossings; i++) {
        const struct access *a = &crossings[i];
        expect_fault(a, "missing second page", missing - 3, missing, a->kind, false);
        expect_fault(a, "missing first page", read_only - 4, read_only - 4, a->kind, false);
    }
    /* read-only first, writable second, and the other way round for stores */
    for (size_t i = 0; i < sizeof crossings / sizeof *crossings; i++) {
        if (crossings[i].kind != WRITE)
            continue;
        expect_fault(&crossings[i], "read-only first page", read_only + 4096 - 4, read_only + 4096 - 4, WRITE | PRESENT,
                     false);
    }
}

SNIPPET(s_push_reg, "", "pushq %rax");
SNIPPET(s_push_imm, "", "pushq $5");
SNIPPET(s_push_flags, "", "pushfq");
SNIPPET(s_call, "", "call 1f\n1:");
SNIPPET(s_call_reg, "", "call *%rax");
SNIPPET(s_enter, "", "enter $16, $0");
SNIPPET(s_push_rsp, "", "pushq %rsp");

static void pushes_that_fault_leave_rsp(void) {
    static const struct {
        const char *name;
        const uint8_t *at;
    } rows[] = {{"push_register", s_push_reg}, {"push_immediate", s_push_imm}, {"pushfq", s_push_flags},
                {"call_relative", s_call},     {"call_register", s_call_reg}, {"enter", s_enter}, {"push_rsp", s_push_rsp}};
    uint64_t top = WINDOW + PAGE_RO * 4096;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct state state, before;
        state_init(&state, rows[i].at);
        state.sp = state.gpr[RSP] = top;
        state.gpr[RAX] = (uint64_t)rows[i].at;
        before = state;
        run(&state);
        check(rows[i].name, state.vector, V_PF);
        check_quiet_detail("push_cr2", rows[i].name, state.cr2, top - 8);
        check_quiet_detail("push_error_code", rows[i].name, state.error, WRITE);
        check_quiet_detail("push_ip", rows[i].name, state.ip, before.ip);
        check_quiet_detail("push_keeps_registers", rows[i].name, memory_compare(state.gpr, before.gpr, sizeof state.gpr) == 0, true);
    }
}

SNIPPET(s_rep_movsb, "", "rep movsb");
SNIPPET(s_rep_movsq, "", "rep movsq");
SNIPPET(s_rep_stosq, "", "rep stosq");
SNIPPET(s_rep_stosb, "", "rep stosb");
SNIPPET(s_repe_cmpsb, "", "repe cmpsb");
SNIPPET(s_repne_scasb, "", "repne scasb");
SNIPPET(s_rep_lodsq, "", "rep lodsq");
SNIPPET(s_std_rep_movsb, "std", "rep movsb");

/* A string instruction stops at the element that faults, with its registers showing what is done. */
static void strings_stop_in_the_middle(void) {
    static const struct {
        const char *name;
        const uint8_t *code, *at;
        unsigned element, error;
        bool moves_source, moves_destination;
    } rows[] = {
        {"rep_movsb_destination", s_rep_movsb, s_rep_movsb_at, 1, WRITE, true, true},
        {"rep_movsq_destination", s_rep_movsq, s_rep_movsq_at, 8, WRITE, true, true},
        {"rep_stosq", s_rep_stosq, s_rep_stosq_at, 8, WRITE, false, true},
        {"rep_stosb", s_rep_stosb, s_rep_stosb_at, 1, WRITE, false, true},
        {"repne_scasb", s_repne_scasb, s_repne_scasb_at, 1, READ, false, true},
    };
    uint64_t missing = WINDOW + PAGE_MISSING * 4096;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct state state;
        state_init(&state, rows[i].code);
        state.gpr[RDI] = missing - 5 * rows[i].element;
        state.gpr[RSI] = WINDOW + PAGE_RW2 * 4096 + 8;
        state.gpr[RCX] = 100;
        state.gpr[RAX] = 0x40;
        if (rows[i].error == READ)
            state.gpr[RAX] = 0;
        run(&state);
        check(rows[i].name, state.vector, V_PF);
        check_quiet_detail("string_cr2", rows[i].name, state.cr2, missing);
        check_quiet_detail("string_error_code", rows[i].name, state.error, rows[i].error);
        check_quiet_detail("string_ip", rows[i].name, state.ip, (word)rows[i].at);
        check_quiet_detail("string_count", rows[i].name, state.gpr[RCX], 95);
        check_quiet_detail("string_destination", rows[i].name, state.gpr[RDI], missing);
        check_quiet_detail("string_source", rows[i].name, state.gpr[RSI],
                           WINDOW + PAGE_RW2 * 4096 + 8 + (rows[i].moves_source ? 5 * rows[i].element : 0));
        for (unsigned n = 0; n < 5 * rows[i].element; n++)
            frames[PAGE_RW][4095 - n] = 0x40;
    }
}

static void strings_stop_at_the_source(void) {
    struct state state;
    uint64_t missing = WINDOW + PAGE_MISSING * 4096;
    state_init(&state, s_rep_movsq);
    state.gpr[RSI] = missing - 24;
    state.gpr[RDI] = WINDOW + PAGE_RW2 * 4096;
    state.gpr[RCX] = 9;
    run(&state);
    check("rep_movsq_source", state.vector, V_PF);
    check("rep_movsq_source_cr2", state.cr2, missing);
    check("rep_movsq_source_error_code", state.error, READ);
    check("rep_movsq_source_count", state.gpr[RCX], 6);
    check("rep_movsq_source_rdi", state.gpr[RDI], WINDOW + PAGE_RW2 * 4096 + 24);
    memory_set(frames[PAGE_RW2], 0x40 + PAGE_RW2, 64);
    state_init(&state, s_rep_lodsq);
    state.gpr[RSI] = missing - 24;
    state.gpr[RCX] = 9;
    run(&state);
    check("rep_lodsq_count", state.gpr[RCX], 6);
    check("rep_lodsq_rax", state.gpr[RAX], 0x4040404040404040);
    state_init(&state, s_repe_cmpsb);
    state.gpr[RSI] = missing - 4;
    state.gpr[RDI] = WINDOW + 0x100;
    state.gpr[RCX] = 50;
    run(&state);
    check("repe_cmpsb_count", state.gpr[RCX], 46);
    check("repe_cmpsb_vector", state.vector, V_PF);
    state_init(&state, s_std_rep_movsb);
    state.gpr[RSI] = WINDOW + PAGE_RW2 * 4096 + 0x100;
    state.gpr[RDI] = WINDOW + PAGE_RO * 4096 - 1 + 4096 + 3;
    state.gpr[RCX] = 50;
    run(&state);
    check("std_rep_movsb_stops_at_read_only_page", state.cr2, WINDOW + PAGE_RO * 4096 + 4095);
    check("std_rep_movsb_count", state.gpr[RCX], 47);
    check("std_rep_movsb_flags", state.flags & DF, DF);
    memory_set(frames[PAGE_RW2], 0x40 + PAGE_RW2, 64);
}

SNIPPET(s_noncanonical_load, "", "movq (%rbx), %rax");
SNIPPET(s_noncanonical_store, "", "movq %rax, (%rbx)");
SNIPPET(s_noncanonical_stack_load, "", "movq (%rsp), %rax");
SNIPPET(s_noncanonical_push, "", "push %rax");
SNIPPET(s_noncanonical_jump, "", "jmp *%rbx");
SNIPPET(s_noncanonical_call, "", "call *%rbx");
SNIPPET(s_noncanonical_ret, "push %rbx", "ret");
SNIPPET(s_misaligned_movaps, "", "movaps 1(%rbx), %xmm0");
SNIPPET(s_misaligned_cmpxchg16b, "", "lock cmpxchg16b 8(%rbx)");
SNIPPET(s_noncanonical_rep, "", "rep stosb");

static void noncanonical_and_misaligned_accesses_are_gp_or_ss(void) {
    static const struct {
        const char *name;
        const uint8_t *code, *at;
        unsigned vector;
        bool is_canonical, in_stack;
    } rows[] = {
        {"noncanonical_load", s_noncanonical_load, s_noncanonical_load_at, V_GP, false, false},
        {"noncanonical_store", s_noncanonical_store, s_noncanonical_store_at, V_GP, false, false},
        {"noncanonical_stack_load", s_noncanonical_stack_load, s_noncanonical_stack_load_at, V_SS, false, true},
        {"noncanonical_push", s_noncanonical_push, s_noncanonical_push_at, V_SS, false, true},
        {"noncanonical_rep_stosb", s_noncanonical_rep, s_noncanonical_rep_at, V_GP, false, false},
        {"noncanonical_jump", s_noncanonical_jump, s_noncanonical_jump_at, V_GP, false, false},
        {"noncanonical_call", s_noncanonical_call, s_noncanonical_call_at, V_GP, false, false},
        {"noncanonical_ret", s_noncanonical_ret, s_noncanonical_ret_at, V_GP, false, false},
        {"misaligned_movaps", s_misaligned_movaps, s_misaligned_movaps_at, V_GP, true, false},
        {"misaligned_cmpxchg16b", s_misaligned_cmpxchg16b, s_misaligned_cmpxchg16b_at, V_GP, true, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct state state;
        uint64_t address = rows[i].is_canonical ? WINDOW : 0x8000000000000000u;
        state_init(&state, rows[i].code);
        state.gpr[RBX] = state.gpr[RDI] = address;
        if (rows[i].in_stack)
            state.sp = address;
        run(&state);
        check(rows[i].name, state.vector, rows[i].vector);
        check_detail(rows[i].name, "error code", state.error, 0);
        check_detail(rows[i].name, "ip", state.ip, (word)rows[i].at);
    }
}

SNIPPET(s_straddle, "", "movq (%rbx), %rax");

static void straddling_the_canonical_hole_is_gp(void) {
    struct state state;
    uint64_t *top = page_entry(read_cr3(), 0x7ffffffff000, 1);
    *top = (uint64_t)frames[PAGE_RW] | PAGE_P | PAGE_W;
    state_init(&state, s_straddle);
    state.gpr[RBX] = 0x7ffffffffff8;
    run(&state);
    check("last_canonical_quadword_loads", state.vector, V_END);
    state_init(&state, s_straddle);
    state.gpr[RBX] = 0x7ffffffffffc;
    run(&state);
    check("load_into_the_hole_is_gp", state.vector, V_GP);
    state_init(&state, s_straddle);
    state.gpr[RBX] = 0xfffffffffffffffc;
    run(&state);
    check("load_over_the_top_is_pf", state.vector, V_PF);
    *top = 0;
}

SNIPPET(s_pop_rsp_based, "", "popq 8(%rsp)");
SNIPPET(s_pop_to_rsp, "", "popq %rsp");
SNIPPET(s_push_rsp_memory, "", "pushq -8(%rsp)");

/* POP's address uses rsp as it is after the pop; PUSH's as it is before (SDM vol. 2B). */
static void stack_addresses_of_push_and_pop(void) {
    struct state state;
    uint64_t *stack = (uint64_t *)(WINDOW + 0x800);
    stack[0] = 0x1234;
    stack[-1] = 0x5678;
    state_init(&state, s_pop_rsp_based);
    state.sp = (word)stack;
    run(&state);
    check("pop_address_uses_new_rsp", stack[2], 0x1234);
    check("pop_moves_rsp", state.sp, (word)(stack + 1));
    state_init(&state, s_pop_to_rsp);
    state.sp = (word)stack;
    run(&state);
    check("pop_rsp_takes_the_value", state.sp, 0x1234);
    state_init(&state, s_push_rsp_memory);
    state.sp = (word)stack;
    run(&state);
    check("push_address_uses_old_rsp", stack[-1], 0x5678);
    state_init(&state, s_push_rsp);
    state.sp = (word)stack;
    run(&state);
    check("push_rsp_pushes_the_old_value", stack[-1], (word)stack);
    memory_set(frames[PAGE_RW], 0x40, 4096);
}

/* An instruction whose bytes run into a missing page faults on the fetch of that page. */
static void fetches_fault_precisely(void) {
    struct state state;
    uint8_t *end = (uint8_t *)WINDOW + 4096;
    static const uint8_t nop_and_half_a_mov[] = {0x90, 0x48, 0xb8, 1, 2};
    memory_copy(end - 5, nop_and_half_a_mov, 5);
    state_init(&state, end - 5);
    run(&state);
    check("fetch_across_is_pf", state.vector, V_PF);
    check("fetch_across_cr2", state.cr2, (word)end);
    check("fetch_across_ip", state.ip, (word)end - 4);
    memory_set(end - 5, 0x90, 5);
    state_init(&state, end - 5);
    run(&state);
    check("running_off_the_page_is_pf", state.vector, V_PF);
    check("running_off_the_page_ip", state.ip, (word)end);
    check("running_off_the_page_cr2", state.cr2, (word)end);
    state_init_user(&state, NULL);
    state.ip = WINDOW + PAGE_SUPERVISOR * 4096;
    run(&state);
    check("fetch_from_supervisor_page_error_code", state.error & ~16ull, USER | PRESENT);
    memory_set(frames[PAGE_RW], 0x40, 4096);
}

SNIPPET(s_rf_ud, "", "ud2");

static void faults_push_rf(void) {
    struct state state;
    state_init(&state, s_rf_ud);
    run(&state);
    check("fault_pushes_rf_set", state.flags & RF, RF);
    state_init(&state, s_rf_ud_end);
    run(&state);
    check("int_pushes_rf_clear", state.flags & RF, 0);
}

/* ---- Division ---- */

#define EACH_DIVISION(X)                                                                                               \
    X(div_cl, "div %cl")                                                                                               \
    X(div_bpl, "div %bpl")                                                                                             \
    X(div_spl, "mov %rsp, %r8\n xor %esp, %esp\n div %spl")                                                            \
    X(div_bh, "xor %ebx, %ebx\n div %bh")                                                                              \
    X(div_r14b, "div %r14b")                                                                                           \
    X(div_cx, "div %cx")                                                                                               \
    X(div_ecx, "div %ecx")                                                                                             \
    X(div_rcx, "div %rcx")                                                                                             \
    X(div_r14, "div %r14")                                                                                             \
    X(idiv_cl, "idiv %cl")                                                                                             \
    X(idiv_r14w, "idiv %r14w")                                                                                         \
    X(idiv_ecx, "idiv %ecx")                                                                                           \
    X(idiv_rbp, "idiv %rbp")                                                                                           \
    X(div_memory_8, "divb (%rbx)")                                                                                     \
    X(div_memory_16, "divw (%rbx)")                                                                                    \
    X(div_memory_32, "divl (%rbx)")                                                                                    \
    X(div_memory_64, "divq (%rbx)")                                                                                    \
    X(idiv_memory_64, "idivq (%rbx)")                                                                                  \
    X(idiv_memory_8, "idivb 8(%rbx)")
#define DIVISION(name, instruction) SNIPPET(s_##name, "mov %rsi, %rsi", instruction);
EACH_DIVISION(DIVISION)
#define DIVISION_ROW(name, instruction) {#name, s_##name},

/* Divisors are in rcx, rbp, r14 and at rbx; upper bytes are set where the operand is narrower. */
static void divide(const char *name, const uint8_t *code, uint64_t divisor, uint64_t dividend, unsigned want) {
    static uint64_t cell[2];
    struct state state;
    cell[0] = cell[1] = divisor;
    state_init(&state, code);
    state.gpr[RCX] = state.gpr[RBP] = state.gpr[R14] = divisor;
    state.gpr[RBX] = (word)cell;
    state.gpr[RAX] = dividend;
    state.gpr[RDX] = 0;
    run(&state);
    check_quiet_detail(name, "vector", state.vector, want);
    if (want == V_END)
        return;
    check_quiet_detail(name, "rax is as before", state.gpr[RAX], dividend);
    check_quiet_detail(name, "rdx is as before", state.gpr[RDX], 0);
}

static void divisions_fault_precisely(void) {
    static const struct {
        const char *name;
        const uint8_t *code;
    } rows[] = {EACH_DIVISION(DIVISION_ROW)};
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        bool is_byte = rows[i].code == s_div_cl || rows[i].code == s_idiv_cl;
        for (unsigned time = 0; time < 3; time++) {
            divide(rows[i].name, rows[i].code, 0, 6, V_DE);
            if (rows[i].code == s_div_spl || rows[i].code == s_div_bh)
                continue;
            divide(rows[i].name, rows[i].code, 0x0303030303030303, 6, V_END);
            divide(rows[i].name, rows[i].code, is_byte ? 0x1100 : 0, 6, V_DE);
        }
    }
    divide("quotient_does_not_fit", s_div_cl, 1, 0x100, V_DE);
    divide("quotient_fits", s_div_cl, 1, 0xff, V_END);
    divide("negative_quotient_does_not_fit", s_idiv_cl, 0xff, 0x81, V_DE);
    divide("upper_part_of_ecx_is_no_divisor", s_div_ecx, 1ull << 32, 6, V_DE);
    divide("upper_part_of_cx_is_no_divisor", s_div_cx, 1ull << 16, 6, V_DE);
    divide("upper_part_of_rcx_is_one", s_div_rcx, 1ull << 32, 6, V_END);
    divide("next_byte_is_no_divisor", s_div_memory_8, 0x100, 6, V_DE);
    divide("fifth_byte_is_no_divisor", s_div_memory_32, 1ull << 32, 6, V_DE);
    check("divisions_fault_precisely", 0, 0);
}

/* rcx calls inside each other, a division at the bottom, and all the way back. */
SNIPPET(s_divide_below, "call 1f\nint $0x20\n1: dec %rcx\njz 2f\ncall 1b\nret\n2:", "div %bl\nret");

static bool make_it_fit(struct state *state) {
    state->gpr[RBX] = 2;
    return true;
}

/* The translator's stack of return addresses has 8,192 slots: the host's fault finds it with each of the last ones full. */
static void faults_below_many_calls(void) {
    static uint64_t stack[10000];
    trap_handlers[V_DE] = make_it_fit;
    for (unsigned calls = 8160; calls < 8224; calls++) {
        struct state state;
        state_init(&state, s_divide_below);
        state.sp = state.gpr[RSP] = (word)(stack + sizeof stack / sizeof *stack);
        state.gpr[RCX] = calls;
        state.gpr[RAX] = 0x101;
        state.gpr[RBX] = 1; /* 0x101 / 1 does not fit into AL */
        run(&state);
        check_quiet("deep_fault_comes_back", state.vector, V_END);
        check_quiet("deep_fault_was_handled", state.gpr[RBX], 2);
        check_quiet("deep_fault_divides_again", state.gpr[RAX], 0x180);
        check_quiet("deep_fault_returns_from_all", state.sp, (word)(stack + sizeof stack / sizeof *stack));
    }
    trap_handlers[V_DE] = NULL;
    check("faults_below_many_calls", 0, 0);
}

/* In a loop, whose registers may be elsewhere: r11 counts, and the divisor falls to 0. */
SNIPPET(s_loop_divide, "mov $9, %r11d\n mov $5, %ecx\n xor %r10d, %r10d",
        "1: dec %ecx\n mov $100, %eax\n xor %edx, %edx\n add %r11, %r10\n div %ecx\n cmp $77, %eax\n jne 1b");

static void division_in_a_loop_faults_precisely(void) {
    struct state state;
    state_init(&state, s_loop_divide);
    run(&state);
    check("loop_ends_in_de", state.vector, V_DE);
    check("loop_rcx", state.gpr[RCX], 0);
    check("loop_r10", state.gpr[R10], 45);
    check("loop_rax", state.gpr[RAX], 100);
}

int main(void) {
    set_up();
    every_access_faults_precisely(false);
    every_access_faults_precisely(true);
    crossings_fault_on_the_second_page();
    pushes_that_fault_leave_rsp();
    strings_stop_in_the_middle();
    strings_stop_at_the_source();
    noncanonical_and_misaligned_accesses_are_gp_or_ss();
    straddling_the_canonical_hole_is_gp();
    stack_addresses_of_push_and_pop();
    fetches_fault_precisely();
    faults_push_rf();
    divisions_fault_precisely();
    faults_below_many_calls();
    division_in_a_loop_faults_precisely();
    return 0;
}
