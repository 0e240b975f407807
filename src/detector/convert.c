#include "detector/convert.h"

#include "base/error.h"
#include "base/file.h"
#include "detector/convert_internal.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_VOCAB_BYTES ((size_t)64 << 20)

/* Names in one message: a few, and how many more. */
typedef struct name_list {
    char text[1024];
    size_t n;
} name_list;

static void note(name_list *list, const char *name) {
    size_t used = strlen(list->text);
    if (list->n++ < 4)
        snprintf(list->text + used, sizeof list->text - used, "%s%.128s", used ? ", " : "", name);
}

static const char *more(const name_list *list, char buffer[32]) {
    snprintf(buffer, 32, list->n > 4 ? " and %zu more" : "", list->n - 4);
    return buffer;
}

static const char *shape_text(int n_dims, const int64_t *shape, char buffer[192]) {
    size_t used = (size_t)snprintf(buffer, 192, "[");
    for (int d = 0; d < n_dims; d++)
        used += (size_t)snprintf(buffer + used, 192 - used, "%s%lld", d ? ", " : "", (long long)shape[d]);
    snprintf(buffer + used, 192 - used, "]");
    return buffer;
}

/* The heads of the decoder layers are one module under many names; a checkpoint keeps one or several of them (the tiny
 * one "bbox_embed.0.", the base one "model.decoder.bbox_embed.0."). Finds the first that is there, marks all as used,
 * and asks that they are equal. */
static lb_status find_head(const char *path, const lb_safetensors *file, const lb_gdino_config *config,
                           const char *name, bool *used, const lb_safetensors_tensor **found, lb_error *error) {
    int layer;
    char rest[128], other[192];
    *found = NULL;
    if (sscanf(name, "bbox_embed.%d.%127s", &layer, rest) != 2)
        return LB_STATUS_OK;
    for (int i = 0; i < config->decoder_layers; i++) {
        if (!config->decoder_bbox_embed_share && i != layer)
            continue;
        for (int alias = 0; alias < 2; alias++) {
            snprintf(other, sizeof other, "%sbbox_embed.%d.%s", alias ? "model.decoder." : "", i, rest);
            const lb_safetensors_tensor *t = lb_safetensors_find(file, other);
            if (!t)
                continue;
            used[t - lb_safetensors_at(file, 0)] = true;
            if (!*found)
                *found = t;
            else if (t->dtype != (*found)->dtype || t->n_bytes != (*found)->n_bytes ||
                     memcmp(t->data, (*found)->data, t->n_bytes) != 0)
                return lb_error_set(error, LB_STATUS_FORMAT,
                                    "%s: tensors %s and %s differ, but the config makes them one "
                                    "(decoder_bbox_embed_share)",
                                    path, (*found)->name, t->name);
        }
    }
    return LB_STATUS_OK;
}

static lb_status check_one(const char *path, const lb_gdino_tensor *wanted, const lb_safetensors_tensor *t,
                           lb_error *error) {
    char has[192], needs[192];
    if (t->n_dims != wanted->n_dims || memcmp(t->shape, wanted->shape, (size_t)t->n_dims * sizeof *t->shape) != 0)
        return lb_error_set(error, LB_STATUS_FORMAT, "%s: tensor %s has shape %s, config.json makes it %s", path,
                            t->name, shape_text(t->n_dims, t->shape, has),
                            shape_text(wanted->n_dims, wanted->shape, needs));
    if (t->dtype == LB_SAFETENSORS_OTHER)
        return lb_error_set(error, LB_STATUS_UNSUPPORTED, "%s: tensor %s has dtype %s; F32, F16 and BF16 are read",
                            path, t->name, t->dtype_name);
    return LB_STATUS_OK;
}

lb_status lb_convert_match(const char *path, const lb_safetensors *file, const lb_gdino_config *config,
                           const lb_gdino_tensors *list, const lb_safetensors_tensor **source, size_t *n_unused,
                           lb_error *error) {
    lb_status status = LB_STATUS_OK;
    name_list missing = {0}, surplus = {0};
    char end[32];
    *n_unused = 0;
    size_t n = lb_safetensors_n(file);
    bool *used = calloc(n + 1, sizeof *used);
    if (!used)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", path);
    for (size_t i = 0; i < list->n && status == LB_STATUS_OK; i++) {
        const lb_gdino_tensor *wanted = &list->tensor[i];
        status = find_head(path, file, config, wanted->name, used, &source[i], error);
        if (status == LB_STATUS_OK && !source[i])
            source[i] = lb_safetensors_find(file, wanted->name);
        if (status == LB_STATUS_OK && source[i]) {
            used[source[i] - lb_safetensors_at(file, 0)] = true;
            status = check_one(path, wanted, source[i], error);
        } else if (!source[i]) {
            note(&missing, wanted->name);
        }
    }
    for (size_t i = 0; i < n && status == LB_STATUS_OK; i++) {
        if (used[i])
            continue;
        if (lb_gdino_tensor_unused(lb_safetensors_at(file, i)->name))
            (*n_unused)++;
        else
            note(&surplus, lb_safetensors_at(file, i)->name);
    }
    if (status == LB_STATUS_OK && missing.n)
        status = lb_error_set(error, LB_STATUS_FORMAT, "%s: missing %s: %s%s%s", path,
                              missing.n == 1 ? "tensor" : "tensors", missing.text, more(&missing, end),
                              surplus.n ? " (it holds others instead: is it a GroundingDinoForObjectDetection?)" : "");
    if (status == LB_STATUS_OK && surplus.n)
        status = lb_error_set(error, LB_STATUS_FORMAT, "%s: %s that config.json gives no place: %s%s", path,
                              surplus.n == 1 ? "a tensor" : "tensors", surplus.text, more(&surplus, end));
    free(used);
    return status;
}

/* The model's text masks are built around these four ids (transformers' SPECIAL_TOKENS). */
static lb_status check_vocabulary(const char *path, const lb_wordpiece *vocabulary, int vocab_size, lb_error *error) {
    static const struct {
        const char *token;
        int32_t id;
    } special[] = {{"[CLS]", 101}, {"[SEP]", 102}, {".", 1012}, {"?", 1029}};
    for (size_t i = 0; i < sizeof special / sizeof *special; i++)
        if (lb_wordpiece_find(vocabulary, special[i].token) != special[i].id)
            return lb_error_set(error, LB_STATUS_FORMAT, "%s: '%s' is token %d, Grounding DINO takes %d for it", path,
                                special[i].token, lb_wordpiece_find(vocabulary, special[i].token), special[i].id);
    if (lb_wordpiece_n(vocabulary) > (size_t)vocab_size)
        return lb_error_set(error, LB_STATUS_FORMAT, "%s: %zu tokens, but config.json has a vocab_size of %d", path,
                            lb_wordpiece_n(vocabulary), vocab_size);
    return LB_STATUS_OK;
}

static lb_status read_vocabulary(const char *path, int vocab_size, lb_wordpiece **vocabulary, lb_error *error) {
    char *bytes;
    size_t n;
    *vocabulary = NULL;
    lb_status status = lb_file_read(path, MAX_VOCAB_BYTES, &bytes, &n, error);
    if (status != LB_STATUS_OK)
        return status;
    status = lb_wordpiece_from_vocab(path, bytes, n, vocabulary, error);
    free(bytes);
    return status == LB_STATUS_OK ? check_vocabulary(path, *vocabulary, vocab_size, error) : status;
}

lb_status lb_convert(const char *folder, const char *out_path, lb_convert_type type, const atomic_bool *cancel,
                     lb_convert_result *result, lb_error *error) {
    *result = (lb_convert_result){0};
    char weights_path[PATH_MAX], vocab_path[PATH_MAX];
    if ((size_t)snprintf(weights_path, sizeof weights_path, "%s/model.safetensors", folder) >= sizeof weights_path ||
        (size_t)snprintf(vocab_path, sizeof vocab_path, "%s/vocab.txt", folder) >= sizeof vocab_path)
        return lb_error_set(error, LB_STATUS_IO, "%s: the path is too long", folder);
    lb_safetensors *file = NULL;
    lb_wordpiece *vocabulary = NULL;
    lb_gdino_tensors *list = NULL;
    const lb_safetensors_tensor **source = NULL;
    lb_gdino_config config;
    lb_status status = lb_gdino_config_read(folder, &config, error);
    if (status != LB_STATUS_OK ||
        (status = read_vocabulary(vocab_path, config.bert.vocab_size, &vocabulary, error)) != LB_STATUS_OK ||
        (status = lb_safetensors_open(weights_path, &file, error)) != LB_STATUS_OK ||
        (status = lb_gdino_tensors_list(&config, &list, error)) != LB_STATUS_OK)
        goto cleanup;
    source = calloc(list->n, sizeof *source);
    if (!source) {
        status = lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory", folder);
        goto cleanup;
    }
    status = lb_convert_match(weights_path, file, &config, list, source, &result->n_unused, error);
    if (status == LB_STATUS_OK)
        status = lb_convert_write(out_path, type, &config, vocabulary, list, source, cancel, &result->n_bytes, error);
    result->n_tensors = list->n;
cleanup:
    free(source);
    lb_gdino_tensors_free(list);
    lb_safetensors_close(file);
    lb_wordpiece_free(vocabulary);
    return status;
}
