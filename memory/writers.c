/* Chains of writable entries by host page; see the header. view_drop_writes is what they are for. */
#include "memory/writers.h"

/* Guest memory is one mapping, so that pages in a row have chains of their own. */
static inline unsigned chain_of(uint64_t host_page) {
    return (unsigned)(host_page >> 12) & (VIEW_ENTRIES - 1);
}

static inline bool has_head(const struct view_writers *writers, unsigned chain) {
    return writers->has_head[chain / 8] >> (chain % 8) & 1;
}

void writers_add(struct view *view, unsigned index) {
    struct view_writers *writers = &view->writers;
    unsigned chain = chain_of(writers_page(view, index));
    struct view_writer *entry = &writers->entry[index];
    entry->previous = entry->next = (uint16_t)index;
    if (has_head(writers, chain)) {
        entry->next = writers->head[chain];
        writers->entry[entry->next].previous = (uint16_t)index;
    }
    writers->head[chain] = (uint16_t)index;
    writers->has_head[chain / 8] |= (uint8_t)(1u << (chain % 8));
}

void writers_remove(struct view *view, unsigned index) {
    struct view_writers *writers = &view->writers;
    unsigned chain = chain_of(writers_page(view, index));
    unsigned next = writers->entry[index].next, previous = writers->entry[index].previous;
    bool is_first = previous == index, is_last = next == index;
    view->tables->write_tag[index] = view_invalid_tag(index);
    if (!is_last)
        writers->entry[next].previous = (uint16_t)(is_first ? next : previous);
    if (!is_first)
        writers->entry[previous].next = (uint16_t)(is_last ? previous : next);
    else if (!is_last)
        writers->head[chain] = (uint16_t)next;
    else
        writers->has_head[chain / 8] &= (uint8_t)~(1u << (chain % 8));
}

void view_drop_writes(struct view *view, uint64_t host_page) {
    struct view_writers *writers = &view->writers;
    unsigned chain = chain_of(host_page);
    if (!has_head(writers, chain))
        return;
    for (unsigned index = writers->head[chain], next;; index = next) {
        next = writers->entry[index].next;
        if (writers_page(view, index) == host_page)
            writers_remove(view, index);
        if (next == index)
            return;
    }
}
