/* What 64-bit programs alone have: long mode's page tables, SYSCALL, SWAPGS, PCIDs, FS and GS bases, XSAVE. */
#include "nano/nano.h"

word *nano_entry, nano_entry_value, nano_roots[2];
volatile uint8_t *nano_window = (volatile uint8_t *)(WINDOW + 0x5000);

enum { CR4_FSGSBASE = 1 << 16, CR4_PCIDE = 1 << 17, CR4_OSXSAVE = 1 << 18, CR4_SMAP = 1 << 21 };

void nano_paging_init(void) {
    uint64_t other, page = (uint64_t)page_alloc();
    nano_entry_value = page | PAGE_P | PAGE_W | PAGE_A | PAGE_D;
    nano_roots[0] = read_cr3();
    nano_roots[1] = other = page_clone_root();
    page_map((uint64_t)nano_window, page, nano_entry_value & 0xfff);
    nano_entry = page_entry(read_cr3(), (uint64_t)nano_window, 1);
    *page_entry(other, (uint64_t)nano_window, 1) = (uint64_t)page_alloc() | (nano_entry_value & 0xfff);
}

SNIPPET(user_syscall, "", "1: syscall; dec %ebx; jnz 1b");
__asm__(".pushsection .text\n nano_syscall: incl nano_traps\n sysretq\n.popsection");
extern const uint8_t nano_syscall[];

static void allow_syscall(void) {
    wrmsr(0xc0000080, rdmsr(0xc0000080) | 1);
    wrmsr(0xc0000081, (uint64_t)0x23 << 48 | (uint64_t)CODE_SELECTOR << 32);
    wrmsr(0xc0000082, (uint64_t)nano_syscall);
    wrmsr(0xc0000084, 0x47700);
}

static void run_syscall(unsigned loops) {
    nano_run_user(user_syscall, loops);
}

static bool has_pcid(void) {
    return cpuid(1, 0).c & 1 << 17;
}

static void allow_pcid(void) {
    write_cr4(read_cr4() | CR4_PCIDE);
}

static void forbid_pcid(void) {
    write_cr3(nano_roots[0]);
    write_cr4(read_cr4() & ~(word)CR4_PCIDE);
}

static void run_pcid_switch(unsigned loops) {
    do {
        write_cr3(nano_roots[loops & 1] | (1 + (loops & 1)) | 1ull << 63);
        (void)*nano_window;
    } while (--loops);
}

static bool has_fsgsbase(void) {
    return cpuid(0, 0).a >= 7 && cpuid(7, 0).b & 1;
}

static void allow_fsgsbase(void) {
    write_cr4(read_cr4() | CR4_FSGSBASE);
}

static bool has_smap(void) {
    return cpuid(0, 0).a >= 7 && cpuid(7, 0).b & 1 << 20;
}

static void allow_smap(void) {
    write_cr4(read_cr4() | CR4_SMAP);
}

static void forbid_smap(void) {
    write_cr4(read_cr4() & ~(word)CR4_SMAP);
}

static bool has_xsave(void) {
    return cpuid(1, 0).c & 1 << 26;
}

static void allow_xsave(void) {
    write_cr4(read_cr4() | CR4_OSXSAVE);
}

static uint8_t xsave_area[4096] __attribute__((aligned(64)));

INSTRUCTION(run_swapgs, "swapgs; swapgs")
LOOP(run_fs_base_msr, wrmsr(0xc0000100, 0))
INSTRUCTION(run_fs_base, "rdfsbase %%rax; wrfsbase %%rax")
INSTRUCTION(run_access, "stac; clac")
INSTRUCTION(run_cr8, "mov %%cr8, %%rax; mov %%rax, %%cr8")
LOOP(run_xsave, __asm__ volatile("xsave %0; xrstor %0" : "+m"(xsave_area) : "a"(3), "d"(0)))
LOOP(run_xgetbv, __asm__ volatile("xgetbv" : : "c"(0) : "ax", "dx"))

const struct operation nano_own[] = {
    {.name = "syscall, sysret", .run = run_syscall, .traps = 1, .prepare = allow_syscall},
    {.name = "swapgs twice", .run = run_swapgs},
    {.name = "wrmsr FS base", .run = run_fs_base_msr},
    {.name = "rdfsbase, wrfsbase", .run = run_fs_base, .is_offered = has_fsgsbase, .prepare = allow_fsgsbase},
    {.name = "stac, clac", .run = run_access, .is_offered = has_smap, .prepare = allow_smap, .finish = forbid_smap},
    {.name = "read, write CR8", .run = run_cr8},
    {.name = "xsave, xrstor", .run = run_xsave, .is_offered = has_xsave, .prepare = allow_xsave},
    {.name = "xgetbv", .run = run_xgetbv, .is_offered = has_xsave, .prepare = allow_xsave},
    {.name = "CR3 switch of a PCID, load",
     .run = run_pcid_switch,
     .is_offered = has_pcid,
     .prepare = allow_pcid,
     .finish = forbid_pcid},
    {0},
};
