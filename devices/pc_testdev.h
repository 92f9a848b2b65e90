/*
 * The device that kvm-unit-tests drive (QEMU's pc-testdev): a register of ports, a piece of memory that is not RAM, and
 * interrupt lines that software moves. The device of every window is the struct pc_testdev.
 */
#ifndef DEVICES_PC_TESTDEV_H
#define DEVICES_PC_TESTDEV_H

#include "devices/bus.h"
#include "devices/irq.h"

/* Where the tests look for it. */
#define PC_TESTDEV_PORT      0xe0   /* 4 ports, any width: pc_testdev_port_ops */
#define PC_TESTDEV_FLUSH     0xe4   /* 4 ports: pc_testdev_flush_ops */
#define PC_TESTDEV_PORT_BYTE 0xe8   /* 1 port of the 4 (E9h is the debug console's): pc_testdev_byte_ops */
#define PC_TESTDEV_IRQ       0x2000 /* PC_TESTDEV_LINES ports: pc_testdev_irq_ops */
#define PC_TESTDEV_LINES     24
#define PC_TESTDEV_MEMORY    0xff000000 /* PC_TESTDEV_BYTES of memory space: pc_testdev_memory_ops */
#define PC_TESTDEV_BYTES     0x10000

struct pc_testdev {
    struct irq_line lines[PC_TESTDEV_LINES];
    /* A write to FLUSH: forget what is cached of the page of guest-physical memory; may be NULL. */
    void (*flush)(void *opaque, guest_physical page);
    void *flush_opaque;
    uint32_t port;
    uint8_t memory[PC_TESTDEV_BYTES];
};

extern const struct bus_ops pc_testdev_port_ops, pc_testdev_flush_ops, pc_testdev_byte_ops, pc_testdev_irq_ops,
    pc_testdev_memory_ops;

/* `lines` are the global system interrupts 0..23. */
void pc_testdev_init(struct pc_testdev *testdev, const struct irq_line lines[PC_TESTDEV_LINES],
                     void (*flush)(void *opaque, guest_physical page), void *flush_opaque);
void pc_testdev_reset(struct pc_testdev *testdev);

#endif
