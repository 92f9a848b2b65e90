/* Errors for the user: one line each, whatever is in the names that it repeats. */
#ifndef TOOLS_COMPLAIN_H
#define TOOLS_COMPLAIN_H

/* Puts '?' in place of characters that would break a line or command a terminal. */
void complain_clean(char *text);

/* "trapeze: -OPTION: VALUE: REASON" on standard error; option and value may be NULL. Answers the exit status, 1. */
int complain(const char *option, const char *value, const char *reason);

#endif
