/* See rounds.h. */
#include "tools/bench_driver/rounds.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/bench_driver/session.h"

enum { BOOT_SECONDS = 180, RUN_SECONDS = 120, MAX_RESTARTS = 4, LINE = 512 };

struct fleet {
    const struct plan *plan;
    unsigned processors;
    struct session sessions[MACHINES];
    unsigned starts[MACHINES];
};

/* The same words for both monitors; native runs the agent itself. */
static bool start_machine(const struct plan *plan, enum machine machine, unsigned processors, struct session *session) {
    char count[16];
    snprintf(count, sizeof count, "%u", processors);
    if (machine == NATIVE)
        return session_start(session, (char *[]){(char *)plan->program, "agent", NULL}, processors == 1);
    return session_start(session,
                         (char *[]){(char *)plan->monitors[machine],
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
                                    "512",
                                    "-smp",
                                    count,
                                    "-kernel",
                                    (char *)plan->kernel,
                                    "-initrd",
                                    (char *)plan->initrd,
                                    "-append",
                                    "console=ttyS0 panic=-1",
                                    NULL},
                         false);
}

static bool wait_for(struct session *session, const char *what, double seconds) {
    char line[LINE];
    double deadline = seconds_now() + seconds;
    while (session_receive(session, deadline, line, sizeof line))
        if (strncmp(line, what, strlen(what)) == 0)
            return true;
    return false;
}

/* Starts what does not run; a machine that keeps dying is given up. */
static bool fleet_ready(struct fleet *fleet, enum machine machine) {
    struct session *session = &fleet->sessions[machine];
    if (session->pid > 0)
        return true;
    if (fleet->starts[machine]++ > MAX_RESTARTS)
        return false;
    if (start_machine(fleet->plan, machine, fleet->processors, session) && wait_for(session, "ready", BOOT_SECONDS))
        return true;
    session_stop(session);
    return false;
}

static void fleet_stop(struct fleet *fleet) {
    for (int machine = 0; machine < MACHINES; machine++)
        session_stop(&fleet->sessions[machine]);
}

/* From the command to "done". The clocks are read before the program may begin and after it has told its end. */
static enum outcome run_once(struct session *session, bool is_native, const char *command, struct sample *sample) {
    char line[LINE];
    double deadline = seconds_now() + RUN_SECONDS, wall = 0, cpu = 0;
    unsigned long long inside_wall, inside_cpu, checksum;
    enum outcome outcome = FAILED;
    if (!session_send(session, command))
        return FAILED;
    while (session_receive(session, deadline, line, sizeof line)) {
        if (strncmp(line, "begin", 5) == 0) {
            wall = seconds_now();
            cpu = session_cpu_seconds(session);
            if (!session_send(session, "go"))
                break;
        } else if (sscanf(line, "end %llu %llu %llx", &inside_wall, &inside_cpu, &checksum) == 3) {
            *sample = (struct sample){true, seconds_now() - wall, session_cpu_seconds(session) - cpu,
                                      (double)inside_wall * 1e-9, checksum};
            if (is_native) {
                sample->wall = sample->inside_wall;
                sample->cpu = (double)inside_cpu * 1e-9;
            }
            outcome = RAN;
        } else if (strncmp(line, "skip", 4) == 0) {
            outcome = SKIPPED;
        } else if (strncmp(line, "error", 5) == 0) {
            fprintf(stderr, "bench: %s: %s\n", command, line);
        } else if (strncmp(line, "done", 4) == 0) {
            return outcome;
        }
    }
    fprintf(stderr, "bench: %s: no answer after %.0f s\n", command, seconds_now() + RUN_SECONDS - deadline);
    session_stop(session);
    return FAILED;
}

bool rounds_list_programs(const struct plan *plan, struct results *results) {
    struct session session;
    char line[LINE];
    unsigned long long count;
    if (!session_start(&session, (char *[]){(char *)plan->program, "list", NULL}, false))
        return false;
    while (results->rows_count + 8 < MAX_ROWS && session_receive(&session, seconds_now() + 10, line, sizeof line)) {
        struct row *row = &results->rows[results->rows_count];
        if (sscanf(line, "program %39[^|]|%15[^|]|%llu", row->name, row->group, &count) != 3)
            continue;
        row->count = count / plan->divide ? count / plan->divide : 1;
        if (plan->group && strcmp(plan->group, row->group) != 0)
            *row = (struct row){0};
        else
            results->rows_count++;
    }
    session_stop(&session);
    return true;
}

static void run_row(struct fleet *fleet, struct row *row, unsigned round, unsigned processes) {
    char command[128];
    snprintf(command, sizeof command, "run %s|%llu|%u", row->name, (unsigned long long)row->count, processes);
    for (int machine = 0; machine < MACHINES; machine++) {
        if (!fleet->plan->monitors[machine] || row->outcomes[machine] != RAN)
            continue;
        if (!fleet_ready(fleet, (enum machine)machine))
            row->outcomes[machine] = FAILED;
        else
            row->outcomes[machine] =
                run_once(&fleet->sessions[machine], machine == NATIVE, command, &row->samples[round][machine]);
    }
}

static void tell_progress(const struct plan *plan, unsigned round, const char *name) {
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r%s: round %u of %u, %-20s", plan->guest, round + 1, plan->rounds, name);
}

void rounds_run_programs(const struct plan *plan, struct results *results) {
    struct fleet fleet = {.plan = plan, .processors = 1};
    for (unsigned round = 0; round < plan->rounds; round++)
        for (unsigned i = 0; i < results->rows_count; i++) {
            tell_progress(plan, round, results->rows[i].name);
            run_row(&fleet, &results->rows[i], round, 1);
        }
    tell_progress(plan, plan->rounds - 1, "done\n");
    fleet_stop(&fleet);
}

static struct row *add_row(struct results *results, const char *group, const char *name) {
    struct row *row = &results->rows[results->rows_count++];
    *row = (struct row){.count = 1, .is_wall = true};
    snprintf(row->group, sizeof row->group, "%s", group);
    snprintf(row->name, sizeof row->name, "%s", name);
    return row;
}

static void boot_once(const struct plan *plan, enum machine machine, struct row *boot, struct row *memory,
                      unsigned round) {
    struct session session = {0};
    if (start_machine(plan, machine, 1, &session) && wait_for(&session, "init", BOOT_SECONDS)) {
        boot->samples[round][machine] = (struct sample){
            .is_there = true, .wall = seconds_now() - session.started, .cpu = session_cpu_seconds(&session)};
        memory->samples[round][machine] =
            (struct sample){.is_there = true, .wall = (double)session_memory_kib(&session) / 1024};
    } else {
        boot->outcomes[machine] = FAILED;
    }
    session_stop(&session);
}

void rounds_run_boots(const struct plan *plan, struct results *results) {
    struct row *boot = add_row(results, "boot", "to /init, wall"), *memory = add_row(results, "boot", "memory, MiB");
    memory->is_apart = true;
    boot->outcomes[NATIVE] = memory->outcomes[NATIVE] = SKIPPED;
    for (unsigned round = 0; round < plan->rounds; round++)
        for (int machine = NATIVE + 1; machine < MACHINES; machine++)
            if (plan->monitors[machine])
                boot_once(plan, (enum machine)machine, boot, memory, round);
}

void rounds_run_processors(const struct plan *plan, struct results *results) {
    struct fleet fleet = {.plan = plan, .processors = 2};
    struct row *scaling = add_row(results, "processors", "two CPUs over one"), single, both;
    scaling->is_apart = true;
    single = (struct row){.name = "integer mix", .count = 40000000 / plan->divide};
    both = single;
    for (unsigned round = 0; round < plan->rounds; round++) {
        run_row(&fleet, &single, round, 1);
        run_row(&fleet, &both, round, 2);
        for (int machine = 0; machine < MACHINES; machine++) {
            const struct sample *one = &single.samples[round][machine], *two = &both.samples[round][machine];
            if (one->is_there && two->is_there && two->wall > 0)
                scaling->samples[round][machine] = (struct sample){.is_there = true, .wall = 2 * one->wall / two->wall};
            scaling->outcomes[machine] = both.outcomes[machine];
        }
    }
    fleet_stop(&fleet);
}
