#include "detector/model_internal.h"

#include "base/error.h"

#include <stdlib.h>
#include <string.h>

static void read_dim(const lb_gguf *file, const char *key, int most, int *value, lb_status *status, lb_error *error) {
    int64_t v = 0;
    if (*status != LB_STATUS_OK)
        return;
    *status = lb_gguf_int(file, key, &v, error);
    if (*status == LB_STATUS_OK && (v < 1 || v > most))
        *status = lb_error_set(error, LB_STATUS_FORMAT, "%s: '%s' is %lld, expected 1 to %d", lb_gguf_path(file), key,
                               (long long)v, most);
    *value = *status == LB_STATUS_OK ? (int)v : 0;
}

static void read_real(const lb_gguf *file, const char *key, float *value, lb_status *status, lb_error *error) {
    if (*status != LB_STATUS_OK)
        return;
    *status = lb_gguf_float(file, key, value, error);
    if (*status == LB_STATUS_OK && !(*value > 0 && *value < 1e6f))
        *status = lb_error_set(error, LB_STATUS_FORMAT, "%s: '%s' is %g, expected a positive number",
                               lb_gguf_path(file), key, (double)*value);
}

static void read_dims(const lb_gguf *file, const char *key, int most, int *values, int *n, lb_status *status,
                      lb_error *error) {
    if (*status != LB_STATUS_OK)
        return;
    *status = lb_gguf_ints(file, key, LB_GDINO_STAGES_MAX, values, n, error);
    for (int i = 0; i < *n && *status == LB_STATUS_OK; i++)
        if (values[i] < 1 || values[i] > most)
            *status = lb_error_set(error, LB_STATUS_FORMAT, "%s: '%s' holds %d, expected 1 to %d", lb_gguf_path(file),
                                   key, values[i], most);
}

static lb_status check_swin(const lb_gguf *file, const lb_swin_hparams *swin, int n_heads_given, lb_error *error) {
    const char *path = lb_gguf_path(file);
    if (n_heads_given != swin->n_stages)
        return lb_error_set(error, LB_STATUS_FORMAT, "%s: gdino.swin.depths has %d stages, gdino.swin.num_heads %d",
                            path, swin->n_stages, n_heads_given);
    for (int i = 0; i < swin->n_stages; i++)
        if ((swin->embed_dim << i) % swin->num_heads[i] != 0)
            return lb_error_set(error, LB_STATUS_FORMAT, "%s: Swin stage %d: %d channels for %d heads", path, i + 1,
                                swin->embed_dim << i, swin->num_heads[i]);
    for (int i = 0; i < swin->n_out; i++)
        if (swin->out_indices[i] > swin->n_stages || (i && swin->out_indices[i] <= swin->out_indices[i - 1]))
            return lb_error_set(error, LB_STATUS_FORMAT, "%s: gdino.swin.out_indices is not ascending within 1 to %d",
                                path, swin->n_stages);
    return LB_STATUS_OK;
}

static lb_status check(const lb_gguf *file, const lb_gdino_hparams *hp, int n_heads_given, lb_error *error) {
    const char *path = lb_gguf_path(file);
    lb_status status = check_swin(file, &hp->swin, n_heads_given, error);
    if (status != LB_STATUS_OK)
        return status;
    if (hp->d_model % 32 != 0)
        return lb_error_set(error, LB_STATUS_FORMAT, "%s: gdino.d_model is %d, no multiple of GroupNorm's 32 groups",
                            path, hp->d_model);
    if (hp->num_feature_levels < hp->swin.n_out)
        return lb_error_set(error, LB_STATUS_FORMAT, "%s: %d feature levels for %d maps of the backbone", path,
                            hp->num_feature_levels, hp->swin.n_out);
    /* the fusion and the text layers of the encoder take half of its heads and of its inner width */
    int half = hp->encoder_attention_heads / 2;
    if (half < 1 || hp->d_model % hp->encoder_attention_heads != 0 || hp->d_model % half != 0 ||
        hp->d_model % hp->decoder_attention_heads != 0 || hp->encoder_ffn_dim / 2 < 1 ||
        hp->encoder_ffn_dim / 2 % half != 0)
        return lb_error_set(error, LB_STATUS_FORMAT, "%s: heads that do not divide the widths: d_model %d, heads %d %d",
                            path, hp->d_model, hp->encoder_attention_heads, hp->decoder_attention_heads);
    if (hp->bert.hidden_size % hp->bert.num_attention_heads != 0)
        return lb_error_set(error, LB_STATUS_FORMAT, "%s: BERT's width %d for %d heads", path, hp->bert.hidden_size,
                            hp->bert.num_attention_heads);
    for (int i = 0; i < 3; i++)
        if (!(hp->std[i] > 0))
            return lb_error_set(error, LB_STATUS_FORMAT, "%s: gdino.preprocess.std is not positive", path);
    return LB_STATUS_OK;
}

lb_status lb_gdino_read_hparams(const lb_gguf *file, lb_gdino_hparams *hp, lb_error *error) {
    *hp = (lb_gdino_hparams){0};
    const char *arch;
    lb_status status = lb_gguf_string(file, "general.architecture", &arch, error);
    if (status == LB_STATUS_OK && strcmp(arch, "grounding-dino") != 0)
        status = lb_error_set(error, LB_STATUS_UNSUPPORTED,
                              "%s: architecture '%s' where a detector ('grounding-dino') belongs; `lowbeam convert` "
                              "makes one from the published folder",
                              lb_gguf_path(file), arch);
    const int layers = LB_GDINO_LAYERS_MAX, wide = 1 << 14;
    lb_swin_hparams *swin = &hp->swin;
    lb_bert_hparams *bert = &hp->bert;
    const struct {
        const char *key;
        int most;
        int *value;
    } dims[] = {
        {"gdino.d_model", 1 << 12, &hp->d_model},
        {"gdino.num_queries", 1 << 14, &hp->num_queries},
        {"gdino.num_feature_levels", LB_GDINO_LEVELS_MAX, &hp->num_feature_levels},
        {"gdino.max_text_len", 1 << 12, &hp->max_text_len},
        {"gdino.encoder_layers", layers, &hp->encoder_layers},
        {"gdino.encoder_ffn_dim", wide, &hp->encoder_ffn_dim},
        {"gdino.encoder_attention_heads", 64, &hp->encoder_attention_heads},
        {"gdino.encoder_n_points", 64, &hp->encoder_n_points},
        {"gdino.decoder_layers", layers, &hp->decoder_layers},
        {"gdino.decoder_ffn_dim", wide, &hp->decoder_ffn_dim},
        {"gdino.decoder_attention_heads", 64, &hp->decoder_attention_heads},
        {"gdino.decoder_n_points", 64, &hp->decoder_n_points},
        {"gdino.swin.embed_dim", 1 << 10, &swin->embed_dim},
        {"gdino.swin.window_size", 64, &swin->window_size},
        {"gdino.swin.patch_size", 64, &swin->patch_size},
        {"gdino.bert.hidden_size", wide, &bert->hidden_size},
        {"gdino.bert.num_hidden_layers", layers, &bert->num_hidden_layers},
        {"gdino.bert.num_attention_heads", 256, &bert->num_attention_heads},
        {"gdino.bert.intermediate_size", 1 << 16, &bert->intermediate_size},
        {"gdino.bert.vocab_size", 1 << 24, &bert->vocab_size},
        {"gdino.bert.max_position_embeddings", 1 << 16, &bert->max_position_embeddings},
        {"gdino.bert.type_vocab_size", 1 << 8, &bert->type_vocab_size},
    };
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
        read_dim(file, dims[i].key, dims[i].most, dims[i].value, &status, error);
    int n_heads_given = 0;
    read_dims(file, "gdino.swin.depths", layers, swin->depths, &swin->n_stages, &status, error);
    read_dims(file, "gdino.swin.num_heads", 1 << 8, swin->num_heads, &n_heads_given, &status, error);
    read_dims(file, "gdino.swin.out_indices", LB_GDINO_STAGES_MAX, swin->out_indices, &swin->n_out, &status, error);
    read_real(file, "gdino.swin.mlp_ratio", &swin->mlp_ratio, &status, error);
    read_real(file, "gdino.swin.layer_norm_eps", &swin->layer_norm_eps, &status, error);
    read_real(file, "gdino.bert.layer_norm_eps", &bert->layer_norm_eps, &status, error);
    read_real(file, "gdino.layer_norm_eps", &hp->layer_norm_eps, &status, error);
    int64_t temperature; /* an integer in config.json, which a converter may keep as such */
    if (lb_gguf_int(file, "gdino.positional_embedding_temperature", &temperature, NULL) == LB_STATUS_OK &&
        temperature > 0 && temperature < 1 << 24)
        hp->positional_embedding_temperature = (float)temperature;
    else
        read_real(file, "gdino.positional_embedding_temperature", &hp->positional_embedding_temperature, &status,
                  error);
    hp->decoder_bbox_embed_share = lb_gguf_bool_or(file, "gdino.decoder_bbox_embed_share", true);
    hp->exact = lb_gguf_bool_or(file, "gdino.exact", false);
    if (status == LB_STATUS_OK)
        status = lb_gguf_floats(file, "gdino.preprocess.mean", 3, hp->mean, error);
    if (status == LB_STATUS_OK)
        status = lb_gguf_floats(file, "gdino.preprocess.std", 3, hp->std, error);
    return status == LB_STATUS_OK ? check(file, hp, n_heads_given, error) : status;
}
