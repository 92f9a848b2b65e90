/* Scalar floating point, compiled twice: with SSE2 (FLAVOUR sse) and with the x87 unit (FLAVOUR x87). */
#include "tools/bench_programs/program.h"

#include <string.h>

#define JOIN_(a, b)   a##b
#define JOIN(a, b)    JOIN_(a, b)
#define STRING_(a)    #a
#define STRING(a)     STRING_(a)
#define ROW_NAME(row) row " " STRING(FLAVOUR)

static uint64_t bits_of(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

struct body {
    double position[3], velocity[3], mass;
};

static void bodies_step(struct body *bodies, int bodies_count, double step) {
    for (int i = 0; i < bodies_count; i++) {
        for (int j = i + 1; j < bodies_count; j++) {
            struct body *a = &bodies[i], *b = &bodies[j];
            double distance[3], square = 0;
            for (int k = 0; k < 3; k++) {
                distance[k] = a->position[k] - b->position[k];
                square += distance[k] * distance[k];
            }
            double magnitude = step / (square * __builtin_sqrt(square));
            for (int k = 0; k < 3; k++) {
                a->velocity[k] -= distance[k] * b->mass * magnitude;
                b->velocity[k] += distance[k] * a->mass * magnitude;
            }
        }
    }
    for (int i = 0; i < bodies_count; i++)
        for (int k = 0; k < 3; k++)
            bodies[i].position[k] += step * bodies[i].velocity[k];
}

static uint64_t nbody(void *state, uint64_t count) {
    (void)state;
    struct body bodies[5];
    uint64_t random = 5;
    for (int i = 0; i < 5; i++) {
        for (int k = 0; k < 3; k++) {
            bodies[i].position[k] = (double)(int)(random_next(&random) % 1000) / 37.0 + i * 10;
            bodies[i].velocity[k] = (double)(int)(random_next(&random) % 1000) / 1000.0;
        }
        bodies[i].mass = i == 0 ? 39.0 : 0.01 * i;
    }
    for (uint64_t i = 0; i < count; i++)
        bodies_step(bodies, 5, 0.01);
    return bits_of(bodies[0].position[0] + bodies[3].velocity[1]);
}

enum { MATRIX = 48 };

static uint64_t dgemm(void *state, uint64_t count) {
    (void)state;
    static double a[MATRIX][MATRIX], b[MATRIX][MATRIX], c[MATRIX][MATRIX];
    for (int i = 0; i < MATRIX; i++)
        for (int j = 0; j < MATRIX; j++) {
            a[i][j] = (i * 7 + j * 3) % 11 / 8.0;
            b[i][j] = (i * 5 + j * 2) % 13 / 16.0;
            c[i][j] = 0;
        }
    for (uint64_t round = 0; round < count; round++)
        for (int i = 0; i < MATRIX; i++)
            for (int k = 0; k < MATRIX; k++) {
                double factor = a[i][k];
                for (int j = 0; j < MATRIX; j++)
                    c[i][j] += factor * b[k][j];
            }
    return bits_of(c[7][9] + c[40][3]);
}

static uint64_t mandelbrot(void *state, uint64_t count) {
    (void)state;
    uint64_t inside = 0;
    for (uint64_t y = 0; y < count; y++)
        for (int x = 0; x < 64; x++) {
            double cr = x * 3.0 / 64 - 2, ci = (double)(int)(y % 64) * 2.0 / 64 - 1, r = 0, i = 0;
            int n = 0;
            while (n < 200 && r * r + i * i < 4) {
                double next = r * r - i * i + cr;
                i = 2 * r * i + ci;
                r = next;
                n++;
            }
            inside += (uint64_t)n;
        }
    return inside;
}

const struct program JOIN(programs_float_, FLAVOUR)[] = {
    {.name = ROW_NAME("nbody"), .group = "float", .count = 200000, .run = nbody},
    {.name = ROW_NAME("dgemm"), .group = "float", .count = 800, .run = dgemm},
    {.name = ROW_NAME("mandelbrot"), .group = "float", .count = 3000, .run = mandelbrot},
    {0},
};
