/*
 * MC146818A real-time clock (Motorola), as in every PC since the AT.
 *
 * Time is the host's wall clock plus what software set; time registers and flags are computed when they are read, and a
 * host timer runs only for an interrupt that is enabled and not pending. Left out: daylight saving (DSE), square wave,
 * and time bases other than 32.768 kHz.
 */
#include "devices/rtc.h"

#include <string.h>

#include "devices/scale.h"

enum {
    SECONDS,
    SECONDS_ALARM,
    MINUTES,
    MINUTES_ALARM,
    HOURS,
    HOURS_ALARM,
    WEEKDAY,
    DAY,
    MONTH,
    YEAR,
    REG_A,
    REG_B,
    REG_C,
    REG_D,
};

enum {
    A_UIP = 0x80,
    A_DIVIDER = 0x70,
    A_DIVIDER_RUN = 0x20,
    A_RATE = 0x0f,
    B_SET = 0x80,
    B_PIE = 0x40,
    B_AIE = 0x20,
    B_UIE = 0x10,
    B_SQWE = 0x08,
    B_BINARY = 0x04,
    B_24H = 0x02,
    C_IRQF = 0x80,
    C_PF = 0x40,
    C_AF = 0x20,
    C_UF = 0x10,
    D_VRT = 0x80,
    HOURS_PM = 0x80,
    ALARM_ANY = 0xc0,
};

#define SECOND          INT64_C(1000000000)
#define DAY_SECONDS     86400
#define UIP_NS          2228000 /* 244 us of notice and 1984 us of update */
#define CRYSTAL_HZ      32768
#define FIRST_UPDATE_NS (SECOND / 2) /* after the divider's reset */

/* ---- Calendar -------------------------------------------------------------------------------------------------- */

struct date {
    int64_t year;
    unsigned month, day; /* from 1 */
};

/* Days since 1970-01-01 in the proleptic Gregorian calendar; years begin in March here, so that leap days come last. */
static int64_t days_of(struct date date) {
    int64_t year = date.year - (date.month <= 2);
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t year_of_era = year - era * 400;
    int64_t month = (int64_t)(date.month + 9) % 12;
    int64_t day_of_year = (153 * month + 2) / 5 + date.day - 1;
    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

static struct date date_of(int64_t days) {
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    int64_t day_of_era = days - era * 146097;
    int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    unsigned month = (unsigned)((5 * day_of_year + 2) / 153);
    unsigned day = (unsigned)(day_of_year - (153 * month + 2) / 5 + 1);
    month = month < 10 ? month + 3 : month - 9;
    return (struct date){year_of_era + era * 400 + (month <= 2), month, day};
}

static int64_t floor_divide(int64_t value, int64_t by) {
    return value / by - (value % by < 0);
}

/* ---- Register formats ------------------------------------------------------------------------------------------ */

static uint8_t encode(const struct rtc *rtc, unsigned value) {
    return (uint8_t)(rtc->ram[REG_B] & B_BINARY ? value : value / 10 << 4 | value % 10);
}

static unsigned decode(const struct rtc *rtc, uint8_t value) {
    return rtc->ram[REG_B] & B_BINARY ? value : (value >> 4) * 10u + (value & 15);
}

static uint8_t encode_hours(const struct rtc *rtc, unsigned hours) {
    if (rtc->ram[REG_B] & B_24H)
        return encode(rtc, hours);
    return encode(rtc, hours % 12 ? hours % 12 : 12) | (hours >= 12 ? HOURS_PM : 0);
}

static unsigned decode_hours(const struct rtc *rtc, uint8_t value) {
    if (rtc->ram[REG_B] & B_24H)
        return decode(rtc, value);
    return decode(rtc, value & 0x7f) % 12 + (value & HOURS_PM ? 12 : 0);
}

/* ---- Time ------------------------------------------------------------------------------------------------------ */

static int64_t time_of(const struct rtc *rtc) {
    return rtc->wall(rtc->wall_opaque) + rtc->offset;
}

static int64_t phase_of(const struct rtc *rtc) {
    int64_t time = time_of(rtc);
    return time - floor_divide(time, SECOND) * SECOND;
}

static void fill_time_registers(struct rtc *rtc) {
    if (!rtc->is_running)
        return;
    int64_t seconds = floor_divide(time_of(rtc), SECOND), days = floor_divide(seconds, DAY_SECONDS);
    unsigned of_day = (unsigned)(seconds - days * DAY_SECONDS);
    struct date date = date_of(days);
    unsigned weekday = (unsigned)(days + 4 - floor_divide(days + 4, 7) * 7); /* 1970-01-01 was a Thursday, day 4 */
    unsigned year = (unsigned)(date.year - floor_divide(date.year, 10000) * 10000);
    rtc->ram[SECONDS] = encode(rtc, of_day % 60);
    rtc->ram[MINUTES] = encode(rtc, of_day / 60 % 60);
    rtc->ram[HOURS] = encode_hours(rtc, of_day / 3600);
    rtc->ram[WEEKDAY] = encode(rtc, (weekday + rtc->weekday_shift) % 7 + 1);
    rtc->ram[DAY] = encode(rtc, date.day);
    rtc->ram[MONTH] = encode(rtc, date.month);
    rtc->ram[YEAR] = encode(rtc, year % 100);
    rtc->ram[RTC_CENTURY] = encode(rtc, year / 100);
}

/* Takes the time from the registers, whatever nonsense they hold, going on at `phase` nanoseconds into the second. */
static void take_time_registers(struct rtc *rtc, int64_t phase) {
    unsigned month = decode(rtc, rtc->ram[MONTH]);
    struct date date = {
        .year = decode(rtc, rtc->ram[RTC_CENTURY]) * 100 + decode(rtc, rtc->ram[YEAR]),
        .month = month >= 1 && month <= 12 ? month : 1,
        .day = decode(rtc, rtc->ram[DAY]),
    };
    int64_t days = days_of(date);
    int64_t seconds = days * DAY_SECONDS + decode_hours(rtc, rtc->ram[HOURS]) * INT64_C(3600) +
                      decode(rtc, rtc->ram[MINUTES]) * INT64_C(60) + decode(rtc, rtc->ram[SECONDS]);
    /* The years 1811 to 2255 fit 64 bits of nanoseconds, also against the host's; the registers can name 0 to 16700. */
    if (seconds < INT64_C(-5000000000) || seconds > INT64_C(9000000000))
        seconds = seconds < 0 ? INT64_C(-5000000000) : INT64_C(9000000000);
    unsigned weekday = (unsigned)(days + 4 - floor_divide(days + 4, 7) * 7);
    rtc->weekday_shift = (uint8_t)((decode(rtc, rtc->ram[WEEKDAY]) + 13 - weekday) % 7);
    rtc->offset = seconds * SECOND + phase - rtc->wall(rtc->wall_opaque);
    rtc->seen_second = seconds;
}

static bool divider_runs(const struct rtc *rtc) {
    return (rtc->ram[REG_A] & A_DIVIDER) <= A_DIVIDER_RUN;
}

/* After a write to A or B: the time stops or goes on. */
static void update_running(struct rtc *rtc) {
    bool runs = divider_runs(rtc) && !(rtc->ram[REG_B] & B_SET);
    if (runs && !rtc->is_running)
        take_time_registers(rtc, phase_of(rtc));
    rtc->is_running = runs;
}

/* ---- Interrupts ------------------------------------------------------------------------------------------------ */

static bool alarm_matches(uint8_t alarm, unsigned decoded, unsigned value) {
    return (alarm & ALARM_ANY) == ALARM_ANY || decoded == value;
}

/* Seconds from `second` until the alarm goes off next, at least 1; more than a day when it never will. */
static int64_t seconds_to_alarm(const struct rtc *rtc, int64_t second) {
    uint8_t hours = rtc->ram[HOURS_ALARM], minutes = rtc->ram[MINUTES_ALARM], seconds = rtc->ram[SECONDS_ALARM];
    for (int64_t wait = 1; wait <= DAY_SECONDS;) {
        unsigned of_day = (unsigned)(second + wait - floor_divide(second + wait, DAY_SECONDS) * DAY_SECONDS);
        if (!alarm_matches(hours, decode_hours(rtc, hours), of_day / 3600))
            wait += 3600 - of_day % 3600;
        else if (!alarm_matches(minutes, decode(rtc, minutes), of_day / 60 % 60))
            wait += 60 - of_day % 60;
        else if (!alarm_matches(seconds, decode(rtc, seconds), of_day % 60))
            wait++;
        else
            return wait;
    }
    return INT64_MAX / SECOND;
}

/* Cycles of the crystal in a period of the periodic interrupt, 0 when there is none. */
static int64_t period_of(const struct rtc *rtc) {
    unsigned rate = rtc->ram[REG_A] & A_RATE;
    if (rate == 0 || !divider_runs(rtc))
        return 0;
    return INT64_C(1) << ((rate <= 2 ? rate + 7 : rate) - 1); /* rates 1 and 2 repeat 8 and 9 */
}

static int64_t periods_at(const struct rtc *rtc, int64_t period) {
    return (int64_t)scale_down(clock_now(rtc->clock), CRYSTAL_HZ, SECOND) / period;
}

/* Brings the flags of register C up to date. */
static void account(struct rtc *rtc) {
    int64_t second = floor_divide(time_of(rtc), SECOND), period = period_of(rtc);
    if (rtc->is_running && second != rtc->seen_second) {
        if (second > rtc->seen_second) { /* or else the host's clock was set back */
            rtc->ram[REG_C] |= C_UF;
            if (seconds_to_alarm(rtc, rtc->seen_second) <= second - rtc->seen_second)
                rtc->ram[REG_C] |= C_AF;
        }
        rtc->seen_second = second;
    }
    if (period && periods_at(rtc, period) != rtc->seen_period) {
        rtc->ram[REG_C] |= C_PF;
        rtc->seen_period = periods_at(rtc, period);
    }
}

static uint64_t earlier(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

/* When the next enabled interrupt is due, or UINT64_MAX. */
static uint64_t next_interrupt(const struct rtc *rtc) {
    uint64_t now = clock_now(rtc->clock), next = UINT64_MAX;
    int64_t second = floor_divide(time_of(rtc), SECOND), period = period_of(rtc);
    uint8_t enabled = rtc->ram[REG_B];
    if (enabled & B_PIE && period) {
        uint64_t cycles = (uint64_t)(periods_at(rtc, period) + 1) * (uint64_t)period;
        next = scale_up(cycles, SECOND, CRYSTAL_HZ);
    }
    if (!rtc->is_running)
        return next;
    uint64_t to_update = (uint64_t)(SECOND - phase_of(rtc));
    if (enabled & B_UIE)
        next = earlier(next, now + to_update);
    if (enabled & B_AIE) {
        int64_t wait = seconds_to_alarm(rtc, second);
        if (wait <= DAY_SECONDS)
            next = earlier(next, now + to_update + (uint64_t)((wait - 1) * SECOND));
    }
    return next;
}

static void update(struct rtc *rtc) {
    uint8_t *flags = &rtc->ram[REG_C];
    account(rtc);
    bool is_pending = *flags & rtc->ram[REG_B] & (C_PF | C_AF | C_UF);
    *flags = (uint8_t)((*flags & ~C_IRQF) | (is_pending ? C_IRQF : 0));
    irq_set(&rtc->irq, is_pending);
    uint64_t next = is_pending ? UINT64_MAX : next_interrupt(rtc);
    if (next == UINT64_MAX)
        clock_timer_cancel(&rtc->timer);
    else
        clock_timer_arm(&rtc->timer, next);
}

static void timer_expired(void *opaque) {
    update(opaque);
}

/* ---- Registers ------------------------------------------------------------------------------------------------- */

static bool is_time_register(uint8_t index) {
    return index == SECONDS || index == MINUTES || index == HOURS || (index >= WEEKDAY && index <= YEAR) ||
           index == RTC_CENTURY;
}

static void write_a(struct rtc *rtc, uint8_t value) {
    bool did_run = divider_runs(rtc);
    fill_time_registers(rtc);
    rtc->ram[REG_A] = value & (uint8_t)~A_UIP;
    if (!did_run && divider_runs(rtc)) /* out of reset: the first update comes half a second later */
        rtc->offset = SECOND - FIRST_UPDATE_NS - rtc->wall(rtc->wall_opaque);
    update_running(rtc);
    if (period_of(rtc))
        rtc->seen_period = periods_at(rtc, period_of(rtc));
}

static void write_b(struct rtc *rtc, uint8_t value) {
    fill_time_registers(rtc);
    if (value & B_SET)
        value &= (uint8_t)~B_UIE;
    rtc->ram[REG_B] = value;
    update_running(rtc);
}

static void write_data(struct rtc *rtc, uint8_t value) {
    account(rtc);
    if (rtc->index == REG_A) {
        write_a(rtc, value);
    } else if (rtc->index == REG_B) {
        write_b(rtc, value);
    } else if (is_time_register(rtc->index)) {
        fill_time_registers(rtc);
        rtc->ram[rtc->index] = value;
        if (rtc->is_running)
            take_time_registers(rtc, phase_of(rtc));
    } else if (rtc->index != REG_C && rtc->index != REG_D) {
        rtc->ram[rtc->index] = value;
    }
    update(rtc);
}

static uint8_t read_c(struct rtc *rtc) {
    update(rtc);
    uint8_t value = rtc->ram[REG_C];
    rtc->ram[REG_C] = 0;
    update(rtc);
    return value;
}

static uint8_t read_data(struct rtc *rtc) {
    switch (rtc->index) {
    case REG_A:
        return rtc->ram[REG_A] | (rtc->is_running && phase_of(rtc) >= SECOND - UIP_NS ? A_UIP : 0);
    case REG_C:
        return read_c(rtc);
    case REG_D:
        return D_VRT;
    default:
        if (is_time_register(rtc->index))
            fill_time_registers(rtc);
        return rtc->ram[rtc->index];
    }
}

static uint64_t rtc_read(void *device, uint64_t offset, unsigned size) {
    struct rtc *rtc = device;
    (void)size;
    return offset == 0 ? 0xff : read_data(rtc); /* the index cannot be read */
}

static void rtc_write(void *device, uint64_t offset, unsigned size, uint64_t value) {
    struct rtc *rtc = device;
    (void)size;
    if (offset == 0)
        rtc->index = value & 0x7f; /* bit 7 masks NMI, which nothing here raises */
    else
        write_data(rtc, (uint8_t)value);
}

const struct bus_ops rtc_ops = {.read = rtc_read, .write = rtc_write, .max_size = 1, .is_light = true};

/* ---- Life ------------------------------------------------------------------------------------------------------ */

void rtc_set_ram(struct rtc *rtc, uint8_t index, uint8_t value) {
    if (index > REG_D && index < sizeof(rtc->ram))
        rtc->ram[index] = value;
}

uint8_t rtc_get_ram(const struct rtc *rtc, uint8_t index) {
    return index < sizeof(rtc->ram) ? rtc->ram[index] : 0xff;
}

void rtc_reset(struct rtc *rtc) {
    rtc->index = 0;
    rtc->ram[REG_B] &= (uint8_t) ~(B_PIE | B_AIE | B_UIE | B_SQWE);
    rtc->ram[REG_C] = 0;
    update(rtc);
}

void rtc_init(struct rtc *rtc, struct clock *clock, const struct irq_line *irq, rtc_wall *wall, void *wall_opaque) {
    memset(rtc, 0, sizeof(*rtc));
    rtc->irq = *irq;
    rtc->clock = clock;
    rtc->wall = wall;
    rtc->wall_opaque = wall_opaque;
    rtc->ram[REG_A] = A_DIVIDER_RUN | 6; /* 1024 Hz */
    rtc->ram[REG_B] = B_24H;
    rtc->is_running = true;
    rtc->seen_second = floor_divide(time_of(rtc), SECOND);
    rtc->seen_period = periods_at(rtc, period_of(rtc));
    clock_timer_init(&rtc->timer, clock, timer_expired, rtc);
    rtc_reset(rtc);
}

void rtc_release(struct rtc *rtc) {
    clock_timer_cancel(&rtc->timer);
}
