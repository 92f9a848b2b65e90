/* Making and freeing of views: one reservation with the state pages in front of the tables. */
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#include "memory/window.h"

/*
 * All views have struct cpu at addresses of the same lower bits. AMD's processors guess the way of the first level cache
 * by a hash of bits 12 to 27 of the linear address, and a line that is known by another hash is as good as absent: without
 * this, each change of the view would cost some dozen misses.
 */
#define ALIGNMENT ((size_t)1 << 28)

static char *reserve(size_t size) {
    char *all = mmap(NULL, size + ALIGNMENT, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED)
        return all;
    size_t before = -(uintptr_t)all & (ALIGNMENT - 1);
    if (before)
        munmap(all, before);
    munmap(all + before + size, ALIGNMENT - before);
    return all + before;
}

struct view *view_create(int state_fd, size_t state_size, bool may_have_window) {
    const size_t used = state_size + offsetof(struct view_tables, check);
    size_t size = state_size + sizeof(struct view_tables) + VIEW_CHECK_SPAN;
    struct view *view =
        mmap(NULL, sizeof *view, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (view == MAP_FAILED)
        return NULL;
    char *base = may_have_window ? reserve(size) : MAP_FAILED;
    view->has_checks = base != MAP_FAILED;
    if (!view->has_checks)
        base = reserve(size = used);
    if (base == MAP_FAILED) {
        munmap(view, sizeof *view);
        return NULL;
    }
    madvise(base, size, MADV_NOHUGEPAGE);
    view->reservation = base;
    view->reservation_size = size;
    view->tables = (struct view_tables *)(base + state_size);
    if (mprotect(base, used, PROT_READ | PROT_WRITE) != 0 ||
        mmap(base, state_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, state_fd, 0) == MAP_FAILED) {
        view_destroy(view);
        return NULL;
    }
    for (unsigned i = 0; i <= VIEW_REACH; i++) { /* everything else is valid as zero */
        unsigned index = (VIEW_ENTRIES - VIEW_REACH + i) % VIEW_ENTRIES;
        view->tables->read_tag[index] = view->tables->write_tag[index] = view_invalid_tag(index);
    }
    view->tables->jump[0].negative_target = view->tables->second_jump[0].negative_target = 1;
    return view;
}

void view_destroy(struct view *view) {
    if (!view)
        return;
    window_destroy(view);
    munmap(view->reservation, view->reservation_size);
    munmap(view, sizeof *view);
}
