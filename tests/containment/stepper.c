/*
 * See stepper.h. The trap flag is set where the stubs go to translated code: breakpoints lie there on their last jump,
 * which the handler makes up for. It is cleared where translated code has called a stub.
 */
#include "tests/containment/stepper.h"

#include <Zydis/Zydis.h>
#include <asm/prctl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "memory/window.h"

enum { FLAG_TRAP = 1 << 8, INT3 = 0xcc };

/* A signal handler gets at nothing but file scope. */
static struct {
    struct trapeze_machine *machine;
    struct stepper *stepper;
    ZydisDecoder decoder;
    uint64_t previous;
} watch;

static const struct engine *engine(void) {
    return &watch.machine->engine;
}

static struct cpu *vcpu(void) {
    return watch.machine->vcpu[0]->cpu;
}

static bool is_in(uint64_t at, uint64_t size, uint64_t start, uint64_t length) {
    return at - start < length && size <= length - (at - start);
}

/* ---- The instruction's accesses ---- */

static uint64_t value_of(const greg_t *regs, ZydisRegister reg) {
    static const int order[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    return (uint64_t)regs[order[ZydisRegisterGetId(reg)]];
}

static uint64_t host_gs(void) {
    uint64_t base = 0;
    syscall(SYS_arch_prctl, ARCH_GET_GS, &base);
    return base;
}

/* BT and its kin with a register as offset reach the element that holds the bit. */
static uint64_t bit_distance(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *operand, const greg_t *regs) {
    bool is_bit = z->mnemonic == ZYDIS_MNEMONIC_BT || z->mnemonic == ZYDIS_MNEMONIC_BTS ||
                  z->mnemonic == ZYDIS_MNEMONIC_BTR || z->mnemonic == ZYDIS_MNEMONIC_BTC;
    if (!is_bit || operand[1].type != ZYDIS_OPERAND_TYPE_REGISTER)
        return 0;
    unsigned width = z->operand_width;
    ZydisRegister whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, operand[1].reg.value);
    int64_t offset = (int64_t)(value_of(regs, whole) << (64 - width)) >> (64 - width);
    return (uint64_t)(offset >> (width == 64 ? 6 : width == 32 ? 5 : 4)) * (width / 8);
}

static uint64_t address_of_operand(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *operand,
                                   const greg_t *regs) {
    const ZydisDecodedOperandMem *mem = &operand->mem;
    uint64_t address = mem->disp.has_displacement ? (uint64_t)mem->disp.value : 0;
    ZydisMachineMode mode = ZYDIS_MACHINE_MODE_LONG_64;
    if (mem->base != ZYDIS_REGISTER_NONE)
        address += value_of(regs, ZydisRegisterGetLargestEnclosing(mode, mem->base));
    if (mem->index != ZYDIS_REGISTER_NONE)
        address += value_of(regs, ZydisRegisterGetLargestEnclosing(mode, mem->index)) * mem->scale;
    if (z->address_width == 32)
        address &= 0xffffffff;
    return mem->segment == ZYDIS_REGISTER_GS ? address + host_gs() : address;
}

/* ---- Where they may go ---- */

static bool is_guest_memory(uint64_t at, uint64_t size) {
    const struct machine_memory *memory = &watch.machine->memory;
    for (unsigned i = 0; i < memory->count; i++) {
        struct memory_region *region = (struct memory_region *)&memory->region[i];
        if (is_in(at, size, (uint64_t)memory_host(region, guest_physical_at(region->base)), region->length))
            return true;
    }
    return false;
}

static bool is_window(uint64_t at, uint64_t size) {
    const struct window *window = vcpu()->hot.view->window;
    for (unsigned i = 0; window && i < window->region_count; i++) {
        uint64_t start = window->region[i].linear + window->addend[window->region[i].group];
        if (is_in(at, size, start - WINDOW_GUARD, window_region_size(window) + 2 * WINDOW_GUARD))
            return true;
    }
    return false;
}

static bool is_shadow_stack(uint64_t at, uint64_t size) {
    const struct cpu_translator *translator = cpu_translator(vcpu());
    for (unsigned i = 0; i < SHADOW_STACKS; i++) {
        uint64_t guard = translator->stack_limit[i] - MEMORY_PAGE;
        if (is_in(at, size, guard, translator->stack_base[i] + 64 - guard))
            return true;
    }
    return false;
}

static bool is_bounce(uint64_t at, uint64_t size) {
    const struct cpu_translator *translator = cpu_translator(vcpu());
    uint64_t joined = (uint64_t)translator->joined;
    /* C code knows it in front of the view that was current. */
    uint64_t cpu = (uint64_t)vcpu()->hot.view->tables - sizeof(struct cpu);
    uint64_t bounce = cpu + ((uint64_t)translator->bounce - (uint64_t)vcpu());
    return is_in(at, size, bounce, sizeof translator->bounce) ||
           (joined && is_in(at, size, joined, 2 * MEMORY_PAGE));
}

/* Entries of the tables that checks read: the host refuses those of no region. */
static bool is_refused_check(const struct view *view, uint64_t at) {
    if (!view->has_checks || !view_is_in_checks(view, at))
        return false;
    for (unsigned i = 0; view->window && i < view->window->region_count; i++)
        for (unsigned table = 0; table < VIEW_CHECK_TABLES; table++)
            if (at - (uint64_t)view_check_page(view, table, view->window->region[i].linear) < MEMORY_PAGE)
                return false;
    return true;
}

static void judge(const ZydisDecodedOperand *operand, uint64_t rip, uint64_t at, uint64_t size) {
    struct stepper *stepper = watch.stepper;
    const struct view *view = vcpu()->hot.view;
    if (operand->mem.base == ZYDIS_REGISTER_R13 && is_refused_check(view, at))
        stepper->refused++;
    else if (operand->mem.base == ZYDIS_REGISTER_R13 && is_in(at, size, (uint64_t)view->reservation, view->reservation_size))
        stepper->in_state++;
    else if (operand->mem.base == ZYDIS_REGISTER_RSP && is_shadow_stack(at, size))
        stepper->on_stack++;
    else if (is_guest_memory(at, size))
        stepper->in_memory++;
    else if (is_window(at, size))
        stepper->in_windows++;
    else if (is_bounce(at, size))
        stepper->in_bounce++;
    else if (at >> 47)
        stepper->refused++;
    else if (stepper->violations++ == 0)
        snprintf(stepper->first, sizeof stepper->first, "translated code at %llx accesses %llu bytes at %llx",
                 (unsigned long long)rip, (unsigned long long)size, (unsigned long long)at);
}

static bool is_masked(const ZydisDecodedInstruction *z) {
    return z->mnemonic == ZYDIS_MNEMONIC_VMASKMOVPS || z->mnemonic == ZYDIS_MNEMONIC_VMASKMOVPD ||
           z->mnemonic == ZYDIS_MNEMONIC_VPMASKMOVD || z->mnemonic == ZYDIS_MNEMONIC_VPMASKMOVQ ||
           z->avx.mask.mode > ZYDIS_MASK_MODE_DISABLED;
}

static void look_at(uint64_t rip, const greg_t *regs) {
    ZydisDecodedInstruction z;
    ZydisDecodedOperand operand[ZYDIS_MAX_OPERAND_COUNT];
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&watch.decoder, (const void *)rip, 15, &z, operand)))
        return; /* the host refuses it, too */
    if (z.mnemonic == ZYDIS_MNEMONIC_NOP)
        return;
    bool repeats = z.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE);
    if (repeats && !regs[REG_RCX])
        return;
    for (unsigned i = 0; i < z.operand_count; i++) {
        if (operand[i].type != ZYDIS_OPERAND_TYPE_MEMORY || operand[i].mem.type == ZYDIS_MEMOP_TYPE_AGEN)
            continue;
        uint64_t at = address_of_operand(&z, &operand[i], regs), size = operand[i].size / 8;
        bool pushes = operand[i].mem.base == ZYDIS_REGISTER_RSP && (operand[i].actions & ZYDIS_OPERAND_ACTION_WRITE) &&
                      operand[i].visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN;
        if (pushes)
            at -= 8;
        if (i == 0)
            at += bit_distance(&z, operand, regs);
        /* A line is flushed by any byte of it; of a masked operand only active bytes are touched. */
        if (z.mnemonic == ZYDIS_MNEMONIC_CLFLUSH || z.mnemonic == ZYDIS_MNEMONIC_CLFLUSHOPT ||
            z.mnemonic == ZYDIS_MNEMONIC_CLWB || is_masked(&z))
            size = 1;
        judge(&operand[i], rip, at, size);
    }
}

/* ---- Stepping ---- */

/* The stubs that save everything and call a C function; those behind them only look into the jump cache. */
static bool is_way_out(uint64_t rip) {
    return rip - (uint64_t)engine()->cache.execute < engine()->stubs.returned - (uint64_t)engine()->cache.execute;
}

static bool is_stub(uint64_t rip) {
    return rip - (uint64_t)engine()->cache.execute < engine()->cache.stub_size;
}

static void on_trap(int number, siginfo_t *info, void *argument) {
    greg_t *regs = ((ucontext_t *)argument)->uc_mcontext.gregs;
    uint64_t rip = (uint64_t)regs[REG_RIP];
    (void)number;
    if (info->si_code == SI_KERNEL) { /* a breakpoint of ours */
        if (rip == engine()->stubs.helped + 1) {
            regs[REG_RIP] = *(greg_t *)regs[REG_RSP];
            regs[REG_RSP] += 8;
        } else {
            regs[REG_RIP] = (greg_t)vcpu()->hot.raw[0];
        }
        regs[REG_EFL] |= FLAG_TRAP;
        rip = (uint64_t)regs[REG_RIP];
    }
    if (is_way_out(rip) || !code_cache_holds(&engine()->cache, rip))
        regs[REG_EFL] &= ~(greg_t)FLAG_TRAP;
    if (!code_cache_holds(&engine()->cache, rip) && watch.stepper->violations++ == 0)
        snprintf(watch.stepper->first, sizeof watch.stepper->first, "translated code at %llx went to %llx",
                 (unsigned long long)watch.previous, (unsigned long long)rip);
    watch.previous = rip;
    if (is_stub(rip) || !code_cache_holds(&engine()->cache, rip))
        return; /* stubs save and restore state, the same for every guest */
    watch.stepper->steps++;
    look_at(rip, regs);
}

/* How ways out go back to translated code: jmp [R + hot.raw], and the RET behind a C function that ran an instruction. */
static unsigned patch_stubs(struct code_cache *cache) {
    const int32_t offset = R_STATE(hot.raw);
    uint8_t jump[7] = {0x41, 0xff, 0xa5};
    unsigned count = 0;
    memcpy(jump + 3, &offset, sizeof offset);
    for (uint32_t i = 0; i + sizeof jump <= cache->stub_size; i++) {
        if (memcmp(cache->write + i, jump, sizeof jump) != 0)
            continue;
        cache->write[i] = INT3;
        count++;
    }
    cache->write[engine()->stubs.helped - (uint64_t)cache->execute] = INT3;
    return count;
}

bool stepper_watch(struct trapeze_machine *machine, struct stepper *stepper) {
    struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    watch.machine = machine;
    watch.stepper = stepper;
    ZydisDecoderInit(&watch.decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    sigemptyset(&action.sa_mask);
    sigaction(SIGTRAP, &action, NULL);
    return patch_stubs(&machine->engine.cache) > 0;
}
