/* PUSHF, POPF, descriptor-table registers, MSRs, control registers. See sensitive.h. */
#include "sensitive/sensitive.h"

#ifdef __x86_64__
#define AX "%rax"
#define BX "%rbx"
#define CX "%rcx"
#define DX "%rdx"
#else
#define AX "%eax"
#define BX "%ebx"
#define CX "%ecx"
#define DX "%edx"
#endif

enum { PAT = 0x277, SYSENTER_CS = 0x174, IOPL = 3 << 12, SHOWN = ARITHMETIC | DF | IF | IOPL | NT | AC | ID };

struct state run_with(const char *name, const uint8_t *code, word ax, word cx, word dx, word vector) {
    struct state state;
    state_init(&state, code);
    state.flags = FIXED | CF | ZF;
    state.gpr[RAX] = ax;
    state.gpr[RCX] = cx;
    state.gpr[RDX] = dx;
    run(&state);
    check_quiet_detail("vector", name, state.vector, vector);
    return state;
}

/* ---- Flags ---- */

SNIPPET(s_flags, "", "push " AX "\n popf\n pushf\n pop " BX);
SNIPPET(s_popf_by_string, "cld", "push " AX "\n popf\n lodsb\n pushf\n pop " BX "\n cld");
SNIPPET(s_popf, "push " AX, "popf");
SNIPPET(s_popf_and_nop, "push " AX "\n popf", "nop");
SNIPPET(s_popf_and_ipi, "push " AX "\n popf", "movl $0x40050, (" CX ")\n 1: pause\n jmp 1b");
SNIPPET(s_pushf_16, "pushw %ax", "popfw\n pushfw\n popw %bx");

/* A pattern of the shown flags for each number. */
static word image_of(unsigned n) {
    static const word bits[] = {CF, PF, AF, ZF, SF, DF, OF, IF, 1 << 12, 1 << 13, NT, AC, ID};
    word image = 0;
    for (unsigned i = 0; i < sizeof bits / sizeof *bits; i++)
        image |= n >> i & 1 ? bits[i] : 0;
    return image;
}

static void flags_of_level_0(void) {
    for (unsigned n = 0; n < 8192; n += n < 256 ? 1 : 37) {
        word image = image_of(n);
        struct state s = run_with("popf, pushf", s_flags, image | VM, 0, 0, V_END);
        check_quiet("pushf shows what popf has loaded", s.gpr[RBX], image | FIXED);
        check_quiet("flags after popf, pushf, pop", s.flags & SHOWN, image);
        s = run_with("popfw, pushfw", s_pushf_16, image, 0, 0, V_END);
        check_quiet("pushfw shows what popfw has loaded", s.gpr[RBX] & 0xffff, (image & 0x7fff) | FIXED);
    }
    check_true("popf and pushf at CPL 0", true);
}

static void flags_of_level_3(void) {
    for (unsigned n = 0; n < 8192; n += 5) {
        struct state s;
        word image = image_of(n), kept = n & 1 ? IF : 0;
        state_init_user(&s, s_flags);
        s.flags = FIXED | kept;
        s.gpr[RAX] = image;
        run(&s);
        check_quiet("user code ends", s.vector, V_END);
        check_quiet("IF and IOPL are not for CPL 3", s.gpr[RBX], (image & ~(word)(IF | IOPL)) | kept | FIXED);
    }
    check_true("popf and pushf at CPL 3", true);
}

static void direction(void) {
    static uint8_t bytes[3] = {1, 2, 3};
    for (unsigned i = 0; i < 64; i++) {
        struct state s;
        state_init(&s, s_popf_by_string);
        s.gpr[RAX] = FIXED | (i & 1 ? DF : 0);
        s.gpr[RSI] = (word)&bytes[1];
        run(&s);
        check_quiet("popf sets the direction", s.gpr[RSI], (word)(i & 1 ? &bytes[0] : &bytes[2]));
        check_quiet("and pushf shows it", s.gpr[RBX] & DF, i & 1 ? DF : 0);
    }
}

static void interrupts(void) {
    struct state s = run_with("popf without IF", s_popf, FIXED, 0, 0, V_END);
    for (unsigned i = 0; i < 20; i++) {
        apic_ipi(0, 0x40000 | V_IPI);
        s = run_with("popf without IF", s_popf, FIXED, 0, 0, V_END);
        s = run_with("popf with IF", s_popf, FIXED | IF, 0, 0, V_IPI);
        check_quiet("a waiting interrupt comes right behind popf", s.ip, (word)s_popf_end);
        apic_eoi();
        s = run_with("popf, then an interrupt", s_popf_and_ipi, FIXED | IF, 0xfee00300, 0, V_IPI);
        check_quiet("and has IF set in its frame", s.flags & IF, IF);
        apic_eoi();
        s = run_with("trap flag", s_popf_and_nop, FIXED | TF, 0, 0, V_DB);
        check_quiet("single step begins behind the next instruction", s.ip, (word)s_popf_and_nop_end);
    }
    check_true("interrupts behind popf", true);
}

/* ---- GDTR and IDTR ---- */

SNIPPET(s_tables, "", "sgdt (" AX ")\n lgdt (" AX ")\n sgdt (" CX ")\n sidt (" DX ")\n lidt (" DX ")");
SNIPPET(s_sgdt, "", "sgdt (" AX ")");
SNIPPET(s_lgdt, "", "lgdt (" AX ")");

static void descriptor_tables(void) {
    enum { BYTES = 2 + sizeof(word) };
    static uint8_t two[3][32];
    uint8_t *page = lonely_page();
    for (unsigned i = 0; i < 50; i++) {
        memory_set(two, 0xa5, sizeof two);
        struct state s = run_with("tables", s_tables, (word)two[0], (word)two[1], (word)two[2], V_END);
        check_quiet("lgdt loads what sgdt has stored", (word)memory_compare(two[0], two[1], sizeof two[0]), 0);
        check_quiet("sgdt stores no more", two[0][BYTES], 0xa5);
        check_quiet("sidt stores no more", two[2][BYTES], 0xa5);
        check_quiet("flags stay", s.flags & ARITHMETIC, CF | ZF);
        s = run_with("sgdt over the end", s_sgdt, (word)page + 4096 - BYTES + 1 + i % (BYTES - 1), 0, 0, V_PF);
        check_quiet("the page behind", s.cr2, (word)page + 4096);
        s = run_with("sgdt to the end", s_sgdt, (word)page + 4096 - BYTES, 0, 0, V_END);
        check_quiet("at the end", (word)memory_compare(page + 4096 - BYTES, two[0], BYTES), 0);
        s = run_with("lgdt over the end", s_lgdt, (word)page + 4096 - BYTES + 1, 0, 0, V_PF);
    }
    check_true("descriptor-table registers", true);
}

/* ---- MSRs ---- */

SNIPPET(s_rdmsr, "", "rdmsr");
SNIPPET(s_rdmsr_constants, "", "mov $0x277, %ecx\n rdmsr\n mov %eax, %ebx\n mov $0x174, %ecx\n rdmsr");

static void model_specific(void) {
    uint64_t pat = rdmsr(PAT);
    for (unsigned i = 0; i < 200; i++) {
        wrmsr(SYSENTER_CS, i);
        struct state s = run_with("rdmsr", s_rdmsr, 7, i & 1 ? PAT : SYSENTER_CS, 7, V_END);
        check_quiet("low", s.gpr[RAX], i & 1 ? (uint32_t)pat : i);
        check_quiet("high", s.gpr[RDX], i & 1 ? (uint32_t)(pat >> 32) : 0);
        check_quiet("rdmsr leaves the flags", s.flags & ARITHMETIC, CF | ZF);
        s = run_with("rdmsr, index known", s_rdmsr_constants, 7, 7, 7, V_END);
        check_quiet("first", s.gpr[RBX], (uint32_t)pat);
        check_quiet("second", s.gpr[RAX], i);
        if (i % 10 == 0)
            run_with("rdmsr of none", s_rdmsr, 7, 0x12345678, 7, V_GP);
        struct state user;
        state_init_user(&user, s_rdmsr);
        user.gpr[RCX] = PAT;
        run(&user);
        check_quiet("rdmsr at CPL 3", user.vector, V_GP);
    }
    check_true("rdmsr", true);
}

/* ---- Control registers ---- */

SNIPPET(s_control, "", "mov %cr0, " AX "\n mov " AX ", %cr0\n mov " CX ", %cr2\n mov %cr2, " BX "\n mov %cr3, " DX);
SNIPPET(s_task_switched, "", "mov %cr0, " AX "\n or $8, %al\n mov " AX ", %cr0\n mov %cr0, " BX "\n"
                             "clts\n mov %cr0, " CX "\n clts\n fnop\n mov %cr0, " DX);
SNIPPET(s_fnop, "mov %cr0, " AX "\n or $8, %al\n mov " AX ", %cr0", "fnop");
SNIPPET(s_clts, "", "clts");

static void control(void) {
    for (unsigned i = 0; i < 50; i++) {
        word cr0 = read_cr0();
        struct state s = run_with("control registers", s_control, 0, 0x1234 + i, 0, V_END);
        check_quiet("CR0", s.gpr[RAX], cr0);
        check_quiet("CR2", s.gpr[RBX], 0x1234 + i);
        check_quiet("CR3", s.gpr[RDX], read_cr3());
        check_quiet("flags stay", s.flags & ARITHMETIC, CF | ZF);
        s = run_with("clts", s_task_switched, 0, 0, 0, V_END);
        check_quiet("TS is set", s.gpr[RBX] & 8, 8);
        check_quiet("TS is clear", s.gpr[RCX] & 8, 0);
        check_quiet("and stays so", s.gpr[RDX] & 8, 0);
        s = run_with("x87 with TS", s_fnop, 0, 0, 0, V_NM);
        check_quiet("at the instruction", s.ip, (word)s_fnop_at);
        run_with("clts", s_clts, 0, 0, 0, V_END);
        check_quiet("TS is clear again", read_cr0(), cr0);
        struct state user;
        state_init_user(&user, s_clts);
        run(&user);
        check_quiet("clts at CPL 3", user.vector, V_GP);
    }
    check_true("control registers", true);
}

/* CPUID's answers follow CR4.OSXSAVE. */
static void identification(void) {
    enum { XSAVE = 1 << 26, OSXSAVE = 1 << 27, CR4_OSXSAVE = 1 << 18 };
    if (!(cpuid(1, 0).c & XSAVE)) {
        skip("cpuid follows cr4", "no XSAVE");
        return;
    }
    for (unsigned i = 0; i < 10; i++) {
        write_cr4(read_cr4() ^ CR4_OSXSAVE);
        check_quiet("OSXSAVE", (cpuid(1, 0).c & OSXSAVE) != 0, (read_cr4() & CR4_OSXSAVE) != 0);
        for (unsigned leaf = 0; leaf < 40; leaf++) { /* more than are remembered */
            struct cpuid_regs once = cpuid(leaf & 3 ? 4 : leaf, leaf & 3), again = cpuid(leaf & 3 ? 4 : leaf, leaf & 3);
            check_quiet("the same again", (word)memory_compare(&once, &again, sizeof once), 0);
        }
        check_quiet("leaf 4 by its subleaf", cpuid(4, 0).a == cpuid(4, 1).a, cpuid(4, 0).a == 0);
    }
    check_true("cpuid follows cr4", true);
}

int main(void) {
    apic_enable();
    pic_init(0x30);
    pic_mask(0xffff);
    flags_of_level_0();
    flags_of_level_3();
    direction();
    interrupts();
    descriptor_tables();
    model_specific();
    control();
    identification();
    own_tests();
    return 0;
}
