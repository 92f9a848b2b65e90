/* Where gdb connects: a TCP port or a socket in the file system. */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tools/gdb_server.h"

static int fail(int fd, char *reason, size_t size) {
    snprintf(reason, size, "%s", strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

static int listen_unix(const char *path, char *reason, size_t size) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!*path || strlen(path) >= sizeof(address.sun_path)) {
        snprintf(reason, size, "a socket's path has 1 to %zu characters", sizeof(address.sun_path) - 1);
        return -1;
    }
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return fail(fd, reason, size);
    int status = bind(fd, (struct sockaddr *)&address, sizeof(address));
    if (status != 0 && errno == EADDRINUSE) {
        /* A socket that nobody listens at is what a process that died has left. */
        int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool is_dead = connect(probe, (struct sockaddr *)&address, sizeof(address)) != 0 && errno == ECONNREFUSED;
        close(probe);
        errno = EADDRINUSE;
        if (is_dead && unlink(path) == 0)
            status = bind(fd, (struct sockaddr *)&address, sizeof(address));
    }
    if (status != 0 || listen(fd, 1) != 0)
        return fail(fd, reason, size);
    return fd;
}

static int listen_at(const struct addrinfo *address, char *reason, size_t size) {
    static const int one = 1;
    int fd = socket(address->ai_family, address->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, address->ai_protocol);
    if (fd < 0)
        return fail(fd, reason, size);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, address->ai_addr, address->ai_addrlen) != 0 || listen(fd, 1) != 0)
        return fail(fd, reason, size);
    return fd;
}

static int listen_tcp(const char *place, char *reason, size_t size) {
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    const char *colon = strrchr(place, ':');
    char host[256];
    struct addrinfo *found = NULL;
    char *end = NULL;
    unsigned long port = colon ? strtoul(colon + 1, &end, 10) : 0;
    if (!colon || port == 0 || port > 65535 || *end || (size_t)(colon - place) >= sizeof(host)) {
        snprintf(reason, size, "not a place to listen at: tcp:[HOST]:PORT, with a port from 1 to 65535");
        return -1;
    }
    snprintf(host, sizeof(host), "%.*s", (int)(colon - place), place);
    int status = getaddrinfo(*host ? host : "127.0.0.1", colon + 1, &hints, &found);
    if (status != 0) {
        snprintf(reason, size, "%s", gai_strerror(status));
        return -1;
    }
    int fd = listen_at(found, reason, size);
    freeaddrinfo(found);
    return fd;
}

int gdb_server_listen(const char *device, char *reason, size_t size) {
    if (!strncmp(device, "unix:", 5))
        return listen_unix(device + 5, reason, size);
    return listen_tcp(device + 4, reason, size);
}
