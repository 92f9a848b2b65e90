/*
 * Zeroed memory in the host's huge pages, where it has them: for tables that are met in no order, where one would wait for
 * the host's TLB otherwise, and for what is filled for good, where one would wait for page faults.
 */
#ifndef TRANSLATOR_HUGE_H
#define TRANSLATOR_HUGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HUGE_PAGE ((size_t)2 << 20)

/* NULL with errno set when the host has no memory. is_low: below 4 GiB, where possible. The size is rounded up to 2 MiB. */
void *huge_allocate(size_t size, bool is_low);
/* Takes NULL, too. */
void huge_free(void *memory, size_t size);

#endif
