/*
 * Which entries of a view let a host page be written: a page that becomes code is taken from all of them, and tables of
 * 65,536 entries are too long to be searched for each such page. Entries with the right to write are in chains by host
 * page, those without it in none. Light code.
 */
#ifndef MEMORY_WRITERS_H
#define MEMORY_WRITERS_H

#include "memory/view.h"

static inline bool writers_holds(const struct view *view, unsigned index) {
    return view->tables->write_tag[index] != view_invalid_tag(index);
}
/* The host page of an entry that is in a chain: addends are host - linear, tags -linear. */
static inline uint64_t writers_page(const struct view *view, unsigned index) {
    return view->tables->addend[index] - view->tables->write_tag[index];
}
/* The entry's write tag and addend have just been set. */
void writers_add(struct view *view, unsigned index);
/* Takes the right to write from an entry that has it. */
void writers_remove(struct view *view, unsigned index);

#endif
