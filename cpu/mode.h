/*
 * What of the processor's mode the translation of an instruction depends on, packed into cpu->mode_key: a block of
 * translated code runs only under the key it was made for.
 */
#ifndef CPU_MODE_H
#define CPU_MODE_H

#include "cpu/cpu.h"

enum {
    MODE_CODE16 = 0,
    MODE_CODE32 = 1,
    MODE_CODE64 = 2,
    MODE_CODE = 3,
    MODE_STACK32 = 1 << 2,     /* SS.B; set in 64-bit mode too */
    MODE_PROTECTED = 1 << 3,   /* CR0.PE */
    MODE_VM86 = 1 << 4,
    MODE_CPL_SHIFT = 5,
    MODE_CPL = 3 << 5,
    MODE_FLAT = 1 << 7,        /* CS, DS, ES, SS have base 0 and limit 4 GiB and the usual rights (or 64-bit mode) */
    MODE_TS = 1 << 8,          /* CR0.TS */
    MODE_EM = 1 << 9,          /* CR0.EM */
    MODE_MP = 1 << 10,         /* CR0.MP */
    MODE_OSFXSR = 1 << 11,     /* CR4.OSFXSR */
    MODE_AVX = 1 << 12,        /* CR4.OSXSAVE and XCR0 has SSE and AVX */
    MODE_AVX512 = 1 << 13,     /* and the three AVX-512 components */
    MODE_TF = 1 << 14,         /* single step */
    MODE_BREAKPOINTS = 1 << 15, /* DR7 enables an instruction breakpoint, or the debugger has one */
    MODE_LONG = 1 << 16,       /* EFER.LMA: compatibility mode differs from legacy mode */
    MODE_SLOW = 1 << 17,       /* one instruction with every access by the slow way (the translator's own) */
    MODE_IOPL3 = 1 << 18,      /* CPL <= IOPL */
    MODE_UMIP = 1 << 19,       /* CR4.UMIP */
    MODE_TSD = 1 << 20,        /* CR4.TSD */
    MODE_ALIGNMENT = 1 << 22,  /* CR0.AM and RFLAGS.AC at CPL 3: every access is the slow way, which checks */
    MODE_NEAR_STACK = 1 << 23, /* with MODE_WINDOW: RSP is in a region of group A, or not far from one (memory/window.h) */
    MODE_WINDOW = 1 << 21,     /* the view's window is up to date: accesses may be made there */
};

/*
 * Recomputes mode_key, hot.segment[] and the current view after CS, SS, DS, ES, CPL, CR0, CR3, CR4, EFER, XCR0, DR7 or
 * RFLAGS.TF/VM/IOPL/AC changed. Cheap enough for every privilege change. cpu/ functions that change any of these call
 * it before they return; segment loads call cpu_segment_changed.
 */
void cpu_mode_changed(struct cpu *cpu);
/* The same where of the segments none but CS and SS have changed since it was called last. */
void cpu_control_changed(struct cpu *cpu);
/* The same where nothing but CR0.TS, CR0.EM and CR0.MP has changed. */
void cpu_x87_changed(struct cpu *cpu);
/* The same where nothing but CS, SS, CPL and RFLAGS has changed: what was found when this level was left still holds. */
void cpu_level_changed(struct cpu *cpu);
void cpu_segment_changed(struct cpu *cpu, unsigned segment);

/* Makes the views of the current space; false when the host has no memory left. For vCPU creation. */
bool cpu_views_create(struct cpu *cpu);

#endif
