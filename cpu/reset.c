/*
 * The state after RESET, INIT and a start-up IPI (SDM vol. 3A, table 9-1 and 8.4).
 */
#include "cpu/access.h"
#include "cpu/mode.h"
#include "cpu/model.h"
#include "cpu/ops.h"
#include "cpu/segment.h"

#define RESET_PAT 0x0007040600070406ull
#define DR6_FIXED 0xffff0ff0u
#define DR7_FIXED 0x400u

/* Legacy area and header of the XSAVE image (SDM vol. 1, 13.4). */
enum { XSAVE_FCW = 0, XSAVE_FTW = 4, XSAVE_MXCSR = 24, XSAVE_XSTATE_BV = 512 };

/* Registers that RESET and INIT treat alike. */
static void reset_registers(struct cpu *cpu) {
    uint32_t leaf1[4];

    cpu_cpuid(cpu, 1, 0, leaf1);
    for (unsigned i = 0; i < CPU_REGISTERS; i++)
        cpu->hot.gpr[i] = 0;
    cpu->hot.gpr[CPU_RDX] = leaf1[0]; /* the processor's signature */
    cpu->hot.rip = 0xfff0;
    cpu->hot.rflags = FLAG_FIXED;
    for (unsigned i = 0; i < CPU_SEGMENTS; i++)
        cpu->segment[i] = (struct trapeze_segment){.limit = 0xffff, .attributes = SEGMENT_REAL_TYPE};
    cpu->segment[CPU_CS].selector = 0xf000;
    cpu->segment[CPU_CS].base = 0xffff0000;
    cpu->ldtr = (struct trapeze_segment){.limit = 0xffff, .attributes = SEGMENT_P | DESCRIPTOR_LDT};
    cpu->tr = (struct trapeze_segment){.limit = 0xffff, .attributes = SEGMENT_P | DESCRIPTOR_TSS32_BUSY};
    cpu->gdtr.base = cpu->idtr.base = 0;
    cpu->gdtr.limit = cpu->idtr.limit = 0xffff;
    cpu->cr2 = cpu->cr3 = cpu->cr4 = 0;
    cpu->msr.efer = 0;
    cpu_clear(cpu->pdpte, sizeof cpu->pdpte);
    cpu_clear(cpu->dr, sizeof cpu->dr);
    cpu->dr[6] = DR6_FIXED;
    cpu->dr[7] = DR7_FIXED;
    cpu->cpl = 0;
    cpu->interrupt_shadow = cpu->nmi_blocked = cpu->halted = cpu->delivering = false;
}

static void reset_vector_state(struct cpu *cpu) {
    cpu_clear(cpu->xsave, sizeof cpu->xsave);
    cpu->x87 = (struct cpu_x87){0};
    *(uint16_t *)(cpu->xsave + XSAVE_FCW) = 0x40;
    cpu->xsave[XSAVE_FTW] = 0xff; /* tags 5555h: valid zeros */
    *(uint32_t *)(cpu->xsave + XSAVE_MXCSR) = 0x1f80;
    *(uint64_t *)(cpu->xsave + XSAVE_XSTATE_BV) = 3; /* x87 and SSE are not in their initial configuration */
}

/* The time-stamp counter runs on, so that processors reset one after the other agree; software's adjustment ends. */
static void reset_msrs(struct cpu *cpu) {
    cpu->tsc_offset -= (int64_t)cpu->msr.tsc_adjust;
    cpu_clear(&cpu->msr, sizeof cpu->msr);
    cpu->msr.pat = RESET_PAT;
    cpu->msr.misc_enable = 1; /* fast strings */
    cpu->apic_disabled = false;
}

static void finish(struct cpu *cpu) {
    /* The boot processor starts by itself, the others wait. */
    cpu->waiting_for_sipi = cpu->index != 0;
    cpu_flush_all(cpu);
    cpu_mode_changed(cpu);
}

void cpu_reset(struct cpu *cpu) {
    reset_msrs(cpu);
    reset_registers(cpu);
    reset_vector_state(cpu);
    cpu->cr0 = CR0_CD | CR0_NW | CR0_ET;
    cpu->xcr0 = 1;
    finish(cpu);
}

void cpu_init(struct cpu *cpu) {
    reset_registers(cpu);
    cpu->cr0 = (cpu->cr0 & (CR0_CD | CR0_NW)) | CR0_ET;
    finish(cpu);
}

void cpu_start(struct cpu *cpu, unsigned vector) {
    cpu->segment[CPU_CS].selector = (uint16_t)((vector & 0xff) << 8);
    cpu->segment[CPU_CS].base = (uint32_t)(vector & 0xff) << 12;
    cpu->hot.rip = 0;
    cpu->waiting_for_sipi = false;
    cpu->halted = false;
    cpu_mode_changed(cpu);
}
