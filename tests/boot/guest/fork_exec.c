/*
 * Processes: fork with copy-on-write memory, exec of itself with arguments, exit statuses, pipes between generations,
 * death by signal.
 */
#include "expect.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILDREN = 100, WORDS = 1 << 16 };

static unsigned memory[WORDS];

static int status_of(pid_t child) {
    int status = 0;
    EXPECT(waitpid(child, &status, 0) == child);
    return status;
}

static void children_see_their_own_copy(void) {
    for (unsigned i = 0; i < WORDS; i++)
        memory[i] = i;
    for (unsigned n = 0; n < CHILDREN; n++) {
        pid_t child = fork();
        EXPECT(child >= 0);
        if (child == 0) {
            for (unsigned i = 0; i < WORDS; i += 97)
                memory[i] ^= n + 1;
            for (unsigned i = 0; i < WORDS; i++)
                if (memory[i] != (i % 97 ? i : (i ^ (n + 1))))
                    _exit(99);
            _exit((int)n);
        }
        int status = status_of(child);
        EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == (int)n);
    }
    for (unsigned i = 0; i < WORDS; i++)
        EXPECT(memory[i] == i);
}

static void exec_hands_over_arguments(const char *self) {
    for (volatile int n = 0; n < 30; n++) {
        char number[16];
        snprintf(number, sizeof number, "%d", n);
        pid_t child = vfork();
        EXPECT(child >= 0);
        if (child == 0) {
            char *const arguments[] = {(char *)self, "child", number, NULL};
            char *const environment[] = {"COLOUR=grey", NULL};
            execve(self, arguments, environment);
            _exit(127);
        }
        int status = status_of(child);
        EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 100 + n);
    }
}

static void pipes_carry_data_both_ways(void) {
    int down[2], up[2];
    EXPECT(pipe(down) == 0 && pipe(up) == 0);
    pid_t child = fork();
    EXPECT(child >= 0);
    if (child == 0) {
        close(down[1]);
        unsigned value;
        while (read(down[0], &value, sizeof value) == (ssize_t)sizeof value) {
            value = value * 3 + 1;
            if (write(up[1], &value, sizeof value) != (ssize_t)sizeof value)
                _exit(1);
        }
        _exit(0);
    }
    for (unsigned i = 0; i < 5000; i++) {
        unsigned answer = 0;
        EXPECT(write(down[1], &i, sizeof i) == (ssize_t)sizeof i);
        EXPECT(read(up[0], &answer, sizeof answer) == (ssize_t)sizeof answer && answer == i * 3 + 1);
    }
    close(down[1]);
    EXPECT(status_of(child) == 0);
}

static void a_killed_child_tells_its_signal(void) {
    pid_t child = fork();
    EXPECT(child >= 0);
    if (child == 0)
        for (;;)
            pause();
    EXPECT(kill(child, SIGKILL) == 0);
    int status = status_of(child);
    EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "child") == 0) {
        const char *colour = getenv("COLOUR");
        return colour && strcmp(colour, "grey") == 0 ? 100 + atoi(argv[2]) : 1;
    }
    children_see_their_own_copy();
    exec_hands_over_arguments(argv[0]);
    pipes_carry_data_both_ways();
    a_killed_child_tells_its_signal();
    return 0;
}
