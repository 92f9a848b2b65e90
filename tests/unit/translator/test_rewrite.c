/*
 * Every instruction form that the rules know, translated in a block of its own, and the host code looked at. Copies
 * are compared by Zydis, operand for operand, and by Capstone, which knows nothing of how the code was made. Nothing
 * is run.
 */
#include <capstone/capstone.h>
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "tests/coverage/decoded_forms.h"
#include "tests/coverage/one_block.h"

enum { PAGE = ONE_BLOCK_PAGE, HOST_INSTRUCTIONS = 512, REPORTS = 20 };

/* Which registers a pass over the forms uses: those that live in host registers, in memory, high bytes, rcx, rsp. */
static const struct form_flavour flavours[] = {
    {.rm = 3, .sib = 0x0b, .vvvv = 1, .reg = 1},
    {.rm = 2, .sib = 0x4f, .vvvv = 10, .reg = 2, .extensions = 4},
    {.rm = 2, .sib = 0x32, .vvvv = 11, .reg = 3, .extensions = 1},
    {.rm = 6, .sib = 0x32, .vvvv = 14, .reg = 2, .extensions = 7},
    {.rm = 1, .sib = 0x0c, .vvvv = 2, .reg = 1},
    {.rm = 4, .sib = 0x25, .vvvv = 4, .reg = 4},
    {.rm = 5, .sib = 0x1d, .vvvv = 3, .reg = 5, .prefix = 0x67},
    {.rm = 6, .sib = 0xe1, .vvvv = 6, .reg = 6, .prefix = 0x64},
    {.rm = 7, .sib = 0x2f, .vvvv = 15, .reg = 7, .extensions = 5, .prefix = 0x65},
};

struct host_instruction {
    ZydisDecodedInstruction z;
    ZydisDecodedOperand operand[ZYDIS_MAX_OPERAND_COUNT];
    const uint8_t *bytes;
};

struct rewrite {
    struct one_block bench;
    struct decoder *guest_decoder;
    ZydisDecoder host_decoder;
    csh guest_capstone, host_capstone;
    struct form_set seen;
    unsigned bits, flavour;
    struct instruction in;
    struct host_instruction host[HOST_INSTRUCTIONS];
    unsigned host_count;
    unsigned forms, seconded, failures; /* seconded: Capstone knows the guest's instruction, too */
};

/* ---- Reports ---- */

static void complain(struct rewrite *r, const char *why) {
    char text[96] = "?";
    if (r->failures++ >= REPORTS)
        return;
    ZydisFormatter formatter;
    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    ZydisFormatterFormatInstruction(&formatter, r->in.z, r->in.operand, r->in.z->operand_count_visible, text,
                                    sizeof text, 0, NULL);
    fprintf(stderr, "%u-bit", r->bits);
    for (unsigned i = 0; i < r->in.z->length; i++)
        fprintf(stderr, " %02x", r->in.bytes[i]);
    fprintf(stderr, " (%s): %s; host code:\n", text, why);
    for (unsigned i = 0; i < r->host_count; i++) {
        ZydisFormatterFormatInstruction(&formatter, &r->host[i].z, r->host[i].operand,
                                        r->host[i].z.operand_count_visible, text, sizeof text, 0, NULL);
        fprintf(stderr, "    %s\n", text);
    }
}

/* ---- What may be in host code ---- */

/* What the rewriter makes itself around an instruction. */
static bool is_glue(const struct host_instruction *host) {
    static const ZydisMnemonic glue[] = {
        ZYDIS_MNEMONIC_MOV, ZYDIS_MNEMONIC_MOVZX, ZYDIS_MNEMONIC_LEA, ZYDIS_MNEMONIC_RORX, ZYDIS_MNEMONIC_SHRX,
        ZYDIS_MNEMONIC_SARX, ZYDIS_MNEMONIC_JRCXZ, ZYDIS_MNEMONIC_CALL, ZYDIS_MNEMONIC_JMP, ZYDIS_MNEMONIC_MOVSX,
        ZYDIS_MNEMONIC_MOVSXD, ZYDIS_MNEMONIC_NOT,
    };
    for (unsigned i = 0; i < sizeof glue / sizeof *glue; i++)
        if (glue[i] == host->z.mnemonic)
            return true;
    return false;
}

/* Privileged, sensitive, or lethal: a list of its own, not the rules'. */
static const char *const forbidden[] = {
    "syscall", "sysret", "sysenter", "sysexit", "int", "int1", "int3", "into", "iret", "iretd", "iretq", "in", "out",
    "insb", "insw", "insd", "outsb", "outsw", "outsd", "cli", "sti", "clac", "stac", "pushf", "pushfd", "pushfq",
    "popf", "popfd", "popfq", "hlt", "lgdt", "lidt", "lldt", "ltr", "sgdt", "sidt", "sldt", "str", "smsw", "lmsw",
    "lar", "lsl", "verr", "verw", "rdmsr", "wrmsr", "rdtsc", "rdtscp", "rdpmc", "rdpid", "rdpru", "cpuid", "xgetbv",
    "xsetbv", "xsave", "xsave64", "xsavec", "xsavec64", "xsaveopt", "xsaveopt64", "xsaves", "xsaves64", "xrstor",
    "xrstor64", "xrstors", "xrstors64", "fxsave", "fxsave64", "fxrstor", "fxrstor64", "fnstenv", "fnsave", "fldenv",
    "frstor", "rdfsbase", "rdgsbase", "wrfsbase", "wrgsbase", "rdpkru", "wrpkru", "vmcall", "vmmcall", "vmfunc",
    "monitor", "mwait", "monitorx", "mwaitx", "umonitor", "umwait", "tpause", "encls", "enclu", "enclv", "xbegin",
    "xend", "xabort", "xtest", "swapgs", "rsm", "invd", "wbinvd", "invlpg", "invpcid", "clts", "clzero", "enqcmd",
    "enqcmds", "movdir64b", "getsec", "lds", "les", "lfs", "lgs", "lss", "maskmovq", "maskmovdqu", "vmaskmovdqu",
    "xlat", "movsb", "movsw", "movsq", "stosb", "stosw", "stosd", "stosq", "lodsb", "lodsw", "lodsd", "lodsq",
    "scasb", "scasw", "scasd", "scasq", "cmpsb", "cmpsw", "cmpsq", "ptwrite", "senduipi", "uiret", "loadiwkey",
    "pconfig", "tdcall", "seamcall", "push", "pop", "leave", "enter", "ret", "bound", "incsspq", "rdsspq",
};

static bool is_forbidden(const struct host_instruction *host) {
    const char *name = ZydisMnemonicGetString(host->z.mnemonic);
    for (unsigned i = 0; i < sizeof forbidden / sizeof *forbidden; i++)
        if (!strcmp(name, forbidden[i]))
            return true;
    for (unsigned i = 0; i < host->z.operand_count; i++) {
        if (host->operand[i].type != ZYDIS_OPERAND_TYPE_REGISTER ||
            host->operand[i].visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
            continue;
        ZydisRegisterClass class = ZydisRegisterGetClass(host->operand[i].reg.value);
        if (class == ZYDIS_REGCLASS_SEGMENT || class == ZYDIS_REGCLASS_CONTROL || class == ZYDIS_REGCLASS_DEBUG)
            return true;
    }
    return host->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
}

static bool is_base(ZydisRegister reg) {
    return reg == ZYDIS_REGISTER_R11 || reg == ZYDIS_REGISTER_RCX || reg == ZYDIS_REGISTER_R13;
}

static bool has_good_memory(const struct host_instruction *host) {
    if (host->z.mnemonic == ZYDIS_MNEMONIC_NOP)
        return true; /* padding */
    for (unsigned i = 0; i < host->z.operand_count; i++) {
        const ZydisDecodedOperand *operand = &host->operand[i];
        if (operand->type != ZYDIS_OPERAND_TYPE_MEMORY || operand->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
            continue;
        if (operand->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN) {
            if (host->z.mnemonic != ZYDIS_MNEMONIC_CALL)
                return false;
            continue; /* the return address, on the shadow stack */
        }
        if (!is_base(operand->mem.base) || operand->mem.segment == ZYDIS_REGISTER_FS ||
            operand->mem.segment == ZYDIS_REGISTER_GS)
            return false;
    }
    return true;
}

/* ---- Guest's instruction against host's ---- */

static unsigned gpr_of(const ZydisDecodedOperand *operand, bool *high) {
    *high = false;
    return operand->type == ZYDIS_OPERAND_TYPE_REGISTER ? decode_gpr(operand->reg.value, high) : CPU_NO_REGISTER;
}

static bool is_hidden(const ZydisDecodedOperand *operand) {
    return operand->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN;
}

static bool has_high_byte(const struct instruction *in) {
    bool any = false;
    for (unsigned i = 0; i < in->z->operand_count; i++) {
        bool high;
        gpr_of(&in->operand[i], &high);
        any |= high;
    }
    return any;
}

/* Whether the host's register may stand for the guest's. */
static bool stands_for(const struct instruction *in, const ZydisDecodedOperand *guest,
                       const ZydisDecodedOperand *host) {
    bool guest_high, host_high;
    unsigned from = gpr_of(guest, &guest_high), to = gpr_of(host, &host_high);
    if (guest->size != host->size || to == CPU_NO_REGISTER || to == HOST_RSP || to == REG_R)
        return false;
    if (guest->encoding == ZYDIS_OPERAND_ENCODING_NONE) /* implicit: the register itself */
        return from == to && guest_high == host_high;
    if (guest_high) /* itself, or CH turned into r10b, or a source moved to r11b */
        return host_high ? from == to : (from == CPU_RCX && to == host_register[CPU_RCX]) || to == REG_S;
    if (host_high)
        return false;
    if (host_register[from] == to || (from == CPU_RCX && to == HOST_RCX && has_high_byte(in)))
        return true;
    return host_register[from] == HOST_NONE;
}

/* A guest register that lives in memory, reached there: all of it, or nothing of it written. */
static bool is_slot(const ZydisDecodedOperand *guest, const ZydisDecodedOperand *host) {
    bool high;
    unsigned from = gpr_of(guest, &high);
    if (from == CPU_NO_REGISTER || host_register[from] != HOST_NONE || host->type != ZYDIS_OPERAND_TYPE_MEMORY)
        return false;
    if ((guest->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) && guest->size != 64)
        return false;
    return guest->size == host->size && guest->actions == host->actions && host->mem.base == ZYDIS_REGISTER_R13 &&
           host->mem.index == ZYDIS_REGISTER_NONE && host->mem.disp.value == R_GPR(from);
}

static bool is_same_operand(const struct instruction *in, const ZydisDecodedOperand *guest,
                            const ZydisDecodedOperand *host) {
    bool high;
    if (is_slot(guest, host))
        return true;
    if (guest->type != host->type)
        return false;
    switch (guest->type) {
    case ZYDIS_OPERAND_TYPE_REGISTER:
        if (gpr_of(guest, &high) != CPU_NO_REGISTER)
            return stands_for(in, guest, host);
        if (ZydisRegisterGetClass(guest->reg.value) == ZYDIS_REGCLASS_FLAGS)
            return true;
        return guest->reg.value == host->reg.value;
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
        return guest->imm.value.u == host->imm.value.u && guest->size == host->size;
    case ZYDIS_OPERAND_TYPE_MEMORY:
        return guest->size == host->size && guest->actions == host->actions && is_base(host->mem.base) &&
               host->mem.base != ZYDIS_REGISTER_R13 &&
               (host->mem.index == ZYDIS_REGISTER_NONE || (is_base(host->mem.index) && host->mem.scale == 1)) &&
               !host->mem.disp.value;
    default:
        return false;
    }
}

/* Registers that are two in the guest must be two on the host, and none may be part of the address. */
static bool are_apart(const struct instruction *in, const struct host_instruction *host) {
    bool high;
    for (unsigned i = 0; i < in->z->operand_count; i++) {
        unsigned from = gpr_of(&in->operand[i], &high), to = gpr_of(&host->operand[i], &high);
        if (from == CPU_NO_REGISTER || to == CPU_NO_REGISTER)
            continue;
        for (unsigned k = 0; k < in->z->operand_count; k++) {
            unsigned other_from = gpr_of(&in->operand[k], &high), other_to = gpr_of(&host->operand[k], &high);
            if (other_from != CPU_NO_REGISTER && other_from != from && other_to == to)
                return false;
            const ZydisDecodedOperand *memory = &host->operand[k];
            if (memory->type == ZYDIS_OPERAND_TYPE_MEMORY && !is_hidden(memory) &&
                (gpr_of(&(ZydisDecodedOperand){.type = ZYDIS_OPERAND_TYPE_REGISTER, .reg.value = memory->mem.base},
                        &high) == to ||
                 gpr_of(&(ZydisDecodedOperand){.type = ZYDIS_OPERAND_TYPE_REGISTER, .reg.value = memory->mem.index},
                        &high) == to))
                return false;
        }
    }
    return true;
}

static bool is_copy(const struct instruction *in, const struct host_instruction *host) {
    const ZydisDecodedInstruction *a = in->z, *b = &host->z;
    if (a->mnemonic != b->mnemonic || a->encoding != b->encoding || a->operand_count != b->operand_count ||
        a->meta.isa_set != b->meta.isa_set || a->avx.vector_length != b->avx.vector_length ||
        a->avx.mask.mode != b->avx.mask.mode || a->avx.mask.reg != b->avx.mask.reg ||
        a->avx.broadcast.mode != b->avx.broadcast.mode || a->avx.rounding.mode != b->avx.rounding.mode ||
        a->avx.has_sae != b->avx.has_sae ||
        ((a->attributes ^ b->attributes) & ZYDIS_ATTRIB_HAS_LOCK))
        return false;
    /* TEST with a register that is in memory: there is only one direction. */
    bool is_turned = a->mnemonic == ZYDIS_MNEMONIC_TEST && in->operand[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
                     is_slot(&in->operand[1], &host->operand[0]);
    for (unsigned i = 0; i < a->operand_count; i++)
        if (!is_same_operand(in, &in->operand[i], &host->operand[is_turned && i < 2 ? 1 - i : i]))
            return false;
    return are_apart(in, host);
}

/* ---- Looking at the code ---- */

static bool decode_host(struct rewrite *r, const struct block *block) {
    r->host_count = 0;
    for (uint32_t at = 0; at < block->host_size;) {
        if (r->host_count == HOST_INSTRUCTIONS)
            return false;
        struct host_instruction *host = &r->host[r->host_count];
        host->bytes = block->host + at;
        if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&r->host_decoder, host->bytes, block->host_size - at, &host->z,
                                                 host->operand)))
            return false;
        r->host_count++;
        at += host->z.length;
    }
    return true;
}

static void check_by_zydis(struct rewrite *r) {
    unsigned copies = 0, others = 0;
    for (unsigned i = 0; i < r->host_count; i++) {
        const struct host_instruction *host = &r->host[i];
        bool copy = is_copy(&r->in, host);
        copies += copy;
        others += !copy && !is_glue(host);
        if (is_forbidden(host))
            complain(r, "a forbidden instruction");
        if (!has_good_memory(host))
            complain(r, "a memory operand that has no host address in its base");
    }
    struct host_instruction self = {.z = *r->in.z};
    if (copies == 0 || (copies > 1 && !is_glue(&self)))
        complain(r, copies ? "more than one copy" : "no copy of the instruction");
    if (others)
        complain(r, "an instruction that is neither the copy nor the rewriter's");
}

/* Capstone puts prefixes in front of the name. */
static const char *bare_name(const char *mnemonic) {
    const char *space = strrchr(mnemonic, ' ');
    return space ? space + 1 : mnemonic;
}

/* PUSHF asks the host for its flags, and so does a repeated MOVS or STOS, which looks at DF. */
static bool reads_flags(const struct rewrite *r, const struct host_instruction *host) {
    bool is_pushf = r->in.z->mnemonic == ZYDIS_MNEMONIC_PUSHFD || r->in.z->mnemonic == ZYDIS_MNEMONIC_PUSHFQ;
    bool is_string = r->in.z->meta.category == ZYDIS_CATEGORY_STRINGOP;
    return (is_pushf || is_string) && (host->z.mnemonic == ZYDIS_MNEMONIC_PUSHFQ ||
                        (host->z.mnemonic == ZYDIS_MNEMONIC_POP && host->operand[0].reg.value == ZYDIS_REGISTER_R11));
}

/* Code that the rewriter makes for an instruction that it does not copy; RET and PUSHFQ are on the shadow stack. */
static void check_made(struct rewrite *r) {
    for (unsigned i = 0; i < r->host_count; i++) {
        const struct host_instruction *host = &r->host[i];
        if (host->z.mnemonic == ZYDIS_MNEMONIC_RET || reads_flags(r, host))
            continue;
        /* The host's counter is read for a guest's reading of its own; nowhere else. */
        bool reads_time = host->z.mnemonic == ZYDIS_MNEMONIC_RDTSC && (r->in.z->mnemonic == ZYDIS_MNEMONIC_RDTSC ||
                                                                       r->in.z->mnemonic == ZYDIS_MNEMONIC_RDTSCP);
        /* A string instruction is itself, on rsi and rdi that hold host addresses meanwhile. */
        bool is_string = host->z.mnemonic == r->in.z->mnemonic && r->in.z->meta.category == ZYDIS_CATEGORY_STRINGOP;
        if (is_string)
            continue;
        if (is_forbidden(host) && !reads_time)
            complain(r, "a forbidden instruction");
        if (!has_good_memory(host))
            complain(r, "a memory operand that has no host address in its base");
    }
}

/* By Capstone's name of the guest's instruction, or by Zydis's: outside 64-bit mode Capstone ignores EVEX.W. */
static bool is_same_name(const struct rewrite *r, const cs_insn *guest, const cs_insn *host) {
    const char *name = bare_name(host->mnemonic);
    return !strcmp(bare_name(guest->mnemonic), name) || !strcmp(ZydisMnemonicGetString(r->in.z->mnemonic), name);
}

static bool has_good_capstone_memory(const cs_insn *insn) {
    if (insn->id == X86_INS_LEA)
        return true;
    const cs_x86 *x86 = &insn->detail->x86;
    for (unsigned i = 0; i < x86->op_count; i++) {
        x86_reg base = x86->operands[i].mem.base;
        if (x86->operands[i].type == X86_OP_MEM && base != X86_REG_R11 && base != X86_REG_RCX && base != X86_REG_R13)
            return false;
    }
    return true;
}

static void check_by_capstone(struct rewrite *r, const struct block *block) {
    cs_insn *guest = NULL, *host = NULL;
    if (cs_disasm(r->guest_capstone, r->in.bytes, r->in.z->length, 0, 1, &guest) != 1)
        return; /* newer than Capstone */
    if (guest->size != r->in.z->length) {
        cs_free(guest, 1);
        return;
    }
    r->seconded++;
    size_t count = cs_disasm(r->host_capstone, block->host, block->host_size, 0, 0, &host), named = 0;
    for (size_t i = 0; i < count; i++) {
        named += is_same_name(r, guest, &host[i]);
        if (!has_good_capstone_memory(&host[i]))
            complain(r, "Capstone: a memory operand that has no host address in its base");
        if (cs_insn_group(r->host_capstone, &host[i], X86_GRP_PRIVILEGE) ||
            cs_insn_group(r->host_capstone, &host[i], X86_GRP_INT))
            complain(r, "Capstone: a privileged instruction");
    }
    struct host_instruction self = {.z = *r->in.z};
    size_t end = count ? host[count - 1].address + host[count - 1].size : 0;
    if (end != block->host_size)
        complain(r, "Capstone: bytes that are no instruction");
    else if (named == 0 || (named > 1 && !is_glue(&self)))
        complain(r, named ? "Capstone: the instruction more than once" : "Capstone: another instruction");
    cs_free(host, count);
    cs_free(guest, 1);
}

/* ---- Translating ---- */

static struct block *translate(struct rewrite *r) {
    uint64_t rip = PAGE - r->in.z->length; /* nothing follows it in its page */
    memcpy(r->bench.ram + rip, r->in.bytes, r->in.z->length);
    return one_block_translate(&r->bench, rip, decoded_forms_key(r->bits));
}

static void visit(void *opaque, const uint8_t *bytes) {
    struct rewrite *r = opaque;
    if (!decode(r->guest_decoder, decoded_forms_key(r->bits), bytes, FORM_BYTES, PAGE - FORM_BYTES, &r->in))
        return;
    bool is_integer = r->in.rule.class == CLASS_INTEGER || r->in.rule.class == CLASS_VEX_INTEGER;
    uint64_t hash = decoded_forms_hash(&r->in) ^ (is_integer ? r->in.z->raw.modrm.reg : 0);
    if (r->in.rule.kind == RULE_NONE || !form_set_add(&r->seen, hash))
        return;
    r->forms++;
    r->host_count = 0;
    struct block *block = translate(r);
    if (!block) {
        complain(r, "not translated");
        return;
    }
    if (!decode_host(r, block)) {
        complain(r, "host code that does not decode");
        return;
    }
    if (r->in.rule.kind == RULE_COPY) {
        check_by_zydis(r);
        check_by_capstone(r, block);
    } else {
        check_made(r);
    }
}

static struct rewrite *setup(void) {
    struct rewrite *r = calloc(1, sizeof *r);
    ck_assert(one_block_create(&r->bench));
    r->guest_decoder = decoded_forms_decoder();
    ZydisDecoderInit(&r->host_decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    cs_open(CS_ARCH_X86, CS_MODE_64, &r->host_capstone);
    cs_option(r->host_capstone, CS_OPT_DETAIL, CS_OPT_ON);
    return r;
}

static void run(unsigned bits, unsigned least_forms) {
    struct rewrite *r = setup();
    r->bits = bits;
    cs_open(CS_ARCH_X86, bits == 64 ? CS_MODE_64 : bits == 32 ? CS_MODE_32 : CS_MODE_16, &r->guest_capstone);
    for (r->flavour = 0; r->flavour < sizeof flavours / sizeof *flavours; r->flavour++) {
        ck_assert(form_set_init(&r->seen, 17));
        forms_visit(bits, &flavours[r->flavour], visit, r);
        form_set_release(&r->seen);
    }
    printf("%u-bit: %u forms, %u of them looked at by Capstone\n", bits, r->forms, r->seconded);
    ck_assert_uint_eq(r->failures, 0);
    ck_assert_uint_ge(r->forms, least_forms);
    ck_assert_uint_ge(r->seconded, r->forms / 5 * 2); /* Capstone 4 knows little of AVX-512 */
    cs_close(&r->guest_capstone);
    cs_close(&r->host_capstone);
    decoder_destroy(r->guest_decoder);
    one_block_destroy(&r->bench);
    free(r);
}

START_TEST(copies_of_64_bit_code_are_the_guests_instructions_on_host_operands) {
    run(64, 50000);
}
END_TEST

START_TEST(copies_of_32_bit_code_are_the_guests_instructions_on_host_operands) {
    run(32, 50000);
}
END_TEST

START_TEST(copies_of_16_bit_code_are_the_guests_instructions_on_host_operands) {
    run(16, 10000);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("rewrite");
    TCase *tests = tcase_create("rewrite");
    tcase_set_timeout(tests, 250);
    tcase_add_test(tests, copies_of_64_bit_code_are_the_guests_instructions_on_host_operands);
    tcase_add_test(tests, copies_of_32_bit_code_are_the_guests_instructions_on_host_operands);
    tcase_add_test(tests, copies_of_16_bit_code_are_the_guests_instructions_on_host_operands);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
