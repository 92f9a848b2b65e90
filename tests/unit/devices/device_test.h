/*
 * What tests of chips share: ports driven through bus_ops, and a line that remembers what happened on it.
 */
#ifndef TESTS_DEVICE_TEST_H
#define TESTS_DEVICE_TEST_H

#include <check.h>
#include <stdlib.h>

#include "devices/bus.h"
#include "devices/clock.h"
#include "devices/irq.h"

struct line_probe {
    bool level;
    unsigned rises;
};

static inline void line_probe_set(void *target, unsigned pin, bool asserted) {
    struct line_probe *probe = target;
    (void)pin;
    if (asserted && !probe->level)
        probe->rises++;
    probe->level = asserted;
}

static inline struct irq_line line_probe_line(struct line_probe *probe) {
    return (struct irq_line){line_probe_set, probe, 0};
}

static inline void out8(const struct bus_ops *ops, void *device, uint64_t offset, uint8_t value) {
    ops->write(device, offset, 1, value);
}

static inline uint8_t in8(const struct bus_ops *ops, void *device, uint64_t offset) {
    return (uint8_t)ops->read(device, offset, 1);
}

/* Runs one suite and answers main's exit status. */
static inline int run_suite(Suite *suite) {
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
