/* Decoded instructions that are kept by their first bytes. The caller holds the translator's lock. */
#ifndef TRANSLATOR_DECODE_CACHE_H
#define TRANSLATOR_DECODE_CACHE_H

#include "translator/translation.h"

enum decode_mode { DECODE_16, DECODE_32, DECODE_64, DECODE_REAL }; /* DECODE_REAL: virtual-8086 mode, too */

struct decode_cache *decode_cache_create(void);
void decode_cache_destroy(struct decode_cache *cache);

/* Fills in->bytes, and all else but rip if the instruction is known; at most 15 bytes are available. */
bool decode_cache_find(struct decode_cache *cache, enum decode_mode mode, const uint8_t *bytes, unsigned available,
                       struct instruction *in);
/* Takes a decoded instruction in, with its rule, if it can be kept. */
void decode_cache_keep(struct decode_cache *cache, enum decode_mode mode, const struct instruction *in);

#endif
