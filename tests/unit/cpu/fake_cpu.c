/*
 * The functions of cpu/access.h and cpu/mode.h over an array of pages; see fake_cpu.h. Compiled with general registers
 * only, as what it replaces is: the guest's vector state is live while it runs.
 */
#include "fake_cpu.h"

#include <stdlib.h>
#include <string.h>

#include "cpu/access.h"
#include "cpu/mode.h"
#include "cpu/views.h"

static struct fake_cpu *fake_of(struct cpu *cpu) {
    return (struct fake_cpu *)cpu;
}

/* ---- cpu/access.h ---- */

static enum cpu_result check_pages(struct cpu *cpu, uint64_t linear, unsigned size, unsigned access) {
    for (uint64_t page = linear >> 12; page <= (linear + size - 1) >> 12; page++) {
        if (page < FAKE_PAGES && fake_of(cpu)->page[page] != PAGE_ABSENT)
            continue;
        uint64_t at = page == linear >> 12 ? linear : page << 12;
        bool is_user = cpu->cpl == 3 && !(access & ACCESS_SYSTEM);
        return cpu_fault_page(cpu, at, ((access & ACCESS_KIND) == ACCESS_WRITE ? 2 : 0) | (is_user ? 4 : 0));
    }
    for (uint64_t page = linear >> 12; page <= (linear + size - 1) >> 12; page++)
        fake_of(cpu)->device_accesses += fake_of(cpu)->page[page] == PAGE_DEVICE;
    return CPU_NEXT;
}

enum cpu_result cpu_read_linear(struct cpu *cpu, uint64_t linear, void *to, unsigned size, unsigned access) {
    enum cpu_result result = check_pages(cpu, linear, size, access);
    if (result == CPU_NEXT)
        cpu_copy(to, fake_of(cpu)->memory + linear, size);
    return result;
}

enum cpu_result cpu_write_linear(struct cpu *cpu, uint64_t linear, const void *from, unsigned size, unsigned access) {
    enum cpu_result result = check_pages(cpu, linear, size, access | ACCESS_WRITE);
    if (result == CPU_NEXT)
        cpu_copy(fake_of(cpu)->memory + linear, from, size);
    return result;
}

enum cpu_result cpu_probe_linear(struct cpu *cpu, uint64_t linear, unsigned size, unsigned access) {
    unsigned count = fake_of(cpu)->device_accesses;
    enum cpu_result result = check_pages(cpu, linear, size, access);
    fake_of(cpu)->device_accesses = count;
    return result;
}

enum cpu_result cpu_linear(struct cpu *cpu, unsigned segment, uint64_t offset, unsigned size, unsigned access,
                           uint64_t *linear) {
    const struct trapeze_segment *s = &cpu->segment[segment];
    (void)access;
    if (cpu_is_64bit(cpu)) {
        *linear = offset + (segment >= CPU_FS ? s->base : 0);
        return CPU_NEXT;
    }
    if ((s->attributes & SEGMENT_UNUSABLE) || offset + size - 1 > s->limit) {
        cpu_fault_code(cpu, segment == CPU_SS ? VECTOR_SS : VECTOR_GP, 0);
        return CPU_FAULT;
    }
    *linear = (uint32_t)(s->base + offset);
    return CPU_NEXT;
}

enum cpu_result cpu_check_alignment(struct cpu *cpu, uint64_t linear, unsigned size, unsigned access) {
    (void)cpu, (void)linear, (void)size, (void)access;
    return CPU_NEXT;
}

enum cpu_result cpu_read(struct cpu *cpu, unsigned segment, uint64_t offset, void *to, unsigned size) {
    uint64_t linear;
    enum cpu_result result = cpu_linear(cpu, segment, offset, size, ACCESS_READ, &linear);
    return result == CPU_NEXT ? cpu_read_linear(cpu, linear, to, size, ACCESS_READ) : result;
}

enum cpu_result cpu_write(struct cpu *cpu, unsigned segment, uint64_t offset, const void *from, unsigned size) {
    uint64_t linear;
    enum cpu_result result = cpu_linear(cpu, segment, offset, size, ACCESS_WRITE, &linear);
    return result == CPU_NEXT ? cpu_write_linear(cpu, linear, from, size, ACCESS_WRITE) : result;
}

enum cpu_result cpu_read_integer(struct cpu *cpu, unsigned segment, uint64_t offset, unsigned size, uint64_t *value) {
    *value = 0;
    return cpu_read(cpu, segment, offset, value, size);
}

enum cpu_result cpu_write_integer(struct cpu *cpu, unsigned segment, uint64_t offset, unsigned size, uint64_t value) {
    return cpu_write(cpu, segment, offset, &value, size);
}

enum cpu_result cpu_host_pointer(struct cpu *cpu, uint64_t linear, unsigned access, size_t *length, void **pointer) {
    unsigned count = fake_of(cpu)->device_accesses;
    enum cpu_result result = check_pages(cpu, linear, 1, access);
    fake_of(cpu)->device_accesses = count;
    if (result != CPU_NEXT)
        return result;
    if (*length > 4096 - (linear & 4095))
        *length = 4096 - (linear & 4095);
    *pointer = fake_of(cpu)->page[linear >> 12] == PAGE_RAM ? fake_of(cpu)->memory + linear : NULL;
    return CPU_NEXT;
}

/* There is no translated code here: what is not plain memory has nothing to write to. */
enum cpu_result cpu_locate(struct cpu *cpu, uint64_t linear, unsigned access, struct cpu_place *place) {
    (void)cpu, (void)linear, (void)access;
    *place = (struct cpu_place){0};
    return CPU_NEXT;
}

void cpu_code_written(struct cpu *cpu, struct memory_region *region, guest_physical address, unsigned size) {
    (void)cpu, (void)region, (void)address, (void)size;
    abort();
}

uint64_t cpu_physical_read(struct cpu *cpu, guest_physical address, unsigned size) {
    return fake_get(fake_of(cpu), address.value, size);
}

void cpu_flush_page(struct cpu *cpu, uint64_t linear) {
    fake_of(cpu)->flushes_page++;
    fake_of(cpu)->flushed = linear;
}

void cpu_flush_address_space(struct cpu *cpu, bool keep_global) {
    fake_of(cpu)->flushes_space++;
    fake_of(cpu)->kept_global = keep_global;
}

void cpu_flush_all(struct cpu *cpu) {
    fake_of(cpu)->flushes_all++;
}

static void note_port(struct fake_cpu *fake, uint16_t port, unsigned size, bool is_write, uint64_t value) {
    ck_assert_uint_lt(fake->port_count, 64);
    fake->ports[fake->port_count].port = port;
    fake->ports[fake->port_count].size = (uint8_t)size;
    fake->ports[fake->port_count].is_write = is_write;
    fake->ports[fake->port_count++].value = (uint32_t)value;
}

uint64_t cpu_port_read(struct cpu *cpu, uint16_t port, unsigned size) {
    uint64_t value = fake_of(cpu)->port_value++;
    note_port(fake_of(cpu), port, size, false, value);
    return value;
}

void cpu_port_write(struct cpu *cpu, uint16_t port, unsigned size, uint64_t value) {
    note_port(fake_of(cpu), port, size, true, value);
}

/* ---- cpu/mode.h ---- */

void cpu_segment_changed(struct cpu *cpu, unsigned segment) {
    cpu->hot.segment[segment].base = cpu->segment[segment].base;
}

void cpu_mode_changed(struct cpu *cpu) {
    fake_of(cpu)->mode_changes++;
}

void cpu_control_changed(struct cpu *cpu) {
    cpu_mode_changed(cpu);
}

void cpu_x87_changed(struct cpu *cpu) {
    cpu_mode_changed(cpu);
}

void cpu_level_changed(struct cpu *cpu) {
    cpu_mode_changed(cpu);
}

/* ---- The interrupt controller ---- */

static unsigned get_tpr(void *opaque) {
    return ((struct fake_cpu *)opaque)->tpr;
}

static void set_tpr(void *opaque, unsigned tpr) {
    ((struct fake_cpu *)opaque)->tpr = tpr;
}

static bool read_controller_msr(void *opaque, uint32_t index, uint64_t *value) {
    *value = ((struct fake_cpu *)opaque)->apic_base;
    return index == 0x1b;
}

static bool write_controller_msr(void *opaque, uint32_t index, uint64_t value) {
    if (index == 0x1b)
        ((struct fake_cpu *)opaque)->apic_base = value;
    return index == 0x1b;
}

/* ---- The guest ---- */

static uint64_t call_full(struct cpu *cpu, uint64_t (*fn)(void *arg), void *arg) {
    (void)cpu;
    return fn(arg);
}

void fake_put(struct fake_cpu *fake, uint64_t linear, uint64_t value, unsigned size) {
    memcpy(fake->memory + linear, &value, size);
}

uint64_t fake_get(const struct fake_cpu *fake, uint64_t linear, unsigned size) {
    uint64_t value = 0;
    memcpy(&value, fake->memory + linear, size);
    return value;
}

static void set_mode(struct fake_cpu *fake, enum fake_mode mode) {
    struct cpu *cpu = &fake->cpu;
    bool is_16bit = mode == FAKE_REAL || mode == FAKE_VM86;
    for (unsigned i = 0; i < CPU_SEGMENTS; i++)
        cpu->segment[i] = (struct trapeze_segment){.limit = is_16bit ? 0xffff : 0xffffffff,
                                                   .attributes = is_16bit ? 0x93 : 0xc093};
    if (mode == FAKE_LONG0 || mode == FAKE_LONG3) {
        cpu->segment[CPU_CS].attributes = 0xa09b;
        cpu->msr.efer = EFER_LME | EFER_LMA;
        cpu->cr0 = CR0_PG;
        cpu->cr4 = CR4_PAE;
    }
    cpu->cr0 |= CR0_ET | (mode == FAKE_REAL ? 0 : CR0_PE);
    cpu->hot.rflags = FLAG_FIXED | (mode == FAKE_VM86 ? FLAG_VM : 0);
    cpu->cpl = mode == FAKE_RING3 || mode == FAKE_VM86 || mode == FAKE_LONG3 ? 3 : 0;
}

struct fake_cpu *fake_cpu_create(enum fake_mode mode, const char *model) {
    struct fake_cpu *fake = aligned_alloc(4096, (sizeof *fake + 4095) & ~4095ull);
    char error[128] = "";
    memset(fake, 0, sizeof *fake);
    fake->cpu.model = cpu_model_create(model, 1, error, sizeof error, NULL, NULL);
    ck_assert_msg(fake->cpu.model, "%s: %s", model, error);
    fake->cpu.call_full = call_full;
    fake->cpu.interrupt_controller = (struct trapeze_interrupt_controller){.get_tpr = get_tpr,
                                                                           .set_tpr = set_tpr,
                                                                           .read_msr = read_controller_msr,
                                                                           .write_msr = write_controller_msr,
                                                                           .opaque = fake};
    fake->apic_base = 0xfee00900;
    fake->cpu.tr = (struct trapeze_segment){.base = FAKE_TSS, .limit = 0x67, .attributes = 0x8b};
    fake->cpu.xcr0 = 1;
    fake->cpu.dr[7] = 0x400;
    set_mode(fake, mode);
    static const struct trapeze_config config;
    fake->cpu.config = &config;
    fake->cpu.hot.run = 1;
    fake->cpu.hot.rip = FAKE_CODE;
    cpu_rsp(&fake->cpu) = FAKE_STACK;
    return fake;
}

void fake_cpu_destroy(struct fake_cpu *fake) {
    cpu_model_destroy((struct cpu_model *)fake->cpu.model);
    free(fake);
}

struct cpu_op fake_instruction(const struct fake_cpu *fake, unsigned size) {
    bool is_64bit = cpu_is_64bit(&fake->cpu);
    uint8_t width = is_64bit ? 8 : fake->cpu.segment[CPU_CS].attributes & SEGMENT_DB ? 4 : 2;
    return (struct cpu_op){
        .length = 2,
        .size = (uint8_t)size,
        .address_size = width,
        .code_size = width,
        .rm = CPU_NO_REGISTER,
        .base = CPU_NO_REGISTER,
        .index = CPU_NO_REGISTER,
        .segment = CPU_DS,
        .scale = 1,
    };
}

struct cpu_op fake_memory_operand(const struct fake_cpu *fake, unsigned size, uint64_t address) {
    struct cpu_op op = fake_instruction(fake, size);
    op.displacement = (int64_t)address;
    return op;
}

int fake_vector(const struct fake_cpu *fake, enum cpu_result result) {
    return result == CPU_FAULT ? fake->cpu.exception.vector : -1;
}

int fake_cpu_run(TCase *tests) {
    Suite *suite = suite_create("cpu");
    SRunner *runner = srunner_create(suite);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
