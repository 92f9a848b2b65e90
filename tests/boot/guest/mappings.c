/*
 * mmap in its forms: anonymous, shared between processes, of a file, moved, protected, punched with holes; every page
 * keeps what was written to it, and what is gone faults.
 */
#include "expect.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 512 };

static sigjmp_buf resume;

static void jump_out(int signal) {
    (void)signal;
    siglongjmp(resume, 1);
}

static int is_readable(const volatile char *at) {
    if (sigsetjmp(resume, 1))
        return 0;
    (void)*at;
    return 1;
}

static int is_writable(volatile char *at) {
    if (sigsetjmp(resume, 1))
        return 0;
    *at = *at;
    return 1;
}

static void protection_is_per_page(void) {
    char *area = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(area != MAP_FAILED);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < PAGES; i++)
            area[i * PAGE + round] = (char)(i + round);
        for (int i = 0; i < PAGES; i += 2)
            EXPECT(mprotect(area + i * PAGE, PAGE, i % 4 ? PROT_READ : PROT_NONE) == 0);
        for (int i = 0; i < PAGES; i++) {
            EXPECT(is_readable(area + i * PAGE) == (i % 4 != 0));
            EXPECT(is_writable(area + i * PAGE) == i % 2);
        }
        EXPECT(mprotect(area, PAGES * PAGE, PROT_READ | PROT_WRITE) == 0);
        for (int i = 0; i < PAGES; i++)
            EXPECT(area[i * PAGE + round] == (char)(i + round));
    }
    EXPECT(munmap(area, PAGES * PAGE) == 0 && !is_readable(area));
}

static void holes_read_as_gone_and_fresh_pages_as_zero(void) {
    char *area = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(area != MAP_FAILED);
    memset(area, 0x5a, PAGES * PAGE);
    for (int i = 0; i < PAGES; i += 3)
        EXPECT(munmap(area + i * PAGE, PAGE) == 0);
    for (int i = 0; i < PAGES; i++)
        EXPECT(is_readable(area + i * PAGE) == (i % 3 != 0));
    for (int i = 0; i < PAGES; i += 3)
        EXPECT(mmap(area + i * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
               area + i * PAGE);
    for (int i = 0; i < PAGES; i++)
        EXPECT(area[i * PAGE + 7] == (i % 3 ? 0x5a : 0));
    EXPECT(madvise(area, PAGES * PAGE, MADV_DONTNEED) == 0);
    for (int i = 0; i < PAGES; i++)
        EXPECT(area[i * PAGE + 7] == 0);
    EXPECT(munmap(area, PAGES * PAGE) == 0);
}

static void moved_memory_keeps_its_bytes(void) {
    char *area = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(area != MAP_FAILED);
    for (int i = 0; i < 16 * PAGE; i++)
        area[i] = (char)(i * 7);
    for (size_t pages = 16; pages < PAGES; pages *= 2) {
        char *before = area;
        area = mremap(area, pages * PAGE, pages * 2 * PAGE, MREMAP_MAYMOVE);
        EXPECT(area != MAP_FAILED);
        EXPECT(area == before || !is_readable(before));
        for (int i = 0; i < 16 * PAGE; i++)
            EXPECT(area[i] == (char)(i * 7));
    }
    EXPECT(munmap(area, PAGES * PAGE) == 0);
}

static void a_file_and_its_mappings_agree(const char *path) {
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    EXPECT(fd >= 0 && ftruncate(fd, 64 * PAGE) == 0);
    char *one = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *two = mmap(NULL, 64 * PAGE, PROT_READ, MAP_SHARED, fd, 0);
    EXPECT(one != MAP_FAILED && two != MAP_FAILED);
    for (int i = 0; i < 64 * PAGE; i += 61) {
        one[i] = (char)(i / 61);
        EXPECT(two[i] == (char)(i / 61));
    }
    char byte = 0;
    EXPECT(pread(fd, &byte, 1, 61 * 1000) == 1 && byte == (char)1000);
    EXPECT(pwrite(fd, "x", 1, 12345) == 1 && two[12345] == 'x');
    EXPECT(munmap(one, 64 * PAGE) == 0 && munmap(two, 64 * PAGE) == 0 && close(fd) == 0);
}

static void shared_memory_is_seen_across_fork(void) {
    volatile unsigned *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    EXPECT(shared != MAP_FAILED);
    pid_t children[4];
    for (int n = 0; n < 4; n++) {
        children[n] = fork();
        EXPECT(children[n] >= 0);
        if (children[n] == 0) {
            for (int i = 0; i < 100000; i++)
                __atomic_fetch_add(shared, 1, __ATOMIC_SEQ_CST);
            _exit(0);
        }
    }
    for (int n = 0; n < 4; n++) {
        int status = 1;
        EXPECT(waitpid(children[n], &status, 0) == children[n] && status == 0);
    }
    EXPECT(*shared == 400000);
}

int main(void) {
    EXPECT(signal(SIGSEGV, jump_out) != SIG_ERR && signal(SIGBUS, jump_out) != SIG_ERR);
    protection_is_per_page();
    holes_read_as_gone_and_fresh_pages_as_zero();
    moved_memory_keeps_its_bytes();
    a_file_and_its_mappings_agree("/tmp/mapped");
    shared_memory_is_seen_across_fork();
    return 0;
}
