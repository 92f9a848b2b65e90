/*
 * One instruction test as the generator on the host writes it and the guest reads it: code, the state before, and the
 * state after as the host's own processor left it. Records follow each other in a file behind struct isa_batch.
 *
 * Vector state and memory before the code are functions of the record's seed, so that only what changed is stored.
 * Code and data lie at the same linear addresses on both sides.
 */
#ifndef ISA_CASE_H
#define ISA_CASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ISA_CODE_PAGE  0x60000000u
#define ISA_CODE       (ISA_CODE_PAGE + 0x800u)
#define ISA_DATA       0x61000000u
#define ISA_DATA_SIZE  0x2000u
#define ISA_GS_BASE    0x1000u
/*
 * 16-bit code runs in segments with bases and limits, and from an offset. The last bytes of the data are beyond ES's limit.
 * The upper half of ESP is fixed: an IRET from the guest's kernel to a 16-bit stack leaves it as it is there.
 */
#define ISA_CODE16     0x800u
#define ISA_CS16_BASE  ISA_CODE_PAGE
#define ISA_DS16_BASE  (ISA_DATA - 0x4000u)
#define ISA_ES16_BASE  (ISA_DATA - 0x5000u)
#define ISA_SS16_BASE  (ISA_DATA - 0x6000u)
#define ISA_LIMIT16    0xffffu
#define ISA_ES16_LIMIT 0x6fdfu
#define ISA_ESP16      0x61000000u
#define ISA_PUSH_ROOM  0x200u /* that ENTER needs at most */
#define ISA_MAGIC      0x41534954u
#define ISA_XSAVE_SIZE 8192u
/* x87, SSE, AVX, opmask, ZMM_Hi256, Hi16_ZMM (SDM vol. 1, 13.1) */
#define ISA_XCR0       0xe7u

enum isa_style { ISA_RANDOM, ISA_SINGLE, ISA_DOUBLE, ISA_SMALL, ISA_HALF, ISA_STYLES };

struct isa_batch {
    uint32_t magic, count;
    uint64_t xcr0; /* components that the host has */
};

struct isa_vectors {
    uint16_t fcw, fsw, ftw, reserved;
    uint32_t mxcsr, reserved2;
    uint8_t st[8][16]; /* 10 bytes used */
    uint8_t zmm[32][64];
    uint64_t k[8];
};

struct isa_state {
    uint64_t gpr[16], ip, flags;
};

/*
 * Where processors differ:
 * CR2       counts by its page alone.
 * X87       state does not count after a fault: MMX clears TOP early.
 * ORDER     #SS, #GP and #PF of one operand stand for each other: it is not aligned, or it has parts that fault in ways of
 *           their own (SDM vol. 3A, 6.9: within a class the order is the processor's).
 * PUSH      after a fault nothing counts below the stack pointer: PUSHA and ENTER show what they have pushed by then, or
 *           do not; and see docs/limits.md on a CALL to an address that is not canonical.
 * PARTIAL   no comparison after a fault: POPA has changed the registers that it has popped by then, or has not; a nested
 *           ENTER accesses the frames in an order of the processor's own.
 * GATHER    no comparison after a fault that finds vectors changed: elements may be done, and masks of others be cleared.
 * BRANCH    no comparison after #GP: a branch goes beyond the limit of the code segment, see docs/limits.md.
 */
enum {
    ISA_LOOSE_CR2 = 1, ISA_LOOSE_X87 = 2, ISA_LOOSE_ORDER = 4, ISA_LOOSE_PUSH = 8, ISA_LOOSE_PARTIAL = 16,
    ISA_LOOSE_GATHER = 32, ISA_LOOSE_BRANCH = 64,
};

struct isa_record {
    uint32_t size; /* of the whole record; a multiple of 8 */
    uint8_t bits;  /* 16, 32 or 64 */
    uint8_t code_length, style, has_vectors;
    uint8_t code[96];
    char text[96]; /* the first instruction's name and operands, for messages */
    uint64_t seed;
    uint32_t mxcsr;
    uint16_t fcw;
    uint8_t vsib_register, vsib_size; /* a register of small indices; size 0: none */
    uint16_t patch_offset, patch_size; /* bytes put over the data before the code runs */
    uint8_t patch[16];
    struct isa_state before, after;
    uint64_t flags_mask; /* flags that the manual defines */
    uint64_t vector, error, cr2;
    uint32_t runs; /* of changed data */
    uint32_t flags; /* ISA_LOOSE_* */
    /* has_vectors: struct isa_vectors follows. Then `runs` times { uint16_t offset, length; bytes; }. */
};

/* The data before the code: seed, style and patch of the record. */
void isa_fill_data(const struct isa_record *record, uint8_t data[ISA_DATA_SIZE]);
/* Vector state before the code. */
void isa_fill_vectors(const struct isa_record *record, struct isa_vectors *vectors);
/* To and from an XSAVE image in standard format; components the processor lacks are left out. */
void isa_vectors_to_xsave(const struct isa_vectors *vectors, uint64_t xcr0, uint8_t *image);
void isa_vectors_from_xsave(struct isa_vectors *vectors, uint64_t xcr0, const uint8_t *image);
uint64_t isa_random(uint64_t *state);

#endif
