/* The I/O APIC: registers, edge and level pins, EOI, through real local APICs (82093AA data sheet). */
#include "tests/unit/devices/apic_fixture.h"

static struct apic_fixture f;

static void setup(void) {
    fixture_create(&f);
    apic_enable(&f);
}

static void teardown(void) {
    fixture_destroy(&f);
}

static uint32_t read_index(unsigned index) {
    uint64_t value;
    bus_write(f.bus, TRAPEZE_MMIO, IOAPIC_BASE, 4, index);
    bus_read(f.bus, TRAPEZE_MMIO, IOAPIC_BASE + 0x10, 4, &value);
    return (uint32_t)value;
}

static void write_index(unsigned index, uint32_t value) {
    bus_write(f.bus, TRAPEZE_MMIO, IOAPIC_BASE, 4, index);
    bus_write(f.bus, TRAPEZE_MMIO, IOAPIC_BASE + 0x10, 4, value);
}

static void write_entry(unsigned pin, uint32_t low, uint8_t destination) {
    write_index(0x11 + 2 * pin, (uint32_t)destination << 24);
    write_index(0x10 + 2 * pin, low);
}

static void eoi(unsigned cpu) {
    apic_write(&f, cpu, 0xB0, 0);
}

enum { LEVEL = 0x8000, MASKED = 0x10000, REMOTE_IRR = 0x4000, PIN = 14 };

START_TEST(id_has_four_writable_bits_and_arbitration_follows) {
    write_index(0, 0xFFFFFFFF);
    ck_assert_uint_eq(read_index(0), 0x0F000000);
    write_index(2, 0);
    ck_assert_uint_eq(read_index(2), 0x0F000000);
}
END_TEST

START_TEST(version_is_20h_with_24_pins_and_read_only) {
    write_index(1, 0);
    ck_assert_uint_eq(read_index(1), 0x00170020);
}
END_TEST

START_TEST(entries_come_up_masked_and_keep_what_is_writable) {
    ck_assert_uint_eq(read_index(0x10), MASKED);
    write_index(0x3F, 0xFFFFFFFF);
    write_index(0x3E, 0xFFFFFFFF);
    ck_assert_uint_eq(read_index(0x3F), 0xFF000000);
    ck_assert_uint_eq(read_index(0x3E), 0x1AFFF);
    ck_assert_uint_eq(read_index(0x40), 0);
}
END_TEST

START_TEST(edge_fires_once_a_rise) {
    write_entry(PIN, 0x76, 1);
    ioapic_set(f.ioapic, PIN, true);
    ck_assert_int_eq(acknowledge(&f, 1), 0x76);
    eoi(1);
    ioapic_set(f.ioapic, PIN, true);
    ck_assert(!f.cpu[1].intr);
    ioapic_set(f.ioapic, PIN, false);
    ioapic_set(f.ioapic, PIN, true);
    ck_assert(f.cpu[1].intr);
    ck_assert_uint_eq(apic_read(&f, 1, 0x180 + 0x30) >> 22 & 1, 0); /* TMR of 76h */
}
END_TEST

START_TEST(edge_while_masked_is_lost) {
    write_entry(PIN, MASKED | 0x81, 0);
    ioapic_set(f.ioapic, PIN, true);
    ioapic_set(f.ioapic, PIN, false);
    write_entry(PIN, 0x81, 0);
    ck_assert(!f.cpu[0].intr);
    ioapic_set(f.ioapic, PIN, true);
    ck_assert_int_eq(acknowledge(&f, 0), 0x81);
}
END_TEST

START_TEST(level_sets_remote_irr_until_eoi) {
    write_entry(PIN, LEVEL | 0x77, 0);
    ioapic_set(f.ioapic, PIN, true);
    ck_assert_uint_eq(read_index(0x10 + 2 * PIN), LEVEL | REMOTE_IRR | 0x77);
    ck_assert_int_eq(acknowledge(&f, 0), 0x77);
    ck_assert_uint_eq(apic_read(&f, 0, 0x180 + 0x30) >> 23 & 1, 1);
    ioapic_set(f.ioapic, PIN, false);
    eoi(0);
    ck_assert_uint_eq(read_index(0x10 + 2 * PIN), LEVEL | 0x77);
    ck_assert(!f.cpu[0].intr);
}
END_TEST

START_TEST(level_still_asserted_fires_again_at_each_eoi) {
    write_entry(PIN, LEVEL | 0x9A, 0);
    ioapic_set(f.ioapic, PIN, true);
    for (unsigned i = 0; i < 10000; i++) {
        ck_assert_int_eq(acknowledge(&f, 0), 0x9A);
        ck_assert(!f.cpu[0].intr);
        eoi(0);
    }
    ck_assert(f.cpu[0].intr);
}
END_TEST

START_TEST(level_coalesces_while_in_service) {
    write_entry(PIN, LEVEL | 0x98, 0);
    ioapic_set(f.ioapic, PIN, true);
    ck_assert_int_eq(acknowledge(&f, 0), 0x98);
    ioapic_set(f.ioapic, PIN, false);
    ioapic_set(f.ioapic, PIN, true);
    ioapic_set(f.ioapic, PIN, false);
    eoi(0);
    ck_assert(!f.cpu[0].intr);
}
END_TEST

START_TEST(masked_level_fires_when_unmasked) {
    write_entry(PIN, MASKED | LEVEL | 0x82, 0);
    ioapic_set(f.ioapic, PIN, true);
    ck_assert(!f.cpu[0].intr);
    write_index(0x10 + 2 * PIN, LEVEL | 0x82);
    ck_assert_int_eq(acknowledge(&f, 0), 0x82);
    write_index(0x10 + 2 * PIN, MASKED | LEVEL | 0x82);
    eoi(0);
    ck_assert(!f.cpu[0].intr);
    write_index(0x10 + 2 * PIN, LEVEL | 0x82);
    ck_assert(f.cpu[0].intr);
}
END_TEST

START_TEST(edge_mode_and_the_eoi_register_clear_remote_irr) {
    write_entry(PIN, LEVEL | 0x55, 0);
    ioapic_set(f.ioapic, PIN, true);
    ioapic_set(f.ioapic, PIN, false);
    write_index(0x10 + 2 * PIN, MASKED | 0x55);
    write_index(0x10 + 2 * PIN, MASKED | LEVEL | 0x55);
    ck_assert_uint_eq(read_index(0x10 + 2 * PIN), MASKED | LEVEL | 0x55);
    write_index(0x10 + 2 * PIN, LEVEL | 0x55);
    ioapic_set(f.ioapic, PIN, true);
    ioapic_set(f.ioapic, PIN, false);
    ck_assert(read_index(0x10 + 2 * PIN) & REMOTE_IRR);
    bus_write(f.bus, TRAPEZE_MMIO, IOAPIC_BASE + 0x40, 4, 0x55);
    ck_assert_uint_eq(read_index(0x10 + 2 * PIN), LEVEL | 0x55);
}
END_TEST

START_TEST(eoi_of_a_redirected_level_still_clears_it) {
    write_entry(PIN, LEVEL | 0x84, 0);
    ioapic_set(f.ioapic, PIN, true);
    ck_assert_int_eq(acknowledge(&f, 0), 0x84);
    ioapic_set(f.ioapic, PIN, false);
    write_index(0x11 + 2 * PIN, 1u << 24);
    ck_assert(read_index(0x10 + 2 * PIN) & REMOTE_IRR);
    eoi(0);
    ck_assert(!(read_index(0x10 + 2 * PIN) & REMOTE_IRR));
}
END_TEST

START_TEST(logical_destination_reaches_x2apic_processors) {
    for (unsigned i = 0; i < FIXTURE_CPUS; i++)
        ck_assert(msr_write(&f, i, 0x1B, 0xFEE00C00));
    write_entry(PIN, LEVEL | 0x886, 0x0D);
    ioapic_set(f.ioapic, PIN, true);
    ck_assert(f.cpu[0].intr && !f.cpu[1].intr && f.cpu[2].intr && f.cpu[3].intr);
}
END_TEST

START_TEST(level_that_nobody_accepts_leaves_remote_irr_clear) {
    write_entry(PIN, LEVEL | 0x44, 0x77);
    ioapic_set(f.ioapic, PIN, true);
    ck_assert_uint_eq(read_index(0x10 + 2 * PIN), LEVEL | 0x44);
}
END_TEST

START_TEST(refused_level_is_sent_again_when_the_apic_is_enabled) {
    apic_write(&f, 1, 0xF0, 0xFF);
    write_entry(PIN, LEVEL | 0x44, 1);
    ioapic_set(f.ioapic, PIN, true);
    ck_assert_uint_eq(read_index(0x10 + 2 * PIN), LEVEL | 0x44);
    apic_write(&f, 1, 0xF0, 0x1FF);
    ck_assert_int_eq(acknowledge(&f, 1), 0x44);
}
END_TEST

START_TEST(extint_pin_asks_the_8259) {
    f.extint_vector = 0x30;
    write_entry(0, 0x700, 2);
    ioapic_set(f.ioapic, 0, true);
    ck_assert_int_eq(acknowledge(&f, 2), 0x30);
    ck_assert_int_eq(acknowledge(&f, 2), -1);
}
END_TEST

START_TEST(pin_out_of_range_is_ignored) {
    ioapic_set(f.ioapic, IOAPIC_PINS, true);
    ioapic_set(f.ioapic, 1000, true);
    ck_assert_uint_eq(read_index(0x10), MASKED);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("ioapic");
    TCase *tests = tcase_create("ioapic");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, id_has_four_writable_bits_and_arbitration_follows);
    tcase_add_test(tests, version_is_20h_with_24_pins_and_read_only);
    tcase_add_test(tests, entries_come_up_masked_and_keep_what_is_writable);
    tcase_add_test(tests, edge_fires_once_a_rise);
    tcase_add_test(tests, edge_while_masked_is_lost);
    tcase_add_test(tests, level_sets_remote_irr_until_eoi);
    tcase_add_test(tests, level_still_asserted_fires_again_at_each_eoi);
    tcase_add_test(tests, level_coalesces_while_in_service);
    tcase_add_test(tests, masked_level_fires_when_unmasked);
    tcase_add_test(tests, edge_mode_and_the_eoi_register_clear_remote_irr);
    tcase_add_test(tests, eoi_of_a_redirected_level_still_clears_it);
    tcase_add_test(tests, logical_destination_reaches_x2apic_processors);
    tcase_add_test(tests, level_that_nobody_accepts_leaves_remote_irr_clear);
    tcase_add_test(tests, refused_level_is_sent_again_when_the_apic_is_enabled);
    tcase_add_test(tests, extint_pin_asks_the_8259);
    tcase_add_test(tests, pin_out_of_range_is_ignored);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
