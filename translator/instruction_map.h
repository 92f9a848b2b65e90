/*
 * Where each guest instruction of a block begins in its host code, packed: most follow the one before them by a few bytes, and
 * there are more of them than of anything else that is known of a block. Reading is light.
 */
#ifndef TRANSLATOR_INSTRUCTION_MAP_H
#define TRANSLATOR_INSTRUCTION_MAP_H

#include <stdbool.h>
#include <stdint.h>

struct instruction_map {
    uint16_t host, guest;
    int16_t stack; /* what the host register of the stack pointer lacks of it in front of the instruction */
};

/* A word's fields are differences to the instruction before: 8 bits of host, 4 of guest, 4 of the stack in units of 8
   bytes. What does not fit follows in full, in three words, behind MAP_IN_FULL. */
enum { MAP_IN_FULL = 0xffff, MAP_WORDS_MOST = 4 };

struct map_reader {
    const uint16_t *at;
    unsigned left; /* instructions */
    struct instruction_map now;
};

/* Fills `to` with at most MAP_WORDS_MOST for each instruction, and answers with how many words it has used. */
unsigned map_pack(uint16_t *to, const struct instruction_map *from, unsigned count);

static inline struct map_reader map_read(const uint16_t *words, unsigned count) {
    return (struct map_reader){.at = words, .left = count};
}

/* Goes on to the next instruction. False: there is none. */
static inline bool map_next(struct map_reader *reader) {
    if (!reader->left)
        return false;
    reader->left--;
    unsigned word = *reader->at++;
    if (word == MAP_IN_FULL) {
        reader->now = (struct instruction_map){reader->at[0], reader->at[1], (int16_t)reader->at[2]};
        reader->at += 3;
        return true;
    }
    reader->now.host = (uint16_t)(reader->now.host + (word & 0xff));
    reader->now.guest = (uint16_t)(reader->now.guest + (word >> 8 & 15));
    reader->now.stack = (int16_t)(reader->now.stack + 8 * ((int)(word >> 12 ^ 8) - 8)); /* the field has a sign */
    return true;
}

#endif
