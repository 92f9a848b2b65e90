/* The smallest 64-bit program: it started, its registers hold, a trap comes back. */
#include "lib/guest.h"

SNIPPET(snippet_nothing, "", "nop");
SNIPPET(snippet_ud, "", "ud2");

int main(void) {
    struct state state, before;
    state_init(&state, snippet_nothing);
    before = state;
    run(&state);
    check("nop_ends_in_int_20", state.vector, V_END);
    check_true("nop_leaves_registers", !memory_compare(state.gpr, before.gpr, sizeof state.gpr));
    check("nop_ends_behind_int", state.ip, (word)snippet_nothing_end + 2);
    check("nop_leaves_flags", state.flags, before.flags);
    state_init(&state, snippet_ud);
    run(&state);
    check("ud2_is_ud", state.vector, V_UD);
    check("ud2_rip_is_its_own", state.ip, (word)snippet_ud_at);
    state_init_user(&state, snippet_nothing);
    run(&state);
    check("user_code_runs", state.vector, V_END);
    check("user_code_cs", state.cs, USER_CODE);
    return 0;
}
