/*
 * The pair of 8259A interrupt controllers of a PC, with the edge/level registers of EISA and PIIX (ELCR).
 *
 * Ports: 20h-21h and A0h-A1h with pic_ops (device: &pic->master or &pic->slave), 4D0h and 4D1h with pic_elcr_ops (same
 * devices, one port each).
 */
#ifndef DEVICES_PIC_H
#define DEVICES_PIC_H

#include "devices/bus.h"
#include "devices/irq.h"

/* One 8259A. */
struct pic_chip {
    struct irq_line intr; /* the INT pin */
    uint8_t cascade;      /* inputs that a slave drives: IR2 of the master */
    uint8_t elcr_mask;    /* which inputs can be level-triggered */
    uint8_t elcr;         /* 1: level */
    uint8_t lines;        /* levels of IR7..IR0 */
    uint8_t irr, isr, imr;
    uint8_t vector_base; /* ICW2 */
    uint8_t lowest;      /* the input of lowest priority, 7 at first */
    uint8_t icw4;
    enum { PIC_UNINITIALISED, PIC_ICW2, PIC_ICW3, PIC_ICW4, PIC_READY } stage;
    bool wants_icw4, is_single;
    bool reads_isr, poll, special_mask, rotates_on_aeoi;
    bool intr_level;
};

struct pic {
    struct pic_chip master, slave;
};

extern const struct bus_ops pic_ops, pic_elcr_ops;

/* `intr` is told the level of the master's INT pin. The chips start in the state of pic_reset. */
void pic_init(struct pic *pic, const struct irq_line *intr);
void pic_reset(struct pic *pic);

/* An irq_line.set: target is the struct pic, pin an ISA interrupt 0..15 (2 is the cascade: ignored). */
void pic_set_irq(void *pic, unsigned irq, bool asserted);
static inline struct irq_line pic_line(struct pic *pic, unsigned irq) {
    return (struct irq_line){pic_set_irq, pic, irq};
}

/* The pair of INTA cycles: the vector; of IR7 or IR15 (with no ISR bit set) when the request has gone away. */
int pic_acknowledge(struct pic *pic);

/*
 * Whether an unmasked edge on `irq` still waits to be acknowledged, so that another edge now would be lost. What a
 * timer that must not lose ticks asks.
 */
bool pic_is_waiting(const struct pic *pic, unsigned irq);

#endif
