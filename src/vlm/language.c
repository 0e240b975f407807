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
    CTX_TRAIN_MAX = 1 << 24 /* times the most questions at once it is still an int; models have up to 1 << 20 */
};

lb_status lb_language_check_header(const lb_gguf *file, const char *path, char *architecture, int *n_layer,
                                   lb_error *error) {
    const char *arch = NULL;
    lb_status status = lb_gguf_string(file, "general.architecture", &arch, error);
    if (status != LB_STATUS_OK)
        return status;
    if (strcmp(arch, "clip") == 0)
        return lb_error_set(error, LB_STATUS_UNSUPPORTED,
                            "%s: this is the vision part ('clip'); are --model and --mmproj exchanged?", path);
    snprintf(architecture, 64, "%s", arch);
    /* on these libllama and ggml abort; what else a header can say that is wrong, libllama reports */
    enum { N_LAYER_MAX = 512 };
    char key[128];
    snprintf(key, sizeof key, "%s.block_count", architecture);
    const int64_t n = lb_gguf_int_or(file, key, 1);
    if (n < 1 || n > N_LAYER_MAX)
        return lb_error_set(error, LB_STATUS_FORMAT, "%s: '%s' is %lld, expected 1 to %d", path, key, (long long)n,
                            N_LAYER_MAX);
    *n_layer = (int)n;
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", architecture);
    float eps = 0;
    if (lb_gguf_float(file, key, &eps, NULL) == LB_STATUS_OK && !(eps >= 0 && eps < 1))
        return lb_error_set(error, LB_STATUS_FORMAT, "%s: '%s' is %g, expected 0 to 1", path, key, (double)eps);
    return LB_STATUS_OK;
}

bool lb_language_has_output(const lb_gguf *file) {
    lb_gguf_tensor t;
    return lb_gguf_find(file, "output.weight", &t);
}

struct llama_model_params lb_language_model_params(const lb_vlm_params *params, const lb_gguf *file,
                                                   const lb_device *devices, int n_devices, int n_layer,
                                                   lb_language_scratch *scratch) {
    const lb_vlm_layout *layout = &params->layout;
    struct llama_model_params p = llama_model_default_params();
    const bool on_cpu = devices[0].is_cpu;
    const int n = layout->n_devices > 0 && layout->n_devices <= n_devices ? layout->n_devices : 1;
    for (int i = 0; i < n; i++)
        scratch->devices[i] = on_cpu ? NULL : devices[i].handle;
    scratch->devices[n] = NULL;
    p.devices = scratch->devices;
    p.n_gpu_layers = on_cpu ? 0 : n_layer + 1;
    /* No second copy of 4-bit weights, repacked for the CPU: the mapped file serves as it is, and is all that is held.
     */
    p.use_extra_bufts = false;
    p.split_mode = n > 1 ? LLAMA_SPLIT_MODE_LAYER : LLAMA_SPLIT_MODE_NONE;
    if (n > 1) {
        /* libllama gives layer i to the first device whose running share is above i / n_layers: half a layer less on
         * the first and half more on the last keeps the borders away from rounding */
        for (int i = 0; i < n; i++)
            scratch->split[i] = (float)layout->n_layers_on[i] - (i == 0 ? 0.5f : 0.0f) + (i == n - 1 ? 0.5f : 0.0f);
        for (int i = n; i < LB_DEVICES_MAX; i++)
            scratch->split[i] = 0;
        p.tensor_split = scratch->split;
    }
    if (layout->n_host_layers > 0 && !on_cpu) {
        /* The matrices only: norms and biases are small and would make the graph hop between device and host. Keys and
         * values stay on the device, where attention is. Of several devices ggml has the first one work on them: they
         * are of its own layers. */
        int used = snprintf(scratch->pattern, sizeof scratch->pattern, "^blk\\.(");
        for (int i = 0; i < layout->n_host_layers && i < n_layer && used < (int)sizeof scratch->pattern; i++)
            used += snprintf(scratch->pattern + used, sizeof scratch->pattern - (size_t)used, "%s%d",
                             scratch->pattern[used - 1] == '(' ? "" : "|", i);
        if (used < (int)sizeof scratch->pattern)
            snprintf(scratch->pattern + used, sizeof scratch->pattern - (size_t)used,
                     ")\\.(attn_(q|k|v|output)|ffn_(gate|up|down))\\.weight$");
        ggml_backend_buffer_type_t cpu =
            ggml_backend_dev_buffer_type(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU));
        ggml_backend_buffer_type_t host = ggml_backend_dev_host_buffer_type(devices[0].handle);
        /* Of a mapped file libllama takes no pinned memory, and what is not pinned crosses at a seventh of the speed.
         * The token embeddings, which nothing here reads through libllama, are not pinned: they only have to be
         * somewhere. Where they are the output matrix as well, libllama's copy of that has their name and would stay
         * here, too: then they are pinned like the layers, and the copy is on the device. */
        if (host)
            p.load_mode = LLAMA_LOAD_MODE_NONE;
        scratch->override[0] = (struct llama_model_tensor_buft_override){scratch->pattern, host ? host : cpu};
        int n_overrides = 1;
        if (lb_language_has_output(file))
            scratch->override[n_overrides++] = (struct llama_model_tensor_buft_override){"^token_embd\\.weight$", cpu};
        scratch->override[n_overrides] = (struct llama_model_tensor_buft_override){NULL, NULL};
        p.tensor_buft_overrides = scratch->override;
    }
    return p;
}

static void names_of(const lb_language *language, const char **names) {
    for (int i = 0; i < language->n_devices; i++)
        names[i] = language->device[i].name;
}

static lb_status load_model(lb_language *language, int n_layer, lb_error *error) {
    const char *path = language->params.model_path, *names[LB_DEVICES_MAX];
    lb_language_scratch scratch;
    struct llama_model_params params = lb_language_model_params(&language->params, language->file, language->device,
                                                                language->n_devices, n_layer, &scratch);
    lb_llama_log_route();
    (void)lb_nn_last_log_error(); /* of something else */
    names_of(language, names);
    lb_llama_sizes_begin(names, language->n_devices);
    language->model = llama_model_load_from_file(path, params);
    lb_llama_sizes_end(language->sizes);
    if (!language->model)
        return lb_error_set(error, LB_STATUS_UNSUPPORTED, "%s: libllama cannot load this model (architecture '%s'): %s",
                            path, language->architecture, lb_nn_last_log_error());
    for (int i = 0; i < language->n_devices; i++)
        lb_ledger_add_on(i, LB_COMPONENT_LANGUAGE_WEIGHTS, language->sizes[i].weights);
    if (language->params.layout.n_host_layers > 0)
        lb_ledger_add(LB_COMPONENT_HOST_WEIGHTS, language->sizes[language->n_devices].weights);
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

lb_status lb_language_open(const lb_vlm_params *params, const lb_device *devices, int n_devices, lb_language **out,
                           lb_error *error) {
    *out = NULL;
    lb_language *language = calloc(1, sizeof *language);
    if (!language)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", params->model_path);
    language->params = *params;
    language->n_devices = n_devices;
    memcpy(language->device, devices, (size_t)n_devices * sizeof *devices);
    int n_layer = 0;
    lb_status status = lb_gguf_open(params->model_path, &language->file, error);
    if (status == LB_STATUS_OK)
        status = lb_language_check_header(language->file, params->model_path, language->architecture, &n_layer, error);
    if (status == LB_STATUS_OK && !lb_gguf_find(language->file, "token_embd.weight", &language->token_embd))
        status = lb_error_set(error, LB_STATUS_FORMAT, "%s: tensor token_embd.weight is missing", params->model_path);
    if (status == LB_STATUS_OK)
        status = load_model(language, n_layer, error);
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
    for (int i = 0; i < language->n_devices; i++) {
        lb_ledger_sub_on(i, LB_COMPONENT_LANGUAGE_KV, language->sizes[i].kv);
        lb_ledger_sub_on(i, LB_COMPONENT_LANGUAGE_COMPUTE, language->sizes[i].compute);
        language->sizes[i].kv = language->sizes[i].compute = 0;
    }
}

void lb_language_rest(lb_language *language) {
    free_context(language);
}

void lb_language_free(lb_language *language) {
    if (!language)
        return;
    free_context(language);
    if (language->model) {
        llama_model_free(language->model);
        for (int i = 0; i < language->n_devices; i++)
            lb_ledger_sub_on(i, LB_COMPONENT_LANGUAGE_WEIGHTS, language->sizes[i].weights);
        if (language->params.layout.n_host_layers > 0)
            lb_ledger_sub(LB_COMPONENT_HOST_WEIGHTS, language->sizes[language->n_devices].weights);
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
    if (language->device[0].is_cpu)
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

static void init_context(lb_language *language, struct llama_context_params params, lb_llama_sizes *got) {
    const char *names[LB_DEVICES_MAX];
    names_of(language, names);
    (void)lb_nn_last_log_error();
    lb_llama_sizes_begin(names, language->n_devices);
    language->ctx = llama_init_from_model(language->model, params);
    lb_llama_sizes_end(got);
}

struct llama_context_params lb_language_context_params(const lb_vlm_params *p, const lb_device *device,
                                                       int64_t n_cells) {
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = (uint32_t)n_cells;
    params.n_batch = params.n_ubatch = (uint32_t)p->n_ubatch;
    params.n_seq_max = (uint32_t)p->n_parallel + 1;
    params.n_outputs_max = (uint32_t)p->n_parallel + 1;
    params.n_threads = params.n_threads_batch =
        p->n_threads > 0 ? p->n_threads : (int32_t)sysconf(_SC_NPROCESSORS_ONLN);
    /* Not on the CPU: with fewer than 64 rows ggml's CPU flash attention adds V up in f16, 3e-2 to 1e-1 off after some
     * thousand visual tokens. A q8_0 cache has it all the same: libllama takes quantized values with it alone. */
    bool flash = (!p->exact && !device->is_cpu) || p->layout.kv_q8;
    params.flash_attn_type = flash ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    params.type_k = params.type_v = p->layout.kv_q8 ? GGML_TYPE_Q8_0 : p->exact ? GGML_TYPE_F32 : GGML_TYPE_F16;
    params.kv_unified = true; /* sequences share the prefix's cells: a copy of it costs nothing */
    return params;
}

/* Cells for n_cells tokens. Planned, the first time gives all there will ever be; else the first size is exact and a
 * second one leaves room, so that slowly growing videos do not rebuild it each time. */
static int64_t choose_cells(const lb_language *language, int n_cells, int64_t *least) {
    *least = ((int64_t)n_cells + LB_CELLS_STEP - 1) / LB_CELLS_STEP * LB_CELLS_STEP;
    if (language->params.layout.n_cells > 0)
        return *least = language->params.layout.n_cells;
    return language->ctx ? *least + *least / 8 / LB_CELLS_STEP * LB_CELLS_STEP : *least;
}

lb_status lb_language_reserve(lb_language *language, int n_cells, lb_error *error) {
    if (language->ctx && n_cells <= language->n_cells)
        return LB_STATUS_OK;
    const lb_vlm_params *p = &language->params;
    if (p->layout.n_cells > 0 && n_cells > p->layout.n_cells)
        return lb_error_set(error, LB_STATUS_DOES_NOT_FIT,
                            "%d tokens, the plan has a KV cache of %d (a larger --vram, fewer --num-frames or "
                            "--max-tiles, a lower --batch or --max-new-tokens would do)",
                            n_cells, p->layout.n_cells);
    int64_t least, wanted = choose_cells(language, n_cells, &least);
    free_context(language); /* before the new one is made: loading never goes above what running needs */
    lb_llama_sizes got[LB_DEVICES_MAX + 1];
    struct llama_context_params params = lb_language_context_params(p, language->device, wanted);
    init_context(language, params, got);
    if (!language->ctx && wanted > least) { /* the room beyond is a nicety */
        wanted = least;
        params.n_ctx = (uint32_t)least;
        init_context(language, params, got);
    }
    if (!language->ctx)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY,
                            "no room on %s for a context of %lld tokens (fewer --num-frames or --max-tiles need less, "
                            "and so do a lower --batch or --max-new-tokens): %s",
                            language->device[0].name, (long long)wanted, lb_nn_last_log_error());
    if (!llama_get_memory(language->ctx)) {
        llama_free(language->ctx);
        language->ctx = NULL;
        return lb_error_set(error, LB_STATUS_UNSUPPORTED, "%s: architecture '%s' has no KV cache: it generates no text",
                            p->model_path, language->architecture);
    }
    for (int i = 0; i < language->n_devices; i++) {
        language->sizes[i].kv = got[i].kv;
        language->sizes[i].compute = got[i].compute;
        lb_ledger_add_on(i, LB_COMPONENT_LANGUAGE_KV, got[i].kv);
        lb_ledger_add_on(i, LB_COMPONENT_LANGUAGE_COMPUTE, got[i].compute);
    }
    language->n_cells = (int)llama_n_ctx(language->ctx);
    lb_log(LB_LOG_INFO, "vlm", "context n_cells=%d kv_bytes=%zu compute_bytes=%zu", language->n_cells, got[0].kv,
           got[0].compute);
    return warm_up(language, error);
}
