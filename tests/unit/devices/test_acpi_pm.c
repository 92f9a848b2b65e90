/* ACPI fixed hardware and the reset control register, driven by ports and a stepped clock. */
#include "devices/acpi_pm.h"
#include "devices/reset_control.h"
#include "tests/unit/devices/device_test.h"

enum { BASE = 0x600, MSB_NS = 2343484437 }; /* 2^23 ticks of 3.579545 MHz */

static struct bus *bus;
static struct clock *test_clock;
static struct acpi_pm *pm;
static bool sci;
static unsigned power_offs;

static void set_sci(void *target, unsigned pin, bool asserted) {
    (void)target;
    (void)pin;
    sci = asserted;
}

static void power_off(void *opaque) {
    (void)opaque;
    power_offs++;
}

static void create(bool has_32bit_timer) {
    bus = bus_create();
    test_clock = clock_create_manual(bus);
    const struct acpi_pm_config config = {
        .clock = test_clock, .sci = {.set = set_sci}, .has_32bit_timer = has_32bit_timer, .power_off = power_off};
    pm = acpi_pm_create(&config);
    bus_attach(bus, TRAPEZE_PORT, BASE, ACPI_PM_BLOCK, &acpi_pm_ops, pm, "pm");
    bus_attach(bus, TRAPEZE_PORT, ACPI_PM_SMI_PORT, ACPI_PM_SMI_PORTS, &acpi_pm_smi_ops, pm, "smi");
    sci = false;
    power_offs = 0;
}

static void setup(void) {
    create(false);
}

static void teardown(void) {
    acpi_pm_destroy(pm);
    clock_destroy(test_clock);
    bus_destroy(bus);
}

static uint32_t in(unsigned port, unsigned size) {
    uint64_t value;
    bus_read(bus, TRAPEZE_PORT, port, size, &value);
    return (uint32_t)value;
}

static void out(unsigned port, unsigned size, uint32_t value) {
    bus_write(bus, TRAPEZE_PORT, port, size, value);
}

START_TEST(timer_runs_at_3579545_hz_in_24_bits) {
    clock_step(test_clock, 1000000000);
    ck_assert_uint_eq(in(BASE + 8, 4), 3579545);
    clock_step(test_clock, 4000000000);
    ck_assert_uint_eq(in(BASE + 8, 4), 3579545u * 5 - (1u << 24));
}
END_TEST

START_TEST(timer_has_32_bits_where_asked_for) {
    teardown();
    create(true);
    clock_step(test_clock, UINT64_C(1000000000) * 1000);
    ck_assert_uint_eq(in(BASE + 8, 4), 3579545000u);
}
END_TEST

START_TEST(timer_status_is_set_when_the_highest_bit_changes) {
    clock_step(test_clock, MSB_NS - 1000);
    ck_assert_uint_eq(in(BASE, 2), 0);
    clock_step(test_clock, 2000);
    ck_assert_uint_eq(in(BASE, 2), 1);
    out(BASE, 2, 1);
    ck_assert_uint_eq(in(BASE, 2), 0);
    clock_step(test_clock, MSB_NS);
    ck_assert_uint_eq(in(BASE, 2), 1);
}
END_TEST

START_TEST(timer_interrupts_in_acpi_mode) {
    out(ACPI_PM_SMI_PORT, 1, ACPI_PM_ENABLE);
    ck_assert_uint_eq(in(BASE + 4, 2) & 1, 1);
    out(BASE + 2, 2, 1);
    clock_step(test_clock, MSB_NS - 1000);
    ck_assert(!sci);
    clock_step(test_clock, 2000);
    ck_assert(sci);
    out(BASE, 2, 1);
    ck_assert(!sci);
    clock_step(test_clock, MSB_NS);
    ck_assert(sci);
}
END_TEST

START_TEST(no_sci_outside_acpi_mode) {
    out(BASE + 2, 2, 0x100);
    acpi_pm_press_power_button(pm);
    ck_assert_uint_eq(in(BASE, 2), 0x100);
    ck_assert(!sci);
    out(ACPI_PM_SMI_PORT, 1, ACPI_PM_ENABLE);
    ck_assert(sci);
    out(ACPI_PM_SMI_PORT, 1, ACPI_PM_DISABLE);
    ck_assert(!sci);
    ck_assert_uint_eq(in(BASE + 4, 2) & 1, 0);
}
END_TEST

START_TEST(software_cannot_set_sci_en) {
    out(BASE + 4, 2, 1);
    ck_assert_uint_eq(in(BASE + 4, 2), 0);
}
END_TEST

START_TEST(byte_writes_to_status_clear_only_their_bits) {
    acpi_pm_press_power_button(pm);
    clock_step(test_clock, MSB_NS + 1000);
    ck_assert_uint_eq(in(BASE, 2), 0x101);
    out(BASE + 1, 1, 1);
    ck_assert_uint_eq(in(BASE, 2), 0x001);
    out(BASE, 1, 1);
    ck_assert_uint_eq(in(BASE, 2), 0);
}
END_TEST

START_TEST(event_block_takes_dwords) {
    acpi_pm_press_power_button(pm);
    out(BASE, 4, 0x01010100u);
    ck_assert_uint_eq(in(BASE, 4), 0x01010000);
}
END_TEST

START_TEST(gpe_raises_sci_until_cleared) {
    out(ACPI_PM_SMI_PORT, 1, ACPI_PM_ENABLE);
    out(BASE + 0x0E, 2, 0x8);
    acpi_pm_raise_gpe(pm, 3);
    ck_assert(sci);
    ck_assert_uint_eq(in(BASE + 0x0C, 2), 8);
    out(BASE + 0x0C, 1, 8);
    ck_assert(!sci);
    acpi_pm_raise_gpe(pm, 16);
    ck_assert(!sci);
}
END_TEST

START_TEST(sleep_enable_with_s5_powers_off) {
    out(BASE + 4, 2, 0x2000 | 1 << 10);
    ck_assert_uint_eq(power_offs, 0);
    out(BASE + 4, 2, 0x0000);
    ck_assert_uint_eq(power_offs, 0);
    out(BASE + 4, 2, 0x2000);
    ck_assert_uint_eq(power_offs, 1);
    ck_assert_uint_eq(in(BASE + 4, 2), 0);
}
END_TEST

START_TEST(reset_clears_modes_and_lowers_sci) {
    out(ACPI_PM_SMI_PORT, 1, ACPI_PM_ENABLE);
    out(BASE + 2, 2, 0x100);
    acpi_pm_press_power_button(pm);
    ck_assert(sci);
    acpi_pm_reset(pm);
    ck_assert(!sci);
    ck_assert_uint_eq(in(BASE + 2, 2), 0);
}
END_TEST

START_TEST(garbage_does_no_harm) {
    for (unsigned offset = 0; offset < ACPI_PM_BLOCK; offset++)
        for (unsigned size = 1; size <= 4; size *= 2) {
            out(BASE + offset, size, 0xFFFFFFFF);
            in(BASE + offset, size);
        }
    clock_step(test_clock, 10 * UINT64_C(1000000000));
    ck_assert_uint_eq(in(BASE + 2, 2), 0x521);
}
END_TEST

static unsigned resets, hard_resets;

static void count_reset(void *opaque, bool is_hard) {
    (void)opaque;
    resets++;
    hard_resets += is_hard;
}

START_TEST(reset_control_fires_when_bit_2_rises) {
    struct reset_control control;
    resets = hard_resets = 0;
    reset_control_init(&control, count_reset, NULL);
    bus_attach(bus, TRAPEZE_PORT, RESET_CONTROL_PORT, 1, &reset_control_ops, &control, "reset");
    out(RESET_CONTROL_PORT, 1, 2);
    ck_assert_uint_eq(resets, 0);
    ck_assert_uint_eq(in(RESET_CONTROL_PORT, 1), 2);
    out(RESET_CONTROL_PORT, 1, 6);
    ck_assert_uint_eq(hard_resets, 1);
    out(RESET_CONTROL_PORT, 1, 6);
    ck_assert_uint_eq(resets, 1);
    out(RESET_CONTROL_PORT, 1, 0);
    out(RESET_CONTROL_PORT, 1, 4);
    ck_assert_uint_eq(resets, 2);
    ck_assert_uint_eq(hard_resets, 1);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("acpi_pm");
    TCase *tests = tcase_create("acpi_pm");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, timer_runs_at_3579545_hz_in_24_bits);
    tcase_add_test(tests, timer_has_32_bits_where_asked_for);
    tcase_add_test(tests, timer_status_is_set_when_the_highest_bit_changes);
    tcase_add_test(tests, timer_interrupts_in_acpi_mode);
    tcase_add_test(tests, no_sci_outside_acpi_mode);
    tcase_add_test(tests, software_cannot_set_sci_en);
    tcase_add_test(tests, byte_writes_to_status_clear_only_their_bits);
    tcase_add_test(tests, event_block_takes_dwords);
    tcase_add_test(tests, gpe_raises_sci_until_cleared);
    tcase_add_test(tests, sleep_enable_with_s5_powers_off);
    tcase_add_test(tests, reset_clears_modes_and_lowers_sci);
    tcase_add_test(tests, garbage_does_no_harm);
    tcase_add_test(tests, reset_control_fires_when_bit_2_rises);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
