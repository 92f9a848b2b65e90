/* Single step and the debug registers (SDM vol. 3B, 17.2 and 17.3). */
#include "lib/guest.h"

#define DEBUG_REGISTER(n)                                                                                              \
    static inline word read_dr##n(void) {                                                                                    \
        word value;                                                                                                    \
        __asm__ volatile("mov %%dr" #n ", %0" : "=r"(value));                                                          \
        return value;                                                                                                  \
    }                                                                                                                  \
    static inline void write_dr##n(word value) {                                                                             \
        __asm__ volatile("mov %0, %%dr" #n : : "r"(value));                                                            \
    }
DEBUG_REGISTER(0)
DEBUG_REGISTER(1)
DEBUG_REGISTER(6)
DEBUG_REGISTER(7)

enum { DR6_INIT = 0xffff0ff0, BS = 1 << 14, BD = 1 << 13, DR7_INIT = 0x400 };
enum { EXECUTE = 0, ON_WRITE = 1, ON_ACCESS = 3 };

static word steps[64], step_dr6[64], step_flags[64];
static unsigned step_count;

static bool record_step(struct state *state) {
    if (step_count < 64) {
        steps[step_count] = state->ip;
        step_dr6[step_count] = read_dr6();
        step_flags[step_count] = state->flags;
    }
    step_count++;
    if (!(state->flags & TF) || (read_dr6() & 15))
        state->flags |= RF; /* go on behind an instruction breakpoint */
    write_dr6(DR6_INIT);
    return true;
}

static void run_recording(const uint8_t *code, word flags) {
    struct state state;
    step_count = 0;
    write_dr6(DR6_INIT);
    trap_handlers[V_DB] = record_step;
    state_init(&state, code);
    state.flags |= flags;
    state.gpr[RCX] = 3;
    run(&state);
    check_quiet("snippet_ends", state.vector, V_END);
    trap_handlers[V_DB] = NULL;
}

SNIPPET(s_four, "", "nop\n inc %eax\n xchg %ax, %ax\n nop");
SNIPPET(s_branches, "", "jmp 1f\n1: call 2f\n jmp 3f\n2: ret\n3: nop");
SNIPPET(s_rep, "lea -64(%rsp), %rdi", "rep stosb\n nop");
SNIPPET(s_mov_ss, "mov %ss, %eax", "mov %eax, %ss\n nop\n nop");
SNIPPET(s_pushf, "", "pushfq\n pop %rax");
SNIPPET(s_popf_tf, "pushfq\n orq $0x100, (%rsp)", "popfq\n nop\n pushfq\n andq $~0x100, (%rsp)\n popfq\n nop");
SNIPPET(s_cpuid, "xor %eax, %eax", "cpuid\n nop");

static void single_step(void) {
    run_recording(s_four, TF);
    check("steps_of_four_instructions_and_int", step_count, 4);
    check("first_step_is_behind_the_nop", steps[0], (word)s_four_at + 1);
    check("second_step", steps[1], (word)s_four_at + 3);
    check("step_sets_bs", step_dr6[0], DR6_INIT | BS);
    run_recording(s_branches, TF);
    check("steps_over_branches", step_count, 5);
    check("step_behind_jmp", steps[0], (word)s_branches_at + 2);
    run_recording(s_rep, TF);
    check("rep_steps_each_iteration", step_count, 5);
    check("rf_is_pushed_between_iterations", step_flags[1] & step_flags[2] & RF, RF);
    check("rf_is_not_pushed_behind_the_last", step_flags[3] & RF, 0);
    run_recording(s_mov_ss, TF);
    check("mov_ss_holds_the_step_back", step_count, 3);
    run_recording(s_cpuid, TF);
    check("step_behind_cpuid", step_count, 3);
    struct state state;
    trap_handlers[V_DB] = record_step;
    state_init(&state, s_pushf);
    state.flags |= TF;
    run(&state);
    check("pushf_shows_tf", state.gpr[RAX] & TF, TF);
    run_recording(s_popf_tf, 0);
    check("popf_sets_tf_from_the_next_on", steps[0], (word)s_popf_tf_at + 2);
    check("popf_clears_tf_after_itself", step_count, 4);
}

static void arm(unsigned number, const void *address, unsigned type, unsigned length_code) {
    if (number)
        write_dr1((word)address);
    else
        write_dr0((word)address);
    write_dr7(DR7_INIT | 2u << 2 * number | (word)type << (16 + 4 * number) | (word)length_code << (18 + 4 * number));
}

static void instruction_breakpoints(void) {
    arm(0, s_four_at + 1, EXECUTE, 0);
    run_recording(s_four, 0);
    check("instruction_breakpoint_hits_once", step_count, 1);
    check("instruction_breakpoint_is_before", steps[0], (word)s_four_at + 1);
    check("instruction_breakpoint_dr6", step_dr6[0], DR6_INIT | 1);
    arm(0, s_four_at, EXECUTE, 0);
    run_recording(s_four, 0);
    check("breakpoint_at_entry", step_count, 1);
    run_recording(s_four, RF);
    check("rf_holds_it_back", step_count, 0);
    arm(0, s_rep_at, EXECUTE, 0);
    run_recording(s_rep, 0);
    check("breakpoint_of_a_repeated_string_hits_once", step_count, 1);
    write_dr7(DR7_INIT);
    run_recording(s_four, 0);
    check("disabled_breakpoint", step_count, 0);
}

static bool is_amd(void) {
    uint32_t eax = 0, ebx, ecx, edx;
    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx));
    return ecx == 0x444d4163; /* "cAMD" */
}

/* Intel's processors hold an instruction breakpoint off behind a load of SS (vol. 3A, 6.8.3), AMD's do not. */
static void breakpoint_behind_mov_ss(void) {
    arm(0, s_mov_ss_at + 2, EXECUTE, 0);
    run_recording(s_mov_ss, 0);
    check("breakpoint_behind_mov_ss", step_count, is_amd() ? 1 : 0);
    if (is_amd())
        check("breakpoint_behind_mov_ss_ip", steps[0], (word)s_mov_ss_at + 2);
    run_recording(s_mov_ss, TF);
    check("breakpoint_behind_mov_ss_with_tf", step_count, is_amd() ? 4 : 3);
    check("breakpoint_behind_mov_ss_with_tf_dr6", step_dr6[1], DR6_INIT | (is_amd() ? 1 : BS));
    write_dr7(DR7_INIT);
}

static uint64_t watched[4] __attribute__((aligned(64)));
SNIPPET(s_store, "", "movl $1, (%rbx)\n nop");
SNIPPET(s_load, "", "movl (%rbx), %eax\n nop");
SNIPPET(s_store_byte, "", "movb $1, 3(%rbx)\n nop");
SNIPPET(s_store_8, "", "movq $1, 4(%rbx)\n nop");
SNIPPET(s_store_beside, "", "movl $1, 8(%rbx)\n nop");
SNIPPET(s_watched_ss, "", "mov (%rbx), %ss\n nop\n nop\n nop");
SNIPPET(s_watched_push, "mov %rsp, %rdx\n lea 4(%rbx), %rsp", "push %rax\n mov %rdx, %rsp");

static void expect_watch(const char *name, const uint8_t *code, unsigned hits, const uint8_t *behind) {
    struct state state;
    step_count = 0;
    write_dr6(DR6_INIT);
    trap_handlers[V_DB] = record_step;
    state_init(&state, code);
    state.gpr[RBX] = (word)watched;
    run(&state);
    check(name, step_count, hits);
    if (hits && behind)
        check_detail(name, "ip", steps[0], (word)behind);
    if (hits)
        check_detail(name, "dr6", step_dr6[0], DR6_INIT | 2);
}

/* A data breakpoint that the load of SS holds off, and an instruction breakpoint behind the load. */
static void watched_ss_before_breakpoint(void) {
    struct state state;
    step_count = 0;
    write_dr6(DR6_INIT);
    write_dr0((word)s_watched_ss_at + 2);
    write_dr7(read_dr7() | 2);
    state_init(&state, s_watched_ss);
    state.gpr[RBX] = (word)watched;
    run(&state);
    check("watched_ss_before_breakpoint", step_count, 1);
    check_detail("watched_ss_before_breakpoint", "ip", steps[0], (word)s_watched_ss_at + (is_amd() ? 2 : 3));
    check_detail("watched_ss_before_breakpoint", "dr6", step_dr6[0], DR6_INIT | (is_amd() ? 1 : 2));
}

static void data_breakpoints(void) {
    arm(1, watched, ON_WRITE, 3);
    expect_watch("write_watch_store", s_store, 1, s_store_end - 1);
    expect_watch("write_watch_load", s_load, 0, NULL);
    expect_watch("write_watch_byte_inside", s_store_byte, 1, NULL);
    expect_watch("write_watch_beside", s_store_8, 0, NULL);
    arm(1, (uint8_t *)watched + 0x3000, ON_WRITE, 3);
    expect_watch("write_watch_elsewhere", s_store, 0, NULL);
    write_dr1((word)watched);
    expect_watch("write_watch_that_was_moved", s_store, 1, s_store_end - 1);
    arm(1, watched, ON_ACCESS, 3);
    expect_watch("access_watch_load", s_load, 1, s_load_end - 1);
    write_dr7(DR7_INIT);
    __asm__ volatile("mov %%ss, %0" : "=m"(watched[0]));
    arm(1, watched, ON_ACCESS, 3);
    expect_watch("access_watch_mov_ss_waits", s_watched_ss, 1, s_watched_ss_at + 3);
    watched_ss_before_breakpoint();
    arm(1, watched, ON_WRITE, 2);
    expect_watch("write_watch_of_8", s_store_8, 1, NULL);
    expect_watch("write_watch_of_8_beside", s_store_beside, 0, NULL);
    expect_watch("write_watch_push", s_watched_push, 1, s_watched_push_at + 1);
    write_dr7(DR7_INIT);
}

SNIPPET(s_mov_dr, "", "mov %dr0, %rax");
SNIPPET(s_mov_dr4, "", "mov %dr4, %rax");
SNIPPET(s_mov_dr_mod, "xor %ecx, %ecx", ".byte 0x0f, 0x21, 0x31"); /* mov rcx, dr6 with ModRM.mod 0 */
SNIPPET(s_mov_dr7, "", "mov %rax, %dr7");

static void debug_register_access(void) {
    struct state state;
    trap_handlers[V_DB] = NULL;
    write_dr6(DR6_INIT);
    write_dr7(DR7_INIT | 1 << 13);
    state_init(&state, s_mov_dr);
    run(&state);
    check("general_detect", state.vector, V_DB);
    check("general_detect_ip", state.ip, (word)s_mov_dr_at);
    check("general_detect_clears_gd", read_dr7(), DR7_INIT);
    check("general_detect_dr6", read_dr6() & BD, BD);
    write_dr6(DR6_INIT);
    state_init(&state, s_mov_dr4);
    run(&state);
    check("dr4_is_dr6_without_de", state.gpr[RAX], DR6_INIT);
    state_init(&state, s_mov_dr_mod);
    run(&state);
    check("mov_dr_ignores_mod", state.gpr[RCX], DR6_INIT);
    write_cr4(read_cr4() | 8);
    state_init(&state, s_mov_dr4);
    run(&state);
    check("dr4_is_ud_with_de", state.vector, V_UD);
    write_cr4(read_cr4() & ~8ull);
    state_init(&state, s_mov_dr7);
    state.gpr[RAX] = 1ull << 32;
    run(&state);
    check("dr7_upper_half_is_gp", state.vector, V_GP);
    state_init_user(&state, s_mov_dr);
    run(&state);
    check("mov_dr_from_user_is_gp", state.vector, V_GP);
}

int main(void) {
    single_step();
    instruction_breakpoints();
    breakpoint_behind_mov_ss();
    data_breakpoints();
    debug_register_access();
    return 0;
}
