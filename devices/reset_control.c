/* The reset control register of the PIIX3 (82371SB data sheet, 3.1.7): bit 2 starts a reset, bit 1 chooses its kind. */
#include "devices/reset_control.h"

enum { SYSTEM_RESET = 1 << 1, RESET_CPU = 1 << 2 };

static uint64_t control_read(void *device, uint64_t offset, unsigned size) {
    (void)offset;
    (void)size;
    return ((const struct reset_control *)device)->value;
}

static void control_write(void *device, uint64_t offset, unsigned size, uint64_t value) {
    struct reset_control *control = device;
    (void)offset;
    (void)size;
    const bool is_rise = (value & RESET_CPU) && !(control->value & RESET_CPU);
    control->value = value & (SYSTEM_RESET | RESET_CPU);
    if (is_rise && control->reset)
        control->reset(control->opaque, value & SYSTEM_RESET);
}

const struct bus_ops reset_control_ops = {.read = control_read, .write = control_write, .min_size = 1, .max_size = 1};

void reset_control_reset(struct reset_control *control) {
    control->value = 0;
}

void reset_control_init(struct reset_control *control, void (*reset)(void *opaque, bool is_hard), void *opaque) {
    *control = (struct reset_control){.reset = reset, .opaque = opaque};
}
