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

void engine_sleep(struct cpu *cpu) {
    atomic_store(&cpu->is_asleep, true);
    futex_wait(&cpu->requests, 0);
    atomic_store(&cpu->is_asleep, false);
}

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
