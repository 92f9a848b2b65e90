/* See fpu_error.h (82371SB, 2.5.6, coprocessor error). */
#include "devices/fpu_error.h"

static uint64_t fpu_error_read(void *device, uint64_t offset, unsigned size) {
    (void)device, (void)offset, (void)size;
    return 0xff;
}

static void fpu_error_write(void *device, uint64_t offset, unsigned size, uint64_t value) {
    (void)offset, (void)size, (void)value;
    fpu_error_reset(device);
}

const struct bus_ops fpu_error_ops = {.read = fpu_error_read, .write = fpu_error_write, .max_size = 1};

void fpu_error_assert(struct fpu_error *fpu_error) {
    irq_set(&fpu_error->irq, true);
}

void fpu_error_reset(struct fpu_error *fpu_error) {
    irq_set(&fpu_error->irq, false);
}

void fpu_error_init(struct fpu_error *fpu_error, const struct irq_line *irq) {
    *fpu_error = (struct fpu_error){.irq = *irq};
}
