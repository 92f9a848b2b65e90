/* See terminal.h. */
#include "tools/terminal.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <termios.h>
#include <unistd.h>

/* A signal handler gets at nothing but file scope; written before a handler or another thread needs it. */
static struct termios found, running;
static volatile sig_atomic_t is_terminal;

void terminal_restore(void) {
    if (is_terminal)
        tcsetattr(STDIN_FILENO, TCSANOW, &found);
}

static void die(int number) {
    terminal_restore();
    signal(number, SIG_DFL);
    raise(number);
}

void terminal_guard(void) {
    static const int numbers[] = {SIGHUP,  SIGINT, SIGQUIT, SIGTERM, SIGABRT, SIGSEGV,
                                  SIGBUS,  SIGFPE, SIGILL,  SIGSYS,  SIGXCPU, SIGXFSZ};
    struct sigaction action = {.sa_handler = die, .sa_flags = SA_RESETHAND};
    if (tcgetattr(STDIN_FILENO, &found) != 0)
        return;
    is_terminal = true;
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        sigaction(numbers[i], &action, NULL);
    sigaddset(&action.sa_mask, SIGTTOU); /* restoring it from the background would stop the process */
    pthread_sigmask(SIG_BLOCK, &action.sa_mask, NULL);
}

void terminal_running(void) {
    if (is_terminal)
        tcgetattr(STDIN_FILENO, &running);
}

void terminal_stop(void) {
    terminal_restore();
    raise(SIGSTOP);
}

void terminal_continue(void) {
    if (is_terminal && tcgetpgrp(STDIN_FILENO) == getpgrp())
        tcsetattr(STDIN_FILENO, TCSANOW, &running);
}
