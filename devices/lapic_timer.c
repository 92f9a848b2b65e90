/*
 * The local APIC's timer (SDM vol. 3A, 11.5.4): one-shot, periodic and TSC-deadline, on a bus clock of 1 GHz.
 *
 * The count is a function of time, never stepped. Whoever looks at the timer first brings it up to date
 * (lapic_timer_sync), so the guest can't see a count of zero before its interrupt, however late the clock's thread is.
 */
#include "devices/lapic_state.h"
#include "devices/scale.h"

enum { MODE_ONE_SHOT, MODE_PERIODIC, MODE_TSC_DEADLINE };

/* A guest may ask for a period of 1 ns; the host does not interrupt more often than this. */
#define SHORTEST_PERIOD_NS 20000u
#define LONGEST_WAIT_NS    (UINT64_C(1) << 62)

static unsigned entry_mode(uint32_t entry) {
    return entry >> 17 & 3;
}

static unsigned timer_mode(const struct lapic *lapic) {
    return entry_mode(lapic->lvt[LVT_TIMER]);
}

/* Bits 3, 1 and 0: 000 divides by 2, 001 by 4, ... 110 by 128, 111 by 1. */
static unsigned divisor(const struct lapic_timer *timer) {
    const unsigned value = (timer->divide >> 1 & 4) | (timer->divide & 3);
    return 1u << ((value + 1) & 7);
}

static uint64_t cycle_ns(const struct lapic_timer *timer) {
    return (uint64_t)timer->initial_count * divisor(timer);
}

/* Delivers what is due by now. Several cycles that were missed are one interrupt, as in the IRR. */
static void lapic_timer_sync(struct lapic *lapic) {
    struct lapic_timer *timer = &lapic->timer;
    if (!timer->is_counting)
        return;
    const uint64_t elapsed = clock_now(lapic->config.clock) - timer->start;
    const uint64_t cycle = cycle_ns(timer);
    if (elapsed < cycle)
        return;
    if (timer_mode(lapic) == MODE_PERIODIC)
        timer->start += elapsed / cycle * cycle;
    else
        timer->is_counting = false;
    lapic_deliver_entry(lapic, LVT_TIMER);
}

/* A masked timer counts on, but needs no alarm. */
static void set_alarm(struct lapic *lapic) {
    struct lapic_timer *timer = &lapic->timer;
    if (!timer->is_counting || (lapic->lvt[LVT_TIMER] & LVT_MASKED)) {
        clock_timer_cancel(&timer->alarm);
        return;
    }
    uint64_t deadline = timer->start + cycle_ns(timer);
    const uint64_t earliest = clock_now(lapic->config.clock) + SHORTEST_PERIOD_NS;
    if (timer_mode(lapic) == MODE_PERIODIC && cycle_ns(timer) < SHORTEST_PERIOD_NS && deadline < earliest)
        deadline = earliest;
    clock_timer_arm(&timer->alarm, deadline);
}

static void fire_deadline(struct lapic *lapic) {
    lapic->timer.tsc_deadline = 0;
    lapic_deliver_entry(lapic, LVT_TIMER);
}

static void alarm_expired(void *opaque) {
    struct lapic *lapic = opaque;
    if (timer_mode(lapic) == MODE_TSC_DEADLINE) {
        fire_deadline(lapic);
        return;
    }
    lapic_timer_sync(lapic);
    set_alarm(lapic);
}

/* Going into or out of TSC-deadline mode disarms; between the other two the count goes on. */
void lapic_timer_write_entry(struct lapic *lapic, uint32_t value) {
    lapic_timer_sync(lapic);
    const bool was_deadline = timer_mode(lapic) == MODE_TSC_DEADLINE;
    const bool is_deadline = entry_mode(value) == MODE_TSC_DEADLINE;
    lapic->lvt[LVT_TIMER] = value;
    if (was_deadline != is_deadline) {
        lapic->timer.is_counting = false;
        lapic->timer.initial_count = 0;
        lapic->timer.tsc_deadline = 0;
        clock_timer_cancel(&lapic->timer.alarm);
    } else if (!is_deadline) {
        set_alarm(lapic);
    }
}

void lapic_timer_write_initial(struct lapic *lapic, uint32_t value) {
    if (timer_mode(lapic) == MODE_TSC_DEADLINE)
        return;
    lapic_timer_sync(lapic);
    lapic->timer.initial_count = value;
    lapic->timer.is_counting = value != 0;
    lapic->timer.start = clock_now(lapic->config.clock);
    set_alarm(lapic);
}

/* The present count stays; it goes on at the new speed. */
void lapic_timer_write_divide(struct lapic *lapic, uint32_t value) {
    struct lapic_timer *timer = &lapic->timer;
    const uint32_t count = lapic_timer_current(lapic);
    timer->divide = value & 0xB;
    timer->start = clock_now(lapic->config.clock) - (uint64_t)(timer->initial_count - count) * divisor(timer);
    if (timer_mode(lapic) != MODE_TSC_DEADLINE)
        set_alarm(lapic);
}

uint32_t lapic_timer_current(struct lapic *lapic) {
    struct lapic_timer *timer = &lapic->timer;
    lapic_timer_sync(lapic);
    if (!timer->is_counting)
        return 0;
    const uint64_t elapsed = clock_now(lapic->config.clock) - timer->start;
    /* Time may have passed the end of the cycle since the sync; zero is for the next look. */
    const uint64_t counts = elapsed / divisor(timer);
    return counts < timer->initial_count ? timer->initial_count - (uint32_t)counts : 1;
}

/* 11.5.4.1: the MSR reads as zero in the other modes, and writes are ignored. */
uint64_t lapic_timer_read_deadline(struct lapic *lapic) {
    return timer_mode(lapic) == MODE_TSC_DEADLINE ? lapic->timer.tsc_deadline : 0;
}

void lapic_timer_write_deadline(struct lapic *lapic, uint64_t value) {
    if (timer_mode(lapic) != MODE_TSC_DEADLINE)
        return;
    lapic->timer.tsc_deadline = value;
    if (value == 0) {
        clock_timer_cancel(&lapic->timer.alarm);
        return;
    }
    const uint64_t now = lapic->config.cpu.read_tsc(lapic->config.cpu.opaque);
    if (value <= now) { /* before the next instruction, not when the clock's thread gets to it */
        clock_timer_cancel(&lapic->timer.alarm);
        fire_deadline(lapic);
        return;
    }
    const uint64_t wait = scale_down(value - now, 1000000000u, lapic->config.tsc_hz);
    clock_timer_arm(&lapic->timer.alarm,
                    clock_now(lapic->config.clock) + (wait < LONGEST_WAIT_NS ? wait + 1 : LONGEST_WAIT_NS));
}

void lapic_timer_init(struct lapic *lapic) {
    clock_timer_init(&lapic->timer.alarm, lapic->config.clock, alarm_expired, lapic);
}

void lapic_timer_reset(struct lapic *lapic) {
    struct lapic_timer *timer = &lapic->timer;
    clock_timer_cancel(&timer->alarm);
    timer->initial_count = 0;
    timer->divide = 0;
    timer->is_counting = false;
    timer->tsc_deadline = 0;
}
