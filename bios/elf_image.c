/* ELF executables as kernels; see elf_image.h. */
#include "bios/elf_image.h"

#include <gelf.h>
#include <string.h>

/* More than any kernel has, and few enough to load in no time. */
#define SEGMENTS_MAX   64
#define NOTES_SIZE_MAX 65536

bool elf_image_matches(const struct image *file) {
    uint8_t magic[SELFMAG];
    return image_read(file, 0, magic, sizeof magic) && memcmp(magic, ELFMAG, SELFMAG) == 0;
}

static const char *elf_image_machine_name(unsigned machine) {
    static const struct {
        unsigned machine;
        const char *name;
    } names[] = {
        {EM_ARM, "ARM"},       {EM_AARCH64, "AArch64"}, {EM_PPC, "PowerPC"}, {EM_PPC64, "64-bit PowerPC"},
        {EM_RISCV, "RISC-V"},  {EM_S390, "S/390"},      {EM_MIPS, "MIPS"},   {EM_SPARCV9, "SPARC"},
        {EM_IA_64, "Itanium"},
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (names[i].machine == machine)
            return names[i].name;
    return "unknown";
}

static bool elf_image_check(struct loader *loader, struct elf_image *elf) {
    const char *path = elf->file->path;
    GElf_Ehdr header;
    if (elf_kind(elf->handle) != ELF_K_ELF || !gelf_getehdr(elf->handle, &header))
        return loader_fail(loader, path, "the ELF header is damaged or truncated");
    if (header.e_ident[EI_DATA] != ELFDATA2LSB || (header.e_machine != EM_386 && header.e_machine != EM_X86_64))
        return loader_fail(loader, path, "an ELF file for another machine (%u, %s), not for x86", header.e_machine,
                           elf_image_machine_name(header.e_machine));
    if (header.e_type != ET_EXEC && header.e_type != ET_DYN)
        return loader_fail(loader, path, "an ELF file that is not an executable (type %u)", header.e_type);
    if (elf_getphdrnum(elf->handle, &elf->segment_count) != 0 || elf->segment_count == 0)
        return loader_fail(loader, path, "the ELF file has no program headers");
    if (elf->segment_count > SEGMENTS_MAX)
        return loader_fail(loader, path, "the ELF file has %zu program headers, at most %d are supported",
                           elf->segment_count, SEGMENTS_MAX);
    GElf_Phdr segment;
    for (size_t i = 0; i < elf->segment_count; i++)
        if (!gelf_getphdr(elf->handle, (int)i, &segment))
            return loader_fail(loader, path, "the ELF program headers are damaged or truncated");
    elf->entry = header.e_entry;
    return true;
}

bool elf_image_open(struct loader *loader, const struct image *file, struct elf_image *elf) {
    elf_version(EV_CURRENT);
    *elf = (struct elf_image){.file = file, .handle = elf_begin(file->fd, ELF_C_READ, NULL)};
    if (!elf->handle)
        return loader_fail(loader, file->path, "the ELF header is damaged or truncated");
    if (elf_image_check(loader, elf))
        return true;
    elf_image_close(elf);
    return false;
}

void elf_image_close(struct elf_image *elf) {
    elf_end(elf->handle);
    elf->handle = NULL;
}

/* Segment i when it takes memory: PT_LOAD and not empty. */
static bool elf_image_loadable(const struct elf_image *elf, size_t i, GElf_Phdr *segment) {
    return gelf_getphdr(elf->handle, (int)i, segment) && segment->p_type == PT_LOAD && segment->p_memsz > 0;
}

static bool elf_image_load_segment(struct loader *loader, const struct elf_image *elf, size_t i,
                                   const GElf_Phdr *segment) {
    const char *path = elf->file->path;
    if (segment->p_filesz > segment->p_memsz)
        return loader_fail(loader, path, "segment %zu has more bytes in the file than in memory", i);
    if (!image_contains(elf->file, segment->p_offset, segment->p_filesz))
        return loader_fail(loader, path, "the ELF file is truncated: segment %zu is beyond its end", i);
    const uint64_t end = segment->p_paddr + segment->p_memsz;
    if (!loader_take(loader, path, &(struct loader_extent){segment->p_paddr, end, "a segment of the kernel"}))
        return false;
    return loader_copy(loader, elf->file, segment->p_offset, segment->p_paddr, segment->p_filesz) &&
           loader_zero(loader, segment->p_paddr + segment->p_filesz, segment->p_memsz - segment->p_filesz);
}

bool elf_image_load(struct loader *loader, const struct elf_image *elf) {
    unsigned loaded = 0;
    GElf_Phdr segment;
    for (size_t i = 0; i < elf->segment_count; i++) {
        if (!elf_image_loadable(elf, i, &segment))
            continue;
        if (!elf_image_load_segment(loader, elf, i, &segment))
            return false;
        loaded++;
    }
    return loaded > 0 || loader_fail(loader, elf->file->path, "the ELF file has nothing to load");
}

static bool elf_image_note_in(const struct elf_image *elf, const GElf_Phdr *segment, const char *name, uint32_t type,
                              uint64_t *value) {
    if (segment->p_filesz > NOTES_SIZE_MAX || !image_contains(elf->file, segment->p_offset, segment->p_filesz))
        return false;
    Elf_Data *notes = elf_getdata_rawchunk(elf->handle, (int64_t)segment->p_offset, segment->p_filesz,
                                           segment->p_align == 8 ? ELF_T_NHDR8 : ELF_T_NHDR);
    const size_t name_size = strlen(name) + 1;
    size_t offset = 0, name_offset, value_offset;
    GElf_Nhdr note;
    while (notes && (offset = gelf_getnote(notes, offset, &note, &name_offset, &value_offset)) > 0) {
        const uint8_t *bytes = notes->d_buf;
        if (note.n_type != type || note.n_namesz != name_size || memcmp(bytes + name_offset, name, name_size) != 0)
            continue;
        if (note.n_descsz != 4 && note.n_descsz != 8)
            continue;
        *value = 0;
        memcpy(value, bytes + value_offset, note.n_descsz);
        return true;
    }
    return false;
}

bool elf_image_note(const struct elf_image *elf, const char *name, uint32_t type, uint64_t *value) {
    GElf_Phdr segment;
    for (size_t i = 0; i < elf->segment_count; i++)
        if (gelf_getphdr(elf->handle, (int)i, &segment) && segment.p_type == PT_NOTE &&
            elf_image_note_in(elf, &segment, name, type, value))
            return true;
    return false;
}

uint64_t elf_image_physical(const struct elf_image *elf, uint64_t address) {
    GElf_Phdr segment;
    for (size_t i = 0; i < elf->segment_count; i++)
        if (elf_image_loadable(elf, i, &segment) && address - segment.p_vaddr < segment.p_memsz)
            return address - segment.p_vaddr + segment.p_paddr;
    return address;
}

bool elf_image_covers(const struct elf_image *elf, uint64_t physical) {
    GElf_Phdr segment;
    for (size_t i = 0; i < elf->segment_count; i++)
        if (elf_image_loadable(elf, i, &segment) && physical - segment.p_paddr < segment.p_memsz)
            return true;
    return false;
}
