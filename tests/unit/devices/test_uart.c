/* The 16550A, driven as Linux's 8250 driver and old software drive it; a pipe stands behind it. */
#include "devices/uart.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "devices/backends/char.h"
#include "devices/event_loop.h"
#include "tests/unit/devices/device_test.h"

static struct bus *bus;
static struct clock *manual;
static struct event_loop *loop;
static struct char_backend *backend;
static struct uart uart;
static struct line_probe irq;
static char path[64];
static int peer;

static void setup(void) {
    char spec[128], error[200];
    bus = bus_create();
    manual = clock_create_manual(bus);
    loop = event_loop_create(bus);
    snprintf(path, sizeof(path), "/tmp/test_uart.%d", (int)getpid());
    snprintf(spec, sizeof(spec), "unix:%s", path);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(listener, 1), 0);
    backend = char_open(spec, loop, NULL, error, sizeof(error));
    ck_assert_msg(backend, "%s", error);
    peer = accept(listener, NULL, NULL);
    close(listener);
    unlink(path);
    irq = (struct line_probe){0};
    struct irq_line line = line_probe_line(&irq);
    bus_lock(bus);
    uart_init(&uart, manual, &line, backend);
    bus_unlock(bus);
}

static void teardown(void) {
    bus_lock(bus);
    uart_release(&uart);
    bus_unlock(bus);
    char_close(backend);
    close(peer);
    event_loop_destroy(loop);
    clock_destroy(manual);
    bus_destroy(bus);
}

static void out(unsigned offset, uint8_t value) {
    bus_lock(bus);
    out8(&uart_ops, &uart, offset, value);
    bus_unlock(bus);
}

static uint8_t in(unsigned offset) {
    bus_lock(bus);
    uint8_t value = in8(&uart_ops, &uart, offset);
    bus_unlock(bus);
    return value;
}

static void type(const char *text, unsigned expected) {
    ck_assert_int_eq(write(peer, text, strlen(text)), (ssize_t)strlen(text));
    for (unsigned i = 0; i < 2000; i++) {
        bus_lock(bus);
        bool is_there = uart.rx_count >= expected;
        bus_unlock(bus);
        if (is_there)
            return;
        usleep(1000);
    }
    ck_abort_msg("input did not arrive");
}

START_TEST(linux_finds_a_16550a) {
    out(1, 0);
    ck_assert_uint_eq(in(1) & 0x0f, 0);
    out(1, 0xff);
    ck_assert_uint_eq(in(1), 0x0f); /* neither the sleep bits of a 16650 nor UUE of an XScale */
    out(1, 0);
    out(4, 0x1a); /* loopback, RTS, OUT2 */
    ck_assert_uint_eq(in(6) & 0xf0, 0x90);
    out(4, 0);
    out(3, 0xbf);
    out(2, 0);
    out(3, 0);
    out(2, 1);
    ck_assert_uint_eq(in(2) >> 6, 3);
    out(3, 0xbf);
    ck_assert_uint_ne(in(2), 0); /* no EFR */
    out(3, 0);
    out(2, 0x21);
    ck_assert_uint_eq(in(2), 0xc1); /* no 64-byte FIFO of a 16750 */
    out(7, 0x5a);
    ck_assert_uint_eq(in(7), 0x5a);
}
END_TEST

START_TEST(divisor_latch_hides_data_and_ier) {
    out(1, 5);
    out(3, 0x83);
    out(0, 0x01);
    out(1, 0xc2);
    ck_assert_uint_eq(in(0), 0x01);
    ck_assert_uint_eq(in(1), 0xc2);
    out(3, 0x03);
    ck_assert_uint_eq(in(1), 5);
}
END_TEST

START_TEST(written_bytes_reach_the_backend_in_order) {
    char text[8] = "";
    for (const char *c = "hello"; *c; c++) {
        ck_assert_uint_eq(in(5) & 0x60, 0x60);
        out(0, (uint8_t)*c);
    }
    ck_assert_int_eq(read(peer, text, 5), 5);
    ck_assert_str_eq(text, "hello");
}
END_TEST

START_TEST(enabling_thre_interrupt_on_empty_thr_raises_it) {
    out(4, 8);
    out(1, 2);
    ck_assert(irq.level);
    ck_assert_uint_eq(in(2), 0x02);
    ck_assert(!irq.level); /* reading IIR clears it */
    ck_assert_uint_eq(in(2), 0x01);
    out(0, 'x');
    ck_assert(irq.level);
    out(1, 0);
    ck_assert(!irq.level);
    out(1, 2);
    ck_assert(irq.level);
}
END_TEST

START_TEST(out2_gates_the_interrupt) {
    out(1, 2);
    ck_assert(!irq.level);
    ck_assert_uint_eq(in(2), 0x02);
    ck_assert(!irq.level);
    out(1, 0);
    out(4, 8);
    out(1, 2);
    ck_assert(irq.level);
    out(4, 0);
    ck_assert(!irq.level);
}
END_TEST

START_TEST(received_byte_raises_rda_until_read) {
    out(4, 8);
    out(1, 1);
    type("A", 1);
    ck_assert(irq.level);
    ck_assert_uint_eq(in(2), 0x04);
    ck_assert_uint_eq(in(5) & 1, 1);
    ck_assert_uint_eq(in(0), 'A');
    ck_assert(!irq.level);
    ck_assert_uint_eq(in(5) & 1, 0);
}
END_TEST

START_TEST(without_fifo_input_waits_for_the_reader) {
    type("abc", 1);
    ck_assert_uint_eq(in(0), 'a');
    ck_assert_uint_eq(in(0), 'b');
    ck_assert_uint_eq(in(0), 'c');
    ck_assert_uint_eq(in(5) & 3, 0); /* no data, no overrun */
}
END_TEST

START_TEST(fifo_interrupts_at_its_trigger_level) {
    out(2, 0x81); /* 8 */
    out(4, 8);
    out(1, 1);
    type("1234567", 7);
    ck_assert(!irq.level);
    type("8", 8);
    ck_assert(irq.level);
    ck_assert_uint_eq(in(2), 0xc4);
    in(0);
    ck_assert(!irq.level);
}
END_TEST

START_TEST(stale_characters_time_out) {
    out(2, 0x81);
    out(3, 0x83);
    out(0, 1); /* 115200 baud: 4 characters of 10 bits take 347 us */
    out(1, 0);
    out(3, 0x03);
    out(4, 8);
    out(1, 1);
    type("xy", 2);
    clock_step(manual, 340000);
    ck_assert(!irq.level);
    clock_step(manual, 10000);
    ck_assert(irq.level);
    ck_assert_uint_eq(in(2), 0xcc);
    ck_assert_uint_eq(in(0), 'x');
    ck_assert(!irq.level);
    clock_step(manual, 350000);
    ck_assert(irq.level); /* again for the one that is left */
    in(0);
    clock_step(manual, 350000);
    ck_assert(!irq.level);
}
END_TEST

START_TEST(long_input_arrives_whole) {
    char text[2001];
    for (unsigned i = 0; i < 2000; i++)
        text[i] = (char)('a' + i % 23);
    text[2000] = 0;
    out(2, 0xc1);
    type(text, 16);
    for (unsigned i = 0; i < 2000; i++) {
        for (unsigned spins = 0; !(in(5) & 1) && spins < 2000; spins++)
            usleep(1000);
        ck_assert_int_eq(in(0), text[i]);
    }
    ck_assert_uint_eq(in(5) & 2, 0);
}
END_TEST

START_TEST(loopback_returns_bytes_and_overruns) {
    out(2, 1);
    out(4, 0x10);
    for (unsigned i = 0; i < 17; i++)
        out(0, (uint8_t)i);
    ck_assert_uint_eq(in(5) & 3, 3); /* data, overrun */
    ck_assert_uint_eq(in(5) & 2, 0); /* told once */
    for (unsigned i = 0; i < 16; i++)
        ck_assert_uint_eq(in(0), i);
    ck_assert_uint_eq(in(5) & 1, 0);
}
END_TEST

START_TEST(modem_lines_tell_a_connected_peer_and_changes) {
    ck_assert_uint_eq(in(6), 0xb0);
    out(4, 0x10 | 0x0f);
    ck_assert_uint_eq(in(6), 0xf0);
    out(4, 0x10 | 0x0a); /* DTR and OUT1 fall: DSR, and RI's trailing edge */
    ck_assert_uint_eq(in(6), 0x90 | 0x06);
    ck_assert_uint_eq(in(6), 0x90);
}
END_TEST

START_TEST(modem_status_interrupt_is_last_in_priority) {
    out(4, 0x08);
    out(1, 0x0f);
    ck_assert_uint_eq(in(2), 0x02);
    ck_assert_uint_eq(in(2), 0x01);
    out(4, 0x18);
    ck_assert_uint_eq(in(2), 0x00);
    in(6);
    ck_assert_uint_eq(in(2), 0x01);
}
END_TEST

START_TEST(clearing_the_receive_fifo_drops_input) {
    out(2, 1);
    type("abc", 3);
    out(2, 3);
    ck_assert_uint_eq(in(5) & 1, 0);
}
END_TEST

START_TEST(full_backend_holds_thr_and_loses_nothing) {
    unsigned sent = 0, got = 0;
    out(2, 1);
    while (in(5) & 0x20 && sent < 10000000) {
        out(0, (uint8_t)sent);
        sent++;
    }
    ck_assert_uint_lt(sent, 10000000);
    uint8_t bytes[4096];
    while (got < sent) {
        ssize_t count = read(peer, bytes, sizeof(bytes));
        ck_assert_int_gt(count, 0);
        for (ssize_t i = 0; i < count; i++)
            ck_assert_uint_eq(bytes[i], (uint8_t)(got++));
    }
    for (unsigned i = 0; i < 1000 && !(in(5) & 0x20); i++)
        usleep(1000);
    ck_assert_uint_eq(in(5) & 0x60, 0x60);
}
END_TEST

START_TEST(vanished_peer_does_not_hold_the_transmitter) {
    while (in(5) & 0x20)
        out(0, 'x');
    close(peer);
    for (unsigned i = 0; i < 1000 && !(in(5) & 0x20); i++)
        usleep(1000);
    ck_assert_uint_eq(in(5) & 0x60, 0x60);
    out(0, 'y');
    ck_assert_uint_eq(in(5) & 0x60, 0x60);
    peer = -1;
}
END_TEST

START_TEST(reset_forgets_interrupts_and_keeps_scratch) {
    out(4, 8);
    out(1, 2);
    out(7, 0x77);
    ck_assert(irq.level);
    bus_lock(bus);
    uart_reset(&uart);
    bus_unlock(bus);
    ck_assert(!irq.level);
    ck_assert_uint_eq(in(1), 0);
    ck_assert_uint_eq(in(2), 1);
    ck_assert_uint_eq(in(7), 0x77);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("uart");
    TCase *tests = tcase_create("uart");
    tcase_set_timeout(tests, 30);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, linux_finds_a_16550a);
    tcase_add_test(tests, divisor_latch_hides_data_and_ier);
    tcase_add_test(tests, written_bytes_reach_the_backend_in_order);
    tcase_add_test(tests, enabling_thre_interrupt_on_empty_thr_raises_it);
    tcase_add_test(tests, out2_gates_the_interrupt);
    tcase_add_test(tests, received_byte_raises_rda_until_read);
    tcase_add_test(tests, without_fifo_input_waits_for_the_reader);
    tcase_add_test(tests, fifo_interrupts_at_its_trigger_level);
    tcase_add_test(tests, stale_characters_time_out);
    tcase_add_test(tests, long_input_arrives_whole);
    tcase_add_test(tests, loopback_returns_bytes_and_overruns);
    tcase_add_test(tests, modem_lines_tell_a_connected_peer_and_changes);
    tcase_add_test(tests, modem_status_interrupt_is_last_in_priority);
    tcase_add_test(tests, clearing_the_receive_fifo_drops_input);
    tcase_add_test(tests, full_backend_holds_thr_and_loses_nothing);
    tcase_add_test(tests, vanished_peer_does_not_hold_the_transmitter);
    tcase_add_test(tests, reset_forgets_interrupts_and_keeps_scratch);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
