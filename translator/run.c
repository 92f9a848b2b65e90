/*
 * The run loop of a vCPU: requests and interrupts first, then sleep where it is halted, then translated code, then
 * whatever translated code could not do. Here the guest's state is whole and nothing of the code cache is on the stack,
 * so this is where a vCPU stands when the world stops.
 */
#include <string.h>

#include "cpu/io.h"
#include "cpu/mode.h"
#include "cpu/ops.h"
#include "cpu/views.h"
#include "cpu/window.h"
#include "translator/engine.h"

/* ---- Overwritten code ---- */

static void drop_stale(struct engine *engine, struct cpu *cpu) {
    pthread_mutex_lock(&engine->lock);
    world_stop(engine, cpu);
    struct stale_queue *queue = &engine->stale;
    pthread_mutex_lock(&queue->mutex);
    if (cpu->stale_overflow || queue->overflow)
        invalidate_all(engine);
    for (unsigned i = 0; i < cpu->stale_count; i++) {
        if (cpu->stale[i].size)
            variable_note_store(engine, cpu->stale[i].page, cpu->stale[i].offset, cpu->stale[i].size);
        invalidate_lines(engine, cpu->stale[i].page, cpu->stale[i].lines);
    }
    for (unsigned i = 0; i < queue->count; i++)
        invalidate_lines(engine, queue->entry[i].page, queue->entry[i].lines);
    cpu->stale_count = queue->count = 0;
    cpu->stale_overflow = queue->overflow = false;
    pthread_mutex_unlock(&queue->mutex);
    world_resume(engine);
    pthread_mutex_unlock(&engine->lock);
}

/* ---- Requests ---- */

static void take_requests(struct cpu *cpu) {
    uint32_t *latched = &cpu_translator(cpu)->latched;
    __atomic_store_n(&cpu->hot.run, 1, __ATOMIC_SEQ_CST);
    uint32_t arrived = atomic_exchange(&cpu->requests, 0);
    /* Of two NMIs that come close together a processor takes the first at once and keeps the second. */
    if (arrived & *latched & REQUEST_NMI)
        arrived |= REQUEST_NMI_AGAIN;
    *latched |= arrived;
    if (cpu->nmi_blocked)
        *latched &= ~(uint32_t)REQUEST_NMI_AGAIN; /* only one is kept (SDM vol. 3A, 6.7.1) */
}

static void start_processor(struct cpu *cpu) {
    uint32_t *latched = &cpu_translator(cpu)->latched;
    if (*latched & REQUEST_RESET) {
        *latched &= ~(uint32_t)(REQUEST_RESET | REQUEST_INIT | REQUEST_SIPI | REQUEST_NMI | REQUEST_NMI_AGAIN);
        cpu_reset(cpu);
        return;
    }
    if (*latched & REQUEST_INIT) {
        *latched &= ~(uint32_t)REQUEST_INIT;
        cpu_init(cpu);
    }
    if (*latched & REQUEST_SIPI) {
        *latched &= ~(uint32_t)REQUEST_SIPI;
        if (cpu->waiting_for_sipi)
            cpu_start(cpu, cpu->sipi_vector);
    }
}

/* Delivers what is pending and allowed. CPU_STOP: shutdown. */
static enum cpu_result deliver_pending(struct cpu *cpu) {
    uint32_t *latched = &cpu_translator(cpu)->latched;
    if (cpu->waiting_for_sipi || cpu->interrupt_shadow)
        return CPU_NEXT;
    if ((*latched & REQUEST_NMI) && !cpu->nmi_blocked) {
        *latched &= ~(uint32_t)REQUEST_NMI;
        if (*latched & REQUEST_NMI_AGAIN)
            *latched ^= REQUEST_NMI_AGAIN | REQUEST_NMI;
        cpu->statistics.interrupts++;
        return cpu_deliver_nmi(cpu);
    }
    if (!(cpu->hot.rflags & FLAG_IF) || !atomic_load(&cpu->intr))
        return CPU_NEXT;
    const struct trapeze_interrupt_controller *controller = &cpu->interrupt_controller;
    int vector = controller->acknowledge ? controller->acknowledge(controller->opaque) : -1;
    if (vector < 0)
        return CPU_NEXT;
    cpu->statistics.interrupts++;
    cpu_window_sample(cpu);
    engine_log(cpu->engine, TRAPEZE_LOG_INT, "cpu %u: interrupt %d, rip %016llx", cpu->index, vector,
               (unsigned long long)cpu->hot.rip);
    return cpu_deliver_interrupt(cpu, (unsigned)vector);
}

/* What changes the state or the shadow page tables is done with the world running, as translated code does it. */
static enum cpu_result take_events(struct engine *engine, struct cpu *cpu) {
    world_enter(engine, cpu);
    start_processor(cpu);
    bool needs_gs = cpu->host_gs == CPU_NO_HOST_GS;
    if ((cpu->mode_key & MODE_WINDOW) && (needs_gs || cpu_window_is_outdated(cpu->hot.view)))
        cpu_mode_changed(cpu);
    /* A kicked vCPU leaves with its interrupts pending. */
    enum cpu_result result = cpu_translator(cpu)->latched & REQUEST_KICK ? CPU_NEXT : deliver_pending(cpu);
    world_leave(engine);
    return result;
}

static bool may_wake(const struct cpu *cpu) {
    if (cpu->waiting_for_sipi)
        return false;
    return !cpu->halted;
}

/* ---- Translation ---- */

static void mark_page(struct engine *engine, struct cpu *cpu, uint64_t page) {
    if (engine_mark_code(engine, page))
        return;
    world_stop(engine, cpu);
    invalidate_writes(engine, page);
    world_resume(engine);
}

/* Makes the block that engine_dispatch missed. CPU_STOP: shutdown while delivering a fetch fault. */
static enum cpu_result translate_missing(struct engine *engine, struct cpu *cpu) {
    struct cpu_translator *translator = cpu_translator(cpu);
    uint64_t physical = translator->missing_physical, page = physical & ~MEMORY_PAGE_MASK, needed = BLOCK_NO_PAGE;
    enum cpu_result result = CPU_NEXT;
    pthread_mutex_lock(&engine->lock);
    struct block *block = engine_find(engine, physical, cpu->hot.rip, translator->missing_key, cpu);
    if (!block)
        block = move_block(engine, cpu, physical, translator->missing_key);
    while (!block) {
        mark_page(engine, cpu, page);
        if (needed != BLOCK_NO_PAGE)
            mark_page(engine, cpu, needed);
        uint64_t second = needed;
        block = translate_block(engine, cpu, physical, translator->missing_key, &result, &needed);
        if (block)
            engine_insert(engine, block);
        else if (result == CPU_FAULT)
            break;
        else if (result == CPU_NEXT) {
            world_stop(engine, cpu);
            invalidate_next_chunk(engine);
            world_resume(engine);
            needed = second;
        }
    }
    engine_settle_lines(engine, page);
    if (block && block->second_page != BLOCK_NO_PAGE)
        engine_settle_lines(engine, block->second_page);
    pthread_mutex_unlock(&engine->lock);
    if (result != CPU_FAULT)
        return CPU_NEXT;
    world_enter(engine, cpu);
    result = cpu_deliver_exception(cpu);
    world_leave(engine);
    return result;
}

/* ---- Accesses for the caller ---- */

static void io_exit(const struct cpu_io_request *request, struct trapeze_exit *exit) {
    exit->reason = TRAPEZE_EXIT_IO;
    exit->io.space = request->space;
    exit->io.is_write = request->is_write;
    exit->io.size = request->size;
    exit->io.address = request->address;
    exit->io.value = request->value;
}

/* Whether there is an access to tell; *exit then describes it. */
static bool tell_io(struct cpu *cpu, struct trapeze_exit *exit) {
    struct cpu_io *io = &cpu->io;
    if (io->write_count) {
        io_exit(&io->write[0], exit);
        io->write_count--;
        memmove(&io->write[0], &io->write[1], io->write_count * sizeof io->write[0]);
        return true;
    }
    if (io->waiting)
        io_exit(&io->read, exit);
    return io->waiting;
}

/* ---- The loop ---- */

static void run_translated(struct engine *engine, struct cpu *cpu) {
    cpu->stop = CPU_STOP_NONE;
    cpu_translator(cpu)->missing = false;
    world_enter(engine, cpu);
    if (cpu->debug.single_step)
        cpu_translator(cpu)->slow = true;
    uint64_t host = engine_dispatch(cpu);
    if (cpu->debug.single_step)
        __atomic_store_n(&cpu->hot.run, 0, __ATOMIC_SEQ_CST); /* one instruction */
    if (host)
        engine_enter(cpu, host);
    world_leave(engine);
    if (host && cpu->debug.single_step && cpu->stop == CPU_STOP_NONE)
        cpu->stop = CPU_STOP_DEBUG;
}

static void debug_exit(struct cpu *cpu, struct trapeze_exit *exit) {
    exit->reason = TRAPEZE_EXIT_DEBUG;
    if (!cpu->debug.hit)
        exit->debug.kind = TRAPEZE_DEBUG_STEP;
    else if (cpu->debug.hit_address == cpu->hot.rip + (cpu_is_64bit(cpu) ? 0 : cpu->segment[CPU_CS].base))
        exit->debug.kind = TRAPEZE_DEBUG_BREAKPOINT;
    else
        exit->debug.kind = TRAPEZE_DEBUG_WATCHPOINT;
    exit->debug.address = cpu->debug.hit ? cpu->debug.hit_address : cpu->hot.rip;
    cpu->debug.hit = false;
}

void engine_run(struct cpu *cpu, struct trapeze_exit *exit) {
    struct engine *engine = cpu->engine;
    struct cpu_translator *translator = cpu_translator(cpu);
    if (cpu->io.waiting)
        cpu_io_answer(cpu, exit->io.value);
    *exit = (struct trapeze_exit){0};
    cpu->host_gs = CPU_NO_HOST_GS; /* this may be another thread */
    for (;;) {
        if (tell_io(cpu, exit))
            return;
        take_requests(cpu);
        if (translator->latched & REQUEST_STALE) {
            translator->latched &= ~(uint32_t)REQUEST_STALE;
            drop_stale(engine, cpu);
        }
        if (translator->latched & REQUEST_FLUSH) {
            translator->latched &= ~(uint32_t)REQUEST_FLUSH;
            cpu_flush_all(cpu);
        }
        enum cpu_result result = take_events(engine, cpu);
        if (translator->latched & REQUEST_KICK) {
            translator->latched &= ~(uint32_t)REQUEST_KICK;
            exit->reason = TRAPEZE_EXIT_KICKED;
            return;
        }
        if (result == CPU_NEXT && !may_wake(cpu)) {
            engine_sleep(cpu);
            continue;
        }
        if (result != CPU_STOP) {
            run_translated(engine, cpu);
            if (cpu->stop == CPU_STOP_HALT || cpu->stop == CPU_STOP_WAIT)
                cpu->halted = true;
            if (cpu->stop == CPU_STOP_DEBUG) {
                debug_exit(cpu, exit);
                return;
            }
            if (cpu->stop == CPU_STOP_NONE && translator->missing)
                result = translate_missing(engine, cpu);
            else
                result = cpu->stop == CPU_STOP_SHUTDOWN ? CPU_STOP : CPU_NEXT;
        }
        if (result == CPU_STOP) {
            exit->reason = TRAPEZE_EXIT_SHUTDOWN;
            return;
        }
    }
}
