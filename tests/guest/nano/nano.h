/*
 * Nanobenchmarks: what single operations cost in TSC cycles, loop and all, without an operating system. Prints a line
 * "bench: nano NAME|CYCLES" for each, which tools/bench collects, and checks that what should trap has trapped.
 */
#ifndef NANO_H
#define NANO_H

#include "lib/trap.h"

struct operation {
    const char *name;
    void (*run)(unsigned loops);
    unsigned traps;           /* each turn takes that many of the traps that nano_traps counts */
    bool (*is_offered)(void); /* NULL: every processor has it */
    void (*prepare)(void);    /* NULL: nothing to prepare */
    void (*finish)(void);
};

/* Both lists end in a row without a name. */
extern const struct operation nano_common[], nano_own[]; /* the second: of this width alone */

/* Counted by the gates below and by the targets of SYSCALL and SYSENTER. */
extern volatile unsigned nano_traps;

/* The shortest handlers: back at once; behind an instruction of 2 bytes, without and with an error code; with the page
   of nano_entry made present. */
extern const uint8_t nano_iret[], nano_skip[], nano_skip_error[], nano_map_error[], nano_clts[], nano_eoi[];

/* A page that two address spaces map at one address, each to its own page; nano_entry is the first space's. */
extern word *nano_entry, nano_entry_value, nano_roots[2];
extern volatile uint8_t *nano_window;
void nano_paging_init(void);

/* Enters CODE at CPL 3 with RBX as the count, till its end. */
void nano_run_user(const void *code, unsigned loops);

enum { V_NANO = 0x40, V_NANO_IPI = 0x41 };

/* A function that does a statement, or an instruction, as often as told. */
#define LOOP(function, statement)                                                                                      \
    static void function(unsigned loops) {                                                                             \
        do {                                                                                                           \
            statement;                                                                                                 \
        } while (--loops);                                                                                             \
    }
#define INSTRUCTION(function, code) LOOP(function, __asm__ volatile(code : : : "ax", "cx", "dx", "bx", "memory", "cc"))

#endif
