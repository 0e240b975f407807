/* lb_gelu_row against GELU in double with libm's erf, and against float erff, as ggml has it. */
#include "nn/gelu.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static double reference(double x) {
    return 0.5 * x * (1 + erf(x * 0.70710678118654752440));
}

static float in_float(float x) {
    return 0.5f * x * (1.0f + erff(x * 0.70710678f));
}

static void test_accuracy(void **state) {
    (void)state;
    enum { N = 1 << 14, ROUNDS = 64 };
    static float x[N], y[N];
    double worst = 0, worst_float = 0;
    for (int r = 0; r < ROUNDS; r++) {
        for (int i = 0; i < N; i++)
            x[i] = -8.0f + 16.0f * ((float)i + (float)r / ROUNDS) / N;
        lb_gelu_row(x, NULL, y, N);
        for (int i = 0; i < N; i++) {
            worst = fmax(worst, fabs((double)y[i] - reference((double)x[i])) / fmax(1, fabs((double)x[i])));
            worst_float =
                fmax(worst_float, fabs((double)in_float(x[i]) - reference((double)x[i])) / fmax(1, fabs((double)x[i])));
        }
    }
    print_message("%d numbers from -8 to 8: largest error %.2e of max(1, |x|); with erff in float %.2e\n", N * ROUNDS,
                  worst, worst_float);
    assert_true(worst < 4e-7);
}

static void test_every_exponent(void **state) {
    (void)state;
    int n = 0;
    for (uint32_t bits = 0; bits < 0xff000000u; bits += 0x1003f, n++) { /* all signs and exponents, many mantissas */
        float x, y;
        memcpy(&x, &bits, sizeof x);
        lb_gelu_row(&x, NULL, &y, 1);
        if (isnan(x)) {
            assert_true(isnan(y));
            continue;
        }
        const double expected = reference((double)x), error = fabs((double)y - expected);
        if (isnan(expected)) /* minus infinity times zero */
            assert_true(isnan(y));
        else if (!(error <= 4e-7 * fmax(1e-30, fabs((double)x)) || (double)y == expected))
            fail_msg("gelu(%g) is %g, not %g", (double)x, (double)y, expected);
    }
    print_message("%d numbers of every size hold\n", n);
}

static void test_ends(void **state) {
    (void)state;
    float y;
    lb_gelu_row(&(float){0.0f}, NULL, &y, 1);
    assert_true(y == 0.0f && !signbit(y));
    lb_gelu_row(&(float){-0.0f}, NULL, &y, 1);
    assert_true(y == 0.0f && signbit(y));
    lb_gelu_row(&(float){INFINITY}, NULL, &y, 1);
    assert_true(y == INFINITY);
    lb_gelu_row(&(float){-INFINITY}, NULL, &y, 1);
    assert_true(isnan(y)); /* zero times it, as in the formula */
}

static void test_bias_and_places(void **state) {
    (void)state;
    float x[37], bias[37], apart[37], together[37];
    for (int i = 0; i < 37; i++) {
        x[i] = (float)i / 7 - 2;
        bias[i] = (float)(i % 5) - 2;
        together[i] = x[i] + bias[i];
    }
    lb_gelu_row(together, NULL, together, 37);
    lb_gelu_row(x, bias, apart, 37);
    assert_memory_equal(apart, together, sizeof apart);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accuracy),
        cmocka_unit_test(test_every_exponent),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_bias_and_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
