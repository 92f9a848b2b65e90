/*
 * Guest memory and ports for the functions of cpu/ and the slow paths of translated code: the shadow page tables first,
 * then the guest's page tables, then RAM, a page with translated code, or a device.
 */
#include "cpu/access.h"
#include "cpu/io.h"
#include "cpu/mode.h"
#include "cpu/views.h"
#include "cpu/watch.h"
#include "memory/guest_memory.h"

/* ---- Devices ---- */

/* The largest naturally aligned piece of an access that a device gets at once. */
static unsigned piece_size(uint64_t address, unsigned size) {
    unsigned piece = 8;
    while (piece > size || (address & (piece - 1)))
        piece /= 2;
    return piece;
}

static void device_read(struct cpu *cpu, uint64_t address, uint8_t *to, unsigned size) {
    while (size) {
        /* An unaligned access of up to 8 bytes reaches the device whole: its width is what the guest asked for. */
        unsigned piece = size == 2 || size == 4 || size == 8 ? size : piece_size(address, size);
        uint64_t value = cpu_io_read(cpu, TRAPEZE_MMIO, address, piece);
        cpu_copy(to, &value, piece);
        to += piece, address += piece, size -= piece;
    }
}

static void device_write(struct cpu *cpu, uint64_t address, const uint8_t *from, unsigned size) {
    while (size) {
        unsigned piece = size == 2 || size == 4 || size == 8 ? size : piece_size(address, size);
        uint64_t value = 0;
        cpu_copy(&value, from, piece);
        cpu_io_write(cpu, TRAPEZE_MMIO, address, piece, value);
        from += piece, address += piece, size -= piece;
    }
}

/* ---- Views ---- */

struct view *cpu_view(struct cpu *cpu, unsigned access) {
    return access & ACCESS_SYSTEM ? cpu->views.kernel : cpu->hot.view;
}

static void note_write_cached(_Atomic uint8_t *flags) {
    if (!(atomic_load_explicit(flags, memory_order_relaxed) & MEMORY_WRITE_CACHED) ||
        !(atomic_load_explicit(flags, memory_order_relaxed) & MEMORY_DIRTY))
        atomic_fetch_or(flags, MEMORY_WRITE_CACHED | MEMORY_DIRTY);
}

enum cpu_result cpu_fill(struct cpu *cpu, uint64_t linear, unsigned access, struct cpu_place *place) {
    struct cpu_translation translation;
    enum cpu_result result = cpu_walk(cpu, linear, access, &translation);
    if (result != CPU_NEXT)
        return result;
    *place = (struct cpu_place){.physical = translation.physical};
    struct memory_region *region = memory_find(cpu->memory, translation.physical);
    if (!region)
        return CPU_NEXT;
    place->region = region;
    place->host = memory_host(region, translation.physical);

    bool is_write = (access & ACCESS_KIND) == ACCESS_WRITE;
    bool can_write = is_write || (translation.writable && translation.dirty);
    if (region->flags & TRAPEZE_MEMORY_READ_ONLY)
        can_write = false;
    _Atomic uint8_t *flags = memory_page_flags(region, translation.physical);
    if ((region->flags & TRAPEZE_MEMORY_LOG_DIRTY) && !is_write &&
        !(atomic_load_explicit(flags, memory_order_relaxed) & MEMORY_DIRTY))
        can_write = false; /* a read does not make the page dirty; its first store comes here again */
    if (can_write) {
        note_write_cached(flags);
        /* The translator sets MEMORY_CODE and then looks for MEMORY_WRITE_CACHED; one of the two sees the other. */
        if (atomic_load(flags) & MEMORY_CODE)
            can_write = false;
    }
    place->is_direct = !is_write || can_write;
    cpu->statistics.tlb_fills++;
    if (cpu_is_watching(cpu) && cpu_watches_page(cpu, linear)) {
        place->is_direct = false;
        return CPU_NEXT;
    }
    struct view_page page = {.linear = linear & ~MEMORY_PAGE_MASK,
                             .host = (uint64_t)place->host & ~MEMORY_PAGE_MASK,
                             .page_shift = translation.page_shift,
                             .readable = true,
                             .writable = can_write,
                             .global = translation.global};
    view_fill(cpu_view(cpu, access), &page);
    return CPU_NEXT;
}

/* ---- Writes to pages with translated code ---- */

void cpu_code_stale(struct cpu *cpu, uint64_t page, uint64_t lines, unsigned offset, unsigned size) {
    cpu->hot.run = 0;
    atomic_fetch_or(&cpu->requests, REQUEST_STALE);
    for (unsigned i = 0; i < cpu->stale_count; i++)
        if (cpu->stale[i].page == page) {
            cpu->stale[i].lines |= lines;
            cpu->stale[i].size = 0;
            return;
        }
    if (cpu->stale_count == CPU_STALE_PAGES) {
        cpu->stale_overflow = true;
        return;
    }
    cpu->stale[cpu->stale_count].page = page;
    cpu->stale[cpu->stale_count].offset = (uint16_t)offset;
    cpu->stale[cpu->stale_count].size = (uint16_t)size;
    cpu->stale[cpu->stale_count++].lines = lines;
}

#define IDLE_STORES 256u

void cpu_code_written(struct cpu *cpu, struct memory_region *region, guest_physical address, unsigned size) {
    uint64_t page = address.value & ~MEMORY_PAGE_MASK;
    uint64_t lines = memory_lines(address.value, size);
    struct code_page *code = memory_code_page(region, address);
    if (memory_store_misses_code(code, address.value, size))
        return;
    uint64_t code_lines = atomic_load(&code->lines);
    /* A page without code stays marked for a while: code that is rewritten again and again is marked once. */
    bool has_become_data = !code_lines && atomic_fetch_add(&code->idle_stores, 1) > IDLE_STORES;
    if ((code_lines & lines) || has_become_data)
        cpu_code_stale(cpu, page, lines, (unsigned)(address.value & MEMORY_PAGE_MASK), size <= 8 ? size : 0);
}

/* ---- Linear accesses ---- */

static inline uint64_t wrap(const struct cpu *cpu, uint64_t linear) {
    return cpu_is_64bit(cpu) || cpu_is_long_mode(cpu) ? linear : linear & 0xffffffffu;
}

static inline unsigned bytes_to_page_end(uint64_t linear) {
    return (unsigned)(MEMORY_PAGE - (linear & MEMORY_PAGE_MASK));
}

enum cpu_result cpu_locate(struct cpu *cpu, uint64_t linear, unsigned access, struct cpu_place *place) {
    bool is_write = (access & ACCESS_KIND) == ACCESS_WRITE;
    void *host = view_lookup(cpu_view(cpu, access), linear, 1, is_write);
    if (host) {
        *place = (struct cpu_place){.host = host, .is_direct = true};
        return CPU_NEXT;
    }
    return cpu_fill(cpu, linear, access, place);
}

/* What is short goes by words, which is several times faster than a string instruction; a word of a natural size is read
   and written at once: another vCPU must not see halves. Descriptors and gates have loads of their own: a host guesses by
   a load's place in the code which store it has to wait for, and those of interrupt frames do have to wait. */
static inline void move(uint8_t *to, const uint8_t *from, unsigned size) {
    if (size == 8) {
        *(volatile uint64_t *)to = *(const volatile uint64_t *)from;
        return;
    }
    if (size == 16) {
        uint64_t low = ((const volatile uint64_t *)from)[0], high = ((const volatile uint64_t *)from)[1];
        ((volatile uint64_t *)to)[0] = low;
        ((volatile uint64_t *)to)[1] = high;
        return;
    }
    if (size > 64) {
        cpu_copy(to, from, size);
        return;
    }
    for (; size >= 8; to += 8, from += 8, size -= 8)
        *(volatile uint64_t *)to = *(const volatile uint64_t *)from;
    if (size & 4) {
        *(volatile uint32_t *)to = *(const volatile uint32_t *)from;
        to += 4, from += 4;
    }
    if (size & 2) {
        *(volatile uint16_t *)to = *(const volatile uint16_t *)from;
        to += 2, from += 2;
    }
    if (size & 1)
        *to = *from;
}

static void place_read(struct cpu *cpu, const struct cpu_place *place, uint8_t *to, unsigned size) {
    if (place->host)
        move(to, place->host, size);
    else
        device_read(cpu, place->physical.value, to, size);
}

static void place_write(struct cpu *cpu, const struct cpu_place *place, const uint8_t *from, unsigned size) {
    if (!place->host) {
        device_write(cpu, place->physical.value, from, size);
        return;
    }
    if (!place->is_direct && (place->region->flags & TRAPEZE_MEMORY_READ_ONLY))
        return;
    move(place->host, from, size);
    if (!place->is_direct)
        cpu_code_written(cpu, place->region, place->physical, size);
}

enum cpu_result cpu_locate_range(struct cpu *cpu, uint64_t linear, unsigned size, unsigned access,
                                 struct cpu_range *range) {
    linear = wrap(cpu, linear);
    range->first_size = size;
    range->linear = linear;
    enum cpu_result result = cpu_locate(cpu, linear, access, &range->part[0]);
    if (result != CPU_NEXT || size <= bytes_to_page_end(linear))
        return result;
    range->first_size = bytes_to_page_end(linear);
    result = cpu_locate(cpu, wrap(cpu, linear + range->first_size), access, &range->part[1]);
    if (result != CPU_NEXT)
        return result;
    /* The second fill may have taken the first one's slot, never its host page. */
    return CPU_NEXT;
}

static inline void watch(struct cpu *cpu, const struct cpu_range *range, unsigned size, bool is_write) {
    if (cpu_is_watching(cpu))
        cpu_watch_access(cpu, range->linear, size, is_write);
}

void cpu_range_read(struct cpu *cpu, const struct cpu_range *range, void *to, unsigned size) {
    watch(cpu, range, size, false);
    place_read(cpu, &range->part[0], to, range->first_size);
    if (size > range->first_size)
        place_read(cpu, &range->part[1], (uint8_t *)to + range->first_size, size - range->first_size);
}

void cpu_range_write(struct cpu *cpu, const struct cpu_range *range, const void *from, unsigned size) {
    watch(cpu, range, size, true);
    place_write(cpu, &range->part[0], from, range->first_size);
    if (size > range->first_size)
        place_write(cpu, &range->part[1], (const uint8_t *)from + range->first_size, size - range->first_size);
}

/* The host's address of what the shadow page tables have for the whole access; NULL: it takes more than that. */
static inline void *find_direct(struct cpu *cpu, uint64_t linear, unsigned size, unsigned access, bool is_write) {
    return cpu_is_watching(cpu) ? NULL : view_lookup(cpu_view(cpu, access), wrap(cpu, linear), size, is_write);
}

enum cpu_result cpu_read_linear(struct cpu *cpu, uint64_t linear, void *to, unsigned size, unsigned access) {
    struct cpu_range range;
    const void *host = find_direct(cpu, linear, size, access, false);
    if (host) {
        move(to, host, size);
        return CPU_NEXT;
    }
    enum cpu_result result = cpu_locate_range(cpu, linear, size, access, &range);
    if (result == CPU_NEXT)
        cpu_range_read(cpu, &range, to, size);
    return result;
}

enum cpu_result cpu_write_linear(struct cpu *cpu, uint64_t linear, const void *from, unsigned size, unsigned access) {
    struct cpu_range range;
    void *host = find_direct(cpu, linear, size, access, true);
    if (host) {
        move(host, from, size);
        return CPU_NEXT;
    }
    enum cpu_result result = cpu_locate_range(cpu, linear, size, access | ACCESS_WRITE, &range);
    if (result == CPU_NEXT)
        cpu_range_write(cpu, &range, from, size);
    return result;
}

enum cpu_result cpu_probe_linear(struct cpu *cpu, uint64_t linear, unsigned size, unsigned access) {
    struct cpu_range range;
    return cpu_locate_range(cpu, linear, size, access, &range);
}

/* ---- Segments ---- */

static enum cpu_result segment_fault(struct cpu *cpu, unsigned segment) {
    return cpu_fault_code(cpu, segment == CPU_SS ? VECTOR_SS : VECTOR_GP, 0);
}

static bool type_allows(const struct cpu *cpu, uint32_t attributes, unsigned kind) {
    if (!cpu_is_protected(cpu) || cpu_is_vm86(cpu))
        return true;
    if (attributes & SEGMENT_CODE)
        return kind == ACCESS_EXECUTE || (kind == ACCESS_READ && (attributes & SEGMENT_READABLE));
    return kind == ACCESS_READ || (kind == ACCESS_WRITE && (attributes & SEGMENT_WRITABLE));
}

static bool limit_allows(const struct trapeze_segment *segment, uint64_t offset, unsigned size) {
    uint64_t last = offset + size - 1;
    if ((segment->attributes & (SEGMENT_CODE | SEGMENT_EXPAND_DOWN)) == SEGMENT_EXPAND_DOWN) {
        uint64_t top = segment->attributes & SEGMENT_DB ? 0xffffffffu : 0xffffu;
        return offset > segment->limit && last <= top;
    }
    return last <= segment->limit;
}

enum cpu_result cpu_linear(struct cpu *cpu, unsigned segment, uint64_t offset, unsigned size, unsigned access,
                           uint64_t *linear) {
    const struct trapeze_segment *descriptor = &cpu->segment[segment];
    if (cpu_is_64bit(cpu)) {
        *linear = segment == CPU_FS || segment == CPU_GS ? offset + descriptor->base : offset;
        if (!cpu_is_canonical(*linear) || !cpu_is_canonical(*linear + size - 1))
            return segment_fault(cpu, segment);
        return CPU_NEXT;
    }
    offset &= 0xffffffffu;
    *linear = (descriptor->base + offset) & 0xffffffffu;
    if ((descriptor->attributes & SEGMENT_UNUSABLE) || !type_allows(cpu, descriptor->attributes, access & ACCESS_KIND))
        return segment_fault(cpu, segment);
    if (!limit_allows(descriptor, offset, size))
        return segment_fault(cpu, segment);
    return CPU_NEXT;
}

/* Of the data types of table 6-7, by their sizes. Vectors of 16 bytes and more are not checked, or are #GP. */
static unsigned alignment_of(unsigned size) {
    switch (size) {
    case 2:
    case 14: /* environments of 16-bit code */
    case 94:
        return 2;
    case 4:
    case 6: /* far pointers */
    case 28:
    case 108:
        return 4;
    case 8:
    case 10: /* extended precision */
        return 8;
    default:
        return 1;
    }
}

enum cpu_result cpu_check_alignment(struct cpu *cpu, uint64_t linear, unsigned size, unsigned access) {
    if (!(cpu->mode_key & MODE_ALIGNMENT) || !(linear & (alignment_of(size) - 1)))
        return CPU_NEXT;
    enum cpu_result result = cpu_probe_linear(cpu, linear, size, access);
    return result == CPU_NEXT ? cpu_fault_code(cpu, VECTOR_AC, 0) : result;
}

enum cpu_result cpu_read(struct cpu *cpu, unsigned segment, uint64_t offset, void *to, unsigned size) {
    uint64_t linear;
    enum cpu_result result = cpu_linear(cpu, segment, offset, size, ACCESS_READ, &linear);
    if (result == CPU_NEXT)
        result = cpu_check_alignment(cpu, linear, size, ACCESS_READ);
    return result == CPU_NEXT ? cpu_read_linear(cpu, linear, to, size, ACCESS_READ) : result;
}

enum cpu_result cpu_write(struct cpu *cpu, unsigned segment, uint64_t offset, const void *from, unsigned size) {
    uint64_t linear;
    enum cpu_result result = cpu_linear(cpu, segment, offset, size, ACCESS_WRITE, &linear);
    if (result == CPU_NEXT)
        result = cpu_check_alignment(cpu, linear, size, ACCESS_WRITE);
    return result == CPU_NEXT ? cpu_write_linear(cpu, linear, from, size, ACCESS_WRITE) : result;
}

enum cpu_result cpu_read_integer(struct cpu *cpu, unsigned segment, uint64_t offset, unsigned size, uint64_t *value) {
    uint64_t wide = 0;
    enum cpu_result result = cpu_read(cpu, segment, offset, &wide, size);
    if (result == CPU_NEXT)
        *value = wide;
    return result;
}

enum cpu_result cpu_write_integer(struct cpu *cpu, unsigned segment, uint64_t offset, unsigned size, uint64_t value) {
    return cpu_write(cpu, segment, offset, &value, size);
}

enum cpu_result cpu_host_pointer(struct cpu *cpu, uint64_t linear, unsigned access, size_t *length, void **pointer) {
    struct cpu_place place;
    linear = wrap(cpu, linear);
    enum cpu_result result = cpu_locate(cpu, linear, access, &place);
    if (result != CPU_NEXT)
        return result;
    *pointer = place.is_direct ? place.host : NULL;
    if (*length > bytes_to_page_end(linear))
        *length = bytes_to_page_end(linear);
    return CPU_NEXT;
}
