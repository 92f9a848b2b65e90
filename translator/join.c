/*
 * Locked accesses across a page boundary. The two guest pages are mapped side by side, so that the host executes the
 * instruction itself, and atomically as it would any other that crosses cache lines.
 */
#include <sys/mman.h>

#include "cpu/views.h"
#include "translator/engine.h"

static bool map_page(struct cpu *cpu, uint8_t *at, const struct cpu_place *place) {
    uint64_t page = (uint64_t)place->host & ~MEMORY_PAGE_MASK;
    for (unsigned i = 0; i < cpu->memory->count; i++) {
        const struct memory_region *region = &cpu->memory->region[i];
        if (page - (uint64_t)region->host >= region->length)
            continue;
        off_t offset = (off_t)(region->offset + (page - (uint64_t)region->host));
        return mmap(at, MEMORY_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, region->fd, offset) != MAP_FAILED;
    }
    return false;
}

uint64_t engine_join_pages(void *argument) {
    const struct joined_pages *query = argument;
    struct cpu *cpu = query->cpu;
    const struct cpu_range *range = query->range;
    struct cpu_translator *translator = cpu_translator(cpu);
    if (!translator->joined) {
        void *joined = mmap(NULL, 2 * MEMORY_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (joined == MAP_FAILED)
            return 0;
        translator->joined = joined;
    }
    for (unsigned i = 0; i < 2; i++) {
        uint64_t page = (uint64_t)range->part[i].host & ~MEMORY_PAGE_MASK;
        if (translator->joined_page[i] == page)
            continue;
        translator->joined_page[i] = 0;
        if (!map_page(cpu, translator->joined + i * MEMORY_PAGE, &range->part[i]))
            return 0;
        translator->joined_page[i] = page;
    }
    return (uint64_t)translator->joined + ((uint64_t)range->part[0].host & MEMORY_PAGE_MASK);
}

void engine_release_joined(struct cpu *cpu) {
    struct cpu_translator *translator = cpu_translator(cpu);
    if (translator->joined)
        munmap(translator->joined, 2 * MEMORY_PAGE);
    translator->joined = NULL;
    translator->joined_page[0] = translator->joined_page[1] = 0;
}
