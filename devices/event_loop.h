/*
 * One host thread that waits for file descriptors and calls back under the device lock. Character, block and network
 * backends hang on it; chips never see it.
 */
#ifndef DEVICES_EVENT_LOOP_H
#define DEVICES_EVENT_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct bus;
struct event_loop;

enum { EVENT_READABLE = 1, EVENT_WRITABLE = 2 };

/* Owned by whoever adds it; it stays in place until it was removed. */
struct event_source {
    int fd;
    /* `events` holds at least one bit of what was asked for; an error or a hang-up counts as both. */
    void (*ready)(void *opaque, unsigned events);
    void *opaque;
    /* The loop's own. */
    struct event_loop *loop;
    unsigned wanted, slot;
    uint32_t generation;
    bool is_always_ready; /* a regular file: epoll refuses it */
    bool is_in_epoll;
};

/* Starts the thread. NULL, with errno, when the host has no descriptors, memory or threads left. */
struct event_loop *event_loop_create(struct bus *bus);
/* Ends the thread. Sources that are still there are forgotten. Not under the device lock. */
void event_loop_destroy(struct event_loop *loop);
/* The bus whose device lock the loop takes. */
struct bus *event_loop_bus(const struct event_loop *loop);

/*
 * Under the device lock, from any thread; after event_loop_remove returned, `ready` is not called again. False, with
 * errno, when the host refuses. A source that wants nothing is not watched at all, hang-ups included. Fill in fd, ready
 * and opaque first.
 */
bool event_loop_add(struct event_loop *loop, struct event_source *source, unsigned wanted);
bool event_loop_want(struct event_source *source, unsigned wanted);
void event_loop_remove(struct event_source *source);

#endif
