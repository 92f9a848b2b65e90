/*
 * The High Precision Event Timer (IA-PC HPET Specification 1.0a, chapter 2).
 *
 * The counter is a function of time. Whoever looks at a comparator first brings it up to date (catch_up); the alarm is
 * only there for when nobody looks. Periods that were missed are one interrupt.
 */
#include "devices/hpet.h"

#include <stdlib.h>

enum { GENERAL_CAPABILITIES = 0x000, GENERAL_CONFIG = 0x010, GENERAL_STATUS = 0x020, MAIN_COUNTER = 0x0F0 };
enum { TIMER_REGISTERS = 0x100, TIMER_STRIDE = 0x20, TIMER_CONFIG = 0x00, TIMER_COMPARATOR = 0x08 };
enum { GENERAL_ENABLE = 1 << 0, GENERAL_LEGACY = 1 << 1 };

/* Timer configuration and capabilities (2.3.8). */
enum {
    TIMER_LEVEL = 1 << 1,
    TIMER_INTERRUPTS = 1 << 2,
    TIMER_PERIODIC = 1 << 3,
    TIMER_CAN_PERIODIC = 1 << 4,
    TIMER_IS_64BIT = 1 << 5,
    TIMER_SET_VALUE = 1 << 6,
    TIMER_32BIT_MODE = 1 << 8,
    TIMER_ROUTE = 31 << 9,
    TIMER_WRITABLE = TIMER_LEVEL | TIMER_INTERRUPTS | TIMER_PERIODIC | TIMER_SET_VALUE | TIMER_32BIT_MODE
};

#define FEMTOSECONDS_PER_NS 1000000u
#define SHORTEST_PERIOD_NS  20000u              /* the host does not interrupt more often, whatever the guest asks */
#define LONGEST_WAIT_TICKS  (UINT64_C(1) << 56) /* 22 years; nobody waits for more */

struct hpet_timer {
    struct hpet *hpet;
    struct clock_timer alarm;
    uint32_t config;
    uint64_t comparator; /* next match */
    uint64_t period;
    uint64_t checked; /* counter up to which matches have been delivered */
};

struct hpet {
    struct hpet_config config;
    uint32_t general, status;
    uint64_t stopped_counter; /* while not enabled; else its value at started_at */
    uint64_t started_at;      /* ns */
    uint32_t pins_asserted;   /* what the I/O APIC's lines were told */
    uint8_t legacy_asserted;
    struct hpet_timer timer[HPET_TIMERS];
};

/* ---- Counter ---- */

static bool is_enabled(const struct hpet *hpet) {
    return hpet->general & GENERAL_ENABLE;
}

static uint64_t counter_now(const struct hpet *hpet) {
    if (!is_enabled(hpet))
        return hpet->stopped_counter;
    return hpet->stopped_counter + (clock_now(hpet->config.clock) - hpet->started_at) / HPET_PERIOD_NS;
}

/* Bits that a comparator compares. */
static uint64_t timer_mask(const struct hpet_timer *timer) {
    return timer->config & TIMER_32BIT_MODE ? UINT32_MAX : UINT64_MAX;
}

static bool timer_is_periodic(const struct hpet_timer *timer) {
    return (timer->config & TIMER_PERIODIC) && (timer->period & timer_mask(timer));
}

/* Ticks after counter value `from` until the next match; 0 stands for a whole turn of the counter. */
static uint64_t ticks_to_match(const struct hpet_timer *timer, uint64_t from) {
    return (timer->comparator - from) & timer_mask(timer);
}

/* ---- Interrupts ---- */

static unsigned timer_index(const struct hpet_timer *timer) {
    return (unsigned)(timer - timer->hpet->timer);
}

static bool timer_is_legacy(const struct hpet_timer *timer) {
    return (timer->hpet->general & GENERAL_LEGACY) && timer_index(timer) < 2;
}

static struct irq_line timer_line(const struct hpet_timer *timer) {
    if (timer_is_legacy(timer))
        return timer->hpet->config.legacy[timer_index(timer)];
    struct irq_line line = timer->hpet->config.ioapic;
    line.pin = (timer->config & TIMER_ROUTE) >> 9;
    return line;
}

/* Drives the lines of level-triggered comparators; several may share one. */
static void update_levels(struct hpet *hpet) {
    uint32_t pins = 0;
    uint8_t legacy = 0;
    for (unsigned i = 0; i < HPET_TIMERS && is_enabled(hpet); i++) {
        const struct hpet_timer *timer = &hpet->timer[i];
        if (!(hpet->status >> i & 1) || !(timer->config & TIMER_LEVEL) || !(timer->config & TIMER_INTERRUPTS))
            continue;
        if (timer_is_legacy(timer))
            legacy |= (uint8_t)(1u << i);
        else
            pins |= 1u << ((timer->config & TIMER_ROUTE) >> 9);
    }
    const uint32_t pins_changed = pins ^ hpet->pins_asserted;
    const uint8_t legacy_changed = legacy ^ hpet->legacy_asserted;
    hpet->pins_asserted = pins;
    hpet->legacy_asserted = legacy;
    for (unsigned i = 0; i < 2; i++)
        if (legacy_changed >> i & 1)
            irq_set(&hpet->config.legacy[i], legacy >> i & 1);
    struct irq_line line = hpet->config.ioapic;
    for (line.pin = 0; line.pin < 32; line.pin++)
        if (pins_changed >> line.pin & 1)
            irq_set(&line, pins >> line.pin & 1);
}

static void fire(struct hpet_timer *timer) {
    if (timer->config & TIMER_LEVEL) {
        timer->hpet->status |= 1u << timer_index(timer);
        update_levels(timer->hpet);
    } else if (timer->config & TIMER_INTERRUPTS) {
        const struct irq_line line = timer_line(timer);
        irq_pulse(&line);
    }
}

/* ---- Comparators ---- */

/* Delivers a match that lies behind the counter. */
static void catch_up(struct hpet_timer *timer) {
    const uint64_t counter = counter_now(timer->hpet), mask = timer_mask(timer);
    const uint64_t passed = counter - timer->checked;
    const uint64_t wait = ticks_to_match(timer, timer->checked);
    timer->checked = counter;
    if (passed == 0 || (wait == 0 ? passed <= mask : passed < wait))
        return;
    if (timer_is_periodic(timer)) {
        const uint64_t period = timer->period & mask;
        const uint64_t late = (counter - timer->comparator) & mask;
        timer->comparator = (timer->comparator + (late / period + 1) * period) & mask;
    }
    fire(timer);
}

static void set_alarm(struct hpet_timer *timer) {
    const struct hpet *hpet = timer->hpet;
    const uint64_t counter = counter_now(hpet);
    uint64_t wait = ticks_to_match(timer, counter);
    if (wait == 0) /* never 0 for 64 bits: that is longer than anybody waits */
        wait = timer_mask(timer) == UINT64_MAX ? UINT64_MAX : UINT64_C(1) << 32;
    if (!is_enabled(hpet) || !(timer->config & (TIMER_INTERRUPTS | TIMER_LEVEL)) || wait > LONGEST_WAIT_TICKS) {
        clock_timer_cancel(&timer->alarm);
        return;
    }
    const uint64_t now = clock_now(hpet->config.clock);
    uint64_t deadline = hpet->started_at + (counter - hpet->stopped_counter + wait) * HPET_PERIOD_NS;
    if (timer_is_periodic(timer) && timer->period * HPET_PERIOD_NS < SHORTEST_PERIOD_NS &&
        deadline < now + SHORTEST_PERIOD_NS)
        deadline = now + SHORTEST_PERIOD_NS;
    clock_timer_arm(&timer->alarm, deadline);
}

static void alarm_expired(void *opaque) {
    catch_up(opaque);
    set_alarm(opaque);
}

static void catch_up_all(struct hpet *hpet) {
    for (unsigned i = 0; i < HPET_TIMERS; i++)
        catch_up(&hpet->timer[i]);
}

static void set_alarms(struct hpet *hpet) {
    for (unsigned i = 0; i < HPET_TIMERS; i++)
        set_alarm(&hpet->timer[i]);
}

/* ---- Registers ---- */

static void set_counter(struct hpet *hpet, uint64_t value) {
    hpet->stopped_counter = value;
    hpet->started_at = clock_now(hpet->config.clock);
    for (unsigned i = 0; i < HPET_TIMERS; i++)
        hpet->timer[i].checked = value;
}

static void write_general(struct hpet *hpet, uint32_t value) {
    const uint32_t changed = hpet->general ^ value;
    set_counter(hpet, counter_now(hpet));
    hpet->general = value & (GENERAL_ENABLE | GENERAL_LEGACY);
    if ((changed & GENERAL_LEGACY) && hpet->config.legacy_replacement)
        hpet->config.legacy_replacement(hpet->config.opaque, value & GENERAL_LEGACY);
}

/* A route that is not among the capabilities does not stick, which is how software finds out. */
static void write_timer_config(struct hpet_timer *timer, uint32_t value) {
    uint32_t route = value & TIMER_ROUTE;
    if (!(HPET_ROUTES >> (route >> 9) & 1))
        route = timer->config & TIMER_ROUTE;
    timer->config = (value & TIMER_WRITABLE) | route | TIMER_CAN_PERIODIC | TIMER_IS_64BIT;
    timer->comparator &= timer_mask(timer);
}

static uint64_t merge(uint64_t old, uint64_t value, uint64_t written) {
    return (old & ~written) | (value & written);
}

/*
 * In periodic mode a write is the period, and with VAL_SET the next match as well (2.3.9.2.2). A match at the present
 * counter value is not too late.
 */
static void write_comparator(struct hpet_timer *timer, uint64_t value, uint64_t written) {
    const uint64_t mask = timer_mask(timer);
    const bool is_periodic = timer->config & TIMER_PERIODIC;
    if (is_periodic)
        timer->period = merge(timer->period, value, written) & mask;
    if (!is_periodic || (timer->config & TIMER_SET_VALUE)) {
        timer->comparator = merge(timer->comparator, value, written) & mask;
        if (is_enabled(timer->hpet) && ticks_to_match(timer, timer->checked) == 0)
            timer->checked--;
    }
    timer->config &= ~(uint32_t)TIMER_SET_VALUE;
}

static uint64_t read_timer(const struct hpet_timer *timer, unsigned offset) {
    if (offset == TIMER_CONFIG)
        return (uint64_t)HPET_ROUTES << 32 | timer->config;
    return offset == TIMER_COMPARATOR ? timer->comparator : 0;
}

/* The eight bytes at a multiple of 8. */
static uint64_t read_register(struct hpet *hpet, unsigned offset) {
    if (offset >= TIMER_REGISTERS && offset < TIMER_REGISTERS + HPET_TIMERS * TIMER_STRIDE)
        return read_timer(&hpet->timer[(offset - TIMER_REGISTERS) / TIMER_STRIDE], offset % TIMER_STRIDE);
    switch (offset) {
    case GENERAL_CAPABILITIES:
        return (uint64_t)(HPET_PERIOD_NS * FEMTOSECONDS_PER_NS) << 32 | HPET_CAPABILITIES;
    case GENERAL_CONFIG:
        return hpet->general;
    case GENERAL_STATUS:
        return hpet->status;
    case MAIN_COUNTER:
        return counter_now(hpet);
    default:
        return 0;
    }
}

static void write_timer(struct hpet_timer *timer, unsigned offset, uint64_t value, uint64_t written) {
    if (offset == TIMER_CONFIG && (written & UINT32_MAX))
        write_timer_config(timer, (uint32_t)value);
    else if (offset == TIMER_COMPARATOR)
        write_comparator(timer, value, written);
}

/* `written` has ones where the access has bytes. */
static void write_register(struct hpet *hpet, unsigned offset, uint64_t value, uint64_t written) {
    if (offset >= TIMER_REGISTERS && offset < TIMER_REGISTERS + HPET_TIMERS * TIMER_STRIDE)
        write_timer(&hpet->timer[(offset - TIMER_REGISTERS) / TIMER_STRIDE], offset % TIMER_STRIDE, value, written);
    else if (offset == GENERAL_CONFIG && (written & UINT32_MAX))
        write_general(hpet, (uint32_t)value);
    else if (offset == GENERAL_STATUS) /* ones clear */
        hpet->status &= ~(uint32_t)(value & written);
    else if (offset == MAIN_COUNTER)
        set_counter(hpet, merge(counter_now(hpet), value, written));
}

static uint64_t hpet_read(void *device, uint64_t offset, unsigned size) {
    struct hpet *hpet = device;
    const unsigned shift = (offset & 4) * 8;
    catch_up_all(hpet);
    const uint64_t value = read_register(hpet, (unsigned)offset & ~7u) >> shift;
    /* Eight bytes from the middle of a register reach into the next one. */
    return size == 8 && shift ? value | read_register(hpet, ((unsigned)offset & ~7u) + 8) << 32 : value;
}

static void hpet_write(void *device, uint64_t offset, unsigned size, uint64_t value) {
    struct hpet *hpet = device;
    const unsigned at = (unsigned)offset & ~7u, shift = (offset & 4) * 8;
    const uint64_t written = size == 8 ? UINT64_MAX : UINT32_MAX;
    catch_up_all(hpet);
    write_register(hpet, at, value << shift, written << shift);
    if (size == 8 && shift)
        write_register(hpet, at + 8, value >> 32, UINT32_MAX);
    catch_up_all(hpet);
    update_levels(hpet);
    set_alarms(hpet);
}

const struct bus_ops hpet_ops = {.read = hpet_read, .write = hpet_write, .min_size = 4, .max_size = 8, .is_light = true};

/* ---- Making ---- */

void hpet_reset(struct hpet *hpet) {
    if (hpet->general & GENERAL_LEGACY)
        write_general(hpet, 0);
    hpet->general = 0;
    hpet->status = 0;
    set_counter(hpet, 0);
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        struct hpet_timer *timer = &hpet->timer[i];
        timer->config = TIMER_CAN_PERIODIC | TIMER_IS_64BIT;
        timer->comparator = UINT64_MAX;
        timer->period = 0;
    }
    update_levels(hpet);
    set_alarms(hpet);
}

struct hpet *hpet_create(const struct hpet_config *config) {
    struct hpet *hpet = calloc(1, sizeof *hpet);
    if (!hpet)
        return NULL;
    hpet->config = *config;
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        hpet->timer[i].hpet = hpet;
        clock_timer_init(&hpet->timer[i].alarm, config->clock, alarm_expired, &hpet->timer[i]);
    }
    hpet_reset(hpet);
    return hpet;
}

void hpet_destroy(struct hpet *hpet) {
    if (!hpet)
        return;
    for (unsigned i = 0; i < HPET_TIMERS; i++)
        clock_timer_cancel(&hpet->timer[i].alarm);
    free(hpet);
}
