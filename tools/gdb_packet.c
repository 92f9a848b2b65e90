/* See gdb_packet.h. */
#include "tools/gdb_packet.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static int digit_of(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* ---- Reading ---- */

static enum gdb_input take_between(struct gdb_reader *reader, uint8_t byte) {
    switch (byte) {
    case '$':
        reader->stage = GDB_DATA;
        reader->sum = 0;
        reader->length = 0;
        reader->is_too_long = false;
        return GDB_NOTHING;
    case 3:
        return GDB_INTERRUPT;
    case '+':
        return GDB_ACK;
    case '-':
        return GDB_NAK;
    default:
        return GDB_NOTHING;
    }
}

static void keep(struct gdb_reader *reader, uint8_t byte) {
    if (reader->length < GDB_PACKET_MAX)
        reader->data[reader->length++] = (char)byte;
    else
        reader->is_too_long = true;
}

static enum gdb_input finish(struct gdb_reader *reader, uint8_t byte) {
    int high = digit_of((char)reader->told_sum), low = digit_of((char)byte);
    reader->stage = GDB_BETWEEN;
    reader->data[reader->length] = 0;
    if (high < 0 || low < 0 || (high << 4 | low) != reader->sum || reader->is_too_long)
        return GDB_DAMAGED;
    return GDB_PACKET;
}

enum gdb_input gdb_reader_take(struct gdb_reader *reader, uint8_t byte) {
    switch (reader->stage) {
    case GDB_BETWEEN:
        return take_between(reader, byte);
    case GDB_DATA:
        if (byte == '#') {
            reader->stage = GDB_SUM_HIGH;
        } else if (byte == '$') {
            take_between(reader, byte); /* the rest of the last packet was lost */
        } else {
            reader->sum = (uint8_t)(reader->sum + byte);
            if (byte == '}')
                reader->stage = GDB_ESCAPE;
            else
                keep(reader, byte);
        }
        return GDB_NOTHING;
    case GDB_ESCAPE:
        reader->sum = (uint8_t)(reader->sum + byte);
        reader->stage = GDB_DATA;
        keep(reader, byte ^ 0x20);
        return GDB_NOTHING;
    case GDB_SUM_HIGH:
        reader->told_sum = byte;
        reader->stage = GDB_SUM_LOW;
        return GDB_NOTHING;
    case GDB_SUM_LOW:
        return finish(reader, byte);
    }
    return GDB_NOTHING;
}

/* ---- Writing ---- */

static void add_byte(struct gdb_text *text, char byte) {
    if (text->length < sizeof(text->data))
        text->data[text->length++] = byte;
    else
        text->is_full = true;
}

void gdb_text_add(struct gdb_text *text, const char *format, ...) {
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    for (const char *c = line; *c; c++)
        add_byte(text, *c);
}

void gdb_text_add_hex(struct gdb_text *text, const void *bytes, size_t count) {
    static const char digits[] = "0123456789abcdef";
    const uint8_t *from = bytes;
    for (size_t i = 0; i < count; i++) {
        add_byte(text, digits[from[i] >> 4]);
        add_byte(text, digits[from[i] & 15]);
    }
}

void gdb_text_add_binary(struct gdb_text *text, const void *bytes, size_t count) {
    const char *from = bytes;
    for (size_t i = 0; i < count; i++) {
        bool is_special = from[i] == '$' || from[i] == '#' || from[i] == '}' || from[i] == '*';
        if (is_special)
            add_byte(text, '}');
        add_byte(text, is_special ? (char)(from[i] ^ 0x20) : from[i]);
    }
}

size_t gdb_text_frame(const struct gdb_text *text, char *frame) {
    static const char digits[] = "0123456789abcdef";
    uint8_t sum = 0;
    size_t at = 0;
    frame[at++] = '$';
    for (size_t i = 0; i < text->length; i++) {
        sum = (uint8_t)(sum + (uint8_t)text->data[i]);
        frame[at++] = text->data[i];
    }
    frame[at++] = '#';
    frame[at++] = digits[sum >> 4];
    frame[at++] = digits[sum & 15];
    return at;
}

/* ---- Parsing ---- */

bool gdb_parse_number(const char **cursor, uint64_t *number) {
    const char *from = *cursor;
    *number = 0;
    for (; digit_of(**cursor) >= 0; ++*cursor) {
        if (*number >> 60)
            return false;
        *number = *number << 4 | (unsigned)digit_of(**cursor);
    }
    return *cursor != from;
}

bool gdb_parse_word(const char **cursor, const char *word) {
    size_t length = strlen(word);
    if (strncmp(*cursor, word, length) != 0)
        return false;
    *cursor += length;
    return true;
}

bool gdb_parse_bytes(const char **cursor, void *bytes, size_t count) {
    uint8_t *to = bytes;
    for (size_t i = 0; i < count; i++) {
        int high = digit_of((*cursor)[0]), low = high < 0 ? -1 : digit_of((*cursor)[1]);
        if (low < 0)
            return false;
        to[i] = (uint8_t)(high << 4 | low);
        *cursor += 2;
    }
    return true;
}
