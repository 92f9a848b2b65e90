/* What the host's limit on mappings leaves to windows: a processor's address spaces take from each other. */
#include "tests/unit/translator/guest_machine.h"

#include <string.h>

#include "cpu/views.h"
#include "cpu/window.h"
#include "translator/machine.h"

enum { TABLE = 0x13000, PD = 0x12000, PAGES = 100, FIRST = 0x100000, BUDGET = 140, SPACES = 2 };

/* RCX pages from RSI on, each counted up, summed up in RAX. */
PROGRAM(counts, 64, "2: incl (%rsi)\n add (%rsi), %eax\n add $0x1000, %rsi\n dec %rcx\n jnz 2b");

static struct guest guest;
static struct trapeze_registers start;

static struct machine_memory *memory(void) {
    return &guest.machine->memory;
}

/* Of the user code that ran in the address space, or NULL. */
static const struct view *view_of(uint16_t pcid) {
    const struct view_set *views = &guest.vcpu->cpu->views;
    for (unsigned i = 0; i < VIEW_SPACES; i++)
        if (views->space[i].in_use && views->space[i].pcid == pcid)
            return views->space[i].view[VIEW_USER];
    return NULL;
}

static void put(uint64_t at, uint64_t entry) {
    memcpy(guest.ram + at, &entry, sizeof entry);
}

/* User code in long mode with the guest's memory in 4 KiB pages. */
static void create(void) {
    const struct trapeze_config config = {.windows = TRAPEZE_WINDOWS_ALWAYS, .unclaimed_exits = true};
    guest_create(&guest, &config);
    ck_assert_int_eq(trapeze_memory_map(guest.machine, 0, guest_physical_at(0), guest.fd, 0, RAM_SIZE, 0), TRAPEZE_OK);
    memory()->windows.budget = BUDGET;
    start = guest_long_mode(&guest);
    put(PD, TABLE | 7);
    for (uint64_t i = 0; i < 512; i++)
        put(TABLE + 8 * i, i << 12 | 7);
    for (unsigned i = 0; i < TRAPEZE_SEGMENTS; i++)
        start.segment[i].attributes |= 0x60;
    start.rflags |= 0x3000; /* IOPL 3 */
    start.cr4 |= 1 << 17;   /* PCIDE */
    start.gpr[RSI] = FIRST;
}

static void count_up(uint16_t pcid, unsigned pages, uint32_t expected) {
    struct trapeze_registers registers = start;
    registers.cr3 |= pcid;
    registers.gpr[RCX] = pages;
    GUEST_START(&guest, counts, &registers);
    guest_expect_end(&guest);
    ck_assert_uint_eq((uint32_t)guest_register(&guest, RAX), expected);
}

static unsigned pieces_of(uint16_t pcid) {
    const struct view *view = view_of(pcid);
    ck_assert_ptr_nonnull(view);
    return view->window ? view->window->piece_count : 0;
}

START_TEST(larger_window_of_another_space_goes) {
    create();
    for (unsigned round = 0; round < 3; round++)
        for (uint16_t pcid = 1; pcid <= SPACES; pcid++) {
            count_up(pcid, PAGES, PAGES * (round * SPACES + pcid));
            ck_assert_uint_ge(pieces_of(pcid), PAGES);
            const struct view *other = view_of(SPACES + 1 - pcid);
            if (!other)
                continue;
            ck_assert_ptr_null(other->window);
            ck_assert(!other->window_is_stale && !other->window_must_move && !other->dropped_count);
            ck_assert_uint_eq(atomic_load(&memory()->windows.budget), BUDGET - pieces_of(pcid));
        }
    guest_destroy(&guest);
}
END_TEST

START_TEST(what_finds_no_mapping_goes_without) {
    create();
    for (unsigned round = 0; round < 3; round++) {
        count_up(1, 2 * PAGES, 2 * PAGES * (round + 1));
        ck_assert_uint_gt(pieces_of(1), 0);
        ck_assert_uint_le(pieces_of(1), BUDGET);
        ck_assert_uint_eq(atomic_load(&memory()->windows.budget), BUDGET - pieces_of(1));
    }
    guest_destroy(&guest);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("window budget");
    TCase *tests = tcase_create("window budget");
    tcase_add_test(tests, larger_window_of_another_space_goes);
    tcase_add_test(tests, what_finds_no_mapping_goes_without);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures != 0;
}
