/*
 * A PS/2 mouse (IBM PS/2 Hardware Interface Technical Reference, Mouse) that answers every command and never moves;
 * knocked at with the sample rates 200, 100, 80 it says that it has a wheel.
 */
#include "devices/ps2.h"

#include <string.h>

enum { ACK = 0xfa, NAK = 0xfe, BAT_PASSED = 0xaa };

static void set_defaults(struct ps2_mouse *mouse) {
    mouse->rate = 100;
    mouse->resolution = 2;
    mouse->is_reporting = mouse->is_remote = mouse->is_wrapping = mouse->is_scaled = false;
}

void ps2_mouse_reset(struct ps2_mouse *mouse) {
    memset(mouse, 0, sizeof(*mouse));
    set_defaults(mouse);
}

static void put(struct ps2_mouse *mouse, uint8_t byte) {
    ps2_queue_put(&mouse->queue, byte);
}

static void put_packet(struct ps2_mouse *mouse) {
    put(mouse, 0x08);
    put(mouse, 0);
    put(mouse, 0);
    if (mouse->id == 3)
        put(mouse, 0);
}

static void put_status(struct ps2_mouse *mouse) {
    put(mouse, (uint8_t)(mouse->is_remote << 6 | mouse->is_reporting << 5 | mouse->is_scaled << 4));
    put(mouse, mouse->resolution);
    put(mouse, mouse->rate);
}

static void write_parameter(struct ps2_mouse *mouse, uint8_t command, uint8_t byte) {
    put(mouse, ACK);
    if (command == 0xe8) {
        mouse->resolution = byte & 3;
        return;
    }
    if (mouse->rates[0] == 200 && mouse->rates[1] == 100 && byte == 80)
        mouse->id = 3;
    mouse->rates[0] = mouse->rates[1];
    mouse->rates[1] = mouse->rate = byte;
}

static void write_command(struct ps2_mouse *mouse, uint8_t command) {
    mouse->queue.count = 0;
    put(mouse, ACK);
    switch (command) {
    case 0xe6:
    case 0xe7:
        mouse->is_scaled = command == 0xe7;
        break;
    case 0xe8: /* resolution */
    case 0xf3: /* sample rate */
        mouse->command = command;
        break;
    case 0xe9:
        put_status(mouse);
        break;
    case 0xea:
        mouse->is_remote = false;
        break;
    case 0xeb:
        put_packet(mouse);
        break;
    case 0xec:
        mouse->is_wrapping = false;
        break;
    case 0xee:
        mouse->is_wrapping = true;
        break;
    case 0xf0:
        mouse->is_remote = true;
        break;
    case 0xf2:
        put(mouse, mouse->id);
        break;
    case 0xf4:
    case 0xf5:
        mouse->is_reporting = command == 0xf4;
        break;
    case 0xf6:
        set_defaults(mouse);
        break;
    case 0xff:
        ps2_mouse_reset(mouse);
        put(mouse, ACK);
        put(mouse, BAT_PASSED);
        put(mouse, 0);
        break;
    default:
        mouse->queue.count = 0;
        put(mouse, NAK);
        break;
    }
}

void ps2_mouse_write(struct ps2_mouse *mouse, uint8_t byte) {
    uint8_t command = mouse->command;
    mouse->command = 0;
    if (mouse->is_wrapping && byte != 0xec && byte != 0xff)
        put(mouse, byte);
    else if (command)
        write_parameter(mouse, command, byte);
    else
        write_command(mouse, byte);
}
