/*
 * libtrapeze: an x86 machine in a process, run by binary translation.
 *
 * A machine has guest-physical memory (regions of file descriptors), virtual CPUs, and optional in-process devices
 * behind a pair of I/O callbacks. Any thread may run a vCPU; one thread at a time. Everything that no callback claims
 * comes back to the caller of trapeze_vcpu_run as an exit.
 *
 * Ownership: whatever a `create` returned, its `destroy` frees; file descriptors stay the caller's and may be closed
 * after trapeze_memory_map returned.
 *
 * Threads: functions on a vCPU are for the thread that runs it, or for any thread while it is not running, except
 * trapeze_vcpu_kick, trapeze_vcpu_signal and trapeze_vcpu_set_intr, which any thread may call at any time.
 */
#ifndef TRAPEZE_TRAPEZE_H
#define TRAPEZE_TRAPEZE_H

#include "trapeze/types.h"

/* What a call answers. Everything but TRAPEZE_OK leaves the machine as it was. */
enum trapeze_status {
    TRAPEZE_OK = 0,
    TRAPEZE_INVALID,     /* an argument is out of range, unaligned or names nothing */
    TRAPEZE_OVERLAP,     /* the region overlaps another one */
    TRAPEZE_NO_MEMORY,   /* the host has no memory or address space left */
    TRAPEZE_UNSUPPORTED, /* this host or this build cannot do it */
    TRAPEZE_BUSY,        /* the vCPU is running on another thread */
    TRAPEZE_HOST_ERROR,  /* a system call failed; errno says which way */
};

/* One English clause for a status, without a final stop. */
const char *trapeze_status_text(enum trapeze_status status);

struct trapeze_machine;
struct trapeze_vcpu;

/* ---- I/O ------------------------------------------------------------------------------------------------------- */

enum trapeze_space { TRAPEZE_PORT, TRAPEZE_MMIO };

/*
 * In-process devices. Called on the thread of the vCPU that makes the access; size is 1, 2, 4 or (memory only) 8 bytes.
 * False means that no device claims the address: the access becomes an exit where `unclaimed_exits` is set in the
 * machine's configuration, and else reads as all ones and writes nowhere.
 */
struct trapeze_io {
    bool (*read)(void *opaque, enum trapeze_space space, uint64_t address, unsigned size, uint64_t *value);
    bool (*write)(void *opaque, enum trapeze_space space, uint64_t address, unsigned size, uint64_t value);
    /* FERR#: a vCPU whose CR0.NE is clear has met an x87 error, and waits for the interrupt that comes of it (IRQ 13 of a
       PC). NULL: the error is #MF, as with CR0.NE set. */
    void (*fp_error)(void *opaque);
    void *opaque;
    /* read and write are light: they are called while the guest's vector state is in the registers, which saves most of an
       access's price. Light code is compiled for general registers only (-mgeneral-regs-only), and calls nothing that is
       not, libc least of all, but through trapeze_call_full. */
    bool is_light;
};

/*
 * The interrupt controller in front of one vCPU, normally its local APIC. Every member may be NULL.
 * acknowledge: the INTA cycle; the vector 0..255, or -1 when the request has gone away.
 * get_tpr/set_tpr: CR8, that is TPR bits 7:4 (0..15).
 * read_msr/write_msr: IA32_APIC_BASE (1Bh), IA32_TSC_DEADLINE (6E0h) and 800h..8FFh; false becomes #GP(0).
 * Called on the vCPU's thread.
 */
struct trapeze_interrupt_controller {
    int (*acknowledge)(void *opaque);
    unsigned (*get_tpr)(void *opaque);
    void (*set_tpr)(void *opaque, unsigned tpr);
    bool (*read_msr)(void *opaque, uint32_t index, uint64_t *value);
    bool (*write_msr)(void *opaque, uint32_t index, uint64_t value);
    void *opaque;
    bool is_light; /* all of them, as in struct trapeze_io */
};

/* From a light callback: calls any function, with that state put away. Elsewhere it is a plain call. */
uint64_t trapeze_call_full(uint64_t (*fn)(void *argument), void *argument);

/* ---- Machine --------------------------------------------------------------------------------------------------- */

/* TRAPEZE_WINDOWS_AUTO: for user code that has run for a while; ALWAYS: for all of it, at once (for tests). */
enum trapeze_windows { TRAPEZE_WINDOWS_AUTO = 0, TRAPEZE_WINDOWS_OFF, TRAPEZE_WINDOWS_ALWAYS };

/* Features of the host that the engine can do without, and then does, as on a host that lacks them (for tests). */
enum { TRAPEZE_WITHOUT_BMI2 = 1, TRAPEZE_WITHOUT_FSGSBASE = 2 };

struct trapeze_config {
    const char *cpu_model;  /* "-cpu" string: model[,+feature][,-feature][,feature=on|off]; NULL: "host" */
    unsigned vcpu_count;    /* topology that CPUID tells; 0: 1 */
    uint64_t code_cache;    /* bytes of translated code kept; 0: 256 MiB */
    struct trapeze_io io;   /* callbacks NULL: every access is an exit, or open bus */
    enum trapeze_windows windows; /* when guest memory is mapped for direct access; see docs/translation.md */
    unsigned without;       /* TRAPEZE_WITHOUT_* */
    bool unclaimed_exits;   /* accesses that no device claims leave trapeze_vcpu_run */
    /* Called for each instruction without a rule, once per address; NULL: not told. */
    void (*unimplemented)(void *opaque, uint64_t linear, const uint8_t *bytes, unsigned length);
    void *opaque;
};

/*
 * Makes a machine without memory and vCPUs. On TRAPEZE_INVALID, *error (if not NULL) is a static or machine-independent
 * text that names the bad field.
 */
enum trapeze_status trapeze_machine_create(const struct trapeze_config *config, struct trapeze_machine **machine,
                                           const char **error);
/* No vCPU may be running. Destroys the vCPUs too. */
void trapeze_machine_destroy(struct trapeze_machine *machine);

enum {
    TRAPEZE_MEMORY_READ_ONLY = 1, /* guest writes are ignored, as a ROM's */
    TRAPEZE_MEMORY_LOG_DIRTY = 2, /* keep a bitmap of written pages */
};

/*
 * Places length bytes of fd at offset into guest-physical memory as region `slot` (0..63), replacing what the slot held.
 * Everything is a multiple of 4096. Regions must not overlap. The mapping is shared: the caller sees guest stores
 * through its own mapping of fd, but must not store to it while vCPUs run, except through trapeze_memory_write.
 */
enum trapeze_status trapeze_memory_map(struct trapeze_machine *machine, unsigned slot, guest_physical base, int fd,
                                       uint64_t offset, uint64_t length, unsigned flags);
enum trapeze_status trapeze_memory_unmap(struct trapeze_machine *machine, unsigned slot);

/*
 * Copies from and to guest-physical memory, read-only regions included; translated code of the bytes is dropped. False
 * when a byte of the range is not in a region: nothing was copied. Any thread.
 */
bool trapeze_memory_read(struct trapeze_machine *machine, guest_physical from, void *to, size_t length);
bool trapeze_memory_write(struct trapeze_machine *machine, guest_physical to, const void *from, size_t length);

/* Opens or closes the A20 gate: closed, bit 20 of every guest-physical address of a vCPU is 0. Open at first. Any thread. */
void trapeze_machine_set_a20(struct trapeze_machine *machine, bool open);

/* Fetches and clears the dirty bitmap of a slot: one bit a 4 KiB page, lowest page in bit 0 of word 0. */
enum trapeze_status trapeze_memory_dirty_log(struct trapeze_machine *machine, unsigned slot, uint64_t *bitmap,
                                             size_t words);

/* ---- vCPU ------------------------------------------------------------------------------------------------------ */

/* Creates vCPU `index` (its initial APIC id) in its state after RESET; index 0 is the boot processor. */
enum trapeze_status trapeze_vcpu_create(struct trapeze_machine *machine, unsigned index, struct trapeze_vcpu **vcpu);
void trapeze_vcpu_destroy(struct trapeze_vcpu *vcpu);
void trapeze_vcpu_set_interrupt_controller(struct trapeze_vcpu *vcpu,
                                           const struct trapeze_interrupt_controller *controller);

enum trapeze_exit_reason {
    TRAPEZE_EXIT_KICKED,   /* trapeze_vcpu_kick was called */
    TRAPEZE_EXIT_IO,       /* an access that no device claims; see below */
    TRAPEZE_EXIT_SHUTDOWN, /* triple fault; the state is that at the fault */
    TRAPEZE_EXIT_DEBUG,    /* a breakpoint, watchpoint or step of trapeze_vcpu_set_debug */
    TRAPEZE_EXIT_ERROR,    /* the host failed this vCPU; `text` says how */
};

struct trapeze_exit {
    enum trapeze_exit_reason reason;
    const char *text; /* EXIT_ERROR: one clause, else NULL */
    struct {
        enum trapeze_space space;
        bool is_write;
        unsigned size;
        uint64_t address;
        uint64_t value; /* a write's; for a read put the answer here, and run again with the same struct */
    } io;
    struct {
        enum { TRAPEZE_DEBUG_STEP, TRAPEZE_DEBUG_BREAKPOINT, TRAPEZE_DEBUG_WATCHPOINT } kind;
        uint64_t address; /* linear; the breakpoint or the watched data */
    } debug;
};

/*
 * Runs the vCPU until something needs the caller. HLT and wait-for-SIPI sleep inside. TRAPEZE_OK with *exit filled in,
 * or TRAPEZE_BUSY.
 */
enum trapeze_status trapeze_vcpu_run(struct trapeze_vcpu *vcpu, struct trapeze_exit *exit);

/* Makes trapeze_vcpu_run return TRAPEZE_EXIT_KICKED soon, now or at its next call. Any thread. */
void trapeze_vcpu_kick(struct trapeze_vcpu *vcpu);

enum trapeze_signal { TRAPEZE_SIGNAL_NMI, TRAPEZE_SIGNAL_INIT, TRAPEZE_SIGNAL_SIPI, TRAPEZE_SIGNAL_RESET };

/* An edge on a pin or a message of the APIC bus; `vector` is the SIPI's. Any thread. */
void trapeze_vcpu_signal(struct trapeze_vcpu *vcpu, enum trapeze_signal signal, unsigned vector);
/* The level of the INTR pin: whether `acknowledge` would find a vector. Any thread. */
void trapeze_vcpu_set_intr(struct trapeze_vcpu *vcpu, bool asserted);

/* ---- State ----------------------------------------------------------------------------------------------------- */

enum { TRAPEZE_ES, TRAPEZE_CS, TRAPEZE_SS, TRAPEZE_DS, TRAPEZE_FS, TRAPEZE_GS, TRAPEZE_SEGMENTS };

struct trapeze_segment {
    uint64_t base;
    uint32_t limit;      /* in bytes, scaled by G already */
    uint16_t selector;
    uint32_t attributes; /* VMX layout (SDM vol. 3C, 25.4.1): type 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13, D/B 14, G 15,
                            unusable 16 */
};

struct trapeze_registers {
    uint64_t gpr[16]; /* in encoding order: rax rcx rdx rbx rsp rbp rsi rdi r8 .. r15 */
    uint64_t rip, rflags;
    struct trapeze_segment segment[TRAPEZE_SEGMENTS], ldtr, tr;
    struct {
        uint64_t base;
        uint16_t limit;
    } gdtr, idtr;
    uint64_t cr0, cr2, cr3, cr4, cr8, efer, xcr0;
    uint64_t dr[8];
};

void trapeze_vcpu_get_registers(const struct trapeze_vcpu *vcpu, struct trapeze_registers *registers);
/* TRAPEZE_INVALID for a combination that no processor can be in. */
enum trapeze_status trapeze_vcpu_set_registers(struct trapeze_vcpu *vcpu, const struct trapeze_registers *registers);

/* The XSAVE image in standard format (SDM vol. 1, 13.4): x87, SSE, AVX, AVX-512; at most TRAPEZE_XSAVE_SIZE bytes. */
#define TRAPEZE_XSAVE_SIZE 2816
void trapeze_vcpu_get_xsave(const struct trapeze_vcpu *vcpu, uint8_t image[TRAPEZE_XSAVE_SIZE]);
enum trapeze_status trapeze_vcpu_set_xsave(struct trapeze_vcpu *vcpu, const uint8_t image[TRAPEZE_XSAVE_SIZE]);

/* False for an MSR that the model does not have, or a value that it refuses. */
bool trapeze_vcpu_get_msr(struct trapeze_vcpu *vcpu, uint32_t index, uint64_t *value);
bool trapeze_vcpu_set_msr(struct trapeze_vcpu *vcpu, uint32_t index, uint64_t value);

/* What the processor is doing between instructions. */
struct trapeze_events {
    bool halted, waiting_for_sipi, interrupt_shadow, nmi_blocked;
    bool nmi_pending, init_pending, sipi_pending;
    uint8_t sipi_vector;
};
void trapeze_vcpu_get_events(const struct trapeze_vcpu *vcpu, struct trapeze_events *events);
void trapeze_vcpu_set_events(struct trapeze_vcpu *vcpu, const struct trapeze_events *events);

/* Translates as the vCPU would now for a supervisor read, without any effect. False when no page is mapped. */
bool trapeze_vcpu_translate(struct trapeze_vcpu *vcpu, guest_linear linear, guest_physical *physical);

/* ---- Debugging ------------------------------------------------------------------------------------------------- */

enum trapeze_debug_type { TRAPEZE_BREAK_EXECUTE, TRAPEZE_BREAK_WRITE, TRAPEZE_BREAK_READ, TRAPEZE_BREAK_ACCESS };

struct trapeze_breakpoint {
    enum trapeze_debug_type type;
    uint64_t linear;
    uint64_t length; /* bytes; 1 for TRAPEZE_BREAK_EXECUTE */
};

/*
 * Replaces what stops this vCPU: breakpoints the guest never sees, and single step. At most 64 breakpoints.
 * Not while the vCPU runs.
 */
enum trapeze_status trapeze_vcpu_set_debug(struct trapeze_vcpu *vcpu, bool single_step,
                                           const struct trapeze_breakpoint *breakpoints, size_t count);

/* ---- Inspection ------------------------------------------------------------------------------------------------ */

/* Counters since creation, summed over the vCPUs. */
struct trapeze_statistics {
    uint64_t blocks_translated, instructions_translated, code_bytes;
    uint64_t blocks_moved;              /* copied from code that was translated for another rip */
    uint64_t cache_evictions, blocks_invalidated;
    uint64_t immediates_as_data;        /* of instructions that the guest kept changing */
    uint64_t tlb_fills, tlb_flushes, slow_accesses, dispatches, links;
    uint64_t exceptions, interrupts, host_faults;
    uint64_t helper_calls_privileged;   /* instructions that no host could run as they are */
    uint64_t helper_calls_unprivileged; /* unprivileged instructions that a C function ran */
    uint64_t unimplemented;             /* #UD because of a missing rule */
    uint64_t windows_opened, windows_compared, window_fills;
};
void trapeze_machine_statistics(const struct trapeze_machine *machine, struct trapeze_statistics *statistics);

/* Bits of trapeze_machine_set_log. */
enum {
    TRAPEZE_LOG_IN_ASM = 1,
    TRAPEZE_LOG_OUT_ASM = 2,
    TRAPEZE_LOG_INT = 4,
    TRAPEZE_LOG_EXITS = 8,
    TRAPEZE_LOG_UNIMPLEMENTED = 16,
    TRAPEZE_LOG_MMU = 32,
};
/* What the engine tells about itself. `event` gets one line without its end; it may be called from any vCPU's thread. */
struct trapeze_log {
    unsigned mask;
    void (*event)(void *opaque, unsigned bit, const char *line);
    /* A block was translated: guest bytes at `linear` with their code width (16, 32, 64), and the host's. */
    void (*block)(void *opaque, uint64_t linear, unsigned width, const uint8_t *guest, size_t guest_length,
                  const uint8_t *host, size_t host_length);
    void *opaque;
};
void trapeze_machine_set_log(struct trapeze_machine *machine, const struct trapeze_log *log);

#endif
