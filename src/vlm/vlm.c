#include "vlm/vlm.h"

#include "base/error.h"
#include "base/log.h"
#include "base/time.h"
#include "memory/ledger.h"
#include "nn/gguf_file.h"
#include "vlm/encoder.h"
#include "vlm/language.h"

#include <stdlib.h>
#include <string.h>

struct lb_vlm {
    lb_vlm_info info;
    lb_vlm_layout layout;
    lb_device device[LB_DEVICES_MAX]; /* the language model's; the first gives the pinned memory */
    int n_devices;
    lb_encoder *encoder;
    lb_language *language;
    uint64_t n_encoded; /* counts, to tell one video's embeddings from another's */
    lb_pinned spare;    /* of embeddings that were freed: pinning memory anew takes 0.1 s a video */
};

struct lb_embeddings {
    lb_vlm *vlm;
    lb_pinned rows;
    int64_t n_rows;
    uint64_t id;
};

lb_vlm_params lb_vlm_default_params(void) {
    return (lb_vlm_params){.device = "auto", .n_ubatch = 512, .n_parallel = 8};
}

/* Both headers are compared before gigabytes are read. */
static lb_status check_headers(const lb_vlm_params *params, lb_error *error) {
    lb_encoder_hparams hp;
    lb_status status = lb_encoder_read_hparams(params->mmproj_path, &hp, error);
    lb_gguf *file = NULL;
    lb_gguf_tensor embd;
    if (status == LB_STATUS_OK)
        status = lb_gguf_open(params->model_path, &file, error);
    if (status == LB_STATUS_OK && lb_gguf_find(file, "token_embd.weight", &embd) && embd.ne[0] != hp.n_out)
        status = lb_error_set(error, LB_STATUS_UNSUPPORTED,
                              "%s and %s do not belong together: the vision part gives embeddings of %d, the language "
                              "model takes %lld; use the two files converted from one checkpoint",
                              params->mmproj_path, params->model_path, hp.n_out, (long long)embd.ne[0]);
    lb_gguf_close(file);
    return status;
}

lb_status lb_vlm_open(const lb_vlm_params *given, lb_vlm **out, lb_error *error) {
    *out = NULL;
    lb_vlm_params params = *given, defaults = lb_vlm_default_params();
    if (params.n_ubatch <= 0)
        params.n_ubatch = defaults.n_ubatch;
    if (params.n_parallel <= 0)
        params.n_parallel = defaults.n_parallel;
    lb_vlm *vlm = calloc(1, sizeof *vlm);
    if (!vlm)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory");
    /* cuBLAS multiplies f32 matrices in tf32, 3e-4 off, unless it is told otherwise before CUDA starts */
    if (params.exact)
        setenv("NVIDIA_TF32_OVERRIDE", "0", 0);
    lb_status status = check_headers(&params, error);
    if (status == LB_STATUS_OK)
        status = lb_devices_find(params.device, vlm->device, &vlm->n_devices, error);
    const lb_vlm_layout *layout = &params.layout;
    vlm->layout = *layout;
    if (status == LB_STATUS_OK && layout->vision_device >= vlm->n_devices)
        status = lb_error_set(error, LB_STATUS_INTERNAL, "the layout names device %d of %d", layout->vision_device,
                              vlm->n_devices);
    const lb_device vision_device = vlm->device[status == LB_STATUS_OK ? layout->vision_device : 0];
    vlm->n_devices = layout->n_devices > 1 ? layout->n_devices : 1; /* no context on devices that hold nothing */
    if (status == LB_STATUS_OK)
        status = lb_language_open(&params, vlm->device, vlm->n_devices, &vlm->language, error);
    lb_encoder_params encoder = {.device = vision_device,
                                 .n_threads = params.n_threads,
                                 .tile_batch = params.tile_batch,
                                 .exact = params.exact,
                                 .rest_compute = layout->rest_vision_compute,
                                 .rest_weights = layout->rest_vision_weights};
    if (status == LB_STATUS_OK)
        status = lb_encoder_open(params.mmproj_path, &encoder, &vlm->encoder, error);
    if (status != LB_STATUS_OK) {
        lb_vlm_free(vlm);
        return status;
    }
    const lb_encoder_hparams *hp = lb_encoder_get_hparams(vlm->encoder);
    lb_vlm_info *info = &vlm->info;
    info->image_size = hp->image_size;
    info->tokens_per_tile = hp->n_tokens;
    info->n_embd = hp->n_out;
    info->n_vocab = lb_language_n_vocab(vlm->language);
    info->n_ctx_train = lb_language_n_ctx_train(vlm->language);
    info->n_parallel = params.n_parallel;
    info->largest_tile_batch = lb_encoder_tile_batch(vlm->encoder);
    memcpy(info->device, vlm->device[0].name, sizeof info->device);
    memcpy(info->device_description, vlm->device[0].description, sizeof info->device_description);
    memcpy(info->architecture, lb_language_architecture(vlm->language), sizeof info->architecture);
    *out = vlm;
    return LB_STATUS_OK;
}

void lb_vlm_free(lb_vlm *vlm) {
    if (!vlm)
        return;
    lb_pinned_free(&vlm->spare);
    lb_encoder_free(vlm->encoder);
    lb_language_free(vlm->language);
    free(vlm);
}

const lb_vlm_info *lb_vlm_get_info(const lb_vlm *vlm) {
    return &vlm->info;
}

void lb_vlm_memory(const lb_vlm *vlm, size_t *allocated, size_t *reserved) {
    *allocated = lb_ledger_device_bytes();
    *reserved = 0;
    for (int i = 0; i < vlm->n_devices; i++)
        *reserved += lb_device_reserved_bytes(&vlm->device[i]);
}

void lb_vlm_rest(lb_vlm *vlm) {
    lb_encoder_rest(vlm->encoder);
    if (vlm->layout.rest_context)
        lb_language_rest(vlm->language);
}

lb_status lb_vlm_encode(lb_vlm *vlm, const lb_tile_list *tiles, lb_embeddings **out, lb_error *error) {
    const int n_tiles = tiles->n;
    *out = NULL;
    lb_embeddings *embeddings = calloc(1, sizeof *embeddings);
    if (!embeddings)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory");
    embeddings->n_rows = (int64_t)n_tiles * vlm->info.tokens_per_tile;
    embeddings->id = ++vlm->n_encoded;
    embeddings->vlm = vlm;
    const size_t bytes = (size_t)embeddings->n_rows * (size_t)vlm->info.n_embd * sizeof(float);
    lb_status status = LB_STATUS_OK;
    if (vlm->spare.bytes >= bytes) {
        embeddings->rows = vlm->spare;
        vlm->spare = (lb_pinned){0};
    } else {
        lb_pinned_free(&vlm->spare);
        status = lb_pinned_alloc(vlm->device, bytes, LB_COMPONENT_EMBEDDINGS, &embeddings->rows, error);
    }
    double start = lb_now_s();
    lb_ledger_phase(LB_PHASE_ENCODE);
    lb_vlm_rest(vlm);
    if (status == LB_STATUS_OK)
        status = lb_encoder_run(vlm->encoder, tiles, embeddings->rows.data, error);
    lb_encoder_rest(vlm->encoder);
    if (status != LB_STATUS_OK) {
        lb_embeddings_free(embeddings);
        return status;
    }
    double seconds = lb_now_s() - start;
    lb_log(LB_LOG_INFO, "vlm", "encoded tiles=%d time_s=%.3f tiles_per_s=%.1f", n_tiles, seconds, n_tiles / seconds);
    *out = embeddings;
    return LB_STATUS_OK;
}

lb_status lb_vlm_borrow(lb_vlm *vlm, const float *rows, int64_t n_rows, lb_embeddings **out, lb_error *error) {
    lb_embeddings *embeddings = calloc(1, sizeof *embeddings);
    *out = embeddings;
    if (!embeddings)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory");
    /* no bytes and no buffer: nothing of it is ours to free */
    *embeddings = (lb_embeddings){.rows = {.data = (void *)rows}, .n_rows = n_rows, .id = ++vlm->n_encoded};
    return LB_STATUS_OK;
}

void lb_embeddings_own(lb_embeddings *embeddings) {
    embeddings->vlm = NULL;
}

size_t lb_embeddings_bytes(const lb_embeddings *embeddings) {
    return embeddings->rows.bytes;
}

void lb_vlm_release_spare(lb_vlm *vlm) {
    lb_pinned_free(&vlm->spare);
}

int64_t lb_embeddings_n_rows(const lb_embeddings *embeddings) {
    return embeddings->n_rows;
}

const float *lb_embeddings_rows(const lb_embeddings *embeddings) {
    return embeddings->rows.data;
}

void lb_embeddings_free(lb_embeddings *embeddings) {
    if (!embeddings)
        return;
    lb_vlm *vlm = embeddings->vlm;
    if (vlm && embeddings->rows.bytes > vlm->spare.bytes) {
        lb_pinned_free(&vlm->spare);
        vlm->spare = embeddings->rows;
    } else {
        lb_pinned_free(&embeddings->rows);
    }
    free(embeddings);
}

lb_status lb_vlm_reserve(lb_vlm *vlm, int n_cells, lb_error *error) {
    lb_ledger_phase(LB_PHASE_PROMPT);
    return lb_language_reserve(vlm->language, n_cells, error);
}

lb_status lb_vlm_prefix(lb_vlm *vlm, const int32_t *tokens, int n, const lb_embeddings *pictures, lb_error *error) {
    double start = lb_now_s();
    lb_ledger_phase(LB_PHASE_PROMPT);
    lb_status status = lb_language_prefix(vlm->language, tokens, n, pictures ? pictures->rows.data : NULL,
                                          pictures ? pictures->n_rows : 0, pictures ? pictures->id : 0, error);
    double seconds = lb_now_s() - start;
    if (status == LB_STATUS_OK && n > 0)
        lb_log(LB_LOG_INFO, "vlm", "prefix tokens=%d time_s=%.3f tokens_per_s=%.0f", n, seconds, n / seconds);
    return status;
}

lb_status lb_vlm_answer(lb_vlm *vlm, const lb_vlm_ask *asks, int n_asks, const lb_embeddings *pictures,
                        const int32_t *stop, int n_stop, lb_vlm_reply *replies, double *prompt_s, double *generate_s,
                        lb_error *error) {
    lb_ledger_phase(LB_PHASE_GENERATE);
    return lb_language_answer(vlm->language, asks, n_asks, pictures ? pictures->rows.data : NULL,
                              pictures ? pictures->n_rows : 0, stop, n_stop, replies, prompt_s, generate_s, error);
}

void lb_vlm_reply_free(lb_vlm_reply *reply) {
    free(reply->token);
    free(reply->logits);
    *reply = (lb_vlm_reply){0};
}
