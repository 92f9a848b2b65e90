/*
 * Floating point: exact results of x87 and SSE arithmetic, rounding modes, exception flags and traps, extended
 * precision, and the state of each process kept apart under switches.
 */
#include "expect.h"

#include <fenv.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static sigjmp_buf resume;

static void jump_out(int signal) {
    (void)signal;
    siglongjmp(resume, 1);
}

/* The x87 computes wider than double: a store rounds to it. */
static double stored(double value) {
    volatile double memory = value;
    return memory;
}

static void known_values_come_out_exactly(void) {
    volatile double two = 2, third = 1.0 / 3.0;
    volatile float tenth = 0.1f;
    volatile long double one = 1;
    EXPECT(stored(sqrt(two)) == 0x1.6a09e667f3bcdp+0);
    EXPECT(third == 0x1.5555555555555p-2);
    EXPECT((double)tenth == 0x1.99999ap-4);
    EXPECT(one + 0x1p-63L != one && one + 0x1p-65L == one);
    EXPECT(fabs(sin(two) - 0x1.d18f6ead1b446p-1) < 1e-15 && fabs(exp(two) - 0x1.d8e64b8d4ddaep+2) < 1e-14);
    volatile double denormal = 0x1p-1074;
    EXPECT(stored(denormal / 2) == 0 && stored(denormal * 0x1p52) == 0x1p-1022);
    volatile double huge = 1e308;
    EXPECT(isinf(stored(huge * 10)) && isnan(stored(huge * 10) - stored(huge * 10)));
}

static void pi_by_machin(void) {
    long double x87 = 0;
    double sse = 0;
    for (int k = 40; k >= 0; k--) {
        long double term = 4 * (4 / powl(5, 2 * k + 1) - 1 / powl(239, 2 * k + 1)) / (2 * k + 1);
        x87 += k % 2 ? -term : term;
        sse += (double)(k % 2 ? -term : term);
    }
    EXPECT(fabsl(x87 - 3.14159265358979323846264338328L) < 1e-18L && fabs(sse - 3.14159265358979323846) < 1e-15);
}

static void rounding_follows_the_mode(void) {
    static const struct {
        int mode;
        long positive, negative;
    } cases[] = {{FE_TONEAREST, 2, -2}, {FE_UPWARD, 3, -2}, {FE_DOWNWARD, 2, -3}, {FE_TOWARDZERO, 2, -2}};
    volatile double value = 2.5, one = 1, three = 3;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        EXPECT(fesetround(cases[i].mode) == 0);
        EXPECT(lrint(value) == cases[i].positive && lrint(-value) == cases[i].negative);
        volatile double quotient = one / three;
        EXPECT(quotient == (cases[i].mode == FE_UPWARD ? 0x1.5555555555556p-2 : 0x1.5555555555555p-2));
    }
    fesetround(FE_TONEAREST);
}

static void flags_and_traps_report_exceptions(void) {
    volatile double zero = 0, one = 1, result;
    feclearexcept(FE_ALL_EXCEPT);
    result = one / zero;
    EXPECT(isinf(result) && fetestexcept(FE_ALL_EXCEPT) == FE_DIVBYZERO);
    feclearexcept(FE_ALL_EXCEPT);
    result = zero / zero;
    EXPECT(isnan(result) && fetestexcept(FE_INVALID));
    EXPECT(signal(SIGFPE, jump_out) != SIG_ERR);
    feclearexcept(FE_ALL_EXCEPT);
    feenableexcept(FE_DIVBYZERO);
    if (!sigsetjmp(resume, 1)) {
        result = one / zero;
        /* On the x87 the next floating-point instruction reports it. */
        result += one;
        EXPECT(!"an unmasked division by zero went on");
    }
    feclearexcept(FE_ALL_EXCEPT);
    fedisableexcept(FE_ALL_EXCEPT);
}

/* Each process keeps numbers in registers over many time slices: any mix-up shows in the sum. */
static int sum_is_right(unsigned seed) {
    double a = seed, b = seed + 0.25;
    long double c = (long double)seed / 3;
    for (int i = 0; i < 300000; i++) {
        a = a * 0.5 + seed;
        b = b * 0.25 + 1;
        c = c * 0.5L + (long double)seed / 3;
        if (i % 50000 == 0)
            usleep(1000);
    }
    return fabs(a - 2.0 * seed) < 1e-9 && fabs(b - 4.0 / 3.0) < 1e-12 &&
           fabsl(c - 2 * (long double)seed / 3) < 1e-15L * (seed + 1);
}

static void processes_keep_their_own_state(void) {
    enum { PROCESSES = 6 };
    pid_t children[PROCESSES];
    for (unsigned n = 0; n < PROCESSES; n++) {
        children[n] = fork();
        EXPECT(children[n] >= 0);
        if (children[n] == 0)
            _exit(!sum_is_right(n * 1000 + 1));
    }
    for (int n = 0; n < PROCESSES; n++) {
        int status = 1;
        EXPECT(waitpid(children[n], &status, 0) == children[n] && status == 0);
    }
}

int main(void) {
    known_values_come_out_exactly();
    pi_by_machin();
    rounding_follows_the_mode();
    flags_and_traps_report_exceptions();
    processes_keep_their_own_state();
    return 0;
}
