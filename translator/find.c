/* Look-ups of blocks, and linking of their exits; light code. */
#include "cpu/mode.h"
#include "cpu/views.h"
#include "translator/engine.h"

struct block *code_cache_find(const struct code_cache *cache, uint64_t host) {
    if (!code_cache_holds(cache, host))
        return NULL;
    uint64_t offset = host - (uint64_t)cache->execute;
    const struct code_chunk *chunk = &cache->chunk[offset / cache->chunk_size];
    uint32_t first = chunk->granule[offset % cache->chunk_size / CODE_GRANULE];
    uint32_t count = atomic_load_explicit(&chunk->block_count, memory_order_acquire);
    for (uint32_t i = first - 1; first && i < count; i++) {
        struct block *block = chunk->blocks[i];
        if (host < (uint64_t)block->host)
            return NULL;
        if (host < (uint64_t)block->host + block->host_size)
            return block;
    }
    return NULL;
}

/* Whether the page after the block's first one is still the one that its crossing instruction was read from. */
static bool second_page_matches(struct cpu *cpu, const struct block *block) {
    if (block->second_page == BLOCK_NO_PAGE)
        return true;
    uint64_t physical;
    uint64_t linear = (cpu->segment[CPU_CS].base * !(block->key & MODE_CODE64) + block->rip + MEMORY_PAGE) &
                      ~MEMORY_PAGE_MASK;
    if (!(block->key & MODE_CODE64))
        linear &= 0xffffffffu;
    return cpu_fetch_page(cpu, linear, &physical) == CPU_NEXT && physical == block->second_page;
}

/* The same code may have been translated under a larger limit of the code segment. */
static bool is_within_limit(const struct cpu *cpu, const struct block *block) {
    return (block->key & (MODE_CODE64 | MODE_FLAT)) || block->rip + block->guest_size - 1 <= cpu->segment[CPU_CS].limit;
}

struct block *engine_find(struct engine *engine, uint64_t physical, uint64_t rip, uint32_t key, struct cpu *cpu) {
    struct block *block = atomic_load_explicit(&engine->hash[engine_hash(physical, rip, key)], memory_order_acquire);
    for (; block; block = block->hash_next)
        if (block->physical == physical && block->rip == rip && block->key == key &&
            is_within_limit(cpu, block) && second_page_matches(cpu, block))
            return block;
    return NULL;
}

/* A direct link is sound where both ends are in one page: running the one proves the mapping of the other. */
static bool may_link(const struct block *from, const struct block *to) {
    return from->is_valid && to->is_valid && from->key == to->key &&
           (from->physical & ~MEMORY_PAGE_MASK) == (to->physical & ~MEMORY_PAGE_MASK) &&
           (from->rip & ~MEMORY_PAGE_MASK) == (to->rip & ~MEMORY_PAGE_MASK) && to->second_page == BLOCK_NO_PAGE &&
           from->second_page == BLOCK_NO_PAGE;
}

bool engine_link(struct engine *engine, struct block *from, struct site *site, struct block *to) {
    if (!from || !site->other || site->target || !may_link(from, to))
        return false;
    if (atomic_flag_test_and_set_explicit(&engine->link_lock, memory_order_acquire))
        return false;
    bool is_new = !site->target;
    if (is_new) {
        uint64_t displacement = (uint64_t)from->host + site->other;
        uint32_t relative = (uint32_t)((uint64_t)to->host - (displacement + 4));
        code_cache_patch(&engine->cache, displacement, relative);
        site->target = to;
        site->next_incoming = to->incoming;
        to->incoming = site;
    }
    atomic_flag_clear_explicit(&engine->link_lock, memory_order_release);
    return is_new;
}
