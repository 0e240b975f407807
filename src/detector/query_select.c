/* Encoder output -> the queries that the decoder starts from: the two-stage part of GroundingDinoModel.forward and
 * generate_encoder_output_proposals. The scores of all tokens are computed on the device, the best chosen on the host,
 * and boxes computed for those alone. */
#include "detector/model_internal.h"

#include "base/error.h"

#include <math.h>
#include <stdlib.h>

static void valid_sizes(const lb_gdino_geometry *geometry, int image, int valid[LB_GDINO_LEVELS_MAX][2]) {
    for (int i = 0; i < geometry->n_levels; i++)
        for (int axis = 0; axis < 2; axis++)
            valid[i][axis] = lb_gdino_valid(geometry, i, image, axis);
}

/* The proposal of one token: cxcywh in 0..1, of the image without its padding. False: it is none (too near an edge, too
 * large for its level, or in the padding). */
static bool proposal(const lb_gdino_geometry *geometry, const int valid[LB_GDINO_LEVELS_MAX][2], int token,
                     float box[4]) {
    int i = geometry->n_levels - 1;
    while (geometry->level[i].start > token)
        i--;
    const lb_gdino_level *level = &geometry->level[i];
    const int x = (token - level->start) % level->width, y = (token - level->start) / level->width;
    const int valid_w = valid[i][0], valid_h = valid[i][1];
    box[0] = ((float)x + 0.5f) / (float)valid_w;
    box[1] = ((float)y + 0.5f) / (float)valid_h;
    box[2] = box[3] = 0.05f * ldexpf(1.0f, i);
    bool inside = x < valid_w && y < valid_h;
    for (int k = 0; k < 4; k++)
        inside = inside && box[k] > 0.01f && box[k] < 0.99f;
    return inside;
}

/* 1 for a token with a proposal: ne = [1, S, B], or [1, S, 1] for all pictures */
static struct ggml_tensor *proposal_mask(lb_gdino_graph *g) {
    const lb_gdino_geometry *geometry = g->geometry;
    const int n = lb_gdino_n_kinds(geometry);
    float *keep = malloc((size_t)geometry->n_tokens * (size_t)n * sizeof *keep), *at = keep, box[4];
    for (int image = 0; image < n && keep; image++) {
        int valid[LB_GDINO_LEVELS_MAX][2];
        valid_sizes(geometry, image, valid);
        for (int i = 0; i < geometry->n_tokens; i++)
            *at++ = proposal(geometry, valid, i, box) ? 1.0f : 0.0f;
    }
    return lb_gdino_constant(g, GGML_TYPE_F32, 1, geometry->n_tokens, n, 1, keep);
}

/* Tokens without a proposal become zeros before the layer, so that all of them get its answer to zero: they take part
 * in the choice, as in the reference. keep: ne = [1, n, B] */
static struct ggml_tensor *object_queries(lb_gdino_graph *g, struct ggml_tensor *memory, struct ggml_tensor *keep) {
    const lb_gdino_model *model = g->model;
    struct ggml_tensor *x = ggml_mul(g->ctx, memory, keep);
    x = lb_gdino_linear(g, &model->enc_output, x, LB_ACT_NONE, NULL, GGML_TYPE_F32);
    return lb_gdino_norm(g, &model->enc_output_norm, x, model->hparams.layer_norm_eps, GGML_TYPE_F32);
}

struct ggml_tensor *lb_gdino_scores(lb_gdino_graph *g, struct ggml_tensor *memory, struct ggml_tensor *text) {
    struct ggml_context *ctx = g->ctx;
    struct ggml_tensor *queries = object_queries(g, memory, proposal_mask(g));
    struct ggml_tensor *logits = lb_gdino_class_logits(g, queries, text); /* ne = [T, S, B] */
    const int64_t n_text = logits->ne[0], n_tokens = logits->ne[1], n_batch = logits->ne[2];
    /* the largest of each row, as a pool of the row's length */
    struct ggml_tensor *best = ggml_pool_2d(ctx, ggml_reshape_3d(ctx, logits, n_text, n_tokens, n_batch),
                                            GGML_OP_POOL_MAX, (int)n_text, 1, (int)n_text, 1, 0, 0);
    ggml_set_name(best, "best"); /* an output, as the one that is a view of it: ggml would name it by its number */
    return ggml_reshape_2d(ctx, best, n_tokens, n_batch);
}

typedef struct candidate {
    float score;
    int32_t index;
} candidate;

static bool better(const candidate *x, const candidate *y) {
    return x->score != y->score ? x->score > y->score : x->index < y->index;
}

static int better_first(const void *a, const void *b) {
    return better(b, a) - better(a, b);
}

/* Brings the n_best first ones to the front, in any order (Hoare's selection; the middle one of three as pivot). */
static void select_best(candidate *all, int n, int n_best) {
    int first = 0, last = n - 1;
    while (first < last) {
        candidate a = all[first], b = all[first + (last - first) / 2], c = all[last];
        const candidate pivot = better(&a, &b) ? (better(&b, &c)   ? b
                                                  : better(&a, &c) ? c
                                                                   : a)
                                               : (better(&a, &c)   ? a
                                                  : better(&b, &c) ? c
                                                                   : b);
        int i = first, k = last;
        while (i <= k) {
            while (better(&all[i], &pivot))
                i++;
            while (better(&pivot, &all[k]))
                k--;
            if (i <= k) {
                candidate swap = all[i];
                all[i++] = all[k];
                all[k--] = swap;
            }
        }
        if (n_best - 1 <= k)
            last = k;
        else if (n_best - 1 >= i)
            first = i;
        else
            break;
    }
}

lb_status lb_gdino_top(const float *scores, int n, int n_queries, int32_t *index, lb_error *error) {
    candidate *all = malloc((size_t)n * sizeof *all);
    if (!all)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for %d proposals", n);
    lb_status status = LB_STATUS_OK;
    for (int i = 0; i < n; i++) {
        all[i] = (candidate){scores[i], i};
        if (!isfinite(scores[i]))
            status = LB_STATUS_NOT_FINITE;
    }
    if (status == LB_STATUS_OK) {
        select_best(all, n, n_queries); /* sorting all of them takes 3 ms a picture */
        qsort(all, (size_t)n_queries, sizeof *all, better_first);
        for (int i = 0; i < n_queries; i++)
            index[i] = all[i].index;
    } else {
        lb_error_set(error, status, "detector: a proposal's score is not finite; the model's weights are damaged");
    }
    free(all);
    return status;
}

void lb_gdino_proposals(const lb_gdino_geometry *geometry, int image, const int32_t *index, int n_queries,
                        float *proposals, float *keep) {
    int valid[LB_GDINO_LEVELS_MAX][2];
    valid_sizes(geometry, image, valid);
    for (int i = 0; i < n_queries; i++) {
        float box[4];
        const bool good = proposal(geometry, valid, index[i], box);
        keep[i] = good ? 1.0f : 0.0f;
        for (int k = 0; k < 4; k++) /* inf: its sigmoid is 1, whatever is added */
            proposals[4 * i + k] = good ? logf(box[k] / (1.0f - box[k])) : INFINITY;
    }
}

struct ggml_tensor *lb_gdino_selected_boxes(lb_gdino_graph *g, struct ggml_tensor *memory) {
    struct ggml_context *ctx = g->ctx;
    const int64_t n_queries = g->model->hparams.num_queries, n_batch = g->geometry->n;
    struct ggml_tensor *index = lb_gdino_input(g, "index", GGML_TYPE_I32, n_queries, n_batch, 1);
    struct ggml_tensor *proposals = lb_gdino_input(g, "proposals", GGML_TYPE_F32, 4, n_queries, n_batch);
    struct ggml_tensor *keep = lb_gdino_input(g, "keep", GGML_TYPE_F32, 1, n_queries, n_batch);
    struct ggml_tensor *queries = object_queries(g, ggml_get_rows(ctx, memory, index), keep);
    struct ggml_tensor *delta = lb_mlp_apply(g, &g->model->enc_bbox, queries);
    return lb_gdino_mark(g, ggml_sigmoid(ctx, ggml_add(ctx, delta, proposals)), "reference_%d", 0);
}
