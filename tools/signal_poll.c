/* See signal_poll.h. */
#include "tools/signal_poll.h"

#include <signal.h>
#include <stddef.h>

static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGTSTP, SIGCONT};

/* A signal handler gets at nothing but file scope. The only thread that lets these signals in reads it, after ppoll. */
static volatile sig_atomic_t caught;

static void note(int number) {
    caught = number;
}

static sigset_t all(void) {
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        sigaddset(&set, numbers[i]);
    return set;
}

void signal_poll_open(void) {
    /* One at a time: the others wait for the next ppoll. */
    const struct sigaction action = {.sa_handler = note, .sa_mask = all()};
    pthread_sigmask(SIG_BLOCK, &action.sa_mask, NULL);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        sigaction(numbers[i], &action, NULL);
}

int signal_poll(struct pollfd *sources, unsigned count) {
    const sigset_t set = all();
    sigset_t open;
    for (unsigned i = 0; i < count; i++)
        sources[i].revents = 0;
    /* First, as ppoll does not look at signals while a source is ready. */
    int number = sigtimedwait(&set, NULL, &(struct timespec){0});
    if (number > 0)
        return number;
    pthread_sigmask(SIG_BLOCK, NULL, &open);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        sigdelset(&open, numbers[i]);
    caught = 0;
    if (ppoll(sources, count, NULL, &open) < 0)
        return caught;
    return 0;
}
