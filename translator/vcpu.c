/* libtrapeze: virtual CPUs, their state and their events. */
#include <asm/hwcap2.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cpu/mode.h"
#include "cpu/model.h"
#include "cpu/ops.h"
#include "cpu/views.h"
#include "cpu/xstate.h"
#include "translator/machine.h"

#define EXPORT __attribute__((visibility("default")))
#define SHADOW_STACK_SIZE (64u * 1024)

/* ---- Creation ---- */

/* Each with a guard page below, and at its top a sentinel. */
static bool create_shadow_stacks(struct trapeze_vcpu *vcpu) {
    size_t one = SHADOW_STACK_SIZE + MEMORY_PAGE, size = SHADOW_STACKS * one + MEMORY_PAGE;
    uint8_t *stacks = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stacks == MAP_FAILED)
        return false;
    vcpu->shadow_stacks = stacks;
    struct cpu_translator *translator = cpu_translator(vcpu->cpu);
    for (unsigned i = 0; i < SHADOW_STACKS; i++) {
        uint8_t *stack = stacks + i * one;
        mprotect(stack, MEMORY_PAGE, PROT_NONE);
        translator->stack_limit[i] = (uint64_t)stack + MEMORY_PAGE;
        translator->stack_base[i] = (uint64_t)stack + one - 64;
    }
    mprotect(stacks + SHADOW_STACKS * one, MEMORY_PAGE, PROT_NONE);
    return true;
}

EXPORT enum trapeze_status trapeze_vcpu_create(struct trapeze_machine *machine, unsigned index,
                                               struct trapeze_vcpu **result) {
    struct engine *engine = &machine->engine;
    if (index >= ENGINE_VCPUS || machine->vcpu[index] || index != engine->vcpu_count)
        return TRAPEZE_INVALID;
    struct trapeze_vcpu *vcpu = calloc(1, sizeof *vcpu);
    if (!vcpu)
        return TRAPEZE_NO_MEMORY;
    vcpu->machine = machine;
    vcpu->state_size = (sizeof(struct cpu) + MEMORY_PAGE - 1) & ~(size_t)MEMORY_PAGE_MASK;
    int fd = memfd_create("trapeze-vcpu", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)vcpu->state_size) != 0)
        goto failed;
    void *state = mmap(NULL, vcpu->state_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (state == MAP_FAILED)
        goto failed;
    vcpu->state = state;
    /* The struct ends where the pages end, next to the tables of a view. */
    struct cpu *cpu = (struct cpu *)((uint8_t *)state + vcpu->state_size - sizeof(struct cpu));
    vcpu->cpu = cpu;
    cpu->index = index;
    cpu->config = &machine->config;
    cpu->memory = &machine->memory;
    cpu->model = machine->model;
    cpu->engine = engine;
    cpu->call_full = engine_call_full;
    cpu->find_x87 = engine_find_x87;
    cpu->has_fsgsbase = (getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE) && !(machine->config.without & TRAPEZE_WITHOUT_FSGSBASE);
    cpu->windows = (unsigned)machine->config.windows;
    cpu->hot.countdown = cpu->hot.pauses = 1;
    cpu->views.state_fd = fd;
    cpu->views.state_size = vcpu->state_size;
    if (!cpu_views_create(cpu) || !create_shadow_stacks(vcpu))
        goto failed;
    cpu->views.space[0].in_use = true;
    cpu->hot.view = cpu->views.kernel;
    cpu_reset(cpu);
    engine_reset_stacks(cpu);
    machine->vcpu[index] = vcpu;
    pthread_mutex_lock(&engine->lock);
    world_stop(engine, NULL);
    variable_forget_all(engine);
    engine->vcpu[index] = cpu;
    engine->vcpu_count = index + 1;
    world_resume(engine);
    pthread_mutex_unlock(&engine->lock);
    *result = vcpu;
    return TRAPEZE_OK;
failed:
    if (fd >= 0 && !vcpu->cpu)
        close(fd);
    trapeze_vcpu_destroy(vcpu);
    return TRAPEZE_HOST_ERROR;
}

static void destroy_view(struct view *view, uint64_t unused) {
    (void)unused;
    view_destroy(view);
}

EXPORT void trapeze_vcpu_destroy(struct trapeze_vcpu *vcpu) {
    if (!vcpu)
        return;
    struct trapeze_machine *machine = vcpu->machine;
    if (vcpu->cpu) {
        for (unsigned i = 0; i < ENGINE_VCPUS; i++)
            if (machine->vcpu[i] == vcpu) {
                machine->vcpu[i] = NULL;
                machine->engine.vcpu[i] = NULL;
                while (machine->engine.vcpu_count && !machine->engine.vcpu[machine->engine.vcpu_count - 1])
                    machine->engine.vcpu_count--;
            }
        view_set_each(&vcpu->cpu->views, destroy_view, 0);
        engine_release_joined(vcpu->cpu);
        close(vcpu->cpu->views.state_fd);
    }
    if (vcpu->shadow_stacks)
        munmap(vcpu->shadow_stacks, SHADOW_STACKS * (SHADOW_STACK_SIZE + MEMORY_PAGE) + MEMORY_PAGE);
    if (vcpu->state)
        munmap(vcpu->state, vcpu->state_size);
    free(vcpu);
}

EXPORT void trapeze_vcpu_set_interrupt_controller(struct trapeze_vcpu *vcpu,
                                                  const struct trapeze_interrupt_controller *controller) {
    vcpu->cpu->interrupt_controller = *controller;
}

/* ---- Running ---- */

EXPORT enum trapeze_status trapeze_vcpu_run(struct trapeze_vcpu *vcpu, struct trapeze_exit *exit) {
    if (atomic_exchange(&vcpu->running, true))
        return TRAPEZE_BUSY;
    if (!signals_attach(vcpu->cpu)) {
        *exit = (struct trapeze_exit){0};
        exit->reason = TRAPEZE_EXIT_ERROR;
        exit->text = "no memory for a signal stack";
    } else {
        engine_run(vcpu->cpu, exit);
        signals_attach(NULL);
    }
    atomic_store(&vcpu->running, false);
    return TRAPEZE_OK;
}

EXPORT void trapeze_vcpu_kick(struct trapeze_vcpu *vcpu) {
    engine_wake(vcpu->cpu, REQUEST_KICK);
}

/* ---- State ---- */

EXPORT void trapeze_vcpu_get_registers(const struct trapeze_vcpu *vcpu, struct trapeze_registers *registers) {
    const struct cpu *cpu = vcpu->cpu;
    *registers = (struct trapeze_registers){.rip = cpu->hot.rip, .rflags = cpu->hot.rflags, .ldtr = cpu->ldtr,
                                            .tr = cpu->tr, .cr0 = cpu->cr0, .cr2 = cpu->cr2, .cr3 = cpu->cr3,
                                            .cr4 = cpu->cr4, .efer = cpu->msr.efer, .xcr0 = cpu->xcr0};
    memcpy(registers->gpr, cpu->hot.gpr, sizeof registers->gpr);
    memcpy(registers->segment, cpu->segment, sizeof registers->segment);
    memcpy(registers->dr, cpu->dr, sizeof registers->dr);
    registers->gdtr.base = cpu->gdtr.base;
    registers->gdtr.limit = cpu->gdtr.limit;
    registers->idtr.base = cpu->idtr.base;
    registers->idtr.limit = cpu->idtr.limit;
    const struct trapeze_interrupt_controller *controller = &cpu->interrupt_controller;
    if (controller->get_tpr)
        registers->cr8 = controller->get_tpr(controller->opaque);
}

static bool is_possible(const struct trapeze_registers *registers) {
    if ((registers->cr0 & CR0_PG) && !(registers->cr0 & CR0_PE))
        return false;
    if ((registers->efer & EFER_LMA) && (!(registers->cr0 & CR0_PG) || !(registers->cr4 & CR4_PAE)))
        return false;
    return (registers->rflags & FLAG_FIXED) != 0;
}

EXPORT enum trapeze_status trapeze_vcpu_set_registers(struct trapeze_vcpu *vcpu,
                                                      const struct trapeze_registers *registers) {
    struct cpu *cpu = vcpu->cpu;
    if (!is_possible(registers))
        return TRAPEZE_INVALID;
    memcpy(cpu->hot.gpr, registers->gpr, sizeof registers->gpr);
    memcpy(cpu->segment, registers->segment, sizeof registers->segment);
    memcpy(cpu->dr, registers->dr, sizeof registers->dr);
    cpu->hot.rip = registers->rip;
    cpu->hot.rflags = registers->rflags;
    cpu->ldtr = registers->ldtr;
    cpu->tr = registers->tr;
    cpu->gdtr.base = registers->gdtr.base;
    cpu->gdtr.limit = registers->gdtr.limit;
    cpu->idtr.base = registers->idtr.base;
    cpu->idtr.limit = registers->idtr.limit;
    cpu->cr0 = registers->cr0;
    cpu->cr2 = registers->cr2;
    cpu->cr3 = registers->cr3;
    cpu->cr4 = registers->cr4;
    cpu->msr.efer = registers->efer;
    if (registers->xcr0)
        cpu->xcr0 = registers->xcr0;
    bool is_real = !(cpu->cr0 & CR0_PE);
    cpu->cpl = is_real ? 0 : cpu_is_vm86(cpu) ? 3 : (uint8_t)(cpu->segment[CPU_SS].attributes >> SEGMENT_DPL_SHIFT & 3);
    cpu_flush_all(cpu);
    cpu_mode_changed(cpu);
    return TRAPEZE_OK;
}

EXPORT void trapeze_vcpu_get_xsave(const struct trapeze_vcpu *vcpu, uint8_t image[TRAPEZE_XSAVE_SIZE]) {
    memcpy(image, vcpu->cpu->xsave, TRAPEZE_XSAVE_SIZE);
    x87_note_image(vcpu->cpu, image);
    x87_store_pointers(vcpu->cpu, image, true);
}

EXPORT enum trapeze_status trapeze_vcpu_set_xsave(struct trapeze_vcpu *vcpu, const uint8_t image[TRAPEZE_XSAVE_SIZE]) {
    uint64_t header[8];
    uint32_t mxcsr;
    memcpy(header, image + 512, sizeof header);
    memcpy(&mxcsr, image + 24, sizeof mxcsr);
    if ((header[0] & ~vcpu->cpu->engine->vector_mask) || header[1] || (mxcsr & 0xffff0000u))
        return TRAPEZE_INVALID;
    for (unsigned i = 2; i < 8; i++)
        if (header[i])
            return TRAPEZE_INVALID;
    memcpy(vcpu->cpu->xsave, image, TRAPEZE_XSAVE_SIZE);
    x87_load_pointers(vcpu->cpu, vcpu->cpu->xsave, true);
    return TRAPEZE_OK;
}

EXPORT bool trapeze_vcpu_set_msr(struct trapeze_vcpu *vcpu, uint32_t index, uint64_t value) {
    return cpu_write_msr(vcpu->cpu, index, value);
}

EXPORT void trapeze_vcpu_get_events(const struct trapeze_vcpu *vcpu, struct trapeze_events *events) {
    const struct cpu *cpu = vcpu->cpu;
    uint32_t pending = atomic_load(&((struct cpu *)cpu)->requests) | cpu_translator((struct cpu *)cpu)->latched;
    *events = (struct trapeze_events){.halted = cpu->halted,
                                      .waiting_for_sipi = cpu->waiting_for_sipi,
                                      .interrupt_shadow = cpu->interrupt_shadow,
                                      .nmi_blocked = cpu->nmi_blocked,
                                      .nmi_pending = pending & REQUEST_NMI,
                                      .init_pending = pending & REQUEST_INIT,
                                      .sipi_pending = pending & REQUEST_SIPI,
                                      .sipi_vector = cpu->sipi_vector};
}

EXPORT void trapeze_vcpu_set_events(struct trapeze_vcpu *vcpu, const struct trapeze_events *events) {
    struct cpu *cpu = vcpu->cpu;
    cpu->halted = events->halted;
    cpu->waiting_for_sipi = events->waiting_for_sipi;
    cpu->interrupt_shadow = events->interrupt_shadow;
    cpu->nmi_blocked = events->nmi_blocked;
    cpu->sipi_vector = events->sipi_vector;
    const uint32_t settable = REQUEST_NMI | REQUEST_NMI_AGAIN | REQUEST_INIT | REQUEST_SIPI;
    atomic_fetch_and(&cpu->requests, ~settable);
    cpu_translator(cpu)->latched &= ~settable;
    uint32_t pending = (events->nmi_pending ? REQUEST_NMI : 0) | (events->init_pending ? REQUEST_INIT : 0) |
                       (events->sipi_pending ? REQUEST_SIPI : 0);
    if (pending)
        engine_wake(cpu, pending);
}

EXPORT bool trapeze_vcpu_translate(struct trapeze_vcpu *vcpu, guest_linear linear, guest_physical *physical) {
    return cpu_walk_debug(vcpu->cpu, linear.value, physical);
}

/* ---- Debugging ---- */

static void collect_breakpoints(struct engine *engine) {
    engine->breakpoint_count = 0;
    for (unsigned i = 0; i < engine->vcpu_count; i++) {
        const struct cpu_debug *debug = &engine->vcpu[i]->debug;
        for (unsigned k = 0; k < debug->count; k++) {
            if (debug->point[k].type != TRAPEZE_BREAK_EXECUTE)
                continue;
            bool known = false;
            for (unsigned n = 0; n < engine->breakpoint_count; n++)
                known |= engine->breakpoint[n] == debug->point[k].linear;
            if (!known && engine->breakpoint_count < sizeof engine->breakpoint / sizeof *engine->breakpoint)
                engine->breakpoint[engine->breakpoint_count++] = debug->point[k].linear;
        }
    }
}

EXPORT enum trapeze_status trapeze_vcpu_set_debug(struct trapeze_vcpu *vcpu, bool single_step,
                                                  const struct trapeze_breakpoint *breakpoints, size_t count) {
    struct engine *engine = &vcpu->machine->engine;
    struct cpu_debug *debug = &vcpu->cpu->debug;
    if (count > CPU_BREAKPOINTS)
        return TRAPEZE_INVALID;
    for (size_t i = 0; i < count; i++)
        if (breakpoints[i].length == 0 || breakpoints[i].length > MEMORY_PAGE)
            return TRAPEZE_INVALID;
    debug->single_step = single_step;
    bool same = count == debug->count && (!count || memcmp(debug->point, breakpoints, count * sizeof *breakpoints) == 0);
    if (same)
        return TRAPEZE_OK;
    pthread_mutex_lock(&engine->lock);
    world_stop(engine, NULL);
    if (count)
        memcpy(debug->point, breakpoints, count * sizeof *breakpoints);
    debug->count = (uint32_t)count;
    collect_breakpoints(engine);
    invalidate_all(engine);
    cpu_flush_all(vcpu->cpu);
    world_resume(engine);
    pthread_mutex_unlock(&engine->lock);
    return TRAPEZE_OK;
}
