/* The system group, first half: processes that are made, that talk to each other, and that start programs. */
#include "tools/bench_programs/program.h"

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t pipe_ping_pong(void *state, uint64_t count) {
    (void)state;
    int there[2], back[2], status;
    char byte = 0;
    REQUIRE(pipe(there) == 0 && pipe(back) == 0);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        for (uint64_t i = 0; i < count; i++) {
            REQUIRE(read(there[0], &byte, 1) == 1);
            byte++;
            REQUIRE(write(back[1], &byte, 1) == 1);
        }
        _exit(0);
    }
    for (uint64_t i = 0; i < count; i++) {
        REQUIRE(write(there[1], &byte, 1) == 1);
        REQUIRE(read(back[0], &byte, 1) == 1);
    }
    REQUIRE(waitpid(child, &status, 0) == child && status == 0);
    return (unsigned char)byte + count;
}

struct rally {
    uint32_t turn;
    uint64_t count;
};

static void rally_play(struct rally *rally, uint32_t side) {
    for (uint64_t i = 0; i < rally->count; i++) {
        uint32_t turn;
        while ((turn = __atomic_load_n(&rally->turn, __ATOMIC_ACQUIRE)) % 2 != side)
            syscall(SYS_futex, &rally->turn, FUTEX_WAIT_PRIVATE, turn, NULL, NULL, 0);
        __atomic_store_n(&rally->turn, turn + 1, __ATOMIC_RELEASE);
        syscall(SYS_futex, &rally->turn, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    }
}

static void *rally_answer(void *rally) {
    rally_play(rally, 1);
    return NULL;
}

static uint64_t futex_ping_pong(void *state, uint64_t count) {
    (void)state;
    struct rally rally = {.count = count};
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, rally_answer, &rally) == 0);
    rally_play(&rally, 0);
    pthread_join(thread, NULL);
    return rally.turn;
}

static uint64_t fork_wait(void *state, uint64_t count) {
    (void)state;
    uint64_t sum = 0;
    for (uint64_t i = 0; i < count; i++) {
        int status;
        pid_t child = fork();
        REQUIRE(child >= 0);
        if (child == 0)
            _exit((int)(i & 127));
        REQUIRE(waitpid(child, &status, 0) == child);
        sum += (uint64_t)WEXITSTATUS(status);
    }
    return sum;
}

static uint64_t fork_exec(void *state, uint64_t count) {
    (void)state;
    uint64_t sum = 0;
    for (uint64_t i = 0; i < count; i++) {
        int status;
        pid_t child = fork();
        REQUIRE(child >= 0);
        if (child == 0) {
            execl("/proc/self/exe", "bench", "nothing", (char *)NULL);
            _exit(1);
        }
        REQUIRE(waitpid(child, &status, 0) == child && status == 0);
        sum++;
    }
    return sum;
}

const struct program programs_process[] = {
    {.name = "pipe ping-pong", .group = "system", .count = 20000, .run = pipe_ping_pong},
    {.name = "futex ping-pong", .group = "system", .count = 10000, .run = futex_ping_pong},
    {.name = "fork+wait", .group = "system", .count = 600, .run = fork_wait},
    {.name = "fork+exec", .group = "system", .count = 150, .run = fork_exec},
    {0},
};
