/*
 * Memory for translated code and the blocks in it: one memfd mapped twice, executable here and writable there, cut
 * into chunks that are filled in turn and evicted whole, oldest first.
 *
 * Adding is for the holder of the translator's lock; look-ups by address are for any vCPU at any time; eviction is for
 * a stopped world.
 */
#ifndef TRANSLATOR_CODE_CACHE_H
#define TRANSLATOR_CODE_CACHE_H

#include "translator/block.h"
#include "translator/emit.h"

#define CODE_CHUNKS 16
#define CODE_CHUNK_BLOCKS (1u << 20)
#define CODE_GRANULE 1024u

struct code_chunk {
    uint32_t used;               /* bytes of code */
    uint64_t populated;          /* bytes from the start that the host has been asked to map */
    _Atomic uint32_t block_count;
    struct block **blocks;       /* in the order of their addresses */
    uint32_t *granule;           /* 1 + index of the first block that reaches into each CODE_GRANULE bytes */
    struct code_arena *arena;    /* metadata */
};

struct code_cache {
    uint8_t *execute, *write;    /* the two mappings */
    uint64_t size, chunk_size;
    uint32_t stub_size;          /* at the front of chunk 0's space, never evicted */
    struct code_chunk chunk[CODE_CHUNKS];
    unsigned current;
    struct code_arena *free_arenas; /* of evicted chunks: to map them anew is to have the host clear them */
    bool lacks_bmi2;             /* for emitters */
};

/* False with errno set when the host refuses. */
bool code_cache_create(struct code_cache *cache, uint64_t size);
void code_cache_destroy(struct code_cache *cache);

/* An emitter at the free end of the current chunk; false when fewer than `room` bytes are left there. */
bool code_cache_reserve(struct code_cache *cache, unsigned room, struct emitter *emitter);
/* Room for metadata, to be written in full, that lives as long as the current chunk's code, at an address below 4 GiB where possible; or NULL. */
void *code_cache_allocate(struct code_cache *cache, size_t size);
/* Makes `block`, whose code starts at block->host, findable, and its space used. */
bool code_cache_commit(struct code_cache *cache, struct block *block);

/* The block whose code holds the executable address, or NULL. Light code. */
struct block *code_cache_find(const struct code_cache *cache, uint64_t host);

static inline bool code_cache_holds(const struct code_cache *cache, uint64_t host) {
    return host - (uint64_t)cache->execute < cache->size;
}
/* The writable alias of an executable address. */
static inline uint8_t *code_cache_writable(const struct code_cache *cache, uint64_t host) {
    return cache->write + (host - (uint64_t)cache->execute);
}

/*
 * Changes a displacement that emit_align_displacement has placed, by a store of the whole word around it; for one thread at
 * a time. No two blocks share such a word.
 */
static inline void code_cache_patch(const struct code_cache *cache, uint64_t displacement, uint32_t value) {
    uint64_t *word = (uint64_t *)code_cache_writable(cache, displacement & ~7ull);
    unsigned shift = 8 * (displacement & 7);
    uint64_t rest = *word & ~(0xffffffffull << shift);
    __atomic_store_n(word, rest | (uint64_t)value << shift, __ATOMIC_RELEASE);
}

/* Starts the next chunk; what it held must have been forgotten by everyone (invalidate.c). */
void code_cache_advance(struct code_cache *cache);
static inline struct code_chunk *code_cache_next_chunk(struct code_cache *cache) {
    return &cache->chunk[(cache->current + 1) % CODE_CHUNKS];
}

#endif
