/* See one_block.h. */
#include "tests/coverage/one_block.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cpu/model_internal.h"
#include "tests/coverage/decoded_forms.h"

static bool map_ram(struct one_block *bench) {
    int fd = memfd_create("ram", MFD_CLOEXEC);
    bool is_mapped =
        fd >= 0 && ftruncate(fd, ONE_BLOCK_PAGE) == 0 &&
        trapeze_memory_map(bench->machine, 0, guest_physical_at(0), fd, 0, ONE_BLOCK_PAGE, 0) == TRAPEZE_OK;
    bench->ram = is_mapped ? mmap(NULL, ONE_BLOCK_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (fd >= 0)
        close(fd);
    return bench->ram != MAP_FAILED;
}

bool one_block_create(struct one_block *bench) {
    struct trapeze_config config = {0};
    struct trapeze_vcpu *vcpu;
    if (trapeze_machine_create(&config, &bench->machine, NULL) != TRAPEZE_OK)
        return false;
    memset(bench->machine->model->features, 0xff, sizeof bench->machine->model->features);
    if (!map_ram(bench) || trapeze_vcpu_create(bench->machine, 0, &vcpu) != TRAPEZE_OK) {
        trapeze_machine_destroy(bench->machine);
        return false;
    }
    bench->cpu = vcpu->cpu;
    bench->cpu->segment[CPU_CS].base = 0;
    bench->cpu->segment[CPU_CS].limit = 0xffffffff;
    decoder_destroy(bench->machine->engine.decoder);
    bench->machine->engine.decoder = decoded_forms_decoder();
    return bench->machine->engine.decoder != NULL;
}

void one_block_destroy(struct one_block *bench) {
    munmap(bench->ram, ONE_BLOCK_PAGE);
    trapeze_machine_destroy(bench->machine);
}

struct block *one_block_translate(struct one_block *bench, uint64_t rip, uint32_t key) {
    struct engine *engine = &bench->machine->engine;
    enum cpu_result result;
    uint64_t needed;
    bench->cpu->hot.rip = rip;
    pthread_mutex_lock(&engine->lock);
    struct block *block = translate_block(engine, bench->cpu, rip, key, &result, &needed);
    if (!block && result == CPU_NEXT) { /* the chunk is full */
        world_stop(engine, NULL);
        invalidate_next_chunk(engine);
        world_resume(engine);
        block = translate_block(engine, bench->cpu, rip, key, &result, &needed);
    }
    pthread_mutex_unlock(&engine->lock);
    return block;
}
