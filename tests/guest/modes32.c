/*
 * Switches of mode from 32-bit protected mode: real mode and back, big real mode, virtual-8086 mode with its IOPL
 * rules, 16-bit protected code, long mode with compatibility code and back (SDM vol. 3A, 9.9 and 20).
 */
#include "lib/guest.h"

extern uint64_t gdt[];
enum { LONG_CODE = 0x80, REAL_CODE = 0x7000, RESULT = 0x6000 };

/*
 * Real-mode code lives at 7000h. real_enter is called in 32-bit code; it runs the 16-bit body at 7200h with DS = 0 and
 * comes back. The body leaves by `ret`.
 */
__asm__(".pushsection .text\n"
        "real_begin:\n"
        ".code32\n"
        " pusha\n mov %esp, 0x6ff0\n sidt 0x6fe8\n lidt 0x7100\n"
        " ljmp $0x28, $0x7000 + (1f - real_begin)\n"
        ".code16\n"
        "1: mov $0x30, %eax\n cmpb $0, 0x6fe0\n jne 4f\n mov %eax, %ds\n mov %eax, %es\n mov %eax, %fs\n mov %eax, %gs\n"
        "4: mov %eax, %ss\n mov %cr0, %eax\n and $0x7ffffffe, %eax\n mov %eax, %cr0\n"
        " ljmp $0, $0x7000 + (2f - real_begin)\n"
        "2: xor %ax, %ax\n mov %ax, %ds\n mov %ax, %es\n mov %ax, %fs\n mov %ax, %gs\n mov %ax, %ss\n mov $0x6f00, %sp\n"
        " mov $0x7200, %ax\n call *%ax\n"
        " cli\n cld\n mov %cr0, %eax\n or $1, %eax\n mov %eax, %cr0\n ljmpl $0x08, $0x7000 + (3f - real_begin)\n"
        ".code32\n"
        "3: mov $0x10, %eax\n mov %eax, %ds\n mov %eax, %es\n mov %eax, %fs\n mov %eax, %gs\n mov %eax, %ss\n"
        " mov 0x6ff0, %esp\n lidt 0x6fe8\n popa\n ret\n"
        "real_end:\n"
        /* bodies */
        ".code16\n"
        "body_sum: mov $10, %cx\n xor %eax, %eax\n1: add %cx, %ax\n loop 1b\n mov %eax, 0x6000\n smsw %ax\n mov %ax, 0x6004\n ret\n"
        "body_int: movw $0x7200 + (1f - body_int), 0x40*4\n movw $0, 0x40*4+2\n mov $5, %bx\n stc\n int $0x40\n"
        " setc %al\n mov %al, 0x6004\n ret\n"
        "1: add $7, %bx\n mov %bx, 0x6000\n mov %sp, %bp\n mov 4(%bp), %ax\n mov %ax, 0x6008\n clc\n iret\n"
        "body_segments: mov $0x600, %ax\n mov %ax, %es\n movl $0x11223344, %es:8\n mov $0xf600, %ax\n mov %ax, %fs\n"
        " mov $0x600, %ax\n mov %ax, %ds\n mov $0x8, %si\n lodsl\n mov %eax, %es:12\n xor %ax, %ax\n mov %ax, %ds\n ret\n"
        "body_prefix: mov $0x12345678, %ebx\n mov $0x7000, %ecx\n mov %ebx, 0x6000-0x7000(%ecx)\n lea 4(%ebx,%ecx,2), %eax\n"
        " mov %eax, 0x6004\n movw $0x6010, %di\n mov $0xffff0000, %ecx\n mov $3, %cx\n mov $0x5a, %al\n rep stosb\n"
        " mov %ecx, 0x6008\n mov %di, 0x600c\n pushl $0x1234567\n popl %eax\n mov %eax, 0x6014\n ret\n"
        "body_wrap: mov $0x600, %ax\n mov %ax, %es\n mov $0xffff, %bx\n movb $0x77, %es:1(%bx)\n"
        " mov $0xfffe, %di\n mov $4, %cx\n mov $0x3333, %ax\n push %es\n mov $0x2000, %dx\n mov %dx, %es\n cld\n rep stosb\n"
        " mov %di, 0x6008\n mov %es:1, %al\n mov %al, 0x600a\n pop %es\n"
        " mov %sp, %bp\n mov $1, %sp\n dec %sp\n push %dx\n mov %sp, %ax\n mov %ax, 0x600c\n mov %bp, %sp\n ret\n"
        "body_limit: movw $0x7200 + (1f - body_limit), 13*4\n movw $0, 13*4+2\n mov %sp, %bp\n mov $0xffff, %bx\n"
        "2: mov (%bx), %ax\n movw $1, 0x6000\n mov %bp, %sp\n ret\n"
        "1: pop %ax\n sub $0x7200 + (2b - body_limit), %ax\n mov %ax, 0x6002\n movw $2, 0x6000\n mov %bp, %sp\n ret\n"
        "body_big: mov $0x200000, %ebx\n movl $0x600dbeef, %fs:(%ebx)\n mov %fs:(%ebx), %eax\n mov %eax, 0x6000\n ret\n"
        "body_bcd: mov $0x19, %al\n add $0x28, %al\n daa\n mov %al, 0x6000\n mov $0x35, %al\n sub $0x19, %al\n das\n mov %al, 0x6001\n"
        " mov $0x0308, %ax\n aad\n mov %ax, 0x6002\n mov $38, %al\n aam\n mov %ax, 0x6004\n mov $0x000f, %ax\n aaa\n mov %ax, 0x6006\n ret\n"
        "body_end:\n.code32\n.popsection");
extern uint8_t real_begin[], real_end[], body_sum[], body_int[], body_segments[], body_prefix[], body_wrap[], body_limit[],
    body_big[], body_bcd[], body_end[];

static uint32_t result(unsigned offset) {
    return *(volatile uint32_t *)(RESULT + offset);
}

static void real_mode(const uint8_t *body, bool is_big) {
    static const struct {
        uint16_t limit;
        uint32_t base;
    } __attribute__((packed)) real_idt = {0x3ff, 0};
    memory_copy((void *)REAL_CODE, real_begin, (size_t)(real_end - real_begin));
    memory_copy((void *)0x7100, &real_idt, 6);
    memory_copy((void *)0x7200, body, 256);
    memory_set((void *)RESULT, 0, 256);
    *(volatile uint8_t *)0x6fe0 = is_big;
    ((void (*)(void))REAL_CODE)();
}

static void real_mode_bodies(void) {
    real_mode(body_sum, false);
    check("real_mode_loop", result(0), 55);
    check("real_mode_smsw", result(4) & 1, 0);
    real_mode(body_int, false);
    check("real_mode_int", result(0), 12);
    check("real_mode_iret_restores_flags", result(4) & 0xff, 1);
    check("real_mode_int_pushes_flags", result(8) & 3, 3);
    real_mode(body_segments, false);
    check("real_mode_segments", result(12), 0x11223344);
    real_mode(body_prefix, false);
    check("operand_and_address_prefix", result(0), 0x12345678);
    check("lea_with_prefixes", result(4), 0x12345678 + 0x7000 * 2 + 4);
    check("rep_stosb_uses_cx", result(8), 0xffff0000);
    check("rep_stosb_di", result(12) & 0xffff, 0x6013);
    check("rep_stosb_stored", result(16) & 0xffffff, 0x5a5a5a);
    check("pushl_popl", result(20), 0x1234567);
    real_mode(body_wrap, false);
    check("offset_wraps_at_64k", result(0) & 0xff, 0x77);
    check("rep_stosb_wraps_di", result(8) & 0xffff, 2);
    check("rep_stosb_wrapped_data", result(10) & 0xff, 0x33);
    check("push_wraps_sp", result(12) & 0xffff, 0xfffe);
    real_mode(body_limit, false);
    check("word_at_ffff_is_gp", result(0) & 0xffff, 2);
    check("word_at_ffff_gp_ip", result(0) >> 16, 0);
    real_mode(body_big, true);
    check("big_real_mode", result(0), 0x600dbeef);
    check("big_real_mode_store", *(volatile uint32_t *)0x200000, 0x600dbeef);
    real_mode(body_bcd, false);
    check("daa_das", result(0) & 0xffff, 0x1647);
    check("aad", result(2) & 0xffff, 38);
    check("aam", result(4) & 0xffff, 0x0308);
    check("aaa", result(6) & 0xffff, 0x0105);
    unsigned wrong = 0;
    for (unsigned i = 0; i < 300; i++) {
        real_mode(body_sum, false);
        wrong += result(0) != 55;
    }
    check("in_and_out_of_real_mode", wrong, 0);
}

/* ---- virtual-8086 ---- */
static struct state run_vm86(const uint8_t *code, size_t size, unsigned iopl) {
    struct state state;
    memory_copy((void *)0x9000, code, size);
    state_init(&state, NULL);
    state.cs = 0x900;
    state.ip = 0;
    state.ss = state.ds = state.es = state.fs = state.gs = 0x800;
    state.sp = 0x800;
    state.flags = FIXED | VM | iopl << 12;
    run(&state);
    return state;
}

static void virtual_8086(void) {
    static const uint8_t cli_code[] = {0x90, 0xfa, 0xcd, 0x20}, pushf_code[] = {0x90, 0x9c, 0xcd, 0x20};
    static const uint8_t hlt_code[] = {0xf4}, int_code[] = {0xcd, 0x40}, out_code[] = {0xe6, 0x80, 0xcd, 0x20};
    static const uint8_t cr_code[] = {0x0f, 0x20, 0xc0}, far_code[] = {0xea, 0x10, 0, 0x01, 0x09};
    static const uint8_t segment_code[] = {0xb8, 0x34, 0x12, 0x8e, 0xc0, 0x26, 0xa1, 2, 0, 0xcd, 0x20};
    static const uint8_t limit_code[] = {0xbb, 0xff, 0xff, 0x8b, 0x07};
    struct state s = run_vm86(cli_code, sizeof cli_code, 0);
    check("vm86_cli_iopl_0_is_gp", s.vector, V_GP);
    check("vm86_cli_ip", s.ip, 1);
    check("vm86_cli_iopl_3", run_vm86(cli_code, sizeof cli_code, 3).vector, V_END);
    check("vm86_pushf_iopl_0_is_gp", run_vm86(pushf_code, sizeof pushf_code, 0).vector, V_GP);
    check("vm86_pushf_iopl_3", run_vm86(pushf_code, sizeof pushf_code, 3).vector, V_END);
    check("vm86_hlt_is_gp", run_vm86(hlt_code, sizeof hlt_code, 3).vector, V_GP);
    check("vm86_int_n_iopl_0_is_gp", run_vm86(int_code, sizeof int_code, 0).error, 0);
    s = run_vm86(int_code, sizeof int_code, 3);
    check("vm86_int_n_iopl_3_to_dpl_0_is_gp", s.error, 0x40 * 8 + 2);
    check("vm86_out_is_gp_without_bitmap", run_vm86(out_code, sizeof out_code, 3).vector, V_GP);
    check("vm86_mov_cr_is_gp", run_vm86(cr_code, sizeof cr_code, 3).vector, V_GP);
    *(uint16_t *)(0x12340 + 2) = 0xabcd;
    s = run_vm86(segment_code, sizeof segment_code, 3);
    check("vm86_segment_load", s.gpr[RAX] & 0xffff, 0xabcd);
    check("vm86_es_is_saved", s.es, 0x1234);
    check("vm86_limit_is_gp", run_vm86(limit_code, sizeof limit_code, 3).vector, V_GP);
    static const uint8_t end[] = {0xcd, 0x20};
    memory_copy((void *)(0x9010 + 0x10), end, 2);
    s = run_vm86(far_code, sizeof far_code, 3);
    check("vm86_far_jump", s.vector == V_END ? s.cs : s.vector, 0x901);
}

/* ---- 16-bit protected mode ---- */
__asm__(".pushsection .text\n.code16\ncode_16: mov $0xffff1234, %eax\n push %ax\n pop %bx\n call 1f\n mov $0x10000, %ecx\n"
        " jcxz 2f\n ud2\n1: inc %edx\n ret\n2: mov $0xffff, %si\n lea 2(%si), %edi\n int $0x20\ncode_16_end:\n.code32\n.popsection");
extern uint8_t code_16[], code_16_end[];

static void protected_16_bit(void) {
    struct state state;
    memory_copy((void *)0x5000, code_16, (size_t)(code_16_end - code_16));
    state_init(&state, (void *)0x5000);
    state.cs = CODE16_SELECTOR;
    state.gpr[RDX] = 0;
    run(&state);
    check("16_bit_code_ends", state.vector, V_END);
    check("16_bit_push_pop", state.gpr[RBX] & 0xffff, 0x1234);
    check("16_bit_call", state.gpr[RDX], 1);
    check("16_bit_lea_wraps", state.gpr[RDI], 1);
}

/* ---- long mode ---- */
__asm__(".pushsection .text\n"
        "long_switch: pusha\n"
        " mov %cr4, %eax\n or $0x20, %eax\n mov %eax, %cr4\n mov 36(%esp), %eax\n mov %eax, %cr3\n"
        " mov $0xc0000080, %ecx\n rdmsr\n or $0x100, %eax\n wrmsr\n mov %cr0, %eax\n or $0x80000000, %eax\n mov %eax, %cr0\n"
        " mov 40(%esp), %esi\n"
        " ljmp $0x80, $1f\n"
        ".code64\n"
        "1: movabs $0x123456789abcdef0, %r8\n mov %r8, (%rsi)\n movb $1, 8(%rsi)\n mov $-1, %rax\n mov %eax, %eax\n"
        " mov %rax, 16(%rsi)\n lea 1f(%rip), %rax\n push $8\n push %rax\n lretq\n"
        ".code32\n"
        "1: mov $0xc0000080, %ecx\n rdmsr\n mov %eax, 24(%esi)\n"
        " mov %cr0, %eax\n and $0x7fffffff, %eax\n mov %eax, %cr0\n"
        " mov $0xc0000080, %ecx\n rdmsr\n mov %eax, 28(%esi)\n and $~0x100, %eax\n wrmsr\n mov %cr4, %eax\n and $~0x20, %eax\n"
        " mov %eax, %cr4\n popa\n ret\n.popsection");
void long_switch(uint32_t cr3, uint64_t *results);

static void long_mode(void) {
    if (!(cpuid(0x80000001, 0).d & 1u << 29)) {
        skip("long_mode", "not offered");
        return;
    }
    uint64_t *pml4 = page_alloc(), *pdpt = page_alloc(), *directory = page_alloc(), results[4];
    pml4[0] = (uint32_t)pdpt | PAGE_P | PAGE_W;
    pdpt[0] = (uint32_t)directory | PAGE_P | PAGE_W;
    for (unsigned i = 0; i < 512; i++)
        directory[i] = (uint64_t)i << 21 | PAGE_PS | PAGE_P | PAGE_W;
    gdt[LONG_CODE / 8] = 0x00af9b000000ffff;
    unsigned wrong = 0;
    for (unsigned i = 0; i < 300; i++) {
        memory_set(results, 0, sizeof results);
        long_switch((uint32_t)pml4, results);
        wrong += results[0] != 0x123456789abcdef0 || results[2] != 0xffffffff;
    }
    check("in_and_out_of_long_mode", wrong, 0);
    check("64_bit_store", results[0], 0x123456789abcdef0);
    check("32_bit_move_clears_upper_half", results[2], 0xffffffff);
    check("lma_in_compatibility_mode", results[3] & 0x500, 0x500);
    check("lma_goes_with_paging", results[3] >> 32 & 0x500, 0x100);
}

int main(void) {
    out8(0x92, (uint8_t)((in8(0x92) | 2) & ~1));
    real_mode_bodies();
    virtual_8086();
    protected_16_bit();
    long_mode();
    return 0;
}
