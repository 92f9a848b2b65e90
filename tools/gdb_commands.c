/* What the packets ask: those of the gdb manual, E.2 to E.6, that stock gdb 13 sends to an x86 machine. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices/pc.h"
#include "tools/gdb_registers.h"
#include "tools/gdb_server_internal.h"
#include "tools/state_dump.h"

enum { READ_MAX = GDB_PACKET_MAX / 2 };

static void reply_error(struct gdb_server *server, unsigned number) {
    gdb_server_start_reply(server);
    gdb_text_add(&server->reply, "E%02x", number & 0xff);
}

static void reply_ok_if(struct gdb_server *server, bool is_ok) {
    if (is_ok)
        gdb_server_reply(server, "OK");
    else
        reply_error(server, EINVAL);
}

/* ---- Threads ---- */

/* A vCPU's index, or vcpu_count for "all" and "any". False for one that is not there. */
static bool parse_thread(const struct gdb_server *server, const char **cursor, unsigned *index) {
    uint64_t number;
    *index = server->target.vcpu_count;
    if (gdb_parse_word(cursor, "-1"))
        return true;
    if (!gdb_parse_number(cursor, &number) || number > server->target.vcpu_count)
        return false;
    if (number != 0)
        *index = (unsigned)number - 1;
    return true;
}

static void set_thread(struct gdb_server *server, const char *packet) {
    char operation = *packet++;
    unsigned index;
    bool is_there = parse_thread(server, &packet, &index);
    if (is_there && operation == 'c')
        server->resumed = index;
    else if (is_there && index < server->target.vcpu_count)
        server->current = index;
    reply_ok_if(server, is_there);
}

static void is_thread_alive(struct gdb_server *server, const char *packet) {
    unsigned index;
    reply_ok_if(server, parse_thread(server, &packet, &index));
}

static void list_threads(struct gdb_server *server, const char *packet) {
    (void)packet;
    gdb_server_start_reply(server);
    for (unsigned i = 0; i < server->target.vcpu_count; i++)
        gdb_text_add(&server->reply, "%c%x", i ? ',' : 'm', i + 1);
}

static void end_thread_list(struct gdb_server *server, const char *packet) {
    (void)packet;
    gdb_server_reply(server, "l");
}

static void describe_thread(struct gdb_server *server, const char *packet) {
    unsigned index;
    char text[48];
    struct trapeze_events events = {0};
    if (!parse_thread(server, &packet, &index) || index == server->target.vcpu_count) {
        reply_error(server, EINVAL);
        return;
    }
    trapeze_vcpu_get_events(pc_vcpu(server->config.pc, index), &events);
    snprintf(text, sizeof(text), "CPU#%u [%s]", index,
             events.waiting_for_sipi ? "not started"
             : events.halted         ? "halted"
                                     : "running");
    gdb_server_start_reply(server);
    gdb_text_add_hex(&server->reply, text, strlen(text));
}

static void current_thread(struct gdb_server *server, const char *packet) {
    (void)packet;
    gdb_server_start_reply(server);
    gdb_text_add(&server->reply, "QC%x", server->current + 1);
}

/* ---- Registers ---- */

static struct trapeze_vcpu *current_vcpu(struct gdb_server *server) {
    return pc_vcpu(server->config.pc, server->current);
}

static void read_registers(struct gdb_server *server, const char *packet) {
    struct gdb_state state;
    uint8_t bytes[GDB_REGISTER_SIZE_MAX];
    (void)packet;
    gdb_state_read(&state, current_vcpu(server));
    gdb_server_start_reply(server);
    for (unsigned i = 0; i < gdb_register_count(); i++) {
        gdb_register_get(&state, i, bytes);
        gdb_text_add_hex(&server->reply, bytes, gdb_register_size(i));
    }
}

static void write_registers(struct gdb_server *server, const char *packet) {
    struct gdb_state state;
    uint8_t bytes[GDB_REGISTER_SIZE_MAX] = {0};
    bool is_ok = true;
    gdb_state_read(&state, current_vcpu(server));
    for (unsigned i = 0; is_ok && i < gdb_register_count() && *packet; i++)
        is_ok = gdb_parse_bytes(&packet, bytes, gdb_register_size(i)) && gdb_register_set(&state, i, bytes);
    reply_ok_if(server, is_ok && gdb_state_write(&state, current_vcpu(server)));
}

static void read_register(struct gdb_server *server, const char *packet) {
    struct gdb_state state;
    uint8_t bytes[GDB_REGISTER_SIZE_MAX];
    uint64_t number;
    if (!gdb_parse_number(&packet, &number) || number >= gdb_register_count()) {
        reply_error(server, EINVAL);
        return;
    }
    gdb_state_read(&state, current_vcpu(server));
    gdb_register_get(&state, (unsigned)number, bytes);
    gdb_server_start_reply(server);
    gdb_text_add_hex(&server->reply, bytes, gdb_register_size((unsigned)number));
}

static void write_register(struct gdb_server *server, const char *packet) {
    struct gdb_state state;
    uint8_t bytes[GDB_REGISTER_SIZE_MAX] = {0};
    uint64_t number;
    if (!gdb_parse_number(&packet, &number) || number >= gdb_register_count() || !gdb_parse_word(&packet, "=") ||
        !gdb_parse_bytes(&packet, bytes, gdb_register_size((unsigned)number))) {
        reply_error(server, EINVAL);
        return;
    }
    gdb_state_read(&state, current_vcpu(server));
    reply_ok_if(server, gdb_register_set(&state, (unsigned)number, bytes) &&
                            gdb_state_write(&state, current_vcpu(server)));
}

/* ---- Memory ---- */

static bool parse_range(const char **cursor, uint64_t *linear, uint64_t *length) {
    return gdb_parse_number(cursor, linear) && gdb_parse_word(cursor, ",") && gdb_parse_number(cursor, length);
}

static void read_memory(struct gdb_server *server, const char *packet) {
    uint8_t bytes[READ_MAX];
    uint64_t linear, length;
    if (!parse_range(&packet, &linear, &length)) {
        reply_error(server, EINVAL);
        return;
    }
    if (length > READ_MAX)
        length = READ_MAX;
    size_t count = gdb_target_read(&server->target, server->current, linear, bytes, length);
    if (count == 0 && length > 0) {
        reply_error(server, EFAULT);
        return;
    }
    gdb_server_start_reply(server);
    gdb_text_add_hex(&server->reply, bytes, count);
}

static void write_bytes(struct gdb_server *server, uint64_t linear, const void *bytes, uint64_t length) {
    if (gdb_target_write(&server->target, server->current, linear, bytes, length) == length)
        gdb_server_reply(server, "OK");
    else
        reply_error(server, EFAULT);
}

static void write_memory(struct gdb_server *server, const char *packet) {
    uint8_t bytes[READ_MAX];
    uint64_t linear, length;
    if (!parse_range(&packet, &linear, &length) || length > READ_MAX || !gdb_parse_word(&packet, ":") ||
        !gdb_parse_bytes(&packet, bytes, length))
        reply_error(server, EINVAL);
    else
        write_bytes(server, linear, bytes, length);
}

static void write_memory_binary(struct gdb_server *server, const char *packet) {
    uint64_t linear, length;
    if (!parse_range(&packet, &linear, &length) || !gdb_parse_word(&packet, ":") ||
        length > server->reader.length - (size_t)(packet - server->reader.data))
        reply_error(server, EINVAL);
    else
        write_bytes(server, linear, packet, length);
}

static void change_breakpoint(struct gdb_server *server, const char *packet, bool inserts) {
    uint64_t type, linear, length;
    bool is_known = gdb_parse_number(&packet, &type) && type <= GDB_WATCH_ACCESS;
    if (!is_known || !gdb_parse_word(&packet, ",") || !parse_range(&packet, &linear, &length)) {
        gdb_server_reply(server, is_known ? "E16" : "");
        return;
    }
    if (inserts)
        reply_ok_if(server, gdb_target_insert(&server->target, (enum gdb_break)type, linear, length));
    else
        reply_ok_if(server, gdb_target_remove(&server->target, (enum gdb_break)type, linear, length));
}

static void insert_breakpoint(struct gdb_server *server, const char *packet) {
    change_breakpoint(server, packet, true);
}

static void remove_breakpoint(struct gdb_server *server, const char *packet) {
    change_breakpoint(server, packet, false);
}

/* ---- Running ---- */

static void set_actions(struct gdb_server *server, enum gdb_action action, unsigned index) {
    unsigned count = server->target.vcpu_count;
    for (unsigned i = 0; i < count; i++)
        if (index == count || index == i)
            server->target.actions[i] = action;
}

/* `c` and `s`, with C and S's signal, which means nothing here. */
static void run_one_way(struct gdb_server *server, enum gdb_action action) {
    unsigned index = server->resumed;
    if (action == GDB_STEP && index == server->target.vcpu_count)
        index = server->current;
    set_actions(server, GDB_STAY, server->target.vcpu_count);
    set_actions(server, action, index);
    gdb_server_resume(server);
}

static void continue_all(struct gdb_server *server, const char *packet) {
    (void)packet;
    run_one_way(server, GDB_CONTINUE);
}

static void step_one(struct gdb_server *server, const char *packet) {
    (void)packet;
    run_one_way(server, GDB_STEP);
}

static void list_actions(struct gdb_server *server, const char *packet) {
    (void)packet;
    gdb_server_reply(server, "vCont;c;C;s;S");
}

/* "vCont;action[:thread];...": the leftmost action that names a thread is its own. */
static void run_each(struct gdb_server *server, const char *packet) {
    unsigned count = server->target.vcpu_count, index;
    bool is_set[GDB_VCPUS_MAX] = {false};
    uint64_t signal;
    set_actions(server, GDB_STAY, count);
    while (gdb_parse_word(&packet, ";")) {
        char letter = *packet ? *packet++ : 0;
        enum gdb_action action = letter == 's' || letter == 'S' ? GDB_STEP : GDB_CONTINUE;
        if (!strchr("cCsS", letter) || !letter || (strchr("CS", letter) && !gdb_parse_number(&packet, &signal)))
            break;
        index = count;
        if (gdb_parse_word(&packet, ":") && !parse_thread(server, &packet, &index))
            break;
        for (unsigned i = 0; i < count; i++) {
            if ((index != count && index != i) || is_set[i])
                continue;
            is_set[i] = true;
            server->target.actions[i] = action;
        }
    }
    if (*packet)
        reply_error(server, EINVAL);
    else
        gdb_server_resume(server);
}

static void why_stopped(struct gdb_server *server, const char *packet) {
    (void)packet;
    gdb_server_reply(server, server->stop_reply);
}

static void detach(struct gdb_server *server, const char *packet) {
    (void)packet;
    gdb_server_reply(server, "OK");
    gdb_server_send(server);
    gdb_server_leave(server);
}

static void kill_machine(struct gdb_server *server, const char *packet) {
    if (*packet) /* vKill, which is answered */
        gdb_server_reply(server, "OK");
    if (*packet)
        gdb_server_send(server);
    server->config.quit(server->config.opaque);
    gdb_server_leave(server);
}

/* ---- Queries ---- */

static void list_features(struct gdb_server *server, const char *packet) {
    server->tells_breaks = strstr(packet, "swbreak+") && strstr(packet, "hwbreak+");
    gdb_server_start_reply(server);
    gdb_text_add(&server->reply, "PacketSize=%x;qXfer:features:read+;QStartNoAckMode+;vContSupported+%s",
                 GDB_PACKET_MAX, server->tells_breaks ? ";swbreak+;hwbreak+" : "");
}

static void stop_acknowledging(struct gdb_server *server, const char *packet) {
    (void)packet;
    gdb_server_reply(server, "OK");
    gdb_server_send(server);
    server->acknowledges = false;
}

static void read_description(struct gdb_server *server, const char *packet) {
    uint64_t offset, length;
    if (!server->description)
        server->description = gdb_registers_describe();
    if (!server->description || !gdb_parse_word(&packet, "target.xml:") || !parse_range(&packet, &offset, &length)) {
        reply_error(server, 0);
        return;
    }
    uint64_t total = strlen(server->description);
    if (offset > total)
        offset = total;
    if (length > GDB_PACKET_MAX / 2 - 1)
        length = GDB_PACKET_MAX / 2 - 1;
    if (length > total - offset)
        length = total - offset;
    gdb_server_start_reply(server);
    gdb_text_add(&server->reply, "%c", offset + length == total ? 'l' : 'm');
    gdb_text_add_binary(&server->reply, server->description + offset, length);
}

static void is_attached(struct gdb_server *server, const char *packet) {
    (void)packet;
    gdb_server_reply(server, "1"); /* so that gdb leaves by detaching */
}

static void need_no_symbols(struct gdb_server *server, const char *packet) {
    (void)packet;
    gdb_server_reply(server, "OK");
}

/* ---- "monitor" commands ---- */

static void print(struct gdb_server *server, const char *text, size_t length) {
    enum { CHUNK = 2048 };
    while (length > 0 && server->client_fd >= 0) {
        size_t part = length < CHUNK ? length : CHUNK;
        gdb_server_reply(server, "O");
        gdb_text_add_hex(&server->reply, text, part);
        gdb_server_send(server);
        text += part;
        length -= part;
    }
}

static void print_state(struct gdb_server *server) {
    char *text = NULL;
    size_t size = 0;
    FILE *to = open_memstream(&text, &size);
    if (!to)
        return;
    state_dump(to, server->config.pc);
    if (fclose(to) == 0)
        print(server, text, size);
    free(text);
}

static void run_command(struct gdb_server *server, const char *packet) {
    static const char help[] = "help   this text\nquit   end the machine\nreset  reset it\nstate  all processors' "
                               "registers\n";
    char command[64];
    size_t length = strlen(packet) / 2;
    if (length >= sizeof(command) || !gdb_parse_bytes(&packet, command, length)) {
        reply_error(server, EINVAL);
        return;
    }
    command[length] = 0;
    if (!strcmp(command, "quit"))
        server->config.quit(server->config.opaque);
    else if (!strcmp(command, "reset"))
        server->config.reset(server->config.opaque);
    else if (!strcmp(command, "state"))
        print_state(server);
    else
        print(server, help, sizeof(help) - 1);
    gdb_server_reply(server, "OK");
}

/* ---- Packets ---- */

struct command {
    const char *word;
    void (*run)(struct gdb_server *server, const char *packet); /* gets what follows the word, and fills in `reply` */
    bool may_not_reply; /* sends by itself, now or when the machine stops */
};

static const struct command commands[] = {
    {"?", why_stopped, false},
    {"g", read_registers, false},
    {"G", write_registers, false},
    {"p", read_register, false},
    {"P", write_register, false},
    {"m", read_memory, false},
    {"M", write_memory, false},
    {"X", write_memory_binary, false},
    {"Z", insert_breakpoint, false},
    {"z", remove_breakpoint, false},
    {"H", set_thread, false},
    {"T", is_thread_alive, false},
    {"D", detach, true},
    {"k", kill_machine, true},
    {"vKill", kill_machine, true},
    {"vCont?", list_actions, false},
    {"vCont", run_each, true},
    {"c", continue_all, true},
    {"C", continue_all, true},
    {"s", step_one, true},
    {"S", step_one, true},
    {"qSupported", list_features, false},
    {"QStartNoAckMode", stop_acknowledging, true},
    {"qXfer:features:read:", read_description, false},
    {"qfThreadInfo", list_threads, false},
    {"qsThreadInfo", end_thread_list, false},
    {"qThreadExtraInfo,", describe_thread, false},
    {"qC", current_thread, false},
    {"qAttached", is_attached, false},
    {"qSymbol", need_no_symbols, false},
    {"qRcmd,", run_command, false},
};

/* Whether a packet is this command: one-letter words are followed by anything, others by no letter. */
static bool is_command(const char *packet, const char *word) {
    size_t length = strlen(word);
    char next = packet[length < strlen(packet) ? length : strlen(packet)];
    if (strncmp(packet, word, length) != 0)
        return false;
    return length == 1 || !((next >= 'a' && next <= 'z') || (next >= 'A' && next <= 'Z')) ||
           strchr(":,", word[length - 1]);
}

void gdb_commands_run(struct gdb_server *server) {
    const char *packet = server->reader.data;
    gdb_server_start_reply(server);
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        const struct command *command = &commands[i];
        if (!is_command(packet, command->word))
            continue;
        command->run(server, packet + strlen(command->word));
        if (command->may_not_reply && server->reply.length == 0)
            return;
        break;
    }
    if (!server->is_sent)
        gdb_server_send(server);
}
