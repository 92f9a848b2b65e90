/* States that an instruction test starts from, made from its seed; compiled for the host and for the guest. */
#include "isa_case.h"

uint64_t isa_random(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static void put(uint8_t *to, uint64_t value, unsigned size) {
    for (unsigned i = 0; i < size; i++)
        to[i] = (uint8_t)(value >> 8 * i);
}

static uint64_t get(const uint8_t *from, unsigned size) {
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)from[i] << 8 * i;
    return value;
}

/* A floating-point number of the format: mostly of moderate size, one in eight a special one. */
static uint64_t random_float(uint64_t *state, unsigned exponent_bits, unsigned mantissa_bits) {
    uint64_t r = isa_random(state), sign = r & 1, exponent, mantissa = isa_random(state) >> (64 - mantissa_bits);
    uint64_t bias = (1ull << (exponent_bits - 1)) - 1, top = (1ull << exponent_bits) - 1;
    unsigned range = exponent_bits == 5 ? 8 : 24;
    exponent = bias - range / 2 + (r >> 8) % range;
    if ((r >> 1 & 7) == 0) {
        switch (r >> 4 & 7) {
        case 0: exponent = 0; mantissa = 0; break;
        case 1: exponent = top; mantissa = 0; break;
        case 2: exponent = top; mantissa |= 1; break;
        case 3: exponent = 0; break;
        case 4: exponent = bias; mantissa = 0; break;
        case 5: exponent = top - 1; break;
        case 6: exponent = 1; break;
        default: mantissa &= mantissa >> 3; break;
        }
    }
    return sign << (exponent_bits + mantissa_bits) | exponent << mantissa_bits | mantissa;
}

static void fill(uint8_t *to, size_t length, unsigned style, uint64_t *state) {
    for (size_t i = 0; i < length;) {
        switch (style) {
        case ISA_SINGLE: put(to + i, random_float(state, 8, 23), 4); i += 4; break;
        case ISA_DOUBLE: put(to + i, random_float(state, 11, 52), 8); i += 8; break;
        case ISA_HALF: put(to + i, random_float(state, 5, 10), 2); i += 2; break;
        case ISA_SMALL: put(to + i, isa_random(state) % 100, 4); i += 4; break;
        default: put(to + i, isa_random(state), 8); i += 8; break;
        }
    }
}

void isa_fill_data(const struct isa_record *record, uint8_t data[ISA_DATA_SIZE]) {
    uint64_t state = record->seed;
    fill(data, ISA_DATA_SIZE, record->style, &state);
    for (unsigned i = 0; i < record->patch_size; i++)
        data[record->patch_offset + i] = record->patch[i];
}

static void fill_x87(uint8_t st[10], uint64_t *state) {
    uint64_t r = isa_random(state), exponent = 0x3fff - 20 + (r >> 8) % 40;
    put(st, isa_random(state) | 1ull << 63, 8);
    switch (r & 15) {
    case 0: exponent = 0; put(st, 0, 8); break;
    case 1: exponent = 0x7fff; break;
    case 2: exponent = 0x7fff; put(st, 1ull << 63, 8); break;
    case 3: exponent = 0; put(st, isa_random(state) >> 1, 8); break;
    case 4: exponent = 0x3fff; put(st, 1ull << 63, 8); break;
    default: break;
    }
    put(st + 8, exponent | (r >> 7 & 1) << 15, 2);
}

void isa_fill_vectors(const struct isa_record *record, struct isa_vectors *vectors) {
    uint64_t state = record->seed ^ 0x5555;
    for (size_t i = 0; i < sizeof *vectors; i++)
        ((uint8_t *)vectors)[i] = 0;
    fill(vectors->zmm[0], sizeof vectors->zmm, record->style, &state);
    fill((uint8_t *)vectors->k, sizeof vectors->k, ISA_RANDOM, &state);
    uint64_t sparse = isa_random(&state) % 8; /* masks that select little or nothing */
    for (unsigned i = 0; i < 8 && sparse < 3; i++)
        vectors->k[i] &= sparse ? isa_random(&state) & isa_random(&state) : 0;
    for (unsigned i = 0; i < 8; i++)
        fill_x87(vectors->st[i], &state);
    uint64_t r = isa_random(&state);
    vectors->fcw = record->fcw;
    vectors->mxcsr = record->mxcsr;
    vectors->fsw = (uint16_t)(r & 0x7f00 & ~0x80u);
    vectors->ftw = r >> 20 & 3 ? 0xff : (uint8_t)(r >> 24);
    for (unsigned i = 0; record->vsib_size && i < 64; i += record->vsib_size)
        put(vectors->zmm[record->vsib_register] + i, isa_random(&state) % 128, record->vsib_size);
}

static uint32_t component_offset(unsigned component) {
    uint32_t a = 0xd, b, c = component, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return b;
}

/* Every component has its bytes in the image where a register's part begins: copies one way or the other. */
static void exchange(struct isa_vectors *v, uint64_t components, uint8_t *image, bool to_image) {
    uint32_t at[8];
    for (unsigned i = 2; i < 8; i++)
        at[i] = components & 1u << i ? component_offset(i) : 0;
#define MOVE(member, offset, size)                                                                                     \
    do {                                                                                                               \
        uint8_t *m_ = (uint8_t *)(member);                                                                             \
        for (unsigned n_ = 0; n_ < (size); n_++)                                                                       \
            to_image ? (image[(offset) + n_] = m_[n_]) : (m_[n_] = image[(offset) + n_]);                              \
    } while (0)
    if (components & 1) {
        MOVE(&v->fcw, 0, 2);
        MOVE(&v->fsw, 2, 2);
        MOVE(&v->ftw, 4, 1);
        for (unsigned i = 0; i < 8; i++)
            MOVE(v->st[i], 32 + 16 * i, 10);
    }
    for (unsigned i = 0; i < 32; i++) {
        if (i < 16 && components & 2)
            MOVE(v->zmm[i], 160 + 16 * i, 16);
        if (i < 16 && components & 4)
            MOVE(v->zmm[i] + 16, at[2] + 16 * i, 16);
        if (i < 16 && components & 0x40)
            MOVE(v->zmm[i] + 32, at[6] + 32 * i, 32);
        if (i >= 16 && components & 0x80)
            MOVE(v->zmm[i], at[7] + 64 * (i - 16), 64);
    }
    if (components & 0x20)
        MOVE(v->k, at[5], 64);
#undef MOVE
}

void isa_vectors_to_xsave(const struct isa_vectors *vectors, uint64_t xcr0, uint8_t *image) {
    exchange((struct isa_vectors *)vectors, xcr0, image, true);
    put(image + 24, vectors->mxcsr, 4);
    put(image + 512, get(image + 512, 8) | (xcr0 & ISA_XCR0), 8);
}

void isa_vectors_from_xsave(struct isa_vectors *vectors, uint64_t xcr0, const uint8_t *image) {
    for (size_t i = 0; i < sizeof *vectors; i++)
        ((uint8_t *)vectors)[i] = 0;
    vectors->fcw = 0x37f; /* what a component in its initial state reads as */
    exchange(vectors, xcr0 & get(image + 512, 8), (uint8_t *)image, false);
    vectors->mxcsr = (uint32_t)get(image + 24, 4);
}
