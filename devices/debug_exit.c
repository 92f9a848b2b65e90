/* isa-debug-exit: the status is (value << 1) | 1, so that it is never 0. Reads answer 0. */
#include "devices/debug_exit.h"

static uint64_t debug_exit_read(void *device, uint64_t offset, unsigned size) {
    (void)device, (void)offset, (void)size;
    return 0;
}

static void debug_exit_write(void *device, uint64_t offset, unsigned size, uint64_t value) {
    const struct debug_exit *device_exit = device;
    (void)offset, (void)size;
    device_exit->exit(device_exit->opaque, (int)((uint32_t)value << 1 | 1));
}

const struct bus_ops debug_exit_ops = {.read = debug_exit_read, .write = debug_exit_write, .max_size = 4};
