/* See memory_group.h. */
#include "tools/bench_driver/memory_group.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool memory_group_create(struct memory_group *group, const char *parent) {
    *group = (struct memory_group){0};
    if (!parent)
        return false;
    snprintf(group->path, sizeof group->path, "%s/measured", parent);
    rmdir(group->path); /* one that was left over would keep its peak */
    if (mkdir(group->path, 0755) == 0)
        return true;
    group->path[0] = 0;
    return false;
}

static FILE *open_file(const struct memory_group *group, const char *name, const char *mode) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", group->path, name);
    return fopen(path, mode);
}

bool memory_group_enter(const struct memory_group *group) {
    FILE *stream = open_file(group, "cgroup.procs", "w");
    if (!stream)
        return false;
    bool is_written = fputs("0\n", stream) >= 0;
    return fclose(stream) == 0 && is_written;
}

uint64_t memory_group_peak_kib(const struct memory_group *group) {
    static const char *const names[] = {"memory.peak", "memory.max_usage_in_bytes"}; /* versions 2 and 1 */
    unsigned long long bytes = 0;
    for (int i = 0; i < 2 && group->path[0]; i++) {
        FILE *stream = open_file(group, names[i], "r");
        if (!stream)
            continue;
        if (fscanf(stream, "%llu", &bytes) != 1)
            bytes = 0;
        fclose(stream);
    }
    return bytes / 1024;
}

/* A group whose last process has just been reaped can be busy for a moment. */
void memory_group_destroy(struct memory_group *group) {
    for (int i = 0; i < 100 && group->path[0] && rmdir(group->path) != 0 && errno == EBUSY; i++)
        usleep(10000);
    group->path[0] = 0;
}
