/*
 * Packets of gdb's remote serial protocol (the gdb manual, E.1 "Overview"): $data#checksum with escapes, a lone 03h as
 * an interrupt, + and - as acknowledgements; and the texts that packets are made of.
 */
#ifndef TOOLS_GDB_PACKET_H
#define TOOLS_GDB_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GDB_PACKET_MAX = 0x4000 }; /* bytes of data, either way */

enum gdb_input { GDB_NOTHING, GDB_PACKET, GDB_DAMAGED, GDB_INTERRUPT, GDB_ACK, GDB_NAK };

struct gdb_reader {
    enum { GDB_BETWEEN, GDB_DATA, GDB_ESCAPE, GDB_SUM_HIGH, GDB_SUM_LOW } stage;
    uint8_t sum, told_sum;
    bool is_too_long;
    size_t length;
    char data[GDB_PACKET_MAX + 1]; /* the last packet, unescaped, with a 0 behind it */
};

/* Takes one byte from the client and says what it completes. A packet stays in reader->data until the next call. */
enum gdb_input gdb_reader_take(struct gdb_reader *reader, uint8_t byte);

/* What a packet says, before it is framed. What does not fit is left out, and `is_full` set. */
struct gdb_text {
    size_t length;
    bool is_full;
    char data[GDB_PACKET_MAX];
};

void gdb_text_add(struct gdb_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void gdb_text_add_hex(struct gdb_text *text, const void *bytes, size_t count);
/* Bytes as they are, escaped where the framing asks for it. */
void gdb_text_add_binary(struct gdb_text *text, const void *bytes, size_t count);
/* "$...#xx" into `frame`, which has room for GDB_PACKET_MAX + 4 bytes; its length. */
size_t gdb_text_frame(const struct gdb_text *text, char *frame);

/* A hexadecimal number at *cursor, which moves behind it. False where there is no digit, or more than 16. */
bool gdb_parse_number(const char **cursor, uint64_t *number);
/* Moves *cursor over `word` where it is next. */
bool gdb_parse_word(const char **cursor, const char *word);
/* 2 * count digits at *cursor into `bytes`. */
bool gdb_parse_bytes(const char **cursor, void *bytes, size_t count);

#endif
