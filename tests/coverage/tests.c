/* The tables behind coverage.h. A row that is missing here makes trapeze_coverage fail. */
#include "tests/coverage/coverage.h"

const char *coverage_helper_name(cpu_op_function *function) {
#define NAME(name, privilege)                                                                                          \
    if (function == cpu_op_##name)                                                                                     \
        return #name;
    CPU_OPS(NAME)
#undef NAME
    return NULL;
}

#define ROW(test, name) {cpu_op_##name, test},
#define CONTROL(name) ROW("test_cpu_control", name)
#define GATHER(name) ROW("test_cpu_gather", name)
#define LEGACY(name) ROW("test_cpu_legacy", name)
#define SEGMENT(name) ROW("test_cpu_segment", name)
#define STRINGS(name) ROW("test_cpu_strings", name)
#define SYSTEM(name) ROW("test_cpu_system", name)
#define TABLE(name) ROW("test_cpu_table", name)
#define XSAVE(name) ROW("test_cpu_xsave", name)
#define X87(name) ROW("test_cpu_x87", name)

static const struct {
    cpu_op_function *function;
    const char *test;
} helper_tests[] = {
    ROW("test_cpu_far", far_call) ROW("test_cpu_far", far_jmp) ROW("test_cpu_far", far_ret) ROW("test_cpu_iret", iret)
    ROW("test_cpu_interrupt", int_n) ROW("test_cpu_interrupt", int3) ROW("test_cpu_interrupt", int1)
    ROW("test_cpu_interrupt", into) ROW("test_cpu_syscall", syscall) ROW("test_cpu_syscall", sysret)
    ROW("test_cpu_syscall", sysenter) ROW("test_cpu_syscall", sysexit)
    SEGMENT(mov_to_segment) SEGMENT(mov_from_segment) SEGMENT(push_segment) SEGMENT(pop_segment)
    SEGMENT(load_far_pointer) SEGMENT(swapgs)
    TABLE(lldt) TABLE(ltr) TABLE(sldt) TABLE(str) TABLE(lgdt) TABLE(lidt) TABLE(sgdt) TABLE(sidt) TABLE(lar) TABLE(lsl)
    TABLE(verr) TABLE(verw) TABLE(arpl)
    ROW("test_cpu_model", cpuid) ROW("test_cpu_msr", rdmsr) ROW("test_cpu_msr", wrmsr)
    SYSTEM(rdtsc) SYSTEM(rdtscp) SYSTEM(rdpmc) SYSTEM(invlpg) SYSTEM(invpcid) SYSTEM(cache_control) SYSTEM(hlt) SYSTEM(pause)
    SYSTEM(rdfsbase) SYSTEM(wrfsbase) SYSTEM(wrgsbase)
    ROW("test_instructions", rdpid) ROW("test_instructions", rdgsbase) ROW("test_instructions", monitor)
    ROW("test_instructions", mwait)
    CONTROL(mov_from_cr) CONTROL(mov_to_cr) CONTROL(mov_to_dr) CONTROL(clts) CONTROL(lmsw) CONTROL(smsw) CONTROL(xgetbv)
    CONTROL(xsetbv) ROW("guest_debug64", mov_from_dr)
    ROW("test_cpu_flags", cli) ROW("test_cpu_flags", sti) ROW("test_cpu_flags", clac) ROW("test_cpu_flags", stac)
    ROW("test_cpu_flags", pushf) ROW("test_cpu_flags", popf)
    ROW("test_cpu_ports", in) ROW("test_cpu_ports", out) ROW("test_cpu_ports", ins) ROW("test_cpu_ports", outs)
    STRINGS(movs) STRINGS(cmps) STRINGS(stos) STRINGS(lods) STRINGS(scas)
    LEGACY(aaa) LEGACY(aas) LEGACY(aam) LEGACY(aad) LEGACY(daa) LEGACY(das) LEGACY(salc) LEGACY(bound) LEGACY(pusha)
    LEGACY(popa) LEGACY(enter)
    XSAVE(xsave) XSAVE(xsavec) XSAVE(xsaves) XSAVE(xrstor) XSAVE(xrstors) XSAVE(fxsave) XSAVE(fxrstor)
    X87(fnstenv) X87(fldenv) X87(fnsave) X87(frstor)
    GATHER(maskmov) GATHER(gather) GATHER(scatter) GATHER(movdir64b)
};

const char *coverage_test_of_helper(cpu_op_function *function) {
    for (unsigned i = 0; i < sizeof helper_tests / sizeof *helper_tests; i++)
        if (helper_tests[i].function == function)
            return helper_tests[i].test;
    return NULL;
}

/* Instructions that the comparison with the host leaves out, as two runs of them differ, or there is nothing to see. */
static const ZydisMnemonic not_compared[] = {
    ZYDIS_MNEMONIC_PAUSE, ZYDIS_MNEMONIC_RDRAND, ZYDIS_MNEMONIC_RDSEED,
};

bool coverage_is_compared(ZydisMnemonic mnemonic) {
    for (unsigned i = 0; i < sizeof not_compared / sizeof *not_compared; i++)
        if (not_compared[i] == mnemonic)
            return false;
    return true;
}

static const struct {
    ZydisISASet isa_set;
    const char *reason;
} reasons[] = {
    {ZYDIS_ISA_SET_AMD3DNOW, "no processor since 2012 has it"},
    {ZYDIS_ISA_SET_AMD_INVLPGB, "a broadcast over processors that the guest has no need of"},
    {ZYDIS_ISA_SET_AMX_BF16, "tile state is not kept"},
    {ZYDIS_ISA_SET_AMX_INT8, "tile state is not kept"},
    {ZYDIS_ISA_SET_AMX_TILE, "tile state is not kept"},
    {ZYDIS_ISA_SET_AVX512ER_512, "Xeon Phi alone"},
    {ZYDIS_ISA_SET_AVX512ER_SCALAR, "Xeon Phi alone"},
    {ZYDIS_ISA_SET_AVX512PF_512, "Xeon Phi alone"},
    {ZYDIS_ISA_SET_AVX512_4FMAPS_512, "Xeon Phi alone"},
    {ZYDIS_ISA_SET_AVX512_4FMAPS_SCALAR, "Xeon Phi alone"},
    {ZYDIS_ISA_SET_AVX512_4VNNIW_512, "Xeon Phi alone"},
    {ZYDIS_ISA_SET_CET, "shadow stacks are not offered"},
    {ZYDIS_ISA_SET_CLZERO, "writes a cache line of the host; not offered"},
    {ZYDIS_ISA_SET_ENQCMD, "needs a device and a PASID of the host"},
    {ZYDIS_ISA_SET_FMA4, "withdrawn: no processor since 2017 has it"},
    {ZYDIS_ISA_SET_KEYLOCKER, "works on a key of the host"},
    {ZYDIS_ISA_SET_KEYLOCKER_WIDE, "works on a key of the host"},
    {ZYDIS_ISA_SET_KNCJKBR, "Xeon Phi alone"},
    {ZYDIS_ISA_SET_KNCV, "Xeon Phi alone"},
    {ZYDIS_ISA_SET_LWP, "withdrawn: no processor since 2017 has it"},
    {ZYDIS_ISA_SET_MCOMMIT, "reports errors of the host's memory"},
    {ZYDIS_ISA_SET_MONITORX, "waits on a host address; not offered"},
    {ZYDIS_ISA_SET_PCONFIG, "configures the host's memory encryption"},
    {ZYDIS_ISA_SET_PKU, "protection keys are not offered"},
    {ZYDIS_ISA_SET_PT, "writes into the host's trace"},
    {ZYDIS_ISA_SET_RDPRU, "reads counters of the host"},
    {ZYDIS_ISA_SET_RTM, "transactions would hold the engine's own accesses"},
    {ZYDIS_ISA_SET_SGX, "enclaves are not offered"},
    {ZYDIS_ISA_SET_SGX_ENCLV, "enclaves are not offered"},
    {ZYDIS_ISA_SET_SMX, "measured launch is not offered"},
    {ZYDIS_ISA_SET_SNP, "nested virtualization is not offered"},
    {ZYDIS_ISA_SET_SVM, "nested virtualization is not offered"},
    {ZYDIS_ISA_SET_TBM, "withdrawn: no processor since 2017 has it"},
    {ZYDIS_ISA_SET_TDX, "nested virtualization is not offered"},
    {ZYDIS_ISA_SET_TSX_LDTRK, "transactions would hold the engine's own accesses"},
    {ZYDIS_ISA_SET_UINTR, "user interrupts are not offered"},
    {ZYDIS_ISA_SET_VMFUNC, "nested virtualization is not offered"},
    {ZYDIS_ISA_SET_VTX, "nested virtualization is not offered"},
    {ZYDIS_ISA_SET_WAITPKG, "waits on a host address; not offered"},
    {ZYDIS_ISA_SET_XOP, "withdrawn: no processor since 2017 has it"},
};

const char *coverage_reason(ZydisISASet isa_set) {
    for (unsigned i = 0; i < sizeof reasons / sizeof *reasons; i++)
        if (reasons[i].isa_set == isa_set)
            return reasons[i].reason;
    return NULL;
}
