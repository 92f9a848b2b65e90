/*
 * FS and GS of code in a window, at offsets that are known when the code is translated: their bases change, and their
 * limits count.
 */
#include "tests/unit/translator/guest_machine.h"

enum { FIRST = 0x140000, SECOND = 0x150000, AWAY = 0x300000 };

static struct guest guest;

PROGRAM(moves64, 64,
        "mov %fs:0x28, %eax\n wrfsbase %rbx\n mov %fs:0x28, %ecx\n mov $-8, %rdx\n movl $7, %fs:(%rdx)\n"
        "wrfsbase %rsi\n add %fs:0x28, %eax\n wrfsbase %rbx\n add %eax, %fs:-8");
PROGRAM(swaps64, 64,
        "mov $0xc0000102, %ecx\n mov %ebx, %eax\n xor %edx, %edx\n wrmsr\n mov %gs:0x28, %edi\n swapgs\n"
        "mov %gs:0x28, %ebp\n mov $0xc0000101, %ecx\n mov %esi, %eax\n wrmsr\n add %gs:0x28, %edi\n swapgs\n"
        "add %gs:0x28, %edi");
PROGRAM(reads32, 32, "mov %gs:0x14, %eax\n mov %gs:0xfffffffc, %ecx\n mov $0x14, %edx\n mov %gs:(%edx), %edx");
PROGRAM(reads_near32, 32, "mov $3, %ecx\n 2: mov %gs:0x14, %eax\n dec %ecx\n jnz 2b");
PROGRAM(reads_far32, 32, "mov %gs:0x100, %eax");
PROGRAM(writes32, 32, "movl $9, %gs:0x14");

static void create(void) {
    const struct trapeze_config config = {.windows = TRAPEZE_WINDOWS_ALWAYS, .unclaimed_exits = true};
    guest_create(&guest, &config);
    ck_assert_int_eq(trapeze_memory_map(guest.machine, 0, guest_physical_at(0), guest.fd, 0, RAM_SIZE, 0), TRAPEZE_OK);
    guest_set_word(&guest, FIRST + 0x28, 100);
    guest_set_word(&guest, FIRST + 0x14, 14);
    guest_set_word(&guest, FIRST - 4, 4);
    guest_set_word(&guest, SECOND + 0x28, 200);
}

static struct trapeze_registers as_user(struct trapeze_registers registers) {
    for (unsigned i = 0; i < TRAPEZE_SEGMENTS; i++)
        registers.segment[i].attributes |= 0x60;
    registers.rflags |= 0x3000; /* IOPL 3 */
    return registers;
}

START_TEST(base_that_user_code_changes_is_seen) {
    create();
    struct trapeze_registers registers = as_user(guest_long_mode(&guest));
    registers.cr4 |= 1 << 16; /* FSGSBASE */
    registers.segment[TRAPEZE_FS].base = FIRST;
    registers.gpr[RBX] = SECOND;
    registers.gpr[RSI] = FIRST;
    GUEST_START(&guest, moves64, &registers);
    guest_expect_end(&guest);
    ck_assert_uint_eq(guest_register(&guest, RCX), 200);
    ck_assert_uint_eq(guest_register(&guest, RAX), 200);
    ck_assert_uint_eq(guest_word(&guest, SECOND - 8), 207);
    guest_destroy(&guest);
}
END_TEST

START_TEST(base_that_supervisor_code_changes_is_seen) {
    create();
    struct trapeze_registers registers = guest_long_mode(&guest);
    for (unsigned i = 0; i < 3; i++) {
        registers.segment[TRAPEZE_GS].base = FIRST;
        registers.gpr[RBX] = SECOND;
        registers.gpr[RSI] = FIRST;
        GUEST_START(&guest, swaps64, &registers);
        guest_expect_end(&guest);
        ck_assert_uint_eq(guest_register(&guest, RBP), 200);
        ck_assert_uint_eq(guest_register(&guest, RDI), 300);
    }
    guest_destroy(&guest);
}
END_TEST

START_TEST(base_that_others_change_is_seen) {
    create();
    struct trapeze_registers registers = as_user(guest_protected_mode());
    for (unsigned i = 0; i < 6; i++) {
        uint32_t base = i & 1 ? SECOND : FIRST;
        guest_set_word(&guest, base + 0x14, 14 + i);
        guest_set_word(&guest, base - 4, 4 + i);
        registers.segment[TRAPEZE_GS].base = base;
        GUEST_START(&guest, reads32, &registers);
        guest_expect_end(&guest);
        ck_assert_uint_eq(guest_register(&guest, RAX), 14 + i);
        ck_assert_uint_eq(guest_register(&guest, RCX), 4 + i);
        ck_assert_uint_eq(guest_register(&guest, RDX), 14 + i);
    }
    guest_destroy(&guest);
}
END_TEST

/* Offsets past the limit are #GP, which ends a machine without handlers; so are stores to what is not writable. */
START_TEST(limits_and_rights_count) {
    create();
    struct trapeze_registers registers = as_user(guest_protected_mode());
    registers.segment[TRAPEZE_GS].base = FIRST;
    registers.segment[TRAPEZE_GS].limit = 0xff;
    for (unsigned i = 0; i < 4; i++) {
        GUEST_START(&guest, reads_near32, &registers);
        guest_expect_end(&guest);
        ck_assert_uint_eq(guest_register(&guest, RAX), 14);
    }
    GUEST_START(&guest, reads_far32, &registers);
    guest_run(&guest, TRAPEZE_EXIT_SHUTDOWN);
    guest_destroy(&guest);

    create();
    registers.segment[TRAPEZE_GS].limit = 0xffffffff;
    registers.segment[TRAPEZE_GS].attributes &= ~2u;
    GUEST_START(&guest, writes32, &registers);
    guest_run(&guest, TRAPEZE_EXIT_SHUTDOWN);
    ck_assert_uint_eq(guest_word(&guest, FIRST + 0x14), 14);
    guest_destroy(&guest);
}
END_TEST

START_TEST(segment_where_no_memory_is_goes_the_slow_way) {
    create();
    struct trapeze_registers registers = as_user(guest_protected_mode());
    registers.segment[TRAPEZE_GS].base = AWAY;
    GUEST_START(&guest, reads_near32, &registers);
    for (unsigned i = 0; i < 3; i++)
        guest_expect_read(&guest, TRAPEZE_MMIO, AWAY + 0x14, 4, 77 + i);
    guest_expect_end(&guest);
    ck_assert_uint_eq(guest_register(&guest, RAX), 79);
    guest_destroy(&guest);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("segment places");
    TCase *tests = tcase_create("segment places");
    tcase_add_test(tests, base_that_user_code_changes_is_seen);
    tcase_add_test(tests, base_that_supervisor_code_changes_is_seen);
    tcase_add_test(tests, base_that_others_change_is_seen);
    tcase_add_test(tests, limits_and_rights_count);
    tcase_add_test(tests, segment_where_no_memory_is_goes_the_slow_way);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures != 0;
}
