/*
 * A 16550A serial port. Eight ports with uart_ops; the device is the struct uart.
 */
#ifndef DEVICES_UART_H
#define DEVICES_UART_H

#include "devices/bus.h"
#include "devices/clock.h"
#include "devices/irq.h"

struct char_backend;

#define UART_FIFO 16

struct uart {
    struct irq_line irq;
    struct char_backend *backend;
    struct clock *clock;
    struct clock_timer timeout; /* of characters left in the receive FIFO */
    uint16_t divisor;
    uint8_t ier, fcr, lcr, mcr, lsr, msr, scr; /* lsr: the bits that are not computed: OE, and errors of the top byte */
    bool thre_pending;                         /* THR became empty and IIR did not tell it yet */
    bool has_timed_out;
    uint8_t rx[UART_FIFO], rx_errors[UART_FIFO]; /* rings; without FIFO one byte is used */
    uint8_t rx_at, rx_count;
    uint8_t last_rx;       /* what RBR reads as while it is empty */
    uint8_t tx[UART_FIFO]; /* waits for a backend that is full */
    uint8_t tx_count;
};

extern const struct bus_ops uart_ops;

/* `backend` (may be NULL: nothing is plugged in) gets connected to the port; it outlives the uart. Device lock held, or
   no thread runs yet. */
void uart_init(struct uart *uart, struct clock *clock, const struct irq_line *irq, struct char_backend *backend);
/* Cancels the timer and disconnects the backend. Under the device lock. */
void uart_release(struct uart *uart);
void uart_reset(struct uart *uart);

#endif
