/* Memory for page tables and tests: handed out upwards from the end of the program and of its multiboot modules. */
#include "guest.h"

extern uint8_t guest_end[];

static word next_page;

static word free_memory_start(void) {
    const uint32_t *info = (const uint32_t *)(word)multiboot_info;
    word start = (word)guest_end;
    if (!(info[0] & 8))
        return start;
    const uint32_t *module = (const uint32_t *)(word)info[6];
    for (uint32_t i = 0; i < info[5]; i++, module += 4)
        start = module[1] > start ? module[1] : start;
    return start;
}

void *pages_alloc(size_t bytes, size_t alignment) {
    if (!next_page)
        next_page = free_memory_start();
    word at = (next_page + alignment - 1) & ~(word)(alignment - 1);
    next_page = at + bytes;
    return memory_set((void *)at, 0, bytes);
}

void *page_alloc(void) {
    return pages_alloc(4096, 4096);
}
