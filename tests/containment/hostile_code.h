/*
 * Pieces of hostile code for test_containment.c, which alone includes this: accesses through wild pointers, and what moves
 * these in between.
 */
#ifndef TESTS_HOSTILE_CODE_H
#define TESTS_HOSTILE_CODE_H

#include <stdint.h>

struct snippet {
    const uint8_t *from, *to;
};

#define SNIPPET(name, bits, text)                                                                                      \
    extern const uint8_t name[], name##_end[];                                                                         \
    __asm__(".pushsection .rodata\n.code" #bits "\n" #name ":\n" text "\n" #name "_end:\n.code64\n.popsection")
#define LISTED(name)                                                                                                   \
    { name, name##_end }

/* rbx is the wild pointer, rcx another one or an index. */
SNIPPET(load_1, 64, "movb (%rbx), %al");
SNIPPET(load_8, 64, "movq (%rbx), %rax");
SNIPPET(load_far, 64, "movq 0x7fffffff(%rbx), %rax");
SNIPPET(load_back, 64, "movq -0x80000000(%rbx), %rax");
SNIPPET(load_near, 64, "movq 0xffffc(%rbx), %rax");
SNIPPET(load_indexed, 64, "movq -0x80000000(%rbx,%rcx,8), %rax");
SNIPPET(load_32, 64, "movl 0x7fffffff(%ebx,%ecx,8), %eax");
SNIPPET(load_fs, 64, "movq %fs:(%rbx), %rax");
SNIPPET(load_fs_near, 64, "movq %fs:0x28, %rax\n movq %fs:-0x100000, %rax\n movq %rax, %fs:0x100000");
SNIPPET(move_fs, 64, "wrfsbase %rbx\n mov $-0x58, %rcx\n movq %fs:(%rcx), %rax\n movq %rax, %fs:0xffff8");
SNIPPET(move_gs, 64, "wrgsbase %rbx\n movq %gs:0x100000, %rax\n movq %rax, %gs:-0x100000");
SNIPPET(swap_gs, 64, "wrgsbase %rbx\n swapgs\n swapgs\n movq %gs:0x28, %rax\n movq %rax, %gs:0xffff8\n swapgs\n movq %gs:8, %rax");
SNIPPET(write_gs, 64,
        "mov $0xc0000101, %ecx\n mov %ebx, %eax\n mov %rbx, %rdx\n shr $32, %rdx\n wrmsr\n movq %gs:0x28, %rax\n"
        "mov %rax, %gs:-8");
SNIPPET(load_constant, 64, "movabsq 0x7ffffffffffa, %rax");
SNIPPET(store_1, 64, "movb %al, (%rbx)");
SNIPPET(store_8, 64, "movq %rax, (%rbx)");
SNIPPET(store_indexed, 64, "movq %rax, (%rbx,%rcx,4)");
SNIPPET(store_gs, 64, "movq %rax, %gs:8(%rbx)");
SNIPPET(store_r14, 64, "mov %rbx, %r14\n movq %r15, -8(%r14)");
SNIPPET(store_16, 64, "movups %xmm0, (%rbx)");
SNIPPET(store_32, 64, "vmovups %ymm0, 0x20(%rbx)");
SNIPPET(modify, 64, "xorq %rax, (%rbx)");
SNIPPET(locked, 64, "lock xaddq %rax, (%rbx)");
SNIPPET(exchange_16, 64, "lock cmpxchg16b (%rbx)");
SNIPPET(bit_set, 64, "btsq %rcx, (%rbx)");
SNIPPET(bit_test, 64, "btl %ecx, (%rbx)");
SNIPPET(bit_word, 64, "btcw %cx, (%rbx)");
SNIPPET(push_8, 64, "mov %rbx, %rsp\n push %rax");
SNIPPET(pop_8, 64, "mov %rbx, %rsp\n pop (%rcx)");
SNIPPET(call_near, 64, "mov %rbx, %rsp\n call 1f\n1:");
SNIPPET(return_elsewhere, 64, /* to where it was called from, with another stack */
        "call 1f\n push %rax\n movq 0xffff0(%rsp), %rcx\n jmp 2f\n"
        "1: pop %rdx\n mov %rbx, %rsp\n push %rdx\n ret\n 2:");
SNIPPET(return_and_release, 64,
        "call 1f\n movq %rax, -0x100000(%rsp)\n add $0x7fff0, %rsp\n pop %rax\n jmp 2f\n"
        "1: pop %rdx\n lea 8(%rbx), %rsp\n push %rdx\n ret $0xfff8\n 2:");
SNIPPET(enter_deep, 64, "mov %rbx, %rsp\n mov %rcx, %rbp\n enter $0x1000, $31");
SNIPPET(stos_up, 64, "mov %rbx, %rdi\n mov $64, %ecx\n rep stosq");
SNIPPET(stos_down, 64, "mov %rbx, %rdi\n mov $64, %ecx\n std\n rep stosb\n cld");
SNIPPET(stos_page, 64, "mov %rbx, %rdi\n mov $0x601, %ecx\n rep stosq");
SNIPPET(movs, 64, "mov %rbx, %rdi\n mov %rcx, %rsi\n mov $70, %ecx\n rep movsb");
SNIPPET(movs_one, 64, "mov %rbx, %rdi\n mov %rcx, %rsi\n movsq");
SNIPPET(xlat, 64, "xlat");
SNIPPET(maskmov, 64, "mov %rbx, %rdi\n maskmovdqu %xmm1, %xmm0");
SNIPPET(x87_load, 64, "fldt (%rbx)");
SNIPPET(x87_store, 64, "fstpt (%rbx)");
SNIPPET(fxsave, 64, "fxsave64 (%rbx)");
SNIPPET(movbe, 64, "movbe %rax, (%rbx)");
SNIPPET(flush, 64, "clflush (%rbx)");
SNIPPET(gather, 64, "vpcmpeqd %ymm2, %ymm2, %ymm2\n vpgatherdd %ymm2, (%rbx,%ymm1,8), %ymm0");
SNIPPET(masked_load, 64, "vmaskmovps (%rbx), %ymm0, %ymm1");
SNIPPET(masked_store, 64, "vmaskmovps %ymm1, %ymm0, (%rbx)");
SNIPPET(jump_memory, 64, "jmp *(%rbx)");
SNIPPET(jump_wild, 64, "jmp *%rbx");
/* How far a register may go without being looked at again. */
SNIPPET(step_up, 64, "add $0x7ffff, %rbx");
SNIPPET(step_down, 64, "sub $0x7ffff, %rbx");
SNIPPET(step_far, 64, "add $0x7fffffff, %rbx");
SNIPPET(step_one, 64, "inc %rbx");
SNIPPET(align_down, 64, "and $-4096, %rbx");
SNIPPET(align_odd, 64, "and $-0x7ffff, %rbx");
SNIPPET(step_exchange, 64, "xchg %rbx, %rcx");
SNIPPET(step_lea, 64, "lea 0x100000(%rbx), %rbx");
SNIPPET(step_narrow, 64, "mov %ebx, %ebx");
SNIPPET(step_word, 64, "mov %cx, %bx");
SNIPPET(step_xadd, 64, "xadd %rbx, %rcx");
SNIPPET(step_cmov, 64, "cmovz %rcx, %rbx");

static const struct snippet accesses64[] = {
    LISTED(load_1),       LISTED(load_8),        LISTED(load_far),  LISTED(load_back),     LISTED(load_near),
    LISTED(load_fs_near), LISTED(move_fs), LISTED(move_gs), LISTED(swap_gs), LISTED(write_gs),
    LISTED(load_indexed), LISTED(load_32),       LISTED(load_fs),   LISTED(load_constant), LISTED(store_1),
    LISTED(store_8),      LISTED(store_indexed), LISTED(store_gs),  LISTED(store_r14),     LISTED(store_16),
    LISTED(store_32),     LISTED(modify),        LISTED(locked),    LISTED(exchange_16),   LISTED(bit_set),
    LISTED(bit_test),     LISTED(bit_word),      LISTED(push_8),    LISTED(pop_8),         LISTED(call_near),
    LISTED(return_elsewhere), LISTED(return_and_release),
    LISTED(enter_deep),   LISTED(stos_up),       LISTED(stos_down), LISTED(stos_page), LISTED(movs),          LISTED(movs_one),
    LISTED(xlat),         LISTED(maskmov),       LISTED(x87_load),  LISTED(x87_store),     LISTED(fxsave),
    LISTED(movbe),        LISTED(flush),         LISTED(gather),    LISTED(masked_load),   LISTED(masked_store),
    LISTED(jump_memory),  LISTED(jump_wild),
};
enum { ACCESSES64 = sizeof accesses64 / sizeof *accesses64, ENDING = 2 /* the last of them go elsewhere */ };

static const struct snippet steps64[] = {
    LISTED(step_up),     LISTED(step_down), LISTED(step_far),      LISTED(step_one),
    LISTED(align_down),  LISTED(align_odd), LISTED(step_exchange), LISTED(step_lea),
    LISTED(step_narrow), LISTED(step_word), LISTED(step_xadd),     LISTED(step_cmov),
};
enum { STEPS64 = sizeof steps64 / sizeof *steps64 };

/* Rounds of a loop: accesses that are made in each of them, and some that are not. r8d counts down to 1. */
SNIPPET(round_load, 64, "movq (%rbx), %rax\n add $0x7fff, %rbx");
SNIPPET(round_store, 64, "movq %rax, -8(%rbx,%rcx,2)\n sub $0x3fff, %rcx");
SNIPPET(round_two, 64, "movl 0xffffc(%rbx), %eax\n movl %eax, -0x100000(%rbx)\n add $0xfff8, %rbx");
SNIPPET(round_down, 64, "orb $1, (%rbx)\n sub $0xffff, %rbx");
SNIPPET(round_r14, 64, "mov (%rbx), %r14\n add %r14, %r15\n xor %r15, %r13\n add $0x7fff, %rbx");
SNIPPET(round_masked_store, 64,
        "lea -2(%r8), %eax\n vmovd %eax, %xmm0\n vmaskmovps %xmm1, %xmm0, (%rbx)\n add $0x7fff, %rbx");
SNIPPET(round_masked_load, 64,
        "lea -2(%r8), %eax\n vmovd %eax, %xmm0\n vpmaskmovd (%rbx), %xmm0, %xmm1\n sub $0x7fff, %rbx");
SNIPPET(round_leaves, 64, "cmp $1, %r8d\n je 1f\n movq %rax, (%rbx)\n 1: add $0x7fff, %rbx");
SNIPPET(round_conditional, 64, "cmp $2, %r8d\n cmovb (%rbx), %rax\n add $0x7fff, %rbx");
SNIPPET(round_prefetch, 64, "prefetcht0 (%rbx)\n add $0x7fff, %rbx");
SNIPPET(round_seldom, 64, "test $15, %r8b\n jnz 1f\n movq %rax, (%rbx)\n 1: add $0x7fff, %rbx");
SNIPPET(round_either, 64, "test $1, %r8b\n jz 1f\n movq (%rbx), %rax\n jmp 2f\n 1: movq (%rsi), %rax\n 2: xchg %rsi, %rbx");
SNIPPET(round_still, 64, "test $7, %r8b\n jnz 1f\n movq %rax, 0xffff8(%rbx)\n orl $1, -0x100000(%rbx,%rcx,4)\n 1:");
SNIPPET(round_inner, 64, "mov $9, %r9d\n 1: movq (%rsi), %rax\n add $0x7fff, %rsi\n dec %r9d\n jnz 1b");
SNIPPET(round_inner_seldom, 64,
        "mov $9, %r9d\n 1: test $7, %r9b\n jnz 2f\n orb $1, (%rbx)\n 2: add $0x7fff, %rbx\n dec %r9d\n jnz 1b");
SNIPPET(round_inner_moves, 64,
        "mov $9, %r9d\n 1: movq %rax, (%rbx)\n test $3, %r9b\n jz 2f\n dec %r9d\n jnz 1b\n 2: add $0xfff8, %rbx");
SNIPPET(round_inner_entered, 64,
        "mov $9, %r9d\n test $3, %r8b\n jz 2f\n 1: movq (%rsi), %rax\n 2: add $0xffff, %rsi\n dec %r9d\n jnz 1b");
/* Indices that begin at a constant in each round of what is around them. */
SNIPPET(round_nest, 64,
        "xor %edi, %edi\n 1: movq (%rbx,%rdi), %rax\n add $0x7fff, %rdi\n cmp $0x3fff8, %rdi\n jne 1b\n"
        "add $0x7fff, %rbx");
SNIPPET(round_nest_far, 64,
        "mov $0x1fff0, %edi\n 1: movq %rax, 8(%rbx,%rdi,8)\n add $0xfff, %rdi\n cmp $0x27fe8, %rdi\n jb 1b\n"
        "sub $0x7fff, %rbx");
SNIPPET(round_nest_back, 64,
        "mov $-0x20000, %rdi\n 1: orb $1, (%rbx,%rdi,8)\n sub $0x1fff, %rdi\n cmp $-0x30000, %rdi\n jg 1b\n"
        "sub $0x7fff, %rbx");
SNIPPET(round_nest_leaves, 64,
        "xor %edi, %edi\n 1: test $7, %r8b\n jz 2f\n movq (%rbx,%rdi), %rax\n add $0x1fff, %rdi\n cmp $0xfff8, %rdi\n"
        "jne 1b\n 2: add $0xffff, %rbx");
SNIPPET(round_nest_moves, 64,
        "xor %edi, %edi\n 1: movq %rax, (%rbx,%rdi)\n add $0x7fff, %rbx\n add $8, %rdi\n cmp $64, %rdi\n jne 1b");
SNIPPET(round_nest_deep, 64,
        "xor %edi, %edi\n 1: xor %edx, %edx\n 2: movb %al, (%rbx,%rdx,4)\n add $0x3fff, %rdx\n cmp $0xfffc, %rdx\n"
        "jb 2b\n mov (%rbx), %rdx\n add $0xfff8, %rbx\n add $1, %edi\n cmp $5, %edi\n jne 1b");

static const struct snippet rounds[] = {
    LISTED(round_load),        LISTED(round_store),        LISTED(round_two),         LISTED(round_down),
    LISTED(round_r14),         LISTED(round_masked_store), LISTED(round_masked_load), LISTED(round_leaves),
    LISTED(round_conditional), LISTED(round_prefetch),     LISTED(round_seldom),      LISTED(round_either),
    LISTED(round_still),       LISTED(round_inner),        LISTED(round_inner_seldom), LISTED(round_inner_moves),
    LISTED(round_inner_entered), LISTED(round_nest),       LISTED(round_nest_far),    LISTED(round_nest_back),
    LISTED(round_nest_leaves), LISTED(round_nest_moves),   LISTED(round_nest_deep),
};
enum { ROUNDS = sizeof rounds / sizeof *rounds };
SNIPPET(loop_head, 64, "mov $200, %r8d");

/* Stack pointers that move in one block and are used in another. */
SNIPPET(stack_down, 64, "sub $0x7fff8, %rsp\n jmp 1f\n 1:");
SNIPPET(stack_up, 64, "add $0x1fff8, %rsp\n jc 1f\n 1:");
SNIPPET(stack_lea, 64, "lea -0x100000(%rsp), %rsp\n jmp 1f\n 1:");
SNIPPET(stack_wild, 64, "mov %rbx, %rsp\n jmp 1f\n 1:");
SNIPPET(stack_exchange, 64, "xchg %rbx, %rsp\n lea 1f(%rip), %rdx\n jmp *%rdx\n 1:");
SNIPPET(stack_leave, 64, "mov %rbx, %rbp\n leave\n jz 1f\n 1:");
SNIPPET(stack_pop, 64, "pop %rsp\n jmp 1f\n 1:");
SNIPPET(stack_base, 64, "rdfsbase %rsp\n jmp 1f\n 1:");
SNIPPET(stack_narrow, 64, "mov %ebx, %esp\n jmp 1f\n 1:");
SNIPPET(stack_drifts, 64, "mov $150, %r8d\n 1: sub $0xfff8, %rsp\n dec %r8d\n jnz 1b");
SNIPPET(stack_climbs, 64, "mov $90, %ecx\n 1: add $0x1fff0, %rsp\n loop 1b");
SNIPPET(stack_drifts_by_jumps, 64, "mov $150, %r8d\n 1: sub $0x10000, %rsp\n jmp 2f\n 2: dec %r8d\n jz 3f\n jmp 1b\n 3:");
SNIPPET(stack_masked, 64,
        "mov $120, %r8d\n vpxor %xmm0, %xmm0, %xmm0\n"
        "1: vmaskmovps %xmm1, %xmm0, (%rsp)\n sub $0xfff8, %rsp\n jmp 2f\n 2: dec %r8d\n jnz 1b");
SNIPPET(stack_releases, 64, "mov $90, %r8d\n 1: call 2f\n dec %r8d\n jnz 1b\n jmp 3f\n 2: ret $0xfff8\n 3:");
SNIPPET(stack_returns, 64, "lea 1f(%rip), %rdx\n mov %rdx, (%rbx)\n mov %rbx, %rsp\n ret\n 1:");
SNIPPET(use_push, 64, "push %rax");
SNIPPET(use_pop, 64, "pop %rax");
SNIPPET(use_store, 64, "movq %rax, -0x100000(%rsp)");
SNIPPET(use_load, 64, "movq 0xffff8(%rsp), %rax");
SNIPPET(use_call, 64, "call 1f\n jmp 2f\n 1: movb $1, 0x80000(%rsp)\n ret\n 2: movq -8(%rsp), %rax");
SNIPPET(use_loop, 64, "mov $9, %r8d\n 1: movq %rax, 0x80000(%rsp)\n dec %r8d\n jnz 1b");

static const struct snippet stacks[] = {
    LISTED(stack_down),     LISTED(stack_up),     LISTED(stack_lea),    LISTED(stack_wild),
    LISTED(stack_exchange), LISTED(stack_leave),  LISTED(stack_pop),    LISTED(stack_base),
    LISTED(stack_narrow),   LISTED(stack_drifts), LISTED(stack_climbs), LISTED(stack_drifts_by_jumps),
    LISTED(stack_masked),   LISTED(stack_releases), LISTED(stack_returns),
    LISTED(use_push),       LISTED(use_pop),      LISTED(use_store),    LISTED(use_load),
    LISTED(use_call),       LISTED(use_loop),
};
enum { STACKS = sizeof stacks / sizeof *stacks, STACK_USES = 6 /* the last of them */ };

/* Indices that are small, and what makes others of them. Stores go by rsi, which is near a region's edge or elsewhere. */
#define SMALL(name, text) SNIPPET(name, 64, "movzbl %cl, %ecx\n" text "\n movb (%rsi,%rcx,8), %al\n movq %rax, -8(%rsi,%rcx,8)")
SMALL(small_kept, "mov %ecx, %edx\n mov %rdx, %rcx");
SMALL(small_moved, "mov %rbx, %rcx");
SMALL(small_added, "add %rbx, %rcx");
SMALL(small_shifted, "shl $40, %rcx");
SMALL(small_negated, "neg %rcx");
SMALL(small_inverted, "not %rcx");
SMALL(small_extended, "movsbq %cl, %rcx");
SMALL(small_swapped, "bswap %rcx");
SMALL(small_exchanged, "xchg %rbx, %rcx");
SMALL(small_xadded, "xadd %rbx, %rcx");
SMALL(small_conditional, "cmovnz %rbx, %rcx");
SMALL(small_compared, "mov %rcx, %rax\n cmpxchg %rbx, %rcx");
SMALL(small_multiplied, "imul $0x12345678, %rbx, %rcx");
SMALL(small_popped, "push %rbx\n pop %rcx");
SMALL(small_lea, "lea (%rbx,%rcx), %rcx");
SMALL(small_bit, "bts $60, %rcx");
SMALL(small_vector, "movq %rbx, %xmm0\n movq %xmm0, %rcx");
SMALL(small_base, "rdfsbase %rcx");
SMALL(small_called, "jmp 2f\n 1: mov %rbx, %rcx\n ret\n 2: movzbl %cl, %ecx\n call 1b");
SMALL(small_looped,
      "mov $3, %r8d\n 1: mov $3, %r9d\n movzbl %cl, %ecx\n 2: movb (%rsi,%rcx,8), %al\n mov %rbx, %rcx\n"
      "dec %r9d\n jnz 2b\n dec %r8d\n jnz 1b");
SMALL(small_widened, "and $-2, %rcx\n and $0x7fffffff, %ebx\n mov %ebx, %ecx\n shr $1, %ecx");
SNIPPET(small_and, 64, "and $0x1ffff, %ecx\n movq %rax, (%rsi,%rcx,8)\n movq (%rsi,%rcx,8), %rax");
SNIPPET(small_shr, 64, "shr $44, %rcx\n mov %ecx, %r14d\n movq %rax, 7(%rsi,%r14)");
SNIPPET(small_table, 64, "movzwl %cx, %ecx\n movq 0x9000(,%rcx,8), %rax\n movq %rax, -0x7fff0000(,%rcx,8)\n movq %rax, 0x7fffffff(,%rcx,8)");

static const struct snippet smalls[] = {
    LISTED(small_kept),       LISTED(small_moved),    LISTED(small_added),       LISTED(small_shifted),
    LISTED(small_negated),    LISTED(small_inverted), LISTED(small_extended),    LISTED(small_swapped),
    LISTED(small_exchanged),  LISTED(small_xadded),   LISTED(small_conditional), LISTED(small_compared),
    LISTED(small_multiplied), LISTED(small_popped),   LISTED(small_lea),         LISTED(small_bit),
    LISTED(small_vector),     LISTED(small_base),     LISTED(small_called),      LISTED(small_looped),
    LISTED(small_widened),    LISTED(small_and),      LISTED(small_shr),         LISTED(small_table),
};
enum { SMALLS = sizeof smalls / sizeof *smalls };

SNIPPET(load32, 32, "movl (%ebx), %eax");
SNIPPET(load32_far, 32, "movl 0x7fffffff(%ebx,%ecx,8), %eax");
SNIPPET(load32_cs, 32, "movl %cs:(%ebx), %eax");
SNIPPET(store32, 32, "movl %eax, (%ebx)");
SNIPPET(store32_fs, 32, "movl %eax, %fs:4(%ebx)");
SNIPPET(near32_gs, 32, "movl %gs:0x14, %eax\n movl %gs:0xfffffff8, %eax\n movl %eax, %gs:0x100000");
SNIPPET(store32_16, 32, "movups %xmm0, -8(%ebx)");
SNIPPET(store32_word, 32, "movw %ax, (%bx,%si)");
SNIPPET(modify32, 32, "lock addl %eax, (%ebx)");
SNIPPET(bit32, 32, "btsl %ecx, (%ebx)");
SNIPPET(push32, 32, "mov %ebx, %esp\n push %eax");
SNIPPET(pusha32, 32, "mov %ebx, %esp\n pusha");
SNIPPET(pop32, 32, "mov %ebx, %esp\n popl (%ecx)");
SNIPPET(call32, 32, "mov %ebx, %esp\n call 1f\n1:");
SNIPPET(stos32, 32, "mov %ebx, %edi\n mov $40, %ecx\n rep stosl");
SNIPPET(movs32, 32, "mov %ebx, %edi\n mov %ecx, %esi\n mov $40, %ecx\n rep movsl");
SNIPPET(x87_32, 32, "fstpt (%ebx)");
SNIPPET(far32, 32, "les (%ebx), %eax");
SNIPPET(jump32, 32, "jmp *(%ebx)");

static const struct snippet accesses32[] = {
    LISTED(load32),     LISTED(load32_far),   LISTED(load32_cs), LISTED(store32), LISTED(store32_fs),
    LISTED(near32_gs),
    LISTED(store32_16), LISTED(store32_word), LISTED(modify32),  LISTED(bit32),   LISTED(push32),
    LISTED(pusha32),    LISTED(pop32),        LISTED(call32),    LISTED(stos32),  LISTED(movs32),
    LISTED(x87_32),     LISTED(far32),        LISTED(jump32),
};
enum { ACCESSES32 = sizeof accesses32 / sizeof *accesses32 };

#endif
