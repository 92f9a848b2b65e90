/* See host_text.h. Capstone tells what the bytes are; it knows nothing of how they were made. */
#include "tests/expect/host_text.h"

#include <capstone/capstone.h>
#include <string.h>

#include "cpu/mode.h"

enum { LABELS = 64, TEXT = 200 };

struct host_text {
    FILE *to;
    const struct engine *engine;
    const struct block *block;
    uint16_t label[LABELS];
    unsigned label_count;
};

/* ---- Labels ---- */

static void add_label(struct host_text *text, uint64_t offset) {
    unsigned at = 0;
    if (offset >= text->block->host_size)
        return;
    while (at < text->label_count && text->label[at] < offset)
        at++;
    if (text->label_count == LABELS || (at < text->label_count && text->label[at] == offset))
        return;
    memmove(&text->label[at + 1], &text->label[at], (text->label_count - at) * sizeof text->label[0]);
    text->label[at] = (uint16_t)offset;
    text->label_count++;
}

/* 1, 2, ... in the order of the code; 0: none. */
static unsigned label_at(const struct host_text *text, uint64_t offset) {
    for (unsigned i = 0; i < text->label_count; i++)
        if (text->label[i] == offset)
            return i + 1;
    return 0;
}

static bool is_branch(csh handle, const cs_insn *insn) {
    const cs_x86 *x86 = &insn->detail->x86;
    bool jumps = cs_insn_group(handle, insn, CS_GRP_JUMP) || cs_insn_group(handle, insn, CS_GRP_CALL);
    return jumps && x86->op_count == 1 && x86->operands[0].type == X86_OP_IMM;
}

static void find_labels(struct host_text *text, csh handle, const cs_insn *insns, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (is_branch(handle, &insns[i]))
            add_label(text, (uint64_t)insns[i].detail->x86.operands[0].imm);
    for (unsigned i = 0; i < text->block->site_count; i++) {
        const struct site *site = &text->block->sites[i];
        if (site->kind == SITE_RETURN)
            add_label(text, site->host);
        else if ((site->kind == SITE_READ || site->kind == SITE_WRITE) && !(text->block->key & MODE_SLOW))
            add_label(text, site->other);
    }
}

/* ---- Names ---- */

static const char *stub_name(const struct stubs *stubs, uint64_t address) {
    const struct {
        uint64_t address;
        const char *name;
    } names[] = {
        {stubs->miss, "miss"},         {stubs->miss_read, "miss_read"}, {stubs->miss_write, "miss_write"},
        {stubs->helper, "helper"},     {stubs->exit, "exit"},
        {stubs->indirect, "indirect"}, {stubs->prepare, "prepare"}, {stubs->commit, "commit"},
        {stubs->returned, "returned"}, {stubs->set_flags, "set_flags"}, {stubs->crossing, "crossing"},
        {stubs->missed, "missed"},
    };
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].address == address)
            return names[i].name;
    return NULL;
}

struct range {
    int64_t from;
    unsigned element, count;
    const char *name;
    bool is_table; /* indexed by a register, so without a number */
};

#define STATE(field, element_type)                                                                                     \
    { R_STATE(field), sizeof(element_type), sizeof(((struct cpu *)0)->field) / sizeof(element_type), #field, false }
#define TABLE(field, element_type)                                                                                     \
    {                                                                                                                  \
        R_TABLE(field), sizeof(element_type), sizeof(((struct view_tables *)0)->field) / sizeof(element_type), #field, \
            true                                                                                                       \
    }

#define CHECK(table, name) { R_CHECK(table), sizeof(uint64_t), VIEW_CHECK_STRIDE / sizeof(uint64_t), name, true }

/* The field at an offset from R: "hot.gpr[10]", with what is left of the offset behind it. */
static bool name_offset(char *name, size_t size, int64_t offset) {
    static const struct range ranges[] = {
        STATE(hot.gpr, uint64_t),        STATE(hot.rflags, uint64_t),
        STATE(hot.rip, uint64_t),        STATE(hot.run, uint32_t),
        STATE(hot.clac_leaves, uint32_t), STATE(hot.pauses, uint32_t),
        STATE(hot.scratch, uint64_t),    STATE(hot.window_addend, uint64_t),
        STATE(hot.segment, uint64_t[3]), STATE(hot.supervisor_view, void *),
        STATE(hot.raw, uint64_t),        STATE(hot.bounce, uint64_t),
        STATE(hot.shadow_stack, void *), STATE(tsc_offset, int64_t),
        STATE(hot.view, void *),         STATE(segment, struct trapeze_segment),
        STATE(msr.tsc_aux, uint64_t),    STATE(msr.kernel_gs_base, uint64_t),
        STATE(msr.pat, uint64_t),        STATE(intr, uint32_t),
        STATE(cr0, uint64_t),            STATE(cr3, uint64_t),
        STATE(gdtr.base, uint64_t),      STATE(gdtr.limit, uint16_t),
        STATE(loaded, struct cpu_loaded), STATE(hot.segment_place, uint64_t),
        STATE(hot.countdown, uint32_t),
        TABLE(read_tag, uint64_t),       TABLE(write_tag, uint64_t),
        TABLE(addend, uint64_t),         TABLE(jump, struct view_jump),
        TABLE(region, uint64_t),         CHECK(VIEW_CHECK_A, "check a"),
        CHECK(VIEW_CHECK_B, "check b"),  CHECK(VIEW_ADDENDS, "addends"),
    };
    for (unsigned i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        const struct range *range = &ranges[i];
        int64_t inside = offset - range->from;
        if (inside < 0 || inside >= (int64_t)range->element * range->count)
            continue;
        int64_t rest = inside % range->element;
        int length = snprintf(name, size, "%s", range->name);
        if (range->count > 1 && (!range->is_table || inside >= range->element))
            length += snprintf(name + length, size - (size_t)length, "[%lld]", (long long)(inside / range->element));
        if (rest)
            snprintf(name + length, size - (size_t)length, "+%lld", (long long)rest);
        return true;
    }
    return false;
}

/* Puts `by` in place of the last ` + N]` or ` - N]` of an operand that is based on R. */
static void replace_displacement(char *operands, size_t size, const char *by) {
    char *bracket = strchr(operands, ']'), rest[TEXT], *from = bracket;
    while (from && from > operands && *from != '+' && *from != '-')
        from--;
    if (!bracket || from <= operands)
        return;
    snprintf(rest, sizeof rest, "%s", bracket);
    snprintf(from, size - (size_t)(from - operands), "+ %s%s", by, rest);
}

/* What is read or written at a place that R leads to; a LEA makes R itself. */
static const cs_x86_op *state_operand(const cs_insn *insn) {
    const cs_x86 *x86 = &insn->detail->x86;
    if (insn->id == X86_INS_LEA)
        return NULL;
    for (unsigned i = 0; i < x86->op_count; i++)
        if (x86->operands[i].type == X86_OP_MEM && x86->operands[i].mem.base == X86_REG_R13 &&
            x86->operands[i].mem.disp != 0)
            return &x86->operands[i];
    return NULL;
}

/* What a MOV in front of a call of the helper stub passes to it; NULL: it is no such MOV. */
static const struct helper_call *passed_call(const struct host_text *text, const cs_insn *insn, size_t left) {
    const cs_insn *next = insn + 1;
    const cs_x86 *x86 = &insn->detail->x86;
    if (left < 2 || next->id != X86_INS_CALL || next->detail->x86.operands[0].type != X86_OP_IMM)
        return NULL;
    uint64_t target = (uint64_t)text->block->host + (uint64_t)next->detail->x86.operands[0].imm;
    bool passes = target == text->engine->stubs.helper && x86->op_count == 2 && x86->operands[1].type == X86_OP_IMM;
    return passes ? (const struct helper_call *)x86->operands[1].imm : NULL;
}

static bool names_block(const struct host_text *text, const cs_insn *insn) {
    const cs_x86 *x86 = &insn->detail->x86;
    return x86->op_count == 2 && x86->operands[1].type == X86_OP_IMM &&
           (uint64_t)x86->operands[1].imm == (uint64_t)text->block;
}

/* ---- Lines ---- */

static void print_site(const struct host_text *text, uint64_t return_offset) {
    static const char *const segments[] = {"es", "cs", "ss", "ds", "fs", "gs"};
    const struct site *site = block_find_site(text->block, (uint64_t)text->block->host + return_offset);
    if (!site)
        return;
    bool is_slow = text->block->key & MODE_SLOW;
    switch (site->kind) {
    case SITE_READ:
    case SITE_WRITE:
        fprintf(text->to, " ; %s %u", site->kind == SITE_READ ? "read" : "write", site->info);
        if (is_slow)
            fprintf(text->to, " by %s", segments[site->data & SITE_SEGMENT_BITS]);
        else
            fprintf(text->to, ", again at %u", label_at(text, site->other));
        fprintf(text->to, "%s%s%s", site->data & SITE_MASKED ? " masked" : "",
                site->data & SITE_ALIGNED ? " aligned" : "", site->data & SITE_LOCKED ? " locked" : "");
        break;
    case SITE_SEGMENT:
        fprintf(text->to, " ; past the segment");
        break;
    case SITE_EXIT:
        fprintf(text->to, " ; to rip%+lld%s", (long long)site->data, site->other ? ", linkable" : "");
        break;
    case SITE_RAISE:
        fprintf(text->to, " ; exception %lld%s", (long long)site->data, site->info ? ", no rule" : "");
        break;
    default:
        break;
    }
}

/* Addresses of metadata differ from run to run; so does whether they need 32 bits or 64. */
static void print_call(const struct host_text *text, const struct helper_call *call) {
    fprintf(text->to, "      mov r11, call ; %s%s\n", call->is_user ? "unprivileged" : "privileged",
            call->ends_block ? ", ends the block" : "");
}

static void print_line(const struct host_text *text, csh handle, const cs_insn *insn) {
    char operands[TEXT], name[64];
    const cs_x86_op *state = state_operand(insn);
    snprintf(operands, sizeof operands, "%s", insn->op_str);
    if (state && name_offset(name, sizeof name, state->mem.disp))
        replace_displacement(operands, sizeof operands, name);
    if (is_branch(handle, insn)) {
        uint64_t target = (uint64_t)insn->detail->x86.operands[0].imm;
        const char *stub = stub_name(&text->engine->stubs, (uint64_t)text->block->host + target);
        unsigned label = label_at(text, target);
        snprintf(operands, sizeof operands, "%s%.0u", stub ? stub : label ? "" : "elsewhere", stub ? 0 : label);
    } else if (names_block(text, insn)) {
        char *comma = strchr(operands, ',');
        snprintf(comma, sizeof operands - (size_t)(comma - operands), ", block");
    }
    fprintf(text->to, "      %s%s%s", insn->mnemonic, *operands ? " " : "", operands);
    print_site(text, insn->address + insn->size);
    fprintf(text->to, "\n");
}

bool host_text_print(FILE *to, const struct engine *engine, const struct block *block) {
    struct host_text text = {.to = to, .engine = engine, .block = block};
    csh handle;
    cs_insn *insns = NULL;
    if (cs_open(CS_ARCH_X86, CS_MODE_64, &handle) != CS_ERR_OK)
        return false;
    cs_option(handle, CS_OPT_DETAIL, CS_OPT_ON);
    size_t count = cs_disasm(handle, block->host, block->host_size, 0, 0, &insns);
    bool is_whole = count && insns[count - 1].address + insns[count - 1].size == block->host_size;
    find_labels(&text, handle, insns, count);
    for (size_t i = 0; i < count; i++) {
        if (label_at(&text, insns[i].address))
            fprintf(to, "  %u:\n", label_at(&text, insns[i].address));
        const struct helper_call *call = passed_call(&text, &insns[i], count - i);
        if (call)
            print_call(&text, call);
        else
            print_line(&text, handle, &insns[i]);
    }
    if (count)
        cs_free(insns, count);
    cs_close(&handle);
    return is_whole;
}
