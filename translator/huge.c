/* Memory in the host's huge pages; see the header. */
#include <sys/mman.h>

#include "translator/huge.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#else /* what is reached from here alone is no leak */
#define __lsan_register_root_region(memory, size)   ((void)(memory), (void)(size))
#define __lsan_unregister_root_region(memory, size) ((void)(memory), (void)(size))
#endif

static size_t whole_pages(size_t size) {
    return (size + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
}

static uint8_t *reserve(size_t size, int flags) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

void *huge_allocate(size_t size, bool is_low) {
    size = whole_pages(size);
    uint8_t *memory = is_low ? reserve(size + HUGE_PAGE, MAP_32BIT) : NULL;
    if (!memory)
        memory = reserve(size + HUGE_PAGE, 0);
    if (!memory)
        return NULL;
    size_t before = -(uintptr_t)memory & (HUGE_PAGE - 1);
    if (before)
        munmap(memory, before);
    munmap(memory + before + size, HUGE_PAGE - before);
    madvise(memory + before, size, MADV_HUGEPAGE);
    __lsan_register_root_region(memory + before, size);
    return memory + before;
}

void huge_free(void *memory, size_t size) {
    if (!memory)
        return;
    __lsan_unregister_root_region(memory, whole_pages(size));
    munmap(memory, whole_pages(size));
}
