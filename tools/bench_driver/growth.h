/* Boots, the memory they take, and how costs grow with the size of a guest and of its work. */
#ifndef TOOLS_BENCH_DRIVER_GROWTH_H
#define TOOLS_BENCH_DRIVER_GROWTH_H

#include "tools/bench_driver/plan.h"

/* From start to the first line of /init, and the peak of memory at that point, in a guest of 512 MiB. */
void growth_run_boots(const struct plan *plan, struct results *results);

/* Once each, as far as the plan wants them: the programs of the group "growth", 1 to 8 virtual CPUs, and boots with
   64 MiB to 16 GiB. */
void growth_run(const struct plan *plan, struct results *results);

/* Makes each row of the group refer to the first whose name is the same up to the first digit. */
void growth_link_series(struct results *results);

#endif
