/*
 * Threads: locks, condition variables, thread-local storage, atomics of every width, fences, and memory that one thread
 * unmaps while others run.
 */
#include "expect.h"

#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>

enum { THREADS = 4, ROUNDS = 50000 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static uint64_t under_lock, added64, exchanged64;
static uint32_t added32;
static uint8_t added8;
static int turn;
static __thread uint64_t own;

static void run(void *(*body)(void *)) {
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        EXPECT(pthread_create(&threads[i], NULL, body, (void *)i) == 0);
    for (int i = 0; i < THREADS; i++)
        EXPECT(pthread_join(threads[i], NULL) == 0);
}

static void *count(void *argument) {
    own = (uintptr_t)argument;
    for (int i = 0; i < ROUNDS; i++) {
        pthread_mutex_lock(&lock);
        under_lock++;
        pthread_mutex_unlock(&lock);
        __atomic_fetch_add(&added64, 3, __ATOMIC_SEQ_CST);
        __atomic_fetch_add(&added32, 5, __ATOMIC_SEQ_CST);
        __atomic_fetch_add(&added8, 1, __ATOMIC_SEQ_CST);
        uint64_t seen = __atomic_load_n(&exchanged64, __ATOMIC_RELAXED);
        while (!__atomic_compare_exchange_n(&exchanged64, &seen, seen * 2 - seen + 7, 0, __ATOMIC_SEQ_CST,
                                            __ATOMIC_RELAXED))
            ;
        own += 2;
    }
    EXPECT(own == (uintptr_t)argument + 2ull * ROUNDS);
    return NULL;
}

static void nothing_is_lost_between_threads(void) {
    run(count);
    EXPECT(under_lock == (uint64_t)THREADS * ROUNDS);
    EXPECT(added64 == 3ull * THREADS * ROUNDS && added32 == 5u * THREADS * ROUNDS);
    EXPECT(added8 == (uint8_t)(THREADS * ROUNDS) && exchanged64 == 7ull * THREADS * ROUNDS);
}

static void *pass_the_turn(void *argument) {
    int me = (int)(uintptr_t)argument;
    for (int i = 0; i < 500; i++) {
        pthread_mutex_lock(&lock);
        while (turn % THREADS != me)
            pthread_cond_wait(&changed, &lock);
        turn++;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

static void turns_go_round(void) {
    run(pass_the_turn);
    EXPECT(turn == 500 * THREADS);
}

/* Dekker's pattern: with a fence between store and load, not both threads may read the old value. */
static int flags[2], seen_flags[2];

static void *store_then_load(void *argument) {
    int me = (int)(uintptr_t)argument;
    if (me > 1)
        return NULL;
    for (int i = 0; i < 2000; i++) {
        pthread_barrier_wait(&barrier);
        __atomic_store_n(&flags[me], i + 1, __ATOMIC_RELAXED);
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        seen_flags[me] = __atomic_load_n(&flags[!me], __ATOMIC_RELAXED);
        pthread_barrier_wait(&barrier);
        EXPECT(seen_flags[0] == i + 1 || seen_flags[1] == i + 1);
    }
    return NULL;
}

static void fences_order_stores_before_loads(void) {
    EXPECT(pthread_barrier_init(&barrier, NULL, 2) == 0);
    run(store_then_load);
}

static void *map_and_unmap(void *argument) {
    unsigned char mark = (unsigned char)(uintptr_t)argument;
    for (int i = 0; i < 300; i++) {
        unsigned char *pages = mmap(NULL, 8 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        EXPECT(pages != MAP_FAILED);
        for (int at = 0; at < 8 * 4096; at += 512) {
            EXPECT(pages[at] == 0);
            pages[at] = (unsigned char)(mark + at / 512);
        }
        for (int at = 0; at < 8 * 4096; at += 512)
            EXPECT(pages[at] == (unsigned char)(mark + at / 512));
        EXPECT(munmap(pages, 8 * 4096) == 0);
    }
    return NULL;
}

int main(void) {
    nothing_is_lost_between_threads();
    turns_go_round();
    fences_order_stores_before_loads();
    run(map_and_unmap);
    return 0;
}
