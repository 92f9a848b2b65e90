/* Files on the host; see image.h. */
#include "bios/image.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *image_refusal(int fd, uint64_t *size) {
    struct stat status;
    if (fstat(fd, &status) != 0)
        return strerror(errno);
    if (S_ISDIR(status.st_mode))
        return strerror(EISDIR);
    if (!S_ISREG(status.st_mode))
        return "not a regular file";
    if (status.st_size == 0)
        return "the file is empty";
    *size = (uint64_t)status.st_size;
    return NULL;
}

const char *image_open(struct image *image, const char *path) {
    image->path = path;
    /* Not blocking: opening a FIFO must come back, to be refused. */
    image->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (image->fd < 0)
        return strerror(errno);
    const char *reason = image_refusal(image->fd, &image->size);
    if (reason)
        image_close(image);
    return reason;
}

void image_close(struct image *image) {
    close(image->fd);
    image->fd = -1;
}

bool image_read(const struct image *image, uint64_t offset, void *to, size_t length) {
    if (!image_contains(image, offset, length))
        return false;
    uint8_t *next = to;
    while (length > 0) {
        const ssize_t count = pread(image->fd, next, length, (off_t)offset);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return false;
        next += count;
        offset += (uint64_t)count;
        length -= (size_t)count;
    }
    return true;
}
