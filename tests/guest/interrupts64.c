/*
 * Interrupts: the 8259 and 8254, the local APIC's timer and self-IPIs, priorities, the shadows of STI and MOV SS, HLT,
 * NMI and its blocking, software interrupts and their gates' checks (SDM vol. 3A, chapters 6 and 10).
 */
#include "lib/trap.h"

enum { V_PIT = 0x30, V_TIMER = 0x50, V_LOW = 0x61, V_HIGH = 0x91, V_SPURIOUS = 0xff, SELF = 0x40000 };

static volatile unsigned count[256];
static volatile word last_ip, last_flags;

static bool take(struct state *state) {
    count[state->vector]++;
    last_ip = state->ip;
    last_flags = state->flags;
    if (state->vector >= V_PIT && state->vector < V_PIT + 16)
        pic_eoi((unsigned)state->vector - V_PIT);
    else if (state->vector != V_NMI)
        apic_eoi();
    return true;
}

/* Waits with interrupts on until `vector` came `times` times, or for about 5 s. */
static bool wait_for(unsigned vector, unsigned times, bool by_halt) {
    uint64_t start = rdtsc();
    while (count[vector] < times && rdtsc() - start < 12000000000ull) {
        if (by_halt)
            __asm__ volatile("sti; hlt; cli" : : : "memory");
        else
            __asm__ volatile("sti; nop; nop; cli" : : : "memory");
    }
    return count[vector] >= times;
}

static void timer_chip(void) {
    pic_init(V_PIT);
    for (unsigned i = 0; i < 16; i++)
        trap_handlers[V_PIT + i] = take;
    pic_mask(0xfffe);
    pit_periodic(1193); /* 1 kHz */
    check_true("pit_ticks_wake_hlt", wait_for(V_PIT, 20, true));
    check_true("pit_ticks_interrupt_a_loop", wait_for(V_PIT, 40, false));
    pic_mask(0xffff);
    pit_oneshot(1000);
    count[V_PIT] = 0;
    pic_mask(0xfffe);
    check_true("pit_one_shot_comes", wait_for(V_PIT, 1, true));
    pic_mask(0xffff);
}

static void apic_timer(void) {
    trap_handlers[V_TIMER] = take;
    trap_handlers[V_SPURIOUS] = take;
    apic_write(0x3e0, 0xb); /* divide by 1 */
    apic_write(0x320, V_TIMER);
    apic_write(0x380, 100000);
    check_true("apic_timer_one_shot", wait_for(V_TIMER, 1, true));
    check("apic_timer_one_shot_stops", apic_read(0x390), 0);
    apic_write(0x320, V_TIMER | 1 << 17);
    apic_write(0x380, 1000000);
    check_true("apic_timer_periodic", wait_for(V_TIMER, 10, true));
    apic_write(0x320, 1 << 16);
    apic_write(0x380, 0);
    __asm__ volatile("sti; nop; nop; cli" : : : "memory"); /* one may have been pending by then */
    if (!(cpuid(1, 0).c & 1 << 24)) {
        skip("apic_timer_deadline", "no TSC deadline");
        return;
    }
    apic_write(0x320, V_TIMER | 2 << 17);
    count[V_TIMER] = 0;
    uint64_t deadline = rdtsc() + 3000000;
    wrmsr(0x6e0, deadline);
    check_true("apic_timer_deadline", wait_for(V_TIMER, 1, true));
    check_true("apic_timer_deadline_is_not_early", rdtsc() >= deadline);
    check("apic_timer_deadline_clears", rdmsr(0x6e0), 0);
    apic_write(0x320, 1 << 16);
}

static void self_ipi(unsigned vector) {
    apic_ipi(0, SELF | vector);
}

SNIPPET(s_sti_shadow, "sti", "nop\n1: nop\n nop\n cli");
SNIPPET(s_sti_cli, "sti", "cli\n nop");
SNIPPET(s_sti_sti, "sti", "sti\n nop\n nop\n cli");
SNIPPET(s_popf, "push $0x202", "popfq\n nop\n nop\n cli");
SNIPPET(s_sti_hlt, "sti", "hlt\n cli");

/* Pends a self-IPI with IF = 0, runs the snippet; answers where in it the interrupt came, from `at`. */
static void expect_interrupt_at(const char *name, const uint8_t *code, const uint8_t *at, int offset) {
    struct state state;
    count[V_LOW] = 0;
    last_ip = 0;
    self_ipi(V_LOW);
    state_init(&state, code);
    run(&state);
    check_detail(name, "ends", state.vector, V_END);
    check_detail(name, "count", count[V_LOW], offset >= 0);
    if (offset >= 0)
        check_detail(name, "where", last_ip - (word)at, (unsigned)offset);
    if (!count[V_LOW])
        wait_for(V_LOW, 1, false);
}

static void shadows(void) {
    trap_handlers[V_LOW] = take;
    expect_interrupt_at("sti_holds_for_one_instruction", s_sti_shadow, s_sti_shadow_at, 1);
    expect_interrupt_at("sti_cli_lets_nothing_in", s_sti_cli, s_sti_cli_at, -1);
    expect_interrupt_at("second_sti_does_not_extend", s_sti_sti, s_sti_sti_at, 1);
    expect_interrupt_at("popf_has_no_shadow", s_popf, s_popf_at, 1);
    expect_interrupt_at("hlt_after_sti_wakes_at_once", s_sti_hlt, s_sti_hlt_at, 1);
    check("interrupt_pushes_if_set", last_flags & IF, IF);
}

static void priorities(void) {
    trap_handlers[V_HIGH] = take;
    count[V_LOW] = count[V_HIGH] = 0;
    __asm__ volatile("mov %0, %%cr8" : : "r"(8ull));
    self_ipi(V_LOW);
    self_ipi(V_HIGH);
    check_true("high_passes_cr8", wait_for(V_HIGH, 1, false));
    check("cr8_holds_low_back", count[V_LOW], 0);
    check("cr8_is_in_tpr", apic_read(0x80), 0x80);
    check("low_is_in_irr", apic_read(0x200 + 0x10 * (V_LOW / 32)) >> V_LOW % 32 & 1, 1);
    __asm__ volatile("mov %0, %%cr8" : : "r"(0ull));
    check_true("lower_cr8_lets_low_in", wait_for(V_LOW, 1, false));
}

static unsigned nmi_depth, nmi_nested;
static bool take_nmi(struct state *state) {
    nmi_nested += nmi_depth;
    nmi_depth++;
    if (++count[V_NMI] == 1) {
        apic_ipi(0, SELF | 0x400); /* pends until this handler's IRET */
        for (unsigned i = 0; i < 1000; i++)
            pause_cpu();
    }
    nmi_depth--;
    last_ip = state->ip;
    return true;
}

static void nmi(void) {
    trap_handlers[V_NMI] = take_nmi;
    count[V_NMI] = 0;
    apic_ipi(0, SELF | 0x400);
    for (unsigned i = 0; i < 1000; i++)
        pause_cpu();
    check("nmi_passes_if_0_and_waits_for_iret", count[V_NMI], 2);
    check("nmi_does_not_nest", nmi_nested, 0);
}

SNIPPET(s_int_81, "", "int $0x81");
SNIPPET(s_int3, "", "int3");
SNIPPET(s_icebp, "", ".byte 0xf1");

static void expect_software(const char *name, const uint8_t *code, bool is_user, unsigned vector, unsigned error,
                            word ip) {
    struct state state;
    (is_user ? state_init_user : state_init)(&state, code);
    run(&state);
    check_detail(name, "vector", state.vector, vector);
    check_detail(name, "error code", state.error, error);
    check_detail(name, "ip", state.ip - (is_user ? USER_ALIAS : 0), ip);
}

static void software_interrupts(void) {
    extern uint8_t trap_stubs[];
    expect_software("int_n", s_int_81, false, 0x81, 0, (word)s_int_81_end);
    expect_software("int_n_from_user_to_dpl_0", s_int_81, true, V_GP, 0x81 * 8 + 2, (word)s_int_81_at);
    gate_set(0x81, trap_stubs + 16 * 0x81, CODE_SELECTOR, 0xee, 1);
    expect_software("int_n_from_user_to_dpl_3", s_int_81, true, 0x81, 0, (word)s_int_81_end);
    gate_set(0x81, trap_stubs + 16 * 0x81, CODE_SELECTOR, 0x6e, 1);
    expect_software("int_n_gate_not_present", s_int_81, false, V_NP, 0x81 * 8 + 2, (word)s_int_81_at);
    gate_set(0x81, trap_stubs + 16 * 0x81, CODE_SELECTOR, 0xe2, 1);
    expect_software("int_n_gate_of_wrong_type", s_int_81, false, V_GP, 0x81 * 8 + 2, (word)s_int_81_at);
    gate_set(0x81, trap_stubs + 16 * 0x81, DATA_SELECTOR, 0x8e, 1);
    expect_software("int_n_to_data_segment", s_int_81, false, V_GP, DATA_SELECTOR, (word)s_int_81_at);
    gate_set(0x81, trap_stubs + 16 * 0x81, 0, 0x8e, 1);
    expect_software("int_n_to_null_segment", s_int_81, false, V_GP, 0, (word)s_int_81_at);
    gate_set(0x81, trap_stubs + 16 * 0x81, CODE32_SELECTOR, 0x8e, 1);
    expect_software("int_n_to_32_bit_segment", s_int_81, false, V_GP, CODE32_SELECTOR, (word)s_int_81_at);
    gate_default(0x81);
    expect_software("int3_from_user", s_int3, true, V_BP, 0, (word)s_int3_end);
    expect_software("icebp_ignores_dpl", s_icebp, true, V_DB, 0, (word)s_icebp_end);
}

/* A gate without IST keeps the stack and pushes five aligned words on it. */
SNIPPET(s_plain_int, "lea -8(%rsp), %rsp", "int $0x82");
__asm__(".pushsection .text\nplain_entry: mov %rsp, %rax\n mov (%rsp), %rbx\n mov 24(%rsp), %rcx\n pushfq\n pop %rdx\n"
        "int $0x20\n.popsection");
extern uint8_t plain_entry[];

static void gates_without_ist(void) {
    struct state state;
    gate_set(0x82, plain_entry, CODE_SELECTOR, 0x8e, 0);
    state_init(&state, s_plain_int);
    state.flags |= IF | DF | CF;
    word sp = state.sp - 8;
    run(&state);
    check("frame_is_aligned_to_16", state.gpr[RAX], (sp & ~15ull) - 40);
    check("frame_has_ip", state.gpr[RBX], (word)s_plain_int_end);
    check("frame_has_old_rsp", state.gpr[RCX], sp);
    check("interrupt_gate_clears_if_only", state.gpr[RDX] & (IF | DF | CF), DF | CF);
    gate_set(0x82, plain_entry, CODE_SELECTOR, 0x8f, 0);
    state_init(&state, s_plain_int);
    state.flags |= IF | NT;
    run(&state);
    check("trap_gate_keeps_if", state.gpr[RDX] & IF, IF);
    check("gates_clear_nt", state.gpr[RDX] & NT, 0);
    gate_default(0x82);
}

SNIPPET(s_long_stos, "sti", "rep stosb");
static unsigned in_the_middle;
static bool take_in_string(struct state *state) {
    in_the_middle += state->ip == (word)s_long_stos_at && state->gpr[RCX] != 0;
    return take(state);
}

static void interrupts_in_string_instructions(void) {
    enum { SIZE = 8 << 20 };
    uint8_t *memory = pages_alloc(SIZE, 4096);
    struct state state;
    bool same = true;
    trap_handlers[V_TIMER] = take_in_string;
    apic_write(0x320, V_TIMER | 1 << 17);
    apic_write(0x380, 200000);
    for (unsigned round = 0; round < 20; round++) {
        state_init(&state, s_long_stos);
        state.gpr[RDI] = (word)memory;
        state.gpr[RCX] = SIZE;
        state.gpr[RAX] = 0x30 + round;
        run(&state);
        same = same && state.vector == V_END && state.gpr[RCX] == 0 && state.gpr[RDI] == (word)memory + SIZE &&
               memory[0] == 0x30 + round && memory[SIZE - 1] == 0x30 + round && memory[SIZE / 3] == 0x30 + round;
    }
    apic_write(0x320, 1 << 16);
    check_true("interrupted_rep_stosb_completes", same);
    if (!in_the_middle)
        skip("rep_stosb_is_interrupted_in_the_middle", "no interrupt fell into it");
    cli();
}

int main(void) {
    cli();
    timer_chip();
    apic_enable();
    apic_timer();
    shadows();
    priorities();
    nmi();
    software_interrupts();
    gates_without_ist();
    interrupts_in_string_instructions();
    return 0;
}
