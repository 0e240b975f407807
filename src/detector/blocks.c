#include "detector/model_internal.h"

#include <math.h>

struct ggml_tensor *lb_linear_apply(struct ggml_context *ctx, const lb_linear *layer, struct ggml_tensor *x) {
    x = ggml_mul_mat(ctx, layer->w, x);
    return layer->b ? ggml_add(ctx, x, layer->b) : x;
}

struct ggml_tensor *lb_norm_apply(struct ggml_context *ctx, const lb_norm *norm, struct ggml_tensor *x, float eps) {
    return ggml_add(ctx, ggml_mul(ctx, ggml_norm(ctx, x, eps), norm->w), norm->b);
}

struct ggml_tensor *lb_mlp_apply(struct ggml_context *ctx, const lb_mlp_head *head, struct ggml_tensor *x) {
    for (int i = 0; i < head->n; i++) {
        x = lb_linear_apply(ctx, &head->layer[i], x);
        if (i + 1 < head->n)
            x = ggml_relu(ctx, x);
    }
    return x;
}

struct ggml_tensor *lb_attend(struct ggml_context *ctx, struct ggml_tensor *q, struct ggml_tensor *k,
                              struct ggml_tensor *v, struct ggml_tensor *mask, float scale) {
    const int64_t d_head = q->ne[0], n_head = q->ne[1], n_query = q->ne[2], n_batch = q->ne[3];
    q = ggml_permute(ctx, q, 0, 2, 1, 3); /* ne = [d_head, n, H, B] */
    k = ggml_cont(ctx, ggml_permute(ctx, k, 0, 2, 1, 3));
    v = ggml_cont(ctx, ggml_permute(ctx, v, 1, 2, 0, 3)); /* ne = [n, d_head, H, B] */
    struct ggml_tensor *kq = ggml_soft_max_ext(ctx, ggml_mul_mat(ctx, k, q), mask, scale, 0.0f);
    struct ggml_tensor *out = ggml_cont(ctx, ggml_permute(ctx, ggml_mul_mat(ctx, v, kq), 0, 2, 1, 3));
    return ggml_reshape_3d(ctx, out, d_head * n_head, n_query, n_batch);
}

static struct ggml_tensor *heads(struct ggml_context *ctx, struct ggml_tensor *x, int n_heads) {
    return ggml_reshape_4d(ctx, x, x->ne[0] / n_heads, n_heads, x->ne[1], x->ne[2]);
}

struct ggml_tensor *lb_attention_apply(struct ggml_context *ctx, const lb_attention *attention, int n_heads,
                                       struct ggml_tensor *query, struct ggml_tensor *key, struct ggml_tensor *value,
                                       struct ggml_tensor *mask) {
    const float scale = 1.0f / sqrtf((float)(query->ne[0] / n_heads));
    struct ggml_tensor *q = heads(ctx, lb_linear_apply(ctx, &attention->query, query), n_heads);
    struct ggml_tensor *k = heads(ctx, lb_linear_apply(ctx, &attention->key, key), n_heads);
    struct ggml_tensor *v = heads(ctx, lb_linear_apply(ctx, &attention->value, value), n_heads);
    return lb_linear_apply(ctx, &attention->out, lb_attend(ctx, q, k, v, mask, scale));
}
