#include "detector/tensors.h"

#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BACKBONE "model.backbone.conv_encoder.model."
#define BERT     "model.text_backbone."

/* Adds one tensor; after a failure (no memory) the list has n_allocated 0 and takes no more. A side of 0 ends the
 * shape. */
static void add(lb_gdino_tensors *list, const int64_t shape[4], const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void add(lb_gdino_tensors *list, const int64_t shape[4], const char *format, ...) {
    if (list->n == list->n_allocated) {
        size_t larger = list->n_allocated * 2;
        lb_gdino_tensor *t = larger ? realloc(list->tensor, larger * sizeof *t) : NULL;
        if (!t) {
            list->n_allocated = list->n = 0;
            return;
        }
        list->tensor = t;
        list->n_allocated = larger;
    }
    lb_gdino_tensor *t = &list->tensor[list->n++];
    *t = (lb_gdino_tensor){0};
    va_list args;
    va_start(args, format);
    vsnprintf(t->name, sizeof t->name, format, args);
    va_end(args);
    while (t->n_dims < 4 && shape[t->n_dims]) {
        t->shape[t->n_dims] = shape[t->n_dims];
        t->n_dims++;
    }
}

static void vector(lb_gdino_tensors *list, const char *prefix, const char *name, int64_t n) {
    add(list, (int64_t[4]){n}, "%s%s", prefix, name);
}

/* A Linear layer or Embedding of shape [out, in], with a bias [out] unless that is told apart. */
static void linear(lb_gdino_tensors *list, const char *prefix, const char *name, int64_t out, int64_t in) {
    add(list, (int64_t[4]){out, in}, "%s%s.weight", prefix, name);
    add(list, (int64_t[4]){out}, "%s%s.bias", prefix, name);
}

static void matrix(lb_gdino_tensors *list, const char *prefix, const char *name, int64_t rows, int64_t columns) {
    add(list, (int64_t[4]){rows, columns}, "%s%s", prefix, name);
}

static void norm(lb_gdino_tensors *list, const char *prefix, const char *name, int64_t n) {
    add(list, (int64_t[4]){n}, "%s%s.weight", prefix, name);
    add(list, (int64_t[4]){n}, "%s%s.bias", prefix, name);
}

static void swin(lb_gdino_tensors *list, const lb_gdino_config *c) {
    const int64_t embed = c->swin.embed_dim, window = 2 * c->swin.window_size - 1;
    char p[96];
    add(list, (int64_t[4]){embed, c->swin.num_channels, c->swin.patch_size, c->swin.patch_size},
        BACKBONE "embeddings.patch_embeddings.projection.weight");
    vector(list, BACKBONE, "embeddings.patch_embeddings.projection.bias", embed);
    norm(list, BACKBONE, "embeddings.norm", embed);
    for (int s = 0; s < c->swin.n_stages; s++) {
        const int64_t width = embed << s, mlp = (int64_t)(c->swin.mlp_ratio * (double)width);
        for (int b = 0; b < c->swin.depths[s]; b++) {
            snprintf(p, sizeof p, BACKBONE "encoder.layers.%d.blocks.%d.", s, b);
            norm(list, p, "layernorm_before", width);
            matrix(list, p, "attention.self.relative_position_bias_table", window * window, c->swin.num_heads[s]);
            static const char *const qkv[] = {"attention.self.query", "attention.self.key", "attention.self.value"};
            for (int i = 0; i < 3; i++) {
                add(list, (int64_t[4]){width, width}, "%s%s.weight", p, qkv[i]);
                if (c->swin.qkv_bias)
                    add(list, (int64_t[4]){width}, "%s%s.bias", p, qkv[i]);
            }
            linear(list, p, "attention.output.dense", width, width);
            norm(list, p, "layernorm_after", width);
            linear(list, p, "intermediate.dense", mlp, width);
            linear(list, p, "output.dense", width, mlp);
        }
        if (s + 1 < c->swin.n_stages) {
            snprintf(p, sizeof p, BACKBONE "encoder.layers.%d.downsample.", s);
            norm(list, p, "norm", 4 * width);
            matrix(list, p, "reduction.weight", 2 * width, 4 * width);
        }
    }
    for (int i = 0; i < c->swin.n_out; i++) {
        snprintf(p, sizeof p, "hidden_states_norms.stage%d", c->swin.out_indices[i]);
        norm(list, BACKBONE, p, embed << (c->swin.out_indices[i] - 1));
    }
}

static void bert(lb_gdino_tensors *list, const lb_gdino_config *c) {
    const int64_t width = c->bert.hidden_size;
    char p[96];
    matrix(list, BERT, "embeddings.word_embeddings.weight", c->bert.vocab_size, width);
    matrix(list, BERT, "embeddings.position_embeddings.weight", c->bert.max_position_embeddings, width);
    matrix(list, BERT, "embeddings.token_type_embeddings.weight", c->bert.type_vocab_size, width);
    norm(list, BERT, "embeddings.LayerNorm", width);
    for (int i = 0; i < c->bert.num_hidden_layers; i++) {
        snprintf(p, sizeof p, BERT "encoder.layer.%d.", i);
        linear(list, p, "attention.self.query", width, width);
        linear(list, p, "attention.self.key", width, width);
        linear(list, p, "attention.self.value", width, width);
        linear(list, p, "attention.output.dense", width, width);
        norm(list, p, "attention.output.LayerNorm", width);
        linear(list, p, "intermediate.dense", c->bert.intermediate_size, width);
        linear(list, p, "output.dense", width, c->bert.intermediate_size);
        norm(list, p, "output.LayerNorm", width);
    }
}

/* The backbone's levels through 1x1 convolutions; further levels by 3x3 ones with stride 2, the first of them from the
 * backbone's last level, the others from the level before. Each with a group norm. */
static void projections(lb_gdino_tensors *list, const lb_gdino_config *c) {
    char p[96];
    int64_t in = 0;
    for (int i = 0; i < c->num_feature_levels; i++) {
        bool own = i < c->swin.n_out;
        int64_t side = own ? 1 : 3;
        if (own)
            in = (int64_t)c->swin.embed_dim << (c->swin.out_indices[i] - 1);
        snprintf(p, sizeof p, "model.input_proj_vision.%d.", i);
        add(list, (int64_t[4]){c->d_model, in, side, side}, "%s0.weight", p);
        vector(list, p, "0.bias", c->d_model);
        norm(list, p, "1", c->d_model);
        if (!own)
            in = c->d_model;
    }
    linear(list, "model.", "text_projection", c->d_model, c->bert.hidden_size);
    matrix(list, "model.", "level_embed", c->num_feature_levels, c->d_model);
    matrix(list, "model.", "query_position_embeddings.weight", c->num_queries, c->d_model);
}

static void attention(lb_gdino_tensors *list, const char *prefix, const char *name, int64_t width) {
    static const char *const parts[] = {"query", "key", "value", "out_proj"};
    char p[128];
    snprintf(p, sizeof p, "%s%s.", prefix, name);
    for (int i = 0; i < 4; i++)
        linear(list, p, parts[i], width, width);
}

static void deformable(lb_gdino_tensors *list, const char *prefix, const char *name, int64_t width, int64_t heads,
                       int64_t levels, int64_t points) {
    char p[128];
    snprintf(p, sizeof p, "%s%s.", prefix, name);
    linear(list, p, "sampling_offsets", heads * levels * points * 2, width);
    linear(list, p, "attention_weights", heads * levels * points, width);
    linear(list, p, "value_proj", width, width);
    linear(list, p, "output_proj", width, width);
}

static void encoder(lb_gdino_tensors *list, const lb_gdino_config *c) {
    const int64_t width = c->d_model, half = c->encoder_ffn_dim / 2;
    char p[96];
    for (int i = 0; i < c->encoder_layers; i++) {
        snprintf(p, sizeof p, "model.encoder.layers.%d.text_enhancer_layer.", i);
        attention(list, p, "self_attn", width);
        linear(list, p, "fc1", half, width);
        linear(list, p, "fc2", width, half);
        norm(list, p, "layer_norm_before", width);
        norm(list, p, "layer_norm_after", width);
        snprintf(p, sizeof p, "model.encoder.layers.%d.fusion_layer.", i);
        vector(list, p, "vision_param", width);
        vector(list, p, "text_param", width);
        norm(list, p, "layer_norm_vision", width);
        norm(list, p, "layer_norm_text", width);
        static const char *const in[] = {"attn.vision_proj", "attn.text_proj", "attn.values_vision_proj",
                                         "attn.values_text_proj"};
        for (int k = 0; k < 4; k++)
            linear(list, p, in[k], half, width);
        linear(list, p, "attn.out_vision_proj", width, half);
        linear(list, p, "attn.out_text_proj", width, half);
        snprintf(p, sizeof p, "model.encoder.layers.%d.deformable_layer.", i);
        deformable(list, p, "self_attn", width, c->encoder_attention_heads, c->num_feature_levels, c->encoder_n_points);
        norm(list, p, "self_attn_layer_norm", width);
        linear(list, p, "fc1", c->encoder_ffn_dim, width);
        linear(list, p, "fc2", width, c->encoder_ffn_dim);
        norm(list, p, "final_layer_norm", width);
    }
}

static void box_head(lb_gdino_tensors *list, const char *prefix, int64_t width) {
    linear(list, prefix, "layers.0", width, width);
    linear(list, prefix, "layers.1", width, width);
    linear(list, prefix, "layers.2", 4, width);
}

static void decoder(lb_gdino_tensors *list, const lb_gdino_config *c) {
    const int64_t width = c->d_model;
    char p[96];
    for (int i = 0; i < c->decoder_layers; i++) {
        snprintf(p, sizeof p, "model.decoder.layers.%d.", i);
        attention(list, p, "self_attn", width);
        norm(list, p, "self_attn_layer_norm", width);
        attention(list, p, "encoder_attn_text", width);
        norm(list, p, "encoder_attn_text_layer_norm", width);
        deformable(list, p, "encoder_attn", width, c->decoder_attention_heads, c->num_feature_levels,
                   c->decoder_n_points);
        norm(list, p, "encoder_attn_layer_norm", width);
        linear(list, p, "fc1", c->decoder_ffn_dim, width);
        linear(list, p, "fc2", width, c->decoder_ffn_dim);
        norm(list, p, "final_layer_norm", width);
    }
    norm(list, "model.decoder.", "layer_norm", width);
    linear(list, "model.decoder.reference_points_head.", "layers.0", width, 2 * width);
    linear(list, "model.decoder.reference_points_head.", "layers.1", width, width);
    linear(list, "model.", "enc_output", width, width);
    norm(list, "model.", "enc_output_norm", width);
    box_head(list, "model.encoder_output_bbox_embed.", width);
    for (int i = 0; i < (c->decoder_bbox_embed_share ? 1 : c->decoder_layers); i++) {
        snprintf(p, sizeof p, "bbox_embed.%d.", i);
        box_head(list, p, width);
    }
}

lb_status lb_gdino_tensors_list(const lb_gdino_config *config, lb_gdino_tensors **out, lb_error *error) {
    *out = NULL;
    lb_gdino_tensors *list = calloc(1, sizeof *list);
    if (list && (list->tensor = malloc(1024 * sizeof *list->tensor)))
        list->n_allocated = 1024;
    if (list) {
        swin(list, config);
        bert(list, config);
        projections(list, config);
        encoder(list, config);
        decoder(list, config);
    }
    if (!list || !list->n_allocated) {
        lb_gdino_tensors_free(list);
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the list of the model's tensors");
    }
    *out = list;
    return LB_STATUS_OK;
}

void lb_gdino_tensors_free(lb_gdino_tensors *list) {
    if (!list)
        return;
    free(list->tensor);
    free(list);
}

bool lb_gdino_tensor_unused(const char *name) {
    static const char *const ends[] = {".relative_position_index", ".position_ids", ".num_batches_tracked",
                                       ".special_tokens"};
    static const char *const fronts[] = {BERT "pooler.", BACKBONE "layernorm.", BACKBONE "swin.layernorm."};
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (n > strlen(ends[i]) && strcmp(name + n - strlen(ends[i]), ends[i]) == 0)
            return true;
    for (size_t i = 0; i < sizeof fronts / sizeof *fronts; i++)
        if (strncmp(name, fronts[i], strlen(fronts[i])) == 0)
            return true;
    return false;
}
