/*
 * isa_host: writes a batch of instruction tests with the host processor's results.
 *
 *   isa_host forms BITS SEED VARIANTS FILE [CLASS]    each form of the encoding space, VARIANTS times
 *   isa_host blocks BITS SEED COUNT FILE              random blocks
 *   isa_host show FILE INDEX                          one record in words
 *
 * A child process runs the tests; one that hangs it or kills it is left out.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "isa_generate.h"
#include "isa_native.h"

enum { MAX_RECORDS = 200000, FORM_SLOTS = 1 << 18, TRIES = 40 };
enum { VECTOR_SS = 12, VECTOR_GP = 13, VECTOR_PF = 14, VECTOR_MF = 16, VECTOR_AC = 17 };

struct plan {
    struct isa_record *records;
    unsigned count;
};

struct form_table {
    uint64_t form[FORM_SLOTS];
    uint16_t seen[FORM_SLOTS];
};

/* How often the form was met so far; counts this time. */
static unsigned form_count(struct form_table *table, uint64_t form) {
    unsigned slot = (unsigned)(form ^ form >> 32) % FORM_SLOTS;
    while (table->seen[slot] && table->form[slot] != form)
        slot = (slot + 1) % FORM_SLOTS;
    table->form[slot] = form;
    return table->seen[slot]++;
}

static void plan_forms(struct plan *plan, unsigned bits, uint64_t seed, unsigned variants, int only) {
    struct form_table *table = calloc(1, sizeof *table);
    struct isa_generator generator;
    isa_generator_init(&generator, bits, seed);
    for (unsigned point = 0; table && point < ISA_POINTS; point++) {
        for (unsigned try = 0; try < TRIES * variants && plan->count < MAX_RECORDS; try++) {
            uint64_t form;
            enum isa_class class;
            if (isa_generate_form(&generator, point, &plan->records[plan->count], &form, &class) &&
                (only < 0 || (int)class == only) && form_count(table, form) < variants)
                plan->count++;
        }
    }
    free(table);
}

static void plan_blocks(struct plan *plan, unsigned bits, uint64_t seed, unsigned count) {
    struct isa_generator generator;
    isa_generator_init(&generator, bits, seed);
    for (; plan->count < count && plan->count < MAX_RECORDS; plan->count++)
        isa_generate_block(&generator, &plan->records[plan->count]);
}

/* Appends the runs of bytes that differ; gaps of up to 4 equal bytes do not split a run. */
static size_t append_changes(struct isa_record *record, uint8_t *to, const uint8_t *before, const uint8_t *after) {
    size_t used = 0;
    for (unsigned at = 0; at < ISA_DATA_SIZE; at++) {
        if (before[at] == after[at])
            continue;
        unsigned end = at;
        for (unsigned n = at; n < ISA_DATA_SIZE && n <= end + 4; n++)
            if (before[n] != after[n])
                end = n;
        uint16_t head[2] = {(uint16_t)at, (uint16_t)(end + 1 - at)};
        memcpy(to + used, head, 4);
        memcpy(to + used + 4, after + at, head[1]);
        used += 4u + head[1];
        record->runs++;
        at = end;
    }
    return used;
}

static bool is_operand_fault(const struct isa_record *record) {
    return record->vector == VECTOR_SS || record->vector == VECTOR_GP || record->vector == VECTOR_PF;
}

/* See docs/limits.md on #AC, isa_case.h on the rest. */
static bool is_comparable(const struct isa_record *record) {
    if (record->vector == VECTOR_AC || (record->vector == VECTOR_GP && (record->flags & ISA_LOOSE_BRANCH)))
        return false;
    bool is_partial = (record->flags & ISA_LOOSE_PARTIAL) || (record->has_vectors && (record->flags & ISA_LOOSE_GATHER));
    return !is_partial || !is_operand_fault(record);
}

/* Runs the record and writes it, unless its outcome is no matter of comparison. Answers whether it was written. */
static bool write_record(int file, struct isa_record *record) {
    static uint8_t before[ISA_DATA_SIZE], after[ISA_DATA_SIZE];
    static uint8_t out[sizeof *record + sizeof(struct isa_vectors) + 3 * ISA_DATA_SIZE];
    struct isa_vectors vectors, untouched;
    isa_fill_data(record, before);
    isa_native_run(record, &vectors, after);
    size_t length = sizeof *record;
    isa_fill_vectors(record, &untouched);
    record->has_vectors = memcmp(&vectors, &untouched, sizeof vectors) != 0;
    if (!is_comparable(record))
        return false;
    if (record->has_vectors && record->after.ip == record->before.ip && record->vector != VECTOR_MF)
        return false; /* MMX clears TOP: what a fault leaves is the model's own affair */
    if (record->vector == VECTOR_PF && (!strncmp(record->text, "frstor", 6) || !strncmp(record->text, "fldenv", 6)))
        return false; /* microcode that reads its operand in an order of its own */
    if (record->has_vectors) {
        memcpy(out + length, &vectors, sizeof vectors);
        length += sizeof vectors;
    }
    length += append_changes(record, out + length, before, after);
    length = (length + 7) & ~(size_t)7;
    record->size = (uint32_t)length;
    memcpy(out, record, sizeof *record);
    return write(file, out, length) == (ssize_t)length;
}

struct progress {
    volatile unsigned next, written;
};

/* What hangs the process is ended by the time that it has used, not by the clock: a busy host must not lose records. */
static void child(int file, const struct plan *plan, struct progress *progress) {
    static const struct itimerval limit = {.it_value = {.tv_sec = 1}};
    if (!isa_native_init()) {
        perror("isa_host: mapping the test pages");
        _exit(1);
    }
    while (progress->next < plan->count) {
        struct isa_record record = plan->records[progress->next];
        if (progress->next % 64 == 0 && setitimer(ITIMER_PROF, &limit, NULL) < 0)
            _exit(1);
        progress->next = progress->next + 1;
        if (write_record(file, &record))
            progress->written = progress->written + 1;
    }
    _exit(0);
}

static int write_batch(const char *path, const struct plan *plan) {
    struct isa_batch batch = {ISA_MAGIC, 0, isa_native_xcr0()};
    struct progress *progress = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644), status = 0;
    unsigned lost = 0;
    if (file < 0 || progress == MAP_FAILED || write(file, &batch, sizeof batch) != (ssize_t)sizeof batch) {
        perror(path);
        return 1;
    }
    do {
        pid_t pid = fork();
        if (pid == 0)
            child(file, plan, progress);
        if (pid < 0 || waitpid(pid, &status, 0) < 0) {
            perror("isa_host: fork");
            return 1;
        }
        lost += status != 0;
    } while (progress->next < plan->count);
    batch.count = progress->written;
    bool ok = pwrite(file, &batch, sizeof batch, 0) == (ssize_t)sizeof batch;
    close(file);
    printf("isa_host: %u planned, %u written, %u ended the process\n", plan->count, batch.count, lost);
    return ok && (batch.count || !plan->count) ? 0 : 1;
}

static int show(const char *path, unsigned index) {
    struct isa_record record;
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, sizeof(struct isa_batch), SEEK_SET))
        return 1;
    for (;; index--) {
        if (fread(&record, sizeof record, 1, file) != 1)
            return 1;
        if (!index)
            break;
        fseek(file, (long)(record.size - sizeof record), SEEK_CUR);
    }
    fclose(file);
    printf("%s\nbits %u seed %" PRIx64 " style %u code", record.text, record.bits, record.seed, record.style);
    for (unsigned i = 0; i < record.code_length; i++)
        printf(" %02x", record.code[i]);
    printf("\nvector %" PRIu64 " error %" PRIx64 " cr2 %" PRIx64 " runs %u\n", record.vector, record.error, record.cr2,
           record.runs);
    for (unsigned i = 0; i < 16; i++)
        printf("r%-2u %016" PRIx64 " -> %016" PRIx64 "\n", i, record.before.gpr[i], record.after.gpr[i]);
    printf("ip %" PRIx64 " -> %" PRIx64 "\nflags %" PRIx64 " -> %" PRIx64 " of %" PRIx64 "\nmxcsr %x fcw %x\n",
           record.before.ip, record.after.ip, record.before.flags, record.after.flags, record.flags_mask, record.mxcsr,
           record.fcw);
    return 0;
}

int main(int argc, char **argv) {
    static const char *const classes[ISA_CLASSES] = {"integer", "x87", "vector"};
    int only = -1;
    if (argc == 4 && !strcmp(argv[1], "show"))
        return show(argv[2], (unsigned)atoi(argv[3]));
    struct plan plan = {calloc(MAX_RECORDS + 1, sizeof(struct isa_record)), 0};
    if (argc < 6 || !plan.records) {
        free(plan.records);
        fprintf(stderr, "usage: isa_host forms|blocks BITS SEED COUNT FILE [integer|x87|vector]\n");
        return 1;
    }
    for (int i = 0; argc > 6 && i < ISA_CLASSES; i++)
        if (!strcmp(argv[6], classes[i]))
            only = i;
    unsigned bits = (unsigned)atoi(argv[2]), count = (unsigned)atoi(argv[4]);
    uint64_t seed = strtoull(argv[3], NULL, 0);
    if (bits == 16 && !isa_native_has_16_bit_segments())
        printf("isa_host: this kernel has no 16-bit segments, so there is nothing to compare\n");
    else if (!strcmp(argv[1], "blocks"))
        plan_blocks(&plan, bits, seed, count);
    else
        plan_forms(&plan, bits, seed, count, only);
    int status = write_batch(argv[5], &plan);
    free(plan.records);
    return status;
}
