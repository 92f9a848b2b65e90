/*
 * What is done with each instruction. Two tables: instruction sets that the host may run as they are (an allow-list,
 * with the CPUID feature and the control bits they depend on), and single mnemonics that need something else. What
 * neither names is #UD, and counted.
 */
#include "translator/translation.h"

#define ISA(name, class_, feature_)                                                                                    \
    [ZYDIS_ISA_SET_##name] = {.kind = RULE_COPY, .class = CLASS_##class_, .feature = FEATURE_##feature_}
#define ISA_VL(name, feature_)                                                                                         \
    [ZYDIS_ISA_SET_##name] = {                                                                                         \
        .kind = RULE_COPY, .class = CLASS_AVX512, .feature = FEATURE_##feature_, .needs_vl = true}
#define ISA_AVX512(name, feature_)                                                                                     \
    ISA_VL(name##_128, feature_), ISA_VL(name##_256, feature_), ISA(name##_512, AVX512, feature_)

static const struct rule by_isa_set[ZYDIS_ISA_SET_MAX_VALUE + 1] = {
    ISA(I86, INTEGER, NONE), ISA(I186, INTEGER, NONE), ISA(I286PROTECTED, INTEGER, NONE),
    ISA(I286REAL, INTEGER, NONE), ISA(I386, INTEGER, NONE), ISA(I486, INTEGER, NONE), ISA(I486REAL, INTEGER, NONE),
    ISA(PENTIUMREAL, INTEGER, NONE), ISA(PPRO, INTEGER, NONE), ISA(LONGMODE, INTEGER, NONE),
    ISA(LAHF, INTEGER, NONE), ISA(PAUSE, INTEGER, NONE), ISA(FAT_NOP, INTEGER, NONE),
    ISA(PREFETCH_NOP, INTEGER, NONE), ISA(CMOV, INTEGER, CMOV), ISA(POPCNT, INTEGER, POPCNT),
    ISA(LZCNT, INTEGER, LZCNT), ISA(MOVBE, INTEGER, MOVBE), ISA(RDRAND, INTEGER, RDRAND),
    ISA(RDSEED, INTEGER, RDSEED), ISA(ADOX_ADCX, INTEGER, ADX), ISA(CMPXCHG16B, INTEGER, CX16),
    ISA(BMI1, VEX_INTEGER, BMI1), ISA(BMI2, VEX_INTEGER, BMI2), ISA(CLFSH, INTEGER, CLFLUSH),
    ISA(CLFLUSHOPT, INTEGER, CLFLUSHOPT), ISA(CLWB, INTEGER, CLWB), ISA(CLDEMOTE, INTEGER, CLDEMOTE),
    ISA(SERIALIZE, INTEGER, SERIALIZE), ISA(MOVDIR, INTEGER, MOVDIRI), ISA(SSE_PREFETCH, INTEGER, NONE),
    ISA(PREFETCHWT1, INTEGER, NONE), ISA(RDPID, INTEGER, RDPID), ISA(RDTSCP, INTEGER, RDTSCP),
    ISA(RDPMC, INTEGER, NONE), ISA(RDWRFSGS, INTEGER, FSGSBASE), ISA(INVPCID, INTEGER, INVPCID),
    ISA(SMAP, INTEGER, SMAP), ISA(MONITOR, INTEGER, MONITOR), ISA(XSAVE, INTEGER, XSAVE),
    ISA(XSAVEOPT, INTEGER, XSAVEOPT), ISA(XSAVEC, INTEGER, XSAVEC), ISA(XSAVES, INTEGER, XSAVES),
    ISA(FXSAVE, X87, FXSR), ISA(FXSAVE64, X87, FXSR), ISA(SSEMXCSR, SSE, SSE),
    ISA(X87, X87, FPU), ISA(FCMOV, X87, CMOV), ISA(SSE3X87, X87, SSE3),
    ISA(PENTIUMMMX, MMX, MMX), ISA(SSE2MMX, MMX, SSE2), ISA(SSSE3MMX, MMX, SSSE3),
    ISA(SSE, SSE, SSE), ISA(SSE2, SSE, SSE2), ISA(SSE3, SSE, SSE3), ISA(SSSE3, SSE, SSSE3), ISA(SSE4, SSE, SSE41),
    ISA(SSE42, SSE, SSE42), ISA(AES, SSE, AES), ISA(PCLMULQDQ, SSE, PCLMULQDQ), ISA(SHA, SSE, SHA),
    ISA(SSE4A, SSE, SSE4A), ISA(GFNI, SSE, GFNI),
    ISA(AVX, AVX, AVX), ISA(AVX2, AVX, AVX2), ISA(AVX2GATHER, AVX, AVX2), ISA(FMA, AVX, FMA), ISA(F16C, AVX, F16C),
    ISA(AVXAES, AVX, AES), ISA(VAES, AVX, VAES), ISA(VPCLMULQDQ, AVX, VPCLMULQDQ), ISA(AVX_GFNI, AVX, GFNI),
    ISA(AVX_VNNI, AVX, AVX_VNNI),
    ISA_AVX512(AVX512F, AVX512F), ISA(AVX512F_128N, AVX512, AVX512F), ISA(AVX512F_KOP, AVX512, AVX512F),
    ISA(AVX512F_SCALAR, AVX512, AVX512F), ISA_AVX512(AVX512BW, AVX512BW), ISA(AVX512BW_128N, AVX512, AVX512BW),
    ISA(AVX512BW_KOP, AVX512, AVX512BW), ISA_AVX512(AVX512CD, AVX512CD), ISA_AVX512(AVX512DQ, AVX512DQ),
    ISA(AVX512DQ_128N, AVX512, AVX512DQ), ISA(AVX512DQ_KOP, AVX512, AVX512DQ),
    ISA(AVX512DQ_SCALAR, AVX512, AVX512DQ), ISA_AVX512(AVX512_IFMA, AVX512IFMA),
    ISA_AVX512(AVX512_VBMI, AVX512VBMI), ISA_AVX512(AVX512_VBMI2, AVX512VBMI2), ISA_AVX512(AVX512_VNNI, AVX512VNNI),
    ISA_AVX512(AVX512_BITALG, AVX512BITALG), ISA_AVX512(AVX512_VPOPCNTDQ, AVX512VPOPCNTDQ),
    ISA_AVX512(AVX512_VP2INTERSECT, AVX512VP2INTERSECT),
    ISA_AVX512(AVX512_GFNI, GFNI), ISA_AVX512(AVX512_VAES, VAES), ISA_AVX512(AVX512_VPCLMULQDQ, VPCLMULQDQ),
    ISA_AVX512(AVX512_BF16, AVX512BF16), ISA_AVX512(AVX512_FP16, AVX512FP16),
    ISA(AVX512_FP16_128N, AVX512, AVX512FP16), ISA(AVX512_FP16_SCALAR, AVX512, AVX512FP16),
};

struct mnemonic_rule {
    ZydisMnemonic mnemonic;
    uint8_t kind, flags;
    cpu_op_function *function;
};

#define HELPER(name, function, flags) {ZYDIS_MNEMONIC_##name, RULE_HELPER, flags, cpu_op_##function}
#define RULE(name, kind) {ZYDIS_MNEMONIC_##name, RULE_##kind, 0, NULL}
enum { IN_BLOCK = 0, ENDS = RULE_ENDS_BLOCK, USER = RULE_USER };

/* By what they are about; looked up through an index by mnemonic. */
static const struct mnemonic_rule by_mnemonic[] = {
    /* Control flow */
    RULE(JMP, JUMP), RULE(CALL, CALL), RULE(RET, RET), RULE(LOOP, LOOP), RULE(LOOPE, LOOP), RULE(LOOPNE, LOOP),
    RULE(JCXZ, LOOP), RULE(JECXZ, LOOP), RULE(JRCXZ, LOOP),
    RULE(JB, JCC), RULE(JBE, JCC), RULE(JL, JCC), RULE(JLE, JCC), RULE(JNB, JCC), RULE(JNBE, JCC), RULE(JNL, JCC),
    RULE(JNLE, JCC), RULE(JNO, JCC), RULE(JNP, JCC), RULE(JNS, JCC), RULE(JNZ, JCC), RULE(JO, JCC), RULE(JP, JCC),
    RULE(JS, JCC), RULE(JZ, JCC),
    HELPER(IRET, iret, ENDS), HELPER(IRETD, iret, ENDS), HELPER(IRETQ, iret, ENDS), HELPER(INT, int_n, ENDS),
    HELPER(INT3, int3, ENDS), HELPER(INT1, int1, ENDS), HELPER(INTO, into, ENDS),
    HELPER(SYSENTER, sysenter, ENDS), HELPER(SYSEXIT, sysexit, ENDS),
    RULE(UD0, UD), RULE(UD1, UD), RULE(UD2, UD), RULE(RSM, UD),
    /* Stack and addresses */
    RULE(PUSH, PUSH), RULE(POP, POP), RULE(LEAVE, LEAVE), RULE(LEA, LEA), RULE(BT, BIT), RULE(BTS, BIT),
    RULE(BTR, BIT), RULE(BTC, BIT), RULE(XLAT, XLAT),
    HELPER(PUSHF, pushf, IN_BLOCK), HELPER(PUSHFD, pushf, IN_BLOCK), HELPER(PUSHFQ, pushf, IN_BLOCK),
    HELPER(POPF, popf, IN_BLOCK), HELPER(POPFD, popf, IN_BLOCK), HELPER(POPFQ, popf, IN_BLOCK),
    HELPER(PUSHA, pusha, USER), HELPER(PUSHAD, pusha, USER), HELPER(POPA, popa, USER), HELPER(POPAD, popa, USER),
    HELPER(ENTER, enter, USER), HELPER(BOUND, bound, USER),
    /* No effect that a guest sees */
    RULE(NOP, NOTHING), RULE(PREFETCH, NOTHING), RULE(PREFETCHNTA, NOTHING), RULE(PREFETCHT0, NOTHING),
    RULE(PREFETCHT1, NOTHING), RULE(PREFETCHT2, NOTHING), RULE(PREFETCHW, NOTHING), RULE(PREFETCHWT1, NOTHING),
    RULE(CLDEMOTE, NOTHING), RULE(FENI8087_NOP, NOTHING), RULE(FDISI8087_NOP, NOTHING), RULE(FSETPM287_NOP, NOTHING),
    /* Segments and tables */
    HELPER(LDS, load_far_pointer, IN_BLOCK), HELPER(LES, load_far_pointer, IN_BLOCK), HELPER(LFS, load_far_pointer, IN_BLOCK),
    HELPER(LGS, load_far_pointer, IN_BLOCK), HELPER(LSS, load_far_pointer, IN_BLOCK), HELPER(LLDT, lldt, ENDS),
    HELPER(LTR, ltr, ENDS), HELPER(SLDT, sldt, IN_BLOCK), HELPER(STR, str, IN_BLOCK), HELPER(LGDT, lgdt, IN_BLOCK),
    HELPER(LIDT, lidt, IN_BLOCK), HELPER(SGDT, sgdt, IN_BLOCK), HELPER(SIDT, sidt, IN_BLOCK),
    HELPER(LAR, lar, IN_BLOCK), HELPER(LSL, lsl, IN_BLOCK), HELPER(VERR, verr, IN_BLOCK),
    HELPER(VERW, verw, IN_BLOCK), HELPER(ARPL, arpl, IN_BLOCK), HELPER(SWAPGS, swapgs, IN_BLOCK),
    HELPER(RDFSBASE, rdfsbase, IN_BLOCK), HELPER(RDGSBASE, rdgsbase, IN_BLOCK),
    HELPER(WRFSBASE, wrfsbase, IN_BLOCK), HELPER(WRGSBASE, wrgsbase, IN_BLOCK),
    /* System */
    HELPER(CPUID, cpuid, IN_BLOCK), HELPER(RDMSR, rdmsr, IN_BLOCK), HELPER(WRMSR, wrmsr, IN_BLOCK),
    HELPER(RDTSC, rdtsc, IN_BLOCK), HELPER(RDTSCP, rdtscp, IN_BLOCK), HELPER(RDPID, rdpid, IN_BLOCK),
    HELPER(RDPMC, rdpmc, IN_BLOCK), HELPER(CLTS, clts, ENDS), HELPER(LMSW, lmsw, ENDS), HELPER(SMSW, smsw, IN_BLOCK),
    HELPER(INVLPG, invlpg, ENDS), HELPER(INVPCID, invpcid, ENDS), HELPER(INVD, cache_control, IN_BLOCK),
    HELPER(WBINVD, cache_control, IN_BLOCK), HELPER(HLT, hlt, ENDS),
    HELPER(PAUSE, pause, USER), HELPER(MONITOR, monitor, IN_BLOCK), HELPER(MWAIT, mwait, ENDS),
    HELPER(CLI, cli, IN_BLOCK),
    HELPER(STI, sti, ENDS), HELPER(CLAC, clac, IN_BLOCK), HELPER(STAC, stac, IN_BLOCK),
    HELPER(XGETBV, xgetbv, IN_BLOCK), HELPER(XSETBV, xsetbv, ENDS),
    HELPER(IN, in, IN_BLOCK), HELPER(OUT, out, IN_BLOCK), HELPER(INSB, ins, ENDS), HELPER(INSW, ins, ENDS),
    HELPER(INSD, ins, ENDS), HELPER(OUTSB, outs, ENDS), HELPER(OUTSW, outs, ENDS), HELPER(OUTSD, outs, ENDS),
    /* Strings */
    HELPER(MOVSB, movs, USER), HELPER(MOVSW, movs, USER), HELPER(MOVSQ, movs, USER),
    HELPER(STOSB, stos, USER), HELPER(STOSW, stos, USER), HELPER(STOSD, stos, USER), HELPER(STOSQ, stos, USER),
    HELPER(LODSB, lods, USER), HELPER(LODSW, lods, USER), HELPER(LODSD, lods, USER), HELPER(LODSQ, lods, USER),
    HELPER(SCASB, scas, USER), HELPER(SCASW, scas, USER), HELPER(SCASD, scas, USER), HELPER(SCASQ, scas, USER),
    HELPER(CMPSB, cmps, USER), HELPER(CMPSW, cmps, USER), HELPER(CMPSQ, cmps, USER),
    /* Not in 64-bit mode, so not on the host */
    HELPER(AAA, aaa, USER), HELPER(AAS, aas, USER), HELPER(AAM, aam, USER), HELPER(AAD, aad, USER),
    HELPER(DAA, daa, USER), HELPER(DAS, das, USER), HELPER(SALC, salc, USER),
    /* State images hold host addresses, or must not hold what the guest has not */
    HELPER(XSAVE, xsave, USER), HELPER(XSAVE64, xsave, USER), HELPER(XSAVEOPT, xsave, USER),
    HELPER(XSAVEOPT64, xsave, USER), HELPER(XSAVEC, xsavec, USER), HELPER(XSAVEC64, xsavec, USER),
    HELPER(XSAVES, xsaves, IN_BLOCK), HELPER(XSAVES64, xsaves, IN_BLOCK), HELPER(XRSTOR, xrstor, USER),
    HELPER(XRSTOR64, xrstor, USER), HELPER(XRSTORS, xrstors, IN_BLOCK), HELPER(XRSTORS64, xrstors, IN_BLOCK),
    HELPER(FXSAVE, fxsave, USER), HELPER(FXSAVE64, fxsave, USER), HELPER(FXRSTOR, fxrstor, USER),
    HELPER(FXRSTOR64, fxrstor, USER), HELPER(FNSTENV, fnstenv, USER), HELPER(FLDENV, fldenv, USER),
    HELPER(FNSAVE, fnsave, USER), HELPER(FRSTOR, frstor, USER),
    /* Memory operands that are no single range */
    HELPER(MASKMOVQ, maskmov, USER), HELPER(MASKMOVDQU, maskmov, USER), HELPER(VMASKMOVDQU, maskmov, USER),
    HELPER(VGATHERDPS, gather, USER), HELPER(VGATHERDPD, gather, USER), HELPER(VGATHERQPS, gather, USER),
    HELPER(VGATHERQPD, gather, USER), HELPER(VPGATHERDD, gather, USER), HELPER(VPGATHERDQ, gather, USER),
    HELPER(VPGATHERQD, gather, USER), HELPER(VPGATHERQQ, gather, USER), HELPER(VSCATTERDPS, scatter, USER),
    HELPER(VSCATTERDPD, scatter, USER), HELPER(VSCATTERQPS, scatter, USER), HELPER(VSCATTERQPD, scatter, USER),
    HELPER(VPSCATTERDD, scatter, USER), HELPER(VPSCATTERDQ, scatter, USER), HELPER(VPSCATTERQD, scatter, USER),
    HELPER(VPSCATTERQQ, scatter, USER), HELPER(MOVDIR64B, movdir64b, USER),
};

/* Instructions of an SSE instruction set that work on general registers and memory alone. */
static bool is_integer_sse(ZydisMnemonic mnemonic) {
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_LFENCE:
    case ZYDIS_MNEMONIC_MFENCE:
    case ZYDIS_MNEMONIC_SFENCE:
    case ZYDIS_MNEMONIC_MOVNTI:
    case ZYDIS_MNEMONIC_CRC32:
    case ZYDIS_MNEMONIC_PAUSE:
    case ZYDIS_MNEMONIC_CLFLUSH:
        return true;
    default:
        return false;
    }
}

/* Encodings whose mnemonic alone does not tell: moves of system registers, far transfers, segment pushes, strings that
   share their name with SSE2. */
static bool special(const struct instruction *in, struct rule *rule) {
    const ZydisDecodedInstruction *z = in->z;
    bool is_far = z->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
    unsigned opcode = z->opcode;
    bool is_0f = z->opcode_map == ZYDIS_OPCODE_MAP_0F, is_plain = z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT;
    cpu_op_function *function = NULL;
    unsigned flags = RULE_ENDS_BLOCK;
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_JMP:
        function = is_far ? cpu_op_far_jmp : NULL;
        break;
    case ZYDIS_MNEMONIC_CALL:
        function = is_far ? cpu_op_far_call : NULL;
        break;
    case ZYDIS_MNEMONIC_RET:
        function = opcode == 0xca || opcode == 0xcb ? cpu_op_far_ret : NULL;
        break;
    case ZYDIS_MNEMONIC_MOV:
        if (is_plain && opcode == 0x8e)
            function = cpu_op_mov_to_segment, flags = 0;
        else if (is_plain && opcode == 0x8c)
            function = cpu_op_mov_from_segment, flags = 0;
        else if (is_0f && opcode == 0x20)
            function = cpu_op_mov_from_cr, flags = 0;
        else if (is_0f && opcode == 0x21)
            function = cpu_op_mov_from_dr, flags = 0;
        else if (is_0f && opcode == 0x22)
            function = cpu_op_mov_to_cr, flags = z->raw.modrm.reg == 3 || z->raw.modrm.reg == 4 ? RULE_ENDS_BLOCK : 0;
        else if (is_0f && opcode == 0x23)
            function = cpu_op_mov_to_dr, flags = 0;
        break;
    case ZYDIS_MNEMONIC_PUSH:
        if ((is_plain && opcode < 0x20) || (is_0f && (opcode == 0xa0 || opcode == 0xa8)))
            function = cpu_op_push_segment, flags = 0;
        break;
    case ZYDIS_MNEMONIC_POP:
        if ((is_plain && opcode < 0x20) || (is_0f && (opcode == 0xa1 || opcode == 0xa9)))
            function = cpu_op_pop_segment, flags = 0;
        break;
    case ZYDIS_MNEMONIC_MOVSD:
    case ZYDIS_MNEMONIC_CMPSD:
        if (is_plain)
            function = opcode == 0xa5 ? cpu_op_movs : cpu_op_cmps, flags = RULE_USER;
        break;
    case ZYDIS_MNEMONIC_SYSCALL: /* outside 64-bit mode in an instruction set of its own */
        function = cpu_op_syscall;
        break;
    case ZYDIS_MNEMONIC_SYSRET:
        function = cpu_op_sysret;
        break;
    default:
        break;
    }
    if (!function)
        return false;
    rule->kind = RULE_HELPER;
    rule->flags = (uint8_t)flags;
    rule->function = function;
    return true;
}

void rules_index(uint8_t index[]) {
    _Static_assert(sizeof by_mnemonic / sizeof *by_mnemonic < 255, "the index is of bytes");
    for (unsigned i = 0; i < sizeof by_mnemonic / sizeof *by_mnemonic; i++)
        index[by_mnemonic[i].mnemonic] = (uint8_t)(i + 1);
}

struct rule rule_find(const uint8_t index[], const struct instruction *in) {
    const ZydisDecodedInstruction *z = in->z;
    struct rule rule = by_isa_set[z->meta.isa_set];
    if (rule.class == CLASS_SSE && is_integer_sse(z->mnemonic))
        rule.class = CLASS_INTEGER;
    if (special(in, &rule))
        return rule;
    if (!index[z->mnemonic])
        return rule;
    const struct mnemonic_rule *row = &by_mnemonic[index[z->mnemonic] - 1];
    if (row->kind == RULE_UD || rule.kind != RULE_NONE) {
        rule.kind = row->kind;
        rule.flags = row->flags;
        rule.function = row->function;
    }
    return rule;
}
