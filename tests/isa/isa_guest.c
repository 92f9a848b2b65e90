/*
 * Runs a batch of instruction tests, handed over as the first multiboot module, at CPL 3 and compares every register,
 * defined flag, vector register and byte of data with what the host's processor made of them.
 */
#include "isa_case.h"
#include "lib/guest.h"

enum { PF_P = 1, XSAVE_LEGACY = 576 };
enum { CS16 = 0x3b, DS16 = 0x43, ES16 = 0x4b, SS16 = 0x53, KERNEL_STACK = ISA_ESP16 + 0xe000 };
enum { ACCESS_CODE = 0xfb, ACCESS_DATA = 0xf3 }; /* accessed, readable or writable, DPL 3, present */

static uint8_t *const data_page = (uint8_t *)(uintptr_t)ISA_DATA;
static uint8_t *const code_page = (uint8_t *)(uintptr_t)ISA_CODE_PAGE;
static _Alignas(64) uint8_t xsave_image[ISA_XSAVE_SIZE], xsave_clean[ISA_XSAVE_SIZE];
static uint64_t xcr0;
static unsigned failures, tests;

static void report(const struct isa_record *record, unsigned index, const char *what, unsigned number, uint64_t got,
                   uint64_t want) {
    if (failures++ >= 300)
        return;
    print("not ok ");
    print_hex(index);
    print(record->bits == 16 ? " [16] " : record->bits == 32 ? " [32] " : " [64] ");
    print(record->text);
    print(" <");
    for (unsigned i = 0; i < record->code_length; i++) {
        if (record->code[i] < 16)
            print("0");
        print_hex(record->code[i]);
    }
    print(">: ");
    print(what);
    print_hex(number);
    print(" got ");
    print_hex(got);
    print(" want ");
    print_hex(want);
    print("\n");
}

/* Nothing but the pages of the tests is there for CPL 3. */
static void map_pages(void) {
    *page_entry(read_cr3(), USER_ALIAS, 3) = 0;
    *page_entry(read_cr3(), ISA_CODE_PAGE, 2) = 0;
    *page_entry(read_cr3(), ISA_DATA, 2) = 0;
    page_map(ISA_CODE_PAGE, (uint64_t)page_alloc(), PAGE_P | PAGE_W | PAGE_U);
    for (unsigned at = 0; at < ISA_DATA_SIZE; at += 4096)
        page_map(ISA_DATA + at, (uint64_t)page_alloc(), PAGE_P | PAGE_W | PAGE_U | PAGE_NX);
    write_cr3(read_cr3());
}

extern uint64_t gdt[];

static void segment_set(unsigned selector, uint64_t base, uint64_t limit, uint64_t access) {
    gdt[selector / 8] = (limit & 0xffff) | (base & 0xffffff) << 16 | access << 40 | (limit >> 16 & 15) << 48 |
                        (base >> 24 & 0xff) << 56;
}

/* The segments of 16-bit code, and the stack that its entry leaves the upper half of ESP from. */
static void make_16_bit_segments(void) {
    segment_set(CS16, ISA_CS16_BASE, ISA_LIMIT16, ACCESS_CODE);
    segment_set(DS16, ISA_DS16_BASE, ISA_LIMIT16, ACCESS_DATA);
    segment_set(ES16, ISA_ES16_BASE, ISA_ES16_LIMIT, ACCESS_DATA);
    segment_set(SS16, ISA_SS16_BASE, ISA_LIMIT16, ACCESS_DATA);
    page_map(KERNEL_STACK, (uint64_t)page_alloc(), PAGE_P | PAGE_W | PAGE_NX);
}

static void data_segments_load(bool is_16bit) {
    unsigned ds = is_16bit ? DS16 : USER_DATA, es = is_16bit ? ES16 : USER_DATA;
    __asm__ volatile("mov %0, %%ds; mov %1, %%es" : : "r"(ds), "r"(es));
}

static void run_on(struct state *state, void *stack) {
    __asm__ volatile("mov %%rsp, %%rbx; mov %1, %%rsp; call run; mov %%rbx, %%rsp"
                     : "+D"(state) : "r"(stack)
                     : "rax", "rbx", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "memory", "cc");
}

/* Turns on what Linux turns on for programs. */
static bool enable_features(uint64_t host_xcr0) {
    write_cr4(read_cr4() | 1u << 18 | (cpuid(7, 0).b & 1 ? 1u << 16 : 0));
    uint64_t offered = cpuid(0xd, 0).a & ISA_XCR0;
    xcr0 = host_xcr0 & offered;
    __asm__ volatile("xsetbv" : : "c"(0), "a"((uint32_t)xcr0), "d"(0));
    wrmsr(0xc0000101, ISA_GS_BASE);
    return xcr0 == host_xcr0;
}

static void vectors_load(const struct isa_record *record) {
    struct isa_vectors vectors;
    isa_fill_vectors(record, &vectors);
    memory_set(xsave_image, 0, ISA_XSAVE_SIZE);
    isa_vectors_to_xsave(&vectors, xcr0, xsave_image);
    __asm__ volatile("xrstor64 (%0)" : : "r"(xsave_image), "a"((uint32_t)xcr0), "d"(0) : "memory");
}

static void vectors_store(struct isa_vectors *vectors) {
    memory_set(xsave_image, 0, XSAVE_LEGACY);
    __asm__ volatile("xsave64 (%0)" : : "r"(xsave_image), "a"((uint32_t)xcr0), "d"(0) : "memory");
    isa_vectors_from_xsave(vectors, xcr0, xsave_image);
    __asm__ volatile("xrstor64 (%0)" : : "r"(xsave_clean), "a"((uint32_t)xcr0), "d"(0) : "memory");
}

/* Zeroes what this processor has no component for. */
static void drop_missing(struct isa_vectors *vectors) {
    memory_set(xsave_image, 0, ISA_XSAVE_SIZE);
    isa_vectors_to_xsave(vectors, xcr0, xsave_image);
    isa_vectors_from_xsave(vectors, xcr0, xsave_image);
}

static void compare_vectors(const struct isa_record *record, unsigned index, const struct isa_vectors *got,
                            const struct isa_vectors *want) {
    bool skips_x87 = (record->flags & ISA_LOOSE_X87) && record->vector != V_BP;
    if (got->fcw != want->fcw)
        report(record, index, "fcw", 0, got->fcw, want->fcw);
    if (!skips_x87 && got->fsw != want->fsw)
        report(record, index, "fsw", 0, got->fsw, want->fsw);
    if (!skips_x87 && got->ftw != want->ftw)
        report(record, index, "ftw", 0, got->ftw, want->ftw);
    if (got->mxcsr != want->mxcsr)
        report(record, index, "mxcsr", 0, got->mxcsr, want->mxcsr);
    for (unsigned i = 0; i < 8 && !skips_x87; i++) {
        const uint64_t *g = (const uint64_t *)got->st[i], *w = (const uint64_t *)want->st[i];
        if (g[0] != w[0] || g[1] != w[1])
            report(record, index, g[1] != w[1] ? "st exponent " : "st", i, g[g[1] != w[1]], w[g[1] != w[1]]);
        if (got->k[i] != want->k[i])
            report(record, index, "k", i, got->k[i], want->k[i]);
    }
    for (unsigned i = 0; i < 32 * 8; i++) {
        uint64_t g = ((const uint64_t *)got->zmm)[i], w = ((const uint64_t *)want->zmm)[i];
        if (g != w)
            report(record, index, "zmm*8 ", i, g, w);
    }
}

static bool is_loose(const struct isa_record *record, uint64_t address) {
    uint64_t top = record->after.gpr[RSP];
    if (record->bits == 16)
        top = ISA_SS16_BASE + (top & 0xffff);
    return (record->flags & ISA_LOOSE_PUSH) && record->vector != V_BP && top - 1 - address < ISA_PUSH_ROOM;
}

static void compare_data(const struct isa_record *record, unsigned index, const uint8_t *runs) {
    static uint8_t want[ISA_DATA_SIZE];
    isa_fill_data(record, want);
    for (unsigned n = 0; n < record->runs; n++) {
        uint16_t head[2];
        memory_copy(head, runs, 4);
        memory_copy(want + head[0], runs + 4, head[1]);
        runs += 4 + head[1];
    }
    for (unsigned at = 0; at < ISA_DATA_SIZE; at++) {
        if (data_page[at] != want[at] && !is_loose(record, ISA_DATA + at)) {
            report(record, index, "data+", at, data_page[at], want[at]);
            return;
        }
    }
}

static bool is_operand_fault(uint64_t vector) {
    return vector == V_SS || vector == V_GP || vector == V_PF;
}

/* Across 4 GiB in a flat segment: it "may or may not cause the indicated exceptions" (SDM vol. 3A, 5.3). */
static bool may_pass_limit(const struct isa_record *record) {
    return record->bits == 32 && record->vector == V_PF && (uint32_t)record->cr2 >= 0xffffff00;
}

static void compare_state(const struct isa_record *record, unsigned index, const struct state *state) {
    static const char *const names[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                        "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    for (unsigned i = 0; i < (record->bits == 64 ? 16u : 8u); i++) {
        uint64_t mask = record->bits == 64 ? ~0ull : 0xffffffff;
        if ((state->gpr[i] ^ record->after.gpr[i]) & mask)
            report(record, index, names[i], 0, state->gpr[i], record->after.gpr[i]);
    }
    bool is_either = ((record->flags & ISA_LOOSE_ORDER) || may_pass_limit(record)) &&
                     is_operand_fault(state->vector) && is_operand_fault(record->vector);
    if (state->vector != record->vector && !is_either)
        report(record, index, "vector", 0, state->vector, record->vector);
    if (state->ip != record->after.ip)
        report(record, index, "ip", 0, state->ip, record->after.ip);
    if ((state->flags ^ record->after.flags) & record->flags_mask)
        report(record, index, "flags", 0, state->flags & record->flags_mask, record->after.flags & record->flags_mask);
    uint64_t ignored = record->flags & ISA_LOOSE_CR2 ? 0xfff : 0;
    if (state->vector == V_PF && record->vector == V_PF && (state->cr2 | ignored) != (record->cr2 | ignored))
        report(record, index, "cr2", 0, state->cr2, record->cr2);
    /* Whether a page that this code may not touch is present depends on whose page tables they are. */
    if (state->vector == record->vector && (state->error ^ record->error) & 
                                               (state->vector == V_PF ? ~(uint64_t)PF_P : ~0ull))
        report(record, index, "error", 0, state->error, record->error);
}

/* The code among int3. Stores to a page with translated code are slow, so only what differs is stored. */
static void write_code(const struct isa_record *record) {
    for (unsigned i = 0; i < 4096; i++) {
        unsigned at = i - (ISA_CODE - ISA_CODE_PAGE);
        uint8_t want = at < record->code_length ? record->code[at] : 0xcc;
        if (code_page[i] != want)
            code_page[i] = want;
    }
}

static void run_record(const struct isa_record *record, unsigned index) {
    struct state state;
    struct isa_vectors vectors, want;
    const uint8_t *tail = (const uint8_t *)(record + 1);
    unsigned before = failures;
    write_code(record);
    isa_fill_data(record, data_page);
    state_init(&state, NULL);
    memory_copy(state.gpr, record->before.gpr, sizeof state.gpr);
    state.ip = record->before.ip;
    state.sp = record->before.gpr[RSP];
    state.flags = record->before.flags;
    state.cs = record->bits == 16 ? CS16 : record->bits == 32 ? USER32_SELECTOR : USER_CODE;
    state.ss = record->bits == 16 ? SS16 : USER_DATA;
    data_segments_load(record->bits == 16);
    vectors_load(record);
    if (record->bits == 16)
        run_on(&state, (void *)(uintptr_t)(KERNEL_STACK + 4096));
    else
        run(&state);
    vectors_store(&vectors);
    compare_state(record, index, &state);
    isa_fill_vectors(record, &want);
    if (record->has_vectors) {
        memory_copy(&want, tail, sizeof want);
        tail += sizeof want;
    }
    drop_missing(&want);
    compare_vectors(record, index, &vectors, &want);
    compare_data(record, index, tail);
    tests++;
    check_quiet("failures", failures - before, 0);
}

static const struct isa_batch *find_batch(void) {
    const uint32_t *info = (const uint32_t *)(uintptr_t)multiboot_info;
    if (!(info[0] & 8) || !info[5])
        die("multiboot module with the batch");
    const struct isa_batch *batch = (const struct isa_batch *)(uintptr_t)((const uint32_t *)(uintptr_t)info[6])[0];
    if (batch->magic != ISA_MAGIC)
        die("batch has the magic number");
    return batch;
}

int main(void) {
    const struct isa_batch *batch = find_batch();
    const struct isa_record *record = (const struct isa_record *)(batch + 1);
    map_pages();
    make_16_bit_segments();
    check_true("processor_offers_the_vector_registers_of_the_host", enable_features(batch->xcr0));
    pic_init(0x30);
    memory_set(xsave_clean, 0, sizeof xsave_clean);
    xsave_clean[0] = 0x7f;
    xsave_clean[1] = 3;
    xsave_clean[24] = 0x80;
    xsave_clean[25] = 0x1f;
    for (unsigned i = 0; i < batch->count; i++) {
        run_record(record, i);
        record = (const struct isa_record *)((const uint8_t *)record + record->size);
    }
    print("tests: ");
    print_hex(tests);
    print("\n");
    return 0;
}
