/* See growth.h. */
#include "tools/bench_driver/growth.h"

#include <stdio.h>
#include <string.h>

#include "tools/bench_driver/rounds.h"

enum { BOOT_SECONDS = 180 };

static void boot_once(const struct plan *plan, enum machine machine, const struct shape *shape, struct row *boot,
                      struct row *memory, unsigned round) {
    struct session session = {0};
    if (plan_start(plan, machine, shape, &session) && session_await(&session, "init", BOOT_SECONDS)) {
        boot->samples[round][machine] = (struct sample){
            .is_there = true, .wall = seconds_now() - session.started, .cpu = session_cpu_seconds(&session)};
        memory->samples[round][machine] =
            (struct sample){.is_there = true, .wall = (double)session_memory_kib(&session) / 1024};
        session_stop(&session);
    } else {
        boot->outcomes[machine] = memory->outcomes[machine] = FAILED;
        plan_give_up(plan, machine, &session, "/init did not start");
    }
}

/* One round of boots; nothing boots natively. */
static void boot_all(const struct plan *plan, const struct shape *shape, struct row *boot, struct row *memory,
                     unsigned round) {
    boot->outcomes[NATIVE] = memory->outcomes[NATIVE] = SKIPPED;
    for (int machine = NATIVE + 1; machine < MACHINES && !session_interrupted; machine++)
        if (plan->monitors[machine])
            boot_once(plan, (enum machine)machine, shape, boot, memory, round);
}

void growth_run_boots(const struct plan *plan, struct results *results) {
    const struct shape shape = {plan->initrd, 1, 512, true};
    struct row *boot = results_add(results, "boot", "to /init, wall", WALL_SECONDS);
    struct row *memory = results_add(results, "memory", "peak at /init", MEBIBYTES);
    for (unsigned round = 0; memory && round < plan->rounds && !session_interrupted; round++) {
        plan_tell_progress(plan, round, "boot");
        boot_all(plan, &shape, boot, memory, round);
    }
}

/* A kernel that fits into that little memory on no machine is no failure of theirs. */
static void forgive_the_smallest(const struct plan *plan, struct row *boot, struct row *memory) {
    for (int machine = NATIVE + 1; machine < MACHINES; machine++)
        if (plan->monitors[machine] && boot->outcomes[machine] != FAILED)
            return;
    for (int machine = NATIVE + 1; machine < MACHINES; machine++)
        boot->outcomes[machine] = memory->outcomes[machine] = SKIPPED;
    if (!session_interrupted)
        fprintf(stderr,
                "bench: %s: this kernel does not start with that little memory on any machine, which is no failure\n",
                plan->guest);
}

static void grow_ram(const struct plan *plan, struct results *results) {
    static const unsigned sizes[] = {64, 128, 512, 2048, 16384};
    enum { SIZES = sizeof sizes / sizeof sizes[0] };
    struct row *rows[SIZES][2];
    char name[40];
    int count = 0;
    while (count < SIZES && sizes[count] <= plan->most_mebibytes)
        count++;
    for (int what = 0; what < 2; what++)
        for (int i = 0; i < count; i++) {
            snprintf(name, sizeof name, "%s, RAM %u MiB", what ? "memory" : "boot", sizes[i]);
            rows[i][what] = results_add(results, "growth", name, what ? MEBIBYTES : WALL_SECONDS);
        }
    for (int i = 0; i < count && rows[count - 1][1] && !session_interrupted; i++) {
        const struct shape shape = {plan->initrd, 1, sizes[i], true};
        plan_tell_progress(plan, 0, rows[i][0]->name);
        boot_all(plan, &shape, rows[i][0], rows[i][1], 0);
        if (i == 0)
            forgive_the_smallest(plan, rows[i][0], rows[i][1]);
    }
}

/* The same work in all, divided among as many processes as there are virtual CPUs. */
static void grow_processors(const struct plan *plan, struct results *results, const char *program, uint64_t count,
                            enum unit unit) {
    for (unsigned processors = 1; processors <= 8 && !session_interrupted; processors *= 2) {
        struct fleet fleet = {.plan = plan, .shape = {plan->initrd, processors, 512, false}};
        struct row *row = results_add(results, "growth", program, unit);
        if (!row)
            return;
        row->count = count / processors / plan->divide;
        plan_tell_progress(plan, 0, program);
        rounds_run_row(&fleet, row, 0, processors);
        fleet_stop(&fleet);
        snprintf(row->name, sizeof row->name, "%s, vCPUs %u", program, processors);
    }
}

/* Checksums depend on how the work is divided, not on the machine, so they are compared as everywhere. */
static void run_programs(const struct plan *plan, struct results *results) {
    struct fleet fleet = {.plan = plan, .shape = {plan->initrd, 1, 512, false}};
    for (unsigned i = 0; i < results->rows_count && !session_interrupted; i++)
        if (strcmp(results->rows[i].group, "growth") == 0) {
            plan_tell_progress(plan, 0, results->rows[i].name);
            rounds_run_row(&fleet, &results->rows[i], 0, 1);
        }
    fleet_stop(&fleet);
}

/* "processes " of "processes 100". */
static size_t stem_length(const char *name) {
    return strcspn(name, "0123456789");
}

static bool is_same_series(const struct row *a, const struct row *b) {
    size_t length = stem_length(a->name);
    return strcmp(a->group, b->group) == 0 && stem_length(b->name) == length && strncmp(a->name, b->name, length) == 0;
}

void growth_link_series(struct results *results) {
    for (unsigned i = 0; i < results->rows_count; i++) {
        unsigned first = 0;
        while (!is_same_series(&results->rows[first], &results->rows[i]))
            first++;
        while (results->rows[first].outcomes[TRAPEZE] != RAN && first < i &&
               is_same_series(&results->rows[first + 1], &results->rows[i]))
            first++;
        results->rows[i].series = first;
    }
}

void growth_run(const struct plan *plan, struct results *results) {
    if (plan_wants(plan, "growth")) {
        run_programs(plan, results);
        grow_processors(plan, results, "integer mix", 160000000, WALL_SECONDS);
        grow_processors(plan, results, "fork+wait", 1200, WALL_SECONDS);
    }
    if (plan->most_mebibytes > 0)
        grow_ram(plan, results);
    growth_link_series(results);
}
