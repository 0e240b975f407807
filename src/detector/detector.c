#include "detector/detector.h"

#include "base/error.h"
#include "detector/cuda.h"
#include "detector/model_internal.h"
#include "detector/plan_internal.h"
#include "nn/backend.h"
#include "nn/pinned.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct lb_detector {
    lb_gdino_model model;
    lb_gguf *file; /* stays open: labels may be replaced */
    lb_device device;
    ggml_backend_t backend;
    lb_cuda *cuda; /* NULL: no kernels of ours */
    lb_gdino_text text;
    lb_gdino_plan *plan; /* of the last batch's shape */
    lb_pinned staging;   /* of the last batch's pixels, where the device copies from fastest */
    lb_detector_params params;
    lb_detector_probe probe;
    float normal[3][256]; /* (value * (1 / 255) - mean) / std, by channel */
};

int lb_detector_n_queries(const lb_detector *detector) {
    return detector->model.hparams.num_queries;
}

int lb_detector_max_text_len(const lb_detector *detector) {
    return detector->model.hparams.max_text_len;
}

int lb_detector_n_tokens(const lb_detector *detector) {
    return detector->text.n;
}

size_t lb_detector_activation_bytes(const lb_detector *detector) {
    return (detector->plan ? lb_gdino_plan_bytes(detector->plan) : 0) + (detector->cuda ? lb_cuda_bytes() : 0);
}

static lb_status open_backend(lb_detector *detector, lb_error *error) {
    return detector->backend
               ? LB_STATUS_OK
               : lb_backend_open(&detector->device, detector->params.n_threads, &detector->backend, error);
}

/* Everything on the device that a run needs, but for the plan. Does nothing when it is there. */
static lb_status rise(lb_detector *detector, lb_error *error) {
    const lb_detector_params *params = &detector->params;
    lb_status status = open_backend(detector, error);
    if (status == LB_STATUS_OK && params->rest_weights)
        status = lb_weights_bring(detector->model.weights, detector->backend, error);
    if (status == LB_STATUS_OK && !detector->cuda && (!params->device.is_cpu || params->kernels) && !params->gathers) {
        const char *why;
        ggml_backend_synchronize(detector->backend);
        detector->cuda = lb_cuda_open(detector->model.level_embed->data, &why);
        if (why)
            status = lb_error_set(error, LB_STATUS_BACKEND, "%s cannot be used: %s", detector->device.name, why);
        if (detector->cuda)
            lb_ledger_add_on(detector->device.place, LB_COMPONENT_DETECTOR_COMPUTE, lb_cuda_bytes());
    }
    return status;
}

static void close_cuda(lb_detector *detector) {
    if (detector->cuda)
        lb_ledger_sub_on(detector->device.place, LB_COMPONENT_DETECTOR_COMPUTE, lb_cuda_bytes());
    lb_cuda_close(detector->cuda);
    detector->cuda = NULL;
}

static void forget_plan(lb_detector *detector) {
    lb_gdino_plan_free(detector->plan);
    detector->plan = NULL;
}

void lb_detector_rest(lb_detector *detector) {
    const lb_detector_params *params = &detector->params;
    if (!params->rest_compute && !params->rest_weights)
        return;
    forget_plan(detector); /* it knows where the weights lay */
    close_cuda(detector);
    if (params->rest_weights)
        lb_weights_leave(detector->model.weights);
    if (params->rest_compute && detector->backend) {
        ggml_backend_free(detector->backend);
        detector->backend = NULL;
    }
}

lb_status lb_detector_open(const char *path, const lb_detector_params *params, lb_detector **out, lb_error *error) {
    *out = NULL;
    lb_detector *detector = calloc(1, sizeof *detector);
    if (!detector)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", path);
    detector->params = *params;
    detector->device = params->device;
    if (detector->params.frame_batch <= 0)
        detector->params.frame_batch = params->device.is_cpu ? 1 : 8;
    lb_status status = lb_gguf_open(path, &detector->file, error);
    if (status == LB_STATUS_OK && lb_gguf_bool_or(detector->file, "gdino.exact", false))
        detector->params.exact = true;
    if (detector->params.exact) /* cuBLAS multiplies f32 in tf32 unless it is told otherwise before CUDA starts */
        setenv("NVIDIA_TF32_OVERRIDE", "0", 0);
    if (status == LB_STATUS_OK)
        status = open_backend(detector, error);
    if (status == LB_STATUS_OK)
        status = lb_gdino_declare(detector->file, &detector->model, error);
    if (status == LB_STATUS_OK)
        status =
            params->rest_weights
                ? lb_weights_load_host(detector->model.weights, &detector->device, LB_COMPONENT_DETECTOR_WEIGHTS, error)
                : lb_weights_load(detector->model.weights, detector->backend, LB_COMPONENT_DETECTOR_WEIGHTS, error);
    if (status != LB_STATUS_OK) {
        lb_detector_free(detector);
        return status;
    }
    const lb_gdino_hparams *hp = &detector->model.hparams;
    for (int c = 0; c < 3; c++)
        for (int v = 0; v < 256; v++)
            detector->normal[c][v] =
                ((float)(v * (1.0 / 255.0)) - hp->mean[c]) / hp->std[c]; /* as Pillow's processor */
    *out = detector;
    return LB_STATUS_OK;
}

void lb_detector_set_probe(lb_detector *detector, const lb_detector_probe *probe) {
    detector->probe = probe ? *probe : (lb_detector_probe){0};
    forget_plan(detector); /* a watched graph keeps what another gives away */
}

lb_status lb_detector_set_labels(lb_detector *detector, const int32_t *tokens, int n, lb_error *error) {
    const lb_gdino_hparams *hp = &detector->model.hparams;
    if (n < 1 || n > hp->max_text_len || n > hp->bert.max_position_embeddings)
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT,
                            "the labels make %d tokens, the detector takes 1 to %d; give fewer or shorter labels", n,
                            hp->max_text_len);
    for (int i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= hp->bert.vocab_size)
            return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT,
                                "token %d of the labels is %d, the vocabulary has %d", i, (int)tokens[i],
                                hp->bert.vocab_size);
    lb_gdino_text text = {0};
    lb_status status = open_backend(detector, error);
    if (status == LB_STATUS_OK)
        status = lb_gdino_declare_bert(detector->file, &detector->model, error);
    if (status == LB_STATUS_OK)
        status = lb_weights_load(detector->model.bert.weights, detector->backend, LB_COMPONENT_DETECTOR_WEIGHTS, error);
    if (status == LB_STATUS_OK)
        status = lb_gdino_text_make(&detector->model, &detector->device, detector->backend, tokens, n,
                                    detector->params.exact, &detector->probe, &text, error);
    lb_weights_free(detector->model.bert.weights);
    detector->model.bert = (lb_bert){0};
    if (status != LB_STATUS_OK) {
        lb_gdino_text_free(&text);
        return status;
    }
    forget_plan(detector); /* built around the text before */
    lb_gdino_text_free(&detector->text);
    detector->text = text;
    return LB_STATUS_OK;
}

/* 8-bit interleaved to normalised planes in a picture that is padded with zeros; out: [3][height][width], zero before
 */
static void place(const lb_detector *detector, const lb_detector_picture *picture, int width, int height, float *out) {
    for (int y = 0; y < picture->height; y++) {
        const uint8_t *from = picture->rgb + (size_t)y * (size_t)picture->width * 3;
        for (int c = 0; c < 3; c++) {
            float *row = out + ((size_t)c * (size_t)height + (size_t)y) * (size_t)width;
            for (int x = 0; x < picture->width; x++)
                row[x] = detector->normal[c][from[3 * x + c]];
        }
    }
}

/* The bytes as they are, in a picture that is padded with anything: the device knows each one's size. */
static void place_bytes(const lb_detector_picture *picture, int width, uint8_t *out) {
    const size_t row = (size_t)picture->width * 3;
    for (int y = 0; y < picture->height; y++)
        memcpy(out + (size_t)y * (size_t)width * 3, picture->rgb + (size_t)y * row, row);
}

/* Memory for a batch's pixels, kept for the next. */
static lb_status stage(lb_detector *detector, size_t n_bytes, lb_error *error) {
    if (detector->staging.data && detector->staging.bytes >= n_bytes)
        return LB_STATUS_OK;
    lb_pinned_free(&detector->staging);
    return lb_pinned_alloc(&detector->device, n_bytes, LB_COMPONENT_FRAMES, &detector->staging, error);
}

static lb_gdino_way way(const lb_detector *detector) {
    if (detector->cuda)
        return LB_GDINO_BY_CUDA;
    return detector->device.is_cpu && !detector->params.gathers ? LB_GDINO_BY_FUNCTION : LB_GDINO_BY_GGML;
}

static lb_status use_plan(lb_detector *detector, const lb_detector_picture *pictures, int n, lb_error *error) {
    int *size = malloc((size_t)n * 2 * sizeof *size);
    if (!size)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for a batch of %d pictures", n);
    for (int i = 0; i < n; i++)
        size[2 * i] = pictures[i].width, size[2 * i + 1] = pictures[i].height;
    lb_status status = LB_STATUS_OK;
    if (!detector->plan || !lb_gdino_plan_fits(detector->plan, size, n)) {
        lb_gdino_plan_free(detector->plan); /* first, or the two would have to fit beside each other */
        detector->plan = NULL;
        const lb_gdino_plan_options options = {.device = &detector->device,
                                               .way = way(detector),
                                               .cuda = detector->cuda,
                                               .normal = detector->normal,
                                               .exact = detector->params.exact,
                                               .watch = detector->probe.watch != NULL};
        status = lb_gdino_plan_make(&detector->model, detector->backend, &detector->text, &options, size, n,
                                    &detector->plan, error);
    }
    free(size);
    return status;
}

static lb_status check_finite(const float *values, size_t n, const char *what, lb_error *error) {
    for (size_t i = 0; i < n; i++)
        if (!isfinite(values[i]))
            return lb_error_set(error, LB_STATUS_NOT_FINITE, "detector: a %s is not finite", what);
    return LB_STATUS_OK;
}

static lb_status run_batch(lb_detector *detector, const lb_detector_picture *pictures, int n, float *logits,
                           float *boxes, lb_error *error) {
    lb_status status = rise(detector, error);
    if (status == LB_STATUS_OK)
        status = use_plan(detector, pictures, n, error);
    if (status != LB_STATUS_OK)
        return status;
    int width, height;
    lb_gdino_plan_pixels(detector->plan, &width, &height);
    const size_t per_picture = (size_t)width * (size_t)height * 3, n_bytes = lb_gdino_plan_pixel_bytes(detector->plan);
    if ((status = stage(detector, n_bytes, error)) != LB_STATUS_OK)
        return status;
    void *pixels = detector->staging.data;
    if (!detector->cuda)
        memset(pixels, 0, n_bytes);
    for (int i = 0; i < n; i++) {
        if (detector->cuda)
            place_bytes(&pictures[i], width, (uint8_t *)pixels + (size_t)i * per_picture);
        else
            place(detector, &pictures[i], width, height, (float *)pixels + (size_t)i * per_picture);
    }
    status = lb_gdino_plan_run(detector->plan, pixels, &detector->probe, logits, boxes, error);
    const size_t n_queries = (size_t)n * (size_t)detector->model.hparams.num_queries;
    if (status == LB_STATUS_OK)
        status = check_finite(logits, n_queries * (size_t)detector->text.n, "class score", error);
    return status == LB_STATUS_OK ? check_finite(boxes, n_queries * 4, "box", error) : status;
}

lb_status lb_detector_run(lb_detector *detector, const lb_detector_picture *pictures, int n, float *logits,
                          float *boxes, lb_error *error) {
    if (!detector->text.n)
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "the detector has no labels yet");
    const size_t n_queries = (size_t)detector->model.hparams.num_queries;
    for (int done = 0; done < n;) {
        int batch = n - done < detector->params.frame_batch ? n - done : detector->params.frame_batch;
        lb_status status =
            run_batch(detector, pictures + done, batch, logits + (size_t)done * n_queries * (size_t)detector->text.n,
                      boxes + (size_t)done * n_queries * 4, error);
        if (status == LB_STATUS_OUT_OF_MEMORY && batch > 1) {
            detector->params.frame_batch = batch / 2;
            continue;
        }
        if (status != LB_STATUS_OK)
            return status;
        done += batch;
    }
    return LB_STATUS_OK;
}

void lb_detector_free(lb_detector *detector) {
    if (!detector)
        return;
    forget_plan(detector);
    lb_gdino_text_free(&detector->text);
    lb_weights_free(detector->model.bert.weights);
    close_cuda(detector);
    lb_weights_free(detector->model.weights);
    lb_pinned_free(&detector->staging);
    if (detector->backend)
        ggml_backend_free(detector->backend);
    lb_gguf_close(detector->file);
    free(detector);
}
