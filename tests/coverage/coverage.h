/* What the rules do not tell by themselves: names of helpers, tests, and reasons (tests.c). */
#ifndef TESTS_COVERAGE_H
#define TESTS_COVERAGE_H

#include "tests/coverage/decoded_forms.h"

/* NULL: unknown, which is an error of the tables. */
const char *coverage_helper_name(cpu_op_function *function);
const char *coverage_test_of_helper(cpu_op_function *function);
/* Whether the tests against the host's processor (tests/isa) can tell right from wrong. */
bool coverage_is_compared(ZydisMnemonic mnemonic);
/* Why an ISA set is not supported. */
const char *coverage_reason(ZydisISASet isa_set);

#endif
