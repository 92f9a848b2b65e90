/* Mapping and unmapping of guest-physical regions on the host. */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory/guest_memory.h"

static void *anonymous(uint64_t size) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static uint64_t round_up(uint64_t size) {
    return (size + MEMORY_PAGE_MASK) & ~MEMORY_PAGE_MASK;
}

static void region_release(struct memory_region *region) {
    uint64_t pages = region->length / MEMORY_PAGE;
    if (region->host)
        munmap(region->host, region->length);
    if (region->page_flags)
        munmap((void *)region->page_flags, round_up(pages));
    if (region->code_pages)
        munmap(region->code_pages, round_up(pages * sizeof *region->code_pages));
    if (region->fd >= 0)
        close(region->fd);
}

enum trapeze_status memory_region_add(struct machine_memory *memory, unsigned slot, guest_physical base, int fd,
                                      uint64_t offset, uint64_t length, unsigned flags) {
    if (slot >= MEMORY_SLOTS || length == 0 || ((base.value | offset | length) & MEMORY_PAGE_MASK) ||
        base.value + length < base.value)
        return TRAPEZE_INVALID;
    unsigned position = 0;
    for (unsigned i = 0; i < memory->count; i++) {
        const struct memory_region *other = &memory->region[i];
        if (other->slot == slot)
            continue; /* to be replaced */
        if (base.value < other->base + other->length && other->base < base.value + length)
            return TRAPEZE_OVERLAP;
        position += other->base < base.value;
    }

    struct memory_region region = {.base = base.value, .length = length, .slot = slot, .flags = flags,
                                   .fd = fcntl(fd, F_DUPFD_CLOEXEC, 0), .offset = offset};
    if (region.fd < 0)
        return TRAPEZE_HOST_ERROR;
    uint64_t pages = length / MEMORY_PAGE;
    void *host = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, (off_t)offset);
    if (host == MAP_FAILED) {
        close(region.fd);
        return TRAPEZE_HOST_ERROR;
    }
    region.host = host;
    region.page_flags = anonymous(round_up(pages));
    region.code_pages = anonymous(round_up(pages * sizeof *region.code_pages));
    if (!region.page_flags || !region.code_pages) {
        region_release(&region);
        return TRAPEZE_NO_MEMORY;
    }
    memory_region_remove(memory, slot);
    for (unsigned i = memory->count; i > position; i--)
        memory->region[i] = memory->region[i - 1];
    memory->region[position] = region;
    memory->count++;
    return TRAPEZE_OK;
}

void memory_region_remove(struct machine_memory *memory, unsigned slot) {
    for (unsigned i = 0; i < memory->count; i++) {
        if (memory->region[i].slot != slot)
            continue;
        region_release(&memory->region[i]);
        memory->count--;
        for (; i < memory->count; i++)
            memory->region[i] = memory->region[i + 1];
        memory->region[memory->count] = (struct memory_region){0};
        return;
    }
}
