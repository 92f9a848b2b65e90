/*
 * The monitor's memory stays unread and unwritten: hostile guest code, with every host instruction that comes of it
 * stepped and its accesses looked at. All of the guest's addresses are mapped to one MiB, so that wild pointers do not
 * end in page faults but get as far as translated code lets them.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "tests/containment/hostile_code.h"
#include "tests/containment/stepper.h"
#include "tests/unit/translator/guest_machine.h"

enum {
    TABLES = 0x10000,
    DATA_TABLE = TABLES + 0x4000,
    CODE_TABLE = TABLES + 0x5000,
    DATA_PAGES = 0x100000,
    EXITS = 6,
    SEQUENCE = 8,
    SEQUENCES = 1500,
};

static const uint64_t edges[] = {
    0,
    0x1000,
    0x7fffffff,
    0x80000000,
    0xffffffff,
    0x100000000,
    0x4000000000,
    0x8000000000,
    0xffffffffff,
    0x10000000000,
    0x555555554000,
    0x7f0000000000,
    0x7ffdfffff000,
    0x7fffffffffff,
    0x800000000000,
    0xffff7fffffffffff,
    0xffff800000000000,
    0xffffffffff600000,
    0xffffffffffffd800,
    0xffffffffffffffff,
    0x80000000000000,
    0x40000000000000,
    0x8000000000000000,
    0x7fffffffffffffff,
    0x18000000000000,
    0xff80555555554000,
};
enum { EDGES = sizeof edges / sizeof *edges };
static const int64_t around[] = {-0x100001, -9, -1, 0, 5, 0x7fff8};
enum { AROUND = sizeof around / sizeof *around };

static struct guest guest;
static struct stepper stepper;
static uint64_t seed;

static uint64_t draw(uint64_t below) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (seed >> 8) % below;
}

static uint64_t wild(void) {
    uint64_t at = edges[draw(EDGES)] + (uint64_t)around[draw(AROUND)];
    return draw(4) ? at : at + (draw(1 << 22) - (1 << 21));
}

/* ---- The guest ---- */

static void put(uint64_t at, uint64_t value, unsigned size) {
    memcpy(guest.ram + at, &value, size);
}

/* Every address leads to the data pages, over and over, but for the code's page. */
static void fill_tables(bool is_64) {
    memset(guest.ram + DATA_PAGES, 0xcc, RAM_SIZE - DATA_PAGES); /* INT3 where a jump may lead */
    const uint64_t rights = 7;                                   /* present, writable, user */
    const unsigned size = is_64 ? 8 : 4, entries = 4096 / size;
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t page = (DATA_PAGES + (i % 256) * 4096) | rights;
        put(DATA_TABLE + size * i, page, size);
        put(CODE_TABLE + size * i, i == CODE / 4096 ? CODE | 5 : page, size);
        for (uint64_t level = 0; level < 3; level++)
            put(TABLES + level * 0x1000 + size * i, (level == 2 ? DATA_TABLE : TABLES + (level + 1) * 0x1000) | rights,
                size);
    }
    if (is_64) { /* the code's way down has tables of its own */
        memcpy(guest.ram + TABLES + 0x6000, guest.ram + TABLES + 0x1000, 0x1000);
        memcpy(guest.ram + TABLES + 0x7000, guest.ram + TABLES + 0x2000, 0x1000);
        put(TABLES, (TABLES + 0x6000) | rights, 8);
        put(TABLES + 0x6000, (TABLES + 0x7000) | rights, 8);
        put(TABLES + 0x7000, CODE_TABLE | rights, 8);
    } else {
        put(TABLES + 0x2000, CODE_TABLE | rights, 4);
    }
}

static struct trapeze_registers registers_of(bool is_64, bool is_user) {
    struct trapeze_registers registers = is_64 ? guest_long_mode(&guest) : guest_protected_mode();
    registers.cr0 |= 0x80000000;
    registers.cr3 = is_64 ? TABLES : TABLES + 0x2000;
    registers.xcr0 = 7;
    registers.cr4 |= 1 << 18 | (is_64 ? 1 << 16 : 0); /* OSXSAVE, FSGSBASE */
    for (unsigned i = 0; is_user && i < TRAPEZE_SEGMENTS; i++)
        registers.segment[i].attributes |= 0x60;
    registers.gpr[RSP] = 0x20000;
    return registers;
}

/* Ends what loops; now and then something else, too. */
static void kick(int number) {
    (void)number;
    trapeze_vcpu_kick(guest.vcpu);
}

static void start_timer(void) {
    const struct sigaction action = {.sa_handler = kick, .sa_flags = SA_ONSTACK | SA_RESTART};
    const struct itimerval often = {{0, 30000}, {0, 30000}};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
}

static void stop_timer(void) {
    setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
}

/* What sites begin with: the fast form, or that of addresses which may be in any region. */
static enum site_form first_form;

static void create(bool is_64, enum trapeze_windows windows) {
    const struct trapeze_config config = {.unclaimed_exits = true, .windows = windows};
    guest_create(&guest, &config);
    /* Windows do without memory whose changes are logged. */
    ck_assert_int_eq(trapeze_memory_map(guest.machine, 0, guest_physical_at(0), guest.fd, 0, RAM_SIZE, 0), TRAPEZE_OK);
    stepper = (struct stepper){0};
    first_form = FORM_UNKNOWN;
    seed = 0x1234567;
    fill_tables(is_64);
    ck_assert(stepper_watch(guest.machine, &stepper));
    start_timer();
}

static void destroy(void) {
    stop_timer();
    printf("%llu steps: %llu accesses to memory, %llu windows, %llu state, %llu bounced, %llu stack, %llu refused\n",
           (unsigned long long)stepper.steps, (unsigned long long)stepper.in_memory,
           (unsigned long long)stepper.in_windows, (unsigned long long)stepper.in_state,
           (unsigned long long)stepper.in_bounce, (unsigned long long)stepper.on_stack,
           (unsigned long long)stepper.refused);
    guest_destroy(&guest);
    ck_assert_msg(stepper.violations == 0, "%llu violations, the first: %s", (unsigned long long)stepper.violations,
                  stepper.first);
}

/* Runs what is at CODE until it faults (which ends a machine without handlers), or has been outside a few times. */
static void run(struct trapeze_registers *registers, uint64_t rbx, uint64_t rcx) {
    registers->gpr[RBX] = rbx;
    registers->gpr[RCX] = rcx;
    registers->gpr[RSI] = rcx ^ 0x1000;
    registers->segment[TRAPEZE_FS].base = edges[draw(EDGES)] & 0xffffffff;
    ck_assert_int_eq(trapeze_vcpu_set_registers(guest.vcpu, registers), TRAPEZE_OK);
    trapeze_vcpu_set_events(guest.vcpu, &(struct trapeze_events){0}); /* the last one may have halted */
    for (unsigned i = 0; i < EXITS; i++) {
        ck_assert_int_eq(trapeze_vcpu_run(guest.vcpu, &guest.exit), TRAPEZE_OK);
        if (guest.exit.reason != TRAPEZE_EXIT_IO || guest.exit.io.space == TRAPEZE_PORT)
            break;
    }
    ck_assert_int_ne(guest.exit.reason, TRAPEZE_EXIT_ERROR);
}

/* ---- Programs ---- */

static uint8_t program[512];
static size_t program_size;

static void append(const struct snippet *snippet) {
    size_t size = (size_t)(snippet->to - snippet->from);
    memcpy(program + program_size, snippet->from, size);
    program_size += size;
}

/* Anew, and without what the translator has learned of its sites. */
static void load_program(void) {
    struct engine *engine = &guest.machine->engine;
    static const uint8_t out[] = {0xe6, END_PORT, 0xeb, 0xfe};
    memcpy(program + program_size, out, sizeof out);
    guest_load(&guest, program, program + program_size + sizeof out);
    memset(engine->site_form, first_form, sizeof engine->site_form);
}

/* Bases anywhere, and limits of all kinds. */
static void move_segments(struct trapeze_registers *registers) {
    static const uint32_t limits[] = {0, 7, 0xfff, 0xffff, 0xfffff, 0x7fffffff, 0xfffffffe, 0xffffffff};
    static const unsigned data[] = {TRAPEZE_ES, TRAPEZE_SS, TRAPEZE_DS, TRAPEZE_GS};
    for (unsigned i = 0; i < sizeof data / sizeof *data; i++) {
        struct trapeze_segment *segment = &registers->segment[data[i]];
        segment->base = (uint32_t)wild();
        segment->limit = limits[draw(sizeof limits / sizeof *limits)];
        segment->attributes = (segment->attributes & ~0xfu) | (draw(4) ? 3 : 7); /* some expand down */
    }
}

/* A stride above 1 leaves out pointers, and moves segments instead. */
static void every_access_from(struct trapeze_registers *registers, const struct snippet *accesses, unsigned count,
                              bool is_64, unsigned stride) {
    for (unsigned k = 0; k < count; k++) {
        fill_tables(is_64);
        program_size = 0;
        append(&accesses[k]);
        for (unsigned i = 0; i < EDGES * AROUND; i += stride) {
            load_program();
            if (stride > 1)
                move_segments(registers);
            run(registers, edges[i / AROUND] + (uint64_t)around[i % AROUND], wild());
        }
    }
}

static void every_access(const struct snippet *accesses, unsigned count, bool is_64, bool is_user) {
    struct trapeze_registers registers = registers_of(is_64, is_user);
    every_access_from(&registers, accesses, count, is_64, 1);
}

/* Several accesses through the same registers, which move in between. */
static void sequences(bool is_user) {
    struct trapeze_registers registers = registers_of(true, is_user);
    fill_tables(true);
    for (unsigned i = 0; i < SEQUENCES; i++) {
        program_size = 0;
        for (unsigned k = 0; k < SEQUENCE; k++) {
            append(&accesses64[draw(ACCESSES64 - ENDING)]);
            append(&steps64[draw(STEPS64)]);
        }
        load_program();
        for (unsigned k = 0; k < 3; k++)
            run(&registers, wild(), wild());
    }
}

/* The body, again and again until r8d is 0. */
static void append_loop(const struct snippet *first, const struct snippet *second) {
    const struct snippet head = LISTED(loop_head);
    static const uint8_t count[] = {0x41, 0xff, 0xc8, 0x0f, 0x85}; /* dec r8d; jnz */
    append(&head);
    size_t start = program_size;
    append(first);
    if (second)
        append(second);
    append(&(struct snippet){count, count + sizeof count});
    int32_t distance = (int32_t)start - (int32_t)(program_size + 4);
    append(&(struct snippet){(const uint8_t *)&distance, (const uint8_t *)(&distance + 1)});
}

static void loops(bool is_user) {
    struct trapeze_registers registers = registers_of(true, is_user);
    fill_tables(true);
    for (unsigned i = 0; i < ROUNDS * ROUNDS; i++) {
        program_size = 0;
        append_loop(&rounds[i / ROUNDS], i % ROUNDS ? &rounds[i % ROUNDS] : NULL);
        for (unsigned k = 0; k < 6; k++) {
            load_program();
            run(&registers, edges[draw(EDGES)] + (draw(1 << 22) - (1 << 21)), draw(2) ? 0 : wild());
        }
    }
}

/* From a stack in the middle of a region, or near the end of one. */
static void stray(void) {
    static const uint64_t tops[] = {0x20000, 0x7fff00001000, 0xfffffff000, 0x7f0000000010};
    struct trapeze_registers registers = registers_of(true, true);
    fill_tables(true);
    for (unsigned i = 0; i < 600; i++) {
        program_size = 0;
        for (unsigned k = 0; k < 5; k++) {
            append(&stacks[draw(STACKS)]);
            append(&stacks[STACKS - 1 - draw(STACK_USES)]);
        }
        load_program();
        registers.gpr[RSP] = tops[draw(4)];
        const uint64_t rbx = wild();
        for (unsigned k = 0; k < 3; k++) {
            guest.machine->vcpu[0]->cpu->hot.view->has_wild_stack = false;
            run(&registers, rbx, wild());
        }
    }
}

START_TEST(indices_that_were_small_stay_in_windows) {
    create(true, TRAPEZE_WINDOWS_ALWAYS);
    struct trapeze_registers registers = registers_of(true, _i);
    fill_tables(true);
    for (unsigned i = 0; i < 40 * SMALLS; i++) {
        program_size = 0;
        append(&smalls[i % SMALLS]);
        append(&smalls[draw(SMALLS)]);
        load_program();
        for (unsigned k = 0; k < 2; k++)
            run(&registers, wild(), wild() ^ 0x1000);
    }
    ck_assert_uint_gt(stepper.in_windows, 1000);
    destroy();
}
END_TEST

START_TEST(stacks_that_stray_stay_in_windows) {
    create(true, TRAPEZE_WINDOWS_ALWAYS);
    stray();
    ck_assert_uint_gt(stepper.in_windows, 10000);
    destroy();
}
END_TEST

START_TEST(loops_whose_checks_come_first_stay_in_windows) {
    create(true, TRAPEZE_WINDOWS_ALWAYS);
    loops(_i);
    ck_assert_uint_gt(stepper.in_windows, 10000);
    destroy();
}
END_TEST

/* Of supervisor and of user code: the one's windows have regions of both halves. */
START_TEST(wild_pointers_stay_in_windows) {
    create(true, TRAPEZE_WINDOWS_ALWAYS);
    every_access(accesses64, ACCESSES64, true, _i);
    ck_assert_uint_gt(stepper.in_windows, 10000);
    ck_assert_uint_gt(stepper.refused, 1000);
    destroy();
}
END_TEST

START_TEST(registers_that_move_after_a_look_up_stay_in_windows) {
    create(true, TRAPEZE_WINDOWS_ALWAYS);
    first_form = FORM_TABLE;
    sequences(_i);
    ck_assert_uint_gt(stepper.in_windows, 10000);
    destroy();
}
END_TEST

START_TEST(registers_that_move_after_a_check_stay_in_windows) {
    create(true, TRAPEZE_WINDOWS_ALWAYS);
    sequences(_i);
    ck_assert_uint_gt(stepper.in_windows, 10000);
    destroy();
}
END_TEST

START_TEST(wild_pointers_stay_in_memory_without_windows) {
    create(true, TRAPEZE_WINDOWS_OFF);
    every_access(accesses64, ACCESSES64, true, false);
    sequences(false);
    ck_assert_uint_gt(stepper.in_memory, 10000);
    ck_assert_uint_gt(stepper.in_bounce, 100);
    ck_assert_uint_eq(stepper.in_windows, 0);
    destroy();
}
END_TEST

START_TEST(wild_pointers_of_32_bit_code_stay_inside) {
    create(false, _i ? TRAPEZE_WINDOWS_ALWAYS : TRAPEZE_WINDOWS_OFF);
    every_access(accesses32, ACCESSES32, false, true);
    ck_assert_uint_gt(_i ? stepper.in_windows : stepper.in_memory, 1000);
    destroy();
}
END_TEST

START_TEST(segments_with_bases_and_limits_stay_inside) {
    create(false, TRAPEZE_WINDOWS_ALWAYS);
    struct trapeze_registers registers = registers_of(false, _i);
    every_access_from(&registers, accesses32, ACCESSES32, false, 2);
    ck_assert_uint_gt(stepper.in_memory, 300);
    destroy();
}
END_TEST

START_TEST(segments_of_16_bit_code_stay_inside) {
    create(false, TRAPEZE_WINDOWS_OFF);
    struct trapeze_registers registers = guest_real_mode();
    registers.xcr0 = 7;
    every_access_from(&registers, accesses32, ACCESSES32, false, 5); /* as 16-bit code they mean something else */
    ck_assert_uint_gt(stepper.in_memory, 300);
    destroy();
}
END_TEST

/* The stepper itself: an access that goes astray is seen. An entry of the software tables leads into this program. */
START_TEST(access_outside_is_seen) {
    static uint64_t secret[1024] __attribute__((aligned(4096))) = {0x5ec4e7};
    const uint64_t linear = 0x20000;
    create(true, TRAPEZE_WINDOWS_OFF);
    stop_timer(); /* nothing loops, and every access counts */
    struct trapeze_registers registers = registers_of(true, false);
    append(&accesses64[1]); /* load_8 */
    append(&accesses64[1]);
    load_program();
    run(&registers, linear, 0);
    ck_assert_uint_eq(stepper.violations, 0);
    ck_assert_uint_eq(stepper.in_memory, 2);
    guest.machine->vcpu[0]->cpu->hot.view->tables->addend[view_index(linear)] = (uint64_t)secret - linear;
    guest.machine->vcpu[0]->cpu->hot.rip = CODE;
    ck_assert_int_eq(trapeze_vcpu_run(guest.vcpu, &guest.exit), TRAPEZE_OK);
    ck_assert_uint_eq(guest_register(&guest, RAX), 0x5ec4e7);
    ck_assert_uint_eq(stepper.violations, 2);
    guest_destroy(&guest);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("containment");
    TCase *tcase = tcase_create("containment");
    tcase_set_timeout(tcase, 250);
    tcase_add_loop_test(tcase, wild_pointers_stay_in_windows, 0, 2);
    tcase_add_loop_test(tcase, registers_that_move_after_a_check_stay_in_windows, 0, 2);
    tcase_add_loop_test(tcase, registers_that_move_after_a_look_up_stay_in_windows, 0, 2);
    tcase_add_loop_test(tcase, indices_that_were_small_stay_in_windows, 0, 2);
    tcase_add_test(tcase, stacks_that_stray_stay_in_windows);
    tcase_add_loop_test(tcase, loops_whose_checks_come_first_stay_in_windows, 0, 2);
    tcase_add_test(tcase, wild_pointers_stay_in_memory_without_windows);
    tcase_add_loop_test(tcase, wild_pointers_of_32_bit_code_stay_inside, 0, 2);
    tcase_add_loop_test(tcase, segments_with_bases_and_limits_stay_inside, 0, 2);
    tcase_add_test(tcase, segments_of_16_bit_code_stay_inside);
    tcase_add_test(tcase, access_outside_is_seen);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
