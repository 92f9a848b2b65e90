/*
 * Exceptions, interrupts and the INT instructions: which image of RIP and RFLAGS is pushed, the interrupt table of real
 * mode, the redirection of VME, and faults while an event is delivered, up to the shutdown (SDM vol. 3A, chapter 6 and
 * 21.3; vol. 2, INT n).
 */
#include "cpu/interrupt.h"
#include "cpu/access.h"
#include "cpu/mode.h"
#include "cpu/ops.h"
#include "cpu/segment.h"
#include "cpu/stack.h"

enum { DR6_TRAPS = 0xf, DR6_BD = 1 << 13, DR7_GD = 1 << 13 };

/* ---- Interrupt tables of real and virtual-8086 mode ---- */

/* Enters the handler of a table of 4-byte far pointers (SDM vol. 3A, 21.1.4). */
static enum cpu_result enter_real_handler(struct cpu *cpu, const struct interrupt_event *event, uint64_t table,
                                          uint64_t cleared_flags) {
    const uint64_t frame[3] = {event->flags, cpu->segment[CPU_CS].selector, event->return_rip};
    struct stack stack;
    uint32_t pointer;

    if (cpu_read_linear(cpu, (uint32_t)(table + event->vector * 4), &pointer, 4, ACCESS_READ) != CPU_NEXT)
        return CPU_FAULT;
    stack_current(cpu, &stack);
    if (stack_push(cpu, &stack, frame, 3, 2) != CPU_NEXT)
        return CPU_FAULT;
    segment_set_real_code(cpu, (uint16_t)(pointer >> 16));
    cpu_rsp(cpu) = stack.pointer;
    cpu->hot.rip = pointer & 0xffff;
    cpu->hot.rflags &= ~cleared_flags;
    cpu->interrupt_shadow = false;
    cpu_level_changed(cpu);
    return CPU_JUMP;
}

static enum cpu_result deliver_real(struct cpu *cpu, const struct interrupt_event *event) {
    if (event->vector * 4u + 3 > cpu->idtr.limit)
        return cpu_fault_code(cpu, VECTOR_GP, event->vector << 3 | 2);
    return enter_real_handler(cpu, event, cpu->idtr.base, FLAG_IF | FLAG_TF | FLAG_AC | FLAG_RF);
}

/* INT n of a virtual-8086 task with its own handlers: IOPL is shown as 3, and VIF in place of IF (21.3.3.4). */
static enum cpu_result deliver_vm86(struct cpu *cpu, const struct interrupt_event *event) {
    struct interrupt_event shown = *event;

    if (cpu_iopl(cpu) == 3)
        return enter_real_handler(cpu, event, 0, FLAG_IF | FLAG_TF | FLAG_RF);
    shown.flags = (event->flags & ~(uint64_t)FLAG_IF) | FLAG_IOPL;
    if (event->flags & FLAG_VIF)
        shown.flags |= FLAG_IF;
    return enter_real_handler(cpu, &shown, 0, FLAG_VIF | FLAG_TF | FLAG_RF);
}

/* The bit of a vector in the redirection map in front of the TSS's I/O map (21.3.3, figure 21-5). */
static enum cpu_result is_redirected(struct cpu *cpu, unsigned vector, bool *answer) {
    enum { IO_MAP_BASE = 0x66, MAP_BYTES = 32 };
    uint16_t io_map;
    uint8_t bits;

    if (!(cpu->tr.attributes & DESCRIPTOR_IS_32BIT) || cpu->tr.limit < IO_MAP_BASE + 1)
        return cpu_fault_code(cpu, VECTOR_GP, 0);
    if (cpu_read_linear(cpu, (uint32_t)(cpu->tr.base + IO_MAP_BASE), &io_map, 2, ACCESS_READ | ACCESS_SYSTEM) !=
        CPU_NEXT)
        return CPU_FAULT;

    const uint32_t offset = io_map - MAP_BYTES + vector / 8;

    if (offset > cpu->tr.limit)
        return cpu_fault_code(cpu, VECTOR_GP, 0);
    if (cpu_read_linear(cpu, (uint32_t)(cpu->tr.base + offset), &bits, 1, ACCESS_READ | ACCESS_SYSTEM) != CPU_NEXT)
        return CPU_FAULT;
    *answer = !(bits >> (vector % 8) & 1);
    return CPU_NEXT;
}

/* ---- One event ---- */

/* A fault of the delivery tells by EXT that the program did not ask for the event (6.13). */
static enum cpu_result deliver(struct cpu *cpu, const struct interrupt_event *event) {
    const enum cpu_result result = cpu_is_protected(cpu) ? gate_deliver(cpu, event) : deliver_real(cpu, event);
    const unsigned vector = cpu->exception.vector;

    if (result == CPU_FAULT && !event->is_software && vector >= VECTOR_TS && vector <= VECTOR_GP)
        cpu->exception.error_code |= 1;
    return result;
}

/* ---- Exceptions ---- */

enum severity { BENIGN, CONTRIBUTORY, PAGE_FAULT, DOUBLE_FAULT };

/* SDM vol. 3A, table 6-4 */
static enum severity severity_of(const struct cpu_exception *exception) {
    if (exception->is_software)
        return BENIGN;
    switch (exception->vector) {
    case VECTOR_DE:
    case VECTOR_TS:
    case VECTOR_NP:
    case VECTOR_SS:
    case VECTOR_GP:
        return CONTRIBUTORY;
    case VECTOR_PF:
        return PAGE_FAULT;
    case VECTOR_DF:
        return DOUBLE_FAULT;
    default:
        return BENIGN;
    }
}

/* Whether the second fault cannot be handled after the first one: table 6-5. */
static bool is_double(enum severity first, enum severity second) {
    switch (first) {
    case CONTRIBUTORY:
        return second == CONTRIBUTORY;
    case PAGE_FAULT:
    case DOUBLE_FAULT:
        return second == CONTRIBUTORY || second == PAGE_FAULT;
    default:
        return false;
    }
}

/* Faults push RF set, so that the instruction is not stopped again by the same breakpoint (17.3.1.1). */
static bool pushes_rf(const struct cpu_exception *exception) {
    if (exception->is_software || exception->is_trap)
        return false;
    switch (exception->vector) {
    case VECTOR_DB:
        return (exception->dr6 & DR6_BD) != 0;
    case VECTOR_DF:
    case VECTOR_MC:
        return false;
    default:
        return true;
    }
}

/* What an exception leaves in control and debug registers, whether its handler is reached or not. */
static void note_cause(struct cpu *cpu, const struct cpu_exception *exception) {
    if (exception->vector == VECTOR_PF) {
        cpu->cr2 = exception->cr2;
    } else if (exception->vector == VECTOR_DB) {
        /* B0 to B3 tell of the last debug exception alone, the others stay until software clears them. */
        cpu->dr[6] = (cpu->dr[6] & ~(uint64_t)DR6_TRAPS) | exception->dr6;
        cpu->dr[7] &= ~(uint64_t)DR7_GD;
    }
}

/* The RF that an exception pushes: traps show it between the iterations of a string instruction alone. */
static uint64_t pushed_rf(const struct cpu *cpu, const struct cpu_exception *exception) {
    if (pushes_rf(exception))
        return FLAG_RF;
    if (exception->is_trap && cpu->hot.rip != cpu->paused_string)
        return 0;
    return cpu->hot.rflags & FLAG_RF;
}

static enum cpu_result deliver_one(struct cpu *cpu, const struct cpu_exception *exception) {
    const struct interrupt_event event = {
        .vector = exception->vector,
        .has_error_code = exception->has_error_code,
        .is_software = exception->is_software,
        .error_code = exception->error_code,
        .return_rip = cpu->hot.rip,
        .flags = (cpu->hot.rflags & ~(uint64_t)FLAG_RF) | pushed_rf(cpu, exception),
    };

    return deliver(cpu, &event);
}

enum cpu_result cpu_deliver_exception(struct cpu *cpu) {
    enum cpu_result result;

    for (;;) {
        const struct cpu_exception exception = cpu->exception;

        note_cause(cpu, &exception);
        cpu->statistics.exceptions++;
        cpu->delivering = true;
        cpu->delivering_vector = exception.vector;
        result = deliver_one(cpu, &exception);
        if (result != CPU_FAULT)
            break;

        const enum severity first = severity_of(&exception);

        if (!is_double(first, severity_of(&cpu->exception)))
            continue;
        note_cause(cpu, &cpu->exception);
        if (first == DOUBLE_FAULT) {
            cpu->stop = CPU_STOP_SHUTDOWN;
            result = CPU_STOP;
            break;
        }
        cpu_fault_code(cpu, VECTOR_DF, 0);
    }
    cpu->delivering = false;
    return result;
}

/* ---- Interrupts ---- */

static enum cpu_result deliver_external(struct cpu *cpu, unsigned vector) {
    const struct interrupt_event event = {
        .vector = (uint8_t)vector, .return_rip = cpu->hot.rip, .flags = cpu->hot.rflags};

    cpu->halted = false;

    const enum cpu_result result = deliver(cpu, &event);

    /* An interrupt is benign: a fault of its delivery is an exception of its own. */
    return result == CPU_FAULT ? cpu_deliver_exception(cpu) : result;
}

enum cpu_result cpu_deliver_interrupt(struct cpu *cpu, unsigned vector) {
    return deliver_external(cpu, vector);
}

enum cpu_result cpu_deliver_nmi(struct cpu *cpu) {
    cpu->nmi_blocked = true;
    return deliver_external(cpu, VECTOR_NMI);
}

/* ---- Instructions ---- */

bool interrupt_ends_single_step(cpu_op_function *function) {
    return function == cpu_op_int_n || function == cpu_op_int3 || function == cpu_op_int1 || function == cpu_op_into ||
           function == cpu_op_syscall || function == cpu_op_sysret;
}

static struct interrupt_event software_event(const struct cpu *cpu, const struct cpu_op *op, unsigned vector) {
    return (struct interrupt_event){
        .vector = (uint8_t)vector,
        .is_software = true,
        .return_rip = segment_next_rip(cpu, op->length),
        .flags = cpu->hot.rflags & ~(uint64_t)FLAG_RF,
    };
}

enum cpu_result cpu_op_int_n(struct cpu *cpu, const struct cpu_op *op) {
    const struct interrupt_event event = software_event(cpu, op, op->immediate & 0xff);
    bool redirected = false;

    if (cpu_is_vm86(cpu)) {
        if ((cpu->cr4 & CR4_VME) && is_redirected(cpu, event.vector, &redirected) != CPU_NEXT)
            return CPU_FAULT;
        if (redirected)
            return deliver_vm86(cpu, &event);
        if (cpu_iopl(cpu) < 3)
            return cpu_fault_code(cpu, VECTOR_GP, 0);
    }
    return deliver(cpu, &event);
}

enum cpu_result cpu_op_int3(struct cpu *cpu, const struct cpu_op *op) {
    const struct interrupt_event event = software_event(cpu, op, VECTOR_BP);

    return deliver(cpu, &event);
}

enum cpu_result cpu_op_into(struct cpu *cpu, const struct cpu_op *op) {
    const struct interrupt_event event = software_event(cpu, op, VECTOR_OF);

    if (cpu_is_64bit(cpu))
        return cpu_fault(cpu, VECTOR_UD);
    return cpu->hot.rflags & FLAG_OF ? deliver(cpu, &event) : CPU_NEXT;
}

/* A privileged software exception: no look at the gate's DPL, and EXT is set (vol. 2, INT n, note on INT1). */
enum cpu_result cpu_op_int1(struct cpu *cpu, const struct cpu_op *op) {
    struct interrupt_event event = software_event(cpu, op, VECTOR_DB);

    event.is_software = false;
    /* Data breakpoints that a MOV SS in front has held off come with it, in one exception. */
    if (cpu->watch_hits)
        cpu->dr[6] = (cpu->dr[6] & ~(uint64_t)DR6_TRAPS) | cpu->watch_hits;
    cpu->watch_hits = 0;
    return deliver(cpu, &event);
}
