/* The port E9h hack: a write is a character, a read tells that somebody listens. It has no flow control. */
#include "devices/debugcon.h"

#include "devices/backends/char.h"

static uint64_t debugcon_read(void *device, uint64_t offset, unsigned size) {
    (void)offset, (void)size;
    return ((struct debugcon *)device)->readback;
}

static void debugcon_write(void *device, uint64_t offset, unsigned size, uint64_t value) {
    struct debugcon *console = device;
    uint8_t byte = (uint8_t)value;
    (void)offset, (void)size;
    char_write_all(console->backend, &byte, 1);
}

const struct bus_ops debugcon_ops = {.read = debugcon_read, .write = debugcon_write, .max_size = 1};

void debugcon_init(struct debugcon *console, struct char_backend *backend, uint8_t readback) {
    *console = (struct debugcon){backend, readback};
}
