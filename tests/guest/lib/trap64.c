/* Traps of 64-bit programs: descriptor tables of each processor, dispatch, and run(). */
#include "trap.h"

enum { CPUS = 8, IST_SIZE = 16384 };

/* What trap64.S builds on the stack, ascending. */
struct trap_frame {
    word gpr[16], vector, error, ip, cs, flags, sp, ss;
};

struct percpu {
    struct state *state; /* of the run in progress, NULL: none */
    word saved_sp;
    uint8_t tss[104];
};

static _Alignas(IST_SIZE) uint8_t ist_stacks[CPUS][IST_SIZE];
static struct {
    uint64_t low, high;
} idt[256];

extern uint8_t trap_stubs[];
extern uint64_t gdt[];
extern struct {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed)) gdt_pointer;
void run_enter(struct state *state, word *saved_sp);
_Noreturn void run_finish(word saved_sp);
void trap_dispatch(struct trap_frame *frame, struct percpu *cpu);

static struct percpu *this_cpu(void) {
    uint16_t selector;
    __asm__ volatile("str %0" : "=r"(selector));
    return (struct percpu *)ist_stacks[(selector - TSS_SELECTOR) / 16];
}

void gate_set(unsigned vector, const void *entry, uint16_t selector, unsigned type_and_dpl, unsigned ist) {
    uint64_t address = (uint64_t)entry;
    idt[vector].low = (address & 0xffff) | (uint64_t)selector << 16 | (uint64_t)ist << 32 |
                      (uint64_t)type_and_dpl << 40 | (address >> 16 & 0xffff) << 48;
    idt[vector].high = address >> 32;
}

void gate_default(unsigned vector) {
    bool is_user = vector == V_END || vector == V_BP || vector == V_OF;
    gate_set(vector, trap_stubs + 16 * vector, CODE_SELECTOR, is_user ? 0xee : 0x8e, 1);
}

void cpu_tables_load(unsigned index) {
    struct percpu *cpu = (struct percpu *)ist_stacks[index];
    uint64_t ist = (uint64_t)ist_stacks[index] + IST_SIZE, base = (uint64_t)cpu->tss;
    uint16_t selector = (uint16_t)(TSS_SELECTOR + 16 * index);
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) idtr = {sizeof idt - 1, (uint64_t)idt};
    memory_copy(cpu->tss + 4, &ist, 8);
    memory_copy(cpu->tss + 0x24, &ist, 8);
    cpu->tss[0x66] = 104;
    gdt[selector / 8] = 103 | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24 & 0xff) << 56;
    gdt[selector / 8 + 1] = base >> 32;
    __asm__ volatile("lgdt %0; lidt %1; ltr %2" : : "m"(gdt_pointer), "m"(idtr), "r"(selector) : "memory");
}

void *cpu_tss(unsigned index) {
    return ((struct percpu *)ist_stacks[index])->tss;
}

void traps_init(void) {
    for (unsigned vector = 0; vector < 256; vector++)
        gate_default(vector);
    cpu_tables_load(0);
}

static void state_from_frame(struct state *state, const struct trap_frame *frame) {
    memory_copy(state->gpr, frame->gpr, sizeof frame->gpr);
    state->gpr[RSP] = state->sp = frame->sp;
    state->ip = frame->ip;
    state->cs = frame->cs;
    state->flags = frame->flags;
    state->ss = frame->ss;
    state->vector = frame->vector;
    state->error = frame->error;
    state->cr2 = read_cr2();
}

static void state_to_frame(const struct state *state, struct trap_frame *frame) {
    memory_copy(frame->gpr, state->gpr, sizeof frame->gpr);
    frame->sp = state->sp;
    frame->ip = state->ip;
    frame->cs = state->cs;
    frame->flags = state->flags;
    frame->ss = state->ss;
}

void trap_dispatch(struct trap_frame *frame, struct percpu *cpu) {
    struct state state;
    state_from_frame(&state, frame);
    trap_handler *handler = trap_handlers[frame->vector & 255];
    if (handler && handler(&state)) {
        state_to_frame(&state, frame);
        return;
    }
    if (!cpu->state)
        trap_unexpected(&state);
    *cpu->state = state;
    cpu->state = NULL;
    run_finish(cpu->saved_sp);
}

void run(struct state *state) {
    struct percpu *cpu = this_cpu();
    cpu->state = state;
    state->gpr[RSP] = state->sp;
    run_enter(state, &cpu->saved_sp);
}

void state_init(struct state *state, const void *code) {
    memory_set(state, 0, sizeof *state);
    for (unsigned i = 0; i < GPRS; i++)
        state->gpr[i] = 0x1111111111111111u * i + 0x0101;
    state->ip = (word)code;
    state->cs = CODE_SELECTOR;
    state->ss = DATA_SELECTOR;
    state->flags = FIXED;
    state->gpr[RSP] = state->sp = (word)snippet_stack_top;
}

void state_init_user(struct state *state, const void *code) {
    state_init(state, code);
    state->ip += USER_ALIAS;
    state->sp += USER_ALIAS;
    state->gpr[RSP] = state->sp;
    state->cs = USER_CODE;
    state->ss = USER_DATA;
}
