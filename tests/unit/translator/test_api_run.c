/* libtrapeze: running, stopping and stepping a processor, its whole state, its signals, and arguments out of range. */
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "guest_machine.h"

static struct guest guest;

static void setup(void) {
    guest_create(&guest, NULL);
}

static void teardown(void) {
    guest_destroy(&guest);
}

static struct trapeze_registers now(void) {
    struct trapeze_registers registers;
    trapeze_vcpu_get_registers(guest.vcpu, &registers);
    return registers;
}

/* ---- Stopping ---- */

/* Both show that they run. */
PROGRAM(spin, 32, "1: inc %eax\n mov %eax, 0x9000\n jmp 1b");
PROGRAM(halt, 32, "cli\n movl $1, 0x9000\n hlt\n mov $7, %ebx");
enum { BEHIND_HLT = CODE + 12 };

static void *kick_soon(void *vcpu) {
    usleep(30000);
    trapeze_vcpu_kick(vcpu);
    return NULL;
}

/* On a busy host that takes its time. */
static uint64_t shown_before;

static void wait_until_it_runs(void) {
    for (unsigned i = 0; i < 10000 && guest_word(&guest, DATA) == shown_before; i++)
        usleep(1000);
}

static void *kick_when_it_runs(void *vcpu) {
    wait_until_it_runs();
    return kick_soon(vcpu);
}

static void run_until_kicked_by(void *(*kicker)(void *vcpu)) {
    pthread_t thread;
    shown_before = guest_word(&guest, DATA);
    pthread_create(&thread, NULL, kicker, guest.vcpu);
    guest_run(&guest, TRAPEZE_EXIT_KICKED);
    pthread_join(thread, NULL);
}

START_TEST(kick_stops_a_loop_and_the_loop_goes_on) {
    struct trapeze_registers registers = guest_protected_mode();
    GUEST_START(&guest, spin, &registers);
    run_until_kicked_by(kick_when_it_runs);
    uint64_t first = now().gpr[RAX];
    ck_assert_uint_gt(first, 0);
    run_until_kicked_by(kick_when_it_runs);
    ck_assert_uint_ne(now().gpr[RAX], first);
}
END_TEST

START_TEST(kick_before_run_is_kept_and_told_once) {
    struct trapeze_registers registers = guest_protected_mode();
    GUEST_START(&guest, halt, &registers);
    trapeze_vcpu_kick(guest.vcpu);
    trapeze_vcpu_kick(guest.vcpu);
    guest_run(&guest, TRAPEZE_EXIT_KICKED);
    ck_assert_uint_eq(now().rip, CODE);
    run_until_kicked_by(kick_when_it_runs);
    ck_assert_uint_eq(now().rip, BEHIND_HLT);
}
END_TEST

START_TEST(kick_wakes_a_halted_processor_that_stays_halted) {
    struct trapeze_events events;
    struct trapeze_registers registers = guest_protected_mode();
    GUEST_START(&guest, halt, &registers);
    for (unsigned i = 0; i < 2; i++) {
        run_until_kicked_by(i ? kick_soon : kick_when_it_runs);
        trapeze_vcpu_get_events(guest.vcpu, &events);
        ck_assert(events.halted);
    }
    events.halted = false;
    trapeze_vcpu_set_events(guest.vcpu, &events);
    guest_expect_end(&guest);
    ck_assert_uint_eq(now().gpr[RBX], 7);
}
END_TEST

static void *try_to_run(void *vcpu) {
    struct trapeze_exit exit;
    wait_until_it_runs();
    enum trapeze_status status = trapeze_vcpu_run(vcpu, &exit);
    trapeze_vcpu_kick(vcpu);
    return (void *)(uintptr_t)status;
}

START_TEST(processor_runs_on_one_thread_at_a_time) {
    pthread_t thread;
    void *status;
    struct trapeze_registers registers = guest_protected_mode();
    GUEST_START(&guest, spin, &registers);
    shown_before = guest_word(&guest, DATA);
    pthread_create(&thread, NULL, try_to_run, guest.vcpu);
    guest_run(&guest, TRAPEZE_EXIT_KICKED);
    pthread_join(thread, &status);
    ck_assert_int_eq((int)(uintptr_t)status, TRAPEZE_BUSY);
}
END_TEST

PROGRAM(triple_fault, 32, "mov $0x1234, %eax\n ud2");

START_TEST(triple_fault_is_a_shutdown_with_the_state_of_the_fault) {
    struct trapeze_registers registers = guest_protected_mode();
    GUEST_START(&guest, triple_fault, &registers);
    guest_run(&guest, TRAPEZE_EXIT_SHUTDOWN);
    ck_assert_uint_eq(now().rip, CODE + 5);
    ck_assert_uint_eq(now().gpr[RAX], 0x1234);
    guest_run(&guest, TRAPEZE_EXIT_SHUTDOWN); /* it faults again */
    trapeze_vcpu_signal(guest.vcpu, TRAPEZE_SIGNAL_RESET, 0);
    trapeze_vcpu_kick(guest.vcpu);
    guest_run(&guest, TRAPEZE_EXIT_KICKED);
    ck_assert_uint_eq(now().rip, 0xfff0);
    ck_assert_uint_eq(now().segment[TRAPEZE_CS].base, 0xffff0000);
}
END_TEST

/* ---- Debugging ---- */

PROGRAM(steps, 32, "mov $3, %ecx\n 1: nop\n dec %ecx\n jnz 1b\n push %eax\n pop %ebx\n mov $2, %ecx\n"
                   "mov $0x9000, %edi\n rep stosb");

START_TEST(single_step_runs_one_instruction) {
    static const uint16_t addresses[] = {5, 6, 7, 5, 6, 7, 5, 6, 7, 9, 10, 11, 16, 21};
    struct trapeze_registers registers = guest_protected_mode();
    GUEST_START(&guest, steps, &registers);
    ck_assert_int_eq(trapeze_vcpu_set_debug(guest.vcpu, true, NULL, 0), TRAPEZE_OK);
    for (unsigned i = 0; i < sizeof addresses / sizeof *addresses; i++) {
        guest_run(&guest, TRAPEZE_EXIT_DEBUG);
        ck_assert_int_eq(guest.exit.debug.kind, TRAPEZE_DEBUG_STEP);
        ck_assert_uint_eq(now().rip, CODE + addresses[i]);
        ck_assert_uint_eq(now().rflags & 0x100, 0);
    }
    ck_assert_int_eq(trapeze_vcpu_set_debug(guest.vcpu, false, NULL, 0), TRAPEZE_OK);
    guest_expect_end(&guest);
}
END_TEST

START_TEST(breakpoint_stops_in_front_of_its_instruction_each_time) {
    struct trapeze_registers registers = guest_protected_mode();
    struct trapeze_breakpoint point = {TRAPEZE_BREAK_EXECUTE, CODE + 6, 1};
    GUEST_START(&guest, steps, &registers);
    ck_assert_int_eq(trapeze_vcpu_set_debug(guest.vcpu, false, &point, 1), TRAPEZE_OK);
    for (unsigned left = 3; left > 0; left--) {
        guest_run(&guest, TRAPEZE_EXIT_DEBUG);
        ck_assert_int_eq(guest.exit.debug.kind, TRAPEZE_DEBUG_BREAKPOINT);
        ck_assert_uint_eq(guest.exit.debug.address, CODE + 6);
        ck_assert_uint_eq(now().rip, CODE + 6);
        ck_assert_uint_eq(now().gpr[RCX], left);
        ck_assert_uint_eq(guest.ram[CODE + 6], 0x49); /* the guest's own byte */
        ck_assert_int_eq(trapeze_vcpu_set_debug(guest.vcpu, true, &point, 1), TRAPEZE_OK);
        /* over it */
        guest_run(&guest, TRAPEZE_EXIT_DEBUG);
        ck_assert_uint_eq(now().gpr[RCX], left - 1);
        ck_assert_int_eq(trapeze_vcpu_set_debug(guest.vcpu, false, &point, 1), TRAPEZE_OK);
    }
    guest_expect_end(&guest);
}
END_TEST

PROGRAM(watched, 32, "mov 0x9100, %eax\n movb $1, 0x9003\n mov 0x9000, %eax\n incw 0x9002\n movw $1, 0x8fff\n"
                     "push 0x9000\n mov $0x9000, %edi\n mov $1, %ecx\n rep stosl\n movups %xmm0, 0x8ff4");

static unsigned count_watchpoints(enum trapeze_debug_type type) {
    struct trapeze_registers registers = guest_protected_mode();
    struct trapeze_breakpoint point = {type, DATA, 4};
    GUEST_START(&guest, watched, &registers);
    ck_assert_int_eq(trapeze_vcpu_set_debug(guest.vcpu, false, &point, 1), TRAPEZE_OK);
    for (unsigned hits = 0;; hits++) {
        ck_assert_int_eq(trapeze_vcpu_run(guest.vcpu, &guest.exit), TRAPEZE_OK);
        if (guest.exit.reason == TRAPEZE_EXIT_IO)
            return hits;
        ck_assert_int_eq(guest.exit.reason, TRAPEZE_EXIT_DEBUG);
        ck_assert_int_eq(guest.exit.debug.kind, TRAPEZE_DEBUG_WATCHPOINT);
        ck_assert_uint_eq(guest.exit.debug.address, DATA);
        ck_assert_uint_lt(hits, 20);
    }
}

START_TEST(watchpoints_stop_at_accesses_of_their_kind) {
    ck_assert_uint_eq(count_watchpoints(TRAPEZE_BREAK_WRITE), 5);
    ck_assert_uint_eq(count_watchpoints(TRAPEZE_BREAK_READ), 2); /* a read-modify-write is a write */
    ck_assert_uint_eq(count_watchpoints(TRAPEZE_BREAK_ACCESS), 7);
}
END_TEST

START_TEST(watchpoint_stops_behind_the_access) {
    struct trapeze_registers registers = guest_protected_mode();
    struct trapeze_breakpoint point = {TRAPEZE_BREAK_WRITE, DATA + 3, 1};
    GUEST_START(&guest, watched, &registers);
    ck_assert_int_eq(trapeze_vcpu_set_debug(guest.vcpu, false, &point, 1), TRAPEZE_OK);
    guest_run(&guest, TRAPEZE_EXIT_DEBUG);
    ck_assert_uint_eq(now().rip, CODE + 12);
    ck_assert_uint_eq(guest.ram[DATA + 3], 1);
}
END_TEST

START_TEST(bad_breakpoints_are_refused) {
    struct trapeze_breakpoint points[65];
    for (unsigned i = 0; i < 65; i++)
        points[i] = (struct trapeze_breakpoint){TRAPEZE_BREAK_EXECUTE, CODE + 0x100 + i, 1};
    ck_assert_int_eq(trapeze_vcpu_set_debug(guest.vcpu, false, points, 65), TRAPEZE_INVALID);
    ck_assert_int_eq(trapeze_vcpu_set_debug(guest.vcpu, false, points, 64), TRAPEZE_OK);
    points[3].length = 0;
    ck_assert_int_eq(trapeze_vcpu_set_debug(guest.vcpu, false, points, 64), TRAPEZE_INVALID);
    points[3].length = 4097;
    ck_assert_int_eq(trapeze_vcpu_set_debug(guest.vcpu, false, points, 64), TRAPEZE_INVALID);
}
END_TEST

/* ---- State ---- */

START_TEST(registers_come_back_as_they_were_set) {
    struct trapeze_registers set = guest_long_mode(&guest), got;
    for (unsigned i = 0; i < 16; i++)
        set.gpr[i] = 0x0123456789abcdef * (i + 1);
    set.rip = 0xffff800000001000;
    set.rflags = 0x40ed7 & ~0x100u;
    set.cr2 = 0x123456789000;
    set.segment[TRAPEZE_FS].base = 0xffff888000000000;
    set.segment[TRAPEZE_GS].base = 0x7fff12345000;
    set.ldtr = (struct trapeze_segment){.base = 0x5000, .limit = 0xff, .selector = 0x28, .attributes = 0x82};
    set.tr = (struct trapeze_segment){.base = 0x6000, .limit = 0x67, .selector = 0x30, .attributes = 0x8b};
    set.gdtr.base = 0xffffff0000001000, set.gdtr.limit = 0x7f;
    set.idtr.base = 0xffffff0000002000, set.idtr.limit = 0xfff;
    set.xcr0 = 3;
    set.dr[0] = 0x1111, set.dr[3] = 0x4444, set.dr[6] = 0xffff0ff0, set.dr[7] = 0x400;
    ck_assert_int_eq(trapeze_vcpu_set_registers(guest.vcpu, &set), TRAPEZE_OK);
    got = now();
    ck_assert_mem_eq(set.gpr, got.gpr, sizeof set.gpr);
    ck_assert_uint_eq(set.rip, got.rip);
    ck_assert_uint_eq(set.rflags, got.rflags);
    for (unsigned i = 0; i < TRAPEZE_SEGMENTS; i++)
        ck_assert_mem_eq(&set.segment[i], &got.segment[i], sizeof set.segment[i]);
    ck_assert_mem_eq(&set.ldtr, &got.ldtr, sizeof set.ldtr);
    ck_assert_mem_eq(&set.tr, &got.tr, sizeof set.tr);
    ck_assert_uint_eq(set.gdtr.base, got.gdtr.base);
    ck_assert_uint_eq(set.idtr.limit, got.idtr.limit);
    ck_assert_uint_eq(set.cr0, got.cr0);
    ck_assert_uint_eq(set.cr2, got.cr2);
    ck_assert_uint_eq(set.cr3, got.cr3);
    ck_assert_uint_eq(set.cr4, got.cr4);
    ck_assert_uint_eq(set.efer, got.efer);
    ck_assert_uint_eq(set.xcr0, got.xcr0);
    ck_assert_mem_eq(set.dr, got.dr, sizeof set.dr);
}
END_TEST

PROGRAM(all_registers, 64, "inc %rax\n inc %rcx\n inc %rdx\n inc %rbx\n inc %rsp\n inc %rbp\n inc %rsi\n inc %rdi\n"
                           "inc %r8\n inc %r9\n inc %r10\n inc %r11\n inc %r12\n inc %r13\n inc %r14\n inc %r15\n stc");

START_TEST(guest_code_works_on_the_registers_that_were_set) {
    struct trapeze_registers registers = guest_long_mode(&guest);
    for (unsigned i = 0; i < 16; i++)
        registers.gpr[i] = 0x1111111111111111u * i;
    GUEST_START(&guest, all_registers, &registers);
    guest_expect_end(&guest);
    for (unsigned i = 0; i < 16; i++)
        ck_assert_uint_eq(now().gpr[i], 0x1111111111111111u * i + 1);
    ck_assert_uint_eq(now().rflags & 1, 1);
}
END_TEST

START_TEST(impossible_registers_are_refused) {
    struct trapeze_registers registers = guest_long_mode(&guest);
    ck_assert_int_eq(trapeze_vcpu_set_registers(guest.vcpu, &registers), TRAPEZE_OK);
    registers.cr0 &= ~1ull;
    ck_assert_int_eq(trapeze_vcpu_set_registers(guest.vcpu, &registers), TRAPEZE_INVALID);
    registers = guest_long_mode(&guest);
    registers.cr4 &= ~0x20ull;
    ck_assert_int_eq(trapeze_vcpu_set_registers(guest.vcpu, &registers), TRAPEZE_INVALID);
    registers = guest_long_mode(&guest);
    registers.rflags = 0;
    ck_assert_int_eq(trapeze_vcpu_set_registers(guest.vcpu, &registers), TRAPEZE_INVALID);
    ck_assert_uint_eq(now().rflags, 2);
}
END_TEST

PROGRAM(vectors, 64, "addps %xmm1, %xmm0\n fninit\n fld1\n fld1\n faddp\n paddd %xmm15, %xmm15");

START_TEST(xsave_image_goes_in_and_comes_out) {
    uint8_t image[TRAPEZE_XSAVE_SIZE], got[TRAPEZE_XSAVE_SIZE];
    float one[4] = {1, 2, 3, 4}, sum[4];
    struct trapeze_registers registers = guest_long_mode(&guest);
    GUEST_START(&guest, vectors, &registers);
    trapeze_vcpu_get_xsave(guest.vcpu, image);
    memcpy(image + 160, one, 16);
    memcpy(image + 176, one, 16);
    memset(image + 160 + 15 * 16, 1, 16);
    image[512] |= 3;
    ck_assert_int_eq(trapeze_vcpu_set_xsave(guest.vcpu, image), TRAPEZE_OK);
    trapeze_vcpu_get_xsave(guest.vcpu, got);
    ck_assert_mem_eq(image, got, sizeof image);
    guest_expect_end(&guest);
    trapeze_vcpu_get_xsave(guest.vcpu, got);
    memcpy(sum, got + 160, 16);
    for (unsigned i = 0; i < 4; i++)
        ck_assert(sum[i] == 2 * one[i]);
    ck_assert_uint_eq(got[160 + 15 * 16], 2);

    static const struct {
        unsigned at;
        uint8_t value;
    } bad[] = {{512 + 7, 0x80}, {520, 1}, {528, 1}, {575, 1}, {27, 1}};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        memcpy(got, image, sizeof got);
        got[bad[i].at] |= bad[i].value;
        ck_assert_int_eq(trapeze_vcpu_set_xsave(guest.vcpu, got), TRAPEZE_INVALID);
    }
}
END_TEST

START_TEST(msrs_are_read_written_and_refused) {
    uint64_t value;
    ck_assert(trapeze_vcpu_set_msr(guest.vcpu, 0xc0000082, 0xffffffff81000000));
    ck_assert(trapeze_vcpu_get_msr(guest.vcpu, 0xc0000082, &value));
    ck_assert_uint_eq(value, 0xffffffff81000000);
    ck_assert(!trapeze_vcpu_set_msr(guest.vcpu, 0xc0000082, 0x8000000000000000)); /* not canonical */
    ck_assert(!trapeze_vcpu_get_msr(guest.vcpu, 0x12345678, &value));
    ck_assert(!trapeze_vcpu_set_msr(guest.vcpu, 0x12345678, 0));
    ck_assert(!trapeze_vcpu_set_msr(guest.vcpu, 0x277, 0x0202020202020202)); /* PAT: no such type */
}
END_TEST

START_TEST(events_come_back_as_they_were_set) {
    struct trapeze_events set = {.halted = true, .nmi_blocked = true, .nmi_pending = true, .sipi_vector = 0x12}, got;
    trapeze_vcpu_set_events(guest.vcpu, &set);
    trapeze_vcpu_get_events(guest.vcpu, &got);
    ck_assert(got.halted && got.nmi_blocked && got.nmi_pending);
    ck_assert(!got.waiting_for_sipi && !got.init_pending && !got.sipi_pending && !got.interrupt_shadow);
    ck_assert_uint_eq(got.sipi_vector, 0x12);
}
END_TEST

START_TEST(pending_events_that_are_cleared_do_not_happen) {
    struct trapeze_events events = {0};
    struct trapeze_registers registers = guest_protected_mode(); /* without an IDT: an NMI would be a shutdown */
    GUEST_START(&guest, halt, &registers);
    trapeze_vcpu_signal(guest.vcpu, TRAPEZE_SIGNAL_NMI, 0);
    trapeze_vcpu_set_events(guest.vcpu, &events);
    trapeze_vcpu_get_events(guest.vcpu, &events);
    ck_assert(!events.nmi_pending);
    run_until_kicked_by(kick_when_it_runs);
    ck_assert_uint_eq(now().rip, BEHIND_HLT);
}
END_TEST

START_TEST(translate_tells_pages_and_holes) {
    struct trapeze_registers registers = guest_long_mode(&guest);
    guest_physical physical;
    ck_assert_int_eq(trapeze_vcpu_set_registers(guest.vcpu, &registers), TRAPEZE_OK);
    ck_assert(trapeze_vcpu_translate(guest.vcpu, guest_linear_at(0x123456), &physical));
    ck_assert_uint_eq(physical.value, 0x123456);
    ck_assert(!trapeze_vcpu_translate(guest.vcpu, guest_linear_at(0x40000000), &physical));
    ck_assert(!trapeze_vcpu_translate(guest.vcpu, guest_linear_at(0xffff800000000000), &physical));
}
END_TEST

/* ---- Interrupts and signals ---- */

static int acknowledge(void *opaque) {
    trapeze_vcpu_set_intr(guest.vcpu, false);
    return *(int *)opaque;
}

/* Real mode: vectors at 0. */
PROGRAM(wait_for_interrupts, 16, "sti\n hlt\n mov %bx, 0x9000\n cli\n mov $1, %al\n out %al, $0x80\n hlt\n jmp 2f\n"
                                 ".org wait_for_interrupts + 0x40\n mov $0x40, %bx\n iret\n"
                                 ".org wait_for_interrupts + 0x50\n mov $0x50, %cx\n iret\n 2:");

static void *signal_soon(void *nmi) {
    usleep(20000);
    if (nmi)
        trapeze_vcpu_signal(guest.vcpu, TRAPEZE_SIGNAL_NMI, 0);
    else
        trapeze_vcpu_set_intr(guest.vcpu, true);
    return NULL;
}

START_TEST(interrupt_and_nmi_wake_a_halted_processor) {
    int vector = 0x21;
    pthread_t thread;
    struct trapeze_interrupt_controller controller = {.acknowledge = acknowledge, .opaque = &vector};
    struct trapeze_registers registers = guest_real_mode();
    trapeze_vcpu_set_interrupt_controller(guest.vcpu, &controller);
    guest_set_word(&guest, 0x21 * 4, CODE + 0x40);
    guest_set_word(&guest, 2 * 4, CODE + 0x50);
    GUEST_START(&guest, wait_for_interrupts, &registers);
    pthread_create(&thread, NULL, signal_soon, NULL);
    guest_expect_write(&guest, TRAPEZE_PORT, 0x80, 1, 1);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(guest_word(&guest, DATA) & 0xffff, 0x40);
    trapeze_vcpu_set_intr(guest.vcpu, true); /* held off by IF */
    pthread_create(&thread, NULL, signal_soon, &guest);
    guest_expect_end(&guest);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(now().gpr[RCX], 0x50);
    ck_assert_uint_eq(now().gpr[RBX], 0x40);
}
END_TEST

PROGRAM(start_other, 16, "mov %cs, %ax\n mov %ax, 0x9000\n mov $1, %al\n out %al, $0x80\n 1: jmp 1b");

static struct trapeze_vcpu *second;

static void *run_second(void *exit) {
    return (void *)(uintptr_t)trapeze_vcpu_run(second, exit);
}

START_TEST(second_processor_waits_for_init_and_sipi) {
    struct trapeze_exit exit = {0};
    struct trapeze_events events;
    pthread_t thread;
    guest_load(&guest, start_other, start_other_end);
    ck_assert_int_eq(trapeze_vcpu_create(guest.machine, 1, &second), TRAPEZE_OK);
    ck_assert_int_eq(trapeze_vcpu_create(guest.machine, 1, &second), TRAPEZE_INVALID);
    trapeze_vcpu_get_events(second, &events);
    ck_assert(events.waiting_for_sipi);
    pthread_create(&thread, NULL, run_second, &exit);
    usleep(20000);
    trapeze_vcpu_signal(second, TRAPEZE_SIGNAL_INIT, 0);
    usleep(20000);
    trapeze_vcpu_signal(second, TRAPEZE_SIGNAL_SIPI, CODE >> 12);
    pthread_join(thread, NULL);
    ck_assert_int_eq(exit.reason, TRAPEZE_EXIT_IO);
    ck_assert_uint_eq(exit.io.address, 0x80);
    ck_assert_uint_eq(guest_word(&guest, DATA) & 0xffff, CODE >> 4);
    trapeze_vcpu_signal(second, TRAPEZE_SIGNAL_SIPI, 2); /* running: no effect */
    trapeze_vcpu_kick(second);
    ck_assert_int_eq(trapeze_vcpu_run(second, &exit), TRAPEZE_OK);
    ck_assert_int_eq(exit.reason, TRAPEZE_EXIT_KICKED);
    trapeze_vcpu_signal(second, TRAPEZE_SIGNAL_INIT, 0); /* takes it out of the loop */
    trapeze_vcpu_kick(second);
    ck_assert_int_eq(trapeze_vcpu_run(second, &exit), TRAPEZE_OK);
    trapeze_vcpu_get_events(second, &events);
    ck_assert(events.waiting_for_sipi);
}
END_TEST

/* ---- Machines ---- */

START_TEST(bad_configurations_are_refused_with_a_text) {
    struct trapeze_machine *machine;
    struct trapeze_vcpu *vcpu;
    const char *error;
    struct trapeze_config unknown = {.cpu_model = "nosuch"}, feature = {.cpu_model = "host,+nosuch"},
                          small = {.code_cache = 1 << 20}, large = {.code_cache = 1ull << 40};
    const struct trapeze_config *bad[] = {&unknown, &feature, &small, &large};
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_int_eq(trapeze_machine_create(bad[i], &machine, &error), TRAPEZE_INVALID);
        ck_assert_ptr_nonnull(error);
        ck_assert_int_eq(trapeze_machine_create(bad[i], &machine, NULL), TRAPEZE_INVALID);
    }
    ck_assert_int_eq(trapeze_vcpu_create(guest.machine, 0, &vcpu), TRAPEZE_INVALID);
    ck_assert_int_eq(trapeze_vcpu_create(guest.machine, 2, &vcpu), TRAPEZE_INVALID);
    ck_assert_int_eq(trapeze_vcpu_create(guest.machine, 255, &vcpu), TRAPEZE_INVALID);
    trapeze_machine_destroy(NULL);
    for (unsigned status = 0; status <= TRAPEZE_HOST_ERROR + 1; status++)
        ck_assert_uint_gt(strlen(trapeze_status_text((enum trapeze_status)status)), 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("api_run");
    TCase *tests = tcase_create("api_run");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, kick_stops_a_loop_and_the_loop_goes_on);
    tcase_add_test(tests, kick_before_run_is_kept_and_told_once);
    tcase_add_test(tests, kick_wakes_a_halted_processor_that_stays_halted);
    tcase_add_test(tests, processor_runs_on_one_thread_at_a_time);
    tcase_add_test(tests, triple_fault_is_a_shutdown_with_the_state_of_the_fault);
    tcase_add_test(tests, single_step_runs_one_instruction);
    tcase_add_test(tests, breakpoint_stops_in_front_of_its_instruction_each_time);
    tcase_add_test(tests, watchpoints_stop_at_accesses_of_their_kind);
    tcase_add_test(tests, watchpoint_stops_behind_the_access);
    tcase_add_test(tests, bad_breakpoints_are_refused);
    tcase_add_test(tests, registers_come_back_as_they_were_set);
    tcase_add_test(tests, guest_code_works_on_the_registers_that_were_set);
    tcase_add_test(tests, impossible_registers_are_refused);
    tcase_add_test(tests, xsave_image_goes_in_and_comes_out);
    tcase_add_test(tests, msrs_are_read_written_and_refused);
    tcase_add_test(tests, events_come_back_as_they_were_set);
    tcase_add_test(tests, pending_events_that_are_cleared_do_not_happen);
    tcase_add_test(tests, translate_tells_pages_and_holes);
    tcase_add_test(tests, interrupt_and_nmi_wake_a_halted_processor);
    tcase_add_test(tests, second_processor_waits_for_init_and_sipi);
    tcase_add_test(tests, bad_configurations_are_refused_with_a_text);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
