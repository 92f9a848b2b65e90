/*
 * Host faults in translated code: an unaligned SSE operand, a division error, a floating-point trap, an address that is
 * not canonical, or a full shadow stack. The handler only redirects: translated code "calls" the fault stub from the
 * faulting instruction, and dispatch.c turns it into a guest exception with the guest's state whole.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "translator/engine.h"

static _Thread_local void *signal_stack;

#define SIGNAL_STACK_SIZE (64u * 1024)

static bool is_stack_overflow(const struct cpu_translator *translator, uint64_t address) {
    for (unsigned i = 0; i < SHADOW_STACKS; i++)
        if (translator->stack_limit[i] - address <= MEMORY_PAGE && translator->stack_limit[i] != address)
            return true;
    return false;
}

/* Outer return addresses are lost, so those returns look their target up. */
static void empty_stack(struct cpu *cpu, greg_t *regs) {
    struct cpu_translator *translator = cpu_translator(cpu);
    uint64_t base = translator->stack_base[translator->stack];
    *(uint64_t *)base = cpu->engine->stubs.sentinel;
    regs[REG_RSP] = (greg_t)base;
}

/* Whether the fault was translated code's; the context then goes on where it should. */
static bool redirect(struct cpu *cpu, int number, const siginfo_t *info, ucontext_t *context) {
    greg_t *regs = context->uc_mcontext.gregs;
    uint64_t rip = (uint64_t)regs[REG_RIP];
    if (!code_cache_holds(&cpu->engine->cache, rip))
        return false;
    struct cpu_translator *translator = cpu_translator(cpu);
    if (number == SIGSEGV && is_stack_overflow(translator, (uint64_t)info->si_addr)) {
        empty_stack(cpu, regs);
        return true;
    }
    translator->fault.signal = number;
    translator->fault.code = info->si_code;
    translator->fault.address = (uint64_t)info->si_addr;
    translator->fault.is_write = number == SIGSEGV && (regs[REG_ERR] & 2);
    translator->fault.rip = rip;
    if (is_stack_overflow(translator, (uint64_t)regs[REG_RSP] - 8)) /* full to the last slot */
        empty_stack(cpu, regs);
    regs[REG_RSP] -= 8;
    *(uint64_t *)regs[REG_RSP] = rip;
    regs[REG_RIP] = (greg_t)cpu->engine->stubs.fault;
    return true;
}

static const int numbers[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
/* What the process did with them before, written once: it gets what is not the guest's. */
static struct sigaction previous[sizeof numbers / sizeof *numbers];

/* A bug of ours, or a signal that was sent: the instruction faults again, under the process's own action. */
static void give_back(int number, const siginfo_t *info) {
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (numbers[i] == number)
            sigaction(number, &previous[i], NULL);
    if (info->si_code <= 0)
        raise(number);
}

static void on_signal(int number, siginfo_t *info, void *context) {
    int saved = errno;
    if (!engine_current || !redirect(engine_current, number, info, context))
        give_back(number, info);
    errno = saved;
}

static void install_once(void) {
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    sigemptyset(&action.sa_mask);
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++)
        sigaction(numbers[i], &action, &previous[i]);
}

bool signals_install(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    return pthread_once(&once, install_once) == 0;
}

bool signals_attach(struct cpu *cpu) {
    engine_current = cpu;
    if (!cpu || signal_stack)
        return true;
    size_t size = SIGNAL_STACK_SIZE + (size_t)getauxval(AT_MINSIGSTKSZ);
    void *stack = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED)
        return false;
    stack_t alternate = {.ss_sp = stack, .ss_size = size};
    if (sigaltstack(&alternate, NULL) != 0) {
        munmap(stack, size);
        return false;
    }
    signal_stack = stack;
    /* A thread that runs a vCPU may have been made with every signal blocked, and a blocked fault kills the process. */
    sigset_t faults;
    sigemptyset(&faults);
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++)
        sigaddset(&faults, numbers[i]);
    pthread_sigmask(SIG_UNBLOCK, &faults, NULL);
    return true;
}
