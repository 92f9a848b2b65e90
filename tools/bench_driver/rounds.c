/* See rounds.h. */
#include "tools/bench_driver/rounds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BOOT_SECONDS = 180, RUN_SECONDS = 300, NANO_SECONDS = 60, MAX_RESTARTS = 3, LINE = 512 };

/* Starts what does not run; a machine that keeps dying is given up. */
static bool fleet_ready(struct fleet *fleet, enum machine machine) {
    struct session *session = &fleet->sessions[machine];
    if (session->pid > 0)
        return true;
    if (fleet->starts[machine]++ > MAX_RESTARTS)
        return false;
    if (plan_start(fleet->plan, machine, &fleet->shape, session) && session_await(session, "ready", BOOT_SECONDS))
        return true;
    plan_give_up(fleet->plan, machine, session, "no agent came up");
    return false;
}

void fleet_stop(struct fleet *fleet) {
    for (int machine = 0; machine < MACHINES; machine++)
        session_stop(&fleet->sessions[machine]);
}

/* From the command to "done". The clocks are read before the program may begin and after it has told its end. */
static enum outcome run_once(struct fleet *fleet, enum machine machine, const char *command, struct sample *sample) {
    struct session *session = &fleet->sessions[machine];
    char line[LINE];
    double deadline = seconds_now() + RUN_SECONDS, wall = 0, cpu = 0;
    unsigned long long inside_wall, inside_cpu, checksum;
    enum outcome outcome = FAILED;
    if (!session_send(session, command))
        session->has_ended = true;
    while (!session->has_ended && session_receive(session, deadline, line, sizeof line)) {
        if (strncmp(line, "begin", 5) == 0) {
            wall = seconds_now();
            cpu = session_cpu_seconds(session);
            if (!session_send(session, "go"))
                break;
        } else if (sscanf(line, "end %llu %llu %llx", &inside_wall, &inside_cpu, &checksum) == 3) {
            *sample = (struct sample){true, seconds_now() - wall, session_cpu_seconds(session) - cpu,
                                      (double)inside_wall * 1e-9, checksum};
            if (machine == NATIVE) {
                sample->wall = sample->inside_wall;
                sample->cpu = (double)inside_cpu * 1e-9;
            }
            outcome = RAN;
        } else if (strncmp(line, "skip", 4) == 0) {
            outcome = SKIPPED;
        } else if (strncmp(line, "error", 5) == 0) {
            fprintf(stderr, "bench: %s, %s: %s\n", fleet->plan->guest, command, line);
        } else if (strncmp(line, "done", 4) == 0) {
            return outcome;
        }
    }
    plan_give_up(fleet->plan, machine, session, command);
    sample->is_there = false;
    return FAILED;
}

/* What has no group that is wanted is passed over. */
bool rounds_list_programs(const struct plan *plan, const char *program, struct results *results) {
    struct session session;
    char line[LINE], name[40], group[16];
    unsigned long long count;
    bool is_complete = false;
    if (!session_start(&session, (char *[]){(char *)program, "list", NULL}, &(struct session_options){0}))
        return false;
    while (!is_complete && session_receive(&session, seconds_now() + 10, line, sizeof line)) {
        is_complete = strcmp(line, "listed") == 0;
        if (sscanf(line, "program %39[^|]|%15[^|]|%llu", name, group, &count) != 3 || !plan_wants(plan, group))
            continue;
        struct row *row = results_add(results, group, name, CPU_SECONDS);
        if (row)
            row->count = count / plan->divide ? count / plan->divide : 1;
    }
    session_stop(&session);
    return is_complete;
}

void rounds_run_row(struct fleet *fleet, struct row *row, unsigned round, unsigned processes) {
    char command[128];
    snprintf(command, sizeof command, "run %s|%llu|%u", row->name, (unsigned long long)row->count, processes);
    for (int machine = 0; machine < MACHINES; machine++) {
        if (!fleet->plan->monitors[machine] || row->outcomes[machine] != RAN)
            continue;
        if (!fleet_ready(fleet, (enum machine)machine))
            row->outcomes[machine] = FAILED;
        else
            row->outcomes[machine] = run_once(fleet, (enum machine)machine, command, &row->samples[round][machine]);
    }
}

void rounds_run_programs(const struct plan *plan, struct results *results) {
    struct fleet fleet = {.plan = plan, .shape = {plan->programs_initrd, 1, 512, false}};
    for (unsigned round = 0; round < plan->rounds; round++)
        for (unsigned i = 0; i < results->rows_count && !session_interrupted; i++) {
            if (strcmp(results->rows[i].group, "growth") == 0)
                continue;
            plan_tell_progress(plan, round, results->rows[i].name);
            rounds_run_row(&fleet, &results->rows[i], round, 1);
        }
    fleet_stop(&fleet);
}

void rounds_run_processors(const struct plan *plan, struct results *results) {
    struct fleet fleet = {.plan = plan, .shape = {plan->initrd, 2, 512, false}};
    struct row *scaling = results_add(results, "processors", "two CPUs over one", FACTOR), single, both;
    if (!scaling)
        return;
    /* Long enough that a pause of some milliseconds of the host does not decide. */
    single = (struct row){.name = "integer mix", .count = 160000000 / plan->divide};
    both = single;
    for (unsigned round = 0; round < plan->rounds && !session_interrupted; round++) {
        plan_tell_progress(plan, round, scaling->name);
        rounds_run_row(&fleet, &single, round, 1);
        rounds_run_row(&fleet, &both, round, 2);
        for (int machine = 0; machine < MACHINES; machine++) {
            const struct sample *one = &single.samples[round][machine], *two = &both.samples[round][machine];
            if (one->is_there && two->is_there && two->wall > 0)
                scaling->samples[round][machine] = (struct sample){.is_there = true, .wall = 2 * one->wall / two->wall};
            scaling->outcomes[machine] = both.outcomes[machine];
        }
    }
    fleet_stop(&fleet);
}

static struct row *find_or_add(struct results *results, const char *name) {
    for (unsigned i = 0; i < results->rows_count; i++)
        if (strcmp(results->rows[i].group, "nano") == 0 && strcmp(results->rows[i].name, name) == 0)
            return &results->rows[i];
    struct row *row = results_add(results, "nano", name, CYCLES);
    if (row)
        row->outcomes[NATIVE] = SKIPPED;
    return row;
}

/* Its lines are "nano NAME|CYCLES", and "nano-end" where it has come to its end and all was as it should be. */
static void run_nano_once(const struct plan *plan, enum machine machine, struct results *results, unsigned round) {
    struct session session = {0};
    char line[LINE], name[40];
    double cycles, deadline = seconds_now() + NANO_SECONDS;
    bool is_complete = false;
    if (plan_start_nano(plan, machine, &session))
        while (!is_complete && session_receive(&session, deadline, line, sizeof line)) {
            is_complete = strcmp(line, "nano-end") == 0;
            struct row *row = sscanf(line, "nano %39[^|]|%lf", name, &cycles) == 2 ? find_or_add(results, name) : NULL;
            if (row)
                row->samples[round][machine] = (struct sample){.is_there = true, .wall = cycles};
        }
    if (is_complete) {
        session_stop(&session);
        return;
    }
    plan_give_up(plan, machine, &session, "the bare-metal program did not come to its end");
    struct row *row = find_or_add(results, "all of them");
    if (row)
        row->outcomes[machine] = FAILED;
}

void rounds_run_nano(const struct plan *plan, struct results *results) {
    for (unsigned round = 0; round < plan->rounds && !session_interrupted; round++)
        for (int machine = NATIVE + 1; machine < MACHINES; machine++)
            if (plan->monitors[machine]) {
                plan_tell_progress(plan, round, "bare metal");
                run_nano_once(plan, (enum machine)machine, results, round);
            }
}
