#include "detector/model_internal.h"

#include <math.h>

/* ggml-cuda multiplies f32 by up to 16 columns with a kernel of its own, in tf32 whatever NVIDIA_TF32_OVERRIDE says
 * (ggml_cuda_should_use_mmf); cuBLAS gets what has more. */
enum { COLUMNS_IN_TF32 = 16 };

struct ggml_tensor *lb_gdino_product(lb_gdino_graph *g, struct ggml_tensor *w, struct ggml_tensor *x) {
    struct ggml_context *ctx = g->ctx;
    const int64_t n = x->ne[1];
    if (!g->exact || w->type != GGML_TYPE_F32 || n > COLUMNS_IN_TF32)
        return ggml_mul_mat(ctx, w, x);
    x = ggml_pad(ctx, ggml_cont(ctx, x), 0, (int)(COLUMNS_IN_TF32 + 1 - n), 0, 0);
    x = ggml_mul_mat(ctx, w, x);
    return ggml_cont(ctx, ggml_view_4d(ctx, x, x->ne[0], n, x->ne[2], x->ne[3], x->nb[1], x->nb[2], x->nb[3], 0));
}

struct ggml_tensor *lb_linear_apply(lb_gdino_graph *g, const lb_linear *layer, struct ggml_tensor *x) {
    x = lb_gdino_product(g, layer->w, x);
    return layer->b ? ggml_add(g->ctx, x, layer->b) : x;
}

struct ggml_tensor *lb_norm_apply(struct ggml_context *ctx, const lb_norm *norm, struct ggml_tensor *x, float eps) {
    return ggml_add(ctx, ggml_mul(ctx, ggml_norm(ctx, x, eps), norm->w), norm->b);
}

struct ggml_tensor *lb_mlp_apply(lb_gdino_graph *g, const lb_mlp_head *head, struct ggml_tensor *x) {
    for (int i = 0; i < head->n; i++) {
        x = lb_linear_apply(g, &head->layer[i], x);
        if (i + 1 < head->n)
            x = ggml_relu(g->ctx, x);
    }
    return x;
}

struct ggml_tensor *lb_attend(lb_gdino_graph *g, struct ggml_tensor *q, struct ggml_tensor *k, struct ggml_tensor *v,
                              struct ggml_tensor *mask, float scale) {
    struct ggml_context *ctx = g->ctx;
    const int64_t d_head = q->ne[0], n_head = q->ne[1], n_query = q->ne[2], n_batch = q->ne[3];
    q = ggml_permute(ctx, q, 0, 2, 1, 3); /* ne = [d_head, n, H, B] */
    if (g->way == LB_GDINO_BY_FUNCTION)   /* ggml's fast products on the CPU take nothing else */
        q = ggml_cont(ctx, q);
    k = ggml_cont(ctx, ggml_permute(ctx, k, 0, 2, 1, 3));
    v = ggml_cont(ctx, ggml_permute(ctx, v, 1, 2, 0, 3)); /* ne = [n, d_head, H, B] */
    struct ggml_tensor *kq = ggml_soft_max_ext(ctx, lb_gdino_product(g, k, q), mask, scale, 0.0f);
    struct ggml_tensor *out = ggml_cont(ctx, ggml_permute(ctx, lb_gdino_product(g, v, kq), 0, 2, 1, 3));
    return ggml_reshape_3d(ctx, out, d_head * n_head, n_query, n_batch);
}

static struct ggml_tensor *heads(struct ggml_context *ctx, struct ggml_tensor *x, int n_heads) {
    return ggml_reshape_4d(ctx, x, x->ne[0] / n_heads, n_heads, x->ne[1], x->ne[2]);
}

struct ggml_tensor *lb_attention_apply(lb_gdino_graph *g, const lb_attention *attention, int n_heads,
                                       struct ggml_tensor *query, struct ggml_tensor *key, struct ggml_tensor *value,
                                       struct ggml_tensor *mask) {
    const float scale = 1.0f / sqrtf((float)(query->ne[0] / n_heads));
    struct ggml_tensor *q = heads(g->ctx, lb_linear_apply(g, &attention->query, query), n_heads);
    struct ggml_tensor *k = heads(g->ctx, lb_linear_apply(g, &attention->key, key), n_heads);
    struct ggml_tensor *v = heads(g->ctx, lb_linear_apply(g, &attention->value, value), n_heads);
    return lb_linear_apply(g, &attention->out, lb_attend(g, q, k, v, mask, scale));
}
