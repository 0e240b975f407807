#include "vlm/language.h"

#include "base/error.h"
#include "base/log.h"
#include "memory/ledger.h"
#include "nn/log.h"
#include "vlm/language_internal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    CELLS_STEP = 256,       /* libllama pads the KV cache to this */
    CTX_TRAIN_MAX = 1 << 24 /* times the most questions at once it is still an int; models have up to 1 << 20 */
};

static lb_status check_header(lb_language *language, lb_error *error) {
    const char *path = language->params.model_path, *arch = NULL;
    lb_status status = lb_gguf_string(language->file, "general.architecture", &arch, error);
    if (status != LB_STATUS_OK)
        return status;
    if (strcmp(arch, "clip") == 0)
        return lb_error_set(error, LB_STATUS_UNSUPPORTED,
                            "%s: this is the vision part ('clip'); are --model and --mmproj exchanged?", path);
    snprintf(language->architecture, sizeof language->architecture, "%s", arch);
    /* on these libllama and ggml abort; what else a header can say that is wrong, libllama reports */
    enum { N_LAYER_MAX = 512 };
    char key[128];
    snprintf(key, sizeof key, "%s.block_count", language->architecture);
    const int64_t n_layer = lb_gguf_int_or(language->file, key, 1);
    if (n_layer < 1 || n_layer > N_LAYER_MAX)
        return lb_error_set(error, LB_STATUS_FORMAT, "%s: '%s' is %lld, expected 1 to %d", path, key,
                            (long long)n_layer, N_LAYER_MAX);
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", language->architecture);
    float eps = 0;
    if (lb_gguf_float(language->file, key, &eps, NULL) == LB_STATUS_OK && !(eps >= 0 && eps < 1))
        return lb_error_set(error, LB_STATUS_FORMAT, "%s: '%s' is %g, expected 0 to 1", path, key, (double)eps);
    if (!lb_gguf_find(language->file, "token_embd.weight", &language->token_embd))
        return lb_error_set(error, LB_STATUS_FORMAT, "%s: tensor token_embd.weight is missing", path);
    return LB_STATUS_OK;
}

static lb_status load_model(lb_language *language, lb_error *error) {
    const char *path = language->params.model_path;
    struct llama_model_params params = llama_model_default_params();
    ggml_backend_dev_t devices[2] = {language->device.is_cpu ? NULL : language->device.handle, NULL};
    params.devices = devices;
    params.n_gpu_layers = language->device.is_cpu ? 0 : -1;
    params.split_mode = LLAMA_SPLIT_MODE_NONE;
    lb_llama_log_route();
    (void)lb_nn_last_log_error(); /* of something else */
    lb_llama_sizes_begin(language->device.name);
    language->model = llama_model_load_from_file(path, params);
    language->sizes = lb_llama_sizes_end();
    if (!language->model)
        return lb_error_set(error, LB_STATUS_UNSUPPORTED, "%s: libllama cannot load this model (architecture '%s'): %s",
                            path, language->architecture, lb_nn_last_log_error());
    lb_ledger_add(LB_COMPONENT_LANGUAGE_WEIGHTS, language->sizes.weights);
    language->vocab = llama_model_get_vocab(language->model);
    language->n_embd = llama_model_n_embd_inp(language->model);
    language->n_vocab = llama_vocab_n_tokens(language->vocab);
    const int n_ctx_train = llama_model_n_ctx_train(language->model);
    if (n_ctx_train < 1 || n_ctx_train > CTX_TRAIN_MAX)
        return lb_error_set(error, LB_STATUS_FORMAT, "%s: '%s.context_length' is %u, expected 1 to %d", path,
                            language->architecture, (unsigned)n_ctx_train, CTX_TRAIN_MAX);
    enum llama_rope_type rope = llama_model_rope_type(language->model);
    if (rope != LLAMA_ROPE_TYPE_NEOX && rope != LLAMA_ROPE_TYPE_NORM)
        return lb_error_set(error, LB_STATUS_UNSUPPORTED,
                            "%s: architecture '%s' has positions of another kind than InternVL's language models", path,
                            language->architecture);
    if (language->token_embd.ne[0] != language->n_embd || language->token_embd.ne[1] != language->n_vocab)
        return lb_error_set(error, LB_STATUS_FORMAT,
                            "%s: tensor token_embd.weight is [%lld, %lld] where the header says %d tokens of width %d",
                            path, (long long)language->token_embd.ne[1], (long long)language->token_embd.ne[0],
                            language->n_vocab, language->n_embd);
    return LB_STATUS_OK;
}

static lb_status alloc_batch(lb_language *language, lb_error *error) {
    size_t n = (size_t)language->params.n_ubatch;
    language->embd = malloc(n * (size_t)language->n_embd * sizeof *language->embd);
    language->pos = calloc(n, sizeof *language->pos);
    language->seq = calloc(n, sizeof *language->seq);
    language->seq_id = calloc(n, sizeof *language->seq_id);
    language->n_seq_id = calloc(n, sizeof *language->n_seq_id);
    language->output = calloc(n, sizeof *language->output);
    if (!language->embd || !language->pos || !language->seq || !language->seq_id || !language->n_seq_id ||
        !language->output)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for a batch of %zu tokens", n);
    for (size_t i = 0; i < n; i++) {
        language->seq_id[i] = &language->seq[i];
        language->n_seq_id[i] = 1;
    }
    return LB_STATUS_OK;
}

lb_status lb_language_open(const lb_vlm_params *params, const lb_device *device, lb_language **out, lb_error *error) {
    *out = NULL;
    lb_language *language = calloc(1, sizeof *language);
    if (!language)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", params->model_path);
    language->params = *params;
    language->device = *device;
    lb_status status = lb_gguf_open(params->model_path, &language->file, error);
    if (status == LB_STATUS_OK)
        status = check_header(language, error);
    if (status == LB_STATUS_OK)
        status = load_model(language, error);
    if (status == LB_STATUS_OK)
        status = alloc_batch(language, error);
    if (status != LB_STATUS_OK)
        lb_language_free(language);
    else
        *out = language;
    return status;
}

static void free_context(lb_language *language) {
    if (!language->ctx)
        return;
    llama_free(language->ctx);
    language->ctx = NULL;
    language->n_cells = language->n_prefix = 0;
    language->n_prefix_rows = 0;
    lb_ledger_sub(LB_COMPONENT_LANGUAGE_KV, language->sizes.kv);
    lb_ledger_sub(LB_COMPONENT_LANGUAGE_COMPUTE, language->sizes.compute);
    language->sizes.kv = language->sizes.compute = 0;
}

void lb_language_free(lb_language *language) {
    if (!language)
        return;
    free_context(language);
    if (language->model) {
        llama_model_free(language->model);
        lb_ledger_sub(LB_COMPONENT_LANGUAGE_WEIGHTS, language->sizes.weights);
    }
    lb_gguf_close(language->file);
    free(language->prefix);
    free(language->embd);
    free(language->pos);
    free(language->seq);
    free(language->seq_id);
    free(language->n_seq_id);
    free(language->output);
    free(language);
}

int lb_language_n_embd(const lb_language *language) {
    return language->n_embd;
}

int lb_language_n_vocab(const lb_language *language) {
    return language->n_vocab;
}

int lb_language_n_ctx_train(const lb_language *language) {
    return llama_model_n_ctx_train(language->model);
}

const char *lb_language_architecture(const lb_language *language) {
    return language->architecture;
}

/* The libraries' pools grow with the first full batch: let that happen now, where it can still be reported. On the CPU
 * there are none, and a batch would cost seconds. */
static lb_status warm_up(lb_language *language, lb_error *error) {
    if (language->device.is_cpu)
        return LB_STATUS_OK;
    lb_status status = LB_STATUS_OK;
    int n = language->params.n_ubatch < language->n_cells ? language->params.n_ubatch : language->n_cells;
    for (int i = 0; i < n && status == LB_STATUS_OK; i++)
        status = lb_language_push(language, 0, NULL, i, 0, i == n - 1, error);
    if (status == LB_STATUS_OK)
        status = lb_language_evaluate(language, error);
    llama_synchronize(language->ctx);
    llama_memory_clear(llama_get_memory(language->ctx), false);
    return status;
}

static lb_llama_sizes init_context(lb_language *language, struct llama_context_params params) {
    (void)lb_nn_last_log_error();
    lb_llama_sizes_begin(language->device.name);
    language->ctx = llama_init_from_model(language->model, params);
    return lb_llama_sizes_end();
}

lb_status lb_language_reserve(lb_language *language, int n_cells, lb_error *error) {
    if (language->ctx && n_cells <= language->n_cells)
        return LB_STATUS_OK;
    /* the first size is exact; a second one leaves room, so that slowly growing videos do not rebuild it each time */
    const int64_t least = ((int64_t)n_cells + CELLS_STEP - 1) / CELLS_STEP * CELLS_STEP;
    int64_t wanted = language->ctx ? least + least / 8 / CELLS_STEP * CELLS_STEP : least;
    free_context(language); /* before the new one is made: loading never goes above what running needs */
    const lb_vlm_params *p = &language->params;
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = (uint32_t)wanted;
    params.n_batch = params.n_ubatch = (uint32_t)p->n_ubatch;
    params.n_seq_max = (uint32_t)p->n_parallel + 1;
    params.n_outputs_max = (uint32_t)p->n_parallel + 1;
    params.n_threads = params.n_threads_batch =
        p->n_threads > 0 ? p->n_threads : (int32_t)sysconf(_SC_NPROCESSORS_ONLN);
    /* Not on the CPU: with fewer than 64 rows ggml's CPU flash attention adds V up in f16, 3e-2 to 1e-1 off after some
     * thousand visual tokens. */
    bool flash = !p->exact && !language->device.is_cpu;
    params.flash_attn_type = flash ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    params.type_k = params.type_v = p->exact ? GGML_TYPE_F32 : GGML_TYPE_F16;
    params.kv_unified = true; /* sequences share the prefix's cells: a copy of it costs nothing */
    lb_llama_sizes got = init_context(language, params);
    if (!language->ctx && wanted > least) { /* the room beyond is a nicety */
        wanted = least;
        params.n_ctx = (uint32_t)least;
        got = init_context(language, params);
    }
    if (!language->ctx)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY,
                            "no room on %s for a context of %lld tokens (fewer --num-frames or --max-tiles need less, "
                            "and so do a lower --batch or --max-new-tokens): %s",
                            language->device.name, (long long)wanted, lb_nn_last_log_error());
    if (!llama_get_memory(language->ctx)) {
        llama_free(language->ctx);
        language->ctx = NULL;
        return lb_error_set(error, LB_STATUS_UNSUPPORTED, "%s: architecture '%s' has no KV cache: it generates no text",
                            p->model_path, language->architecture);
    }
    language->sizes.kv = got.kv;
    language->sizes.compute = got.compute;
    lb_ledger_add(LB_COMPONENT_LANGUAGE_KV, got.kv);
    lb_ledger_add(LB_COMPONENT_LANGUAGE_COMPUTE, got.compute);
    language->n_cells = (int)llama_n_ctx(language->ctx);
    lb_log(LB_LOG_INFO, "vlm", "context n_cells=%d kv_bytes=%zu compute_bytes=%zu", language->n_cells, got.kv,
           got.compute);
    return warm_up(language, error);
}
