/* The character backends: each kind end to end, terminals and their Ctrl-A commands, and one-line errors. */
#include "devices/backends/char.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "devices/event_loop.h"
#include "tests/unit/devices/device_test.h"

static struct bus *bus;
static struct event_loop *loop;
static char error[200], path[64];

/* A device that takes as much as it is told to. */
static struct {
    char input[4096];
    size_t count, room;
    unsigned writable, opened, closed, breaks, quits;
} device;

static size_t device_room(void *opaque) {
    (void)opaque;
    return device.room;
}

static void device_receive(void *opaque, const uint8_t *bytes, size_t count) {
    (void)opaque;
    memcpy(device.input + device.count, bytes, count);
    device.count += count;
    device.room -= count;
}

static void device_writable(void *opaque) {
    (void)opaque;
    device.writable++;
}

static void device_event(void *opaque, enum char_event event) {
    (void)opaque;
    device.opened += event == CHAR_OPENED;
    device.closed += event == CHAR_CLOSED;
    device.breaks += event == CHAR_BREAK;
}

static void quit(void *opaque) {
    (void)opaque;
    device.quits++;
}

static const struct char_frontend frontend = {device_room, device_receive, device_writable, device_event, NULL};
static const struct char_escapes escapes = {quit, NULL};

static void setup(void) {
    bus = bus_create();
    loop = event_loop_create(bus);
    memset(&device, 0, sizeof(device));
    device.room = 4096;
    snprintf(path, sizeof(path), "/tmp/test_char.%d", (int)getpid());
}

static void teardown(void) {
    event_loop_destroy(loop);
    bus_destroy(bus);
    unlink(path);
}

static struct char_backend *open_spec(const char *spec) {
    struct char_backend *backend = char_open(spec, loop, &escapes, error, sizeof(error));
    ck_assert_msg(backend, "%s", error);
    bus_lock(bus);
    char_connect(backend, &frontend);
    bus_unlock(bus);
    return backend;
}

static size_t send_text(struct char_backend *backend, const char *text) {
    bus_lock(bus);
    size_t sent = char_write(backend, (const uint8_t *)text, strlen(text));
    bus_unlock(bus);
    return sent;
}

/* Waits until `*value`, which another thread changes under the lock, is at least `least`. */
#define WAIT_FOR(value, least)                                                                                         \
    do {                                                                                                               \
        bool is_there = false;                                                                                         \
        for (unsigned tries = 0; tries < 3000 && !is_there; tries++) {                                                 \
            bus_lock(bus);                                                                                             \
            is_there = (value) >= (least);                                                                             \
            bus_unlock(bus);                                                                                           \
            if (!is_there)                                                                                             \
                usleep(1000);                                                                                          \
        }                                                                                                              \
        ck_assert_msg(is_there, #value " did not get to " #least);                                                     \
    } while (0)

static void read_text(int fd, char *text, size_t count) {
    size_t got = 0;
    while (got < count) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        ck_assert_int_eq(poll(&ready, 1, 3000), 1);
        ssize_t part = read(fd, text + got, count - got);
        ck_assert_int_gt(part, 0);
        got += (size_t)part;
    }
    text[count] = 0;
}

/* ---- Specs ----------------------------------------------------------------------------------------------------- */

static void assert_refused(const char *spec, const char *word) {
    error[0] = 0;
    ck_assert_ptr_null(char_open(spec, loop, NULL, error, sizeof(error)));
    ck_assert_msg(strstr(error, word), "'%s' does not name '%s'", error, word);
    ck_assert_ptr_null(strchr(error, '\n'));
}

START_TEST(bad_specs_are_refused_by_name) {
    char long_path[300] = "unix:/tmp/";
    memset(long_path + 10, 'x', 180);
    assert_refused("serial", "serial");
    assert_refused("", "unknown");
    assert_refused("nullx", "nullx");
    assert_refused("mon:pty", "mon:pty");
    assert_refused("file:", "path");
    assert_refused("file:/nonexistent/x", "/nonexistent/x");
    assert_refused("unix:", "address");
    assert_refused("unix:/tmp/x,sever", "sever");
    assert_refused("unix:/nonexistent/socket", "/nonexistent/socket");
    assert_refused(long_path, "xxxx");
    assert_refused("tcp:localhost", "localhost");
    assert_refused("tcp:127.0.0.1:1,wait=perhaps", "wait=perhaps");
    assert_refused("tcp:127.0.0.1:1", "127.0.0.1:1");
}
END_TEST

START_TEST(null_takes_everything) {
    struct char_backend *backend = open_spec("null");
    ck_assert_uint_eq(send_text(backend, "nothing"), 7);
    char_close(backend);
}
END_TEST

START_TEST(file_gets_the_output) {
    char spec[80], text[8];
    snprintf(spec, sizeof(spec), "file:%s", path);
    struct char_backend *backend = open_spec(spec);
    ck_assert_uint_eq(send_text(backend, "abc\n"), 4);
    char_close(backend);
    int fd = open(path, O_RDONLY);
    read_text(fd, text, 4);
    ck_assert_str_eq(text, "abc\n");
    close(fd);
}
END_TEST

START_TEST(full_disk_does_not_hold_the_device) {
    struct char_backend *backend = open_spec("file:/dev/full");
    ck_assert_uint_eq(send_text(backend, "abc"), 3);
    ck_assert_uint_eq(send_text(backend, "abc"), 3);
    char_close(backend);
}
END_TEST

START_TEST(pty_talks_both_ways_and_tells_its_name) {
    char text[16];
    struct char_backend *backend = open_spec("pty");
    const char *name = char_description(backend);
    ck_assert_int_eq(strncmp(name, "pty /dev/pts/", 13), 0);
    send_text(backend, "early"); /* waits for whoever attaches */
    int fd = open(name + 4, O_RDWR | O_NOCTTY);
    ck_assert_int_ge(fd, 0);
    read_text(fd, text, 5);
    ck_assert_str_eq(text, "early");
    ck_assert_int_eq(write(fd, "in\r", 3), 3);
    WAIT_FOR(device.count, 3);
    ck_assert_int_eq(memcmp(device.input, "in\r", 3), 0);
    close(fd);
    fd = open(name + 4, O_RDWR | O_NOCTTY); /* a second program */
    ck_assert_int_eq(write(fd, "x", 1), 1);
    WAIT_FOR(device.count, 4);
    close(fd);
    char_close(backend);
}
END_TEST

START_TEST(unattached_pty_never_holds_the_device) {
    struct char_backend *backend = open_spec("pty");
    for (unsigned i = 0; i < 30000; i++)
        ck_assert_uint_eq(send_text(backend, "0123456789"), 10);
    char_close(backend);
}
END_TEST

/* ---- Sockets --------------------------------------------------------------------------------------------------- */

static int connect_unix(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

START_TEST(unix_server_takes_one_client_after_another) {
    char spec[100], text[16];
    snprintf(spec, sizeof(spec), "unix:%s,server=on,wait=off", path);
    struct char_backend *backend = open_spec(spec);
    ck_assert_uint_eq(send_text(backend, "lost"), 4);
    for (unsigned client = 1; client <= 3; client++) {
        int fd = connect_unix();
        WAIT_FOR(device.opened, client);
        send_text(backend, "hello");
        read_text(fd, text, 5);
        ck_assert_str_eq(text, "hello");
        ck_assert_int_eq(write(fd, "y", 1), 1);
        WAIT_FOR(device.count, client);
        close(fd);
        WAIT_FOR(device.closed, client);
    }
    char_close(backend);
    ck_assert_int_eq(access(path, F_OK), -1); /* the socket file is gone */
}
END_TEST

START_TEST(stale_socket_file_is_replaced_a_live_one_is_not) {
    char spec[100];
    snprintf(spec, sizeof(spec), "unix:%s,server,nowait", path);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    int dead = socket(AF_UNIX, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(dead, (struct sockaddr *)&address, sizeof(address)), 0);
    close(dead);
    struct char_backend *backend = open_spec(spec);
    assert_refused(spec, path);
    char_close(backend);
}
END_TEST

START_TEST(tcp_server_on_this_machine_answers) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    int probe = socket(AF_INET, SOCK_STREAM, 0); /* a port that is free */
    bind(probe, (struct sockaddr *)&address, sizeof(address));
    getsockname(probe, (struct sockaddr *)&address, &length);
    close(probe);
    char spec[100], text[8];
    snprintf(spec, sizeof(spec), "tcp::%d,server=on,wait=off", ntohs(address.sin_port));
    struct char_backend *backend = open_spec(spec);
    assert_refused(spec, "in use");
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    WAIT_FOR(device.opened, 1);
    send_text(backend, "tcp");
    read_text(fd, text, 3);
    ck_assert_str_eq(text, "tcp");
    close(fd);
    char_close(backend);
}
END_TEST

START_TEST(slow_reader_holds_back_and_gets_everything) {
    char spec[100], block[1001], text[1001];
    size_t sent = 0;
    memset(block, 'z', 1000);
    block[1000] = 0;
    snprintf(spec, sizeof(spec), "unix:%s,server,nowait", path);
    struct char_backend *backend = open_spec(spec);
    int fd = connect_unix();
    WAIT_FOR(device.opened, 1);
    for (size_t took = 1000; took == 1000; sent += took)
        took = send_text(backend, block);
    ck_assert_uint_ge(sent, 65536);
    for (size_t got = 0; got < sent;) {
        size_t part = sent - got < 1000 ? sent - got : 1000;
        read_text(fd, text, part);
        got += part;
    }
    WAIT_FOR(device.writable, 1);
    close(fd);
    char_close(backend);
}
END_TEST

static void *read_late(void *argument) {
    static char text[1 << 20];
    usleep(100000);
    for (size_t got = 0; got < sizeof(text);) {
        ssize_t part = read(*(int *)argument, text + got, sizeof(text) - got);
        ck_assert_int_gt(part, 0);
        got += (size_t)part;
    }
    return NULL;
}

START_TEST(write_all_waits_for_a_late_reader_and_loses_nothing) {
    char spec[100], block[1025];
    pthread_t reader;
    memset(block, 'z', 1024);
    block[1024] = 0;
    snprintf(spec, sizeof(spec), "unix:%s,server,nowait", path);
    struct char_backend *backend = open_spec(spec);
    int fd = connect_unix();
    WAIT_FOR(device.opened, 1);
    ck_assert_int_eq(pthread_create(&reader, NULL, read_late, &fd), 0);
    for (unsigned i = 0; i < 1024; i++) {
        bus_lock(bus);
        char_write_all(backend, (const uint8_t *)block, 1024);
        bus_unlock(bus);
    }
    ck_assert_int_eq(pthread_join(reader, NULL), 0); /* it got all of the megabyte */
    close(fd);
    char_close(backend);
}
END_TEST

START_TEST(write_all_gives_a_dead_reader_up_once) {
    char spec[100], block[1025];
    memset(block, 'z', 1024);
    block[1024] = 0;
    snprintf(spec, sizeof(spec), "unix:%s,server,nowait", path);
    struct char_backend *backend = open_spec(spec);
    int fd = connect_unix();
    WAIT_FOR(device.opened, 1);
    time_t start = time(NULL);
    bus_lock(bus);
    for (unsigned i = 0; i < 20000; i++)
        char_write_all(backend, (const uint8_t *)block, 1024);
    bus_unlock(bus);
    ck_assert_int_le(time(NULL) - start, 5);
    close(fd);
    char_close(backend);
}
END_TEST

static void *connect_late(void *argument) {
    usleep(50000);
    *(int *)argument = connect_unix();
    return NULL;
}

START_TEST(waiting_server_opens_with_its_first_client) {
    char spec[100], text[8];
    pthread_t client;
    int fd = -1, null = open("/dev/null", O_WRONLY);
    dup2(null, STDERR_FILENO); /* it says there that it waits */
    ck_assert_int_eq(pthread_create(&client, NULL, connect_late, &fd), 0);
    snprintf(spec, sizeof(spec), "unix:%s,server", path);
    struct char_backend *backend = open_spec(spec);
    pthread_join(client, NULL);
    send_text(backend, "first");
    read_text(fd, text, 5);
    ck_assert_str_eq(text, "first");
    close(fd);
    char_close(backend);
}
END_TEST

START_TEST(input_waits_for_a_slow_device) {
    char spec[100];
    snprintf(spec, sizeof(spec), "unix:%s,server,nowait", path);
    device.room = 2;
    struct char_backend *backend = open_spec(spec);
    int fd = connect_unix();
    ck_assert_int_eq(write(fd, "abcdef", 6), 6);
    WAIT_FOR(device.count, 2);
    usleep(10000);
    bus_lock(bus);
    ck_assert_uint_eq(device.count, 2);
    device.room = 3;
    char_accept_input(backend);
    bus_unlock(bus);
    WAIT_FOR(device.count, 5);
    ck_assert_int_eq(memcmp(device.input, "abcde", 5), 0);
    close(fd);
    char_close(backend);
}
END_TEST

/* ---- Standard input and output --------------------------------------------------------------------------------- */

/* Makes a new terminal our standard input and output; each test is a process of its own. */
static int take_terminal(void) {
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    ck_assert_int_eq(grantpt(master), 0);
    ck_assert_int_eq(unlockpt(master), 0);
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    ck_assert_int_ge(slave, 0);
    dup2(slave, STDIN_FILENO);
    dup2(slave, STDOUT_FILENO);
    close(slave);
    return master;
}

START_TEST(terminal_is_raw_and_comes_back) {
    struct termios before, during, after;
    int master = take_terminal();
    tcgetattr(STDIN_FILENO, &before);
    struct char_backend *backend = open_spec("mon:stdio");
    tcgetattr(STDIN_FILENO, &during);
    ck_assert_uint_eq(during.c_lflag & (ICANON | ECHO | ISIG), 0);
    char_restore_terminal(backend);
    tcgetattr(STDIN_FILENO, &after);
    ck_assert_uint_eq(after.c_lflag, before.c_lflag);
    ck_assert_uint_eq(after.c_iflag, before.c_iflag);
    char_raw_terminal(backend);
    char_close(backend);
    tcgetattr(STDIN_FILENO, &after);
    ck_assert_uint_eq(after.c_lflag, before.c_lflag);
    ck_assert_int_eq(fcntl(STDIN_FILENO, F_GETFL) & O_NONBLOCK, 0); /* other programs share it */
    close(master);
}
END_TEST

START_TEST(plain_stdio_leaves_ctrl_c_to_the_host) {
    struct termios modes;
    char text[8];
    int master = take_terminal();
    struct char_backend *backend = open_spec("stdio");
    tcgetattr(STDIN_FILENO, &modes);
    ck_assert_uint_ne(modes.c_lflag & ISIG, 0);
    ck_assert_int_eq(write(master, "\001x", 2), 2);
    WAIT_FOR(device.count, 2); /* Ctrl-A is nothing special here */
    ck_assert_uint_eq(device.quits, 0);
    send_text(backend, "out");
    read_text(master, text, 3);
    ck_assert_str_eq(text, "out");
    char_close(backend);
    close(master);
}
END_TEST

START_TEST(ctrl_a_commands_work) {
    char text[64];
    int master = take_terminal();
    struct char_backend *backend = open_spec("mon:stdio");
    ck_assert_int_eq(write(master, "a\003\001ab\001b", 7), 7);
    WAIT_FOR(device.breaks, 1);
    ck_assert_uint_eq(device.count, 4);
    ck_assert_int_eq(memcmp(device.input, "a\003\001b", 4), 0);
    ck_assert_int_eq(write(master, "\001h", 2), 2);
    read_text(master, text, 12);
    ck_assert_str_eq(text, "\r\nCtrl-A h  "); /* the terminal made CR LF of it */
    bus_lock(bus);
    device.room = 0; /* and when the guest reads nothing */
    bus_unlock(bus);
    for (unsigned i = 0; i < 40; i++)
        ck_assert_int_eq(write(master, "0123456789", 10), 10);
    ck_assert_int_eq(write(master, "\001x", 2), 2);
    WAIT_FOR(device.quits, 1);
    char_close(backend);
    close(master);
}
END_TEST

START_TEST(closed_terminal_asks_to_quit) {
    int master = take_terminal();
    struct char_backend *backend = open_spec("stdio");
    close(master);
    WAIT_FOR(device.quits, 1);
    send_text(backend, "into the void");
    char_close(backend);
}
END_TEST

START_TEST(piped_stdio_ends_quietly) {
    int in[2], out[2];
    char text[8];
    ck_assert_int_eq(pipe(in), 0);
    ck_assert_int_eq(pipe(out), 0);
    dup2(in[0], STDIN_FILENO);
    dup2(out[1], STDOUT_FILENO);
    struct char_backend *backend = open_spec("stdio");
    ck_assert_int_eq(write(in[1], "ping", 4), 4);
    WAIT_FOR(device.count, 4);
    close(in[1]);
    usleep(10000);
    send_text(backend, "pong");
    read_text(out[0], text, 4);
    ck_assert_str_eq(text, "pong");
    ck_assert_uint_eq(device.quits, 0);
    char_close(backend);
}
END_TEST

START_TEST(input_from_a_file_arrives_whole) {
    char text[3001];
    for (unsigned i = 0; i < 3000; i++)
        text[i] = (char)('a' + i % 26);
    FILE *file = fopen(path, "w");
    fwrite(text, 1, 3000, file);
    fclose(file);
    int fd = open(path, O_RDONLY);
    dup2(fd, STDIN_FILENO);
    struct char_backend *backend = open_spec("stdio");
    WAIT_FOR(device.count, 3000);
    ck_assert_int_eq(memcmp(device.input, text, 3000), 0);
    char_close(backend);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("char");
    TCase *tests = tcase_create("char");
    tcase_set_timeout(tests, 30);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, bad_specs_are_refused_by_name);
    tcase_add_test(tests, null_takes_everything);
    tcase_add_test(tests, file_gets_the_output);
    tcase_add_test(tests, full_disk_does_not_hold_the_device);
    tcase_add_test(tests, pty_talks_both_ways_and_tells_its_name);
    tcase_add_test(tests, unattached_pty_never_holds_the_device);
    tcase_add_test(tests, unix_server_takes_one_client_after_another);
    tcase_add_test(tests, stale_socket_file_is_replaced_a_live_one_is_not);
    tcase_add_test(tests, tcp_server_on_this_machine_answers);
    tcase_add_test(tests, slow_reader_holds_back_and_gets_everything);
    tcase_add_test(tests, write_all_waits_for_a_late_reader_and_loses_nothing);
    tcase_add_test(tests, write_all_gives_a_dead_reader_up_once);
    tcase_add_test(tests, waiting_server_opens_with_its_first_client);
    tcase_add_test(tests, input_waits_for_a_slow_device);
    tcase_add_test(tests, terminal_is_raw_and_comes_back);
    tcase_add_test(tests, plain_stdio_leaves_ctrl_c_to_the_host);
    tcase_add_test(tests, ctrl_a_commands_work);
    tcase_add_test(tests, closed_terminal_asks_to_quit);
    tcase_add_test(tests, piped_stdio_ends_quietly);
    tcase_add_test(tests, input_from_a_file_arrives_whole);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
