/*
 * What the planning of a loop knows of it (loop_plan.c, loop_count.c, loop_checks.c).
 */
#ifndef TRANSLATOR_LOOP_OUTLOOK_H
#define TRANSLATOR_LOOP_OUTLOOK_H

#include "translator/translation.h"

enum { OUTLOOK_BRANCHES = 24, STEP_LIMIT = 1 << 16 };

struct branch {
    uint16_t at, target; /* offsets from the block's start; targets outside of the loop are not kept */
};

/* Guest registers that hold a constant. */
struct constants {
    uint32_t known;
    uint64_t value[CPU_REGISTERS];
};

/* The last instruction, as one that a branch on equality and the like may look at. */
struct comparison {
    bool is_valid, is_step; /* is_step: of the register's new value with 0, and its carry is none */
    uint8_t guest, bits;
    uint64_t value;
};

struct outlook {
    struct translation *t;
    const uint8_t *bytes;
    unsigned left;
    struct branch branch[OUTLOOK_BRANCHES];
    unsigned branch_count;
    uint64_t begins[1024 / 64];              /* offsets at which instructions begin */
    int64_t step[LOOP_PARTS][CPU_REGISTERS]; /* of a round; 0: stays the same; WINDOW_REACH: not constant */
    unsigned uses[CPU_REGISTERS];
    uint16_t plain[LOOP_PARTS]; /* guest registers that are more than the base of an address */
    uint32_t fixed;             /* guest registers that an instruction names by itself, or by their high byte */
    struct address address[BLOCK_INSTRUCTIONS];
    enum site_form form[BLOCK_INSTRUCTIONS];
    uint16_t place[BLOCK_INSTRUCTIONS]; /* offsets of the accesses */
    unsigned address_count;
    bool has_soft_access;
    /* loop_count.c: */
    struct constants now,
        entry[LOOP_PARTS]; /* in front of this instruction, and where a part is entered from outside */
    uint32_t written[LOOP_PARTS],
        written_again[LOOP_PARTS];     /* guest registers that a round changes, and more than once */
    int64_t count[CPU_REGISTERS];      /* by how much their last change moved them, where that is a constant */
    uint8_t count_bits[CPU_REGISTERS]; /* width of that change; 0: it is not */
    struct comparison comparison;
};

static inline unsigned outlook_offset(const struct translation *t) {
    return (unsigned)(t->in.rip - t->start_rip);
}

static inline bool loop_part_holds(const struct loop_part *part, unsigned offset) {
    return offset >= part->first && offset <= part->last;
}

static inline bool loop_part_is_within(const struct loop_part *inner, const struct loop_part *part) {
    return inner->first > part->first && inner->last <= part->last;
}

/* ---- loop_count.c: in front of each instruction, in their order, and behind it ---- */
void loop_count_before(struct outlook *o);
void loop_count_after(struct outlook *o);

/* ---- loop_checks.c ---- */
void loop_plan_checks(struct outlook *o);
void loop_plan_bias(struct outlook *o);

#endif
