/* See state_dump.h. */
#include "tools/state_dump.h"

#include "devices/pc.h"
#include "tools/disassembly.h"

typedef unsigned long long u64;

static void dump_general(FILE *to, const struct trapeze_registers *registers) {
    static const char *const names[16] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
                                          "R8 ", "R9 ", "R10", "R11", "R12", "R13", "R14", "R15"};
    static const unsigned char order[16] = {0, 3, 1, 2, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15};
    for (unsigned i = 0; i < 16; i++)
        fprintf(to, "%s=%016llx%c", names[order[i]], (u64)registers->gpr[order[i]], i % 4 == 3 ? '\n' : ' ');
}

static void dump_flags(FILE *to, const struct trapeze_registers *registers, const struct trapeze_events *events) {
    static const struct {
        unsigned bit;
        char letter;
    } flags[] = {{10, 'D'}, {11, 'O'}, {7, 'S'}, {6, 'Z'}, {4, 'A'}, {2, 'P'}, {0, 'C'}};
    char text[sizeof(flags) / sizeof(flags[0]) + 1] = {0};
    for (unsigned i = 0; i + 1 < sizeof(text); i++)
        text[i] = (registers->rflags >> flags[i].bit & 1) ? flags[i].letter : '-';
    fprintf(to, "RIP=%016llx RFL=%08llx [%s] CPL=%u II=%d HLT=%d\n", (u64)registers->rip, (u64)registers->rflags, text,
            registers->segment[TRAPEZE_SS].attributes >> 5 & 3, events->interrupt_shadow, events->halted);
}

static void dump_segment(FILE *to, const char *name, const struct trapeze_segment *segment) {
    fprintf(to, "%s=%04x %016llx %08x %05x\n", name, segment->selector, (u64)segment->base, segment->limit,
            segment->attributes);
}

static void dump_system(FILE *to, const struct trapeze_registers *registers) {
    static const char *const names[TRAPEZE_SEGMENTS] = {"ES ", "CS ", "SS ", "DS ", "FS ", "GS "};
    for (unsigned i = 0; i < TRAPEZE_SEGMENTS; i++)
        dump_segment(to, names[i], &registers->segment[i]);
    dump_segment(to, "LDT", &registers->ldtr);
    dump_segment(to, "TR ", &registers->tr);
    fprintf(to, "GDT=     %016llx %08x\n", (u64)registers->gdtr.base, registers->gdtr.limit);
    fprintf(to, "IDT=     %016llx %08x\n", (u64)registers->idtr.base, registers->idtr.limit);
    fprintf(to, "CR0=%08llx CR2=%016llx CR3=%016llx CR4=%08llx CR8=%llx\n", (u64)registers->cr0, (u64)registers->cr2,
            (u64)registers->cr3, (u64)registers->cr4, (u64)registers->cr8);
    fprintf(to, "DR0=%016llx DR1=%016llx DR2=%016llx DR3=%016llx\n", (u64)registers->dr[0], (u64)registers->dr[1],
            (u64)registers->dr[2], (u64)registers->dr[3]);
    fprintf(to, "DR6=%016llx DR7=%016llx EFER=%016llx XCR0=%llx\n", (u64)registers->dr[6], (u64)registers->dr[7],
            (u64)registers->efer, (u64)registers->xcr0);
}

/* Width of the code that CS holds. */
static unsigned code_width(const struct trapeze_registers *registers) {
    enum { CS_L = 1 << 13, CS_D = 1 << 14 };
    uint32_t attributes = registers->segment[TRAPEZE_CS].attributes;
    if ((registers->efer >> 10 & 1) && (attributes & CS_L))
        return 64;
    return attributes & CS_D ? 32 : 16;
}

static void dump_code(FILE *to, struct pc *pc, struct trapeze_vcpu *vcpu, const struct trapeze_registers *registers) {
    enum { SHOWN = 16, PAGE = 4096 };
    unsigned width = code_width(registers);
    uint64_t linear = registers->rip + (width == 64 ? 0 : registers->segment[TRAPEZE_CS].base);
    uint8_t code[SHOWN];
    char text[96];
    guest_physical physical;
    size_t count = PAGE - linear % PAGE < SHOWN ? PAGE - linear % PAGE : SHOWN;
    if (width != 64)
        linear &= 0xffffffff;
    if (!trapeze_vcpu_translate(vcpu, guest_linear_at(linear), &physical) ||
        !trapeze_memory_read(pc_machine(pc), physical, code, count)) {
        fprintf(to, "Code= not mapped\n");
        return;
    }
    disassembly_first(text, sizeof(text), linear, width, code, count);
    fprintf(to, "Code=");
    for (size_t i = 0; i < count; i++)
        fprintf(to, "%02x%c", code[i], i + 1 < count ? ' ' : '\n');
    fprintf(to, "     %s\n", text);
}

void state_dump(FILE *to, struct pc *pc) {
    for (unsigned i = 0; i < pc_vcpu_count(pc); i++) {
        struct trapeze_vcpu *vcpu = pc_vcpu(pc, i);
        struct trapeze_registers registers = {0};
        struct trapeze_events events = {0};
        trapeze_vcpu_get_registers(vcpu, &registers);
        trapeze_vcpu_get_events(vcpu, &events);
        fprintf(to, "CPU#%u%s\n", i, events.waiting_for_sipi ? " (waits for a start-up message)" : "");
        dump_general(to, &registers);
        dump_flags(to, &registers, &events);
        dump_system(to, &registers);
        dump_code(to, pc, vcpu, &registers);
    }
}
