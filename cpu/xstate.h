/*
 * The guest's live vector and x87 state as an image in standard XSAVE format (SDM vol. 1, 13.4), for instructions that
 * save, load or edit it. The image lies in cpu->xsave_bounce.
 */
#ifndef CPU_XSTATE_H
#define CPU_XSTATE_H

#include "cpu/cpu.h"

enum {
    XSTATE_X87 = 1, XSTATE_SSE = 2, XSTATE_AVX = 4, XSTATE_OPMASK = 0x20, XSTATE_ZMM_HIGH = 0x40, XSTATE_ZMM16 = 0x80,
    XSTATE_AVX512 = 0xe0,
};

/* Offsets in the image. */
enum {
    IMAGE_OPCODE = 6,   /* FOP */
    IMAGE_POINTERS = 8, /* FIP, FCS, FDP, FDS in either layout, up to IMAGE_MXCSR */
    IMAGE_MXCSR = 24, IMAGE_ST = 32, IMAGE_XMM = 160, IMAGE_XMM_END = 416, IMAGE_HEADER = 512, IMAGE_EXTENDED = 576,
};

/* The host's XSAVE of the components in `mask`: all of each, and XSTATE_BV in the image's header. */
uint8_t *xstate_save(struct cpu *cpu, uint64_t mask);
/* The host's XRSTOR. The image must be valid: in standard format, no reserved bit of MXCSR. */
void xstate_restore(struct cpu *cpu, uint64_t mask);

static inline uint64_t *xstate_bv(uint8_t *image) {
    return (uint64_t *)(image + IMAGE_HEADER);
}

/* Whether `mxcsr` has only bits that this processor knows. */
bool xstate_is_mxcsr_valid(const struct cpu *cpu, uint32_t mxcsr);

/* Copies `bytes` (16, 32, 64) of vector register n out of an image of SSE, AVX and what AVX-512 there is. */
void xstate_get_vector(const struct cpu *cpu, const uint8_t *image, unsigned n, void *to, unsigned bytes);
/* Replaces vector register n by 64 bytes. */
void xstate_set_vector(const struct cpu *cpu, uint8_t *image, unsigned n, const void *from);
uint64_t xstate_get_opmask(const struct cpu *cpu, const uint8_t *image, unsigned n);
void xstate_set_opmask(const struct cpu *cpu, uint8_t *image, unsigned n, uint64_t value);

/* Whether an earlier x87 instruction left an unmasked exception, which the next one reports. */
bool xstate_has_x87_error(void);

/* ---- x87.c ---- */

/* Brings cpu->x87 up to date, in guest terms, before it is stored. */
void x87_note_pointers(struct cpu *cpu);
/* From an image that the host's XSAVE has made. */
void x87_note_image(struct cpu *cpu, const uint8_t *image);
/* Puts it into an image of FXSAVE's layout, or takes it out and leaves zeros there; is_wide: with REX.W. */
void x87_store_pointers(const struct cpu *cpu, uint8_t *image, bool is_wide);
void x87_load_pointers(struct cpu *cpu, uint8_t *image, bool is_wide);
/* Reports the exception that an x87 instruction has left: #MF, or where CR0.NE is clear FERR# and a wait for IRQ 13. */
enum cpu_result x87_raise(struct cpu *cpu);

/* #NM and #UD of x87 (is_vector false) and SSE or later instructions: CR0.EM, CR0.TS. */
enum cpu_result xstate_check(struct cpu *cpu, bool is_vector);

#endif
