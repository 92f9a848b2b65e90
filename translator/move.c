/*
 * Blocks for code that has been translated before, but for another rip: a program and its libraries lie elsewhere each time
 * they are run. Such a block is a copy of the other one, the donor, with what depends on rip or on its own place changed.
 * emit.c and those who emit such values note where they are (struct relocation). What a donor was made from is still there,
 * or it would have been dropped.
 *
 * Only 64-bit code far from both ends of the address space is moved: each address near rip takes a full immediate there,
 * wherever it is, and code is the same but for these.
 */
#include <string.h>

#include "translator/translation.h"

enum { MOST_AT_ONCE = 32 }; /* blocks */
#define MARGIN (1ull << 34) /* of rip to both ends */
#define NEAR (1ull << 32)   /* of an address to rip: as far as any instruction reaches, and some more */

bool may_move(uint32_t key, uint64_t rip) {
    return (key & MODE_CODE) == MODE_CODE64 && rip - MARGIN < -2 * MARGIN;
}

void note_rip(struct translation *t, uint64_t address, enum relocation_kind kind) {
    if (address - t->start_rip + NEAR < 2 * NEAR)
        emit_relocation(&t->e, kind);
    else /* it was cut to fewer bits */
        t->relocations.is_unmovable = true;
}

void note_pointer(struct translation *t, const void *pointer, enum relocation_kind kind) {
    if ((uint64_t)pointer <= UINT32_MAX)
        emit_relocation(&t->e, kind);
    else
        t->relocations.is_unmovable = true;
}

void keep_relocations(struct translation *t) {
    struct block *block = t->block;
    const struct relocations *noted = &t->relocations;
    if (noted->is_unmovable || block->second_page != BLOCK_NO_PAGE)
        return;
    size_t size = noted->count * sizeof *noted->entry;
    block->relocations = code_cache_allocate(&t->engine->cache, size);
    if (!block->relocations)
        return;
    memcpy(block->relocations, noted->entry, size);
    block->relocation_count = (uint16_t)noted->count;
    struct block **donors = engine_donors(t->engine, block->physical, block->key);
    memmove(donors + 1, donors, (ENGINE_DONOR_WAYS - 1) * sizeof *donors);
    donors[0] = block;
}

/* ---- One block ---- */

static const struct block *find_donor(struct engine *engine, uint64_t physical, uint64_t rip, uint32_t key) {
    if (!may_move(key, rip) || engine->breakpoint_count)
        return NULL;
    struct block **donors = engine_donors(engine, physical, key);
    for (unsigned i = 0; i < ENGINE_DONOR_WAYS; i++) {
        const struct block *donor = donors[i];
        /* A kernel's groups of regions are its halves of the address space (form_of). */
        if (donor && donor->physical == physical && donor->key == key && donor->rip >> 63 == rip >> 63)
            return donor;
    }
    return NULL;
}

static uint32_t load32(const uint8_t *at) {
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static void store32(uint8_t *at, uint32_t value) {
    memcpy(at, &value, sizeof value);
}

static void add64(uint8_t *at, uint64_t distance) {
    uint64_t value;
    memcpy(&value, at, sizeof value);
    value += distance;
    memcpy(at, &value, sizeof value);
}

static void move_jump(uint8_t *at, uint64_t distance) {
    uint32_t offset = load32(at) - (uint32_t)R_TABLE(jump), inside = offset % sizeof(struct view_jump);
    /* whole pages, so the index of a sum is the sum of the indices */
    uint32_t index = (offset / (uint32_t)sizeof(struct view_jump) + view_jump_index(distance)) & (VIEW_JUMPS - 1);
    store32(at, (uint32_t)R_TABLE(jump) + index * (uint32_t)sizeof(struct view_jump) + inside);
}

/* The address is in the MOV of 64 bits behind, and still the donor's. */
static void move_region(uint8_t *at, uint64_t distance) {
    uint64_t address;
    memcpy(&address, at + 4 + 2, sizeof address);
    address += distance;
    store32(at, (uint32_t)R_TABLE(region) + 8 * (uint32_t)(address >> VIEW_REGION_SHIFT & (VIEW_REGIONS - 1)));
}

static bool move_helper(struct engine *engine, struct block *block, uint8_t *at, uint64_t distance) {
    struct helper_call *call = code_cache_allocate(&engine->cache, sizeof *call);
    if ((uint64_t)call > UINT32_MAX || !call)
        return false;
    *call = *(const struct helper_call *)(uint64_t)load32(at);
    call->block = block;
    call->rip += distance;
    store32(at, (uint32_t)(uint64_t)call);
    return true;
}

static bool relocate(struct engine *engine, struct block *block, const struct block *donor, uint8_t *code) {
    uint64_t distance = block->rip - donor->rip;
    uint32_t host_distance = (uint32_t)(block->host - donor->host);
    for (unsigned i = 0; i < donor->relocation_count; i++) {
        uint8_t *at = code + donor->relocations[i].at;
        switch ((enum relocation_kind)donor->relocations[i].kind) {
        case RELOCATE_HOST:
            store32(at, load32(at) - host_distance);
            break;
        case RELOCATE_RIP:
            add64(at, distance);
            break;
        case RELOCATE_MINUS_RIP:
            add64(at, -distance);
            break;
        case RELOCATE_JUMP:
            move_jump(at, distance);
            break;
        case RELOCATE_REGION:
            move_region(at, distance);
            break;
        case RELOCATE_BLOCK:
            if ((uint64_t)block > UINT32_MAX)
                return false;
            store32(at, (uint32_t)(uint64_t)block);
            break;
        case RELOCATE_HELPER:
            if (!move_helper(engine, block, at, distance))
                return false;
        }
    }
    return true;
}

/* Other vCPUs may link the donor's exits meanwhile; these are made anew: each leads to the call that leaves. */
static void copy_sites(struct block *block, const struct block *donor, uint8_t *code) {
    for (unsigned i = 0; i < donor->site_count; i++) {
        const struct site *from = &donor->sites[i];
        block->sites[i] = (struct site){.host = from->host, .guest = from->guest, .other = from->other,
                                        .kind = from->kind, .info = from->info, .data = from->data};
        if (from->kind == SITE_EXIT && from->other)
            store32(code + from->other, (uint32_t)(from->host - 5 - (from->other + 4)));
    }
}

/* block->sites, map and loop, behind the block itself. */
static struct block *allocate(struct engine *engine, const struct block *donor) {
    size_t sites = donor->site_count * sizeof *donor->sites;
    size_t map = donor->map_words * sizeof *donor->map, loop = donor->loop ? sizeof *donor->loop : 0;
    struct block *block = code_cache_allocate(&engine->cache, sizeof *block + sites + loop + map);
    if (!block)
        return NULL;
    *block = *donor;
    block->sites = (struct site *)(block + 1);
    uint8_t *next = (uint8_t *)block->sites + sites;
    if (loop)
        block->loop = memcpy(next, donor->loop, loop);
    block->map = memcpy(next + loop, donor->map, map);
    return block;
}

static struct block *move(struct engine *engine, struct cpu *cpu, const struct block *donor, uint64_t rip) {
    struct emitter e;
    if (!code_cache_reserve(&engine->cache, donor->host_size, &e))
        return NULL;
    struct block *block = allocate(engine, donor);
    if (!block)
        return NULL;
    block->rip = rip;
    block->host = e.at + e.delta;
    block->seen = 0;
    block->relocations = NULL;
    block->relocation_count = 0;
    block->incoming = NULL;
    memcpy(e.at, code_cache_writable(&engine->cache, (uint64_t)donor->host), donor->host_size);
    copy_sites(block, donor, e.at);
    if (!relocate(engine, block, donor, e.at) || !code_cache_commit(&engine->cache, block))
        return NULL;
    engine->statistics.blocks_moved++;
    engine->statistics.code_bytes += block->host_size;
    struct memory_region *region = memory_find(cpu->memory, guest_physical_at(block->physical));
    if (region)
        log_block(engine, block, rip, memory_host(region, guest_physical_at(block->physical)));
    return block;
}

/* ---- Those that it leads to ---- */

struct batch {
    struct engine *engine;
    struct cpu *cpu;
    unsigned count;
    struct block *copy[MOST_AT_ONCE];
    const struct block *donor[MOST_AT_ONCE];
};

static struct block *add_copy(struct batch *batch, uint64_t physical, uint64_t rip, uint32_t key) {
    const struct block *donor = find_donor(batch->engine, physical, rip, key);
    struct block *copy = donor && batch->count < MOST_AT_ONCE ? move(batch->engine, batch->cpu, donor, rip) : NULL;
    if (!copy)
        return NULL;
    engine_insert(batch->engine, copy);
    batch->copy[batch->count] = copy;
    batch->donor[batch->count++] = donor;
    return copy;
}

/* Exits that the donor has taken will be taken here: their targets are moved as well, and linked. */
static void follow(struct batch *batch, struct block *copy, const struct block *donor) {
    for (unsigned i = 0; i < copy->site_count; i++) {
        struct site *site = &copy->sites[i];
        if (site->kind != SITE_EXIT || !site->other)
            continue;
        uint64_t rip = copy->rip + (uint64_t)site->data;
        uint64_t physical = copy->physical + (uint64_t)site->data; /* in the same page, or it had no `other` */
        struct block *to = engine_find(batch->engine, physical, rip, copy->key, batch->cpu);
        if (!to && __atomic_load_n(&donor->sites[i].target, __ATOMIC_RELAXED))
            to = add_copy(batch, physical, rip, copy->key);
        if (to)
            batch->cpu->statistics.links += engine_link(batch->engine, copy, site, to);
    }
}

struct block *move_block(struct engine *engine, struct cpu *cpu, uint64_t physical, uint32_t key) {
    struct batch batch = {.engine = engine, .cpu = cpu};
    add_copy(&batch, physical, cpu->hot.rip, key);
    for (unsigned i = 0; i < batch.count; i++)
        follow(&batch, batch.copy[i], batch.donor[i]);
    return batch.count ? batch.copy[0] : NULL;
}
