/* See session.h. */
#include "tools/bench_driver/session.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* A guest with one CPU is compared with one CPU. */
static void pin_to_last_cpu(void) {
    cpu_set_t all, one;
    if (sched_getaffinity(0, sizeof all, &all) != 0)
        return;
    CPU_ZERO(&one);
    for (int cpu = CPU_SETSIZE - 1; cpu >= 0 && CPU_COUNT(&one) == 0; cpu--)
        if (CPU_ISSET(cpu, &all))
            CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof one, &one);
}

volatile sig_atomic_t session_interrupted;

static _Noreturn void become(char *const command[], const struct session_options *options,
                             const struct session *session, int input, int output) {
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_DFL);
    if (options->is_pinned)
        pin_to_last_cpu();
    if (session->is_grouped && !memory_group_enter(&session->memory))
        _exit(126);
    dup2(input, STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    execvp(command[0], command);
    _exit(127);
}

bool session_start(struct session *session, char *const command[], const struct session_options *options) {
    int to[2], from[2];
    *session = (struct session){.started = seconds_now()};
    if (session_interrupted || pipe2(to, O_CLOEXEC) != 0)
        return false;
    if (pipe2(from, O_CLOEXEC) != 0) {
        close(to[0]);
        close(to[1]);
        return false;
    }
    session->is_grouped = memory_group_create(&session->memory, options->memory_group);
    session->pid = fork();
    if (session->pid == 0)
        become(command, options, session, to[0], from[1]);
    close(to[0]);
    close(from[1]);
    session->to = to[1];
    session->from = from[0];
    if (session->pid < 0)
        session_stop(session);
    else
        setpgid(session->pid, session->pid);
    return session->pid > 0;
}

/* The driver is a subreaper: what the leader has started and left behind is its own child by then. */
static int reap(pid_t leader) {
    int status, leaders_status = -1;
    for (;;) {
        pid_t pid = waitpid(-leader, &status, 0);
        if (pid == leader)
            leaders_status = status;
        if (pid < 0 && errno != EINTR)
            return leaders_status;
    }
}

/* One that has ended by itself keeps its status; one that is about to end gets a moment for it. */
int session_stop(struct session *session) {
    int status = -1;
    siginfo_t info = {0};
    if (session->to > 0)
        close(session->to);
    if (session->from > 0)
        close(session->from);
    if (session->pid > 0) {
        for (int i = 0; i < 5 && session->has_ended; i++) {
            waitid(P_PID, (id_t)session->pid, &info, WEXITED | WNOHANG | WNOWAIT);
            if (info.si_pid != 0)
                break;
            usleep(20000);
        }
        kill(-session->pid, SIGKILL);
        status = reap(session->pid);
    }
    memory_group_destroy(&session->memory);
    session->pid = 0;
    session->to = session->from = 0;
    return status;
}

bool session_send(struct session *session, const char *text) {
    char line[256];
    int length = snprintf(line, sizeof line, "%s\n", text);
    return write(session->to, line, (size_t)length) == length;
}

static bool take_line(struct session *session, char *line, size_t size) {
    char *end = memchr(session->buffer, '\n', session->used), *text;
    if (!end && session->used == sizeof session->buffer)
        session->used = 0;
    if (!end)
        return false;
    *end = 0;
    text = strstr(session->buffer, "bench: ");
    snprintf(line, size, "%s", text ? text + strlen("bench: ") : "");
    line[strcspn(line, "\r")] = 0;
    session->used -= (size_t)(end + 1 - session->buffer);
    memmove(session->buffer, end + 1, session->used);
    return true;
}

bool session_receive(struct session *session, double deadline, char *line, size_t size) {
    for (;;) {
        while (take_line(session, line, size))
            if (line[0])
                return true;
        double left = deadline - seconds_now();
        struct pollfd poller = {.fd = session->from, .events = POLLIN};
        if (session_interrupted || left <= 0 || poll(&poller, 1, (int)(left * 1000) + 1) < 0)
            return false;
        if (!poller.revents)
            continue;
        ssize_t got = read(session->from, session->buffer + session->used, sizeof session->buffer - session->used);
        if (got <= 0) {
            session->has_ended = true;
            return false;
        }
        session->used += (size_t)got;
    }
}

bool session_await(struct session *session, const char *what, double seconds) {
    char line[512];
    double deadline = seconds_now() + seconds;
    while (session_receive(session, deadline, line, sizeof line))
        if (strncmp(line, what, strlen(what)) == 0)
            return true;
    return false;
}

static double process_seconds(pid_t pid) {
    clockid_t clock;
    struct timespec used;
    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &used) != 0)
        return 0;
    return (double)used.tv_sec + (double)used.tv_nsec * 1e-9;
}

static double tree_seconds(pid_t pid, int depth);

/* Those that one thread of PID started. */
static double children_seconds(pid_t pid, const char *thread, int depth) {
    double seconds = 0;
    char path[320];
    int child;
    snprintf(path, sizeof path, "/proc/%d/task/%s/children", pid, thread);
    FILE *children = fopen(path, "r");
    if (!children)
        return 0;
    while (fscanf(children, "%d", &child) == 1)
        seconds += tree_seconds(child, depth + 1);
    fclose(children);
    return seconds;
}

static double tree_seconds(pid_t pid, int depth) {
    double seconds = process_seconds(pid);
    char path[64];
    const struct dirent *entry;
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *threads = depth < 8 ? opendir(path) : NULL;
    if (!threads)
        return seconds;
    while ((entry = readdir(threads)))
        if (entry->d_name[0] != '.')
            seconds += children_seconds(pid, entry->d_name, depth);
    closedir(threads);
    return seconds;
}

double session_cpu_seconds(const struct session *session) {
    return tree_seconds(session->pid, 0);
}

static uint64_t proc_kib(pid_t pid, const char *file, const char *key) {
    char path[64], line[256];
    unsigned long long kib = 0;
    snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
    FILE *stream = fopen(path, "r");
    if (!stream)
        return 0;
    while (fgets(line, sizeof line, stream))
        if (strncmp(line, key, strlen(key)) == 0)
            sscanf(line + strlen(key), "%llu", &kib);
    fclose(stream);
    return kib;
}

uint64_t session_memory_kib(const struct session *session) {
    uint64_t peak = session->is_grouped ? memory_group_peak_kib(&session->memory) : 0;
    if (peak)
        return peak;
    uint64_t pages = proc_kib(session->pid, "smaps_rollup", "Pss:");
    return pages ? pages + proc_kib(session->pid, "status", "VmPTE:") : 0;
}
