/* For tests of what a loader refuses: one line that says why. */
#ifndef TESTS_UNIT_BIOS_REFUSAL_H
#define TESTS_UNIT_BIOS_REFUSAL_H

#include "tests/unit/bios/guest_double.h"

#include <check.h>
#include <string.h>

static inline void expect_refusal(struct guest_double *guest, const char *reason) {
    ck_assert_msg(!guest_double_boot(guest), "booted, although: %s", reason);
    ck_assert_msg(strstr(guest->error.text, reason) != NULL, "\"%s\" does not say \"%s\"", guest->error.text, reason);
    ck_assert_ptr_null(strchr(guest->error.text, '\n'));
}

#endif
