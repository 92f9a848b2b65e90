/*
 * What the parts of the gdb server share: the connection and the stops (gdb_server.c), and what packets ask
 * (gdb_commands.c).
 */
#ifndef TOOLS_GDB_SERVER_INTERNAL_H
#define TOOLS_GDB_SERVER_INTERNAL_H

#include "tools/gdb_packet.h"
#include "tools/gdb_server.h"
#include "tools/gdb_target.h"

struct gdb_server {
    struct gdb_server_config config;
    struct gdb_target target;
    int client_fd; /* -1: nobody */
    bool is_held;
    bool owes_reply;  /* the client waits for the machine to stop */
    bool is_sent;     /* `reply` is on its way already */
    bool acknowledges;
    bool tells_breaks; /* the client knows swbreak and hwbreak */
    unsigned current;  /* vCPU that registers and memory are asked of */
    unsigned resumed;  /* vCPU that `c` and `s` mean; target.vcpu_count: all */
    char stop_reply[96];
    struct trapeze_exit pending[GDB_VCPUS_MAX]; /* stopped while the machine was held already, */
    bool has_pending[GDB_VCPUS_MAX];            /* and not told yet */
    bool has_crashed;
    unsigned crashed;
    char *description;
    struct gdb_reader reader;
    struct gdb_text reply;
    char frame[GDB_PACKET_MAX + 4];
};

/* ---- gdb_server.c ---- */

/* Starts `reply` anew, empty or with a text. */
void gdb_server_start_reply(struct gdb_server *server);
void gdb_server_reply(struct gdb_server *server, const char *text);
/* Sends `reply`; the client may be gone afterwards. */
void gdb_server_send(struct gdb_server *server);
/* The client's actions are in target.actions; it waits for a stop from now on. */
void gdb_server_resume(struct gdb_server *server);
/* The client goes, the machine goes on. */
void gdb_server_leave(struct gdb_server *server);

/* ---- gdb_commands.c ---- */

/* Answers the packet in `reader`. */
void gdb_commands_run(struct gdb_server *server);

#endif
