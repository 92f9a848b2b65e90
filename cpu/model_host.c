/*
 * What the host's own processor is: its CPUID, the layout of its XSAVE image, the rate of its time-stamp counter.
 */
#include "cpu/model_internal.h"

#include <cpuid.h>
#include <string.h>
#include <time.h>
#include <x86intrin.h>

struct host_cpuid host_cpuid(uint32_t leaf, uint32_t subleaf) {
    struct host_cpuid out = {0};
    uint32_t max = __get_cpuid_max(leaf & 0x80000000u, NULL);
    if (leaf <= max)
        __cpuid_count(leaf, subleaf, out.eax, out.ebx, out.ecx, out.edx);
    return out;
}

static uint32_t host_word(unsigned word) {
    switch ((enum cpuid_word)word) {
    case WORD_1_EDX: return host_cpuid(1, 0).edx;
    case WORD_1_ECX: return host_cpuid(1, 0).ecx;
    case WORD_6_EAX: return host_cpuid(6, 0).eax;
    case WORD_7_EBX: return host_cpuid(7, 0).ebx;
    case WORD_7_ECX: return host_cpuid(7, 0).ecx;
    case WORD_7_EDX: return host_cpuid(7, 0).edx;
    case WORD_7_1_EAX: return host_cpuid(7, 0).eax >= 1 ? host_cpuid(7, 1).eax : 0;
    case WORD_7_2_EDX: return host_cpuid(7, 0).eax >= 2 ? host_cpuid(7, 2).edx : 0;
    case WORD_D_1_EAX: return host_cpuid(0xd, 1).eax;
    case WORD_80000001_EDX: return host_cpuid(0x80000001, 0).edx;
    case WORD_80000001_ECX: return host_cpuid(0x80000001, 0).ecx;
    case WORD_80000007_EDX: return host_cpuid(0x80000007, 0).edx;
    case WORD_80000008_EBX: return host_cpuid(0x80000008, 0).ebx;
    case CPUID_WORDS: break;
    }
    return 0;
}

/* The host's kernel must save the state, too, that an instruction works on. */
static uint64_t host_xcr0(void) {
    if (!(host_cpuid(1, 0).ecx & bit_OSXSAVE))
        return 0;
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low | (uint64_t)high << 32;
}

bool host_has(enum cpu_feature feature) {
    const struct feature_row *row = &cpu_feature_table[feature];
    if (!(host_word(row->word) >> row->bit & 1))
        return false;
    uint64_t xcr0 = host_xcr0();
    if (feature == FEATURE_XSAVE)
        return xcr0 != 0;
    if (feature == FEATURE_AVX)
        return (xcr0 & 6) == 6;
    if (feature == FEATURE_AVX512F)
        return (xcr0 & 0xe6) == 0xe6;
    return true;
}

static void describe_signature(struct cpu_model *model) {
    uint32_t signature = host_cpuid(1, 0).eax;
    model->stepping = signature & 15;
    model->family = signature >> 8 & 15;
    model->model = signature >> 4 & 15;
    if (model->family == 15 || model->family == 6)
        model->model |= signature >> 12 & 0xf0;
    if (model->family == 15)
        model->family += signature >> 20 & 0xff;
}

/* Leaf 4, or AMD's of the same form. */
static void describe_caches(struct cpu_model *model) {
    uint32_t leaf = model->is_amd ? 0x8000001d : 4;
    unsigned count = 0;
    for (unsigned i = 0; i < 8 && count < CPU_CACHES; i++) {
        struct host_cpuid id = host_cpuid(leaf, i);
        if (!(id.eax & 31))
            break;
        model->caches[count++] = (struct cpu_cache){
            .type = id.eax & 31,
            .level = id.eax >> 5 & 7,
            .is_shared = (id.eax >> 5 & 7) >= 3,
            .line = (uint16_t)((id.ebx & 0xfff) + 1),
            .ways = (uint16_t)((id.ebx >> 22) + 1),
            .sets = id.ecx + 1,
            .flags = id.edx & 7,
        };
    }
}

void host_describe(struct cpu_model *model) {
    struct host_cpuid id = host_cpuid(0, 0);
    memcpy(model->vendor, &id.ebx, 4);
    memcpy(model->vendor + 4, &id.edx, 4);
    memcpy(model->vendor + 8, &id.ecx, 4);
    model->is_amd = !strcmp(model->vendor, "AuthenticAMD") || !strcmp(model->vendor, "HygonGenuine");
    for (unsigned i = 0; i < 3; i++) {
        struct host_cpuid part = host_cpuid(0x80000002 + i, 0);
        memcpy(model->brand + 16 * i, &part, 16);
    }
    describe_signature(model);
    describe_caches(model);
}

void host_describe_xstate(struct cpu_model *model) {
    model->host_has_xsave = host_has(FEATURE_XSAVE);
    for (unsigned i = 2; i < XSTATE_COMPONENTS && model->host_has_xsave; i++) {
        struct host_cpuid id = host_cpuid(0xd, i);
        model->component[i].size = id.eax;
        model->component[i].offset = id.ebx;
        model->component[i].is_aligned = id.ecx & 2;
    }
    _Alignas(16) uint8_t image[512];
    __asm__ volatile("fxsave %0" : "=m"(image));
    memcpy(&model->mxcsr_mask, image + 28, 4);
    if (!model->mxcsr_mask)
        model->mxcsr_mask = 0xffbf;
}

/* ---- Time-stamp counter ---- */

static uint64_t told_tsc_hz(void) {
    struct host_cpuid ratio = host_cpuid(0x15, 0);
    if (ratio.eax && ratio.ebx && ratio.ecx)
        return (uint64_t)ratio.ecx * ratio.ebx / ratio.eax;
    if (host_cpuid(1, 0).ecx & 1u << 31) {
        uint32_t max, ebx, ecx, edx, khz;
        __cpuid(0x40000000, max, ebx, ecx, edx);
        if (max >= 0x40000010 && max < 0x40010000) {
            __cpuid(0x40000010, khz, ebx, ecx, edx);
            if (khz > 100000)
                return (uint64_t)khz * 1000;
        }
    }
    return 0;
}

struct instant {
    uint64_t tsc, ns;
};

/* Both clocks at one moment: the closest of a few tries. */
static struct instant sample(void) {
    struct instant best = {0};
    uint64_t closest = UINT64_MAX;
    for (unsigned i = 0; i < 32; i++) {
        struct timespec time;
        uint64_t before = __rdtsc();
        clock_gettime(CLOCK_MONOTONIC, &time);
        uint64_t after = __rdtsc();
        if (after - before < closest) {
            closest = after - before;
            best.tsc = before + (after - before) / 2;
            best.ns = (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
        }
    }
    return best;
}

uint64_t host_tsc_hz(void) {
    uint64_t told = told_tsc_hz();
    if (told)
        return told;
    struct instant start = sample();
    struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
    nanosleep(&pause, NULL);
    struct instant end = sample();
    uint64_t hz = (uint64_t)((unsigned __int128)(end.tsc - start.tsc) * 1000000000u / (end.ns - start.ns));
    return (hz + 500) / 1000 * 1000;
}
