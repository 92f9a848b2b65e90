/* The inside of a clock: clock.c is the thread and the heap, clock_light.c what light code calls. */
#ifndef DEVICES_CLOCK_STATE_H
#define DEVICES_CLOCK_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "devices/clock.h"

#define CLOCK_RUNNING UINT64_MAX /* stopped_at while time goes on */

/* The last full reading, from which the host's time-stamp counter tells the time for a while. Under the device lock. */
struct clock_anchor {
    uint64_t tsc, now, most; /* most: cycles for which it holds; 0: it does not */
    int64_t wall;
    uint64_t origin;         /* of the clock, at that time */
    uint64_t scale;          /* nanoseconds in 2^32 cycles, a little less than true; 0: unknown */
    uint64_t base_tsc, base_now; /* the reading that the scale is measured from */
};

struct clock {
    struct bus *bus;
    bool is_manual, has_anchors;
    _Atomic uint64_t origin;     /* host time that is 0 here */
    _Atomic uint64_t stopped_at; /* what clock_now tells while paused or manual; else CLOCK_RUNNING */

    struct clock_anchor anchor;

    pthread_mutex_t mutex; /* everything below */
    pthread_cond_t changed;
    pthread_t thread;
    bool is_ending;
    uint64_t wakes_at;         /* when the thread looks at the heap next by itself; 0 while it is awake */
    struct clock_timer **heap; /* from 1; the earliest is at 1 */
    unsigned count, capacity;
};


/* Any thread; calls libc. */
uint64_t clock_host_now(void);
uint64_t clock_full_now(const struct clock *clock);

/* For bus_call_full. */
struct clock_arm {
    struct clock_timer *timer;
    uint64_t deadline;
};
uint64_t clock_full_arm(void *arm);
uint64_t clock_full_cancel(void *timer);
/* Takes an anchor, and answers what the clock says. */
uint64_t clock_full_anchor(void *clock);
/* The wall clock, in nanoseconds since 1970. */
uint64_t clock_full_wall(void *clock);

#endif
