/* Starting other processors by INIT and SIPI (SDM vol. 3A, 9.4), for 64-bit programs. */
#include "guest.h"

extern uint8_t ap_trampoline[], ap_trampoline_end[];
extern uint64_t ap_stack, ap_root;
void ap_main(void);

static void (*volatile ap_entry)(void);
static volatile uint32_t ap_index, ap_started;

void ap_main(void) {
    void (*entry)(void) = ap_entry;
    cpu_tables_load(ap_index);
    apic_enable();
    ap_started = 1;
    entry();
}

bool smp_start(uint32_t apic_id, void (*entry)(void)) {
    memory_copy((void *)0x8000, ap_trampoline, (size_t)(ap_trampoline_end - ap_trampoline));
    ap_entry = entry;
    ap_index = apic_id;
    ap_stack = (uint64_t)pages_alloc(32768, 4096) + 32768 - 16;
    ap_root = read_cr3();
    ap_started = 0;
    apic_enable();
    apic_ipi(apic_id, 0x4500);
    uint64_t start = rdtsc();
    while (rdtsc() - start < 20000000)
        pause_cpu();
    apic_ipi(apic_id, 0x4608);
    start = rdtsc();
    while (!ap_started && rdtsc() - start < 10000000000ull)
        pause_cpu();
    return ap_started != 0;
}
