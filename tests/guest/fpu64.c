/*
 * x87, SSE and AVX state: kept across interrupts and faults, CR0.TS/EM/MP and CR4's bits, numeric exceptions and where
 * they are reported, the saved instruction pointers, XSAVE and XCR0.
 */
#include "lib/guest.h"

enum { V_TIMER = 0x50 };

static volatile unsigned ticks;
static bool take(struct state *state) {
    ticks++;
    apic_eoi();
    return true;
}

SNIPPET(s_keep, "",
        "movq %rax, %xmm0\n movq %rbx, %xmm15\n movq %rdx, %mm3\n sti\n 1: dec %rcx\n jnz 1b\n cli\n"
        "movq %xmm0, %r8\n movq %xmm15, %r9\n movq %mm3, %r10\n emms");

static void state_across_interrupts(void) {
    struct state state;
    unsigned wrong = 0;
    trap_handlers[V_TIMER] = take;
    apic_enable();
    apic_write(0x3e0, 0xb);
    apic_write(0x320, V_TIMER | 1 << 17);
    apic_write(0x380, 100000);
    uint64_t start = rdtsc();
    for (unsigned i = 0; i < 20 || (ticks < 5 && rdtsc() - start < 8000000000ull); i++) {
        state_init(&state, s_keep);
        state.gpr[RCX] = 200000;
        run(&state);
        wrong += state.gpr[R8] != state.gpr[RAX] || state.gpr[R9] != state.gpr[RBX] || state.gpr[R10] != state.gpr[RDX];
    }
    apic_write(0x320, 1 << 16);
    check("registers_across_interrupts", wrong, 0);
    check_true("interrupts_came", ticks >= 5);
}

SNIPPET(s_fld1, "", "fld1");
SNIPPET(s_movaps, "", "movaps %xmm0, %xmm1");
SNIPPET(s_mmx, "", "paddb %mm0, %mm1");
SNIPPET(s_fwait, "", "fwait");
SNIPPET(s_vaddps, "", "vaddps %ymm0, %ymm1, %ymm2");
SNIPPET(s_ldmxcsr, "", "ldmxcsr (%rbx)");
SNIPPET(s_xsetbv, "xor %edx, %edx\n xor %ecx, %ecx", "xsetbv");
SNIPPET(s_xgetbv, "xor %ecx, %ecx", "xgetbv");

static void expect(const char *name, const uint8_t *code, unsigned vector) {
    struct state state;
    state_init(&state, code);
    run(&state);
    check(name, state.vector, vector);
}

static void control_bits(void) {
    word cr0 = read_cr0(), cr4 = read_cr4();
    write_cr0(cr0 | 8); /* TS */
    expect("ts_x87", s_fld1, V_NM);
    expect("ts_sse", s_movaps, V_NM);
    expect("ts_mmx", s_mmx, V_NM);
    expect("ts_mp_fwait", s_fwait, V_NM);
    write_cr0((cr0 | 8) & ~2ull);
    expect("ts_without_mp_fwait", s_fwait, V_END);
    __asm__ volatile("clts");
    write_cr0(cr0);
    expect("clts_sse", s_movaps, V_END);
    write_cr0(cr0 | 4); /* EM */
    expect("em_x87", s_fld1, V_NM);
    expect("em_sse", s_movaps, V_UD);
    expect("em_mmx", s_mmx, V_UD);
    write_cr0(cr0);
    write_cr4(cr4 & ~0x200ull);
    expect("without_osfxsr_sse", s_movaps, V_UD);
    write_cr4(cr4);
    expect("osfxsr_back", s_movaps, V_END);
    __asm__ volatile("fninit");
}

static void saved_state(void) {
    if (!(cpuid(1, 0).c & 1 << 26)) {
        skip("xsave", "not offered");
        return;
    }
    struct state state;
    expect("without_osxsave_xgetbv", s_xgetbv, V_UD);
    expect("without_osxsave_avx", s_vaddps, V_UD);
    write_cr4(read_cr4() | 1 << 18);
    check("cpuid_shows_osxsave", cpuid(1, 0).c >> 27 & 1, 1);
    static const struct {
        const char *name;
        unsigned value, vector;
    } rows[] = {{"xcr0_x87_sse", 3, V_END}, {"xcr0_without_x87", 2, V_GP}, {"xcr0_avx_without_sse", 5, V_GP},
                {"xcr0_unknown", 0x80000003, V_GP}, {"xcr0_zmm_alone", 0x43, V_GP}, {"xcr0_avx", 7, V_END}};
    bool has_avx = cpuid(1, 0).c & 1 << 28;
    for (size_t i = 0; i < sizeof rows / sizeof *rows - !has_avx; i++) {
        state_init(&state, s_xsetbv);
        state.gpr[RAX] = rows[i].value;
        run(&state);
        check(rows[i].name, state.vector, rows[i].vector);
    }
    if (has_avx) {
        expect("avx_on", s_vaddps, V_END);
        write_cr0(read_cr0() | 8);
        expect("ts_avx", s_vaddps, V_NM);
        write_cr0(read_cr0() & ~8ull);
        __asm__ volatile("xsetbv" : : "a"(3), "d"(0), "c"(0));
        expect("avx_off_by_xcr0", s_vaddps, V_UD);
        __asm__ volatile("xsetbv" : : "a"(7), "d"(0), "c"(0));
    }
    state_init_user(&state, s_xsetbv);
    state.gpr[RAX] = 3;
    run(&state);
    check("xsetbv_from_user_is_gp", state.vector, V_GP);
}

static uint32_t control_words[2] = {0x37b /* zero divide unmasked */, 0x1f80 & ~0x200};
SNIPPET(s_x87_zero_divide, "fninit\n fldcw (%rbx)\n fld1\n fldz", "fdivrp\n nop\n nop\n fld1");
SNIPPET(s_x87_zero_divide_wait, "fninit\n fldcw (%rbx)\n fld1\n fldz", "fdivrp\n fnstsw %ax\n nop\n fwait");
SNIPPET(s_x87_fnclex, "fninit\n fldcw (%rbx)\n fld1\n fldz\n fdivrp\n fnclex", "fwait");
SNIPPET(s_x87_error_and_fault, "fninit\n fldcw (%rbx)\n fld1\n fldz\n fdivrp", "fldl (%rdx)");
SNIPPET(s_mmx_error_and_fault, "fninit\n fldcw (%rbx)\n fld1\n fldz\n fdivrp", "paddb (%rdx), %mm0");
SNIPPET(s_x87_error_no_wait, "fninit\n fldcw (%rbx)\n fld1\n fldz\n fdivrp", "fnstcw (%rdx)");
SNIPPET(s_sse_zero_divide, "ldmxcsr 4(%rbx)\n pcmpeqd %xmm0, %xmm0\n psrld $25, %xmm0\n pslld $23, %xmm0\n"
                           "pxor %xmm1, %xmm1", "divps %xmm1, %xmm0");

static void pending_errors_come_before_faults(void) {
    static const struct {
        const char *name;
        const uint8_t *code;
        unsigned vector;
    } rows[] = {
        {"x87_error_comes_before_the_operands_fault", s_x87_error_and_fault, V_MF},
        {"x87_error_comes_before_the_fault_of_mmx", s_mmx_error_and_fault, V_MF},
        {"instruction_that_does_not_wait_faults", s_x87_error_no_wait, V_PF},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct state state;
        state_init(&state, rows[i].code);
        state.gpr[RBX] = (word)control_words;
        state.gpr[RDX] = WINDOW;
        run(&state);
        check(rows[i].name, state.vector, rows[i].vector);
        __asm__ volatile("fninit");
    }
}

static void numeric_exceptions(void) {
    struct state state;
    state_init(&state, s_x87_zero_divide);
    state.gpr[RBX] = (word)control_words;
    run(&state);
    check("unmasked_x87_exception_is_mf", state.vector, V_MF);
    check("mf_is_at_the_next_x87_instruction", state.ip, (word)s_x87_zero_divide_at + 4);
    state_init(&state, s_x87_zero_divide_wait);
    state.gpr[RBX] = (word)control_words;
    run(&state);
    check("mf_at_fwait", state.ip, (word)s_x87_zero_divide_wait_at + 5);
    check("status_word_shows_it", state.gpr[RAX] & 0x8084, 0x8084);
    state_init(&state, s_x87_fnclex);
    state.gpr[RBX] = (word)control_words;
    run(&state);
    check("fnclex_takes_it_back", state.vector, V_END);
    __asm__ volatile("fninit");
    state_init(&state, s_sse_zero_divide);
    state.gpr[RBX] = (word)control_words;
    run(&state);
    check("unmasked_sse_exception_is_xm", state.vector, V_XM);
    check("xm_is_at_the_instruction", state.ip, (word)s_sse_zero_divide_at);
    write_cr4(read_cr4() & ~0x400ull);
    run((state_init(&state, s_sse_zero_divide), state.gpr[RBX] = (word)control_words, &state));
    check("without_osxmmexcpt_it_is_ud", state.vector, V_UD);
    write_cr4(read_cr4() | 0x400);
    uint32_t normal = 0x1f80, bad = 0x10000;
    __asm__ volatile("ldmxcsr %0" : : "m"(normal));
    state_init(&state, s_ldmxcsr);
    state.gpr[RBX] = (word)&bad;
    run(&state);
    check("reserved_mxcsr_bit_is_gp", state.vector, V_GP);
}

static uint8_t environment[512] __attribute__((aligned(64)));
static uint64_t one = 0x3ff0000000000000; /* 1.0 */
SNIPPET(s_fnstenv, "fninit", "faddl (%rbx)\n fnstenv (%rdx)");
SNIPPET(s_fxsave, "fninit", "fldl (%rbx)\n fxsave64 (%rdx)");

SNIPPET(s_error_pointers, "fninit\n fldcw (%rbx)\n fld1", "fdivl 8(%rdx)\n nop\n fnstenv 32(%rdx)");
SNIPPET(s_error_fxsave, "fninit\n fldcw (%rbx)\n fld1", "fdivl (%rcx)\n fxsave64 (%rdx)");
SNIPPET(s_reload_env, "fninit", "fldenv (%rdx)\n fnstenv 32(%rdx)");
SNIPPET(s_reload_wide, "fninit", "fxrstor64 (%rdx)\n fxsave64 (%rdx)");

/*
 * The saved pointers are the guest's, whatever address its code was really run at: always while an unmasked exception
 * waits, else those of the last instruction or zero (docs/limits.md).
 */
static void check_pointer(const char *name, word got, word want) {
    check(name, got ? got : want, want);
}

static void instruction_pointers(void) {
    struct state state;
    state_init(&state, s_fnstenv);
    state.gpr[RBX] = (word)&one;
    state.gpr[RDX] = (word)environment;
    run(&state);
    check_pointer("fnstenv_fip", *(uint32_t *)(environment + 12), (uint32_t)(word)s_fnstenv_at);
    check_pointer("fnstenv_fdp", *(uint32_t *)(environment + 20), (uint32_t)(word)&one);
    state_init(&state, s_fxsave);
    state.gpr[RBX] = (word)&one;
    state.gpr[RDX] = (word)environment;
    run(&state);
    check_pointer("fxsave_fip", *(uint64_t *)(environment + 8), (word)s_fxsave_at);
    check_pointer("fxsave_fdp", *(uint64_t *)(environment + 16), (word)&one);
    __asm__ volatile("fninit");
}

static uint32_t env_word(unsigned at) {
    return *(uint32_t *)(environment + at);
}

static void pointers_of_exceptions(void) {
    static double zero;
    struct state state;
    memory_set(environment, 0, sizeof environment);
    state_init(&state, s_error_pointers);
    state.gpr[RBX] = (word)control_words;
    state.gpr[RDX] = (word)environment;
    run(&state);
    check("error_fip", env_word(32 + 12), (uint32_t)(word)s_error_pointers_at);
    check("error_fop", env_word(32 + 16) >> 16, 0x472); /* dc 72 08 */
    check("error_fdp", env_word(32 + 20), (uint32_t)(word)(environment + 8));
    state_init(&state, s_error_fxsave);
    state.gpr[RBX] = (word)control_words;
    state.gpr[RCX] = (word)&zero;
    state.gpr[RDX] = (word)environment;
    run(&state);
    check("error_fxsave_fip", *(uint64_t *)(environment + 8), (word)s_error_fxsave_at);
    check("error_fxsave_fdp", *(uint64_t *)(environment + 16), (word)&zero);
    check("error_fxsave_fop", *(uint16_t *)(environment + 6), 0x431); /* dc 31 */
    __asm__ volatile("fnclex; fninit");
}

static void loaded_pointers(void) {
    static const uint32_t pointers[4] = {0x12345678, 0x01230008, 0x9abcdef0, 0xffff0010};
    struct state state;
    __asm__ volatile("fninit; fnstenv %0" : "=m"(environment));
    memory_copy(environment + 12, pointers, sizeof pointers);
    state_init(&state, s_reload_env);
    state.gpr[RDX] = (word)environment;
    run(&state);
    for (unsigned i = 0; i < 4; i++)
        check("loaded_pointer_is_stored_again", env_word(32 + 12 + 4 * i), pointers[i]);
    __asm__ volatile("fninit; fxsave64 %0" : "=m"(environment));
    *(uint64_t *)(environment + 8) = 0x7fff12345678;
    *(uint64_t *)(environment + 16) = 0x7ffe87654321;
    state_init(&state, s_reload_wide);
    state.gpr[RDX] = (word)environment;
    run(&state);
    check("loaded_fip_is_saved_again", *(uint64_t *)(environment + 8), 0x7fff12345678);
    check("loaded_fdp_is_saved_again", *(uint64_t *)(environment + 16), 0x7ffe87654321);
    __asm__ volatile("fninit");
}

/* ---- CR0.NE clear: FERR# and IRQ 13 ---- */

enum { V_IRQ13 = 0x30 + 13, CR0_NE_BIT = 1 << 5 };
static unsigned fpu_interrupts;
static word interrupted_ip;

static bool take_fpu_interrupt(struct state *state) {
    fpu_interrupts++;
    interrupted_ip = state->ip;
    out8(0xf0, 0);
    __asm__ volatile("fnclex");
    out8(0xa0, 0x20);
    out8(0x20, 0x20);
    return true;
}

static void errors_without_ne(void) {
    struct state state;
    trap_handlers[V_IRQ13] = take_fpu_interrupt;
    out8(0x21, in8(0x21) & ~4u);
    out8(0xa1, in8(0xa1) & ~0x20u);
    write_cr0(read_cr0() & ~(word)CR0_NE_BIT);
    state_init(&state, s_x87_zero_divide);
    state.gpr[RBX] = (word)control_words;
    state.flags |= IF;
    run(&state);
    write_cr0(read_cr0() | CR0_NE_BIT);
    check("error_without_ne_is_no_exception", state.vector, V_END);
    check("error_without_ne_is_irq_13", fpu_interrupts, 1);
    check("irq_13_comes_before_the_next_x87_instruction", interrupted_ip, (word)s_x87_zero_divide_at + 4);
    trap_handlers[V_IRQ13] = NULL;
    __asm__ volatile("fninit");
}

int main(void) {
    pic_init(0x30);
    state_across_interrupts();
    control_bits();
    saved_state();
    numeric_exceptions();
    pending_errors_come_before_faults();
    instruction_pointers();
    pointers_of_exceptions();
    loaded_pointers();
    errors_without_ne();
    return 0;
}
