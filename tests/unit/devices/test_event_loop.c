/* The event loop: who is called, under which lock, and who is not called any more. */
#include "devices/event_loop.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/devices/device_test.h"

static struct bus *bus;
static struct event_loop *loop;
static int ends[2]; /* of a pipe */

struct counter {
    struct event_source source;
    unsigned readable, writable, stop_after;
};

static void count(void *opaque, unsigned events) {
    struct counter *counter = opaque;
    counter->readable += (events & EVENT_READABLE) != 0;
    counter->writable += (events & EVENT_WRITABLE) != 0;
    if (counter->readable + counter->writable >= counter->stop_after)
        event_loop_want(&counter->source, 0);
}

static void setup(void) {
    bus = bus_create();
    loop = event_loop_create(bus);
    ck_assert_int_eq(pipe(ends), 0);
}

static void teardown(void) {
    event_loop_destroy(loop);
    bus_destroy(bus);
    close(ends[0]);
    close(ends[1]);
}

static bool add(struct counter *counter, int fd, unsigned wanted, unsigned stop_after) {
    *counter = (struct counter){.source = {.fd = fd, .ready = count, .opaque = counter}, .stop_after = stop_after};
    bus_lock(bus);
    bool is_added = event_loop_add(loop, &counter->source, wanted);
    bus_unlock(bus);
    return is_added;
}

static unsigned total(const struct counter *counter) {
    bus_lock(bus);
    unsigned calls = counter->readable + counter->writable;
    bus_unlock(bus);
    return calls;
}

static void wait_for_calls(const struct counter *counter, unsigned least) {
    for (unsigned i = 0; i < 2000 && total(counter) < least; i++)
        usleep(1000);
    ck_assert_uint_ge(total(counter), least);
}

START_TEST(readable_descriptor_calls_until_it_wants_nothing) {
    struct counter counter;
    ck_assert(add(&counter, ends[0], EVENT_READABLE, 3));
    usleep(5000);
    ck_assert_uint_eq(total(&counter), 0);
    ck_assert_int_eq(write(ends[1], "x", 1), 1);
    wait_for_calls(&counter, 3);
    usleep(5000);
    ck_assert_uint_eq(total(&counter), 3);
}
END_TEST

START_TEST(hang_up_of_an_unwanted_source_does_not_spin) {
    struct counter counter;
    ck_assert(add(&counter, ends[0], EVENT_READABLE, 1));
    close(ends[1]);
    ends[1] = -1;
    wait_for_calls(&counter, 1);
    usleep(5000);
    ck_assert_uint_eq(total(&counter), 1);
}
END_TEST

START_TEST(removed_source_is_never_called_again) {
    struct counter counter;
    ck_assert_int_eq(write(ends[1], "x", 1), 1);
    for (unsigned i = 0; i < 200; i++) {
        ck_assert(add(&counter, ends[0], EVENT_READABLE, UINT32_MAX));
        if (i & 1)
            usleep(50);
        bus_lock(bus);
        event_loop_remove(&counter.source);
        bus_unlock(bus);
        unsigned before = total(&counter);
        usleep(50);
        ck_assert_uint_eq(total(&counter), before);
    }
}
END_TEST

START_TEST(regular_file_is_always_ready) {
    struct counter counter;
    char name[] = "/tmp/test_event_loop.XXXXXX";
    int fd = mkstemp(name);
    unlink(name);
    ck_assert(add(&counter, fd, EVENT_READABLE, 5));
    wait_for_calls(&counter, 5);
    usleep(5000);
    ck_assert_uint_eq(total(&counter), 5);
    bus_lock(bus);
    event_loop_want(&counter.source, EVENT_WRITABLE);
    bus_unlock(bus);
    wait_for_calls(&counter, 6);
    ck_assert_uint_eq(counter.writable, 1);
    close(fd);
}
END_TEST

START_TEST(bad_descriptor_and_too_many_sources_are_refused) {
    static struct counter counters[300];
    struct counter bad;
    ck_assert(!add(&bad, -1, EVENT_READABLE, 1));
    ck_assert_int_eq(errno, EBADF);
    unsigned added = 0;
    while (added < 300 && add(&counters[added], ends[0], 0, 1))
        added++;
    ck_assert_uint_eq(added, 256);
    ck_assert_int_eq(errno, ENOSPC);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("event_loop");
    TCase *tests = tcase_create("event_loop");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, readable_descriptor_calls_until_it_wants_nothing);
    tcase_add_test(tests, hang_up_of_an_unwanted_source_does_not_spin);
    tcase_add_test(tests, removed_source_is_never_called_again);
    tcase_add_test(tests, regular_file_is_always_ready);
    tcase_add_test(tests, bad_descriptor_and_too_many_sources_are_refused);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
