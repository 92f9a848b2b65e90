/*
 * The command line. Arguments are separated by zero bytes. A refusal is one line of printable text; what is taken is
 * within the limits that the rest of the command counts on.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "tools/option_unsupported.h"
#include "tools/options.h"

enum { ARGUMENTS = 24, TEXT = 4096 };

const struct fuzz_word fuzz_words[] = {
    FUZZ_WORD("-kernel\0k"),
    FUZZ_WORD("\0-initrd\0i"),
    FUZZ_WORD("\0-append\0a"),
    FUZZ_WORD("\0-m\0"),
    FUZZ_WORD("\0-smp\0"),
    FUZZ_WORD("\0-cpu\0"),
    FUZZ_WORD("\0-machine\0"),
    FUZZ_WORD("\0-M\0"),
    FUZZ_WORD("\0-global\0"),
    FUZZ_WORD("\0-accel\0"),
    FUZZ_WORD("\0-enable-kvm"),
    FUZZ_WORD("\0-device\0"),
    FUZZ_WORD("\0-serial\0"),
    FUZZ_WORD("\0-debugcon\0"),
    FUZZ_WORD("\0-nographic"),
    FUZZ_WORD("\0-display\0none"),
    FUZZ_WORD("\0-vga\0none"),
    FUZZ_WORD("\0-monitor\0none"),
    FUZZ_WORD("\0-nodefaults"),
    FUZZ_WORD("\0-no-reboot"),
    FUZZ_WORD("\0-S"),
    FUZZ_WORD("\0-s"),
    FUZZ_WORD("\0-gdb\0"),
    FUZZ_WORD("\0-d\0"),
    FUZZ_WORD("\0-D\0"),
    FUZZ_WORD("\0-name\0"),
    FUZZ_WORD("\0-pidfile\0"),
    FUZZ_WORD("help"),
    FUZZ_WORD("?"),
    FUZZ_WORD("tcg"),
    FUZZ_WORD("kvm"),
    FUZZ_WORD("accel="),
    FUZZ_WORD("tb-size="),
    FUZZ_WORD("thread=multi"),
    FUZZ_WORD("cpus="),
    FUZZ_WORD("sockets="),
    FUZZ_WORD("cores="),
    FUZZ_WORD("threads="),
    FUZZ_WORD("maxcpus="),
    FUZZ_WORD("dies="),
    FUZZ_WORD("size="),
    FUZZ_WORD("64G"),
    FUZZ_WORD("18446744073709551615"),
    FUZZ_WORD("0x"),
    FUZZ_WORD("pc"),
    FUZZ_WORD("type="),
    FUZZ_WORD("pit="),
    FUZZ_WORD("kernel_irqchip="),
    FUZZ_WORD("vmport=off"),
    FUZZ_WORD("isa-debug-exit"),
    FUZZ_WORD(",iobase="),
    FUZZ_WORD(",iosize="),
    FUZZ_WORD("pc-testdev"),
    FUZZ_WORD("pci-testdev"),
    FUZZ_WORD("driver="),
    FUZZ_WORD("stdio"),
    FUZZ_WORD("mon:stdio"),
    FUZZ_WORD("null"),
    FUZZ_WORD("none"),
    FUZZ_WORD("in_asm"),
    FUZZ_WORD("out_asm"),
    FUZZ_WORD("unimp"),
    FUZZ_WORD("exits"),
    FUZZ_WORD("tcp::1234"),
    FUZZ_WORD("unix:"),
    FUZZ_WORD("on"),
    FUZZ_WORD("off"),
    FUZZ_WORD("="),
    FUZZ_WORD(","),
    {NULL, 0},
};

static void must(bool holds) {
    if (!holds)
        abort();
}

static void check_refusal(const struct options_error *error) {
    size_t length = strnlen(error->text, sizeof error->text);
    must(length > 0 && length < sizeof error->text);
    for (size_t i = 0; i < length; i++)
        must((unsigned char)error->text[i] >= ' ' && error->text[i] != 0x7f);
}

static void check_options(const struct options *options) {
    must(options->kernel != NULL);
    must(options->memory >= OPTIONS_MEMORY_MIN && options->memory <= OPTIONS_MEMORY_MAX);
    must(options->memory % 4096 == 0);
    must(options->vcpu_count >= 1 && options->vcpu_count <= OPTIONS_VCPUS_MAX);
    must(options->serial_count <= OPTIONS_SERIALS);
    must(options->code_cache <= (uint64_t)4096 << 20);
    must(!options->has_debug_exit || options->debug_exit_base + options->debug_exit_size <= 0x10000);
    must(!options->starts_paused || options->gdb);
    unsigned warnings = 0;
    while (options_warning(options, warnings))
        warnings++;
    must(warnings < 16);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char text[TEXT + 1], *arguments[ARGUMENTS + 2] = {"trapeze"};
    struct options options;
    struct options_error error = {{0}};
    int count = 1;
    size = size < TEXT ? size : TEXT;
    if (size)
        memcpy(text, data, size);
    text[size] = 0;
    for (char *at = text; at < text + size && count <= ARGUMENTS; at += strlen(at) + 1)
        arguments[count++] = at;
    if (!options_parse(&options, count, arguments, &error)) {
        check_refusal(&error);
        return 0;
    }
    if (options.list == OPTIONS_LIST_NONE)
        check_options(&options);
    else
        must(options.list == OPTIONS_LIST_CPUS || options_list_text(options.list));
    return 0;
}
