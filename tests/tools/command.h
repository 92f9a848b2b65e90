/* Runs the `trapeze` command for tests: to its end with its output, or on a pseudo terminal of its own. */
#ifndef TESTS_TOOLS_COMMAND_H
#define TESTS_TOOLS_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { COMMAND_OUTPUT = 65536, COMMAND_ARGUMENTS = 32, COMMAND_SECONDS = 30, COMMAND_TIMEOUT = -1 };

struct command {
    pid_t pid;
    int terminal; /* the master's side; -1: none */
    int status;   /* after the end: exit status, 128 + signal, or COMMAND_TIMEOUT */
    size_t output_length, errors_length;
    char output[COMMAND_OUTPUT], errors[COMMAND_OUTPUT]; /* 0-terminated; on a terminal, all is in output */
};

/* Splits `line` at spaces, runs `trapeze` with it, and collects what it says. Standard input is /dev/null. */
void command_run(struct command *command, const char *line);
/* The same in a session with a terminal; does not wait. */
void command_start(struct command *command, const char *line);
void command_start_program(struct command *command, const char *program, const char *line);
/* The same without a terminal. */
void command_start_plain(struct command *command, const char *line);
/* Reads from the terminal until `text` has come since the last call, for COMMAND_SECONDS or as long as told. */
bool command_expect(struct command *command, const char *text);
bool command_expect_within(struct command *command, const char *text, double seconds);
void command_type(struct command *command, const char *keys, size_t count);
/* Waits for the end; closes the terminal. */
int command_wait(struct command *command);

#endif
