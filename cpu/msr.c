/*
 * Model specific registers (SDM vol. 4): plain ones by a table, the others by a function each; those of the local APIC
 * belong to the interrupt controller. What is in neither place is #GP(0).
 */
#include "cpu/access.h"
#include "cpu/mode.h"
#include "cpu/model_internal.h"
#include "cpu/ops.h"

enum {
    MSR_TSC = 0x10, MSR_APIC_BASE = 0x1b, MSR_TSC_ADJUST = 0x3b, MSR_PRED_CMD = 0x49, MSR_BIOS_SIGN_ID = 0x8b,
    MSR_MTRR_BASE = 0x200, MSR_MTRR_LAST = 0x20f, MSR_PAT = 0x277, MSR_TSC_DEADLINE = 0x6e0, MSR_X2APIC = 0x800,
    MSR_X2APIC_LAST = 0x8ff, MSR_ARCH_CAPABILITIES = 0x10a, MSR_MTRR_DEFAULT = 0x2ff,
};
#define MSR_EFER    0xc0000080u
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u
#define MSR_TSC_AUX 0xc0000103u

uint64_t cpu_read_tsc(const struct cpu *cpu) {
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (low | (uint64_t)high << 32) + (uint64_t)cpu->tsc_offset;
}

/* ---- Plain registers ---- */

enum msr_kind {
    KIND_VALUE,     /* storage; bits outside of `mask` are refused */
    KIND_CANONICAL, /* storage of an address */
    KIND_TYPES,     /* eight memory types, each one of those in the bit set `mask` */
    KIND_CONSTANT,  /* reads as `mask`; writes are refused */
    KIND_DUMMY,     /* reads as `mask`; writes do nothing */
};

enum { ANY_VENDOR, ONLY_INTEL, ONLY_AMD };

struct msr_row {
    uint32_t index, count; /* consecutive MSRs, consecutive words */
    uint8_t feature, vendor, kind;
    uint16_t offset; /* in struct cpu_msrs */
    uint64_t mask;
};

#define AT(member) offsetof(struct cpu_msrs, member)
/* Memory types: UC, WC, WT, WP, WB; PAT has UC- too. */
#define MTRR_TYPES 0x73u
#define PAT_TYPES  (MTRR_TYPES | 0x80u)
#define MISC_ENABLE_BITS                                                                                               \
    (1ull << 0 | 1ull << 3 | 1ull << 7 | 1ull << 11 | 1ull << 12 | 1ull << 16 | 1ull << 18 | 1ull << 22 | 1ull << 23 | \
     1ull << 34 | 1ull << 38)

static const struct msr_row rows[] = {
    {0x000, 2, FEATURE_MCE, ONLY_INTEL, KIND_DUMMY, 0, 0},                       /* P5_MC_ADDR, P5_MC_TYPE */
    {0x017, 1, FEATURE_CMOV, ONLY_INTEL, KIND_CONSTANT, 0, 0},                   /* PLATFORM_ID */
    {0x02a, 1, FEATURE_CMOV, ONLY_INTEL, KIND_DUMMY, 0, 0},                      /* EBL_CR_POWERON */
    {0x03a, 1, FEATURE_LM, ONLY_INTEL, KIND_CONSTANT, 0, 1},                     /* FEATURE_CONTROL: locked */
    {0x048, 1, FEATURE_BHI_CTRL, ANY_VENDOR, KIND_VALUE, AT(spec_ctrl), 0x403},  /* IBRS, STIBP, BHI_DIS_S */
    {0x048, 1, FEATURE_SPEC_CTRL, ANY_VENDOR, KIND_VALUE, AT(spec_ctrl), 3},
    {0x079, 1, FEATURE_CMOV, ONLY_INTEL, KIND_DUMMY, 0, 0},                      /* BIOS_UPDT_TRIG */
    {0x0fe, 1, FEATURE_MTRR, ANY_VENDOR, KIND_CONSTANT, 0, 0x508},               /* MTRRCAP: 8 variable, fixed, WC */
    {0x174, 1, FEATURE_SEP, ANY_VENDOR, KIND_VALUE, AT(sysenter_cs), 0xffffffff},
    {0x175, 1, FEATURE_SEP, ANY_VENDOR, KIND_CANONICAL, AT(sysenter_esp), 0},
    {0x176, 1, FEATURE_SEP, ANY_VENDOR, KIND_CANONICAL, AT(sysenter_eip), 0},
    {0x179, 1, FEATURE_MCA, ANY_VENDOR, KIND_CONSTANT, 0, 0},                    /* MCG_CAP: no banks */
    {0x17a, 1, FEATURE_MCA, ANY_VENDOR, KIND_VALUE, AT(mcg_status), 7},
    {0x1a0, 1, FEATURE_CMOV, ONLY_INTEL, KIND_VALUE, AT(misc_enable), MISC_ENABLE_BITS},
    {0x1d9, 1, FEATURE_CMOV, ANY_VENDOR, KIND_VALUE, AT(debugctl), 3},           /* LBR, BTF */
    {0x1db, 4, FEATURE_CMOV, ANY_VENDOR, KIND_DUMMY, 0, 0},                      /* last branch and exception */
    {0x250, 1, FEATURE_MTRR, ANY_VENDOR, KIND_TYPES, AT(mtrr_fixed[0]), MTRR_TYPES},
    {0x258, 2, FEATURE_MTRR, ANY_VENDOR, KIND_TYPES, AT(mtrr_fixed[1]), MTRR_TYPES},
    {0x268, 8, FEATURE_MTRR, ANY_VENDOR, KIND_TYPES, AT(mtrr_fixed[3]), MTRR_TYPES},
    {MSR_PAT, 1, FEATURE_PAT, ANY_VENDOR, KIND_TYPES, AT(pat), PAT_TYPES},
    {0xda0, 1, FEATURE_XSAVES, ANY_VENDOR, KIND_VALUE, AT(xss), 0},              /* no supervisor components */
    {0xc0000081, 1, FEATURE_SYSCALL, ANY_VENDOR, KIND_VALUE, AT(star), ~0ull},
    {0xc0000082, 1, FEATURE_LM, ANY_VENDOR, KIND_CANONICAL, AT(lstar), 0},
    {0xc0000083, 1, FEATURE_LM, ANY_VENDOR, KIND_CANONICAL, AT(cstar), 0},
    {0xc0000084, 1, FEATURE_LM, ANY_VENDOR, KIND_VALUE, AT(sfmask), 0xffffffff},
    {0xc0000102, 1, FEATURE_LM, ANY_VENDOR, KIND_CANONICAL, AT(kernel_gs_base), 0},
    {0xc0010000, 8, FEATURE_CMOV, ONLY_AMD, KIND_DUMMY, 0, 0},                   /* PERF_CTL, PERF_CTR: stand still */
    {0xc0010010, 1, FEATURE_LM, ONLY_AMD, KIND_DUMMY, 0, 0},                     /* SYSCFG */
    {0xc0010015, 1, FEATURE_CMOV, ONLY_AMD, KIND_DUMMY, 0, 1ull << 24},          /* HWCR: TscFreqSel */
    {0xc001001f, 1, FEATURE_LM, ONLY_AMD, KIND_DUMMY, 0, 0},                     /* NB_CFG */
    {0xc0010020, 1, FEATURE_LM, ONLY_AMD, KIND_DUMMY, 0, 0},                     /* PATCH_LOADER */
    {0xc0010055, 1, FEATURE_LM, ONLY_AMD, KIND_DUMMY, 0, 0},                     /* INT_PENDING */
    {0xc0010140, 2, FEATURE_LM, ONLY_AMD, KIND_DUMMY, 0, 0},                     /* OSVW */
    {0xc0011020, 1, FEATURE_LM, ONLY_AMD, KIND_DUMMY, 0, 0},                     /* LS_CFG */
    {0xc0011029, 1, FEATURE_LM, ONLY_AMD, KIND_DUMMY, 0, 2},                     /* DE_CFG: LFENCE serialises */
};

/* Rows are in the order of their indices; where two are of one register, it is the model's first. */
static const struct msr_row *find_row(const struct cpu *cpu, uint32_t index) {
    const unsigned count = sizeof rows / sizeof rows[0];
    unsigned low = 0, high = count;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (rows[middle].index + rows[middle].count <= index)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < count && index - rows[low].index < rows[low].count; low++) {
        const struct msr_row *row = &rows[low];
        if (cpu_has(cpu, row->feature) &&
            (row->vendor == ANY_VENDOR || (row->vendor == ONLY_AMD) == cpu->model->is_amd))
            return row;
    }
    return NULL;
}

static uint64_t *row_word(struct cpu *cpu, const struct msr_row *row, uint32_t index) {
    return (uint64_t *)((char *)&cpu->msr + row->offset) + (index - row->index);
}

static bool is_stored(const struct msr_row *row) {
    return row->kind == KIND_VALUE || row->kind == KIND_CANONICAL || row->kind == KIND_TYPES;
}

static bool are_types(uint64_t value, uint64_t allowed) {
    for (unsigned i = 0; i < 8; i++, value >>= 8)
        if ((value & 0xff) > 7 || !(allowed >> (value & 7) & 1))
            return false;
    return true;
}

static bool read_row(struct cpu *cpu, const struct msr_row *row, uint32_t index, uint64_t *value) {
    *value = is_stored(row) ? *row_word(cpu, row, index) : row->mask;
    return true;
}

static bool write_row(struct cpu *cpu, const struct msr_row *row, uint32_t index, uint64_t value) {
    bool is_good = true;
    switch ((enum msr_kind)row->kind) {
    case KIND_VALUE:
        is_good = !(value & ~row->mask);
        break;
    case KIND_CANONICAL:
        is_good = cpu_is_canonical(value);
        break;
    case KIND_TYPES:
        is_good = are_types(value, row->mask);
        break;
    case KIND_CONSTANT:
        return false;
    case KIND_DUMMY:
        return true;
    }
    if (is_good)
        *row_word(cpu, row, index) = value;
    return is_good;
}

/* ---- Registers of the interrupt controller ---- */

struct controller_call {
    const struct trapeze_interrupt_controller *controller;
    uint32_t index;
    uint64_t value;
};

static uint64_t controller_read(void *argument) {
    struct controller_call *call = argument;
    const struct trapeze_interrupt_controller *controller = call->controller;
    return controller->read_msr && controller->read_msr(controller->opaque, call->index, &call->value);
}

static uint64_t controller_write(void *argument) {
    struct controller_call *call = argument;
    const struct trapeze_interrupt_controller *controller = call->controller;
    return controller->write_msr && controller->write_msr(controller->opaque, call->index, call->value);
}

static bool is_controllers(const struct cpu *cpu, uint32_t index) {
    if (index == MSR_TSC_DEADLINE)
        return cpu_has(cpu, FEATURE_TSC_DEADLINE);
    if (index >= MSR_X2APIC && index <= MSR_X2APIC_LAST)
        return cpu_has(cpu, FEATURE_X2APIC);
    return index == MSR_APIC_BASE && cpu_has(cpu, FEATURE_APIC);
}

static bool read_controller(struct cpu *cpu, uint32_t index, uint64_t *value) {
    struct controller_call call = {.controller = &cpu->interrupt_controller, .index = index};
    bool done = cpu_call_controller(cpu, controller_read, &call);
    *value = call.value;
    return done;
}

static bool write_controller(struct cpu *cpu, uint32_t index, uint64_t value) {
    struct controller_call call = {.controller = &cpu->interrupt_controller, .index = index, .value = value};
    bool done = cpu_call_controller(cpu, controller_write, &call);
    if (done && index == MSR_APIC_BASE)
        cpu->apic_disabled = !(value >> 11 & 1);
    return done;
}

/* ---- Registers with effects ---- */

/* Writing the counter and writing its adjustment are two ways of the same move (SDM vol. 3B, 17.17.3). */
static void move_tsc(struct cpu *cpu, uint64_t distance) {
    cpu->tsc_offset = (int64_t)((uint64_t)cpu->tsc_offset + distance);
    cpu->msr.tsc_adjust += distance;
}

static bool write_efer(struct cpu *cpu, uint64_t value) {
    uint64_t old = cpu->msr.efer;
    if (value & ~cpu->model->efer)
        return false;
    if (((value ^ old) & EFER_LME) && (cpu->cr0 & CR0_PG))
        return false;
    cpu->msr.efer = (value & ~EFER_LMA) | (old & EFER_LMA);
    if ((value ^ old) & EFER_NXE)
        cpu_flush_all(cpu);
    cpu_mode_changed(cpu);
    return true;
}

static bool write_segment_base(struct cpu *cpu, unsigned segment, uint64_t value) {
    if (!cpu_is_canonical(value))
        return false;
    cpu->segment[segment].base = value;
    cpu_segment_changed(cpu, segment);
    return true;
}

/* IA32_MTRR_PHYSBASEn and IA32_MTRR_PHYSMASKn (SDM vol. 3A, 11.11.2.3). */
static bool write_variable_mtrr(struct cpu *cpu, uint32_t index, uint64_t value) {
    unsigned pair = (index - MSR_MTRR_BASE) / 2;
    uint64_t address = ((1ull << cpu->model->physical_bits) - 1) & ~0xfffull;
    if (index & 1) {
        if (value & ~(address | 1ull << 11))
            return false;
        cpu->msr.mtrr_mask[pair] = value;
        return true;
    }
    if ((value & ~(address | 0xff)) || (value & 0xff) > 7 || !(MTRR_TYPES >> (value & 7) & 1))
        return false;
    cpu->msr.mtrr_base[pair] = value;
    return true;
}

static bool write_mtrr_default(struct cpu *cpu, uint64_t value) {
    if ((value & ~0xcffull) || (value & 0xff) > 7 || !(MTRR_TYPES >> (value & 7) & 1))
        return false;
    cpu->msr.mtrr_def_type = value;
    return true;
}

static bool has_tsc_aux(const struct cpu *cpu) {
    return cpu_has(cpu, FEATURE_RDTSCP) || cpu_has(cpu, FEATURE_RDPID);
}

enum special {
    SPECIAL_NONE, SPECIAL_TSC, SPECIAL_TSC_ADJUST, SPECIAL_PRED_CMD, SPECIAL_MICROCODE, SPECIAL_ARCH_CAPABILITIES,
    SPECIAL_MTRR, SPECIAL_MTRR_DEFAULT, SPECIAL_EFER, SPECIAL_FS_BASE, SPECIAL_GS_BASE, SPECIAL_TSC_AUX,
};

static enum special if_has(const struct cpu *cpu, enum cpu_feature feature, enum special special) {
    return cpu_has(cpu, feature) ? special : SPECIAL_NONE;
}

static enum special find_special(const struct cpu *cpu, uint32_t index) {
    switch (index) {
    case MSR_EFER:
        return cpu->model->efer ? SPECIAL_EFER : SPECIAL_NONE;
    case MSR_TSC_AUX:
        return has_tsc_aux(cpu) ? SPECIAL_TSC_AUX : SPECIAL_NONE;
    case MSR_FS_BASE:
        return if_has(cpu, FEATURE_LM, SPECIAL_FS_BASE);
    case MSR_GS_BASE:
        return if_has(cpu, FEATURE_LM, SPECIAL_GS_BASE);
    case MSR_TSC:
        return if_has(cpu, FEATURE_TSC, SPECIAL_TSC);
    case MSR_TSC_ADJUST:
        return if_has(cpu, FEATURE_TSC_ADJUST, SPECIAL_TSC_ADJUST);
    case MSR_PRED_CMD:
        return if_has(cpu, FEATURE_SPEC_CTRL, SPECIAL_PRED_CMD);
    case MSR_BIOS_SIGN_ID:
        return if_has(cpu, FEATURE_CMOV, SPECIAL_MICROCODE);
    case MSR_ARCH_CAPABILITIES:
        return if_has(cpu, FEATURE_ARCH_CAPABILITIES, SPECIAL_ARCH_CAPABILITIES);
    case MSR_MTRR_DEFAULT:
        return if_has(cpu, FEATURE_MTRR, SPECIAL_MTRR_DEFAULT);
    default:
        if (index >= MSR_MTRR_BASE && index <= MSR_MTRR_LAST)
            return if_has(cpu, FEATURE_MTRR, SPECIAL_MTRR);
        return SPECIAL_NONE;
    }
}

static bool read_special(struct cpu *cpu, enum special special, uint32_t index, uint64_t *value) {
    const struct cpu_msrs *msr = &cpu->msr;
    unsigned pair = (index - MSR_MTRR_BASE) / 2;
    switch (special) {
    case SPECIAL_TSC: *value = cpu_read_tsc(cpu); return true;
    case SPECIAL_TSC_ADJUST: *value = msr->tsc_adjust; return true;
    case SPECIAL_MICROCODE: *value = cpu->model->microcode; return true;
    case SPECIAL_ARCH_CAPABILITIES: *value = cpu->model->arch_capabilities; return true;
    case SPECIAL_MTRR: *value = index & 1 ? msr->mtrr_mask[pair] : msr->mtrr_base[pair]; return true;
    case SPECIAL_MTRR_DEFAULT: *value = msr->mtrr_def_type; return true;
    case SPECIAL_EFER: *value = msr->efer; return true;
    case SPECIAL_FS_BASE: *value = cpu->segment[CPU_FS].base; return true;
    case SPECIAL_GS_BASE: *value = cpu->segment[CPU_GS].base; return true;
    case SPECIAL_TSC_AUX: *value = msr->tsc_aux; return true;
    case SPECIAL_PRED_CMD: /* write only */
    case SPECIAL_NONE: break;
    }
    return false;
}

static bool write_special(struct cpu *cpu, enum special special, uint32_t index, uint64_t value) {
    switch (special) {
    case SPECIAL_TSC: move_tsc(cpu, value - cpu_read_tsc(cpu)); return true;
    case SPECIAL_TSC_ADJUST: move_tsc(cpu, value - cpu->msr.tsc_adjust); return true;
    case SPECIAL_PRED_CMD: return !(value & ~1ull);
    case SPECIAL_MICROCODE: return true; /* software clears it before CPUID fills it in again */
    case SPECIAL_MTRR: return write_variable_mtrr(cpu, index, value);
    case SPECIAL_MTRR_DEFAULT: return write_mtrr_default(cpu, value);
    case SPECIAL_EFER: return write_efer(cpu, value);
    case SPECIAL_FS_BASE: return write_segment_base(cpu, CPU_FS, value);
    case SPECIAL_GS_BASE: return write_segment_base(cpu, CPU_GS, value);
    case SPECIAL_TSC_AUX:
        if (value >> 32)
            return false;
        cpu->msr.tsc_aux = value;
        return true;
    case SPECIAL_ARCH_CAPABILITIES: /* read only */
    case SPECIAL_NONE: break;
    }
    return false;
}

/* ---- RDMSR, WRMSR ---- */

size_t cpu_msr_place(const struct cpu *cpu, uint32_t index) {
    switch (find_special(cpu, index)) {
    case SPECIAL_EFER:
        return offsetof(struct cpu, msr.efer);
    case SPECIAL_FS_BASE:
        return offsetof(struct cpu, segment[CPU_FS].base);
    case SPECIAL_GS_BASE:
        return offsetof(struct cpu, segment[CPU_GS].base);
    case SPECIAL_NONE:
        break;
    default:
        return 0;
    }
    const struct msr_row *row = is_controllers(cpu, index) ? NULL : find_row(cpu, index);
    if (!row || !is_stored(row))
        return 0;
    return offsetof(struct cpu, msr) + row->offset + 8 * (index - row->index);
}

bool cpu_read_msr(struct cpu *cpu, uint32_t index, uint64_t *value) {
    enum special special = find_special(cpu, index);
    if (special != SPECIAL_NONE)
        return read_special(cpu, special, index, value);
    if (is_controllers(cpu, index))
        return read_controller(cpu, index, value);
    const struct msr_row *row = find_row(cpu, index);
    return row && read_row(cpu, row, index, value);
}

bool cpu_write_msr(struct cpu *cpu, uint32_t index, uint64_t value) {
    enum special special = find_special(cpu, index);
    if (special != SPECIAL_NONE)
        return write_special(cpu, special, index, value);
    if (is_controllers(cpu, index))
        return write_controller(cpu, index, value);
    const struct msr_row *row = find_row(cpu, index);
    return row && write_row(cpu, row, index, value);
}

enum cpu_result cpu_op_rdmsr(struct cpu *cpu, const struct cpu_op *op) {
    (void)op;
    uint64_t value;
    if (cpu->cpl || !cpu_read_msr(cpu, (uint32_t)cpu->hot.gpr[CPU_RCX], &value))
        return cpu_fault_code(cpu, VECTOR_GP, 0);
    cpu->hot.gpr[CPU_RAX] = (uint32_t)value;
    cpu->hot.gpr[CPU_RDX] = value >> 32;
    return CPU_NEXT;
}

enum cpu_result cpu_op_wrmsr(struct cpu *cpu, const struct cpu_op *op) {
    uint32_t index = (uint32_t)cpu->hot.gpr[CPU_RCX];
    uint64_t value = (uint32_t)cpu->hot.gpr[CPU_RAX] | cpu->hot.gpr[CPU_RDX] << 32;
    if (cpu->cpl || !cpu_write_msr(cpu, index, value))
        return cpu_fault_code(cpu, VECTOR_GP, 0);
    if (index != MSR_EFER)
        return CPU_NEXT;
    cpu->hot.rip += op->length;
    return CPU_JUMP;
}
