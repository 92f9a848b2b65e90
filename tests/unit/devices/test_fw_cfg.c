/* The firmware configuration device through its ports, with a small guest memory for DMA. */
#include <stdio.h>
#include <string.h>

#include "devices/fw_cfg.h"
#include "tests/unit/devices/device_test.h"

enum { MEMORY = 0x4000, DESCRIPTOR = 0x100, TARGET = 0x1000 };

static struct fw_cfg *fw_cfg;
static struct bus *bus;
static uint8_t memory[MEMORY];

static bool memory_holds(guest_physical at, size_t length) {
    return at.value <= MEMORY && length <= MEMORY - at.value;
}

static bool memory_read(void *opaque, guest_physical from, void *to, size_t length) {
    (void)opaque;
    if (!memory_holds(from, length))
        return false;
    memcpy(to, memory + from.value, length);
    return true;
}

static bool memory_write(void *opaque, guest_physical to, const void *from, size_t length) {
    (void)opaque;
    if (!memory_holds(to, length))
        return false;
    memcpy(memory + to.value, from, length);
    return true;
}

static void setup(void) {
    memset(memory, 0xEE, sizeof memory);
    bus = bus_create();
    fw_cfg = fw_cfg_create(&(struct fw_cfg_config){memory_read, memory_write, NULL});
    ck_assert(bus_attach(bus, TRAPEZE_PORT, FW_CFG_PORT, FW_CFG_PORTS, &fw_cfg_ops, fw_cfg, "fw_cfg") == BUS_OK);
}

static void teardown(void) {
    fw_cfg_destroy(fw_cfg);
    bus_destroy(bus);
}

static void out(unsigned port, unsigned size, uint32_t value) {
    bus_write(bus, TRAPEZE_PORT, port, size, value);
}

static uint64_t read_bytes(unsigned count) {
    uint64_t value = 0, byte;
    for (unsigned i = 0; i < count; i++) {
        bus_read(bus, TRAPEZE_PORT, FW_CFG_PORT + 1, 1, &byte);
        value |= (byte & 0xFF) << i * 8;
    }
    return value;
}

static void put_big(uint8_t *bytes, uint64_t value, unsigned size) {
    for (unsigned i = 0; i < size; i++)
        bytes[i] = (uint8_t)(value >> (size - 1 - i) * 8);
}

/* Starts a transfer and answers the control word it left. */
static uint32_t dma(uint32_t control, uint32_t length, uint64_t address) {
    put_big(memory + DESCRIPTOR, control, 4);
    put_big(memory + DESCRIPTOR + 4, length, 4);
    put_big(memory + DESCRIPTOR + 8, address, 8);
    out(FW_CFG_PORT + 4, 4, 0);
    out(FW_CFG_PORT + 8, 4, __builtin_bswap32(DESCRIPTOR));
    const uint8_t *at = memory + DESCRIPTOR;
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

enum { ERROR = 1, READ = 2, SKIP = 4, SELECT = 8, WRITE = 16 };

START_TEST(signature_and_features_are_there) {
    out(FW_CFG_PORT, 2, FW_CFG_SIGNATURE);
    ck_assert_uint_eq(read_bytes(4), 0x554D4551);
    out(FW_CFG_PORT, 2, FW_CFG_ID);
    ck_assert_uint_eq(read_bytes(4), 3);
    uint64_t value;
    bus_read(bus, TRAPEZE_PORT, FW_CFG_PORT + 4, 4, &value);
    ck_assert_uint_eq(value, 0x554D4551);
    bus_read(bus, TRAPEZE_PORT, FW_CFG_PORT + 8, 4, &value);
    ck_assert_uint_eq(value, 0x47464320);
}
END_TEST

START_TEST(integers_are_little_endian_and_end_in_zeros) {
    ck_assert(fw_cfg_add_integer(fw_cfg, FW_CFG_NB_CPUS, 4, 2));
    ck_assert(fw_cfg_add_integer(fw_cfg, FW_CFG_RAM_SIZE, UINT64_C(0x123456789A), 8));
    out(FW_CFG_PORT, 2, FW_CFG_RAM_SIZE);
    ck_assert_uint_eq(read_bytes(8), UINT64_C(0x123456789A));
    ck_assert_uint_eq(read_bytes(8), 0);
    out(FW_CFG_PORT, 2, FW_CFG_NB_CPUS);
    ck_assert_uint_eq(read_bytes(2), 4);
}
END_TEST

START_TEST(unknown_items_are_empty) {
    out(FW_CFG_PORT, 2, 0x3FFF);
    ck_assert_uint_eq(read_bytes(8), 0);
    ck_assert_uint_eq(dma(READ, 4, TARGET), 0);
    ck_assert_uint_eq(memory[TARGET], 0);
}
END_TEST

START_TEST(directory_lists_files) {
    ck_assert(fw_cfg_add_file(fw_cfg, "etc/one", "hello", 5));
    ck_assert(fw_cfg_add_file(fw_cfg, "etc/two", "xy", 2));
    ck_assert(fw_cfg_add_file(fw_cfg, "etc/one", "hello!", 6)); /* new content, same place */
    ck_assert_uint_eq(dma(FW_CFG_FILE_DIR << 16 | SELECT | READ, 4 + 2 * 64, TARGET), 0);
    const uint8_t *directory = memory + TARGET;
    ck_assert_mem_eq(directory,
                     "\0\0\0\2"
                     "\0\0\0\6"
                     "\0\x20\0\0"
                     "etc/one",
                     20);
    ck_assert_mem_eq(directory + 68,
                     "\0\0\0\2"
                     "\0\x21\0\0"
                     "etc/two",
                     16);
    out(FW_CFG_PORT, 2, 0x20);
    ck_assert_uint_eq(read_bytes(6), UINT64_C(0x216F6C6C6568));
}
END_TEST

START_TEST(names_and_files_are_bounded) {
    char name[64];
    memset(name, 'a', sizeof name);
    name[FW_CFG_NAME_SIZE] = 0;
    ck_assert(!fw_cfg_add_file(fw_cfg, name, "", 0));
    name[FW_CFG_NAME_SIZE - 1] = 0;
    ck_assert(fw_cfg_add_file(fw_cfg, name, "", 0));
    for (unsigned i = 1; i < FW_CFG_FILES_MAX; i++) {
        snprintf(name, sizeof name, "opt/%u", i);
        ck_assert(fw_cfg_add_file(fw_cfg, name, "", 0));
    }
    ck_assert(!fw_cfg_add_file(fw_cfg, "opt/more", "", 0));
}
END_TEST

START_TEST(dma_reads_skips_and_fills_with_zeros) {
    ck_assert(fw_cfg_add_file(fw_cfg, "f", "0123456789", 10));
    ck_assert_uint_eq(dma(0x20 << 16 | SELECT | SKIP, 3, 0), 0);
    ck_assert_uint_eq(dma(READ, 4, TARGET), 0);
    ck_assert_mem_eq(memory + TARGET, "3456\xEE", 5);
    ck_assert_uint_eq(dma(READ, 6, TARGET), 0);
    ck_assert_mem_eq(memory + TARGET, "789\0\0\0\xEE", 7);
    ck_assert_uint_eq(dma(SKIP, 0xFFFFFFFF, 0), 0);
    ck_assert_uint_eq(read_bytes(1), 0);
}
END_TEST

START_TEST(dma_errors_are_told) {
    ck_assert(fw_cfg_add_file(fw_cfg, "f", "0123456789", 10));
    ck_assert_uint_eq(dma(0x20 << 16 | SELECT | WRITE, 4, TARGET), ERROR);
    ck_assert_uint_eq(dma(0x20 << 16 | SELECT | READ, 4, MEMORY - 2), ERROR);
    ck_assert_uint_eq(dma(0x20 << 16 | SELECT | READ, 0xFFFFFFFF, TARGET), ERROR);
    ck_assert_uint_eq(dma(READ, 16, UINT64_MAX - 4), ERROR);
    out(FW_CFG_PORT + 4, 4, 0xFFFFFFFF);
    out(FW_CFG_PORT + 8, 4, 0xFFFFFFFF); /* a descriptor that is nowhere */
    ck_assert_uint_eq(dma(0x20 << 16 | SELECT | READ, 1, TARGET), 0);
}
END_TEST

START_TEST(without_memory_no_dma_is_offered) {
    struct fw_cfg *plain = fw_cfg_create(&(struct fw_cfg_config){0});
    fw_cfg_ops.write(plain, 0, 2, FW_CFG_ID);
    ck_assert_uint_eq(fw_cfg_ops.read(plain, 1, 1), 1);
    ck_assert_uint_eq(fw_cfg_ops.read(plain, 4, 4), 0);
    fw_cfg_ops.write(plain, 8, 4, 0);
    fw_cfg_destroy(plain);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("fw_cfg");
    TCase *tests = tcase_create("fw_cfg");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, signature_and_features_are_there);
    tcase_add_test(tests, integers_are_little_endian_and_end_in_zeros);
    tcase_add_test(tests, unknown_items_are_empty);
    tcase_add_test(tests, directory_lists_files);
    tcase_add_test(tests, names_and_files_are_bounded);
    tcase_add_test(tests, dma_reads_skips_and_fills_with_zeros);
    tcase_add_test(tests, dma_errors_are_told);
    tcase_add_test(tests, without_memory_no_dma_is_offered);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
