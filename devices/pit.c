/*
 * 8254 programmable interval timer (Intel 231164-005) and system control port B (61h).
 *
 * A channel keeps when its counting element was loaded, and computes count and OUT from the clock; only rising edges of
 * channel 0 cost a host timer. When the host is late, edges of the periodic modes are kept and delivered one by one,
 * faster than programmed, up to one second of them: a guest that counts ticks keeps its time.
 */
#include "devices/pit.h"

#include <string.h>

#include "devices/scale.h"

#define NS_PER_SECOND  1000000000
#define REFRESH_NS     15085 /* bit 4 of port 61h toggles with each refresh cycle */
#define CATCH_UP_NS    10000 /* two edges are never closer together than this */
#define CATCH_UP_SHARE 8     /* missed edges come this much faster than programmed */
#define CATCH_UP_LIMIT 4096  /* how many are kept at most */

static int64_t ticks_at(uint64_t ns) {
    return (int64_t)scale_down(ns, PIT_HZ, NS_PER_SECOND);
}

/* The first nanosecond of a tick. */
static uint64_t ns_of(int64_t ticks) {
    return scale_up((uint64_t)ticks, NS_PER_SECOND, PIT_HZ);
}

static int64_t now_of(const struct pit *pit) {
    return ticks_at(clock_now(pit->clock));
}

static bool is_periodic(const struct pit_channel *channel) {
    return channel->mode == 2 || channel->mode == 3;
}

static bool is_gate_triggered(const struct pit_channel *channel) {
    return channel->mode == 1 || channel->mode == 5;
}

static uint8_t access_of(const struct pit_channel *channel) {
    return channel->control >> 4 & 3; /* 1 LSB, 2 MSB, 3 both */
}

/* ---- The counting element -------------------------------------------------------------------------------------- */

/* Mode 3: how long OUT is high in a period. */
static int64_t high_half(uint32_t count) {
    return (count + 1) / 2;
}

/* Lets a count written during a period of mode 2 or 3 take effect, if it was due by `now`. */
static void apply_reload(struct pit_channel *channel, int64_t now) {
    if (now < channel->reload_at)
        return;
    bool is_mid_period = (channel->reload_at - channel->start) % channel->initial != 0;
    channel->start = channel->reload_at - (is_mid_period ? high_half(channel->reload) : 0);
    channel->initial = channel->reload;
    channel->reload_at = PIT_NEVER;
}

static void load(struct pit_channel *channel, int64_t now) {
    channel->start = now + 1; /* the next CLK */
    channel->initial = channel->reload;
    channel->reload_at = PIT_NEVER;
    channel->stopped_at = channel->gate || is_gate_triggered(channel) ? PIT_NEVER : channel->start;
}

/* CLKs since the load; negative just before it. */
static int64_t elapsed_of(const struct pit_channel *channel, int64_t now) {
    return (channel->stopped_at < now ? channel->stopped_at : now) - channel->start;
}

static bool output_of(struct pit_channel *channel, int64_t now) {
    apply_reload(channel, now);
    int64_t elapsed = elapsed_of(channel, now), count = channel->initial;
    switch (channel->mode) {
    case 0:
        return channel->is_loaded && elapsed >= count;
    case 1:
        return !channel->is_triggered || elapsed < 0 || elapsed >= count;
    case 2:
        return !channel->is_loaded || !channel->gate || elapsed < 0 || elapsed % count != count - 1;
    case 3:
        return !channel->is_loaded || !channel->gate || elapsed < 0 || elapsed % count < high_half(channel->initial);
    case 4:
        return !channel->is_loaded || elapsed != count;
    default:
        return !channel->is_triggered || elapsed != count;
    }
}

/* Mode 3 counts down by two in each half; from an odd count it starts one lower. */
static uint32_t square_wave_count(uint32_t initial, int64_t elapsed) {
    int64_t position = elapsed % initial;
    if (position >= high_half(initial))
        position -= high_half(initial);
    return (initial & ~1u) - 2 * (uint32_t)position;
}

static uint16_t to_bcd(uint32_t value) {
    return (uint16_t)(value % 10 | value / 10 % 10 << 4 | value / 100 % 10 << 8 | value / 1000 % 10 << 12);
}

static uint16_t count_of(struct pit_channel *channel, int64_t now) {
    apply_reload(channel, now);
    int64_t elapsed = elapsed_of(channel, now);
    int64_t modulus = channel->bcd ? 10000 : 0x10000;
    uint32_t count;
    if (elapsed <= 0 || (is_gate_triggered(channel) && !channel->is_triggered))
        count = channel->mode == 3 ? channel->initial & ~1u : channel->initial;
    else if (channel->mode == 3)
        count = square_wave_count(channel->initial, elapsed);
    else if (channel->mode == 2)
        count = channel->initial - (uint32_t)(elapsed % channel->initial);
    else
        count = (uint32_t)(((channel->initial - elapsed) % modulus + modulus) % modulus);
    return channel->bcd ? to_bcd(count) : (uint16_t)count;
}

static uint8_t status_of(struct pit_channel *channel, int64_t now) {
    bool out = output_of(channel, now);
    bool is_null =
        !channel->is_loaded || channel->has_new_count || channel->reload_at != PIT_NEVER || now < channel->start;
    return (uint8_t)(out << 7 | is_null << 6 | channel->control);
}

static void set_gate(struct pit_channel *channel, bool gate, int64_t now) {
    if (gate == channel->gate)
        return;
    apply_reload(channel, now);
    channel->gate = gate;
    if (!channel->is_loaded)
        return;
    if (is_gate_triggered(channel)) {
        if (gate) {
            channel->is_triggered = true;
            channel->has_new_count = false;
            load(channel, now);
        }
    } else if (!gate) {
        channel->stopped_at = now;
        channel->reload_at = PIT_NEVER; /* modes 2 and 3 load the new count when GATE rises */
    } else if (is_periodic(channel)) {
        load(channel, now);
    } else {
        channel->start += now - channel->stopped_at;
        channel->stopped_at = PIT_NEVER;
    }
}

/* ---- Channel 0's edges ----------------------------------------------------------------------------------------- */

/* The first tick after `after` at which OUT rises. The pulse of one CLK that modes 2, 4 and 5 make counts as its end.
 */
static int64_t next_rising_edge(const struct pit_channel *channel, int64_t after) {
    if (!channel->is_loaded || channel->stopped_at != PIT_NEVER || is_gate_triggered(channel))
        return PIT_NEVER;
    if (!is_periodic(channel)) {
        int64_t edge = channel->start + channel->initial + (channel->mode == 4);
        return edge > after ? edge : PIT_NEVER;
    }
    if (channel->initial == 1 && channel->reload_at == PIT_NEVER) /* not a legal count: OUT stands still */
        return PIT_NEVER;
    int64_t elapsed = after - channel->start;
    int64_t edge = channel->start + (elapsed < 0 ? 1 : elapsed / channel->initial + 1) * channel->initial;
    if (edge <= channel->reload_at)
        return edge;
    struct pit_channel later = *channel;
    apply_reload(&later, channel->reload_at);
    return next_rising_edge(&later, channel->reload_at);
}

/* How many edges are kept while nobody takes them: a second of them. */
static uint32_t missed_limit(const struct pit_channel *channel) {
    if (!is_periodic(channel) || channel->initial == 1)
        return 1;
    uint32_t second = PIT_HZ / channel->initial;
    return second < CATCH_UP_LIMIT ? second : CATCH_UP_LIMIT;
}

static void account_edges(struct pit *pit, int64_t now) {
    struct pit_channel *channel = &pit->channel[0];
    if (pit->next_edge > now)
        return;
    apply_reload(channel, pit->next_edge);
    int64_t count = 1, limit = missed_limit(channel);
    if (limit > 1)
        count += (now - pit->next_edge) / channel->initial;
    int64_t missed = pit->missed + count;
    pit->missed = (uint32_t)(missed < limit ? missed : limit);
    pit->next_edge = next_rising_edge(channel, now);
}

static void arm(struct pit *pit) {
    const struct pit_channel *channel = &pit->channel[0];
    uint64_t earliest = clock_now(pit->clock) + CATCH_UP_NS;
    uint64_t deadline = pit->next_edge == PIT_NEVER ? UINT64_MAX : ns_of(pit->next_edge);
    if (pit->missed) {
        uint64_t share = ns_of(channel->initial) / CATCH_UP_SHARE;
        uint64_t retry = clock_now(pit->clock) + (share > CATCH_UP_NS ? share : CATCH_UP_NS);
        if (retry < deadline)
            deadline = retry;
    }
    if (deadline == UINT64_MAX)
        clock_timer_cancel(&pit->timer);
    else
        clock_timer_arm(&pit->timer, is_periodic(channel) && deadline < earliest ? earliest : deadline);
}

/*
 * Delivers one edge that is due, if the one before was taken. Once the limit is reached, edges go on at their own rate:
 * who asked for the tick at one controller may take it from another.
 */
static void deliver(struct pit *pit) {
    if (!pit->missed)
        return;
    bool may_wait = pit->tick_is_waiting && pit->missed < missed_limit(&pit->channel[0]);
    if (may_wait && pit->tick_is_waiting(pit->tick_opaque))
        return;
    pit->missed--;
    if (pit->channel[0].mode != 0)
        irq_set(&pit->irq, false);
    irq_set(&pit->irq, true);
}

static void timer_expired(void *opaque) {
    struct pit *pit = opaque;
    account_edges(pit, now_of(pit));
    deliver(pit);
    arm(pit);
}

/* Before a port access: what is due by now has happened. */
static int64_t catch_up(struct pit *pit) {
    int64_t now = now_of(pit);
    if (pit->next_edge <= now) {
        account_edges(pit, now);
        deliver(pit);
        arm(pit);
    }
    return now;
}

/* After channel 0 was programmed. */
static void restart_edges(struct pit *pit, int64_t now) {
    struct pit_channel *channel = &pit->channel[0];
    if (!channel->is_loaded || !is_periodic(channel))
        pit->missed = 0;
    pit->next_edge = next_rising_edge(channel, now);
    irq_set(&pit->irq, channel->mode != 0 || output_of(channel, now));
    arm(pit);
}

/* ---- Registers ------------------------------------------------------------------------------------------------- */

static uint32_t count_from(const struct pit_channel *channel, uint16_t value) {
    uint32_t count = value, modulus = 0x10000;
    if (channel->bcd) {
        modulus = 10000;
        count = (value >> 12) * 1000u + (value >> 8 & 15) * 100u + (value >> 4 & 15) * 10u + (value & 15);
    }
    return count == 0 || count > modulus ? modulus : count;
}

static void new_count(struct pit_channel *channel, uint16_t value, int64_t now) {
    channel->reload = count_from(channel, value);
    if (is_gate_triggered(channel)) {
        channel->has_new_count = true;
        if (!channel->is_triggered)
            channel->initial = channel->reload;
    } else if (!is_periodic(channel) || !channel->is_loaded || now < channel->start) {
        load(channel, now);
    } else if (channel->gate) {
        int64_t elapsed = now - channel->start, position = elapsed % channel->initial;
        bool is_high_half = channel->mode == 3 && position < high_half(channel->initial);
        int64_t length = is_high_half ? high_half(channel->initial) : channel->initial;
        channel->reload_at = now - position + length;
    }
    channel->is_loaded = true;
}

static void write_count(struct pit_channel *channel, uint8_t value, int64_t now) {
    apply_reload(channel, now);
    switch (access_of(channel)) {
    case 1:
        new_count(channel, value, now);
        return;
    case 2:
        new_count(channel, (uint16_t)(value << 8), now);
        return;
    default:
        break;
    }
    channel->writes_msb = !channel->writes_msb;
    if (!channel->writes_msb) {
        new_count(channel, (uint16_t)(value << 8 | channel->low_byte), now);
        return;
    }
    channel->low_byte = value;
    if (channel->mode == 0) { /* the first byte stops the counter and sets OUT low at once */
        if (channel->stopped_at > now)
            channel->stopped_at = now;
        channel->is_loaded = false;
    }
}

static void latch_count(struct pit_channel *channel, int64_t now) {
    if (channel->count_is_latched)
        return;
    channel->latched_count = count_of(channel, now);
    channel->count_is_latched = true;
}

static void read_back(struct pit *pit, uint8_t command, int64_t now) {
    for (unsigned i = 0; i < 3; i++) {
        struct pit_channel *channel = &pit->channel[i];
        if (!(command & 2u << i))
            continue;
        if (!(command & 0x20))
            latch_count(channel, now);
        if (!(command & 0x10) && !channel->status_is_latched) {
            channel->latched_status = status_of(channel, now);
            channel->status_is_latched = true;
        }
    }
}

static void write_mode(struct pit_channel *channel, uint8_t control, int64_t now) {
    apply_reload(channel, now);
    if (channel->stopped_at > now)
        channel->stopped_at = now;
    uint8_t mode = control >> 1 & 7;
    channel->control = control & 0x3f;
    channel->mode = mode > 5 ? mode - 4 : mode; /* the top bit of modes 2 and 3 is not decoded */
    channel->bcd = control & 1;
    channel->is_loaded = channel->is_triggered = channel->has_new_count = false;
    channel->writes_msb = channel->reads_msb = false;
    channel->count_is_latched = channel->status_is_latched = false;
    channel->reload_at = PIT_NEVER;
}

static void write_control(struct pit *pit, uint8_t value, int64_t now) {
    unsigned index = value >> 6;
    if (index == 3) {
        read_back(pit, value, now);
    } else if (!(value & 0x30)) {
        latch_count(&pit->channel[index], now);
    } else {
        write_mode(&pit->channel[index], value, now);
        if (index == 0)
            restart_edges(pit, now);
    }
}

static void pit_write(void *device, uint64_t offset, unsigned size, uint64_t value) {
    struct pit *pit = device;
    int64_t now = catch_up(pit);
    (void)size;
    if (offset == 3) {
        write_control(pit, (uint8_t)value, now);
        return;
    }
    write_count(&pit->channel[offset], (uint8_t)value, now);
    if (offset == 0)
        restart_edges(pit, now);
}

static uint8_t read_count(struct pit_channel *channel, int64_t now) {
    if (channel->status_is_latched) {
        channel->status_is_latched = false;
        return channel->latched_status;
    }
    uint16_t count = channel->count_is_latched ? channel->latched_count : count_of(channel, now);
    bool is_msb = access_of(channel) == 2;
    bool is_last = true;
    if (access_of(channel) == 3) {
        is_msb = is_last = channel->reads_msb;
        channel->reads_msb = !channel->reads_msb;
    }
    if (is_last)
        channel->count_is_latched = false;
    return (uint8_t)(is_msb ? count >> 8 : count);
}

static uint64_t pit_read(void *device, uint64_t offset, unsigned size) {
    struct pit *pit = device;
    (void)size;
    if (offset == 3) /* the control word register cannot be read */
        return 0xff;
    int64_t now = catch_up(pit);
    return read_count(&pit->channel[offset], now);
}

static void speaker_write(void *device, uint64_t offset, unsigned size, uint64_t value) {
    struct pit *pit = device;
    (void)offset, (void)size;
    pit->port61 = value & 0x0f;
    set_gate(&pit->channel[2], value & 1, now_of(pit));
}

static uint64_t speaker_read(void *device, uint64_t offset, unsigned size) {
    struct pit *pit = device;
    (void)offset, (void)size;
    unsigned refresh = clock_now(pit->clock) / REFRESH_NS & 1;
    return pit->port61 | refresh << 4 | (unsigned)output_of(&pit->channel[2], now_of(pit)) << 5;
}

const struct bus_ops pit_ops = {.read = pit_read, .write = pit_write, .max_size = 1, .is_light = true};
const struct bus_ops pit_speaker_ops = {.read = speaker_read, .write = speaker_write, .max_size = 1, .is_light = true};

/* ---- Life ------------------------------------------------------------------------------------------------------ */

/*
 * The chip's state at power-on is undefined; software that no BIOS came before (the decompressor of Linux waits for a
 * loaded count) finds what a BIOS leaves: square waves of the longest period.
 */
void pit_reset(struct pit *pit) {
    int64_t now = now_of(pit);
    for (unsigned i = 0; i < 3; i++) {
        struct pit_channel *channel = &pit->channel[i];
        *channel = (struct pit_channel){.gate = i != 2, .initial = 1, .start = now, .stopped_at = PIT_NEVER};
        write_mode(channel, 0x36, now);
        new_count(channel, 0, now);
    }
    pit->missed = 0;
    pit->port61 = 0;
    restart_edges(pit, now);
}

void pit_init(struct pit *pit, struct clock *clock, const struct irq_line *irq, bool (*tick_is_waiting)(void *opaque),
              void *tick_opaque) {
    memset(pit, 0, sizeof(*pit));
    pit->clock = clock;
    pit->irq = *irq;
    pit->tick_is_waiting = tick_is_waiting;
    pit->tick_opaque = tick_opaque;
    clock_timer_init(&pit->timer, clock, timer_expired, pit);
    pit_reset(pit);
}

void pit_release(struct pit *pit) {
    clock_timer_cancel(&pit->timer);
}
