/* The pair of 8259A: initialisation, priorities, end of interrupt in all its forms, cascade, levels, spurious. */
#include "devices/pic.h"
#include "tests/unit/devices/device_test.h"

static struct pic pic;
static struct line_probe intr;

static void init_chip(struct pic_chip *chip, uint8_t vector, uint8_t icw4) {
    out8(&pic_ops, chip, 0, 0x11);
    out8(&pic_ops, chip, 1, vector);
    out8(&pic_ops, chip, 1, chip == &pic.master ? 4 : 2);
    out8(&pic_ops, chip, 1, icw4);
}

static void setup(void) {
    intr = (struct line_probe){0};
    struct irq_line line = line_probe_line(&intr);
    pic_init(&pic, &line);
    init_chip(&pic.master, 0x20, 1);
    init_chip(&pic.slave, 0x28, 1);
}

static void eoi(struct pic_chip *chip) {
    out8(&pic_ops, chip, 0, 0x20);
}

static uint8_t read_isr(struct pic_chip *chip) {
    out8(&pic_ops, chip, 0, 0x0b);
    return in8(&pic_ops, chip, 0);
}

static uint8_t read_irr(struct pic_chip *chip) {
    out8(&pic_ops, chip, 0, 0x0a);
    return in8(&pic_ops, chip, 0);
}

START_TEST(uninitialised_chip_asks_for_nothing) {
    pic_reset(&pic);
    pic_set_irq(&pic, 0, true);
    ck_assert(!intr.level);
    out8(&pic_ops, &pic.master, 0, 0x11);
    out8(&pic_ops, &pic.master, 1, 0x08);
    pic_set_irq(&pic, 0, false);
    pic_set_irq(&pic, 0, true);
    ck_assert(!intr.level);
    out8(&pic_ops, &pic.master, 1, 4);
    out8(&pic_ops, &pic.master, 1, 1);
    ck_assert(intr.level);
    ck_assert_int_eq(pic_acknowledge(&pic), 0x08);
}
END_TEST

START_TEST(mask_register_reads_back) {
    out8(&pic_ops, &pic.master, 1, 0xfb);
    ck_assert_uint_eq(in8(&pic_ops, &pic.master, 1), 0xfb);
    ck_assert_uint_eq(in8(&pic_ops, &pic.slave, 1), 0x00);
}
END_TEST

START_TEST(edge_is_latched_and_served_once) {
    pic_set_irq(&pic, 1, true);
    ck_assert(intr.level);
    ck_assert_int_eq(pic_acknowledge(&pic), 0x21);
    ck_assert(!intr.level);
    ck_assert_uint_eq(read_isr(&pic.master), 0x02);
    eoi(&pic.master);
    ck_assert(!intr.level); /* the line is still high, but there was no edge */
    pic_set_irq(&pic, 1, false);
    pic_set_irq(&pic, 1, true);
    ck_assert(intr.level);
}
END_TEST

START_TEST(masked_request_waits) {
    out8(&pic_ops, &pic.master, 1, 0x02);
    pic_set_irq(&pic, 1, true);
    ck_assert(!intr.level);
    ck_assert(!pic_is_waiting(&pic, 1));
    ck_assert_uint_eq(read_irr(&pic.master), 0x02);
    out8(&pic_ops, &pic.master, 1, 0);
    ck_assert(intr.level);
    ck_assert(pic_is_waiting(&pic, 1));
    ck_assert_int_eq(pic_acknowledge(&pic), 0x21);
    ck_assert(!pic_is_waiting(&pic, 1));
}
END_TEST

START_TEST(higher_priority_nests_lower_waits) {
    pic_set_irq(&pic, 4, true);
    ck_assert_int_eq(pic_acknowledge(&pic), 0x24);
    pic_set_irq(&pic, 5, true);
    ck_assert(!intr.level);
    pic_set_irq(&pic, 3, true);
    ck_assert(intr.level);
    ck_assert_int_eq(pic_acknowledge(&pic), 0x23);
    eoi(&pic.master); /* non-specific: the highest in service, 3 */
    ck_assert_uint_eq(read_isr(&pic.master), 0x10);
    ck_assert(!intr.level);
    eoi(&pic.master);
    ck_assert_int_eq(pic_acknowledge(&pic), 0x25);
}
END_TEST

START_TEST(slave_irq_goes_through_the_cascade) {
    pic_set_irq(&pic, 12, true);
    ck_assert(intr.level);
    ck_assert_int_eq(pic_acknowledge(&pic), 0x2c);
    ck_assert_uint_eq(read_isr(&pic.master), 0x04);
    ck_assert_uint_eq(read_isr(&pic.slave), 0x10);
    pic_set_irq(&pic, 14, true);
    eoi(&pic.slave);
    ck_assert(!intr.level); /* the master still serves its IR2 */
    eoi(&pic.master);
    ck_assert(intr.level);
    ck_assert_int_eq(pic_acknowledge(&pic), 0x2e);
}
END_TEST

START_TEST(two_slave_requests_both_arrive) {
    pic_set_irq(&pic, 14, true);
    pic_set_irq(&pic, 8, true);
    ck_assert_int_eq(pic_acknowledge(&pic), 0x28);
    eoi(&pic.slave);
    eoi(&pic.master);
    ck_assert_int_eq(pic_acknowledge(&pic), 0x2e);
    eoi(&pic.slave);
    eoi(&pic.master);
    ck_assert(!intr.level);
}
END_TEST

START_TEST(withdrawn_level_is_spurious_irq7) {
    out8(&pic_elcr_ops, &pic.master, 0, 0x20);
    pic_set_irq(&pic, 5, true);
    pic_set_irq(&pic, 5, false);
    ck_assert(!intr.level);
    ck_assert_int_eq(pic_acknowledge(&pic), 0x27);
    ck_assert_uint_eq(read_isr(&pic.master), 0);
}
END_TEST

START_TEST(request_masked_at_the_slave_is_spurious_irq15) {
    pic_set_irq(&pic, 9, true);
    pic.master.irr |= 0x04; /* the master latched the slave's request... */
    out8(&pic_ops, &pic.slave, 1, 0x02);
    pic.master.irr |= 0x04; /* ...before it went away */
    ck_assert_int_eq(pic_acknowledge(&pic), 0x2f);
    ck_assert_uint_eq(read_isr(&pic.slave), 0);
    ck_assert_uint_eq(read_isr(&pic.master), 0x04);
}
END_TEST

START_TEST(level_input_asks_again_until_it_falls) {
    out8(&pic_elcr_ops, &pic.slave, 0, 0xff);
    ck_assert_uint_eq(in8(&pic_elcr_ops, &pic.slave, 0), 0xde);
    pic_set_irq(&pic, 11, true);
    ck_assert_int_eq(pic_acknowledge(&pic), 0x2b);
    eoi(&pic.slave);
    eoi(&pic.master);
    ck_assert(intr.level);
    ck_assert_int_eq(pic_acknowledge(&pic), 0x2b);
    pic_set_irq(&pic, 11, false);
    eoi(&pic.slave);
    eoi(&pic.master);
    ck_assert(!intr.level);
}
END_TEST

START_TEST(elcr_keeps_system_inputs_edge_triggered) {
    out8(&pic_elcr_ops, &pic.master, 0, 0xff);
    ck_assert_uint_eq(in8(&pic_elcr_ops, &pic.master, 0), 0xf8);
}
END_TEST

START_TEST(specific_eoi_ends_what_it_names) {
    pic_set_irq(&pic, 4, true);
    pic_acknowledge(&pic);
    pic_set_irq(&pic, 3, true);
    pic_acknowledge(&pic);
    out8(&pic_ops, &pic.master, 0, 0x64);
    ck_assert_uint_eq(read_isr(&pic.master), 0x08);
}
END_TEST

START_TEST(rotation_makes_the_served_input_the_lowest) {
    pic_set_irq(&pic, 4, true);
    pic_acknowledge(&pic);
    out8(&pic_ops, &pic.master, 0, 0xa0); /* rotate on non-specific EOI */
    pic_set_irq(&pic, 4, false);
    pic_set_irq(&pic, 4, true);
    pic_set_irq(&pic, 0, true);
    pic_set_irq(&pic, 6, true);
    ck_assert_int_eq(pic_acknowledge(&pic), 0x26);
    out8(&pic_ops, &pic.master, 0, 0x66);
    ck_assert_int_eq(pic_acknowledge(&pic), 0x20);
    out8(&pic_ops, &pic.master, 0, 0xc7); /* set priority: 7 is lowest again */
    out8(&pic_ops, &pic.master, 0, 0x60);
    ck_assert_int_eq(pic_acknowledge(&pic), 0x24);
}
END_TEST

START_TEST(automatic_eoi_leaves_nothing_in_service) {
    init_chip(&pic.master, 0x20, 3);
    pic_set_irq(&pic, 3, true);
    pic_set_irq(&pic, 5, true);
    ck_assert_int_eq(pic_acknowledge(&pic), 0x23);
    ck_assert_uint_eq(read_isr(&pic.master), 0);
    ck_assert(intr.level);
    out8(&pic_ops, &pic.master, 0, 0x80); /* rotate in automatic EOI mode */
    ck_assert_int_eq(pic_acknowledge(&pic), 0x25);
    pic_set_irq(&pic, 5, false);
    pic_set_irq(&pic, 5, true);
    pic_set_irq(&pic, 6, true);
    ck_assert_int_eq(pic_acknowledge(&pic), 0x26);
}
END_TEST

START_TEST(special_mask_lets_lower_priorities_through) {
    pic_set_irq(&pic, 1, true);
    pic_acknowledge(&pic);
    pic_set_irq(&pic, 6, true);
    ck_assert(!intr.level);
    out8(&pic_ops, &pic.master, 0, 0x68); /* ESMM, SMM */
    out8(&pic_ops, &pic.master, 1, 0x02);
    ck_assert(intr.level);
    ck_assert_int_eq(pic_acknowledge(&pic), 0x26);
    eoi(&pic.master); /* ends 6: 1 is masked */
    ck_assert_uint_eq(read_isr(&pic.master), 0x02);
    out8(&pic_ops, &pic.master, 0, 0x61);
    ck_assert_uint_eq(read_isr(&pic.master), 0);
}
END_TEST

START_TEST(special_fully_nested_mode_nests_slave_requests) {
    init_chip(&pic.master, 0x20, 0x11);
    pic_set_irq(&pic, 14, true);
    ck_assert_int_eq(pic_acknowledge(&pic), 0x2e);
    pic_set_irq(&pic, 9, true);
    ck_assert(intr.level);
    ck_assert_int_eq(pic_acknowledge(&pic), 0x29);
}
END_TEST

START_TEST(poll_acknowledges) {
    pic_set_irq(&pic, 3, true);
    out8(&pic_ops, &pic.master, 0, 0x0c);
    ck_assert_uint_eq(in8(&pic_ops, &pic.master, 0), 0x83);
    ck_assert(!intr.level);
    ck_assert_uint_eq(read_isr(&pic.master), 0x08);
    out8(&pic_ops, &pic.master, 0, 0x0c);
    ck_assert_uint_eq(in8(&pic_ops, &pic.master, 0) & 0x80, 0);
}
END_TEST

START_TEST(icw1_wants_a_new_edge) {
    pic_set_irq(&pic, 3, true);
    init_chip(&pic.master, 0x70, 1);
    ck_assert(!intr.level);
    pic_set_irq(&pic, 3, true);
    ck_assert(!intr.level);
    pic_set_irq(&pic, 3, false);
    pic_set_irq(&pic, 3, true);
    ck_assert_int_eq(pic_acknowledge(&pic), 0x73);
}
END_TEST

START_TEST(icw4_is_skipped_when_icw1_says_so) {
    out8(&pic_ops, &pic.master, 0, 0x10);
    out8(&pic_ops, &pic.master, 1, 0x40);
    out8(&pic_ops, &pic.master, 1, 4);
    out8(&pic_ops, &pic.master, 1, 0x5a); /* a mask already */
    ck_assert_uint_eq(in8(&pic_ops, &pic.master, 1), 0x5a);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("pic");
    TCase *tests = tcase_create("pic");
    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, uninitialised_chip_asks_for_nothing);
    tcase_add_test(tests, mask_register_reads_back);
    tcase_add_test(tests, edge_is_latched_and_served_once);
    tcase_add_test(tests, masked_request_waits);
    tcase_add_test(tests, higher_priority_nests_lower_waits);
    tcase_add_test(tests, slave_irq_goes_through_the_cascade);
    tcase_add_test(tests, two_slave_requests_both_arrive);
    tcase_add_test(tests, withdrawn_level_is_spurious_irq7);
    tcase_add_test(tests, request_masked_at_the_slave_is_spurious_irq15);
    tcase_add_test(tests, level_input_asks_again_until_it_falls);
    tcase_add_test(tests, elcr_keeps_system_inputs_edge_triggered);
    tcase_add_test(tests, specific_eoi_ends_what_it_names);
    tcase_add_test(tests, rotation_makes_the_served_input_the_lowest);
    tcase_add_test(tests, automatic_eoi_leaves_nothing_in_service);
    tcase_add_test(tests, special_mask_lets_lower_priorities_through);
    tcase_add_test(tests, special_fully_nested_mode_nests_slave_requests);
    tcase_add_test(tests, poll_acknowledges);
    tcase_add_test(tests, icw1_wants_a_new_edge);
    tcase_add_test(tests, icw4_is_skipped_when_icw1_says_so);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
