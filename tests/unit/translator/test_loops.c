/*
 * Loops within loops, with branches among them, made of random pieces: user code in a window of the host's MMU, where
 * they are planned ahead (translator/loop_plan.c), must do what it does on software tables, where they are not. A timer
 * makes polls leave in the middle, and first touches of pages make accesses fault there. And the same for stacks.
 */
#include <signal.h>
#include <string.h>
#include <sys/time.h>

#include "tests/unit/translator/guest_machine.h"

enum { PROGRAMS = 400, DEPTH = 3, MIDDLE = 0x140000, DATA_SIZE = 0x80000 };

struct snippet {
    const uint8_t *from, *to;
};

#define SNIPPET(name, text)                                                                                            \
    extern const uint8_t name[], name##_end[];                                                                         \
    __asm__(".pushsection .rodata\n" #name ":\n" text "\n" #name "_end:\n.popsection")
#define LISTED(name)                                                                                                   \
    { name, name##_end }

/* rbx and rsi walk through memory, rdi and rcx stay near; r8, r9 and rbp count rounds. */
SNIPPET(load_walks, "mov (%rbx), %rax\n add %rax, %r14\n add $0x38, %rbx");
SNIPPET(store_walks, "mov %r14, -8(%rsi)\n sub $0x18, %rsi");
SNIPPET(store_indexed, "mov %r13, (%rdi,%rcx,8)\n inc %rcx");
SNIPPET(load_indexed, "xor 0x40(%rdi,%rcx,4), %r15\n lea 3(%rcx), %rcx");
SNIPPET(vector, "movups (%rdi), %xmm0\n paddq %xmm0, %xmm1\n movups %xmm1, 0x10(%rbx)");
SNIPPET(mixes, "add %r15, %r13\n rol $7, %r13\n inc %r10\n xor %r10, %r15");
SNIPPET(narrow, "mov %r14d, %r12d\n add %r12d, %r11d\n movb %r11b, 3(%rdi)\n test %r11b, %r14b");
SNIPPET(pushes, "push %r11\n pop %r12\n imul $3, %r12, %r11");
SNIPPET(small_index,
        "movzbl %r14b, %ecx\n add (%rdi,%rcx,8), %r15\n mov %r13, %rax\n and $0x3f, %eax\n mov %al, 5(%rsi,%rax,2)");
SNIPPET(resets, "xor %ecx, %ecx\n mov %rdi, %rsi");
SNIPPET(carries, "adc %r11, %r15\n sbb %rax, %r14\n cmovc %r14, %r10");
SNIPPET(turns, "cmp %rax, %r15\n mov %r15, %rdx\n add %rdx, 0x20(%rdi)\n and %r12, %r13");
/* Loops that begin at a constant and end after a few rounds. */
SNIPPET(row,
        "xor %eax, %eax\n 1: mov (%rdi,%rax), %rdx\n add %rdx, 8(%rbx,%rax)\n add $8, %rax\n cmp $24, %rax\n jne 1b\n"
        "2: xor %r14, (%rsi,%rax)\n add $8, %rax\n cmp $48, %rax\n jb 2b\n add $16, %rbx");
SNIPPET(row_back,
        "mov $6, %edx\n 1: mov (%rsi,%rdx,8), %rax\n xor %rax, 0x30(%rbx,%rdx,4)\n dec %rdx\n jnz 1b\n sub $24, %rsi");
SNIPPET(rows, "mov $-32, %rax\n 1: mov $40, %edx\n 2: mov 8(%rbx,%rax), %r10\n add %r10, (%rdi,%rdx,2)\n"
              "add $-8, %rdx\n cmp $8, %rdx\n jg 2b\n add $16, %rax\n cmp $16, %eax\n jle 1b");
SNIPPET(far_row, "mov $0x20000, %eax\n 1: mov (%rdi,%rax), %dl\n add %dl, -0x20000(%rbx,%rax)\n add $0x1000, %rax\n"
                 "cmp $0x28000, %rax\n jne 1b");

static const struct snippet pieces[] = {
    LISTED(load_walks), LISTED(store_walks), LISTED(store_indexed), LISTED(load_indexed), LISTED(vector),
    LISTED(mixes),      LISTED(narrow),      LISTED(pushes),        LISTED(resets),       LISTED(carries),
    LISTED(turns),      LISTED(row),         LISTED(row_back),      LISTED(rows),         LISTED(far_row),
    LISTED(small_index),
};
enum { PIECES = sizeof pieces / sizeof *pieces };

/* The same in 32-bit code: ebp, edx and a word beside the data count rounds. */
#define SNIPPET32(name, text) SNIPPET(name, ".code32\n" text "\n.code64")
SNIPPET32(load_walks32, "mov (%ebx), %eax\n adc %eax, 4(%edi)\n add $0x38, %ebx");
SNIPPET32(store_walks32, "mov %eax, -8(%esi)\n sub $0x18, %esi");
SNIPPET32(store_indexed32, "mov %ebx, (%edi,%ecx,8)\n inc %ecx");
SNIPPET32(load_indexed32, "xor 0x40(%edi,%ecx,4), %eax\n lea 3(%ecx), %ecx");
SNIPPET32(vector32, "movups (%edi), %xmm0\n paddq %xmm0, %xmm1\n movups %xmm1, 0x10(%ebx)");
SNIPPET32(narrow32, "mov %ax, 6(%esi)\n movb %ah, 3(%edi)\n test %ch, %al\n mov 2(%esi), %cl");
SNIPPET32(pushes32, "push %eax\n push %ebx\n imul $3, (%esp), %eax\n pop %ebx\n pop 8(%edi)");
SNIPPET32(resets32, "xor %ecx, %ecx\n mov %edi, %esi");
SNIPPET32(turns32, "cmp %ebx, %eax\n rcl $3, %eax\n add %eax, 0x20(%edi)\n cmovc 0x24(%edi), %eax");
SNIPPET32(wraps32, "lea -0x7fff0000(%edi), %eax\n add %ecx, -0x80010000(%eax)");
SNIPPET32(row32,
          "xor %eax, %eax\n 1: mov (%edi,%eax), %ch\n add %ch, 8(%ebx,%eax)\n add $8, %eax\n cmp $24, %eax\n jne 1b\n"
          "2: xor %al, (%esi,%eax)\n add $8, %eax\n cmp $48, %eax\n jb 2b\n movzbl %cl, %ecx");

static const struct snippet pieces32[] = {
    LISTED(load_walks32), LISTED(store_walks32), LISTED(store_indexed32), LISTED(load_indexed32),
    LISTED(vector32),     LISTED(narrow32),      LISTED(pushes32),        LISTED(resets32),
    LISTED(turns32),      LISTED(wraps32),       LISTED(row32),
};
enum { PIECES32 = sizeof pieces32 / sizeof *pieces32 };

/* The stack moves across the end of memory, where accesses are exits. */
SNIPPET(push_rax, "push %rax\n add %r13, %rax");
SNIPPET(push_r13, "push %r13\n mov %r14, %r13\n push %r14");
SNIPPET(push_constant, "push $-5\n push $0x12345678");
SNIPPET(push_memory, "push 8(%rsp)\n push (%rdi)");
SNIPPET(pop_rdx, "pop %rdx\n xor %rdx, %r14");
SNIPPET(pop_r11, "pop %r11\n pop %r12\n add %r11, %r12\n pop %r10");
SNIPPET(pop_memory, "pop (%rdi)\n pop 8(%rsp)");
SNIPPET(moves, "sub $24, %rsp\n push %r12\n lea 40(%rsp), %rsp");
SNIPPET(copies, "push %r10\n mov (%rdi), %rcx\n push %rcx\n lea (%rcx,%rax), %r15\n mov %r15, 8(%rdi)\n pop %rax");
SNIPPET(calls, "push %rax\n call 1f\n pop %rcx\n jmp 2f\n 1: push %rbx\n push %r15\n pop %rsi\n pop %rbx\n ret\n 2:");
SNIPPET(releases, "push %r11\n call 1f\n jmp 2f\n 1: ret $8\n 2: adc %rax, %r10");
SNIPPET(pop_rsp, "lea 16(%rsp), %rdx\n push %r11\n push %rdx\n pop %rsp\n push %rsp\n pop %r15");
SNIPPET(frames, "push %rbp\n mov %rsp, %rbp\n push %r12\n push %rax\n leave");
SNIPPET(jumps, "sub $0x40, %rsp\n jmp 1f\n 1: mov %r13, 8(%rsp)\n lea 0x40(%rsp), %rsp\n jc 2f\n 2: xor %rax, %r13");
SNIPPET(other_stack,
        "mov %rsp, %rdx\n lea 0x1000(%rdi), %rsp\n jmp 1f\n 1: push %rax\n call 2f\n 2: pop %rcx\n pop %r15\n mov %rdx, %rsp");
SNIPPET(probes, "mov $3, %ecx\n 1: sub $8, %rsp\n dec %ecx\n jnz 1b\n add $24, %rsp\n xor %ecx, %ecx");

static const struct snippet stack_pieces[] = {
    LISTED(push_rax), LISTED(push_r13),   LISTED(push_constant), LISTED(push_memory), LISTED(pop_rdx),
    LISTED(pop_r11),  LISTED(pop_memory), LISTED(moves),         LISTED(copies),      LISTED(calls),
    LISTED(releases), LISTED(frames),     LISTED(pop_rsp),       LISTED(jumps),       LISTED(other_stack),
    LISTED(probes),
};
enum { STACK_PIECES = sizeof stack_pieces / sizeof *stack_pieces };

SNIPPET(ends, "out %al, $0xf4\n 1: jmp 1b");

/* mov $5, counter; dec counter */
SNIPPET(count_0, "mov $5, %r8d");
SNIPPET(count_1, "mov $5, %r9d");
SNIPPET(count_2, "mov $5, %ebp");
SNIPPET(less_0, "dec %r8d");
SNIPPET(less_1, "dec %r9d");
SNIPPET(less_2, "dec %ebp");
SNIPPET32(count32_0, "mov $5, %ebp");
SNIPPET32(count32_1, "mov $5, %edx");
SNIPPET32(count32_2, "movl $5, 0x1d0000");
SNIPPET32(less32_0, "dec %ebp");
SNIPPET32(less32_1, "dec %edx");
SNIPPET32(less32_2, "decl 0x1d0000");

/* What programs are made of. */
static const struct kind {
    const struct snippet *pieces;
    unsigned pieces_count;
    bool is_32bit;
    struct snippet counts[DEPTH], lesses[DEPTH];
} kinds[] = {
    {pieces,
     PIECES,
     false,
     {LISTED(count_0), LISTED(count_1), LISTED(count_2)},
     {LISTED(less_0), LISTED(less_1), LISTED(less_2)}},
    {pieces32,
     PIECES32,
     true,
     {LISTED(count32_0), LISTED(count32_1), LISTED(count32_2)},
     {LISTED(less32_0), LISTED(less32_1), LISTED(less32_2)}},
};
static const struct kind *kind = &kinds[0];

static struct guest guests[2], *kicked;
static uint8_t program[4096];
static size_t size;
static uint64_t seed;

static uint64_t draw(uint64_t below) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (seed >> 8) % below;
}

/* ---- Programs ---- */

static void append(const struct snippet *snippet) {
    memcpy(program + size, snippet->from, (size_t)(snippet->to - snippet->from));
    size += (size_t)(snippet->to - snippet->from);
}

/* A branch on a condition (0f 80 + n), or a jump (e9), to a place that is known or set later. */
static size_t append_branch(int condition, size_t to) {
    if (condition >= 0)
        program[size++] = 0x0f;
    program[size++] = condition >= 0 ? (uint8_t)(0x80 | condition) : 0xe9;
    size += 4;
    int32_t distance = (int32_t)to - (int32_t)size;
    memcpy(program + size - 4, &distance, 4);
    return size;
}

static void lead_here(size_t branch) {
    int32_t distance = (int32_t)(size - branch);
    memcpy(program + branch - 4, &distance, 4);
}

static void append_pieces(unsigned most) {
    for (uint64_t i = draw(most + 1); i > 0; i--) {
        size_t over = draw(3) == 0 ? append_branch(draw(4) ? (int)draw(16) : -1, 0) : 0;
        append(&kind->pieces[draw(kind->pieces_count)]);
        if (over)
            lead_here(over);
    }
}

/* Five rounds, counted at their end or at their beginning; now and then one ends early. */
static void append_loop(unsigned level) {
    append(&kind->counts[level]);
    size_t start = size, out = 0, early = 0;
    bool is_top = draw(3) == 0;
    if (is_top) {
        append(&kind->lesses[level]);
        out = append_branch(8, 0); /* js */
    }
    append_pieces(3);
    if (draw(5) == 0)
        early = append_branch((int)draw(16), 0);
    for (uint64_t i = level + 1 < DEPTH ? draw(3) : 0; i > 0; i--) {
        append_loop(level + 1);
        append_pieces(2);
    }
    if (!is_top)
        append(&kind->lesses[level]);
    append_branch(is_top ? -1 : 5, start); /* jmp, jnz */
    if (out)
        lead_here(out);
    if (early)
        lead_here(early);
}

static void make_program(void) {
    size = 0;
    append_pieces(2);
    append_loop(0);
    const struct snippet end = LISTED(ends);
    append(&end);
}

static void make_stack_program(void) {
    size = 0;
    for (unsigned i = 0; i < 12; i++)
        append(&stack_pieces[draw(STACK_PIECES)]);
    const struct snippet end = LISTED(ends);
    append(&end);
}

/* ---- Running ---- */

/* Memory of the world outside, beyond the guest's own, and the order of accesses to it. */
static uint8_t outside[4096];
static uint64_t told;

static bool goes_on(struct guest *guest) {
    struct trapeze_exit *exit = &guest->exit;
    if (exit->reason == TRAPEZE_EXIT_KICKED)
        return true;
    if (exit->reason != TRAPEZE_EXIT_IO || exit->io.space == TRAPEZE_PORT)
        return false;
    uint64_t offset = exit->io.address - RAM_SIZE;
    ck_assert_uint_lt(offset + exit->io.size, sizeof outside);
    if (exit->io.is_write)
        memcpy(outside + offset, &exit->io.value, exit->io.size);
    else
        memcpy(&exit->io.value, outside + offset, exit->io.size);
    told = told * 31 + exit->io.address + exit->io.value + exit->io.is_write;
    return true;
}

static void kick(int number) {
    (void)number;
    trapeze_vcpu_kick(kicked->vcpu);
}

static void create(struct guest *guest, enum trapeze_windows windows) {
    const struct trapeze_config config = {.unclaimed_exits = true, .windows = windows};
    guest_create(guest, &config);
    ck_assert_int_eq(trapeze_memory_map(guest->machine, 0, guest_physical_at(0), guest->fd, 0, RAM_SIZE, 0),
                     TRAPEZE_OK);
}

/* To the end in user mode, where ports are allowed. */
static void run(struct guest *guest, uint64_t start, uint64_t stack, struct trapeze_registers *registers) {
    *registers = guest_long_mode(guest);
    for (unsigned i = 0; i < TRAPEZE_SEGMENTS; i++)
        registers->segment[i].attributes |= 0x60;
    if (kind->is_32bit)
        registers->segment[TRAPEZE_CS].attributes ^= 0x6000; /* D for L */
    registers->rflags |= 0x3000;                             /* IOPL 3 */
    registers->cr4 |= 0x600;                                 /* SSE */
    for (unsigned i = 0; i < 16; i++)
        registers->gpr[i] = ((start >> i) * 0x9e3779b97f4a7c15) & (kind->is_32bit ? UINT32_MAX : UINT64_MAX);
    registers->gpr[RBX] = registers->gpr[RSI] = registers->gpr[RDI] = MIDDLE + (start & 0xfff8);
    registers->gpr[RCX] = 0;
    registers->gpr[RSP] = stack;
    told = 0;
    memset(outside, 0, sizeof outside);
    for (uint32_t at = 0; at < DATA_SIZE; at += 4)
        guest_set_word(guest, MIDDLE - DATA_SIZE / 2 + at, (uint32_t)(at * start));
    kicked = guest;
    guest_start(guest, program, program + size, registers);
    do
        ck_assert_int_eq(trapeze_vcpu_run(guest->vcpu, &guest->exit), TRAPEZE_OK);
    while (goes_on(guest));
    ck_assert_int_eq(guest->exit.reason, TRAPEZE_EXIT_IO);
    trapeze_vcpu_get_registers(guest->vcpu, registers);
}

static void start(void) {
    const struct sigaction action = {.sa_handler = kick, .sa_flags = SA_ONSTACK | SA_RESTART};
    const struct itimerval often = {{0, 150}, {0, 150}};
    create(&guests[0], TRAPEZE_WINDOWS_OFF);
    create(&guests[1], TRAPEZE_WINDOWS_ALWAYS);
    kicked = &guests[0];
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    seed = 0xfeedbeef;
}

static void end(void) {
    setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
    guest_destroy(&guests[0]);
    guest_destroy(&guests[1]);
}

static void compare(unsigned number, uint64_t stack) {
    struct trapeze_registers registers[2];
    uint64_t tale[2], first = draw(~0ull >> 8);
    for (unsigned g = 0; g < 2; g++) {
        run(&guests[g], first, stack, &registers[g]);
        tale[g] = told;
    }
    for (unsigned r = 0; r < 16; r++)
        ck_assert_msg(registers[0].gpr[r] == registers[1].gpr[r], "program %u: register %u is %llx, not %llx", number,
                      r, (unsigned long long)registers[1].gpr[r], (unsigned long long)registers[0].gpr[r]);
    ck_assert_uint_eq(registers[0].rflags, registers[1].rflags);
    ck_assert_uint_eq(tale[0], tale[1]);
    const size_t data = MIDDLE - DATA_SIZE / 2;
    ck_assert_int_eq(memcmp(guests[0].ram + data, guests[1].ram + data, DATA_SIZE), 0);
    ck_assert_int_eq(memcmp(guests[0].ram + RAM_SIZE - 4096, guests[1].ram + RAM_SIZE - 4096, 4096), 0);
}

START_TEST(loops_in_windows_do_what_they_do_elsewhere) {
    kind = &kinds[_i];
    start();
    for (unsigned i = 0; i < PROGRAMS; i++) {
        make_program();
        for (unsigned k = 0; k < 3; k++)
            compare(i, STACK);
    }
    end();
}
END_TEST

SNIPPET(never_equal, "1: mov $1, %eax\n 2: add $2, %rax\n cmp $10, %rax\n jne 2b\n jmp 1b");
SNIPPET(never_above, "1: xor %eax, %eax\n 2: add $1, %eax\n cmp $-1, %rax\n jb 2b\n jmp 1b");
SNIPPET(never_zero, "1: mov $8, %ecx\n 2: dec %ecx\n inc %ecx\n jnz 2b\n jmp 1b");
SNIPPET(never_less, "1: mov $5, %edx\n 2: mov (%rdi,%rdx), %al\n add $1, %dl\n cmp $16, %edx\n jge 1b\n jmp 2b");
SNIPPET(seldom, "1: mov $3, %edx\n 2: mov %rdx, (%rdi,%rdx,8)\n add $-1, %rdx\n cmp $1, %rdx\n jne 2b\n jmp 1b");
static const struct snippet endless[] = {
    LISTED(never_equal), LISTED(never_above), LISTED(never_zero), LISTED(never_less), LISTED(seldom),
};

/* The timer is what ends the run. */
START_TEST(loops_without_an_end_are_left) {
    struct trapeze_registers registers;
    start();
    for (unsigned round = 0; round < 3; round++) {
        registers = guest_long_mode(&guests[1]);
        for (unsigned i = 0; i < TRAPEZE_SEGMENTS; i++)
            registers.segment[i].attributes |= 0x60;
        registers.gpr[RDI] = MIDDLE;
        kicked = &guests[1];
        guest_start(&guests[1], endless[_i].from, endless[_i].to, &registers);
        ck_assert_int_eq(trapeze_vcpu_run(guests[1].vcpu, &guests[1].exit), TRAPEZE_OK);
        ck_assert_int_eq(guests[1].exit.reason, TRAPEZE_EXIT_KICKED);
    }
    end();
}
END_TEST

START_TEST(pushes_and_pops_in_windows_do_what_they_do_elsewhere) {
    start();
    for (unsigned i = 0; i < PROGRAMS; i++) {
        make_stack_program();
        for (unsigned k = 0; k < 4; k++)
            compare(i, RAM_SIZE + 8 * draw(24) - 96);
    }
    end();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("loops");
    TCase *tests = tcase_create("loops");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, pushes_and_pops_in_windows_do_what_they_do_elsewhere);
    tcase_add_loop_test(tests, loops_without_an_end_are_left, 0, sizeof endless / sizeof *endless);
    tcase_add_loop_test(tests, loops_in_windows_do_what_they_do_elsewhere, 0, sizeof kinds / sizeof *kinds);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures != 0;
}
