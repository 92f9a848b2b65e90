/* Reporting of a guest program: lines on the debug port, exit by isa-debug-exit, and a few memory functions. */
#include "guest.h"

static unsigned passed, failed, quiet_failures;

static void put(char c) {
    out8(0xe9, (uint8_t)c);
}

void print(const char *text) {
    while (*text)
        put(*text++);
}

void print_hex(uint64_t value) {
    unsigned shift = 60;
    while (shift && !(value >> shift))
        shift -= 4;
    for (;; shift -= 4) {
        put("0123456789abcdef"[value >> shift & 15]);
        if (!shift)
            return;
    }
}

static void print_decimal(unsigned value) {
    if (value >= 10)
        print_decimal(value / 10);
    put((char)('0' + value % 10));
}

static void print_failure(const char *name, const char *detail, uint64_t got, uint64_t want) {
    print("not ok ");
    print(name);
    if (detail) {
        print(" (");
        print(detail);
        print(")");
    }
    print(": got ");
    print_hex(got);
    print(" want ");
    print_hex(want);
    print("\n");
}

void check_detail(const char *name, const char *detail, uint64_t got, uint64_t want) {
    if (got != want) {
        failed++;
        print_failure(name, detail, got, want);
        return;
    }
    passed++;
    print("ok ");
    print(name);
    if (detail) {
        print(" (");
        print(detail);
        print(")");
    }
    print("\n");
}

void check(const char *name, uint64_t got, uint64_t want) {
    check_detail(name, NULL, got, want);
}

void check_true(const char *name, bool is_true) {
    check_detail(name, NULL, is_true, true);
}

void check_quiet_detail(const char *name, const char *detail, uint64_t got, uint64_t want) {
    if (got == want) {
        passed++;
        return;
    }
    failed++;
    if (quiet_failures++ < 100)
        print_failure(name, detail, got, want);
}

void check_quiet(const char *name, uint64_t got, uint64_t want) {
    check_quiet_detail(name, NULL, got, want);
}

void skip(const char *name, const char *why) {
    print("skip ");
    print(name);
    print(": ");
    print(why);
    print("\n");
}

_Noreturn void finish(void) {
    print("done: ");
    print_decimal(passed);
    print(" passed, ");
    print_decimal(failed);
    print(" failed\n");
    out32(0xf4, failed != 0);
    for (;;)
        __asm__ volatile("cli; hlt");
}

_Noreturn void die(const char *why) {
    failed++;
    print("not ok ");
    print(why);
    print("\n");
    finish();
}

void *memory_copy(void *to, const void *from, size_t length) {
    uint8_t *t = to;
    const uint8_t *f = from;
    while (length--)
        *t++ = *f++;
    return to;
}

void *memory_set(void *to, int value, size_t length) {
    uint8_t *t = to;
    while (length--)
        *t++ = (uint8_t)value;
    return to;
}

int memory_compare(const void *a, const void *b, size_t length) {
    const uint8_t *x = a, *y = b;
    for (size_t i = 0; i < length; i++)
        if (x[i] != y[i])
            return x[i] - y[i];
    return 0;
}

/* The compiler calls these by name for copies and initialisers of structures. */
void *memcpy(void *to, const void *from, size_t length);
void *memset(void *to, int value, size_t length);
void *memcpy(void *to, const void *from, size_t length) {
    return memory_copy(to, from, length);
}
void *memset(void *to, int value, size_t length) {
    return memory_set(to, value, length);
}

uint64_t random_next(uint64_t *state) {
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    *state = x;
    return x;
}
