/* The operations that are the same in 32- and 64-bit code. */
#include "nano/nano.h"

#ifdef __x86_64__
#define PUSH_FLAGS "pushfq"
#define POP_FLAGS  "popfq"
#else
#define PUSH_FLAGS "pushfl"
#define POP_FLAGS  "popfl"
#endif

/* ---- control flow and memory ---- */

static void target_a(void) {
    __asm__ volatile("");
}
static void target_b(void) {
    __asm__ volatile("");
}
static void target_c(void) {
    __asm__ volatile("");
}
static void (*const volatile targets[4])(void) = {target_a, target_b, target_c, target_b};

static uint8_t buffer[3 * 4096] __attribute__((aligned(4096)));
static volatile uint32_t variable;

INSTRUCTION(run_nothing, "")
INSTRUCTION(run_call, "call 1f; jmp 2f; 1: ret; 2:")
__asm__(".pushsection .data\n far_pointer: .long far_target\n .word 8\n .popsection\n"
        ".pushsection .text\n far_target: lretl\n .popsection");
INSTRUCTION(run_far, "lcall *far_pointer")
LOOP(run_indirect_one, targets[0]())
LOOP(run_indirect_four, targets[loops & 3]())
LOOP(run_load, (void)variable)
LOOP(run_store, variable = loops)
LOOP(run_crossing, (void)*(volatile uint32_t *)(buffer + 4096 - 2))
LOOP(run_locked, __asm__ volatile("lock incl %0" : "+m"(variable)))
LOOP(run_push, __asm__ volatile("push %0; pop %0" : : "r"((word)loops) : "memory"))

static void run_copy(unsigned loops) {
    do {
        void *from = buffer, *to = buffer + 4096;
        word left = 64;
        __asm__ volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(left) : : "memory");
    } while (--loops);
}

/* ---- traps ---- */

SNIPPET(user_int, "", "1: int $0x40; dec %ebx; jnz 1b");

INSTRUCTION(run_int, "int $0x40")
INSTRUCTION(run_breakpoint, "int3")
INSTRUCTION(run_undefined, "ud2")
INSTRUCTION(run_divide, "xor %%ecx, %%ecx; div %%cl")
INSTRUCTION(run_protection, "mov $0xfff8, %%eax; mov %%eax, %%ds")
LOOP(run_fault, __asm__ volatile("movb (%0), %%al" : : "b"(nano_window) : "ax"))
LOOP(run_not_available, write_cr0(read_cr0() | 8); __asm__ volatile("fnop"))

static void run_user_int(unsigned loops) {
    nano_run_user(user_int, loops);
}

static void unmap(void) {
    *nano_entry = 0;
    invlpg((const void *)nano_window);
}

static void map(void) {
    *nano_entry = nano_entry_value;
    invlpg((const void *)nano_window);
}

static void unmap_for_mapping(void) {
    unmap();
    gate_set(V_PF, nano_map_error, CODE_SELECTOR, 0x8e, 0);
}

static void map_for_good(void) {
    map();
    gate_set(V_PF, nano_skip_error, CODE_SELECTOR, 0x8e, 0);
}

static void run_mapping_fault(unsigned loops) {
    do {
        *(volatile word *)nano_entry = nano_entry_value & ~(word)PAGE_P;
        invlpg((const void *)nano_window);
        (void)*nano_window;
    } while (--loops);
}

/* ---- paging ---- */

LOOP(run_invlpg, invlpg((const void *)nano_window))
LOOP(run_entry, *(volatile word *)nano_entry = nano_entry_value ^ (loops & 1 ? PAGE_G : 0);
     invlpg((const void *)nano_window); (void)*nano_window)
LOOP(run_reload, write_cr3(nano_roots[0]))
LOOP(run_reload_load, write_cr3(nano_roots[0]); (void)*nano_window)

static void run_switch(unsigned loops) {
    do {
        write_cr3(nano_roots[loops & 1]);
        (void)*nano_window;
    } while (--loops);
    write_cr3(nano_roots[0]);
}

/* ---- registers ---- */

static bool has_tscp(void) {
    return cpuid(0x80000001, 0).d & 1 << 27;
}

static struct {
    uint16_t limit;
    word base;
} __attribute__((packed)) table;

static uint8_t fx_area[512] __attribute__((aligned(16)));

LOOP(run_cpuid, cpuid(0, 0))
LOOP(run_rdtsc, rdtsc())
INSTRUCTION(run_rdtscp, "rdtscp")
LOOP(run_rdmsr, rdmsr(0x277))
LOOP(run_wrmsr, wrmsr(0x277, 0x0007040600070406))
LOOP(run_read_cr0, read_cr0())
LOOP(run_write_cr0, write_cr0(read_cr0() ^ (loops & 1 ? 0x20 : 0)))
INSTRUCTION(run_clts, "clts")
LOOP(run_read_cr2, read_cr2())
LOOP(run_write_cr4, write_cr4(read_cr4() ^ 0x80))
INSTRUCTION(run_interrupt_flag, "sti; cli")
INSTRUCTION(run_flags, PUSH_FLAGS "; " POP_FLAGS)
INSTRUCTION(run_segment, "mov %%ds, %%eax; mov %%eax, %%ds")
INSTRUCTION(run_stack_segment, "mov %%ss, %%eax; mov %%eax, %%ss")
LOOP(run_table, __asm__ volatile("sgdt %0; lgdt %0" : "+m"(table) : : "memory"))
LOOP(run_debug, __asm__ volatile("mov %%dr7, %0; mov %0, %%dr7" : "=&r"((word){0})))
LOOP(run_fxsave, __asm__ volatile("fxsave %0; fxrstor %0" : "+m"(fx_area)))
INSTRUCTION(run_pause, "pause")

/* ---- devices ---- */

enum { APIC_BASE = 0xfee00000u, HPET_COUNTER = 0xfed000f0u };

LOOP(run_out_post, out8(0x80, 0))
LOOP(run_in_nothing, in8(0x2f8))
LOOP(run_in_pic, in8(0x21))
LOOP(run_out_pic, out8(0x21, 0xff))
LOOP(run_in_pit, in8(0x40))
LOOP(run_rtc, out8(0x70, 10); in8(0x71))
LOOP(run_apic_read, apic_read(0x20))
LOOP(run_apic_write, apic_write(0x80, 0))
LOOP(run_hpet, (void)*(volatile uint32_t *)(word)HPET_COUNTER)
LOOP(run_self_ipi, apic_write(0x300, 0x44000 | V_NANO_IPI); __asm__ volatile("sti; nop; cli"))
LOOP(run_halt, apic_write(0x300, 0x44000 | V_NANO_IPI); __asm__ volatile("sti; hlt; cli"))

/* ---- code that changes ---- */

static uint8_t *code;

static void make_code(void) {
    if (!code)
        code = page_alloc();
    code[0] = 0xb8; /* mov eax, imm32; ret */
    code[5] = 0xc3;
}

LOOP(run_changed_code, *(volatile uint32_t *)(code + 1) = loops; __asm__ volatile("call *%0"
                                                                                  :
                                                                                  : "r"(code)
                                                                                  : "ax", "memory"))
LOOP(run_data_beside_code, *(volatile uint32_t *)(code + 2048) = loops; __asm__ volatile("call *%0"
                                                                                         :
                                                                                         : "r"(code)
                                                                                         : "ax", "memory"))

const struct operation nano_common[] = {
    {.name = "empty loop", .run = run_nothing},
    {.name = "call, ret", .run = run_call},
    {.name = "indirect call", .run = run_indirect_one},
    {.name = "indirect call, 4 targets", .run = run_indirect_four},
    {.name = "far call, far ret", .run = run_far},
    {.name = "push, pop", .run = run_push},
    {.name = "load", .run = run_load},
    {.name = "store", .run = run_store},
    {.name = "load across pages", .run = run_crossing},
    {.name = "lock inc", .run = run_locked},
    {.name = "rep movsb, 64 bytes", .run = run_copy},
    {.name = "int, iret", .run = run_int, .traps = 1},
    {.name = "int3, iret", .run = run_breakpoint, .traps = 1},
    {.name = "int from CPL 3, iret", .run = run_user_int, .traps = 1},
    {.name = "#UD, iret", .run = run_undefined, .traps = 1},
    {.name = "#DE, iret", .run = run_divide, .traps = 1},
    {.name = "#GP, iret", .run = run_protection, .traps = 1},
    {.name = "#NM, clts, iret", .run = run_not_available, .traps = 1},
    {.name = "#PF, iret", .run = run_fault, .traps = 1, .prepare = unmap, .finish = map},
    {.name = "#PF that maps, iret, INVLPG",
     .run = run_mapping_fault,
     .traps = 1,
     .prepare = unmap_for_mapping,
     .finish = map_for_good},
    {.name = "INVLPG", .run = run_invlpg},
    {.name = "PTE change, INVLPG, load", .run = run_entry, .prepare = map, .finish = map},
    {.name = "CR3 reload", .run = run_reload},
    {.name = "CR3 reload, load", .run = run_reload_load},
    {.name = "CR3 switch, load", .run = run_switch},
    {.name = "cpuid", .run = run_cpuid},
    {.name = "rdtsc", .run = run_rdtsc},
    {.name = "rdtscp", .run = run_rdtscp, .is_offered = has_tscp},
    {.name = "rdmsr PAT", .run = run_rdmsr},
    {.name = "wrmsr PAT", .run = run_wrmsr},
    {.name = "read CR0", .run = run_read_cr0},
    {.name = "write CR0", .run = run_write_cr0},
    {.name = "clts", .run = run_clts},
    {.name = "read CR2", .run = run_read_cr2},
    {.name = "write CR4.PGE", .run = run_write_cr4},
    {.name = "sti, cli", .run = run_interrupt_flag},
    {.name = "pushf, popf", .run = run_flags},
    {.name = "mov DS", .run = run_segment},
    {.name = "mov SS", .run = run_stack_segment},
    {.name = "sgdt, lgdt", .run = run_table},
    {.name = "read, write DR7", .run = run_debug},
    {.name = "fxsave, fxrstor", .run = run_fxsave},
    {.name = "pause", .run = run_pause},
    {.name = "out 80h", .run = run_out_post},
    {.name = "in, nothing there", .run = run_in_nothing},
    {.name = "in 8259 mask", .run = run_in_pic},
    {.name = "out 8259 mask", .run = run_out_pic},
    {.name = "in 8254 counter", .run = run_in_pit},
    {.name = "out, in RTC", .run = run_rtc},
    {.name = "APIC ID read", .run = run_apic_read},
    {.name = "APIC TPR write", .run = run_apic_write},
    {.name = "HPET counter read", .run = run_hpet},
    {.name = "self-IPI, EOI, iret", .run = run_self_ipi, .traps = 1},
    {.name = "self-IPI, HLT, EOI, iret", .run = run_halt, .traps = 1},
    {.name = "code change, call", .run = run_changed_code, .prepare = make_code},
    {.name = "store beside code, call", .run = run_data_beside_code, .prepare = make_code},
    {0},
};
