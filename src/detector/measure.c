#include "detector/measure_internal.h"

#include "base/error.h"
#include "detector/cuda.h"
#include "detector/plan_internal.h"

#include <stdlib.h>

/* The text as the graphs see it: tensors that count as allocated. */
static lb_status pretend_text(lb_gdino_text *text, int d, int n, const lb_device *device, size_t *bytes,
                              lb_error *error) {
    *text = (lb_gdino_text){.n = n};
    text->ctx = ggml_init((struct ggml_init_params){.mem_size = 4 * ggml_tensor_overhead(), .no_alloc = true});
    if (!text->ctx)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the text features");
    text->features = ggml_new_tensor_2d(text->ctx, GGML_TYPE_F32, d, n);
    text->constants.mask = ggml_new_tensor_2d(text->ctx, GGML_TYPE_F32, n, n);
    text->constants.position = ggml_new_tensor_2d(text->ctx, GGML_TYPE_F32, d, n);
    *bytes = ggml_backend_alloc_ctx_tensors_from_buft_size(text->ctx, ggml_backend_dev_buffer_type(device->handle));
    for (struct ggml_tensor *t = ggml_get_first_tensor(text->ctx); t; t = ggml_get_next_tensor(text->ctx, t))
        t->data = t;
    return LB_STATUS_OK;
}

lb_status lb_gdino_measure(const char *path, const lb_device *device, int n_text, const int *size, int n,
                           lb_find_sizes *sizes, lb_error *error) {
    static const float no_normal[3][256];
    lb_gguf *file = NULL;
    lb_gdino_model *model = calloc(1, sizeof *model);
    int *all = calloc((size_t)n * 2, sizeof *all);
    lb_gdino_text text = {0};
    lb_gdino_plan *plan = NULL;
    lb_status status =
        model && all ? LB_STATUS_OK : lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", path);
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
        status = pretend_text(&text, model->hparams.d_model, n_text, device, &sizes->text_bytes, error);
    }
    for (int i = 0; i < n && status == LB_STATUS_OK; i++)
        all[2 * i] = size[0], all[2 * i + 1] = size[1];
    const lb_gdino_plan_options options = {.device = device,
                                           .way = device->is_cpu    ? LB_GDINO_BY_FUNCTION
                                                  : lb_cuda_bytes() ? LB_GDINO_BY_CUDA
                                                                    : LB_GDINO_BY_GGML,
                                           .normal = no_normal,
                                           .measure = true};
    if (status == LB_STATUS_OK)
        status = lb_gdino_plan_make(model, NULL, &text, &options, all, n, &plan, error);
    if (status == LB_STATUS_OK) {
        sizes->compute_bytes = lb_gdino_plan_bytes(plan);
        const lb_gdino_hparams *hp = &model->hparams;
        const int patch = hp->swin.patch_size;
        sizes->n_rows = (int64_t)((size[0] + patch - 1) / patch) * ((size[1] + patch - 1) / patch);
        sizes->n_width = hp->swin.embed_dim;
        sizes->n_widest = (int64_t)((float)hp->swin.embed_dim * hp->swin.mlp_ratio);
    }
    lb_gdino_plan_free(plan);
    ggml_free(text.ctx);
    if (model) {
        lb_weights_free(model->weights);
        lb_weights_free(model->bert.weights);
    }
    lb_gguf_close(file);
    free(model);
    free(all);
    return status;
}
