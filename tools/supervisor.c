/* See supervisor.h. */
#include "tools/supervisor.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "devices/pc.h"
#include "tools/complain.h"
#include "tools/gdb_server.h"
#include "tools/log.h"
#include "tools/pidfile.h"
#include "tools/runner.h"
#include "tools/signal_poll.h"
#include "tools/state_dump.h"
#include "tools/terminal.h"

enum { STATUS_OK = 0, STATUS_ERROR = 1, STATUS_CRASHED = 2 };

struct supervisor {
    const struct options *options;
    struct log *log;
    struct pc *pc;
    struct runner *runner;
    struct gdb_server *gdb;
    int gdb_listen_fd, event_fd, pid_fd;
    bool is_done;
    bool is_off; /* -no-shutdown keeps a machine that has powered off */
    int status;

    pthread_mutex_t lock; /* of the three below, which other threads write; taken under the device lock */
    struct runner *runner_to_hold;
    unsigned events; /* a bit for each enum pc_event that has happened */
    unsigned debug_exit_value;
};

static void finish(struct supervisor *supervisor, int status) {
    if (supervisor->is_done)
        return;
    supervisor->is_done = true;
    supervisor->status = status;
}

/* ---- From other threads ---- */

static void on_event(void *opaque, enum pc_event event, unsigned value) {
    struct supervisor *supervisor = opaque;
    pthread_mutex_lock(&supervisor->lock);
    supervisor->events |= 1u << event;
    if (event == PC_EVENT_DEBUG_EXIT)
        supervisor->debug_exit_value = value;
    if (supervisor->runner_to_hold)
        runner_hold(supervisor->runner_to_hold);
    pthread_mutex_unlock(&supervisor->lock);
    eventfd_write(supervisor->event_fd, 1);
}

static void on_unclaimed(void *opaque, enum trapeze_space space, bool is_write, uint64_t address, unsigned size) {
    const struct supervisor *supervisor = opaque;
    log_line(supervisor->log, "unclaimed: %u-byte %s of %s %llx", size, is_write ? "write" : "read",
             space == TRAPEZE_PORT ? "port" : "memory at", (unsigned long long)address);
}

static void on_warning(void *opaque, const char *line) {
    char text[320];
    (void)opaque;
    snprintf(text, sizeof(text), "%s", line);
    complain_clean(text);
    fprintf(stderr, "trapeze: warning: %s\n", text);
}

/* ---- The machine ---- */

static void let_go(struct supervisor *supervisor) {
    if (supervisor->is_done || supervisor->is_off)
        return;
    if (supervisor->gdb)
        gdb_server_go_on(supervisor->gdb);
    else
        runner_resume(supervisor->runner);
}

static void reset(struct supervisor *supervisor) {
    struct pc_error error;
    if (supervisor->options->no_reboot) {
        finish(supervisor, STATUS_OK);
        return;
    }
    if (!pc_reset(supervisor->pc, &error))
        finish(supervisor, complain(error.option, NULL, error.text));
}

static void power_off(struct supervisor *supervisor) {
    if (!supervisor->options->no_shutdown) {
        finish(supervisor, STATUS_OK);
        return;
    }
    supervisor->is_off = true;
}

static void crash(struct supervisor *supervisor, unsigned index) {
    if (!supervisor->options->no_reboot) {
        reset(supervisor);
        return;
    }
    terminal_restore();
    fprintf(stderr, "trapeze: CPU %u: triple fault\n", index);
    state_dump(stderr, supervisor->pc);
    finish(supervisor, STATUS_CRASHED);
}

static void take_stop(struct supervisor *supervisor, unsigned index, const struct trapeze_exit *exit) {
    char text[200];
    switch (exit->reason) {
    case TRAPEZE_EXIT_SHUTDOWN:
        if (!supervisor->gdb || !gdb_server_stopped(supervisor->gdb, index, exit))
            crash(supervisor, index);
        break;
    case TRAPEZE_EXIT_DEBUG:
        if (supervisor->gdb)
            gdb_server_stopped(supervisor->gdb, index, exit);
        break;
    case TRAPEZE_EXIT_ERROR:
        terminal_restore();
        snprintf(text, sizeof(text), "CPU %u: %s", index, exit->text ? exit->text : "it cannot run");
        finish(supervisor, complain(NULL, NULL, text));
        break;
    case TRAPEZE_EXIT_KICKED:
    case TRAPEZE_EXIT_IO: /* every access that no device claims is open bus here */
        break;
    }
}

static void take_events(struct supervisor *supervisor) {
    pthread_mutex_lock(&supervisor->lock);
    unsigned events = supervisor->events, value = supervisor->debug_exit_value;
    supervisor->events = 0;
    pthread_mutex_unlock(&supervisor->lock);
    if (events & 1u << PC_EVENT_QUIT)
        finish(supervisor, STATUS_OK);
    if (events & 1u << PC_EVENT_DEBUG_EXIT)
        finish(supervisor, (int)(value & 0xff));
    if (events & 1u << PC_EVENT_POWER_OFF)
        power_off(supervisor);
    if (!supervisor->is_done && (events & 1u << PC_EVENT_REMAP) && !pc_remap(supervisor->pc))
        finish(supervisor, complain("m", NULL, "the host refuses to map guest memory again"));
    if (!supervisor->is_done && (events & 1u << PC_EVENT_RESET))
        reset(supervisor);
}

/* A vCPU that will not stop can only be a bug of ours: nothing can be freed under it. */
static void give_up(struct supervisor *supervisor) {
    terminal_restore();
    fprintf(stderr, "trapeze: a processor does not stop\n");
    if (supervisor->pid_fd >= 0)
        pidfile_remove(supervisor->options->pidfile, supervisor->pid_fd);
    _exit(STATUS_ERROR);
}

static void wake(struct supervisor *supervisor) {
    struct trapeze_exit exit;
    eventfd_t count;
    unsigned index;
    eventfd_read(supervisor->event_fd, &count);
    if (!runner_pause(supervisor->runner))
        give_up(supervisor);
    take_events(supervisor);
    while (!supervisor->is_done && runner_take_stop(supervisor->runner, &index, &exit))
        take_stop(supervisor, index, &exit);
    let_go(supervisor);
}

static void take_signal(struct supervisor *supervisor, int number) {
    switch (number) {
    case 0:
        break;
    case SIGTSTP:
        terminal_stop();
        break;
    case SIGCONT:
        terminal_continue();
        break;
    default:
        terminal_restore();
        fprintf(stderr, "trapeze: terminating on signal %d\n", number);
        finish(supervisor, STATUS_OK);
    }
}

static void run(struct supervisor *supervisor) {
    enum { EVENT, DEBUGGER, SOURCES };
    struct pollfd sources[SOURCES] = {[EVENT] = {supervisor->event_fd, POLLIN, 0}};
    let_go(supervisor);
    while (!supervisor->is_done) {
        sources[DEBUGGER] = (struct pollfd){supervisor->gdb ? gdb_server_fd(supervisor->gdb) : -1, POLLIN, 0};
        take_signal(supervisor, signal_poll(sources, SOURCES));
        if (sources[EVENT].revents)
            wake(supervisor);
        if (sources[DEBUGGER].revents && !supervisor->is_done)
            gdb_server_ready(supervisor->gdb);
    }
    if (!runner_pause(supervisor->runner))
        give_up(supervisor);
}

/* ---- Coming and going ---- */

static bool open_log(struct supervisor *supervisor) {
    const struct options *options = supervisor->options;
    supervisor->log = log_open(options->log_file);
    return supervisor->log || complain("D", options->log_file, strerror(errno)) == STATUS_OK;
}

static bool listen_for_debugger(struct supervisor *supervisor) {
    const struct options *options = supervisor->options;
    char reason[160];
    if (!options->gdb)
        return true;
    supervisor->gdb_listen_fd = gdb_server_listen(options->gdb, reason, sizeof(reason));
    return supervisor->gdb_listen_fd >= 0 || complain("gdb", options->gdb, reason) == STATUS_OK;
}

static bool create_machine(struct supervisor *supervisor) {
    const struct options *options = supervisor->options;
    struct pc_config config = {
        .memory = options->memory,
        .vcpu_count = options->vcpu_count,
        .cpu_model = options->cpu,
        .code_cache = options->code_cache,
        .windows = options->windows,
        .without = options->without,
        .kernel = options->kernel,
        .initrd = options->initrd,
        .append = options->append,
        .debugcon = options->debugcon,
        .has_no_pit = options->has_no_pit,
        .has_debug_exit = options->has_debug_exit,
        .has_testdev = options->has_testdev,
        .has_pci_testdev = options->has_pci_testdev,
        .debug_exit_base = options->debug_exit_base,
        .debug_exit_size = options->debug_exit_size,
        .event = on_event,
        .unclaimed = options->log & OPTIONS_LOG_UNCLAIMED ? on_unclaimed : NULL,
        .warn = on_warning,
        .opaque = supervisor,
    };
    struct pc_error error = {0};
    memcpy(config.serial, options->serial, sizeof(config.serial));
    supervisor->pc = pc_create(&config, &error);
    if (!supervisor->pc) {
        complain(error.option, NULL, error.text);
        return false;
    }
    terminal_running();
    const struct trapeze_log log = log_for_engine(supervisor->log, options->log & 0xffff);
    trapeze_machine_set_log(pc_machine(supervisor->pc), &log);
    for (unsigned i = 0; i < PC_SERIAL_PORTS; i++)
        if (pc_serial_notice(supervisor->pc, i))
            fprintf(stderr, "char device redirected to %s (label serial%u)\n", pc_serial_notice(supervisor->pc, i), i);
    return true;
}

/* To signals. Before there is a machine they end the process as they are used to. */
static void start_to_listen(void) {
    signal(SIGPIPE, SIG_IGN);
    signal_poll_open();
}

static bool create_pidfile(struct supervisor *supervisor) {
    const char *path = supervisor->options->pidfile;
    char reason[160];
    if (!path)
        return true;
    supervisor->pid_fd = pidfile_create(path, reason, sizeof(reason));
    return supervisor->pid_fd >= 0 || complain("pidfile", path, reason) == STATUS_OK;
}

static bool create_runner(struct supervisor *supervisor) {
    supervisor->runner = runner_create(supervisor->pc, supervisor->event_fd);
    if (!supervisor->runner)
        return complain("smp", NULL, strerror(errno)) == STATUS_OK;
    pthread_mutex_lock(&supervisor->lock);
    supervisor->runner_to_hold = supervisor->runner;
    pthread_mutex_unlock(&supervisor->lock);
    return true;
}

static void debugger_quits(void *opaque) {
    finish(opaque, STATUS_OK);
}

/* The machine is held: whatever happens, it goes on as the debugger says. */
static void debugger_resets(void *opaque) {
    struct supervisor *supervisor = opaque;
    struct pc_error error;
    if (!pc_reset(supervisor->pc, &error))
        finish(supervisor, complain(error.option, NULL, error.text));
}

static void debugger_saw_crash(void *opaque, unsigned index) {
    crash(opaque, index);
}

static void debugger_lets_go(void *opaque) {
    let_go(opaque);
}

static bool create_debugger(struct supervisor *supervisor) {
    const struct gdb_server_config config = {.listen_fd = supervisor->gdb_listen_fd,
                                             .device = supervisor->options->gdb,
                                             .pc = supervisor->pc,
                                             .runner = supervisor->runner,
                                             .starts_paused = supervisor->options->starts_paused,
                                             .quit = debugger_quits,
                                             .reset = debugger_resets,
                                             .go_on = debugger_lets_go,
                                             .crashed = debugger_saw_crash,
                                             .opaque = supervisor};
    if (supervisor->gdb_listen_fd < 0)
        return true;
    supervisor->gdb = gdb_server_create(&config);
    return supervisor->gdb || complain("gdb", NULL, "no memory is left") == STATUS_OK;
}

static void release(struct supervisor *supervisor) {
    if (supervisor->gdb)
        gdb_server_destroy(supervisor->gdb, supervisor->status);
    pthread_mutex_lock(&supervisor->lock);
    supervisor->runner_to_hold = NULL;
    pthread_mutex_unlock(&supervisor->lock);
    if (supervisor->runner && !runner_destroy(supervisor->runner))
        give_up(supervisor);
    if (supervisor->pc && (supervisor->options->log & OPTIONS_LOG_STATISTICS))
        log_statistics(supervisor->log, pc_machine(supervisor->pc));
    if (supervisor->pc)
        pc_destroy(supervisor->pc);
    if (supervisor->pid_fd >= 0)
        pidfile_remove(supervisor->options->pidfile, supervisor->pid_fd);
    if (supervisor->log)
        log_close(supervisor->log);
    terminal_restore();
}

int supervise(const struct options *options) {
    struct supervisor supervisor = {.options = options,
                                    .gdb_listen_fd = -1,
                                    .pid_fd = -1,
                                    .status = STATUS_ERROR,
                                    .lock = PTHREAD_MUTEX_INITIALIZER};
    supervisor.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (supervisor.event_fd < 0)
        return complain(NULL, "eventfd", strerror(errno));
    terminal_guard();
    if (open_log(&supervisor) && listen_for_debugger(&supervisor) && create_machine(&supervisor)) {
        start_to_listen();
        if (create_pidfile(&supervisor) && create_runner(&supervisor) && create_debugger(&supervisor))
            run(&supervisor);
    }
    release(&supervisor);
    return supervisor.status;
}
