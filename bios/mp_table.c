/* MP floating pointer and configuration table; see mp_table.h. Sections are those of the MP specification 1.4. */
#include "bios/mp_table.h"

#include "bios/layout.h"

enum { BUS_PCI = 0, BUS_ISA = 1, APIC_VERSION = 0x14, IO_APIC_VERSION = 0x20, EVERY_LOCAL_APIC = 0xff };
enum { INT_VECTORED = 0, INT_NMI = 1, INT_EXTINT = 3 };
/* Polarity in bits 1:0, trigger mode in bits 3:2 (table 4-10). */
enum { FLAGS_CONFORM = 0, FLAGS_LEVEL_HIGH = 0x0d };

/* What processors without CPUID would be told (table 4-5): only the family and an on-chip FPU and APIC. */
enum { DEFAULT_SIGNATURE = 0x600, DEFAULT_FEATURES = 0x201 };

static void mp_table_processors(struct bytes *image, const struct boot_request *request, unsigned count) {
    const uint32_t signature = request->cpu_signature ? request->cpu_signature : DEFAULT_SIGNATURE;
    const uint32_t features = request->cpu_signature ? request->cpu_features : DEFAULT_FEATURES;
    for (unsigned i = 0; i < count; i++) {
        bytes_put(image, 0, 1);
        bytes_put(image, i, 1);
        bytes_put(image, APIC_VERSION, 1);
        bytes_put(image, i == 0 ? 3 : 1, 1); /* enabled; bit 1: the boot processor */
        bytes_put(image, signature, 4);
        bytes_put(image, features, 4);
        bytes_put(image, 0, 8);
    }
}

static void mp_table_bus(struct bytes *image, unsigned id, const char type[6]) {
    bytes_put(image, 1, 1);
    bytes_put(image, id, 1);
    bytes_put_block(image, type, 6);
}

/* An entry of type 3 (I/O interrupt) or 4 (local interrupt); both are laid out alike. */
struct mp_table_interrupt {
    uint8_t entry_type, interrupt_type, flags, source_bus, source_irq, target_apic, target_pin;
};

static void mp_table_interrupt(struct bytes *image, const struct mp_table_interrupt *interrupt) {
    bytes_put(image, interrupt->entry_type, 1);
    bytes_put(image, interrupt->interrupt_type, 1);
    bytes_put(image, interrupt->flags, 2);
    bytes_put(image, interrupt->source_bus, 1);
    bytes_put(image, interrupt->source_irq, 1);
    bytes_put(image, interrupt->target_apic, 1);
    bytes_put(image, interrupt->target_pin, 1);
}

static bool mp_table_is_pci_irq(unsigned irq) {
    static const uint8_t irqs[4] = LAYOUT_PIRQ_IRQS;
    for (unsigned i = 0; i < 4; i++)
        if (irqs[i] == irq)
            return true;
    return false;
}

/* Returns the number of entries. */
static unsigned mp_table_isa_interrupts(struct bytes *image, uint8_t io_apic) {
    unsigned count = 0;
    for (uint8_t irq = 0; irq < 16; irq++) {
        if (irq == 2 || mp_table_is_pci_irq(irq)) /* IRQ 2 is the cascade */
            continue;
        const uint8_t flags = irq == LAYOUT_SCI_IRQ ? FLAGS_LEVEL_HIGH : FLAGS_CONFORM;
        const uint8_t pin = irq == 0 ? LAYOUT_TIMER_PIN : irq;
        mp_table_interrupt(image, &(struct mp_table_interrupt){3, INT_VECTORED, flags, BUS_ISA, irq, io_apic, pin});
        count++;
    }
    return count;
}

/* A PCI source is slot << 2 | pin (D.3). Slot 0 is the host bridge. */
static unsigned mp_table_pci_interrupts(struct bytes *image, uint8_t io_apic) {
    static const uint8_t irqs[4] = LAYOUT_PIRQ_IRQS;
    unsigned count = 0;
    for (unsigned source = 1 << 2; source < 32 << 2; source++, count++) {
        const uint8_t irq = irqs[layout_pirq_of(source >> 2, source & 3)];
        mp_table_interrupt(image, &(struct mp_table_interrupt){3, INT_VECTORED, FLAGS_LEVEL_HIGH, BUS_PCI,
                                                               (uint8_t)source, io_apic, irq});
    }
    return count;
}

static void mp_table_floating_pointer(struct bytes *image, uint64_t base) {
    const size_t start = image->length;
    bytes_put_block(image, "_MP_", 4);
    bytes_put(image, base + start + 16, 4);
    bytes_put(image, 1, 1); /* paragraphs */
    bytes_put(image, 4, 1); /* specification 1.4 */
    bytes_put(image, 0, 1);
    bytes_put(image, 0, 5); /* no default configuration; virtual wire mode: no IMCR */
    bytes_seal(image, start, image->length, start + 10);
}

static void mp_table_header(struct bytes *image) {
    bytes_put_block(image, "PCMP", 4);
    bytes_put(image, 0, 2);
    bytes_put(image, 4, 1);
    bytes_put(image, 0, 1);
    bytes_put_block(image, "TRAPEZE TRAPEZE     ", 20); /* OEM and product id */
    bytes_put(image, 0, 4);
    bytes_put(image, 0, 2);
    bytes_put(image, 0, 2);
    bytes_put(image, LAYOUT_LOCAL_APIC_BASE, 4);
    bytes_put(image, 0, 4);
}

void mp_table_append(struct bytes *image, uint64_t base, const struct boot_request *request) {
    const unsigned vcpu_count = request->vcpu_count ? request->vcpu_count : 1;
    const uint8_t io_apic = (uint8_t)layout_io_apic_id(vcpu_count);
    mp_table_floating_pointer(image, base);
    const size_t start = image->length;
    unsigned entries = vcpu_count + 5; /* two buses, the I/O APIC, two local interrupts */
    mp_table_header(image);
    mp_table_processors(image, request, vcpu_count);
    mp_table_bus(image, BUS_PCI, "PCI   ");
    mp_table_bus(image, BUS_ISA, "ISA   ");
    bytes_put(image, 2, 1);
    bytes_put(image, io_apic, 1);
    bytes_put(image, IO_APIC_VERSION, 1);
    bytes_put(image, 1, 1); /* enabled */
    bytes_put(image, LAYOUT_IO_APIC_BASE, 4);
    entries += mp_table_isa_interrupts(image, io_apic);
    entries += mp_table_pci_interrupts(image, io_apic);
    mp_table_interrupt(image, &(struct mp_table_interrupt){4, INT_EXTINT, FLAGS_CONFORM, BUS_ISA, 0, 0, 0});
    mp_table_interrupt(image, &(struct mp_table_interrupt){4, INT_NMI, FLAGS_CONFORM, BUS_ISA, 0, EVERY_LOCAL_APIC, 1});
    bytes_patch(image, start + 4, image->length - start, 2);
    bytes_patch(image, start + 34, entries, 2);
    bytes_seal(image, start, image->length, start + 7);
}
