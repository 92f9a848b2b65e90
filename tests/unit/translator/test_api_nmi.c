/* NMIs through the API: when they are taken, and how many of them are kept (SDM vol. 3A, 6.7.1 and 6.8.3). */
#include "guest_machine.h"

enum { HANDLER = 0x2000, VECTOR_NMI = 2 };

/* Counts in di. */
PROGRAM(counter, 16, "inc %di\n 2: inc %di\n cmp $20000, %di\n jb 2b");
/* The handler counts NMIs in si and keeps di as it was at the first one in bx. */
extern const uint8_t nmi_handler[], nmi_handler_end[];
__asm__(".pushsection .rodata\n.code16\nnmi_handler: test %si, %si\n jnz 1f\n mov %di, %bx\n1: inc %si\n iret\n"
        "nmi_handler_end:\n.code64\n.popsection");

static void create(struct guest *guest) {
    struct trapeze_registers registers = guest_real_mode();
    const uint32_t vector = HANDLER;
    guest_create(guest, NULL);
    ck_assert(trapeze_memory_write(guest->machine, guest_physical_at(HANDLER), nmi_handler,
                                   (size_t)(nmi_handler_end - nmi_handler)));
    ck_assert(trapeze_memory_write(guest->machine, guest_physical_at(4 * VECTOR_NMI), &vector, sizeof vector));
    GUEST_START(guest, counter, &registers);
}

START_TEST(nmi_waits_for_the_instruction_in_the_shadow_and_no_longer) {
    struct guest guest;
    create(&guest);
    const struct trapeze_events events = {.interrupt_shadow = true, .nmi_pending = true};
    trapeze_vcpu_set_events(guest.vcpu, &events);
    guest_expect_end(&guest);
    ck_assert_uint_eq(guest_register(&guest, RSI), 1);
    ck_assert_uint_eq(guest_register(&guest, RBX), 1);
    guest_destroy(&guest);
}
END_TEST

START_TEST(nmi_without_a_shadow_comes_before_the_first_instruction) {
    struct guest guest;
    create(&guest);
    trapeze_vcpu_signal(guest.vcpu, TRAPEZE_SIGNAL_NMI, 0);
    guest_expect_end(&guest);
    ck_assert_uint_eq(guest_register(&guest, RSI), 1);
    ck_assert_uint_eq(guest_register(&guest, RBX), 0);
    guest_destroy(&guest);
}
END_TEST

START_TEST(of_several_nmis_one_is_taken_and_one_is_kept) {
    struct guest guest;
    create(&guest);
    for (int i = 0; i < _i; i++)
        trapeze_vcpu_signal(guest.vcpu, TRAPEZE_SIGNAL_NMI, 0);
    guest_expect_end(&guest);
    ck_assert_uint_eq(guest_register(&guest, RSI), _i < 2 ? _i : 2);
    guest_destroy(&guest);
}
END_TEST

START_TEST(blocked_nmi_waits_for_iret) {
    struct guest guest;
    create(&guest);
    const struct trapeze_events events = {.nmi_blocked = true, .nmi_pending = true};
    trapeze_vcpu_set_events(guest.vcpu, &events);
    guest_expect_end(&guest);
    ck_assert_uint_eq(guest_register(&guest, RSI), 0);
    guest_destroy(&guest);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("api");
    TCase *tests = tcase_create("nmi");
    tcase_add_test(tests, nmi_waits_for_the_instruction_in_the_shadow_and_no_longer);
    tcase_add_test(tests, nmi_without_a_shadow_comes_before_the_first_instruction);
    tcase_add_loop_test(tests, of_several_nmis_one_is_taken_and_one_is_kept, 0, 5);
    tcase_add_test(tests, blocked_nmi_waits_for_iret);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
