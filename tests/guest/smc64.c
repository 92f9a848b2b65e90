/*
 * Self-modifying code: what runs is what was stored last, wherever the store came from - the block itself, a string
 * instruction, another mapping, other page tables - and code beside data keeps working.
 */
#include "lib/guest.h"

typedef uint64_t function(void);

static uint8_t *code;  /* a page of RAM, through the one-to-one mapping */
static uint8_t *alias; /* the same page elsewhere */

/* mov $value, %eax; ret */
static void write_return(volatile uint8_t *to, uint32_t value) {
    to[0] = 0xb8;
    *(volatile uint32_t *)(to + 1) = value;
    to[5] = 0xc3;
}

static uint64_t call(const volatile uint8_t *at) {
    return ((function *)(uintptr_t)at)();
}

static void rewritten_functions_run_anew(void) {
    uint32_t wrong = 0;
    for (uint32_t i = 0; i < 5000; i++) {
        write_return(code, i);
        wrong += call(code) != i;
    }
    check("rewritten_function", wrong, 0);
    for (uint32_t i = wrong = 0; i < 2000; i++) {
        write_return(alias, i);
        cpuid(0, 0);
        wrong += call(code) != i;
    }
    check("rewritten_through_alias", wrong, 0);
    for (uint32_t i = wrong = 0; i < 2000; i++) {
        write_return(code, i);
        cpuid(0, 0);
        wrong += call(alias) != i;
    }
    check("run_through_alias", wrong, 0);
}

SNIPPET(s_ahead, "", "movl $2, 1f+1(%rip)\n1: mov $1, %eax");
SNIPPET(s_ahead_far, "", "movl $2, 1f+1(%rip)\n.rept 40\n nop\n.endr\n1: mov $1, %eax");
SNIPPET(s_ahead_jump, "", "movl $2, 1f+1(%rip)\njmp 1f\nnop\n1: mov $1, %eax");
SNIPPET(s_ahead_opcode, "", "movb $0x90, 1f(%rip)\nmovb $0x90, 1f+1(%rip)\nmov $7, %eax\n1: xor %eax, %eax");
/* counts ecx down; adds an immediate that every round increments */
SNIPPET(s_own_loop, "xor %eax, %eax", "1: incl 2f+1(%rip)\n2: .byte 5, 0, 0, 0, 0\n dec %ecx\n jnz 1b");
/* copies 8 bytes over the 8 that follow it */
SNIPPET(s_rep_over, "lea 2f(%rip), %rdi\n lea 3f(%rip), %rsi\n mov $8, %ecx",
        "rep movsb\n2: mov $1, %eax\n nop\n nop\n nop\n jmp 4f\n3: mov $9, %eax\n nop\n nop\n nop\n4:");
SNIPPET(s_call_and_return, "jmp 2f\n1: movl $5, 3f+1(%rip)\n ret", "2: call 1b\n3: mov $1, %eax");
SNIPPET(s_push_over, "mov %rsp, %rdx\n lea 1f+8(%rip), %rsp\n movabs $0x9090900000000bb8, %rbx",
        "push %rbx\n1: mov $1, %eax\n nop\n nop\n nop\n mov %rdx, %rsp");
SNIPPET(s_locked, "", "lock addl $4, 1f+1(%rip)\n1: mov $1, %eax");
SNIPPET(s_vector, "movabs $0x90909000000008b8, %rbx\n movq %rbx, %xmm0\n jmp 2f\n .balign 16",
        "2: movq %xmm0, 1f(%rip)\n1: mov $1, %eax\n nop\n nop\n nop");

static void run_and_check(const char *name, const uint8_t *snippet, uint64_t want) {
    struct state state;
    state_init(&state, snippet);
    state.gpr[RCX] = 100;
    run(&state);
    check_detail(name, "ends", state.vector, V_END);
    check(name, (uint32_t)state.gpr[RAX], want);
}

static void code_changes_itself(void) {
    run_and_check("store_to_next_instruction", s_ahead, 2);
    run_and_check("store_behind_nops", s_ahead_far, 2);
    run_and_check("store_behind_jump", s_ahead_jump, 2);
    run_and_check("store_of_opcode", s_ahead_opcode, 7);
    run_and_check("loop_that_changes_its_immediate", s_own_loop, 5050);
    run_and_check("rep_movsb_over_the_next_instruction", s_rep_over, 9);
    run_and_check("callee_changes_the_return_site", s_call_and_return, 5);
    run_and_check("push_over_the_next_instruction", s_push_over, 11);
    run_and_check("locked_add_to_the_next_instruction", s_locked, 5);
    run_and_check("vector_store_to_the_next_instruction", s_vector, 8);
}

static void data_beside_code(void) {
    volatile uint32_t *counter = (volatile uint32_t *)(code + 2048);
    uint64_t sum = 0;
    write_return(code, 3);
    *counter = 0;
    for (unsigned i = 0; i < 100000; i++) {
        sum += call(code);
        ++*counter;
    }
    check("data_beside_code_counts", *counter, 100000);
    check("code_beside_data_runs", sum, 300000);
}

static void code_copied_by_strings(void) {
    static uint8_t templates[16][64];
    uint32_t wrong = 0;
    for (unsigned i = 0; i < 16; i++) {
        memory_set(templates[i], 0x90, 64);
        write_return(templates[i] + i, 100 + i);
    }
    for (unsigned i = 0; i < 4000; i++) {
        void *to = code + 256, *from = templates[i % 16];
        uint64_t count = 8;
        __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
        wrong += call(code + 256) != 100 + i % 16;
    }
    check("rep_movsq_of_code", wrong, 0);
}

static void instruction_across_pages(void) {
    uint8_t *pages = pages_alloc(8192, 4096);
    uint32_t wrong = 0;
    for (uint32_t i = 0; i < 500; i++) {
        write_return(pages + 4096 - 3, i << 16 | (i & 0xff));
        wrong += call(pages + 4096 - 3) != (i << 16 | (i & 0xff));
        pages[4096 + 1] ^= 0x55; /* the top byte of the immediate */
        wrong += call(pages + 4096 - 3) != ((i << 16 | (i & 0xff)) ^ 0x55000000);
    }
    check("instruction_across_pages", wrong, 0);
}

static void remapped_pages(void) {
    uint8_t *pages[2] = {page_alloc(), page_alloc()};
    uint64_t va = WINDOW + 0x200000;
    uint32_t wrong = 0;
    write_return(pages[0], 10);
    write_return(pages[1], 11);
    for (unsigned i = 0; i < 2000; i++) {
        page_map(va, (uint64_t)pages[i & 1], PAGE_P | PAGE_W);
        wrong += call((uint8_t *)va) != 10 + (i & 1);
    }
    check("remapped_by_invlpg", wrong, 0);
    uint64_t roots[2] = {read_cr3(), page_clone_root()};
    page_map(va, (uint64_t)pages[0], PAGE_P | PAGE_W);
    *page_entry(roots[1], WINDOW, 4) = 0;
    *page_entry(roots[1], va, 1) = (uint64_t)pages[1] | PAGE_P | PAGE_W;
    for (unsigned i = wrong = 0; i < 2000; i++) {
        write_cr3(roots[i & 1]);
        wrong += call((uint8_t *)va) != 10 + (i & 1);
    }
    write_cr3(roots[0]);
    check("remapped_by_cr3", wrong, 0);
    write_return(pages[0], 20);
    check("old_page_changed_while_unmapped", call((uint8_t *)va), 20);
}

/* Code runs, its page becomes data, is written, and runs again: twenty rounds over many pages. */
static void pages_change_roles(void) {
    enum { PAGES = 64 };
    uint8_t *pages = pages_alloc(PAGES * 4096, 4096);
    uint32_t wrong = 0;
    for (uint32_t round = 0; round < 20; round++) {
        for (uint32_t i = 0; i < PAGES; i++)
            for (uint32_t n = 0; n < 4096; n += 256)
                write_return(pages + i * 4096 + n, round * 100000 + i * 4096 + n);
        for (uint32_t i = 0; i < PAGES; i++)
            for (uint32_t n = 0; n < 4096; n += 256)
                wrong += call(pages + i * 4096 + n) != round * 100000 + i * 4096 + n;
        memory_set(pages, 0xcc, PAGES * 4096);
    }
    check("pages_change_roles", wrong, 0);
}

int main(void) {
    code = page_alloc();
    alias = (uint8_t *)WINDOW;
    page_map(WINDOW, (uint64_t)code, PAGE_P | PAGE_W);
    rewritten_functions_run_anew();
    code_changes_itself();
    data_beside_code();
    code_copied_by_strings();
    instruction_across_pages();
    remapped_pages();
    pages_change_roles();
    return 0;
}
