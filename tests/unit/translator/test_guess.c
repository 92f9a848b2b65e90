/* What guest registers probably hold in front of an instruction (translator/guess.c). */
#include <check.h>
#include <stdlib.h>

#include "tests/coverage/decoded_forms.h"
#include "translator/translation.h"

enum { POINTER = 0x5b5863, OTHER = 0x602000, RIP = 0x100 };

static struct translation *t;
static struct cpu *cpu;
static struct decoder *decoder;

static void set_up(void) {
    t = calloc(1, sizeof *t);
    cpu = calloc(1, sizeof *cpu);
    decoder = decoded_forms_decoder();
    ck_assert(t && cpu && decoder);
    t->cpu = cpu;
    t->key = decoded_forms_key(64);
    cpu->hot.gpr[CPU_RAX] = POINTER;
    guess_start(t);
}

static void tear_down(void) {
    decoder_destroy(decoder);
    free(cpu);
    free(t);
}

/* Leads the guesses through the instructions. */
static void run(const uint8_t *code, unsigned size) {
    for (unsigned at = 0; at < size; at += t->in.z->length) {
        ck_assert(decode(decoder, t->key, code + at, size - at, RIP + at, &t->in));
        t->in.rip = RIP + at;
        guess_next(t);
    }
}

#define RUN(...) run((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void must_hold(unsigned guest, uint64_t expected) {
    uint64_t value;
    ck_assert(guess_register(t, guest, &value));
    ck_assert_uint_eq(value, expected);
}

static void must_be_unknown(unsigned guest) {
    uint64_t value;
    ck_assert(!guess_register(t, guest, &value));
}

START_TEST(a_pointer_that_is_counted_stays_known) {
    RUN(0x48, 0xff, 0xc0,  /* inc rax */
        0x48, 0xff, 0xc0,  /* inc rax */
        0x48, 0xff, 0xc8); /* dec rax */
    must_hold(CPU_RAX, POINTER + 1);
}
END_TEST

START_TEST(an_unknown_index_leaves_a_pointer_where_it_is) {
    t->guessed &= (uint16_t)~(1u << CPU_RCX);
    RUN(0x48, 0x01, 0xc8); /* add rax, rcx */
    must_hold(CPU_RAX, POINTER);
    RUN(0x48, 0x01, 0xc1); /* add rcx, rax */
    must_hold(CPU_RCX, POINTER);
    RUN(0x48, 0x01, 0xd2); /* add rdx, rdx: known, but no pointer */
    must_hold(CPU_RDX, 0);
}
END_TEST

START_TEST(of_two_values_that_a_register_may_get_the_pointer_is_taken) {
    RUN(0x48, 0x0f, 0x44, 0xd0); /* cmove rdx, rax */
    must_hold(CPU_RDX, POINTER);
    RUN(0x48, 0x0f, 0x44, 0xc1); /* cmove rax, rcx */
    must_hold(CPU_RAX, POINTER);
}
END_TEST

START_TEST(behind_a_jump_registers_hold_what_the_branch_to_there_says) {
    t->loop.is_found = true;
    cpu->hot.gpr[CPU_RDX] = OTHER;
    guess_start(t);
    RUN(0x75, 0x04,  /* jne 1 */
        0x31, 0xc0,  /* xor eax, eax */
        0xeb, 0x10); /* jmp elsewhere */
    must_hold(CPU_RAX, POINTER);
    must_hold(CPU_RDX, OTHER);
}
END_TEST

START_TEST(where_paths_meet_a_branch_adds_what_is_not_known_from_above) {
    t->loop.is_found = true;
    RUN(0x75, 0x06,        /* jne 1 */
        0x0f, 0xa2,        /* cpuid: RAX, RBX, RCX and RDX are anything */
        0xba, 7, 0, 0, 0); /* mov edx, 7 */
    must_be_unknown(CPU_RAX);
    guess_start(t);
    RUN(0x75, 0x07,        /* jne 1 */
        0x0f, 0xa2,        /* cpuid */
        0xba, 7, 0, 0, 0); /* mov edx, 7 */
    must_hold(CPU_RAX, POINTER);
    must_hold(CPU_RDX, 7);
}
END_TEST

START_TEST(outside_of_loops_branches_say_nothing) {
    RUN(0x75, 0x04,  /* jne 1 */
        0x31, 0xc0,  /* xor eax, eax */
        0xeb, 0x10); /* jmp elsewhere */
    must_hold(CPU_RAX, 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("guess");
    TCase *tests = tcase_create("guess");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, a_pointer_that_is_counted_stays_known);
    tcase_add_test(tests, an_unknown_index_leaves_a_pointer_where_it_is);
    tcase_add_test(tests, of_two_values_that_a_register_may_get_the_pointer_is_taken);
    tcase_add_test(tests, behind_a_jump_registers_hold_what_the_branch_to_there_says);
    tcase_add_test(tests, where_paths_meet_a_branch_adds_what_is_not_known_from_above);
    tcase_add_test(tests, outside_of_loops_branches_say_nothing);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
