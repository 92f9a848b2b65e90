/* Output into a file, or into whatever else a path names (a FIFO, a terminal, /dev/full). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/backends/char_internal.h"

static void release(struct char_backend *backend) {
    int fd = backend->output_fd;
    char_stop(backend);
    if (fd >= 0)
        close(fd);
}

struct char_backend *char_open_file(const char *path, struct event_loop *loop, char *error, size_t size) {
    static const struct char_kind kind = {.release = release};
    if (!*path) {
        snprintf(error, size, "file: needs a path");
        return NULL;
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0666);
    if (fd < 0) {
        snprintf(error, size, "cannot open '%s': %s", path, strerror(errno));
        return NULL;
    }
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    struct char_backend *backend = char_new(&kind, loop, error, size);
    if (!backend) {
        close(fd);
        return NULL;
    }
    snprintf(backend->description, sizeof(backend->description), "file %s", path);
    backend->output_fd = fd;
    bus_lock(backend->bus);
    bool is_started = char_start(backend);
    bus_unlock(backend->bus);
    if (is_started)
        return backend;
    snprintf(error, size, "cannot serve '%s': %s", path, strerror(errno));
    char_close(backend);
    return NULL;
}
