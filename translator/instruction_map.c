/* Packing of instruction maps; see the header. */
#include "translator/instruction_map.h"

unsigned map_pack(uint16_t *to, const struct instruction_map *from, unsigned count) {
    struct instruction_map before = {0};
    unsigned words = 0;
    for (unsigned i = 0; i < count; before = from[i++]) {
        int host = from[i].host - before.host, guest = from[i].guest - before.guest, stack = from[i].stack - before.stack;
        bool fits = host >= 0 && host < 256 && guest >= 0 && guest < 16 && stack % 8 == 0 && stack >= -64 && stack < 64;
        unsigned word = (unsigned)host | (unsigned)guest << 8 | ((unsigned)(stack / 8) & 15) << 12;
        if (fits && word != MAP_IN_FULL) {
            to[words++] = (uint16_t)word;
            continue;
        }
        to[words++] = MAP_IN_FULL;
        to[words++] = from[i].host;
        to[words++] = from[i].guest;
        to[words++] = (uint16_t)from[i].stack;
    }
    return words;
}
