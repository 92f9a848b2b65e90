/*
 * The firmware configuration device (QEMU's docs/specs/fw_cfg): selector, data port, DMA interface, file directory.
 *
 * The selector is little-endian, the DMA address and everything that DMA reads from guest memory big-endian. Writing
 * items is left out: no item here is writable, and DMA writes say error.
 */
#include "devices/fw_cfg.h"

#include <stdlib.h>
#include <string.h>

enum { OFFSET_SELECTOR = 0, OFFSET_DATA = 1, OFFSET_DMA_HIGH = 4, OFFSET_DMA_LOW = 8 };
enum { DMA_ERROR = 1, DMA_READ = 2, DMA_SKIP = 4, DMA_SELECT = 8, DMA_WRITE = 16 };
enum { ID_TRADITIONAL = 1, ID_DMA = 2 };
enum { DIRECTORY_HEADER = 4, DIRECTORY_ENTRY = 64 };
enum { KEY_WRITE_CHANNEL = 0x4000 }; /* ignored: an old way to write items */

#define ITEMS_MAX (FW_CFG_FILES_MAX + 64)
/* A read past an item's end gives zeros, but a guest that asks for more of them than this is only wasting our time. */
#define ZEROS_MAX (UINT32_C(1) << 20)

struct item {
    uint16_t key;
    size_t length;
    uint8_t *data;
};

struct fw_cfg {
    struct fw_cfg_config config;
    struct item items[ITEMS_MAX];
    unsigned item_count;
    uint8_t directory[DIRECTORY_HEADER + FW_CFG_FILES_MAX * DIRECTORY_ENTRY];
    unsigned file_count;
    uint16_t selected;
    size_t position; /* in the selected item; never past its end */
    uint32_t dma_high;
};

static void put_big(uint8_t *bytes, uint64_t value, unsigned size) {
    for (unsigned i = 0; i < size; i++)
        bytes[i] = (uint8_t)(value >> (size - 1 - i) * 8);
}

static uint64_t get_big(const uint8_t *bytes, unsigned size) {
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value = value << 8 | bytes[i];
    return value;
}

/* ---- Items ---- */

static struct item *find_item(struct fw_cfg *fw_cfg, uint16_t key) {
    for (unsigned i = 0; i < fw_cfg->item_count; i++)
        if (fw_cfg->items[i].key == key)
            return &fw_cfg->items[i];
    return NULL;
}

bool fw_cfg_add(struct fw_cfg *fw_cfg, uint16_t key, const void *data, size_t length) {
    struct item *item = find_item(fw_cfg, key);
    if (!item && fw_cfg->item_count == ITEMS_MAX)
        return false;
    uint8_t *copy = malloc(length ? length : 1);
    if (!copy)
        return false;
    if (length)
        memcpy(copy, data, length);
    if (!item) {
        item = &fw_cfg->items[fw_cfg->item_count++];
        *item = (struct item){.key = key};
    }
    free(item->data);
    item->data = copy;
    item->length = length;
    if (fw_cfg->selected == key)
        fw_cfg->position = 0;
    return true;
}

bool fw_cfg_add_integer(struct fw_cfg *fw_cfg, uint16_t key, uint64_t value, unsigned size) {
    uint8_t bytes[8];
    for (unsigned i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(value >> i * 8);
    return size <= sizeof bytes && fw_cfg_add(fw_cfg, key, bytes, size);
}

/* A directory entry, big-endian: size 4, key 2, reserved 2, name 56. */
static uint8_t *find_entry(struct fw_cfg *fw_cfg, const char *name) {
    for (unsigned i = 0; i < fw_cfg->file_count; i++) {
        uint8_t *entry = fw_cfg->directory + DIRECTORY_HEADER + i * DIRECTORY_ENTRY;
        if (strcmp((const char *)entry + 8, name) == 0)
            return entry;
    }
    return NULL;
}

bool fw_cfg_add_file(struct fw_cfg *fw_cfg, const char *name, const void *data, size_t length) {
    uint8_t *entry = find_entry(fw_cfg, name);
    const bool is_new = !entry;
    if (strlen(name) >= FW_CFG_NAME_SIZE || length > UINT32_MAX || (is_new && fw_cfg->file_count == FW_CFG_FILES_MAX))
        return false;
    if (is_new) {
        entry = fw_cfg->directory + DIRECTORY_HEADER + fw_cfg->file_count * DIRECTORY_ENTRY;
        put_big(entry + 4, FW_CFG_FILE_FIRST + fw_cfg->file_count, 2);
    }
    if (!fw_cfg_add(fw_cfg, (uint16_t)get_big(entry + 4, 2), data, length))
        return false;
    put_big(entry, length, 4);
    strcpy((char *)entry + 8, name);
    fw_cfg->file_count += is_new;
    put_big(fw_cfg->directory, fw_cfg->file_count, 4);
    return fw_cfg_add(fw_cfg, FW_CFG_FILE_DIR, fw_cfg->directory,
                      DIRECTORY_HEADER + fw_cfg->file_count * DIRECTORY_ENTRY);
}

/* ---- Reading ---- */

static void select_item(struct fw_cfg *fw_cfg, uint16_t key) {
    fw_cfg->selected = key & (uint16_t)~KEY_WRITE_CHANNEL;
    fw_cfg->position = 0;
}

/* What is left of the selected item; an unknown key is an empty item. */
static size_t bytes_left(struct fw_cfg *fw_cfg, const uint8_t **data) {
    const struct item *item = find_item(fw_cfg, fw_cfg->selected);
    *data = item ? item->data + fw_cfg->position : NULL;
    return item ? item->length - fw_cfg->position : 0;
}

static uint8_t read_byte(struct fw_cfg *fw_cfg) {
    const uint8_t *data;
    if (bytes_left(fw_cfg, &data) == 0)
        return 0;
    fw_cfg->position++;
    return *data;
}

/* ---- DMA ---- */

static bool write_zeros(struct fw_cfg *fw_cfg, uint64_t address, uint32_t length) {
    static const uint8_t zeros[4096];
    if (length > ZEROS_MAX)
        return false;
    while (length) {
        const uint32_t chunk = length < sizeof zeros ? length : (uint32_t)sizeof zeros;
        if (!fw_cfg->config.write(fw_cfg->config.opaque, guest_physical_at(address), zeros, chunk))
            return false;
        address += chunk;
        length -= chunk;
    }
    return true;
}

static bool transfer(struct fw_cfg *fw_cfg, uint32_t control, uint32_t length, uint64_t address) {
    const uint8_t *data;
    const size_t left = bytes_left(fw_cfg, &data);
    const uint32_t count = length < left ? length : (uint32_t)left;
    if (control & DMA_READ) {
        if (address + length < address)
            return false;
        if (count && !fw_cfg->config.write(fw_cfg->config.opaque, guest_physical_at(address), data, count))
            return false;
        fw_cfg->position += count;
        return write_zeros(fw_cfg, address + count, length - count);
    }
    if (control & DMA_WRITE)
        return false;
    if (control & DMA_SKIP)
        fw_cfg->position += count;
    return true;
}

/* struct FWCfgDmaAccess, big-endian: control 4, length 4, address 8. Its control becomes 0 when done, or the error. */
static void run_dma(struct fw_cfg *fw_cfg, uint64_t descriptor) {
    uint8_t bytes[16];
    if (!fw_cfg->config.read ||
        !fw_cfg->config.read(fw_cfg->config.opaque, guest_physical_at(descriptor), bytes, sizeof bytes))
        return;
    const uint32_t control = (uint32_t)get_big(bytes, 4);
    if (control & DMA_SELECT)
        select_item(fw_cfg, (uint16_t)(control >> 16));
    const bool is_done = transfer(fw_cfg, control, (uint32_t)get_big(bytes + 4, 4), get_big(bytes + 8, 8));
    put_big(bytes, is_done ? 0 : DMA_ERROR, 4);
    fw_cfg->config.write(fw_cfg->config.opaque, guest_physical_at(descriptor), bytes, 4);
}

/* ---- Ports ---- */

static uint64_t ports_read(void *device, uint64_t offset, unsigned size) {
    static const uint8_t dma_signature[8] = {'Q', 'E', 'M', 'U', ' ', 'C', 'F', 'G'};
    struct fw_cfg *fw_cfg = device;
    if (offset == OFFSET_DATA)
        return read_byte(fw_cfg);
    if (offset < OFFSET_DMA_HIGH || !fw_cfg->config.write)
        return 0;
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)dma_signature[(offset - OFFSET_DMA_HIGH + i) & 7] << i * 8;
    return value;
}

static void ports_write(void *device, uint64_t offset, unsigned size, uint64_t value) {
    struct fw_cfg *fw_cfg = device;
    if (offset == OFFSET_SELECTOR && size == 2) {
        select_item(fw_cfg, (uint16_t)value);
    } else if (offset == OFFSET_DMA_HIGH && size == 4) {
        fw_cfg->dma_high = __builtin_bswap32((uint32_t)value);
    } else if (offset == OFFSET_DMA_LOW && size == 4) {
        const uint64_t descriptor = (uint64_t)fw_cfg->dma_high << 32 | __builtin_bswap32((uint32_t)value);
        fw_cfg->dma_high = 0;
        run_dma(fw_cfg, descriptor);
    }
}

const struct bus_ops fw_cfg_ops = {.read = ports_read, .write = ports_write, .min_size = 1, .max_size = 4};

/* ---- Making ---- */

void fw_cfg_reset(struct fw_cfg *fw_cfg) {
    select_item(fw_cfg, FW_CFG_SIGNATURE);
    fw_cfg->dma_high = 0;
}

struct fw_cfg *fw_cfg_create(const struct fw_cfg_config *config) {
    struct fw_cfg *fw_cfg = calloc(1, sizeof *fw_cfg);
    if (!fw_cfg)
        return NULL;
    const bool has_dma = config->read && config->write;
    if (has_dma)
        fw_cfg->config = *config;
    if (!fw_cfg_add(fw_cfg, FW_CFG_SIGNATURE, "QEMU", 4) ||
        !fw_cfg_add_integer(fw_cfg, FW_CFG_ID, ID_TRADITIONAL | (has_dma ? ID_DMA : 0), 4) ||
        !fw_cfg_add(fw_cfg, FW_CFG_FILE_DIR, fw_cfg->directory, DIRECTORY_HEADER)) {
        fw_cfg_destroy(fw_cfg);
        return NULL;
    }
    return fw_cfg;
}

void fw_cfg_destroy(struct fw_cfg *fw_cfg) {
    if (!fw_cfg)
        return;
    for (unsigned i = 0; i < fw_cfg->item_count; i++)
        free(fw_cfg->items[i].data);
    free(fw_cfg);
}
