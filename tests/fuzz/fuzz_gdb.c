/*
 * The gdb server, on a machine that never runs. A line of the input is a packet, framed here with its checksum; one
 * that begins with '~' goes to the server as it is, and '!' makes a vCPU stop for a reason. Whatever a client sends,
 * the server answers in frames and goes on, and a new client finds it well.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "devices/pc.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/bios/synthetic.h"
#include "tools/gdb_packet.h"
#include "tools/gdb_server.h"
#include "tools/runner.h"

enum { LINES = 64 };

const struct fuzz_word fuzz_words[] = {
    FUZZ_WORD("qSupported:swbreak+;hwbreak+\n"),
    FUZZ_WORD("QStartNoAckMode\n"),
    FUZZ_WORD("vCont?\n"),
    FUZZ_WORD("vCont;c\n"),
    FUZZ_WORD("vCont;s:1\n"),
    FUZZ_WORD("vCont;C05:2;s\n"),
    FUZZ_WORD("Hg0\n"),
    FUZZ_WORD("Hc-1\n"),
    FUZZ_WORD("Hg2\n"),
    FUZZ_WORD("T1\n"),
    FUZZ_WORD("qfThreadInfo\nqsThreadInfo\n"),
    FUZZ_WORD("qThreadExtraInfo,1\n"),
    FUZZ_WORD("qC\n"),
    FUZZ_WORD("qAttached\n"),
    FUZZ_WORD("qSymbol::\n"),
    FUZZ_WORD("qXfer:features:read:target.xml:"),
    FUZZ_WORD("0,ffb\n"),
    FUZZ_WORD("?\n"),
    FUZZ_WORD("g\n"),
    FUZZ_WORD("G"),
    FUZZ_WORD("p"),
    FUZZ_WORD("P10="),
    FUZZ_WORD("m100000,40\n"),
    FUZZ_WORD("m"),
    FUZZ_WORD("M100000,4:"),
    FUZZ_WORD("X100000,4:"),
    FUZZ_WORD("Z0,100000,1\n"),
    FUZZ_WORD("z0,100000,1\n"),
    FUZZ_WORD("Z1,"),
    FUZZ_WORD("Z2,"),
    FUZZ_WORD("Z3,"),
    FUZZ_WORD("z4,"),
    FUZZ_WORD("c\n"),
    FUZZ_WORD("s\n"),
    FUZZ_WORD("C05\n"),
    FUZZ_WORD("D\n"),
    FUZZ_WORD("k\n"),
    FUZZ_WORD("vKill;1\n"),
    FUZZ_WORD("qRcmd,68656c70\n"),
    FUZZ_WORD("qRcmd,7374617465\n"),
    FUZZ_WORD("qRcmd,7265736574\n"),
    FUZZ_WORD("~\x03\n"),
    FUZZ_WORD("~+"),
    FUZZ_WORD("~-"),
    FUZZ_WORD("~$"),
    FUZZ_WORD("#00\n"),
    FUZZ_WORD("!0\n"),
    FUZZ_WORD("!1\n"),
    FUZZ_WORD("!2\n"),
    FUZZ_WORD("!3\n"),
    FUZZ_WORD("ffffffffffffffff"),
    FUZZ_WORD(","),
    FUZZ_WORD(":"),
    FUZZ_WORD(";"),
    FUZZ_WORD("}"),
    {NULL, 0},
};

struct debugged {
    struct pc *pc;
    struct gdb_server *server;
    struct sockaddr_un address;
    int client;
    bool has_quit;
};

/* ---- What else the server is linked with: vCPUs that are always held ---- */

bool runner_pause(struct runner *runner) {
    (void)runner;
    return true;
}

void runner_resume(struct runner *runner) {
    (void)runner;
}

void runner_resume_some(struct runner *runner, const bool *which) {
    (void)runner, (void)which;
}

/* ---- The machine ---- */

static void ignore_event(void *opaque, enum pc_event event, unsigned value) {
    (void)opaque, (void)event, (void)value;
}

static struct pc *create_machine(void) {
    static char path[32];
    static uint8_t kernel[SYNTHETIC_FLAT_SIZE];
    struct pc_error error;
    synthetic_flat(kernel);
    int fd = memfd_create("kernel", MFD_CLOEXEC);
    if (fd < 0 || write(fd, kernel, sizeof kernel) != sizeof kernel)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    const struct pc_config config = {.memory = 16 << 20, .vcpu_count = 2, .kernel = path, .event = ignore_event};
    struct pc *pc = pc_create(&config, &error);
    if (!pc) {
        fprintf(stderr, "fuzz_gdb: %s\n", error.text);
        exit(1);
    }
    return pc;
}

static void quit(void *opaque) {
    ((struct debugged *)opaque)->has_quit = true;
}

static void reset(void *opaque) {
    struct pc_error error;
    if (!pc_reset(((struct debugged *)opaque)->pc, &error))
        abort();
}

static void go_on(void *opaque) {
    struct debugged *debugged = opaque;
    if (debugged->server)
        gdb_server_go_on(debugged->server);
}

static void crashed(void *opaque, unsigned index) {
    (void)opaque, (void)index;
}

static void create_server(struct debugged *debugged) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    socklen_t length = sizeof debugged->address;
    debugged->address = (struct sockaddr_un){.sun_family = AF_UNIX};
    /* No name: the kernel makes up one that no other process has. */
    if (bind(fd, (struct sockaddr *)&debugged->address, sizeof(sa_family_t)) != 0 || listen(fd, 1) != 0 ||
        getsockname(fd, (struct sockaddr *)&debugged->address, &length) != 0)
        abort();
    const struct gdb_server_config config = {.listen_fd = fd,
                                             .device = "tcp::1",
                                             .pc = debugged->pc,
                                             .quit = quit,
                                             .reset = reset,
                                             .go_on = go_on,
                                             .crashed = crashed,
                                             .opaque = debugged};
    debugged->server = gdb_server_create(&config);
    if (!debugged->server)
        abort();
}

/* ---- The client ---- */

static void let_server_read(struct debugged *debugged) {
    char bytes[65536];
    gdb_server_ready(debugged->server);
    while (debugged->client >= 0 && recv(debugged->client, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        continue;
}

static void connect_client(struct debugged *debugged) {
    static const socklen_t abstract = sizeof(sa_family_t) + 6; /* unix(7): a zero and five digits */
    debugged->client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(debugged->client, (struct sockaddr *)&debugged->address, abstract) != 0)
        abort();
    let_server_read(debugged);
}

static void send_all(struct debugged *debugged, const void *bytes, size_t size) {
    /* A server that has hung up after 'D' is left for a new connection. */
    if (send(debugged->client, bytes, size, MSG_NOSIGNAL) == (ssize_t)size) {
        let_server_read(debugged);
        return;
    }
    close(debugged->client);
    connect_client(debugged);
}

static void send_packet(struct debugged *debugged, const uint8_t *line, size_t size) {
    static struct gdb_text text;
    static char frame[GDB_PACKET_MAX + 4];
    text.length = text.is_full = 0;
    size = size < 2048 ? size : 2048;
    gdb_text_add_binary(&text, line, size);
    send_all(debugged, frame, gdb_text_frame(&text, frame));
}

static void stop_vcpu(struct debugged *debugged, unsigned kind) {
    struct trapeze_exit exit = {.reason = kind % 4 == 3 ? TRAPEZE_EXIT_SHUTDOWN : TRAPEZE_EXIT_DEBUG};
    exit.debug.kind = kind % 4;
    exit.debug.address = 0x100000;
    gdb_server_stopped(debugged->server, kind / 4 % 2, &exit);
}

static void take_line(struct debugged *debugged, const uint8_t *line, size_t size) {
    if (size && line[0] == '~')
        send_all(debugged, line + 1, size - 1);
    else if (size > 1 && line[0] == '!')
        stop_vcpu(debugged, line[1]);
    else
        send_packet(debugged, line, size);
}

/* A new client that asks why the machine stands gets an answer, whatever came before. */
static void check_health(struct debugged *debugged) {
    char reply[256] = "";
    size_t length = 0;
    close(debugged->client);
    gdb_server_ready(debugged->server); /* sees the end, or welcomes */
    gdb_server_ready(debugged->server);
    gdb_server_destroy(debugged->server, 0);
    debugged->server = NULL;
    create_server(debugged);
    connect_client(debugged);
    if (send(debugged->client, "$?#3f", 5, 0) != 5)
        abort();
    gdb_server_ready(debugged->server);
    ssize_t count = recv(debugged->client, reply, sizeof reply - 1, MSG_DONTWAIT);
    length = count > 0 ? (size_t)count : 0;
    reply[length] = 0;
    if (strncmp(reply, "+$T05thread:1;", 14) != 0)
        abort();
    close(debugged->client);
    gdb_server_destroy(debugged->server, 0);
    debugged->server = NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct debugged debugged;
    if (!debugged.pc)
        debugged.pc = create_machine();
    create_server(&debugged);
    connect_client(&debugged);
    for (unsigned lines = 0; size && lines < LINES; lines++) {
        const uint8_t *end = memchr(data, '\n', size);
        size_t length = end ? (size_t)(end - data) : size;
        take_line(&debugged, data, length);
        length += end != NULL;
        data += length;
        size -= length;
    }
    check_health(&debugged);
    return 0;
}
