/*
 * Accesses that one page's translation does not serve: parts of two pages, side by side in memory or not, and devices.
 * Every instruction does the same as on plain memory, at its first time and later.
 */
#include "lib/guest.h"

enum { V_IPI = 0x41, TPR = 0x80, ICR = 0x300 };
#define APIC 0xfee00000ull
#define HPET 0xfed00000ull

struct effect {
    uint64_t rax, rdx, flags;
};

/* Of the instruction on the memory at rbx, with known registers and flags. */
#define ACCESS(name, instruction)                                                                                      \
    static struct effect do_##name(void *at) {                                                                         \
        struct effect effect = {.rax = 0x1122334455667788, .rdx = 0x99aabbccddeeff01};                                 \
        __asm__ volatile("test %%esp, %%esp; stc; " instruction "; pushfq; pop %%rcx"                                  \
                         : "+a"(effect.rax), "+d"(effect.rdx), "=&c"(effect.flags)                                     \
                         : "b"(at)                                                                                     \
                         : "memory", "cc", "r8");                                                                      \
        effect.flags &= ARITHMETIC;                                                                                    \
        return effect;                                                                                                 \
    }

#define EACH_ACCESS(X)                                                                                                 \
    X(load_16, "movw (%%rbx), %%ax")                                                                                   \
    X(load_32, "movl (%%rbx), %%eax")                                                                                  \
    X(load_64, "movq (%%rbx), %%rax")                                                                                  \
    X(load_signed, "movslq (%%rbx), %%rax")                                                                            \
    X(load_to_memory_register, "movq (%%rbx), %%r11; movq %%r11, %%rax")                                               \
    X(load_add, "addq (%%rbx), %%rax")                                                                                 \
    X(load_adc, "adcl (%%rbx), %%eax")                                                                                 \
    X(load_compare, "cmpq %%rax, (%%rbx)")                                                                             \
    X(load_test, "testl $0x01020304, (%%rbx)")                                                                         \
    X(load_multiply, "imulq (%%rbx), %%rax")                                                                           \
    X(load_compare_strings, "mov %%rbx, %%rsi; lea 8(%%rbx), %%rdi; cmpsq")                                            \
    X(load_move_string, "mov %%rbx, %%rsi; lea 24(%%rbx), %%rdi; movsq")                                               \
    X(store_16, "movw %%ax, (%%rbx)")                                                                                  \
    X(store_32, "movl %%edx, (%%rbx)")                                                                                 \
    X(store_64, "movq %%rdx, (%%rbx)")                                                                                 \
    X(store_memory_register, "movq %%rdx, %%r14; movq %%r14, (%%rbx)")                                                 \
    X(store_immediate_16, "movw $0x8182, (%%rbx)")                                                                     \
    X(store_immediate_32, "movl $0x81828384, (%%rbx)")                                                                 \
    X(store_immediate_64, "movq $-3, (%%rbx)")                                                                         \
    X(store_and_go_on, "movl $7, (%%rbx); incl %%eax; movl %%eax, (%%rbx); addl (%%rbx), %%edx")                       \
    X(modify_add, "addq %%rdx, (%%rbx)")                                                                               \
    X(modify_shift, "shll $3, (%%rbx)")                                                                                \
    X(modify_exchange, "xchgq %%rax, (%%rbx)")                                                                         \
    X(modify_locked, "lock xaddl %%eax, (%%rbx)")                                                                      \
    X(modify_if_equal, "lock cmpxchgq %%rdx, (%%rbx)")                                                                 \
    X(push_from, "pushq (%%rbx); popq %%rax")                                                                          \
    X(pop_to, "pushq %%rdx; popq (%%rbx)")

#define CLOBBERS_14 __asm__ volatile("" : : : "r11", "r14", "rsi", "rdi")
EACH_ACCESS(ACCESS)

struct access {
    const char *name;
    struct effect (*run)(void *at);
};
#define ROW(name, instruction) {#name, do_##name},
static const struct access accesses[] = {EACH_ACCESS(ROW)};

/* ---- Two pages ---- */

static struct effect guarded(const struct access *access, void *at) {
    CLOBBERS_14;
    return access->run(at);
}

/* All at `boundary` - distance, against the same in the middle of a page. */
static void crossings_at(const char *where, uint8_t *boundary) {
    static uint8_t flat[4096] __attribute__((aligned(4096)));
    for (unsigned i = 0; i < sizeof accesses / sizeof *accesses; i++)
        for (unsigned distance = 0; distance < 9; distance++)
            for (unsigned time = 0; time < 3; time++) {
                uint8_t *model = flat + 1024 - distance, *at = boundary - distance;
                if (time == 0) {
                    invlpg(boundary - 1);
                    invlpg(boundary);
                }
                for (unsigned k = 0; k < 64; k++)
                    flat[1024 - 16 + k] = boundary[(int)k - 16] = (uint8_t)(k * 37 + i + time * 5);
                if (time == 1)
                    *(volatile uint8_t *)boundary; /* both pages are known */
                struct effect want = guarded(&accesses[i], model), got = guarded(&accesses[i], at);
                check_quiet_detail(accesses[i].name, where, got.rax, want.rax);
                check_quiet_detail(accesses[i].name, where, got.rdx, want.rdx);
                check_quiet_detail(accesses[i].name, where, got.flags, want.flags);
                check_quiet_detail(accesses[i].name, where, memory_compare(boundary - 16, flat + 1024 - 16, 64), 0);
            }
    check_detail("accesses_across", where, 0, 0);
}

static void crossings(void) {
    uint8_t *pair = pages_alloc(8192, 8192), *first = page_alloc(), *gap = page_alloc(), *second = page_alloc();
    crossings_at("pages side by side", pair + 4096);
    page_map(WINDOW + 0x3000, (uint64_t)second, PAGE_P | PAGE_W);
    page_map(WINDOW + 0x4000, (uint64_t)first, PAGE_P | PAGE_W);
    crossings_at("pages apart", (uint8_t *)WINDOW + 0x4000);
    page_map(WINDOW + 0x3000, (uint64_t)first, PAGE_P | PAGE_W);
    invlpg((void *)(WINDOW + 0x3000));
    crossings_at("one page twice", (uint8_t *)WINDOW + 0x4000);
    page_map(WINDOW + 0xffff000, (uint64_t)pair, PAGE_P | PAGE_W);
    page_map(WINDOW + 0x10000000, (uint64_t)(pair + 4096), PAGE_P | PAGE_W);
    crossings_at("last and first entry", (uint8_t *)WINDOW + 0x10000000);
    page_map(WINDOW + 0x10000000, (uint64_t)gap, PAGE_P | PAGE_W);
    invlpg((void *)(WINDOW + 0x10000000));
    crossings_at("last and first entry, apart", (uint8_t *)WINDOW + 0x10000000);
}

SNIPPET(s_store, "mov %rsi, %rsi", "movl %eax, (%rbx)");
SNIPPET(s_load, "mov %rsi, %rsi", "movl (%rbx), %eax");

/* The second page goes away, or its rights, after accesses across the boundary went well. */
static void second_page_is_checked(void) {
    uint8_t *pair = pages_alloc(8192, 8192);
    uint64_t va = WINDOW + 0x8000;
    for (unsigned is_store = 0; is_store < 2; is_store++) {
        page_map(va, (uint64_t)pair, PAGE_P | PAGE_W);
        page_map(va + 4096, (uint64_t)pair + 4096, PAGE_P | PAGE_W);
        struct state state;
        for (unsigned i = 0; i < 4; i++) {
            state_init(&state, is_store ? s_store : s_load);
            state.gpr[RBX] = va + 4094;
            run(&state);
            check_detail("crossing_while_allowed", is_store ? "store" : "load", state.vector, V_END);
        }
        *page_entry(read_cr3(), va + 4096, 1) = is_store ? ((uint64_t)pair + 4096) | PAGE_P : 0;
        invlpg((void *)(va + 4096));
        write_cr0(read_cr0() | 1 << 16);
        memory_set(pair, 0x55, 8192);
        state_init(&state, is_store ? s_store : s_load);
        state.gpr[RBX] = va + 4094;
        run(&state);
        check_detail("crossing_into_forbidden_page", is_store ? "store" : "load", state.vector, V_PF);
        check_detail("its_cr2", is_store ? "store" : "load", state.cr2, va + 4096);
        check_detail("its_error", is_store ? "store" : "load", state.error, is_store ? 3 : 0);
        check("nothing_was_written", *(uint16_t *)(pair + 4094), 0x5555);
    }
}

/* ---- Devices ---- */

static void registers_of_devices(void) {
    volatile uint32_t *tpr = (volatile uint32_t *)(APIC + TPR);
    static uint32_t cell __attribute__((aligned(16)));
    for (unsigned i = 0; i < sizeof accesses / sizeof *accesses; i++) {
        const char *name = accesses[i].name;
        for (unsigned time = 0; time < 3; time++) {
            cell = *tpr = 0x10 + time;
            bool is_wide = name[0] != 'l' || accesses[i].run == do_load_compare_strings ||
                           accesses[i].run == do_load_move_string || accesses[i].run == do_load_64 ||
                           accesses[i].run == do_load_to_memory_register || accesses[i].run == do_load_add ||
                           accesses[i].run == do_load_compare || accesses[i].run == do_load_multiply;
            if (is_wide)
                continue;
            struct effect want = guarded(&accesses[i], &cell), got = guarded(&accesses[i], (void *)tpr);
            check_quiet_detail(name, "device", got.rax, want.rax);
            check_quiet_detail(name, "device", got.flags, want.flags);
        }
    }
    for (unsigned i = 0; i < 4; i++) {
        *tpr = 0x20 + i;
        check_quiet("tpr_by_register", *tpr, 0x20 + i);
        __asm__ volatile("movl $0x31, (%0)" : : "r"(tpr) : "memory");
        check_quiet("tpr_by_immediate", *tpr, 0x31);
        uint64_t value = 0x4250 + i;
        __asm__ volatile("mov %1, %%r14; movl %%r14d, (%0); xor %%r14d, %%r14d" : : "r"(tpr), "r"(value) : "memory", "r14");
        check_quiet("tpr_by_a_register_in_memory", *tpr, 0x50 + i);
        uint32_t old = 0x60 + i;
        __asm__ volatile("xchg %0, (%1)" : "+r"(old) : "r"(tpr) : "memory");
        check_quiet("tpr_exchanged", old << 8 | *tpr, (0x50 + i) << 8 | (0x60 + i));
        __asm__ volatile("addl $3, (%0)" : : "r"(tpr) : "memory");
        check_quiet("tpr_added_to", *tpr, 0x63 + i);
        uint64_t both = *(volatile uint64_t *)HPET, low = *(volatile uint32_t *)HPET;
        check_quiet("hpet_capabilities", both, low | (uint64_t)*(volatile uint32_t *)(HPET + 4) << 32);
    }
    *tpr = 0;
    check("registers_of_devices", 0, 0);
}

static bool is_later(uint32_t now, uint32_t before) {
    return (int32_t)(now - before) >= 0;
}

static void time_goes_on(void) {
    volatile uint32_t *config = (volatile uint32_t *)(HPET + 0x10), *counter = (volatile uint32_t *)(HPET + 0xf0);
    *config = 1;
    uint32_t last = *counter, backwards = 0;
    uint64_t start = rdtsc();
    while (rdtsc() - start < 200000000) {
        uint32_t now = *counter;
        backwards += !is_later(now, last);
        last = now;
    }
    check("hpet_never_goes_back", backwards, 0);
    *config = 0;
}

/* ---- Interrupts that a store to a device causes ---- */

volatile uint32_t ipis;

static bool on_ipi(struct state *state) {
    (void)state;
    ipis++;
    apic_write(0xb0, 0);
    return true;
}

static void self_ipis(void) {
    volatile uint32_t *icr = (volatile uint32_t *)(APIC + ICR);
    trap_handlers[V_IPI] = on_ipi;
    uint32_t late = 0;
    sti();
    for (uint32_t i = 0; i < 2000; i++) {
        uint32_t seen;
        __asm__ volatile("movl %2, (%1); nop; nop; movl ipis(%%rip), %0"
                         : "=r"(seen)
                         : "r"(icr), "i"(0x44000 | V_IPI)
                         : "memory");
        late += seen != i + 1;
    }
    cli();
    check("self_ipi_is_taken_at_once", late, 0);
    for (uint32_t i = 0; i < 200; i++) {
        *icr = 0x44000 | V_IPI;
        late += ipis != 2000 + i;
        __asm__ volatile("sti; nop; cli" : : : "memory");
        late += ipis != 2001 + i;
    }
    check("self_ipi_waits_for_sti", late, 0);
    for (uint32_t i = 0; i < 200; i++) {
        *icr = 0x44000 | V_IPI;
        __asm__ volatile("sti; hlt; cli" : : : "memory");
        late += ipis != 2201 + i;
    }
    check("self_ipi_ends_a_halt", late, 0);
    apic_write(TPR, 0x50);
    *icr = 0x44000 | V_IPI;
    __asm__ volatile("sti; nop; nop; cli" : : : "memory");
    check("tpr_holds_it_off", ipis, 2400);
    sti();
    *(volatile uint32_t *)(APIC + TPR) = 0;
    __asm__ volatile("nop; nop");
    cli();
    check("and_lets_it_go", ipis, 2401);
}

int main(void) {
    pic_init(0x30);
    apic_enable();
    crossings();
    second_page_is_checked();
    registers_of_devices();
    time_goes_on();
    self_ipis();
    return 0;
}
