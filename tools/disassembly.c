/* See disassembly.h. */
#include "tools/disassembly.h"

#include <capstone/capstone.h>
#include <string.h>

static bool open_for(unsigned width, csh *handle) {
    cs_mode mode = width == 64 ? CS_MODE_64 : width == 32 ? CS_MODE_32 : CS_MODE_16;
    return cs_open(CS_ARCH_X86, mode, handle) == CS_ERR_OK;
}

static void print_line(FILE *to, const char *indent, uint64_t address, const uint8_t *code, size_t length,
                       const char *mnemonic, const char *operands) {
    enum { BYTES_COLUMN = 15 };
    fprintf(to, "%s%016llx  ", indent, (unsigned long long)address);
    for (size_t i = 0; i < length; i++)
        fprintf(to, "%02x", code[i]);
    fprintf(to, "%*s  %s%s%s\n", (int)(2 * (BYTES_COLUMN - length)), "", mnemonic, *operands ? " " : "", operands);
}

void disassembly_print(FILE *to, const char *indent, uint64_t address, unsigned width, const uint8_t *code,
                       size_t length) {
    csh handle;
    if (!open_for(width, &handle))
        return;
    cs_insn *instruction = cs_malloc(handle);
    while (instruction && length > 0) {
        const uint8_t *from = code;
        uint64_t at = address;
        if (cs_disasm_iter(handle, &code, &length, &address, instruction)) {
            print_line(to, indent, at, from, instruction->size, instruction->mnemonic, instruction->op_str);
            continue;
        }
        print_line(to, indent, at, from, 1, ".byte", "");
        code = from + 1;
        address = at + 1;
        length--;
    }
    if (instruction)
        cs_free(instruction, 1);
    cs_close(&handle);
}

void disassembly_first(char *text, size_t size, uint64_t address, unsigned width, const uint8_t *code, size_t length) {
    csh handle;
    snprintf(text, size, "(bad)");
    if (!open_for(width, &handle))
        return;
    cs_insn *instruction = cs_malloc(handle);
    if (instruction && cs_disasm_iter(handle, &code, &length, &address, instruction))
        snprintf(text, size, "%s%s%s", instruction->mnemonic, *instruction->op_str ? " " : "", instruction->op_str);
    if (instruction)
        cs_free(instruction, 1);
    cs_close(&handle);
}
