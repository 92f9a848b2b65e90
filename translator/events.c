/*
 * What other threads, and devices on the vCPU's own, ask of a virtual CPU, and the way from light callbacks to any C
 * function. Light code.
 */
#include "cpu/model.h"
#include "memory/futex.h"
#include "translator/machine.h"

#define EXPORT __attribute__((visibility("default")))

_Thread_local struct cpu *engine_current;

void engine_wake(struct cpu *cpu, uint32_t request) {
    atomic_fetch_or(&cpu->requests, request);
    __atomic_store_n(&cpu->hot.run, 0, __ATOMIC_SEQ_CST);
    if (atomic_load(&cpu->is_asleep)) /* which is set before the word is looked at again */
        futex_wake(&cpu->requests, INT32_MAX);
}

/* ---- Sleep ---- */

enum { FIRST_POLL = 20000, MOST_POLL = 200000 }; /* cycles of the host */

static uint64_t host_cycles(void) {
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

/* Whether another vCPU may be about to wake this one, and the host has a CPU for each of them and for those who poll. */
static bool may_poll(const struct idle_vcpus *idle, unsigned vcpus) {
    unsigned awake = vcpus - atomic_load_explicit(&idle->count, memory_order_relaxed);
    return awake && awake + atomic_load_explicit(&idle->polling, memory_order_relaxed) <= idle->host_cpus;
}

/* Looks at the word for a while. True: there is a request. */
static bool poll(struct cpu *cpu, uint64_t start) {
    struct idle_vcpus *idle = &cpu->engine->idle;
    bool is_awoken = false;
    atomic_fetch_add(&idle->polling, 1);
    while (may_poll(idle, cpu->engine->vcpu_count) && host_cycles() - start < cpu_translator(cpu)->poll_cycles) {
        is_awoken = atomic_load_explicit(&cpu->requests, memory_order_relaxed);
        if (is_awoken)
            break;
        __asm__ volatile("pause");
    }
    atomic_fetch_sub(&idle->polling, 1);
    return is_awoken;
}

/*
 * Having the host put a thread to sleep and wake it on another CPU takes tens of microseconds, more than many a guest
 * waits for what another of its processors does. So a vCPU that was woken soon the last times polls first.
 */
void engine_sleep(struct cpu *cpu) {
    uint64_t *limit = &cpu_translator(cpu)->poll_cycles, start = host_cycles();
    atomic_fetch_add(&cpu->engine->idle.count, 1);
    bool has_polled = *limit && poll(cpu, start);
    if (!has_polled) {
        atomic_store(&cpu->is_asleep, true);
        futex_wait(&cpu->requests, 0);
        atomic_store(&cpu->is_asleep, false);
    }
    atomic_fetch_sub(&cpu->engine->idle.count, 1);
    if (host_cycles() - start > MOST_POLL)
        *limit /= 2;
    else if (!has_polled)
        *limit = *limit < FIRST_POLL ? FIRST_POLL : *limit < MOST_POLL / 2 ? 2 * *limit : MOST_POLL;
    if (*limit < FIRST_POLL)
        *limit = 0;
}

/* ---- For devices ---- */

EXPORT uint64_t trapeze_call_full(uint64_t (*fn)(void *argument), void *argument) {
    return engine_current ? engine_call_full(engine_current, fn, argument) : fn(argument);
}

/* A second NMI before the first one is taken is a bit of its own. */
static void request_nmi(struct cpu *cpu) {
    uint32_t before = atomic_load(&cpu->requests);
    while (!atomic_compare_exchange_weak(&cpu->requests, &before,
                                         before | (before & REQUEST_NMI ? REQUEST_NMI_AGAIN : REQUEST_NMI)))
        ;
}

EXPORT void trapeze_vcpu_signal(struct trapeze_vcpu *vcpu, enum trapeze_signal signal, unsigned vector) {
    static const uint32_t request[] = {
        [TRAPEZE_SIGNAL_NMI] = 0, /* request_nmi */
        [TRAPEZE_SIGNAL_INIT] = REQUEST_INIT,
        [TRAPEZE_SIGNAL_SIPI] = REQUEST_SIPI,
        [TRAPEZE_SIGNAL_RESET] = REQUEST_RESET,
    };
    if (signal == TRAPEZE_SIGNAL_SIPI)
        vcpu->cpu->sipi_vector = (uint8_t)vector;
    if (signal == TRAPEZE_SIGNAL_NMI)
        request_nmi(vcpu->cpu);
    engine_wake(vcpu->cpu, request[signal]);
}

EXPORT void trapeze_vcpu_set_intr(struct trapeze_vcpu *vcpu, bool asserted) {
    uint32_t before = atomic_exchange(&vcpu->cpu->intr, asserted);
    if (asserted && !before)
        engine_wake(vcpu->cpu, REQUEST_INTR);
}

EXPORT bool trapeze_vcpu_get_msr(struct trapeze_vcpu *vcpu, uint32_t index, uint64_t *value) {
    return cpu_read_msr(vcpu->cpu, index, value);
}
