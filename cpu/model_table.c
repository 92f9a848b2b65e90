/*
 * The table of CPUID feature bits (SDM vol. 2A, CPUID; AMD APM vol. 3, appendix E) and the named processors.
 */
#include "cpu/model_internal.h"

#define EDX1 WORD_1_EDX
#define ECX1 WORD_1_ECX
#define EBX7 WORD_7_EBX
#define ECX7 WORD_7_ECX
#define EDX7 WORD_7_EDX
#define EAX71 WORD_7_1_EAX
#define XSTATE WORD_D_1_EAX
#define EDX81 WORD_80000001_EDX
#define ECX81 WORD_80000001_ECX
#define EBX88 WORD_80000008_EBX
#define HOST ORIGIN_HOST
#define ENGINE ORIGIN_ENGINE
#define AMD ORIGIN_AMD

/* ROW(name, QEMU's spelling, alias, word, bit, origin, what it needs ...) */
#define ROW(feature, text, other, word_, bit_, origin_, ...)                                                           \
    [FEATURE_##feature] = {.name = text, .alias = other, .word = word_, .bit = bit_, .origin = origin_,                \
                           .needs = {__VA_ARGS__}},
#define N(feature) FEATURE_##feature

const struct feature_row cpu_feature_table[FEATURE_COUNT] = {
    ROW(FPU, "fpu", NULL, EDX1, 0, ENGINE, 0)
    ROW(VME, "vme", NULL, EDX1, 1, ENGINE, 0)
    ROW(DE, "de", NULL, EDX1, 2, ENGINE, 0)
    ROW(PSE, "pse", NULL, EDX1, 3, ENGINE, 0)
    ROW(TSC, "tsc", NULL, EDX1, 4, ENGINE, 0)
    ROW(MSR, "msr", NULL, EDX1, 5, ENGINE, 0)
    ROW(PAE, "pae", NULL, EDX1, 6, ENGINE, 0)
    ROW(MCE, "mce", NULL, EDX1, 7, ENGINE, 0)
    ROW(CX8, "cx8", NULL, EDX1, 8, HOST, 0)
    ROW(APIC, "apic", NULL, EDX1, 9, ENGINE, N(MSR))
    ROW(SEP, "sep", NULL, EDX1, 11, ENGINE, N(MSR))
    ROW(MTRR, "mtrr", NULL, EDX1, 12, ENGINE, N(MSR))
    ROW(PGE, "pge", NULL, EDX1, 13, ENGINE, 0)
    ROW(MCA, "mca", NULL, EDX1, 14, ENGINE, N(MSR))
    ROW(CMOV, "cmov", NULL, EDX1, 15, HOST, 0)
    ROW(PAT, "pat", NULL, EDX1, 16, ENGINE, N(MSR))
    ROW(PSE36, "pse36", NULL, EDX1, 17, ENGINE, N(PSE))
    ROW(CLFLUSH, "clflush", "clfsh", EDX1, 19, HOST, 0)
    ROW(MMX, "mmx", NULL, EDX1, 23, HOST, N(FPU))
    ROW(FXSR, "fxsr", NULL, EDX1, 24, HOST, N(FPU))
    ROW(SSE, "sse", NULL, EDX1, 25, HOST, N(FXSR))
    ROW(SSE2, "sse2", NULL, EDX1, 26, HOST, N(SSE))
    ROW(HTT, "ht", NULL, EDX1, 28, ORIGIN_STATE, 0)
    ROW(SSE3, "sse3", "pni", ECX1, 0, HOST, N(SSE2))
    ROW(PCLMULQDQ, "pclmulqdq", "pclmuldq", ECX1, 1, HOST, N(SSE2))
    ROW(MONITOR, "monitor", NULL, ECX1, 3, ORIGIN_ON_REQUEST, 0)
    ROW(SSSE3, "ssse3", NULL, ECX1, 9, HOST, N(SSE3))
    ROW(FMA, "fma", NULL, ECX1, 12, HOST, N(AVX))
    ROW(CX16, "cx16", NULL, ECX1, 13, HOST, N(LM))
    ROW(PCID, "pcid", NULL, ECX1, 17, ENGINE, N(LM))
    ROW(SSE41, "sse4.1", "sse41", ECX1, 19, HOST, N(SSSE3))
    ROW(SSE42, "sse4.2", "sse42", ECX1, 20, HOST, N(SSE41))
    ROW(X2APIC, "x2apic", NULL, ECX1, 21, ENGINE, N(APIC))
    ROW(MOVBE, "movbe", NULL, ECX1, 22, HOST, 0)
    ROW(POPCNT, "popcnt", NULL, ECX1, 23, HOST, 0)
    ROW(TSC_DEADLINE, "tsc-deadline", NULL, ECX1, 24, ENGINE, N(APIC), N(TSC))
    ROW(AES, "aes", NULL, ECX1, 25, HOST, N(SSE2))
    ROW(XSAVE, "xsave", NULL, ECX1, 26, HOST, N(FXSR))
    ROW(OSXSAVE, NULL, NULL, ECX1, 27, ORIGIN_STATE, N(XSAVE))
    ROW(AVX, "avx", NULL, ECX1, 28, HOST, N(XSAVE), N(SSE42))
    ROW(F16C, "f16c", NULL, ECX1, 29, HOST, N(AVX))
    ROW(RDRAND, "rdrand", NULL, ECX1, 30, HOST, 0)
    ROW(HYPERVISOR, "hypervisor", NULL, ECX1, 31, ENGINE, 0)
    ROW(ARAT, "arat", NULL, WORD_6_EAX, 2, ENGINE, N(APIC))
    ROW(FSGSBASE, "fsgsbase", NULL, EBX7, 0, ENGINE, N(LM))
    ROW(TSC_ADJUST, "tsc-adjust", NULL, EBX7, 1, ENGINE, N(TSC), N(MSR))
    ROW(BMI1, "bmi1", NULL, EBX7, 3, HOST, 0)
    ROW(AVX2, "avx2", NULL, EBX7, 5, HOST, N(AVX))
    ROW(SMEP, "smep", NULL, EBX7, 7, ENGINE, 0)
    ROW(BMI2, "bmi2", NULL, EBX7, 8, HOST, 0)
    ROW(ERMS, "erms", NULL, EBX7, 9, ENGINE, 0)
    ROW(INVPCID, "invpcid", NULL, EBX7, 10, ENGINE, 0)
    ROW(AVX512F, "avx512f", NULL, EBX7, 16, HOST, N(AVX2), N(FMA), N(F16C))
    ROW(AVX512DQ, "avx512dq", NULL, EBX7, 17, HOST, N(AVX512F))
    ROW(RDSEED, "rdseed", NULL, EBX7, 18, HOST, 0)
    ROW(ADX, "adx", NULL, EBX7, 19, HOST, 0)
    ROW(SMAP, "smap", NULL, EBX7, 20, ENGINE, 0)
    ROW(AVX512IFMA, "avx512ifma", NULL, EBX7, 21, HOST, N(AVX512F))
    ROW(CLFLUSHOPT, "clflushopt", NULL, EBX7, 23, HOST, 0)
    ROW(CLWB, "clwb", NULL, EBX7, 24, HOST, 0)
    ROW(AVX512CD, "avx512cd", NULL, EBX7, 28, HOST, N(AVX512F))
    ROW(SHA, "sha-ni", "sha", EBX7, 29, HOST, N(SSE2))
    ROW(AVX512BW, "avx512bw", NULL, EBX7, 30, HOST, N(AVX512F))
    ROW(AVX512VL, "avx512vl", NULL, EBX7, 31, HOST, N(AVX512F))
    ROW(AVX512VBMI, "avx512vbmi", NULL, ECX7, 1, HOST, N(AVX512BW))
    ROW(UMIP, "umip", NULL, ECX7, 2, ENGINE, 0)
    ROW(AVX512VBMI2, "avx512vbmi2", NULL, ECX7, 6, HOST, N(AVX512BW))
    ROW(GFNI, "gfni", NULL, ECX7, 8, HOST, N(SSE2))
    ROW(VAES, "vaes", NULL, ECX7, 9, HOST, N(AVX), N(AES))
    ROW(VPCLMULQDQ, "vpclmulqdq", NULL, ECX7, 10, HOST, N(AVX), N(PCLMULQDQ))
    ROW(AVX512VNNI, "avx512vnni", NULL, ECX7, 11, HOST, N(AVX512F))
    ROW(AVX512BITALG, "avx512bitalg", NULL, ECX7, 12, HOST, N(AVX512BW))
    ROW(AVX512VPOPCNTDQ, "avx512-vpopcntdq", "avx512vpopcntdq", ECX7, 14, HOST, N(AVX512F))
    ROW(RDPID, "rdpid", NULL, ECX7, 22, ENGINE, 0)
    ROW(CLDEMOTE, "cldemote", NULL, ECX7, 25, HOST, 0)
    ROW(MOVDIRI, "movdiri", NULL, ECX7, 27, HOST, 0)
    ROW(MOVDIR64B, "movdir64b", NULL, ECX7, 28, ENGINE, 0)
    ROW(FSRM, "fsrm", NULL, EDX7, 4, ENGINE, N(ERMS))
    ROW(AVX512VP2INTERSECT, "avx512-vp2intersect", "avx512vp2intersect", EDX7, 8, HOST, N(AVX512F))
    ROW(SERIALIZE, "serialize", NULL, EDX7, 14, HOST, 0)
    ROW(AVX512FP16, "avx512-fp16", "avx512fp16", EDX7, 23, HOST, N(AVX512BW))
    ROW(SPEC_CTRL, "spec-ctrl", NULL, EDX7, 26, ENGINE, N(MSR))
    ROW(ARCH_CAPABILITIES, "arch-capabilities", NULL, EDX7, 29, ENGINE, N(MSR))
    ROW(AVX_VNNI, "avx-vnni", NULL, EAX71, 4, HOST, N(AVX2))
    ROW(AVX512BF16, "avx512-bf16", "avx512bf16", EAX71, 5, HOST, N(AVX512BW))
    ROW(FZRM, "fzrm", NULL, EAX71, 10, HOST, N(ERMS))
    ROW(FSRS, "fsrs", NULL, EAX71, 11, HOST, N(ERMS))
    ROW(FSRCS, "fsrc", "fsrcs", EAX71, 12, HOST, N(ERMS))
    ROW(BHI_CTRL, "bhi-ctrl", NULL, WORD_7_2_EDX, 4, ENGINE, N(SPEC_CTRL))
    ROW(AVX_IFMA, "avx-ifma", NULL, EAX71, 23, ORIGIN_NEVER, N(AVX2)) /* the decoder does not know it */
    ROW(XSAVEOPT, "xsaveopt", NULL, XSTATE, 0, HOST, N(XSAVE))
    ROW(XSAVEC, "xsavec", NULL, XSTATE, 1, HOST, N(XSAVE))
    ROW(XGETBV1, "xgetbv1", NULL, XSTATE, 2, HOST, N(XSAVE))
    ROW(XSAVES, "xsaves", NULL, XSTATE, 3, HOST, N(XSAVEC))
    ROW(LAHF64, "lahf-lm", NULL, ECX81, 0, HOST, N(LM))
    ROW(CR8_LEGACY, "cr8legacy", NULL, ECX81, 4, AMD, N(APIC))
    ROW(LZCNT, "abm", "lzcnt", ECX81, 5, HOST, 0)
    ROW(SSE4A, "sse4a", NULL, ECX81, 6, HOST, N(SSE3))
    ROW(PREFETCHW, "3dnowprefetch", NULL, ECX81, 8, HOST, 0)
    ROW(TOPOEXT, "topoext", NULL, ECX81, 22, AMD, 0)
    ROW(SYSCALL, "syscall", NULL, EDX81, 11, ENGINE, N(MSR))
    ROW(NX, "nx", "xd", EDX81, 20, ENGINE, N(PAE), N(MSR))
    ROW(MMXEXT, "mmxext", NULL, EDX81, 22, HOST, N(MMX))
    ROW(FXSR_OPT, "fxsr-opt", "ffxsr", EDX81, 25, ORIGIN_NEVER, N(FXSR))
    ROW(PDPE1GB, "pdpe1gb", NULL, EDX81, 26, ENGINE, N(LM))
    ROW(RDTSCP, "rdtscp", NULL, EDX81, 27, ENGINE, N(TSC), N(MSR))
    ROW(LM, "lm", "i64", EDX81, 29, ENGINE, N(PAE), N(MSR), N(SSE2))
    ROW(3DNOWEXT, "3dnowext", NULL, EDX81, 30, ORIGIN_NEVER, N(MMX))
    ROW(3DNOW, "3dnow", NULL, EDX81, 31, ORIGIN_NEVER, N(MMX))
    ROW(INVARIANT_TSC, "invtsc", NULL, WORD_80000007_EDX, 8, ENGINE, N(TSC))
    ROW(CLZERO, "clzero", NULL, EBX88, 0, ORIGIN_NEVER, 0)
    ROW(WBNOINVD, "wbnoinvd", NULL, EBX88, 9, ENGINE, 0)
};

const char *const cpu_features_never[] = {
    "vmx", "svm", "hle", "rtm", "tsxldtrk", "pku", "ospke", "pks", "mpx", "la57", "shstk", "ibt", "amx-bf16",
    "amx-tile",
    "amx-int8", "amx-fp16", "amx-complex", "waitpkg", "enqcmd", "sgx", "sgxlc", "intel-pt", "uintr", "rdpru", "kl",
    "aeskle", "widekl", "keylocker", "acpi", "ss", "tm", "tm2", "pbe", "ia64", "pn", "ds", "dtes64", "ds-cpl", "est",
    "smx", "cid", "xtpr", "pdcm", "dca", "osxsave", "cmp-legacy", "extapic", "misalignsse", "osvw", "ibs", "xop",
    "skinit", "wdt", "lwp", "fma4", "tce", "nodeid-msr", "tbm", "perfctr-core", "perfctr-nb", "perfmon-v2", "pmm",
    "pmm-en", "phe", "phe-en", "ace2", "ace2-en", "xcrypt", "xcrypt-en", "xstore", "xstore-en", "md-clear", "stibp",
    "ssbd", "ibpb", "ibrs", "amd-ssbd", "virt-ssbd", "amd-stibp", "core-capability", "split-lock-detect",
    "bus-lock-detect",
    "avx512-4vnniw", "avx512-4fmaps", "avx512er", "avx512pf", "xfd", "arch-lbr", "fsgsbase-ng", "cmpccxadd", "lam",
    "wrmsrns", "fred", "lkgs", "avx-vnni-int8", "avx-ne-convert", "prefetchiti", "avx10", "kvm", "kvmclock",
    "kvm-pv-eoi",
    "kvm-steal-time", "kvm-asyncpf", "pmu", NULL};

#define V_INTEL "GenuineIntel"
#define V_AMD "AuthenticAMD"

const struct model_row cpu_model_rows[] = {
    {"486", NULL, V_INTEL, "", 4, 8, 0, 1, 0, {N(FPU), N(VME), N(PSE)}, {0}},
    {"pentium", "486", V_INTEL, "", 5, 4, 3, 1, 0, {N(DE), N(TSC), N(MSR), N(MCE), N(CX8), N(MMX)}, {0}},
    {"pentium2", "pentium", V_INTEL, "", 6, 5, 2, 2, 0,
     {N(PAE), N(APIC), N(SEP), N(MTRR), N(PGE), N(MCA), N(CMOV), N(PAT), N(PSE36), N(FXSR)}, {0}},
    {"pentium3", "pentium2", V_INTEL, "", 6, 7, 3, 3, 0, {N(SSE)}, {0}},
    {"athlon", "pentium3", V_AMD, "", 6, 2, 3, 1, 0x80000008, {N(SSE2), N(MMXEXT)}, {0}},
    {"coreduo", "pentium3", V_INTEL, "Genuine Intel(R) CPU           T2600  @ 2.16GHz", 6, 14, 8, 10, 0x80000008,
     {N(SSE2), N(SSE3), N(CLFLUSH), N(NX)}, {0}},
    {"n270", "coreduo", V_INTEL, "Intel(R) Atom(TM) CPU N270   @ 1.60GHz", 6, 28, 2, 10, 0x80000008,
     {N(SSSE3), N(MOVBE)}, {0}},
    {"qemu32", "pentium3", V_INTEL, "Trapeze Virtual CPU", 6, 6, 3, 4, 0x80000004, {N(SSE2), N(SSE3)}, {0}},
    {"kvm32", "qemu32", V_INTEL, "Common 32-bit Trapeze processor", 15, 6, 1, 5, 0x80000008, {N(CLFLUSH)}, {0}},
    {"qemu64", "qemu32", V_AMD, "Trapeze Virtual CPU", 15, 107, 1, 13, 0x8000000a,
     {N(CLFLUSH), N(CX16), N(LM), N(SYSCALL), N(NX), N(LAHF64), N(X2APIC)}, {0}},
    {"kvm64", "qemu32", V_INTEL, "Common Trapeze processor", 15, 6, 1, 13, 0x80000008,
     {N(CLFLUSH), N(CX16), N(LM), N(SYSCALL), N(NX)}, {0}},
    {"core2duo", "kvm64", V_INTEL, "Intel(R) Core(TM)2 Duo CPU     T7700  @ 2.40GHz", 6, 15, 11, 10, 0x80000008,
     {N(SSSE3), N(LAHF64)}, {0}},
    {"Conroe", "core2duo", V_INTEL, "Intel Celeron_4x0 (Conroe/Merom Class Core 2)", 6, 15, 3, 10, 0x80000008,
     {0}, {0}},
    {"Penryn", "Conroe", V_INTEL, "Intel Core 2 Duo P9xxx (Penryn Class Core 2)", 6, 23, 3, 10, 0x80000008,
     {N(SSE41)}, {0}},
    {"Nehalem", "Penryn", V_INTEL, "Intel Core i7 9xx (Nehalem Class Core i7)", 6, 26, 3, 11, 0x80000008,
     {N(SSE42), N(POPCNT)}, {0}},
    {"Westmere", "Nehalem", V_INTEL, "Westmere E56xx/L56xx/X56xx (Nehalem-C)", 6, 44, 1, 11, 0x80000008,
     {N(AES), N(PCLMULQDQ), N(ARAT)}, {0}},
    {"SandyBridge", "Westmere", V_INTEL, "Intel Xeon E312xx (Sandy Bridge)", 6, 42, 1, 13, 0x80000008,
     {N(X2APIC), N(TSC_DEADLINE), N(XSAVE), N(AVX), N(XSAVEOPT), N(RDTSCP)}, {0}},
    {"IvyBridge", "SandyBridge", V_INTEL, "Intel Xeon E3-12xx v2 (Ivy Bridge)", 6, 58, 9, 13, 0x80000008,
     {N(F16C), N(RDRAND), N(FSGSBASE), N(SMEP), N(ERMS)}, {0}},
    {"Haswell", "IvyBridge", V_INTEL, "Intel Core Processor (Haswell)", 6, 60, 4, 13, 0x80000008,
     {N(FMA), N(PCID), N(MOVBE), N(BMI1), N(AVX2), N(BMI2), N(INVPCID), N(LZCNT)}, {0}},
    {"Broadwell", "Haswell", V_INTEL, "Intel Core Processor (Broadwell)", 6, 61, 2, 13, 0x80000008,
     {N(RDSEED), N(ADX), N(SMAP), N(PREFETCHW)}, {0}},
    {"Skylake-Client", "Broadwell", V_INTEL, "Intel Core Processor (Skylake)", 6, 94, 3, 13, 0x80000008,
     {N(XSAVEC), N(XGETBV1)}, {0}},
    {"Skylake-Server", "Skylake-Client", V_INTEL, "Intel Xeon Processor (Skylake)", 6, 85, 4, 13, 0x80000008,
     {N(CLWB), N(AVX512F), N(AVX512DQ), N(AVX512BW), N(AVX512CD), N(AVX512VL), N(CLFLUSHOPT), N(PDPE1GB)}, {0}},
    {"Cascadelake-Server", "Skylake-Server", V_INTEL, "Intel Xeon Processor (Cascadelake)", 6, 85, 6, 13, 0x80000008,
     {N(AVX512VNNI), N(SPEC_CTRL), N(ARCH_CAPABILITIES)}, {0}},
    {"Icelake-Server", "Cascadelake-Server", V_INTEL, "Intel Xeon Processor (Icelake)", 6, 106, 0, 13, 0x80000008,
     {N(AVX512IFMA), N(SHA), N(AVX512VBMI), N(UMIP), N(AVX512VBMI2), N(GFNI), N(VAES), N(VPCLMULQDQ), N(AVX512BITALG),
      N(AVX512VPOPCNTDQ), N(RDPID), N(FSRM), N(WBNOINVD)}, {0}},
    {"Opteron_G1", "qemu32", V_AMD, "AMD Opteron 240 (Gen 1 Class Opteron)", 15, 6, 1, 5, 0x80000008,
     {N(CLFLUSH), N(LM), N(SYSCALL), N(NX)}, {0}},
    {"Opteron_G2", "Opteron_G1", V_AMD, "AMD Opteron 22xx (Gen 2 Class Opteron)", 15, 6, 1, 5, 0x80000008,
     {N(CX16), N(LAHF64)}, {0}},
    {"Opteron_G3", "Opteron_G2", V_AMD, "AMD Opteron 23xx (Gen 3 Class Opteron)", 16, 2, 3, 5, 0x80000008,
     {N(POPCNT), N(LZCNT), N(SSE4A)}, {0}},
    {"EPYC", "qemu64", V_AMD, "AMD EPYC Processor", 23, 1, 2, 13, 0x8000001e,
     {N(SSSE3), N(SSE41), N(SSE42), N(PCLMULQDQ), N(FMA), N(MOVBE), N(POPCNT), N(AES), N(XSAVE), N(AVX), N(F16C),
      N(RDRAND), N(FSGSBASE), N(BMI1), N(AVX2), N(SMEP), N(BMI2), N(RDSEED), N(ADX), N(SMAP), N(CLFLUSHOPT), N(SHA),
      N(XSAVEOPT), N(XSAVEC), N(XGETBV1), N(ARAT), N(CR8_LEGACY), N(LZCNT), N(SSE4A), N(PREFETCHW), N(TOPOEXT),
      N(MMXEXT), N(PDPE1GB), N(RDTSCP)}, {0}},
    {"EPYC-Rome", "EPYC", V_AMD, "AMD EPYC-Rome Processor", 23, 49, 0, 13, 0x8000001e,
     {N(CLWB), N(UMIP), N(RDPID), N(WBNOINVD)}, {0}},
};
const unsigned cpu_model_row_count = sizeof cpu_model_rows / sizeof cpu_model_rows[0];
