/* See tools.h. The user group's tools of busybox are here, too. */
#include "tools/bench_programs/tools.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t hash_descriptor(int fd) {
    unsigned char buffer[16384];
    uint64_t hash = 14695981039346656037u;
    ssize_t got;
    while ((got = read(fd, buffer, sizeof buffer)) > 0)
        for (ssize_t i = 0; i < got; i++)
            hash = (hash ^ buffer[i]) * 1099511628211u;
    REQUIRE(got == 0);
    close(fd);
    return hash;
}

uint64_t tool_hash_output(const char *path, const char *const *arguments) {
    int output[2], status;
    REQUIRE(pipe(output) == 0);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        int nowhere = open("/dev/null", O_RDWR);
        dup2(nowhere, STDIN_FILENO);
        dup2(nowhere, STDERR_FILENO);
        dup2(output[1], STDOUT_FILENO);
        close(output[0]);
        close(output[1]);
        execv(path, (char *const *)arguments);
        _exit(127);
    }
    close(output[1]);
    uint64_t hash = hash_descriptor(output[0]);
    REQUIRE(waitpid(child, &status, 0) == child && status == 0);
    return hash;
}

uint64_t tool_hash_file(const char *path) {
    int fd = open(path, O_RDONLY);
    REQUIRE(fd >= 0);
    return hash_descriptor(fd);
}

static uint64_t run_gzip(void *state, uint64_t count) {
    (void)state;
    uint64_t hash = 0;
    for (uint64_t i = 0; i < count; i++)
        hash +=
            tool_hash_output(program_busybox, (const char *[]){"busybox", "gzip", "-n", "-c", program_busybox, NULL});
    return hash;
}

static uint64_t run_awk(void *state, uint64_t count) {
    (void)state;
    char loops[32];
    snprintf(loops, sizeof loops, "loops=%u", (unsigned)count);
    return tool_hash_output(
        program_busybox,
        (const char *[]){"busybox", "awk", "-v", loops,
                         "BEGIN { for (i = 0; i < loops; i++) { word = \"w\" (i % 97); seen[word] += i;"
                         " if (i % 5 == 0) text = substr(text word, 3, 40) }"
                         " for (i = 0; i < 97; i++) print seen[\"w\" i], text }",
                         NULL});
}

static uint64_t run_shell(void *state, uint64_t count) {
    (void)state;
    char loops[32];
    snprintf(loops, sizeof loops, "%u", (unsigned)count);
    return tool_hash_output(
        program_busybox, (const char *[]){"busybox", "sh", "-c",
                                          "i=0; t=; while [ $i -lt $0 ]; do i=$((i + 1)); case $i in *7) t=$t$i;; esac;"
                                          " t=${t#??}; done; echo $t $i",
                                          loops, NULL});
}

const struct program programs_tools[] = {
    {.name = "busybox gzip", .group = "user", .count = 1, .run = run_gzip},
    {.name = "busybox awk", .group = "user", .count = 100000, .run = run_awk},
    {.name = "busybox sh", .group = "user", .count = 60000, .run = run_shell},
    {0},
};
