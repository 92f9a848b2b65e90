/*
 * Two-level and PAE paging of 32-bit protected mode: 4 KiB, 4 MiB and 2 MiB pages, rights, accessed and dirty bits,
 * PDPTE loads (SDM vol. 3A, 4.3 and 4.4).
 */
#include "lib/guest.h"

enum { PRESENT = 1, WRITE = 2, USER = 4, RESERVED = 8, FETCH = 16, CR4_PSE = 16, CR4_PAE = 32, CR0_WP = 0x10000 };
enum { VA = 0x90000000u, LARGE_VA = 0x90400000u, MIB4 = 4 << 20, MIB2 = 2 << 20 };
#define CR0_PG 0x80000000u

SNIPPET(s_load, "", "movl (%ebx), %eax");
SNIPPET(s_store, "", "movl %ecx, (%ebx)");
SNIPPET(s_call, "", "call *%ebx");
SNIPPET(s_cross_store, "", "movl %ecx, 4094(%ebx)");

static struct state touch(const uint8_t *code, uint32_t address, bool is_user) {
    struct state state;
    (is_user ? state_init_user : state_init)(&state, code);
    state.gpr[RBX] = address;
    run(&state);
    return state;
}

static void expect(const char *name, const uint8_t *code, uint32_t address, bool is_user, int want) {
    struct state state = touch(code, address, is_user);
    check(name, state.vector == V_PF ? state.error : state.vector, want < 0 ? V_END : (unsigned)want);
    if (want >= 0)
        check_quiet_detail("cr2", name, state.cr2, address);
}

static void two_level(void) {
    uint32_t *directory = page_alloc(), *table = page_alloc(), *page = page_alloc();
    uint8_t *large = pages_alloc(MIB4, MIB4);
    write_cr4(read_cr4() | CR4_PSE);
    for (unsigned i = 0; i < 32; i++)
        directory[i] = i << 22 | PAGE_PS | PAGE_P | PAGE_W | PAGE_U;
    directory[0xfee00000u >> 22] = 0xfec00000u | PAGE_PS | PAGE_P | PAGE_W;
    directory[VA >> 22] = (uint32_t)table | PAGE_P | PAGE_W | PAGE_U;
    table[0] = (uint32_t)page | PAGE_P | PAGE_W | PAGE_U;
    write_cr3((uint32_t)directory);
    write_cr0(read_cr0() | CR0_PG | CR0_WP);
    page[0] = 0x1234;
    check("4k_page", touch(s_load, VA, false).gpr[RAX], 0x1234);
    check("4k_page_accessed", table[0] & (PAGE_A | PAGE_D), PAGE_A);
    expect("4k_page_store", s_store, VA, true, -1);
    check("4k_page_dirty", table[0] & PAGE_D, PAGE_D);
    expect("second_page_missing", s_load, VA + 4096, false, 0);
    expect("store_to_missing_user", s_store, VA + 4096 + 8, true, WRITE | USER);
    struct state state = touch(s_cross_store, VA, false);
    check("crossing_store_cr2", state.cr2, VA + 4096);
    check("crossing_store_leaves_first_page", page[1023], 0);
    table[0] = (uint32_t)page | PAGE_P | PAGE_U;
    invlpg((void *)VA);
    expect("read_only_store", s_store, VA, false, PRESENT | WRITE);
    write_cr0(read_cr0() & ~(uint32_t)CR0_WP);
    expect("read_only_store_without_wp", s_store, VA, false, -1);
    write_cr0(read_cr0() | CR0_WP);
    table[0] = (uint32_t)page | PAGE_P | PAGE_W;
    invlpg((void *)VA);
    expect("supervisor_page", s_load, VA, true, PRESENT | USER);
    directory[LARGE_VA >> 22] = (uint32_t)large | PAGE_PS | PAGE_P | PAGE_W;
    *(uint32_t *)(large + 0x123450) = 77;
    check("4m_page", touch(s_load, LARGE_VA + 0x123450, false).gpr[RAX], 77);
    check("4m_page_accessed", directory[LARGE_VA >> 22] & (PAGE_A | PAGE_D), PAGE_A);
    touch(s_store, LARGE_VA + 0x200000, false);
    check("4m_page_dirty", directory[LARGE_VA >> 22] & PAGE_D, PAGE_D);
    directory[LARGE_VA >> 22] = 0;
    invlpg((void *)(LARGE_VA + 0x3ff000));
    expect("invlpg_inside_4m_page", s_load, LARGE_VA + 0x123450, false, 0);
    unsigned wrong = 0;
    uint32_t *other = page_alloc();
    page[0] = 1;
    other[0] = 2;
    for (unsigned i = 0; i < 2000; i++) {
        table[0] = (uint32_t)(i & 1 ? page : other) | PAGE_P | PAGE_W;
        invlpg((void *)VA);
        wrong += *(volatile uint32_t *)VA != (i & 1 ? 1 : 2);
    }
    check("remapped_each_time", wrong, 0);
    write_cr0(read_cr0() & ~CR0_PG);
    check("paging_off", *(volatile uint32_t *)page, 1);
}

static void enter_pae(uint64_t *pointers, uint64_t *directories) {
    for (unsigned i = 0; i < 4; i++)
        pointers[i] = (uint32_t)&directories[512 * i] | PAGE_P;
    for (unsigned i = 0; i < 64; i++)
        directories[i] = (uint64_t)i << 21 | PAGE_PS | PAGE_P | PAGE_W | PAGE_U;
    write_cr4(read_cr4() | CR4_PAE);
    write_cr3((uint32_t)pointers);
    wrmsr(0xc0000080, rdmsr(0xc0000080) | 0x800);
    write_cr0(read_cr0() | CR0_PG | CR0_WP);
}

static void pae(void) {
    uint64_t *pointers = pages_alloc(32, 32), *directories = pages_alloc(4 * 4096, 4096), *table = page_alloc();
    uint32_t *page = page_alloc();
    if (!(cpuid(0x80000001, 0).d & 1 << 20)) {
        skip("pae", "no NX");
        return;
    }
    directories[VA >> 21] = (uint32_t)table | PAGE_P | PAGE_W | PAGE_U;
    table[0] = (uint32_t)page | PAGE_P | PAGE_W | PAGE_U;
    enter_pae(pointers, directories);
    page[0] = 0xc3;
    expect("pae_fetch", s_call, VA, false, -1);
    table[0] |= PAGE_NX;
    invlpg((void *)VA);
    expect("pae_nx_fetch", s_call, VA, true, PRESENT | USER | FETCH);
    expect("pae_nx_load", s_load, VA, true, -1);
    table[0] = (uint32_t)page | PAGE_P | PAGE_W | 1ull << 52 | PAGE_U;
    invlpg((void *)VA);
    expect("pae_ignored_or_reserved_high_bits", s_store, VA, true, PRESENT | USER | WRITE | RESERVED);
    table[0] = (uint32_t)page | PAGE_P | PAGE_W;
    directories[(VA >> 21) + 1] = (uint32_t)pages_alloc(MIB2, MIB2) | PAGE_PS | PAGE_P;
    expect("pae_2m_page_load", s_load, VA + MIB2 + 0x1234, false, -1);
    expect("pae_2m_page_store", s_store, VA + MIB2 + 0x1234, false, PRESENT | WRITE);
    /* PDPTEs are loaded with CR3 alone: a change in memory waits for the next load */
    pointers[VA >> 30] = 0;
    invlpg((void *)VA);
    expect("pdpte_change_waits_for_cr3", s_load, VA, false, -1);
    write_cr3((uint32_t)pointers);
    expect("pdpte_is_gone", s_load, VA, false, 0);
    write_cr0(read_cr0() & ~CR0_PG);
    write_cr4(read_cr4() & ~(uint32_t)CR4_PAE);
}

SNIPPET(s_load_cr3, "", "mov %ecx, %cr3");

static void bad_pdptes(void) {
    uint64_t *pointers = pages_alloc(64, 64), *bad = pointers + 4, *directories = pages_alloc(4 * 4096, 4096);
    enter_pae(pointers, directories);
    for (unsigned i = 0; i < 4; i++)
        bad[i] = pointers[i];
    bad[2] |= 2; /* reserved */
    struct state state;
    state_init(&state, s_load_cr3);
    state.gpr[RCX] = (uint32_t)bad;
    run(&state);
    check("reserved_bit_in_pdpte_is_gp", state.vector, V_GP);
    check("cr3_is_kept", read_cr3(), (uint32_t)pointers);
    write_cr0(read_cr0() & ~CR0_PG);
    write_cr4(read_cr4() & ~(uint32_t)CR4_PAE);
}

int main(void) {
    two_level();
    pae();
    bad_pdptes();
    return 0;
}
