/* The HPET on a stepped clock: counter, one-shot, periodic, levels, legacy replacement (HPET Specification 1.0a). */
#include <string.h>

#include "devices/hpet.h"
#include "tests/unit/devices/device_test.h"

static struct bus *bus;
static struct clock *test_clock;
static struct hpet *hpet;
static struct line_probe legacy[2], pin[32];
static bool is_legacy_on;

static void set_pin(void *target, unsigned number, bool asserted) {
    (void)target;
    line_probe_set(&pin[number], 0, asserted);
}

static void legacy_replacement(void *opaque, bool is_on) {
    (void)opaque;
    is_legacy_on = is_on;
}

static void setup(void) {
    memset(legacy, 0, sizeof legacy);
    memset(pin, 0, sizeof pin);
    bus = bus_create();
    test_clock = clock_create_manual(bus);
    const struct hpet_config config = {
        .clock = test_clock,
        .legacy = {line_probe_line(&legacy[0]), line_probe_line(&legacy[1])},
        .ioapic = {.set = set_pin},
        .legacy_replacement = legacy_replacement,
    };
    hpet = hpet_create(&config);
    ck_assert(bus_attach(bus, TRAPEZE_MMIO, HPET_BASE, HPET_WINDOW, &hpet_ops, hpet, "HPET") == BUS_OK);
}

static void teardown(void) {
    hpet_destroy(hpet);
    clock_destroy(test_clock);
    bus_destroy(bus);
}

static uint64_t get(unsigned offset, unsigned size) {
    uint64_t value;
    bus_read(bus, TRAPEZE_MMIO, HPET_BASE + offset, size, &value);
    return value;
}

static void put(unsigned offset, unsigned size, uint64_t value) {
    bus_write(bus, TRAPEZE_MMIO, HPET_BASE + offset, size, value);
}

enum { CONFIG = 0x10, STATUS = 0x20, COUNTER = 0xF0, T0 = 0x100, T1 = 0x120, COMPARATOR = 8 };
enum { LEVEL = 2, INTERRUPTS = 4, PERIODIC = 8, SET_VALUE = 0x40, MODE32 = 0x100, ROUTE20 = 20 << 9 };

START_TEST(capabilities_tell_period_and_three_timers) {
    ck_assert_uint_eq(get(0, 8), UINT64_C(0x009896808086A201));
    put(0, 8, 0);
    ck_assert_uint_eq(get(4, 4), 10000000);
    ck_assert_uint_eq(get(T0, 8), UINT64_C(0x00F0000000000030));
}
END_TEST

START_TEST(counter_runs_while_enabled) {
    clock_step(test_clock, 1000);
    ck_assert_uint_eq(get(COUNTER, 8), 0);
    put(CONFIG, 8, 1);
    clock_step(test_clock, 1000);
    ck_assert_uint_eq(get(COUNTER, 8), 100);
    put(CONFIG, 8, 0);
    clock_step(test_clock, 1000);
    ck_assert_uint_eq(get(COUNTER, 8), 100);
    put(COUNTER, 8, UINT64_C(0x1FFFFFFFF));
    put(CONFIG, 4, 1);
    clock_step(test_clock, 10);
    ck_assert_uint_eq(get(COUNTER, 8), UINT64_C(0x200000000));
    ck_assert_uint_eq(get(COUNTER + 4, 4), 2);
    ck_assert_uint_eq(get(COUNTER, 4), 0);
}
END_TEST

START_TEST(one_shot_fires_once_at_its_match) {
    put(CONFIG, 4, 1);
    put(T0, 4, INTERRUPTS | ROUTE20);
    put(T0 + COMPARATOR, 8, 500);
    clock_step(test_clock, 4990);
    ck_assert_uint_eq(pin[20].rises, 0);
    clock_step(test_clock, 10);
    ck_assert_uint_eq(pin[20].rises, 1);
    ck_assert(!pin[20].level);
    clock_step(test_clock, UINT64_C(100000000000));
    ck_assert_uint_eq(pin[20].rises, 1);
}
END_TEST

START_TEST(match_at_the_present_count_is_not_too_late) {
    put(CONFIG, 4, 1);
    clock_step(test_clock, 1000);
    put(T0, 4, INTERRUPTS | ROUTE20);
    put(T0 + COMPARATOR, 8, 100);
    ck_assert_uint_eq(pin[20].rises, 1);
}
END_TEST

START_TEST(narrow_one_shot_fires_again_after_the_wrap) {
    put(CONFIG, 4, 1);
    put(T0, 4, INTERRUPTS | ROUTE20 | MODE32);
    put(T0 + COMPARATOR, 4, 500);
    clock_step(test_clock, 5000);
    ck_assert_uint_eq(pin[20].rises, 1);
    clock_step(test_clock, (UINT64_C(1) << 32) * 10);
    ck_assert_uint_eq(pin[20].rises, 2);
}
END_TEST

START_TEST(periodic_takes_first_match_and_then_period) {
    put(CONFIG, 4, 1);
    put(T0, 4, INTERRUPTS | ROUTE20 | PERIODIC | SET_VALUE | MODE32);
    put(T0 + COMPARATOR, 4, 10000);
    put(T0 + COMPARATOR, 4, 50000);
    clock_step(test_clock, 100000);
    ck_assert_uint_eq(pin[20].rises, 1);
    ck_assert_uint_eq(get(T0 + COMPARATOR, 4), 60000);
    clock_step(test_clock, 499990);
    ck_assert_uint_eq(pin[20].rises, 1);
    clock_step(test_clock, 10);
    ck_assert_uint_eq(pin[20].rises, 2);
    clock_step(test_clock, 5000000);
    ck_assert_uint_eq(pin[20].rises, 12);
}
END_TEST

START_TEST(level_stays_until_status_is_cleared) {
    put(CONFIG, 4, 1);
    put(T1, 4, INTERRUPTS | LEVEL | 21 << 9);
    put(T1 + COMPARATOR, 8, 100);
    clock_step(test_clock, 1000);
    ck_assert(pin[21].level);
    ck_assert_uint_eq(get(STATUS, 8), 2);
    put(STATUS, 4, 1);
    ck_assert(pin[21].level);
    put(STATUS, 4, 2);
    ck_assert(!pin[21].level);
    ck_assert_uint_eq(get(STATUS, 4), 0);
}
END_TEST

START_TEST(levels_share_a_pin) {
    put(CONFIG, 4, 1);
    put(T0, 4, INTERRUPTS | LEVEL | ROUTE20);
    put(T1, 4, INTERRUPTS | LEVEL | ROUTE20);
    put(T0 + COMPARATOR, 8, 100);
    put(T1 + COMPARATOR, 8, 100);
    clock_step(test_clock, 1000);
    put(STATUS, 4, 1);
    ck_assert(pin[20].level);
    put(STATUS, 4, 2);
    ck_assert(!pin[20].level);
}
END_TEST

START_TEST(legacy_replacement_takes_both_lines) {
    put(T0, 4, INTERRUPTS | ROUTE20);
    put(T1, 4, INTERRUPTS | ROUTE20);
    put(T0 + COMPARATOR, 8, 100);
    put(T1 + COMPARATOR, 8, 200);
    put(CONFIG, 4, 3);
    ck_assert(is_legacy_on);
    clock_step(test_clock, 2000);
    ck_assert_uint_eq(legacy[0].rises, 1);
    ck_assert_uint_eq(legacy[1].rises, 1);
    ck_assert_uint_eq(pin[20].rises, 0);
    hpet_reset(hpet);
    ck_assert(!is_legacy_on);
}
END_TEST

START_TEST(route_outside_the_capabilities_does_not_stick) {
    put(T0, 4, ROUTE20);
    put(T0, 4, 3 << 9);
    ck_assert_uint_eq(get(T0, 4) >> 9 & 31, 20);
}
END_TEST

START_TEST(comparator_of_a_stopped_counter_is_silent) {
    put(T0, 4, INTERRUPTS | ROUTE20);
    put(T0 + COMPARATOR, 8, 0);
    put(T0 + COMPARATOR, 8, 5);
    clock_step(test_clock, 1000000);
    ck_assert_uint_eq(pin[20].rises, 0);
}
END_TEST

START_TEST(shortest_period_does_not_hang_the_clock) {
    put(CONFIG, 4, 1);
    put(T0, 4, INTERRUPTS | ROUTE20 | PERIODIC | SET_VALUE);
    put(T0 + COMPARATOR, 8, 1);
    clock_step(test_clock, 1000000000);
    ck_assert_uint_gt(pin[20].rises, 1000);
    ck_assert_uint_lt(pin[20].rises, 60000);
}
END_TEST

START_TEST(garbage_does_no_harm) {
    uint32_t random = 7;
    put(CONFIG, 4, 1);
    for (unsigned i = 0; i < 20000; i++) {
        random = random * 1664525 + 1013904223;
        const unsigned offset = random >> 8 & 0x3FF, size = 1u << (random >> 20 & 3);
        random = random * 1664525 + 1013904223;
        put(offset, size, random | (uint64_t)random << 32);
        get(offset, size);
        if (i % 64 == 0)
            clock_step(test_clock, 100000);
    }
    ck_assert_uint_eq(get(0, 4), HPET_CAPABILITIES);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("hpet");
    TCase *tests = tcase_create("hpet");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, capabilities_tell_period_and_three_timers);
    tcase_add_test(tests, counter_runs_while_enabled);
    tcase_add_test(tests, one_shot_fires_once_at_its_match);
    tcase_add_test(tests, match_at_the_present_count_is_not_too_late);
    tcase_add_test(tests, narrow_one_shot_fires_again_after_the_wrap);
    tcase_add_test(tests, periodic_takes_first_match_and_then_period);
    tcase_add_test(tests, level_stays_until_status_is_cleared);
    tcase_add_test(tests, levels_share_a_pin);
    tcase_add_test(tests, legacy_replacement_takes_both_lines);
    tcase_add_test(tests, route_outside_the_capabilities_does_not_stick);
    tcase_add_test(tests, comparator_of_a_stopped_counter_is_silent);
    tcase_add_test(tests, shortest_period_does_not_hang_the_clock);
    tcase_add_test(tests, garbage_does_no_harm);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
