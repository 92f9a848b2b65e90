/*
 * The same physical page of code at several linear addresses, as programs and libraries have it that lie elsewhere each time
 * they are run: each mapping reads data of its own, returns to its own addresses, and faults at its own rip. The monitor
 * makes most of its blocks by moving others, which the test's runner finds in the statistics.
 *
 * Beside the page of code (0) lie another one (1) and a page of data (2) that is each mapping's own.
 */
#include "lib/guest.h"

enum { PAGE = 4096, DATA = 2 * PAGE, MISSING = 3 * PAGE, WORDS = 64 };

/* Functions are called with the stack that `run` gives, and end by int $0x20. */
__asm__(".pushsection .text.snippet, \"ax\"\n"
        ".balign 4096\n"
        "moved:\n"
        ".set near_data, moved + 8192\n"
        ".set near_missing, moved + 12288\n"

        "moved_data: mov near_data(%rip), %rax\n add near_data+8(%rip), %rax\n addq $3, near_data+16(%rip)\n mov near_data+16(%rip), %rcx\n"
        " movb $7, near_data+24(%rip)\n movzbl near_data+24(%rip), %ebx\n lea moved_data(%rip), %rdx\n int $0x20\n"

        /* rax, rdx, rbx: return addresses on this page, from the next page, of an indirect call */
        "moved_calls: call 1f\n mov %rax, %r11\n call moved_there\n mov %rax, %rdx\n lea 1f(%rip), %rcx\n call *%rcx\n"
        " mov %rax, %rbx\n call *near_data+32(%rip)\n mov %rax, %r9\n mov %r11, %rax\n int $0x20\n"
        "1: mov (%rsp), %rax\n ret\n"

        "moved_jumps: xor %eax, %eax\n jmp moved_jump_there\n"
        "moved_jump_back: add $2, %eax\n test %eax, %eax\n jz moved_data\n jmp *near_data+40(%rip)\n ud2\n"
        "moved_jump_end: cmp $100, %ecx\n je moved_calls\n lea moved_jump_end(%rip), %rdx\n int $0x20\n"

        "moved_loop: xor %eax, %eax\n mov $64, %ecx\n lea near_data+512(%rip), %rsi\n"
        "1: add (%rsi), %rax\n add $8, %rsi\n dec %ecx\n jnz 1b\n"
        " mov $64, %ecx\n lea near_data+512(%rip), %rdi\n2: xor %ebx, %ebx\n"
        "3: add (%rdi,%rbx,8), %rax\n inc %ebx\n cmp $2, %ebx\n jb 3b\n sub $2, %ecx\n jnz 2b\n int $0x20\n"

        /* two instructions that C functions run, the second one on memory near rip */
        "moved_helper: xor %eax, %eax\n xor %ecx, %ecx\n cpuid\n mov %ebx, %r9d\n sidt near_data+48(%rip)\n mov near_data+50(%rip), %rax\n"
        " lea moved_helper(%rip), %rdx\n int $0x20\n"

        "moved_fault: push %rdx\n inc %ecx\n"
        "moved_fault_at: mov near_missing+5(%rip), %rax\n inc %ecx\n int $0x20\n"
        "moved_store_fault: inc %ecx\n call 1f\n1: pop %rdx\n"
        "moved_store_fault_at: incl near_missing+9(%rip)\n int $0x20\n"
        "moved_ud: inc %ecx\n lea near_data(%rip), %rdx\n"
        "moved_ud_at: ud2\n"
        "moved_divide: xor %ecx, %ecx\n mov near_data(%rip), %rax\n"
        "moved_divide_at: div %ecx\n int $0x20\n"
        "moved_return: mov $0x8000000000000000, %rax\n push %rax\n"
        "moved_return_at: ret\n"
        "moved_end: int $0x20\n"

        ".org moved + 4096 - 5\n"
        "moved_crossing: mov near_data(%rip), %rax\n lea moved_crossing(%rip), %rdx\n int $0x20\n"
        "moved_there: mov (%rsp), %rax\n lea -1(%rax), %rax\n inc %rax\n ret\n"
        "moved_jump_there: add $1, %eax\n jmp moved_jump_back\n"
        ".balign 4096\n"
        ".popsection");
extern uint8_t moved[], moved_data[], moved_calls[], moved_there[], moved_jumps[], moved_jump_end[], moved_loop[],
    moved_helper[], moved_fault[], moved_fault_at[], moved_store_fault[], moved_store_fault_at[], moved_ud[], moved_ud_at[],
    moved_divide[], moved_divide_at[], moved_return[], moved_return_at[], moved_crossing[];

static const uint64_t bases[] = {
    0x8000000000,   0x8000005000,   0x8000013000,   0x803fff0000,       0x7f1234567000, 0x7f1234777000,
    0x555555554000, 0x55aaaaaaa000, 0x10000000000,  0xffff800000000000, 0xffff923456789000,
    0xffffc90000000000,
};
enum { BASES = sizeof bases / sizeof *bases };
static uint64_t *data[BASES];

static uint64_t in(unsigned i, const uint8_t *label) {
    return bases[i] + (uint64_t)(label - moved);
}

static void fill_data(unsigned i) {
    for (unsigned w = 0; w < WORDS; w++)
        data[i][64 + w] = (i + 1) * w;
    data[i][0] = 1000 + i;
    data[i][1] = 100000 * (i + 1);
    data[i][2] = 7 * i;
    data[i][4] = in(i, moved_there);
    data[i][5] = in(i, moved_jump_end);
}

static void map_all(bool is_user) {
    for (unsigned i = 0; i < BASES; i++) {
        uint64_t rights = PAGE_P | (is_user ? PAGE_U : 0);
        if (!data[i])
            data[i] = page_alloc();
        page_map(bases[i], (uint64_t)moved, rights);
        page_map(bases[i] + PAGE, (uint64_t)moved + PAGE, rights);
        page_map(bases[i] + DATA, (uint64_t)data[i], rights | PAGE_W);
        fill_data(i);
    }
}

static struct state run_at(unsigned i, const uint8_t *label, bool is_user) {
    struct state state;
    (is_user ? state_init_user : state_init)(&state, moved);
    state.ip = in(i, label);
    state.gpr[RCX] = 1;
    run(&state);
    return state;
}

/* ---- What each function does, wherever it is ---- */

static void data_near_rip(unsigned i, bool is_user) {
    data[i][2] = 7 * i;
    struct state s = run_at(i, moved_data, is_user);
    check_quiet("data_ends", s.vector, V_END);
    check_quiet("loads_near_rip", s.gpr[RAX], data[i][0] + data[i][1]);
    check_quiet("sum_in_memory", s.gpr[RCX], 7 * i + 3);
    check_quiet("sum_stays_in_memory", data[i][2], 7 * i + 3);
    check_quiet("store_near_rip", s.gpr[RBX], 7);
    check_quiet("address_near_rip", s.gpr[RDX], in(i, moved_data));
}

static void calls_and_returns(unsigned i, bool is_user) {
    struct state s = run_at(i, moved_calls, is_user);
    check_quiet("calls_end", s.vector, V_END);
    check_quiet("return_address", s.gpr[RAX], in(i, moved_calls) + 5);
    check_quiet("return_address_seen_from_the_next_page", s.gpr[RDX], in(i, moved_calls) + 5 + 3 + 5);
    check_quiet("return_address_of_an_indirect_call", s.gpr[RBX], in(i, moved_calls) + 5 + 3 + 5 + 3 + 7 + 2);
    check_quiet("return_address_of_a_call_by_memory", s.gpr[R9], in(i, moved_calls) + 5 + 3 + 5 + 3 + 7 + 2 + 3 + 6);
}

static void jumps(unsigned i, bool is_user) {
    struct state s = run_at(i, moved_jumps, is_user);
    check_quiet("jumps_end", s.vector, V_END);
    check_quiet("jumps_there_and_back", s.gpr[RAX], 3);
    check_quiet("jump_by_memory", s.gpr[RDX], in(i, moved_jump_end));
}

static void loops(unsigned i, bool is_user) {
    struct state s = run_at(i, moved_loop, is_user);
    uint64_t first_two = data[i][64] + data[i][65], sum = 0;
    for (unsigned w = 0; w < WORDS; w++)
        sum += data[i][64 + w];
    check_quiet("loops_end", s.vector, V_END);
    check_quiet("sums_of_loops", s.gpr[RAX], sum + WORDS / 2 * first_two);
}

static void helpers(unsigned i, bool is_user) {
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) idtr;
    __asm__ volatile("sidt %0" : "=m"(idtr));
    struct state s = run_at(i, moved_helper, is_user);
    check_quiet("helpers_end", s.vector, V_END);
    check_quiet("cpuid", s.gpr[R9], cpuid(0, 0).b);
    check_quiet("sidt_near_rip", s.gpr[RAX], idtr.base);
    check_quiet("rip_behind_helpers", s.gpr[RDX], in(i, moved_helper));
}

static void faults(unsigned i, bool is_user) {
    struct state s = run_at(i, moved_fault, is_user);
    word top = (word)snippet_stack_top + (is_user ? USER_ALIAS : 0);
    check_quiet("load_faults", s.vector, V_PF);
    check_quiet("rip_of_load", s.ip, in(i, moved_fault_at));
    check_quiet("cr2_of_load", s.cr2, bases[i] + MISSING + 5);
    check_quiet("registers_at_fault", s.gpr[RCX], 2);
    check_quiet("stack_at_fault", s.sp, top - 8);
    s = run_at(i, moved_store_fault, is_user);
    check_quiet("store_faults", s.vector, V_PF);
    check_quiet("rip_of_store", s.ip, in(i, moved_store_fault_at));
    check_quiet("cr2_of_store", s.cr2, bases[i] + MISSING + 9);
    check_quiet("popped_return_address", s.gpr[RDX], in(i, moved_store_fault_at) - 1);
    s = run_at(i, moved_ud, is_user);
    check_quiet("ud2", s.vector, V_UD);
    check_quiet("rip_of_ud2", s.ip, in(i, moved_ud_at));
    check_quiet("address_before_ud2", s.gpr[RDX], bases[i] + DATA);
    s = run_at(i, moved_divide, is_user);
    check_quiet("division", s.vector, V_DE);
    check_quiet("rip_of_division", s.ip, in(i, moved_divide_at));
    check_quiet("dividend", s.gpr[RAX], data[i][0]);
    s = run_at(i, moved_return, is_user);
    check_quiet("return_to_no_address", s.vector, V_GP);
    check_quiet("rip_of_return", s.ip, in(i, moved_return_at));
    check_quiet("stack_of_return", s.sp, top - 8);
}

static void crossings(unsigned i, bool is_user) {
    struct state s = run_at(i, moved_crossing, is_user);
    check_quiet("crossing_ends", s.vector, V_END);
    check_quiet("load_by_a_crossing_instruction", s.gpr[RAX], data[i][0]);
    check_quiet("address_behind_it", s.gpr[RDX], in(i, moved_crossing));
}

static void all(const char *name, bool is_user) {
    map_all(is_user);
    for (unsigned round = 0; round < 3; round++)
        for (unsigned i = 0; i < BASES; i++) {
            data_near_rip(i, is_user);
            calls_and_returns(i, is_user);
            jumps(i, is_user);
            loops(i, is_user);
            helpers(i, is_user);
            faults(i, is_user);
            crossings(i, is_user);
        }
    check_true(name, true);
}

/* ---- Changes ---- */

/* The immediate of `add $2, %eax` on the way back: every mapping has it at once. */
static void changed_code_is_changed_everywhere(void) {
    volatile uint8_t *immediate = moved_jumps;
    while (!(immediate[0] == 0x83 && immediate[1] == 0xc0 && immediate[2] == 2))
        immediate++;
    immediate += 2;
    for (unsigned value = 3; value < 8; value++) {
        *immediate = (uint8_t)value;
        for (unsigned i = 0; i < BASES; i++)
            check_quiet("changed_immediate", run_at(i, moved_jumps, false).gpr[RAX], 1 + value);
    }
    *immediate = 2;
    check_true("changed_code_is_changed_everywhere", true);
}

/* Other bytes behind one of the addresses: what was there is no donor for it. */
static void another_page_is_another_code(void) {
    uint8_t *other = page_alloc();
    memory_copy(other, moved, PAGE);
    for (unsigned k = 0; k + 2 < PAGE; k++)
        if (other[k] == 0x83 && other[k + 1] == 0xc0 && other[k + 2] == 2)
            other[k + 2] = 40;
    page_map(bases[1], (uint64_t)other, PAGE_P);
    check("another_page", run_at(1, moved_jumps, false).gpr[RAX], 41);
    check("the_page_of_before", run_at(2, moved_jumps, false).gpr[RAX], 3);
    page_map(bases[1], (uint64_t)moved, PAGE_P);
    check("the_page_is_back", run_at(1, moved_jumps, false).gpr[RAX], 3);
}

int main(void) {
    all("supervisor_code_everywhere", false);
    all("user_code_everywhere", true);
    map_all(false);
    changed_code_is_changed_everywhere();
    another_page_is_another_code();
    all("supervisor_code_again", false);
    return 0;
}
