/*
 * Golden text of the code that the translator makes. A file holds cases: "MODE: guest bytes", then, indented, the
 * guest's instructions and the host's. Everything indented is made anew; the rest is kept.
 *
 *   golden_code check FILE...    fails on the first case of each file whose host code is not what the file says
 *   golden_code renew FILE...    writes the files again, for their changes to be looked at
 *
 * MODE: 16, 32 or 64, and any of "segments" (bases and limits count), "user" (CPL 3), "slow" (each access by a call),
 * "step" (TF), "window" (CPL 3 with a window of the host's MMU), "stack" (and a stack pointer in its group A), "kernel"
 * (CPL 0 with a window), "last" (the page ends behind the bytes; else UD2 follows them).
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "tests/coverage/decoded_forms.h"
#include "tests/coverage/one_block.h"
#include "tests/expect/host_text.h"
#include "tools/disassembly.h"

enum { LINE = 512, CODE_MAX = 64, PLACE = 0x100 };

struct test_case {
    uint32_t key;
    unsigned bits, length;
    bool is_last;
    uint8_t code[CODE_MAX];
};

/* ---- Reading cases ---- */

static bool parse_mode(char *words, struct test_case *c) {
    static const struct {
        const char *word;
        uint32_t set, clear;
    } modes[] = {{"segments", 0, MODE_FLAT},
                 {"user", MODE_CPL, 0},
                 {"slow", MODE_SLOW, 0},
                 {"step", MODE_TF, 0},
                 {"window", MODE_WINDOW | MODE_CPL, 0},
                 {"kernel", MODE_WINDOW, MODE_CPL},
                 {"stack", MODE_WINDOW | MODE_NEAR_STACK | MODE_CPL, 0},
                 {"last", 0, 0}};
    enum { MODES = sizeof modes / sizeof *modes };
    char *rest = NULL, *word = strtok_r(words, " ", &rest);
    c->bits = word ? (unsigned)strtoul(word, NULL, 10) : 0;
    if (c->bits != 16 && c->bits != 32 && c->bits != 64)
        return false;
    c->key = decoded_forms_key(c->bits);
    while ((word = strtok_r(NULL, " ", &rest))) {
        unsigned k = 0;
        while (k < MODES && strcmp(modes[k].word, word) != 0)
            k++;
        if (k == MODES)
            return false;
        c->key = (c->key & ~modes[k].clear) | modes[k].set;
        c->is_last |= !strcmp(word, "last");
    }
    return true;
}

static bool parse_case(const char *line, struct test_case *c) {
    char words[LINE];
    const char *colon = strchr(line, ':');
    *c = (struct test_case){0};
    if (!colon)
        return false;
    snprintf(words, sizeof words, "%.*s", (int)(colon - line), line);
    if (!parse_mode(words, c))
        return false;
    for (const char *at = colon + 1; *at && *at != '\n';) {
        char *end;
        unsigned long byte = strtoul(at, &end, 16);
        if (end == at || byte > 0xff || c->length == CODE_MAX)
            return false;
        c->code[c->length++] = (uint8_t)byte;
        for (at = end; *at == ' ';)
            at++;
    }
    return c->length > 0;
}

/* ---- Writing them ---- */

static void print_guest(FILE *to, const struct test_case *c, uint64_t rip) {
    char *text = NULL, *rest = NULL;
    size_t size;
    FILE *lines = open_memstream(&text, &size);
    disassembly_print(lines, "", rip, c->bits, c->code, c->length);
    fclose(lines);
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *instruction = strstr(line, "  "); /* behind the address, then behind the bytes */
        instruction = instruction ? strstr(instruction + 2, "  ") : NULL;
        while (instruction && *instruction == ' ')
            instruction++;
        fprintf(to, "  %s\n", instruction ? instruction : line);
    }
    free(text);
}

static bool print_case(FILE *to, struct one_block *bench, const struct test_case *c) {
    static const uint8_t ud2[] = {0x0f, 0x0b};
    uint64_t rip = c->is_last ? ONE_BLOCK_PAGE - c->length : PLACE;
    memset(bench->ram, 0, ONE_BLOCK_PAGE);
    memcpy(bench->ram + rip, c->code, c->length);
    if (!c->is_last)
        memcpy(bench->ram + rip + c->length, ud2, sizeof ud2);
    const struct block *block = one_block_translate(bench, rip, c->key);
    print_guest(to, c, rip);
    fprintf(to, "    =>\n");
    return block && host_text_print(to, &bench->machine->engine, block);
}

/* ---- Files ---- */

static char *read_file(const char *path) {
    char *text = NULL;
    size_t size = 0;
    FILE *file = fopen(path, "r");
    if (!file || getdelim(&text, &size, 0, file) < 0)
        fprintf(stderr, "golden_code: %s: cannot be read\n", path);
    if (file)
        fclose(file);
    return text;
}

/* The file as it should be; NULL: a line of it is wrong. */
static char *renewed(struct one_block *bench, const char *path, const char *old) {
    char *text = NULL;
    size_t size;
    unsigned number = 0;
    bool is_good = true;
    FILE *to = open_memstream(&text, &size);
    while (is_good && *old) {
        char line[LINE];
        size_t length = strcspn(old, "\n");
        struct test_case c;
        number++;
        snprintf(line, sizeof line, "%.*s", (int)length, old);
        old += length + (old[length] == '\n');
        if (line[0] == ' ')
            continue;
        fprintf(to, "%s\n", line);
        if (line[0] == '#' || !line[0])
            continue;
        is_good = parse_case(line, &c) && print_case(to, bench, &c);
        if (!is_good)
            fprintf(stderr, "golden_code: %s:%u: no case that can be translated\n", path, number);
    }
    fclose(to);
    if (is_good)
        return text;
    free(text);
    return NULL;
}

/* What differs first, with the case that it belongs to. */
static void tell_difference(const char *path, const char *old, const char *new) {
    char name[LINE] = "";
    for (unsigned number = 1;; number++) {
        size_t was = strcspn(old, "\n"), is = strcspn(new, "\n");
        if (*old && isdigit((unsigned char)*old))
            snprintf(name, sizeof name, "%.*s", (int)was, old);
        if (was != is || memcmp(old, new, was) != 0 || !old[was] || !new[is]) {
            fprintf(stderr, "golden_code: %s:%u: in '%s'\n  expected: %.*s\n  made now: %.*s\n", path, number, name,
                    (int)was, old, (int)is, new);
            return;
        }
        old += was + 1;
        new += is + 1;
    }
}

static bool check(const char *path, const char *old, const char *new) {
    if (!strcmp(old, new))
        return true;
    tell_difference(path, old, new);
    fprintf(stderr, "where that is what was meant: cmake --build --preset release --target renew_expect\n");
    return false;
}

static bool renew(const char *path, const char *old, const char *new) {
    if (!strcmp(old, new))
        return true;
    FILE *file = fopen(path, "w");
    bool is_written = file && fputs(new, file) >= 0;
    if (file)
        is_written &= fclose(file) == 0;
    printf("golden_code: %s: %s\n", path, is_written ? "renewed" : "cannot be written");
    return is_written;
}

int main(int argc, char *argv[]) {
    struct one_block bench;
    bool is_renewal = argc > 2 && !strcmp(argv[1], "renew"), is_good = true;
    if (argc < 3 || (!is_renewal && strcmp(argv[1], "check") != 0)) {
        fprintf(stderr, "usage: golden_code check|renew FILE...\n");
        return 1;
    }
    if (!one_block_create(&bench)) {
        fprintf(stderr, "golden_code: no machine\n");
        return 1;
    }
    for (int i = 2; i < argc; i++) {
        char *old = read_file(argv[i]), *new = old ? renewed(&bench, argv[i], old) : NULL;
        is_good &= new && (is_renewal ? renew : check)(argv[i], old, new);
        free(old);
        free(new);
    }
    one_block_destroy(&bench);
    return is_good ? 0 : 1;
}
