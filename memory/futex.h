/* Sleeping on a word, without libc: for code that runs while the guest's vector state is in the host's registers. */
#ifndef MEMORY_FUTEX_H
#define MEMORY_FUTEX_H

#include <stdatomic.h>
#include <stdint.h>

static inline void futex_call(_Atomic uint32_t *word, uint64_t operation, uint64_t value) {
    enum { SYS_FUTEX = 202 };
    uint64_t result = SYS_FUTEX;
    register uint64_t timeout __asm__("r10") = 0;
    __asm__ volatile("syscall"
                     : "+a"(result)
                     : "D"(word), "S"(operation), "d"(value), "r"(timeout)
                     : "rcx", "r11", "memory");
}
/* Returns at once unless the word has the value; may return for no reason. */
static inline void futex_wait(_Atomic uint32_t *word, uint32_t value) {
    enum { FUTEX_WAIT_PRIVATE_OPERATION = 128 };
    futex_call(word, FUTEX_WAIT_PRIVATE_OPERATION, value);
}
static inline void futex_wake(_Atomic uint32_t *word, uint32_t count) {
    enum { FUTEX_WAKE_PRIVATE_OPERATION = 129 };
    futex_call(word, FUTEX_WAKE_PRIVATE_OPERATION, count);
}

#endif
