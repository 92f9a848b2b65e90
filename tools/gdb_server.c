/* See gdb_server.h. The connection, and when the machine stops and goes; packets are answered in gdb_commands.c. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "devices/pc.h"
#include "tools/gdb_server_internal.h"

enum { SIGNAL_INTERRUPT = 2, SIGNAL_TRAP = 5, SIGNAL_ABORT = 6, SEND_SECONDS = 5 };

/* ---- The connection ---- */

void gdb_server_leave(struct gdb_server *server) {
    if (server->client_fd < 0)
        return;
    close(server->client_fd);
    server->client_fd = -1;
    server->is_held = server->owes_reply = false;
    memset(server->has_pending, 0, sizeof(server->has_pending));
    if (gdb_target_pause(&server->target))
        gdb_target_forget(&server->target);
    server->config.go_on(server->config.opaque);
}

static void send_bytes(struct gdb_server *server, const char *bytes, size_t count) {
    while (count > 0 && server->client_fd >= 0) {
        ssize_t sent = send(server->client_fd, bytes, count, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0) {
            gdb_server_leave(server); /* it is gone, or has not read anything for SEND_SECONDS */
            return;
        }
        bytes += sent;
        count -= (size_t)sent;
    }
}

void gdb_server_send(struct gdb_server *server) {
    server->is_sent = true;
    send_bytes(server, server->frame, gdb_text_frame(&server->reply, server->frame));
}

void gdb_server_start_reply(struct gdb_server *server) {
    server->reply.length = 0;
    server->reply.is_full = false;
    server->is_sent = false;
}

void gdb_server_reply(struct gdb_server *server, const char *text) {
    gdb_server_start_reply(server);
    gdb_text_add(&server->reply, "%s", text);
}

/* ---- Stopping and going ---- */

static void note_stop(struct gdb_server *server, unsigned index, unsigned signal, const char *why, uint64_t address,
                      bool has_address) {
    char where[24] = "";
    if (has_address)
        snprintf(where, sizeof(where), "%llx", (unsigned long long)address);
    server->current = index;
    snprintf(server->stop_reply, sizeof(server->stop_reply), "T%02xthread:%x;%s%s%s%s", signal, index + 1, why,
             *why ? ":" : "", where, *why ? ";" : "");
}

/*
 * gdb takes its breakpoints' word for it only where the program counter is the address it asked for; elsewhere, as with
 * a segment base, it would go on without a word.
 */
static bool stands_at(struct gdb_server *server, unsigned index, uint64_t linear) {
    struct trapeze_registers registers;
    trapeze_vcpu_get_registers(pc_vcpu(server->config.pc, index), &registers);
    return registers.rip == linear;
}

static void note_debug_stop(struct gdb_server *server, unsigned index, const struct trapeze_exit *exit) {
    static const char *const watches[] = {
        [GDB_WATCH_WRITE] = "watch", [GDB_WATCH_READ] = "rwatch", [GDB_WATCH_ACCESS] = "awatch"};
    bool is_watch = exit->debug.kind == TRAPEZE_DEBUG_WATCHPOINT;
    const struct gdb_breakpoint *breakpoint =
        exit->debug.kind == TRAPEZE_DEBUG_STEP
            ? NULL
            : gdb_target_breakpoint_at(&server->target, is_watch, exit->debug.address);
    if (breakpoint && is_watch)
        note_stop(server, index, SIGNAL_TRAP, watches[breakpoint->type], exit->debug.address, true);
    else if (breakpoint && server->tells_breaks && stands_at(server, index, exit->debug.address))
        note_stop(server, index, SIGNAL_TRAP, breakpoint->type == GDB_BREAK_SOFTWARE ? "swbreak" : "hwbreak", 0, false);
    else
        note_stop(server, index, SIGNAL_TRAP, "", 0, false);
}

static void tell_stop(struct gdb_server *server) {
    server->is_held = true;
    if (!server->owes_reply)
        return;
    server->owes_reply = false;
    gdb_server_reply(server, server->stop_reply);
    gdb_server_send(server);
}

static void take_stop(struct gdb_server *server, unsigned index, const struct trapeze_exit *exit) {
    if (exit->reason == TRAPEZE_EXIT_SHUTDOWN) {
        server->has_crashed = true;
        server->crashed = index;
        note_stop(server, index, SIGNAL_ABORT, "", 0, false);
    } else {
        note_debug_stop(server, index, exit);
    }
    tell_stop(server);
}

bool gdb_server_stopped(struct gdb_server *server, unsigned index, const struct trapeze_exit *exit) {
    if (server->client_fd < 0)
        return false;
    if (gdb_target_stepped_over(&server->target, index, exit))
        return true;
    if (!server->is_held) {
        take_stop(server, index, exit);
        return true;
    }
    /* A step or a breakpoint comes again; what happened to data does not. */
    if (exit->reason == TRAPEZE_EXIT_SHUTDOWN || exit->debug.kind == TRAPEZE_DEBUG_WATCHPOINT) {
        server->pending[index] = *exit;
        server->has_pending[index] = true;
    }
    return true;
}

static bool take_pending(struct gdb_server *server) {
    for (unsigned i = 0; i < server->target.vcpu_count; i++) {
        if (!server->has_pending[i])
            continue;
        server->has_pending[i] = false;
        take_stop(server, i, &server->pending[i]);
        return true;
    }
    return false;
}

void gdb_server_resume(struct gdb_server *server) {
    server->owes_reply = true;
    if (server->has_crashed) {
        server->has_crashed = false;
        server->config.crashed(server->config.opaque, server->crashed);
    }
    if (take_pending(server))
        return;
    server->is_held = false;
    server->config.go_on(server->config.opaque);
}

void gdb_server_go_on(struct gdb_server *server) {
    if (server->is_held)
        return;
    if (gdb_target_go(&server->target))
        return;
    note_stop(server, server->current, SIGNAL_ABORT, "", 0, false);
    tell_stop(server); /* the engine refuses these breakpoints */
}

bool gdb_server_holds(const struct gdb_server *server) {
    return server->is_held;
}

static void interrupt(struct gdb_server *server) {
    if (server->is_held || !gdb_target_pause(&server->target))
        return;
    note_stop(server, server->current, SIGNAL_INTERRUPT, "", 0, false);
    tell_stop(server);
}

/* ---- Input ---- */

static void take_byte(struct gdb_server *server, uint8_t byte) {
    switch (gdb_reader_take(&server->reader, byte)) {
    case GDB_PACKET:
        if (server->acknowledges)
            send_bytes(server, "+", 1);
        if (!server->is_held)
            interrupt(server); /* a client that asks without waiting for the machine to stop */
        gdb_commands_run(server);
        break;
    case GDB_DAMAGED:
        if (server->acknowledges)
            send_bytes(server, "-", 1);
        break;
    case GDB_INTERRUPT:
        interrupt(server);
        break;
    case GDB_NAK:
        gdb_server_send(server);
        break;
    case GDB_ACK:
    case GDB_NOTHING:
        break;
    }
}

/* ---- Life ---- */

static void welcome(struct gdb_server *server) {
    static const int one = 1;
    static const struct timeval limit = {.tv_sec = SEND_SECONDS};
    int fd = accept4(server->config.listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    server->client_fd = fd;
    server->acknowledges = true;
    server->tells_breaks = server->owes_reply = server->has_crashed = false;
    server->resumed = server->target.vcpu_count;
    memset(&server->reader, 0, sizeof(server->reader));
    if (!gdb_target_pause(&server->target)) {
        gdb_server_leave(server);
        return;
    }
    server->is_held = true;
    note_stop(server, 0, SIGNAL_TRAP, "", 0, false);
}

void gdb_server_ready(struct gdb_server *server) {
    uint8_t bytes[4096];
    if (server->client_fd < 0) {
        welcome(server);
        return;
    }
    ssize_t count = recv(server->client_fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR))
        gdb_server_leave(server);
    for (ssize_t i = 0; i < count && server->client_fd >= 0; i++)
        take_byte(server, bytes[i]);
}

int gdb_server_fd(const struct gdb_server *server) {
    return server->client_fd >= 0 ? server->client_fd : server->config.listen_fd;
}

struct gdb_server *gdb_server_create(const struct gdb_server_config *config) {
    struct gdb_server *server = calloc(1, sizeof(*server));
    if (!server)
        return NULL;
    server->config = *config;
    server->client_fd = -1;
    server->is_held = config->starts_paused;
    gdb_target_init(&server->target, config->pc, config->runner);
    return server;
}

void gdb_server_destroy(struct gdb_server *server, int status) {
    if (server->client_fd >= 0) {
        gdb_server_start_reply(server);
        gdb_text_add(&server->reply, "W%02x", (unsigned)status & 0xff);
        if (server->owes_reply)
            gdb_server_send(server);
    }
    if (server->client_fd >= 0)
        close(server->client_fd);
    close(server->config.listen_fd);
    if (!strncmp(server->config.device, "unix:", 5))
        unlink(server->config.device + 5);
    free(server->description);
    free(server);
}
