/*
 * What all character backends do alike: choosing one by its spec, buffered output, input at the device's pace.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "devices/backends/char_internal.h"

#define PATIENCE_MS 1000

/* ---- Opening --------------------------------------------------------------------------------------------------- */

static const struct {
    const char *prefix; /* with a colon where an argument follows */
    char_opener *open;
} kinds[] = {
    {"null", char_open_null},  {"stdio", char_open_stdio}, {"mon:stdio", char_open_mon_stdio},
    {"file:", char_open_file}, {"pty", char_open_pty},     {"unix:", char_open_unix},
    {"tcp:", char_open_tcp},
};

static char_opener *find_kind(const char *spec, const char **argument) {
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        size_t length = strlen(kinds[i].prefix);
        bool takes_argument = kinds[i].prefix[length - 1] == ':';
        if (takes_argument ? strncmp(spec, kinds[i].prefix, length) == 0 : strcmp(spec, kinds[i].prefix) == 0) {
            *argument = spec + length;
            return kinds[i].open;
        }
    }
    return NULL;
}

struct char_backend *char_open(const char *spec, struct event_loop *loop, const struct char_escapes *escapes,
                               char *error, size_t error_size) {
    const char *argument;
    char_opener *open = find_kind(spec, &argument);
    if (!open) {
        if (strncmp(spec, "mon:", 4) == 0)
            snprintf(error, error_size, "'%s': mon: goes with stdio only", spec);
        else
            snprintf(error, error_size,
                     "unknown character device '%s' (null, stdio, mon:stdio, file:PATH, pty, unix:PATH, tcp:HOST:PORT)",
                     spec);
        return NULL;
    }
    struct char_backend *backend = open(argument, loop, error, error_size);
    if (backend && escapes)
        backend->escapes = *escapes;
    return backend;
}

struct char_backend *char_new(const struct char_kind *kind, struct event_loop *loop, char *error, size_t size) {
    struct char_backend *backend = calloc(1, sizeof(*backend));
    if (!backend) {
        snprintf(error, size, "out of memory");
        return NULL;
    }
    backend->kind = kind;
    backend->loop = loop;
    backend->bus = event_loop_bus(loop);
    backend->input_fd = backend->output_fd = backend->listen_fd = backend->slave_fd = -1;
    return backend;
}

int char_reopen(int fd, int flags) {
    char path[32];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

const char *char_description(const struct char_backend *backend) {
    return backend->description;
}

void char_tell(struct char_backend *backend, enum char_event event) {
    if (backend->frontend.event)
        backend->frontend.event(backend->frontend.opaque, event);
}

/* ---- The event loop -------------------------------------------------------------------------------------------- */

static void update_wanted(struct char_backend *backend) {
    /* A terminal with escapes is read even when the device takes nothing: Ctrl-A x must work then too. */
    bool wants_input =
        backend->frontend.receive && !backend->has_ended && (backend->pending_count == 0 || backend->has_escapes);
    unsigned input = wants_input ? EVENT_READABLE : 0, output = backend->buffer_count ? EVENT_WRITABLE : 0;
    if (backend->input_fd >= 0 && backend->input_fd == backend->output_fd) {
        event_loop_want(&backend->input, input | output);
        return;
    }
    if (backend->input_fd >= 0)
        event_loop_want(&backend->input, input);
    if (backend->output_fd >= 0)
        event_loop_want(&backend->output, output);
}

static void hang_up(struct char_backend *backend) {
    if (backend->kind->hung_up)
        backend->kind->hung_up(backend);
}

/* ---- Output ---------------------------------------------------------------------------------------------------- */

/* A write that does not block: how many bytes went out, 0 when there is no room, -1 when nobody will read them. */
static ssize_t write_now(struct char_backend *backend, const uint8_t *bytes, size_t count) {
    ssize_t written;
    if (backend->output_is_blocking) {
        struct pollfd ready = {.fd = backend->output_fd, .events = POLLOUT};
        if (poll(&ready, 1, 0) <= 0)
            return 0;
        count = count < 256 ? count : 256;
    }
    do {
        written = send(backend->output_fd, bytes, count, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (written < 0 && errno == ENOTSOCK)
            written = write(backend->output_fd, bytes, count);
    } while (written < 0 && errno == EINTR);
    if (written < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return 0;
    return written;
}

/* A write failed: the other side is gone, or a disk is full. What waits is lost; later writes try again. */
static void drop_output(struct char_backend *backend) {
    backend->buffer_count = 0;
    hang_up(backend);
}

static void flush(struct char_backend *backend) {
    while (backend->buffer_count && backend->output_fd >= 0) {
        size_t length = CHAR_OUTPUT_SIZE - backend->buffer_at;
        if (length > backend->buffer_count)
            length = backend->buffer_count;
        ssize_t written = write_now(backend, backend->buffer + backend->buffer_at, length);
        if (written == 0)
            return;
        if (written < 0) {
            drop_output(backend);
            return;
        }
        backend->buffer_at = (backend->buffer_at + (size_t)written) % CHAR_OUTPUT_SIZE;
        backend->buffer_count -= (size_t)written;
    }
}

static size_t buffer_append(struct char_backend *backend, const uint8_t *bytes, size_t count) {
    if (!backend->buffer && !(backend->buffer = malloc(CHAR_OUTPUT_SIZE)))
        return 0;
    size_t room = CHAR_OUTPUT_SIZE - backend->buffer_count;
    if (count > room)
        count = room;
    for (size_t i = 0; i < count; i++)
        backend->buffer[(backend->buffer_at + backend->buffer_count + i) % CHAR_OUTPUT_SIZE] = bytes[i];
    backend->buffer_count += count;
    return count;
}

size_t char_write(struct char_backend *backend, const uint8_t *bytes, size_t count) {
    size_t done = 0;
    while (done < count && backend->output_fd >= 0 && backend->buffer_count == 0) {
        ssize_t written = write_now(backend, bytes + done, count - done);
        if (written == 0)
            break;
        if (written < 0) {
            drop_output(backend);
            return count;
        }
        done += (size_t)written;
    }
    if (backend->output_fd < 0)
        return count;
    if (done < count) {
        done += buffer_append(backend, bytes + done, count - done);
        update_wanted(backend);
    }
    if (done == count || backend->kind->drops_output)
        return count;
    backend->is_frontend_waiting = true;
    return done;
}

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/*
 * Waits until no more than `rest` bytes are buffered. False after a second: the last words of a guest must not be lost,
 * nor a dead reader keep us.
 */
static bool drain(struct char_backend *backend, size_t rest) {
    int64_t end = now_ms() + PATIENCE_MS;
    while (backend->buffer_count > rest && backend->output_fd >= 0 && !backend->kind->drops_output) {
        int64_t left = end - now_ms();
        struct pollfd room = {.fd = backend->output_fd, .events = POLLOUT};
        if (left <= 0 || (poll(&room, 1, (int)left) < 0 && errno != EINTR))
            return false;
        flush(backend);
    }
    return true;
}

void char_write_all(struct char_backend *backend, const uint8_t *bytes, size_t count) {
    size_t done = char_write(backend, bytes, count);
    while (done < count && !backend->has_stalled) {
        if (drain(backend, CHAR_OUTPUT_SIZE / 2))
            done += char_write(backend, bytes + done, count - done);
        else
            backend->has_stalled = true;
    }
}

static void output_ready(struct char_backend *backend) {
    flush(backend);
    if (backend->buffer_count < CHAR_OUTPUT_SIZE / 2)
        backend->has_stalled = false;
    if (backend->is_frontend_waiting && backend->buffer_count < CHAR_OUTPUT_SIZE / 2) {
        backend->is_frontend_waiting = false;
        if (backend->frontend.writable)
            backend->frontend.writable(backend->frontend.opaque);
    }
}

/* ---- Input ----------------------------------------------------------------------------------------------------- */

static void deliver(struct char_backend *backend) {
    const struct char_frontend *frontend = &backend->frontend;
    while (backend->pending_count && frontend->receive) {
        size_t count = frontend->room ? frontend->room(frontend->opaque) : backend->pending_count;
        if (count > backend->pending_count)
            count = backend->pending_count;
        if (count == 0)
            return;
        const uint8_t *bytes = backend->pending + backend->pending_at;
        backend->pending_at += count;
        backend->pending_count -= count;
        frontend->receive(frontend->opaque, bytes, count);
    }
}

static void append_pending(struct char_backend *backend, const uint8_t *bytes, size_t count) {
    memmove(backend->pending, backend->pending + backend->pending_at, backend->pending_count);
    backend->pending_at = 0;
    size_t room = CHAR_INPUT_SIZE - backend->pending_count;
    if (count > room) /* only typing that nobody reads gets here */
        count = room;
    memcpy(backend->pending + backend->pending_count, bytes, count);
    backend->pending_count += count;
}

static void input_ready(struct char_backend *backend) {
    uint8_t bytes[CHAR_INPUT_SIZE];
    ssize_t got;
    do {
        got = read(backend->input_fd, bytes, sizeof(bytes));
    } while (got < 0 && errno == EINTR);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return;
    if (got <= 0) {
        backend->has_ended = true;
        hang_up(backend);
        return;
    }
    size_t count = (size_t)got;
    if (backend->kind->filter)
        count = backend->kind->filter(backend, bytes, count);
    append_pending(backend, bytes, count);
    deliver(backend);
}

void char_accept_input(struct char_backend *backend) {
    if (!backend->pending_count)
        return;
    deliver(backend);
    update_wanted(backend);
}

static void ready(void *opaque, unsigned events) {
    struct char_backend *backend = opaque;
    if (events & EVENT_WRITABLE)
        output_ready(backend);
    if (events & EVENT_READABLE && backend->input_fd >= 0)
        input_ready(backend);
    update_wanted(backend);
}

/* ---- Life ------------------------------------------------------------------------------------------------------ */

static bool start_source(struct char_backend *backend, struct event_source *source, int fd) {
    source->fd = fd;
    source->ready = ready;
    source->opaque = backend;
    return event_loop_add(backend->loop, source, 0);
}

bool char_start(struct char_backend *backend) {
    bool is_shared = backend->input_fd == backend->output_fd;
    backend->has_ended = false;
    if (backend->input_fd >= 0 && !start_source(backend, &backend->input, backend->input_fd))
        return false;
    if (backend->output_fd >= 0 && !is_shared && !start_source(backend, &backend->output, backend->output_fd))
        return false;
    update_wanted(backend);
    return true;
}

void char_stop(struct char_backend *backend) {
    if (backend->input.loop)
        event_loop_remove(&backend->input);
    if (backend->output.loop)
        event_loop_remove(&backend->output);
    backend->input.loop = backend->output.loop = NULL;
    backend->input_fd = backend->output_fd = -1;
    backend->buffer_count = 0;
    if (backend->is_frontend_waiting) {
        backend->is_frontend_waiting = false;
        if (backend->frontend.writable)
            backend->frontend.writable(backend->frontend.opaque);
    }
}

void char_connect(struct char_backend *backend, const struct char_frontend *frontend) {
    backend->frontend = *frontend;
    update_wanted(backend);
}

void char_close(struct char_backend *backend) {
    if (!backend)
        return;
    bus_lock(backend->bus);
    backend->frontend = (struct char_frontend){0};
    drain(backend, 0);
    char_restore_terminal(backend);
    if (backend->kind->release)
        backend->kind->release(backend);
    char_stop(backend);
    bus_unlock(backend->bus);
    free(backend->buffer);
    free(backend->path);
    free(backend);
}
