/*
 * Sensitive instructions of kernels: what they leave in registers, flags and memory, each many times with values that
 * change, so that code made for one value meets another. sensitive.c is for both widths.
 */
#ifndef SENSITIVE_H
#define SENSITIVE_H

#include "lib/trap.h"

enum { V_IPI = 0x50 };

/* Of each program: the start of a page that is there, whose neighbours are not. */
uint8_t *lonely_page(void);
void own_tests(void);

/* Runs the snippet at CPL 0 with these registers; any end but `vector` is a failure. */
struct state run_with(const char *name, const uint8_t *code, word ax, word cx, word dx, word vector);

#endif
