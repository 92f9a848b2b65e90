/*
 * The processor that the guest sees: CPUID leaves, features, and which MSRs and control bits follow from them.
 *
 * A model comes from a "-cpu" string: a named processor or the host, then changes to single features. What the engine
 * cannot run faithfully is never offered.
 */
#ifndef CPU_MODEL_H
#define CPU_MODEL_H

#include "cpu/cpu.h"

/* One feature bit: leaf, subleaf, register (0 eax .. 3 edx) and bit number packed; see model.c for the table. */
enum cpu_feature {
    FEATURE_NONE, /* every processor */
    FEATURE_FPU, FEATURE_VME, FEATURE_DE, FEATURE_PSE, FEATURE_TSC, FEATURE_MSR, FEATURE_PAE, FEATURE_MCE, FEATURE_CX8,
    FEATURE_APIC, FEATURE_SEP, FEATURE_MTRR, FEATURE_PGE, FEATURE_MCA, FEATURE_CMOV, FEATURE_PAT, FEATURE_PSE36,
    FEATURE_CLFLUSH, FEATURE_MMX, FEATURE_FXSR, FEATURE_SSE, FEATURE_SSE2, FEATURE_HTT,
    FEATURE_SSE3, FEATURE_PCLMULQDQ, FEATURE_MONITOR, FEATURE_SSSE3, FEATURE_FMA, FEATURE_CX16, FEATURE_PCID,
    FEATURE_SSE41, FEATURE_SSE42, FEATURE_X2APIC, FEATURE_MOVBE, FEATURE_POPCNT, FEATURE_TSC_DEADLINE, FEATURE_AES,
    FEATURE_XSAVE, FEATURE_OSXSAVE, FEATURE_AVX, FEATURE_F16C, FEATURE_RDRAND, FEATURE_HYPERVISOR,
    FEATURE_FSGSBASE, FEATURE_TSC_ADJUST, FEATURE_BMI1, FEATURE_AVX2, FEATURE_SMEP, FEATURE_BMI2, FEATURE_ERMS,
    FEATURE_INVPCID, FEATURE_AVX512F, FEATURE_AVX512DQ, FEATURE_RDSEED, FEATURE_ADX, FEATURE_SMAP, FEATURE_AVX512IFMA,
    FEATURE_CLFLUSHOPT, FEATURE_CLWB, FEATURE_AVX512CD, FEATURE_SHA, FEATURE_AVX512BW, FEATURE_AVX512VL,
    FEATURE_AVX512VBMI, FEATURE_UMIP, FEATURE_AVX512VBMI2, FEATURE_GFNI, FEATURE_VAES, FEATURE_VPCLMULQDQ,
    FEATURE_AVX512VNNI, FEATURE_AVX512BITALG, FEATURE_AVX512VPOPCNTDQ, FEATURE_RDPID, FEATURE_CLDEMOTE,
    FEATURE_MOVDIRI, FEATURE_MOVDIR64B, FEATURE_FSRM, FEATURE_SERIALIZE, FEATURE_SPEC_CTRL, FEATURE_ARCH_CAPABILITIES,
    FEATURE_AVX_VNNI, FEATURE_AVX512BF16, FEATURE_AVX512FP16, FEATURE_AVX512VP2INTERSECT, FEATURE_AVX_IFMA,
    FEATURE_FZRM, FEATURE_FSRS, FEATURE_FSRCS, FEATURE_BHI_CTRL,
    FEATURE_XSAVEOPT, FEATURE_XSAVEC, FEATURE_XGETBV1, FEATURE_XSAVES,
    FEATURE_LAHF64, FEATURE_LZCNT, FEATURE_SSE4A, FEATURE_PREFETCHW, FEATURE_SYSCALL, FEATURE_NX, FEATURE_MMXEXT,
    FEATURE_FXSR_OPT, FEATURE_PDPE1GB, FEATURE_RDTSCP, FEATURE_LM, FEATURE_3DNOW, FEATURE_3DNOWEXT, FEATURE_CLZERO,
    FEATURE_WBNOINVD, FEATURE_CR8_LEGACY, FEATURE_TOPOEXT, FEATURE_ARAT, FEATURE_INVARIANT_TSC,
    FEATURE_COUNT
};

struct cpu_model;

/* Clock of the local APIC's timer, as CPUID tells it (devices/lapic.h). */
#define CPU_MODEL_BUS_HZ 1000000000u

/*
 * Parses a "-cpu" string. NULL with a one-line text in error[error_size] for an unknown model or feature. Warnings
 * about features that the host or the engine lacks go to warn (may be NULL), one line each. Not for use from translated
 * code: this and the two functions below may use libc (they are in a file of their own, without the restrictions).
 */
struct cpu_model *cpu_model_create(const char *text, unsigned vcpu_count, char *error, size_t error_size,
                                   void (*warn)(void *opaque, const char *line), void *opaque);
void cpu_model_destroy(struct cpu_model *model);
/* The k-th model name for "-cpu help", NULL past the end; likewise the features. */
const char *cpu_model_name(unsigned k);
const char *cpu_model_feature_name(unsigned k);

bool cpu_has(const struct cpu *cpu, enum cpu_feature feature);
bool cpu_is_amd(const struct cpu *cpu); /* AMD or Hygon: where their manual and Intel's differ */
bool cpu_model_has(const struct cpu_model *model, enum cpu_feature feature);
/* RDMSR and WRMSR of any thread that may touch the vCPU, without CPL: false is #GP(0). May call out to the APIC. */
bool cpu_read_msr(struct cpu *cpu, uint32_t index, uint64_t *value);
bool cpu_write_msr(struct cpu *cpu, uint32_t index, uint64_t value);
/* Where the register is, if reading it is no more than that: an offset in struct cpu of 64 bits, the same for as long as the
   vCPU exists. 0: nowhere. */
size_t cpu_msr_place(const struct cpu *cpu, uint32_t index);
/* The guest's time-stamp counter now. */
uint64_t cpu_read_tsc(const struct cpu *cpu);
/* What CPUID answers on this vCPU now (APIC id, OSXSAVE, XCR0 sizes included). */
void cpu_cpuid(const struct cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
bool cpu_model_is_amd(const struct cpu_model *model); /* AMD or Hygon: instructions behave as AMD has them */
unsigned cpu_model_physical_bits(const struct cpu_model *model);
uint64_t cpu_model_xcr0(const struct cpu_model *model); /* components that XSETBV may enable */
uint64_t cpu_model_cr4(const struct cpu_model *model);  /* bits that CR4 may have set */
uint64_t cpu_model_efer(const struct cpu_model *model); /* bits that EFER may have set */
uint64_t cpu_model_tsc_hz(const struct cpu_model *model); /* measured or told by the host's CPUID */

#endif
