/* The local APIC and the APIC bus: messages, priorities, modes, timer (SDM vol. 3A, chapter 11). */
#include "tests/unit/devices/apic_fixture.h"

static struct apic_fixture f;

static void setup(void) {
    fixture_create(&f);
    apic_enable(&f);
}

static void setup_plain(void) {
    fixture_create_with(&f, false, false);
    apic_enable(&f);
}

static void teardown(void) {
    fixture_destroy(&f);
}

enum { BASE = 0x1B, DEADLINE = 0x6E0, X2APIC = 0xFEE00C00, XAPIC = 0xFEE00800, OFF = 0xFEE00000 };

/* ---- Messages ---- */

START_TEST(fixed_ipi_raises_intr_of_the_destination_alone) {
    apic_send(&f, 0, 0x4031, 2);
    ck_assert(!f.cpu[0].intr && !f.cpu[1].intr && f.cpu[2].intr && !f.cpu[3].intr);
    ck_assert_int_eq(acknowledge(&f, 2), 0x31);
    ck_assert(!f.cpu[2].intr);
    ck_assert_int_eq(acknowledge(&f, 2), -1);
}
END_TEST

START_TEST(shorthands_name_self_all_and_others) {
    apic_send(&f, 1, 0x44040, 0);
    ck_assert(!f.cpu[0].intr && f.cpu[1].intr);
    ck_assert_int_eq(acknowledge(&f, 1), 0x40);
    apic_send(&f, 1, 0xC4041, 0);
    ck_assert(f.cpu[0].intr && !f.cpu[1].intr && f.cpu[2].intr && f.cpu[3].intr);
    apic_write(&f, 1, 0xB0, 0);
    apic_send(&f, 1, 0x84042, 0);
    for (unsigned i = 0; i < FIXTURE_CPUS; i++)
        ck_assert_int_eq(acknowledge(&f, i), 0x42);
}
END_TEST

START_TEST(physical_ffh_is_everybody) {
    apic_send(&f, 0, 0x40CF, 0xFF);
    for (unsigned i = 0; i < FIXTURE_CPUS; i++)
        ck_assert_int_eq(acknowledge(&f, i), 0xCF);
}
END_TEST

START_TEST(logical_flat_matches_any_common_bit) {
    for (unsigned i = 0; i < FIXTURE_CPUS; i++)
        apic_write(&f, i, 0xD0, 0x01000000u << i);
    apic_send(&f, 0, 0x4850, 0xFA);
    ck_assert(!f.cpu[0].intr && f.cpu[1].intr && !f.cpu[2].intr && f.cpu[3].intr);
}
END_TEST

START_TEST(logical_cluster_matches_cluster_and_common_bit) {
    static const uint8_t ldr[FIXTURE_CPUS] = {0x11, 0x12, 0x21, 0x22};
    for (unsigned i = 0; i < FIXTURE_CPUS; i++) {
        apic_write(&f, i, 0xE0, 0x0FFFFFFF);
        apic_write(&f, i, 0xD0, (uint32_t)ldr[i] << 24);
    }
    ck_assert_uint_eq(apic_read(&f, 0, 0xE0), 0x0FFFFFFF);
    apic_send(&f, 0, 0x4850, 0x22);
    ck_assert(!f.cpu[0].intr && !f.cpu[1].intr && !f.cpu[2].intr && f.cpu[3].intr);
}
END_TEST

START_TEST(lowest_priority_goes_to_the_least_busy_and_takes_turns) {
    apic_write(&f, 0, 0x80, 0x40);
    apic_write(&f, 1, 0x80, 0x20);
    apic_write(&f, 2, 0x80, 0x20);
    apic_write(&f, 3, 0x80, 0x30);
    apic_send(&f, 0, 0x4150, 0xFF);
    apic_send(&f, 0, 0x4150, 0xFF);
    ck_assert(!f.cpu[0].intr && f.cpu[1].intr && f.cpu[2].intr && !f.cpu[3].intr);
}
END_TEST

START_TEST(init_sipi_and_nmi_reach_the_processor) {
    apic_write(&f, 1, 0x80, 0x55);
    apic_send(&f, 0, 0x4500, 1);
    ck_assert_uint_eq(f.cpu[1].init, 1);
    ck_assert_uint_eq(apic_read(&f, 1, 0x80), 0);
    apic_send(&f, 0, 0x8500, 1); /* de-assert */
    ck_assert_uint_eq(f.cpu[1].init, 1);
    apic_send(&f, 0, 0x4698, 1);
    ck_assert_uint_eq(f.cpu[1].sipi, 1);
    ck_assert_uint_eq(f.cpu[1].sipi_vector, 0x98);
    apic_send(&f, 0, 0x400, 1);
    ck_assert_uint_eq(f.cpu[1].nmi, 1);
    ck_assert_uint_eq(f.cpu[0].nmi, 0);
}
END_TEST

START_TEST(init_keeps_base_and_id) {
    apic_write(&f, 1, 0x20, 0x09000000);
    apic_send(&f, 0, 0x4500, 9);
    ck_assert_uint_eq(f.cpu[1].init, 1);
    ck_assert_uint_eq(apic_read(&f, 1, 0x20), 0x09000000);
    ck_assert_uint_eq(apic_read(&f, 1, 0xF0), 0xFF);
    ck_assert_uint_eq(msr_read(&f, 1, BASE), XAPIC);
}
END_TEST

START_TEST(software_disabled_refuses_fixed_but_takes_nmi) {
    apic_write(&f, 1, 0xF0, 0xFF);
    apic_send(&f, 0, 0x4031, 1);
    ck_assert(!f.cpu[1].intr);
    apic_send(&f, 0, 0x4400, 1);
    ck_assert_uint_eq(f.cpu[1].nmi, 1);
    apic_write(&f, 1, 0x350, 0x700);
    ck_assert_uint_eq(apic_read(&f, 1, 0x350), 0x10700);
}
END_TEST

START_TEST(msi_reaches_its_destination) {
    apic_bus_msi(f.apic_bus, 0xFEE02000, 0x4061);
    ck_assert_int_eq(acknowledge(&f, 2), 0x61);
    apic_bus_msi(f.apic_bus, 0xFED02000, 0x4062);
    ck_assert_int_eq(acknowledge(&f, 2), -1);
}
END_TEST

/* ---- Priorities ---- */

START_TEST(lower_class_waits_for_eoi_and_higher_nests) {
    apic_send(&f, 0, 0x4055, 1);
    ck_assert_int_eq(acknowledge(&f, 1), 0x55);
    apic_send(&f, 0, 0x4058, 1); /* same class */
    ck_assert(!f.cpu[1].intr);
    ck_assert_uint_eq(apic_read(&f, 1, 0xA0), 0x50);
    apic_send(&f, 0, 0x4061, 1);
    ck_assert(f.cpu[1].intr);
    ck_assert_int_eq(acknowledge(&f, 1), 0x61);
    ck_assert_uint_eq(apic_read(&f, 1, 0x130), 2);
    ck_assert_uint_eq(apic_read(&f, 1, 0x120), 1 << 21);
    apic_write(&f, 1, 0xB0, 0);
    ck_assert(!f.cpu[1].intr);
    apic_write(&f, 1, 0xB0, 0);
    ck_assert(f.cpu[1].intr);
    ck_assert_int_eq(acknowledge(&f, 1), 0x58);
}
END_TEST

START_TEST(cr8_masks_classes_up_to_its_own) {
    const struct trapeze_interrupt_controller controller = lapic_controller(f.cpu[0].lapic);
    controller.set_tpr(controller.opaque, 6);
    ck_assert_uint_eq(apic_read(&f, 0, 0x80), 0x60);
    apic_send(&f, 0, 0x4406F, 0);
    ck_assert(!f.cpu[0].intr);
    controller.set_tpr(controller.opaque, 5);
    ck_assert(f.cpu[0].intr);
    ck_assert_uint_eq(controller.get_tpr(controller.opaque), 5);
    apic_write(&f, 0, 0x80, 0x63);
    ck_assert(!f.cpu[0].intr);
    ck_assert_int_eq(acknowledge(&f, 0), -1);
    ck_assert_uint_eq(apic_read(&f, 0, 0xA0), 0x63);
}
END_TEST

/* ---- Errors ---- */

START_TEST(illegal_vector_is_an_error_interrupt_once) {
    apic_write(&f, 0, 0x370, 0xFE);
    apic_send(&f, 0, 0x4405, 1);
    ck_assert_uint_eq(f.cpu[1].nmi, 1);
    apic_send(&f, 0, 0x4005, 1);
    ck_assert(!f.cpu[1].intr);
    ck_assert_int_eq(acknowledge(&f, 0), 0xFE);
    ck_assert_uint_eq(apic_read(&f, 0, 0x280), 0);
    apic_write(&f, 0, 0x280, 0);
    ck_assert_uint_eq(apic_read(&f, 0, 0x280), 0x20);
    apic_write(&f, 0, 0x280, 0);
    ck_assert_uint_eq(apic_read(&f, 0, 0x280), 0);
}
END_TEST

START_TEST(illegal_error_vector_does_not_recurse) {
    apic_write(&f, 0, 0x370, 0x05);
    apic_send(&f, 0, 0x4005, 0);
    ck_assert(!f.cpu[0].intr);
    apic_write(&f, 0, 0x280, 0);
    ck_assert_uint_eq(apic_read(&f, 0, 0x280), 0x60);
}
END_TEST

START_TEST(reserved_register_is_an_error) {
    apic_read(&f, 0, 0x3F0);
    apic_write(&f, 0, 0x280, 0);
    ck_assert_uint_eq(apic_read(&f, 0, 0x280), 0x80);
    apic_write(&f, 0, 0x30, 0); /* read-only is none */
    apic_write(&f, 0, 0x280, 0);
    ck_assert_uint_eq(apic_read(&f, 0, 0x280), 0);
}
END_TEST

/* ---- Pins ---- */

START_TEST(boot_processor_starts_in_virtual_wire_mode) {
    teardown();
    fixture_create(&f);
    f.extint_vector = 0x08;
    apic_bus_set_lint(f.apic_bus, 0, true);
    ck_assert(f.cpu[0].intr && !f.cpu[1].intr);
    ck_assert_int_eq(acknowledge(&f, 0), 0x08);
    ck_assert_uint_eq(f.extint_count, 1);
    apic_bus_set_lint(f.apic_bus, 0, false);
    ck_assert(!f.cpu[0].intr);
}
END_TEST

START_TEST(masked_lint0_keeps_the_8259_out) {
    apic_write(&f, 0, 0x350, 0x10700);
    apic_bus_set_lint(f.apic_bus, 0, true);
    ck_assert(!f.cpu[0].intr);
    apic_write(&f, 0, 0x350, 0x700);
    ck_assert(f.cpu[0].intr);
}
END_TEST

START_TEST(extint_comes_before_the_irr) {
    f.extint_vector = 0x20;
    apic_write(&f, 0, 0x350, 0x700);
    apic_send(&f, 0, 0x440F0, 0);
    apic_bus_set_lint(f.apic_bus, 0, true);
    ck_assert_int_eq(acknowledge(&f, 0), 0x20);
    apic_bus_set_lint(f.apic_bus, 0, false);
    ck_assert_int_eq(acknowledge(&f, 0), 0xF0);
}
END_TEST

START_TEST(disabled_apic_is_a_plain_intr_pin) {
    ck_assert(msr_write(&f, 1, BASE, OFF));
    apic_bus_set_lint(f.apic_bus, 0, true);
    ck_assert(f.cpu[1].intr);
    f.extint_vector = 0x0D;
    ck_assert_int_eq(acknowledge(&f, 1), 0x0D);
    apic_bus_set_lint(f.apic_bus, 1, true);
    ck_assert_uint_eq(f.cpu[1].nmi, 1);
    ck_assert_uint_eq(f.cpu[0].nmi, 0); /* LINT1 is masked there */
}
END_TEST

START_TEST(lint1_nmi_is_an_edge) {
    apic_write(&f, 0, 0x360, 0x400);
    apic_bus_set_lint(f.apic_bus, 1, true);
    apic_bus_set_lint(f.apic_bus, 1, true);
    ck_assert_uint_eq(f.cpu[0].nmi, 1);
    apic_bus_set_lint(f.apic_bus, 1, false);
    apic_bus_set_lint(f.apic_bus, 1, true);
    ck_assert_uint_eq(f.cpu[0].nmi, 2);
}
END_TEST

START_TEST(level_lint0_fires_again_from_eoi) {
    apic_write(&f, 0, 0x350, 0x8077);
    apic_bus_set_lint(f.apic_bus, 0, true);
    ck_assert_int_eq(acknowledge(&f, 0), 0x77);
    ck_assert_uint_eq(apic_read(&f, 0, 0x350), 0xC077);
    ck_assert(!f.cpu[0].intr);
    apic_write(&f, 0, 0xB0, 0);
    ck_assert_int_eq(acknowledge(&f, 0), 0x77);
    apic_bus_set_lint(f.apic_bus, 0, false);
    apic_write(&f, 0, 0xB0, 0);
    ck_assert_int_eq(acknowledge(&f, 0), -1);
    ck_assert_uint_eq(apic_read(&f, 0, 0x350), 0x8077);
}
END_TEST

/* ---- Modes ---- */

START_TEST(apic_base_refuses_illegal_switches) {
    ck_assert_uint_eq(msr_read(&f, 0, BASE), XAPIC | 0x100);
    ck_assert(!msr_write(&f, 1, BASE, 0xFEE00400)); /* invalid state */
    ck_assert(msr_write(&f, 1, BASE, X2APIC));
    ck_assert(!msr_write(&f, 1, BASE, XAPIC)); /* back to xAPIC */
    ck_assert(!msr_write(&f, 1, BASE, 0xFEE00400));
    ck_assert(msr_write(&f, 1, BASE, OFF));
    ck_assert(!msr_write(&f, 1, BASE, X2APIC)); /* from disabled */
    ck_assert(msr_write(&f, 1, BASE, XAPIC));
    ck_assert(!msr_write(&f, 1, BASE, XAPIC | 1));
    ck_assert(!msr_write(&f, 1, BASE, XAPIC | UINT64_C(1) << 40));
    ck_assert_uint_eq(msr_read(&f, 1, BASE), XAPIC);
}
END_TEST

START_TEST(x2apic_is_reserved_where_the_model_has_none) {
    ck_assert(!msr_write(&f, 1, BASE, X2APIC));
    ck_assert(!msr_is_readable(&f, 1, 0x802));
    ck_assert(!msr_is_readable(&f, 1, DEADLINE));
    ck_assert(!msr_write(&f, 1, DEADLINE, 0));
    apic_write(&f, 1, 0x320, 0x400EE);
    ck_assert_uint_eq(apic_read(&f, 1, 0x320), 0xEE);
}
END_TEST

START_TEST(disabled_page_is_open_bus_and_cr8_works) {
    const struct trapeze_interrupt_controller controller = lapic_controller(f.cpu[0].lapic);
    controller.set_tpr(controller.opaque, 3);
    ck_assert(msr_write(&f, 0, BASE, OFF | 0x100));
    ck_assert_uint_eq(apic_read(&f, 0, 0x30), 0xFFFFFFFF);
    ck_assert_uint_eq(apic_read(&f, 1, 0x30), 0x50014);
    apic_write(&f, 0, 0x80, 0xFF);
    ck_assert_uint_eq(controller.get_tpr(controller.opaque), 3);
    controller.set_tpr(controller.opaque, 12);
    ck_assert(msr_write(&f, 0, BASE, XAPIC | 0x100));
    ck_assert_uint_eq(apic_read(&f, 0, 0x80), 0xC0);
    ck_assert_uint_eq(apic_read(&f, 0, 0xF0), 0xFF);
}
END_TEST

START_TEST(relocated_page_is_seen_by_its_processor_alone) {
    uint64_t value;
    ck_assert(msr_write(&f, 2, BASE, 0xFED40800));
    f.current = 2;
    ck_assert(bus_read(f.bus, TRAPEZE_MMIO, 0xFED40030, 4, &value));
    ck_assert_uint_eq(value, 0x50014);
    ck_assert_uint_eq(apic_read(&f, 2, 0x30), 0xFFFFFFFF);
    ck_assert_uint_eq(apic_read(&f, 1, 0x30), 0x50014);
    f.current = 1;
    bus_read(f.bus, TRAPEZE_MMIO, 0xFED40030, 4, &value);
    ck_assert_uint_eq((uint32_t)value, 0xFFFFFFFF);
    ck_assert(msr_write(&f, 2, BASE, XAPIC));
    ck_assert(!bus_read(f.bus, TRAPEZE_MMIO, 0xFED40030, 4, &value));
    ck_assert_uint_eq(apic_read(&f, 2, 0x20), 0x02000000);
}
END_TEST

START_TEST(x2apic_registers_are_msrs_and_the_page_goes) {
    ck_assert(!msr_is_readable(&f, 3, 0x802));
    ck_assert(msr_write(&f, 3, BASE, X2APIC));
    ck_assert_uint_eq(msr_read(&f, 3, 0x802), 3);
    ck_assert_uint_eq(msr_read(&f, 3, 0x803), 0x50014);
    ck_assert_uint_eq(msr_read(&f, 3, 0x80D), 8);
    ck_assert_uint_eq(msr_read(&f, 3, 0x80F), 0x1FF);
    ck_assert_uint_eq(apic_read(&f, 3, 0x30), 0xFFFFFFFF);
}
END_TEST

START_TEST(x2apic_refuses_reserved_registers_and_bits) {
    static const uint32_t unreadable[] = {0x80B, 0x80E, 0x80C, 0x831, 0x82F, 0x83F, 0x840, 0x8FF};
    static const struct {
        uint32_t index;
        uint64_t value;
    } refused[] = {
        {0x802, 1},     {0x803, 0},       {0x80A, 0}, {0x80B, 1}, {0x80D, 1},        {0x80E, 0},
        {0x808, 0x100}, {0x80F, 0x1000},  {0x810, 0}, {0x828, 1}, {0x830, 1u << 13}, {0x830, 1u << 20},
        {0x831, 0},     {0x832, 0x80000}, {0x839, 0}, {0x83E, 4}, {0x83F, 0x100},    {0x838, UINT64_C(1) << 32}};
    ck_assert(msr_write(&f, 0, BASE, X2APIC | 0x100));
    for (unsigned i = 0; i < sizeof unreadable / sizeof *unreadable; i++)
        ck_assert_msg(!msr_is_readable(&f, 0, unreadable[i]), "%x", unreadable[i]);
    for (unsigned i = 0; i < sizeof refused / sizeof *refused; i++)
        ck_assert_msg(!msr_write(&f, 0, refused[i].index, refused[i].value), "%x", refused[i].index);
    ck_assert(msr_write(&f, 0, 0x80B, 0));
    ck_assert(msr_write(&f, 0, 0x828, 0));
}
END_TEST

START_TEST(x2apic_ipis_self_logical_and_broadcast) {
    for (unsigned i = 0; i < 3; i++)
        ck_assert(msr_write(&f, i, BASE, X2APIC | (i ? 0 : 0x100)));
    ck_assert(msr_write(&f, 0, 0x83F, 0x99));
    ck_assert_int_eq(acknowledge(&f, 0), 0x99);
    ck_assert(msr_write(&f, 0, 0x80B, 0));
    ck_assert(msr_write(&f, 0, 0x830, UINT64_C(0x00000006) << 32 | 0x4850)); /* logical 1 and 2 */
    ck_assert(!f.cpu[0].intr && f.cpu[1].intr && f.cpu[2].intr && !f.cpu[3].intr);
    ck_assert_uint_eq(msr_read(&f, 0, 0x830), UINT64_C(0x00000006) << 32 | 0x4850);
    ck_assert(msr_write(&f, 0, 0x830, UINT64_C(0xFFFFFFFF) << 32 | 0x40CF));
    for (unsigned i = 0; i < FIXTURE_CPUS; i++) /* the last is in xAPIC mode */
        ck_assert_int_eq(acknowledge(&f, i), 0xCF);
}
END_TEST

START_TEST(id_is_writable_in_xapic_mode_until_the_apic_is_disabled) {
    apic_write(&f, 1, 0x20, 0x02000000);
    apic_send(&f, 0, 0x4031, 2);
    ck_assert(f.cpu[1].intr && f.cpu[2].intr);
    ck_assert(msr_write(&f, 1, BASE, OFF));
    ck_assert(msr_write(&f, 1, BASE, XAPIC));
    ck_assert_uint_eq(apic_read(&f, 1, 0x20), 0x01000000);
}
END_TEST

/* ---- Timer ---- */

START_TEST(one_shot_counts_nanoseconds_and_fires_once) {
    apic_write(&f, 0, 0x3E0, 0xB);
    apic_write(&f, 0, 0x320, 0xEE);
    apic_write(&f, 0, 0x380, 100000);
    clock_step(f.clock, 99999);
    ck_assert_uint_eq(apic_read(&f, 0, 0x390), 1);
    ck_assert(!f.cpu[0].intr);
    clock_step(f.clock, 1);
    ck_assert_int_eq(acknowledge(&f, 0), 0xEE);
    ck_assert_uint_eq(apic_read(&f, 0, 0x390), 0);
    ck_assert_uint_eq(apic_read(&f, 0, 0x380), 100000);
    apic_write(&f, 0, 0xB0, 0);
    clock_step(f.clock, 1000000);
    ck_assert(!f.cpu[0].intr);
}
END_TEST

START_TEST(divisor_slows_the_count) {
    static const uint8_t code[8] = {0xB, 0x0, 0x1, 0x2, 0x3, 0x8, 0x9, 0xA};
    for (unsigned i = 0; i < 8; i++) {
        apic_write(&f, 0, 0x3E0, code[i]);
        apic_write(&f, 0, 0x380, 1000);
        clock_step(f.clock, 100u << i);
        ck_assert_uint_eq(apic_read(&f, 0, 0x390), 900);
    }
}
END_TEST

START_TEST(divisor_change_keeps_the_present_count) {
    apic_write(&f, 0, 0x3E0, 0xB);
    apic_write(&f, 0, 0x380, 1000000);
    clock_step(f.clock, 400000);
    apic_write(&f, 0, 0x3E0, 0x0);
    ck_assert_uint_eq(apic_read(&f, 0, 0x390), 600000);
    clock_step(f.clock, 200000);
    ck_assert_uint_eq(apic_read(&f, 0, 0x390), 500000);
}
END_TEST

START_TEST(periodic_keeps_its_phase) {
    apic_write(&f, 0, 0x3E0, 0xB);
    apic_write(&f, 0, 0x320, 0x200EE);
    apic_write(&f, 0, 0x380, 1000000);
    for (unsigned i = 0; i < 5; i++) {
        clock_step(f.clock, 1000000);
        ck_assert_int_eq(acknowledge(&f, 0), 0xEE);
        apic_write(&f, 0, 0xB0, 0);
    }
    clock_step(f.clock, 250000);
    ck_assert_uint_eq(apic_read(&f, 0, 0x390), 750000);
}
END_TEST

START_TEST(mode_changes_do_not_disturb_the_count) {
    apic_write(&f, 0, 0x3E0, 0xB);
    apic_write(&f, 0, 0x320, 0xEE);
    apic_write(&f, 0, 0x380, 1000000);
    clock_step(f.clock, 600000);
    apic_write(&f, 0, 0x320, 0x200EE);
    ck_assert_uint_eq(apic_read(&f, 0, 0x390), 400000);
    clock_step(f.clock, 500000);
    ck_assert_uint_eq(apic_read(&f, 0, 0x390), 900000);
    apic_write(&f, 0, 0x320, 0xEE);
    clock_step(f.clock, 900000);
    ck_assert_uint_eq(apic_read(&f, 0, 0x390), 0);
    apic_write(&f, 0, 0x320, 0x200EE); /* stopped stays stopped */
    clock_step(f.clock, 10);
    ck_assert_uint_eq(apic_read(&f, 0, 0x390), 0);
    ck_assert_uint_eq(apic_read(&f, 0, 0x380), 1000000);
}
END_TEST

START_TEST(masked_timer_counts_in_silence) {
    apic_write(&f, 0, 0x3E0, 0xB);
    apic_write(&f, 0, 0x320, 0x300EE);
    apic_write(&f, 0, 0x380, 1000000);
    clock_step(f.clock, 2500000);
    ck_assert(!f.cpu[0].intr);
    ck_assert_uint_eq(apic_read(&f, 0, 0x390), 500000);
    apic_write(&f, 0, 0x320, 0x200EE);
    ck_assert(!f.cpu[0].intr);
    clock_step(f.clock, 500000);
    ck_assert(f.cpu[0].intr);
}
END_TEST

START_TEST(shortest_period_does_not_hang_the_clock) {
    apic_write(&f, 0, 0x3E0, 0xB);
    apic_write(&f, 0, 0x320, 0x200EE);
    apic_write(&f, 0, 0x380, 1);
    clock_step(f.clock, 1000000000);
    ck_assert_int_eq(acknowledge(&f, 0), 0xEE);
}
END_TEST

START_TEST(tsc_deadline_fires_at_the_tsc_and_clears_itself) {
    apic_write(&f, 0, 0x320, 0x400EF);
    ck_assert(msr_write(&f, 0, DEADLINE, 2000000));
    ck_assert_uint_eq(msr_read(&f, 0, DEADLINE), 2000000);
    clock_step(f.clock, 999999);
    ck_assert(!f.cpu[0].intr);
    clock_step(f.clock, 2);
    ck_assert_int_eq(acknowledge(&f, 0), 0xEF);
    ck_assert_uint_eq(msr_read(&f, 0, DEADLINE), 0);
    apic_write(&f, 0, 0xB0, 0);
    apic_write(&f, 0, 0x380, 5); /* ignored in this mode */
    ck_assert_uint_eq(apic_read(&f, 0, 0x380), 0);
}
END_TEST

START_TEST(tsc_deadline_in_the_past_fires_at_once) {
    clock_step(f.clock, 1000);
    apic_write(&f, 0, 0x320, 0x400EF);
    ck_assert(msr_write(&f, 0, DEADLINE, 2000));
    ck_assert(f.cpu[0].intr);
    ck_assert_uint_eq(msr_read(&f, 0, DEADLINE), 0);
}
END_TEST

START_TEST(tsc_deadline_zero_and_mode_change_disarm) {
    apic_write(&f, 0, 0x320, 0x400EF);
    ck_assert(msr_write(&f, 0, DEADLINE, 2000000));
    ck_assert(msr_write(&f, 0, DEADLINE, 0));
    clock_step(f.clock, 2000000);
    ck_assert(!f.cpu[0].intr);
    ck_assert(msr_write(&f, 0, DEADLINE, UINT64_MAX));
    apic_write(&f, 0, 0x320, 0xEF);
    ck_assert_uint_eq(msr_read(&f, 0, DEADLINE), 0);
    ck_assert(msr_write(&f, 0, DEADLINE, 1)); /* ignored in this mode */
    ck_assert(!f.cpu[0].intr);
}
END_TEST

/* ---- Accesses ---- */

START_TEST(odd_accesses_do_no_harm) {
    uint64_t value;
    f.current = 0;
    apic_write(&f, 0, 0x80, 0x42);
    for (unsigned offset = 0; offset < 0x1000; offset++)
        for (unsigned size = 1; size <= 8 && offset + size <= 0x1000; size *= 2) {
            if (size >= 4 && ((offset & 0xF) == 0 || (size == 8 && (offset & 0xF) == 12)))
                continue; /* these hold a whole register */
            bus_write(f.bus, TRAPEZE_MMIO, 0xFEE00000 + offset, size, UINT64_MAX);
            bus_read(f.bus, TRAPEZE_MMIO, 0xFEE00000 + offset, size, &value);
        }
    ck_assert_uint_eq(apic_read(&f, 0, 0x80), 0x42);
    bus_read(f.bus, TRAPEZE_MMIO, 0xFEE00080, 1, &value);
    ck_assert_uint_eq(value, 0x42);
}
END_TEST

START_TEST(garbage_into_every_register_does_no_harm) {
    for (unsigned round = 0; round < 3; round++)
        for (unsigned offset = 0; offset < 0x1000; offset += 16)
            apic_write(&f, round, offset, round == 0 ? 0xFFFFFFFF : 0x9E3779B9u * (offset + round));
    apic_write(&f, 0, 0xF0, 0x1FF);
    ck_assert_uint_eq(apic_read(&f, 0, 0xF0), 0x1FF);
    for (unsigned index = 0; index < 0x100; index++)
        msr_write(&f, 3, 0x800 + index, UINT64_MAX);
    clock_step(f.clock, 1000000);
}
END_TEST

/* Random register, MSR and I/O APIC writes by all processors; the APICs must still work afterwards. */
START_TEST(random_storm_is_survived) {
    static const uint32_t bases[4] = {X2APIC, XAPIC, OFF, 0xFED40800};
    uint32_t random = 12345;
    for (unsigned i = 0; i < 200000; i++) {
        random = random * 1664525 + 1013904223;
        const unsigned cpu = random >> 8 & 3, what = random >> 12 & 15, offset = random >> 16 & 0xFFF;
        random = random * 1664525 + 1013904223;
        if (what < 6)
            apic_write(&f, cpu, offset & 0x3F0, random >> 4);
        else if (what < 10)
            msr_write(&f, cpu, 0x800 + (offset & 0x3F), random >> 12);
        else if (what < 12)
            bus_write(f.bus, TRAPEZE_MMIO, IOAPIC_BASE + (random >> 16 & 0x10), 4, random >> 8);
        else if (what < 14)
            ioapic_set(f.ioapic, offset & 31, random >> 16 & 1);
        else if (what == 14)
            acknowledge(&f, cpu);
        else if ((offset & 31) == 0)
            msr_write(&f, cpu, BASE, bases[random >> 20 & 3]);
        if ((i & 255) == 0)
            clock_step(f.clock, random >> 12);
    }
    apic_bus_reset(f.apic_bus);
    ioapic_reset(f.ioapic);
    apic_enable(&f);
    apic_send(&f, 0, 0x4031, 3);
    ck_assert_int_eq(acknowledge(&f, 3), 0x31);
    ck_assert(!f.cpu[3].intr);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("lapic");
    TCase *plain = tcase_create("without x2APIC"), *tests = tcase_create("lapic");
    tcase_add_checked_fixture(plain, setup_plain, teardown);
    tcase_add_test(plain, x2apic_is_reserved_where_the_model_has_none);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, fixed_ipi_raises_intr_of_the_destination_alone);
    tcase_add_test(tests, shorthands_name_self_all_and_others);
    tcase_add_test(tests, physical_ffh_is_everybody);
    tcase_add_test(tests, logical_flat_matches_any_common_bit);
    tcase_add_test(tests, logical_cluster_matches_cluster_and_common_bit);
    tcase_add_test(tests, lowest_priority_goes_to_the_least_busy_and_takes_turns);
    tcase_add_test(tests, init_sipi_and_nmi_reach_the_processor);
    tcase_add_test(tests, init_keeps_base_and_id);
    tcase_add_test(tests, software_disabled_refuses_fixed_but_takes_nmi);
    tcase_add_test(tests, msi_reaches_its_destination);
    tcase_add_test(tests, lower_class_waits_for_eoi_and_higher_nests);
    tcase_add_test(tests, cr8_masks_classes_up_to_its_own);
    tcase_add_test(tests, illegal_vector_is_an_error_interrupt_once);
    tcase_add_test(tests, illegal_error_vector_does_not_recurse);
    tcase_add_test(tests, reserved_register_is_an_error);
    tcase_add_test(tests, boot_processor_starts_in_virtual_wire_mode);
    tcase_add_test(tests, masked_lint0_keeps_the_8259_out);
    tcase_add_test(tests, extint_comes_before_the_irr);
    tcase_add_test(tests, disabled_apic_is_a_plain_intr_pin);
    tcase_add_test(tests, lint1_nmi_is_an_edge);
    tcase_add_test(tests, level_lint0_fires_again_from_eoi);
    tcase_add_test(tests, apic_base_refuses_illegal_switches);
    tcase_add_test(tests, disabled_page_is_open_bus_and_cr8_works);
    tcase_add_test(tests, relocated_page_is_seen_by_its_processor_alone);
    tcase_add_test(tests, x2apic_registers_are_msrs_and_the_page_goes);
    tcase_add_test(tests, x2apic_refuses_reserved_registers_and_bits);
    tcase_add_test(tests, x2apic_ipis_self_logical_and_broadcast);
    tcase_add_test(tests, id_is_writable_in_xapic_mode_until_the_apic_is_disabled);
    tcase_add_test(tests, one_shot_counts_nanoseconds_and_fires_once);
    tcase_add_test(tests, divisor_slows_the_count);
    tcase_add_test(tests, divisor_change_keeps_the_present_count);
    tcase_add_test(tests, periodic_keeps_its_phase);
    tcase_add_test(tests, mode_changes_do_not_disturb_the_count);
    tcase_add_test(tests, masked_timer_counts_in_silence);
    tcase_add_test(tests, shortest_period_does_not_hang_the_clock);
    tcase_add_test(tests, tsc_deadline_fires_at_the_tsc_and_clears_itself);
    tcase_add_test(tests, tsc_deadline_in_the_past_fires_at_once);
    tcase_add_test(tests, tsc_deadline_zero_and_mode_change_disarm);
    tcase_add_test(tests, odd_accesses_do_no_harm);
    tcase_add_test(tests, garbage_into_every_register_does_no_harm);
    tcase_add_test(tests, random_storm_is_survived);
    suite_add_tcase(suite, plain);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
