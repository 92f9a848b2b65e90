/*
 * A translation in progress: one block, instruction by instruction. What the files of the rewriter share.
 *
 * decode.c fills `in`, rules.c says what to do with it, and the emit functions here append host code. The order within
 * an instruction is always: everything that can fault, then every change of guest state.
 */
#ifndef TRANSLATOR_TRANSLATION_H
#define TRANSLATOR_TRANSLATION_H

#include <Zydis/Zydis.h>

#include "cpu/mode.h"
#include "cpu/model.h"
#include "cpu/ops.h"
#include "translator/engine.h"

#define BLOCK_INSTRUCTIONS 64
#define BLOCK_SITES 256
#define BLOCK_LATE_EXITS 48
#define BLOCK_ROOM 24576   /* bytes of host code that a block may need */
#define INSTRUCTION_ROOM 1024

/* Which control bits and registers an instruction depends on. */
enum rule_class {
    CLASS_INTEGER,
    CLASS_VEX_INTEGER, /* BMI: VEX-encoded, but no vector state */
    CLASS_X87,
    CLASS_MMX,
    CLASS_SSE,
    CLASS_AVX,
    CLASS_AVX512,
};

enum rule_kind {
    RULE_NONE,     /* not known: #UD, counted */
    RULE_COPY,     /* the host runs it, on the guest's operands */
    RULE_HELPER,   /* a C function runs it */
    RULE_NOTHING,  /* no effect that a guest can see: NOP, prefetch */
    RULE_UD,       /* #UD by definition */
    RULE_JUMP, RULE_JCC, RULE_CALL, RULE_RET, RULE_LOOP,
    RULE_PUSH, RULE_POP, RULE_LEAVE, RULE_LEA, RULE_BIT, RULE_XLAT,
};

enum { RULE_ENDS_BLOCK = 1, RULE_USER = 2 };

struct rule {
    uint8_t kind, class, flags;
    bool needs_vl;    /* AVX512VL, too: 128- and 256-bit forms */
    uint16_t feature; /* enum cpu_feature; without it the instruction is #UD */
    cpu_op_function *function;
};

/*
 * What translate_copy has made of an instruction without a memory operand, kept with the decoded instruction: the same
 * code but for the immediate wherever guest registers have their usual places.
 */
struct copy_template {
    uint8_t size; /* 0: none */
    uint8_t immediate_at, immediate_from, immediate_size; /* offset in the code, and in the instruction */
    uint16_t written;   /* guest registers */
    bool sets_constant; /* a move of the immediate to a register */
    uint8_t code[25];
};

struct instruction {
    uint64_t rip;
    uint8_t bytes[16];
    uint64_t variable; /* host address of the immediate, where that is to be read at run time (variable.c), else 0 */
    struct rule rule;
    /* In the decoder's cache until the next instruction is decoded there, or below. */
    ZydisDecodedInstruction *z;
    ZydisDecodedOperand *operand;
    struct copy_template *template; /* NULL: there is no place for one */
    ZydisDecodedInstruction own_z;
    ZydisDecodedOperand own_operand[ZYDIS_MAX_OPERAND_COUNT];
};

/* A jump to code at the end of the block: a short branch to patch, and an exit to emit there. */
struct late_exit {
    uint8_t *branch;      /* of emit_jrcxz, or NULL */
    uint8_t *second;      /* another one, likewise */
    uint8_t *call;        /* displacement of a 32-bit call or jcc to patch, or NULL */
    uint64_t target;
    bool is_indirect;     /* leave by S instead of for target */
    bool leaves_loop;     /* registers are put back first, and the exit is a full one, unless the target is in the loop */
    bool is_full;         /* a look into the jump cache comes first */
    bool is_poll;         /* of a loop: registers are put back first */
    uint16_t biased;      /* those that the addend of group B was added to where the exit comes from */
    bool is_emitted;
    uint8_t *linkable;    /* displacement that linking patches, or NULL */
};

/* An address whose check is made in front of a part of a loop. */
struct loop_check {
    uint8_t base, index, scale, group;
    bool is_implied; /* by a check in front of a wider part: the index is a constant where this part is entered */
};

#define LOOP_PARTS BLOCK_PARTS
#define LOOP_CHECKS 8
#define LOOP_LABELS 16

/* Instructions from a target of backward branches to the last of these; offsets from the block's start. */
struct loop_part {
    uint16_t first, last;
    bool has_branch, is_straight; /* no branch leads into it, and only its last instruction back */
    bool is_nest;              /* the same but for such parts within it: each round runs all of its instructions */
    bool is_bounded;           /* it is left after a few rounds for sure, so needs no poll */
    bool has_one_entry;        /* branches from outside lead to its first instruction alone */
    bool wants_addend_b;       /* T holds it in front of each round */
    uint16_t biased;           /* guest registers that hold host addresses meanwhile: only bases of accesses in group B */
    uint16_t behind;           /* offset of the instruction behind it */
    uint8_t instructions, copies; /* copies: of a straight part that are still to be made, each a round without a poll */
    bool is_entered;
    uint8_t check_count;
    struct loop_check check[LOOP_CHECKS];
    uint8_t *start;            /* where a round begins */
};

/* What branches within the loop lead to. */
struct loop_label {
    uint16_t guest;
    uint8_t *host;             /* NULL as long as it is not translated */
};

/* A block that branches of its own lead back to the start of (loop_plan.c). */
struct loop {
    bool is_found;
    uint16_t end;              /* offset behind the last branch back */
    uint8_t *branched;         /* behind the last branch with a poll in front */
    unsigned part_count, label_count;
    uint8_t home[CPU_REGISTERS]; /* where guest registers are within it */
    bool keeps_addend;         /* T holds the addend of group B in front of each of its instructions */
    uint16_t biased;           /* registers that hold host addresses now */
    bool goes_back;            /* to `back_to`: the next round's copy */
    uint16_t back_to;
    struct loop_part part[LOOP_PARTS]; /* the first is all of it */
    struct loop_label label[LOOP_LABELS];
};

/* What registers probably hold where a branch leads to. */
struct guess_label {
    uint64_t target;
    uint64_t guess[CPU_REGISTERS];
    uint16_t guessed;
};

#define GUESS_LABELS 8

struct translation {
    struct engine *engine;
    struct cpu *cpu;
    struct emitter e;
    uint32_t key;
    uint64_t start_rip;
    uint8_t *start;
    struct block *block;
    unsigned site_count, instruction_count, late_count;
    bool ended, failed;
    bool must_retry;           /* bytes that were data are code here */
    struct code_page *code;    /* of the first instruction's page; NULL: no memory there */
    bool skips_poll;           /* the instruction is in the shadow of STI */
    uint64_t guess[CPU_REGISTERS]; /* what registers will probably hold (guess.c), */
    uint16_t guessed;          /* those that it knows something of */
    unsigned guess_label_count;
    uint32_t written;          /* guest registers that the block has changed so far */
    uint32_t constants;        /* and those that their last change gave a constant */
    uint64_t constant[CPU_REGISTERS];
    uint16_t checked[2];       /* guest registers that are known to point into a group's regions (memory/window.h) */
    uint32_t drift[CPU_REGISTERS]; /* bytes that such a register may have moved since */
    uint16_t bounded;          /* guest registers that are known to be at most `most` (bounds.c) */
    uint32_t most[CPU_REGISTERS];
    bool stack_has_moved;      /* MODE_NEAR_STACK: the block has written RSP */
    bool has_addend_b;         /* T holds the addend of group B */
    uint16_t tabled;           /* or that of the region that this guest register was in; 0: of none */
    int32_t stack;             /* what the host register of the stack pointer lacks of it (stack.c) */
    uint8_t home[CPU_REGISTERS]; /* where guest registers are now: host_register, but for what a loop swaps */
    int32_t slot[CPU_REGISTERS]; /* and the place in memory of those that are in none */
    struct loop loop;
    uint8_t *immediate;        /* where translate_copy has put it */
    /* From here on nothing is cleared for a new block. */
    struct instruction in;
    struct relocations relocations;
    struct site sites[BLOCK_SITES];
    struct instruction_map map[BLOCK_INSTRUCTIONS + 1];
    struct late_exit late[BLOCK_LATE_EXITS];
    struct guess_label guess_label[GUESS_LABELS];
};

/* ---- decode.c ---- */
struct decoder;
struct decoder *decoder_create(const struct cpu_model *model);
void decoder_destroy(struct decoder *decoder);
/* Decodes up to 15 bytes. False: they are no instruction, in[0].z.length tells nothing. */
bool decode(const struct decoder *decoder, uint32_t key, const uint8_t *bytes, unsigned available, uint64_t rip,
            struct instruction *in);
/* The same, remembering what was decoded before; for the holder of the translator's lock. */
bool decode_cached(struct decoder *decoder, uint32_t key, const uint8_t *bytes, unsigned available, uint64_t rip,
                   struct instruction *in);
/* The general register behind an operand, 0..15, or CPU_NO_REGISTER; *high for AH..BH. */
unsigned decode_gpr(ZydisRegister reg, bool *high);
unsigned decode_segment(ZydisRegister reg);
/* Of cpu_op.mnemonic, for messages. */
const char *decode_mnemonic_name(unsigned mnemonic);
void decode_op(const struct translation *t, struct cpu_op *op);
static inline unsigned code_bits(uint32_t key) {
    return (key & MODE_CODE) == MODE_CODE64 ? 64 : (key & MODE_CODE) == MODE_CODE32 ? 32 : 16;
}

/* ---- rules.c ---- */
/* Fills index[ZYDIS_MNEMONIC_MAX_VALUE + 1], zeroed by the caller, for rule_find. */
void rules_index(uint8_t index[]);
struct rule rule_find(const uint8_t index[], const struct instruction *in);

/* ---- memory_form.c ---- */
enum memory_kind { MEMORY_READ, MEMORY_WRITE, MEMORY_MODIFY };
/* An address before segmentation; registers are guest ones. */
struct address {
    uint8_t segment, base, index, scale, size; /* size: 2, 4 or 8 bytes of address */
    int64_t displacement;
    bool is_constant;                          /* displacement is the whole offset (rip-relative, moffs) */
    bool is_relative;                          /* and it counts rip */
};
/* Whether the instruction's accesses are made in the view's window. */
bool uses_window(const struct translation *t);
/* The explicit memory operand of the instruction. */
struct address address_of(const struct translation *t, const ZydisDecodedOperand *operand);
/* S, or `to`, = offset within the segment. Uses A and S. */
void emit_offset(struct translation *t, const struct address *address);
void emit_offset_to(struct translation *t, const struct address *address, unsigned to);
/* The operand's place as a host memory operand; uses A, S and T, and may leave for a fault there or at the place. */
struct emit_memory emit_reach(struct translation *t, const struct address *address, unsigned size,
                              enum memory_kind kind);
/* The same from S = offset within the segment. */
struct emit_memory emit_reach_offset(struct translation *t, const struct address *address, unsigned size,
                                     enum memory_kind kind);
/* The same, but what faults does so before the place is used: from S = offset to the place [S + A]. */
void emit_access(struct translation *t, const struct address *address, unsigned size, enum memory_kind kind);
/* Makes the place [reg]. */
void emit_flatten(struct translation *t, struct emit_memory *place, unsigned reg);
/* S or A, as one that the place does not need; it may change the place. */
unsigned emit_free_scratch(struct translation *t, struct emit_memory *place);
/*
 * The form for a site: what it turned out to need, else that of the group that the address is in now, if it is known. A
 * wrong guess costs a host fault and another translation.
 */
enum site_form form_of(const struct translation *t, const struct address *address);
/* Reads the check entry for the address in a host register: the host refuses regions of other groups. Uses A. */
void emit_check(struct translation *t, unsigned address, unsigned group);
/* `to` = addend of the region of the 64-bit address in a host register; no host address where there is no such region. */
void emit_region_addend(struct emitter *e, unsigned to, unsigned address);
/* Whether the code, of a supervisor, relies on hot.segment_place and so must keep it where it changes the base itself. */
bool keeps_place(const struct translation *t, unsigned segment);
/* Does that for the base in a host register. Uses A. */
void emit_place(struct translation *t, unsigned segment, unsigned base);
/* Ends a MEMORY_WRITE or MEMORY_MODIFY access after the instruction's effect. */
void emit_access_done(struct translation *t, enum memory_kind kind);
/* emit_reach of the instruction's explicit memory operand. */
struct emit_memory emit_operand(struct translation *t, const ZydisDecodedOperand *operand, enum memory_kind kind);

/* ---- masked.c ---- */
bool is_masked_access(const struct instruction *in);

/* ---- known.c ---- */
/* Behind each instruction: what is still known of the registers that it wrote. */
void note_written(struct translation *t);
void forget_checks(struct translation *t);
/* In front of a block's first instruction: what MODE_NEAR_STACK says. */
void know_stack(struct translation *t);
/* Whether the stack pointer, if the block ended now, might be too far from a region of group A for MODE_NEAR_STACK. */
bool may_stray(const struct translation *t);
/* Sees to that by a check; in front of everything else that an instruction does which leaves for other code. */
void hold_stack(struct translation *t);
/* The same for CALL and RET, whose access in the window does as well. */
void hold_stack_by_access(struct translation *t);
/* How far the instruction moves the register that it writes, or WINDOW_REACH: nobody knows. */
int64_t step_of(const struct translation *t, unsigned guest, const ZydisDecodedOperand *written);

/* ---- bounds.c ---- */
/* Whether the instruction gives a guest register a value that is no larger than *most, at most WINDOW_REACH. */
bool find_bound(const struct translation *t, unsigned *guest, uint32_t *most);

/* ---- guess.c ---- */
void guess_start(struct translation *t);
/* Behind each instruction of a block made for a window. */
void guess_next(struct translation *t);
bool guess_register(const struct translation *t, unsigned guest, uint64_t *value);
bool guess_address(const struct translation *t, const struct address *address, uint64_t *linear);

/* ---- copy.c ---- */
void translate_copy(struct translation *t);

/* ---- variable.c ---- */
/* Sets in.variable for the instruction just decoded. Data that is read as anything but an immediate is code again from now
   on, and the block must be translated anew (must_retry). */
void variable_look(struct translation *t, unsigned available);
/* The same for one that goes on in the page of `more`. */
void variable_refuse(struct translation *t, uint64_t physical, unsigned size);
void translate_variable(struct translation *t);

/* ---- loop_plan.c ---- */
/* Looks ahead from the block's first instruction and decides what the loop, if it is one, keeps in registers. */
void loop_plan(struct translation *t, const uint8_t *bytes, unsigned left);
/* Whether the instruction surely makes its access. */
bool loop_makes_access(const struct instruction *in);

/* ---- loop.c ---- */
/* In front of the first round. */
void loop_enter(struct translation *t);
/* In front of each instruction, and behind it. */
void loop_next(struct translation *t);
void loop_after(struct translation *t);
/* The group that the address was checked for in front, or WINDOW_GROUPS; of the instruction at an offset, of this one. */
unsigned loop_group_at(const struct loop *loop, unsigned offset, const struct address *address);
unsigned loop_group(const struct translation *t, const struct address *address);
/* Where a backward branch within the loop goes, with T made ready for it; NULL: it does not stay in the loop. */
uint8_t *loop_target(struct translation *t, uint64_t target);
/* The code of a target of forward branches; NULL: it is none, or not translated. */
uint8_t *loop_label(const struct translation *t, uint64_t target);
/* Takes the addend off biased registers. */
void loop_unbias(struct translation *t, uint16_t biased);
/* Whether the branch back of a part is followed by a copy of the part, instead of leading back. */
bool loop_repeats(struct translation *t);
/* Behind the branch back of a part. */
void loop_part_end(struct translation *t, bool falls_through);
/* Whether the branch to the target, back within the loop, is not taken often enough for a poll. */
bool loop_is_bounded(const struct translation *t, uint64_t target);
/* Whether the instruction is the last of the loop. */
bool loop_is_last(const struct translation *t);
/* Puts guest registers where other blocks have them. */
void loop_leave(struct translation *t);
/* Leaves in front of an instruction that the block has no room for. */
void loop_break_off(struct translation *t);
/* Behind the code of the last round: registers are where other blocks have them. */
void loop_end(struct translation *t);

/* ---- stack.c ---- */
void translate_push(struct translation *t);
/* False: the C function runs. */
bool translate_push_segment(struct translation *t);
void translate_pop(struct translation *t);
void translate_leave(struct translation *t);
/* False: the C function runs. */
bool translate_pusha(struct translation *t);
bool translate_popa(struct translation *t);
/* A value that goes between two accesses: hot.scratch[VALUE_SLOT]. */
enum { VALUE_SLOT = 2 };
#define R_VALUE (R_STATE(hot.scratch) + 8 * VALUE_SLOT)
void emit_push_value(struct translation *t, unsigned bytes);
/* S = the value on top of the stack, which stays there. */
void emit_peek_to_s(struct translation *t, unsigned bytes);
void emit_move_sp(struct translation *t, int32_t displacement);
/* Pushes the register (S is free to hold it) or the constant, as CALL does; `bytes` wide. */
void emit_push_constant(struct translation *t, uint64_t value, unsigned bytes);
/* Whether the same leaves S as it is. */
bool pushes_beside_s(const struct translation *t);
/* Whether the instruction may be made while t->stack is not 0. */
bool keeps_stack(const struct translation *t);
/* Makes the host register the stack pointer again. */
void settle_stack(struct translation *t);
/* S = the popped value; then the stack pointer moves by bytes + release. */
void emit_pop_to_s(struct translation *t, unsigned bytes, unsigned release);

/* ---- inline.c ---- */
/* False: not in this mode; the C function runs. */
bool translate_inline(struct translation *t);
/* Index register += addend, and back again (by the addend's complement plus one). */
void emit_index_shift(struct translation *t, unsigned host, unsigned addend, bool back);
/* The string instruction without its prefixes for repetition and segment. */
void emit_string(struct translation *t);

/* ---- repeat.c: as above ---- */
bool translate_repeated(struct translation *t);

/* ---- system.c ---- */
/* False: not in this mode; the C function runs. */
bool translate_system(struct translation *t);

/* ---- segments.c: as above ---- */
bool translate_mov_to_segment(struct translation *t);
bool translate_pop_segment(struct translation *t);
bool translate_mov_from_segment(struct translation *t);

/* ---- branch.c ---- */
void translate_jump(struct translation *t);
void translate_jcc(struct translation *t);
void translate_call(struct translation *t);
void translate_ret(struct translation *t);
void translate_loop(struct translation *t);
/* Ends the block by going on at `target`. */
void emit_exit(struct translation *t, uint64_t target);
/* The same behind an STI: the shadow goes on into the target. */
void emit_shadowed_exit(struct translation *t, uint64_t target);
void emit_late_exits(struct translation *t);

/* ---- move.c ---- */
/* Whether a block for the mode and rip may be moved, if everything in it can be. */
bool may_move(uint32_t key, uint64_t rip);
/* Notes that the bytes just emitted come from an address that moves with the block. */
void note_rip(struct translation *t, uint64_t address, enum relocation_kind kind);
/* The same of an address in the block's metadata. */
void note_pointer(struct translation *t, const void *pointer, enum relocation_kind kind);
/* Keeps what was noted with the block just made, and makes the block known to move_block. */
void keep_relocations(struct translation *t);

/* ---- translate.c ---- */
/* -d in_asm, out_asm. */
void log_block(struct engine *engine, const struct block *block, uint64_t linear, const uint8_t *guest);
void emit_helper(struct translation *t, cpu_op_function *function, bool ends_block, bool is_user);
void emit_raise(struct translation *t, enum cpu_vector vector, bool is_missing);
struct site *add_site(struct translation *t, enum site_kind kind);

/* The exception that the mode makes of the instruction, or -1 (SDM vol. 2A, 2.4 to 2.6 and vol. 3A, 13). */
int translate_fault(const struct translation *t);

/* ---- values ---- */
/* T is needed for something else. */
static inline void forget_addend(struct translation *t) {
    t->has_addend_b = false;
    t->tabled = 0;
}
/* Whether the code is that of CPL 0, or may change IF, in blocks of more than one instruction. */
static inline bool is_supervisor(const struct translation *t) {
    return !(t->key & (MODE_CPL | MODE_SLOW | MODE_TF | MODE_BREAKPOINTS));
}
static inline bool owns_if(const struct translation *t) {
    return (t->key & MODE_IOPL3) && !(t->key & (MODE_VM86 | MODE_SLOW | MODE_TF | MODE_BREAKPOINTS));
}
static inline uint16_t host_offset(const struct translation *t) {
    return (uint16_t)(t->e.at - t->start);
}
static inline uint64_t instruction_physical(const struct translation *t) {
    return t->block->physical + (t->in.rip - t->start_rip);
}
static inline uint64_t next_rip(const struct translation *t) {
    return t->in.rip + t->in.z->length;
}
/* A guest register as a host register: itself, or loaded into `scratch`. */
static inline unsigned emit_guest(struct translation *t, unsigned guest, unsigned scratch) {
    if (t->home[guest] != HOST_NONE)
        return t->home[guest];
    emit_load(&t->e, scratch, t->slot[guest]);
    return scratch;
}

#endif
