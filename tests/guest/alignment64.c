/*
 * Alignment checks (SDM vol. 3A, 6.15, interrupt 17): at CPL 3 with CR0.AM and RFLAGS.AC, an operand that is not aligned
 * as its type wants is #AC with an error code of 0; vectors of 16 bytes and more are not checked. A page fault comes first.
 */
#include "lib/guest.h"

enum { CR0_AM_BIT = 1 << 18 };

struct row {
    const char *name;
    const uint8_t *code;
    unsigned offset;    /* from an address that is aligned to 64 */
    unsigned alignment; /* the type's; 1: never #AC */
};

#define KIND(name, before, text) SNIPPET(a_##name, before, text)
KIND(load_1, "", "movb (%rbx), %al");
KIND(load_2, "", "movw (%rbx), %ax");
KIND(load_4, "", "movl (%rbx), %eax");
KIND(load_8, "", "movq (%rbx), %rax");
KIND(store_4, "", "movl %eax, (%rbx)");
KIND(modify_8, "", "addq %rax, (%rbx)");
KIND(locked_4, "", "lock incl (%rbx)");
KIND(exchange, "", "cmpxchg8b (%rbx)");
KIND(push, "mov %rbx, %rsp", "push %rax");
KIND(pop, "mov %rbx, %rsp", "pop %rax");
KIND(call, "mov %rbx, %rsp", "call 1f\n1:");
KIND(ret, "lea 1f(%rip), %rax\n mov %rax, (%rbx)\n mov %rbx, %rsp", "ret\n1:");
KIND(movs, "mov %rbx, %rsi\n lea 64(%rdx), %rdi\n mov $3, %ecx", "rep movsl");
KIND(stos, "mov %rbx, %rdi\n mov $3, %ecx", "rep stosw");
KIND(float_4, "fninit", "flds (%rbx)");
KIND(float_10, "fninit", "fldt (%rbx)");
KIND(environment, "fninit", "fnstenv (%rbx)");
KIND(scalar_8, "", "movsd (%rbx), %xmm0");
KIND(vector_16, "", "movups (%rbx), %xmm0");
KIND(vector_store_16, "", "movdqu %xmm0, (%rbx)");
KIND(bits, "", "btsl $1, (%rbx)");

#define ROW(kind, offset, alignment) {#kind, a_##kind, offset, alignment}
static const struct row rows[] = {
    ROW(load_1, 3, 1),      ROW(load_2, 2, 2),     ROW(load_2, 3, 2),    ROW(load_4, 4, 4),   ROW(load_4, 2, 4),
    ROW(load_8, 8, 8),      ROW(load_8, 4, 8),     ROW(store_4, 8, 4),   ROW(store_4, 7, 4),  ROW(modify_8, 16, 8),
    ROW(modify_8, 12, 8),   ROW(locked_4, 4, 4),   ROW(locked_4, 1, 4),  ROW(exchange, 8, 8), ROW(exchange, 4, 8),
    ROW(push, 16, 8),       ROW(push, 12, 8),      ROW(pop, 8, 8),       ROW(pop, 1, 8),      ROW(call, 16, 8),
    ROW(call, 20, 8),       ROW(ret, 8, 8),        ROW(movs, 4, 4),      ROW(movs, 6, 4),     ROW(stos, 2, 2),
    ROW(stos, 5, 2),        ROW(float_4, 4, 4),    ROW(float_4, 6, 4),   ROW(float_10, 8, 8), ROW(float_10, 12, 8),
    ROW(environment, 4, 4), ROW(environment, 2, 4), ROW(scalar_8, 8, 8), ROW(scalar_8, 4, 8), ROW(vector_16, 1, 1),
    ROW(vector_store_16, 7, 1), ROW(bits, 4, 4),   ROW(bits, 3, 4),
};
enum { ROWS = sizeof rows / sizeof *rows };

static uint64_t data;

static void prepare(struct state *state, const struct row *row, bool is_user) {
    if (is_user)
        state_init_user(state, row->code);
    else
        state_init(state, row->code);
    state->gpr[RBX] = data + row->offset;
    state->gpr[RDX] = data;
    state->gpr[RCX] = 1;
}

/* RET needs its target where code of both levels finds it; a snippet writes it itself, aligned or not. */
static void every_kind(void) {
    for (unsigned i = 0; i < ROWS; i++) {
        struct state state;
        bool is_aligned = !(rows[i].offset & (rows[i].alignment - 1));
        prepare(&state, &rows[i], true);
        state.flags |= AC;
        run(&state);
        check(rows[i].name, state.vector, is_aligned ? V_END : V_AC);
        if (!is_aligned)
            check_quiet("error_code_of_ac", state.error, 0);
        prepare(&state, &rows[i], true);
        run(&state);
        check_quiet("without_ac_nothing_is_checked", state.vector, V_END);
        prepare(&state, &rows[i], false);
        state.flags |= AC;
        run(&state);
        check_quiet("supervisor_code_is_not_checked", state.vector, V_END);
    }
}

static const struct row misaligned = ROW(load_8, 4, 8);
SNIPPET(a_popf, "pushfq\n orl $0x40000, (%rsp)", "popfq\n movq (%rbx), %rax");
SNIPPET(a_many, "xor %eax, %eax\n mov $1000, %ecx", "1: addl $3, (%rbx)\n addl (%rbx), %eax\n loop 1b");

static void conditions(void) {
    struct state state;
    write_cr0(read_cr0() & ~(word)CR0_AM_BIT);
    prepare(&state, &misaligned, true);
    state.flags |= AC;
    run(&state);
    check("without_am_nothing_is_checked", state.vector, V_END);
    write_cr0(read_cr0() | CR0_AM_BIT);
    prepare(&state, &misaligned, true);
    state.flags |= AC;
    state.gpr[RBX] = WINDOW + 0x8004; /* not mapped */
    run(&state);
    check("page_fault_comes_first", state.vector, V_PF);
    state_init_user(&state, a_popf);
    state.gpr[RBX] = data + 4;
    run(&state);
    check("ac_counts_from_the_popf_on", state.vector, V_AC);
    *(volatile uint32_t *)(uintptr_t)data = 0;
    state_init_user(&state, a_many);
    state.gpr[RBX] = data;
    state.flags |= AC;
    run(&state);
    check("aligned_code_runs", state.vector, V_END);
    check("aligned_code_computes", (uint32_t)state.gpr[RAX], 3 * 1000 * 1001 / 2);
}

int main(void) {
    pic_init(0x30);
    data = WINDOW;
    *page_entry(read_cr3(), data, 1) = (uint64_t)page_alloc() | PAGE_P | PAGE_W | PAGE_U;
    invlpg((void *)(uintptr_t)data);
    write_cr0(read_cr0() | CR0_AM_BIT);
    every_kind();
    conditions();
    return 0;
}
