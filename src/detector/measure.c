#include "detector/measure_internal.h"

#include "base/error.h"
#include "detector/cuda.h"
#include "detector/plan_internal.h"

#include <stdlib.h>
#include <string.h>

/* The graph that a run would choose: lb_detector_open asks the device itself. */
static lb_gdino_way way(const lb_detector_params *params) {
    const lb_device *device = &params->device;
    const bool cuda = device->is_cpu ? params->kernels : strncmp(device->name, "CUDA", 4) == 0;
    if (cuda && !params->gathers && lb_cuda_bytes())
        return LB_GDINO_BY_CUDA;
    return device->is_cpu && !params->gathers ? LB_GDINO_BY_FUNCTION : LB_GDINO_BY_GGML;
}

static lb_status measure_batch(const lb_gdino_model *model, const lb_detector_params *params, const lb_gdino_text *text,
                               const int *size, int n, lb_find_sizes *sizes, lb_error *error) {
    static const float no_normal[3][256];
    const lb_gdino_hparams *hp = &model->hparams;
    const lb_gdino_plan_options options = {.device = &params->device,
                                           .way = way(params),
                                           .normal = no_normal,
                                           .exact = params->exact || hp->exact,
                                           .measure = true};
    int *all = malloc((size_t)n * 2 * sizeof *all);
    if (!all)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for a batch of %d pictures", n);
    for (int i = 0; i < n; i++)
        all[2 * i] = size[0], all[2 * i + 1] = size[1];
    lb_gdino_plan *plan = NULL;
    lb_status status = lb_gdino_plan_make(model, NULL, text, &options, all, n, &plan, error);
    if (status == LB_STATUS_OK) {
        const int patch = hp->swin.patch_size;
        sizes->compute_bytes = lb_gdino_plan_bytes(plan) + (options.way == LB_GDINO_BY_CUDA ? lb_cuda_bytes() : 0);
        sizes->staging_bytes = lb_gdino_plan_pixel_bytes(plan);
        sizes->n_rows = (int64_t)((size[0] + patch - 1) / patch) * ((size[1] + patch - 1) / patch);
        sizes->n_width = hp->swin.embed_dim;
        sizes->n_widest = (int64_t)((float)hp->swin.embed_dim * hp->swin.mlp_ratio);
        if (options.way == LB_GDINO_BY_CUDA) { /* products over a map are ours; the library's widest is the decoder's */
            sizes->n_rows = hp->num_queries;
            sizes->n_width = hp->d_model;
            sizes->n_widest = hp->decoder_ffn_dim;
        }
    }
    lb_gdino_plan_free(plan);
    free(all);
    return status;
}

lb_status lb_gdino_measure(const char *path, const lb_detector_params *params, int n_text, const int (*size)[2],
                           int n_sizes, int n, lb_find_sizes *sizes, lb_error *error) {
    const lb_device *device = &params->device;
    lb_gguf *file = NULL;
    lb_gdino_model *model = calloc(1, sizeof *model);
    lb_gdino_text text = {0};
    lb_status status = model ? LB_STATUS_OK : lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", path);
    if (status == LB_STATUS_OK)
        status = lb_gguf_open(path, &file, error);
    if (status == LB_STATUS_OK)
        status = lb_gdino_declare(file, model, error);
    if (status == LB_STATUS_OK)
        status = lb_gdino_declare_bert(file, model, error);
    if (status == LB_STATUS_OK) {
        sizes->weight_bytes = lb_weights_measure(model->weights, device);
        sizes->text_encoder_bytes = lb_weights_measure(model->bert.weights, device);
        lb_weights_pretend(model->weights);
        lb_weights_pretend(model->bert.weights);
        status = lb_gdino_text_measure(model, device, n_text, params->exact || model->hparams.exact, &text,
                                       &sizes->text_bytes, &sizes->text_encoder_compute_bytes, error);
    }
    const lb_find_sizes same = *sizes;
    for (int i = 0; i < n_sizes && status == LB_STATUS_OK; i++) {
        lb_find_sizes one = same;
        status = measure_batch(model, params, &text, size[i], n, &one, error);
        if (one.compute_bytes > sizes->compute_bytes)
            *sizes = one;
    }
    lb_gdino_text_free(&text);
    if (model) {
        lb_weights_free(model->weights);
        lb_weights_free(model->bert.weights);
    }
    lb_gguf_close(file);
    free(model);
    return status;
}
