/*
 * Segments of 32-bit protected mode: limits, expand-down, types, null selectors, bases, loads with their checks, and
 * far calls through gates (SDM vol. 3A, chapters 3 and 5).
 */
#include "lib/trap.h"

extern uint64_t gdt[];
enum { TEST = SPARE_SELECTOR, TEST2 = SPARE_SELECTOR + 8, GATE = SPARE_SELECTOR + 16, MISSING = 0x7f8 };
enum {
    CODE = 0x9b, DATA = 0x93, READ_ONLY = 0x91, EXECUTE_ONLY = 0x99, EXPAND_DOWN = 0x97, CONFORMING = 0x9f, DPL3 = 0x60,
    NOT_PRESENT = 0x80, FLAG_D = 4, FLAG_G = 8
};

static uint8_t memory[8192] __attribute__((aligned(4096)));

static uint64_t descriptor(uint32_t base, uint32_t limit, unsigned access, unsigned flags) {
    return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)access << 40 |
           (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)flags << 52 | (uint64_t)(base >> 24) << 56;
}

static void define(unsigned selector, uint32_t base, uint32_t limit, unsigned access, unsigned flags) {
    gdt[selector / 8] = descriptor(base, limit, access, flags);
}

SNIPPET(s_load_1, "mov %ax, %es", "movb %es:(%ebx), %dl");
SNIPPET(s_load_4, "mov %ax, %es", "movl %es:(%ebx), %edx");
SNIPPET(s_store_4, "mov %ax, %es", "movl %edx, %es:(%ebx)");
SNIPPET(s_rmw_4, "mov %ax, %es", "addl %edx, %es:(%ebx)");
SNIPPET(s_load_8, "mov %ax, %es", "fldl %es:(%ebx)");
SNIPPET(s_load_16, "mov %ax, %es", "movups %es:(%ebx), %xmm0");
SNIPPET(s_stos, "mov %ax, %es\n mov %ebx, %edi", "stosl");
SNIPPET(s_set_es, "", "mov %ax, %es");
SNIPPET(s_set_ds, "", "mov %ax, %ds");
SNIPPET(s_set_fs, "", "mov %ax, %fs");
SNIPPET(s_set_ss, "", "mov %ax, %ss");
SNIPPET(s_set_cs, "", ".byte 0x8e, 0xc8");
SNIPPET(s_les, "", "les (%ebx), %ecx");
SNIPPET(s_ldt, "", "lldt %ax");
SNIPPET(s_cs_store, "", "movl %edx, %cs:(%ebx)");
SNIPPET(s_pop_es, "push %eax", "pop %es");

static struct state access(const uint8_t *code, unsigned selector, uint32_t offset) {
    struct state state;
    state_init(&state, code);
    state.gpr[RAX] = selector;
    state.gpr[RBX] = offset;
    run(&state);
    return state;
}

static void expect(const char *name, const uint8_t *code, unsigned selector, uint32_t offset, unsigned vector,
                   unsigned error) {
    struct state state = access(code, selector, offset);
    check(name, state.vector, vector);
    if (vector != V_END)
        check_quiet_detail("error code", name, state.error, error);
}

static void limits(void) {
    define(TEST, (uint32_t)memory, 0xfff, DATA, FLAG_D);
    expect("last_byte", s_load_1, TEST, 0xfff, V_END, 0);
    expect("byte_behind_limit", s_load_1, TEST, 0x1000, V_GP, 0);
    expect("last_dword", s_load_4, TEST, 0xffc, V_END, 0);
    expect("dword_over_limit", s_load_4, TEST, 0xffd, V_GP, 0);
    expect("store_over_limit", s_store_4, TEST, 0xffe, V_GP, 0);
    expect("rmw_over_limit", s_rmw_4, TEST, 0xfff, V_GP, 0);
    expect("x87_over_limit", s_load_8, TEST, 0xff9, V_GP, 0);
    expect("sse_over_limit", s_load_16, TEST, 0xff1, V_GP, 0);
    expect("stos_over_limit", s_stos, TEST, 0xffd, V_GP, 0);
    expect("offset_wraps_at_4g", s_load_4, TEST, 0xfffffffe, V_GP, 0);
    define(TEST, (uint32_t)memory, 1, DATA, FLAG_D | FLAG_G);
    expect("granular_limit_last", s_load_4, TEST, 0x1ffc, V_END, 0);
    expect("granular_limit_behind", s_load_4, TEST, 0x1ffd, V_GP, 0);
    define(TEST, (uint32_t)memory, 0, DATA, FLAG_D);
    expect("limit_0_byte", s_load_1, TEST, 0, V_END, 0);
    expect("limit_0_dword", s_load_4, TEST, 0, V_GP, 0);
}

static void expand_down(void) {
    define(TEST, (uint32_t)memory, 0xfff, EXPAND_DOWN, FLAG_D);
    expect("expand_down_at_limit", s_load_1, TEST, 0xfff, V_GP, 0);
    expect("expand_down_above_limit", s_load_1, TEST, 0x1000, V_END, 0);
    expect("expand_down_store_below", s_store_4, TEST, 0x10, V_GP, 0);
    define(TEST, (uint32_t)memory, 0xfff, EXPAND_DOWN, 0);
    expect("expand_down_16_bit_top", s_load_4, TEST, 0x1ffc, V_END, 0);
    expect("expand_down_16_bit_behind_64k", s_load_4, TEST, 0xfffd, V_GP, 0);
    expect("expand_down_16_bit_beyond", s_load_1, TEST, 0x10000, V_GP, 0);
}

static void types(void) {
    define(TEST, (uint32_t)memory, 0xfff, READ_ONLY, FLAG_D);
    expect("read_only_load", s_load_4, TEST, 0, V_END, 0);
    expect("read_only_store", s_store_4, TEST, 0, V_GP, 0);
    expect("read_only_rmw", s_rmw_4, TEST, 0, V_GP, 0);
    expect("read_only_stos", s_stos, TEST, 0, V_GP, 0);
    expect("read_only_in_ss", s_set_ss, TEST, 0, V_GP, TEST);
    define(TEST, (uint32_t)memory, 0xfff, CODE, FLAG_D);
    expect("readable_code_load", s_load_4, TEST, 0, V_END, 0);
    expect("readable_code_store", s_store_4, TEST, 0, V_GP, 0);
    expect("store_through_cs", s_cs_store, 0, (uint32_t)memory, V_GP, 0);
    define(TEST, (uint32_t)memory, 0xfff, EXECUTE_ONLY, FLAG_D);
    expect("execute_only_in_es", s_set_es, TEST, 0, V_GP, TEST);
    define(TEST, (uint32_t)memory, 0xfff, DATA & ~NOT_PRESENT, FLAG_D);
    expect("not_present_in_ds", s_set_ds, TEST, 0, V_NP, TEST);
    expect("not_present_in_ss", s_set_ss, TEST, 0, V_SS, TEST);
    define(TEST, 0, 0xfff, 0x82, 0);
    expect("system_descriptor_in_fs", s_set_fs, TEST, 0, V_GP, TEST);
    expect("selector_behind_gdt", s_set_es, MISSING, 0, V_GP, MISSING);
    expect("ldt_selector_without_ldt", s_set_es, 0xc, 0, V_GP, 0xc);
    expect("mov_to_cs", s_set_cs, DATA_SELECTOR, 0, V_UD, 0);
    expect("lldt_of_data", s_ldt, DATA_SELECTOR, 0, V_GP, DATA_SELECTOR);
}

static void null_selectors(void) {
    for (unsigned selector = 0; selector < 4; selector++) {
        expect("null_loads_into_es", s_set_es, selector, 0, V_END, 0);
        expect("null_faults_on_use", s_load_1, selector, (uint32_t)memory, V_GP, 0);
        expect("null_faults_on_store", s_store_4, selector, (uint32_t)memory, V_GP, 0);
    }
    expect("null_in_ss", s_set_ss, 0, 0, V_GP, 0);
    expect("null_through_pop", s_pop_es, 0, 0, V_END, 0);
}

static void privilege(void) {
    struct state state;
    state_init_user(&state, s_set_ds);
    state.gpr[RAX] = DATA_SELECTOR;
    run(&state);
    check("user_loads_dpl_0", state.vector, V_GP);
    check("user_loads_dpl_0_error_code", state.error, DATA_SELECTOR);
    check("user_load_ip", state.ip, (word)s_set_ds_at);
    state_init(&state, s_set_ss);
    state.gpr[RAX] = USER_DATA;
    run(&state);
    check("ss_needs_the_same_dpl", state.vector, V_GP);
    define(TEST, 0, 0xfffff, CONFORMING, FLAG_D | FLAG_G);
    state_init_user(&state, s_set_ds);
    state.gpr[RAX] = TEST;
    run(&state);
    check("user_loads_conforming_code", state.vector, V_END);
}

static void bases(void) {
    for (unsigned i = 0; i < sizeof memory; i++)
        memory[i] = (uint8_t)(i * 7);
    define(TEST, (uint32_t)memory + 3, 0xffff, DATA, FLAG_D);
    struct state state = access(s_load_1, TEST, 5);
    check("base_is_added", state.gpr[RDX] & 0xff, 8 * 7);
    define(TEST, (uint32_t)memory + 0x1000, 0xfffff, DATA, FLAG_D | FLAG_G);
    state = access(s_load_1, TEST, 0xfffffff0);
    check("base_plus_offset_wraps", state.gpr[RDX] & 0xff, (uint8_t)(0xff0 * 7));
    check("accessed_bit", gdt[TEST / 8] >> 40 & 1, 1);
    define(TEST, 0, 0xfffff, DATA & ~1u, FLAG_D | FLAG_G);
    access(s_set_es, TEST, 0);
    check("load_sets_accessed_bit", gdt[TEST / 8] >> 40 & 1, 1);
    struct {
        uint32_t offset;
        uint16_t selector;
    } __attribute__((packed)) pointer = {0x12345678, TEST};
    state = access(s_les, 0, (uint32_t)&pointer);
    check("les_register", state.gpr[RCX], 0x12345678);
    check("les_segment", state.es, TEST);
    pointer.selector = MISSING;
    state = access(s_les, 0, (uint32_t)&pointer);
    check("les_bad_selector", state.vector, V_GP);
    check_true("les_keeps_register", state.gpr[RCX] != 0x12345678);
}

/* Code that runs in a segment with a base: addresses of its own start at 0. */
__asm__(".pushsection .text\nbased_code: call 1f\n1: pop %eax\n jmp *2f - based_code(%ebx)\n nop\n2: .long 3f - based_code\n"
        "3: mov $7, %ecx\n int $0x20\n based_end:\n.popsection");
extern uint8_t based_code[], based_end[];
SNIPPET(s_far_jump, "", "ljmp *(%ebx)");
SNIPPET(s_far_call, "", "lcall *(%ebx)");

static void code_segments(void) {
    struct state state;
    define(TEST, (uint32_t)based_code, 0xfff, CODE, FLAG_D);
    define(TEST2, (uint32_t)based_code, 0xffff, DATA, FLAG_D);
    state_init(&state, NULL);
    state.cs = TEST;
    state.ds = TEST2;
    state.ip = 0;
    state.gpr[RBX] = 0;
    run(&state);
    check("based_code_ends", state.vector, V_END);
    check("based_code_ip_is_an_offset", state.gpr[RAX], 5);
    check("based_code_jump_table", state.gpr[RCX], 7);
    define(TEST, (uint32_t)based_code, (uint32_t)(based_end - based_code) - 3, CODE, FLAG_D);
    state_init(&state, NULL);
    state.cs = TEST;
    state.ds = TEST2;
    state.ip = 0;
    state.gpr[RBX] = 0;
    run(&state);
    check("code_behind_limit_is_gp", state.vector, V_GP);
    check("code_behind_limit_ip", state.ip, (uint32_t)(based_end - based_code) - 2);
    struct {
        uint32_t offset;
        uint16_t selector;
    } __attribute__((packed)) target = {0, DATA_SELECTOR};
    state = access(s_far_jump, 0, (uint32_t)&target);
    check("far_jump_to_data_is_gp", state.vector, V_GP);
    check("far_jump_to_data_error_code", state.error, DATA_SELECTOR);
    define(TEST, (uint32_t)based_code, 0x10, CODE, FLAG_D);
    target.selector = TEST;
    target.offset = 0x100;
    state = access(s_far_jump, 0, (uint32_t)&target);
    check("far_jump_behind_limit", state.vector, V_GP);
    check("far_jump_behind_limit_ip", state.ip, (word)s_far_jump_at);
}

/* A call gate from CPL 3 to CPL 0 with two parameters. */
__asm__(".pushsection .text\ngate_target: mov 8(%esp), %ecx\n mov 12(%esp), %edx\n mov %cs, %eax\n mov %ss, %ebx\n lret $8\n.popsection");
extern uint8_t gate_target[];
SNIPPET(s_gate_call, "push $0x1111\n push $0x2222", "lcall $0x53, $0");

static void call_gates(void) {
    struct state state;
    uint32_t target = (uint32_t)gate_target;
    gdt[GATE / 8] = (target & 0xffff) | (uint64_t)CODE_SELECTOR << 16 | 2ull << 32 | 0xecull << 40 |
                    (uint64_t)(target >> 16) << 48;
    state_init_user(&state, s_gate_call);
    word sp = state.sp;
    run(&state);
    check("gate_call_comes_back", state.vector, V_END);
    check("gate_call_runs_at_cpl_0", state.gpr[RAX], CODE_SELECTOR);
    check("gate_call_switches_stacks", state.gpr[RBX], DATA_SELECTOR);
    check("gate_call_copies_parameters", state.gpr[RCX], 0x2222);
    check("gate_call_copies_second_parameter", state.gpr[RDX], 0x1111);
    check("far_return_drops_parameters", state.sp, sp);
    check("far_return_to_user", state.cs, USER_CODE);
    gdt[GATE / 8] &= ~(3ull << 45);
    state_init_user(&state, s_gate_call);
    run(&state);
    check("gate_with_dpl_0_is_gp", state.vector, V_GP);
    check("gate_with_dpl_0_error_code", state.error, GATE);
    gdt[GATE / 8] = (gdt[GATE / 8] | 3ull << 45) & ~(1ull << 47);
    state_init_user(&state, s_gate_call);
    run(&state);
    check("gate_not_present_is_np", state.vector, V_NP);
}

SNIPPET(s_lar, "", "lar %ax, %ecx");
SNIPPET(s_lsl, "", "lsl %ax, %ecx");
SNIPPET(s_verw, "", "verw %ax");
SNIPPET(s_bound, "", "bound %ecx, (%ebx)");
SNIPPET(s_bound16, "", "bound %cx, (%ebx)");
SNIPPET(s_into, "", "into");
SNIPPET(s_arpl, "", "arpl %cx, %ax");

static void inspection(void) {
    define(TEST, 0x1000, 0x12, READ_ONLY, FLAG_D | FLAG_G);
    struct state state = access(s_lar, TEST, 0);
    check("lar", state.gpr[RCX], 0x00c09100);
    check("lar_zf", state.flags & ZF, ZF);
    state = access(s_lsl, TEST, 0);
    check("lsl_scales", state.gpr[RCX], 0x12fff);
    state = access(s_verw, TEST, 0);
    check("verw_read_only", state.flags & ZF, 0);
    state = access(s_lar, MISSING, 0);
    check("lar_of_missing_clears_zf", state.flags & ZF, 0);
    int32_t range[2] = {-5, 5};
    state_init(&state, s_bound);
    state.gpr[RBX] = (word)range;
    state.gpr[RCX] = (word)-5;
    run(&state);
    check("bound_inside", state.vector, V_END);
    state_init(&state, s_bound);
    state.gpr[RBX] = (word)range;
    state.gpr[RCX] = 6;
    run(&state);
    check("bound_outside_is_br", state.vector, V_BR);
    check("bound_ip", state.ip, (word)s_bound_at);
    int16_t narrow[2] = {0x10, 0x102};
    state_init(&state, s_bound16);
    state.gpr[RBX] = (word)narrow;
    state.gpr[RCX] = 0x10100;
    run(&state);
    check("bound_of_16_bits_inside", state.vector, V_END);
    narrow[1] = 0xff;
    state_init(&state, s_bound16);
    state.gpr[RBX] = (word)narrow;
    state.gpr[RCX] = 0x10100;
    run(&state);
    check("bound_of_16_bits_outside_is_br", state.vector, V_BR);
    state_init(&state, s_into);
    state.flags |= OF;
    run(&state);
    check("into_is_of", state.vector, V_OF);
    check("into_ip_is_behind", state.ip, (word)s_into_end);
    state = access(s_arpl, 0x10, 0);
    check("arpl_raises_rpl", state.gpr[RAX] & 0xffff, 0x12);
    check("arpl_zf", state.flags & ZF, ZF);
}

int main(void) {
    __asm__ volatile("lldt %w0" : : "r"(0)); /* RESET leaves one of 64 KiB at 0 */
    limits();
    expand_down();
    types();
    null_selectors();
    privilege();
    bases();
    code_segments();
    call_gates();
    inspection();
    return 0;
}
