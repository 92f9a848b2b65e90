/* See pc_lines.h. Light code. */
#include "devices/pc_lines.h"

void pc_gsi_set(void *target, unsigned pin, bool asserted) {
    struct pc_chips *chips = target;
    unsigned gsi = pin & ((1u << SOURCE_SHIFT) - 1), bit = 1u << (pin >> SOURCE_SHIFT);
    if (gsi >= PC_CHIPS_GSIS)
        return;
    uint16_t *sources = &chips->gsi_sources[gsi];
    *sources = (uint16_t)(asserted ? *sources | bit : *sources & ~bit);
    if (gsi < ISA_IRQS)
        pic_set_irq(&chips->pic, gsi, *sources != 0);
    if (chips->ioapic)
        ioapic_set(chips->ioapic, gsi == IRQ_TIMER ? TIMER_PIN : gsi, *sources != 0);
}

void pc_legacy_set(void *target, unsigned irq, bool asserted) {
    struct pc_chips *chips = target;
    if (!chips->hpet_has_legacy || !asserted)
        pc_gsi_set(chips, irq, asserted);
}

void pc_legacy_replacement(void *opaque, bool is_on) {
    struct pc_chips *chips = opaque;
    chips->hpet_has_legacy = is_on;
    if (!is_on)
        return;
    pc_gsi_set(chips, IRQ_TIMER, false);
    pc_gsi_set(chips, IRQ_RTC, false);
}

void pc_hpet_route(void *target, unsigned pin, bool asserted) {
    pc_gsi_set(target, pin | SOURCE_HPET << SOURCE_SHIFT, asserted);
}

int pc_acknowledge_8259(void *opaque) {
    struct pc_chips *chips = opaque;
    return pic_acknowledge(&chips->pic);
}

bool pc_timer_tick_is_waiting(void *opaque) {
    const struct pc_chips *chips = opaque;
    return pic_is_waiting(&chips->pic, IRQ_TIMER);
}

int64_t pc_wall_clock(void *opaque) {
    const struct pc_chips *chips = opaque;
    return clock_wall(chips->config.clock);
}
