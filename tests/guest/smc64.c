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

/* All of a page at once, as a kernel clears one, with functions of eight bytes; and data then, and code again. */
static void pages_filled_by_strings(void) {
    enum { FUNCTIONS = 512 };
    uint32_t wrong = 0, wrong_data = 0;
    for (uint32_t i = 0; i < 200; i++) {
        uint64_t value = 0x9090c300000000b8ull | (uint64_t)i << 8, count = FUNCTIONS, sum = 0;
        void *to = i & 1 ? alias : code;
        __asm__ volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(value) : "memory");
        for (unsigned k = 0; k < FUNCTIONS; k += 73)
            wrong += call((i & 2 ? alias : code) + 8 * k) != i;
        for (unsigned k = 0; k < FUNCTIONS; k++)
            ((volatile uint64_t *)code)[k] += k;
        for (unsigned k = 0; k < FUNCTIONS; k++)
            sum += ((volatile uint64_t *)alias)[k] - value;
        wrong_data += sum != FUNCTIONS * (FUNCTIONS - 1) / 2;
    }
    check("rep_stosq_of_a_page_of_code", wrong, 0);
    check("data_on_a_page_that_was_code", wrong_data, 0);
}

/* ---- Immediates that change so often that they are data ---- */

static void put(uint8_t *to, const char *bytes, unsigned count) {
    memory_copy(to, bytes, count);
}

static void store_immediate(volatile uint8_t *to, uint64_t value, unsigned size) {
    switch (size) {
    case 1:
        *to = (uint8_t)value;
        break;
    case 2:
        *(volatile uint16_t *)to = (uint16_t)value;
        break;
    case 4:
        *(volatile uint32_t *)to = (uint32_t)value;
        break;
    default:
        *(volatile uint64_t *)to = value;
    }
}

/* rax = 0x1122334455667788, the instruction under test, flags to the upper half of rdx's place, ret. */
static const struct form {
    const char *name;
    const char *code;
    uint8_t length, immediate, size;
} forms[] = {
    {"mov_eax_imm32", "\xb8\0\0\0\0", 5, 1, 4},
    {"mov_al_imm8", "\xb0\0", 2, 1, 1},
    {"mov_ax_imm16", "\x66\xb8\0\0", 4, 2, 2},
    {"mov_rax_imm64", "\x48\xb8\0\0\0\0\0\0\0\0", 10, 2, 8},
    {"mov_rax_simm32", "\x48\xc7\xc0\0\0\0\0", 7, 3, 4},
    {"add_eax_imm32", "\x05\0\0\0\0", 5, 1, 4},
    {"add_al_imm8", "\x04\0", 2, 1, 1},
    {"sub_rax_imm32", "\x48\x2d\0\0\0\0", 6, 2, 4},
    {"xor_ax_imm16", "\x66\x35\0\0", 4, 2, 2},
    {"adc_rax_simm8", "\x48\x83\xd0\0", 4, 3, 1},
    {"cmp_ax_simm8", "\x66\x83\xf8\0", 4, 3, 1},
    {"test_eax_imm32", "\xa9\0\0\0\0", 5, 1, 4},
    {"test_al_imm8_f6", "\xf6\xc0\0", 3, 2, 1},
    {"or_dword_memory_imm32", "\x81\x0f\0\0\0\0", 6, 2, 4},
    {"lock_add_qword_memory_simm8", "\xf0\x48\x83\x07\0", 5, 4, 1},
    {"cmp_byte_memory_imm8", "\x80\x3f\0", 3, 2, 1},
    {"mov_qword_memory_simm32", "\x48\xc7\x07\0\0\0\0", 7, 3, 4},
    {"mov_word_memory_imm16", "\x66\xc7\x07\0\0", 5, 3, 2},
    {"and_memory_indexed_imm8", "\x80\x64\x37\x01\0", 5, 4, 1}, /* [rdi + rsi + 1] */
    {"high_byte_register", "\x80\xc4\0", 3, 2, 1},                /* add ah, imm8 */
    {"extended_register", "\x41\x81\xc2\0\0\0\0", 7, 3, 4},    /* add r10d, imm32 */
    {"shift_by_imm8", "\xc1\xe0\0", 3, 2, 1},
};

struct outcome {
    uint64_t rax, r10, flags, memory;
};

static struct outcome run_form(const uint8_t *at, uint64_t start) {
    static uint64_t cell;
    struct outcome outcome;
    cell = start ^ 0x5a5a5a5a5a5a5a5a;
    register uint64_t r10 __asm__("r10") = start * 3;
    __asm__ volatile("test %%esp, %%esp; stc; call *%[at]; pushfq; pop %[flags]"
                     : "=a"(outcome.rax), [flags] "=&c"(outcome.flags), "+r"(r10)
                     : "0"(start), [at] "r"(at), "D"(&cell), "S"(0ull)
                     : "memory", "cc");
    outcome.r10 = r10;
    outcome.memory = cell;
    outcome.flags &= CF | PF | ZF | SF | OF;
    return outcome;
}

/* The same bytes at a place that never ran before are the measure. */
static void immediates_that_change(void) {
    uint8_t *fresh = pages_alloc(64 * 4096, 4096), *page = page_alloc();
    for (unsigned f = 0; f < sizeof forms / sizeof *forms; f++) {
        const struct form *form = &forms[f];
        uint8_t *at = page + f * 48;
        uint64_t seed = f + 1;
        put(at, form->code, form->length);
        at[form->length] = 0xc3;
        for (unsigned i = 0; i < 64; i++) {
            uint64_t value = random_next(&seed), start = random_next(&seed);
            if (form->size == 1 && (i & 3) == 0)
                value &= 0x1f;
            store_immediate(at + form->immediate, value, form->size);
            struct outcome got = run_form(at, start);
            uint8_t *copy = fresh + i * 4096 + f * 32;
            memory_copy(copy, at, form->length + 1u);
            struct outcome want = run_form(copy, start);
            check_quiet_detail(form->name, "rax", got.rax, want.rax);
            check_quiet_detail(form->name, "r10", got.r10, want.r10);
            check_quiet_detail(form->name, "memory", got.memory, want.memory);
            if (f != sizeof forms / sizeof *forms - 1) /* OF and AF of shifts are nobody's */
                check_quiet_detail(form->name, "flags", got.flags, want.flags);
        }
        check(form->name, 0, 0);
    }
}

/* mov eax, imm32 whose immediate is data by now. */
static uint8_t *make_variable(uint8_t *at) {
    for (uint32_t i = 0; i < 32; i++) {
        write_return(at, i);
        check_quiet("variable_value", call(at), i);
    }
    return at;
}

static void data_becomes_code_again(void) {
    uint8_t *at = make_variable(code + 1280);
    /* Run the immediate itself: mov al, 77; ret. */
    *(volatile uint32_t *)(at + 1) = 0x90c34db0;
    check("immediate_runs_as_code", call(at + 1) & 0xff, 0x4d);
    check("and_is_still_an_immediate", call(at), 0x90c34db0);
    *(volatile uint32_t *)(at + 1) = 0x90c34eb0;
    check("code_in_the_immediate_changes", call(at + 1) & 0xff, 0x4e);
    check("and_the_immediate_with_it", call(at), 0x90c34eb0);

    at = make_variable(code + 1344);
    at[0] = 0x0d; /* or eax, imm32 */
    *(volatile uint32_t *)(at + 1) = 0xffffffff;
    check("opcode_before_the_immediate_changes", (uint32_t)call(at), 0xffffffff);
    at = make_variable(code + 1408);
    *(volatile uint64_t *)at = 0xc307eb04b0; /* over the opcode and all: mov al, 4; jmp +7 */
    at[4] = 0xc3;
    at[3] = 0x90;
    at[2] = 0x90;
    check("store_over_opcode_and_immediate", call(at) & 0xff, 4);

    at = make_variable(code + 1472);
    static const uint32_t other = 0x01020304;
    void *to = at + 1;
    const void *from = &other;
    uint64_t count = 4;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    check("rep_movsb_over_the_immediate", call(at), 0x01020304);
    *(alias + (at - code) + 2) = 0x77;
    check("store_through_an_alias", call(at), 0x01027704);
}

/* A loop whose step changes in each round. */
SNIPPET(s_step, "lea 3f(%rip), %rbx\n xor %edi, %edi\n xor %edx, %edx",
        "1: incl 2f+3(%rip)\n 2: add $0x12345678, %rdi\n add %rdi, %rdx\n dec %ecx\n jnz 1b\n"
        "mov %rdx, %rax\n jmp 4f\n 3: .quad 0\n 4:");

static void step_that_changes(void) {
    for (unsigned i = 0; i < 3; i++) {
        struct state state;
        state_init(&state, s_step);
        state.gpr[RCX] = 100;
        run(&state);
        uint64_t sum = 0, position = 0, step = 0x12345678 + 100ull * i;
        for (unsigned k = 0; k < 100; k++) {
            position += ++step;
            sum += position;
        }
        check("step_that_changes", state.gpr[RAX], sum);
    }
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
    pages_filled_by_strings();
    immediates_that_change();
    data_becomes_code_again();
    step_that_changes();
    instruction_across_pages();
    remapped_pages();
    pages_change_roles();
    return 0;
}
