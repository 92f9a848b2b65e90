/* See command.h. */
#include "tests/tools/command.h"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void execute(const char *program, const char *line) {
    char text[2048], *arguments[COMMAND_ARGUMENTS + 1] = {(char *)program}, *rest = NULL;
    unsigned count = 1;
    strncpy(text, line, sizeof(text) - 1);
    text[sizeof(text) - 1] = 0;
    for (char *word = strtok_r(text, " ", &rest); word && count < COMMAND_ARGUMENTS; word = strtok_r(NULL, " ", &rest))
        arguments[count++] = word;
    execv(program, arguments);
    _exit(127);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* One read; false at the end of the file. */
static bool collect(int fd, char *text, size_t *length) {
    char ignored[4096];
    size_t room = COMMAND_OUTPUT - 1 - *length;
    ssize_t count = read(fd, room ? text + *length : ignored, room ? room : sizeof(ignored));
    if (count <= 0)
        return false;
    if (room)
        *length += (size_t)count;
    text[*length] = 0;
    return true;
}

static void reap(struct command *command, double limit) {
    int status;
    pid_t pid;
    while ((pid = waitpid(command->pid, &status, WNOHANG)) == 0 && now() < limit)
        usleep(2000);
    if (pid == 0) {
        kill(command->pid, SIGKILL);
        waitpid(command->pid, &status, 0);
        command->status = COMMAND_TIMEOUT;
    } else {
        command->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
}

static void start_with(struct command *command, const char *line, int output, int errors) {
    *command = (struct command){.terminal = -1};
    command->pid = fork();
    if (command->pid != 0)
        return;
    int null = open("/dev/null", O_RDWR);
    dup2(null, STDIN_FILENO);
    dup2(output >= 0 ? output : null, STDOUT_FILENO);
    dup2(errors >= 0 ? errors : null, STDERR_FILENO);
    execute(TRAPEZE_COMMAND, line);
}

void command_start_plain(struct command *command, const char *line) {
    start_with(command, line, -1, -1);
}

void command_run(struct command *command, const char *line) {
    int output[2], errors[2];
    double limit = now() + COMMAND_SECONDS;
    if (pipe2(output, O_CLOEXEC) != 0 || pipe2(errors, O_CLOEXEC) != 0)
        abort();
    start_with(command, line, output[1], errors[1]);
    close(output[1]);
    close(errors[1]);
    struct pollfd sources[2] = {{output[0], POLLIN, 0}, {errors[0], POLLIN, 0}};
    while ((sources[0].fd >= 0 || sources[1].fd >= 0) && now() < limit) {
        poll(sources, 2, 100);
        if (sources[0].revents && !collect(output[0], command->output, &command->output_length))
            sources[0].fd = -1;
        if (sources[1].revents && !collect(errors[0], command->errors, &command->errors_length))
            sources[1].fd = -1;
    }
    close(output[0]);
    close(errors[0]);
    reap(command, limit);
}

void command_start_program(struct command *command, const char *program, const char *line) {
    *command = (struct command){.terminal = -1};
    command->pid = forkpty(&command->terminal, NULL, NULL, NULL);
    if (command->pid == 0)
        execute(program, line);
}

void command_start(struct command *command, const char *line) {
    command_start_program(command, TRAPEZE_COMMAND, line);
}

/* Takes `count` bytes away from the front of the output. */
static void forget(struct command *command, size_t count) {
    command->output_length -= count;
    memmove(command->output, command->output + count, command->output_length + 1);
}

bool command_expect_within(struct command *command, const char *text, double seconds) {
    double limit = now() + seconds;
    struct pollfd source = {command->terminal, POLLIN, 0};
    char *found;
    while (!(found = strstr(command->output, text)) && now() < limit) {
        if (command->output_length > COMMAND_OUTPUT * 3 / 4)
            forget(command, COMMAND_OUTPUT / 2);
        if (poll(&source, 1, 100) > 0 && !collect(command->terminal, command->output, &command->output_length))
            break;
    }
    if (found)
        forget(command, (size_t)(found + strlen(text) - command->output));
    return found != NULL;
}

bool command_expect(struct command *command, const char *text) {
    return command_expect_within(command, text, COMMAND_SECONDS);
}

void command_type(struct command *command, const char *keys, size_t count) {
    if (write(command->terminal, keys, count) != (ssize_t)count)
        abort();
}

int command_wait(struct command *command) {
    double limit = now() + COMMAND_SECONDS;
    if (command->terminal >= 0)
        fcntl(command->terminal, F_SETFL, O_NONBLOCK);
    while (command->terminal >= 0 && now() < limit) {
        siginfo_t info = {0};
        collect(command->terminal, command->output, &command->output_length);
        if (waitid(P_PID, (id_t)command->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid)
            break;
        usleep(2000);
    }
    reap(command, limit);
    if (command->terminal >= 0) {
        collect(command->terminal, command->output, &command->output_length);
        close(command->terminal);
    }
    command->terminal = -1;
    return command->status;
}
