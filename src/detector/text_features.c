#include "base/error.h"
#include "detector/plan_internal.h"
#include "nn/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* [CLS], [SEP], '.' and '?': SPECIAL_TOKENS of the reference, by number there too. */
static const int32_t special_tokens[4] = {101, 102, 1012, 1029};

lb_status lb_gdino_show(const struct ggml_cgraph *graph, const lb_detector_probe *probe, lb_error *error) {
    for (int i = 0; i < ggml_graph_n_nodes((struct ggml_cgraph *)graph); i++) {
        struct ggml_tensor *t = ggml_graph_node((struct ggml_cgraph *)graph, i);
        if (!(t->flags & GGML_TENSOR_FLAG_OUTPUT) || t->type != GGML_TYPE_F32)
            continue;
        float *values = malloc(ggml_nbytes(t));
        if (!values)
            return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory to show %s", t->name);
        ggml_backend_tensor_get(t, values, 0, ggml_nbytes(t));
        probe->watch(probe->user, t->name, t->ne, values);
        free(values);
    }
    return LB_STATUS_OK;
}

/* encode_sinusoidal_position_embedding of the restarted positions: temperature 10000, scale 2 pi. out: [n][d] */
static void sine_positions(const int32_t *position, int n, int d, float *out) {
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < d; k++) {
            float angle = (float)position[i] * (float)(2.0 * M_PI) / (float)pow(10000.0, 2.0 * (k / 2) / d);
            *out++ = k % 2 ? cosf(angle) : sinf(angle);
        }
    }
}

/* features: [n][d], from malloc. */
static lb_status run_bert(const lb_gdino_model *model, const lb_device *device, ggml_backend_t backend,
                          const int32_t *tokens, int n, const uint8_t *mask, const int32_t *position, bool exact,
                          const lb_detector_probe *probe, float *features, lb_error *error) {
    lb_gdino_graph g = {.model = model, .n_text = n, .exact = exact, .watch = probe->watch != NULL};
    ggml_gallocr_t allocator = ggml_gallocr_new(ggml_backend_get_default_buffer_type(backend));
    ggml_backend_buffer_t constants = NULL;
    struct ggml_tensor *out = NULL;
    size_t bytes = 0; /* as entered into the ledger */
    lb_status status = lb_gdino_graph_begin(&g, error);
    if (status == LB_STATUS_OK) {
        out = lb_gdino_text_graph(&g, mask, position);
        status = lb_gdino_graph_constants(&g, backend, &constants, error);
    }
    if (status == LB_STATUS_OK && (!allocator || !ggml_gallocr_alloc_graph(allocator, g.graph)))
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no room for the text encoder's activations");
    if (status == LB_STATUS_OK) {
        bytes = ggml_gallocr_get_buffer_size(allocator, 0) + ggml_backend_buffer_get_size(constants);
        lb_ledger_add_on(device->place, LB_COMPONENT_DETECTOR_COMPUTE, bytes);
        struct ggml_tensor *input = ggml_graph_get_tensor(g.graph, "tokens");
        ggml_backend_tensor_set(input, tokens, 0, ggml_nbytes(input));
        if (ggml_backend_graph_compute(backend, g.graph) != GGML_STATUS_SUCCESS)
            status = lb_error_set(error, LB_STATUS_BACKEND, "text encoder: %s", lb_nn_last_log_error());
    }
    if (status == LB_STATUS_OK)
        ggml_backend_tensor_get(out, features, 0, ggml_nbytes(out));
    if (status == LB_STATUS_OK && probe->watch)
        status = lb_gdino_show(g.graph, probe, error);
    ggml_backend_buffer_free(constants);
    if (allocator)
        ggml_gallocr_free(allocator);
    lb_ledger_sub_on(device->place, LB_COMPONENT_DETECTOR_COMPUTE, bytes);
    lb_gdino_graph_end(&g);
    return status;
}

static lb_status make_tensors(lb_gdino_text *text, int d, lb_error *error) {
    text->ctx = ggml_init((struct ggml_init_params){.mem_size = 4 * ggml_tensor_overhead(), .no_alloc = true});
    if (!text->ctx)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the text features");
    text->features = ggml_new_tensor_2d(text->ctx, GGML_TYPE_F32, d, text->n);
    text->constants.mask = ggml_new_tensor_2d(text->ctx, GGML_TYPE_F32, text->n, text->n);
    text->constants.position = ggml_new_tensor_2d(text->ctx, GGML_TYPE_F32, d, text->n);
    return LB_STATUS_OK;
}

/* Of BERT's graph for n tokens: sizes do not depend on what the tokens are. */
static lb_status measure_bert(const lb_gdino_model *model, const lb_device *device, int n, bool exact, size_t *bytes,
                              lb_error *error) {
    lb_gdino_graph g = {.model = model, .n_text = n, .exact = exact};
    uint8_t *mask = calloc((size_t)n * (size_t)n, 1);
    int32_t *position = calloc((size_t)n, sizeof *position);
    lb_status status = mask && position ? lb_gdino_graph_begin(&g, error)
                                        : lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for %d tokens", n);
    if (status == LB_STATUS_OK) {
        lb_gdino_text_graph(&g, mask, position);
        status = lb_gdino_graph_measure(&g, device, bytes, error);
    }
    lb_gdino_graph_end(&g);
    free(mask);
    free(position);
    return status;
}

lb_status lb_gdino_text_measure(const lb_gdino_model *model, const lb_device *device, int n, bool exact,
                                lb_gdino_text *text, size_t *feature_bytes, size_t *compute_bytes, lb_error *error) {
    *text = (lb_gdino_text){.n = n, .place = device->place};
    lb_status status = make_tensors(text, model->hparams.d_model, error);
    if (status != LB_STATUS_OK)
        return status;
    *feature_bytes =
        ggml_backend_alloc_ctx_tensors_from_buft_size(text->ctx, ggml_backend_dev_buffer_type(device->handle));
    lb_gdino_pretend(text->ctx);
    return measure_bert(model, device, n, exact, compute_bytes, error);
}

/* Features, mask and positions into a buffer of their own. */
static lb_status keep(ggml_backend_t backend, lb_gdino_text *text, int d, const float *features, const float *mask,
                      const float *position, lb_error *error) {
    lb_status status = make_tensors(text, d, error);
    if (status != LB_STATUS_OK)
        return status;
    text->buffer = ggml_backend_alloc_ctx_tensors(text->ctx, backend);
    if (!text->buffer)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no room for the text features on %s",
                            ggml_backend_name(backend));
    lb_ledger_add_on(text->place, LB_COMPONENT_DETECTOR_WEIGHTS, ggml_backend_buffer_get_size(text->buffer));
    ggml_backend_tensor_set(text->features, features, 0, ggml_nbytes(text->features));
    ggml_backend_tensor_set(text->constants.mask, mask, 0, ggml_nbytes(text->constants.mask));
    ggml_backend_tensor_set(text->constants.position, position, 0, ggml_nbytes(text->constants.position));
    return LB_STATUS_OK;
}

lb_status lb_gdino_text_make(const lb_gdino_model *model, const lb_device *device, ggml_backend_t backend,
                             const int32_t *tokens, int n, bool exact, const lb_detector_probe *probe,
                             lb_gdino_text *text, lb_error *error) {
    const int d = model->hparams.d_model;
    const size_t n_pairs = (size_t)n * (size_t)n, n_values = (size_t)n * (size_t)d;
    *text = (lb_gdino_text){.n = n, .place = device->place};
    uint8_t *sees = malloc(n_pairs);
    int32_t *position = malloc((size_t)n * sizeof *position);
    float *features = malloc(n_values * sizeof *features), *mask = malloc(n_pairs * sizeof *mask);
    float *sine = malloc(n_values * sizeof *sine);
    lb_status status = sees && position && features && mask && sine
                           ? LB_STATUS_OK
                           : lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for %d tokens", n);
    if (status == LB_STATUS_OK) {
        lb_gdino_phrases(tokens, n, special_tokens, sees, position);
        status = run_bert(model, device, backend, tokens, n, sees, position, exact, probe, features, error);
    }
    for (size_t i = 0; i < n_values && status == LB_STATUS_OK; i++)
        if (!isfinite(features[i]))
            status = lb_error_set(error, LB_STATUS_NOT_FINITE, "detector: a text feature is not finite");
    if (status == LB_STATUS_OK) {
        for (size_t i = 0; i < n_pairs; i++)
            mask[i] = sees[i] ? 0.0f : -INFINITY;
        sine_positions(position, n, d, sine);
        status = keep(backend, text, d, features, mask, sine, error);
    }
    free(sees);
    free(position);
    free(features);
    free(mask);
    free(sine);
    return status;
}

void lb_gdino_text_free(lb_gdino_text *text) {
    if (text->buffer)
        lb_ledger_sub_on(text->place, LB_COMPONENT_DETECTOR_WEIGHTS, ggml_backend_buffer_get_size(text->buffer));
    ggml_backend_buffer_free(text->buffer);
    ggml_free(text->ctx);
    *text = (lb_gdino_text){0};
}
