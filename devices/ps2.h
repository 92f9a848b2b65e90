/*
 * PS/2 devices: the byte queue towards the controller, the keyboard, the mouse.
 *
 * A device takes bytes from the controller with *_write and leaves its own in `queue`; the controller fetches them.
 */
#ifndef DEVICES_PS2_H
#define DEVICES_PS2_H

#include <stdbool.h>
#include <stdint.h>

#define PS2_QUEUE 32

struct ps2_queue {
    uint8_t bytes[PS2_QUEUE];
    uint8_t at, count;
};

/* Drops the byte when the queue is full. */
void ps2_queue_put(struct ps2_queue *queue, uint8_t byte);
/* False when it is empty. */
bool ps2_queue_take(struct ps2_queue *queue, uint8_t *byte);

struct ps2_keyboard {
    struct ps2_queue queue;
    uint8_t command; /* waits for its parameter; 0: none */
    uint8_t last;    /* sent, for a resend */
    uint8_t set;     /* scan code set 1 or 2 */
    uint8_t leds;
    bool is_scanning;
};

/* Power-on state: scan code set 2, scanning. */
void ps2_keyboard_reset(struct ps2_keyboard *keyboard);
void ps2_keyboard_write(struct ps2_keyboard *keyboard, uint8_t byte);
/*
 * A key moves. `key` is its make code in set 1: 01h..7Fh, E001h..E07Fh, or PS2_KEY_PAUSE. Lost when the keyboard's
 * buffer is full or scanning is off.
 */
void ps2_keyboard_key(struct ps2_keyboard *keyboard, unsigned key, bool is_pressed);
#define PS2_KEY_PAUSE 0xe11d

/* The set 1 code for a set 2 code, as the keyboard controller translates it. */
uint8_t ps2_translate(uint8_t set2);

struct ps2_mouse {
    struct ps2_queue queue;
    uint8_t command;
    uint8_t rate, resolution;
    uint8_t rates[2]; /* set before `rate`: the IntelliMouse knock */
    uint8_t id;
    bool is_reporting, is_remote, is_wrapping, is_scaled;
};

void ps2_mouse_reset(struct ps2_mouse *mouse);
void ps2_mouse_write(struct ps2_mouse *mouse, uint8_t byte);

#endif
