#include "detector/config.h"

#include "base/error.h"
#include "base/file.h"

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_JSON_BYTES ((size_t)16 << 20)

/* One object of one file; the first fault stays in status, so that a list of values is checked once at its end. */
typedef struct reader {
    const char *path, *part; /* part: "backbone_config." before a key in messages, or "" */
    const json_t *object;
    lb_status status;
    lb_error *error;
} reader;

static void fault(reader *r, lb_status status, const char *key, const char *what) {
    if (r->status == LB_STATUS_OK)
        r->status = lb_error_set(r->error, status, "%s: '%s%s' %s", r->path, r->part, key, what);
}

static int read_int(reader *r, const char *key, int least, int most, int otherwise) {
    const json_t *v = json_object_get(r->object, key);
    if (!v)
        return otherwise;
    if (!json_is_integer(v) || json_integer_value(v) < least || json_integer_value(v) > most) {
        char what[80];
        snprintf(what, sizeof what, "is no whole number from %d to %d", least, most);
        fault(r, LB_STATUS_FORMAT, key, what);
        return otherwise;
    }
    return (int)json_integer_value(v);
}

static double read_number(reader *r, const char *key, double otherwise) {
    const json_t *v = json_object_get(r->object, key);
    if (!v)
        return otherwise;
    if (!json_is_number(v) || !(json_number_value(v) > 0) || !(json_number_value(v) < 1e6)) {
        fault(r, LB_STATUS_FORMAT, key, "is no number above 0");
        return otherwise;
    }
    return json_number_value(v);
}

static bool read_bool(reader *r, const char *key, bool otherwise) {
    const json_t *v = json_object_get(r->object, key);
    if (v && !json_is_boolean(v))
        fault(r, LB_STATUS_FORMAT, key, "is neither true nor false");
    return v && json_is_boolean(v) ? json_is_true(v) : otherwise;
}

/* Up to most whole numbers from 1 to 65536; *n of them. Missing: what values and *n hold stays. */
static void read_ints(reader *r, const char *key, int most, int *n, int *values) {
    const json_t *v = json_object_get(r->object, key);
    if (!v || json_is_null(v))
        return;
    if (!json_is_array(v) || json_array_size(v) < 1 || json_array_size(v) > (size_t)most) {
        fault(r, LB_STATUS_FORMAT, key, "is no list of one to eight numbers");
        return;
    }
    *n = (int)json_array_size(v);
    for (int i = 0; i < *n; i++) {
        const json_t *one = json_array_get(v, (size_t)i);
        if (!json_is_integer(one) || json_integer_value(one) < 1 || json_integer_value(one) > 65536)
            fault(r, LB_STATUS_FORMAT, key, "has something else than whole numbers from 1 to 65536");
        else
            values[i] = (int)json_integer_value(one);
    }
}

static void read_three(reader *r, const char *key, float values[3]) {
    const json_t *v = json_object_get(r->object, key);
    if (!v)
        return;
    bool good = json_is_array(v) && json_array_size(v) == 3;
    for (size_t i = 0; i < 3 && good; i++) {
        const json_t *one = json_array_get(v, i);
        good = json_is_number(one) && isfinite(json_number_value(one)) && fabs(json_number_value(one)) < 1e6;
        if (good)
            values[i] = (float)json_number_value(one);
    }
    if (!good)
        fault(r, LB_STATUS_FORMAT, key, "is no list of three numbers");
}

static void want_text(reader *r, const char *key, const char *wanted) {
    const json_t *v = json_object_get(r->object, key);
    char what[128];
    snprintf(what, sizeof what, "is not \"%s\", the only one that is supported", wanted);
    if (v && (!json_is_string(v) || strcmp(json_string_value(v), wanted) != 0))
        fault(r, LB_STATUS_UNSUPPORTED, key, what);
}

static void want_bool(reader *r, const char *key, bool wanted) {
    if (read_bool(r, key, wanted) != wanted)
        fault(r, LB_STATUS_UNSUPPORTED, key,
              wanted ? "is not true; nothing else is supported" : "is not false; nothing else is supported");
}

static reader inner(reader *r, const char *key, const char *part) {
    const json_t *v = json_object_get(r->object, key);
    if (v && !json_is_object(v))
        fault(r, LB_STATUS_FORMAT, key, "is no object");
    return (reader){r->path, part, json_is_object(v) ? v : NULL, r->status, r->error};
}

static void read_swin(reader *r, lb_gdino_config *c) {
    static const int depths[] = {2, 2, 6, 2}, heads[] = {3, 6, 12, 24}, out[] = {2, 3, 4};
    want_text(r, "model_type", "swin");
    want_text(r, "hidden_act", "gelu");
    want_bool(r, "use_absolute_embeddings", false);
    c->swin.embed_dim = read_int(r, "embed_dim", 1, 4096, 96);
    c->swin.patch_size = read_int(r, "patch_size", 1, 64, 4);
    c->swin.num_channels = read_int(r, "num_channels", 3, 3, 3);
    c->swin.window_size = read_int(r, "window_size", 1, 64, 7);
    c->swin.image_size = read_int(r, "image_size", 1, 65536, 224);
    c->swin.mlp_ratio = read_number(r, "mlp_ratio", 4);
    c->swin.layer_norm_eps = read_number(r, "layer_norm_eps", 1e-5);
    c->swin.qkv_bias = read_bool(r, "qkv_bias", true);
    int n_heads = c->swin.n_stages = 4;
    c->swin.n_out = 3;
    memcpy(c->swin.depths, depths, sizeof depths);
    memcpy(c->swin.num_heads, heads, sizeof heads);
    memcpy(c->swin.out_indices, out, sizeof out);
    read_ints(r, "depths", LB_GDINO_MAX_STAGES, &c->swin.n_stages, c->swin.depths);
    read_ints(r, "num_heads", LB_GDINO_MAX_STAGES, &n_heads, c->swin.num_heads);
    read_ints(r, "out_indices", LB_GDINO_MAX_LEVELS, &c->swin.n_out, c->swin.out_indices);
    if (n_heads != c->swin.n_stages)
        fault(r, LB_STATUS_FORMAT, "num_heads", "is not as long as 'depths'");
    for (int s = 0; s < c->swin.n_stages && s < n_heads; s++)
        if (((int64_t)c->swin.embed_dim << s) % c->swin.num_heads[s] != 0 || c->swin.depths[s] > 256)
            fault(r, LB_STATUS_FORMAT, "num_heads", "does not divide the width, or a depth is above 256");
    for (int i = 0; i < c->swin.n_out; i++)
        if (c->swin.out_indices[i] > c->swin.n_stages || (i && c->swin.out_indices[i] <= c->swin.out_indices[i - 1]))
            fault(r, LB_STATUS_FORMAT, "out_indices", "is no ascending list of stages");
    if (c->swin.mlp_ratio > 64)
        fault(r, LB_STATUS_FORMAT, "mlp_ratio", "is above 64");
}

static void read_bert(reader *r, lb_gdino_config *c) {
    want_text(r, "model_type", "bert");
    want_text(r, "hidden_act", "gelu");
    want_text(r, "position_embedding_type", "absolute");
    c->bert.hidden_size = read_int(r, "hidden_size", 1, 16384, 768);
    c->bert.num_hidden_layers = read_int(r, "num_hidden_layers", 1, 256, 12);
    c->bert.num_attention_heads = read_int(r, "num_attention_heads", 1, 1024, 12);
    c->bert.intermediate_size = read_int(r, "intermediate_size", 1, 65536, 3072);
    c->bert.max_position_embeddings = read_int(r, "max_position_embeddings", 1, 65536, 512);
    c->bert.type_vocab_size = read_int(r, "type_vocab_size", 1, 64, 2);
    c->bert.vocab_size = read_int(r, "vocab_size", 1030, 4194304, 30522); /* token 1029 is '?', which the model knows */
    c->bert.layer_norm_eps = read_number(r, "layer_norm_eps", 1e-12);
    if (c->bert.hidden_size % c->bert.num_attention_heads != 0)
        fault(r, LB_STATUS_FORMAT, "num_attention_heads", "does not divide 'hidden_size'");
}

static void read_top(reader *r, lb_gdino_config *c) {
    want_text(r, "model_type", "grounding-dino");
    want_text(r, "activation_function", "relu");
    want_text(r, "position_embedding_type", "sine");
    want_bool(r, "two_stage", true);
    want_bool(r, "embedding_init_target", true);
    c->d_model = read_int(r, "d_model", 8, 16384, 256);
    c->num_queries = read_int(r, "num_queries", 1, 65536, 900);
    c->num_feature_levels = read_int(r, "num_feature_levels", 1, LB_GDINO_MAX_LEVELS, 4);
    c->max_text_len = read_int(r, "max_text_len", 4, 65536, 256);
    c->encoder_layers = read_int(r, "encoder_layers", 1, 256, 6);
    c->encoder_attention_heads = read_int(r, "encoder_attention_heads", 2, 1024, 8);
    c->encoder_ffn_dim = read_int(r, "encoder_ffn_dim", 2, 65536, 2048);
    c->encoder_n_points = read_int(r, "encoder_n_points", 1, 64, 4);
    c->decoder_layers = read_int(r, "decoder_layers", 1, 256, 6);
    c->decoder_attention_heads = read_int(r, "decoder_attention_heads", 1, 1024, 8);
    c->decoder_ffn_dim = read_int(r, "decoder_ffn_dim", 1, 65536, 2048);
    c->decoder_n_points = read_int(r, "decoder_n_points", 1, 64, 4);
    c->positional_embedding_temperature = read_int(r, "positional_embedding_temperature", 1, 1000000, 20);
    c->layer_norm_eps = read_number(r, "layer_norm_eps", 1e-5);
    c->decoder_bbox_embed_share = read_bool(r, "decoder_bbox_embed_share", true);
    if (read_int(r, "query_dim", 1, 4, 4) != 4)
        fault(r, LB_STATUS_UNSUPPORTED, "query_dim", "is not 4; nothing else is supported");
    if (c->d_model % c->encoder_attention_heads != 0 || c->d_model % c->decoder_attention_heads != 0 ||
        c->d_model % 4 != 0)
        fault(r, LB_STATUS_FORMAT, "d_model", "is not divided by the numbers of heads and by 4");
    if (c->encoder_attention_heads % 2 != 0 || (c->encoder_ffn_dim / 2) % (c->encoder_attention_heads / 2) != 0)
        fault(r, LB_STATUS_FORMAT, "encoder_attention_heads", "is odd, or does not divide 'encoder_ffn_dim'");
    reader swin = inner(r, "backbone_config", "backbone_config.");
    read_swin(&swin, c);
    r->status = swin.status;
    reader bert = inner(r, "text_config", "text_config.");
    read_bert(&bert, c);
    r->status = bert.status;
    if (c->num_feature_levels < c->swin.n_out)
        fault(r, LB_STATUS_FORMAT, "num_feature_levels", "is below the number of the backbone's levels");
}

static void read_preprocess(reader *r, lb_preprocess_params *p) {
    *p = lb_preprocess_default_params();
    want_bool(r, "do_resize", true);
    want_bool(r, "do_rescale", true);
    want_bool(r, "do_normalize", true);
    want_bool(r, "do_pad", true);
    if (read_int(r, "resample", 0, 5, 2) != 2)
        fault(r, LB_STATUS_UNSUPPORTED, "resample", "is not 2 (bilinear); nothing else is supported");
    if (fabs(read_number(r, "rescale_factor", 1.0 / 255) * 255 - 1) > 1e-9)
        fault(r, LB_STATUS_UNSUPPORTED, "rescale_factor", "is not 1/255; nothing else is supported");
    read_three(r, "image_mean", p->mean);
    read_three(r, "image_std", p->std);
    for (int i = 0; i < 3; i++)
        if (!(p->std[i] > 0))
            fault(r, LB_STATUS_FORMAT, "image_std", "has something else than numbers above 0");
    reader size = inner(r, "size", "size.");
    p->shortest_edge = read_int(&size, "shortest_edge", 16, 16384, p->shortest_edge);
    p->longest_edge = read_int(&size, "longest_edge", 16, 16384, p->longest_edge);
    if (json_object_get(size.object, "height") || json_object_get(size.object, "width"))
        fault(&size, LB_STATUS_UNSUPPORTED, "height", "and width are fixed; only edges are supported");
    r->status = size.status;
}

static lb_status load(const char *path, json_t **json, lb_error *error) {
    char *bytes;
    size_t n;
    *json = NULL;
    lb_status status = lb_file_read(path, MAX_JSON_BYTES, &bytes, &n, error);
    if (status != LB_STATUS_OK)
        return status;
    json_error_t where;
    *json = json_loadb(bytes, n, JSON_REJECT_DUPLICATES, &where);
    free(bytes);
    if (!*json)
        return lb_error_set(error, LB_STATUS_FORMAT, "%s: line %d: %s", path, where.line, where.text);
    if (json_is_object(*json))
        return LB_STATUS_OK;
    json_decref(*json);
    *json = NULL;
    return lb_error_set(error, LB_STATUS_FORMAT, "%s: no JSON object", path);
}

lb_status lb_gdino_config_read(const char *folder, lb_gdino_config *config, lb_error *error) {
    char path[PATH_MAX];
    *config = (lb_gdino_config){0};
    json_t *json = NULL;
    if ((size_t)snprintf(path, sizeof path, "%s/processor_config.json", folder) >= sizeof path)
        return lb_error_set(error, LB_STATUS_IO, "%s: the path is too long", folder);
    snprintf(path, sizeof path, "%s/config.json", folder);
    lb_status status = load(path, &json, error);
    if (status != LB_STATUS_OK)
        return status;
    reader top = {path, "", json, LB_STATUS_OK, error};
    read_top(&top, config);
    json_decref(json);
    if (top.status != LB_STATUS_OK)
        return top.status;

    /* Newer folders have the same settings as a part of processor_config.json. */
    lb_error other = {0};
    snprintf(path, sizeof path, "%s/processor_config.json", folder);
    bool newer = load(path, &json, &other) == LB_STATUS_OK && json_is_object(json_object_get(json, "image_processor"));
    if (!newer) {
        json_decref(json);
        snprintf(path, sizeof path, "%s/preprocessor_config.json", folder);
        status = load(path, &json, error);
        if (status != LB_STATUS_OK)
            return status;
    }
    reader r = {path, newer ? "image_processor." : "", newer ? json_object_get(json, "image_processor") : json,
                LB_STATUS_OK, error};
    read_preprocess(&r, &config->preprocess);
    json_decref(json);
    return r.status;
}
