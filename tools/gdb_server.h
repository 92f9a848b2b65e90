/*
 * The debugger's door: gdb's remote serial protocol (the gdb manual, appendix E) for one client at a time, on a local
 * socket. Connecting stops the machine; a client that leaves lets it go.
 *
 * Everything is called on the controlling thread.
 */
#ifndef TOOLS_GDB_SERVER_H
#define TOOLS_GDB_SERVER_H

#include "trapeze/trapeze.h"

struct pc;
struct runner;
struct gdb_server;

/*
 * Listens at "tcp:[HOST]:PORT" (without a host: this machine alone) or "unix:PATH". The descriptor, or -1 with one
 * clause in `reason`.
 */
int gdb_server_listen(const char *device, char *reason, size_t size);

struct gdb_server_config {
    int listen_fd;       /* becomes the server's */
    const char *device;  /* as above: a socket's path is removed at the end */
    struct pc *pc;
    struct runner *runner;
    bool starts_paused;  /* -S: the machine waits for "continue" */
    /* What the debugger asks of the machine: "kill", and "monitor reset". */
    void (*quit)(void *opaque);
    void (*reset)(void *opaque);
    /* The debugger lets the machine go: calls gdb_server_go_on unless something else holds the machine. */
    void (*go_on)(void *opaque);
    /* The client has seen that vCPU `index` crashed the machine: what would have happened without it. */
    void (*crashed)(void *opaque, unsigned index);
    void *opaque;
};

/* NULL: no memory. */
struct gdb_server *gdb_server_create(const struct gdb_server_config *config);
/* Tells a client that the machine has ended with `status`. */
void gdb_server_destroy(struct gdb_server *server, int status);

/* The descriptor to wait for input on; changes when a client comes or goes. */
int gdb_server_fd(const struct gdb_server *server);
/* There is input. */
void gdb_server_ready(struct gdb_server *server);

/* Whether a client keeps the machine stopped. */
bool gdb_server_holds(const struct gdb_server *server);
/* Lets the machine go as the client last said; nothing while it is held. */
void gdb_server_go_on(struct gdb_server *server);
/*
 * A vCPU has stopped for a breakpoint, watchpoint or step, or crashed. False when nobody debugs: go on without. All
 * vCPUs are paused.
 */
bool gdb_server_stopped(struct gdb_server *server, unsigned index, const struct trapeze_exit *exit);

#endif
