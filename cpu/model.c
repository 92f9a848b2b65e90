/*
 * From a "-cpu" string to a processor model: a named row of model_table.c or the host, changes to single features and
 * properties, then everything that follows from the features (CR4, EFER, XCR0, CPUID's words).
 *
 * This file and model_host.c may use libc; nothing here runs while the guest's vector state is live.
 */
#include "cpu/model_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct parser {
    struct cpu_model *model;
    char *error;
    size_t error_size;
    void (*warn)(void *opaque, const char *line);
    void *opaque;
    bool is_enforced;
    uint8_t is_asked[FEATURE_COUNT]; /* by name in the string */
};

static void warn(const struct parser *parser, const char *format, const char *what) {
    char line[160];
    if (!parser->warn)
        return;
    snprintf(line, sizeof line, format, what);
    parser->warn(parser->opaque, line);
}

static bool fail(const struct parser *parser, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    if (parser->error_size)
        vsnprintf(parser->error, parser->error_size, format, arguments);
    va_end(arguments);
    return false;
}

/* ---- Features ---- */

static void set_feature(struct cpu_model *model, unsigned feature, bool value) {
    uint64_t bit = 1ull << (feature % 64);
    if (value)
        model->features[feature / 64] |= bit;
    else
        model->features[feature / 64] &= ~bit;
}

static char plain(char c) {
    if (c == '_' || c == '.')
        return '-';
    return c >= 'A' && c <= 'Z' ? (char)(c + 'a' - 'A') : c;
}

/* QEMU's names come with '_', '-' or '.' in the same place. */
static bool is_same_name(const char *a, const char *b) {
    while (*a && plain(*a) == plain(*b))
        a++, b++;
    return !*a && !*b;
}

static unsigned find_feature(const char *name) {
    for (unsigned i = FEATURE_NONE + 1; i < FEATURE_COUNT; i++) {
        const struct feature_row *row = &cpu_feature_table[i];
        if (row->name && (is_same_name(row->name, name) || (row->alias && is_same_name(row->alias, name))))
            return i;
    }
    return FEATURE_NONE;
}

static bool is_never_offered(const char *name) {
    for (unsigned i = 0; cpu_features_never[i]; i++)
        if (is_same_name(cpu_features_never[i], name))
            return true;
    return false;
}

/* Can the engine, on this host, run the feature? */
static bool is_available(unsigned feature) {
    switch ((enum feature_origin)cpu_feature_table[feature].origin) {
    case ORIGIN_HOST:
        return host_has(feature);
    case ORIGIN_ENGINE:
    case ORIGIN_AMD:
    case ORIGIN_ON_REQUEST:
        return true;
    case ORIGIN_NEVER:
    case ORIGIN_STATE:
        break;
    }
    return false;
}

static void start_from_host(struct cpu_model *model) {
    host_describe(model);
    model->max_leaf = model->is_amd ? 0x10 : 0x1f;
    model->max_extended = model->is_amd ? 0x80000021 : 0x80000008;
    for (unsigned i = FEATURE_NONE + 1; i < FEATURE_COUNT; i++) {
        unsigned origin = cpu_feature_table[i].origin;
        set_feature(model, i,
                    origin == ORIGIN_ENGINE || (origin == ORIGIN_HOST && host_has(i)) ||
                        (origin == ORIGIN_AMD && model->is_amd));
    }
}

static const struct model_row *find_row(const char *name) {
    for (unsigned i = 0; i < cpu_model_row_count; i++)
        if (is_same_name(cpu_model_rows[i].name, name))
            return &cpu_model_rows[i];
    return NULL;
}

static void add_row_features(struct cpu_model *model, const struct model_row *row) {
    if (row->base)
        add_row_features(model, find_row(row->base));
    for (unsigned i = 0; i < sizeof row->without && row->without[i]; i++)
        set_feature(model, row->without[i], false);
    for (unsigned i = 0; i < MODEL_FEATURES && row->features[i]; i++)
        set_feature(model, row->features[i], true);
}

static void start_from_row(struct cpu_model *model, const struct model_row *row) {
    static const struct cpu_cache caches[CPU_CACHES] = {
        {.type = 1, .level = 1, .line = 64, .ways = 8, .sets = 64},
        {.type = 2, .level = 1, .line = 64, .ways = 8, .sets = 64},
        {.type = 3, .level = 2, .line = 64, .ways = 16, .sets = 1024},
        {.type = 3, .level = 3, .is_shared = true, .line = 64, .ways = 16, .sets = 16384, .flags = 4},
    };
    memcpy(model->caches, caches, sizeof caches);
    strcpy(model->vendor, row->vendor);
    snprintf(model->brand, sizeof model->brand, "%s", row->brand);
    model->is_amd = !strcmp(row->vendor, "AuthenticAMD");
    model->family = row->family;
    model->model = row->model;
    model->stepping = row->stepping;
    model->max_leaf = row->max_leaf;
    model->max_extended = row->max_extended;
    add_row_features(model, row);
    set_feature(model, FEATURE_HYPERVISOR, true);
}

static bool start(struct parser *parser, const char *name) {
    if (!strcmp(name, "host") || !strcmp(name, "max")) {
        start_from_host(parser->model);
        return true;
    }
    const struct model_row *row = find_row(name);
    if (!row)
        return fail(parser, "unknown CPU model '%s'", name);
    start_from_row(parser->model, row);
    return true;
}

/* ---- Properties ---- */

struct property {
    const char *name;
    uint64_t min, max;
    size_t offset; /* of an unsigned in struct cpu_model */
};

static const struct property properties[] = {
    {"family", 0, 270, offsetof(struct cpu_model, family)},
    {"model", 0, 255, offsetof(struct cpu_model, model)},
    {"stepping", 0, 15, offsetof(struct cpu_model, stepping)},
    {"phys-bits", 32, 46, offsetof(struct cpu_model, physical_bits)},
    {"level", 0, 0x1f, offsetof(struct cpu_model, max_leaf)},
    {"xlevel", 0x80000000, 0x80000021, offsetof(struct cpu_model, max_extended)},
};

static bool set_number(const struct parser *parser, const struct property *property, const char *value) {
    char *end;
    unsigned long long number = strtoull(value, &end, 0);
    if (!*value || *value == '-' || *end || number < property->min || number > property->max)
        return fail(parser, "CPU property '%s' must be from %llu to %llu, not '%s'", property->name,
                    (unsigned long long)property->min, (unsigned long long)property->max, value);
    unsigned narrow = (unsigned)number;
    memcpy((char *)parser->model + property->offset, &narrow, sizeof narrow);
    return true;
}

/* 1 on, 0 off, -1 neither. */
static int parse_switch(const char *value) {
    if (!strcmp(value, "on") || !strcmp(value, "yes") || !strcmp(value, "true"))
        return 1;
    if (!strcmp(value, "off") || !strcmp(value, "no") || !strcmp(value, "false"))
        return 0;
    return -1;
}

static bool switch_feature(struct parser *parser, const char *name, bool value) {
    unsigned feature = find_feature(name);
    if (feature == FEATURE_NONE || cpu_feature_table[feature].origin == ORIGIN_STATE) {
        if (feature == FEATURE_NONE && !is_never_offered(name))
            return fail(parser, "unknown CPU feature '%s'", name);
        if (!value)
            return true;
        if (parser->is_enforced)
            return fail(parser, "CPU feature '%s' is not supported", name);
        warn(parser, "CPU feature '%s' is not supported and stays off", name);
        return true;
    }
    set_feature(parser->model, feature, value);
    parser->is_asked[feature] = value;
    return true;
}

static bool set_property(struct parser *parser, const char *name, const char *value) {
    struct cpu_model *model = parser->model;
    for (unsigned i = 0; i < sizeof properties / sizeof properties[0]; i++)
        if (is_same_name(properties[i].name, name))
            return set_number(parser, &properties[i], value);
    if (!strcmp(name, "vendor")) {
        if (strlen(value) != 12)
            return fail(parser, "CPU property 'vendor' must have 12 characters, not '%s'", value);
        memcpy(model->vendor, value, 13);
        model->is_amd = !strcmp(value, "AuthenticAMD") || !strcmp(value, "HygonGenuine");
        return true;
    }
    if (is_same_name(name, "model-id")) {
        memset(model->brand, 0, sizeof model->brand);
        snprintf(model->brand, sizeof model->brand, "%s", value);
        return true;
    }
    int on = parse_switch(value);
    if (on < 0)
        return fail(parser, "CPU feature '%s' must be 'on' or 'off', not '%s'", name, value);
    if (!strcmp(name, "enforce")) {
        parser->is_enforced = on;
        return true;
    }
    /* What QEMU has and makes no difference here: features are always checked, nothing migrates. */
    if (!strcmp(name, "check") || !strcmp(name, "migratable") || is_same_name(name, "host-phys-bits"))
        return true;
    return switch_feature(parser, name, on);
}

static bool parse_change(struct parser *parser, char *change) {
    if (*change == '+' || *change == '-')
        return switch_feature(parser, change + 1, *change == '+');
    char *value = strchr(change, '=');
    if (!value)
        return set_property(parser, change, "on");
    *value++ = 0;
    return set_property(parser, change, value);
}

/* ---- What follows ---- */

static bool drop_unavailable(struct parser *parser) {
    for (unsigned i = FEATURE_NONE + 1; i < FEATURE_COUNT; i++) {
        if (!cpu_model_has(parser->model, i) || is_available(i))
            continue;
        if (parser->is_enforced)
            return fail(parser, "this host does not support CPU feature '%s'", cpu_feature_table[i].name);
        warn(parser, "this host does not support CPU feature '%s'", cpu_feature_table[i].name);
        set_feature(parser->model, i, false);
    }
    return true;
}

static bool has_needs(const struct cpu_model *model, const struct feature_row *row) {
    for (unsigned i = 0; i < sizeof row->needs && row->needs[i]; i++)
        if (!cpu_model_has(model, row->needs[i]))
            return false;
    return true;
}

/* A feature goes when one that it builds on is missing. */
static void drop_dependent(struct parser *parser) {
    bool changed = true;
    while (changed) {
        changed = false;
        for (unsigned i = FEATURE_NONE + 1; i < FEATURE_COUNT; i++) {
            const struct feature_row *row = &cpu_feature_table[i];
            if (!cpu_model_has(parser->model, i) || has_needs(parser->model, row))
                continue;
            set_feature(parser->model, i, false);
            changed = true;
            if (parser->is_asked[i])
                warn(parser, "CPU feature '%s' is off because a feature that it needs is", row->name);
        }
    }
}

static void describe_words(struct cpu_model *model) {
    for (unsigned i = FEATURE_NONE + 1; i < FEATURE_COUNT; i++)
        if (cpu_model_has(model, i))
            model->words[cpu_feature_table[i].word] |= 1u << cpu_feature_table[i].bit;
    /* AMD repeats the features that it shares with Intel's first leaf. */
    if (model->is_amd)
        model->words[WORD_80000001_EDX] |= model->words[WORD_1_EDX] & 0x0183f3ffu;
}

/* The control bits that come with each feature. */
static void describe_controls(struct cpu_model *model) {
    static const struct {
        uint8_t feature;
        uint64_t cr4, efer, xcr0;
    } rows[] = {
        {FEATURE_VME, CR4_VME | CR4_PVI, 0, 0},
        {FEATURE_TSC, CR4_TSD, 0, 0},
        {FEATURE_DE, CR4_DE, 0, 0},
        {FEATURE_PSE, CR4_PSE, 0, 0},
        {FEATURE_PAE, CR4_PAE, 0, 0},
        {FEATURE_MCE, CR4_MCE, 0, 0},
        {FEATURE_PGE, CR4_PGE, 0, 0},
        {FEATURE_MMX, CR4_PCE, 0, 0},
        {FEATURE_FXSR, CR4_OSFXSR, 0, 0},
        {FEATURE_SSE, CR4_OSXMMEXCPT, 0, 0},
        {FEATURE_UMIP, CR4_UMIP, 0, 0},
        {FEATURE_FSGSBASE, CR4_FSGSBASE, 0, 0},
        {FEATURE_PCID, CR4_PCIDE, 0, 0},
        {FEATURE_XSAVE, CR4_OSXSAVE, 0, 3},
        {FEATURE_SMEP, CR4_SMEP, 0, 0},
        {FEATURE_SMAP, CR4_SMAP, 0, 0},
        {FEATURE_SYSCALL, 0, EFER_SCE, 0},
        {FEATURE_LM, 0, EFER_LME | EFER_LMA, 0},
        {FEATURE_NX, 0, EFER_NXE, 0},
        {FEATURE_AVX, 0, 0, 4},
        {FEATURE_AVX512F, 0, 0, 0xe0},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (!cpu_model_has(model, rows[i].feature))
            continue;
        model->cr4 |= rows[i].cr4;
        model->efer |= rows[i].efer;
        model->xcr0 |= rows[i].xcr0;
    }
}

static void describe_physical_bits(struct cpu_model *model) {
    unsigned widest = 32;
    if (cpu_model_has(model, FEATURE_PAE) || cpu_model_has(model, FEATURE_PSE36))
        widest = 36;
    if (cpu_model_has(model, FEATURE_LM)) {
        widest = host_cpuid(0x80000008, 0).eax & 0xff;
        widest = widest < 40 ? 40 : widest > 46 ? 46 : widest;
    }
    if (!model->physical_bits || model->physical_bits > widest)
        model->physical_bits = widest;
}

/*
 * The best fraction for tsc_hz / bus_hz whose numerator is at most 4294: Linux multiplies it with the bus clock in kHz
 * in 32 bits. Continued fractions, and between the last two that fit the intermediate one that is nearest. The error is
 * below one part in a million for most frequencies, and 120 near whole multiples of the bus clock.
 */
static void describe_ratio(struct cpu_model *model) {
    uint64_t a = model->tsc_hz, b = CPU_MODEL_BUS_HZ;
    enum { MOST = 4294 };
    uint64_t n0 = 0, d0 = 1, n1 = 1, d1 = 0;
    while (b) {
        uint64_t quotient = a / b, rest = a % b;
        uint64_t n = quotient * n1 + n0, d = quotient * d1 + d0;
        if (n > MOST || d > 1000000) {
            uint64_t part = (MOST - n0) / n1;
            if (d1 && part > quotient / 2 && part < quotient)
                n1 = part * n1 + n0, d1 = part * d1 + d0;
            break;
        }
        n0 = n1, d0 = d1, n1 = n, d1 = d;
        a = b, b = rest;
    }
    model->ratio_numerator = (uint32_t)n1;
    model->ratio_denominator = (uint32_t)d1;
}

static bool finish(struct parser *parser) {
    struct cpu_model *model = parser->model;
    if (!drop_unavailable(parser))
        return false;
    host_describe_xstate(model);
    if (!model->host_has_xsave)
        set_feature(model, FEATURE_XSAVE, false);
    drop_dependent(parser);
    if (model->vcpu_count > 1 && cpu_model_has(model, FEATURE_APIC))
        set_feature(model, FEATURE_HTT, true);
    describe_words(model);
    describe_controls(model);
    describe_physical_bits(model);
    /* A leaf is of no use to a guest that CPUID tells it is not there. */
    if (model->max_leaf < 7 && (model->words[WORD_7_EBX] | model->words[WORD_7_ECX] | model->words[WORD_7_EDX]))
        model->max_leaf = 7;
    if (model->max_leaf < 0xd && cpu_model_has(model, FEATURE_XSAVE))
        model->max_leaf = 0xd;
    if (!model->max_extended && (model->words[WORD_80000001_EDX] | model->words[WORD_80000001_ECX]))
        model->max_extended = 0x80000001;
    if (model->max_extended < 0x80000008 && cpu_model_has(model, FEATURE_LM))
        model->max_extended = 0x80000008;
    if (cpu_model_has(model, FEATURE_ARCH_CAPABILITIES)) {
        model->arch_capabilities = MODEL_ARCH_CAPABILITIES;
        if (!cpu_model_has(model, FEATURE_SPEC_CTRL))
            model->arch_capabilities &= ~MODEL_IBRS_ALL;
    }
    model->microcode = model->is_amd ? 0x0fffffff : 0xffffffffull << 32;
    model->tsc_hz = host_tsc_hz();
    describe_ratio(model);
    return true;
}

static bool parse(struct parser *parser, char *text) {
    char *rest = NULL;
    char *word = strtok_r(text, ",", &rest);
    if (!start(parser, word ? word : ""))
        return false;
    while ((word = strtok_r(NULL, ",", &rest)))
        if (!parse_change(parser, word))
            return false;
    return finish(parser);
}

struct cpu_model *cpu_model_create(const char *text, unsigned vcpu_count, char *error, size_t error_size,
                                   void (*warning)(void *opaque, const char *line), void *opaque) {
    struct parser parser = {.error = error, .error_size = error_size, .warn = warning, .opaque = opaque};
    char *copy = strdup(text ? text : "host");
    parser.model = calloc(1, sizeof *parser.model);
    bool made = false;
    if (copy && parser.model) {
        parser.model->vcpu_count = vcpu_count ? vcpu_count : 1;
        made = parse(&parser, copy);
    } else {
        fail(&parser, "no memory");
    }
    free(copy);
    if (made)
        return parser.model;
    free(parser.model);
    return NULL;
}

void cpu_model_destroy(struct cpu_model *model) {
    free(model);
}

const char *cpu_model_name(unsigned k) {
    static const char *const hosts[] = {"host", "max"};
    if (k < 2)
        return hosts[k];
    return k - 2 < cpu_model_row_count ? cpu_model_rows[k - 2].name : NULL;
}

const char *cpu_model_feature_name(unsigned k) {
    for (unsigned i = FEATURE_NONE + 1; i < FEATURE_COUNT; i++) {
        const struct feature_row *row = &cpu_feature_table[i];
        if (row->name && row->origin != ORIGIN_STATE && row->origin != ORIGIN_NEVER && !k--)
            return row->name;
    }
    return NULL;
}
