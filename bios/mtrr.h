/*
 * The memory types that a BIOS sets up on every processor (SDM vol. 3A, 11.11): write-back, but for video memory, the
 * BIOS area and the PCI window below 4 GiB. Operating systems look at them: without, Linux leaves PAT off.
 */
#ifndef BIOS_MTRR_H
#define BIOS_MTRR_H

#include <stdint.h>

struct mtrr_msr {
    uint32_t index;
    uint64_t value;
};

#define MTRR_MSRS_MAX 14

/*
 * Fills in the MSR writes in the order in which they are to be made and returns their number. physical_bits is the
 * processor's MAXPHYADDR, 32..52.
 */
unsigned mtrr_list(unsigned physical_bits, struct mtrr_msr list[MTRR_MSRS_MAX]);

#endif
