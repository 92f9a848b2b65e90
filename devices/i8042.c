/*
 * 8042 keyboard controller (IBM PS/2 Hardware Interface Technical Reference, Keyboard and Auxiliary Device Controller).
 *
 * A byte that software reads twice stays the same for a while, as it does at the speed of the serial link: handlers
 * chained in front of a BIOS rely on it. Left out: the password commands and the diagnostic dump.
 */
#include "devices/i8042.h"

#include <string.h>

enum {
    STATUS_OBF = 0x01,
    STATUS_SYS = 0x04,
    STATUS_COMMAND = 0x08,
    STATUS_UNLOCKED = 0x10,
    STATUS_AUX = 0x20,
    MODE_KEYBOARD_IRQ = 0x01,
    MODE_MOUSE_IRQ = 0x02,
    MODE_SYS = 0x04,
    MODE_KEYBOARD_OFF = 0x10,
    MODE_MOUSE_OFF = 0x20,
    MODE_TRANSLATE = 0x40,
    PORT_NO_RESET = 0x01,
    PORT_A20 = 0x02,
    PORT_IRQ1 = 0x10,
    PORT_IRQ12 = 0x20,
    PORT_IDLE = 0xcc, /* clock and data lines high, undefined bits set */
};

#define BYTE_GAP_NS 250000

static uint8_t mode_of(const struct i8042 *controller) {
    return controller->ram[0];
}

static void update_irqs(struct i8042 *controller) {
    uint8_t mode = mode_of(controller);
    bool is_full = controller->is_full, is_aux = controller->is_aux;
    irq_set(&controller->lines.keyboard, is_full && !is_aux && mode & MODE_KEYBOARD_IRQ);
    irq_set(&controller->lines.mouse, is_full && is_aux && mode & MODE_MOUSE_IRQ);
}

/* ---- The output buffer ----------------------------------------------------------------------------------------- */

static void fill_output(struct i8042 *controller, uint8_t byte, bool is_aux) {
    controller->output = byte;
    controller->is_full = true;
    controller->is_aux = is_aux;
    update_irqs(controller);
}

static bool take_reply(struct i8042 *controller) {
    uint8_t byte;
    bool is_aux = controller->reply_is_aux & 1u << controller->replies.at;
    if (!ps2_queue_take(&controller->replies, &byte))
        return false;
    fill_output(controller, byte, is_aux);
    return true;
}

static bool take_key(struct i8042 *controller) {
    uint8_t byte;
    while (!(mode_of(controller) & MODE_KEYBOARD_OFF) && ps2_queue_take(&controller->keyboard.queue, &byte)) {
        if (!(mode_of(controller) & MODE_TRANSLATE)) {
            fill_output(controller, byte, false);
            return true;
        }
        if (byte == 0xf0) {
            controller->is_break = true;
            continue;
        }
        fill_output(controller, ps2_translate(byte) | (controller->is_break ? 0x80 : 0), false);
        controller->is_break = false;
        return true;
    }
    return false;
}

static bool take_movement(struct i8042 *controller) {
    uint8_t byte;
    if (mode_of(controller) & MODE_MOUSE_OFF || !ps2_queue_take(&controller->mouse.queue, &byte))
        return false;
    fill_output(controller, byte, true);
    return true;
}

/* Puts the next byte into an empty output buffer. */
static void refill(struct i8042 *controller) {
    if (controller->is_full || take_reply(controller))
        return;
    if (clock_now(controller->clock) < controller->next_byte_at) {
        if (controller->keyboard.queue.count || controller->mouse.queue.count)
            clock_timer_arm(&controller->timer, controller->next_byte_at);
        return;
    }
    if (!take_key(controller))
        take_movement(controller);
}

static void timer_expired(void *opaque) {
    refill(opaque);
}

static void reply(struct i8042 *controller, uint8_t byte, bool is_aux) {
    struct ps2_queue *replies = &controller->replies;
    uint32_t bit = 1u << (replies->at + replies->count) % PS2_QUEUE;
    controller->reply_is_aux = (controller->reply_is_aux & ~bit) | (is_aux ? bit : 0);
    ps2_queue_put(replies, byte);
}

/* ---- Commands -------------------------------------------------------------------------------------------------- */

static void set_output_port(struct i8042 *controller, uint8_t value) {
    controller->output_port = value | PORT_NO_RESET;
    irq_set(&controller->lines.a20, value & PORT_A20);
    if (!(value & PORT_NO_RESET))
        irq_pulse(&controller->lines.reset);
}

static uint8_t read_output_port(const struct i8042 *controller) {
    uint8_t full = !controller->is_full ? 0 : controller->is_aux ? PORT_IRQ12 : PORT_IRQ1;
    return (uint8_t)((controller->output_port & ~(PORT_IRQ1 | PORT_IRQ12)) | full);
}

static void set_mode(struct i8042 *controller, uint8_t mode) {
    controller->ram[0] = mode;
    update_irqs(controller);
}

static void self_test(struct i8042 *controller) {
    controller->replies.count = 0;
    controller->is_full = controller->is_break = false;
    set_mode(controller, mode_of(controller) | MODE_SYS);
    reply(controller, 0x55, false);
}

static void run_command(struct i8042 *controller, uint8_t command) {
    uint8_t mode = mode_of(controller);
    if (command >= 0x20 && command <= 0x3f) {
        reply(controller, controller->ram[command & 31], false);
        return;
    }
    if (command >= 0x60 && command <= 0x7f) {
        controller->command = command;
        return;
    }
    if (command >= 0xf0) { /* a low bit pulses its line of the output port; only reset is wired for that */
        if (!(command & PORT_NO_RESET))
            irq_pulse(&controller->lines.reset);
        return;
    }
    switch (command) {
    case 0xa4: /* no password */
        reply(controller, 0xf1, false);
        break;
    case 0xa7:
        set_mode(controller, mode | MODE_MOUSE_OFF);
        break;
    case 0xa8:
        set_mode(controller, mode & (uint8_t)~MODE_MOUSE_OFF);
        break;
    case 0xa9: /* interface tests: no error */
    case 0xab:
        reply(controller, 0x00, false);
        break;
    case 0xaa:
        self_test(controller);
        break;
    case 0xad:
        set_mode(controller, mode | MODE_KEYBOARD_OFF);
        break;
    case 0xae:
        set_mode(controller, mode & (uint8_t)~MODE_KEYBOARD_OFF);
        break;
    case 0xc0: /* input port: keyboard not locked, no manufacturing jumper */
        reply(controller, 0xa0, false);
        break;
    case 0xd0:
        reply(controller, read_output_port(controller), false);
        break;
    case 0xd1:
    case 0xd2:
    case 0xd3:
    case 0xd4:
        controller->command = command;
        break;
    case 0xdd: /* A20 off and on, of some chipsets */
    case 0xdf:
        set_output_port(controller, (uint8_t)((controller->output_port & ~PORT_A20) | (command & PORT_A20)));
        break;
    case 0xe0: /* test inputs */
        reply(controller, 0x00, false);
        break;
    default:
        break;
    }
}

/* A byte at port 60h that a command waits for; without one it is the keyboard's. */
static void run_data(struct i8042 *controller, uint8_t command, uint8_t value) {
    switch (command) {
    case 0: /* talking to a device turns its clock on */
        set_mode(controller, mode_of(controller) & (uint8_t)~MODE_KEYBOARD_OFF);
        ps2_keyboard_write(&controller->keyboard, value);
        break;
    case 0x60:
        set_mode(controller, value);
        break;
    case 0xd1:
        set_output_port(controller, value);
        break;
    case 0xd2:
        reply(controller, value, false);
        break;
    case 0xd3:
        reply(controller, value, true);
        break;
    case 0xd4:
        set_mode(controller, mode_of(controller) & (uint8_t)~MODE_MOUSE_OFF);
        ps2_mouse_write(&controller->mouse, value);
        break;
    default:
        controller->ram[command & 31] = value;
        break;
    }
}

/* ---- Registers ------------------------------------------------------------------------------------------------- */

static uint64_t data_read(void *device, uint64_t offset, unsigned size) {
    struct i8042 *controller = device;
    (void)offset, (void)size;
    uint8_t value = controller->output;
    if (controller->is_full) {
        controller->is_full = false;
        controller->next_byte_at = clock_now(controller->clock) + BYTE_GAP_NS;
        update_irqs(controller);
        refill(controller);
    }
    return value;
}

static void data_write(void *device, uint64_t offset, unsigned size, uint64_t value) {
    struct i8042 *controller = device;
    (void)offset, (void)size;
    uint8_t command = controller->command;
    controller->command = 0;
    controller->last_was_command = false;
    run_data(controller, command, (uint8_t)value);
    refill(controller);
}

static uint64_t command_read(void *device, uint64_t offset, unsigned size) {
    const struct i8042 *controller = device;
    (void)offset, (void)size;
    return STATUS_UNLOCKED | (controller->is_full ? STATUS_OBF | (controller->is_aux ? STATUS_AUX : 0) : 0) |
           (mode_of(controller) & MODE_SYS ? STATUS_SYS : 0) | (controller->last_was_command ? STATUS_COMMAND : 0);
}

static void command_write(void *device, uint64_t offset, unsigned size, uint64_t value) {
    struct i8042 *controller = device;
    (void)offset, (void)size;
    controller->command = 0;
    controller->replies.count = 0; /* nobody came for them */
    controller->last_was_command = true;
    run_command(controller, (uint8_t)value);
    refill(controller);
}

const struct bus_ops i8042_data_ops = {.read = data_read, .write = data_write, .max_size = 1};
const struct bus_ops i8042_command_ops = {.read = command_read, .write = command_write, .max_size = 1};

/* ---- Life ------------------------------------------------------------------------------------------------------ */

void i8042_key(struct i8042 *controller, unsigned key, bool is_pressed) {
    ps2_keyboard_key(&controller->keyboard, key, is_pressed);
    refill(controller);
}

void i8042_reset(struct i8042 *controller) {
    clock_timer_cancel(&controller->timer);
    ps2_keyboard_reset(&controller->keyboard);
    ps2_mouse_reset(&controller->mouse);
    memset(controller->ram, 0, sizeof(controller->ram));
    controller->replies.count = 0;
    controller->next_byte_at = 0;
    controller->command = controller->output = 0;
    controller->is_full = controller->is_aux = controller->last_was_command = controller->is_break = false;
    set_mode(controller, MODE_TRANSLATE | MODE_MOUSE_OFF | MODE_KEYBOARD_IRQ);
    set_output_port(controller, PORT_IDLE | PORT_NO_RESET | PORT_A20);
}

void i8042_init(struct i8042 *controller, struct clock *clock, const struct i8042_lines *lines) {
    memset(controller, 0, sizeof(*controller));
    controller->clock = clock;
    controller->lines = *lines;
    clock_timer_init(&controller->timer, clock, timer_expired, controller);
    i8042_reset(controller);
}

void i8042_release(struct i8042 *controller) {
    clock_timer_cancel(&controller->timer);
}
