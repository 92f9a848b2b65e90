/* The 8042, as Linux's i8042, atkbd and psmouse drivers and old handlers talk to it. */
#include "devices/i8042.h"
#include "tests/unit/devices/device_test.h"

static struct bus *bus;
static struct clock *manual;
static struct i8042 controller;
static struct line_probe irq1, irq12, a20, reset;

static void setup(void) {
    bus = bus_create();
    manual = clock_create_manual(bus);
    irq1 = irq12 = a20 = reset = (struct line_probe){0};
    const struct i8042_lines lines = {line_probe_line(&irq1), line_probe_line(&irq12), line_probe_line(&a20),
                                      line_probe_line(&reset)};
    i8042_init(&controller, manual, &lines);
}

static void teardown(void) {
    i8042_release(&controller);
    clock_destroy(manual);
    bus_destroy(bus);
}

static uint8_t status(void) {
    return in8(&i8042_command_ops, &controller, 0);
}

static void command(uint8_t value) {
    out8(&i8042_command_ops, &controller, 0, value);
}

static void data(uint8_t value) {
    out8(&i8042_data_ops, &controller, 0, value);
}

/* The next byte, as a driver waits for it. */
static uint8_t next(void) {
    for (unsigned i = 0; i < 100 && !(status() & 1); i++)
        clock_step(manual, 10000);
    ck_assert_uint_eq(status() & 1, 1);
    return in8(&i8042_data_ops, &controller, 0);
}

static void assert_silence(void) {
    clock_step(manual, 10000000);
    ck_assert_uint_eq(status() & 1, 0);
}

static void assert_bytes(const uint8_t *bytes, unsigned count) {
    for (unsigned i = 0; i < count; i++)
        ck_assert_uint_eq(next(), bytes[i]);
    assert_silence();
}
#define ASSERT_BYTES(...) assert_bytes((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

START_TEST(self_test_passes_and_sets_the_system_flag) {
    ck_assert_uint_eq(status() & 0x04, 0);
    command(0xaa);
    ASSERT_BYTES(0x55);
    ck_assert_uint_eq(status() & 0x04, 0x04);
    command(0xab);
    ASSERT_BYTES(0x00);
}
END_TEST

START_TEST(command_byte_reads_back) {
    command(0x60);
    data(0x30);
    command(0x20);
    ASSERT_BYTES(0x30);
    command(0xae);
    command(0x20);
    ASSERT_BYTES(0x20);
    command(0x65);
    data(0x99);
    command(0x25);
    ASSERT_BYTES(0x99);
}
END_TEST

START_TEST(linux_finds_the_aux_port) {
    command(0xd3);
    data(0x5a);
    ck_assert_uint_eq(status() & 0x21, 0x21);
    ck_assert_uint_eq(next(), 0x5a);
    command(0xa7);
    command(0x20);
    ck_assert_uint_eq(next() & 0x20, 0x20);
    command(0xa8);
    command(0x20);
    ck_assert_uint_eq(next() & 0x20, 0);
    command(0x60);
    data(0x42);
    command(0xd3);
    data(0xa5);
    ck_assert(irq12.level);
    ck_assert(!irq1.level);
    next();
    ck_assert(!irq12.level);
}
END_TEST

START_TEST(keyboard_identifies_itself) {
    data(0xf2);
    ASSERT_BYTES(0xfa, 0xab, 0x41); /* 83h through the translation */
    command(0x60);
    data(0x00);
    data(0xf2);
    ASSERT_BYTES(0xfa, 0xab, 0x83);
    data(0xff);
    ASSERT_BYTES(0xfa, 0xaa);
    data(0xed);
    ASSERT_BYTES(0xfa);
    data(0x07);
    ASSERT_BYTES(0xfa);
    data(0xee);
    ASSERT_BYTES(0xee);
    data(0xe0);
    ASSERT_BYTES(0xfe);
}
END_TEST

START_TEST(parameter_place_takes_a_new_command) {
    data(0xed);
    ASSERT_BYTES(0xfa);
    data(0xf4);
    ASSERT_BYTES(0xfa);
    data(0x02);
    ASSERT_BYTES(0xfe);
}
END_TEST

START_TEST(keys_come_translated_to_set_1) {
    i8042_key(&controller, 0x1e, true);
    i8042_key(&controller, 0x1e, false);
    i8042_key(&controller, 0xe048, true);
    i8042_key(&controller, 0xe048, false);
    i8042_key(&controller, 0x41, true); /* F7: 83h in set 2 */
    ASSERT_BYTES(0x1e, 0x9e, 0xe0, 0x48, 0xe0, 0xc8, 0x41);
}
END_TEST

START_TEST(keys_come_raw_in_set_2) {
    command(0x60);
    data(0x01);
    i8042_key(&controller, 0x1e, true);
    i8042_key(&controller, 0x1e, false);
    i8042_key(&controller, 0x41, true);
    i8042_key(&controller, PS2_KEY_PAUSE, true);
    i8042_key(&controller, PS2_KEY_PAUSE, false);
    ASSERT_BYTES(0x1c, 0xf0, 0x1c, 0x83, 0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77);
}
END_TEST

START_TEST(set_1_of_the_keyboard_itself) {
    command(0x60);
    data(0x01);
    data(0xf0);
    ASSERT_BYTES(0xfa);
    data(0x01);
    ASSERT_BYTES(0xfa);
    i8042_key(&controller, 0x1e, true);
    i8042_key(&controller, 0x1e, false);
    ASSERT_BYTES(0x1e, 0x9e);
    data(0xf0);
    ASSERT_BYTES(0xfa);
    data(0x00);
    ASSERT_BYTES(0xfa, 0x01);
}
END_TEST

START_TEST(every_key_survives_both_translations) {
    for (unsigned key = 1; key < 0x60; key++) {
        i8042_key(&controller, key, true);
        ck_assert_uint_eq(next(), key);
    }
}
END_TEST

START_TEST(each_byte_is_an_interrupt_and_can_be_read_twice) {
    command(0x60);
    data(0x41);
    i8042_key(&controller, 0x1e, true);
    i8042_key(&controller, 0x1e, false);
    ck_assert(irq1.level);
    ck_assert_uint_eq(in8(&i8042_data_ops, &controller, 0), 0x1e);
    ck_assert(!irq1.level);
    ck_assert_uint_eq(in8(&i8042_data_ops, &controller, 0), 0x1e);
    ck_assert_uint_eq(irq1.rises, 1);
    clock_step(manual, 1000000);
    ck_assert_uint_eq(irq1.rises, 2);
    ck_assert_uint_eq(in8(&i8042_data_ops, &controller, 0), 0x9e);
}
END_TEST

START_TEST(disabled_keyboard_waits) {
    command(0xad);
    i8042_key(&controller, 0x1e, true);
    assert_silence();
    command(0xae);
    ASSERT_BYTES(0x1e);
}
END_TEST

START_TEST(overflowing_keys_and_unread_replies_are_dropped) {
    for (unsigned i = 0; i < 1000; i++)
        i8042_key(&controller, 0x1e, true);
    for (unsigned i = 0; i < 1000; i++)
        command(0x20);
    unsigned count = 0;
    for (; status() & 1 && count < 100; count++) {
        next();
        clock_step(manual, 1000000);
    }
    ck_assert_uint_le(count, 40);
}
END_TEST

START_TEST(mouse_answers_a_probe) {
    command(0x60);
    data(0x43);
    command(0xd4);
    data(0xff);
    ck_assert_uint_eq(status() & 0x21, 0x21);
    ck_assert(irq12.level);
    ASSERT_BYTES(0xfa, 0xaa, 0x00);
    static const uint8_t knock[] = {0xf3, 200, 0xf3, 100, 0xf3, 80};
    for (unsigned i = 0; i < sizeof(knock); i++) {
        command(0xd4);
        data(knock[i]);
        ASSERT_BYTES(0xfa);
    }
    command(0xd4);
    data(0xf2);
    ASSERT_BYTES(0xfa, 0x03);
    command(0xd4);
    data(0xe9);
    ASSERT_BYTES(0xfa, 0x00, 0x02, 80);
    command(0xd4);
    data(0x13);
    ASSERT_BYTES(0xfe);
}
END_TEST

START_TEST(output_port_moves_a20_and_reset) {
    ck_assert(a20.level);
    command(0xd1);
    data(0xdd);
    ck_assert(!a20.level);
    command(0xd0);
    ck_assert_uint_eq(next() & 0x03, 0x01);
    command(0xdf);
    ck_assert(a20.level);
    command(0xdd);
    ck_assert(!a20.level);
    ck_assert_uint_eq(reset.rises, 0);
    command(0xff); /* pulses nothing */
    ck_assert_uint_eq(reset.rises, 0);
    command(0xfe);
    ck_assert_uint_eq(reset.rises, 1);
    command(0xd1);
    data(0x02);
    ck_assert_uint_eq(reset.rises, 2);
}
END_TEST

START_TEST(reset_opens_a20_and_forgets_bytes) {
    command(0xd1);
    data(0x01);
    command(0x20);
    i8042_reset(&controller);
    ck_assert(a20.level);
    ck_assert(!irq1.level);
    ck_assert_uint_eq(status(), 0x10);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("i8042");
    TCase *tests = tcase_create("i8042");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, self_test_passes_and_sets_the_system_flag);
    tcase_add_test(tests, command_byte_reads_back);
    tcase_add_test(tests, linux_finds_the_aux_port);
    tcase_add_test(tests, keyboard_identifies_itself);
    tcase_add_test(tests, parameter_place_takes_a_new_command);
    tcase_add_test(tests, keys_come_translated_to_set_1);
    tcase_add_test(tests, keys_come_raw_in_set_2);
    tcase_add_test(tests, set_1_of_the_keyboard_itself);
    tcase_add_test(tests, every_key_survives_both_translations);
    tcase_add_test(tests, each_byte_is_an_interrupt_and_can_be_read_twice);
    tcase_add_test(tests, disabled_keyboard_waits);
    tcase_add_test(tests, overflowing_keys_and_unread_replies_are_dropped);
    tcase_add_test(tests, mouse_answers_a_probe);
    tcase_add_test(tests, output_port_moves_a20_and_reset);
    tcase_add_test(tests, reset_opens_a20_and_forgets_bytes);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
