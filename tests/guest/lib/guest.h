/*
 * What every guest program of this folder stands on: reporting, port and register access, running a snippet from a
 * given state to its end or fault, page tables, and the interrupt controllers.
 *
 * A program reports through the debug port E9h, one line a check, and ends through isa-debug-exit at F4h with 0 or 1.
 * The same header serves 32- and 64-bit programs; `word` is the width of a register.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uintptr_t word;

#ifdef __x86_64__
enum { GPRS = 16, WIDTH = 64 };
enum {
    CODE_SELECTOR = 0x08, DATA_SELECTOR = 0x10, CODE32_SELECTOR = 0x18, USER32_SELECTOR = 0x23, USER_DATA = 0x2b,
    USER_CODE = 0x33, CODE16_SELECTOR = 0x38, DATA16_SELECTOR = 0x40, SPARE_SELECTOR = 0x48, TSS_SELECTOR = 0x60
};
#define USER_ALIAS 0x100000000ull /* the first 64 MiB again, for CPL 3 */
#define WINDOW     0x8000000000ull /* free for tests: a top-level entry of its own */
#else
enum { GPRS = 8, WIDTH = 32 };
enum {
    CODE_SELECTOR = 0x08, DATA_SELECTOR = 0x10, USER_CODE = 0x1b, USER_DATA = 0x23, CODE16_SELECTOR = 0x28,
    DATA16_SELECTOR = 0x30, TSS_SELECTOR = 0x38, SPARE_SELECTOR = 0x40
};
#define WINDOW     0x90000000u
#endif

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };

enum {
    CF = 1, PF = 4, AF = 0x10, ZF = 0x40, SF = 0x80, TF = 0x100, IF = 0x200, DF = 0x400, OF = 0x800, NT = 0x4000,
    RF = 0x10000, VM = 0x20000, AC = 0x40000, ID = 0x200000, FIXED = 2, ARITHMETIC = CF | PF | AF | ZF | SF | OF
};

enum {
    V_DE = 0, V_DB = 1, V_NMI = 2, V_BP = 3, V_OF = 4, V_BR = 5, V_UD = 6, V_NM = 7, V_DF = 8, V_TS = 10, V_NP = 11,
    V_SS = 12, V_GP = 13, V_PF = 14, V_MF = 16, V_AC = 17, V_XM = 19,
    V_END = 0x20, /* a snippet's own way out: int $0x20 */
};

/* ---- reporting (report.c) ---- */
void print(const char *text);
void print_hex(uint64_t value);
/* "ok NAME", or "not ok NAME: got .. want ..". */
void check(const char *name, uint64_t got, uint64_t want);
void check_true(const char *name, bool is_true);
/* The same with a qualifier behind the name: "NAME (DETAIL)". */
void check_detail(const char *name, const char *detail, uint64_t got, uint64_t want);
/* Counts quietly; for loops of thousands: prints only failures, and these at most 100 times. */
void check_quiet(const char *name, uint64_t got, uint64_t want);
void check_quiet_detail(const char *name, const char *detail, uint64_t got, uint64_t want);
void skip(const char *name, const char *why);
_Noreturn void finish(void);
_Noreturn void die(const char *why);

/* ---- state and traps (trap.c, trap64.S, trap32.S) ---- */
struct state {
    word gpr[GPRS];
    word ip, cs, flags, sp, ss;
    word ds, es, fs, gs; /* 32-bit programs only */
    word vector, error, cr2;
};

/* A state that fills every register with a pattern of its own, at CPL 0, stack at `snippet_stack_top`. */
void state_init(struct state *state, const void *code);
/* The same at CPL 3; 64-bit programs run the code at its alias in USER_ALIAS. */
void state_init_user(struct state *state, const void *code);
/* Enters *state; comes back with the state at the first trap that no handler took. */
void run(struct state *state);

/* True: resume from *state; false: end the run. Set for one vector; NULL: ends the run. */
typedef bool trap_handler(struct state *state);
extern trap_handler *trap_handlers[256];

extern uint8_t snippet_stack_top[];

/* code: `name` runs BEFORE, then the instruction of interest at name_at; name_end is behind it. */
#define SNIPPET(name, before, instruction)                                                                             \
    __asm__(".pushsection .text.snippet, \"ax\"\n.globl " #name ", " #name "_at, " #name "_end\n" #name ":\n" before    \
            "\n" #name "_at:\n" instruction "\n" #name "_end:\nint $0x20\n.popsection");                               \
    extern const uint8_t name[], name##_at[], name##_end[]

/* ---- processor ---- */
static inline void out8(uint16_t port, uint8_t value) {
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}
static inline void out16(uint16_t port, uint16_t value) {
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}
static inline void out32(uint16_t port, uint32_t value) {
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}
static inline uint8_t in8(uint16_t port) {
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}
static inline uint16_t in16(uint16_t port) {
    uint16_t value;
    __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}
static inline uint32_t in32(uint16_t port) {
    uint32_t value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}
static inline uint64_t rdtsc(void) {
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}
static inline uint64_t rdmsr(uint32_t index) {
    uint32_t low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index));
    return (uint64_t)high << 32 | low;
}
static inline void wrmsr(uint32_t index, uint64_t value) {
    __asm__ volatile("wrmsr" : : "c"(index), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)) : "memory");
}
struct cpuid_regs {
    uint32_t a, b, c, d;
};
static inline struct cpuid_regs cpuid(uint32_t leaf, uint32_t subleaf) {
    struct cpuid_regs r;
    __asm__ volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(subleaf));
    return r;
}
#define CONTROL_REGISTER(n)                                                                                            \
    static inline word read_cr##n(void) {                                                                              \
        word value;                                                                                                    \
        __asm__ volatile("mov %%cr" #n ", %0" : "=r"(value));                                                          \
        return value;                                                                                                  \
    }                                                                                                                  \
    static inline void write_cr##n(word value) {                                                                       \
        __asm__ volatile("mov %0, %%cr" #n : : "r"(value) : "memory");                                                 \
    }
CONTROL_REGISTER(0)
CONTROL_REGISTER(2)
CONTROL_REGISTER(3)
CONTROL_REGISTER(4)
static inline void invlpg(const void *address) {
    __asm__ volatile("invlpg (%0)" : : "r"(address) : "memory");
}
static inline void sti(void) {
    __asm__ volatile("sti" : : : "memory");
}
static inline void cli(void) {
    __asm__ volatile("cli" : : : "memory");
}
static inline void halt(void) {
    __asm__ volatile("hlt" : : : "memory");
}
static inline void pause_cpu(void) {
    __asm__ volatile("pause" : : : "memory");
}

/* Runs one instruction of C inline assembly is not possible under a trap; these give the vector, or -1 for none. */
int try_rdmsr(uint32_t index, uint64_t *value);
int try_wrmsr(uint32_t index, uint64_t value);

void *memory_copy(void *to, const void *from, size_t length);
void *memory_set(void *to, int value, size_t length);
int memory_compare(const void *a, const void *b, size_t length);

/* A repeatable sequence; the state is the caller's, never 0. */
uint64_t random_next(uint64_t *state);

/* ---- memory (pages.c) and the page tables of 64-bit programs (paging64.c) ---- */
enum {
    PAGE_P = 1, PAGE_W = 2, PAGE_U = 4, PAGE_PCD = 16, PAGE_A = 32, PAGE_D = 64, PAGE_PS = 128, PAGE_G = 256
};
#define PAGE_NX (1ull << 63)
/* A zeroed, page-aligned page of RAM, never given back. */
void *page_alloc(void);
/* An aligned run of pages, for large pages. */
void *pages_alloc(size_t bytes, size_t alignment);
/* The entry that maps `va` at `level` (1: 4 KiB .. 4), tables above made as needed with all rights. */
uint64_t *page_entry(uint64_t root, uint64_t va, unsigned level);
void page_map(uint64_t va, uint64_t pa, uint64_t flags);
/* A copy of the current top-level table. */
uint64_t page_clone_root(void);

/* ---- interrupt controllers (apic.c) ---- */
uint32_t apic_read(unsigned offset);
void apic_write(unsigned offset, uint32_t value);
void apic_enable(void);
void apic_eoi(void);
void apic_ipi(uint32_t destination, uint32_t low);
void pic_init(uint8_t base);
void pic_mask(uint16_t mask);
void pic_eoi(unsigned line);
void pit_periodic(uint16_t divisor);
void pit_oneshot(uint16_t count);

/* ---- other processors of the 64-bit programs (smp.c) ---- */
/* Starts processor `apic_id` in `entry` on a stack of its own, interrupts off; false when it does not come within 5 s. */
bool smp_start(uint32_t apic_id, void (*entry)(void));
/* Makes the calling processor's GDT, IDT and TSS current. */
void cpu_tables_load(unsigned index);

extern uint32_t multiboot_info;
int main(void);

#endif
