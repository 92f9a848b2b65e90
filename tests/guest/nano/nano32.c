/* What 32-bit programs alone have: page tables of two levels, SYSENTER, segment registers that matter. */
#include "nano/nano.h"

word *nano_entry, nano_entry_value, nano_roots[2];
volatile uint8_t *nano_window = (volatile uint8_t *)(WINDOW + 0x5000);

/* A space of 4 MiB pages, one to one, but for the window. */
static word *make_space(word page) {
    word *directory = page_alloc(), *table = page_alloc();
    for (unsigned i = 0; i < 1024; i++)
        directory[i] = i << 22 | PAGE_PS | PAGE_P | PAGE_W | PAGE_U | PAGE_A | PAGE_D;
    directory[(word)nano_window >> 22] = (word)table | PAGE_P | PAGE_W | PAGE_U | PAGE_A;
    word *entry = &table[(word)nano_window >> 12 & 1023];
    *entry = page | PAGE_P | PAGE_W | PAGE_A | PAGE_D;
    nano_roots[1] = nano_roots[0];
    nano_roots[0] = (word)directory;
    return entry;
}

void nano_paging_init(void) {
    make_space((word)page_alloc());
    nano_entry = make_space((word)page_alloc());
    nano_entry_value = *nano_entry;
    write_cr3(nano_roots[0]);
    write_cr4(read_cr4() | 0x10); /* PSE */
    write_cr0(read_cr0() | 0x80010000);
}

SNIPPET(user_sysenter, "", "1: mov %esp, %ecx; mov $2f, %edx; sysenter; 2: dec %ebx; jnz 1b");
__asm__(".pushsection .text\n nano_sysenter: incl nano_traps\n sysexit\n.popsection");
extern const uint8_t nano_sysenter[], trap_stack_top[];

static bool has_sysenter(void) {
    return cpuid(1, 0).d & 1 << 11;
}

static void allow_sysenter(void) {
    wrmsr(0x174, CODE_SELECTOR);
    wrmsr(0x175, (word)trap_stack_top);
    wrmsr(0x176, (word)nano_sysenter);
}

static void run_sysenter(unsigned loops) {
    nano_run_user(user_sysenter, loops);
}

INSTRUCTION(run_push_segments, "push %%ds; push %%es; pop %%es; pop %%ds")
INSTRUCTION(run_pop_gs, "push %%gs; pop %%gs")
INSTRUCTION(run_far_jump, "ljmp $8, $1f; 1:")
INSTRUCTION(run_pusha, "pushal; popal")

const struct operation nano_own[] = {
    {.name = "sysenter, sysexit",
     .run = run_sysenter,
     .traps = 1,
     .is_offered = has_sysenter,
     .prepare = allow_sysenter},
    {.name = "push, pop DS and ES", .run = run_push_segments},
    {.name = "push, pop GS", .run = run_pop_gs},
    {.name = "far jump", .run = run_far_jump},
    {.name = "pusha, popa", .run = run_pusha},
    {0},
};
