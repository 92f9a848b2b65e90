/* See gdb_registers.h. Names and groups are those of gdb's own features for the i386 family. */
#include "tools/gdb_registers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where a register's value is. */
enum place {
    IN_REGISTERS, /* at `at` in struct trapeze_registers */
    IN_SELECTOR,  /* segment `at` */
    IN_XSAVE,     /* at `at` in the image: `stored` bytes */
    IN_TAGS,      /* the tag word, which the image has abridged */
    IN_YMM_HIGH,  /* as IN_XSAVE, all zero while the component is in its initial state */
    IN_KERNEL_GS,
};

struct row {
    const char *name, *type;
    uint8_t bits;
    uint8_t place;
    uint8_t stored; /* bytes, where they are fewer than the register's */
    uint16_t at;
};

enum group { CORE, SSE, AVX, SEGMENTS, SYSTEM, GROUPS };
static const char *const group_names[GROUPS] = {"org.gnu.gdb.i386.core", "org.gnu.gdb.i386.sse",
                                                "org.gnu.gdb.i386.avx", "org.gnu.gdb.i386.segments",
                                                "org.trapeze.system"};

#define FIELD(member) offsetof(struct trapeze_registers, member)
#define GPR(name, n)                                                                                                   \
    { name, "int64", 64, IN_REGISTERS, 8, FIELD(gpr[n]) }
#define SELECTOR(name, n)                                                                                              \
    { name, "int32", 32, IN_SELECTOR, 2, n }
#define QUAD(name, member)                                                                                             \
    { name, "int64", 64, IN_REGISTERS, 8, FIELD(member) }
#define ST(n)                                                                                                          \
    { "st" #n, "i387_ext", 80, IN_XSAVE, 10, 32 + 16 * n }
#define CONTROL(name, at, size)                                                                                        \
    { name, "int", 32, IN_XSAVE, size, at }
#define XMM(n)                                                                                                         \
    { "xmm" #n, "vec128", 128, IN_XSAVE, 16, 160 + 16 * n }
#define YMM(n)                                                                                                         \
    { "ymm" #n "h", "uint128", 128, IN_YMM_HIGH, 16, 576 + 16 * n }

/* The x87 and SSE fields are those of FXSAVE64 (SDM vol. 1, 10.5.1.1); the AVX component lies at 576. */
static const struct row rows[] = {
    GPR("rax", 0), GPR("rbx", 3), GPR("rcx", 1), GPR("rdx", 2), GPR("rsi", 6), GPR("rdi", 7), GPR("rbp", 5),
    GPR("rsp", 4), GPR("r8", 8), GPR("r9", 9), GPR("r10", 10), GPR("r11", 11), GPR("r12", 12), GPR("r13", 13),
    GPR("r14", 14), GPR("r15", 15),
    {"rip", "code_ptr", 64, IN_REGISTERS, 8, FIELD(rip)},
    {"eflags", "i386_eflags", 32, IN_REGISTERS, 4, FIELD(rflags)},
    SELECTOR("cs", TRAPEZE_CS), SELECTOR("ss", TRAPEZE_SS), SELECTOR("ds", TRAPEZE_DS), SELECTOR("es", TRAPEZE_ES),
    SELECTOR("fs", TRAPEZE_FS), SELECTOR("gs", TRAPEZE_GS),
    ST(0), ST(1), ST(2), ST(3), ST(4), ST(5), ST(6), ST(7),
    CONTROL("fctrl", 0, 2), CONTROL("fstat", 2, 2), {"ftag", "int", 32, IN_TAGS, 1, 4}, CONTROL("fiseg", 12, 2),
    CONTROL("fioff", 8, 4), CONTROL("foseg", 20, 2), CONTROL("fooff", 16, 4), CONTROL("fop", 6, 2),
    XMM(0), XMM(1), XMM(2), XMM(3), XMM(4), XMM(5), XMM(6), XMM(7), XMM(8), XMM(9), XMM(10), XMM(11), XMM(12),
    XMM(13), XMM(14), XMM(15),
    {"mxcsr", "i386_mxcsr", 32, IN_XSAVE, 4, 24},
    YMM(0), YMM(1), YMM(2), YMM(3), YMM(4), YMM(5), YMM(6), YMM(7), YMM(8), YMM(9), YMM(10), YMM(11), YMM(12),
    YMM(13), YMM(14), YMM(15),
    QUAD("fs_base", segment[TRAPEZE_FS].base), QUAD("gs_base", segment[TRAPEZE_GS].base),
    {"k_gs_base", "int64", 64, IN_KERNEL_GS, 8, 0},
    QUAD("cr0", cr0), QUAD("cr2", cr2), QUAD("cr3", cr3), QUAD("cr4", cr4), QUAD("cr8", cr8), QUAD("efer", efer),
    QUAD("xcr0", xcr0), QUAD("cs_base", segment[TRAPEZE_CS].base), QUAD("ss_base", segment[TRAPEZE_SS].base),
    QUAD("ds_base", segment[TRAPEZE_DS].base), QUAD("es_base", segment[TRAPEZE_ES].base),
    QUAD("gdt_base", gdtr.base), QUAD("idt_base", idtr.base), QUAD("dr6", dr[6]), QUAD("dr7", dr[7]),
};
enum { ROWS = sizeof(rows) / sizeof(rows[0]) };

/* The first register of each group. */
static const uint8_t group_starts[GROUPS + 1] = {0, 40, 57, 73, 75, ROWS};

static const char types[] =
    "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>"
    "<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
    "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/>"
    "<vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
    "<vector id=\"v4i32\" type=\"int32\" count=\"4\"/>"
    "<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
    "<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/><field name=\"v2_double\" type=\"v2d\"/>"
    "<field name=\"v16_int8\" type=\"v16i8\"/><field name=\"v8_int16\" type=\"v8i16\"/>"
    "<field name=\"v4_int32\" type=\"v4i32\"/><field name=\"v2_int64\" type=\"v2i64\"/>"
    "<field name=\"uint128\" type=\"uint128\"/></union>"
    "<flags id=\"i386_mxcsr\" size=\"4\"><field name=\"IE\" start=\"0\" end=\"0\"/>"
    "<field name=\"DE\" start=\"1\" end=\"1\"/><field name=\"ZE\" start=\"2\" end=\"2\"/>"
    "<field name=\"OE\" start=\"3\" end=\"3\"/><field name=\"UE\" start=\"4\" end=\"4\"/>"
    "<field name=\"PE\" start=\"5\" end=\"5\"/><field name=\"DAZ\" start=\"6\" end=\"6\"/>"
    "<field name=\"IM\" start=\"7\" end=\"7\"/><field name=\"DM\" start=\"8\" end=\"8\"/>"
    "<field name=\"ZM\" start=\"9\" end=\"9\"/><field name=\"OM\" start=\"10\" end=\"10\"/>"
    "<field name=\"UM\" start=\"11\" end=\"11\"/><field name=\"PM\" start=\"12\" end=\"12\"/>"
    "<field name=\"FZ\" start=\"15\" end=\"15\"/></flags>";
static const char flags_type[] =
    "<flags id=\"i386_eflags\" size=\"4\"><field name=\"CF\" start=\"0\" end=\"0\"/>"
    "<field name=\"\" start=\"1\" end=\"1\"/><field name=\"PF\" start=\"2\" end=\"2\"/>"
    "<field name=\"AF\" start=\"4\" end=\"4\"/><field name=\"ZF\" start=\"6\" end=\"6\"/>"
    "<field name=\"SF\" start=\"7\" end=\"7\"/><field name=\"TF\" start=\"8\" end=\"8\"/>"
    "<field name=\"IF\" start=\"9\" end=\"9\"/><field name=\"DF\" start=\"10\" end=\"10\"/>"
    "<field name=\"OF\" start=\"11\" end=\"11\"/><field name=\"NT\" start=\"14\" end=\"14\"/>"
    "<field name=\"RF\" start=\"16\" end=\"16\"/><field name=\"VM\" start=\"17\" end=\"17\"/>"
    "<field name=\"AC\" start=\"18\" end=\"18\"/><field name=\"VIF\" start=\"19\" end=\"19\"/>"
    "<field name=\"VIP\" start=\"20\" end=\"20\"/><field name=\"ID\" start=\"21\" end=\"21\"/></flags>";

unsigned gdb_register_count(void) {
    return ROWS;
}

unsigned gdb_register_size(unsigned number) {
    return number < ROWS ? rows[number].bits / 8u : 0;
}

/* ---- State ---- */

enum { MSR_KERNEL_GS_BASE = 0xc0000102, XSAVE_HEADER = 512, XSAVE_X87_SSE = 3, XSAVE_AVX = 4 };

void gdb_state_read(struct gdb_state *state, struct trapeze_vcpu *vcpu) {
    memset(state, 0, sizeof(*state));
    trapeze_vcpu_get_registers(vcpu, &state->registers);
    trapeze_vcpu_get_xsave(vcpu, state->xsave);
    trapeze_vcpu_get_msr(vcpu, MSR_KERNEL_GS_BASE, &state->kernel_gs_base);
}

bool gdb_state_write(const struct gdb_state *state, struct trapeze_vcpu *vcpu) {
    uint64_t kernel_gs_base = 0;
    trapeze_vcpu_get_msr(vcpu, MSR_KERNEL_GS_BASE, &kernel_gs_base);
    if (kernel_gs_base != state->kernel_gs_base &&
        !trapeze_vcpu_set_msr(vcpu, MSR_KERNEL_GS_BASE, state->kernel_gs_base))
        return false;
    return trapeze_vcpu_set_xsave(vcpu, state->xsave) == TRAPEZE_OK &&
           trapeze_vcpu_set_registers(vcpu, &state->registers) == TRAPEZE_OK;
}

static uint64_t *xsave_components(struct gdb_state *state) {
    return (uint64_t *)(void *)(state->xsave + XSAVE_HEADER);
}

static bool has_component(const struct gdb_state *state, uint64_t component) {
    return *(const uint64_t *)(const void *)(state->xsave + XSAVE_HEADER) & component;
}

/* ---- x87 tags ---- */

enum { TAG_VALID, TAG_ZERO, TAG_SPECIAL, TAG_EMPTY };

static unsigned tag_of(const uint8_t number[10]) {
    uint64_t significand;
    unsigned exponent = (number[8] | number[9] << 8) & 0x7fff;
    memcpy(&significand, number, sizeof(significand));
    if (exponent == 0 && significand == 0)
        return TAG_ZERO;
    return exponent != 0 && exponent != 0x7fff && significand >> 63 ? TAG_VALID : TAG_SPECIAL;
}

/* The abridged tags and the tag word go by physical register, the image's numbers by distance from the top. */
static uint16_t full_tags(const uint8_t *image) {
    unsigned top = image[3] >> 3 & 7, word = 0;
    for (unsigned physical = 0; physical < 8; physical++) {
        const uint8_t *number = image + 32 + 16 * ((physical - top) & 7);
        unsigned tag = image[4] >> physical & 1 ? tag_of(number) : TAG_EMPTY;
        word |= tag << 2 * physical;
    }
    return (uint16_t)word;
}

static uint8_t abridged_tags(unsigned word) {
    unsigned tags = 0;
    for (unsigned physical = 0; physical < 8; physical++)
        if ((word >> 2 * physical & 3) != TAG_EMPTY)
            tags |= 1u << physical;
    return (uint8_t)tags;
}

/* ---- One register ---- */

void gdb_register_get(const struct gdb_state *state, unsigned number, uint8_t bytes[GDB_REGISTER_SIZE_MAX]) {
    const struct row *row = &rows[number];
    uint16_t tags;
    memset(bytes, 0, GDB_REGISTER_SIZE_MAX);
    switch ((enum place)row->place) {
    case IN_REGISTERS:
        memcpy(bytes, (const char *)&state->registers + row->at, row->stored);
        break;
    case IN_SELECTOR:
        memcpy(bytes, &state->registers.segment[row->at].selector, row->stored);
        break;
    case IN_XSAVE:
        memcpy(bytes, state->xsave + row->at, row->stored);
        break;
    case IN_TAGS:
        tags = full_tags(state->xsave);
        memcpy(bytes, &tags, sizeof(tags));
        break;
    case IN_YMM_HIGH:
        if (has_component(state, XSAVE_AVX))
            memcpy(bytes, state->xsave + row->at, row->stored);
        break;
    case IN_KERNEL_GS:
        memcpy(bytes, &state->kernel_gs_base, row->stored);
        break;
    }
}

static bool set_selector(struct gdb_state *state, unsigned segment, uint16_t selector) {
    enum { CR0_PE = 1, RFLAGS_VM = 1 << 17 };
    struct trapeze_registers *registers = &state->registers;
    if (selector == registers->segment[segment].selector)
        return true;
    if ((registers->cr0 & CR0_PE) && !(registers->rflags & RFLAGS_VM))
        return false;
    registers->segment[segment].selector = selector;
    registers->segment[segment].base = (uint64_t)selector << 4;
    return true;
}

bool gdb_register_set(struct gdb_state *state, unsigned number, const uint8_t bytes[GDB_REGISTER_SIZE_MAX]) {
    const struct row *row = &rows[number];
    uint8_t current[GDB_REGISTER_SIZE_MAX];
    gdb_register_get(state, number, current);
    if (!memcmp(current, bytes, row->bits / 8))
        return true;
    switch ((enum place)row->place) {
    case IN_REGISTERS:
        memcpy((char *)&state->registers + row->at, bytes, row->stored);
        return true;
    case IN_SELECTOR:
        return set_selector(state, row->at, (uint16_t)(bytes[0] | bytes[1] << 8));
    case IN_TAGS:
        state->xsave[4] = abridged_tags(bytes[0] | (unsigned)bytes[1] << 8);
        break;
    case IN_YMM_HIGH:
        if (!has_component(state, XSAVE_AVX))
            memset(state->xsave + 576, 0, 256);
        *xsave_components(state) |= XSAVE_AVX;
        memcpy(state->xsave + row->at, bytes, row->stored);
        return true;
    case IN_XSAVE:
        memcpy(state->xsave + row->at, bytes, row->stored);
        break;
    case IN_KERNEL_GS:
        memcpy(&state->kernel_gs_base, bytes, row->stored);
        return true;
    }
    *xsave_components(state) |= XSAVE_X87_SSE;
    return true;
}

/* ---- Description ---- */

char *gdb_registers_describe(void) {
    char *text = NULL;
    size_t size;
    FILE *to = open_memstream(&text, &size);
    if (!to)
        return NULL;
    fprintf(to, "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target version=\"1.0\">"
                "<architecture>i386:x86-64</architecture>");
    for (unsigned group = 0; group < GROUPS; group++) {
        fprintf(to, "<feature name=\"%s\">%s", group_names[group],
                group == CORE  ? flags_type
                : group == SSE ? types
                               : "");
        for (unsigned i = group_starts[group]; i < group_starts[group + 1]; i++)
            fprintf(to, "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\" regnum=\"%u\"/>", rows[i].name, rows[i].bits,
                    rows[i].type, i);
        fprintf(to, "</feature>");
    }
    fprintf(to, "</target>");
    if (fclose(to) != 0) {
        free(text);
        return NULL;
    }
    return text;
}
