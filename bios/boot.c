/* Direct boot: which kind of kernel it is, and who loads it; see boot.h. */
#include "bios/boot.h"

#include "bios/bzimage.h"
#include "bios/elf_image.h"
#include "bios/layout.h"
#include "bios/loader.h"
#include "bios/multiboot.h"
#include "bios/pvh.h"
#include "bios/tables.h"

static bool boot_load_kind(struct loader *loader, const struct image *kernel) {
    if (multiboot_matches(kernel))
        return multiboot_load(loader, kernel);
    if (elf_image_matches(kernel))
        return pvh_load(loader, kernel);
    if (bzimage_matches(kernel))
        return bzimage_load(loader, kernel);
    return loader_fail(loader, kernel->path, "not a kernel: no multiboot header, ELF file or Linux bzImage");
}

static bool boot_check_request(struct loader *loader) {
    const struct boot_memory *memory = loader->memory;
    if (memory->ram_below_4g < LAYOUT_HIGH_MEMORY || memory->ram_below_4g > LAYOUT_LOW_RAM_LIMIT)
        return loader_fail(loader, loader->request->kernel, "a direct boot needs 1 MiB to 3 GiB of memory below 4 GiB");
    if (loader->request->vcpu_count > BOOT_VCPUS_MAX)
        return loader_fail(loader, loader->request->kernel, "a direct boot describes at most %d processors",
                           BOOT_VCPUS_MAX);
    return true;
}

bool boot_load(const struct boot_request *request, const struct boot_memory *memory, struct trapeze_registers *bsp,
               struct boot_error *error) {
    struct loader loader = {.request = request, .memory = memory, .bsp = bsp, .error = error};
    struct image kernel;
    if (!boot_check_request(&loader))
        return false;
    const char *reason = image_open(&kernel, request->kernel);
    if (reason)
        return loader_fail(&loader, request->kernel, "%s", reason);
    const bool is_loaded = tables_write(&loader) && boot_load_kind(&loader, &kernel);
    image_close(&kernel);
    return is_loaded;
}
