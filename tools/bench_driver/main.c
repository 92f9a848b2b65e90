/* The benchmark's driver: one guest, the machines that tools/bench names, a table on standard output and JSON. */
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench_driver/rounds.h"

enum option_index {
    GUEST,
    KERNEL,
    INITRD,
    PROGRAM,
    TRAPEZE_COMMAND,
    QEMU_COMMAND,
    GROUP,
    ROUNDS,
    DIVIDE,
    JSON,
    OPTIONS
};

static const struct option option_table[OPTIONS + 1] = {
    [GUEST] = {"guest", required_argument, NULL, GUEST},
    [KERNEL] = {"kernel", required_argument, NULL, KERNEL},
    [INITRD] = {"initrd", required_argument, NULL, INITRD},
    [PROGRAM] = {"program", required_argument, NULL, PROGRAM},
    [TRAPEZE_COMMAND] = {"trapeze", required_argument, NULL, TRAPEZE_COMMAND},
    [QEMU_COMMAND] = {"qemu", required_argument, NULL, QEMU_COMMAND},
    [GROUP] = {"group", required_argument, NULL, GROUP},
    [ROUNDS] = {"rounds", required_argument, NULL, ROUNDS},
    [DIVIDE] = {"divide", required_argument, NULL, DIVIDE},
    [JSON] = {"json", required_argument, NULL, JSON},
};

static bool is_wanted(const struct plan *plan, const char *group) {
    return !plan->group || strcmp(plan->group, group) == 0;
}

static bool write_json(const struct results *results, const char *path) {
    FILE *stream = fopen(path, "w");
    if (!stream)
        return false;
    results_print_json(results, stream);
    return fclose(stream) == 0;
}

static bool parse(int argc, char **argv, struct plan *plan, const char **json) {
    const char *values[OPTIONS] = {[ROUNDS] = "5", [DIVIDE] = "1"};
    int option;
    while ((option = getopt_long(argc, argv, "", option_table, NULL)) != -1) {
        if (option == '?')
            return false;
        values[option] = optarg;
    }
    *json = values[JSON];
    *plan = (struct plan){.guest = values[GUEST],
                          .kernel = values[KERNEL],
                          .initrd = values[INITRD],
                          .program = values[PROGRAM],
                          .monitors = {values[PROGRAM], values[TRAPEZE_COMMAND], values[QEMU_COMMAND]},
                          .group = values[GROUP],
                          .rounds = (unsigned)atoi(values[ROUNDS]),
                          .divide = (unsigned)atoi(values[DIVIDE])};
    return plan->guest && plan->kernel && plan->initrd && plan->program && plan->monitors[TRAPEZE] &&
           plan->rounds >= 1 && plan->rounds <= MAX_ROUNDS && plan->divide >= 1;
}

int main(int argc, char **argv) {
    static struct results results;
    struct plan plan;
    const char *json;
    if (!parse(argc, argv, &plan, &json)) {
        fprintf(stderr, "bench_driver: is started by tools/bench, which says how\n");
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    results.guest = plan.guest;
    results.rounds = plan.rounds;
    for (int machine = 0; machine < MACHINES; machine++)
        results.has[machine] = plan.monitors[machine];
    if (!rounds_list_programs(&plan, &results)) {
        fprintf(stderr, "bench_driver: cannot run %s\n", plan.program);
        return 1;
    }
    rounds_run_programs(&plan, &results);
    if (is_wanted(&plan, "boot"))
        rounds_run_boots(&plan, &results);
    if (is_wanted(&plan, "processors"))
        rounds_run_processors(&plan, &results);
    results_print_table(&results, stdout);
    if (json && !write_json(&results, json)) {
        fprintf(stderr, "bench_driver: cannot write %s\n", json);
        return 1;
    }
    return results.rows_count > 0 && results_are_complete(&results) ? 0 : 1;
}
