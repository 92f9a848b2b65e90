/*
 * The firmware configuration device (QEMU's docs/specs/fw_cfg): named and numbered blobs that firmware and test guests
 * read through ports 510h and 511h, or by DMA through 514h.
 *
 * Everything here is called under the device lock, or before any access is made. Guests only read.
 */
#ifndef DEVICES_FW_CFG_H
#define DEVICES_FW_CFG_H

#include "devices/bus.h"

struct fw_cfg;

enum {
    FW_CFG_PORT = 0x510,
    FW_CFG_PORTS = 12,     /* selector 0 and 1, data 1, DMA address 4..11 */
    FW_CFG_NAME_SIZE = 56, /* of a file, with its terminator */
    FW_CFG_FILES_MAX = 128
};

/* Items with fixed keys. The signature, the feature bitmap and the file directory make themselves. */
enum fw_cfg_key {
    FW_CFG_SIGNATURE = 0x00,
    FW_CFG_ID = 0x01,
    FW_CFG_UUID = 0x02,        /* 16 bytes */
    FW_CFG_RAM_SIZE = 0x03,    /* u64 bytes */
    FW_CFG_NOGRAPHIC = 0x04,   /* u16 */
    FW_CFG_NB_CPUS = 0x05,     /* u16 */
    FW_CFG_KERNEL_ADDR = 0x07, /* u32, as the next three sizes and addresses */
    FW_CFG_KERNEL_SIZE = 0x08,
    FW_CFG_INITRD_ADDR = 0x0A,
    FW_CFG_INITRD_SIZE = 0x0B,
    FW_CFG_BOOT_DEVICE = 0x0C, /* u16 */
    FW_CFG_NUMA = 0x0D,
    FW_CFG_BOOT_MENU = 0x0E, /* u16 */
    FW_CFG_MAX_CPUS = 0x0F,  /* u16 */
    FW_CFG_KERNEL_ENTRY = 0x10,
    FW_CFG_KERNEL_DATA = 0x11,
    FW_CFG_INITRD_DATA = 0x12,
    FW_CFG_CMDLINE_ADDR = 0x13,
    FW_CFG_CMDLINE_SIZE = 0x14,
    FW_CFG_CMDLINE_DATA = 0x15,
    FW_CFG_SETUP_ADDR = 0x16,
    FW_CFG_SETUP_SIZE = 0x17,
    FW_CFG_SETUP_DATA = 0x18,
    FW_CFG_FILE_DIR = 0x19,
    FW_CFG_FILE_FIRST = 0x20
};

struct fw_cfg_config {
    /* Guest-physical memory, for DMA. False: a byte of the range is not memory. One NULL: no DMA is offered. */
    bool (*read)(void *opaque, guest_physical from, void *to, size_t length);
    bool (*write)(void *opaque, guest_physical to, const void *from, size_t length);
    void *opaque;
};

/* FW_CFG_PORTS ports at FW_CFG_PORT; the device is a struct fw_cfg. */
extern const struct bus_ops fw_cfg_ops;

/* NULL: no memory. */
struct fw_cfg *fw_cfg_create(const struct fw_cfg_config *config);
void fw_cfg_destroy(struct fw_cfg *fw_cfg);
void fw_cfg_reset(struct fw_cfg *fw_cfg);

/*
 * Adds an item, or replaces the one with this key; the bytes are copied. False: no memory. Integers are stored
 * little-endian in `size` bytes.
 */
bool fw_cfg_add(struct fw_cfg *fw_cfg, uint16_t key, const void *data, size_t length);
bool fw_cfg_add_integer(struct fw_cfg *fw_cfg, uint16_t key, uint64_t value, unsigned size);
/* A file in the directory ("etc/..."), or the new content of one. False: no memory or room, or too long a name. */
bool fw_cfg_add_file(struct fw_cfg *fw_cfg, const char *name, const void *data, size_t length);

#endif
