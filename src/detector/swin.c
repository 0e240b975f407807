/* Pictures -> feature maps: SwinBackbone of transformers 5.23, any size. always_partition is set there, so the window
 * keeps its size where a map is smaller than it. */
#include "detector/model_internal.h"

#include <math.h>
#include <stdlib.h>

/* nn.LayerNorm's own default: the patch embedding's, patch merging's and the maps' norms do not take the config's. */
#define TORCH_EPS 1e-5f

/* in: ne = [W, H, 3, B], or patches already; out: ne = [embed_dim, W / patch * H / patch, B] */
static struct ggml_tensor *embed_patches(lb_gdino_graph *g, struct ggml_tensor *pixels) {
    struct ggml_context *ctx = g->ctx;
    const lb_gdino_model *model = g->model;
    const int64_t p = model->hparams.swin.patch_size, w = pixels->ne[0] / p, h = pixels->ne[1] / p, n = pixels->ne[3];
    const lb_linear kernel = {ggml_reshape_2d(ctx, model->patch.w, p * p * 3, model->hparams.swin.embed_dim),
                              model->patch.b};
    if (g->way == LB_GDINO_BY_CUDA) {
        struct ggml_tensor *x = lb_gdino_linear(g, &kernel, pixels, LB_ACT_NONE, NULL, GGML_TYPE_F32);
        return lb_gdino_norm(g, &model->patch_norm, x, TORCH_EPS, GGML_TYPE_F32);
    }
    struct ggml_tensor *x = ggml_reshape_4d(ctx, pixels, p, w, p, h * 3 * n);
    x = ggml_cont(ctx, ggml_permute(ctx, x, 0, 2, 1, 3)); /* ne = [p (x), p (y), w, h * 3 * n] */
    x = ggml_reshape_4d(ctx, x, p * p, w * h, 3, n);
    x = ggml_cont(ctx, ggml_permute(ctx, x, 0, 2, 1, 3)); /* ne = [p * p, 3, w * h, n] */
    x = ggml_reshape_3d(ctx, x, p * p * 3, w * h, n);
    return lb_norm_apply(ctx, &model->patch_norm, lb_linear_apply(g, &kernel, x), TORCH_EPS);
}

/* What keeps a shifted window's parts that are no neighbours in the picture apart: -100 between positions of different
 * regions (get_attn_mask), here divided by the scale that the softmax multiplies with.
 * out: ne = [window^2 (key), window^2 (query), 1, windows of one picture] */
static struct ggml_tensor *shift_mask(lb_gdino_graph *g, int width, int height, int shift, float scale) {
    const int window = g->model->hparams.swin.window_size, n = window * window;
    const int64_t n_windows = (int64_t)(width / window) * (height / window);
    /* windows differ only by lying in the last column or row, or not: four kinds, spread by a gather */
    float *kinds = malloc((size_t)4 * n * n * sizeof *kinds);
    int32_t *kind = malloc((size_t)n_windows * sizeof *kind);
    for (int k = 0; k < 4 && kinds; k++) {
        for (int q = 0; q < n * n; q++) {
            int a = q / n, b = q % n;
            bool x = (k & 1) && (a % window >= window - shift) != (b % window >= window - shift);
            bool y = (k & 2) && (a / window >= window - shift) != (b / window >= window - shift);
            kinds[(size_t)k * n * n + q] = x || y ? -100.0f / scale : 0.0f;
        }
    }
    for (int64_t i = 0; kind && i < n_windows; i++)
        kind[i] = (i % (width / window) == width / window - 1 ? 1 : 0) +
                  (i / (width / window) == height / window - 1 ? 2 : 0);
    struct ggml_tensor *table = lb_gdino_constant(g, GGML_TYPE_F32, (int64_t)n * n, 4, 1, 1, kinds);
    struct ggml_tensor *index = lb_gdino_constant(g, GGML_TYPE_I32, n_windows, 1, 1, 1, kind);
    return ggml_reshape_4d(g->ctx, ggml_get_rows(g->ctx, table, index), n, n, 1, n_windows);
}

/* x: ne = [C, window^2, windows]; mask: of shift_mask or NULL */
static struct ggml_tensor *window_attention(lb_gdino_graph *g, const lb_swin_block *block, int n_heads,
                                            struct ggml_tensor *x, struct ggml_tensor *mask) {
    struct ggml_context *ctx = g->ctx;
    const int64_t channels = x->ne[0], d_head = channels / n_heads, n = x->ne[1], n_windows = x->ne[2];
    struct ggml_tensor *qkv = lb_linear_apply(g, &block->qkv, x), *part[3];
    for (int i = 0; i < 3; i++)
        part[i] = ggml_view_4d(ctx, qkv, d_head, n_heads, n, n_windows, (size_t)d_head * 4, qkv->nb[1], qkv->nb[2],
                               (size_t)(i * channels) * 4);
    struct ggml_tensor *q = ggml_permute(ctx, part[0], 0, 2, 1, 3); /* ne = [d_head, window^2, heads, windows] */
    struct ggml_tensor *k = ggml_cont(ctx, ggml_permute(ctx, part[1], 0, 2, 1, 3));
    struct ggml_tensor *v = ggml_cont(ctx, ggml_permute(ctx, part[2], 1, 2, 0, 3));
    struct ggml_tensor *kq = lb_gdino_product(g, k, q);
    if (mask)
        kq = ggml_add(ctx, kq, mask);
    kq = ggml_soft_max_ext(ctx, kq, block->bias, 1.0f / sqrtf((float)d_head), 0.0f);
    struct ggml_tensor *out = ggml_cont(ctx, ggml_permute(ctx, lb_gdino_product(g, v, kq), 0, 2, 1, 3));
    return lb_linear_apply(g, &block->out, ggml_reshape_3d(ctx, out, channels, n, n_windows));
}

/* in: ne = [C, W, H, B] with whole windows; out: ne = [C, window^2, windows of all pictures], and back */
static struct ggml_tensor *partition(struct ggml_context *ctx, struct ggml_tensor *x, int64_t window) {
    const int64_t c = x->ne[0], nw = x->ne[1] / window, nh = x->ne[2] / window, n = x->ne[3];
    x = ggml_reshape_4d(ctx, x, c * window, nw, window, nh * n);
    x = ggml_cont(ctx, ggml_permute(ctx, x, 0, 2, 1, 3));
    return ggml_reshape_3d(ctx, x, c, window * window, nw * nh * n);
}

static struct ggml_tensor *reverse(struct ggml_context *ctx, struct ggml_tensor *x, int64_t window, int64_t width,
                                   int64_t height, int64_t n) {
    const int64_t c = x->ne[0];
    x = ggml_reshape_4d(ctx, x, c * window, window, width / window, height / window * n);
    x = ggml_cont(ctx, ggml_permute(ctx, x, 0, 2, 1, 3));
    return ggml_reshape_4d(ctx, x, c, width, height, n);
}

/* The same with windows, shift and padding by index: rows of the map stay where they are. Padding to whole windows is
 * zeros after the norm: there query, key and value are the layer's bias, which the operation puts in. */
static struct ggml_tensor *attention_in_place(lb_gdino_graph *g, const lb_swin_block *block, int n_heads, int width,
                                              int height, int shift, struct ggml_tensor *x) {
    const lb_swin_hparams *hp = &g->model->hparams.swin;
    const enum ggml_type act = lb_gdino_act_type(g);
    struct ggml_tensor *cur = lb_gdino_norm(g, &block->before, x, hp->layer_norm_eps, act);
    cur = lb_gdino_linear(g, &block->qkv, cur, LB_ACT_NONE, NULL, act);
    cur = lb_gdino_windows(g, block, cur, n_heads, (lb_windows){width, height, hp->window_size, shift});
    return lb_gdino_linear(g, &block->out, cur, LB_ACT_NONE, x, GGML_TYPE_F32);
}

/* SwinLayer. x: ne = [C, width * height, B]. Padding to whole windows is zeros after the norm, and is attended to. */
static struct ggml_tensor *attention_by_ggml(lb_gdino_graph *g, const lb_swin_block *block, int n_heads, int width,
                                             int height, int shift, struct ggml_tensor *mask, struct ggml_tensor *x) {
    struct ggml_context *ctx = g->ctx;
    const lb_swin_hparams *hp = &g->model->hparams.swin;
    const int64_t c = x->ne[0], n = x->ne[2], window = hp->window_size;
    const int right = (int)((window - width % window) % window), bottom = (int)((window - height % window) % window);
    struct ggml_tensor *cur = lb_norm_apply(ctx, &block->before, x, hp->layer_norm_eps);
    cur = ggml_reshape_4d(ctx, cur, c, width, height, n);
    if (right || bottom)
        cur = ggml_pad(ctx, cur, 0, right, bottom, 0);
    if (shift)
        cur = ggml_roll(ctx, cur, 0, -shift, -shift, 0);
    cur = window_attention(g, block, n_heads, partition(ctx, cur, window), mask);
    cur = reverse(ctx, cur, window, width + right, height + bottom, n);
    if (shift)
        cur = ggml_roll(ctx, cur, 0, shift, shift, 0);
    if (right || bottom)
        cur = ggml_cont(ctx, ggml_view_4d(ctx, cur, c, width, height, n, cur->nb[1], cur->nb[2], cur->nb[3], 0));
    return ggml_add(ctx, ggml_reshape_3d(ctx, cur, c, (int64_t)width * height, n), x);
}

static struct ggml_tensor *mlp(lb_gdino_graph *g, const lb_swin_block *block, struct ggml_tensor *x) {
    const enum ggml_type act = lb_gdino_act_type(g);
    struct ggml_tensor *cur = lb_gdino_norm(g, &block->after, x, g->model->hparams.swin.layer_norm_eps, act);
    cur = lb_gdino_linear(g, &block->up, cur, LB_ACT_GELU, NULL, act);
    return lb_gdino_linear(g, &block->down, cur, LB_ACT_NONE, x, GGML_TYPE_F32);
}

/* SwinPatchMerging: four neighbours become one, of a column first the upper, then the lower.
 * in: ne = [C, width * height, B]; out: ne = [2 C, (width + 1) / 2 * (height + 1) / 2, B] */
static struct ggml_tensor *merge_patches(lb_gdino_graph *g, const lb_swin_stage *stage, int width, int height,
                                         struct ggml_tensor *x) {
    struct ggml_context *ctx = g->ctx;
    if (g->way == LB_GDINO_BY_CUDA) {
        x = lb_gdino_merge_norm(g, &stage->merge_norm, x, width, height, TORCH_EPS);
        return lb_gdino_linear(g, &stage->reduction, x, LB_ACT_NONE, NULL, GGML_TYPE_F32);
    }
    const int64_t c = x->ne[0], n = x->ne[2], w = (width + 1) / 2, h = (height + 1) / 2;
    x = ggml_reshape_4d(ctx, x, c, width, height, n);
    if (width % 2 || height % 2)
        x = ggml_pad(ctx, x, 0, width % 2, height % 2, 0);
    x = ggml_reshape_4d(ctx, x, c * 2, w, 2, h * n);
    x = ggml_cont(ctx, ggml_permute(ctx, x, 0, 2, 1, 3)); /* ne = [C * 2 (column), 2 (row), w, h * n] */
    x = ggml_reshape_4d(ctx, x, c, 2, 2, w * h * n);
    x = ggml_cont(ctx, ggml_permute(ctx, x, 0, 2, 1, 3)); /* ne = [C, 2 (row), 2 (column), w * h * n] */
    x = ggml_reshape_3d(ctx, x, c * 4, w * h, n);
    return lb_linear_apply(g, &stage->reduction, lb_norm_apply(ctx, &stage->merge_norm, x, TORCH_EPS));
}

void lb_swin(lb_gdino_graph *g, struct ggml_tensor *pixels, struct ggml_tensor *map[LB_GDINO_STAGES_MAX]) {
    const lb_swin_hparams *hp = &g->model->hparams.swin;
    const int window = hp->window_size;
    struct ggml_tensor *x = embed_patches(g, pixels);
    for (int i = 0, out = 0; i < hp->n_stages; i++) {
        const lb_swin_stage *stage = &g->model->stage[i];
        const int width = g->geometry->map_width[i], height = g->geometry->map_height[i];
        const int64_t d_head = x->ne[0] / hp->num_heads[i];
        const bool in_place = lb_gdino_windows_fit(g, d_head);
        const float scale = 1.0f / sqrtf((float)d_head);
        struct ggml_tensor *mask = NULL;
        for (int k = 0; k < hp->depths[i]; k++) {
            int shift = k % 2 ? window / 2 : 0;
            if (shift && !mask && !in_place)
                mask = shift_mask(g, (width + window - 1) / window * window, (height + window - 1) / window * window,
                                  shift, scale);
            const lb_swin_block *block = &stage->block[k];
            x = in_place ? attention_in_place(g, block, hp->num_heads[i], width, height, shift, x)
                         : attention_by_ggml(g, block, hp->num_heads[i], width, height, shift, shift ? mask : NULL, x);
            x = mlp(g, block, x);
        }
        if (out < hp->n_out && hp->out_indices[out] == i + 1) {
            map[out] = lb_gdino_mark(g, lb_gdino_norm(g, &stage->out_norm, x, TORCH_EPS, GGML_TYPE_F32), "map_%d", out);
            out++;
        }
        if (i + 1 < hp->n_stages)
            x = merge_patches(g, stage, width, height, x);
    }
}
