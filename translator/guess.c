/*
 * What guest registers will probably hold in front of each instruction of a block: the values they have where the block is
 * asked for, led through moves, sums and loads, and along the branches of a loop. Nothing depends on these values but the form of an access in a window
 * (memory_form.c), where a wrong guess costs another translation.
 */
#include <string.h>

#include "cpu/views.h"
#include "memory/guest_memory.h"
#include "translator/translation.h"

void guess_start(struct translation *t) {
    memcpy(t->guess, t->cpu->hot.gpr, sizeof t->guess);
    t->guessed = 0xffff;
    t->guess_label_count = 0;
}

bool guess_register(const struct translation *t, unsigned guest, uint64_t *value) {
    *value = guest == CPU_NO_REGISTER ? 0 : t->guess[guest];
    return guest == CPU_NO_REGISTER || (t->guessed & (1u << guest));
}

enum { NO_POINTER = 1 << 16 }; /* an index that nobody knows is small beside a pointer */

bool guess_address(const struct translation *t, const struct address *address, uint64_t *linear) {
    uint64_t base, index;
    bool has_base = guess_register(t, address->base, &base), has_index = guess_register(t, address->index, &index);
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

struct guess {
    bool is_known;
    uint64_t value;
};

static bool is_pointer(const struct guess *guess) {
    return guess->is_known && guess->value >= NO_POINTER;
}

static const struct guess *pointer_of(const struct guess *first, const struct guess *second) {
    return is_pointer(second) && !is_pointer(first) ? second : first;
}

/* The value that the instruction gives its first operand, by those that its operands have. */
static struct guess result_of(ZydisMnemonic mnemonic, const struct guess *first, const struct guess *second) {
    bool has_both = first->is_known && second->is_known;
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_INC:
        return (struct guess){first->is_known, first->value + 1};
    case ZYDIS_MNEMONIC_DEC:
        return (struct guess){first->is_known, first->value - 1};
    case ZYDIS_MNEMONIC_ADD:
        if (has_both)
            return (struct guess){true, first->value + second->value};
        first = pointer_of(first, second);
        return (struct guess){is_pointer(first), first->value};
    case ZYDIS_MNEMONIC_SUB:
        return (struct guess){has_both, first->value - second->value};
    case ZYDIS_MNEMONIC_AND:
        return (struct guess){has_both, first->value & second->value};
    case ZYDIS_MNEMONIC_CMOVB:
    case ZYDIS_MNEMONIC_CMOVBE:
    case ZYDIS_MNEMONIC_CMOVL:
    case ZYDIS_MNEMONIC_CMOVLE:
    case ZYDIS_MNEMONIC_CMOVNB:
    case ZYDIS_MNEMONIC_CMOVNBE:
    case ZYDIS_MNEMONIC_CMOVNL:
    case ZYDIS_MNEMONIC_CMOVNLE:
    case ZYDIS_MNEMONIC_CMOVNS:
    case ZYDIS_MNEMONIC_CMOVNZ:
    case ZYDIS_MNEMONIC_CMOVS:
    case ZYDIS_MNEMONIC_CMOVZ:
        return *pointer_of(first, second);
    default:
        return (struct guess){0};
    }
}

static struct guess guess_result(const struct translation *t) {
    const ZydisDecodedOperand *operand = t->in.operand;
    struct guess first = {0}, second = {0};
    second.is_known = operand_value(t, &operand[1], &second.value);
    switch (t->in.z->mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_MOVZX:
    case ZYDIS_MNEMONIC_LEA:
        return second;
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD:
        second.value = sign_extended(second.value, operand[1].size);
        return second;
    case ZYDIS_MNEMONIC_POP:
        second.is_known = operand_value(t, &operand[2], &second.value);
        return second;
    case ZYDIS_MNEMONIC_XOR:
    case ZYDIS_MNEMONIC_SUB:
        if (operand[1].type == ZYDIS_OPERAND_TYPE_REGISTER && operand[0].reg.value == operand[1].reg.value)
            return (struct guess){true, 0};
        break;
    default:
        break;
    }
    first.is_known = operand_value(t, &operand[0], &first.value);
    return result_of(t->in.z->mnemonic, &first, &second);
}

/* ---- Branches within a loop ---- */

static struct guess_label *find_label(struct translation *t, uint64_t target) {
    for (unsigned i = 0; i < t->guess_label_count; i++)
        if (t->guess_label[i].target == target)
            return &t->guess_label[i];
    return NULL;
}

/* The first branch forward to a place says what is not known from above, or all where nothing comes from above. */
static void guess_at_labels(struct translation *t) {
    const ZydisDecodedOperand *operand = &t->in.operand[0];
    bool is_jump = t->in.rule.kind == RULE_JUMP, is_branch = is_jump || t->in.rule.kind == RULE_JCC;
    uint64_t target = next_rip(t) + (operand->type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? operand->imm.value.u : 0);
    if (is_branch && target > next_rip(t) && t->guess_label_count < GUESS_LABELS && !find_label(t, target)) {
        struct guess_label *made = &t->guess_label[t->guess_label_count++];
        *made = (struct guess_label){.target = target, .guessed = t->guessed};
        memcpy(made->guess, t->guess, sizeof made->guess);
    }
    const struct guess_label *label = find_label(t, next_rip(t));
    if (!label)
        return;
    t->guessed = is_jump ? 0 : t->guessed;
    for (unsigned guest = 0; guest < CPU_REGISTERS; guest++)
        if (label->guessed & ~t->guessed & (1u << guest))
            t->guess[guest] = label->guess[guest];
    t->guessed |= label->guessed;
}

void guess_next(struct translation *t) {
    enum { PRESERVED = 1 << CPU_RBX | 1 << CPU_RBP | 1 << CPU_RSP | 0xf << CPU_R12 };
    if (t->in.rule.kind == RULE_CALL) {
        t->guessed &= PRESERVED; /* as compilers have it */
        return;
    }
    for (unsigned i = 0; i < t->in.z->operand_count; i++) {
        const ZydisDecodedOperand *operand = &t->in.operand[i];
        bool high = false;
        unsigned guest = operand->type == ZYDIS_OPERAND_TYPE_REGISTER ? decode_gpr(operand->reg.value, &high)
                                                                     : CPU_NO_REGISTER;
        if (guest == CPU_NO_REGISTER || !(operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) || guest == CPU_RSP)
            continue; /* stacks do not move far */
        struct guess result = {0};
        if (i == 0 && operand->size >= 32)
            result = guess_result(t);
        t->guessed &= (uint16_t)~(1u << guest);
        if (!result.is_known)
            continue;
        t->guess[guest] = operand->size == 32 ? (uint32_t)result.value : result.value;
        t->guessed |= (uint16_t)(1u << guest);
    }
    if (t->loop.is_found)
        guess_at_labels(t);
}
