/*
 * Which bytes of its memory operand a masked instruction touches: EVEX opmasks, and the sign bits of VMASKMOV and
 * VPMASKMOV. Elements that are masked off fault nowhere and are not written (SDM vol. 1, 15.6.3).
 */
#include <string.h>

#include "cpu/xstate.h"
#include "translator/translation.h"

static uint64_t components(const struct cpu *cpu) {
    uint64_t bits;
    memcpy(&bits, cpu->xsave + IMAGE_HEADER, sizeof bits);
    return bits;
}

static uint64_t opmask(const struct cpu *cpu, unsigned index) {
    return components(cpu) & XSTATE_OPMASK ? xstate_get_opmask(cpu, cpu->xsave, index) : 0;
}

/* One bit for the sign of each element of a vector register. */
static uint64_t sign_mask(const struct cpu *cpu, unsigned index, unsigned element, unsigned count) {
    uint8_t vector[32] = {0};
    xstate_get_vector(cpu, cpu->xsave, index, vector, components(cpu) & XSTATE_AVX ? 32 : 16);
    uint64_t mask = 0;
    for (unsigned i = 0; i < count; i++)
        mask |= (uint64_t)(vector[(i + 1) * element - 1] >> 7) << i;
    return mask;
}

static bool is_packed(ZydisInstructionCategory category) {
    return category == ZYDIS_CATEGORY_COMPRESS || category == ZYDIS_CATEGORY_EXPAND;
}

/* One bit for each element that the instruction's mask counts: those of the destination, or of memory. */
static unsigned counted_elements(const struct instruction *in, const ZydisDecodedOperand *memory) {
    const ZydisDecodedOperand *destination = &in->operand[0];
    if (memory->size == memory->element_size)
        return 1; /* scalar */
    bool is_vector = destination->type == ZYDIS_OPERAND_TYPE_REGISTER && destination->element_size &&
                     ZydisRegisterGetClass(destination->reg.value) != ZYDIS_REGCLASS_MASK;
    const ZydisDecodedOperand *counted = is_vector ? destination : memory;
    unsigned count = counted->size / counted->element_size, in_memory = memory->size / memory->element_size;
    if (in->z->meta.category == ZYDIS_CATEGORY_CONVERT && in_memory < count)
        count = in_memory; /* the rest of the XMM register is zeroed */
    return count > 64 ? 64 : count;
}

static uint64_t element_mask(const struct cpu *cpu, const struct instruction *in, unsigned element, unsigned count) {
    if (in->z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
        return sign_mask(cpu, ~in->z->raw.vex.vvvv & (cpu_is_64bit(cpu) ? 15 : 7), element, count);
    uint64_t mask = opmask(cpu, in->z->raw.evex.aaa);
    if (!is_packed(in->z->meta.category))
        return mask;
    uint64_t all = count == 64 ? ~0ull : (1ull << count) - 1;
    unsigned active = (unsigned)__builtin_popcountll(mask & all);
    return active == 64 ? ~0ull : (1ull << active) - 1;
}

/* Bytes of a memory operand of `size` bytes in elements, whose parts are wanted by `count` mask bits. */
static uint64_t spread(uint64_t mask, unsigned count, unsigned element, unsigned size) {
    uint64_t bytes = 0;
    for (unsigned i = 0; i < size; i += element) {
        unsigned first = i * count / size, last = ((i + element) * count - 1) / size;
        uint64_t wanted = (mask >> first) & (last - first == 63 ? ~0ull : (1ull << (last - first + 1)) - 1);
        if (wanted)
            bytes |= (element == 8 ? 0xffull : (1ull << element) - 1) << i;
    }
    return bytes;
}

/* Exception classes without fault suppression: the whole operand is accessed, whatever the mask (SDM vol. 2A, 2.8). */
static bool is_suppressing(const struct instruction *in) {
    switch (in->z->mnemonic) {
    case ZYDIS_MNEMONIC_VCVTNE2PS2BF16: /* E4NF, which the decoder takes for E4 */
    case ZYDIS_MNEMONIC_VDBPSADBW:
    case ZYDIS_MNEMONIC_VGF2P8AFFINEQB:
    case ZYDIS_MNEMONIC_VGF2P8AFFINEINVQB:
        return false;
    default:
        break;
    }
    switch (in->z->meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_E1NF:
    case ZYDIS_EXCEPTION_CLASS_E2NF:
    case ZYDIS_EXCEPTION_CLASS_E3NF:
    case ZYDIS_EXCEPTION_CLASS_E4NF:
    case ZYDIS_EXCEPTION_CLASS_E5NF:
    case ZYDIS_EXCEPTION_CLASS_E6NF:
    case ZYDIS_EXCEPTION_CLASS_E9NF:
    case ZYDIS_EXCEPTION_CLASS_E10NF:
    case ZYDIS_EXCEPTION_CLASS_E11NF:
        return false;
    default:
        return true;
    }
}

bool is_masked_access(const struct instruction *in) {
    switch (in->z->mnemonic) {
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
        return true;
    default:
        return in->z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX && in->z->raw.evex.aaa &&
               is_suppressing(in);
    }
}

/* Bytes of a broadcast operand: each of its elements counts as long as one of those that it goes to is wanted. */
static uint64_t broadcast_bytes(const struct cpu *cpu, const struct instruction *in, unsigned size) {
    /* Elements are the destination's, but for conversions, which have as many as fit in the wider of their types. */
    unsigned bits = in->operand[0].element_size ? in->operand[0].element_size : 8 * size;
    if (!in->z->avx.broadcast.is_static && bits < 8 * size)
        bits = 8 * size;
    unsigned count = in->z->avx.vector_length / bits;
    unsigned parts = bits < 8 * size ? 8 * size / bits : 1, part = size / parts;
    uint64_t mask = opmask(cpu, in->z->raw.evex.aaa), bytes = 0;
    for (unsigned i = 0; i < count; i++)
        if (mask >> i & 1)
            bytes |= ((1ull << part) - 1) << (i % parts * part);
    return bytes;
}

/* The instruction at rip, which may go on in the block's second page. */
static bool decode_again(const struct masked_bytes *query, struct instruction *in) {
    struct cpu *cpu = query->cpu;
    uint64_t at[2] = {query->physical, query->second_page};
    unsigned left = (unsigned)(MEMORY_PAGE - (query->physical & MEMORY_PAGE_MASK)), have = 0;
    uint8_t bytes[15];
    for (unsigned i = 0; i < 2 && have < sizeof bytes; i++) {
        unsigned length = i == 0 && left < sizeof bytes ? left : (unsigned)sizeof bytes - have;
        struct memory_region *region = at[i] == BLOCK_NO_PAGE ? NULL : memory_find(cpu->memory, guest_physical_at(at[i]));
        if (!region)
            break;
        memcpy(bytes + have, memory_host(region, guest_physical_at(at[i])), length);
        have += length;
    }
    return decode(cpu->engine->decoder, cpu->mode_key, bytes, have, cpu->hot.rip, in);
}

uint64_t engine_masked_bytes(void *argument) {
    const struct masked_bytes *query = argument;
    struct cpu *cpu = query->cpu;
    struct instruction in;
    if (!decode_again(query, &in))
        return ~0ull; /* another processor has changed it since */
    for (unsigned i = 0; i < in.z->operand_count; i++) {
        const ZydisDecodedOperand *operand = &in.operand[i];
        if (operand->type != ZYDIS_OPERAND_TYPE_MEMORY || !operand->element_size)
            continue;
        if (in.z->avx.broadcast.mode)
            return broadcast_bytes(cpu, &in, operand->size / 8u);
        unsigned element = operand->element_size / 8u, size = operand->size / 8u;
        unsigned count = in.z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX ? size / element
                                                                         : counted_elements(&in, operand);
        return spread(element_mask(cpu, &in, element, count), count, element, size);
    }
    return ~0ull;
}
