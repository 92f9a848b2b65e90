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
    unsigned count = counted->size / counted->element_size;
    return count > 64 ? 64 : count;
}

static uint64_t element_mask(const struct cpu *cpu, const struct instruction *in, unsigned element, unsigned count) {
    if (in->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
        return sign_mask(cpu, ~in->z.raw.vex.vvvv & (cpu_is_64bit(cpu) ? 15 : 7), element, count);
    uint64_t mask = opmask(cpu, in->z.raw.evex.aaa);
    if (!is_packed(in->z.meta.category))
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
static bool is_suppressing(ZydisExceptionClass class) {
    switch (class) {
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
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
        return true;
    default:
        return in->z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX && in->z.raw.evex.aaa &&
               is_suppressing(in->z.meta.exception_class);
    }
}

/* A broadcast element is accessed as long as any element of the destination wants it. */
static uint64_t broadcast_bytes(const struct cpu *cpu, const struct instruction *in, unsigned size) {
    /* Elements are the destination's, but for conversions, which have as many as fit in the wider of their types. */
    unsigned element = in->operand[0].element_size ? in->operand[0].element_size : 8 * size;
    bool is_affine = in->z.mnemonic == ZYDIS_MNEMONIC_VGF2P8AFFINEQB || in->z.mnemonic == ZYDIS_MNEMONIC_VGF2P8AFFINEINVQB;
    if (!in->z.avx.broadcast.is_static && !is_affine && element < 8 * size)
        element = 8 * size;
    unsigned count = in->z.avx.vector_length / element;
    uint64_t all = count >= 64 ? ~0ull : (1ull << count) - 1;
    if (!(opmask(cpu, in->z.raw.evex.aaa) & all))
        return 0;
    return size >= 64 ? ~0ull : (1ull << size) - 1;
}

uint64_t engine_masked_bytes(void *argument) {
    struct masked_bytes *query = argument;
    struct cpu *cpu = query->cpu;
    struct memory_region *region = memory_find(cpu->memory, guest_physical_at(query->physical));
    unsigned left = (unsigned)(MEMORY_PAGE - (query->physical & MEMORY_PAGE_MASK));
    struct instruction in;
    if (!region || !decode(cpu->engine->decoder, cpu->mode_key, memory_host(region, guest_physical_at(query->physical)),
                           left < 15 ? left : 15, cpu->hot.rip, &in))
        return ~0ull; /* the instruction crosses pages: treat it as one access */
    for (unsigned i = 0; i < in.z.operand_count; i++) {
        const ZydisDecodedOperand *operand = &in.operand[i];
        if (operand->type != ZYDIS_OPERAND_TYPE_MEMORY || !operand->element_size)
            continue;
        if (in.z.avx.broadcast.mode)
            return broadcast_bytes(cpu, &in, operand->size / 8u);
        unsigned element = operand->element_size / 8u, size = operand->size / 8u;
        unsigned count = in.z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX ? size / element
                                                                         : counted_elements(&in, operand);
        return spread(element_mask(cpu, &in, element, count), count, element, size);
    }
    return ~0ull;
}
