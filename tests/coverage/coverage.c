/*
 * trapeze_coverage: writes docs/coverage.md, that is, how each instruction of the encoding space is treated.
 *
 *   trapeze_coverage              to standard output
 *   trapeze_coverage check FILE   fails when FILE is not what it would write
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/model_internal.h"
#include "tests/coverage/coverage.h"

enum { ROWS = 4096, KINDS_OF_RULE = RULE_XLAT + 1 };

/* One mnemonic of an ISA set. */
struct row {
    char group[32];
    ZydisMnemonic mnemonic;
    ZydisISASet isa_set;
    unsigned register_forms, memory_forms;
    uint8_t modes;                 /* 1: 16-bit, 2: 32-bit, 4: 64-bit code */
    uint32_t kinds;                /* of rules */
    cpu_op_function *functions[8]; /* that helpers are */
    unsigned function_count;
    uint16_t feature;
};

struct coverage {
    struct decoder *decoder;
    struct form_set forms;
    struct row rows[ROWS];
    unsigned row_count;
    bool met[ZYDIS_MNEMONIC_MAX_VALUE + 1];
    unsigned bits;
    bool failed;
};

/* ---- Collecting ---- */

/* The ISA set without its vector length: those differ in nothing that matters here. */
static void name_group(char group[32], ZydisISASet isa_set) {
    static const char *const suffixes[] = {"_128N", "_128", "_256", "_512", "_SCALAR", "_KOP"};
    snprintf(group, 32, "%s", ZydisISASetGetString(isa_set));
    for (unsigned i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        size_t length = strlen(group), suffix = strlen(suffixes[i]);
        if (length > suffix && !strcmp(group + length - suffix, suffixes[i])) {
            group[length - suffix] = 0;
            return;
        }
    }
}

static struct row *row_of(struct coverage *coverage, const struct instruction *in) {
    char group[32];
    name_group(group, in->z->meta.isa_set);
    for (unsigned i = 0; i < coverage->row_count; i++)
        if (coverage->rows[i].mnemonic == in->z->mnemonic && !strcmp(coverage->rows[i].group, group))
            return &coverage->rows[i];
    if (coverage->row_count == ROWS)
        abort(); /* a table for Zydis's two thousand mnemonics */
    struct row *row = &coverage->rows[coverage->row_count++];
    *row = (struct row){.mnemonic = in->z->mnemonic, .isa_set = in->z->meta.isa_set, .feature = in->rule.feature};
    memcpy(row->group, group, sizeof group);
    return row;
}

static void note_function(struct row *row, cpu_op_function *function) {
    for (unsigned i = 0; i < row->function_count; i++)
        if (row->functions[i] == function)
            return;
    if (row->function_count < sizeof row->functions / sizeof *row->functions)
        row->functions[row->function_count++] = function;
}

static void visit(void *opaque, const uint8_t *bytes) {
    struct coverage *coverage = opaque;
    struct instruction in;
    if (!decode(coverage->decoder, decoded_forms_key(coverage->bits), bytes, FORM_BYTES, 0x1000, &in))
        return;
    uint8_t mode = coverage->bits == 16 ? 1 : coverage->bits == 32 ? 2 : 4;
    uint64_t hash = decoded_forms_hash(&in);
    if (!form_set_add(&coverage->forms, hash ^ (uint64_t)mode << 60))
        return;
    struct row *row = row_of(coverage, &in);
    coverage->met[in.z->mnemonic] = true;
    row->modes |= mode;
    row->kinds |= 1u << in.rule.kind;
    if (in.rule.kind == RULE_HELPER)
        note_function(row, in.rule.function);
    if (!form_set_add(&coverage->forms, hash))
        return; /* in another mode */
    if (decoded_forms_has_memory(&in))
        row->memory_forms++;
    else
        row->register_forms++;
}

static int compare_rows(const void *a, const void *b) {
    const struct row *x = a, *y = b;
    int groups = strcmp(x->group, y->group);
    return groups ? groups : strcmp(ZydisMnemonicGetString(x->mnemonic), ZydisMnemonicGetString(y->mnemonic));
}

static void collect(struct coverage *coverage) {
    static const struct form_flavour flavour = {.rm = 3, .sib = 0x0b, .vvvv = 1, .reg = 1};
    for (coverage->bits = 16; coverage->bits <= 64; coverage->bits *= 2)
        forms_visit(coverage->bits, &flavour, visit, coverage);
    qsort(coverage->rows, coverage->row_count, sizeof *coverage->rows, compare_rows);
}

/* ---- Writing ---- */

static void write_list_item(FILE *out, unsigned *count, const char *text) {
    fprintf(out, "%s%s", (*count)++ ? ", " : "", text);
}

static void write_treatment(FILE *out, const struct row *row) {
    static const char *const words[KINDS_OF_RULE] = {
        [RULE_COPY] = "copied", [RULE_NOTHING] = "nothing to do", [RULE_UD] = "#UD by definition",
        [RULE_JUMP] = "control flow", [RULE_JCC] = "control flow", [RULE_CALL] = "control flow",
        [RULE_RET] = "control flow", [RULE_LOOP] = "control flow", [RULE_PUSH] = "stack", [RULE_POP] = "stack",
        [RULE_LEAVE] = "stack", [RULE_LEA] = "address", [RULE_BIT] = "copied, bit strings by their real address",
        [RULE_XLAT] = "copied as a load",
    };
    unsigned count = 0;
    for (unsigned kind = 0; kind < KINDS_OF_RULE; kind++)
        if ((row->kinds >> kind & 1) && words[kind])
            write_list_item(out, &count, words[kind]);
    for (unsigned i = 0; i < row->function_count; i++) {
        fputs(count++ ? ", " : "", out);
        fprintf(out, "helper `%s`", coverage_helper_name(row->functions[i]));
    }
}

static void write_tests(struct coverage *coverage, FILE *out, const struct row *row) {
    unsigned count = 0;
    const uint32_t quiet = 1u << RULE_NOTHING | 1u << RULE_UD;
    if ((row->kinds & ~(quiet | 1u << RULE_HELPER)) && coverage_is_compared(row->mnemonic))
        write_list_item(out, &count, "isa");
    if (row->kinds & 1u << RULE_COPY)
        write_list_item(out, &count, "rewrite");
    if (row->kinds & quiet)
        write_list_item(out, &count, "test_instructions");
    for (unsigned i = 0; i < row->function_count; i++) {
        const char *test = coverage_test_of_helper(row->functions[i]);
        bool seen = false;
        for (unsigned k = 0; k < i && test; k++)
            seen |= !strcmp(test, coverage_test_of_helper(row->functions[k]));
        if (!test)
            count = 0;
        else if (!seen)
            write_list_item(out, &count, test);
    }
    if (count)
        return;
    fprintf(stderr, "%s has no test: see tests/coverage/tests.c\n", ZydisMnemonicGetString(row->mnemonic));
    coverage->failed = true;
}

static void write_row(struct coverage *coverage, FILE *out, const struct row *row) {
    static const char *const modes[] = {"", "16", "32", "16 32", "64", "16 64", "32 64", "all"};
    fprintf(out, "| %s | %u / %u | %s | ", ZydisMnemonicGetString(row->mnemonic), row->register_forms,
            row->memory_forms, modes[row->modes]);
    write_treatment(out, row);
    fputs(" | ", out);
    write_tests(coverage, out, row);
    fputs(" |\n", out);
}

static bool is_supported(const struct row *row) {
    return row->kinds != 1u << RULE_NONE;
}

static void write_group_head(FILE *out, const struct row *row) {
    const char *feature = cpu_feature_table[row->feature].name;
    fprintf(out, "\n## %s\n\n", row->group);
    if (row->feature == FEATURE_NONE)
        fputs("On every processor.\n", out);
    else
        fprintf(out, "With CPUID feature `%s`.\n", feature);
    fputs("\n| mnemonic | forms | code | treatment | test |\n|---|---|---|---|---|\n", out);
}

static void write_supported(struct coverage *coverage, FILE *out) {
    const char *group = "";
    for (unsigned i = 0; i < coverage->row_count; i++) {
        const struct row *row = &coverage->rows[i];
        if (!is_supported(row))
            continue;
        if (strcmp(group, row->group))
            write_group_head(out, row);
        group = row->group;
        write_row(coverage, out, row);
    }
}

static void write_unsupported(struct coverage *coverage, FILE *out) {
    const char *group = "";
    fputs("\n## Not supported\n\n"
          "A guest that executes one gets #UD, which is counted and logged. No processor model offers\n"
          "their CPUID features.\n\n| ISA set | why | mnemonics |\n|---|---|---|", out);
    for (unsigned i = 0; i < coverage->row_count; i++) {
        const struct row *row = &coverage->rows[i];
        if (is_supported(row))
            continue;
        if (strcmp(group, row->group)) {
            const char *reason = coverage_reason(row->isa_set);
            if (!reason) {
                fprintf(stderr, "ISA set %s has neither a rule nor a reason: see tests/coverage/tests.c\n", row->group);
                coverage->failed = true;
            }
            fprintf(out, "%s\n| %s | %s | ", *group ? " |" : "", row->group, reason ? reason : "?");
        } else {
            fputs(" ", out);
        }
        group = row->group;
        fputs(ZydisMnemonicGetString(row->mnemonic), out);
    }
    fputs(" |\n", out);
}

static void write_missing(const struct coverage *coverage, FILE *out) {
    unsigned count = 0;
    fputs("\n## Not met\n\n"
          "Mnemonics of the decoder that no encoding of these modes reaches: of Xeon Phi's vector extensions,\n"
          "and of control-flow enforcement and MPX, whose encodings are NOPs on a processor without them.\n\n", out);
    for (unsigned m = ZYDIS_MNEMONIC_INVALID + 1; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++) {
        if (coverage->met[m])
            continue;
        fprintf(out, "%s%s", count ? count % 12 ? " " : "\n" : "", ZydisMnemonicGetString((ZydisMnemonic)m));
        count++;
    }
    fputs("\n", out);
}

static void write_document(struct coverage *coverage, FILE *out) {
    fputs("# Coverage\n\n"
          "How each instruction is treated, made by `trapeze_coverage` (tests/coverage) from the rules themselves;\n"
          "the test `coverage_document` fails when it is stale. One line a mnemonic under its ISA set, as Zydis names\n"
          "them.\n\n"
          "- forms: register / memory forms, by encoding and kinds of operands, over all modes\n"
          "- code: the code sizes that have it\n"
          "- treatment: *copied* runs on the host as itself; *helper* is a C function `cpu_op_NAME` (cpu/ops.h);\n"
          "  *control flow*, *stack*, *address* are rewritten by the function of that family (translator/); see\n"
          "  translation.md\n"
          "- test: *isa* is the comparison with the host's own processor (isa_forms_*, isa_blocks_*; where the host\n"
          "  has the instruction), *rewrite* is test_rewrite (every form's host code), others are tests by their ctest\n"
          "  name\n",
          out);
    write_supported(coverage, out);
    write_unsupported(coverage, out);
    write_missing(coverage, out);
}

/* ---- The command ---- */

static int check_file(const char *path, const char *text, size_t length) {
    FILE *file = fopen(path, "r");
    if (!file) {
        perror(path);
        return 1;
    }
    char *have = malloc(length + 2);
    size_t got = have ? fread(have, 1, length + 1, file) : 0;
    fclose(file);
    bool same = got == length && !memcmp(have, text, length);
    free(have);
    if (!same)
        fprintf(stderr, "%s is stale: write it again with trapeze_coverage >%s\n", path, path);
    return !same;
}

int main(int count, char **arguments) {
    struct coverage *coverage = calloc(1, sizeof *coverage);
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    if (!coverage || !out || !form_set_init(&coverage->forms, 18))
        return 1;
    coverage->decoder = decoded_forms_decoder();
    if (!coverage->decoder)
        return 1;
    collect(coverage);
    write_document(coverage, out);
    fclose(out);
    int status = coverage->failed;
    if (count == 3 && !strcmp(arguments[1], "check"))
        status |= check_file(arguments[2], text, length);
    else
        fwrite(text, 1, length, stdout);
    decoder_destroy(coverage->decoder);
    form_set_release(&coverage->forms);
    free(coverage);
    free(text);
    return status;
}
