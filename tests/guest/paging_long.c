/*
 * Four-level paging: page sizes, rights, WP, NX, SMEP, SMAP, accessed and dirty bits, reserved bits, global pages,
 * INVLPG inside large pages, CR3 loads and PCID (SDM vol. 3A, chapter 4).
 */
#include "lib/guest.h"

enum { PRESENT = 1, WRITE = 2, USER = 4, RESERVED = 8, FETCH = 16 };
enum { VA_2M = 0x40000000, CR4_PGE = 1 << 7, CR4_PCIDE = 1 << 17, CR4_SMEP = 1 << 20, CR4_SMAP = 1 << 21 };

SNIPPET(s_load, "", "movb (%rbx), %al");
SNIPPET(s_store, "", "movb $1, (%rbx)");
SNIPPET(s_call, "", "call *%rbx");
SNIPPET(s_stac_load, "stac", "movb (%rbx), %al");
SNIPPET(s_locked_read, "", "lock addb $0, (%rbx)");

static const uint64_t va = WINDOW + 0x10000;
static uint8_t *page, *other;

static struct state touch(const uint8_t *code, uint64_t address, bool is_user) {
    struct state state;
    (is_user ? state_init_user : state_init)(&state, code);
    state.gpr[RBX] = address;
    run(&state);
    return state;
}

/* want: -1 for no fault, or the error code of the page fault. */
static void expect(const char *name, const uint8_t *code, bool is_user, int want) {
    struct state state = touch(code, va, is_user);
    check(name, state.vector == V_PF ? state.error : state.vector, want < 0 ? V_END : (unsigned)want);
    if (want >= 0)
        check_quiet_detail("cr2", name, state.cr2, va);
}

static void rights(void) {
    page_map(va, (uint64_t)page, PAGE_P | PAGE_W | PAGE_U);
    expect("user_writes_user_page", s_store, true, -1);
    page_map(va, (uint64_t)page, PAGE_P | PAGE_U);
    expect("user_reads_read_only_page", s_load, true, -1);
    expect("user_stores_to_read_only_page", s_store, true, PRESENT | WRITE | USER);
    expect("supervisor_stores_to_read_only_page_with_wp", s_store, false, PRESENT | WRITE);
    write_cr0(read_cr0() & ~0x10000ull);
    expect("supervisor_stores_to_read_only_page_without_wp", s_store, false, -1);
    expect("user_stores_to_read_only_page_without_wp", s_store, true, PRESENT | WRITE | USER);
    write_cr0(read_cr0() | 0x10000);
    expect("wp_is_back", s_store, false, PRESENT | WRITE);
    page_map(va, (uint64_t)page, PAGE_P | PAGE_W);
    expect("user_reads_supervisor_page", s_load, true, PRESENT | USER);
    expect("user_stores_to_supervisor_page", s_store, true, PRESENT | USER | WRITE);
    expect("locked_access_counts_as_store", s_locked_read, true, PRESENT | USER | WRITE);
    page_map(va, 0, 0);
    expect("missing_page", s_load, false, 0);
    expect("fetch_from_missing_page", s_call, true, USER | FETCH);
}

static void upper_levels_limit_rights(void) {
    page_map(va, (uint64_t)page, PAGE_P | PAGE_W | PAGE_U);
    for (unsigned level = 2; level <= 4; level++) {
        uint64_t *entry = page_entry(read_cr3(), va, level), kept = *entry;
        *entry = kept & ~(uint64_t)PAGE_W;
        invlpg((void *)va);
        expect("upper_entry_read_only", s_store, false, PRESENT | WRITE);
        *entry = kept & ~(uint64_t)PAGE_U;
        invlpg((void *)va);
        expect("upper_entry_supervisor", s_load, true, PRESENT | USER);
        *entry = kept | PAGE_NX;
        invlpg((void *)va);
        expect("upper_entry_nx", s_call, false, PRESENT | FETCH);
        *entry = 0;
        invlpg((void *)va);
        expect("upper_entry_missing", s_load, false, 0);
        *entry = kept;
        invlpg((void *)va);
    }
    expect("upper_entries_back", s_store, true, -1);
}

static void execute_disable(void) {
    page[0] = 0xc3;
    page_map(va, (uint64_t)page, PAGE_P | PAGE_W);
    expect("fetch_from_page", s_call, false, -1);
    page_map(va, (uint64_t)page, PAGE_P | PAGE_W | PAGE_NX);
    expect("fetch_from_nx_page", s_call, false, PRESENT | FETCH);
    expect("load_from_nx_page", s_load, false, -1);
    wrmsr(0xc0000080, rdmsr(0xc0000080) & ~0x800ull);
    invlpg((void *)va);
    expect("nx_is_reserved_without_nxe", s_load, false, PRESENT | RESERVED);
    page_map(va, (uint64_t)page, PAGE_P | PAGE_W | PAGE_U);
    wrmsr(0xc0000080, rdmsr(0xc0000080) | 0x800);
}

static void supervisor_protection(void) {
    uint32_t features = cpuid(7, 0).b;
    page[0] = 0xc3;
    page_map(va, (uint64_t)page, PAGE_P | PAGE_W | PAGE_U);
    if (features & 1 << 7) {
        write_cr4(read_cr4() | CR4_SMEP);
        expect("smep_supervisor_fetch_from_user_page", s_call, false, PRESENT | FETCH);
        expect("smep_supervisor_load", s_load, false, -1);
        write_cr4(read_cr4() & ~(uint64_t)CR4_SMEP);
        expect("without_smep", s_call, false, -1);
    }
    if (features & 1 << 20) {
        write_cr4(read_cr4() | CR4_SMAP);
        expect("smap_supervisor_load", s_load, false, PRESENT);
        expect("smap_supervisor_store", s_store, false, PRESENT | WRITE);
        expect("smap_user_load", s_load, true, -1);
        expect("smap_with_ac", s_stac_load, false, -1);
        struct state state;
        state_init(&state, s_load);
        state.flags |= AC;
        state.gpr[RBX] = va;
        run(&state);
        check("smap_with_ac_from_iret", state.vector, V_END);
        expect("smap_after_ac", s_load, false, PRESENT);
        page_map(va, (uint64_t)page, PAGE_P | PAGE_W);
        expect("smap_supervisor_page", s_load, false, -1);
        write_cr4(read_cr4() & ~(uint64_t)CR4_SMAP);
    }
}

static void accessed_and_dirty(void) {
    uint64_t *entry = page_entry(read_cr3(), va, 1), *upper = page_entry(read_cr3(), va, 2);
    page_map(va, (uint64_t)page, PAGE_P | PAGE_W | PAGE_U);
    *upper &= ~(uint64_t)PAGE_A;
    write_cr3(read_cr3());
    touch(s_load, va, false);
    check("load_sets_accessed", *entry & (PAGE_A | PAGE_D), PAGE_A);
    check("load_sets_accessed_above", *upper & PAGE_A, PAGE_A);
    touch(s_store, va, false);
    check("store_sets_dirty", *entry & (PAGE_A | PAGE_D), PAGE_A | PAGE_D);
    *entry &= ~(uint64_t)(PAGE_A | PAGE_D);
    invlpg((void *)va);
    page[0] = 0xc3;
    touch(s_call, va, false);
    check("fetch_sets_accessed", *entry & (PAGE_A | PAGE_D), PAGE_A);
    *entry = (uint64_t)page | PAGE_P | PAGE_U;
    invlpg((void *)va);
    touch(s_store, va, false);
    check("faulting_store_leaves_dirty", *entry & PAGE_D, 0);
    *entry = (uint64_t)page | PAGE_P | PAGE_W | PAGE_A;
    invlpg((void *)va);
    touch(s_store, va, true);
    check("denied_store_leaves_dirty", *entry & PAGE_D, 0);
    unsigned wrong = 0;
    for (unsigned i = 0; i < 1000; i++) {
        *entry = (uint64_t)page | PAGE_P | PAGE_W;
        invlpg((void *)va);
        (void)*(volatile uint8_t *)va;
        wrong += (*entry & (PAGE_A | PAGE_D)) != PAGE_A;
        *(volatile uint8_t *)va = 1;
        wrong += (*entry & (PAGE_A | PAGE_D)) != (PAGE_A | PAGE_D);
    }
    check("accessed_and_dirty_each_time", wrong, 0);
}

static void reserved_bits(void) {
    uint64_t *entry = page_entry(read_cr3(), va, 1);
    uint32_t width = cpuid(0x80000008, 0).a & 0xff;
    page_map(va, (uint64_t)page, PAGE_P | PAGE_W);
    if (width < 52) {
        *entry |= 1ull << 51;
        invlpg((void *)va);
        expect("address_bit_beyond_maxphyaddr", s_load, false, PRESENT | RESERVED);
        expect("address_bit_beyond_maxphyaddr_user", s_store, true, PRESENT | RESERVED | USER | WRITE);
    }
    *page_entry(read_cr3(), VA_2M + WINDOW, 2) = PAGE_P | PAGE_W | PAGE_PS | 1 << 13;
    struct state state = touch(s_load, VA_2M + WINDOW, false);
    check("large_page_low_address_bit", state.vector == V_PF ? state.error : 0, PRESENT | RESERVED);
    page_map(va, (uint64_t)page, PAGE_P | PAGE_W);
}

static void large_pages(void) {
    enum { M2 = 1 << 21 };
    uint8_t *memory = pages_alloc(2 * M2, M2);
    uint64_t at = WINDOW + VA_2M;
    uint64_t *entry = page_entry(read_cr3(), at, 2);
    for (unsigned i = 0; i < 2 * M2; i += 4096)
        *(uint32_t *)(memory + i) = i;
    *entry = (uint64_t)memory | PAGE_P | PAGE_W | PAGE_PS;
    invlpg((void *)at);
    unsigned wrong = 0;
    for (unsigned i = 0; i < M2; i += 4096)
        wrong += *(volatile uint32_t *)(at + i) != i;
    check("2m_page_maps_all", wrong, 0);
    check("2m_page_accessed", *entry & (PAGE_A | PAGE_D), PAGE_A);
    *(volatile uint32_t *)(at + 0x12345) = 1;
    check("2m_page_dirty", *entry & PAGE_D, PAGE_D);
    *entry = (uint64_t)(memory + M2) | PAGE_P | PAGE_W | PAGE_PS;
    invlpg((void *)(at + 0x5678)); /* anywhere inside drops all of it */
    for (unsigned i = wrong = 0; i < M2; i += 4096)
        wrong += *(volatile uint32_t *)(at + i) != M2 + i;
    check("invlpg_inside_a_2m_page", wrong, 0);
    uint64_t *table = page_alloc(); /* split */
    for (unsigned i = 0; i < 512; i++)
        table[i] = (uint64_t)(memory + i * 4096) | PAGE_P | PAGE_W;
    *entry = (uint64_t)table | PAGE_P | PAGE_W;
    invlpg((void *)at);
    for (unsigned i = wrong = 0; i < M2; i += 4096)
        wrong += *(volatile uint32_t *)(at + i) != (i == 0x12000 ? *(uint32_t *)(memory + i) : i);
    check("split_2m_page", wrong, 0);
    if (cpuid(0x80000001, 0).d & 1 << 26) {
        uint64_t big = WINDOW + (4ull << 30);
        *page_entry(read_cr3(), big, 3) = 0 | PAGE_P | PAGE_W | PAGE_PS;
        invlpg((void *)big);
        check("1g_page", *(volatile uint32_t *)(big + (uint64_t)memory + 0x5000), 0x5000);
        *page_entry(read_cr3(), big, 3) = 0;
        invlpg((void *)(big + 0x1234567));
        struct state state = touch(s_load, big + (uint64_t)memory, false);
        check("1g_page_gone", state.vector, V_PF);
    }
}

static void stale_translations(void) {
    uint64_t *entry = page_entry(read_cr3(), va, 1);
    unsigned wrong = 0;
    *(uint32_t *)page = 111;
    *(uint32_t *)other = 222;
    for (unsigned i = 0; i < 3000; i++) {
        *entry = (uint64_t)(i & 1 ? page : other) | PAGE_P | PAGE_W;
        invlpg((void *)va);
        wrong += *(volatile uint32_t *)va != (i & 1 ? 111u : 222u);
    }
    check("invlpg_each_time", wrong, 0);
    for (unsigned i = wrong = 0; i < 3000; i++) {
        *entry = (uint64_t)(i & 1 ? page : other) | PAGE_P | PAGE_W;
        write_cr3(read_cr3());
        wrong += *(volatile uint32_t *)va != (i & 1 ? 111u : 222u);
    }
    check("cr3_load_each_time", wrong, 0);
    *entry = 0;
    invlpg((void *)va);
    touch(s_load, va, false);
    *entry = (uint64_t)page | PAGE_P | PAGE_W; /* from missing to present needs no INVLPG */
    check("missing_is_not_cached", *(volatile uint32_t *)va, 111);
    *entry = (uint64_t)page | PAGE_P;
    invlpg((void *)va);
    touch(s_store, va, false);
    *entry = (uint64_t)page | PAGE_P | PAGE_W; /* a spurious fault is allowed, a second one is not */
    struct state state = touch(s_store, va, false);
    if (state.vector == V_PF)
        state = touch(s_store, va, false);
    check("more_rights_at_once_or_after_a_fault", state.vector, V_END);
}

static void global_pages(void) {
    uint64_t roots[2] = {read_cr3(), page_clone_root()};
    *page_entry(roots[1], WINDOW, 4) = 0;
    *page_entry(roots[0], va, 1) = (uint64_t)page | PAGE_P | PAGE_W;
    *page_entry(roots[1], va, 1) = (uint64_t)other | PAGE_P | PAGE_W;
    *(uint32_t *)page = 111;
    *(uint32_t *)other = 222;
    unsigned wrong = 0;
    for (unsigned i = 0; i < 1000; i++) {
        write_cr3(roots[i & 1]);
        wrong += *(volatile uint32_t *)va != (i & 1 ? 222u : 111u);
    }
    check("two_spaces_by_turns", wrong, 0);
    write_cr4(read_cr4() | CR4_PGE);
    write_cr3(roots[0]);
    *page_entry(roots[0], va, 1) |= PAGE_G;
    invlpg((void *)va);
    (void)*(volatile uint32_t *)va;
    *page_entry(roots[0], va, 1) = 0;
    write_cr4(read_cr4() & ~(uint64_t)CR4_PGE);
    check("clearing_pge_drops_global_pages", touch(s_load, va, false).vector, V_PF);
    write_cr3(roots[0]);
    page_map(va, (uint64_t)page, PAGE_P | PAGE_W);
}

static void process_context_ids(void) {
    if (!(cpuid(1, 0).c & 1 << 17)) {
        skip("pcid", "not offered");
        return;
    }
    uint64_t root = read_cr3(), roots[2] = {root, page_clone_root()};
    *page_entry(roots[1], WINDOW, 4) = 0;
    *page_entry(roots[0], va, 1) = (uint64_t)page | PAGE_P | PAGE_W;
    *page_entry(roots[1], va, 1) = (uint64_t)other | PAGE_P | PAGE_W;
    write_cr4(read_cr4() | CR4_PCIDE);
    unsigned wrong = 0;
    for (unsigned i = 0; i < 2000; i++) {
        write_cr3(roots[i & 1] | (1 + (i & 1)) | (i > 2 ? 1ull << 63 : 0));
        wrong += *(volatile uint32_t *)va != (i & 1 ? 222u : 111u);
    }
    check("pcid_keeps_spaces_apart", wrong, 0);
    check("cr3_reads_without_bit_63", read_cr3(), roots[1] | 2);
    write_cr3(roots[0] | 1 | 1ull << 63);
    *page_entry(roots[1], va, 1) = (uint64_t)page | PAGE_P | PAGE_W;
    write_cr3(roots[1] | 2); /* without bit 63: the PCID's translations go */
    check("cr3_load_flushes_its_pcid", *(volatile uint32_t *)va, 111);
    if (cpuid(7, 0).b & 1 << 10) {
        struct {
            uint64_t pcid, linear;
        } descriptor = {2, va};
        *page_entry(roots[1], va, 1) = (uint64_t)other | PAGE_P | PAGE_W;
        __asm__ volatile("invpcid %0, %1" : : "m"(descriptor), "r"(0ull) : "memory");
        check("invpcid_address", *(volatile uint32_t *)va, 222);
        *page_entry(roots[1], va, 1) = (uint64_t)page | PAGE_P | PAGE_W;
        __asm__ volatile("invpcid %0, %1" : : "m"(descriptor), "r"(1ull) : "memory");
        check("invpcid_context", *(volatile uint32_t *)va, 111);
        *page_entry(roots[1], va, 1) = (uint64_t)other | PAGE_P | PAGE_W;
        __asm__ volatile("invpcid %0, %1" : : "m"(descriptor), "r"(2ull) : "memory");
        check("invpcid_all", *(volatile uint32_t *)va, 222);
    }
    write_cr3(roots[0]);
    write_cr4(read_cr4() & ~(uint64_t)CR4_PCIDE);
}

SNIPPET(s_cr4, "", "mov %rax, %cr4");
SNIPPET(s_cr0, "", "mov %rax, %cr0");
SNIPPET(s_cr3, "", "mov %rax, %cr3");

static void expect_refused(const char *name, const uint8_t *code, uint64_t value) {
    struct state state;
    state_init(&state, code);
    state.gpr[RAX] = value;
    run(&state);
    check(name, state.vector, V_GP);
    check_quiet_detail("error code", name, state.error, 0);
}

static void bad_control_registers(void) {
    expect_refused("cr4_reserved_bit", s_cr4, read_cr4() | 1ull << 31);
    expect_refused("cr4_without_pae_in_long_mode", s_cr4, read_cr4() & ~0x20ull);
    expect_refused("cr0_pg_without_pe", s_cr0, 0x80000000);
    expect_refused("cr0_nw_without_cd", s_cr0, read_cr0() | 1 << 29);
    expect_refused("cr0_upper_half", s_cr0, read_cr0() | 1ull << 32);
    expect_refused("cr3_beyond_maxphyaddr", s_cr3, read_cr3() | 1ull << 60);
}

int main(void) {
    page = page_alloc();
    other = page_alloc();
    rights();
    upper_levels_limit_rights();
    execute_disable();
    supervisor_protection();
    accessed_and_dirty();
    reserved_bits();
    large_pages();
    stale_translations();
    global_pages();
    process_context_ids();
    bad_control_registers();
    return 0;
}
