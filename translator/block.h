/*
 * A block: translated code of consecutive guest instructions, and what is known about it.
 *
 * A block is identified by the guest-physical address it was read from, its rip, and the mode key (cpu/mode.h). Sites
 * are the places where it may leave for C code; each is found by the return address of the call that leaves.
 */
#ifndef TRANSLATOR_BLOCK_H
#define TRANSLATOR_BLOCK_H

#include "cpu/op.h"
#include "memory/guest_memory.h"
#include "translator/instruction_map.h"

enum site_kind {
    SITE_READ,    /* shadow page table miss; info: bytes; other: offset to try again at; data: segment */
    SITE_WRITE,   /* likewise, of a store or read-modify-write */
    SITE_SEGMENT, /* a segment check failed; run the instruction the slow way */
    SITE_EXIT,    /* leave for rip + data; other: offset of the displacement to patch, 0: never linked; info: 1 in the
                     shadow of STI */
    SITE_RAISE,   /* exception data */
    SITE_BREAK,   /* the debugger's breakpoint is at this instruction */
    SITE_INDIRECT, /* leave for S; data: what the stack pointer has to be moved by to undo the branch */
    SITE_RETURN,  /* no call: a return site; host: its offset */
    SITE_REPEATED, /* no call: REP MOVS (info: 1) or STOS on host addresses; other: offset of the guest instruction's code */
};

struct site {
    uint16_t host;  /* offset of the return address in the block's code */
    uint16_t guest; /* offset of the instruction from the block's rip */
    uint16_t other;
    uint8_t kind, info;
    int64_t data;
    struct block *target; /* SITE_EXIT: linked to */
    struct site *next_incoming;
};

/* An instruction that a C function runs, found by the pointer that translated code passes. */
struct helper_call {
    struct cpu_op op;
    cpu_op_function *function;
    struct block *block;
    uint64_t rip;
    bool ends_block, is_user;
    bool is_plain; /* the block goes on behind it, without a look at anything but what it has changed */
};

/* Of the data of SITE_READ and SITE_WRITE: the segment, whether a mask decides what is touched, whether the operand must
   be aligned to its size, whether the access is locked, and whether a pending x87 error comes before its faults. */
enum { SITE_SEGMENT_BITS = 7, SITE_MASKED = 8, SITE_ALIGNED = 16, SITE_LOCKED = 32, SITE_X87 = 64 };
/*
 * And without MODE_SLOW: a read that is the instruction's only access, so that it may be made from a buffer; a store of a
 * general register, or of an immediate of 32 bits, that does nothing else.
 */
enum {
    SITE_SOLE = 128, SITE_MOVE = 256, SITE_MOVE_IMMEDIATE = 512, SITE_HIGH_BYTE = 1024,
    SITE_REGISTER_SHIFT = 16, SITE_IMMEDIATE_SHIFT = 32
};

#define BLOCK_NO_PAGE (~0ull)
#define BLOCK_SWAPS 5

/* While a round of a loop runs, `inner` is in the host register of `outer`, which is in cpu->hot.swapped. */
struct block_swap {
    uint8_t inner, outer;
};

#define BLOCK_PARTS 8 /* of a loop */

/* Host offsets of the checks in front of a part of a loop, and the offset of the part's first instruction. */
struct block_check {
    uint16_t start, end, guest;
};

/* Host offsets between which guest registers have the addend of group B added to them. */
struct block_bias {
    uint16_t start, end, registers;
};

/* Of a block that is a loop, what a host fault in it has to know. */
struct block_loop {
    uint16_t start, end; /* host offsets of its rounds, where the swaps are in force */
    uint8_t swap_count, check_count, bias_count;
    struct block_swap swap[BLOCK_SWAPS];
    struct block_check check[BLOCK_PARTS];
    struct block_bias bias[BLOCK_PARTS];
};

struct relocation;

struct block {
    /* What look-ups read comes first. */
    uint64_t rip, physical; /* of the first instruction */
    struct block *hash_next;
    uint8_t *host;          /* executable address */
    uint64_t second_page;   /* guest-physical page of an instruction that crosses into the next page */
    uint32_t key, host_size;
    uint32_t seen;          /* view_stamp of the window that was last found to run it */
    uint16_t guest_size, site_count, instruction_count;
    uint16_t released;      /* bytes that its RET takes from the stack */
    struct site *sites;
    uint16_t shadowed;      /* offset of the instruction behind an STI that runs in place, 0: none */
    uint16_t relocation_count;
    uint16_t map_words;
    bool is_valid;
    struct block_loop *loop; /* NULL: it is none */
    struct relocation *relocations; /* NULL: it cannot be moved, or is a copy itself */
    uint16_t *map;          /* of the instructions, packed */
    struct site *incoming;  /* exits linked to this block */
    struct block *page_next[2]; /* in the lists of the pages of `physical` and `second_page` */
};

static inline const struct site *block_find_site(const struct block *block, uint64_t return_address) {
    uint64_t offset = return_address - (uint64_t)block->host;
    unsigned low = 0, high = block->site_count;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (block->sites[middle].host < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low < block->site_count && block->sites[low].host == offset ? &block->sites[low] : NULL;
}

static inline struct map_reader block_map(const struct block *block) {
    return map_read(block->map, block->instruction_count);
}

/* The instruction whose code holds the host address. */
static inline struct instruction_map block_instruction_at(const struct block *block, uint64_t host) {
    uint64_t offset = host - (uint64_t)block->host;
    struct instruction_map found = {0};
    for (struct map_reader reader = block_map(block); map_next(&reader) && reader.now.host <= offset;)
        found = reader.now;
    return found;
}

static inline int64_t block_stack_at(const struct block *block, uint64_t host) {
    return block_instruction_at(block, host).stack;
}

static inline uint64_t block_rip_at(const struct block *block, uint64_t host) {
    return block->rip + block_instruction_at(block, host).guest;
}

#endif
