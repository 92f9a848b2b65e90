/*
 * What follows an option: sizes, numbers, `key=value` lists and words out of a set. Each function stores into *options
 * and answers false with one line in *error, option and value named.
 */
#ifndef TOOLS_OPTION_VALUES_H
#define TOOLS_OPTION_VALUES_H

#include "tools/options.h"

struct option_row;

typedef bool option_taker(struct options *options, const struct option_row *row, const char *value,
                          struct options_error *error);

/* One option that Trapeze has. A row has either `take` or the offset of what it stores into. */
struct option_row {
    const char *name;     /* without its dash */
    const char *argument; /* what the help calls it; NULL: there is none */
    option_taker *take;
    size_t offset;        /* of a bool, or of a const char * where there is an argument */
    const char *only;     /* with option_only: the one value that is taken */
};

option_taker option_memory, option_smp, option_cpu, option_machine, option_global, option_accel, option_enable_kvm,
    option_device, option_serial, option_display, option_only, option_log, option_gdb, option_gdb_default,
    option_name, option_help, option_version;

/* Always false: fills in "-option: value: reason", or without the value where it is NULL. */
bool option_fail(struct options_error *error, const struct option_row *row, const char *value, const char *reason, ...)
    __attribute__((format(printf, 4, 5)));

/* One element of a list "key=value,key=value". `has_value` is false for a lone word, which is `key`. */
struct option_pair {
    char key[40], value[120];
    bool has_value;
};
/* False at the end of the list. Longer words are cut off, which no table knows. */
bool option_next_pair(const char **list, struct option_pair *pair);

/* Bytes: digits with an optional K, M, G or T; without one, times `unit`. */
bool option_parse_size(const char *text, uint64_t unit, uint64_t *bytes);
/* A number in C's notation, at most `limit`. */
bool option_parse_number(const char *text, uint64_t limit, uint64_t *number);
/* 1 on, 0 off, -1 neither. */
int option_parse_switch(const char *text);

/* The name in `names` (NULL at its end) that takes the fewest changes to become `text`; NULL for an empty list. */
const char *option_nearest(const char *text, const char *const *names);

#endif
