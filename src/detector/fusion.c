/* Feature maps and text features -> encoder output: the input projections and GroundingDinoEncoder. */
#include "detector/model_internal.h"

#include <math.h>
#include <stdlib.h>

enum { N_GROUPS = 32 }; /* nn.GroupNorm(32, d_model), eps 1e-5 */

/* x: ne = [width, height, d, B]; out: ne = [d, width * height, B] */
static struct ggml_tensor *group_norm(struct ggml_context *ctx, const lb_norm *norm, struct ggml_tensor *x) {
    const int64_t d = x->ne[2], n = x->ne[3], hw = x->ne[0] * x->ne[1];
    x = ggml_reshape_3d(ctx, ggml_group_norm(ctx, x, N_GROUPS, 1e-5f), hw, d, n);
    x = ggml_cont(ctx, ggml_transpose(ctx, x));
    return ggml_add(ctx, ggml_mul(ctx, x, norm->w), norm->b);
}

/* x: ne = [C, tokens, B] -> ne = [width, height, C, B] */
static struct ggml_tensor *to_planes(struct ggml_context *ctx, struct ggml_tensor *x, const lb_gdino_level *level) {
    const int64_t c = x->ne[0], n = x->ne[2];
    return ggml_reshape_4d(ctx, ggml_cont(ctx, ggml_transpose(ctx, x)), level->width, level->height, c, n);
}

/* All levels, one after the other: ne = [d, S, B]. */
struct ggml_tensor *lb_gdino_project(lb_gdino_graph *g, struct ggml_tensor *const map[LB_GDINO_STAGES_MAX]) {
    struct ggml_context *ctx = g->ctx;
    const lb_gdino_model *model = g->model;
    const lb_gdino_geometry *geometry = g->geometry;
    const int n_maps = model->hparams.swin.n_out;
    const int64_t d = model->hparams.d_model;
    struct ggml_tensor *all = NULL, *x = NULL;
    for (int i = 0; i < geometry->n_levels; i++) {
        /* Columns of what the kernel covers. An extra level starts from the level before; the first of them from the
         * backbone's map, before its projection. Not ggml_conv_2d, which rounds the columns to f16. */
        struct ggml_tensor *columns = i < n_maps ? map[i] : i == n_maps ? map[n_maps - 1] : x;
        if (i >= n_maps) {
            columns = to_planes(ctx, columns, &geometry->level[i - 1]);
            columns = ggml_im2col(ctx, model->proj_w[i], columns, 2, 2, 1, 1, 1, 1, true, GGML_TYPE_F32);
            columns = ggml_reshape_3d(ctx, columns, columns->ne[0], columns->ne[1] * columns->ne[2], geometry->n);
        }
        const lb_linear kernel = {ggml_reshape_2d(ctx, model->proj_w[i], columns->ne[0], d), model->proj_b[i]};
        x = lb_gdino_linear(g, &kernel, columns, LB_ACT_NONE, NULL, GGML_TYPE_F32);
        x = to_planes(ctx, x, &geometry->level[i]);
        x = group_norm(ctx, &model->proj_norm[i], x);
        all = all ? ggml_concat(ctx, all, x, 1) : x;
    }
    return lb_gdino_mark(g, all, "projected", 0);
}

/* GroundingDinoSinePositionEmbedding along one axis: (i + 1) / (valid + 1e-6) * 2 pi over the frequencies, sine and
 * cosine in turn. ne = [d / 2, n] for each kind of image. What lies in the padding gets other values than in the
 * reference; nothing that is not padding depends on them. */
static struct ggml_tensor *axis_embedding(lb_gdino_graph *g, int level, int axis) {
    const lb_gdino_geometry *geometry = g->geometry;
    const int half = g->model->hparams.d_model / 2, n_images = lb_gdino_n_kinds(geometry);
    const int n = axis == 0 ? geometry->level[level].width : geometry->level[level].height;
    const double temperature = (double)g->model->hparams.positional_embedding_temperature;
    float *values = malloc((size_t)half * (size_t)n * (size_t)n_images * sizeof *values), *at = values;
    for (int image = 0; image < n_images && values; image++) {
        const float valid = (float)lb_gdino_valid(geometry, level, image, axis);
        for (int i = 0; i < n; i++) {
            const float place = (float)(i + 1 < (int)valid ? i + 1 : (int)valid) / (valid + 1e-6f) * (float)(2 * M_PI);
            for (int k = 0; k < half; k++) {
                float angle = place / (float)pow(temperature, 2.0 * (k / 2) / half);
                *at++ = k % 2 ? cosf(angle) : sinf(angle);
            }
        }
    }
    return axis == 0 ? lb_gdino_constant(g, GGML_TYPE_F32, half, n, 1, n_images, values)
                     : lb_gdino_constant(g, GGML_TYPE_F32, half, 1, n, n_images, values);
}

/* Position embeddings, y before x, with the level's own added: ne = [d, S, B], or [d, S, 1] for all pictures. */
static struct ggml_tensor *position_embeddings(lb_gdino_graph *g) {
    struct ggml_context *ctx = g->ctx;
    const lb_gdino_geometry *geometry = g->geometry;
    struct ggml_tensor *level_embed = g->model->level_embed, *all = NULL;
    const int64_t d = level_embed->ne[0], n = lb_gdino_n_kinds(geometry);
    for (int i = 0; i < geometry->n_levels; i++) {
        const int w = geometry->level[i].width, h = geometry->level[i].height;
        struct ggml_tensor *y = ggml_repeat_4d(ctx, axis_embedding(g, i, 1), d / 2, w, h, n);
        struct ggml_tensor *x = ggml_repeat_4d(ctx, axis_embedding(g, i, 0), d / 2, w, h, n);
        struct ggml_tensor *pos = ggml_concat(ctx, y, x, 0);
        pos = ggml_add(ctx, pos, ggml_view_1d(ctx, level_embed, d, (size_t)i * level_embed->nb[1]));
        pos = ggml_reshape_3d(ctx, pos, d, (int64_t)w * h, n);
        all = all ? ggml_concat(ctx, all, pos, 1) : pos;
    }
    return lb_gdino_mark(g, all, "position", 0);
}

/* get_reference_points, in pixels of each level less a half: where the samples of every token start.
 * ne = [1, L, 1, S * B], or [1, L, 1, S] for all pictures. */
static struct ggml_tensor *reference_points(lb_gdino_graph *g, int axis) {
    const lb_gdino_geometry *geometry = g->geometry;
    const int n_images = lb_gdino_n_kinds(geometry);
    const size_t n_levels = (size_t)geometry->n_levels, n = (size_t)geometry->n_tokens * (size_t)n_images;
    float *values = malloc(n_levels * n * sizeof *values), *at = values;
    for (int image = 0; image < n_images && values; image++) {
        float ratio[LB_GDINO_LEVELS_MAX], extent[LB_GDINO_LEVELS_MAX];
        for (int i = 0; i < geometry->n_levels; i++) {
            extent[i] = (float)(axis == 0 ? geometry->level[i].width : geometry->level[i].height);
            ratio[i] = (float)lb_gdino_valid(geometry, i, image, axis) / extent[i];
        }
        for (int of = 0; of < geometry->n_levels; of++) {
            const lb_gdino_level *level = &geometry->level[of];
            for (int p = 0; p < level->width * level->height; p++) {
                float place = (float)(axis == 0 ? p % level->width : p / level->width) + 0.5f;
                float reference = place / (ratio[of] * extent[of]);
                for (int i = 0; i < geometry->n_levels; i++)
                    *at++ = reference * ratio[i] * extent[i] - 0.5f;
            }
        }
    }
    return lb_gdino_constant(g, GGML_TYPE_F32, 1, geometry->n_levels, 1, (int64_t)n, values);
}

struct ggml_tensor *lb_gdino_keep_mask(lb_gdino_graph *g) {
    const lb_gdino_geometry *geometry = g->geometry;
    if (!geometry->padded)
        return NULL;
    float *keep = malloc((size_t)geometry->n_tokens * (size_t)geometry->n * sizeof *keep), *at = keep;
    for (int image = 0; image < geometry->n && keep; image++) {
        for (int i = 0; i < geometry->n_levels; i++) {
            const int w = lb_gdino_valid(geometry, i, image, 0), h = lb_gdino_valid(geometry, i, image, 1);
            for (int y = 0; y < geometry->level[i].height; y++)
                for (int x = 0; x < geometry->level[i].width; x++)
                    *at++ = x < w && y < h ? 1.0f : 0.0f;
        }
    }
    return lb_gdino_constant(g, GGML_TYPE_F32, 1, geometry->n_tokens, geometry->n, 1, keep);
}

/* keep as what is added before a softmax over the vision tokens: ne = [S, 1, B] */
static struct ggml_tensor *padding_mask(lb_gdino_graph *g, struct ggml_tensor *keep) {
    if (!keep)
        return NULL;
    struct ggml_tensor *m = ggml_reshape_3d(g->ctx, keep, keep->ne[1], 1, keep->ne[2]);
    /* (keep - 1) * 1e30 instead of -inf, which 0 * inf would spoil: a weight of exactly 0 either way */
    return ggml_scale_bias(g->ctx, m, 1e30f, -1e30f);
}

/* in: ne = [embed, n, B] -> ne = [d_head, n, H, B] */
static struct ggml_tensor *heads(struct ggml_context *ctx, struct ggml_tensor *x, int64_t n_heads) {
    x = ggml_reshape_4d(ctx, x, x->ne[0] / n_heads, n_heads, x->ne[1], x->ne[2]);
    return ggml_cont(ctx, ggml_permute(ctx, x, 0, 2, 1, 3));
}

/* A weight in f32, whatever its type: of the two that are turned round here. */
static struct ggml_tensor *widen(struct ggml_context *ctx, struct ggml_tensor *w) {
    return w->type == GGML_TYPE_F32 ? w : ggml_cast(ctx, w, GGML_TYPE_F32);
}

/* GroundingDinoFusionLayer with GroundingDinoBiMultiHeadAttention.
 *
 * There are few text tokens and many vision tokens, so what the reference multiplies into each vision token is
 * multiplied into the text instead, head by head: q k = (Wq v + bq) k = v (Wq' k) + bq k, and Wo (p V) = p (Wo V). No
 * tensor of embed numbers a vision token is made (91 MiB each at 750x1333), and there is a quarter of the work.
 *
 * The reference subtracts the largest score of the whole batch and clamps to +-50000: a softmax subtracts its row's
 * largest itself, and a score 50000 below has the weight 0 in f32, so neither is done here (nor does a picture depend
 * on the others of its batch). */
static void fuse(lb_gdino_graph *g, const lb_gdino_encoder_layer *layer, struct ggml_tensor *padding,
                 struct ggml_tensor **vision, struct ggml_tensor **text) {
    struct ggml_context *ctx = g->ctx;
    const lb_gdino_hparams *hp = &g->model->hparams;
    const int64_t n_heads = hp->encoder_attention_heads / 2, embed = hp->encoder_ffn_dim / 2, d_head = embed / n_heads;
    const int64_t d = hp->d_model, n_text = g->n_text, n_tokens = g->geometry->n_tokens, n = g->geometry->n;
    const float scale = 1.0f / sqrtf((float)d_head);
    struct ggml_tensor *v = lb_gdino_norm(g, &layer->fusion_vision_norm, *vision, hp->layer_norm_eps, GGML_TYPE_F32);
    struct ggml_tensor *t = lb_norm_apply(ctx, &layer->fusion_text_norm, *text, hp->layer_norm_eps);

    struct ggml_tensor *key = heads(ctx, lb_linear_apply(g, &layer->text_proj, t), n_heads);
    struct ggml_tensor *query_w = ggml_reshape_3d(ctx, widen(ctx, layer->vision_proj.w), d, d_head, n_heads);
    query_w = ggml_cont(ctx, ggml_transpose(ctx, query_w)); /* ne = [d_head, d, H] */
    struct ggml_tensor *query_b = ggml_reshape_3d(ctx, layer->vision_proj.b, d_head, 1, n_heads);
    /* ne = [d, T * H, B] and [T * H, 1, B] */
    struct ggml_tensor *turned = ggml_reshape_3d(ctx, lb_gdino_product(g, query_w, key), d, n_text * n_heads, n);
    struct ggml_tensor *offset = lb_gdino_product(g, query_b, key); /* ne = [1, T, H, B] */
    offset = ggml_reshape_3d(ctx, offset, n_text * n_heads, 1, n);

    /* text sees vision; the offset is the same along a row and cancels */
    struct ggml_tensor *to_text = lb_gdino_product(g, v, turned); /* ne = [S, T * H, B] */
    if (padding)
        to_text = ggml_add(ctx, to_text, padding);
    to_text = ggml_soft_max_ext(ctx, to_text, NULL, scale, 0.0f);
    struct ggml_tensor *seen =
        lb_gdino_product(g, ggml_cont(ctx, ggml_transpose(ctx, v)), to_text); /* ne = [d, T * H, B] */
    struct ggml_tensor *value_w = ggml_reshape_3d(ctx, layer->values_vision_proj.w, d, d_head, n_heads);
    seen = lb_gdino_product(g, value_w, ggml_reshape_4d(ctx, seen, d, n_text, n_heads, n)); /* ne = [d_head, T, H, B] */
    seen = ggml_cont_3d(ctx, ggml_permute(ctx, seen, 0, 2, 1, 3), embed, n_text, n);
    struct ggml_tensor *delta_t =
        lb_linear_apply(g, &layer->out_text_proj, ggml_add(ctx, seen, layer->values_vision_proj.b));

    /* vision sees text */
    struct ggml_tensor *to_vision = ggml_add(ctx, lb_gdino_product(g, turned, v), offset); /* ne = [T * H, S, B] */
    to_vision = ggml_reshape_2d(ctx, to_vision, n_text, n_heads * n_tokens * n);           /* rows, see deformable.c */
    to_vision = ggml_soft_max_ext(ctx, to_vision, NULL, scale, 0.0f);
    to_vision = ggml_reshape_3d(ctx, to_vision, n_text * n_heads, n_tokens, n);
    struct ggml_tensor *value = heads(ctx, lb_linear_apply(g, &layer->values_text_proj, t), n_heads);
    struct ggml_tensor *out_w = ggml_reshape_3d(ctx, widen(ctx, layer->out_vision_proj.w), d_head, n_heads, d);
    out_w = ggml_cont(ctx, ggml_permute(ctx, out_w, 0, 2, 1, 3)); /* ne = [d_head, d, H] */
    value = ggml_reshape_3d(ctx, lb_gdino_product(g, out_w, value), d, n_text * n_heads, n);
    value = ggml_cont(ctx, ggml_transpose(ctx, value)); /* ne = [T * H, d, B] */
    struct ggml_tensor *delta_v = ggml_add(ctx, lb_gdino_product(g, value, to_vision), layer->out_vision_proj.b);

    *vision = ggml_add(ctx, v, ggml_mul(ctx, delta_v, layer->vision_param)); /* the residual starts after the norm */
    *text = ggml_add(ctx, t, ggml_mul(ctx, delta_t, layer->text_param));
}

/* GroundingDinoTextEnhancerLayer */
static struct ggml_tensor *enhance_text(lb_gdino_graph *g, const lb_gdino_encoder_layer *layer,
                                        const lb_gdino_text_constants *constants, struct ggml_tensor *x) {
    struct ggml_context *ctx = g->ctx;
    const lb_gdino_hparams *hp = &g->model->hparams;
    struct ggml_tensor *q = ggml_add(ctx, x, constants->position);
    struct ggml_tensor *cur =
        lb_attention_apply(g, &layer->text_attn, hp->encoder_attention_heads / 2, q, q, x, constants->mask);
    x = lb_norm_apply(ctx, &layer->text_norm_before, ggml_add(ctx, cur, x), hp->layer_norm_eps);
    cur = ggml_relu(ctx, lb_linear_apply(g, &layer->text_fc1, x));
    cur = ggml_add(ctx, lb_linear_apply(g, &layer->text_fc2, cur), x);
    return lb_norm_apply(ctx, &layer->text_norm_after, cur, hp->layer_norm_eps);
}

void lb_gdino_encode(lb_gdino_graph *g, const lb_gdino_text_constants *text_constants, struct ggml_tensor **vision,
                     struct ggml_tensor **text) {
    const lb_gdino_hparams *hp = &g->model->hparams;
    struct ggml_tensor *position = position_embeddings(g), *keep = lb_gdino_keep_mask(g);
    struct ggml_tensor *padding = padding_mask(g, keep);
    const lb_sampling sampling = {.origin = {reference_points(g, 0), reference_points(g, 1)}};
    for (int i = 0; i < hp->encoder_layers; i++) {
        const lb_gdino_encoder_layer *layer = &g->model->encoder[i];
        fuse(g, layer, padding, vision, text);
        lb_gdino_mark(g, *vision, "fusion_vision_%d", i);
        lb_gdino_mark(g, *text, "fusion_text_%d", i);
        *text = lb_gdino_mark(g, enhance_text(g, layer, text_constants, *text), "encoder_text_%d", i);

        struct ggml_tensor *x = *vision, *query = lb_gdino_cast(g, x, position);
        struct ggml_tensor *cur =
            lb_deformable_apply(g, &layer->self_attn, query, lb_gdino_cast(g, x, NULL), keep, x, &sampling);
        x = lb_gdino_norm(g, &layer->self_attn_norm, cur, hp->layer_norm_eps, GGML_TYPE_F32);
        cur = lb_gdino_linear(g, &layer->fc1, x, LB_ACT_RELU, NULL, lb_gdino_act_type(g));
        cur = lb_gdino_linear(g, &layer->fc2, cur, LB_ACT_NONE, x, GGML_TYPE_F32);
        x = lb_gdino_norm(g, &layer->final_norm, cur, hp->layer_norm_eps, GGML_TYPE_F32);
        *vision = lb_gdino_mark(g, x, "encoder_vision_%d", i);
    }
}
