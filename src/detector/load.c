#include "detector/model_internal.h"

#include "base/error.h"
#include "detector/names.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Weights are declared under the checkpoint's names (lb_gdino_name shortens them). Matrices keep the file's type; what
 * is added, multiplied or looked up by the host becomes f32, whatever the file holds. */
typedef struct declaration {
    const lb_gguf *file;
    lb_weights *weights;
    lb_status status;
    lb_error *error;
} declaration;

enum { NAME_BYTES = 256 };

static void print(char name[NAME_BYTES], const char *format, ...) __attribute__((format(printf, 2, 3)));
static void print(char name[NAME_BYTES], const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(name, NAME_BYTES, format, args);
    va_end(args);
}

/* prefix + suffix, shortened */
static bool shorten(declaration *d, const char *prefix, const char *suffix, char out[LB_GDINO_NAME_BYTES]) {
    char name[NAME_BYTES];
    print(name, "%s%s", prefix, suffix);
    if (d->status == LB_STATUS_OK)
        d->status = lb_gdino_name(name, out, d->error);
    return d->status == LB_STATUS_OK;
}

static struct ggml_tensor *matrix(declaration *d, const char *prefix, const char *suffix, int64_t ne0, int64_t ne1,
                                  int64_t ne2, int64_t ne3) {
    char name[LB_GDINO_NAME_BYTES];
    if (!shorten(d, prefix, suffix, name))
        return NULL;
    return lb_weights_add(d->weights, d->file, name, (int64_t[4]){ne0, ne1, ne2, ne3}, &d->status, d->error);
}

/* The values of a tensor of two dimensions at most, as f32; from malloc. */
static float *values(declaration *d, const char *name, int64_t ne0, int64_t ne1) {
    lb_gguf_tensor tensor;
    if (!lb_gguf_find(d->file, name, &tensor)) {
        d->status = lb_error_set(d->error, LB_STATUS_FORMAT, "%s: tensor %s is missing", lb_gguf_path(d->file), name);
        return NULL;
    }
    if (tensor.ne[0] != ne0 || tensor.ne[1] != ne1 || tensor.ne[2] != 1 || tensor.ne[3] != 1) {
        d->status = lb_error_set(d->error, LB_STATUS_FORMAT, "%s: tensor %s is [%lld, %lld], expected [%lld, %lld]",
                                 lb_gguf_path(d->file), name, (long long)tensor.ne[0], (long long)tensor.ne[1],
                                 (long long)ne0, (long long)ne1);
        return NULL;
    }
    float *out = malloc((size_t)(ne0 * ne1) * sizeof *out);
    if (!out)
        d->status = lb_error_set(d->error, LB_STATUS_OUT_OF_MEMORY, "no memory for tensor %s", name);
    for (int64_t i = 0; i < ne1 && d->status == LB_STATUS_OK; i++)
        d->status = lb_gguf_row(&tensor, i, out + i * ne0, d->error);
    if (d->status == LB_STATUS_OK)
        return out;
    free(out);
    return NULL;
}

/* In f32, ne = [ne0, ne1]. */
static struct ggml_tensor *table(declaration *d, const char *prefix, const char *suffix, int64_t ne0, int64_t ne1) {
    char name[LB_GDINO_NAME_BYTES];
    if (!shorten(d, prefix, suffix, name))
        return NULL;
    float *v = values(d, name, ne0, ne1);
    if (!v)
        return NULL;
    struct ggml_tensor *t =
        lb_weights_add_values(d->weights, name, (int64_t[4]){ne0, ne1, 1, 1}, v, &d->status, d->error);
    free(v);
    return t;
}

static lb_norm norm(declaration *d, const char *prefix, const char *name, int64_t n) {
    char full[NAME_BYTES];
    print(full, "%s%s", prefix, name);
    return (lb_norm){table(d, full, ".weight", n, 1), table(d, full, ".bias", n, 1)};
}

static lb_linear linear(declaration *d, const char *prefix, const char *name, int64_t in, int64_t out) {
    char full[NAME_BYTES];
    print(full, "%s%s", prefix, name);
    return (lb_linear){matrix(d, full, ".weight", in, out, 1, 1), table(d, full, ".bias", out, 1)};
}

/* Query, key and value of one input as one product. */
static lb_linear stacked(declaration *d, const char *prefix, const char *const part[3], int64_t n) {
    char weight[3][LB_GDINO_NAME_BYTES], suffix[64];
    const char *names[3];
    float *bias = malloc((size_t)(3 * n) * sizeof *bias);
    if (!bias && d->status == LB_STATUS_OK)
        d->status = lb_error_set(d->error, LB_STATUS_OUT_OF_MEMORY, "no memory for %sqkv", prefix);
    for (int i = 0; i < 3; i++) {
        char name[LB_GDINO_NAME_BYTES];
        names[i] = weight[i];
        snprintf(suffix, sizeof suffix, "%s.weight", part[i]);
        shorten(d, prefix, suffix, weight[i]);
        snprintf(suffix, sizeof suffix, "%s.bias", part[i]);
        float *v = shorten(d, prefix, suffix, name) ? values(d, name, n, 1) : NULL;
        if (v)
            memcpy(bias + i * n, v, (size_t)n * sizeof *v);
        free(v);
    }
    lb_linear out = {0};
    out.w = lb_weights_add_stacked(d->weights, d->file, names, 3, (int64_t[4]){n, n, 1, 1}, &d->status, d->error);
    out.b = lb_weights_add_values(d->weights, "qkv.bias", (int64_t[4]){3 * n, 1, 1, 1}, bias, &d->status, d->error);
    free(bias);
    return out;
}

static lb_mlp_head mlp_head(declaration *d, const char *prefix, int n, int64_t in, int64_t hidden, int64_t out) {
    lb_mlp_head head = {.n = n};
    for (int i = 0; i < n; i++) {
        char name[32];
        snprintf(name, sizeof name, ".layers.%d", i);
        head.layer[i] = linear(d, prefix, name, i == 0 ? in : hidden, i == n - 1 ? out : hidden);
    }
    return head;
}

static lb_attention attention(declaration *d, const char *prefix, int64_t n) {
    return (lb_attention){linear(d, prefix, "query", n, n), linear(d, prefix, "key", n, n),
                          linear(d, prefix, "value", n, n), linear(d, prefix, "out_proj", n, n)};
}

static lb_deformable deformable(declaration *d, const char *prefix, const lb_gdino_hparams *hp, int heads, int points) {
    const int64_t n = hp->d_model, samples = (int64_t)heads * hp->num_feature_levels * points;
    return (lb_deformable){linear(d, prefix, "sampling_offsets", n, 2 * samples),
                           linear(d, prefix, "attention_weights", n, samples),
                           linear(d, prefix, "value_proj", n, n),
                           linear(d, prefix, "output_proj", n, n),
                           heads,
                           points};
}

/* relative_position_bias_table, torch: [(2 window - 1)^2, heads], spread over the pairs of a window's positions as
 * SwinRelativePositionBias does, heads slowest. The index depends on the window's size alone. */
static struct ggml_tensor *position_bias(declaration *d, const char *prefix, int window, int heads) {
    char name[LB_GDINO_NAME_BYTES];
    const int64_t side = 2 * window - 1, n = (int64_t)window * window;
    if (!shorten(d, prefix, "attention.self.relative_position_bias_table", name))
        return NULL;
    float *v = values(d, name, heads, side * side), *bias = malloc((size_t)(n * n * heads) * sizeof *bias);
    if (!bias && d->status == LB_STATUS_OK)
        d->status = lb_error_set(d->error, LB_STATUS_OUT_OF_MEMORY, "no memory for %s", name);
    for (int64_t q = 0; q < n && v && bias; q++) {
        for (int64_t k = 0; k < n; k++) {
            int64_t dy = q / window - k / window + window - 1, dx = q % window - k % window + window - 1;
            for (int64_t h = 0; h < heads; h++)
                bias[(h * n + q) * n + k] = v[(dy * side + dx) * heads + h];
        }
    }
    struct ggml_tensor *t =
        lb_weights_add_values(d->weights, name, (int64_t[4]){n, n, heads, 1}, bias, &d->status, d->error);
    free(v);
    free(bias);
    return t;
}

static void add_swin(declaration *d, lb_gdino_model *model) {
    static const char *const qkv[3] = {"attention.self.query", "attention.self.key", "attention.self.value"};
    const char *root = "model.backbone.conv_encoder.model.";
    const lb_swin_hparams *hp = &model->hparams.swin;
    const int64_t patch = hp->patch_size;
    char at[NAME_BYTES];
    print(at, "%sembeddings.patch_embeddings.projection", root);
    model->patch.w = matrix(d, at, ".weight", patch, patch, 3, hp->embed_dim);
    model->patch.b = table(d, at, ".bias", hp->embed_dim, 1);
    model->patch_norm = norm(d, root, "embeddings.norm", hp->embed_dim);
    for (int i = 0; i < hp->n_stages; i++) {
        const int64_t n = (int64_t)hp->embed_dim << i, inner = (int64_t)(hp->mlp_ratio * (float)n);
        lb_swin_stage *stage = &model->stage[i];
        for (int k = 0; k < hp->depths[i]; k++) {
            lb_swin_block *block = &stage->block[k];
            print(at, "%sencoder.layers.%d.blocks.%d.", root, i, k);
            block->before = norm(d, at, "layernorm_before", n);
            block->qkv = stacked(d, at, qkv, n);
            block->bias = position_bias(d, at, hp->window_size, hp->num_heads[i]);
            block->out = linear(d, at, "attention.output.dense", n, n);
            block->after = norm(d, at, "layernorm_after", n);
            block->up = linear(d, at, "intermediate.dense", n, inner);
            block->down = linear(d, at, "output.dense", inner, n);
        }
        if (i + 1 < hp->n_stages) {
            print(at, "%sencoder.layers.%d.downsample.", root, i);
            stage->merge_norm = norm(d, at, "norm", 4 * n);
            stage->reduction.w = matrix(d, at, "reduction.weight", 4 * n, 2 * n, 1, 1);
        }
    }
    for (int i = 0; i < hp->n_out; i++) {
        int stage = hp->out_indices[i];
        print(at, "%shidden_states_norms.stage%d", root, stage);
        model->stage[stage - 1].out_norm = norm(d, at, "", (int64_t)hp->embed_dim << (stage - 1));
    }
}

static void add_projections(declaration *d, lb_gdino_model *model) {
    const lb_gdino_hparams *hp = &model->hparams;
    char at[NAME_BYTES];
    int64_t channels = 0;
    for (int i = 0; i < hp->num_feature_levels; i++) {
        const bool map = i < hp->swin.n_out;
        if (map)
            channels = (int64_t)hp->swin.embed_dim << (hp->swin.out_indices[i] - 1);
        print(at, "model.input_proj_vision.%d.", i);
        model->proj_w[i] = matrix(d, at, "0.weight", map ? 1 : 3, map ? 1 : 3, channels, hp->d_model);
        model->proj_b[i] = table(d, at, "0.bias", hp->d_model, 1);
        model->proj_norm[i] = norm(d, at, "1", hp->d_model);
        if (!map)
            channels = hp->d_model; /* the level after an extra one starts from that one */
    }
    model->level_embed = table(d, "model.level_embed", "", hp->d_model, hp->num_feature_levels);
}

static void add_encoder(declaration *d, lb_gdino_model *model) {
    const lb_gdino_hparams *hp = &model->hparams;
    const int64_t n = hp->d_model, ffn = hp->encoder_ffn_dim, embed = ffn / 2;
    char at[NAME_BYTES];
    for (int i = 0; i < hp->encoder_layers; i++) {
        lb_gdino_encoder_layer *layer = &model->encoder[i];
        print(at, "model.encoder.layers.%d.fusion_layer.", i);
        layer->fusion_vision_norm = norm(d, at, "layer_norm_vision", n);
        layer->fusion_text_norm = norm(d, at, "layer_norm_text", n);
        layer->vision_param = table(d, at, "vision_param", n, 1);
        layer->text_param = table(d, at, "text_param", n, 1);
        layer->vision_proj = linear(d, at, "attn.vision_proj", n, embed);
        layer->text_proj = linear(d, at, "attn.text_proj", n, embed);
        layer->values_vision_proj = linear(d, at, "attn.values_vision_proj", n, embed);
        layer->values_text_proj = linear(d, at, "attn.values_text_proj", n, embed);
        layer->out_vision_proj = linear(d, at, "attn.out_vision_proj", embed, n);
        layer->out_text_proj = linear(d, at, "attn.out_text_proj", embed, n);
        print(at, "model.encoder.layers.%d.text_enhancer_layer.self_attn.", i);
        layer->text_attn = attention(d, at, n);
        print(at, "model.encoder.layers.%d.text_enhancer_layer.", i);
        layer->text_fc1 = linear(d, at, "fc1", n, embed);
        layer->text_fc2 = linear(d, at, "fc2", embed, n);
        layer->text_norm_before = norm(d, at, "layer_norm_before", n);
        layer->text_norm_after = norm(d, at, "layer_norm_after", n);
        print(at, "model.encoder.layers.%d.deformable_layer.self_attn.", i);
        layer->self_attn = deformable(d, at, hp, hp->encoder_attention_heads, hp->encoder_n_points);
        print(at, "model.encoder.layers.%d.deformable_layer.", i);
        layer->self_attn_norm = norm(d, at, "self_attn_layer_norm", n);
        layer->fc1 = linear(d, at, "fc1", n, ffn);
        layer->fc2 = linear(d, at, "fc2", ffn, n);
        layer->final_norm = norm(d, at, "final_layer_norm", n);
    }
}

static void add_decoder(declaration *d, lb_gdino_model *model) {
    const lb_gdino_hparams *hp = &model->hparams;
    const int64_t n = hp->d_model, ffn = hp->decoder_ffn_dim;
    char at[NAME_BYTES];
    model->enc_output = linear(d, "model.", "enc_output", n, n);
    model->enc_output_norm = norm(d, "model.", "enc_output_norm", n);
    model->enc_bbox = mlp_head(d, "model.encoder_output_bbox_embed", 3, n, n, 4);
    model->query_embed = table(d, "model.query_position_embeddings", ".weight", n, hp->num_queries);
    for (int i = 0; i < hp->decoder_layers; i++) {
        lb_gdino_decoder_layer *layer = &model->decoder[i];
        print(at, "model.decoder.layers.%d.self_attn.", i);
        layer->self_attn = attention(d, at, n);
        print(at, "model.decoder.layers.%d.encoder_attn_text.", i);
        layer->text_attn = attention(d, at, n);
        print(at, "model.decoder.layers.%d.encoder_attn.", i);
        layer->cross_attn = deformable(d, at, hp, hp->decoder_attention_heads, hp->decoder_n_points);
        print(at, "model.decoder.layers.%d.", i);
        layer->self_attn_norm = norm(d, at, "self_attn_layer_norm", n);
        layer->text_attn_norm = norm(d, at, "encoder_attn_text_layer_norm", n);
        layer->cross_attn_norm = norm(d, at, "encoder_attn_layer_norm", n);
        layer->fc1 = linear(d, at, "fc1", n, ffn);
        layer->fc2 = linear(d, at, "fc2", ffn, n);
        layer->final_norm = norm(d, at, "final_layer_norm", n);
        print(at, "bbox_embed.%d", i);
        model->bbox[i] = i && hp->decoder_bbox_embed_share ? model->bbox[0] : mlp_head(d, at, 3, n, n, 4);
    }
    model->decoder_norm = norm(d, "model.decoder.", "layer_norm", n);
    model->reference_points_head = mlp_head(d, "model.decoder.reference_points_head", 2, 2 * n, n, n);
}

lb_status lb_gdino_declare(const lb_gguf *file, lb_gdino_model *model, lb_error *error) {
    declaration d = {.file = file, .error = error};
    d.status = lb_gdino_read_hparams(file, &model->hparams, error);
    if (d.status == LB_STATUS_OK)
        d.status = lb_weights_begin(&model->weights, lb_gguf_n_tensors(file) + 64, error);
    if (d.status != LB_STATUS_OK)
        return d.status;
    d.weights = model->weights;
    if (model->hparams.exact) {
        lb_weights_widen(d.weights);
        /* here, too: the plan declares a detector before the language model's CUDA starts, its opening comes after */
        setenv("NVIDIA_TF32_OVERRIDE", "0", 0);
    }
    add_swin(&d, model);
    add_projections(&d, model);
    add_encoder(&d, model);
    add_decoder(&d, model);
    return d.status;
}

lb_status lb_gdino_declare_bert(const lb_gguf *file, lb_gdino_model *model, lb_error *error) {
    static const char *const qkv[3] = {"query", "key", "value"};
    const lb_bert_hparams *hp = &model->hparams.bert;
    const int64_t n = hp->hidden_size;
    const char *root = "model.text_backbone.embeddings.";
    lb_bert *bert = &model->bert;
    declaration d = {.file = file, .error = error};
    d.status = lb_weights_begin(&bert->weights, (size_t)hp->num_hidden_layers * 16 + 16, error);
    if (d.status != LB_STATUS_OK)
        return d.status;
    d.weights = bert->weights;
    char at[NAME_BYTES];
    bert->word = matrix(&d, root, "word_embeddings.weight", n, hp->vocab_size, 1, 1);
    if (model->hparams.exact) /* of the words above rows are looked up, which is exact in any type */
        lb_weights_widen(d.weights);
    bert->position = table(&d, root, "position_embeddings.weight", n, hp->max_position_embeddings);
    bert->type = table(&d, root, "token_type_embeddings.weight", n, hp->type_vocab_size);
    bert->norm = norm(&d, root, "LayerNorm", n);
    for (int i = 0; i < hp->num_hidden_layers; i++) {
        lb_bert_layer *layer = &bert->layer[i];
        print(at, "model.text_backbone.encoder.layer.%d.attention.self.", i);
        layer->qkv = stacked(&d, at, qkv, n);
        print(at, "model.text_backbone.encoder.layer.%d.", i);
        layer->out = linear(&d, at, "attention.output.dense", n, n);
        layer->attention_norm = norm(&d, at, "attention.output.LayerNorm", n);
        layer->up = linear(&d, at, "intermediate.dense", n, hp->intermediate_size);
        layer->down = linear(&d, at, "output.dense", hp->intermediate_size, n);
        layer->output_norm = norm(&d, at, "output.LayerNorm", n);
    }
    bert->projection = linear(&d, "model.", "text_projection", n, model->hparams.d_model);
    return d.status;
}
