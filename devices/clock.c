/*
 * The machine's clock and its timers: a binary heap of deadlines, served by one host thread on CLOCK_MONOTONIC, or
 * stepped by hand.
 *
 * Lock order: device lock, then clock->mutex. A timer leaves the heap and its callback starts under one hold of the
 * device lock, so a cancel (made under that lock) is final.
 */
#include <cpuid.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

#include "devices/bus.h"
#include "devices/clock_state.h"

uint64_t clock_host_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t clock_full_now(const struct clock *clock) {
    uint64_t origin, stopped_at, now;
    do { /* a pause and a resume in between would mix two origins */
        origin = atomic_load_explicit(&clock->origin, memory_order_acquire);
        stopped_at = atomic_load_explicit(&clock->stopped_at, memory_order_acquire);
        now = stopped_at == CLOCK_RUNNING ? clock_host_now() - origin : stopped_at;
    } while (origin != atomic_load_explicit(&clock->origin, memory_order_acquire));
    return now;
}

/* ---- The heap -------------------------------------------------------------------------------------------------- */

static void heap_place(struct clock *clock, unsigned position, struct clock_timer *timer) {
    clock->heap[position] = timer;
    timer->position = position;
}

static void heap_sift(struct clock *clock, unsigned position) {
    struct clock_timer *timer = clock->heap[position];
    while (position > 1 && clock->heap[position / 2]->deadline > timer->deadline) {
        heap_place(clock, position, clock->heap[position / 2]);
        position /= 2;
    }
    for (;;) {
        unsigned child = position * 2;
        if (child > clock->count)
            break;
        if (child < clock->count && clock->heap[child + 1]->deadline < clock->heap[child]->deadline)
            child++;
        if (clock->heap[child]->deadline >= timer->deadline)
            break;
        heap_place(clock, position, clock->heap[child]);
        position = child;
    }
    heap_place(clock, position, timer);
}

static void heap_remove(struct clock *clock, struct clock_timer *timer) {
    unsigned position = timer->position;
    timer->position = 0;
    struct clock_timer *last = clock->heap[clock->count--];
    if (last == timer)
        return;
    heap_place(clock, position, last);
    heap_sift(clock, position);
}

/* Takes the earliest timer that is due at `now`, or NULL. */
static struct clock_timer *heap_take_due(struct clock *clock, uint64_t now) {
    pthread_mutex_lock(&clock->mutex);
    struct clock_timer *timer = clock->count ? clock->heap[1] : NULL;
    if (timer && timer->deadline <= now)
        heap_remove(clock, timer);
    else
        timer = NULL;
    pthread_mutex_unlock(&clock->mutex);
    return timer;
}

/* ---- The thread ------------------------------------------------------------------------------------------------ */

static struct timespec host_time_of(const struct clock *clock, uint64_t deadline) {
    uint64_t host = deadline + atomic_load(&clock->origin);
    if (host < deadline) /* beyond the end of time */
        host = UINT64_MAX;
    return (struct timespec){.tv_sec = (time_t)(host / 1000000000u), .tv_nsec = (long)(host % 1000000000u)};
}

/* Sleeps until the earliest timer is due. False when the clock goes away. */
static bool wait_until_due(struct clock *clock) {
    pthread_mutex_lock(&clock->mutex);
    while (!clock->is_ending) {
        clock->wakes_at = UINT64_MAX;
        if (clock->count == 0 || atomic_load(&clock->stopped_at) != CLOCK_RUNNING) {
            pthread_cond_wait(&clock->changed, &clock->mutex);
            continue;
        }
        clock->wakes_at = clock->heap[1]->deadline;
        if (clock->wakes_at <= clock_full_now(clock))
            break;
        struct timespec until = host_time_of(clock, clock->wakes_at);
        pthread_cond_timedwait(&clock->changed, &clock->mutex, &until);
    }
    clock->wakes_at = 0;
    bool goes_on = !clock->is_ending;
    pthread_mutex_unlock(&clock->mutex);
    return goes_on;
}

static void *clock_thread(void *argument) {
    struct clock *clock = argument;
    prctl(PR_SET_NAME, "trapeze-clock");
    prctl(PR_SET_TIMERSLACK, 1UL); /* the default of 50 us is as long as a guest's shortest timers */
    while (wait_until_due(clock)) {
        bus_lock(clock->bus);
        /* One reading of time a round: a timer that re-arms into the past cannot keep the lock. What is due must be so for
           its callback, too. */
        uint64_t now = clock_full_anchor(clock);
        for (struct clock_timer *timer;
             atomic_load(&clock->stopped_at) == CLOCK_RUNNING && (timer = heap_take_due(clock, now));)
            timer->expired(timer->opaque);
        bus_unlock(clock->bus);
    }
    return NULL;
}

/* ---- Clocks ---------------------------------------------------------------------------------------------------- */

/* Whether the counter runs at one speed whatever the host's CPUs do (SDM vol. 3B, 17.17.1). */
static bool has_steady_counter(void) {
    unsigned a, b, c, d = 0;
    return __get_cpuid(0x80000007, &a, &b, &c, &d) && (d >> 8 & 1);
}

static struct clock *clock_new(struct bus *bus, bool is_manual) {
    struct clock *clock = calloc(1, sizeof(*clock));
    if (!clock)
        return NULL;
    clock->bus = bus;
    clock->is_manual = is_manual;
    clock->has_anchors = !is_manual && has_steady_counter();
    clock->capacity = 64;
    clock->heap = calloc(clock->capacity, sizeof(struct clock_timer *));
    if (!clock->heap) {
        free(clock);
        return NULL;
    }
    atomic_init(&clock->origin, clock_host_now());
    atomic_init(&clock->stopped_at, is_manual ? 0 : CLOCK_RUNNING);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&clock->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&clock->mutex, NULL);
    return clock;
}

static void clock_free(struct clock *clock) {
    pthread_cond_destroy(&clock->changed);
    pthread_mutex_destroy(&clock->mutex);
    free(clock->heap);
    free(clock);
}

struct clock *clock_create(struct bus *bus) {
    struct clock *clock = clock_new(bus, false);
    if (clock && pthread_create(&clock->thread, NULL, clock_thread, clock) != 0) {
        clock_free(clock);
        return NULL;
    }
    return clock;
}

struct clock *clock_create_manual(struct bus *bus) {
    return clock_new(bus, true);
}

void clock_destroy(struct clock *clock) {
    if (!clock)
        return;
    if (!clock->is_manual) {
        pthread_mutex_lock(&clock->mutex);
        clock->is_ending = true;
        pthread_cond_signal(&clock->changed);
        pthread_mutex_unlock(&clock->mutex);
        pthread_join(clock->thread, NULL);
    }
    clock_free(clock);
}

void clock_step(struct clock *clock, uint64_t nanoseconds) {
    uint64_t end = atomic_load(&clock->stopped_at) + nanoseconds;
    bus_lock(clock->bus);
    for (struct clock_timer *timer; (timer = heap_take_due(clock, end));) {
        if (timer->deadline > atomic_load(&clock->stopped_at))
            atomic_store(&clock->stopped_at, timer->deadline);
        timer->expired(timer->opaque);
    }
    atomic_store(&clock->stopped_at, end);
    bus_unlock(clock->bus);
}

void clock_pause(struct clock *clock) {
    if (clock->is_manual)
        return;
    pthread_mutex_lock(&clock->mutex);
    if (atomic_load(&clock->stopped_at) == CLOCK_RUNNING)
        atomic_store(&clock->stopped_at, clock_full_now(clock));
    pthread_mutex_unlock(&clock->mutex);
}

void clock_resume(struct clock *clock) {
    if (clock->is_manual)
        return;
    pthread_mutex_lock(&clock->mutex);
    uint64_t stopped_at = atomic_load(&clock->stopped_at);
    if (stopped_at != CLOCK_RUNNING) {
        atomic_store(&clock->origin, clock_host_now() - stopped_at);
        atomic_store(&clock->stopped_at, CLOCK_RUNNING);
        pthread_cond_signal(&clock->changed);
    }
    pthread_mutex_unlock(&clock->mutex);
}

/* ---- Timers ---------------------------------------------------------------------------------------------------- */

/* Room for one more timer. A machine has a few dozen, made at its start; without memory for them it cannot go on. */
static void heap_reserve(struct clock *clock) {
    if (clock->count + 1 < clock->capacity)
        return;
    unsigned capacity = clock->capacity * 2;
    struct clock_timer **heap = realloc(clock->heap, capacity * sizeof(struct clock_timer *));
    if (!heap)
        abort();
    clock->heap = heap;
    clock->capacity = capacity;
}

uint64_t clock_full_arm(void *argument) {
    struct clock_timer *timer = ((struct clock_arm *)argument)->timer;
    uint64_t deadline = ((struct clock_arm *)argument)->deadline;
    struct clock *clock = timer->clock;
    pthread_mutex_lock(&clock->mutex);
    timer->deadline = deadline;
    if (!timer->position) {
        heap_reserve(clock);
        heap_place(clock, ++clock->count, timer);
    }
    heap_sift(clock, timer->position);
    if (deadline < clock->wakes_at)
        pthread_cond_signal(&clock->changed);
    pthread_mutex_unlock(&clock->mutex);
    return 0;
}

uint64_t clock_full_cancel(void *argument) {
    struct clock_timer *timer = argument;
    pthread_mutex_lock(&timer->clock->mutex);
    if (timer->position)
        heap_remove(timer->clock, timer);
    pthread_mutex_unlock(&timer->clock->mutex);
    return 0;
}

/* ---- Anchors --------------------------------------------------------------------------------------------------- */

enum { LIGHT_NS = 50000, SCALE_NS = 2000000, SCALE_MOST_NS = 1000000000, /* below 2^32 */ MOST_CYCLES = 2000 };

static uint64_t cycles(void) {
    return __builtin_ia32_rdtsc();
}

static uint64_t host_wall(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)((int64_t)now.tv_sec * 1000000000 + now.tv_nsec);
}

/* Between two anchors that are some milliseconds apart; a thousandth less, so that it never runs ahead of a full reading. */
static void measure_scale(struct clock_anchor *anchor, uint64_t tsc, uint64_t now) {
    uint64_t passed = now - anchor->base_now, cycles_passed = tsc - anchor->base_tsc;
    bool is_measure = anchor->base_tsc && passed >= SCALE_NS && passed < SCALE_MOST_NS;
    if (is_measure && cycles_passed > passed / 16 && cycles_passed < passed * 16) {
        uint64_t scale = (passed << 32) / cycles_passed;
        anchor->scale = scale - scale / 1024;
    }
    if (passed >= SCALE_NS || !anchor->base_tsc) {
        anchor->base_tsc = tsc;
        anchor->base_now = now;
    }
}

uint64_t clock_full_anchor(void *argument) {
    struct clock *clock = argument;
    struct clock_anchor *anchor = &clock->anchor;
    uint64_t before = cycles(), now = clock_full_now(clock);
    int64_t wall = (int64_t)host_wall();
    uint64_t after = cycles();
    anchor->most = 0;
    if (!clock->has_anchors || atomic_load(&clock->stopped_at) != CLOCK_RUNNING || after - before > MOST_CYCLES)
        return now; /* where the thread was preempted in between, the counter tells nothing */
    anchor->tsc = after;
    anchor->now = now;
    anchor->wall = wall;
    anchor->origin = atomic_load(&clock->origin);
    measure_scale(anchor, after, now);
    if (anchor->scale)
        anchor->most = ((uint64_t)LIGHT_NS << 32) / anchor->scale;
    return now;
}

uint64_t clock_full_wall(void *argument) {
    clock_full_anchor(argument);
    return host_wall();
}
