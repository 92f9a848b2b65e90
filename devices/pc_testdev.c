/* pc-testdev, as the tests of kvm-unit-tests (lib/x86, x86/emulator.c, x86/ioapic.c) use it. */
#include "devices/pc_testdev.h"

#include <string.h>

static uint32_t mask_of(unsigned size) {
    return size >= 4 ? UINT32_MAX : (1u << 8 * size) - 1;
}

static uint64_t port_read(void *device, uint64_t offset, unsigned size) {
    return ((struct pc_testdev *)device)->port >> 8 * (offset & 3) & mask_of(size);
}

static void port_write(void *device, uint64_t offset, unsigned size, uint64_t value) {
    struct pc_testdev *testdev = device;
    unsigned shift = 8 * (offset & 3);
    uint32_t mask = mask_of(size) << shift;
    testdev->port = (testdev->port & ~mask) | ((uint32_t)value << shift & mask);
}

static uint64_t read_nothing(void *device, uint64_t offset, unsigned size) {
    (void)device, (void)offset, (void)size;
    return 0;
}

static void flush_write(void *device, uint64_t offset, unsigned size, uint64_t value) {
    const struct pc_testdev *testdev = device;
    (void)offset, (void)size;
    if (testdev->flush)
        testdev->flush(testdev->flush_opaque, guest_physical_at(value & ~UINT64_C(0xfff)));
}

static void irq_write(void *device, uint64_t offset, unsigned size, uint64_t value) {
    const struct pc_testdev *testdev = device;
    (void)size;
    irq_set(&testdev->lines[offset], value != 0);
}

static uint64_t memory_read(void *device, uint64_t offset, unsigned size) {
    uint64_t value = 0;
    memcpy(&value, ((struct pc_testdev *)device)->memory + offset, size);
    return value;
}

static void memory_write(void *device, uint64_t offset, unsigned size, uint64_t value) {
    memcpy(((struct pc_testdev *)device)->memory + offset, &value, size);
}

const struct bus_ops pc_testdev_port_ops = {.read = port_read, .write = port_write, .max_size = 4};
const struct bus_ops pc_testdev_byte_ops = {.read = port_read, .write = port_write, .max_size = 1};
const struct bus_ops pc_testdev_flush_ops = {.read = read_nothing, .write = flush_write, .max_size = 4};
const struct bus_ops pc_testdev_irq_ops = {.read = read_nothing, .write = irq_write, .max_size = 1};
const struct bus_ops pc_testdev_memory_ops = {.read = memory_read, .write = memory_write};

void pc_testdev_reset(struct pc_testdev *testdev) {
    testdev->port = 0;
    memset(testdev->memory, 0, sizeof(testdev->memory));
    for (unsigned i = 0; i < PC_TESTDEV_LINES; i++)
        irq_set(&testdev->lines[i], false);
}

void pc_testdev_init(struct pc_testdev *testdev, const struct irq_line lines[PC_TESTDEV_LINES],
                     void (*flush)(void *opaque, guest_physical page), void *flush_opaque) {
    memset(testdev, 0, sizeof(*testdev));
    memcpy(testdev->lines, lines, sizeof(testdev->lines));
    testdev->flush = flush;
    testdev->flush_opaque = flush_opaque;
}
