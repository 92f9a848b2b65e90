/*
 * What chips ask of the clock. Light code: for some microseconds after a full reading, the host's time-stamp counter tells
 * the time; it runs a little slow, so that time never goes back at the next full one.
 */
#include "devices/bus.h"
#include "devices/clock_state.h"

static bool light_passed(const struct clock *clock, uint64_t *passed) {
    const struct clock_anchor *anchor = &clock->anchor;
    uint64_t cycles = __builtin_ia32_rdtsc() - anchor->tsc;
    if (cycles >= anchor->most || atomic_load_explicit(&clock->stopped_at, memory_order_relaxed) != CLOCK_RUNNING ||
        atomic_load_explicit(&clock->origin, memory_order_relaxed) != anchor->origin)
        return false;
    *passed = cycles * anchor->scale >> 32;
    return true;
}

uint64_t clock_now(const struct clock *clock) {
    uint64_t passed;
    if (light_passed(clock, &passed))
        return clock->anchor.now + passed;
    return bus_call_full(clock->bus, clock_full_anchor, (void *)(uintptr_t)clock);
}

int64_t clock_wall(const struct clock *clock) {
    uint64_t passed;
    if (light_passed(clock, &passed))
        return clock->anchor.wall + (int64_t)passed;
    return (int64_t)bus_call_full(clock->bus, clock_full_wall, (void *)(uintptr_t)clock);
}

void clock_timer_init(struct clock_timer *timer, struct clock *clock, void (*expired)(void *opaque), void *opaque) {
    *timer = (struct clock_timer){.expired = expired, .opaque = opaque, .clock = clock};
}

void clock_timer_arm(struct clock_timer *timer, uint64_t deadline) {
    struct clock_arm arm = {timer, deadline};
    if (!timer->position || timer->deadline != deadline)
        bus_call_full(timer->clock->bus, clock_full_arm, &arm);
}

/* Timers leave the heap under the device lock, which the caller holds. */
void clock_timer_cancel(struct clock_timer *timer) {
    if (timer->position)
        bus_call_full(timer->clock->bus, clock_full_cancel, timer);
}

bool clock_timer_is_armed(const struct clock_timer *timer) {
    return timer->position != 0;
}
