/*
 * How a PC tells of x87 errors where CR0.NE is clear: the processor's FERR# pin sets a latch that drives IRQ 13, and a
 * write to port F0h clears it. One port with fpu_error_ops; the device is the struct fpu_error. What port F0h does to
 * the processor's IGNNE# pin is left out: a handler clears the x87's error before it uses the x87 again.
 */
#ifndef DEVICES_FPU_ERROR_H
#define DEVICES_FPU_ERROR_H

#include "devices/bus.h"
#include "devices/irq.h"

struct fpu_error {
    struct irq_line irq;
};

extern const struct bus_ops fpu_error_ops;

void fpu_error_init(struct fpu_error *fpu_error, const struct irq_line *irq);
void fpu_error_reset(struct fpu_error *fpu_error);
/* FERR#, of any processor. Under the device lock. */
void fpu_error_assert(struct fpu_error *fpu_error);

#endif
