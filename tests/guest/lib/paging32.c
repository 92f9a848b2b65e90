/* Memory for the page tables of 32-bit programs; the programs build the tables themselves. */
#include "guest.h"

extern uint8_t guest_end[];

static word next_page;

void *pages_alloc(size_t bytes, size_t alignment) {
    if (!next_page)
        next_page = (word)guest_end;
    word at = (next_page + alignment - 1) & ~(word)(alignment - 1);
    next_page = at + bytes;
    return memory_set((void *)at, 0, bytes);
}

void *page_alloc(void) {
    return pages_alloc(4096, 4096);
}
