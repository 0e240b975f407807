#include "vlm/encoder_internal.h"

#include "nn/gelu.h"

#include <math.h>

#define QK8_0_VALUES 32 /* values in a q8_0 block, ggml's QK8_0 */

int64_t lb_encoder_pixel_blocks(const lb_encoder_hparams *hparams, int n_tiles) {
    int64_t bytes = (int64_t)hparams->image_size * hparams->image_size * 3 * n_tiles;
    return (bytes + QK8_0_VALUES - 1) / QK8_0_VALUES;
}

static struct ggml_tensor *linear(struct ggml_context *ctx, struct ggml_tensor *x, struct ggml_tensor *w,
                                  struct ggml_tensor *b) {
    return ggml_add(ctx, ggml_mul_mat(ctx, w, x), b);
}

static struct ggml_tensor *layer_norm(struct ggml_context *ctx, struct ggml_tensor *x, struct ggml_tensor *w,
                                      struct ggml_tensor *b, float eps) {
    return ggml_add(ctx, ggml_mul(ctx, ggml_norm(ctx, x, eps), w), b);
}

/* 8-bit pixels to patch embeddings. in: [32 * blocks] q8_0; out: ne = [n_embd, n_patches, n_tiles] */
static struct ggml_tensor *embed_patches(const lb_encoder_model *model, struct ggml_context *ctx,
                                         struct ggml_tensor *pixels, int n_tiles) {
    const int64_t patch = model->hparams.patch_size, side = model->hparams.image_size / patch;
    struct ggml_tensor *x = ggml_cast(ctx, pixels, GGML_TYPE_F32);
    x = ggml_view_4d(ctx, x, 3 * patch, side, patch, side * n_tiles, (size_t)(3 * patch) * 4,
                     (size_t)(3 * patch * side) * 4, (size_t)(3 * patch * side * patch) * 4, 0);
    x = ggml_add(ctx, ggml_mul(ctx, x, model->pixel_scale), model->pixel_shift);
    x = ggml_cont(ctx, ggml_permute(ctx, x, 0, 2, 1, 3)); /* ne = [3 patch, patch, side, side * n_tiles] */
    x = ggml_reshape_3d(ctx, x, 3 * patch * patch, side * side, n_tiles);
    return linear(ctx, x, model->patch_w, model->patch_b);
}

enum { FAST_ROW = 8 }; /* ggml's CPU products are fast where sums are over a multiple of so many numbers (AVX2) */

/* For n_pos keys and some more of padding: 0 and, for what is padding, a weight of 0. NULL: there is none.
 * ne = [n_keys, n_pos] */
static struct ggml_tensor *padding_mask(struct ggml_context *ctx, int64_t n_pos, int64_t n_keys) {
    if (n_keys == n_pos)
        return NULL;
    struct ggml_tensor *mask = ggml_arange(ctx, 0.0f, (float)n_keys, 1.0f);
    mask = ggml_step(ctx, ggml_scale_bias(ctx, mask, 1.0f, 0.5f - (float)n_pos)); /* 1 from n_pos on */
    return ggml_repeat_4d(ctx, ggml_scale(ctx, mask, -1e30f), n_keys, n_pos, 1, 1);
}

/* Plain attention, f32 throughout: the exact mode. q, k, v: ne = [d_head, n_pos, n_head, n_tiles], strided; mask: of
 * padding_mask. out: ne = [d_head, n_head, n_pos, n_tiles] */
static struct ggml_tensor *attend_plain(struct ggml_context *ctx, struct ggml_tensor *q, struct ggml_tensor *k,
                                        struct ggml_tensor *v, struct ggml_tensor *mask, float scale) {
    const int more = mask ? (int)(mask->ne[0] - k->ne[1]) : 0;
    k = more ? ggml_pad(ctx, k, 0, more, 0, 0) : ggml_cont(ctx, k);
    v = more ? ggml_pad(ctx, v, 0, more, 0, 0) : v;
    struct ggml_tensor *kq = ggml_mul_mat(ctx, k, ggml_cont(ctx, q));
    kq = ggml_soft_max_ext(ctx, kq, mask, scale, 0.0f);
    struct ggml_tensor *v_t = ggml_cont(ctx, ggml_permute(ctx, v, 1, 0, 2, 3));
    struct ggml_tensor *kqv = ggml_mul_mat(ctx, v_t, kq);
    return ggml_cont(ctx, ggml_permute(ctx, kqv, 0, 2, 1, 3));
}

static struct ggml_tensor *attention(const lb_encoder_model *model, struct ggml_context *ctx,
                                     const lb_encoder_layer *layer, struct ggml_tensor *x, struct ggml_tensor *mask,
                                     bool flash) {
    const int64_t n_embd = model->hparams.n_embd, n_head = model->hparams.n_head, d_head = n_embd / n_head;
    const int64_t n_pos = x->ne[1], n_tiles = x->ne[2];
    struct ggml_tensor *qkv = linear(ctx, x, layer->qkv_w, layer->qkv_b); /* ne = [3 n_embd, n_pos, n_tiles] */
    struct ggml_tensor *part[3];
    for (int i = 0; i < 3; i++) {
        struct ggml_tensor *view = ggml_view_4d(ctx, qkv, d_head, n_head, n_pos, n_tiles, (size_t)d_head * 4,
                                                qkv->nb[1], qkv->nb[2], (size_t)(i * n_embd) * 4);
        part[i] = ggml_permute(ctx, view, 0, 2, 1, 3); /* ne = [d_head, n_pos, n_head, n_tiles] */
    }
    const float scale = 1.0f / sqrtf((float)d_head);
    struct ggml_tensor *out = flash ? ggml_flash_attn_ext(ctx, part[0], part[1], part[2], NULL, scale, 0.0f, 0.0f)
                                    : attend_plain(ctx, part[0], part[1], part[2], mask, scale);
    out = ggml_reshape_3d(ctx, out, n_embd, n_pos, n_tiles);
    return linear(ctx, out, layer->out_w, layer->out_b);
}

static struct ggml_tensor *mlp(struct ggml_context *ctx, const lb_encoder_layer *layer, struct ggml_tensor *x,
                               bool on_cpu) {
    x = lb_gelu(ctx, on_cpu, ggml_mul_mat(ctx, layer->up_w, x), layer->up_b);
    return linear(ctx, x, layer->down_w, layer->down_b);
}

/* scale_factor^2 neighbouring patches become one token; which patch comes first is OpenGVLab's pixel_shuffle
 * (ps_version v2): the two halves of a row stay together, then the rows. in: ne = [n_embd, n_patches, n_tiles]; out: ne
 * = [s^2 n_embd, n_tokens, n_tiles] */
static struct ggml_tensor *pixel_shuffle(const lb_encoder_model *model, struct ggml_context *ctx,
                                         struct ggml_tensor *x) {
    const int64_t s = model->hparams.scale_factor, side = model->hparams.image_size / model->hparams.patch_size;
    const int64_t n_embd = x->ne[0], n_tiles = x->ne[2];
    x = ggml_reshape_4d(ctx, x, n_embd * s, side / s, side, n_tiles);
    x = ggml_cont(ctx, ggml_permute(ctx, x, 0, 2, 1, 3)); /* ne = [s n_embd, side (y), side/s (x), n_tiles] */
    x = ggml_reshape_4d(ctx, x, n_embd * s * s, side / s, side / s, n_tiles);
    x = ggml_cont(ctx, ggml_permute(ctx, x, 0, 2, 1, 3)); /* ne = [s^2 n_embd, side/s (x), side/s (y), n_tiles] */
    return ggml_reshape_3d(ctx, x, n_embd * s * s, (side / s) * (side / s), n_tiles);
}

struct ggml_cgraph *lb_encoder_graph(const lb_encoder_model *model, struct ggml_context *ctx, int n_tiles, bool flash,
                                     bool on_cpu) {
    const lb_encoder_hparams *hp = &model->hparams;
    struct ggml_cgraph *graph = ggml_new_graph_custom(ctx, LB_ENCODER_NODES_MAX, false);
    struct ggml_tensor *pixels =
        ggml_new_tensor_1d(ctx, GGML_TYPE_Q8_0, lb_encoder_pixel_blocks(hp, n_tiles) * QK8_0_VALUES);
    ggml_set_name(pixels, "pixels");
    ggml_set_input(pixels);

    struct ggml_tensor *x = embed_patches(model, ctx, pixels, n_tiles);
    struct ggml_tensor *class_embd = ggml_repeat_4d(ctx, model->class_embd, hp->n_embd, 1, n_tiles, 1);
    x = ggml_concat(ctx, class_embd, x, 1);
    x = ggml_add(ctx, x, model->position_embd);
    ggml_set_name(x, "patches");

    const int64_t n_pos = x->ne[1], n_keys = on_cpu ? (n_pos + FAST_ROW - 1) / FAST_ROW * FAST_ROW : n_pos;
    struct ggml_tensor *mask = padding_mask(ctx, n_pos, n_keys);
    for (int i = 0; i < hp->n_layer; i++) {
        const lb_encoder_layer *layer = &model->layer[i];
        struct ggml_tensor *cur = layer_norm(ctx, x, layer->ln1_w, layer->ln1_b, hp->eps);
        x = ggml_add(ctx, x, ggml_mul(ctx, attention(model, ctx, layer, cur, mask, flash), layer->ls1));
        cur = layer_norm(ctx, x, layer->ln2_w, layer->ln2_b, hp->eps);
        x = ggml_add(ctx, x, ggml_mul(ctx, mlp(ctx, layer, cur, on_cpu), layer->ls2));
        ggml_format_name(x, "layer_%d", i);
    }

    /* drop the class token; the copy also makes the rows contiguous for the shuffle */
    x = ggml_cont(ctx, ggml_view_3d(ctx, x, x->ne[0], x->ne[1] - 1, x->ne[2], x->nb[1], x->nb[2], x->nb[1]));
    x = pixel_shuffle(model, ctx, x);
    x = layer_norm(ctx, x, model->mm_norm_w, model->mm_norm_b, 1e-5f);
    x = lb_gelu(ctx, on_cpu, ggml_mul_mat(ctx, model->mm_1_w, x), model->mm_1_b);
    x = linear(ctx, x, model->mm_3_w, model->mm_3_b);
    ggml_set_name(x, "embeddings");
    ggml_set_output(x);
    ggml_build_forward_expand(graph, x);
    return graph;
}
