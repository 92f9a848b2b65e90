/*
 * QEMU's isa-debug-exit: a write ends the machine with a status of the guest's choice. Ports iobase to
 * iobase + iosize - 1 with debug_exit_ops; the device is the struct debug_exit.
 */
#ifndef DEVICES_DEBUG_EXIT_H
#define DEVICES_DEBUG_EXIT_H

#include "devices/bus.h"

#define DEBUG_EXIT_PORT 0x501 /* unless told otherwise */
#define DEBUG_EXIT_SIZE 2

struct debug_exit {
    void (*exit)(void *opaque, int status); /* under the device lock, on the writing vCPU's thread */
    void *opaque;
};

extern const struct bus_ops debug_exit_ops;

#endif
