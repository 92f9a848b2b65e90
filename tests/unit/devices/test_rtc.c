/* The MC146818: time in its formats, setting it, UIP, the three interrupts, CMOS RAM. */
#include "devices/rtc.h"
#include "tests/unit/devices/device_test.h"

#define SECOND UINT64_C(1000000000)

static struct bus *bus;
static struct clock *manual;
static struct rtc rtc;
static struct line_probe irq;
static int64_t wall_start; /* ns since 1970 when the clock was at 0 */

static int64_t wall(void *opaque) {
    (void)opaque;
    return wall_start + (int64_t)clock_now(manual);
}

static uint8_t in(uint8_t index) {
    out8(&rtc_ops, &rtc, 0, index);
    return in8(&rtc_ops, &rtc, 1);
}

static void out(uint8_t index, uint8_t value) {
    out8(&rtc_ops, &rtc, 0, index);
    out8(&rtc_ops, &rtc, 1, value);
}

static void setup(void) {
    bus = bus_create();
    manual = clock_create_manual(bus);
    irq = (struct line_probe){0};
    wall_start = INT64_C(951782399) * (int64_t)SECOND; /* 2000-02-28 23:59:59, a Monday */
    struct irq_line line = line_probe_line(&irq);
    rtc_init(&rtc, manual, &line, wall, NULL);
}

static void teardown(void) {
    rtc_release(&rtc);
    clock_destroy(manual);
    bus_destroy(bus);
}

static void assert_date(uint8_t century, uint8_t year, uint8_t month, uint8_t day, uint8_t weekday) {
    ck_assert_uint_eq(in(0x32), century);
    ck_assert_uint_eq(in(9), year);
    ck_assert_uint_eq(in(8), month);
    ck_assert_uint_eq(in(7), day);
    ck_assert_uint_eq(in(6), weekday);
}

static void assert_time(uint8_t hours, uint8_t minutes, uint8_t seconds) {
    ck_assert_uint_eq(in(4), hours);
    ck_assert_uint_eq(in(2), minutes);
    ck_assert_uint_eq(in(0), seconds);
}

START_TEST(time_follows_the_wall_clock_over_a_leap_day) {
    assert_date(0x20, 0x00, 0x02, 0x28, 2);
    assert_time(0x23, 0x59, 0x59);
    clock_step(manual, SECOND);
    assert_date(0x20, 0x00, 0x02, 0x29, 3);
    assert_time(0, 0, 0);
    clock_step(manual, 86400 * SECOND);
    assert_date(0x20, 0x00, 0x03, 0x01, 4);
}
END_TEST

START_TEST(binary_and_twelve_hours_are_formats) {
    out(11, 0x06);
    assert_time(23, 59, 59);
    out(11, 0x00);
    assert_time(0x91, 0x59, 0x59); /* 11 PM, BCD */
    clock_step(manual, SECOND);
    ck_assert_uint_eq(in(4), 0x12); /* midnight */
    clock_step(manual, 12 * 3600 * SECOND);
    ck_assert_uint_eq(in(4), 0x92);
}
END_TEST

/* As Linux's mc146818_set_time does it. */
static void set_time(uint8_t hours, uint8_t minutes, uint8_t seconds) {
    uint8_t a = in(10), b = in(11);
    out(11, b | 0x80);
    out(10, a | 0x70);
    out(4, hours);
    out(2, minutes);
    out(0, seconds);
    out(11, b);
    out(10, a);
}

START_TEST(set_time_goes_on_from_there) {
    set_time(0x12, 0x34, 0x56);
    assert_time(0x12, 0x34, 0x56);
    clock_step(manual, SECOND / 2 - 1);
    assert_time(0x12, 0x34, 0x56);
    clock_step(manual, 1); /* half a second after the divider was released */
    assert_time(0x12, 0x34, 0x57);
    assert_date(0x20, 0x00, 0x02, 0x28, 2);
    clock_step(manual, 3600 * SECOND);
    assert_time(0x13, 0x34, 0x57);
}
END_TEST

START_TEST(set_bit_holds_the_registers) {
    out(11, 0x82);
    out(0, 0x77); /* not a second: kept as it is */
    clock_step(manual, 10 * SECOND);
    ck_assert_uint_eq(in(0), 0x77);
    ck_assert_uint_eq(in(10) & 0x80, 0);
    out(0, 0x30);
    out(11, 0x02);
    assert_time(0x23, 0x59, 0x30);
    clock_step(manual, 5 * SECOND);
    assert_time(0x23, 0x59, 0x35);
}
END_TEST

START_TEST(weekday_is_a_counter_of_its_own) {
    out(6, 7);
    ck_assert_uint_eq(in(6), 7);
    clock_step(manual, SECOND);
    ck_assert_uint_eq(in(6), 1);
}
END_TEST

START_TEST(nonsense_in_every_register_is_survived) {
    static const uint8_t values[] = {0x00, 0xff, 0x99, 0xfa, 0x13, 0x80};
    for (unsigned round = 0; round < 6 * 4; round++) {
        out(11, (uint8_t)((round & 3) << 1 | 0x70));
        for (uint8_t index = 0; index < 10; index++)
            out(index, values[(round + index) % 6]);
        out(0x32, values[round % 6]);
        clock_step(manual, 3 * SECOND);
        in(12);
    }
    out(11, 2);
    uint8_t before = in(0);
    clock_step(manual, SECOND);
    ck_assert_uint_ne(in(0), before);
}
END_TEST

START_TEST(uip_announces_the_update) {
    ck_assert_uint_eq(in(10), 0x26);
    clock_step(manual, SECOND - 2228001);
    ck_assert_uint_eq(in(10), 0x26);
    clock_step(manual, 1);
    ck_assert_uint_eq(in(10), 0xa6);
    ck_assert_uint_eq(in(0), 0x59);
    clock_step(manual, 2228000);
    ck_assert_uint_eq(in(10), 0x26);
    ck_assert_uint_eq(in(0), 0);
}
END_TEST

START_TEST(update_interrupt_comes_each_second_until_read) {
    out(11, 0x12);
    clock_step(manual, SECOND - 1);
    ck_assert(!irq.level);
    clock_step(manual, 1);
    ck_assert(irq.level);
    clock_step(manual, 3 * SECOND);
    ck_assert_uint_eq(irq.rises, 1);
    ck_assert_uint_eq(in(12) & 0x90, 0x90);
    ck_assert(!irq.level);
    ck_assert_uint_eq(in(12) & 0xb0, 0);
    clock_step(manual, SECOND);
    ck_assert_uint_eq(irq.rises, 2);
}
END_TEST

START_TEST(update_flag_can_be_polled) {
    in(12);
    clock_step(manual, SECOND - 1);
    ck_assert_uint_eq(in(12) & 0x10, 0);
    clock_step(manual, 1);
    ck_assert_uint_eq(in(12) & 0x90, 0x10);
    ck_assert(!irq.level);
}
END_TEST

START_TEST(alarm_goes_off_at_its_time) {
    out(5, 0x00);
    out(3, 0x01);
    out(1, 0x05);
    out(11, 0x22);
    clock_step(manual, 65 * SECOND);
    ck_assert(!irq.level);
    clock_step(manual, SECOND);
    ck_assert(irq.level);
    ck_assert_uint_eq(in(12) & 0xa0, 0xa0);
    clock_step(manual, 86399 * SECOND);
    ck_assert(!irq.level);
    clock_step(manual, SECOND);
    ck_assert(irq.level);
}
END_TEST

START_TEST(alarm_fields_may_not_matter) {
    out(5, 0xff);
    out(3, 0xc0);
    out(1, 0x30);
    out(11, 0x22);
    for (unsigned i = 0; i < 5 * 60; i++) {
        clock_step(manual, SECOND);
        in(12);
    }
    ck_assert_uint_eq(irq.rises, 5);
}
END_TEST

START_TEST(impossible_alarm_never_goes_off) {
    out(3, 0x61);
    out(11, 0x22);
    ck_assert(!clock_timer_is_armed(&rtc.timer));
    clock_step(manual, 2 * 86400 * SECOND);
    ck_assert_uint_eq(irq.rises, 0);
    ck_assert_uint_eq(in(12) & 0x20, 0);
}
END_TEST

START_TEST(periodic_interrupt_has_its_rate) {
    out(11, 0x42);
    unsigned count = 0;
    for (unsigned i = 0; i < 20000; i++) { /* 1024 Hz, served promptly */
        clock_step(manual, SECOND / 20000);
        if (irq.level)
            count++, in(12);
    }
    ck_assert_uint_ge(count, 1023);
    ck_assert_uint_le(count, 1025);
    out(10, 0x2f); /* 2 Hz */
    in(12);
    irq.rises = 0;
    for (unsigned i = 0; i < 100; i++) {
        clock_step(manual, SECOND / 10);
        in(12);
    }
    ck_assert_uint_eq(irq.rises, 20);
}
END_TEST

START_TEST(rate_zero_and_stopped_divider_have_no_period) {
    out(11, 0x42);
    out(10, 0x20);
    in(12);
    clock_step(manual, SECOND);
    ck_assert(!irq.level);
    out(10, 0x76);
    in(12);
    clock_step(manual, SECOND);
    ck_assert(!irq.level);
}
END_TEST

START_TEST(ram_keeps_what_is_written_and_d_says_valid) {
    out(0x40, 0xa5);
    out(0x7f, 0x5a);
    rtc_set_ram(&rtc, 0x15, 0x80);
    out(13, 0);
    out(12, 0xff);
    ck_assert_uint_eq(in(0x40), 0xa5);
    ck_assert_uint_eq(in(0xff), 0x5a); /* bit 7 of the index is the NMI mask */
    ck_assert_uint_eq(in(0x15), 0x80);
    ck_assert_uint_eq(in(13), 0x80);
    rtc_reset(&rtc);
    ck_assert_uint_eq(in(0x40), 0xa5);
}
END_TEST

START_TEST(reset_turns_interrupts_off_and_keeps_time) {
    out(11, 0x72);
    clock_step(manual, SECOND);
    ck_assert(irq.level);
    rtc_reset(&rtc);
    ck_assert(!irq.level);
    ck_assert_uint_eq(in(11), 0x02);
    assert_time(0, 0, 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("rtc");
    TCase *tests = tcase_create("rtc");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, time_follows_the_wall_clock_over_a_leap_day);
    tcase_add_test(tests, binary_and_twelve_hours_are_formats);
    tcase_add_test(tests, set_time_goes_on_from_there);
    tcase_add_test(tests, set_bit_holds_the_registers);
    tcase_add_test(tests, weekday_is_a_counter_of_its_own);
    tcase_add_test(tests, nonsense_in_every_register_is_survived);
    tcase_add_test(tests, uip_announces_the_update);
    tcase_add_test(tests, update_interrupt_comes_each_second_until_read);
    tcase_add_test(tests, update_flag_can_be_polled);
    tcase_add_test(tests, alarm_goes_off_at_its_time);
    tcase_add_test(tests, alarm_fields_may_not_matter);
    tcase_add_test(tests, impossible_alarm_never_goes_off);
    tcase_add_test(tests, periodic_interrupt_has_its_rate);
    tcase_add_test(tests, rate_zero_and_stopped_divider_have_no_period);
    tcase_add_test(tests, ram_keeps_what_is_written_and_d_says_valid);
    tcase_add_test(tests, reset_turns_interrupts_off_and_keeps_time);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
