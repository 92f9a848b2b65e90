/* What a BIOS leaves: ACPI, MP tables and BIOS data area, found and walked as an operating system does. */
#include "tests/unit/bios/guest_double.h"
#include "tests/unit/bios/synthetic.h"

#include <check.h>

#define MIB UINT64_C(0x100000)

static void boot_with(struct guest_double *guest, unsigned vcpu_count) {
    uint8_t file[SYNTHETIC_FLAT_SIZE];
    guest_double_create(guest, 16 * MIB, 0);
    memset(guest->low, 0x5a, 16 * MIB);
    synthetic_flat(file);
    guest_double_set_kernel(guest, file, sizeof file);
    guest->request.vcpu_count = vcpu_count;
    guest->request.serial_count = 2;
    ck_assert_msg(guest_double_boot(guest), "%s", guest->error.text);
}

static unsigned sum_of(const struct guest_double *guest, uint64_t address, uint64_t length) {
    uint8_t sum = 0;
    for (uint64_t i = 0; i < length; i++)
        sum = (uint8_t)(sum + guest_double_get(guest, address + i, 1));
    return sum;
}

/* A table by its signature through the XSDT, its checksum verified. */
static uint64_t find_table(const struct guest_double *guest, const char signature[4]) {
    const uint64_t xsdt = guest_double_get(guest, 0xe0000 + 24, 8);
    const uint64_t end = xsdt + guest_double_get(guest, xsdt + 4, 4);
    for (uint64_t entry = xsdt + 36; entry < end; entry += 8) {
        const uint64_t table = guest_double_get(guest, entry, 8);
        if (memcmp(guest_double_at(guest, table, 4), signature, 4) == 0) {
            ck_assert_uint_eq(sum_of(guest, table, guest_double_get(guest, table + 4, 4)), 0);
            return table;
        }
    }
    return 0;
}

START_TEST(rsdp_leads_to_the_same_tables_by_rsdt_and_xsdt) {
    struct guest_double guest;
    boot_with(&guest, 1);
    ck_assert_mem_eq(guest_double_at(&guest, 0xe0000, 8), "RSD PTR ", 8);
    ck_assert_uint_eq(sum_of(&guest, 0xe0000, 20), 0);
    ck_assert_uint_eq(sum_of(&guest, 0xe0000, 36), 0);
    const uint64_t rsdt = guest_double_get(&guest, 0xe0010, 4), xsdt = guest_double_get(&guest, 0xe0018, 8);
    ck_assert_uint_eq(sum_of(&guest, rsdt, guest_double_get(&guest, rsdt + 4, 4)), 0);
    ck_assert_uint_eq(sum_of(&guest, xsdt, guest_double_get(&guest, xsdt + 4, 4)), 0);
    ck_assert_uint_eq(guest_double_get(&guest, rsdt + 4, 4), 36 + 3 * 4);
    ck_assert_uint_eq(guest_double_get(&guest, xsdt + 4, 4), 36 + 3 * 8);
    for (unsigned i = 0; i < 3; i++)
        ck_assert_uint_eq(guest_double_get(&guest, rsdt + 36 + i * 4, 4),
                          guest_double_get(&guest, xsdt + 36 + i * 8, 8));
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(fadt_names_power_management_ports_facs_and_dsdt) {
    static const struct {
        unsigned offset, size;
        uint64_t value;
    } fields[] = {
        {4, 4, 244},          {8, 1, 3},
        {46, 2, 9},           {48, 4, 0xb2},
        {52, 2, 0xf0f1},      {56, 4, 0x600},
        {64, 4, 0x604},       {76, 4, 0x608},
        {80, 4, 0x60c},       {92, 1, 4},
        {88, 4, 0x04000204},  {108, 1, 0x32},
        {109, 2, 3},          {112, 4, 0x4a5},
        {116, 4, 0x01000801}, {120, 8, 0xcf9},
        {128, 1, 6},          {148, 4, 0x02002001},
        {152, 8, 0x600},      {172, 4, 0x02001001},
        {176, 8, 0x604},      {208, 4, 0x03002001},
        {212, 8, 0x608},      {220, 4, 0x02002001},
        {224, 8, 0x60c},
    };
    struct guest_double guest;
    boot_with(&guest, 1);
    const uint64_t fadt = find_table(&guest, "FACP");
    ck_assert_uint_ne(fadt, 0);
    for (unsigned i = 0; i < sizeof fields / sizeof fields[0]; i++)
        ck_assert_msg(guest_double_get(&guest, fadt + fields[i].offset, fields[i].size) == fields[i].value,
                      "offset %u has %#lx", fields[i].offset,
                      (unsigned long)guest_double_get(&guest, fadt + fields[i].offset, fields[i].size));
    const uint64_t facs = guest_double_get(&guest, fadt + 36, 4), dsdt = guest_double_get(&guest, fadt + 140, 8);
    ck_assert_mem_eq(guest_double_at(&guest, facs, 4), "FACS", 4);
    ck_assert_uint_eq(facs % 64, 0);
    ck_assert_uint_eq(guest_double_get(&guest, facs + 4, 4), 64);
    ck_assert_uint_eq(guest_double_get(&guest, fadt + 40, 4), dsdt);
    ck_assert_mem_eq(guest_double_at(&guest, dsdt, 4), "DSDT", 4);
    ck_assert_uint_eq(sum_of(&guest, dsdt, guest_double_get(&guest, dsdt + 4, 4)), 0);
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(madt_lists_every_processor_and_the_io_apic_behind_them) {
    static const unsigned counts[] = {1, 2, 16, 254};
    for (unsigned i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        struct guest_double guest;
        boot_with(&guest, counts[i]);
        const uint64_t madt = find_table(&guest, "APIC");
        const uint64_t end = madt + guest_double_get(&guest, madt + 4, 4);
        unsigned processors = 0, overrides = 0, io_apics = 0;
        for (uint64_t entry = madt + 44; entry < end; entry += guest_double_get(&guest, entry + 1, 1)) {
            const unsigned type = (unsigned)guest_double_get(&guest, entry, 1);
            if (type == 0) {
                ck_assert_uint_eq(guest_double_get(&guest, entry + 3, 1), processors);
                ck_assert_uint_eq(guest_double_get(&guest, entry + 4, 4), 1);
                processors++;
            } else if (type == 1) {
                ck_assert_uint_eq(guest_double_get(&guest, entry + 2, 1), counts[i] < 15 ? counts[i] : 0);
                ck_assert_uint_eq(guest_double_get(&guest, entry + 4, 8), 0xfec00000);
                io_apics++;
            } else if (type == 2) {
                const uint64_t irq = guest_double_get(&guest, entry + 3, 1);
                ck_assert_uint_eq(guest_double_get(&guest, entry + 4, 4), irq == 0 ? 2 : irq);
                ck_assert_uint_eq(guest_double_get(&guest, entry + 8, 2), irq == 0 ? 0 : 0x0d);
                overrides++;
            }
        }
        ck_assert_uint_eq(processors, counts[i]);
        ck_assert_uint_eq(io_apics, 1);
        ck_assert_uint_eq(overrides, 4);
        guest_double_destroy(&guest);
    }
}
END_TEST

START_TEST(hpet_table_has_its_address) {
    struct guest_double guest;
    boot_with(&guest, 1);
    const uint64_t hpet = find_table(&guest, "HPET");
    ck_assert_uint_ne(hpet, 0);
    ck_assert_uint_eq(guest_double_get(&guest, hpet + 36, 4), 0x8086a201);
    ck_assert_uint_eq(guest_double_get(&guest, hpet + 44, 8), 0xfed00000);
    guest_double_destroy(&guest);
}
END_TEST

/* The number of times that a device's compressed id occurs in the DSDT. */
static unsigned count_in_dsdt(const struct guest_double *guest, uint32_t eisa_id) {
    const uint64_t dsdt = guest_double_get(guest, find_table(guest, "FACP") + 140, 8);
    const uint64_t length = guest_double_get(guest, dsdt + 4, 4);
    unsigned count = 0;
    for (uint64_t i = 36; i + 4 <= length; i++)
        count += guest_double_get(guest, dsdt + i, 4) == __builtin_bswap32(eisa_id);
    return count;
}

START_TEST(dsdt_has_only_the_serial_ports_that_exist) {
    struct guest_double guest;
    boot_with(&guest, 1);
    ck_assert_uint_eq(count_in_dsdt(&guest, 0x41d00a03), 1); /* PNP0A03 */
    ck_assert_uint_eq(count_in_dsdt(&guest, 0x41d00501), 2); /* PNP0501 */
    guest.request.serial_count = 1;
    ck_assert(guest_double_boot(&guest));
    ck_assert_uint_eq(count_in_dsdt(&guest, 0x41d00501), 1);
    guest.request.serial_count = 0;
    ck_assert(guest_double_boot(&guest));
    ck_assert_uint_eq(count_in_dsdt(&guest, 0x41d00501), 0);
    guest_double_destroy(&guest);
}
END_TEST

/* What the walk over the MP configuration table counts. */
struct mp_counts {
    unsigned processors, boot_processors, buses, io_apics, isa_sources, pci_sources, local_interrupts;
};

static struct mp_counts walk_mp_table(const struct guest_double *guest, uint64_t table) {
    struct mp_counts counts = {0};
    const unsigned entries = (unsigned)guest_double_get(guest, table + 34, 2);
    uint64_t entry = table + 44;
    for (unsigned i = 0; i < entries; i++) {
        const unsigned type = (unsigned)guest_double_get(guest, entry, 1);
        const bool is_pci = guest_double_get(guest, entry + 4, 1) == 0;
        counts.processors += type == 0;
        counts.boot_processors += type == 0 && guest_double_get(guest, entry + 3, 1) == 3;
        counts.buses += type == 1;
        counts.io_apics += type == 2;
        counts.isa_sources += type == 3 && !is_pci;
        counts.pci_sources += type == 3 && is_pci;
        counts.local_interrupts += type == 4;
        entry += type == 0 ? 20 : 8;
    }
    ck_assert_uint_eq(entry, table + guest_double_get(guest, table + 4, 2));
    return counts;
}

START_TEST(mp_table_counts_and_checksums_agree) {
    static const unsigned counts[] = {1, 2, 254};
    for (unsigned i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        struct guest_double guest;
        boot_with(&guest, counts[i]);
        ck_assert_mem_eq(guest_double_at(&guest, 0xf0000, 4), "_MP_", 4);
        ck_assert_uint_eq(sum_of(&guest, 0xf0000, 16), 0);
        const uint64_t table = guest_double_get(&guest, 0xf0004, 4);
        ck_assert_mem_eq(guest_double_at(&guest, table, 4), "PCMP", 4);
        ck_assert_uint_eq(sum_of(&guest, table, guest_double_get(&guest, table + 4, 2)), 0);
        const struct mp_counts found = walk_mp_table(&guest, table);
        ck_assert_uint_eq(found.processors, counts[i]);
        ck_assert_uint_eq(found.boot_processors, 1);
        ck_assert_uint_eq(found.buses, 2);
        ck_assert_uint_eq(found.io_apics, 1);
        ck_assert_uint_eq(found.isa_sources, 13); /* without the cascade and the two of PCI */
        ck_assert_uint_eq(found.pci_sources, 31 * 4);
        ck_assert_uint_eq(found.local_interrupts, 2);
        guest_double_destroy(&guest);
    }
}
END_TEST

START_TEST(smbios_structures_end_where_the_entry_says) {
    struct guest_double guest;
    boot_with(&guest, 1);
    ck_assert_mem_eq(guest_double_at(&guest, 0xf8000, 4), "_SM_", 4);
    ck_assert_mem_eq(guest_double_at(&guest, 0xf8010, 5), "_DMI_", 5);
    ck_assert_uint_eq(sum_of(&guest, 0xf8000, 31), 0);
    ck_assert_uint_eq(sum_of(&guest, 0xf8010, 15), 0);
    const uint64_t count = guest_double_get(&guest, 0xf801c, 2);
    const uint64_t table = guest_double_get(&guest, 0xf8018, 4);
    uint64_t structure = table, last_type = 0;
    for (uint64_t i = 0; i < count; i++) {
        last_type = guest_double_get(&guest, structure, 1);
        ck_assert_uint_eq(guest_double_get(&guest, structure + 2, 2), i);
        structure += guest_double_get(&guest, structure + 1, 1);
        while (guest_double_get(&guest, structure, 2) != 0)
            structure++;
        structure += 2;
    }
    ck_assert_uint_eq(last_type, 127);
    ck_assert_uint_eq(structure, table + guest_double_get(&guest, 0xf8016, 2));
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(bios_data_area_tells_memory_and_serial_ports) {
    struct guest_double guest;
    boot_with(&guest, 1);
    ck_assert_uint_eq(guest_double_get(&guest, 0x40e, 2), 0x9fc0);
    ck_assert_uint_eq(guest_double_get(&guest, 0x413, 2), 639);
    ck_assert_uint_eq(guest_double_get(&guest, 0x400, 4), 0x02f803f8);
    ck_assert_uint_eq(guest_double_get(&guest, 0x9fc00, 1), 1);
    const uint64_t vector = guest_double_get(&guest, 0x10 * 4, 4);
    ck_assert_uint_eq(guest_double_get(&guest, (vector >> 16) * 16 + (vector & 0xffff), 1), 0xcf);
    guest_double_destroy(&guest);
}
END_TEST

START_TEST(more_processors_than_the_tables_hold_are_refused) {
    struct guest_double guest;
    boot_with(&guest, 254);
    guest.request.vcpu_count = 255;
    ck_assert(!guest_double_boot(&guest));
    ck_assert_ptr_nonnull(strstr(guest.error.text, "at most 254 processors"));
    guest_double_destroy(&guest);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("tables");
    TCase *tests = tcase_create("tables");
    tcase_add_test(tests, rsdp_leads_to_the_same_tables_by_rsdt_and_xsdt);
    tcase_add_test(tests, fadt_names_power_management_ports_facs_and_dsdt);
    tcase_add_test(tests, madt_lists_every_processor_and_the_io_apic_behind_them);
    tcase_add_test(tests, hpet_table_has_its_address);
    tcase_add_test(tests, dsdt_has_only_the_serial_ports_that_exist);
    tcase_add_test(tests, mp_table_counts_and_checksums_agree);
    tcase_add_test(tests, smbios_structures_end_where_the_entry_says);
    tcase_add_test(tests, bios_data_area_tells_memory_and_serial_ports);
    tcase_add_test(tests, more_processors_than_the_tables_hold_are_refused);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
