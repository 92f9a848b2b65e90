/*
 * Instructions that AMD's and Intel's processors run differently: what counts is the vendor of the guest's model, not
 * that of the host. The code lies at FAR_CODE, above 64 KiB, and everything else in its page and in the page that has
 * its address in 16 bits says OUT.
 */
#include <string.h>

#include "guest_machine.h"

enum { FAR_CODE = 0x101800, NEAR_PAGE = 0x1000, PAGE = 0x1000, ZF = 0x40, OUT_DX = 0xee, UD_VECTOR = 6, PF_VECTOR = 14 };
enum { HANDLER = 0x180000, IDT = 0x181000, GDT = 0x182000, MISSING = 0x50000000, ALSO_MISSING = 0x60000000 };

struct result {
    uint32_t rip; /* of the OUT */
    int32_t pushed;
};

struct encoding {
    const char *name;
    uint8_t length, bytes[8];
    uint16_t flags;
    struct result amd, intel;
};

/* rax is 1a00h and more; [rbx] has the same; the word at rsp is 1a40h, with 0010h behind it. */
static const struct encoding branches[] = {
    {"jmp rel8", 3, {0x66, 0xeb, 0x20}, 0, {0x1823, 0}, {0x101823, 0}},
    {"jz rel8", 3, {0x66, 0x74, 0x20}, ZF, {0x1823, 0}, {0x101823, 0}},
    {"jz rel8 not taken", 3, {0x66, 0x74, 0x20}, 0, {0x101803, 0}, {0x101803, 0}},
    {"jmp rel", 6, {0x66, 0xe9, 0x20, 0, 0, 0}, 0, {0x1824, 0}, {0x101826, 0}},
    {"jz rel", 7, {0x66, 0x0f, 0x84, 0x20, 0, 0, 0}, ZF, {0x1825, 0}, {0x101827, 0}},
    {"loop", 3, {0x66, 0xe2, 0x20}, 0, {0x1823, 0}, {0x101823, 0}},
    {"jrcxz not taken", 3, {0x66, 0xe3, 0x20}, 0, {0x101803, 0}, {0x101803, 0}},
    {"call rel", 6, {0x66, 0xe8, 0x20, 0, 0, 0}, 0, {0x1824, 2}, {0x101826, 8}},
    {"call rel, rex.w", 7, {0x66, 0x48, 0xe8, 0x20, 0, 0, 0}, 0, {0x101827, 8}, {0x101827, 8}},
    {"jmp rax", 3, {0x66, 0xff, 0xe0}, 0, {0x1a00, 0}, {0x101a00, 0}},
    {"call rax", 3, {0x66, 0xff, 0xd0}, 0, {0x1a00, 2}, {0x101a00, 8}},
    {"jmp [rbx]", 3, {0x66, 0xff, 0x23}, 0, {0x1a00, 0}, {0x101a00, 0}},
    {"call [rbx]", 3, {0x66, 0xff, 0x13}, 0, {0x1a00, 2}, {0x101a00, 8}},
    {"ret", 2, {0x66, 0xc3}, 0, {0x1a40, -2}, {0x101a40, -8}},
    {"ret 8", 4, {0x66, 0xc2, 8, 0}, 0, {0x1a40, -10}, {0x101a40, -16}},
};

static const struct encoding loops[] = {
    {"loopne", 2, {0xe0, 0x20}, ZF, {0x101802, 0}, {0x101802, 0}},
    {"repe loopne", 3, {0xf3, 0xe0, 0x20}, ZF, {0x101823, 0}, {0x101803, 0}},
    {"repe loopne", 3, {0xf3, 0xe0, 0x20}, 0, {0x101803, 0}, {0x101823, 0}},
    {"repne loope", 3, {0xf2, 0xe1, 0x20}, ZF, {0x101803, 0}, {0x101823, 0}},
    {"repne loope", 3, {0xf2, 0xe1, 0x20}, 0, {0x101823, 0}, {0x101803, 0}},
    {"repe repne loope", 4, {0xf3, 0xf2, 0xe1, 0x20}, 0, {0x101824, 0}, {0x101804, 0}},
    {"repne repe loope", 4, {0xf2, 0xf3, 0xe1, 0x20}, 0, {0x101804, 0}, {0x101804, 0}},
    {"repne loop", 3, {0xf2, 0xe2, 0x20}, ZF, {0x101823, 0}, {0x101823, 0}},
};

static const struct encoding hints[] = {
    {"prefetchw of a register", 3, {0x0f, 0x0d, 0xc8}, 0, {HANDLER, 40}, {0x101803, 0}},
    {"prefetcht0 of a register", 3, {0x0f, 0x18, 0xc8}, 0, {0x101803, 0}, {0x101803, 0}},
};

static void set_gate(struct guest *guest, unsigned vector) {
    guest_set_word(guest, IDT + 16 * vector, 8 << 16 | (HANDLER & 0xffff));
    guest_set_word(guest, IDT + 16 * vector + 4, (HANDLER & 0xffff0000) | 0x8e00);
}

static struct trapeze_registers prepare(struct guest *guest, const struct encoding *encoding) {
    struct trapeze_registers registers = guest_long_mode(guest);
    memset(guest->ram + FAR_CODE / PAGE * PAGE, OUT_DX, PAGE);
    memset(guest->ram + NEAR_PAGE, OUT_DX, PAGE);
    guest->ram[HANDLER] = OUT_DX;
    set_gate(guest, UD_VECTOR);
    set_gate(guest, PF_VECTOR);
    guest_set_word(guest, GDT + 8, 0xffff);
    guest_set_word(guest, GDT + 12, 0xaf9b00);
    guest_set_word(guest, STACK, 0x101a40);
    guest_set_word(guest, STACK + 4, 0);
    guest_set_word(guest, DATA, 0x101a00);
    guest_set_word(guest, DATA + 4, 0);
    registers.idtr.base = IDT, registers.idtr.limit = 0xfff;
    registers.gdtr.base = GDT, registers.gdtr.limit = 15;
    registers.rip = FAR_CODE;
    registers.rflags = 2u | encoding->flags;
    registers.gpr[RAX] = 0x101a00;
    registers.gpr[RBX] = DATA;
    registers.gpr[RCX] = 5;
    registers.gpr[RDX] = END_PORT;
    registers.gpr[RSI] = MISSING;
    registers.gpr[RDI] = ALSO_MISSING;
    return registers;
}

static void run(struct guest *guest, const char *model, const struct encoding *encoding,
                struct trapeze_registers *after) {
    struct trapeze_config config = {.cpu_model = model, .unclaimed_exits = true};
    guest_create(guest, &config);
    struct trapeze_registers registers = prepare(guest, encoding);
    memcpy(guest->ram + FAR_CODE, encoding->bytes, encoding->length);
    ck_assert_int_eq(trapeze_vcpu_set_registers(guest->vcpu, &registers), TRAPEZE_OK);
    guest_expect_end(guest);
    trapeze_vcpu_get_registers(guest->vcpu, after);
}

static void expect(const char *model, const struct encoding *encoding, const struct result *want) {
    struct guest guest;
    struct trapeze_registers registers;
    run(&guest, model, encoding, &registers);
    uint64_t rip = registers.rip - 1;
    ck_assert_msg(rip == want->rip, "%s on %s: at %llx, not %x", encoding->name, model, (unsigned long long)rip, want->rip);
    int64_t pushed = (int64_t)(STACK - registers.gpr[RSP]);
    ck_assert_msg(pushed == want->pushed, "%s on %s: %lld bytes pushed", encoding->name, model, (long long)pushed);
    guest_destroy(&guest);
}

static void expect_all(const struct encoding *encodings, size_t count) {
    for (size_t i = 0; i < count; i++) {
        expect("Opteron_G1", &encodings[i], &encodings[i].amd);
        expect("host,vendor=AuthenticAMD", &encodings[i], &encodings[i].amd);
        expect("kvm64", &encodings[i], &encodings[i].intel);
        expect("host,vendor=GenuineIntel", &encodings[i], &encodings[i].intel);
    }
}

START_TEST(operand_size_prefix_makes_near_branches_16_bit_on_amd_and_nothing_on_intel) {
    expect_all(branches, sizeof branches / sizeof *branches);
}
END_TEST

START_TEST(repeat_prefix_tells_the_kind_of_loop_on_amd_and_nothing_on_intel) {
    expect_all(loops, sizeof loops / sizeof *loops);
}
END_TEST

START_TEST(prefetchw_of_a_register_is_ud_on_amd_and_nop_on_intel) {
    expect_all(hints, sizeof hints / sizeof *hints);
}
END_TEST

static void expect_fault(const char *model, const struct encoding *encoding, uint64_t address) {
    struct guest guest;
    struct trapeze_registers registers;
    run(&guest, model, encoding, &registers);
    ck_assert_msg(registers.cr2 == address, "%s on %s faults at %llx", encoding->name, model,
                  (unsigned long long)registers.cr2);
    guest_destroy(&guest);
}

START_TEST(repe_cmpsb_looks_at_its_first_operand_first_on_amd_alone) {
    static const struct encoding bytes = {"repe cmpsb", 2, {0xf3, 0xa6}, 0, {0, 0}, {0, 0}};
    static const struct encoding words = {"repe cmpsd", 2, {0xf3, 0xa7}, 0, {0, 0}, {0, 0}};
    expect_fault("Opteron_G1", &bytes, MISSING);
    expect_fault("kvm64", &bytes, ALSO_MISSING);
    expect_fault("Opteron_G1", &words, ALSO_MISSING);
    expect_fault("kvm64", &words, ALSO_MISSING);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("vendor");
    TCase *tests = tcase_create("vendor");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, operand_size_prefix_makes_near_branches_16_bit_on_amd_and_nothing_on_intel);
    tcase_add_test(tests, repeat_prefix_tells_the_kind_of_loop_on_amd_and_nothing_on_intel);
    tcase_add_test(tests, prefetchw_of_a_register_is_ud_on_amd_and_nop_on_intel);
    tcase_add_test(tests, repe_cmpsb_looks_at_its_first_operand_first_on_amd_alone);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
