/*
 * The translator's state for one machine, and the fast C functions that translated code leaves for.
 *
 * Threads: vCPUs look up blocks and link exits at any time; translating takes `lock`; whatever removes code (eviction,
 * self-modification, a page becoming code while someone may write to it) happens with the world stopped, that is, with
 * every other vCPU at its run loop and its return addresses known (translator/world.h).
 */
#ifndef TRANSLATOR_ENGINE_H
#define TRANSLATOR_ENGINE_H

#include <pthread.h>
#include <stdatomic.h>

#include "translator/code_cache.h"

#define ENGINE_HASH (1u << 18)
#define ENGINE_VCPUS 255
#define ENGINE_SITES (1u << 19)
#define ENGINE_VARIABLES 1024u /* struct code_variable in use at once */
#define ENGINE_CHANGES 256u
#define ENGINE_DONORS (1u << 16)
#define ENGINE_DONOR_WAYS 2u

/* Code that is made once: ways out of translated code and back (stubs.c). */
struct stubs {
    uint64_t enter;    /* void enter(struct cpu *, uint64_t host): returns when a C function answers 0 */
    uint64_t miss;     /* SITE_READ, SITE_WRITE, SITE_SEGMENT; S is the address */
    uint64_t miss_read, miss_write; /* the first two, with the index in T; a crossing of two pages may need no C */
    uint64_t resume;   /* goes on at hot.raw[0] with all of the guest's state; rbx is the cpu */
    uint64_t helper;   /* S is the helper_call */
    uint64_t helped;   /* the host's RET at the end of it */
    uint64_t exit;     /* SITE_EXIT, SITE_RAISE */
    uint64_t crossing; /* SITE_EXIT to the target in S that is not in its place in the jump cache; the return address is in T */
    uint64_t missed;   /* likewise SITE_INDIRECT */
    uint64_t indirect; /* S is the target */
    uint64_t prepare;  /* slow access at S: answers the addend in A */
    uint64_t commit;   /* ends a slow write */
    uint64_t fault;    /* a host fault; the pushed address is that of the instruction */
    uint64_t returned; /* as indirect, for return sites: looks into the jump cache first */
    uint64_t sentinel_return; /* the return address that engine_indirect sees for it */
    uint64_t set_flags; /* loads the arithmetic flags and DF from an image in A; uses T */
    uint64_t sentinel; /* what lies at the bottom of every shadow stack: as indirect */
};

/* Pages whose translated code was overwritten by someone else than a vCPU; dropped before any interrupt is taken. */
struct stale_queue {
    pthread_mutex_t mutex;
    unsigned count;
    bool overflow;
    struct {
        uint64_t page, lines;
    } entry[64];
};

struct cpu_range;

struct world {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    unsigned running;          /* vCPUs in translated code or in C functions called by it */
    struct cpu *stopper;       /* who has stopped the others, NULL: nobody */
    unsigned stop_waiters;
};

struct idle_vcpus {
    _Atomic unsigned count;   /* in engine_sleep */
    _Atomic unsigned polling; /* and of them looking at their requests, on a CPU of the host */
    unsigned host_cpus;       /* that the process may use */
};

struct engine {
    const struct trapeze_config *config;
    struct machine_memory *memory;
    struct code_cache cache;
    struct stubs stubs;
    pthread_mutex_t lock;      /* translation */
    atomic_flag link_lock;
    struct block *_Atomic hash[ENGINE_HASH];
    /* By engine_donors: blocks that can be moved, the newest first; under lock. */
    struct block *donor[ENGINE_DONORS][ENGINE_DONOR_WAYS];
    struct cpu *vcpu[ENGINE_VCPUS];
    unsigned vcpu_count;
    struct world world;
    struct idle_vcpus idle;
    struct stale_queue stale;
    uint64_t vector_mask;      /* XSAVE components that belong to the guest */
    bool sha_aligns;           /* the host's SHA instructions refuse operands that are not aligned */
    struct trapeze_statistics statistics; /* of the translator itself, under lock */
    struct trapeze_log log;
    unsigned breakpoint_count; /* of all vCPUs, for the translator */
    uint64_t breakpoint[256];
    struct decoder *decoder;
    struct code_variable *free_variables;
    struct {
        struct code_page *code;
        struct code_variable entry;
    } variable[ENGINE_VARIABLES];
    struct {
        uint64_t address;
        unsigned count;
    } changes[ENGINE_CHANGES]; /* stores that changed code, by guest-physical address */
    uint8_t site_form[ENGINE_SITES]; /* by engine_site: enum site_form, and failures in the upper bits */
};

/* Host stacks for return addresses: of supervisor code without and with a window, and of CPL 3. */
enum shadow_stack { STACK_SUPERVISOR, STACK_WINDOW, STACK_USER, SHADOW_STACKS };

/* The translator's part of struct cpu (cpu->translator). */
struct cpu_translator {
    bool slow;                 /* the next block runs one instruction with slow accesses */
    enum shadow_stack stack;   /* the one in use */
    uint32_t user_window;      /* MODE_WINDOW and MODE_NEAR_STACK of the code that CPL 3's may hold return sites of */
    bool window_missed;        /* the slow access to come is one that the window lacked */
    bool check_failed;         /* and it did because of the site's group */
    bool holds_traps;          /* SS was just loaded: no instruction breakpoint at the next instruction */
    bool was_shadowed;         /* the instruction at shadowed_rip was entered in the shadow of STI or MOV SS */
    bool missing;              /* engine_dispatch found no block for missing_physical, missing_key */
    uint32_t missing_key;
    uint64_t missing_physical;
    uint64_t shadowed_rip;
    uint32_t latched;          /* requests taken but not yet served */
    uint32_t stack_key;        /* mode key without CPL that the shadow stacks were filled under */
    uint32_t space_changes;    /* cpu->space_changes they were filled under */
    uint64_t stack_base[SHADOW_STACKS];  /* address of the sentinel */
    uint64_t stack_limit[SHADOW_STACKS]; /* lowest usable address; guard pages lie below */
    uint64_t stack_saved[SHADOW_STACKS]; /* the pointers of those that are not in use */
    struct site *link_site;    /* exit to link once its target is known */
    uint64_t link_rip;
    uint64_t pending_write;    /* slow write between prepare and commit: bytes, 0: none */
    uint8_t *joined;           /* two pages of address space for locked accesses across pages, NULL until used */
    uint64_t joined_page[2];   /* host addresses of the pages mapped there */
    uint64_t active_bytes;     /* of it: those that a masked instruction writes */
    uint64_t range[12];        /* struct cpu_range of it */
    uint64_t kept_bytes;       /* what was there before a direct store to code, 0: not kept */
    struct {
        uint64_t rip, address;
        int signal, code;
        bool is_write;
    } fault;                   /* the last host fault */
    uint64_t tried_rip, tried_address; /* the last one that was tried again, and how often in a row */
    uint32_t tries;
    uint64_t poll_cycles;      /* how long engine_sleep looks for a request itself */
    _Alignas(64) uint8_t bounce[256];
};

static inline struct cpu_translator *cpu_translator(struct cpu *cpu) {
    _Static_assert(sizeof(struct cpu_translator) <= sizeof cpu->translator, "struct cpu has too little room");
    return (struct cpu_translator *)&cpu->translator;
}

/* ---- fault.c (light) ---- */
/* How an instruction in a block made for a window reaches memory; see memory_form.c. */
enum site_form { FORM_UNKNOWN, FORM_A, FORM_B, FORM_TABLE, FORM_SOFT, FORM_BITS = 7, FORM_FAILURE = 8 };

/* Instructions that are close are so in the table, too: translation goes through it for each memory operand. */
static inline unsigned engine_site(uint64_t physical) {
    uint64_t mixed = (physical >> 6) * 0x9e3779b97f4a7c15ull;
    return (unsigned)(mixed >> 40 << 6 | (physical & 63)) & (ENGINE_SITES - 1);
}
static inline enum site_form engine_site_form_at(const struct engine *engine, unsigned site) {
    return (enum site_form)(__atomic_load_n(&engine->site_form[site], __ATOMIC_RELAXED) & FORM_BITS);
}
static inline enum site_form engine_site_form(const struct engine *engine, uint64_t physical) {
    return engine_site_form_at(engine, engine_site(physical));
}
/* FORM_SOFT there: the loop that begins at the address makes its checks where they are due. */
static inline unsigned engine_loop_site(uint64_t physical) {
    return engine_site(~physical);
}
/* The instruction at this guest-physical address needs another form: one for all groups, or for what no window holds. */
void engine_note_group(struct cpu *cpu, uint64_t physical);
void engine_note_soft_site(struct cpu *cpu, uint64_t physical);

/* ---- find.c (light) ---- */
struct block *engine_find(struct engine *engine, uint64_t physical, uint64_t rip, uint32_t key, struct cpu *cpu);
/* Patches an exit of `from` to go straight to the block, where that is sound. False: it does not, or did before. */
bool engine_link(struct engine *engine, struct block *from, struct site *site, struct block *to);

static inline unsigned engine_hash(uint64_t physical, uint64_t rip, uint32_t key) {
    uint64_t mixed = (physical ^ (rip << 20) ^ ((uint64_t)key << 40)) * 0x9e3779b97f4a7c15ull;
    return (unsigned)(mixed >> 40) & (ENGINE_HASH - 1);
}

static inline struct block **engine_donors(struct engine *engine, uint64_t physical, uint32_t key) {
    uint64_t mixed = (physical ^ ((uint64_t)key << 40)) * 0x9e3779b97f4a7c15ull;
    return engine->donor[mixed >> 40 & (ENGINE_DONORS - 1)];
}

/* ---- dispatch.c (light): called by the stubs; the host address to go on at, or 0 to return from `enter` ---- */
uint64_t engine_miss(struct cpu *cpu, uint64_t return_address);
/* The same, with the return address still on the shadow stack, or HELPER_GOES_ON: there. */
enum { HELPER_GOES_ON = 1 };
uint64_t engine_helper(struct cpu *cpu, const struct helper_call *call);
uint64_t engine_exit(struct cpu *cpu, uint64_t return_address);
uint64_t engine_indirect(struct cpu *cpu, uint64_t return_address);
uint64_t engine_prepare(struct cpu *cpu, uint64_t return_address);
uint64_t engine_commit(struct cpu *cpu, uint64_t return_address);
uint64_t engine_fault(struct cpu *cpu, uint64_t return_address);
/* cpu->find_x87 */
bool engine_find_x87(struct cpu *cpu, uint32_t host, struct cpu_x87_place *place);
/* Full state: the host code for cpu->hot.rip, or 0 when the run loop has to do something first. */
uint64_t engine_dispatch(struct cpu *cpu);
/* Runs translated code from `host` on until a C function answers 0. */
void engine_enter(struct cpu *cpu, uint64_t host);
uint64_t engine_call_full(struct cpu *cpu, uint64_t (*fn)(void *), void *argument);
/* Makes the shadow stacks empty. */
void engine_reset_stacks(struct cpu *cpu);

/* ---- stubs.c ---- */
bool stubs_create(struct engine *engine);

/* ---- translate.c: holds engine->lock ---- */
/*
 * Translates the instructions at cpu->hot.rip, which lie at `physical`; its page is marked as code. NULL: *result says
 * why: CPU_FAULT (deliver the exception), CPU_STOP (mark *needed_page as code, then try again), or CPU_NEXT (the chunk of
 * the cache is full).
 */
struct block *translate_block(struct engine *engine, struct cpu *cpu, uint64_t physical, uint32_t key,
                              enum cpu_result *result, uint64_t *needed_page);

/* ---- move.c: holds engine->lock ---- */
/* The block for physical, rip and key as a copy of one for another rip, or NULL: none is there that can be moved. */
struct block *move_block(struct engine *engine, struct cpu *cpu, uint64_t physical, uint32_t key);

/* ---- variable.c: holds engine->lock; the world is stopped, or has one vCPU ---- */
/* A store has changed code, whose blocks are to be dropped: whether it will be data from now on. */
void variable_note_store(struct engine *engine, uint64_t page, unsigned offset, unsigned size);
/* The page is plain memory again, or the machine's memory changes. Blocks keep what they read at run time. */
void variable_forget_page(struct engine *engine, struct code_page *code);
void variable_forget_all(struct engine *engine);

/* ---- invalidate.c: the world is stopped ---- */
void invalidate_lines(struct engine *engine, uint64_t physical_page, uint64_t lines);
void invalidate_all(struct engine *engine);
/* Forgets the blocks of the cache's next chunk and starts to fill it. */
void invalidate_next_chunk(struct engine *engine);
/* Adds a block to the look-up tables. */
void engine_insert(struct engine *engine, struct block *block);
/* Marks a page as code before its bytes are read. False: a vCPU may still write to it directly, so stop the world and
   call invalidate_writes. */
bool engine_mark_code(struct engine *engine, uint64_t physical_page);
/* After blocks were made from the page, but none was dropped. */
void engine_settle_lines(struct engine *engine, uint64_t physical_page);
/* After blocks of the page were dropped. */
void engine_recount_lines(struct engine *engine, uint64_t physical_page);
bool engine_is_code(struct engine *engine, uint64_t physical_page);
void invalidate_writes(struct engine *engine, uint64_t physical_page);

/* ---- world.c ---- */
/* Before and after translated code may run on this thread; waits while the world is stopped. */
void world_enter(struct engine *engine, struct cpu *cpu);
void world_leave(struct engine *engine);
/* Stops every vCPU at its run loop. The caller holds engine->lock and is not inside world_enter. */
void world_stop(struct engine *engine, struct cpu *cpu);
void world_resume(struct engine *engine);

/* ---- events.c (light) ---- */
/* The vCPU that the thread runs, or NULL. */
extern _Thread_local struct cpu *engine_current;
/* ORs a request into a vCPU's word and gets it out of translated code or sleep. Any thread. */
void engine_wake(struct cpu *cpu, uint32_t request);
/* Until there is a request, or for no reason shorter. */
void engine_sleep(struct cpu *cpu);

/* ---- signals.c ---- */
/* Installs the handlers of the process, once. */
bool signals_install(void);
/* This thread runs `cpu` from now on (NULL: no longer), with a signal stack of its own. */
bool signals_attach(struct cpu *cpu);

/* ---- masked.c ---- */
struct masked_bytes {
    struct cpu *cpu;
    uint64_t physical, second_page; /* of the instruction; BLOCK_NO_PAGE: it lies in one page */
};
/* One bit for each byte of its memory operand that the masked instruction at rip touches; call_full. */
uint64_t engine_masked_bytes(void *query);

/* ---- join.c ---- */
struct joined_pages {
    struct cpu *cpu;
    const struct cpu_range *range;
};
/* A host address where both parts of a range lie side by side, so that a locked access over the boundary is one; 0 when
   the host refuses. call_full. */
uint64_t engine_join_pages(void *query);
void engine_release_joined(struct cpu *cpu);

/* ---- report.c ---- */
/* Tells about the instruction at rip that has no rule; call_full with the cpu. */
uint64_t engine_report_unimplemented(void *cpu);
/* call_full with the cpu: the exception to be delivered, and the instruction that a C function has just run. */
uint64_t engine_report_exception(void *cpu);
uint64_t engine_report_helper(void *report);
struct helper_report {
    struct cpu *cpu;
    const struct helper_call *call;
    enum cpu_result result;
};
/* call_full: a page that was entered into the shadow page tables; an instruction after which what they held is void. */
uint64_t engine_report_fill(void *report);
uint64_t engine_report_space(void *helper_report);
struct fill_report {
    struct cpu *cpu;
    uint64_t rip, linear, physical;
    bool is_write, is_memory;
};
static inline bool engine_logs(const struct engine *engine, unsigned bit) {
    return engine->log.mask & bit;
}
/* Logs one line if somebody listens to the bit. */
void engine_log(struct engine *engine, unsigned bit, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* ---- run.c ---- */
void engine_run(struct cpu *cpu, struct trapeze_exit *exit);

#endif
