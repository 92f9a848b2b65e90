/*
 * A program that means harm, part two: garbage in every MSR, port, control and debug register, descriptor and page
 * table. The machine may do what it likes to the guest, as long as it goes on and answers.
 */
#include "lib/trap.h"

extern uint64_t gdt[];
static uint64_t seed = 0xfeedface;


static void model_specific_registers(void) {
    static const uint32_t ranges[][2] = {
        {0, 0x400}, {0x480, 0x4a0}, {0x560, 0x5a0}, {0x600, 0x6f0}, {0xc80, 0xd00}, {0xda0, 0xdb0}, {0x800, 0x900},
        {0x40000000, 0x40000120}, {0xc0000080, 0xc0000110}, {0xc0010000, 0xc0010140}, {0xfffffff0, 0xffffffff},
    };
    static const uint64_t values[] = {0, ~0ull, 0x5555555555555555, 0x8000000000000000, 1, 0x7fffffffffffffff};
    unsigned read = 0, refused = 0;
    for (size_t r = 0; r < sizeof ranges / sizeof *ranges; r++) {
        for (uint32_t index = ranges[r][0]; index < ranges[r][1]; index++) {
            uint64_t value;
            int vector = try_rdmsr(index, &value);
            check_quiet("rdmsr_answers_or_gp", vector == -1 || vector == V_GP, true);
            read += vector == -1;
            refused += vector == V_GP;
            if (index == 0x1b || index == 0xc0000080 || (index >= 0x800 && index < 0x900) || index == 0x79)
                continue; /* would end this program, not the machine */
            for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
                vector = try_wrmsr(index, values[v]);
                check_quiet("wrmsr_takes_or_gp", vector == -1 || vector == V_GP, true);
            }
            if (try_rdmsr(index, &value) == -1)
                try_wrmsr(index, value);
        }
    }
    wrmsr(0xc0000100, 0);
    wrmsr(0xc0000101, 0);
    check_true("some_msrs_exist", read > 10);
    check_true("most_msrs_do_not", refused > read);
}

/* Ports whose effect is the point of them: reset and power-off. */
static bool port_ends_the_machine(uint16_t port) {
    return port == 0xf4 || port == 0xf5 || port == 0xf6 || port == 0xf7 || port == 0x64 || port == 0x92 ||
           port == 0xcf9 || port == 0xe9 || (port >= 0x600 && port < 0x680) || (port >= 0xb000 && port < 0xb080) ||
           (port >= 0xcf8 && port < 0xd00) || port == 0x604 || (port >= 0xae00 && port < 0xaf00) || port == 0x402;
}

static void ports(void) {
    for (uint32_t port = 0; port < 0x10000; port++) {
        in8((uint16_t)port);
        in16((uint16_t)port);
        in32((uint16_t)port);
    }
    check_true("every_port_is_read", true);
    for (uint32_t port = 0; port < 0x10000; port++) {
        if (port_ends_the_machine((uint16_t)port) || port_ends_the_machine((uint16_t)(port + 1)) ||
            port_ends_the_machine((uint16_t)(port + 2)) || port_ends_the_machine((uint16_t)(port + 3)))
            continue;
        for (unsigned i = 0; i < 4; i++)
            out8((uint16_t)port, (uint8_t)random_next(&seed));
        out16((uint16_t)port, (uint16_t)random_next(&seed));
        out32((uint16_t)port, (uint32_t)random_next(&seed));
    }
    pic_init(0x30);
    check_true("every_port_is_written", true);
}

static void device_memory(void) {
    for (uint32_t at = 0xfec00000u; at < 0xfec00100u; at += 4)
        *(volatile uint32_t *)(uintptr_t)at = (uint32_t)random_next(&seed);
    for (uint32_t at = 0xfed00000u; at < 0xfed00400u; at += 4) {
        *(volatile uint32_t *)(uintptr_t)at = (uint32_t)random_next(&seed);
        *(volatile uint8_t *)(uintptr_t)(at + 1) = (uint8_t)random_next(&seed);
    }
    uint64_t sum = 0;
    for (uint32_t at = 0xc0000000u; at < 0xfff00000u; at += 0x3000 + 8)
        sum += *(volatile uint64_t *)(uintptr_t)at;
    for (uint32_t at = 0xfee00000u; at < 0xfee01000u; at += 7)
        sum += *(volatile uint8_t *)(uintptr_t)at;
    check_true("device_memory_is_read", sum != 1);
    static uint8_t buffer[64] __attribute__((aligned(64)));
    __asm__ volatile("movups 0xff8(%0), %%xmm0; movups %%xmm0, 0xff1(%0); fldt 0xf1(%0); fstpt 0xf1(%0)\n"
                     "lock xaddq %%rax, 0xff0(%0)" : : "r"(0xfed00000ull), "a"(1ull) : "memory");
    __asm__ volatile("cld; rep movsb" : : "D"(buffer), "S"(0xfee00000ull), "c"(64) : "memory");
    check_true("odd_accesses_to_devices", true);
}

SNIPPET(h_set_ds, "", "mov %ax, %ds");
SNIPPET(h_set_fs, "", "mov %ax, %fs");
SNIPPET(h_set_ss, "", "mov %ax, %ss");
SNIPPET(h_lar, "", "lar %eax, %ecx");
SNIPPET(h_lsl, "", "lsl %eax, %ecx");
SNIPPET(h_verr, "", "verr %ax");
SNIPPET(h_far_call, "push %rax\n push $0", "lcall *(%rsp)");
SNIPPET(h_far_ret, "push %rax\n push $0", "lretq");
SNIPPET(h_lldt, "", "lldt %ax");
SNIPPET(h_iret, "push %rax\n push %rsp\n push %rcx\n push %rax\n push $0", "iretq");

static void descriptors(void) {
    static const uint8_t *const kinds[] = {h_set_ds, h_set_fs, h_set_ss, h_lar, h_lsl, h_verr, h_far_call, h_far_ret, h_lldt, h_iret};
    for (unsigned i = 0; i < 20000; i++) {
        struct state state;
        gdt[SPARE_SELECTOR / 8] = random_next(&seed);
        gdt[SPARE_SELECTOR / 8 + 1] = random_next(&seed);
        state_init(&state, kinds[i % (sizeof kinds / sizeof *kinds)]);
        state.gpr[RAX] = i % 5 ? SPARE_SELECTOR + (i / 64 & 3) : (random_next(&seed) & 0xffff);
        state.gpr[RCX] = random_next(&seed) & 0x3c7fd7 & ~(uint64_t)(TF | IF);
        if ((state.gpr[RAX] & ~7ull) == TSS_SELECTOR)
            continue;
        run(&state);
        __asm__ volatile("mov %0, %%ds; mov %0, %%es; lldt %1" : : "r"(DATA_SELECTOR), "r"((uint16_t)0));
        write_cr0(read_cr0() & ~8ull);
    }
    wrmsr(0xc0000100, 0);
    check_true("random_descriptors", true);
}

SNIPPET(h_touch, "", "movq (%rbx), %rax\n movq %rax, (%rbx)");

/* The window's tables are random; the upper half of the space too. */
static void page_tables(void) {
    uint64_t *tables[4];
    for (unsigned i = 0; i < 4; i++)
        tables[i] = page_alloc();
    uint64_t *pml4 = (uint64_t *)(read_cr3() & ~0xfffull);
    for (unsigned round = 0; round < 300; round++) {
        for (unsigned t = 0; t < 4; t++) {
            for (unsigned i = 0; i < 512; i++) {
                uint64_t r = random_next(&seed);
                switch (r & 3) {
                case 0: tables[t][i] = random_next(&seed); break;
                case 1: tables[t][i] = (random_next(&seed) & 0xffffffffff000) | 0x67; break;
                case 2: tables[t][i] = (uint64_t)tables[r >> 8 & 3] | 0x67; break;
                default: tables[t][i] = (random_next(&seed) & 0x3000000000) | PAGE_PS | 0x67; break;
                }
            }
        }
        for (unsigned i = 2; i < 512; i++)
            pml4[i] = (uint64_t)tables[i & 3] | PAGE_P | PAGE_W | PAGE_U;
        write_cr3(read_cr3());
        for (unsigned i = 0; i < 50; i++) {
            struct state state;
            uint64_t r = random_next(&seed);
            state_init(&state, h_touch);
            state.gpr[RBX] = ((uint64_t)((int64_t)r >> 16) & ~0xfffull) | 0x10000000000 | (r & 0xff8);
            if ((state.gpr[RBX] >> 39 & 511) < 2)
                continue;
            run(&state);
            check_quiet("access_through_random_tables", state.vector == V_END || state.vector == V_PF ||
                        state.vector == V_GP, true);
        }
    }
    for (unsigned i = 2; i < 512; i++)
        pml4[i] = 0;
    write_cr3(read_cr3());
    check_true("random_page_tables", true);
}

SNIPPET(h_cr4, "mov %cr4, %rcx", "mov %rax, %cr4\n mov %rcx, %cr4");
SNIPPET(h_cr8, "", "mov %rax, %cr8\n xor %eax, %eax\n mov %rax, %cr8");
SNIPPET(h_xsetbv, "xor %ecx, %ecx", "xsetbv");
SNIPPET(h_dr3, "", "mov %rax, %dr3");

static void control_registers(void) {
    static const uint8_t *const kinds[] = {h_cr4, h_cr8, h_xsetbv, h_dr3};
    for (unsigned i = 0; i < 8000; i++) {
        struct state state;
        uint64_t keep = i % 4 == 0 ? 0x20 : 0; /* PAE */
        state_init(&state, kinds[i % 4]);
        state.gpr[RAX] = (random_next(&seed) >> (random_next(&seed) & 63)) | keep;
        if (i % 4 == 0)
            state.gpr[RAX] &= ~(uint64_t)(1 << 20 | 1 << 21 | 1 << 12 | 1 << 23 | 1 << 22 | 1 << 24 | 1 << 17);
        state.gpr[RDX] = random_next(&seed);
        run(&state);
        check_quiet("control_register_write", state.vector == V_END || state.vector == V_GP || state.vector == V_UD ||
                    state.vector == V_DB, true);
    }
    check_true("random_control_registers", true);
}

int main(void) {
    pic_init(0x30);
    apic_enable();
    device_memory();
    model_specific_registers();
    ports();
    descriptors();
    page_tables();
    control_registers();
    return 0;
}
