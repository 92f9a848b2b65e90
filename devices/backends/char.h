/*
 * Character backends: what stands behind a serial port or a debug console on the host.
 *
 * A device writes without ever blocking, and gets input as fast as it says it can take it. Everything here is called,
 * and calls back, under the device lock, except where said otherwise.
 */
#ifndef DEVICES_BACKENDS_CHAR_H
#define DEVICES_BACKENDS_CHAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct event_loop;
struct char_backend;

enum char_event { CHAR_OPENED, CHAR_CLOSED, CHAR_BREAK };

/* The device's side; every function may be NULL. */
struct char_frontend {
    size_t (*room)(void *opaque); /* how many bytes `receive` takes now */
    void (*receive)(void *opaque, const uint8_t *bytes, size_t count);
    void (*writable)(void *opaque); /* after char_write took less than all: there is room again */
    void (*event)(void *opaque, enum char_event event);
    void *opaque;
};

/* What a terminal's Ctrl-A commands ask of the machine; may be NULL. */
struct char_escapes {
    void (*quit)(void *opaque); /* Ctrl-A x, or the terminal was closed; maybe more than once */
    void *opaque;
};

/*
 * Opens what `spec` names, in QEMU's spelling:
 *   null                        swallows all
 *   stdio                       this process's standard input and output; Ctrl-C stays the host's
 *   mon:stdio                   the same, with Ctrl-A commands, and Ctrl-C goes to the guest
 *   file:PATH                   output only; the file is made or truncated
 *   pty                         a new pseudo terminal; char_description names it
 *   unix:PATH[,server=on|off][,wait=on|off]
 *   tcp:HOST:PORT[,server=on|off][,wait=on|off]
 *                               also `server`, `nowait`; a server waits here for its first client unless told not to
 * NULL on failure, with one line without its end in `error` that names the bad thing. Takes the device lock itself.
 */
struct char_backend *char_open(const char *spec, struct event_loop *loop, const struct char_escapes *escapes,
                               char *error, size_t error_size);
/* Writes out what is buffered, waiting at most a second, and closes. Restores the terminal. Takes the device lock. */
void char_close(struct char_backend *backend);

/* One backend serves one device. Input starts to flow now. */
void char_connect(struct char_backend *backend, const struct char_frontend *frontend);

/*
 * Sends without blocking; up to 64 KiB wait in a buffer. The number of bytes taken: less than count only when the other
 * side does not read; `writable` is called later. What has nobody on the other side takes all and drops it.
 */
size_t char_write(struct char_backend *backend, const uint8_t *bytes, size_t count);

/*
 * For devices without flow control: waits for a slow reader, with the device lock held, but no longer than a second.
 * After that output is dropped until the reader goes on.
 */
void char_write_all(struct char_backend *backend, const uint8_t *bytes, size_t count);

/* The device has room for input again. May call `receive` before it returns. */
void char_accept_input(struct char_backend *backend);

/* What the backend is, for a message: "pty /dev/pts/3". Any thread. */
const char *char_description(const struct char_backend *backend);

/*
 * Puts the host's terminal back as it was found, or makes it raw again after a stop (SIGCONT). No-ops on other
 * backends. Async-signal-safe, idempotent, any thread.
 */
void char_restore_terminal(struct char_backend *backend);
void char_raw_terminal(struct char_backend *backend);

#endif
