/* The bus: who gets an access, in what pieces. */
#include <pthread.h>

#include "tests/unit/devices/device_test.h"

struct log_device {
    uint64_t offset[16], value[16];
    unsigned size[16], count;
};

static uint64_t log_read(void *device, uint64_t offset, unsigned size) {
    struct log_device *log = device;
    log->offset[log->count] = offset;
    log->size[log->count++] = size;
    uint64_t value = 0; /* each byte tells its offset */
    for (unsigned i = 0; i < size; i++)
        value |= ((offset + i) & 0xff) << (8 * i);
    return value;
}

static void log_write(void *device, uint64_t offset, unsigned size, uint64_t value) {
    struct log_device *log = device;
    log->offset[log->count] = offset;
    log->value[log->count] = value;
    log->size[log->count++] = size;
}

static const struct bus_ops bytes_only = {log_read, log_write, 1, 1, false};
static const struct bus_ops dwords_only = {log_read, log_write, 4, 4, false};
static const struct bus_ops any_size = {log_read, log_write, 0, 0, false};

static struct bus *bus;
static struct log_device device;

static void setup(void) {
    bus = bus_create();
    device = (struct log_device){0};
}

static void teardown(void) {
    bus_destroy(bus);
}

START_TEST(unclaimed_address_reads_as_ones) {
    uint64_t value = 0;
    ck_assert(!bus_read(bus, TRAPEZE_PORT, 0x80, 1, &value));
    ck_assert_uint_eq(value, UINT64_MAX);
    ck_assert(!bus_write(bus, TRAPEZE_MMIO, 0xfee00000, 4, 1));
}
END_TEST

START_TEST(device_sees_offsets_in_its_window) {
    uint64_t value;
    ck_assert_int_eq(bus_attach(bus, TRAPEZE_MMIO, 0xfec00000, 0x1000, &any_size, &device, "x"), BUS_OK);
    ck_assert(bus_read(bus, TRAPEZE_MMIO, 0xfec00010, 4, &value));
    ck_assert_uint_eq(value, 0x13121110);
    ck_assert(!bus_read(bus, TRAPEZE_MMIO, 0xfec01000, 4, &value));
    ck_assert(!bus_read(bus, TRAPEZE_PORT, 0xfec0, 1, &value));
    ck_assert_uint_eq(device.count, 1);
}
END_TEST

START_TEST(wide_access_is_split_lowest_address_first) {
    bus_attach(bus, TRAPEZE_PORT, 0x3f8, 8, &bytes_only, &device, "x");
    ck_assert(bus_write(bus, TRAPEZE_PORT, 0x3f9, 4, 0x44332211));
    ck_assert_uint_eq(device.count, 4);
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_uint_eq(device.offset[i], 1 + i);
        ck_assert_uint_eq(device.value[i], 0x11 * (i + 1));
    }
}
END_TEST

START_TEST(narrow_access_is_cut_out_of_a_wide_one) {
    uint64_t value;
    bus_attach(bus, TRAPEZE_MMIO, 0x1000, 0x100, &dwords_only, &device, "x");
    ck_assert(bus_read(bus, TRAPEZE_MMIO, 0x1012, 1, &value));
    ck_assert_uint_eq(value, 0x12);
    ck_assert_uint_eq(device.offset[0], 0x10);
    ck_assert_uint_eq(device.size[0], 4);
    ck_assert(bus_write(bus, TRAPEZE_MMIO, 0x1012, 2, 0xabcd));
    ck_assert_uint_eq(device.offset[1], 0x10);
    ck_assert_uint_eq(device.value[1], 0xabcd0000);
    ck_assert(bus_read(bus, TRAPEZE_MMIO, 0x1016, 4, &value)); /* across two registers */
    ck_assert_uint_eq(value, 0x19181716);
    ck_assert(bus_read(bus, TRAPEZE_MMIO, 0x1020, 8, &value));
    ck_assert_uint_eq(value, 0x2726252423222120);
}
END_TEST

START_TEST(access_across_windows_reaches_both_and_the_hole) {
    struct log_device other = {0};
    uint64_t value;
    bus_attach(bus, TRAPEZE_PORT, 0x20, 2, &any_size, &device, "a");
    bus_attach(bus, TRAPEZE_PORT, 0x23, 1, &any_size, &other, "b");
    ck_assert(bus_read(bus, TRAPEZE_PORT, 0x20, 4, &value));
    ck_assert_uint_eq(value, 0x00ff0100);
    ck_assert_uint_eq(device.count, 1);
    ck_assert_uint_eq(device.size[0], 2);
    ck_assert_uint_eq(other.count, 1);
}
END_TEST

START_TEST(last_port_does_not_run_over) {
    uint64_t value;
    ck_assert_int_eq(bus_attach(bus, TRAPEZE_PORT, 0xffff, 1, &any_size, &device, "x"), BUS_OK);
    ck_assert_int_eq(bus_attach(bus, TRAPEZE_PORT, 0xfff0, 0x20, &any_size, &device, "y"), BUS_INVALID);
    ck_assert(bus_read(bus, TRAPEZE_PORT, 0xffff, 4, &value));
    ck_assert_uint_eq(value, 0xffffff00);
}
END_TEST

START_TEST(overlap_is_refused_and_named) {
    ck_assert_int_eq(bus_attach(bus, TRAPEZE_PORT, 0x60, 5, &any_size, &device, "keyboard"), BUS_OK);
    ck_assert_int_eq(bus_attach(bus, TRAPEZE_PORT, 0x64, 1, &any_size, &device, "x"), BUS_OVERLAP);
    ck_assert_int_eq(bus_attach(bus, TRAPEZE_PORT, 0x50, 0x30, &any_size, &device, "x"), BUS_OVERLAP);
    ck_assert_int_eq(bus_attach(bus, TRAPEZE_PORT, 0x5f, 1, &any_size, &device, "x"), BUS_OK);
    ck_assert_int_eq(bus_attach(bus, TRAPEZE_PORT, 0x65, 1, &any_size, &device, "x"), BUS_OK);
    ck_assert_str_eq(bus_name_at(bus, TRAPEZE_PORT, 0x64), "keyboard");
    ck_assert_ptr_null(bus_name_at(bus, TRAPEZE_PORT, 0x66));
}
END_TEST

START_TEST(detached_window_is_silent_and_free) {
    uint64_t value;
    for (unsigned i = 0; i < 100; i++)
        ck_assert_int_eq(bus_attach(bus, TRAPEZE_MMIO, (99 - i) * 0x1000, 0x1000, &any_size, &device, "x"), BUS_OK);
    bus_detach(bus, TRAPEZE_MMIO, 0x5000);
    ck_assert(!bus_read(bus, TRAPEZE_MMIO, 0x5000, 4, &value));
    ck_assert(bus_read(bus, TRAPEZE_MMIO, 0x4ffc, 4, &value));
    ck_assert(bus_read(bus, TRAPEZE_MMIO, 0x6000, 4, &value));
    ck_assert_int_eq(bus_attach(bus, TRAPEZE_MMIO, 0x5000, 0x1000, &any_size, &device, "x"), BUS_OK);
}
END_TEST

START_TEST(window_at_the_top_of_memory_works) {
    uint64_t value;
    ck_assert_int_eq(bus_attach(bus, TRAPEZE_MMIO, UINT64_MAX - 0xfff, 0x1000, &any_size, &device, "x"), BUS_OK);
    ck_assert_int_eq(bus_attach(bus, TRAPEZE_MMIO, UINT64_MAX - 0xf, 0x1000, &any_size, &device, "x"), BUS_INVALID);
    ck_assert(bus_read(bus, TRAPEZE_MMIO, UINT64_MAX, 1, &value));
    ck_assert_uint_eq(device.offset[0], 0xfff);
}
END_TEST

static unsigned full_calls;

static uint64_t count_full(uint64_t (*fn)(void *argument), void *argument) {
    full_calls++;
    return fn(argument);
}

START_TEST(only_devices_that_are_not_light_are_called_in_full) {
    static const struct bus_ops light = {log_read, log_write, 0, 0, true};
    uint64_t value;
    bus_set_full(bus, count_full);
    full_calls = 0;
    ck_assert_int_eq(bus_attach(bus, TRAPEZE_PORT, 0x20, 2, &light, &device, "light"), BUS_OK);
    ck_assert_int_eq(bus_attach(bus, TRAPEZE_PORT, 0x22, 2, &any_size, &device, "heavy"), BUS_OK);
    ck_assert(bus_read(bus, TRAPEZE_PORT, 0x20, 1, &value));
    ck_assert(bus_write(bus, TRAPEZE_PORT, 0x21, 1, 7));
    ck_assert_uint_eq(full_calls, 0);
    ck_assert(bus_read(bus, TRAPEZE_PORT, 0x21, 2, &value)); /* a byte of each */
    ck_assert_uint_eq(value, 0x0001);
    ck_assert(bus_write(bus, TRAPEZE_PORT, 0x22, 2, 0x1234));
    ck_assert_uint_eq(full_calls, 2);
    ck_assert_uint_eq(device.value[device.count - 1], 0x1234);
}
END_TEST

static void *lock_and_count(void *counter) {
    for (unsigned i = 0; i < 100000; i++) {
        bus_lock(bus);
        ++*(volatile unsigned *)counter;
        bus_unlock(bus);
    }
    return NULL;
}

START_TEST(lock_lets_one_thread_in) {
    pthread_t thread[4];
    unsigned counter = 0;
    for (unsigned i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&thread[i], NULL, lock_and_count, &counter), 0);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    ck_assert_uint_eq(counter, 400000);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("bus");
    TCase *tests = tcase_create("bus");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, unclaimed_address_reads_as_ones);
    tcase_add_test(tests, device_sees_offsets_in_its_window);
    tcase_add_test(tests, wide_access_is_split_lowest_address_first);
    tcase_add_test(tests, narrow_access_is_cut_out_of_a_wide_one);
    tcase_add_test(tests, access_across_windows_reaches_both_and_the_hole);
    tcase_add_test(tests, last_port_does_not_run_over);
    tcase_add_test(tests, overlap_is_refused_and_named);
    tcase_add_test(tests, detached_window_is_silent_and_free);
    tcase_add_test(tests, window_at_the_top_of_memory_works);
    tcase_add_test(tests, only_devices_that_are_not_light_are_called_in_full);
    tcase_add_test(tests, lock_lets_one_thread_in);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
