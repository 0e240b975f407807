/* Queries -> boxes and class scores: GroundingDinoDecoder with the heads of the last layer. */
#include "detector/model_internal.h"

#include <math.h>
#include <stdlib.h>

/* Widths (axis 0) or heights of the valid part of each level in its pixels: ne = [1, L, 1, B]. */
static struct ggml_tensor *valid_extent(lb_gdino_graph *g, int axis) {
    const lb_gdino_geometry *geometry = g->geometry;
    float *values = malloc((size_t)geometry->n * (size_t)geometry->n_levels * sizeof *values), *at = values;
    for (int image = 0; image < geometry->n && values; image++)
        for (int i = 0; i < geometry->n_levels; i++)
            *at++ = (float)lb_gdino_valid(geometry, i, image, axis);
    return lb_gdino_constant(g, GGML_TYPE_F32, 1, geometry->n_levels, 1, geometry->n, values);
}

/* Coordinate k of every reference point: ne = [1, 1, Q, B] */
static struct ggml_tensor *coordinate(struct ggml_context *ctx, struct ggml_tensor *reference, int k) {
    return ggml_cont(ctx, ggml_view_4d(ctx, reference, 1, 1, reference->ne[1], reference->ne[2], reference->nb[0],
                                       reference->nb[1], reference->nb[2], (size_t)k * reference->nb[0]));
}

/* Samples lie at reference + offset / P * size / 2, in the valid part of each level. */
static lb_sampling box_sampling(lb_gdino_graph *g, struct ggml_tensor *const extent[2], struct ggml_tensor *reference) {
    struct ggml_context *ctx = g->ctx;
    const int64_t n_levels = g->geometry->n_levels, n_queries = reference->ne[1], n = reference->ne[2];
    lb_sampling sampling;
    for (int axis = 0; axis < 2; axis++) {
        struct ggml_tensor *pixels = ggml_repeat_4d(ctx, extent[axis], 1, n_levels, n_queries, n);
        struct ggml_tensor *centre = ggml_mul(ctx, pixels, coordinate(ctx, reference, axis));
        struct ggml_tensor *size = ggml_mul(ctx, pixels, coordinate(ctx, reference, 2 + axis));
        centre = ggml_scale_bias(ctx, centre, 1.0f, -0.5f);
        size = ggml_scale(ctx, size, 0.5f / (float)g->model->hparams.decoder_n_points);
        sampling.origin[axis] = ggml_reshape_4d(ctx, centre, 1, n_levels, 1, n_queries * n);
        sampling.scale[axis] = ggml_reshape_4d(ctx, size, 1, n_levels, 1, n_queries * n);
    }
    return sampling;
}

typedef struct sine_constants {
    struct ggml_tensor *ratio;     /* valid share of the first level, in the order y, x, w, h: ne = [1, 4, 1, B] */
    struct ggml_tensor *frequency; /* ne = [d / 2] */
    struct ggml_tensor *phase;     /* a cosine is a sine, pi / 2 on: ne = [d / 2] */
} sine_constants;

/* encode_sinusoidal_position_embedding's temperature is 10000 here, whatever the config says of the vision's. */
static sine_constants make_sine_constants(lb_gdino_graph *g) {
    const lb_gdino_geometry *geometry = g->geometry;
    const int half = g->model->hparams.d_model / 2;
    float *ratio = malloc((size_t)geometry->n * 4 * sizeof *ratio);
    float *frequency = malloc((size_t)half * sizeof *frequency), *phase = malloc((size_t)half * sizeof *phase);
    for (int image = 0; image < geometry->n && ratio; image++) {
        const lb_gdino_level *level = &geometry->level[0];
        const float x = (float)lb_gdino_valid(geometry, 0, image, 0) / (float)level->width;
        const float y = (float)lb_gdino_valid(geometry, 0, image, 1) / (float)level->height;
        /* y and x change places, w and h do not */
        ratio[4 * image] = y, ratio[4 * image + 1] = x, ratio[4 * image + 2] = x, ratio[4 * image + 3] = y;
    }
    for (int k = 0; k < half && frequency && phase; k++) {
        frequency[k] = (float)(2.0 * M_PI / pow(10000.0, 2.0 * (k / 2) / half));
        phase[k] = k % 2 ? (float)M_PI_2 : 0.0f;
    }
    return (sine_constants){lb_gdino_constant(g, GGML_TYPE_F32, 1, 4, 1, geometry->n, ratio),
                            lb_gdino_constant(g, GGML_TYPE_F32, half, 1, 1, 1, frequency),
                            lb_gdino_constant(g, GGML_TYPE_F32, half, 1, 1, 1, phase)};
}

/* Sine embeddings of the reference points through their MLP: ne = [d, Q, B] */
static struct ggml_tensor *query_positions(lb_gdino_graph *g, const sine_constants *constants,
                                           struct ggml_tensor *reference) {
    struct ggml_context *ctx = g->ctx;
    const int64_t n_queries = reference->ne[1], n = reference->ne[2], half = constants->frequency->ne[0];
    static const int order[4] = {1, 0, 2, 3};
    struct ggml_tensor *x = NULL;
    for (int k = 0; k < 4; k++) {
        struct ggml_tensor *c = coordinate(ctx, reference, order[k]);
        x = x ? ggml_concat(ctx, x, c, 1) : c; /* ne = [1, 4, Q, B] in the end */
    }
    x = ggml_repeat_4d(ctx, ggml_mul(ctx, x, constants->ratio), half, 4, n_queries, n);
    x = ggml_sin(ctx, ggml_add(ctx, ggml_mul(ctx, x, constants->frequency), constants->phase));
    return lb_mlp_apply(g, &g->model->reference_points_head, ggml_reshape_3d(ctx, x, 4 * half, n_queries, n));
}

/* GroundingDinoDecoderLayer */
static struct ggml_tensor *decoder_layer(lb_gdino_graph *g, const lb_gdino_decoder_layer *layer, struct ggml_tensor *x,
                                         struct ggml_tensor *position, struct ggml_tensor *memory,
                                         struct ggml_tensor *text, struct ggml_tensor *keep,
                                         const lb_sampling *sampling) {
    struct ggml_context *ctx = g->ctx;
    const int n_heads = g->model->hparams.decoder_attention_heads;
    const float eps = g->model->hparams.layer_norm_eps;
    struct ggml_tensor *q = ggml_add(ctx, x, position);
    struct ggml_tensor *cur = lb_attention_apply(g, &layer->self_attn, n_heads, q, q, x, NULL);
    x = lb_norm_apply(ctx, &layer->self_attn_norm, ggml_add(ctx, cur, x), eps);
    q = ggml_add(ctx, x, position);
    cur = lb_attention_apply(g, &layer->text_attn, n_heads, q, text, text, NULL);
    x = lb_norm_apply(ctx, &layer->text_attn_norm, ggml_add(ctx, cur, x), eps);
    cur = lb_deformable_apply(g, &layer->cross_attn, lb_gdino_cast(g, x, position), memory, keep, x, sampling);
    x = lb_gdino_norm(g, &layer->cross_attn_norm, cur, eps, GGML_TYPE_F32);
    cur = lb_gdino_linear(g, &layer->fc1, x, LB_ACT_RELU, NULL, lb_gdino_act_type(g));
    cur = lb_gdino_linear(g, &layer->fc2, cur, LB_ACT_NONE, x, GGML_TYPE_F32);
    return lb_gdino_norm(g, &layer->final_norm, cur, eps, GGML_TYPE_F32);
}

void lb_gdino_decode(lb_gdino_graph *g, struct ggml_tensor *memory, struct ggml_tensor *text,
                     struct ggml_tensor *reference) {
    struct ggml_context *ctx = g->ctx;
    const lb_gdino_model *model = g->model;
    const lb_gdino_hparams *hp = &model->hparams;
    const sine_constants sine = make_sine_constants(g);
    struct ggml_tensor *const extent[2] = {valid_extent(g, 0), valid_extent(g, 1)};
    struct ggml_tensor *keep = lb_gdino_keep_mask(g);
    memory = lb_gdino_cast(g, memory, NULL);
    struct ggml_tensor *x = ggml_repeat_4d(ctx, model->query_embed, hp->d_model, hp->num_queries, g->geometry->n, 1);
    for (int i = 0; i < hp->decoder_layers; i++) {
        const bool last = i + 1 == hp->decoder_layers;
        const lb_sampling sampling = box_sampling(g, extent, reference);
        struct ggml_tensor *position = query_positions(g, &sine, reference);
        x = decoder_layer(g, &model->decoder[i], x, position, memory, text, keep, &sampling);
        lb_gdino_mark(g, x, "decoder_%d", i);
        if (last || g->watch) {
            /* what leaves the model is computed from the normalised state, the next layer's reference is not */
            struct ggml_tensor *hidden = lb_norm_apply(ctx, &model->decoder_norm, x, hp->layer_norm_eps);
            struct ggml_tensor *logits = lb_gdino_class_logits(g, hidden, text);
            struct ggml_tensor *boxes = lb_gdino_refine(g, &model->bbox[i], hidden, reference);
            ggml_format_name(logits, last ? "logits" : "logits_%d", i);
            ggml_format_name(boxes, last ? "boxes" : "boxes_%d", i);
            ggml_set_output(logits);
            ggml_set_output(boxes);
            ggml_build_forward_expand(g->graph, logits);
            ggml_build_forward_expand(g->graph, boxes);
        }
        if (!last)
            reference = lb_gdino_mark(g, lb_gdino_refine(g, &model->bbox[i], x, reference), "reference_%d", i + 1);
    }
}
