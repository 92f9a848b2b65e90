/* Which instructions are compared with the host's processor, and what of their traces. */
#include "isa_draft.h"

static const ZydisInstructionCategory refused_categories[] = {
    ZYDIS_CATEGORY_AMX_TILE, ZYDIS_CATEGORY_CET, ZYDIS_CATEGORY_CLZERO, ZYDIS_CATEGORY_ENQCMD,
    ZYDIS_CATEGORY_HRESET, ZYDIS_CATEGORY_INTERRUPT, ZYDIS_CATEGORY_KEYLOCKER, ZYDIS_CATEGORY_KEYLOCKER_WIDE,
    ZYDIS_CATEGORY_MPX, ZYDIS_CATEGORY_PADLOCK, ZYDIS_CATEGORY_PCONFIG, ZYDIS_CATEGORY_PKU, ZYDIS_CATEGORY_PT,
    ZYDIS_CATEGORY_RDPID, ZYDIS_CATEGORY_RDPRU, ZYDIS_CATEGORY_RDRAND, ZYDIS_CATEGORY_RDSEED,
    ZYDIS_CATEGORY_RDWRFSGS, ZYDIS_CATEGORY_SEGOP, ZYDIS_CATEGORY_SGX, ZYDIS_CATEGORY_SYSCALL,
    ZYDIS_CATEGORY_SYSRET, ZYDIS_CATEGORY_TSX_LDTRK, ZYDIS_CATEGORY_UINTR, ZYDIS_CATEGORY_VTX,
    ZYDIS_CATEGORY_WAITPKG, ZYDIS_CATEGORY_XSAVE, ZYDIS_CATEGORY_XSAVEOPT,
};

/* What a hypervisor keeps from its guests. At CPL 3 a host that has it answers #GP, a guest without it #UD. */
static const ZydisISAExt refused_extensions[] = {
    ZYDIS_ISA_EXT_SVM, ZYDIS_ISA_EXT_SNP, ZYDIS_ISA_EXT_AMD_INVLPGB,
};

static const ZydisMnemonic refused_mnemonics[] = {
    ZYDIS_MNEMONIC_CPUID, ZYDIS_MNEMONIC_RDTSC, ZYDIS_MNEMONIC_RDTSCP, ZYDIS_MNEMONIC_RDPMC, ZYDIS_MNEMONIC_XGETBV,
    ZYDIS_MNEMONIC_SLDT, ZYDIS_MNEMONIC_STR, ZYDIS_MNEMONIC_SMSW, ZYDIS_MNEMONIC_SGDT, ZYDIS_MNEMONIC_SIDT,
    ZYDIS_MNEMONIC_LAR, ZYDIS_MNEMONIC_LSL, ZYDIS_MNEMONIC_VERR, ZYDIS_MNEMONIC_VERW, ZYDIS_MNEMONIC_MONITORX,
    ZYDIS_MNEMONIC_MWAITX, ZYDIS_MNEMONIC_MONITOR, ZYDIS_MNEMONIC_MWAIT, ZYDIS_MNEMONIC_PAUSE,
    ZYDIS_MNEMONIC_IRET, ZYDIS_MNEMONIC_IRETD, ZYDIS_MNEMONIC_IRETQ, ZYDIS_MNEMONIC_XBEGIN, ZYDIS_MNEMONIC_XEND,
    ZYDIS_MNEMONIC_XABORT, ZYDIS_MNEMONIC_XTEST, ZYDIS_MNEMONIC_FXRSTOR, ZYDIS_MNEMONIC_FXRSTOR64,
    ZYDIS_MNEMONIC_FXSAVE, ZYDIS_MNEMONIC_FXSAVE64, ZYDIS_MNEMONIC_UD0, ZYDIS_MNEMONIC_UD1, ZYDIS_MNEMONIC_UD2,
    ZYDIS_MNEMONIC_FNSTENV, ZYDIS_MNEMONIC_FNSAVE, /* show FIP and FDP, see tests/guest */
    ZYDIS_MNEMONIC_CLDEMOTE, ZYDIS_MNEMONIC_PTWRITE,
    /* whether they fault with no byte selected is up to the processor */
    ZYDIS_MNEMONIC_MASKMOVDQU, ZYDIS_MNEMONIC_MASKMOVQ, ZYDIS_MNEMONIC_VMASKMOVDQU,
    /* what reaches a hypervisor, from CPL 3 too */
    ZYDIS_MNEMONIC_VMCALL, ZYDIS_MNEMONIC_VMMCALL, ZYDIS_MNEMONIC_VMFUNC,
    ZYDIS_MNEMONIC_TDCALL, ZYDIS_MNEMONIC_SEAMCALL, ZYDIS_MNEMONIC_GETSEC,
};

static bool is_refused_extension(ZydisISAExt extension) {
    for (size_t n = 0; n < sizeof refused_extensions / sizeof *refused_extensions; n++)
        if (extension == refused_extensions[n])
            return true;
    return false;
}

bool is_refused(const struct shape *shape) {
    const ZydisDecodedInstruction *i = &shape->instruction;
    for (size_t n = 0; n < sizeof refused_categories / sizeof *refused_categories; n++)
        if (i->meta.category == refused_categories[n])
            return true;
    for (size_t n = 0; n < sizeof refused_mnemonics / sizeof *refused_mnemonics; n++)
        if (i->mnemonic == refused_mnemonics[n])
            return true;
    if (i->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR || is_refused_extension(i->meta.isa_ext))
        return true;
    /* On a 64-bit host they clear registers 8 and up, too: see docs/limits.md. */
    if (i->machine_mode != ZYDIS_MACHINE_MODE_LONG_64 &&
        (i->mnemonic == ZYDIS_MNEMONIC_VZEROUPPER || i->mnemonic == ZYDIS_MNEMONIC_VZEROALL))
        return true;
    bool is_wide = i->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX && i->raw.vex.W;
    for (unsigned n = 0; n < i->operand_count; n++) {
        const ZydisDecodedOperand *o = &shape->operands[n];
        if (i->machine_mode == ZYDIS_MACHINE_MODE_LONG_COMPAT_16 && is_wide && o->reg.value == ZYDIS_REGISTER_ESP)
            return true; /* KMOVQ shows the upper half of RSP, where Linux has left its own (espfix) */
        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && o->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN &&
            ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_SEGMENT)
            return true;
        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->mem.segment == ZYDIS_REGISTER_FS)
            return true; /* the host's own thread data */
    }
    return false;
}

/* VBROADCASTF32X4 and the like. */
static bool is_tuple_broadcast(const struct shape *shape) {
    const ZydisDecodedOperand *source = &shape->operands[2]; /* behind destination and mask */
    return shape->instruction.avx.broadcast.is_static && source->type == ZYDIS_OPERAND_TYPE_MEMORY &&
           source->size > source->element_size;
}

/* What of a fault's traces is the processor's own affair. */
uint32_t looseness(const struct shape *shape) {
    const ZydisDecodedInstruction *i = &shape->instruction;
    uint32_t flags = 0;
    bool is_store = shape->operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY;
    bool is_masked = i->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX && i->raw.evex.aaa;
    if ((is_masked && (is_store || is_tuple_broadcast(shape))) ||
        i->mnemonic == ZYDIS_MNEMONIC_VPMASKMOVD || i->mnemonic == ZYDIS_MNEMONIC_VPMASKMOVQ ||
        i->mnemonic == ZYDIS_MNEMONIC_VMASKMOVPS || i->mnemonic == ZYDIS_MNEMONIC_VMASKMOVPD ||
        i->mnemonic == ZYDIS_MNEMONIC_FRSTOR || i->mnemonic == ZYDIS_MNEMONIC_FLDENV)
        flags |= ISA_LOOSE_CR2;
    if (i->mnemonic == ZYDIS_MNEMONIC_CALL || i->mnemonic == ZYDIS_MNEMONIC_ENTER ||
        i->mnemonic == ZYDIS_MNEMONIC_PUSHA || i->mnemonic == ZYDIS_MNEMONIC_PUSHAD)
        flags |= ISA_LOOSE_PUSH;
    bool is_nested = i->mnemonic == ZYDIS_MNEMONIC_ENTER && shape->operands[1].imm.value.u & 31;
    if (i->mnemonic == ZYDIS_MNEMONIC_POPA || i->mnemonic == ZYDIS_MNEMONIC_POPAD || is_nested)
        flags |= ISA_LOOSE_PARTIAL;
    bool is_16bit = i->machine_mode == ZYDIS_MACHINE_MODE_LONG_COMPAT_16;
    if (is_16bit && i->meta.branch_type != ZYDIS_BRANCH_TYPE_NONE &&
        i->operand_width != 16)
        flags |= ISA_LOOSE_BRANCH;
    for (unsigned n = 0; n < i->operand_count; n++) {
        const ZydisDecodedOperand *o = &shape->operands[n];
        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_MMX)
            flags |= ISA_LOOSE_X87;
        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        if ((o->mem.segment == ZYDIS_REGISTER_SS && o->size >= 128) || (is_masked && is_16bit))
            flags |= ISA_LOOSE_ORDER;
        if (o->mem.type == ZYDIS_MEMOP_TYPE_VSIB)
            flags |= ISA_LOOSE_GATHER;
    }
    return flags;
}

uint32_t undefined_flags(const struct shape *shape) {
    return shape->instruction.cpu_flags ? shape->instruction.cpu_flags->undefined : 0;
}
