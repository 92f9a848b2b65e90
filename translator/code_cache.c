/* The code cache's memory; see the header. */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "translator/code_cache.h"
#include "translator/huge.h"

#define ARENA_SIZE (2u << 20)
#define CODE_ALIGNMENT 64ull /* blocks that shared a cache line made calls up to 1.3 times as slow, by where they happened to lie */
#define POPULATE_STEP (256u * 1024) /* of code: page faults are dear, and the first translation of code is full of them */

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

struct code_arena {
    struct code_arena *next;
    size_t used;
};

static void *anonymous(size_t size, int flags) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

/* Where huge pages can be mapped. */
static void *map_aligned(size_t size, int rights, int fd) {
    uint8_t *room = mmap(NULL, size + HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
        return NULL;
    size_t before = -(uintptr_t)room & (HUGE_PAGE - 1);
    if (before)
        munmap(room, before);
    munmap(room + before + size, HUGE_PAGE - before);
    void *memory = mmap(room + before, size, rights, MAP_SHARED | MAP_FIXED, fd, 0);
    if (memory != MAP_FAILED)
        return memory;
    munmap(room + before, size);
    return NULL;
}

static bool chunk_create(struct code_chunk *chunk, uint64_t size) {
    chunk->blocks = anonymous(CODE_CHUNK_BLOCKS * sizeof *chunk->blocks, 0);
    chunk->granule = anonymous(size / CODE_GRANULE * sizeof *chunk->granule, 0);
    return chunk->blocks && chunk->granule;
}

bool code_cache_create(struct code_cache *cache, uint64_t size) {
    memset(cache, 0, sizeof *cache);
    cache->chunk_size = size / CODE_CHUNKS & ~0xffffull;
    cache->size = cache->chunk_size * CODE_CHUNKS;
    int fd = memfd_create("trapeze-code", MFD_CLOEXEC);
    if (fd < 0)
        return false;
    bool done = false;
    if (ftruncate(fd, (off_t)cache->size) == 0) {
        cache->execute = map_aligned(cache->size, PROT_READ | PROT_EXEC, fd);
        cache->write = map_aligned(cache->size, PROT_READ | PROT_WRITE, fd);
        done = cache->execute && cache->write;
    }
    int saved = errno;
    close(fd);
    for (unsigned i = 0; i < CODE_CHUNKS && done; i++)
        done = chunk_create(&cache->chunk[i], cache->chunk_size);
    if (!done) {
        code_cache_destroy(cache);
        errno = saved;
    }
    return done;
}

static void arenas_destroy(struct code_arena *arena) {
    while (arena) {
        struct code_arena *next = arena->next;
        huge_free(arena, ARENA_SIZE);
        arena = next;
    }
}

static void arenas_release(struct code_cache *cache, struct code_chunk *chunk) {
    while (chunk->arena) {
        struct code_arena *next = chunk->arena->next;
        chunk->arena->next = cache->free_arenas;
        cache->free_arenas = chunk->arena;
        chunk->arena = next;
    }
}

static struct code_arena *arena_take(struct code_cache *cache) {
    struct code_arena *arena = cache->free_arenas;
    if (!arena)
        return huge_allocate(ARENA_SIZE, true);
    cache->free_arenas = arena->next;
    return arena;
}

void code_cache_destroy(struct code_cache *cache) {
    for (unsigned i = 0; i < CODE_CHUNKS; i++) {
        struct code_chunk *chunk = &cache->chunk[i];
        arenas_destroy(chunk->arena);
        if (chunk->blocks)
            munmap(chunk->blocks, CODE_CHUNK_BLOCKS * sizeof *chunk->blocks);
        if (chunk->granule)
            munmap(chunk->granule, cache->chunk_size / CODE_GRANULE * sizeof *chunk->granule);
    }
    arenas_destroy(cache->free_arenas);
    if (cache->execute)
        munmap(cache->execute, cache->size);
    if (cache->write)
        munmap(cache->write, cache->size);
    memset(cache, 0, sizeof *cache);
}

/* A huge page, in both places: it comes ten times faster than its small ones, and takes one entry of the host's TLB. */
static bool collapse(struct code_cache *cache, uint64_t at) {
    cache->write[at] = 0xcc; /* the host collapses nothing where no page is */
    return madvise(cache->write + at, HUGE_PAGE, MADV_COLLAPSE) == 0 &&
           madvise(cache->execute + at, HUGE_PAGE, MADV_COLLAPSE) == 0;
}

/* Has the host map the next step of code in both places at once. Older kernels refuse; the pages come one by one then. */
static void populate(struct code_cache *cache, struct code_chunk *chunk, uint64_t wanted) {
    while (chunk->populated < wanted && chunk->populated < cache->chunk_size) {
        uint64_t left = cache->chunk_size - chunk->populated, step = left < POPULATE_STEP ? left : POPULATE_STEP;
        uint64_t at = (uint64_t)(chunk - cache->chunk) * cache->chunk_size + chunk->populated;
        if (at % HUGE_PAGE == 0 && left >= HUGE_PAGE && collapse(cache, at)) {
            chunk->populated += HUGE_PAGE;
            continue;
        }
        madvise(cache->write + at, step, MADV_POPULATE_WRITE);
        madvise(cache->execute + at, step, MADV_POPULATE_READ);
        chunk->populated += step;
    }
}

bool code_cache_reserve(struct code_cache *cache, unsigned room, struct emitter *emitter) {
    struct code_chunk *chunk = &cache->chunk[cache->current];
    uint64_t used = (chunk->used + CODE_ALIGNMENT - 1) & ~(CODE_ALIGNMENT - 1);
    if (used + room > cache->chunk_size || chunk->block_count == CODE_CHUNK_BLOCKS)
        return false;
    populate(cache, chunk, used + room);
    uint8_t *start = cache->write + cache->current * cache->chunk_size + used;
    *emitter = (struct emitter){
        .at = start, .end = start + room, .delta = cache->execute - cache->write, .lacks_bmi2 = cache->lacks_bmi2};
    return true;
}

void *code_cache_allocate(struct code_cache *cache, size_t size) {
    struct code_chunk *chunk = &cache->chunk[cache->current];
    size = (size + 7) & ~(size_t)7;
    assert(size < ARENA_SIZE / 2);
    if (!chunk->arena || ARENA_SIZE - chunk->arena->used < size) {
        struct code_arena *arena = arena_take(cache);
        if (!arena)
            return NULL;
        *arena = (struct code_arena){.next = chunk->arena, .used = sizeof *arena};
        chunk->arena = arena;
    }
    void *memory = (uint8_t *)chunk->arena + chunk->arena->used;
    chunk->arena->used += size;
    return memory;
}

bool code_cache_commit(struct code_cache *cache, struct block *block) {
    struct code_chunk *chunk = &cache->chunk[cache->current];
    uint64_t start = (uint64_t)(block->host - cache->execute) - cache->current * cache->chunk_size;
    uint64_t end = start + block->host_size;
    uint32_t count = atomic_load(&chunk->block_count);
    if (count == CODE_CHUNK_BLOCKS)
        return false;
    chunk->blocks[count] = block;
    for (uint64_t i = start / CODE_GRANULE; i <= (end - 1) / CODE_GRANULE; i++)
        if (!chunk->granule[i])
            chunk->granule[i] = count + 1;
    atomic_store(&chunk->block_count, count + 1);
    chunk->used = (uint32_t)end;
    return true;
}

void code_cache_advance(struct code_cache *cache) {
    cache->current = (cache->current + 1) % CODE_CHUNKS;
    struct code_chunk *chunk = &cache->chunk[cache->current];
    arenas_release(cache, chunk);
    memset(chunk->granule, 0, cache->chunk_size / CODE_GRANULE * sizeof *chunk->granule);
    chunk->block_count = 0;
    chunk->used = cache->current == 0 ? cache->stub_size : 0;
}
