/*
 * The 8254 interval timer of a PC: channel 0 is the system tick, channel 1 was DRAM refresh, channel 2 feeds the
 * speaker through system control port B (61h).
 *
 * Ports: 40h-43h with pit_ops, 61h with pit_speaker_ops; the device of both is the struct pit.
 */
#ifndef DEVICES_PIT_H
#define DEVICES_PIT_H

#include "devices/bus.h"
#include "devices/clock.h"
#include "devices/irq.h"

#define PIT_HZ 1193182u

/*
 * One counter. Times are in ticks of PIT_HZ since the clock began; a counting element loaded with `initial` at `start`
 * holds initial - k at start + k.
 */
struct pit_channel {
    uint8_t control; /* bits 5:0 of the control word, as the status byte tells them */
    uint8_t mode;    /* 0..5 */
    bool bcd;
    bool gate;
    bool is_loaded;     /* a count was written since the control word */
    bool has_new_count; /* modes 1 and 5: written, and GATE did not rise yet */
    bool is_triggered;  /* modes 1 and 5: GATE rose since the control word */
    bool writes_msb;    /* LSB-then-MSB access: the next byte written is the MSB */
    bool reads_msb;     /* the same for reading */
    uint8_t low_byte;   /* written, waiting for the MSB */
    uint32_t reload;    /* the count register: 1..10000h */
    uint32_t initial;   /* what the counting element was loaded with */
    int64_t start;
    int64_t stopped_at; /* counting stands still since, or PIT_NEVER */
    int64_t reload_at;  /* modes 2 and 3: when `reload` follows `initial`, or PIT_NEVER */
    bool count_is_latched, status_is_latched;
    uint16_t latched_count;
    uint8_t latched_status;
};

#define PIT_NEVER INT64_MAX

struct pit {
    struct pit_channel channel[3];
    struct clock *clock;
    struct irq_line irq; /* OUT of channel 0 */
    bool (*tick_is_waiting)(void *opaque);
    void *tick_opaque;
    struct clock_timer timer;
    int64_t next_edge; /* the next rising edge of OUT 0 that is not in `missed`, or PIT_NEVER */
    uint32_t missed;   /* edges that are past and not delivered */
    uint8_t port61;    /* bits 3:0 as written */
};

extern const struct bus_ops pit_ops, pit_speaker_ops;

/*
 * `irq` gets OUT of channel 0. `tick_is_waiting` (may be NULL) says whether the edge delivered last is still pending at
 * an interrupt controller that would take it, so that the next one had better wait.
 */
void pit_init(struct pit *pit, struct clock *clock, const struct irq_line *irq, bool (*tick_is_waiting)(void *opaque),
              void *tick_opaque);
/* Cancels the timer. Under the device lock. */
void pit_release(struct pit *pit);
void pit_reset(struct pit *pit);

#endif
