/*
 * A program that means harm, part one: accesses of every kind and size at every edge of the address space and of the
 * guest's memory. Nothing of it may leave the guest: each ends in the access or in the guest's own fault, and a
 * pattern over the guest's memory shows that no stray store fell into it.
 */
#include "lib/guest.h"

enum { GUARD_PAGES = 64 };

SNIPPET(h_load_1, "", "movb (%rbx), %al");
SNIPPET(h_load_8, "", "movq (%rbx), %rax");
SNIPPET(h_load_disp, "", "movq 0x7fffffff(%rbx), %rax");
SNIPPET(h_load_index, "", "movq -0x80000000(%rbx,%rcx,8), %rax");
SNIPPET(h_load_32, "", "movl (%ebx), %eax");
SNIPPET(h_load_32_index, "", "movl 0x7fffffff(%ebx,%ecx,8), %eax");
SNIPPET(h_store_1, "", "movb %al, (%rbx)");
SNIPPET(h_store_8, "", "movq %rax, (%rbx)");
SNIPPET(h_store_index, "", "movq %rax, (%rbx,%rcx,8)");
SNIPPET(h_store_16, "", "movups %xmm0, (%rbx)");
SNIPPET(h_rmw_8, "", "xorq %rax, (%rbx)");
SNIPPET(h_locked, "", "lock xaddq %rax, (%rbx)");
SNIPPET(h_cmpxchg16b, "", "lock cmpxchg16b (%rbx)");
SNIPPET(h_bts, "", "btsq %rcx, (%rbx)");
SNIPPET(h_bt, "", "btl %ecx, (%rbx)");
SNIPPET(h_push, "mov %rbx, %rsp", "push %rax");
SNIPPET(h_pop, "mov %rbx, %rsp", "pop (%rcx)");
SNIPPET(h_call, "mov %rbx, %rsp", "call 1f\n1:");
SNIPPET(h_ret, "mov %rbx, %rsp", "ret");
SNIPPET(h_enter, "mov %rbx, %rsp\n mov %rcx, %rbp", "enter $0x1000, $31");
SNIPPET(h_stos, "mov %rbx, %rdi\n mov $64, %ecx", "rep stosq");
SNIPPET(h_stos_down, "mov %rbx, %rdi\n mov $64, %ecx\n std", "rep stosq");
SNIPPET(h_movs, "mov %rbx, %rdi\n mov %rcx, %rsi\n mov $200, %ecx", "rep movsb");
SNIPPET(h_movs_huge, "mov %rbx, %rdi\n mov %rcx, %rsi\n mov $-1, %rcx", "rep movsb");
SNIPPET(h_jump, "", "jmp *%rbx");
SNIPPET(h_jump_memory, "", "jmp *(%rbx)");
SNIPPET(h_far_jump, "", "ljmp *(%rbx)");
SNIPPET(h_fxsave, "", "fxsave64 (%rbx)");
SNIPPET(h_fxrstor, "", "fxrstor64 (%rbx)");
SNIPPET(h_fnsave, "", "fnsave (%rbx)");
SNIPPET(h_maskmov, "mov %rbx, %rdi", "maskmovdqu %xmm1, %xmm0");
SNIPPET(h_clflush, "", "clflush (%rbx)");
SNIPPET(h_prefetch, "", "prefetcht0 (%rbx)");
SNIPPET(h_invlpg, "", "invlpg (%rbx)");
SNIPPET(h_sgdt, "", "sgdt (%rbx)");
SNIPPET(h_ins, "mov %rbx, %rdi\n mov $0xe8, %edx\n mov $16, %ecx", "rep insb");
SNIPPET(h_outs, "mov %rbx, %rsi\n mov $0xe8, %edx\n mov $16, %ecx", "rep outsb");
SNIPPET(h_gs, "", "movq %rax, %gs:(%rbx)");
SNIPPET(h_xlat, "", "xlat");
SNIPPET(h_xsave, "mov $-1, %eax\n mov $-1, %edx", "xsave (%rbx)");
SNIPPET(h_movbe, "", "movbe %rax, (%rbx)");
SNIPPET(h_movnti, "", "movnti %rax, (%rbx)");

static const uint8_t *const kinds[] = {
    h_load_1, h_load_8, h_load_disp, h_load_index, h_load_32, h_load_32_index, h_store_1, h_store_8, h_store_index,
    h_store_16, h_rmw_8, h_locked, h_cmpxchg16b, h_bts, h_bt, h_push, h_pop, h_call, h_ret, h_enter, h_stos,
    h_stos_down, h_movs, h_movs_huge, h_jump, h_jump_memory, h_far_jump, h_fxsave, h_fxrstor, h_fnsave, h_maskmov,
    h_clflush, h_prefetch, h_invlpg, h_sgdt, h_ins, h_outs, h_gs, h_xlat, h_xsave, h_movbe, h_movnti,
};

static const uint64_t edges[] = {
    0, 0x1000, 0x7ffff000, 0x7fffffff, 0x80000000, 0xfffff000, 0xffffffff, 0x100000000, 0x7fffffffffff,
    0x800000000000, 0x7ffffffff000, 0xffff7fffffffffff, 0xffff800000000000, 0xffffffff80000000, 0xffffffffffffffff,
    0x4000000000, 0x8000000000, 0x555555554000, 0x7f0000000000, 0x7fff00000000, 0x10000000000, 0x100080000000,
    0x3fffffffff, 0x3fffffffffff, 0x8000000000000000, 0x7fffffffffffffff, 0xdeadbeefdeadbeef,
};

/* A page that CPL 3 may write; all else it sees is its code, read-only. */
static void map_user_page(void) {
    uint64_t *user_page = page_entry(read_cr3(), WINDOW, 1);
    *user_page = (uint64_t)page_alloc() | PAGE_P | PAGE_W | PAGE_U;
}

static unsigned ended, faulted;

static void try(const uint8_t *kind, uint64_t rbx, uint64_t rcx) {
    struct state state;
    state_init_user(&state, kind);
    state.gpr[RBX] = rbx;
    state.gpr[RCX] = rcx;
    run(&state);
    state.vector == V_END ? ended++ : faulted++;
    /* faults, and the end of a snippet that jumped into another one */
    check_quiet("vector_of_a_wild_access", state.vector <= V_XM || state.vector == V_END, true);
    __asm__ volatile("fninit; cld");
}

static void every_kind_at_every_edge(void) {
    static const int64_t around[] = {-65, -64, -16, -8, -7, -1, 0, 1, 8, 4088};
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (size_t e = 0; e < sizeof edges / sizeof *edges; e++)
            for (size_t a = 0; a < sizeof around / sizeof *around; a++)
                try(kinds[k], edges[e] + (uint64_t)around[a], edges[(e * 7 + k) % (sizeof edges / sizeof *edges)]);
    print("edges: ended ");
    print_hex(ended);
    print(" faulted ");
    print_hex(faulted);
    print("\n");
    check_true("edges_tried", ended + faulted > 10000);
}

static void random_pointers(void) {
    uint64_t seed = 0x1234567;
    for (unsigned i = 0; i < 60000; i++) {
        uint64_t rbx = random_next(&seed), rcx = random_next(&seed);
        unsigned shift = (unsigned)random_next(&seed) & 63;
        try(kinds[i % (sizeof kinds / sizeof *kinds)], (uint64_t)((int64_t)rbx >> shift), rcx >> (shift / 2));
    }
    check_true("random_pointers_tried", true);
}

/* Our own memory is behind supervisor pages; a checksum tells whether something got through. */
static uint8_t guard[GUARD_PAGES][4096] __attribute__((aligned(4096)));

static void guard_fill(void) {
    for (unsigned i = 0; i < GUARD_PAGES; i++)
        memory_set(guard[i], (int)(0x80 + i), 4096);
}

static bool guard_holds(void) {
    for (unsigned i = 0; i < GUARD_PAGES; i++)
        for (unsigned n = 0; n < 4096; n++)
            if (guard[i][n] != (uint8_t)(0x80 + i))
                return false;
    return true;
}

/* CPL 3 may execute its alias but not write it. */
static void make_alias_read_only(void) {
    for (unsigned i = 0; i < 32; i++)
        *page_entry(read_cr3(), USER_ALIAS + i * 0x200000ull, 2) &= ~(uint64_t)PAGE_W;
    write_cr3(read_cr3());
}

int main(void) {
    pic_init(0x30);
    map_user_page();
    guard_fill();
    make_alias_read_only();
    wrmsr(0xc0000101, 0);
    every_kind_at_every_edge();
    random_pointers();
    check_true("guarded_memory_is_untouched", guard_holds());
    return 0;
}
