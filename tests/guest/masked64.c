/*
 * Masked vector accesses: only the bytes of active elements are read, written and checked (SDM vol. 1, 15.6.4), but for
 * the instructions without fault suppression (exception classes E4NF). The window's pages: 0 writable, 1 missing,
 * 2 writable and full of code.
 */
#include "lib/guest.h"

enum { PAGE_RW, PAGE_MISSING, PAGE_CODE, PAGES, FILL = 0x41, ONES = 0xff };

static uint8_t *frames[PAGES];
static const uint64_t missing = WINDOW + PAGE_MISSING * 4096, noncanonical = 0x800000000000;
static _Alignas(64) uint8_t vector[64];

#define OPMASK "kmovq %rax, %k1"
#define EACH_LOAD(X)                                                                                                   \
    X(bytes, "vmovdqu8 (%rbx), %zmm1{%k1}")                                                                            \
    X(quadwords, "vmovdqu64 (%rbx), %zmm1{%k1}{z}")                                                                    \
    X(aligned, "vmovaps (%rbx), %xmm1{%k1}")                                                                           \
    X(scalar, "vaddss (%rbx), %xmm1, %xmm1{%k1}")                                                                      \
    X(broadcast, "vaddps (%rbx){1to16}, %zmm1, %zmm1{%k1}")                                                            \
    X(broadcast_pair, "vbroadcasti32x2 (%rbx), %zmm1{%k1}")                                                            \
    X(broadcast_four, "vbroadcasti32x4 (%rbx), %zmm1{%k1}")                                                            \
    X(narrowing, "vcvtqq2ps (%rbx), %ymm1{%k1}")                                                                       \
    X(narrowing_xmm, "vcvttpd2dqx (%rbx), %xmm1{%k1}")                                                                 \
    X(widening, "vpmovzxbw (%rbx), %zmm1{%k1}")                                                                        \
    X(to_opmask, "vpcmpeqd (%rbx), %zmm1, %k2{%k1}")                                                                   \
    X(expand, "vexpandps (%rbx), %zmm1{%k1}")                                                                          \
    X(sad, "vdbpsadbw $0, (%rbx), %zmm1, %zmm1{%k1}")                                                                  \
    X(pack, "vpackssdw (%rbx), %zmm1, %zmm1{%k1}")
#define EACH_STORE(X)                                                                                                  \
    X(store_bytes, "vmovdqu8 %zmm1, (%rbx){%k1}")                                                                      \
    X(store_words, "vmovdqu16 %xmm1, (%rbx){%k1}")                                                                     \
    X(store_aligned, "vmovapd %zmm1, (%rbx){%k1}")                                                                     \
    X(store_scalar, "vmovss %xmm1, (%rbx){%k1}")                                                                       \
    X(store_narrow, "vpmovqb %zmm1, (%rbx){%k1}")                                                                      \
    X(compress, "vcompresspd %zmm1, (%rbx){%k1}")
#define DECLARE(name, code) SNIPPET(m_##name, OPMASK, code);
EACH_LOAD(DECLARE)
EACH_STORE(DECLARE)
SNIPPET(m_gather, OPMASK, "vpgatherdq (%rbx, %xmm2), %xmm1{%k1}");

struct row {
    const char *name;
    const uint8_t *code, *at;
    uint64_t address, mask;
    unsigned vector;
    uint64_t cr2;
};
#define ROW(snippet, address, mask, vector, cr2) {#snippet, m_##snippet, m_##snippet##_at, address, mask, vector, cr2}
#define GOOD(snippet, address, mask) ROW(snippet, address, mask, V_END, 0)
#define FAULT(snippet, address, mask, cr2) ROW(snippet, address, mask, V_PF, cr2)

static const struct row reaches[] = {
    /* nothing active */
    GOOD(bytes, missing + 3, 0), GOOD(scalar, missing, 2), GOOD(broadcast, missing, 0xffff0000),
    GOOD(narrowing_xmm, missing, 0xfc), GOOD(widening, missing, 0), GOOD(to_opmask, missing, ~0xffffull),
    GOOD(expand, missing, 0), GOOD(store_bytes, missing, 0), GOOD(store_scalar, missing, 0xe), GOOD(compress, missing, 0),
    GOOD(store_narrow, missing, 0xff00), GOOD(broadcast_pair, missing, ~0xffffull), GOOD(quadwords, noncanonical, 0),
    GOOD(store_bytes, noncanonical + 5, 0), GOOD(broadcast, noncanonical, 0),
    /* some active, all of them in the first page */
    GOOD(bytes, missing - 8, 0xff), GOOD(bytes, missing - 1, 1), GOOD(quadwords, missing - 24, 7),
    GOOD(scalar, missing - 4, 1), GOOD(broadcast_four, missing - 8, 0x3133), GOOD(narrowing, missing - 40, 0x1f),
    GOOD(narrowing_xmm, missing - 8, 0xfd), GOOD(widening, missing - 3, 7), GOOD(to_opmask, missing - 12, 5),
    GOOD(expand, missing - 12, 0x8410), GOOD(broadcast_pair, missing - 4, 0x5555),
    GOOD(store_bytes, missing - 5, 0x1f), GOOD(store_words, missing - 6, 0xff06), GOOD(store_narrow, missing - 3, 5),
    GOOD(compress, missing - 16, 0x81), GOOD(store_scalar, missing - 4, 1),
    /* the first page's part is masked off */
    GOOD(bytes, missing + 4096 - 8, ~0xffull), GOOD(store_bytes, missing + 4096 - 8, 0xff00),
    GOOD(quadwords, missing + 4096 - 12, 4), GOOD(broadcast_four, missing + 4096 - 8, 0xccc8),
    /* one too many */
    FAULT(bytes, missing - 8, 0x1ff, missing), FAULT(quadwords, missing - 24, 8, missing),
    FAULT(scalar, missing, 1, missing), FAULT(narrowing_xmm, missing - 8, 2, missing),
    FAULT(widening, missing - 3, 0x18, missing), FAULT(expand, missing - 12, 0x8411, missing),
    FAULT(broadcast_four, missing - 8, 0x4000, missing), FAULT(store_bytes, missing - 5, 0x21, missing),
    FAULT(store_words, missing - 6, 8, missing), FAULT(compress, missing - 16, 7, missing),
    FAULT(to_opmask, missing - 12, 8, missing), FAULT(store_narrow, missing - 3, 9, missing),
    /* without fault suppression */
    FAULT(sad, missing, 0, missing), FAULT(sad, missing - 8, 1, missing), FAULT(pack, missing - 8, 1, missing),
    ROW(quadwords, noncanonical, 1, V_GP, 0), ROW(store_bytes, noncanonical - 8, 1 << 8, V_GP, 0),
    /* alignment counts the whole operand */
    ROW(aligned, WINDOW + 8, 1, V_GP, 0), ROW(aligned, missing - 8, 1, V_GP, 0), ROW(store_aligned, missing - 8, 1, V_GP, 0),
    FAULT(store_aligned, missing, 8, missing + 24),
};

static void set_up(void) {
    for (unsigned i = 0; i < PAGES; i++) {
        frames[i] = page_alloc();
        memory_set(frames[i], FILL, 4096);
        if (i != PAGE_MISSING)
            page_map(WINDOW + i * 4096, (uint64_t)frames[i], PAGE_P | PAGE_W);
    }
}

/* Runs code with zmm1 all ones; what it is then goes to `vector`. */
static void run_at(struct state *state, const uint8_t *code, uint64_t address, uint64_t mask) {
    state_init(state, code);
    state->gpr[RBX] = address;
    state->gpr[RAX] = mask;
    memory_set(vector, ONES, sizeof vector);
    __asm__ volatile("vmovdqu64 %0, %%zmm1\n vpxor %%xmm2, %%xmm2, %%xmm2" : : "m"(vector));
    run(state);
    __asm__ volatile("vmovdqu64 %%zmm1, %0" : "=m"(vector));
}

static void only_active_bytes_are_checked(void) {
    for (size_t i = 0; i < sizeof reaches / sizeof *reaches; i++) {
        const struct row *row = &reaches[i];
        struct state state;
        run_at(&state, row->code, row->address, row->mask);
        memory_set(frames[PAGE_RW], FILL, 4096);
        memory_set(frames[PAGE_CODE], FILL, 4096);
        check(row->name, state.vector, row->vector);
        if (row->vector != V_END)
            check_quiet_detail("ip", row->name, state.ip, (word)row->at);
        if (row->vector == V_PF)
            check_quiet_detail("cr2", row->name, state.cr2, row->cr2);
    }
}

static bool holds(const uint8_t *bytes, uint64_t mask, unsigned active, unsigned other) {
    for (unsigned i = 0; i < 64; i++)
        if (bytes[i] != (mask >> i & 1 ? active : other))
            return false;
    return true;
}

static void active_bytes_move(void) {
    static const uint64_t masks[] = {0, 1, 0xff, 0x8000000000000001, 0x5a5a00ff12345678, ~0ull};
    uint8_t *places[] = {(uint8_t *)WINDOW + 0x123, (uint8_t *)WINDOW + PAGE_CODE * 4096 + 0x345};
    struct state state;
    memory_set(frames[PAGE_CODE] + 0x800, 0xcc, 1);
    state_init(&state, (void *)(WINDOW + PAGE_CODE * 4096 + 0x800));
    run(&state);
    check("code_runs_in_the_page", state.vector, V_BP);
    for (unsigned p = 0; p < sizeof places / sizeof *places; p++) {
        for (unsigned i = 0; i < sizeof masks / sizeof *masks; i++) {
            run_at(&state, m_store_bytes, (word)places[p], masks[i]);
            check_quiet("store_ends", state.vector, V_END);
            check(p ? "store_into_page_with_code" : "store", holds(places[p], masks[i], ONES, FILL), true);
            check_quiet("bytes_around", places[p][-1] == FILL && places[p][64] == FILL, true);
            memory_set(places[p], FILL, 64);
            run_at(&state, m_bytes, (word)places[p], masks[i]);
            check_quiet("load", holds(vector, masks[i], FILL, ONES), true);
        }
    }
    run_at(&state, m_bytes, missing - 8, 0xf7);
    check("load_up_to_the_end", holds(vector, 0xf7, FILL, ONES), true);
    run_at(&state, m_store_bytes, missing + 4096 - 8, 0x1f00);
    check("store_from_the_beginning", holds(frames[PAGE_CODE], 0x1f, ONES, FILL), true);
}

/* The instruction lies on two pages, which is no reason to forget its mask. */
static void instructions_on_two_pages_have_their_mask(void) {
    uint8_t *code = (uint8_t *)WINDOW + (1 << 20);
    struct state state;
    for (unsigned i = 0; i < 2; i++)
        page_map((word)code + i * 4096, (uint64_t)page_alloc(), PAGE_P | PAGE_W);
    for (unsigned before = 1; before < (unsigned)(m_bytes_end - m_bytes_at); before++) {
        uint8_t *to = code + 4096 - (m_bytes_at - m_bytes) - before;
        memory_copy(to, m_bytes, (size_t)(m_bytes_end - m_bytes) + 2);
        run_at(&state, to, missing - 8, 0x0f);
        check("instruction_on_two_pages", state.vector, V_END);
        check("instruction_on_two_pages_loads", holds(vector, 0x0f, FILL, ONES), true);
    }
}

/* What lies behind the elements is zeroed at the end of a gather, which a fault is not. */
static void gathers_that_fault_keep_the_rest(void) {
    struct state state;
    run_at(&state, m_gather, missing, 1);
    check("gather_faults", state.vector, V_PF);
    check("gather_that_faults_changes_nothing", holds(vector, 0, 0, ONES), true);
    run_at(&state, m_gather, WINDOW, 1);
    check("gather_loads", vector[0], FILL);
    check("gather_keeps_what_is_masked_off", vector[8], ONES);
    memory_set(vector, 0, 16);
    check("gather_zeroes_the_rest", holds(vector, 0, 0, 0), true);
}

static bool enable(void) {
    enum { AVX512F = 1 << 16, AVX512DQ = 1 << 17, AVX512BW = 1 << 30 };
    struct cpuid_regs features = cpuid(7, 0);
    uint32_t wanted = AVX512F | AVX512DQ | AVX512BW | 1u << 31 /* VL */;
    if (!(cpuid(1, 0).c & 1 << 26) || (features.b & wanted) != wanted)
        return false;
    write_cr4(read_cr4() | 1 << 18);
    __asm__ volatile("xsetbv" : : "a"(0xe7), "d"(0), "c"(0));
    return true;
}

int main(void) {
    if (!enable()) {
        skip("masked accesses", "AVX-512 not offered");
        return 0;
    }
    set_up();
    only_active_bytes_are_checked();
    active_bytes_move();
    instructions_on_two_pages_have_their_mask();
    gathers_that_fault_keep_the_rest();
    return 0;
}
