/*
 * The keyboard controller of a PC, an 8042 with the PS/2 firmware, and what hangs on it: keyboard, mouse, the A20 gate
 * and the processor's reset line.
 *
 * Ports 60h and 64h with i8042_data_ops and i8042_command_ops, one port each; the device is the struct i8042.
 */
#ifndef DEVICES_I8042_H
#define DEVICES_I8042_H

#include "devices/bus.h"
#include "devices/clock.h"
#include "devices/irq.h"
#include "devices/ps2.h"

struct i8042_lines {
    struct irq_line keyboard; /* IRQ1 */
    struct irq_line mouse;    /* IRQ12 */
    struct irq_line a20;      /* level of the A20 gate, high: addresses pass */
    struct irq_line reset;    /* a pulse resets the machine */
};

struct i8042 {
    struct i8042_lines lines;
    struct clock *clock;
    struct clock_timer timer; /* the next byte of a device comes a while after the last one was read */
    uint64_t next_byte_at;    /* ns */
    struct ps2_keyboard keyboard;
    struct ps2_mouse mouse;
    struct ps2_queue replies; /* the controller's own; bytes for the mouse's side are marked in reply_is_aux */
    uint32_t reply_is_aux;    /* a bit for each byte of replies.bytes */
    uint8_t ram[32];          /* 0 is the command byte */
    uint8_t output_port;
    uint8_t command;      /* waits for a byte at port 60h; 0: none */
    uint8_t output;       /* the output buffer */
    bool is_full, is_aux; /* OBF, and whose byte it is */
    bool last_was_command;
    bool is_break; /* F0h was translated away and marks the next code */
};

extern const struct bus_ops i8042_data_ops, i8042_command_ops;

void i8042_init(struct i8042 *controller, struct clock *clock, const struct i8042_lines *lines);
/* Cancels the timer. Under the device lock. */
void i8042_release(struct i8042 *controller);
void i8042_reset(struct i8042 *controller);

/* A key moves; see ps2_keyboard_key. Under the device lock. */
void i8042_key(struct i8042 *controller, unsigned key, bool is_pressed);

#endif
