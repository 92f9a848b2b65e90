/*
 * Programs as Debian has packaged them: xz, sqlite3, python, openssl, dd, and a compiler with its assembler. Each is
 * started by the loader of its own package, so that natively and in a guest the same files run, libraries and all. What
 * they work on is made here, in the current folder, before the measured time.
 */
#include "tools/bench_programs/tools.h"

#include <stdarg.h>
#include <string.h>
#include <unistd.h>

enum { MAX_ARGUMENTS = 24, PATH = 512, KIB = 1024 };

/* Runs a program of the packages with the arguments that follow, up to a NULL. */
static __attribute__((sentinel)) uint64_t run_packaged(const char *name, ...) {
    char loader[PATH], library[PATH], program[PATH];
    const char *arguments[MAX_ARGUMENTS] = {loader, "--library-path", library, program};
    int count = 4;
    va_list list;
    snprintf(loader, sizeof loader, "%s/lib/ld.so", program_packages);
    snprintf(library, sizeof library, "%s/lib", program_packages);
    snprintf(program, sizeof program, "%s/bin/%s", program_packages, name);
    va_start(list, name);
    while (count + 1 < MAX_ARGUMENTS && (arguments[count] = va_arg(list, const char *)))
        count++;
    va_end(list);
    return tool_hash_output(loader, arguments);
}

static FILE *create_file(const char *name) {
    FILE *file = fopen(name, "w");
    REQUIRE(file);
    return file;
}

/* KIB of words that come back in no order, as text has them. */
static void make_text(const char *name, uint64_t kib) {
    static const char *const syllables[] = {"ba",  "co",  "di", "fen", "gar", "hu",  "jil", "ko",
                                            "lam", "mer", "no", "pas", "qui", "ros", "tu",  "ves"};
    FILE *file = create_file(name);
    uint64_t random = 17, bytes = 0;
    while (bytes < kib * KIB) {
        uint64_t word = random_next(&random) % 3000, choice = random_next(&random) % 12;
        for (uint64_t rest = word + 16; rest > 1; rest /= 16)
            bytes += (uint64_t)fprintf(file, "%s", syllables[rest % 16]);
        bytes += (uint64_t)fprintf(file, choice == 0 ? ", " : choice == 1 ? ".\n" : " ");
    }
    REQUIRE(fclose(file) == 0);
}

static void make_data(const char *name, uint64_t kib) {
    FILE *file = create_file(name);
    uint64_t random = 19;
    for (uint64_t i = 0; i < kib * KIB / sizeof(uint32_t); i++) {
        uint32_t word = (uint32_t)random_next(&random);
        REQUIRE(fwrite(&word, sizeof word, 1, file) == 1);
    }
    REQUIRE(fclose(file) == 0);
}

static void *prepare_xz(uint64_t count) {
    make_text("bench.txt", count);
    return NULL;
}

static uint64_t run_xz(void *state, uint64_t count) {
    (void)state;
    (void)count;
    return run_packaged("xz", "-z", "-6", "-T1", "-c", "bench.txt", NULL);
}

static uint64_t run_sqlite(void *state, uint64_t count) {
    (void)state;
    char sql[1024];
    snprintf(sql, sizeof sql,
             "create table t(a integer primary key, b int, c text);"
             "with recursive n(i) as (select 1 union all select i + 1 from n where i < %u)"
             " insert into t select i, i * 7919 %% 10007, 'row ' || (i * 31 %% 997) from n;"
             "create index u on t(b); create index v on t(c);"
             "select count(*), sum(b), max(c) from t;"
             "select c, count(*), sum(b) from t group by c order by 3 desc limit 20;"
             "select sum(x.b * y.a) from t x join t y on x.b = y.a where y.c like '%%7';"
             "update t set c = c || a where b %% 3 = 0; delete from t where b %% 5 = 1;"
             "select count(*), sum(length(c)) from t;",
             (unsigned)count);
    return run_packaged("sqlite3", "-batch", ":memory:", sql, NULL);
}

static const char python_script[] =
    "import sys\n"
    "n = int(sys.argv[1])\n"
    "class Node:\n"
    "    def __init__(self, key):\n"
    "        self.key, self.left, self.right = key, None, None\n"
    "    def insert(self, key):\n"
    "        side = 'left' if key < self.key else 'right'\n"
    "        child = getattr(self, side)\n"
    "        if child: child.insert(key)\n"
    "        else: setattr(self, side, Node(key))\n"
    "    def walk(self):\n"
    "        if self.left: yield from self.left.walk()\n"
    "        yield self.key\n"
    "        if self.right: yield from self.right.walk()\n"
    "seed, root, words = 1, Node(1 << 30), {}\n"
    "for i in range(n):\n"
    "    seed = (seed * 1103515245 + 12345) & 0x7fffffff\n"
    "    root.insert(seed)\n"
    "    word = 'w%d' % (seed % 613)\n"
    "    words[word] = words.get(word, 0) + len(word)\n"
    "big, total = 1, 0\n"
    "for i in range(1, n // 20): big = big * i + seed\n"
    "for i, key in enumerate(root.walk()): total = (total * 31 + key * i) % 1000000007\n"
    "best = sorted(words.items(), key=lambda item: (-item[1], item[0]))[:20]\n"
    "print(total, big % 1000003, [a * b for a, b in best], [a for a in range(n) if a % 7 == 3][-1])\n";

static uint64_t run_python(void *state, uint64_t count) {
    (void)state;
    char loops[32];
    snprintf(loops, sizeof loops, "%u", (unsigned)count);
    setenv("PYTHONHOME", program_packages, 1);
    setenv("PYTHONHASHSEED", "0", 1);
    return run_packaged("python3.11", "-S", "-B", "-c", python_script, loops, NULL);
}

static void *prepare_openssl(uint64_t count) {
    make_data("bench.data", count);
    return NULL;
}

#define KEY    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define VECTOR "0f0e0d0c0b0a09080706050403020100"

static uint64_t encrypt_and_digest(void) {
    setenv("OPENSSL_CONF", "/dev/null", 1);
    uint64_t hash = run_packaged("openssl", "enc", "-aes-256-cbc", "-K", KEY, "-iv", VECTOR, "-in", "bench.data",
                                 "-out", "bench.aes", NULL);
    hash = hash * 31 + run_packaged("openssl", "dgst", "-sha256", "bench.aes", NULL);
    return hash * 31 + run_packaged("openssl", "enc", "-chacha20", "-K", KEY, "-iv", VECTOR, "-in", "bench.aes", "-out",
                                    "/dev/null", NULL);
}

/* Whatever the CPU offers. */
static uint64_t run_openssl_simd(void *state, uint64_t count) {
    (void)state;
    (void)count;
    return encrypt_and_digest();
}

/* As if CPUID offered nothing. */
static uint64_t run_openssl_scalar(void *state, uint64_t count) {
    (void)state;
    (void)count;
    setenv("OPENSSL_ia32cap", "0:0", 1);
    return encrypt_and_digest();
}

static uint64_t run_dd(void *state, uint64_t count) {
    (void)state;
    char blocks[32];
    snprintf(blocks, sizeof blocks, "count=%u", (unsigned)count);
    run_packaged("dd", "if=/dev/zero", "of=bench.zero", "bs=64k", blocks, NULL);
    return run_packaged("dd", "if=bench.zero", "bs=4k", "count=1k", NULL);
}

/* Functions with loops, branches, structures and calls, COUNT of them, each a little different. */
static void *prepare_compile(uint64_t count) {
    FILE *file = create_file("bench.c");
    uint64_t random = 23;
    fprintf(file, "struct item { struct item *next; unsigned key, value; char name[12]; };\n"
                  "static unsigned mix(unsigned a, unsigned b) { return (a ^ b >> 3) * 2654435761u + b; }\n");
    for (uint64_t i = 0; i < count; i++) {
        unsigned a = (unsigned)random_next(&random) % 1000 + 1, b = (unsigned)random_next(&random) % 29 + 1;
        fprintf(file,
                "unsigned function%u(struct item *list, const unsigned char *text, unsigned length) {\n"
                "    unsigned sum = %u, seen[%u] = {0};\n"
                "    for (unsigned i = 0; i < length; i++) {\n"
                "        switch (text[i] %% 7) {\n"
                "        case 0: sum += mix(text[i], %uu); break;\n"
                "        case 1: sum = sum << %u | sum >> %u; break;\n"
                "        case 3: seen[text[i] %% %u] += sum; break;\n"
                "        case 4: if (length > %u) sum -= seen[i %% %u]; break;\n"
                "        default: sum ^= i * %uu;\n"
                "        }\n"
                "    }\n"
                "    for (struct item *at = list; at; at = at->next)\n"
                "        if (at->key %% %u == sum %% %u) at->value += mix(at->key, sum); else sum += at->name[%u];\n"
                "    return %s;\n"
                "}\n",
                (unsigned)i, a, b, a * b, b % 31 + 1, 31 - b % 31, b, a, b, a, b + 1, b + 1, b % 12,
                i ? "sum > 9 ? sum / 3 : mix(sum, length)" : "sum");
    }
    REQUIRE(fclose(file) == 0);
    return NULL;
}

static uint64_t run_compile(void *state, uint64_t count) {
    (void)state;
    (void)count;
    run_packaged("cc1", "-quiet", "-fpreprocessed", "-O2", "bench.c", "-o", "bench.s", NULL);
    run_packaged("as", "bench.s", "-o", "bench.o", NULL);
    return tool_hash_file("bench.o");
}

#define NEEDS .needs = "packages"

const struct program programs_packages[] = {
    {.name = "xz", .group = "user", .count = 400, .run = run_xz, .prepare = prepare_xz, NEEDS},
    {.name = "sqlite", .group = "user", .count = 20000, .run = run_sqlite, NEEDS},
    {.name = "python", .group = "user", .count = 20000, .run = run_python, NEEDS},
    {.name = "openssl scalar",
     .group = "user",
     .count = 8192,
     .run = run_openssl_scalar,
     .prepare = prepare_openssl,
     NEEDS},
    {.name = "compile", .group = "user", .count = 8, .run = run_compile, .prepare = prepare_compile, NEEDS},
    {.name = "openssl simd",
     .group = "float",
     .count = 16384,
     .run = run_openssl_simd,
     .prepare = prepare_openssl,
     NEEDS},
    {.name = "dd", .group = "copy", .count = 800, .run = run_dd, NEEDS},
    {0},
};
