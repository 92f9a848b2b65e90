/* libtrapeze: guest-physical memory - regions that come and go, read-only ones, dirty pages, A20, stores by devices. */
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "guest_machine.h"

static struct guest guest;

static void setup(void) {
    guest_create(&guest, NULL);
}

static void teardown(void) {
    guest_destroy(&guest);
}

static enum trapeze_status map(unsigned slot, uint64_t base, uint64_t offset, uint64_t length, unsigned flags) {
    return trapeze_memory_map(guest.machine, slot, guest_physical_at(base), guest.fd, offset, length, flags);
}

/* ---- Regions ---- */

START_TEST(bad_regions_are_refused_and_change_nothing) {
    ck_assert_int_eq(map(64, 0x400000, 0, 0x1000, 0), TRAPEZE_INVALID);
    ck_assert_int_eq(map(1, 0x400800, 0, 0x1000, 0), TRAPEZE_INVALID);
    ck_assert_int_eq(map(1, 0x400000, 0x10, 0x1000, 0), TRAPEZE_INVALID);
    ck_assert_int_eq(map(1, 0x400000, 0, 0x1001, 0), TRAPEZE_INVALID);
    ck_assert_int_eq(map(1, 0x400000, 0, 0, 0), TRAPEZE_INVALID);
    ck_assert_int_eq(map(1, ~0xfffull, 0, 0x2000, 0), TRAPEZE_INVALID);
    ck_assert_int_eq(map(1, RAM_SIZE - 0x1000, 0, 0x2000, 0), TRAPEZE_OVERLAP);
    ck_assert_int_eq(trapeze_memory_map(guest.machine, 1, guest_physical_at(0x400000), -1, 0, 0x1000, 0),
                     TRAPEZE_HOST_ERROR);
    ck_assert_int_eq(trapeze_memory_unmap(guest.machine, 64), TRAPEZE_INVALID);
    uint8_t byte;
    ck_assert(!trapeze_memory_read(guest.machine, guest_physical_at(0x400000), &byte, 1));
    ck_assert(trapeze_memory_read(guest.machine, guest_physical_at(RAM_SIZE - 1), &byte, 1));
}
END_TEST

START_TEST(refused_replacement_keeps_what_the_slot_held) {
    uint8_t byte;
    ck_assert_int_eq(map(1, 0x400000, 0, 0x1000, 0), TRAPEZE_OK);
    ck_assert_int_eq(map(1, 0x1000, 0, 0x1000, 0), TRAPEZE_OVERLAP);
    ck_assert(trapeze_memory_read(guest.machine, guest_physical_at(0x400000), &byte, 1));
    ck_assert_int_eq(map(1, 0x400001, 0, 0x1000, 0), TRAPEZE_INVALID);
    ck_assert(trapeze_memory_read(guest.machine, guest_physical_at(0x400000), &byte, 1));
    ck_assert_int_eq(map(1, 0x400000, 0x1000, 0x3000, 0), TRAPEZE_OK); /* over itself */
    ck_assert(trapeze_memory_read(guest.machine, guest_physical_at(0x402fff), &byte, 1));
}
END_TEST

START_TEST(reads_and_writes_by_the_caller_are_whole_or_not_at_all) {
    uint8_t buffer[0x3000];
    memset(buffer, 0x5a, sizeof buffer);
    ck_assert(trapeze_memory_write(guest.machine, guest_physical_at(0x0ff8), buffer, 0x2010));
    ck_assert_uint_eq(guest.ram[0x0ff7], 0);
    ck_assert_uint_eq(guest.ram[0x0ff8], 0x5a);
    ck_assert_uint_eq(guest.ram[0x3007], 0x5a);
    ck_assert_uint_eq(guest.ram[0x3008], 0);
    ck_assert(!trapeze_memory_write(guest.machine, guest_physical_at(RAM_SIZE - 16), buffer, 17));
    ck_assert_uint_eq(guest.ram[RAM_SIZE - 16], 0);
    ck_assert(trapeze_memory_write(guest.machine, guest_physical_at(RAM_SIZE - 16), buffer, 16));
    ck_assert(!trapeze_memory_read(guest.machine, guest_physical_at(~0ull), buffer, 2));
    ck_assert(!trapeze_memory_read(guest.machine, guest_physical_at(~0ull), buffer, 1));
    ck_assert(trapeze_memory_read(guest.machine, guest_physical_at(~0ull), buffer, 0));
}
END_TEST

PROGRAM(touch, 32, "1: mov 0x400000, %eax\n out %al, $0x80\n jmp 1b");

START_TEST(memory_that_goes_becomes_the_callers_and_back) {
    struct trapeze_registers registers = guest_protected_mode();
    GUEST_START(&guest, touch, &registers);
    guest.ram[0x5000] = 0x11;
    ck_assert_int_eq(map(1, 0x400000, 0x5000, 0x1000, 0), TRAPEZE_OK);
    guest_expect_write(&guest, TRAPEZE_PORT, 0x80, 1, 0x11);
    ck_assert_int_eq(trapeze_memory_unmap(guest.machine, 1), TRAPEZE_OK);
    guest_expect_read(&guest, TRAPEZE_MMIO, 0x400000, 4, 0x22);
    guest_expect_write(&guest, TRAPEZE_PORT, 0x80, 1, 0x22);
    guest.ram[0x6000] = 0x33;
    ck_assert_int_eq(map(1, 0x400000, 0x6000, 0x1000, 0), TRAPEZE_OK);
    guest_expect_write(&guest, TRAPEZE_PORT, 0x80, 1, 0x33);
    ck_assert_int_eq(map(1, 0x400000, 0x5000, 0x1000, 0), TRAPEZE_OK);
    guest_expect_write(&guest, TRAPEZE_PORT, 0x80, 1, 0x11);
}
END_TEST

PROGRAM(loop_over_code, 32, "mov $0x400000, %edx\n 1: call *%edx\n out %al, $0x80\n jmp 1b");

START_TEST(code_of_a_region_that_goes_is_not_run_again) {
    static const uint8_t return_1[] = {0xb0, 1, 0xc3}, return_2[] = {0xb0, 2, 0xc3};
    struct trapeze_registers registers = guest_protected_mode();
    GUEST_START(&guest, loop_over_code, &registers);
    memcpy(guest.ram + 0x5000, return_1, sizeof return_1);
    memcpy(guest.ram + 0x6000, return_2, sizeof return_2);
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_int_eq(map(1, 0x400000, i & 1 ? 0x6000 : 0x5000, 0x1000, 0), TRAPEZE_OK);
        guest_expect_write(&guest, TRAPEZE_PORT, 0x80, 1, i & 1 ? 2 : 1);
        guest_expect_write(&guest, TRAPEZE_PORT, 0x80, 1, i & 1 ? 2 : 1);
    }
}
END_TEST

PROGRAM(store_to_rom, 32, "mov $0x55, %eax\n mov %eax, 0x400000\n lock addl $1, 0x400004\n mov $0x400008, %edi\n"
                          "stosl\n pushl $1\n mov 0x400000, %ebx\n mov 0x400004, %ecx\n movups %xmm0, 0x400010");

START_TEST(stores_to_a_read_only_region_are_ignored) {
    struct trapeze_registers registers = guest_protected_mode();
    memset(guest.ram + 0x5000, 0xaa, 0x1000);
    ck_assert_int_eq(map(1, 0x400000, 0x5000, 0x1000, TRAPEZE_MEMORY_READ_ONLY), TRAPEZE_OK);
    GUEST_START(&guest, store_to_rom, &registers);
    guest_expect_end(&guest);
    ck_assert_uint_eq(guest_register(&guest, RBX), 0xaaaaaaaa);
    ck_assert_uint_eq(guest_register(&guest, RCX), 0xaaaaaaaa);
    for (unsigned i = 0; i < 0x1000; i++)
        ck_assert_uint_eq(guest.ram[0x5000 + i], 0xaa);
    ck_assert(trapeze_memory_write(guest.machine, guest_physical_at(0x400000), "x", 1)); /* the caller may */
    ck_assert_uint_eq(guest.ram[0x5000], 'x');
}
END_TEST

/* ---- Dirty pages ---- */

PROGRAM(make_dirty, 32, "1: mov $0x20000, %edi\n movb $1, (%edi)\n movb $1, 0x30ffc(%edi)\n incl 0x100000\n"
                        "mov 0x180000, %eax\n mov $0x140fff, %edi\n movw $1, (%edi)\n mov $0x160000, %edi\n"
                        "mov $0x400, %ecx\n rep stosl\n out %al, $0x80\n jmp 1b");

static bool is_dirty(const uint64_t *bitmap, uint64_t address) {
    return bitmap[address >> 12 >> 6] >> (address >> 12 & 63) & 1;
}

START_TEST(dirty_log_tells_written_pages_once) {
    uint64_t bitmap[RAM_SIZE / 4096 / 64];
    struct trapeze_registers registers = guest_protected_mode();
    GUEST_START(&guest, make_dirty, &registers);
    ck_assert_int_eq(trapeze_memory_dirty_log(guest.machine, 5, bitmap, 8), TRAPEZE_INVALID);
    ck_assert_int_eq(trapeze_memory_dirty_log(guest.machine, 0, bitmap, 7), TRAPEZE_INVALID);
    ck_assert_int_eq(trapeze_memory_dirty_log(guest.machine, 0, bitmap, 8), TRAPEZE_OK);
    ck_assert(is_dirty(bitmap, CODE)); /* trapeze_memory_write */
    for (unsigned round = 0; round < 3; round++) {
        guest_expect_io(&guest, TRAPEZE_PORT, true, 0x80, 1);
        ck_assert_int_eq(trapeze_memory_dirty_log(guest.machine, 0, bitmap, 8), TRAPEZE_OK);
        static const uint32_t written[] = {0x20000, 0x50000, 0x100000, 0x140000, 0x141000, 0x160000};
        unsigned count = 0;
        for (unsigned i = 0; i < 8; i++)
            count += (unsigned)__builtin_popcountll(bitmap[i]);
        for (unsigned i = 0; i < sizeof written / sizeof *written; i++)
            ck_assert_msg(is_dirty(bitmap, written[i]), "page %x, round %u", written[i], round);
        ck_assert_uint_eq(count, sizeof written / sizeof *written);
    }
    ck_assert_int_eq(trapeze_memory_dirty_log(guest.machine, 0, bitmap, 8), TRAPEZE_OK);
    for (unsigned i = 0; i < 8; i++)
        ck_assert_uint_eq(bitmap[i], 0);
}
END_TEST

/* ---- A20 ---- */

PROGRAM(wrap, 32, "1: mov 0x100000, %eax\n out %eax, $0x80\n movl $0x77, 0x100004\n jmp 1b");

START_TEST(closed_a20_gate_folds_odd_megabytes) {
    struct trapeze_registers registers = guest_protected_mode();
    guest_set_word(&guest, 0, 0x11);
    guest_set_word(&guest, 0x100000, 0x22);
    GUEST_START(&guest, wrap, &registers);
    guest_expect_write(&guest, TRAPEZE_PORT, 0x80, 4, 0x22);
    trapeze_machine_set_a20(guest.machine, false);
    guest_set_word(&guest, 0x100004, 0);
    guest_expect_write(&guest, TRAPEZE_PORT, 0x80, 4, 0x11);
    guest_expect_write(&guest, TRAPEZE_PORT, 0x80, 4, 0x11);
    ck_assert_uint_eq(guest_word(&guest, 4), 0x77);
    trapeze_machine_set_a20(guest.machine, true);
    guest_expect_write(&guest, TRAPEZE_PORT, 0x80, 4, 0x22);
    guest_expect_write(&guest, TRAPEZE_PORT, 0x80, 4, 0x22);
    ck_assert_uint_eq(guest_word(&guest, 0x100004), 0x77);
}
END_TEST

/* ---- Stores by devices over code ---- */

PROGRAM(report_constant, 32, "1: mov $1, %eax\n out %al, $0x80\n jmp 1b");

START_TEST(code_written_by_the_caller_between_exits_runs_anew) {
    struct trapeze_registers registers = guest_protected_mode();
    GUEST_START(&guest, report_constant, &registers);
    for (unsigned i = 1; i < 200; i++) {
        uint8_t value = (uint8_t)i;
        ck_assert(trapeze_memory_write(guest.machine, guest_physical_at(CODE + 1), &value, 1));
        guest_expect_write(&guest, TRAPEZE_PORT, 0x80, 1, value);
    }
}
END_TEST

PROGRAM(spin_until_patched, 32, "1: mov $0, %eax\n test %eax, %eax\n jz 1b");

static void *patch(void *unused) {
    static const uint8_t one = 1;
    usleep(50000);
    trapeze_memory_write(guest.machine, guest_physical_at(CODE + 1), &one, 1);
    return unused;
}

START_TEST(code_written_from_another_thread_is_seen_by_a_loop) {
    struct trapeze_registers registers = guest_protected_mode();
    pthread_t thread;
    GUEST_START(&guest, spin_until_patched, &registers);
    pthread_create(&thread, NULL, patch, NULL);
    guest_expect_end(&guest);
    pthread_join(thread, NULL);
}
END_TEST

static void *swap_regions(void *unused) {
    for (unsigned i = 0; i < 200; i++)
        map(1, 0x400000, i & 1 ? 0x6000 : 0x5000, 0x1000, 0);
    trapeze_vcpu_kick(guest.vcpu);
    return unused;
}

PROGRAM(read_forever, 32, "1: mov 0x400000, %eax\n add %eax, 0x400004\n jmp 1b");

START_TEST(regions_may_change_while_the_guest_uses_them) {
    struct trapeze_registers registers = guest_protected_mode();
    pthread_t thread;
    ck_assert_int_eq(map(1, 0x400000, 0x5000, 0x1000, 0), TRAPEZE_OK);
    GUEST_START(&guest, read_forever, &registers);
    pthread_create(&thread, NULL, swap_regions, NULL);
    guest_run(&guest, TRAPEZE_EXIT_KICKED);
    pthread_join(thread, NULL);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("api_memory");
    TCase *tests = tcase_create("api_memory");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, bad_regions_are_refused_and_change_nothing);
    tcase_add_test(tests, refused_replacement_keeps_what_the_slot_held);
    tcase_add_test(tests, reads_and_writes_by_the_caller_are_whole_or_not_at_all);
    tcase_add_test(tests, memory_that_goes_becomes_the_callers_and_back);
    tcase_add_test(tests, code_of_a_region_that_goes_is_not_run_again);
    tcase_add_test(tests, stores_to_a_read_only_region_are_ignored);
    tcase_add_test(tests, dirty_log_tells_written_pages_once);
    tcase_add_test(tests, closed_a20_gate_folds_odd_megabytes);
    tcase_add_test(tests, code_written_by_the_caller_between_exits_runs_anew);
    tcase_add_test(tests, code_written_from_another_thread_is_seen_by_a_loop);
    tcase_add_test(tests, regions_may_change_while_the_guest_uses_them);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
