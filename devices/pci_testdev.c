/*
 * The PCI test device (QEMU's docs/specs/pci-testdev). Header, little-endian: 0 test number (write), 1 width, 4 offset,
 * 8 data, 12 count of writes, 16 name. A test that does not exist has width 0.
 */
#include "devices/pci_testdev.h"

#include <stdlib.h>
#include <string.h>

enum { HEADER_TEST = 0, HEADER_SIZE = 64, NAME = 16 };
enum { TARGETS = 0x80, TARGET_STRIDE = 0x10 }; /* where each test's register is */

struct test {
    const char *name;
    uint8_t width;
    uint32_t data;
};

enum { TESTS = 3 };
static const struct test memory_tests[TESTS] = {
    {"mmio-byte", 1, 0xFA}, {"mmio-word", 2, 0xFACE}, {"mmio-long", 4, 0xFACEB00C}};
static const struct test port_tests[TESTS] = {
    {"pio-byte", 1, 0xFA}, {"pio-word", 2, 0xFACE}, {"pio-long", 4, 0xFACEB00C}};

struct window {
    const struct test *tests;
    unsigned selected; /* TESTS or more: none */
    uint32_t count;
};

struct pci_testdev {
    struct pci_function function;
    struct window memory, ports;
};

static void put32(uint8_t *bytes, uint32_t value) {
    for (unsigned i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(value >> i * 8);
}

static void make_header(const struct window *window, uint8_t header[HEADER_SIZE]) {
    memset(header, 0, HEADER_SIZE);
    if (window->selected >= TESTS)
        return;
    const struct test *test = &window->tests[window->selected];
    header[1] = test->width;
    put32(header + 4, TARGETS + window->selected * TARGET_STRIDE);
    put32(header + 8, test->data);
    put32(header + 12, window->count);
    memcpy(header + NAME, test->name, strlen(test->name));
}

static uint64_t window_read(void *device, uint64_t offset, unsigned size) {
    uint8_t header[HEADER_SIZE];
    uint64_t value = 0;
    make_header(device, header);
    for (unsigned i = 0; i < size && offset + i < HEADER_SIZE; i++)
        value |= (uint64_t)header[offset + i] << i * 8;
    return value;
}

static void window_write(void *device, uint64_t offset, unsigned size, uint64_t value) {
    struct window *window = device;
    if (offset == HEADER_TEST && size == 1) {
        window->selected = (unsigned)value & 0xFF;
        window->count = 0;
    } else if (window->selected < TESTS && offset == TARGETS + window->selected * TARGET_STRIDE &&
               size == window->tests[window->selected].width) {
        window->count++;
    }
}

static const struct bus_ops window_ops = {.read = window_read, .write = window_write, .min_size = 1, .max_size = 4};

void pci_testdev_reset(struct pci_testdev *testdev) {
    pci_function_reset(&testdev->function);
    testdev->memory = (struct window){.tests = memory_tests, .selected = TESTS};
    testdev->ports = (struct window){.tests = port_tests, .selected = TESTS};
}

struct pci_testdev *pci_testdev_create(struct pci_bus *bus, unsigned slot) {
    static const struct pci_identity identity = {.vendor = 0x1B36, .device = 0x0005, .class_code = 0xFF0000};
    struct pci_testdev *testdev = calloc(1, sizeof *testdev);
    if (!testdev)
        return NULL;
    struct pci_function *function = &testdev->function;
    pci_function_init(function, "pci-testdev", &identity);
    function->bar[0] = (struct pci_bar){TRAPEZE_MMIO, .size = 0x1000, .ops = &window_ops, .device = &testdev->memory};
    function->bar[1] = (struct pci_bar){TRAPEZE_PORT, .size = 0x100, .ops = &window_ops, .device = &testdev->ports};
    pci_testdev_reset(testdev);
    if (!pci_plug(bus, function, slot, 0)) {
        free(testdev);
        return NULL;
    }
    return testdev;
}

void pci_testdev_destroy(struct pci_testdev *testdev) {
    if (!testdev)
        return;
    pci_unplug(&testdev->function);
    free(testdev);
}
