/*
 * The MC146818 real-time clock with 128 bytes of CMOS RAM. Ports 70h-71h with rtc_ops; the device is the struct rtc.
 */
#ifndef DEVICES_RTC_H
#define DEVICES_RTC_H

#include "devices/bus.h"
#include "devices/clock.h"
#include "devices/irq.h"

#define RTC_CENTURY 0x32 /* where a PC keeps the century; the ACPI FADT says so */

/* The time of day that the clock shows, in nanoseconds since 1970-01-01 00:00 of the RTC's zone. */
typedef int64_t rtc_wall(void *opaque);

struct rtc {
    struct irq_line irq; /* IRQ8 */
    struct clock *clock;
    rtc_wall *wall;
    void *wall_opaque;
    struct clock_timer timer;
    uint8_t index;
    uint8_t ram[128];      /* time registers are brought up to date when they are looked at */
    bool is_running;       /* neither SET nor the divider's reset holds the time */
    int64_t offset;        /* ns: what software set the clock to, against wall */
    uint8_t weekday_shift; /* and the day of the week, a counter of its own */
    int64_t seen_second;   /* updates up to this one are in register C */
    int64_t seen_period;   /* likewise, periods of the periodic interrupt */
};

extern const struct bus_ops rtc_ops;

void rtc_init(struct rtc *rtc, struct clock *clock, const struct irq_line *irq, rtc_wall *wall, void *wall_opaque);
/* Cancels the timer. Under the device lock. */
void rtc_release(struct rtc *rtc);
/* The RESET pin: interrupts off; time and RAM stay. */
void rtc_reset(struct rtc *rtc);

/* CMOS RAM from 0Eh up, for what firmware expects there. */
void rtc_set_ram(struct rtc *rtc, uint8_t index, uint8_t value);
uint8_t rtc_get_ram(const struct rtc *rtc, uint8_t index);

#endif
