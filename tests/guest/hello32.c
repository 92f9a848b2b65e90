/* The smallest 32-bit program: snippets at CPL 0, at CPL 3 and in virtual-8086 mode come back as they should. */
#include "lib/guest.h"

SNIPPET(snippet_nothing, "", "nop");
SNIPPET(snippet_ud, "", "ud2");
SNIPPET(snippet_cli, "", "cli");

static void runs_at_each_level(void) {
    struct state state, before;
    state_init(&state, snippet_nothing);
    before = state;
    run(&state);
    check("nop_ends_in_int_20", state.vector, V_END);
    check_true("nop_leaves_registers", !memory_compare(state.gpr, before.gpr, sizeof state.gpr));
    check("nop_ends_behind_int", state.ip, (word)snippet_nothing_end + 2);
    check("nop_leaves_flags", state.flags, before.flags);
    state_init_user(&state, snippet_nothing);
    before = state;
    run(&state);
    check("user_ends_in_int_20", state.vector, V_END);
    check_true("user_leaves_registers", !memory_compare(state.gpr, before.gpr, sizeof state.gpr));
    check("user_cs", state.cs, USER_CODE);
    check("user_ss", state.ss, USER_DATA);
}

static void faults_come_back(void) {
    struct state state;
    state_init(&state, snippet_ud);
    run(&state);
    check("ud2_is_ud", state.vector, V_UD);
    check("ud2_ip_is_its_own", state.ip, (word)snippet_ud_at);
    state_init_user(&state, snippet_cli);
    run(&state);
    check("user_cli_is_gp", state.vector, V_GP);
    check("user_cli_error_code", state.error, 0);
}

static void runs_vm86(void) {
    struct state state;
    memory_copy((void *)0x9000, snippet_nothing, 16);
    state_init(&state, NULL);
    state.cs = 0x900;
    state.ss = state.ds = state.es = state.fs = state.gs = 0x800;
    state.sp = 0x800;
    state.flags = FIXED | VM | 3 << 12;
    run(&state);
    check("vm86_int_20", state.vector, V_END);
    check("vm86_cs", state.cs, 0x900);
    check("vm86_ip", state.ip, 3);
    check("vm86_ds", state.ds, 0x800);
    check("vm86_flags", state.flags & (VM | 3 << 12), VM | 3 << 12);
}

int main(void) {
    runs_at_each_level();
    faults_come_back();
    runs_vm86();
    return 0;
}
