/* The system group, second half: one kind of kernel entry each. */
#include "tools/bench_programs/program.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

enum { PAGE = 4096 };

static uint64_t getppid_calls(void *state, uint64_t count) {
    (void)state;
    uint64_t same = 0;
    long parent = syscall(SYS_getppid);
    for (uint64_t i = 0; i < count; i++)
        same += syscall(SYS_getppid) == parent;
    return same;
}

static uint64_t clock_reads(void *state, uint64_t count) {
    (void)state;
    struct timespec before = {0}, now;
    uint64_t ordered = 0;
    for (uint64_t i = 0; i < count; i++) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        ordered += now.tv_sec > before.tv_sec || (now.tv_sec == before.tv_sec && now.tv_nsec >= before.tv_nsec);
        before = now;
    }
    return ordered;
}

static uint64_t map_touch(void *state, uint64_t count) {
    (void)state;
    enum { PAGES = 64 };
    uint64_t sum = 0;
    for (uint64_t i = 0; i < count; i++) {
        volatile char *memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        REQUIRE(memory != MAP_FAILED);
        for (int page = 0; page < PAGES; page++)
            memory[page * PAGE] = (char)page;
        sum += (uint64_t)memory[(i % PAGES) * PAGE];
        munmap((void *)memory, PAGES * PAGE);
    }
    return sum;
}

/* A mapped file's page that is dropped and comes back: a fault without an allocation. */
static uint64_t page_fault(void *state, uint64_t count) {
    (void)state;
    int fd = open("/proc/self/exe", O_RDONLY);
    volatile unsigned char *memory = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
    uint64_t sum = 0;
    REQUIRE(memory != MAP_FAILED);
    for (uint64_t i = 0; i < count; i++) {
        sum += memory[i % 4];
        madvise((void *)memory, PAGE, MADV_DONTNEED);
    }
    close(fd);
    return sum;
}

static uint64_t protect(void *state, uint64_t count) {
    (void)state;
    volatile uint32_t *memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    memory[0] = 0;
    for (uint64_t i = 0; i < count; i++) {
        mprotect((void *)memory, PAGE, PROT_READ);
        uint32_t value = memory[0];
        mprotect((void *)memory, PAGE, PROT_READ | PROT_WRITE);
        memory[0] = value + 1;
    }
    return memory[0];
}

static volatile sig_atomic_t signals_seen;

static void count_signal(int number) {
    (void)number;
    signals_seen++;
}

static uint64_t signal_raise(void *state, uint64_t count) {
    (void)state;
    signals_seen = 0;
    signal(SIGUSR1, count_signal);
    for (uint64_t i = 0; i < count; i++)
        raise(SIGUSR1);
    return (uint64_t)signals_seen;
}

static uint64_t files(void *state, uint64_t count) {
    (void)state;
    char path[64];
    uint64_t sum = 0;
    for (uint64_t i = 0; i < count; i++) {
        snprintf(path, sizeof path, "/dev/shm/bench-%d-%u", (int)getpid(), (unsigned)(i % 16));
        int fd = open(path, O_CREAT | O_RDWR | O_EXCL, 0600);
        REQUIRE(fd >= 0);
        sum += (uint64_t)write(fd, path, 16);
        close(fd);
        REQUIRE(unlink(path) == 0);
    }
    return sum;
}

const struct program programs_kernel[] = {
    {.name = "getppid", .group = "system", .count = 400000, .run = getppid_calls},
    {.name = "clock_gettime", .group = "system", .count = 2000000, .run = clock_reads},
    {.name = "mmap+touch", .group = "system", .count = 500, .run = map_touch},
    {.name = "page fault", .group = "system", .count = 50000, .run = page_fault},
    {.name = "mprotect", .group = "system", .count = 30000, .run = protect},
    {.name = "signal", .group = "system", .count = 20000, .run = signal_raise},
    {.name = "tmpfs files", .group = "system", .count = 10000, .run = files},
    {0},
};
