/*
 * Native execution through signals: an invalid instruction enters the handler, which replaces the interrupted context
 * by the test's state (64-bit code, or 32-bit code by way of the compatibility code segment); the int3 behind the code,
 * or its fault, enters the handler again, which takes the state down and puts the first context back.
 */
#include "isa_native.h"

#include <asm/ldt.h>
#include <asm/prctl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { LINUX_CS32 = 0x23, LINUX_CS64 = 0x33, LINUX_SS = 0x2b, ALT_STACK = 262144, FLAGS_AC = 0x40000 };
enum { FLAGS_NT_ID = 0x204000, VECTOR_PF = 14 };
/* Entries of the local descriptor table: the segments of 16-bit code. */
enum { LDT_CS = 0x07, LDT_DS = 0x0f, LDT_ES = 0x17, LDT_SS = 0x1f };

/* A signal handler reaches its data in no other way. */
static struct {
    struct isa_record *record; /* being loaded or run; NULL: none */
    struct isa_vectors *vectors;
    bool is_running;
    gregset_t caller;
    uint8_t caller_xsave[ISA_XSAVE_SIZE];
    uint32_t xsave_size;
    uint64_t xcr0;
} native;

static const int gpr_index[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                  REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

static void load(ucontext_t *context) {
    greg_t *regs = context->uc_mcontext.gregs;
    uint8_t *image = (uint8_t *)context->uc_mcontext.fpregs;
    struct isa_record *record = native.record;
    memcpy(native.caller, regs, sizeof native.caller);
    memcpy(native.caller_xsave, image, native.xsave_size);
    for (unsigned i = 0; i < 16; i++)
        regs[gpr_index[i]] = (greg_t)record->before.gpr[i];
    regs[REG_RIP] = (greg_t)record->before.ip;
    regs[REG_EFL] = (greg_t)record->before.flags;
    uint64_t cs = record->bits == 16 ? LDT_CS : record->bits == 32 ? LINUX_CS32 : LINUX_CS64;
    uint64_t ss = record->bits == 16 ? LDT_SS : LINUX_SS;
    regs[REG_CSGSFS] = (greg_t)(((uint64_t)regs[REG_CSGSFS] & 0x0000ffffffff0000u) | cs | ss << 48);
    isa_vectors_to_xsave(native.vectors, native.xcr0, image);
}

static void store(ucontext_t *context) {
    greg_t *regs = context->uc_mcontext.gregs;
    uint8_t *image = (uint8_t *)context->uc_mcontext.fpregs;
    struct isa_record *record = native.record;
    for (unsigned i = 0; i < 16; i++)
        record->after.gpr[i] = (uint64_t)regs[gpr_index[i]];
    record->after.ip = (uint64_t)regs[REG_RIP];
    record->after.flags = (uint64_t)regs[REG_EFL];
    record->vector = (uint64_t)regs[REG_TRAPNO];
    record->error = (uint64_t)regs[REG_ERR];
    record->cr2 = record->vector == VECTOR_PF ? (uint64_t)regs[REG_CR2] : 0;
    isa_vectors_from_xsave(native.vectors, native.xcr0, image);
    memcpy(image, native.caller_xsave, native.xsave_size);
    memcpy(regs, native.caller, sizeof native.caller);
    regs[REG_RIP] += 2; /* behind the ud2 of isa_native_run */
}

static void on_signal(int number, siginfo_t *info, void *context) {
    (void)info;
    /* Linux leaves AC as the test's POPF has set it. */
    __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() & ~(unsigned long long)FLAGS_AC);
    if (!native.record)
        _exit(100 + number);
    if (!native.is_running) {
        native.is_running = true;
        load(context);
    } else {
        store(context);
        native.is_running = false;
        native.record = NULL;
    }
}

uint64_t isa_native_xcr0(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low & ISA_XCR0;
}

static uint32_t xsave_size_enabled(void) {
    uint32_t a = 0xd, b, c = 0, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    uint32_t size = 2696; /* what AVX-512 ends at; dynamic components such as AMX are not in the frame */
    return b < size ? b : size;
}

static bool map_fixed(uintptr_t address, size_t size) {
    int protection = PROT_READ | PROT_WRITE | (address == ISA_CODE_PAGE ? PROT_EXEC : 0);
    return mmap((void *)address, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) ==
           (void *)address;
}

bool isa_native_has_16_bit_segments(void) {
    static const struct {
        unsigned entry, base, limit, contents;
    } segments[] = {
        {LDT_CS >> 3, ISA_CS16_BASE, ISA_LIMIT16, MODIFY_LDT_CONTENTS_CODE},
        {LDT_DS >> 3, ISA_DS16_BASE, ISA_LIMIT16, MODIFY_LDT_CONTENTS_DATA},
        {LDT_ES >> 3, ISA_ES16_BASE, ISA_ES16_LIMIT, MODIFY_LDT_CONTENTS_DATA},
        {LDT_SS >> 3, ISA_SS16_BASE, ISA_LIMIT16, MODIFY_LDT_CONTENTS_DATA},
    };
    for (size_t i = 0; i < sizeof segments / sizeof *segments; i++) {
        struct user_desc segment = {.entry_number = segments[i].entry, .base_addr = segments[i].base,
                                    .limit = segments[i].limit, .contents = segments[i].contents & 3};
        if (syscall(SYS_modify_ldt, 0x11, &segment, sizeof segment) != 0)
            return false;
    }
    return true;
}

bool isa_native_init(void) {
    static const int signals[] = {SIGTRAP, SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    stack_t stack = {.ss_sp = malloc(ALT_STACK), .ss_size = ALT_STACK};
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    if (!stack.ss_sp || !map_fixed(ISA_CODE_PAGE, 4096) || !map_fixed(ISA_DATA, ISA_DATA_SIZE) ||
        sigaltstack(&stack, NULL) < 0)
        return false;
    sigfillset(&action.sa_mask);
    sigdelset(&action.sa_mask, SIGPROF);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        if (sigaction(signals[i], &action, NULL) < 0)
            return false;
    native.xcr0 = isa_native_xcr0();
    native.xsave_size = xsave_size_enabled();
    return syscall(SYS_arch_prctl, ARCH_SET_GS, (unsigned long)ISA_GS_BASE) == 0;
}

void isa_native_run(struct isa_record *record, struct isa_vectors *vectors, uint8_t data[ISA_DATA_SIZE]) {
    memset((void *)(uintptr_t)ISA_CODE_PAGE, 0xcc, 4096);
    memcpy((void *)(uintptr_t)ISA_CODE, record->code, record->code_length);
    bool is_16bit = record->bits == 16;
    isa_fill_data(record, (uint8_t *)(uintptr_t)ISA_DATA);
    isa_fill_vectors(record, vectors);
    /* A popf of the test before may have left NT or ID, which signal frames do not restore. */
    __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() & ~(unsigned long long)FLAGS_NT_ID);
    native.vectors = vectors;
    native.record = record;
    /* 64-bit code, such as this, ignores DS and ES. */
    __asm__ volatile("mov %0, %%ds; mov %1, %%es; ud2"
                     : : "r"(is_16bit ? LDT_DS : LINUX_SS), "r"(is_16bit ? LDT_ES : LINUX_SS) : "memory", "cc");
    memcpy(data, (void *)(uintptr_t)ISA_DATA, ISA_DATA_SIZE);
}
