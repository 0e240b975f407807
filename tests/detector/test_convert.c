/* lb_convert on a small checkpoint folder that is made here: what arrives in the GGUF, and what is refused by name. */
#include "detector/convert.h"
#include "detector/model_internal.h"
#include "detector/names.h"
#include "detector/tensors.h"
#include "nn/backend.h"
#include "nn/gguf_file.h"

#include <ggml.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static char folder[] = "/tmp/lowbeam-convert-XXXXXX";

static const char config_json[] =
    "{\"model_type\":\"grounding-dino\",\"d_model\":32,\"encoder_layers\":1,\"decoder_layers\":2,\"num_queries\":7,"
    "\"encoder_ffn_dim\":64,\"decoder_ffn_dim\":64,\"encoder_attention_heads\":4,\"decoder_attention_heads\":4,"
    "\"backbone_config\":{\"model_type\":\"swin\",\"embed_dim\":8,\"depths\":[1,1,1,1],\"num_heads\":[1,2,2,4],"
    "\"window_size\":3,\"out_indices\":[2,3,4]},"
    "\"text_config\":{\"model_type\":\"bert\",\"hidden_size\":32,\"num_hidden_layers\":1,\"num_attention_heads\":2,"
    "\"intermediate_size\":40,\"vocab_size\":1040,\"max_position_embeddings\":16}}";
static const char preprocess_json[] = "{\"image_mean\":[0.485,0.456,0.406],\"image_std\":[0.229,0.224,0.225],"
                                      "\"size\":{\"shortest_edge\":800,\"longest_edge\":1333},\"resample\":2}";

static const char *in_folder(const char *name) {
    static char path[2][256];
    static int which;
    which = !which;
    snprintf(path[which], sizeof path[which], "%s/%s", folder, name);
    return path[which];
}

static void write_file(const char *name, const void *bytes, size_t n) {
    FILE *file = fopen(in_folder(name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    fclose(file);
}

static void write_vocabulary(int stop_at) {
    FILE *file = fopen(in_folder("vocab.txt"), "wb");
    assert_non_null(file);
    for (int i = 0; i < 1035; i++)
        fprintf(file,
                i == 100       ? "[UNK]\n"
                : i == 101     ? "[CLS]\n"
                : i == 102     ? "[SEP]\n"
                : i == stop_at ? ".\n"
                : i == 1029    ? "?\n"
                : i % 2        ? "##x%d\n"
                               : "w%d\n",
                i);
    fclose(file);
}

/* One change to the checkpoint that the config asks for. */
typedef struct change {
    const char *leave_out, *add, *rename_from, *rename_to, *nan_in, *transpose, *differ;
} change;

static float value(const char *name, size_t i) {
    unsigned h = 7;
    for (; *name; name++)
        h = h * 31 + (unsigned char)*name;
    return (float)((int)((h + 13 * (unsigned)i) % 2001) - 1000) / 1024.0f;
}

static void append_entry(char **json, size_t *used, const char *name, const lb_gdino_tensor *t, bool swapped,
                         size_t *offset) {
    *json = realloc(*json, *used + 512);
    *used += (size_t)sprintf(*json + *used, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[", *used > 1 ? "," : "", name);
    size_t n = 1;
    for (int d = 0; d < t->n_dims; d++) {
        int64_t side = t->shape[swapped ? t->n_dims - 1 - d : d];
        *used += (size_t)sprintf(*json + *used, "%s%lld", d ? "," : "", (long long)side);
        n *= (size_t)side;
    }
    *used += (size_t)sprintf(*json + *used, "],\"data_offsets\":[%zu,%zu]}", *offset, *offset + 4 * n);
    *offset += 4 * n;
}

static void write_checkpoint(change c) {
    lb_gdino_config config;
    lb_gdino_tensors *list;
    lb_error error = {0};
    if (lb_gdino_config_read(folder, &config, &error) != LB_STATUS_OK ||
        lb_gdino_tensors_list(&config, &list, &error) != LB_STATUS_OK)
        fail_msg("%s", error.message);
    char *json = strdup("{");
    size_t used = 1, offset = 0;
    FILE *data = tmpfile();
    assert_non_null(data);
    lb_gdino_tensor extra = {.n_dims = 1, .shape = {2}};
    for (size_t i = 0; i <= list->n; i++) {
        const lb_gdino_tensor *t = i < list->n ? &list->tensor[i] : &extra;
        const char *name = i < list->n ? t->name : c.add;
        if (!name || (c.leave_out && strcmp(name, c.leave_out) == 0))
            continue;
        if (c.rename_from && strncmp(name, c.rename_from, strlen(c.rename_from)) == 0) {
            char renamed[256];
            snprintf(renamed, sizeof renamed, "%s%s", c.rename_to, name + strlen(c.rename_from));
            append_entry(&json, &used, renamed, t, false, &offset);
        } else {
            append_entry(&json, &used, name, t, c.transpose && strcmp(name, c.transpose) == 0, &offset);
        }
        size_t n = 1;
        for (int d = 0; d < t->n_dims; d++)
            n *= (size_t)t->shape[d];
        for (size_t k = 0; k < n; k++) {
            float v = c.nan_in && strcmp(name, c.nan_in) == 0 && k == 3 ? NAN : value(name, k);
            fwrite(&v, sizeof v, 1, data);
        }
        if (c.differ && strcmp(name, c.differ) == 0) { /* the same once more under the decoder's name, one bit off */
            char other[256];
            snprintf(other, sizeof other, "model.decoder.%s", name);
            append_entry(&json, &used, other, t, false, &offset);
            for (size_t k = 0; k < n; k++) {
                float v = value(name, k) + (k == 1 ? 0.5f : 0);
                fwrite(&v, sizeof v, 1, data);
            }
        }
    }
    json = realloc(json, used + 2);
    strcpy(json + used++, "}");
    char *all = malloc(offset);
    rewind(data);
    assert_int_equal(fread(all, 1, offset, data), offset);
    fclose(data);
    FILE *file = fopen(in_folder("model.safetensors"), "wb");
    assert_non_null(file);
    uint64_t n_header = used;
    fwrite(&n_header, 8, 1, file);
    fwrite(json, 1, used, file);
    fwrite(all, 1, offset, file);
    fclose(file);
    free(json);
    free(all);
    lb_gdino_tensors_free(list);
}

static int set_up(void **state) {
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    write_file("config.json", config_json, sizeof config_json - 1);
    write_file("preprocessor_config.json", preprocess_json, sizeof preprocess_json - 1);
    write_vocabulary(1012);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    static const char *const names[] = {"config.json", "preprocessor_config.json", "vocab.txt", "model.safetensors",
                                        "out.gguf"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlink(in_folder(names[i]));
    return rmdir(folder); /* fails when a temporary file was left behind */
}

static void refuse(lb_status expected, const char *says) {
    lb_convert_result result;
    lb_error error = {0};
    unlink(in_folder("out.gguf"));
    lb_status status = lb_convert(folder, in_folder("out.gguf"), LB_CONVERT_F16, NULL, &result, &error);
    if (status != expected || !strstr(error.message, says))
        fail_msg("expected %s with '%s', got %s: %s", lb_status_name(expected), says, lb_status_name(status),
                 error.message);
    assert_int_not_equal(access(in_folder("out.gguf"), F_OK), 0);
}

static void convert(lb_convert_type type, lb_gguf **file) {
    lb_convert_result result;
    lb_error error = {0};
    if (lb_convert(folder, in_folder("out.gguf"), type, NULL, &result, &error) != LB_STATUS_OK ||
        lb_gguf_open(in_folder("out.gguf"), file, &error) != LB_STATUS_OK)
        fail_msg("%s", error.message);
    assert_int_equal(result.n_tensors, lb_gguf_n_tensors(*file));
}

/* Every tensor's values, rows and type. Limits: f16 keeps 11 bits of values below 1; q8_0 a 254th of a block's range.
 */
static void compare(lb_convert_type type) {
    lb_gguf *file;
    lb_gdino_config config;
    lb_gdino_tensors *list;
    convert(type, &file);
    assert_int_equal(lb_gdino_config_read(folder, &config, NULL), LB_STATUS_OK);
    assert_int_equal(lb_gdino_tensors_list(&config, &list, NULL), LB_STATUS_OK);
    int n_large = 0, n_q8 = 0;
    for (size_t i = 0; i < list->n; i++) {
        const lb_gdino_tensor *t = &list->tensor[i];
        char name[LB_GDINO_NAME_BYTES];
        lb_gguf_tensor g;
        assert_int_equal(lb_gdino_name(t->name, name, NULL), LB_STATUS_OK);
        if (!lb_gguf_find(file, name, &g))
            fail_msg("no %s in the GGUF", name);
        size_t n = 1;
        for (int d = 0; d < t->n_dims; d++) {
            assert_int_equal(g.ne[d], t->shape[t->n_dims - 1 - d]);
            n *= (size_t)t->shape[d];
        }
        if (t->n_dims == 1)
            assert_int_equal(g.type, GGML_TYPE_F32);
        n_large += g.type != GGML_TYPE_F32;
        n_q8 += g.type == GGML_TYPE_Q8_0;
        float *out = malloc(n * sizeof *out), limit = 0;
        if (g.type == GGML_TYPE_F32)
            memcpy(out, g.data, n * sizeof *out);
        else
            ggml_get_type_traits((enum ggml_type)g.type)->to_float(g.data, out, (int64_t)n);
        limit = g.type == GGML_TYPE_F16 ? 0x1p-12f : g.type == GGML_TYPE_Q8_0 ? 1.0f / 254 + 0x1p-11f : 0;
        for (size_t k = 0; k < n; k++)
            if (!(fabsf(out[k] - value(t->name, k)) <= limit))
                fail_msg("%s, value %zu: %g, in the checkpoint %g", name, k, (double)out[k], (double)value(t->name, k));
        free(out);
    }
    assert_int_equal(n_large > 0, type != LB_CONVERT_F32);
    assert_int_equal(n_q8 > 0, type == LB_CONVERT_Q8_0);
    int64_t number;
    assert_int_equal(lb_gguf_int(file, "gdino.d_model", &number, NULL), LB_STATUS_OK);
    assert_int_equal(number, 32);
    assert_int_equal(lb_gguf_array_n(file, "tokenizer.ggml.tokens"), 1035);
    assert_string_equal(lb_gguf_array_string(file, "tokenizer.ggml.tokens", 100), "[UNK]");
    assert_string_equal(lb_gguf_array_string(file, "tokenizer.ggml.tokens", 1011), "x1011");
    assert_string_equal(lb_gguf_array_string(file, "tokenizer.ggml.tokens", 1012), "\xE2\x96\x81.");
    lb_gguf_close(file);
    lb_gdino_tensors_free(list);
}

static void test_types(void **state) {
    (void)state;
    write_checkpoint((change){0});
    compare(LB_CONVERT_F32);
    compare(LB_CONVERT_F16);
    compare(LB_CONVERT_Q8_0);
    compare(LB_CONVERT_F16_EXACT);
}

/* The file's own word makes f32 of its f16 weights, and of no other file's. */
static void test_exact(void **state) {
    (void)state;
    const lb_convert_type types[] = {LB_CONVERT_F16, LB_CONVERT_F16_EXACT};
    write_checkpoint((change){0});
    for (int i = 0; i < 2; i++) {
        lb_gguf *file;
        lb_gguf_tensor part;
        lb_error error = {0};
        lb_gdino_model *model = calloc(1, sizeof *model);
        convert(types[i], &file);
        if (lb_gdino_declare(file, model, &error) != LB_STATUS_OK ||
            lb_gdino_declare_bert(file, model, &error) != LB_STATUS_OK)
            fail_msg("%s", error.message);
        assert_int_equal(model->hparams.exact, i == 1);
        lb_device device;
        ggml_backend_t backend;
        assert_int_equal(lb_device_find("cpu", &device, &error), LB_STATUS_OK);
        assert_int_equal(lb_backend_open(&device, 1, &backend, &error), LB_STATUS_OK);
        assert_int_equal(lb_weights_load(model->weights, backend, LB_COMPONENT_DETECTOR_WEIGHTS, &error), LB_STATUS_OK);
        const struct ggml_tensor *qkv = model->stage[0].block[0].qkv.w, *patch = model->patch.w;
        assert_int_equal(qkv->type, i == 1 ? GGML_TYPE_F32 : GGML_TYPE_F16);
        assert_int_equal(patch->type, qkv->type);
        assert_int_equal(model->bert.projection.w->type, qkv->type);
        assert_int_equal(model->bert.word->type, GGML_TYPE_F16);
        assert_true(lb_gguf_find(file, "swin.0.blocks.0.attn.value.weight", &part)); /* the last of the three */
        const int64_t n = part.ne[0] * part.ne[1];
        for (int64_t k = 0; k < n && i == 1; k++)
            assert_true(((const float *)qkv->data)[2 * n + k] ==
                        ggml_fp16_to_fp32(((const ggml_fp16_t *)part.data)[k]));
        lb_weights_free(model->weights);
        lb_weights_free(model->bert.weights);
        ggml_backend_free(backend);
        lb_gguf_close(file);
        free(model);
    }
}

static void test_by_name(void **state) {
    (void)state;
    write_checkpoint((change){.leave_out = "model.level_embed"});
    refuse(LB_STATUS_FORMAT, "missing tensor: model.level_embed");
    write_checkpoint((change){.add = "model.something.new"});
    refuse(LB_STATUS_FORMAT, "model.something.new");
    write_checkpoint((change){.transpose = "model.text_projection.weight"});
    lb_gguf *file; /* 32 x 32: nothing to see */
    convert(LB_CONVERT_F32, &file);
    lb_gguf_close(file);
    write_checkpoint((change){.transpose = "model.encoder.layers.0.deformable_layer.fc1.weight"});
    refuse(LB_STATUS_FORMAT, "model.encoder.layers.0.deformable_layer.fc1.weight has shape [32, 64]");
    write_checkpoint((change){.nan_in = "model.enc_output.weight"});
    refuse(LB_STATUS_NOT_FINITE, "tensor model.enc_output.weight: value 3 is NaN");
    write_checkpoint((change){.rename_from = "model.encoder.", .rename_to = "encoder."});
    refuse(LB_STATUS_FORMAT, "and 46 more");
    write_checkpoint((change){.add = "model.text_backbone.embeddings.position_ids"});
    convert(LB_CONVERT_F16, &file);
    lb_gguf_close(file);
}

/* The tiny model is published with bbox_embed.0, the base one with the decoder's name for it alone. */
static void test_heads(void **state) {
    (void)state;
    lb_gguf *file;
    lb_gguf_tensor t;
    write_checkpoint((change){.rename_from = "bbox_embed.0.", .rename_to = "model.decoder.bbox_embed.0."});
    convert(LB_CONVERT_F16, &file);
    assert_true(lb_gguf_find(file, "bbox_embed.0.layers.2.weight", &t));
    assert_true(((const float *)t.data)[5] == value("bbox_embed.0.layers.2.weight", 5));
    lb_gguf_close(file);
    write_checkpoint((change){.differ = "bbox_embed.0.layers.1.bias"});
    refuse(LB_STATUS_FORMAT, "bbox_embed.0.layers.1.bias and model.decoder.bbox_embed.0.layers.1.bias differ");
}

static void test_settings(void **state) {
    (void)state;
    const struct {
        const char *json;
        lb_status status;
        const char *says;
    } cases[] = {
        {"{", LB_STATUS_FORMAT, "config.json: line 1"},
        {"[]", LB_STATUS_FORMAT, "no JSON object"},
        {"{\"model_type\":\"bert\"}", LB_STATUS_UNSUPPORTED, "'model_type'"},
        {"{\"d_model\":-1}", LB_STATUS_FORMAT, "'d_model'"},
        {"{\"d_model\":250}", LB_STATUS_FORMAT, "'d_model'"},
        {"{\"encoder_layers\":1e3}", LB_STATUS_FORMAT, "'encoder_layers'"},
        {"{\"encoder_layers\":1000000000}", LB_STATUS_FORMAT, "'encoder_layers'"},
        {"{\"two_stage\":false}", LB_STATUS_UNSUPPORTED, "'two_stage'"},
        {"{\"backbone_config\":7}", LB_STATUS_FORMAT, "'backbone_config'"},
        {"{\"backbone_config\":{\"depths\":[]}}", LB_STATUS_FORMAT, "'backbone_config.depths'"},
        {"{\"backbone_config\":{\"depths\":[2,2]}}", LB_STATUS_FORMAT, "'backbone_config.num_heads'"},
        {"{\"backbone_config\":{\"out_indices\":[4,3]}}", LB_STATUS_FORMAT, "'backbone_config.out_indices'"},
        {"{\"backbone_config\":{\"num_heads\":[5,6,12,24]}}", LB_STATUS_FORMAT, "'backbone_config.num_heads'"},
        {"{\"text_config\":{\"vocab_size\":10}}", LB_STATUS_FORMAT, "'text_config.vocab_size'"},
        {"{\"text_config\":{\"hidden_act\":\"relu\"}}", LB_STATUS_UNSUPPORTED, "'text_config.hidden_act'"},
    };
    write_checkpoint((change){0});
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_file("config.json", cases[i].json, strlen(cases[i].json));
        refuse(cases[i].status, cases[i].says);
    }
    write_file("config.json", config_json, sizeof config_json - 1);
    write_file("preprocessor_config.json", "{\"resample\":3}", 14);
    refuse(LB_STATUS_UNSUPPORTED, "'resample'");
    write_file("preprocessor_config.json", "{\"image_std\":[1,0,1]}", 21);
    refuse(LB_STATUS_FORMAT, "'image_std'");
    unlink(in_folder("preprocessor_config.json"));
    refuse(LB_STATUS_NOT_FOUND, "preprocessor_config.json");
    write_file("preprocessor_config.json", preprocess_json, sizeof preprocess_json - 1);
    write_vocabulary(1011);
    refuse(LB_STATUS_FORMAT, "'.' is token 1011, Grounding DINO takes 1012");
    write_vocabulary(1012);
    atomic_bool cancel = true;
    lb_convert_result result;
    lb_error error = {0};
    assert_int_equal(lb_convert(folder, in_folder("out.gguf"), LB_CONVERT_F16, &cancel, &result, &error),
                     LB_STATUS_INTERRUPTED);
    assert_int_equal(lb_convert(folder, "/no/such/folder/x.gguf", LB_CONVERT_F16, NULL, &result, &error), LB_STATUS_IO);
}

/* Names that differ stay so, and all that the published sizes have fit into ggml's 63 bytes. */
static void test_names(void **state) {
    (void)state;
    char a[LB_GDINO_NAME_BYTES];
    assert_int_equal(lb_gdino_name("model.backbone.conv_encoder.model.encoder.layers.2.blocks.17.attention.self."
                                   "relative_position_bias_table",
                                   a, NULL),
                     LB_STATUS_OK);
    assert_string_equal(a, "swin.2.blocks.17.attn.rel_pos_table");
    assert_int_equal(lb_gdino_name("model.text_backbone.encoder.layer.0.attention.output.dense.weight", a, NULL),
                     LB_STATUS_OK);
    assert_string_equal(a, "bert.encoder.layer.0.attn_out.weight");
    char folder_of_none[] = "{}";
    write_file("config.json", folder_of_none, 2); /* transformers' defaults: the tiny model */
    lb_gdino_config config;
    lb_gdino_tensors *list;
    assert_int_equal(lb_gdino_config_read(folder, &config, NULL), LB_STATUS_OK);
    config.decoder_bbox_embed_share = false;
    assert_int_equal(lb_gdino_tensors_list(&config, &list, NULL), LB_STATUS_OK);
    char(*names)[LB_GDINO_NAME_BYTES] = calloc(list->n, sizeof *names);
    for (size_t i = 0; i < list->n; i++) {
        lb_error error = {0};
        if (lb_gdino_name(list->tensor[i].name, names[i], &error) != LB_STATUS_OK)
            fail_msg("%s", error.message);
        for (size_t k = 0; k < i; k++)
            if (strcmp(names[i], names[k]) == 0)
                fail_msg("%s and %s are both %s", list->tensor[i].name, list->tensor[k].name, names[i]);
    }
    free(names);
    lb_gdino_tensors_free(list);
    write_file("config.json", config_json, sizeof config_json - 1);
    char longest[300];
    memset(longest, 'a', sizeof longest);
    longest[299] = 0;
    assert_int_equal(lb_gdino_name(longest, a, NULL), LB_STATUS_UNSUPPORTED);
    longest[64] = 0;
    assert_int_equal(lb_gdino_name(longest, a, NULL), LB_STATUS_UNSUPPORTED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types), cmocka_unit_test(test_exact),    cmocka_unit_test(test_by_name),
        cmocka_unit_test(test_heads), cmocka_unit_test(test_settings), cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
