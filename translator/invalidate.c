/*
 * Dropping translated code: because its bytes changed, because its chunk of the cache is needed, or because a page that
 * becomes code may still be written directly. The caller holds engine->lock; except for marking, the world is stopped.
 */
#include <string.h>

#include "memory/window.h"
#include "translator/engine.h"

static struct memory_region *region_of(struct engine *engine, uint64_t page) {
    return memory_find(engine->memory, guest_physical_at(page));
}

static struct code_page *page_of(struct engine *engine, uint64_t page) {
    struct memory_region *region = region_of(engine, page);
    return region ? &region->code_pages[(page - region->base) / MEMORY_PAGE] : NULL;
}

/* ---- Marking ---- */

bool engine_is_code(struct engine *engine, uint64_t page) {
    struct memory_region *region = region_of(engine, page);
    return !region || (atomic_load(memory_page_flags(region, guest_physical_at(page))) & MEMORY_CODE);
}

bool engine_mark_code(struct engine *engine, uint64_t page) {
    struct memory_region *region = region_of(engine, page);
    if (!region)
        return true;
    /* Until the block is in, every store to the page counts as one to its code: it may come after the reading. */
    atomic_store(&page_of(engine, page)->lines, ~0ull);
    _Atomic uint8_t *flags = memory_page_flags(region, guest_physical_at(page));
    uint8_t before = atomic_fetch_or(flags, MEMORY_CODE);
    return (before & MEMORY_CODE) || !(before & MEMORY_WRITE_CACHED);
}

static void for_each_view(struct engine *engine, void (*visit)(struct view *view, uint64_t value), uint64_t value) {
    for (unsigned c = 0; c < engine->vcpu_count; c++)
        view_set_each(&engine->vcpu[c]->views, visit, value);
}

struct written_page {
    uint8_t *memory, *large; /* the page, and the 2 MiB around it */
};

static void drop_writes(struct view *view, uint64_t written) {
    const struct written_page *page = (const struct written_page *)written;
    view_drop_writes(view, (uint64_t)page->memory);
    if (view->window)
        window_drop_writes(view->window, page->memory, page->large);
}

void invalidate_writes(struct engine *engine, uint64_t page) {
    struct memory_region *region = region_of(engine, page);
    if (!region)
        return;
    uint8_t *memory = memory_host(region, guest_physical_at(page));
    struct written_page written = {memory, memory - page % (WINDOW_LARGE * MEMORY_PAGE)};
    for_each_view(engine, drop_writes, (uint64_t)&written);
    atomic_fetch_and(memory_page_flags(region, guest_physical_at(page)), (uint8_t)~MEMORY_WRITE_CACHED);
}

/* ---- Look-up tables ---- */

static unsigned page_link(const struct block *block, uint64_t page) {
    return (block->physical & ~MEMORY_PAGE_MASK) == page ? 0 : 1;
}

/* The 64-byte lines of a page that the block was made from. */
static uint64_t block_lines(const struct block *block, uint64_t page) {
    uint64_t first = block->physical & MEMORY_PAGE_MASK, last = first + block->guest_size - 1;
    if (page_link(block, page) == 1) {
        first = 0;
        last -= MEMORY_PAGE;
    }
    if (last > MEMORY_PAGE_MASK)
        last = MEMORY_PAGE_MASK;
    return (~0ull << (first / 64)) & (~0ull >> (63 - last / 64));
}

static void page_insert(struct engine *engine, struct block *block, uint64_t page) {
    struct code_page *list = page_of(engine, page);
    if (!list)
        return;
    block->page_next[page_link(block, page)] = list->first;
    list->first = block;
    list->block_lines |= block_lines(block, page);
}

static void page_remove(struct engine *engine, struct block *block, uint64_t page) {
    struct code_page *list = page_of(engine, page);
    if (!list)
        return;
    for (struct block **at = &list->first; *at; at = &(*at)->page_next[page_link(*at, page)])
        if (*at == block) {
            *at = block->page_next[page_link(block, page)];
            return;
        }
}

void engine_insert(struct engine *engine, struct block *block) {
    uint64_t page = block->physical & ~MEMORY_PAGE_MASK;
    page_insert(engine, block, page);
    if (block->second_page != BLOCK_NO_PAGE && block->second_page != page)
        page_insert(engine, block, block->second_page);
    unsigned hash = engine_hash(block->physical, block->rip, block->key);
    block->hash_next = atomic_load(&engine->hash[hash]);
    atomic_store(&engine->hash[hash], block);
}

static void hash_remove(struct engine *engine, struct block *block) {
    unsigned hash = engine_hash(block->physical, block->rip, block->key);
    struct block *at = atomic_load(&engine->hash[hash]);
    if (at == block) {
        atomic_store(&engine->hash[hash], block->hash_next);
        return;
    }
    for (; at; at = at->hash_next)
        if (at->hash_next == block) {
            at->hash_next = block->hash_next;
            return;
        }
}

/* ---- Unlinking ---- */

static void patch(struct engine *engine, uint64_t displacement, uint64_t target) {
    uint32_t relative = (uint32_t)(target - (displacement + 4));
    memcpy(code_cache_writable(&engine->cache, displacement), &relative, sizeof relative);
}

static struct block *owner(struct engine *engine, const struct site *site, const struct block *target) {
    /* Linked exits are in the same page as their target. */
    struct code_page *list = page_of(engine, target->physical & ~MEMORY_PAGE_MASK);
    uint64_t page = target->physical & ~MEMORY_PAGE_MASK;
    for (struct block *block = list ? list->first : NULL; block; block = block->page_next[page_link(block, page)])
        if (site >= block->sites && site < block->sites + block->site_count)
            return block;
    return NULL;
}

static void unlink_incoming(struct engine *engine, struct block *block) {
    for (struct site *site = block->incoming; site;) {
        struct site *next = site->next_incoming;
        struct block *from = owner(engine, site, block);
        if (from) /* back to the call that leaves, which ends at site->host */
            patch(engine, (uint64_t)from->host + site->other, (uint64_t)from->host + site->host - 5);
        site->target = NULL;
        site->next_incoming = NULL;
        site = next;
    }
    block->incoming = NULL;
}

static void unlink_outgoing(struct block *block) {
    for (unsigned i = 0; i < block->site_count; i++) {
        struct site *site = &block->sites[i];
        if (!site->target)
            continue;
        for (struct site **at = &site->target->incoming; *at; at = &(*at)->next_incoming)
            if (*at == site) {
                *at = site->next_incoming;
                break;
            }
        site->target = NULL;
    }
}

/* Return addresses on shadow stacks may lead here: let each site ask for its target anew. */
static void void_return_sites(struct engine *engine, struct block *block) {
    for (unsigned i = 0; i < block->site_count; i++) {
        if (block->sites[i].kind != SITE_RETURN)
            continue;
        uint64_t at = (uint64_t)block->host + block->sites[i].host;
        *code_cache_writable(&engine->cache, at) = 0xe8; /* call */
        patch(engine, at + 1, engine->stubs.indirect);
    }
}

static void drop_jumps(struct engine *engine, const struct block *block) {
    for_each_view(engine, view_drop_jump, block->rip);
}

static void drop_block(struct engine *engine, struct block *block, bool keeps_memory) {
    if (!block->is_valid)
        return;
    block->is_valid = false;
    engine->statistics.blocks_invalidated++;
    unlink_incoming(engine, block);
    unlink_outgoing(block);
    if (keeps_memory) {
        void_return_sites(engine, block);
        drop_jumps(engine, block);
    }
    hash_remove(engine, block);
    struct block **donors = engine_donors(engine, block->physical, block->key);
    for (unsigned i = 0; i < ENGINE_DONOR_WAYS; i++)
        if (donors[i] == block)
            donors[i] = NULL;
    uint64_t page = block->physical & ~MEMORY_PAGE_MASK;
    page_remove(engine, block, page);
    if (block->second_page != BLOCK_NO_PAGE && block->second_page != page)
        page_remove(engine, block, block->second_page);
}

/* ---- Entry points ---- */

void engine_settle_lines(struct engine *engine, uint64_t page) {
    struct code_page *list = page_of(engine, page);
    if (!list)
        return;
    atomic_store(&list->lines, list->block_lines);
    if (!list->block_lines)
        atomic_store(&list->idle_stores, 0);
}

/* Lines that blocks still come from. */
void engine_recount_lines(struct engine *engine, uint64_t page) {
    struct memory_region *region = region_of(engine, page);
    struct code_page *list = page_of(engine, page);
    if (!region || !list)
        return;
    uint64_t lines = 0;
    for (struct block *block = list->first; block; block = block->page_next[page_link(block, page)])
        lines |= block_lines(block, page);
    list->block_lines = lines;
    atomic_store(&list->lines, lines);
    if (!lines)
        atomic_store(&list->idle_stores, 0);
}

/* Plain memory again. */
static void unmark(struct engine *engine, uint64_t page, struct code_page *list) {
    atomic_fetch_and(memory_page_flags(region_of(engine, page), guest_physical_at(page)), (uint8_t)~MEMORY_CODE);
    variable_forget_page(engine, list);
    atomic_store(&list->idle_stores, 0);
}

void invalidate_lines(struct engine *engine, uint64_t page, uint64_t lines) {
    struct code_page *list = page_of(engine, page);
    if (!list)
        return;
    if (!list->first) { /* cpu_code_written has seen many stores and no code */
        unmark(engine, page, list);
        return;
    }
    for (struct block *block = list->first; block;) {
        struct block *next = block->page_next[page_link(block, page)];
        if (block_lines(block, page) & lines)
            drop_block(engine, block, true);
        block = next;
    }
    engine_recount_lines(engine, page);
    if (!list->first && lines == ~0ull) /* cleared for another use */
        unmark(engine, page, list);
}

static void drop_chunk(struct engine *engine, struct code_chunk *chunk) {
    uint32_t count = atomic_load(&chunk->block_count);
    for (uint32_t i = 0; i < count; i++) {
        struct block *block = chunk->blocks[i];
        uint64_t page = block->physical & ~MEMORY_PAGE_MASK, second = block->second_page;
        if (!block->is_valid)
            continue;
        drop_block(engine, block, false);
        engine_recount_lines(engine, page);
        if (second != BLOCK_NO_PAGE)
            engine_recount_lines(engine, second);
    }
}

/* What may still hold addresses of dropped code. */
static void forget_addresses(struct engine *engine) {
    for (unsigned c = 0; c < engine->vcpu_count; c++) {
        engine_reset_stacks(engine->vcpu[c]);
        cpu_translator(engine->vcpu[c])->link_site = NULL;
        view_set_flush_jumps(&engine->vcpu[c]->views);
    }
}

void invalidate_next_chunk(struct engine *engine) {
    engine->statistics.cache_evictions++;
    drop_chunk(engine, code_cache_next_chunk(&engine->cache));
    forget_addresses(engine);
    code_cache_advance(&engine->cache);
}

void invalidate_all(struct engine *engine) {
    for (unsigned i = 0; i < CODE_CHUNKS; i++)
        drop_chunk(engine, &engine->cache.chunk[i]);
    forget_addresses(engine);
}
