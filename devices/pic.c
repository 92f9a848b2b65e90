/*
 * Two cascaded 8259A (Intel 231468-003) with ELCR (82371SB, 4D0h/4D1h).
 *
 * As in the PIIX, ICW1.LTIM is ignored: the ELCR says which inputs are levels. Left out: the 8080 mode (ICW4.uPM = 0
 * behaves as 8086 mode) and buffered mode, which no PC wires. Unlike the discrete chip, an edge stays latched when its
 * input falls before INTA, so that a pulse is enough for an interrupt.
 */
#include "devices/pic.h"

#include <string.h>

enum {
    ICW1_IC4 = 0x01,
    ICW1_SNGL = 0x02,
    ICW1 = 0x10, /* D4 tells ICW1 from OCW2 and OCW3 */
    ICW4_AEOI = 0x02,
    ICW4_SFNM = 0x10,
    OCW3 = 0x08,
    OCW3_RIS = 0x01,
    OCW3_RR = 0x02,
    OCW3_P = 0x04,
    OCW3_SMM = 0x20,
    OCW3_ESMM = 0x40,
};

static uint8_t bit_of(unsigned input) {
    return (uint8_t)(1u << input);
}

/* 0 for the highest priority of the bits, 7 for the lowest, 8 for none. */
static unsigned priority_of(const struct pic_chip *chip, uint8_t bits) {
    unsigned priority = 0;
    while (priority < 8 && !(bits & bit_of((chip->lowest + 1 + priority) & 7)))
        priority++;
    return priority;
}

static unsigned input_of(const struct pic_chip *chip, unsigned priority) {
    return (chip->lowest + 1 + priority) & 7;
}

/* The input whose request gets through mask and priority, or -1. */
static int requesting_input(const struct pic_chip *chip) {
    if (chip->stage != PIC_READY)
        return -1;
    uint8_t in_service = chip->isr;
    if (chip->special_mask)
        in_service &= (uint8_t)~chip->imr;
    if (chip->icw4 & ICW4_SFNM) /* a slave's next request nests over the one in service */
        in_service &= (uint8_t)~chip->cascade;
    unsigned request = priority_of(chip, chip->irr & (uint8_t)~chip->imr);
    if (request == 8 || request >= priority_of(chip, in_service))
        return -1;
    return (int)input_of(chip, request);
}

static void update(struct pic_chip *chip) {
    bool level = requesting_input(chip) >= 0;
    if (level == chip->intr_level)
        return;
    chip->intr_level = level;
    irq_set(&chip->intr, level);
}

static void set_input(struct pic_chip *chip, unsigned input, bool asserted) {
    uint8_t bit = bit_of(input);
    bool was_asserted = chip->lines & bit;
    if (asserted == was_asserted)
        return;
    chip->lines ^= bit;
    if (asserted)
        chip->irr |= bit;
    else if ((chip->elcr | chip->cascade) & bit)
        chip->irr &= (uint8_t)~bit;
    update(chip);
}

static void set_cascade(void *master, unsigned input, bool asserted) {
    set_input(master, input, asserted);
}

void pic_set_irq(void *opaque, unsigned irq, bool asserted) {
    struct pic *pic = opaque;
    if (irq < 8 && !(pic->master.cascade & bit_of(irq)))
        set_input(&pic->master, irq, asserted);
    else if (irq >= 8 && irq < 16)
        set_input(&pic->slave, irq - 8, asserted);
}

/* ---- Interrupt acknowledge ------------------------------------------------------------------------------------- */

/* What INTA, or the read after a poll command, does to the chip for `input`. */
static void begin_service(struct pic_chip *chip, unsigned input) {
    uint8_t bit = bit_of(input);
    if (!(chip->elcr & bit))
        chip->irr &= (uint8_t)~bit;
    if (!(chip->icw4 & ICW4_AEOI))
        chip->isr |= bit;
    else if (chip->rotates_on_aeoi)
        chip->lowest = (uint8_t)input;
    /* INT falls during INTA even when the next request follows at once: the master needs an edge for each. */
    if (chip->intr_level) {
        chip->intr_level = false;
        irq_set(&chip->intr, false);
    }
}

static int acknowledge_slave(struct pic_chip *chip) {
    int input = requesting_input(chip);
    if (input >= 0) {
        begin_service(chip, (unsigned)input);
        update(chip);
    }
    return chip->vector_base | (input >= 0 ? input : 7);
}

int pic_acknowledge(struct pic *pic) {
    struct pic_chip *master = &pic->master;
    int input = requesting_input(master);
    if (input < 0)
        return master->vector_base | 7;
    begin_service(master, (unsigned)input);
    bool is_slave = master->cascade & bit_of((unsigned)input) && !master->is_single;
    int vector = is_slave ? acknowledge_slave(&pic->slave) : master->vector_base | input;
    update(master);
    return vector;
}

bool pic_is_waiting(const struct pic *pic, unsigned irq) {
    const struct pic_chip *chip = irq < 8 ? &pic->master : &pic->slave;
    uint8_t bit = bit_of(irq & 7);
    return chip->stage == PIC_READY && (chip->irr & (uint8_t)~chip->imr & bit);
}

/* ---- Registers ------------------------------------------------------------------------------------------------- */

static void write_icw1(struct pic_chip *chip, uint8_t value) {
    /* The edge sense circuit is cleared: an input that is high must fall and rise again. */
    chip->irr = chip->lines & (chip->elcr | chip->cascade);
    chip->isr = chip->imr = chip->icw4 = 0;
    chip->lowest = 7;
    chip->special_mask = chip->poll = chip->reads_isr = chip->rotates_on_aeoi = false;
    chip->is_single = value & ICW1_SNGL;
    chip->wants_icw4 = value & ICW1_IC4;
    chip->stage = PIC_ICW2;
}

static void write_ocw2(struct pic_chip *chip, uint8_t value) {
    bool rotates = value & 0x80, is_specific = value & 0x40, is_eoi = value & 0x20;
    unsigned input = value & 7;
    if (!is_eoi) {
        if (is_specific && rotates)
            chip->lowest = (uint8_t)input;
        else if (!is_specific)
            chip->rotates_on_aeoi = rotates;
        return;
    }
    if (!is_specific) {
        /* In special mask mode a masked bit is not cleared by a non-specific EOI. */
        unsigned priority = priority_of(chip, chip->special_mask ? chip->isr & (uint8_t)~chip->imr : chip->isr);
        if (priority == 8)
            return;
        input = input_of(chip, priority);
    }
    chip->isr &= (uint8_t)~bit_of(input);
    if (rotates)
        chip->lowest = (uint8_t)input;
}

static void write_ocw3(struct pic_chip *chip, uint8_t value) {
    chip->poll = value & OCW3_P;
    if (value & OCW3_RR)
        chip->reads_isr = value & OCW3_RIS;
    if (value & OCW3_ESMM)
        chip->special_mask = value & OCW3_SMM;
}

static void write_odd(struct pic_chip *chip, uint8_t value) {
    switch (chip->stage) {
    case PIC_ICW2:
        chip->vector_base = value & 0xf8;
        chip->stage = !chip->is_single ? PIC_ICW3 : chip->wants_icw4 ? PIC_ICW4 : PIC_READY;
        break;
    case PIC_ICW3: /* the wiring of the cascade is fixed */
        chip->stage = chip->wants_icw4 ? PIC_ICW4 : PIC_READY;
        break;
    case PIC_ICW4:
        chip->icw4 = value;
        chip->stage = PIC_READY;
        break;
    case PIC_UNINITIALISED:
    case PIC_READY:
        chip->imr = value;
        break;
    }
}

static void pic_write(void *device, uint64_t offset, unsigned size, uint64_t wide) {
    struct pic_chip *chip = device;
    uint8_t value = (uint8_t)wide;
    (void)size;
    if (offset == 1)
        write_odd(chip, value);
    else if (value & ICW1)
        write_icw1(chip, value);
    else if (value & OCW3)
        write_ocw3(chip, value);
    else
        write_ocw2(chip, value);
    update(chip);
}

/* The read after a poll command acts as INTA: bit 7 and the input, or 0 without a request. */
static uint8_t poll(struct pic_chip *chip) {
    chip->poll = false;
    int input = requesting_input(chip);
    if (input < 0)
        return 0;
    begin_service(chip, (unsigned)input);
    update(chip);
    return (uint8_t)(0x80 | input);
}

static uint64_t pic_read(void *device, uint64_t offset, unsigned size) {
    struct pic_chip *chip = device;
    (void)size;
    if (chip->poll)
        return poll(chip);
    if (offset == 1)
        return chip->imr;
    return chip->reads_isr ? chip->isr : chip->irr;
}

static void elcr_write(void *device, uint64_t offset, unsigned size, uint64_t value) {
    struct pic_chip *chip = device;
    (void)offset, (void)size;
    chip->elcr = (uint8_t)value & chip->elcr_mask;
    chip->irr = (uint8_t)((chip->irr & ~chip->elcr) | (chip->lines & chip->elcr));
    update(chip);
}

static uint64_t elcr_read(void *device, uint64_t offset, unsigned size) {
    (void)offset, (void)size;
    return ((struct pic_chip *)device)->elcr;
}

const struct bus_ops pic_ops = {.read = pic_read, .write = pic_write, .max_size = 1, .is_light = true};
const struct bus_ops pic_elcr_ops = {.read = elcr_read, .write = elcr_write, .max_size = 1, .is_light = true};

/* ---- Life ------------------------------------------------------------------------------------------------------ */

static void reset_chip(struct pic_chip *chip) {
    write_icw1(chip, 0);
    chip->stage = PIC_UNINITIALISED;
    chip->elcr = 0;
    chip->vector_base = 0;
    update(chip);
}

void pic_reset(struct pic *pic) {
    reset_chip(&pic->slave);
    reset_chip(&pic->master);
}

void pic_init(struct pic *pic, const struct irq_line *intr) {
    memset(pic, 0, sizeof(*pic));
    pic->master.intr = *intr;
    pic->master.cascade = bit_of(2);
    pic->master.elcr_mask = 0xf8; /* not the timer, the keyboard and the cascade */
    pic->slave.intr = (struct irq_line){set_cascade, &pic->master, 2};
    pic->slave.elcr_mask = 0xde; /* not the clock (8) and the FPU (13) */
    pic_reset(pic);
}
