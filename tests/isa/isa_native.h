/* Runs one test natively, on the processor this program runs on. */
#ifndef ISA_NATIVE_H
#define ISA_NATIVE_H

#include "isa_case.h"

/* Maps code and data at their fixed addresses and takes over the fault signals. False: errno says why. */
bool isa_native_init(void);
/* Whether the kernel gives the segments that 16-bit records need (modify_ldt); makes them. */
bool isa_native_has_16_bit_segments(void);
/* The components of ISA_XCR0 that this host has. */
uint64_t isa_native_xcr0(void);
/* Fills in after, vector, error and cr2 of the record, and the vector state and data as they are afterwards. */
void isa_native_run(struct isa_record *record, struct isa_vectors *vectors, uint8_t data[ISA_DATA_SIZE]);

#endif
