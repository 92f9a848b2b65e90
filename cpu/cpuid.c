/*
 * CPUID as the guest's processor answers it (SDM vol. 2A, CPUID; AMD APM vol. 3, appendix E): leaves made from the
 * model, the topology of one socket, and what depends on the vCPU's state.
 */
#include "cpu/model_internal.h"
#include "cpu/ops.h"

bool cpu_model_has(const struct cpu_model *model, enum cpu_feature feature) {
    return feature == FEATURE_NONE || (model->features[feature / 64] >> (feature % 64) & 1);
}

bool cpu_has(const struct cpu *cpu, enum cpu_feature feature) {
    return cpu_model_has(cpu->model, feature);
}

bool cpu_model_is_amd(const struct cpu_model *model) {
    return model->is_amd;
}

bool cpu_is_amd(const struct cpu *cpu) {
    return cpu_model_is_amd(cpu->model);
}

unsigned cpu_model_physical_bits(const struct cpu_model *model) {
    return model->physical_bits;
}

uint64_t cpu_model_xcr0(const struct cpu_model *model) {
    return model->xcr0;
}

uint64_t cpu_model_cr4(const struct cpu_model *model) {
    return model->cr4;
}

uint64_t cpu_model_efer(const struct cpu_model *model) {
    return model->efer;
}

uint64_t cpu_model_tsc_hz(const struct cpu_model *model) {
    return model->tsc_hz;
}

enum { EAX, EBX, ECX, EDX };

struct query {
    const struct cpu *cpu;
    const struct cpu_model *model;
    uint32_t leaf, subleaf;
    uint32_t *out;
};

static uint32_t text_word(const char *text) {
    uint32_t word;
    cpu_copy(&word, text, 4);
    return word;
}

/* Bits that number `count` things. */
static unsigned bits_for(unsigned count) {
    unsigned bits = 0;
    while (1u << bits < count)
        bits++;
    return bits;
}

static void put_vendor(const struct query *query, uint32_t max) {
    query->out[EAX] = max;
    query->out[EBX] = text_word(query->model->vendor);
    query->out[EDX] = text_word(query->model->vendor + 4);
    query->out[ECX] = text_word(query->model->vendor + 8);
}

static void leaf_vendor(const struct query *query) {
    put_vendor(query, query->model->max_leaf);
}

static uint32_t signature(const struct cpu_model *model) {
    unsigned family = model->family < 15 ? model->family : 15;
    unsigned extended_family = model->family < 15 ? 0 : model->family - 15;
    return model->stepping | (model->model & 15) << 4 | family << 8 | model->model >> 4 << 16 | extended_family << 20;
}

static void leaf_features(const struct query *query) {
    const struct cpu_model *model = query->model;
    query->out[EAX] = signature(model);
    query->out[EBX] = query->cpu->index << 24;
    if (cpu_model_has(model, FEATURE_CLFLUSH))
        query->out[EBX] |= 8u << 8;
    if (cpu_model_has(model, FEATURE_HTT))
        query->out[EBX] |= (1u << bits_for(model->vcpu_count) & 0xff) << 16;
    query->out[ECX] = model->words[WORD_1_ECX];
    if (query->cpu->cr4 & CR4_OSXSAVE)
        query->out[ECX] |= 1u << 27;
    query->out[EDX] = model->words[WORD_1_EDX];
    if (query->cpu->apic_disabled)
        query->out[EDX] &= ~(1u << 9);
}

/* Descriptors of caches as old software reads them; leaf 4 says it better. */
static void leaf_cache_descriptors(const struct query *query) {
    if (query->model->is_amd)
        return;
    query->out[EAX] = query->model->max_leaf >= 4 ? 0x00feff01 : 1;
    if (query->model->max_leaf >= 4)
        query->out[EBX] = 0xf0;
    else
        query->out[EDX] = 0x2c307d;
}

static uint32_t cache_type(const struct query *query, const struct cpu_cache *cache) {
    uint32_t sharing = cache->is_shared ? (1u << bits_for(query->model->vcpu_count)) - 1 : 0;
    return cache->type | (uint32_t)cache->level << 5 | 1u << 8 | (sharing & 0xfff) << 14;
}

static void put_cache(const struct query *query) {
    if (query->subleaf >= CPU_CACHES || !query->model->caches[query->subleaf].type)
        return;
    const struct cpu_cache *cache = &query->model->caches[query->subleaf];
    query->out[EAX] = cache_type(query, cache);
    query->out[EBX] = (cache->line - 1u) | (cache->ways - 1u) << 22;
    query->out[ECX] = cache->sets - 1;
    query->out[EDX] = cache->flags;
}

static void leaf_caches(const struct query *query) {
    if (query->model->is_amd)
        return;
    put_cache(query);
    uint32_t cores = (1u << bits_for(query->model->vcpu_count)) - 1;
    if (query->out[EAX])
        query->out[EAX] |= (cores & 0x3f) << 26;
}

static void leaf_monitor(const struct query *query) {
    if (!cpu_model_has(query->model, FEATURE_MONITOR))
        return;
    query->out[EAX] = 64;
    query->out[EBX] = 64;
    query->out[ECX] = 3;
}

static void leaf_power(const struct query *query) {
    query->out[EAX] = query->model->words[WORD_6_EAX];
}

static void leaf_more_features(const struct query *query) {
    const uint32_t *words = query->model->words;
    if (query->subleaf == 0) {
        query->out[EAX] = words[WORD_7_2_EDX] ? 2 : words[WORD_7_1_EAX] ? 1 : 0;
        query->out[EBX] = words[WORD_7_EBX];
        query->out[ECX] = words[WORD_7_ECX];
        query->out[EDX] = words[WORD_7_EDX];
    } else if (query->subleaf == 1) {
        query->out[EAX] = words[WORD_7_1_EAX];
    } else if (query->subleaf == 2) {
        query->out[EDX] = words[WORD_7_2_EDX];
    }
}

/* Leaves 0Bh and 1Fh: one thread a core, all cores in one package. */
static void leaf_topology(const struct query *query) {
    query->out[ECX] = query->subleaf & 0xff;
    query->out[EDX] = query->cpu->index;
    if (query->subleaf == 0) {
        query->out[EBX] = 1;
        query->out[ECX] |= 1 << 8;
    } else if (query->subleaf == 1) {
        query->out[EAX] = bits_for(query->model->vcpu_count);
        query->out[EBX] = query->model->vcpu_count;
        query->out[ECX] |= 2 << 8;
    }
}

static uint32_t standard_size(const struct cpu_model *model, uint64_t components) {
    uint32_t size = 576;
    for (unsigned i = 2; i < XSTATE_COMPONENTS; i++)
        if ((components >> i & 1) && model->component[i].offset + model->component[i].size > size)
            size = model->component[i].offset + model->component[i].size;
    return size;
}

static uint32_t compacted_size(const struct cpu_model *model, uint64_t components) {
    uint32_t size = 576;
    for (unsigned i = 2; i < XSTATE_COMPONENTS; i++) {
        if (!(components >> i & 1))
            continue;
        if (model->component[i].is_aligned)
            size = (size + 63) & ~63u;
        size += model->component[i].size;
    }
    return size;
}

static void leaf_xstate(const struct query *query) {
    const struct cpu_model *model = query->model;
    unsigned i = query->subleaf;
    if (!cpu_model_has(model, FEATURE_XSAVE))
        return;
    if (i == 0) {
        query->out[EAX] = (uint32_t)model->xcr0;
        query->out[EBX] = standard_size(model, query->cpu->xcr0);
        query->out[ECX] = standard_size(model, model->xcr0);
    } else if (i == 1) {
        query->out[EAX] = model->words[WORD_D_1_EAX];
        if (cpu_model_has(model, FEATURE_XSAVEC))
            query->out[EBX] = compacted_size(model, query->cpu->xcr0);
    } else if (i < XSTATE_COMPONENTS && (model->xcr0 >> i & 1)) {
        query->out[EAX] = model->component[i].size;
        query->out[EBX] = model->component[i].offset;
        query->out[ECX] = model->component[i].is_aligned ? 2 : 0;
    }
}

static void leaf_tsc(const struct query *query) {
    if (!cpu_model_has(query->model, FEATURE_TSC))
        return;
    query->out[EAX] = query->model->ratio_denominator;
    query->out[EBX] = query->model->ratio_numerator;
    query->out[ECX] = CPU_MODEL_BUS_HZ;
}

static void leaf_frequency(const struct query *query) {
    uint32_t mhz = (uint32_t)((query->model->tsc_hz + 500000) / 1000000);
    query->out[EAX] = mhz;
    query->out[EBX] = mhz;
    query->out[ECX] = CPU_MODEL_BUS_HZ / 1000000;
}

static void leaf_hypervisor(const struct query *query) {
    query->out[EAX] = 0x40000010;
    query->out[EBX] = text_word("Trap");
    query->out[ECX] = text_word("ezeT");
    query->out[EDX] = text_word("rap\0");
}

/* The timing leaf that hypervisors agree on: kHz of the time-stamp counter and of the APIC's clock. */
static void leaf_timing(const struct query *query) {
    query->out[EAX] = (uint32_t)(query->model->tsc_hz / 1000);
    query->out[EBX] = CPU_MODEL_BUS_HZ / 1000;
}

static void leaf_extended(const struct query *query) {
    if (query->model->is_amd)
        put_vendor(query, query->model->max_extended);
    else
        query->out[EAX] = query->model->max_extended;
}

static void leaf_extended_features(const struct query *query) {
    const struct cpu_model *model = query->model;
    if (model->is_amd)
        query->out[EAX] = signature(model);
    query->out[ECX] = model->words[WORD_80000001_ECX];
    if (model->is_amd && model->vcpu_count > 1)
        query->out[ECX] |= 1 << 1; /* CmpLegacy: the "threads" of leaf 1 are cores */
    query->out[EDX] = model->words[WORD_80000001_EDX];
    /* Intel's has SYSCALL only for 64-bit code. */
    if (!model->is_amd && !cpu_is_64bit(query->cpu))
        query->out[EDX] &= ~(1u << 11);
}

static void leaf_brand(const struct query *query) {
    cpu_copy(query->out, query->model->brand + 16 * (query->leaf - 0x80000002), 16);
}

static uint32_t cache_kb(const struct cpu_cache *cache) {
    return cache->sets * cache->ways * cache->line / 1024;
}

/* AMD: the first-level caches and TLBs. */
static void leaf_amd_l1(const struct query *query) {
    if (!query->model->is_amd)
        return;
    query->out[EAX] = query->out[EBX] = 0xff40ff40;
    for (unsigned i = 0; i < 2; i++) {
        const struct cpu_cache *cache = &query->model->caches[i];
        query->out[cache->type == 1 ? ECX : EDX] =
            cache_kb(cache) << 24 | (uint32_t)(cache->ways & 0xff) << 16 | 1 << 8 | (cache->line & 0xffu);
    }
}

/* How AMD's descriptors encode the number of ways. */
static uint32_t ways_code(unsigned ways) {
    static const uint8_t codes[][2] = {{1, 1}, {2, 2}, {4, 4}, {8, 6}, {16, 8}, {32, 10}, {48, 11}, {64, 12}};
    for (unsigned i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (ways <= codes[i][0])
            return codes[i][1];
    return 13;
}

static void leaf_l2(const struct query *query) {
    const struct cpu_cache *l2 = &query->model->caches[2], *l3 = &query->model->caches[3];
    if (l2->level == 2)
        query->out[ECX] = (cache_kb(l2) & 0xffff) << 16 | ways_code(l2->ways) << 12 | 1 << 8 | (l2->line & 0xffu);
    if (query->model->is_amd && l3->level == 3)
        query->out[EDX] = (cache_kb(l3) / 512 & 0x3fff) << 18 | ways_code(l3->ways) << 12 | 1 << 8 | (l3->line & 0xffu);
}

static void leaf_invariant(const struct query *query) {
    query->out[EDX] = query->model->words[WORD_80000007_EDX];
}

static void leaf_sizes(const struct query *query) {
    const struct cpu_model *model = query->model;
    query->out[EAX] = model->physical_bits | (cpu_model_has(model, FEATURE_LM) ? 48u : 32u) << 8;
    query->out[EBX] = model->words[WORD_80000008_EBX];
    if (!model->is_amd)
        return;
    if (cpu_model_has(model, FEATURE_ARCH_CAPABILITIES))
        query->out[EBX] |= 1u << 26 | 1u << 29; /* SSB_NO, BTC_NO */
    query->out[ECX] = bits_for(model->vcpu_count) << 12 | ((model->vcpu_count - 1) & 0xff);
}

static void leaf_amd_caches(const struct query *query) {
    if (query->model->is_amd && cpu_model_has(query->model, FEATURE_TOPOEXT))
        put_cache(query);
}

static void leaf_amd_topology(const struct query *query) {
    if (!query->model->is_amd || !cpu_model_has(query->model, FEATURE_TOPOEXT))
        return;
    query->out[EAX] = query->cpu->index;
    query->out[EBX] = query->cpu->index & 0xff;
}

/* AMD: LFENCE is serialising (2), null selectors clear bases (6), SRSO_NO (29), IBPB_BRTYPE is not needed. */
static void leaf_amd_more(const struct query *query) {
    if (!query->model->is_amd)
        return;
    query->out[EAX] = 1u << 2 | 1u << 6 | 1u << 29;
    query->out[ECX] = 1u << 1 | 1u << 2; /* TSA_SQ_NO, TSA_L1_NO */
}

static const struct {
    uint32_t first, last;
    void (*answer)(const struct query *query);
} leaves[] = {
    {0, 0, leaf_vendor},
    {1, 1, leaf_features},
    {2, 2, leaf_cache_descriptors},
    {4, 4, leaf_caches},
    {5, 5, leaf_monitor},
    {6, 6, leaf_power},
    {7, 7, leaf_more_features},
    {0xb, 0xb, leaf_topology},
    {0xd, 0xd, leaf_xstate},
    {0x15, 0x15, leaf_tsc},
    {0x16, 0x16, leaf_frequency},
    {0x1f, 0x1f, leaf_topology},
    {0x40000000, 0x40000000, leaf_hypervisor},
    {0x40000010, 0x40000010, leaf_timing},
    {0x80000000, 0x80000000, leaf_extended},
    {0x80000001, 0x80000001, leaf_extended_features},
    {0x80000002, 0x80000004, leaf_brand},
    {0x80000005, 0x80000005, leaf_amd_l1},
    {0x80000006, 0x80000006, leaf_l2},
    {0x80000007, 0x80000007, leaf_invariant},
    {0x80000008, 0x80000008, leaf_sizes},
    {0x8000001d, 0x8000001d, leaf_amd_caches},
    {0x8000001e, 0x8000001e, leaf_amd_topology},
    {0x80000021, 0x80000021, leaf_amd_more},
};

/* A leaf past the last one: Intel answers as the highest basic leaf, AMD with zeros. */
static uint32_t existing_leaf(const struct cpu_model *model, uint32_t leaf) {
    if (leaf >> 16 == 0x4000 && cpu_model_has(model, FEATURE_HYPERVISOR))
        return leaf;
    if (leaf & 0x80000000u ? leaf <= model->max_extended : leaf <= model->max_leaf)
        return leaf;
    return model->is_amd ? 3 : model->max_leaf; /* leaf 3 is all zero */
}

void cpu_cpuid(const struct cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4]) {
    out[EAX] = out[EBX] = out[ECX] = out[EDX] = 0;
    leaf = existing_leaf(cpu->model, leaf);
    struct query query = {.cpu = cpu, .model = cpu->model, .leaf = leaf, .subleaf = subleaf, .out = out};
    for (unsigned i = 0; i < sizeof leaves / sizeof leaves[0]; i++)
        if (leaf >= leaves[i].first && leaf <= leaves[i].last) {
            leaves[i].answer(&query);
            return;
        }
}

/* ---- CPUID, by the answers of before ---- */

static const struct cpu_cpuid *find_answer(struct cpu *cpu, uint32_t leaf, uint32_t subleaf) {
    struct cpu_cpuid_cache *cache = &cpu->cpuid;
    /* All that answers depend on, beside what stays the same. */
    const uint64_t state = (cpu->cr4 & CR4_OSXSAVE) | cpu->xcr0 << 32 | cpu->apic_disabled | cpu_is_64bit(cpu) << 1 | 1u << 2;
    struct cpu_cpuid *entry = &cache->entry[(leaf ^ leaf >> 28 ^ subleaf * 5) % CPU_CPUID_CACHE];
    uint64_t *entry_state = &cache->state[entry - cache->entry];
    uint32_t out[4];

    if (*entry_state == state && entry->leaf == leaf && entry->subleaf == subleaf)
        return entry;
    cpu_cpuid(cpu, leaf, subleaf, out);
    *entry = (struct cpu_cpuid){leaf, subleaf, out[EAX], out[EBX], out[ECX], out[EDX]};
    *entry_state = state;
    return entry;
}

enum cpu_result cpu_op_cpuid(struct cpu *cpu, const struct cpu_op *op) {
    const struct cpu_cpuid *answer =
        find_answer(cpu, (uint32_t)cpu->hot.gpr[CPU_RAX], (uint32_t)cpu->hot.gpr[CPU_RCX]);

    (void)op;
    cpu->hot.gpr[CPU_RAX] = answer->eax;
    cpu->hot.gpr[CPU_RBX] = answer->ebx;
    cpu->hot.gpr[CPU_RCX] = answer->ecx;
    cpu->hot.gpr[CPU_RDX] = answer->edx;
    return CPU_NEXT;
}
