/*
 * What guest registers will probably hold in front of each instruction of a block: the values they have where the block is
 * asked for, led through moves, sums and loads. Nothing depends on these values but the form of an access in a window
 * (memory_form.c), where a wrong guess costs another translation.
 */
#include <string.h>

#include "cpu/views.h"
#include "memory/guest_memory.h"
#include "translator/translation.h"

void guess_start(struct translation *t) {
    memcpy(t->guess, t->cpu->hot.gpr, sizeof t->guess);
    t->guessed = 0xffff;
}

bool guess_register(const struct translation *t, unsigned guest, uint64_t *value) {
    *value = guest == CPU_NO_REGISTER ? 0 : t->guess[guest];
    return guest == CPU_NO_REGISTER || (t->guessed & (1u << guest));
}

bool guess_address(const struct translation *t, const struct address *address, uint64_t *linear) {
    uint64_t base, index;
    bool has_base = guess_register(t, address->base, &base), has_index = guess_register(t, address->index, &index);
    enum { NO_POINTER = 1 << 16 }; /* an index that nobody knows is small beside a pointer */
    bool is_pointer = base + (uint64_t)address->displacement >= NO_POINTER;
    if (!has_base || (!has_index && !is_pointer))
        return false;
    *linear = base + (has_index ? index : 0) * address->scale + (uint64_t)address->displacement;
    if (address->segment == CPU_FS || address->segment == CPU_GS)
        *linear += t->cpu->segment[address->segment].base;
    return true;
}

/* What the guest's memory holds now. */
static bool look_at_memory(const struct translation *t, uint64_t linear, unsigned bytes, uint64_t *value) {
    guest_physical physical;
    if ((linear & MEMORY_PAGE_MASK) + bytes > MEMORY_PAGE || !cpu_walk_debug(t->cpu, linear, &physical))
        return false;
    struct memory_region *region = memory_find(t->cpu->memory, physical);
    *value = 0;
    if (region)
        memcpy(value, memory_host(region, physical), bytes);
    return region;
}

static bool operand_value(const struct translation *t, const ZydisDecodedOperand *operand, uint64_t *value) {
    bool high;
    unsigned guest;
    uint64_t linear;
    struct address address;
    switch (operand->type) {
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
        *value = operand->imm.value.u;
        return true;
    case ZYDIS_OPERAND_TYPE_REGISTER:
        guest = decode_gpr(operand->reg.value, &high);
        if (guest == CPU_NO_REGISTER || high || !guess_register(t, guest, value))
            return false;
        break;
    case ZYDIS_OPERAND_TYPE_MEMORY:
        address = address_of(t, operand);
        if (!guess_address(t, &address, &linear))
            return false;
        if (operand->mem.type == ZYDIS_MEMOP_TYPE_AGEN) {
            *value = linear;
            return true;
        }
        if (operand->size > 64 || !look_at_memory(t, linear, operand->size / 8, value))
            return false;
        break;
    default:
        return false;
    }
    if (operand->size < 64)
        *value &= (1ull << operand->size) - 1;
    return true;
}

static uint64_t sign_extended(uint64_t value, unsigned bits) {
    return (uint64_t)((int64_t)(value << (64 - bits)) >> (64 - bits));
}

/* The value that the instruction gives its first operand. */
static bool result_of(const struct translation *t, uint64_t *value) {
    const ZydisDecodedOperand *operand = t->in.operand;
    uint64_t first, second = 0;
    bool has_second = operand_value(t, &operand[1], &second);
    switch (t->in.z->mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_MOVZX:
    case ZYDIS_MNEMONIC_LEA:
        *value = second;
        return has_second;
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD:
        *value = sign_extended(second, operand[1].size);
        return has_second;
    case ZYDIS_MNEMONIC_POP:
        return operand_value(t, &operand[2], value);
    case ZYDIS_MNEMONIC_XOR:
    case ZYDIS_MNEMONIC_SUB:
        if (operand[1].type == ZYDIS_OPERAND_TYPE_REGISTER && operand[0].reg.value == operand[1].reg.value) {
            *value = 0;
            return true;
        }
        break;
    default:
        break;
    }
    if (!operand_value(t, &operand[0], &first) || !has_second)
        return false;
    switch (t->in.z->mnemonic) {
    case ZYDIS_MNEMONIC_ADD:
        *value = first + second;
        return true;
    case ZYDIS_MNEMONIC_SUB:
        *value = first - second;
        return true;
    case ZYDIS_MNEMONIC_AND:
        *value = first & second;
        return true;
    default:
        return false;
    }
}

void guess_next(struct translation *t) {
    enum { PRESERVED = 1 << CPU_RBX | 1 << CPU_RBP | 1 << CPU_RSP | 0xf << CPU_R12 };
    if (t->in.rule.kind == RULE_CALL) {
        t->guessed &= PRESERVED; /* as compilers have it */
        return;
    }
    uint64_t value = 0;
    for (unsigned i = 0; i < t->in.z->operand_count; i++) {
        const ZydisDecodedOperand *operand = &t->in.operand[i];
        bool high = false;
        unsigned guest = operand->type == ZYDIS_OPERAND_TYPE_REGISTER ? decode_gpr(operand->reg.value, &high)
                                                                     : CPU_NO_REGISTER;
        if (guest == CPU_NO_REGISTER || !(operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) || guest == CPU_RSP)
            continue; /* stacks do not move far */
        if (i == 0 && operand->size >= 32 && result_of(t, &value)) {
            t->guess[guest] = operand->size == 32 ? (uint32_t)value : value;
            t->guessed |= (uint16_t)(1u << guest);
        } else {
            t->guessed &= (uint16_t)~(1u << guest);
        }
    }
}
