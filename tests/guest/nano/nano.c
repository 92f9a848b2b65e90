/* The measurement, and the gates whose handlers are as short as they can be. See nano.h. */
#include "nano/nano.h"

#ifdef __x86_64__
#define IRET  "iretq"
#define STACK "%rsp"
#define AX    "%rax"
#define WORD  "8"
#else
#define IRET  "iretl"
#define STACK "%esp"
#define AX    "%eax"
#define WORD  "4"
#endif

enum { ENOUGH_CYCLES = 1000000, MOST_LOOPS = 1 << 22, RUNS = 5 };

volatile unsigned nano_traps;

__asm__(".pushsection .text\n"
        ".globl nano_iret, nano_skip, nano_skip_error, nano_map_error, nano_clts, nano_eoi\n"
        "nano_iret: incl nano_traps\n" IRET "\n"
        "nano_skip: incl nano_traps\n addl $2, (" STACK ")\n" IRET "\n"
        "nano_skip_error: incl nano_traps\n add $" WORD ", " STACK "\n addl $2, (" STACK ")\n" IRET "\n"
        "nano_map_error: incl nano_traps\n push " AX "\n mov nano_entry, " AX "\n orb $1, (" AX ")\n pop " AX "\n"
        "add $" WORD ", " STACK "\n" IRET "\n"
        "nano_clts: incl nano_traps\n clts\n" IRET "\n"
        "nano_eoi: incl nano_traps\n push " AX "\n mov $0xfee000b0, %eax\n movl $0, (" AX ")\n pop " AX "\n" IRET "\n"
        ".popsection");

void nano_run_user(const void *code, unsigned loops) {
    struct state state;
    state_init_user(&state, code);
    state.gpr[RBX] = loops;
    run(&state);
    check_quiet("user code comes to its end", state.vector, V_END);
}

static void gates_init(void) {
    gate_set(V_NANO, nano_iret, CODE_SELECTOR, 0xee, 0);
    gate_set(V_NANO_IPI, nano_eoi, CODE_SELECTOR, 0x8e, 0);
    gate_set(V_BP, nano_iret, CODE_SELECTOR, 0xee, 0);
    gate_set(V_DE, nano_skip, CODE_SELECTOR, 0x8e, 0);
    gate_set(V_UD, nano_skip, CODE_SELECTOR, 0x8e, 0);
    gate_set(V_NM, nano_clts, CODE_SELECTOR, 0x8e, 0);
    gate_set(V_GP, nano_skip_error, CODE_SELECTOR, 0x8e, 0);
    gate_set(V_PF, nano_skip_error, CODE_SELECTOR, 0x8e, 0);
}

/* No library is there for a division of 64 bits. */
static uint32_t divide(uint64_t value, uint32_t by) {
    uint32_t quotient, rest;
    if (value >> 32 >= by)
        return UINT32_MAX;
    __asm__("divl %4" : "=a"(quotient), "=d"(rest) : "a"((uint32_t)value), "d"((uint32_t)(value >> 32)), "r"(by));
    return quotient;
}

static uint64_t time_of(const struct operation *operation, unsigned loops) {
    unsigned traps = nano_traps;
    uint64_t start = rdtsc();
    operation->run(loops);
    uint64_t cycles = rdtsc() - start;
    check_quiet(operation->name, nano_traps - traps, operation->traps * loops);
    return cycles;
}

static void print_decimal(uint32_t value) {
    char text[2] = {(char)('0' + value % 10), 0};
    if (value >= 10)
        print_decimal(value / 10);
    print(text);
}

/* The fastest of a few runs that are long enough for the counter. */
static void measure(const struct operation *operation) {
    unsigned loops = 16;
    uint64_t best;
    if (operation->prepare)
        operation->prepare();
    while ((best = time_of(operation, loops)) < ENOUGH_CYCLES && loops < MOST_LOOPS)
        loops *= 2;
    for (unsigned i = 0; i < RUNS; i++) {
        uint64_t cycles = time_of(operation, loops);
        best = cycles < best ? cycles : best;
    }
    if (operation->finish)
        operation->finish();
    uint32_t tenths = divide(best * 10, loops);
    print("bench: nano ");
    print(operation->name);
    print("|");
    print_decimal(tenths / 10);
    print(".");
    print_decimal(tenths % 10);
    print("\n");
    check_true(operation->name, best > 0);
}

static void measure_all(const struct operation *list) {
    for (; list->name; list++)
        if (!list->is_offered || list->is_offered())
            measure(list);
        else
            skip(list->name, "not offered");
}

int main(void) {
    gates_init();
    nano_paging_init();
    pic_init(0x50);
    apic_enable();
    measure_all(nano_common);
    measure_all(nano_own);
    print("bench: nano-end\n");
    return 0;
}
