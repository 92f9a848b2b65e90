/*
 * Decoded instructions that are kept: whatever Zydis says of an instruction depends on its bytes up to the displacement
 * and immediate, its head, and on the mode. A small direct-mapped table goes from heads to what was decoded before; the
 * values behind the head are put in anew.
 *
 * Zydis stays the authority. `scan` below finds where a head ends; an instruction is kept where Zydis agrees with that,
 * and where nothing but plain values lies behind it. All others are decoded each time: 3DNow! and XOP (opcodes at the
 * end, or unusual), IS4 (registers in the immediate), far pointers, two immediates, and compressed displacements.
 */
#include <string.h>

#include "translator/decode_cache.h"
#include "translator/huge.h"

#define SLOTS 16384u          /* a power of two */
#define RECORDS ((4u << 20) - SLOTS * 16 - 64) /* bytes; when they are full, all are forgotten */

/* Where a head is found. One with a head of no bytes is empty. */
struct slot {
    uint64_t head;
    uint32_t record; /* offset */
    uint8_t mode, head_size, length;
};

/* What was decoded, with as many operands as there are. Sizes are in bytes; 0: there is no such value. */
struct record {
    uint8_t displacement_size, displacement_operand;
    uint8_t immediate_offset, immediate_size, immediate_operand;
    bool immediate_is_signed;
    struct copy_template template;
    struct rule rule;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand operand[];
};

enum { NO_OPERAND = 0xff, PREFETCHED = 512 /* bytes of a record: the operands that most instructions have */ };

struct decode_cache {
    struct slot slot[SLOTS];
    uint32_t used;
    _Alignas(64) uint8_t records[RECORDS];
};

struct decode_cache *decode_cache_create(void) {
    return huge_allocate(sizeof(struct decode_cache), false);
}

void decode_cache_destroy(struct decode_cache *cache) {
    huge_free(cache, sizeof *cache);
}

static struct record *record_at(struct decode_cache *cache, uint32_t offset) {
    return (struct record *)(void *)(cache->records + offset);
}

/* ---- Heads ---- */

#define ROW(high, bits) [high] = bits

/* Whether opcodes have a ModRM byte: a word for each upper digit, a bit for each lower. */
static const uint16_t has_modrm[16] = {
    ROW(0x0, 0x0f0f), ROW(0x1, 0x0f0f), ROW(0x2, 0x0f0f), ROW(0x3, 0x0f0f), ROW(0x6, 0x0a0c), ROW(0x8, 0xffff),
    ROW(0xc, 0x00f3), ROW(0xd, 0xff0f), ROW(0xf, 0xc0c0),
};
static const uint16_t has_modrm_0f[16] = {
    ROW(0x0, 0xa00f), ROW(0x1, 0xffff), ROW(0x2, 0xff0f), ROW(0x4, 0xffff), ROW(0x5, 0xffff), ROW(0x6, 0xffff),
    ROW(0x7, 0xff7f), ROW(0x9, 0xffff), ROW(0xa, 0xf838), ROW(0xb, 0xffff), ROW(0xc, 0x00ff), ROW(0xd, 0xffff),
    ROW(0xe, 0xffff), ROW(0xf, 0xffff),
};

static bool is_legacy_prefix(unsigned byte) {
    switch (byte) {
    case 0x26: case 0x2e: case 0x36: case 0x3e: case 0x64: case 0x65: case 0x66: case 0x67:
    case 0xf0: case 0xf2: case 0xf3:
        return true;
    default:
        return false;
    }
}

static bool is_in(const uint16_t table[16], unsigned opcode) {
    return table[opcode >> 4] >> (opcode & 15) & 1;
}

/* Bytes of ModRM and SIB at `modrm`. */
static unsigned modrm_size(unsigned modrm, bool is_address16) {
    return !is_address16 && modrm < 0xc0 && (modrm & 7) == 4 ? 2 : 1;
}

/* The size of VEX or EVEX with the opcode, 0: the byte is an instruction of its own, or unusual. */
static unsigned vector_size(const uint8_t *bytes, bool is_64) {
    if (!is_64 && (bytes[1] & 0xc0) != 0xc0)
        return 0;
    return bytes[0] == 0xc5 ? 3 : bytes[0] == 0xc4 ? 4 : 5;
}

/* Bytes of the head, at most 8, or 0: not known. It looks at no byte behind the head. */
static unsigned scan(const uint8_t bytes[15], enum decode_mode mode) {
    bool is_64 = mode == DECODE_64, is_address16 = mode == DECODE_16 || mode == DECODE_REAL;
    unsigned at = 0;
    for (; at < 4 && is_legacy_prefix(bytes[at]); at++)
        is_address16 ^= !is_64 && bytes[at] == 0x67 && !memchr(bytes, 0x67, at);
    if (at == 4)
        return 0;
    if (is_64 && (bytes[at] & 0xf0) == 0x40) {
        at++;
        if (is_legacy_prefix(bytes[at]) || (bytes[at] & 0xf0) == 0x40)
            return 0;
    }
    unsigned opcode = bytes[at];
    bool has = is_in(has_modrm, opcode);
    if (opcode == 0xc4 || opcode == 0xc5 || opcode == 0x62) {
        unsigned size = vector_size(bytes + at, is_64);
        if (size) {
            at += size - 1;
            opcode = bytes[at];
            has = opcode != 0x77; /* VZEROUPPER has none */
        } else {
            has = true;
        }
    } else if (opcode == 0x8f) {
        if (bytes[at + 1] & 0x38)
            return 0; /* XOP */
    } else if (opcode == 0x0f) {
        opcode = bytes[++at];
        has = is_in(has_modrm_0f, opcode);
        if (opcode == 0x0f)
            return 0;
        if (opcode == 0x38 || opcode == 0x3a) {
            at++;
            has = true;
        }
    }
    at++;
    if (has)
        at += modrm_size(bytes[at], is_address16);
    return at <= 8 ? at : 0;
}

static uint64_t first_bytes(uint64_t bytes, unsigned count) {
    return count >= 8 ? bytes : bytes & ((1ull << 8 * count) - 1);
}

static struct slot *slot_of(struct decode_cache *cache, uint64_t head, unsigned size, unsigned mode) {
    uint64_t mixed = (head ^ (uint64_t)(size << 2 | mode) << 58) * 0x9e3779b97f4a7c15ull;
    return &cache->slot[mixed >> 40 & (SLOTS - 1)];
}

/* ---- Values behind the head ---- */

/* Little-endian, sign- or zero-extended. */
static uint64_t value_at(const uint8_t *bytes, unsigned size, bool is_signed) {
    uint64_t value = 0;
    switch (size) {
    case 1:
        return is_signed ? (uint64_t)(int8_t)bytes[0] : bytes[0];
    case 2:
        memcpy(&value, bytes, 2);
        return is_signed ? (uint64_t)(int16_t)value : value;
    case 4:
        memcpy(&value, bytes, 4);
        return is_signed ? (uint64_t)(int32_t)value : value;
    default:
        memcpy(&value, bytes, 8);
        return value;
    }
}

static void put_values(const struct record *record, const uint8_t *bytes, unsigned head_size, struct instruction *in) {
    if (record->displacement_size) {
        uint64_t value = value_at(bytes + head_size, record->displacement_size, true);
        in->z->raw.disp.value = (int64_t)value;
        if (record->displacement_operand != NO_OPERAND)
            in->operand[record->displacement_operand].mem.disp.value = (int64_t)value;
    }
    if (record->immediate_size) {
        uint64_t value =
            value_at(bytes + record->immediate_offset, record->immediate_size, record->immediate_is_signed);
        in->z->raw.imm[0].value.u = value;
        if (record->immediate_operand != NO_OPERAND)
            in->operand[record->immediate_operand].imm.value.u = value;
    }
}

/* The available bytes, at most 15; the first 8 of them as a number. Two stores that do not overlap, and nothing is read
   back from them at once: the host's CPU would wait for both. */
static uint64_t copy_bytes(uint8_t to[16], const uint8_t *from, unsigned available) {
    uint64_t first = 0, last = 0;
    if (available >= 15) {
        memcpy(&first, from, 8);
        memcpy(&last, from + 7, 8);
        last >>= 8;
    } else {
        memcpy(&first, from, available < 8 ? available : 8);
        if (available > 8)
            memcpy(&last, from + 8, available - 8);
    }
    memcpy(to, &first, 8);
    memcpy(to + 8, &last, 8);
    return first;
}

bool decode_cache_find(struct decode_cache *cache, enum decode_mode mode, const uint8_t *bytes, unsigned available,
                       struct instruction *in) {
    uint64_t first = copy_bytes(in->bytes, bytes, available);
    if (available < 15)
        bytes = in->bytes;
    unsigned size = scan(bytes, mode);
    uint64_t head = first_bytes(first, size);
    const struct slot *slot = slot_of(cache, head, size, mode);
    if (!size || slot->head != head || slot->head_size != size || slot->mode != mode || slot->length > available)
        return false;
    struct record *record = record_at(cache, slot->record);
    for (unsigned i = 64; i <= PREFETCHED; i += 64)
        __builtin_prefetch((const uint8_t *)record + i, 1);
    in->rule = record->rule;
    in->z = &record->z;
    in->operand = record->operand;
    in->template = &record->template;
    put_values(record, bytes, size, in);
    return true;
}

/* ---- Keeping ---- */

/* Finds the operands that the values go to. False: there is something else behind the head. */
static bool find_operands(struct record *record, const struct instruction *in) {
    const ZydisDecodedInstruction *z = in->z;
    record->displacement_operand = record->immediate_operand = NO_OPERAND;
    for (unsigned i = 0; i < z->operand_count; i++) {
        const ZydisDecodedOperand *operand = &in->operand[i];
        if (operand->type == ZYDIS_OPERAND_TYPE_POINTER || operand->encoding == ZYDIS_OPERAND_ENCODING_IS4)
            return false;
        if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY && operand->mem.disp.has_displacement) {
            if (record->displacement_operand != NO_OPERAND || operand->mem.disp.value != z->raw.disp.value)
                return false;
            record->displacement_operand = (uint8_t)i;
        }
        if (operand->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && operand->encoding != ZYDIS_OPERAND_ENCODING_NONE) {
            if (record->immediate_operand != NO_OPERAND || operand->imm.value.u != z->raw.imm[0].value.u)
                return false;
            record->immediate_operand = (uint8_t)i;
        }
    }
    return true;
}

/* The offset of so many more bytes of records. */
static uint32_t allocate(struct decode_cache *cache, size_t bytes) {
    if (cache->used + bytes > RECORDS) {
        memset(cache->slot, 0, sizeof cache->slot);
        cache->used = 0;
    }
    uint32_t at = cache->used;
    cache->used += (uint32_t)(bytes + 63) & ~63u;
    return at;
}

void decode_cache_keep(struct decode_cache *cache, enum decode_mode mode, const struct instruction *in) {
    const ZydisDecodedInstruction *z = in->z;
    unsigned size = scan(in->bytes, mode), behind = z->raw.disp.size     ? z->raw.disp.offset
                                                    : z->raw.imm[0].size ? z->raw.imm[0].offset
                                                                         : z->length;
    bool is_compressed = z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX && z->raw.disp.size == 8;
    struct record new = {.displacement_size = z->raw.disp.size / 8, .immediate_offset = z->raw.imm[0].offset,
                         .immediate_size = z->raw.imm[0].size / 8, .immediate_is_signed = z->raw.imm[0].is_signed,
                         .rule = in->rule, .z = *z};
    if (!size || size != behind || z->raw.imm[1].size || is_compressed || !find_operands(&new, in))
        return;
    unsigned count = z->operand_count < 2 ? 2 : z->operand_count; /* two are looked at without asking for the count */
    size_t operands = count * sizeof in->operand[0];
    uint64_t head;
    memcpy(&head, in->bytes, sizeof head);
    head = first_bytes(head, size);
    uint32_t at = allocate(cache, sizeof new + operands);
    struct record *record = record_at(cache, at);
    *record = new;
    memcpy(record->operand, in->operand, operands);
    *slot_of(cache, head, size, mode) =
        (struct slot){.head = head, .record = at, .mode = (uint8_t)mode, .head_size = (uint8_t)size, .length = z->length};
}
