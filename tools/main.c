/* The `trapeze` command: from options to an exit status. */
#include <stdio.h>

#include "devices/pc.h"
#include "tools/complain.h"
#include "tools/options.h"
#include "tools/supervisor.h"

static void print_names(const char *title, const char *(*name)(unsigned k)) {
    unsigned column = 0;
    printf("%s\n", title);
    for (unsigned k = 0; name(k); k++) {
        int width = printf("  %s", name(k));
        column += (unsigned)(width > 0 ? width : 0);
        if (column > 64) {
            printf("\n");
            column = 0;
        }
    }
    printf("%s", column ? "\n" : "");
}

static int print_list(enum options_list list) {
    if (list == OPTIONS_LIST_CPUS) {
        print_names("Available CPUs:", pc_cpu_model);
        print_names("\nRecognized CPUID flags:", pc_cpu_feature);
    } else {
        fputs(options_list_text(list), stdout);
    }
    return fflush(stdout) == 0 ? 0 : 1;
}

int main(int argc, char *argv[]) {
    struct options options;
    struct options_error error;
    if (!options_parse(&options, argc, argv, &error))
        return complain(NULL, NULL, error.text);
    if (options.list != OPTIONS_LIST_NONE)
        return print_list(options.list);
    for (unsigned k = 0; options_warning(&options, k); k++)
        fprintf(stderr, "trapeze: warning: %s\n", options_warning(&options, k));
    return supervise(&options);
}
