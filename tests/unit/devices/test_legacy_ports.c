/* Ports 92h and F0h, the debug console, isa-debug-exit and pc-testdev, each on the bus as the machine attaches it. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "devices/backends/char.h"
#include "devices/debug_exit.h"
#include "devices/debugcon.h"
#include "devices/event_loop.h"
#include "devices/fpu_error.h"
#include "devices/pc_testdev.h"
#include "devices/port92.h"
#include "tests/unit/devices/device_test.h"

static struct bus *bus;

static void setup(void) {
    bus = bus_create();
}

static void teardown(void) {
    bus_destroy(bus);
}

static void out(uint64_t port, unsigned size, uint64_t value) {
    ck_assert(bus_write(bus, TRAPEZE_PORT, port, size, value));
}

static uint64_t in(uint64_t port, unsigned size) {
    uint64_t value;
    ck_assert(bus_read(bus, TRAPEZE_PORT, port, size, &value));
    return value;
}

START_TEST(port92_gates_a20_and_resets_on_the_rising_bit) {
    struct line_probe a20 = {0}, reset = {0};
    struct irq_line a20_line = line_probe_line(&a20), reset_line = line_probe_line(&reset);
    struct port92 port;
    port92_init(&port, &a20_line, &reset_line);
    bus_attach(bus, TRAPEZE_PORT, 0x92, 1, &port92_ops, &port, "port92");
    out(0x92, 1, 0x02);
    ck_assert(a20.level);
    ck_assert_uint_eq(in(0x92, 1), 0x02);
    ck_assert_uint_eq(reset.rises, 0);
    out(0x92, 1, 0x03);
    out(0x92, 1, 0x03);
    ck_assert_uint_eq(reset.rises, 1);
    port92_reset(&port);
    ck_assert(!a20.level);
    ck_assert_uint_eq(in(0x92, 1), 0);
}
END_TEST

START_TEST(fpu_error_drives_its_line_until_port_f0_is_written) {
    struct line_probe irq = {0};
    const struct irq_line line = line_probe_line(&irq);
    struct fpu_error fpu_error;
    fpu_error_init(&fpu_error, &line);
    bus_attach(bus, TRAPEZE_PORT, 0xf0, 1, &fpu_error_ops, &fpu_error, "port F0h");
    fpu_error_assert(&fpu_error);
    fpu_error_assert(&fpu_error);
    ck_assert_uint_eq(in(0xf0, 1), 0xff);
    ck_assert(irq.level);
    out(0xf0, 1, 0);
    ck_assert(!irq.level);
    fpu_error_assert(&fpu_error);
    fpu_error_reset(&fpu_error);
    ck_assert(!irq.level);
    ck_assert_uint_eq(irq.rises, 2);
}
END_TEST

START_TEST(debug_console_writes_through_and_is_found) {
    char path[64], spec[80], error[200], text[8] = "";
    struct event_loop *loop = event_loop_create(bus);
    snprintf(path, sizeof(path), "/tmp/test_debugcon.%d", (int)getpid());
    snprintf(spec, sizeof(spec), "file:%s", path);
    struct char_backend *backend = char_open(spec, loop, NULL, error, sizeof(error));
    ck_assert_msg(backend, "%s", error);
    struct debugcon console;
    debugcon_init(&console, backend, 0xe9);
    bus_attach(bus, TRAPEZE_PORT, 0xe9, 1, &debugcon_ops, &console, "debugcon");
    ck_assert_uint_eq(in(0xe9, 1), 0xe9);
    out(0xe9, 1, 'h');
    out(0xe9, 1, 'i');
    char_close(backend);
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(fgets(text, sizeof(text), file));
    ck_assert_str_eq(text, "hi");
    fclose(file);
    unlink(path);
    event_loop_destroy(loop);
}
END_TEST

static void note_status(void *opaque, int status) {
    *(int *)opaque = status;
}

START_TEST(debug_exit_status_is_odd) {
    int status = 0;
    struct debug_exit device = {note_status, &status};
    bus_attach(bus, TRAPEZE_PORT, 0xf4, 4, &debug_exit_ops, &device, "isa-debug-exit");
    ck_assert_uint_eq(in(0xf4, 1), 0);
    out(0xf4, 4, 0);
    ck_assert_int_eq(status, 1);
    out(0xf4, 1, 0x31);
    ck_assert_int_eq(status, 0x63);
    out(0xf4, 2, 0x1234);
    ck_assert_int_eq(status, 0x2469);
}
END_TEST

static void note_page(void *opaque, guest_physical page) {
    *(uint64_t *)opaque = page.value;
}

START_TEST(pc_testdev_answers_where_the_tests_look) {
    static struct pc_testdev testdev;
    struct line_probe probes[PC_TESTDEV_LINES] = {0};
    struct irq_line lines[PC_TESTDEV_LINES];
    uint64_t page = 0, value;
    for (unsigned i = 0; i < PC_TESTDEV_LINES; i++)
        lines[i] = line_probe_line(&probes[i]);
    pc_testdev_init(&testdev, lines, note_page, &page);
    bus_attach(bus, TRAPEZE_PORT, PC_TESTDEV_PORT, 4, &pc_testdev_port_ops, &testdev, "testdev");
    bus_attach(bus, TRAPEZE_PORT, PC_TESTDEV_FLUSH, 4, &pc_testdev_flush_ops, &testdev, "testdev");
    bus_attach(bus, TRAPEZE_PORT, PC_TESTDEV_PORT_BYTE, 1, &pc_testdev_byte_ops, &testdev, "testdev");
    bus_attach(bus, TRAPEZE_PORT, PC_TESTDEV_IRQ, PC_TESTDEV_LINES, &pc_testdev_irq_ops, &testdev, "testdev");
    bus_attach(bus, TRAPEZE_MMIO, PC_TESTDEV_MEMORY, PC_TESTDEV_BYTES, &pc_testdev_memory_ops, &testdev, "testdev");
    out(0xe0, 4, 0x12345678);
    ck_assert_uint_eq(in(0xe0, 4), 0x12345678);
    ck_assert_uint_eq(in(0xe1, 1), 0x56);
    out(0xe2, 2, 0xabcd);
    ck_assert_uint_eq(in(0xe0, 4), 0xabcd5678);
    ck_assert_uint_eq(in(0xe8, 1), 0x78);
    out(0xe4, 4, 0x123fff);
    ck_assert_uint_eq(page, 0x123000);
    out(0x2000 + 23, 1, 1);
    ck_assert(probes[23].level);
    out(0x2000 + 23, 1, 0);
    ck_assert(!probes[23].level);
    bus_write(bus, TRAPEZE_MMIO, 0xff00fff8, 8, 0x1122334455667788);
    bus_read(bus, TRAPEZE_MMIO, 0xff00fffc, 4, &value);
    ck_assert_uint_eq(value, 0x11223344);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("legacy_ports");
    TCase *tests = tcase_create("legacy_ports");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, port92_gates_a20_and_resets_on_the_rising_bit);
    tcase_add_test(tests, fpu_error_drives_its_line_until_port_f0_is_written);
    tcase_add_test(tests, debug_console_writes_through_and_is_found);
    tcase_add_test(tests, debug_exit_status_is_odd);
    tcase_add_test(tests, pc_testdev_answers_where_the_tests_look);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
