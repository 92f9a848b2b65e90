/*
 * Signals: delivery and return with all registers, faults with their addresses, an alternate stack, timers that
 * interrupt a loop, jumps out of a handler.
 */
#include "expect.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

static sigjmp_buf resume;
static volatile sig_atomic_t caught, ticks;
static void *volatile fault_address;
static volatile int fault_code;

static void jump_out(int signal, siginfo_t *info, void *context) {
    (void)context;
    caught = signal;
    fault_address = info->si_addr;
    fault_code = info->si_code;
    siglongjmp(resume, 1);
}

static void count_tick(int signal) {
    (void)signal;
    ticks++;
}

static void handle(int signal, void (*action)(int, siginfo_t *, void *)) {
    struct sigaction how = {.sa_sigaction = action, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    EXPECT(sigaction(signal, &how, NULL) == 0);
}

static void faults_tell_their_address(void) {
    long page = sysconf(_SC_PAGESIZE);
    char *none = mmap(NULL, (size_t)page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *read_only = mmap(NULL, (size_t)page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (volatile int i = 0; i < 300; i++) {
        if (!sigsetjmp(resume, 1)) {
            *(volatile char *)(none + i);
            EXPECT(!"a read of nothing went on");
        }
        EXPECT(caught == SIGSEGV && fault_address == none + i && fault_code == SEGV_ACCERR);
        if (!sigsetjmp(resume, 1)) {
            *(volatile char *)(read_only + i) = 1;
            EXPECT(!"a write to read-only memory went on");
        }
        EXPECT(caught == SIGSEGV && fault_address == read_only + i);
    }
    EXPECT(munmap(none, (size_t)page) == 0);
    if (!sigsetjmp(resume, 1))
        *(volatile char *)none = 1;
    EXPECT(fault_address == none && fault_code == SEGV_MAPERR);
}

static void exceptions_become_signals(void) {
    if (!sigsetjmp(resume, 1)) {
        __asm__ volatile("divl %0" : : "r"(0), "a"(1), "d"(0) : "cc");
        EXPECT(!"a division by zero went on");
    }
    EXPECT(caught == SIGFPE && fault_code == FPE_INTDIV);
    if (!sigsetjmp(resume, 1))
        __asm__ volatile("ud2");
    EXPECT(caught == SIGILL);
    if (!sigsetjmp(resume, 1))
        __asm__ volatile("int3");
    EXPECT(caught == SIGTRAP);
    if (!sigsetjmp(resume, 1))
        __asm__ volatile("hlt");
    EXPECT(caught == SIGSEGV);
    if (!sigsetjmp(resume, 1))
        abort();
    EXPECT(caught == SIGABRT);
}

static void registers_survive_ticks(void) {
    struct itimerval often = {.it_interval = {.tv_usec = 1000}, .it_value = {.tv_usec = 1000}}, off = {0};
    EXPECT(signal(SIGALRM, count_tick) != SIG_ERR);
    EXPECT(setitimer(ITIMER_REAL, &often, NULL) == 0);
    uint32_t state = 1;
    double sum = 0;
    long rounds = 0;
    for (; ticks < 100 || rounds < 2000000; rounds++) {
        state = state * 1664525u + 1013904223u;
        sum += (double)(state >> 8) * (1.0 / 16777216.0);
    }
    EXPECT(setitimer(ITIMER_REAL, &off, NULL) == 0);
    uint32_t again = 1;
    double second = 0;
    for (long i = 0; i < rounds; i++) {
        again = again * 1664525u + 1013904223u;
        second += (double)(again >> 8) * (1.0 / 16777216.0);
    }
    EXPECT(again == state && memcmp(&second, &sum, sizeof sum) == 0);
}

static void blocked_signals_wait(void) {
    sigset_t one, old;
    sigemptyset(&one);
    sigaddset(&one, SIGUSR1);
    EXPECT(signal(SIGUSR1, count_tick) != SIG_ERR);
    EXPECT(sigprocmask(SIG_BLOCK, &one, &old) == 0);
    ticks = 0;
    EXPECT(raise(SIGUSR1) == 0 && ticks == 0);
    EXPECT(sigsuspend(&old) == -1 && errno == EINTR && ticks == 1);
}

int main(void) {
    static char other_stack[65536];
    stack_t alternate = {.ss_sp = other_stack, .ss_size = sizeof other_stack};
    EXPECT(sigaltstack(&alternate, NULL) == 0);
    handle(SIGSEGV, jump_out);
    handle(SIGFPE, jump_out);
    handle(SIGILL, jump_out);
    handle(SIGTRAP, jump_out);
    handle(SIGABRT, jump_out);
    faults_tell_their_address();
    exceptions_become_signals();
    registers_survive_ticks();
    blocked_signals_wait();
    return 0;
}
