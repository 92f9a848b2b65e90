/*
 * A new pseudo terminal. We keep its slave side open too: programs may come and go without a hang-up, and the last few
 * kilobytes of output wait for the next one.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/backends/char_internal.h"

static void release(struct char_backend *backend) {
    int fd = backend->input_fd;
    char_stop(backend);
    if (fd >= 0)
        close(fd);
    if (backend->slave_fd >= 0)
        close(backend->slave_fd);
}

/* Opens both sides, the slave raw. False with errno. */
static bool open_pair(struct char_backend *backend) {
    char name[64];
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (master < 0)
        return false;
    backend->input_fd = backend->output_fd = master;
    if (grantpt(master) != 0 || unlockpt(master) != 0 || ptsname_r(master, name, sizeof(name)) != 0)
        return false;
    backend->slave_fd = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    struct termios modes;
    if (backend->slave_fd < 0 || tcgetattr(backend->slave_fd, &modes) != 0)
        return false;
    cfmakeraw(&modes);
    snprintf(backend->description, sizeof(backend->description), "pty %s", name);
    return tcsetattr(backend->slave_fd, TCSANOW, &modes) == 0 &&
           fcntl(master, F_SETFL, fcntl(master, F_GETFL) | O_NONBLOCK) == 0;
}

struct char_backend *char_open_pty(const char *argument, struct event_loop *loop, char *error, size_t size) {
    static const struct char_kind kind = {.release = release, .drops_output = true};
    (void)argument;
    struct char_backend *backend = char_new(&kind, loop, error, size);
    if (!backend)
        return NULL;
    bool is_open = open_pair(backend);
    if (is_open) {
        bus_lock(backend->bus);
        is_open = char_start(backend);
        bus_unlock(backend->bus);
    }
    if (is_open)
        return backend;
    snprintf(error, size, "cannot open a pseudo terminal: %s", strerror(errno));
    char_close(backend);
    return NULL;
}
