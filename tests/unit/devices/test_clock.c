/* The clock: order of timers, stepping, pausing, and the thread that serves the host's time. */
#include <cpuid.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/devices/device_test.h"

static struct bus *bus;
static struct clock *manual;
static char order[64];

struct named_timer {
    struct clock_timer timer;
    char name;
    uint64_t fired_at;
    unsigned count;
};

static void note(void *opaque) {
    struct named_timer *named = opaque;
    strncat(order, &named->name, 1);
    named->fired_at = clock_now(named->timer.clock);
    named->count++;
}

static void note_and_repeat(void *opaque) {
    struct named_timer *named = opaque;
    note(named);
    clock_timer_arm(&named->timer, named->timer.deadline + 100);
}

static void setup(void) {
    bus = bus_create();
    manual = clock_create_manual(bus);
    order[0] = 0;
}

static void teardown(void) {
    clock_destroy(manual);
    bus_destroy(bus);
}

START_TEST(timers_fire_in_order_at_their_deadlines) {
    static const uint64_t deadlines[6] = {500, 100, 300, 600, 200, 400};
    struct named_timer timers[6] = {0};
    for (unsigned i = 0; i < 6; i++) {
        timers[i].name = (char)('a' + i);
        clock_timer_init(&timers[i].timer, manual, note, &timers[i]);
        clock_timer_arm(&timers[i].timer, deadlines[i]);
    }
    clock_timer_cancel(&timers[2].timer);
    clock_timer_arm(&timers[1].timer, 550);
    ck_assert(!clock_timer_is_armed(&timers[2].timer));
    clock_step(manual, 599);
    ck_assert_str_eq(order, "efab");
    ck_assert_uint_eq(timers[5].fired_at, 400);
    ck_assert(clock_timer_is_armed(&timers[3].timer));
    ck_assert_uint_eq(clock_now(manual), 599);
}
END_TEST

START_TEST(timer_may_rearm_itself) {
    struct named_timer timer = {.name = 'x'};
    clock_timer_init(&timer.timer, manual, note_and_repeat, &timer);
    clock_timer_arm(&timer.timer, 100);
    clock_step(manual, 1000);
    ck_assert_uint_eq(timer.count, 10);
}
END_TEST

START_TEST(many_timers_stay_sorted) {
    struct named_timer *timers = calloc(500, sizeof(*timers));
    uint64_t last = 0;
    for (unsigned i = 0; i < 500; i++) {
        clock_timer_init(&timers[i].timer, manual, note, &timers[i]);
        clock_timer_arm(&timers[i].timer, 1 + i * 7919 % 1009);
    }
    for (unsigned step = 0; step < 1010; step++, last = clock_now(manual))
        clock_step(manual, 1);
    for (unsigned i = 0; i < 500; i++)
        ck_assert_uint_eq(timers[i].fired_at, 1 + i * 7919 % 1009);
    ck_assert_uint_eq(last, 1010);
    free(timers);
}
END_TEST

static bool wait_for(struct named_timer *timer, unsigned milliseconds) {
    for (unsigned i = 0; i < milliseconds; i++) {
        bus_lock(bus);
        bool has_fired = timer->count;
        bus_unlock(bus);
        if (has_fired)
            return true;
        usleep(1000);
    }
    return false;
}

START_TEST(host_clock_fires_late_never_early) {
    struct clock *clock = clock_create(bus);
    struct named_timer far = {.name = 'f'}, near = {.name = 'n'};
    bus_lock(bus);
    clock_timer_init(&far.timer, clock, note, &far);
    clock_timer_init(&near.timer, clock, note, &near);
    uint64_t deadline = clock_now(clock) + 5000000;
    clock_timer_arm(&far.timer, deadline + UINT64_C(3600000000000));
    bus_unlock(bus);
    usleep(1000);
    bus_lock(bus);
    clock_timer_arm(&near.timer, deadline); /* becomes the first while the thread sleeps */
    bus_unlock(bus);
    ck_assert(wait_for(&near, 2000));
    ck_assert_uint_ge(near.fired_at, deadline);
    ck_assert_uint_eq(far.count, 0);
    clock_destroy(clock);
}
END_TEST

START_TEST(past_deadline_fires_at_once) {
    struct clock *clock = clock_create(bus);
    struct named_timer timer = {.name = 't'};
    bus_lock(bus);
    clock_timer_init(&timer.timer, clock, note, &timer);
    clock_timer_arm(&timer.timer, 0);
    bus_unlock(bus);
    ck_assert(wait_for(&timer, 2000));
    clock_destroy(clock);
}
END_TEST

START_TEST(paused_clock_stands_still) {
    struct clock *clock = clock_create(bus);
    struct named_timer timer = {.name = 't'};
    clock_pause(clock);
    uint64_t before = clock_now(clock);
    bus_lock(bus);
    clock_timer_init(&timer.timer, clock, note, &timer);
    clock_timer_arm(&timer.timer, before + 1000000);
    bus_unlock(bus);
    ck_assert(!wait_for(&timer, 20));
    ck_assert_uint_eq(clock_now(clock), before);
    clock_resume(clock);
    ck_assert(wait_for(&timer, 2000));
    ck_assert_uint_ge(timer.fired_at, before + 1000000);
    clock_destroy(clock);
}
END_TEST

static unsigned full_calls;

static uint64_t count_full(uint64_t (*fn)(void *argument), void *argument) {
    full_calls++;
    return fn(argument);
}

static int64_t host_time(clockid_t id) {
    struct timespec now;
    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static bool has_steady_counter(void) {
    unsigned a, b, c, d = 0;
    return __get_cpuid(0x80000007, &a, &b, &c, &d) && (d >> 8 & 1);
}

/* Between full readings it lags by less than the 50 us that they are apart, and never runs ahead. */
START_TEST(time_goes_with_the_host_and_is_seldom_asked_of_it) {
    enum { LAG = 100000, READINGS = 400000 };
    struct clock *clock = clock_create(bus);
    bus_set_full(bus, count_full);
    bus_lock(bus);
    int64_t before = host_time(CLOCK_MONOTONIC), last = (int64_t)clock_now(clock);
    int64_t after = host_time(CLOCK_MONOTONIC), least = last - after, most = last - before;
    for (unsigned i = 0; i < 20; i++) { /* it learns the counter's speed */
        usleep(1000);
        clock_now(clock);
    }
    unsigned backward = 0, slow = 0, fast = 0; /* counted, as an assertion costs more than a reading */
    full_calls = 0;
    for (unsigned i = 0; i < READINGS; i++) {
        bool is_watched = i % 64 == 0;
        before = is_watched ? host_time(CLOCK_MONOTONIC) : 0;
        int64_t now = (int64_t)clock_now(clock);
        after = is_watched ? host_time(CLOCK_MONOTONIC) : 0;
        backward += now < last;
        slow += is_watched && now < before + least - LAG;
        fast += is_watched && now > after + most;
        last = now;
    }
    ck_assert_uint_eq(backward, 0);
    ck_assert_uint_eq(slow, 0);
    ck_assert_uint_eq(fast, 0);
    if (has_steady_counter())
        ck_assert_uint_lt(full_calls, READINGS / 8);
    int64_t wall = clock_wall(clock);
    ck_assert_int_lt(llabs(wall - host_time(CLOCK_REALTIME)), 1000000000);
    bus_unlock(bus);
    bus_set_full(bus, NULL);
    clock_destroy(clock);
}
END_TEST

/* A timer is due for its callback as well as for the thread, or the two would go round for a while. */
static void rearm_until_due(void *opaque) {
    struct named_timer *timer = opaque;
    timer->count++;
    if (clock_now(timer->timer.clock) < timer->timer.deadline)
        clock_timer_arm(&timer->timer, timer->timer.deadline);
    else
        timer->fired_at = clock_now(timer->timer.clock);
}

START_TEST(what_is_due_is_so_for_its_callback) {
    struct clock *clock = clock_create(bus);
    struct named_timer timer = {.name = 'd'};
    for (unsigned i = 0; i < 50; i++) {
        bus_lock(bus);
        clock_timer_init(&timer.timer, clock, rearm_until_due, &timer);
        timer.count = 0;
        clock_timer_arm(&timer.timer, clock_now(clock) + 200000);
        bus_unlock(bus);
        ck_assert(wait_for(&timer, 2000));
        ck_assert_uint_eq(timer.count, 1);
    }
    clock_destroy(clock);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("clock");
    TCase *tests = tcase_create("clock");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, timers_fire_in_order_at_their_deadlines);
    tcase_add_test(tests, timer_may_rearm_itself);
    tcase_add_test(tests, many_timers_stay_sorted);
    tcase_add_test(tests, host_clock_fires_late_never_early);
    tcase_add_test(tests, past_deadline_fires_at_once);
    tcase_add_test(tests, paused_clock_stands_still);
    tcase_add_test(tests, time_goes_with_the_host_and_is_seldom_asked_of_it);
    tcase_add_test(tests, what_is_due_is_so_for_its_callback);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
