/* Small kernels for tests; see synthetic.h. */
#include "tests/unit/bios/synthetic.h"

static void synthetic_pattern(uint8_t *bytes, size_t size) {
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(i * 7 + 1);
}

void synthetic_bzimage(uint8_t file[SYNTHETIC_BZIMAGE_SIZE]) {
    static const struct {
        uint16_t offset, size;
        uint64_t value;
    } fields[] = {
        {0x1f1, 1, 4},          {0x1f4, 4, 4096 / 16}, {0x1fe, 2, 0xaa55},   {0x200, 2, 0x6aeb},
        {0x202, 4, 0x53726448}, {0x206, 2, 0x20f},     {0x211, 1, 1},        {0x214, 4, 0x100000},
        {0x22c, 4, 0x7fffffff}, {0x230, 4, 0x200000},  {0x234, 1, 1},        {0x236, 2, 3},
        {0x238, 4, 2047},       {0x258, 8, 0x1000000}, {0x260, 4, 0x800000}, {0x264, 4, 0x11223344},
    };
    memset(file, 0, SYNTHETIC_BZIMAGE_SIZE);
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        synthetic_put(file, fields[i].offset, fields[i].size, fields[i].value);
    synthetic_pattern(file + SYNTHETIC_BZIMAGE_PAYLOAD, 4096);
}

void synthetic_elf64(struct synthetic_elf64 *file) {
    *file = (struct synthetic_elf64){
        .header = {.e_type = ET_EXEC,
                   .e_machine = EM_X86_64,
                   .e_version = EV_CURRENT,
                   .e_entry = 0xffffffff80100000,
                   .e_phoff = offsetof(struct synthetic_elf64, segment),
                   .e_ehsize = sizeof(Elf64_Ehdr),
                   .e_phentsize = sizeof(Elf64_Phdr),
                   .e_phnum = 3},
        .segment = {{.p_type = PT_LOAD,
                     .p_offset = offsetof(struct synthetic_elf64, code),
                     .p_vaddr = 0xffffffff80100000,
                     .p_paddr = 0x100000,
                     .p_filesz = 512,
                     .p_memsz = 4096},
                    {.p_type = PT_LOAD,
                     .p_offset = offsetof(struct synthetic_elf64, data),
                     .p_vaddr = 0xffffffff80200000,
                     .p_paddr = 0x200000,
                     .p_filesz = 256,
                     .p_memsz = 256},
                    {.p_type = PT_NOTE,
                     .p_offset = offsetof(struct synthetic_elf64, note),
                     .p_filesz = 20,
                     .p_memsz = 20,
                     .p_align = 4}},
        .note = {.header = {4, 4, 18}, .name = "Xen", .entry = 0x100040},
    };
    memcpy(file->header.e_ident, ELFMAG "\2\1\1", 7);
    synthetic_pattern(file->code, sizeof file->code);
    synthetic_pattern(file->data, sizeof file->data);
}

void synthetic_elf32(struct synthetic_elf32 *file) {
    *file = (struct synthetic_elf32){
        .header = {.e_type = ET_EXEC,
                   .e_machine = EM_386,
                   .e_version = EV_CURRENT,
                   .e_entry = 0xc0100020,
                   .e_phoff = offsetof(struct synthetic_elf32, segment),
                   .e_ehsize = sizeof(Elf32_Ehdr),
                   .e_phentsize = sizeof(Elf32_Phdr),
                   .e_phnum = 1},
        .segment = {{.p_type = PT_LOAD,
                     .p_offset = offsetof(struct synthetic_elf32, multiboot),
                     .p_vaddr = 0xc0100000,
                     .p_paddr = 0x100000,
                     .p_filesz = 512,
                     .p_memsz = 4096}},
        .multiboot = {0x1badb002, 3, (uint32_t) - (0x1badb002 + 3)},
    };
    memcpy(file->header.e_ident, ELFMAG "\1\1\1", 7);
    synthetic_pattern(file->code, sizeof file->code);
}

void synthetic_flat(uint8_t file[SYNTHETIC_FLAT_SIZE]) {
    const uint32_t header[8] = {
        0x1badb002,
        0x10003,
        (uint32_t) - (0x1badb002 + 0x10003),
        0x200000 + SYNTHETIC_FLAT_HEADER,
        0x200000,
        0x200000 + SYNTHETIC_FLAT_SIZE,
        0x200000 + SYNTHETIC_FLAT_SIZE + 4096,
        0x200080,
    };
    synthetic_pattern(file, SYNTHETIC_FLAT_SIZE);
    memcpy(file + SYNTHETIC_FLAT_HEADER, header, sizeof header);
}
