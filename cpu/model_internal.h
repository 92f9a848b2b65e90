/*
 * What a processor model is made of. Built once by model.c; read by cpuid.c, msr.c, control.c and xstate.c, which must
 * stay free of libc.
 */
#ifndef CPU_MODEL_INTERNAL_H
#define CPU_MODEL_INTERNAL_H

#include "cpu/model.h"

/* The CPUID registers that hold feature bits. */
enum cpuid_word {
    WORD_1_EDX, WORD_1_ECX, WORD_6_EAX, WORD_7_EBX, WORD_7_ECX, WORD_7_EDX, WORD_7_1_EAX, WORD_7_2_EDX, WORD_D_1_EAX,
    WORD_80000001_EDX, WORD_80000001_ECX, WORD_80000007_EDX, WORD_80000008_EBX, CPUID_WORDS
};

/* Where a feature comes from. */
enum feature_origin {
    ORIGIN_NEVER,  /* the engine does not run it faithfully */
    ORIGIN_HOST,   /* the host executes it: offered where the host has it */
    ORIGIN_ENGINE, /* the engine makes it up, whatever the host has */
    ORIGIN_ON_REQUEST, /* likewise, but only when asked for by name */
    ORIGIN_AMD,    /* likewise, on AMD models */
    ORIGIN_STATE,  /* follows from control registers or the topology: never named by a user */
};

struct feature_row {
    const char *name, *alias; /* QEMU's spelling; '_', '-' and '.' are the same */
    uint8_t word, bit, origin;
    uint8_t needs[3];         /* features without which this one cannot be */
};

/* Indexed by enum cpu_feature. */
extern const struct feature_row cpu_feature_table[FEATURE_COUNT];
/* Names that QEMU knows and this engine does not run: asking for them is a warning, taking them away is nothing. */
extern const char *const cpu_features_never[];

#define MODEL_FEATURES 64
struct model_row {
    const char *name, *base; /* base: the model whose features this one has too */
    const char *vendor, *brand;
    uint16_t family, model, stepping;
    uint32_t max_leaf, max_extended;
    uint8_t features[MODEL_FEATURES]; /* added to the base's, ended by FEATURE_NONE */
    uint8_t without[4];               /* taken from the base's */
};
extern const struct model_row cpu_model_rows[];
extern const unsigned cpu_model_row_count;

#define CPU_CACHES 4
struct cpu_cache {
    uint8_t type, level; /* 1 data, 2 instruction, 3 unified */
    bool is_shared;      /* by all cores */
    uint16_t line, ways;
    uint32_t sets;
    uint8_t flags; /* CPUID.4:EDX */
};

#define XSTATE_COMPONENTS 8

struct cpu_model {
    uint64_t features[(FEATURE_COUNT + 63) / 64];
    uint32_t words[CPUID_WORDS]; /* the same as CPUID shows them */
    char vendor[13];
    char brand[49];
    unsigned family, model, stepping;
    unsigned vcpu_count;
    unsigned physical_bits;
    uint32_t max_leaf, max_extended;
    struct cpu_cache caches[CPU_CACHES];
    uint64_t xcr0, cr4, efer;
    uint64_t tsc_hz;
    uint64_t arch_capabilities;
    uint64_t microcode;
    uint32_t mxcsr_mask;
    bool is_amd;
    bool host_has_xsave; /* the host saves vector state by XSAVE, in the format below */
    struct {
        uint32_t offset, size;
        bool is_aligned; /* in the compacted format */
    } component[XSTATE_COMPONENTS];
    uint32_t ratio_numerator, ratio_denominator; /* tsc_hz over CPU_MODEL_BUS_HZ, nearly */
};

#define MODEL_IBRS_ALL (1ull << 1)
/* RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO, IF_PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO,
   BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO, ITS_NO (SDM vol. 4, table 2-2) */
#define MODEL_ARCH_CAPABILITIES                                                                                        \
    (1ull << 0 | MODEL_IBRS_ALL | 1ull << 3 | 1ull << 4 | 1ull << 5 | 1ull << 6 | 1ull << 8 | 1ull << 13 |             \
     1ull << 14 | 1ull << 15 | 1ull << 20 | 1ull << 24 | 1ull << 26 | 1ull << 27 | 1ull << 62)

/* ---- The host (model_host.c): may use libc. ---- */

struct host_cpuid {
    uint32_t eax, ebx, ecx, edx;
};
struct host_cpuid host_cpuid(uint32_t leaf, uint32_t subleaf);
bool host_has(enum cpu_feature feature);
/* Vendor, brand, signature, caches, address bits of the host; features are left alone. */
void host_describe(struct cpu_model *model);
/* XSAVE components and MXCSR mask, of the host for every model: its instructions make the images. */
void host_describe_xstate(struct cpu_model *model);
uint64_t host_tsc_hz(void);

#endif
