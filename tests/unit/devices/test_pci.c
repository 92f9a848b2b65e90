/* PCI configuration mechanism 1, BARs on the bus, INTx routing, the chipset's functions and pci-testdev. */
#include <string.h>

#include "devices/pci_host.h"
#include "devices/pci_testdev.h"
#include "devices/reset_control.h"
#include "tests/unit/devices/device_test.h"

static struct bus *bus;
static struct clock *test_clock;
static struct acpi_pm *pm;
static struct reset_control reset_control;
static struct pci_host *host;
static bool irq[PCI_HOST_ISA_IRQS];
static uint8_t pam[PCI_HOST_PAM_REGISTERS];
static unsigned resets;

static void set_irq(void *target, unsigned pin, bool asserted) {
    (void)target;
    irq[pin] = asserted;
}

static void pam_changed(void *opaque, const uint8_t value[PCI_HOST_PAM_REGISTERS]) {
    (void)opaque;
    memcpy(pam, value, sizeof pam);
}

static void reset(void *opaque, bool is_hard) {
    (void)opaque;
    resets += is_hard;
}

static void setup(void) {
    bus = bus_create();
    test_clock = clock_create_manual(bus);
    pm = acpi_pm_create(&(struct acpi_pm_config){.clock = test_clock});
    reset_control_init(&reset_control, reset, NULL);
    struct pci_host_config config = {.bus = bus,
                                     .acpi_pm = pm,
                                     .reset_control_ops = &reset_control_ops,
                                     .reset_control = &reset_control,
                                     .pam_changed = pam_changed};
    for (unsigned i = 0; i < PCI_HOST_ISA_IRQS; i++)
        config.isa_irq[i] = (struct irq_line){set_irq, NULL, i};
    host = pci_host_create(&config);
    ck_assert_ptr_nonnull(host);
    memset(irq, 0, sizeof irq);
    resets = 0;
}

static void teardown(void) {
    pci_host_destroy(host);
    acpi_pm_destroy(pm);
    clock_destroy(test_clock);
    bus_destroy(bus);
}

static uint32_t in(unsigned port, unsigned size) {
    uint64_t value;
    bus_read(bus, TRAPEZE_PORT, port, size, &value);
    return (uint32_t)(size == 4 ? value : value & ((1u << size * 8) - 1));
}

static void out(unsigned port, unsigned size, uint32_t value) {
    bus_write(bus, TRAPEZE_PORT, port, size, value);
}

static uint32_t config_read(unsigned slot, unsigned number, unsigned offset, unsigned size) {
    out(0xCF8, 4, 0x80000000u | slot << 11 | number << 8 | (offset & 0xFC));
    return in(0xCFC + (offset & 3), size);
}

static void config_write(unsigned slot, unsigned number, unsigned offset, unsigned size, uint32_t value) {
    out(0xCF8, 4, 0x80000000u | slot << 11 | number << 8 | (offset & 0xFC));
    out(0xCFC + (offset & 3), size, value);
}

/* ---- A device with a memory, a port and a 64-bit BAR ---- */

struct toy {
    struct pci_function function;
    uint64_t written;
};

static uint64_t toy_read(void *device, uint64_t offset, unsigned size) {
    (void)device;
    (void)size;
    return 0x5A00 + offset;
}

static void toy_write(void *device, uint64_t offset, unsigned size, uint64_t value) {
    (void)offset;
    (void)size;
    ((struct toy *)device)->written = value;
}

static const struct bus_ops toy_ops = {.read = toy_read, .write = toy_write};

static void toy_init(struct toy *toy) {
    static const struct pci_identity identity = {
        .vendor = 0x1234, .device = 0x5678, .class_code = 0xFF0000, .revision = 7, .interrupt_pin = 1};
    pci_function_init(&toy->function, "toy", &identity);
    toy->function.bar[0] = (struct pci_bar){TRAPEZE_MMIO, .size = 0x1000, .ops = &toy_ops, .device = toy};
    toy->function.bar[1] = (struct pci_bar){TRAPEZE_PORT, .size = 0x20, .ops = &toy_ops, .device = toy};
    toy->function.bar[2] = (struct pci_bar){TRAPEZE_MMIO,    .size = 0x10000, .is_64bit = true, .is_prefetchable = true,
                                            .ops = &toy_ops, .device = toy};
}

static bool memory_answers(uint64_t address) {
    uint64_t value;
    return bus_read(bus, TRAPEZE_MMIO, address, 4, &value);
}

START_TEST(chipset_functions_have_their_identities) {
    ck_assert_uint_eq(config_read(0, 0, 0, 4), 0x12378086);
    ck_assert_uint_eq(config_read(1, 0, 0, 4), 0x70008086);
    ck_assert_uint_eq(config_read(1, 3, 0, 4), 0x71138086);
    ck_assert_uint_eq(config_read(0, 0, 8, 4), 0x06000002);
    ck_assert_uint_eq(config_read(1, 0, 0x0E, 1), 0x80);
    ck_assert_uint_eq(config_read(1, 0, 0x0A, 2), 0x0601);
}
END_TEST

START_TEST(absent_functions_and_buses_read_as_ones) {
    ck_assert_uint_eq(config_read(2, 0, 0, 4), 0xFFFFFFFF);
    ck_assert_uint_eq(config_read(1, 1, 0, 2), 0xFFFF);
    out(0xCF8, 4, 0x80010000);
    ck_assert_uint_eq(in(0xCFC, 4), 0xFFFFFFFF);
    out(0xCF8, 4, 0x00000000);
    ck_assert_uint_eq(in(0xCFC, 4), 0xFFFFFFFF);
}
END_TEST

START_TEST(address_register_takes_dwords_only) {
    out(0xCF8, 4, 0xFFFFFFFF);
    ck_assert_uint_eq(in(0xCF8, 4), 0x80FFFFFC);
    out(0xCF8, 4, 0x80000000);
    out(0xCF8, 1, 0x55);
    out(0xCFA, 2, 0x5555);
    ck_assert_uint_eq(in(0xCF8, 4), 0x80000000);
    out(0xCF9, 1, 6);
    ck_assert_uint_eq(resets, 1);
    ck_assert_uint_eq(in(0xCF9, 1), 6);
}
END_TEST

START_TEST(bar_tells_its_size_and_moves_on_the_bus) {
    struct toy toy;
    toy_init(&toy);
    ck_assert(pci_plug(pci_host_bus(host), &toy.function, 4, 0));
    config_write(4, 0, 0x10, 4, 0xFFFFFFFF);
    ck_assert_uint_eq(config_read(4, 0, 0x10, 4), 0xFFFFF000);
    config_write(4, 0, 0x14, 4, 0xFFFFFFFF);
    ck_assert_uint_eq(config_read(4, 0, 0x14, 4), 0xFFFFFFE1);
    config_write(4, 0, 0x18, 4, 0xFFFFFFFF);
    config_write(4, 0, 0x1C, 4, 0xFFFFFFFF);
    ck_assert_uint_eq(config_read(4, 0, 0x18, 4), 0xFFFF000C);
    ck_assert_uint_eq(config_read(4, 0, 0x1C, 4), 0xFFFFFFFF);
    config_write(4, 0, 0x10, 4, 0xC0000000);
    ck_assert(!memory_answers(0xC0000000));
    config_write(4, 0, 0x04, 2, 3);
    ck_assert(memory_answers(0xC0000FFC));
    config_write(4, 0, 0x10, 4, 0xC0004000);
    ck_assert(!memory_answers(0xC0000000));
    ck_assert(memory_answers(0xC0004000));
    config_write(4, 0, 0x14, 4, 0xC000);
    ck_assert_uint_eq(in(0xC004, 2), 0x5A04);
    config_write(4, 0, 0x18, 4, 0);
    config_write(4, 0, 0x1C, 4, 0x12);
    ck_assert(memory_answers(UINT64_C(0x1200000000)));
    config_write(4, 0, 0x04, 2, 0);
    ck_assert(!memory_answers(0xC0004000));
    ck_assert_uint_eq(in(0xC004, 2), 0xFFFF);
    pci_unplug(&toy.function);
}
END_TEST

START_TEST(sizing_while_decoding_is_harmless) {
    struct toy toy;
    toy_init(&toy);
    ck_assert(pci_plug(pci_host_bus(host), &toy.function, 4, 0));
    config_write(4, 0, 0x10, 4, 0xC0000000);
    config_write(4, 0, 0x04, 2, 3);
    config_write(4, 0, 0x10, 4, 0xFFFFFFFF);
    ck_assert(!memory_answers(0xFFFFF000));
    config_write(4, 0, 0x10, 4, 0xC0000000);
    ck_assert(memory_answers(0xC0000000));
    config_write(4, 0, 0x14, 4, 0xFFFFFFFF);
    ck_assert_uint_eq(in(0xFFE0, 2), 0xFFFF);
    pci_unplug(&toy.function);
    ck_assert(!memory_answers(0xC0000000));
}
END_TEST

START_TEST(overlapping_bar_appears_when_its_place_is_free) {
    struct toy first, second;
    toy_init(&first);
    toy_init(&second);
    ck_assert(pci_plug(pci_host_bus(host), &first.function, 4, 0));
    ck_assert(pci_plug(pci_host_bus(host), &second.function, 5, 0));
    ck_assert(!pci_plug(pci_host_bus(host), &second.function, 4, 0));
    config_write(4, 0, 0x10, 4, 0xC0000000);
    config_write(5, 0, 0x10, 4, 0xC0000000);
    config_write(4, 0, 0x04, 2, 2);
    config_write(5, 0, 0x04, 2, 2);
    bus_write(bus, TRAPEZE_MMIO, 0xC0000000, 4, 1);
    config_write(4, 0, 0x10, 4, 0xC0100000);
    second.written = 0;
    bus_write(bus, TRAPEZE_MMIO, 0xC0000000, 4, 77);
    ck_assert_uint_eq(second.written, 77);
    ck_assert_uint_eq(first.written, 1);
    pci_unplug(&first.function);
    pci_unplug(&second.function);
}
END_TEST

START_TEST(badly_described_bars_are_refused) {
    struct toy toy;
    toy_init(&toy);
    toy.function.bar[0].size = 0x1800;
    ck_assert(!pci_plug(pci_host_bus(host), &toy.function, 4, 0));
    toy_init(&toy);
    toy.function.bar[3].size = 16;
    toy.function.bar[3].ops = &toy_ops;
    ck_assert(!pci_plug(pci_host_bus(host), &toy.function, 4, 0));
    ck_assert(!pci_plug(pci_host_bus(host), &toy.function, 32, 0));
}
END_TEST

START_TEST(intx_goes_through_pirq_routing) {
    struct toy toy, other;
    toy_init(&toy);
    toy_init(&other);
    ck_assert(pci_plug(pci_host_bus(host), &toy.function, 4, 0));   /* INTA: PIRQ D */
    ck_assert(pci_plug(pci_host_bus(host), &other.function, 8, 0)); /* the same */
    pci_set_intx(&toy.function, true);
    ck_assert(!irq[11]);
    config_write(1, 0, 0x63, 1, 11);
    ck_assert(irq[11]);
    pci_set_intx(&other.function, true);
    pci_set_intx(&toy.function, false);
    ck_assert(irq[11]);
    config_write(1, 0, 0x63, 1, 10);
    ck_assert(irq[10] && !irq[11]);
    pci_set_intx(&other.function, false);
    ck_assert(!irq[10]);
    pci_unplug(&toy.function);
    pci_unplug(&other.function);
}
END_TEST

START_TEST(intx_disable_lowers_the_line_and_status_tells) {
    struct toy toy;
    toy_init(&toy);
    ck_assert(pci_plug(pci_host_bus(host), &toy.function, 1, 1)); /* INTA: PIRQ A */
    config_write(1, 0, 0x60, 1, 5);
    pci_set_intx(&toy.function, true);
    ck_assert(irq[5]);
    config_write(1, 1, 0x04, 2, 0x400);
    ck_assert(!irq[5]);
    ck_assert_uint_eq(config_read(1, 1, 0x06, 2) & 8, 8);
    config_write(1, 1, 0x04, 2, 0);
    ck_assert(irq[5]);
    pci_unplug(&toy.function);
    ck_assert(!irq[5]);
}
END_TEST

START_TEST(pmbase_places_the_acpi_block) {
    ck_assert_uint_eq(config_read(1, 3, 0x40, 4), 1);
    config_write(1, 3, 0x40, 4, 0xFFFFB001);
    ck_assert_uint_eq(config_read(1, 3, 0x40, 4), 0xB001);
    ck_assert_uint_eq(in(0xB004, 2), 0xFFFF);
    config_write(1, 3, 0x80, 1, 1);
    ck_assert_uint_eq(in(0xB004, 2), 0);
    config_write(1, 3, 0x40, 4, 0x601);
    ck_assert_uint_eq(in(0xB004, 2), 0xFFFF);
    ck_assert_uint_eq(in(0x604, 2), 0);
}
END_TEST

START_TEST(pam_writes_are_told) {
    config_write(0, 0, 0x59, 1, 0xFF);
    config_write(0, 0, 0x5C, 4, 0xFFFFFFFF);
    ck_assert_uint_eq(pam[0], 0x30);
    ck_assert_uint_eq(pam[6], 0x33);
    ck_assert_uint_eq(pam[1], 0);
    pci_host_reset(host);
    ck_assert_uint_eq(pam[6], 0);
}
END_TEST

static const struct pci_host_setup host_setup = {
    .pm_base = 0x600,
    .pirq_irq = {10, 10, 11, 11},
    .memory_base = 0xC0000000,
    .memory_end = 0xFEC00000,
    .port_base = 0xC000,
    .port_end = 0x10000,
};

START_TEST(set_up_leaves_what_firmware_leaves) {
    struct toy toy, other;
    toy_init(&toy);
    toy_init(&other);
    ck_assert(pci_plug(pci_host_bus(host), &toy.function, 4, 0));
    ck_assert(pci_plug(pci_host_bus(host), &other.function, 5, 0));
    pci_host_set_up(host, &host_setup);
    ck_assert_uint_eq(in(0x604, 2), 0);
    ck_assert_uint_eq(config_read(4, 0, 0x3C, 1), 11);
    ck_assert_uint_eq(config_read(5, 0, 0x3C, 1), 10);
    ck_assert_uint_eq(config_read(4, 0, 0x18, 4), 0xC000000C);
    ck_assert_uint_eq(config_read(5, 0, 0x18, 4), 0xC001000C);
    ck_assert_uint_eq(config_read(4, 0, 0x10, 4), 0xC0020000);
    ck_assert_uint_eq(config_read(5, 0, 0x14, 4), 0xC021);
    ck_assert(memory_answers(0xC0021000));
    ck_assert_uint_eq(in(0xC020, 2), 0x5A00);
    pci_host_reset(host);
    ck_assert(!memory_answers(0xC0021000));
    ck_assert_uint_eq(config_read(4, 0, 0x10, 4), 0);
    pci_unplug(&toy.function);
    pci_unplug(&other.function);
}
END_TEST

/* Runs the tests of one window as a guest does; the number of tests that counted all their writes. */
static unsigned run_testdev(enum trapeze_space space, uint64_t base) {
    unsigned passed = 0;
    for (unsigned test = 0; test < 256; test++) {
        uint64_t width, offset, data, count;
        bus_write(bus, space, base, 1, test);
        bus_read(bus, space, base + 1, 1, &width);
        if (width != 1 && width != 2 && width != 4)
            break;
        bus_read(bus, space, base + 4, 4, &offset);
        bus_read(bus, space, base + 8, 4, &data);
        for (unsigned i = 0; i < 16; i++)
            bus_write(bus, space, base + offset, (unsigned)width, data);
        bus_write(bus, space, base + offset, width == 4 ? 1 : 4, data); /* the wrong width */
        bus_read(bus, space, base + 12, 4, &count);
        passed += count == 16;
    }
    return passed;
}

START_TEST(testdev_counts_writes_of_its_tests) {
    struct pci_testdev *testdev = pci_testdev_create(pci_host_bus(host), 3);
    ck_assert_ptr_nonnull(testdev);
    ck_assert_ptr_null(pci_testdev_create(pci_host_bus(host), 3));
    pci_host_set_up(host, &host_setup);
    ck_assert_uint_eq(config_read(3, 0, 0, 4), 0x00051B36);
    ck_assert_uint_eq(run_testdev(TRAPEZE_MMIO, config_read(3, 0, 0x10, 4)), 3);
    ck_assert_uint_eq(run_testdev(TRAPEZE_PORT, config_read(3, 0, 0x14, 4) & ~3u), 3);
    pci_testdev_destroy(testdev);
    ck_assert_uint_eq(config_read(3, 0, 0, 4), 0xFFFFFFFF);
}
END_TEST

START_TEST(garbage_into_configuration_does_no_harm) {
    struct toy toy;
    toy_init(&toy);
    ck_assert(pci_plug(pci_host_bus(host), &toy.function, 4, 0));
    uint32_t random = 1;
    for (unsigned i = 0; i < 200000; i++) {
        random = random * 1664525 + 1013904223;
        static const unsigned functions[4] = {0 << 3, 1 << 3, 1 << 3 | 3, 4 << 3};
        const unsigned where = functions[random >> 8 & 3], size = 1u << (random >> 10) % 3;
        const unsigned offset = (random >> 16 & 0xFF) & ~(size - 1);
        random = random * 1664525 + 1013904223;
        config_write(where >> 3, where & 7, offset, size, random);
    }
    ck_assert_uint_eq(config_read(0, 0, 0, 4), 0x12378086);
    pci_unplug(&toy.function);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("pci");
    TCase *tests = tcase_create("pci");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, chipset_functions_have_their_identities);
    tcase_add_test(tests, absent_functions_and_buses_read_as_ones);
    tcase_add_test(tests, address_register_takes_dwords_only);
    tcase_add_test(tests, bar_tells_its_size_and_moves_on_the_bus);
    tcase_add_test(tests, sizing_while_decoding_is_harmless);
    tcase_add_test(tests, overlapping_bar_appears_when_its_place_is_free);
    tcase_add_test(tests, badly_described_bars_are_refused);
    tcase_add_test(tests, intx_goes_through_pirq_routing);
    tcase_add_test(tests, intx_disable_lowers_the_line_and_status_tells);
    tcase_add_test(tests, pmbase_places_the_acpi_block);
    tcase_add_test(tests, pam_writes_are_told);
    tcase_add_test(tests, set_up_leaves_what_firmware_leaves);
    tcase_add_test(tests, testdev_counts_writes_of_its_tests);
    tcase_add_test(tests, garbage_into_configuration_does_no_harm);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
