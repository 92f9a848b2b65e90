/* The local APIC in xAPIC mode at its default base, the 8259 pair and the 8254's channel 0. */
#include "guest.h"

static volatile uint32_t *apic_register(unsigned offset) {
    return (volatile uint32_t *)(uintptr_t)(0xfee00000u + offset);
}

uint32_t apic_read(unsigned offset) {
    return *apic_register(offset);
}

void apic_write(unsigned offset, uint32_t value) {
    *apic_register(offset) = value;
}

void apic_enable(void) {
    apic_write(0xf0, 0x1ff);
}

void apic_eoi(void) {
    apic_write(0xb0, 0);
}

void apic_ipi(uint32_t destination, uint32_t low) {
    apic_write(0x310, destination << 24);
    apic_write(0x300, low);
    while (apic_read(0x300) & 1 << 12)
        pause_cpu();
}

void pic_init(uint8_t base) {
    out8(0x20, 0x11);
    out8(0xa0, 0x11);
    out8(0x21, base);
    out8(0xa1, (uint8_t)(base + 8));
    out8(0x21, 4);
    out8(0xa1, 2);
    out8(0x21, 1);
    out8(0xa1, 1);
    pic_mask(0xffff);
}

void pic_mask(uint16_t mask) {
    out8(0x21, (uint8_t)mask);
    out8(0xa1, (uint8_t)(mask >> 8));
}

void pic_eoi(unsigned line) {
    if (line >= 8)
        out8(0xa0, 0x20);
    out8(0x20, 0x20);
}

void pit_periodic(uint16_t divisor) {
    out8(0x43, 0x34);
    out8(0x40, (uint8_t)divisor);
    out8(0x40, (uint8_t)(divisor >> 8));
}

void pit_oneshot(uint16_t count) {
    out8(0x43, 0x30);
    out8(0x40, (uint8_t)count);
    out8(0x40, (uint8_t)(count >> 8));
}
