/* The memory types that a BIOS sets up; see mtrr.h. */
#include "bios/mtrr.h"

#include "bios/layout.h"

enum { TYPE_UC = 0, TYPE_WP = 5, TYPE_WB = 6 };
enum { MASK_VALID = 1 << 11, DEFAULT_FIXED_ENABLE = 1 << 10, DEFAULT_ENABLE = 1 << 11 };

/* Each byte of a fixed-range register is the type of one eighth of its range. */
#define EIGHT_OF(type) (UINT64_C(0x0101010101010101) * (type))

static const struct mtrr_msr mtrr_fixed[] = {
    {0x250, EIGHT_OF(TYPE_WB)},                                                         /* 00000h, 512 KiB */
    {0x258, EIGHT_OF(TYPE_WB)},                                                         /* 80000h, 128 KiB */
    {0x259, EIGHT_OF(TYPE_UC)},                                                         /* A0000h, 128 KiB */
    {0x268, EIGHT_OF(TYPE_WP)}, {0x269, EIGHT_OF(TYPE_WP)}, {0x26a, EIGHT_OF(TYPE_WP)}, /* C0000h, 32 KiB each */
    {0x26b, EIGHT_OF(TYPE_WP)}, {0x26c, EIGHT_OF(TYPE_WP)}, {0x26d, EIGHT_OF(TYPE_WP)},
    {0x26e, EIGHT_OF(TYPE_WP)}, {0x26f, EIGHT_OF(TYPE_WP)},
};

unsigned mtrr_list(unsigned physical_bits, struct mtrr_msr list[MTRR_MSRS_MAX]) {
    const uint64_t window_mask = ((UINT64_C(1) << physical_bits) - 1) & ~(LAYOUT_FOUR_GIB - LAYOUT_PCI_WINDOW - 1);
    unsigned count = 0;
    for (; count < sizeof mtrr_fixed / sizeof mtrr_fixed[0]; count++)
        list[count] = mtrr_fixed[count];
    list[count++] = (struct mtrr_msr){0x200, LAYOUT_PCI_WINDOW | TYPE_UC};
    list[count++] = (struct mtrr_msr){0x201, window_mask | MASK_VALID};
    list[count++] = (struct mtrr_msr){0x2ff, TYPE_WB | DEFAULT_FIXED_ENABLE | DEFAULT_ENABLE};
    return count;
}
