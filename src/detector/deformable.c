/* Multi-scale deformable attention (GroundingDinoMultiscaleDeformableAttention): each query and head takes P samples of
 * each level's values, between pixels by bilinear weights, zero beyond the edges (grid_sample, align_corners false).
 * Two ways, the same numbers: gathers and weighted sums of ggml's on any device; an operation of ours (ops.h), which
 * writes nothing in between, on the CPU and under CUDA. */
#include "detector/model_internal.h"

#include <math.h>
#include <stdlib.h>

#define FAR 1e5f /* pixels; levels are smaller, and f32 still holds every whole number and half there */

/* A number a level: ne = [1, L, 1, 1]. */
static struct ggml_tensor *per_level(lb_gdino_graph *g, int what) {
    const lb_gdino_geometry *geometry = g->geometry;
    float *values = malloc(LB_GDINO_LEVELS_MAX * sizeof *values);
    for (int i = 0; i < geometry->n_levels && values; i++) {
        const lb_gdino_level *level = &geometry->level[i];
        values[i] = (float)(what == 0 ? level->width : what == 1 ? level->height : level->start);
    }
    return lb_gdino_constant(g, GGML_TYPE_F32, 1, geometry->n_levels, 1, 1, values);
}

/* 0, 1, ... H - 1: ne = [1, 1, H, 1] */
static struct ggml_tensor *head_numbers(lb_gdino_graph *g, int n_heads) {
    float *values = malloc((size_t)n_heads * sizeof *values);
    for (int i = 0; i < n_heads && values; i++)
        values[i] = (float)i;
    return lb_gdino_constant(g, GGML_TYPE_F32, 1, 1, n_heads, 1, values);
}

typedef struct corner {
    struct ggml_tensor *at;     /* pixel, moved to the nearest inside: ne = [P, L, H, N] */
    struct ggml_tensor *weight; /* 0 for a pixel outside */
} corner;

/* The two neighbours of x along one axis of extent n (ne = [1, L, 1, 1]). Damaged weights may give places that are no
 * numbers, and a gather from there would leave the tensor: the clamp makes one of its bounds of them, which lie outside
 * of every level, while their weight stays no number and is seen in the end. */
static void neighbours(struct ggml_context *ctx, struct ggml_tensor *x, struct ggml_tensor *n, corner out[2]) {
    struct ggml_tensor *floor_x = ggml_floor(ctx, ggml_clamp(ctx, x, -FAR, FAR));
    struct ggml_tensor *fraction = ggml_sub(ctx, x, floor_x);
    for (int i = 0; i < 2; i++) {
        struct ggml_tensor *at = i ? ggml_scale_bias(ctx, floor_x, 1.0f, 1.0f) : floor_x;
        struct ggml_tensor *weight = i ? fraction : ggml_scale_bias(ctx, fraction, -1.0f, 1.0f);
        /* room = n - 1 - at; inside where at >= 0 and room >= 0, both being whole numbers */
        struct ggml_tensor *room = ggml_neg(ctx, ggml_scale_bias(ctx, ggml_sub(ctx, at, n), 1.0f, 1.0f));
        struct ggml_tensor *inside = ggml_mul(ctx, ggml_step(ctx, ggml_scale_bias(ctx, at, 1.0f, 0.5f)),
                                              ggml_step(ctx, ggml_scale_bias(ctx, room, 1.0f, 0.5f)));
        out[i].weight = ggml_mul(ctx, weight, inside);
        out[i].at = ggml_mul(ctx, at, inside); /* pixel 0 of the level will do: its weight is 0 */
    }
}

/* [P, L, H, n * B] -> [H, n, P * L, B]: all heads and queries of one sample lie together */
static struct ggml_tensor *by_sample(struct ggml_context *ctx, struct ggml_tensor *x, int64_t n) {
    x = ggml_reshape_4d(ctx, x, x->ne[0] * x->ne[1], x->ne[2], n, x->ne[3] / n);
    return ggml_cont(ctx, ggml_permute(ctx, x, 2, 0, 1, 3));
}

/* value: ne = [d, S, B]; x, y, weight: ne = [P, L, H, n * B]; out: ne = [d, n, B] */
static struct ggml_tensor *sample_by_gathers(lb_gdino_graph *g, struct ggml_tensor *value, struct ggml_tensor *x,
                                             struct ggml_tensor *y, struct ggml_tensor *weight) {
    struct ggml_context *ctx = g->ctx;
    const int64_t n_heads = x->ne[2], n_batch = value->ne[2], n = x->ne[3] / n_batch, d = value->ne[0];
    const int64_t n_samples = x->ne[0] * x->ne[1], n_rows = n_heads * n;
    value = ggml_reshape_3d(ctx, value, d / n_heads, n_heads * value->ne[1], n_batch);
    struct ggml_tensor *width = per_level(g, 0), *start = per_level(g, 2), *head = head_numbers(g, (int)n_heads);
    corner column[2], row[2];
    neighbours(ctx, x, width, column);
    neighbours(ctx, y, per_level(g, 1), row);
    struct ggml_tensor *sum = NULL;
    for (int i = 0; i < 4; i++) {
        const corner *c = &column[i % 2], *r = &row[i / 2];
        struct ggml_tensor *index = ggml_add(ctx, ggml_add(ctx, ggml_mul(ctx, r->at, width), c->at), start);
        index = ggml_add(ctx, ggml_scale(ctx, index, (float)n_heads), head);
        index = ggml_cast(ctx, by_sample(ctx, index, n), GGML_TYPE_I32);
        struct ggml_tensor *w = by_sample(ctx, ggml_mul(ctx, ggml_mul(ctx, c->weight, r->weight), weight), n);
        for (int64_t k = 0; k < n_samples; k++) {
            struct ggml_tensor *rows =
                ggml_view_2d(ctx, index, n_rows, n_batch, index->nb[3], (size_t)k * index->nb[2]);
            struct ggml_tensor *share =
                ggml_view_3d(ctx, w, 1, n_rows, n_batch, w->nb[0], w->nb[3], (size_t)k * w->nb[2]);
            struct ggml_tensor *part = ggml_mul(ctx, ggml_get_rows(ctx, value, rows), share);
            sum = sum ? ggml_add(ctx, sum, part) : part;
            ggml_build_forward_expand(g->graph, sum); /* in this order, or all parts would be held at once */
        }
    }
    return ggml_reshape_3d(ctx, sum, d, n, n_batch);
}

/* Offsets along one axis as places in pixels: ne = [P, L, H, n * B]. */
static struct ggml_tensor *places(lb_gdino_graph *g, const lb_deformable *layer, struct ggml_tensor *offsets,
                                  const lb_sampling *sampling, int axis) {
    struct ggml_context *ctx = g->ctx;
    const int64_t n_rows = offsets->ne[1] * offsets->ne[2], n = offsets->ne[0] / 2;
    struct ggml_tensor *x =
        ggml_view_3d(ctx, offsets, 1, n, n_rows, 2 * offsets->nb[0], offsets->nb[1], (size_t)axis * offsets->nb[0]);
    x = ggml_reshape_4d(ctx, ggml_cont(ctx, x), layer->n_points, g->geometry->n_levels, layer->n_heads, n_rows);
    if (sampling->scale[axis])
        x = ggml_mul(ctx, x, sampling->scale[axis]);
    return ggml_add(ctx, x, sampling->origin[axis]);
}

struct ggml_tensor *lb_deformable_apply(lb_gdino_graph *g, const lb_deformable *layer, struct ggml_tensor *query,
                                        struct ggml_tensor *memory, struct ggml_tensor *keep,
                                        struct ggml_tensor *residual, const lb_sampling *sampling) {
    struct ggml_context *ctx = g->ctx;
    const int64_t n = query->ne[1], n_batch = query->ne[2],
                  n_samples = (int64_t)layer->n_points * g->geometry->n_levels;
    const int64_t d_head = memory->ne[0] / layer->n_heads;
    const bool own = lb_gdino_sample_fits(g, d_head);
    const enum ggml_type act = own ? lb_gdino_act_type(g) : GGML_TYPE_F32;
    struct ggml_tensor *value = lb_gdino_linear(g, &layer->value, memory, LB_ACT_NONE, NULL, act);
    struct ggml_tensor *offsets = lb_gdino_linear(g, &layer->sampling_offsets, query, LB_ACT_NONE, NULL, GGML_TYPE_F32);
    struct ggml_tensor *weight = lb_gdino_linear(g, &layer->attention_weights, query, LB_ACT_NONE, NULL, GGML_TYPE_F32);
    struct ggml_tensor *out;
    if (own) {
        out = lb_gdino_sample(g, layer, value, offsets, weight, keep, sampling);
    } else {
        if (keep)
            value = ggml_mul(ctx, value, keep);
        struct ggml_tensor *x = places(g, layer, offsets, sampling, 0), *y = places(g, layer, offsets, sampling, 1);
        /* as rows: ggml-cuda's softmax takes no more than 65535 along axis 2 */
        weight = ggml_soft_max(ctx, ggml_reshape_2d(ctx, weight, n_samples, layer->n_heads * n * n_batch));
        weight = ggml_reshape_4d(ctx, weight, layer->n_points, g->geometry->n_levels, layer->n_heads, n * n_batch);
        out = sample_by_gathers(g, value, x, y, weight);
    }
    return lb_gdino_linear(g, &layer->out, out, LB_ACT_NONE, residual, GGML_TYPE_F32);
}
