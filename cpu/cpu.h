/*
 * The architectural state of one virtual CPU, and what every part of cpu/ shares.
 *
 * struct cpu lives in pages of a memfd that are mapped once more in front of each of the vCPU's views (memory/view.h),
 * so that translated code reaches both from one base register. While translated code runs, the guest's general
 * registers and arithmetic flags are in host registers and the fields here are stale; every C function of cpu/ is
 * called with all of it written back ("full state") and may change all of it.
 *
 * Code in cpu/ and memory/ is compiled with general registers only: the guest's vector state stays in the host's vector
 * registers while it runs. It must not call libc (memcpy included: cpu_copy); whatever needs libc or another library is
 * called through cpu->call_full.
 */
#ifndef CPU_CPU_H
#define CPU_CPU_H

#include <stdatomic.h>

#include "memory/view.h"
#include "trapeze/trapeze.h"

struct cpu_op;
struct machine_memory;

enum cpu_register {
    CPU_RAX, CPU_RCX, CPU_RDX, CPU_RBX, CPU_RSP, CPU_RBP, CPU_RSI, CPU_RDI,
    CPU_R8, CPU_R9, CPU_R10, CPU_R11, CPU_R12, CPU_R13, CPU_R14, CPU_R15,
    CPU_REGISTERS,
    CPU_NO_REGISTER = 0xff
};

/* Segment registers in encoding order. */
enum cpu_segment {
    CPU_ES = TRAPEZE_ES, CPU_CS = TRAPEZE_CS, CPU_SS = TRAPEZE_SS, CPU_DS = TRAPEZE_DS, CPU_FS = TRAPEZE_FS,
    CPU_GS = TRAPEZE_GS, CPU_SEGMENTS = TRAPEZE_SEGMENTS
};

/* RFLAGS (SDM vol. 1, 3.4.3) */
enum {
    FLAG_CF = 1 << 0, FLAG_FIXED = 1 << 1, FLAG_PF = 1 << 2, FLAG_AF = 1 << 4, FLAG_ZF = 1 << 6, FLAG_SF = 1 << 7,
    FLAG_TF = 1 << 8, FLAG_IF = 1 << 9, FLAG_DF = 1 << 10, FLAG_OF = 1 << 11, FLAG_IOPL = 3 << 12, FLAG_NT = 1 << 14,
    FLAG_RF = 1 << 16, FLAG_VM = 1 << 17, FLAG_AC = 1 << 18, FLAG_VIF = 1 << 19, FLAG_VIP = 1 << 20, FLAG_ID = 1 << 21,
    FLAG_ARITHMETIC = FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF,
};

/* Control registers (SDM vol. 3A, 2.5) */
#define CR0_PE (1ull << 0)
#define CR0_MP (1ull << 1)
#define CR0_EM (1ull << 2)
#define CR0_TS (1ull << 3)
#define CR0_ET (1ull << 4)
#define CR0_NE (1ull << 5)
#define CR0_WP (1ull << 16)
#define CR0_AM (1ull << 18)
#define CR0_NW (1ull << 29)
#define CR0_CD (1ull << 30)
#define CR0_PG (1ull << 31)
#define CR4_VME (1ull << 0)
#define CR4_PVI (1ull << 1)
#define CR4_TSD (1ull << 2)
#define CR4_DE (1ull << 3)
#define CR4_PSE (1ull << 4)
#define CR4_PAE (1ull << 5)
#define CR4_MCE (1ull << 6)
#define CR4_PGE (1ull << 7)
#define CR4_PCE (1ull << 8)
#define CR4_OSFXSR (1ull << 9)
#define CR4_OSXMMEXCPT (1ull << 10)
#define CR4_UMIP (1ull << 11)
#define CR4_LA57 (1ull << 12)
#define CR4_FSGSBASE (1ull << 16)
#define CR4_PCIDE (1ull << 17)
#define CR4_OSXSAVE (1ull << 18)
#define CR4_SMEP (1ull << 20)
#define CR4_SMAP (1ull << 21)
#define CR4_PKE (1ull << 22)
#define EFER_SCE (1ull << 0)
#define EFER_LME (1ull << 8)
#define EFER_LMA (1ull << 10)
#define EFER_NXE (1ull << 11)

/* Exception vectors (SDM vol. 3A, table 6-1) */
enum cpu_vector {
    VECTOR_DE = 0, VECTOR_DB = 1, VECTOR_NMI = 2, VECTOR_BP = 3, VECTOR_OF = 4, VECTOR_BR = 5, VECTOR_UD = 6,
    VECTOR_NM = 7, VECTOR_DF = 8, VECTOR_TS = 10, VECTOR_NP = 11, VECTOR_SS = 12, VECTOR_GP = 13, VECTOR_PF = 14,
    VECTOR_MF = 16, VECTOR_AC = 17, VECTOR_MC = 18, VECTOR_XM = 19,
};

/* Segment attributes in trapeze_segment.attributes. */
enum {
    SEGMENT_TYPE = 0xf, SEGMENT_ACCESSED = 1, SEGMENT_WRITABLE = 2, SEGMENT_READABLE = 2, SEGMENT_EXPAND_DOWN = 4,
    SEGMENT_CONFORMING = 4, SEGMENT_CODE = 8, SEGMENT_S = 1 << 4, SEGMENT_DPL_SHIFT = 5, SEGMENT_P = 1 << 7,
    SEGMENT_L = 1 << 13, SEGMENT_DB = 1 << 14, SEGMENT_G = 1 << 15, SEGMENT_UNUSABLE = 1 << 16,
};

/* How a C function of cpu/ ended. */
enum cpu_result {
    CPU_NEXT,  /* done; go on behind the instruction. The caller advances rip */
    CPU_JUMP,  /* done; rip is set, and CPL, mode or paging may have changed */
    CPU_FAULT, /* cpu->exception is to be delivered; nothing else of the state changed (but for what the manual says) */
    CPU_STOP,  /* done, rip set; leave translated code: cpu->stop says why */
};

enum cpu_stop {
    CPU_STOP_NONE,
    CPU_STOP_HALT,     /* HLT, or MWAIT taken as one; rip is behind it */
    CPU_STOP_SHUTDOWN, /* triple fault */
    CPU_STOP_CHECK,    /* look at pending interrupts and requests before the next instruction */
    CPU_STOP_IO,       /* cpu->io.read waits for the caller's answer */
    CPU_STOP_WAIT,     /* as HALT, with rip at the instruction: an x87 error is told to whoever sends IRQ 13 */
    CPU_STOP_DEBUG,    /* the debugger's breakpoint, watchpoint or step */
};

struct cpu_exception {
    uint8_t vector;
    bool has_error_code;
    uint32_t error_code;
    uint64_t cr2;       /* VECTOR_PF: the faulting linear address */
    uint64_t dr6;       /* VECTOR_DB: the bits to set in DR6 */
    bool is_software;   /* INT n, INT3, INTO, INT1: rip is behind it, and gates' DPL counts */
    bool is_trap;       /* pushes rip as it is, and not with RF set */
};

/* Bits of cpu->requests, ORed in by any thread. */
enum {
    REQUEST_INTR = 1,  /* the INTR pin may have changed: see cpu->intr */
    REQUEST_NMI = 2,
    REQUEST_INIT = 4,
    REQUEST_SIPI = 8,
    REQUEST_RESET = 16,
    REQUEST_KICK = 32,
    REQUEST_SAFEPOINT = 64, /* another vCPU wants everyone out of translated code */
    REQUEST_STALE = 128,    /* cpu->stale has entries */
    REQUEST_FLUSH = 256,    /* guest-physical memory changed its meaning: drop cached translations */
    REQUEST_NMI_AGAIN = 512, /* an NMI came while REQUEST_NMI was set */
};

#define CPU_IO_REQUESTS 16

struct cpu_io_request {
    enum trapeze_space space;
    unsigned size;
    bool is_write;
    uint64_t address, value;
};

/* Accesses that nobody in the process claims (cpu/io.h). */
struct cpu_io {
    bool waiting;                /* `read` needs an answer; the instruction is at `rip` again */
    struct cpu_io_request read;
    uint32_t answered, next;     /* answers of the current instruction, and the first unused one */
    uint64_t answer[CPU_IO_REQUESTS];
    uint32_t write_count;        /* writes to tell the caller */
    struct cpu_io_request write[CPU_IO_REQUESTS];
    uint64_t rip, rflags, gpr[CPU_REGISTERS]; /* before the instruction */
};

#define CPU_BREAKPOINTS 64

/* What the debugger of trapeze_vcpu_set_debug asked for, and what it hit. */
struct cpu_debug {
    bool single_step, hit;
    uint32_t count;
    uint64_t hit_address;
    struct trapeze_breakpoint point[CPU_BREAKPOINTS];
};

/* Model specific registers that are plain storage or nearly so. */
struct cpu_msrs {
    uint64_t efer, star, lstar, cstar, sfmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t tsc_aux, tsc_adjust, pat, misc_enable, spec_ctrl, debugctl, feature_control, xss;
    uint64_t mtrr_def_type, mtrr_fixed[11], mtrr_base[8], mtrr_mask[8];
    uint64_t mcg_status, mcg_ctl, microcode;
};

/* What the x87 remembers of its last instruction, as far as it is known (cpu/x87.c). */
struct cpu_x87 {
    uint64_t instruction, data; /* offsets in their segments */
    uint16_t code_selector, data_selector, opcode;
    bool is_noted; /* the exception that this instruction left is */
};

/* An x87 instruction in translated code. */
struct cpu_x87_place {
    uint64_t rip;
    uint16_t opcode;  /* 11 bits */
    bool is_windowed; /* its operand's host address is relative to the window: it is the guest's linear one */
};

/* 32 bit CPUID registers of one leaf. */
struct cpu_cpuid {
    uint32_t leaf, subleaf, eax, ebx, ecx, edx;
};

/* Where a data segment register is what its descriptor in the GDT says: the descriptor and its selector. */
struct cpu_loaded {
    uint64_t descriptor, selector; /* CPU_NOT_LOADED: it is something else, or may be */
};
#define CPU_NOT_LOADED (~0ull)

/* The bits of the mode key that control registers decide on, and for which values (mode.c). */
struct cpu_control {
    uint64_t cr0, cr4, xcr0, dr7;
    uint32_t bits;
};

/* What cpu_level_changed found last for user or supervisor code, and for which state (mode.c). */
struct cpu_level {
    struct view *view; /* NULL: nothing is known */
    uint64_t flags;    /* of RFLAGS those that count */
    uint32_t code_attributes, stack_attributes;
    uint32_t key, window_merit;
};

/* Answers of CPUID, each with the state that it was given in (cpuid.c); 0: none. */
#define CPU_CPUID_CACHE 16u
struct cpu_cpuid_cache {
    uint64_t state[CPU_CPUID_CACHE];
    struct cpu_cpuid entry[CPU_CPUID_CACHE];
};

#define CPU_XSAVE_SIZE 4096 /* room for x87, SSE, AVX, AVX-512 in standard format */
#define CPU_STALE_PAGES 16
#define CPU_NO_HOST_GS 1ull

/* What translated code touches; its end is where the tables of the view begin; emit.h has the offsets. */
struct cpu_hot {
    struct view *view; /* the view that R points into */
    void *c_stack;    /* top of the stack that C helpers run on */
    void *shadow_stack; /* saved host rsp while C runs */
    uint64_t raw[16]; /* host registers as translated code left them, in host encoding order */
    uint64_t raw_flags;
    uint64_t scratch[5], swapped[5]; /* of the translator */
    uint64_t shifted; /* of emit_bits16 */
    /* Effective segment for translated code of non-flat modes: base, and limit + 1 (0: every access goes the slow way,
       because of the type, expand-down or a null selector). */
    struct {
        uint64_t base, read_end, write_end;
    } segment[CPU_SEGMENTS];
    uint64_t jump_base, jump_limit; /* of CS: the jump caches were filled under them */
    uint64_t bounce; /* host address that a slow access works on */
    uint64_t bounce_addend; /* leads a read to it: in place of a page's (dispatch.c) */
    struct view *supervisor_view[2]; /* of the current space, by RFLAGS.AC; valid while CPL is not 3 */
    uint32_t clac_leaves; /* the view that CLAC switches to has a window: it is for C */
    uint32_t pauses; /* PAUSE instructions until the host's other threads are let in */
    uint64_t rip;
    uint64_t rflags; /* in C: all of RFLAGS. While translated code runs: all but the arithmetic flags and DF */
    /* Last, what is within one byte's displacement of R. */
    uint64_t gpr[CPU_REGISTERS];
    uint64_t window_addend[2]; /* of the current view's window, by group */
    uint64_t segment_place[2]; /* where code in a window finds offset 0 of FS and GS; no host address: not at all */
    uint32_t run;       /* 0: a poll must leave translated code */
    uint32_t countdown; /* polls of code without a window until it counts as a sample (cpu/window.c) */
};

struct cpu {
    /* --- configuration, constant after creation --- */
    unsigned index; /* vCPU number, initial APIC id */
    const struct trapeze_config *config;
    struct machine_memory *memory;
    struct trapeze_interrupt_controller interrupt_controller;
    const struct cpu_model *model; /* CPUID and features; cpu/cpuid.h */
    struct engine *engine;         /* the translator's per-machine state; opaque here */
    /* Calls fn(arg) with the guest's vector state put away and the host's ABI in force; nests. */
    uint64_t (*call_full)(struct cpu *cpu, uint64_t (*fn)(void *arg), void *arg);
    /* The x87 instruction whose translated code is at the host address that ends in these bits: its rip, and the 11 bits
       of its opcode. False: there is none. */
    bool (*find_x87)(struct cpu *cpu, uint32_t host, struct cpu_x87_place *place);

    /* --- architectural state --- */
    struct trapeze_segment segment[CPU_SEGMENTS], ldtr, tr;
    struct {
        uint64_t base;
        uint16_t limit;
    } gdtr, idtr;
    uint64_t cr0, cr2, cr3, cr4, xcr0;
    uint64_t pdpte[4]; /* PAE: loaded with CR3 */
    uint64_t dr[8];
    struct cpu_msrs msr;
    struct cpu_x87 x87;
    int64_t tsc_offset; /* guest TSC - host TSC */
    uint8_t cpl;
    bool interrupt_shadow; /* interrupts are held off until one more instruction has run */
    bool nmi_blocked, halted, waiting_for_sipi;
    bool apic_disabled; /* IA32_APIC_BASE[11] is clear: CPUID shows no APIC */
    uint8_t sipi_vector;

    /* --- what is going on --- */
    struct cpu_exception exception; /* valid after CPU_FAULT */
    bool delivering;                /* an exception or interrupt is being delivered: a fault now may be double */
    uint8_t delivering_vector;
    enum cpu_stop stop;
    _Atomic uint32_t requests;
    _Atomic bool is_asleep; /* on `requests`, or about to be */
    _Atomic uint32_t intr; /* level of the INTR pin */
    uint32_t stale_count; /* pages whose code this vCPU has overwritten, to be dropped before it runs on */
    struct {
        uint64_t page, lines; /* guest-physical page; the 64-byte lines written */
        uint16_t offset, size; /* of the only store; size 0: there were more */
    } stale[CPU_STALE_PAGES];
    bool stale_overflow;    /* and more than fit */
    bool vector_live;       /* the guest's vector state is in the host's registers */
    uint32_t space_changes; /* counts loads of CR3 and flushes: return addresses on the shadow stack are void then */
    uint32_t mode_key;      /* see cpu/mode.h; kept up to date by cpu_mode_changed */
    struct cpu_control control;
    struct cpu_level level[2]; /* of CPL 0 to 2, and of CPL 3 */
    struct cpu_loaded loaded[CPU_SEGMENTS]; /* kept by segment_load and cpu_segment_changed */
    struct view_set views;  /* shadow page tables of this vCPU */
    struct trapeze_statistics statistics;

    enum { CPU_WINDOWS_AUTO, CPU_WINDOWS_OFF, CPU_WINDOWS_ALWAYS } windows;
    bool has_fsgsbase;   /* of the host: programs may load the base of GS */
    uint64_t host_gs;    /* the base in the host's GS, or CPU_NO_HOST_GS */
    uint64_t watched_dr7; /* DR7 that the shadow page tables were filled under */
    uint32_t watch_hits; /* data breakpoints of DR0 to DR3 that the instruction has hit */
    uint64_t paused_string;  /* rip of the repeated string instruction that gave way last, with RF set */
    struct cpu_debug debug;
    struct cpu_io io;
    struct cpu_cpuid_cache cpuid;

    /* Guest vector state while C code that may use vector registers runs. */
    _Alignas(64) uint8_t xsave[CPU_XSAVE_SIZE];
    /* Images that XSAVE and its kin make of the live state, on their way from and to guest memory. */
    _Alignas(64) uint8_t xsave_bounce[2 * CPU_XSAVE_SIZE];

    _Alignas(64) struct {
        /* Translator's own: see translator/. */
        uint64_t words[96];
    } translator;

    struct cpu_hot hot;
};

/* Calls what works on cpu->interrupt_controller. */
static inline uint64_t cpu_call_controller(struct cpu *cpu, uint64_t (*fn)(void *argument), void *argument) {
    return cpu->interrupt_controller.is_light ? fn(argument) : cpu->call_full(cpu, fn, argument);
}

/* Shorthand for the registers; the guest's own names. */
#define cpu_rsp(cpu) ((cpu)->hot.gpr[CPU_RSP])

static inline bool cpu_is_long_mode(const struct cpu *cpu) {
    return (cpu->msr.efer & EFER_LMA) != 0;
}
/* 64-bit mode proper: long mode with CS.L. */
static inline bool cpu_is_64bit(const struct cpu *cpu) {
    return cpu_is_long_mode(cpu) && (cpu->segment[CPU_CS].attributes & SEGMENT_L);
}
/* Whether bits 63:47 are all equal: a linear address of 4-level paging (SDM vol. 1, 3.3.7.1). */
static inline bool cpu_is_canonical(uint64_t linear) {
    return view_is_canonical(linear);
}
static inline bool cpu_is_protected(const struct cpu *cpu) {
    return (cpu->cr0 & CR0_PE) != 0;
}
static inline bool cpu_is_vm86(const struct cpu *cpu) {
    return (cpu->hot.rflags & FLAG_VM) != 0;
}
static inline unsigned cpu_iopl(const struct cpu *cpu) {
    return (unsigned)(cpu->hot.rflags >> 12) & 3;
}

/* memcpy and memset that stay in general registers. */
static inline void cpu_copy(void *to, const void *from, size_t length) {
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(length) : : "memory");
}
static inline void cpu_clear(void *to, size_t length) {
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(length) : "a"(0) : "memory");
}

/* ---- Faults: fill in cpu->exception and answer CPU_FAULT. ---- */
enum cpu_result cpu_fault(struct cpu *cpu, enum cpu_vector vector);                          /* without an error code */
enum cpu_result cpu_fault_code(struct cpu *cpu, enum cpu_vector vector, uint32_t error_code);
enum cpu_result cpu_fault_page(struct cpu *cpu, uint64_t linear, uint32_t error_code);
enum cpu_result cpu_fault_debug(struct cpu *cpu, uint64_t dr6_bits, bool is_trap);

#endif
