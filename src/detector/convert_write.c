#include "base/error.h"
#include "detector/convert_internal.h"
#include "detector/names.h"

#include <errno.h>
#include <fcntl.h>
#include <ggml.h>
#include <gguf.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Values converted at a time. */
#define CHUNK ((int64_t)1 << 18)

static bool begins(const char *text, const char *with) {
    return strncmp(text, with, strlen(with)) == 0;
}

static bool ends(const char *text, const char *with) {
    size_t n = strlen(text), m = strlen(with);
    return n >= m && strcmp(text + n - m, with) == 0;
}

/* name: as in the GGUF. A box coordinate hangs on every bit of what makes it, and these heads are a thousandth of the
 * weights; what is added to f32 activations is f32, too. */
static enum ggml_type choose(const char *name, const lb_gdino_tensor *t, lb_convert_type type) {
    static const char *const added[] = {"rel_pos_table", "position_embeddings.weight", "token_type_embeddings.weight",
                                        "level_embed", "query_position_embeddings.weight"};
    static const char *const boxes[] = {"bbox_embed.", "encoder_output_bbox_embed.", "dec.reference_points_head."};
    if (t->n_dims < 2 || type == LB_CONVERT_F32)
        return GGML_TYPE_F32;
    for (size_t i = 0; i < sizeof added / sizeof *added; i++)
        if (ends(name, added[i]))
            return GGML_TYPE_F32;
    for (size_t i = 0; i < sizeof boxes / sizeof *boxes; i++)
        if (begins(name, boxes[i]))
            return GGML_TYPE_F32;
    /* 8 bits would move the points that are sampled. */
    bool places = strstr(name, ".sampling_offsets.") || strstr(name, ".attention_weights.");
    if (type == LB_CONVERT_Q8_0 && t->n_dims == 2 && t->shape[1] % 32 == 0 && !places)
        return GGML_TYPE_Q8_0;
    return GGML_TYPE_F16;
}

static void set_ints(struct gguf_context *g, const char *key, const int *values, int n) {
    gguf_set_arr_data(g, key, GGUF_TYPE_INT32, values, (size_t)n);
}

static void set_settings(struct gguf_context *g, const lb_gdino_config *c, lb_convert_type type) {
    static const uint32_t file_type[] = {
        [LB_CONVERT_F16] = 1, [LB_CONVERT_F32] = 0, [LB_CONVERT_Q8_0] = 7, [LB_CONVERT_F16_EXACT] = 1};
    gguf_set_val_str(g, "general.architecture", "grounding-dino");
    gguf_set_val_str(g, "general.name", "Grounding DINO");
    gguf_set_val_u32(g, "general.file_type", file_type[type]); /* llama.cpp's numbers */
    const struct {
        const char *key;
        int value;
    } numbers[] = {
        {"gdino.d_model", c->d_model},
        {"gdino.num_queries", c->num_queries},
        {"gdino.num_feature_levels", c->num_feature_levels},
        {"gdino.max_text_len", c->max_text_len},
        {"gdino.encoder_layers", c->encoder_layers},
        {"gdino.encoder_attention_heads", c->encoder_attention_heads},
        {"gdino.encoder_ffn_dim", c->encoder_ffn_dim},
        {"gdino.encoder_n_points", c->encoder_n_points},
        {"gdino.decoder_layers", c->decoder_layers},
        {"gdino.decoder_attention_heads", c->decoder_attention_heads},
        {"gdino.decoder_ffn_dim", c->decoder_ffn_dim},
        {"gdino.decoder_n_points", c->decoder_n_points},
        {"gdino.positional_embedding_temperature", c->positional_embedding_temperature},
        {"gdino.swin.embed_dim", c->swin.embed_dim},
        {"gdino.swin.patch_size", c->swin.patch_size},
        {"gdino.swin.num_channels", c->swin.num_channels},
        {"gdino.swin.window_size", c->swin.window_size},
        {"gdino.swin.image_size", c->swin.image_size},
        {"gdino.bert.hidden_size", c->bert.hidden_size},
        {"gdino.bert.num_hidden_layers", c->bert.num_hidden_layers},
        {"gdino.bert.num_attention_heads", c->bert.num_attention_heads},
        {"gdino.bert.intermediate_size", c->bert.intermediate_size},
        {"gdino.bert.max_position_embeddings", c->bert.max_position_embeddings},
        {"gdino.bert.type_vocab_size", c->bert.type_vocab_size},
        {"gdino.bert.vocab_size", c->bert.vocab_size},
        {"gdino.preprocess.shortest_edge", c->preprocess.shortest_edge},
        {"gdino.preprocess.longest_edge", c->preprocess.longest_edge},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        gguf_set_val_u32(g, numbers[i].key, (uint32_t)numbers[i].value);
    gguf_set_val_f32(g, "gdino.layer_norm_eps", (float)c->layer_norm_eps);
    gguf_set_val_f32(g, "gdino.swin.layer_norm_eps", (float)c->swin.layer_norm_eps);
    gguf_set_val_f32(g, "gdino.swin.mlp_ratio", (float)c->swin.mlp_ratio);
    gguf_set_val_f32(g, "gdino.bert.layer_norm_eps", (float)c->bert.layer_norm_eps);
    gguf_set_val_bool(g, "gdino.decoder_bbox_embed_share", c->decoder_bbox_embed_share);
    gguf_set_val_bool(g, "gdino.swin.qkv_bias", c->swin.qkv_bias);
    if (type == LB_CONVERT_F16_EXACT)
        gguf_set_val_bool(g, "gdino.exact", true);
    set_ints(g, "gdino.swin.depths", c->swin.depths, c->swin.n_stages);
    set_ints(g, "gdino.swin.num_heads", c->swin.num_heads, c->swin.n_stages);
    set_ints(g, "gdino.swin.out_indices", c->swin.out_indices, c->swin.n_out);
    gguf_set_arr_data(g, "gdino.preprocess.mean", GGUF_TYPE_FLOAT32, c->preprocess.mean, 3);
    gguf_set_arr_data(g, "gdino.preprocess.std", GGUF_TYPE_FLOAT32, c->preprocess.std, 3);
}

static lb_status set_vocabulary(struct gguf_context *g, const lb_wordpiece *vocabulary, lb_error *error) {
    size_t n = lb_wordpiece_n(vocabulary), total = 0, used = 0;
    for (size_t i = 0; i < n; i++)
        total += strlen(lb_wordpiece_token(vocabulary, (int32_t)i)) + 4;
    char *bytes = malloc(total);
    const char **token = calloc(n, sizeof *token);
    lb_status status =
        bytes && token ? LB_STATUS_OK : lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the vocabulary");
    for (size_t i = 0; i < n && status == LB_STATUS_OK; i++) {
        token[i] = bytes + used;
        status = lb_wordpiece_ggml_token(vocabulary, (int32_t)i, bytes + used, total - used, error);
        used += strlen(bytes + used) + 1;
    }
    if (status == LB_STATUS_OK) {
        static const struct {
            const char *key, *token;
        } special[] = {
            {"tokenizer.ggml.unknown_token_id", "[UNK]"},
            {"tokenizer.ggml.seperator_token_id", "[SEP]"}, /* llama.cpp's spelling */
            {"tokenizer.ggml.padding_token_id", "[PAD]"},
            {"tokenizer.ggml.cls_token_id", "[CLS]"},
            {"tokenizer.ggml.mask_token_id", "[MASK]"},
        };
        gguf_set_val_str(g, "tokenizer.ggml.model", "bert");
        gguf_set_arr_str(g, "tokenizer.ggml.tokens", token, n);
        for (size_t i = 0; i < sizeof special / sizeof *special; i++)
            if (lb_wordpiece_find(vocabulary, special[i].token) >= 0)
                gguf_set_val_u32(g, special[i].key, (uint32_t)lb_wordpiece_find(vocabulary, special[i].token));
    }
    free(token);
    free(bytes);
    return status;
}

static lb_status declare(struct gguf_context *g, struct ggml_context *ctx, const lb_gdino_tensor *t,
                         lb_convert_type type, enum ggml_type *chosen, lb_error *error) {
    char name[LB_GDINO_NAME_BYTES];
    lb_status status = lb_gdino_name(t->name, name, error);
    if (status != LB_STATUS_OK)
        return status;
    int64_t ne[4] = {1, 1, 1, 1};
    for (int d = 0; d < t->n_dims; d++)
        ne[d] = t->shape[t->n_dims - 1 - d];
    *chosen = choose(name, t, type);
    struct ggml_tensor *tensor = ggml_new_tensor(ctx, *chosen, t->n_dims, ne);
    ggml_set_name(tensor, name);
    gguf_add_tensor(g, tensor);
    return LB_STATUS_OK;
}

static lb_status write_bytes(FILE *file, const char *path, const void *bytes, size_t n, lb_error *error) {
    if (fwrite(bytes, 1, n, file) != n)
        return lb_error_set(error, LB_STATUS_IO, "%s: %s", path, strerror(errno));
    return LB_STATUS_OK;
}

/* The tensor's values in its type, and zeros up to GGUF's alignment. values, packed: [CHUNK + one row] */
static lb_status write_tensor(FILE *file, const char *path, const lb_gdino_tensor *t,
                              const lb_safetensors_tensor *source, enum ggml_type type, float *values, void *packed,
                              size_t *n_written, lb_error *error) {
    const int64_t row = t->shape[t->n_dims - 1];
    const int64_t step = type == GGML_TYPE_Q8_0 && row < CHUNK ? CHUNK / row * row : CHUNK;
    size_t written = 0;
    for (int64_t first = 0; first < source->n_elements;) {
        int64_t n = source->n_elements - first < step ? source->n_elements - first : step;
        lb_status status = lb_safetensors_f32(source, first, n, values, error);
        for (int64_t i = 0; i < n && status == LB_STATUS_OK; i++) {
            if (!isfinite(values[i]))
                status = lb_error_set(error, LB_STATUS_NOT_FINITE, "tensor %s: value %lld is %s; the file is damaged",
                                      source->name, (long long)(first + i), isnan(values[i]) ? "NaN" : "infinite");
            else if (type != GGML_TYPE_F32 && fabsf(values[i]) > 65504)
                status = lb_error_set(error, LB_STATUS_UNSUPPORTED,
                                      "tensor %s: value %lld, %g, is beyond f16; convert with --type f32", source->name,
                                      (long long)(first + i), (double)values[i]);
        }
        size_t bytes = ggml_row_size(type, n);
        const void *out = values;
        if (status == LB_STATUS_OK && type == GGML_TYPE_F16) {
            ggml_fp32_to_fp16_row(values, packed, n);
            out = packed;
        } else if (status == LB_STATUS_OK && type == GGML_TYPE_Q8_0) {
            ggml_quantize_chunk(type, values, packed, 0, 1, n, NULL); /* blocks of 32, whole rows: one long row */
            out = packed;
        }
        if (status == LB_STATUS_OK)
            status = write_bytes(file, path, out, bytes, error);
        if (status != LB_STATUS_OK)
            return status;
        written += bytes;
        first += n;
    }
    static const char zeros[GGUF_DEFAULT_ALIGNMENT];
    size_t padded = GGML_PAD(written, GGUF_DEFAULT_ALIGNMENT);
    *n_written += padded;
    return write_bytes(file, path, zeros, padded - written, error);
}

static lb_status write_all(FILE *file, const char *path, const struct gguf_context *g, const lb_gdino_tensors *list,
                           const lb_safetensors_tensor *const *source, const enum ggml_type *types,
                           const atomic_bool *cancel, size_t *n_bytes, lb_error *error) {
    size_t meta_bytes = gguf_get_meta_size(g);
    void *meta = malloc(meta_bytes), *packed = malloc((size_t)CHUNK * sizeof(float));
    float *values = malloc((size_t)CHUNK * sizeof *values);
    lb_status status =
        meta && packed && values ? LB_STATUS_OK : lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", path);
    if (status == LB_STATUS_OK) {
        gguf_get_meta_data(g, meta);
        status = write_bytes(file, path, meta, meta_bytes, error);
        *n_bytes = meta_bytes;
    }
    for (size_t i = 0; i < list->n && status == LB_STATUS_OK; i++) {
        if (cancel && *cancel)
            status = lb_error_set(error, LB_STATUS_INTERRUPTED, "%s: interrupted", path);
        else
            status = write_tensor(file, path, &list->tensor[i], source[i], types[i], values, packed, n_bytes, error);
    }
    free(meta);
    free(packed);
    free(values);
    return status;
}

/* On the disk under its name, or not at all. */
static lb_status publish(FILE *file, const char *temporary, const char *path, lb_error *error) {
    if (fflush(file) != 0 || fsync(fileno(file)) != 0 || rename(temporary, path) != 0)
        return lb_error_set(error, LB_STATUS_IO, "%s: %s", path, strerror(errno));
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path + 1) : 1, slash ? path : ".");
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) { /* the name, too; where a folder cannot be synced the file is whole all the same */
        (void)fsync(fd);
        close(fd);
    }
    return LB_STATUS_OK;
}

lb_status lb_convert_write(const char *out_path, lb_convert_type type, const lb_gdino_config *config,
                           const lb_wordpiece *vocabulary, const lb_gdino_tensors *list,
                           const lb_safetensors_tensor *const *source, const atomic_bool *cancel, size_t *n_bytes,
                           lb_error *error) {
    char temporary[PATH_MAX];
    if ((size_t)snprintf(temporary, sizeof temporary, "%s.XXXXXX", out_path) >= sizeof temporary)
        return lb_error_set(error, LB_STATUS_IO, "%s: the path is too long", out_path);
    lb_status status = LB_STATUS_OK;
    FILE *file = NULL;
    struct ggml_context *ctx = NULL;
    struct gguf_context *g = gguf_init_empty();
    enum ggml_type *types = calloc(list->n, sizeof *types);
    int fd = mkstemp(temporary);
    if (fd < 0) {
        status = lb_error_set(error, LB_STATUS_IO, "%s: cannot be written: %s", out_path, strerror(errno));
        goto cleanup;
    }
    mode_t mask = umask(0); /* mkstemp makes it readable for the owner alone */
    umask(mask);
    (void)fchmod(fd, 0666 & ~mask);
    file = fdopen(fd, "wb");
    if (!file)
        close(fd);
    ctx = ggml_init((struct ggml_init_params){.mem_size = (list->n + 1) * ggml_tensor_overhead(), .no_alloc = true});
    if (!file || !ctx || !g || !types) {
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory for its header", out_path);
        goto cleanup;
    }
    set_settings(g, config, type);
    status = set_vocabulary(g, vocabulary, error);
    for (size_t i = 0; i < list->n && status == LB_STATUS_OK; i++)
        status = declare(g, ctx, &list->tensor[i], type, &types[i], error);
    if (status == LB_STATUS_OK)
        status = write_all(file, temporary, g, list, source, types, cancel, n_bytes, error);
    if (status == LB_STATUS_OK)
        status = publish(file, temporary, out_path, error);
cleanup:
    if (file)
        fclose(file);
    if (fd >= 0 && status != LB_STATUS_OK)
        unlink(temporary);
    free(types);
    ggml_free(ctx);
    gguf_free(g);
    return status;
}
