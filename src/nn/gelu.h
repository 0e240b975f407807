/* GELU with erf, as the vision models have it.
 *
 *     x = lb_gelu(ctx, device->is_cpu, ggml_mul_mat(ctx, up_w, x), up_b);
 */
#ifndef LB_NN_GELU_H
#define LB_NN_GELU_H

#include <stdbool.h>

struct ggml_context;
struct ggml_tensor;

/* gelu(x + bias), written in x's place. x: f32, contiguous, ne = [n, ...]; bias: ne = [n], f32; NULL: none. On the CPU
 * an operation of our own, since ggml's calls erff number by number there; elsewhere ggml's. */
struct ggml_tensor *lb_gelu(struct ggml_context *ctx, bool on_cpu, struct ggml_tensor *x, struct ggml_tensor *bias);

/* The same for n numbers; x and to may be one. */
void lb_gelu_row(const float *x, const float *bias, float *to, int n);

#endif
