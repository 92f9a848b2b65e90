/* See complain.h. */
#include "tools/complain.h"

#include <stdio.h>

void complain_clean(char *text) {
    for (unsigned char *c = (unsigned char *)text; *c; c++)
        if (*c < ' ' || *c == 0x7f)
            *c = '?';
}

int complain(const char *option, const char *value, const char *reason) {
    char line[1024];
    snprintf(line, sizeof(line), "trapeze: %s%s%s%.300s%s%s", option ? "-" : "", option ? option : "",
             option ? ": " : "", value ? value : "", value ? ": " : "", reason);
    complain_clean(line);
    fprintf(stderr, "%s\n", line);
    return 1;
}
