/* What 32-bit code alone has: PUSHA and POPA, and segment registers that matter. */
#include "sensitive/sensitive.h"

extern uint64_t gdt[];
enum { PAGE_BITS = PAGE_P | PAGE_W, LONELY = WINDOW + 0x7000 };

/* One to one by pages of 4 MiB, for both levels, but for one table with a single page in it. */
uint8_t *lonely_page(void) {
    static word *directory;
    if (directory)
        return (uint8_t *)LONELY;
    word *table = page_alloc();
    directory = page_alloc();
    for (unsigned i = 0; i < 1024; i++)
        directory[i] = i << 22 | PAGE_PS | PAGE_BITS | PAGE_U;
    directory[LONELY >> 22] = (word)table | PAGE_BITS | PAGE_U;
    table[LONELY >> 12 & 1023] = (word)page_alloc() | PAGE_BITS | PAGE_U;
    write_cr3((word)directory);
    write_cr4(read_cr4() | 0x10);
    write_cr0(read_cr0() | 0x80010000);
    return (uint8_t *)LONELY;
}

SNIPPET(own_pusha, "", "pushal");
SNIPPET(own_popa, "", "popal");
SNIPPET(own_popf, "", "popfl");
SNIPPET(own_pushf, "", "pushfl");

/* At CPL 3, as frames of faults go to the stack of level 0. */
static struct state run_at(const uint8_t *code, word sp) {
    struct state s;
    state_init_user(&s, code);
    s.sp = sp;
    run(&s);
    return s;
}

static void all_registers(void) {
    static word frame[32];
    for (unsigned i = 0; i < 40; i++) {
        word sp = (word)&frame[8 + i % 16];
        struct state before;
        memory_set(frame, 0, sizeof frame);
        state_init_user(&before, own_pusha);
        struct state s = run_at(own_pusha, sp);
        check_quiet("pusha ends", s.vector, V_END);
        check_quiet("its stack pointer", s.sp, sp - 32);
        for (unsigned r = 0; r < 8; r++)
            check_quiet("pushed", ((word *)sp)[-1 - (int)r], r == RSP ? sp : before.gpr[r]);
        check_quiet("nothing below", ((word *)sp)[-9], 0);
        for (unsigned r = 0; r < 8; r++)
            ((word *)sp)[r - 8] = 0x1000 * i + r;
        s = run_at(own_popa, sp - 32);
        check_quiet("popa ends", s.vector, V_END);
        check_quiet("its stack pointer", s.sp, sp);
        for (unsigned r = 0; r < 8; r++)
            check_quiet("popped", r == RSP ? 0 : s.gpr[r], r == RSP ? 0 : 0x1000 * i + 7 - r);
        check_quiet("flags stay", s.flags & ARITHMETIC, before.flags & ARITHMETIC);
    }
    check_true("pusha and popa", true);
}

/* The first push or pop that its page is missing for decides on the address. */
static void faults(void) {
    word page = (word)lonely_page();
    for (unsigned i = 0; i < 40; i++) {
        word inside = 4 * (i % 8), sp = page + inside;
        struct state s = run_at(own_pusha, sp);
        check_quiet("pusha in front of the page", s.vector, V_PF);
        check_quiet("its address", s.cr2, page - 4);
        check_quiet("its stack pointer", s.sp, sp);
        sp = page - 64;
        s = run_at(own_pusha, sp);
        check_quiet("pusha in no page", s.vector, V_PF);
        check_quiet("its address", s.cr2, sp - 4);
        sp = page + 4096 - inside;
        s = run_at(own_popa, sp);
        check_quiet("popa behind the page", s.vector, V_PF);
        check_quiet("its address", s.cr2, page + 4096);
        check_quiet("its stack pointer", s.sp, sp);
        s = run_at(own_popf, page + 4096 - (i & 3));
        check_quiet("popf behind the page", s.vector, V_PF);
        s = run_at(own_pushf, page + (i & 3));
        check_quiet("pushf in front of the page", s.vector, V_PF);
        check_quiet("its stack pointer", s.sp, page + (i & 3));
        s = run_at(own_pusha, page + 32);
        check_quiet("pusha that fits", s.vector, V_END);
        s = run_at(own_popa, page + 4096 - 32);
        check_quiet("popa that fits", s.vector, V_END);
    }
    check_true("pusha, popa, popf and pushf at the ends of a page", true);
}

/* ---- Segment registers ---- */

SNIPPET(own_reload, "", "mov %ax, %es\n mov %es:(%ebx), %edx\n movb %cl, 7(%edi)\n mov %ax, %es\n mov %es:(%ebx), %esi");
SNIPPET(own_pops, "", "push %eax\n push %eax\n push %eax\n pop %fs\n pop %es\n pop %gs\n mov %fs, %ebx\n mov %es, %edx\n mov %gs, (%edi)");

/* A descriptor that changes between two loads of its selector; bits 31 to 24 of the base are its last byte. */
static void reloads(void) {
    enum { TEST = SPARE_SELECTOR };
    static word here = 77;
    lonely_page();
    for (unsigned i = 0; i < 60; i++) {
        struct state s;
        gdt[TEST / 8] = 0x00cf93000000ffffull; /* accessed */
        if (i & 1)
            gdt[TEST / 8] &= ~(1ull << 40);
        state_init(&s, own_reload);
        s.gpr[RAX] = TEST;
        s.gpr[RBX] = (word)&here;
        s.gpr[RCX] = i % 3 ? 0 : 0xff; /* the base becomes FF000000h */
        s.gpr[RDI] = (word)&gdt[TEST / 8];
        run(&s);
        check_quiet("reload ends", s.vector, V_END);
        check_quiet("by the first descriptor", s.gpr[RDX], 77);
        if (i % 3)
            check_quiet("by the second, the same", s.gpr[RSI], 77);
        else
            check_true("by the second, elsewhere", s.gpr[RSI] != 77);
        check_quiet("it is accessed", gdt[TEST / 8] >> 40 & 1, 1);
        check_quiet("the selector", s.es, TEST);
        static word selector;
        selector = 0x11111111;
        state_init(&s, own_pops);
        s.gpr[RAX] = i & 2 ? TEST | 0x50000 : 0;
        s.gpr[RDI] = (word)&selector;
        word sp = s.sp;
        gdt[TEST / 8] = 0x00cf93000000ffffull;
        run(&s);
        check_quiet("pops end", s.vector, V_END);
        check_quiet("fs", s.gpr[RBX], i & 2 ? TEST : 0);
        check_quiet("es", s.gpr[RDX], i & 2 ? TEST : 0);
        check_quiet("gs, 16 bits of it", selector, 0x11110000 | (i & 2 ? TEST : 0));
        check_quiet("the stack", s.sp, sp);
    }
    check_true("reloads of segment registers", true);
}

/* What was good once is looked at again: presence, type, limit of the table. */
SNIPPET(own_twice, "mov %ax, %fs\n movb %cl, 5(%edi)", "mov %ax, %fs");

static void checks_of_reloads(void) {
    enum { TEST = SPARE_SELECTOR };
    static const struct {
        uint8_t access;
        word vector;
    } cases[] = {{0x93, V_END}, {0x92, V_END}, {0x13, V_NP}, {0x99, V_GP}, {0x9b, V_END}, {0x83, V_GP}, {0x91, V_END}};
    for (unsigned i = 0; i < 70; i++) {
        struct state s;
        gdt[TEST / 8] = 0x00cf93000000ffffull;
        state_init(&s, own_twice);
        s.gpr[RAX] = TEST;
        s.gpr[RCX] = cases[i % 7].access;
        s.gpr[RDI] = (word)&gdt[TEST / 8];
        run(&s);
        check_quiet("the second load", s.vector, cases[i % 7].vector);
        if (s.vector != V_END)
            check_quiet("its selector", s.error, TEST);
    }
    check_true("reloads are checked", true);
}

/* The table is looked at again: its limit, its base, its page. */
SNIPPET(own_new_table, "mov %ax, %fs\n lgdt (%ebx)", "mov %ax, %fs\n mov %fs:(%edi), %edx");

static void tables_of_reloads(void) {
    enum { TEST = SPARE_SELECTOR, BYTES = TEST + 8 };
    static const word here[2] = {11, 22};
    static struct __attribute__((packed)) {
        uint16_t limit;
        uint32_t base;
    } old, table;
    uint64_t *copy = page_alloc();
    __asm__ volatile("sgdt %0" : "=m"(old));
    memory_copy(copy, gdt, BYTES);
    gdt[TEST / 8] = copy[TEST / 8] = 0x00cf93000000ffffull;
    copy[TEST / 8] |= 4 << 16; /* base 4 */
    for (unsigned i = 0; i < 60; i++) {
        struct state s;
        table = old;
        if (i % 3 == 1)
            table.base = (word)copy;
        if (i % 3 == 2)
            table.limit = TEST + 6;
        state_init(&s, own_new_table);
        s.gpr[RAX] = TEST;
        s.gpr[RBX] = (word)&table;
        s.gpr[RDI] = (word)&here[0];
        run(&s);
        check_quiet("reload by another table", s.vector, i % 3 == 2 ? V_GP : V_END);
        if (i % 3 != 2)
            check_quiet("its descriptor", s.gpr[RDX], here[i % 3]);
        __asm__ volatile("lgdt %0" : : "m"(old));
    }
    check_true("reloads by another table", true);
}

/* A return to CPL 3 empties registers of level 0; the same selector is a load then. */
SNIPPET(own_mov_fs, "", "mov %fs, %eax");

static void dropped(void) {
    enum { TEST = SPARE_SELECTOR };
    static const word here = 33;
    gdt[TEST / 8] = 0x00cf93000000ffffull;
    for (unsigned i = 0; i < 40; i++) {
        struct state s;
        word value;
        state_init_user(&s, own_mov_fs);
        s.fs = TEST;
        run(&s);
        check_quiet("user code sees a null selector", s.gpr[RAX], 0);
        __asm__ volatile("mov %1, %%fs\n mov %%fs:(%2), %0" : "=&r"(value) : "r"(TEST), "r"(&here));
        check_quiet("and the kernel what it has loaded", value, 33);
    }
    check_true("registers that were emptied", true);
}

void own_tests(void) {
    tables_of_reloads();
    dropped();
    all_registers();
    faults();
    reloads();
    checks_of_reloads();
}
