/* libtrapeze: machines and their memory. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/model.h"
#include "cpu/access.h"
#include "memory/window.h"
#include "translator/huge.h"
#include "translator/machine.h"
#include "translator/translation.h"

#define EXPORT __attribute__((visibility("default")))
#define DEFAULT_CODE_CACHE (256ull << 20)
#define LEAST_CODE_CACHE (4ull << 20)

EXPORT const char *trapeze_status_text(enum trapeze_status status) {
    static const char *const text[] = {
        [TRAPEZE_OK] = "no error",
        [TRAPEZE_INVALID] = "an argument is out of range",
        [TRAPEZE_OVERLAP] = "the region overlaps another one",
        [TRAPEZE_NO_MEMORY] = "the host has no memory left",
        [TRAPEZE_UNSUPPORTED] = "this host cannot do it",
        [TRAPEZE_BUSY] = "the processor is running",
        [TRAPEZE_HOST_ERROR] = "a system call failed",
    };
    return status < sizeof text / sizeof *text ? text[status] : "unknown status";
}

static uint64_t host_vector_mask(void) {
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    (void)high;
    return low & 0xe7; /* x87, SSE, AVX, AVX-512 */
}

static unsigned host_cpus(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
}

static void engine_init(struct engine *engine, struct trapeze_machine *machine) {
    engine->config = &machine->config;
    engine->memory = &machine->memory;
    engine->vector_mask = host_vector_mask();
    engine->sha_aligns = !__builtin_cpu_is("amd"); /* Zen 4 reads them anywhere */
    engine->idle.host_cpus = host_cpus();
    pthread_mutex_init(&engine->lock, NULL);
    pthread_mutex_init(&engine->world.mutex, NULL);
    pthread_cond_init(&engine->world.changed, NULL);
    pthread_mutex_init(&engine->stale.mutex, NULL);
    atomic_flag_clear(&engine->link_lock);
    variable_forget_all(engine);
}

static bool host_suffices(const char **error) {
    if (!__builtin_cpu_supports("avx"))
        *error = "the host processor or kernel lacks AVX and XSAVE";
    return !*error;
}

EXPORT enum trapeze_status trapeze_machine_create(const struct trapeze_config *config,
                                                  struct trapeze_machine **result, const char **error) {
    const char *ignored;
    static _Thread_local char text[256];
    error = error ? error : &ignored;
    *error = NULL;
    if (!host_suffices(error))
        return TRAPEZE_UNSUPPORTED;
    struct trapeze_machine *machine = huge_allocate(sizeof *machine, false);
    if (!machine)
        return TRAPEZE_NO_MEMORY;
    machine->config = *config;
    machine->memory.address_mask = ~0ull;
    machine->memory.windows.budget = window_budget();
    if (!machine->config.vcpu_count)
        machine->config.vcpu_count = 1;
    engine_init(&machine->engine, machine);
    uint64_t cache = config->code_cache ? config->code_cache : DEFAULT_CODE_CACHE;
    enum trapeze_status status = TRAPEZE_INVALID;
    if (cache < LEAST_CODE_CACHE || cache > 1ull << 30) {
        *error = "the code cache must have 4 MiB to 1 GiB";
        goto failed;
    }
    machine->model = cpu_model_create(config->cpu_model ? config->cpu_model : "host", machine->config.vcpu_count, text,
                                      sizeof text, NULL, NULL);
    if (!machine->model) {
        *error = text;
        goto failed;
    }
    status = TRAPEZE_NO_MEMORY;
    machine->engine.decoder = decoder_create(machine->model);
    if (!machine->engine.decoder || !code_cache_create(&machine->engine.cache, cache))
        goto failed;
    machine->engine.cache.lacks_bmi2 = (config->without & TRAPEZE_WITHOUT_BMI2) || !__builtin_cpu_supports("bmi2");
    if (!stubs_create(&machine->engine) || !signals_install())
        goto failed;
    *result = machine;
    return TRAPEZE_OK;
failed:
    trapeze_machine_destroy(machine);
    return status;
}

EXPORT void trapeze_machine_destroy(struct trapeze_machine *machine) {
    if (!machine)
        return;
    for (unsigned i = 0; i < ENGINE_VCPUS; i++)
        trapeze_vcpu_destroy(machine->vcpu[i]);
    for (unsigned slot = 0; slot < MEMORY_SLOTS; slot++)
        memory_region_remove(&machine->memory, slot);
    if (machine->engine.cache.execute)
        code_cache_destroy(&machine->engine.cache);
    decoder_destroy(machine->engine.decoder);
    if (machine->model)
        cpu_model_destroy(machine->model);
    huge_free(machine, sizeof *machine);
}

/* ---- Memory ---- */

static void flush_everything(struct engine *engine) {
    invalidate_all(engine);
    variable_forget_all(engine);
    for (unsigned i = 0; i < engine->vcpu_count; i++)
        if (engine->vcpu[i]) {
            cpu_flush_all(engine->vcpu[i]);
            engine_release_joined(engine->vcpu[i]);
        }
}

EXPORT enum trapeze_status trapeze_memory_map(struct trapeze_machine *machine, unsigned slot, guest_physical base,
                                              int fd, uint64_t offset, uint64_t length, unsigned flags) {
    struct engine *engine = &machine->engine;
    if (slot >= MEMORY_SLOTS)
        return TRAPEZE_INVALID;
    pthread_mutex_lock(&engine->lock);
    world_stop(engine, NULL);
    flush_everything(engine);
    enum trapeze_status status = memory_region_add(&machine->memory, slot, base, fd, offset, length, flags);
    world_resume(engine);
    pthread_mutex_unlock(&engine->lock);
    return status;
}

EXPORT enum trapeze_status trapeze_memory_unmap(struct trapeze_machine *machine, unsigned slot) {
    struct engine *engine = &machine->engine;
    if (slot >= MEMORY_SLOTS)
        return TRAPEZE_INVALID;
    pthread_mutex_lock(&engine->lock);
    world_stop(engine, NULL);
    flush_everything(engine);
    memory_region_remove(&machine->memory, slot);
    world_resume(engine);
    pthread_mutex_unlock(&engine->lock);
    return TRAPEZE_OK;
}

/* Calls visit on each piece of the range that lies within one page; false before any when a byte is in no region. */
static bool for_pieces(struct trapeze_machine *machine, uint64_t address, size_t length,
                       void (*visit)(struct trapeze_machine *, struct memory_region *, uint64_t, size_t, uint8_t *),
                       uint8_t *buffer) {
    for (unsigned pass = 0; pass < 2; pass++) {
        uint64_t at = address;
        for (size_t left = length; left;) {
            struct memory_region *region = memory_find(&machine->memory, guest_physical_at(at));
            if (!region)
                return false;
            size_t piece = MEMORY_PAGE - (at & MEMORY_PAGE_MASK);
            if (piece > left)
                piece = left;
            if (pass)
                visit(machine, region, at, piece, buffer + (at - address));
            at += piece;
            left -= piece;
        }
    }
    return true;
}

static void read_piece(struct trapeze_machine *machine, struct memory_region *region, uint64_t at, size_t size,
                       uint8_t *buffer) {
    (void)machine;
    memcpy(buffer, memory_host(region, guest_physical_at(at)), size);
}

EXPORT bool trapeze_memory_read(struct trapeze_machine *machine, guest_physical from, void *to, size_t length) {
    return for_pieces(machine, from.value, length, read_piece, to);
}

/* Someone other than a vCPU wrote where code may have come from. */
static void queue_stale(struct engine *engine, uint64_t page, uint64_t lines) {
    struct stale_queue *queue = &engine->stale;
    pthread_mutex_lock(&queue->mutex);
    if (queue->count < sizeof queue->entry / sizeof *queue->entry) {
        queue->entry[queue->count].page = page;
        queue->entry[queue->count++].lines = lines;
    } else {
        queue->overflow = true;
    }
    pthread_mutex_unlock(&queue->mutex);
    for (unsigned i = 0; i < engine->vcpu_count; i++)
        if (engine->vcpu[i])
            engine_wake(engine->vcpu[i], REQUEST_STALE);
}

static void write_piece(struct trapeze_machine *machine, struct memory_region *region, uint64_t at, size_t size,
                        uint8_t *buffer) {
    memcpy(memory_host(region, guest_physical_at(at)), buffer, size);
    uint8_t flags = atomic_fetch_or(memory_page_flags(region, guest_physical_at(at)), MEMORY_DIRTY);
    if (flags & MEMORY_CODE)
        queue_stale(&machine->engine, at & ~MEMORY_PAGE_MASK, ~0ull);
}

EXPORT bool trapeze_memory_write(struct trapeze_machine *machine, guest_physical to, const void *from,
                                 size_t length) {
    return for_pieces(machine, to.value, length, write_piece, (uint8_t *)(uintptr_t)from);
}

EXPORT enum trapeze_status trapeze_memory_dirty_log(struct trapeze_machine *machine, unsigned slot, uint64_t *bitmap,
                                                    size_t words) {
    struct engine *engine = &machine->engine;
    enum trapeze_status status = TRAPEZE_INVALID;
    pthread_mutex_lock(&engine->lock);
    world_stop(engine, NULL);
    for (unsigned i = 0; i < machine->memory.count; i++) {
        struct memory_region *region = &machine->memory.region[i];
        uint64_t pages = region->length / MEMORY_PAGE;
        if (region->slot != slot || words < (pages + 63) / 64)
            continue;
        memset(bitmap, 0, words * sizeof *bitmap);
        for (uint64_t page = 0; page < pages; page++)
            if (atomic_fetch_and(&region->page_flags[page], (uint8_t)~MEMORY_DIRTY) & MEMORY_DIRTY)
                bitmap[page / 64] |= 1ull << (page % 64);
        for (unsigned k = 0; k < engine->vcpu_count; k++)
            cpu_flush_all(engine->vcpu[k]);
        status = TRAPEZE_OK;
    }
    world_resume(engine);
    pthread_mutex_unlock(&engine->lock);
    return status;
}

EXPORT void trapeze_machine_set_a20(struct trapeze_machine *machine, bool open) {
    struct engine *engine = &machine->engine;
    uint64_t mask = open ? ~0ull : ~(1ull << 20);
    if (__atomic_exchange_n(&machine->memory.address_mask, mask, __ATOMIC_SEQ_CST) == mask)
        return;
    for (unsigned i = 0; i < engine->vcpu_count; i++)
        if (engine->vcpu[i])
            engine_wake(engine->vcpu[i], REQUEST_FLUSH);
}

/* ---- Inspection ---- */

EXPORT void trapeze_machine_statistics(const struct trapeze_machine *machine, struct trapeze_statistics *statistics) {
    *statistics = machine->engine.statistics;
    enum { FIELDS = sizeof *statistics / sizeof(uint64_t) };
    for (unsigned i = 0; i < machine->engine.vcpu_count; i++) {
        const uint64_t *from = (const uint64_t *)&machine->engine.vcpu[i]->statistics;
        for (unsigned k = 0; k < FIELDS; k++)
            ((uint64_t *)statistics)[k] += from[k];
    }
}

EXPORT void trapeze_machine_set_log(struct trapeze_machine *machine, const struct trapeze_log *log) {
    machine->engine.log = *log;
}
