/*
 * The event loop: epoll, level-triggered, and a table from slot to source.
 *
 * What epoll reports names a slot and its generation, and is looked up under the device lock, so that a source removed
 * between the report and the call is not called. Regular files are always ready and are served with a zero timeout.
 */
#include "devices/event_loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "devices/bus.h"

#define MAX_SOURCES 256
#define WAKE_SLOT   UINT32_MAX

struct event_loop {
    struct bus *bus;
    pthread_t thread;
    int epoll_fd, wake_fd;
    atomic_bool is_ending;
    atomic_uint always_ready; /* sources that want something now and need no waiting */
    uint32_t generation;
    struct event_source *sources[MAX_SOURCES]; /* under the device lock */
};

static void wake(struct event_loop *loop) {
    uint64_t one = 1;
    ssize_t written = write(loop->wake_fd, &one, sizeof(one));
    (void)written; /* it fails only when the counter is high already */
}

static uint32_t epoll_events_of(unsigned wanted) {
    return (wanted & EVENT_READABLE ? (uint32_t)EPOLLIN : 0) | (wanted & EVENT_WRITABLE ? (uint32_t)EPOLLOUT : 0);
}

static void dispatch(struct event_loop *loop, const struct epoll_event *event) {
    uint32_t slot = (uint32_t)event->data.u64, generation = (uint32_t)(event->data.u64 >> 32);
    if (slot == WAKE_SLOT) {
        uint64_t count;
        ssize_t got = read(loop->wake_fd, &count, sizeof(count));
        (void)got;
        return;
    }
    bus_lock(loop->bus);
    struct event_source *source = loop->sources[slot];
    if (source && source->generation == generation) {
        unsigned events = (event->events & EPOLLIN ? EVENT_READABLE : 0u) |
                          (event->events & EPOLLOUT ? EVENT_WRITABLE : 0u) |
                          (event->events & (EPOLLERR | EPOLLHUP) ? EVENT_READABLE | EVENT_WRITABLE : 0u);
        if (events & source->wanted)
            source->ready(source->opaque, events & source->wanted);
    }
    bus_unlock(loop->bus);
}

static void dispatch_always_ready(struct event_loop *loop) {
    bus_lock(loop->bus);
    for (unsigned slot = 0; slot < MAX_SOURCES; slot++) {
        struct event_source *source = loop->sources[slot];
        if (source && source->is_always_ready && source->wanted)
            source->ready(source->opaque, source->wanted);
    }
    bus_unlock(loop->bus);
}

static void *loop_thread(void *argument) {
    struct event_loop *loop = argument;
    prctl(PR_SET_NAME, "trapeze-io");
    while (!atomic_load(&loop->is_ending)) {
        struct epoll_event events[16];
        int count = epoll_wait(loop->epoll_fd, events, 16, atomic_load(&loop->always_ready) ? 0 : -1);
        for (int i = 0; i < count; i++)
            dispatch(loop, &events[i]);
        if (atomic_load(&loop->always_ready))
            dispatch_always_ready(loop);
    }
    return NULL;
}

struct event_loop *event_loop_create(struct bus *bus) {
    struct event_loop *loop = calloc(1, sizeof(*loop));
    if (!loop)
        return NULL;
    loop->bus = bus;
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = WAKE_SLOT};
    if (loop->epoll_fd < 0 || loop->wake_fd < 0 || epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &event) != 0)
        goto failed;
    int status = pthread_create(&loop->thread, NULL, loop_thread, loop);
    if (status == 0)
        return loop;
    errno = status;
failed:
    if (loop->epoll_fd >= 0)
        close(loop->epoll_fd);
    if (loop->wake_fd >= 0)
        close(loop->wake_fd);
    free(loop);
    return NULL;
}

void event_loop_destroy(struct event_loop *loop) {
    if (!loop)
        return;
    atomic_store(&loop->is_ending, true);
    wake(loop);
    pthread_join(loop->thread, NULL);
    close(loop->epoll_fd);
    close(loop->wake_fd);
    free(loop);
}

struct bus *event_loop_bus(const struct event_loop *loop) {
    return loop->bus;
}

bool event_loop_add(struct event_loop *loop, struct event_source *source, unsigned wanted) {
    unsigned slot = 0;
    while (slot < MAX_SOURCES && loop->sources[slot])
        slot++;
    if (slot == MAX_SOURCES) {
        errno = ENOSPC;
        return false;
    }
    source->loop = loop;
    source->slot = slot;
    source->generation = ++loop->generation;
    source->wanted = 0;
    source->is_always_ready = source->is_in_epoll = false;
    loop->sources[slot] = source;
    if (event_loop_want(source, wanted))
        return true;
    loop->sources[slot] = NULL;
    return false;
}

static void want_always_ready(struct event_source *source, unsigned wanted) {
    struct event_loop *loop = source->loop;
    if (wanted && !source->wanted) {
        atomic_fetch_add(&loop->always_ready, 1);
        wake(loop);
    } else if (!wanted && source->wanted) {
        atomic_fetch_sub(&loop->always_ready, 1);
    }
    source->wanted = wanted;
}

bool event_loop_want(struct event_source *source, unsigned wanted) {
    if (wanted == source->wanted)
        return true;
    if (source->is_always_ready) {
        want_always_ready(source, wanted);
        return true;
    }
    struct epoll_event event = {
        .events = epoll_events_of(wanted),
        .data.u64 = (uint64_t)source->generation << 32 | source->slot,
    };
    int operation = !wanted ? EPOLL_CTL_DEL : source->is_in_epoll ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (epoll_ctl(source->loop->epoll_fd, operation, source->fd, &event) != 0) {
        if (errno != EPERM || operation != EPOLL_CTL_ADD)
            return false;
        source->is_always_ready = true;
        want_always_ready(source, wanted);
        return true;
    }
    source->is_in_epoll = wanted != 0;
    source->wanted = wanted;
    return true;
}

void event_loop_remove(struct event_source *source) {
    event_loop_want(source, 0);
    source->loop->sources[source->slot] = NULL;
}
