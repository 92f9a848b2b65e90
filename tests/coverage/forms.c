/* Walks the encoding space (SDM vol. 2A, 2.1 to 2.7 and appendix A). */
#include "tests/coverage/forms.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define FILLER 0x11 /* displacements and immediates */

struct walk {
    form_visitor *visit;
    void *opaque;
    struct form_flavour flavour;
    unsigned bits;
    uint8_t code[FORM_BYTES];
};

static void emit(struct walk *walk, unsigned length) {
    memset(walk->code + length, FILLER, FORM_BYTES - length);
    walk->visit(walk->opaque, walk->code);
}

/* The operand of one value of ModRM.reg: a register (every one where `all` is set), [base + disp], and one with SIB. */
static void visit_operands(struct walk *walk, unsigned at, unsigned reg, bool all) {
    for (unsigned rm = 0; rm < 8; rm++) {
        if (!all && rm != walk->flavour.rm)
            continue;
        walk->code[at] = (uint8_t)(0xc0 | reg << 3 | rm);
        emit(walk, at + 1);
    }
    walk->code[at] = (uint8_t)(0x80 | reg << 3 | walk->flavour.rm);
    emit(walk, at + 1);
    walk->code[at] = (uint8_t)(reg << 3 | 4);
    walk->code[at + 1] = walk->flavour.sib;
    emit(walk, at + 2);
}

/* Opcodes whose register forms are instructions of their own for each ModRM.rm. */
static bool tells_by_rm(unsigned map, unsigned opcode) {
    if (map == 0)
        return (opcode >= 0xd8 && opcode <= 0xdf) || opcode == 0xc6 || opcode == 0xc7;
    return map == 1 && (opcode == 0x01 || opcode == 0xae || opcode == 0xc7 || (opcode >= 0x18 && opcode <= 0x1f));
}

static void visit_3dnow(struct walk *walk, unsigned at) {
    for (unsigned suffix = 0; suffix < 256; suffix++) {
        walk->code[at] = (uint8_t)(0xc0 | walk->flavour.rm);
        walk->code[at + 1] = (uint8_t)suffix;
        emit(walk, at + 2);
        walk->code[at] = (uint8_t)(walk->flavour.rm == 3 ? 3 : 7);
        emit(walk, at + 2);
    }
}

static void visit_legacy_opcode(struct walk *walk, unsigned at, unsigned map, unsigned opcode) {
    if (map > 0)
        walk->code[at++] = 0x0f;
    if (map > 1)
        walk->code[at++] = map == 2 ? 0x38 : 0x3a;
    walk->code[at++] = (uint8_t)opcode;
    if (map == 1 && opcode == 0x0f) {
        visit_3dnow(walk, at);
        return;
    }
    for (unsigned reg = 0; reg < 8; reg++)
        visit_operands(walk, at, reg, tells_by_rm(map, opcode));
}

static void visit_legacy(struct walk *walk, unsigned start) {
    static const uint8_t prefixes[][3] = {{0},          {0x66},       {0xf2}, {0xf3},
                                          {0x66, 0xf2}, {0x66, 0xf3}, {0xf0}, {0xf0, 0x66}};
    for (unsigned p = 0; p < sizeof prefixes / sizeof *prefixes; p++) {
        for (unsigned w = 0; w < (walk->bits == 64 ? 2u : 1u); w++) {
            unsigned at = start;
            for (unsigned i = 0; prefixes[p][i]; i++)
                walk->code[at++] = prefixes[p][i];
            unsigned rex = w << 3 | (walk->bits == 64 ? walk->flavour.extensions : 0);
            if (rex)
                walk->code[at++] = (uint8_t)(0x40 | rex);
            for (unsigned map = 0; map < 4; map++)
                for (unsigned opcode = 0; opcode < 256; opcode++)
                    visit_legacy_opcode(walk, at, map, opcode);
        }
    }
}

/* The upper bits of the second byte of VEX, EVEX and XOP: extensions inverted; all ones outside 64-bit mode. */
static uint8_t inverted_extensions(const struct walk *walk) {
    unsigned extensions = walk->bits == 64 ? walk->flavour.extensions & 7u : 0;
    return (uint8_t)(~extensions << 5);
}

static void visit_vex(struct walk *walk, unsigned at, unsigned escape, unsigned first_map) {
    for (unsigned n = 0; n < 3u << 5; n++) { /* map, vvvv, W, L, pp */
        unsigned map = first_map + (n >> 5), vvvv = n >> 4 & 1 ? walk->flavour.vvvv : 0;
        walk->code[at] = (uint8_t)escape;
        walk->code[at + 1] = (uint8_t)(inverted_extensions(walk) | map);
        walk->code[at + 2] = (uint8_t)((n >> 3 & 1) << 7 | (~vvvv & 15) << 3 | (n & 7));
        for (unsigned opcode = 0; opcode < 256; opcode++) {
            walk->code[at + 3] = (uint8_t)opcode;
            for (unsigned reg = 0; reg < 8; reg++)
                visit_operands(walk, at + 4, reg, false);
        }
    }
}

static void visit_evex_prefix(struct walk *walk, unsigned at, unsigned map) {
    for (unsigned opcode = 0; opcode < 256; opcode++) {
        bool is_group =
            (map == 1 && opcode >= 0x70 && opcode <= 0x73) || (map == 2 && opcode >= 0xc6 && opcode <= 0xc7);
        walk->code[at] = (uint8_t)opcode;
        if (!is_group)
            visit_operands(walk, at + 1, walk->flavour.reg, false);
        for (unsigned reg = 0; is_group && reg < 8; reg++)
            visit_operands(walk, at + 1, reg, false);
    }
}

static void visit_evex(struct walk *walk, unsigned at) {
    static const uint8_t maps[] = {1, 2, 3, 5, 6};
    /* z, b and the opmask register */
    static const uint8_t masks[] = {0x00, 0x01, 0x81, 0x10, 0x11, 0x91};
    for (unsigned m = 0; m < sizeof maps; m++) {
        for (unsigned n = 0; n < 1u << 6; n++) { /* vvvv, W, LL, pp */
            unsigned vvvv = n >> 5 & 1 ? walk->flavour.vvvv : 0;
            for (unsigned k = 0; k < sizeof masks; k++) {
                walk->code[at] = 0x62;
                walk->code[at + 1] = (uint8_t)(inverted_extensions(walk) | 0x10 | maps[m]);
                walk->code[at + 2] = (uint8_t)((n >> 4 & 1) << 7 | (~vvvv & 15) << 3 | 4 | (n & 3));
                walk->code[at + 3] = (uint8_t)(masks[k] | (n >> 2 & 3) << 5 | 8);
                visit_evex_prefix(walk, at + 4, maps[m]);
            }
        }
    }
}

void forms_visit(unsigned bits, const struct form_flavour *flavour, form_visitor *visit, void *opaque) {
    struct walk walk = {.visit = visit, .opaque = opaque, .flavour = *flavour, .bits = bits};
    unsigned at = 0;
    if (flavour->prefix)
        walk.code[at++] = flavour->prefix;
    visit_legacy(&walk, at);
    visit_vex(&walk, at, 0xc4, 1);
    visit_vex(&walk, at, 0x8f, 8);
    visit_evex(&walk, at);
}

bool form_set_init(struct form_set *set, unsigned bits) {
    *set = (struct form_set){.hashes = calloc((size_t)1 << bits, sizeof *set->hashes), .bits = bits};
    return set->hashes != NULL;
}

void form_set_release(struct form_set *set) {
    free(set->hashes);
}

bool form_set_add(struct form_set *set, uint64_t hash) {
    uint64_t mask = ((uint64_t)1 << set->bits) - 1;
    hash += hash == 0; /* 0 is a free place */
    assert(set->count < mask / 2);
    for (uint64_t at = (hash * 0x9e3779b97f4a7c15u) >> (64 - set->bits);; at++) {
        uint64_t *place = &set->hashes[at & mask];
        if (*place == hash)
            return false;
        if (*place)
            continue;
        *place = hash;
        set->count++;
        return true;
    }
}
