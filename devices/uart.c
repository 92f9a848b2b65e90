/*
 * PC16550D universal asynchronous receiver/transmitter (National Semiconductor TL/C/8652), clocked with 1.8432 MHz.
 *
 * Characters leave at once, whatever the divisor says, and arrive as fast as software takes them; only the time-out of
 * the receive FIFO runs in character times. OUT2 gates the interrupt, as every PC wires it.
 */
#include "devices/uart.h"

#include <string.h>

#include "devices/backends/char.h"

enum {
    IER_RDA = 0x01,
    IER_THRE = 0x02,
    IER_RLS = 0x04,
    IER_MS = 0x08,
    IIR_NONE = 0x01,
    IIR_MS = 0x00,
    IIR_THRE = 0x02,
    IIR_RDA = 0x04,
    IIR_RLS = 0x06,
    IIR_TIMEOUT = 0x0c,
    FCR_ENABLE = 0x01,
    FCR_CLEAR_RX = 0x02,
    FCR_CLEAR_TX = 0x04,
    LCR_BREAK = 0x40,
    LCR_DLAB = 0x80,
    MCR_DTR = 0x01,
    MCR_RTS = 0x02,
    MCR_OUT1 = 0x04,
    MCR_OUT2 = 0x08,
    MCR_LOOP = 0x10,
    LSR_DR = 0x01,
    LSR_OE = 0x02,
    LSR_PE = 0x04,
    LSR_FE = 0x08,
    LSR_BI = 0x10,
    LSR_THRE = 0x20,
    LSR_TEMT = 0x40,
    LSR_FIFO_ERROR = 0x80,
    LSR_ERRORS = LSR_OE | LSR_PE | LSR_FE | LSR_BI,
    MSR_TERI = 0x04,
    MSR_CTS = 0x10,
    MSR_DSR = 0x20,
    MSR_RI = 0x40,
    MSR_DCD = 0x80,
};

static bool has_fifo(const struct uart *uart) {
    return uart->fcr & FCR_ENABLE;
}

static unsigned rx_capacity(const struct uart *uart) {
    return has_fifo(uart) ? UART_FIFO : 1;
}

static unsigned rx_trigger(const struct uart *uart) {
    static const uint8_t levels[4] = {1, 4, 8, 14};
    return has_fifo(uart) ? levels[uart->fcr >> 6] : 1;
}

/* ---- Interrupts ------------------------------------------------------------------------------------------------ */

/* The pending interrupt of highest priority, as IIR bits 3:0 tell it. */
static uint8_t interrupt_id(const struct uart *uart) {
    if (uart->ier & IER_RLS && uart->lsr & LSR_ERRORS)
        return IIR_RLS;
    if (uart->ier & IER_RDA && uart->rx_count >= rx_trigger(uart))
        return IIR_RDA;
    if (uart->ier & IER_RDA && uart->has_timed_out)
        return IIR_TIMEOUT;
    if (uart->ier & IER_THRE && uart->thre_pending)
        return IIR_THRE;
    if (uart->ier & IER_MS && uart->msr & 0x0f)
        return IIR_MS;
    return IIR_NONE;
}

static void update(struct uart *uart) {
    /* In loopback the modem outputs, OUT2 among them, are forced inactive. */
    bool is_gated_on = (uart->mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2;
    irq_set(&uart->irq, is_gated_on && interrupt_id(uart) != IIR_NONE);
}

/* ---- Receiver -------------------------------------------------------------------------------------------------- */

/* The errors of a character show when it gets to the top of the FIFO. */
static void show_top_errors(struct uart *uart) {
    if (uart->rx_count)
        uart->lsr |= uart->rx_errors[uart->rx_at];
}

/* Four character times without traffic raise the time-out interrupt (8.4.3 of the data sheet's FIFO description). */
static void restart_timeout(struct uart *uart) {
    uart->has_timed_out = false;
    if (!uart->rx_count || !has_fifo(uart)) {
        clock_timer_cancel(&uart->timeout);
        return;
    }
    unsigned data_bits = 5 + (uart->lcr & 3), parity = uart->lcr >> 3 & 1, stop = 1 + (uart->lcr >> 2 & 1);
    uint64_t bits = UINT64_C(4) * (1 + data_bits + parity + stop);
    uint64_t divisor = uart->divisor ? uart->divisor : 1;
    clock_timer_arm(&uart->timeout, clock_now(uart->clock) + bits * divisor * 16 * 1000000000 / 1843200);
}

static void timed_out(void *opaque) {
    struct uart *uart = opaque;
    uart->has_timed_out = true;
    update(uart);
}

static void receive_byte(struct uart *uart, uint8_t byte, uint8_t errors) {
    if (uart->rx_count == rx_capacity(uart)) {
        uart->lsr |= LSR_OE;
        if (!has_fifo(uart)) /* the newer character overwrites RBR; a full FIFO keeps what it has */
            uart->rx[uart->rx_at] = byte;
        return;
    }
    unsigned at = (uart->rx_at + uart->rx_count++) % UART_FIFO;
    uart->rx[at] = byte;
    uart->rx_errors[at] = errors;
    if (uart->rx_count == 1)
        show_top_errors(uart);
}

static void clear_rx(struct uart *uart) {
    uart->rx_count = 0;
    restart_timeout(uart);
}

static uint8_t read_rbr(struct uart *uart) {
    if (!uart->rx_count)
        return uart->last_rx;
    uart->last_rx = uart->rx[uart->rx_at];
    uart->rx_at = (uint8_t)((uart->rx_at + 1) % UART_FIFO);
    uart->rx_count--;
    show_top_errors(uart);
    restart_timeout(uart);
    update(uart);
    if (!uart->rx_count && uart->backend && !(uart->mcr & MCR_LOOP))
        char_accept_input(uart->backend);
    return uart->last_rx;
}

static size_t backend_room(void *opaque) {
    const struct uart *uart = opaque;
    return uart->mcr & MCR_LOOP ? 0 : rx_capacity(uart) - uart->rx_count;
}

static void backend_receive(void *opaque, const uint8_t *bytes, size_t count) {
    struct uart *uart = opaque;
    for (size_t i = 0; i < count; i++)
        receive_byte(uart, bytes[i], 0);
    restart_timeout(uart);
    update(uart);
}

/* ---- Transmitter ----------------------------------------------------------------------------------------------- */

static bool thr_is_empty(const struct uart *uart) {
    return uart->tx_count == 0;
}

/* Sends what waits; the backend may take a part. It may also call backend_writable from within: hence the copy. */
static void transmit(struct uart *uart) {
    uint8_t waiting[UART_FIFO];
    size_t count = uart->tx_count;
    memcpy(waiting, uart->tx, count);
    uart->tx_count = 0;
    size_t sent = uart->backend ? char_write(uart->backend, waiting, count) : count;
    uart->tx_count = (uint8_t)(count - sent);
    memcpy(uart->tx, waiting + sent, count - sent);
    if (thr_is_empty(uart))
        uart->thre_pending = true;
}

static void write_thr(struct uart *uart, uint8_t byte) {
    uart->thre_pending = false;
    update(uart); /* an interrupt controller that wants edges must see the line fall */
    if (uart->mcr & MCR_LOOP) {
        receive_byte(uart, byte, 0);
        restart_timeout(uart);
        uart->thre_pending = true;
    } else {
        unsigned capacity = has_fifo(uart) ? UART_FIFO : 1;
        if (uart->tx_count == capacity) /* written although THRE was 0: the last one is lost */
            uart->tx_count--;
        uart->tx[uart->tx_count++] = byte;
        transmit(uart);
    }
    update(uart);
}

static void backend_writable(void *opaque) {
    struct uart *uart = opaque;
    if (thr_is_empty(uart))
        return;
    transmit(uart);
    update(uart);
}

/* ---- Modem lines ----------------------------------------------------------------------------------------------- */

/* Sets MSR bits 7:4 and notes in 3:0 what changed; TERI is for the trailing edge of RI alone. */
static void set_modem_lines(struct uart *uart, uint8_t lines) {
    uint8_t changed = (uint8_t)((uart->msr ^ lines) >> 4);
    if (lines & MSR_RI)
        changed &= (uint8_t)~MSR_TERI;
    uart->msr = (uint8_t)((uart->msr & 0x0f) | changed | lines);
}

static void update_modem_lines(struct uart *uart) {
    if (!(uart->mcr & MCR_LOOP)) {
        set_modem_lines(uart, uart->backend ? MSR_DCD | MSR_DSR | MSR_CTS : 0);
        return;
    }
    set_modem_lines(uart, (uint8_t)((uart->mcr & MCR_RTS ? MSR_CTS : 0) | (uart->mcr & MCR_DTR ? MSR_DSR : 0) |
                                    (uart->mcr & MCR_OUT1 ? MSR_RI : 0) | (uart->mcr & MCR_OUT2 ? MSR_DCD : 0)));
}

static void backend_event(void *opaque, enum char_event event) {
    struct uart *uart = opaque;
    if (event != CHAR_BREAK || uart->mcr & MCR_LOOP)
        return;
    receive_byte(uart, 0, LSR_BI);
    restart_timeout(uart);
    update(uart);
}

/* ---- Registers ------------------------------------------------------------------------------------------------- */

static uint8_t read_iir(struct uart *uart) {
    uint8_t id = interrupt_id(uart);
    if (id == IIR_THRE) {
        uart->thre_pending = false;
        update(uart);
    }
    return id | (has_fifo(uart) ? 0xc0 : 0);
}

static uint8_t read_lsr(struct uart *uart) {
    uint8_t value = uart->lsr;
    value |= uart->rx_count ? LSR_DR : 0;
    value |= thr_is_empty(uart) ? LSR_THRE | LSR_TEMT : 0;
    for (unsigned i = 0; i < uart->rx_count && has_fifo(uart); i++)
        if (uart->rx_errors[(uart->rx_at + i) % UART_FIFO])
            value |= LSR_FIFO_ERROR;
    uart->lsr = 0;
    if (uart->rx_count) /* told once; what stays in the FIFO is data */
        uart->rx_errors[uart->rx_at] = 0;
    update(uart);
    return value;
}

static uint8_t read_msr(struct uart *uart) {
    uint8_t value = uart->msr;
    uart->msr &= 0xf0;
    update(uart);
    return value;
}

static uint64_t uart_read(void *device, uint64_t offset, unsigned size) {
    struct uart *uart = device;
    bool is_divisor = uart->lcr & LCR_DLAB;
    (void)size;
    switch (offset) {
    case 0:
        return is_divisor ? uart->divisor & 0xff : read_rbr(uart);
    case 1:
        return is_divisor ? uart->divisor >> 8 : uart->ier;
    case 2:
        return read_iir(uart);
    case 3:
        return uart->lcr;
    case 4:
        return uart->mcr;
    case 5:
        return read_lsr(uart);
    case 6:
        return read_msr(uart);
    default:
        return uart->scr;
    }
}

static void write_ier(struct uart *uart, uint8_t value) {
    /* Enabling the transmitter's interrupt while THR is empty raises it at once. */
    if (value & ~uart->ier & IER_THRE && thr_is_empty(uart))
        uart->thre_pending = true;
    uart->ier = value & 0x0f;
    update(uart);
}

static void write_fcr(struct uart *uart, uint8_t value) {
    bool is_switched = (value ^ uart->fcr) & FCR_ENABLE;
    if (is_switched)
        value |= FCR_CLEAR_RX | FCR_CLEAR_TX;
    if (value & FCR_CLEAR_TX) {
        uart->tx_count = 0;
        uart->thre_pending = true;
    }
    uart->fcr = value & FCR_ENABLE ? value & 0xc9 : 0; /* the other bits count only with the FIFO on */
    if (value & FCR_CLEAR_RX)
        clear_rx(uart);
    update(uart);
    if (uart->backend)
        char_accept_input(uart->backend);
}

static void write_mcr(struct uart *uart, uint8_t value) {
    bool leaves_loop = uart->mcr & ~value & MCR_LOOP;
    uart->mcr = value & 0x1f;
    update_modem_lines(uart);
    update(uart);
    if (leaves_loop && uart->backend)
        char_accept_input(uart->backend);
}

static void write_lcr(struct uart *uart, uint8_t value) {
    bool begins_break = value & ~uart->lcr & LCR_BREAK;
    uart->lcr = value;
    if (begins_break && uart->mcr & MCR_LOOP) {
        receive_byte(uart, 0, LSR_BI);
        update(uart);
    }
}

static void uart_write(void *device, uint64_t offset, unsigned size, uint64_t wide) {
    struct uart *uart = device;
    uint8_t value = (uint8_t)wide;
    bool is_divisor = uart->lcr & LCR_DLAB;
    (void)size;
    switch (offset) {
    case 0:
        if (is_divisor)
            uart->divisor = (uint16_t)((uart->divisor & 0xff00) | value);
        else
            write_thr(uart, value);
        break;
    case 1:
        if (is_divisor)
            uart->divisor = (uint16_t)((uart->divisor & 0x00ff) | value << 8);
        else
            write_ier(uart, value);
        break;
    case 2:
        write_fcr(uart, value);
        break;
    case 3:
        write_lcr(uart, value);
        break;
    case 4:
        write_mcr(uart, value);
        break;
    case 7:
        uart->scr = value;
        break;
    default: /* LSR and MSR are written in factory tests only */
        break;
    }
}

const struct bus_ops uart_ops = {.read = uart_read, .write = uart_write, .max_size = 1};

/* ---- Life ------------------------------------------------------------------------------------------------------ */

/* Master reset (table II of the data sheet). The divisor, SCR and the characters on their way out survive. */
void uart_reset(struct uart *uart) {
    uart->ier = uart->fcr = uart->lcr = uart->mcr = uart->lsr = 0;
    uart->thre_pending = false;
    clear_rx(uart);
    update_modem_lines(uart);
    uart->msr &= 0xf0;
    update(uart);
}

void uart_init(struct uart *uart, struct clock *clock, const struct irq_line *irq, struct char_backend *backend) {
    memset(uart, 0, sizeof(*uart));
    uart->clock = clock;
    uart->irq = *irq;
    uart->backend = backend;
    uart->divisor = 12; /* 9600 baud */
    clock_timer_init(&uart->timeout, clock, timed_out, uart);
    uart_reset(uart);
    const struct char_frontend frontend = {backend_room, backend_receive, backend_writable, backend_event, uart};
    if (backend)
        char_connect(backend, &frontend);
}

void uart_release(struct uart *uart) {
    static const struct char_frontend nobody = {0};
    clock_timer_cancel(&uart->timeout);
    if (uart->backend)
        char_connect(uart->backend, &nobody);
}
