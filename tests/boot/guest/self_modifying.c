/*
 * Code that changes: generated and patched functions, an instruction rewritten right before it runs, code seen through
 * two mappings, code of another thread, many functions over one page, code in a page that is mapped anew.
 */
#include "expect.h"

#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef uint32_t (*generated)(void);

enum { PAGE = 4096, RETURNS_LENGTH = 6 };

/* mov eax, value; ret */
static void emit_return(uint8_t *at, uint32_t value) {
    uint8_t code[RETURNS_LENGTH] = {0xb8, 0, 0, 0, 0, 0xc3};
    memcpy(code + 1, &value, 4);
    memcpy(at, code, sizeof code);
}

static uint8_t *code_pages(size_t pages) {
    uint8_t *area = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(area != MAP_FAILED);
    return area;
}

static uint32_t call(const uint8_t *at) {
    return ((generated)(uintptr_t)at)();
}

static void a_patched_immediate_takes_effect(void) {
    uint8_t *code = code_pages(1);
    emit_return(code, 0);
    for (uint32_t i = 0; i < 20000; i++) {
        memcpy(code + 1, &i, 4);
        EXPECT(call(code) == i);
    }
}

/* mov byte [next instruction's immediate], value; mov eax, 0: within one straight run of instructions. */
static void a_store_changes_the_next_instruction(void) {
    for (uint32_t i = 0; i < 2000; i++) {
        uint32_t result;
        uint8_t value = (uint8_t)i;
#ifdef __x86_64__
        static uint8_t *code;
        static const uint8_t bytes[] = {0x40, 0x88, 0x3d, 0x01, 0, 0, 0, 0xb8, 0, 0, 0, 0, 0xc3}; /* mov [rip+1],dil */
        if (!code) {
            code = code_pages(1);
            memcpy(code, bytes, sizeof bytes);
        }
        result = ((uint32_t(*)(unsigned))(uintptr_t)code)(value);
#else
        static uint8_t *code;
        static const uint8_t bytes[] = {0x8a, 0x44, 0x24, 0x04, 0xa2, 0, 0, 0, 0, 0xb8, 0, 0, 0, 0, 0xc3};
        if (!code) { /* mov al,[esp+4]; mov [code+10],al; mov eax,0; ret */
            code = code_pages(1);
            memcpy(code, bytes, sizeof bytes);
            uint32_t target = (uint32_t)(uintptr_t)(code + 10);
            memcpy(code + 5, &target, 4);
        }
        result = ((uint32_t(*)(unsigned))(uintptr_t)code)(value);
#endif
        EXPECT(result == value);
    }
}

static void both_mappings_of_code_are_one(void) {
    int fd = memfd_create("code", 0);
    EXPECT(fd >= 0 && ftruncate(fd, PAGE) == 0);
    uint8_t *writable = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    uint8_t *executable = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    EXPECT(writable != MAP_FAILED && executable != MAP_FAILED);
    for (uint32_t i = 0; i < 5000; i++) {
        emit_return(writable + i % 100 * 8, i);
        EXPECT(call(executable + i % 100 * 8) == i);
    }
    uint8_t *from_file = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    uint32_t value = 4242;
    EXPECT(pwrite(fd, &value, 4, 1) == 4 && call(executable) == 4242 && call(from_file) == 4242);
}

static void many_functions_are_rewritten(void) {
    enum { PAGES = 64, EACH = PAGE / 16 };
    uint8_t *code = code_pages(PAGES);
    for (uint32_t round = 0; round < 4; round++) {
        for (uint32_t i = 0; i < PAGES * EACH; i++)
            emit_return(code + i * 16, i ^ round * 0x01010101u);
        for (uint32_t i = 0; i < PAGES * EACH; i++)
            EXPECT(call(code + i * 16) == (i ^ round * 0x01010101u));
    }
}

static void code_mapped_anew_is_new(void) {
    uint8_t *code = code_pages(1);
    for (uint32_t i = 0; i < 500; i++) {
        EXPECT(mmap(code, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == code);
        emit_return(code, i);
        EXPECT(mprotect(code, PAGE, PROT_READ | PROT_EXEC) == 0);
        EXPECT(call(code) == i);
    }
}

/* One thread runs what the other rewrites: only whole values may be seen, never an older one after a newer. */
static uint8_t *shared_code;
static int is_over;

static void *rewrite(void *argument) {
    (void)argument;
    for (uint32_t i = 1; i <= 20000; i++)
        __atomic_store_n((uint32_t *)(void *)(shared_code + 4), i, __ATOMIC_SEQ_CST);
    __atomic_store_n(&is_over, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

static void another_threads_stores_arrive(void) {
    pthread_t writer;
    shared_code = code_pages(1);
    memcpy(shared_code, "\x90\x90\x90", 3);
    emit_return(shared_code + 3, 0);
    EXPECT(pthread_create(&writer, NULL, rewrite, NULL) == 0);
    uint32_t last = 0;
    while (!__atomic_load_n(&is_over, __ATOMIC_SEQ_CST)) {
        uint32_t now = call(shared_code);
        EXPECT(now >= last && now <= 20000);
        last = now;
    }
    EXPECT(pthread_join(writer, NULL) == 0);
    __asm__ volatile("cpuid" : : "a"(0), "c"(0) : "ebx", "edx", "memory"); /* serialize, SDM vol. 3A, 8.1.3 */
    EXPECT(call(shared_code) == 20000);
}

int main(void) {
    a_patched_immediate_takes_effect();
    a_store_changes_the_next_instruction();
    both_mappings_of_code_are_one();
    many_functions_are_rewritten();
    code_mapped_anew_is_new();
    another_threads_stores_arrive();
    return 0;
}
