/* Products of 128 bits, without the compiler's library. */
#ifndef DEVICES_SCALE_H
#define DEVICES_SCALE_H

#include <stdint.h>

/* value * by / over, rounded down, or up; all ones where that does not fit. */
static inline uint64_t scale_down(uint64_t value, uint64_t by, uint64_t over) {
    unsigned __int128 product = (unsigned __int128)value * by;
    uint64_t low = (uint64_t)product, high = (uint64_t)(product >> 64), quotient, rest;
    if (high >= over)
        return UINT64_MAX;
    __asm__("div %4" : "=a"(quotient), "=d"(rest) : "a"(low), "d"(high), "r"(over) : "cc");
    return quotient;
}
static inline uint64_t scale_up(uint64_t value, uint64_t by, uint64_t over) {
    unsigned __int128 product = (unsigned __int128)value * by + (over - 1);
    uint64_t low = (uint64_t)product, high = (uint64_t)(product >> 64), quotient, rest;
    if (high >= over)
        return UINT64_MAX;
    __asm__("div %4" : "=a"(quotient), "=d"(rest) : "a"(low), "d"(high), "r"(over) : "cc");
    return quotient;
}

#endif
