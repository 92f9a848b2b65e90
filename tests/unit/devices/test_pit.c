/* The 8254: the six modes, latches, read-back, GATE 2 and port 61h, and ticks that are not lost. */
#include "devices/pit.h"
#include "tests/unit/devices/device_test.h"

static struct bus *bus;
static struct clock *manual;
static struct pit pit;
static struct line_probe irq;
static bool is_waiting;

static bool tick_is_waiting(void *opaque) {
    return *(bool *)opaque;
}

/* Moves to the start of tick `tick` of the 8254. */
static void go_to(uint64_t tick) {
    uint64_t ns = (tick * 1000000000 + PIT_HZ - 1) / PIT_HZ;
    clock_step(manual, ns - clock_now(manual));
}

static void setup(void) {
    bus = bus_create();
    manual = clock_create_manual(bus);
    irq = (struct line_probe){0};
    is_waiting = false;
    struct irq_line line = line_probe_line(&irq);
    pit_init(&pit, manual, &line, tick_is_waiting, &is_waiting);
}

static void teardown(void) {
    pit_release(&pit);
    clock_destroy(manual);
    bus_destroy(bus);
}

static void program(unsigned channel, unsigned mode, uint16_t count) {
    out8(&pit_ops, &pit, 3, (uint8_t)(channel << 6 | 0x30 | mode << 1));
    out8(&pit_ops, &pit, channel, (uint8_t)count);
    out8(&pit_ops, &pit, channel, (uint8_t)(count >> 8));
}

static unsigned read16(unsigned channel) {
    unsigned low = in8(&pit_ops, &pit, channel);
    return low | (unsigned)in8(&pit_ops, &pit, channel) << 8;
}

static unsigned latched(unsigned channel) {
    out8(&pit_ops, &pit, 3, (uint8_t)(channel << 6));
    return read16(channel);
}

static uint8_t status(unsigned channel) {
    out8(&pit_ops, &pit, 3, (uint8_t)(0xe0 | 2u << channel));
    return in8(&pit_ops, &pit, channel);
}

static bool out2(void) {
    return in8(&pit_speaker_ops, &pit, 0) & 0x20;
}

static void gate2(bool gate) {
    out8(&pit_speaker_ops, &pit, 0, gate);
}

START_TEST(reset_leaves_a_running_loaded_counter) {
    go_to(10);
    ck_assert_uint_eq(status(0) & 0x40, 0);
}
END_TEST

START_TEST(mode_0_raises_out_after_n_plus_one) {
    program(0, 0, 100);
    ck_assert(!irq.level);
    ck_assert_uint_eq(status(0), 0x70); /* OUT low, null count until the next CLK */
    go_to(1);
    ck_assert_uint_eq(status(0), 0x30);
    ck_assert_uint_eq(latched(0), 100);
    go_to(100);
    ck_assert(!irq.level);
    ck_assert_uint_eq(latched(0), 1);
    go_to(101);
    ck_assert(irq.level);
    ck_assert_uint_eq(status(0), 0xb0);
    go_to(103);
    ck_assert_uint_eq(latched(0), 0xfffe); /* it goes on counting */
}
END_TEST

START_TEST(mode_0_first_byte_stops_and_lowers_out) {
    program(0, 0, 10);
    go_to(20);
    ck_assert(irq.level);
    out8(&pit_ops, &pit, 0, 50);
    ck_assert(!irq.level);
    go_to(200);
    ck_assert(!irq.level);
    out8(&pit_ops, &pit, 0, 0);
    go_to(251);
    ck_assert(irq.level);
}
END_TEST

START_TEST(mode_2_ticks_every_n) {
    unsigned before = irq.rises;
    program(0, 2, 1000);
    ck_assert(irq.level);
    unsigned start = irq.rises;
    ck_assert_uint_le(start, before + 1);
    go_to(1 + 999);
    ck_assert_uint_eq(irq.rises, start);
    ck_assert_uint_eq(latched(0), 1);
    ck_assert_uint_eq(status(0) & 0x80, 0); /* low for one CLK */
    go_to(1 + 1000);
    ck_assert_uint_eq(irq.rises, start + 1);
    ck_assert_uint_eq(latched(0), 1000);
    go_to(1 + 20 * 1000);
    ck_assert_uint_eq(irq.rises, start + 20);
}
END_TEST

START_TEST(mode_2_new_count_waits_for_the_end_of_the_period) {
    program(0, 2, 1000);
    go_to(501);
    unsigned start = irq.rises;
    out8(&pit_ops, &pit, 0, 2000 & 0xff);
    out8(&pit_ops, &pit, 0, 2000 >> 8);
    ck_assert_uint_eq(latched(0), 500);
    ck_assert_uint_eq(status(0) & 0x40, 0x40);
    go_to(1001);
    ck_assert_uint_eq(irq.rises, start + 1);
    ck_assert_uint_eq(latched(0), 2000);
    go_to(3000);
    ck_assert_uint_eq(irq.rises, start + 1);
    go_to(3001);
    ck_assert_uint_eq(irq.rises, start + 2);
}
END_TEST

START_TEST(mode_3_is_a_square_wave_by_twos) {
    gate2(true);
    program(2, 3, 10);
    go_to(1);
    ck_assert_uint_eq(latched(2), 10);
    go_to(5);
    ck_assert(out2());
    ck_assert_uint_eq(latched(2), 2);
    go_to(6);
    ck_assert(!out2());
    ck_assert_uint_eq(latched(2), 10);
    go_to(11);
    ck_assert(out2());
}
END_TEST

START_TEST(mode_3_odd_count_is_high_longer) {
    gate2(true);
    program(2, 3, 5);
    static const bool high[10] = {1, 1, 1, 0, 0, 1, 1, 1, 0, 0};
    static const unsigned counts[5] = {4, 2, 0, 4, 2};
    for (unsigned i = 0; i < 10; i++) {
        go_to(1 + i);
        ck_assert_int_eq(out2(), high[i]);
        ck_assert_uint_eq(latched(2), counts[i % 5]);
    }
}
END_TEST

START_TEST(mode_3_new_count_waits_for_the_half) {
    gate2(true);
    program(2, 3, 100);
    go_to(1 + 20);
    out8(&pit_ops, &pit, 2, 20);
    out8(&pit_ops, &pit, 2, 0);
    go_to(1 + 49);
    ck_assert(out2());
    go_to(1 + 50);
    ck_assert(!out2());
    go_to(1 + 59);
    ck_assert(!out2());
    go_to(1 + 60);
    ck_assert(out2());
    go_to(1 + 70);
    ck_assert(!out2());
}
END_TEST

START_TEST(mode_4_strobes_once) {
    program(0, 4, 50);
    go_to(51);
    unsigned start = irq.rises;
    ck_assert_uint_eq(status(0) & 0x80, 0);
    go_to(52);
    ck_assert_uint_eq(irq.rises, start + 1);
    ck_assert_uint_eq(status(0) & 0x80, 0x80);
    go_to(70000);
    ck_assert_uint_eq(irq.rises, start + 1);
    out8(&pit_ops, &pit, 0, 50); /* one-shot clock events write a count alone */
    out8(&pit_ops, &pit, 0, 0);
    go_to(70052);
    ck_assert_uint_eq(irq.rises, start + 2);
}
END_TEST

START_TEST(mode_1_is_triggered_by_the_gate) {
    program(2, 1, 30);
    go_to(100);
    ck_assert(out2());
    gate2(true);
    go_to(101);
    ck_assert(!out2());
    go_to(120);
    gate2(false);
    gate2(true); /* retriggers */
    go_to(150);
    ck_assert(!out2());
    go_to(151);
    ck_assert(out2());
}
END_TEST

START_TEST(mode_5_strobes_after_the_trigger) {
    program(2, 5, 30);
    gate2(true);
    go_to(30);
    ck_assert(out2());
    go_to(31);
    ck_assert(!out2());
    go_to(32);
    ck_assert(out2());
}
END_TEST

START_TEST(gate_low_holds_the_count_of_mode_0) {
    gate2(true);
    program(2, 0, 1000);
    go_to(401);
    gate2(false);
    go_to(5000);
    ck_assert_uint_eq(latched(2), 600);
    gate2(true);
    go_to(5599);
    ck_assert(!out2());
    go_to(5600);
    ck_assert(out2());
}
END_TEST

START_TEST(gate_rise_restarts_mode_2) {
    gate2(true);
    program(2, 2, 100);
    go_to(61);
    gate2(false);
    ck_assert(out2());
    go_to(300);
    gate2(true);
    go_to(301);
    ck_assert_uint_eq(latched(2), 100);
    go_to(400);
    ck_assert(!out2());
}
END_TEST

START_TEST(bcd_counts_in_decimal) {
    gate2(true);
    out8(&pit_ops, &pit, 3, 0xb1); /* channel 2, both bytes, mode 0, BCD */
    out8(&pit_ops, &pit, 2, 0x34);
    out8(&pit_ops, &pit, 2, 0x12);
    go_to(1 + 35);
    ck_assert_uint_eq(latched(2), 0x1199);
    go_to(1 + 1234 + 1);
    ck_assert_uint_eq(latched(2), 0x9999);
}
END_TEST

START_TEST(zero_is_the_largest_count) {
    program(0, 2, 0);
    unsigned start = irq.rises;
    go_to(65536);
    ck_assert_uint_eq(irq.rises, start);
    go_to(65537);
    ck_assert_uint_eq(irq.rises, start + 1);
}
END_TEST

START_TEST(latch_holds_until_it_is_read) {
    program(0, 2, 1000);
    go_to(101);
    out8(&pit_ops, &pit, 3, 0x00);
    go_to(201);
    out8(&pit_ops, &pit, 3, 0x00); /* a second latch is ignored */
    go_to(301);
    ck_assert_uint_eq(read16(0), 900);
    ck_assert_uint_eq(read16(0), 700);
}
END_TEST

START_TEST(read_back_latches_status_then_count) {
    program(0, 2, 1000);
    program(2, 3, 77);
    gate2(true);
    go_to(101);
    out8(&pit_ops, &pit, 3, 0xca); /* both, channels 0 and 2 */
    go_to(201);
    ck_assert_uint_eq(in8(&pit_ops, &pit, 0), 0xb4);
    ck_assert_uint_eq(read16(0), 900);
    ck_assert_uint_eq(in8(&pit_ops, &pit, 2) & 0x3f, 0x36);
}
END_TEST

START_TEST(single_byte_access_reads_and_writes_one_byte) {
    gate2(true);
    out8(&pit_ops, &pit, 3, 0xa0); /* channel 2, MSB, mode 0 */
    out8(&pit_ops, &pit, 2, 0x12);
    go_to(2);
    ck_assert_uint_eq(in8(&pit_ops, &pit, 2), 0x11);
    ck_assert_uint_eq(in8(&pit_ops, &pit, 2), 0x11);
    out8(&pit_ops, &pit, 3, 0x90); /* LSB */
    out8(&pit_ops, &pit, 2, 9);
    go_to(3);
    ck_assert_uint_eq(in8(&pit_ops, &pit, 2), 9);
}
END_TEST

START_TEST(port_61_keeps_its_bits_and_toggles_refresh) {
    out8(&pit_speaker_ops, &pit, 0, 0xff);
    ck_assert_uint_eq(in8(&pit_speaker_ops, &pit, 0) & 0xcf, 0x0f);
    unsigned toggles = 0;
    uint8_t last = in8(&pit_speaker_ops, &pit, 0) & 0x10;
    for (unsigned i = 0; i < 1000; i++) {
        clock_step(manual, 1000);
        uint8_t now = in8(&pit_speaker_ops, &pit, 0) & 0x10;
        toggles += now != last;
        last = now;
    }
    ck_assert_uint_ge(toggles, 65);
    ck_assert_uint_le(toggles, 67);
}
END_TEST

START_TEST(ticks_wait_while_the_guest_is_late_and_all_arrive) {
    program(0, 2, 11932); /* 100 Hz */
    unsigned start = irq.rises;
    is_waiting = true;
    go_to(1 + 11932 * 10 + 5);
    ck_assert_uint_eq(irq.rises, start);
    is_waiting = false;
    go_to(1 + 11932 * 12 + 5000);
    ck_assert_uint_eq(irq.rises, start + 12);
    go_to(1 + 11932 * 20 + 5);
    ck_assert_uint_eq(irq.rises, start + 20);
}
END_TEST

START_TEST(at_most_one_second_of_ticks_is_kept) {
    program(0, 2, 11932);
    is_waiting = true;
    go_to(1 + 11932 * 500 + 5);
    is_waiting = false;
    unsigned start = irq.rises;
    go_to(1 + 11932 * 600 + 5);
    ck_assert_uint_le(irq.rises - start, 200);
    ck_assert_uint_ge(irq.rises - start, 198);
}
END_TEST

START_TEST(tick_that_one_controller_never_takes_reaches_the_other) {
    program(0, 2, 11932);
    is_waiting = true;
    go_to(1 + 11932 * 100 + 5);
    unsigned start = irq.rises;
    go_to(1 + 11932 * 200 + 5);
    ck_assert_uint_ge(irq.rises - start, 99);
    ck_assert_uint_le(irq.rises - start, 101);
}
END_TEST

START_TEST(shortest_period_does_not_flood_the_host) {
    program(0, 2, 2);
    unsigned start = irq.rises;
    clock_step(manual, 1000000);
    ck_assert_uint_le(irq.rises - start, 101);
    program(0, 2, 1);
    start = irq.rises;
    clock_step(manual, 1000000);
    ck_assert_uint_le(irq.rises - start, 101);
}
END_TEST

START_TEST(count_and_tick_agree_when_the_host_is_late) {
    program(0, 2, 1000);
    unsigned start = irq.rises;
    clock_timer_cancel(&pit.timer); /* the timer's thread does not get to run */
    go_to(1 + 1000 + 3);
    ck_assert_uint_eq(irq.rises, start);
    ck_assert_uint_eq(latched(0), 997);
    ck_assert_uint_eq(irq.rises, start + 1); /* who sees the wrap sees the tick */
}
END_TEST

int main(void) {
    Suite *suite = suite_create("pit");
    TCase *tests = tcase_create("pit");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, reset_leaves_a_running_loaded_counter);
    tcase_add_test(tests, mode_0_raises_out_after_n_plus_one);
    tcase_add_test(tests, mode_0_first_byte_stops_and_lowers_out);
    tcase_add_test(tests, mode_2_ticks_every_n);
    tcase_add_test(tests, mode_2_new_count_waits_for_the_end_of_the_period);
    tcase_add_test(tests, mode_3_is_a_square_wave_by_twos);
    tcase_add_test(tests, mode_3_odd_count_is_high_longer);
    tcase_add_test(tests, mode_3_new_count_waits_for_the_half);
    tcase_add_test(tests, mode_4_strobes_once);
    tcase_add_test(tests, mode_1_is_triggered_by_the_gate);
    tcase_add_test(tests, mode_5_strobes_after_the_trigger);
    tcase_add_test(tests, gate_low_holds_the_count_of_mode_0);
    tcase_add_test(tests, gate_rise_restarts_mode_2);
    tcase_add_test(tests, bcd_counts_in_decimal);
    tcase_add_test(tests, zero_is_the_largest_count);
    tcase_add_test(tests, latch_holds_until_it_is_read);
    tcase_add_test(tests, read_back_latches_status_then_count);
    tcase_add_test(tests, single_byte_access_reads_and_writes_one_byte);
    tcase_add_test(tests, port_61_keeps_its_bits_and_toggles_refresh);
    tcase_add_test(tests, ticks_wait_while_the_guest_is_late_and_all_arrive);
    tcase_add_test(tests, at_most_one_second_of_ticks_is_kept);
    tcase_add_test(tests, tick_that_one_controller_never_takes_reaches_the_other);
    tcase_add_test(tests, shortest_period_does_not_flood_the_host);
    tcase_add_test(tests, count_and_tick_agree_when_the_host_is_late);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
