/* What 64-bit code alone has: bases of FS and GS, canonical addresses, registers beyond the first eight. */
#include "sensitive/sensitive.h"

enum { FS_BASE = 0xc0000100, GS_BASE, KERNEL_GS_BASE };

uint8_t *lonely_page(void) {
    static uint64_t page;
    if (!page)
        page_map(WINDOW + 0x7000, page = (uint64_t)page_alloc(), PAGE_P | PAGE_W);
    return (uint8_t *)(WINDOW + 0x7000);
}

SNIPPET(own_wrmsr, "", "wrmsr");
SNIPPET(own_fs, "", "wrmsr\n mov %fs:8, %rbx");
SNIPPET(own_cr_r10, "", "mov %cr0, %r10\n mov %cr3, %r15\n mov %r10, %cr0");
SNIPPET(own_lgdt, "", "lgdt (%rax)");
SNIPPET(own_popf, "", "popfq");
SNIPPET(own_pushf, "", "pushfq");

static const struct {
    uint64_t base;
    bool is_canonical;
} bases[] = {
    {0, true}, {0x00007fffffffffff, true}, {0x0000800000000000, false}, {0xffff7fffffffffff, false},
    {0xffff800000000000, true}, {~0ull, true}, {0x0001000000000000, false}, {0x8000000000000000, false},
};

static void segment_bases(void) {
    uint64_t old_gs = rdmsr(GS_BASE);
    for (unsigned i = 0; i < 300; i++) {
        uint32_t index = FS_BASE + i % 3;
        uint64_t base = bases[i / 3 % 8].base, before = rdmsr(index);
        struct state s = run_with("wrmsr", own_wrmsr, (uint32_t)base | 0xabull << 32, index | 0xcdull << 32,
                                  base >> 32 | 0xefull << 32, bases[i / 3 % 8].is_canonical ? V_END : V_GP);
        check_quiet("the base", rdmsr(index), bases[i / 3 % 8].is_canonical ? base : before);
        check_quiet("wrmsr leaves the flags", s.flags & ARITHMETIC, CF | ZF);
    }
    wrmsr(GS_BASE, old_gs);
    static uint64_t data[3] = {11, 22, 33};
    for (unsigned i = 0; i < 20; i++) {
        struct state s = run_with("access by fs", own_fs, (uint32_t)(uint64_t)&data[i & 1], FS_BASE, (uint64_t)&data[i & 1] >> 32, V_END);
        check_quiet("with the new base", s.gpr[RBX], data[(i & 1) + 1]);
    }
    check_true("wrmsr of bases", true);
}

static void tables(void) {
    static struct __attribute__((packed)) {
        uint16_t limit;
        uint64_t base;
    } old, table;
    __asm__ volatile("sgdt %0" : "=m"(old));
    for (unsigned i = 0; i < 8; i++) {
        table.limit = 0x1234;
        table.base = bases[i].base;
        if (bases[i].is_canonical)
            continue;
        run_with("lgdt of no address", own_lgdt, (word)&table, 0, 0, V_GP);
        __asm__ volatile("sgdt %0" : "=m"(table));
        check_quiet("GDTR stays", (word)memory_compare(&table, &old, sizeof old), 0);
    }
    check_true("lgdt of addresses that are not canonical", true);
}

/* The stack faults as for any push and pop, and the pointer stays. */
static void stack_faults(void) {
    uint8_t *page = lonely_page();
    for (unsigned i = 0; i < 30; i++) {
        struct state s;
        state_init(&s, own_popf);
        s.sp = (word)page + 4096 - (i & 7);
        word sp = s.sp;
        run(&s);
        check_quiet("popf behind the page", s.vector, V_PF);
        check_quiet("its address", s.cr2, (word)page + 4096);
        check_quiet("its stack pointer", s.sp, sp);
        state_init(&s, own_pushf);
        sp = s.sp = (word)page + (i & 7);
        run(&s);
        check_quiet("pushf in front of the page", s.vector, V_PF);
        check_quiet("its address", s.cr2, (word)page - 8 + (i & 7));
        check_quiet("its stack pointer", s.sp, sp);
    }
    check_true("popf and pushf at the ends of a page", true);
}

static void high_registers(void) {
    for (unsigned i = 0; i < 20; i++) {
        struct state s = run_with("control registers in r10 and r15", own_cr_r10, 0, 0, 0, V_END);
        check_quiet("CR0", s.gpr[R10], read_cr0());
        check_quiet("CR3", s.gpr[R15], read_cr3());
    }
    check_true("control registers in the upper registers", true);
}

void own_tests(void) {
    segment_bases();
    tables();
    stack_faults();
    high_registers();
}
