/* See plan.h. */
#include "tools/bench_driver/plan.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/bench_driver/report.h"

bool plan_wants(const struct plan *plan, const char *group) {
    if (strcmp(group, "growth") == 0 && !plan->has_growth)
        return false;
    return !plan->group || strcmp(plan->group, group) == 0;
}

bool plan_start(const struct plan *plan, enum machine machine, const struct shape *shape, struct session *session) {
    char processors[16], mebibytes[16];
    struct session_options options = {.is_pinned = machine == NATIVE && shape->processors == 1,
                                      .memory_group = shape->is_measured ? plan->memory_group : NULL};
    snprintf(processors, sizeof processors, "%u", shape->processors);
    snprintf(mebibytes, sizeof mebibytes, "%u", shape->mebibytes);
    const char *native[] = {plan->program, "agent", plan->busybox, plan->packages, plan->folder, NULL};
    const char *guest[] = {plan->monitors[machine],
                           "-M",
                           "pc",
                           "-accel",
                           "tcg",
                           "-nodefaults",
                           "-display",
                           "none",
                           "-serial",
                           "stdio",
                           "-no-reboot",
                           "-m",
                           mebibytes,
                           "-smp",
                           processors,
                           "-kernel",
                           plan->kernel,
                           "-initrd",
                           shape->initrd,
                           "-append",
                           "console=ttyS0 panic=-1",
                           NULL};
    return session_start(session, (char **)(machine == NATIVE ? native : guest), &options);
}

bool plan_start_nano(const struct plan *plan, enum machine machine, struct session *session) {
    const struct session_options options = {.is_pinned = false};
    const char *command[] = {plan->monitors[machine],
                             "-M",
                             "pc",
                             "-accel",
                             "tcg",
                             "-nodefaults",
                             "-display",
                             "none",
                             "-no-reboot",
                             "-m",
                             "128",
                             "-kernel",
                             plan->nano,
                             "-device",
                             "isa-debug-exit,iobase=0xf4,iosize=4",
                             "-debugcon",
                             "stdio",
                             NULL};
    return session_start(session, (char **)command, &options);
}

void plan_give_up(const struct plan *plan, enum machine machine, struct session *session, const char *what) {
    double seconds = seconds_now() - session->started;
    bool has_ended = session->has_ended;
    int status = session_stop(session);
    if (session_interrupted)
        return;
    fprintf(stderr, "bench: %s, %s: %s; ", plan->guest, report_machine_names[machine], what);
    if (!has_ended || status < 0)
        fprintf(stderr, "ended after %.0f s\n", seconds);
    else if (WIFSIGNALED(status))
        fprintf(stderr, "it was killed by signal %d\n", WTERMSIG(status));
    else
        fprintf(stderr, "it left with status %d\n", WEXITSTATUS(status));
}

void plan_tell_progress(const struct plan *plan, unsigned round, const char *name) {
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r%s: round %u of %u, %-28s", plan->guest, round + 1, plan->rounds, name);
}
