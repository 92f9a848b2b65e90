/*
 * Where -d goes: what the engine tells about itself, one line an event, and its code disassembled (Capstone, the second
 * opinion on every decode). Any thread may log; a block's listing stays in one piece.
 */
#ifndef TOOLS_LOG_H
#define TOOLS_LOG_H

#include "trapeze/trapeze.h"

struct log;

/* To standard error where `path` is NULL. NULL, with errno, when the file cannot be made or there is no memory. */
struct log *log_open(const char *path);
void log_close(struct log *log);

/* One line, its end added. */
void log_line(struct log *log, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What trapeze_machine_set_log gets for the TRAPEZE_LOG_* bits of `mask`. */
struct trapeze_log log_for_engine(struct log *log, unsigned mask);
/* The machine's counters, one a line. */
void log_statistics(struct log *log, const struct trapeze_machine *machine);

#endif
