/* -pidfile: a file that holds this process's id, locked while it runs and removed at the end. */
#ifndef TOOLS_PIDFILE_H
#define TOOLS_PIDFILE_H

#include <stddef.h>

/* The descriptor, or -1 with one clause in `reason`. */
int pidfile_create(const char *path, char *reason, size_t size);
void pidfile_remove(const char *path, int fd);

#endif
