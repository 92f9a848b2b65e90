/*
 * The monitor's memory stays unread and unwritten: hostile guest code, with every host instruction that comes of it
 * stepped and its accesses looked at. All of the guest's addresses are mapped to one MiB, so that wild pointers do not
 * end in page faults but get as far as translated code lets them.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "tests/containment/stepper.h"
#include "tests/unit/translator/guest_machine.h"

enum {
    TABLES = 0x10000,
    DATA_TABLE = TABLES + 0x4000,
    CODE_TABLE = TABLES + 0x5000,
    DATA_PAGES = 0x100000,
    EXITS = 6,
    SEQUENCE = 8,
    SEQUENCES = 1500,
};

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
    LISTED(load_fs_near), LISTED(move_fs),
    LISTED(load_indexed), LISTED(load_32),       LISTED(load_fs),   LISTED(load_constant), LISTED(store_1),
    LISTED(store_8),      LISTED(store_indexed), LISTED(store_gs),  LISTED(store_r14),     LISTED(store_16),
    LISTED(store_32),     LISTED(modify),        LISTED(locked),    LISTED(exchange_16),   LISTED(bit_set),
    LISTED(bit_test),     LISTED(bit_word),      LISTED(push_8),    LISTED(pop_8),         LISTED(call_near),
    LISTED(return_elsewhere), LISTED(return_and_release),
    LISTED(enter_deep),   LISTED(stos_up),       LISTED(stos_down), LISTED(movs),          LISTED(movs_one),
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

static const uint64_t edges[] = {
    0,
    0x1000,
    0x7fffffff,
    0x80000000,
    0xffffffff,
    0x100000000,
    0x4000000000,
    0x8000000000,
    0xffffffffff,
    0x10000000000,
    0x555555554000,
    0x7f0000000000,
    0x7ffdfffff000,
    0x7fffffffffff,
    0x800000000000,
    0xffff7fffffffffff,
    0xffff800000000000,
    0xffffffffff600000,
    0xffffffffffffffff,
    0x80000000000000,
    0x40000000000000,
    0x8000000000000000,
    0x7fffffffffffffff,
    0x18000000000000,
    0xff80555555554000,
};
enum { EDGES = sizeof edges / sizeof *edges };
static const int64_t around[] = {-0x100001, -9, -1, 0, 5, 0x7fff8};
enum { AROUND = sizeof around / sizeof *around };

static struct guest guest;
static struct stepper stepper;
static uint64_t seed;

static uint64_t draw(uint64_t below) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (seed >> 8) % below;
}

static uint64_t wild(void) {
    uint64_t at = edges[draw(EDGES)] + (uint64_t)around[draw(AROUND)];
    return draw(4) ? at : at + (draw(1 << 22) - (1 << 21));
}

/* ---- The guest ---- */

static void put(uint64_t at, uint64_t value, unsigned size) {
    memcpy(guest.ram + at, &value, size);
}

/* Every address leads to the data pages, over and over, but for the code's page. */
static void fill_tables(bool is_64) {
    memset(guest.ram + DATA_PAGES, 0xcc, RAM_SIZE - DATA_PAGES); /* INT3 where a jump may lead */
    const uint64_t rights = 7;                                   /* present, writable, user */
    const unsigned size = is_64 ? 8 : 4, entries = 4096 / size;
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t page = (DATA_PAGES + (i % 256) * 4096) | rights;
        put(DATA_TABLE + size * i, page, size);
        put(CODE_TABLE + size * i, i == CODE / 4096 ? CODE | 5 : page, size);
        for (uint64_t level = 0; level < 3; level++)
            put(TABLES + level * 0x1000 + size * i, (level == 2 ? DATA_TABLE : TABLES + (level + 1) * 0x1000) | rights,
                size);
    }
    if (is_64) { /* the code's way down has tables of its own */
        memcpy(guest.ram + TABLES + 0x6000, guest.ram + TABLES + 0x1000, 0x1000);
        memcpy(guest.ram + TABLES + 0x7000, guest.ram + TABLES + 0x2000, 0x1000);
        put(TABLES, (TABLES + 0x6000) | rights, 8);
        put(TABLES + 0x6000, (TABLES + 0x7000) | rights, 8);
        put(TABLES + 0x7000, CODE_TABLE | rights, 8);
    } else {
        put(TABLES + 0x2000, CODE_TABLE | rights, 4);
    }
}

static struct trapeze_registers registers_of(bool is_64, bool is_user) {
    struct trapeze_registers registers = is_64 ? guest_long_mode(&guest) : guest_protected_mode();
    registers.cr0 |= 0x80000000;
    registers.cr3 = is_64 ? TABLES : TABLES + 0x2000;
    registers.xcr0 = 7;
    registers.cr4 |= 1 << 18 | (is_64 ? 1 << 16 : 0); /* OSXSAVE, FSGSBASE */
    for (unsigned i = 0; is_user && i < TRAPEZE_SEGMENTS; i++)
        registers.segment[i].attributes |= 0x60;
    registers.gpr[RSP] = 0x20000;
    return registers;
}

/* Ends what loops; now and then something else, too. */
static void kick(int number) {
    (void)number;
    trapeze_vcpu_kick(guest.vcpu);
}

static void start_timer(void) {
    const struct sigaction action = {.sa_handler = kick, .sa_flags = SA_ONSTACK | SA_RESTART};
    const struct itimerval often = {{0, 30000}, {0, 30000}};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
}

static void stop_timer(void) {
    setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
}

static void create(bool is_64, enum trapeze_windows windows) {
    const struct trapeze_config config = {.unclaimed_exits = true, .windows = windows};
    guest_create(&guest, &config);
    /* Windows do without memory whose changes are logged. */
    ck_assert_int_eq(trapeze_memory_map(guest.machine, 0, guest_physical_at(0), guest.fd, 0, RAM_SIZE, 0), TRAPEZE_OK);
    stepper = (struct stepper){0};
    seed = 0x1234567;
    fill_tables(is_64);
    ck_assert(stepper_watch(guest.machine, &stepper));
    start_timer();
}

static void destroy(void) {
    stop_timer();
    printf("%llu steps: %llu accesses to memory, %llu windows, %llu state, %llu bounced, %llu stack, %llu refused\n",
           (unsigned long long)stepper.steps, (unsigned long long)stepper.in_memory,
           (unsigned long long)stepper.in_windows, (unsigned long long)stepper.in_state,
           (unsigned long long)stepper.in_bounce, (unsigned long long)stepper.on_stack,
           (unsigned long long)stepper.refused);
    guest_destroy(&guest);
    ck_assert_msg(stepper.violations == 0, "%llu violations, the first: %s", (unsigned long long)stepper.violations,
                  stepper.first);
}

/* Runs what is at CODE until it faults (which ends a machine without handlers), or has been outside a few times. */
static void run(struct trapeze_registers *registers, uint64_t rbx, uint64_t rcx) {
    registers->gpr[RBX] = rbx;
    registers->gpr[RCX] = rcx;
    registers->gpr[RSI] = rcx ^ 0x1000;
    registers->segment[TRAPEZE_FS].base = edges[draw(EDGES)] & 0xffffffff;
    ck_assert_int_eq(trapeze_vcpu_set_registers(guest.vcpu, registers), TRAPEZE_OK);
    trapeze_vcpu_set_events(guest.vcpu, &(struct trapeze_events){0}); /* the last one may have halted */
    for (unsigned i = 0; i < EXITS; i++) {
        ck_assert_int_eq(trapeze_vcpu_run(guest.vcpu, &guest.exit), TRAPEZE_OK);
        if (guest.exit.reason != TRAPEZE_EXIT_IO || guest.exit.io.space == TRAPEZE_PORT)
            break;
    }
    ck_assert_int_ne(guest.exit.reason, TRAPEZE_EXIT_ERROR);
}

/* ---- Programs ---- */

static uint8_t program[512];
static size_t program_size;

static void append(const struct snippet *snippet) {
    size_t size = (size_t)(snippet->to - snippet->from);
    memcpy(program + program_size, snippet->from, size);
    program_size += size;
}

/* Anew, and without what the translator has learned of its sites: each begins with the fast form. */
static void load_program(void) {
    struct engine *engine = &guest.machine->engine;
    static const uint8_t out[] = {0xe6, END_PORT, 0xeb, 0xfe};
    memcpy(program + program_size, out, sizeof out);
    guest_load(&guest, program, program + program_size + sizeof out);
    memset(engine->site_form, 0, sizeof engine->site_form);
}

/* Bases anywhere, and limits of all kinds. */
static void move_segments(struct trapeze_registers *registers) {
    static const uint32_t limits[] = {0, 7, 0xfff, 0xffff, 0xfffff, 0x7fffffff, 0xfffffffe, 0xffffffff};
    static const unsigned data[] = {TRAPEZE_ES, TRAPEZE_SS, TRAPEZE_DS, TRAPEZE_GS};
    for (unsigned i = 0; i < sizeof data / sizeof *data; i++) {
        struct trapeze_segment *segment = &registers->segment[data[i]];
        segment->base = (uint32_t)wild();
        segment->limit = limits[draw(sizeof limits / sizeof *limits)];
        segment->attributes = (segment->attributes & ~0xfu) | (draw(4) ? 3 : 7); /* some expand down */
    }
}

/* A stride above 1 leaves out pointers, and moves segments instead. */
static void every_access_from(struct trapeze_registers *registers, const struct snippet *accesses, unsigned count,
                              bool is_64, unsigned stride) {
    for (unsigned k = 0; k < count; k++) {
        fill_tables(is_64);
        program_size = 0;
        append(&accesses[k]);
        for (unsigned i = 0; i < EDGES * AROUND; i += stride) {
            load_program();
            if (stride > 1)
                move_segments(registers);
            run(registers, edges[i / AROUND] + (uint64_t)around[i % AROUND], wild());
        }
    }
}

static void every_access(const struct snippet *accesses, unsigned count, bool is_64, bool is_user) {
    struct trapeze_registers registers = registers_of(is_64, is_user);
    every_access_from(&registers, accesses, count, is_64, 1);
}

/* Several accesses through the same registers, which move in between. */
static void sequences(bool is_user) {
    struct trapeze_registers registers = registers_of(true, is_user);
    fill_tables(true);
    for (unsigned i = 0; i < SEQUENCES; i++) {
        program_size = 0;
        for (unsigned k = 0; k < SEQUENCE; k++) {
            append(&accesses64[draw(ACCESSES64 - ENDING)]);
            append(&steps64[draw(STEPS64)]);
        }
        load_program();
        for (unsigned k = 0; k < 3; k++)
            run(&registers, wild(), wild());
    }
}

/* The body, again and again until r8d is 0. */
static void append_loop(const struct snippet *first, const struct snippet *second) {
    const struct snippet head = LISTED(loop_head);
    static const uint8_t count[] = {0x41, 0xff, 0xc8, 0x0f, 0x85}; /* dec r8d; jnz */
    append(&head);
    size_t start = program_size;
    append(first);
    if (second)
        append(second);
    append(&(struct snippet){count, count + sizeof count});
    int32_t distance = (int32_t)start - (int32_t)(program_size + 4);
    append(&(struct snippet){(const uint8_t *)&distance, (const uint8_t *)(&distance + 1)});
}

static void loops(bool is_user) {
    struct trapeze_registers registers = registers_of(true, is_user);
    fill_tables(true);
    for (unsigned i = 0; i < ROUNDS * ROUNDS; i++) {
        program_size = 0;
        append_loop(&rounds[i / ROUNDS], i % ROUNDS ? &rounds[i % ROUNDS] : NULL);
        for (unsigned k = 0; k < 6; k++) {
            load_program();
            run(&registers, edges[draw(EDGES)] + (draw(1 << 22) - (1 << 21)), draw(2) ? 0 : wild());
        }
    }
}

/* From a stack in the middle of a region, or near the end of one. */
static void stray(void) {
    static const uint64_t tops[] = {0x20000, 0x7fff00001000, 0xfffffff000, 0x7f0000000010};
    struct trapeze_registers registers = registers_of(true, true);
    fill_tables(true);
    for (unsigned i = 0; i < 600; i++) {
        program_size = 0;
        for (unsigned k = 0; k < 5; k++) {
            append(&stacks[draw(STACKS)]);
            append(&stacks[STACKS - 1 - draw(STACK_USES)]);
        }
        load_program();
        registers.gpr[RSP] = tops[draw(4)];
        const uint64_t rbx = wild();
        for (unsigned k = 0; k < 3; k++) {
            guest.machine->vcpu[0]->cpu->hot.view->has_wild_stack = false;
            run(&registers, rbx, wild());
        }
    }
}

START_TEST(stacks_that_stray_stay_in_windows) {
    create(true, TRAPEZE_WINDOWS_ALWAYS);
    stray();
    ck_assert_uint_gt(stepper.in_windows, 10000);
    destroy();
}
END_TEST

START_TEST(loops_whose_checks_come_first_stay_in_windows) {
    create(true, TRAPEZE_WINDOWS_ALWAYS);
    loops(_i);
    ck_assert_uint_gt(stepper.in_windows, 10000);
    destroy();
}
END_TEST

/* Of supervisor and of user code: the one's windows have regions of both halves. */
START_TEST(wild_pointers_stay_in_windows) {
    create(true, TRAPEZE_WINDOWS_ALWAYS);
    every_access(accesses64, ACCESSES64, true, _i);
    ck_assert_uint_gt(stepper.in_windows, 10000);
    ck_assert_uint_gt(stepper.refused, 1000);
    destroy();
}
END_TEST

START_TEST(registers_that_move_after_a_check_stay_in_windows) {
    create(true, TRAPEZE_WINDOWS_ALWAYS);
    sequences(_i);
    ck_assert_uint_gt(stepper.in_windows, 10000);
    destroy();
}
END_TEST

START_TEST(wild_pointers_stay_in_memory_without_windows) {
    create(true, TRAPEZE_WINDOWS_OFF);
    every_access(accesses64, ACCESSES64, true, false);
    sequences(false);
    ck_assert_uint_gt(stepper.in_memory, 10000);
    ck_assert_uint_gt(stepper.in_bounce, 100);
    ck_assert_uint_eq(stepper.in_windows, 0);
    destroy();
}
END_TEST

START_TEST(wild_pointers_of_32_bit_code_stay_inside) {
    create(false, _i ? TRAPEZE_WINDOWS_ALWAYS : TRAPEZE_WINDOWS_OFF);
    every_access(accesses32, ACCESSES32, false, true);
    ck_assert_uint_gt(_i ? stepper.in_windows : stepper.in_memory, 1000);
    destroy();
}
END_TEST

START_TEST(segments_with_bases_and_limits_stay_inside) {
    create(false, TRAPEZE_WINDOWS_ALWAYS);
    struct trapeze_registers registers = registers_of(false, _i);
    every_access_from(&registers, accesses32, ACCESSES32, false, 2);
    ck_assert_uint_gt(stepper.in_memory, 300);
    destroy();
}
END_TEST

START_TEST(segments_of_16_bit_code_stay_inside) {
    create(false, TRAPEZE_WINDOWS_OFF);
    struct trapeze_registers registers = guest_real_mode();
    registers.xcr0 = 7;
    every_access_from(&registers, accesses32, ACCESSES32, false, 5); /* as 16-bit code they mean something else */
    ck_assert_uint_gt(stepper.in_memory, 300);
    destroy();
}
END_TEST

/* The stepper itself: an access that goes astray is seen. An entry of the software tables leads into this program. */
START_TEST(access_outside_is_seen) {
    static uint64_t secret[1024] __attribute__((aligned(4096))) = {0x5ec4e7};
    const uint64_t linear = 0x20000;
    create(true, TRAPEZE_WINDOWS_OFF);
    struct trapeze_registers registers = registers_of(true, false);
    append(&accesses64[1]); /* load_8 */
    append(&accesses64[1]);
    load_program();
    run(&registers, linear, 0);
    ck_assert_uint_eq(stepper.violations, 0);
    ck_assert_uint_eq(stepper.in_memory, 2);
    guest.machine->vcpu[0]->cpu->hot.view->tables->addend[view_index(linear)] = (uint64_t)secret - linear;
    guest.machine->vcpu[0]->cpu->hot.rip = CODE;
    ck_assert_int_eq(trapeze_vcpu_run(guest.vcpu, &guest.exit), TRAPEZE_OK);
    ck_assert_uint_eq(guest_register(&guest, RAX), 0x5ec4e7);
    ck_assert_uint_eq(stepper.violations, 2);
    stop_timer();
    guest_destroy(&guest);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("containment");
    TCase *tcase = tcase_create("containment");
    tcase_set_timeout(tcase, 250);
    tcase_add_loop_test(tcase, wild_pointers_stay_in_windows, 0, 2);
    tcase_add_loop_test(tcase, registers_that_move_after_a_check_stay_in_windows, 0, 2);
    tcase_add_test(tcase, stacks_that_stray_stay_in_windows);
    tcase_add_loop_test(tcase, loops_whose_checks_come_first_stay_in_windows, 0, 2);
    tcase_add_test(tcase, wild_pointers_stay_in_memory_without_windows);
    tcase_add_loop_test(tcase, wild_pointers_of_32_bit_code_stay_inside, 0, 2);
    tcase_add_loop_test(tcase, segments_with_bases_and_limits_stay_inside, 0, 2);
    tcase_add_test(tcase, segments_of_16_bit_code_stay_inside);
    tcase_add_test(tcase, access_outside_is_seen);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
