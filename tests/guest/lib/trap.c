/* What traps of 32- and 64-bit programs share: the handler table, the report of an unexpected trap, probes of MSRs. */
#include "trap.h"

trap_handler *trap_handlers[256];

static void print_field(const char *name, uint64_t value) {
    print(name);
    print_hex(value);
}

_Noreturn void trap_unexpected(const struct state *state) {
    static const char *const names[] = {" ax=", " cx=", " dx=", " bx=", " sp=", " bp=", " si=", " di="};
    print_field("unexpected trap: vector ", state->vector);
    print_field(" error ", state->error);
    print_field(" ip=", state->ip);
    print_field(" cs=", state->cs);
    print_field(" flags=", state->flags);
    print_field(" cr2=", state->cr2);
    for (unsigned i = 0; i < 8; i++)
        print_field(names[i], state->gpr[i]);
    print("\n");
    die("no unexpected trap");
}

SNIPPET(snippet_rdmsr, "", "rdmsr");
SNIPPET(snippet_wrmsr, "", "wrmsr");

int try_rdmsr(uint32_t index, uint64_t *value) {
    struct state state;
    state_init(&state, snippet_rdmsr);
    state.gpr[RCX] = index;
    run(&state);
    *value = (uint64_t)(uint32_t)state.gpr[RDX] << 32 | (uint32_t)state.gpr[RAX];
    return state.vector == V_END ? -1 : (int)state.vector;
}

int try_wrmsr(uint32_t index, uint64_t value) {
    struct state state;
    state_init(&state, snippet_wrmsr);
    state.gpr[RCX] = index;
    state.gpr[RAX] = (uint32_t)value;
    state.gpr[RDX] = (word)(value >> 32);
    run(&state);
    return state.vector == V_END ? -1 : (int)state.vector;
}
