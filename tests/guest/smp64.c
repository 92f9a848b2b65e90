/*
 * Two processors: INIT and SIPI, locked counters, store ordering, IPIs, TLB shoot-down, cross-modifying code.
 */
#include "lib/guest.h"

enum { ROUNDS = 100000, V_IPI = 0x71, V_SHOOT = 0x72 };

static volatile unsigned command, answer; /* the second processor works off commands */
static volatile uint64_t shared[64] __attribute__((aligned(64)));
static volatile unsigned ipis[2];
static uint8_t *code, *pages[2];
static const uint64_t va = WINDOW + 0x30000;

enum { IDLE, COUNT, ORDER, CMPXCHG, SHOOT, MODIFY, HALT, XCHG_LOCK, STI_LOOP };

static void locked_count(void) {
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint32_t one = 1;
        __asm__ volatile("lock incq %0" : "+m"(shared[0]));
        __asm__ volatile("lock xaddl %1, %0" : "+m"(*(volatile uint32_t *)&shared[1]), "+r"(one) : : "memory");
    }
    for (unsigned i = 0; i < ROUNDS / 10; i++) /* across two lines and two pages */
        __asm__ volatile("lock addl $1, %0" : "+m"(*(volatile uint32_t *)((uint8_t *)code + 4096 - 2)));
}

static void compare_count(void) {
    for (unsigned i = 0; i < ROUNDS / 4; i++) {
        uint64_t old = shared[8];
        while (!__atomic_compare_exchange_n((uint64_t *)&shared[8], &old, old + 1, false, __ATOMIC_SEQ_CST,
                                            __ATOMIC_SEQ_CST))
            ;
    }
}

static void lock_count(void) {
    for (unsigned i = 0; i < ROUNDS / 10; i++) {
        while (__atomic_exchange_n((uint32_t *)&shared[16], 1, __ATOMIC_ACQUIRE))
            pause_cpu();
        shared[17] = shared[17] + 1;
        __atomic_store_n((uint32_t *)&shared[16], 0, __ATOMIC_RELEASE);
    }
}

/* The reader never sees the second store without the first. */
static unsigned read_in_order(void) {
    unsigned wrong = 0;
    while (shared[25] < ROUNDS) {
        uint64_t second = shared[25];
        __asm__ volatile("" : : : "memory");
        wrong += shared[32] < second;
    }
    return wrong;
}

static void read_until_remapped(void) {
    volatile uint32_t *at = (volatile uint32_t *)va;
    shared[40] = 1; /* has read */
    while (*at != 2 && !shared[41])
        pause_cpu();
    answer = *at;
}

static void call_until_changed(void) {
    uint64_t (*function)(void) = (void *)(code + 64);
    while (function() != 99)
        pause_cpu();
}

/* Interrupts are off between the look at the count and the HLT, so that none is missed. */
static void halt_until_ipi(void) {
    cli();
    unsigned before = ipis[0];
    answer = 1;
    while (ipis[0] == before)
        __asm__ volatile("sti; hlt; cli" : : : "memory");
    sti();
}

/* STI in front of an access to a device, and as a page's last instruction with the next page to be looked up. */
static void sti_until_stopped(void) {
    void (*sti_at_page_end)(void) = (void *)(code + 4095);
    cli();
    while (!shared[48]) {
        __asm__ volatile("sti\nbehind_sti: testb $0, %0\n nop\n cli" : : "m"(*(uint8_t *)0xfee00020) : "cc");
        invlpg(code + 4096);
        sti_at_page_end();
    }
    sti();
}

static volatile unsigned nmis, nmis_behind_sti;

static bool take_nmi(struct state *state) {
    extern const uint8_t behind_sti[];
    nmis_behind_sti += state->ip == (word)behind_sti || state->ip == (word)code + 4096;
    nmis++;
    return true;
}

static bool take_ipi(struct state *state) {
    ipis[state->vector == V_SHOOT]++;
    if (state->vector == V_SHOOT)
        invlpg((void *)va);
    apic_eoi();
    return true;
}

static void second_processor(void) {
    sti();
    for (;;) {
        while (command == IDLE)
            pause_cpu();
        unsigned now = command;
        answer = 0;
        switch (now) {
        case COUNT: locked_count(); break;
        case CMPXCHG: compare_count(); break;
        case XCHG_LOCK: lock_count(); break;
        case ORDER: answer = read_in_order(); break;
        case SHOOT: read_until_remapped(); break;
        case MODIFY: call_until_changed(); break;
        case HALT: halt_until_ipi(); break;
        case STI_LOOP: sti_until_stopped(); break;
        default: break;
        }
        command = IDLE;
    }
}

static bool wait_idle(void) {
    uint64_t start = rdtsc();
    while (command != IDLE && rdtsc() - start < 20000000000ull)
        pause_cpu();
    return command == IDLE;
}

static void counters(void) {
    *(uint32_t *)(code + 4096 - 2) = 0;
    command = COUNT;
    locked_count();
    check_true("second_processor_counts", wait_idle());
    check("lock_inc", shared[0], 2 * ROUNDS);
    check("lock_xadd", shared[1], 2 * ROUNDS);
    check("lock_add_across_pages", *(uint32_t *)(code + 4096 - 2), 2 * (ROUNDS / 10));
    command = CMPXCHG;
    compare_count();
    check_true("second_processor_compares", wait_idle());
    check("lock_cmpxchg", shared[8], ROUNDS / 4 * 2);
    command = XCHG_LOCK;
    lock_count();
    check_true("second_processor_locks", wait_idle());
    check("xchg_spin_lock", shared[17], ROUNDS / 10 * 2);
}

static void ordering(void) {
    shared[25] = shared[32] = 0;
    command = ORDER;
    for (uint64_t i = 1; i <= ROUNDS; i++) {
        shared[32] = i;
        __asm__ volatile("" : : : "memory");
        shared[25] = i;
    }
    check_true("reader_ends", wait_idle());
    check("stores_stay_in_order", answer, 0);
}

static void interprocessor_interrupts(void) {
    unsigned late = 0;
    for (unsigned i = 1; i <= 1000; i++) {
        apic_ipi(1, V_IPI);
        uint64_t start = rdtsc();
        while (ipis[0] < i && rdtsc() - start < 4000000000ull)
            pause_cpu();
        late += ipis[0] != i;
    }
    check("ipis_arrive_once_each", late, 0);
    answer = 0;
    command = HALT;
    while (answer != 1)
        pause_cpu();
    for (unsigned i = 0; i < 100000; i++)
        pause_cpu();
    check("halted_processor_sleeps", command, HALT);
    apic_ipi(1, V_IPI);
    check_true("ipi_wakes_a_halted_processor", wait_idle());
    apic_ipi(0, 0xc0000 | V_IPI); /* all but self */
    uint64_t start = rdtsc();
    while (ipis[0] < 1002 && rdtsc() - start < 4000000000ull)
        pause_cpu();
    check("ipi_to_all_but_self", ipis[0], 1002);
}

static bool wait_for_shots(unsigned count) {
    uint64_t start = rdtsc();
    while (ipis[1] != count && rdtsc() - start < 4000000000ull)
        pause_cpu();
    return ipis[1] == count;
}

static void shoot_down(void) {
    unsigned wrong = 0;
    *(uint32_t *)pages[0] = 1;
    *(uint32_t *)pages[1] = 2;
    for (unsigned i = 0; i < 200; i++) {
        unsigned before = ipis[1];
        page_map(va, (uint64_t)pages[0], PAGE_P | PAGE_W);
        shared[40] = shared[41] = 0;
        command = SHOOT;
        while (!shared[40])
            pause_cpu();
        *page_entry(read_cr3(), va, 1) = (uint64_t)pages[1] | PAGE_P | PAGE_W;
        apic_ipi(1, V_SHOOT);
        wrong += !wait_for_shots(before + 1);
        uint64_t start = rdtsc();
        while (command != IDLE && rdtsc() - start < 4000000000ull)
            pause_cpu();
        shared[41] = 1;
        wrong += !wait_idle() || answer != 2;
        page_map(va, 0, 0);
        apic_ipi(1, V_SHOOT);
        wrong += !wait_for_shots(before + 2);
    }
    check("tlb_shoot_down", wrong, 0);
}

static void cross_modification(void) {
    unsigned late = 0;
    for (unsigned i = 0; i < 200; i++) {
        static const uint8_t return_1[] = {0xb8, 1, 0, 0, 0, 0xc3};
        memory_copy(code + 64, return_1, sizeof return_1);
        command = MODIFY;
        for (unsigned n = 0; n < 200; n++)
            pause_cpu();
        *(volatile uint8_t *)(code + 65) = 99;
        late += !wait_idle();
    }
    check("cross_modified_code_is_seen", late, 0);
}

/* Nothing comes between an STI and the next instruction, whatever the latter has to leave translated code for. */
static void nmis_and_sti(void) {
    static const uint8_t sti_nop_cli_ret[] = {0xfb, 0x90, 0xfa, 0xc3};
    memory_copy(code + 4095, sti_nop_cli_ret, sizeof sti_nop_cli_ret);
    shared[48] = 0;
    command = STI_LOOP;
    uint64_t start = rdtsc();
    unsigned sent = 0;
    while (sent < 20000 && rdtsc() - start < 5000000000ull) {
        apic_ipi(1, 0x4400);
        sent++;
        while (nmis != sent && rdtsc() - start < 40000000000ull)
            pause_cpu();
    }
    shared[48] = 1;
    check_true("sti_loop_ends", wait_idle());
    check("nmis_arrive_once_each", nmis, sent);
    check("no_nmi_behind_sti", nmis_behind_sti, 0);
}

int main(void) {
    trap_handlers[V_IPI] = trap_handlers[V_SHOOT] = take_ipi;
    trap_handlers[V_NMI] = take_nmi;
    code = pages_alloc(8192, 4096);
    pages[0] = page_alloc();
    pages[1] = page_alloc();
    pic_init(0x30);
    if (!smp_start(1, second_processor))
        die("second processor starts");
    check_true("second processor starts", true);
    counters();
    ordering();
    interprocessor_interrupts();
    shoot_down();
    cross_modification();
    nmis_and_sti();
    return 0;
}
