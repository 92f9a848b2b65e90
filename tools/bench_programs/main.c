/*
 * The programs' command, and the agent that runs them for the benchmark's driver: natively over pipes, in a guest as
 * /init over the console. The agent takes lines "run NAME|COUNT|PROCESSES" and answers in lines that begin "bench: ":
 * "begin" when a program is ready (it then waits for a line), "end WALL CPU CHECKSUM" in nanoseconds, and "done
 * STATUS".
 */
#include "tools/bench_programs/program.h"

#include <string.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static const struct program *const lists[] = {
    programs_integer, programs_tools,   programs_packages, programs_float_sse, programs_float_x87, programs_vector,
    programs_memory,  programs_process, programs_kernel,   programs_code,      programs_growth};

const char *program_busybox = "/bin/busybox", *program_packages = "/packages";

enum { LISTS = sizeof lists / sizeof lists[0], MAX_PROCESSES = 16 };

static const struct program *find_program(const char *name) {
    for (int i = 0; i < LISTS; i++)
        for (const struct program *row = lists[i]; row->name; row++)
            if (strcmp(row->name, name) == 0)
                return row;
    return NULL;
}

static void list_programs(void) {
    for (int i = 0; i < LISTS; i++)
        for (const struct program *row = lists[i]; row->name; row++)
            printf("bench: program %s|%s|%llu\n", row->name, row->group, (unsigned long long)row->count);
    printf("bench: listed\n");
}

/* CPUID alone would do natively; the system must have enabled the state as well. */
static int is_there(const char *needed) {
    char loader[512];
    __builtin_cpu_init();
    if (!needed)
        return 1;
    if (strcmp(needed, "packages") == 0) {
        snprintf(loader, sizeof loader, "%s/lib/ld.so", program_packages);
        return access(loader, X_OK) == 0;
    }
    return strcmp(needed, "avx2") == 0 ? __builtin_cpu_supports("avx2") : __builtin_cpu_supports("avx512f");
}

/* A byte at a time: the agent and its children take turns at one standard input. */
static int read_line(char *line, size_t size) {
    size_t used = 0;
    char byte;
    while (read(STDIN_FILENO, &byte, 1) == 1) {
        if (byte == '\n' || byte == '\r') {
            line[used] = 0;
            return 1;
        }
        if (used + 1 < size)
            line[used++] = byte;
    }
    return 0;
}

static uint64_t nanoseconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t children_nanoseconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_CHILDREN, &usage);
    return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000 +
           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000;
}

static uint64_t run_beside_others(const struct program *program, void *state, uint64_t count, int processes) {
    pid_t others[MAX_PROCESSES];
    for (int i = 1; i < processes; i++) {
        others[i] = fork();
        REQUIRE(others[i] >= 0);
        if (others[i] == 0)
            _exit(program->run(state, count) == 0);
    }
    uint64_t checksum = program->run(state, count);
    for (int i = 1; i < processes; i++)
        waitpid(others[i], NULL, 0);
    return checksum;
}

static void measure(const struct program *program, uint64_t count, int processes) {
    char line[16];
    void *state = program->prepare ? program->prepare(count) : NULL;
    printf("bench: begin\n");
    fflush(stdout);
    if (!read_line(line, sizeof line))
        _exit(1);
    uint64_t wall = nanoseconds(CLOCK_MONOTONIC), cpu = nanoseconds(CLOCK_PROCESS_CPUTIME_ID) + children_nanoseconds();
    uint64_t checksum = run_beside_others(program, state, count, processes);
    cpu = nanoseconds(CLOCK_PROCESS_CPUTIME_ID) + children_nanoseconds() - cpu;
    wall = nanoseconds(CLOCK_MONOTONIC) - wall;
    printf("bench: end %llu %llu %016llx\n", (unsigned long long)wall, (unsigned long long)cpu,
           (unsigned long long)checksum);
    fflush(stdout);
    _exit(0);
}

static void run_command(char *text) {
    char *name = strtok(text, "|"), *count = strtok(NULL, "|"), *processes = strtok(NULL, "|");
    const struct program *program = name ? find_program(name) : NULL;
    int status = 0;
    if (!program || !count || !processes || atoi(processes) < 1 || atoi(processes) > MAX_PROCESSES) {
        printf("bench: error no such program\n");
    } else if (!is_there(program->needs)) {
        printf("bench: skip without %s\n", program->needs);
    } else {
        fflush(stdout);
        pid_t child = fork();
        if (child == 0)
            measure(program, strtoull(count, NULL, 10), atoi(processes));
        if (child < 0 || waitpid(child, &status, 0) != child)
            status = -1;
    }
    printf("bench: done %d\n", status);
    fflush(stdout);
}

static void agent(void) {
    char line[256];
    printf("bench: ready\n");
    fflush(stdout);
    while (read_line(line, sizeof line)) {
        if (strncmp(line, "run ", 4) == 0)
            run_command(line + 4);
        else if (strcmp(line, "quit") == 0)
            break;
    }
}

static void init(void) {
    struct termios terminal;
    printf("bench: init\n");
    fflush(stdout);
    if (tcgetattr(STDIN_FILENO, &terminal) == 0) {
        cfmakeraw(&terminal);
        tcsetattr(STDIN_FILENO, TCSANOW, &terminal);
    }
    klogctl(8, NULL, 1); /* nothing but emergencies between the answers */
    mkdir("/proc", 0755);
    mkdir("/dev", 0755);
    mount("proc", "/proc", "proc", 0, NULL);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    mkdir("/dev/shm", 0755);
    mount("tmpfs", "/dev/shm", "tmpfs", 0, NULL);
    if (chdir("/dev/shm") != 0)
        printf("bench: error no folder to work in\n");
    agent();
    reboot(RB_POWER_OFF);
}

int main(int argc, char **argv) {
    if (getpid() == 1)
        init();
    else if (argc > 1 && strcmp(argv[1], "nothing") == 0)
        return 0;
    else if (argc > 1 && strcmp(argv[1], "list") == 0)
        list_programs();
    else if (argc > 4 && strcmp(argv[1], "agent") == 0) {
        program_busybox = realpath(argv[2], NULL);
        program_packages = argv[3][0] ? realpath(argv[3], NULL) : "/nowhere";
        if (!program_busybox || !program_packages || chdir(argv[4]) != 0)
            return 1;
        agent();
    } else {
        printf("usage: bench list|nothing|agent BUSYBOX PACKAGES FOLDER\n");
        return 1;
    }
    return 0;
}
