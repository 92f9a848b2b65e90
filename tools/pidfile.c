/* See pidfile.h. */
#include "tools/pidfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int pidfile_create(const char *path, char *reason, size_t size) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) {
        snprintf(reason, size, "%s", strerror(errno));
        return -1;
    }
    if (fcntl(fd, F_SETLK, &whole) != 0) {
        bool is_held = errno == EAGAIN || errno == EACCES;
        snprintf(reason, size, "%s", is_held ? "a running process holds it" : strerror(errno));
        close(fd);
        return -1;
    }
    if (ftruncate(fd, 0) == 0 && dprintf(fd, "%ld\n", (long)getpid()) > 0)
        return fd;
    snprintf(reason, size, "%s", strerror(errno));
    pidfile_remove(path, fd);
    return -1;
}

void pidfile_remove(const char *path, int fd) {
    unlink(path);
    close(fd);
}
