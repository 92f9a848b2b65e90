/* See the header. The form of an instruction is what the rewriter could treat differently. */
#include "tests/coverage/decoded_forms.h"

#include <string.h>

#include "cpu/model_internal.h"

struct decoder *decoded_forms_decoder(void) {
    struct cpu_model model = {0};
    memset(model.features, 0xff, sizeof model.features);
    return decoder_create(&model);
}

uint32_t decoded_forms_key(unsigned bits) {
    uint32_t key = MODE_STACK32 | MODE_PROTECTED | MODE_FLAT | MODE_OSFXSR | MODE_AVX | MODE_AVX512 | MODE_MP;
    if (bits == 64)
        return key | MODE_CODE64 | MODE_LONG;
    return key | (bits == 32 ? MODE_CODE32 : MODE_CODE16);
}

static uint64_t mix(uint64_t hash, uint64_t value) {
    hash = (hash ^ value) * 0x100000001b3u;
    return hash ^ hash >> 29;
}

static uint64_t kind_of(const ZydisDecodedOperand *operand) {
    uint64_t kind = (uint64_t)operand->type << 40 ^ (uint64_t)operand->encoding << 32 ^ operand->size;
    if (operand->type == ZYDIS_OPERAND_TYPE_REGISTER) {
        bool high = operand->reg.value >= ZYDIS_REGISTER_AH && operand->reg.value <= ZYDIS_REGISTER_BH;
        kind ^= (uint64_t)ZydisRegisterGetClass(operand->reg.value) << 24 ^ (uint64_t)high << 48;
    }
    return kind;
}

static unsigned opcode_without_register(const struct instruction *in) {
    for (unsigned i = 0; i < in->z->operand_count; i++)
        if (in->operand[i].encoding == ZYDIS_OPERAND_ENCODING_OPCODE)
            return in->z->opcode & 0xf8;
    return in->z->opcode;
}

uint64_t decoded_forms_hash(const struct instruction *in) {
    const ZydisDecodedInstruction *z = in->z;
    uint64_t hash = mix(0xcbf29ce484222325u, z->mnemonic);
    hash = mix(hash, (uint64_t)z->meta.isa_set << 16 ^ z->encoding);
    hash = mix(hash, (uint64_t)opcode_without_register(in) << 8 ^ z->opcode_map);
    hash = mix(hash, z->attributes & (ZYDIS_ATTRIB_HAS_LOCK | ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE |
                                      ZYDIS_ATTRIB_HAS_REPNE));
    hash = mix(hash, (uint64_t)z->avx.vector_length << 32 ^ (uint64_t)z->avx.mask.mode << 24 ^
                         (uint64_t)z->avx.broadcast.mode << 16 ^ (uint64_t)z->avx.rounding.mode << 8 ^ z->avx.has_sae);
    for (unsigned i = 0; i < z->operand_count; i++)
        if (in->operand[i].visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN)
            hash = mix(hash, kind_of(&in->operand[i]));
    return hash;
}

bool decoded_forms_has_memory(const struct instruction *in) {
    for (unsigned i = 0; i < in->z->operand_count; i++) {
        const ZydisDecodedOperand *operand = &in->operand[i];
        bool is_stack = operand->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN &&
                        operand->mem.segment == ZYDIS_REGISTER_SS;
        if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY && !is_stack)
            return true;
    }
    return false;
}
