/*
 * The inside of a local APIC, shared by lapic.c (priorities and messages), lapic_registers.c (how the processor reads
 * and writes it) and lapic_timer.c.
 */
#ifndef DEVICES_LAPIC_STATE_H
#define DEVICES_LAPIC_STATE_H

#include "devices/lapic.h"

/* The local vector table in register order (SDM vol. 3A, 11.5.1): offsets 320h, 330h, ... 370h. */
enum lapic_entry { LVT_TIMER, LVT_THERMAL, LVT_PERFORMANCE, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_ENTRIES };

enum { LVT_REMOTE_IRR = 1 << 14, LVT_LEVEL = 1 << 15, LVT_MASKED = 1 << 16 };

enum { BASE_BOOT_PROCESSOR = 1 << 8, BASE_X2APIC = 1 << 10, BASE_ENABLE = 1 << 11 };

enum { SVR_ENABLE = 1 << 8 };

/* Error status register (11.5.3). */
enum { ESR_SEND_ILLEGAL_VECTOR = 1 << 5, ESR_RECEIVE_ILLEGAL_VECTOR = 1 << 6, ESR_ILLEGAL_REGISTER = 1 << 7 };

/* 256 bits, as IRR, ISR and TMR are read: vector v is bit v % 32 of word v / 32. */
struct lapic_vectors {
    uint32_t word[8];
};

struct lapic_timer {
    struct clock_timer alarm;
    uint32_t initial_count;
    uint8_t divide; /* as the divide configuration register reads */
    bool is_counting;
    uint64_t start; /* ns at which the present cycle was at initial_count */
    uint64_t tsc_deadline;
};

struct lapic {
    struct lapic_config config;
    struct apic_bus *apic_bus;
    uint64_t base; /* IA32_APIC_BASE */
    uint8_t id;    /* xAPIC id; in x2APIC mode it is config.id */
    uint8_t tpr;
    uint8_t ldr;       /* bits 31:24 of the register; x2APIC derives its own from the id */
    uint8_t dfr_model; /* bits 31:28 of the register */
    uint16_t svr;
    uint8_t esr;         /* as latched by the last write to it */
    uint8_t esr_pending; /* errors since then */
    uint32_t icr_low, icr_high;
    uint32_t lvt[LVT_ENTRIES];
    struct lapic_vectors irr, isr, tmr;
    bool lint[2];          /* pin levels */
    bool has_extint;       /* an ExtINT message waits for its INTA cycle */
    bool is_intr_asserted; /* what config.cpu.set_intr was told last */
    struct lapic_timer timer;
};

/* ---- lapic.c ---- */

bool lapic_is_x2apic(const struct lapic *lapic);
uint32_t lapic_x2apic_ldr(const struct lapic *lapic);
/* Tells the processor when INTR's level has changed: after every change of what lapic_acknowledge would find. */
void lapic_update(struct lapic *lapic);
/* An entry's interrupt, unless masked. */
void lapic_deliver_entry(struct lapic *lapic, enum lapic_entry entry);
void lapic_record_error(struct lapic *lapic, uint8_t error);
void lapic_eoi(struct lapic *lapic);
void lapic_write_svr(struct lapic *lapic, uint32_t value);
void lapic_write_entry(struct lapic *lapic, enum lapic_entry entry, uint32_t value);
/* Sends what the ICR says (11.6.1). */
void lapic_send_ipi(struct lapic *lapic);
void lapic_self_ipi(struct lapic *lapic, uint8_t vector);
/* All registers but IA32_APIC_BASE and the id as after power-up. */
void lapic_reset_registers(struct lapic *lapic);

/* ---- lapic_timer.c ---- */

void lapic_timer_init(struct lapic *lapic);
void lapic_timer_reset(struct lapic *lapic);
/* Before and after the timer's LVT entry is written. */
void lapic_timer_write_entry(struct lapic *lapic, uint32_t value);
void lapic_timer_write_initial(struct lapic *lapic, uint32_t value);
void lapic_timer_write_divide(struct lapic *lapic, uint32_t value);
uint32_t lapic_timer_current(struct lapic *lapic);
uint64_t lapic_timer_read_deadline(struct lapic *lapic);
void lapic_timer_write_deadline(struct lapic *lapic, uint64_t value);

#endif
