/* What a user can get wrong: each gives one line that names it, and exit status 1. */
#include <check.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/tools/command.h"

static struct command command;
static char folder[] = "/tmp/test_bad_input.XXXXXX";

/* K stands for a good kernel, F for a folder with the files made below. */
static const struct {
    const char *line, *expected;
} cases[] = {
    {"", "-kernel: missing"},
    {"-kernel", "-kernel: FILE is missing"},
    {"-kernel F/none", "-kernel: F/none: could not open kernel: No such file"},
    {"-kernel F", "-kernel: F: "},
    {"-kernel F/empty", "-kernel: F/empty: "},
    {"-kernel F/truncated", "-kernel: F/truncated: "},
    {"-kernel F/text", "-kernel: F/text: not a kernel"},
    {"-kernel K -initrd F/none", "-initrd: F/none: No such file"},
    {"-kernel K -initrd F/large -m 16", "-initrd: F/large: "},
    {"-kernel K -m 1", "-kernel: K: "},
    {"-kernel K -m", "-m: SIZE is missing"},
    {"-kernel K -m 0", "-m: 0: memory is from 1M to 64G"},
    {"-kernel K -m 65G", "-m: 65G: memory is from"},
    {"-kernel K -m 12x", "-m: 12x: not a size"},
    {"-kernel K -m -5", "-m: -5: not a size"},
    {"-kernel K -m 99999999999999999999", "-m: 99999999999999999999: not a size"},
    {"-kernel K -m 16,slots=2", "-m: 16,slots=2: 'slots' is not supported yet"},
    {"-kernel K -smp 0", "-smp: 0: the number of processors"},
    {"-kernel K -smp 255", "-smp: 255: "},
    {"-kernel K -smp two", "-smp: two: "},
    {"-kernel K -smp 4,sockets=3", "-smp: 4,sockets=3: the topology"},
    {"-kernel K -smp 1,maxcpus=2", "-smp: 1,maxcpus=2: processors cannot be plugged in"},
    {"-kernel K -smp cpu=2", "the nearest is 'cpus'"},
    {"-kernel K -cpu none", "-cpu: unknown CPU model 'none'"},
    {"-kernel K -cpu qemu64,+nonsense", "-cpu: unknown CPU feature 'nonsense'"},
    {"-kernel K -cpu qemu64,family=x", "-cpu: "},
    {"-kernel K -machine q35", "-machine: q35: no such machine here; the nearest is 'pc'"},
    {"-kernel K -M pc,vmport=on", "-M: vmport: not supported yet; the nearest is 'vmport=off'"},
    {"-kernel K -machine pc,pit=maybe", "-machine: maybe: pit is on, off or auto"},
    {"-kernel K -global isa-fdc.x=1", "-global: isa-fdc.x=1: not supported yet"},
    {"-kernel K -accel hvf", "-accel: hvf: no such accelerator"},
    {"-kernel K -accel tcg,tb-size=1", "-accel: tcg,tb-size=1: tb-size is from"},
    {"-kernel K -device e1000", "-device: e1000: no such device here yet"},
    {"-kernel K -device isa-debug-exit,iosize=3", "iosize is 1, 2 or 4"},
    {"-kernel K -device isa-debug-exit,iobase=0x20", "-device: isa-debug-exit at 20h: the place is taken by 8259"},
    {"-kernel K -serial nothing", "-serial: "},
    {"-kernel K -serial file:F/none/file", "-serial: "},
    {"-kernel K -serial unix:F/none/socket", "-serial: "},
    {"-kernel K -serial stdio -serial mon:stdio", "stdio: only one device can have it"},
    {"-kernel K -serial null -serial null -serial null -serial null -serial null", "-serial: null: a PC has at most 4"},
    {"-kernel K -debugcon x:", "-debugcon: "},
    {"-kernel K -display gtk", "-display: gtk: not supported yet; the nearest is 'none'"},
    {"-kernel K -monitor stdio", "-monitor: stdio: not supported yet; the nearest is 'none'"},
    {"-kernel K -nic user", "-nic: user: not supported yet"},
    {"-kernel K -gdb nothing", "-gdb: nothing: "},
    {"-kernel K -gdb tcp::0", "-gdb: tcp::0: not a place to listen at"},
    {"-kernel K -gdb tcp::99999", "-gdb: tcp::99999: not a place to listen at"},
    {"-kernel K -gdb unix:F/busy", "-gdb: unix:F/busy: Address already in use"},
    {"-kernel K -s", "-gdb: tcp::1234: Address already in use"},
    {"-kernel K -serial unix:F/busy,server", "-serial: cannot listen on 'F/busy': Address already in use"},
    {"-kernel K -initrd F -m 16", "-initrd: F: "},
    {"-kernel K -S", "-S: only a debugger"},
    {"-kernel K -d nonsense", "-d: nonsense: no such log item here; the nearest is"},
    {"-kernel K -D F/none/log -d int", "-D: F/none/log: No such file"},
    {"-kernel K -pidfile F/none/pid -display none", "-pidfile: F/none/pid: No such file"},
    {"-drive file=x", "-drive: not supported yet; the nearest is -initrd"},
    {"-bios x", "-bios: not supported yet; the nearest is -kernel"},
    {"-audiodev none", "-audiodev: not supported yet; nothing comes near it"},
    {"--kernle x", "--kernle: unknown option; the nearest is -kernel"},
    {"disk.img", "disk.img: disk images are not supported yet"},
    {"-", "-: "},
    {"-kernel K -m 1\n2", "-m: 1?2: not a size"}, /* no name breaks the line or commands the terminal */
    {"-kernel F/a\033[2Jb", "-kernel: F/a?[2Jb: could not open kernel"},
};

/* `text` with K and F as words or beginnings of words replaced. */
static void expand(char *to, size_t size, const char *text) {
    size_t length = 0;
    for (const char *c = text; *c && length + 1 < size; c++) {
        bool begins = c == text || strchr(" :'", c[-1]);
        bool ends = !c[1] || strchr(" /:", c[1]);
        if (begins && ends && (*c == 'K' || *c == 'F'))
            length += (size_t)snprintf(to + length, size - length, "%s", *c == 'K' ? TRAPEZE_GUEST : folder);
        else
            to[length++] = *c;
    }
    to[length] = 0;
}

static void make_file(const char *name, off_t size, const char *content) {
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    int fd = open(path, O_CREAT | O_WRONLY, 0644);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, content, strlen(content)), (ssize_t)strlen(content));
    if (size)
        ck_assert_int_eq(ftruncate(fd, size), 0);
    close(fd);
}

/* The port of -s, wherever somebody else is not there already. */
static void occupy_port(void) {
    const struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(1234),
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
        ck_assert_int_eq(listen(fd, 1), 0);
}

static void make_files(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    ck_assert_ptr_nonnull(mkdtemp(folder));
    occupy_port();
    make_file("empty", 0, "");
    make_file("text", 0, "This is no kernel.\n");
    make_file("truncated", 20, "\177ELF\1\1\1");
    make_file("large", 64 << 20, "x");
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/busy", folder);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(fd, 1), 0);
}

static void remove_files(void) {
    static const char *const names[] = {"empty", "text", "truncated", "large", "busy"};
    char path[128];
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
        unlink(path);
    }
    rmdir(folder);
}

START_TEST(one_line_names_it) {
    char line[1024], expected[512];
    expand(line, sizeof(line), cases[_i].line);
    expand(expected, sizeof(expected), cases[_i].expected);
    command_run(&command, line);
    ck_assert_msg(command.status == 1, "trapeze %s: status %d", line, command.status);
    ck_assert_str_eq(command.output, "");
    char *end = strchr(command.errors, '\n');
    ck_assert_msg(end && !end[1], "trapeze %s: not one line: %s", line, command.errors);
    ck_assert_msg(!strncmp(command.errors, "trapeze: ", 9) && strstr(command.errors, expected),
                  "trapeze %s: '%s' is not in: %s", line, expected, command.errors);
}
END_TEST

START_TEST(file_of_a_console_survives_a_wrong_kernel) {
    char line[512], path[128];
    struct stat status;
    snprintf(path, sizeof(path), "%s/text", folder);
    snprintf(line, sizeof(line), "-kernel %s/empty -serial file:%s", folder, path);
    command_run(&command, line);
    ck_assert_int_eq(command.status, 1);
    ck_assert_int_eq(stat(path, &status), 0);
    ck_assert_int_gt(status.st_size, 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("bad_input");
    TCase *tcase = tcase_create("all");
    tcase_set_timeout(tcase, 60);
    tcase_add_unchecked_fixture(tcase, make_files, remove_files);
    tcase_add_loop_test(tcase, one_line_names_it, 0, sizeof(cases) / sizeof(cases[0]));
    tcase_add_test(tcase, file_of_a_console_survives_a_wrong_kernel);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
