/* Two graphs a batch: pictures to the score of every proposal, then, the best of them chosen on the host, the decoder.
 * The first one's memory keeps the encoder's output for the second. */
#include "detector/plan_internal.h"

#include "base/error.h"
#include "base/time.h"
#include "detector/cuda.h"
#include "nn/log.h"

#include <stdlib.h>
#include <string.h>

/* What runs at once: nodes of ggml's, or an operation of ours. */
typedef struct piece {
    struct ggml_cgraph *graph;
    lb_op *op;
} piece;

typedef struct stage {
    lb_gdino_graph g;
    piece *pieces; /* NULL: the whole graph is ggml's */
    int n_pieces;
    ggml_backend_buffer_t constants;
    ggml_gallocr_t allocator;
} stage;

struct lb_gdino_plan {
    const lb_gdino_model *model;
    ggml_backend_t backend;
    const lb_device *device;
    lb_cuda *cuda;
    lb_gdino_geometry geometry;
    int *size;         /* [n][2] */
    int width, height; /* pixels a picture, padded */
    stage encoder, decoder;
    bool measure;
    struct ggml_tensor *pixels;
    struct ggml_tensor *memory, *text, *scores; /* of the encoder's graph: ne = [d, S, B], [d, T, B], [S, B] */
    size_t bytes;                               /* as entered into the ledger */
};

/* The operation of ours that a node of a graph for CUDA is, NULL where it is ggml's. */
static lb_op *find_op(const lb_gdino_graph *g, const struct ggml_tensor *node) {
    for (int i = 0; g->way == LB_GDINO_BY_CUDA && node->op == GGML_OP_CUSTOM && i < g->n_ops; i++)
        if (g->ops[i].node == node)
            return &g->ops[i];
    return NULL;
}

static bool computes_nothing(const struct ggml_tensor *node) {
    return node->op == GGML_OP_NONE || node->op == GGML_OP_VIEW || node->op == GGML_OP_RESHAPE ||
           node->op == GGML_OP_PERMUTE || node->op == GGML_OP_TRANSPOSE;
}

/* Cuts the graph at our operations; what lies between two of them becomes a graph of its own. */
static lb_status cut(stage *s, lb_error *error) {
    const int n = ggml_graph_n_nodes(s->g.graph);
    s->pieces = calloc((size_t)n + 1, sizeof *s->pieces);
    if (!s->pieces)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the detector's graph");
    for (int first = 0, i = 0; i <= n; i++) {
        lb_op *op = i < n ? find_op(&s->g, ggml_graph_node(s->g.graph, i)) : NULL;
        if (i < n && !op)
            continue;
        int n_between = 0;
        for (int k = first; k < i; k++)
            n_between += !computes_nothing(ggml_graph_node(s->g.graph, k));
        if (n_between) {
            struct ggml_cgraph *graph = ggml_new_graph_custom(s->g.ctx, (size_t)n_between, false);
            for (int k = first; k < i; k++)
                if (!computes_nothing(ggml_graph_node(s->g.graph, k)))
                    ggml_graph_add_node(graph, ggml_graph_node(s->g.graph, k));
            s->pieces[s->n_pieces++] = (piece){.graph = graph};
        }
        if (op)
            s->pieces[s->n_pieces++] = (piece){.op = op};
        first = i + 1;
    }
    return LB_STATUS_OK;
}

static lb_status check_support(const lb_gdino_plan *plan, const stage *s, lb_error *error) {
    for (int i = 0; i < ggml_graph_n_nodes(s->g.graph); i++) {
        struct ggml_tensor *node = ggml_graph_node(s->g.graph, i);
        if (!find_op(&s->g, node) && !ggml_backend_dev_supports_op(plan->device->handle, node))
            return lb_error_set(error, LB_STATUS_UNSUPPORTED, "detector: %s lacks the operation %s (for '%s')",
                                plan->device->name, ggml_op_name(node->op), node->name);
    }
    return LB_STATUS_OK;
}

static lb_status allocate(lb_gdino_plan *plan, stage *s, lb_error *error) {
    if (plan->measure) {
        size_t bytes;
        lb_status measured = lb_gdino_graph_measure(&s->g, plan->device, &bytes, error);
        plan->bytes += bytes;
        return measured;
    }
    lb_status status = lb_gdino_graph_constants(&s->g, plan->backend, &s->constants, error);
    if (status == LB_STATUS_OK)
        status = check_support(plan, s, error);
    if (status == LB_STATUS_OK && s->g.way == LB_GDINO_BY_CUDA)
        status = cut(s, error);
    if (status != LB_STATUS_OK)
        return status;
    s->allocator = ggml_gallocr_new(ggml_backend_get_default_buffer_type(plan->backend));
    if (!s->allocator || !ggml_gallocr_alloc_graph(s->allocator, s->g.graph))
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY,
                            "no room on %s for the detector's activations (%d pictures of %dx%d)", plan->device->name,
                            plan->geometry.n, plan->geometry.width, plan->geometry.height);
    plan->bytes += ggml_gallocr_get_buffer_size(s->allocator, 0);
    if (s->constants)
        plan->bytes += ggml_backend_buffer_get_size(s->constants);
    return LB_STATUS_OK;
}

/* The network's input: normalised planes, or bytes that an operation of ours normalises. */
static struct ggml_tensor *input(lb_gdino_plan *plan, const float normal[3][256]) {
    lb_gdino_graph *g = &plan->encoder.g;
    const int n = plan->geometry.n;
    if (g->way != LB_GDINO_BY_CUDA) {
        plan->pixels = ggml_new_tensor_4d(g->ctx, GGML_TYPE_F32, plan->width, plan->height, 3, n);
        ggml_set_input(plan->pixels);
        return plan->pixels;
    }
    plan->pixels = ggml_new_tensor_3d(g->ctx, GGML_TYPE_I8, 3 * (int64_t)plan->width, plan->height, n);
    ggml_set_input(plan->pixels);
    float *table = malloc(3 * sizeof *normal);
    int32_t *sizes = malloc((size_t)n * 2 * sizeof *sizes);
    if (table)
        memcpy(table, normal, 3 * sizeof *normal);
    for (int i = 0; sizes && i < 2 * n; i++)
        sizes[i] = plan->size[i];
    return lb_gdino_patches(g, plan->pixels, lb_gdino_constant(g, GGML_TYPE_F32, 256, 3, 1, 1, table),
                            lb_gdino_constant(g, GGML_TYPE_I32, 2, n, 1, 1, sizes),
                            plan->model->hparams.swin.patch_size);
}

static lb_status build_encoder(lb_gdino_plan *plan, const lb_gdino_text *text, const float normal[3][256],
                               lb_error *error) {
    lb_gdino_graph *g = &plan->encoder.g;
    lb_status status = lb_gdino_graph_begin(g, error);
    if (status != LB_STATUS_OK)
        return status;
    struct ggml_tensor *map[LB_GDINO_STAGES_MAX];
    lb_swin(g, input(plan, normal), map);
    plan->memory = lb_gdino_project(g, map);
    plan->text = ggml_repeat_4d(g->ctx, text->features, text->features->ne[0], text->n, plan->geometry.n, 1);
    lb_gdino_encode(g, &text->constants, &plan->memory, &plan->text);
    plan->scores = lb_gdino_scores(g, plan->memory, plan->text);
    ggml_set_name(plan->scores, "scores");
    struct ggml_tensor *out[3] = {plan->memory, plan->text, plan->scores};
    for (int i = 0; i < 3; i++) {
        ggml_set_output(out[i]);
        ggml_build_forward_expand(g->graph, out[i]);
    }
    return allocate(plan, &plan->encoder, error);
}

/* A leaf of the decoder's graph at the place of a tensor of the encoder's. */
static struct ggml_tensor *borrow(lb_gdino_graph *g, struct ggml_tensor *t, bool measure) {
    struct ggml_tensor *leaf = ggml_new_tensor(g->ctx, t->type, GGML_MAX_DIMS, t->ne);
    if (measure) {
        leaf->data = leaf;
        return leaf;
    }
    ggml_backend_tensor_alloc(t->buffer, leaf, t->data);
    return leaf;
}

static lb_status build_decoder(lb_gdino_plan *plan, lb_error *error) {
    lb_gdino_graph *g = &plan->decoder.g;
    lb_status status = lb_gdino_graph_begin(g, error);
    if (status != LB_STATUS_OK)
        return status;
    struct ggml_tensor *memory = borrow(g, plan->memory, plan->measure), *text = borrow(g, plan->text, plan->measure);
    lb_gdino_decode(g, memory, text, lb_gdino_selected_boxes(g, memory));
    return allocate(plan, &plan->decoder, error);
}

lb_status lb_gdino_plan_make(const lb_gdino_model *model, ggml_backend_t backend, const lb_gdino_text *text,
                             const lb_gdino_plan_options *options, const int *size, int n, lb_gdino_plan **out,
                             lb_error *error) {
    *out = NULL;
    const int patch = model->hparams.swin.patch_size;
    lb_gdino_plan *plan = calloc(1, sizeof *plan);
    int *copy = malloc((size_t)n * 2 * sizeof *copy);
    if (!plan || !copy) {
        free(plan);
        free(copy);
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for a batch of %d pictures", n);
    }
    memcpy(copy, size, (size_t)n * 2 * sizeof *copy);
    plan->model = model;
    plan->backend = backend;
    plan->device = options->device;
    plan->cuda = options->cuda;
    plan->measure = options->measure;
    plan->size = copy;
    lb_status status = lb_gdino_geometry_make(&model->hparams, copy, n, &plan->geometry, error);
    plan->width = (plan->geometry.width + patch - 1) / patch * patch;
    plan->height = (plan->geometry.height + patch - 1) / patch * patch;
    stage *stages[2] = {&plan->encoder, &plan->decoder};
    for (int i = 0; i < 2; i++)
        stages[i]->g = (lb_gdino_graph){.model = model,
                                        .geometry = &plan->geometry,
                                        .n_text = text->n,
                                        .way = options->way,
                                        .half = options->way == LB_GDINO_BY_CUDA &&
                                                model->stage[0].block[0].qkv.w->type == GGML_TYPE_F16,
                                        .exact = options->exact,
                                        .watch = options->watch};
    if (status == LB_STATUS_OK)
        status = build_encoder(plan, text, options->normal, error);
    if (status == LB_STATUS_OK)
        status = build_decoder(plan, error);
    if (status != LB_STATUS_OK) {
        plan->bytes = 0; /* not entered yet */
        lb_gdino_plan_free(plan);
        return status;
    }
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < stages[i]->g.n_ops; k++)
            plan->bytes += lb_op_prepared_bytes(&stages[i]->g.ops[k]);
    if (!plan->measure)
        lb_ledger_add_on(plan->device->place, LB_COMPONENT_DETECTOR_COMPUTE, plan->bytes);
    *out = plan;
    return LB_STATUS_OK;
}

bool lb_gdino_plan_fits(const lb_gdino_plan *plan, const int *size, int n) {
    return plan->geometry.n == n && memcmp(plan->size, size, (size_t)n * 2 * sizeof *size) == 0;
}

void lb_gdino_plan_pixels(const lb_gdino_plan *plan, int *width, int *height) {
    *width = plan->width;
    *height = plan->height;
}

size_t lb_gdino_plan_pixel_bytes(const lb_gdino_plan *plan) {
    return ggml_nbytes(plan->pixels);
}

size_t lb_gdino_plan_bytes(const lb_gdino_plan *plan) {
    return plan->bytes;
}

static lb_status failed(const lb_gdino_plan *plan, const char *why, lb_error *error) {
    return lb_error_set(error, LB_STATUS_BACKEND, "detector: %s failed: %s", plan->device->name,
                        why ? why : lb_nn_last_log_error());
}

/* ggml's pieces and our operations run on streams of their own: each waits for the other. */
static lb_status compute_pieces(lb_gdino_plan *plan, const stage *s, lb_error *error) {
    const char *why = NULL;
    for (int i = 0; i < s->n_pieces && !why; i++) {
        const piece *p = &s->pieces[i];
        const bool turn = i > 0 && !p->op != !s->pieces[i - 1].op;
        if (p->op) {
            if (turn)
                ggml_backend_synchronize(plan->backend);
            why = lb_cuda_launch(plan->cuda, p->op);
        } else {
            why = turn ? lb_cuda_wait(plan->cuda) : NULL;
            if (!why && ggml_backend_graph_compute_async(plan->backend, p->graph) != GGML_STATUS_SUCCESS)
                return failed(plan, NULL, error);
        }
    }
    ggml_backend_synchronize(plan->backend);
    if (!why)
        why = lb_cuda_wait(plan->cuda);
    return why ? failed(plan, why, error) : LB_STATUS_OK;
}

/* Node by node, each timed. */
static lb_status compute_timed(lb_gdino_plan *plan, const stage *s, const lb_detector_probe *probe, lb_error *error) {
    for (int i = 0; i < ggml_graph_n_nodes(s->g.graph); i++) {
        struct ggml_tensor *node = ggml_graph_node(s->g.graph, i);
        lb_op *op = find_op(&s->g, node);
        if (computes_nothing(node))
            continue;
        struct ggml_context *ctx = ggml_init((struct ggml_init_params){
            .mem_size = ggml_graph_overhead_custom(1, false) + ggml_tensor_overhead(), .no_alloc = true});
        if (!ctx)
            return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the detector's graph");
        struct ggml_cgraph *graph = ggml_new_graph_custom(ctx, 1, false);
        ggml_graph_add_node(graph, node);
        const char *why = NULL;
        bool good = true;
        double start = lb_now_s();
        if (op)
            why = lb_cuda_launch(plan->cuda, op);
        if (op && !why)
            why = lb_cuda_wait(plan->cuda);
        if (!op)
            good = ggml_backend_graph_compute(plan->backend, graph) == GGML_STATUS_SUCCESS;
        probe->timed(probe->user, op ? lb_op_name(op) : ggml_op_desc(node), node, lb_now_s() - start);
        ggml_free(ctx);
        if (why || !good)
            return failed(plan, why, error);
    }
    return LB_STATUS_OK;
}

static lb_status compute(lb_gdino_plan *plan, stage *s, const lb_detector_probe *probe, lb_error *error) {
    lb_status status = LB_STATUS_OK;
    if (probe->timed)
        status = compute_timed(plan, s, probe, error);
    else if (s->pieces)
        status = compute_pieces(plan, s, error);
    else if (ggml_backend_graph_compute(plan->backend, s->g.graph) != GGML_STATUS_SUCCESS)
        status = failed(plan, NULL, error);
    if (status != LB_STATUS_OK)
        return status;
    return probe->watch ? lb_gdino_show(s->g.graph, probe, error) : LB_STATUS_OK;
}

static void set_input(const stage *s, const char *name, const void *values) {
    struct ggml_tensor *t = ggml_graph_get_tensor(s->g.graph, name);
    ggml_backend_tensor_set(t, values, 0, ggml_nbytes(t));
}

/* Chooses the queries and hands them to the decoder's graph. */
static lb_status select_queries(lb_gdino_plan *plan, const lb_detector_probe *probe, lb_error *error) {
    const int n_tokens = plan->geometry.n_tokens, n_queries = plan->model->hparams.num_queries, n = plan->geometry.n;
    const size_t total = (size_t)n * (size_t)n_queries;
    float *scores = malloc((size_t)n * (size_t)n_tokens * sizeof *scores);
    int32_t *index = malloc(total * sizeof *index);
    float *proposals = malloc(total * 4 * sizeof *proposals), *keep = malloc(total * sizeof *keep);
    lb_status status = scores && index && proposals && keep
                           ? LB_STATUS_OK
                           : lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for %zu queries", total);
    if (status == LB_STATUS_OK)
        ggml_backend_tensor_get(plan->scores, scores, 0, ggml_nbytes(plan->scores));
    for (int i = 0; i < n && status == LB_STATUS_OK; i++) {
        int32_t *chosen = index + (size_t)i * (size_t)n_queries;
        status = lb_gdino_top(scores + (size_t)i * (size_t)n_tokens, n_tokens, n_queries, chosen, error);
        if (status == LB_STATUS_OK && probe->choice)
            memcpy(chosen, probe->choice + (size_t)i * (size_t)n_queries, (size_t)n_queries * sizeof *chosen);
        if (status == LB_STATUS_OK)
            lb_gdino_proposals(&plan->geometry, i, chosen, n_queries, proposals + (size_t)i * (size_t)n_queries * 4,
                               keep + (size_t)i * (size_t)n_queries);
    }
    if (status == LB_STATUS_OK) {
        set_input(&plan->decoder, "index", index);
        set_input(&plan->decoder, "proposals", proposals);
        set_input(&plan->decoder, "keep", keep);
    }
    free(scores);
    free(index);
    free(proposals);
    free(keep);
    return status;
}

lb_status lb_gdino_plan_run(lb_gdino_plan *plan, const void *pixels, const lb_detector_probe *probe, float *logits,
                            float *boxes, lb_error *error) {
    ggml_backend_tensor_set(plan->pixels, pixels, 0, ggml_nbytes(plan->pixels));
    lb_status status = compute(plan, &plan->encoder, probe, error);
    if (status == LB_STATUS_OK)
        status = select_queries(plan, probe, error);
    if (status == LB_STATUS_OK)
        status = compute(plan, &plan->decoder, probe, error);
    if (status != LB_STATUS_OK)
        return status;
    struct ggml_tensor *out = ggml_graph_get_tensor(plan->decoder.g.graph, "logits");
    ggml_backend_tensor_get(out, logits, 0, ggml_nbytes(out));
    out = ggml_graph_get_tensor(plan->decoder.g.graph, "boxes");
    ggml_backend_tensor_get(out, boxes, 0, ggml_nbytes(out));
    return LB_STATUS_OK;
}

void lb_gdino_plan_free(lb_gdino_plan *plan) {
    if (!plan)
        return;
    stage *stages[2] = {&plan->encoder, &plan->decoder};
    for (int i = 0; i < 2; i++) {
        if (stages[i]->allocator)
            ggml_gallocr_free(stages[i]->allocator);
        ggml_backend_buffer_free(stages[i]->constants);
        free(stages[i]->pieces);
        lb_gdino_graph_end(&stages[i]->g);
    }
    if (!plan->measure)
        lb_ledger_sub_on(plan->device->place, LB_COMPONENT_DETECTOR_COMPUTE, plan->bytes);
    free(plan->size);
    free(plan);
}
