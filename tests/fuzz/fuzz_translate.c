/*
 * Decoder and translator on any bytes in any mode. Nothing is run. A block that comes out decodes to its last byte,
 * leaves for nowhere but itself and the stubs, has its sites in order, and covers bytes that were there.
 */
#include <Zydis/Zydis.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/mode.h"
#include "tests/coverage/one_block.h"
#include "tests/fuzz/fuzz.h"

enum { CODE_MAX = 256 };

const struct fuzz_word fuzz_words[] = {
    FUZZ_WORD("\x66"),
    FUZZ_WORD("\x67"),
    FUZZ_WORD("\xf0"),
    FUZZ_WORD("\xf2"),
    FUZZ_WORD("\xf3"),
    FUZZ_WORD("\x64"),
    FUZZ_WORD("\x65"),
    FUZZ_WORD("\x2e"),
    FUZZ_WORD("\x48"),
    FUZZ_WORD("\x4f"),
    FUZZ_WORD("\x0f"),
    FUZZ_WORD("\x0f\x38"),
    FUZZ_WORD("\x0f\x3a"),
    FUZZ_WORD("\xc4\xe2\x79"),
    FUZZ_WORD("\xc5\xf8"),
    FUZZ_WORD("\x62\xf1\x7c\x48"),
    FUZZ_WORD("\x62\x02\xfd\x59"),
    FUZZ_WORD("\x8f\xe8\x78"),
    FUZZ_WORD("\xe8\x00\x00\x00\x00"),
    FUZZ_WORD("\xeb\xfe"),
    FUZZ_WORD("\xff\x25"),
    FUZZ_WORD("\x0f\x80"),
    FUZZ_WORD("\xe3\x10"),
    FUZZ_WORD("\xc3"),
    FUZZ_WORD("\xf3\xa4"),
    {NULL, 0},
};

static void must(bool holds) {
    if (!holds)
        abort();
}

static bool is_stub(const struct stubs *stubs, uint64_t address) {
    const uint64_t all[] = {stubs->miss,     stubs->miss_read, stubs->miss_write, stubs->helper,   stubs->exit,
                            stubs->indirect, stubs->prepare,   stubs->commit,     stubs->returned, stubs->set_flags,
                            stubs->crossing, stubs->missed};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i] == address)
            return true;
    return false;
}

static void check_host_code(const struct engine *engine, const struct block *block) {
    ZydisDecoder decoder;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand operand[ZYDIS_MAX_OPERAND_COUNT];
    uint64_t start = (uint64_t)block->host, target;
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    for (uint32_t at = 0; at < block->host_size; at += z.length) {
        must(ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, block->host + at, block->host_size - at, &z, operand)));
        bool branches = z.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE && operand[0].imm.is_relative &&
                        operand[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
        if (!branches)
            continue;
        must(ZYAN_SUCCESS(ZydisCalcAbsoluteAddress(&z, &operand[0], start + at, &target)));
        must(target - start < block->host_size || is_stub(&engine->stubs, target));
    }
}

static void check_block(const struct engine *engine, const struct block *block, unsigned available) {
    must(block->host_size > 0);
    must(block->guest_size <= available || block->second_page != BLOCK_NO_PAGE); /* goes on in the next page */
    for (unsigned i = 0; i < block->site_count; i++) {
        must(block->sites[i].host <= block->host_size);
        must(i == 0 || block->sites[i].host >= block->sites[i - 1].host);
        must(block->sites[i].guest < ONE_BLOCK_PAGE);
    }
    struct map_reader reader = block_map(block);
    must(map_next(&reader));
    for (struct instruction_map before = reader.now; map_next(&reader); before = reader.now)
        must((block->loop || reader.now.guest > before.guest) && reader.now.host >= before.host);
    must(reader.at == block->map + block->map_words);
    check_host_code(engine, block);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct one_block bench;
    struct fuzz_input input = {data, data + size};
    if (!bench.machine && !one_block_create(&bench))
        abort();
    uint32_t key = (uint32_t)fuzz_take(&input, 3) & (MODE_ALIGNMENT * 2 - 1);
    if ((key & MODE_CODE) == MODE_CODE)
        key &= ~(uint32_t)MODE_CODE;
    if ((key & MODE_CODE) == MODE_CODE64)
        key = (key | MODE_LONG | MODE_PROTECTED | MODE_FLAT | MODE_STACK32) & ~(uint32_t)MODE_VM86;
    if (key & MODE_WINDOW) /* only these have windows (cpu/window.c) */
        key = (key | MODE_PROTECTED | MODE_CPL | MODE_FLAT | MODE_STACK32 | ((key & MODE_CODE) ? 0 : MODE_CODE32)) &
              ~(uint32_t)(MODE_VM86 | MODE_TF | MODE_BREAKPOINTS | MODE_SLOW);
    size_t length = (size_t)(input.end - input.at);
    length = length < CODE_MAX ? length : CODE_MAX;
    if (!length)
        return 0;
    uint64_t rip = ONE_BLOCK_PAGE - length;
    memcpy(bench.ram + rip, input.at, length);
    const struct block *block = one_block_translate(&bench, rip, key);
    if (block)
        check_block(&bench.machine->engine, block, (unsigned)length);
    return 0;
}
