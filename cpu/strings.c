/*
 * MOVS, CMPS, STOS, LODS, SCAS with and without repetition (SDM vol. 2A, REP).
 *
 * Work goes in chunks that stay inside one page for each operand; the host runs the same instruction on them, so that
 * overlapping operands and flags come out as they must. Devices and elements that cross a page go element by element; what
 * is stored over translated code is told once for the chunk. Registers are up to date after each chunk: a fault finds them as the manual says.
 */
#include "cpu/access.h"
#include "cpu/model.h"
#include "cpu/ops.h"
#include "cpu/string_loop.h"
#include "cpu/views.h"
#include "cpu/watch.h"
#include "memory/view.h"

#define PAGE 4096u

struct operand {
    unsigned segment, index, access;
    uint8_t *host; /* first element, or NULL */
    struct memory_region *code; /* of a page with translated code, whose new bytes must be told; NULL: none */
    guest_physical physical;    /* of the first element there */
};

struct chunk {
    uint64_t elements;
    bool is_done; /* the condition of REPE or REPNE ended the repetition */
};

/* How many elements from `linear` on, in the string's direction, lie in its page; 0 when the first crosses. */
static uint64_t elements_in_page(const struct string *string, uint64_t linear) {
    unsigned offset = (unsigned)linear & (PAGE - 1);
    if (offset + string->size > PAGE)
        return 0;
    return string->is_backward ? (offset >> string->shift) + 1 : (PAGE - offset) >> string->shift;
}

/* How many elements before the index register wraps around. */
static uint64_t elements_before_wrap(const struct string *string, uint64_t offset) {
    if (string->is_backward)
        return (offset >> string->shift) + 1;
    uint64_t left = (string->mask - offset) >> string->shift;
    return left == ~0ull ? left : left + 1;
}

static uint64_t lower(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

/* The same for what the current view has an entry for, upwards: no more to be asked. */
static bool locate_known(const struct string *string, struct operand *operand, uint64_t offset, uint64_t *elements) {
    if (!string->is_plain || string->is_backward || operand->segment >= CPU_FS)
        return false;
    uint64_t n = lower(*elements, elements_in_page(string, offset));
    operand->host = view_lookup(string->cpu->hot.view, offset, string->size, operand->access == ACCESS_WRITE);
    if (!n || !operand->host)
        return false;
    *elements = n;
    return true;
}

/* A page with translated code: a kernel that clears or fills it writes all of it. */
static enum cpu_result locate_code(const struct string *string, struct operand *operand, uint64_t linear) {
    struct cpu *cpu = string->cpu;
    struct cpu_place place;
    if (operand->access != ACCESS_WRITE || string->is_backward || cpu_is_watching(cpu))
        return CPU_NEXT;
    enum cpu_result result = cpu_locate(cpu, linear, operand->access, &place);
    if (result != CPU_NEXT || !place.host || place.is_direct || (place.region->flags & TRAPEZE_MEMORY_READ_ONLY))
        return result;
    operand->host = place.host;
    operand->code = place.region;
    operand->physical = place.physical;
    return CPU_NEXT;
}

static void tell_of_code(const struct string *string, const struct operand *to, uint64_t elements) {
    if (to->code)
        cpu_code_written(string->cpu, to->code, to->physical, (unsigned)(elements * string->size));
}

/*
 * Finds an operand's host memory and lowers *elements to what is contiguous there; host is NULL where the operand must
 * be accessed element by element. Faults are those of the first element, all of it: a device that is the source must not
 * be read where the store then faults.
 */
static enum cpu_result locate(const struct string *string, struct operand *operand, uint64_t *elements) {
    struct cpu *cpu = string->cpu;
    uint64_t offset = string_index(string, operand->index), linear, last;
    unsigned size = string->size;
    if (locate_known(string, operand, offset, elements))
        return CPU_NEXT;
    operand->host = NULL;
    operand->code = NULL;
    enum cpu_result result = cpu_linear(cpu, operand->segment, offset, size, operand->access, &linear);
    if (result == CPU_NEXT)
        result = cpu_check_alignment(cpu, linear, size, operand->access);
    if (result != CPU_NEXT)
        return result;
    uint64_t n = lower(lower(*elements, elements_in_page(string, linear)), elements_before_wrap(string, offset));
    if (!n) {
        *elements = 1;
        return cpu_probe_linear(cpu, linear, size, operand->access);
    }
    uint64_t distance = (n - 1) * size;
    uint64_t last_offset = string->is_backward ? offset - distance : offset + distance;
    if (cpu_linear(cpu, operand->segment, last_offset, size, operand->access, &last) != CPU_NEXT)
        n = 1, last = linear; /* the segment ends on the way */
    uint64_t first = string->is_backward ? last : linear;
    if (string->is_backward) { /* the fault is that of the first element, not of the lowest */
        result = cpu_probe_linear(cpu, linear, size, operand->access);
        if (result != CPU_NEXT)
            return result;
    }
    size_t length = n * size;
    void *host = NULL;
    result = cpu_host_pointer(cpu, first, operand->access, &length, &host);
    if (result != CPU_NEXT)
        return result;
    if (host)
        operand->host = (uint8_t *)host + (linear - first);
    else
        result = locate_code(string, operand, linear);
    *elements = operand->host ? n : 1;
    return result;
}

/* ---- The host's own instructions ---- */

/* One string instruction of each size on host memory, in the direction of DF. The host's DF is clear in C code. */
#define RUN_SIZES(size, is_backward, b, w, l, q, ...)                                                                  \
    do {                                                                                                               \
        if (is_backward)                                                                                               \
            switch (size) {                                                                                            \
            case 1: __asm__ volatile("std\n\t" b "\n\tcld" __VA_ARGS__); break;                                        \
            case 2: __asm__ volatile("std\n\t" w "\n\tcld" __VA_ARGS__); break;                                        \
            case 4: __asm__ volatile("std\n\t" l "\n\tcld" __VA_ARGS__); break;                                        \
            default: __asm__ volatile("std\n\t" q "\n\tcld" __VA_ARGS__); break;                                       \
            }                                                                                                          \
        else                                                                                                           \
            switch (size) {                                                                                            \
            case 1: __asm__ volatile(b __VA_ARGS__); break;                                                            \
            case 2: __asm__ volatile(w __VA_ARGS__); break;                                                            \
            case 4: __asm__ volatile(l __VA_ARGS__); break;                                                            \
            default: __asm__ volatile(q __VA_ARGS__); break;                                                           \
            }                                                                                                          \
    } while (0)

static void host_movs(const struct string *string, void *to, const void *from, uint64_t n) {
    RUN_SIZES(string->size, string->is_backward, "rep movsb", "rep movsw", "rep movsl", "rep movsq",
              : "+D"(to), "+S"(from), "+c"(n) : : "memory", "cc");
}

static void host_stos(const struct string *string, void *to, uint64_t value, uint64_t n) {
    RUN_SIZES(string->size, string->is_backward, "rep stosb", "rep stosw", "rep stosl", "rep stosq",
              : "+D"(to), "+c"(n) : "a"(value) : "memory", "cc");
}

/* SF, ZF, AF, PF, CF in AH and OF in AL, as the asm below leaves them. */
static uint64_t captured_flags(uint64_t rax) {
    uint64_t flags = rax >> 8 & (FLAG_SF | FLAG_ZF | FLAG_AF | FLAG_PF | FLAG_CF);
    return rax & 1 ? flags | FLAG_OF : flags;
}

#define CAPTURE "\n\tlahf\n\tseto %%al"

/* Elements compared; *flags are those of the last. */
static uint64_t host_cmps(const struct string *string, const void *a, const void *b, uint64_t n, bool until_equal,
                          uint64_t *flags) {
    uint64_t left = n, rax;
    if (until_equal)
        RUN_SIZES(string->size, string->is_backward, "repne cmpsb" CAPTURE, "repne cmpsw" CAPTURE,
                  "repne cmpsl" CAPTURE, "repne cmpsq" CAPTURE,
                  : "+S"(a), "+D"(b), "+c"(left), "=&a"(rax) : : "memory", "cc");
    else
        RUN_SIZES(string->size, string->is_backward, "repe cmpsb" CAPTURE, "repe cmpsw" CAPTURE, "repe cmpsl" CAPTURE,
                  "repe cmpsq" CAPTURE, : "+S"(a), "+D"(b), "+c"(left), "=&a"(rax) : : "memory", "cc");
    *flags = captured_flags(rax);
    return n - left;
}

static uint64_t host_scas(const struct string *string, uint64_t value, const void *at, uint64_t n, bool until_equal,
                          uint64_t *flags) {
    uint64_t left = n, rax = value;
    if (until_equal)
        RUN_SIZES(string->size, string->is_backward, "repne scasb" CAPTURE, "repne scasw" CAPTURE,
                  "repne scasl" CAPTURE, "repne scasq" CAPTURE, : "+D"(at), "+c"(left), "+a"(rax) : : "memory", "cc");
    else
        RUN_SIZES(string->size, string->is_backward, "repe scasb" CAPTURE, "repe scasw" CAPTURE, "repe scasl" CAPTURE,
                  "repe scasq" CAPTURE, : "+D"(at), "+c"(left), "+a"(rax) : : "memory", "cc");
    *flags = captured_flags(rax);
    return n - left;
}

/* ---- One chunk of each instruction ---- */

/* Reads one element by the slow way, or from host memory. */
static enum cpu_result read_element(const struct string *string, const struct operand *operand, uint64_t *value) {
    *value = 0;
    if (operand->host) {
        cpu_copy(value, operand->host, string->size);
        return CPU_NEXT;
    }
    return cpu_read_integer(string->cpu, operand->segment, string_index(string, operand->index), string->size, value);
}

static enum cpu_result movs_chunk(const struct string *string, struct chunk *chunk) {
    struct operand from = {.segment = string->op->segment, .index = CPU_RSI, .access = ACCESS_READ};
    struct operand to = {.segment = CPU_ES, .index = CPU_RDI, .access = ACCESS_WRITE};
    enum cpu_result result = locate(string, &from, &chunk->elements);
    if (result == CPU_NEXT)
        result = locate(string, &to, &chunk->elements);
    if (result != CPU_NEXT)
        return result;
    if (from.host && to.host) {
        host_movs(string, to.host, from.host, chunk->elements);
        tell_of_code(string, &to, chunk->elements);
    } else {
        uint64_t value;
        chunk->elements = 1;
        result = read_element(string, &from, &value);
        if (result == CPU_NEXT)
            result = cpu_write_integer(string->cpu, CPU_ES, string_index(string, CPU_RDI), string->size, value);
        if (result != CPU_NEXT)
            return result;
    }
    string_advance(string, CPU_RSI, chunk->elements);
    string_advance(string, CPU_RDI, chunk->elements);
    return CPU_NEXT;
}

static enum cpu_result stos_chunk(const struct string *string, struct chunk *chunk) {
    struct operand to = {.segment = CPU_ES, .index = CPU_RDI, .access = ACCESS_WRITE};
    uint64_t value = string->cpu->hot.gpr[CPU_RAX];
    enum cpu_result result = locate(string, &to, &chunk->elements);
    if (result != CPU_NEXT)
        return result;
    if (to.host) {
        host_stos(string, to.host, value, chunk->elements);
        tell_of_code(string, &to, chunk->elements);
    } else {
        result = cpu_write_integer(string->cpu, CPU_ES, string_index(string, CPU_RDI), string->size, value);
        if (result != CPU_NEXT)
            return result;
    }
    string_advance(string, CPU_RDI, chunk->elements);
    return CPU_NEXT;
}

static enum cpu_result lods_chunk(const struct string *string, struct chunk *chunk) {
    struct operand from = {.segment = string->op->segment, .index = CPU_RSI, .access = ACCESS_READ};
    uint64_t value;
    enum cpu_result result = locate(string, &from, &chunk->elements);
    if (result != CPU_NEXT)
        return result;
    if (from.host) { /* memory has no side effects: only the last element counts */
        uint64_t distance = (chunk->elements - 1) * string->size;
        from.host = string->is_backward ? from.host - distance : from.host + distance;
    }
    result = read_element(string, &from, &value);
    if (result != CPU_NEXT)
        return result;
    cpu_set_gpr(string->cpu, CPU_RAX, string->size, false, value);
    string_advance(string, CPU_RSI, chunk->elements);
    return CPU_NEXT;
}

/* Sets the flags of a comparison, and ends the repetition where its condition fails. */
static void compared(const struct string *string, struct chunk *chunk, uint64_t flags) {
    uint64_t *rflags = &string->cpu->hot.rflags;
    *rflags = (*rflags & ~(uint64_t)FLAG_ARITHMETIC) | flags;
    chunk->is_done = ((flags & FLAG_ZF) != 0) == (string->op->rep == CPU_REPNE);
}

static enum cpu_result cmps_chunk(const struct string *string, struct chunk *chunk) {
    struct operand first = {.segment = string->op->segment, .index = CPU_RSI, .access = ACCESS_READ};
    struct operand second = {.segment = CPU_ES, .index = CPU_RDI, .access = ACCESS_READ};
    uint64_t a, b, flags;
    /* The manuals leave the order open. Processors look at the operand in ES first (MOVS has it the other way round), but
       for AMD's REPE CMPSB (measured on Zen 4). */
    bool is_swapped = string->op->rep == CPU_REP && string->size == 1 && cpu_model_is_amd(string->cpu->model);
    enum cpu_result result = locate(string, is_swapped ? &first : &second, &chunk->elements);
    if (result == CPU_NEXT)
        result = locate(string, is_swapped ? &second : &first, &chunk->elements);
    if (result != CPU_NEXT)
        return result;
    bool until_equal = string->op->rep == CPU_REPNE;
    if (first.host && second.host) {
        chunk->elements = host_cmps(string, first.host, second.host, chunk->elements, until_equal, &flags);
    } else {
        chunk->elements = 1;
        result = read_element(string, &first, &a);
        if (result == CPU_NEXT)
            result = read_element(string, &second, &b);
        if (result != CPU_NEXT)
            return result;
        struct string one = *string;
        one.is_backward = false;
        host_cmps(&one, &a, &b, 1, until_equal, &flags);
    }
    compared(string, chunk, flags);
    string_advance(string, CPU_RSI, chunk->elements);
    string_advance(string, CPU_RDI, chunk->elements);
    return CPU_NEXT;
}

static enum cpu_result scas_chunk(const struct string *string, struct chunk *chunk) {
    struct operand at = {.segment = CPU_ES, .index = CPU_RDI, .access = ACCESS_READ};
    uint64_t element, flags, value = string->cpu->hot.gpr[CPU_RAX];
    enum cpu_result result = locate(string, &at, &chunk->elements);
    if (result != CPU_NEXT)
        return result;
    bool until_equal = string->op->rep == CPU_REPNE;
    if (at.host) {
        chunk->elements = host_scas(string, value, at.host, chunk->elements, until_equal, &flags);
    } else {
        result = read_element(string, &at, &element);
        if (result != CPU_NEXT)
            return result;
        struct string one = *string;
        one.is_backward = false;
        host_scas(&one, value, &element, 1, until_equal, &flags);
    }
    compared(string, chunk, flags);
    string_advance(string, CPU_RDI, chunk->elements);
    return CPU_NEXT;
}

/* ---- The loop that all of them share ---- */

typedef enum cpu_result chunk_function(const struct string *string, struct chunk *chunk);

static enum cpu_result repeat(struct cpu *cpu, const struct cpu_op *op, chunk_function *run) {
    struct string string;
    string_begin(&string, cpu, op, op->size);
    bool steps = cpu->hot.rflags & FLAG_TF;
    uint64_t flags = cpu->hot.rflags;
    while (string.count) {
        struct chunk chunk = {.elements = steps ? 1 : lower(string.count, STRING_MAX_BYTES)};
        enum cpu_result result = run(&string, &chunk);
        if (result != CPU_NEXT) {
            /* A fault finds those from before the instruction (SDM vol. 2B, REP); on AMD's processors, those of the last
               comparison (measured on Zen 4). */
            if (!cpu_model_is_amd(cpu->model))
                cpu->hot.rflags = flags;
            return result;
        }
        string_count(&string, chunk.elements);
        if (chunk.is_done)
            break;
        if (string_gives_way(&string))
            return string_pause(&string);
    }
    return CPU_NEXT;
}

enum cpu_result cpu_op_movs(struct cpu *cpu, const struct cpu_op *op) {
    return repeat(cpu, op, movs_chunk);
}

enum cpu_result cpu_op_stos(struct cpu *cpu, const struct cpu_op *op) {
    return repeat(cpu, op, stos_chunk);
}

enum cpu_result cpu_op_lods(struct cpu *cpu, const struct cpu_op *op) {
    return repeat(cpu, op, lods_chunk);
}

enum cpu_result cpu_op_cmps(struct cpu *cpu, const struct cpu_op *op) {
    return repeat(cpu, op, cmps_chunk);
}

enum cpu_result cpu_op_scas(struct cpu *cpu, const struct cpu_op *op) {
    return repeat(cpu, op, scas_chunk);
}
