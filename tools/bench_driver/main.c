/* The benchmark's driver: the guests and machines that tools/bench names; a table for each guest, JSON and pictures. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "tools/bench_driver/growth.h"
#include "tools/bench_driver/limits.h"
#include "tools/bench_driver/report.h"
#include "tools/bench_driver/rounds.h"

enum { MAX_GUESTS = 3, MISSED = 2 };

enum option_index {
    TRAPEZE_COMMAND,
    LISTER,
    FOLDER,
    MEMORY_GROUP,
    GROUP,
    ROUNDS,
    DIVIDE,
    STRICT,
    JSON,
    GROUPS_PICTURE,
    ROWS_PICTURE,
    COMMON_OPTIONS,
    GUEST = COMMON_OPTIONS, /* the options from here on are of one guest */
    KERNEL,
    INITRD,
    PROGRAMS_INITRD,
    PROGRAM,
    BUSYBOX,
    PACKAGES,
    NANO,
    QEMU_COMMAND,
    GROWTH,
    MOST_RAM,
    OPTIONS
};

static const struct option option_table[OPTIONS + 1] = {
    [TRAPEZE_COMMAND] = {"trapeze", required_argument, NULL, TRAPEZE_COMMAND},
    [LISTER] = {"lister", required_argument, NULL, LISTER},
    [FOLDER] = {"folder", required_argument, NULL, FOLDER},
    [MEMORY_GROUP] = {"memory-group", required_argument, NULL, MEMORY_GROUP},
    [GROUP] = {"group", required_argument, NULL, GROUP},
    [ROUNDS] = {"rounds", required_argument, NULL, ROUNDS},
    [DIVIDE] = {"divide", required_argument, NULL, DIVIDE},
    [STRICT] = {"strict", no_argument, NULL, STRICT},
    [JSON] = {"json", required_argument, NULL, JSON},
    [GROUPS_PICTURE] = {"svg", required_argument, NULL, GROUPS_PICTURE},
    [ROWS_PICTURE] = {"svg-rows", required_argument, NULL, ROWS_PICTURE},
    [GUEST] = {"guest", required_argument, NULL, GUEST},
    [KERNEL] = {"kernel", required_argument, NULL, KERNEL},
    [INITRD] = {"initrd", required_argument, NULL, INITRD},
    [PROGRAMS_INITRD] = {"programs-initrd", required_argument, NULL, PROGRAMS_INITRD},
    [PROGRAM] = {"program", required_argument, NULL, PROGRAM},
    [BUSYBOX] = {"busybox", required_argument, NULL, BUSYBOX},
    [PACKAGES] = {"packages", required_argument, NULL, PACKAGES},
    [NANO] = {"nano", required_argument, NULL, NANO},
    [QEMU_COMMAND] = {"qemu", required_argument, NULL, QEMU_COMMAND},
    [GROWTH] = {"growth", no_argument, NULL, GROWTH},
    [MOST_RAM] = {"most-ram", required_argument, NULL, MOST_RAM},
};

struct command_line {
    const char *common[COMMON_OPTIONS];
    const char *of_guest[MAX_GUESTS][OPTIONS];
    unsigned guests_count;
};

static struct results all_results[MAX_GUESTS];

static void interrupt(int number) {
    (void)number;
    session_interrupted = 1;
}

/* No SA_RESTART: waits have to end. */
static void catch_signals(void) {
    const struct sigaction action = {.sa_handler = interrupt};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
}

static bool parse(int argc, char **argv, struct command_line *line) {
    int option;
    *line = (struct command_line){.common = {[ROUNDS] = "5", [DIVIDE] = "1"}};
    while ((option = getopt_long(argc, argv, "", option_table, NULL)) != -1) {
        if (option == '?' || (option == GUEST && line->guests_count == MAX_GUESTS))
            return false;
        line->guests_count += option == GUEST;
        if (option < COMMON_OPTIONS)
            line->common[option] = optarg ? optarg : "yes";
        else if (line->guests_count > 0)
            line->of_guest[line->guests_count - 1][option] = optarg ? optarg : "yes";
        else
            return false;
    }
    return line->guests_count > 0 && line->common[TRAPEZE_COMMAND] && optind == argc;
}

static bool make_plan(const struct command_line *line, unsigned index, struct plan *plan) {
    const char *const *common = line->common, *const *own = line->of_guest[index];
    *plan = (struct plan){.guest = own[GUEST],
                          .kernel = own[KERNEL],
                          .initrd = own[INITRD],
                          .programs_initrd = own[PROGRAMS_INITRD] ? own[PROGRAMS_INITRD] : own[INITRD],
                          .program = own[PROGRAM],
                          .busybox = own[BUSYBOX] ? own[BUSYBOX] : "/bin/busybox",
                          .packages = own[PACKAGES] ? own[PACKAGES] : "",
                          .folder = common[FOLDER] ? common[FOLDER] : "/dev/shm",
                          .nano = own[NANO],
                          .monitors = {own[PROGRAM], common[TRAPEZE_COMMAND], own[QEMU_COMMAND]},
                          .memory_group = common[MEMORY_GROUP],
                          .group = common[GROUP],
                          .has_growth = own[GROWTH],
                          .most_mebibytes = own[MOST_RAM] ? (unsigned)atoi(own[MOST_RAM]) : 0,
                          .rounds = (unsigned)atoi(common[ROUNDS]),
                          .divide = (unsigned)atoi(common[DIVIDE])};
    return plan->kernel && plan->initrd && plan->program && plan->rounds >= 1 && plan->rounds <= MAX_ROUNDS &&
           plan->divide >= 1;
}

/* Where the host cannot run the guest's own programs, another build of them tells what there is. */
static bool list_programs(struct plan *plan, const char *lister, struct results *results) {
    if (rounds_list_programs(plan, plan->program, results))
        return true;
    fprintf(stderr, "bench: this host does not run %s; there is nothing native to compare %s with\n", plan->program,
            plan->guest);
    plan->monitors[NATIVE] = NULL;
    return lister && rounds_list_programs(plan, lister, results);
}

/* False when there is nothing to run. */
static bool measure(struct plan *plan, const char *lister, struct results *results) {
    results->guest = plan->guest;
    results->rounds = plan->rounds;
    if (!list_programs(plan, lister, results))
        return false;
    for (int machine = 0; machine < MACHINES; machine++)
        results->has[machine] = plan->monitors[machine];
    rounds_run_programs(plan, results);
    if (plan_wants(plan, "boot") || plan_wants(plan, "memory"))
        growth_run_boots(plan, results);
    if (plan_wants(plan, "processors"))
        rounds_run_processors(plan, results);
    if (plan->nano && plan_wants(plan, "nano"))
        rounds_run_nano(plan, results);
    growth_run(plan, results);
    return results->rows_count > 0;
}

typedef void writer(const struct results *const *all, unsigned count, FILE *stream);

static bool write_file(const char *path, writer *write, const struct results *const *all, unsigned count) {
    FILE *stream = path ? fopen(path, "w") : NULL;
    if (!path)
        return true;
    if (!stream || (write(all, count, stream), fclose(stream) != 0)) {
        fprintf(stderr, "bench: cannot write %s\n", path);
        return false;
    }
    return true;
}

static bool write_files(const struct command_line *line, const struct results *const *all, unsigned count) {
    bool is_written = write_file(line->common[JSON], report_json, all, count);
    is_written &= write_file(line->common[GROUPS_PICTURE], report_picture_of_groups, all, count);
    return write_file(line->common[ROWS_PICTURE], report_picture_of_rows, all, count) && is_written;
}

int main(int argc, char **argv) {
    const struct results *all[MAX_GUESTS];
    struct command_line line;
    struct plan plan;
    unsigned count = 0, missed = 0;
    bool is_complete = true;
    if (!parse(argc, argv, &line)) {
        fprintf(stderr, "bench_driver: is started by tools/bench, which says how\n");
        return 1;
    }
    catch_signals();
    for (unsigned i = 0; i < line.guests_count && !session_interrupted; i++) {
        struct results *results = &all_results[i];
        if (!make_plan(&line, i, &plan) || !measure(&plan, line.common[LISTER], results)) {
            is_complete = false;
            continue;
        }
        if (session_interrupted)
            break;
        report_table(results, stdout);
        fflush(stdout);
        all[count++] = results;
        missed += limits_count_missed(results);
        is_complete = is_complete && results_are_complete(results);
    }
    if (session_interrupted) {
        fprintf(stderr, "bench: interrupted\n");
        return 1;
    }
    if (count == 0 || !write_files(&line, all, count) || !is_complete)
        return 1;
    return line.common[STRICT] && missed > 0 ? MISSED : 0;
}
