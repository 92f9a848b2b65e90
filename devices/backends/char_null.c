/* The backend with nobody on the other side: all output is taken, no input ever comes. */
#include <stdio.h>

#include "devices/backends/char_internal.h"

struct char_backend *char_open_null(const char *argument, struct event_loop *loop, char *error, size_t size) {
    static const struct char_kind kind = {0};
    (void)argument;
    struct char_backend *backend = char_new(&kind, loop, error, size);
    if (backend)
        snprintf(backend->description, sizeof(backend->description), "null");
    return backend;
}
