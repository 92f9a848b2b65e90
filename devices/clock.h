/*
 * The machine's time, in nanoseconds since it was created, and timers on it.
 *
 * One clock object a machine: the host's monotonic clock served by a thread, or a manual one that tests step. Timer
 * callbacks run under the device lock (bus_lock), never while arm or cancel is on the stack.
 */
#ifndef DEVICES_CLOCK_H
#define DEVICES_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

struct bus;
struct clock;

struct clock_timer {
    void (*expired)(void *opaque);
    void *opaque;
    struct clock *clock;
    uint64_t deadline; /* ns; valid while armed */
    unsigned position; /* in the clock's heap, 0 while not armed */
};

/* Starts the timer thread. NULL when the host has no memory or no threads left. */
struct clock *clock_create(struct bus *bus);
/* For tests: time stands still until clock_step. */
struct clock *clock_create_manual(struct bus *bus);
void clock_destroy(struct clock *clock);

/* ns. Under the device lock, but for a manual clock; light code, as all below. */
uint64_t clock_now(const struct clock *clock);
/* The host's wall clock, ns since 1970. Under the device lock. */
int64_t clock_wall(const struct clock *clock);
/* Steps a manual clock forward, firing timers at their deadlines in order. Takes the device lock. */
void clock_step(struct clock *clock, uint64_t nanoseconds);
/* While paused, time stands still and nothing fires. */
void clock_pause(struct clock *clock);
void clock_resume(struct clock *clock);

void clock_timer_init(struct clock_timer *timer, struct clock *clock, void (*expired)(void *opaque), void *opaque);
/* (Re)arms for an absolute time; a past one fires at once, on the clock's thread. Under the device lock. */
void clock_timer_arm(struct clock_timer *timer, uint64_t deadline);
void clock_timer_cancel(struct clock_timer *timer);
bool clock_timer_is_armed(const struct clock_timer *timer);

#endif
