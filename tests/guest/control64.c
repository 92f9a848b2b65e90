/*
 * Control flow: calls and returns that match and that do not, deep recursion, switched stacks, return addresses whose
 * page changed, computed jumps.
 */
#include "lib/guest.h"

enum { STACK_SIZE = 4 << 20, LEVELS = 100000 };

static uint8_t *stack_top;

static struct state run_on_big_stack(const uint8_t *snippet, word rdi, word rsi) {
    struct state state;
    state_init(&state, snippet);
    state.sp = (word)stack_top;
    state.gpr[RDI] = rdi;
    state.gpr[RSI] = rsi;
    run(&state);
    check_quiet("snippet_ends", state.vector, V_END);
    return state;
}

SNIPPET(s_recursion, "xor %eax, %eax\n jmp 2f\n1: dec %edi\n jz 3f\n call 1b\n3: inc %rax\n ret", "2: call 1b");
SNIPPET(s_getpc, "", "call 1f\n1: pop %rax");
SNIPPET(s_push_ret, "xor %eax, %eax\n mov %edi, %ecx",
        "1: lea 2f(%rip), %rbx\n push %rbx\n ret\n ud2\n2: inc %rax\n dec %ecx\n jnz 1b");
SNIPPET(s_drop_frames, "xor %eax, %eax\n mov %rsp, %rbp\n mov %edi, %ecx\n jmp 5f\n"
                       "1: call 2f\n ud2\n2: call 3f\n ud2\n3: inc %rax\n mov %rbp, %rsp\n jmp 4f",
        "5: call 1b\n ud2\n4: dec %ecx\n jnz 5b");
SNIPPET(s_changed_return, "xor %eax, %eax\n mov %edi, %ecx\n jmp 2f\n1: addq $2, (%rsp)\n ret",
        "2: call 1b\n ud2\n inc %rax\n dec %ecx\n jnz 2b");
SNIPPET(s_pop_and_jump, "xor %eax, %eax\n mov %edi, %ecx\n jmp 2f\n1: pop %rbx\n jmp *%rbx",
        "2: call 1b\n inc %rax\n dec %ecx\n jnz 2b");
SNIPPET(s_retpoline, "xor %eax, %eax\n mov %edi, %ecx\n lea 4f(%rip), %rbx\n jmp 2f\n"
                     "1: call 3f\n9: pause\n lfence\n jmp 9b\n3: mov %rbx, (%rsp)\n ret\n4: inc %rax\n ret",
        "2: call 1b\n dec %ecx\n jnz 2b");
SNIPPET(s_ret_imm, "xor %eax, %eax\n mov %edi, %ecx\n jmp 2f\n1: add 8(%rsp), %rax\n ret $16",
        "2: push $1\n push $3\n call 1b\n dec %ecx\n jnz 2b");
SNIPPET(s_call_memory, "xor %eax, %eax\n mov %edi, %ecx\n lea 1f(%rip), %rbx\n push %rbx\n jmp 2f\n1: inc %rax\n ret",
        "2: call *(%rsp)\n dec %ecx\n jnz 2b\n pop %rbx");
SNIPPET(s_call_rsp_relative, "lea 1f(%rip), %rbx\n push %rbx\n jmp 2f\n1: mov $77, %eax\n ret", "2: call *(%rsp)\n pop %rbx");
SNIPPET(s_far_return, "xor %eax, %eax\n mov %edi, %ecx",
        "1: mov %cs, %ebx\n push %rbx\n lea 2f(%rip), %rbx\n push %rbx\n lretq\n ud2\n2: inc %rax\n dec %ecx\n jnz 1b");
SNIPPET(s_iret, "xor %eax, %eax\n mov %edi, %ecx",
        "1: mov %rsp, %rbx\n mov %ss, %edx\n push %rdx\n push %rbx\n pushfq\n mov %cs, %edx\n push %rdx\n"
        "lea 2f(%rip), %rdx\n push %rdx\n iretq\n ud2\n2: inc %rax\n dec %ecx\n jnz 1b");
/* two stacks take turns; each side adds its own amount */
SNIPPET(s_coroutines,
        "xor %eax, %eax\n mov %edi, %ecx\n lea 3f(%rip), %rbx\n mov %rbx, -8(%rsi)\n sub $8, %rsi\n jmp 2f\n"
        "1: xchg %rsp, %rsi\n ret\n3: add $1000, %rax\n call 1b\n jmp 3b",
        "2: inc %rax\n call 1b\n dec %ecx\n jnz 2b");

static void returns_that_do_not_match(void) {
    struct state s = run_on_big_stack(s_getpc, 0, 0);
    check("call_pop_gives_the_address", s.gpr[RAX], (word)s_getpc_at + 5);
    check("push_ret", run_on_big_stack(s_push_ret, 10000, 0).gpr[RAX], 10000);
    check("dropped_frames", run_on_big_stack(s_drop_frames, 10000, 0).gpr[RAX], 10000);
    check("changed_return_address", run_on_big_stack(s_changed_return, 10000, 0).gpr[RAX], 10000);
    check("popped_return_address", run_on_big_stack(s_pop_and_jump, 10000, 0).gpr[RAX], 10000);
    check("retpoline", run_on_big_stack(s_retpoline, 10000, 0).gpr[RAX], 10000);
    check("ret_immediate", run_on_big_stack(s_ret_imm, 10000, 0).gpr[RAX], 30000);
    check("call_through_memory", run_on_big_stack(s_call_memory, 10000, 0).gpr[RAX], 10000);
    check("call_through_stack_top", run_on_big_stack(s_call_rsp_relative, 0, 0).gpr[RAX], 77);
    check("far_return", run_on_big_stack(s_far_return, 3000, 0).gpr[RAX], 3000);
    check("iret_to_the_same_level", run_on_big_stack(s_iret, 3000, 0).gpr[RAX], 3000);
    s = run_on_big_stack(s_coroutines, 10000, (word)stack_top - STACK_SIZE / 2);
    check("coroutines", s.gpr[RAX], 10010000);
    check("coroutines_leave_rsp", s.sp, (word)stack_top);
}

static void deep_recursion(void) {
    struct state s = run_on_big_stack(s_recursion, LEVELS, 0);
    check("deep_recursion", s.gpr[RAX], LEVELS);
    check("deep_recursion_leaves_rsp", s.sp, (word)stack_top);
    s = run_on_big_stack(s_recursion, 3, 0);
    check("shallow_recursion_after_deep", s.gpr[RAX], 3);
}

SNIPPET(s_jump_table,
        "xor %eax, %eax\n mov %edi, %ecx\n lea 3f(%rip), %rsi",
        "1: mov %ecx, %ebx\n imul $0x9e3779b1, %ebx, %ebx\n shr $25, %ebx\n shl $3, %ebx\n add %rsi, %rbx\n jmp *%rbx\n"
        ".balign 8\n3: .rept 128\n .balign 8\n inc %rax\n .byte 0xe9\n .long 4f - . - 4\n .endr\n"
        "4: dec %ecx\n jnz 1b");

static uint64_t leaf(uint64_t i) {
    return i * 3;
}
static uint64_t other_leaf(uint64_t i) {
    return i + 7;
}

static void computed_targets(void) {
    check("jump_table", run_on_big_stack(s_jump_table, 50000, 0).gpr[RAX], 50000);
    uint64_t (*volatile targets[2])(uint64_t) = {leaf, other_leaf};
    uint64_t sum = 0, want = 0;
    for (uint64_t i = 0; i < 50000; i++) {
        sum += targets[i % 3 == 0](i);
        want += i % 3 == 0 ? i + 7 : i * 3;
    }
    check("alternating_indirect_calls", sum, want);
}

/* A function that loads CR3 and returns: its caller's page is another one in the new space, with other code. */
static void returns_into_another_space(void) {
    uint8_t *pages[2] = {page_alloc(), page_alloc()}, *shared = page_alloc();
    uint64_t va = WINDOW, switcher = WINDOW + 4096;
    /* switcher: mov %rdi, %cr3; ret */
    static const uint8_t switch_code[] = {0x0f, 0x22, 0xdf, 0xc3};
    memory_copy(shared, switch_code, sizeof switch_code);
    for (unsigned i = 0; i < 2; i++) {
        /* call switcher; mov $i+1, %eax; int $0x20 */
        uint8_t code[] = {0xe8, 0xfb, 0x0f, 0, 0, 0xb8, (uint8_t)(i + 1), 0, 0, 0, 0xcd, 0x20};
        memory_copy(pages[i], code, sizeof code);
    }
    uint64_t roots[2] = {read_cr3(), page_clone_root()};
    *page_entry(roots[1], WINDOW, 4) = 0;
    for (unsigned i = 0; i < 2; i++) {
        *page_entry(roots[i], va, 1) = (uint64_t)pages[i] | PAGE_P | PAGE_W;
        *page_entry(roots[i], switcher, 1) = (uint64_t)shared | PAGE_P | PAGE_W;
    }
    unsigned wrong = 0;
    for (unsigned n = 0; n < 1000; n++) {
        unsigned from = n & 1, to = n >> 1 & 1;
        write_cr3(roots[from]);
        struct state state;
        state_init(&state, (void *)va);
        state.gpr[RDI] = roots[to];
        run(&state);
        wrong += state.vector != V_END || state.gpr[RAX] != to + 1;
    }
    write_cr3(roots[0]);
    check("return_into_another_space", wrong, 0);
}

static void flags_live_across_control_flow(void);
SNIPPET(s_flags_call, "mov %edi, %ecx\n xor %eax, %eax\n jmp 2f\n1: ret",
        "2: stc\n call 1b\n adc $0, %rax\n clc\n call 1b\n adc $0, %rax\n std\n call 1b\n cld\n mov %ecx, %edx\n"
        "lea -1(%rcx), %ecx\n jrcxz 3f\n jmp 2b\n3:");
SNIPPET(s_flags_loop, "mov $3, %ecx\n xor %eax, %eax\n sahf\n stc", "1: inc %eax\n loop 1b\n setc %bl\n pushfq\n pop %rdx");

static void flags_live_across_control_flow(void) {
    check("carry_across_calls", run_on_big_stack(s_flags_call, 1000, 0).gpr[RAX], 1000);
    struct state s = run_on_big_stack(s_flags_loop, 0, 0);
    check("loop_leaves_carry", s.gpr[RBX] & 0xff, 1);
    check("flags_after_inc", s.gpr[RDX], FIXED | CF | PF);
}

int main(void) {
    stack_top = (uint8_t *)pages_alloc(STACK_SIZE, 4096) + STACK_SIZE - 64;
    returns_that_do_not_match();
    deep_recursion();
    computed_targets();
    returns_into_another_space();
    flags_live_across_control_flow();
    return 0;
}
