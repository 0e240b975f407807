#include "nn/gelu.h"

#include "nn/avx2.h"

#include <ggml.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

/* erf(z) = z P(z^2) / Q(z^2) up to 4 and 1 from there; tools/fit_erf.py made P and Q, whose error is 2e-8, below the
 * rounding of the sums in f32 (tests/nn/test_gelu.c prints both). No branch and no call, so that compilers make eight
 * at once of it (with -fno-trapping-math: CMakeLists.txt). */
LB_INLINE float gelu(float x) {
    const float z = x * 0.70710678f, t = z * z;
    float p = 1.974689344e-06f, q = 3.747814695e-05f;
    p = p * t + 2.880182302e-04f;
    q = q * t + 1.216246205e-03f;
    p = p * t + 4.003305447e-03f;
    q = q * t + 1.544378685e-02f;
    p = p * t + 5.346646820e-02f;
    q = q * t + 1.164738171e-01f;
    p = p * t + 1.962432386e-01f;
    q = q * t + 5.072472081e-01f;
    p = p * t + 1.128378977e+00f;
    q = q * t + 1.0f;
    const float inner = z * p / q;
    const float erf = t < 16.0f ? inner : z > 0.0f ? 1.0f : -1.0f;
    return 0.5f * x * (1.0f + erf);
}

LB_INLINE void row(const float *x, const float *bias, float *to, int n) {
    if (bias)
        for (int i = 0; i < n; i++)
            to[i] = gelu(x[i] + bias[i]);
    else
        for (int i = 0; i < n; i++)
            to[i] = gelu(x[i]);
}

LB_AVX2 static void row_avx2(const float *x, const float *bias, float *to, int n) {
    row(x, bias, to, n);
}

static void row_plain(const float *x, const float *bias, float *to, int n) {
    row(x, bias, to, n);
}

void lb_gelu_row(const float *x, const float *bias, float *to, int n) {
    (LB_HAS_AVX2 ? row_avx2 : row_plain)(x, bias, to, n);
}

static void run(struct ggml_tensor *to, const struct ggml_tensor *x, const float *bias, int thread, int n_threads) {
    const int64_t n = x->ne[0], rows = ggml_nrows(x);
    for (int64_t r = rows * thread / n_threads; r < rows * (thread + 1) / n_threads; r++)
        lb_gelu_row((const float *)x->data + r * n, bias, (float *)to->data + r * n, (int)n);
}

static void without_bias(struct ggml_tensor *to, const struct ggml_tensor *x, int thread, int n_threads, void *user) {
    (void)user;
    run(to, x, NULL, thread, n_threads);
}

static void with_bias(struct ggml_tensor *to, const struct ggml_tensor *x, const struct ggml_tensor *bias, int thread,
                      int n_threads, void *user) {
    (void)user;
    run(to, x, bias->data, thread, n_threads);
}

struct ggml_tensor *lb_gelu(struct ggml_context *ctx, bool on_cpu, struct ggml_tensor *x, struct ggml_tensor *bias) {
    if (!on_cpu)
        return ggml_gelu_erf(ctx, bias ? ggml_add(ctx, x, bias) : x);
    return bias ? ggml_map_custom2_inplace(ctx, x, bias, with_bias, GGML_N_TASKS_MAX, NULL)
                : ggml_map_custom1_inplace(ctx, x, without_bias, GGML_N_TASKS_MAX, NULL);
}
