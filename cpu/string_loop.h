/*
 * The registers of a string instruction: index registers and count in the instruction's address size, their direction,
 * and when a repetition gives way to interrupts (SDM vol. 1, 7.3.9).
 */
#ifndef CPU_STRING_LOOP_H
#define CPU_STRING_LOOP_H

#include "cpu/op.h"

#define STRING_MAX_BYTES (1u << 20) /* that one call moves */

struct string {
    struct cpu *cpu;
    const struct cpu_op *op;
    unsigned size, shift; /* bytes of an element, and their logarithm */
    bool is_backward;
    bool is_plain;   /* in this mode, addresses in segments other than FS and GS are linear and of any alignment */
    uint64_t mask;   /* of the address size */
    uint64_t count;  /* elements left; 1 without REP */
    uint64_t moved;  /* bytes so far in this call */
};

void string_begin(struct string *string, struct cpu *cpu, const struct cpu_op *op, unsigned size);
static inline uint64_t string_index(const struct string *string, unsigned index) {
    return string->cpu->hot.gpr[index] & string->mask;
}
/* Moves an index register over n elements. */
void string_advance(const struct string *string, unsigned index, uint64_t n);
/* Counts n elements as done. */
void string_count(struct string *string, uint64_t n);
/* Whether to give way now, with string_pause. Single step stops after every element. */
bool string_gives_way(const struct string *string);
/*
 * Leaves rip at the instruction itself, so that what is left runs when the vCPU comes back. RF tells of it in the frame of
 * what comes in between, and keeps the breakpoint of the instruction from being met again (SDM vol. 3B, 17.3.1.1).
 */
enum cpu_result string_pause(struct string *string);

#endif
