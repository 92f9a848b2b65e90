/* See runner.h. */
#include "tools/runner.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>

#include "devices/pc.h"

enum { STOP_SECONDS = 10 };

struct runner_thread {
    struct runner *runner;
    unsigned index;
    pthread_t thread;
    bool may_run;    /* let go */
    bool is_running; /* in pc_run_vcpu, or about to be */
    bool has_stop;   /* `stop` was not taken yet */
    struct trapeze_exit stop;
};

struct runner {
    struct pc *pc;
    int notify_fd;
    pthread_mutex_t lock; /* taken under the device lock too: nothing is locked under it */
    pthread_cond_t changed;
    bool is_ending;
    unsigned count;
    struct runner_thread threads[];
};

static void hold_locked(struct runner *runner) {
    for (unsigned i = 0; i < runner->count; i++) {
        runner->threads[i].may_run = false;
        if (runner->threads[i].is_running)
            trapeze_vcpu_kick(pc_vcpu(runner->pc, i));
    }
}

/* False when the thread is to end. */
static bool wait_for_leave(struct runner_thread *thread) {
    struct runner *runner = thread->runner;
    while (!runner->is_ending && (!thread->may_run || thread->has_stop))
        pthread_cond_wait(&runner->changed, &runner->lock);
    return !runner->is_ending;
}

static void *run_thread(void *argument) {
    struct runner_thread *thread = argument;
    struct runner *runner = thread->runner;
    struct trapeze_exit exit;
    pthread_mutex_lock(&runner->lock);
    while (wait_for_leave(thread)) {
        thread->is_running = true;
        pthread_mutex_unlock(&runner->lock);
        exit = (struct trapeze_exit){.reason = TRAPEZE_EXIT_ERROR, .text = "it runs on another thread already"};
        pc_run_vcpu(runner->pc, thread->index, &exit);
        pthread_mutex_lock(&runner->lock);
        thread->is_running = false;
        if (exit.reason != TRAPEZE_EXIT_KICKED) {
            thread->has_stop = true;
            thread->stop = exit;
            hold_locked(runner);
            eventfd_write(runner->notify_fd, 1);
        }
        pthread_cond_broadcast(&runner->changed);
    }
    pthread_mutex_unlock(&runner->lock);
    return NULL;
}

/* All but the host's faults, which the engine turns into the guest's, and which otherwise are bugs of ours. */
static void fill_with_requests(sigset_t *set) {
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
    sigfillset(set);
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
        sigdelset(set, faults[i]);
}

static bool start_threads(struct runner *runner, unsigned count) {
    sigset_t requests, previous;
    int status = 0;
    fill_with_requests(&requests);
    pthread_sigmask(SIG_SETMASK, &requests, &previous);
    for (; runner->count < count && status == 0; runner->count += status == 0) {
        struct runner_thread *thread = &runner->threads[runner->count];
        *thread = (struct runner_thread){.runner = runner, .index = runner->count};
        status = pthread_create(&thread->thread, NULL, run_thread, thread);
    }
    pthread_sigmask(SIG_SETMASK, &previous, NULL);
    errno = status;
    return status == 0;
}

struct runner *runner_create(struct pc *pc, int notify_fd) {
    unsigned count = pc_vcpu_count(pc);
    struct runner *runner = calloc(1, sizeof(*runner) + count * sizeof(runner->threads[0]));
    pthread_condattr_t attributes;
    if (!runner)
        return NULL;
    runner->pc = pc;
    runner->notify_fd = notify_fd;
    pthread_mutex_init(&runner->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&runner->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    if (start_threads(runner, count))
        return runner;
    int saved = errno;
    runner_destroy(runner);
    errno = saved;
    return NULL;
}

bool runner_destroy(struct runner *runner) {
    if (!runner_pause(runner))
        return false;
    pthread_mutex_lock(&runner->lock);
    runner->is_ending = true;
    pthread_cond_broadcast(&runner->changed);
    pthread_mutex_unlock(&runner->lock);
    for (unsigned i = 0; i < runner->count; i++)
        pthread_join(runner->threads[i].thread, NULL);
    pthread_cond_destroy(&runner->changed);
    pthread_mutex_destroy(&runner->lock);
    free(runner);
    return true;
}

void runner_hold(struct runner *runner) {
    pthread_mutex_lock(&runner->lock);
    hold_locked(runner);
    pthread_mutex_unlock(&runner->lock);
}

static bool one_is_running(const struct runner *runner) {
    for (unsigned i = 0; i < runner->count; i++)
        if (runner->threads[i].is_running)
            return true;
    return false;
}

bool runner_pause(struct runner *runner) {
    struct timespec limit;
    int status = 0;
    clock_gettime(CLOCK_MONOTONIC, &limit);
    limit.tv_sec += STOP_SECONDS;
    pthread_mutex_lock(&runner->lock);
    hold_locked(runner);
    while (one_is_running(runner) && status == 0)
        status = pthread_cond_timedwait(&runner->changed, &runner->lock, &limit);
    bool has_stopped = !one_is_running(runner);
    pthread_mutex_unlock(&runner->lock);
    return has_stopped;
}

void runner_resume_some(struct runner *runner, const bool *which) {
    pthread_mutex_lock(&runner->lock);
    for (unsigned i = 0; i < runner->count; i++)
        runner->threads[i].may_run = which[i];
    pthread_cond_broadcast(&runner->changed);
    pthread_mutex_unlock(&runner->lock);
}

void runner_resume(struct runner *runner) {
    pthread_mutex_lock(&runner->lock);
    for (unsigned i = 0; i < runner->count; i++)
        runner->threads[i].may_run = true;
    pthread_cond_broadcast(&runner->changed);
    pthread_mutex_unlock(&runner->lock);
}

bool runner_take_stop(struct runner *runner, unsigned *index, struct trapeze_exit *exit) {
    bool has_found = false;
    pthread_mutex_lock(&runner->lock);
    for (unsigned i = 0; i < runner->count && !has_found; i++) {
        struct runner_thread *thread = &runner->threads[i];
        if (!thread->has_stop)
            continue;
        has_found = true;
        thread->has_stop = false;
        *index = i;
        *exit = thread->stop;
    }
    pthread_mutex_unlock(&runner->lock);
    return has_found;
}
