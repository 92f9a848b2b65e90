/*
 * Standard input and output, with a terminal in raw mode and Ctrl-A commands where asked for.
 *
 * Neither descriptor is made non-blocking itself, since other programs share them: each is opened again where the host
 * allows it, and else used with care.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/backends/char_internal.h"

#define ESCAPE 1 /* Ctrl-A */

static void say(struct char_backend *backend, const char *text) {
    char_write(backend, (const uint8_t *)text, strlen(text));
}

/* The character after Ctrl-A. True when it goes to the guest. */
static bool run_command(struct char_backend *backend, uint8_t command) {
    switch (command) {
    case ESCAPE:
    case 'a':
        return true;
    case 'x':
        say(backend, "\ntrapeze: terminated by Ctrl-A x\n");
        if (backend->escapes.quit)
            backend->escapes.quit(backend->escapes.opaque);
        return false;
    case 'b':
        char_tell(backend, CHAR_BREAK);
        return false;
    case 'c':
        say(backend, "\ntrapeze: there is no monitor to switch to\n");
        return false;
    case 'h':
    case '?':
        say(backend, "\nCtrl-A h  this help\nCtrl-A x  end the machine\nCtrl-A b  send a break\n"
                     "Ctrl-A c  switch to the monitor\nCtrl-A a  send Ctrl-A\n");
        return false;
    default:
        return false;
    }
}

static size_t filter_escapes(struct char_backend *backend, uint8_t *bytes, size_t count) {
    size_t left = 0;
    if (!backend->has_escapes)
        return count;
    for (size_t i = 0; i < count; i++) {
        uint8_t byte = bytes[i];
        if (backend->has_seen_escape) {
            backend->has_seen_escape = false;
            if (run_command(backend, byte))
                bytes[left++] = ESCAPE;
        } else if (byte == ESCAPE) {
            backend->has_seen_escape = true;
        } else {
            bytes[left++] = byte;
        }
    }
    return left;
}

/* A terminal that was closed takes the machine along, as it would a program; the end of a pipe or a file does not. */
static void hung_up(struct char_backend *backend) {
    if (backend->is_terminal && backend->escapes.quit)
        backend->escapes.quit(backend->escapes.opaque);
}

static void close_if_own(int fd) {
    if (fd > STDERR_FILENO)
        close(fd);
}

static void release(struct char_backend *backend) {
    int input = backend->input_fd, output = backend->output_fd;
    char_stop(backend);
    close_if_own(input);
    close_if_own(output);
}

/* In the background the terminal is another program's: touching it would stop us (SIGTTOU), on the way out of all. */
static void set_terminal(const struct char_backend *backend, const struct termios *modes) {
    if (!backend->is_terminal)
        return;
    pid_t foreground = tcgetpgrp(STDIN_FILENO);
    if (foreground < 0 || foreground == getpgrp())
        tcsetattr(STDIN_FILENO, TCSANOW, modes);
}

void char_restore_terminal(struct char_backend *backend) {
    set_terminal(backend, &backend->saved);
}

void char_raw_terminal(struct char_backend *backend) {
    set_terminal(backend, &backend->raw);
}

static void prepare_terminal(struct char_backend *backend, bool keeps_signals) {
    if (tcgetattr(STDIN_FILENO, &backend->saved) != 0)
        return;
    /* Output processing stays on: much bare-metal software ends its lines with a line feed alone. */
    struct termios raw = backend->saved;
    raw.c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
    raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | IEXTEN);
    if (!keeps_signals)
        raw.c_lflag &= ~(tcflag_t)ISIG;
    raw.c_cflag = (raw.c_cflag & ~(tcflag_t)(CSIZE | PARENB)) | CS8;
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    backend->raw = raw;
    backend->is_terminal = true;
    char_raw_terminal(backend);
}

/* Files keep the position that other programs share; sockets cannot be opened by path, nor need it. */
static int reopen_or_keep(int fd, int flags, bool *is_blocking) {
    struct stat status;
    *is_blocking = false;
    if (fstat(fd, &status) != 0)
        return -1;
    if (S_ISREG(status.st_mode) || S_ISSOCK(status.st_mode))
        return fd;
    int own = char_reopen(fd, flags);
    *is_blocking = own < 0;
    return own < 0 ? fd : own;
}

static struct char_backend *open_stdio(struct event_loop *loop, bool is_monitor, char *error, size_t size) {
    static const struct char_kind kind = {.filter = filter_escapes, .hung_up = hung_up, .release = release};
    struct char_backend *backend = char_new(&kind, loop, error, size);
    if (!backend)
        return NULL;
    bool ignored;
    snprintf(backend->description, sizeof(backend->description), "stdio");
    backend->has_escapes = is_monitor;
    backend->input_fd = reopen_or_keep(STDIN_FILENO, O_RDONLY, &ignored);
    backend->output_fd = reopen_or_keep(STDOUT_FILENO, O_WRONLY, &backend->output_is_blocking);
    prepare_terminal(backend, !is_monitor);
    bus_lock(backend->bus);
    bool is_started = char_start(backend);
    bus_unlock(backend->bus);
    if (is_started)
        return backend;
    snprintf(error, size, "cannot serve standard input and output: %s", strerror(errno));
    char_close(backend);
    return NULL;
}

struct char_backend *char_open_stdio(const char *argument, struct event_loop *loop, char *error, size_t size) {
    (void)argument;
    return open_stdio(loop, false, error, size);
}

struct char_backend *char_open_mon_stdio(const char *argument, struct event_loop *loop, char *error, size_t size) {
    (void)argument;
    return open_stdio(loop, true, error, size);
}
