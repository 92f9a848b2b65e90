/*
 * Every option of the command that is taken, on the command itself: that it has its effect, or is quiet where it asks
 * for what is so anyway. What is refused is in test_bad_input.c, keys and signals are in test_terminal.c, the
 * debugger's options in test_gdb.c.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/tools/command.h"

static struct command command;
static char folder[] = "/tmp/test_run_options.XXXXXX";

/* `to` = format with %s as the folder. */
static void in_folder(char *to, size_t size, const char *name) {
    snprintf(to, size, "%s/%s", folder, name);
}

static void read_file(const char *path, char *text, size_t size) {
    FILE *file = fopen(path, "r");
    ck_assert_msg(file != NULL, "%s: %s", path, strerror(errno));
    text[fread(text, 1, size - 1, file)] = 0;
    fclose(file);
}

/* ---- What the guest sees ---- */

#define KERNEL "-kernel " TRAPEZE_GUEST " "
#define TELLS  KERNEL "-append i -serial stdio -display none -m 16 "

static const struct {
    const char *line, *output, *errors;
} effects[] = {
    {TELLS, "memory=00003c00 modules=00000000 processors=00000001", ""},
    {TELLS "-m 24", "memory=00005c00", ""},
    {TELLS "-m 32M", "memory=00007c00", ""},
    {TELLS "-m size=1G", "memory=000ffc00", ""},
    {TELLS "-smp 3", "processors=00000003", ""},
    {TELLS "-smp cpus=2,cores=2", "processors=00000002", ""},
    {TELLS "-smp 2,sockets=2", "processors=00000002", "cores of one socket"},
    {TELLS "-initrd " TRAPEZE_GUEST, "modules=00000001", ""},
    {TELLS "-initrd " TRAPEZE_GUEST "," TRAPEZE_GUEST, "modules=00000002", ""},
    {TELLS "-append x,y=z,i", "tools_guest x,y=z,i.", ""},
    {TELLS "-cpu 486", "family=00000480", ""},
    {TELLS "-cpu pentium3", "family=00000670", ""},
    {TELLS "-cpu qemu64,-sse2,+popcnt,x2apic=off", "family=00000fb0", ""},
    {TELLS "-cpu host", "memory=", ""},
    {TELLS "-cpu max", "memory=", ""},
    {TELLS "-M pc", "memory=", ""},
    {TELLS "-machine pc", "memory=", ""},
    {TELLS "-machine type=pc,accel=tcg,usb=off,vmport=off,smm=off,graphics=off", "memory=", ""},
    {TELLS "-machine pit=on", "memory=", ""},
    {TELLS "-machine kernel_irqchip=on", "memory=", "kernel_irqchip means something with KVM only"},
    {TELLS "-accel tcg", "memory=", ""},
    {TELLS "-accel tcg,thread=multi,tb-size=16", "memory=", ""},
    {TELLS "-accel kvm", "memory=", "warning: KVM is not used"},
    {TELLS "-enable-kvm", "memory=", "warning: KVM is not used"},
    {TELLS "-machine accel=kvm:tcg", "memory=", "warning: KVM is not used"},
    {TELLS "-global kvm-pit.lost_tick_policy=discard", "memory=", "-global: a property of KVM's devices"},
    {TELLS "-vga none -monitor none -parallel none -net none -nic none -vnc none", "memory=", ""},
    {TELLS "-rtc base=utc -sandbox off -no-user-config -nodefaults", "memory=", ""},
    {TELLS "-name guest -no-reboot -no-shutdown=", NULL, "unknown option"},
    {TELLS "-name guest=x,process=y", "memory=", ""},
    {TELLS "-device isa-debug-exit -device pc-testdev -device pci-testdev", "memory=", ""},
    {TELLS "-device driver=isa-debug-exit,iobase=0xf4,iosize=4", "memory=", ""},
    {TELLS "-gdb none", "memory=", ""},
    {TELLS "--serial null --debugcon null", "memory=", ""},
    {KERNEL "-append i -m 16 -nographic", "memory=00003c00", ""},
    {KERNEL "-append i -m 16", "memory=00003c00", ""}, /* the console is here when nothing is said */
    {KERNEL "-append i -m 16 -serial mon:stdio", "memory=00003c00", ""},
    {KERNEL "-append i -m 16 -debugcon stdio -display none", "memory=00003c00", ""},
};

START_TEST(option_has_its_effect) {
    command_run(&command, effects[_i].line);
    ck_assert_msg(command.status == (effects[_i].output ? 0 : 1), "trapeze %s: status %d, %s", effects[_i].line,
                  command.status, command.errors);
    ck_assert_msg(!effects[_i].output || strstr(command.output, effects[_i].output), "trapeze %s: '%s' is not in: %s",
                  effects[_i].line, effects[_i].output, command.output);
    if (*effects[_i].errors)
        ck_assert_msg(strstr(command.errors, effects[_i].errors) != NULL, "trapeze %s: '%s' is not in: %s",
                      effects[_i].line, effects[_i].errors, command.errors);
    else
        ck_assert_str_eq(command.errors, "");
}
END_TEST

START_TEST(nodefaults_and_display_none_are_silent) {
    command_run(&command, KERNEL "-append i -m 16 -nodefaults");
    ck_assert_int_eq(command.status, 0);
    ck_assert_str_eq(command.output, "");
    command_run(&command, KERNEL "-append i -m 16 -display none");
    ck_assert_int_eq(command.status, 0);
    ck_assert_str_eq(command.output, "");
}
END_TEST

/* ---- Consoles elsewhere ---- */

START_TEST(consoles_write_to_files) {
    char line[512], serial[128], debugcon[128], text[512];
    in_folder(serial, sizeof serial, "serial");
    in_folder(debugcon, sizeof debugcon, "debugcon");
    snprintf(line, sizeof line, KERNEL "-append i -m 16 -display none -serial file:%s -debugcon file:%s", serial,
             debugcon);
    command_run(&command, line);
    ck_assert_int_eq(command.status, 0);
    read_file(serial, text, sizeof text);
    ck_assert_ptr_nonnull(strstr(text, "memory=00003c00"));
    read_file(debugcon, text, sizeof text);
    ck_assert_ptr_nonnull(strstr(text, "memory=00003c00"));
    unlink(serial);
    unlink(debugcon);
}
END_TEST

/* Types a letter and gets it back: the guest echoes. */
static void talk(int fd) {
    char text[64] = "";
    size_t length = 0;
    ck_assert_int_eq(write(fd, "z", 1), 1);
    while (!strchr(text, 'z') && length < sizeof text - 1) {
        ssize_t count = read(fd, text + length, sizeof text - 1 - length);
        ck_assert_int_gt(count, 0);
        text[length += (size_t)count] = 0;
    }
    ck_assert_ptr_nonnull(strchr(text, 'z'));
}

static void terminate(void) {
    kill(command.pid, SIGTERM);
    ck_assert_int_eq(command_wait(&command), 0);
}

START_TEST(serial_port_on_a_pty_is_named_and_talks) {
    char path[64] = "";
    command_start(&command, KERNEL "-append e -m 16 -display none -serial pty");
    ck_assert(command_expect(&command, "char device redirected to "));
    for (unsigned i = 0; i < 100 && !strchr(command.output, '('); i++)
        command_expect_within(&command, "never", 0.1);
    ck_assert_int_eq(sscanf(command.output, "%63s (label serial0)", path), 1);
    int fd = open(path, O_RDWR | O_NOCTTY);
    ck_assert_msg(fd >= 0, "%s: %s", path, strerror(errno));
    talk(fd);
    close(fd);
    terminate();
}
END_TEST

static int connect_to(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), status = -1;
    snprintf(address.sun_path, sizeof address.sun_path, "%.100s", path);
    for (unsigned i = 0; i < 1000 && status != 0; i++) {
        status = connect(fd, (struct sockaddr *)&address, sizeof address);
        if (status != 0)
            usleep(10000);
    }
    ck_assert_int_eq(status, 0);
    return fd;
}

static const char *const servers[] = {"server=on,wait=off", "server,nowait", "server=on"};

START_TEST(serial_port_on_a_socket_serves_one_client_after_another) {
    char line[512], path[128];
    in_folder(path, sizeof path, "socket");
    snprintf(line, sizeof line, KERNEL "-append e -m 16 -display none -serial unix:%s,%s", path, servers[_i]);
    command_start_plain(&command, line);
    for (unsigned i = 0; i < 2; i++) {
        int fd = connect_to(path);
        talk(fd);
        close(fd);
    }
    terminate();
    ck_assert_int_ne(access(path, F_OK), 0);
}
END_TEST

START_TEST(serial_port_connects_to_a_socket_that_listens) {
    char line[512];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    in_folder(address.sun_path, sizeof address.sun_path, "listener");
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    ck_assert_int_eq(listen(listener, 1), 0);
    snprintf(line, sizeof line, KERNEL "-append e -m 16 -display none -serial unix:%s", address.sun_path);
    command_start_plain(&command, line);
    int fd = accept(listener, NULL, NULL);
    talk(fd);
    terminate();
    close(fd);
    close(listener);
    unlink(address.sun_path);
}
END_TEST

/* ---- Logs ---- */

static const struct {
    const char *item, *guest, *text;
} logs[] = {
    {"in_asm", "p", "IN: 0000000000100"},
    {"out_asm", "p", "OUT: [size="},
    {"int", "t", "exception 13"},
    {"exits", "t", "int3 by a C function, faults"},
    {"unimp", "u", "unimplemented: no rule for the instruction at 0000000000100"},
    {"mmu", "m", "flushes or changes the address space: cr3 0000000000"},
    {"guest_errors", "g", "unclaimed: 2-byte read of port 1234"},
    {"stats", "p", "stats: blocks translated"},
};

START_TEST(log_item_shows_what_it_says) {
    char line[512], path[128];
    static char text[1 << 20];
    in_folder(path, sizeof path, "log");
    snprintf(line, sizeof line, KERNEL "-append %s -m 16 -display none -no-reboot -d %s -D %s", logs[_i].guest,
             logs[_i].item, path);
    command_run(&command, line);
    read_file(path, text, sizeof text);
    ck_assert_msg(strstr(text, logs[_i].text) != NULL, "-d %s: no '%s' in: %.2000s", logs[_i].item, logs[_i].text,
                  text);
    ck_assert_ptr_null(strstr(command.errors, logs[_i].text));
    unlink(path);
    *strstr(line, " -D ") = 0; /* without a file it goes to standard error */
    command_run(&command, line);
    ck_assert_ptr_nonnull(strstr(command.errors, logs[_i].text));
}
END_TEST

/* ---- The process ---- */

START_TEST(pidfile_holds_the_process_id_while_it_runs) {
    char line[512], path[128], text[64] = "";
    struct stat status;
    in_folder(path, sizeof path, "pid");
    snprintf(line, sizeof line, KERNEL "-append h -m 16 -display none -pidfile %s", path);
    command_start_plain(&command, line);
    for (unsigned i = 0; i < 1000 && (stat(path, &status) != 0 || status.st_size == 0); i++)
        usleep(10000);
    read_file(path, text, sizeof text);
    ck_assert_int_eq(atoi(text), command.pid);
    terminate();
    ck_assert_int_ne(access(path, F_OK), 0);
}
END_TEST

START_TEST(pidfile_of_another_machine_is_left_alone) {
    static struct command second;
    char line[512], path[128], text[64];
    struct stat status;
    in_folder(path, sizeof path, "pid");
    snprintf(line, sizeof line, KERNEL "-append h -m 16 -display none -pidfile %s", path);
    command_start_plain(&command, line);
    for (unsigned i = 0; i < 1000 && (stat(path, &status) != 0 || status.st_size == 0); i++)
        usleep(10000);
    command_run(&second, line);
    ck_assert_int_eq(second.status, 1);
    ck_assert_ptr_nonnull(strstr(second.errors, "trapeze: -pidfile: "));
    read_file(path, text, sizeof text);
    ck_assert_int_eq(atoi(text), command.pid);
    terminate();
}
END_TEST

/* Until the command sees to SIGTERM itself, which on a busy host takes its time. */
static void wait_until_it_listens(void) {
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/%d/status", (int)command.pid);
    for (unsigned i = 0; i < 1000; i++, usleep(10000)) {
        read_file(path, text, sizeof text);
        /* Blocked it is for a moment before, and caught by what the command is started from. */
        const char *caught = strstr(text, "SigCgt:");
        bool is_command = strncmp(text, "Name:\ttrapeze\n", 14) == 0;
        if (is_command && caught && strtoull(caught + 7, NULL, 16) >> (SIGTERM - 1) & 1)
            return;
    }
}

/* Resets, power-off and all: however the guest ends, the monitor does so well. */
START_TEST(garbage_in_every_device_leaves_the_monitor_well) {
    static const char *const lines[] = {
        KERNEL "-append w -m 16 -smp 2 -display none -serial null -debugcon null -device pc-testdev -device pci-testdev",
        KERNEL "-append w -m 16 -display none -no-shutdown -device pci-testdev",
    };
    for (unsigned i = 0; i < 12; i++) {
        command_start_plain(&command, lines[_i]);
        wait_until_it_listens();
        usleep(200000);
        kill(command.pid, SIGTERM);
        ck_assert_int_eq(command_wait(&command), 0);
    }
}
END_TEST

static const int signals[] = {SIGTERM, SIGHUP, SIGINT};

START_TEST(signal_ends_it_without_a_terminal) {
    command_start_plain(&command, KERNEL "-append c -m 16 -display none -smp 2");
    wait_until_it_listens();
    usleep(300000);
    kill(command.pid, signals[_i]);
    ck_assert_int_eq(command_wait(&command), 0);
}
END_TEST

static void make_folder(void) {
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void remove_folder(void) {
    rmdir(folder);
}

int main(void) {
    Suite *suite = suite_create("run_options");
    TCase *tcase = tcase_create("all");
    tcase_set_timeout(tcase, 90);
    tcase_add_unchecked_fixture(tcase, make_folder, remove_folder);
    tcase_add_loop_test(tcase, option_has_its_effect, 0, sizeof(effects) / sizeof(effects[0]));
    tcase_add_test(tcase, nodefaults_and_display_none_are_silent);
    tcase_add_test(tcase, consoles_write_to_files);
    tcase_add_test(tcase, serial_port_on_a_pty_is_named_and_talks);
    tcase_add_loop_test(tcase, serial_port_on_a_socket_serves_one_client_after_another, 0,
                        sizeof(servers) / sizeof(servers[0]));
    tcase_add_test(tcase, serial_port_connects_to_a_socket_that_listens);
    tcase_add_loop_test(tcase, log_item_shows_what_it_says, 0, sizeof(logs) / sizeof(logs[0]));
    tcase_add_test(tcase, pidfile_holds_the_process_id_while_it_runs);
    tcase_add_test(tcase, pidfile_of_another_machine_is_left_alone);
    tcase_add_loop_test(tcase, garbage_in_every_device_leaves_the_monitor_well, 0, 2);
    tcase_add_loop_test(tcase, signal_ends_it_without_a_terminal, 0, sizeof(signals) / sizeof(signals[0]));
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
