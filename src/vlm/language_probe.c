/* What a language model would take on its devices. Weights and KV cache follow from the header and the devices' rules
 * for the sizes of tensors; libllama's activations come from libllama itself, with memory simulated (no_alloc). */
#include "vlm/language.h"

#include "base/error.h"
#include "nn/log.h"
#include "vlm/language_internal.h"
#include "vlm/quantize.h"

#include <stdlib.h>
#include <string.h>

enum {
    N_KEPT = 4,   /* simulated models: what a search goes to and fro between */
    N_KNOWN = 64, /* activations of contexts: most steps of a search change something else */
};

/* Activations of one simulated context. */
typedef struct known_context {
    const struct llama_model *model;
    int n_cells, n_ubatch, n_parallel;
    bool kv_q8, exact;
    size_t compute[LB_DEVICES_MAX + 1]; /* the host's behind the devices' */
} known_context;

struct lb_language_probe {
    lb_device device[LB_DEVICES_MAX];
    int n_devices;
    char *path;
    char architecture[64];
    lb_gguf *file;
    lb_language_shape shape;
    struct llama_model *model; /* simulated: one of those below */
    struct {
        struct llama_model *model;
        lb_vlm_layout layout;
    } kept[N_KEPT];
    int n_made;
    known_context known[N_KNOWN];
    int n_known; /* ever: the oldest goes */
    int n_head_kv, d_key, d_value;
};

/* The layer that a tensor belongs to; n_layer for the output; -1 for what stays in the mapped file or is not used. */
static int layer_of(const char *name, int n_layer) {
    if (strncmp(name, "blk.", 4) == 0)
        return atoi(name + 4);
    if (strncmp(name, "output", 6) == 0)
        return n_layer;
    return -1;
}

static bool is_matrix(const char *name) {
    static const char *const ends[] = {".attn_q.weight",   ".attn_k.weight", ".attn_v.weight",  ".attn_output.weight",
                                       ".ffn_gate.weight", ".ffn_up.weight", ".ffn_down.weight"};
    const size_t n = strlen(name);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (n > strlen(ends[i]) && strcmp(name + n - strlen(ends[i]), ends[i]) == 0)
            return true;
    return false;
}

/* As the buffer type counts a tensor, alignment included. */
static size_t tensor_bytes(ggml_backend_buffer_type_t type, const lb_gguf_tensor *t) {
    struct ggml_context *ctx =
        ggml_init((struct ggml_init_params){.mem_size = ggml_tensor_overhead(), .no_alloc = true});
    if (!ctx)
        return t->n_bytes;
    struct ggml_tensor *shape =
        ggml_new_tensor_4d(ctx, (enum ggml_type)t->type, t->ne[0], t->ne[1], t->ne[2], t->ne[3]);
    const size_t alignment = ggml_backend_buft_get_alignment(type);
    const size_t bytes = ggml_backend_buft_get_alloc_size(type, shape);
    ggml_free(ctx);
    return (bytes + alignment - 1) / alignment * alignment;
}

/* The device of a layer under a layout. */
static int place_of(const lb_vlm_layout *layout, int layer) {
    int last = 0;
    for (int i = 0, n = 0; i < layout->n_devices; i++) {
        n += layout->n_layers_on[i];
        if (layout->n_layers_on[i] > 0)
            last = i;
        if (layer < n)
            return i;
    }
    return last;
}

/* The type that lb_quantize gives a tensor (quantize.c). */
static void quantized(lb_gguf_tensor *t, int bits, bool is_output) {
    if (bits == 0 || (!is_matrix(t->name) && !is_output) || t->ne[1] == 1)
        return;
    t->type =
        strcmp(t->name, "token_embd.weight") == 0 ? (int)GGML_TYPE_Q8_0 : lb_quantize_type(bits, t->ne[0], is_output);
    t->n_bytes = ggml_row_size((enum ggml_type)t->type, t->ne[0]) * (size_t)t->ne[1];
}

/* On the CPU libllama's buffer is the part of the mapped file from the first tensor to the last. Of a file that is
 * still to be made: its tensors one after the other. */
static size_t mapped_bytes(const lb_gguf *file, int bits) {
    if (bits != 0) {
        size_t sum = 0, own = 0;
        for (size_t i = 0; i < lb_gguf_n_tensors(file); i++) {
            lb_gguf_tensor t;
            lb_gguf_tensor_at(file, i, &t);
            quantized(&t, bits, strncmp(t.name, "output.", 7) == 0 || strcmp(t.name, "token_embd.weight") == 0);
            own = t.n_bytes;
            sum += (own + 31) / 32 * 32; /* a GGUF file's alignment */
        }
        return sum - ((own + 31) / 32 * 32 - own);
    }
    const uint8_t *first = NULL, *end = NULL;
    for (size_t i = 0; i < lb_gguf_n_tensors(file); i++) {
        lb_gguf_tensor t;
        lb_gguf_tensor_at(file, i, &t);
        if (!first || (const uint8_t *)t.data < first)
            first = t.data;
        if ((const uint8_t *)t.data + t.n_bytes > end)
            end = (const uint8_t *)t.data + t.n_bytes;
    }
    return (size_t)(end - first);
}

static void add_weights(const lb_language_probe *probe, const lb_vlm_layout *layout, lb_language_sizes *sizes) {
    if (probe->device[0].is_cpu) {
        sizes->weights[0] = mapped_bytes(probe->file, layout->weight_bits);
        return;
    }
    const int n_layer = probe->shape.n_layer;
    ggml_backend_buffer_type_t host =
        ggml_backend_dev_buffer_type(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU));
    /* with pinned layers the file is not mapped, and libllama has a copy of the token embeddings */
    const bool has_copy = layout->n_host_layers > 0 && ggml_backend_dev_host_buffer_type(probe->device[0].handle);
    for (size_t i = 0; i < lb_gguf_n_tensors(probe->file); i++) {
        lb_gguf_tensor t;
        lb_gguf_tensor_at(probe->file, i, &t);
        int layer = layer_of(t.name, n_layer);
        const bool is_embd = strcmp(t.name, "token_embd.weight") == 0;
        if (is_embd && has_copy) {
            lb_gguf_tensor copy = t;
            quantized(&copy, layout->weight_bits, true);
            sizes->host_weights += tensor_bytes(host, &copy);
        }
        if (is_embd && !lb_language_has_output(probe->file))
            layer = n_layer; /* tied: the output has a copy of its own on the device */
        if (layer < 0)
            continue;
        quantized(&t, layout->weight_bits, layer == n_layer);
        if (layer < n_layer && layer < layout->n_host_layers && is_matrix(t.name)) {
            sizes->host_weights += tensor_bytes(host, &t);
            continue;
        }
        const int place = place_of(layout, layer);
        sizes->weights[place] += tensor_bytes(ggml_backend_dev_buffer_type(probe->device[place].handle), &t);
    }
}

static void add_kv(const lb_language_probe *probe, const lb_vlm_params *params, lb_language_sizes *sizes) {
    const enum ggml_type type = params->layout.kv_q8 ? GGML_TYPE_Q8_0 : params->exact ? GGML_TYPE_F32 : GGML_TYPE_F16;
    const int64_t n = params->layout.n_cells;
    lb_gguf_tensor k = {.type = (int)type, .ne = {(int64_t)probe->n_head_kv * probe->d_key, n, 1, 1}};
    lb_gguf_tensor v = {.type = (int)type, .ne = {(int64_t)probe->n_head_kv * probe->d_value, n, 1, 1}};
    for (int layer = 0; layer < probe->shape.n_layer; layer++) {
        const int place = place_of(&params->layout, layer);
        ggml_backend_buffer_type_t buft = ggml_backend_dev_buffer_type(probe->device[place].handle);
        sizes->kv[place] += tensor_bytes(buft, &k) + tensor_bytes(buft, &v);
    }
}

/* Whether libllama's activations are the same for two numbers of layers on the host: beside them it holds a copy of
 * what is on its way, which from a few layers up no longer depends on how many there are (tests/run/test_devices.py
 * holds plans against what is taken). Making a model anew for each number that the search tries would take seconds. */
static bool alike(int n_host_layers, int other) {
    enum { FEW = 3 };
    return n_host_layers == other || (n_host_layers >= FEW && other >= FEW);
}

static bool serves(const lb_vlm_layout *kept, const lb_vlm_layout *layout) {
    const size_t devices = offsetof(lb_vlm_layout, n_devices);
    return memcmp((const char *)kept + devices, (const char *)layout + devices, sizeof *kept - devices) == 0 &&
           alike(kept->n_host_layers, layout->n_host_layers);
}

/* The simulated model of a layout; the last ones are kept. */
static lb_status simulate(lb_language_probe *probe, const lb_vlm_params *params, lb_error *error) {
    for (int i = 0; i < N_KEPT; i++)
        if (probe->kept[i].model && serves(&probe->kept[i].layout, &params->layout)) {
            probe->model = probe->kept[i].model;
            return LB_STATUS_OK;
        }
    const int place = probe->n_made++ % N_KEPT;
    for (int i = 0; i < N_KNOWN; i++)
        if (probe->known[i].model == probe->kept[place].model)
            probe->known[i].model = NULL;
    llama_model_free(probe->kept[place].model);
    probe->kept[place].model = NULL;
    lb_language_scratch scratch;
    struct llama_model_params p =
        lb_language_model_params(params, probe->file, probe->device, probe->n_devices, probe->shape.n_layer, &scratch);
    p.no_alloc = true;
    p.load_mode = LLAMA_LOAD_MODE_NONE;
    /* Without the vocabulary, whose reading is most of the time: its size alone decides over memory. */
    struct llama_model_kv_override no_vocabulary[] = {
        {.tag = LLAMA_KV_OVERRIDE_TYPE_STR, .key = "tokenizer.ggml.model", .val_str = "no_vocab"},
        {.tag = LLAMA_KV_OVERRIDE_TYPE_INT, .val_i64 = probe->shape.n_vocab},
        {.key = ""}};
    snprintf(no_vocabulary[1].key, sizeof no_vocabulary[1].key, "%s.vocab_size", probe->architecture);
    p.kv_overrides = no_vocabulary;
    (void)lb_nn_last_log_error();
    probe->model = llama_model_load_from_file(probe->path, p);
    if (!probe->model)
        return lb_error_set(error, LB_STATUS_UNSUPPORTED, "%s: libllama cannot load this model (architecture '%s'): %s",
                            probe->path, probe->architecture, lb_nn_last_log_error());
    probe->kept[place].model = probe->model;
    probe->kept[place].layout = params->layout;
    return LB_STATUS_OK;
}

static int header_int(const lb_language_probe *probe, const char *name, int otherwise) {
    char key[128];
    snprintf(key, sizeof key, "%s.%s", probe->architecture, name);
    return (int)lb_gguf_int_or(probe->file, key, otherwise);
}

static lb_status read_shape(lb_language_probe *probe, const lb_vlm_params *params, lb_error *error) {
    lb_language_shape *shape = &probe->shape;
    lb_status status =
        lb_language_check_header(probe->file, params->model_path, probe->architecture, &shape->n_layer, error);
    if (status != LB_STATUS_OK)
        return status;
    shape->n_embd = header_int(probe, "embedding_length", 0);
    shape->n_ff = header_int(probe, "feed_forward_length", 4 * shape->n_embd);
    shape->n_ctx_train = header_int(probe, "context_length", 0);
    const int n_head = header_int(probe, "attention.head_count", 0);
    if (shape->n_embd < 1 || n_head < 1 || shape->n_ctx_train < 1)
        return lb_error_set(error, LB_STATUS_FORMAT,
                            "%s: the header has no '%s.embedding_length', '.context_length' or '.attention.head_count'",
                            params->model_path, probe->architecture);
    probe->n_head_kv = header_int(probe, "attention.head_count_kv", n_head);
    probe->d_key = header_int(probe, "attention.key_length", shape->n_embd / n_head);
    probe->d_value = header_int(probe, "attention.value_length", shape->n_embd / n_head);
    shape->n_vocab = (int)lb_gguf_array_n(probe->file, "tokenizer.ggml.tokens");
    shape->kv_cell_bytes = (size_t)probe->n_head_kv * (size_t)(probe->d_key + probe->d_value) * 2;
    ggml_backend_buffer_type_t buft = ggml_backend_dev_buffer_type(probe->device[0].handle);
    size_t *layer = calloc((size_t)shape->n_layer + 1, sizeof *layer);
    if (!layer)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", params->model_path);
    for (size_t i = 0; i < lb_gguf_n_tensors(probe->file); i++) {
        lb_gguf_tensor t;
        lb_gguf_tensor_at(probe->file, i, &t);
        const int at = layer_of(t.name, shape->n_layer);
        if (at >= 0 && at <= shape->n_layer)
            layer[at] += tensor_bytes(buft, &t);
        if (strcmp(t.name, "blk.0.ffn_up.weight") == 0)
            shape->is_quantized = ggml_is_quantized((enum ggml_type)t.type);
    }
    for (int i = 0; i < shape->n_layer; i++)
        if (layer[i] > shape->layer_bytes)
            shape->layer_bytes = layer[i];
    shape->output_bytes = layer[shape->n_layer];
    free(layer);
    return LB_STATUS_OK;
}

lb_status lb_language_probe_open(const lb_vlm_params *params, const lb_device *devices, int n_devices,
                                 lb_language_probe **out, lb_error *error) {
    *out = NULL;
    lb_language_probe *probe = calloc(1, sizeof *probe);
    if (!probe || !(probe->path = strdup(params->model_path))) {
        free(probe);
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", params->model_path);
    }
    memcpy(probe->device, devices, (size_t)n_devices * sizeof *devices);
    probe->n_devices = n_devices;
    lb_llama_log_route();
    lb_status status = lb_gguf_open(params->model_path, &probe->file, error);
    if (status == LB_STATUS_OK)
        status = read_shape(probe, params, error);
    if (status != LB_STATUS_OK)
        lb_language_probe_free(probe);
    else
        *out = probe;
    return status;
}

const lb_language_shape *lb_language_probe_shape(const lb_language_probe *probe) {
    return &probe->shape;
}

/* Has libllama plan a context of the simulated model. */
static lb_status simulate_context(const lb_language_probe *probe, const lb_vlm_params *params, known_context *context,
                                  lb_error *error) {
    const char *names[LB_DEVICES_MAX];
    for (int i = 0; i < probe->n_devices; i++)
        names[i] = probe->device[i].name;
    lb_llama_sizes got[LB_DEVICES_MAX + 1];
    lb_llama_sizes_begin(names, probe->n_devices);
    struct llama_context *ctx =
        llama_init_from_model(probe->model, lb_language_context_params(params, probe->device, params->layout.n_cells));
    lb_llama_sizes_end(got);
    if (!ctx)
        return lb_error_set(error, LB_STATUS_UNSUPPORTED, "%s: no context of %d tokens can be made: %s", probe->path,
                            params->layout.n_cells, lb_nn_last_log_error());
    llama_free(ctx);
    for (int i = 0; i <= probe->n_devices; i++)
        context->compute[i] = got[i].compute;
    return LB_STATUS_OK;
}

lb_status lb_language_probe_sizes(lb_language_probe *probe, const lb_vlm_params *params, lb_language_sizes *sizes,
                                  lb_error *error) {
    *sizes = (lb_language_sizes){0};
    add_weights(probe, &params->layout, sizes);
    add_kv(probe, params, sizes);
    lb_status status = simulate(probe, params, error);
    if (status != LB_STATUS_OK)
        return status;
    const known_context *context = NULL;
    for (int i = 0; i < N_KNOWN && !context; i++) {
        const known_context *k = &probe->known[i];
        if (k->model == probe->model && k->n_cells == params->layout.n_cells && k->n_ubatch == params->n_ubatch &&
            k->n_parallel == params->n_parallel && k->kv_q8 == params->layout.kv_q8 && k->exact == params->exact)
            context = k;
    }
    if (!context) {
        known_context made = {.model = probe->model,
                              .n_cells = params->layout.n_cells,
                              .n_ubatch = params->n_ubatch,
                              .n_parallel = params->n_parallel,
                              .kv_q8 = params->layout.kv_q8,
                              .exact = params->exact};
        status = simulate_context(probe, params, &made, error);
        if (status != LB_STATUS_OK)
            return status;
        known_context *place = &probe->known[probe->n_known++ % N_KNOWN];
        *place = made;
        context = place;
    }
    enum {
        ROUNDED_OFF = 5243
    }; /* libllama prints hundredths of a MiB: a budget must hold what it took half of one off */
    for (int i = 0; i < probe->n_devices; i++)
        sizes->compute[i] = context->compute[i] ? context->compute[i] + ROUNDED_OFF : 0;
    sizes->host_compute = context->compute[probe->n_devices];
    return LB_STATUS_OK;
}

void lb_language_probe_free(lb_language_probe *probe) {
    if (!probe)
        return;
    for (int i = 0; i < N_KEPT; i++)
        llama_model_free(probe->kept[i].model);
    lb_gguf_close(probe->file);
    free(probe->path);
    free(probe);
}
