/* Instructions that comparing with the host's processor does not reach: no effect, #UD, system state, old encodings. */
#include <string.h>

#include "guest_machine.h"

static struct guest guest;

static void setup(void) {
    guest_create(&guest, NULL);
}

static void teardown(void) {
    guest_destroy(&guest);
}

/* ---- Nothing ---- */

/* rax is no address at all. */
PROGRAM(nothing, 64, "nop\n pause\n .byte 0x66, 0x90\n nopl (%rax)\n nopw 8(%rax, %rax)\n"
                     ".byte 0x0f, 0x1e, 0x08\n endbr64\n"
                     "prefetcht0 (%rax)\n prefetcht1 (%rax)\n prefetcht2 (%rax)\n prefetchnta (%rax)\n"
                     "prefetchw (%rax)\n prefetch (%rax)\n prefetchwt1 (%rax)\n cldemote (%rax)\n"
                     "fninit\n .byte 0xdb, 0xe0\n .byte 0xdb, 0xe1\n .byte 0xdb, 0xe4\n");

START_TEST(instructions_without_effect_touch_nothing) {
    struct trapeze_registers registers = guest_long_mode(&guest), after;
    for (unsigned i = 0; i < 16; i++)
        if (i != RSP)
            registers.gpr[i] = 0x8123456789abcd00 + i;
    registers.rflags = 0x8d7; /* all arithmetic flags */
    GUEST_START(&guest, nothing, &registers);
    guest_expect_end(&guest); /* a fault would be a shutdown */
    trapeze_vcpu_get_registers(guest.vcpu, &after);
    ck_assert_mem_eq(registers.gpr, after.gpr, sizeof after.gpr);
    ck_assert_uint_eq(after.rflags & 0x8d5, 0x8d5);
}
END_TEST

/* ---- #UD ---- */

struct encoding {
    const char *name;
    uint8_t length, bytes[8];
};

/* #UD on every processor. */
static const struct encoding undefined[] = {
    {"ud2", 2, {0x0f, 0x0b}}, {"ud1", 3, {0x0f, 0xb9, 0xc0}}, {"ud0", 3, {0x0f, 0xff, 0xc0}}, {"rsm", 2, {0x0f, 0xaa}},
};

/* Of instruction sets without a rule: what must never reach the host. */
static const struct encoding unsupported[] = {
    {"vmcall", 3, {0x0f, 0x01, 0xc1}}, {"vmmcall", 3, {0x0f, 0x01, 0xd9}}, {"vmlaunch", 3, {0x0f, 0x01, 0xc2}},
    {"vmfunc", 3, {0x0f, 0x01, 0xd4}}, {"rdpkru", 3, {0x0f, 0x01, 0xee}}, {"wrpkru", 3, {0x0f, 0x01, 0xef}},
    {"monitorx", 3, {0x0f, 0x01, 0xfa}}, {"mwaitx", 3, {0x0f, 0x01, 0xfb}}, {"clzero", 3, {0x0f, 0x01, 0xfc}},
    {"rdpru", 3, {0x0f, 0x01, 0xfd}}, {"enclu", 3, {0x0f, 0x01, 0xd7}}, {"xend", 3, {0x0f, 0x01, 0xd5}},
    {"xtest", 3, {0x0f, 0x01, 0xd6}}, {"stgi", 3, {0x0f, 0x01, 0xdc}}, {"getsec", 2, {0x0f, 0x37}},
    {"umonitor", 4, {0xf3, 0x0f, 0xae, 0xf0}}, {"umwait", 4, {0xf2, 0x0f, 0xae, 0xf0}},
    {"tpause", 4, {0x66, 0x0f, 0xae, 0xf0}}, {"ptwrite", 4, {0xf3, 0x0f, 0xae, 0xe0}},
    {"xbegin", 6, {0xc7, 0xf8, 0, 0, 0, 0}}, {"xabort", 3, {0xc6, 0xf8, 0}},
};

/* A handler of #UD at CODE + 80h. */
PROGRAM(handler, 32, ".fill 0x80, 1, 0x90\n mov (%esp), %ebx\n mov $0x66, %al");

static void run_undefined(const struct encoding *encoding) {
    struct trapeze_registers registers = guest_protected_mode();
    guest_set_word(&guest, 0xa000 + 6 * 8, 8 << 16 | (CODE + 0x80)); /* an interrupt gate */
    guest_set_word(&guest, 0xa000 + 6 * 8 + 4, 0x8e00);
    guest_set_word(&guest, 0xb008, 0xffff); /* the flat code segment, selector 8 */
    guest_set_word(&guest, 0xb00c, 0xcf9b00);
    registers.idtr.base = 0xa000, registers.idtr.limit = 0x7ff;
    registers.gdtr.base = 0xb000, registers.gdtr.limit = 0xf;
    GUEST_START(&guest, handler, &registers);
    ck_assert(trapeze_memory_write(guest.machine, guest_physical_at(CODE), encoding->bytes, encoding->length));
    guest_run(&guest, TRAPEZE_EXIT_IO);
    ck_assert_msg((guest_register(&guest, RAX) & 0xff) == 0x66, "%s raised no #UD", encoding->name);
    ck_assert_msg(guest_register(&guest, RBX) == CODE, "%s: #UD elsewhere", encoding->name);
}

static uint64_t count_unimplemented(void) {
    struct trapeze_statistics statistics;
    trapeze_machine_statistics(guest.machine, &statistics);
    return statistics.unimplemented;
}

START_TEST(undefined_instructions_raise_ud_and_are_not_counted_as_missing) {
    for (unsigned i = 0; i < sizeof undefined / sizeof *undefined; i++)
        run_undefined(&undefined[i]);
    ck_assert_uint_eq(count_unimplemented(), 0);
}
END_TEST

START_TEST(instructions_without_a_rule_raise_ud_and_are_counted) {
    for (unsigned i = 0; i < sizeof unsupported / sizeof *unsupported; i++) {
        run_undefined(&unsupported[i]);
        ck_assert_uint_eq(count_unimplemented(), i + 1);
    }
}
END_TEST

/* ---- System state ---- */

PROGRAM(read_pid, 64, "xor %eax, %eax\n rdpid %rbx\n rdtscp\n mov %ecx, %esi");

START_TEST(rdpid_and_rdtscp_tell_tsc_aux) {
    struct trapeze_registers registers = guest_long_mode(&guest);
    ck_assert(trapeze_vcpu_set_msr(guest.vcpu, 0xc0000103, 0x12345678));
    GUEST_START(&guest, read_pid, &registers);
    guest_expect_end(&guest);
    ck_assert_uint_eq(guest_register(&guest, RBX), 0x12345678);
    ck_assert_uint_eq(guest_register(&guest, RSI), 0x12345678);
}
END_TEST

PROGRAM(bases, 64, "mov $0x123456789a10, %rax\n wrgsbase %rax\n rdgsbase %rcx\n rdgsbase %edx\n mov $-1, %rbx\n"
                   "wrfsbase %ebx\n rdfsbase %rsi\n rdfsbase %edi");

START_TEST(segment_bases_are_read_and_written_whole_and_by_halves) {
    struct trapeze_registers registers = guest_long_mode(&guest);
    registers.cr4 |= 1 << 16; /* FSGSBASE */
    GUEST_START(&guest, bases, &registers);
    guest_expect_end(&guest);
    trapeze_vcpu_get_registers(guest.vcpu, &registers);
    ck_assert_uint_eq(registers.segment[TRAPEZE_GS].base, 0x123456789a10);
    ck_assert_uint_eq(registers.segment[TRAPEZE_FS].base, 0xffffffff);
    ck_assert_uint_eq(registers.gpr[RCX], 0x123456789a10);
    ck_assert_uint_eq(registers.gpr[RDX], 0x56789a10);
    ck_assert_uint_eq(registers.gpr[RSI], 0xffffffff);
    ck_assert_uint_eq(registers.gpr[RDI], 0xffffffff);
}
END_TEST

PROGRAM(wait, 64, "mov $0x9000, %eax\n xor %ecx, %ecx\n xor %edx, %edx\n monitor\n xor %eax, %eax\n mwait\n"
                  "mov $5, %ebx");

START_TEST(mwait_goes_on_at_once_where_the_model_has_it) {
    struct trapeze_config config = {.cpu_model = "host,+monitor", .unclaimed_exits = true};
    struct guest own;
    guest_create(&own, &config);
    struct trapeze_registers registers = guest_long_mode(&own);
    GUEST_START(&own, wait, &registers);
    guest_expect_end(&own);
    ck_assert_uint_eq(guest_register(&own, RBX), 5);
    guest_destroy(&own);
    registers = guest_long_mode(&guest); /* and is #UD where it has not */
    GUEST_START(&guest, wait, &registers);
    guest_run(&guest, TRAPEZE_EXIT_SHUTDOWN);
}
END_TEST

/* ---- Encodings that need care ---- */

PROGRAM(fences, 16, "lfence\n mfence\n sfence\n clflush 0x9000\n mov $5, %bx\n mov $2, %cl\n shl %cl, %bx\n cwd");

START_TEST(fences_of_16_bit_code_stay_fences) {
    struct trapeze_registers registers = guest_real_mode();
    GUEST_START(&guest, fences, &registers);
    guest_expect_end(&guest);
    ck_assert_uint_eq(guest_register(&guest, RBX) & 0xffff, 20);
    ck_assert_uint_eq(count_unimplemented(), 0);
}
END_TEST

PROGRAM(old_group, 32, "mov $0xf0, %ebx\n .byte 0x82, 0xc3, 0x05\n mov $0x9000, %ecx\n .byte 0x82, 0x31, 0x0f\n"
                       ".byte 0xf0, 0x82, 0x01, 0x10\n");

/* Each segment has a byte of its own at offset 9000h; what MOVSB takes from FS goes to ES. */
PROGRAM(overrides, 16, "cld\n mov $0x9000, %si\n mov %si, %di\n"
                       "lodsb %es:(%si), %al\n dec %si\n mov %al, %bl\n lodsb %ss:(%si), %al\n dec %si\n mov %al, %bh\n"
                       "lodsb %cs:(%si), %al\n dec %si\n mov %al, %cl\n lodsb\n dec %si\n mov %al, %ch\n"
                       "cmpsb %es:(%di), %gs:(%si)\n pushf\n dec %si\n movsb %fs:(%si), %es:(%di)\n pop %dx");

START_TEST(strings_read_from_the_segment_of_their_prefix) {
    struct trapeze_registers registers = guest_real_mode();
    static const unsigned segments[] = {TRAPEZE_ES, TRAPEZE_CS, TRAPEZE_SS, TRAPEZE_DS, TRAPEZE_FS, TRAPEZE_GS};
    for (unsigned i = 0; i < 6; i++) {
        uint64_t base = segments[i] == TRAPEZE_CS ? 0 : 0x20000 + 0x10000 * (uint64_t)i;
        registers.segment[segments[i]].base = base;
        registers.segment[segments[i]].selector = (uint16_t)(base >> 4);
        guest.ram[base + DATA] = (uint8_t)(0x10 + i);
    }
    GUEST_START(&guest, overrides, &registers);
    guest_expect_end(&guest);
    ck_assert_uint_eq(guest_register(&guest, RBX) & 0xffff, 0x1210);
    ck_assert_uint_eq(guest_register(&guest, RCX) & 0xffff, 0x1311);
    ck_assert_uint_eq(guest_register(&guest, RDX) & 0x41, 0); /* 15h from GS is above 10h in ES */
    ck_assert_uint_eq(guest.ram[0x20000 + DATA + 1], 0x14);
}
END_TEST

START_TEST(opcode_82h_is_80h) {
    struct trapeze_registers registers = guest_protected_mode();
    guest_set_word(&guest, DATA, 0xff);
    GUEST_START(&guest, old_group, &registers);
    guest_expect_end(&guest);
    ck_assert_uint_eq(guest_register(&guest, RBX), 0xf5);
    ck_assert_uint_eq(guest_word(&guest, DATA), 0); /* (ffh ^ 0fh) + 10h */
}
END_TEST

PROGRAM(absolute, 64, "mov $0x77, %r8d\n .byte 0x4c, 0xa1, 0, 0x90, 0, 0, 0, 0, 0, 0\n inc %eax\n"
                      ".byte 0x44, 0xa3, 8, 0x90, 0, 0, 0, 0, 0, 0\n");

START_TEST(moves_from_absolute_addresses_ignore_rex_r) {
    struct trapeze_registers registers = guest_long_mode(&guest);
    guest_set_word(&guest, DATA, 0x1234);
    GUEST_START(&guest, absolute, &registers);
    guest_expect_end(&guest);
    ck_assert_uint_eq(guest_register(&guest, RAX), 0x1235);
    ck_assert_uint_eq(guest_register(&guest, 8), 0x77);
    ck_assert_uint_eq(guest_word(&guest, DATA + 8), 0x1235);
}
END_TEST

/* ---- Wild pointers ---- */

/* One access of each kind at rbx; the exception's handler, or the end. */
static const struct encoding accesses[] = {
    {"load", 2, {0x8b, 0x03}}, {"byte load", 2, {0x8a, 0x03}}, {"store", 3, {0x48, 0x89, 0x03}},
    {"add", 2, {0x01, 0x03}}, {"lock add", 3, {0xf0, 0x01, 0x03}}, {"xchg", 3, {0x48, 0x87, 0x03}},
    {"cmpxchg16b", 5, {0xf0, 0x48, 0x0f, 0xc7, 0x0b}}, {"movups", 3, {0x0f, 0x10, 0x03}},
    {"movaps store", 3, {0x0f, 0x29, 0x03}}, {"push", 2, {0xff, 0x33}}, {"call", 2, {0xff, 0x13}},
    {"jmp to it", 2, {0xff, 0xe3}}, {"fld", 2, {0xdb, 0x2b}}, {"fxsave", 3, {0x0f, 0xae, 0x03}},
    {"bts", 4, {0x48, 0x0f, 0xab, 0x1b}}, {"stos", 4, {0x48, 0x89, 0xdf, 0xaa}}, {"pop", 2, {0x8f, 0x03}},
    {"lgdt", 3, {0x0f, 0x01, 0x13}}, {"clflush", 3, {0x0f, 0xae, 0x3b}}, {"invlpg", 3, {0x0f, 0x01, 0x3b}},
    {"xlat", 1, {0xd7}}, {"cmpxchg", 4, {0x48, 0x0f, 0xb1, 0x03}}, {"movs", 4, {0x48, 0x89, 0xde, 0xa5}},
};

static const uint64_t wild[] = {
    0x40000000, 0x3ffffffc, 0x3fffffff, 0x7fffffffffff, 0x7ffffffffff9, 0x800000000000, 0x7ffffffffffffff8,
    0x8000000000000000, 0xffff7fffffffffff, 0xffff800000000000, 0xfffffffffffffff9, 0xffffffffffffffff, 0xfffffffff000,
};

START_TEST(wild_pointers_end_in_the_guest_and_change_no_memory_of_it) {
    static uint8_t before[RAM_SIZE - 0x10000];
    struct trapeze_registers registers = guest_long_mode(&guest);
    registers.cr4 |= 0x600;
    memcpy(before, guest.ram + 0x10000, sizeof before);
    for (unsigned i = 0; i < sizeof accesses / sizeof *accesses; i++) {
        for (unsigned k = 0; k < sizeof wild / sizeof *wild; k++) {
            uint8_t code[16];
            memset(code, 0xf4, sizeof code);
            memcpy(code, accesses[i].bytes, accesses[i].length);
            memcpy(code + accesses[i].length, "\xe6\xf4", 2); /* out %al, $0xf4 */
            guest_start(&guest, code, code + sizeof code, &registers);
            struct trapeze_registers now = registers;
            now.gpr[RBX] = wild[k];
            ck_assert_int_eq(trapeze_vcpu_set_registers(guest.vcpu, &now), TRAPEZE_OK);
            for (unsigned exits = 0;; exits++) {
                guest.exit.io.value = 0;
                ck_assert_int_eq(trapeze_vcpu_run(guest.vcpu, &guest.exit), TRAPEZE_OK);
                if (guest.exit.reason == TRAPEZE_EXIT_SHUTDOWN || guest.exit.io.space == TRAPEZE_PORT)
                    break;
                ck_assert_int_eq(guest.exit.reason, TRAPEZE_EXIT_IO);
                ck_assert_msg(exits < 200, "%s at %llx does not end", accesses[i].name, (unsigned long long)wild[k]);
            }
        }
    }
    ck_assert_mem_eq(before + 0x3000, guest.ram + 0x13000, sizeof before - 0x3000); /* behind the page tables */
}
END_TEST

int main(void) {
    Suite *suite = suite_create("instructions");
    TCase *tests = tcase_create("instructions");
    tcase_set_timeout(tests, 30);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, instructions_without_effect_touch_nothing);
    tcase_add_test(tests, undefined_instructions_raise_ud_and_are_not_counted_as_missing);
    tcase_add_test(tests, instructions_without_a_rule_raise_ud_and_are_counted);
    tcase_add_test(tests, rdpid_and_rdtscp_tell_tsc_aux);
    tcase_add_test(tests, segment_bases_are_read_and_written_whole_and_by_halves);
    tcase_add_test(tests, mwait_goes_on_at_once_where_the_model_has_it);
    tcase_add_test(tests, fences_of_16_bit_code_stay_fences);
    tcase_add_test(tests, strings_read_from_the_segment_of_their_prefix);
    tcase_add_test(tests, opcode_82h_is_80h);
    tcase_add_test(tests, moves_from_absolute_addresses_ignore_rex_r);
    tcase_add_test(tests, wild_pointers_end_in_the_guest_and_change_no_memory_of_it);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
