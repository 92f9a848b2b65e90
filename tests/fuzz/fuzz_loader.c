/*
 * libFuzzer target for the kernel loaders. The first byte chooses a well-formed kernel of tests/unit/bios/synthetic.h,
 * to which the rest are patches, or takes the rest as the file itself. Whatever comes, the loaders store only into RAM,
 * and either say why in one line or give an entry point in RAM.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/unit/bios/guest_double.h"
#include "tests/unit/bios/synthetic.h"

#include <stdlib.h>

#define MIB        UINT64_C(0x100000)
#define FOUR_GIB   UINT64_C(0x100000000)
#define FILE_MAX   65536
#define PATCH_SIZE 11 /* offset (2), width (1), value (8) */

struct fuzz_file {
    uint8_t bytes[FILE_MAX];
    size_t size;
};

const struct fuzz_word fuzz_words[] = {
    FUZZ_WORD("HdrS"),
    FUZZ_WORD("\x7f"
              "ELF"),
    FUZZ_WORD("\x02\xb0\xad\x1b"),
    FUZZ_WORD("Xen"),
    FUZZ_WORD("\xff\xff\xff\xff"),
    FUZZ_WORD("\x00\x00\x10\x00"),
    {NULL, 0},
};

static bool fuzz_write(void *opaque, guest_physical to, const void *from, size_t length) {
    uint8_t *bytes = guest_double_at(opaque, to.value, length);
    const bool is_in_hole = to.value < 0xe0000 && to.value + length > 0xa0000;
    if (!bytes || is_in_hole)
        abort();
    memcpy(bytes, from, length);
    return true;
}

static void fuzz_patch(struct fuzz_file *file, const uint8_t *data, size_t size) {
    for (; size >= PATCH_SIZE; data += PATCH_SIZE, size -= PATCH_SIZE) {
        uint16_t offset;
        memcpy(&offset, data, 2);
        const size_t width = (size_t)1 << (data[2] & 3);
        if (data[2] & 0x80)
            file->size = offset < file->size ? offset : file->size;
        else if (file->size >= width)
            memcpy(file->bytes + offset % (file->size - width + 1), data + 3, width);
    }
}

static void fuzz_make_file(struct fuzz_file *file, const uint8_t *data, size_t size) {
    struct synthetic_elf64 elf64;
    struct synthetic_elf32 elf32;
    const uint8_t kind = size ? data[0] & 7 : 7;
    if (kind == 0) {
        synthetic_bzimage(file->bytes);
        file->size = SYNTHETIC_BZIMAGE_SIZE;
    } else if (kind == 1) {
        synthetic_elf64(&elf64);
        memcpy(file->bytes, &elf64, file->size = sizeof elf64);
    } else if (kind == 2) {
        synthetic_elf32(&elf32);
        memcpy(file->bytes, &elf32, file->size = sizeof elf32);
    } else if (kind == 3) {
        synthetic_flat(file->bytes);
        file->size = SYNTHETIC_FLAT_SIZE;
    } else {
        file->size = size > 1 ? size - 1 : 0;
        file->size = file->size < FILE_MAX ? file->size : FILE_MAX;
        memcpy(file->bytes, data + (size > 0), file->size);
        return;
    }
    fuzz_patch(file, data + 1, size - 1);
}

static void fuzz_check(const struct guest_double *guest, bool is_loaded) {
    const size_t length = strnlen(guest->error.text, sizeof guest->error.text);
    if (!is_loaded && (length == 0 || length == sizeof guest->error.text || memchr(guest->error.text, '\n', length)))
        abort();
    if (is_loaded && (!guest_double_at(guest, guest->bsp.rip, 1) || guest->bsp.rip >= FOUR_GIB))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct fuzz_file file; /* too large for the stack; wholly written before it is read */
    struct guest_double guest;
    guest_double_create(&guest, 32 * MIB, 8 * MIB);
    guest.memory.write = fuzz_write;
    guest.request.has_long_mode = size > 0 && data[0] & 8;
    guest.request.append = size > 0 && data[0] & 16 ? "console=ttyS0" : NULL;
    if (size > 0 && data[0] & 32)
        guest_double_set_initrd(&guest, data, size);
    fuzz_make_file(&file, data, size);
    guest_double_set_kernel(&guest, file.bytes, file.size);
    fuzz_check(&guest, guest_double_boot(&guest));
    guest_double_destroy(&guest);
    return 0;
}
