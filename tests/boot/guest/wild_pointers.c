/*
 * Accesses of many forms at addresses where nothing is: at the edges of regions of 1 TiB, of the canonical halves and of
 * 4 GiB, and at good addresses with wrong upper bits. Each one faults and none reads or writes anything, before and
 * after the program has run for long enough that its memory may be mapped for direct access.
 */
#include "expect.h"

#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

static sigjmp_buf resume;
static char good[8192] __attribute__((aligned(4096)));
static volatile long sum;

static void jump_out(int signal) {
    (void)signal;
    siglongjmp(resume, 1);
}

/* ---- Forms ---- */

static void read_byte(uintptr_t at) {
    sum += *(volatile char *)at;
}
static void write_word(uintptr_t at) {
    *(volatile long *)at = 1;
}
static void add_locked(uintptr_t at) {
    __atomic_fetch_add((long *)at, 1, __ATOMIC_SEQ_CST);
}
static void read_behind(uintptr_t at) {
    sum += *(volatile char *)((volatile char *)(at - 0xffff0) + 0xffff0);
}
static void read_before(uintptr_t at) {
    __asm__ volatile("movb -0xffff0(%0), %%al" : : "r"(at + 0xffff0) : "eax", "memory");
}
static void read_indexed(uintptr_t at) {
    uintptr_t index = (at - (uintptr_t)good) / 8, rest = (at - (uintptr_t)good) % 8;
    __asm__ volatile("movb (%0,%1,8), %%al" : : "r"(good + rest), "r"(index) : "eax", "memory");
}
__attribute__((target("sse2"))) static void read_vector(uintptr_t at) {
    __asm__ volatile("movups (%0), %%xmm0" : : "r"(at) : "xmm0", "memory");
}
static void copy_from(uintptr_t at) {
    char to[64];
    void *target = to;
    size_t count = sizeof to;
    __asm__ volatile("rep movsb" : "+D"(target), "+S"(at), "+c"(count) : : "memory");
}
static void copy_to(uintptr_t at) {
    const void *from = good;
    size_t count = 64;
    __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(count) : : "memory");
}
static void fill(uintptr_t at) {
    size_t count = 16;
    __asm__ volatile("rep stosl" : "+D"(at), "+c"(count) : "a"(0) : "memory");
}
static void walk_up(uintptr_t at) {
    for (const volatile char *byte = (const volatile char *)at;; byte += 4096)
        sum += *byte;
}
static void test_bit(uintptr_t at) {
    __asm__ volatile("bts %1, (%0)" : : "r"(good), "r"((at - (uintptr_t)good) * 8) : "memory", "cc");
}
static void call_there(uintptr_t at) {
    ((void (*)(void))at)();
}

static void (*const forms[])(uintptr_t) = {read_byte,   write_word, add_locked, read_behind, read_before, read_indexed,
                                           read_vector, copy_from,  copy_to,    fill,        walk_up,     call_there};

static int faults(void (*form)(uintptr_t), uintptr_t at) {
    if (sigsetjmp(resume, 1))
        return 1;
    form(at);
    return 0;
}

static unsigned tried;

static void try_at(uintptr_t at) {
    for (unsigned i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (!faults(forms[i], at)) {
            printf("form %u went through at %#lx\n", i, (unsigned long)at);
            EXPECT(0);
        }
        tried++;
    }
}

/* ---- Addresses ---- */

static void try_all(void) {
    static const int offsets[] = {-4096, -64, -8, -1, 0, 8, 4096};
#ifdef __x86_64__
    uintptr_t stack = (uintptr_t)__builtin_frame_address(0);
    for (unsigned region = 1; region < 0x7e; region += 7)
        for (unsigned i = 0; i < sizeof offsets / sizeof *offsets; i++)
            try_at(((uintptr_t)region << 40) + (uintptr_t)offsets[i]);
    for (unsigned i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        try_at(0x800000000000u + (uintptr_t)offsets[i]);
        try_at(0xffff800000000000u + (uintptr_t)offsets[i]);
        try_at(0xffffffff80000000u + (uintptr_t)offsets[i]);
        try_at(0x8000000000000000u + (uintptr_t)offsets[i]);
    }
    for (unsigned bit = 47; bit < 64; bit++) {
        try_at((uintptr_t)good ^ (uintptr_t)1 << bit);
        try_at(stack ^ (uintptr_t)1 << bit);
        try_at((uintptr_t)good | ~(uintptr_t)0 << bit);
    }
#else
    for (unsigned i = 0; i < sizeof offsets / sizeof *offsets; i++)
        try_at(0xc0000000u + 8192 + (uintptr_t)offsets[i]);
#endif
    for (unsigned i = 0; i < sizeof offsets / sizeof *offsets; i++)
        try_at((uintptr_t)offsets[i] == (uintptr_t)-4096 ? 16 : (uintptr_t)4096 + (uintptr_t)offsets[i]);
    EXPECT(faults(test_bit, 0x1000));
}

static void work(void) {
    struct timespec begin, now;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    do {
        for (unsigned i = 0; i < 100000; i++)
            good[i % sizeof good] ^= (char)i;
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((now.tv_sec - begin.tv_sec) * 1000000000LL + now.tv_nsec - begin.tv_nsec < 60000000);
}

int main(void) {
    static char stack[65536];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_handler = jump_out, .sa_flags = SA_ONSTACK};
    EXPECT(sigaltstack(&alternate, NULL) == 0);
    EXPECT(sigaction(SIGSEGV, &action, NULL) == 0 && sigaction(SIGBUS, &action, NULL) == 0);
    try_all();
    work();
    memset(good, 0x5a, sizeof good);
    try_all();
    for (unsigned i = 0; i < sizeof good; i++)
        EXPECT(good[i] == 0x5a);
    EXPECT(tried > 100);
    return 0;
}
