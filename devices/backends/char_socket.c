/*
 * Stream sockets, unix: and tcp:, as client or as server for one client at a time. A server's output is dropped while
 * no client is there; a client that was closed stays closed.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "devices/backends/char_internal.h"

struct socket_options {
    char address[256]; /* what stands before the first comma */
    bool is_server, waits;
};

/* ---- Options --------------------------------------------------------------------------------------------------- */

static bool parse_switch(const char *option, const char *name, bool *value) {
    size_t length = strlen(name);
    if (strncmp(option, name, length) != 0)
        return false;
    const char *rest = option + length;
    if (strcmp(rest, "") == 0 || strcmp(rest, "=on") == 0 || strcmp(rest, "=yes") == 0)
        *value = true;
    else if (strcmp(rest, "=off") == 0 || strcmp(rest, "=no") == 0)
        *value = false;
    else
        return false;
    return true;
}

static bool parse_option(const char *option, struct socket_options *options) {
    if (strcmp(option, "nowait") == 0) {
        options->waits = false;
        return true;
    }
    bool ignored; /* Nagle is off always */
    return parse_switch(option, "server", &options->is_server) || parse_switch(option, "wait", &options->waits) ||
           parse_switch(option, "nodelay", &ignored);
}

static bool parse_options(const char *argument, struct socket_options *options, char *error, size_t size) {
    *options = (struct socket_options){.waits = true};
    size_t length = strcspn(argument, ",");
    if (length == 0 || length >= sizeof(options->address)) {
        snprintf(error, size, "'%s': %s", argument, length ? "the address is too long" : "needs an address");
        return false;
    }
    memcpy(options->address, argument, length);
    for (const char *rest = argument + length; *rest == ',';) {
        char option[32] = "";
        size_t option_length = strcspn(++rest, ",");
        if (option_length < sizeof(option))
            memcpy(option, rest, option_length);
        if (!parse_option(option, options)) {
            snprintf(error, size, "'%s': unknown option '%.*s' (server=on|off, wait=on|off)", options->address,
                     (int)option_length, rest);
            return false;
        }
        rest += option_length;
    }
    return true;
}

/* ---- Connections ----------------------------------------------------------------------------------------------- */

static void serve(struct char_backend *backend, int fd) {
    int one = 1;
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* refused by unix sockets */
    backend->input_fd = backend->output_fd = fd;
    if (!char_start(backend)) {
        char_stop(backend);
        close(fd);
        return;
    }
    if (backend->listener.loop)
        event_loop_want(&backend->listener, 0);
    char_tell(backend, CHAR_OPENED);
}

static void hung_up(struct char_backend *backend) {
    int fd = backend->input_fd;
    if (fd < 0)
        return;
    char_stop(backend);
    close(fd);
    if (backend->listener.loop)
        event_loop_want(&backend->listener, EVENT_READABLE);
    char_tell(backend, CHAR_CLOSED);
}

static void client_waits(void *opaque, unsigned events) {
    struct char_backend *backend = opaque;
    (void)events;
    int fd = accept4(backend->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0)
        serve(backend, fd);
}

static void release(struct char_backend *backend) {
    hung_up(backend);
    if (backend->listener.loop)
        event_loop_remove(&backend->listener);
    if (backend->listen_fd >= 0)
        close(backend->listen_fd);
    if (backend->path)
        unlink(backend->path);
}

static const struct char_kind socket_kind = {.hung_up = hung_up, .release = release};

static bool start_server(struct char_backend *backend, const struct socket_options *options) {
    int fd = -1;
    if (listen(backend->listen_fd, 1) != 0)
        return false;
    if (options->waits) {
        fprintf(stderr, "trapeze: waiting for a connection on %s\n", backend->description);
        fd = accept4(backend->listen_fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            return false;
    }
    fcntl(backend->listen_fd, F_SETFL, fcntl(backend->listen_fd, F_GETFL) | O_NONBLOCK);
    backend->listener = (struct event_source){.fd = backend->listen_fd, .ready = client_waits, .opaque = backend};
    bus_lock(backend->bus);
    bool is_started = event_loop_add(backend->loop, &backend->listener, fd < 0 ? EVENT_READABLE : 0);
    if (fd >= 0)
        serve(backend, fd);
    bus_unlock(backend->bus);
    return is_started;
}

/* Makes the backend out of a socket that is bound (server) or connected (client), and owns it. */
static struct char_backend *open_socket(int fd, const char *family, const struct socket_options *options,
                                        struct event_loop *loop, char *error, size_t size) {
    struct char_backend *backend = char_new(&socket_kind, loop, error, size);
    if (!backend) {
        close(fd);
        return NULL;
    }
    snprintf(backend->description, sizeof(backend->description), "%s:%.140s", family, options->address);
    if (!options->is_server) {
        bus_lock(backend->bus);
        serve(backend, fd);
        bus_unlock(backend->bus);
        return backend;
    }
    backend->listen_fd = fd;
    if (start_server(backend, options))
        return backend;
    snprintf(error, size, "cannot listen on '%s': %s", options->address, strerror(errno));
    char_close(backend);
    return NULL;
}

/* ---- unix: ----------------------------------------------------------------------------------------------------- */

/* A socket file that nobody listens on any more is in the way of bind. */
static void remove_stale(const struct sockaddr_un *address) {
    struct stat status;
    if (lstat(address->sun_path, &status) != 0 || !S_ISSOCK(status.st_mode))
        return;
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe < 0)
        return;
    if (connect(probe, (const struct sockaddr *)address, sizeof(*address)) != 0 && errno == ECONNREFUSED)
        unlink(address->sun_path);
    close(probe);
}

static int open_unix(const struct socket_options *options) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(options->address) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(address.sun_path, options->address, strlen(options->address));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (options->is_server)
        remove_stale(&address);
    int status = options->is_server ? bind(fd, (struct sockaddr *)&address, sizeof(address))
                                    : connect(fd, (struct sockaddr *)&address, sizeof(address));
    if (status == 0)
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

struct char_backend *char_open_unix(const char *argument, struct event_loop *loop, char *error, size_t size) {
    struct socket_options options;
    if (!parse_options(argument, &options, error, size))
        return NULL;
    int fd = open_unix(&options);
    if (fd < 0) {
        snprintf(error, size, "cannot %s '%s': %s", options.is_server ? "listen on" : "connect to", options.address,
                 strerror(errno));
        return NULL;
    }
    struct char_backend *backend = open_socket(fd, "unix", &options, loop, error, size);
    if (backend && options.is_server)
        backend->path = strdup(options.address);
    return backend;
}

/* ---- tcp: ------------------------------------------------------------------------------------------------------ */

/* Splits HOST:PORT or [HOST]:PORT in place. An empty host is this machine alone. */
static bool split_host(char *text, const char **host, const char **port) {
    char *colon = strrchr(text, ':');
    if (!colon || !colon[1])
        return false;
    *colon = 0;
    *port = colon + 1;
    *host = text;
    size_t length = strlen(text);
    if (length >= 2 && text[0] == '[' && text[length - 1] == ']') {
        text[length - 1] = 0;
        *host = text + 1;
    }
    if (!**host)
        *host = "127.0.0.1";
    return true;
}

static int open_address(const struct addrinfo *address, bool is_server) {
    int fd = socket(address->ai_family, address->ai_socktype | SOCK_CLOEXEC, address->ai_protocol);
    if (fd < 0)
        return -1;
    int one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    int status = is_server ? bind(fd, address->ai_addr, address->ai_addrlen)
                           : connect(fd, address->ai_addr, address->ai_addrlen);
    if (status == 0 && is_server)
        status = listen(fd, 1); /* where a busy port shows */
    if (status == 0)
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

static int open_tcp(const struct socket_options *options, char *error, size_t size) {
    char text[sizeof(options->address)];
    const char *host, *port;
    memcpy(text, options->address, sizeof(text));
    if (!split_host(text, &host, &port)) {
        snprintf(error, size, "'%s' is not HOST:PORT", options->address);
        return -1;
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = options->is_server ? AI_PASSIVE : 0}, *list;
    int status = getaddrinfo(host, port, &hints, &list);
    if (status != 0) {
        snprintf(error, size, "cannot find '%s': %s", options->address, gai_strerror(status));
        return -1;
    }
    int fd = -1;
    for (struct addrinfo *address = list; address && fd < 0; address = address->ai_next)
        fd = open_address(address, options->is_server);
    if (fd < 0)
        snprintf(error, size, "cannot %s '%s': %s", options->is_server ? "listen on" : "connect to", options->address,
                 strerror(errno));
    freeaddrinfo(list);
    return fd;
}

struct char_backend *char_open_tcp(const char *argument, struct event_loop *loop, char *error, size_t size) {
    struct socket_options options;
    if (!parse_options(argument, &options, error, size))
        return NULL;
    int fd = open_tcp(&options, error, size);
    return fd < 0 ? NULL : open_socket(fd, "tcp", &options, loop, error, size);
}
