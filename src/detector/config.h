/* A Grounding DINO checkpoint's settings, from the published folder's config.json and preprocessor_config.json.
 *
 *     lb_gdino_config config;
 *     lb_gdino_config_read("grounding-dino-tiny", &config, &error);
 *
 * What a file leaves out has transformers' default; what this program does not do is refused by its name. */
#ifndef LB_DETECTOR_CONFIG_H
#define LB_DETECTOR_CONFIG_H

#include "detector/preprocess.h"
#include "lowbeam/status.h"

#include <stdbool.h>

enum { LB_GDINO_MAX_STAGES = 8, LB_GDINO_MAX_LEVELS = 8 };

/* Names are the config's own. */
typedef struct lb_gdino_config {
    int d_model, num_queries, num_feature_levels, max_text_len;
    int encoder_layers, encoder_attention_heads, encoder_ffn_dim, encoder_n_points;
    int decoder_layers, decoder_attention_heads, decoder_ffn_dim, decoder_n_points;
    int positional_embedding_temperature;
    double layer_norm_eps;
    bool decoder_bbox_embed_share; /* false: a head for each decoder layer */
    struct {
        int embed_dim, patch_size, num_channels, window_size, image_size, n_stages;
        int depths[LB_GDINO_MAX_STAGES], num_heads[LB_GDINO_MAX_STAGES]; /* [n_stages] */
        int n_out, out_indices[LB_GDINO_MAX_LEVELS];                     /* [n_out] stages from 1, ascending */
        double mlp_ratio, layer_norm_eps;
        bool qkv_bias;
    } swin;
    struct {
        int hidden_size, num_hidden_layers, num_attention_heads, intermediate_size;
        int max_position_embeddings, type_vocab_size, vocab_size;
        double layer_norm_eps;
    } bert;
    lb_preprocess_params preprocess;
} lb_gdino_config;

/* Errors: NOT_FOUND (a file), FORMAT (no JSON, a value of the wrong kind or out of range), UNSUPPORTED (a value that
 * asks for something else than the published models do). */
lb_status lb_gdino_config_read(const char *folder, lb_gdino_config *config, lb_error *error);

#endif
