/*
 * What the character backends share: a descriptor or two, a bounded output buffer, and pending input.
 *
 * Each kind fills in a char_backend and its char_kind; buffering, flow control and the event loop are in char.c.
 */
#ifndef DEVICES_BACKENDS_CHAR_INTERNAL_H
#define DEVICES_BACKENDS_CHAR_INTERNAL_H

#include <termios.h>

#include "devices/backends/char.h"
#include "devices/bus.h"
#include "devices/event_loop.h"

#define CHAR_OUTPUT_SIZE 65536
#define CHAR_INPUT_SIZE  256

struct char_kind {
    /* May be NULL. Looks at input before the device gets it and may take bytes out; returns how many are left. */
    size_t (*filter)(struct char_backend *backend, uint8_t *bytes, size_t count);
    /* May be NULL. Input ended or output failed; may come more than once. */
    void (*hung_up)(struct char_backend *backend);
    void (*release)(struct char_backend *backend);
    /* Whether output may be thrown away while the other side does not read it: nobody may ever attach to a pty. */
    bool drops_output;
};

struct char_backend {
    const struct char_kind *kind;
    struct event_loop *loop;
    struct bus *bus;
    struct char_frontend frontend;
    struct char_escapes escapes;
    char description[160];

    struct event_source input, output; /* one and the same descriptor for a socket: then only `input` is used */
    int input_fd, output_fd;           /* -1: none */
    bool output_is_blocking;           /* ask poll() first, write little at a time */
    bool is_frontend_waiting;          /* char_write took less than all */
    bool has_stalled;                  /* char_write_all waited in vain: it does not wait again */
    bool has_ended;                    /* no more input to come */
    uint8_t pending[CHAR_INPUT_SIZE];  /* read, and not taken by the device yet */
    size_t pending_at, pending_count;
    uint8_t *buffer; /* a ring of CHAR_OUTPUT_SIZE, made when first needed */
    size_t buffer_at, buffer_count;

    int listen_fd, slave_fd;
    struct event_source listener;
    char *path; /* of a socket to unlink */
    struct termios saved, raw;
    bool is_terminal, has_seen_escape, has_escapes;
};

/* An empty backend; NULL when the host has no memory. */
struct char_backend *char_new(const struct char_kind *kind, struct event_loop *loop, char *error, size_t size);

/* Starts to serve input_fd and output_fd. Under the device lock. False, with errno, when the host refuses. */
bool char_start(struct char_backend *backend);
/* Stops serving and forgets both descriptors without closing them. Under the device lock. */
void char_stop(struct char_backend *backend);
void char_tell(struct char_backend *backend, enum char_event event);

/* A descriptor of one's own for `fd` that doesn't block, or -1: O_NONBLOCK on a shared one would reach other programs.
 */
int char_reopen(int fd, int flags);

typedef struct char_backend *char_opener(const char *argument, struct event_loop *loop, char *error, size_t size);
char_opener char_open_null, char_open_stdio, char_open_mon_stdio, char_open_file, char_open_pty, char_open_unix,
    char_open_tcp;

#endif
