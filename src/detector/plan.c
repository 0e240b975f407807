/* Two graphs a batch: pictures to the score of every proposal, then, the best of them chosen on the host, the decoder.
 * The first one's memory keeps the encoder's output for the second. */
#include "detector/plan_internal.h"

#include "base/error.h"
#include "nn/log.h"

#include <stdlib.h>
#include <string.h>

typedef struct stage {
    lb_gdino_graph g;
    ggml_backend_buffer_t constants;
    ggml_gallocr_t allocator;
} stage;

struct lb_gdino_plan {
    const lb_gdino_model *model;
    ggml_backend_t backend;
    const lb_device *device;
    lb_gdino_geometry geometry;
    int *size;         /* [n][2] */
    int width, height; /* pixels a picture, padded */
    stage encoder, decoder;
    struct ggml_tensor *memory, *text, *scores; /* of the encoder's graph: ne = [d, S, B], [d, T, B], [S, B] */
    size_t bytes;                               /* as entered into the ledger */
};

static lb_status check_support(const lb_gdino_plan *plan, const stage *s, lb_error *error) {
    for (int i = 0; i < ggml_graph_n_nodes(s->g.graph); i++) {
        struct ggml_tensor *node = ggml_graph_node(s->g.graph, i);
        if (!ggml_backend_dev_supports_op(plan->device->handle, node))
            return lb_error_set(error, LB_STATUS_UNSUPPORTED, "detector: %s lacks the operation %s (for '%s')",
                                plan->device->name, ggml_op_name(node->op), node->name);
    }
    return LB_STATUS_OK;
}

static lb_status allocate(lb_gdino_plan *plan, stage *s, lb_error *error) {
    lb_status status = lb_gdino_graph_constants(&s->g, plan->backend, &s->constants, error);
    if (status == LB_STATUS_OK)
        status = check_support(plan, s, error);
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

static lb_status build_encoder(lb_gdino_plan *plan, const lb_gdino_text *text, lb_error *error) {
    lb_gdino_graph *g = &plan->encoder.g;
    lb_status status = lb_gdino_graph_begin(g, error);
    if (status != LB_STATUS_OK)
        return status;
    struct ggml_tensor *pixels =
        ggml_new_tensor_4d(g->ctx, GGML_TYPE_F32, plan->width, plan->height, 3, plan->geometry.n);
    ggml_set_name(pixels, "pixels");
    ggml_set_input(pixels);
    struct ggml_tensor *map[LB_GDINO_STAGES_MAX];
    lb_swin(g, pixels, map);
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
static struct ggml_tensor *borrow(lb_gdino_graph *g, struct ggml_tensor *t) {
    struct ggml_tensor *leaf = ggml_new_tensor(g->ctx, t->type, GGML_MAX_DIMS, t->ne);
    ggml_backend_tensor_alloc(t->buffer, leaf, t->data);
    return leaf;
}

static lb_status build_decoder(lb_gdino_plan *plan, lb_error *error) {
    lb_gdino_graph *g = &plan->decoder.g;
    lb_status status = lb_gdino_graph_begin(g, error);
    if (status != LB_STATUS_OK)
        return status;
    struct ggml_tensor *memory = borrow(g, plan->memory), *text = borrow(g, plan->text);
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
    plan->size = copy;
    lb_status status = lb_gdino_geometry_make(&model->hparams, copy, n, &plan->geometry, error);
    plan->width = (plan->geometry.width + patch - 1) / patch * patch;
    plan->height = (plan->geometry.height + patch - 1) / patch * patch;
    stage *stages[2] = {&plan->encoder, &plan->decoder};
    for (int i = 0; i < 2; i++)
        stages[i]->g = (lb_gdino_graph){.model = model,
                                        .geometry = &plan->geometry,
                                        .n_text = text->n,
                                        .on_cpu = options->by_function,
                                        .watch = options->watch};
    if (status == LB_STATUS_OK)
        status = build_encoder(plan, text, error);
    if (status == LB_STATUS_OK)
        status = build_decoder(plan, error);
    if (status != LB_STATUS_OK) {
        plan->bytes = 0; /* not entered yet */
        lb_gdino_plan_free(plan);
        return status;
    }
    lb_ledger_add(LB_COMPONENT_DETECTOR_COMPUTE, plan->bytes);
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

static lb_status compute(lb_gdino_plan *plan, stage *s, const lb_detector_probe *probe, lb_error *error) {
    if (ggml_backend_graph_compute(plan->backend, s->g.graph) != GGML_STATUS_SUCCESS)
        return lb_error_set(error, LB_STATUS_BACKEND, "detector: %s failed: %s", plan->device->name,
                            lb_nn_last_log_error());
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

lb_status lb_gdino_plan_run(lb_gdino_plan *plan, const float *pixels, const lb_detector_probe *probe, float *logits,
                            float *boxes, lb_error *error) {
    set_input(&plan->encoder, "pixels", pixels);
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
        lb_gdino_graph_end(&stages[i]->g);
    }
    lb_ledger_sub(LB_COMPONENT_DETECTOR_COMPUTE, plan->bytes);
    free(plan->size);
    free(plan);
}
