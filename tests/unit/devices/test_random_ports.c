/*
 * A hostile guest at the legacy chips: random writes and reads of every width at all their ports, with time going by.
 * The chips survive, hold the machine up for no long time, and work after a reset.
 */
#include "devices/i8042.h"
#include "devices/pic.h"
#include "devices/pit.h"
#include "devices/port92.h"
#include "devices/rtc.h"
#include "devices/uart.h"
#include "tests/unit/devices/device_test.h"

static struct bus *bus;
static struct clock *manual;
static struct pic pic;
static struct pit pit;
static struct rtc rtc;
static struct i8042 keyboard;
static struct port92 port92;
static struct uart uart;
static struct line_probe intr, nothing;

static int64_t wall(void *opaque) {
    (void)opaque;
    return INT64_C(1700000000000000000) + (int64_t)clock_now(manual);
}

static bool tick_is_waiting(void *opaque) {
    return pic_is_waiting(opaque, 0);
}

static void attach(uint64_t base, uint64_t length, const struct bus_ops *ops, void *device) {
    ck_assert_int_eq(bus_attach(bus, TRAPEZE_PORT, base, length, ops, device, "chip"), BUS_OK);
}

static void setup(void) {
    bus = bus_create();
    manual = clock_create_manual(bus);
    const struct irq_line unused = line_probe_line(&nothing), out = line_probe_line(&intr);
    pic_init(&pic, &out);
    const struct irq_line irq0 = pic_line(&pic, 0), irq4 = pic_line(&pic, 4), irq8 = pic_line(&pic, 8);
    const struct i8042_lines lines = {pic_line(&pic, 1), pic_line(&pic, 12), unused, unused};
    pit_init(&pit, manual, &irq0, tick_is_waiting, &pic);
    rtc_init(&rtc, manual, &irq8, wall, NULL);
    i8042_init(&keyboard, manual, &lines);
    port92_init(&port92, &unused, &unused);
    uart_init(&uart, manual, &irq4, NULL);
    attach(0x20, 2, &pic_ops, &pic.master);
    attach(0xa0, 2, &pic_ops, &pic.slave);
    attach(0x4d0, 1, &pic_elcr_ops, &pic.master);
    attach(0x4d1, 1, &pic_elcr_ops, &pic.slave);
    attach(0x40, 4, &pit_ops, &pit);
    attach(0x60, 1, &i8042_data_ops, &keyboard);
    attach(0x61, 1, &pit_speaker_ops, &pit);
    attach(0x64, 1, &i8042_command_ops, &keyboard);
    attach(0x70, 2, &rtc_ops, &rtc);
    attach(0x92, 1, &port92_ops, &port92);
    attach(0x3f8, 8, &uart_ops, &uart);
}

static void teardown(void) {
    uart_release(&uart);
    i8042_release(&keyboard);
    rtc_release(&rtc);
    pit_release(&pit);
    clock_destroy(manual);
    bus_destroy(bus);
}

static uint64_t random_next(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void disturb(uint64_t *state) {
    static const uint16_t ports[] = {0x20,  0x21,  0xa0,  0xa1,  0x4d0, 0x4d1, 0x40, 0x41, 0x42,
                                     0x43,  0x60,  0x61,  0x64,  0x70,  0x71,  0x70, 0x71, 0x92,
                                     0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3ff};
    static const uint32_t steps[] = {0, 1, 100, 5000, 400000, 30000000};
    uint64_t random = random_next(state), value;
    uint16_t port = ports[random % (sizeof(ports) / sizeof(ports[0]))];
    unsigned size = 1u << (random >> 8) % 3;
    if (random >> 16 & 1)
        bus_write(bus, TRAPEZE_PORT, port, size, random >> 32);
    else
        bus_read(bus, TRAPEZE_PORT, port, size, &value);
    if ((random >> 17 & 7) == 0)
        clock_step(manual, steps[(random >> 20) % 6]);
    if ((random >> 24 & 3) == 0 && intr.level)
        ck_assert_int_lt(pic_acknowledge(&pic), 256);
    if ((random >> 26 & 15) == 0)
        i8042_key(&keyboard, (unsigned)(random >> 30 & 0xffff), random >> 50 & 1);
}

START_TEST(chips_survive_random_accesses) {
    uint64_t state = 0x9e3779b97f4a7c15u * (uint64_t)(_i + 1);
    for (unsigned i = 0; i < 100000; i++)
        disturb(&state);
}
END_TEST

START_TEST(chips_work_after_a_reset) {
    uint64_t state = 12345, value;
    for (unsigned i = 0; i < 20000; i++)
        disturb(&state);
    pic_reset(&pic);
    pit_reset(&pit);
    rtc_reset(&rtc);
    i8042_reset(&keyboard);
    port92_reset(&port92);
    uart_reset(&uart);
    static const struct {
        uint16_t port;
        uint8_t value;
    } program[] = {{0x20, 0x11}, {0x21, 0x20}, {0x21, 0x04}, {0x21, 0x01}, {0xa0, 0x11}, {0xa1, 0x28}, {0xa1, 0x02},
                   {0xa1, 0x01}, {0x21, 0xfe}, {0xa1, 0xff}, {0x43, 0x34}, {0x40, 0xa9}, {0x40, 0x04}};
    for (unsigned i = 0; i < sizeof(program) / sizeof(program[0]); i++)
        bus_write(bus, TRAPEZE_PORT, program[i].port, 1, program[i].value);
    unsigned ticks = 0;
    for (unsigned i = 0; i < 1000; i++) { /* a second at 1000 Hz */
        clock_step(manual, 1000000);
        while (intr.level) {
            ck_assert_int_eq(pic_acknowledge(&pic), 0x20);
            bus_write(bus, TRAPEZE_PORT, 0x20, 1, 0x20);
            ticks++;
        }
    }
    ck_assert_uint_ge(ticks, 999);
    ck_assert_uint_le(ticks, 1001);
    bus_read(bus, TRAPEZE_PORT, 0x3fd, 1, &value);
    ck_assert_uint_eq(value, 0x60);
    bus_read(bus, TRAPEZE_PORT, 0x64, 1, &value);
    ck_assert_uint_eq(value, 0x10);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("random_ports");
    TCase *tests = tcase_create("random_ports");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, chips_survive_random_accesses, 0, 10);
    tcase_add_test(tests, chips_work_after_a_reset);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
