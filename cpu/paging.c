/*
 * The guest's own paging: 32-bit, PAE and 4-level tables walked in guest-physical memory (SDM vol. 3A, 4), with
 * accessed and dirty bits set as the processor sets them. No 5-level paging and no protection keys.
 */
#include "cpu/model.h"
#include "cpu/views.h"
#include "memory/guest_memory.h"

enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_A = 32, PTE_D = 64, PTE_PS = 128, PTE_G = 256 };
#define PTE_NX (1ull << 63)
enum { ERROR_P = 1, ERROR_W = 2, ERROR_U = 4, ERROR_RSVD = 8, ERROR_I = 16 };

/* How a paging mode looks: its levels from the top down. */
struct paging_mode {
    unsigned levels, entry_size, index_bits, top_shift;
};
static const struct paging_mode legacy_mode = {2, 4, 10, 22}, pae_mode = {2, 8, 9, 21}, long_mode = {4, 8, 9, 39};

struct walk {
    struct cpu *cpu;
    uint64_t linear;
    unsigned access;
    bool is_user;
    uint64_t entry[4], entry_address[4];
    unsigned used;   /* levels walked */
    unsigned shift;  /* of the page found */
    unsigned entry_size;
};

uint64_t cpu_physical_read(struct cpu *cpu, guest_physical address, unsigned size) {
    address.value &= cpu->memory->address_mask;
    struct memory_region *region = memory_find(cpu->memory, address);
    if (!region)
        return size == 8 ? ~0ull : 0xffffffffu;
    const void *host = memory_host(region, address);
    return size == 8 ? __atomic_load_n((const uint64_t *)host, __ATOMIC_RELAXED)
                     : __atomic_load_n((const uint32_t *)host, __ATOMIC_RELAXED);
}

bool cpu_physical_set_bits(struct cpu *cpu, guest_physical address, unsigned size, uint64_t expected, uint64_t bits) {
    address.value &= cpu->memory->address_mask;
    struct memory_region *region = memory_find(cpu->memory, address);
    if (!region || (region->flags & TRAPEZE_MEMORY_READ_ONLY))
        return true;
    void *host = memory_host(region, address);
    atomic_fetch_or_explicit(memory_page_flags(region, address), MEMORY_DIRTY, memory_order_relaxed);
    if (size == 8) {
        uint64_t wide = expected;
        return __atomic_compare_exchange_n((uint64_t *)host, &wide, expected | bits, false, __ATOMIC_SEQ_CST,
                                           __ATOMIC_SEQ_CST);
    }
    uint32_t narrow = (uint32_t)expected;
    return __atomic_compare_exchange_n((uint32_t *)host, &narrow, (uint32_t)(expected | bits), false, __ATOMIC_SEQ_CST,
                                       __ATOMIC_SEQ_CST);
}

static enum cpu_result walk_fault(const struct walk *walk, unsigned bits) {
    const struct cpu *cpu = walk->cpu;
    unsigned kind = walk->access & ACCESS_KIND;
    uint32_t code = bits;
    if (kind == ACCESS_WRITE)
        code |= ERROR_W;
    if (walk->is_user)
        code |= ERROR_U;
    bool nx = (cpu->msr.efer & EFER_NXE) && (cpu->cr4 & CR4_PAE);
    if (kind == ACCESS_EXECUTE && (nx || (cpu->cr4 & CR4_SMEP)))
        code |= ERROR_I;
    return cpu_fault_page(walk->cpu, walk->linear, code);
}

/* Bits of an entry that must be zero. `is_page`: the entry maps a page of 1 << shift bytes. */
static uint64_t reserved_bits(const struct cpu *cpu, unsigned entry_size, unsigned shift, bool is_page) {
    if (entry_size == 4)
        return is_page && shift == 22 ? 1u << 21 : 0;
    unsigned physical_bits = cpu_model_physical_bits(cpu->model);
    uint64_t reserved = ((1ull << 52) - 1) & ~((1ull << physical_bits) - 1);
    if (!(cpu->msr.efer & EFER_NXE))
        reserved |= PTE_NX;
    if (!cpu_is_long_mode(cpu))
        reserved |= 0x7ffull << 52;
    if (is_page && shift > 12)
        reserved |= ((1ull << shift) - 1) & ~0x1fffull;
    if (!is_page && shift == 39)
        reserved |= PTE_PS;
    return reserved;
}

static bool may_be_large(const struct cpu *cpu, unsigned entry_size, unsigned shift) {
    if (entry_size == 4)
        return shift == 22 && (cpu->cr4 & CR4_PSE);
    return shift == 21 || (shift == 30 && cpu_model_has(cpu->model, FEATURE_PDPE1GB));
}

/* Reads the entries down to the page. CPU_NEXT with walk->shift set, or the fault. */
static enum cpu_result walk_entries(struct walk *walk, const struct paging_mode *mode, uint64_t table) {
    struct cpu *cpu = walk->cpu;
    unsigned shift = mode->top_shift;
    walk->entry_size = mode->entry_size;
    for (unsigned level = 0; level < mode->levels; level++, shift -= mode->index_bits) {
        unsigned index = (unsigned)(walk->linear >> shift) & ((1u << mode->index_bits) - 1);
        uint64_t address = table + (uint64_t)index * mode->entry_size;
        uint64_t entry = cpu_physical_read(cpu, guest_physical_at(address), mode->entry_size);
        if (!(entry & PTE_P))
            return walk_fault(walk, 0);
        bool is_large = shift > 12 && (entry & PTE_PS) && may_be_large(cpu, mode->entry_size, shift);
        bool is_page = shift == 12 || is_large;
        uint64_t reserved = reserved_bits(cpu, mode->entry_size, shift, is_page);
        if (shift == 30 && !is_page)
            reserved |= PTE_PS;
        if (entry & reserved)
            return walk_fault(walk, ERROR_P | ERROR_RSVD);
        walk->entry[level] = entry;
        walk->entry_address[level] = address;
        walk->used = level + 1;
        walk->shift = shift;
        if (is_page)
            return CPU_NEXT;
        table = entry & (mode->entry_size == 4 ? 0xfffff000u : 0xffffffffff000ull);
    }
    return CPU_NEXT;
}

/* Rights of all levels together against the access (SDM vol. 3A, 4.6). */
static bool is_allowed(const struct walk *walk, const struct cpu_translation *translation) {
    const struct cpu *cpu = walk->cpu;
    unsigned kind = walk->access & ACCESS_KIND;
    if (kind == ACCESS_EXECUTE && !translation->executable)
        return false;
    if (walk->is_user)
        return translation->user && (kind != ACCESS_WRITE || translation->writable);
    if (translation->user) {
        if (kind == ACCESS_EXECUTE)
            return !(cpu->cr4 & CR4_SMEP);
        bool is_explicit = !(walk->access & ACCESS_SYSTEM);
        if ((cpu->cr4 & CR4_SMAP) && !(is_explicit && (cpu->hot.rflags & FLAG_AC)))
            return false;
    }
    return kind != ACCESS_WRITE || translation->writable || !(cpu->cr0 & CR0_WP);
}

/* Sets A in every entry, and D in the last for a write. False: an entry changed meanwhile, walk again. */
static bool mark_entries(struct walk *walk) {
    for (unsigned level = 0; level < walk->used; level++) {
        uint64_t bits = PTE_A;
        if (level + 1 == walk->used && (walk->access & ACCESS_KIND) == ACCESS_WRITE)
            bits |= PTE_D;
        uint64_t entry = walk->entry[level];
        if ((entry & bits) == bits)
            continue;
        if (!cpu_physical_set_bits(walk->cpu, guest_physical_at(walk->entry_address[level]), walk->entry_size, entry,
                                   bits))
            return false;
        walk->entry[level] |= bits;
    }
    return true;
}

static void combine(const struct walk *walk, struct cpu_translation *translation) {
    uint64_t both = PTE_W | PTE_U, any = 0;
    for (unsigned level = 0; level < walk->used; level++) {
        both &= walk->entry[level];
        any |= walk->entry[level];
    }
    uint64_t last = walk->entry[walk->used - 1];
    uint64_t base = last & (walk->entry_size == 4 ? 0xfffff000u : 0xffffffffff000ull) & ~((1ull << walk->shift) - 1);
    if (walk->entry_size == 4 && walk->shift == 22)
        base = (last & 0xffc00000u) | ((last & 0x1fe000u) << 19);
    translation->physical = guest_physical_at(base | (walk->linear & ((1ull << walk->shift) - 1)));
    translation->page_shift = (uint8_t)walk->shift;
    translation->writable = both & PTE_W;
    translation->user = both & PTE_U;
    translation->executable = walk->entry_size == 4 || !(any & PTE_NX);
    translation->global = (last & PTE_G) && (walk->cpu->cr4 & CR4_PGE);
    translation->dirty = last & PTE_D;
}

static enum cpu_result walk_tables(struct walk *walk) {
    struct cpu *cpu = walk->cpu;
    walk->used = 0;
    if (!(cpu->cr4 & CR4_PAE))
        return walk_entries(walk, &legacy_mode, cpu->cr3 & 0xfffff000u);
    if (cpu_is_long_mode(cpu))
        return walk_entries(walk, &long_mode, cpu->cr3 & 0xffffffffff000ull);
    uint64_t pdpte = cpu->pdpte[(walk->linear >> 30) & 3];
    if (!(pdpte & PTE_P))
        return walk_fault(walk, 0);
    return walk_entries(walk, &pae_mode, pdpte & 0xffffffffff000ull);
}

static enum cpu_result walk_once(struct walk *walk, struct cpu_translation *translation, bool *changed) {
    *changed = false;
    enum cpu_result result = walk_tables(walk);
    if (result != CPU_NEXT)
        return result;
    combine(walk, translation);
    if (!is_allowed(walk, translation))
        return walk_fault(walk, ERROR_P);
    *changed = !mark_entries(walk);
    translation->dirty = walk->entry[walk->used - 1] & PTE_D;
    return CPU_NEXT;
}

enum cpu_result cpu_walk(struct cpu *cpu, uint64_t linear, unsigned access, struct cpu_translation *translation) {
    if (!(cpu->cr0 & CR0_PG)) {
        *translation = (struct cpu_translation){.physical = guest_physical_at(linear & cpu->memory->address_mask),
                                                .page_shift = 12, .writable = true, .user = true, .executable = true,
                                                .dirty = true};
        return CPU_NEXT;
    }
    struct walk walk = {.cpu = cpu, .linear = linear, .access = access,
                        .is_user = cpu->cpl == 3 && !(access & ACCESS_SYSTEM)};
    bool changed;
    do {
        enum cpu_result result = walk_once(&walk, translation, &changed);
        if (result != CPU_NEXT)
            return result;
    } while (changed);
    translation->physical.value &= cpu->memory->address_mask;
    return CPU_NEXT;
}

bool cpu_walk_look(struct cpu *cpu, uint64_t linear, struct cpu_translation *translation) {
    if (!(cpu->cr0 & CR0_PG))
        return cpu_walk(cpu, linear, ACCESS_READ, translation) == CPU_NEXT;
    struct cpu_exception saved = cpu->exception;
    struct walk walk = {.cpu = cpu, .linear = linear, .access = ACCESS_READ, .is_user = cpu->cpl == 3};
    bool is_present = walk_tables(&walk) == CPU_NEXT;
    cpu->exception = saved;
    if (!is_present)
        return false;
    for (unsigned level = 0; level < walk.used; level++)
        if (!(walk.entry[level] & PTE_A))
            return false;
    combine(&walk, translation);
    translation->physical.value &= cpu->memory->address_mask;
    return is_allowed(&walk, translation);
}

bool cpu_walk_debug(struct cpu *cpu, uint64_t linear, guest_physical *physical) {
    *physical = guest_physical_at(linear & cpu->memory->address_mask);
    if (!(cpu->cr0 & CR0_PG))
        return true;
    struct cpu_exception saved = cpu->exception;
    struct walk walk = {.cpu = cpu, .linear = linear, .access = ACCESS_READ | ACCESS_SYSTEM};
    struct cpu_translation translation;
    bool found = walk_tables(&walk) == CPU_NEXT;
    cpu->exception = saved;
    if (!found)
        return false;
    combine(&walk, &translation);
    *physical = guest_physical_at(translation.physical.value & cpu->memory->address_mask);
    return true;
}
