/* libtrapeze: accesses that no device claims, and how the caller's answers reach the guest. */
#include <string.h>

#include "guest_machine.h"

static struct guest guest;

static void setup(void) {
    guest_create(&guest, NULL);
}

static void teardown(void) {
    guest_destroy(&guest);
}

/* ---- Ports ---- */

PROGRAM(in_sizes, 16, "mov $0x1234, %dx\n mov $-1, %eax\n in %dx, %al\n mov %eax, 0x9000\n in %dx, %ax\n"
                      "mov %eax, 0x9004\n in %dx, %eax\n mov %eax, 0x9008\n in $0x60, %al");

START_TEST(in_takes_the_callers_answer_in_its_size) {
    struct trapeze_registers registers = guest_real_mode();
    GUEST_START(&guest, in_sizes, &registers);
    guest_expect_read(&guest, TRAPEZE_PORT, 0x1234, 1, 0xaabbcc11);
    guest_expect_read(&guest, TRAPEZE_PORT, 0x1234, 2, 0xaabb2233);
    guest_expect_read(&guest, TRAPEZE_PORT, 0x1234, 4, 0xff44556677889900);
    guest_expect_read(&guest, TRAPEZE_PORT, 0x60, 1, 0x5a);
    guest_expect_end(&guest);
    ck_assert_uint_eq(guest_word(&guest, DATA), 0xffffff11);
    ck_assert_uint_eq(guest_word(&guest, DATA + 4), 0xffff2233);
    ck_assert_uint_eq(guest_word(&guest, DATA + 8), 0x77889900);
    ck_assert_uint_eq(guest_register(&guest, RAX), 0x7788995a);
}
END_TEST

PROGRAM(out_sizes, 32, "mov $0x11223344, %eax\n mov $0xffff, %edx\n out %al, %dx\n out %ax, %dx\n out %eax, %dx\n"
                       "out %ax, $0x80");

START_TEST(out_tells_value_and_size) {
    struct trapeze_registers registers = guest_protected_mode();
    GUEST_START(&guest, out_sizes, &registers);
    guest_expect_write(&guest, TRAPEZE_PORT, 0xffff, 1, 0x44);
    guest_expect_write(&guest, TRAPEZE_PORT, 0xffff, 2, 0x3344);
    guest_expect_write(&guest, TRAPEZE_PORT, 0xffff, 4, 0x11223344);
    guest_expect_write(&guest, TRAPEZE_PORT, 0x80, 2, 0x3344);
    guest_expect_end(&guest);
}
END_TEST

PROGRAM(rep_ins, 32, "mov $0x70, %edx\n mov $0x9000, %edi\n mov $3, %ecx\n rep insw");

START_TEST(rep_ins_is_one_exit_a_read) {
    struct trapeze_registers registers = guest_protected_mode();
    GUEST_START(&guest, rep_ins, &registers);
    for (unsigned i = 0; i < 3; i++)
        guest_expect_read(&guest, TRAPEZE_PORT, 0x70, 2, 0x1110 + i);
    guest_expect_end(&guest);
    ck_assert_uint_eq(guest_word(&guest, DATA), 0x11111110);
    ck_assert_uint_eq(guest_word(&guest, DATA + 4), 0x1112);
    ck_assert_uint_eq(guest_register(&guest, RCX), 0);
    ck_assert_uint_eq(guest_register(&guest, RDI), DATA + 6);
}
END_TEST

PROGRAM(rep_outs, 32, "mov $0x70, %edx\n mov $0x9000, %esi\n mov $300, %ecx\n rep outsb");

START_TEST(rep_outs_tells_every_write_in_order) {
    struct trapeze_registers registers = guest_protected_mode();
    for (unsigned i = 0; i < 300; i++)
        guest.ram[DATA + i] = (uint8_t)i;
    GUEST_START(&guest, rep_outs, &registers);
    for (unsigned i = 0; i < 300; i++)
        guest_expect_write(&guest, TRAPEZE_PORT, 0x70, 1, i & 0xff);
    guest_expect_end(&guest);
    ck_assert_uint_eq(guest_register(&guest, RSI), DATA + 300);
}
END_TEST

/* ---- Memory ---- */

PROGRAM(mmio_read, 64, "mov 0x300000, %al\n mov 0x300010, %bx\n mov 0x300020, %ecx\n mov 0x300030, %rdx\n"
                       "movzbl 0x300001, %esi");

START_TEST(loads_take_the_callers_answer) {
    struct trapeze_registers registers = guest_long_mode(&guest);
    GUEST_START(&guest, mmio_read, &registers);
    guest_expect_read(&guest, TRAPEZE_MMIO, MMIO, 1, 0x1ff);
    guest_expect_read(&guest, TRAPEZE_MMIO, MMIO + 0x10, 2, 0x1234);
    guest_expect_read(&guest, TRAPEZE_MMIO, MMIO + 0x20, 4, 0x12345678);
    guest_expect_read(&guest, TRAPEZE_MMIO, MMIO + 0x30, 8, 0x123456789abcdef0);
    guest_expect_read(&guest, TRAPEZE_MMIO, MMIO + 1, 1, 0x80);
    guest_expect_end(&guest);
    ck_assert_uint_eq(guest_register(&guest, RAX), 0xff);
    ck_assert_uint_eq(guest_register(&guest, RBX), 0x1234);
    ck_assert_uint_eq(guest_register(&guest, RCX), 0x12345678);
    ck_assert_uint_eq(guest_register(&guest, RDX), 0x123456789abcdef0);
    ck_assert_uint_eq(guest_register(&guest, RSI), 0x80);
}
END_TEST

PROGRAM(mmio_write, 64, "mov $0x1122334455667788, %rax\n mov %al, 0x300000\n mov %ax, 0x300002\n mov %eax, 0x300004\n"
                        "mov %rax, 0x300008\n movb $7, 0x300010\n push 0x9000");

START_TEST(stores_tell_the_caller) {
    struct trapeze_registers registers = guest_long_mode(&guest);
    GUEST_START(&guest, mmio_write, &registers);
    guest_expect_write(&guest, TRAPEZE_MMIO, MMIO, 1, 0x88);
    guest_expect_write(&guest, TRAPEZE_MMIO, MMIO + 2, 2, 0x7788);
    guest_expect_write(&guest, TRAPEZE_MMIO, MMIO + 4, 4, 0x55667788);
    guest_expect_write(&guest, TRAPEZE_MMIO, MMIO + 8, 8, 0x1122334455667788);
    guest_expect_write(&guest, TRAPEZE_MMIO, MMIO + 16, 1, 7);
    guest_expect_end(&guest);
}
END_TEST

PROGRAM(mmio_modify, 32, "mov $5, %eax\n addl $3, 0x300000\n setc %bl\n lock xadd %eax, 0x300004\n"
                         "mov $1, %ecx\n xchg %ecx, 0x300008\n notw 0x30000c\n incl 0x9000");

START_TEST(read_modify_write_is_a_read_then_a_write_and_happens_once) {
    struct trapeze_registers registers = guest_protected_mode();
    GUEST_START(&guest, mmio_modify, &registers);
    guest_expect_read(&guest, TRAPEZE_MMIO, MMIO, 4, 0xfffffffe);
    guest_expect_write(&guest, TRAPEZE_MMIO, MMIO, 4, 1);
    guest_expect_read(&guest, TRAPEZE_MMIO, MMIO + 4, 4, 100);
    guest_expect_write(&guest, TRAPEZE_MMIO, MMIO + 4, 4, 105);
    guest_expect_read(&guest, TRAPEZE_MMIO, MMIO + 8, 4, 0xabcd);
    guest_expect_write(&guest, TRAPEZE_MMIO, MMIO + 8, 4, 1);
    guest_expect_read(&guest, TRAPEZE_MMIO, MMIO + 12, 2, 0xff00);
    guest_expect_write(&guest, TRAPEZE_MMIO, MMIO + 12, 2, 0x00ff);
    guest_expect_end(&guest);
    ck_assert_uint_eq(guest_register(&guest, RBX) & 0xff, 1);
    ck_assert_uint_eq(guest_register(&guest, RAX), 100);
    ck_assert_uint_eq(guest_register(&guest, RCX), 0xabcd);
    ck_assert_uint_eq(guest_word(&guest, DATA), 1);
}
END_TEST

PROGRAM(mmio_strings, 32, "mov $0x300000, %esi\n mov $0x9000, %edi\n mov $2, %ecx\n rep movsl\n"
                          "mov $0x9000, %esi\n mov $0x300100, %edi\n mov $2, %ecx\n rep movsl");

START_TEST(string_moves_cross_between_ram_and_the_caller) {
    struct trapeze_registers registers = guest_protected_mode();
    GUEST_START(&guest, mmio_strings, &registers);
    guest_expect_read(&guest, TRAPEZE_MMIO, MMIO, 4, 0x11111111);
    guest_expect_read(&guest, TRAPEZE_MMIO, MMIO + 4, 4, 0x22222222);
    guest_expect_write(&guest, TRAPEZE_MMIO, MMIO + 0x100, 4, 0x11111111);
    guest_expect_write(&guest, TRAPEZE_MMIO, MMIO + 0x104, 4, 0x22222222);
    guest_expect_end(&guest);
    ck_assert_uint_eq(guest_register(&guest, RCX), 0);
}
END_TEST

PROGRAM(mmio_stack, 32, "push 0x300000\n mov $0x300100, %esp\n push $0x55\n pop %eax\n mov $0x8000, %esp\n"
                        "call *0x300004\n nop\n .org mmio_stack + 0x80\n mov $9, %ebx");

START_TEST(stack_and_indirect_calls_work_through_the_caller) {
    struct trapeze_registers registers = guest_protected_mode();
    GUEST_START(&guest, mmio_stack, &registers);
    guest_expect_read(&guest, TRAPEZE_MMIO, MMIO, 4, 0x77);
    guest_expect_write(&guest, TRAPEZE_MMIO, MMIO + 0xfc, 4, 0x55);
    guest_expect_read(&guest, TRAPEZE_MMIO, MMIO + 0xfc, 4, 0x66);
    guest_expect_read(&guest, TRAPEZE_MMIO, MMIO + 4, 4, CODE + 0x80);
    guest_expect_end(&guest);
    ck_assert_uint_eq(guest_word(&guest, STACK - 4) >> 12, CODE >> 12); /* the call's, over the first push */
    ck_assert_uint_eq(guest_register(&guest, RAX), 0x66);
    ck_assert_uint_eq(guest_register(&guest, RBX), 9);
}
END_TEST

PROGRAM(mmio_vector, 64, "movups 0x300000, %xmm0\n movups %xmm0, 0x9000\n movups %xmm0, 0x300100\n"
                         "movntps %xmm0, 0x300200");

START_TEST(vector_accesses_are_two_of_eight_bytes) {
    struct trapeze_registers registers = guest_long_mode(&guest);
    GUEST_START(&guest, mmio_vector, &registers);
    guest_expect_read(&guest, TRAPEZE_MMIO, MMIO, 8, 0x0706050403020100);
    guest_expect_read(&guest, TRAPEZE_MMIO, MMIO + 8, 8, 0x0f0e0d0c0b0a0908);
    for (unsigned i = 1; i < 3; i++) {
        guest_expect_write(&guest, TRAPEZE_MMIO, MMIO + 0x100 * i, 8, 0x0706050403020100);
        guest_expect_write(&guest, TRAPEZE_MMIO, MMIO + 0x100 * i + 8, 8, 0x0f0e0d0c0b0a0908);
    }
    guest_expect_end(&guest);
    for (unsigned i = 0; i < 16; i++)
        ck_assert_uint_eq(guest.ram[DATA + i], i);
}
END_TEST

/* ---- Edges ---- */

PROGRAM(end_of_ram, 32, "mov 0x1ffffe, %eax\n movl $0x44332211, 0x1ffffe\n");

START_TEST(access_across_the_end_of_ram_reaches_both) {
    struct trapeze_registers registers = guest_protected_mode();
    guest.ram[RAM_SIZE - 2] = 0xaa;
    guest.ram[RAM_SIZE - 1] = 0xbb;
    GUEST_START(&guest, end_of_ram, &registers);
    uint32_t value = 0, written = 0;
    for (;;) {
        guest_run(&guest, TRAPEZE_EXIT_IO);
        if (guest.exit.io.space == TRAPEZE_PORT)
            break;
        ck_assert_uint_ge(guest.exit.io.address, RAM_SIZE);
        ck_assert_uint_le(guest.exit.io.address + guest.exit.io.size, RAM_SIZE + 2);
        unsigned shift = (unsigned)(guest.exit.io.address - RAM_SIZE) * 8;
        if (guest.exit.io.is_write)
            written |= (uint32_t)guest.exit.io.value << shift;
        else
            guest.exit.io.value = (uint64_t)0xddcc >> shift, value++;
    }
    ck_assert_uint_ge(value, 1);
    ck_assert_uint_eq(written, 0x4433);
    ck_assert_uint_eq(guest_register(&guest, RAX), 0xddccbbaa);
    ck_assert_uint_eq(guest.ram[RAM_SIZE - 2], 0x11);
    ck_assert_uint_eq(guest.ram[RAM_SIZE - 1], 0x22);
}
END_TEST

PROGRAM(last_bytes, 32, "mov 0xfffffffc, %eax\n movb $1, 0xffffffff\n mov 0xfffffff0, %ebx");

START_TEST(last_bytes_of_four_gigabytes_are_the_callers) {
    struct trapeze_registers registers = guest_protected_mode();
    GUEST_START(&guest, last_bytes, &registers);
    guest_expect_read(&guest, TRAPEZE_MMIO, 0xfffffffc, 4, 0x12345678);
    guest_expect_write(&guest, TRAPEZE_MMIO, 0xffffffff, 1, 1);
    guest_expect_read(&guest, TRAPEZE_MMIO, 0xfffffff0, 4, 0x9abcdef0);
    guest_expect_end(&guest);
    ck_assert_uint_eq(guest_register(&guest, RAX), 0x12345678);
}
END_TEST

PROGRAM(fetch, 32, "mov $0x300000, %eax\n jmp *%eax");

START_TEST(code_outside_of_memory_is_open_bus) {
    struct trapeze_registers registers = guest_protected_mode();
    GUEST_START(&guest, fetch, &registers);
    guest_run(&guest, TRAPEZE_EXIT_SHUTDOWN); /* FFh FFh is #UD, and there is no IDT */
    struct trapeze_registers now;
    trapeze_vcpu_get_registers(guest.vcpu, &now);
    ck_assert_uint_eq(now.rip, MMIO);
}
END_TEST

/* ---- Devices in the process ---- */

static bool read_one(void *opaque, enum trapeze_space space, uint64_t address, unsigned size, uint64_t *value) {
    (void)opaque;
    (void)size;
    *value = 0x11 * (address & 0xf);
    return space == TRAPEZE_PORT && address < 0x80;
}

static bool write_one(void *opaque, enum trapeze_space space, uint64_t address, unsigned size, uint64_t value) {
    (void)size;
    *(uint64_t *)opaque = value;
    return space == TRAPEZE_PORT && address < 0x80;
}

PROGRAM(claimed, 32, "in $0x13, %al\n out %al, $0x13\n in $0x93, %al\n mov %eax, 0x9000\n mov 0x300000, %ebx");

START_TEST(claimed_accesses_do_not_exit_and_others_are_open_bus) {
    uint64_t written = 0;
    struct trapeze_config config = {.io = {.read = read_one, .write = write_one, .opaque = &written}};
    struct guest own;
    guest_create(&own, &config);
    struct trapeze_registers registers = guest_protected_mode();
    GUEST_START(&own, claimed, &registers);
    struct trapeze_breakpoint end = {TRAPEZE_BREAK_EXECUTE, CODE + (uint64_t)(claimed_end - claimed) - 4, 1};
    ck_assert_int_eq(trapeze_vcpu_set_debug(own.vcpu, false, &end, 1), TRAPEZE_OK);
    guest_run(&own, TRAPEZE_EXIT_DEBUG);
    ck_assert_uint_eq(written, 0x33);
    ck_assert_uint_eq(guest_word(&own, DATA) & 0xff, 0xff);
    ck_assert_uint_eq(guest_register(&own, RBX), 0xffffffff);
    guest_destroy(&own);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("api_io");
    TCase *tests = tcase_create("api_io");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, in_takes_the_callers_answer_in_its_size);
    tcase_add_test(tests, out_tells_value_and_size);
    tcase_add_test(tests, rep_ins_is_one_exit_a_read);
    tcase_add_test(tests, rep_outs_tells_every_write_in_order);
    tcase_add_test(tests, loads_take_the_callers_answer);
    tcase_add_test(tests, stores_tell_the_caller);
    tcase_add_test(tests, read_modify_write_is_a_read_then_a_write_and_happens_once);
    tcase_add_test(tests, string_moves_cross_between_ram_and_the_caller);
    tcase_add_test(tests, stack_and_indirect_calls_work_through_the_caller);
    tcase_add_test(tests, vector_accesses_are_two_of_eight_bytes);
    tcase_add_test(tests, access_across_the_end_of_ram_reaches_both);
    tcase_add_test(tests, last_bytes_of_four_gigabytes_are_the_callers);
    tcase_add_test(tests, code_outside_of_memory_is_open_bus);
    tcase_add_test(tests, claimed_accesses_do_not_exit_and_others_are_open_bus);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
