/* Traps of 32-bit programs: descriptor tables, dispatch, and run(). One processor. */
#include "trap.h"

/* What trap32.S builds on the stack, ascending. sp and up are there only when the privilege level changed. */
struct trap_frame {
    word gpr_reversed[8];
    word gs, fs, es, ds;
    word vector, error, ip, cs, flags;
    word sp, ss, vm_es, vm_ds, vm_fs, vm_gs;
};

/* What run_enter pops. */
struct run_image {
    word gpr_reversed[8];
    word gs, fs, es, ds;
    word ip, cs, flags;
    word sp, ss, vm_es, vm_ds, vm_fs, vm_gs;
};

static uint8_t tss[104] __attribute__((aligned(128)));
static uint64_t idt[256];
static struct state *running;
static word running_sp;

extern uint8_t trap_stubs[], trap_stack_top[];
extern uint64_t gdt[];
extern struct {
    uint16_t limit;
    uint32_t base;
} __attribute__((packed)) gdt_pointer;
void run_enter(void *image, word *saved_sp);
_Noreturn void run_finish(word saved_sp);
void trap_dispatch(struct trap_frame *frame);

void gate_set(unsigned vector, const void *entry, uint16_t selector, unsigned type_and_dpl, unsigned ist) {
    word address = (word)entry;
    idt[vector] = (address & 0xffff) | (uint64_t)selector << 16 | (uint64_t)type_and_dpl << 40 |
                  (uint64_t)(address >> 16) << 48;
}

void gate_default(unsigned vector) {
    bool is_user = vector == V_END || vector == V_BP || vector == V_OF;
    gate_set(vector, trap_stubs + 16 * vector, CODE_SELECTOR, is_user ? 0xee : 0x8e, 0);
}

void *cpu_tss(unsigned index) {
    return tss;
}

void cpu_tables_load(unsigned index) {
    uint32_t stack = (uint32_t)trap_stack_top, base = (uint32_t)tss;
    struct {
        uint16_t limit;
        uint32_t base;
    } __attribute__((packed)) idtr = {sizeof idt - 1, (uint32_t)idt};
    memory_copy(tss + 4, &stack, 4);
    tss[8] = DATA_SELECTOR;
    tss[0x66] = 104;
    gdt[TSS_SELECTOR / 8] = 103 | (uint64_t)(base & 0xffffff) << 16 | 0x89ull << 40 | (uint64_t)(base >> 24) << 56;
    __asm__ volatile("lgdt %0; lidt %1; ltr %w2" : : "m"(gdt_pointer), "m"(idtr), "r"(TSS_SELECTOR) : "memory");
}

void traps_init(void) {
    for (unsigned vector = 0; vector < 256; vector++)
        gate_default(vector);
    cpu_tables_load(0);
}

static bool frame_is_from_outside(const struct trap_frame *frame) {
    return (frame->cs & 3) || (frame->flags & VM);
}

static void state_from_frame(struct state *state, const struct trap_frame *frame) {
    bool is_vm = (frame->flags & VM) != 0, outside = frame_is_from_outside(frame);
    for (unsigned i = 0; i < 8; i++)
        state->gpr[i] = frame->gpr_reversed[7 - i];
    state->sp = outside ? frame->sp : (word)&frame->sp;
    state->gpr[RSP] = state->sp;
    state->ss = outside ? frame->ss : DATA_SELECTOR;
    state->ds = is_vm ? frame->vm_ds : frame->ds;
    state->es = is_vm ? frame->vm_es : frame->es;
    state->fs = is_vm ? frame->vm_fs : frame->fs;
    state->gs = is_vm ? frame->vm_gs : frame->gs;
    state->ip = frame->ip;
    state->cs = frame->cs;
    state->flags = frame->flags;
    state->vector = frame->vector;
    state->error = frame->error;
    state->cr2 = read_cr2();
}

/* A handler may change registers, ip and flags. */
static void state_to_frame(const struct state *state, struct trap_frame *frame) {
    for (unsigned i = 0; i < 8; i++)
        frame->gpr_reversed[7 - i] = state->gpr[i];
    frame->ip = state->ip;
    frame->flags = state->flags;
}

void trap_dispatch(struct trap_frame *frame) {
    struct state state;
    state_from_frame(&state, frame);
    trap_handler *handler = trap_handlers[frame->vector & 255];
    if (handler && handler(&state)) {
        state_to_frame(&state, frame);
        return;
    }
    if (!running)
        trap_unexpected(&state);
    *running = state;
    running = NULL;
    run_finish(running_sp);
}

void run(struct state *state) {
    bool outside = (state->cs & 3) || (state->flags & VM);
    size_t size = outside ? sizeof(struct run_image) : offsetof(struct run_image, sp);
    static struct run_image outside_image;
    struct run_image *image = outside ? &outside_image : (struct run_image *)(state->sp - size);
    for (unsigned i = 0; i < 8; i++)
        image->gpr_reversed[7 - i] = state->gpr[i];
    image->ds = state->flags & VM ? DATA_SELECTOR : state->ds;
    image->es = state->flags & VM ? DATA_SELECTOR : state->es;
    image->fs = state->flags & VM ? DATA_SELECTOR : state->fs;
    image->gs = state->flags & VM ? DATA_SELECTOR : state->gs;
    image->ip = state->ip;
    image->cs = state->cs;
    image->flags = state->flags;
    if (outside) {
        image->sp = state->sp;
        image->ss = state->ss;
        image->vm_es = state->es;
        image->vm_ds = state->ds;
        image->vm_fs = state->fs;
        image->vm_gs = state->gs;
    }
    state->gpr[RSP] = state->sp;
    running = state;
    run_enter(image, &running_sp);
}

void state_init(struct state *state, const void *code) {
    memory_set(state, 0, sizeof *state);
    for (unsigned i = 0; i < GPRS; i++)
        state->gpr[i] = 0x11111111u * i + 0x0101;
    state->ip = (word)code;
    state->cs = CODE_SELECTOR;
    state->ss = state->ds = state->es = state->fs = state->gs = DATA_SELECTOR;
    state->flags = FIXED;
    state->gpr[RSP] = state->sp = (word)snippet_stack_top;
}

void state_init_user(struct state *state, const void *code) {
    state_init(state, code);
    state->cs = USER_CODE;
    state->ss = state->ds = state->es = state->fs = state->gs = USER_DATA;
}
