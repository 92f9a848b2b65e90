/*
 * A PS/2 keyboard (IBM PS/2 Hardware Interface Technical Reference, Keyboard): scan code sets 1 and 2. Set 3 is
 * refused, and typematic repeat is left to whatever reports the keys.
 */
#include "devices/ps2.h"

#include <string.h>

enum { ACK = 0xfa, RESEND = 0xfe, BAT_PASSED = 0xaa, BREAK = 0xf0, KEY_ROOM = 16 };

void ps2_queue_put(struct ps2_queue *queue, uint8_t byte) {
    if (queue->count < PS2_QUEUE)
        queue->bytes[(queue->at + queue->count++) % PS2_QUEUE] = byte;
}

bool ps2_queue_take(struct ps2_queue *queue, uint8_t *byte) {
    if (!queue->count)
        return false;
    *byte = queue->bytes[queue->at];
    queue->at = (uint8_t)((queue->at + 1) % PS2_QUEUE);
    queue->count--;
    return true;
}

/* Set 2 to set 1, as the ROM of the 8042 has it; from 85h on codes are their own translation. */
uint8_t ps2_translate(uint8_t set2) {
    static const uint8_t table[0x85] = {
        0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59, /* 00 */
        0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b, /* 10 */
        0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d, /* 20 */
        0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f, /* 30 */
        0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61, /* 40 */
        0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76, /* 50 */
        0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f, /* 60 */
        0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54, /* 70 */
        0x80, 0x81, 0x82, 0x41, 0x54,                                                                   /* 80 */
    };
    return set2 < sizeof(table) ? table[set2] : set2;
}

/* From the top, where F7 (83h) and SysRq (84h) have their codes; 02h and 7Fh translate alike but no key sends them. */
static uint8_t set2_of(uint8_t set1) {
    unsigned code = 0x84;
    while (code && ps2_translate((uint8_t)code) != set1)
        code--;
    return (uint8_t)code;
}

static void put_code(struct ps2_keyboard *keyboard, uint8_t code, bool is_pressed) {
    if (keyboard->set == 1) {
        ps2_queue_put(&keyboard->queue, is_pressed ? code : code | 0x80);
        return;
    }
    if (!is_pressed)
        ps2_queue_put(&keyboard->queue, BREAK);
    ps2_queue_put(&keyboard->queue, set2_of(code));
}

void ps2_keyboard_key(struct ps2_keyboard *keyboard, unsigned key, bool is_pressed) {
    if (!keyboard->is_scanning || keyboard->queue.count > KEY_ROOM)
        return;
    if (key != PS2_KEY_PAUSE) {
        if (key >> 8)
            ps2_queue_put(&keyboard->queue, 0xe0);
        put_code(keyboard, key & 0x7f, is_pressed);
        return;
    }
    for (unsigned i = 0; i < 2 && is_pressed; i++) { /* make and break at once, nothing on release */
        ps2_queue_put(&keyboard->queue, 0xe1);
        put_code(keyboard, 0x1d, i == 0);
        put_code(keyboard, 0x45, i == 0);
    }
}

void ps2_keyboard_reset(struct ps2_keyboard *keyboard) {
    memset(keyboard, 0, sizeof(*keyboard));
    keyboard->set = 2;
    keyboard->is_scanning = true;
}

static void reply(struct ps2_keyboard *keyboard, uint8_t byte) {
    keyboard->last = byte;
    ps2_queue_put(&keyboard->queue, byte);
}

static void write_parameter(struct ps2_keyboard *keyboard, uint8_t command, uint8_t byte) {
    if (command == 0xf0 && byte > 2) {
        reply(keyboard, RESEND);
        return;
    }
    reply(keyboard, ACK);
    if (command == 0xed)
        keyboard->leds = byte & 7;
    else if (command == 0xf0 && byte == 0)
        reply(keyboard, keyboard->set);
    else if (command == 0xf0)
        keyboard->set = byte;
}

static void set_defaults(struct ps2_keyboard *keyboard, bool is_scanning) {
    ps2_keyboard_reset(keyboard);
    keyboard->is_scanning = is_scanning;
}

static void write_command(struct ps2_keyboard *keyboard, uint8_t command) {
    switch (command) {
    case 0xee: /* echo */
        reply(keyboard, 0xee);
        return;
    case 0xfe:
        ps2_queue_put(&keyboard->queue, keyboard->last);
        return;
    case 0xed: /* LEDs */
    case 0xf0: /* scan code set */
    case 0xf3: /* typematic rate */
    case 0xfb: /* one key: typematic, make/break, make only; they matter to set 3 alone */
    case 0xfc:
    case 0xfd:
        keyboard->command = command;
        reply(keyboard, ACK);
        return;
    case 0xf2: /* identify */
        reply(keyboard, ACK);
        reply(keyboard, 0xab);
        reply(keyboard, 0x83);
        return;
    case 0xf4:
        keyboard->queue.count = 0;
        keyboard->is_scanning = true;
        break;
    case 0xf5:
    case 0xf6:
        set_defaults(keyboard, command == 0xf6);
        break;
    case 0xf7: /* all keys: the same for set 3 */
    case 0xf8:
    case 0xf9:
    case 0xfa:
        break;
    case 0xff:
        set_defaults(keyboard, true);
        reply(keyboard, ACK);
        reply(keyboard, BAT_PASSED);
        return;
    default:
        reply(keyboard, RESEND);
        return;
    }
    reply(keyboard, ACK);
}

void ps2_keyboard_write(struct ps2_keyboard *keyboard, uint8_t byte) {
    uint8_t command = keyboard->command;
    keyboard->command = 0;
    if (command && !(byte & 0x80)) /* a new command takes the place of a parameter */
        write_parameter(keyboard, command, byte);
    else
        write_command(keyboard, byte);
}
