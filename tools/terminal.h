/*
 * The user's terminal: as it was found, it is left, on every way out of the process.
 *
 * Whoever makes it raw (the character backends) also restores it when it closes; this is for the ways on which nothing
 * is closed any more, and for stopping and going on in a shell's job control.
 */
#ifndef TOOLS_TERMINAL_H
#define TOOLS_TERMINAL_H

/* Notes the state of standard input, and restores it before a signal that kills the process does so. */
void terminal_guard(void);
/* Async-signal-safe, idempotent. */
void terminal_restore(void);
/* Notes the state that a running machine wants. */
void terminal_running(void);
/* Stops the process as SIGTSTP does, with the terminal as it was found. */
void terminal_stop(void);
/* After a stop: back to the state of a running machine, unless the terminal is another process group's now. */
void terminal_continue(void);

#endif
