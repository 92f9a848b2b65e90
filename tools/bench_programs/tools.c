/* The user group's real programs: tools of busybox, started over its own binary, their output hashed. */
#include "tools/bench_programs/program.h"

#include <sys/wait.h>
#include <unistd.h>

static uint64_t hash_output(const char *const *arguments) {
    unsigned char buffer[16384];
    uint64_t hash = 14695981039346656037u;
    ssize_t got;
    int output[2], status;
    REQUIRE(pipe(output) == 0);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        dup2(output[1], STDOUT_FILENO);
        close(output[0]);
        close(output[1]);
        execv(program_busybox, (char *const *)arguments);
        _exit(127);
    }
    close(output[1]);
    while ((got = read(output[0], buffer, sizeof buffer)) > 0)
        for (ssize_t i = 0; i < got; i++)
            hash = (hash ^ buffer[i]) * 1099511628211u;
    close(output[0]);
    REQUIRE(waitpid(child, &status, 0) == child && status == 0);
    return hash;
}

static uint64_t run_gzip(void *state, uint64_t count) {
    (void)state;
    uint64_t hash = 0;
    for (uint64_t i = 0; i < count; i++)
        hash += hash_output((const char *[]){"busybox", "gzip", "-n", "-c", program_busybox, NULL});
    return hash;
}

static uint64_t run_awk(void *state, uint64_t count) {
    (void)state;
    char loops[32];
    snprintf(loops, sizeof loops, "loops=%u", (unsigned)count);
    return hash_output((const char *[]){"busybox", "awk", "-v", loops,
                                        "BEGIN { for (i = 0; i < loops; i++) { word = \"w\" (i % 97); seen[word] += i;"
                                        " if (i % 5 == 0) text = substr(text word, 3, 40) }"
                                        " for (i = 0; i < 97; i++) print seen[\"w\" i], text }",
                                        NULL});
}

static uint64_t run_shell(void *state, uint64_t count) {
    (void)state;
    char loops[32];
    snprintf(loops, sizeof loops, "%u", (unsigned)count);
    return hash_output((const char *[]){"busybox", "sh", "-c",
                                        "i=0; t=; while [ $i -lt $0 ]; do i=$((i + 1)); case $i in *7) t=$t$i;; esac;"
                                        " t=${t#??}; done; echo $t $i",
                                        loops, NULL});
}

const struct program programs_tools[] = {
    {.name = "busybox gzip", .group = "user", .count = 1, .run = run_gzip},
    {.name = "busybox awk", .group = "user", .count = 150000, .run = run_awk},
    {.name = "busybox sh", .group = "user", .count = 80000, .run = run_shell},
    {0},
};
